/** A client that posts while something happens, and knows afterwards what it was promised and what became of it. */
import * as crypto from "node:crypto";
import type { Cluster } from "./cluster";
import { eventually, sleep } from "./processes";
import { oneLine } from "./report";
import type { SiteClient } from "./site";

/** One post that the server said it has. */
export interface Acknowledged {
  id: string;
  /** When the answer came, milliseconds. */
  at: number;
  /** IP address that acknowledged it, where the client looks its server up. */
  address?: string;
}

/** Sends a post. @returns its id. @throws unless it was acknowledged */
export type Send = (text: string, idempotencyKey: string) => Promise<{ id: string; address?: string }>;

/**
 * Posts in the owner's name.
 * @param seconds that the app waits for an answer. @default 5
 * @returns the post's id. @throws unless it was acknowledged
 */
export async function sendTo(client: SiteClient, text: string, idempotencyKey: string, seconds = 5): Promise<string> {
  const status = await client.api("/api/v1/statuses", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": idempotencyKey },
    body: JSON.stringify({ status: text }),
    seconds,
  });
  return String(status["id"]);
}

/** One whose app waits through a restart of what it posts to. */
export const patientAudit = (client: SiteClient): Audit =>
  new Audit(async (text, key) => ({ id: await sendTo(client, text, key, 20) }));

/** Milliseconds between two tries. */
const beat = 200;

/**
 * Posts five times a second, one post at a time. A post that is refused is tried again, with the same idempotency key,
 * until it is acknowledged: as an app does whose server is away for a moment.
 */
export class Audit {
  /** Moments at which a post was sent, milliseconds. */
  readonly tried: number[] = [];
  readonly acknowledged: Acknowledged[] = [];
  readonly refused: { at: number; why: string }[] = [];

  constructor(private readonly send: Send) {}

  async during<T>(work: () => Promise<T>): Promise<T> {
    let going = true;
    const posting = this.post(() => going);
    try {
      return await work();
    } finally {
      going = false;
      await posting;
    }
  }

  private async post(going: () => boolean): Promise<void> {
    let draft = newDraft();
    while (going()) {
      const start = Date.now();
      this.tried.push(start);
      try {
        const { id, address } = await this.send(draft.text, draft.key);
        this.acknowledged.push({ id, at: Date.now(), ...(address === undefined ? {} : { address }) });
        draft = newDraft();
      } catch (error) {
        this.refused.push({ at: start, why: oneLine(error, 200) });
      }
      await sleep(Math.max(0, beat - (Date.now() - start)));
    }
  }

  /** The posts that one address acknowledged. */
  by(address: string): Acknowledged[] {
    return this.acknowledged.filter((post) => post.address === address);
  }

  /** Waits until an address has acknowledged some posts more. */
  async more(address: string, count: number, seconds: number): Promise<void> {
    const before = this.by(address).length;
    await eventually(seconds, `${count} posts acknowledged by ${address}`, () => {
      const since = this.by(address).length - before;
      if (since < count) throw new Error(`${since}; the last refusal: ${this.refused.at(-1)?.why ?? "none"}`);
    });
  }

  /** Seconds of the longest time without an acknowledgement. */
  silence(): number {
    return longestSilence(this.acknowledged.map(({ at }) => at));
  }

  /** Ids of acknowledged posts that a database does not have. */
  async lost(cluster: Cluster): Promise<string[]> {
    return missing(this.acknowledged, await postsIn(cluster)).map(({ id }) => id);
  }

  /** One line about how it went. */
  summary(): string {
    const silence = this.silence().toFixed(1);
    return `${this.acknowledged.length} posts acknowledged, ${this.refused.length} tries refused, longest time without an acknowledgement: ${silence} s`;
  }
}

const newDraft = () => ({ text: `audited ${crypto.randomUUID()}`, key: crypto.randomUUID() });

/** Ids of all posts of a database. */
export async function postsIn(cluster: Cluster): Promise<Set<string>> {
  const rows = await cluster.sql("SELECT id FROM statuses");
  return new Set(rows.split("\n").map((line) => line.trim()));
}

// ---------------------------------------------------------------- verdicts (pure)

/** The posts among some that are not there. */
export const missing = <Post extends { id: string }>(posts: readonly Post[], there: ReadonlySet<string>): Post[] =>
  posts.filter(({ id }) => !there.has(id));

/** Seconds of the longest pause between two of some moments (milliseconds); 0 where there are not two. */
export function longestSilence(moments: readonly number[]): number {
  const sorted = [...moments].sort((a, b) => a - b);
  const pauses = sorted.slice(1).map((moment, i) => moment - (sorted[i] ?? moment));
  return Math.max(0, ...pauses) / 1000;
}

/** What a remote server was sent; the parts that tell which post it is of. */
export interface Received {
  type: string;
  objectId: string | null;
  /** ISO 8601. */
  receivedAt: string;
}

/** One post's arrival at the remote server. */
export interface Arrival {
  /** The post's id. */
  id: string;
  /** Milliseconds. */
  at: number;
}

/** The posts among what was received, repetitions included. */
export function arrivalsIn(received: readonly Received[]): Arrival[] {
  return received
    .filter(({ type }) => type === "Create")
    .flatMap(({ objectId, receivedAt }) => {
      const id = /\/(\d+)$/.exec(objectId ?? "")?.[1];
      return id === undefined ? [] : [{ id, at: Date.parse(receivedAt) }];
    });
}

/** A line for each post that did not arrive exactly once. */
export function notExactlyOnce(posts: readonly { id: string }[], arrivals: readonly Arrival[]): string[] {
  const times = new Map<string, number>();
  for (const { id } of arrivals) times.set(id, (times.get(id) ?? 0) + 1);
  return posts.flatMap(({ id }) => {
    const count = times.get(id) ?? 0;
    return count === 1 ? [] : [count === 0 ? `post ${id} never arrived` : `post ${id} arrived ${count} times`];
  });
}
