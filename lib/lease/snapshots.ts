/** Valkey's snapshots in the vault: where they are, how they get there, and which one an epoch begins with. */
import * as fs from "node:fs";
import * as path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { s3Request } from "../s3";
import type { Bucket, BucketKeys } from "../s3";
import type { Lease } from "./lease";

/** Seconds for a snapshot's way: a slow line, and at most as much as Valkey may hold. */
const transferSeconds = 600;

/**
 * `dump`: every few minutes, for whom everything else is lost. `final`: at a graceful end, so that a planned switch
 * brings queues and retries along. Each site in each epoch has its own.
 */
export const snapshotKey = (site: string, epoch: number, kind: "dump" | "final"): string =>
  `valkey/${site}/e${epoch}/${kind}.rdb`;

export interface Store {
  vault: Bucket;
  keys: BucketKeys;
}

/** @throws Error when the store does not take it */
export async function upload({ vault, keys }: Store, key: string, file: string | undefined): Promise<void> {
  const body = file === undefined ? "" : await fs.openAsBlob(file);
  const response = await s3Request(vault, keys, "PUT", { key, body, seconds: transferSeconds });
  if (!response.ok) throw new Error(`${key}: the store answers ${response.status}`);
}

/** @returns whether there was one. @throws Error when the store does not say */
async function download({ vault, keys }: Store, key: string, file: string): Promise<boolean> {
  const response = await s3Request(vault, keys, "GET", { key, seconds: transferSeconds });
  if (response.status === 404) return false;
  if (!response.ok || response.body === null) throw new Error(`${key}: the store answers ${response.status}`);
  const part = `${file}.part`;
  await pipeline(Readable.fromWeb(response.body), fs.createWriteStream(part));
  if (fs.statSync(part).size === 0) {
    fs.rmSync(part);
    return false;
  }
  fs.renameSync(part, file);
  return true;
}

export interface Beginning extends Store {
  site: string;
  otherSite: string;
  /** Folder of Valkey's data. */
  data: string;
  lease: Lease;
}

/**
 * Makes Valkey's folder ready for an epoch, once. What it held before is of another epoch, and a database that was
 * recovered does not know the rows it speaks of; a planned switch brings the other site's last snapshot along.
 *
 * @returns what was done, or undefined if the folder is this epoch's already
 * @throws Error when the store does not say whether there is a snapshot: then nothing may begin
 */
export async function beginEpoch(beginning: Beginning): Promise<string | undefined> {
  const { site, otherSite, data, lease } = beginning;
  const { epoch, takeover } = lease;
  const mark = path.join(data, "epoch");
  if (fs.existsSync(mark) && fs.readFileSync(mark, "utf8").trim() === String(epoch)) return undefined;
  const file = path.join(data, "dump.rdb");
  fs.rmSync(file, { force: true });
  const key = snapshotKey(otherSite, epoch - 1, "final");
  const brought = takeover === "planned" && (await download(beginning, key, file));
  // An earlier run's must not be taken for this one's last.
  await upload(beginning, snapshotKey(site, epoch, "final"), undefined);
  fs.writeFileSync(`${mark}.new`, `${epoch}\n`);
  fs.renameSync(`${mark}.new`, mark);
  return brought ? `epoch ${epoch} begins with ${key}` : `epoch ${epoch} begins with nothing in Valkey`;
}
