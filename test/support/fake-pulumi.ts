/**
 * A Pulumi CLI that keeps stacks and their configuration in a JSON file: enough of its command line, exit codes and
 * words for the commands that drive it.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { temporaryFolder } from "./folders";

export interface FakePulumi {
  /** Environment whose PATH has the fake one first, and node's folder. */
  environment: NodeJS.ProcessEnv;
  /** Stack -> key -> value, all of them secrets. */
  stacks: () => Record<string, Record<string, string>>;
  /** Every command line that was run, each as one text. */
  commands: () => string[];
}

/** Commands that fail: the beginning of a command line -> what is said on standard error. */
export type Failures = Record<string, string>;

const script = `
const fs = require("node:fs");
const file = process.env.FAKE_PULUMI_STATE;
const state = JSON.parse(fs.readFileSync(file, "utf8"));
const args = process.argv.slice(2);
fs.appendFileSync(file + ".log", args.join(" ") + "\\n");
const fail = (message) => { process.stderr.write("error: " + message + "\\n"); process.exit(255); };
for (const [start, message] of Object.entries(JSON.parse(process.env.FAKE_PULUMI_FAILURES)))
  if (args.join(" ").startsWith(start)) fail(message);
const option = (name) => { const i = args.indexOf(name); return i < 0 ? undefined : args[i + 1]; };
const stack = option("--stack");
const save = () => fs.writeFileSync(file, JSON.stringify(state));
const config = () => state[stack] ?? fail("no stack named '" + stack + "' found");
const [one, two, three, four] = args;
if (one === "version") console.log("v3.260.0");
else if (one === "whoami") console.log(JSON.stringify({ user: "me", url: process.env.FAKE_PULUMI_URL ?? process.env.PULUMI_BACKEND_URL }));
else if (one === "stack" && two === "ls") console.log(JSON.stringify(Object.keys(state).map((name) => ({ name }))));
else if (one === "stack" && two === "init") { state[three] ??= {}; save(); }
else if (one === "stack" && two === "output") console.log(process.env.FAKE_PULUMI_OUTPUTS ?? "{}");
else if (one === "config" && two === "set") {
  const key = args.slice(2).find((arg) => arg.startsWith("homestead:") || arg.startsWith("kubernetes:"));
  const given = args[args.indexOf(key) + 1];
  config()[key] = given === undefined || given.startsWith("--") ? fs.readFileSync(0, "utf8") : given;
  save();
} else if (one === "config" && two === "rm") { delete config()[three]; save(); }
else if (one === "config") {
  const clear = args.includes("--show-secrets");
  const file = process.env.PULUMI_CONFIG_PASSPHRASE_FILE;
  if (clear && process.env.PULUMI_CONFIG_PASSPHRASE !== "right" && !(file && fs.existsSync(file))) fail("incorrect passphrase");
  console.log(JSON.stringify(Object.fromEntries(Object.entries(config()).map(([key, value]) => [key, clear ? { value, secret: true } : { secret: true }]))));
} else if (one === "up" || one === "destroy") process.exit(0);
else fail("unknown command " + args.join(" "));
`;

/** Makes one for the running test. */
export function fakePulumi(stacks: Record<string, Record<string, string>> = {}, failures: Failures = {}): FakePulumi {
  const folder = temporaryFolder();
  const state = path.join(folder, "state.json");
  fs.writeFileSync(state, JSON.stringify(stacks));
  fs.writeFileSync(`${state}.log`, "");
  const program = path.join(folder, "pulumi");
  fs.writeFileSync(program, `#!${process.execPath}\n${script}`, { mode: 0o755 });
  return {
    environment: {
      ...process.env,
      PATH: [folder, process.env.PATH].join(path.delimiter),
      PULUMI_CONFIG_PASSPHRASE: "right",
      FAKE_PULUMI_STATE: state,
      FAKE_PULUMI_FAILURES: JSON.stringify(failures),
    },
    stacks: () => JSON.parse(fs.readFileSync(state, "utf8")) as Record<string, Record<string, string>>,
    commands: () => fs.readFileSync(`${state}.log`, "utf8").split("\n").filter(Boolean),
  };
}
