/** The few S3 requests the project makes itself, signed by aws4fetch. */
import { AwsClient } from "aws4fetch";
import { messageOf } from "./attempt";

/** A bucket and where it is. */
export interface Bucket {
  endpoint: string;
  region: string;
  bucket: string;
}
export interface BucketKeys {
  accessKeyId: string;
  secretAccessKey: string;
}

/** Path-style address: it needs no wildcard certificate and works with every server. */
const address = (bucket: Bucket, key = "") =>
  `${bucket.endpoint.replace(/\/$/, "")}/${bucket.bucket}${key ? `/${key.split("/").map(encodeURIComponent).join("/")}` : ""}`;

/** One signed request. Never follows a redirect: a store that redirects means a wrong region or endpoint. */
export async function s3Request(
  bucket: Bucket,
  keys: BucketKeys,
  method: "GET" | "HEAD" | "PUT" | "DELETE",
  options: {
    key?: string;
    query?: string;
    body?: string | Blob;
    headers?: Record<string, string>;
    /** @default 20 */
    seconds?: number;
    /** Of an answer that says the server is busy. @default 2 */
    retries?: number;
  } = {},
): Promise<Response> {
  const client = new AwsClient({ ...keys, service: "s3", region: bucket.region, retries: options.retries ?? 2 });
  return client.fetch(`${address(bucket, options.key)}${options.query ? `?${options.query}` : ""}`, {
    method,
    redirect: "manual",
    signal: AbortSignal.timeout((options.seconds ?? 20) * 1000),
    ...(options.body !== undefined ? { body: options.body } : {}),
    ...(options.headers ? { headers: options.headers } : {}),
  });
}

/** The store answered, and not with what it was asked for. */
export class StoreRefusal extends Error {
  override name = "StoreRefusal";
  constructor({ bucket }: Bucket, status: number) {
    super(`bucket '${bucket}' answers ${status}`);
  }
}

/** A text and its version in the store. @returns undefined when there is none. @throws when the store does not say */
export async function readText(
  bucket: Bucket,
  keys: BucketKeys,
  key: string,
): Promise<{ text: string; etag: string } | undefined> {
  const response = await s3Request(bucket, keys, "GET", { key });
  const text = await response.text();
  if (response.status === 404) return undefined;
  if (!response.ok) throw new StoreRefusal(bucket, response.status);
  return { text, etag: response.headers.get("etag") ?? "" };
}

/**
 * Writes a JSON text if the store still holds the version that was read (`undefined`: nothing).
 *
 * Conditional where the store has such writes. Some do not, and refuse them (501) or take no notice: hence the look
 * before, and the one after, which tells by the text whose write it was. So no two writers' texts may be the same.
 *
 * @returns the new version; undefined when somebody else wrote in between. @throws when the store does not take it
 */
export async function writeTextOver(
  bucket: Bucket,
  keys: BucketKeys,
  key: string,
  text: string,
  expected: string | undefined,
): Promise<string | undefined> {
  const before = await readText(bucket, keys, key);
  if (before?.etag !== expected) return undefined;
  const put = (headers: Record<string, string>) =>
    s3Request(bucket, keys, "PUT", { key, body: text, headers: { "content-type": "application/json", ...headers } });
  let response = await put(expected === undefined ? { "if-none-match": "*" } : { "if-match": expected });
  if (response.status === 501) response = await put({});
  // A retry after a lost reply meets its own write.
  if (!response.ok && response.status !== 412 && response.status !== 409) {
    throw new StoreRefusal(bucket, response.status);
  }
  const after = await readText(bucket, keys, key);
  return after?.text === text ? after.etag : undefined;
}

/** Why a bucket does not do. */
export interface BucketTrouble {
  kind: "unreachable" | "missing" | "keys" | "other";
  says: string;
}

/** What is wrong with a bucket for these keys; undefined if nothing is. */
export async function bucketTrouble(bucket: Bucket, keys: BucketKeys): Promise<BucketTrouble | undefined> {
  const { bucket: name, endpoint } = bucket;
  let status: number;
  try {
    status = (await s3Request(bucket, keys, "HEAD")).status;
  } catch (error) {
    return { kind: "unreachable", says: `${endpoint} cannot be reached: ${messageOf(error)}` };
  }
  if (status < 300) return undefined;
  if (status === 404) return { kind: "missing", says: `there is no bucket '${name}' at ${endpoint}` };
  if (status === 403) return { kind: "keys", says: `the keys do not open bucket '${name}' at ${endpoint}` };
  return { kind: "other", says: `bucket '${name}' at ${endpoint} answers ${status}` };
}

/** {@link bucketTrouble}, in words alone. */
export const bucketFault = async (bucket: Bucket, keys: BucketKeys): Promise<string | undefined> =>
  (await bucketTrouble(bucket, keys))?.says;

/** Everybody may read what is in the bucket, nobody may list it. */
export const publicReadPolicy = (bucket: string): string =>
  JSON.stringify({
    Version: "2012-10-17",
    Statement: [{ Effect: "Allow", Principal: "*", Action: ["s3:GetObject"], Resource: [`arn:aws:s3:::${bucket}/*`] }],
  });

/** Whether anything is kept under a prefix. @throws Error when the store does not say. */
export async function hasObjects(bucket: Bucket, keys: BucketKeys, prefix: string): Promise<boolean> {
  const response = await s3Request(bucket, keys, "GET", {
    query: `list-type=2&max-keys=1&prefix=${encodeURIComponent(prefix)}`,
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`bucket '${bucket.bucket}' cannot be listed: ${response.status}`);
  return text.includes("<Key>");
}
