import type { KvKey, KvStore, KvStoreListEntry, KvStoreSetOptions } from "@fedify/fedify";
import type { Temporal } from "@js-temporal/polyfill";
import { Redis } from "ioredis";
import { explain, log } from "./log.ts";
import type { RedisSettings } from "./settings.ts";

export type { Redis } from "ioredis";

export interface RedisOptions {
  /** A subscriber or a poller waits for its server as long as it takes; a web request must not. */
  readonly patient?: boolean;
}

/**
 * A connection that is made when first used. A server that is away, or that pauses its writes, makes a command fail after five seconds:
 * a request then answers with an error instead of holding its user, as Mastodon's does.
 */
export function openRedis(settings: RedisSettings, name: string, options: RedisOptions = {}): Redis {
  const common = {
    lazyConnect: true,
    connectTimeout: 5_000,
    // Both address families: ioredis asks for IPv4 only unless told otherwise.
    family: 0,
    retryStrategy: (attempt: number) => Math.min(100 * attempt, 1_000),
    ...(options.patient ? { maxRetriesPerRequest: null } : { commandTimeout: 5_000, maxRetriesPerRequest: 2 }),
  };
  const redis =
    settings.url === undefined
      ? new Redis({
          ...common,
          host: settings.host,
          port: settings.port,
          db: settings.db,
          ...(settings.username === undefined ? {} : { username: settings.username }),
          ...(settings.password === undefined ? {} : { password: settings.password }),
        })
      : new Redis(settings.url, common);
  let last = "";
  redis.on("error", (error: Error) => {
    // The same refusal comes with every attempt; once is enough.
    const text = explain(error);
    if (text !== last) log.warn(`redis (${name}): ${text}`);
    last = text;
  });
  redis.on("ready", () => (last = ""));
  return redis;
}

/** Fedify's memory of documents, keys and activities already seen, in the cache Redis: all of it may be lost at any time. */
export class RedisKvStore implements KvStore {
  readonly #redis: Redis;
  readonly #prefix = "cache:fedify:";

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  #key(key: KvKey): string {
    return this.#prefix + key.map(encodeURIComponent).join("/");
  }

  async get<T = unknown>(key: KvKey): Promise<T | undefined> {
    const value = await this.#redis.get(this.#key(key));
    return value === null ? undefined : (JSON.parse(value) as T);
  }

  async set(key: KvKey, value: unknown, options?: KvStoreSetOptions): Promise<void> {
    const text = JSON.stringify(value);
    // Fedify's types speak of a global Temporal, which Node 24 and TypeScript 5 have not; the value is the polyfill's.
    const ttl = (options?.ttl as Temporal.Duration | undefined)?.total("millisecond");
    if (ttl === undefined) await this.#redis.set(this.#key(key), text);
    else await this.#redis.set(this.#key(key), text, "PX", Math.max(1, Math.round(ttl)));
  }

  async delete(key: KvKey): Promise<void> {
    await this.#redis.del(this.#key(key));
  }

  async *list(prefix?: KvKey): AsyncIterable<KvStoreListEntry> {
    const start = prefix === undefined ? this.#prefix : this.#key(prefix);
    for await (const keys of this.#redis.scanStream({
      match: `${start.replaceAll(/[*?[\]\\]/g, "\\$&")}*`,
      count: 200,
    })) {
      for (const key of keys as string[]) {
        const value = await this.#redis.get(key);
        const parts = key.slice(this.#prefix.length).split("/").map(decodeURIComponent) as [string, ...string[]];
        if (value !== null) yield { key: parts, value: JSON.parse(value) as unknown };
      }
    }
  }
}
