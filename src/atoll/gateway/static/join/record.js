// What this visit has done and earned, piece by piece. Pure.
//
// A verdict comes up to three times: signed in a certificate, told by the gateway with its amount, and in the published
// receipts of the account's statement. It counts once. Those of a connection that was lost are found in the statement.

import { reasonName } from "../atoll/refused.js";
import { KINDS } from "./status.js";

const KEPT = 1_000; // rows that are shown
const WORKED = new Set(Object.values(KINDS));
const plain = (id) => String(id).replace(/^0x/, "");

/** The pieces of work of one visit, the newest first. */
export class Record {
  rows = [];
  accepted = 0;
  earned = 0n;
  #known = new Map(); // id -> its row, also when it is not shown any more
  #first = new Map(); // job -> the first round that was told of in this visit

  /** A round of a job is told of: what belongs to it or to a later one belongs to this visit. */
  begins(job, round) {
    if (!this.#first.has(job)) this.#first.set(job, round);
  }

  /**
   * Take a verdict in; the new row, or null when it was known. `onDiffers` is called when it contradicts a known one.
   * @param {{job: string, round: number, unit: string, kind: string, reason: string, sentence?: string,
   *   amount?: string, signed: boolean}} verdict
   * @param {() => void} onDiffers
   */
  take({ job, round, unit, kind, reason, sentence, amount, signed }, onDiffers = () => {}) {
    if (!WORKED.has(kind)) return null;
    const id = `${job} ${kind} ${unit}`;
    const known = this.#known.get(id);
    const row = known ?? { id, job, round, unit, kind, reason, sentence: "", amount: null, signed: false };
    if (!known) {
      this.#known.set(id, row);
      const place = this.rows.findIndex((one) => one.job !== job || one.round <= round);
      this.rows.splice(place < 0 ? this.rows.length : place, 0, row);
      this.rows.length = Math.min(this.rows.length, KEPT);
      if (reason === "OK") this.accepted += 1;
    }
    if (row.reason !== reason) onDiffers();
    if (signed) Object.assign(row, { reason, signed });
    if (amount !== undefined && row.amount === null) {
      this.earned += BigInt(amount);
      Object.assign(row, { sentence, amount });
    }
    return known ? null : row;
  }

  /**
   * Take in the lines of a statement (`/accounts/{account}.json`) that belong to this visit; how many rows were new.
   * @param {object[]} lines
   * @param {() => void} onDiffers
   */
  reconcile(lines, onDiffers = () => {}) {
    let found = 0;
    for (const line of lines) {
      const [job, unit] = [plain(line.job), plain(line.unit)];
      if (!(line.round >= this.#first.get(job))) continue;
      const verdict = { job, unit, kind: KINDS[line.kind], reason: reasonName(line.reason), signed: false };
      const { round, sentence, amount } = line;
      if (this.take({ ...verdict, round, sentence, amount }, onDiffers)) found += 1;
    }
    return found;
  }
}
