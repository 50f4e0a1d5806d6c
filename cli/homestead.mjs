#!/usr/bin/env node
// Runs the TypeScript command as it stands in the clone, on the Node that package.json installs.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, dirname } from "node:path";
import { fileURLToPath } from "node:url";

const own = fileURLToPath(new URL("../node_modules/node/bin/node", import.meta.url));
const [major] = process.versions.node.split(".").map(Number);

if (major < 24 && existsSync(own)) {
  // A terminal sends it to both, and it is the other one's to answer: who is told twice must still be there to be told.
  process.on("SIGINT", () => undefined);
  // What it starts runs on it, too: the Pulumi CLI takes the Node.js of the PATH.
  const env = { ...process.env, PATH: `${dirname(own)}${delimiter}${process.env.PATH ?? ""}` };
  const { status } = spawnSync(own, process.argv.slice(1), { stdio: "inherit", env });
  process.exitCode = status ?? 1;
} else if (major < 24) {
  process.stderr.write(`homestead needs Node 24 or newer, and this is ${process.versions.node}: npm ci installs one\n`);
  process.exitCode = 1;
} else if (!existsSync(new URL("../node_modules/.package-lock.json", import.meta.url))) {
  // npm writes this file last: what there is of the packages without it is not all.
  process.stderr.write("homestead's packages are not installed in this clone: npm ci\n");
  process.exitCode = 1;
} else {
  const load = createRequire(import.meta.url);
  load("./typescript.cjs");
  await load("./homestead.ts").main(process.argv.slice(2));
}
