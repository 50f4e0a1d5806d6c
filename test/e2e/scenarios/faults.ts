/**
 * Everything that can be killed is killed, the vault goes away, the database's disk fills up, the clock jumps: the
 * database keeps every acknowledged post, and the site mends itself (issue 6, "Done means" 2).
 *
 * What is looked at is the database. A Valkey that is killed may lose the queue entries of its last minute (ADR 4), and
 * with them deliveries of acknowledged posts: such a post is kept, and reaches no follower.
 */
import * as assert from "node:assert/strict";
import { chance, draw, seedOf } from "../support/chance";
import type { Cluster, KubeObject } from "../support/cluster";
import { isReady, lasting } from "../support/disk";
import { Load } from "../support/load";
import { Node } from "../support/node";
import type { Daemon } from "../support/node";
import { eventually, must, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { discardSharedSite, sharedSite } from "../support/shared";
import type { SharedSite } from "../support/shared";

const namespace = "homestead";

/** Seconds. */
const lengths = {
  brief: { vault: 60, full: 20, random: 40 },
  once: { vault: 300, full: 60, random: 300 },
  full: { vault: 300, full: 120, random: 900 },
} as const;

export const faults: Scenario = {
  name: "faults",
  what: "whatever is killed, cut off or filled up: every acknowledged post is kept, and the site mends itself",
  secondTry:
    "it kills the node's own daemons and fills its disk, and on a slow machine what watches is cut off with them",
  minutes: 7,
  limit: 50,
  async run(context) {
    const { environment, report } = context;
    const site = await sharedSite(context);
    // Its database ends on a small disk, which the next scenario must not have.
    discardSharedSite();
    const node = Node.of(environment, "home");
    const { cluster, client } = site;
    // While something is broken an answer may take its time; a post that waits longer was not acknowledged.
    const load = new Load(client, cluster, { read: 10, post: 20 });
    await load.during(async () => {
      await killedInTurn(context, cluster, node);
      await vaultUnreachable(context, site, node, load);
      await diskFull(context, cluster, node, load);
      await clockStepped(context, load);
      await atRandom(context, cluster, node, site);
      await mendsItself(context, site);
    });
    console.log(`      ${load.summary()}`);
    await report.check("every acknowledged post is kept in the database", async () => {
      assert.ok(load.acknowledged.length > 100, `only ${load.acknowledged.length} posts were acknowledged`);
      assert.deepEqual(await load.lost(), []);
    });
    await report.control(
      "the audit overlooks a post that is gone",
      async () => {
        await cluster.sql(`delete from statuses where id = ${load.acknowledged[0]}`);
        assert.deepEqual(await load.lost(), []);
      },
      /\d{6,}/,
    );
  },
};

// ---------------------------------------------------------------- pods

/** A pod and where it is. */
interface Victim {
  namespace: string;
  name: string;
  uid: string;
}

/** Everything that runs for the site: ours, the operators', and the two of the cluster that it cannot do without. */
async function podsOfTheSite(cluster: Cluster): Promise<KubeObject[]> {
  // In one look: a poll must not be a load of its own.
  const pods = (await cluster.list("pods")).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  return lasting(pods).filter(({ metadata: { namespace: space = "", labels = {} } }) =>
    space === "kube-system"
      ? labels["app.kubernetes.io/name"] === "traefik" || labels["k8s-app"] === "kube-dns"
      : [namespace, "cert-manager", "cnpg-system"].includes(space),
  );
}

async function victims(cluster: Cluster): Promise<Victim[]> {
  return (await podsOfTheSite(cluster)).map(({ metadata }) => ({
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    uid: metadata.uid,
  }));
}

/** Waits until as many pods as there were are ready again, none of them one of the old. */
async function allBack(cluster: Cluster, before: readonly Victim[], old: readonly string[] = []): Promise<void> {
  await eventually(120, "every pod is back and ready", async () => {
    const now = await podsOfTheSite(cluster);
    const waiting = now.filter((pod) => !isReady(pod) || old.includes(pod.metadata.uid));
    assert.deepEqual(
      waiting.map(({ metadata }) => metadata.name),
      [],
    );
    assert.ok(now.length >= before.length, `${now.length} pods, and there were ${before.length}`);
  });
}

async function killedInTurn({ report }: Context, cluster: Cluster, node: Node | undefined): Promise<void> {
  const before = await victims(cluster);
  await report.check("there is something to kill: our seven pods, the operators', Traefik and CoreDNS", () => {
    assert.ok(before.filter((victim) => victim.namespace === namespace).length >= 7);
    assert.ok(before.length >= 14, before.map((victim) => victim.name).join(", "));
  });
  for (const victim of before) {
    await report.check(`${victim.name} killed: it is back by itself`, async () => {
      await cluster.kill(victim);
      await allBack(cluster, before, [victim.uid]);
    });
  }
  for (const daemon of ["containerd", "kubelet", "apiserver"] as const) {
    if (node === undefined) report.skip(`${daemon} killed`, "only the lab's can be killed from here");
    else await daemonKilled(report, cluster, node, daemon);
  }
}

async function daemonKilled(report: Context["report"], cluster: Cluster, node: Node, daemon: Daemon): Promise<void> {
  await report.check(`${daemon} killed, and started 5 s later: every pod is ready afterwards`, async () => {
    const before = await victims(cluster);
    await node.crash(daemon);
    await sleep(5000);
    await eventually(60, "the cluster answers", () => cluster.kubectl(["get", "--raw", "/readyz"]));
    await allBack(cluster, before);
  });
}

// ---------------------------------------------------------------- the vault

async function vaultUnreachable(
  { environment, report, extent }: Context,
  { cluster }: SharedSite,
  node: Node | undefined,
  load: Load,
): Promise<void> {
  const seconds = lengths[extent].vault;
  const claim = `the vault unreachable for ${seconds} s: posts are acknowledged to the end`;
  if (node === undefined) return report.skip(claim, "only the lab's network can be cut from here");
  const { hostname, port, protocol } = new URL(environment.s3.endpoint);
  const asked = () =>
    cluster.exec(
      namespace,
      "valkey-0",
      [
        "node",
        "-e",
        "fetch(process.env.ENDPOINT, { signal: AbortSignal.timeout(5000) }).then((r) => console.log(r.status), " +
          "(e) => { console.log(String(e)); process.exit(1); })",
      ],
      { container: "keeper", seconds: 30 },
    );
  await report.check("the lease's keeper reaches the vault", asked);
  const mend = await node.cutOff(hostname, Number(port || (protocol === "https:" ? 443 : 80)));
  try {
    await report.control("it reaches the vault that was cut off", asked, /timeout|aborted|fetch failed/i);
    await report.check(claim, async () => {
      await sleep(Math.max(0, seconds - 25) * 1000);
      const acknowledged = load.acknowledged.length;
      await sleep(20_000);
      const more = load.acknowledged.length - acknowledged;
      assert.ok(more >= 10, `${more} posts in the last 20 s; refused: ${load.refused.at(-1) ?? "none"}`);
    });
  } finally {
    await mend();
  }
}

// ---------------------------------------------------------------- the database's volume

/** The primary's pod, and the folder of the node that its volume is. */
async function databaseVolume(cluster: Cluster): Promise<{ database: string; folder: string }> {
  const pod = await cluster.primary();
  const database = pod.metadata.labels?.["cnpg.io/cluster"];
  const claim = await cluster.get("persistentvolumeclaim", pod.metadata.name, namespace);
  const volume = await cluster.get("persistentvolume", String(claim?.spec?.["volumeName"]));
  const { hostPath, local } = (volume?.spec ?? {}) as { hostPath?: { path: string }; local?: { path: string } };
  const folder = hostPath?.path ?? local?.path;
  if (database === undefined || folder === undefined) throw new Error("the database's volume is no folder of the node");
  return { database, folder };
}

async function diskFull(
  { report, extent }: Context,
  cluster: Cluster,
  node: Node | undefined,
  load: Load,
): Promise<void> {
  const claim = "the database's volume full, then room again: posts are taken again within 2 minutes, without a hand";
  if (node === undefined) return report.skip(claim, "only on the lab the node's disks are at hand");
  const { database, folder } = await databaseVolume(cluster);
  const hibernate = (value: "on" | "off") =>
    cluster.kubectl([
      "annotate",
      "--overwrite",
      "-n",
      namespace,
      `clusters.postgresql.cnpg.io/${database}`,
      `cnpg.io/hibernation=${value}`,
    ]);
  // The node-local class has no quota: the volume gets a small file system of its own while the database sleeps.
  await report.step("the database's volume moves to a small disk", async () => {
    const before = await victims(cluster);
    await hibernate("on");
    await eventually(300, "the database sleeps", async () => {
      const instances = await cluster.list("pods", namespace, `cnpg.io/cluster=${database},cnpg.io/podRole=instance`);
      // It would wait for three minutes for its clients to go by themselves, and they stay.
      for (const { metadata } of instances) await cluster.kill({ ...metadata, namespace });
      assert.equal(instances.length, 0, "its pod is there");
      const sleeping = await cluster.get("clusters.postgresql.cnpg.io", database, namespace);
      const conditions = (sleeping?.status?.["conditions"] ?? []) as { type: string; status: string }[];
      assert.ok(
        conditions.some(({ type, status }) => type === "cnpg.io/hibernation" && status === "True"),
        "the operator has not said so",
      );
    });
    await node.onSmallDisk(folder, 1024);
    await hibernate("off");
    await allBack(cluster, before);
    await posted(load, 60);
  });
  const room = await node.fill(folder);
  try {
    await report.control(
      "the database can write to the full volume",
      () => cluster.sql("create table homestead_e2e_filler as select generate_series(1, 1000000)"),
      /No space left on device|server closed the connection|connection to server was lost|terminating connection/i,
    );
    await sleep(lengths[extent].full * 1000);
  } finally {
    await room();
  }
  await report.check(claim, () => posted(load, 120));
}

/** Waits until posts are acknowledged again. */
async function posted(load: Load, seconds: number): Promise<void> {
  const before = load.acknowledged.length;
  await eventually(seconds, "posts are acknowledged", () => {
    const more = load.acknowledged.length - before;
    assert.ok(more >= 3, `${more} since; the last refusal: ${load.refused.at(-1) ?? "none"}`);
  });
}

// ---------------------------------------------------------------- the clock

async function clockStepped({ environment, report }: Context, load: Load): Promise<void> {
  const claim = "the node's clock stepped by a minute, forth and back: posts are acknowledged";
  const command = process.env["E2E_CLOCK_COMMAND"];
  if (command === undefined) {
    return report.skip(
      claim,
      "E2E_CLOCK_COMMAND is not set, and the lab's clusters have this machine's clock, which is others' too",
    );
  }
  const step = (seconds: number) =>
    must("sh", ["-c", `${command} "$1"`, "clock", String(seconds)], { env: environment.childEnv, seconds: 60 });
  for (const seconds of [60, -60]) {
    await report.check(`${claim} (${seconds} s)`, async () => {
      await step(seconds);
      await posted(load, 60);
    });
  }
}

// ---------------------------------------------------------------- at random

async function atRandom(
  { environment, report, extent }: Context,
  cluster: Cluster,
  node: Node | undefined,
  { client }: SharedSite,
): Promise<void> {
  const seconds = lengths[extent].random;
  const seed = seedOf();
  const random = chance(seed);
  const end = Date.now() + seconds * 1000;
  const { hostname, port, protocol } = new URL(environment.s3.endpoint);
  const done: string[] = [];
  await report.step(`faults at random for ${seconds} s (E2E_SEED=${seed})`, async () => {
    // On a slow machine it takes as long as it takes.
    while (Date.now() < end || done.length < 5) {
      const which = random();
      if (node !== undefined && which < 0.2) {
        const daemon = draw(random, ["containerd", "kubelet"] as const);
        done.push(daemon);
        await node.crash(daemon, 2);
      } else if (node !== undefined && which < 0.3) {
        done.push("vault");
        const mend = await node.cutOff(hostname, Number(port || (protocol === "https:" ? 443 : 80)));
        await sleep(8000);
        await mend();
      } else {
        const victim = draw(
          random,
          (await victims(cluster)).sort((a, b) => a.name.localeCompare(b.name)),
        );
        done.push(victim.name);
        await cluster.kill(victim);
      }
      await sleep(1000 + 4000 * random());
    }
  });
  console.log(`      in this order: ${done.join(", ")}`);
  await report.check("there were faults", () => assert.ok(done.length >= 5, `${done.length} of them`));
  await report.control(
    "the web pod is well just after it was killed",
    async () => {
      const web = (await victims(cluster)).find((victim) => victim.name.startsWith("mastodon-web"));
      assert.ok(web, "there is no web pod");
      await cluster.kill(web);
      await sleep(2000);
      const { status } = await client.request("/health", { seconds: 5 });
      assert.equal(status, 200);
    },
    /there is no web pod|50[234]|404|no answer|ECONNREFUSED|socket hang up/,
  );
}

async function mendsItself({ report }: Context, { project }: SharedSite): Promise<void> {
  const start = Date.now();
  await report.check("verified healthy within 2 minutes of the last fault, without a hand", async () => {
    await eventually(120, "homestead verify", async () => {
      const left = Math.max(1, Math.round((start + 120_000 - Date.now()) / 1000));
      succeeded(await project.homestead(["verify", "home", "--retry", String(Math.min(15, left))]), "homestead verify");
    });
  });
}
