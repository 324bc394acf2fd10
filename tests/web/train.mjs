// Train a job file with ONNX Runtime Web, in Node or in a browser: the same code, the same files as everywhere else.

const PART = 0x02014b50; // an entry of a zip file's directory
const DTYPES = { uint8: Uint8Array, float32: Float32Array, int64: BigInt64Array };

/** Parts of a job file by name; its entries are stored, not compressed. */
export function readParts(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - 22; // the directory's end: no comment follows it
  const count = view.getUint16(end + 10, true);
  const parts = {};
  let at = view.getUint32(end + 16, true);
  for (let index = 0; index < count; index++) {
    if (view.getUint32(at, true) !== PART || view.getUint16(at + 10, true) !== 0) throw new Error("not a job file");
    const size = view.getUint32(at + 24, true);
    const nameLength = view.getUint16(at + 28, true);
    const entry = view.getUint32(at + 42, true);
    const start = entry + 30 + view.getUint16(entry + 26, true) + view.getUint16(entry + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    parts[name] = bytes.slice(start, start + size);
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return parts;
}

/** Tensors of a safetensors file by name, as Float32Array; float16 is widened. */
export function readTensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const found = {};
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const raw = bytes.slice(8 + length + data_offsets[0], 8 + length + data_offsets[1]).buffer;
    found[name] = dtype === "F16" ? Float32Array.from(new Uint16Array(raw), widen) : new Float32Array(raw);
  }
  return found;
}

function widen(half) {
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return half >> 15 ? -size : size;
}

/** The array of `count` samples that starts at byte `start` of a file of batches. */
function samples(ort, bytes, start, count, port) {
  const shape = [count, ...port.shape];
  const size = shape.reduce((left, right) => left * right, 1) * DTYPES[port.dtype].BYTES_PER_ELEMENT;
  const data = new DTYPES[port.dtype](bytes.slice(start, start + size).buffer);
  return [new ort.Tensor(port.dtype, data, shape), start + size];
}

/**
 * Run `steps` steps. `batches`: x of all steps, then y of all steps, as the graph takes them (int64 in 8 bytes).
 * Returns float32 bytes: the loss before each step, then the parameter, aggregate and reset tensors in the job's order.
 */
export async function train(ort, file, batches, steps) {
  const parts = readParts(file);
  const spec = JSON.parse(new TextDecoder().decode(parts["manifest.json"]));
  const values = readTensors(parts["params.safetensors"]);
  const session = await ort.InferenceSession.create(parts["step.onnx"], { executionProviders: ["wasm"] });
  const changing = spec.tensors.filter((tensor) => tensor.role !== "frozen");
  const feed = {};
  for (const { name, shape, role } of spec.tensors) {
    const size = shape.reduce((left, right) => left * right, 1);
    feed[name] = new ort.Tensor("float32", role === "reset" ? new Float32Array(size) : values[name], shape);
  }
  feed.seed = new ort.Tensor("int64", BigInt64Array.of(0n), []);
  feed.learning_rate = new ort.Tensor("float32", Float32Array.of(spec.hyper.learning_rate), []);
  const losses = new Float32Array(steps);
  let xAt = 0;
  let yAt = samples(ort, batches, 0, steps * spec.batch, spec.input)[1];
  for (let step = 0; step < steps; step++) {
    [feed.x, xAt] = samples(ort, batches, xAt, spec.batch, spec.input);
    [feed.y, yAt] = samples(ort, batches, yAt, spec.batch, spec.target);
    feed.step = new ort.Tensor("int64", BigInt64Array.of(BigInt(step)), []);
    const taken = Object.fromEntries(session.inputNames.map((name) => [name, feed[name]]));
    const result = await session.run(taken);
    losses[step] = result.loss.data[0];
    for (const { name } of changing) feed[name] = result[`next.${name}`];
  }
  return new Uint8Array(await new Blob([losses, ...changing.map(({ name }) => feed[name].data)]).arrayBuffer());
}
