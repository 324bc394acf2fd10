// Units of work, as src/atoll/training/unit.py: who trains on which samples in which order, and what is committed to.

import { Generator } from "./generator.js";
import { TAGS, concat, encodeDomain, hex, tagged, u32, utf8 } from "./hashing.js";
import { MerkleTree } from "./merkle.js";

/**
 * One worker's share of a round. `segments` is what this unit has of them (a light unit has 1).
 * @typedef {object} Unit
 * @property {import("./hashing.js").Domain} domain
 * @property {Uint8Array} job
 * @property {number} round
 * @property {number} index
 * @property {Uint8Array} account
 * @property {number} shard
 * @property {Uint8Array} beacon
 * @property {number} [segments]
 */

/** A unit's id: 32 bytes. @param {Unit} unit */
export function unitId(unit) {
  const place = [encodeDomain(unit.domain), unit.job, u32(unit.round), unit.beacon];
  return tagged(TAGS.UNIT, ...place, u32(unit.index), unit.account, u32(unit.shard));
}

/** What the step graph's own random numbers start from: 31 bits of the unit's id. @param {Uint8Array} id */
export function seedOf(id) {
  return ((id[0] << 23) | (id[1] << 15) | (id[2] << 7) | (id[3] >>> 1)) >>> 0;
}

/**
 * One unit for each worker, in the order given; throws RangeError for no shard or a worker named twice.
 * @returns {(Unit & {id: Uint8Array})[]}
 */
export function assignUnits(domain, job, round, beacon, workers, shards) {
  if (!Number.isInteger(shards) || shards < 1) throw new RangeError("a round needs at least one shard");
  if (new Set(workers.map(hex)).size !== workers.length) throw new RangeError("a worker takes one unit a round");
  const context = concat(utf8("shards"), encodeDomain(domain), job, u32(round));
  const generator = new Generator(beacon, context);
  const dealt = [];
  while (dealt.length < workers.length) dealt.push(...generator.permutation(shards));
  return workers.map((account, index) => {
    const unit = { domain, job, round, index, account, shard: dealt[index], beacon };
    return { ...unit, id: unitId(unit) };
  });
}

/**
 * Sample indices of each shard; throws RangeError unless 1 <= shards <= count.
 * @param {Uint8Array} root the data's Merkle root
 * @param {number} count samples
 * @param {number} shards
 * @param {"shuffled" | "ordered"} partition
 * @returns {Uint32Array[]}
 */
export function shardsOf(root, count, shards, partition = "shuffled") {
  if (!(1 <= shards && shards <= count)) throw new RangeError(`${count} samples cannot make ${shards} shards`);
  const ordered = partition === "ordered";
  const order = ordered ? Uint32Array.from({ length: count }, (_, at) => at)
    : new Generator(root, utf8("samples")).permutation(count);
  const cut = (index) => Number((BigInt(index) * BigInt(count)) / BigInt(shards));
  return Array.from({ length: shards }, (_, index) => order.subarray(cut(index), cut(index + 1)));
}

/**
 * Sample indices of all steps, one row of `batch` after another: Uint32Array [steps * batch].
 * @param {Uint8Array} beacon
 * @param {Uint8Array} id of the unit
 * @param {Uint32Array} shard
 * @param {number} steps
 * @param {number} batch
 */
export function batches(beacon, id, shard, steps, batch) {
  if (!shard.length) throw new RangeError("a shard without samples");
  const generator = new Generator(beacon, id);
  const rows = new Uint32Array(steps * batch);
  for (let at = 0; at < rows.length; at += shard.length) {
    const order = generator.permutation(shard.length);
    const taken = Math.min(shard.length, rows.length - at);
    for (let index = 0; index < taken; index++) rows[at + index] = shard[order[index]];
  }
  return rows;
}

/** Merkle root over the ids of a unit's states, state 0 (the model's id) first. @param {Uint8Array[]} states */
export function statesRoot(states) {
  return new MerkleTree(states).root;
}

/** What is committed to before anything is revealed; `account` is whoever did the work (worker or auditor). */
export function commitHash(domain, job, round, unit, account, root, update, salt) {
  return tagged(TAGS.COMMIT, encodeDomain(domain), job, u32(round), unit, account, root, update, salt);
}
