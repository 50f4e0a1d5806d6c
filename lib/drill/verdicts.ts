/** What a drill's findings mean. Pure: no cluster, no clock. */
import * as z from "zod";

/** Rows by table. A table that a version of Mastodon has not got is not in it. */
export type RowCounts = Record<string, number>;

/** Tables that have rows on every server that lives: one without any is a fault, however few there were. */
const neverEmpty: readonly string[] = ["accounts", "users", "user_roles", "statuses", "follows", "media_attachments"];

/**
 * Tables of what people made or chose, and may well take back to the last row: few rows of them may go without a word,
 * since one who deletes their only list would have every drill fail until the next base backup.
 */
const made: readonly string[] = [
  "favourites",
  "bookmarks",
  "polls",
  "poll_votes",
  "status_pins",
  "lists",
  "list_accounts",
  "tag_follows",
  "featured_tags",
  "account_notes",
  "blocks",
  "mutes",
  "account_domain_blocks",
  "domain_blocks",
  "email_domain_blocks",
  "custom_filters",
  "custom_filter_keywords",
  "custom_emojis",
];

/**
 * The tables that are compared (Mastodon's db/schema.rb). None of them is emptied by Mastodon itself, as sessions,
 * notifications, preview cards, follow requests and scheduled posts are. A function: the keeper's bundle, which takes `span`
 * from here, would carry a list, and another table would restart Valkey.
 */
export const comparedTables = (): string[] => [...neverEmpty, ...made];

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

/** Whether a table lacks more rows than may be; one that is not there lacks all. */
function lacksRows(table: string, before: number, now: number | undefined, limits: Limits): boolean {
  const lost = before - (now ?? 0);
  if (neverEmpty.includes(table) && (now === undefined || (now === 0 && before > 0))) return true;
  return lost > limits.rows && lost > before * limits.share;
}

/** Tables that lost more rows since the backup than deletions explain. */
export function lostSinceBackup(backup: RowCounts, live: RowCounts): string[] {
  return comparedTables().flatMap((table) => {
    const [before, now] = [backup[table], live[table]];
    if (before === undefined || !lacksRows(table, before, now, normalLoss)) return [];
    if (now === undefined) return [`table ${table} is gone from the live database; the backup has ${rows(before)}`];
    return [
      `table ${table} has ${rows(now)} in the live database and ${before} in the backup: ${before - now} lost since (restore before the backups that still have them expire)`,
    ];
  });
}

/** Tables of which the restored database lacks rows that the live one had when its last WAL was archived. */
export function missingFromRestored(live: RowCounts, restored: RowCounts): string[] {
  return comparedTables().flatMap((table) => {
    const [expected, got] = [live[table], restored[table]];
    if (expected === undefined || !lacksRows(table, expected, got, normalLag)) return [];
    if (got === undefined)
      return [`table ${table} is not in the restored database; the live one has ${rows(expected)}`];
    return [`table ${table} has ${rows(got)} in the restored database, and the live one had ${expected}`];
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
