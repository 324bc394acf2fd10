// node keys.mjs: static/join/{keys,limits,record,socket,status}.js. Each line of the standard input is [name, ...arguments],
// each line of the output {found} or {thrown}.

import readline from "node:readline";
import * as keys from "../../src/atoll/gateway/static/join/keys.js";
import * as limits from "../../src/atoll/gateway/static/join/limits.js";
import { Record } from "../../src/atoll/gateway/static/join/record.js";
import * as socket from "../../src/atoll/gateway/static/join/socket.js";
import * as status from "../../src/atoll/gateway/static/join/status.js";
import { unhex } from "../../src/atoll/gateway/static/atoll/hashing.js";

const values = new Map(); // the browser's storage
const storage = { getItem: (name) => values.get(name) ?? null, setItem: (name, value) => void values.set(name, value) };
const shown = (identity) =>
  identity && { account: identity.account, network: identity.network, text: keys.exportKey(identity) };

const ANSWERS = {
  // `draws`: what the dice give, one after another
  create: (draws) => shown(keys.createKey(storage, (bytes) => (bytes.set(unhex(draws.shift())), bytes))),
  load: () => shown(keys.loadKey(storage)),
  import: (text) => shown(keys.importKey(storage, text)),
  read: (text) => shown(keys.readKey(text)),
  remember: (network) => shown(keys.rememberNetwork(storage, keys.loadKey(storage), network)),
  limits: (text) => limits.readLimits(text),
  whyNot: (given, facts) => limits.whyNot({ ...limits.DEFAULTS, ...given }, facts),
  wantsLight: (given, speed, late) => limits.wantsLight({ ...limits.DEFAULTS, ...given }, speed, late),
  meter: (rows, now) => {
    const meter = new limits.HourMeter();
    for (const [amount, at] of rows) meter.add(amount, at);
    return [meter.lastHour(now), meter.total];
  },
  perHour: limits.perHour,
  backoff: socket.backoff,
  address: (page) => socket.socketAddress(new URL(page)),
  tokens: status.tokens,
  sentence: status.sentence,
  offers: status.offers,
  summary: status.summary,
  // `events`: ["begins", job, round], ["take", verdict] or ["reconcile", lines], one after another
  record: (events) => {
    const record = new Record();
    let differ = 0;
    const differs = () => (differ += 1);
    for (const [name, ...parts] of events) record[name](...parts, ...(name === "begins" ? [] : [differs]));
    const rows = record.rows.map(({ round, kind, amount, signed }) => [round, kind, amount, signed]);
    return { rows, accepted: record.accepted, earned: String(record.earned), differ };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...parts] = JSON.parse(line);
  let answer;
  try {
    answer = { found: ANSWERS[name](...parts) ?? null };
  } catch (error) {
    answer = { thrown: error.constructor.name, message: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
