/** What every switch must hold, however it was made. */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { arrivalsIn, notExactlyOnce } from "../support/audit";
import type { Acknowledged, Audit } from "../support/audit";
import { otherThan } from "../support/pair";
import type { Pair } from "../support/pair";
import type { Peer } from "../support/peer";
import { allOf, eventually, sleep } from "../support/processes";
import type { Site } from "../support/project";
import type { Context } from "../support/scenario";

/** Seconds: `archiveInterval` as it is by default, and what a segment's way into the vault may take on top. */
export const archiveInterval = 15;
export const upload = 10;

/**
 * Hands the server over to the other site while somebody posts five times a second, and looks afterwards at everything
 * that a planned switch promises.
 * @param how makes the switch. @throws what `how` throws: after that nothing more can be said
 * @param besides what else is looked at then, beside the rest
 */
export async function plannedSwitch(
  context: Context,
  pair: Pair,
  peer: Peer,
  how: (to: Site) => Promise<void>,
  besides: () => Promise<unknown>[] = () => [],
): Promise<Audit> {
  const { report } = context;
  const { activeSite: from, epoch } = await pair.lease();
  const to = otherThan(from);
  const address = (site: Site) => pair.clusters[site].access.address;
  const audit = pair.audit();
  await report.step(`${from} to ${to}, with posts five times a second`, () =>
    audit.during(async () => {
      await audit.more(address(from), 10, 60);
      await how(to);
      await audit.more(address(to), 10, 60);
    }),
  );
  console.log(`      ${audit.summary()}`);
  await report.check(`${to} is the active site, epoch ${epoch + 1}, and nothing transient is left in the files`, () =>
    pair.mustBe(to, epoch + 1),
  );
  await report.check(`${from} is a standby: nothing of Mastodon runs there, and its database follows`, () =>
    mustBeStandby(pair, from),
  );
  // Deliveries that failed in the midst of it take their time, and so do previews.
  await allOf<unknown>([nothingIsLost(context, pair, peer, to, audit), settled(context, pair), ...besides()]);
  return audit;
}

export const settled = ({ report }: Context, pair: Pair): Promise<unknown> =>
  report.check("an update of each site would change nothing", () => pair.mustBeSettled());

/** @throws unless a site's Mastodon and Valkey are at zero, and its database only reads */
export async function mustBeStandby(pair: Pair, site: Site): Promise<void> {
  const cluster = pair.clusters[site];
  const running = (await cluster.pods("homestead"))
    .map(({ metadata }) => metadata.name)
    .filter((name) => /^(mastodon-(web|sidekiq|streaming)|valkey)/.test(name));
  assert.deepEqual(running, []);
  assert.equal(await cluster.sql("SELECT pg_is_in_recovery()"), "t", "its database writes");
}

/** Every acknowledged post is in the database of the site that is active now, and went out once. */
export async function nothingIsLost(
  { report }: Context,
  pair: Pair,
  peer: Peer,
  active: Site,
  audit: Audit,
): Promise<void> {
  const { acknowledged } = audit;
  await report.check(`every acknowledged post is in ${active}'s database (${acknowledged.length})`, async () => {
    assert.ok(acknowledged.length > 20, `only ${acknowledged.length} posts were acknowledged`);
    assert.deepEqual(await audit.lost(pair.clusters[active]), []);
  });
  await report.check("each of them arrived at the remote server exactly once", () => arriveOnce(peer, acknowledged));
}

/** Waits for posts to arrive, and a little longer for one that comes twice. */
export async function arriveOnce(peer: Peer, posts: readonly Acknowledged[]): Promise<void> {
  const faults = async () => notExactlyOnce(posts, arrivalsIn((await peer.state()).received));
  // What failed once is tried again after 15 to 25 s.
  await eventually(120, "all posts at the remote server", async () => assert.deepEqual(await faults(), []), 2000);
  await sleep(3000);
  assert.deepEqual(await faults(), []);
}

/** The follow lives in the database alone: the remote server was told nothing of any switch. */
export async function followStillWorks({ report }: Context, pair: Pair, peer: Peer): Promise<void> {
  await report.check("the remote server's follow still works: a new post arrives, once", async () => {
    const text = `after the switch ${crypto.randomUUID()}`;
    await pair.followName();
    await pair.owner.post(text);
    await peer.received(text, 60);
    assert.equal(await peer.countOf(text), 1);
    assert.deepEqual((await peer.state()).refused, []);
  });
}

/** Makes a site the active one without looking closely: for scenarios that need it to be. */
export async function beginAt({ report }: Context, pair: Pair, site: Site): Promise<void> {
  if ((await pair.lease()).activeSite === site) return;
  await report.step(`homestead switch ${site}, since the scenario begins there`, async () => {
    const { code, log } = await pair.switchTo(site);
    assert.equal(code, 0, log);
  });
}

/** What is said where the clusters cannot be powered off. */
export const noPower = "only the lab's clusters can be powered off from here";
