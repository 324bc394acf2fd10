// A strict reader of protobuf messages with a known schema: unlike a protobuf library it refuses whatever is not in it.
//
// Two readers that treat odd encodings differently could see two different graphs in the same bytes. So a field that
// the schema does not name, a field of another wire type, a second value for a single field, and bytes after the end
// are all refused. A schema maps field numbers to [name, form] where form is one of the kinds below, a nested schema,
// or either of them in an array for a repeated field.

import { Refused } from "./refused.js";

/** @typedef {"int" | "bytes" | "text" | "float" | "double" | Schema} Form */
/** @typedef {Record<number, [string, Form | [Form]]>} Schema */

const WIRE = { int: 0, double: 1, bytes: 2, text: 2, float: 5 };
const SIZES = { 1: 8, 5: 4 };
const MAX_FIELDS = 1_000_000;

function bad(detail) {
  return new Refused("BAD_GRAPH", `not a protobuf of an ONNX model: ${detail}`);
}

/**
 * Fields by name; repeated ones are arrays (empty where absent), others undefined where absent. Integers are number,
 * or bigint beyond 2^53; `bytes` are views. Throws Refused(BAD_GRAPH).
 * @param {Uint8Array} bytes
 * @param {Schema} schema
 * @returns {Record<string, any>}
 */
export function read(bytes, schema) {
  return new Reader(bytes).message(0, bytes.length, schema);
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
    this.fields = 0;
  }

  /** An unsigned 64-bit varint, as bigint. */
  varint(end) {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.at >= end) throw bad("it ends within a number");
      const byte = this.bytes[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) {
        if (value >> 64n) throw bad("a number beyond 64 bits");
        return value;
      }
    }
    throw bad("a number of more than ten bytes");
  }

  length(end) {
    const length = this.varint(end);
    if (length > BigInt(end - this.at)) throw bad("a field is longer than what holds it");
    return Number(length);
  }

  message(start, end, schema) {
    const found = Object.create(null);
    for (const [name, form] of Object.values(schema)) if (Array.isArray(form)) found[name] = [];
    this.at = start;
    while (this.at < end) {
      if (++this.fields > MAX_FIELDS) throw bad("too many fields");
      const key = this.varint(end);
      const entry = schema[Number(key >> 3n)];
      if (!entry) throw bad(`field ${key >> 3n} is not expected here`);
      this.field(found, entry, Number(key & 7n), end);
    }
    if (this.at !== end) throw bad("a field is longer than what holds it");
    return found;
  }

  field(found, [name, form], wire, end) {
    if (!Array.isArray(form)) {
      if (found[name] !== undefined) throw bad(`${name} is there twice`);
      found[name] = this.value(form, wire, end);
    } else if (wire === 2 && WIRE[form[0]] !== undefined && WIRE[form[0]] !== 2) {
      const length = this.length(end); // packed
      const stop = this.at + length;
      while (this.at < stop) found[name].push(this.value(form[0], WIRE[form[0]], stop));
    } else {
      found[name].push(this.value(form[0], wire, end));
    }
  }

  value(form, wire, end) {
    const kind = typeof form === "string" ? form : "bytes";
    if (wire !== WIRE[kind]) throw bad("a field is of another type than expected");
    if (kind === "int") return narrow(BigInt.asIntN(64, this.varint(end)));
    if (SIZES[wire]) {
      if (end - this.at < SIZES[wire]) throw bad("it ends within a number");
      this.at += SIZES[wire];
      return kind === "float" ? this.view.getFloat32(this.at - 4, true) : this.view.getFloat64(this.at - 8, true);
    }
    const length = this.length(end);
    const start = this.at;
    if (typeof form !== "string") return this.message(start, start + length, form);
    this.at += length;
    const part = this.bytes.subarray(start, start + length);
    return kind === "text" ? text(part) : part;
  }
}

function text(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw bad("text that is not UTF-8");
  }
}

function narrow(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
