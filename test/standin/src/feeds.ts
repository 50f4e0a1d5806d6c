/** Home feeds in Redis, and the events that the streaming server passes on. */
import { type Account, findAccount } from "./accounts.ts";
import type { App } from "./app.ts";
import { findStatus, statusJson } from "./statuses.ts";

/** As many posts as Mastodon keeps in a feed. */
const LENGTH = 400;

const key = (accountId: string): string => `feed:home:${accountId}`;

/** Feed entries sort as text, which is right for ids of equal length. (A score is a double and cannot hold an id exactly.) */
export const entry = (id: string): string => id.padStart(19, "0");

/** One committed post into the feeds of this server, and to whoever listens. Running it twice changes nothing but a second event. */
export async function distribute(app: App, statusId: string): Promise<void> {
  const status = await findStatus(app, statusId);
  const account = status === undefined ? undefined : await findAccount(app.database, status.account_id);
  if (status === undefined || account === undefined) return;
  await app.redis.zadd(key(account.id), 0, entry(status.id));
  await app.redis.zremrangebyrank(key(account.id), 0, -LENGTH - 1);
  const event = JSON.stringify({ event: "update", payload: JSON.stringify(await statusJson(app, account, status)) });
  await app.redis.publish(`timeline:${account.id}`, event);
  if (status.visibility === "public") {
    await app.redis.publish("timeline:public", event);
    await app.redis.publish("timeline:public:local", event);
  }
}

/** Post ids of a home feed, newest first. Empty when Redis was lost, until `tootctl feeds build`. */
export async function homeFeed(
  app: App,
  accountId: string,
  page: { limit: number; maxId: string | undefined; minId: string | undefined },
): Promise<string[]> {
  const from = page.maxId === undefined ? "+" : `(${entry(page.maxId)}`;
  const to = page.minId === undefined ? "-" : `(${entry(page.minId)}`;
  const entries = await app.redis.zrevrangebylex(key(accountId), from, to, "LIMIT", 0, page.limit);
  return entries.map((id) => String(BigInt(id)));
}

/** Makes a feed anew from the database. */
export async function rebuild(app: App, account: Account): Promise<void> {
  const rows = await app.database.query<{ id: string }>(
    "SELECT id FROM statuses WHERE account_id = $1 ORDER BY id DESC LIMIT $2",
    [account.id, LENGTH],
  );
  const multi = app.redis.multi().del(key(account.id));
  for (const { id } of rows) multi.zadd(key(account.id), 0, entry(id));
  const results = await multi.exec();
  const failed = results?.find(([error]) => error !== null)?.[0];
  if (results === null || failed) throw failed ?? new Error("Redis did not run the transaction");
}
