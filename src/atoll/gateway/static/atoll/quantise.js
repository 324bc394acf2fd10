// Updates as int8 values in blocks with a power-of-two scale, as src/atoll/training/quantize.py: bit for bit.
//
// UPDATE BYTES = one int8 exponent a block of 256, then one int8 value an element. A change is the difference of two
// int32, so a double holds it, its double and every quotient by 2^e exactly.

import { int32s, rint } from "./fixed.js";
import { Refused, need } from "./refused.js";

const BLOCK = 256;
const LARGEST = 127;
const HIGHEST_EXPONENT = 26;
const LARGEST_CHANGE = 4294967295;
// Twice the largest magnitude of a block has to stay below LIMITS[e] for exponent e.
const LIMITS = Float64Array.from({ length: HIGHEST_EXPONENT + 1 }, (_, exponent) => 255 * 2 ** exponent);

/** Length of UPDATE BYTES for a vector of `length` elements. @param {number} length */
function updateLength(length) {
  return Math.ceil(length / BLOCK) + length;
}

/**
 * UPDATE BYTES of a change of the vector (integers); throws RangeError for a magnitude above 2^32 - 1.
 * @param {Float64Array | Int32Array | number[]} change
 * @returns {Uint8Array}
 */
export function quantise(change) {
  const length = change.length;
  const blocks = Math.ceil(length / BLOCK);
  const out = new Int8Array(blocks + length);
  for (let block = 0; block < blocks; block++) {
    const start = block * BLOCK;
    const stop = Math.min(length, start + BLOCK);
    let largest = 0;
    for (let at = start; at < stop; at++) {
      const size = Math.abs(change[at]);
      if (!(size <= LARGEST_CHANGE)) throw new RangeError("a change lies outside the differences of two int32");
      if (size > largest) largest = size;
    }
    let exponent = 0;
    while (2 * largest >= LIMITS[exponent]) exponent++;
    out[block] = exponent;
    const scale = 2 ** -exponent;
    for (let at = start; at < stop; at++) out[blocks + at] = rint(change[at] * scale);
  }
  return new Uint8Array(out.buffer);
}

/**
 * UPDATE BYTES of a unit: quantise(state - model), from its last STATE BYTES and the MODEL BYTES it started from.
 * @param {Uint8Array} state
 * @param {Uint8Array} model
 */
export function updateOf(state, model) {
  need(model.length % 4 === 0, "MALFORMED", `model of ${model.length} bytes`);
  need(state.length >= model.length && state.length % 4 === 0, "MALFORMED", `state of ${state.length} bytes`);
  const end = int32s(state.subarray(0, model.length));
  const start = int32s(model);
  const change = new Float64Array(start.length);
  for (let at = 0; at < change.length; at++) change[at] = end[at] - start[at];
  return quantise(change);
}

/**
 * Exponents and values of UPDATE BYTES; throws Refused(MALFORMED) for anything that `quantise` would not have written.
 * @param {Uint8Array} update
 * @param {number} length elements of the vector
 */
export function parts(update, length) {
  const expected = updateLength(length);
  need(update.length === expected, "MALFORMED", `update of ${update.length} bytes, expected ${expected}`);
  const signed = new Int8Array(update.buffer, update.byteOffset, update.length);
  const exponents = signed.subarray(0, expected - length);
  const values = signed.subarray(expected - length);
  for (const [block, exponent] of exponents.entries()) {
    if (exponent < 0 || exponent > HIGHEST_EXPONENT) {
      throw new Refused("MALFORMED", `update with an exponent outside 0 to ${HIGHEST_EXPONENT}`);
    }
    let largest = 0;
    for (let at = block * BLOCK; at < Math.min(length, (block + 1) * BLOCK); at++) {
      const size = Math.abs(values[at]);
      if (size > LARGEST) throw new Refused("MALFORMED", "update with the value -128");
      if (size > largest) largest = size;
    }
    if (exponent > 0 && largest <= LARGEST >> 1) {
      throw new Refused("MALFORMED", "update with a larger exponent than its block needs");
    }
  }
  return { exponents, values };
}

/** The change that UPDATE BYTES stand for: Float64Array of integers below 2^33. Throws as `parts` does. */
export function dequantise(update, length) {
  const { exponents, values } = parts(update, length);
  return Float64Array.from(values, (value, at) => value * 2 ** exponents[Math.floor(at / BLOCK)]);
}
