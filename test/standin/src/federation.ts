/** ActivityPub, by Fedify: who the local actors are, what they posted, what others may ask of them, and how activities leave. */
import { webcrypto } from "node:crypto";
import {
  type Context,
  type Federation,
  type InboxContext,
  type RequestContext,
  SendActivityError,
  createFederation,
} from "@fedify/fedify";
import {
  Accept,
  type Activity,
  Create,
  Delete,
  Document,
  Endpoints,
  Follow,
  Image,
  Note,
  PUBLIC_COLLECTION,
  Person,
  Undo,
  isActor,
} from "@fedify/vocab";
import { Temporal } from "@js-temporal/polyfill";
import { type Account, findAccount, findLocal } from "./accounts.ts";
import type { App } from "./app.ts";
import { explain, log } from "./log.ts";
import { mediaType, publicUrl } from "./media.ts";
import { GiveUp, type NewJob } from "./queue.ts";
import { RedisKvStore } from "./redis.ts";
import { type Media, type Status, accountUrl, findStatus, mediaOf, statusesOf, toHtml } from "./statuses.ts";

export type Fedi = Federation<App>;

const instant = (date: Date): Temporal.Instant => Temporal.Instant.fromEpochMilliseconds(date.getTime());

async function importKey(format: "pkcs8" | "spki", pem: string, usage: "sign" | "verify"): Promise<CryptoKey> {
  const der = Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
  return (await webcrypto.subtle.importKey(format, der, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, [
    usage,
  ])) as CryptoKey;
}

async function localAccount(app: App, identifier: string): Promise<Account | undefined> {
  await app.usable();
  return findLocal(app.database, identifier);
}

function note(context: Context<App>, app: App, account: Account, status: Status, media: readonly Media[]): Note {
  const followers = context.getFollowersUri(account.username);
  const [to, cc] =
    status.visibility === "public"
      ? [PUBLIC_COLLECTION, followers]
      : status.visibility === "unlisted"
        ? [followers, PUBLIC_COLLECTION]
        : [followers, undefined];
  return new Note({
    id: context.getObjectUri(Note, { identifier: account.username, id: status.id }),
    attribution: context.getActorUri(account.username),
    to,
    ...(cc === undefined ? {} : { cc }),
    content: toHtml(status.text),
    ...(status.spoiler_text === "" ? {} : { summary: status.spoiler_text }),
    sensitive: status.sensitive,
    published: instant(status.created_at),
    url: new URL(`${accountUrl(app, account.username)}/${status.id}`),
    ...(status.in_reply_to_id === null
      ? {}
      : { replyTarget: context.getObjectUri(Note, { identifier: account.username, id: status.in_reply_to_id }) }),
    attachments: media.map((file) => {
      const values = {
        url: new URL(publicUrl(app.settings.media, file.file_key)),
        mediaType: file.file_content_type,
        ...(file.description === null ? {} : { name: file.description }),
      };
      return mediaType(file.file_content_type) === "image" ? new Image(values) : new Document(values);
    }),
  });
}

/** Its id depends on the post alone, so that a server which gets it twice can tell. */
function create(context: Context<App>, app: App, account: Account, status: Status, media: readonly Media[]): Create {
  const object = note(context, app, account, status, media);
  return new Create({
    id: context.getObjectUri(Create, { identifier: account.username, id: status.id }),
    actor: context.getActorUri(account.username),
    object,
    tos: object.toIds,
    ccs: object.ccIds,
    published: instant(status.created_at),
  });
}

async function post(app: App, identifier: string, id: string) {
  const account = await localAccount(app, identifier);
  const status = account === undefined ? undefined : await findStatus(app, id);
  if (
    account === undefined ||
    status === undefined ||
    status.account_id !== account.id ||
    status.visibility === "private"
  )
    return undefined;
  return { account, status, media: (await mediaOf(app, [id])).get(id) ?? [] };
}

const PAGE = 20;

export function createFedi(app: App): Fedi {
  const federation = createFederation<App>({
    kv: new RedisKvStore(app.cache),
    origin: { handleHost: app.settings.localDomain, webOrigin: `https://${app.settings.webDomain}` },
    // Private addresses are guarded in outgoing.ts, where ALLOWED_PRIVATE_ADDRESSES is known; Fedify only knows all or none.
    allowPrivateAddress: true,
    userAgent: `Mastodon-standin (+https://${app.settings.webDomain}/)`,
    circuitBreaker: false,
  });

  const allowed = async (request: RequestContext<App>): Promise<boolean> =>
    !app.settings.authorizedFetch || (await request.getSignedKeyOwner()) !== null;

  federation
    .setActorDispatcher("/users/{identifier}", async (context, identifier) => {
      const account = await localAccount(app, identifier);
      if (account === undefined) return null;
      const keys = await context.getActorKeyPairs(account.username);
      const own = account.username;
      return new Person({
        id: context.getActorUri(own),
        preferredUsername: own,
        name: account.display_name === "" ? own : account.display_name,
        summary: "",
        inbox: context.getInboxUri(own),
        outbox: context.getOutboxUri(own),
        followers: context.getFollowersUri(own),
        endpoints: new Endpoints({ sharedInbox: context.getInboxUri() }),
        url: new URL(accountUrl(app, own)),
        manuallyApprovesFollowers: false,
        discoverable: true,
        published: instant(account.created_at),
        publicKeys: keys.map((key) => key.cryptographicKey),
      });
    })
    .setKeyPairsDispatcher(async (_context, identifier) => {
      const account = await localAccount(app, identifier);
      if (account === undefined || account.private_key === null) return [];
      return [
        {
          privateKey: await importKey("pkcs8", app.vault.decrypt(account.private_key), "sign"),
          publicKey: await importKey("spki", account.public_key, "verify"),
        },
      ];
    });
  // Not `.authorize` on the actor: Mastodon shows the key-bearing part of an actor to everyone, or nobody could verify anything.

  federation
    .setObjectDispatcher(Note, "/users/{identifier}/statuses/{id}", async (context, { identifier, id }) => {
      const found = await post(app, identifier, id);
      return found === undefined ? null : note(context, app, found.account, found.status, found.media);
    })
    .authorize((context) => allowed(context));
  federation
    .setObjectDispatcher(Create, "/users/{identifier}/statuses/{id}/activity", async (context, { identifier, id }) => {
      const found = await post(app, identifier, id);
      return found === undefined ? null : create(context, app, found.account, found.status, found.media);
    })
    .authorize((context) => allowed(context));

  federation
    .setOutboxDispatcher("/users/{identifier}/outbox", async (context, identifier, cursor) => {
      const account = await localAccount(app, identifier);
      if (account === undefined) return null;
      const maxId = cursor === null || cursor === "" ? undefined : cursor;
      const found = await statusesOf(app, account.id, { limit: PAGE, maxId, minId: undefined }, ["public", "unlisted"]);
      const media = await mediaOf(
        app,
        found.map((status) => status.id),
      );
      const last = found.at(-1);
      return {
        items: found.map((status) => create(context, app, account, status, media.get(status.id) ?? [])),
        nextCursor: found.length < PAGE || last === undefined ? null : last.id,
      };
    })
    .setCounter(async (_context, identifier) => {
      const account = await localAccount(app, identifier);
      const [row] = await app.database.query<{ count: string }>(
        "SELECT count(*) FROM statuses WHERE account_id = $1 AND visibility IN ('public', 'unlisted')",
        [account?.id ?? null],
      );
      return Number(row?.count ?? 0);
    })
    .setFirstCursor(() => "")
    .authorize((context) => allowed(context));

  federation
    .setFollowersDispatcher("/users/{identifier}/followers", async (_context, identifier) => {
      const account = await localAccount(app, identifier);
      if (account === undefined) return null;
      const rows = await app.database.query<Account & { id: string }>(
        "SELECT a.* FROM follows f JOIN accounts a ON a.id = f.account_id WHERE f.target_account_id = $1 ORDER BY f.id DESC",
        [account.id],
      );
      return { items: rows.map((row) => ({ id: new URL(row.uri), inboxId: new URL(row.inbox_url) })) };
    })
    .setCounter(async (_context, identifier) => {
      const account = await localAccount(app, identifier);
      const [row] = await app.database.query<{ count: string }>(
        "SELECT count(*) FROM follows WHERE target_account_id = $1",
        [account?.id ?? null],
      );
      return Number(row?.count ?? 0);
    })
    .authorize((context) => allowed(context));

  // Whatever arrives with a good signature goes to the queue `ingress`, as with Mastodon: a Sidekiq that leaves that queue out answers nobody.
  const toQueue = async (context: InboxContext<App>, activity: Activity): Promise<void> => {
    const json = await activity.toJsonLd({ contextLoader: context.contextLoader });
    await app.queue.enqueue([{ queue: "ingress", class: "ActivityPub::ProcessingWorker", args: [json] }]);
  };
  federation
    .setInboxListeners("/users/{identifier}/inbox", "/inbox")
    .on(Follow, toQueue)
    .on(Undo, toQueue)
    .on(Delete, toQueue)
    .onError((_context, error) => log.error(`inbox: ${explain(error)}`));

  return federation;
}

const context = (app: App, fedi: Fedi): Context<App> =>
  fedi.createContext(new URL(`https://${app.settings.webDomain}/`), app);

interface Remote {
  readonly uri: string;
  readonly username: string;
  readonly inbox: string;
  readonly sharedInbox: string;
}

async function saveRemote(app: App, remote: Remote): Promise<string> {
  const rows = await app.database.query<{ id: string }>(
    `INSERT INTO accounts (username, domain, uri, inbox_url, shared_inbox_url) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (lower(username), coalesce(lower(domain), '')) DO UPDATE
     SET uri = EXCLUDED.uri, inbox_url = EXCLUDED.inbox_url, shared_inbox_url = EXCLUDED.shared_inbox_url, updated_at = now()
     RETURNING id`,
    [remote.username, new URL(remote.uri).host, remote.uri, remote.inbox, remote.sharedInbox],
  );
  return rows[0]?.id ?? "";
}

/** One incoming activity, out of the queue. */
export async function processIncoming(app: App, fedi: Fedi, json: unknown): Promise<void> {
  const ctx = context(app, fedi);
  const options = { documentLoader: ctx.documentLoader, contextLoader: ctx.contextLoader };
  const type = (json as { type?: unknown }).type;
  if (type === "Follow") return follow(app, fedi, await Follow.fromJsonLd(json, options));
  if (type === "Undo") {
    const undo = await Undo.fromJsonLd(json, options);
    // By the follow's id and its own author: nothing has to be fetched to learn what is undone.
    if (undo.objectId !== null && undo.actorId !== null)
      await app.database.query(
        "DELETE FROM follows USING accounts a WHERE follows.account_id = a.id AND a.uri = $1 AND follows.uri = $2",
        [undo.actorId.href, undo.objectId.href],
      );
    return;
  }
  if (type === "Delete") {
    const activity = await Delete.fromJsonLd(json, options);
    if (activity.actorId !== null && activity.objectId?.href === activity.actorId.href)
      await app.database.query("DELETE FROM accounts WHERE uri = $1 AND domain IS NOT NULL", [activity.actorId.href]);
  }
}

async function followed(app: App, fedi: Fedi, activity: Follow): Promise<Account | undefined> {
  if (activity.objectId === null) return undefined;
  const target = context(app, fedi).parseUri(activity.objectId);
  return target?.type === "actor" ? findLocal(app.database, target.identifier) : undefined;
}

async function follow(app: App, fedi: Fedi, activity: Follow): Promise<void> {
  const target = await followed(app, fedi, activity);
  if (target === undefined || activity.id === null || activity.actorId === null) return;
  const ctx = context(app, fedi);
  const documentLoader = await ctx.getDocumentLoader({ identifier: target.username });
  const actor = await activity.getActor({ documentLoader, contextLoader: ctx.contextLoader });
  if (!isActor(actor) || actor.id === null || actor.inboxId === null)
    throw new Error(`no usable actor at ${activity.actorId.href}`);
  const follower = await saveRemote(app, {
    uri: actor.id.href,
    username: String(actor.preferredUsername ?? actor.id.pathname.split("/").at(-1)),
    inbox: actor.inboxId.href,
    sharedInbox: actor.endpoints?.sharedInbox?.href ?? "",
  });
  // Following again is answered again: the other side may have lost the first Accept.
  const rows = await app.database.query<{ id: string }>(
    `INSERT INTO follows (account_id, target_account_id, uri) VALUES ($1, $2, $3)
     ON CONFLICT (account_id, target_account_id) DO UPDATE SET uri = EXCLUDED.uri RETURNING id`,
    [follower, target.id, activity.id.href],
  );
  await app.queue.enqueue([{ queue: "push", class: "ActivityPub::DeliveryWorker", args: [{ accept: rows[0]?.id }] }]);
}

/** One delivery job for each server that has followers; a server with many of them gets one copy. */
export async function fanOut(app: App, statusId: string): Promise<void> {
  const rows = await app.database.query<{ inbox: string }>(
    `SELECT DISTINCT coalesce(nullif(a.shared_inbox_url, ''), a.inbox_url) AS inbox
     FROM statuses s JOIN follows f ON f.target_account_id = s.account_id JOIN accounts a ON a.id = f.account_id WHERE s.id = $1`,
    [statusId],
  );
  await app.queue.enqueue(
    rows.map(({ inbox }): NewJob => ({
      queue: "push",
      class: "ActivityPub::DeliveryWorker",
      args: [{ create: statusId, inbox }],
    })),
  );
}

/** What a delivery job carries: names of rows, so that what is sent is what the database says now. */
export type Delivery = { readonly create: string; readonly inbox: string } | { readonly accept: string };

async function load(app: App, fedi: Fedi, delivery: Delivery) {
  const ctx = context(app, fedi);
  if ("create" in delivery) {
    const status = await findStatus(app, delivery.create);
    const account = status === undefined ? undefined : await findAccount(app.database, status.account_id);
    if (status === undefined || account === undefined) return undefined;
    const media = (await mediaOf(app, [status.id])).get(status.id) ?? [];
    return { sender: account, inbox: delivery.inbox, activity: create(ctx, app, account, status, media) };
  }
  const [row] = await app.database.query<{ uri: string; actor: string; inbox: string; target_account_id: string }>(
    `SELECT f.uri, f.target_account_id, a.uri AS actor, a.inbox_url AS inbox
     FROM follows f JOIN accounts a ON a.id = f.account_id WHERE f.id = $1`,
    [delivery.accept],
  );
  const account = row === undefined ? undefined : await findAccount(app.database, row.target_account_id);
  if (row === undefined || account === undefined) return undefined;
  const own = ctx.getActorUri(account.username);
  const activity = new Accept({
    id: new URL(`${own.href}#accepts/follows/${delivery.accept}`),
    actor: own,
    object: new Follow({ id: new URL(row.uri), actor: new URL(row.actor), object: own }),
  });
  return { sender: account, inbox: row.inbox, activity };
}

/** Answers that no repetition changes, by Mastodon's reckoning. */
export const isFinal = (status: number): boolean =>
  status === 501 || (status >= 400 && status < 500 && ![401, 408, 429].includes(status));

export async function deliver(app: App, fedi: Fedi, delivery: Delivery): Promise<void> {
  await app.usable();
  const loaded = await load(app, fedi, delivery);
  if (loaded === undefined) return;
  // A mark of what went out, for a day: a job that runs twice (its process died after the answer came, or the sweeper queued it a second time)
  // does not reach the other server twice. Lost with Redis; then the receiver's own memory of ids has to do.
  const mark = `standin:delivered:${loaded.activity.id?.href} ${loaded.inbox}`;
  if ((await app.sidekiqRedis.exists(mark)) === 1) return;
  const inbox = new URL(loaded.inbox);
  try {
    await context(app, fedi).sendActivity(
      { identifier: loaded.sender.username },
      { id: inbox, inboxId: inbox },
      loaded.activity,
      {
        immediate: true,
        fanout: "skip",
      },
    );
  } catch (error) {
    if (error instanceof SendActivityError && isFinal(error.statusCode))
      throw new GiveUp(error.message, { cause: error });
    throw error;
  }
  await app.sidekiqRedis.set(mark, "1", "EX", 86_400);
}
