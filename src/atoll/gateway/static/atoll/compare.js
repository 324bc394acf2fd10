// Whether a recomputed state agrees with the committed one, as src/atoll/training/compare.py: exact integers decide.

import { float32s, int32s, rint } from "./fixed.js";
import { need } from "./refused.js";

const GRAIN = 1; // neighbouring grid points count as equal
const RESET_BITS = 30;
const CHUNK = 4096; // products below 2^40 add up below 2^53

/**
 * The exact sum of squares of `count` integers of magnitude up to 2^33, as a bigint.
 * @param {number} count
 * @param {(at: number) => number} value
 */
function sumOfSquares(count, value) {
  let total = 0n;
  for (let start = 0; start < count; start += CHUNK) {
    const stop = Math.min(count, start + CHUNK);
    let [squares, mixed, high] = [0, 0, 0];
    for (let at = start; at < stop; at++) {
      const size = Math.abs(value(at));
      const above = Math.floor(size / 0x100000);
      const below = size - above * 0x100000;
      squares += below * below;
      if (above) {
        mixed += above * below;
        high += above * above;
      }
    }
    total += BigInt(squares) + (BigInt(mixed) << 21n) + (BigInt(high) << 40n);
  }
  return total;
}

/** The exponent e of |value| = m * 2^e with m in [0.5, 1); 0 for 0. Exact for what float32 can hold. */
function exponentOf(value) {
  if (value === 0) return 0;
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return ((view.getUint16(0) >>> 4) & 0x7ff) - 1022;
}

/** 2^exponent, exact, for exponents of a normal double. */
function power(exponent) {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint16(0, (exponent + 1023) << 4);
  return view.getFloat64(0);
}

function largestOf(values) {
  let largest = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) return NaN;
    const size = Math.abs(value);
    if (size > largest) largest = size;
  }
  return largest;
}

/** Squared distance and reference norm of the reset tensors on a common grid; null if a value is not finite. */
function resetSums(state, reference, offset) {
  const [first, second] = [state, reference].map((bytes) => float32s(bytes.subarray(offset)));
  const largest = Math.max(largestOf(first), largestOf(second));
  if (Number.isNaN(largest)) return null;
  const scale = power(RESET_BITS - exponentOf(largest));
  const difference = (at) => rint(first[at] * scale) - rint(second[at] * scale);
  return [sumOfSquares(first.length, difference), sumOfSquares(second.length, (at) => rint(second[at] * scale))];
}

/**
 * Compare a unit's last STATE BYTES with a recomputation from the same MODEL BYTES: by their vectors. The reset tensors
 * end with the unit and only have to be finite.
 *
 * `ratio` is the manifest's tolerance {part, whole}. Sums are bigint, in squared grid steps; throws Refused(MALFORMED)
 * when lengths do not fit.
 * @param {Uint8Array} state
 * @param {Uint8Array} reference
 * @param {Uint8Array} model MODEL BYTES, 4 * P
 * @param {{part: number, whole: number}} ratio
 */
export function within(state, reference, model, ratio) {
  const { resetClose, ...found } = compared(state, reference, model, ratio);
  return found;
}

/** All sums, and what they say of the vectors (`within`) and of the reset tensors (`resetClose`). */
function compared(state, reference, model, ratio) {
  const fits = state.length === reference.length && state.length >= model.length && state.length % 4 === 0;
  need(fits && model.length % 4 === 0, "MALFORMED", `states of ${state.length} and ${reference.length} bytes`);
  const [a, b, start] = [state, reference, model].map((bytes) => int32s(bytes.subarray(0, model.length)));
  const distanceSquared = sumOfSquares(a.length, (at) => Math.max(Math.abs(a[at] - b[at]) - GRAIN, 0));
  const referenceSquared = sumOfSquares(a.length, (at) => b[at] - start[at]);
  const resets = resetSums(state, reference, model.length);
  const [resetDistanceSquared, resetReferenceSquared] = resets ?? [0n, 0n];
  const [above, below] = [BigInt(ratio.part) ** 2n, BigInt(ratio.whole) ** 2n];
  const close = distanceSquared * below <= referenceSquared * above;
  const resetClose = resetDistanceSquared * below <= resetReferenceSquared * above;
  const finite = resets !== null;
  const sums = { distanceSquared, referenceSquared, resetDistanceSquared, resetReferenceSquared };
  return { ...sums, finite, resetClose, within: finite && close };
}

/**
 * Compare one segment's committed end with its recomputation from the committed start (STATE BYTES of one length), the
 * reset tensors included, from which the next segment goes on.
 */
export function compareSegment(committed, recomputed, start, modelBytes, ratio) {
  const fits = start.length === committed.length && start.length >= modelBytes;
  need(fits, "MALFORMED", `state of ${committed.length} bytes, expected ${start.length}`);
  const { resetClose, ...found } = compared(committed, recomputed, start.subarray(0, modelBytes), ratio);
  return { ...found, within: found.within && resetClose };
}
