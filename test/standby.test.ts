/** How far a standby has come, as a switch sees it before it promotes it: its own word, and the vault's. */
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { nextSegment } from "../lib/archive";
import type { DatabaseObject } from "../lib/database";
import { firstLease } from "../lib/lease/lease";
import { execInPod } from "../lib/pod-exec";
import { JournalStore } from "../lib/switch/journal";
import type { Kind } from "../lib/switch/journal";
import { preflight, standby } from "../lib/switch/preflight";
import { realWorld } from "../lib/switch/world";
import { parseSettings } from "../settings";
import { images } from "../versions";
import { chartsInFolders, configurationOf } from "./support/configuration";
import { fakeCluster } from "./support/fake-cluster";
import { fakeStore } from "./support/fake-store";

vi.mock("../lib/pod-exec");
beforeEach(() => {
  vi.mocked(execInPod).mockReset();
  parted = false;
});

/** A database that is ready, and follows home. */
const database: DatabaseObject & { status: object } = {
  metadata: { name: "postgres-g1" },
  spec: { replica: { self: "vps", primary: "home" }, plugins: [{ parameters: { serverName: "vps-g1" } }] },
  status: { ...{ conditions: [{ type: "Ready", status: "True" }] } },
};
/** Whether it wrote by itself last. */
let parted = false;
const at = Date.UTC(2026, 9, 20, 8) / 1000;

/** What of home's archive is in the vault: numbers of segments, and the one that the newest base backup begins with. */
interface Archive {
  segments: readonly number[];
  /** Of timeline 2. */
  later?: readonly number[];
  base?: number;
}
const segment = (number: number, timeline = 1) =>
  [timeline, number >> 8, number & 255].map((part) => part.toString(16).toUpperCase().padStart(8, "0")).join("");

async function vps({ segments, later = [], base = 3 }: Archive, said: string | Error = `0/5000000|1|${at}`) {
  const store = await fakeStore();
  store.lists = true;
  const wals = "pg/home-g1/wals";
  const names = [...later.map((number) => segment(number, 2)), ...segments.map((number) => segment(number))];
  for (const [i, name] of names.entries()) {
    store.put(`${wals}/${name.slice(0, 16)}/${name}.gz`, "", new Date(Date.now() - (names.length - i) * 15_000));
  }
  store.put(
    "pg/home-g1/base/20261122T030000/backup.info",
    `begin_wal=${segment(base)}\nstatus=DONE\nend_time=${new Date(Date.now() - 3600_000).toISOString()}\n`,
  );
  vi.mocked(execInPod).mockImplementation(() =>
    said instanceof Error
      ? Promise.reject(said)
      : Promise.resolve(`${said}\n/dev/x 1000 100 900 10% /var/lib/postgresql/data\n`),
  );
  const { kubeconfig } = await fakeCluster({
    others: {
      "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters": () => ({
        items: [
          parted ? { ...database, spec: { ...database.spec, replica: { self: "vps", primary: "vps" } } } : database,
        ],
      }),
      "/api/v1/namespaces/homestead/pods": () => ({ items: [{ metadata: { name: "postgres-g1-1" } }] }),
    },
  });
  const settings = parseSettings(
    configurationOf("vps", {
      cluster: { context: "trial", kubeconfig },
      charts: chartsInFolders(),
      vault: { endpoint: store.vault.endpoint, bucket: store.vault.bucket },
    }),
  );
  const secrets = { vaultAccessKeyId: "id", vaultSecretAccessKey: "secret" };
  return { settings, secrets };
}

describe("what a standby needs next", () => {
  test.each([
    ["0/5000000", 5, "at the end of the one before"],
    ["0/4FFFFFF", 5, "inside of one, which it has"],
    ["0/4000028", 5, "inside of one, which it has"],
    ["0/FF000001", 256, "inside of the last of a log"],
  ])("%s: %i (%s)", (lsn, number) => {
    expect(nextSegment({ timeline: 1, lsn })).toBe(segment(number));
  });
});

describe("a standby", () => {
  const look = async (kind: Kind, archive: Archive, goal?: string) =>
    standby(await vps(archive), "home-g1", database, { kind, goal });
  const finding = async (...args: Parameters<typeof look>) => (await look(...args)).finding;

  test("that has everything can take over", async () => {
    for (const kind of ["planned", "lost", "dead"] as const) {
      expect(await look(kind, { segments: [3, 4] })).toEqual({
        finding: {},
        reached: { lsn: "0/5000000", behind: 0, at: new Date(at * 1000) },
      });
    }
  });

  test("that is some segments behind is handed the server, whose token holds it back; nobody takes over with it", async () => {
    const archive = { segments: [3, 4, 5, 6] };
    expect(await finding("planned", archive)).toEqual({});
    expect(await finding("lost", archive)).toEqual({ awaited: "vps's database is 2 segments behind home-g1" });
    expect(await finding("dead", { segments: [5] })).toEqual({
      awaited: "vps's database is 1 segment behind home-g1",
    });
  });

  test("is waited for up to a goal: a site that is said to be lost may archive all the same", async () => {
    expect(await finding("lost", { segments: [4, 5, 6] }, segment(4))).toEqual({});
  });

  test("that was away for longer than WAL is kept takes over from nobody, and says what to do", async () => {
    for (const kind of ["planned", "lost", "dead"] as const) {
      expect(await finding(kind, { segments: [900, 901], base: 900 })).toEqual({
        always:
          `vps's database cannot follow home-g1 any more: it needs the segment ${segment(5)} next, which is not in home-g1 any more; ` +
          "its database must be begun again: raise vps in homestead:generations of Pulumi.yaml to 2, then pulumi up --stack vps",
      });
    }
  });

  test("takes what comes next on a later timeline: the other site was promoted there", async () => {
    const archive = { segments: [3, 4, 6], base: 900, later: [5] };
    expect(await finding("lost", archive)).toEqual({ awaited: "vps's database is 2 segments behind home-g1" });
  });

  test("that was demoted just now needs what the other site wrote since, on its own timeline from the same segment on", async () => {
    const demoted = await vps({ segments: [], later: [4] }, `0/4000060|1|${at}`);
    expect(await standby(demoted, "home-g1", database, { kind: "lost" })).toMatchObject({
      finding: { awaited: "vps's database is 1 segment behind home-g1" },
      reached: { lsn: "0/4000060", behind: 1 },
    });
    const followed = await vps({ segments: [], later: [4] }, `0/4000060|2|${at}`);
    expect(await standby(followed, "home-g1", database, { kind: "lost" })).toMatchObject({ finding: {} });
  });

  test("that needs what was never archived: no new beginning would go past it either", async () => {
    const archive = { segments: [3, 4, 6], base: 3 };
    const lacks = `home-g1 lacks the segment ${segment(5)}, which vps's database needs next, and has later ones`;
    expect(await finding("planned", archive)).toEqual({
      awaited: `${lacks} (if it does not come, a base backup goes past it: docs/runbooks/alerts.md, BackupOld)`,
    });
    expect(await look("dead", archive)).toMatchObject({
      finding: { warning: `${lacks}: what was written from there on is lost` },
      reached: { lacks: segment(5) },
    });
  });
});

describe("a segment that a gone site's successor lacks", () => {
  /** A switch that asks every minute whether it may go on. @returns what it said, and why it waits each time */
  async function asked(kind: Kind, archives: readonly Archive[]) {
    vi.useFakeTimers({ toFake: ["Date"] });
    const log = vi.spyOn(console, "log").mockReturnValue();
    onTestFinished(() => {
      vi.useRealTimers();
      log.mockRestore();
    });
    let site = await vps({ segments: [] });
    const nobody = () => Promise.reject(new Error("nobody asks that"));
    const world = realWorld({
      target: "vps",
      from: "home",
      kind,
      journal: new JournalStore(site.settings.vault, { accessKeyId: "", secretAccessKey: "" }),
      load: () => Promise.resolve(site),
      loadTarget: nobody,
      resolvers: [],
      engine: () => undefined,
    });
    const why: (string | undefined)[] = [];
    for (const archive of archives) {
      site = await vps(archive);
      why.push(await world.lagging("vps"));
      vi.setSystemTime(Date.now() + 60_000);
    }
    return { why, said: log.mock.calls.flat() };
  }
  const gap = { segments: [3, 4, 6] };
  const lacks = `home-g1 lacks the segment ${segment(5)}, which vps's database needs next, and has later ones: what was written from there on is lost`;

  test("is waited for where the site is only lost to us: it may upload still, and the later one be there first", async () => {
    const { why, said } = await asked("lost", [gap, gap, gap]);
    expect(why).toEqual([
      `${lacks}, unless it comes within 120 s`,
      `${lacks}, unless it comes within 120 s`,
      undefined,
    ]);
    expect(said).toEqual([`      warning: ${lacks}`]);
  });

  test("that comes is followed by what it was waited for", async () => {
    const { why, said } = await asked("lost", [gap, { segments: [3, 4, 5, 6] }, { segments: [3, 4, 5, 6, 8] }]);
    expect(why.slice(1)).toEqual(Array(2).fill("vps's database is 2 segments behind home-g1"));
    expect(said).toEqual([]);
  });

  test("is not waited for where the site is dead, and said all the same", async () => {
    expect(await asked("dead", [gap])).toEqual({ why: [undefined], said: [`      warning: ${lacks}`] });
  });
});

describe("before a planned switch the old site", () => {
  interface Home {
    running?: string;
    archiver?: object | Error;
    disk?: string;
    /** Whom its database has as its primary, and whether it writes. */
    replica?: { self: "home"; primary: string; promotionToken?: string };
    writes?: boolean;
    /** What its Valkey says of its last snapshot; undefined: it has none. */
    saves?: string | Error;
    changes?: Record<string, unknown>;
  }

  /** A home that runs this image, and whose database says this. */
  async function home({ running = ours, archiver = {}, disk = "10%", writes = true, saves, replica, changes }: Home) {
    const target = await vps({ segments: [3, 4] });
    const { vault, charts } = target.settings;
    const { kubeconfig } = await fakeCluster({
      others: {
        "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters": () => ({
          items: [replica === undefined ? homes : { ...homes, spec: { ...homes.spec, replica } }],
        }),
        "/api/v1/namespaces/homestead/pods": () => ({ items: [{ metadata: { name: "home-1" } }] }),
        ...(saves === undefined
          ? {}
          : {
              "/apis/apps/v1/namespaces/homestead/statefulsets/valkey": () => ({
                spec: { replicas: 1, template: { spec: { containers: [] } } },
              }),
            }),
        "/apis/apps/v1/namespaces/homestead/deployments/mastodon-web": () => ({
          spec: { replicas: 1, template: { spec: { containers: [{ name: "mastodon-web", image: running }] } } },
        }),
      },
    });
    const settings = parseSettings(
      configurationOf("home", {
        cluster: { context: "trial", kubeconfig },
        charts,
        vault: { endpoint: vault.endpoint, bucket: vault.bucket },
        ...changes,
      }),
    );
    const idle = { now: 1000, lastArchived: 990, lastArchivedWal: segment(4), lastFailed: null, waiting: 0 };
    const follows = vi.mocked(execInPod).getMockImplementation();
    vi.mocked(execInPod).mockImplementation((config, what) => {
      if (what.pod === "valkey-0") return saves instanceof Error ? Promise.reject(saves) : Promise.resolve(saves ?? "");
      if (what.pod !== "home-1") return follows?.(config, what) ?? Promise.reject(new Error("nobody"));
      const text = what.command.join(" ");
      if (text.includes("pg_is_in_recovery")) return Promise.resolve(writes ? "f|0/0||1\n" : "t|0/5000000|3|1\n");
      if (text.includes("pg_current_wal_insert_lsn") && !writes) {
        return Promise.reject(new Error("home-1: ERROR:  recovery is in progress"));
      }
      if (text.includes("pg_stat_archiver")) {
        if (archiver instanceof Error) return Promise.reject(archiver);
        return Promise.resolve(JSON.stringify({ ...idle, insertLsn: "0/5000028", ...archiver }));
      }
      return Promise.resolve(`/dev/x 1000 100 900 ${disk} /var/lib/postgresql/data\n`);
    });
    const old = { settings, secrets: target.secrets };
    const lease = firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint: settings.fingerprint }, 600, "w");
    const { faults, warnings } = await preflight({ kind: "planned", from: "home", target, old, lease });
    return { faults: faults.join("\n"), warnings: warnings.join("\n") };
  }
  const homes = {
    metadata: { name: "postgres-g1" },
    spec: { replica: { self: "home", primary: "home" }, plugins: [{ parameters: { serverName: "home-g1" } }] },
    status: database.status,
  };
  const ours = images.mastodon;
  const silent = /does not get into the vault|database volume is|images\.mastodon/;

  test("has nothing said against it where it archives and runs what its stack says", async () => {
    expect((await home({})).faults).not.toMatch(silent);
  });

  const token = Buffer.from("{}".padEnd(60)).toString("base64");
  test.each<[what: string, found: Home]>([
    [
      "waits for its token, and has not come so far",
      { replica: { self: "home", primary: "home", promotionToken: token }, changes: { promotionToken: token } },
    ],
    ["was demoted by hand", { replica: { self: "home", primary: "vps" } }],
  ])("is not asked whether it archives where its database only follows: it %s", async (_, found) => {
    const { faults } = await home({ ...found, writes: false });
    expect(faults).not.toMatch(silent);
    expect(faults).not.toContain("whether it archives");
  });

  test("is refused where its database does not say whether it archives", async () => {
    const { faults } = await home({ archiver: new Error("home-1: no answer within 15 s") });
    expect(faults).toContain("home's database does not say whether it archives: home-1: no answer within 15 s");
  });

  test("is asked whether it archives: nothing else would notice, before it has stopped without a token", async () => {
    const failing = { lastFailed: 995, waiting: 3 };
    expect((await home({ archiver: failing })).faults).toContain(
      "home does not get into the vault what it writes (last segment archived 10 s ago; archiving fails, 3 wait, last tried 5 s ago), and would stop without a token: docs/runbooks/alerts.md (ArchiveFailing), npx homestead status home",
    );
    expect((await home({ archiver: { waiting: 41 } })).faults).toContain("(last segment archived 10 s ago; 41 wait)");
  });

  test.each<[what: string, saves: string | Error, says: string]>([
    [
      "whose Valkey cannot save would not end it with a snapshot",
      "# Persistence\r\nrdb_last_bgsave_status:err\r\n",
      "home's Valkey cannot save what it holds (rdb_last_bgsave_status: err), and the queues would stay behind: docs/runbooks/alerts.md (SnapshotOld), npx homestead status home",
    ],
    [
      "whose Valkey does not answer is not stopped",
      new Error("valkey-0: Could not connect to Valkey"),
      "home's Valkey does not say whether it saves what it holds: valkey-0: Could not connect to Valkey",
    ],
    [
      "whose Valkey says nothing of it is not, either",
      "# Persistence\r\n",
      "home's Valkey does not say whether it saves what it holds: it is not in what it answers",
    ],
  ])("%s", async (_what, saves, says) => {
    expect((await home({ saves })).faults.split("\n")).toContain(says);
  });

  test("whose Valkey saves, or has ended with a demotion by hand, has nothing said against it for that", async () => {
    const saved = (await home({ saves: "# Persistence\r\nrdb_last_bgsave_status:ok\r\n" })).faults;
    expect([saved, (await home({})).faults].join()).not.toContain("Valkey");
  });

  test("with a volume that is nearly full is handed over all the same: nothing of it needs room there", async () => {
    const { faults, warnings } = await home({ disk: "95%" });
    expect(faults).not.toMatch(silent);
    expect(warnings).toContain(
      "home's database volume is 95 % full, and its database goes on there as the standby: make room there afterwards (docs/runbooks/alerts.md, VolumeFilling)",
    );
  });

  test("must run what its stack says: the first step would refuse a release that is yet to be made", async () => {
    const running = "ghcr.io/mastodon/mastodon:v4.6.0";
    const { faults: said } = await home({ running });
    expect(said).toContain(
      "ghcr.io/mastodon/mastodon:v4.6.0, the version this site has, while it is handed over: first the one, then the other",
    );
    expect(said).toMatch(
      /mend: {4}pulumi up --stack home; or set the version in versions\.ts, or: pulumi config set --path homestead:images\.mastodon <image> --stack home$/m,
    );
    const { faults: taking } = await home({ running, changes: { promotionToken: token } });
    expect(taking).toContain(
      `${running}, the version this site has, while it takes over: first the one, then the other`,
    );
    expect(taking).toMatch(
      /; if it has taken over, and its database writes \(npx homestead status home\): pulumi config rm homestead:promotionToken --stack home$/m,
    );
  });
});

describe("a database that begins anew", () => {
  /** On a disk with these KB, where its predecessor takes some and the active site's others. */
  async function found(size: number, free: number, needed: number) {
    const target = await vps({ segments: [3, 4] });
    parted = true;
    vi.mocked(execInPod).mockResolvedValue(`/dev/x ${size} 1 ${free} 10% /data\n${needed}\t/var/lib/postgresql/data\n`);
    const lease = firstLease(
      { site: "home", epoch: 1, cluster: "c", fingerprint: target.settings.fingerprint },
      600,
      "w",
    );
    const { warnings } = await preflight({ kind: "lost", from: "home", target, old: undefined, lease });
    return warnings.filter((line) => line.includes("begins anew beside"));
  }

  test("needs room beside the old one, where they share a disk", async () => {
    const gib = 1024 ** 2;
    const [says = "", ...others] = await found(100 * gib, 3 * gib, 4 * gib);
    expect(others).toEqual([]);
    expect(says).toMatch(
      /^vps's database begins anew beside the old one and takes 4\.0 GiB, and their disk has 3\.0 GiB left: make room there; databases that sleep, and that nobody misses: kubectl .* -n homestead get clusters\.postgresql\.cnpg\.io$/,
    );
    expect(await found(100 * gib, 5 * gib, 4 * gib)).toEqual([]);
    // A volume of its own says nothing about the next one's.
    expect(await found(10 * gib, 3 * gib, 4 * gib)).toEqual([]);
  });
});

describe("what a takeover loses", () => {
  async function found(archive: Archive, said?: string | Error) {
    const target = await vps(archive, said);
    const lease = firstLease(
      { site: "home", epoch: 1, cluster: "c", fingerprint: target.settings.fingerprint },
      600,
      "w",
    );
    return preflight({ kind: "lost", from: "home", target, old: undefined, lease });
  }
  const archived =
    /^what home wrote after \S+Z \([^)]* ago\), the newest in the vault: at most 15 s of posts, if home archived until it was gone/;
  const rest = "; jobs that were queued are lost, home feeds are rebuilt";

  test("is what is not in the vault, where the standby has all of it", async () => {
    const { loss } = await found({ segments: [3, 4] });
    expect(loss).toMatch(archived);
    expect(loss?.replace(archived, "")).toBe(rest);
  });

  test("is said with how far the standby has come, and that it is waited for", async () => {
    const { loss, warnings } = await found({ segments: [4, 5, 6, 7] });
    expect(warnings).toContain("vps's database is 3 segments behind home-g1: the switch waits until it has caught up");
    expect(loss?.replace(archived, "")).toMatch(
      /^; vps's database has replayed 0\/5000000, of 2026-10-20T08:00:00.000Z \(.* ago\), and the switch waits for the rest; jobs/,
    );
  });

  test("is said to be unknown where the standby does not say", async () => {
    const { loss } = await found({ segments: [4] }, new Error("postgres-g1-1: no answer within 20 s"));
    expect(loss?.replace(archived, "")).toBe(
      `; vps's database does not say how much of it it has, and the switch waits until it has it all${rest}`,
    );
  });

  test("is everything from the segment on that the vault lacks", async () => {
    const { loss } = await found({ segments: [4, 6, 7] });
    expect(loss).toMatch(
      /^what home wrote after 0\/5000000, of 2026-10-20T08:00:00.000Z \(.* ago\): the vault lacks the segment 000000010000000000000005, which comes next, and nobody can replay the 2 behind it; jobs/,
    );
  });

  test("is nothing that a takeover may begin with, where the standby can never catch up", async () => {
    const { faults } = await found({ segments: [900, 901], base: 900 });
    expect(faults.filter((fault) => fault.includes("cannot follow"))).toHaveLength(1);
  });
});
