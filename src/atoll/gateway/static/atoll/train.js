// Carries out units of work with ONNX Runtime Web, as src/atoll/training/workbench.py does natively.
//
// `ort` is passed in (the module ort.wasm.min.mjs, set up by whoever runs this): nothing here fetches or stores.

import { readParams } from "./archive.js";
import { compareSegment } from "./compare.js";
import { decodeState, encodeState, firstState, littleEndian } from "./fixed.js";
import { checkGraph } from "./gate.js";
import { blobId, equal, hex, unhex } from "./hashing.js";
import { readManifest } from "./manifest.js";
import { updateOf } from "./quantise.js";
import { Refused, need } from "./refused.js";
import { batchOf } from "./samples.js";
import { batches, seedOf, shardsOf, unitId } from "./units.js";

/** What a replay found: 0 when all segments agree, 255 when a state was not opened or is none. */
const ALL_AGREE = 0;
const NOT_OPENED = 255;

/** The work of one job: open it once, then run units of it. */
export class Bench {
  /** Use `Bench.open`. */
  constructor(ort, job, gate, session, frozen) {
    this.ort = ort;
    this.job = job;
    this.gate = gate; // what gate.checkGraph found
    this.session = session;
    this.frozen = frozen;
    this.shards = new Map(); // number of shards -> sample indices of each
  }

  /**
   * Check a job's manifest and step graph and load the graph; throws Refused with the gate's reason.
   * @param {any} ort
   * @param {{manifest: Uint8Array, step: Uint8Array, params?: Uint8Array, id?: Uint8Array}} parts `params` is needed
   *   where the job has frozen tensors; `id` is the manifest's id as the chain has it
   */
  static async open(ort, { manifest, step, params, id }) {
    littleEndian();
    const job = readManifest(manifest, id ?? null);
    need(hex(blobId(step)) === job.fields.step, "WRONG_HASH", "the step graph is not the one that the manifest names");
    const gate = checkGraph(step, job, "step");
    const frozen = new Map();
    if (job.frozenTensors.length) {
      need(params && hex(blobId(params)) === job.fields.params, "WRONG_HASH", "the frozen tensors are not the job's");
      const values = readParams(params, job);
      for (const { name, shape } of job.frozenTensors) {
        frozen.set(name, new ort.Tensor("float32", values.get(name), shape));
      }
    }
    const session = await ort.InferenceSession.create(step, { executionProviders: ["wasm"], logSeverityLevel: 4 });
    return new Bench(ort, job, gate, session, frozen);
  }

  /** Give back the memory of the graph. */
  async close() {
    await this.session.release();
  }

  /**
   * The unit with its id, its seed and its number of segments; throws Refused when it names another id.
   * @param {import("./units.js").Unit & {id?: Uint8Array}} unit
   */
  unit(unit) {
    const id = unitId(unit);
    need(!unit.id || equal(unit.id, id), "MALFORMED", "the unit does not have the id that it names");
    const segments = unit.segments ?? this.job.segments;
    need(segments >= 1 && segments <= this.job.segments, "MALFORMED", `a unit of ${segments} segments`);
    return { ...unit, id, seed: seedOf(id), segments };
  }

  /**
   * Sample indices of the steps of a unit's segments: Uint32Array [segments * segment * batch].
   * @param {import("./units.js").Unit & {shards: number}} unit `shards` into which the data is cut
   */
  rows(unit) {
    const { id, segments, shards, shard, beacon } = this.unit(unit);
    const { data, steps, segment, batch } = this.job.fields;
    if (!this.shards.has(shards)) {
      this.shards.clear();
      this.shards.set(shards, shardsOf(unhex(data.root), data.count, shards, data.partition));
    }
    const mine = this.shards.get(shards)[shard];
    need(mine, "MALFORMED", `shard ${shard} of ${shards}`);
    return batches(beacon, id, mine, steps, batch).subarray(0, segments * segment * batch);
  }

  /**
   * From one committed state to the next. Returns STATE BYTES and the loss before each step; throws Refused(DIVERGED).
   * @param {import("./units.js").Unit} unit
   * @param {number} segment
   * @param {Uint8Array} state STATE BYTES
   * @param {(row: number) => Uint8Array} sample the bytes of the sample in the given place of the unit's rows
   * @param {(done: number) => Promise<void>} [rest] called after each step with the steps done in this segment
   */
  async segment(unit, segment, state, sample, rest = async () => {}) {
    const { seed } = this.unit(unit);
    const { fields, tensors } = this.job;
    const start = decodeState(this.job, state);
    const feeds = Object.create(null);
    for (const { name, shape, role } of tensors) {
      feeds[name] = role === "frozen" ? this.frozen.get(name) : this.#tensor("float32", start.get(name), shape);
    }
    feeds.seed = this.#tensor("int64", BigInt64Array.of(BigInt(seed)), []);
    feeds.learning_rate = this.#tensor("float32", Float32Array.of(fields.hyper.learning_rate), []);
    const losses = new Float32Array(fields.segment);
    for (let at = 0; at < fields.segment; at++) {
      const step = segment * fields.segment + at;
      const records = Array.from({ length: fields.batch }, (_, row) => sample(step * fields.batch + row));
      for (const [name, { type, data, dims }] of Object.entries(batchOf(this.job, records))) {
        feeds[name] = this.#tensor(type, data, dims);
      }
      feeds.step = this.#tensor("int64", BigInt64Array.of(BigInt(unit.round * fields.steps + step)), []);
      losses[at] = await this.#step(feeds);
      await rest(at + 1);
    }
    const values = new Map(tensors.filter(({ role }) => role !== "frozen").map(({ name }) => [name, feeds[name].data]));
    return { state: encodeState(this.job, values), losses };
  }

  /** One step: the tensors in `feeds` become the next ones. Returns the loss before it. */
  async #step(feeds) {
    const result = await this.session.run(feeds);
    for (const { name, role } of this.job.tensors) if (role !== "frozen") feeds[name] = result[`next.${name}`];
    return result.loss.data[0];
  }

  #tensor(type, data, dims) {
    return new this.ort.Tensor(type, data, dims);
  }

  /**
   * A whole unit from the round's MODEL BYTES: the states after each segment, the update, the losses.
   * @param {import("./units.js").Unit} unit
   * @param {Uint8Array} model
   * @param {(row: number) => Uint8Array} sample
   * @param {(share: number) => Promise<void>} [rest] called after each step with the part that is done
   */
  async run(unit, model, sample, rest = async () => {}) {
    const { segments } = this.unit(unit);
    const states = [];
    const losses = [];
    let state = firstState(this.job, model);
    for (let segment = 0; segment < segments; segment++) {
      const share = (done) => (segment + done / this.job.fields.segment) / segments;
      const found = await this.segment(unit, segment, state, sample, (done) => rest(share(done)));
      state = found.state;
      states.push(state);
      losses.push(...found.losses);
    }
    return { states, update: updateOf(state, model), losses: Float32Array.from(losses) };
  }

  /**
   * Re-run each segment of a disputed unit from the worker's own committed states; then compare the update.
   *
   * `claimed` are the STATE BYTES after each segment, null where one was not opened. Returns what a Replay message
   * says: `segment` (0 all agree, 1..S the first that differs, S + 1 the update, 255 not opened) and our own `state`.
   */
  async replay(unit, model, claimed, update, sample, rest = async () => {}) {
    const { segments } = this.unit(unit);
    const ratio = this.job.fields.policy.segment_tolerance;
    let start = firstState(this.job, model);
    for (let segment = 0; segment < segments; segment++) {
      const end = claimed[segment] ?? null;
      const own = end && this.#isState(end) ? await this.#ownEnd(unit, segment, start, sample, rest, segments) : null;
      if (!own) return { segment: NOT_OPENED, state: null };
      const agrees = compareSegment(end, own, start, this.job.modelBytes, ratio).within;
      if (!agrees) return { segment: segment + 1, state: own };
      start = end;
    }
    if (!update) return { segment: NOT_OPENED, state: null };
    return { segment: equal(updateOf(start, model), update) ? ALL_AGREE : segments + 1, state: null };
  }

  #isState(bytes) {
    return bytes.length === this.job.stateBytes;
  }

  /** Our own end of a segment; null when nothing finite comes out of the committed start. */
  async #ownEnd(unit, segment, start, sample, rest, segments) {
    const share = (done) => (segment + done / this.job.fields.segment) / segments;
    try {
      return (await this.segment(unit, segment, start, sample, (done) => rest(share(done)))).state;
    } catch (error) {
      if (error instanceof Refused && error.reason === "DIVERGED") return null;
      throw error;
    }
  }
}
