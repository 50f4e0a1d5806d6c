/**
 * The remote server (test/standin/peer): a process outside every cluster that resolves names at the tests' DNS server
 * only. It is run as a program, not imported: it is a package of its own, with its own rules.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { serverCertificate } from "./authority";
import { checkout } from "./environment";
import { atExit, eventually, service } from "./processes";
import type { Context } from "./scenario";
import { setDns } from "./stack";

/** What the peer tells of itself (test/standin/peer/protocol.ts); the parts that are looked at here. */
interface PeerState {
  follows: { handle: string; state: "requested" | "accepted" | "rejected" }[];
  received: { id: string; type: string; objectId: string | null; content: string | null; receivedAt: string }[];
  counts: Record<string, number>;
  refused: { at: string; status: number }[];
}

export class Peer {
  private constructor(
    /** `@peer@domain`. */
    readonly handle: string,
    private readonly control: string,
    readonly stop: () => Promise<void>,
  ) {}

  /**
   * Starts one and gives it a name in the tests' zone. The one called `peer` is at port 443, as the world's servers
   * are; another one beside it is at port 80, with TLS too: the policies let Mastodon out to the web's ports.
   * @param authority PEM of the authority that vouches for the site.
   */
  static async start(
    context: Context,
    authority: string,
    name = "peer",
    port = name === "peer" ? 443 : 80,
  ): Promise<Peer> {
    const { environment, logs } = context;
    const domain = `${name}.${environment.zone}`;
    const folder = path.join(logs, name);
    fs.mkdirSync(folder, { recursive: true });
    const own = environment.peer ?? (await serverCertificate(environment, folder, [domain]));
    const trusted = path.join(folder, "trusted.pem");
    fs.writeFileSync(trusted, authority);
    await setDns(context, domain, environment.hostAddress);
    const config = {
      domain,
      address: environment.hostAddress,
      port,
      controlPort: 0,
      username: "peer",
      cert: own.certificate,
      key: own.key,
      dns: environment.dns.server,
      ca: trusted,
    };
    const { line, end } = await service("node", ["server.ts", JSON.stringify(config)], {
      cwd: path.join(checkout, "test", "standin", "peer"),
      env: { PATH: environment.childEnv["PATH"] },
      log: path.join(folder, "log.txt"),
    });
    const ready = JSON.parse(line) as { handle: string; controlPort: number };
    return new Peer(ready.handle, `http://127.0.0.1:${ready.controlPort}`, atExit(end));
  }

  /** Where it is: part of its handle, unless it is where the world's servers are. */
  get port(): number {
    return Number(/:(\d+)$/.exec(this.handle)?.[1] ?? 443);
  }

  /** Finds an account from its handle alone. @returns the actor's address. @throws Error with the exact reason */
  async lookUp(handle: string): Promise<string> {
    return (await this.ask<{ id: string }>("/lookup", { handle })).id;
  }

  /** Looks up and sends a Follow. */
  async follow(handle: string): Promise<void> {
    await this.ask("/follow", { handle });
  }

  /** Waits for the Accept of the last Follow. */
  async accepted(seconds: number): Promise<void> {
    await eventually(seconds, "the Accept", async () => {
      const last = (await this.state()).follows.at(-1);
      if (last?.state !== "accepted") throw new Error(`the follow is ${last?.state ?? "not there"}`);
    });
  }

  /** Waits until a post with the text has come. */
  async received(text: string, seconds: number): Promise<void> {
    await eventually(seconds, `the post '${text}'`, async () => {
      if ((await this.countOf(text)) === 0)
        throw new Error(`it has ${(await this.state()).received.length} other activities`);
    });
  }

  /** How often a post with the text came, repetitions included. */
  async countOf(text: string): Promise<number> {
    return (await this.state()).received.filter(({ type, content }) => type === "Create" && content?.includes(text))
      .length;
  }

  state(): Promise<PeerState> {
    return this.ask<PeerState>("/state");
  }

  private async ask<T>(path: string, body?: object): Promise<T> {
    const response = await fetch(this.control + path, {
      method: body === undefined ? "GET" : "POST",
      signal: AbortSignal.timeout(60_000),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as T & { error?: string };
    if (!response.ok) throw new Error(answer.error ?? `the peer answered ${response.status}`);
    return answer;
  }
}
