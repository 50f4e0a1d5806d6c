/**
 * A planned switch loses nothing: while a client posts five times a second through the server's name, and a remote
 * server follows; there and back (issue 5, "Done means" 1).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { arrivalsIn, notExactlyOnce } from "../support/audit";
import type { Audit } from "../support/audit";
import { handOn, otherThan, takePair } from "../support/pair";
import type { JobsLeftBehind, Pair } from "../support/pair";
import type { Peer } from "../support/peer";
import { allOf, eventually, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Site } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { StallingServer } from "../support/stalling";
import { baseBackups, makeBaseBackup } from "../support/stack";
import { followStillWorks, plannedSwitch } from "./two-sites";

/** A planned switch's steps between two sites that both run (lib/switch/steps.ts). */
export const plannedSteps = [
  "stop-web",
  "drain",
  "stop-workers",
  "demote",
  "promote",
  "clear-token",
  "verify",
] as const;

export const switchThereAndBack: Scenario = {
  name: "switch",
  what: "planned switches, there and back (in a whole run: one of them), with a client that posts throughout: nothing is lost, nothing comes twice",
  sites: "both",
  minutes: 6,
  limit: 90,
  async run(context) {
    // In a whole run the way back is by-hand's: from vps to home here, where it has no other pair to take.
    const pair = await takePair(context, context.extent === "brief" ? "vps" : "home");
    const peer = await pair.meetPeer();
    const { activeSite } = await pair.lease();
    const jobs = await context.report.step("deliveries that are put off", () => pair.leaveJobsBehind(activeSite));
    const silences: string[] = [];
    const trips = { brief: 1, once: 2, full: 10 }[context.extent];
    for (let trip = 1; trip <= trips; trip++) {
      const inHand: string[] = [];
      const besides = () => [
        ...(trip === 1 ? [retriesCameAlong(context, pair, otherThan(activeSite), jobs, inHand)] : []),
        ...(trip === trips ? [standbyBacksItselfUp(context, pair)] : []),
      ];
      const meanwhile = async (ended: () => boolean) =>
        void inHand.push(...(trip === 1 ? await stalling(context, pair, jobs, ended) : []));
      const audit = await byCommand(context, pair, peer, meanwhile, besides);
      silences.push(audit.silence().toFixed(1));
      if (trip === 1) await theAuditSees(context, pair, peer, audit);
    }
    await followStillWorks(context, pair, peer);
    console.log(
      `      seconds without an acknowledged post: ${silences.join(", ")} (in the first, up to 25 for what Sidekiq had in hand)`,
    );
    handOn(pair);
  },
};

async function byCommand(
  context: Context,
  pair: Pair,
  peer: Peer,
  meanwhile: (ended: () => boolean) => Promise<void>,
  besides: () => Promise<unknown>[],
): Promise<Audit> {
  let output = "";
  const how = async (to: Site) => {
    let going = true;
    const switched = pair.switchTo(to).finally(() => (going = false));
    await allOf<unknown>([switched, meanwhile(() => !going)]);
    ({ output } = succeeded(await switched, `homestead switch ${to}`));
  };
  const audit = await plannedSwitch(context, pair, peer, how, besides);
  await context.report.check("the command shows each step with its time, and ends with the git command", () => {
    const done = [...output.matchAll(/^done {2}(\S+) \(\d+ s\)$/gm)].map(([, step]) => step);
    assert.deepEqual(done, plannedSteps);
    assert.match(output, /^ +git -C \S+ add Pulumi\.yaml .* && git -C \S+ commit -m "/m);
  });
  return audit;
}

/**
 * From the moment that the workers are stopped until another site takes over, the server that is away is there and never comes
 * to an end: what is delivered to it is in Sidekiq's hands then, and in no queue.
 * @returns the posts whose deliveries were
 */
async function stalling(
  context: Context,
  pair: Pair,
  { port }: JobsLeftBehind,
  ended: () => boolean,
): Promise<string[]> {
  const begun = async (step: (typeof plannedSteps)[number]) => {
    for (; !ended(); await sleep(500)) {
      const journal = await pair.journal();
      // One that is finished is of the switch before.
      if (journal?.finished === false && journal.steps.some(({ name, begun: at }) => name === step && at !== undefined))
        return;
    }
  };
  await begun("stop-workers");
  const server = await StallingServer.start(context, "quiet", port);
  await begun("promote");
  await server.stop();
  return server.taken.flatMap((body) => /\/statuses\/(\d+)\/activity"/.exec(body)?.[1] ?? []);
}

/** Nothing but the queues knows of them: a site that began with empty ones would never deliver these posts. */
async function retriesCameAlong(
  { report }: Context,
  pair: Pair,
  to: Site,
  { posts }: JobsLeftBehind,
  inHand: readonly string[],
): Promise<void> {
  // One that is being tried just now waits again a moment later.
  const waiting = (ids: readonly string[], seconds: number) =>
    eventually(seconds, "deliveries that wait", () => pair.mustWait(to, ids));
  await report.check("deliveries that waited for another try wait at the new site", () => waiting(posts, 30));
  await report.check(`and so do those that Sidekiq had in hand when it was stopped (${inHand.length})`, async () => {
    assert.ok(inHand.length > 0, "it had none");
    await waiting(inHand, 60);
  });
  await report.control(
    "a delivery of a post that nobody made waits there",
    () => pair.mustWait(to, [...posts, crypto.randomUUID()]),
    /no delivery of .*-\S+ waits/,
  );
}

/**
 * A standby's own weekly base backup: without one, nothing would ever trim the archive that it writes. None falls due
 * within a scenario, so the same is made by hand of the database that the schedule names.
 */
async function standbyBacksItselfUp({ report }: Context, pair: Pair): Promise<void> {
  const standby = otherThan((await pair.lease()).activeSite);
  const cluster = pair.clusters[standby];
  await report.check("the standby makes a base backup into its own archive", async () => {
    const [schedule, ...more] = await cluster.list("scheduledbackups.postgresql.cnpg.io", "homestead");
    assert.ok(schedule !== undefined && more.length === 0, "there must be one schedule");
    const { name } = schedule.spec?.["cluster"] as { name: string };
    const before = await baseBackups(pair.s3, pair.archive(standby));
    await makeBaseBackup(cluster, "of-a-standby", name);
    const after = await baseBackups(pair.s3, pair.archive(standby));
    assert.equal(after.length, before.length + 1, `${pair.archive(standby)} has ${after.join(", ")}`);
  });
}

/** Controls: what the audit is there to find, made for it. */
async function theAuditSees({ report }: Context, pair: Pair, peer: Peer, audit: Audit): Promise<void> {
  const cluster = pair.clusters[(await pair.lease()).activeSite];
  const [victim, twice] = audit.acknowledged;
  if (victim === undefined || twice === undefined) throw new Error("the audit has no posts to go wrong");
  await report.control(
    "the audit overlooks a post that is gone",
    async () => {
      await cluster.sql(`DELETE FROM statuses WHERE id = ${victim.id}`);
      assert.deepEqual(await audit.lost(cluster), []);
    },
    new RegExp(victim.id),
  );
  await report.control(
    "the audit overlooks a delivery that came twice",
    async () => {
      const { received } = await peer.state();
      const again = received.filter(({ objectId }) => objectId?.endsWith(`/${twice.id}`));
      assert.deepEqual(notExactlyOnce(audit.acknowledged, arrivalsIn([...received, ...again])), []);
    },
    new RegExp(`post ${twice.id} arrived 2 times`),
  );
}
