/**
 * The Pulumi CLI as a child process: the one on PATH, else the launcher of the npm package `pulumi`.
 * Secrets go in by standard input only: a command line can be read by every user of the machine.
 */
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { runToEnd } from "./child";
import { getPulumi, refusalMend } from "./refusal";
import { keysInFile } from "./stack-config";
import { UserError } from "./user-error";

/** What a configuration entry is, as `pulumi config --json` tells it. */
export interface ConfigEntry {
  secret: boolean;
  /** Not there for a secret that was not asked for in clear. */
  value?: string;
}

/** The first file called `name` on the PATH that may be run. */
export function onPath(name: string, environment: NodeJS.ProcessEnv = process.env): string | undefined {
  for (const folder of (environment.PATH ?? "").split(path.delimiter)) {
    const file = path.join(folder, name);
    try {
      fs.accessSync(file, fs.constants.X_OK);
      if (fs.statSync(file).isFile()) return file;
    } catch {
      // not in this folder
    }
  }
  return undefined;
}

/** How to start the CLI. @throws UserError if there is no way. */
export function findPulumi(environment: NodeJS.ProcessEnv = process.env): readonly [string, ...string[]] {
  const own = onPath("pulumi", environment);
  if (own !== undefined) return [own];
  const npx = onPath("npx", environment);
  if (npx !== undefined) return [npx, "--yes", "pulumi@3"];
  throw new UserError(`neither pulumi nor npx is on PATH: ${getPulumi} or Node.js`);
}

export class PulumiCli {
  private readonly launch: readonly [string, ...string[]];

  /**
   * @param folder The project's folder: where `Pulumi.yaml` and the stack files are.
   * @throws UserError if there is no CLI.
   */
  constructor(
    private readonly folder: string,
    private readonly environment: NodeJS.ProcessEnv = process.env,
  ) {
    this.launch = findPulumi(environment);
  }

  /** The stacks of this project in the backend that is logged in to. */
  async stacks(): Promise<string[]> {
    return [...(await this.resourceCounts()).keys()];
  }

  /** The same stacks, and of how many resources the state of each one tells, the stack itself among them. */
  async resourceCounts(): Promise<Map<string, number>> {
    const listed = JSON.parse(await this.read(["stack", "ls", "--json"], "<stack>")) as {
      name: string;
      resourceCount?: number;
    }[];
    // `org/project/stack` on Pulumi Cloud, the name alone elsewhere.
    return new Map(listed.map(({ name, resourceCount }) => [name.split("/").at(-1) ?? name, resourceCount ?? 0]));
  }

  /** The keys that the stack's file sets, `project:key`: also of a stack that the backend does not know. */
  keysInFile(stack: string): string[] {
    return keysInFile(this.folder, stack);
  }

  async createStack(stack: string): Promise<void> {
    await this.write(["stack", "init", stack, "--no-select"]);
  }

  /** A stack's configuration. In clear it needs the passphrase, or whatever else decrypts the stack. */
  async config(stack: string, secrets: "hidden" | "clear"): Promise<Record<string, ConfigEntry>> {
    const clear = secrets === "clear" ? ["--show-secrets"] : [];
    const shown = await this.read(["config", "--json", ...clear, "--stack", stack], stack);
    return JSON.parse(shown) as Record<string, ConfigEntry>;
  }

  async setSecret(stack: string, key: string, value: string): Promise<void> {
    await this.write(["config", "set", "--secret", key, "--stack", stack], value);
  }

  async removeConfig(stack: string, key: string): Promise<void> {
    await this.write(["config", "rm", key, "--stack", stack]);
  }

  /**
   * Runs the CLI with its output going where ours goes.
   *
   * @throws UserError if it fails; it has said why
   * @throws Interrupted if a signal came; the CLI has come to an end of its own
   */
  async show(args: readonly string[]): Promise<void> {
    const [command, ...first] = this.launch;
    const options = { cwd: this.folder, env: this.environment };
    const code = await runToEnd(command, [...first, ...args, "--non-interactive"], options);
    if (code !== 0) throw new UserError(`${called(args)} failed: see above`);
  }

  /** Runs the CLI and gives its standard output. @throws UserError with the CLI's own words. */
  run(args: readonly string[], input = ""): Promise<string> {
    return this.start(args, input, {});
  }

  /** As {@link run}, with the way out where the refusal is a known one. */
  private async read(args: readonly string[], stack: string): Promise<string> {
    try {
      return await this.run(args);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      const mend = refusalMend(error.message, stack);
      throw mend === undefined || error.message.includes(mend) ? error : new UserError(error.message, mend);
    }
  }

  /** In a group of its own, which a terminal's Ctrl-C does not reach: it takes a moment, and a file is whole after it. */
  private async write(args: readonly string[], input = ""): Promise<void> {
    await this.start(args, input, { detached: true });
  }

  /** Why npx has no CLI to start; undefined where there is one, whatever it says. */
  private notFetched(stderr: string): string | undefined {
    if (path.basename(this.launch[0]) !== "npx") return undefined;
    const lines = stderr.split("\n").map((line) => line.trim());
    if (lines.some((line) => line.startsWith("error:"))) return undefined;
    const said = lines.map((line) => notTheCli.exec(line)?.[2]).find((words) => words !== undefined);
    if (said === undefined) return undefined;
    return `no pulumi is on PATH, and npx could not get it (${said}): ${getPulumi}`;
  }

  private start(args: readonly string[], input: string, options: { detached?: true }): Promise<string> {
    const [command, ...first] = this.launch;
    return new Promise((resolve, reject) => {
      const child = spawn(command, [...first, ...args, "--non-interactive"], {
        cwd: this.folder,
        env: { ...this.environment, PULUMI_SKIP_UPDATE_CHECK: "true" },
        stdio: ["pipe", "pipe", "pipe"],
        ...options,
      });
      let out = "";
      let err = "";
      child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
      // The CLI may end without having read: its exit code says more than a broken pipe.
      child.stdin.on("error", () => undefined);
      child.stdin.end(input);
      child.on("error", reject);
      child.on("close", (code, signal) => {
        if (code === 0) resolve(out);
        // A Ctrl-C met it on the way into its own group: what it was to write is written all the same.
        else if (signal === "SIGINT" && options.detached) resolve(this.start(args, input, options));
        else
          reject(new UserError(`${called(args)}: ${this.notFetched(err) ?? (reasonIn(err) || `ended with ${code}`)}`));
      });
    });
  }
}

/** npm's own errors, and what the npm package `pulumi` says, which fetches the CLI: the CLI's begin with `error:`. */
const notTheCli = /^(npm (?:error|ERR!)|pulumi:) (.*)/;

/** The command for an error's text: `pulumi config --stack home`, without what it was to print. */
function called(args: readonly string[]): string {
  const options = args.findIndex((arg) => arg.startsWith("-"));
  const stack = args.indexOf("--stack");
  const words = options < 0 ? args : args.slice(0, options);
  return ["pulumi", ...words, ...(stack < 0 ? [] : args.slice(stack, stack + 2))].join(" ");
}

/** The CLI's `error: …` line, without the prefix; else the last thing it said. */
function reasonIn(stderr: string): string {
  const lines = stderr
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  const reason = lines.find((line) => line.startsWith("error:")) ?? lines.at(-1) ?? "";
  return reason.replace(/^error:\s*/, "");
}
