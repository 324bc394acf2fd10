// Between float32 tensors and the fixed-point bytes that are certified, as src/atoll/graph/fixed.py: bit for bit.
//
// `job` is what manifest.js reads: vectorTensors, resetTensors, modelBytes, stateBytes. Values are Map(name ->
// Float32Array). Typed arrays are little-endian on every device that runs a browser; `littleEndian` makes sure.

import { Refused, need } from "./refused.js";

// Adding and subtracting 1.5 * 2^52 rounds any |x| < 2^51 to an integer, ties to even: IEEE 754's own rounding.
const ROUND = 6755399441055744;
const LOWEST = -2147483648;
const HIGHEST = 2147483647;

/** Throws RangeError on a big-endian device, where views of bytes would mean other numbers. */
export function littleEndian() {
  if (new Uint8Array(Uint32Array.of(1).buffer)[0] !== 1) throw new RangeError("a big-endian device: not supported");
}

/** Half to even, exact for magnitudes below 2^51. @param {number} value */
export function rint(value) {
  return value + ROUND - ROUND;
}

/** Bytes as int32 [length]: a view where they are aligned, else a copy. @param {Uint8Array} bytes */
export function int32s(bytes, length = bytes.length / 4) {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Int32Array(aligned.buffer, aligned.byteOffset, length);
}

/** Bytes as float32: a view where they are aligned, else a copy. @param {Uint8Array} bytes */
export function float32s(bytes) {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
}

function putVector(out, tensors, values) {
  let at = 0;
  for (const { name, size, bits } of tensors) {
    const data = values.get(name);
    need(data && data.length === size, "MALFORMED", `tensor ${name} is not there in its size`);
    const scale = 2 ** bits;
    for (let index = 0; index < size; index++) {
      const scaled = data[index] * scale;
      if (!Number.isFinite(scaled)) throw new Refused("DIVERGED", `tensor ${name} holds values that are not finite`);
      out[at++] = scaled <= LOWEST ? LOWEST : scaled >= HIGHEST ? HIGHEST : rint(scaled);
    }
  }
}

/** STATE BYTES: MODEL BYTES, then the reset tensors as float32; throws Refused(DIVERGED). */
export function encodeState(job, values) {
  const out = new Uint8Array(job.stateBytes);
  const floats = new Float32Array(out.buffer, job.modelBytes);
  let at = 0;
  for (const { name, size } of job.resetTensors) {
    const data = values.get(name);
    need(data && data.length === size, "MALFORMED", `tensor ${name} is not there in its size`);
    need(data.every(Number.isFinite), "DIVERGED", "a reset tensor holds values that are not finite");
    floats.set(data, at);
    at += size;
  }
  putVector(new Int32Array(out.buffer, 0, job.modelBytes / 4), job.vectorTensors, values);
  return out;
}

/**
 * The certified tensors as float32, from MODEL BYTES.
 * @param {Uint8Array} bytes
 * @returns {Map<string, Float32Array>}
 */
export function decodeModel(job, bytes) {
  need(bytes.length === job.modelBytes, "MALFORMED", `${bytes.length} bytes where ${job.modelBytes} were expected`);
  const fixed = int32s(bytes);
  const values = new Map();
  let at = 0;
  for (const { name, size, bits } of job.vectorTensors) {
    const scale = 2 ** -bits;
    const data = new Float32Array(size);
    for (let index = 0; index < size; index++) data[index] = fixed[at++] * scale;
    values.set(name, data);
  }
  return values;
}

/** All tensors but the frozen ones as float32, from STATE BYTES. @param {Uint8Array} bytes */
export function decodeState(job, bytes) {
  need(bytes.length === job.stateBytes, "MALFORMED", `${bytes.length} bytes where ${job.stateBytes} were expected`);
  const values = decodeModel(job, bytes.subarray(0, job.modelBytes));
  const rest = float32s(bytes.subarray(job.modelBytes));
  let at = 0;
  for (const { name, size } of job.resetTensors) {
    values.set(name, rest.slice(at, at + size));
    at += size;
  }
  return values;
}

/** State 0 of a unit: the certified model, then zeros. @param {Uint8Array} model MODEL BYTES */
export function firstState(job, model) {
  need(model.length === job.modelBytes, "MALFORMED", `${model.length} bytes where ${job.modelBytes} were expected`);
  const out = new Uint8Array(job.stateBytes);
  out.set(model);
  return out;
}
