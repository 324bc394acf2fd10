// Receipts and published epochs as bytes, and the trees over them (src/atoll/ledger/receipts.py and epoch.py).
//
// Amounts are bigint, in base units (10^18 = 1 ATL).

import { POST, RECEIPT, encodeArray, encodeValues } from "./eip712.js";
import { compareBytes, equal, fromBigEndian, hex, keccak, unhex } from "./hashing.js";
import { MerkleTree } from "./merkle.js";
import { decode, encode } from "./msgpack.js";
import { Refused, need, reasonName } from "./refused.js";

const SCHEMA = "atoll/epoch/1";
const LIMITS = { bytes: 64 << 20, receipts: 200_000, accounts: 1_000_000, jobs: 10_000 };
const MAX_AMOUNT = (1n << 128n) - 1n;

/** What each paid kind of receipt is for. */
export const KINDS = new Map([
  [1, "training unit"], [2, "audit"], [3, "replica of a disputed unit"], [4, "committee duty"],
]);

/**
 * @typedef {object} Receipt
 * @property {number} kind
 * @property {Uint8Array} job
 * @property {number} round
 * @property {Uint8Array} unit
 * @property {Uint8Array} account
 * @property {number} reason
 * @property {bigint} amount
 *
 * @typedef {object} Epoch
 * @property {number} number
 * @property {Receipt[]} receipts
 * @property {[Uint8Array, bigint][]} accounts every account with its cumulative amount
 * @property {{job: Uint8Array, total: bigint, settled: boolean}[]} jobs
 */

const isBytes = (value, least, most) => value instanceof Uint8Array && value.length >= least && value.length <= most;
const isBelow = (value, limit) => Number.isInteger(value) && value >= 0 && value < limit;

/** An amount as it travels: big-endian without leading zeros. @param {bigint} amount */
function amountBytes(amount) {
  const digits = amount.toString(16);
  return amount ? unhex(digits.length % 2 ? `0${digits}` : digits) : new Uint8Array(0);
}

/** An amount in tokens, exact, without trailing zeros: 1500000000000000000n -> "1.5". @param {bigint} amount */
export function amountText(amount) {
  const size = amount < 0n ? -amount : amount;
  const rest = String(size % 10n ** 18n).padStart(18, "0").replace(/0+$/, "");
  return `${amount < 0n ? "-" : ""}${size / 10n ** 18n}${rest ? "." : ""}${rest}`;
}

/** A name for a receipt that a person can look up. @param {Receipt} receipt */
export function receiptName({ kind, unit, account, job, round }) {
  return `${KINDS.get(kind)} 0x${hex(unit)} of 0x${hex(account)} (job 0x${hex(job)}, round ${round})`;
}

/** The order of receipts: by (job, round, unit, kind, account). @param {Receipt} left @param {Receipt} right */
export function compareReceipts(left, right) {
  return compareBytes(left.job, right.job) || left.round - right.round || compareBytes(left.unit, right.unit)
    || left.kind - right.kind || compareBytes(left.account, right.account);
}

function readReceipt(row) {
  need(Array.isArray(row) && row.length >= 7, "MALFORMED", "epoch: a receipt does not have its form");
  const [kind, job, round, unit, account, reason, amount] = row;
  const hashes = isBytes(job, 32, 32) && isBytes(unit, 32, 32) && isBytes(account, 20, 20) && isBytes(amount, 0, 16);
  need(hashes && row.length === 7, "MALFORMED", "epoch: a receipt does not have its form");
  const numbers = KINDS.has(kind) && isBelow(round, 2 ** 32) && isBelow(reason, 2 ** 16);
  need(numbers, "MALFORMED", "receipt: kind, round or reason is outside its range");
  const receipt = { kind, job, round, unit, account, reason, amount: fromBigEndian(amount) };
  const paid = receipt.amount <= MAX_AMOUNT && (!reason || !receipt.amount);
  need(paid, "MALFORMED", `receipt: refused with reason ${reason}, yet it pays ${receipt.amount}`);
  return receipt;
}

function rows(value, name, width, fits) {
  need(Array.isArray(value), "MALFORMED", `epoch: ${name} are expected`);
  need(value.length <= LIMITS[name], "MALFORMED", `epoch: ${value.length} ${name}, at most ${LIMITS[name]}`);
  for (const row of value) {
    const good = Array.isArray(row) && row.length === width && fits(row);
    need(good, "MALFORMED", `epoch: one of the ${name} is malformed`);
  }
  return value;
}

/**
 * A published epoch from its blob. Checks the form only; `explain` checks that it adds up. Throws Refused: TOO_LARGE,
 * BAD_VERSION for another schema, MALFORMED for anything but the canonical bytes.
 * @param {Uint8Array} data
 * @returns {Epoch}
 */
export function decodeEpoch(data) {
  need(data.length <= LIMITS.bytes, "TOO_LARGE", `an epoch of ${data.length} bytes; at most ${LIMITS.bytes}`);
  const form = decode(data);
  need(Array.isArray(form) && form.length >= 5, "MALFORMED", "epoch: five parts are expected");
  const [schema, number, receipts, accounts, jobs] = form;
  const plain = typeof schema === "string" && (Number.isInteger(number) || typeof number === "bigint");
  need(plain, "MALFORMED", "epoch: schema and number are expected");
  need(schema === SCHEMA, "BAD_VERSION", `an epoch of the form ${JSON.stringify(schema.slice(0, 40))}`);
  rows(accounts, "accounts", 2, ([account, amount]) => isBytes(account, 20, 20) && isBytes(amount, 0, 32));
  const isJob = ([job, total, settled]) =>
    isBytes(job, 32, 32) && isBytes(total, 0, 32) && typeof settled === "boolean";
  rows(jobs, "jobs", 3, isJob);
  const epoch = {
    number,
    receipts: rows(receipts, "receipts", 7, () => true).map(readReceipt),
    accounts: accounts.map(([account, amount]) => [account, fromBigEndian(amount)]),
    jobs: jobs.map(([job, total, settled]) => ({ job, total: fromBigEndian(total), settled })),
  };
  need(equal(encodeEpoch(epoch), data), "MALFORMED", "epoch: the bytes are not in canonical form");
  return epoch;
}

/** Canonical bytes of an epoch. @param {Epoch} epoch @returns {Uint8Array} */
export function encodeEpoch({ number, receipts, accounts, jobs }) {
  need(number >= 0 && number < 1n << 64n, "MALFORMED", `epoch ${number} is not a uint64`);
  const row = ({ kind, job, round, unit, account, reason, amount }) =>
    [kind, job, round, unit, account, reason, amountBytes(amount)];
  const totals = jobs.map(({ job, total, settled }) => [job, amountBytes(total), settled]);
  const owed = accounts.map(([account, amount]) => [account, amountBytes(amount)]);
  return encode([SCHEMA, number, receipts.map(row), owed, totals]);
}

/** EIP-712 digest of a receipt for the Settlement contract `verifier`: its leaf. */
export function receiptDigest(receipt, verifier) {
  return RECEIPT.digest(verifier, receipt);
}

/** Tree over the receipts of an epoch in their order. @param {Receipt[]} receipts */
export function receiptsTree(receipts, verifier) {
  return new MerkleTree(receipts.map((receipt) => receiptDigest(receipt, verifier)));
}

/** Leaf of an account: abi.encode(account, cumulative). @param {Uint8Array} account @param {bigint} cumulative */
function accountLeaf(account, cumulative) {
  return encodeValues(["address", "uint256"], [account, cumulative]);
}

/** Tree over the accounts of an epoch. @param {[Uint8Array, bigint][]} accounts */
export function accountTree(accounts) {
  return new MerkleTree(accounts.map(([account, cumulative]) => accountLeaf(account, cumulative)));
}

/** keccak256(abi.encode(JobTotal[])). */
function totalsHash(jobs) {
  const totals = jobs.map(({ job, total, settled }) => [job, total, settled]);
  return keccak(encodeArray(["bytes32", "uint256", "bool"], totals));
}

/** What the chain holds of an epoch, worked out from its receipts' blob; `digest` is what validators sign. */
export function postOf(epoch, verifier) {
  const post = {
    epoch: epoch.number,
    root: accountTree(epoch.accounts).root,
    receiptsRoot: receiptsTree(epoch.receipts, verifier).root,
    accounts: epoch.accounts.length,
    receipts: epoch.receipts.length,
    totals: totalsHash(epoch.jobs),
  };
  return { ...post, digest: POST.digest(verifier, post) };
}

/** Where an account stands in an epoch, with the proof that the contract takes; null if it earned nothing so far. */
export function claimOf(epoch, account) {
  const index = epoch.accounts.findIndex(([each]) => equal(each, account));
  if (index < 0) return null;
  const proof = accountTree(epoch.accounts).prove(index);
  return { epoch: epoch.number, account, cumulative: epoch.accounts[index][1], index, proof };
}

/** The proof that receipt `index` of an epoch is under its receipts root: siblings, lowest first. */
export function receiptProof(epoch, index, verifier) {
  if (!epoch.receipts[index]) throw new Refused("NOT_FOUND", `receipt ${index} of ${epoch.receipts.length}`);
  return receiptsTree(epoch.receipts, verifier).prove(index);
}

/** Whether a receipt pays: accepted work has reason OK (0). Otherwise the reason's name, or its number. */
export function outcomeOf({ reason }) {
  return reason === 0 ? "OK" : (reasonName(reason) ?? String(reason));
}
