/** A proxy in front of the S3 server that counts what goes through it, by who asks and what is asked. */
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { atExit } from "./processes";
import type { Environment } from "./environment";

/** What stores charge for apart: writes and listings (`PUT`, `POST`, `LIST`), reads (`GET`, `HEAD`), deletions. */
export type Request = "PUT" | "POST" | "LIST" | "GET" | "HEAD" | "DELETE";

export interface Count {
  /** Requests by kind. */
  requests: Partial<Record<Request, number>>;
  /** Bytes that were put. */
  sent: number;
}

/** The kind of a request: a listing is a GET with a query of its own. Pure. */
export function kindOf(method: string, url: string): Request {
  return method === "GET" && /[?&]list-type=|[?&]prefix=/.test(url) ? "LIST" : (method as Request);
}

export class CountingProxy {
  private readonly counts = new Map<string, Count>();

  private constructor(
    /** Where it is reached, as `endpoint` of a bucket. */
    readonly endpoint: string,
  ) {}

  /**
   * Starts one at the address at which clusters reach this machine.
   *
   * @param counted addresses that are counted; the others go through as well
   * @param lasts `suite`: a site whose vault it is goes on to the next scenario
   */
  static async start(
    { hostAddress, s3 }: Pick<Environment, "hostAddress" | "s3">,
    counted = /./,
    lasts: "scenario" | "suite" = "scenario",
  ): Promise<CountingProxy> {
    const behind = new URL(s3.endpoint);
    const agent = new http.Agent({ keepAlive: true });
    const note = (...what: [who: string, kind: Request, bytes: number]) => proxy.note(...what);
    const server = http.createServer((request, response) => {
      const { method = "GET", url = "/", headers } = request;
      if (counted.test(url))
        note(request.socket.remoteAddress ?? "", kindOf(method, url), Number(headers["content-length"] ?? 0));
      // The host's name is signed: it must arrive as it was sent.
      const onward = http.request(
        { host: behind.hostname, port: behind.port, method, path: url, headers, agent },
        (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(response);
        },
      );
      onward.on("error", () => response.destroy());
      request.pipe(onward);
    });
    await new Promise<void>((resolve) => server.listen(0, hostAddress, resolve));
    if (lasts === "scenario") {
      atExit(() => {
        server.close();
        server.closeAllConnections();
      });
    }
    const proxy = new CountingProxy(`http://${hostAddress}:${(server.address() as AddressInfo).port}`);
    return proxy;
  }

  private note(who: string, kind: Request, bytes: number): void {
    const count = this.counts.get(who) ?? { requests: {}, sent: 0 };
    count.requests[kind] = (count.requests[kind] ?? 0) + 1;
    if (kind === "PUT" || kind === "POST") count.sent += bytes;
    this.counts.set(who, count);
  }

  /** Requests that were counted since the last time, whoever asked, and begins anew. */
  takeAll(): Count["requests"] {
    const all: Count["requests"] = {};
    for (const { requests } of this.counts.values()) {
      for (const [kind, count] of Object.entries(requests)) all[kind as Request] = (all[kind as Request] ?? 0) + count;
    }
    this.counts.clear();
    return all;
  }

  /** What was counted for an address since the last time, and begins anew. */
  take(who: string): Count {
    const count = this.counts.get(who) ?? { requests: {}, sent: 0 };
    this.counts.delete(who);
    return count;
  }
}
