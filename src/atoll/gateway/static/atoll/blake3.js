// BLAKE3 of whole byte strings (https://github.com/BLAKE3-team/BLAKE3-specs), 32 bytes, unkeyed.
//
// Written out with local variables, because a unit hashes megabytes of states: some ten times as fast as a loop over
// an array. Words are little-endian, as typed arrays are on every device that runs a browser.

const IV = Int32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const CHUNK_START = 1;
const CHUNK_END = 2;
const PARENT = 4;
const ROOT = 8;
const CHUNK = 1024;
const BLOCK = 64;

/**
 * One compression: the chaining value `h` (8 words) becomes the next one.
 * @param {Int32Array} h
 * @param {Int32Array} m words of the message
 * @param {number} at where the block's 16 words start in `m`
 */
function compress(h, m, at, counter, length, flags) {
  let a0 = h[0], a1 = h[1], a2 = h[2], a3 = h[3], b0 = h[4], b1 = h[5], b2 = h[6], b3 = h[7];
  let c0 = IV[0], c1 = IV[1], c2 = IV[2], c3 = IV[3], d0 = counter | 0, d1 = 0, d2 = length, d3 = flags;
  let m0 = m[at], m1 = m[at + 1], m2 = m[at + 2], m3 = m[at + 3], m4 = m[at + 4], m5 = m[at + 5], m6 = m[at + 6];
  let m7 = m[at + 7], m8 = m[at + 8], m9 = m[at + 9], mA = m[at + 10], mB = m[at + 11], mC = m[at + 12];
  let mD = m[at + 13], mE = m[at + 14], mF = m[at + 15];
  for (let round = 0; ; round++) {
    a0 = (a0 + b0 + m0) | 0; d0 ^= a0; d0 = (d0 >>> 16) | (d0 << 16); c0 = (c0 + d0) | 0; b0 ^= c0;
    b0 = (b0 >>> 12) | (b0 << 20); a0 = (a0 + b0 + m1) | 0; d0 ^= a0; d0 = (d0 >>> 8) | (d0 << 24); c0 = (c0 + d0) | 0;
    b0 ^= c0; b0 = (b0 >>> 7) | (b0 << 25);
    a1 = (a1 + b1 + m2) | 0; d1 ^= a1; d1 = (d1 >>> 16) | (d1 << 16); c1 = (c1 + d1) | 0; b1 ^= c1;
    b1 = (b1 >>> 12) | (b1 << 20); a1 = (a1 + b1 + m3) | 0; d1 ^= a1; d1 = (d1 >>> 8) | (d1 << 24); c1 = (c1 + d1) | 0;
    b1 ^= c1; b1 = (b1 >>> 7) | (b1 << 25);
    a2 = (a2 + b2 + m4) | 0; d2 ^= a2; d2 = (d2 >>> 16) | (d2 << 16); c2 = (c2 + d2) | 0; b2 ^= c2;
    b2 = (b2 >>> 12) | (b2 << 20); a2 = (a2 + b2 + m5) | 0; d2 ^= a2; d2 = (d2 >>> 8) | (d2 << 24); c2 = (c2 + d2) | 0;
    b2 ^= c2; b2 = (b2 >>> 7) | (b2 << 25);
    a3 = (a3 + b3 + m6) | 0; d3 ^= a3; d3 = (d3 >>> 16) | (d3 << 16); c3 = (c3 + d3) | 0; b3 ^= c3;
    b3 = (b3 >>> 12) | (b3 << 20); a3 = (a3 + b3 + m7) | 0; d3 ^= a3; d3 = (d3 >>> 8) | (d3 << 24); c3 = (c3 + d3) | 0;
    b3 ^= c3; b3 = (b3 >>> 7) | (b3 << 25);
    a0 = (a0 + b1 + m8) | 0; d3 ^= a0; d3 = (d3 >>> 16) | (d3 << 16); c2 = (c2 + d3) | 0; b1 ^= c2;
    b1 = (b1 >>> 12) | (b1 << 20); a0 = (a0 + b1 + m9) | 0; d3 ^= a0; d3 = (d3 >>> 8) | (d3 << 24); c2 = (c2 + d3) | 0;
    b1 ^= c2; b1 = (b1 >>> 7) | (b1 << 25);
    a1 = (a1 + b2 + mA) | 0; d0 ^= a1; d0 = (d0 >>> 16) | (d0 << 16); c3 = (c3 + d0) | 0; b2 ^= c3;
    b2 = (b2 >>> 12) | (b2 << 20); a1 = (a1 + b2 + mB) | 0; d0 ^= a1; d0 = (d0 >>> 8) | (d0 << 24); c3 = (c3 + d0) | 0;
    b2 ^= c3; b2 = (b2 >>> 7) | (b2 << 25);
    a2 = (a2 + b3 + mC) | 0; d1 ^= a2; d1 = (d1 >>> 16) | (d1 << 16); c0 = (c0 + d1) | 0; b3 ^= c0;
    b3 = (b3 >>> 12) | (b3 << 20); a2 = (a2 + b3 + mD) | 0; d1 ^= a2; d1 = (d1 >>> 8) | (d1 << 24); c0 = (c0 + d1) | 0;
    b3 ^= c0; b3 = (b3 >>> 7) | (b3 << 25);
    a3 = (a3 + b0 + mE) | 0; d2 ^= a3; d2 = (d2 >>> 16) | (d2 << 16); c1 = (c1 + d2) | 0; b0 ^= c1;
    b0 = (b0 >>> 12) | (b0 << 20); a3 = (a3 + b0 + mF) | 0; d2 ^= a3; d2 = (d2 >>> 8) | (d2 << 24); c1 = (c1 + d2) | 0;
    b0 ^= c1; b0 = (b0 >>> 7) | (b0 << 25);
    if (round === 6) break;
    // The message's words in the next round's order, along the cycles of the permutation.
    let kept = m0; m0 = m2; m2 = m3; m3 = mA; mA = mC; mC = m9; m9 = mB; mB = m5; m5 = kept;
    kept = m1; m1 = m6; m6 = m4; m4 = m7; m7 = mD; mD = mE; mE = mF; mF = m8; m8 = kept;
  }
  h[0] = a0 ^ c0; h[1] = a1 ^ c1; h[2] = a2 ^ c2; h[3] = a3 ^ c3;
  h[4] = b0 ^ d0; h[5] = b1 ^ d1; h[6] = b2 ^ d2; h[7] = b3 ^ d3;
}

const scratch = new Int32Array(16);
const scratchBytes = new Uint8Array(scratch.buffer);

/** The chaining value of one chunk (at most 1024 bytes); `root` is ROOT where it is the only one. */
function chunkValue(words, bytes, start, stop, counter, root) {
  const h = IV.slice();
  let flags = CHUNK_START;
  let at = start;
  for (; stop - at > BLOCK; at += BLOCK) {
    compress(h, words, at >>> 2, counter, BLOCK, flags);
    flags = 0;
  }
  scratch.fill(0);
  scratchBytes.set(bytes.subarray(at, stop));
  compress(h, scratch, 0, counter, stop - at, flags | CHUNK_END | root);
  return h;
}

function parentValue(left, right, root) {
  scratch.set(left);
  scratch.set(right, 8);
  const h = IV.slice();
  compress(h, scratch, 0, 0, BLOCK, PARENT | root);
  return h;
}

/** @param {Uint8Array} given @returns {Uint8Array} 32 bytes */
export function blake3(given) {
  const bytes = given.byteOffset % 4 === 0 ? given : given.slice();
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  const chunks = Math.max(1, Math.ceil(bytes.length / CHUNK));
  const stack = []; // values of the subtrees on the left, largest first
  for (let index = 0; index < chunks - 1; index++) {
    let value = chunkValue(words, bytes, index * CHUNK, (index + 1) * CHUNK, index, 0);
    for (let left = index + 1; left % 2 === 0; left /= 2) value = parentValue(stack.pop(), value, 0);
    stack.push(value);
  }
  const last = chunks - 1;
  let value = chunkValue(words, bytes, last * CHUNK, bytes.length, last, stack.length ? 0 : ROOT);
  while (stack.length) value = parentValue(stack.pop(), value, stack.length ? 0 : ROOT);
  return new Uint8Array(value.buffer);
}
