// node browser.mjs JOB BATCHES STEPS RESULT CHROMIUM: train in headless Chromium, on a page from a server of our own.

import { createServer } from "node:http";
import { readFile, writeFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const [job, batches, steps, result, executablePath] = process.argv.slice(2);
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const SCRIPT = "text/javascript";
const PAGE = `<!doctype html><meta charset="utf-8"><title>Atoll</title><script type="module">
import * as ort from "/ort.mjs";
import { train } from "/train.mjs";
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: new URL("/runtime.mjs", location).href, wasm: new URL("/runtime.wasm", location).href };
const load = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
try {
  const found = await train(ort, await load("/job.atoll"), await load("/batches"), ${Number(steps)});
  await fetch("/result", { method: "POST", body: found });
} catch (error) {
  await fetch("/failure", { method: "POST", body: String(error) });
}
</script>`;
const near = (path) => new URL(path, import.meta.url);
const runtime = (name) => near(`node_modules/onnxruntime-web/dist/${name}`);
const FILES = {
  "/train.mjs": [near("train.mjs"), SCRIPT],
  "/ort.mjs": [runtime("ort.wasm.min.mjs"), SCRIPT],
  "/runtime.mjs": [runtime("ort-wasm-simd-threaded.mjs"), SCRIPT],
  "/runtime.wasm": [runtime("ort-wasm-simd-threaded.wasm"), "application/wasm"],
  "/job.atoll": [job, "application/octet-stream"],
  "/batches": [batches, "application/octet-stream"],
};

let finish;
const finished = new Promise((resolve) => (finish = resolve));

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function answer(request, response) {
  if (request.method === "POST") {
    const body = Buffer.concat(await collect(request));
    response.end();
    finish([request.url, body]);
  } else if (request.url === "/") {
    response.setHeader("content-type", "text/html").end(PAGE);
  } else if (request.url in FILES) {
    const [path, kind] = FILES[request.url];
    response.setHeader("content-type", kind).end(await readFile(path));
  } else {
    response.writeHead(404).end();
  }
}

const server = createServer(answer).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => finish(["/failure", String(error)]));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const [path, body] = await finished;
  if (path !== "/result") throw new Error(String(body));
  await writeFile(result, body);
} finally {
  await browser.close();
  server.close();
}
