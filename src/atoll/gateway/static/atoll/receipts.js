// A payment worked out again from the published receipts, as src/atoll/ledger/statement.py: the same answers.
//
// Everything is computed from published epochs and from a plain record of what the chain says; nothing is fetched.
// A chain view is {verifier: {chainId, address of Settlement}, epochs: [{number, root, receiptsRoot, accounts, receipts
// jobs: [{job, total, settled}]}], claimed: [[account, amount]], budgets?: [[job, amount]], light?: [[job, accounts]]};
// amounts are bigint, `light` are the accounts that enlisted as light workers.

import { KINDS, compareReceipts, outcomeOf, postOf, receiptName } from "./epochs.js";
import { compareBytes, equal, hex, unhex } from "./hashing.js";
import { REASONS } from "./refused.js";

export * from "./epochs.js";

const TRAINING = 1;
const VALIDATION = 4;

/**
 * All lines of an account over these epochs, and their sums.
 * @param {Uint8Array} account
 * @param {import("./epochs.js").Epoch[]} epochs
 */
export function statement(account, epochs) {
  const lines = [];
  const byEpoch = [];
  for (const epoch of [...epochs].sort((left, right) => left.number - right.number)) {
    const numbered = epoch.receipts.map((receipt, index) => ({ ...receipt, index }));
    const mine = numbered.filter((one) => equal(one.account, account));
    for (const one of mine) {
      lines.push({ epoch: epoch.number, ...one, label: KINDS.get(one.kind), outcome: outcomeOf(one) });
    }
    if (mine.length) byEpoch.push([epoch.number, sum(mine)]);
  }
  return { account, lines, byEpoch, earned: sum(lines), refused: lines.filter(({ reason }) => reason).length };
}

function sum(receipts) {
  return receipts.reduce((total, { amount }) => total + amount, 0n);
}

/**
 * What a job pays, in base units; `segments` is how many a full unit has.
 * @typedef {{unit: bigint, audit: bigint, validator: bigint, segments: number}} Prices
 * @param {import("./manifest.js").Job} job a posted job
 * @returns {Prices}
 */
export function pricesOf({ fields: { policy }, segments }) {
  const [unit, audit, validator] = [policy.unit_price, policy.audit_price, policy.validator_price].map(BigInt);
  return { unit, audit, validator, segments };
}

/** Price of one accepted piece of work; `light`: it was done on a light unit. */
function priceOf(prices, kind, light) {
  if (kind === VALIDATION) return prices.validator;
  const price = kind === TRAINING ? prices.unit : prices.audit;
  return light ? price / BigInt(prices.segments) : price;
}

/**
 * Recompute every total and root from the receipts alone and compare with the chain.
 *
 * `prices` (hex of a job -> pricesOf its manifest) checks that each receipt of the jobs it names pays its price: the
 * part of a light unit for whatever was done on the unit of a light worker. Returns `match`, the first difference as a
 * sentence (null if none), and what was found right before that.
 * @param {import("./epochs.js").Epoch[]} published
 * @param {any} chain
 * @param {Map<string, Prices>} prices
 */
export function explain(published, chain, prices = new Map()) {
  const walk = new Walk(chain, prices);
  const { value } = walk.differences(published).next();
  return { match: value === undefined, firstDifference: value ?? null, checked: { ...walk.checked } };
}

/** One pass over the epochs, oldest first, carrying the totals that the receipts have led to so far. */
class Walk {
  constructor(chain, prices) {
    this.chain = chain;
    this.prices = prices;
    this.budgets = new Map((chain.budgets ?? []).map(([job, amount]) => [hex(job), amount]));
    this.light = new Map((chain.light ?? []).map(([job, accounts]) => [hex(job), new Set(accounts.map(hex))]));
    this.owners = new Map(); // job, round and unit -> who trained it
    this.accounts = new Map(); // hex -> cumulative
    this.jobs = new Map(); // hex -> {total, settled}
    this.seen = new Map(); // receipt -> its reason
    this.granted = new Map(); // account -> set of every cumulative amount that a root ever granted
    this.checked = { epochs: 0, receipts: 0, accounts: 0, jobs: 0, claims: 0 };
  }

  *differences(published) {
    const posted = new Map(this.chain.epochs.map((epoch) => [epoch.number, epoch]));
    const epochs = new Map(published.map((epoch) => [epoch.number, epoch]));
    if (posted.size < this.chain.epochs.length || epochs.size < published.length) {
      yield "an epoch was given twice; expected each epoch once, on the chain and among the published ones";
    }
    const numbers = [...new Set([...posted.keys(), ...epochs.keys()])].sort((left, right) => left - right);
    for (const number of numbers) {
      if (!epochs.has(number)) yield `epoch ${number}: the chain has a post, but no receipts were published for it`;
      else if (!posted.has(number)) yield `epoch ${number}: receipts were published, but the chain has no post for it`;
      else {
        yield* this.epoch(epochs.get(number), posted.get(number));
        this.checked.epochs += 1;
      }
    }
    yield* this.claims();
  }

  *epoch(epoch, posted) {
    const where = `epoch ${epoch.number}`;
    yield* this.receipts(where, epoch);
    yield* this.accountTotals(where, epoch);
    yield* this.jobTotals(where, epoch);
    yield* postedJobs(where, epoch.jobs, posted.jobs);
    const found = postOf(epoch, this.chain.verifier);
    for (const [name, ours, theirs] of [
      ["number of receipts", found.receipts, posted.receipts],
      ["receipts root", found.receiptsRoot, posted.receiptsRoot],
      ["number of accounts", found.accounts, posted.accounts],
      ["account root", found.root, posted.root],
    ]) {
      const [expected, there] = [ours, theirs].map(shown);
      if (expected !== there) yield `${where}: the ${name} is ${expected} by the receipts, but the chain has ${there}`;
    }
    this.accounts = new Map(epoch.accounts.map(([account, amount]) => [hex(account), amount]));
    for (const { job, total, settled } of epoch.jobs) this.jobs.set(hex(job), { total, settled });
  }

  *receipts(where, epoch) {
    let last = null;
    for (const receipt of epoch.receipts) {
      const name = receiptName(receipt);
      if (last && compareReceipts(receipt, last) <= 0) yield `${where}: ${name} is out of order, or appears twice`;
      last = receipt;
      const before = this.seen.get(name);
      // A unit that could not be settled in its round may be paid or refused later; nothing else comes twice.
      const again = before !== undefined && before !== REASONS.UNSETTLED;
      if (again) yield `${where}: ${name} was already settled in an earlier epoch`;
      this.seen.set(name, receipt.reason);
      if (this.jobs.get(hex(receipt.job))?.settled) {
        yield `${where}: ${name} belongs to a job that was settled in an earlier epoch`;
      }
      const expected = this.price(receipt);
      if (expected !== null && receipt.amount !== expected) {
        yield `${where}: ${name} pays ${receipt.amount}; expected ${expected} by the job's prices`;
      }
      this.checked.receipts += 1;
    }
  }

  /** What a receipt must pay; null for a job without prices. */
  price({ job, round, unit, kind, account, reason }) {
    const name = hex(job);
    const work = `${name} ${round} ${hex(unit)}`;
    if (kind === TRAINING) this.owners.set(work, hex(account)); // comes before the checks of the unit
    const prices = this.prices.get(name);
    if (!prices) return null;
    const light = this.light.get(name)?.has(this.owners.get(work)) ?? false;
    return reason === REASONS.OK ? priceOf(prices, kind, light) : 0n;
  }

  *accountTotals(where, epoch) {
    const expected = new Map(this.accounts);
    for (const { account, amount } of epoch.receipts) add(expected, hex(account), amount);
    for (const [account, amount] of expected) if (!amount) expected.delete(account);
    if (!rises(epoch.accounts.map(([account]) => account))) {
      yield `${where}: the published accounts are not in rising order without repetition`;
    }
    const found = new Map(epoch.accounts.map(([account, amount]) => [hex(account), amount]));
    for (const account of [...new Set([...expected.keys(), ...found.keys()])].sort()) {
      const [owed, listed] = [expected.get(account), found.get(account)];
      if (owed !== listed) {
        const there = listed === undefined ? "is missing" : `is ${listed}`;
        yield `${where}, account 0x${account}: the receipts add up to ${owed ?? 0n}, ` +
          `but the published cumulative amount ${there}`;
      }
      if (listed !== undefined) {
        if (!this.granted.has(account)) this.granted.set(account, new Set());
        this.granted.get(account).add(listed);
        this.checked.accounts += 1;
      }
    }
  }

  *jobTotals(where, epoch) {
    const sums = new Map([...this.jobs].map(([job, { total }]) => [job, total]));
    for (const { job, amount } of epoch.receipts) add(sums, hex(job), amount);
    const fresh = new Set(epoch.receipts.filter(({ amount }) => amount).map(({ job }) => hex(job)));
    if (!rises(epoch.jobs.map(({ job }) => job))) {
      yield `${where}: the published job totals are not in rising order without repetition`;
    }
    const found = new Map(epoch.jobs.map((total) => [hex(total.job), total]));
    for (const job of [...new Set([...fresh, ...found.keys()])].sort()) {
      const difference = this.jobDifference(job, sums.get(job) ?? 0n, fresh.has(job), found.get(job));
      if (difference) yield `${where}, job 0x${job}: ${difference}`;
      this.checked.jobs += 1;
    }
  }

  jobDifference(job, owed, isNew, found) {
    if (!found) return `its receipts add up to ${owed}, but no total is published for it`;
    if (found.total !== owed) return `the receipts add up to ${owed}, but the published total is ${found.total}`;
    if (this.jobs.get(job)?.settled) return "it was settled in an earlier epoch, yet it appears again";
    if (!isNew && !found.settled) return "it is listed, but neither its total nor its end is new";
    const budget = this.budgets.get(job);
    return budget !== undefined && owed > budget ? `its total is ${owed}, but its escrow was only ${budget}` : null;
  }

  *claims() {
    const claimed = this.chain.claimed.map(([account, amount]) => [hex(account), amount]);
    for (const [account, amount] of claimed.sort((left, right) => compareBytes(unhex(left[0]), unhex(right[0])))) {
      // A claim always pays up to the cumulative amount of some root.
      if (amount && !this.granted.get(account)?.has(amount)) {
        const owed = this.accounts.get(account) ?? 0n;
        yield `account 0x${account}: it has claimed ${amount} on the chain, which no epoch granted ` +
          `(the latest cumulative amount is ${owed})`;
      }
      this.checked.claims += 1;
    }
  }
}

function add(sums, name, amount) {
  sums.set(name, (sums.get(name) ?? 0n) + amount);
}

function rises(names) {
  return names.every((name, at) => !at || compareBytes(names[at - 1], name) < 0);
}

function* postedJobs(where, ours, theirs) {
  for (let at = 0; at < Math.max(ours.length, theirs.length); at++) {
    const [expected, there] = [jobText(ours[at]), jobText(theirs[at])];
    if (expected !== there) yield `${where}: expected ${expected} by the receipts, but the chain has ${there}`;
  }
}

function jobText(found) {
  if (!found) return "no further job";
  return `job 0x${hex(found.job)} with a total of ${found.total}${found.settled ? ", settled" : ""}`;
}

function shown(value) {
  return value instanceof Uint8Array ? `0x${hex(value)}` : String(value);
}
