// node answer.mjs: calls functions of the browser's modules. Each line of the standard input is [name, arguments], each
// line of the output {"found": value} or {"refused": reason}; values as values.mjs writes them.

import readline from "node:readline";
import { read, write } from "./values.mjs";
import * as archive from "../../src/atoll/gateway/static/atoll/archive.js";
import * as beacon from "../../src/atoll/gateway/static/atoll/beacon.js";
import * as committee from "../../src/atoll/gateway/static/atoll/committee.js";
import * as compare from "../../src/atoll/gateway/static/atoll/compare.js";
import * as eip712 from "../../src/atoll/gateway/static/atoll/eip712.js";
import * as fixed from "../../src/atoll/gateway/static/atoll/fixed.js";
import * as gate from "../../src/atoll/gateway/static/atoll/gate.js";
import { Generator } from "../../src/atoll/gateway/static/atoll/generator.js";
import * as hashing from "../../src/atoll/gateway/static/atoll/hashing.js";
import * as identity from "../../src/atoll/gateway/static/atoll/identity.js";
import * as manifest from "../../src/atoll/gateway/static/atoll/manifest.js";
import * as merkle from "../../src/atoll/gateway/static/atoll/merkle.js";
import * as messages from "../../src/atoll/gateway/static/atoll/messages.js";
import * as msgpack from "../../src/atoll/gateway/static/atoll/msgpack.js";
import { OPERATORS } from "../../src/atoll/gateway/static/atoll/operators.js";
import * as quantise from "../../src/atoll/gateway/static/atoll/quantise.js";
import * as receipts from "../../src/atoll/gateway/static/atoll/receipts.js";
import * as refused from "../../src/atoll/gateway/static/atoll/refused.js";
import * as samples from "../../src/atoll/gateway/static/atoll/samples.js";
import * as units from "../../src/atoll/gateway/static/atoll/units.js";

const MODULES = {
  archive, beacon, committee, compare, eip712, fixed, gate, hashing, identity, manifest, merkle, messages, msgpack,
  quantise, receipts, samples, units,
};

const MORE = {
  "generator.take": (beaconBytes, context, length) => new Generator(beaconBytes, context).take(length),
  "generator.uniforms": (beaconBytes, context, skipped, bounds) => {
    const generator = new Generator(beaconBytes, context);
    generator.take(skipped);
    const draw = (bound) => (bound > 2n ** 32n ? generator.uniformLong(bound) : generator.uniform(Number(bound)));
    return bounds.map((bound) => BigInt(draw(bound)));
  },
  "generator.permutation": (beaconBytes, context, count) => new Generator(beaconBytes, context).permutation(count),
  "generator.draw": (beaconBytes, context, items, count) => new Generator(beaconBytes, context).draw(items, count),
  "merkle.root": (leaves) => new merkle.MerkleTree(leaves).root,
  "merkle.prove": (leaves, index) => new merkle.MerkleTree(leaves).prove(index),
  "identity.account": (secret) => identity.makeKey(secret).account,
  "messages.seal": (domain, body, secret) => messages.seal(domain, body, identity.makeKey(secret)).raw,
  "eip712.digest": (name, verifier, values) => eip712[name].digest(verifier, values),
  "eip712.signature": (name) => eip712[name].signature,
  "refused.reasons": () => refused.REASONS,
  "gate.OPERATORS": () => OPERATORS,
  "gate.check": (bytes, document, kind) => gate.checkGraph(bytes, manifest.readManifest(document), kind),
  "fixed.state": (document, values) => fixed.encodeState(manifest.readManifest(document), values),
  "fixed.values": (document, state) => fixed.decodeState(manifest.readManifest(document), state),
  "samples.open": (document, indices, packed) => samples.openSamples(manifest.readManifest(document), indices, packed),
  "samples.batch": (document, records) => samples.batchOf(manifest.readManifest(document), records),
  "archive.params": (bytes) => {
    const file = archive.readJobFile(bytes);
    return archive.readParams(file.params, file.job);
  },
  "receipts.explain": (blobs, chain, prices) => {
    const named = new Map(prices.map(([job, of]) => [hashing.hex(job), of]));
    return receipts.explain(blobs.map(receipts.decodeEpoch), chain, named);
  },
  "receipts.prices": (document) => receipts.pricesOf(manifest.readManifest(document)),
  "receipts.statement": (account, blobs) => receipts.statement(account, blobs.map(receipts.decodeEpoch)),
  "receipts.post": (blob, verifier) => receipts.postOf(receipts.decodeEpoch(blob), verifier),
  "receipts.claim": (blob, account) => receipts.claimOf(receipts.decodeEpoch(blob), account),
  "receipts.proof": (blob, index, verifier) => receipts.receiptProof(receipts.decodeEpoch(blob), index, verifier),
  "receipts.again": (blob) => receipts.encodeEpoch(receipts.decodeEpoch(blob)),
  "quantise.milliseconds": (length) => {
    const change = Float64Array.from({ length }, (_, at) => ((at * 2654435761) % 4294967296) - 2147483648);
    const times = Array.from({ length: 7 }, () => {
      const started = performance.now();
      quantise.quantise(change);
      return performance.now() - started;
    });
    return Math.min(...times);
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, given] = JSON.parse(line);
  const [module, member] = name.split(".");
  let answer;
  try {
    answer = { found: write((MORE[name] ?? MODULES[module][member])(...given.map(read))) };
  } catch (error) {
    answer = { refused: error.reason ?? error.name, detail: String(error.message), stack: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
