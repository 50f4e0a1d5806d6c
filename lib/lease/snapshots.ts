/** Valkey's snapshots in the vault: where they are, how they get there, and which one an epoch begins with. */
import * as fs from "node:fs";
import * as path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { s3Request } from "../s3";
import type { Bucket, BucketKeys } from "../s3";
import type { Lease } from "./lease";
import { ageOf } from "./store";

/** Seconds for a snapshot's way: a slow line, and at most as much as Valkey may hold. */
const transferSeconds = 600;

/**
 * Seconds after a planned takeover until which a last snapshot that is not there is waited for: a pod that ends now has
 * brought it by then, and a Valkey that was stopped by the lease has at least left its dump, due every 300.
 */
const finalSeconds = 420;

/**
 * `dump`: every few minutes, for whom everything else is lost. `final`: at a graceful end, so that a planned switch
 * brings queues and retries along; an empty one says that the epoch has begun. Each site in each epoch has its own.
 */
export const snapshotKey = (site: string, epoch: number, kind: "dump" | "final"): string =>
  `valkey/${site}/e${epoch}/${kind}.rdb`;

/**
 * Empty; written when Valkey's folder was made ready beside a database that went back to a moment. What a snapshot of
 * before it speaks of, that database may not know.
 */
export const restoredKey = (site: string, epoch: number, generation: number): string =>
  `valkey/${site}/e${epoch}/restored-g${generation}`;

/** A database that went back to a moment when it was made. */
export interface Restored {
  /** The moment (`restore.to`). */
  to: string;
  /** The one that the database was made in: another one is another database. */
  generation: number;
}

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

/** A snapshot in the vault. The moment of its writing is the store's, in milliseconds; its age is in seconds. */
interface Found {
  key: string;
  kind: "dump" | "final";
  empty: boolean;
  written: number;
  age: number;
}

/** An object's headers; undefined if there is none. @throws Error when the store does not say */
async function head({ vault, keys }: Store, key: string): Promise<Headers | undefined> {
  const { status, ok, headers } = await s3Request(vault, keys, "HEAD", { key });
  if (status === 404) return undefined;
  if (!ok) throw new Error(`${key}: the store answers ${status}`);
  return headers;
}

const writtenAt = (headers: Headers): number => Date.parse(headers.get("last-modified") ?? "");

/** @throws Error when the store does not say */
export async function find(store: Store, site: string, epoch: number, kind: Found["kind"]): Promise<Found | undefined> {
  const key = snapshotKey(site, epoch, kind);
  const headers = await head(store, key);
  if (headers === undefined) return undefined;
  const empty = headers.get("content-length") === "0";
  return { key, kind, empty, written: writtenAt(headers), age: ageOf(headers) };
}

/**
 * What a site left of an epoch: the newest counts. A dump after the last snapshot says that Valkey ran again since; one
 * from before the epoch's beginning is of an earlier run. Within the store's one second it is the last one.
 *
 * @returns `nothing`: the epoch began, and that is all there is of it. @throws Error when the store does not say
 */
async function newestOf(store: Store, site: string, epoch: number): Promise<Found | "nothing" | "no trace"> {
  const final = await find(store, site, epoch, "final");
  const dump = await find(store, site, epoch, "dump");
  if (final === undefined) return dump ?? "no trace";
  const [began, latest] = [final.written, dump?.written ?? 0];
  if (!final.empty && !(latest > began)) return final;
  return dump === undefined || latest < began ? "nothing" : dump;
}

export interface Beginning extends Store {
  site: string;
  otherSite: string;
  /** Folder of Valkey's data. */
  data: string;
  lease: Lease;
  /** Seconds since the lease was written. */
  age: number;
  /** Where the database goes back to a moment, or went back to one when it was made. */
  restored?: Restored;
}

/**
 * Makes Valkey's folder ready for an epoch, once. What it held before is of another epoch, and a database that was
 * recovered does not know the rows it speaks of.
 *
 * @returns what was done, and what is lost; undefined if the folder is this epoch's already
 * @throws Error when the store does not say whether there is a snapshot, or one has to be waited for: then nothing may
 * begin
 */
export async function beginEpoch(beginning: Beginning): Promise<string | undefined> {
  const { data, lease } = beginning;
  const mark = path.join(data, "epoch");
  if (holds(mark, lease.epoch)) {
    await noteAgain(beginning);
    return undefined;
  }
  const file = path.join(data, "dump.rdb");
  fs.rmSync(file, { force: true });
  const done = (await goOn(beginning, file)) ?? (await begin(beginning, file));
  await markRestored(beginning);
  if (beginning.restored !== undefined) fs.writeFileSync(besideFile(data), `${beginning.restored.generation}\n`);
  fs.writeFileSync(`${mark}.new`, `${lease.epoch}\n`);
  fs.renameSync(`${mark}.new`, mark);
  return done;
}

const holds = (file: string, number: number): boolean =>
  fs.existsSync(file) && fs.readFileSync(file, "utf8").trim() === String(number);

/** Names the database that went back to a moment, and beside which this folder was made ready. */
const besideFile = (data: string): string => path.join(data, "restored");

/**
 * A vault that was made anew does not know when Valkey began beside the restored database. The folder knows that it did;
 * one that does not say so may be older than the restore, and so would be all that it holds.
 */
async function noteAgain(beginning: Beginning): Promise<void> {
  const { data, restored } = beginning;
  if (restored === undefined || !holds(besideFile(data), restored.generation)) return;
  // Without the note a lost volume costs its jobs; that is no reason to keep the server down.
  await markRestored(beginning).catch(() => undefined);
}

/**
 * The epoch began long ago, and its volume was lost: what the other site left then is older than anything of this
 * site's own. Undefined if it did not.
 */
async function goOn(beginning: Beginning, file: string): Promise<string | undefined> {
  const { site, lease, age, restored } = beginning;
  const own = await newestOf(beginning, site, lease.epoch);
  // Older than the lease: of an earlier run, which counted as far as this.
  if (typeof own === "string" || own.age > age) return undefined;
  const goesOn = `epoch ${lease.epoch} goes on with`;
  // Of the same second: nobody can tell which was first.
  if (restored !== undefined && !(own.written > ((await restoredMark(beginning, restored)) ?? Infinity))) {
    return `${goesOn} nothing in Valkey: the database goes back to ${restored.to}, and does not know what was queued since`;
  }
  if (!(await download(beginning, own.key, file))) return undefined;
  return `${goesOn} ${own.key}, ${Math.round(own.age)} s old: this is all that is left of Valkey's volume`;
}

/** When Valkey first began beside a database that went back to a moment, by the store's clock; undefined: not yet. */
async function restoredMark(beginning: Beginning, { generation }: Restored): Promise<number | undefined> {
  const headers = await head(beginning, restoredKey(beginning.site, beginning.lease.epoch, generation));
  return headers && writtenAt(headers);
}

/** Before Valkey runs: its snapshots of after this know nothing that the database does not. */
async function markRestored(beginning: Beginning): Promise<void> {
  const { site, lease, restored } = beginning;
  if (restored === undefined || (await restoredMark(beginning, restored)) !== undefined) return;
  await upload(beginning, restoredKey(site, lease.epoch, restored.generation), undefined);
}

/** A planned switch brings the other site's last snapshot along; every other takeover begins with nothing. */
async function begin(beginning: Beginning, file: string): Promise<string> {
  const { site, lease } = beginning;
  const brought = lease.takeover === "planned" ? await bring(beginning, file) : "nothing in Valkey";
  // An earlier run's must not be taken for this one's last.
  await upload(beginning, snapshotKey(site, lease.epoch, "final"), undefined);
  return `epoch ${lease.epoch} begins with ${brought}`;
}

/** @returns what was brought, and what is lost. @throws Error while the last snapshot is waited for */
async function bring(beginning: Beginning, file: string): Promise<string> {
  const { otherSite, lease, age } = beginning;
  const former = lease.epoch - 1;
  const newest = await newestOf(beginning, otherSite, former);
  if (newest === "no trace") {
    return `nothing in Valkey: the vault has no trace of ${otherSite}'s epoch ${former}. LOST, if its Valkey ran: all jobs that it had queued`;
  }
  const last = newest !== "nothing" && newest.kind === "final";
  if (!last && age < finalSeconds) {
    throw new Error(
      `${otherSite}'s last snapshot (${snapshotKey(otherSite, former, "final")}) is not in the vault, and is waited for until ${finalSeconds} s after the takeover`,
    );
  }
  if (newest === "nothing" || !(await download(beginning, newest.key, file))) {
    return `nothing in Valkey. LOST: all jobs that ${otherSite} had queued; no snapshot of its epoch ${former} reached the vault`;
  }
  if (last) return newest.key;
  const before = Math.max(0, Math.round(newest.age - age));
  return `${newest.key}. LOST: jobs that ${otherSite} queued in its last minutes; its last snapshot did not reach the vault, and this one is of ${before} s before the takeover (jobs done since then are done again)`;
}
