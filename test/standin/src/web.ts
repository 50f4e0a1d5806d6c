/** The web process: what Puma serves. */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type HttpBindings, serve, type ServerType } from "@hono/node-server";
import busboy from "busboy";
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { type Account, type User, findLocal, firstLocal, findAccount } from "./accounts.ts";
import type { App } from "./app.ts";
import { BUILD, ROOT } from "./build-info.ts";
import { DecryptionError, verifyPassword } from "./crypto.ts";
import { createFedi, type Fedi } from "./federation.ts";
import { homeFeed } from "./feeds.ts";
import { explain, log } from "./log.ts";
import { MAX_UPLOAD_BYTES, fileKey, mediaType, store, type Upload } from "./media.ts";
import {
  VISIBILITIES,
  type Media,
  ValidationError,
  type Visibility,
  accountJson,
  accountUrl,
  actorUri,
  escapeHtml,
  findStatus,
  findStatuses,
  mediaJson,
  postStatus,
  statusJson,
  statusesJson,
  statusesOf,
  toHtml,
} from "./statuses.ts";

interface Env {
  readonly Bindings: HttpBindings;
}

type Ctx = Context<Env>;

class HttpError extends Error {
  readonly status: 400 | 401 | 403 | 404 | 413 | 422;

  constructor(status: HttpError["status"], message: string) {
    super(message);
    this.status = status;
  }
}

const digest = (token: string): string => createHash("sha256").update(token).digest("hex");

interface SignedIn {
  readonly user: User;
  readonly account: Account;
}

/** The bearer of a token, or undefined; a token whose owner may not sign in is refused with Mastodon's words. */
async function signedIn(app: App, c: Ctx): Promise<SignedIn | undefined> {
  const token = /^Bearer (\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? c.req.query("access_token");
  if (token === undefined) return undefined;
  const [user] = await app.database.query<User & { id: string }>(
    "SELECT u.* FROM oauth_access_tokens t JOIN users u ON u.id = t.resource_owner_id WHERE t.token_digest = $1 AND t.revoked_at IS NULL",
    [digest(token)],
  );
  if (user === undefined) throw new HttpError(401, "The access token is invalid");
  if (user.disabled) throw new HttpError(403, "Your login is currently disabled");
  if (user.confirmed_at === null) throw new HttpError(403, "Your login is missing a confirmed e-mail address");
  if (!user.approved) throw new HttpError(403, "Your login is currently pending approval");
  const account = await findAccount(app.database, user.account_id);
  return account === undefined ? undefined : { user, account };
}

async function requireUser(app: App, c: Ctx): Promise<SignedIn> {
  const found = await signedIn(app, c);
  if (found === undefined) throw new HttpError(401, "This method requires an authenticated user");
  return found;
}

/** A form or a JSON body, as flat values: Mastodon takes both everywhere. */
async function parameters(c: Ctx): Promise<Record<string, unknown>> {
  if (/^application\/json\b/.test(c.req.header("content-type") ?? "")) {
    const body: unknown = await c.req.json().catch(() => {
      throw new HttpError(400, "There was a problem in the JSON you submitted");
    });
    return typeof body === "object" && body !== null ? { ...body } : {};
  }
  const form = await c.req.parseBody({ all: true });
  return Object.fromEntries(Object.entries(form).map(([name, value]) => [name.replace(/\[\]$/, ""), value]));
}

const asText = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : undefined;

const asFlag = (value: unknown): boolean => value === true || value === "true" || value === "1" || value === "on";

const asList = (value: unknown): string[] =>
  (Array.isArray(value) ? value : value === undefined ? [] : [value]).map(String).filter((entry) => entry !== "");

function page(c: Ctx) {
  const id = (name: string): string | undefined => {
    const value = c.req.query(name);
    return value !== undefined && /^\d{1,19}$/.test(value) ? value : undefined;
  };
  const limit = Number(c.req.query("limit") ?? 20);
  return {
    limit: Number.isInteger(limit) ? Math.min(40, Math.max(1, limit)) : 20,
    maxId: id("max_id"),
    minId: id("min_id") ?? id("since_id"),
  };
}

/** `text/html` of a page that says what it is. */
const html = (title: string, body: string): string =>
  `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title></head><body>` +
  `<p><small>This is a stand-in for Mastodon ${escapeHtml(BUILD.version)}, made for tests.</small></p>${body}</body></html>`;

function wellKnown(app: App, web: Hono<Env>): void {
  const { localDomain, webDomain, alternateDomains } = app.settings;
  const own = [localDomain, webDomain, ...alternateDomains].map((domain) => domain.toLowerCase());

  /** The user name a resource means; undefined when it is nobody here, null when it is no resource at all. */
  const username = (resource: string): string | undefined | null => {
    if (/^https?:/i.test(resource)) {
      const url = URL.canParse(resource) ? new URL(resource) : undefined;
      const name = /^\/(?:users\/|@)([A-Za-z0-9_]+)$/.exec(url?.pathname ?? "")?.[1];
      return url !== undefined && own.includes(url.host) ? name : undefined;
    }
    if (!resource.includes("@")) return null;
    const [name = "", domain = ""] = resource.replace(/^acct:/i, "").split("@");
    return own.includes(domain.toLowerCase()) ? name : undefined;
  };

  web.use("/.well-known/*", cors({ origin: "*", allowMethods: ["GET"] }));

  web.get("/.well-known/webfinger", async (c) => {
    const resource = c.req.query("resource");
    const name = resource === undefined ? null : username(resource);
    c.header("cache-control", "max-age=180, public");
    if (name === null) return c.body(null, 400);
    const account = name === undefined ? undefined : await findLocal(app.database, name);
    if (account === undefined) return c.body(null, 404);
    const page = accountUrl(app, account.username);
    const actor = actorUri(app, account.username);
    c.header("cache-control", "max-age=259200, public");
    c.header("content-type", "application/jrd+json; charset=utf-8");
    return c.body(
      JSON.stringify({
        // Always the apex, also when it was asked for the web host: that is how others learn the account's one true name.
        subject: `acct:${account.username}@${localDomain}`,
        aliases: [page, actor],
        links: [
          { rel: "http://webfinger.net/rel/profile-page", type: "text/html", href: page },
          { rel: "self", type: "application/activity+json", href: actor },
          {
            rel: "http://ostatus.org/schema/1.0/subscribe",
            template: `https://${webDomain}/authorize_interaction?uri={uri}`,
          },
        ],
      }),
    );
  });

  web.get("/.well-known/host-meta", (c) => {
    c.header("cache-control", "max-age=259200, public");
    c.header("content-type", "application/xrd+xml; charset=utf-8");
    return c.body(
      '<?xml version="1.0" encoding="UTF-8"?>\n<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">\n' +
        `  <Link rel="lrdd" template="https://${escapeHtml(webDomain)}/.well-known/webfinger?resource={uri}"/>\n</XRD>\n`,
    );
  });

  web.get("/.well-known/nodeinfo", (c) => {
    c.header("cache-control", "max-age=259200, public");
    return c.json({
      links: [{ rel: "http://nodeinfo.diaspora.software/ns/schema/2.0", href: `https://${webDomain}/nodeinfo/2.0` }],
    });
  });

  web.get("/nodeinfo/2.0", async (c) => {
    const [counts] = await app.database.query<{ users: string; posts: string }>(
      "SELECT (SELECT count(*) FROM users) AS users, (SELECT count(*) FROM statuses) AS posts",
    );
    const users = Number(counts?.users ?? 0);
    c.header("cache-control", "max-age=1800, public");
    c.header("content-type", 'application/json; profile="http://nodeinfo.diaspora.software/ns/schema/2.0#"');
    return c.body(
      JSON.stringify({
        version: "2.0",
        software: { name: "mastodon", version: BUILD.version },
        protocols: ["activitypub"],
        services: { outbound: [], inbound: [] },
        usage: {
          users: { total: users, activeMonth: users, activeHalfyear: users },
          localPosts: Number(counts?.posts ?? 0),
        },
        openRegistrations: false,
        metadata: { nodeName: "Mastodon stand-in", nodeDescription: "", standin: true },
      }),
    );
  });
}

async function registrations(app: App) {
  const [row] = await app.database.query<{ value: string }>(
    "SELECT value FROM settings WHERE var = 'registrations_mode'",
  );
  const mode = app.settings.singleUserMode ? "none" : (row?.value ?? "none");
  return {
    enabled: mode !== "none",
    approval_required: mode === "approved",
    reason_required: false,
    message: null,
    url: null,
  };
}

function instance(app: App, web: Hono<Env>): void {
  const { localDomain, webDomain, streamingUrl, vapidPublicKey } = app.settings;
  const title = "Mastodon stand-in";

  web.get("/api/v2/instance", async (c) => {
    const owner = await firstLocal(app.database);
    return c.json({
      domain: localDomain,
      title,
      version: BUILD.version,
      source_url: "https://github.com/mastodon/mastodon",
      description: "A stand-in for Mastodon, made for tests.",
      usage: { users: { active_month: owner === undefined ? 0 : 1 } },
      thumbnail: { url: `https://${webDomain}/packs/preview.png` },
      languages: ["en"],
      configuration: {
        urls: { streaming: streamingUrl, status: null },
        vapid: { public_key: vapidPublicKey },
        accounts: { max_featured_tags: 10 },
        statuses: { max_characters: 500, max_media_attachments: 4, characters_reserved_per_url: 23 },
        media_attachments: {
          supported_mime_types: [],
          image_size_limit: MAX_UPLOAD_BYTES,
          video_size_limit: MAX_UPLOAD_BYTES,
        },
        translation: { enabled: false },
      },
      registrations: await registrations(app),
      api_versions: { mastodon: 10 },
      contact: { email: "", account: owner === undefined ? null : await accountJson(app, owner) },
      rules: [],
    });
  });

  web.get("/api/v1/instance", async (c) => {
    const open = await registrations(app);
    const owner = await firstLocal(app.database);
    return c.json({
      uri: localDomain,
      title,
      short_description: "A stand-in for Mastodon, made for tests.",
      description: "",
      email: "",
      version: BUILD.version,
      urls: { streaming_api: streamingUrl },
      stats: { user_count: owner === undefined ? 0 : 1, status_count: 0, domain_count: 0 },
      thumbnail: null,
      languages: ["en"],
      registrations: open.enabled,
      approval_required: open.approval_required,
      invites_enabled: false,
      contact_account: owner === undefined ? null : await accountJson(app, owner),
      rules: [],
    });
  });
}

function oauth(app: App, web: Hono<Env>): void {
  web.post("/oauth/token", async (c) => {
    const body = await parameters(c);
    if (body.grant_type !== "password")
      return c.json(
        { error: "unsupported_grant_type", error_description: "The stand-in only has grant_type=password." },
        400,
      );
    const email = asText(body.username) ?? "";
    const [user] = await app.database.query<User & { id: string }>(
      "SELECT * FROM users WHERE lower(email) = lower($1)",
      [email],
    );
    if (user === undefined || !verifyPassword(asText(body.password) ?? "", user.encrypted_password))
      return c.json({ error: "invalid_grant", error_description: "The provided authorization grant is invalid" }, 400);
    const token = randomBytes(32).toString("base64url");
    const scope = asText(body.scope) ?? "read write follow push";
    await app.database.query(
      "INSERT INTO oauth_access_tokens (token_digest, resource_owner_id, scopes) VALUES ($1, $2, $3)",
      [digest(token), user.id, scope],
    );
    return c.json({ access_token: token, token_type: "Bearer", scope, created_at: Math.floor(Date.now() / 1000) });
  });
}

interface Received {
  readonly upload: Upload;
  readonly description: string | undefined;
}

/**
 * The file of a multipart request, spooled to the temporary folder piece by piece (as Puma does): a hundred megabytes never sit in memory,
 * and their length and hash are known before the bucket is asked to take them.
 */
async function receive(request: IncomingMessage, folder: string): Promise<Received> {
  let parser: busboy.Busboy;
  try {
    parser = busboy({ headers: request.headers, limits: { files: 1, fileSize: MAX_UPLOAD_BYTES, fields: 20 } });
  } catch {
    throw new HttpError(422, "Validation failed: File can't be blank");
  }
  const fields = new Map<string, string>();
  let file: Promise<Upload> | undefined;
  parser.on("field", (name, value) => fields.set(name, value));
  parser.on("file", (name, stream, info) => {
    if (name !== "file") {
      stream.resume();
      return;
    }
    const hash = createHash("sha256");
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    const path = join(folder, "upload");
    file = pipeline(stream, createWriteStream(path)).then(() => {
      if (stream.truncated === true) throw new HttpError(422, "Validation failed: File size is too big");
      return { path, bytes, sha256: hash.digest("hex"), contentType: info.mimeType };
    });
    // Awaited below; until then a failure must not count as unhandled.
    file.catch(() => undefined);
  });
  await pipeline(request, parser);
  const upload = await file;
  if (upload === undefined || upload.bytes === 0) throw new HttpError(422, "Validation failed: File can't be blank");
  return { upload, description: fields.get("description") };
}

function media(app: App, web: Hono<Env>): void {
  const settings = app.settings.media;

  const upload = async (c: Ctx): Promise<Response> => {
    const { account } = await requireUser(app, c);
    const folder = await mkdtemp(join(tmpdir(), "standin-upload-"));
    try {
      const { upload, description } = await receive(c.env.incoming, folder);
      if (mediaType(upload.contentType) === undefined)
        throw new HttpError(422, "Validation failed: File content type is invalid");
      const [next] = await app.database.query<{ id: string }>("SELECT timestamp_id() AS id");
      const id = next?.id ?? "";
      const key = fileKey(id, upload.contentType);
      try {
        await store(settings, key, upload);
      } catch (error) {
        log.error(`media: cannot store ${key}: ${explain(error)}`);
        return c.json({ error: "There was a temporary problem serving your request, please try again" }, 503);
      }
      // The row comes last: one that names a file which was never stored would be worse than a file without a row.
      const rows = await app.database.query<Media & { id: string }>(
        `INSERT INTO media_attachments (id, account_id, file_key, file_content_type, file_file_size, description)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING *`,
        [id, account.id, key, upload.contentType, upload.bytes, description ?? null],
      );
      const row = rows[0];
      if (row === undefined) throw new Error("the database returned no row for a file it accepted");
      return c.json(mediaJson(app, row));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  };
  web.post("/api/v2/media", upload);

  if (settings.kind !== "disk" || !app.settings.serveStaticFiles) return;
  web.get("/system/*", async (c) => {
    const root = resolve(settings.root);
    const path = resolve(root, `.${decodeURIComponent(c.req.path.slice("/system".length))}`);
    const info = path.startsWith(root + sep) ? await stat(path).catch(() => undefined) : undefined;
    if (info?.isFile() !== true) return c.body(null, 404);
    const types: Record<string, string> = {
      ".png": "image/png",
      ".jpg": "image/jpeg",
      ".gif": "image/gif",
      ".webp": "image/webp",
      ".mp4": "video/mp4",
    };
    c.header("content-type", types[extname(path)] ?? "application/octet-stream");
    c.header("content-length", String(info.size));
    c.header("cache-control", "public, max-age=2419200, must-revalidate");
    return c.body(Readable.toWeb(createReadStream(path)) as ReadableStream);
  });
}

function api(app: App, web: Hono<Env>): void {
  web.use(
    "/api/*",
    cors({
      origin: "*",
      allowMethods: ["GET", "POST", "PUT", "PATCH", "DELETE"],
      exposeHeaders: ["Link", "X-Request-Id"],
    }),
  );
  web.use("/oauth/*", cors({ origin: "*", allowMethods: ["POST"] }));
  web.use("/api/*", async (c, next) => {
    await app.usable();
    await next();
    c.header("cache-control", "private, no-store");
  });

  web.post("/api/v1/statuses", async (c) => {
    const { account } = await requireUser(app, c);
    const body = await parameters(c);
    for (const name of ["poll", "scheduled_at"])
      if (body[name] !== undefined) throw new HttpError(422, `The stand-in for Mastodon has no ${name}`);
    const visibility = (asText(body.visibility) ?? "public") as Visibility;
    if (!VISIBILITIES.includes(visibility))
      throw new HttpError(422, "The stand-in for Mastodon only has public, unlisted and private posts");
    const inReplyToId = asText(body.in_reply_to_id);
    if (inReplyToId !== undefined && (await findStatus(app, inReplyToId)) === undefined)
      throw new HttpError(404, "The post you are trying to reply to does not appear to exist.");
    const status = await postStatus(app, account, {
      text: asText(body.status) ?? "",
      spoilerText: asText(body.spoiler_text) ?? "",
      sensitive: asFlag(body.sensitive),
      visibility,
      language: asText(body.language),
      inReplyToId,
      mediaIds: asList(body.media_ids),
      idempotencyKey: c.req.header("idempotency-key"),
    });
    return c.json(await statusJson(app, account, status));
  });

  web.get("/api/v1/statuses/:id", async (c) => {
    const reader = await signedIn(app, c);
    const status = await findStatus(app, c.req.param("id"));
    const author = status === undefined ? undefined : await findAccount(app.database, status.account_id);
    if (
      status === undefined ||
      author === undefined ||
      (status.visibility === "private" && reader?.account.id !== author.id)
    )
      throw new HttpError(404, "Record not found");
    return c.json(await statusJson(app, author, status));
  });

  web.get("/api/v1/accounts/verify_credentials", async (c) => {
    const { account, user } = await requireUser(app, c);
    const [role] = await app.database.query<{ id: string; name: string }>(
      "SELECT id, name FROM user_roles WHERE id = $1",
      [user.role_id],
    );
    return c.json({
      ...(await accountJson(app, account)),
      source: { privacy: "public", sensitive: false, language: null, note: "", fields: [], follow_requests_count: 0 },
      role: {
        id: role?.id ?? "-99",
        name: role?.name ?? "",
        permissions: role?.name === "Owner" ? "1" : "0",
        color: "",
        highlighted: true,
      },
    });
  });

  web.get("/api/v1/accounts/lookup", async (c) => {
    const [name = "", domain = app.settings.localDomain] = (c.req.query("acct") ?? "").replace(/^@/, "").split("@");
    const local = [app.settings.localDomain, app.settings.webDomain].includes(domain.toLowerCase());
    const account = local
      ? await findLocal(app.database, name)
      : (
          await app.database.query<Account & { id: string }>(
            "SELECT * FROM accounts WHERE lower(username) = lower($1) AND lower(domain) = lower($2)",
            [name, domain],
          )
        )[0];
    if (account === undefined) throw new HttpError(404, "Record not found");
    return c.json(await accountJson(app, account));
  });

  const accountOf = async (c: Ctx): Promise<Account> => {
    const id = c.req.param("id") ?? "";
    const account = /^\d{1,19}$/.test(id) ? await findAccount(app.database, id) : undefined;
    if (account === undefined) throw new HttpError(404, "Record not found");
    return account;
  };

  web.get("/api/v1/accounts/:id", async (c) => c.json(await accountJson(app, await accountOf(c))));

  web.get("/api/v1/accounts/:id/statuses", async (c) => {
    const reader = await signedIn(app, c);
    const account = await accountOf(c);
    const visible = reader?.account.id === account.id ? VISIBILITIES : (["public", "unlisted"] as const);
    return c.json(await statusesJson(app, account, await statusesOf(app, account.id, page(c), visible)));
  });

  web.get("/api/v1/accounts/:id/followers", async (c) => {
    const account = await accountOf(c);
    const rows = await app.database.query<Account & { id: string }>(
      "SELECT a.* FROM follows f JOIN accounts a ON a.id = f.account_id WHERE f.target_account_id = $1 ORDER BY f.id DESC LIMIT 80",
      [account.id],
    );
    return c.json(await Promise.all(rows.map((row) => accountJson(app, row))));
  });

  web.get("/api/v1/timelines/home", async (c) => {
    const { account } = await requireUser(app, c);
    const statuses = await findStatuses(app, await homeFeed(app, account.id, page(c)));
    return c.json(await statusesJson(app, account, statuses));
  });
}

function pages(app: App, web: Hono<Env>): void {
  web.get("/", async (c) => {
    await app.usable();
    const owner = app.settings.singleUserMode ? await firstLocal(app.database) : undefined;
    if (owner !== undefined) return c.redirect(`/@${owner.username}`, 302);
    return c.html(html("Mastodon stand-in", `<h1>${escapeHtml(app.settings.localDomain)}</h1>`));
  });

  web.get("/:handle{@[A-Za-z0-9_]+}", async (c) => {
    await app.usable();
    const account = await findLocal(app.database, c.req.param("handle").slice(1));
    if (account === undefined) return c.html(html("Not found", "<h1>Not found</h1>"), 404);
    const statuses = await statusesOf(app, account.id, { limit: 20, maxId: undefined, minId: undefined }, [
      "public",
      "unlisted",
    ]);
    const name = `@${account.username}@${app.settings.localDomain}`;
    return c.html(
      html(
        name,
        `<h1>${escapeHtml(name)}</h1>${statuses.map((status) => `<article>${toHtml(status.text)}</article>`).join("")}`,
      ),
    );
  });

  web.get("/:handle{@[A-Za-z0-9_]+}/:id{[0-9]+}", async (c) => {
    await app.usable();
    const status = await findStatus(app, c.req.param("id"));
    if (status === undefined || status.visibility === "private")
      return c.html(html("Not found", "<h1>Not found</h1>"), 404);
    return c.html(html("Post", `<article>${toHtml(status.text)}</article>`));
  });
}

function activityPub(app: App, fedi: Fedi, web: Hono<Env>): void {
  const handle = async (c: Ctx): Promise<Response> => {
    const length = Number(c.req.header("content-length") ?? 0);
    if (length > 1024 * 1024) return c.body(null, 413);
    const url = new URL(c.req.url);
    const bodyless = c.req.method === "GET" || c.req.method === "HEAD";
    // The address others used, which is what their signature covers; behind the ingress this process only sees plain http.
    const request = new Request(`https://${app.settings.webDomain}${url.pathname}${url.search}`, {
      method: c.req.method,
      headers: c.req.raw.headers,
      ...(bodyless ? {} : { body: await c.req.arrayBuffer() }),
    });
    return fedi.fetch(request, {
      contextData: app,
      onNotFound: () => new Response("Not found", { status: 404 }),
      // A browser at an actor's or a post's id is shown the page.
      onNotAcceptable: () => {
        const [, , name, , id] = url.pathname.split("/");
        return Response.redirect(`https://${app.settings.webDomain}/@${name}${id === undefined ? "" : `/${id}`}`, 302);
      },
      onUnauthorized: () => new Response("Request not signed", { status: 401 }),
    });
  };
  web.all("/users/*", handle);
  web.all("/inbox", handle);
}

export function createWeb(app: App): Hono<Env> {
  const web = new Hono<Env>();
  const { localDomain, webDomain, alternateDomains } = app.settings;
  const hosts = new Set([localDomain, webDomain, ...alternateDomains].map((host) => host.toLowerCase()));

  // Kubernetes asks here, by IP address and without TLS; like Mastodon's, it says only that the process serves.
  web.get("/health", (c) => c.text("OK"));

  web.use("*", async (c, next) => {
    const start = performance.now();
    await next();
    const url = new URL(c.req.url);
    log.info(
      `method=${c.req.method} path=${url.pathname} status=${c.res.status} duration=${(performance.now() - start).toFixed(1)}`,
    );
  });

  web.use("*", async (c, next) => {
    // Rails' host authorization, then its force_ssl: an ingress that does not pass the host or the scheme on gets nowhere.
    const named = [c.req.header("host"), ...(c.req.header("x-forwarded-host")?.split(/,\s*/) ?? [])].filter(
      (host) => host !== undefined,
    );
    const wrong = named.find(
      (host) => !hosts.has(host.toLowerCase()) && !hosts.has(host.toLowerCase().replace(/:\d+$/, "")),
    );
    if (named.length === 0 || wrong !== undefined) return c.text(`Blocked host: ${wrong ?? "none given"}\n`, 403);
    if (c.req.header("x-forwarded-proto")?.split(",")[0]?.trim() !== "https") {
      const url = new URL(c.req.url);
      return c.redirect(
        `https://${c.req.header("host") ?? webDomain}${url.pathname}${url.search}`,
        c.req.method === "GET" || c.req.method === "HEAD" ? 301 : 308,
      );
    }
    await next();
    c.header("server", "Mastodon");
    c.header("x-standin", `Mastodon ${BUILD.version}`);
    c.header("strict-transport-security", "max-age=63072000; includeSubDomains");
    c.header("x-content-type-options", "nosniff");
    c.header("x-request-id", c.req.header("x-request-id") ?? randomBytes(16).toString("hex"));
    return undefined;
  });

  wellKnown(app, web);
  api(app, web);
  instance(app, web);
  oauth(app, web);
  media(app, web);
  activityPub(app, createFedi(app), web);
  pages(app, web);

  web.notFound((c) =>
    c.req.path.startsWith("/api/")
      ? c.json({ error: "Record not found" }, 404)
      : c.html(html("Not found", "<h1>Not found</h1>"), 404),
  );
  web.onError((error, c) => {
    if (error instanceof HttpError) return c.json({ error: error.message }, error.status);
    if (error instanceof ValidationError) return c.json({ error: error.message }, 422);
    log.error(`method=${c.req.method} path=${c.req.path} error=${error.name}: ${explain(error)}`);
    return c.json({ error: "Something went wrong on the server" }, 500);
  });
  return web;
}

export async function runWeb(app: App): Promise<ServerType> {
  try {
    await app.usable();
  } catch (error) {
    // Keys that do not fit the database will not fit it later either; a database that is not there yet may come.
    if (error instanceof DecryptionError) throw error;
    log.warn(`web: the database is not usable yet: ${explain(error)}`);
  }
  if (app.settings.media.kind === "disk")
    await mkdir(app.settings.media.root, { recursive: true }).catch(() => undefined);
  const { bind: hostname, port } = app.settings;
  return new Promise((started, failed) => {
    const server = serve({ fetch: createWeb(app).fetch, hostname, port }, () => {
      log.info(`Puma stand-in for Mastodon ${BUILD.version}: listening on http://${hostname}:${port} (root ${ROOT})`);
      started(server);
    });
    server.once("error", failed);
  });
}
