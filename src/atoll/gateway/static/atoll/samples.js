// Samples as they come over the wire, checked against the data's Merkle root, and batches as graphs take them.
//
// One sample's bytes are its x, then its y: uint8 as it is, float32 little-endian, int64 as little-endian int32.

import { unhex } from "./hashing.js";
import { verify } from "./merkle.js";
import { decode } from "./msgpack.js";
import { Refused, need } from "./refused.js";

/**
 * Check an answer to a question for samples: msgpack [[sample bytes, [proof hashes]], ...] in the order asked.
 * Throws Refused (MALFORMED, BAD_PROOF).
 * @param {import("./manifest.js").Job} job a posted job
 * @param {ArrayLike<number>} indices that were asked for
 * @param {Uint8Array} packed
 * @returns {Uint8Array[]} the sample bytes, in the order asked
 */
export function openSamples(job, indices, packed) {
  const rows = decode(packed);
  need(Array.isArray(rows) && rows.length === indices.length, "MALFORMED", `${indices.length} samples were expected`);
  const { root, count } = job.fields.data;
  const top = unhex(root);
  return rows.map((row, at) => {
    const whole = Array.isArray(row) && row.length === 2 && row[0] instanceof Uint8Array && Array.isArray(row[1]);
    need(whole && row[0].length === job.sampleBytes, "MALFORMED", `sample ${indices[at]} does not have its form`);
    need(verify(top, count, indices[at], row[0], row[1]), "BAD_PROOF", `sample ${indices[at]} is not in the data set`);
    return row[0].slice();
  });
}

const MAKERS = {
  uint8: (count) => new Uint8Array(count),
  float32: (count) => new Float32Array(count),
  int64: (count) => new BigInt64Array(count),
};

/** Values of `records` (byte strings of one length) one after another, in the type that a graph takes. */
function gather(records, dtype, perRecord) {
  const out = MAKERS[dtype](records.length * perRecord);
  for (const [at, record] of records.entries()) {
    if (dtype === "uint8") {
      out.set(record, at * perRecord);
      continue;
    }
    const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    for (let index = 0; index < perRecord; index++) {
      const place = at * perRecord + index;
      if (dtype === "int64") out[place] = BigInt(view.getInt32(4 * index, true));
      else out[place] = finite(view.getFloat32(4 * index, true));
    }
  }
  return out;
}

function finite(value) {
  if (!Number.isFinite(value)) throw new Refused("MALFORMED", "a sample with numbers that are not finite");
  return value;
}

/**
 * A batch as the graph takes it: x and y as {type, data, dims}.
 * @param {import("./manifest.js").Job} job
 * @param {Uint8Array[]} records sample bytes
 */
export function batchOf(job, records) {
  const { input, target } = job.fields;
  const per = (shape) => shape.reduce((left, right) => left * right, 1);
  const port = ({ dtype, shape }, start, stop) => {
    const parts = records.map((record) => record.subarray(start, stop));
    return { type: dtype, data: gather(parts, dtype, per(shape)), dims: [records.length, ...shape] };
  };
  return { x: port(input, 0, job.xBytes), y: port(target, job.xBytes, job.sampleBytes) };
}
