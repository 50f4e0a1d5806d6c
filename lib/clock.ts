/** By how much another machine's clock differs from this one's, as its answers tell. */
import { s3Request } from "./s3";
import type { Bucket, BucketKeys } from "./s3";

/** What mends a clock that is wrong. */
export const clockMend = "timedatectl set-ntp true, on the machine whose clock is wrong";

/** Seconds by which a server's clock is ahead, from its `Date` header and when this machine asked and heard. */
export function aheadBy(date: string | null | undefined, asked: number, heard: number): number | undefined {
  const moment = Date.parse(date ?? "");
  // A Date header has whole seconds: on average half of one is cut off.
  return Number.isNaN(moment) ? undefined : (moment + 500 - (asked + heard) / 2) / 1000;
}

/** Seconds by which the clock of a bucket's server is ahead; undefined if it does not say. @throws Error when it does not answer */
export async function storeAhead(bucket: Bucket, keys: BucketKeys): Promise<number | undefined> {
  const asked = Date.now();
  const { headers } = await s3Request(bucket, keys, "HEAD", { seconds: 10, retries: 0 });
  return aheadBy(headers.get("date"), asked, Date.now());
}
