/**
 * Verification against a world of its own: an ingress with the apex, the web host and a media host, and an S3 server,
 * in this process. Everything is right in it; each test breaks one thing and reads the line that a person would read.
 */
import { execFileSync } from "node:child_process";
import * as crypto from "node:crypto";
import * as dgram from "node:dgram";
import * as fs from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import * as tls from "node:tls";
import { AwsV4Signer } from "aws4fetch";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { loadTarget, verifyCommand } from "../cli/verify";
import { checkNames, failureLines, verify } from "../lib/verify";
import type { CheckResult, VerificationTarget } from "../lib/verify";
import { askedFromHere, targetOf } from "../lib/verify/target";
import { UserError } from "../lib/user-error";
import { configurationOf } from "./support/configuration";
import { fakeCluster, kubeconfigFor } from "./support/fake-cluster";

const apex = "ramble.test";
const webHost = "mastodon.ramble.test";
const mediaHost = "media.ramble.test";
const owner = "user";
const keys = { accessKeyId: "AKIDVERIFICATION", secretAccessKey: "a-secret-that-is-never-printed" };

// ---------------------------------------------------------------- certificates

interface Pair {
  cert: string;
  key: string;
}
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-verify-"));
const openssl = (...args: string[]) =>
  execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function authority(name: string): Pair {
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.pem`,
    "-subj",
    `/CN=${name}`,
    "-days",
    "90",
  );
  return pair(name);
}

function certificate(name: string, by: string, names: string[], days = 90): Pair {
  const alternative = names.map((n) => `DNS:${n}`).join(",");
  openssl(
    "req",
    "-new",
    ...newKey,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.csr`,
    "-subj",
    `/CN=${name}`,
    "-addext",
    `subjectAltName=${alternative}`,
  );
  const sign = ["-CA", `${by}.pem`, "-CAkey", `${by}.key`, "-copy_extensions", "copy", "-days", String(days)];
  openssl("x509", "-req", "-in", `${name}.csr`, ...sign, "-out", `${name}.pem`);
  return pair(name);
}

const pair = (name: string): Pair => ({
  cert: fs.readFileSync(path.join(folder, `${name}.pem`), "utf8"),
  key: fs.readFileSync(path.join(folder, `${name}.key`), "utf8"),
});

// ---------------------------------------------------------------- the world

type Handler = (request: http.IncomingMessage, response: http.ServerResponse) => void;
const answer =
  (status: number, headers: Record<string, string> = {}, body = ""): Handler =>
  (_request, response) => {
    response.writeHead(status, headers).end(body);
  };
const json = (value: unknown, type = "application/json"): Handler =>
  answer(200, { "content-type": `${type}; charset=utf-8` }, JSON.stringify(value));

/** A redirect as Traefik makes it, from the address as it was asked. */
const toWebHost: Handler = (request, response) => {
  response.writeHead(301, { location: `https://${webHost}${request.url}`, "access-control-allow-origin": "*" }).end();
};
const account = `acct:${owner}@${apex}`;
const actor = `https://${webHost}/users/${owner}`;
const webfinger = (subject: string) =>
  json({ subject, links: [{ rel: "self", type: "application/activity+json", href: actor }] }, "application/jrd+json");

/** What every host answers where all is right, by host and path. */
const right: Record<string, Handler> = {
  [`${apex}/.well-known/webfinger`]: toWebHost,
  [`${apex}/.well-known/host-meta`]: toWebHost,
  [`${apex}/.well-known/nodeinfo`]: toWebHost,
  [`${apex}/`]: answer(200, { "content-type": "text/html; charset=utf-8" }, "<h1>blog</h1>"),
  [`${webHost}/.well-known/webfinger`]: (request, response) => {
    const resource = new URL(request.url ?? "", "http://x").searchParams.get("resource");
    const known = resource === account || resource === `acct:${owner}@${webHost}`;
    (known ? webfinger(account) : answer(404))(request, response);
  },
  [`${webHost}/.well-known/host-meta`]: answer(
    200,
    { "content-type": "application/xrd+xml" },
    `<XRD><Link rel="lrdd" template="https://${webHost}/.well-known/webfinger?resource={uri}"/></XRD>`,
  ),
  [`${webHost}/.well-known/nodeinfo`]: json({
    links: [{ rel: "http://nodeinfo.diaspora.software/ns/schema/2.0", href: `https://${webHost}/nodeinfo/2.0` }],
  }),
  [`${webHost}/nodeinfo/2.0`]: json({ version: "2.0", software: { name: "mastodon" } }),
  [`${webHost}/users/${owner}`]: (request, response) =>
    (request.headers.accept === "application/activity+json"
      ? json({ preferredUsername: owner, publicKey: { publicKeyPem: "PEM" } }, "application/activity+json")
      : answer(406))(request, response),
  [`${webHost}/health`]: answer(200, {}, "OK"),
  [`${webHost}/api/v2/instance`]: json({ domain: apex }),
  [`${webHost}/api/v1/streaming/health`]: answer(200, { "content-type": "text/plain" }, "OK"),
  [`${mediaHost}/`]: (request, response) => {
    const object = objects.get(`/media${request.url}`);
    (object === undefined ? answer(404) : answer(200, {}, object))(request, response);
  },
};
let broken: Record<string, Handler> = {};
let overHttp: Handler;
let upgraded: string;
let served: Record<string, tls.SecureContext> = {};
/** What the store answers to a deletion, in place of deleting. */
let deletion: Handler | undefined;
const objects = new Map<string, string>();

const ingress = https.createServer({ SNICallback: (name, done) => done(null, served[name]) }, (request, response) => {
  const host = request.headers.host ?? "";
  const { pathname } = new URL(request.url ?? "", "http://x");
  const known = { ...right, ...broken };
  (known[`${host}${pathname}`] ?? (host === mediaHost ? known[`${host}/`] : undefined) ?? answer(404))(
    request,
    response,
  );
});
ingress.on("upgrade", (request, socket) => {
  const right = request.url === "/api/v1/streaming" && request.headers.host === webHost;
  socket.end(`HTTP/1.1 ${right ? upgraded : "404 Not Found"}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
});
const plain = http.createServer((request, response) => overHttp(request, response));
const store = http.createServer((request, response) => {
  let body = "";
  request.on("data", (chunk: Buffer) => (body += chunk.toString()));
  request.on("end", () => {
    void isSigned(request, body).then((signed) => {
      if (!signed)
        return answer(
          403,
          {},
          "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>x</StringToSign></Error>",
        )(request, response);
      if (request.method === "PUT") objects.set(request.url ?? "", body);
      if (request.method === "DELETE" && deletion) return deletion(request, response);
      if (request.method === "DELETE") objects.delete(request.url ?? "");
      answer(request.method === "PUT" ? 200 : 204)(request, response);
    });
  });
});

/** As an S3 server does: the hash is of this body, and the signature is the one the keys give. */
async function isSigned(request: http.IncomingMessage, body: string): Promise<boolean> {
  const hash = String(request.headers["x-amz-content-sha256"]);
  const signed = await new AwsV4Signer({
    ...keys,
    method: request.method ?? "",
    url: `http://${request.headers.host}${request.url}`,
    service: "s3",
    region: "us-east-1",
    datetime: String(request.headers["x-amz-date"]),
    headers: { "x-amz-content-sha256": hash },
  }).sign();
  return (
    hash === crypto.createHash("sha256").update(body).digest("hex") &&
    signed.headers.get("authorization") === request.headers.authorization
  );
}

const portOf = (server: http.Server) => (server.address() as AddressInfo).port;
const listen = (server: http.Server) => new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
const context = ({ cert, key }: Pair) => tls.createSecureContext({ cert, key });
const to = (pairOfAll: Pair) =>
  Object.fromEntries([apex, webHost, mediaHost].map((host) => [host, context(pairOfAll)]));

let ca: string;
let good: Pair;
let target: VerificationTarget;

beforeAll(async () => {
  ca = authority("homestead-test").cert;
  good = certificate("good", "homestead-test", [apex, webHost, mediaHost]);
  await Promise.all([ingress, plain, store].map(listen));
});
beforeEach(() => {
  broken = {};
  served = to(good);
  deletion = undefined;
  upgraded = "401 Unauthorized";
  overHttp = (request, response) => {
    response.writeHead(301, { location: `https://${request.headers.host}${request.url}` }).end();
  };
  target = {
    apex,
    webHost,
    owner,
    address: "127.0.0.1",
    ingressHosts: [mediaHost],
    ca,
    httpPort: portOf(plain),
    httpsPort: portOf(ingress),
    media: {
      endpoint: `http://127.0.0.1:${portOf(store)}`,
      region: "us-east-1",
      bucket: "media",
      publicUrl: `https://${mediaHost}`,
      ...keys,
    },
    retrySeconds: 0,
  };
});
afterAll(async () => {
  await Promise.all([ingress, plain, store].map((server) => new Promise((done) => server.close(done))));
  fs.rmSync(folder, { recursive: true });
});

const statuses = (results: CheckResult[]) => Object.fromEntries(results.map((r) => [r.check, r.status]));
const lines = async (change: Partial<VerificationTarget> = {}) => failureLines(await verify({ ...target, ...change }));
const bucketText = () => `bucket media at http://127.0.0.1:${portOf(store)}`;

// ---------------------------------------------------------------- tests

describe("a site where all is right", () => {
  it("passes every check, in their order, and leaves nothing in the bucket", async () => {
    const results = await verify(target);
    expect(failureLines(results)).toEqual([]);
    expect(results.map((r) => [r.check, r.status])).toEqual(checkNames.map((name) => [name, "ok"]));
    expect(results[0]?.got).toMatch(/^valid for (89|90) days$/);
    expect([...objects.keys()]).toEqual([]);
  });

  it("has no media check without a media bucket", async () => {
    const results = await verify({ ...target, media: undefined });
    expect(results.map((r) => r.check)).toEqual(checkNames.filter((name) => name !== "media"));
  });

  it("may answer a websocket upgrade with 101", async () => {
    upgraded = "101 Switching Protocols\r\nUpgrade: websocket";
    expect(await lines()).toEqual([]);
  });

  it("may send the blog's reader on, within the apex", async () => {
    broken = {
      [`${apex}/`]: answer(302, { location: "/en/" }),
      [`${apex}/en/`]: answer(200, { "content-type": "text/html" }),
    };
    expect(await lines()).toEqual([]);
  });

  it("is waited for while its routes load", async () => {
    const instance = `${webHost}/api/v2/instance`;
    const asked = { blog: 0, mastodon: 0 };
    broken = {
      [`${apex}/.well-known/webfinger`]: answer(404),
      [`${apex}/`]: (request, response) => {
        if (++asked.blog === 3) broken = {};
        answer(503)(request, response);
      },
      [instance]: (request, response) => {
        asked.mastodon++;
        right[instance]?.(request, response);
      },
    };
    const results = await verify({ ...target, retrySeconds: 60 });
    expect(failureLines(results)).toEqual([]);
    expect(asked).toEqual({ blog: 3, mastodon: 1 });
  });
});

describe("certificates", () => {
  it("refuses a certificate for another name", async () => {
    served[apex] = context(certificate("other", "homestead-test", ["other.example"]));
    expect(await lines()).toEqual([
      `verification failed: certificate apex: expected a trusted certificate for ${apex}, got one for other.example`,
    ]);
  });

  it("tells one certificate that is wrong for every host once", async () => {
    served = to(certificate("default", "homestead-test", ["default.example"]));
    const results = await verify(target);
    expect(failureLines(results)).toEqual([
      `verification failed: certificate apex: expected a trusted certificate for ${apex}, got one for default.example`,
    ]);
    expect(results.filter((r) => r.status === "consequence").map((r) => [r.check, r.cause])).toEqual([
      ["certificate web host", "certificate apex"],
      ["media", "certificate apex"],
    ]);
  });

  it("refuses an expired certificate", async () => {
    served[webHost] = context(certificate("expired", "homestead-test", [webHost], -1));
    const yesterday = new Date(Date.now() - 86_400_000).toISOString().slice(0, 10);
    expect(await lines()).toEqual([
      `verification failed: certificate web host: expected a trusted certificate for ${webHost}, got one that expired on ${yesterday}`,
    ]);
  });

  it("refuses a certificate of an authority nobody named", async () => {
    authority("unknown");
    served[apex] = context(certificate("untrusted", "unknown", [apex]));
    expect(await lines()).toEqual([
      `verification failed: certificate apex: expected a trusted certificate for ${apex}, got one that is not trusted (UNABLE_TO_VERIFY_LEAF_SIGNATURE), issued by CN=unknown`,
    ]);
  });

  it("trusts the authority only where it is named", async () => {
    expect(await lines({ ca: "" })).toEqual([
      `verification failed: certificate apex: expected a trusted certificate for ${apex}, got one that is not trusted (UNABLE_TO_VERIFY_LEAF_SIGNATURE), issued by CN=homestead-test`,
    ]);
  });
});

describe("one fault gives one line", () => {
  const apexFinger = `https://${apex}/.well-known/webfinger?resource=${account}`;
  const webFinger = `https://${webHost}/.well-known/webfinger?resource=${account}`;
  const document = `${webHost}/.well-known/webfinger`;
  const faults: [string, () => void, () => string][] = [
    [
      "no redirect from HTTP",
      () => (overHttp = answer(200, {}, "hello")),
      () =>
        `http redirect: expected http://${apex}/homestead/verification?query=kept to answer 301 or 308 to https://${apex}/homestead/verification?query=kept, got HTTP 200`,
    ],
    [
      "a redirect from HTTP that drops the path",
      () =>
        (overHttp = (request, response) =>
          void response.writeHead(301, { location: `https://${request.headers.host}/` }).end()),
      () =>
        `http redirect: expected http://${apex}/homestead/verification?query=kept to answer 301 or 308 to https://${apex}/homestead/verification?query=kept, got HTTP 301 to https://${apex}/`,
    ],
    [
      "the apex's router left out",
      () => {
        for (const name of ["webfinger", "host-meta", "nodeinfo"]) broken[`${apex}/.well-known/${name}`] = answer(404);
      },
      () => `webfinger redirect: expected ${apexFinger} to answer 301 to ${webFinger}, got HTTP 404`,
    ],
    [
      "the query dropped",
      () =>
        (broken[`${apex}/.well-known/webfinger`] = answer(301, {
          location: `https://${webHost}/.well-known/webfinger`,
          "access-control-allow-origin": "*",
        })),
      () =>
        `webfinger redirect: expected ${apexFinger} to answer 301 to ${webFinger}, got HTTP 301 to https://${webHost}/.well-known/webfinger`,
    ],
    [
      "the query decoded on the way",
      () =>
        (broken[`${apex}/.well-known/webfinger`] = (request, response) => {
          const location = `https://${webHost}${decodeURIComponent(request.url ?? "")}`;
          response.writeHead(301, { location, "access-control-allow-origin": "*" }).end();
        }),
      () =>
        `webfinger redirect: expected https://${apex}/.well-known/webfinger?resource=acct%3A${owner}%40${apex}&rel=self to answer 301 to ` +
        `https://${webHost}/.well-known/webfinger?resource=acct%3A${owner}%40${apex}&rel=self, got HTTP 301 to ${webFinger}&rel=self`,
    ],
    [
      "a temporary redirect",
      () =>
        (broken[`${apex}/.well-known/webfinger`] = answer(302, {
          location: webFinger,
          "access-control-allow-origin": "*",
        })),
      () => `webfinger redirect: expected ${apexFinger} to answer 301 to ${webFinger}, got HTTP 302 to ${webFinger}`,
    ],
    [
      "CORS left out",
      () =>
        (broken[`${apex}/.well-known/webfinger`] = (request, response) =>
          void response.writeHead(301, { location: `https://${webHost}${request.url}` }).end()),
      () =>
        `webfinger cors: expected Access-Control-Allow-Origin: * on the redirect at ${apexFinger}, got no such header`,
    ],
    [
      "a wrong subject",
      () => (broken[document] = webfinger(`acct:${owner}@${webHost}`)),
      () => `webfinger document: expected ${webFinger} to have the subject ${account}, got acct:${owner}@${webHost}`,
    ],
    [
      "a second hop with another subject",
      () =>
        (broken[document] = (request, response) =>
          webfinger(request.url?.endsWith(`@${webHost}`) ? `acct:${owner}@${webHost}` : account)(request, response)),
      () =>
        `webfinger document: expected https://${webHost}/.well-known/webfinger?resource=acct:${owner}@${webHost} to have the subject ${account}, got acct:${owner}@${webHost}`,
    ],
    [
      "an owner nobody knows",
      () => (broken[document] = answer(404)),
      () => `webfinger document: expected ${webFinger} to answer 200 with application/jrd+json, got HTTP 404`,
    ],
    [
      "a document of another type",
      () => (broken[document] = json({ subject: account })),
      () =>
        `webfinger document: expected ${webFinger} to answer 200 with application/jrd+json, got HTTP 200 with application/json; charset=utf-8`,
    ],
    [
      "an actor on another host",
      () =>
        (broken[document] = json(
          {
            subject: account,
            links: [{ rel: "self", type: "application/activity+json", href: `https://${apex}/users/${owner}` }],
          },
          "application/jrd+json",
        )),
      () =>
        `webfinger document: expected ${webFinger} to have a self link of type application/activity+json at ${webHost}, got https://${apex}/users/${owner}`,
    ],
    [
      "an actor of another name",
      () =>
        (broken[`${webHost}/users/${owner}`] = json(
          { preferredUsername: "someone", publicKey: {} },
          "application/activity+json",
        )),
      () => `actor: expected ${actor} to have the preferredUsername ${owner}, got someone`,
    ],
    [
      "an actor without a key",
      () => (broken[`${webHost}/users/${owner}`] = json({ preferredUsername: owner }, "application/activity+json")),
      () => `actor: expected ${actor} to have a publicKey, got none`,
    ],
    [
      "host-meta of something else",
      () => (broken[`${webHost}/.well-known/host-meta`] = answer(200, {}, "<XRD/>")),
      () =>
        `host-meta: expected https://${webHost}/.well-known/host-meta to answer 200 with the template https://${webHost}/.well-known/webfinger?resource={uri}, got HTTP 200 without it`,
    ],
    [
      "nodeinfo not redirected",
      () => (broken[`${apex}/.well-known/nodeinfo`] = answer(404)),
      () =>
        `nodeinfo: expected https://${apex}/.well-known/nodeinfo to answer 301 to https://${webHost}/.well-known/nodeinfo, got HTTP 404`,
    ],
    [
      "nodeinfo that is no JSON",
      () => (broken[`${webHost}/nodeinfo/2.0`] = answer(200, { "content-type": "text/html" }, "<p>")),
      () =>
        `nodeinfo: expected https://${webHost}/nodeinfo/2.0 to answer 200 with JSON, got HTTP 200 with text/html that is no JSON object`,
    ],
    [
      "streaming down",
      () => (broken[`${webHost}/api/v1/streaming/health`] = answer(502)),
      () => `streaming: expected https://${webHost}/api/v1/streaming/health to answer 200 with OK, got HTTP 502`,
    ],
    [
      "websockets that end at the web server",
      () => (upgraded = "200 OK"),
      () =>
        `streaming: expected a websocket upgrade at https://${webHost}/api/v1/streaming to answer 101 or 401, got HTTP 200`,
    ],
    [
      "another LOCAL_DOMAIN",
      () => (broken[`${webHost}/api/v2/instance`] = json({ domain: webHost })),
      () => `mastodon: expected https://${webHost}/api/v2/instance to have the domain ${apex}, got ${webHost}`,
    ],
    [
      "media that differs",
      () => (broken[`${mediaHost}/`] = answer(200, {}, "an error page")),
      () =>
        `media: expected https://${mediaHost}/verification/*.txt to answer 200 with the object just put, got HTTP 200 with something else`,
    ],
    [
      "media that nobody may read",
      () => (broken[`${mediaHost}/`] = answer(403, {}, "<Error><Code>AccessDenied</Code></Error>")),
      () =>
        `media: expected https://${mediaHost}/verification/*.txt to answer 200 with the object just put, got HTTP 403 (AccessDenied)`,
    ],
    [
      "wrong media keys",
      () => (target.media = target.media && { ...target.media, secretAccessKey: "another" }),
      () => `media: expected ${bucketText()} to take an object, got HTTP 403 (SignatureDoesNotMatch)`,
    ],
    [
      "media that cannot be deleted",
      () => (deletion = answer(403, {}, "<Error><Code>AccessDenied</Code></Error>")),
      () => `media: expected ${bucketText()} to delete an object, got HTTP 403 (AccessDenied)`,
    ],
    [
      "the blog down",
      () => (broken[`${apex}/`] = answer(503, {}, "no available server")),
      () => `blog: expected https://${apex}/ to answer 200 with text/html, got HTTP 503`,
    ],
    [
      "a blog that sends its readers away",
      () => (broken[`${apex}/`] = answer(301, { location: `https://${webHost}/` })),
      () => `blog: expected https://${apex}/ to answer 200 with text/html, got HTTP 301 to https://${webHost}/`,
    ],
    [
      "Mastodon down",
      () => {
        for (const known of Object.keys(right))
          if (known.startsWith(webHost) && !known.includes("streaming")) broken[known] = answer(503);
      },
      () => `mastodon: expected https://${webHost}/health to answer 200, got HTTP 503`,
    ],
  ];
  afterEach(() => objects.clear());

  it.each(faults)("%s", async (_name, breakIt, line) => {
    breakIt();
    expect(await lines()).toEqual([`verification failed: ${line()}`]);
  });

  it("does not call a second fault a consequence of the first", async () => {
    broken[`${apex}/.well-known/webfinger`] = answer(404);
    broken[`${webHost}/.well-known/nodeinfo`] = answer(500);
    expect((await lines()).map((line) => line.split(": ")[1])).toEqual(["webfinger redirect", "nodeinfo"]);
  });

  it("asks nobody but the given address", async () => {
    const closed = http.createServer();
    await listen(closed);
    const port = portOf(closed);
    await new Promise((done) => closed.close(done));
    const results = await verify({ ...target, httpsPort: port, httpPort: port });
    expect(failureLines(results)).toEqual([
      `verification failed: certificate apex: expected a trusted certificate for ${apex}, got connect ECONNREFUSED 127.0.0.1:${port}`,
    ]);
    expect(new Set(Object.values(statuses(results)))).toEqual(new Set(["failed", "consequence"]));
  });

  it("gives up a definite answer long before the time is over, and no other", async () => {
    let asked = 0;
    broken = {
      [`${webHost}/api/v2/instance`]: json({ domain: webHost }),
      // Twelve pauses are longer than a definite answer has.
      [`${apex}/`]: (request, response) => (++asked > 12 ? right[`${apex}/`] : answer(503))?.(request, response),
    };
    const pace = { answerSeconds: 10, settleSeconds: 0.3, pauseSeconds: { first: 0.05, longest: 0.05 } };
    // It would not come to its end here if it waited for that.
    const results = await verify({ ...target, retrySeconds: 600 }, pace);
    expect(statuses(results)).toMatchObject({ mastodon: "failed", blog: "ok" });

    broken = { ...broken, [`${apex}/`]: answer(503) };
    const atMost = await verify({ ...target, retrySeconds: 1.5 }, pace);
    const seconds = (name: string) => atMost.find((r) => r.check === name)?.seconds ?? 0;
    expect(seconds("mastodon")).toBeGreaterThanOrEqual(0.3);
    expect(seconds("blog")).toBeGreaterThanOrEqual(1.3);
  });

  it("does not wait for ever for an answer", async () => {
    broken = { [`${apex}/`]: () => undefined };
    // Long enough for the others' answers on a busy machine.
    const pace = { answerSeconds: 3, settleSeconds: 1, pauseSeconds: { first: 1, longest: 1 } };
    expect(failureLines(await verify(target, pace))).toEqual([
      `verification failed: blog: expected https://${apex}/ to answer 200 with text/html, got no answer within 3 s`,
    ]);
  });
});

describe("public DNS", () => {
  /** A DNS server that knows our hosts and no other. */
  async function nameServer(known: string[]) {
    const server = dgram.createSocket("udp4");
    server.on("message", (query, from) => {
      const labels: string[] = [];
      let at = 12;
      for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
        labels.push(query.subarray(at + 1, at + 1 + length).toString());
        at += length + 1;
      }
      const found = known.includes(labels.join("."));
      const isA = query.readUInt16BE(at + 1) === 1;
      const head = Buffer.from(query.subarray(0, 12));
      head.writeUInt16BE(found ? 0x8180 : 0x8183, 2);
      head.writeUInt16BE(found && isA ? 1 : 0, 6);
      head.writeUInt16BE(0, 10);
      const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
      server.send(Buffer.concat([head, query.subarray(12, at + 5), ...(found && isA ? [record] : [])]), from.port);
    });
    await new Promise<void>((done) => server.bind(0, "127.0.0.1", done));
    return { resolver: [`127.0.0.1:${server.address().port}`], close: () => server.close() };
  }

  it("is asked, of the servers that were named", async () => {
    const names = await nameServer([apex, webHost, mediaHost]);
    expect(await lines({ address: null, resolver: names.resolver })).toEqual([]);
    names.close();
  });

  it("is not right while a name is missing", async () => {
    const names = await nameServer([apex, mediaHost]);
    expect(await lines({ address: null, resolver: names.resolver })).toContain(
      `verification failed: certificate web host: expected a trusted certificate for ${webHost}, got queryA ENOTFOUND ${webHost}`,
    );
    names.close();
  });
});

describe("targetOf", () => {
  const media = {
    endpoint: "http://object-store:7070",
    region: "us-east-1",
    bucket: "media",
    publicUrl: `https://${mediaHost}/`,
  };
  const settings = {
    apex,
    webHost,
    owner,
    media: { kind: "bucket" as const, ...media },
    ingress: { address: "192.0.2.1" },
    verification: {},
  };

  it("asks where the ingress is reached from within, where the world's way is closed from there", () => {
    const verification = { address: "10.0.0.11" };
    expect(targetOf({ ...settings, verification, objectStore: "external" }, "").address).toBe("10.0.0.11");
  });

  it("is asked there by this machine only if it is the one that verifies: the cluster knows addresses that it does not", () => {
    const address = "traefik.kube-system.svc";
    const from = (from: "here" | "cluster") => askedFromHere({ ...settings, verification: { from, address } });
    expect([from("here"), from("cluster")]).toEqual([address, "192.0.2.1"]);
    expect(askedFromHere({ ...settings, verification: { from: "here" } })).toBe("192.0.2.1");
  });

  it("asks an embedded store's media host at the ingress", () => {
    expect(targetOf({ ...settings, objectStore: "embedded" }, "PEM")).toEqual({
      apex,
      webHost,
      owner,
      address: "192.0.2.1",
      ingressHosts: [mediaHost],
      ca: "PEM",
      media: { ...media, publicUrl: `https://${mediaHost}` },
    });
  });

  it("asks the web host for the media volume's own file where there is no bucket", () => {
    const made = targetOf({ ...settings, media: { kind: "volume" }, objectStore: "external" }, "");
    expect([made.media, made.mediaFile]).toEqual([undefined, `https://${webHost}/system/homestead/volume.txt`]);
  });

  it("asks any other media host where DNS points", () => {
    expect(targetOf({ ...settings, objectStore: "external" }, "").ingressHosts).toEqual([]);
  });
});

describe("homestead verify", () => {
  const out = { log: "", error: "" };
  beforeEach(() => {
    out.log = "";
    out.error = "";
    vi.spyOn(console, "log").mockImplementation((text: string) => void (out.log += `${text}\n`));
    vi.spyOn(console, "error").mockImplementation((text: string) => void (out.error += `${text}\n`));
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
    process.exitCode = undefined;
  });
  const run = (args: string[], load?: Parameters<typeof verifyCommand>[0]) =>
    verifyCommand(load).parseAsync(args, { from: "user" });
  const file = (content: string) => {
    const name = path.join(folder, "target.json");
    fs.writeFileSync(name, content);
    return name;
  };

  it("shows every check of a site that is right", async () => {
    await run(["--target-file", file(JSON.stringify(target)), "--retry", "0"]);
    for (const name of checkNames) expect(out.log).toContain(name);
    expect(out.log.match(/ ok /g)?.length).toBe(checkNames.length);
    expect([out.error, process.exitCode]).toEqual(["", undefined]);
  });

  it("ends with 1 and the line of the fault, and shows no key", async () => {
    broken[`${apex}/`] = answer(503);
    await run(["home", "--retry", "0", "--json"], (site) => {
      expect(site).toBe("home");
      return Promise.resolve(target);
    });
    expect(out.error).toBe(
      `verification failed: blog: expected https://${apex}/ to answer 200 with text/html, got HTTP 503\n`,
    );
    expect(process.exitCode).toBe(1);
    expect(statuses(JSON.parse(out.log) as CheckResult[])).toMatchObject({ blog: "failed", mastodon: "ok" });
    expect(out.log + out.error).not.toContain(keys.secretAccessKey);
    expect(out.log + out.error).not.toContain(keys.accessKeyId);
  });

  it.each([
    ["{ secret", (name: string) => `${name}: expected a verification target as JSON`],
    [
      JSON.stringify({ apex, webHost, owner, address: 1 }),
      (name: string) => `${name}: address: Invalid input: expected string, received number`,
    ],
  ])("refuses the target %s", async (content, message) => {
    const name = file(content);
    await expect(run(["--target-file", name])).rejects.toThrow(new UserError(message(name)));
  });

  it("wants a site or a target", async () => {
    await expect(run([])).rejects.toThrow(new UserError("name a site (home, vps, dev) or give --target-file"));
  });

  /** A Pulumi CLI that shows a stack's configuration, secrets included. */
  const pulumiShows = (config: Record<string, string>) => {
    const bin = path.join(folder, "bin");
    const shown = Object.fromEntries(Object.entries(config).map(([key, value]) => [key, { value, secret: false }]));
    const script = [
      "#!/bin/sh",
      `case " $* " in *" vps "*) echo "error: no stack named 'vps' found" >&2; exit 255;; esac`,
      `case " $* " in *" config "*" --show-secrets "*) cat '${path.join(bin, "shown.json")}';; esac`,
    ];
    fs.mkdirSync(bin, { recursive: true });
    fs.writeFileSync(path.join(bin, "shown.json"), JSON.stringify(shown));
    fs.writeFileSync(path.join(bin, "pulumi"), script.join("\n"), { mode: 0o755 });
    vi.stubEnv("PATH", `${bin}:${process.env["PATH"]}`);
  };

  it("reads a stack through the Pulumi CLI", async () => {
    pulumiShows({ "homestead:apex": "UPPER" });
    await expect(run(["vps"])).rejects.toThrow(/^pulumi config .*: no stack named 'vps' found$/);
    await expect(run(["home"])).rejects.toThrow(/homestead:apex: "UPPER"\n {4}allowed: a lower-case host name/);
  });

  const authorityPath = "/api/v1/namespaces/homestead/secrets/authority-tls";
  /** A site with an authority of its own, whose cluster is asked for it. */
  const selfSigned = (kubeconfig: string) => {
    const cluster = { context: "trial", kubeconfig };
    pulumiShows(configurationOf("home", { certificates: { kind: "selfSigned" }, cluster }).config);
    return `kubectl --kubeconfig ${kubeconfig} --context trial`;
  };

  it("trusts a site's own authority, as its cluster has it", async () => {
    const data = { "tls.crt": Buffer.from("PEM").toString("base64") };
    selfSigned((await fakeCluster({ others: { [authorityPath]: () => ({ data }) } })).kubeconfig);
    expect((await loadTarget("home")).ca).toBe("PEM");
  });

  it("says that a site has no authority yet", async () => {
    selfSigned((await fakeCluster()).kubeconfig);
    await expect(run(["home"])).rejects.toThrow(
      new UserError(
        "home has no authority yet, the Secret authority-tls in namespace homestead: pulumi up --stack home first; or, with its certificate in a file: npx homestead verify home --ca-file <file>",
      ),
    );
  });

  it("says what was asked of a cluster that does not answer, or has no word to say on it", async () => {
    const closed = selfSigned(kubeconfigFor("http://127.0.0.1:1"));
    await expect(run(["home"])).rejects.toThrow(
      `the authority of home's certificates cannot be read from the cluster of context 'trial' (get secrets/authority-tls -n homestead: bad port): ${closed} get namespaces, then the same again; or, with its certificate in a file: npx homestead verify home --ca-file <file>`,
    );
    const refused = selfSigned((await fakeCluster({ forbidden: [authorityPath] })).kubeconfig);
    await expect(run(["home"])).rejects.toThrow(
      `(get secrets/authority-tls -n homestead: 403, no right to ${authorityPath}): ${refused} auth can-i get secrets/authority-tls -n homestead shows whether it may be; or, with its certificate in a file: npx homestead verify home --ca-file <file>`,
    );
  });

  it("says what mends it where this machine has no kubeconfig for the cluster", async () => {
    selfSigned("/nowhere");
    await expect(run(["home"])).rejects.toThrow(
      new UserError(
        "the authority of home's certificates cannot be read from the cluster of context 'trial': kubeconfig /nowhere does not exist: put the file there, or: pulumi config set --path homestead:cluster.kubeconfig <file> --stack home; or, with its certificate in a file: npx homestead verify home --ca-file <file>",
      ),
    );
  });

  it("asks no cluster where the authority is in a file", async () => {
    selfSigned(kubeconfigFor("http://127.0.0.1:1"));
    expect((await loadTarget("home", "PEM")).ca).toBe("PEM");
  });
});
