/** The lease in its bucket: read, and written only over what was read. */
import { s3Request, StoreRefusal, writeTextOver } from "../s3";
import type { Bucket, BucketKeys } from "../s3";
import { formatLease, leaseKey, parseLease } from "./lease";
import type { Lease, StoredLease } from "./lease";

/** Somebody else wrote the lease in between. */
export class LeaseConflict extends Error {
  override name = "LeaseConflict";
  constructor() {
    super("the lease was changed by somebody else in between; look at it with: npx homestead status");
  }
}

/**
 * @param options.seconds how long it may take, @default 20
 * @returns undefined when there is none. @throws Error when the store does not say, or holds something else
 */
export async function readLease(
  vault: Bucket,
  keys: BucketKeys,
  options: { seconds?: number; retries?: number } = {},
): Promise<StoredLease | undefined> {
  const response = await s3Request(vault, keys, "GET", { ...options, key: leaseKey });
  const text = await response.text();
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`the lease cannot be read: bucket '${vault.bucket}' answers ${response.status}`);
  return { lease: parseLease(text), etag: response.headers.get("etag") ?? "", age: ageOf(response.headers) };
}

/** Both moments are the store's own, so that no clock of ours counts. An age that cannot be told is none. */
export function ageOf(headers: Headers): number {
  const [now, written] = ["date", "last-modified"].map((name) => Date.parse(headers.get(name) ?? ""));
  const seconds = ((now ?? NaN) - (written ?? NaN)) / 1000;
  return Number.isNaN(seconds) ? 0 : Math.max(0, seconds);
}

/**
 * Writes the lease if the store still holds what was read (`undefined`: nothing). Its `writer` tells one write from
 * another.
 *
 * @throws LeaseConflict when somebody else wrote it. @throws Error when the store refuses
 */
export async function writeLease(
  vault: Bucket,
  keys: BucketKeys,
  lease: Lease,
  expected: StoredLease | undefined,
): Promise<void> {
  let written: string | undefined;
  try {
    written = await writeTextOver(vault, keys, leaseKey, formatLease(lease), expected?.etag);
  } catch (error) {
    if (error instanceof StoreRefusal) throw new Error(`the lease cannot be written: ${error.message}`);
    throw error;
  }
  if (written === undefined) throw new LeaseConflict();
}
