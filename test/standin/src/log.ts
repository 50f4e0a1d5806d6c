/**
 * One line per message on standard output, as Rails writes it in production, so that `kubectl logs` of the stand-in reads like that of the
 * real thing. Nothing here ever prints a variable's value: the environment is full of secrets.
 */

/** The names `RAILS_LOG_LEVEL` takes; `LOG_LEVEL` of the streaming server (pino) shares the ones that matter. */
export const LEVELS = ["debug", "info", "warn", "error", "fatal", "unknown"] as const;
export type Level = (typeof LEVELS)[number];

let threshold = 1;

export function setLevel(level: Level): void {
  threshold = LEVELS.indexOf(level);
}

function write(level: Level, message: string): void {
  if (LEVELS.indexOf(level) < threshold) return;
  const line = `${new Date().toISOString()} ${level.toUpperCase()} pid=${process.pid} ${message}\n`;
  // Errors go to stderr as well-behaved programs do; Kubernetes merges both streams.
  (LEVELS.indexOf(level) >= LEVELS.indexOf("error") ? process.stderr : process.stdout).write(line);
}

export const log = {
  debug: (message: string): void => write("debug", message),
  info: (message: string): void => write("info", message),
  warn: (message: string): void => write("warn", message),
  error: (message: string): void => write("error", message),
  fatal: (message: string): void => write("fatal", message),
};

/** An error's message with its causes: `fetch failed` alone never says why. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Connecting to several addresses at once fails with one AggregateError whose own message is empty.
  const own =
    error instanceof AggregateError && error.message === ""
      ? error.errors.map((inner: unknown) => explain(inner)).join("; ")
      : error.message;
  return error.cause === undefined ? own : `${own}: ${explain(error.cause)}`;
}

/** Ends the process the way the real image does: a clear text, exit code 1. */
export class Abort extends Error {
  override readonly name = "Abort";
}
