// Job files, model files and files of first values, as src/atoll/graph/archive.py and params.py read them.

import { blobId, hex } from "./hashing.js";
import { readManifest } from "./manifest.js";
import { Refused, need } from "./refused.js";

const ENTRY = 0x02014b50; // an entry of a zip file's directory
const END = 0x06054b50;
const END_BYTES = 22;
const MAX_HEADER = 1 << 19; // of a safetensors file
const JOB_PARTS = ["manifest.json", "step.onnx", "eval.onnx", "predict.onnx", "params.safetensors"];

/**
 * Parts of a job or model file by name; its entries are stored, not compressed. Throws Refused(BAD_ARCHIVE).
 * @param {Uint8Array} bytes
 * @returns {Map<string, Uint8Array>}
 */
export function readParts(bytes) {
  const bad = (detail) => new Refused("BAD_ARCHIVE", detail);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - END_BYTES; // no comment follows the directory
  if (end < 0 || view.getUint32(end, true) !== END) throw bad("not a job file");
  const parts = new Map();
  let at = view.getUint32(end + 16, true);
  try {
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      const stored = view.getUint32(at, true) === ENTRY && view.getUint16(at + 10, true) === 0;
      if (!stored) throw bad("a compressed entry, or none");
      const size = view.getUint32(at + 24, true);
      const nameLength = view.getUint16(at + 28, true);
      const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
      const entry = view.getUint32(at + 42, true);
      const start = entry + 30 + view.getUint16(entry + 26, true) + view.getUint16(entry + 28, true);
      if (start + size > bytes.length || parts.has(name)) throw bad("an entry is twice there, or longer than the file");
      parts.set(name, bytes.slice(start, start + size));
      at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    }
  } catch (error) {
    throw error instanceof RangeError ? bad("the directory leads outside the file") : error;
  }
  return parts;
}

/**
 * A job file: its document and its parts, which are those that the document names. Throws Refused.
 * @param {Uint8Array} bytes
 */
export function readJobFile(bytes) {
  const parts = readParts(bytes);
  need(JOB_PARTS.every((name) => parts.has(name)), "BAD_ARCHIVE", `expected exactly ${JOB_PARTS.join(", ")}`);
  const [manifest, step, evaluate, predict, params] = JOB_PARTS.map((name) => parts.get(name));
  const job = readManifest(manifest);
  for (const [name, part] of Object.entries({ step, evaluate, predict, params })) {
    need(hex(blobId(part)) === job.fields[name], "BAD_ARCHIVE", `${name} is not the part that the manifest names`);
  }
  return { job, manifest, step, evaluate, predict, params };
}

/**
 * All tensors but the reset ones of a safetensors file, float32 by name. Throws Refused(BAD_PARAMS) for other names,
 * shapes or types, and for values that are not finite.
 * @param {Uint8Array} bytes
 * @param {import("./manifest.js").Job} job
 * @returns {Map<string, Float32Array>}
 */
export function readParams(bytes, job) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length >= 8 ? Number(view.getBigUint64(0, true)) : Infinity;
  need(length <= MAX_HEADER && 8 + length <= bytes.length, "BAD_PARAMS", "not a safetensors file");
  let header;
  try {
    header = new Map(Object.entries(JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))));
  } catch {
    throw new Refused("BAD_PARAMS", "not a safetensors file");
  }
  header.delete("__metadata__");
  const wanted = job.tensors.filter(({ role }) => role !== "reset");
  need(header.size === wanted.length, "BAD_PARAMS", `${header.size} tensors, expected ${wanted.length}`);
  const body = bytes.subarray(8 + length);
  return new Map(wanted.map((tensor) => [tensor.name, values(tensor, header.get(tensor.name), body)]));
}

function values(tensor, entry, body) {
  const types = tensor.role === "frozen" ? ["F32", "F16"] : ["F32"];
  const fits = entry && types.includes(entry.dtype) && String(entry.shape) === String(tensor.shape);
  const [start, stop] = Array.isArray(entry?.data_offsets) ? entry.data_offsets : [];
  const size = tensor.size * (entry?.dtype === "F16" ? 2 : 4);
  const inside = Number.isSafeInteger(start) && start >= 0 && stop === start + size && stop <= body.length;
  need(fits && inside, "BAD_PARAMS", `${tensor.name} is not there as ${types[0]}[${tensor.shape}]`);
  const raw = body.slice(start, stop).buffer;
  const found = entry.dtype === "F16" ? Float32Array.from(new Uint16Array(raw), widen) : new Float32Array(raw);
  need(found.every(Number.isFinite), "BAD_PARAMS", `${tensor.name} holds values that are not finite`);
  return found;
}

/** A float16 as a number. */
function widen(half) {
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return NaN; // infinite, or not a number: refused by the caller
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return half >> 15 ? -size : size;
}
