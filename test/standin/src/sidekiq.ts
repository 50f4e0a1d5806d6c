/** The sidekiq process: takes jobs from the queues it was given, and sees to what is due. */
import { hostname } from "node:os";
import { randomBytes } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { App } from "./app.ts";
import { ROOT } from "./build-info.ts";
import type { WeightedQueue } from "./commands.ts";
import { serveMetrics, sidekiqMetrics } from "./exporter.ts";
import { type Delivery, type Fedi, createFedi, deliver, fanOut, processIncoming } from "./federation.ts";
import { distribute } from "./feeds.ts";
import { Abort, explain, log } from "./log.ts";
import { GiveUp, type Job, Queue, type QueueName } from "./queue.ts";
import { type Redis, openRedis } from "./redis.ts";
import { guardOutgoing } from "./outgoing.ts";
import { onStop } from "./signals.ts";
import { sweep } from "./statuses.ts";

const POLL_MS = 200;
const PROMOTE_MS = 1_000;
const SWEEP_MS = 5_000;

const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** The queues in the order of this one look: a heavier one comes first more often, as with Sidekiq's weights. */
export function lookOrder(queues: readonly WeightedQueue[], random: () => number = Math.random): QueueName[] {
  // Efraimidis–Spirakis: sorting by random^(1/weight) is a weighted draw without putting back.
  return queues
    .map((queue) => ({ name: queue.name, key: random() ** (1 / queue.weight) }))
    .sort((a, b) => b.key - a.key)
    .map((queue) => queue.name);
}

async function perform(app: App, fedi: Fedi, job: Job): Promise<void> {
  const [argument] = job.args;
  switch (job.class) {
    case "DistributionWorker":
      return distribute(app, String(argument));
    case "ActivityPub::DistributionWorker":
      return fanOut(app, String(argument));
    case "ActivityPub::DeliveryWorker":
      return deliver(app, fedi, argument as Delivery);
    case "ActivityPub::ProcessingWorker":
      return processIncoming(app, fedi, argument);
    default:
      throw new GiveUp(`uninitialized constant ${job.class}`);
  }
}

export interface SidekiqOptions {
  readonly concurrency: number;
  readonly queues: readonly WeightedQueue[];
  readonly timeoutSeconds: number;
}

/** Sidekiq does not start without its Redis, nor with one that is too old; it warns of one that may throw keys away. */
async function checkRedis(app: App): Promise<void> {
  let info: string;
  try {
    info = await app.sidekiqRedis.info();
  } catch (cause) {
    throw new Abort(`sidekiq: cannot reach Redis: ${explain(cause)}`);
  }
  const version = /^redis_version:(\d+)\.(\d+)/m.exec(info);
  if (version !== null && Number(version[1]) * 100 + Number(version[2]) < 602)
    throw new Abort(`You are connecting to Redis ${version[1]}.${version[2]}, Sidekiq requires Redis 6.2.0 or greater`);
  const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
  if (policy !== undefined && policy !== "noeviction")
    log.warn(
      `WARNING: Your Redis instance will evict Sidekiq data under heavy load. The 'noeviction' maxmemory policy is recommended (current policy: '${policy}').`,
    );
}

class Worker {
  readonly #app: App;
  readonly #fedi: Fedi;
  readonly #options: SidekiqOptions;
  /**
   * Jobs are taken over a connection of their own, which waits as long as it takes: what an impatient one gave up on, a Redis whose writes
   * were paused would still hand out later, to nobody.
   */
  readonly #hand: Redis;
  readonly #queue: Queue;
  /** What this process works on, by the job's text in Redis. */
  readonly #running = new Map<string, Promise<void>>();
  /** What it had not done in time when it was told to stop. */
  readonly #givenBack = new Set<string>();
  #stopping = false;

  constructor(app: App, options: SidekiqOptions) {
    this.#app = app;
    this.#fedi = createFedi(app);
    this.#options = options;
    this.#hand = openRedis(app.settings.sidekiqRedis, "fetch", { patient: true });
    this.#queue = new Queue(this.#hand);
  }

  get busy(): number {
    return this.#running.size;
  }

  async run(): Promise<void> {
    const loops = [this.#fetch(), this.#every(PROMOTE_MS, "poller", () => this.#app.queue.promote())];
    // Mastodon's periodic work belongs to whoever serves the queue `scheduler`, which must be one process only.
    if (this.#options.queues.some((queue) => queue.name === "scheduler"))
      loops.push(this.#every(SWEEP_MS, "sweeper", () => sweep(this.#app)));
    await Promise.all(loops);
  }

  async #every(ms: number, name: string, body: () => Promise<unknown>): Promise<void> {
    let last = "";
    while (!this.#stopping) {
      try {
        await body();
        last = "";
      } catch (error) {
        const text = explain(error);
        if (text !== last) log.warn(`${name}: ${text}`);
        last = text;
      }
      // In small steps, so that a stop does not wait for the longest of them.
      for (let waited = 0; waited < ms && !this.#stopping; waited += POLL_MS) await sleep(POLL_MS);
    }
  }

  async #fetch(): Promise<void> {
    while (!this.#stopping) {
      if (this.#running.size >= this.#options.concurrency) {
        await Promise.race([...this.#running.values(), sleep(POLL_MS)]);
        continue;
      }
      let raw: string | undefined;
      try {
        raw = await this.#queue.fetch(lookOrder(this.#options.queues));
      } catch (error) {
        if (this.#stopping) return;
        log.warn(`fetch: ${explain(error)}`);
        await sleep(1_000);
        continue;
      }
      if (raw === undefined) await sleep(POLL_MS);
      else if (this.#stopping) await this.#giveBack(raw);
      else this.#start(raw);
    }
  }

  #start(raw: string): void {
    const running = this.#process(raw)
      .catch((error: unknown) => log.error(`job lost: ${explain(error)}: ${raw}`))
      .finally(() => this.#running.delete(raw));
    this.#running.set(raw, running);
  }

  async #process(raw: string): Promise<void> {
    const job = JSON.parse(raw) as Job;
    const start = performance.now();
    const say = (level: "info" | "warn", text: string): void =>
      log[level](
        `class=${job.class} queue=${job.queue} jid=${job.jid} elapsed=${((performance.now() - start) / 1000).toFixed(3)}: ${text}`,
      );
    try {
      await perform(this.#app, this.#fedi, job);
    } catch (error) {
      // Sidekiq ends its thread by then, and whoever takes it next has it from the start.
      if (this.#givenBack.has(raw)) return;
      const text = explain(error);
      if (error instanceof GiveUp) {
        await this.#app.queue.bury(raw, text);
        say("warn", `given up: ${text}`);
      } else say("warn", `failed (${await this.#app.queue.fail(raw, text)}): ${text}`);
      return;
    }
    await this.#app.queue.count("processed").catch((error: unknown) => log.warn(`stats: ${explain(error)}`));
    say("info", "done");
  }

  async #giveBack(raw: string): Promise<void> {
    this.#givenBack.add(raw);
    await this.#app.queue
      .giveBack(raw)
      .catch((error: unknown) => log.error(`job lost, it cannot be given back: ${explain(error)}: ${raw}`));
  }

  /** No new jobs; what runs may finish; what does not goes back to its queue. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.race([Promise.allSettled(this.#running.values()), sleep(this.#options.timeoutSeconds * 1000)]);
    await Promise.all([...this.#running.keys()].map((raw) => this.#giveBack(raw)));
    // Whatever is asked for still was asked of a Redis that is away, or paused.
    this.#hand.disconnect();
  }
}

export async function runSidekiq(app: App, options: SidekiqOptions): Promise<never> {
  guardOutgoing(app.settings.allowedPrivateAddresses);
  await checkRedis(app);
  const worker = new Worker(app, options);
  const identity = `${hostname()}:${process.pid}:${randomBytes(6).toString("hex")}`;
  const ready =
    app.settings.sidekiqReadyFilename === undefined ? undefined : join(ROOT, "tmp", app.settings.sidekiqReadyFilename);

  // A connection of its own, so that a stuck job never delays the sign of life.
  const pulse = openRedis(app.settings.sidekiqRedis, "heartbeat");
  const beat = async (): Promise<void> => {
    const info = JSON.stringify({
      hostname: hostname(),
      pid: process.pid,
      concurrency: options.concurrency,
      queues: options.queues.map((queue) => queue.name),
    });
    await pulse
      .multi()
      .sadd("processes", identity)
      .hset(identity, { info, busy: worker.busy, beat: Date.now() / 1000 })
      .expire(identity, 60)
      .exec();
  };
  const heart = setInterval(
    () => void beat().catch((error: unknown) => log.warn(`heartbeat: ${explain(error)}`)),
    10_000,
  );
  await beat();
  if (app.settings.exporter !== undefined)
    await serveMetrics(
      app.settings.exporter,
      sidekiqMetrics(app, () => worker.busy),
    );
  if (ready !== undefined) writeFileSync(ready, "");
  log.info(
    `Sidekiq stand-in: ${options.concurrency} at a time, queues ${options.queues.map((queue) => `${queue.name},${queue.weight}`).join(" ")}`,
  );

  const stopped = new Promise<void>((done) => onStop(done));
  const running = worker.run();
  await stopped;
  log.info("Sidekiq stand-in: shutting down");
  if (ready !== undefined) rmSync(ready, { force: true });
  await worker.stop();
  await running;
  clearInterval(heart);
  await pulse
    .multi()
    .srem("processes", identity)
    .del(identity)
    .exec()
    .catch(() => undefined);
  await app.close();
  process.exit(0);
}
