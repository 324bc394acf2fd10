// One job in this tab: carries out what duties.js asks for. State and results are stored before anything leaves.

import { hex, unhex } from "../atoll/hashing.js";
import { Refused } from "../atoll/refused.js";
import { Duties } from "./duties.js";
import { EngineError } from "./engine.js";

const SAMPLES_KEPT = 64e6; // bytes of samples in the worker's memory
const AGAIN = 5_000; // milliseconds until what failed is tried again
const CERTIFICATES_AT_ONCE = 8; // that are checked before the page gets its turn
const PATIENCE = 3; // times that a state is asked for before this account says that it was not opened

/**
 * What a job's work needs from the page.
 * @typedef {object} Tools
 * @property {import("./engine.js").Engine} engine
 * @property {import("./courier.js").Courier} courier
 * @property {import("./store.js").Store} store
 * @property {(raw: string) => Promise<{type: string, reason?: string}>} say
 * @property {(kind: string, fields: Record<string, any>) => void} tell "notice", "verdict", "task", "busy" and "change"
 */

/** The work of one account in one job. */
export class JobWork {
  #queue = Promise.resolve();
  #questions = new Map(); // unit -> number of the worker's question
  #opened = null; // promise of {job, facts}
  #certificates = new Map(); // round -> what the gateway has shown of it, until it is checked
  #model = { id: "", bytes: null };
  #tries = new Map(); // disputed unit -> how often its states were asked for
  #closed = false;

  /**
   * @param {{chainId: number, registry: string, jobs: string, job: string, segments: number, manifest: string,
   *   firstCommittee: string[]}} place
   * @param {object} me as for Duties
   * @param {Tools} tools
   * @param {object | null} kept the stored state of an earlier visit
   */
  constructor(place, me, tools, kept) {
    this.place = place;
    this.tools = tools;
    this.account = me.account;
    this.duties = new Duties(place, me, kept);
  }

  /** The job of an account as it was stored, or a new one. */
  static async open(place, me, tools) {
    const kept = await tools.store.get(JobWork.#name("duties", me.account, place));
    return new JobWork(place, me, tools, kept ?? null);
  }

  static #name(kind, account, { chainId, registry, job }) {
    return `${kind}/${account}/${chainId}/${registry}/${job}`;
  }

  /** Fold an event in, write the state down, then carry out what comes of it. Resolves when the effects have begun. */
  feed(event) {
    this.#queue = this.#queue.then(() => this.#fold(event)).catch((error) => this.#broken(error));
    return this.#queue;
  }

  /** Load the job's parts before the first unit: that may take longer than a round. */
  warm() {
    this.#open().catch(() => {}); // what is wrong is told when a unit needs it
  }

  close() {
    this.#closed = true;
  }

  /** The job is over: give back the memory, and drop what is stored of its units. */
  async release() {
    const opened = this.#opened;
    this.#opened = null;
    this.#model = { id: "", bytes: null };
    await this.#forget(Infinity);
    const found = await opened?.catch(() => null);
    if (found) await this.tools.engine.ask("close", { job: found.job }).catch(() => {}); // the worker may be gone
  }

  async #fold(event) {
    if (this.#closed) return;
    const effects = this.duties.handle(event);
    await this.tools.store.put(JobWork.#name("duties", this.account, this.place), this.duties.snapshot());
    for (const effect of effects) this.#carryOut(effect);
    this.tools.tell("change", {});
  }

  #broken(error) {
    this.tools.tell("notice", { code: "broken", detail: String(error?.message ?? error) });
  }

  #carryOut(effect) {
    const work = {
      train: () => this.#train(effect.unit),
      rerun: () => this.#rerun(effect.unit, effect.reveal),
      upload: () => this.#upload(effect),
      say: () => this.#say(effect),
      cancel: () => this.tools.engine.stop(this.#questions.get(effect.unit)),
      follow: () => this.#follow(effect.from),
      forget: () => this.#forget(effect.before),
      verdict: () => this.tools.tell("verdict", { ...effect, job: this.place.job, signed: true }),
      notice: () => this.tools.tell("notice", { ...effect, job: this.place.job }),
    }[effect.do];
    Promise.resolve(work()).catch((error) => this.#failed(effect, error));
  }

  /** Something could not be done: it is tried again in a while, and a person is told when the gateway is to blame. */
  #failed(effect, error) {
    const id = effect.unit?.id ?? effect.unit;
    if (error instanceof EngineError && error.reason === "STOPPED") return;
    const { tell } = this.tools;
    const blamed = (error instanceof Refused || error instanceof EngineError) && error.reason in BLAME;
    if (blamed) tell("notice", { code: BLAME[error.reason], unit: id, detail: error.detail });
    else if (error instanceof EngineError) tell("notice", { code: "engine", unit: id, detail: error.message });
    if (effect.do === "follow") return void this.feed({ type: "followed", from: effect.from, certificates: [] });
    this.feed({ type: effect.do === "upload" ? "not-uploaded" : "failed", unit: id });
    setTimeout(() => this.feed({ type: "allow", work: this.duties.work }), AGAIN);
  }

  /** Certificates from a round on: few at a time, for each takes a while to check. */
  async #follow(from) {
    const known = this.#certificates;
    if (!known.has(from)) {
      known.clear();
      const found = await this.tools.courier.certificates(this.place.job, from);
      found.forEach((raw, at) => known.set(from + at, raw));
    }
    const certificates = [];
    for (let round = from; known.has(round) && certificates.length < CERTIFICATES_AT_ONCE; round++) {
      certificates.push(known.get(round));
      known.delete(round);
    }
    this.feed({ type: "followed", from, certificates });
  }

  // -- what the worker does ------------------------------------------------------------------------------------------
  /** The job's parts, checked and loaded into the worker: once. */
  #open() {
    this.#opened ??= this.#load().catch((error) => {
      this.#opened = null;
      throw error;
    });
    return this.#opened;
  }

  async #load() {
    const { engine, courier } = this.tools;
    const manifest = await courier.blob(this.place.manifest);
    const { step, params, tensors } = JSON.parse(new TextDecoder().decode(manifest)); // the worker checks all of it
    const frozen = tensors?.some((tensor) => tensor.role === "frozen");
    const parts = { step: await courier.blob(step), params: frozen ? await courier.blob(params) : undefined };
    return engine.ask("open", { manifest, ...parts, manifestId: unhex(this.place.manifest) });
  }

  /** A unit in the form that the worker takes, and the samples that it still lacks. */
  async #prepare(unit) {
    const { engine, courier } = this.tools;
    const { job, facts } = await this.#open();
    const { chainId, registry } = this.place;
    const given = { ...unit, job: unhex(unit.job), account: unhex(unit.account), beacon: unhex(unit.beacon) };
    const form = { ...given, id: unhex(unit.id), domain: { chainId, registry: unhex(registry) } };
    const model = this.#fetchModel(unit.model); // at once: the gateway shows it only as long as the round lasts
    const samples = async () => {
      const { wanted } = await engine.ask("missing", { job, unit: form });
      await courier.samples(this.place.job, wanted, facts.sampleBytes, async (indices, packed) => {
        const { kept } = await engine.ask("samples", { job, indices, packed });
        this.kept = kept * facts.sampleBytes;
      });
    };
    const [bytes] = await Promise.all([model, samples()]);
    return { job, unit: form, model: bytes };
  }

  #fetchModel(id) {
    if (this.#model.id !== id) this.#model = { id, bytes: this.tools.courier.blob(id) };
    const { bytes } = this.#model;
    bytes.catch(() => {
      if (this.#model.bytes === bytes) this.#model = { id: "", bytes: null }; // it is asked for again
    });
    return bytes;
  }

  /** Ask the worker about a unit; the page sees what runs. */
  async #run(op, what, unit, fields) {
    const { engine, tell } = this.tools;
    tell("task", { what, unit, begun: true });
    try {
      const found = await engine.ask(op, fields, (number) => this.#questions.set(unit.id, number));
      tell("busy", { milliseconds: found.milliseconds });
      return found;
    } finally {
      this.#questions.delete(unit.id);
      tell("task", { what, unit, begun: false });
    }
  }

  async #train(unit) {
    const what = unit.account === this.account ? "unit" : "audit";
    const found = await this.#run("unit", what, unit, await this.#prepare(unit));
    const ids = found.ids.map(hex);
    const update = hex(found.updateId);
    const blobs = { [update]: found.update };
    found.states.forEach((state, at) => (blobs[ids[at + 1]] = state));
    await this.#keep(unit, blobs);
    this.feed({ type: "worked", unit: unit.id, states: ids, update });
  }

  async #rerun(unit, reveal) {
    const prepared = await this.#prepare(unit);
    const shown = [...reveal.states.slice(1), reveal.update].map((id) => this.tools.courier.blob(id).catch(withheld));
    const opened = await Promise.all(shown);
    const tries = (this.#tries.get(unit.id) ?? 0) + 1;
    this.#tries.set(unit.id, tries);
    if (opened.includes(null) && tries < PATIENCE) throw new Error("a state cannot be had yet; its holder may be back");
    const update = opened.pop();
    const found = await this.#run("replay", "replica", unit, { ...prepared, states: opened, update });
    const state = hex(found.stateId);
    if (found.state) await this.#keep(unit, { [state]: found.state });
    this.feed({ type: "replayed", unit: unit.id, segment: found.segment, state });
  }

  // -- what is kept and sent -----------------------------------------------------------------------------------------
  #bytesName(round, unit) {
    return `${JobWork.#name("bytes", this.account, this.place)}/${String(round).padStart(10, "0")}/${unit}`;
  }

  #keep(unit, blobs) {
    return this.tools.store.put(this.#bytesName(unit.round, unit.id), blobs);
  }

  async #upload({ unit, blobs }) {
    const kept = await this.tools.store.get(this.#bytesName(this.duties.state.round, unit));
    if (!kept || !blobs.every((id) => kept[id])) {
      this.feed({ type: "lost", unit });
      return;
    }
    for (const id of blobs) await this.tools.courier.put(kept[id]);
    this.feed({ type: "uploaded", unit });
  }

  /** What cannot be said now is said again when the connection is back. */
  async #say({ key, raw }) {
    let answer;
    try {
      answer = await this.tools.say(raw);
    } catch {
      return;
    }
    if (answer.type === "taken") this.feed({ type: "taken", key, at: Date.now() });
    else this.feed({ type: "refused", key, reason: answer.reason });
  }

  async #forget(before) {
    const prefix = `${JobWork.#name("bytes", this.account, this.place)}/`;
    for (const name of await this.tools.store.keys(prefix)) {
      if (Number(name.slice(prefix.length).split("/")[0]) < before) await this.tools.store.remove(name);
    }
    this.#tries.clear();
    if ((this.kept ?? 0) > SAMPLES_KEPT && this.#opened) {
      const { job } = await this.#opened;
      await this.tools.engine.ask("forget", { job });
      this.kept = 0;
    }
  }
}

const BLAME = { WRONG_HASH: "wrong-bytes", BAD_PROOF: "wrong-bytes" };

/** A state that the gateway cannot show is not opened; wrong bytes are the gateway's own doing. */
function withheld(error) {
  if (error instanceof Refused) throw error;
  return null;
}
