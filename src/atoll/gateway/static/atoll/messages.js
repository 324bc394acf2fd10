// The messages of the training protocol, as src/atoll/wire/messages.py: their numbers, fields and size limits.
//
// An envelope is msgpack [number, body, signature]; the body is the array of the fields in the order given here. In
// JavaScript a body is an object: {type: "Commit", job, round, unit, digest}. Hashes are Uint8Array of 32 bytes.

import { TAGS, encodeDomain, tagged } from "./hashing.js";
import { recover } from "./identity.js";
import { decode, encode } from "./msgpack.js";
import { Refused, need } from "./refused.js";

const KILOBYTE = 1024;

/** Phases of a round, in this order. */
export const PHASES = Object.freeze({ LOCK: 0, BEACON: 1, AUDIT: 2, OPEN: 3, CERTIFY: 4 });

const isInteger = (low, high) => (value) => Number.isInteger(value) && value >= low && value <= high;
const isBytes = (least, most) => (value) =>
  value instanceof Uint8Array && value.length >= least && value.length <= most;
const isList = (least, most, each) => (value) =>
  Array.isArray(value) && value.length >= least && value.length <= most && value.every(each);

// What each kind of field may hold; a name ending in "s" is a list.
const KINDS = {
  hash: isBytes(32, 32),
  counter: isInteger(0, 0xffffffff),
  phase: isInteger(0, 4),
  byte: isInteger(0, 255),
  signature: isBytes(65, 65),
  payload: isBytes(0, 1 << 20),
  states: isList(1, 256, isBytes(32, 32)),
  handovers: isList(0, 64, isBytes(0, 1 << 20)),
  signatures: isList(0, 64, isBytes(65, 65)),
  prepares: isList(0, 64, isBytes(0, 8192)),
};

const BALLOT = "view:counter phase:phase";
const OPENING = "unit:hash states:states update:hash salt:hash";
// number: name, limit of the whole envelope in KiB, fields after job and round
const TABLE = {
  1: ["Commit", 1, "unit:hash digest:hash"],
  2: ["AuditCommit", 1, "unit:hash digest:hash"],
  3: ["Reveal", 16, OPENING],
  4: ["AuditReveal", 16, OPENING],
  5: ["Replay", 1, "unit:hash segment:byte state:hash"],
  6: ["Proposal", 4096, `${BALLOT} payload:payload handovers:handovers`],
  7: ["Vote", 1, `${BALLOT} digest:hash signature:signature`],
  8: ["Quorum", 2048, `${BALLOT} payload:payload signatures:signatures`],
  9: ["Handover", 2048, `${BALLOT} payload:payload prepares:prepares`],
  10: ["Preimage", 1, "value:hash"],
  11: ["Present", 1, ""],
  12: ["HistoryAsk", 1, "phase:phase"],
  13: ["Prepare", 1, `${BALLOT} digest:hash`],
};

/** Messages by their number: `name`, `limit` in bytes, `fields` as [name, kind] in order. */
export const MESSAGES = new Map(
  Object.entries(TABLE).map(([number, [name, limit, fields]]) => {
    const pairs = `job:hash round:counter ${fields}`.trim().split(" ").map((field) => field.split(":"));
    return [Number(number), { number: Number(number), name, limit: limit * KILOBYTE, fields: pairs }];
  }),
);
const BY_NAME = new Map([...MESSAGES.values()].map((message) => [message.name, message]));
const LARGEST = Math.max(...[...MESSAGES.values()].map((message) => message.limit));

/** What the sender of a message signs. */
function messageDigest(domain, number, body) {
  return tagged(TAGS.MESSAGE, encodeDomain(domain), Uint8Array.of(number), body);
}

/**
 * A message whose signature has been checked, or that we have signed.
 * @typedef {{account: Uint8Array, body: Record<string, any>, raw: Uint8Array}} Signed
 */

/**
 * Sign a message with an account's key (identity.makeKey); throws Refused(MALFORMED) for a field that does not fit.
 * @param {import("./hashing.js").Domain} domain
 * @param {Record<string, any>} body
 * @param {import("./identity.js").AccountKey} key
 * @returns {Signed}
 */
export function seal(domain, body, key) {
  const kind = BY_NAME.get(body.type);
  need(kind, "UNKNOWN_MESSAGE", `${body.type}`);
  const packed = encode(checked(kind, kind.fields.map(([name]) => body[name])));
  const signature = key.sign(messageDigest(domain, kind.number, packed));
  return { account: key.account, body, raw: encode([kind.number, packed, signature]) };
}

/**
 * Parse and check an envelope from outside; throws Refused with the reason that a node would give.
 * @param {import("./hashing.js").Domain} domain
 * @param {Uint8Array} raw
 * @returns {Signed}
 */
export function unseal(domain, raw) {
  need(raw.length <= LARGEST, "TOO_LARGE", `${raw.length} bytes; no message is larger than ${LARGEST}`);
  const parts = decode(raw);
  need(Array.isArray(parts) && parts.length === 3, "MALFORMED", "not an envelope");
  const [number, packed, signature] = parts;
  const whole = Number.isInteger(number) || typeof number === "bigint";
  need(whole && packed instanceof Uint8Array && KINDS.signature(signature), "MALFORMED", "not an envelope");
  const kind = MESSAGES.get(number);
  need(kind, "UNKNOWN_MESSAGE", `number ${number}`);
  need(raw.length <= kind.limit, "TOO_LARGE", `${kind.name} of ${raw.length} bytes; the limit is ${kind.limit}`);
  const values = checked(kind, decode(packed));
  const body = { type: kind.name, ...Object.fromEntries(kind.fields.map(([name], at) => [name, values[at]])) };
  return { account: recover(messageDigest(domain, number, packed), signature), body, raw };
}

function checked(kind, values) {
  const fits = Array.isArray(values) && values.length === kind.fields.length;
  need(fits, "MALFORMED", `${kind.name} does not have ${kind.fields.length} fields`);
  for (const [at, [name, form]] of kind.fields.entries()) {
    if (!KINDS[form](values[at])) throw new Refused("MALFORMED", `${kind.name}.${name} does not have its form`);
  }
  return values;
}
