import pg from "pg";
import { explain, log } from "./log.ts";
import type { DatabaseSettings } from "./settings.ts";

export type Client = pg.ClientBase | pg.Pool;

// bigint columns hold snowflake ids, which do not fit a JavaScript number; they travel as strings, as Mastodon's API has them.
pg.types.setTypeParser(pg.types.builtins.INT8, (value) => value);

type Ssl = Exclude<pg.PoolConfig["ssl"], undefined>;

function attempts(mode: DatabaseSettings["ssl"]): readonly Ssl[] {
  switch (mode) {
    case "disable":
      return [false];
    // libpq's default: encrypted where the server can, plain where it cannot. node-postgres does not know it.
    case "prefer":
      return [{ rejectUnauthorized: false }, false];
    case "require":
      return [{ rejectUnauthorized: false }];
    case "verify":
      return [{}];
  }
}

function config(settings: DatabaseSettings, ssl: Ssl, database = settings.database): pg.ClientConfig {
  return {
    host: settings.host,
    port: settings.port,
    user: settings.user,
    password: settings.password,
    database,
    ssl,
    // A slow disk makes a commit, or a new connection, wait for minutes, and Mastodon waits with it; a server that vanished with its node
    // never answers at all. Long enough for the one, and an end to the other. Nor does a request that waits for another one's connection
    // fail: Puma has no more threads than the pool has connections, so there it waits before it is looked at.
    connectionTimeoutMillis: 180_000,
    query_timeout: 180_000,
    keepAlive: true,
    application_name: "",
  };
}

const cannotEncrypt = (error: unknown): boolean => error instanceof Error && /does not support SSL/.test(error.message);

/** One connection, for jobs that need a session of their own (locks, CREATE DATABASE). */
export async function connect(settings: DatabaseSettings, database = settings.database): Promise<pg.Client> {
  let refused: unknown;
  for (const ssl of attempts(settings.ssl)) {
    const client = new pg.Client({ ...config(settings, ssl, database), query_timeout: 0 });
    try {
      await client.connect();
      return client;
    } catch (error) {
      await client.end().catch(() => undefined);
      if (!cannotEncrypt(error)) throw error;
      refused = error;
    }
  }
  throw refused;
}

/**
 * The processes' database. Connects when first used, and again after every loss, so that a web process starts without its database as Puma
 * does, and finds the new primary after a switch without a restart.
 */
export class Database {
  readonly #settings: DatabaseSettings;
  #pool: Promise<pg.Pool> | undefined;

  constructor(settings: DatabaseSettings) {
    this.#settings = settings;
  }

  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const pool = await this.pool();
    return (await pool.query<Row>(text, [...values])).rows;
  }

  async transaction<T>(body: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const pool = await this.pool();
    const client = await pool.connect();
    let broken: Error | undefined;
    try {
      await client.query("BEGIN");
      const result = await body(client);
      // Whoever calls this may tell a user "it is saved" only after this returned. Postgres answers the COMMIT of a transaction that it has
      // given up with "ROLLBACK" and no error.
      const { command } = await client.query("COMMIT");
      if (command !== "COMMIT") throw new Error(`the database answered COMMIT with ${command}`);
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch((fault: unknown) => {
        broken = fault instanceof Error ? fault : new Error(String(fault));
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async pool(): Promise<pg.Pool> {
    this.#pool ??= this.#open().catch((error: unknown) => {
      this.#pool = undefined;
      throw error;
    });
    return this.#pool;
  }

  async #open(): Promise<pg.Pool> {
    let refused: unknown;
    for (const ssl of attempts(this.#settings.ssl)) {
      const pool = new pg.Pool({
        ...config(this.#settings, ssl),
        max: this.#settings.pool,
        idleTimeoutMillis: 300_000,
      });
      // An idle connection that dies is an event of the pool; unheard, it would end the process.
      pool.on("error", (error) => log.warn(`database: idle connection lost: ${explain(error)}`));
      try {
        (await pool.connect()).release();
        return pool;
      } catch (error) {
        await pool.end();
        if (!cannotEncrypt(error)) throw error;
        refused = error;
      }
    }
    throw refused;
  }

  async close(): Promise<void> {
    const pool = this.#pool;
    this.#pool = undefined;
    await (await pool?.catch(() => undefined))?.end();
  }
}
