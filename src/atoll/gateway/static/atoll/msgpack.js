// The part of msgpack that crosses Atoll's wire: integers, bytes, strings, booleans, nil and arrays.
//
// Encoding is canonical (the shortest form, as msgspec writes it). Decoding takes any valid form of these types and
// refuses floats, maps, extensions, text that is not UTF-8, and whatever follows the value.

import { concat, utf8 } from "./hashing.js";
import { Refused, need } from "./refused.js";

const MAX_DEPTH = 16;

/** @typedef {number | bigint | boolean | null | string | Uint8Array | Value[]} Value */

/** Canonical bytes of a value. @param {Value} value @returns {Uint8Array} */
export function encode(value) {
  const parts = [];
  put(parts, value);
  return concat(...parts);
}

function put(parts, value) {
  if (value === null) parts.push(Uint8Array.of(0xc0));
  else if (typeof value === "boolean") parts.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === "number" || typeof value === "bigint") parts.push(integer(value));
  else if (typeof value === "string") {
    const bytes = utf8(value);
    parts.push(bytes.length < 32 ? Uint8Array.of(0xa0 | bytes.length) : head([0xd9, 0xda, 0xdb], bytes.length), bytes);
  } else if (value instanceof Uint8Array) parts.push(head([0xc4, 0xc5, 0xc6], value.length), value);
  else if (Array.isArray(value)) {
    parts.push(value.length < 16 ? Uint8Array.of(0x90 | value.length) : head([0, 0xdc, 0xdd], value.length));
    for (const item of value) put(parts, item);
  } else throw new TypeError(`${typeof value} has no form on the wire`);
}

/** A length in one, two or four bytes behind its code; code 0 stands for a form that does not exist. */
function head([small, middle, large], length) {
  if (small && length < 0x100) return Uint8Array.of(small, length);
  if (length < 0x10000) return Uint8Array.of(middle, length >>> 8, length);
  return Uint8Array.of(large, length >>> 24, length >>> 16, length >>> 8, length);
}

function integer(given) {
  const value = BigInt(given); // throws RangeError for a number that is not whole
  if (value >= 0n && value < 128n) return Uint8Array.of(Number(value));
  if (value < 0n && value >= -32n) return Uint8Array.of(Number(value) & 255);
  for (const [index, bits] of [8, 16, 32, 64].entries()) {
    const fits = value >= 0n ? value < 1n << BigInt(bits) : value >= -(1n << BigInt(bits - 1));
    if (fits) return sized((value >= 0n ? 0xcc : 0xd0) + index, BigInt.asUintN(64, value), bits / 8);
  }
  throw new RangeError(`${value} does not fit 64 bits`);
}

function sized(code, value, length) {
  const out = new Uint8Array(1 + length);
  out[0] = code;
  for (let at = length; at > 0; at--) {
    out[at] = Number(value & 255n);
    value >>= 8n;
  }
  return out;
}

/**
 * The value that bytes from outside stand for; integers beyond 2^53 come as bigint. Byte strings are views of `bytes`.
 * Throws Refused(MALFORMED).
 * @param {Uint8Array} bytes
 * @returns {Value}
 */
export function decode(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  need(reader.at === bytes.length, "MALFORMED", `msgpack: ${bytes.length - reader.at} bytes follow the value`);
  return value;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  take(length) {
    need(length <= this.bytes.length - this.at, "MALFORMED", "msgpack: the bytes end within a value");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  unsigned(length) {
    const start = this.at;
    this.take(length);
    if (length === 1) return this.view.getUint8(start);
    if (length === 2) return this.view.getUint16(start);
    if (length === 4) return this.view.getUint32(start);
    return narrow(this.view.getBigUint64(start));
  }

  signed(length) {
    const start = this.at;
    this.take(length);
    if (length === 1) return this.view.getInt8(start);
    if (length === 2) return this.view.getInt16(start);
    if (length === 4) return this.view.getInt32(start);
    return narrow(this.view.getBigInt64(start));
  }

  text(length) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(length));
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused("MALFORMED", "msgpack: text that is not UTF-8");
    }
  }

  array(length, depth) {
    need(depth < MAX_DEPTH, "MALFORMED", "msgpack: nested too deeply");
    need(length <= this.bytes.length - this.at, "MALFORMED", "msgpack: the bytes end within an array");
    const items = [];
    for (let index = 0; index < length; index++) items.push(this.value(depth + 1));
    return items;
  }

  value(depth) {
    const code = this.unsigned(1);
    if (code < 0x80) return code;
    if (code >= 0xe0) return code - 256;
    if (code >= 0xa0 && code < 0xc0) return this.text(code & 31);
    if (code >= 0x90 && code < 0xa0) return this.array(code & 15, depth);
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    if (code >= 0xc4 && code <= 0xc6) return this.take(this.unsigned(1 << (code - 0xc4)));
    if (code >= 0xcc && code <= 0xcf) return this.unsigned(1 << (code - 0xcc));
    if (code >= 0xd0 && code <= 0xd3) return this.signed(1 << (code - 0xd0));
    if (code >= 0xd9 && code <= 0xdb) return this.text(this.unsigned(1 << (code - 0xd9)));
    if (code === 0xdc || code === 0xdd) return this.array(this.unsigned(code === 0xdc ? 2 : 4), depth);
    throw new Refused("MALFORMED", `msgpack: a value of type 0x${code.toString(16)}`);
  }
}

function narrow(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
