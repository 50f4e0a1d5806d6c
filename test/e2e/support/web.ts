/**
 * HTTP and websockets to a site's ingress address, whatever DNS says: before DNS points at a site is when its
 * answers matter most.
 */
import * as http from "node:http";
import * as https from "node:https";
import { Readable } from "node:stream";
import { Agent, WebSocket } from "undici";

/** Where a host is to be found, and whom to believe that it is the host. */
export interface Via {
  /** IP address to connect to. */
  address: string;
  /** PEM of the authority that must have signed the certificate. */
  ca?: string;
}

export interface Request {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Buffer | Readable;
  /** @default 20 */
  seconds?: number;
}

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
  text: string;
}

/** One request, redirects not followed. @throws on anything that is no HTTP answer, untrusted certificates included */
export function fetchVia(via: Via, url: string, request: Request = {}): Promise<Answer> {
  const target = new URL(url);
  const seconds = request.seconds ?? 20;
  const options: https.RequestOptions = {
    method: request.method ?? "GET",
    host: via.address,
    port: target.port || (target.protocol === "https:" ? 443 : 80),
    path: target.pathname + target.search,
    headers: { host: target.host, ...request.headers },
    servername: target.hostname,
    ...(via.ca ? { ca: via.ca } : {}),
    agent: false,
    // Of silence, the connection's own included: a pod that is gone leaves it without a word for two minutes.
    timeout: seconds * 1000,
  };
  return new Promise((resolve, reject) => {
    const outgoing = (target.protocol === "https:" ? https : http).request(options, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("error", reject);
      incoming.on("end", () => {
        const body = Buffer.concat(chunks);
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body, text: body.toString("utf8") });
      });
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer from ${url} within ${seconds} s`)));
    outgoing.on("error", (error) => reject(new Error(`${url} at ${via.address}: ${error.message}`)));
    if (request.body instanceof Readable) request.body.pipe(outgoing);
    else outgoing.end(request.body);
  });
}

/** A websocket that collects what it is told. @throws when the upgrade is refused or takes too long */
export async function websocketVia(
  via: Via,
  url: string,
  protocols: string[] = [],
  seconds = 20,
): Promise<{ messages: string[]; close: () => Promise<void> }> {
  const dispatcher = new Agent({
    connect: {
      ...(via.ca ? { ca: via.ca } : {}),
      lookup: (_host, _options, done) => done(null, [{ address: via.address, family: 4 }]),
    },
  });
  const socket = new WebSocket(url, { protocols, dispatcher });
  const messages: string[] = [];
  socket.addEventListener("message", (event) => messages.push(String(event.data)));
  const close = async () => {
    socket.close();
    await dispatcher.destroy();
  };
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${url}: no websocket within ${seconds} s`)), seconds * 1000);
      socket.addEventListener("open", () => (clearTimeout(timer), resolve()));
      socket.addEventListener(
        "error",
        (event) => (clearTimeout(timer), reject(new Error(`${url}: ${event.message || "refused"}`))),
      );
    });
  } catch (error) {
    await close();
    throw error;
  }
  return { messages, close };
}
