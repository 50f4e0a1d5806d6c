/** A small S3 server for rclone: one bucket, in memory, that can be listed; it counts what stores charge for apart. */
import * as http from "node:http";
import type * as net from "node:net";
import { onTestFinished } from "vitest";

interface StoredObject {
  body: Buffer;
  modified: Date;
  /** As rclone keeps it: seconds since 1970, the time of the file. */
  mtime?: string | undefined;
}

export interface ListingStore {
  /** Where rclone finds it, as `vault:vault`. */
  environment: Record<string, string>;
  objects: Map<string, StoredObject>;
  put: (key: string, text: string, at: Date) => void;
  text: (key: string) => string | undefined;
  /** What was asked since the last time: `LIST media/files/`, `PUT media/copied-home`. */
  take: () => string[];
}

/** What a listing gives back for one request; the usual limit of S3 servers. */
const page = 1000;

/** The server is gone when the running test ends. */
export async function listingStore(): Promise<ListingStore> {
  const objects: ListingStore["objects"] = new Map();
  let asked: string[] = [];
  const server = http.createServer(
    (request, response) => void answer(objects, (what) => asked.push(what), request, response),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const variables = {
    TYPE: "s3",
    PROVIDER: "Other",
    ENDPOINT: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    REGION: "us-east-1",
    FORCE_PATH_STYLE: "true",
    NO_CHECK_BUCKET: "true",
    ACCESS_KEY_ID: "id",
    SECRET_ACCESS_KEY: "secret",
  };
  return {
    environment: Object.fromEntries(
      Object.entries(variables).map(([name, value]) => [`RCLONE_CONFIG_VAULT_${name}`, value]),
    ),
    objects,
    put: (key, text, at) =>
      void objects.set(key, { body: Buffer.from(text), modified: at, mtime: String(at.getTime() / 1000) }),
    text: (key) => objects.get(key)?.body.toString(),
    take: () => {
      const taken = asked;
      asked = [];
      return taken;
    },
  };
}

async function answer(
  objects: ListingStore["objects"],
  note: (what: string) => void,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const { method = "GET", headers } = request;
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://store");
  const key = keyIn(pathname);
  if (method === "GET" && key === "") {
    note(`LIST ${searchParams.get("prefix") ?? ""}`);
    return void response.setHeader("content-type", "application/xml").end(listing(objects, searchParams));
  }
  note(`${method} ${key}`);
  if (method === "PUT") {
    const source = headers["x-amz-copy-source"];
    const now = new Date();
    if (typeof source === "string") {
      const from = objects.get(keyIn(`/${source.replace(/^\//, "")}`));
      if (from === undefined) return void response.writeHead(404).end();
      objects.set(key, { ...from, modified: now });
      const result = `<ETag>"0"</ETag><LastModified>${now.toISOString()}</LastModified>`;
      return void response.end(`<CopyObjectResult>${result}</CopyObjectResult>`);
    }
    objects.set(key, { body: Buffer.concat(chunks), modified: now, mtime: headers["x-amz-meta-mtime"]?.toString() });
    return void response.writeHead(200, { etag: '"0"' }).end();
  }
  const object = objects.get(key);
  if (object === undefined) return void response.writeHead(404).end();
  if (method === "DELETE") {
    objects.delete(key);
    return void response.writeHead(204).end();
  }
  response.writeHead(200, {
    etag: '"0"',
    "last-modified": object.modified.toUTCString(),
    "content-length": object.body.length,
    ...(object.mtime === undefined ? {} : { "x-amz-meta-mtime": object.mtime }),
  });
  response.end(method === "HEAD" ? undefined : object.body);
}

/** The key in `/vault/<key>`. */
const keyIn = (pathname: string) => decodeURIComponent(pathname.replace(/^\/[^/]*\/?/, ""));

/** One page, of either version of the request. */
function listing(objects: ListingStore["objects"], query: URLSearchParams): string {
  const prefix = query.get("prefix") ?? "";
  const delimiter = query.get("delimiter") ?? "";
  const after = query.get("continuation-token") ?? query.get("marker") ?? "";
  const found = new Map<string, string>();
  for (const key of [...objects.keys()].sort()) {
    const end = delimiter === "" ? -1 : key.indexOf(delimiter, prefix.length);
    const name = end < 0 ? key : key.slice(0, end + 1);
    const { body, modified } = objects.get(key) ?? { body: Buffer.alloc(0), modified: new Date(0) };
    if (!key.startsWith(prefix) || name <= after) continue;
    found.set(
      name,
      end < 0
        ? `<Contents><Key>${name}</Key><LastModified>${modified.toISOString()}</LastModified><ETag>"0"</ETag><Size>${body.length}</Size></Contents>`
        : `<CommonPrefixes><Prefix>${name}</Prefix></CommonPrefixes>`,
    );
  }
  const shown = [...found].slice(0, page);
  const last = shown.at(-1)?.[0] ?? "";
  const more = shown.length < found.size;
  const next = more ? `<NextContinuationToken>${last}</NextContinuationToken><NextMarker>${last}</NextMarker>` : "";
  return `<?xml version="1.0"?><ListBucketResult><Name>vault</Name><Prefix>${prefix}</Prefix><IsTruncated>${more}</IsTruncated>${next}${shown.map(([, xml]) => xml).join("")}</ListBucketResult>`;
}
