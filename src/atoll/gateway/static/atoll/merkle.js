// Merkle trees over keccak-256, as src/atoll/wire/merkle.py: a proof shows a leaf and its position.

import { ZERO_HASH, bigEndian, equal, keccak } from "./hashing.js";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);
const ROOT = Uint8Array.of(2);

/** Hash of a leaf's content. @param {Uint8Array} content */
function leafHash(content) {
  return keccak(LEAF, content);
}

function seal(count, top) {
  return keccak(ROOT, bigEndian(count, 8), top);
}

/** A tree over leaf contents: `root` is 32 bytes, `prove(i)` the siblings of leaf i, lowest first. */
export class MerkleTree {
  /** @param {Uint8Array[]} leaves */
  constructor(leaves) {
    this.count = leaves.length;
    let row = leaves.length ? leaves.map(leafHash) : [ZERO_HASH];
    while (row.length & (row.length - 1)) row.push(ZERO_HASH);
    this.rows = [row];
    while (row.length > 1) {
      const below = row;
      row = Array.from({ length: below.length / 2 }, (_, at) => keccak(NODE, below[2 * at], below[2 * at + 1]));
      this.rows.push(row);
    }
    this.root = seal(this.count, row[0]);
  }

  /** @param {number} index @returns {Uint8Array[]} */
  prove(index) {
    const inside = Number.isInteger(index) && index >= 0 && index < this.count;
    if (!inside) throw new RangeError(`leaf ${index} of ${this.count}`);
    return this.rows.slice(0, -1).map((row, level) => row[Math.floor(index / 2 ** level) ^ 1]);
  }
}

/**
 * Whether `content` is leaf `index` of the tree of `count` leaves with this root; at most 2^32 leaves.
 * @param {Uint8Array} root
 * @param {number} count
 * @param {number} index
 * @param {Uint8Array} content
 * @param {Uint8Array[]} proof
 */
export function verify(root, count, index, content, proof) {
  const whole = Number.isInteger(index) && Number.isInteger(count);
  if (!whole || count > 2 ** 32 || index < 0 || index >= count) return false;
  const levels = count === 1 ? 0 : 32 - Math.clz32(count - 1);
  if (proof.length !== levels) return false;
  let value = leafHash(content);
  let place = index;
  for (const sibling of proof) {
    if (!(sibling instanceof Uint8Array) || sibling.length !== 32) return false;
    value = place & 1 ? keccak(NODE, sibling, value) : keccak(NODE, value, sibling);
    place >>>= 1;
  }
  return equal(seal(count, value), root);
}
