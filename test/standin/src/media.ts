/** Uploaded files: in the bucket, or under public/system, at the addresses Mastodon (Paperclip) would give them. */
import { randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AwsV4Signer } from "aws4fetch";
import { Agent, request } from "undici";
import { explain, log } from "./log.ts";
import { type MediaSettings, type S3Settings, objectUrl } from "./settings.ts";

/** What Mastodon accepts. It would also transcode and make previews; the stand-in keeps a file as it came. */
const TYPES: Readonly<
  Record<string, { readonly extension: string; readonly type: "image" | "gifv" | "video" | "audio" }>
> = {
  "image/jpeg": { extension: "jpg", type: "image" },
  "image/png": { extension: "png", type: "image" },
  "image/gif": { extension: "gif", type: "gifv" },
  "image/webp": { extension: "webp", type: "image" },
  "image/avif": { extension: "avif", type: "image" },
  "image/heic": { extension: "heic", type: "image" },
  "video/mp4": { extension: "mp4", type: "video" },
  "video/webm": { extension: "webm", type: "video" },
  "video/quicktime": { extension: "mov", type: "video" },
  "audio/mpeg": { extension: "mp3", type: "audio" },
  "audio/ogg": { extension: "ogg", type: "audio" },
  "audio/wav": { extension: "wav", type: "audio" },
  "audio/flac": { extension: "flac", type: "audio" },
};

export const MAX_UPLOAD_BYTES = 100 * 1024 * 1024;

export const mediaType = (contentType: string): "image" | "gifv" | "video" | "audio" | undefined =>
  TYPES[contentType]?.type;

/** `media_attachments/files/115/…/original/<random>.png`: Paperclip cuts the id into threes so that no folder gets large. */
export function fileKey(id: string, contentType: string, name = randomBytes(8).toString("hex")): string {
  const partition = id.padStart(9, "0").match(/\d{1,3}/g) ?? [];
  return `media_attachments/files/${partition.join("/")}/original/${name}.${TYPES[contentType]?.extension ?? "bin"}`;
}

export const publicUrl = (media: MediaSettings, key: string): string => media.publicBase + key;

export interface Upload {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly contentType: string;
}

export class StorageError extends Error {
  override readonly name = "StorageError";
}

// Not the dispatcher that guards federation: the bucket may well have a private address, and Mastodon's S3 client does not mind.
let agent: Agent | undefined;

async function put(media: S3Settings, key: string, upload: Upload): Promise<void> {
  agent ??= new Agent({
    connect: { timeout: media.openTimeoutMs },
    headersTimeout: 0,
    bodyTimeout: media.readTimeoutMs,
  });
  const headers: Record<string, string> = {
    "content-type": upload.contentType,
    "content-length": String(upload.bytes),
    "cache-control": "public, max-age=315576000, immutable",
    // The hash is signed with the rest: a byte that changes on its way is refused by the store.
    "x-amz-content-sha256": upload.sha256,
    ...(media.permission === "" ? {} : { "x-amz-acl": media.permission }),
  };
  const signed = await new AwsV4Signer({
    method: "PUT",
    url: objectUrl(media, key).href,
    headers,
    accessKeyId: media.accessKeyId,
    secretAccessKey: media.secretAccessKey,
    service: "s3",
    region: media.region,
  }).sign();
  const response = await request(signed.url, {
    method: "PUT",
    headers: { ...Object.fromEntries(signed.headers), "content-length": headers["content-length"] },
    body: createReadStream(upload.path),
    dispatcher: agent,
  });
  const answer = await response.body.text();
  if (response.statusCode !== 200)
    throw new StorageError(`S3 answered ${response.statusCode}: ${answer.slice(0, 300)}`);
}

export async function store(media: MediaSettings, key: string, upload: Upload): Promise<void> {
  if (media.kind === "disk") {
    const target = join(media.root, key);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(upload.path, target);
    return;
  }
  // Only here, as with Mastodon: jobs that never touch a file run without the bucket's keys.
  if (media.bucket === "" || media.accessKeyId === "" || media.secretAccessKey === "")
    throw new StorageError("S3_BUCKET, AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set");
  for (let attempt = 0; ; attempt++) {
    try {
      await put(media, key, upload);
      return;
    } catch (error) {
      if (attempt >= media.retries) throw error;
      log.warn(`media: ${explain(error)}; trying again`);
    }
  }
}
