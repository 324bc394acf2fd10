// Every hash that Atoll computes, as src/atoll/wire/hashing.py: BLAKE3 names blobs, keccak-256 what contracts check.

import { keccak_256 } from "../vendor/noble.js";
import { blake3 } from "./blake3.js";

export const ZERO_HASH = new Uint8Array(32);

/** Domain tags: what a hash or a signature is for. Never reused for another meaning. */
export const TAGS = Object.freeze({
  BINDING: "atoll/binding/1",
  MESSAGE: "atoll/message/1",
  STATEMENT: "atoll/statement/1",
  COMMIT: "atoll/commit/1",
  UNIT: "atoll/unit/1",
  BEACON: "atoll/beacon/1",
  PREIMAGE: "atoll/preimage/1",
  GENERATOR: "atoll/generator/1",
  JOIN: "atoll/join/1",
});

const TEXT = new TextEncoder();

/** @param {string} text @returns {Uint8Array} its UTF-8 bytes */
export function utf8(text) {
  return TEXT.encode(text);
}

/** @param {Uint8Array} bytes @returns {string} lower-case hex, without 0x */
export function hex(bytes) {
  let out = "";
  for (const byte of bytes) out += byte.toString(16).padStart(2, "0");
  return out;
}

/** @param {string} text hex with or without 0x @returns {Uint8Array} throws RangeError for anything else */
export function unhex(text) {
  const digits = text.startsWith("0x") ? text.slice(2) : text;
  if (digits.length % 2 || !/^[0-9a-fA-F]*$/.test(digits)) throw new RangeError("not hex: pairs of 0-9 a-f expected");
  const bytes = new Uint8Array(digits.length / 2);
  for (let at = 0; at < bytes.length; at++) bytes[at] = parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  return bytes;
}

/** @param {...Uint8Array} parts @returns {Uint8Array} all parts, one after another */
export function concat(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** @param {Uint8Array} left @param {Uint8Array} right */
export function equal(left, right) {
  return compareBytes(left, right) === 0;
}

/** Order of two byte strings: negative, 0 or positive. @param {Uint8Array} left @param {Uint8Array} right */
export function compareBytes(left, right) {
  const shared = Math.min(left.length, right.length);
  for (let at = 0; at < shared; at++) if (left[at] !== right[at]) return left[at] - right[at];
  return left.length - right.length;
}

/** @param {number} value @returns {Uint8Array} four bytes, big-endian: a counter as it enters a hash */
export function u32(value) {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new RangeError(`${value} is not a uint32`);
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** @param {number | bigint} value @param {number} length @returns {Uint8Array} `length` bytes, big-endian */
export function bigEndian(value, length) {
  let rest = BigInt(value);
  const out = new Uint8Array(length);
  for (let at = length - 1; at >= 0; at--) {
    out[at] = Number(rest & 255n);
    rest >>= 8n;
  }
  if (rest !== 0n) throw new RangeError(`${value} does not fit ${length} bytes`);
  return out;
}

/** @param {Uint8Array} bytes @returns {bigint} the number that big-endian bytes stand for */
export function fromBigEndian(bytes) {
  return bytes.length ? BigInt("0x" + hex(bytes)) : 0n;
}

/** keccak-256 as Ethereum uses it. @param {...Uint8Array} parts hashed as one @returns {Uint8Array} 32 bytes */
export function keccak(...parts) {
  return keccak_256(parts.length === 1 ? parts[0] : concat(...parts));
}

/** Name of content-addressed bytes: BLAKE3. @param {Uint8Array} bytes @returns {Uint8Array} 32 bytes */
export function blobId(bytes) {
  return blake3(bytes);
}

/**
 * keccak-256 over the tag and the parts, each preceded by its length.
 * @param {string} tag
 * @param {...Uint8Array} parts
 */
export function tagged(tag, ...parts) {
  const framed = [utf8(tag), ...parts].flatMap((part) => [u32(part.length), part]);
  return keccak(concat(...framed));
}

/**
 * Where a signature counts: 52 bytes, chain id and registry address.
 * @typedef {{chainId: number | bigint, registry: Uint8Array}} Domain
 * @param {Domain} domain
 * @returns {Uint8Array}
 */
export function encodeDomain(domain) {
  if (domain.registry.length !== 20) throw new RangeError("a registry address has 20 bytes");
  return concat(bigEndian(domain.chainId, 32), domain.registry);
}
