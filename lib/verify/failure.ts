import type { Answer } from "./client";
import { oneLine } from "./values";

/**
 * How far a wrong answer can be trusted. `definite`: a loaded route gave it, so only a newer route can overtake it.
 * `passing`: what a route, certificate or process that is still loading may give as well.
 */
export type Nature = "definite" | "passing";

/** A check came to a wrong answer. */
export class Failure extends Error {
  constructor(
    /** Completes "expected …"; one line. */
    readonly expected: string,
    /** Completes "got …"; one line, and no secret. */
    readonly got: string,
    readonly nature: Nature,
  ) {
    super(`expected ${expected}, got ${got}`);
  }
}

/** @throws Failure unless `holds`. */
export function insist(holds: boolean, expected: string, got: string, nature: Nature): asserts holds {
  if (!holds) throw new Failure(expected, got, nature);
}

/** An answer in a few words. The same for the same fault, whichever check sees it. */
export function describe(answer: Answer): string {
  const { location } = answer.headers;
  return location === undefined ? `HTTP ${answer.status}` : `HTTP ${answer.status} to ${oneLine(location)}`;
}

/** 404 and 5xx is what an ingress says while a route or the process behind it is not there yet. */
export const natureOf = (status: number): Nature =>
  status === 404 || status === 429 || status >= 500 ? "passing" : "definite";
