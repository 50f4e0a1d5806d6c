/**
 * Programs that must not be left alone half-way, such as an update by the Pulumi CLI: a signal that would end us is
 * passed on to them, and we end when they have ended.
 *
 * Each leads a process group of its own. A terminal's Ctrl-C goes to a whole group, and `timeout` signals a process and
 * its group: so they hear of it through us alone, once. A second signal tells Pulumi to stop at once, which leaves
 * resources that no state knows of; it is passed on only if somebody sends it later.
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { UserError } from "./user-error";

/** What ends a program from outside, with the exit code that says so. */
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Signal = keyof typeof exitCodes;
const signals = Object.keys(exitCodes) as Signal[];

/** Somebody ended us, and what was under way has come to its end. */
export class Interrupted extends UserError {
  override name = "Interrupted";
  constructor(
    readonly signal: Signal,
    message: string,
  ) {
    super(message);
  }
  get exitCode(): number {
    return exitCodes[this.signal];
  }
}

/** Closer together than a person presses Ctrl-C twice on purpose. */
const onceMs = 1000;

let atWork = 0;

/**
 * Runs a program with its output going where ours goes.
 *
 * @returns its exit code; null if a signal ended it
 * @throws Interrupted when a signal came and the program has ended
 */
export function runToEnd(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv },
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ["ignore", "inherit", "inherit"], detached: true });
    let first: Signal | undefined;
    let passedAt = -Infinity;
    const passOn = (signal: Signal) => {
      first ??= signal;
      if (Date.now() - passedAt < onceMs) return;
      passedAt = Date.now();
      // Programs in Go take SIGHUP, which a closed terminal sends, for an end without a word.
      tell(child, signal === "SIGHUP" ? "SIGTERM" : signal);
    };
    atWork++;
    for (const signal of signals) process.on(signal, passOn);
    let ended = false;
    // Of a program that cannot be started Node tells both.
    const end = () => {
      if (ended) return;
      ended = true;
      atWork--;
      for (const signal of signals) process.off(signal, passOn);
    };
    child.once("error", (error) => {
      end();
      reject(error);
    });
    child.once("close", (code) => {
      end();
      if (first === undefined) resolve(code);
      else reject(new Interrupted(first, `ended by ${first}`));
    });
  });
}

/** To the whole group: the CLI may be behind a launcher that passes nothing on. */
function tell({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has just ended.
  }
}

/**
 * Does some work that can be gone on with later. Whatever ends it from outside, the last line says how.
 *
 * @throws Interrupted with that line; where no program has to be waited for, it is printed, and that is the end
 */
export async function interruptible<T>(goOn: string, work: () => Promise<T>): Promise<T> {
  const leave = (signal: Signal) => {
    if (atWork > 0) return;
    process.stderr.write(`${goOn}\n`);
    process.exit(exitCodes[signal]);
  };
  return heeding(leave, work).catch((error: unknown) => {
    throw error instanceof Interrupted ? new Interrupted(error.signal, goOn) : error;
  });
}

/** Does some work while a handler gets the signals. */
async function heeding<T>(handler: (signal: Signal) => void, work: () => Promise<T>): Promise<T> {
  for (const signal of signals) process.on(signal, handler);
  try {
    return await work();
  } finally {
    for (const signal of signals) process.off(signal, handler);
  }
}

/**
 * Does some work of a few seconds that may not be left half-way, and that nobody can go on with: a signal is heeded when
 * it is over. The programs that it starts must lead groups of their own, or a terminal's Ctrl-C ends them all the same.
 *
 * @param wait Said on standard error, once, to whoever sent the signal.
 * @throws Interrupted with `over` when a signal came and the work is done; what went wrong, where something did
 */
export async function undisturbed<T>(wait: string, over: string, work: () => Promise<T>): Promise<T> {
  let first: Signal | undefined;
  const note = (signal: Signal) => {
    if (first === undefined) process.stderr.write(`${wait}\n`);
    first ??= signal;
  };
  const done = await heeding(note, work);
  if (first !== undefined) throw new Interrupted(first, over);
  return done;
}
