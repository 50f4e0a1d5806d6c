/** What a drill's findings mean. Pure: no cluster, no clock. */
import * as z from "zod";

/** Rows by table. A table that a version of Mastodon has not got is not in it. */
export type RowCounts = Record<string, number>;

/**
 * The tables that are compared. Each has rows on every server that lives, and none of them is emptied by Mastodon
 * itself, as sessions, notifications and preview cards are.
 */
export const comparedTables = ["accounts", "users", "statuses", "follows", "media_attachments"] as const;

/**
 * How many rows may be gone from a table since the base backup, at most a day: people delete, and Mastodon removes old
 * posts of others. Both limits must be passed.
 */
export const normalLoss = { rows: 10, share: 0.2 } as const;

/**
 * How many rows the restored database may lack of those that were counted just before its last WAL was archived:
 * deletions of that moment.
 */
export const normalLag = { rows: 5, share: 0.01 } as const;

/** Tables that lost more rows since the backup than deletions explain, or all of them. */
export function lostSinceBackup(backup: RowCounts, live: RowCounts): string[] {
  return comparedTables.flatMap((table) => {
    const before = backup[table];
    if (before === undefined) return [];
    const now = live[table];
    if (now === undefined) return [`table ${table} is gone from the live database; the backup has ${rows(before)}`];
    const lost = before - now;
    const emptied = now === 0 && before > 0;
    if (!emptied && (lost <= normalLoss.rows || lost <= before * normalLoss.share)) return [];
    return [
      `table ${table} has ${rows(now)} in the live database and ${before} in the backup: ${lost} lost since (restore before the backups that still have them expire)`,
    ];
  });
}

/** Tables of which the restored database lacks rows that the live one had when its last WAL was archived. */
export function missingFromRestored(live: RowCounts, restored: RowCounts): string[] {
  return comparedTables.flatMap((table) => {
    const expected = live[table];
    if (expected === undefined) return [];
    const got = restored[table];
    if (got === undefined)
      return [`table ${table} is not in the restored database; the live one has ${rows(expected)}`];
    const missing = expected - got;
    const emptied = got === 0 && expected > 0;
    if (!emptied && (missing <= normalLag.rows || missing <= expected * normalLag.share)) return [];
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
