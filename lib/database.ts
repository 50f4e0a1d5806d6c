/**
 * The databases of a site's cluster, as they are found there: which one is this generation's, which were before it,
 * and what they are doing. Read only.
 */
import type * as k8s from "@kubernetes/client-node";
import * as pulumi from "@pulumi/pulumi";
import { archiveName } from "../settings";
import type { Settings } from "../settings";
import { reason } from "./attempt";
import { ask, kubeClient, statusOf } from "./kube";
import { kubernetes } from "./kubernetes";
import { lastAge, lastFault } from "./lease/last-snapshot";
import type { Ended } from "./lease/last-snapshot";
import type { Store } from "./lease/snapshots";
import { execInPod } from "./pod-exec";
import type { Bucket, BucketKeys } from "./s3";
import { isReal, until } from "./until";

/** How a Cluster began: from nothing, or from what `source` names in its list of external clusters. */
export interface Bootstrap {
  initdb?: object;
  recovery?: { source?: string; recoveryTarget?: { targetTime?: string } };
}

/** What is looked at of a CloudNativePG Cluster. */
export interface DatabaseObject {
  metadata: { name: string; deletionTimestamp?: string; annotations?: Record<string, string> };
  spec: {
    imageName?: string;
    plugins?: { parameters?: { serverName?: string } }[];
    replica?: { self?: string; primary?: string; promotionToken?: string };
    bootstrap?: Bootstrap;
  };
  status?: {
    demotionToken?: string;
    switchReplicaClusterStatus?: { inProgress?: boolean };
    timelineID?: number;
    systemID?: string;
    pgDataImageInfo?: { majorVersion?: number };
  };
}

/** A cluster's databases from this generation's point of view. */
export interface Databases {
  /** Name of the Cluster that this generation has, or will have. */
  name: string;
  /** The Cluster itself, if it is there. */
  current: DatabaseObject | undefined;
  /** Clusters of earlier generations: kept, hibernated, until somebody deletes them. */
  former: DatabaseObject[];
}

/** The name of a generation's Cluster: a new beginning stands beside the old one, whose volume is kept. */
export const clusterName = (generation: number): string => `postgres-g${generation}`;

/** The generation that a Cluster was made in. A new major version of Postgres raises the site's, and its name stays. */
export const madeIn = (name: string): number => Number(/\d+$/.exec(name)?.[0]);

/** The archive that a Cluster writes. */
export const archiveOf = (object: DatabaseObject): string | undefined =>
  object.spec.plugins?.[0]?.parameters?.serverName;

/** Whether a Cluster has been put to sleep: it has no pods, and keeps its volume. */
export const isAsleep = ({ metadata }: DatabaseObject): boolean =>
  metadata.annotations?.["cnpg.io/hibernation"] === "on";

/**
 * The moment that a database went back to when it was made; undefined: to none. Its Cluster says so for as long as it
 * lives, and the stack's file (`restore.to`) only until the restore is over.
 */
export const restoredTo = (object: DatabaseObject | undefined, { beginning }: Pick<Settings, "beginning">) =>
  object === undefined
    ? beginning.kind === "recovery"
      ? beginning.to
      : undefined
    : object.spec.bootstrap?.recovery?.recoveryTarget?.targetTime;

/** `ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie` -> `17`; undefined where the tag begins with no number. */
export const majorOf = (image: string | undefined): string | undefined =>
  /^[^@]*:(\d+)[^/@]*(@|$)/.exec(image ?? "")?.[1];

/** The major versions that a database is of: what its files are, and, until they are upgraded, what they are to be. */
export const majorsOf = ({ spec, status }: DatabaseObject): string[] =>
  [status?.pgDataImageInfo?.majorVersion?.toString(), majorOf(spec.imageName)].filter((major) => major !== undefined);

/**
 * Sorts what was found. A Cluster belongs to the present generation by the archive it writes. A new major version of
 * Postgres begins another archive in place: then it is the last generation's Cluster that goes on.
 */
export function sortDatabases(
  found: DatabaseObject[],
  { site, generation, images }: Pick<Settings, "site" | "generation"> & { images: { postgres: string } },
): Databases {
  const objects = found.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const writes = (archive: string) => objects.find((object) => archiveOf(object) === archive);
  const last = writes(archiveName(site, generation - 1));
  const upgraded = last && majorOf(last.spec.imageName) !== majorOf(images.postgres) ? last : undefined;
  const current = writes(archiveName(site, generation)) ?? upgraded;
  return {
    name: current?.metadata.name ?? clusterName(generation),
    current,
    former: objects.filter((object) => object !== current),
  };
}

/** @returns undefined when the cluster cannot be asked. A cluster without CloudNativePG has none. */
export async function findDatabases(
  settings: Pick<Settings, "cluster" | "namespace" | "site" | "generation" | "images">,
): Promise<Databases | undefined> {
  try {
    return sortDatabases(await listDatabases(settings), settings);
  } catch {
    return undefined;
  }
}

async function listDatabases({
  cluster,
  namespace,
}: Pick<Settings, "cluster" | "namespace">): Promise<DatabaseObject[]> {
  const api = kubeClient(cluster).makeApiClient(kubernetes().CustomObjectsApi);
  try {
    const of = { group: "postgresql.cnpg.io", version: "v1", plural: "clusters", namespace };
    const question = `list clusters.postgresql.cnpg.io -n ${namespace}`;
    const list: unknown = await ask(question, api.listNamespacedCustomObject(of));
    return (list as { items: DatabaseObject[] }).items;
  } catch (error) {
    // No such kind yet.
    if (statusOf(error) === 404) return [];
    throw error;
  }
}

interface Access extends Pick<Settings, "cluster"> {
  namespace: pulumi.Input<string>;
}

/**
 * Gives the name on once the database takes writes, under the image that it is to have. Its Cluster is "Ready" while it
 * still follows, and while CloudNativePG has not noticed yet that it is to be upgraded: what comes next would find it
 * read-only in the middle of a promotion, or be gone through before the database restarts.
 */
export function onceWritable(access: Access, cluster: pulumi.Input<string>, image: string): pulumi.Output<string> {
  return pulumi.all([cluster, access.namespace]).apply(async ([name, namespace]) => {
    if (isReal()) await untilWritable({ cluster: access.cluster, namespace }, name, image);
    return name;
  });
}

/** {@link onceWritable}, for who does not plan. @throws RunError with the last lines of an upgrade that failed */
export async function untilWritable(
  { cluster, namespace }: Pick<Settings, "cluster" | "namespace">,
  name: string,
  image: string,
): Promise<void> {
  const config = kubeClient(cluster);
  const core = config.makeApiClient(kubernetes().CoreV1Api);
  const batch = config.makeApiClient(kubernetes().BatchV1Api);
  await until(900, `writing to the database '${name}', under ${image}`, async () => {
    const failed = await failedUpgrade({ core, batch }, namespace, name, image);
    if (failed !== undefined) throw new pulumi.RunError(failed);
    const labelSelector = `cnpg.io/cluster=${name},cnpg.io/instanceRole=primary`;
    const pods = (await core.listNamespacedPod({ namespace, labelSelector })).items;
    // The pod of an upgrade is labelled as the primary, too.
    const [instance] = pods.flatMap(({ metadata, spec }) => {
      const postgres = spec?.containers.find((container) => container.name === "postgres");
      return metadata?.name && postgres ? [{ pod: metadata.name, image: postgres.image }] : [];
    });
    if (instance === undefined) throw new Error("it has no primary");
    if (instance.image !== image) throw new Error(`it runs ${instance.image ?? "nothing"}`);
    const follows = await execInPod(config, {
      namespace,
      pod: instance.pod,
      container: "postgres",
      command: ["psql", "-XAtqc", "SELECT pg_is_in_recovery()"],
      seconds: 20,
    });
    if (follows.trim() !== "f") throw new Error("it still follows");
    return true;
  });
}

/** What to say of an upgrade to an image that has failed; undefined if none has. CloudNativePG tries none a second time. */
async function failedUpgrade(
  { core, batch }: { core: k8s.CoreV1Api; batch: k8s.BatchV1Api },
  namespace: string,
  name: string,
  image: string,
): Promise<string | undefined> {
  const labelSelector = `cnpg.io/cluster=${name},cnpg.io/jobRole=major-upgrade`;
  const jobs = (await batch.listNamespacedJob({ namespace, labelSelector })).items;
  // One to another image is of an attempt that was given up: CloudNativePG deletes it.
  const job = jobs.find(
    ({ spec, status }) => (status?.failed ?? 0) > 0 && spec?.template.spec?.containers.some((c) => c.image === image),
  );
  if (job === undefined) return undefined;
  const [pod] = (await core.listNamespacedPod({ namespace, labelSelector })).items;
  // A pod whose preparation failed has no log of the upgrade itself.
  const log = await core
    .readNamespacedPodLog({ name: pod?.metadata?.name ?? "", namespace, container: "major-upgrade", tailLines: 20 })
    .catch(() => "");
  return `the upgrade of the database '${name}' to ${image} failed (docs/runbooks/upgrade.md, "When a major version of Postgres fails"); the last lines of job ${job.metadata?.name ?? ""}:\n${log.trimEnd() || "none"}`;
}

/**
 * The token that lets the other site take over without losing anything: there once the database has stopped and its
 * last WAL is in the vault. An empty text where there is none to be had: the site was a standby before.
 */
export function demotionToken(
  access: Access,
  cluster: pulumi.Input<string>,
  wasActive: boolean,
  left: Ended & { vault: Bucket; keys: pulumi.Input<BucketKeys> },
): pulumi.Output<string> {
  const token = pulumi
    .all([cluster, access.namespace, left.keys])
    .apply(async ([name, namespace, keys]) =>
      isReal() ? tokenOnceStopped({ cluster: access.cluster, namespace }, name, wasActive, { ...left, keys }) : "",
    );
  // It says nothing of the keys.
  return pulumi.unsecret(token);
}

/**
 * {@link demotionToken}, for who does not plan. Waits until Valkey's pod is gone as well, since by then its last
 * snapshot is in the vault, or never will be. On each standby: an update that repeats an interrupted one cannot tell by
 * the database, which has stepped down already, whether Valkey has ended. Where none ran there is nothing to wait for.
 */
export async function tokenOnceStopped(
  { cluster, namespace }: Pick<Settings, "cluster" | "namespace">,
  name: string,
  wasActive: boolean,
  left: Ended & Store,
): Promise<string> {
  const core = kubeClient(cluster).makeApiClient(kubernetes().CoreV1Api);
  await until(600, "the end of Valkey's pod", async () => {
    const labelSelector = "app.kubernetes.io/name=valkey";
    const [pod] = (await core.listNamespacedPod({ namespace, labelSelector })).items;
    if (pod === undefined) return true;
    const { name: there = "" } = pod.metadata ?? {};
    throw new Error(
      `'${there}' is still there; if its node is dead, what it held since its last snapshot is lost: kubectl -n ${namespace} delete pod ${there} --force`,
    );
  });
  const read = async () => {
    const databases = await listDatabases({ cluster, namespace });
    return databases.find(({ metadata }) => metadata.name === name)?.status?.demotionToken;
  };
  if (!wasActive) return (await read()) ?? "";
  const missing = await lastMissing(left);
  if (missing !== undefined) void pulumi.log.warn(missing);
  return until(600, `the demotion token of the database '${name}'`, async () => {
    const token = await read();
    return token === "" ? undefined : token;
  });
}

/** What to say where Valkey's last snapshot is not in the vault. Nothing of this program's needs it: the other site would. */
async function lastMissing(left: Ended & Store): Promise<string | undefined> {
  const fault = await lastAge(left, left)
    // The program began before it stopped anything.
    .then((age) => lastFault(left, age, process.uptime()))
    .catch((error: unknown) => `the vault does not say whether Valkey's last snapshot is there: ${reason(error)}`);
  return fault && `${fault}; before the other site takes over without it: docs/runbooks/switch.md`;
}

/** A demotion token's content, as CloudNativePG encodes it (pg_controldata's lines as JSON, in base64). */
export interface TokenContent {
  systemId: string;
  timeline: number;
}

/** @returns undefined when it is no token */
export function readToken(token: string): TokenContent | undefined {
  try {
    const content = JSON.parse(Buffer.from(token, "base64").toString("utf8")) as Record<string, unknown>;
    const timeline = Number(content["latestCheckpointTimelineID"]);
    const systemId = content["databaseSystemIdentifier"];
    return Number.isInteger(timeline) && typeof systemId === "string" ? { systemId, timeline } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Why a token does not fit a database that follows; undefined if it does, or if nobody can tell.
 *
 * @param archived timeline of the newest WAL in the archive that the database follows. CloudNativePG tells the database's
 *   own only once it was a primary.
 */
export function tokenFault(
  token: string,
  database: DatabaseObject | undefined,
  archived: number | undefined,
): string | undefined {
  const content = readToken(token);
  if (!content) return "it is no demotion token";
  const { timelineID, systemID } = database?.status ?? {};
  if (systemID !== undefined && systemID !== content.systemId) {
    return `it is of another database (system ${content.systemId}, this one follows ${systemID})`;
  }
  // A later one is still on its way here.
  const follows = Math.max(timelineID ?? 0, archived ?? 0);
  if (follows > content.timeline) {
    return `it is stale: it was made on timeline ${content.timeline}, and the database follows timeline ${follows}`;
  }
  return undefined;
}
