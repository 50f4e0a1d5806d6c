/**
 * A VPS that did not exist a minute ago: home is powered off, the other cluster is empty, and one command makes it the
 * verified active site (issue 5, "Done means" 3).
 */
import * as assert from "node:assert/strict";
import { missing, postsIn } from "../support/audit";
import type { Cluster } from "../support/cluster";
import { Outage } from "../support/outage";
import { newPair, takeKept } from "../support/pair";
import type { Pair } from "../support/pair";
import { eventually } from "../support/processes";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { buckets } from "../support/stack";
import { beginAt, followStillWorks, noPower } from "./two-sites";

export const coldVps: Scenario = {
  name: "cold-vps",
  what: "home is powered off, and an empty cluster becomes the verified active site in one command",
  sites: "both",
  minutes: 5,
  limit: 45,
  async run(context) {
    const { environment, report } = context;
    const outage = Outage.of(environment);
    if (outage === undefined) return report.skip("cold-vps", noPower);
    const pair = await pairWithoutVps(context);
    const { epoch } = await pair.lease();
    const peer = await pair.meetPeer();
    const posts = await report.step("posts, which reach the vault", () => archivedPosts(pair));
    await peer.stop();

    const start = Date.now();
    await report.step("home's power is cut", () => pair.losePower(outage, "home", { posts: [], port: 0 }));
    const outcome = await report.step("homestead switch vps --dead", () => pair.switchTo("vps", ["--dead"]));
    await report.check(
      `one command: an empty cluster is the verified active site, ${Math.round((Date.now() - start) / 1000)} s after the power went`,
      () => {
        succeeded(outcome, "homestead switch");
        assert.match(outcome.output, /^done {2}verify /m);
      },
    );
    if (outcome.code !== 0) throw new Error("without a server nothing else can be tried");
    await report.check(`vps is the active site, epoch ${epoch + 1}, and nothing transient is left in the files`, () =>
      pair.mustBe("vps", epoch + 1),
    );
    await report.check(`every post is there (${posts.length})`, async () => {
      assert.deepEqual(missing(posts, await postsIn(pair.clusters.vps)), []);
    });
    // Its authority is as new as the cluster.
    await pair.learnAuthority("vps");
    await followStillWorks(context, pair, await pair.meetPeer());
    await report.check("an update of vps would change nothing", async () => {
      succeeded(await pair.project.preview("vps", ["--expect-no-changes"]), "preview of vps");
    });
  },
};

/** Home active, and nothing of ours in the other cluster. The pair is not handed on: home stays off. */
async function pairWithoutVps(context: Context): Promise<Pair> {
  const { report } = context;
  const found = await takeKept(context, "both on");
  if (found === undefined) return newPair(context, "none");
  await beginAt(context, found, "home");
  await report.step("the vps is given back: neither its cluster nor its state know anything of it", async () => {
    await found.clusters.vps.empty();
    await found.project.mustPulumi(["stack", "rm", "vps", "--yes", "--force", "--preserve-config"]);
    await found.project.initStack("vps");
  });
  return found;
}

/** @returns posts that have left home for certain */
async function archivedPosts(pair: Pair): Promise<{ id: string }[]> {
  await eventually(180, `a base backup in ${pair.archive("home")}`, async () => {
    const keys = await pair.s3.keys(buckets.vault, `pg/${pair.archive("home")}/base/`);
    const infos = keys.filter((key) => key.endsWith("/backup.info"));
    const texts = await Promise.all(infos.map((key) => pair.s3.get(buckets.vault, key)));
    assert.ok(
      texts.some((text) => /^status=DONE$/m.test(text)),
      `${infos.length} unfinished`,
    );
  });
  await pair.followName();
  const posts: { id: string }[] = [];
  for (let i = 0; i < 10; i++) posts.push({ id: await pair.owner.post(`before the cold start, ${i}`) });
  await archived(pair.clusters.home);
  return posts;
}

/** Waits until everything written so far is in the vault. */
async function archived(cluster: Cluster): Promise<void> {
  const segment = await cluster.sql("SELECT pg_walfile_name(pg_switch_wal())");
  await eventually(120, `${segment} in the vault`, async () => {
    const last = await cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver");
    assert.ok(last.slice(8, 24) >= segment.slice(8), `the last one is ${last}`);
  });
}
