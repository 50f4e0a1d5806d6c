/** The lease in its bucket: read, and written only over what was read. */
import { s3Request } from "../s3";
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
 * Writes the lease if the store still holds what was read (`undefined`: nothing).
 *
 * Conditional where the store has such writes. Some do not, and refuse them (501) or take no notice: hence the look
 * before, and the one after, which tells by `writer` whose write it was.
 *
 * @throws LeaseConflict when somebody else wrote it. @throws Error when the store refuses
 */
export async function writeLease(
  vault: Bucket,
  keys: BucketKeys,
  lease: Lease,
  expected: StoredLease | undefined,
): Promise<void> {
  const before = await readLease(vault, keys);
  if (before?.etag !== expected?.etag) throw new LeaseConflict();
  const condition: Record<string, string> =
    expected === undefined ? { "if-none-match": "*" } : { "if-match": expected.etag };
  const put = (headers: Record<string, string>) =>
    s3Request(vault, keys, "PUT", {
      key: leaseKey,
      body: formatLease(lease),
      headers: { "content-type": "application/json", ...headers },
    });
  let response = await put(condition);
  if (response.status === 501) response = await put({});
  // A retry after a lost reply meets its own write.
  if (!response.ok && response.status !== 412 && response.status !== 409) {
    throw new Error(`the lease cannot be written: bucket '${vault.bucket}' answers ${response.status}`);
  }
  const after = await readLease(vault, keys);
  if (after?.lease.writer !== lease.writer) throw new LeaseConflict();
}
