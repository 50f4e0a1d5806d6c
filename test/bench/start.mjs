/**
 * `npm run bench`: what a start of the `homestead` command, and of the program as the Pulumi CLI runs it, takes with the
 * ways there are to load TypeScript, side by side in one run. Prints each one's middle time as a multiple of the first one's.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../..", import.meta.url));
const starts = {
  // A subcommand that loads much: the Kubernetes client is 955 ES modules.
  "homestead kit --help": 'require("./cli/homestead.ts").main(["kit", "--help"])',
  // All that comes before the first resource.
  "the program, up to its first resource": 'require("./index.ts")',
};
const ways = {
  "cli/typescript.cjs": ["--require", "./cli/typescript.cjs"],
  "ts-node, types unchecked": ["--require", "ts-node/register/transpile-only"],
  "ts-node, types checked": ["--require", "ts-node/register"],
};
const rounds = 5;

const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
for (const [what, program] of Object.entries(starts)) {
  const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [way, args] of Object.entries(ways)) {
      const start = performance.now();
      const { status, stderr } = spawnSync(process.execPath, [...args, "-e", program], {
        cwd: folder,
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`${way}: ${stderr}`);
      times[way].push(performance.now() - start);
    }
  }
  const [first] = Object.keys(ways);
  console.log(`${what}, middle of ${rounds} starts:`);
  for (const way of Object.keys(ways)) {
    console.log(`  ${way}: ${(middle(times[way]) / middle(times[first])).toFixed(2)}`);
  }
}
console.log(`on Node ${process.versions.node}`);
