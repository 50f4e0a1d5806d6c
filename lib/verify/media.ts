import * as crypto from "node:crypto";
import { AwsV4Signer } from "aws4fetch";
import type { Bucket, BucketKeys } from "../s3";
import type { Asker } from "./asker";
import type { Answer } from "./client";
import { describe, insist, natureOf } from "./failure";

/** The media bucket: put with the keys, read by anyone. */
export interface MediaTarget extends Bucket, BucketKeys {
  /** Where the world reads an upload: `<this>/<key>`. */
  publicUrl: string;
}

/** Puts a small object, reads it as the world does, and deletes it. @throws Failure */
export async function checkMedia(asker: Asker, media: MediaTarget): Promise<void> {
  const key = `verification/${crypto.randomBytes(12).toString("hex")}.txt`;
  const text = `homestead verification ${crypto.randomUUID()}\n`;
  const bucket = `bucket ${media.bucket} at ${media.endpoint}`;
  const url = `${media.endpoint.replace(/\/$/, "")}/${media.bucket}/${key}`;
  const store = async (expected: string, method: "PUT" | "DELETE", body: string) => {
    const answer = await asker.ask(expected, url, { method, body, headers: await signed(media, method, url, body) });
    insist(answer.status >= 200 && answer.status < 300, expected, withCode(answer), natureOf(answer.status));
  };
  const remove = () => store(`${bucket} to delete an object`, "DELETE", "");

  await store(`${bucket} to take an object`, "PUT", text);
  try {
    // The key is different every time, and the text must be the same for the same fault.
    const publicUrl = media.publicUrl.replace(/\/$/, "");
    const expected = `${publicUrl}/verification/*.txt to answer 200 with the object just put`;
    const answer = await asker.get(expected, `${publicUrl}/${key}`);
    insist(answer.status === 200, expected, withCode(answer), natureOf(answer.status));
    insist(answer.body === text, expected, "HTTP 200 with something else", "passing");
  } catch (error) {
    // Leave nothing behind; why the reading failed says more than why the deletion does.
    await remove().catch(() => undefined);
    throw error;
  }
  await remove();
}

/** Headers of a request signed with AWS Signature Version 4. */
async function signed(media: MediaTarget, method: string, url: string, body: string): Promise<Record<string, string>> {
  const { headers } = await new AwsV4Signer({
    method,
    url,
    service: "s3",
    region: media.region,
    accessKeyId: media.accessKeyId,
    secretAccessKey: media.secretAccessKey,
    // With the body's hash, since not every store takes UNSIGNED-PAYLOAD over plain HTTP.
    headers: { "x-amz-content-sha256": crypto.createHash("sha256").update(body).digest("hex") },
  }).sign();
  return {
    ...Object.fromEntries(headers),
    "content-type": "text/plain",
    "content-length": String(Buffer.byteLength(body)),
  };
}

/** S3's error code says more than the status; nothing else of an error's body is safe to show. */
function withCode(answer: Answer): string {
  const code = /<Code>([A-Za-z0-9]+)<\/Code>/.exec(answer.body)?.[1];
  return code === undefined ? describe(answer) : `${describe(answer)} (${code})`;
}
