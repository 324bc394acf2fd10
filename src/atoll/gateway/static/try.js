// Try a model in the browser: the file is fetched, its hash and its graph are checked, and it runs here. What a visitor
// draws or chooses never leaves the page.

import { readParams, readParts } from "./atoll/archive.js";
import { decodeModel } from "./atoll/fixed.js";
import { checkGraph } from "./atoll/gate.js";
import { blobId, hex } from "./atoll/hashing.js";
import { readManifest } from "./atoll/manifest.js";

const $ = (selector) => document.querySelector(selector);
const section = $("#try");
const { model: id, kind, runtime } = section.dataset;
const [channels, height, width] = section.dataset.shape.split(",").map(Number);
const classes = JSON.parse(section.dataset.classes);
const pad = $("#pad");
const pen = pad.getContext("2d", { willReadFrequently: true });
const PEN_SHARE = 0.075; // of the pad's width
const INK_SHARE = 20 / 28; // how much of a digit's picture its ink fills, as in MNIST
const SHOWN = 5;

let ready = null; // the opened model, once somebody has asked for it
let waiting = 0;

// -- the model ----------------------------------------------------------------------------------------------------
/** Fetch, check and open the model, once. */
async function open() {
  say("Fetching the model…");
  const answer = await fetch(`/models/${id}/file`);
  if (!answer.ok) throw new Error("the model could not be fetched; try again in a moment");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (hex(blobId(bytes)) !== id) throw new Error("what was sent is not this model: its hash differs");
  const parts = readParts(bytes);
  const job = readManifest(parts.get("manifest.json"));
  const graph = parts.get("predict.onnx");
  if (hex(blobId(graph)) !== job.fields.predict) throw new Error("the graph is not the one that the manifest names");
  checkGraph(graph, job, "predict");
  const values = decodeModel(job, parts.get("model.bin"));
  const frozen = parts.has("params.safetensors") ? readParams(parts.get("params.safetensors"), job) : new Map();
  const ort = await import(runtime);
  ort.env.wasm.wasmPaths = new URL("/static/vendor/", location.href).href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const feeds = {};
  for (const { name, shape, role } of job.tensors) {
    const data = role === "frozen" ? frozen.get(name) : values.get(name);
    if (data) feeds[name] = new ort.Tensor("float32", data, shape);
  }
  return { ort, session, feeds, bytes: bytes.length };
}

/** The scores of one picture: uint8 [channels, height, width]. */
async function scores({ ort, session, feeds }, pixels) {
  const x = new ort.Tensor("uint8", pixels, [1, channels, height, width]);
  const found = await session.run({ ...feeds, x });
  return [...found.scores.data];
}

// -- the picture --------------------------------------------------------------------------------------------------
/** The pad as the model takes pictures. A drawing is cut out, scaled and centred by its ink, as MNIST's digits are. */
function pixels() {
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const brush = small.getContext("2d", { willReadFrequently: true });
  brush.fillStyle = "#000";
  brush.fillRect(0, 0, width, height);
  brush.imageSmoothingQuality = "high";
  const ink = channels === 1 ? inkOf() : null;
  if (ink) {
    const scale = (Math.min(width, height) * INK_SHARE) / Math.max(ink.width, ink.height);
    const [left, top] = [width / 2 - (ink.x - ink.left) * scale, height / 2 - (ink.y - ink.top) * scale];
    brush.drawImage(pad, ink.left, ink.top, ink.width, ink.height, left, top, ink.width * scale, ink.height * scale);
  } else {
    brush.drawImage(pad, 0, 0, width, height);
  }
  const { data } = brush.getImageData(0, 0, width, height);
  const size = width * height;
  return Uint8Array.from({ length: channels * size }, (_, at) => data[4 * (at % size) + Math.floor(at / size)]);
}

/** Where the ink lies: its box and its centre of mass; null for an empty pad. */
function inkOf() {
  const { data } = pen.getImageData(0, 0, pad.width, pad.height);
  let [left, top, right, bottom, mass, x, y] = [pad.width, pad.height, -1, -1, 0, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    const [value, column, row] = [data[at], (at / 4) % pad.width, Math.floor(at / 4 / pad.width)];
    if (value < 48) continue;
    [left, top] = [Math.min(left, column), Math.min(top, row)];
    [right, bottom] = [Math.max(right, column), Math.max(bottom, row)];
    mass += value;
    x += value * column;
    y += value * row;
  }
  return mass ? { left, top, width: right - left + 1, height: bottom - top + 1, x: x / mass, y: y / mass } : null;
}

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, pad.width, pad.height);
  $("#scores").replaceChildren();
  say(kind === "draw" ? "Draw something." : "Choose a picture.");
}

/** Put a chosen picture on the pad: grey and light on dark where the model knows only that. */
async function load(file) {
  const picture = await createImageBitmap(file);
  const side = Math.min(picture.width, picture.height);
  pen.drawImage(
    picture,
    (picture.width - side) / 2,
    (picture.height - side) / 2,
    side,
    side,
    0,
    0,
    pad.width,
    pad.height,
  );
  if (channels === 1) grey();
  await ask();
}

function grey() {
  const image = pen.getImageData(0, 0, pad.width, pad.height);
  const { data } = image;
  const light = (at) => 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
  const border = [];
  for (let at = 0; at < pad.width; at++) border.push(light(4 * at), light(4 * (data.length / 4 - 1 - at)));
  const paper = border.reduce((sum, value) => sum + value, 0) / border.length > 127; // dark ink on light paper
  for (let at = 0; at < data.length; at += 4) {
    const value = paper ? 255 - light(at) : light(at);
    data[at] = data[at + 1] = data[at + 2] = value;
  }
  pen.putImageData(image, 0, 0);
}

// -- answers ------------------------------------------------------------------------------------------------------
async function ask() {
  const turn = ++waiting;
  try {
    ready ??= open();
    const model = await ready;
    if (turn !== waiting) return; // something newer was drawn
    const begun = performance.now();
    const found = await scores(model, pixels());
    show(found, performance.now() - begun);
  } catch (error) {
    ready = null;
    say(`This did not work: ${error.message}`);
  }
}

function show(found, milliseconds) {
  const order = found
    .map((score, at) => [score, at])
    .sort((left, right) => right[0] - left[0])
    .slice(0, SHOWN);
  const name = (at) => String(classes[at] ?? at).slice(0, 60);
  say(`${name(order[0][1])}, ${(100 * order[0][0]).toFixed(1)} % sure`);
  $("#scores").replaceChildren(...order.map(([score, at]) => bar(name(at), score)));
  $("#how").textContent =
    `Worked out in this page in ${milliseconds.toFixed(1)} ms; the hash of the model was checked.`;
}

function bar(name, score) {
  const row = document.createElement("li");
  const meter = document.createElement("meter");
  meter.value = score;
  meter.setAttribute("aria-label", name);
  const [label, share] = [document.createElement("span"), document.createElement("span")];
  label.textContent = name;
  share.textContent = `${(100 * score).toFixed(1)} %`;
  row.append(label, meter, share);
  return row;
}

function say(text) {
  $("#verdict").textContent = text;
}

// -- drawing ------------------------------------------------------------------------------------------------------
let last = null;

function point(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height];
}

function stroke(to) {
  pen.strokeStyle = "#fff";
  pen.lineWidth = pad.width * PEN_SHARE;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...to);
  pen.stroke();
  last = to;
}

if (kind === "draw") {
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = point(event);
    stroke(last);
  });
  pad.addEventListener("pointermove", (event) => last && stroke(point(event)));
  pad.addEventListener("pointerup", () => {
    last = null;
    ask();
  });
  pad.addEventListener("pointercancel", () => (last = null));
}
$("#clear").addEventListener("click", clear);
$("#picture").addEventListener(
  "change",
  (event) => event.target.files[0] && load(event.target.files[0]).catch((error) => say(error.message)),
);
clear();
