// A tab at work: the account at its gateway, the jobs that it takes part in, what it earned and used.

import { tip } from "../atoll/beacon.js";
import { ENLIST, REGISTRATION } from "../atoll/eip712.js";
import { TAGS, encodeDomain, hex, keccak, tagged, unhex, utf8 } from "../atoll/hashing.js";
import { reasonName } from "../atoll/refused.js";
import { Courier } from "./courier.js";
import { Engine } from "./engine.js";
import { HourMeter, TOO_LATE, perHour, whyNot } from "./limits.js";
import { NOTICES } from "./notices.js";
import { Connection } from "./socket.js";
import { Record } from "./record.js";
import { KINDS } from "./status.js";
import { JobWork } from "./work.js";

const WORKER = 1;
const LIGHT = 32;
const VERSION = 1;
const STATEMENT_PAGES = 25; // that are looked through at once
const KEPT_NOTICES = 20;
const ERRAND_PAUSE = 30_000; // milliseconds until a refused registration is tried again

/** The account's work in this tab; calls `onChange()` whenever something that is shown may have changed. */
export class Session {
  running = true;
  connection = "connecting";
  wait = 0;
  full = "";
  account = null;
  joining = "";
  task = null;
  progress = 0;
  record = new Record();
  notices = [];
  started = performance.now();
  busy = 0;
  paused = false;
  jobs = new Map(); // job -> what the gateway told of it
  #works = new Map(); // job -> promise of its JobWork
  #open = new Map(); // job -> its JobWork
  #network = null;
  #errand = 0;
  #allowed = true;
  #settled = null; // what was earned when the statement was looked at last

  /**
   * @param {{identity: import("./keys.js").Identity, limits: import("./limits.js").Limits, light: boolean,
   *   address: string, store: import("./store.js").Store, remember: (network: import("./keys.js").Network) => void,
   *   facts: () => {hidden: boolean, battery: object | null}, onChange: () => void, late: number,
   *   onLate: (times: number) => boolean}} options `late`: whole units that came too late one after another; `onLate`
   *   is told when that changes, and answers whether small units are wanted now
   */
  constructor(options) {
    this.options = options;
    this.limits = options.limits;
    this.light = options.light;
    this.late = options.late;
    this.data = new HourMeter();
    this.engine = new Engine((progress) => this.#show({ progress }));
    this.courier = new Courier({ count: (bytes) => this.#count(bytes), token: () => this.account?.token ?? "" });
    this.socket = new Connection(options.address, {
      onMessage: (message, size) => this.#hear(message, size),
      onState: (state, wait, reason) => this.#connected(state, wait, reason),
      onSent: (size) => this.#count(size),
    });
  }

  start() {
    this.socket.start();
    this.look();
  }

  /** Leave: what was shown to the committee is still checked and paid. */
  stop() {
    this.running = false;
    this.socket.ask({ type: "bye" }).catch(() => {}); // it is gone, or goes now
    this.socket.stop();
    this.engine.close();
    for (const work of this.#open.values()) work.close();
    this.#show({ task: null });
  }

  /** Look at the limits again: begin, go on or wait. */
  look() {
    const bytesThisHour = this.data.lastHour(performance.now());
    this.why = whyNot(this.limits, { ...this.options.facts(), paused: this.paused, bytesThisHour });
    this.engine.pace(this.why ? 0 : this.limits.cpuShare / 100);
    const allowed = this.why === "";
    if (allowed !== this.#allowed) {
      this.#allowed = allowed;
      for (const work of this.#open.values()) work.feed({ type: "allow", work: allowed });
      if (this.account) this.socket.ask({ type: "pause", paused: !allowed }).catch(() => {}); // said again at hello
    }
    if (this.account) this.#settleIn();
    this.options.onChange();
  }

  pause(paused) {
    this.paused = paused;
    this.look();
  }

  /** Ask the gateway to claim what is final. @returns {Promise<string>} what to tell the person */
  async claim() {
    const answer = await this.socket.ask({ type: "claim" }).catch(() => null);
    if (answer?.type === "taken") return "The gateway claims it for you. The balance changes in a moment.";
    return answer ? `Not now: ${answer.detail}` : "The gateway did not answer. Try again in a moment.";
  }

  /** Tokens an hour by what came in so far, as base units; null while there is too little to tell. */
  get rate() {
    const { earned, accepted } = this.record;
    const hourly = perHour(Number(earned), performance.now() - this.started, accepted);
    return hourly === null ? null : String(BigInt(Math.round(hourly)));
  }

  /** Percent of one core that was used since the start. */
  get share() {
    return Math.round((100 * this.busy) / Math.max(1, performance.now() - this.started));
  }

  /** What is known of each job, for people. */
  get standing() {
    return [...this.jobs.values()].map((job) => {
      const duties = this.#open.get(job.job)?.duties;
      const onRoster = duties?.state.roster.includes(this.options.identity.account) ?? false;
      const following = (duties?.ahead ?? null) !== null;
      return { ...job, state: duties?.state ?? null, phase: duties?.phase ?? 0, onRoster, following };
    });
  }

  #show(fields) {
    Object.assign(this, fields);
    this.options.onChange();
  }

  #count(bytes) {
    this.data.add(bytes, performance.now());
  }

  // -- the gateway ---------------------------------------------------------------------------------------------------
  #connected(state, wait, reason) {
    if (state !== "open") this.account = null;
    this.#show({ connection: state, wait, full: reason || this.full });
  }

  #hear(message, size) {
    this.#count(size);
    const hear = {
      welcome: () => this.#welcome(message),
      full: () => this.#show({ full: String(message.detail) }),
      account: () => this.#standing(message),
      job: () => this.#job(message),
      round: () => this.#round(message),
      verdict: () => this.#verdict({ ...message, signed: false }),
    }[message.type];
    Promise.resolve(hear?.()).catch((error) => this.#tell("notice", { code: "broken", detail: String(error) }));
  }

  async #welcome(told) {
    if (told.version !== VERSION) return this.#tell("notice", { code: "version" });
    const { identity, remember } = this.options;
    const network = { chainId: told.chain_id, registry: told.registry };
    const before = identity.network;
    if (before && (before.chainId !== network.chainId || before.registry !== network.registry)) {
      this.#tell("notice", { code: "network" });
    }
    remember(network);
    this.#network = { ...network, ...told, domain: { chainId: network.chainId, registry: unhex(network.registry) } };
    const { endpoint, challenge } = told;
    const parts = [encodeDomain(this.#network.domain), unhex(endpoint), unhex(challenge), identity.key.account];
    const signature = hex(identity.key.sign(tagged(TAGS.JOIN, ...parts)));
    const answer = await this.socket.ask({ type: "hello", account: identity.account, signature });
    if (answer.type === "refused") return this.#show({ joining: `The gateway refused this key: ${answer.detail}` });
    this.socket.settle();
    if (!this.#allowed) this.socket.ask({ type: "pause", paused: true }).catch(() => {}); // said again at the next one
    for (const work of this.#open.values()) work.feed({ type: "again" });
    return undefined;
  }

  #standing(told) {
    this.#show({ account: told });
    const earned = BigInt(told.earned);
    if (this.#settled !== null && earned > this.#settled) this.#reconcile();
    this.#settled = earned;
    this.#settleIn();
  }

  /** Find in the account's statement what was not told while the connection was lost. */
  async #reconcile() {
    try {
      for (let page = 1, pages = 1; page <= Math.min(pages, STATEMENT_PAGES); page++) {
        const found = await this.courier.statement(this.options.identity.account, page);
        pages = found.pages;
        const differs = () => this.#notice({ code: "verdict-differs" });
        if (!this.record.reconcile(found.lines, differs) && page > 1) break; // newest first: the rest is older
      }
    } catch {
      return; // the gateway has none now: it is asked for again when more is settled
    }
    this.options.onChange();
  }

  #job(told) {
    this.jobs.set(told.job, told);
    if (told.done) this.#finish(told);
    this.#settleIn();
    this.options.onChange();
  }

  /** A job is over: its last certificate counts, then its memory is given back. */
  async #finish({ job, certificate }) {
    const work = this.#open.get(job);
    if (certificate) await work?.feed({ type: "ended", certificate });
    await work?.release();
  }

  async #round(told) {
    const at = Date.now();
    this.record.begins(told.job, told.round);
    const work = await this.#workOf(told.job);
    await work?.feed({ ...told, type: "round", at });
  }

  // -- joining -------------------------------------------------------------------------------------------------------
  /** Register, then enlist: one after another, and not again for a while after a refusal. */
  #settleIn() {
    if (!this.running || this.account === null || this.why || performance.now() < this.#errand) return;
    const errand = this.#nextErrand();
    if (errand === null) return this.#show({ joining: "" });
    this.#errand = Infinity;
    this.#show({ joining: errand.sentence });
    this.#ask(errand.message).then((refusal) => {
      this.#errand = refusal ? performance.now() + ERRAND_PAUSE : 0;
      this.#show({ joining: refusal && `${errand.sentence} The gateway refused: ${refusal}` });
      if (!refusal) errand.done();
    });
    return undefined;
  }

  async #ask(message) {
    try {
      const answer = await this.socket.ask(message);
      return answer.type === "taken" ? "" : String(answer.detail);
    } catch {
      return "no answer. Trying again.";
    }
  }

  #nextErrand() {
    const { account } = this;
    const roles = this.light ? WORKER | LIGHT : WORKER;
    const working = [...this.jobs.values()].some((job) => job.enlisted && !job.done);
    if (!account.registered || (account.roles !== roles && !working)) return this.#registration(roles);
    if (working) return null;
    const open = [...this.jobs.values()].filter((job) => !job.enlisted && !job.done && (job.places ?? 1) > 0);
    open.sort((left, right) => (BigInt(right.unit_price) > BigInt(left.unit_price) ? 1 : -1));
    return open.length ? this.#enlistment(open[0]) : null;
  }

  #registration(roles) {
    const { key } = this.options.identity;
    const { chainId, registry, endpoint } = this.#network;
    const { hints, nonce } = this.account;
    const fields = { account: key.account, endpointId: unhex(endpoint), roles, hints: keccak(utf8(hints)), nonce };
    const digest = REGISTRATION.digest({ chainId, address: unhex(registry) }, fields);
    const message = { type: "register", roles, signature: hex(key.sign(digest)) };
    const done = () => Object.assign(this.account ?? {}, { registered: true, roles });
    return { sentence: "Writing your account into the registry.", message, done };
  }

  #enlistment(job) {
    const { key } = this.options.identity;
    const last = tip(this.#seed(job.job), job.rounds);
    const fields = { job: unhex(job.job), account: key.account, tip: last };
    const digest = ENLIST.digest({ chainId: this.#network.chainId, address: unhex(this.#network.jobs) }, fields);
    const message = { type: "enlist", job: job.job, tip: hex(last), signature: hex(key.sign(digest)) };
    return { sentence: `Joining the job ${job.name}.`, message, done: () => Object.assign(job, { enlisted: true }) };
  }

  /** Start of the account's secrets for a job: from the key, so that a reload finds them again; as in a node. */
  #seed(job) {
    const { secret } = this.options.identity.key;
    return keccak(utf8("atoll/seed/1"), secret, encodeDomain(this.#network.domain), unhex(job));
  }

  // -- working -------------------------------------------------------------------------------------------------------
  #workOf(job) {
    const told = this.jobs.get(job);
    if (!told) return null;
    if (!this.#works.has(job)) this.#works.set(job, this.#begin(told));
    return this.#works.get(job);
  }

  async #begin({ job, segments, manifest, first_committee: firstCommittee }) {
    const { identity, store } = this.options;
    const { chainId, registry, jobs } = this.#network;
    const secret = keccak(utf8("atoll/salt/1"), this.#seed(job));
    const salt = (unit) => hex(keccak(secret, unhex(unit)));
    const me = { account: identity.account, key: identity.key, salt };
    const tools = {
      engine: this.engine,
      courier: this.courier,
      store,
      say: (raw) => this.socket.ask({ type: "say", raw }),
      tell: (kind, fields) => this.#tell(kind, fields),
    };
    const work = await JobWork.open({ chainId, registry, jobs, job, segments, manifest, firstCommittee }, me, tools);
    this.#open.set(job, work);
    await work.feed({ type: "allow", work: this.#allowed });
    if (this.#allowed) work.warm();
    return work;
  }

  #tell(kind, fields) {
    if (kind === "notice") this.#notice(fields);
    else if (kind === "verdict") {
      this.#verdict({ ...fields, kind: KINDS[fields.kind], reason: reasonName(fields.reason) });
    } else if (kind === "busy") this.busy += (fields.milliseconds * this.limits.cpuShare) / 100;
    else if (kind === "task") this.#task(fields);
    this.options.onChange();
  }

  #task({ what, unit, begun }) {
    if (begun) this.#show({ task: { what, unit, name: this.jobs.get(unit.job)?.name ?? "a job" }, progress: 0 });
    else if (this.task?.unit.id === unit.id) this.#show({ task: null, progress: 0 });
  }

  #notice({ code: told, round, unit, detail, job }) {
    const code = told === "late" && this.#isWhole(job, unit) ? this.#tooLate() : told;
    const text = NOTICES[code] ?? code;
    const where = round !== undefined && round >= 0 ? `Round ${round + 1}: ` : "";
    const last = this.notices[0];
    if (last?.code === code && last.unit === unit && last.round === round) return;
    this.notices.unshift({ code, round, unit, text: where + text, detail: detail ?? "" });
    this.notices.length = Math.min(this.notices.length, KEPT_NOTICES);
  }

  /** Whether it is an own unit of a size that a small one could take the place of. */
  #isWhole(job, unit) {
    const own = this.#open.get(job)?.duties.state.units[unit];
    const small = own === undefined || own.audit || own.unit.segments === 1;
    return !small && !this.light;
  }

  /** A whole unit came too late: small ones may suit this device better, or are taken from now on. */
  #tooLate() {
    this.late += 1;
    const wanted = this.options.onLate(this.late);
    if (!wanted || this.late < TOO_LATE) return "late-whole";
    this.light = true;
    return "smaller";
  }

  /** A verdict: from the certificate that a committee signed, and from the gateway, who adds what is owed for it. */
  #verdict(told) {
    const { round, unit, kind, reason } = told;
    const row = this.record.take(told, () => this.#notice({ code: "verdict-differs", round, unit }));
    if (row && kind === "unit" && reason === "OK" && this.late && !this.light) {
      this.late = 0;
      this.options.onLate(0);
    }
    this.options.onChange();
  }
}
