// The Web Worker in which units run (../atoll/worker.js), as promises. One question at a time is carried out.

/** Why a question to the worker failed: `reason` as in ../atoll/refused.js, or STOPPED, ENGINE, BAD_QUESTION. */
export class EngineError extends Error {
  constructor({ reason, detail }) {
    super(`${reason}: ${detail}`);
    this.reason = reason;
    this.detail = detail;
  }
}

/** The worker; `onProgress(0..1)` while a unit runs. */
export class Engine {
  #worker = null;
  #number = 0;
  #waiting = new Map();
  #share = 1;

  /** @param {(progress: number) => void} onProgress */
  constructor(onProgress) {
    this.onProgress = onProgress;
  }

  /**
   * Ask the worker; throws EngineError.
   * @param {string} op
   * @param {Record<string, any>} fields
   * @param {(id: number) => void} [named] is told the question's number, for `stop`
   */
  ask(op, fields = {}, named = () => {}) {
    const id = ++this.#number;
    named(id);
    const worker = this.#running();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, op, ...fields });
    });
  }

  /** Work this share of the time, 0..1. */
  pace(share) {
    this.#share = share;
    if (this.#worker) this.ask("pace", { share }).catch(() => {}); // a worker that is going down keeps no pace
  }

  /** End the question with this number. */
  stop(what) {
    if (this.#worker) this.ask("stop", { what }).catch(() => {}); // then it is over anyway
  }

  /** End the worker: whatever was asked fails with STOPPED. */
  close() {
    this.#worker?.terminate();
    this.#fail("STOPPED", "the worker was ended");
  }

  #running() {
    if (this.#worker) return this.#worker;
    const worker = new Worker(new URL("../atoll/worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = (event) => this.#fail("ENGINE", event.message || "the worker could not be started");
    this.#worker = worker;
    this.pace(this.#share);
    return worker;
  }

  #hear({ id, progress, error, ...answer }) {
    const waiting = this.#waiting.get(id);
    if (progress !== undefined) return this.onProgress(progress);
    if (!waiting) return undefined;
    this.#waiting.delete(id);
    if (error) waiting.reject(new EngineError(error));
    else waiting.resolve(answer);
    return undefined;
  }

  #fail(reason, detail) {
    this.#worker = null;
    const failed = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of failed) reject(new EngineError({ reason, detail }));
  }
}
