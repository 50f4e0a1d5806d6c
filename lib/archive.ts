/** What a database's archive in the vault holds, as barman-cloud lays it out: `pg/<archive>/{base,wals}`. */
import * as zlib from "node:zlib";
import { s3Request } from "./s3";
import type { Bucket, BucketKeys } from "./s3";
import type { Settings } from "../settings";

/** A base backup that was finished. */
export interface BaseBackup {
  /** As `20261122T230302`. */
  id: string;
  endedAt: Date;
  /** The segment that its restore begins with; undefined where it does not say. */
  beginsWith?: string;
  /** The major version of Postgres whose files it is of, such as `17`; undefined where it does not say. */
  major?: string;
}

/** A WAL segment in the archive. */
export interface Segment {
  name: string;
  archivedAt: Date;
}

export interface Listing {
  keys: { key: string; modified: Date }[];
  /** What stands for all keys below it. */
  folders: string[];
  /** Where to go on. */
  next: string | undefined;
}

/** Names of all archives in a vault. @throws Error when the store does not answer */
export async function archivesIn(vault: Bucket, keys: BucketKeys): Promise<string[]> {
  return (await list(vault, keys, "pg/")).folders.map((folder) => folder.slice("pg/".length, -1));
}

/** How often a site's database was begun, by the names of archives; 0 if none is the site's. Pure. */
export function newestGeneration(site: string, archives: readonly string[]): number {
  const numbers = archives.map((archive) => /^(\w+)-g(\d+)$/.exec(archive)).filter((found) => found?.[1] === site);
  return Math.max(0, ...numbers.map((found) => Number(found?.[2])));
}

const archiveFolder = (archive: string) => `pg/${archive}/`;

/** The newest base backup that was finished, or undefined. @throws Error when the store does not answer */
export const newestBaseBackup = (vault: Bucket, keys: BucketKeys, archive: string): Promise<BaseBackup | undefined> =>
  firstFinished(vault, keys, archive, "newest");

/** The oldest one: nothing before its end can be restored. @throws Error when the store does not answer */
export const oldestBaseBackup = (vault: Bucket, keys: BucketKeys, archive: string): Promise<BaseBackup | undefined> =>
  firstFinished(vault, keys, archive, "oldest");

async function firstFinished(vault: Bucket, keys: BucketKeys, archive: string, which: "newest" | "oldest") {
  const base = `${archiveFolder(archive)}base/`;
  const folders = (await list(vault, keys, base)).folders.sort();
  for (const folder of which === "newest" ? folders.reverse() : folders) {
    const response = await s3Request(vault, keys, "GET", { key: `${folder}backup.info` });
    const info = response.ok ? await response.text() : "";
    const endedAt = endOf(info);
    if (endedAt === undefined) continue;
    const beginsWith = valueIn(info, "begin_wal");
    const major = majorIn(info);
    return {
      id: folder.slice(base.length, -1),
      endedAt,
      ...(beginsWith === undefined ? {} : { beginsWith }),
      ...(major === undefined ? {} : { major }),
    };
  }
  return undefined;
}

/** The newest WAL segment, or undefined. @throws Error when the store does not answer */
export async function newestSegment(vault: Bucket, keys: BucketKeys, archive: string): Promise<Segment | undefined> {
  // A folder for each 256 segments of a timeline: its last one is enough, and an archive of a month has 170,000 keys. The
  // last timeline may not be the newest: a new major version of Postgres begins at 1 again, and what the old one's server
  // wrote as it stopped is in the new archive.
  const { folders } = await list(vault, keys, `${archiveFolder(archive)}wals/`);
  const last = new Map(folders.sort().map((folder) => [timelineOf(folder.split("/").at(-2) ?? ""), folder]));
  const listings = await Promise.all([...last.values()].map((folder) => list(vault, keys, folder)));
  return newestOf(listings.flatMap((listing) => listing.keys));
}

/** The newest segment among an archive's keys; labels of base backups and histories of timelines are none. */
export function newestOf(keys: Listing["keys"]): Segment | undefined {
  const segments = keys
    .map(({ key, modified }) => ({ name: key.slice(key.lastIndexOf("/") + 1), archivedAt: modified }))
    .filter(({ name }) => /^[0-9A-F]{24}(\.\w+)?$/.test(name));
  return segments.sort((a, b) => a.archivedAt.getTime() - b.archivedAt.getTime()).at(-1);
}

/** The timeline that a segment belongs to: the first 8 hex digits of its name. */
export const timelineOf = (segment: string): number => parseInt(segment.slice(0, 8), 16);

/**
 * How many WAL segments (16 MiB) are archived and not replayed. Pure.
 *
 * @param segment name of an archived segment: timeline, log, number; 8 hex digits each
 */
export function segmentsBehind(segment: string, { timeline, lsn }: Position): number {
  // Of a later timeline the one that it stands inside of is another one, which begins with the same.
  const next = timelineOf(segment) > timeline ? numberAt(lsn) : nextNumber(lsn);
  return Math.max(0, numberOf(segment) + 1 - next);
}

const segmentSize = 16n * 1024n * 1024n;
/** Of those that share the first part of their names. */
const segmentsPerLog = Number(2n ** 32n / segmentSize);

/** The place of a segment among all of a timeline, by its name. */
const numberOf = (segment: string): number =>
  parseInt(segment.slice(8, 16), 16) * segmentsPerLog + parseInt(segment.slice(16, 24), 16);

/** The place of the segment that a position is inside of, or at the very beginning of. */
const numberAt = (lsn: string): number => Number(bytesOf(lsn) / segmentSize);

/**
 * The place of the segment that a standby needs next on its own timeline. It restores them whole: where it stands inside of
 * one it has that, and at the very beginning of one it has come to the end of another. Where its timeline was left inside of
 * that one, as by the other site's promotion, it needs the later timeline's of the same place.
 */
const nextNumber = (lsn: string): number => Number((bytesOf(lsn) + segmentSize - 1n) / segmentSize);

/** The segment that a standby asks for next on its own timeline. Pure. */
export const nextSegment = ({ timeline, lsn }: Position): string => nameOf(timeline, nextNumber(lsn));

function nameOf(timeline: number, number: number): string {
  const parts = [timeline, Math.floor(number / segmentsPerLog), number % segmentsPerLog];
  return parts.map((part) => part.toString(16).toUpperCase().padStart(8, "0")).join("");
}

/** A segment that a standby needs next, and that its source's archive has not got, though it has later ones. */
export interface Gap {
  segment: string;
  /** Whether a database that begins anew would begin after it. */
  bridged: boolean;
}

/**
 * Where a standby stops for ever: what it needs next was removed, when it had not followed for longer than the archive
 * is kept, or was never archived. Postgres only waits then, and a takeover would take that place for the end.
 *
 * @returns undefined where the archive has what comes next
 * @throws Error when the store does not answer
 */
export async function gapBehind(
  vault: Bucket,
  keys: BucketKeys,
  archive: string,
  position: Position,
): Promise<Gap | undefined> {
  const segment = nextSegment(position);
  const inside = nameOf(position.timeline, numberAt(position.lsn));
  const wals = `${archiveFolder(archive)}wals/`;
  // It may be on a later timeline than the one it is asked for on: the standby takes that one as well. There it may be the
  // place that it stands inside of.
  const prefixes = (await list(vault, keys, wals)).folders.flatMap((folder) => {
    const [timeline, log] = [folder.slice(wals.length, wals.length + 8), folder.slice(wals.length + 8, -1)];
    const places = timelineOf(timeline) > position.timeline ? [segment, inside] : [segment];
    return places.filter((name) => name.slice(8, 16) === log).map((name) => `${folder}${timeline}${name.slice(8)}`);
  });
  const found = await Promise.all(prefixes.map((prefix) => list(vault, keys, prefix)));
  if (newestOf(found.flatMap((listing) => listing.keys)) !== undefined) return undefined;
  const { beginsWith } = (await newestBaseBackup(vault, keys, archive)) ?? {};
  return { segment, bridged: beginsWith !== undefined && numberOf(beginsWith) > numberOf(segment) };
}

/** How far a database has replayed. */
export interface Position {
  timeline: number;
  /** As Postgres writes it: `0/3000060`. */
  lsn: string;
}

/** A position in the WAL as a number of bytes. */
export function bytesOf(lsn: string): bigint {
  const [high = "0", low = "0"] = lsn.split("/");
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
}

/**
 * Where a timeline was left for the next one, as a history file of Postgres says it: timeline, position and reason a
 * line, between tabs; undefined if the history does not come from that timeline. Pure.
 */
export function leftAt(history: string, timeline: number): string | undefined {
  const lines = history.split("\n").map((line) => /^\s*(\d+)\s+([0-9A-F]+\/[0-9A-F]+)/i.exec(line));
  return lines.find((line) => Number(line?.[1]) === timeline)?.[2];
}

/**
 * Whether a standby can never follow an archive again: it has replayed what the archive's own history left behind, as
 * after a restore to an earlier moment. Postgres itself only waits then, for WAL that nobody writes.
 *
 * @returns where the archive's history left the standby's, in words; undefined if it can follow
 * @throws Error when the store does not answer
 */
export async function partedAt(
  vault: Bucket,
  keys: BucketKeys,
  archive: string,
  { timeline, lsn }: Position,
): Promise<string | undefined> {
  const histories = (await list(vault, keys, `${archiveFolder(archive)}wals/`)).keys
    .flatMap(({ key }) => {
      const [, number] = /\/([0-9A-F]{8})\.history(\.gz)?$/.exec(key) ?? [];
      return number === undefined ? [] : [{ key, timeline: parseInt(number, 16) }];
    })
    .sort((a, b) => a.timeline - b.timeline);
  const newest = histories.at(-1);
  if (newest === undefined || newest.timeline <= timeline) return undefined;
  const response = await s3Request(vault, keys, "GET", { key: newest.key });
  if (!response.ok) throw new Error(`${newest.key} cannot be read: ${response.status}`);
  const content = Buffer.from(await response.arrayBuffer());
  const left = leftAt((newest.key.endsWith(".gz") ? zlib.gunzipSync(content) : content).toString(), timeline);
  if (left === undefined) return `timeline ${newest.timeline} does not come from timeline ${timeline}`;
  return bytesOf(lsn) > bytesOf(left)
    ? `timeline ${newest.timeline} left timeline ${timeline} at ${left}, and it has replayed ${lsn}`
    : undefined;
}

/** What {@link gapBehind} means for a site that begins anew after it. */
export const removed = (archive: string, { segment }: Gap): string =>
  `it needs the segment ${segment} next, which is not in ${archive} any more`;

/** What {@link partedAt} or {@link removed} means for a site, and how it gets going again. */
export const cannotFollow = (
  archive: string,
  why: string,
  { site, generation }: Pick<Settings, "site" | "generation">,
) =>
  `cannot follow ${archive} any more: ${why}; its database must be begun again: raise ${site} in homestead:generations of Pulumi.yaml to ${generation + 1}, then pulumi up --stack ${site}`;

/**
 * Timeline of what a standby replays. Its control file is behind by up to a checkpoint; the segments that it has
 * restored are not.
 */
export const timelineQuery = `greatest((SELECT timeline_id FROM pg_control_checkpoint()),
  (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
  (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))`;

const valueIn = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}=(.*)$`, "m").exec(info)?.[1]?.trim();

/** The server's version as barman writes it, `170006` for 17.6: two digits for each part after the major one since 10. */
function majorIn(info: string): string | undefined {
  const version = Number(valueIn(info, "version"));
  return version >= 100_000 ? String(Math.floor(version / 10_000)) : undefined;
}

/** When a base backup ended, from its `backup.info`; undefined unless it was finished. */
export function endOf(info: string): Date | undefined {
  const end = valueIn(info, "end_time");
  if (valueIn(info, "status") !== "DONE" || end === undefined || end === "None") return undefined;
  const date = new Date(end.replace(" ", "T"));
  return Number.isNaN(date.getTime()) ? undefined : date;
}

async function list(vault: Bucket, keys: BucketKeys, prefix: string): Promise<Listing> {
  const all: Listing = { keys: [], folders: [], next: undefined };
  do {
    const query = new URLSearchParams({ "list-type": "2", delimiter: "/", prefix });
    if (all.next !== undefined) query.set("continuation-token", all.next);
    const response = await s3Request(vault, keys, "GET", { query: query.toString() });
    if (!response.ok) throw new Error(`bucket '${vault.bucket}' cannot be listed: ${response.status}`);
    const page = listing(await response.text(), prefix);
    all.keys.push(...page.keys);
    all.folders.push(...page.folders);
    all.next = page.next;
  } while (all.next !== undefined);
  return all;
}

/** Reads one answer of ListObjectsV2. */
export function listing(xml: string, prefix: string): Listing {
  const text = (part: string, tag: string) => plain(new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(part)?.[1] ?? "");
  const parts = (tag: string) => [...xml.matchAll(new RegExp(`<${tag}>(.*?)</${tag}>`, "gs"))].map((m) => m[1] ?? "");
  return {
    keys: parts("Contents").map((part) => ({
      key: text(part, "Key"),
      modified: new Date(text(part, "LastModified")),
    })),
    folders: parts("CommonPrefixes")
      .map((part) => text(part, "Prefix"))
      .filter((folder) => folder !== prefix),
    next: text(xml, "NextContinuationToken") || undefined,
  };
}

const plain = (text: string): string =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#34;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&amp;", "&");
