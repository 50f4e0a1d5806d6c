/**
 * A temporary copy of the project with the values of the test clusters, and the real Pulumi CLI run in it. State is
 * in a folder beside it (`file://`), so that neither somebody's stacks nor the checkout are ever touched.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, parseDocument } from "yaml";
import { images as publishedImages } from "../../../versions";
import { atExit, must, run, tail } from "./processes";
import type { Outcome } from "./processes";
import { checkout } from "./environment";
import type { ClusterAccess, Environment } from "./environment";

export type Site = "home" | "vps";

/** One run of the CLI. */
export interface PulumiOutcome extends Outcome {
  /** File with command line and output. */
  log: string;
}

export interface PulumiOptions {
  /** @default 900 */
  seconds?: number;
  input?: string;
  env?: NodeJS.ProcessEnv;
}

export class Project {
  /** The copy's folder. */
  readonly folder: string;
  /** Folder of the Pulumi backend. */
  readonly state: string;
  readonly passphrase: string;
  /** What the DNS command of the stacks was called with, a line a call. */
  readonly dnsLog: string;
  private runs = 0;

  private constructor(
    private readonly environment: Environment,
    readonly root: string,
    /** Folder for the output of every command. */
    public logs: string,
    passphrase = crypto.randomBytes(12).toString("hex"),
  ) {
    this.folder = path.join(root, "project");
    this.state = path.join(root, "state");
    this.dnsLog = path.join(root, "dns.log");
    this.passphrase = passphrase;
  }

  /**
   * Copies what git knows, and what it would: files not yet added but not ignored either.
   * @param logs folder for the output of every command.
   */
  static async copy(environment: Environment, logs: string): Promise<Project> {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-e2e-"));
    if (process.env["E2E_KEEP"] === undefined) atExit(() => fs.rmSync(root, { recursive: true, force: true }));
    const project = new Project(environment, root, logs);
    const listed = await must("git", ["-C", checkout, "ls-files", "-coz", "--exclude-standard"], { seconds: 60 });
    for (const file of listed.split("\0").filter((name) => name !== "" && !name.startsWith("test/"))) {
      const from = path.join(checkout, file);
      if (!fs.lstatSync(from, { throwIfNoEntry: false })?.isFile()) continue;
      fs.mkdirSync(path.dirname(path.join(project.folder, file)), { recursive: true });
      fs.copyFileSync(from, path.join(project.folder, file));
    }
    fs.symlinkSync(path.join(checkout, "node_modules"), path.join(project.folder, "node_modules"));
    fs.mkdirSync(project.state, { recursive: true });
    return project;
  }

  /**
   * Runs with the same project once more, files and state: for what is to be refused, beside others. The clusters are the
   * same; of what is written into files and state there, nothing comes back.
   * @param name of the folder for its logs.
   */
  async twin<T>(name: string, work: (twin: Project) => Promise<T>): Promise<T> {
    const root = fs.mkdtempSync(`${this.root}-twin-`);
    const twin = new Project(this.environment, root, path.join(this.logs, name), this.passphrase);
    const remove = atExit(() => fs.rmSync(root, { recursive: true, force: true }));
    try {
      // The folder of packages is a link, and stays one.
      fs.cpSync(this.folder, twin.folder, { recursive: true });
      fs.cpSync(this.state, twin.state, { recursive: true });
      return await work(twin);
    } finally {
      await remove();
    }
  }

  /** Environment of every command run in the copy. */
  get env(): NodeJS.ProcessEnv {
    return {
      ...this.environment.childEnv,
      PATH: `${path.join(this.folder, "node_modules", ".bin")}:${this.environment.childEnv["PATH"] ?? ""}`,
      PULUMI_HOME: path.join(this.root, "pulumi-home"),
      PULUMI_BACKEND_URL: `file://${this.state}`,
      PULUMI_CONFIG_PASSPHRASE: this.passphrase,
    };
  }

  path(file: string): string {
    return path.join(this.folder, file);
  }

  read(file: string): string {
    return fs.readFileSync(this.path(file), "utf8");
  }

  // ------------------------------------------------------------ configuration

  /** A project-wide value (Pulumi.yaml). */
  setShared(key: string, value: unknown): void {
    this.editYaml("Pulumi.yaml", ["config", `homestead:${key}`, "value"], value);
  }

  /** A value of one stack's file; undefined takes it away. */
  set(site: Site | "dev", key: string, value: unknown): void {
    this.editYaml(`Pulumi.${site}.yaml`, ["config", key.includes(":") ? key : `homestead:${key}`], value);
  }

  /** A value as it stands in a stack's file. */
  value(site: Site | "dev", key: string): unknown {
    const file = parse(this.read(`Pulumi.${site}.yaml`)) as { config: Record<string, unknown> };
    return file.config[`homestead:${key}`];
  }

  private editYaml(file: string, where: string[], value: unknown): void {
    const document = parseDocument(this.read(file));
    if (value === undefined) document.deleteIn(where);
    else document.setIn(where, document.createNode(value));
    fs.writeFileSync(this.path(file), document.toString({ lineWidth: 0 }));
  }

  /** Runs with some files changed, and puts them back however it ends. */
  async changed<T>(files: string[], change: () => void, work: () => Promise<T>): Promise<T> {
    const before = files.map((file) => [file, this.read(file)] as const);
    try {
      change();
      return await work();
    } finally {
      for (const [file, text] of before) fs.writeFileSync(this.path(file), text);
    }
  }

  /**
   * Changes one line of a source file.
   * @throws Error unless `pattern` matches exactly once, so that a test notices when the line it changes is gone
   */
  edit(file: string, pattern: RegExp, replacement: string): void {
    const text = this.read(file);
    const found = [...text.matchAll(new RegExp(pattern.source, `${pattern.flags.replace("g", "")}g`))].length;
    if (found !== 1) throw new Error(`${file}: ${pattern} matches ${found} times, not once`);
    const changed = text.replace(pattern, replacement);
    if (changed === text) throw new Error(`${file}: ${pattern} -> ${replacement} changes nothing`);
    fs.writeFileSync(this.path(file), changed);
  }

  /** The values that bind a stack to a test cluster. */
  bind(access: ClusterAccess, buckets: { vault: string; media: string }): void {
    const site = access.name;
    const { environment } = this;
    const bucket = (name: string) => ({
      endpoint: environment.s3.endpoint,
      region: environment.s3.region,
      bucket: name,
    });
    this.set(site, "cluster", { context: access.context, kubeconfig: access.kubeconfig });
    this.set(site, "storage", { kind: "local", databases: access.storageClass });
    this.set(site, "sizes", { database: "2Gi", queue: "1Gi" });
    this.set(site, "vault", bucket(buckets.vault));
    this.set(site, "media", bucket(buckets.media));
    this.set(site, "ingress", { address: access.address });
    this.set(site, "certificates", { kind: "selfSigned" });
    this.set(site, "dns", { kind: "command", command: `bash ${this.dnsCommand()}` });
    // The vault, the media bucket and the remote servers have private addresses here, which a real site's would not.
    const house = privateRanges([environment.hostAddress, new URL(environment.s3.endpoint).hostname]);
    this.set(site, "network", { privateEgress: house, mastodonPrivateEgress: house });
    // The tests know more images than the program does.
    const images = Object.fromEntries(Object.entries(environment.images).filter(([name]) => name in publishedImages));
    if (Object.keys(images).length > 0) this.set(site, "images", images);
    if (environment.charts !== undefined) {
      const charts = fs
        .readdirSync(environment.charts)
        .filter((name) => fs.existsSync(path.join(environment.charts ?? "", name, "Chart.yaml")));
      this.set(
        site,
        "charts",
        Object.fromEntries(charts.map((name) => [name, { path: path.join(environment.charts ?? "", name) }])),
      );
    }
  }

  /** The stacks' DNS command: notes each call, then does what the environment's own command does. */
  private dnsCommand(): string {
    const file = path.join(this.root, "dns.sh");
    fs.writeFileSync(
      file,
      `set -eu\necho "$DNS_NAME $DNS_TYPE $DNS_VALUE $DNS_TTL" >> '${this.dnsLog}'\n${this.environment.dns.command} "$DNS_NAME" "$DNS_VALUE" "$DNS_TYPE"\n`,
    );
    return file;
  }

  /** Calls of the DNS command since the last time it was asked for. */
  takeDnsCalls(): string[] {
    if (!fs.existsSync(this.dnsLog)) return [];
    const calls = fs
      .readFileSync(this.dnsLog, "utf8")
      .split("\n")
      .filter((line) => line !== "");
    fs.rmSync(this.dnsLog);
    return calls;
  }

  // ------------------------------------------------------------ commands

  /** The Pulumi CLI in the copy. Never throws for its exit code. */
  async pulumi(args: string[], options: PulumiOptions = {}): Promise<PulumiOutcome> {
    const log = path.join(
      this.logs,
      `${String(++this.runs).padStart(2, "0")}-pulumi-${args
        .slice(0, 2)
        .join("-")
        .replace(/[^a-z-]/gi, "")}.log`,
    );
    const outcome = await run(this.environment.pulumi, [...args, "--non-interactive", "--color", "never"], {
      cwd: this.folder,
      env: { ...this.env, ...options.env },
      seconds: options.seconds ?? 900,
      log,
      ...(options.input === undefined ? {} : { input: options.input }),
    });
    return { ...outcome, log };
  }

  /** As {@link pulumi}, but it must succeed. @throws Error with the end of the output and the log's path */
  async mustPulumi(args: string[], options: PulumiOptions = {}): Promise<PulumiOutcome> {
    return succeeded(await this.pulumi(args, options), args.slice(0, 2).join(" "));
  }

  async up(site: Site | "dev", options?: PulumiOptions): Promise<PulumiOutcome> {
    return this.pulumi(["up", "--stack", site, "--yes", "--skip-preview"], options);
  }

  preview(site: Site | "dev", args: string[] = [], options?: PulumiOptions): Promise<PulumiOutcome> {
    return this.pulumi(["preview", "--stack", site, "--diff", ...args], { seconds: 300, ...options });
  }

  destroy(site: Site | "dev", options?: PulumiOptions): Promise<PulumiOutcome> {
    return this.pulumi(["destroy", "--stack", site, "--yes", "--skip-preview"], options);
  }

  /** A secret of a stack, or one inside of an object by its path, from standard input so that it is on no command line. */
  async setSecret(site: Site | "dev", key: string, value: string): Promise<void> {
    await this.mustPulumi(["config", "set", "--secret", ...keyWords(key), "--stack", site], { input: value });
  }

  async secret(site: Site | "dev", key: string): Promise<string> {
    return (await this.mustPulumi(["config", "get", ...keyWords(key), "--stack", site])).stdout.trim();
  }

  /** The `homestead` command of the copy. */
  async homestead(args: string[], options: PulumiOptions = {}): Promise<PulumiOutcome> {
    const log = path.join(
      this.logs,
      `${String(++this.runs).padStart(2, "0")}-homestead-${args
        .slice(0, 2)
        .join("-")
        .replace(/[^a-z-]/gi, "")}.log`,
    );
    const outcome = await run("node", [this.path("cli/homestead.mjs"), ...args], {
      cwd: this.folder,
      env: { ...this.env, ...options.env },
      seconds: options.seconds ?? 300,
      log,
      ...(options.input === undefined ? {} : { input: options.input }),
    });
    return { ...outcome, log };
  }

  /** The state as it is written, secrets encrypted. */
  async exportState(site: Site | "dev"): Promise<string> {
    return (await this.mustPulumi(["stack", "export", "--stack", site])).stdout;
  }

  /** Digest over what the state says of resources, secrets apart: two equal ones mean that nothing was done. */
  stateDigest(): string {
    const hash = crypto.createHash("sha256");
    const stacks = path.join(this.state, ".pulumi", "stacks");
    for (const file of fs
      .readdirSync(stacks, { recursive: true, withFileTypes: true })
      .filter((f) => f.name.endsWith(".json"))) {
      hash
        .update(`${file.name}\n`)
        .update(checkpointResources(fs.readFileSync(path.join(file.parentPath, file.name), "utf8")));
    }
    return hash.digest("hex");
  }
}

/** A failed update rewrites its checkpoint: with a new time, and every secret encrypted anew. What it says must be the same. */
function checkpointResources(text: string): string {
  const state = JSON.parse(text) as { checkpoint?: { latest?: { resources?: unknown } } };
  return JSON.stringify(state.checkpoint?.latest?.resources ?? null).replace(
    /"ciphertext":"[^"]*"/g,
    '"ciphertext":""',
  );
}

/** What the CLI says went wrong: its diagnostics without the warnings about plugins, else the end of the output. */
export function diagnosis(output: string): string {
  const [, section] =
    /^(?:Diagnostics|error):?([\s\S]*?)(?:^(?:Outputs|Resources|Duration):|$(?![\s\S]))/m.exec(output) ?? [];
  const said = (section ?? "")
    .split("\n")
    .filter((line) => line.trim() !== "" && !/warning: using pulumi-resource/.test(line))
    .join("\n");
  return said === "" ? tail(output, 15) : said;
}

/** @throws Error with what went wrong unless the command succeeded */
export function succeeded(outcome: PulumiOutcome, what: string): PulumiOutcome {
  if (outcome.code !== 0)
    throw new Error(`${what} ended with ${outcome.code}; ${outcome.log}: ${diagnosis(outcome.output)}`);
  return outcome;
}

/** The private ones among some addresses, as ranges. */
function privateRanges(addresses: string[]): string[] {
  const ranges = addresses.flatMap((address) => {
    const [a = 0, b = 0, c = 0] = address.split(".").map(Number);
    const isPrivate = a === 10 || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168);
    return isPrivate ? [`${a}.${b}.${c}.0/24`] : [];
  });
  return [...new Set(ranges)];
}

/** A key as the CLI is told of it, inside of an object too. */
const keyWords = (key: string): string[] => [...(key.includes(".") ? ["--path"] : []), `homestead:${key}`];
