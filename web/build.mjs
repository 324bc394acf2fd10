// Makes the files of static/vendor that come from npm packages: what the lockfile names alone decides them.
// Usage: npm ci --ignore-scripts && node build.mjs [OUTPUT-FOLDER]
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const output = process.argv[2] ?? join(here, "../src/atoll/gateway/static/vendor");
const packages = ["@noble/ciphers", "@noble/curves", "@noble/hashes"];
const runtime = join(here, "node_modules/onnxruntime-web/dist");

const version = (name) => JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8")).version;
const named = packages.map((name) => `${name} ${version(name)}`).join(", ");

mkdirSync(output, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ["noble.js"],
  outfile: join(output, "noble.js"),
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  charset: "utf8",
  banner: { js: `// ${named} (MIT, see LICENSES.md), bundled by web/build.mjs.` },
});
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs"]) {
  copyFileSync(join(runtime, name), join(output, name));
}
// The server sends it as it is, with Content-Encoding: gzip. Node writes no name and no time into the file.
const wasm = gzipSync(readFileSync(join(runtime, "ort-wasm-simd-threaded.wasm")), { level: 9 });
writeFileSync(join(output, "ort-wasm-simd-threaded.wasm.gz"), wasm);
