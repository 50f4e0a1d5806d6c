/** A small S3 server for the lease and the snapshots: one bucket, in memory, and as unreliable as it is told to be. */
import * as http from "node:http";
import type * as net from "node:net";
import { onTestFinished } from "vitest";

export interface StoredObject {
  body: Buffer;
  etag: string;
  modified: Date;
}

/**
 * What happens to a request instead of its being served: a status, or `lost`, the connection's end. `served`: it is
 * served, and this is the answer all the same. `cut`: the answer breaks off after so many bytes.
 */
type Fate = number | "lost" | { served: number } | { cut: number } | undefined;

export interface FakeStore {
  vault: { endpoint: string; region: string; bucket: string };
  keys: { accessKeyId: string; secretAccessKey: string };
  objects: Map<string, StoredObject>;
  /** What was asked: `GET lease.json`. */
  requests: string[];
  /** How the store takes conditions of a write: some refuse them with 501, some take no notice. */
  conditions: "kept" | "refused" | "ignored";
  /** Whether it tells what it has (ListObjectsV2). @default false: it answers 404 */
  lists: boolean;
  /** Decides about each request before it is served. */
  fate: (request: string) => Fate | Promise<Fate>;
  put: (key: string, body: string | Buffer, modified?: Date) => void;
  text: (key: string) => string | undefined;
}

/** The server is gone when the running test ends. */
export async function fakeStore(): Promise<FakeStore> {
  let version = 0;
  const store: FakeStore = {
    vault: { endpoint: "", region: "us-east-1", bucket: "vault" },
    keys: { accessKeyId: "id", secretAccessKey: "secret" },
    objects: new Map(),
    requests: [],
    conditions: "kept",
    lists: false,
    fate: () => undefined,
    put: (key, body, modified = new Date()) =>
      store.objects.set(key, { body: Buffer.from(body), etag: `"v${(version += 1)}"`, modified }),
    text: (key) => store.objects.get(key)?.body.toString(),
  };
  const server = http.createServer((request, response) => {
    void answer(store, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  store.vault.endpoint = `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  return store;
}

async function answer(store: FakeStore, request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const key = (request.url ?? "").replace(/^\/vault\//, "");
  const what = `${request.method} ${key}`;
  store.requests.push(what);
  const end = (status: number | "lost") => {
    if (status === "lost") response.destroy();
    else response.writeHead(status).end();
  };
  const fate = await store.fate(what);
  if (fate !== undefined && typeof fate !== "object") return end(fate);
  if (request.method === "PUT") {
    const status = write(store, key, Buffer.concat(chunks), request.headers);
    return end(fate !== undefined && "served" in fate ? fate.served : status);
  }
  const asked = new URL(request.url ?? "", "http://store").searchParams;
  if (store.lists && asked.has("list-type")) return void response.end(listing(store, asked.get("prefix") ?? ""));
  const object = store.objects.get(key);
  if (object === undefined) return end(404);
  const { body, etag, modified } = object;
  response.writeHead(200, { etag, "last-modified": modified.toUTCString(), "content-length": body.length });
  if (fate === undefined || !("cut" in fate)) return void response.end(body);
  response.write(body.subarray(0, fate.cut), () => setTimeout(() => response.destroy(), 50));
}

/** Of what is below a prefix, as far as the next slash. */
function listing({ objects }: FakeStore, prefix: string): string {
  const found = [...objects].filter(([key]) => key.startsWith(prefix));
  const isDeeper = ([key]: [string, StoredObject]) => key.slice(prefix.length).includes("/");
  const folders = new Set(found.filter(isDeeper).map(([key]) => key.slice(0, key.indexOf("/", prefix.length) + 1)));
  return [
    ...found
      .filter((entry) => !isDeeper(entry))
      .map(
        ([key, { modified }]) =>
          `<Contents><Key>${key}</Key><LastModified>${modified.toISOString()}</LastModified></Contents>`,
      ),
    ...[...folders].map((folder) => `<CommonPrefixes><Prefix>${folder}</Prefix></CommonPrefixes>`),
  ].join("");
}

function write(store: FakeStore, key: string, body: Buffer, headers: http.IncomingHttpHeaders): number {
  const there = store.objects.get(key);
  const conditional = headers["if-match"] !== undefined || headers["if-none-match"] !== undefined;
  if (conditional && store.conditions === "refused") return 501;
  if (store.conditions === "kept") {
    if (headers["if-none-match"] === "*" && there !== undefined) return 412;
    if (headers["if-match"] !== undefined && headers["if-match"] !== there?.etag) return 412;
  }
  store.put(key, body);
  return 200;
}
