/** What the keeper tells Prometheus, against a real server where there is one. */
import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { bundle } from "../lib/bundle";
import { Metrics } from "../lib/lease/metrics";
import type { MetricsOptions } from "../lib/lease/metrics";
import { DiskProbe, pressureSamples } from "../lib/lease/metrics/disk";
import { exposition, metrics } from "../lib/lease/metrics/exposition";
import { parseReplies, valkeySamples } from "../lib/lease/metrics/valkey";
import { WebfingerProbe } from "../lib/lease/metrics/webfinger";
import { onPath } from "../lib/pulumi-cli";
import type { Answer } from "../lib/verify/client";
import { Unreachable } from "../lib/verify/client";
import { fakeStore } from "./support/fake-store";
import { temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";

const server = onPath("valkey-server") ?? onPath("redis-server");
if (leftOut(server === undefined ? "a real server: no valkey-server or redis-server here" : undefined))
  console.warn("metrics.test.ts: no valkey-server or redis-server here, so none is asked");
const places = [process.env["PATH"], path.join(os.homedir(), ".cache", "lab", "bin")];
const promtool = onPath("promtool", { PATH: places.join(path.delimiter) });

async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await look())) {
    if (Date.now() > end) throw new Error(`not within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const freePort = () =>
  new Promise<number>((resolve) => {
    const listener = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = listener.address() as net.AddressInfo;
      listener.close(() => resolve(port));
    });
  });

/** Samples as `name{labels}` -> value. */
const valuesOf = (text: string): Record<string, number> =>
  Object.fromEntries(
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );

describe("the text format", () => {
  it("has each metric once, its samples together, and leaves out what is not known", () => {
    const text = exposition([
      { name: "homestead_queue_length", labels: { queue: "push" }, value: 3 },
      { name: "homestead_fsync_seconds", value: NaN },
      { name: "homestead_valkey_up", value: 1 },
      { name: "homestead_queue_length", labels: { queue: 'a"b\\c' }, value: 0 },
    ]);
    expect(text).toBe(
      [
        "# HELP homestead_valkey_up Whether Valkey answers.",
        "# TYPE homestead_valkey_up gauge",
        "homestead_valkey_up 1",
        "# HELP homestead_queue_length Jobs that wait.",
        "# TYPE homestead_queue_length gauge",
        'homestead_queue_length{queue="push"} 3',
        'homestead_queue_length{queue="a\\"b\\\\c"} 0',
        "",
      ].join("\n"),
    );
  });

  it.skipIf(leftOut(promtool === undefined ? "the text format: no promtool here" : undefined))(
    "is what Prometheus reads, without a complaint",
    () => {
      const all = (Object.keys(metrics) as (keyof typeof metrics)[]).map((name) => ({ name, value: 1 }));
      const { status, stderr } = spawnSync(promtool ?? "", ["check", "metrics"], { input: exposition(all) });
      expect(String(stderr)).toBe("");
      expect(status).toBe(0);
    },
  );
});

describe("the look at the disk", () => {
  const seconds = (probe: DiskProbe) => probe.samples()[0]?.value ?? NaN;

  it("writes one page, again and again in the same place", async () => {
    const folder = temporaryFolder();
    const probe = new DiskProbe(folder);
    await probe.probe();
    await probe.probe();
    expect(fs.statSync(path.join(folder, "fsync-probe")).size).toBe(4096);
    expect(seconds(probe)).toBeGreaterThan(0);
    expect(probe.samples()[1]).toEqual({ name: "homestead_fsync_errors_total", value: 0 });
  });

  it("tells of a disk that hangs for as long as it has hung, and asks it only once", async () => {
    let now = 0;
    let writes = 0;
    let end: () => void = () => undefined;
    const write = () => ((writes += 1), new Promise<void>((resolve) => (end = resolve)));
    const probe = new DiskProbe("/data", write, () => now);
    const first = probe.probe();
    now = 40;
    expect(seconds(probe)).toBe(40);
    await probe.probe();
    expect(writes).toBe(1);
    now = 60;
    end();
    await first;
    now = 65;
    expect(seconds(probe)).toBe(60);
    // While the next one is under way the last one counts, so that a slow disk is slow without a gap.
    void probe.probe();
    expect([writes, seconds(probe)]).toEqual([2, 60]);
  });

  it("tells how much room there is, asks for it as seldom, and says nothing where it is not told", async () => {
    const folder = temporaryFolder();
    const probe = new DiskProbe(folder);
    expect(probe.samples().map(({ name }) => name)).not.toContain("homestead_volume_size_bytes");
    await probe.probe();
    const { blocks, bsize } = fs.statfsSync(folder);
    const values = Object.fromEntries(probe.samples().map(({ name, value }) => [name, value]));
    expect(values["homestead_volume_size_bytes"]).toBe(blocks * bsize);
    expect(values["homestead_volume_available_bytes"]).toBeGreaterThan(0);

    let looks = 0;
    const hangs = () => ((looks += 1), new Promise<never>(() => undefined));
    const hanging = new DiskProbe(folder, () => Promise.resolve(), undefined, hangs);
    void hanging.probe();
    await new Promise((resolve) => setImmediate(resolve));
    await hanging.probe();
    expect(looks).toBe(1);
    const gone = new DiskProbe(path.join(folder, "gone"));
    await gone.probe();
    expect(gone.samples()).toHaveLength(2);
  });

  it("counts what fails, and goes on", async () => {
    const probe = new DiskProbe(path.join(temporaryFolder(), "gone"));
    await probe.probe();
    await probe.probe();
    expect(probe.samples()[1]?.value).toBe(2);
  });
});

describe("I/O pressure", () => {
  it("is the kernel's, and nothing where it keeps none", () => {
    const file = path.join(temporaryFolder(), "io");
    expect(pressureSamples(file)).toEqual([]);
    fs.writeFileSync(
      file,
      "some avg10=71.02 avg60=40.51 avg300=9.87 total=1\nfull avg10=0.00 avg60=3.20 avg300=0.00 total=1\n",
    );
    expect(pressureSamples(file)).toEqual([
      { name: "homestead_io_pressure_some_avg60", value: 40.51 },
      { name: "homestead_io_pressure_full_avg60", value: 3.2 },
    ]);
  });
});

describe("Valkey's answers", () => {
  it("are read whatever they hold", () => {
    const answer = Buffer.from("+OK\r\n:7\r\n$-1\r\n$8\r\nz\r\nö\r\n:\r\n$0\r\n\r\n+OK\r\n");
    expect(parseReplies(answer)).toEqual(["OK", 7, undefined, "z\r\nö\r\n:", "", "OK"]);
  });

  it.each([
    ["-WRONGPASS no\r\n", "Valkey says -WRONGPASS no"],
    ["+OK\r\n:1", "Valkey's answer breaks off"],
  ])("are refused when they are none: %j", (answer, fault) => {
    expect(() => parseReplies(Buffer.from(answer))).toThrow(fault);
  });

  it("are nothing where none answers", async () => {
    const password = path.join(temporaryFolder(), "password.conf");
    fs.writeFileSync(password, "requirepass geheim\n");
    const samples = await valkeySamples({ port: await freePort(), password, queues: ["push"] });
    expect(samples).toEqual([{ name: "homestead_valkey_up", value: 0 }]);
  });
});

/** A real server with a password and some jobs; `send` speaks to it in plain lines. */
async function realServer() {
  const folder = temporaryFolder();
  const port = await freePort();
  const password = path.join(folder, "password.conf");
  fs.writeFileSync(password, "requirepass geheim\n");
  const options = ["--port", String(port), "--dir", folder, "--requirepass", "geheim", "--maxmemory", "384mb"];
  const child = spawn(server ?? "", options, { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const send = (lines: string[]) =>
    new Promise<void>((resolve, reject) => {
      const socket = net.connect(port, "127.0.0.1", () =>
        socket.write(["AUTH geheim", ...lines, "QUIT", ""].join("\r\n")),
      );
      socket.on("error", reject);
      socket.on("close", () => resolve());
      socket.resume();
    });
  await until("the server answers", () =>
    send([]).then(
      () => true,
      () => false,
    ),
  );
  return { port, password, send };
}

describe.skipIf(server === undefined)("a real server", () => {
  it("tells how long jobs wait, how many are set aside, and how its snapshots do", async () => {
    const { port, password, send } = await realServer();
    const now = Date.now() / 1000;
    // Sidekiq 8 writes milliseconds, 7 seconds; the oldest is at the end.
    const job = (at: number) => `'{"class":"A b","enqueued_at":${at}}'`;
    await send([
      `LPUSH queue:push ${job(Math.round((now - 90) * 1000))} ${job(Math.round((now - 20) * 1000))}`,
      `LPUSH queue:pull ${job(now - 30)}`,
      "ZADD retry 1 a 2 b",
      "SAVE",
    ]);
    const text = exposition(await valkeySamples({ port, password, queues: ["push", "pull", "default"] }, now));
    const values = valuesOf(text);
    expect(values).toMatchObject({
      homestead_valkey_up: 1,
      'homestead_queue_length{queue="push"}': 2,
      'homestead_queue_length{queue="default"}': 0,
      'homestead_queue_latency_seconds{queue="default"}': 0,
      'homestead_jobs_set_aside{set="retry"}': 2,
      'homestead_jobs_set_aside{set="dead"}': 0,
      homestead_valkey_rdb_last_bgsave_ok: 1,
      homestead_valkey_max_memory_bytes: 384 * 1024 * 1024,
    });
    expect(values["homestead_valkey_rdb_unsaved_changes"]).toBe(0);
    expect(values["homestead_valkey_rdb_last_save_timestamp_seconds"]).toBeGreaterThanOrEqual(Math.floor(now));
    expect(values['homestead_queue_latency_seconds{queue="push"}']).toBeCloseTo(90, 1);
    expect(values['homestead_queue_latency_seconds{queue="pull"}']).toBeCloseTo(30, 1);
    // Without an append-only file there is nothing to wait for.
    expect(text).not.toContain("aof_delayed_fsync");
    await send(["CONFIG SET appendonly yes", "SET a 1", "SET a 2"]);
    const later = exposition(await valkeySamples({ port, password, queues: [] }));
    expect(valuesOf(later)).toMatchObject({
      homestead_valkey_aof_delayed_fsync_total: 0,
      homestead_valkey_rdb_unsaved_changes: 2,
    });
  });

  it("that takes another password is not up", async () => {
    const { port } = await realServer();
    const password = path.join(temporaryFolder(), "password.conf");
    fs.writeFileSync(password, "requirepass another\n");
    expect(await valkeySamples({ port, password, queues: ["push"] })).toEqual([
      { name: "homestead_valkey_up", value: 0 },
    ]);
  });
});

describe("the question for WebFinger", () => {
  const subject = { apex: "ramble.moe", webHost: "mastodon.ramble.moe", owner: "user" };
  const until2027 = new Date("2027-01-01T00:00:00Z");
  const jrd = { "content-type": "application/jrd+json" };

  /** The front door of a site that is right, or as `change` says. */
  function probeOf(change: (url: string, answer: Answer) => Answer | Error = (_url, answer) => answer) {
    const said: string[] = [];
    const right = (url: string): Answer => {
      const { hostname, search } = new URL(url);
      if (hostname === subject.apex)
        return {
          status: 301,
          headers: {
            location: `https://mastodon.ramble.moe/.well-known/webfinger${search}`,
            "access-control-allow-origin": "*",
          },
          body: "",
        };
      const self = { rel: "self", type: "application/activity+json", href: "https://mastodon.ramble.moe/users/user" };
      return { status: 200, headers: jrd, body: JSON.stringify({ subject: "acct:user@ramble.moe", links: [self] }) };
    };
    const settings = { change };
    const client = {
      isOurs: () => true,
      ask: (url: string) => {
        const answer = settings.change(url, right(url));
        return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
      },
      certificate: () =>
        Promise.resolve({
          x509: {
            validFromDate: new Date(0),
            validToDate: until2027,
            checkHost: (host: string) => host,
            subject: "",
            issuer: "",
          },
          distrust: undefined,
        }),
    };
    const probe = new WebfingerProbe(
      subject,
      client as unknown as ConstructorParameters<typeof WebfingerProbe>[1],
      (line) => said.push(line),
    );
    return { probe, said, settings };
  }

  it("is answered yes by a site that is right, with the certificates' ends", async () => {
    const { probe, said } = probeOf();
    expect(probe.samples()).toEqual([]);
    await probe.probe();
    const expires = { name: "homestead_certificate_expires_timestamp_seconds", value: until2027.getTime() / 1000 };
    expect(probe.samples()).toEqual([
      { name: "homestead_webfinger_ok", value: 1 },
      { ...expires, labels: { host: "ramble.moe" } },
      { ...expires, labels: { host: "mastodon.ramble.moe" } },
    ]);
    expect(said).toEqual([]);
  });

  it.each<[string, (url: string, answer: Answer) => Answer | Error]>([
    [
      "CORS is missing",
      (_url, answer) => ({ ...answer, headers: { ...answer.headers, "access-control-allow-origin": undefined } }),
    ],
    [
      "the apex does not redirect",
      (url, answer) => (url.startsWith("https://ramble.moe") ? { ...answer, status: 404 } : answer),
    ],
    [
      "Mastodon does not answer",
      (url, answer) => (url.includes("mastodon") ? new Unreachable("connect ECONNREFUSED") : answer),
    ],
    ["it is somebody else's", (_url, answer) => ({ ...answer, body: answer.body.replace("acct:user@", "acct:eve@") })],
  ])("is answered no when %s, and says so once", async (_what, change) => {
    const { probe, said, settings } = probeOf(change);
    await probe.probe();
    await probe.probe();
    expect(probe.samples()[0]).toEqual({ name: "homestead_webfinger_ok", value: 0 });
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(/^WebFinger: /);
    settings.change = (_url, answer) => answer;
    await probe.probe();
    expect(probe.samples()[0]?.value).toBe(1);
    expect(said[1]).toBe("WebFinger answers again");
  });
});

describe("the keeper's metrics", () => {
  async function metricsOf(options: Partial<MetricsOptions> = {}) {
    const store = await fakeStore();
    const [data, gate] = [temporaryFolder(), temporaryFolder()];
    const uptime = path.join(gate, "uptime");
    fs.writeFileSync(uptime, "1000.70 5.00\n");
    const made = new Metrics({
      claim: { site: "home", epoch: 3, cluster: "c", fingerprint: "f" },
      vault: store.vault,
      keys: store.keys,
      data,
      gate,
      uptime,
      valkey: { port: await freePort(), password: path.join(gate, "none"), queues: [] },
      uploaded: () => undefined,
      leaseRead: () => undefined,
      ...options,
    });
    const mark = (text: string) => fs.writeFileSync(path.join(gate, "mark"), text);
    return { made, store, mark, values: async () => valuesOf(await made.text()) };
  }

  it("tell of the lease what the gate goes by", async () => {
    const { values, mark } = await metricsOf();
    expect(await values()).toMatchObject({
      'homestead_keeper_info{site="home",epoch="3"}': 1,
      'homestead_gate_state{state="unverified"}': 1,
      'homestead_gate_state{state="open"}': 0,
    });
    expect(await values()).not.toHaveProperty("homestead_lease_mark_age_seconds");
    mark("ours 700 600\n");
    const fresh = await values();
    expect(fresh).toMatchObject({
      'homestead_gate_state{state="open"}': 1,
      'homestead_gate_state{state="unverified"}': 0,
      homestead_lease_grace_seconds: 600,
    });
    expect(fresh["homestead_lease_mark_age_seconds"]).toBeCloseTo(300.7);
    mark("ours 100 600\n");
    expect(await values()).toMatchObject({ 'homestead_gate_state{state="unverified"}': 1 });
    mark("others\n");
    expect(await values()).toMatchObject({ 'homestead_gate_state{state="closed"}': 1 });
  });

  it("tell how long ago the lease was read, whosever it is: a takeover that waits leaves no mark", async () => {
    const keeper: { readAt?: number } = {};
    const { values } = await metricsOf({ leaseRead: () => keeper.readAt });
    expect(await values()).not.toHaveProperty("homestead_lease_read_age_seconds");
    keeper.readAt = 990.7;
    expect((await values())["homestead_lease_read_age_seconds"]).toBeCloseTo(10);
  });

  it("tell when the keeper started, and of no snapshot in the vault before it has taken one there", async () => {
    const before = Date.now() / 1000;
    const keeper: { uploadedAt?: number } = {};
    const { values } = await metricsOf({ uploaded: () => keeper.uploadedAt });
    const first = await values();
    expect(first["homestead_keeper_started_timestamp_seconds"]).toBeGreaterThanOrEqual(before);
    expect(first).not.toHaveProperty("homestead_snapshot_uploaded_timestamp_seconds");
    keeper.uploadedAt = 1_700_000_000;
    const later = await values();
    expect(later["homestead_snapshot_uploaded_timestamp_seconds"]).toBe(1_700_000_000);
    expect(later["homestead_keeper_started_timestamp_seconds"]).toBe(
      first["homestead_keeper_started_timestamp_seconds"],
    );
  });

  it("answer at /metrics and nowhere else, and while the disk hangs", async () => {
    const disk = new DiskProbe("/data", () => new Promise(() => undefined));
    const { made } = await metricsOf({ disk, uploaded: () => 1_700_000_000 });
    const listening = made.start(0);
    onTestFinished(() => void listening.close());
    await until("it listens", () => listening.listening);
    const at = (what: string) => fetch(`http://127.0.0.1:${(listening.address() as net.AddressInfo).port}${what}`);
    const answer = await at("/metrics");
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const values = valuesOf(await answer.text());
    expect(values["homestead_snapshot_uploaded_timestamp_seconds"]).toBe(1_700_000_000);
    expect(values["homestead_fsync_seconds"]).toBeGreaterThan(0);
    expect((await at("/")).status).toBe(404);
  });

  it("tell when media was last copied; never is 0", async () => {
    const { made, store, values } = await metricsOf({ mediaCopied: "media/copied-home" });
    const listening = made.start(0);
    onTestFinished(() => void listening.close());
    const name = "homestead_media_copied_timestamp_seconds";
    await until("it was asked", async () => (await values())[name] === 0);
    store.put("media/copied-home", "2026-11-23T08:00:00Z\n");
    const other = await metricsOf({ mediaCopied: "media/copied-home", vault: store.vault, keys: store.keys });
    const second = other.made.start(0);
    onTestFinished(() => void second.close());
    const moment = Date.parse("2026-11-23T08:00:00Z") / 1000;
    await until("it was asked", async () => (await other.values())[name] === moment);
  });

  it("come out of the program that the container runs, by its environment, and it ends with the pod", async () => {
    const store = await fakeStore();
    const folder = temporaryFolder();
    const program = path.join(folder, "keeper.js");
    fs.writeFileSync(program, bundle("lib/lease/keeper-main.ts"));
    const [data, gate, port] = [temporaryFolder(), temporaryFolder(), await freePort()];
    const environment = {
      SITE: "home",
      OTHER_SITE: "vps",
      EPOCH: "1",
      CLUSTER: "c",
      FINGERPRINT: "0123456789abcdef",
      ENDPOINT: store.vault.endpoint,
      REGION: store.vault.region,
      BUCKET: store.vault.bucket,
      ACCESS_KEY_ID: store.keys.accessKeyId,
      SECRET_ACCESS_KEY: store.keys.secretAccessKey,
      DATA: data,
      GATE: gate,
      METRICS_PORT: String(port),
      QUEUES: "default push",
      PASSWORD: path.join(folder, "none"),
    };
    const child = spawn(process.execPath, [program], { env: environment, stdio: "ignore" });
    onTestFinished(() => void child.kill("SIGKILL"));
    const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
    let text = "";
    await until("metrics are there", async () => {
      text = await fetch(`http://127.0.0.1:${port}/metrics`).then(
        (answer) => answer.text(),
        () => "",
      );
      return text.includes("homestead_fsync_seconds");
    });
    expect(valuesOf(text)).toMatchObject({
      'homestead_keeper_info{site="home",epoch="1"}': 1,
      'homestead_gate_state{state="unverified"}': 1,
      homestead_valkey_up: 0,
    });
    fs.writeFileSync(path.join(gate, "ended"), "");
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  });
});
