// What the page says, in words. Pure.

const UNIT = 10n ** 18n;
const PLACES = 4;

/** An amount of base units (decimal text) in tokens, for people: "12.5". */
export function tokens(amount) {
  const value = BigInt(amount);
  const sign = value < 0n ? "-" : "";
  const size = value < 0n ? -value : value;
  const rest = (size % UNIT).toString().padStart(18, "0").slice(0, PLACES).replace(/0+$/, "");
  return `${sign}${size / UNIT}${rest ? `.${rest}` : ""}`;
}

/** Bytes for people: "3.2 MB". */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}

/** The kinds of work by their number in verdicts and receipts. */
export const KINDS = { 1: "unit", 2: "audit", 3: "replica" };

/** What a kind of work is called. */
export const WORK = { unit: "Training", audit: "Check of another's unit", replica: "Replay of a disputed unit" };

const DOING = {
  unit: "Training a unit",
  audit: "Checking the unit of another device",
  replica: "Running a disputed unit again",
};

/**
 * The present state in one sentence.
 * @param {{running: boolean, connection: string, wait: number, full: string, why: string, account: object | null,
 *   joining: string, task: {what: string, unit: object, name: string} | null, jobs: object[]}} facts
 */
export function sentence(facts) {
  if (!facts.running) return "Stopped.";
  const { task, why } = facts;
  if (facts.connection === "full") return `No place is free: ${facts.full || "the gateway is full"}. Trying again.`;
  if (facts.connection === "ended") return `The gateway closed the connection: ${facts.full || "no reason was given"}.`;
  const seconds = Math.ceil(facts.wait / 1000);
  if (facts.connection === "closed") return `The connection is lost; trying again in ${seconds} s.`;
  if (facts.connection !== "open" || facts.account === null) return "Connecting to the gateway.";
  if (why) return task ? `${why} The unit under way waits.` : why;
  if (task) return `${DOING[task.what]} of ${task.name}, round ${task.unit.round + 1}.`;
  if (facts.joining) return facts.joining;
  return waiting(facts.jobs);
}

/** What is waited for when nothing runs. */
function waiting(jobs) {
  const open = jobs.filter((job) => !job.done);
  if (!jobs.length) return "No job is open now. Waiting for one.";
  if (!open.length) return "The job is done. Waiting for a new one.";
  const behind = open.find((job) => job.following);
  if (behind) return followed(behind);
  const joined = open.find((job) => job.state && job.state.round >= 0);
  if (!joined) {
    const places = open.some((job) => job.enlisted || job.places > 0);
    return places ? "Joined. Waiting for the job to begin." : "All places in the open jobs are taken. Waiting for one.";
  }
  const round = `Round ${joined.state.round + 1} of ${joined.rounds}`;
  const own = Object.values(joined.state.units).find((unit) => !unit.audit && !unit.replica);
  if (!joined.onRoster) return `${round}: this device is announced and takes part from the next round on.`;
  if (joined.phase >= 4) return `${round}: waiting for the verdicts.`;
  if (own?.locked === false) return `${round}: the unit is not in the committee's list. Waiting for the next round.`;
  if (!own) return `${round}: no unit for this device. Waiting for the next round.`;
  if (joined.phase === 3) return `${round}: opened. Others compare the results.`;
  if (own.states && joined.phase === 0) return `${round}: the unit is done and committed. Waiting for the others.`;
  if (own.locked) return `${round}: committed. Waiting for the audits.`;
  if (joined.phase === 0) return `${round}: getting the unit ready.`;
  return `${round}: under way without this device. Waiting for the next one.`;
}

function followed({ state, rounds }) {
  return `Checking who may decide now: round ${Math.max(0, state.round) + 1} of ${rounds}.`;
}

/**
 * Which jobs could be joined and what they pay, before the start: from the rows of /jobs.json.
 * @param {object[]} jobs
 * @param {string} unit name of the token
 */
export function offers(jobs, unit) {
  const open = jobs.filter((job) => job.state !== "done" && job.places !== 0);
  if (!open.length) {
    const full = jobs.some((job) => job.state !== "done");
    return `${full ? "All places in the open jobs are taken" : "No job is open"} now. You can start and wait for one.`;
  }
  const told = open.slice(0, 3).map((job) => {
    const name = job.label || job.name || "a job";
    if (job.unit_price === null) return name;
    const small = job.segments > 1 ? `, a small one ${tokens(BigInt(job.unit_price) / BigInt(job.segments))}` : "";
    return `${name} pays ${tokens(job.unit_price)} ${unit} for an accepted unit${small}`;
  });
  const more = open.length > told.length ? `; and ${open.length - told.length} more` : "";
  return `Open now: ${told.join("; ")}${more}.`;
}

/** What a visit came to, for when it has ended. */
export function summary(earned, accepted, unit) {
  const pieces = `${accepted} ${accepted === 1 ? "piece" : "pieces"} of work accepted`;
  const rest = "What was shown and has no verdict yet is still checked and paid.";
  return `In this visit: ${tokens(earned)} ${unit} earned, ${pieces}. ${rest}`;
}

/** What browsers allow on this page: [name, sentence] rows. @param {Window & typeof globalThis} window */
export function deviceFacts({ isSecureContext, crossOriginIsolated, navigator }, store) {
  const gpu = "gpu" in navigator && isSecureContext;
  return [
    ["Connection", isSecureContext ? "A secure context (https, or this very device)."
      : "Plain http: no secure context."],
    ["Graphics processor", gpu ? "There is one, but units run on the processor: results must agree with others' to a " +
      "small tolerance." : "Not available to this page. Units run on the processor."],
    ["Threads", crossOriginIsolated ? "Possible; one is used." : "Not available to this page. One core is used."],
    ["Battery", "getBattery" in navigator ? "The browser tells its level and whether it is being charged."
      : "This browser does not tell. Watch it yourself."],
    ["Wake lock", "wakeLock" in navigator ? "The screen stays on while this page works and can be seen."
      : "Not available to this page. The device may fall asleep: keep the screen on yourself."],
    ["Storage", store?.lasting === false ? "This window keeps nothing: a reload loses the unit under way."
      : "A reload goes on with the unit that is finished but not opened."],
  ];
}
