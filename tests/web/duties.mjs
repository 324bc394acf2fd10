// node duties.mjs: drives static/join/duties.js by events. Each line of the standard input is a script, each line of
// the output what came of its events.
//
// A script: {place, private, secret, kept, events}; an event {"type": "reload"} stores the state and begins again from
// it. Uploads are answered at once unless `uploads` is false, and so is what is said unless `taken` is false. Certificates
// come from `certificates`, envelopes by round, one at a time, unless `follow` is false.

import readline from "node:readline";
import { hex, keccak, unhex } from "../../src/atoll/gateway/static/atoll/hashing.js";
import { makeKey } from "../../src/atoll/gateway/static/atoll/identity.js";
import { Duties } from "../../src/atoll/gateway/static/join/duties.js";

const FEW = 1; // certificates that are answered at once

/** Fold an event in, and what its effects bring about at once. */
function handle(duties, event, { uploads = true, taken = true, certificates = [], follow = true }) {
  const effects = [];
  const waiting = [event];
  while (waiting.length) {
    for (const effect of duties.handle(waiting.shift())) {
      effects.push(effect);
      if (effect.do === "upload" && uploads) waiting.push({ type: "uploaded", unit: effect.unit });
      if (effect.do === "follow" && follow) {
        const { from } = effect;
        waiting.push({ type: "followed", from, certificates: certificates.slice(from, from + FEW) });
      }
      if (effect.do === "say" && taken) waiting.push({ type: "taken", key: effect.key });
    }
  }
  return effects;
}

function play(script) {
  const key = makeKey(unhex(script.private));
  const salt = (unit) => hex(keccak(unhex(script.secret), unhex(unit)));
  const me = { account: hex(key.account), key, salt };
  let duties = new Duties(script.place, me, script.kept ?? null);
  const effects = script.events.map((event) => {
    if (event.type !== "reload") return handle(duties, event, script);
    duties = new Duties(script.place, me, duties.snapshot());
    return [];
  });
  return { effects, state: duties.snapshot(), phase: duties.phase };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(play(JSON.parse(line))) + "\n");
}
