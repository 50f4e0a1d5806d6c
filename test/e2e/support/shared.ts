/**
 * One site for several scenarios: bringing one up takes minutes, and what only looks at it or breaks its pods can
 * take it over from the scenario before.
 */
import * as fs from "node:fs";
import { Cluster } from "./cluster";
import { vaultsHouse } from "./egress";
import { succeeded } from "./project";
import type { Project } from "./project";
import type { Context } from "./scenario";
import type { SiteClient } from "./site";
import { clientOf, namesOf, prepare } from "./stack";
import type { Secrets } from "./stack";
import type { ObjectServer } from "./vault";

export interface SharedSite {
  project: Project;
  secrets: Secrets;
  s3: ObjectServer;
  cluster: Cluster;
  client: SiteClient;
  /** Output of the update that made it, for the search for secrets. */
  outputs: string[];
}

/** A site that is left to later scenarios, and the UID of its namespace: another one is another site. */
interface Kept {
  site: SharedSite;
  uid: string;
}

async function keptOf(site: SharedSite): Promise<Kept> {
  return { site, uid: (await site.cluster.get("namespace", "homestead"))?.metadata.uid ?? "" };
}

/** The site that was kept, if it is still there and answers. */
async function ifWell({ report, logs }: Context, kept: Kept | undefined): Promise<SharedSite | undefined> {
  if (kept === undefined) return undefined;
  const { site, uid } = kept;
  // One that does not answer is not there.
  const there = await site.cluster.get("namespace", "homestead").catch(() => undefined);
  if (there?.metadata.uid !== uid || !(await answers(site.client))) return undefined;
  await report.step("the site of the scenario before", () => undefined);
  site.project.logs = logs;
  return site;
}

let kept: Kept | undefined;

/**
 * The site of the recommended profile on `home`: databases on the node-local class, media in the bucket, and of the
 * private addresses the S3 server's, for Mastodon the remote server's as well, and for who talks to the vault one more. The
 * one that an earlier scenario left, if it is still there and answers; else a new one from an empty cluster.
 */
export async function sharedSite(context: Context): Promise<SharedSite> {
  const { environment, report } = context;
  const found = await ifWell(context, kept);
  if (found !== undefined) return found;
  kept = undefined;
  const cluster = new Cluster(environment.home, environment);
  const { project, secrets, s3 } = await outlivingTheScenario(() => prepare(context, [environment.home]));
  const store = new URL(environment.s3.endpoint).hostname;
  project.set("home", "network", {
    privateEgress: [store, vaultsHouse].map((address) => `${address}/32`),
    mastodonPrivateEgress: [store, environment.hostAddress].map((address) => `${address}/32`),
  });
  const { output } = succeeded(await report.step("pulumi up, from nothing", () => project.up("home")), "pulumi up");
  const client = await clientOf(cluster, namesOf(environment.zone), secrets);
  const site = { project, secrets, s3, cluster, client, outputs: [output] };
  kept = await keptOf(site);
  return site;
}

/** After what leaves a site that the next scenario cannot use. */
export function discardSharedSite(): void {
  kept = undefined;
}

// ---------------------------------------------------------------- from scenario to scenario

/** Where a site has its databases: what is asked of one that is handed on. `nfs`: all that it has is on the slow disk. */
type Databases = "local" | "nfs";

let handedOn: (Kept & { databases: Databases }) | undefined;

/**
 * Leaves a site, with whatever settings, to the next scenario that can do with any. Not called by one that failed: what
 * it leaves, nobody knows.
 */
export async function handOnSite(site: SharedSite, databases: Databases = "local"): Promise<void> {
  handedOn = { ...(await keptOf(site)), databases };
}

/** The site that the scenario before handed on, if it is such a one and well. Whoever takes it hands it on or uses it up. */
export async function takeHandedOn(context: Context, databases: Databases): Promise<SharedSite | undefined> {
  const before = handedOn;
  handedOn = undefined;
  return before?.databases === databases ? ifWell(context, before) : undefined;
}

/** {@link takeHandedOn} with local databases; else a new one. */
export async function takeSite(context: Context): Promise<SharedSite> {
  const { environment, report } = context;
  const found = await takeHandedOn(context, "local");
  if (found !== undefined) return found;
  const cluster = new Cluster(environment.home, environment);
  const made = await outlivingTheScenario(() => prepare(context, [environment.home]));
  const { output } = succeeded(
    await report.step("pulumi up, from nothing", () => made.project.up("home")),
    "pulumi up",
  );
  const client = await clientOf(cluster, namesOf(environment.zone), made.secrets);
  return { ...made, cluster, client, outputs: [output] };
}

/** What a scenario makes is deleted at its end. The copy of the project that is made here is deleted when the suite ends. */
export async function outlivingTheScenario<T extends { project: Project }>(work: () => Promise<T>): Promise<T> {
  const keep = process.env["E2E_KEEP"];
  process.env["E2E_KEEP"] = "until the end";
  try {
    const made = await work();
    if (keep === undefined) process.once("exit", () => fs.rmSync(made.project.root, { recursive: true, force: true }));
    return made;
  } finally {
    if (keep === undefined) delete process.env["E2E_KEEP"];
    else process.env["E2E_KEEP"] = keep;
  }
}

const answers = (client: SiteClient): Promise<boolean> =>
  client.healthy(60).then(
    () => true,
    () => false,
  );
