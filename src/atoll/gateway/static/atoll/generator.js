// The one source of drawn numbers, as src/atoll/wire/generator.py: a ChaCha20 keystream that every node recomputes.

import { chacha20 } from "../vendor/noble.js";
import { TAGS, tagged } from "./hashing.js";

const WORD = 2 ** 32;
const LONG = 1n << 64n;
const BLOCK = 64; // bytes of a ChaCha20 block
const CHUNK = 64 * BLOCK;
const NONCE = new Uint8Array(12);

/** Numbers drawn from (beacon, context): the same on every machine. */
export class Generator {
  #key;
  #counter = 0;
  #chunk = new Uint8Array(0);
  #at = 0;

  /** @param {Uint8Array} beacon @param {Uint8Array} context */
  constructor(beacon, context) {
    this.#key = tagged(TAGS.GENERATOR, beacon, context);
  }

  #byte() {
    if (this.#at === this.#chunk.length) {
      this.#chunk = chacha20(this.#key, NONCE, new Uint8Array(CHUNK), undefined, this.#counter);
      this.#counter += CHUNK / BLOCK;
      this.#at = 0;
    }
    return this.#chunk[this.#at++];
  }

  /** The next `length` bytes of the keystream. @param {number} length */
  take(length) {
    return Uint8Array.from({ length }, () => this.#byte());
  }

  /** The next four bytes as a little-endian number. */
  nextU32() {
    return (this.#byte() | (this.#byte() << 8) | (this.#byte() << 16) | (this.#byte() << 24)) >>> 0;
  }

  /** The next eight bytes as a little-endian bigint. */
  nextU64() {
    const low = BigInt(this.nextU32());
    return low | (BigInt(this.nextU32()) << 32n);
  }

  /** A number in 0..bound-1, each equally likely; 1 <= bound <= 2^32. @param {number} bound */
  uniform(bound) {
    const fits = Number.isInteger(bound) && bound >= 1 && bound <= WORD;
    if (!fits) throw new RangeError(`bound ${bound}: 1 to 2^32 expected`);
    const limit = WORD - (WORD % bound);
    for (;;) {
      const word = this.nextU32();
      if (word < limit) return word % bound;
    }
  }

  /** As `uniform`, from 64-bit words, for bounds above 2^32 and up to 2^64. @param {bigint} bound */
  uniformLong(bound) {
    if (bound <= BigInt(WORD) || bound > LONG) throw new RangeError(`bound ${bound}: more than 2^32, at most 2^64`);
    const limit = LONG - (LONG % bound);
    for (;;) {
      const word = this.nextU64();
      if (word < limit) return word % bound;
    }
  }

  /** Shuffle in place (Fisher-Yates). @param {Uint32Array | unknown[]} items */
  shuffle(items) {
    for (let at = items.length - 1; at > 0; at--) {
      const other = this.uniform(at + 1);
      const kept = items[at];
      items[at] = items[other];
      items[other] = kept;
    }
  }

  /** The numbers 0..count-1 shuffled. @param {number} count @returns {Uint32Array} */
  permutation(count) {
    const order = Uint32Array.from({ length: count }, (_, at) => at);
    this.shuffle(order);
    return order;
  }

  /**
   * `count` different items, in the order drawn.
   * @template T
   * @param {T[]} items
   * @param {number} count
   * @returns {T[]}
   */
  draw(items, count) {
    if (count < 0 || count > items.length) throw new RangeError(`cannot draw ${count} of ${items.length}`);
    const pool = [...items];
    for (let at = 0; at < count; at++) {
      const other = at + this.uniform(pool.length - at);
      [pool[at], pool[other]] = [pool[other], pool[at]];
    }
    return pool.slice(0, count);
  }
}
