import { describe, expect, it } from "vitest";
import { render } from "../cli/status";
import { firstLease } from "../lib/lease/lease";
import type { Journal } from "../lib/switch/journal";
import { filesLine, gateLine, journalLine, lagLine, leaseLine } from "../lib/status/lease";
import * as lines from "../lib/status/lines";
import type { Archiver, DnsAnswer, Workload } from "../lib/status/lines";

const now = 1_800_000_000;
const hour = 3600;

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

  it("says what would be lost", () => {
    expect(lines.lossLine(0, 15).says).toBe("nothing");
    expect(lines.lossLine(12, 15).says).toBe("what was written in the last 12 s; queued jobs in any case");
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

describe("the lease", () => {
  const lease = {
    ...firstLease({ site: "vps", epoch: 2, fingerprint: "f" }, 600, "w"),
    takeover: "lost" as const,
  };
  const stored = { lease, etag: "x", age: 7200 };
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

  it("says who is active, since when, and how it came", () => {
    expect(leaseLine(stored).says).toBe("vps, epoch 2, taken over from a lost site 2 h ago; grace 10 min");
    expect(leaseLine(undefined)).toMatchObject({
      verdict: "fault",
      says: "the vault has no lease: nothing has run yet",
    });
  });

  it("wants the files to agree with it, but for a switch under way", () => {
    expect(filesLine({ activeSite: "vps", epoch: 2 }, stored, undefined).verdict).toBe("ok");
    expect(filesLine({ activeSite: "home", epoch: 1 }, stored, undefined)).toMatchObject({
      verdict: "fault",
      says: "Pulumi.yaml says home, epoch 1, and the lease vps, epoch 2: get the newest files (git pull), or set them as the lease says",
    });
    expect(filesLine({ activeSite: "home", epoch: 3 }, stored, journal).verdict).toBe("warning");
  });

  it("tells of a switch that stopped, and how it goes on", () => {
    expect(journalLine(journal, stored, now)).toMatchObject({
      verdict: "warning",
      says: "to home (planned, epoch 3) is at demote, for 5 min; if nobody runs it: npx homestead switch home goes on",
    });
    expect(journalLine({ ...journal, finished: true }, stored, now).says).toBe("none under way");
    expect(journalLine({ ...journal, epoch: 2 }, stored, now).says).toBe("none under way");
  });

  it("says why a site that came back from the dead does nothing", () => {
    expect(gateLine("home", { epoch: 1, gate: "closed: Valkey waits" }, stored)).toMatchObject({
      verdict: "fault",
      says: "the lease is vps's, epoch 2, and home still runs for epoch 1: its gate is closed, it federates nothing and takes no post (closed: Valkey waits); npx homestead switch home brings the server back here",
    });
    expect(gateLine("vps", { epoch: 2, gate: "open: Valkey starts" }, stored).verdict).toBe("ok");
    expect(gateLine("vps", { epoch: 2, gate: "unverified: writes are paused" }, stored).verdict).toBe("warning");
    expect(gateLine("home", {}, stored)).toMatchObject({ verdict: "ok" });
  });

  it("says how far the standby is behind", () => {
    expect(lagLine("home-g1", 0, 15)).toMatchObject({ verdict: "ok", says: "has everything that is in home-g1" });
    expect(lagLine("home-g1", 12, 15)).toMatchObject({
      verdict: "warning",
      says: "12 segments behind home-g1, about 3 min",
    });
  });
});

it("a status shows every line, and counts what is wrong", () => {
  const text = render({
    site: "home",
    role: "active",
    at: "2026-11-23T00:00:00.000Z",
    verdict: "fault",
    lines: [lines.line("pods", "blog", "fault", "0/1 ready"), lines.line("dns", "ramble.moe", "warning", "x")],
  });
  expect(text).toMatch(/fault .* pods .* blog .* 0\/1 ready/);
  expect(text.split("\n").at(-1)).toBe("faults: 1, warnings: 1");
});
