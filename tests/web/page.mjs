// node page.mjs CHROMIUM: a page in headless Chromium that holds one worker (atoll/worker.js).
//
// The page comes from a server of our own under a name that is no secure context, with the content policy of a gateway.
// Each line of the standard input is a list of questions for the worker, asked at once; each line of the output lists
// what the worker said to each: {"answer": ..., "progress": [...]}. tests/web/page.py is the other side.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import readline from "node:readline";
import { chromium } from "playwright-core";

const HOST = "atoll.test";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", `--host-resolver-rules=MAP ${HOST} 127.0.0.1`,
];
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'";
const PAGE = `<!doctype html><meta charset="utf-8"><title>Atoll</title><script type="module" src="/page.js"></script>`;
const SCRIPT = `import { read, write } from "/values.mjs";
const worker = new Worker("/static/atoll/worker.js", { type: "module" });
const waiting = new Map();
worker.onmessage = ({ data }) => {
  const one = waiting.get(data.id);
  if (data.progress !== undefined) one.progress.push(data.progress);
  else one.done({ answer: data, progress: one.progress });
};
const ask = (question) => new Promise((done) => {
  waiting.set(question.id, { progress: [], done });
  worker.postMessage(question);
});
worker.onerror = (event) => {
  const error = { reason: "BROKEN", detail: event.message ?? "the worker did not start" };
  for (const { done, progress } of waiting.values()) done({ answer: { error }, progress });
};
window.ask = async (questions) => JSON.stringify(write(await Promise.all(read(JSON.parse(questions)).map(ask))));
window.facts = { secure: isSecureContext, isolated: crossOriginIsolated };
`;
const TYPES = { js: "text/javascript", mjs: "text/javascript", html: "text/html", wasm: "application/wasm" };
const here = (path) => new URL(path, import.meta.url);

async function find(path) {
  if (path === "/") return [PAGE, "html"];
  if (path === "/page.js") return [SCRIPT, "js"];
  if (path === "/values.mjs") return [await readFile(here("values.mjs")), "js"];
  if (!/^\/static\/[a-z]+\/[a-z0-9.-]+$/.test(path)) throw new Error("not here");
  return [await readFile(here(`../../src/atoll/gateway${path}`)), path.split(".").at(-1)];
}

async function answer(request, response) {
  try {
    const [body, kind] = await find(request.url);
    response.setHeader("Content-Security-Policy", POLICY);
    response.setHeader("Content-Type", TYPES[kind] ?? "application/octet-stream").end(body);
  } catch {
    response.writeHead(404).end();
  }
}

const server = createServer(answer).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const browser = await chromium.launch({ executablePath: process.argv[2], args: FLAGS });
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(String(error)));
  page.on("console", (message) => console.error(message.text()));
  await page.goto(`http://${HOST}:${server.address().port}/`);
  await page.waitForFunction(() => window.ask);
  process.stdout.write(JSON.stringify(await page.evaluate(() => window.facts)) + "\n");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write((await page.evaluate((questions) => window.ask(questions), line)) + "\n");
  }
} finally {
  await browser.close();
  server.close();
}
