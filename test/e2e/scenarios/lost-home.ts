/**
 * Home loses its power in mid-write, and one command makes the VPS the verified active site: lost is at most what was
 * younger than the archive interval (issue 5, "Done means" 2). Its timeline is the README's picture.
 */
import * as assert from "node:assert/strict";
import { arrivalsIn, missing, postsIn } from "../support/audit";
import type { Acknowledged, Audit } from "../support/audit";
import { Outage } from "../support/outage";
import type { Status } from "../../../lib/status/lines";
import { handOn, takePair } from "../support/pair";
import type { Journal, Pair } from "../support/pair";
import type { Peer } from "../support/peer";
import { allOf, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { keep } from "../support/stack";
import { timelineSvg } from "../support/timeline";
import { archiveInterval, arriveOnce, beginAt, followStillWorks, noPower, upload } from "./two-sites";

export const lostHome: Scenario = {
  name: "lost-home",
  what: "home loses its power in mid-write; one command, and the VPS serves, with all but the last seconds",
  sites: "both",
  minutes: 3,
  limit: 90,
  async run(context) {
    const { environment, report, extent } = context;
    const outage = Outage.of(environment);
    if (outage === undefined) return report.skip("lost-home", noPower);
    const pair = await takePair(context);
    await beginAt(context, pair, "home");
    const peer = await pair.meetPeer();
    for (let round = 0; round < (extent === "full" ? 5 : 1); round++) {
      if (round > 0) await backHome(context, pair, outage);
      await once(context, pair, peer, outage, round === 0 ? "first" : "again");
    }
    handOn(pair);
  },
};

async function once(context: Context, pair: Pair, peer: Peer, outage: Outage, time: "first" | "again"): Promise<void> {
  const { report } = context;
  const address = pair.clusters.vps.access.address;
  const { epoch } = await pair.lease();
  const audit = pair.audit();
  let offAt = 0;
  const outcome = await audit.during(async () => {
    const begun = Date.now();
    // For who watches home's rebirth: queues that are full, as a server's queues are.
    const jobs = await report.step("deliveries that are put off", () => pair.leaveJobsBehind("home"));
    const posted = (Date.now() - begun) / 1000;
    // Of those posts, too, vps is to know when home goes.
    await sleep(Math.max(archiveInterval + upload, 2 * archiveInterval + upload - posted) * 1000);
    ({ at: offAt } = await report.step("home's power is cut, in the middle of posts", () =>
      pair.losePower(outage, "home", jobs),
    ));
    const switched = await report.step("homestead switch vps --lost --dead", () =>
      pair.switchTo("vps", ["--lost", "--dead"]),
    );
    if (switched.code === 0) await audit.more(address, 25, 60);
    return switched;
  });
  console.log(`      ${audit.summary()}`);
  const journal = await pair.journal();
  const verified = momentOf(journal, "verify");
  await report.check(
    `the command ends with a verified server, ${since(offAt, verified)} s after the power went`,
    () => {
      succeeded(outcome, "homestead switch");
      assert.match(outcome.output, /^done {2}verify /m);
    },
  );
  if (outcome.code !== 0) throw new Error("without a server nothing else can be tried");
  await report.check(`vps is the active site, epoch ${epoch + 1}, and nothing transient is left in the files`, () =>
    pair.mustBe("vps", epoch + 1),
  );
  await onlyTheYoungestAreLost(context, pair, audit, offAt);
  // Deliveries that failed in the midst of it take their time, and so does what asks a dead site.
  await allOf([
    statusWorks(context, pair),
    report.check("what vps acknowledged arrived at the remote server, exactly once", () =>
      arriveOnce(peer, audit.by(address)),
    ),
    feedIsBuilt(context, pair, audit.by(address)),
    report.check("an update of vps would change nothing", async () => {
      succeeded(await pair.project.preview("vps", ["--expect-no-changes"]), "preview of vps");
    }),
  ]);
  await followStillWorks(context, pair, peer);
  if (time === "first") await paint(context, { audit, peer, journal, offAt });
}

const statusWorks = ({ report }: Context, pair: Pair): Promise<unknown> =>
  report.check("status works with one site dead: who is active, and what would be lost now", async () => {
    const { stdout } = await pair.project.homestead(["status", "--json"]);
    const { server, sites } = JSON.parse(stdout) as Status;
    assert.equal(server.activeSite, "vps");
    const lines = [server, ...sites].flatMap((one) => one.lines);
    assert.ok(
      lines.some(({ what }) => what === "lost if vps went now"),
      stdout,
    );
    assert.ok(
      lines.some(({ area, verdict }) => area === "cluster" && verdict === "fault"),
      stdout,
    );
  });

/** Feeds are in Valkey alone, which began empty at vps: that has there what was posted since, and the rest if it was built anew. */
async function feedIsBuilt({ report }: Context, pair: Pair, since: readonly Acknowledged[]): Promise<void> {
  const vps = pair.at("vps");
  const [first] = since;
  await report.check("the owner's home feed is built anew: it has posts of before", async () => {
    assert.ok(first, "vps acknowledged no post");
    const before = await vps.homeFeed(first.id);
    assert.ok(before.length >= 10, `it has ${before.length}`);
  });
  await report.control("it has posts of before there were any", () => vps.homeFeed("1"), /the home feed is empty/);
}

async function onlyTheYoungestAreLost({ report }: Context, pair: Pair, audit: Audit, offAt: number): Promise<void> {
  const there = await postsIn(pair.clusters.vps);
  const lost = missing(audit.acknowledged, there);
  const oldest = Math.min(offAt, ...lost.map(({ at }) => at));
  const kept = archiveInterval + upload;
  const old = audit.acknowledged.filter(({ at }) => at < offAt - kept * 1000);
  const probe = (posts: readonly Acknowledged[]) => () => {
    const gone = missing(posts, there);
    assert.equal(gone.length, 0, `${gone.length} of ${posts.length} posts are lost`);
  };
  await report.check(
    `lost are posts of the last ${since(oldest, offAt)} s (${lost.length} of ${audit.acknowledged.length}), and none that is older than ${kept} s: the archive interval, ${archiveInterval} s, and the ${upload} s that a segment may take to arrive`,
    () => {
      assert.ok(old.length > 30, `only ${old.length} posts are older`);
      probe(old)();
    },
  );
  await report.check("none that vps acknowledged is lost", probe(audit.by(pair.clusters.vps.access.address)));
  await report.control(
    "a post that nobody made is there",
    probe([...old, { id: "1", at: 0 }]),
    /1 of \d+ posts are lost/,
  );
}

/** Home gets its power back, and the server: so that it can be lost once more. */
async function backHome({ report }: Context, pair: Pair, outage: Outage): Promise<void> {
  await report.step("home's power is back, and homestead switch home", async () => {
    await outage.powerOn("home");
    succeeded(await pair.switchTo("home"), "homestead switch home");
    pair.lost = undefined;
  });
}

// ---------------------------------------------------------------- the picture

interface Seen {
  audit: Audit;
  peer: Peer;
  journal: Journal | undefined;
  offAt: number;
}

async function paint(context: Context, { audit, peer, journal, offAt }: Seen): Promise<void> {
  const last = audit.tried.at(-1) ?? offAt;
  const steps = (journal?.steps ?? []).flatMap(({ name, begun, done }) =>
    begun === undefined || done === undefined ? [] : [{ name, from: Date.parse(begun), to: Date.parse(done) }],
  );
  const arrivals = arrivalsIn((await peer.state()).received).map(({ at }) => at);
  const svg = timelineSvg({
    title: "Home loses its power; homestead switch vps --dead",
    from: Math.max(audit.tried[0] ?? offAt, offAt - 30_000),
    to: last,
    zero: offAt,
    tried: audit.tried,
    acknowledged: audit.acknowledged.map(({ at }) => at),
    delivered: arrivals,
    steps,
    marks: [{ name: "power cut", at: offAt }],
  });
  console.log(`      the timeline: ${keep(context, "timeline.svg", svg)}`);
}

const momentOf = (journal: Journal | undefined, step: string): number =>
  Date.parse(journal?.steps.find(({ name }) => name === step)?.done ?? "");

const since = (from: number, to: number): string => ((to - from) / 1000).toFixed(0);
