/** What Valkey says of itself, and of the queues in it. */
import * as fs from "node:fs";
import * as net from "node:net";
import { parseQueues } from "../../status/lines";
import type { Sample } from "./exposition";

export interface ValkeyAccess {
  /** @default 6379 */
  port?: number;
  /** File with the line `requirepass PASSWORD`. */
  password: string;
  /** Names of Sidekiq's queues. */
  queues: readonly string[];
}

/** Where Sidekiq keeps the jobs that wait for something else than a free hand. */
const sets = ["retry", "schedule", "dead"];

/** A busy Valkey answers late; Prometheus waits 10 s. */
const patience = 5000;

/** Never throws: a Valkey that does not answer, behind a closed gate say, is not up. */
export async function valkeySamples(access: ValkeyAccess, now = Date.now() / 1000): Promise<Sample[]> {
  let replies: Reply[];
  try {
    replies = await ask(access);
  } catch {
    return [{ name: "homestead_valkey_up", value: 0 }];
  }
  // In the form that `homestead status` reads the same things in.
  const rows = [
    ...access.queues.map((queue, i) => `queue ${queue} ${replies[2 * i]} ${replies[2 * i + 1] ?? ""}`),
    ...sets.map((set, i) => `set ${set} ${replies[2 * access.queues.length + i]}`),
    String(replies.at(-1) ?? ""),
  ];
  const { queues, sets: lengths, info } = parseQueues(rows.join("\n"), now);
  return [
    { name: "homestead_valkey_up", value: 1 },
    ...queues.flatMap(({ name, length, latencySeconds }): Sample[] => [
      { name: "homestead_queue_length", labels: { queue: name }, value: length },
      { name: "homestead_queue_latency_seconds", labels: { queue: name }, value: latencySeconds },
    ]),
    ...Object.entries(lengths).map(([set, value]) => ({
      name: "homestead_jobs_set_aside" as const,
      labels: { set },
      value,
    })),
    ...infoSamples(info),
  ];
}

function infoSamples(info: Record<string, string>): Sample[] {
  const plain = {
    homestead_valkey_used_memory_bytes: "used_memory",
    homestead_valkey_max_memory_bytes: "maxmemory",
    homestead_valkey_rdb_last_save_timestamp_seconds: "rdb_last_save_time",
    homestead_valkey_rdb_unsaved_changes: "rdb_changes_since_last_save",
    homestead_valkey_aof_delayed_fsync_total: "aof_delayed_fsync",
  } as const;
  const status = info["rdb_last_bgsave_status"];
  return [
    ...(Object.keys(plain) as (keyof typeof plain)[]).flatMap((name) => {
      const value = info[plain[name]];
      return value === undefined ? [] : [{ name, value: Number(value) }];
    }),
    ...(status === undefined
      ? []
      : [{ name: "homestead_valkey_rdb_last_bgsave_ok" as const, value: status.trim() === "ok" ? 1 : 0 }]),
  ];
}

/** A number, a text, or nothing (an empty queue has no oldest job). */
type Reply = number | string | undefined;

/** All questions at once; Valkey ends the connection after the last. @throws Error when it does not answer in time */
async function ask({ port = 6379, password, queues }: ValkeyAccess): Promise<Reply[]> {
  const secret = /^requirepass (\S+)$/m.exec(fs.readFileSync(password, "utf8"))?.[1] ?? "";
  const questions = [
    `AUTH ${secret}`,
    ...queues.flatMap((queue) => [`LLEN queue:${queue}`, `LINDEX queue:${queue} -1`]),
    ...sets.map((set) => `ZCARD ${set}`),
    "INFO",
    "QUIT",
  ];
  const answer = await new Promise<Buffer>((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = net.connect({ host: "127.0.0.1", port });
    const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${patience} ms`)), patience);
    socket.on("data", (part: Buffer) => parts.push(part));
    socket.on("end", () => resolve(Buffer.concat(parts)));
    socket.on("error", reject);
    socket.on("close", () => clearTimeout(timer));
    socket.write(questions.map((question) => `${question}\r\n`).join(""));
  });
  // What AUTH and QUIT are answered with says nothing.
  const replies = parseReplies(answer).slice(1, -1);
  if (replies.length !== questions.length - 2) throw new Error("Valkey answered something else");
  return replies;
}

/**
 * Replies of the kinds that occur here (valkey.io, "RESP"): `+OK`, `:1`, `$3` and so many bytes.
 * @throws Error on any other, an error among them
 */
export function parseReplies(answer: Buffer): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < answer.length;) {
    const end = answer.indexOf("\r\n", at);
    if (end < 0) throw new Error("Valkey's answer breaks off");
    const [kind, text] = [answer.toString("utf8", at, at + 1), answer.toString("utf8", at + 1, end)];
    at = end + 2;
    if (kind === "+") replies.push(text);
    else if (kind === ":") replies.push(Number(text));
    else if (kind === "$" && text === "-1") replies.push(undefined);
    else if (kind === "$") {
      replies.push(answer.toString("utf8", at, at + Number(text)));
      at += Number(text) + 2;
    } else throw new Error(`Valkey says ${kind}${text}`);
  }
  return replies;
}
