/** What every Rails process of the stand-in holds in its hands. */
import { assertReadable } from "./accounts.ts";
import { Vault } from "./crypto.ts";
import { Database } from "./database.ts";
import { missingForCode } from "./migrations.ts";
import { Queue } from "./queue.ts";
import { type Redis, openRedis } from "./redis.ts";
import type { Settings } from "./settings.ts";

export class App {
  readonly settings: Settings;
  readonly database: Database;
  readonly vault: Vault;
  /** Feeds, events, idempotency keys, rate limits. */
  readonly redis: Redis;
  readonly sidekiqRedis: Redis;
  readonly cache: Redis;
  readonly queue: Queue;
  #usable: Promise<void> | undefined;

  constructor(settings: Settings) {
    this.settings = settings;
    this.database = new Database(settings.database);
    this.vault = new Vault(settings.keys);
    this.redis = openRedis(settings.redis, "base");
    this.sidekiqRedis = openRedis(settings.sidekiqRedis, "sidekiq");
    this.cache = openRedis(settings.cacheRedis, "cache");
    this.queue = new Queue(this.sidekiqRedis);
  }

  /**
   * The database has the schema this code needs, and these keys open what is in it. Asked once, and again after every failure: a server that
   * started before its database answers as soon as that is there.
   */
  usable(): Promise<void> {
    this.#usable ??= this.#check().catch((error: unknown) => {
      this.#usable = undefined;
      throw error;
    });
    return this.#usable;
  }

  async #check(): Promise<void> {
    const rows = await this.database.query<{ version: string }>("SELECT version FROM schema_migrations");
    const missing = missingForCode(new Set(rows.map((row) => row.version)));
    // The real code would fail on the first column that is not there.
    if (missing.length > 0)
      throw new Error(
        `Migrations are pending: ${missing.map((migration) => `${migration.version} ${migration.name}`).join(", ")}`,
      );
    await assertReadable(this.database, this.vault);
  }

  async close(): Promise<void> {
    await this.database.close();
    for (const redis of [this.redis, this.sidekiqRedis, this.cache]) redis.disconnect();
  }
}
