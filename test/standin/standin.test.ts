/**
 * The stand-in for Mastodon as a whole: its own processes, a real Postgres and Redis, a bucket, an ingress, and a remote server that finds it by
 * its handle. This is the instrument that later proves things about homestead, so it has to be proved first.
 */
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Peer, startPeer } from "./peer/peer.ts";
import { type Server, Standin } from "./support/program.ts";
import {
  type Bucket,
  type Certificates,
  type Running,
  freePort,
  makeCertificates,
  remove,
  startBucket,
  startDns,
  startIngress,
  startPostgres,
  startRedis,
  until,
  whatIsMissing,
} from "./support/services.ts";

const missing = whatIsMissing();
if (missing !== undefined) console.warn(`stand-in: integration test skipped: ${missing}`);

const OWNER = { OWNER_USERNAME: "owner", OWNER_EMAIL: "owner@apex.test", OWNER_PASSWORD: "correct horse battery" };
const QUEUES = "-q default,8 -q push,6 -q ingress,4 -q mailers,2 -q pull -q scheduler -q fasp";

describe.skipIf(missing !== undefined)(
  "the stand-in for Mastodon",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "standin-test-"));
    const stops: (() => Promise<unknown>)[] = [];
    const keep = <T extends { stop(): Promise<unknown> }>(running: T): T => {
      stops.push(() => running.stop());
      return running;
    };

    let standin: Standin;
    let redis: Running;
    let bucket: Bucket;
    let certificates: Certificates;
    let peer: Peer;
    let web: Server;
    let sidekiq: Server;
    let env: Record<string, string>;
    let apex = "";
    let webHost = "";
    let webPort = 0;
    let streamingPort = 0;
    let token = "";

    /** A request as the ingress passes it on. */
    const ask = async (
      method: string,
      path: string,
      options: { body?: unknown; form?: FormData; headers?: Record<string, string> } = {},
    ) => {
      const { request } = await import("undici");
      const multipart = options.form === undefined ? undefined : new Response(options.form);
      const headers: Record<string, string> = {
        host: webHost,
        "x-forwarded-proto": "https",
        ...(token === "" ? {} : { authorization: `Bearer ${token}` }),
        ...(options.body === undefined ? {} : { "content-type": "application/json" }),
        ...(multipart === undefined ? {} : { "content-type": multipart.headers.get("content-type") ?? "" }),
        ...options.headers,
      };
      const body =
        multipart === undefined
          ? options.body === undefined
            ? null
            : JSON.stringify(options.body)
          : Buffer.from(await multipart.arrayBuffer());
      const response = await request(`http://127.0.0.1:${webPort}${path}`, { method: method as "GET", headers, body });
      const text = await response.body.text();
      const json = (): Record<string, unknown> & { error?: string } => JSON.parse(text) as Record<string, unknown>;
      return { status: response.statusCode, headers: response.headers, text, json };
    };
    const post = async (status: string, headers: Record<string, string> = {}): Promise<string> => {
      const answer = await ask("POST", "/api/v1/statuses", { body: { status }, headers });
      expect(answer.status, answer.text).toBe(200);
      return answer.json().id as string;
    };
    const sql = (text: string): string =>
      execFileSync(
        "psql",
        ["-h", "127.0.0.1", "-p", env.DB_PORT ?? "", "-U", "mastodon", "-d", "mastodon", "-Atc", text],
        { encoding: "utf8" },
      ).trim();
    const redisCli = (...args: string[]): string =>
      execFileSync("redis-cli", ["-p", String(redis.port), "-a", "redis-password", "--no-auth-warning", ...args], {
        encoding: "utf8",
      }).trim();
    const activityId = (id: string): string => `https://${webHost}/users/owner/statuses/${id}/activity`;

    const startWeb = (): Promise<Server> =>
      standin.serve("bundle exec puma -C config/puma.rb", /listening on/, {
        PORT: String(webPort),
        MAX_THREADS: "5",
        WEB_CONCURRENCY: "0",
      });
    const startSidekiq = (): Promise<Server> => standin.serve(`bundle exec sidekiq -c 5 ${QUEUES}`, /at a time/);

    beforeAll(async () => {
      mkdirSync(join(folder, "root", "tmp"), { recursive: true });
      const { bundle } = await import("./build.ts");
      await bundle(join(folder, "root", "standin"), { version: "4.6.2", failMigration: false });

      const postgres = keep(await startPostgres(join(folder, "postgres")));
      redis = keep(await startRedis(join(folder, "redis")));
      bucket = keep(await startBucket(join(folder, "bucket"), "media", "access", "secret-secret"));
      certificates = makeCertificates(join(folder, "certificates"), ["apex.test", "web.test", "localhost"]);
      const dns = keep(await startDns(["apex.test", "web.test"]));

      const ingressPort = await freePort();
      webPort = await freePort();
      streamingPort = await freePort();
      apex = `apex.test:${ingressPort}`;
      webHost = `web.test:${ingressPort}`;
      keep(
        await startIngress(ingressPort, certificates, {
          apex,
          web: webHost,
          webPort: () => webPort,
          streamingPort: () => streamingPort,
        }),
      );

      env = {
        LOCAL_DOMAIN: apex,
        WEB_DOMAIN: webHost,
        SINGLE_USER_MODE: "true",
        RAILS_ENV: "production",
        NODE_ENV: "production",
        DB_HOST: "127.0.0.1",
        DB_PORT: String(postgres.port),
        DB_USER: "mastodon",
        DB_NAME: "mastodon",
        DB_PASS: "unused",
        REDIS_HOST: "127.0.0.1",
        REDIS_PORT: String(redis.port),
        REDIS_PASSWORD: "redis-password",
        SECRET_KEY_BASE: "s".repeat(128),
        ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY: "p".repeat(32),
        ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY: "d".repeat(32),
        ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT: "k".repeat(32),
        VAPID_PUBLIC_KEY: "the-public-key",
        VAPID_PRIVATE_KEY: "the-private-key",
        S3_ENABLED: "true",
        S3_BUCKET: "media",
        S3_ENDPOINT: `http://127.0.0.1:${bucket.port}`,
        S3_HOSTNAME: `127.0.0.1:${bucket.port}`,
        S3_PROTOCOL: "https",
        S3_PERMISSION: "",
        S3_ALIAS_HOST: "files.apex.test",
        AWS_ACCESS_KEY_ID: "access",
        AWS_SECRET_ACCESS_KEY: "secret-secret",
        ALLOWED_PRIVATE_ADDRESSES: "127.0.0.0/8, ::1",
        SSL_CERT_FILE: certificates.ca,
      };
      standin = new Standin(join(folder, "root"), env);
      peer = keep(
        await startPeer({
          domain: "localhost",
          address: "127.0.0.1",
          port: 0,
          cert: certificates.cert,
          key: certificates.key,
          ca: certificates.ca,
          dns: `127.0.0.1:${dns.port}`,
        }),
      );
    });

    afterAll(async () => {
      for (const stop of stops.reverse()) await stop();
      await remove(folder);
    });

    describe("before there is anything", () => {
      test("web does not start without its secrets, and says which", async () => {
        const { code, stderr } = await standin.run("bundle exec puma -C config/puma.rb", {
          ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY: "",
        });
        expect(code).toBe(1);
        expect(stderr).toContain("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY");
        const second = await standin.run("bundle exec puma -C config/puma.rb", { SECRET_KEY_BASE: "" });
        expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining("secret_key_base") as string });
      });

      test("a variable that Mastodon does not know is refused by every command", async () => {
        for (const command of [
          "bundle exec puma -C config/puma.rb",
          "bundle exec rake db:migrate",
          "streaming",
          "bundle exec sidekiq -c 5 -q default",
          "tootctl version",
        ])
          expect(await standin.run(command, { LOCAL_DOMIAN: "x" }), command).toMatchObject({
            code: 1,
            stderr: expect.stringContaining("LOCAL_DOMIAN") as string,
          });
      });

      test("the owner's job fails with its own exit code while there is no schema", async () => {
        const script = join(import.meta.dirname, "../../components/owner-account.rb");
        expect(await standin.run(`bin/rails runner ${script}`)).toMatchObject({ code: 1 });
        expect(await standin.run(`rails runner ${script}`, OWNER)).toMatchObject({
          code: 4,
          stderr: expect.stringContaining("not ready") as string,
        });
      });
    });

    describe("the schema", () => {
      test("db:prepare makes and seeds the database, and may run again", async () => {
        expect((await standin.run("bundle exec rake db:prepare")).code).toBe(0);
        expect(sql("SELECT string_agg(name, ',' ORDER BY id) FROM user_roles WHERE id > 0")).toBe(
          "Moderator,Admin,Owner",
        );
        const before = sql("SELECT private_key FROM accounts WHERE id = -99");
        expect((await standin.run("bundle exec rake db:prepare")).code).toBe(0);
        expect(sql("SELECT private_key FROM accounts WHERE id = -99")).toBe(before);
        expect(before).not.toContain("PRIVATE KEY");
      });

      test("db:migrate has nothing to do then", async () => {
        const { code, stdout } = await standin.run("bundle exec rake db:migrate", {
          SKIP_POST_DEPLOYMENT_MIGRATIONS: "true",
        });
        expect({ code, stdout }).toEqual({ code: 0, stdout: "" });
      });
    });

    describe("the owner", () => {
      const script = join(import.meta.dirname, "../../components/owner-account.rb");

      test("is made once, and never given another password", async () => {
        expect(await standin.run(`rails runner ${script}`, OWNER)).toEqual({
          code: 0,
          stdout: "created\n",
          stderr: "",
        });
        const password = sql("SELECT encrypted_password FROM users");
        sql("UPDATE users SET role_id = NULL, approved = false, confirmed_at = NULL");
        expect(await standin.run(`rails runner ${script}`, { ...OWNER, OWNER_PASSWORD: "another password" })).toEqual({
          code: 0,
          stdout: "exists\n",
          stderr: "",
        });
        expect(sql("SELECT role_id, approved, confirmed_at IS NOT NULL FROM users")).toBe("3|t|t");
        expect(sql("SELECT encrypted_password FROM users")).toBe(password);
      });

      test("says who may register", async () => {
        expect(
          await standin.run(`rails runner ${script}`, { ...OWNER, OWNER_REGISTRATIONS: "approved" }),
        ).toMatchObject({ code: 0 });
        expect(sql("SELECT value FROM settings WHERE var = 'registrations_mode'")).toBe("approved");
        expect(await standin.run(`rails runner ${script}`, OWNER)).toMatchObject({ code: 0 });
        expect(sql("SELECT value FROM settings WHERE var = 'registrations_mode'")).toBe("none");
        expect(await standin.run(`rails runner ${script}`, { ...OWNER, OWNER_REGISTRATIONS: "open" })).toMatchObject({
          code: 2,
        });
      });

      test("is refused with a reason when something is missing or taken", async () => {
        expect(await standin.run(`rails runner ${script}`, { ...OWNER, OWNER_EMAIL: "" })).toMatchObject({
          code: 2,
          stderr: expect.stringContaining("OWNER_EMAIL") as string,
        });
        expect(await standin.run(`rails runner ${script}`, { ...OWNER, OWNER_USERNAME: "other" })).toMatchObject({
          code: 3,
          stderr: expect.stringContaining("taken") as string,
        });
      });

      test("tootctl refuses to make it again, and OWNER_* elsewhere", async () => {
        const again = await standin.run(
          "tootctl accounts create owner --email owner@localhost --confirmed --role Owner --approve",
        );
        expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining("has already been taken") as string });
        expect(await standin.run("tootctl version", OWNER)).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("OWNER_PASSWORD") as string,
        });
      });

      test("a script that is not homestead's is refused", async () => {
        const other = join(folder, "other.rb");
        writeFileSync(other, "puts 1\n");
        expect(await standin.run(`rails runner ${other}`)).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("cannot run Ruby") as string,
        });
      });
    });

    describe("serving", () => {
      beforeAll(async () => {
        [web, sidekiq] = await Promise.all([startWeb(), startSidekiq()]);
        const streaming = await standin.serve("streaming", /listening on/, { PORT: String(streamingPort) });
        stops.push(
          () => streaming.stop(),
          () => sidekiq.stop(),
          () => web.stop(),
        );
        const answer = await ask("POST", "/oauth/token", {
          body: { grant_type: "password", username: OWNER.OWNER_EMAIL, password: OWNER.OWNER_PASSWORD },
        });
        expect(answer.status, answer.text).toBe(200);
        token = answer.json().access_token as string;
      });

      test("health is plain; everything else wants the right host, and TLS before it", async () => {
        expect(
          await ask("GET", "/health", { headers: { host: "10.0.0.1", "x-forwarded-proto": "http" } }),
        ).toMatchObject({ status: 200, text: "OK" });
        expect((await ask("GET", "/api/v2/instance", { headers: { host: "10.0.0.1" } })).status).toBe(403);
        const plain = await ask("GET", "/about?x=1", { headers: { "x-forwarded-proto": "http" } });
        expect(plain.status).toBe(301);
        expect(plain.headers.location).toBe(`https://${webHost}/about?x=1`);
        const streaming = await fetch(`http://127.0.0.1:${streamingPort}/api/v1/streaming/health`);
        expect(await streaming.text()).toBe("OK");
        expect(await (await fetch(`http://127.0.0.1:${streamingPort}/metrics`)).text()).toContain("connected_clients");
      });

      test("WebFinger answers for both domains with the apex as the subject", async () => {
        for (const resource of [`acct:owner@${apex}`, `acct:OWNER@${webHost}`, `https://${webHost}/@owner`]) {
          const answer = await ask("GET", `/.well-known/webfinger?resource=${encodeURIComponent(resource)}`, {
            headers: { origin: "https://elsewhere.test" },
          });
          expect(answer.status, resource).toBe(200);
          expect(answer.headers["content-type"]).toMatch(/^application\/jrd\+json/);
          expect(answer.headers["access-control-allow-origin"]).toBe("*");
          expect(answer.json()).toMatchObject({ subject: `acct:owner@${apex}` });
        }
        expect((await ask("GET", "/.well-known/webfinger")).status).toBe(400);
        expect((await ask("GET", "/.well-known/webfinger?resource=owner")).status).toBe(400);
        expect((await ask("GET", "/.well-known/webfinger?resource=acct:owner@elsewhere.test")).status).toBe(404);
        expect((await ask("GET", `/.well-known/webfinger?resource=acct:nobody@${apex}`)).status).toBe(404);
      });

      test("host-meta, nodeinfo and the instance say what they should", async () => {
        expect((await ask("GET", "/.well-known/host-meta")).text).toContain(
          `https://${webHost}/.well-known/webfinger?resource={uri}`,
        );
        expect((await ask("GET", "/.well-known/nodeinfo")).json()).toMatchObject({
          links: [{ href: `https://${webHost}/nodeinfo/2.0` }],
        });
        expect((await ask("GET", "/nodeinfo/2.0")).json()).toMatchObject({
          version: "2.0",
          software: { name: "mastodon", version: "4.6.2" },
          metadata: { standin: true },
        });
        expect((await ask("GET", "/api/v2/instance")).json()).toMatchObject({
          domain: apex,
          version: "4.6.2",
          registrations: { enabled: false },
          configuration: { vapid: { public_key: "the-public-key" } },
        });
        expect((await ask("GET", "/api/v1/instance")).json()).toMatchObject({ uri: apex, registrations: false });
        const front = await ask("GET", "/");
        expect(front.headers.location).toBe("/@owner");
        expect((await ask("GET", "/@owner")).text).toContain(`@owner@${apex}`);
        expect((await ask("GET", "/users/owner", { headers: { accept: "text/html" } })).headers.location).toBe(
          `https://${webHost}/@owner`,
        );
      });

      test("an unknown account, a wrong password and no token are told apart", async () => {
        const wrong = await ask("POST", "/oauth/token", {
          body: { grant_type: "password", username: OWNER.OWNER_EMAIL, password: "wrong password" },
        });
        expect(wrong.status).toBe(400);
        expect(
          (await ask("POST", "/api/v1/statuses", { body: { status: "x" }, headers: { authorization: "" } })).status,
        ).toBe(401);
        expect(
          (await ask("POST", "/api/v1/statuses", { body: { status: "x" }, headers: { authorization: "Bearer wrong" } }))
            .status,
        ).toBe(401);
        expect((await ask("GET", "/api/v1/accounts/verify_credentials")).json()).toMatchObject({
          username: "owner",
          role: { name: "Owner" },
        });
        expect((await ask("GET", `/api/v1/accounts/lookup?acct=owner@${apex}`)).json()).toMatchObject({
          acct: "owner",
          uri: `https://${webHost}/users/owner`,
        });
      });

      test("a remote server finds the owner from the apex alone, and follows", async () => {
        const found = await peer.lookup(`@owner@${apex}`);
        expect(found).toMatchObject({ id: `https://${webHost}/users/owner`, acct: `owner@${apex}` });
        expect(found.hops.slice(0, 2).map((hop) => new URL(hop).host)).toEqual([apex, webHost]);
        await expect(peer.lookup(`@nobody@${apex}`)).rejects.toThrow("was answered with 404");
        await expect(peer.lookup("@owner@unknown.test")).rejects.toThrow(/ENOTFOUND/);

        const follow = await peer.follow(`@owner@${apex}`);
        await peer.until("the follow is accepted", (state) =>
          state.follows.some((one) => one.id === follow.id && one.state === "accepted"),
        );
        expect(sql("SELECT count(*) FROM follows")).toBe("1");
      });

      test("a post is committed, in the feed, on the stream, and reaches the follower exactly once", async () => {
        const { WebSocket } = await import("ws");
        const socket = new WebSocket(
          `ws://127.0.0.1:${streamingPort}/api/v1/streaming?access_token=${token}&stream=user`,
        );
        const events: { event: string; payload: string }[] = [];
        socket.on("message", (data) =>
          events.push(JSON.parse((data as Buffer).toString()) as { event: string; payload: string }),
        );
        await until("the stream is subscribed", () =>
          redisCli("pubsub", "numsub", `timeline:${sql("SELECT id FROM accounts WHERE username = 'owner'")}`).endsWith(
            "1",
          ),
        );

        const id = await post("Hello & <welcome>");
        expect(sql(`SELECT text FROM statuses WHERE id = ${id}`)).toBe("Hello & <welcome>");
        const state = await peer.until("the post arrives", (now) => now.counts[activityId(id)] !== undefined);
        expect(state.received.at(-1)).toMatchObject({
          type: "Create",
          content: "<p>Hello &amp; &lt;welcome&gt;</p>",
          actor: `https://${webHost}/users/owner`,
        });
        await until("the event comes", () => events.length > 0);
        expect(JSON.parse(events[0]?.payload ?? "{}")).toMatchObject({ id });
        socket.close();
        await until("it is in the home feed", async () => {
          const feed = JSON.parse((await ask("GET", "/api/v1/timelines/home")).text) as { id: string }[];
          return feed[0]?.id === id;
        });
        expect((await ask("GET", `/api/v1/statuses/${id}`)).json()).toMatchObject({
          id,
          uri: `https://${webHost}/users/owner/statuses/${id}`,
        });
        const note = await ask("GET", `/users/owner/statuses/${id}`, {
          headers: { accept: "application/activity+json" },
        });
        expect(note.json()).toMatchObject({ type: "Note", id: `https://${webHost}/users/owner/statuses/${id}` });
        expect((await peer.state()).counts[activityId(id)]).toBe(1);
        expect((await peer.state()).refused).toEqual([]);
      });

      test("an Idempotency-Key makes a repeated request one post", async () => {
        const first = await post("Only once", { "idempotency-key": "the-key" });
        expect(await post("Only once", { "idempotency-key": "the-key" })).toBe(first);
        expect(sql("SELECT count(*) FROM statuses WHERE text = 'Only once'")).toBe("1");
      });

      test("what is not a post is refused", async () => {
        expect((await ask("POST", "/api/v1/statuses", { body: { status: " " } })).status).toBe(422);
        expect((await ask("POST", "/api/v1/statuses", { body: { status: "x".repeat(501) } })).status).toBe(422);
        expect((await ask("POST", "/api/v1/statuses", { body: { status: "x", visibility: "direct" } })).status).toBe(
          422,
        );
        expect(
          (await ask("POST", "/api/v1/statuses", { headers: { "content-type": "application/json" } })).status,
        ).toBe(400);
      });

      test("a file goes to the bucket whole, and has the public address", async () => {
        const bytes = randomBytes(3 * 1024 * 1024);
        const form = new FormData();
        form.set("file", new Blob([bytes], { type: "image/png" }), "photo.png");
        form.set("description", "A picture");
        const answer = await ask("POST", "/api/v2/media", { form });
        expect(answer.status, answer.text).toBe(200);
        const { id, url, type, description } = answer.json() as {
          id: string;
          url: string;
          type: string;
          description: string;
        };
        expect({ type, description }).toEqual({ type: "image", description: "A picture" });
        expect(url).toMatch(
          /^https:\/\/files\.apex\.test\/media_attachments\/files\/(\d{3}\/)+original\/[0-9a-f]{16}\.png$/,
        );
        const stored = bucket.read(new URL(url).pathname.slice(1));
        expect(createHash("sha256").update(stored).digest("hex")).toBe(
          createHash("sha256").update(bytes).digest("hex"),
        );

        const status = await ask("POST", "/api/v1/statuses", { body: { status: "With a picture", media_ids: [id] } });
        expect(status.json()).toMatchObject({ media_attachments: [{ id, url }] });
        expect((await ask("POST", "/api/v1/statuses", { body: { status: "Again", media_ids: [id] } })).status).toBe(
          422,
        );
      });

      test("a file that is none, or of no known kind, is refused", async () => {
        const text = new FormData();
        text.set("file", new Blob(["x"], { type: "text/plain" }), "x.txt");
        expect((await ask("POST", "/api/v2/media", { form: text })).status).toBe(422);
        expect((await ask("POST", "/api/v2/media", { body: {} })).status).toBe(422);
      });

      test("posts made while nobody works are delivered once somebody does", async () => {
        await until("all is in hand", () => redisCli("llen", "queue:push") === "0");
        expect(await sidekiq.stop()).toBe(0);
        const ids = [await post("While away 1"), await post("While away 2")];
        expect(redisCli("llen", "queue:push")).toBe("2");
        sidekiq = await startSidekiq();
        const state = await peer.until("both arrive", (now) =>
          ids.every((id) => now.counts[activityId(id)] !== undefined),
        );
        for (const id of ids) expect(state.counts[activityId(id)]).toBe(1);
      });

      describe("a job that is being worked on", () => {
        const inbox = (port: number): string => `https://localhost:${port}/inbox`;
        const inRedis = (id: string, port = redis.port): string[] =>
          [
            ["lrange", "queue:push"],
            ["zrange", "retry"],
            ["zrange", "dead"],
          ].flatMap(([command = "", key = ""]) =>
            redisCli("-p", String(port), command, key, "0", "-1").includes(`"create":"${id}"`) ? [key] : [],
          );

        /** A server that takes connections and says nothing, and a post whose delivery to it waits. */
        async function hanging(text: string) {
          const sockets: Socket[] = [];
          const server = createServer((socket) => void sockets.push(socket.on("error", () => undefined)));
          await new Promise<void>((started) => server.listen(0, "127.0.0.1", started));
          const { port } = server.address() as AddressInfo;
          const own = sql("SELECT shared_inbox_url FROM accounts WHERE domain IS NOT NULL");
          await sidekiq.stop();
          sql(`UPDATE accounts SET shared_inbox_url = '${inbox(port)}' WHERE domain IS NOT NULL`);
          const id = await post(text);
          return {
            id,
            taken: () => until("it is being delivered", () => sockets.length > 0),
            /** The follower is where it was, for this post as well. */
            back: () => {
              sql(`UPDATE accounts SET shared_inbox_url = '${own}' WHERE domain IS NOT NULL`);
              const job = redisCli("lpop", "queue:push");
              if (job !== "") redisCli("rpush", "queue:push", job.replace(inbox(port), own));
              for (const socket of sockets) socket.destroy();
              server.close();
            },
          };
        }
        /** One second for what it has in hand, where Sidekiq takes 25: the delivery hangs for five. */
        const impatient = (env: Record<string, string> = {}): Promise<Server> =>
          standin.serve(`bundle exec sidekiq -c 5 -t 1 ${QUEUES}`, /at a time/, env);

        test("is out of Redis, and given back by a process that is told to stop", async () => {
          const { id, taken, back } = await hanging("In hand when it was told to stop");
          sidekiq = await impatient();
          await taken();
          expect(inRedis(id)).toEqual([]);
          expect(await sidekiq.stop()).toBe(0);
          expect(inRedis(id)).toEqual(["queue:push"]);
          back();
          sidekiq = await startSidekiq();
          const state = await peer.until("it arrives", (now) => now.counts[activityId(id)] !== undefined);
          expect(state.counts[activityId(id)]).toBe(1);
        });

        test("is lost with a process that is killed", async () => {
          const { id, taken, back } = await hanging("In hand when it was killed");
          sidekiq = await impatient();
          await taken();
          await sidekiq.kill();
          expect(inRedis(id)).toEqual([]);
          back();
          sidekiq = await startSidekiq();
        });

        test("is lost where Redis is gone before Sidekiq ends", async () => {
          const { id, taken, back } = await hanging("In hand when Redis went");
          const going = await startRedis(join(folder, "redis-that-goes"));
          const job = redisCli("lpop", "queue:push");
          redisCli("-p", String(going.port), "rpush", "queue:push", job);
          sidekiq = await impatient({ REDIS_PORT: String(going.port) });
          await taken();
          await going.stop();
          await sidekiq.stop();
          expect(sidekiq.log).toContain("job lost, it cannot be given back");
          expect(inRedis(id)).toEqual([]);
          back();
          sidekiq = await startSidekiq();
        });

        test("is taken by who can have it alone, however long writes are paused", async () => {
          await sidekiq.stop();
          const id = await post("Before a pause");
          const job = redisCli("rpop", "queue:push");
          sidekiq = await startSidekiq();
          // Sidekiq asks for it when the pause has begun, and is answered at its end.
          const commands = ["MULTI", `LPUSH queue:push ${JSON.stringify(job)}`, "CLIENT PAUSE 20000 WRITE", "EXEC"];
          const login = ["-p", String(redis.port), "-a", "redis-password", "--no-auth-warning"];
          execFileSync("redis-cli", login, { input: `${commands.join("\n")}\n` });
          await new Promise((later) => setTimeout(later, 7_000));
          redisCli("client", "unpause");
          const state = await peer.until("it arrives", (now) => now.counts[activityId(id)] !== undefined);
          expect(state.counts[activityId(id)]).toBe(1);
        });
      });

      test("a delivery that fails waits in Redis and is tried again", async () => {
        const down = await freePort();
        const follower = (port: number): string => `https://localhost:${port}/inbox`;
        const own = sql("SELECT shared_inbox_url FROM accounts WHERE domain IS NOT NULL");
        sql(`UPDATE accounts SET shared_inbox_url = '${follower(down)}' WHERE domain IS NOT NULL`);
        const id = await post("Try again");
        await until("it waits", () => redisCli("zcard", "retry") === "1");
        expect(redisCli("zrange", "retry", "0", "-1")).toContain("ECONNREFUSED");
        sql(`UPDATE accounts SET shared_inbox_url = '${own}' WHERE domain IS NOT NULL`);
        // The same job, due now, with its destination back.
        const job = redisCli("zrange", "retry", "0", "0");
        redisCli("zrem", "retry", job);
        redisCli("zadd", "retry", "0", job.replace(follower(down), own));
        const state = await peer.until("it arrives", (now) => now.counts[activityId(id)] !== undefined);
        expect(state.counts[activityId(id)]).toBe(1);
      });

      test("a post that was saved but never queued is found by the sweeper", async () => {
        const account = sql("SELECT id FROM accounts WHERE username = 'owner'");
        const id =
          sql(
            `INSERT INTO statuses (account_id, text, visibility, created_at) VALUES (${account}, 'Swept', 'public', now() - interval '1 minute') RETURNING id`,
          ).split("\n")[0] ?? "";
        await peer.until("it arrives", (now) => now.counts[activityId(id)] !== undefined);
        expect(sql(`SELECT enqueued_at IS NOT NULL FROM statuses WHERE id = ${id}`)).toBe("t");
      });

      test("with Redis' writes paused no post is accepted, and none is committed", async () => {
        const before = sql("SELECT count(*) FROM statuses");
        redisCli("client", "pause", "20000", "write");
        const answer = await ask("POST", "/api/v1/statuses", { body: { status: "Fenced" } });
        expect(answer.status).toBe(500);
        redisCli("client", "unpause");
        expect(sql("SELECT count(*) FROM statuses")).toBe(before);
        await post("Not fenced any more");
      });

      test("no acknowledged post is lost, whether web is killed while it is made or Sidekiq told to stop", async () => {
        const acknowledged: string[] = [];
        let posting = true;
        const author = async (name: string): Promise<void> => {
          for (let count = 1; posting; count++) {
            const answer = await ask("POST", "/api/v1/statuses", { body: { status: `${name} ${count}` } }).catch(
              () => undefined,
            );
            if (answer?.status === 200) acknowledged.push(answer.json().id as string);
          }
        };
        const authors = ["a", "b", "c"].map(author);
        for (let round = 0; round < 3; round++) {
          await new Promise((later) => setTimeout(later, 700));
          await Promise.all([sidekiq.stop(), web.kill()]);
          [web, sidekiq] = await Promise.all([startWeb(), startSidekiq()]);
        }
        posting = false;
        await Promise.all(authors);
        expect(acknowledged.length).toBeGreaterThan(20);
        const saved = new Set(sql("SELECT id FROM statuses").split("\n"));
        expect(acknowledged.filter((id) => !saved.has(id))).toEqual([]);
        await peer.until("every one of them arrives", (now) =>
          acknowledged.every((id) => (now.counts[activityId(id)] ?? 0) > 0),
        );
      });

      test("a lost feed is built again", async () => {
        redisCli("del", `feed:home:${sql("SELECT id FROM accounts WHERE username = 'owner'")}`);
        expect((await ask("GET", "/api/v1/timelines/home")).text).toBe("[]");
        expect(await standin.run("tootctl feeds build")).toMatchObject({
          code: 0,
          stdout: "Regenerated feeds for 1 accounts\n",
        });
        expect((JSON.parse((await ask("GET", "/api/v1/timelines/home")).text) as unknown[]).length).toBeGreaterThan(5);
      });

      test("a peer with a private address that is not allowed is not answered", async () => {
        await sidekiq.stop();
        sidekiq = await standin.serve(`bundle exec sidekiq -c 5 ${QUEUES}`, /at a time/, {
          ALLOWED_PRIVATE_ADDRESSES: "",
        });
        const id = await post("Not for private networks");
        await sidekiq.says(/ALLOWED_PRIVATE_ADDRESSES does not allow it/);
        expect((await peer.state()).counts[activityId(id)]).toBeUndefined();
        await sidekiq.stop();
        sidekiq = await startSidekiq();
      });

      test("the collections say what there is", async () => {
        const collection = async (name: string) =>
          (await ask("GET", `/users/owner/${name}`, { headers: { accept: "application/activity+json" } })).json();
        expect(await collection("followers")).toMatchObject({
          totalItems: 1,
          orderedItems: [`${peer.origin}/users/peer`],
        });
        expect(await collection("outbox")).toMatchObject({ totalItems: Number(sql("SELECT count(*) FROM statuses")) });
      });

      test("who takes a follow back gets nothing any more, and may come again", async () => {
        await peer.unfollow(`@owner@${apex}`);
        await until("the follow is gone", () => sql("SELECT count(*) FROM follows") === "0");
        const id = await post("For nobody");
        await until("all is in hand", () => redisCli("llen", "queue:push") === "0");
        expect((await peer.state()).counts[activityId(id)]).toBeUndefined();
        const again = await peer.follow(`@owner@${apex}`);
        await peer.until("it is accepted again", (state) =>
          state.follows.some((one) => one.id === again.id && one.state === "accepted"),
        );
      });

      test("a restore drill counts what is there, and sees wrong keys", async () => {
        const script = join(import.meta.dirname, "../../components/drill.rb");
        const right = await standin.run(`rails runner ${script}`);
        expect(right.code, right.stderr).toBe(0);
        const report = JSON.parse(right.stdout) as Record<string, unknown>;
        expect(report).toMatchObject({
          statuses: Number(sql("SELECT count(*) FROM statuses")),
          decrypted: true,
          encryptedValues: 2,
        });
        expect(report.mediaSample).toHaveLength(1);
        const early = await standin.run(`rails runner ${script}`, { MEDIA_WRITTEN_BEFORE: "2020-01-01T00:00:00.000Z" });
        expect(JSON.parse(early.stdout)).toMatchObject({ mediaSample: [] });
        const wrong = await standin.run(`rails runner ${script}`, {
          ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY: "x".repeat(32),
        });
        expect(JSON.parse(wrong.stdout)).toMatchObject({ decrypted: false });
      });

      test.each(["PRIMARY_KEY", "DETERMINISTIC_KEY", "KEY_DERIVATION_SALT"])(
        "web does not start with another %s",
        async (name) => {
          const { code, stderr } = await standin.run("bundle exec puma -C config/puma.rb", {
            [`ACTIVE_RECORD_ENCRYPTION_${name}`]: "x".repeat(32),
            PORT: "0",
          });
          expect(code).toBe(1);
          expect(stderr).toContain("cannot be decrypted with these ACTIVE_RECORD_ENCRYPTION_* keys");
        },
      );

      test("web stops in order when told to", async () => {
        expect(await web.stop()).toBe(0);
        web = await startWeb();
        expect((await ask("GET", "/health")).status).toBe(200);
      });
    });

    describe("another release", () => {
      test("has migrations before and after the deployment; its code waits for the first only", async () => {
        const { bundle } = await import("./build.ts");
        mkdirSync(join(folder, "next", "tmp"), { recursive: true });
        await bundle(join(folder, "next", "standin"), { version: "4.6.3", failMigration: false });
        const next = new Standin(join(folder, "next"), env);
        expect(await next.run("tootctl feeds build")).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("AddEditedAtToStatuses") as string,
        });
        expect(
          (await next.run("bundle exec rake db:migrate", { SKIP_POST_DEPLOYMENT_MIGRATIONS: "true" })).stdout,
        ).toMatch(/AddEditedAtToStatuses: migrated/);
        // Old code goes on in between, and so does the new.
        expect((await standin.run("tootctl feeds build")).code).toBe(0);
        expect((await next.run("tootctl feeds build")).code).toBe(0);
        const after = await next.run("bundle exec rake db:migrate");
        expect(after.stdout).toMatch(/AddIndexOnFollowsTarget: migrated/);
        expect(after.stdout).not.toContain("AddEditedAt");
      });

      test("can be one whose migration fails", async () => {
        const { bundle } = await import("./build.ts");
        await bundle(join(folder, "broken", "standin"), { version: "4.6.3", failMigration: true });
        const broken = new Standin(join(folder, "broken"), env);
        expect(await broken.run("bundle exec rake db:migrate")).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("this and all later migrations canceled") as string,
        });
        expect((await standin.run("tootctl feeds build")).code).toBe(0);
      });

      test("can be one whose migration fails after the deployment only", async () => {
        const { bundle } = await import("./build.ts");
        await bundle(join(folder, "late", "standin"), { version: "4.6.2", failMigration: "post" });
        const late = new Standin(join(folder, "late"), env);
        const before = { SKIP_POST_DEPLOYMENT_MIGRATIONS: "true" };
        expect((await late.run("bundle exec rake db:migrate", before)).code).toBe(0);
        expect((await late.run("tootctl feeds build")).code).toBe(0);
        expect((await late.run("bundle exec rake db:migrate")).code).toBe(1);
      });
    });
  },
  120_000,
);
