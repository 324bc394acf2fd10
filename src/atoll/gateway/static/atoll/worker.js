// The Web Worker that trains: start it with  new Worker("…/atoll/worker.js", { type: "module" }).
//
// Each question is {id, op, ...}; the answer is {id, ...} or {id, error: {reason, detail}}. `id` is any number or text
// of the page's own; while a unit runs, {id, progress: 0..1} may come before the answer. Questions about a job are
// carried out one after another; `pace` and `stop` take effect at once, between two steps. Bytes are Uint8Array, jobs
// and units are told apart by the hex of their ids. Byte arrays in answers are moved, not copied; what the page sends
// stays its own unless it moves it.
//
//   {op: "open", manifest, step, params?, manifestId?, wasmPaths?} -> {job, facts}
//       Check a job (manifest and step graph, against `manifestId` from the chain if given) and load it. `job` (hex of
//       the manifest's id) names it from now on. `params` (the file of first values) is needed where facts.frozen > 0
//       tensors never change. `wasmPaths` {mjs, wasm}: where ONNX Runtime's files are; by default ../vendor beside us.
//       facts: {name, segments, steps, segment, batch, modelBytes, stateBytes, updateBytes, sampleBytes, frozen, ops}
//   {op: "plan", job, unit} -> {unit: id, rows, wanted}
//       unit: {domain: {chainId, registry}, job, round, index, account, shard, beacon, shards, segments?, id?}; `job`
//       inside is the 32-byte id on the chain, `shards` into how many parts the data is cut, `segments` what this unit
//       has (1 for a light one; all by default), `id` is compared with ours. rows: Uint32Array, the sample of each
//       place of each step; wanted: Uint32Array, each of them once and in rising order: what to download.
//   {op: "samples", job, indices, packed} -> {kept}
//       packed: msgpack [[sample, [proof hashes]], ...] for `indices`. Proofs are checked; good samples are kept.
//   {op: "missing", job, unit} -> {wanted}            which samples of a unit's are not kept yet
//   {op: "unit", job, unit, model} -> {unit, states, ids, root, update, updateId, losses, milliseconds}
//       model: MODEL BYTES. states: STATE BYTES after each segment; ids: the model's id, then those of the states (what
//       a Reveal lists); root: their Merkle root; updateId: of the update. An audit is the same question about the
//       other worker's unit. Commit to commitHash(..., account, root, updateId, salt) of units.js.
//   {op: "replay", job, unit, model, states, update} -> {segment, state, stateId, milliseconds}
//       states: the worker's own after each segment (null: not opened). segment and stateId are a Replay's fields.
//   {op: "compare", job, state, reference, start, kind} -> {within, distance, reference}
//       kind "unit" (start: MODEL BYTES) or "segment" (start: STATE BYTES); the sums are decimal texts.
//   {op: "forget", job} -> {}                          drop the samples kept
//   {op: "close", job} -> {}                           give back the memory
//   {op: "pace", share} -> {share}                     work this share of the time: 1 all of it, 0 pauses
//   {op: "stop", what} -> {stopped}                    end the question with the id `what` (error reason "STOPPED")
//
// Reasons are those of refused.js, and STOPPED (asked to), ENGINE (ONNX Runtime failed) and BAD_QUESTION (the page's
// own mistake).

import { compareSegment, within } from "./compare.js";
import { blobId, hex } from "./hashing.js";
import { Refused, need } from "./refused.js";
import { openSamples } from "./samples.js";
import { Bench } from "./train.js";
import { statesRoot } from "./units.js";

const VENDOR = new URL("../vendor/", import.meta.url);
const TURN = 40; // milliseconds of work between two looks at what the page says
const SLEEP = 200; // the longest sleep at once, so that a new pace counts soon

const jobs = new Map(); // hex of the manifest's id -> {bench, samples: Map(index -> bytes)}
const stopped = new Set(); // ids of questions that are to end
let share = 1;
let runtime = null; // promise of ONNX Runtime's module
let queue = Promise.resolve();

/** ONNX Runtime Web on one thread; its WebAssembly may come gzipped, by name or by Content-Encoding. */
async function loadRuntime(paths = {}) {
  const ort = await import(new URL("ort.wasm.min.mjs", VENDOR).href);
  const mjs = new URL(paths.mjs ?? "ort-wasm-simd-threaded.mjs", VENDOR).href;
  const answer = await fetch(new URL(paths.wasm ?? "ort-wasm-simd-threaded.wasm.gz", VENDOR));
  if (!answer.ok) throw new Refused("NOT_FOUND", `ONNX Runtime: HTTP ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const zipped = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const stream = () => new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = zipped ? await new Response(stream()).arrayBuffer() : bytes.buffer;
  ort.env.wasm.wasmPaths = { mjs };
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  return ort;
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Let waiting messages in, without the minimum delay of timers. */
function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** What happens between two steps of a question: progress is told, a stop is obeyed, the pace is kept. */
function restOf(id) {
  let worked = performance.now();
  let told = 0;
  return async (progress) => {
    const busy = performance.now() - worked;
    if (busy < TURN && share === 1) return;
    let owed = share > 0 ? (busy * (1 - share)) / share : Infinity;
    do {
      await turn();
      if (stopped.delete(id)) throw new Refused("STOPPED", "the page ended this work");
      if (share === 1) break;
      if (share > 0 && owed === Infinity) owed = 0;
      const pause = Math.min(SLEEP, owed);
      await sleep(pause);
      owed -= pause;
    } while (share === 0 || owed > 0);
    worked = performance.now();
    if (worked - told > 100) {
      told = worked;
      self.postMessage({ id, progress });
    }
  };
}

function entryOf(question) {
  const entry = jobs.get(question.job);
  need(entry, "BAD_QUESTION", `job ${question.job} is not open`);
  return entry;
}

function missing({ bench, samples }, unit) {
  const distinct = [...new Set(bench.rows(unit))].filter((index) => !samples.has(index));
  return Uint32Array.from(distinct).sort();
}

/** The bytes of the sample in each place of a unit's rows. */
function sampler({ bench, samples }, unit) {
  const rows = bench.rows(unit);
  return (row) => {
    const found = samples.get(rows[row]);
    if (!found) throw new Refused("NOT_FOUND", `sample ${rows[row]} has not been given`);
    return found;
  };
}

const OPS = {
  async open({ manifest, step, params, manifestId, wasmPaths }) {
    runtime ??= loadRuntime(wasmPaths).catch((error) => {
      runtime = null;
      throw error;
    });
    const bench = await Bench.open(await runtime, { manifest, step, params, id: manifestId });
    const { job, gate } = bench;
    const name = hex(job.id);
    await jobs.get(name)?.bench.close();
    jobs.set(name, { bench, samples: new Map() });
    const { steps, segment, batch } = job.fields;
    const { segments, modelBytes, stateBytes, updateBytes, sampleBytes } = job;
    const sizes = { segments, steps, segment, batch, modelBytes, stateBytes, updateBytes, sampleBytes };
    const ops = Object.fromEntries(gate.ops);
    return { job: name, facts: { name: job.fields.name, ...sizes, frozen: job.frozenTensors.length, ops } };
  },

  async plan({ unit, ...question }) {
    const entry = entryOf(question);
    const rows = entry.bench.rows(unit).slice();
    return { unit: entry.bench.unit(unit).id, rows, wanted: Uint32Array.from(new Set(rows)).sort() };
  },

  async missing({ unit, ...question }) {
    return { wanted: missing(entryOf(question), unit) };
  },

  async samples({ indices, packed, ...question }) {
    const { bench, samples } = entryOf(question);
    const found = openSamples(bench.job, indices, packed);
    for (const [at, sample] of found.entries()) samples.set(indices[at], sample);
    return { kept: samples.size };
  },

  async unit({ id, unit, model, ...question }) {
    const entry = entryOf(question);
    const started = performance.now();
    const { states, update, losses } = await entry.bench.run(unit, model, sampler(entry, unit), restOf(id));
    const ids = [blobId(model), ...states.map(blobId)];
    const milliseconds = performance.now() - started;
    const names = { unit: entry.bench.unit(unit).id, ids, root: statesRoot(ids), updateId: blobId(update) };
    return { ...names, states, update, losses, milliseconds };
  },

  async replay({ id, unit, model, states, update, ...question }) {
    const entry = entryOf(question);
    const started = performance.now();
    const work = [unit, model, states, update, sampler(entry, unit), restOf(id)];
    const { segment, state } = await entry.bench.replay(...work);
    const stateId = state ? blobId(state) : new Uint8Array(32);
    return { segment, state, stateId, milliseconds: performance.now() - started };
  },

  async compare({ state, reference, start, kind, ...question }) {
    const { job } = entryOf(question).bench;
    const { unit_tolerance: whole, segment_tolerance: part } = job.fields.policy;
    const found = kind === "segment" ? compareSegment(state, reference, start, job.modelBytes, part)
      : within(state, reference, start, whole);
    const sums = { distance: String(found.distanceSquared), reference: String(found.referenceSquared) };
    return { within: found.within, ...sums };
  },

  async forget(question) {
    entryOf(question).samples.clear();
    return {};
  },

  async close(question) {
    const { bench } = entryOf(question);
    jobs.delete(question.job);
    await bench.close();
    return {};
  },
};

/** Questions that do not wait for their turn. */
const AT_ONCE = {
  pace(question) {
    need(question.share >= 0 && question.share <= 1, "BAD_QUESTION", `a share of ${question.share}`);
    share = question.share;
    return { share };
  },
  stop({ what }) {
    if (waiting.has(what)) stopped.add(what);
    return { stopped: waiting.has(what) };
  },
};
const waiting = new Set(); // ids of questions that are not answered yet

/** The buffers of an answer that can be moved: each once. */
function movable(answer) {
  const arrays = Object.values(answer).flat().filter((value) => ArrayBuffer.isView(value));
  return [...new Set(arrays.map((value) => value.buffer))];
}

function failure(id, error) {
  if (error instanceof Refused) return { id, error: { reason: error.reason, detail: error.detail } };
  const mistake = error instanceof TypeError || error instanceof RangeError;
  const detail = String(error?.message ?? error).slice(0, 500);
  return { id, error: { reason: mistake ? "BAD_QUESTION" : "ENGINE", detail } };
}

async function carryOut(question) {
  try {
    if (stopped.delete(question.id)) throw new Refused("STOPPED", "the page ended this work");
    const answer = await OPS[question.op](question);
    self.postMessage({ id: question.id, ...answer }, movable(answer));
  } catch (error) { // whatever it was, the page is told and the next question is taken
    self.postMessage(failure(question.id, error));
  } finally {
    waiting.delete(question.id);
    stopped.delete(question.id);
  }
}

self.onmessage = ({ data }) => {
  if (Object.hasOwn(AT_ONCE, data.op)) {
    try {
      self.postMessage({ id: data.id, ...AT_ONCE[data.op](data) });
    } catch (error) {
      self.postMessage(failure(data.id, error));
    }
  } else if (Object.hasOwn(OPS, data.op)) {
    waiting.add(data.id);
    queue = queue.then(() => carryOut(data));
  } else {
    self.postMessage(failure(data.id, new Refused("BAD_QUESTION", `no op ${String(data.op).slice(0, 40)}`)));
  }
};
