/** The base backup before an upgrade of Mastodon: a new one for each upgrade, and not one more for the next try of it. */
import type * as k8s from "@kubernetes/client-node";
import { ask, kubeClient, unlessMissing } from "./kube";
import { kubernetes } from "./kubernetes";
import { imageParts, tagAlone } from "./pods";
import type { Settings } from "../settings";

/** Annotation of a Backup: the whole image that it was made before, of which its name has the tag alone. */
export const madeBefore = "homestead/made-before";

/**
 * Seconds for which one that has ended serves the same upgrade again: a try lasts two hours at most, and what it failed by
 * may be mended by then. The database of an older one has moved on.
 */
const servesFor = 3 * 3600;
/** Seconds after which one that has not ended never will: on a slow line it takes longer than an update waits. */
const takesAtMost = 24 * 3600;

/** What is looked at of a CloudNativePG Backup. */
export interface BackupObject {
  metadata: { name: string; creationTimestamp: string; annotations?: Record<string, string> };
  status?: { phase?: string; stoppedAt?: string };
}

export interface UpgradeBackup {
  /** Of the Backup object. */
  name: string;
  /** `past`: the version runs already. What its backup was called is in the state, and is left as it is. */
  upgrade: "due" | "past";
}

/** What the names of a database's backups before a version begin with. */
export const backupPrefix = (database: string, image: string): string =>
  `${before(database)}${tagAlone(imageParts(image).tag).toLowerCase().replaceAll("_", "-")}`;

const before = (database: string): string => `${database}-before-mastodon-`;
/** One that is made while the version runs already. */
const beside = (database: string): string => `${database}-with-mastodon-`;

/**
 * The backup that goes with an image. Pure.
 *
 * @param running the image that runs with this database; undefined if none does
 * @param found backups of the site, whatever they were made for
 */
export function upgradeBackup(
  image: string,
  { database, running, found }: { database: string; running: string | undefined; found: readonly BackupObject[] },
  now: Date,
): UpgradeBackup {
  // What an upgrade goes back to was made before it; what there is to wait for no more may have been made since.
  const prefixes = running === image ? [before(database), beside(database)] : [before(database)];
  const all = found
    .filter(({ metadata }) => prefixes.some((prefix) => metadata.name.startsWith(prefix)))
    .sort((a, b) => Date.parse(b.metadata.creationTimestamp) - Date.parse(a.metadata.creationTimestamp));
  const isOurs = ({ metadata }: BackupObject) => metadata.annotations?.[madeBefore] === image;
  const ours = all.find(isOurs);
  // What is made now holds what a version that runs has done to the database: nobody is to go back to it as to one of before.
  const prefix = backupPrefix(database, image);
  const anew = `${running === image ? prefix.replace(before(database), beside(database)) : prefix}-${stampOf(now)}`;
  const [last] = all;
  if (running === image) {
    // One that failed, or will never end, is made anew even then: it is the first there is to restore from.
    const lives = ours === undefined || ours.status?.phase === "completed" || isGoing(ours, now);
    // The one of a try at another version stays in the state, and each update would wait for it as long as it is no whole one.
    const settled = last === undefined || isOurs(last) || last.status?.phase === "completed";
    return { name: lives ? (ours?.metadata.name ?? anew) : anew, upgrade: lives && settled ? "past" : "due" };
  }
  // With one for another image in between, this one's is of before that.
  const serves = last !== undefined && isOurs(last) && servesStill(last, now);
  return { name: serves ? last.metadata.name : anew, upgrade: "due" };
}

const isWithin = (moment: string, seconds: number, now: Date) => now.getTime() - Date.parse(moment) < seconds * 1000;

const isGoing = ({ metadata, status }: BackupObject, now: Date): boolean =>
  status?.phase !== "failed" && isWithin(metadata.creationTimestamp, takesAtMost, now);

function servesStill(backup: BackupObject, now: Date): boolean {
  const { phase, stoppedAt } = backup.status ?? {};
  return stoppedAt === undefined ? isGoing(backup, now) : phase !== "failed" && isWithin(stoppedAt, servesFor, now);
}

/** `20261122t230302`, in UTC. */
const stampOf = (moment: Date): string =>
  moment.toISOString().replace(/\..*/, "").replaceAll(/[-:]/g, "").toLowerCase();

/** The image of Mastodon's web Deployment. */
export const webImage = ({ spec }: k8s.V1Deployment): string | undefined =>
  spec?.template.spec?.containers.find(({ name }) => name === "mastodon-web")?.image;

/**
 * {@link upgradeBackup}, as the cluster has it.
 *
 * @param database `missing`: yet to be made, whatever runs beside it
 * @throws Unanswered
 */
export async function findUpgradeBackup(
  { cluster, namespace, images }: Pick<Settings, "cluster" | "namespace" | "images">,
  database: { name: string; state: "there" | "missing" },
): Promise<UpgradeBackup> {
  const config = kubeClient(cluster);
  const there = <T>(what: string, work: Promise<T>) => ask(`${what} -n ${namespace}`, work).catch(unlessMissing);
  const [web, list] = await Promise.all([
    there(
      "get deployments.apps/mastodon-web",
      config.makeApiClient(kubernetes().AppsV1Api).readNamespacedDeployment({ name: "mastodon-web", namespace }),
    ),
    there(
      "list backups.postgresql.cnpg.io",
      config.makeApiClient(kubernetes().CustomObjectsApi).listNamespacedCustomObject({
        group: "postgresql.cnpg.io",
        version: "v1",
        plural: "backups",
        namespace,
      }) as Promise<{ items: BackupObject[] }>,
    ),
  ]);
  const running = database.state === "there" && web !== undefined ? webImage(web) : undefined;
  return upgradeBackup(images.mastodon, { database: database.name, running, found: list?.items ?? [] }, new Date());
}
