/**
 * Jobs in Redis, under Sidekiq's names (`queue:push`, `retry`, `dead`, `schedule`, `queues`), so that whatever watches a real Sidekiq sees
 * the same keys.
 *
 * As with Sidekiq's free edition a job that is being worked on is out of Redis: its process has the only copy. One that is told to stop gives
 * back what it has not done; one that is killed loses it, and so does one whose Redis is gone before it ends.
 *
 * All times are Redis' own: they stay right on a site whose clocks differ.
 */
import { randomBytes } from "node:crypto";
import type { Redis } from "./redis.ts";

export const QUEUES = ["default", "push", "ingress", "mailers", "pull", "scheduler", "fasp"] as const;
export type QueueName = (typeof QUEUES)[number];

export interface Job {
  readonly jid: string;
  readonly queue: QueueName;
  readonly class: string;
  readonly args: readonly unknown[];
  readonly created_at: number;
  readonly retry_count: number;
  readonly error_message?: string;
}

export type NewJob = Pick<Job, "queue" | "class" | "args">;

/** How many times Mastodon's delivery jobs are tried before they go to `dead`. */
export const MAX_RETRIES = 16;

const NOW = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000);";

const FETCH = `
for i = 1, #KEYS do
  local job = redis.call('RPOP', KEYS[i])
  if job then return job end
end
return false`;

const LATER = `${NOW} return redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])`;

const PROMOTE = `${NOW}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
for _, job in ipairs(due) do
  redis.call('ZREM', KEYS[1], job)
  redis.call('LPUSH', 'queue:' .. cjson.decode(job).queue, job)
end
return #due`;

/** Sidekiq's own formula: 15 s, then ever longer, with some chance in it so that many do not come back at once. */
export function backoffMs(retries: number, random = Math.random()): number {
  return (retries ** 4 + 15 + Math.floor(random * 10) * (retries + 1)) * 1000;
}

/** A job that must not be tried again, as Mastodon does with answers that no repetition changes. */
export class GiveUp extends Error {
  override readonly name = "GiveUp";
}

export class Queue {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** All of them, or none: one MULTI. */
  async enqueue(jobs: readonly NewJob[]): Promise<void> {
    if (jobs.length === 0) return;
    const multi = this.#redis.multi();
    for (const job of jobs) {
      const full: Job = { ...job, jid: randomBytes(12).toString("hex"), created_at: Date.now(), retry_count: 0 };
      multi.sadd("queues", job.queue);
      multi.lpush(`queue:${job.queue}`, JSON.stringify(full));
    }
    const results = await multi.exec();
    if (results === null) throw new Error("Redis did not run the transaction");
    for (const [error] of results) if (error !== null) throw error;
  }

  /** The oldest job of the first queue that has one. From now on the caller has the only copy. */
  async fetch(queues: readonly QueueName[]): Promise<string | undefined> {
    const keys = queues.map((queue) => `queue:${queue}`);
    const job = (await this.#redis.eval(FETCH, keys.length, ...keys)) as string | null;
    return job ?? undefined;
  }

  async count(what: "processed" | "failed"): Promise<void> {
    await this.#redis.incr(`stat:${what}`);
  }

  /** Puts a failed job where it waits for its next try, or with the dead. Tells which. */
  async fail(raw: string, error: string): Promise<"retry" | "dead"> {
    const job = JSON.parse(raw) as Job;
    const next: Job = { ...job, retry_count: job.retry_count + 1, error_message: error.slice(0, 500) };
    if (job.retry_count >= MAX_RETRIES) return this.bury(raw, error);
    await this.#redis.eval(LATER, 1, "retry", JSON.stringify(next), backoffMs(job.retry_count));
    await this.count("failed");
    return "retry";
  }

  async bury(raw: string, error: string): Promise<"dead"> {
    const dead: Job = { ...(JSON.parse(raw) as Job), error_message: error.slice(0, 500) };
    await this.#redis.eval(LATER, 1, "dead", JSON.stringify(dead), 0);
    return "dead";
  }

  /** Back to the head of its queue, untried: what a stopping process does with what it had not finished. */
  async giveBack(raw: string): Promise<void> {
    await this.#redis.rpush(`queue:${(JSON.parse(raw) as Job).queue}`, raw);
  }

  /** Due retries and scheduled jobs to their queues. */
  async promote(): Promise<number> {
    let moved = 0;
    for (const set of ["retry", "schedule"]) moved += Number(await this.#redis.eval(PROMOTE, 1, set));
    return moved;
  }

  async sizes(): Promise<Record<string, number>> {
    const sizes: Record<string, number> = {};
    for (const queue of QUEUES) sizes[queue] = await this.#redis.llen(`queue:${queue}`);
    sizes.retry = await this.#redis.zcard("retry");
    sizes.dead = await this.#redis.zcard("dead");
    return sizes;
  }
}
