/** Environment variables -> plain settings, once, before anything starts. Same names and defaults as Mastodon 4.6. */
import { LEVELS, type Level, Abort } from "./log.ts";

export interface DatabaseSettings {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly ssl: "disable" | "prefer" | "require" | "verify";
  readonly pool: number;
}

export interface RedisSettings {
  readonly url?: string;
  readonly host: string;
  readonly port: number;
  readonly username?: string;
  readonly password?: string;
  readonly db: number;
}

export interface S3Settings {
  readonly kind: "s3";
  /** Where requests go, without the bucket. */
  readonly endpoint: URL;
  readonly pathStyle: boolean;
  readonly bucket: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** The canned ACL of an upload; empty when the bucket does not take ACLs. */
  readonly permission: string;
  /** What a file's public address begins with, up to and including the last slash. */
  readonly publicBase: string;
  readonly openTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly retries: number;
}

/** Where an object is asked for, with the bucket in the path or in the host. */
export function objectUrl(media: S3Settings, key: string): URL {
  const url = new URL(media.endpoint);
  const base = url.pathname.replace(/\/$/, "");
  if (media.pathStyle) url.pathname = `${base}/${media.bucket}/${key}`;
  else {
    url.hostname = `${media.bucket}.${url.hostname}`;
    url.pathname = `${base}/${key}`;
  }
  return url;
}

export interface DiskSettings {
  readonly kind: "disk";
  readonly root: string;
  readonly publicBase: string;
}

export type MediaSettings = S3Settings | DiskSettings;

export interface Keys {
  readonly secretKeyBase: string;
  readonly primaryKey: string;
  readonly deterministicKey: string;
  readonly keyDerivationSalt: string;
}

export interface SearchSettings {
  readonly url: URL;
  readonly user: string;
  readonly password: string;
  readonly prefix: string;
}

export interface Settings {
  readonly localDomain: string;
  readonly webDomain: string;
  readonly alternateDomains: readonly string[];
  readonly singleUserMode: boolean;
  readonly authorizedFetch: boolean;
  readonly allowedPrivateAddresses: readonly string[];
  readonly bind: string;
  readonly port: number;
  readonly database: DatabaseSettings;
  readonly redis: RedisSettings;
  readonly sidekiqRedis: RedisSettings;
  readonly cacheRedis: RedisSettings;
  readonly media: MediaSettings;
  readonly keys: Keys;
  readonly vapidPublicKey: string;
  readonly streamingUrl: string;
  readonly search: SearchSettings | undefined;
  readonly serveStaticFiles: boolean;
  readonly skipPostDeploymentMigrations: boolean;
  readonly sidekiqReadyFilename: string | undefined;
  readonly exporter: { readonly host: string; readonly port: number } | undefined;
}

type Env = NodeJS.ProcessEnv;

function integer(env: Env, name: string, fallback: number): number {
  const value = env[name];
  if (value === undefined || value === "") return fallback;
  // A Service called `redis` or `db` makes Kubernetes set REDIS_PORT=tcp://…; the real thing fails on it as well.
  if (!/^\d+$/.test(value)) throw new Abort(`Invalid ${name} environment variable: it must be a whole number`);
  return Number(value);
}

const present = (value: string | undefined): string | undefined =>
  value === undefined || value === "" ? undefined : value;

const flag = (env: Env, name: string): boolean => env[name] === "true";

/** What the real image knows and the stand-in cannot do: said aloud, never ignored in silence. */
function refuseUnsupported(env: Env): void {
  const on = (name: string): boolean => flag(env, name);
  const set = (name: string): boolean => present(env[name]) !== undefined;
  const faults: string[] = [];
  for (const name of [
    "SWIFT_ENABLED",
    "AZURE_ENABLED",
    "LDAP_ENABLED",
    "PAM_ENABLED",
    "CAS_ENABLED",
    "SAML_ENABLED",
    "OIDC_ENABLED",
  ])
    if (on(name)) faults.push(name);
  for (const name of [
    "OMNIAUTH_ONLY",
    "LIMITED_FEDERATION_MODE",
    "WHITELIST_MODE",
    "DISALLOW_UNAUTHENTICATED_API_ACCESS",
  ])
    if (on(name)) faults.push(name);
  for (const name of ["SOCKET", "SELF_DESTRUCT", "http_proxy", "http_hidden_proxy", "PROXY_PROTO_V1"])
    if (set(name)) faults.push(name);
  for (const prefix of ["", "SIDEKIQ_", "CACHE_"])
    if (set(`${prefix}REDIS_SENTINELS`)) faults.push(`${prefix}REDIS_SENTINELS`);
  if (faults.length > 0)
    throw new Abort(`The stand-in for Mastodon does not implement ${faults.join(", ")}; the real image does.`);

  for (const prefix of ["", "SIDEKIQ_", "CACHE_"])
    if (set(`${prefix}REDIS_NAMESPACE`))
      throw new Abort(
        `ERROR: the ${prefix}REDIS_NAMESPACE environment variable is no longer supported. It was removed in Mastodon 4.4.`,
      );
}

function database(env: Env): DatabaseSettings {
  const pool = integer(env, "DB_POOL", integer(env, "MAX_THREADS", 5));
  const mode = present(env.DB_SSLMODE) ?? "prefer";
  const ssl =
    mode === "disable" || mode === "require"
      ? mode
      : mode.startsWith("verify")
        ? "verify"
        : mode === "no-verify"
          ? "require"
          : "prefer";
  const url = present(env.DATABASE_URL);
  if (url !== undefined) {
    const parsed = new URL(url);
    return {
      host: parsed.hostname,
      port: parsed.port === "" ? 5432 : Number(parsed.port),
      user: decodeURIComponent(parsed.username),
      password: decodeURIComponent(parsed.password) || (env.DB_PASS ?? ""),
      database: parsed.pathname.slice(1),
      ssl,
      pool,
    };
  }
  const host = present(env.DB_HOST);
  if (host === undefined)
    throw new Abort(
      "No database: neither DB_HOST nor DATABASE_URL is set (the real image would look for one on localhost and fail).",
    );
  return {
    host,
    port: integer(env, "DB_PORT", 5432),
    user: present(env.DB_USER) ?? "mastodon",
    password: env.DB_PASS ?? "",
    database: present(env.DB_NAME) ?? "mastodon_production",
    ssl,
    pool,
  };
}

function redis(env: Env, prefix: "" | "SIDEKIQ_" | "CACHE_"): RedisSettings | undefined {
  const read = (name: string): string | undefined => present(env[`${prefix}REDIS_${name}`]);
  const url = read("URL");
  const host = read("HOST");
  if (url === undefined && host === undefined) return undefined;
  const username = read("USER");
  const password = read("PASSWORD");
  return {
    ...(url === undefined ? {} : { url }),
    host: host ?? "localhost",
    port: integer(env, `${prefix}REDIS_PORT`, 6379),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    db: integer(env, `${prefix}REDIS_DB`, 0),
  };
}

function media(env: Env, root: string, webDomain: string): MediaSettings {
  if (!flag(env, "S3_ENABLED")) {
    const path = present(env.PAPERCLIP_ROOT_URL) ?? "/system";
    return {
      kind: "disk",
      root: present(env.PAPERCLIP_ROOT_PATH) ?? `${root}/public/system`,
      publicBase: path.startsWith("http") ? `${path}/` : `https://${present(env.CDN_HOST) ?? webDomain}${path}/`,
    };
  }
  const bucket = env.S3_BUCKET ?? "";
  const region = present(env.S3_REGION) ?? "us-east-1";
  const protocol = present(env.S3_PROTOCOL) ?? "https";
  const hostname = present(env.S3_HOSTNAME) ?? `s3-${region}.amazonaws.com`;
  const endpoint = present(env.S3_ENDPOINT);
  const alias = present(env.S3_ALIAS_HOST) ?? present(env.S3_CLOUDFRONT_HOST);
  return {
    kind: "s3",
    endpoint: new URL(endpoint ?? `https://s3.${region}.amazonaws.com`),
    // Mastodon's option has the opposite of its name's meaning: `true` turns path-style addresses off.
    pathStyle: endpoint !== undefined && env.S3_OVERRIDE_PATH_STYLE !== "true",
    bucket,
    region,
    accessKeyId: env.AWS_ACCESS_KEY_ID ?? "",
    secretAccessKey: env.AWS_SECRET_ACCESS_KEY ?? "",
    permission: env.S3_PERMISSION ?? "public-read",
    publicBase:
      alias !== undefined
        ? `${protocol}://${alias}/`
        : endpoint !== undefined
          ? `${protocol}://${hostname}/${bucket}/`
          : `${protocol}://${bucket}.${hostname}/`,
    openTimeoutMs: integer(env, "S3_OPEN_TIMEOUT", 5) * 1000,
    readTimeoutMs: integer(env, "S3_READ_TIMEOUT", 5) * 1000,
    retries: integer(env, "S3_RETRY_LIMIT", 0),
  };
}

function search(env: Env): SearchSettings | undefined {
  if (!flag(env, "ES_ENABLED")) return undefined;
  const host = present(env.ES_HOST) ?? "localhost";
  return {
    url: new URL(`${/^https?:\/\//.test(host) ? host : `http://${host}`}:${integer(env, "ES_PORT", 9200)}`),
    user: env.ES_USER ?? "",
    password: env.ES_PASS ?? "",
    prefix: present(env.ES_PREFIX) === undefined ? "" : `${env.ES_PREFIX}_`,
  };
}

/** The three Active Record keys and SECRET_KEY_BASE; without them the real image aborts at boot, and so does this. */
export function readKeys(env: Env): Keys {
  const names = [
    "ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY",
    "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT",
    "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY",
  ];
  if (names.some((name) => present(env[name]) === undefined))
    throw new Abort(
      `Mastodon now requires that these variables are set:\n\n${names.map((name) => `  - ${name}`).join("\n")}\n\n` +
        "Run `bin/rails db:encryption:init` to generate values and then assign the environment variables.",
    );
  if (present(env.SECRET_KEY_BASE) === undefined)
    throw new Abort(
      "Missing `secret_key_base` for 'production' environment, set the SECRET_KEY_BASE environment variable.",
    );
  return {
    secretKeyBase: env.SECRET_KEY_BASE ?? "",
    primaryKey: env.ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY ?? "",
    deterministicKey: env.ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY ?? "",
    keyDerivationSalt: env.ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT ?? "",
  };
}

export function logLevel(env: Env, name: "RAILS_LOG_LEVEL" | "LOG_LEVEL"): Level {
  const value = present(env[name]) ?? "info";
  // Pino's names for the streaming server, which Rails does not have.
  if (name === "LOG_LEVEL" && ["silly", "trace", "verbose", "http"].includes(value)) return "debug";
  const found = LEVELS.find((level) => level === value);
  if (found === undefined) throw new Abort(`${name} is "${value}"; it takes one of ${LEVELS.join(", ")}.`);
  return found;
}

/** Everything a Rails process reads. `root` is Mastodon's folder, /opt/mastodon in the image. */
export function readSettings(env: Env, root: string): Settings {
  if ((present(env.RAILS_ENV) ?? "production") !== "production")
    throw new Abort(`RAILS_ENV is "${env.RAILS_ENV}"; the stand-in only has "production".`);
  refuseUnsupported(env);
  const keys = readKeys(env);
  const base = redis(env, "");
  if (base === undefined)
    throw new Abort(
      "No Redis: neither REDIS_HOST nor REDIS_URL is set (the real image would look for one on localhost and fail).",
    );
  const port = integer(env, "PORT", 3000);
  const localDomain = present(env.LOCAL_DOMAIN) ?? `localhost:${port}`;
  const webDomain = present(env.WEB_DOMAIN) ?? localDomain;
  const ready = present(env.MASTODON_SIDEKIQ_READY_FILENAME);
  if (ready !== undefined && ready.includes("/"))
    throw new Abort("MASTODON_SIDEKIQ_READY_FILENAME is not a valid filename");
  return {
    localDomain,
    webDomain,
    alternateDomains: (env.ALTERNATE_DOMAINS ?? "").split(/\s*,\s*/).filter((domain) => domain !== ""),
    singleUserMode: flag(env, "SINGLE_USER_MODE"),
    authorizedFetch: flag(env, "AUTHORIZED_FETCH"),
    allowedPrivateAddresses: (env.ALLOWED_PRIVATE_ADDRESSES ?? "")
      .split(/(?:\s*,\s*|\s+)/)
      .filter((address) => address !== ""),
    bind: present(env.BIND) ?? "127.0.0.1",
    port,
    database: database(env),
    redis: base,
    sidekiqRedis: redis(env, "SIDEKIQ_") ?? base,
    cacheRedis: redis(env, "CACHE_") ?? base,
    media: media(env, root, webDomain),
    keys,
    vapidPublicKey: env.VAPID_PUBLIC_KEY ?? "",
    streamingUrl: present(env.STREAMING_API_BASE_URL) ?? `wss://${webDomain}`,
    search: search(env),
    serveStaticFiles: present(env.RAILS_SERVE_STATIC_FILES) !== undefined,
    skipPostDeploymentMigrations: flag(env, "SKIP_POST_DEPLOYMENT_MIGRATIONS"),
    sidekiqReadyFilename: ready,
    exporter:
      flag(env, "MASTODON_PROMETHEUS_EXPORTER_ENABLED") && flag(env, "MASTODON_PROMETHEUS_EXPORTER_LOCAL")
        ? {
            host: present(env.MASTODON_PROMETHEUS_EXPORTER_HOST) ?? "localhost",
            port: integer(env, "MASTODON_PROMETHEUS_EXPORTER_PORT", 9394),
          }
        : undefined,
  };
}

/** The little that the streaming server reads. It needs none of Rails' secrets, though the chart hands it all of them. */
export interface StreamingSettings {
  readonly bind: string;
  readonly port: number;
  readonly database: DatabaseSettings;
  readonly redis: RedisSettings;
}

export function readStreamingSettings(env: Env): StreamingSettings {
  refuseUnsupported(env);
  const base = redis(env, "");
  if (base === undefined)
    throw new Abort(
      "No Redis: neither REDIS_HOST nor REDIS_URL is set (the real image would look for one on localhost and fail).",
    );
  return {
    bind: present(env.BIND) ?? "127.0.0.1",
    port: integer(env, "PORT", 4000),
    database: database(env),
    redis: base,
  };
}
