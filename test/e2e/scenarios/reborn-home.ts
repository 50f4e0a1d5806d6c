/**
 * A home that comes back from the dead while the VPS is active: its database writes within seconds, its queues are
 * full, and it delivers and acknowledges nothing, with the vault in reach and without. Then it gets the server back, and
 * nothing is lost (issue 5, "Done means" 4). Control: without the lease's gate there are two servers.
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { arrivalsIn, sendTo } from "../support/audit";
import { Outage } from "../support/outage";
import { handOn, takeKept, takePair } from "../support/pair";
import type { JobsLeftBehind, Pair } from "../support/pair";
import { Peer } from "../support/peer";
import { allOf, eventually, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { archiveInterval, beginAt, followStillWorks, noPower, nothingIsLost, settled, upload } from "./two-sites";

const namespace = "homestead";
/** Seconds that home is watched for. Its keeper looks at the lease every 20. */
const watched = 30;

export const rebornHome: Scenario = {
  name: "reborn-home",
  what: "home comes back from the dead: it delivers and acknowledges nothing, then it gets the server back",
  sites: "both",
  minutes: 8,
  limit: 60,
  async run(context) {
    const { environment, report } = context;
    const outage = Outage.of(environment);
    if (outage === undefined) return report.skip("reborn-home", noPower);
    const pair = (await takeKept(context, "one lost")) ?? (await lose(context, outage));
    const jobs = pair.lost?.jobs ?? { posts: [], port: 0 };
    const peer = await pair.meetPeer();
    const quiet = await Peer.start(context, pair.authority, "quiet", jobs.port);
    const home: Reborn = { context, pair, peers: [peer, quiet], jobs, sent: { texts: [], acknowledged: 0 } };

    const audit = pair.audit();
    await audit.during(async () => {
      await comesBack(home, outage);
      await withoutGate(home);
      await report.step("homestead switch home, whose database begins anew", async () => {
        succeeded(await pair.switchTo("home"), "homestead switch home");
      });
      pair.lost = undefined;
      await audit.more(pair.clusters.home.access.address, 15, 60);
    });
    console.log(`      ${audit.summary()}`);
    const { epoch } = await pair.lease();
    await report.check("home is the active site again, and nothing transient is left in the files", () =>
      pair.mustBe("home", epoch),
    );
    await allOf<unknown>([
      nothingIsLost(context, pair, peer, "home", audit),
      oldDatabaseIsKept(home),
      settled(context, pair),
    ]);
    await followStillWorks(context, pair, peer);
    handOn(pair);
  },
};

/** The scenario by itself: home is lost first, as in lost-home. */
async function lose(context: Context, outage: Outage): Promise<Pair> {
  const { report } = context;
  const pair = await takePair(context);
  await beginAt(context, pair, "home");
  const peer = await pair.meetPeer();
  await report.step("home's power is cut while its queues are full, and homestead switch vps --dead", async () => {
    const jobs = await pair.leaveJobsBehind("home");
    // What the VPS's database does not know of them it would queue again by itself.
    await sleep((archiveInterval + upload) * 1000);
    await pair.losePower(outage, "home", jobs);
    succeeded(await pair.switchTo("vps", ["--dead"]), "homestead switch vps");
  });
  await peer.stop();
  return pair;
}

interface Reborn {
  context: Context;
  pair: Pair;
  /** The remote servers, to both of which home owes something. */
  peers: Peer[];
  jobs: JobsLeftBehind;
  /** What was sent to home since it came back, and how much of it home acknowledged. */
  sent: { texts: string[]; acknowledged: number };
}

/** First with the vault out of its reach, then with its network as it was. */
async function comesBack(home: Reborn, outage: Outage): Promise<void> {
  const { context, pair } = home;
  const { report } = context;
  const start = Date.now();
  const mend = await outage.cutOffFromVault("home");
  try {
    await report.step("home's power is back, and the vault is out of its reach", () => outage.powerOn("home"));
    await report.check("its database writes again by itself", async () => {
      await eventually(180, "a transaction of its own", () => pair.clusters.home.sql("SELECT txid_current()"));
      console.log(`      ${Math.round((Date.now() - start) / 1000)} s after the power came back`);
    });
    // Its pods are only starting: what they do not do says something only once status has seen them.
    let seen = false;
    await Promise.all([
      report.check("with the vault out of reach it acknowledges and delivers nothing", () =>
        watch(home, watched, () => seen),
      ),
      report
        .check("status says why", async () => {
          await sleep((watched / 2) * 1000);
          await eventually(60, "what status says", () => statusSaysWhy(home));
        })
        .finally(() => {
          seen = true;
        }),
    ]);
  } finally {
    await mend();
  }
  await report.check("with its network as it was it acknowledges and delivers nothing", () => watch(home, watched));
  await report.check("it has read that the lease is the other's", () =>
    eventually(20, "the keeper's word", async () => {
      const log = await pair.clusters.home.kubectl(["logs", "-n", namespace, "valkey-0", "-c", "keeper"]);
      assert.match(log, /the lease is vps's, epoch \d+; this is home, epoch \d+/);
    }),
  );
}

/** @throws as soon as home has done what only the active site may */
async function watch(home: Reborn, seconds: number, isEnough = () => true): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end || !isEnough()) {
    await tempt(home);
    assert.deepEqual(await doneBy(home), { acknowledged: 0, delivered: 0 });
    await sleep(1000);
  }
}

/** A post sent to home's own address, by an app that is signed in there. */
async function tempt({ pair, sent }: Reborn): Promise<void> {
  const text = `at the fenced home ${crypto.randomUUID()}`;
  sent.texts.push(text);
  try {
    await sendTo(pair.at("home"), text, crypto.randomUUID());
    sent.acknowledged++;
  } catch {
    // As it should be.
  }
}

/**
 * What home acknowledged and delivered since it came back. The VPS began with empty queues and nobody posted these texts
 * to it, so whatever arrives of them is home's doing.
 */
async function doneBy({ jobs, peers, sent }: Reborn): Promise<{ acknowledged: number; delivered: number }> {
  const owed = new Set(jobs.posts);
  let delivered = 0;
  for (const peer of peers) {
    const { received } = await peer.state();
    delivered += arrivalsIn(received).filter(({ id }) => owed.has(id)).length;
    delivered += received.filter(({ content }) => sent.texts.some((text) => content?.includes(text))).length;
  }
  return { acknowledged: sent.acknowledged, delivered };
}

/** A person who asks gets to know whose the lease is, that home was not told, and what its gate does about it. */
async function statusSaysWhy({ context, pair }: Reborn): Promise<void> {
  const { epoch } = await pair.lease();
  const { output, code } = await pair.project.homestead([
    "status",
    "home",
    "--resolver",
    context.environment.dns.server,
  ]);
  assert.notEqual(code, 0, "it finds no fault");
  // As one line: the table breaks what it says where a column ends.
  const text = output.replace(/[\s│]+/g, " ");
  const gate = new RegExp(
    `the lease is vps's, epoch ${epoch}, and home still runs for epoch ${epoch - 1}: its gate waits for the vault, it federates nothing and takes no post`,
  );
  assert.match(text, gate);
}

// ---------------------------------------------------------------- the control

/**
 * The same watch with Valkey started as if there were no gate. What home acknowledges then is thrown away with its
 * database, which begins anew when it gets the server back.
 */
async function withoutGate(home: Reborn): Promise<void> {
  const { clusters } = home.pair;
  const { report } = home.context;
  const spec = "/spec/template/spec";
  const grace = await clusters.home.kubectl([
    "get",
    "statefulset",
    "valkey",
    "-n",
    namespace,
    "-o",
    "jsonpath={.spec.template.spec.terminationGracePeriodSeconds}",
  ]);
  const restarted = async (command: string[], seconds: number) => {
    const patch = (...operations: object[]) => {
      const args = ["patch", "statefulset", "valkey", "-n", namespace, "--type=json", "-p", JSON.stringify(operations)];
      return clusters.home.kubectl(args);
    };
    const strategy = (value: object) => ({ op: "replace", path: "/spec/updateStrategy", value });
    await patch(
      // By itself the StatefulSet would end the pod with all the time that it says, and who deletes it then waits.
      strategy({ type: "OnDelete" }),
      { op: "replace", path: `${spec}/containers/0/command`, value: command },
      { op: "replace", path: `${spec}/terminationGracePeriodSeconds`, value: seconds },
    );
    // Those of Mastodon wait ever longer for Valkey.
    const pods = ["-l", "app.kubernetes.io/name in (valkey,mastodon)", "--grace-period=1"];
    // They are on their way out when this returns, and what comes after them is as it now stands.
    await clusters.home.kubectl(["delete", "pods", "-n", namespace, ...pods, "--wait=false"]);
    await patch(strategy({ type: "RollingUpdate", rollingUpdate: { partition: 0 } }));
  };
  try {
    await report.step("the gate is taken out of home's Valkey, with kubectl", () =>
      restarted(["valkey-server", "/etc/valkey/valkey.conf"], 1),
    );
    await report.control(
      "without the gate home acknowledges and delivers nothing",
      async () => {
        let seen = await doneBy(home);
        // Long enough for what waits in its queues to be tried again.
        for (const end = Date.now() + 240_000; Date.now() < end; await sleep(1000)) {
          await tempt(home);
          seen = await doneBy(home);
          if (seen.acknowledged > 0 && seen.delivered > 0) break;
        }
        const says = `home acknowledged ${seen.acknowledged} posts and delivered ${seen.delivered}`;
        assert.equal(seen.acknowledged + seen.delivered, 0, says);
      },
      /acknowledged [1-9]\d* posts and delivered [1-9]/,
    );
  } finally {
    // As it was, or the next update would find a field that is another's.
    await report.step("the gate is put back", () => restarted(["sh", "/programs/gate.sh"], Number(grace)));
  }
}

// ---------------------------------------------------------------- afterwards

/** Its volume holds what only home had: nobody but its owner may throw that away. */
async function oldDatabaseIsKept({ context: { report }, pair }: Reborn): Promise<void> {
  await report.check("home's old database is kept, asleep, and the new one writes another archive", async () => {
    const databases = await pair.clusters.home.list("clusters.postgresql.cnpg.io", namespace);
    const archiveOf = (spec: Record<string, unknown> = {}) =>
      (spec["plugins"] as { parameters?: { serverName?: string } }[] | undefined)?.[0]?.parameters?.serverName;
    const former = databases.filter(({ spec }) => archiveOf(spec) !== pair.archive("home"));
    assert.equal(databases.length - former.length, 1, `no database writes ${pair.archive("home")}`);
    assert.ok(former.length >= 1, "there is only one database");
    for (const { metadata } of former)
      assert.equal(metadata.annotations?.["cnpg.io/hibernation"], "on", `${metadata.name} is awake`);
  });
}
