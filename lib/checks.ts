/**
 * What is asked of the world before the first resource exists, in a preview too: is this the stack's own cluster, and
 * is there what the stack names. All faults come out as one error; nothing has been touched by then.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import type * as k8s from "@kubernetes/client-node";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { environmentName, postrender } from "../components/mastodon";
import { copyPrefix } from "../components/media-copy";
import { cnpgNamespace } from "../components/operators";
import { hostOf } from "../components/postgres";
import type { Fault, Role, Settings, StackName } from "../settings";
import { SettingsError, archiveName, whyNotOnNfs } from "../settings";
import type { ChartReference } from "../versions";
import { archivesIn, newestBaseBackup, newestGeneration, newestSegment, oldestBaseBackup, timelineOf } from "./archive";
import type { BaseBackup } from "./archive";
import { reason } from "./attempt";
import { archiveOf, clusterName, findDatabases, isAsleep, majorOf, majorsOf, restoredTo, tokenFault } from "./database";
import type { Bootstrap, DatabaseObject, Databases } from "./database";
import { DoctorCluster } from "./doctor/cluster";
import { issuerOf } from "./doctor/issuer";
import { mendOfInstalled, operatorMarks, subnetLimits } from "./doctor/operators";
import type { Definitions, OperatorName, SubnetLimits } from "./doctor/operators";
import { addressesOf, missingRanges, reachable, serversOf } from "./egress";
import { readReleases } from "./helm-records";
import type { Releases } from "./helm-records";
import {
  KubeconfigFault,
  Unanswered,
  apiServerSlices,
  ask,
  kubeClient,
  kubeconfigName,
  kubectl,
  statusOf,
  unlessMissing,
} from "./kube";
import { kubernetes } from "./kubernetes";
import { firstLease, movedLease, nextLease } from "./lease/lease";
import type { Claim, Lease, StoredLease } from "./lease/lease";
import { aboutTheWait, asTheVaultSays, leaseStep } from "./lease/rules";
import type { LeaseFacts, LeaseStep } from "./lease/rules";
import { readLease, writeLease } from "./lease/store";
import { isPlanning } from "./planning";
import { isOurs } from "./ours";
import { hasNsupdate } from "./rfc2136";
import { lastServed, servedName, upgradeFault } from "./upgrade";
import { backupPrefix, findUpgradeBackup, webImage } from "./upgrade-backup";
import type { UpgradeBackup } from "./upgrade-backup";
import { bucketFault, bucketTrouble, hasObjects } from "./s3";
import type { BucketKeys } from "./s3";
import { tagOf } from "./status/lines";

/** The keys of the two buckets in clear; they leave this file only inside a signature. */
export interface CheckKeys {
  vault: BucketKeys;
  media: BucketKeys;
}

/** Told of a chart whose repository does not answer, which is no fault. */
type ChartWarning = (chart: string, says: string) => void;
const logged: ChartWarning = (chart, says) => void pulumi.log.warn(`chart ${chart}: ${says}`);

type Report = (key: string, value: unknown, allowed: string, mend: string) => void;

/** Whether a cluster has the stack's database. */
export type DatabaseState = "there" | "missing";

/** Whether a cluster knows the Prometheus operator's resources. */
export type PodMonitorsState = "there" | "missing";

/** What the program must know of the cluster before it says what it wants. */
export interface Found {
  podMonitors: PodMonitorsState;
  /** Whether the cluster's Traefik can take an IPv6 subnet for one client. */
  subnetLimits: SubnetLimits;
  /** Ports at which pods find the API server: the Service's, and those of whoever is behind it. */
  apiServerPorts: number[];
  /** UID of the cluster. */
  clusterUid: string;
  database: DatabaseState;
  /** Name of the database's Cluster, there or to be made. */
  databaseName: string;
  /** How the database that is there began, as its Cluster says. */
  begun?: Bootstrap;
  /** Clusters of earlier generations, which are kept but do not run. */
  former: string[];
  /** The site whose database this one has been following, its own name if it has been writing. */
  primary?: string;
  /** The moment that the database goes back to, or went back to when it was made. */
  restoredTo?: string;
  /** Whether there is a database that a Mastodon has run on, which an upgrade could hurt. */
  installed: "there" | "missing";
  /** The base backup before this version of Mastodon. */
  upgradeBackup: UpgradeBackup;
  /** For each Helm release whose last attempt was killed, what the attempt that makes up for it is described by. */
  killed: Releases["killed"];
  /** Seconds that this site lets pass from its takeover until it begins, as the lease says; undefined without one. */
  leaseWait?: number;
}

/** @throws SettingsError with all faults at once. */
export async function checkSite(settings: Settings, keys: CheckKeys): Promise<Found> {
  // A plan asks no cluster; it shows a site that runs.
  if (isPlanning()) {
    const databaseName = clusterName(settings.generation);
    const moment = restoredTo(undefined, settings);
    return {
      podMonitors: "there",
      subnetLimits: "there",
      apiServerPorts: usualApiPorts,
      clusterUid: settings.cluster.uid ?? "00000000-0000-0000-0000-000000000000",
      database: "there",
      databaseName,
      former: [],
      restoredTo: moment,
      installed: "there",
      upgradeBackup: { name: backupPrefix(databaseName, settings.images.mastodon), upgrade: "past" },
      killed: {},
    };
  }
  const { faults, databases, lease, found } = await lookAround(settings, keys, {
    purpose: "update",
  });
  if (faults.length > 0) throw new SettingsError(settings.site, faults);
  const database = databases?.current === undefined ? "missing" : "there";
  for (const warning of leftOfRestore(settings, { database, step: lease.step })) {
    void pulumi.log.warn(warning);
  }
  if (database === "missing") warnOfCold(settings);
  const databaseName = databases?.name ?? clusterName(settings.generation);
  // Before the lease is taken: a cluster that says no more by now has changed nothing.
  const { killed, ...installation } = await orOneError(settings, async () => {
    const { mastodon, killed } = await readReleases(settings, pulumi.runtime.isDryRun() ? "look" : "forget");
    return {
      killed,
      installed: await hasServed(settings, keys, databases, mastodon),
      upgradeBackup: await findUpgradeBackup(settings, { name: databaseName, state: database }),
    };
  });
  const taken = await takeLease(settings, keys, lease, found.clusterUid);
  for (const release of Object.keys(killed)) {
    void pulumi.log.info(`release ${release}: its last attempt was killed, and the update makes it anew`);
  }
  return {
    ...found,
    ...installation,
    database,
    databaseName,
    begun: databases?.current?.spec.bootstrap,
    former: databases?.former.map(({ metadata }) => metadata.name) ?? [],
    ...(databases?.current?.spec.replica?.primary !== undefined
      ? { primary: databases.current.spec.replica.primary }
      : {}),
    restoredTo: restoredTo(databases?.current, settings),
    killed,
    ...(taken?.activeSite === settings.site ? { leaseWait: taken.wait } : {}),
  };
}

/** @throws SettingsError where the cluster does not answer what is asked */
async function orOneError<T>(settings: Settings, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Unanswered ? new SettingsError(settings.site, unansweredFaults(settings, [error])) : error;
  }
}

/**
 * Whether the database has served, so that an upgrade waits for its base backup. Mastodon's release alone does not tell: a
 * `destroy` takes it and keeps the database, and beside a restored database it may still be the one of the database before.
 * The database's own archive does: a server that has been brought up has a base backup there, and a restore that was
 * interrupted has none yet, and is not to wait for it.
 */
async function hasServed(
  settings: Settings,
  { vault: keys }: CheckKeys,
  databases: Databases | undefined,
  release: Releases["mastodon"],
): Promise<Found["installed"]> {
  if (databases?.current === undefined) return "missing";
  const { vault, site, generation, objectStore } = settings;
  // Nobody outside the cluster can ask a store that is in it, and a backup is soon there.
  if (objectStore === "embedded") return "there";
  if (release === "there" && (await databaseHost(settings)) === hostOf(databases.name)) return "there";
  try {
    // A database that was upgraded in place to another major version of Postgres may be in the next generation already.
    const archive = archiveOf(databases.current) ?? archiveName(site, generation);
    const backup = await newestBaseBackup(vault, keys, archive);
    return backup === undefined ? "missing" : "there";
  } catch {
    // It has answered a moment ago. Who cannot tell waits for a backup, and that asks the same vault.
    return "there";
  }
}

/** The host of the database that the release uses; undefined where there is none. @throws Unanswered */
async function databaseHost({ cluster, namespace }: Settings): Promise<string | undefined> {
  const core = kubeClient(cluster).makeApiClient(kubernetes().CoreV1Api);
  const question = `get configmaps/${environmentName} -n ${namespace}`;
  const map = ask(question, core.readNamespacedConfigMap({ name: environmentName, namespace }));
  return (await map.catch(unlessMissing))?.data?.["DB_HOST"];
}

/**
 * What is left of a restore would speak again, perhaps years later: when the database is begun anew, or when the lease
 * comes to name that cluster once more. Pure.
 */
export function leftOfRestore(
  { restore, site }: Pick<Settings, "restore" | "site">,
  { database, step }: { database: DatabaseState; step: LeaseStep },
): string[] {
  const set = (["to", "from"] as const).filter((key) => restore[key] !== undefined);
  return [
    ...(set.length === 0 || database === "missing"
      ? []
      : [
          `restore.${set.join(", restore.")}: looked at only when a database is made, and there is one; take it out: ${set.map((key) => `pulumi config rm --path homestead:restore.${key} --stack ${site}`).join(", ")}`,
        ]),
    // While the site goes on on another cluster it is what the update goes by.
    ...(restore.oldCluster === undefined || step.kind === "move"
      ? []
      : [
          `restore.oldCluster: nothing to say now, and believed whenever the lease names that cluster and the stack leads to another one; take it out: pulumi config rm --path homestead:restore.oldCluster --stack ${site}`,
        ]),
  ];
}

/** Who has a cold site since it costs nothing should not come to a warm one by an update that was meant for the other. */
function warnOfCold({ role, standby, site }: Settings): void {
  if (role !== "standby" || standby !== "cold") return;
  void pulumi.log.warn(
    `standby: cold, and ${site} has no database: the update makes all that a warm standby has, with a database that follows from then on. Nothing has to be there before it is needed: npx homestead switch ${site} brings it up then`,
  );
}

/**
 * What the checks are made for. `switch`: it sets the generation of a database that begins anew by itself. `handover`: a
 * switch takes the server from here, with an update in maintenance first.
 */
type Purpose = "update" | "look" | "switch" | "handover";

/** How to look. */
interface Looking {
  purpose: Purpose;
  /** The role that the site shall have in the end: a standby that becomes active is to change DNS. @default its own */
  then?: Role;
  /** For who prints warnings in a form of their own. @default Pulumi's log */
  warn?: ChartWarning;
}

/** What an update would refuse, for who only asks: nothing is waited for, and the lease is not taken. */
export async function siteFaults(
  settings: Settings,
  keys: CheckKeys,
  looking: Partial<Looking> & { purpose?: Exclude<Purpose, "update"> } = {},
): Promise<Fault[]> {
  return (await lookAround(settings, keys, { purpose: "look", ...looking })).faults;
}

async function lookAround(
  settings: Settings,
  keys: CheckKeys,
  { purpose, then = settings.role, warn = logged }: Looking,
) {
  const faults: Fault[] = [];
  const report: Report = (key, value, allowed, mend) =>
    faults.push({
      key: `homestead:${key}`,
      value: value === undefined ? "(not set)" : JSON.stringify(value),
      allowed,
      mend,
    });
  const unrunnable = postrenderFault(path.resolve(__dirname, ".."));
  if (unrunnable !== undefined) faults.push(unrunnable);
  const databases = await findDatabases(settings);
  const external = settings.objectStore === "external";
  const cluster = checkCluster(settings, { purpose, database: databases?.current?.metadata.name }, report);
  const [{ ours, uid = "", ...found }, , lease] = await Promise.all([
    cluster,
    Promise.all([checkNsupdate(settings.dns, then, report), checkEgress(settings, report)]),
    external
      ? checkBuckets(settings, keys, report).then(async () =>
          checkLease(settings, keys, { databases, cluster: (await cluster).uid }, report),
        )
      : noLease,
    ...Object.entries(settings.charts).map(([name, chart]) => checkChart(name, chart, report, warn)),
  ]);
  /** For what begins anew. */
  const begins: Report = (key, ...rest) => {
    if (purpose !== "switch" || key !== `generations.${settings.site}`) report(key, ...rest);
  };
  checkStale(settings, ours ? databases : undefined, lease, report, begins);
  const said = (key: string) => faults.some((fault) => fault.key === `homestead:${key}`);
  // On another stack's cluster there is another stack's database.
  if (ours && databases === undefined) {
    const { context } = settings.cluster;
    const look = `${kubectl(settings.cluster)} -n ${settings.namespace} get clusters.postgresql.cnpg.io`;
    report("cluster.context", context, "a cluster that says which databases it has", `${look}; then the same again`);
  }
  if (ours && databases !== undefined) {
    checkMajor(settings, databases, report);
    checkParted(settings, databases, lease, begins);
    const mayWait = () => purpose === "update" && faults.length === 0;
    if (external) await checkArchives(settings, keys, databases, lease, begins, { mayWait, said });
  }
  faults.sort((a, b) => a.key.localeCompare(b.key));
  return { faults, databases, lease, found: { ...found, clusterUid: uid } };
}

// ---------------------------------------------------------------- the lease

/** What the lease says, and what the update is to do to it. */
interface LeaseFound {
  stored: StoredLease | undefined;
  step: LeaseStep;
  /** Names of all archives in the vault. */
  archives: readonly string[];
}
const noLease: LeaseFound = { stored: undefined, step: { kind: "none" }, archives: [] };

async function checkLease(
  settings: Settings,
  { vault: keys }: CheckKeys,
  { databases, cluster }: { databases: Databases | undefined; cluster: string | undefined },
  report: Report,
): Promise<LeaseFound> {
  const { vault, lease, promotionToken, site } = settings;
  if (lease === "none") return noLease;
  let stored: StoredLease | undefined;
  let archives: string[];
  try {
    [stored, archives] = await Promise.all([readLease(vault, keys), archivesIn(vault, keys)]);
  } catch (error) {
    // A bucket that cannot be opened is named by checkBuckets already, in better words.
    if ((await bucketFault(vault, keys)) === undefined) {
      report("vault.bucket", vault.bucket, `a vault whose lease can be read: ${reason(error)}`, "npx homestead status");
    }
    return noLease;
  }
  const database = databases?.current === undefined ? "missing" : "there";
  const keeper = stored !== undefined && stored.lease.cluster === undefined ? await keeperOf(settings) : "knows";
  const { step, faults } = leaseStep(settings, { stored, archives: archives.length > 0, database, cluster, keeper });
  for (const { key, value, allowed, mend } of faults) {
    report(key.replace(/^homestead:/, ""), JSON.parse(value), allowed, mend);
  }
  if (step.kind === "advance" && step.takeover === "planned" && promotionToken !== undefined) {
    const token = await tokenState(promotionToken, settings, keys, databases);
    if ("unreadable" in token) {
      const allowed = `a vault that tells what ${settings.otherSite ?? ""} archived last: ${token.unreadable}`;
      report("vault.bucket", vault.bucket, allowed, "npx homestead status; then the same again");
    }
    if ("fault" in token) {
      const { fault } = token;
      const other = settings.otherSite ?? "";
      report(
        "promotionToken",
        promotionToken,
        `the token of the other site's last demotion: ${fault}`,
        `npx homestead switch ${site}; by hand: pulumi stack output demotionToken --stack ${other}, then: pulumi config set --plaintext homestead:promotionToken <token> --stack ${site}; if that prints nothing, ${other} writes again: set activeSite and epoch back, and hand it over anew (docs/runbooks/switch-by-hand.md)`,
      );
    }
  }
  return { stored, step, archives };
}

/** Of which program the keeper is that runs here. A cluster that does not say is asked by the next update. */
async function keeperOf({ cluster, namespace }: Settings): Promise<LeaseFacts["keeper"]> {
  try {
    const apps = kubeClient(cluster).makeApiClient(kubernetes().AppsV1Api);
    const valkey = apps.readNamespacedStatefulSet({ name: "valkey", namespace });
    const { spec } = await ask(`get statefulsets.apps/valkey -n ${namespace}`, valkey);
    if (spec?.replicas === 0) return "none";
    const keeper = spec?.template.spec?.containers.find(({ name }) => name === "keeper");
    return keeper?.env?.some(({ name }) => name === "CLUSTER") ? "knows" : "older";
  } catch (error) {
    return statusOf(error) === 404 ? "none" : "older";
  }
}

/** What speaks against a token. A vault that does not say leaves it untold whether the token is stale: then it is not used. */
async function tokenState(
  promotionToken: string,
  settings: Settings,
  keys: BucketKeys,
  databases: Databases | undefined,
): Promise<{ fault: string } | { unreadable: string } | Record<string, never>> {
  if (databases !== undefined && databases.current === undefined) {
    return { fault: "there is no database here that it could promote" };
  }
  try {
    const fault = tokenFault(promotionToken, databases?.current, await archivedTimeline(settings, keys));
    return fault === undefined ? {} : { fault };
  } catch (error) {
    return { unreadable: reason(error) };
  }
}

/** Timeline of the newest WAL that the other site has archived; undefined if there is none. @throws Error when the vault does not say */
async function archivedTimeline({ vault, otherSite, generations }: Settings, keys: BucketKeys) {
  if (otherSite === undefined) return undefined;
  const archive = archiveName(otherSite, generations[otherSite] ?? 1);
  const newest = await newestSegment(vault, keys, archive);
  return newest && timelineOf(newest.name);
}

/**
 * The lease is taken before the first resource: from here on no other site may federate.
 *
 * @returns the lease as it is then
 */
async function takeLease(
  settings: Settings,
  { vault: keys }: CheckKeys,
  { stored, step }: LeaseFound,
  cluster: string,
): Promise<Lease | undefined> {
  if (step.kind === "none") return stored?.lease;
  const { vault, site, epoch, fingerprint, leaseGrace } = settings;
  if (site === "dev") return undefined;
  const claim = { site, epoch, cluster, fingerprint };
  const lease = leaseAfter(step, stored, claim, leaseGrace);
  if (pulumi.runtime.isDryRun()) {
    const how = step.kind === "move" ? `on this cluster, UID ${cluster}` : step.takeover;
    void pulumi.log.info(`the update will write the site lease: ${site} is active, epoch ${epoch} (${how})`);
    if (step.kind === "move" && step.how === "moved") {
      void pulumi.log.info(aboutTheWait(settings, stored?.lease ?? {}, lease.wait));
    }
    return lease;
  }
  try {
    await writeLease(vault, keys, lease, stored);
  } catch (error) {
    throw new SettingsError(site, [
      {
        key: "homestead:vault.bucket",
        value: JSON.stringify(vault.bucket),
        allowed: `a vault whose lease can be written: ${reason(error)}`,
        mend: "npx homestead status, then the same update again",
      },
    ]);
  }
  const named = stored?.lease.cluster;
  const former = `the cluster that ${site} had${named === undefined ? "" : ` (UID ${named})`}`;
  void pulumi.log.info(
    lease.wait > 0
      ? `the site lease is ${site}'s, epoch ${epoch}; Valkey begins when ${step.kind === "move" ? former : "the other site"} has stopped for certain, in ${lease.wait} s`
      : `the site lease is ${site}'s, epoch ${epoch}`,
  );
  return lease;
}

function leaseAfter(
  step: Exclude<LeaseStep, { kind: "none" }>,
  stored: StoredLease | undefined,
  claim: Claim,
  grace: number,
): Lease {
  const writer = crypto.randomUUID();
  if (step.kind === "create") return { ...firstLease(claim, grace, writer), takeover: step.takeover };
  if (stored === undefined) throw new Error("there is no lease to go on from");
  return step.kind === "move"
    ? movedLease(stored, claim, step.how, grace, writer)
    : nextLease(stored, claim, step.takeover, grace, writer);
}

/** `ours`: whether this is the stack's own cluster, as far as can be told. */
interface ClusterFound extends Pick<Found, "podMonitors" | "subnetLimits" | "apiServerPorts"> {
  ours: boolean;
  uid?: string;
}
/** Of the Service `kubernetes`, and of nearly every API server behind it. */
const usualApiPorts = [443, 6443];
const noCluster: ClusterFound = {
  ours: false,
  podMonitors: "missing",
  subnetLimits: "missing",
  apiServerPorts: usualApiPorts,
};

async function checkCluster(settings: Settings, of: UpgradeOf, report: Report): Promise<ClusterFound> {
  const { cluster, site } = settings;
  let config: k8s.KubeConfig;
  try {
    config = kubeClient(cluster);
  } catch (error) {
    if (!(error instanceof KubeconfigFault)) throw error;
    const [value, allowed] =
      error.key === "kubeconfig"
        ? [kubeconfigName(cluster), "a kubeconfig that can be read"]
        : [cluster.context, "a context that is there"];
    report(`cluster.${error.key}`, value, `${allowed}: ${reason(error)}`, error.mend(site));
    return noCluster;
  }
  const core = config.makeApiClient(kubernetes().CoreV1Api);
  const reader = new DoctorCluster(config, settings);
  const unanswered: Unanswered[] = [];
  /** What is not said keeps nothing else from being asked: all that a user has no right to comes out at once. */
  const answer = async <T>(work: Promise<T>): Promise<T | undefined> => {
    try {
      return await work;
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      unanswered.push(error);
      return undefined;
    }
  };
  const tell = () => {
    for (const { allowed, mend } of unansweredFaults(settings, unanswered)) {
      report("cluster.context", cluster.context, allowed, mend);
    }
  };
  const system = await answer(ask("get namespaces/kube-system", core.readNamespace({ name: "kube-system" })));
  const uid = system?.metadata?.uid;
  // One that does not answer would only be waited for again, and one that does not know us says no to everything.
  if (unanswered.some(({ status }) => status !== 403)) {
    tell();
    return noCluster;
  }
  if (cluster.uid !== undefined && uid !== undefined && cluster.uid !== uid) {
    report(
      "cluster.uid",
      cluster.uid,
      `the UID of the cluster behind context '${cluster.context}', which is ${uid}: this is another cluster`,
      `choose this stack's own cluster, or, if the cluster was built anew: pulumi config set --path homestead:cluster.uid ${uid} --stack ${site}`,
    );
  }
  const definitions = await answer(reader.definitions());
  const [ours, apiServerPorts] = await Promise.all([
    answer(checkMarker(core, settings, report)),
    answer(checkApiServer(config, core, settings, report)),
    answer(checkPlugin(config.makeApiClient(kubernetes().AppsV1Api), settings, report)),
    answer(checkUpgrade(config, settings, of, report)),
    answer(checkStorageClasses(config.makeApiClient(kubernetes().StorageV1Api), settings, report)),
    ...(definitions === undefined
      ? []
      : [
          answer(checkOperators(reader, core, definitions, settings, report)),
          answer(checkIssuer(reader, definitions, settings, report)),
        ]),
  ]);
  tell();
  if (definitions === undefined || ours === undefined || apiServerPorts === undefined) return noCluster;
  checkTraefik(definitions, report);
  const podMonitors = prometheusOperator.every((name) => definitions.has(name)) ? "there" : "missing";
  return {
    ours,
    ...(uid === undefined ? {} : { uid }),
    podMonitors,
    subnetLimits: subnetLimits(definitions),
    apiServerPorts,
  };
}

/**
 * What the cluster did not say: what its user may not, as one fault, and that it does not answer, as another. The first
 * answer stands for the rest, which are of a kind.
 */
function unansweredFaults(
  { cluster, site }: Pick<Settings, "cluster" | "site">,
  unanswered: readonly Unanswered[],
): Fault[] {
  const sorted = [...unanswered].sort((a, b) => a.question.localeCompare(b.question));
  const isRefused = ({ status }: Unanswered) => status === 401 || status === 403;
  const [refused] = sorted.filter(isRefused);
  const [silent] = sorted.filter((one) => !isRefused(one));
  const questions = [...new Set(sorted.filter(isRefused).map(({ question }) => question))];
  const fault = (allowed: string, mend: string): Fault => ({
    key: "homestead:cluster.context",
    value: JSON.stringify(cluster.context),
    allowed,
    mend,
  });
  const look = questions.map((question) => `${kubectl(cluster)} auth can-i ${question}`).join("; ");
  return [
    ...(refused === undefined
      ? []
      : [
          fault(
            `a context whose user may do what an update does, as cluster-admin may: this one's may not ${questions.join(", nor ")} (the cluster answers ${refused.says})`,
            `give its user the right (${look}), or: pulumi config set --path homestead:cluster.context <context> --stack ${site}`,
          ),
        ]),
    ...(silent === undefined
      ? []
      : [
          fault(
            `a cluster that answers (${silent.question}: ${silent.says})`,
            `${kubectl(cluster)} get namespaces; then the same again`,
          ),
        ]),
  ];
}

/** Another stack's cluster says so on our namespace. @returns whether it is ours, or nobody's yet */
async function checkMarker(
  core: k8s.CoreV1Api,
  { namespace, site, cluster }: Settings,
  report: Report,
): Promise<boolean> {
  const own = await ask(`get namespaces/${namespace}`, core.readNamespace({ name: namespace })).catch(unlessMissing);
  if (own === undefined) return true;
  const marker = own.metadata?.labels?.["homestead/site"];
  if (marker === site) return true;
  report(
    "cluster.context",
    cluster.context,
    `this stack's own cluster: its namespace '${namespace}' belongs to ${marker === undefined ? "something else" : `site '${marker}'`}`,
    `pulumi config set --path homestead:cluster.context <context of ${site}> --stack ${site}`,
  );
  return false;
}

/**
 * Pods must reach the API server through our policies, which can name it by address only.
 * @returns the ports at which they find it
 */
async function checkApiServer(
  config: k8s.KubeConfig,
  core: k8s.CoreV1Api,
  { cluster }: Settings,
  report: Report,
): Promise<number[]> {
  const [slices, ciliums] = await Promise.all([
    ask("list endpointslices.discovery.k8s.io -n default", apiServerSlices(config)),
    ask("list configmaps -A", core.listConfigMapForAllNamespaces({ fieldSelector: "metadata.name=cilium-config" })),
  ]);
  const behind = slices.flatMap(({ ports }) => (ports ?? []).flatMap(({ port }) => port ?? []));
  const apiServerPorts = [...new Set([...usualApiPorts, ...behind])].sort((a, b) => a - b);

  const [cilium] = ciliums.items;
  if (cilium === undefined || /\bnodes\b/.test(cilium.data?.["policy-cidr-match-mode"] ?? "")) return apiServerPorts;
  const servers = slices.flatMap(({ endpoints }) => (endpoints ?? []).flatMap(({ addresses }) => addresses));
  const nodes = (await ask("list nodes", core.listNode())).items.flatMap(({ status }) => status?.addresses ?? []);
  // Elsewhere, as with a cloud's own control plane, an address means what it says.
  if (!nodes.some(({ address }) => servers.includes(address))) return apiServerPorts;
  const inCilium = `${kubectl(cluster)} -n ${cilium.metadata?.namespace ?? "kube-system"}`;
  report(
    "network",
    "Cilium",
    "Cilium with policyCIDRMatchMode nodes: without it addresses in a policy mean no node, and the API server is on one, where neither the operators nor the database would reach it (cilium#20550)",
    `set policyCIDRMatchMode to nodes where Cilium was installed from, or at once: ${inCilium} patch configmap cilium-config --type merge -p '{"data":{"policy-cidr-match-mode":"nodes"}}', then ${inCilium} rollout restart daemonset cilium`,
  );
  return apiServerPorts;
}

async function checkStorageClasses(storage: k8s.StorageV1Api, settings: Settings, report: Report): Promise<void> {
  const classes = (await ask("list storageclasses.storage.k8s.io", storage.listStorageClass())).items;
  const known = classes.map((c) => c.metadata?.name ?? "");
  const { databases } = settings.storage;
  const provisioner = classes.find(({ metadata }) => metadata?.name === databases)?.provisioner;
  if (settings.search.kind !== "off" && provisioner !== undefined && /nfs/i.test(provisioner)) {
    report(
      "search.kind",
      settings.search.kind,
      `off, since the storage class '${databases}' is NFS (${provisioner}): ${whyNotOnNfs}`,
      `pulumi config rm homestead:search --stack ${settings.site}`,
    );
  }
  for (const use of ["databases", "media"] as const) {
    const wanted = settings.storage[use];
    if (wanted !== undefined && !known.includes(wanted)) {
      report(
        `storage.${use}`,
        wanted,
        `a storage class of the cluster: ${known.join(", ") || "it has none"}`,
        `pulumi config set --path homestead:storage.${use} <class> --stack ${settings.site}`,
      );
    }
  }
}

/** What an upgrade is looked at for, and the database that there is, by its name. */
interface UpgradeOf {
  purpose: Purpose;
  database: string | undefined;
}

/** What runs decides which version may come next; after a `destroy`, which keeps the database, what ran on that one last. */
async function checkUpgrade(
  config: k8s.KubeConfig,
  settings: Settings,
  { purpose, database }: UpgradeOf,
  report: Report,
): Promise<void> {
  const { namespace, images, site, otherSite = "", role, promotionToken } = settings;
  const maintenance = purpose === "handover" ? "web" : settings.maintenance;
  const set = `set the version in versions.ts, or: pulumi config set --path homestead:images.mastodon <image> --stack ${site}`;
  // A takeover does not wait for the base backup that an upgrade needs.
  const busy =
    promotionToken !== undefined
      ? {
          does: "takes over",
          mend: `${set}; if it has taken over, and its database writes (npx homestead status ${site}): pulumi config rm homestead:promotionToken --stack ${site}`,
        }
      : purpose === "handover"
        ? { does: "is handed over", mend: `pulumi up --stack ${site}; or ${set}` }
        : maintenance !== "off"
          ? { does: "is in maintenance", mend: set }
          : undefined;
  try {
    const question = `get deployments.apps/mastodon-web -n ${namespace}`;
    const apps = config.makeApiClient(kubernetes().AppsV1Api);
    const web = await ask(question, apps.readNamespacedDeployment({ name: "mastodon-web", namespace }));
    // What a standby's Deployment of no pods says is what was pulled here, not what the server runs.
    const standsBy =
      web.spec?.replicas === 0 && maintenance === "off" && (role === "standby" || promotionToken !== undefined);
    const running = standsBy ? undefined : webImage(web);
    const fault =
      running === undefined || running === images.mastodon
        ? undefined
        : busy === undefined
          ? upgradeFault(running, images.mastodon)
          : `${running}, the version this site has, while it ${busy.does}: first the one, then the other`;
    if (fault !== undefined) report("images.mastodon", images.mastodon, fault, busy?.mend ?? set);
  } catch (error) {
    if (statusOf(error) !== 404) throw error;
    if (role !== "active") return;
    if (purpose === "handover") {
      report(
        "images.mastodon",
        images.mastodon,
        "a Mastodon that is there, and can be stopped before the server is handed over: its first install never came to its end",
        `pulumi up --stack ${site}; if that does not succeed, the site can be given up: npx homestead switch ${otherSite} --lost, which says what is lost`,
      );
    } else if (maintenance !== "off") {
      report(
        "maintenance",
        maintenance,
        "off, while there is no Mastodon here yet: its schema is made without maintenance",
        `pulumi config rm homestead:maintenance --stack ${site}`,
      );
    }
    if (database === undefined) return;
    const core = config.makeApiClient(kubernetes().CoreV1Api);
    const read = core.readNamespacedConfigMap({ name: servedName, namespace });
    const note = await ask(`get configmaps/${servedName} -n ${namespace}`, read).catch(unlessMissing);
    const last = lastServed(note?.data, { database, epoch: settings.epoch });
    const fault = last === undefined ? undefined : upgradeFault(last, images.mastodon, { now: "ran last" });
    if (fault !== undefined) report("images.mastodon", images.mastodon, fault, set);
  }
}

/** What monitoring asks of the Prometheus operator; all of it comes with the operator. */
const prometheusOperator = ["alertmanagerconfigs", "podmonitors", "prometheusrules"].map(
  (plural) => `${plural}.monitoring.coreos.com`,
);

/** Traefik must be there, since we do not bring it. */
function checkTraefik(definitions: Definitions, report: Report): void {
  const definition = "ingressroutes.traefik.io";
  if (definitions.has(definition)) return;
  report(
    "ingress",
    "Traefik",
    `Traefik with its custom resources (k3s brings it); there is no definition ${definition}`,
    "install Traefik: https://doc.traefik.io/traefik/getting-started/kubernetes/",
  );
}

/** Namespaces that an install makes. */
const operatorNamespaces: Partial<Record<OperatorName, string>> = {
  certManager: "cert-manager",
  cloudNativePg: cnpgNamespace,
};

/** One that is to be installed must not be there as somebody else's, and one that is to be there must be more than its definitions. */
async function checkOperators(
  reader: DoctorCluster,
  core: k8s.CoreV1Api,
  definitions: Definitions,
  settings: Settings,
  report: Report,
): Promise<void> {
  const { operators, site, cluster } = settings;
  const found = await reader.operators(definitions);
  const check = async (name: OperatorName) => {
    const { title, definition } = operatorMarks[name];
    const { deployment, called, ours } = found[name];
    const choose = (choice: string) => `pulumi config set --path homestead:operators.${name} ${choice} --stack ${site}`;
    const fault = (allowed: string, mend: string) => report(`operators.${name}`, operators[name], allowed, mend);
    if (operators[name] === "existing") {
      const wanted = `${title} in the cluster`;
      if (!definitions.has(definition)) fault(`${wanted}; there is no definition ${definition}`, choose("install"));
      else if (!called) {
        const look = `${kubectl(cluster)} get deployments -A`;
        fault(
          `${wanted}; its definitions are there, as a destroy leaves them, and no Deployment`,
          `${choose("install")} (${look})`,
        );
      }
      return;
    }
    if (deployment !== undefined && !ours) {
      const there = `${tagOf(deployment.image)} in namespace '${deployment.namespace}'`;
      fault(
        `existing: somebody else installed ${title} ${there}, and an install would collide with it`,
        mendOfInstalled(name, settings, deployment),
      );
      return;
    }
    const namespace = operatorNamespaces[name];
    if (namespace !== undefined && (await isTaken(core, namespace))) {
      const mend = `if nothing in it is needed: ${kubectl(cluster)} delete namespace ${namespace}; if ${title} is: ${choose("existing")}`;
      fault(
        `a cluster without a namespace '${namespace}' of somebody else's, which an install would collide with`,
        mend,
      );
    }
  };
  await Promise.all((Object.keys(operatorMarks) as OperatorName[]).map(check));
}

/** Whether a namespace is there that no stack of this project has made. */
async function isTaken(core: k8s.CoreV1Api, name: string): Promise<boolean> {
  const found = await ask(`get namespaces/${name}`, core.readNamespace({ name })).catch(unlessMissing);
  return found !== undefined && !isOurs(found);
}

/** An issuer of one's own that is not there would be waited for, for a quarter of an hour. */
async function checkIssuer(
  reader: DoctorCluster,
  definitions: Definitions,
  settings: Settings,
  report: Report,
): Promise<void> {
  const { certificates, cluster, namespace, site } = settings;
  // Where cert-manager is yet to come, or the namespace, so is what would be in it.
  if (certificates.kind !== "issuer" || !definitions.has(operatorMarks.certManager.definition)) return;
  const namespaced = certificates.issuerKind === "Issuer";
  if (namespaced && (await reader.identity()).namespace === "missing") return;
  if ((await reader.issuer(issuerOf(settings))).state !== "missing") return;
  const list = `${kubectl(cluster)} ${namespaced ? `-n ${namespace} get issuers` : "get clusterissuers"}`;
  report(
    "certificates.name",
    certificates.name,
    `the name of ${namespaced ? `an Issuer in namespace '${namespace}'` : "a ClusterIssuer of the cluster"}; there is none of this name`,
    `${list}, then make it, or: pulumi config set --path homestead:certificates.name <name> --stack ${site}`,
  );
}

/** CloudNativePG finds its plugin only in its own namespace, and an operator that was there before us has one of its own. */
async function checkPlugin(apps: k8s.AppsV1Api, { operators, site }: Settings, report: Report): Promise<void> {
  if (operators.cloudNativePg !== "existing" || operators.barmanPlugin !== "install") return;
  const labelSelector = "app.kubernetes.io/name=cloudnative-pg";
  const deployments = ask("list deployments.apps -A", apps.listDeploymentForAllNamespaces({ labelSelector }));
  const [operator] = (await deployments).items;
  const namespace = operator?.metadata?.namespace ?? cnpgNamespace;
  if (namespace === cnpgNamespace) return;
  report(
    "operators.barmanPlugin",
    "install",
    `existing, in namespace '${namespace}', where CloudNativePG is: installed it would be in '${cnpgNamespace}', and not be found`,
    `install the plugin in ${namespace} (https://cloudnative-pg.io/plugin-barman-cloud/docs/installation), then: pulumi config set --path homestead:operators.barmanPlugin existing --stack ${site}`,
  );
}

async function checkBuckets(settings: Settings, keys: CheckKeys, report: Report): Promise<void> {
  const { vault, media } = settings;
  const buckets = [["vault", vault] as const, ...(media.kind === "volume" ? [] : [["media", media] as const])];
  for (const [name, bucket] of buckets) {
    const trouble = await bucketTrouble(bucket, keys[name]);
    if (trouble === undefined) continue;
    const stack = `--stack ${settings.site}`;
    const set = (key: string, value: string) => `pulumi config set --path homestead:${name}.${key} ${value} ${stack}`;
    if (trouble.kind === "unreachable") {
      const allowed = `a server that answers: ${trouble.says}`;
      report(
        `${name}.endpoint`,
        bucket.endpoint,
        allowed,
        `look at the line and at DNS, or: ${set("endpoint", "<url>")}`,
      );
      continue;
    }
    const mend =
      trouble.kind === "keys"
        ? `give keys that may use it: pulumi config set --secret homestead:${name}AccessKeyId ${stack}, and ${name}SecretAccessKey`
        : `make the bucket, or: ${set("bucket", "<bucket>")}`;
    report(`${name}.bucket`, bucket.bucket, `a bucket that the ${name} keys open: ${trouble.says}`, mend);
  }
  if (media.kind === "volume" && (await bucketFault(vault, keys.vault)) === undefined) {
    try {
      await hasObjects(vault, keys.media, copyPrefix);
    } catch (error) {
      report(
        "media.kind",
        media.kind,
        `media keys that open ${copyPrefix} in the vault, where the volume's copy is kept: ${reason(error)}`,
        `the vault's own keys will do: pulumi config set --secret homestead:mediaAccessKeyId --stack ${settings.site}, and mediaSecretAccessKey`,
      );
    }
  }
}

/** What this machine reaches the pods may not: an update would wait for a Valkey that cannot read the lease. */
async function checkEgress(settings: Settings, report: Report): Promise<void> {
  const { network, site } = settings;
  const servers = await Promise.all(
    serversOf(settings).map(async (server) => {
      const addresses = await addressesOf(server.host);
      const usable = reachable(addresses, network.families);
      return { ...server, addresses, usable, missing: missingRanges(usable, network[server.list]) };
    }),
  );
  const isName = ({ host }: { host: string }) => net.isIP(host) === 0;
  for (const server of servers.filter(({ addresses, usable }) => addresses.length > 0 && usable.length === 0)) {
    const { key, value, what, addresses } = server;
    const wanted = `at an address of the cluster's families (network.families: ${network.families.join(", ")}) that is none of a machine's own (loopback, link-local) and no cloud's metadata server`;
    // A name may say something else to the pods, but for `localhost` and those below it (RFC 6761).
    if (isName(server) && !/(^|\.)localhost$/.test(server.host)) {
      void pulumi.log.warn(
        `${key}: ${what} is at ${addresses.join(", ")} as this machine's DNS or /etc/hosts says; the pods, which ask the cluster's DNS, must find it ${wanted}`,
      );
      continue;
    }
    const [other] = (["IPv4", "IPv6"] as const).filter(
      (family) => !network.families.includes(family) && reachable(addresses, [family]).length > 0,
    );
    report(
      key,
      value,
      `a server that pods can reach, ${wanted}; ${what} is at ${addresses.join(", ")}`,
      `pulumi config set --path homestead:${key} ${key === "smtp.host" ? "<host>" : "<url>"} --stack ${site}` +
        (other ? `, or, where the cluster has ${other}, name it in network.families in Pulumi.${site}.yaml` : ""),
    );
  }
  const clients = { privateEgress: "the pods that talk to the vault", mastodonPrivateEgress: "Mastodon" } as const;
  for (const list of ["privateEgress", "mastodonPrivateEgress"] as const) {
    const closed = servers.filter((server) => server.list === list && server.missing.length > 0);
    if (closed.length === 0) continue;
    const ranges = [...new Set(closed.flatMap(({ missing }) => missing))];
    const set = ranges.map(
      (range, i) =>
        `pulumi config set --path 'homestead:network.${list}[${network[list].length + i}]' ${range} --stack ${site}`,
    );
    report(
      `network.${list}`,
      network[list],
      `a list with ${ranges.join(", ")}, or with a range around it: ${closed.map(({ what }) => what).join(" and ")} ${closed.length === 1 ? "is" : "are"} there, and the network policies let ${clients[list]} reach no private address that this list does not name`,
      `${set.join(", then: ")}${closed.some(isName) ? "; a name's address is what this machine's DNS says: the pods' own may say a public one, and then the range is not needed, and does no harm" : ""}`,
    );
  }
}

/** A program that is missing would be noticed only at the update's very end. */
async function checkNsupdate(dns: Settings["dns"], role: Role, report: Report): Promise<void> {
  if (dns.kind !== "rfc2136" || role !== "active" || (await hasNsupdate())) return;
  report(
    "dns.kind",
    dns.kind,
    "nsupdate on this machine's PATH, which makes the update",
    "apt-get install bind9-dnsutils (Debian, Ubuntu), brew install bind (macOS)",
  );
}

/**
 * An archive is never written over: a database that is yet to be made needs an archive of its own that is empty, and,
 * unless it is the first of all, one to begin from.
 */
async function checkArchives(
  settings: Settings,
  keys: CheckKeys,
  { current }: Databases,
  { archives, step }: LeaseFound,
  report: Report,
  /** Waiting is for who has nothing to mend; `said`: whether a key has its fault already. */
  { mayWait, said }: { mayWait: () => boolean; said: (key: string) => boolean },
): Promise<void> {
  const { site, role, generation, beginning, vault } = settings;
  if (current !== undefined || [`generations.${site}`, "cluster.context", "restore.from"].some(said)) return;
  const filled = (archive: string) => hasObjects(vault, keys.vault, `pg/${archive}/`);
  const last = Math.max(generation, newestGeneration(site, archives));
  const own = archiveName(site, last);
  try {
    if (last > generation || (await filled(own))) {
      report(
        `generations.${site}`,
        generation,
        `${last + 1}: this cluster has no database, but the vault holds its archive ${own}, which is never written over`,
        step.kind === "advance"
          ? `to begin with what ${step.from.activeSite} wrote, set generations.${site} to ${last + 1} in Pulumi.yaml and run: pulumi up --refresh --run-program --stack ${site}`
          : `to restore from it, set generations.${site} to ${last + 1} in Pulumi.yaml and run: pulumi up --refresh --run-program --stack ${site} (docs/runbooks/lost-disk.md)`,
      );
      return;
    }
    if (beginning.kind !== "recovery") return;
    const before = newestGeneration(site, archives);
    // A word in a token's place continues the other site's archive. Without a lease it says no more than that nobody else runs.
    if (step.kind === "create" && settings.restore.from === undefined && beginning.site !== site && before > 0) {
      const newest = archiveName(site, before);
      report(
        "restore.from",
        undefined,
        `the archive of the site that was active last: there is no lease to say which that was, ${beginning.archive} is the other site's, and ${newest} is this site's own newest`,
        `pulumi config set --path homestead:restore.from ${newest} --stack ${site} (or ${beginning.archive}, if ${beginning.site} was active last), and when the server is back: pulumi config rm homestead:restore --stack ${site}`,
      );
      return;
    }
    const backup = await newestBaseBackup(vault, keys.vault, beginning.archive);
    if (backup !== undefined) {
      checkMajorOf(settings, backup, report);
      return await checkMoment(settings, keys, report);
    }
    // An archive that is being written gets its first base backup by itself: a standby has time.
    if (role === "standby" && (await filled(beginning.archive))) {
      if (!mayWait() || (await baseBackupComes(settings, keys, report))) return;
    }
    report(
      "restore.from",
      settings.restore.from,
      `an archive with a base backup: ${beginning.archive}, which this database would begin from, has none in bucket '${vault.bucket}'`,
      `name another (pulumi config set --path homestead:restore.from <archive> --stack ${site}), or wait for the first base backup of ${beginning.site}`,
    );
  } catch (error) {
    // An archive that is not seen would be written over.
    if (said("vault.bucket")) return;
    report(
      "vault.bucket",
      vault.bucket,
      `a vault that says which archives it has (${reason(error)})`,
      "npx homestead doctor, then the same again",
    );
  }
}

/**
 * A moment that the archive does not reach would be noticed when the old database is gone: Postgres replays all there is,
 * and ends with "recovery ended before configured recovery target was reached". It stops at the first transaction after the
 * moment, and no transaction is later than the arrival of the newest segment. That one came is not to be known from here:
 * after the last post there may be none.
 */
async function checkMoment({ site, beginning, vault }: Settings, keys: CheckKeys, report: Report): Promise<void> {
  if (beginning.kind !== "recovery" || beginning.to === undefined) return;
  const { archive } = beginning;
  const [oldest, newest] = await Promise.all([
    oldestBaseBackup(vault, keys.vault, archive),
    newestSegment(vault, keys.vault, archive),
  ]);
  const now = new Date();
  const [from, to, until] = [oldest?.endedAt ?? now, new Date(beginning.to), newest?.archivedAt ?? now];
  if (from <= to && to < until) return;
  const set = `pulumi config set --path homestead:restore.to <moment> --stack ${site}`;
  report(
    "restore.to",
    beginning.to,
    `a moment between ${from.toISOString()}, when the oldest base backup in ${archive} ended, and ${until.toISOString()}, when its newest WAL came, which the last transaction in it is older than`,
    to < from
      ? `${set}, or name the archive that has it: pulumi config set --path homestead:restore.from <archive> --stack ${site}`
      : `for all there is: pulumi config rm --path homestead:restore.to --stack ${site}; for less: ${set}; or name the archive that was written later: pulumi config set --path homestead:restore.from <archive> --stack ${site}`,
  );
}

/** Files of another major version would be fetched, for as long as the line takes, and then not be read. */
function checkMajorOf(
  { site, images, beginning }: Settings,
  { major }: Pick<BaseBackup, "major">,
  report: Report,
): void {
  const wanted = majorOf(images.postgres);
  if (beginning.kind !== "recovery" || major === undefined || wanted === undefined || major === wanted) return;
  report(
    "images.postgres",
    images.postgres,
    `a release of Postgres ${major}, of which the base backups in ${beginning.archive} are: no other major version reads their files`,
    `set postgres in versions.ts to the one that ran (git history; pulumi stack output images --stack ${site}), and upgrade when the database is there (docs/runbooks/upgrade.md)`,
  );
}

/** Waits for the first base backup that a standby begins from, half an hour at most. A preview does not wait. */
async function baseBackupComes(settings: Settings, { vault: keys }: CheckKeys, report: Report): Promise<boolean> {
  const { beginning, vault } = settings;
  if (beginning.kind !== "recovery") return false;
  if (pulumi.runtime.isDryRun()) {
    void pulumi.log.warn(`the archive ${beginning.archive} has no base backup yet: the update will wait for it`);
    return true;
  }
  void pulumi.log.info(`waiting for the first base backup in the archive ${beginning.archive}`);
  const end = Date.now() + 1800 * 1000;
  while (Date.now() < end) {
    const backup = await newestBaseBackup(vault, keys, beginning.archive);
    if (backup !== undefined) {
      checkMajorOf(settings, backup, report);
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 5000));
  }
  return false;
}

/**
 * A clone that has not seen a database begin anew would put the one that lives to sleep, or begin from an archive that is
 * history. The vault knows the newest generation of both sites, and the cluster that of its own.
 *
 * @param databases undefined where the cluster does not say
 * @param begins for a number that a switch sets by itself
 */
function checkStale(
  settings: Settings,
  databases: Databases | undefined,
  { archives, step }: LeaseFound,
  report: Report,
  begins: Report,
): void {
  const { site, otherSite, generation, generations } = settings;
  const behind = (name: StackName, newest: number, where: string) =>
    report(
      `generations.${name}`,
      generations[name] ?? 1,
      `${newest}: ${where} the archive ${archiveName(name, newest)}, which was begun later`,
      asTheVaultSays(name, newest),
    );
  const others = otherSite === undefined ? 0 : newestGeneration(otherSite, archives);
  if (otherSite !== undefined && others > (generations[otherSite] ?? 1)) behind(otherSite, others, "the vault holds");
  const inVault = newestGeneration(site, archives);
  if (databases === undefined) {
    if (inVault > generation) behind(site, inVault, "the vault holds");
    return;
  }
  const all = [...databases.former, ...(databases.current === undefined ? [] : [databases.current])];
  const here = newestGeneration(
    site,
    all.flatMap((object) => archiveOf(object) ?? []),
  );
  if (here > generation && here >= inVault) behind(site, here, "this cluster has the database that writes");
  else if (here > 0) checkPresent(settings, databases, { here, inVault, step }, report, begins);
}

/** Whether the database that the stack means is the one that the cluster has, and awake. */
function checkPresent(
  settings: Settings,
  { current, former }: Databases,
  { here, inVault, step }: { here: number; inVault: number; step: LeaseStep },
  report: Report,
  begins: Report,
): void {
  const { site, role, generation, beginning, restore, cluster, namespace } = settings;
  const { context } = cluster;
  const last = archiveName(site, here);
  const newest = archiveName(site, inVault);
  const anew = "begin the database anew from the vault: docs/runbooks/lost-disk.md";
  const raised = current === undefined && generation > Math.max(here, inVault);
  if (role === "active" && raised && former.every((object) => servesNobody(object, settings, step))) {
    const source = beginning.kind === "recovery" && restore.from === undefined ? beginning.archive : undefined;
    const asleep = former.find((object) => archiveOf(object) === source);
    if (source === undefined || asleep === undefined) return;
    report(
      "restore.from",
      undefined,
      `the archive to begin from: ${source} is that of ${asleep.metadata.name}, which sleeps here, and another database may have gone on since`,
      `name the archive that was written last (pulumi config set --path homestead:restore.from <archive> --stack ${site}), and take it out again afterwards`,
    );
  } else if (inVault > here && role === "active") {
    report(
      "cluster.context",
      context,
      `the cluster whose database writes the archive ${newest}: the one here writes ${last}, which was begun before`,
      `name that cluster; if it is gone, ${step.kind === "advance" ? anewFirst(site, inVault + 1, step) : anew}`,
    );
  } else if (inVault > here && inVault > generation) {
    const another = current === undefined || current.spec.replica?.primary === site;
    (another ? begins : report)(
      `generations.${site}`,
      generation,
      `${inVault + 1}: the vault holds the archive ${newest}, whose database is not on this cluster, and an archive is never written over`,
      `set generations.${site} to ${inVault + 1} in Pulumi.yaml: the database here is begun anew, and the old one is kept`,
    );
  } else if (current === undefined && role === "active") {
    // A database that federates keeps its archive: another one would lack the base backup that its WAL is replayed onto,
    // and who raises the number hopes for a restore that would not come. A standby's is begun anew beside the old one.
    begins(
      `generations.${site}`,
      generation,
      `${here}: this cluster has a database already, which writes the archive ${last}`,
      // A takeover with the number set back would be one by a database of which nobody knows what it lacks.
      step.kind === "advance"
        ? anewFirst(site, generation, step)
        : `set generations.${site} back to ${here} in Pulumi.yaml; to ${anew}`,
    );
  } else if (current !== undefined && isAsleep(current)) {
    const { name } = current.metadata;
    report(
      "cluster.context",
      context,
      `a cluster whose database is awake: ${name} is hibernated, and an update would wait for it in vain`,
      `${kubectl(cluster)} -n ${namespace} annotate clusters.postgresql.cnpg.io ${name} cnpg.io/hibernation-; then the same again`,
    );
  }
}

/** A takeover promotes the database that is there: one beside an old one is begun before it, and follows first. */
const anewFirst = (site: StackName, generation: number, { from }: Extract<LeaseStep, { kind: "advance" }>): string =>
  `begin it anew before the takeover: set activeSite to ${from.activeSite}, epoch to ${from.epoch} and generations.${site} to ${generation} in Pulumi.yaml, pulumi config rm homestead:promotionToken --stack ${site}, pulumi up --stack ${site}; then the takeover again (docs/runbooks/switch-by-hand.md)`;

/**
 * Whether a former database may have a successor on the active site: it sleeps, or the site takes over from a lost one
 * without it. One that only followed may have followed what was undone; one that wrote serves nobody before the takeover.
 */
function servesNobody(object: DatabaseObject, { site, promotionToken }: Settings, step: LeaseStep): boolean {
  const word = promotionToken === "lost" || promotionToken === "dead";
  return isAsleep(object) || (word && (step.kind === "advance" || object.spec.replica?.primary !== site));
}

/**
 * CloudNativePG upgrades to another major version in place, with no way back. That is meant only where the generation
 * is raised with it, which gives the new version's WAL an archive of its own.
 */
function checkMajor(
  { site, role, generation, images, promotionToken }: Settings,
  { current }: Databases,
  report: Report,
): void {
  const wanted = majorOf(images.postgres);
  const [running, ...more] = current === undefined ? [] : majorsOf(current);
  if (current === undefined || wanted === undefined || running === undefined) return;
  if ([running, ...more].includes(wanted)) return;
  const archive = archiveOf(current) ?? "";
  const older = Number(wanted) < Number(running);
  const follows = role === "standby" || promotionToken !== undefined;
  if (!older && !follows && archive !== archiveName(site, generation)) return;
  const back = `set postgres in versions.ts back to ${running}`;
  const [why, mend] = older
    ? ["its files do not go back to an older major version", back]
    : follows
      ? [
          "a database that only follows cannot be upgraded in place",
          `${back}, or begin it anew (docs/runbooks/upgrade.md)`,
        ]
      : [
          `WAL of two major versions may not share the archive ${archive}`,
          `${back}; to upgrade in place, with no way back, raise generations.${site} to ${generation + 1} in Pulumi.yaml (docs/runbooks/upgrade.md)`,
        ];
  report(
    "images.postgres",
    images.postgres,
    `a release of Postgres ${running}, of which the database '${current.metadata.name}' is: ${why}`,
    mend,
  );
}

/**
 * A database that wrote until another site took over without its token holds rows that the other one has not got, and
 * cannot follow it. Nothing that it has is thrown away: its successor stands beside it.
 */
function checkParted(
  { site, otherSite, role, generation, activeSite, epoch }: Settings,
  { current }: Databases,
  { stored, step, archives }: LeaseFound,
  report: Report,
): void {
  if (current?.spec.replica?.primary !== site) return;
  // Where the vault has no archive of the other one, it took over and never wrote: nothing to lose, nor to begin from.
  if (step.kind === "advance" && otherSite !== undefined && newestGeneration(otherSite, archives) > 0) {
    const active = step.from.activeSite;
    report(
      `generations.${site}`,
      generation,
      `${generation + 1}, before a takeover: ${active} took over while ${site} was lost, and the database here has parted from its; all that ${active} wrote since would be lost`,
      anewFirst(site, generation + 1, step),
    );
  }
  const tookOver = stored?.lease.activeSite === activeSite && stored.lease.epoch === epoch;
  if (role !== "standby" || !tookOver) return;
  report(
    `generations.${site}`,
    generation,
    `${generation + 1}: ${activeSite} took over while ${site} was lost, and the database here has parted from its; the next generation follows it, and the old one is kept`,
    `npx homestead switch ${site} (which brings the server back here), or set generations.${site} to ${generation + 1} in Pulumi.yaml and run: pulumi up --stack ${site}`,
  );
}

/** A clone that was unpacked, or copied, may have lost the right to run a file. Helm would say so when the data is there. */
export function postrenderFault(folder: string, script: string = postrender): Fault | undefined {
  const key = path.normalize(script);
  const allowed =
    "a file that may be run: Helm hands it what Mastodon's chart renders, when all before Mastodon is made";
  const file = path.resolve(folder, script);
  if (!fs.existsSync(file)) return { key, value: "not there", allowed, mend: `git checkout -- ${key}` };
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return undefined;
  } catch {
    return { key, value: "not executable", allowed, mend: `chmod +x ${key}` };
  }
}

/** A chart that is not there would be noticed only after the operators and the data are. */
async function checkChart(name: string, chart: ChartReference, report: Report, warn: ChartWarning): Promise<void> {
  if ("path" in chart) {
    const file = path.resolve(__dirname, "..", chart.path, "Chart.yaml");
    if (!fs.existsSync(file)) report(`charts.${name}.path`, chart.path, "a folder with a Chart.yaml", "check the path");
    return;
  }
  const index = `${chart.repository.replace(/\/$/, "")}/index.yaml`;
  let versions: string[];
  try {
    const response = await fetch(index, { signal: AbortSignal.timeout(30_000) });
    if (!response.ok) throw new Error(`${response.status}`);
    const entries = (parse(await response.text()) as { entries?: Record<string, { version: string }[]> }).entries;
    versions = (entries?.[name] ?? []).map((entry) => entry.version);
  } catch (error) {
    // Not a fault: what runs already needs no chart, and a failover must not wait for a web page.
    warn(name, `${index} does not answer (${reason(error)}); an install or upgrade of it will fail`);
    return;
  }
  if (!versions.includes(chart.version)) {
    report(
      `charts.${name}.version`,
      chart.version,
      `a version in ${index}: ${versions.slice(0, 5).join(", ") || "it has none of this chart"}`,
      `pulumi config rm --path homestead:charts.${name} (back to the one in versions.ts)`,
    );
  }
}
