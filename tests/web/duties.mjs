// node duties.mjs SCRIPT: drive static/join/duties.js by a file of events; print what came of each as JSON.
//
// SCRIPT: {place, private, secret, kept, events}; an event {"type": "reload"} stores the state and begins again from
// it. Uploads are answered at once, unless `uploads` is false.

import { readFile } from "node:fs/promises";
import { Duties } from "../../src/atoll/gateway/static/join/duties.js";
import { hex, keccak, unhex } from "../../src/atoll/gateway/static/atoll/hashing.js";
import { makeKey } from "../../src/atoll/gateway/static/atoll/identity.js";

const script = JSON.parse(await readFile(process.argv[2], "utf-8"));
const key = makeKey(unhex(script.private));
const salt = (unit) => hex(keccak(unhex(script.secret), unhex(unit)));
const me = { account: hex(key.account), key, salt };
let duties = new Duties(script.place, me, script.kept ?? null);
const found = [];
for (const event of script.events) {
  if (event.type === "reload") {
    duties = new Duties(script.place, me, duties.snapshot());
    found.push([]);
    continue;
  }
  const effects = [];
  const waiting = [event];
  while (waiting.length) {
    for (const effect of duties.handle(waiting.shift())) {
      effects.push(effect);
      if (effect.do === "upload" && script.uploads !== false) {
        waiting.push({ type: "uploaded", unit: effect.unit, part: effect.part });
      }
      if (effect.do === "say" && script.taken !== false) waiting.push({ type: "taken", key: effect.key });
    }
  }
  found.push(effects);
}
process.stdout.write(JSON.stringify({ effects: found, state: duties.snapshot(), phase: duties.phase }));
