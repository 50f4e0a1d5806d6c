/** What a site's state means, line by line. Pure: no cluster, no clock. */
import { bytesOf } from "../archive";
import { span } from "../drill/verdicts";

export type Verdict = "ok" | "warning" | "fault";

export interface StatusLine {
  /** What it is about: `lease`, `stack`, `cluster`, `pods`, `database`, `backup`, `queues`, `certificates`, `dns`, `media`. */
  area: string;
  what: string;
  verdict: Verdict;
  says: string;
}

export interface SiteStatus {
  site: string;
  role: "active" | "standby";
  /** When it was asked, as ISO 8601. */
  at: string;
  verdict: Verdict;
  lines: StatusLine[];
  /** What would be lost if the cluster went now. */
  loss?: Loss;
  /** How far a standby's database has come: a line of the server's, not of the site's own. */
  follows?: StatusLine;
}

/** What is not in the vault: everything that was written in the last so many seconds. */
export interface Loss {
  seconds: number;
  /** The database knows; the vault alone has an upper bound, since it cannot tell that nothing was written. */
  knownBy: "database" | "vault";
  /**
   * Where media is on a volume: uploads of the last so many seconds are not in its copy. `all`: the vault shows no copy.
   * `unknown`: it does not answer.
   */
  uploads?: number | "all" | "unknown";
}

/** The server as a whole: what both sites have in common. */
export interface ServerStatus extends Pick<SiteStatus, "at" | "verdict" | "lines"> {
  /** Who federates, as the lease says; undefined when it does not say. */
  activeSite?: string;
  epoch?: number;
}

/** What `homestead status --json` prints. */
export interface Status {
  server: ServerStatus;
  sites: SiteStatus[];
}

export const line = (area: string, what: string, verdict: Verdict, says: string): StatusLine => ({
  area,
  what,
  verdict,
  says,
});

/** The worst of some verdicts. */
export function worst(verdicts: readonly Verdict[]): Verdict {
  return verdicts.includes("fault") ? "fault" : verdicts.includes("warning") ? "warning" : "ok";
}

/** `ok` up to `warning`, then a warning, and from `fault` on a fault. */
export const byLimit = (value: number, limits: { warning: number; fault: number }): Verdict =>
  value >= limits.fault ? "fault" : value >= limits.warning ? "warning" : "ok";

const hour = 3600;
const day = 24 * hour;

// ---------------------------------------------------------------- pods

/** What pods run, and how they fare. */
export interface Pods {
  /** Image references of their containers. */
  images: string[];
  restarts: number;
  /** Seconds since a container ended last; undefined if none did. */
  lastEndSeconds?: number;
  /** Why a pod waits, such as `ImagePullBackOff`. */
  waiting?: string;
}

export interface Workload extends Pods {
  name: string;
  wanted: number;
  ready: number;
}

/** A line for one workload. `configured` is the image that the stack names for it. */
export function workloadLine(load: Workload, configured?: string): StatusLine {
  const { name, wanted, ready } = load;
  return podsLine("pods", name, ready < wanted ? "fault" : "ok", `${ready}/${wanted} ready`, load, configured);
}

/** State of the CloudNativePG Cluster. */
export interface DatabaseState {
  phase: string;
  ready: boolean;
  /** Messages of conditions that say that something does not work, by condition. */
  troubles: Record<string, string>;
  pods: Pods;
}

/** Lines for the database. `configured` is the image that the stack names for it. */
export function databaseLines(name: string, { phase, ready, troubles, pods }: DatabaseState, configured: string) {
  return [
    podsLine("database", name, ready ? "ok" : "fault", phase, pods, configured),
    ...Object.entries(troubles).map(([condition, message]) => line("database", condition, "fault", message)),
  ];
}

function podsLine(
  area: string,
  what: string,
  verdict: Verdict,
  state: string,
  { images, waiting, restarts, lastEndSeconds }: Pods,
  configured: string | undefined,
): StatusLine {
  const parts = [state, [...new Set(images.map(tagOf))].join(", ")];
  if (waiting !== undefined) parts.push(waiting);
  if (restarts > 0 && lastEndSeconds !== undefined) {
    parts.push(`${restarts} restart${restarts === 1 ? "" : "s"}, the last ${span(lastEndSeconds)} ago`);
    if (lastEndSeconds < hour) verdict = worst([verdict, "warning"]);
  }
  if (configured !== undefined && images.length > 0 && !images.includes(configured)) {
    parts.push(`the stack says ${tagOf(configured)}: pulumi up`);
    verdict = worst([verdict, "warning"]);
  }
  return line(area, what, verdict, parts.filter((part) => part !== "").join("; "));
}

/** The tag of an image reference; the digest is of no use to a reader. */
export function tagOf(image: string): string {
  const name = image.split("@")[0] ?? "";
  return /:([^/:]+)$/.exec(name)?.[1] ?? "latest";
}

// ---------------------------------------------------------------- backup

/** A base backup is made every night; WAL must be replayed from it on. */
export function baseBackupLine(archive: string, ageSeconds: number | undefined): StatusLine {
  if (ageSeconds === undefined)
    return line("backup", "base backup", "fault", `${archive} has none: nothing can be restored from it`);
  const verdict = byLimit(ageSeconds, { warning: 26 * hour, fault: 50 * hour });
  return line("backup", "base backup", verdict, `${span(ageSeconds)} old, in ${archive}`);
}

/** What the database says of its archiving (pg_stat_archiver). Moments are seconds since 1970. */
export interface Archiver {
  now: number;
  lastArchived: number | null;
  lastArchivedWal: string | null;
  lastFailed: number | null;
  /** Segments that wait to be archived. */
  waiting: number;
  /** Where the next record goes, such as `0/19000028`. */
  insertLsn: string;
}

/** Bytes written after the end of the last archived segment (of 16 MiB). */
export function unarchivedBytes(insertLsn: string, lastArchivedWal: string | null): bigint {
  const inserted = bytesOf(insertLsn);
  const match = /^[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})/.exec(lastArchivedWal ?? "");
  if (!match) return inserted;
  const end = (BigInt(`0x${match[1]}`) << 32n) + (BigInt(`0x${match[2]}`) + 1n) * 0x1000000n;
  return inserted > end ? inserted - end : 0n;
}

/** A segment's own header, and what Postgres writes while nothing happens: a few records of a hundred bytes. */
const idleBytes = 4096n;

/** The line on WAL, and how many seconds of writing would be lost now. */
export function archiverLine(archiver: Archiver, archiveInterval: number): { line: StatusLine; lossSeconds: number } {
  const { now, lastArchived, lastFailed, waiting } = archiver;
  const unarchived = unarchivedBytes(archiver.insertLsn, archiver.lastArchivedWal);
  const age = lastArchived === null ? undefined : Math.max(0, now - lastArchived);
  const idle = waiting === 0 && unarchived <= idleBytes;
  const lossSeconds = idle ? 0 : Math.round(age ?? now);
  const wal = (verdict: Verdict, says: string) => ({ line: line("backup", "WAL", verdict, says), lossSeconds });
  if (age === undefined) return wal("fault", "nothing was ever archived");
  const last = `last segment archived ${span(age)} ago`;
  if (lastFailed !== null && lastFailed > (lastArchived ?? 0))
    return wal("fault", `${last}; archiving fails, ${waiting} wait, last tried ${span(now - lastFailed)} ago`);
  if (idle) return wal("ok", `${last}; nothing written since`);
  const verdict = byLimit(age, { warning: 3 * archiveInterval + 60, fault: 20 * archiveInterval + 600 });
  return wal(verdict, waiting > 0 ? `${last}; ${waiting} wait` : last);
}

/** How old the newest segment may be, where nobody says whether anything was written since. */
const vaultLimits = { warning: 10 * 60, fault: day };

/** What the vault alone says of WAL, where the database does not answer. */
export function segmentLine(archive: string, ageSeconds: number | undefined): StatusLine {
  if (ageSeconds === undefined) return line("backup", "WAL", "fault", `${archive} has no segment`);
  return line(
    "backup",
    "WAL",
    byLimit(ageSeconds, vaultLimits),
    `newest segment in ${archive} is ${span(ageSeconds)} old`,
  );
}

/** @param site the one that goes, which is the active one */
export function lossLine(site: string, { seconds, knownBy, uploads }: Loss, archiveInterval: number): StatusLine {
  const [written, limits] =
    knownBy === "vault"
      ? [`at most what was written in the last ${span(seconds)} (the vault alone was asked)`, vaultLimits]
      : [
          seconds === 0 ? "nothing of the database" : `what was written in the last ${span(seconds)}`,
          { warning: 3 * archiveInterval + 60, fault: 20 * archiveInterval + 600 },
        ];
  const files = uploads === undefined ? [] : [uploadsLost(uploads)];
  return line(
    "backup",
    `lost if ${site} went now`,
    worst([byLimit(seconds, limits), ...files.map(({ verdict }) => verdict)]),
    [written, ...files.map(({ says }) => says), "queued jobs in any case"].join("; "),
  );
}

function uploadsLost(uploads: NonNullable<Loss["uploads"]>): Pick<StatusLine, "verdict" | "says"> {
  if (uploads === "all") return { verdict: "fault", says: "all uploads, of which the vault shows no copy" };
  if (uploads === "unknown")
    return { verdict: "warning", says: "uploads since a copy whose age the vault does not tell" };
  return { verdict: byLimit(uploads, copyLimits), says: `uploads of the last ${span(uploads)}` };
}

// ---------------------------------------------------------------- media on a volume

/** How old the media volume's copy may be, in seconds: it is made every 15 minutes. */
export const copyLimits = { warning: hour, fault: day };

/** The media volume's copy in the vault. */
export function mediaCopyLine(ageSeconds: number | undefined): StatusLine {
  if (ageSeconds === undefined) return line("media", "copy in the vault", "fault", "there is none yet");
  return line("media", "copy in the vault", byLimit(ageSeconds, copyLimits), `${span(ageSeconds)} old`);
}

/** How the runs of the CronJob that copies the media volume ended. Moments are seconds since 1970. */
export interface CopyRuns {
  lastGood?: number;
  lastFailed?: { at: number; job: string; why: string };
}

/** @param runs undefined where there is no CronJob. @param look what shows the log of a Job, but for its name */
export function copyRunsLine(runs: CopyRuns | undefined, now: number, look: string): StatusLine {
  const copying = (verdict: Verdict, says: string) => line("media", "copying", verdict, says);
  if (runs === undefined) return copying("fault", "its CronJob is not there: pulumi up");
  const { lastGood, lastFailed } = runs;
  const good = lastGood === undefined ? undefined : Math.max(0, now - lastGood);
  if (lastFailed === undefined || lastFailed.at <= (lastGood ?? -Infinity)) {
    if (good === undefined) return copying("ok", "no run has ended yet");
    return copying(byLimit(good, copyLimits), `the last run ended well ${span(good)} ago`);
  }
  const { at, job, why } = lastFailed;
  const before = good === undefined ? "and none went well before it" : `and the last that went well ${span(good)} ago`;
  return copying(
    good === undefined || good >= copyLimits.fault ? "fault" : "warning",
    `the last run failed ${span(now - at)} ago (${why}), ${before}; why: ${look}${job}`,
  );
}

// ---------------------------------------------------------------- queues

export interface Queues {
  queues: { name: string; length: number; latencySeconds: number }[];
  sets: Record<string, number>;
  info: Record<string, string>;
}

/**
 * Reads what the script in the Valkey pod prints: `queue NAME LENGTH JOB`, `set NAME LENGTH`, and lines of INFO.
 * @param now seconds since 1970
 */
export function parseQueues(text: string, now: number): Queues {
  const result: Queues = { queues: [], sets: {}, info: {} };
  for (const raw of text.split("\n")) {
    const row = raw.trim();
    const queue = /^queue (\S+) (\d+) ?(.*)$/.exec(row);
    const set = /^set (\S+) (\d+)$/.exec(row);
    const info = /^(\w+):(.*)$/.exec(row);
    if (queue?.[1] !== undefined)
      result.queues.push({
        name: queue[1],
        length: Number(queue[2]),
        latencySeconds: Math.max(0, now - (enqueuedAt(queue[3] ?? "") ?? now)),
      });
    else if (set?.[1] !== undefined) result.sets[set[1]] = Number(set[2]);
    else if (info?.[1] !== undefined) result.info[info[1]] = info[2] ?? "";
  }
  return result;
}

/** When a job was queued, in seconds since 1970: Sidekiq writes seconds up to its version 7, milliseconds from 8 on. */
function enqueuedAt(job: string): number | undefined {
  try {
    const { enqueued_at: at } = JSON.parse(job) as { enqueued_at?: number };
    return at === undefined ? undefined : at > 1e11 ? at / 1000 : at;
  } catch {
    return undefined;
  }
}

export function queueLines({ queues, sets, info }: Queues, now: number): StatusLine[] {
  const slowest = Math.max(0, ...queues.map(({ latencySeconds }) => latencySeconds));
  const lengths = queues.map(({ name, length, latencySeconds }) =>
    length === 0 ? `${name} 0` : `${name} ${length} (${span(latencySeconds)})`,
  );
  const waiting = byLimit(slowest, { warning: 5 * 60, fault: hour });
  const saved = Number(info.rdb_last_save_time ?? now);
  const snapshot = info.rdb_last_bgsave_status === "ok" || info.rdb_last_bgsave_status === undefined;
  return [
    line("queues", "waiting", waiting, lengths.join(", ")),
    line(
      "queues",
      "set aside",
      "ok",
      ["retry", "schedule", "dead"].map((name) => `${name} ${sets[name] ?? 0}`).join(", "),
    ),
    line(
      "queues",
      "snapshot",
      snapshot ? "ok" : "fault",
      snapshot ? `saved ${span(now - saved)} ago` : `the last one failed; saved ${span(now - saved)} ago`,
    ),
  ];
}

// ---------------------------------------------------------------- edge

/** cert-manager renews with 30 days left (an ACME certificate of 90), and tries for weeks. */
export function certificateLine(host: string, daysLeft: number): StatusLine {
  const verdict = daysLeft < 7 ? "fault" : daysLeft < 21 ? "warning" : "ok";
  const days = Math.floor(daysLeft);
  return line("certificates", host, verdict, days < 0 ? `expired ${-days} days ago` : `${days} days left`);
}

export interface DnsAnswer {
  name: string;
  addresses: string[];
  /** Who said so: the zone's own server, or whatever resolver this machine has. */
  source: "authoritative" | "resolver";
  /** The server asked. */
  server: string;
}

/** @param own addresses at which the world reaches this site */
export function dnsLine(answer: DnsAnswer, own: readonly string[], role: "active" | "standby"): StatusLine {
  const { name, addresses, source, server } = answer;
  const asked = source === "authoritative" ? `says ${server}` : `says ${server}, not the zone's own server`;
  const shown = addresses.length === 0 ? "no address" : addresses.join(", ");
  const here = addresses.length > 0 && addresses.every((address) => own.includes(address));
  if (role === "active") {
    if (!here) return line("dns", name, "fault", `${shown}, ${asked}; expected ${own.join(", ")}`);
    return line("dns", name, source === "authoritative" ? "ok" : "warning", `${shown}, ${asked}`);
  }
  // Wherever the name leads, it must lead somewhere: to the active site.
  if (addresses.length === 0) return line("dns", name, "warning", `${shown}, ${asked}`);
  const wrong = addresses.some((address) => own.includes(address));
  return line("dns", name, wrong ? "fault" : "ok", `${shown}, ${asked}${wrong ? "; this site is the standby" : ""}`);
}
