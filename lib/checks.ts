/**
 * What is asked of the world before the first resource exists, in a preview too: is this the stack's own cluster, and
 * is there what the stack names. All faults come out as one error; nothing has been touched by then.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@kubernetes/client-node";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { copyPrefix } from "../components/media-copy";
import { cnpgNamespace } from "../components/operators";
import type { Fault, Settings } from "../settings";
import { SettingsError, archiveName, whyNotOnNfs } from "../settings";
import type { ChartReference } from "../versions";
import { newestBaseBackup, newestSegment, oldestBaseBackup, timelineOf } from "./archive";
import { archiveOf, clusterName, findDatabases, majorOf, majorsOf, restoredTo, tokenFault } from "./database";
import type { Databases } from "./database";
import { forgetUnfinished } from "./helm-records";
import { KubeconfigFault, kubeClient, kubeconfigName, statusOf } from "./kube";
import { firstLease, nextLease } from "./lease/lease";
import type { StoredLease } from "./lease/lease";
import { leaseStep } from "./lease/rules";
import type { LeaseStep } from "./lease/rules";
import { readLease, writeLease } from "./lease/store";
import { isPlanning } from "./planning";
import { hasNsupdate } from "./rfc2136";
import { upgradeFault } from "./upgrade";
import { bucketFault, bucketTrouble, hasObjects } from "./s3";
import type { BucketKeys } from "./s3";

/** The keys of the two buckets in clear; they leave this file only inside a signature. */
export interface CheckKeys {
  vault: BucketKeys;
  media: BucketKeys;
}

type Report = (key: string, value: unknown, allowed: string, mend: string) => void;

/** Whether a cluster has the stack's database. */
export type DatabaseState = "there" | "missing";

/** Whether a cluster knows the Prometheus operator's resources. */
export type PodMonitorsState = "there" | "missing";

/** What the program must know of the cluster before it says what it wants. */
export interface Found {
  podMonitors: PodMonitorsState;
  database: DatabaseState;
  /** Name of the database's Cluster, there or to be made. */
  databaseName: string;
  /** Clusters of earlier generations, which are kept but do not run. */
  former: string[];
  /** The site whose database this one has been following, its own name if it has been writing. */
  primary?: string;
  /** The moment that the database goes back to, or went back to when it was made. */
  restoredTo?: string;
}

/** @throws SettingsError with all faults at once. */
export async function checkSite(settings: Settings, keys: CheckKeys): Promise<Found> {
  // A plan asks no cluster; it shows a site that runs.
  if (isPlanning()) {
    const databaseName = clusterName(settings.generation);
    const moment = restoredTo(undefined, settings);
    return { podMonitors: "there", database: "there", databaseName, former: [], restoredTo: moment };
  }
  const { faults, databases, lease, podMonitors } = await lookAround(settings, keys, "wait");
  if (faults.length > 0) throw new SettingsError(settings.site, faults);
  if (databases?.current !== undefined) warnOfRestore(settings);
  await takeLease(settings, keys, lease);
  if (!pulumi.runtime.isDryRun()) {
    for (const release of await forgetUnfinished(settings)) {
      void pulumi.log.info(`release ${release}: an attempt that was killed is forgotten, this update makes it anew`);
    }
  }
  return {
    podMonitors,
    database: databases?.current === undefined ? "missing" : "there",
    databaseName: databases?.name ?? clusterName(settings.generation),
    former: databases?.former.map(({ metadata }) => metadata.name) ?? [],
    ...(databases?.current?.spec.replica?.primary !== undefined
      ? { primary: databases.current.spec.replica.primary }
      : {}),
    restoredTo: restoredTo(databases?.current, settings),
  };
}

/** What is left of a restore would speak again when the database is begun anew, perhaps years later. */
function warnOfRestore({ restore, site }: Settings): void {
  const set = (["to", "from"] as const).filter((key) => restore[key] !== undefined);
  if (set.length === 0) return;
  void pulumi.log.warn(
    `restore.${set.join(" and restore.")}: looked at only when a database is made, and there is one; take it out: pulumi config rm homestead:restore --stack ${site}`,
  );
}

/** What an update would refuse, for who only asks: nothing is waited for, and the lease is not taken. */
export async function siteFaults(settings: Settings, keys: CheckKeys): Promise<Fault[]> {
  return (await lookAround(settings, keys, "look")).faults;
}

async function lookAround(settings: Settings, keys: CheckKeys, patience: "wait" | "look") {
  const faults: Fault[] = [];
  const report: Report = (key, value, allowed, mend) =>
    faults.push({
      key: `homestead:${key}`,
      value: value === undefined ? "(not set)" : JSON.stringify(value),
      allowed,
      mend,
    });
  const databases = await findDatabases(settings);
  const external = settings.objectStore === "external";
  const [{ ours, podMonitors }, , lease] = await Promise.all([
    checkCluster(settings, report),
    checkNsupdate(settings, report),
    external ? checkBuckets(settings, keys, report).then(() => checkLease(settings, keys, databases, report)) : noLease,
    ...Object.entries(settings.charts).map(([name, chart]) => checkChart(name, chart, report)),
  ]);
  // On another stack's cluster there is another stack's database.
  if (ours && databases === undefined) {
    const { context } = settings.cluster;
    const look = `kubectl --context ${context} -n ${settings.namespace} get clusters.postgresql.cnpg.io`;
    report("cluster.context", context, "a cluster that says which databases it has", `${look}; then the same again`);
  }
  if (ours && databases !== undefined) {
    checkGeneration(settings, databases, report);
    checkMajor(settings, databases, report);
    checkParted(settings, databases, lease, report);
    const mayWait = () => patience === "wait" && faults.length === 0;
    const said = (key: string) => faults.some((fault) => fault.key === `homestead:${key}`);
    if (external) await checkArchives(settings, keys, databases, report, { mayWait, said });
  }
  return { faults: faults.sort((a, b) => a.key.localeCompare(b.key)), databases, lease, podMonitors };
}

// ---------------------------------------------------------------- the lease

/** What the lease says, and what the update is to do to it. */
interface LeaseFound {
  stored: StoredLease | undefined;
  step: LeaseStep;
}
const noLease: LeaseFound = { stored: undefined, step: { kind: "none" } };

async function checkLease(
  settings: Settings,
  { vault: keys }: CheckKeys,
  databases: Databases | undefined,
  report: Report,
): Promise<LeaseFound> {
  const { vault, lease, promotionToken, site } = settings;
  if (lease === "none") return noLease;
  let stored: StoredLease | undefined;
  let archives: boolean;
  try {
    [stored, archives] = await Promise.all([readLease(vault, keys), hasObjects(vault, keys, "pg/")]);
  } catch (error) {
    // A bucket that cannot be opened is named by checkBuckets already, in better words.
    if ((await bucketFault(vault, keys)) === undefined) {
      report(
        "vault.bucket",
        vault.bucket,
        `a vault whose lease can be read: ${message(error)}`,
        "npx homestead status",
      );
    }
    return noLease;
  }
  const database = databases?.current === undefined ? "missing" : "there";
  const { step, faults } = leaseStep(settings, { stored, archives, database });
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
      report(
        "promotionToken",
        promotionToken,
        `the token of the other site's last demotion: ${fault}`,
        `pulumi stack output demotionToken --stack ${settings.otherSite ?? ""}, then: pulumi config set --plaintext homestead:promotionToken <token> --stack ${site}`,
      );
    }
  }
  return { stored, step };
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
    return { unreadable: message(error) };
  }
}

/** Timeline of the newest WAL that the other site has archived; undefined if there is none. @throws Error when the vault does not say */
async function archivedTimeline({ vault, otherSite, generations }: Settings, keys: BucketKeys) {
  if (otherSite === undefined) return undefined;
  const archive = archiveName(otherSite, generations[otherSite] ?? 1);
  const newest = await newestSegment(vault, keys, archive);
  return newest && timelineOf(newest.name);
}

/** The lease is taken before the first resource: from here on no other site may federate. */
async function takeLease(settings: Settings, { vault: keys }: CheckKeys, { stored, step }: LeaseFound): Promise<void> {
  if (step.kind === "none") return;
  const { vault, site, epoch, fingerprint, leaseGrace } = settings;
  if (site === "dev") return;
  const claim = { site, epoch, fingerprint };
  if (pulumi.runtime.isDryRun()) {
    void pulumi.log.info(`the update will write the site lease: ${site} is active, epoch ${epoch} (${step.takeover})`);
    return;
  }
  const writer = crypto.randomUUID();
  const lease =
    step.kind === "create"
      ? { ...firstLease(claim, leaseGrace, writer), takeover: step.takeover }
      : nextLease(step.from, claim, step.takeover, leaseGrace, writer);
  try {
    await writeLease(vault, keys, lease, stored);
  } catch (error) {
    throw new SettingsError(site, [
      {
        key: "homestead:vault.bucket",
        value: JSON.stringify(vault.bucket),
        allowed: `a vault whose lease can be written: ${message(error)}`,
        mend: "npx homestead status, then the same update again",
      },
    ]);
  }
  void pulumi.log.info(
    lease.wait > 0
      ? `the site lease is ${site}'s, epoch ${epoch}; Valkey begins when the other site has stopped for certain, in ${lease.wait} s`
      : `the site lease is ${site}'s, epoch ${epoch}`,
  );
}

/** `ours`: whether this is the stack's own cluster, as far as can be told. */
interface ClusterFound {
  ours: boolean;
  podMonitors: PodMonitorsState;
}
const noCluster: ClusterFound = { ours: false, podMonitors: "missing" };

async function checkCluster(settings: Settings, report: Report): Promise<ClusterFound> {
  const { cluster, site } = settings;
  let config: k8s.KubeConfig;
  try {
    config = kubeClient(cluster);
  } catch (error) {
    const key = error instanceof KubeconfigFault ? error.key : "context";
    const set = `pulumi config set --path homestead:cluster.${key} <${key === "kubeconfig" ? "file" : "context"}> --stack ${site}`;
    if (key === "kubeconfig") {
      const allowed = `a kubeconfig that can be read: ${message(error)}`;
      report("cluster.kubeconfig", kubeconfigName(cluster), allowed, `put the file there, or: ${set}`);
    } else report("cluster.context", cluster.context, `a context that is there: ${message(error)}`, set);
    return noCluster;
  }
  const core = config.makeApiClient(k8s.CoreV1Api);
  let uid: string | undefined;
  try {
    uid = (await core.readNamespace({ name: "kube-system" })).metadata?.uid;
  } catch (error) {
    report(
      "cluster.context",
      cluster.context,
      `a cluster that answers (${message(error)})`,
      `kubectl --context ${cluster.context} get namespaces`,
    );
    return noCluster;
  }
  if (cluster.uid !== undefined && cluster.uid !== uid) {
    report(
      "cluster.uid",
      cluster.uid,
      `the UID of the cluster behind context '${cluster.context}', which is ${uid}: this is another cluster`,
      `choose this stack's own cluster, or, if the cluster was built anew: pulumi config set --path homestead:cluster.uid ${uid} --stack ${site}`,
    );
  }
  const [ours, podMonitors] = await Promise.all([
    checkMarker(core, settings, report),
    checkDefinitions(config.makeApiClient(k8s.ApiextensionsV1Api), settings, report),
    checkPlugin(config.makeApiClient(k8s.AppsV1Api), settings, report),
    checkUpgrade(config.makeApiClient(k8s.AppsV1Api), settings, report),
    checkStorageClasses(config.makeApiClient(k8s.StorageV1Api), settings, report),
  ]);
  return { ours, podMonitors };
}

/** Another stack's cluster says so on our namespace. @returns whether it is ours, or nobody's yet */
async function checkMarker(
  core: k8s.CoreV1Api,
  { namespace, site, cluster }: Settings,
  report: Report,
): Promise<boolean> {
  let marker: string | undefined;
  try {
    marker = (await core.readNamespace({ name: namespace })).metadata?.labels?.["homestead/site"];
  } catch (error) {
    if (statusOf(error) === 404) return true;
    throw error;
  }
  if (marker === site) return true;
  report(
    "cluster.context",
    cluster.context,
    `this stack's own cluster: its namespace '${namespace}' belongs to ${marker === undefined ? "something else" : `site '${marker}'`}`,
    `pulumi config set --path homestead:cluster.context <context of ${site}> --stack ${site}`,
  );
  return false;
}

async function checkStorageClasses(storage: k8s.StorageV1Api, settings: Settings, report: Report): Promise<void> {
  const classes = (await storage.listStorageClass()).items;
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

/** What runs decides which version may come next. */
async function checkUpgrade(apps: k8s.AppsV1Api, settings: Settings, report: Report): Promise<void> {
  const { namespace, images, site, role, promotionToken, maintenance } = settings;
  try {
    const web = await apps.readNamespacedDeployment({ name: "mastodon-web", namespace });
    // What a standby's Deployment of no pods says is what was pulled here, not what the server runs.
    const standsBy =
      web.spec?.replicas === 0 && maintenance === "off" && (role === "standby" || promotionToken !== undefined);
    const running = standsBy
      ? undefined
      : web.spec?.template.spec?.containers.find((c) => c.name === "mastodon-web")?.image;
    // A takeover does not wait for the base backup that an upgrade needs.
    const fault =
      running === undefined || running === images.mastodon
        ? undefined
        : promotionToken !== undefined || maintenance !== "off"
          ? `${running}, the version this site has, while it ${promotionToken === undefined ? "is in maintenance" : "takes over"}: first the one, then the other`
          : upgradeFault(running, images.mastodon);
    if (fault !== undefined) {
      report(
        "images.mastodon",
        images.mastodon,
        fault,
        `set the version in versions.ts, or: pulumi config set --path homestead:images.mastodon <image> --stack ${site}`,
      );
    }
  } catch (error) {
    if (statusOf(error) !== 404) throw error;
    if (role === "active" && maintenance !== "off") {
      report(
        "maintenance",
        maintenance,
        "off, while there is no Mastodon here yet: its schema is made without maintenance",
        `pulumi config rm homestead:maintenance --stack ${site}`,
      );
    }
  }
}

/** What monitoring asks of the Prometheus operator; all of it comes with the operator. */
const prometheusOperator = ["alertmanagerconfigs", "podmonitors", "prometheusrules"].map(
  (plural) => `${plural}.monitoring.coreos.com`,
);

/**
 * Custom resources that must be there although we do not bring them.
 * @returns whether those of the Prometheus operator are, which may
 */
async function checkDefinitions(
  api: k8s.ApiextensionsV1Api,
  settings: Settings,
  report: Report,
): Promise<PodMonitorsState> {
  const known = new Set((await api.listCustomResourceDefinition()).items.map((d) => d.metadata?.name));
  const wanted: [key: string, value: string, definition: string, what: string][] = [
    ["ingress", "Traefik", "ingressroutes.traefik.io", "Traefik with its custom resources (k3s brings it)"],
  ];
  const { operators } = settings;
  if (operators.certManager === "existing")
    wanted.push(["operators.certManager", "existing", "certificates.cert-manager.io", "cert-manager in the cluster"]);
  if (operators.cloudNativePg === "existing")
    wanted.push(["operators.cloudNativePg", "existing", "clusters.postgresql.cnpg.io", "CloudNativePG in the cluster"]);
  if (operators.barmanPlugin === "existing")
    wanted.push([
      "operators.barmanPlugin",
      "existing",
      "objectstores.barmancloud.cnpg.io",
      "CloudNativePG's barman-cloud plugin in the cluster",
    ]);
  for (const [key, value, definition, what] of wanted) {
    if (known.has(definition)) continue;
    const mend =
      key === "ingress"
        ? "install Traefik: https://doc.traefik.io/traefik/getting-started/kubernetes/"
        : `pulumi config set --path homestead:${key} install --stack ${settings.site}`;
    report(key, value, `${what}; there is no definition ${definition}`, mend);
  }
  return prometheusOperator.every((definition) => known.has(definition)) ? "there" : "missing";
}

/** CloudNativePG finds its plugin only in its own namespace, and an operator that was there before us has one of its own. */
async function checkPlugin(apps: k8s.AppsV1Api, { operators, site }: Settings, report: Report): Promise<void> {
  if (operators.cloudNativePg !== "existing" || operators.barmanPlugin !== "install") return;
  const labelSelector = "app.kubernetes.io/name=cloudnative-pg";
  const [operator] = (await apps.listDeploymentForAllNamespaces({ labelSelector })).items;
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
        `media keys that open ${copyPrefix} in the vault, where the volume's copy is kept: ${message(error)}`,
        `the vault's own keys will do: pulumi config set --secret homestead:mediaAccessKeyId --stack ${settings.site}, and mediaSecretAccessKey`,
      );
    }
  }
}

/** A program that is missing would be noticed only at the update's very end. */
async function checkNsupdate({ dns, role }: Settings, report: Report): Promise<void> {
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
  report: Report,
  /** Waiting is for who has nothing to mend; `said`: whether a key has its fault already. */
  { mayWait, said }: { mayWait: () => boolean; said: (key: string) => boolean },
): Promise<void> {
  const { site, role, generation, beginning, vault } = settings;
  const filled = (archive: string) => hasObjects(vault, keys.vault, `pg/${archive}/`);
  const own = archiveName(site, generation);
  if (current !== undefined && archiveOf(current) === own) return;
  try {
    if (current !== undefined) {
      // A new major version goes on in place, and writes another archive from then on.
      if (!(await filled(own))) return;
      report(
        `generations.${site}`,
        generation,
        `a number whose archive is empty, for the new major version of Postgres: ${own} holds something, and is never written over`,
        `move what is below pg/${own}/ in bucket '${vault.bucket}' elsewhere`,
      );
      return;
    }
    if (await filled(own)) {
      report(
        `generations.${site}`,
        generation,
        `${generation + 1}: this cluster has no database, but the vault holds its archive ${own}, which is never written over`,
        `to restore from it, set generations.${site} to ${generation + 1} in Pulumi.yaml and run: pulumi up --refresh --run-program --stack ${site} (docs/runbooks/lost-disk.md)`,
      );
      return;
    }
    if (beginning.kind !== "recovery") return;
    if ((await newestBaseBackup(vault, keys.vault, beginning.archive)) !== undefined) {
      return await checkMoment(settings, keys, report);
    }
    // An archive that is being written gets its first base backup by itself: a standby has time.
    if (role === "standby" && (await filled(beginning.archive))) {
      if (!mayWait() || (await baseBackupComes(settings, keys))) return;
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
      `a vault that says which archives it has (${message(error)})`,
      "npx homestead doctor, then the same again",
    );
  }
}

/** A moment that no backup reaches would be noticed when the old database is gone. */
async function checkMoment({ site, beginning, vault }: Settings, keys: CheckKeys, report: Report): Promise<void> {
  if (beginning.kind !== "recovery" || beginning.to === undefined) return;
  const oldest = await oldestBaseBackup(vault, keys.vault, beginning.archive);
  const [from, to, now] = [oldest?.endedAt ?? new Date(), new Date(beginning.to), new Date()];
  if (from <= to && to <= now) return;
  report(
    "restore.to",
    beginning.to,
    `a moment between ${from.toISOString()}, when the oldest base backup in ${beginning.archive} ended, and now, ${now.toISOString()}`,
    `pulumi config set --path homestead:restore.to <moment> --stack ${site}${to < from ? `, or name the archive that has it: pulumi config set --path homestead:restore.from <archive> --stack ${site}` : ""}`,
  );
}

/** Waits for the first base backup that a standby begins from, half an hour at most. A preview does not wait. */
async function baseBackupComes({ beginning, vault }: Settings, { vault: keys }: CheckKeys): Promise<boolean> {
  if (beginning.kind !== "recovery") return false;
  if (pulumi.runtime.isDryRun()) {
    void pulumi.log.warn(`the archive ${beginning.archive} has no base backup yet: the update will wait for it`);
    return true;
  }
  void pulumi.log.info(`waiting for the first base backup in the archive ${beginning.archive}`);
  const end = Date.now() + 1800 * 1000;
  while (Date.now() < end) {
    if ((await newestBaseBackup(vault, keys, beginning.archive)) !== undefined) return true;
    await new Promise((resolve) => setTimeout(resolve, 5000));
  }
  return false;
}

/**
 * A database that federates keeps its archive: another one would lack the base backup that its WAL is replayed onto,
 * and who raises the number hopes for a restore that would not come. A standby's is begun anew beside the old one.
 */
function checkGeneration({ site, role, generation }: Settings, { current, former }: Databases, report: Report): void {
  const [last] = former.flatMap((object) => archiveOf(object) ?? []);
  if (current !== undefined || role !== "active" || last === undefined) return;
  const before = /\d+$/.exec(last)?.[0] ?? "what it was";
  report(
    `generations.${site}`,
    generation,
    `${before}: this cluster has a database already, which writes the archive ${last}`,
    `set generations.${site} back to ${before} in Pulumi.yaml; to begin the database anew from the vault: docs/runbooks/lost-disk.md`,
  );
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
  { site, role, generation, activeSite, epoch }: Settings,
  { current }: Databases,
  { stored }: LeaseFound,
  report: Report,
): void {
  const tookOver = stored?.lease.activeSite === activeSite && stored.lease.epoch === epoch;
  if (role !== "standby" || !tookOver || current?.spec.replica?.primary !== site) return;
  report(
    `generations.${site}`,
    generation,
    `${generation + 1}: ${activeSite} took over while ${site} was lost, and the database here has parted from its; the next generation follows it, and the old one is kept`,
    `npx homestead switch ${site} (which brings the server back here), or set generations.${site} to ${generation + 1} in Pulumi.yaml and run: pulumi up --stack ${site}`,
  );
}

/** A chart that is not there would be noticed only after the operators and the data are. */
async function checkChart(name: string, chart: ChartReference, report: Report): Promise<void> {
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
    void pulumi.log.warn(
      `chart ${name}: ${index} does not answer (${message(error)}); an install or upgrade of it will fail`,
    );
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

const message = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return (cause instanceof Error ? cause.message : String(cause)).split("\n")[0] ?? "";
};
