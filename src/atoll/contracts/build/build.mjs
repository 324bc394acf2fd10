// Compiles the contracts and writes one JSON file for each deployable contract: ABI, bytecode, and what they were made
// from. The output depends on the sources and on the pinned compiler only (no paths, no times), so it can be compared.
// Usage: npm ci && node build.mjs [OUTPUT-FOLDER]
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const solc = require("solc");
const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const output = process.argv[2] ?? join(root, "artifacts");
const deployable = ["Token", "Registry", "Jobs", "Settlement", "Deposits"];

const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 200 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "userdoc", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};

const names = readdirSync(root).filter((name) => name.endsWith(".sol")).sort();
const sources = Object.fromEntries(
  names.map((name) => [name, { content: readFileSync(join(root, name), "utf8") }]),
);
const hash = createHash("sha256");
for (const name of names) hash.update(name).update("\0").update(sources[name].content).update("\0");
const sourceHash = hash.digest("hex");

const found = (path) => {
  try {
    return { contents: readFileSync(join(here, "node_modules", path), "utf8") };
  } catch {
    return { error: `${path} is not installed: run npm ci in the build folder` };
  }
};
const input = { language: "Solidity", sources, settings };
const result = JSON.parse(solc.compile(JSON.stringify(input), { import: found }));
const problems = (result.errors ?? []).filter((problem) => problem.severity !== "info");
for (const problem of problems) console.error(problem.formattedMessage);
if (problems.length > 0) process.exit(1);

mkdirSync(output, { recursive: true });
const openzeppelin = require("@openzeppelin/contracts/package.json").version;
const { evmVersion, optimizer, metadata } = settings;
for (const name of deployable) {
  const built = result.contracts[`${name}.sol`][name];
  const artifact = {
    contract: name,
    compiler: { solc: solc.version(), openzeppelin, evmVersion, optimizer, metadata },
    source_sha256: sourceHash,
    abi: built.abi,
    errors: Object.fromEntries(
      Object.entries(built.userdoc.errors ?? {}).map(([error, docs]) => [error, docs[0].notice]),
    ),
    bytecode: "0x" + built.evm.bytecode.object,
  };
  writeFileSync(join(output, `${name}.json`), JSON.stringify(artifact, null, 1) + "\n");
  console.log(`${name}: ${built.evm.deployedBytecode.object.length / 2} bytes`);
}
