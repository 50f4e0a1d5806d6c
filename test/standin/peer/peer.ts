/** Starts the peer as a process of its own and talks to it. For tests; imports nothing but Node. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { node24 } from "../node24.ts";
import type { FollowState, FoundActor, PeerConfig, PeerState, Ready } from "./protocol.ts";

export type { FollowState, FoundActor, PeerState, ReceivedActivity } from "./protocol.ts";

export interface PeerOptions extends Omit<PeerConfig, "port" | "controlPort" | "username"> {
  readonly port?: number;
  readonly controlPort?: number;
  readonly username?: string;
  /** Gets the peer's own messages, line by line; without it they are dropped. */
  readonly onLog?: (line: string) => void;
}

export interface Peer {
  readonly origin: string;
  /** `@peer@domain`, with the port unless it is 443. */
  readonly handle: string;
  readonly controlUrl: string;
  /** Starts from the handle's domain alone. Rejects with the exact reason. */
  lookup(handle: string): Promise<FoundActor>;
  /** Looks up, then sends a Follow. Resolves when that was delivered; the Accept shows in `state()`. */
  follow(handle: string): Promise<FollowState>;
  /** Sends an Undo for the last Follow of this handle. */
  unfollow(handle: string): Promise<FollowState>;
  state(): Promise<PeerState>;
  /** Waits until the state is as wanted; rejects with `what` and the last state after `timeoutMs`. */
  until(what: string, wanted: (state: PeerState) => boolean, timeoutMs?: number): Promise<PeerState>;
  /** Forgets follows and everything received; keeps its key. */
  reset(): Promise<void>;
  stop(): Promise<void>;
}

export async function startPeer(options: PeerOptions): Promise<Peer> {
  const { onLog, ...given } = options;
  const config: PeerConfig = { port: 443, controlPort: 0, username: "peer", ...given };
  const child = spawn(node24(), [join(import.meta.dirname, "server.ts"), JSON.stringify(config)], {
    stdio: ["pipe", "pipe", "pipe"],
    // Nothing of this process' environment reaches the peer but the path.
    env: { PATH: process.env.PATH },
  });
  const exited = new Promise<number | null>((done) => child.once("exit", done));
  const last: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    last.push(line);
    if (last.length > 20) last.shift();
    onLog?.(line);
  });

  const lines = createInterface({ input: child.stdout });
  const ready = await Promise.race([
    new Promise<Ready>((done) => lines.once("line", (line) => done(JSON.parse(line) as Ready))),
    exited.then((code) => Promise.reject(new Error(`the peer ended with ${code} at its start:\n${last.join("\n")}`))),
  ]);
  lines.on("line", (line) => onLog?.(line));

  const controlUrl = `http://127.0.0.1:${ready.controlPort}`;
  const ask = async <T>(method: "GET" | "POST", path: string, body?: object): Promise<T> => {
    const response = await fetch(controlUrl + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const json = (await response.json()) as T & { error?: string };
    if (!response.ok) throw new Error(json.error ?? `the peer answered ${response.status}`);
    return json;
  };
  const state = (): Promise<PeerState> => ask("GET", "/state");

  return {
    origin: ready.origin,
    handle: ready.handle,
    controlUrl,
    lookup: (handle) => ask("POST", "/lookup", { handle }),
    follow: (handle) => ask("POST", "/follow", { handle }),
    unfollow: (handle) => ask("POST", "/unfollow", { handle }),
    state,
    async until(what, wanted, timeoutMs = 30_000) {
      const end = Date.now() + timeoutMs;
      for (;;) {
        const now = await state();
        if (wanted(now)) return now;
        if (Date.now() > end)
          throw new Error(
            `not within ${timeoutMs} ms: ${what}. The peer's state: ${JSON.stringify(now, undefined, 2)}`,
          );
        await new Promise((later) => setTimeout(later, 100));
      }
    },
    async reset() {
      await ask("POST", "/reset");
    },
    async stop() {
      child.kill("SIGTERM");
      await exited;
    },
  };
}
