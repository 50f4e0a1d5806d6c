/** The few S3 requests the project makes itself, signed by aws4fetch. */
import { AwsClient } from "aws4fetch";

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

/** What is wrong with a bucket, in a few words; nothing if it is there and the keys open it. */
export async function bucketFault(bucket: Bucket, keys: BucketKeys): Promise<string | undefined> {
  let status: number;
  try {
    status = (await s3Request(bucket, keys, "HEAD")).status;
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return `${bucket.endpoint} cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
  if (status < 300) return undefined;
  if (status === 404) return `there is no bucket '${bucket.bucket}' at ${bucket.endpoint}`;
  if (status === 403) return `the keys do not open bucket '${bucket.bucket}' at ${bucket.endpoint}`;
  return `bucket '${bucket.bucket}' at ${bucket.endpoint} answers ${status}`;
}

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
