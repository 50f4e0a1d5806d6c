/** What `build.ts` bakes into an image, beside the bundle: which release it plays, and whether its last migration fails on purpose. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface BuildInfo {
  readonly version: string;
  /** `true`: one before deployment. */
  readonly failMigration: boolean | "post";
  /** Rails takes seconds to boot. What starts faster meets races that Rails never sees: a policy that is yet to take effect. */
  readonly bootSeconds: number;
}

const file = join(import.meta.dirname, "build.json");

export const BUILD: BuildInfo = existsSync(file)
  ? (JSON.parse(readFileSync(file, "utf8")) as BuildInfo)
  : { version: "4.6.2", failMigration: false, bootSeconds: 0 };

/** Mastodon's folder: /opt/mastodon in the image, where this file is /opt/mastodon/standin/main.mjs. */
export const ROOT = join(import.meta.dirname, "..");

const numbers = (version: string): number[] =>
  version
    .split(/[^0-9]+/)
    .filter((part) => part !== "")
    .map(Number);

/** Whether `version` is `wanted` or later, by their numbers. */
export function atLeast(version: string, wanted: string): boolean {
  const have = numbers(version);
  const want = numbers(wanted);
  for (let index = 0; index < Math.max(have.length, want.length); index++) {
    const difference = (have[index] ?? 0) - (want[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
