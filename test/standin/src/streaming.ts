/** The streaming server: passes events from Redis to clients, over WebSocket. */
import { createHash } from "node:crypto";
import { type IncomingMessage, STATUS_CODES, createServer } from "node:http";
import type { Duplex } from "node:stream";
import { Counter, Gauge, Registry } from "prom-client";
import { type WebSocket, WebSocketServer } from "ws";
import { Database } from "./database.ts";
import { explain, log } from "./log.ts";
import { openRedis } from "./redis.ts";
import type { StreamingSettings } from "./settings.ts";
import { onStop } from "./signals.ts";

class Refused extends Error {
  readonly status: 401 | 404 | 400 | 500;

  constructor(status: Refused["status"], message: string) {
    super(message);
    this.status = status;
  }
}

/** A stream's name and the Redis channel behind it; undefined for one that does not exist or that the stand-in has not. */
export function channelOf(stream: string, accountId: string): string | undefined {
  if (stream === "user" || stream === "user:notification") return `timeline:${accountId}`;
  if (stream === "public" || stream === "public:local") return `timeline:${stream}`;
  return undefined;
}

export async function runStreaming(settings: StreamingSettings): Promise<void> {
  const database = new Database(settings.database);
  const subscriber = openRedis(settings.redis, "subscriber", { patient: true });

  const registry = new Registry();
  const clients = new Gauge({
    name: "connected_clients",
    help: "The number of clients connected to the streaming server",
    labelNames: ["type"],
    registers: [registry],
  });
  const received = new Counter({
    name: "redis_messages_received_total",
    help: "The total number of received messages from redis subscriptions",
    registers: [registry],
  });
  const sent = new Counter({
    name: "messages_sent_total",
    help: "The total number of messages sent",
    labelNames: ["type"],
    registers: [registry],
  });
  clients.set({ type: "websocket" }, 0);

  /** Redis channel -> who listens, and under which stream's name. */
  const listeners = new Map<string, Map<WebSocket, Set<string>>>();

  const listen = async (channel: string, socket: WebSocket, stream: string): Promise<void> => {
    const known = listeners.get(channel);
    const of = known ?? new Map<WebSocket, Set<string>>();
    listeners.set(channel, of);
    of.set(socket, (of.get(socket) ?? new Set()).add(stream));
    if (known === undefined) await subscriber.subscribe(channel);
  };
  const unlisten = async (channel: string, socket: WebSocket, stream?: string): Promise<void> => {
    const of = listeners.get(channel);
    const streams = of?.get(socket);
    if (of === undefined || streams === undefined) return;
    if (stream !== undefined) streams.delete(stream);
    if (stream === undefined || streams.size === 0) of.delete(socket);
    if (of.size > 0) return;
    listeners.delete(channel);
    await subscriber.unsubscribe(channel);
  };

  subscriber.on("message", (channel: string, message: string) => {
    received.inc();
    let event: { event?: unknown; payload?: unknown };
    try {
      event = JSON.parse(message) as typeof event;
    } catch {
      log.error("Error parsing message from redis");
      return;
    }
    for (const [socket, streams] of listeners.get(channel) ?? [])
      for (const stream of streams) {
        socket.send(JSON.stringify({ stream: [stream], event: event.event, payload: event.payload }));
        sent.inc({ type: "websocket" });
      }
  });

  const accountOf = async (request: IncomingMessage, url: URL): Promise<string> => {
    const token =
      /^Bearer (\S+)$/i.exec(request.headers.authorization ?? "")?.[1] ??
      url.searchParams.get("access_token") ??
      request.headers["sec-websocket-protocol"];
    if (token === undefined || token === "") throw new Refused(401, "Missing access token");
    const [row] = await database.query<{ account_id: string }>(
      `SELECT u.account_id FROM oauth_access_tokens t JOIN users u ON u.id = t.resource_owner_id
       WHERE t.token_digest = $1 AND t.revoked_at IS NULL AND NOT u.disabled`,
      [createHash("sha256").update(token).digest("hex")],
    );
    if (row === undefined) throw new Refused(401, "Invalid access token");
    return row.account_id;
  };

  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    if (path === "/api/v1/streaming/health") {
      response.writeHead(200, { "content-type": "text/plain" }).end("OK");
      return;
    }
    if (path === "/metrics") {
      registry.metrics().then(
        (text) => response.writeHead(200, { "content-type": registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      );
      return;
    }
    response
      .writeHead(404, { "content-type": "application/json" })
      .end(JSON.stringify({ error: "Not found; the stand-in streams over WebSocket only" }));
  });

  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (protocols) => [...protocols][0] ?? false });

  const serveSocket = (socket: WebSocket, url: URL, accountId: string): void => {
    clients.inc({ type: "websocket" });
    const mine = new Set<string>();
    const change = async (type: string, stream: string): Promise<void> => {
      const channel = channelOf(stream, accountId);
      if (channel === undefined) {
        socket.send(JSON.stringify({ error: "Unknown stream type", status: 400 }));
        return;
      }
      if (type === "subscribe") {
        mine.add(channel);
        await listen(channel, socket, stream);
      } else await unlisten(channel, socket, stream);
    };
    const attempt = (type: string, stream: string): void => {
      change(type, stream).catch((error: unknown) => {
        log.error(`streaming: ${explain(error)}`);
        socket.close(1011);
      });
    };
    socket.on("message", (data) => {
      try {
        const { type, stream } = JSON.parse((data as Buffer).toString()) as { type?: unknown; stream?: unknown };
        if ((type === "subscribe" || type === "unsubscribe") && typeof stream === "string") attempt(type, stream);
      } catch {
        socket.send(JSON.stringify({ error: "Invalid JSON", status: 400 }));
      }
    });
    const ping = setInterval(() => socket.ping(), 30_000);
    socket.on("error", (error) => log.warn(`streaming: ${explain(error)}`));
    socket.once("close", () => {
      clearInterval(ping);
      clients.dec({ type: "websocket" });
      for (const channel of mine) void unlisten(channel, socket).catch(() => undefined);
    });
    const stream = url.searchParams.get("stream");
    if (stream !== null) attempt("subscribe", stream);
  };

  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const url = new URL(request.url ?? "/", "http://localhost");
    if (!/^\/api\/v1\/streaming\/?$/.test(url.pathname)) throw new Refused(404, "Not found");
    const accountId = await accountOf(request, url);
    const stream = url.searchParams.get("stream");
    if (stream !== null && channelOf(stream, accountId) === undefined) throw new Refused(400, "Unknown stream type");
    sockets.handleUpgrade(request, socket, head, (client) => serveSocket(client, url, accountId));
  };
  server.on("upgrade", (request, socket: Duplex, head: Buffer) => {
    const broken = (error: Error): void => log.warn(`streaming: ${explain(error)}`);
    socket.on("error", broken);
    upgrade(request, socket, head).then(
      () => socket.removeListener("error", broken),
      (error: unknown) => {
        const status = error instanceof Refused ? error.status : 500;
        if (status === 500) log.error(`streaming: ${explain(error)}`);
        const message = error instanceof Refused ? error.message : "Internal server error";
        socket.end(
          `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\nX-Error-Message: ${message}\r\n\r\n`,
        );
      },
    );
  });

  await new Promise<void>((started, failed) => {
    server.once("error", failed);
    server.listen(settings.port, settings.bind, started);
  });
  log.info(`Streaming stand-in: listening on http://${settings.bind}:${settings.port}`);

  onStop(() => {
    log.info("Streaming stand-in: shutting down");
    for (const client of sockets.clients) client.close(1001);
    server.close();
    server.closeAllConnections();
    subscriber.disconnect();
    void database.close().then(() => process.exit(0));
  });
}
