import * as http from "node:http";
import * as zlib from "node:zlib";
import type { AddressInfo } from "node:net";
import { beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { render, renderAll, statusCommand } from "../cli/status";
import { clusterName } from "../lib/database";
import { firstLease, formatLease } from "../lib/lease/lease";
import type { Lease } from "../lib/lease/lease";
import { execInPod } from "../lib/pod-exec";
import { loadSite } from "../lib/site-secrets";
import { statusOf } from "../lib/status";
import * as edge from "../lib/status/edge";
import { filesLine, gateLine, journalLine, lagLine, leaseLine, readGate } from "../lib/status/lease";
import type { Gate } from "../lib/status/lease";
import * as lines from "../lib/status/lines";
import type { Archiver, CopyRuns, DnsAnswer, Loss, SiteStatus, Status, Workload } from "../lib/status/lines";
import { readStackConfig } from "../lib/stack-config";
import { journalKey } from "../lib/switch/journal";
import type { Journal } from "../lib/switch/journal";
import { UserError } from "../lib/user-error";
import { parseSettings } from "../settings";
import type { SiteName } from "../settings";
import { lacking } from "./e2e/cases/status-lines";
import { configurationOf } from "./support/configuration";
import { kubeconfigFor } from "./support/fake-cluster";
import { fakeStore } from "./support/fake-store";
import type { FakeStore } from "./support/fake-store";

vi.mock("../lib/pod-exec");
vi.mock("../lib/site-secrets");
vi.mock("../lib/status/edge");
vi.mock("../lib/stack-config", async (original) => {
  const actual = await original<typeof import("../lib/stack-config")>();
  return { ...actual, readStackConfig: vi.fn(actual.readStackConfig) };
});

const now = 1_800_000_000;
const hour = 3600;
const { fingerprint } = parseSettings(configurationOf("home"));

describe("a workload", () => {
  const load: Workload = {
    name: "mastodon-web",
    wanted: 1,
    ready: 1,
    images: ["ghcr.io/m/m:v4.6.2@sha256:ab"],
    restarts: 0,
  };

  it("is fine with its pods ready and its image the stack's", () => {
    expect(lines.workloadLine(load, "ghcr.io/m/m:v4.6.2@sha256:ab")).toEqual({
      area: "pods",
      what: "mastodon-web",
      verdict: "ok",
      says: "1/1 ready; v4.6.2",
    });
  });

  it("is a fault with a pod missing, and says why it waits", () => {
    const broken = { ...load, ready: 0, waiting: "ImagePullBackOff" };
    expect(lines.workloadLine(broken)).toMatchObject({
      verdict: "fault",
      says: "0/1 ready; v4.6.2; ImagePullBackOff",
    });
  });

  it("is a warning with another image than the stack's, or a restart in the last hour", () => {
    expect(lines.workloadLine(load, "ghcr.io/m/m:v4.6.3")).toMatchObject({
      verdict: "warning",
      says: "1/1 ready; v4.6.2; the stack says v4.6.3: pulumi up",
    });
    expect(lines.workloadLine({ ...load, restarts: 2, lastEndSeconds: 300 })).toMatchObject({
      verdict: "warning",
      says: "1/1 ready; v4.6.2; 2 restarts, the last 5 min ago",
    });
    expect(lines.workloadLine({ ...load, restarts: 2, lastEndSeconds: 2 * hour }).verdict).toBe("ok");
  });

  it("may want no pod, on a standby", () => {
    expect(lines.workloadLine({ ...load, wanted: 0, ready: 0 }).verdict).toBe("ok");
  });
});

describe("the database", () => {
  const state = {
    phase: "Cluster in healthy state",
    ready: true,
    troubles: {},
    pods: { images: ["ghcr.io/c/postgresql:18.1@sha256:ab"], restarts: 0 },
  };

  it("is said with its version, and with restarts and another image than the stack's as a workload is", () => {
    const said = (pods: Partial<typeof state.pods & { lastEndSeconds: number }>, configured = state.pods.images[0]) =>
      lines.databaseLines("postgres-g1", { ...state, pods: { ...state.pods, ...pods } }, configured ?? "")[0];
    expect(said({})).toEqual({
      area: "database",
      what: "postgres-g1",
      verdict: "ok",
      says: "Cluster in healthy state; 18.1",
    });
    expect(said({ restarts: 3, lastEndSeconds: 300 })).toMatchObject({
      verdict: "warning",
      says: "Cluster in healthy state; 18.1; 3 restarts, the last 5 min ago",
    });
    expect(said({}, "ghcr.io/c/postgresql:18.2")).toMatchObject({
      verdict: "warning",
      says: "Cluster in healthy state; 18.1; the stack says 18.2: pulumi up",
    });
  });

  it("is said by its phase alone while it has no pod", () => {
    const none = { ...state, ready: false, phase: "Setting up primary", pods: { images: [], restarts: 0 } };
    expect(lines.databaseLines("postgres-g1", none, "ghcr.io/c/postgresql:18.1")).toEqual([
      { area: "database", what: "postgres-g1", verdict: "fault", says: "Setting up primary" },
    ]);
  });

  it("has a line for each condition that does not hold", () => {
    const failing = { ...state, troubles: { ContinuousArchiving: "no bucket" } };
    expect(lines.databaseLines("postgres-g1", failing, "ghcr.io/c/postgresql:18.1@sha256:ab")[1]).toMatchObject({
      verdict: "fault",
      what: "ContinuousArchiving",
      says: "no bucket",
    });
  });
});

describe("the backup", () => {
  it("is a warning after a night without, a fault after two, and none is a fault", () => {
    const verdict = (age?: number) => lines.baseBackupLine("home-g1", age).verdict;
    expect([verdict(25 * hour), verdict(27 * hour), verdict(51 * hour), verdict()]).toEqual([
      "ok",
      "warning",
      "fault",
      "fault",
    ]);
  });

  it.each([
    ["0/19000028", "000000010000000000000018", 40n],
    ["0/19800000", "000000010000000000000018", 8_388_608n],
    ["1/00000028", "0000000100000000000000FF", 40n],
    ["0/18000010", "000000010000000000000018", 0n],
    ["0/3000060", "000000010000000000000002.00000028.backup", 96n],
  ])("counts what is written up to %s after segment %s", (lsn, wal, bytes) => {
    expect(lines.unarchivedBytes(lsn, wal)).toBe(bytes);
  });

  const archiver: Archiver = {
    now,
    lastArchived: now - 10,
    lastArchivedWal: "000000010000000000000018",
    lastFailed: null,
    waiting: 0,
    insertLsn: "0/19800000",
  };

  it("loses what was written since the last segment", () => {
    expect(lines.archiverLine(archiver, 15)).toEqual({
      line: { area: "backup", what: "WAL", verdict: "ok", says: "last segment archived 10 s ago" },
      lossSeconds: 10,
    });
  });

  it("loses nothing where nothing is written, however long ago the last segment is", () => {
    const idle = { ...archiver, lastArchived: now - 5 * hour, insertLsn: "0/19000100" };
    expect(lines.archiverLine(idle, 15)).toMatchObject({
      line: { verdict: "ok", says: "last segment archived 5 h ago; nothing written since" },
      lossSeconds: 0,
    });
  });

  it("is a fault when archiving fails, or never worked", () => {
    const failing = { ...archiver, lastArchived: now - 600, lastFailed: now - 5, waiting: 12 };
    expect(lines.archiverLine(failing, 15).line).toMatchObject({
      verdict: "fault",
      says: "last segment archived 10 min ago; archiving fails, 12 wait, last tried 5 s ago",
    });
    expect(lines.archiverLine({ ...archiver, lastArchived: null, lastArchivedWal: null }, 15).line.verdict).toBe(
      "fault",
    );
  });

  it("is a warning, then a fault, when segments stay behind", () => {
    const verdict = (age: number) => lines.archiverLine({ ...archiver, lastArchived: now - age }, 15).line.verdict;
    expect([verdict(60), verdict(200), verdict(1000)]).toEqual(["ok", "warning", "fault"]);
  });

  it("says what would be lost, by the database or by the vault, which only knows a bound", () => {
    const loss = (seconds: number, knownBy: "database" | "vault") => lines.lossLine("home", { seconds, knownBy }, 15);
    expect(loss(0, "database")).toEqual({
      area: "backup",
      what: "lost if home went now",
      verdict: "ok",
      says: "nothing of the database; queued jobs in any case",
    });
    expect(loss(12, "database").says).toBe("what was written in the last 12 s; queued jobs in any case");
    expect(loss(300, "database").verdict).toBe("warning");
    expect(loss(300, "vault")).toMatchObject({
      verdict: "ok",
      says: "at most what was written in the last 5 min (the vault alone was asked); queued jobs in any case",
    });
    expect(loss(900, "vault").verdict).toBe("warning");
  });

  it("loses uploads on a volume that are not in its copy", () => {
    const loss = (uploads: Loss["uploads"], seconds = 0) =>
      lines.lossLine("home", { seconds, knownBy: "database", uploads }, 15);
    expect(loss(720)).toMatchObject({
      verdict: "ok",
      says: "nothing of the database; uploads of the last 12 min; queued jobs in any case",
    });
    expect([loss(2 * hour), loss(25 * hour), loss(60, 300)].map(({ verdict }) => verdict)).toEqual([
      "warning",
      "fault",
      "warning",
    ]);
    expect(loss("all", 12)).toMatchObject({
      verdict: "fault",
      says: "what was written in the last 12 s; all uploads, of which the vault shows no copy; queued jobs in any case",
    });
    expect(loss("unknown")).toMatchObject({
      verdict: "warning",
      says: "nothing of the database; uploads since a copy whose age the vault does not tell; queued jobs in any case",
    });
  });
});

describe("the copy of a media volume", () => {
  it("is a warning when it is an hour old, a fault after a day, and none is a fault", () => {
    expect(lines.mediaCopyLine(720)).toEqual({
      area: "media",
      what: "copy in the vault",
      verdict: "ok",
      says: "12 min old",
    });
    const verdicts = [2 * hour, 25 * hour, undefined].map((age) => lines.mediaCopyLine(age).verdict);
    expect(verdicts).toEqual(["warning", "fault", "fault"]);
    expect(lines.mediaCopyLine(undefined).says).toBe("there is none yet");
  });

  const look = "kubectl --context home -n homestead logs job/";
  const copying = (runs: CopyRuns | undefined) => lines.copyRunsLine(runs, now, look);
  const lastFailed = { at: now - 300, job: "media-copy-2", why: "BackoffLimitExceeded" };

  it("is made by runs of which the last one went well", () => {
    expect(copying({ lastGood: now - 420 })).toEqual({
      area: "media",
      what: "copying",
      verdict: "ok",
      says: "the last run ended well 7 min ago",
    });
    expect(copying({ lastGood: now - 200, lastFailed }).verdict).toBe("ok");
    expect(copying({ lastGood: now - 2 * hour }).verdict).toBe("warning");
    expect(copying({})).toMatchObject({ verdict: "ok", says: "no run has ended yet" });
  });

  it("is not made by a run that failed, and the way to its reason is named", () => {
    expect(copying({ lastGood: now - 1200, lastFailed })).toMatchObject({
      verdict: "warning",
      says: "the last run failed 5 min ago (BackoffLimitExceeded), and the last that went well 20 min ago; why: kubectl --context home -n homestead logs job/media-copy-2",
    });
    expect(copying({ lastGood: now - 25 * hour, lastFailed }).verdict).toBe("fault");
    expect(copying({ lastFailed })).toMatchObject({
      verdict: "fault",
      says: "the last run failed 5 min ago (BackoffLimitExceeded), and none went well before it; why: kubectl --context home -n homestead logs job/media-copy-2",
    });
  });

  it("is made by nobody where the CronJob is gone", () => {
    expect(copying(undefined)).toMatchObject({ verdict: "fault", says: "its CronJob is not there: pulumi up" });
  });
});

describe("the queues", () => {
  const text = [
    "queue default 2 " + JSON.stringify({ class: "X", enqueued_at: now - 400.5 }),
    "queue push 1 " + JSON.stringify({ enqueued_at: (now - 30) * 1000 }),
    "queue pull 0 ",
    "set retry 4",
    "set dead 0",
    "# Persistence",
    "rdb_last_save_time:" + String(now - 60) + "\r",
    "rdb_last_bgsave_status:ok\r",
  ].join("\n");

  it("are read with seconds as with milliseconds", () => {
    expect(lines.parseQueues(text, now)).toEqual({
      queues: [
        { name: "default", length: 2, latencySeconds: 400.5 },
        { name: "push", length: 1, latencySeconds: 30 },
        { name: "pull", length: 0, latencySeconds: 0 },
      ],
      sets: { retry: 4, dead: 0 },
      info: { rdb_last_save_time: String(now - 60), rdb_last_bgsave_status: "ok" },
    });
  });

  it("are a warning when a job waits for five minutes", () => {
    expect(lines.queueLines(lines.parseQueues(text, now), now)).toEqual([
      { area: "queues", what: "waiting", verdict: "warning", says: "default 2 (6 min), push 1 (30 s), pull 0" },
      { area: "queues", what: "set aside", verdict: "ok", says: "retry 4, schedule 0, dead 0" },
      { area: "queues", what: "snapshot", verdict: "ok", says: "saved 60 s ago" },
    ]);
  });

  it("are a fault when the snapshot fails", () => {
    const failed = lines.parseQueues(text.replace("status:ok", "status:err"), now);
    expect(lines.queueLines(failed, now)[2]).toMatchObject({
      verdict: "fault",
      says: "the last one failed; saved 60 s ago",
    });
  });
});

describe("the edge", () => {
  it("warns of a certificate that nobody renews", () => {
    expect([60, 20, 6].map((days) => lines.certificateLine("a", days).verdict)).toEqual(["ok", "warning", "fault"]);
    expect(lines.certificateLine("a", -1.5).says).toBe("expired 2 days ago");
  });

  const answer: DnsAnswer = {
    name: "ramble.moe",
    addresses: ["192.0.2.7"],
    source: "authoritative",
    server: "ns1.example",
  };

  it("wants the active site's name to lead to it", () => {
    expect(lines.dnsLine(answer, ["192.0.2.7"], "active")).toMatchObject({
      verdict: "ok",
      says: "192.0.2.7, says ns1.example",
    });
    expect(lines.dnsLine({ ...answer, addresses: [] }, ["192.0.2.7"], "active")).toMatchObject({
      verdict: "fault",
      says: "no address, says ns1.example; expected 192.0.2.7",
    });
    expect(lines.dnsLine({ ...answer, addresses: ["192.0.2.8"] }, ["192.0.2.7"], "active").verdict).toBe("fault");
  });

  it("warns where the zone's own server did not answer", () => {
    expect(lines.dnsLine({ ...answer, source: "resolver" }, ["192.0.2.7"], "active")).toMatchObject({
      verdict: "warning",
      says: "192.0.2.7, says ns1.example, not the zone's own server",
    });
  });

  it("wants a standby's address in no name", () => {
    expect(lines.dnsLine(answer, ["192.0.2.8"], "standby").verdict).toBe("ok");
    expect(lines.dnsLine(answer, ["192.0.2.7"], "standby").verdict).toBe("fault");
  });
});

const journal: Journal = {
  version: 1,
  target: "home",
  from: "vps",
  kind: "planned",
  epoch: 3,
  generation: 1,
  steps: [{ name: "stop-web", done: "2027-01-15T08:00:00.000Z" }, { name: "demote" }],
  startedAt: "2027-01-15T07:59:00.000Z",
  updatedAt: new Date((now - 300) * 1000).toISOString(),
  finished: false,
};

describe("the lease", () => {
  const lease: Lease = {
    ...firstLease({ site: "vps", epoch: 2, cluster: "c", fingerprint: "f" }, 600, "w"),
    takeover: "lost",
  };
  const stored = { lease, etag: "x", age: 7200 };
  const waiting = { ...stored, lease: { ...lease, wait: 668 }, age: 68 };

  it("says who is active, since when, and how it came", () => {
    expect(leaseLine(stored)).toMatchObject({
      verdict: "ok",
      says: "vps, epoch 2, taken over from a lost site 2 h ago; grace 10 min; cluster c",
    });
    expect(leaseLine(waiting)).toMatchObject({
      verdict: "warning",
      says: "vps, epoch 2, taken over from a lost site 68 s ago; grace 10 min; cluster c; it begins in 10 min, when the other has stopped",
    });
    const { cluster: _cluster, ...unnamed } = lease;
    expect(leaseLine({ ...stored, lease: unnamed }).says).toMatch(/; grace 10 min$/);
    expect(leaseLine({ ...stored, lease: { ...lease, lasted: 7200 } }).says).toContain(
      "taken over from a lost site 4 h ago",
    );
    expect(leaseLine(undefined)).toMatchObject({
      verdict: "fault",
      says: "the vault has no lease: nothing has run yet, or the server has moved to another one (git pull)",
    });
  });

  it("wants the files to agree with it, but for a switch under way", () => {
    const generations = { home: 1, vps: 1 };
    const files = (activeSite: SiteName, epoch: number) => ({ activeSite, epoch, generations, fingerprint: "f" });
    expect(filesLine(files("vps", 2), stored, undefined, ["home-g1"]).verdict).toBe("ok");
    expect(filesLine(files("home", 1), stored, undefined, ["home-g1"])).toMatchObject({
      verdict: "fault",
      says: "Pulumi.yaml says home, epoch 1, and the lease vps, epoch 2: get the newest files (git pull), or set activeSite to vps, epoch to 2, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml",
    });
    expect(filesLine(files("home", 3), stored, journal, ["home-g2"]).verdict).toBe("warning");
  });

  it("wants the files to name no generation that is over", () => {
    const files = { activeSite: "vps", epoch: 2, generations: { home: 1, vps: 2 }, fingerprint: "f" } as const;
    expect(filesLine(files, stored, undefined, ["home-g1", "home-g3", "vps-g2"])).toMatchObject({
      verdict: "fault",
      says: "Pulumi.yaml says vps, epoch 2, but generation 1 of home, and the vault holds home-g3: get the newest files (git pull), or set generations.home to 3 in Pulumi.yaml",
    });
    expect(filesLine(files, stored, journal, ["home-g3"]).verdict).toBe("warning");
  });

  it("wants to be of the stack's identity", () => {
    expect(
      filesLine({ activeSite: "vps", epoch: 2, generations: {}, fingerprint: "g" }, stored, undefined, []),
    ).toMatchObject({
      verdict: "fault",
      says: "the stack's identity is g, and the lease is of f: npx homestead identity verify, or name this server's own vault",
    });
  });

  it("tells of a switch that stopped, and how it goes on", () => {
    expect(journalLine(journal, stored, now)).toMatchObject({
      verdict: "warning",
      says: "to home (planned, epoch 3) is at demote, for 5 min; if nobody runs it: npx homestead switch home goes on, npx homestead switch vps leads back",
    });
    const taken = { lease: { ...stored.lease, activeSite: journal.target, epoch: journal.epoch } };
    expect(journalLine(journal, taken, now).says).toMatch(/^to home \(planned, epoch 3\) is at promote, /);
    expect(journalLine({ ...journal, finished: true }, stored, now).says).toBe("none under way");
    expect(journalLine({ ...journal, epoch: 2 }, stored, now).says).toBe("none under way");
    expect(journalLine(undefined, undefined, now).says).toBe("none under way");
    expect(journalLine(journal, undefined, now).verdict).toBe("warning");
  });
});

describe("a gate", () => {
  const lease: Lease = {
    ...firstLease({ site: "vps", epoch: 2, cluster: "c", fingerprint: "f" }, 600, "w"),
    takeover: "lost",
  };
  const stored = { lease, etag: "x", age: 7200 };
  const settings = (site: SiteName) => parseSettings(configurationOf(site, { activeSite: "vps", epoch: 2 }));
  const gated = (epoch: number, gate: Gate) => ({ valkey: "gated", epoch, gate }) as const;

  it("is read from its mark, in the log's words where it is not open", () => {
    expect(readGate("ours 1000 600\n1010.50 3000.00\n", "")).toEqual({
      verdict: "open",
      says: "open, the lease was read 11 s ago",
    });
    const log = "gate: open: Valkey starts\n1:M Ready\ngate: unverified: writes are paused\n1:M saved\n";
    expect(readGate("ours 1000 600\n1720.50 3000.00\n", log)).toEqual({
      verdict: "unverified",
      says: "unverified: writes are paused, the lease was read 12 min ago",
    });
    expect(readGate("others\n1720.50 3000.00\n", "")).toEqual({ verdict: "closed", says: "closed" });
    expect(readGate("\n1720.50 3000.00\n", "gate: unverified: Valkey waits\n")).toEqual({
      verdict: "unverified",
      says: "unverified: Valkey waits",
    });
  });

  it("is read from its log alone where the keeper cannot be asked", () => {
    const verdict = (log: string) => readGate(undefined, log).verdict;
    expect(verdict("gate: open: Valkey starts\ngate: closed: Valkey stops\n")).toBe("closed");
    expect(verdict("gate: Valkey ended with 1\n")).toBe("silent");
    expect(readGate(undefined, "")).toEqual({ verdict: "silent", says: "it has not said anything" });
  });

  it("says why a site that came back from the dead does nothing", () => {
    const closed = { verdict: "closed", says: "closed: Valkey waits" } as const;
    expect(gateLine(settings("home"), gated(1, closed), stored)).toMatchObject({
      verdict: "fault",
      says: "the lease is vps's, epoch 2, and home still runs for epoch 1: its gate is closed, it federates nothing and takes no post (closed: Valkey waits); npx homestead switch home brings the server back here",
    });
    const open = { verdict: "open", says: "open" } as const;
    expect(gateLine(settings("home"), gated(1, open), stored).says).toContain("its gate is still open, until it reads");
    expect(gateLine(settings("vps"), gated(1, closed), stored).says).toMatch(/; pulumi up --stack vps$/);
    expect(gateLine(settings("home"), { valkey: "none" }, stored)).toMatchObject({
      verdict: "ok",
      says: "Valkey does not run here: nothing federates",
    });
  });

  it("says why a cluster that its site has left does nothing, and where the site is", () => {
    const running = { ...gated(2, { verdict: "closed", says: "closed: Valkey waits" }), cluster: "c1" };
    expect(gateLine(settings("vps"), running, stored)).toMatchObject({
      verdict: "fault",
      says: "the lease is vps's, epoch 2, on another cluster (UID c), and this one (UID c1) was given up: its gate is closed, it federates nothing and takes no post (closed: Valkey waits); let cluster.context lead to that one, or begin anew here: docs/runbooks/lost-disk.md",
    });
    const open = { ...gated(2, { verdict: "open", says: "open" }), cluster: "c" };
    expect(gateLine(settings("vps"), open, stored).verdict).toBe("ok");
  });

  it("is open at the active site, or a fault with the way to its reason", () => {
    const vps = settings("vps");
    const at = (gate: Gate) => gateLine(vps, gated(2, gate), stored);
    expect(at({ verdict: "open", says: "open, the lease was read 8 s ago" })).toMatchObject({
      verdict: "ok",
      says: "open, the lease was read 8 s ago",
    });
    expect(at({ verdict: "unverified", says: "unverified: writes are paused" })).toMatchObject({
      verdict: "fault",
      says: "unverified: writes are paused: the lease is vps's, epoch 2, but its keeper has not read that lately, and nobody can post; why: kubectl --context vps -n homestead logs valkey-0 -c keeper",
    });
    expect(at({ verdict: "silent", says: "x" }).verdict).toBe("fault");
    expect(at({ verdict: "closed", says: "x" }).verdict).toBe("fault");
    expect(gateLine(vps, { valkey: "ungated" }, stored)).toMatchObject({
      verdict: "fault",
      says: "Valkey runs without a gate, whatever the lease says: pulumi up --stack vps",
    });
    expect(gateLine(vps, gated(2, { verdict: "open", says: "open" }), undefined).says).toBe("no lease to go by; open");
  });

  it("waits while a lost site may not have stopped yet", () => {
    const waiting = { ...stored, lease: { ...lease, wait: 668 }, age: 68 };
    const gate = { verdict: "unverified", says: "unverified: Valkey waits" } as const;
    expect(gateLine(settings("vps"), gated(2, gate), waiting)).toMatchObject({
      verdict: "warning",
      says: "the lease is vps's, epoch 2; Valkey begins in 10 min, when the other site has stopped",
    });
  });

  it("is missed where the lease says that Valkey runs and none does", () => {
    expect(gateLine(settings("vps"), { valkey: "none" }, stored)).toMatchObject({
      verdict: "fault",
      says: "the lease is vps's, epoch 2, and no Valkey runs here: nobody federates; pulumi up --stack vps",
    });
    const handing = parseSettings(configurationOf("vps", { activeSite: "home", epoch: 3 }));
    expect(gateLine(handing, { valkey: "none" }, stored).says).toMatch(/; npx homestead switch home goes on$/);
  });
});

describe("the standby", () => {
  it("says how far it has come", () => {
    const lag = { archive: "home-g1", behind: 0, archivedAge: 8, replayedAge: 20 };
    expect(lagLine("vps", lag, 15)).toEqual({
      area: "database",
      what: "vps follows",
      verdict: "ok",
      says: "has everything that is in home-g1; newest segment there 8 s old; last change replayed 20 s old",
    });
    expect(lagLine("vps", { archive: "home-g1", behind: 12 }, 15)).toMatchObject({
      verdict: "warning",
      says: "12 segments behind home-g1, about 3 min",
    });
    expect(lagLine("vps", { archive: "home-g1", behind: 50 }, 15).verdict).toBe("fault");
    expect(lagLine("vps", { archive: "home-g1" }, 15)).toMatchObject({
      verdict: "fault",
      says: "there is no WAL in home-g1",
    });
  });
});

// ---------------------------------------------------------------- the whole of it

/** What a site's cluster has; the rest goes with it. */
interface FakeSite {
  database?: {
    /** The active site, as the database was told. */
    primary: SiteName;
    /** Where it has got to, if it follows. */
    lsn?: string;
  };
  /** Nothing: no replicas. */
  valkey?: { epoch: number; mark: string };
  /** An earlier generation's database beside it. */
  former?: { name: string; asleep: boolean };
  /** The search server's image. */
  search?: string;
  /** The CronJob that copies media, and the Jobs that are there. */
  copies?: { cronJob: object; jobs: object[] };
}

const home: FakeSite = { database: { primary: "home" }, valkey: { epoch: 1, mark: "ours 1000 600" } };
const vps: FakeSite = { database: { primary: "home", lsn: "0/19000028" } };

/** A Kubernetes API server with one site's objects. @returns its address */
async function fakeApi(site: SiteName, { database, valkey, former, search, copies }: FakeSite): Promise<string> {
  const { images } = parseSettings(configurationOf(site));
  const replicas = valkey === undefined ? 0 : 1;
  const workload = (name: string, image: string, wanted = replicas, sidecars: object[] = []) => ({
    metadata: { name },
    spec: {
      replicas: wanted,
      selector: { matchLabels: { app: name } },
      template: { spec: { containers: [{ name, image }, ...sidecars] } },
    },
    status: { readyReplicas: wanted },
  });
  const keeper = { name: "keeper", image: images.node, env: [{ name: "EPOCH", value: String(valkey?.epoch ?? 1) }] };
  const queue = workload("valkey", images.valkey, replicas, [keeper]);
  const cluster = (name: string, generation: number, asleep = false) => ({
    metadata: { name, ...(asleep ? { annotations: { "cnpg.io/hibernation": "on" } } : {}) },
    spec: {
      imageName: images.postgres,
      plugins: [{ parameters: { serverName: `${site}-g${generation}` } }],
      replica: { self: site, primary: database?.primary },
    },
    status: { phase: "Cluster in healthy state", conditions: [{ type: "Ready", status: "True" }] },
  });
  const databases = [
    ...(database === undefined ? [] : [cluster(clusterName(1), 1)]),
    ...(former === undefined ? [] : [cluster(former.name, 0, former.asleep)]),
  ];
  const groups = ["/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/postgresql.cnpg.io/v1"];
  const [core, apps, jobs, postgres] = groups.map((group) => `${group}/namespaces/homestead`);
  const answers: Record<string, unknown> = {
    "/version": { major: "1", minor: "34", gitVersion: "v1.34.4" },
    [`${apps}/deployments`]: {
      items: [
        workload("mastodon-web", images.mastodon),
        workload("mastodon-sidekiq-all-queues", images.mastodon),
        workload("mastodon-streaming", images["mastodon-streaming"]),
        workload("blog", "nginx:1", 1),
      ],
    },
    [`${apps}/statefulsets`]: {
      items: [
        queue,
        workload("valkey-cache", images.valkey),
        ...(search === undefined ? [] : [workload("search", search)]),
      ],
    },
    ...(copies === undefined ? {} : { [`${jobs}/cronjobs/media-copy`]: copies.cronJob }),
    [`${jobs}/jobs`]: { items: copies?.jobs ?? [] },
    [`${apps}/statefulsets/valkey`]: queue,
    [`${core}/pods`]: {
      items: [
        {
          metadata: { name: "postgres-g1-1" },
          spec: { containers: [{ name: "postgres", image: images.postgres }] },
          status: { containerStatuses: [{ name: "postgres", restartCount: 0, lastState: {}, state: { running: {} } }] },
        },
      ],
    },
    [`${core}/pods/valkey-0/log`]: "gate: unverified: Valkey waits\n1:M 23 Nov 2026 Ready\n",
    [`${postgres}/clusters`]: { items: databases },
    ...Object.fromEntries(databases.map((object) => [`${postgres}/clusters/${object.metadata.name}`, object])),
  };
  const server = http.createServer((request, response) => {
    const answer = answers[new URL(request.url ?? "/", "http://cluster").pathname];
    response.writeHead(answer === undefined ? 404 : 200, {
      "content-type": typeof answer === "string" ? "text/plain" : "application/json",
    });
    response.end(typeof answer === "string" ? answer : JSON.stringify(answer ?? { kind: "Status", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A port at which nobody listens. */
async function closedPort(): Promise<number> {
  const server = http.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** What a command in a pod of a site says; its machine is up for 1010 s. */
function saidBy(site: SiteName, { database, valkey }: FakeSite, command: string): string {
  if (command.includes("/gate/mark")) return `${valkey?.mark ?? ""}\n1010.50 3000.00\n`;
  if (command.includes("pg_is_in_recovery")) {
    return database?.primary === site ? "f|0/0|\n" : `t|${database?.lsn ?? "0/0"}|20.5|1\n`;
  }
  if (!command.includes("pg_stat_archiver")) return "queue default 0 \nqueue scheduler 0 \nset retry 0\n";
  const seconds = Math.round(Date.now() / 1000);
  const archiver: Archiver = {
    now: seconds,
    lastArchived: seconds - 9,
    lastArchivedWal: "000000010000000000000018",
    lastFailed: null,
    insertLsn: "0/19800000",
    waiting: 0,
  };
  return JSON.stringify(archiver);
}

const secondsAgo = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();

/** Puts an archive into the store as barman-cloud lays it out: a base backup, and one segment of so many seconds ago. */
function putArchive(store: FakeStore, archive: string, segmentAge: number, history?: string): void {
  const list = (prefix: string, content: string) => {
    const query = new URLSearchParams({ "list-type": "2", delimiter: "/", prefix });
    store.put(`/vault?${query.toString()}`, `<ListBucketResult>${content}</ListBucketResult>`);
  };
  const folder = (name: string) => `<CommonPrefixes><Prefix>${name}</Prefix></CommonPrefixes>`;
  const base = `pg/${archive}/base/`;
  const wals = `pg/${archive}/wals/`;
  const log = `${wals}0000000100000000/`;
  list(base, folder(`${base}20261123T030000/`));
  store.put(`${base}20261123T030000/backup.info`, `status=DONE\nend_time=${secondsAgo(3600)}\n`);
  const contents = (key: string, age: number) =>
    `<Contents><Key>${key}</Key><LastModified>${secondsAgo(age)}</LastModified></Contents>`;
  // What is no segment stands beside the folders: the histories of timelines.
  const second = `${wals}00000002.history.gz`;
  list(wals, folder(log) + (history === undefined ? "" : contents(second, segmentAge)));
  if (history !== undefined) store.put(second, zlib.gzipSync(history));
  const key = `${log}000000010000000000000018.gz`;
  list(log, contents(key, segmentAge));
}

interface World {
  store: FakeStore;
  /** Their API servers; nobody listens where a site is not there. */
  apis: Record<SiteName, string>;
}

/**
 * Two sites and their vault, whose lease is home's in epoch 1.
 *
 * @param sites those whose cluster answers
 * @param changes to both stacks' configuration
 * @param closed stacks that nobody has the passphrase of
 */
async function world(
  sites: Partial<Record<SiteName, FakeSite>>,
  { changes = {}, closed = [] }: { changes?: Record<string, unknown>; closed?: readonly string[] } = {},
): Promise<World> {
  const store = await fakeStore();
  const served: Partial<Record<SiteName, string>> = {};
  for (const site of ["home", "vps"] as const) if (sites[site]) served[site] = await fakeApi(site, sites[site]);
  // Last: what listens after it could be given its port.
  const nobody = `http://127.0.0.1:${await closedPort()}`;
  const apis = { home: nobody, vps: nobody, ...served };
  vi.mocked(execInPod).mockImplementation((config, { command }) => {
    const site = config.getCurrentCluster()?.server === apis.vps ? "vps" : "home";
    return Promise.resolve(saidBy(site, sites[site] ?? {}, command.join(" ")));
  });
  const bucket = (name: string) => ({ ...store.vault, bucket: name });
  const configuration = (stack: SiteName) =>
    configurationOf(stack, {
      cluster: { context: "trial", kubeconfig: kubeconfigFor(apis[stack]) },
      vault: bucket("vault"),
      media: bucket("media"),
      ...changes,
    });
  const keys = (name: string) => ({
    [`${name}AccessKeyId`]: store.keys.accessKeyId,
    [`${name}SecretAccessKey`]: store.keys.secretAccessKey,
  });
  vi.mocked(loadSite).mockImplementation((stack) => {
    if (closed.includes(stack))
      return Promise.reject(new UserError(`pulumi config --stack ${stack}: incorrect passphrase`));
    return Promise.resolve({
      settings: parseSettings(configuration(stack as SiteName)),
      secrets: { ...keys("vault"), ...keys("media") },
    });
  });
  if (closed.length > 0) {
    // The stack's file, as it is read without its passphrase.
    const [stack] = closed as SiteName[];
    const { config } = configuration(stack ?? "home");
    vi.mocked(readStackConfig).mockImplementation(() => ({
      project: "homestead",
      stack: stack ?? "home",
      main: "index.ts",
      config: { ...config },
      secretKeys: [],
    }));
  }
  store.put("/vault", "");
  store.put("/media", "");
  putArchive(store, "home-g1", 9);
  putLease(store, firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint }, 600, "w"));
  return { store, apis };
}

const putLease = (store: FakeStore, lease: Lease, seconds = 7200) =>
  store.put("lease.json", formatLease(lease), new Date(Date.now() - seconds * 1000));

const lineOf = ({ lines: all }: Pick<SiteStatus, "lines">, what: string) => all.find((one) => one.what === what);
const siteOf = ({ sites }: Status, name: SiteName): SiteStatus => {
  const site = sites.find((one) => one.site === name);
  if (site === undefined) throw new Error(`${name} is not in it`);
  return site;
};
const faultsOf = ({ lines: all }: Pick<SiteStatus, "lines">) =>
  all.filter(({ verdict }) => verdict === "fault").map(({ what }) => what);

const vpsActive: Lease = {
  ...firstLease({ site: "vps", epoch: 2, cluster: "c", fingerprint }, 600, "w"),
  takeover: "lost",
};

/** Certificates are good, and the names lead to home. */
function edgeIsWell(): void {
  vi.mocked(edge.certificateDays).mockResolvedValue(60);
  vi.mocked(edge.ownAddresses).mockImplementation((address) => Promise.resolve([address]));
  vi.mocked(edge.addressesOf).mockImplementation((name) =>
    Promise.resolve({ name, addresses: ["203.0.113.10"], source: "authoritative", server: "ns1.example" }),
  );
}

describe("two sites", () => {
  const actual = vi.mocked(readStackConfig).getMockImplementation();

  beforeEach(() => {
    if (actual) vi.mocked(readStackConfig).mockImplementation(actual);
    edgeIsWell();
  });

  it("are told apart when the standby has replayed what a restore of the active site left behind", async () => {
    const { store } = await world({ home, vps: { database: { primary: "home", lsn: "0/12000100" } } });
    putArchive(store, "home-g1", 9, "1\t0/12000000\tat an earlier moment\n");
    const parted = lineOf((await statusOf(["home", "vps"])).server, "vps follows");
    expect(parted).toMatchObject({
      verdict: "fault",
      says:
        "it cannot follow home-g1 any more: timeline 2 left timeline 1 at 0/12000000, and it has replayed 0/12000100; " +
        "its database must be begun again: raise vps in homestead:generations of Pulumi.yaml to 2, then pulumi up --stack vps",
    });
    putArchive(store, "home-g1", 9, "1\t0/12000100\tno recovery target specified\n");
    expect(lineOf((await statusOf(["home", "vps"])).server, "vps follows")?.says).not.toContain("cannot follow");
  });

  it("are shown with the server first: the lease, a switch, the standby's lag, what would be lost", async () => {
    await world({ home, vps });
    const status = await statusOf(["home", "vps"]);
    expect(status.server).toMatchObject({ verdict: "ok", activeSite: "home", epoch: 1 });
    expect(status.server.lines.map(({ area, what, says }) => `${area}, ${what}: ${says}`)).toEqual([
      "lease, active site: home, epoch 1, since the first update 2 h ago; grace 10 min; cluster c",
      "lease, files: Pulumi.yaml says home, epoch 1",
      "lease, switch: none under way",
      expect.stringMatching(
        /^database, vps follows: has everything that is in home-g1; newest segment there \d+ s old; last change replayed 21 s old$/,
      ),
      "backup, lost if home went now: what was written in the last 9 s; queued jobs in any case",
    ]);
    expect(lineOf(siteOf(status, "home"), "gate")?.says).toBe("open, the lease was read 11 s ago");
    expect(lineOf(siteOf(status, "home"), "postgres-g1")?.says).toBe(
      `Cluster in healthy state; ${lines.tagOf(parseSettings(configurationOf("home")).images.postgres)}`,
    );
    expect(lineOf(siteOf(status, "vps"), "gate")?.says).toBe("Valkey does not run here: nothing federates");
    expect(status.sites.map(({ site, role, verdict }) => [site, role, verdict])).toEqual([
      ["home", "active", "ok"],
      ["vps", "standby", "ok"],
    ]);
  });

  it("are shown with a line for each part, as the end-to-end suite wants it of a real one", async () => {
    await world({ home, vps });
    const status = await statusOf(["home"]);
    const { apex, webHost, images } = parseSettings(configurationOf("home"));
    const whole = { context: "trial", apex, webHost, address: "203.0.113.10", mediaBucket: "media", images };
    expect(lacking(status, whole)).toEqual([]);
    expect(lacking(status, { ...whole, apex: "other.example" }, [["pods", "search", /./]])).toEqual([
      "no line certificates, other.example",
      "no line dns, other.example",
      "no line pods, search",
    ]);
    const others = { ...images, mastodon: "ghcr.io/m/m:v9" };
    expect(lacking(status, { ...whole, images: others })).toHaveLength(2);
    await world({ vps });
    expect(lacking(await statusOf(["home"]), whole)).toContain("no line pods, mastodon-web");
  });

  it("are shown when one of them is dead, which is a fault of its own", async () => {
    await world({ vps });
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(siteOf(status, "home"), "trial")).toMatchObject({
      verdict: "fault",
      says: expect.stringMatching(
        /^context 'trial' does not answer: .*ECONNREFUSED.*; nothing in it can be asked$/,
      ) as string,
    });
    expect(siteOf(status, "vps").verdict).toBe("ok");
    expect(lineOf(status.server, "vps follows")?.verdict).toBe("ok");
    expect(lineOf(status.server, "lost if home went now")?.says).toMatch(
      /^at most what was written in the last \d+ s \(the vault alone was asked\); queued jobs in any case$/,
    );
  });

  it("are shown when this machine has no kubeconfig for one of them, with what mends it", async () => {
    await world({ home, vps }, { changes: { cluster: { context: "trial", kubeconfig: "/nowhere" } } });
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(siteOf(status, "vps"), "trial")).toMatchObject({
      verdict: "fault",
      says: "nothing in it can be asked: kubeconfig /nowhere does not exist: put the file there, or: pulumi config set --path homestead:cluster.kubeconfig <file> --stack vps",
    });
  });

  it("are shown when the cluster of the standby is dead: then nobody knows how far it has come", async () => {
    await world({ home });
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(status.server, "vps follows")).toMatchObject({
      verdict: "fault",
      says: "its cluster does not answer",
    });
    expect(siteOf(status, "home").verdict).toBe("ok");
  });

  it("are shown when the lease cannot be read, which is a fault of the server's", async () => {
    const { store } = await world({ home, vps });
    store.fate = (request) => (request === "GET lease.json" ? 403 : undefined);
    const status = await statusOf(["home", "vps"]);
    expect(status.server.activeSite).toBeUndefined();
    expect(lineOf(status.server, "active site")).toMatchObject({
      verdict: "fault",
      says: "cannot be read: the lease cannot be read: bucket 'vault' answers 403",
    });
    expect(lineOf(status.server, "lost if home went now")?.verdict).toBe("ok");
    expect(faultsOf(siteOf(status, "home"))).toEqual(["gate"]);
    expect(lineOf(siteOf(status, "home"), "mastodon-web")?.verdict).toBe("ok");
    expect(renderAll(status)).toContain("the server, active on nobody knows which site");
  });

  it("are shown when the vault answers to nobody", async () => {
    const { store } = await world({ home, vps });
    store.fate = () => "lost";
    const status = await statusOf(["home", "vps"]);
    expect(faultsOf(status.server)).toEqual(["active site", "switch", "vps follows"]);
    expect(lineOf(siteOf(status, "home"), "mastodon-web")?.verdict).toBe("ok");
    expect(status.sites.map(({ verdict }) => verdict)).toEqual(["fault", "fault"]);
  });

  it("say of a home that came back what runs there, and why it does nothing", async () => {
    const { store } = await world(
      { home: { ...home, valkey: { epoch: 1, mark: "others" } }, vps: { valkey: { epoch: 2, mark: "ours 1000 600" } } },
      { changes: { activeSite: "vps", epoch: 2 } },
    );
    putArchive(store, "vps-g1", 9);
    putLease(store, vpsActive);
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(siteOf(status, "home"), "gate")).toMatchObject({
      verdict: "fault",
      says: "the lease is vps's, epoch 2, and home still runs for epoch 1: its gate is closed, it federates nothing and takes no post (unverified: Valkey waits); npx homestead switch home brings the server back here",
    });
    expect(lineOf(status.server, "home follows")).toMatchObject({
      verdict: "fault",
      says: "it does not, it writes by itself: pulumi up --stack home makes it follow, or says why it cannot",
    });
    expect(lineOf(siteOf(status, "vps"), "gate")?.verdict).toBe("ok");
  });

  it("say of old files that the lease has moved on, and judge by the lease what would be lost", async () => {
    const { store } = await world({ home, vps });
    putArchive(store, "vps-g1", 9);
    putLease(store, vpsActive);
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(status.server, "files")?.verdict).toBe("fault");
    expect(lineOf(status.server, "lost if vps went now")?.says).toContain("the vault alone was asked");
    expect(renderAll(status)).toMatch(/^home, active by Pulumi\.yaml, standby by the lease, /m);
    expect(renderAll(status)).toMatch(/^vps, standby by Pulumi\.yaml, active by the lease, /m);
  });

  it("tell of a switch under way, and of a journal that is none", async () => {
    const { store } = await world({ home, vps });
    const steps = [{ name: "stop-web" as const, done: secondsAgo(360) }, { name: "demote" as const }];
    const going: Journal = { ...journal, target: "vps", from: "home", epoch: 2, steps, updatedAt: secondsAgo(300) };
    store.put(journalKey, JSON.stringify(going));
    expect(lineOf((await statusOf(["home"])).server, "switch")).toMatchObject({
      verdict: "warning",
      says: "to vps (planned, epoch 2) is at demote, for 5 min; if nobody runs it: npx homestead switch vps goes on, npx homestead switch home leads back",
    });
    store.put(journalKey, "{}");
    const { server } = await statusOf(["home"]);
    expect(lineOf(server, "switch")).toMatchObject({
      verdict: "fault",
      says: expect.stringContaining("switch/journal.json in the vault is no journal of a switch") as string,
    });
    expect(lineOf(server, "active site")?.verdict).toBe("ok");
  });

  it("may be asked one by one: the server is shown all the same", async () => {
    await world({ home, vps });
    const status = await statusOf(["vps"]);
    expect(status.sites.map(({ site }) => site)).toEqual(["vps"]);
    expect(lineOf(status.server, "active site")?.verdict).toBe("ok");
    expect(lineOf(status.server, "lost if home went now")?.says).toContain("the vault alone was asked");
  });

  it("are asked with one stack's keys when the other's passphrase is lost", async () => {
    await world({ home, vps }, { closed: ["home"] });
    const status = await statusOf(["home", "vps"]);
    expect(status.server.verdict).toBe("ok");
    const closed = siteOf(status, "home");
    expect(closed.lines[0]).toEqual({
      area: "stack",
      what: "home",
      verdict: "fault",
      says: "pulumi config --stack home: incorrect passphrase",
    });
    expect(faultsOf(closed)).toEqual(["home"]);
    expect(closed.verdict).toBe("fault");
    expect(lineOf(closed, "mastodon-web")?.verdict).toBe("ok");
    expect(lineOf(closed, "base backup")?.verdict).toBe("ok");
    // Only the closed one was asked for.
    expect((await statusOf(["home"])).server.verdict).toBe("ok");
  });

  it("are refused when no stack of them can be opened", async () => {
    await world({ home, vps }, { closed: ["home", "vps"] });
    await expect(statusOf(["home", "vps"])).rejects.toThrow("pulumi config --stack home: incorrect passphrase");
  });

  it("may have a cold standby, which need not be there", async () => {
    await world({ home }, { changes: { standby: "cold" } });
    const status = await statusOf(["home", "vps"]);
    expect([status.server.verdict, ...status.sites.map(({ verdict }) => verdict)]).toEqual(["ok", "ok", "ok"]);
    expect(lineOf(siteOf(status, "vps"), "trial")?.says).toMatch(/; it need not, this standby is cold$/);
    expect(lineOf(status.server, "vps follows")?.says).toBe("it is cold: at a switch its database begins from home-g1");
  });

  it("may have a cold standby whose cluster is empty", async () => {
    await world({ home, vps: {} }, { changes: { standby: "cold" } });
    const status = await statusOf(["home", "vps"]);
    expect([status.server.verdict, ...status.sites.map(({ verdict }) => verdict)]).toEqual(["ok", "ok", "ok"]);
  });

  it("miss a warm standby's database", async () => {
    await world({ home, vps: {} });
    const status = await statusOf(["home", "vps"]);
    expect(faultsOf(siteOf(status, "vps"))).toEqual(["postgres-g1"]);
  });

  it("keep a database of an earlier generation, and say so", async () => {
    await world({ home, vps: { ...vps, former: { name: "postgres-g0", asleep: true } } });
    expect(lineOf(siteOf(await statusOf(["vps"]), "vps"), "postgres-g0")).toMatchObject({
      verdict: "ok",
      says: "of an earlier generation: kept, asleep",
    });
  });

  it("warn of a database of an earlier generation that runs: nothing is put to sleep before an update", async () => {
    await world({ home: { ...home, former: { name: "postgres-g0", asleep: false } }, vps });
    const own = siteOf(await statusOf(["home"]), "home");
    expect(own.verdict).toBe("warning");
    expect(lineOf(own, "postgres-g0")).toMatchObject({
      verdict: "warning",
      says: "of an earlier generation, and RUNS: do not delete it; pulumi up --stack home puts it to sleep when that of generation 1 is there, or says why it cannot",
    });
  });

  it("show the database that federates as one that runs where only the number was raised", async () => {
    await world({ home, vps }, { changes: { generations: { home: 2, vps: 1 } } });
    const own = siteOf(await statusOf(["home"]), "home");
    expect(lineOf(own, "postgres-g2")).toMatchObject({ verdict: "fault", says: "is not there: pulumi up" });
    expect(lineOf(own, "postgres-g1")).toMatchObject({
      verdict: "warning",
      says: "of an earlier generation, and RUNS: do not delete it; pulumi up --stack home puts it to sleep when that of generation 2 is there, or says why it cannot",
    });
  });

  it("say that maintenance is meant, and how it ends", async () => {
    await world({ home, vps }, { changes: { maintenance: "web" } });
    expect(lineOf(siteOf(await statusOf(["home"]), "home"), "maintenance")).toEqual({
      area: "stack",
      what: "maintenance",
      verdict: "warning",
      says: "web: web and streaming are stopped; pulumi config rm homestead:maintenance --stack home, then pulumi up",
    });
  });
});

describe("a site with search", () => {
  const changes = {
    search: { kind: "elasticsearch" },
    storage: { kind: "local", databases: "local-path" },
  };
  const image = "docker.elastic.co/elasticsearch/elasticsearch:7.17.0";
  beforeEach(edgeIsWell);
  const searchLine = async (site: FakeSite) => {
    await world({ home: site, vps }, { changes });
    return lineOf(siteOf(await statusOf(["home"]), "home"), "search");
  };

  it("misses its server", async () => {
    expect(await searchLine(home)).toMatchObject({ area: "pods", verdict: "fault", says: "is not there: pulumi up" });
  });

  it("compares its image with the stack's", async () => {
    const { elasticsearch } = parseSettings(configurationOf("home")).images;
    expect(await searchLine({ ...home, search: elasticsearch })).toMatchObject({ verdict: "ok" });
    expect(await searchLine({ ...home, search: image })).toMatchObject({
      verdict: "warning",
      says: `1/1 ready; 7.17.0; the stack says ${lines.tagOf(elasticsearch)}: pulumi up`,
    });
  });

  it("has none on a standby, and none where it is off", async () => {
    await world({ home, vps }, { changes });
    expect(siteOf(await statusOf(["vps"]), "vps").verdict).toBe("ok");
    await world({ home, vps });
    expect(siteOf(await statusOf(["home"]), "home").verdict).toBe("ok");
  });
});

describe("a site with media on a volume", () => {
  const changes = {
    media: { kind: "volume" },
    storage: { kind: "local", databases: "local-path", media: "nfs-client" },
  };
  const ended = (name: string, seconds: number, end: "Complete" | "Failed") => ({
    metadata: { name, ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name: "media-copy", uid: "u" }] },
    status: {
      ...(end === "Complete" ? { completionTime: secondsAgo(seconds) } : {}),
      conditions: [
        { type: end, status: "True", lastTransitionTime: secondsAgo(seconds), reason: "BackoffLimitExceeded" },
      ],
    },
  });
  const copies = (...jobs: object[]) => ({
    cronJob: { metadata: { name: "media-copy" }, status: { lastSuccessfulTime: secondsAgo(1200) } },
    jobs,
  });
  const copying = (...jobs: object[]): FakeSite => ({ ...home, copies: copies(...jobs) });
  const restore = { metadata: { name: "media-restore" }, status: { completionTime: secondsAgo(5) } };
  beforeEach(edgeIsWell);

  it("says how old its copy is, that the last run went well, and which uploads would be lost", async () => {
    const { store } = await world({ home: copying(restore, ended("media-copy-1", 420, "Complete")), vps }, { changes });
    store.put("media/copied-home", secondsAgo(600));
    const status = await statusOf(["home", "vps"]);
    const media = siteOf(status, "home").lines.filter(({ area }) => area === "media");
    expect(media.map(({ what, verdict, says }) => `${what}, ${verdict}: ${says}`)).toEqual([
      "copying, ok: the last run ended well 7 min ago",
      "copy in the vault, ok: 10 min old",
    ]);
    expect(siteOf(status, "home").loss?.uploads).toBeGreaterThanOrEqual(659);
    expect(lineOf(status.server, "lost if home went now")).toMatchObject({
      verdict: "ok",
      says: expect.stringMatching(
        /^what was written in the last \d+ s; uploads of the last 1[01] min; queued jobs in any case$/,
      ) as string,
    });
  });

  it("says which uploads would be lost also where its cluster is dead, or was not asked", async () => {
    const { store } = await world({ vps: { ...vps, copies: copies() } }, { changes });
    store.put("media/copied-home", secondsAgo(600));
    for (const sites of [["home", "vps"], ["vps"]]) {
      expect(lineOf((await statusOf(sites)).server, "lost if home went now")?.says).toMatch(
        /^at most what was written in the last \d+ s \(the vault alone was asked\); uploads of the last 1[01] min; queued jobs in any case$/,
      );
    }
  });

  it("finds a copy that is too old, one that was never made, and a vault that does not tell", async () => {
    const { store } = await world({ home: copying(), vps }, { changes });
    const seen = async () => {
      const status = await statusOf(["home"]);
      const copy = lineOf(siteOf(status, "home"), "copy in the vault");
      const lost = lineOf(status.server, "lost if home went now");
      return [copy?.verdict, copy?.says, lost?.verdict, /; (.*); queued/.exec(lost?.says ?? "")?.[1]];
    };
    store.put("media/copied-home", secondsAgo(26 * hour));
    expect(await seen()).toEqual(["fault", "26 h old", "fault", "uploads of the last 26 h 1 min"]);
    store.objects.delete("media/copied-home");
    expect(await seen()).toEqual([
      "fault",
      "there is none yet",
      "fault",
      "all uploads, of which the vault shows no copy",
    ]);
    store.fate = (request) => (request === "GET media/copied-home" ? "lost" : undefined);
    expect(await seen()).toEqual([
      "fault",
      expect.any(String),
      "warning",
      "uploads since a copy whose age the vault does not tell",
    ]);
  });

  it("finds a run that failed, and a CronJob that is gone, on a standby too", async () => {
    const failing = copying(ended("media-copy-1", 2000, "Complete"), ended("media-copy-2", 300, "Failed"));
    const { store } = await world({ home: failing, vps }, { changes });
    store.put("media/copied-home", secondsAgo(600));
    const status = await statusOf(["home", "vps"]);
    expect(lineOf(siteOf(status, "home"), "copying")).toMatchObject({
      verdict: "warning",
      says: expect.stringMatching(
        /^the last run failed 5 min ago \(BackoffLimitExceeded\), and the last that went well 20 min ago; why: kubectl .* -n homestead logs job\/media-copy-2$/,
      ) as string,
    });
    expect(lineOf(siteOf(status, "vps"), "copying")).toMatchObject({
      verdict: "fault",
      says: "its CronJob is not there: pulumi up",
    });
  });
});

describe("the command", () => {
  it("shows the server and the site as a table or as JSON, and ends with 1 at a fault", async () => {
    edgeIsWell();
    const said = vi.spyOn(console, "log").mockImplementation(() => undefined);
    const exit = vi.spyOn(process, "exit").mockImplementation((() => undefined) as never);
    const before = process.exitCode;
    onTestFinished(() => {
      vi.restoreAllMocks();
      process.exitCode = before;
    });
    const { store } = await world({ home, vps });
    await statusCommand().parseAsync(["home"], { from: "user" });
    expect(process.exitCode).toBe(0);
    expect(said.mock.lastCall?.[0]).toMatch(/^the server, active on home, [\s\S]*^home, active, /m);
    await statusCommand().parseAsync(["home", "--json"], { from: "user" });
    const status = JSON.parse(String(said.mock.lastCall?.[0])) as Status;
    expect(siteOf(status, "home").loss).toEqual({ seconds: 9, knownBy: "database" });
    store.objects.delete("lease.json");
    await statusCommand().parseAsync(["home"], { from: "user" });
    expect(process.exitCode).toBe(1);
    await vi.waitFor(() => expect(exit).toHaveBeenCalledTimes(3));
  });
});

it("a status shows every line, and counts what is wrong", () => {
  const text = render(
    {
      site: "home",
      role: "active",
      at: "2026-11-23T00:00:00.000Z",
      verdict: "fault",
      lines: [lines.line("pods", "blog", "fault", "0/1 ready"), lines.line("dns", "ramble.moe", "warning", "x")],
    },
    { activeSite: "home" },
  );
  expect(text).toMatch(/^home, active, 2026/);
  expect(text).toMatch(/fault .* pods .* blog .* 0\/1 ready/);
  expect(text.split("\n").at(-1)).toBe("faults: 1, warnings: 1");
});
