// The key of this browser: made here, kept here, taken out and brought in as text. Storage and dice are handed in.

import { hex, unhex } from "../atoll/hashing.js";
import { formatAccount, makeKey } from "../atoll/identity.js";

const PLACE = "atoll.key";
const FORMAT = 1;

/** @typedef {{chainId: number, registry: string}} Network chain id, and registry address as 40 hex digits */
/** @typedef {{key: import("../atoll/identity.js").AccountKey, account: string, network: Network | null}} Identity */

/** What a person reads when a text holds no key. */
export class BadKey extends Error {}

function identity(secret, network) {
  const key = makeKey(secret);
  return { key, account: hex(key.account), network };
}

/**
 * The key that is kept here; null when there is none yet.
 * @param {Storage} storage
 * @returns {Identity | null}
 */
export function loadKey(storage) {
  const text = storage.getItem(PLACE);
  return text === null ? null : readKey(text);
}

/**
 * Make a new key from 32 random bytes and keep it.
 * @param {Storage} storage
 * @param {(bytes: Uint8Array) => Uint8Array} fill fills bytes with randomness, as crypto.getRandomValues
 * @returns {Identity}
 */
export function createKey(storage, fill) {
  for (;;) {
    const made = tryIdentity(fill(new Uint8Array(32)));
    if (made !== null) {
      keep(storage, made);
      return made;
    }
  }
}

/** One of about 2^128 draws is no key: the next one is. */
function tryIdentity(secret) {
  try {
    return identity(secret, null);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/**
 * Take over the key in a text (see `readKey`); what was kept before is replaced.
 * @param {Storage} storage
 * @param {string} text
 * @returns {Identity}
 */
export function importKey(storage, text) {
  const found = readKey(text);
  keep(storage, found);
  return found;
}

/**
 * Remember the network that a key is used on.
 * @param {Storage} storage
 * @param {Identity} known
 * @param {Network} network
 * @returns {Identity}
 */
export function rememberNetwork(storage, known, network) {
  const now = { ...known, network };
  keep(storage, now);
  return now;
}

/** The key as text for a file: everything that another browser needs. @param {Identity} known */
export function exportKey(known) {
  const network = known.network && { chain_id: known.network.chainId, registry: `0x${known.network.registry}` };
  const account = formatAccount(known.key.account);
  return JSON.stringify({ atoll_key: FORMAT, account, private: `0x${hex(known.key.secret)}`, network }, null, 2) + "\n";
}

/**
 * The key in a text: a file from `exportKey`, or 64 hexadecimal digits. Throws BadKey.
 * @param {string} text
 * @returns {Identity}
 */
export function readKey(text) {
  const plain = text.trim();
  if (/^(0x)?[0-9a-fA-F]{64}$/.test(plain)) return checked(plain, null, null);
  let found;
  try {
    found = JSON.parse(plain);
  } catch {
    throw new BadKey("This is no key: a file saved by this page, or 64 hexadecimal digits, was expected.");
  }
  if (found?.atoll_key !== FORMAT || typeof found.private !== "string" || !/^0x[0-9a-f]{64}$/.test(found.private)) {
    throw new BadKey("This file holds no key of a form that this page knows. Use a file that this page saved.");
  }
  return checked(found.private, found.network ?? null, found.account);
}

function checked(digits, network, account) {
  let made;
  try {
    made = identity(unhex(digits), null);
  } catch {
    throw new BadKey("These 64 digits are no key of this kind. Copy them again from where you kept them.");
  }
  if (account !== null && account !== formatAccount(made.key.account)) {
    throw new BadKey("The key and the account in this file do not belong together: the file is damaged.");
  }
  if (network === null) return made;
  const fits = Number.isSafeInteger(network.chain_id) && /^0x[0-9a-f]{40}$/.test(network.registry);
  if (!fits) throw new BadKey("The network in this file cannot be read: the file is damaged.");
  return { ...made, network: { chainId: network.chain_id, registry: network.registry.slice(2) } };
}

function keep(storage, known) {
  storage.setItem(PLACE, exportKey(known));
}
