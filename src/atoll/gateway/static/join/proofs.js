// What a tab checks before it believes its gateway: signatures of committees, and what follows from drawn numbers.
//
// Bytes are lower-case hex strings here. A place is {domain, jobs, job, round, committee}; see duties.js.

import { DRAWS, combine } from "../atoll/beacon.js";
import { decodePayload, nextBeacon, verifyQuorum } from "../atoll/committee.js";
import { Generator } from "../atoll/generator.js";
import { compareBytes, concat, hex, unhex, utf8 } from "../atoll/hashing.js";
import { unseal } from "../atoll/messages.js";
import { Refused } from "../atoll/refused.js";
import { assignUnits } from "../atoll/units.js";

const REPLICAS = 3; // as src/atoll/training/audit.py

/** A place in the bytes that the protocol's modules take. */
function placeOf({ domain, jobs, job, round, committee }) {
  return { domain, jobsContract: unhex(jobs), job: unhex(job), round, committee: (committee ?? []).map(unhex) };
}

/**
 * A quorum's envelope, checked: its phase and payload (bytes as hex); null unless the committee has signed it.
 * With `committee` null the signatures are not checked: nobody is known yet who could have signed.
 * @param {{domain: import("../atoll/hashing.js").Domain, jobs: string, job: string, round: number,
 *   committee: string[] | null}} at
 * @param {string} raw
 * @returns {{phase: number, payload: Record<string, any>} | null}
 */
export function openQuorum(at, raw) {
  try {
    const place = placeOf(at);
    const { body } = unseal(place.domain, unhex(raw));
    if (body.type !== "Quorum" || hex(body.job) !== at.job || body.round !== at.round) return null;
    const known = at.committee !== null;
    const payload = known ? verifyQuorum(place, body) : decodePayload(body.phase, body.payload);
    const next = body.phase === 4 ? { beacon: hex(nextBeacon(place, payload)) } : {};
    return { phase: body.phase, payload: { ...plain(payload), ...next } };
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** The same value with hex strings for bytes. */
function plain(value) {
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

/** The audit beacon from the links of a BEACON payload. @param {[string, string][]} links */
export function auditBeacon(at, links) {
  const { domain, job, round } = placeOf(at);
  return hex(combine(domain, job, round, DRAWS.AUDIT, links.map(([account, link]) => [unhex(account), unhex(link)])));
}

/**
 * The unit at a place of the round's list, as its beacon draws it: its shard and its id.
 * @param {{domain: import("../atoll/hashing.js").Domain, job: string, round: number, beacon: string}} at
 * @returns {{shard: number, id: string}}
 */
export function drawnUnit(at, shards, index, account) {
  // Shards are dealt to places, so whoever stands at the places before does not matter.
  const workers = Array.from({ length: index }, (_, place) => utf8(`place ${place}`)).concat([unhex(account)]);
  const units = assignUnits(at.domain, unhex(at.job), at.round, unhex(at.beacon), workers, shards);
  const { shard, id } = units[index];
  return { shard, id: hex(id) };
}

/** Who did each locked unit, from the signatures of the locked commits. @param {string[]} commits envelopes */
export function ownersOf(domain, commits) {
  const opened = commits.map((raw) => unseal(domain, unhex(raw)));
  return Object.fromEntries(opened.map(({ account, body }) => [hex(body.unit), hex(account)]));
}

function shuffled(beacon, context, accounts) {
  const order = accounts.map(unhex).sort(compareBytes);
  new Generator(unhex(beacon), context).shuffle(order);
  return order.map(hex);
}

/** Who audits the unit of `worker`, if it is audited: the next in the circle of all who have a locked unit. */
export function auditorOf(beacon, owners, worker) {
  const circle = shuffled(beacon, utf8("auditors"), Object.values(owners));
  return circle[(circle.indexOf(worker) + 1) % circle.length];
}

/** Whether an account is drawn to run a disputed unit again. */
export function isReplica(beacon, owners, unit, account) {
  const worker = owners[unit];
  const parties = [worker, auditorOf(beacon, owners, worker)];
  const others = Object.values(owners).filter((each) => !parties.includes(each));
  return shuffled(beacon, concat(utf8("replicas"), unhex(unit)), others).slice(0, REPLICAS).includes(account);
}

/** An envelope's message with its sender, bytes as hex; null when its signature is no signature. */
export function openEnvelope(domain, raw) {
  try {
    const { account, body } = unseal(domain, unhex(raw));
    return { account: hex(account), body: plain(body) };
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}
