/**
 * The peer: a remote ActivityPub server for tests, made with Fedify. It runs outside the cluster, looks every name up at a given DNS server,
 * follows an account that it knows by its handle only, and writes down what it is sent. A stand-in for all the other servers of the fediverse.
 *
 *   node peer/server.ts '{"domain":"peer.example","address":"10.0.0.1","port":443,…}'      (see protocol.ts)
 */
import { randomUUID } from "node:crypto";
import { Resolver } from "node:dns/promises";
import { existsSync, fstatSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, LookupFunction } from "node:net";
import { rootCertificates } from "node:tls";
import { Accept, Activity, Create, Endpoints, Follow, Note, Person, Reject, Undo } from "@fedify/vocab";
import {
  type InboxContext,
  MemoryKvStore,
  createFederation,
  exportJwk,
  generateCryptoKeyPair,
  importJwk,
} from "@fedify/fedify";
import { getRequestListener } from "@hono/node-server";
import { Agent, setGlobalDispatcher } from "undici";
import { LookupError, lookUp } from "./lookup.ts";
import type { FollowState, FoundActor, PeerConfig, PeerState, Ready, ReceivedActivity } from "./protocol.ts";

const config = JSON.parse(process.argv[2] ?? "{}") as PeerConfig;

/** All names through one DNS server, as a machine elsewhere in the world would ask its own. */
function lookupAt(server: string): LookupFunction {
  const resolver = new Resolver({ timeout: 2_000, tries: 3 });
  resolver.setServers([server]);
  return (hostname, options, callback) => {
    resolver.resolve4(hostname).then(
      (addresses) => {
        const [first] = addresses;
        if (first === undefined) callback(new Error(`no address for ${hostname}`), "", 4);
        else if (options.all === true)
          callback(
            null,
            addresses.map((address) => ({ address, family: 4 })),
          );
        else callback(null, first, 4);
      },
      (error: NodeJS.ErrnoException) => callback(error, "", 4),
    );
  };
}

const agent = new Agent({
  // Connections are not kept: after a switch the same name leads elsewhere, and a peer that has not noticed would talk to the dead.
  keepAliveTimeout: 1,
  keepAliveMaxTimeout: 1,
  headersTimeout: 10_000,
  bodyTimeout: 10_000,
  connect: {
    timeout: 5_000,
    ...(config.dns === undefined ? {} : { lookup: lookupAt(config.dns) }),
    ...(config.ca === undefined ? {} : { ca: [...rootCertificates, readFileSync(config.ca, "utf8")] }),
  },
});
setGlobalDispatcher(agent);

interface Saved {
  readonly privateKey: JsonWebKey;
  readonly publicKey: JsonWebKey;
  readonly follows: FollowState[];
  readonly received: ReceivedActivity[];
  readonly refused: { at: string; status: number }[];
}

async function begin(): Promise<{ readonly keys: CryptoKeyPair; readonly saved: Saved }> {
  if (config.stateFile !== undefined && existsSync(config.stateFile)) {
    const saved = JSON.parse(readFileSync(config.stateFile, "utf8")) as Saved;
    const keys = {
      privateKey: await importJwk(saved.privateKey, "private"),
      publicKey: await importJwk(saved.publicKey, "public"),
    };
    return { keys, saved };
  }
  const keys = await generateCryptoKeyPair("RSASSA-PKCS1-v1_5");
  return {
    keys,
    saved: {
      privateKey: await exportJwk(keys.privateKey),
      publicKey: await exportJwk(keys.publicKey),
      follows: [],
      received: [],
      refused: [],
    },
  };
}

const { keys, saved } = await begin();
const { follows, received, refused } = saved;

function remember(): void {
  if (config.stateFile === undefined) return;
  // Whole, or not at all: this process may be killed while it writes.
  writeFileSync(`${config.stateFile}.new`, JSON.stringify(saved));
  renameSync(`${config.stateFile}.new`, config.stateFile);
}

const tls = createTlsServer({ cert: readFileSync(config.cert), key: readFileSync(config.key) });
await new Promise<void>((started, failed) => {
  tls.once("error", failed);
  tls.listen(config.port, config.address, started);
});
const port = (tls.address() as AddressInfo).port;
const host = port === 443 ? config.domain : `${config.domain}:${port}`;
const origin = `https://${host}`;

const federation = createFederation<void>({
  kv: new MemoryKvStore(),
  origin,
  allowPrivateAddress: true,
  userAgent: `homestead-test-peer (+${origin}/)`,
});

federation
  .setActorDispatcher("/users/{identifier}", async (context, identifier) => {
    if (identifier !== config.username) return null;
    const pairs = await context.getActorKeyPairs(identifier);
    return new Person({
      id: context.getActorUri(identifier),
      preferredUsername: identifier,
      name: "A peer for tests",
      inbox: context.getInboxUri(identifier),
      endpoints: new Endpoints({ sharedInbox: context.getInboxUri() }),
      url: new URL(`${origin}/@${identifier}`),
      publicKeys: pairs.map((pair) => pair.cryptographicKey),
    });
  })
  .setKeyPairsDispatcher((_context, identifier) => (identifier === config.username ? [keys] : []));

function write(activity: Activity, content: string | null): void {
  received.push({
    id: activity.id?.href ?? "",
    type: activity.constructor.name,
    actor: activity.actorId?.href ?? "",
    objectId: activity.objectId?.href ?? null,
    content,
    receivedAt: new Date().toISOString(),
  });
  remember();
}

function answer(activity: Accept | Reject, state: "accepted" | "rejected"): void {
  const index = follows.findIndex(
    (follow) => follow.id === activity.objectId?.href && follow.actor === activity.actorId?.href,
  );
  const follow = follows[index];
  if (follow === undefined) return;
  follows[index] = { ...follow, state, answeredAt: follow.answeredAt ?? new Date().toISOString() };
}

federation
  .setInboxListeners("/users/{identifier}/inbox", "/inbox")
  // Fedify would drop what it has seen before; here a repetition is exactly what is to be seen.
  .withIdempotency(() => null)
  .on(Accept, (_context, activity) => {
    answer(activity, "accepted");
    write(activity, null);
  })
  .on(Reject, (_context, activity) => {
    answer(activity, "rejected");
    write(activity, null);
  })
  .on(Create, async (context: InboxContext<void>, activity) => {
    const object = await activity.getObject(context);
    write(activity, object instanceof Note ? String(object.content ?? "") : null);
  })
  .on(Activity, (_context, activity) => write(activity, null));

const listener = getRequestListener(async (incoming) => {
  const url = new URL(incoming.url);
  const bodyless = incoming.method === "GET" || incoming.method === "HEAD";
  const request = new Request(origin + url.pathname + url.search, {
    method: incoming.method,
    headers: incoming.headers,
    ...(bodyless ? {} : { body: await incoming.arrayBuffer() }),
  });
  const response = await federation.fetch(request, { contextData: undefined });
  if (incoming.method === "POST" && response.status >= 400) {
    refused.push({ at: new Date().toISOString(), status: response.status });
    remember();
  }
  return response;
});
tls.on("request", (incoming, outgoing) => void listener(incoming, outgoing));

const find = (handle: string): Promise<FoundActor> => lookUp((url, init) => fetch(url, init), handle);

async function follow(handle: string): Promise<FollowState> {
  const actor = await find(handle);
  const context = federation.createContext(new URL(origin), undefined);
  const id = `${origin}/users/${config.username}#follows/${randomUUID()}`;
  const request: FollowState = {
    id,
    handle,
    actor: actor.id,
    state: "requested",
    requestedAt: new Date().toISOString(),
  };
  // Before it is sent: the answer may be here before `sendActivity` is done.
  follows.push(request);
  remember();
  await context.sendActivity(
    { identifier: config.username },
    { id: new URL(actor.id), inboxId: new URL(actor.inbox) },
    new Follow({ id: new URL(id), actor: context.getActorUri(config.username), object: new URL(actor.id) }),
    { immediate: true },
  );
  return request;
}

async function unfollow(handle: string): Promise<FollowState> {
  const index = follows.findLastIndex((one) => one.handle === handle && one.state !== "undone");
  const last = follows[index];
  if (last === undefined) throw new LookupError(`the peer does not follow ${handle}`);
  const actor = await find(handle);
  const context = federation.createContext(new URL(origin), undefined);
  const own = context.getActorUri(config.username);
  await context.sendActivity(
    { identifier: config.username },
    { id: new URL(actor.id), inboxId: new URL(actor.inbox) },
    new Undo({
      id: new URL(`${last.id}/undo`),
      actor: own,
      object: new Follow({ id: new URL(last.id), actor: own, object: new URL(actor.id) }),
    }),
    { immediate: true },
  );
  const undone: FollowState = { ...last, state: "undone" };
  follows[index] = undone;
  remember();
  return undone;
}

function state(): PeerState {
  const counts: Record<string, number> = {};
  for (const activity of received) counts[activity.id] = (counts[activity.id] ?? 0) + 1;
  return { follows, received, counts, refused };
}

async function control(method: string, path: string, body: { readonly handle?: unknown }): Promise<unknown> {
  const handle = typeof body.handle === "string" ? body.handle : "";
  switch (`${method} ${path}`) {
    case "POST /lookup":
      return find(handle);
    case "POST /follow":
      return follow(handle);
    case "POST /unfollow":
      return unfollow(handle);
    case "GET /state":
      return state();
    case "POST /reset":
      follows.length = received.length = refused.length = 0;
      remember();
      return {};
    default:
      return undefined;
  }
}

const controls = createServer((request, response) => {
  const reply = (status: number, json: unknown): void =>
    void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json));
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const text = Buffer.concat(chunks).toString("utf8");
    Promise.resolve()
      .then(() => control(request.method ?? "", request.url ?? "", text === "" ? {} : (JSON.parse(text) as object)))
      .then((result) => (result === undefined ? reply(404, { error: "no such thing" }) : reply(200, result)))
      .catch((error: unknown) => {
        const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : "";
        reply(error instanceof LookupError ? 422 : 500, {
          error: (error instanceof Error ? error.message : String(error)) + cause,
        });
      });
  });
});
await new Promise<void>((started, failed) => {
  controls.once("error", failed);
  controls.listen(config.controlPort, "127.0.0.1", started);
});

const ready: Ready = {
  origin,
  handle: `@${config.username}@${host}`,
  controlPort: (controls.address() as AddressInfo).port,
};
process.stdout.write(`${JSON.stringify(ready)}\n`);

// A test that died without stopping its peer takes the peer with it: the pipe to it ends.
const input = fstatSync(0);
if (input.isFIFO() || input.isSocket()) {
  process.stdin.resume();
  process.stdin.once("end", () => process.exit(0));
}
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => process.exit(0));
