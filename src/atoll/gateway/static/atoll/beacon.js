// Hash chains and the beacons drawn from their links, as src/atoll/training/beacon.py.

import { TAGS, compareBytes, concat, encodeDomain, equal, tagged, u32 } from "./hashing.js";

/** Which of a round's two beacons a link belongs to. */
export const DRAWS = Object.freeze({ AUDIT: 0, ASSIGN: 1 });

function hashed(value, times) {
  for (let left = times; left > 0; left--) value = tagged(TAGS.PREIMAGE, value);
  return value;
}

/** The link of a round and draw in the chain that starts from `seed`, for a job of `rounds` rounds. */
export function link(seed, rounds, round, draw) {
  return hashed(seed, 2 * rounds - 1 - (2 * round + draw));
}

/** What is enlisted on chain before anything is revealed. @param {Uint8Array} seed @param {number} rounds */
export function tip(seed, rounds) {
  return hashed(seed, 2 * rounds);
}

/** Whether `value` is the link of this round and draw in the chain with this tip. */
export function belongs(value, enlistedTip, round, draw) {
  return equal(hashed(value, 2 * round + draw + 1), enlistedTip);
}

/**
 * The beacon drawn from revealed links, whatever order they came in.
 * @param {import("./hashing.js").Domain} domain
 * @param {Uint8Array} job
 * @param {number} round
 * @param {number} draw
 * @param {[Uint8Array, Uint8Array][]} links account and link of each member
 */
export function combine(domain, job, round, draw, links) {
  const parts = links.map(([account, value]) => concat(account, value)).sort(compareBytes);
  return tagged(TAGS.BEACON, encodeDomain(domain), job, u32(round), Uint8Array.of(draw), ...parts);
}

/** The assignment beacon of round 0, drawn from all enlisted tips as [account, tip]. */
export function firstBeacon(domain, job, tips) {
  const parts = tips.map(([account, value]) => concat(account, value)).sort(compareBytes);
  return tagged(TAGS.BEACON, encodeDomain(domain), job, new TextEncoder().encode("first"), ...parts);
}
