// What a committee signs, as src/atoll/training/committee.py: payloads of the phases, quorums, statements.
//
// A `Place` says where a committee's signature counts:
// {domain, jobsContract: 20 bytes, job: 32 bytes, round: number, committee: accounts in leader order}.

import { DRAWS, combine } from "./beacon.js";
import { CERTIFICATE, committeeHash } from "./eip712.js";
import { TAGS, encodeDomain, equal, hex, keccak, tagged, u32 } from "./hashing.js";
import { recover } from "./identity.js";
import { MerkleTree } from "./merkle.js";
import { PHASES } from "./messages.js";
import { decode, encode } from "./msgpack.js";
import { Refused, need } from "./refused.js";

/** A finding that is not yet a verdict: replicas decide. */
export const DISPUTED = 255;

const bytes = (least, most) => (value) => value instanceof Uint8Array && value.length >= least && value.length <= most;
const integer = (value) => Number.isInteger(value) || typeof value === "bigint";
const flag = (value) => typeof value === "boolean";
const list = (most, each) => (value) => Array.isArray(value) && value.length <= most && value.every(each);
const row = (...each) => (value) =>
  Array.isArray(value) && value.length === each.length && each.every((fits, at) => fits(value[at]));
const hash = bytes(32, 32);
const account = bytes(20, 20);
const raw = bytes(0, 8192);
const evidence = list(256, raw);
const links = list(64, row(account, hash));
const verdict = row(integer, hash, account, integer);

// The fields of each phase's payload, in order.
const PAYLOADS = [
  { commits: evidence },
  { links },
  { commits: evidence },
  { reveals: evidence, auditReveals: evidence, findings: list(256, row(hash, integer)) },
  {
    replays: list(768, raw), present: evidence, links, verdicts: list(2048, verdict), model: hash,
    roster: list(256, account), committee: list(16, account), lockRoot: hash, last: flag,
  },
];

/**
 * A payload from outside as an object with its fields; throws Refused(MALFORMED) for any but the canonical form.
 * `verdicts` are rows [kind, unit, account, reason], `links` rows [account, link], `findings` rows [unit, finding].
 * @param {number} phase
 * @param {Uint8Array} data
 * @returns {Record<string, any>}
 */
export function decodePayload(phase, data) {
  const fields = Object.entries(PAYLOADS[phase] ?? {});
  const values = decode(data);
  const whole = Array.isArray(values) && values.length === fields.length;
  const fits = whole && fields.every(([, form], at) => form(values[at]));
  need(fits && fields.length, "MALFORMED", `payload of phase ${phase} does not have its form`);
  need(equal(encode(values), data), "MALFORMED", `payload of phase ${phase} is not in canonical form`);
  return Object.fromEntries(fields.map(([name], at) => [name, values[at]]));
}

/** Signatures that make a statement of a committee of so many members. @param {number} members */
export function quorum(members) {
  return Math.floor((2 * members) / 3) + 1;
}

/** Root of the tree over verdict rows [kind, unit, account, reason], in their order. @param {any[][]} verdicts */
export function verdictRoot(verdicts) {
  return new MerkleTree(verdicts.map((each) => encode(each))).root;
}

/** Root of the tree over the commit envelopes of a LOCK payload. @param {Uint8Array[]} commits */
export function lockRoot(commits) {
  return new MerkleTree(commits).root;
}

/** The fields of the EIP-712 certificate; `attempt` is the view in which it was signed. */
function certificateFields(place, payload, attempt) {
  return {
    job: place.job,
    round: place.round,
    attempt,
    lockRoot: payload.lockRoot,
    verdictRoot: verdictRoot(payload.verdicts),
    modelRoot: payload.model,
    committee: committeeHash(place.committee),
    nextCommittee: committeeHash(payload.committee),
    last: payload.last,
  };
}

/** What a member signs in a phase and view: 32 bytes. @param {Uint8Array} payload */
function statementDigest(place, phase, view, payload) {
  if (phase !== PHASES.CERTIFY) {
    const where = [encodeDomain(place.domain), place.job, u32(place.round)];
    return tagged(TAGS.STATEMENT, ...where, Uint8Array.of(phase), u32(view), keccak(payload));
  }
  const fields = certificateFields(place, decodePayload(phase, payload), view);
  return CERTIFICATE.digest({ chainId: place.domain.chainId, address: place.jobsContract }, fields);
}

/**
 * Check the signatures of a Quorum message (its body) against the committee; returns the payload or throws Refused.
 * The caller has checked that the message names this job and round.
 */
export function verifyQuorum(place, message) {
  const digest = statementDigest(place, message.phase, message.view, message.payload);
  const members = new Set(place.committee.map(hex));
  const signers = new Set(message.signatures.map((signature) => hex(recover(digest, signature))));
  if ([...signers].some((signer) => !members.has(signer))) {
    throw new Refused("UNKNOWN_ACCOUNT", "a signer is not a member of the committee");
  }
  const needed = quorum(place.committee.length);
  const said = `${signers.size} of ${place.committee.length} signed; ${needed} must`;
  need(signers.size >= needed, "BAD_SIGNATURE", said);
  return decodePayload(message.phase, message.payload);
}

/** The assignment beacon of the round after a certificate. */
export function nextBeacon(place, payload) {
  return combine(place.domain, place.job, place.round, DRAWS.ASSIGN, payload.links);
}
