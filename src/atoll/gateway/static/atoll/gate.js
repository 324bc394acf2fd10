// The gate of the browser: what a graph must be before ONNX Runtime Web sees it (a part of src/atoll/graph/check.py).
//
// Checked here: size, opset, operators and domains by an allow-list, how many inputs and which attributes each has, no
// nested graphs, functions or external data, bounded counts, constants and attributes, every name made once and before
// it is used, and inputs and outputs exactly as the manifest announces them.
// Left to native nodes, whose committees take no job that fails: the shape of every value inside, and the estimates of
// memory and operations that follow from shapes. A graph that passes here and not there can fail or use up the memory
// of its own worker, which the page ends; the sandbox is the browser's.

import { OPERATORS } from "./operators.js";
import { read } from "./protobuf.js";
import { Refused, need } from "./refused.js";

const CONTROL_FLOW = new Set(["If", "Loop", "Scan", "SequenceMap"]);
const ITEM_BYTES = new Map([[1, 4], [2, 1], [3, 1], [6, 4], [7, 8], [9, 1]]); // float uint8 int8 int32 int64 bool
const ELEMENT = { float32: 1, uint8: 2, int64: 7 };
const ATTRIBUTES = { 1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints" }; // type: the field that holds it
const GRAPHS = new Set([5, 10]);
const NAME = /^[!-~]{1,256}$/;
const MAX_ITEMS = 64;
const MAX_INT = 2 ** 31 - 1;
const MAX_WINDOW = 1 << 16; // of a kernel, stride, dilation or pad
const FLAGS = new Set(
  `allowzero ceil_mode count_include_pad exclusive fmod keepdims noop_with_empty_axes reverse select_last_index
  storage_order transA transB upper`.split(/\s+/),
);
// Least value of each list of a convolution or pool.
const WINDOWS = new Map([["kernel_shape", 1], ["strides", 1], ["dilations", 1], ["pads", 0], ["output_padding", 0]]);
const PADDING = new Set(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]);
const OPEN_ENDED = new Set(["end", "start"]); // Shape's bounds, which may be beyond any rank

/** What this device accepts; the defaults are those of nodes. */
export const LIMITS = Object.freeze({ graphBytes: 1 << 20, nodes: 4096, constantBytes: 1 << 19 });

const ENTRIES = [{ 1: ["key", "text"], 2: ["value", "text"] }];
const OPAQUE = ["bytes"];
const TENSOR = {
  1: ["dims", ["int"]], 2: ["dataType", "int"], 3: ["segment", "bytes"], 4: ["floats", ["float"]],
  5: ["int32s", ["int"]], 6: ["strings", OPAQUE], 7: ["int64s", ["int"]], 8: ["name", "text"], 9: ["raw", "bytes"],
  10: ["doubles", ["double"]], 11: ["uint64s", ["int"]], 12: ["doc", "text"], 13: ["external", OPAQUE],
  14: ["location", "int"], 16: ["metadata", ENTRIES],
};
const ATTRIBUTE = {
  1: ["name", "text"], 2: ["f", "float"], 3: ["i", "int"], 4: ["s", "bytes"], 5: ["t", TENSOR], 6: ["g", "bytes"],
  7: ["floats", ["float"]], 8: ["ints", ["int"]], 9: ["strings", OPAQUE], 10: ["tensors", OPAQUE],
  11: ["graphs", OPAQUE], 13: ["doc", "text"], 14: ["tp", "bytes"], 15: ["tps", OPAQUE], 20: ["type", "int"],
  21: ["reference", "text"], 22: ["sparse", "bytes"], 23: ["sparses", OPAQUE],
};
const NODE = {
  1: ["inputs", ["text"]], 2: ["outputs", ["text"]], 3: ["name", "text"], 4: ["op", "text"],
  5: ["attributes", [ATTRIBUTE]], 6: ["doc", "text"], 7: ["domain", "text"], 8: ["overload", "text"],
  9: ["metadata", ENTRIES],
};
const DIMENSION = { 1: ["value", "int"], 2: ["parameter", "text"], 3: ["denotation", "text"] };
const TENSOR_TYPE = { 1: ["element", "int"], 2: ["shape", { 1: ["dims", [DIMENSION]] }] };
const VALUE = { 1: ["name", "text"], 2: ["type", { 1: ["tensor", TENSOR_TYPE] }], 3: ["doc", "text"] };
const GRAPH = {
  1: ["nodes", [NODE]], 2: ["name", "text"], 5: ["constants", [TENSOR]], 10: ["doc", "text"], 11: ["inputs", [VALUE]],
  12: ["outputs", [VALUE]], 13: ["inner", OPAQUE], 14: ["quantisation", OPAQUE], 15: ["sparse", OPAQUE],
  16: ["metadata", ENTRIES],
};
const MODEL = {
  1: ["irVersion", "int"], 2: ["producer", "text"], 3: ["producerVersion", "text"], 4: ["domain", "text"],
  5: ["version", "int"], 6: ["doc", "text"], 7: ["graph", GRAPH],
  8: ["opsets", [{ 1: ["domain", "text"], 2: ["version", "int"] }]], 14: ["metadata", ENTRIES],
  20: ["training", OPAQUE], 25: ["functions", OPAQUE],
};

/**
 * Check one graph of a job; throws Refused with the reason of the first thing found wrong. Nothing is executed.
 * @param {Uint8Array} bytes the ONNX file
 * @param {import("./manifest.js").Job} job
 * @param {"step" | "evaluate" | "predict"} kind
 * @param {typeof LIMITS} limits
 * @returns {{ops: Map<string, number>, nodes: number, constantBytes: number}}
 */
export function checkGraph(bytes, job, kind, limits = LIMITS) {
  need(bytes.length <= limits.graphBytes, "GRAPH_TOO_LARGE", `${bytes.length} bytes, at most ${limits.graphBytes}`);
  const model = read(bytes, MODEL);
  const opset = checkModel(model);
  const graph = model.graph;
  const count = graph.nodes.length;
  need(count > 0 && count <= limits.nodes, "GRAPH_TOO_LARGE", `${count} nodes, expected 1 to ${limits.nodes}`);
  const ops = new Map();
  for (const node of graph.nodes) {
    checkNode(node, opset);
    ops.set(node.op, (ops.get(node.op) ?? 0) + 1);
  }
  const constantBytes = checkConstants(graph, limits);
  checkPorts(graph, signature(kind, job));
  checkOrder(graph);
  return { ops, nodes: count, constantBytes };
}

function shown(text) {
  return JSON.stringify(String(text).slice(0, 80));
}

/** Things outside the graph; returns the opset. */
function checkModel(model) {
  for (const { domain } of model.opsets) need(!domain, "CUSTOM_DOMAIN", `domain ${shown(domain)}`);
  const [opset] = model.opsets;
  const known = model.opsets.length === 1 && [18, 19, 20].includes(opset.version);
  need(known, "BAD_OPSET", `opset ${model.opsets.map(({ version }) => version).slice(0, 8)}, expected 18 to 20`);
  need([8, 9, 10].includes(model.irVersion), "BAD_OPSET", `IR version ${model.irVersion}`);
  need(!model.training.length && !model.functions.length, "NESTED_GRAPH", "local functions or training graphs");
  need(model.graph, "BAD_GRAPH", "no graph");
  const { inner, quantisation, sparse } = model.graph;
  const plain = !inner.length && !quantisation.length && !sparse.length;
  need(plain, "BAD_GRAPH", "sparse constants, quantisation notes or declared inner shapes");
  return opset.version;
}

function checkNode(node, opset) {
  const op = node.op ?? "";
  const domain = node.domain || node.overload;
  need(!domain, "CUSTOM_DOMAIN", `${shown(op)} of domain ${shown(domain)}`);
  const isGraph = (item) => GRAPHS.has(item.type) || item.g || item.graphs.length;
  const nests = CONTROL_FLOW.has(op) || node.attributes.some(isGraph);
  need(!nests, "NESTED_GRAPH", `${shown(op)} holds a graph`);
  const known = OPERATORS.get(op);
  need(known && known.since <= opset, "FORBIDDEN_OP", `${shown(op)} at opset ${opset}`);
  const inside = (names, [least, most]) =>
    names.length >= least && names.length <= most && names.slice(0, least).every(Boolean);
  const counts = inside(node.inputs, known.inputs) && inside(node.outputs, known.outputs) && node.outputs[0];
  need(counts, "BAD_GRAPH", `${op} with ${node.inputs.length} inputs and ${node.outputs.length} outputs`);
  const names = new Set(node.attributes.map(({ name }) => name));
  need(names.size === node.attributes.length, "BAD_ATTRIBUTE", `${op} has an attribute twice`);
  for (const item of node.attributes) {
    const expected = known.attributes.get(item.name);
    const fits = expected && expected.since <= opset && expected.field === ATTRIBUTES[item.type];
    need(fits, "BAD_ATTRIBUTE", `${op} has no attribute ${shown(item.name)} of type ${item.type}`);
    checkAttribute(`${op}.${item.name}`, item);
  }
}

function checkAttribute(where, item) {
  const field = ATTRIBUTES[item.type];
  const empty = (name) => item[name] === undefined || (Array.isArray(item[name]) && !item[name].length);
  const stray = Object.keys(item).filter((name) => !["name", "type", "doc", field].includes(name) && !empty(name));
  // A zero that is written down in a field of another type says nothing; what is not zero must not be there.
  const odd = stray.filter((name) => !((name === "i" || name === "f") && item[name] === 0));
  need(field && !odd.length, "BAD_ATTRIBUTE", `${where} is of type ${item.type}`);
  const longest = Math.max(item.ints.length, item.floats.length, item.s?.length ?? 0);
  need(longest <= MAX_ITEMS, "BAD_ATTRIBUTE", `${where} has more than ${MAX_ITEMS} items`);
  const integers = [item.i ?? 0, ...item.ints];
  const small = OPEN_ENDED.has(item.name) || integers.every((value) => value >= -MAX_INT && value <= MAX_INT);
  need(small, "BAD_ATTRIBUTE", `${where} is beyond ${MAX_INT}`);
  need([item.f ?? 0, ...item.floats].every(Number.isFinite), "BAD_ATTRIBUTE", `${where} is not a finite number`);
  checkMeaning(where, item);
  if (field === "t") {
    need(item.t, "BAD_ATTRIBUTE", `${where} has no tensor`);
    const bytes = checkTensor(where, item.t);
    need(bytes <= 8 * MAX_ITEMS, "BAD_ATTRIBUTE", `${where} holds more than ${8 * MAX_ITEMS} bytes`);
  }
}

/** Yes or no, and the lengths of sliding windows, whose operators trust them. */
function checkMeaning(where, item) {
  const flag = !FLAGS.has(item.name) || item.i === 0 || item.i === 1;
  need(flag, "BAD_ATTRIBUTE", `${where} is ${item.i}, expected 0 or 1`);
  if (item.name === "group") need(item.i >= 1 && item.i <= MAX_WINDOW, "BAD_ATTRIBUTE", `${where} is ${item.i}`);
  const least = WINDOWS.get(item.name);
  const bounded = least === undefined || item.ints.every((value) => value >= least && value <= MAX_WINDOW);
  need(bounded, "BAD_ATTRIBUTE", `${where} is ${item.ints}, expected ${least} to ${MAX_WINDOW}`);
  need(item.name !== "output_shape", "BAD_ATTRIBUTE", `${where}: say it by pads`);
  if (item.name === "auto_pad") {
    need(PADDING.has(new TextDecoder().decode(item.s ?? new Uint8Array())), "BAD_ATTRIBUTE", where);
  }
}

/** Check a constant for completeness; returns its bytes. */
function checkTensor(where, tensor) {
  need(!tensor.location && !tensor.external.length, "EXTERNAL_DATA", where);
  const item = ITEM_BYTES.get(tensor.dataType);
  const plain = item && !tensor.segment && !tensor.strings.length;
  need(plain, "BAD_GRAPH", `${where}: constant of element type ${tensor.dataType}`);
  const dims = tensor.dims;
  const bounded = dims.length <= 8 && dims.every((length) => length >= 0 && length <= MAX_INT);
  need(bounded, "BAD_SHAPE", `${where}: constant of shape ${dims.slice(0, 16)}`);
  const elements = dims.reduce((left, right) => left * right, 1);
  const typed = [tensor.floats, tensor.int32s, tensor.int64s, tensor.doubles, tensor.uint64s];
  const filled = typed.map((part) => part.length).filter(Boolean);
  const raw = tensor.raw?.length ?? 0;
  const full = filled.length ? !raw && filled.length === 1 && filled[0] === elements : raw === elements * item;
  need(full, "BAD_GRAPH", `${where}: the data do not fill shape ${dims}`);
  return elements * item;
}

function checkConstants(graph, limits) {
  const count = graph.constants.length;
  need(count <= limits.nodes, "GRAPH_TOO_LARGE", `${count} constants, at most ${limits.nodes}`);
  let total = 0;
  for (const tensor of graph.constants) {
    total += checkTensor(shown(tensor.name), tensor);
    need(total <= limits.constantBytes, "GRAPH_TOO_LARGE", `constants of more than ${limits.constantBytes} bytes`);
  }
  return total;
}

/** Inputs and outputs that a graph of this kind must have: [name, element type, shape], in order. */
function signature(kind, job) {
  const { input, target, output, metrics } = job.fields;
  const ports = (tensors) => tensors.map(({ name, shape }) => [name, ELEMENT.float32, shape]);
  const x = ["x", ELEMENT[input.dtype], ["batch", ...input.shape]];
  const y = ["y", ELEMENT[target.dtype], ["batch", ...target.shape]];
  const [certified, reset, frozen] = [job.vectorTensors, job.resetTensors, job.frozenTensors].map(ports);
  if (kind === "predict") {
    return { inputs: [x, ...certified, ...frozen], outputs: [["scores", ELEMENT.float32, ["batch", ...output.shape]]] };
  }
  const loss = ["loss", ELEMENT.float32, []];
  if (kind === "evaluate") {
    const sums = metrics.map((name) => [`metric.${name}`, ELEMENT.float32, []]);
    return { inputs: [x, y, ...certified, ...frozen], outputs: [loss, ["count", ELEMENT.int64, []], ...sums] };
  }
  const counters = [["step", ELEMENT.int64, []], ["seed", ELEMENT.int64, []], ["learning_rate", ELEMENT.float32, []]];
  const next = [...certified, ...reset].map(([name, element, shape]) => [`next.${name}`, element, shape]);
  return { inputs: [x, y, ...counters, ...certified, ...reset, ...frozen], outputs: [loss, ...next] };
}

function checkPorts(graph, expected) {
  for (const what of ["inputs", "outputs"]) {
    const [found, wanted] = [graph[what], expected[what]];
    const counts = `${found.length} ${what}, expected ${wanted.length}`;
    need(found.length === wanted.length, "BAD_SIGNATURE_OF_GRAPH", counts);
    for (const [at, want] of wanted.entries()) {
      const have = JSON.stringify(port(found[at]));
      const same = have === JSON.stringify(want);
      need(same, "BAD_SIGNATURE_OF_GRAPH", `${what}: ${have.slice(0, 200)}, expected ${JSON.stringify(want)}`);
    }
  }
}

/** Name, element type and shape as declared; null where it is not a tensor with a full shape. */
function port(value) {
  const shape = value.type?.tensor?.shape;
  if (!shape) return null;
  // A dimension that says both, or a number beyond 2^53, equals none that is expected.
  const dims = shape.dims.map(({ value: length, parameter }) => {
    if (length === undefined) return parameter ?? "";
    return parameter === undefined && typeof length === "number" ? length : `${length} ${parameter}`;
  });
  return [value.name ?? "", value.type.tensor.element ?? 0, dims];
}

/** Every name is made once, before it is used. */
function checkOrder(graph) {
  const made = new Set();
  const declare = (name) => {
    const fresh = NAME.test(name ?? "") && !made.has(name);
    if (!fresh) throw new Refused("BAD_GRAPH", `name ${shown(name)} is empty, too long, not printable, or made twice`);
    made.add(name);
  };
  for (const value of graph.inputs) declare(value.name);
  for (const tensor of graph.constants) declare(tensor.name);
  for (const node of graph.nodes) {
    for (const name of node.inputs) {
      if (name && !made.has(name)) throw new Refused("BAD_GRAPH", `${node.op} uses ${shown(name)} before it is made`);
    }
    for (const name of node.outputs) if (name) declare(name);
  }
  for (const { name } of graph.outputs) need(made.has(name), "BAD_GRAPH", `output ${shown(name)} is never made`);
}
