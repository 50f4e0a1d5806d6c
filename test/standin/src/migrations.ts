/**
 * The schema, and how it changes: pre-deployment migrations, which old code must survive, and post-deployment ones, which it need not.
 * `db:prepare` on an empty database loads the schema and seeds it, as Rails does.
 */
import type pg from "pg";
import { BUILD, atLeast } from "./build-info.ts";
import { Vault, generateSigningKey } from "./crypto.ts";
import { connect } from "./database.ts";
import { Abort, explain, log } from "./log.ts";
import type { DatabaseSettings, Settings } from "./settings.ts";

export interface Migration {
  readonly version: string;
  readonly name: string;
  readonly kind: "pre" | "post";
  /** The first release that has it; a build of an earlier version does not know it. */
  readonly since: string;
  readonly sql: string;
}

const SCHEMA = `
CREATE SEQUENCE snowflake_seq;

-- Mastodon's ids: 48 bits of milliseconds, 16 bits against collisions. Sorting by id is sorting by time.
CREATE FUNCTION timestamp_id() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT ((date_part('epoch', clock_timestamp()) * 1000)::bigint << 16) | (nextval('snowflake_seq') & 65535)
$$;

CREATE TABLE user_roles (id bigint PRIMARY KEY, name varchar NOT NULL UNIQUE);

CREATE TABLE accounts (
  id bigint PRIMARY KEY DEFAULT timestamp_id(),
  username varchar NOT NULL,
  domain varchar,
  private_key text,
  public_key text NOT NULL DEFAULT '',
  uri varchar NOT NULL DEFAULT '',
  inbox_url varchar NOT NULL DEFAULT '',
  shared_inbox_url varchar NOT NULL DEFAULT '',
  display_name varchar NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX index_accounts_on_username_and_domain_lower ON accounts (lower(username), coalesce(lower(domain), ''));
CREATE UNIQUE INDEX index_accounts_on_uri ON accounts (uri) WHERE uri <> '';

CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL UNIQUE REFERENCES accounts ON DELETE CASCADE,
  email varchar NOT NULL UNIQUE,
  encrypted_password varchar NOT NULL,
  role_id bigint REFERENCES user_roles,
  confirmed_at timestamptz,
  approved boolean NOT NULL DEFAULT true,
  disabled boolean NOT NULL DEFAULT false,
  otp_required_for_login boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE oauth_access_tokens (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  token_digest varchar NOT NULL UNIQUE,
  resource_owner_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
  scopes varchar NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz
);

CREATE TABLE statuses (
  id bigint PRIMARY KEY DEFAULT timestamp_id(),
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  text text NOT NULL,
  spoiler_text text NOT NULL DEFAULT '',
  sensitive boolean NOT NULL DEFAULT false,
  visibility varchar NOT NULL,
  language varchar,
  in_reply_to_id bigint REFERENCES statuses ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- Only the stand-in has this one: set once the jobs of a post are in Redis, so that a sweeper finds what was saved but never queued.
  enqueued_at timestamptz
);
CREATE INDEX index_statuses_on_account_id ON statuses (account_id, id DESC);
CREATE INDEX index_statuses_not_enqueued ON statuses (id) WHERE enqueued_at IS NULL;

CREATE TABLE follows (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  target_account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  uri varchar NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (account_id, target_account_id)
);

CREATE TABLE media_attachments (
  id bigint PRIMARY KEY DEFAULT timestamp_id(),
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  status_id bigint REFERENCES statuses ON DELETE SET NULL,
  file_key varchar NOT NULL,
  file_content_type varchar NOT NULL,
  file_file_size bigint NOT NULL,
  description text,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE settings (var varchar PRIMARY KEY, value text);
`;

/** The oldest release whose schema `SCHEMA` is; everything later is a migration of its own. */
const RELEASES: readonly Migration[] = [
  { version: "20260101000000", name: "CreateSchema", kind: "pre", since: "4.6.0", sql: SCHEMA },
  {
    version: "20260615000000",
    name: "AddEditedAtToStatuses",
    kind: "pre",
    since: "4.6.3",
    sql: "ALTER TABLE statuses ADD COLUMN edited_at timestamptz",
  },
  {
    version: "20260615000001",
    name: "AddIndexOnFollowsTarget",
    kind: "post",
    since: "4.6.3",
    sql: "CREATE INDEX index_follows_on_target ON follows (target_account_id)",
  },
  {
    version: "20260901000000",
    name: "AddMemorialToAccounts",
    kind: "pre",
    since: "4.7.0",
    sql: "ALTER TABLE accounts ADD COLUMN memorial boolean NOT NULL DEFAULT false",
  },
  {
    version: "20260901000001",
    name: "AddIndexOnMediaStatus",
    kind: "post",
    since: "4.7.0",
    sql: "CREATE INDEX index_media_attachments_on_status ON media_attachments (status_id)",
  },
];

/** Baked in by `build.ts --fail-migration` and `--fail-post-migration`: sorts last, so it stops an installation and an upgrade alike. */
const FAILING: Omit<Migration, "kind"> = {
  version: "20991231235959",
  name: "FailOnPurpose",
  since: "0",
  sql: "DO $$ BEGIN RAISE EXCEPTION 'this image was built with a migration that fails'; END $$",
};

export function knownMigrations(version = BUILD.version, failing = BUILD.failMigration): readonly Migration[] {
  const known = RELEASES.filter((migration) => atLeast(version, migration.since));
  return failing === false ? known : [...known, { ...FAILING, kind: failing === "post" ? "post" : "pre" }];
}

// Rails takes an advisory lock made from the database's name, so that two migrations never run at once.
const LOCK = 4_020_110_131;

async function applied(client: pg.ClientBase): Promise<Set<string>> {
  const { rows } = await client.query<{ there: string | null }>(
    "SELECT to_regclass('schema_migrations')::text AS there",
  );
  if (typeof rows[0]?.there !== "string") return new Set();
  const versions = await client.query<{ version: string }>("SELECT version FROM schema_migrations");
  return new Set(versions.rows.map((row) => row.version));
}

async function run(client: pg.ClientBase, migration: Migration): Promise<void> {
  process.stdout.write(`== ${migration.version} ${migration.name}: migrating ${"=".repeat(30)}\n`);
  const start = performance.now();
  await client.query("BEGIN");
  try {
    await client.query(
      "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar PRIMARY KEY); " +
        "CREATE TABLE IF NOT EXISTS ar_internal_metadata (key varchar PRIMARY KEY, value varchar); " +
        "INSERT INTO ar_internal_metadata VALUES ('environment', 'production') ON CONFLICT DO NOTHING",
    );
    await client.query(migration.sql);
    await client.query("INSERT INTO schema_migrations (version) VALUES ($1)", [migration.version]);
    await client.query("COMMIT");
  } catch (cause) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw new Abort(
      `rake aborted!\nStandardError: An error has occurred, this and all later migrations canceled: (StandardError)\n\n` +
        `${migration.version} ${migration.name}: ${explain(cause)}`,
    );
  }
  process.stdout.write(
    `== ${migration.version} ${migration.name}: migrated (${((performance.now() - start) / 1000).toFixed(4)}s)\n`,
  );
}

async function seed(client: pg.ClientBase, settings: Settings): Promise<void> {
  await client.query(
    "INSERT INTO user_roles (id, name) VALUES (-99, ''), (1, 'Moderator'), (2, 'Admin'), (3, 'Owner') ON CONFLICT DO NOTHING",
  );
  // The instance actor, as Mastodon's seeds make it. Its encrypted key exists from the first minute of a database's life, so that wrong keys
  // are noticed even before there is an owner.
  const key = generateSigningKey();
  await client.query(
    "INSERT INTO accounts (id, username, private_key, public_key) VALUES (-99, 'mastodon.internal', $1, $2) ON CONFLICT DO NOTHING",
    [new Vault(settings.keys).encrypt(key.privateKey), key.publicKey],
  );
  await client.query("INSERT INTO settings (var, value) VALUES ('registrations_mode', 'none') ON CONFLICT DO NOTHING");
}

async function locked<T>(database: DatabaseSettings, body: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(database);
  try {
    const { rows } = await client.query<{ locked: boolean }>("SELECT pg_try_advisory_lock($1) AS locked", [LOCK]);
    if (rows[0]?.locked !== true)
      throw new Abort(
        "ActiveRecord::ConcurrentMigrationError: Cannot run migrations because another migration process is currently running.",
      );
    return await body(client);
  } finally {
    await client.end();
  }
}

async function migratePending(client: pg.ClientBase, settings: Settings): Promise<void> {
  const done = await applied(client);
  for (const migration of knownMigrations()) {
    if (done.has(migration.version)) continue;
    if (migration.kind === "post" && settings.skipPostDeploymentMigrations) continue;
    await run(client, migration);
  }
}

/** `rake db:migrate`: every pending migration, those after deployment too unless SKIP_POST_DEPLOYMENT_MIGRATIONS says otherwise. Never seeds. */
export async function migrate(settings: Settings): Promise<void> {
  await locked(settings.database, (client) => migratePending(client, settings));
}

/** `rake db:prepare`: makes the database if it is not there, migrates, and seeds what was empty. */
export async function prepare(settings: Settings): Promise<void> {
  await createIfMissing(settings.database);
  await locked(settings.database, async (client) => {
    await migratePending(client, settings);
    // Rails seeds when it has just loaded the schema. Asking the data instead also covers an installation whose first try failed half-way,
    // which with the real image cannot happen: its schema is loaded in one piece.
    const { rows } = await client.query("SELECT 1 FROM user_roles LIMIT 1");
    if (rows.length === 0) await seed(client, settings);
  });
}

export async function seedOnly(settings: Settings): Promise<void> {
  await locked(settings.database, (client) => seed(client, settings));
}

export async function createIfMissing(database: DatabaseSettings): Promise<void> {
  try {
    await (await connect(database)).end();
  } catch (error) {
    if ((error as { code?: string }).code !== "3D000") throw error;
    const client = await connect(database, "postgres");
    try {
      await client.query(`CREATE DATABASE "${database.database.replaceAll('"', '""')}"`);
      log.info(`Created database '${database.database}'`);
    } finally {
      await client.end();
    }
  }
}

export async function currentVersion(settings: Settings): Promise<string> {
  const client = await connect(settings.database);
  try {
    return [...(await applied(client))].sort().at(-1) ?? "0";
  } finally {
    await client.end();
  }
}

/** Pre-deployment migrations that this build's code needs and the database has not got. */
export function missingForCode(done: ReadonlySet<string>): readonly Migration[] {
  return knownMigrations().filter((migration) => migration.kind === "pre" && !done.has(migration.version));
}
