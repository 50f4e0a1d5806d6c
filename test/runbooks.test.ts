/**
 * Every command of every runbook exists as it is written: an owner reads them on a bad day. Options of `homestead` are
 * checked against the command itself; those of pulumi, kubectl, helm and of what runs in pods against lists here, and the
 * lists against the programs where they are installed.
 */
import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { doctorCommand } from "../cli/doctor";
import { drillCommand } from "../cli/drill";
import { identityCommand } from "../cli/identity";
import { kitCommand } from "../cli/kit";
import { planCommand } from "../cli/plan";
import { statusCommand } from "../cli/status";
import { switchCommand } from "../cli/switch";
import { verifyCommand } from "../cli/verify";
import { archiver } from "../components/postgres";
import { projectFolder } from "../lib/plan";
import { onPath } from "../lib/pulumi-cli";
import type { Journal, StepName } from "../lib/switch/journal";
import { filesAt } from "../lib/switch/steps";
import type { FileValues } from "../lib/switch/steps";
import { acmeSolverSecret, configKeys, optionalSecrets, requiredSecrets, secretPaths } from "../settings";
import { plannedStack, stacks } from "./support/planned";
import { rulesAt, takes } from "./support/schema-path";

const folder = path.join(projectFolder, "docs", "runbooks");
const files = fs.readdirSync(folder).filter((file) => file.endsWith(".md"));
const { scripts } = JSON.parse(fs.readFileSync(path.join(projectFolder, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};
const project = parseYaml(fs.readFileSync(path.join(projectFolder, "Pulumi.yaml"), "utf8")) as {
  config: Record<string, { value?: unknown }>;
};
const homestead: Record<string, () => Command> = {
  plan: planCommand,
  identity: identityCommand,
  verify: verifyCommand,
  doctor: doctorCommand,
  drill: drillCommand,
  status: statusCommand,
  switch: switchCommand,
  kit: kitCommand,
};

/** What the runbooks use of each program, by subcommand. */
const known: Record<string, Record<string, readonly string[]>> = {
  pulumi: {
    up: ["--stack", "--refresh", "--run-program", "--yes"],
    preview: ["--stack", "--diff", "--refresh", "--run-program", "--policy-pack"],
    refresh: ["--stack", "--preview-only", "--run-program"],
    "config set": ["--stack", "--path", "--secret", "--plaintext"],
    "config rm": ["--stack", "--path"],
    "config get": ["--stack", "--path"],
    "stack init": [],
    "stack rm": ["--force", "--preserve-config"],
    "stack output": ["--stack"],
    "stack change-secrets-provider": ["--stack"],
    login: [],
    cancel: ["--yes", "--stack"],
  },
  kubectl: {
    get: ["-o", "-l", "-A"],
    logs: ["-l", "--tail", "--all-containers", "-c", "--follow", "--pod-running-timeout"],
    exec: ["-c", "-it"],
    create: ["-f"],
    "create job": ["--from"],
    label: [],
    delete: ["-f", "-l", "--ignore-not-found", "--wait"],
    wait: ["--for", "--timeout", "-l"],
    scale: ["--replicas"],
    patch: ["--type", "-p"],
    rollout: [],
  },
  helm: { uninstall: [] },
  rclone: { sync: [], copy: [], moveto: [], lsf: [], size: [], delete: [] },
  git: { pull: [], clone: [] },
};
/** The same of programs without subcommands, and of what the shell does itself. */
const simple: Record<string, readonly string[]> = { age: ["-d"], smartctl: ["-a"], base64: ["-d"] };
const builtins: Record<string, readonly string[]> = {
  cd: [],
  export: [],
  read: ["-rs"],
  umask: [],
  unset: [],
  ".": [],
};
/** What a line begins with that is a command. */
const programs = ["npx", "npm", "bash", ...Object.keys(known), ...Object.keys(simple), ...Object.keys(builtins)];
const anywhere: Record<string, readonly string[]> = {
  kubectl: ["--context", "-n", "--namespace"],
  helm: ["--kube-context", "-n", "--namespace"],
  pulumi: [],
  rclone: ["--exclude"],
  git: [],
};

/** A command that a runbook has a pod run. */
interface Inner {
  /** What it is run in: `deploy/mastodon-web`, or the container `postgres`. */
  in: "deploy/mastodon-web" | "postgres";
  flags?: readonly string[];
  /** Options that are followed by a value, and what that has to look like. */
  values?: Readonly<Record<string, RegExp>>;
  /** How many words it takes beside them. */
  words?: [least: number, most: number];
  /** It refuses to do anything without one of these, or a word. */
  oneOf?: readonly string[];
}

const text = /^[^-]/;
const number = /^\d+$/;
/** What `parallelize_with_progress` looks at (lib/mastodon/cli/progress_helper.rb). */
const parallel = { "--concurrency": number, "-c": number };

/**
 * What the runbooks have pods run, by its first words. Mastodon's are as its sources have them: each `option` above the `def`
 * in lib/mastodon/cli/accounts.rb at 258dce1 and lib/mastodon/cli/media.rb at fa05292 of github.com/mastodon/mastodon (after
 * 4.2.0, the first release with these files), and the same at 032aa9e and 03a6d09. The sources of the 4.6.5 that versions.ts
 * names cannot be had here.
 */
const inPods: Readonly<Record<string, Inner>> = {
  "bin/tootctl accounts refresh": {
    in: "deploy/mastodon-web",
    flags: ["--all", "--verbose", "-v", "--dry-run"],
    values: { "--domain": text, ...parallel },
    words: [0, Infinity],
    oneOf: ["--all", "--domain"],
  },
  "bin/tootctl media refresh": {
    in: "deploy/mastodon-web",
    flags: ["--verbose", "-v", "--dry-run", "--force"],
    values: { "--account": text, "--domain": text, "--status": number, "--days": number, ...parallel },
    oneOf: ["--account", "--domain", "--status", "--days"],
  },
  "bin/tootctl media remove-orphans": {
    in: "deploy/mastodon-web",
    flags: ["--dry-run", "--fix-permissions"],
    values: { "--start-after": text, "--prefix": text },
  },
  // The one file that is ours in that folder (components/media-copy.sh).
  "rm public/system/homestead/restored": { in: "deploy/mastodon-web" },
  psql: { in: "postgres", values: { "-d": /^mastodon$/, "-c": text } },
  du: { in: "postgres", flags: ["-s", "-h"], words: [1, Infinity] },
};

/** One command of a runbook, as the words a shell would see. */
interface Line {
  file: string;
  text: string;
  words: string[];
}

/**
 * Lines of the blocks marked `sh`, the commands of a pipeline or of a chain apart; of those marked `shell`, which the end-to-end suite leaves
 * out when it does what a runbook says; and commands within a sentence.
 */
function commandsIn(file: string, text: string): Line[] {
  const blocks = [...text.matchAll(/^( *)```(?:sh|shell)\n([\s\S]*?)^\1```$/gm)].map((match) => match[2] ?? "");
  const lines = blocks.flatMap((block) => block.replaceAll(/\\\n\s*/g, "").split("\n"));
  const prose = text.replaceAll(/^( *)```[^]*?^\1```$/gm, "");
  const inline = [...prose.matchAll(/`([^`]+)`/g)]
    .map((match) => (match[1] ?? "").replaceAll(/\s+/g, " "))
    .filter(isCommand);
  return [...lines, ...inline]
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .flatMap((line) => line.split(/ (?:\||&&) (?=[a-z])/))
    .map((command) => ({ file, text: command, words: wordsOf(command) }));
}

const isCommand = (text: string): boolean => programs.some((program) => text.startsWith(`${program} `));

/** The blocks of some languages, without their indentation, with something in the place of what the reader has to put in. */
const blocksIn = (
  text: string,
  languages: readonly string[],
  values: Readonly<Record<string, string>> = {},
): string[] =>
  [...text.matchAll(/^( *)```(\w+)\n([\s\S]*?)^\1```$/gm)]
    .filter(([, , language = ""]) => languages.includes(language))
    .map(([, indent = "", , block = ""]) =>
      block
        .replaceAll(new RegExp(`^${indent}`, "gm"), "")
        .replaceAll(/<([a-z][a-z ._-]*)>/g, (_, name: string) => values[name] ?? "x"),
    );

/** Lines of the blocks marked `text` that are commands: nobody would check them there. */
const commandsInText = (text: string): string[] =>
  [...text.matchAll(/^( *)```text\n([\s\S]*?)^\1```$/gm)]
    .flatMap(([, , block = ""]) => block.split("\n"))
    .map((line) => line.trim())
    .filter(isCommand);

const wordsOf = (command: string): string[] =>
  [...command.matchAll(/'([^']*)'|"([^"]*)"|[^\s'"]+(?:'[^']*')?/g)].map((m) => m[1] ?? m[2] ?? m[0]);

/** What is wrong with a command, or with one whose output is a part of it; undefined if nothing is. */
function faultOf(line: Line): string | undefined {
  const within = line.words.flatMap((word) => [...word.matchAll(/\$\(([^()]*)\)/g)].map(([, command = ""]) => command));
  return [line.words, ...within.map(wordsOf)].map(faultIn).find((fault) => fault !== undefined);
}

function faultIn(words: string[]): string | undefined {
  const [program = "", ...rest] = words;
  if (program === "npx") return rest[0] === "homestead" ? homesteadFault(rest.slice(1)) : `npx ${rest[0]} is not ours`;
  if (program === "npm") return npmFault(rest);
  if (program in known) return knownFault(program, rest) ?? argumentFault(program, rest);
  if (program === "bash") return fileFault(rest[0] ?? "");
  const options = simple[program] ?? builtins[program];
  if (options === undefined) return `nobody says that there is a program '${program}'`;
  const unknown = rest.find((word) => word.startsWith("-") && !options.includes(word));
  return unknown === undefined ? undefined : `${program} has no option ${unknown} (or the list lacks it)`;
}

function homesteadFault(words: readonly string[]): string | undefined {
  const make = homestead[words[0] ?? ""];
  if (!make) return `homestead has no subcommand '${words[0]}'`;
  let command = make();
  let rest = words.slice(1);
  const inner = command.commands.find((one) => one.name() === rest[0]);
  if (inner) [command, rest] = [inner, rest.slice(1)];
  const given: string[] = [];
  for (let i = 0; i < rest.length; i++) {
    const word = rest[i] ?? "";
    if (!word.startsWith("-")) {
      given.push(word);
      continue;
    }
    const option = command.options.find(({ long, short }) => word === long || word === short);
    if (!option) return `homestead ${command.name()} has no option ${word}`;
    if (option.required || option.optional) i++;
  }
  const expected = command.registeredArguments;
  if (given.length > expected.length) return `homestead ${command.name()} takes no '${given[expected.length]}'`;
  if (given.length < expected.filter(({ required }) => required).length) return "an argument is missing";
  const wrong = given.find(
    (value, i) => !isPlaceholder(value) && expected[i]?.argChoices && !expected[i].argChoices.includes(value),
  );
  return wrong === undefined ? undefined : `homestead ${command.name()} does not know '${wrong}'`;
}

/** A value that the reader has to put in. */
const isPlaceholder = (word: string): boolean => /^<[a-z]+>$/.test(word);

function npmFault([verb = "", script = ""]: readonly string[]): string | undefined {
  if (["ci", "test", "install"].includes(verb)) return undefined;
  return verb === "run" && script in scripts ? undefined : `package.json has no script '${script}'`;
}

/** Words of a command up to `--`, after which the words are another program's. */
const ownWords = (words: readonly string[]) => (words.includes("--") ? words.slice(0, words.indexOf("--")) : words);

function knownFault(program: string, words: readonly string[]): string | undefined {
  const own = ownWords(words);
  const global = anywhere[program] ?? [];
  // Options before the subcommand (`kubectl --context home get`) take a value each.
  const plain = own.filter((word, i) => !word.startsWith("-") && !global.includes(own[i - 1] ?? ""));
  const subcommands = known[program] ?? {};
  const name = [plain.slice(0, 2).join(" "), plain[0] ?? ""].find((one) => one in subcommands);
  if (name === undefined) return `${program} has no subcommand '${plain.slice(0, 2).join(" ")}' (or the list lacks it)`;
  const options = own.filter((word) => /^-./.test(word)).map((word) => word.split("=")[0] ?? word);
  const unknown = options.find((option) => ![...global, ...(subcommands[name] ?? [])].includes(option));
  return unknown === undefined ? undefined : `${program} ${name} has no option ${unknown} (or the list lacks it)`;
}

/** Files that are named, keys of the configuration, and what is asked of the cluster must exist. */
function argumentFault(program: string, words: readonly string[]): string | undefined {
  if (program === "kubectl") return namedFileFault(words) ?? kindFault(words) ?? fieldFault(words) ?? innerFault(words);
  return program === "pulumi" ? keyFault(words) : undefined;
}

/** What is wrong with what a pod is to run. */
function innerFault(words: readonly string[]): string | undefined {
  const own = plainWords(words);
  if (own[0] !== "exec") return undefined;
  const at = words.indexOf("--");
  if (at < 0 || at + 1 === words.length) return "exec is told to run nothing: a command has to stand after --";
  const run = words.slice(at + 1);
  const name = [3, 2, 1].map((length) => run.slice(0, length).join(" ")).find((first) => first in inPods);
  const known = inPods[name ?? ""];
  if (name === undefined || known === undefined) return `nobody says that a pod can run '${run.join(" ")}'`;
  const container = words[words.indexOf("-c") + 1];
  const place = known.in === "postgres" ? words.includes("-c") && container === "postgres" : own[1] === known.in;
  if (!place) return `${name} is run in ${known.in === "postgres" ? "the container postgres (-c)" : known.in}`;
  return optionFault(name, known, run.slice(name.split(" ").length));
}

function optionFault(
  name: string,
  { flags = [], values = {}, words: [least, most] = [0, 0], oneOf }: Inner,
  given: string[],
) {
  const plain: string[] = [];
  const options: string[] = [];
  for (let i = 0; i < given.length; i++) {
    const word = given[i] ?? "";
    // Letters in one: -sh.
    const letters = /^-[a-z]{2,}$/.test(word) ? [...word.slice(1)].map((letter) => `-${letter}`) : [];
    const [option = "", joined] = word.startsWith("--") ? word.split(/=(.*)/) : [word];
    if (!word.startsWith("-")) plain.push(word);
    else if (letters.length > 0 && letters.every((letter) => flags.includes(letter))) options.push(...letters);
    else if (flags.includes(option)) options.push(option);
    else if (values[option] === undefined) return `${name} has no option ${option}`;
    else {
      const value = joined ?? given[++i] ?? "";
      if (!isPlaceholder(value) && !values[option].test(value)) return `${name} does not take '${value}' as ${option}`;
      options.push(option);
    }
  }
  if (plain.length > most) return `${name} takes no '${plain[most]}'`;
  if (plain.length < least) return `${name} needs more than that`;
  const chosen = oneOf === undefined || plain.length > 0 || options.some((option) => oneOf.includes(option));
  return chosen ? undefined : `${name} does nothing without one of ${oneOf.join(", ")}`;
}

function namedFileFault(words: readonly string[]): string | undefined {
  const file = words.indexOf("-f");
  const [, template] = /^go-template-file=(.*)$/.exec(words[words.indexOf("-o") + 1] ?? "") ?? [];
  if (template !== undefined) return fileFault(template);
  // A hyphen: what the program before it in the pipeline prints.
  return file >= 0 && words[file + 1] !== "-" ? fileFault(words[file + 1] ?? "") : undefined;
}

function keyFault(words: readonly string[]): string | undefined {
  const at = words.findIndex((word) => word.startsWith("homestead:"));
  if (at < 0) return undefined;
  const key = (words[at] ?? "").slice("homestead:".length);
  const name = key.split(/[.[]/)[0] ?? "";
  const names: readonly string[] = [...configKeys, ...requiredSecrets, ...optionalSecrets];
  if (!names.includes(name)) return `there is no configuration key ${name}`;
  if (key.includes(".") && !words.includes("--path")) return `homestead:${key} needs --path`;
  const value = words[1] === "set" ? words[at + 1] : undefined;
  if (!(configKeys as readonly string[]).includes(name) || secretPaths.includes(key)) {
    return words[1] === "set" && !words.includes("--secret") ? `homestead:${key} needs --secret` : undefined;
  }
  const rules = rulesAt(key);
  if (rules.length === 0) return `there is no configuration key ${key}`;
  const given = value !== undefined && !value.startsWith("-") && !/<[^>]+>/.test(value);
  return given && !takes(rules, value) ? `homestead:${key} does not take '${value}'` : undefined;
}

/** What our stacks make in a cluster. */
const made = () =>
  stacks
    .flatMap((stack) => plannedStack(stack).resources)
    .map(({ inputs }) => inputs as { apiVersion?: string; kind?: string; metadata?: { name?: string } } | undefined);

/** Kinds that others make, or a stack with media on a volume, as kubectl takes them (`kubectl api-resources`). */
const othersKinds = [
  ...["pod", "event", "storageclass", "certificate", "challenge", "helmchartconfig.helm.cattle.io"],
  ...["persistentvolumeclaim", "cronjob"],
];

/** Each kind's names: one or many, with its group or without. */
const kindNames = (): Set<string> => {
  const ours = made().flatMap(({ apiVersion = "", kind } = {}) => {
    const group = apiVersion.includes("/") ? `.${apiVersion.split("/")[0]}` : "";
    return kind === undefined ? [] : [kind.toLowerCase(), `${kind.toLowerCase()}${group}`];
  });
  const many = (name: string) => name.replace(/^[^.]*/, (kind) => (kind.endsWith("s") ? `${kind}es` : `${kind}s`));
  return new Set([...ours, ...othersKinds, "deploy"].flatMap((name) => [name, many(name)]));
};

/** Options of kubectl that are followed by their value. */
const withValue = ["--context", "-n", "--namespace", "-l", "-o", "-c", "-f"];

/** Words of a command for kubectl that are neither options nor their values. */
const plainWords = (words: readonly string[]): string[] =>
  ownWords(words).filter((word, i) => !word.startsWith("-") && !withValue.includes(words[i - 1] ?? ""));

/** Kinds must be ours or well known, whether they stand alone (`get pods,jobs`) or before a name (`logs job/x`). */
function kindFault(words: readonly string[]): string | undefined {
  const [verb = "", ...rest] = plainWords(words);
  const alone = ["get", "delete", "label", "scale", "wait"].includes(verb) ? [rest[0] ?? ""] : [];
  const from = ownWords(words).flatMap((word) => /^--from=(.*)$/.exec(word)?.[1] ?? []);
  // A label has a slash of its own, as a file has; and what another command prints cannot be known here.
  const named = [...(verb === "label" ? [] : rest), ...from].filter((word) => /^[a-z.]+\/[^/]+$/.test(word));
  const kinds = [...alone, ...named].flatMap((word) => (word.split("/")[0] ?? "").split(","));
  const unknown = kinds.find((kind) => kind !== "" && !kindNames().has(kind));
  return unknown === undefined ? undefined : `nobody says that there is a kind '${unknown}'`;
}

/** Fields that every object begins with, and those of a Secret of ours. */
function fieldFault(words: readonly string[]): string | undefined {
  const output = words.find((word) => /^(jsonpath|custom-columns)=/.test(word)) ?? "";
  const [, ...first] = output.split(/(?:\{|:)\./);
  const unknown = first
    .map((path) => /^[\w-]*/.exec(path)?.[0] ?? "")
    .find((field) => !["metadata", "spec", "status", "data", "items"].includes(field));
  if (unknown !== undefined) return `objects have no field ${unknown}`;
  const [, kind, name = ""] = plainWords(words);
  const key = /\{\.data\.([\w-]+)\}/.exec(output)?.[1];
  if (kind !== "secret" || key === undefined) return undefined;
  const secrets = made().filter((one) => one?.kind === "Secret" && one.metadata?.name === name);
  const keys = name === acmeSolverSecret ? ["key"] : secrets.flatMap((one) => Object.keys(dataOf(one)));
  return keys.includes(key) ? undefined : `no Secret '${name}' of ours has a key ${key}`;
}

const dataOf = (secret: object | undefined): object =>
  (secret as { stringData?: object } | undefined)?.stringData ?? {};

const fileFault = (file: string): string | undefined =>
  fs.existsSync(path.join(projectFolder, file)) ? undefined : `there is no file ${file}`;

const parse = (text: string): Line => ({ file: "a test", text, words: wordsOf(text) });

describe.each(files)("docs/runbooks/%s", (file) => {
  const text = fs.readFileSync(path.join(folder, file), "utf8");

  it("holds only commands that exist as they are written", () => {
    const faults = commandsIn(file, text).flatMap((line) => {
      const fault = faultOf(line);
      return fault === undefined ? [] : [`${line.text}: ${fault}`];
    });
    expect(faults).toEqual([]);
  });

  it("holds only blocks that a shell takes", () => {
    const faults = blocksIn(text, ["sh", "shell"]).flatMap((block) => {
      const { status, stderr } = spawnSync("bash", ["-n"], { input: block, encoding: "utf8" });
      return status === 0 ? [] : [`${block}: ${stderr}`];
    });
    expect(faults).toEqual([]);
  });

  it("holds only values for Pulumi.yaml that it has, as it has them", () => {
    const ours = blocksIn(text, ["yaml", "text"]).filter((block) => block.startsWith("homestead:"));
    const written = ours.flatMap((block) => Object.entries(parseYaml(block) as Record<string, object>));
    const wrong = written.filter(([key, entry]) => !(key in project.config) || !("value" in entry));
    expect(wrong).toEqual([]);
  });

  it("holds no command where nothing checks it", () => {
    expect(commandsInText(text)).toEqual([]);
  });

  it("names the cluster in every command for kubectl and helm: the current context may be the other site's", () => {
    const blocks = commandsIn(file, text.replaceAll(/`[^`\n]+`/g, ""));
    const lacking = blocks.filter(({ words: [program = "", ...rest] }) => {
      const flag = { kubectl: "--context", helm: "--kube-context" }[program];
      return flag !== undefined && !rest.includes(flag);
    });
    expect(lacking.map(({ text: command }) => command)).toEqual([]);
  });

  it("names a database only to delete it: after a restore its Cluster is called otherwise", () => {
    const naming = commandsIn(file, text).filter(({ words }) => words.some((word) => /postgres-g\d/.test(word)));
    const others = naming.filter(({ words: [program, ...rest] }) => program === "kubectl" && !rest.includes("delete"));
    expect(others.map(({ text: command }) => command)).toEqual([]);
  });

  it("links to files and headings that are there", () => {
    const links = [...text.matchAll(/\]\(([^)#:]*)(?:#([^)]*))?\)/g)];
    const broken = links.filter(([, target = "", heading]) => {
      const linked = path.join(folder, target === "" ? file : target);
      return !fs.existsSync(linked) || (heading !== undefined && !headingsOf(linked).includes(heading));
    });
    expect(broken.map(([link]) => link)).toEqual([]);
  });
});

/** Anchors of a page's headings, as GitHub makes them. */
const headingsOf = (page: string): string[] =>
  [...fs.readFileSync(page, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

/** What each update of a section would see in the files, if one does what its blocks say, from one site to the other. */
function updatesIn(section: string, values: Readonly<Record<string, string>>): (FileValues & { site: string })[] {
  const shared: Record<string, unknown> = { activeSite: "home", epoch: 1, generations: { vps: 1 } };
  const stacks: Record<string, Record<string, string | undefined>> = { home: {}, vps: {} };
  const updates: (FileValues & { site: string })[] = [];
  for (const block of blocksIn(section, ["sh", "shell", "yaml", "text"], values)) {
    if (block.startsWith("homestead:")) {
      const given = Object.entries(parseYaml(block) as Record<string, { value: unknown }>);
      for (const [key, { value }] of given) shared[key.replace("homestead:", "")] = value;
      continue;
    }
    for (const line of block.trim().split("\n")) {
      const words = wordsOf(line);
      const [, command, verb] = words;
      const site = words[words.indexOf("--stack") + 1] ?? "";
      const key = words.findIndex((word) => word.startsWith("homestead:"));
      const name = words[key]?.replace("homestead:", "") ?? "";
      if (words[0] !== "pulumi" || !(site in stacks)) continue;
      if (command === "config") stacks[site] = { ...stacks[site], [name]: verb === "set" ? words[key + 1] : undefined };
      if (command !== "up") continue;
      const { activeSite, epoch, generations } = shared as unknown as Shared;
      updates.push({
        site,
        shared: { activeSite, epoch, generation: generations["vps"] ?? 1 },
        maintenance: stacks["home"]?.["maintenance"] as FileValues["maintenance"],
        promotionToken: stacks["vps"]?.["promotionToken"],
      });
    }
  }
  return updates;
}
interface Shared {
  activeSite: FileValues["shared"]["activeSite"];
  epoch: number;
  generations: Record<string, number>;
}

describe("docs/runbooks/switch-by-hand.md", () => {
  const text = fs.readFileSync(path.join(folder, "switch-by-hand.md"), "utf8");
  const section = (heading: string) => text.split(/^## /m).find((part) => part.startsWith(heading)) ?? "";
  const journal: Journal = {
    version: 1,
    ...{ target: "vps", from: "home", epoch: 2, generation: 1, kind: "planned", token: "abc", finished: false },
    steps: [],
    startedAt: "",
    updatedAt: "",
  };
  /** The steps of the command that are updates, each with its site. */
  const expected = (steps: [StepName, string][], changes: Partial<Journal> = {}) =>
    steps.map(([step, site]) => ({ site, ...filesAt(step, { ...journal, ...changes }) }));

  it("hands the server over with the files that the command writes", () => {
    const [stop = "", ...others] = section("Planned").split("**Back:**");
    const values = { from: "home", to: "vps", epoch: "2", token: "abc" };
    expect(updatesIn(stop, values)).toEqual(
      expected([
        ["stop-web", "home"],
        ["stop-workers", "home"],
        ["demote", "home"],
        ["promote", "vps"],
        ["clear-token", "vps"],
      ]),
    );
    // Before the demotion and after it.
    const back = expected([
      ["reopen", "home"],
      ["reopen", "home"],
    ]);
    expect(updatesIn(others.join(), values)).toEqual(back);
  });

  it("takes it over from a lost site with them", () => {
    expect(updatesIn(section("Unplanned"), { from: "home", to: "vps", epoch: "2" })).toEqual(
      expected(
        [
          ["promote", "vps"],
          ["clear-token", "vps"],
        ],
        { kind: "lost" },
      ),
    );
  });

  it("begins a database anew with them", () => {
    const heading = "The other's database does not follow";
    expect(updatesIn(section(heading), { site: "vps", generation: "2" })).toEqual(
      expected([["follow", "vps"]], { generation: 2 }),
    );
  });
});

describe("docs/runbooks/base-backup.yaml", () => {
  const text = fs.readFileSync(path.join(folder, "base-backup.yaml"), "utf8");

  it("is a backup as the nightly ones, of the Cluster that the ScheduledBackup names", () => {
    const { apiVersion, kind, spec } = parseYaml(text) as Record<string, unknown>;
    expect({ apiVersion, kind, spec }).toEqual({
      apiVersion: "postgresql.cnpg.io/v1",
      kind: "Backup",
      spec: {
        cluster: { name: "{{ (index .items 0).spec.cluster.name }}" },
        method: "plugin",
        pluginConfiguration: { name: archiver },
      },
    });
  });
});

describe("the check of a runbook's commands", () => {
  it.each([
    ["npx homestead dril home", "homestead has no subcommand 'dril'"],
    ["npx homestead drill", "an argument is missing"],
    ["npx homestead drill hoem", "homestead drill does not know 'hoem'"],
    ["npx homestead status home --jsno", "homestead status has no option --jsno"],
    ["npx homestead switch", "an argument is missing"],
    ["npx homestead switch vps --gone", "homestead switch has no option --gone"],
    ["npx homestead switch hoem --lost", "homestead switch does not know 'hoem'"],
    ["npx homestead kit opne k.age", "homestead kit takes no 'opne'"],
    ["npx homestead kit open", "an argument is missing"],
    ["npx homestead kit open k.age --in folder", "homestead open has no option --in"],
    ["npx homestead identity copy vps home more", "homestead copy takes no 'more'"],
    ["pulumi upp", "pulumi has no subcommand 'upp' (or the list lacks it)"],
    ["pulumi up --stak home", "pulumi up has no option --stak (or the list lacks it)"],
    ["pulumi config set homestead:valt x --stack home", "there is no configuration key valt"],
    ["pulumi config set homestead:vault.bucket x --stack home", "homestead:vault.bucket needs --path"],
    ["pulumi config set homestead:ownerPassword --stack home", "homestead:ownerPassword needs --secret"],
    [
      "pulumi config set --path homestead:restore.oldclster off --stack home",
      "there is no configuration key restore.oldclster",
    ],
    ["pulumi config rm --path homestead:vault.buckt --stack home", "there is no configuration key vault.buckt"],
    [
      "pulumi config set --path 'homestead:network.privateEgress[first]' 10.0.0.0/8 --stack home",
      "there is no configuration key network.privateEgress[first]",
    ],
    [
      "pulumi config set --path homestead:generations.hme 2 --stack home",
      "there is no configuration key generations.hme",
    ],
    [
      "pulumi config set --path homestead:restore.oldCluster of --stack home",
      "homestead:restore.oldCluster does not take 'of'",
    ],
    ["pulumi config set homestead:standby lukewarm --stack vps", "homestead:standby does not take 'lukewarm'"],
    ["pulumi config set --path homestead:cluster.uid me --stack vps", "homestead:cluster.uid does not take 'me'"],
    ["kubectl --context home get pds -l a=b", "nobody says that there is a kind 'pds'"],
    ["kubectl --context home get clusters.cnpg.io,pods", "nobody says that there is a kind 'clusters.cnpg.io'"],
    ["kubectl --context home logs jb/media-copy", "nobody says that there is a kind 'jb'"],
    ["kubectl create job --from=cronjb/media-copy x", "nobody says that there is a kind 'cronjb'"],
    ["kubectl get pods -o jsonpath='{.statu.phase}'", "objects have no field statu"],
    ["kubectl get jobs -o custom-columns=A:.metadata.name,B:.stat.x", "objects have no field stat"],
    [
      "kubectl get secret mastodon-identity -o jsonpath='{.data.secret-key}'",
      "no Secret 'mastodon-identity' of ours has a key secret-key",
    ],
    ["kubectl --context home destroy pods", "kubectl has no subcommand 'destroy pods' (or the list lacks it)"],
    ["kubectl create -f docs/nothing.yaml", "there is no file docs/nothing.yaml"],
    ["kubectl get pods -o go-template-file=docs/nothing.yaml", "there is no file docs/nothing.yaml"],
    ["npm run nothing", "package.json has no script 'nothing'"],
    ["age -x kit.age", "age has no option -x (or the list lacks it)"],
    ["read -x NAME", "read has no option -x (or the list lacks it)"],
    ["git clone --dept 1 <repository>", "git clone has no option --dept (or the list lacks it)"],
    ["rm -rf /", "nobody says that there is a program 'rm'"],
    ["kubectl exec deploy/mastodon-web -- rm a/b", "nobody says that a pod can run 'rm a/b'"],
    ["kubectl exec deploy/mastodon-web", "exec is told to run nothing: a command has to stand after --"],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl account refresh --all",
      "nobody says that a pod can run 'bin/tootctl account refresh --all'",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl accounts refresh",
      "bin/tootctl accounts refresh does nothing without one of --all, --domain",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl accounts refresh --al",
      "bin/tootctl accounts refresh has no option --al",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl media refresh --days seven",
      "bin/tootctl media refresh does not take 'seven' as --days",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl media refresh --days",
      "bin/tootctl media refresh does not take '' as --days",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl media remove-orphans --dryrun",
      "bin/tootctl media remove-orphans has no option --dryrun",
    ],
    [
      "kubectl exec deploy/mastodon-web -- bin/tootctl media remove-orphans all",
      "bin/tootctl media remove-orphans takes no 'all'",
    ],
    [
      "kubectl exec -c postgres x -- bin/tootctl media remove-orphans",
      "bin/tootctl media remove-orphans is run in deploy/mastodon-web",
    ],
    ["kubectl exec x -- psql -d mastodon -c ANALYZE", "psql is run in the container postgres (-c)"],
    ["kubectl exec -c postgres x -- psql -d mastdon -c ANALYZE", "psql does not take 'mastdon' as -d"],
    ["kubectl exec -c postgres x -- du -sx a", "du has no option -sx"],
    ["kubectl exec -c postgres x -- du -sh", "du needs more than that"],
    [
      'kubectl exec -c postgres "$(kubectl get pds -o name)" -- psql -d mastodon',
      "nobody says that there is a kind 'pds'",
    ],
  ])("finds what is wrong with: %s", (text, fault) => {
    expect(faultOf(parse(text))).toBe(fault);
  });

  it.each([
    "pulumi config set --path homestead:restore.to <moment> --stack home",
    "pulumi config set --path homestead:generations.<site> 2 --stack home",
    "pulumi config set --path 'homestead:network.privateEgress[0]' 10.0.0.0/8 --stack home",
    "pulumi config set --path homestead:blog.port 8080 --stack home",
    "pulumi config set --path homestead:media.kind volume --stack home",
    "pulumi config rm homestead:restore --stack home",
    "kubectl --context home -n homestead get clusters.postgresql.cnpg.io,pods -l a=b",
    "kubectl exec deploy/mastodon-web -- rm public/system/homestead/restored",
    "kubectl exec deploy/mastodon-web -- bin/tootctl media refresh --days=7 --force",
    "kubectl exec deploy/mastodon-web -- bin/tootctl accounts refresh <name> -c 2",
    "kubectl exec -c postgres <pod> -- du -sh /a /b",
    'kubectl exec -c postgres "$(kubectl get pods -l cnpg.io/x=y -o name)" -- psql',
    "kubectl get storageclasses",
  ])("takes: %s", (text) => {
    expect(faultOf(parse(text))).toBeUndefined();
  });

  it("sees a command in a block of text, where it would be overlooked, and those of a chain one by one", () => {
    const block = (language: string) =>
      `1. So:\n\n   \`\`\`${language}\n   git pull && cd x\n   key: value\n   \`\`\`\n`;
    expect(commandsInText(block("text"))).toEqual(["git pull && cd x"]);
    expect(commandsIn("x", block("shell")).map(({ text }) => text)).toEqual(["git pull", "cd x", "key: value"]);
    expect(commandsIn("x", "`age -d kit.age`, or `age`").map(({ text }) => text)).toEqual(["age -d kit.age"]);
  });

  it("sees the commands of an indented block, one by one and through pipes", () => {
    const text =
      "1. Do `npm run\n   plan`, in `out/`, with `kubectl`:\n\n   ```sh\n   npx homestead status home\n   a --x='{b}' | pulumi up\n   ```\n\n```text\nno\n```\n\n```shell\nb\n```\n";
    expect(commandsIn("x", text).map(({ words }) => words)).toEqual([
      ["npx", "homestead", "status", "home"],
      ["a", "--x='{b}'"],
      ["pulumi", "up"],
      ["b"],
      ["npm", "run", "plan"],
    ]);
  });
});

describe.each(Object.keys(simple).filter((program) => onPath(program) !== undefined))(
  "%s, which is installed",
  (program) => {
    it("has the options of the list", () => {
      const help = execFileSync(program, ["--help"], { encoding: "utf8", timeout: 60_000 });
      expect(simple[program]?.filter((option) => !new RegExp(`(^|[\\s,])${option}\\b`, "m").test(help))).toEqual([]);
    });
  },
);

describe.each(["psql", "du"].filter((program) => onPath(program) !== undefined))(
  "%s, which is installed",
  (program) => {
    it("has the options that a pod's has", () => {
      const help = execFileSync(program, ["--help"], { encoding: "utf8", timeout: 60_000 });
      const options = [...(inPods[program]?.flags ?? []), ...Object.keys(inPods[program]?.values ?? {})];
      expect(options.filter((option) => !new RegExp(`(^|[\\s,])${option}\\b`, "m").test(help))).toEqual([]);
    });
  },
);

describe("the list of what pods run", () => {
  it("has nothing that no runbook has them run", () => {
    const all = files.map((file) => fs.readFileSync(path.join(folder, file), "utf8")).join("\n");
    expect(Object.keys(inPods).filter((name) => !all.includes(`-- ${name}`))).toEqual([]);
  });
});

describe.each(Object.keys(known).filter((program) => onPath(program) !== undefined))(
  "%s, which is installed",
  (program) => {
    it("has the subcommands and options of the list", () => {
      const missing = Object.entries(known[program] ?? {}).flatMap(([name, options]) => {
        const help = execFileSync(program, [...name.split(" "), "--help"], { encoding: "utf8", timeout: 60_000 });
        return options
          .filter((option) => !new RegExp(`(^|[\\s,])${option}\\b`, "m").test(help) && option !== "-it")
          .map((option) => `${program} ${name} ${option}`);
      });
      expect(missing).toEqual([]);
    }, 120_000);
  },
);
