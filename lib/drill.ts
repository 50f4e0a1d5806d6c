/**
 * A restore drill: the newest backup of a site brought up beside it, in a namespace whose Mastodon reaches nothing, and
 * asked whether it is what the site would need.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { copiedKey, filesPrefix } from "../components/media-copy";
import { newestBaseBackup } from "./archive";
import { reason } from "./attempt";
import { keysOf } from "./bucket-keys";
import { archiveOf, findDatabases, majorOf } from "./database";
import { DrillCluster, DrillFailure } from "./drill/cluster";
import * as manifests from "./drill/manifests";
import type { DrillArgs } from "./drill/manifests";
import {
  lostSinceBackup,
  missingFromRestored,
  missingWithoutLive,
  parseReport,
  span,
  unlikeMastodon,
} from "./drill/verdicts";
import type { MastodonReport, RowCounts } from "./drill/verdicts";
import { kubeClient, KubeconfigFault, kubectl, unaskable, Unanswered } from "./kube";
import { copiedAt } from "./media-copied";
import { projectFolder } from "./plan";
import type { StoredLease } from "./lease/lease";
import { readLease } from "./lease/store";
import { s3Request } from "./s3";
import type { BucketKeys } from "./s3";
import type { Site } from "./site-secrets";
import { byLimit, copyLimits } from "./status/lines";
import { UserError } from "./user-error";
import { archiveName } from "../settings";
import type { Settings } from "../settings";

export interface DrillResult {
  site: string;
  /** A line for each thing that is wrong; none means that the backup restores. */
  failures: string[];
  /** What could not be tried, and why. */
  warnings: string[];
  archive: string;
  backup?: { id: string; endedAt: string };
  /** Rows by table. */
  rows: { live?: RowCounts; backup?: RowCounts; restored?: RowCounts };
  newestRow?: { at: string; ageSeconds: number };
  /** How many encrypted values were opened. */
  decryptedValues?: number;
  /** How many uploads were fetched. */
  mediaFetched?: number;
  /** Where media is on a volume: when the last whole copy of it began. */
  mediaCopy?: { at: string; ageSeconds: number };
  /** How long it took, in seconds. */
  seconds: { restore?: number; boot?: number; total: number };
}

/** Seconds: a copy leaves out what is younger than a minute, and a file is written a moment after its row. */
const copyMargin = 120;

export interface DrillOptions {
  /** Told of each step as it begins. */
  progress: (step: string) => void;
  /** Ends the drill; it cleans up all the same. */
  signal: AbortSignal;
  /** Seconds that the restore may take. @default 3600 */
  restoreSeconds?: number;
}

/**
 * Runs a drill, and leaves nothing of it behind.
 * @throws UserError when there is nothing to drill: the site is a standby, or its vault is inside its own cluster; and
 *   when the cluster does not answer, or this machine has no kubeconfig for it.
 */
export async function drill(site: Site, options: DrillOptions): Promise<DrillResult> {
  const { settings } = site;
  refuse(settings);
  const archive = archiveName(settings.site, settings.generation);
  const result: DrillResult = {
    site: settings.site,
    failures: [],
    warnings: [],
    archive,
    rows: {},
    seconds: { total: 0 },
  };
  const start = Date.now();
  let cluster: DrillCluster;
  try {
    cluster = new DrillCluster(kubeClient(settings.cluster), options.signal);
    if (await cluster.cleanUp()) options.progress("deleted what an earlier drill left");
  } catch (error) {
    // The first that the cluster is asked: where no answer comes it is the cluster's fault, and not the drill's.
    throw error instanceof UserError ? error : new UserError(clusterFault(settings, error));
  }
  let ended: Error | undefined;
  try {
    await run(site, cluster, result, options);
  } catch (error) {
    // Neither a drill that was refused nor one that was interrupted has found anything.
    if (error instanceof UserError || options.signal.aborted) ended = error as Error;
    else result.failures.push(error instanceof Unanswered ? clusterFault(settings, error) : reason(error));
  }
  options.progress("cleaning up");
  const left = await cluster.cleanUp().then(
    () => undefined,
    (error: unknown) => leftBehind(settings, error),
  );
  if (ended !== undefined) throw left === undefined ? ended : new UserError(`${reason(ended)}; ${left}`);
  if (left !== undefined) result.failures.push(left);
  result.seconds.total = since(start);
  return result;
}

/** What a cluster did not tell, or did not let a drill do, and what shows it. */
function clusterFault({ cluster, site }: Pick<Settings, "cluster" | "site">, error: unknown): string {
  if (error instanceof KubeconfigFault) return unaskable(error, site);
  const { context } = cluster;
  if (!(error instanceof Unanswered) || error.status === undefined) {
    return `the cluster of context '${context}' does not answer (${reason(error)}): ${kubectl(cluster)} get namespaces, then the same again; npx homestead doctor ${site} says more`;
  }
  const { question, says, status } = error;
  if (status !== 401 && status !== 403)
    return `the cluster of context '${context}' answers ${says}, asked to ${question}`;
  return `the user of context '${context}' may not ${question} (the cluster answers ${says}): a drill needs what an update may; ${kubectl(cluster)} auth can-i ${question} shows it`;
}

/** A copy of the whole database, with the vault's keys beside it. */
function leftBehind(settings: Pick<Settings, "cluster" | "site">, error: unknown): string {
  const why = error instanceof Unanswered ? clusterFault(settings, error) : reason(error);
  return `the drill's namespace, with its copies of the database, is not cleaned up: ${why}. To delete it: ${kubectl(settings.cluster)} delete namespace ${manifests.drillNamespace}`;
}

function refuse({ site, role, activeSite, objectStore }: Settings): void {
  if (role === "standby")
    throw new UserError(
      `${site} is the standby: its backups are made by the active site (npx homestead drill ${activeSite})`,
    );
  if (objectStore === "embedded")
    throw new UserError(`${site} keeps its vault inside its own cluster, so there is nothing that could be restored`);
}

async function run(site: Site, cluster: DrillCluster, result: DrillResult, options: DrillOptions): Promise<void> {
  const { settings, secrets } = site;
  const { progress } = options;
  const vaultKeys = keysOf(site).vault;
  const { archive, images } = await whatRuns(cluster, settings);
  result.archive = archive;
  const backup = await newestBaseBackup(settings.vault, vaultKeys, archive);
  if (backup === undefined)
    throw new DrillFailure(`the archive ${archive} in bucket '${settings.vault.bucket}' has no finished base backup`);
  result.backup = { id: backup.id, endedAt: backup.endedAt.toISOString() };
  const major = majorOf(images.postgres);
  if (backup.major !== undefined && major !== undefined && backup.major !== major)
    throw new UserError(
      `the base backup ${backup.id} in ${archive} is of Postgres ${backup.major}, and the image to restore it with is ${images.postgres}: no other major version reads its files. Set postgres in versions.ts to the one that ran (git history; pulumi stack output images --stack ${settings.site})`,
    );

  const environment = await cluster.siteEnvironment(settings.site, settings.namespace);
  progress("counting rows of the live database, and waiting for its WAL in the archive");
  await countLive(cluster, settings, result);
  options.signal.throwIfAborted();

  const copied = settings.media.kind === "volume" ? await copiedAt(site) : undefined;
  if (settings.media.kind === "volume") judgeCopy(settings, { copied, now: new Date() }, result);
  const args: DrillArgs = {
    settings: { ...settings, images },
    archive,
    backup: backup.id,
    apiServer: await cluster.apiServer(),
    environment,
    secrets,
    script: fs.readFileSync(path.join(projectFolder, "components", "drill.rb"), "utf8"),
    ...(copied === undefined ? {} : { mediaWrittenBefore: new Date(copied.getTime() - copyMargin * 1000) }),
  };
  progress(`restoring ${backup.id} of ${archive}, as it is and with all WAL since`);
  const restoreStart = Date.now();
  await cluster.create([...manifests.namespaceObjects(args), ...manifests.databaseObjects(args)]);
  const limit = options.restoreSeconds ?? 3600;
  await Promise.all(Object.values(manifests.restored).map((name) => cluster.databaseReady(name, limit)));
  result.seconds.restore = since(restoreStart);
  await compare(cluster, result);

  progress("starting Mastodon on the restored database");
  const bootStart = Date.now();
  await cluster.create(manifests.mastodonObjects(args));
  const report = parseReport(await cluster.report(900));
  const { newestStatusAt } = report;
  if (newestStatusAt !== null)
    result.newestRow = { at: newestStatusAt, ageSeconds: Math.round((Date.now() - Date.parse(newestStatusAt)) / 1000) };
  await judgeIdentity(settings, vaultKeys, report, result);
  if (report.decrypted) {
    await cluster.create([manifests.webObject(args)]);
    await cluster.webReady(600);
  }
  result.seconds.boot = since(bootStart);

  if (settings.media.kind === "volume" && copied === undefined) return;
  progress("fetching a sample of media");
  await fetchMedia(site, report.mediaSample, result);
}

/**
 * The archive that the site writes, and the images that it runs; the stack's own where it runs none. What the stack names may
 * be merged and not applied yet, which makes no backup a bad one.
 */
export async function whatRuns(
  cluster: Pick<DrillCluster, "mastodonImage">,
  settings: Settings,
): Promise<{ archive: string; images: Settings["images"] }> {
  const { site, namespace, generation, images } = settings;
  const database = (await findDatabases(settings))?.current;
  return {
    archive: (database && archiveOf(database)) ?? archiveName(site, generation),
    images: {
      ...images,
      mastodon: (await cluster.mastodonImage(namespace)) ?? images.mastodon,
      postgres: database?.spec.imageName ?? images.postgres,
    },
  };
}

/** Counts what is to be compared; without it the drill goes on, and says so. */
export async function countLive(
  cluster: Pick<DrillCluster, "countLive" | "archived">,
  settings: Pick<Settings, "cluster" | "site" | "namespace" | "archiveInterval">,
  result: Pick<DrillResult, "rows" | "failures" | "warnings">,
): Promise<void> {
  let segment: string;
  try {
    const live = await cluster.countLive(settings.namespace);
    result.rows.live = live.rows;
    segment = live.segment;
  } catch (error) {
    const why = error instanceof Unanswered ? clusterFault(settings, error) : reason(error);
    result.warnings.push(
      `nothing live was compared, so what the backup lacks of it is not known: ${why}. The restored database was compared with the base backup alone`,
    );
    return;
  }
  try {
    await cluster.archived(settings.namespace, segment, Math.max(120, 4 * settings.archiveInterval));
  } catch (error) {
    if (!(error instanceof DrillFailure)) throw error;
    // The backup is still worth trying.
    result.failures.push(`archiving does not work: ${error.message}`);
  }
}

/** Counts the restored databases, and says what they lack. */
export async function compare(
  cluster: Pick<DrillCluster, "countRestored">,
  result: Pick<DrillResult, "rows" | "failures" | "warnings">,
): Promise<void> {
  const { rows, failures, warnings } = result;
  const restored = await cluster.countRestored(manifests.restored.newest);
  const backup = await cluster.countRestored(manifests.restored.backup);
  Object.assign(rows, { restored, backup });
  const found =
    rows.live === undefined
      ? [missingWithoutLive(backup, restored)]
      : [lostSinceBackup(backup, rows.live), missingFromRestored(rows.live, restored)];
  failures.push(...found.flatMap((one) => one.failures), ...unlikeMastodon(backup, restored));
  warnings.push(...found.flatMap((one) => one.warnings));
}

/**
 * Whether the stack's identity is the one that wrote the database. What is encrypted tells only of the keys that it was
 * encrypted with (Mastodon encrypts little more than second factors), so the lease, which knows whose server it is, is
 * asked as well.
 */
export async function judgeIdentity(
  { vault, lease, fingerprint }: Pick<Settings, "vault" | "lease" | "fingerprint">,
  keys: BucketKeys,
  { decrypted, encryptedValues }: Pick<MastodonReport, "decrypted" | "encryptedValues">,
  result: Pick<DrillResult, "site" | "failures" | "warnings" | "decryptedValues">,
): Promise<void> {
  const { site, failures, warnings } = result;
  if (!decrypted) {
    failures.push(
      `the Active Record keys of stack ${site} do not open what is encrypted in the restored database: this is not the identity that wrote it`,
    );
    return;
  }
  result.decryptedValues = encryptedValues;
  const untried =
    encryptedValues === 0
      ? "nothing in the database is encrypted, so the keys were not tried"
      : "keys that nothing in the database is encrypted with were not tried";
  let stored: StoredLease | undefined;
  try {
    stored = lease === "none" ? undefined : await readLease(vault, keys);
  } catch (error) {
    failures.push(`the identity of stack ${site} cannot be compared: ${reason(error)}`);
    return;
  }
  if (stored === undefined) {
    warnings.push(`${untried}: there is no lease to compare the identity with`);
  } else if (stored.lease.fingerprint !== fingerprint) {
    failures.push(
      `the identity of stack ${site} is ${fingerprint}, and the lease is of ${stored.lease.fingerprint}: one of its keys at least is not the one that the server is run with (npx homestead identity verify)`,
    );
  } else if (encryptedValues === 0) {
    warnings.push(`${untried}; the identity has the fingerprint that the lease names`);
  }
}

/**
 * Whether what was uploaded of late is in the vault, where media is on a volume: of uploads the sample has none that the
 * last copy could lack.
 *
 * @param copied when the last whole copy began; undefined where there is none
 */
export function judgeCopy(
  { site, vault }: Pick<Settings, "site" | "vault">,
  { copied, now }: { copied: Date | undefined; now: Date },
  result: Pick<DrillResult, "failures" | "warnings" | "mediaCopy">,
): void {
  if (copied === undefined) {
    result.failures.push(
      `${copiedKey(site)} is not in bucket '${vault.bucket}', or not for these keys: the media volume was never copied whole`,
    );
    return;
  }
  const ageSeconds = Math.max(0, Math.round((now.getTime() - copied.getTime()) / 1000));
  result.mediaCopy = { at: copied.toISOString(), ageSeconds };
  const verdict = byLimit(ageSeconds, copyLimits);
  if (verdict === "ok") return;
  const says = `the media volume's last whole copy is ${span(ageSeconds)} old: of what was uploaded since, the vault may have nothing`;
  (verdict === "fault" ? result.failures : result.warnings).push(says);
}

/**
 * Fetches uploads from where a restored server would have them: the media bucket, or the copy of a volume.
 *
 * @param sample as Mastodon names their files
 */
export async function fetchMedia(
  { settings, secrets }: { settings: Pick<Settings, "media" | "vault">; secrets: Site["secrets"] },
  sample: readonly string[],
  result: Pick<DrillResult, "failures" | "warnings" | "mediaFetched">,
): Promise<void> {
  const { media, vault } = settings;
  if (sample.length === 0) {
    const which = media.kind === "volume" ? "uploads that the volume's copy should have" : "uploads";
    result.warnings.push(`the database knows of no ${which}, so none was fetched`);
    return;
  }
  const keys = keysOf({ secrets }).media;
  const bucket = media.kind === "volume" ? vault : media;
  let fetched = 0;
  for (const name of sample) {
    const key = (media.kind === "volume" ? filesPrefix : "") + withinMedia(name);
    try {
      const response = await s3Request(bucket, keys, "GET", { key });
      const { byteLength } = await response.arrayBuffer();
      if (!response.ok) result.failures.push(`upload ${key} is not in bucket '${bucket.bucket}': ${response.status}`);
      else if (byteLength === 0) result.failures.push(`upload ${key} in bucket '${bucket.bucket}' is empty`);
      else fetched++;
    } catch (error) {
      result.failures.push(`upload ${key} cannot be fetched from bucket '${bucket.bucket}': ${reason(error)}`);
    }
  }
  result.mediaFetched = fetched;
}

/** Paperclip names a file by its key in a bucket, and by its path on a volume. */
const withinMedia = (name: string): string => name.replace(/^.*\/public\/system\//, "").replace(/^\//, "");

const since = (start: number): number => Math.round((Date.now() - start) / 100) / 10;
