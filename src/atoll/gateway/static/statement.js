// The statement's proof: each receipt is recomputed here from the published bytes, up to the roots on the chain.
//
// What the chain holds is told by this gateway; the roots are shown, so that anyone can compare them with a node of
// their own. All else is worked out in this page: BLAKE3 of the blob, EIP-712 digests, both trees, the sums.

import {
  accountTree,
  amountText,
  claimOf,
  compareReceipts,
  decodeEpoch,
  postOf,
  receiptDigest,
  receiptsTree,
} from "./atoll/receipts.js";
import { blobId, equal, hex, unhex } from "./atoll/hashing.js";
import { verify } from "./atoll/merkle.js";

const section = document.querySelector("[data-statement]");
const account = unhex(section.dataset.statement);
const verifier = { chainId: Number(section.dataset.chainId), address: unhex(section.dataset.settlement) };
const epochs = new Map();

/** An epoch as it is published and as the chain holds it, both checked against one another; fetched once. */
function epochOf(number) {
  if (!epochs.has(number)) {
    const found = fetchEpoch(number);
    found.catch(() => epochs.delete(number)); // asked again at the next press
    epochs.set(number, found);
  }
  return epochs.get(number);
}

async function fetchEpoch(number) {
  const [facts, blob] = await Promise.all([fetch(`/settlement/${number}.json`), fetch(`/settlement/${number}/blob`)]);
  if (!facts.ok || !blob.ok) throw new Error(`epoch ${number} could not be fetched; try again in a moment`);
  const chain = await facts.json();
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const published = decodeEpoch(bytes);
  const post = postOf(published, verifier);
  return { number, chain, published, post, blob: hex(blobId(bytes)), tree: receiptsTree(published.receipts, verifier) };
}

const root = (bytes) => `0x${hex(bytes)}`;

/** What the chain holds of an epoch against what its receipts give: the first difference, or an empty text. */
function differs({ number, chain, published, post, blob }) {
  const pairs = [
    ["blob's id", blob, chain.blob],
    ["number", Number(published.number), number],
    ["root of receipts", root(post.receiptsRoot), chain.receipts_root],
    ["root of accounts", root(post.root), chain.root],
    ["number of receipts", post.receipts, chain.receipts],
    ["number of accounts", post.accounts, chain.accounts],
  ];
  const wrong = pairs.find(([, ours, theirs]) => ours !== theirs);
  return wrong
    ? `epoch ${number}: the ${wrong[0]} is ${wrong[1]} by the published receipts, but the chain has ${wrong[2]}`
    : "";
}

/**
 * Recompute one line. Returns whether it matches, and the steps as [sentence, value] pairs.
 * @param {{epoch: number, job: string, round: number, unit: string, kind: number, amount: string, reason: number}} line
 */
export async function check(line) {
  const epoch = await epochOf(line.epoch);
  const wrong = differs(epoch);
  if (wrong) return { match: false, sentence: wrong, steps: [] };
  const wanted = {
    job: unhex(line.job),
    round: line.round,
    unit: unhex(line.unit || "00".repeat(32)),
    kind: line.kind,
    account,
  };
  const index = epoch.published.receipts.findIndex((one) => compareReceipts(one, wanted) === 0);
  if (index < 0)
    return { match: false, sentence: `epoch ${line.epoch}: this receipt is not among the published ones`, steps: [] };
  const receipt = epoch.published.receipts[index];
  if (String(receipt.amount) !== line.amount || receipt.reason !== line.reason) {
    const told = `this page says ${line.amount} with reason ${line.reason}`;
    const said = `the published receipt pays ${receipt.amount} with reason ${receipt.reason}; ${told}`;
    return { match: false, sentence: `epoch ${line.epoch}: ${said}`, steps: [] };
  }
  const digest = receiptDigest(receipt, verifier);
  const proof = epoch.tree.prove(index);
  if (!verify(unhex(epoch.chain.receipts_root), epoch.chain.receipts, index, digest, proof)) {
    return {
      match: false,
      sentence: `epoch ${line.epoch}: the proof of this receipt does not lead to the chain's root`,
      steps: [],
    };
  }
  const owed = await granted(epoch);
  return { match: !owed.wrong, sentence: owed.wrong, steps: steps(epoch, receipt, index, digest, proof, owed) };
}

/** What the account may claim after an epoch: what it could before, and its receipts of this one. */
async function granted(epoch) {
  const before = epoch.number > 0 ? await epochOf(epoch.number - 1) : null;
  const wrong = before && differs(before);
  if (wrong) return { wrong };
  const [now, then] = [claimOf(epoch.published, account), before && claimOf(before.published, account)];
  const mine = epoch.published.receipts.filter((one) => equal(one.account, account));
  const sum = mine.reduce((total, { amount }) => total + amount, 0n);
  const [cumulative, earlier] = [now?.cumulative ?? 0n, then?.cumulative ?? 0n];
  const adds = earlier + sum === cumulative;
  return {
    wrong: adds
      ? ""
      : `epoch ${epoch.number}: ${mine.length} receipts add ${sum} to ${earlier}, but the chain grants ${cumulative}`,
    mine: mine.length,
    sum,
    cumulative,
    earlier,
    claim: now,
  };
}

function steps(epoch, receipt, index, digest, proof, owed) {
  const path = proof.length ? proof.map(root).join(" ") : "none: it is the only leaf";
  return [
    ["The published receipts hash (BLAKE3) to the id that the chain names", epoch.blob],
    [`Receipt ${index + 1} of ${epoch.published.receipts.length}: its digest (EIP-712)`, root(digest)],
    [`${proof.length} sibling hashes lead from it to the root of receipts`, path],
    ["Root of receipts, recomputed; the chain has the same", root(epoch.post.receiptsRoot)],
    [
      `${owed.mine} receipts of this account add ${amountText(owed.sum)} to ${amountText(owed.earlier)}`,
      `${amountText(owed.cumulative)} ATL can be claimed in all`,
    ],
    [
      owed.claim
        ? `The account is leaf ${owed.claim.index + 1} of ${epoch.published.accounts.length}`
        : "The account is owed nothing so far",
      `root of accounts ${root(accountTree(epoch.published.accounts).root)}`,
    ],
  ];
}

// -- the page -----------------------------------------------------------------------------------------------------
function lineOf({ epoch, job, round, unit, kind, amount, reason }) {
  return { epoch: Number(epoch), job, round: Number(round), unit, kind: Number(kind), amount, reason: Number(reason) };
}

async function checkRow(row, open) {
  const button = row.querySelector(".check");
  button.textContent = "checking…";
  let found;
  try {
    found = await check(lineOf(row.dataset));
  } catch (error) {
    found = { match: false, sentence: error.message, steps: [] };
  }
  button.textContent = found.match ? "matches" : "differs";
  button.classList.add(found.match ? "good" : "bad");
  if (open || !found.match) show(row, found);
  return found.match;
}

/** The proof in a row of its own; pressing again folds it away. */
function show(row, { match, sentence, steps: all }) {
  if (row.nextElementSibling?.classList.contains("proof")) row.nextElementSibling.remove();
  const proof = document.createElement("tr");
  proof.className = "proof";
  const cell = proof.insertCell();
  cell.colSpan = row.cells.length;
  const box = document.createElement("div"); // stays in view while the table is scrolled sideways
  const seal = document.createElement("p");
  seal.className = `seal ${match ? "good" : "bad"}`;
  seal.setAttribute("role", "status");
  seal.textContent = match ? "✓ matches the chain" : `✗ differs: ${sentence}`;
  box.append(seal, list(all));
  cell.append(box);
  row.after(proof);
}

function list(all) {
  const steps = document.createElement("ol");
  for (const [sentence, value] of all) {
    const step = document.createElement("li");
    const code = document.createElement("code");
    code.textContent = value;
    step.append(`${sentence}: `, code);
    steps.append(step);
  }
  return steps;
}

section.addEventListener("click", async (event) => {
  const row = event.target.closest(".check")?.closest("tr");
  if (!row) return;
  const shown = row.nextElementSibling;
  if (shown?.classList.contains("proof")) shown.remove();
  else await checkRow(row, true);
});

document.querySelector("#check-all")?.addEventListener("click", async (event) => {
  event.target.disabled = true;
  const rows = [...section.querySelectorAll("tr[data-line]")];
  let right = 0;
  for (const row of rows) right += await checkRow(row, false);
  const sum = document.querySelector("#check-sum");
  sum.className = right === rows.length ? "seal good" : "seal bad";
  sum.textContent =
    right === rows.length
      ? `All ${right} lines: matches the chain.`
      : `${rows.length - right} of ${rows.length} lines differ.`;
  event.target.disabled = false;
});
