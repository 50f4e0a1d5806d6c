/** Child processes that end with the suite, however the suite ends, and never wait for ever. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";

export interface Outcome {
  /** Exit code; 124 after a time-out, as timeout(1) has it. */
  code: number;
  /** Standard output and standard error, in the order they came. */
  output: string;
  /** Standard output alone. */
  stdout: string;
  seconds: number;
}

export interface RunOptions {
  cwd?: string;
  /** The whole environment of the child. @default the suite's own */
  env?: NodeJS.ProcessEnv;
  input?: string;
  /** @default 120 */
  seconds?: number;
  /** A file the command line and the output are appended to. */
  log?: string;
  /** Killed, with all its children, as soon as its output has this. */
  until?: RegExp;
  /** Told how to end it earlier, by a signal to it and all its children. Does nothing once it has ended. */
  begun?: (signal: (name: NodeJS.Signals) => void) => void;
}

/** Each with its place in the order of what was registered. */
const running = new Map<ChildProcess, number>();
const cleanups = new Map<number, () => unknown>();
let registered = 0;

/** Registers something to undo when the suite ends, also by a signal; returns the way to do it earlier. */
export function atExit(undo: () => unknown): () => Promise<void> {
  const id = ++registered;
  cleanups.set(id, undo);
  return async () => {
    if (cleanups.delete(id)) await undo();
  };
}

/** A mark for {@link cleanUp}: what is registered from now on. */
export const fromNow = (): number => registered;

/** Ends the processes that began, and undoes, last first, what was registered since a mark. Safe to call twice. */
export async function cleanUp(since = 0): Promise<void> {
  for (const [id, undo] of [...cleanups].reverse()) {
    if (id <= since) continue;
    cleanups.delete(id);
    try {
      await undo();
    } catch (error) {
      console.error(`clean-up: ${String(error)}`);
    }
  }
  // What began before the mark is another's: a scenario's end must not end what runs beside it.
  const ours = () => [...running].filter(([, id]) => id > since).map(([child]) => child);
  for (const child of ours()) endGroup(child, "SIGTERM");
  await sleep(ours().length > 0 ? 2000 : 0);
  for (const child of ours()) endGroup(child, "SIGKILL");
}

let leaving = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    if (leaving) return;
    leaving = true;
    console.log(`interrupted by ${signal}`);
    void cleanUp().finally(() => process.exit(130));
  });
}
process.on("exit", () => {
  for (const child of running.keys()) endGroup(child, "SIGKILL");
});

// Each child leads a process group of its own: the Pulumi CLI starts a language host and providers, and a
// killed CLI leaves them behind.
function endGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone already.
  }
}

/** Runs a program to its end or to the time limit. Never throws for an exit code. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const start = Date.now();
  const limit = options.seconds ?? 120;
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    detached: true,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  running.set(child, ++registered);
  options.begun?.((name) => {
    if (running.has(child)) endGroup(child, name);
  });
  let output = "";
  let stdout = "";
  const hear = (text: string) => {
    output += text;
    if (options.until?.test(output)) endGroup(child, "SIGKILL");
  };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    hear(text);
  });
  child.stderr?.setEncoding("utf8").on("data", hear);
  child.stdin?.on("error", () => undefined).end(options.input);
  let late = false;
  const timers = [
    setTimeout(() => ((late = true), endGroup(child, "SIGTERM")), limit * 1000),
    setTimeout(() => endGroup(child, "SIGKILL"), (limit + 10) * 1000),
  ];
  const code = await new Promise<number>((resolve) => {
    child.once("error", (error) => {
      output += `${command}: ${error.message}\n`;
      resolve(127);
    });
    // "exit" too: a grandchild that keeps the pipes open must not keep us.
    child.once("exit", (exit, signal) => setTimeout(() => resolve(exit ?? (signal ? 128 : 1)), 1000));
    child.once("close", (exit, signal) => resolve(exit ?? (signal ? 128 : 1)));
  });
  for (const timer of timers) clearTimeout(timer);
  running.delete(child);
  if (late) output += `\n${path.basename(command)}: ended after ${limit} s\n`;
  const outcome = { code: late ? 124 : code, output, stdout, seconds: (Date.now() - start) / 1000 };
  if (options.log !== undefined) {
    fs.mkdirSync(path.dirname(options.log), { recursive: true });
    fs.appendFileSync(
      options.log,
      `$ ${[path.basename(command), ...args].join(" ")}\n${output}\n[${outcome.code}, ${outcome.seconds.toFixed(1)} s]\n\n`,
    );
  }
  return outcome;
}

/** Runs a program that must succeed. @returns its standard output. @throws an Error with the end of its output */
export async function must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await run(command, args, options);
  if (outcome.code !== 0) {
    throw new Error(
      `${[path.basename(command), ...args].join(" ").slice(0, 200)} ended with ${outcome.code}: ${tail(outcome.output, 5)}`,
    );
  }
  return outcome.stdout;
}

/**
 * Starts a program that runs beside the scenario, and waits for the first line it prints, which says that it is ready.
 * Its output goes into the log.
 * @throws Error if it ends before that, or takes longer than `seconds` (30)
 */
export async function service(
  command: string,
  args: readonly string[],
  options: Pick<RunOptions, "cwd" | "env" | "seconds"> & { log: string },
): Promise<{ line: string; end: () => Promise<void> }> {
  fs.mkdirSync(path.dirname(options.log), { recursive: true });
  const log = fs.createWriteStream(options.log, { flags: "a" });
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.set(child, ++registered);
  const ended = new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("exit", () => resolve());
  }).then(() => void running.delete(child));
  child.stdout?.pipe(log);
  child.stderr?.pipe(log);
  const end = async () => {
    endGroup(child, "SIGTERM");
    await Promise.race([ended, sleep(5000).then(() => endGroup(child, "SIGKILL"))]);
  };
  const first = new Promise<string>((resolve) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("\n")) resolve(text.split("\n")[0] ?? "");
    });
  });
  try {
    const line = await within(options.seconds ?? 30, `${path.basename(command)} ${args[0] ?? ""}`, () =>
      Promise.race([
        first,
        ended.then(() =>
          Promise.reject(new Error(`ended at its start: ${tail(fs.readFileSync(options.log, "utf8"), 5)}`)),
        ),
      ]),
    );
    return { line, end };
  } catch (error) {
    await end();
    throw error;
  }
}

/** The last lines of a text that are not empty. */
export const tail = (text: string, lines: number): string =>
  text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .slice(-lines)
    .join("\n");

export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Tries until it works. @throws what the last try threw, after the given seconds: of one that the end found still
 * waiting, what the try before it threw
 */
export async function eventually<T>(
  seconds: number,
  what: string,
  attempt: () => Promise<T> | T,
  pause = 500,
): Promise<T> {
  const end = Date.now() + seconds * 1000;
  let reason: string | undefined;
  for (;;) {
    const attempted = (async () => attempt())();
    try {
      return await within(Math.max(1, (end - Date.now()) / 1000), what, () => attempted);
    } catch (error) {
      const answered = await Promise.race([
        attempted.then(
          () => true,
          () => true,
        ),
        sleep(0).then(() => false),
      ]);
      if (answered || reason === undefined) reason = error instanceof Error ? error.message : String(error);
      if (Date.now() >= end) throw new Error(`${what}, not within ${seconds} s: ${reason}`);
    }
    await sleep(pause);
  }
}

/** Waits until all of some works have ended, also where one fails: what still ran would meet what comes next. @throws a failure */
export async function allOf<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
}

/** Does something with each of some things, a few at a time, in their order. @throws a failure, once all that was begun has ended */
export async function fewAtATime<T>(
  count: number,
  things: readonly T[],
  work: (thing: T) => Promise<unknown>,
): Promise<void> {
  const left = things.values();
  const hand = async () => {
    for (const thing of left) await work(thing);
  };
  await allOf(Array.from({ length: count }, hand));
}

/** Waits for work, but no longer than the given seconds. The work itself is not ended. */
export async function within<T>(seconds: number, what: string, work: () => Promise<T> | T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${Math.round(seconds)} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([Promise.resolve(work()), limit]);
  } finally {
    clearTimeout(timer);
  }
}
