/** What the integration test stands on: real Postgres and Redis of this machine on loopback ports of their own, and small doubles for the rest. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, request as httpRequest } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from "node:net";
import { delimiter, dirname, join } from "node:path";

/** The stand-in's own packages; a plain `npm ci` at the root does not bring them. */
export const installed = existsSync(join(import.meta.dirname, "..", "node_modules", "@fedify", "fedify"));

function onPath(program: string, ...more: readonly string[]): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), ...more];
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
}

function postgresFolder(): string | undefined {
  const root = "/usr/lib/postgresql";
  if (!existsSync(root)) return undefined;
  const newest = readdirSync(root).sort((a, b) => Number(b) - Number(a));
  return newest.map((version) => join(root, version, "bin")).find((folder) => existsSync(join(folder, "postgres")));
}

/** Why the integration test cannot run here, if it cannot. */
export function whatIsMissing(): string | undefined {
  if (!installed) return "run `npm ci --prefix test/standin` first";
  if (postgresFolder() === undefined) return "no PostgreSQL in /usr/lib/postgresql (apt-get install postgresql)";
  if (onPath("redis-server", "/usr/bin") === undefined) return "no redis-server (apt-get install redis-server)";
  if (onPath("openssl") === undefined) return "no openssl";
  return undefined;
}

export async function freePort(): Promise<number> {
  const server = createTcpServer();
  await new Promise<void>((started) => server.listen(0, "127.0.0.1", started));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

export async function until(what: string, check: () => Promise<boolean> | boolean, timeoutMs = 20_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    if (await check()) return;
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((later) => setTimeout(later, 50));
  }
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((done) => {
    const socket = connectTcp(port, "127.0.0.1", () => done(true));
    socket.once("error", () => done(false));
    socket.once("connect", () => socket.destroy());
  });

export interface Running {
  readonly port: number;
  stop(): Promise<void>;
}

async function serve(name: string, port: number, child: ChildProcess): Promise<Running> {
  const ended = new Promise<void>((done) => child.once("exit", () => done()));
  await Promise.race([
    until(`${name} answers`, () => accepts(port)),
    ended.then(() => Promise.reject(new Error(`${name} ended at its start`))),
  ]);
  return {
    port,
    async stop() {
      child.kill("SIGINT");
      await ended;
    },
  };
}

export async function startPostgres(folder: string): Promise<Running> {
  const bin = postgresFolder() ?? "";
  // Postgres refuses to run as root.
  const root = process.getuid?.() === 0;
  const [uid, gid] = root
    ? ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" })))
    : [];
  const identity = uid === undefined || gid === undefined ? {} : { uid, gid };
  mkdirSync(folder, { recursive: true });
  if (uid !== undefined && gid !== undefined) {
    chownSync(folder, uid, gid);
    // A temporary folder is its maker's alone, and Postgres has to pass through it.
    chmodSync(dirname(folder), 0o755);
  }
  const data = join(folder, "data");
  execFileSync(join(bin, "initdb"), ["-D", data, "-A", "trust", "-U", "mastodon", "--no-sync"], {
    ...identity,
    cwd: folder,
    stdio: "ignore",
  });
  const port = await freePort();
  const child = spawn(
    join(bin, "postgres"),
    ["-D", data, "-p", String(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-F"],
    {
      ...identity,
      cwd: folder,
      stdio: "ignore",
    },
  );
  return serve("postgres", port, child);
}

export async function startRedis(folder: string): Promise<Running> {
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const args = [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--requirepass",
    "redis-password",
    "--dir",
    folder,
  ];
  return serve("redis", port, spawn(onPath("redis-server", "/usr/bin") ?? "", args, { stdio: "ignore" }));
}

export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** An authority, and one certificate for all the names of the test. */
export function makeCertificates(folder: string, names: readonly string[]): Certificates {
  mkdirSync(folder, { recursive: true });
  const path = (name: string): string => join(folder, name);
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { stdio: "ignore" });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...ec,
    "-keyout",
    path("ca.key"),
    "-out",
    path("ca.pem"),
    "-days",
    "2",
    "-subj",
    "/CN=Authority of the stand-in's test",
  );
  openssl("req", ...ec, "-keyout", path("server.key"), "-out", path("server.csr"), "-subj", "/CN=stand-in test");
  writeFileSync(path("ext"), `subjectAltName=${names.map((name) => `DNS:${name}`).join(",")}\n`);
  openssl(
    "x509",
    "-req",
    "-in",
    path("server.csr"),
    "-CA",
    path("ca.pem"),
    "-CAkey",
    path("ca.key"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    path("ext"),
    "-out",
    path("server.pem"),
  );
  return { ca: path("ca.pem"), cert: path("server.pem"), key: path("server.key") };
}

/** A DNS server that knows one answer: 127.0.0.1 for the given names, nothing for all others. */
export async function startDns(names: readonly string[]): Promise<Running> {
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => {
    const labels: string[] = [];
    let at = 12;
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString("latin1", at + 1, at + 1 + length));
      at += length + 1;
    }
    const question = query.subarray(12, at + 5);
    const known = names.includes(labels.join(".").toLowerCase());
    const isA = query.readUInt16BE(at + 1) === 1;
    const answer = known && isA ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]) : Buffer.alloc(0);
    const header = Buffer.alloc(12);
    query.copy(header, 0, 0, 2);
    header.writeUInt16BE(known ? 0x8580 : 0x8583, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(answer.length === 0 ? 0 : 1, 6);
    socket.send(Buffer.concat([header, question, answer]), from.port, from.address);
  });
  await new Promise<void>((started) => socket.bind(0, "127.0.0.1", started));
  return { port: socket.address().port, stop: () => new Promise((done) => socket.close(() => done())) };
}

export interface IngressRoutes {
  readonly apex: string;
  readonly web: string;
  readonly webPort: () => number;
  readonly streamingPort: () => number;
}

/** What the ingress does: TLS, the apex' three redirects, streaming's own path, and the headers that say where a request came from. */
export async function startIngress(port: number, certificates: Certificates, routes: IngressRoutes): Promise<Running> {
  const server = createTlsServer({ cert: readFileSync(certificates.cert), key: readFileSync(certificates.key) });
  const target = (url: string): number =>
    url.startsWith("/api/v1/streaming") ? routes.streamingPort() : routes.webPort();
  server.on("request", (incoming, outgoing) => {
    const url = incoming.url ?? "/";
    if (incoming.headers.host === routes.apex) {
      if (/^\/\.well-known\/(webfinger|host-meta|nodeinfo)/.test(url)) {
        outgoing.writeHead(301, { location: `https://${routes.web}${url}`, "access-control-allow-origin": "*" }).end();
      } else outgoing.writeHead(404).end("the blog");
      return;
    }
    const headers = { ...incoming.headers, "x-forwarded-proto": "https", "x-forwarded-host": incoming.headers.host };
    const forward = httpRequest(
      { host: "127.0.0.1", port: target(url), method: incoming.method, path: url, headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    forward.once("error", () => outgoing.writeHead(502).end());
    incoming.pipe(forward);
  });
  server.on("upgrade", (incoming, socket, head) => {
    const upstream = connectTcp(target(incoming.url ?? "/"), "127.0.0.1", () => {
      const headers = Object.entries(incoming.headers).map(([name, value]) => `${name}: ${String(value)}`);
      upstream.write(`GET ${incoming.url} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
      upstream.write(head);
      socket.pipe(upstream).pipe(socket);
    });
    upstream.on("error", () => socket.destroy());
    socket.on("error", () => upstream.destroy());
  });
  await new Promise<void>((started) => server.listen(port, "127.0.0.1", started));
  return {
    port,
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

export interface Bucket extends Running {
  /** The object as the store has it. */
  read(key: string): Buffer;
}

/** versitygw where it is installed, which checks signatures; else a double that only checks what a client says of the body. */
export async function startBucket(
  folder: string,
  bucket: string,
  accessKey: string,
  secretKey: string,
): Promise<Bucket> {
  mkdirSync(join(folder, bucket), { recursive: true });
  const read = (key: string): Buffer => readFileSync(join(folder, bucket, key));
  const gateway = onPath("versitygw");
  if (gateway !== undefined) {
    const port = await freePort();
    const child = spawn(
      gateway,
      ["--access", accessKey, "--secret", secretKey, "--port", `127.0.0.1:${port}`, "posix", folder],
      { stdio: "ignore" },
    );
    return { ...(await serve("versitygw", port, child)), read };
  }
  const server = createHttpServer((request, response) => {
    const hash = createHash("sha256");
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      chunks.push(chunk);
    });
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      const honest =
        request.headers.authorization?.includes(`Credential=${accessKey}/`) === true &&
        request.headers["x-amz-content-sha256"] === hash.digest("hex") &&
        request.headers["content-length"] === String(body.length);
      if (request.method !== "PUT" || !honest) {
        response.writeHead(403).end("<Error><Code>AccessDenied</Code></Error>");
        return;
      }
      const path = join(folder, new URL(request.url ?? "/", "http://localhost").pathname);
      void mkdir(dirname(path), { recursive: true })
        .then(() => writeFile(path, body))
        .then(() => response.writeHead(200).end());
    });
  });
  await new Promise<void>((started) => server.listen(0, "127.0.0.1", started));
  return {
    port: (server.address() as AddressInfo).port,
    read,
    stop: () => new Promise((done) => server.close(() => done())),
  };
}

export const remove = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true });
