/** The server and its sites at a glance. Each part is asked by itself: what is dead is one line, and the others still answer. */
import * as net from "node:net";
import { queues as mastodonQueues } from "../components/mastodon";
import {
  archivesIn,
  cannotFollow,
  gapBehind,
  newestBaseBackup,
  newestSegment,
  partedAt,
  removed,
  segmentsBehind,
} from "./archive";
import { reason, within } from "./attempt";
import { keysOf } from "./bucket-keys";
import { clusterName, findDatabases, isAsleep } from "./database";
import type { DatabaseObject } from "./database";
import { kubeClient, KubeconfigFault, kubectl, unaskable } from "./kube";
import type { StoredLease } from "./lease/lease";
import { readLease } from "./lease/store";
import { copiedAt, youngest } from "./media-copied";
import { bucketFault } from "./s3";
import type { Site } from "./site-secrets";
import { StatusCluster } from "./status/cluster";
import { addressesOf, certificateDays, ownAddresses } from "./status/edge";
import { askedFromHere } from "./verify/target";
import { filesLine, gateLine, journalLine, lagLine, leaseLine } from "./status/lease";
import * as lines from "./status/lines";
import type { Loss, ServerStatus, SiteStatus, Status, StatusLine } from "./status/lines";
import { openStacks } from "./status/stacks";
import type { Opened } from "./status/stacks";
import { JournalStore } from "./switch/journal";
import { archiveName } from "../settings";
import type { Settings } from "../settings";

const { line } = lines;
/** Seconds that a part may take. */
const limit = 20;
/** Seconds for an API server's first word. One that is gone lets a request wait for minutes. */
const firstWord = 8;

export interface StatusOptions {
  /** DNS servers to begin with. @default this machine's own */
  resolvers?: readonly string[];
}

/**
 * All that there is to say about the server and the given sites.
 *
 * @throws UserError when not one stack can be read
 */
export async function statusOf(names: readonly string[], options: StatusOptions = {}): Promise<Status> {
  const { keys, stacks } = await openStacks(names);
  const sites = Promise.all(stacks.map((stack) => stackStatus(stack, keys, options)));
  const server = await serverStatus(keys, sites);
  return { server, sites: await sites };
}

/** A stack that cannot be opened is a fault, and what its file names is asked all the same. */
async function stackStatus({ name, site, fault }: Opened, keys: Site, options: StatusOptions): Promise<SiteStatus> {
  const seen: SiteStatus =
    site === undefined
      ? {
          site: name,
          role: name === keys.settings.activeSite ? "active" : "standby",
          at: new Date().toISOString(),
          verdict: "ok",
          lines: [],
        }
      : await siteStatus(site, options);
  if (fault === undefined) return seen;
  return { ...seen, verdict: "fault", lines: [line("stack", name, "fault", fault), ...seen.lines] };
}

/**
 * The server as a whole, as the vault of one of its sites tells. Never throws.
 *
 * @param asked what was found out about its sites, all or one of them
 */
export async function serverStatus(site: Site, asked: Promise<readonly SiteStatus[]>): Promise<ServerStatus> {
  const { settings } = site;
  const at = new Date();
  const { stored, lines: lease } = await leaseLines(site, at.getTime() / 1000);
  const sites = await asked;
  const all = [...lease, ...sites.flatMap(({ follows }) => follows ?? []), ...(await lossLines(site, stored, sites))];
  return {
    at: at.toISOString(),
    verdict: lines.worst(all.map(({ verdict }) => verdict)),
    lines: all,
    ...(stored === undefined ? {} : { activeSite: stored.lease.activeSite, epoch: stored.lease.epoch }),
    ...(settings.lease === "none" ? { activeSite: settings.site } : {}),
  };
}

async function leaseLines(site: Site, now: number): Promise<{ stored: StoredLease | undefined; lines: StatusLine[] }> {
  const { vault, lease, site: name } = site.settings;
  if (lease === "none") {
    const says = `${name}, which has no other site and no lease`;
    return { stored: undefined, lines: [line("lease", "active site", "ok", says)] };
  }
  const keys = keysOf(site).vault;
  const [stored, journal, archives] = await Promise.allSettled([
    within(limit, readLease(vault, keys)),
    within(limit, new JournalStore(vault, keys).read()),
    within(limit, archivesIn(vault, keys)),
  ]);
  const found = stored.status === "fulfilled" ? stored.value : undefined;
  const open = journal.status === "fulfilled" ? journal.value : undefined;
  // A vault that cannot be listed is named by the lines of its backups.
  const known = archives.status === "fulfilled" ? archives.value : [];
  return {
    stored: found,
    lines: [
      stored.status === "fulfilled"
        ? leaseLine(found)
        : line("lease", "active site", "fault", `cannot be read: ${reason(stored.reason)}`),
      ...(found === undefined ? [] : [filesLine(site.settings, found, open, known)]),
      journal.status === "fulfilled"
        ? journalLine(open, found, now)
        : line("lease", "switch", "fault", `the journal cannot be read: ${reason(journal.reason)}`),
    ],
  };
}

/** What would be lost if the active site went now: it knows itself, or the vault does. */
async function lossLines(
  site: Site,
  stored: StoredLease | undefined,
  sites: readonly SiteStatus[],
): Promise<StatusLine[]> {
  const { vault, objectStore, archiveInterval, generations, lease, ...settings } = site.settings;
  const active = lease === "none" ? settings.site : (stored?.lease.activeSite ?? settings.activeSite);
  const known = sites.find((one) => one.site === active)?.loss;
  if (known !== undefined) return [lines.lossLine(active, known, archiveInterval)];
  if (objectStore === "embedded") return [];
  const archive = archiveName(active, generations[active] ?? 1);
  return attempt("backup", `lost if ${active} went now`, async () => {
    const newest = await newestSegment(vault, keysOf(site).vault, archive);
    if (newest === undefined) return [lines.segmentLine(archive, undefined)];
    const seconds = Math.max(0, Math.round((Date.now() - newest.archivedAt.getTime()) / 1000));
    const { uploads } = await mediaStatus(
      { ...site, settings: { ...site.settings, activeSite: active } },
      Date.now() / 1000,
    );
    return [lines.lossLine(active, lossOf(seconds, "vault", uploads), archiveInterval)];
  });
}

const lossOf = (seconds: number, knownBy: Loss["knownBy"], uploads: Loss["uploads"]): Loss => ({
  seconds,
  knownBy,
  ...(uploads === undefined ? {} : { uploads }),
});

/** A site that exists only when it is needed. */
const isCold = ({ role, standby }: Pick<Settings, "role" | "standby">) => role === "standby" && standby === "cold";

/** Never throws for what is wrong with the site: that is what its lines are for. */
export async function siteStatus(site: Site, options: StatusOptions = {}): Promise<SiteStatus> {
  const { settings } = site;
  const at = new Date();
  const now = at.getTime() / 1000;
  const archive = archiveName(settings.activeSite, settings.generations[settings.activeSite] ?? 1);
  const [cluster, backup, certificates, dns, media] = await Promise.all([
    clusterLines(site, archive, now),
    // A standby makes no backups, and what would be lost is the active site's.
    settings.role === "active" ? backupLines(site, archive, now) : none,
    isCold(settings) ? [] : certificateLines(settings, now),
    dnsLines(settings, options.resolvers),
    mediaStatus(site, now),
  ]);
  // The database knows better what is archived; the vault is asked for who has no database any more.
  const wal = cluster.wal ?? (backup.segmentAge === undefined ? undefined : segmentOnly(archive, backup.segmentAge));
  const knownBy: Loss["knownBy"] = cluster.wal === undefined ? "vault" : "database";
  const all = [
    ...maintenanceLines(settings),
    ...cluster.lines,
    ...backup.lines,
    ...(wal === undefined ? [] : [wal.line]),
    ...certificates,
    ...dns,
    ...media.lines,
  ];
  return {
    site: settings.site,
    role: settings.role,
    at: at.toISOString(),
    verdict: lines.worst(all.map(({ verdict }) => verdict)),
    lines: all,
    ...(wal === undefined ? {} : { loss: lossOf(wal.lossSeconds, knownBy, media.uploads) }),
    ...(cluster.follows === undefined ? {} : { follows: cluster.follows }),
  };
}

/** Nothing else would say that it is meant to be so. */
function maintenanceLines({ role, maintenance, site }: Settings): StatusLine[] {
  if (role === "standby" || maintenance === "off") return [];
  const what = maintenance === "web" ? "web and streaming are" : "all of Mastodon is";
  const says = `${maintenance}: ${what} stopped; pulumi config rm homestead:maintenance --stack ${site}, then pulumi up`;
  return [line("stack", "maintenance", "warning", says)];
}

const none: Awaited<ReturnType<typeof backupLines>> = { lines: [] };

type Wal = ReturnType<typeof lines.archiverLine>;

const segmentOnly = (archive: string, age: number): Wal => ({
  line: lines.segmentLine(archive, age),
  lossSeconds: Math.round(age),
});

/** Runs a part; what it throws becomes a fault of the given area. */
async function attempt(area: string, what: string, work: () => Promise<StatusLine[]>): Promise<StatusLine[]> {
  try {
    return await within(limit, work());
  } catch (error) {
    return [line(area, what, "fault", reason(error))];
  }
}

interface ClusterStatus {
  lines: StatusLine[];
  wal?: Wal;
  follows?: StatusLine;
}

async function clusterLines(site: Site, archive: string, now: number): Promise<ClusterStatus> {
  const { settings } = site;
  const { cluster: access, namespace, role, archiveInterval, generation } = settings;
  let cluster: StatusCluster;
  let version: string;
  try {
    cluster = new StatusCluster(kubeClient(access), namespace);
    version = await within(firstWord, cluster.version());
  } catch (error) {
    return silentCluster(settings, archive, error);
  }
  let wal: Wal | undefined;
  let follows: StatusLine | undefined;
  const databases = await within(limit, findDatabases(settings)).catch(() => undefined);
  const database = databases?.name ?? clusterName(generation);
  const parts = await Promise.all([
    attempt("pods", namespace, () => workloadLines(cluster, settings, now)),
    settings.lease === "vault" ? attempt("lease", "gate", () => gateLines(cluster, site)) : [],
    attempt("database", database, () => databaseLines(cluster, database, settings, now)),
    role === "standby"
      ? attempt("database", `${settings.site} follows`, async () => [
          databases?.current === undefined && isCold(settings)
            ? coldLine(settings, archive)
            : await followsLine(cluster, database, site, archive),
        ]).then((found) => {
          follows = found[0];
          return [];
        })
      : [],
    role === "active"
      ? attempt("database", "archiver", async () => {
          wal = lines.archiverLine(await cluster.archiver(database), archiveInterval);
          return [];
        })
      : [],
    role === "active"
      ? attempt("queues", "valkey", async () => {
          const names = mastodonQueues.map((queue) => queue.split(",")[0] ?? queue);
          return lines.queueLines(lines.parseQueues(await cluster.queues(names), now), now);
        })
      : [],
    settings.media.kind === "volume" && !isCold(settings)
      ? attempt("media", "copying", async () => {
          const look = `${kubectl(access)} -n ${namespace} logs job/`;
          return [lines.copyRunsLine(await cluster.copyRuns(), now, look)];
        })
      : [],
  ]);
  const former = (databases?.former ?? []).map((object) => formerLine(settings, object));
  const head = line("cluster", access.context, "ok", `Kubernetes ${version}`);
  return {
    lines: [head, ...parts.flat(), ...former],
    ...(wal === undefined ? {} : { wal }),
    ...(follows === undefined ? {} : { follows }),
  };
}

/** Whoever deletes an old database looks here first: where the number is raised and no update has run, it federates. */
function formerLine({ site, generation }: Settings, object: DatabaseObject): StatusLine {
  const { name } = object.metadata;
  if (isAsleep(object)) return line("database", name, "ok", "of an earlier generation: kept, asleep");
  const mend = `pulumi up --stack ${site} puts it to sleep when that of generation ${generation} is there, or says why it cannot`;
  return line("database", name, "warning", `of an earlier generation, and RUNS: do not delete it; ${mend}`);
}

/** A cluster that says nothing. A cold standby's need not be there. */
function silentCluster(settings: Settings, archive: string, error: unknown): ClusterStatus {
  const { cluster, role, site } = settings;
  const asked = !(error instanceof KubeconfigFault);
  const says = asked ? `context '${cluster.context}' does not answer: ${reason(error)}` : reason(error);
  if (isCold(settings)) {
    const cold = line("cluster", cluster.context, "ok", `${says}; it need not, this standby is cold`);
    return { lines: [cold], follows: coldLine(settings, archive) };
  }
  const nothing = "nothing in it can be asked";
  const fault = asked ? `${says}; ${nothing}` : `${nothing}: ${unaskable(error, site)}`;
  const head = line("cluster", cluster.context, "fault", fault);
  if (role === "active") return { lines: [head] };
  const follows = line("database", `${site} follows`, "fault", "its cluster does not answer");
  return { lines: [head], follows };
}

const coldLine = ({ site }: Settings, archive: string) =>
  line("database", `${site} follows`, "ok", `it is cold: at a switch its database begins from ${archive}`);

/** What a site must run, with the image that its stack names. */
function expected(settings: Settings): Record<string, string | undefined> {
  const { role, images, search } = settings;
  if (isCold(settings)) return {};
  const active = {
    "mastodon-web": images.mastodon,
    "mastodon-sidekiq-all-queues": images.mastodon,
    "mastodon-streaming": images["mastodon-streaming"],
    valkey: images.valkey,
    "valkey-cache": images.valkey,
    ...(search.kind === "off" ? {} : { search: images.elasticsearch }),
  };
  return { ...(role === "active" ? active : {}), blog: undefined };
}

async function workloadLines(cluster: StatusCluster, settings: Settings, now: number): Promise<StatusLine[]> {
  const found = await cluster.workloads(now);
  const wanted = expected(settings);
  const missing = Object.keys(wanted).filter((name) => !found.some((load) => load.name === name));
  return [
    ...found.map((load) => lines.workloadLine(load, wanted[load.name])),
    ...missing.map((name) => line("pods", name, "fault", "is not there: pulumi up")),
  ];
}

/** Both sites' gates are looked at: one that was lost may be back, and runs as what it was. */
async function gateLines(cluster: StatusCluster, site: Site): Promise<StatusLine[]> {
  const [running, stored] = await Promise.all([
    cluster.running(),
    readLease(site.settings.vault, keysOf(site).vault).catch(() => undefined),
  ]);
  return [gateLine(site.settings, running, stored)];
}

async function followsLine(cluster: StatusCluster, database: string, site: Site, archive: string): Promise<StatusLine> {
  const { vault, archiveInterval, site: name } = site.settings;
  const [replayed, newest] = await Promise.all([
    cluster.replayed(database),
    newestSegment(vault, keysOf(site).vault, archive),
  ]);
  if (replayed === undefined) {
    const says = `it does not, it writes by itself: pulumi up --stack ${name} makes it follow, or says why it cannot`;
    return line("database", `${name} follows`, "fault", says);
  }
  const parted = await partedAt(vault, keysOf(site).vault, archive, replayed);
  if (parted !== undefined) {
    return line("database", `${name} follows`, "fault", `it ${cannotFollow(archive, parted, site.settings)}`);
  }
  const behind = newest === undefined ? 0 : segmentsBehind(newest.name, replayed);
  const gap = behind === 0 ? undefined : await gapBehind(vault, keysOf(site).vault, archive, replayed);
  if (gap?.bridged === true) {
    const says = `it ${cannotFollow(archive, removed(archive, gap), site.settings)}`;
    return line("database", `${name} follows`, "fault", says);
  }
  const lag = {
    archive,
    ...(replayed.age === undefined ? {} : { replayedAge: replayed.age }),
    ...(newest === undefined
      ? {}
      : {
          behind,
          archivedAge: Math.max(0, (Date.now() - newest.archivedAt.getTime()) / 1000),
        }),
  };
  return lagLine(name, lag, archiveInterval);
}

async function databaseLines(
  cluster: StatusCluster,
  name: string,
  settings: Settings,
  now: number,
): Promise<StatusLine[]> {
  const state = await cluster.database(name, now);
  if (state === undefined) {
    if (isCold(settings)) return [];
    return [line("database", name, "fault", "is not there: pulumi up")];
  }
  return lines.databaseLines(name, state, settings.images.postgres);
}

async function backupLines(
  site: Site,
  archive: string,
  now: number,
): Promise<{ lines: StatusLine[]; segmentAge?: number }> {
  const { vault, objectStore } = site.settings;
  if (objectStore === "embedded")
    return { lines: [line("backup", "vault", "warning", "inside the cluster that it should outlive")] };
  const keys = keysOf(site).vault;
  const age = (moment: Date) => now - moment.getTime() / 1000;
  const fault = await bucketFault(vault, keys);
  if (fault !== undefined) return { lines: [line("backup", "vault", "fault", fault)] };
  let segmentAge: number | undefined;
  const made = await attempt("backup", "vault", async () => {
    const [base, segment] = await Promise.all([
      newestBaseBackup(vault, keys, archive),
      newestSegment(vault, keys, archive),
    ]);
    segmentAge = segment && age(segment.archivedAt);
    return [lines.baseBackupLine(archive, base && age(base.endedAt))];
  });
  return { lines: made, ...(segmentAge === undefined ? {} : { segmentAge }) };
}

async function certificateLines(settings: Settings, now: number): Promise<StatusLine[]> {
  const { apex, webHost } = settings;
  const each = [apex, webHost].map((host) =>
    attempt("certificates", host, async () => [
      lines.certificateLine(host, await certificateDays(askedFromHere(settings), host, now)),
    ]),
  );
  return (await Promise.all(each)).flat();
}

async function dnsLines(settings: Settings, resolvers: readonly string[] = []): Promise<StatusLine[]> {
  const { apex, webHost, ingress, role } = settings;
  const family = net.isIPv6(ingress.address) ? 6 : 4;
  const own = await ownAddresses(ingress.address, resolvers).catch(() => [ingress.address]);
  const each = [apex, webHost].map((name) =>
    attempt("dns", name, async () => [lines.dnsLine(await addressesOf(name, family, resolvers), own, role)]),
  );
  return (await Promise.all(each)).flat();
}

/** `uploads`: what the copy of a volume lacks. */
interface MediaStatus extends Pick<Loss, "uploads"> {
  lines: StatusLine[];
}

async function mediaStatus(site: Site, now: number): Promise<MediaStatus> {
  const { media, objectStore } = site.settings;
  if (objectStore === "embedded") return { lines: [] };
  if (media.kind === "volume") {
    let uploads: Loss["uploads"] = "unknown";
    const copy = await attempt("media", "copy in the vault", async () => {
      const copied = await copiedAt(site);
      const age = copied && Math.max(0, now - copied.getTime() / 1000);
      uploads = age === undefined ? "all" : Math.round(age + youngest);
      return [lines.mediaCopyLine(age)];
    });
    return { lines: copy, uploads };
  }
  const fault = await bucketFault(media, keysOf(site).media);
  const says = fault ?? "there, and the keys open it";
  return { lines: [line("media", media.bucket, fault === undefined ? "ok" : "fault", says)] };
}
