// Trains a step graph in ONNX Runtime Web (WASM, one thread) under Node, for bench/graphs.py.
//
// node train.mjs FOLDER: reads FOLDER/plan.json and the files that it names. Each line "FIRST LAST" on the standard
// input runs those steps and answers with {"ms": CPU milliseconds}; "end" writes FOLDER/out.bin (float32, the tensors
// one after another in the order of the plan) and answers with {}.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import * as ort from 'onnxruntime-web';

const folder = process.argv[2];
const plan = JSON.parse(fs.readFileSync(path.join(folder, 'plan.json'), 'utf8'));
const KINDS = { float32: Float32Array, uint8: Uint8Array, int64: BigInt64Array };

function read(file, type) {
  const bytes = fs.readFileSync(path.join(folder, file));
  return new KINDS[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';
const session = await ort.InferenceSession.create(fs.readFileSync(path.join(folder, 'step.onnx')), {
  executionProviders: ['wasm'],
});

const samples = {};
for (const name of ['x', 'y']) {
  const { type, shape } = plan[name];
  samples[name] = { type, shape, values: read(`${name}.bin`, type), size: shape.reduce((a, b) => a * b, 1) };
}
const state = {};
const first = read('tensors.bin', 'float32');
let offset = 0;
for (const { name, shape } of plan.tensors) {
  const size = shape.reduce((a, b) => a * b, 1);
  state[name] = new ort.Tensor('float32', first.slice(offset, offset + size), shape);
  offset += size;
}

async function step(index) {
  const feeds = { ...state };
  for (const [name, { type, shape, values, size }] of Object.entries(samples)) {
    feeds[name] = new ort.Tensor(type, values.slice(index * size, (index + 1) * size), shape);
  }
  feeds.step = new ort.Tensor('int64', BigInt64Array.of(BigInt(index)), []);
  feeds.seed = new ort.Tensor('int64', BigInt64Array.of(BigInt(plan.seed)), []);
  feeds.learning_rate = new ort.Tensor('float32', Float32Array.of(plan.learning_rate), []);
  const found = await session.run(feeds);
  for (const name of plan.changing) {
    state[name] = found[`next.${name}`];
  }
}

console.log('{}');
for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line === 'end') {
    const parts = plan.tensors.map(({ name }) => Buffer.from(new Uint8Array(state[name].data.buffer)));
    fs.writeFileSync(path.join(folder, 'out.bin'), Buffer.concat(parts));
    console.log('{}');
    break;
  }
  const [from, to] = line.split(' ').map(Number);
  const before = process.cpuUsage();
  for (let index = from; index < to; index += 1) {
    await step(index);
  }
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ ms: (user + system) / 1000 }));
}
process.exit(0);
