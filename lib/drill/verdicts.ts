/** What a drill's findings mean. Pure: no cluster, no clock. */
import * as z from "zod";

/** Rows by table. A table that a version of Mastodon has not got is not in it. */
export type RowCounts = Record<string, number>;

/** What a comparison found. */
export interface Findings {
  /** What makes the backup worthless, or a restore urgent. */
  failures: string[];
  /** What may be somebody's wish: a person alone can tell. */
  warnings: string[];
}

/** Tables that have rows on every server that lives: one without any is a fault, however few there were. */
export const neverEmpty: readonly string[] = [
  "accounts",
  "users",
  "user_roles",
  "statuses",
  "follows",
  "media_attachments",
];

/** Those of them that Mastodon fills itself before anybody signs in, and the owner's account: never empty, on a new server too. */
const filledAtOnce: readonly string[] = ["accounts", "users", "user_roles"];

/** What each migration adds a row to: more of them say that a version of Mastodon came between, which may drop tables. */
const migrations = "schema_migrations";

/**
 * Tables that are not compared, since Mastodon empties or trims them itself (its app/workers/scheduler and app/lib/vacuum,
 * db/schema.rb of 2025-12-17, in 4.6's making), and why. Every other one is, whatever the version calls it.
 */
export const notCompared: Readonly<Record<string, string>> = {
  account_deletion_requests: "gone with the account, 30 days after its suspension",
  backups: "a person's own archives, deleted after some days",
  bulk_import_rows: "an import's lines, gone as they are done",
  bulk_imports: "deleted after a week",
  fasp_backfill_requests: "gone when they are fulfilled",
  fasp_debug_callbacks: "what a service answered when it was tried",
  fasp_follow_recommendations: "asked for anew, the old ones deleted",
  follow_requests: "gone when they are answered",
  ip_blocks: "deleted when they expire",
  login_activities: "deleted after a year",
  notification_requests: "gone when they are accepted or dismissed",
  notifications: "cleared with a click, and gone with what they tell of",
  oauth_access_grants: "each is used once, and then deleted",
  pghero_space_stats: "sizes of tables, of the last months",
  preview_card_trends: "computed anew all the time",
  preview_cards: "of links, made anew; some versions delete those that no post has",
  scheduled_statuses: "gone when they are posted",
  session_activations: "of sign-ins: ten a person, none older than a year",
  software_updates: "what there is to upgrade to, and empty after an upgrade",
  status_trends: "computed anew all the time",
  tag_trends: "computed anew all the time",
  unavailable_domains: "gone when the server answers again",
  web_push_subscriptions: "gone when the browser does not take them any more",
};

/**
 * Tables that Mastodon trims by any number, and never to the last row on a server that somebody uses: applications that
 * nobody signed in with go after a day, tokens once they are revoked. Only that they are empty says something.
 */
const trimmed: readonly string[] = ["oauth_access_tokens", "oauth_applications"];

/** Both limits must be passed. */
interface Limits {
  rows: number;
  share: number;
}

/**
 * How many rows may be gone from a table since the base backup, at most a day: people delete, and Mastodon removes old
 * posts of others.
 */
const normalLoss: Limits = { rows: 10, share: 0.2 };

/**
 * How many rows the restored database may lack of those that were counted just before its last WAL was archived:
 * deletions of that moment.
 */
const normalLag: Limits = { rows: 5, share: 0.01 };

type Loss = "none" | "warning" | "failure";

/** What it means that a table had rows and has fewer now. One that is not there has none. */
function lossOf(table: string, before: number, now: number | undefined, limits: Limits): Loss {
  const left = now ?? 0;
  if (neverEmpty.includes(table) && (now === undefined || (left === 0 && before > 0))) return "failure";
  const lost = before - left;
  if (!trimmed.includes(table) && lost > limits.rows && lost > before * limits.share) return "failure";
  // The last row of what a person made: they may have taken it back, or a migration may have.
  return left === 0 && before > 0 ? "warning" : "none";
}

/** @param say a sentence for a table with fewer rows; `now` is undefined where there is no such table any more */
function compared(
  before: RowCounts,
  now: RowCounts,
  limits: Limits,
  say: (table: string, before: number, now: number | undefined) => string,
): Findings {
  const found: Findings = { failures: [], warnings: [] };
  const upgraded = (now[migrations] ?? 0) > (before[migrations] ?? Infinity);
  for (const table of inOrder(Object.keys(before))) {
    const [had, has] = [before[table], now[table]];
    if (had === undefined || Object.hasOwn(notCompared, table)) continue;
    const loss = lossOf(table, had, has, limits);
    const dropped = has === undefined && upgraded && !neverEmpty.includes(table);
    if (loss === "warning" || (loss === "failure" && dropped)) {
      found.warnings.push(`${say(table, had, has)}${dropped ? droppedWords : takenBackWords}`);
    } else if (loss === "failure") found.failures.push(say(table, had, has));
  }
  return found;
}

const droppedWords = "; Mastodon was upgraded in between, and may have dropped it";
const takenBackWords = "; if nobody took that back, it is lost";

/** Those that every server has first, then by name. */
export function inOrder(tables: readonly string[]): string[] {
  const others = tables.filter((table) => !neverEmpty.includes(table));
  return [...neverEmpty.filter((table) => tables.includes(table)), ...others.sort()];
}

/** What was lost since the backup, more than deletions explain. */
export const lostSinceBackup = (backup: RowCounts, live: RowCounts): Findings =>
  compared(backup, live, normalLoss, (table, before, now) =>
    now === undefined
      ? `table ${table} is gone from the live database; the backup has ${rows(before)}`
      : `table ${table} has ${rows(now)} in the live database and ${before} in the backup: ${before - now} lost since (restore before the backups that still have them expire)`,
  );

/** What the restored database lacks of what the live one had when its last WAL was archived. */
export const missingFromRestored = (live: RowCounts, restored: RowCounts): Findings =>
  compared(live, restored, normalLag, (table, expected, got) =>
    got === undefined
      ? `table ${table} is not in the restored database; the live one has ${rows(expected)}`
      : `table ${table} has ${rows(got)} in the restored database, and the live one had ${expected}`,
  );

/**
 * What can be said without the live database: the restored one, of the newest moment, beside the base backup that it began
 * with.
 */
export const missingWithoutLive = (backup: RowCounts, restored: RowCounts): Findings =>
  compared(backup, restored, normalLoss, (table, before, now) =>
    now === undefined
      ? `table ${table} is not in the restored database; the base backup has ${rows(before)}`
      : `table ${table} has ${rows(now)} in the restored database and ${before} in the base backup: ${before - now} lost in between`,
  );

/**
 * What no Mastodon is without, and neither of the two has: a comparison of them finds nothing, nor does one with a live
 * database that has lost it as well.
 */
export function unlikeMastodon(backup: RowCounts, restored: RowCounts): string[] {
  return neverEmpty.flatMap((table) => {
    const got = restored[table];
    if (got === undefined) {
      return backup[table] === undefined
        ? [`table ${table} is in neither restored database, and every Mastodon has it`]
        : [];
    }
    const empty = got === 0 && (backup[table] ?? 0) === 0 && filledAtOnce.includes(table);
    return empty ? [`table ${table} is empty in both restored databases, and no Mastodon is without its rows`] : [];
  });
}

const rows = (n: number) => `${n} row${n === 1 ? "" : "s"}`;

const reportShape = z.object({
  statuses: z.number(),
  accounts: z.number(),
  newestStatusAt: z.string().nullable(),
  decrypted: z.boolean(),
  encryptedValues: z.number(),
  mediaSample: z.array(z.string()),
});
/** What `components/drill.rb` says of a restored database. */
export type MastodonReport = z.output<typeof reportShape>;

/** Finds the report among what Rails printed before it. @throws Error when there is none */
export function parseReport(log: string): MastodonReport {
  for (const line of log.trimEnd().split("\n").reverse()) {
    try {
      const parsed = reportShape.safeParse(JSON.parse(line));
      if (parsed.success) return parsed.data;
    } catch {
      // A line of the log.
    }
  }
  throw new Error(`Mastodon gave no report; its last line: ${log.trimEnd().split("\n").at(-1) ?? ""}`);
}

/** A span of time as people say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return hours % 24 === 0 ? `${Math.floor(hours / 24)} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
