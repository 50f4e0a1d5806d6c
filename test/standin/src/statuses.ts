/** Posts: from a request to a committed row, and from there to jobs. */
import type pg from "pg";
import type { Account } from "./accounts.ts";
import type { App } from "./app.ts";
import { explain, log } from "./log.ts";
import { mediaType, publicUrl } from "./media.ts";
import type { NewJob } from "./queue.ts";

export const VISIBILITIES = ["public", "unlisted", "private"] as const;
export type Visibility = (typeof VISIBILITIES)[number];

export interface Status {
  readonly id: string;
  readonly account_id: string;
  readonly text: string;
  readonly spoiler_text: string;
  readonly sensitive: boolean;
  readonly visibility: Visibility;
  readonly language: string | null;
  readonly in_reply_to_id: string | null;
  readonly created_at: Date;
}

export interface Media {
  readonly id: string;
  readonly status_id: string | null;
  readonly file_key: string;
  readonly file_content_type: string;
  readonly description: string | null;
}

export interface NewStatus {
  readonly text: string;
  readonly spoilerText: string;
  readonly sensitive: boolean;
  readonly visibility: Visibility;
  readonly language: string | undefined;
  readonly inReplyToId: string | undefined;
  readonly mediaIds: readonly string[];
  readonly idempotencyKey: string | undefined;
}

export class ValidationError extends Error {
  override readonly name = "Mastodon::ValidationError";
}

const MAX_CHARACTERS = 500;

/** The same with other words: what makes a post reach the feeds, and the followers' servers. */
function jobsFor(id: string): readonly NewJob[] {
  return [
    { queue: "default", class: "DistributionWorker", args: [id] },
    { queue: "push", class: "ActivityPub::DistributionWorker", args: [id] },
  ];
}

async function insert(client: pg.PoolClient, app: App, account: Account, post: NewStatus): Promise<Status> {
  const { rows } = await client.query<Status>(
    `INSERT INTO statuses (account_id, text, spoiler_text, sensitive, visibility, language, in_reply_to_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *`,
    [
      account.id,
      post.text,
      post.spoilerText,
      post.sensitive,
      post.visibility,
      post.language ?? null,
      post.inReplyToId ?? null,
    ],
  );
  const status = rows[0];
  if (status === undefined) throw new Error("the database returned no row for a post it accepted");
  if (post.mediaIds.length > 0) {
    const attached = await client.query(
      "UPDATE media_attachments SET status_id = $1 WHERE id = ANY($2::bigint[]) AND account_id = $3 AND status_id IS NULL",
      [status.id, post.mediaIds, account.id],
    );
    if (attached.rowCount !== post.mediaIds.length)
      throw new ValidationError(
        "Validation failed: Media attachments could not be found, or belong to another post already",
      );
  }
  // Mastodon counts posts against its rate limit in Redis inside this transaction. So a Redis that takes no writes means that nothing is
  // committed: whatever pauses Redis pauses posting, and that is what keeps a fenced site from accepting posts.
  const window = Math.floor(Date.now() / 1000 / 10_800);
  const key = `rate_limit:${account.id}:statuses:${window}`;
  const counted = await app.redis.multi().incr(key).expire(key, 10_800).exec();
  const failed =
    counted === null ? new Error("Redis did not run the transaction") : counted.find(([error]) => error !== null)?.[0];
  if (failed) throw failed;
  return status;
}

/** Puts a committed post's jobs into Redis, and remembers in the row that it did. */
export async function enqueueStatus(app: App, id: string): Promise<void> {
  await app.queue.enqueue(jobsFor(id));
  await app.database.query("UPDATE statuses SET enqueued_at = now() WHERE id = $1", [id]);
}

/**
 * Returns only once the row is committed and its jobs are queued. An error may come after the commit (Redis went away in between): then the
 * post exists though its author was not told so, exactly as with Mastodon, and the sweeper queues it later.
 */
export async function postStatus(app: App, account: Account, post: NewStatus): Promise<Status> {
  const idempotency =
    post.idempotencyKey === undefined ? undefined : `idempotency:status:${account.id}:${post.idempotencyKey}`;
  if (idempotency !== undefined) {
    const existing = await app.redis.get(idempotency);
    const status = existing === null ? undefined : await findStatus(app, existing);
    if (status !== undefined) return status;
  }
  if (post.text.trim() === "" && post.mediaIds.length === 0)
    throw new ValidationError("Validation failed: Text can't be blank");
  if ([...post.text, ...post.spoilerText].length > MAX_CHARACTERS)
    throw new ValidationError(`Validation failed: Text character limit of ${MAX_CHARACTERS} exceeded`);
  if (post.mediaIds.length > 4) throw new ValidationError("Validation failed: Cannot attach more than 4 files");

  const status = await app.database.transaction((client) => insert(client, app, account, post));
  await enqueueStatus(app, status.id);
  if (idempotency !== undefined) await app.redis.setex(idempotency, 3_600, status.id);
  return status;
}

/** What was committed and never queued: its web process died, or Redis was away, between the two. */
export async function sweep(app: App): Promise<number> {
  const rows = await app.database.query<{ id: string }>(
    "SELECT id FROM statuses WHERE enqueued_at IS NULL AND created_at < now() - interval '15 seconds' ORDER BY id LIMIT 100",
  );
  for (const { id } of rows) {
    try {
      await enqueueStatus(app, id);
      log.info(`sweeper: queued post ${id}, which was saved but never queued`);
    } catch (error) {
      log.warn(`sweeper: post ${id}: ${explain(error)}`);
      throw error;
    }
  }
  return rows.length;
}

export async function findStatus(app: App, id: string): Promise<Status | undefined> {
  if (!/^\d{1,19}$/.test(id)) return undefined;
  return (await app.database.query<Status & pg.QueryResultRow>("SELECT * FROM statuses WHERE id = $1", [id]))[0];
}

export async function findStatuses(app: App, ids: readonly string[]): Promise<Status[]> {
  return app.database.query<Status & pg.QueryResultRow>(
    "SELECT * FROM statuses WHERE id = ANY($1::bigint[]) ORDER BY id DESC",
    [ids],
  );
}

export interface Page {
  readonly limit: number;
  readonly maxId: string | undefined;
  readonly minId: string | undefined;
}

export async function statusesOf(
  app: App,
  accountId: string,
  page: Page,
  visible: readonly Visibility[],
): Promise<Status[]> {
  return app.database.query<Status & pg.QueryResultRow>(
    `SELECT * FROM statuses WHERE account_id = $1 AND visibility = ANY($2)
     AND ($3::bigint IS NULL OR id < $3) AND ($4::bigint IS NULL OR id > $4) ORDER BY id DESC LIMIT $5`,
    [accountId, visible, page.maxId ?? null, page.minId ?? null, page.limit],
  );
}

export async function mediaOf(app: App, statusIds: readonly string[]): Promise<ReadonlyMap<string, readonly Media[]>> {
  const found = new Map<string, Media[]>();
  if (statusIds.length === 0) return found;
  const rows = await app.database.query<Media & pg.QueryResultRow>(
    "SELECT * FROM media_attachments WHERE status_id = ANY($1::bigint[]) ORDER BY id",
    [statusIds],
  );
  for (const row of rows) {
    const of = row.status_id ?? "";
    found.set(of, [...(found.get(of) ?? []), row]);
  }
  return found;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export const escapeHtml = (text: string): string =>
  text.replaceAll(/[&<>"']/g, (character) => ESCAPES[character] ?? character);

export const toHtml = (text: string): string =>
  text === ""
    ? ""
    : `<p>${escapeHtml(text)
        .replaceAll(/\n{2,}/g, "</p><p>")
        .replaceAll("\n", "<br />")}</p>`;

export const accountUrl = (app: App, username: string): string => `https://${app.settings.webDomain}/@${username}`;
export const actorUri = (app: App, username: string): string => `https://${app.settings.webDomain}/users/${username}`;
export const statusUri = (app: App, username: string, id: string): string =>
  `${actorUri(app, username)}/statuses/${id}`;

export function mediaJson(app: App, media: Media): Record<string, unknown> {
  const url = publicUrl(app.settings.media, media.file_key);
  return {
    id: media.id,
    type: mediaType(media.file_content_type) ?? "unknown",
    url,
    preview_url: url,
    remote_url: null,
    text_url: null,
    meta: {},
    description: media.description,
    blurhash: null,
  };
}

export async function accountJson(app: App, account: Account): Promise<Record<string, unknown>> {
  const [counts] = await app.database.query<{ statuses: string; followers: string; last: Date | null }>(
    `SELECT (SELECT count(*) FROM statuses WHERE account_id = $1) AS statuses,
            (SELECT count(*) FROM follows WHERE target_account_id = $1) AS followers,
            (SELECT max(created_at) FROM statuses WHERE account_id = $1) AS last`,
    [account.id],
  );
  const local = account.domain === null;
  return {
    id: account.id,
    username: account.username,
    acct: local ? account.username : `${account.username}@${account.domain}`,
    display_name: account.display_name,
    locked: false,
    bot: false,
    discoverable: true,
    group: false,
    created_at: account.created_at.toISOString(),
    note: "",
    url: local ? accountUrl(app, account.username) : account.uri,
    uri: local ? actorUri(app, account.username) : account.uri,
    avatar: "",
    avatar_static: "",
    header: "",
    header_static: "",
    followers_count: Number(counts?.followers ?? 0),
    following_count: 0,
    statuses_count: Number(counts?.statuses ?? 0),
    last_status_at: counts?.last?.toISOString().slice(0, 10) ?? null,
    emojis: [],
    fields: [],
  };
}

export async function statusesJson(
  app: App,
  account: Account,
  statuses: readonly Status[],
): Promise<Record<string, unknown>[]> {
  const media = await mediaOf(
    app,
    statuses.map((status) => status.id),
  );
  const author = statuses.length === 0 ? {} : await accountJson(app, account);
  return statuses.map((status) => ({
    id: status.id,
    created_at: status.created_at.toISOString(),
    in_reply_to_id: status.in_reply_to_id,
    in_reply_to_account_id: status.in_reply_to_id === null ? null : status.account_id,
    sensitive: status.sensitive,
    spoiler_text: status.spoiler_text,
    visibility: status.visibility,
    language: status.language,
    uri: statusUri(app, account.username, status.id),
    url: `${accountUrl(app, account.username)}/${status.id}`,
    replies_count: 0,
    reblogs_count: 0,
    favourites_count: 0,
    edited_at: null,
    content: toHtml(status.text),
    reblog: null,
    application: null,
    account: author,
    media_attachments: (media.get(status.id) ?? []).map((one) => mediaJson(app, one)),
    mentions: [],
    tags: [],
    emojis: [],
    card: null,
    poll: null,
  }));
}

export async function statusJson(app: App, account: Account, status: Status): Promise<Record<string, unknown>> {
  const [json] = await statusesJson(app, account, [status]);
  return json ?? {};
}
