/** Runs the bundle of the stand-in the way a container runs it: a program's name, its arguments, and no environment but what is given. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { node24 } from "../node24.ts";

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export type Env = Readonly<Record<string, string>>;

export class Standin {
  readonly #root: string;
  readonly #env: Env;

  /** `root` plays /opt/mastodon; its folder `standin` holds the bundle. */
  constructor(root: string, env: Env) {
    this.#root = root;
    this.#env = env;
  }

  start(commandLine: string, env: Env = {}): ChildProcess {
    const main = join(this.#root, "standin", "main.mjs");
    return spawn(node24(), ["--use-system-ca", main, ...commandLine.split(" ")], {
      cwd: this.#root,
      env: { PATH: process.env.PATH ?? "", ...this.#env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  async run(commandLine: string, env: Env = {}): Promise<Finished> {
    const child = this.start(commandLine, env);
    let stdout = "";
    let stderr = "";
    child.stdout?.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const code = await new Promise<number | null>((done) => child.once("close", done));
    return { code, stdout, stderr };
  }

  /** A server, with its log kept. */
  async serve(commandLine: string, ready: RegExp, env: Env = {}): Promise<Server> {
    const child = this.start(commandLine, env);
    const server = new Server(child);
    await server.says(ready);
    return server;
  }
}

export class Server {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  log = "";

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = new Promise((done) => child.once("close", done));
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (chunk: Buffer) => (this.log += chunk.toString()));
  }

  async says(what: RegExp, timeoutMs = 20_000): Promise<void> {
    const end = Date.now() + timeoutMs;
    while (!what.test(this.log)) {
      if (Date.now() > end || this.#child.exitCode !== null)
        throw new Error(`the process did not say ${String(what)}:\n${this.log}`);
      await new Promise((later) => setTimeout(later, 50));
    }
  }

  /** The exit code after SIGTERM. */
  async stop(): Promise<number | null> {
    this.#child.kill("SIGTERM");
    return this.#ended;
  }

  /** As a node that loses power ends it. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }
}
