// Accounts, as src/atoll/wire/identity.py: secp256k1 keys whose signatures contracts recover.

import { secp256k1 } from "../vendor/noble.js";
import { concat, fromBigEndian, hex, keccak, unhex } from "./hashing.js";
import { Refused, need } from "./refused.js";

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const PLAIN = { prehash: false };

/**
 * @typedef {object} AccountKey
 * @property {Uint8Array} account 20 bytes
 * @property {Uint8Array} secret 32 bytes: the key itself
 * @property {(digest: Uint8Array) => Uint8Array} sign the 65-byte signature of a 32-byte digest
 */

/**
 * The key that 32 secret bytes stand for; throws RangeError when they are none (0, or not below the curve's order).
 * Make a new one from `crypto.getRandomValues(new Uint8Array(32))`.
 * @param {Uint8Array} secret
 * @returns {AccountKey}
 */
export function makeKey(secret) {
  const number = secret.length === 32 ? fromBigEndian(secret) : 0n;
  if (number <= 0n || number >= ORDER) throw new RangeError("an account key is 32 bytes, from 1 to the curve's order");
  const kept = secret.slice();
  const account = accountOf(secp256k1.getPublicKey(kept, false));
  return Object.freeze({ account, secret: kept, sign: (digest) => signDigest(kept, digest) });
}

/** Last 20 bytes of keccak-256 over an uncompressed public key (65 bytes) without its prefix. */
function accountOf(publicKey) {
  return keccak(publicKey.subarray(1)).slice(12);
}

/**
 * 65 bytes r || s || v over a 32-byte digest as it is: v is 27 or 28, s low, deterministic (RFC 6979).
 * @param {Uint8Array} secret
 * @param {Uint8Array} digest
 */
export function signDigest(secret, digest) {
  if (digest.length !== 32) throw new RangeError(`a digest has 32 bytes, not ${digest.length}`);
  const found = secp256k1.sign(digest, secret, { ...PLAIN, lowS: true, format: "recovered" });
  return concat(found.subarray(1), Uint8Array.of(27 + found[0]));
}

/**
 * The account (20 bytes) that signed a digest; throws Refused(BAD_SIGNATURE) for any malformed one, a high s included.
 * @param {Uint8Array} digest
 * @param {Uint8Array} signature 65 bytes
 */
export function recover(digest, signature) {
  const sized = digest.length === 32 && signature.length === 65;
  need(sized, "BAD_SIGNATURE", "a signature has 65 bytes over a digest of 32");
  const [r, s] = [signature.subarray(0, 32), signature.subarray(32, 64)].map(fromBigEndian);
  const v = signature[64];
  const inside = (v === 27 || v === 28) && r > 0n && r < ORDER && s > 0n && s <= ORDER / 2n;
  need(inside, "BAD_SIGNATURE", "r, s or v lies outside its range");
  try {
    const form = concat(Uint8Array.of(v - 27), signature.subarray(0, 64));
    const compressed = secp256k1.recoverPublicKey(form, digest, PLAIN);
    return accountOf(secp256k1.Point.fromBytes(compressed).toBytes(false));
  } catch {
    throw new Refused("BAD_SIGNATURE", "no public key gives this signature");
  }
}

/** An account as "0x" and 40 hex digits, whose capitals are a checksum (EIP-55). @param {Uint8Array} account */
export function formatAccount(account) {
  if (account.length !== 20) throw new RangeError(`an account has 20 bytes, not ${account.length}`);
  const digits = hex(account);
  const sum = hex(keccak(new TextEncoder().encode(digits)));
  return "0x" + [...digits].map((digit, at) => (parseInt(sum[at], 16) >= 8 ? digit.toUpperCase() : digit)).join("");
}

/**
 * 20 bytes from "0x" and 40 hex digits; mixed capitals must be a valid checksum. Throws RangeError.
 * @param {string} text
 */
export function parseAccount(text) {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) throw new RangeError("not an account: 0x and 40 hexadecimal digits expected");
  const account = unhex(text);
  const digits = text.slice(2);
  const mixed = digits !== digits.toLowerCase() && digits !== digits.toUpperCase();
  const good = !mixed || formatAccount(account) === text;
  if (!good) throw new RangeError("the capitals do not match the account's checksum");
  return account;
}
