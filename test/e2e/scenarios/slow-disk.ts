/**
 * The disk that ended the first owner's server: fsync slowed by 5, 20 and 60 seconds, then hung, under a site with
 * everything on it, and under one of the recommended profile (issue 6, "Done means" 1 and 6).
 */
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { Cluster } from "../support/cluster";
import type { KubeObject } from "../support/cluster";
import { isReady, lasting, OldRedis, restarts, slowClass, slowed } from "../support/disk";
import type { Mode } from "../support/disk";
import { Lab } from "../support/lab";
import { answeredWithin, Load, mustBeAnswered } from "../support/load";
import { eventually, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import { installedRules, Prometheus, prometheusBinary, scrapeTargets } from "../support/prometheus";
import type { Context, Scenario } from "../support/scenario";
import { sharedSite, takeHandedOn } from "../support/shared";
import type { SharedSite } from "../support/shared";
import { clientOf, namesOf, prepare } from "../support/stack";

/** Everything the program runs, its operators included. */
const namespaces = ["homestead", "cert-manager", "cnpg-system"];

/**
 * Seconds a mode. With everything on the slow disk the longest must be longer than the fsync that it makes wait, and the
 * first must leave time for a post after the one that it found under way: 15 s did not on a busy machine.
 */
const rounds = {
  recommended: {
    once: { "5s": 20, "20s": 25, "60s": 30, hang: 60 },
    full: { "5s": 150, "20s": 150, "60s": 150, hang: 60 },
  },
  nfs: {
    once: { "5s": 35, "20s": 30, "60s": 65, hang: 60 },
    full: { "5s": 150, "20s": 150, "60s": 150, hang: 60 },
  },
} as const;

const modes = (seconds: Record<string, number>): Mode[] =>
  Object.entries(seconds).map(([name, length]) => ({ name, seconds: length }));

/**
 * Seconds that a reader waits. A page that comes after ten is none; where the disk itself does not answer for a
 * minute, one that comes after it is what can be had, and a browser waits for it.
 */
const readers = { recommended: 10, nfs: 120 } as const;
/** Seconds that a post waits: a commit on an fsync of 60 s was measured at 101. */
const poster = 180;

export const slowDisk: Scenario = {
  name: "slow-disk",
  what: "a disk whose fsync takes up to a minute, and one that hangs, restart nothing and lose nothing",
  secondTry: "how many reads come through a disk that hangs depends on what else the machine does",
  // With a site of its own three more, which a whole run does not need.
  minutes: 9,
  limit: 45,
  async run(context) {
    const { environment, report } = context;
    const lab = Lab.of(environment);
    if (lab === undefined) {
      report.skip("slow disk", "only the lab's disk can be slowed");
      return;
    }
    await everythingOnTheSlowDisk(context, lab);
    await recommendedProfile(context, lab);
  },
};

// ---------------------------------------------------------------- everything on NFS

/** A site with everything on the slow disk; undefined if it did not come up. */
async function siteOnNfs(context: Context): Promise<Pick<SharedSite, "cluster" | "client"> | undefined> {
  const { environment, report } = context;
  const cluster = new Cluster(environment.home, environment);
  const { project, secrets } = await prepare(context, [environment.home]);
  // Media too, where there is an image for the copy that such a volume asks for.
  const volume = environment.images["rclone"] !== undefined;
  project.set("home", "storage", {
    kind: "nfs",
    databases: slowClass,
    ...(volume ? { media: slowClass } : {}),
  });
  if (volume) {
    project.set("home", "sizes", { database: "2Gi", queue: "1Gi", media: "1Gi" });
    project.set("home", "media", { kind: "volume" });
  }
  const up = await report.step(`pulumi up with databases${volume ? ", queues and media" : " and queues"} on NFS`, () =>
    project.up("home"),
  );
  if (!(await report.check("NFS: pulumi up succeeds", () => succeeded(up, "pulumi up")))) return undefined;
  return { cluster, client: await clientOf(cluster, namesOf(environment.zone), secrets) };
}

async function everythingOnTheSlowDisk(context: Context, lab: Lab): Promise<void> {
  const { environment, report, extent } = context;
  const own = { ...context, logs: path.join(context.logs, "nfs") };
  fs.mkdirSync(own.logs, { recursive: true });
  const site = (await takeHandedOn(own, "nfs")) ?? (await siteOnNfs(own));
  if (site === undefined) return;
  const { cluster, client } = site;
  const volume = environment.images["rclone"] !== undefined;
  await report.check("NFS: every volume of the site is on the slow disk", async () => {
    const claims = await cluster.list("persistentvolumeclaims", "homestead");
    const classes = claims.map(({ metadata, spec }) => `${metadata.name} ${String(spec?.["storageClassName"])}`);
    assert.ok(classes.length >= (volume ? 3 : 2), classes.join(", "));
    assert.deepEqual(
      classes.filter((text) => !text.endsWith(` ${slowClass}`)),
      [],
    );
  });

  const alert = await SlowDiskAlert.prepare(own, cluster);
  const control = await controlGroup("NFS", context, cluster);
  const load = new Load(client, cluster, { read: readers.nfs, post: poster });
  const before = await pods(cluster);
  await report.step("NFS: reads and posts five times a second, while the disk is slowed and hangs", () =>
    load.during(async () => {
      await sleep(5000);
      alert?.begins();
      await slowed(lab, modes(rounds.nfs[extent === "full" ? "full" : "once"]), () => load.begins());
      load.ends();
      await sleep(10_000);
    }),
  );
  console.log(`      ${load.summary()}`);
  // A figure and no claim: with so much patience the share that is claimed says that every page came, not how soon.
  const soon = answeredWithin(readers.recommended, load.reads) * 100;
  console.log(`      ${soon.toFixed(2)} % of the reads were answered within ${readers.recommended} s`);
  await control.check();
  await report.check(`NFS: at least 99 % of the reads were answered, each within ${readers.nfs} s`, () =>
    mustBeAnswered(load.reads, 0.99),
  );
  await nothingWasRestarted("NFS", context, cluster, before);
  await alert?.check();
  // A post takes as long as an fsync or two: there are few, and one that is acknowledged has been on the slow disk.
  await nothingWasLost("NFS", context, cluster, load, 1);
}

// ---------------------------------------------------------------- the recommended profile

async function recommendedProfile(context: Context, lab: Lab): Promise<void> {
  const { report, extent } = context;
  const { cluster, client } = await sharedSite(context);
  const control = await controlGroup("recommended", context, cluster);
  const load = new Load(client, cluster, { read: readers.recommended, post: poster });
  const before = await pods(cluster);
  await report.step("recommended: reads and posts five times a second, while the disk is slowed and hangs", () =>
    load.during(async () => {
      await slowed(lab, modes(rounds.recommended[extent === "full" ? "full" : "once"]), () => load.begins());
      load.ends();
      await sleep(5000);
    }),
  );
  console.log(`      ${load.summary()}`);
  await control.check();
  await report.check("recommended: at least 99.9 % of the reads were answered, each within 10 s", () =>
    mustBeAnswered(load.reads, 0.999),
  );
  await nothingWasRestarted("recommended", context, cluster, before);
  await nothingWasLost("recommended", context, cluster, load, 50);
}

// ---------------------------------------------------------------- looking

/** The first owner's Redis beside a site. @returns what looks whether it was killed, and ends it */
async function controlGroup(
  profile: string,
  { environment, report }: Context,
  cluster: Cluster,
): Promise<{ check: () => Promise<void> }> {
  const image = environment.images["valkey"];
  if (image === undefined) throw new Error("E2E_IMAGES names no image 'valkey' for the control");
  const redis = await report.step(
    `${profile}: a Redis with an append-only file and the old chart's probes, on the slow disk`,
    () => OldRedis.start(cluster, image),
  );
  return {
    check: async () => {
      // As the claim: it must go unready and be killed, or the disk was not slow and nothing is proved of this profile.
      await report.check(`${profile}: control: the old Redis went unready and was killed in the same run`, () =>
        eventually(90, "the old Redis was killed", () => redis.mustHaveBeenKilled(), 2000),
      );
      await redis.stop();
    },
  };
}

const pods = async (cluster: Cluster): Promise<KubeObject[]> =>
  (await Promise.all(namespaces.map((namespace) => cluster.list("pods", namespace)))).flat();

async function nothingWasRestarted(
  profile: string,
  { report }: Context,
  cluster: Cluster,
  before: KubeObject[],
): Promise<void> {
  await report.check(`${profile}: none of ${lasting(before).length} pods was restarted or replaced`, async () => {
    assert.ok(lasting(before).length >= 10, `only ${lasting(before).length} pods`);
    assert.deepEqual(restarts(before, await pods(cluster)), []);
  });
  await report.check(`${profile}: every pod is ready afterwards`, () =>
    eventually(60, "every pod is ready", async () => {
      const unready = lasting(await pods(cluster)).filter((pod) => !isReady(pod));
      assert.deepEqual(
        unready.map(({ metadata }) => metadata.name),
        [],
      );
    }),
  );
}

/** After everything else that is looked at: it restarts the database. */
async function nothingWasLost(
  profile: string,
  { report }: Context,
  cluster: Cluster,
  load: Load,
  least: number,
): Promise<void> {
  await report.check(`${profile}: posts that were sent while the disk was slow were acknowledged`, () =>
    assert.ok(load.inTrouble.length >= least, `${load.inTrouble.length} of them, and not ${least}`),
  );
  // The process remembers what its disk may not have. A power cut would ask more: this node keeps its page cache.
  await report.check(`${profile}: the database, killed hard, recovers by itself`, () => databaseCrashes(cluster));
  await report.check(`${profile}: every acknowledged post is kept, read after the crash`, async () =>
    assert.deepEqual(await load.lost(), []),
  );
}

/** Kills the database's pod, and waits until another one has recovered. @throws Error if it was shut down in order */
async function databaseCrashes(cluster: Cluster): Promise<void> {
  const namespace = "homestead";
  const old = await cluster.primary();
  await cluster.kill({ namespace, name: old.metadata.name });
  const recovered = await eventually(180, "the database is back", async () => {
    const pod = await cluster.primary();
    assert.ok(pod.metadata.uid !== old.metadata.uid && isReady(pod), `${pod.metadata.name} is not ready`);
    return pod;
  });
  const log = await cluster.kubectl(["logs", "-n", namespace, recovered.metadata.name, "-c", "postgres", "--tail=-1"]);
  assert.match(log, /database system was not properly shut down/, "it was shut down in order");
}

// ---------------------------------------------------------------- the alert

/** Rules that speak of a slow disk. */
const alertName = /fsync|slow.?disk|disk.?slow/i;

/** Watches a real Prometheus from before the slowdown on. */
class SlowDiskAlert {
  private begun = 0;
  private fired = 0;

  private constructor(
    private readonly context: Context,
    private readonly prometheus: Prometheus,
  ) {}

  static async prepare(context: Context, cluster: Cluster): Promise<SlowDiskAlert | undefined> {
    const { report } = context;
    const claim = "the slow-disk alert fires within 2 minutes";
    const binary = prometheusBinary(context);
    if (binary === undefined) return void report.skip(claim, "there is no program prometheus on PATH");
    const rules = await installedRules(cluster, "homestead");
    if (rules === undefined) return void report.skip(claim, "the site has no rules for Prometheus");
    const scraped = await cluster.list("pods", "homestead");
    if (scrapeTargets(scraped).length === 0) return void report.skip(claim, "no pod says that it is to be scraped");
    const prometheus = await report.step("a Prometheus outside the cluster, with the site's rules", () =>
      Prometheus.start(context, cluster, binary, rules, scraped),
    );
    await report.control(
      "the alert fires before the slowdown",
      async () =>
        assert.ok(
          (await prometheus.firing()).some((name) => alertName.test(name)),
          "it does not fire",
        ),
      /it does not fire/,
    );
    return new SlowDiskAlert(context, prometheus);
  }

  /** The slowdown begins: from now on it is watched for. */
  begins(): void {
    this.begun = Date.now();
    void this.watch();
  }

  private async watch(): Promise<void> {
    while (this.fired === 0 && Date.now() < this.begun + 300_000) {
      const firing = await this.prometheus.firing().catch(() => []);
      if (firing.some((name) => alertName.test(name))) this.fired = Date.now();
      await sleep(1000);
    }
  }

  async check(): Promise<void> {
    const after = Math.round((this.fired - this.begun) / 1000);
    const told = this.fired === 0 ? "" : ` (it took ${after} s)`;
    await this.context.report.check(`the slow-disk alert fires within 2 minutes of the slowdown${told}`, async () => {
      const firing = (await this.prometheus.firing()).join(", ") || "nothing";
      assert.ok(this.fired !== 0, `it did not fire; what fires now: ${firing}`);
      assert.ok(after <= 120, `it fired after ${after} s`);
    });
    await this.prometheus.stop();
  }
}
