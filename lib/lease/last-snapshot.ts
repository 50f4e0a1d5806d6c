/** Whether what a site's Valkey held has reached the vault, once it has been stopped: the other site begins with it. */
import { span } from "../drill/verdicts";
import { find, snapshotKey } from "./snapshots";
import type { Store } from "./snapshots";

/** A site, and the epoch in which it was the active one. */
export interface Ended {
  site: string;
  epoch: number;
}

/** Seconds by which two moments may be apart that are one: a machine may have begun to stop the site, and another goes on. */
const imprecision = 30;

/** Seconds since the last snapshot was written; undefined if there is none. @throws Error when the store does not say */
export async function lastAge(store: Store, { site, epoch }: Ended): Promise<number | undefined> {
  const final = await find(store, site, epoch, "final");
  // An empty one says that the epoch began.
  return final === undefined || final.empty ? undefined : final.age;
}

/**
 * What is wrong with it; undefined if nothing is. One may be there of before: Valkey leaves it at each end, and goes on.
 * Pure.
 *
 * @param age of {@link lastAge}. @param stopping seconds since the site began to be stopped
 */
export function lastFault({ site, epoch }: Ended, age: number | undefined, stopping: number): string | undefined {
  if (age !== undefined && age <= stopping + imprecision) return undefined;
  const found = age === undefined ? "is not there, or empty" : `is ${span(age)} old, of before it was stopped`;
  return `${site}'s last snapshot of Valkey did not reach the vault: ${snapshotKey(site, epoch, "final")} ${found}`;
}
