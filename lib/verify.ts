/**
 * Verification: does this site answer as the world will ask it? The same code runs at the end of an update (here or in
 * a Job of the cluster) and as `homestead verify`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { checksOf } from "./verify/checks";
import type { CheckName, NamedCheck } from "./verify/checks";
import { Client } from "./verify/client";
import { Failure } from "./verify/failure";
import type { MediaTarget } from "./verify/media";

export { checkNames } from "./verify/checks";
export type { CheckName } from "./verify/checks";
export type { MediaTarget } from "./verify/media";

/** What is verified, and where it is asked. Plain JSON. */
export interface VerificationTarget {
  /** Domain of the handles; the blog's host. */
  apex: string;
  /** Host that Mastodon answers at. */
  webHost: string;
  /** User name of the owner, without @. */
  owner: string;
  /** IP address or host name of the ingress, asked directly; null asks where public DNS says. */
  address: string | null;
  /** More hosts that are served at `address`: the media host of an embedded object store. @default [] */
  ingressHosts?: string[];
  /** PEM of an authority, trusted beside the public ones (Mozilla's list, as Node.js brings it). @default none; "" is none */
  ca?: string;
  /** @default 80 */
  httpPort?: number;
  /** @default 443 */
  httpsPort?: number;
  /** The media bucket. Without one, and without `mediaFile`, the check of media is left out. */
  media?: MediaTarget;
  /** With media on a volume: URL of a text file that is there only if the volume is. */
  mediaFile?: string;
  /** DNS servers to ask where `address` is null, such as `1.1.1.1`. @default the system's */
  resolver?: string[];
  /** How long fresh routes and certificates may take, in seconds; the whole run ends at most 40 s later. @default 120 */
  retrySeconds?: number;
}

/** How one check ended. */
export interface CheckResult {
  check: CheckName;
  /** `consequence`: it failed with the same answer as `cause`, whose fault it is. */
  status: "ok" | "failed" | "consequence";
  cause?: CheckName;
  expected: string;
  got: string;
  /** When it was decided, in seconds from the start, to a tenth. */
  seconds: number;
}

/** How patient a run is, in seconds. */
export interface Pace {
  /** One question may take so long, connection and body included. @default 10 */
  answerSeconds: number;
  /** After so long a definite wrong answer is not going to change: routes load faster. @default 15 */
  settleSeconds: number;
  /** Between two attempts: at first, then twice as long each time up to the longest. @default 0.25 and 5 */
  pauseSeconds: { first: number; longest: number };
}
const usual: Pace = { answerSeconds: 10, settleSeconds: 15, pauseSeconds: { first: 0.25, longest: 5 } };

/** Runs every check until it is right or the time is up; results are in the order of {@link checkNames}. */
export async function verify(target: VerificationTarget, pace: Pace = usual): Promise<CheckResult[]> {
  const client = new Client(
    {
      hosts: [target.apex, target.webHost, ...(target.ingressHosts ?? [])],
      address: target.address,
      httpPort: target.httpPort ?? 80,
      httpsPort: target.httpsPort ?? 443,
      resolver: target.resolver ?? [],
      ca: target.ca,
    },
    pace.answerSeconds,
  );
  const checks = checksOf(target, client);
  const started = performance.now();
  const deadline = started + (target.retrySeconds ?? 120) * 1000;
  // At once, so that one that never gets right does not take the others' time.
  const results = await Promise.all(checks.map((check) => untilRight(check, started, deadline, pace)));
  return results.map((result, i) => withCause(result, checks[i]?.follows ?? [], results));
}

/** `verification failed: <check>: expected …, got …`, a line for each failure that is not another's consequence. */
export function failureLines(results: CheckResult[]): string[] {
  return results
    .filter((result) => result.status === "failed")
    .map(({ check, expected, got }) => `verification failed: ${check}: expected ${expected}, got ${got}`);
}

async function untilRight(check: NamedCheck, started: number, deadline: number, pace: Pace): Promise<CheckResult> {
  const result = (status: "ok" | "failed", expected: string, got: string): CheckResult => ({
    check: check.name,
    status,
    expected,
    got,
    seconds: Math.round((performance.now() - started) / 100) / 10,
  });
  const { first, longest } = pace.pauseSeconds;
  let answer = { text: "", since: started };
  for (let pause = first * 1000; ; pause = Math.min(pause * 2, longest * 1000)) {
    try {
      return result("ok", check.expected, await check.run());
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (error.message !== answer.text) answer = { text: error.message, since: performance.now() };
      const patience =
        error.nature === "definite" ? Math.min(deadline, answer.since + pace.settleSeconds * 1000) : deadline;
      if (performance.now() + pause > patience) return result("failed", error.expected, error.got);
    }
    await sleep(pause);
  }
}

function withCause(result: CheckResult, follows: readonly CheckName[], all: CheckResult[]): CheckResult {
  if (result.status === "ok") return result;
  const cause = follows.find((name) => all.some((r) => r.check === name && r.status !== "ok" && r.got === result.got));
  return cause === undefined ? result : { ...result, status: "consequence", cause };
}
