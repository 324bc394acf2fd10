// node node.mjs JOB BATCHES STEPS RESULT: train in Node, on one thread.

import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { train } from "./train.mjs";

const [job, batches, steps, result] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const load = async (path) => new Uint8Array(await readFile(path)); // a Buffer's slice would be no copy
await writeFile(result, await train(ort, await load(job), await load(batches), Number(steps)));
