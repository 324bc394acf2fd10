// What a job computes: its manifest, read from outside, and the sizes that follow (src/atoll/graph/spec.py).
//
// The bytes are bound by their BLAKE3 id, which is on the chain. That they are the canonical encoding is left to the
// nodes, which refuse any other; every field that decides how much memory or time is taken is checked here as well.

import { blobId, equal, hex } from "./hashing.js";
import { Refused } from "./refused.js";

const MAX_BYTES = 256 * 1024;
const MAX_ELEMENTS = 2 ** 28;
const ROLES = ["parameter", "aggregate", "reset", "frozen"];
const RESERVED = new Set(["x", "y", "step", "seed", "learning_rate", "loss", "count", "scores"]);
const ITEM_BYTES = { uint8: 1, float32: 4, int64: 8 };
const STORED_BYTES = { uint8: 1, float32: 4, int64: 4 };
const PARTS = ["step", "evaluate", "predict", "params", "initial"];
const BLOB = /^[0-9a-f]{64}$/;
const ROOT = /^0x[0-9a-f]{64}$/;

/**
 * @typedef {object} Tensor
 * @property {string} name
 * @property {number[]} shape
 * @property {"parameter" | "aggregate" | "reset" | "frozen"} role
 * @property {number} bits
 * @property {number} size number of elements
 *
 * @typedef {object} Job
 * @property {Uint8Array} id BLAKE3 of the manifest
 * @property {Record<string, any>} fields the document itself
 * @property {Tensor[]} tensors
 * @property {Tensor[]} vectorTensors those that are certified
 * @property {Tensor[]} resetTensors
 * @property {Tensor[]} frozenTensors
 * @property {number} vectorLength P
 * @property {number} modelBytes
 * @property {number} stateBytes
 * @property {number} updateBytes
 * @property {number} segments of a whole unit
 * @property {number} sampleBytes of one stored sample
 * @property {number} xBytes of them, its x
 */

function need(condition, detail) {
  if (!condition) throw new Refused("BAD_MANIFEST", detail);
}

const product = (shape) => shape.reduce((left, right) => left * right, 1);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function within(name, value, low, high) {
  need(Number.isSafeInteger(value) && value >= low && value <= high, `${name} is ${value}, expected ${low} to ${high}`);
}

function checkShape(what, shape) {
  need(Array.isArray(shape) && shape.length <= 8, `${what}: at most 8 dimensions`);
  for (const length of shape) within(`${what}: a dimension`, length, 1, MAX_ELEMENTS);
  need(product(shape) <= MAX_ELEMENTS, `${what}: too many elements`);
}

function readTensors(found) {
  need(Array.isArray(found) && found.length >= 1 && found.length <= 1024, "1 to 1024 tensors are expected");
  const seen = new Set(RESERVED);
  const tensors = found.map((one) => {
    need(isObject(one) && /^[A-Za-z_][A-Za-z0-9_.]{0,127}$/.test(one.name), "a tensor's name");
    need(!/^(next|metric)\./.test(one.name) && !seen.has(one.name), `tensor ${one.name} is reserved or named twice`);
    seen.add(one.name);
    checkShape(`tensor ${one.name}`, one.shape);
    within(`bits of ${one.name}`, one.bits, 0, 30);
    need(ROLES.includes(one.role), `role of ${one.name}`);
    return { name: one.name, shape: one.shape, role: one.role, bits: one.bits, size: product(one.shape) };
  });
  const roles = tensors.map((tensor) => ROLES.indexOf(tensor.role));
  need(roles.every((role, at) => !at || role >= roles[at - 1]) && roles[0] === 0, "tensors must be sorted by role");
  need(tensors.reduce((sum, tensor) => sum + tensor.size, 0) <= MAX_ELEMENTS, "too many elements in all tensors");
  return tensors;
}

function checkPorts(fields) {
  for (const name of ["input", "target", "output"]) {
    need(isObject(fields[name]), `${name} is not described`);
    checkShape(name, fields[name].shape);
  }
  need(["uint8", "float32", "int64"].includes(fields.input.dtype), "input.dtype");
  need(["int64", "float32"].includes(fields.target.dtype), "target.dtype");
  need(["probabilities", "values"].includes(fields.output.meaning), "output.meaning");
  const metrics = fields.metrics;
  need(Array.isArray(metrics) && metrics.length <= 8 && new Set(metrics).size === metrics.length, "metrics");
  need(metrics.every((name) => /^[a-z][a-z0-9_]{0,31}$/.test(name)), "metrics must be 1-32 of a-z 0-9 _");
}

function checkNumbers(fields) {
  const rate = fields.hyper?.learning_rate;
  need(Number.isFinite(rate) && rate > 0 && rate <= 1000, "hyper.learning_rate must be positive and at most 1000");
  within("batch", fields.batch, 1, 65_536);
  within("steps", fields.steps, 1, 100_000);
  within("segment", fields.segment, 1, fields.steps);
  need(fields.steps % fields.segment === 0, "steps must be a multiple of segment");
  within("segments", fields.steps / fields.segment, 1, 200);
  need(fields.update?.bits === 8 && fields.update?.block === 256, "update must be 8 bits in blocks of 256");
}

/** What a posted job has besides a job file: data, rounds, prices. */
function checkPosted(fields) {
  const { data, policy } = fields;
  need(isObject(data) && ROOT.test(data.root) && ROOT.test(data.held_out_root), "data roots are 0x and 64 hex digits");
  within("data.count", data.count, 1, 2 ** 32);
  need(["shuffled", "ordered"].includes(data.partition), "data.partition");
  within("rounds", fields.rounds, 1, 1_000_000);
  need(isObject(policy), "policy is not described");
  for (const key of ["unit_tolerance", "segment_tolerance"]) {
    within(`policy.${key}.whole`, policy[key]?.whole, 1, 1e9);
    within(`policy.${key}.part`, policy[key].part, 0, policy[key].whole);
  }
  for (const key of ["unit_price", "audit_price", "validator_price"]) {
    need(/^(0|[1-9][0-9]{0,38})$/.test(policy[key]), `policy.${key} must be a decimal string`);
  }
}

/**
 * Read a manifest, or a job file's document; throws Refused (WRONG_HASH or BAD_MANIFEST).
 * @param {Uint8Array} bytes
 * @param {Uint8Array | null} id the BLAKE3 id that the bytes must have
 * @returns {Job}
 */
export function readManifest(bytes, id = null) {
  need(bytes.length <= MAX_BYTES, `${bytes.length} bytes, at most ${MAX_BYTES}`);
  const found = blobId(bytes);
  if (id && !equal(found, id)) throw new Refused("WRONG_HASH", `the manifest's id is ${hex(found)}`);
  let fields;
  try {
    fields = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw new Refused("BAD_MANIFEST", "not JSON in UTF-8");
  }
  need(isObject(fields) && fields.schema === 2, "schema 2 is expected");
  need(/^[a-z0-9][a-z0-9._-]{0,63}$/.test(fields.name), "name must be 1-64 of a-z 0-9 . _ -");
  for (const key of PARTS) need(BLOB.test(fields[key]), `${key} must be a blob id`);
  const tensors = readTensors(fields.tensors);
  checkPorts(fields);
  checkNumbers(fields);
  if ("data" in fields) checkPosted(fields);
  return { id: found, fields, tensors, ...sizes(fields, tensors) };
}

function sizes(fields, tensors) {
  const elements = (group) => group.reduce((sum, tensor) => sum + tensor.size, 0);
  const vectorTensors = tensors.filter(({ role }) => role === "parameter" || role === "aggregate");
  const resetTensors = tensors.filter(({ role }) => role === "reset");
  const vectorLength = elements(vectorTensors);
  const inputBytes = product(fields.input.shape) * ITEM_BYTES[fields.input.dtype];
  const xBytes = product(fields.input.shape) * STORED_BYTES[fields.input.dtype];
  return {
    vectorTensors,
    resetTensors,
    frozenTensors: tensors.filter(({ role }) => role === "frozen"),
    vectorLength,
    modelBytes: 4 * vectorLength,
    stateBytes: 4 * (vectorLength + elements(resetTensors)),
    updateBytes: Math.ceil(vectorLength / 256) + vectorLength,
    segments: fields.steps / fields.segment,
    xBytes,
    sampleBytes: xBytes + product(fields.target.shape) * STORED_BYTES[fields.target.dtype],
    evaluateBatch: Math.max(1, Math.min(64, Math.floor(2 ** 20 / inputBytes))),
  };
}
