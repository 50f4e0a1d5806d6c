/**
 * Verification as a program of its own, for an update: `main.ts [file]` takes a VerificationTarget as JSON from the
 * file or from standard input. Right: exit code 0. Wrong: 1, and one line a fault, since what it prints is the error
 * that the person at the update reads. Never prints what it was given: keys are in it.
 */
import * as fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { failureLines, verify } from "../verify";
import type { VerificationTarget } from "../verify";

/**
 * Seconds before the first question. The update has just changed routes and certificates; Traefik takes changes over
 * every two seconds (its `providersThrottleDuration`), and until then it would answer for what was there before.
 */
const takeOver = 5;

/** Kubernetes keeps the last 4096 bytes of a termination message; the first faults say more. */
const longestMessage = 4000;

async function main(): Promise<string[]> {
  const [file = "-"] = process.argv.slice(2);
  const text = fs.readFileSync(file === "-" ? 0 : file, "utf8");
  let target: VerificationTarget;
  try {
    target = JSON.parse(text) as VerificationTarget;
  } catch {
    return [`verification failed: target: expected JSON, got ${text.length} characters that are none`];
  }
  await sleep(takeOver * 1000);
  const results = await verify(target);
  const lines = failureLines(results);
  if (lines.length === 0) for (const { check, got } of results) console.log(`ok ${check}: ${got}`);
  return lines;
}

function fail(lines: string[]): void {
  const message = lines.join("\n");
  console.error(message);
  const log = process.env["TERMINATION_LOG"];
  if (log) fs.writeFileSync(log, Buffer.from(message).subarray(0, longestMessage));
  process.exitCode = 1;
}

main().then(
  (lines) => {
    if (lines.length > 0) fail(lines);
  },
  (error: unknown) => fail([`verification failed: ${error instanceof Error ? error.message : String(error)}`]),
);
