// Bytes between the tab and its gateway over HTTP: counted, and checked by their names.

import { blobId, hex } from "../atoll/hashing.js";
import { decode } from "../atoll/msgpack.js";
import { Refused, need } from "../atoll/refused.js";

const TRIES = 4;
const PAUSE = 700;
const ROWS_AT_ONCE = 512;
const ANSWER_BYTES = 4e6; // of samples in one answer

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Fetches and uploads; `count(bytes)` is told how much went over the wire, `token()` gives the present bearer. */
export class Courier {
  /** @param {{count: (bytes: number) => void, token: () => string}} hooks */
  constructor(hooks) {
    this.hooks = hooks;
  }

  /**
   * A blob by its id; throws Refused(WRONG_HASH) when the gateway serves other bytes, Error when it has none.
   * @param {string} id hex
   */
  async blob(id) {
    const path = `/join/blob/${id}`;
    let data = await this.#get(path, "default");
    if (hex(blobId(data)) !== id) data = await this.#get(path, "reload"); // the browser may have kept a broken copy
    if (hex(blobId(data)) !== id) throw new Refused("WRONG_HASH", `other bytes were served as ${id.slice(0, 8)}`);
    return data;
  }

  /**
   * Samples with their proofs, packed as they came (the worker checks the proofs): calls `give(indices, packed)`.
   * @param {string} job
   * @param {ArrayLike<number>} indices
   * @param {number} sampleBytes how long one is, without its proof
   * @param {(indices: number[], packed: Uint8Array) => Promise<unknown>} give
   */
  async samples(job, indices, sampleBytes, give) {
    const rows = Math.max(1, Math.min(ROWS_AT_ONCE, Math.floor(ANSWER_BYTES / (sampleBytes + 1024))));
    for (let start = 0; start < indices.length; start += rows) {
      const part = Array.from(indices).slice(start, start + rows);
      await give(part, await this.#get(`/join/samples/${job}?rows=${part.join(",")}`, "no-store"));
    }
  }

  /**
   * Envelopes with the certificates of a job from a round on, as hex: as many as the gateway gives at once, none when
   * there is none yet. Whoever uses them checks the signatures. Throws Refused(MALFORMED).
   * @param {string} job
   * @param {number} from
   * @returns {Promise<string[]>}
   */
  async certificates(job, from) {
    const found = decode(await this.#get(`/join/certificates/${job}?from=${from}`, "no-store"));
    const fits = Array.isArray(found) && found.every((each) => each instanceof Uint8Array);
    need(fits, "MALFORMED", "certificates were expected as a list of bytes");
    return found.map(hex);
  }

  /** A page of an account's statement, as the dashboard tells it: {lines, page, pages, ...}. @param {string} account */
  async statement(account, page) {
    const data = await this.#get(`/accounts/0x${account}.json?page=${page}`, "no-store");
    return JSON.parse(new TextDecoder().decode(data));
  }

  /** Upload a blob; throws Refused(WRONG_HASH) when the gateway names it otherwise. @param {Uint8Array} data */
  async put(data) {
    const answer = await this.#tried(() => {
      const headers = { "Authorization": `Bearer ${this.hooks.token()}`, "Content-Type": "application/octet-stream" };
      return fetch("/join/blob", { method: "PUT", headers, body: data });
    });
    this.hooks.count(data.length);
    const { id } = await answer.json();
    if (id !== hex(blobId(data))) throw new Refused("WRONG_HASH", "the gateway keeps an upload under another name");
  }

  async #get(path, cache) {
    const answer = await this.#tried(() => fetch(path, { cache }));
    const data = new Uint8Array(await answer.arrayBuffer());
    this.hooks.count(data.length);
    return data;
  }

  /** The answer to a request, tried again when the gateway is busy or away; what it does not know, it will not know. */
  async #tried(request) {
    for (let left = TRIES - 1; ; left--) {
      let status = 0;
      try {
        const answer = await request();
        if (answer.ok) return answer;
        status = answer.status;
      } catch (error) {
        if (!left) throw error;
      }
      const passing = status === 0 || status === 429 || status >= 500;
      if (!left || !passing) throw new Error(`the gateway answered ${status || "nothing"}`);
      await sleep(PAUSE * (TRIES - left));
    }
  }
}
