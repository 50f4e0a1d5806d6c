/** Somebody who reads and posts while the site is in trouble, and knows afterwards what was answered and what was kept. */
import * as crypto from "node:crypto";
import type { Cluster } from "./cluster";
import { sleep, within } from "./processes";
import { oneLine } from "./report";
import type { SiteClient } from "./site";

/** One read that was asked for. */
export interface Read {
  what: string;
  milliseconds: number;
  /** Why there was no answer; undefined if there was one. */
  fault?: string;
}

export interface Patience {
  /** Seconds after which a read without an answer counts as unanswered. */
  read: number;
  /** Seconds that a post waits for its acknowledgement. One is under way at a time, as one person posts. */
  post: number;
}

/** Milliseconds between two reads, and the least between two posts. */
const beat = 200;

export class Load {
  readonly acknowledged: string[] = [];
  /** Those of them that were sent between {@link begins} and {@link ends}. */
  readonly inTrouble: string[] = [];
  readonly refused: string[] = [];
  readonly reads: Read[] = [];
  private trouble: "before" | "now" | "over" = "before";

  constructor(
    private readonly client: SiteClient,
    private readonly cluster: Cluster,
    private readonly patience: Patience,
  ) {}

  /** The trouble is there: what was acknowledged before says nothing about it. */
  begins(): void {
    this.trouble = "now";
  }

  /** The trouble is over. */
  ends(): void {
    this.trouble = "over";
  }

  /** Reads five times a second, whatever became of the reads before, and posts as often, one post at a time. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    // The token, so that signing in is not the first thing that a slow disk delays.
    await this.client.api("/api/v1/accounts/verify_credentials");
    let going = true;
    const reading = this.read(() => going);
    const posting = this.post(() => going);
    try {
      return await work();
    } finally {
      going = false;
      await Promise.all([reading, posting]);
    }
  }

  private async read(going: () => boolean): Promise<void> {
    const { owner } = this.client.names;
    const { read: seconds } = this.patience;
    const page = async (path: string, accept: string) => {
      const answer = await this.client.request(path, { headers: { accept }, seconds });
      if (answer.status !== 200) throw new Error(`HTTP ${answer.status}`);
    };
    const readers: [string, () => Promise<unknown>][] = [
      ["the profile", () => page(`/@${owner}`, "text/html")],
      ["the actor", () => page(`/users/${owner}`, "application/activity+json")],
      ["the home timeline", () => this.client.api("/api/v1/timelines/home", { seconds })],
    ];
    const underWay: Promise<void>[] = [];
    for (let i = 0; going(); i++) {
      const [what, reader] = readers[i % readers.length] ?? [];
      if (what !== undefined && reader !== undefined) underWay.push(this.readOnce(what, reader));
      await sleep(beat);
    }
    await Promise.all(underWay);
  }

  private async readOnce(what: string, reader: () => Promise<unknown>): Promise<void> {
    const start = Date.now();
    const ended = (fault?: string) =>
      this.reads.push({ what, milliseconds: Date.now() - start, ...(fault === undefined ? {} : { fault }) });
    try {
      // The time limit of a request is one of silence; this one is of the whole answer.
      await within(this.patience.read, what, reader);
      ended();
    } catch (error) {
      ended(`${what}: ${oneLine(error, 200)}`);
    }
  }

  private async post(going: () => boolean): Promise<void> {
    while (going()) {
      const start = Date.now();
      const { trouble } = this;
      try {
        const status = await this.client.api("/api/v1/statuses", {
          method: "POST",
          headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
          body: JSON.stringify({ status: `in trouble ${crypto.randomUUID()}` }),
          seconds: this.patience.post,
        });
        this.acknowledged.push(String(status["id"]));
        if (trouble === "now") this.inTrouble.push(String(status["id"]));
      } catch (error) {
        this.refused.push(oneLine(error, 200));
      }
      await sleep(Math.max(0, beat - (Date.now() - start)));
    }
  }

  /** Acknowledged posts that the database does not have. */
  async lost(): Promise<string[]> {
    const there = new Set((await this.cluster.sql("select id from statuses")).split("\n").map((line) => line.trim()));
    return this.acknowledged.filter((id) => !there.has(id));
  }

  /** One line about how it went. */
  summary(): string {
    const { share, median, worst } = answered(this.reads);
    const percent = (share * 100).toFixed(2);
    const sent = this.trouble === "before" ? "" : ` (${this.inTrouble.length} of them sent in trouble)`;
    return (
      `${this.reads.length} reads, ${percent} % answered, median ${median} ms, worst ${worst} ms; ` +
      `${this.acknowledged.length} posts acknowledged${sent}, ${this.refused.length} refused`
    );
  }
}

/** What became of some reads: the share that was answered, and how long those took (milliseconds). */
export function answered(reads: readonly Read[]): {
  share: number;
  median: number;
  worst: number;
  /** Faults of the others, with how often each came, the most frequent first. */
  faults: string[];
} {
  const good = reads.filter((read) => read.fault === undefined).map((read) => read.milliseconds);
  good.sort((a, b) => a - b);
  const times = new Map<string, number>();
  for (const { fault } of reads) if (fault !== undefined) times.set(fault, (times.get(fault) ?? 0) + 1);
  return {
    share: reads.length === 0 ? 0 : good.length / reads.length,
    median: good[Math.floor(good.length / 2)] ?? 0,
    worst: good.at(-1) ?? 0,
    faults: [...times].sort(([, a], [, b]) => b - a).map(([fault, count]) => `${count} x ${fault}`),
  };
}

/** The share (0 to 1) of some reads that was answered within some seconds. */
export function answeredWithin(seconds: number, reads: readonly Read[]): number {
  const late = ({ milliseconds }: Read) => milliseconds > seconds * 1000;
  return answered(reads.map((read) => (late(read) ? { ...read, fault: "late" } : read))).share;
}

/** @throws Error with the faults unless at least the given share (0 to 1) was answered, of at least 50 reads */
export function mustBeAnswered(reads: readonly Read[], least: number): void {
  if (reads.length < 50) throw new Error(`only ${reads.length} reads were asked for`);
  const { share, faults } = answered(reads);
  if (share >= least) return;
  const percent = (part: number) => `${(part * 100).toFixed(2)} %`;
  throw new Error(
    `${percent(share)} of ${reads.length} reads were answered, not ${percent(least)}: ${faults.slice(0, 5).join("; ")}`,
  );
}
