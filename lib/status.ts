/** A site at a glance. Each part is asked by itself: what is dead is one line, and the others still answer. */
import * as net from "node:net";
import { queues as mastodonQueues } from "../components/mastodon";
import { copiedKey } from "../components/media-copy";
import { newestBaseBackup, newestSegment, segmentsBehind } from "./archive";
import { findDatabases } from "./database";
import { span } from "./drill/verdicts";
import { kubeClient } from "./kube";
import type { StoredLease } from "./lease/lease";
import { readLease } from "./lease/store";
import { bucketFault, s3Request } from "./s3";
import type { Site } from "./site-secrets";
import { StatusCluster } from "./status/cluster";
import { addressesOf, certificateDays, ownAddresses } from "./status/edge";
import { filesLine, gateLine, journalLine, lagLine, leaseLine } from "./status/lease";
import * as lines from "./status/lines";
import type { ServerStatus, SiteStatus, StatusLine } from "./status/lines";
import { JournalStore } from "./switch/journal";
import { archiveName } from "../settings";
import type { Settings } from "../settings";

const { line } = lines;
const limit = 20;

export interface StatusOptions {
  /** DNS servers to begin with. @default this machine's own */
  resolvers?: readonly string[];
}

/** The server as a whole, as the vault of one of its sites tells. Never throws. */
export async function serverStatus(site: Site): Promise<ServerStatus> {
  const { settings } = site;
  const at = new Date();
  const result = (all: StatusLine[], stored?: StoredLease): ServerStatus => ({
    at: at.toISOString(),
    verdict: lines.worst(all.map(({ verdict }) => verdict)),
    lines: all,
    ...(stored === undefined ? {} : { activeSite: stored.lease.activeSite, epoch: stored.lease.epoch }),
  });
  if (settings.lease === "none") {
    return result([line("lease", "active site", "ok", `${settings.site}, which has no other site and no lease`)]);
  }
  const keys = vaultKeys(site);
  try {
    const [stored, journal] = await inTime(
      Promise.all([readLease(settings.vault, keys), new JournalStore(settings.vault, keys).read()]),
    );
    const rest = stored && [filesLine(settings, stored, journal), journalLine(journal, stored, at.getTime() / 1000)];
    return result([leaseLine(stored), ...(rest ?? [])], stored);
  } catch (error) {
    return result([line("lease", "active site", "fault", `cannot be read: ${reason(error)}`)]);
  }
}

const vaultKeys = ({ secrets }: Site) => ({
  accessKeyId: secrets.vaultAccessKeyId ?? "",
  secretAccessKey: secrets.vaultSecretAccessKey ?? "",
});

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
    certificateLines(settings, now),
    dnsLines(settings, options.resolvers),
    mediaLines(site, now),
  ]);
  // The database knows better what is archived; the vault is asked for who has no database any more.
  const wal = cluster.wal ?? (backup.segmentAge === undefined ? undefined : segmentOnly(archive, backup.segmentAge));
  const loss = wal === undefined ? [] : [lines.lossLine(wal.lossSeconds, settings.archiveInterval)];
  const all = [
    ...cluster.lines,
    ...backup.lines,
    ...(wal === undefined ? [] : [wal.line]),
    ...loss,
    ...certificates,
    ...dns,
    ...media,
  ];
  return {
    site: settings.site,
    role: settings.role,
    at: at.toISOString(),
    verdict: lines.worst(all.map(({ verdict }) => verdict)),
    lines: all,
    ...(wal === undefined ? {} : { lossSeconds: wal.lossSeconds }),
  };
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
    return await inTime(work());
  } catch (error) {
    return [line(area, what, "fault", reason(error))];
  }
}

async function clusterLines(site: Site, archive: string, now: number): Promise<{ lines: StatusLine[]; wal?: Wal }> {
  const { settings } = site;
  const { cluster: access, namespace, role, archiveInterval } = settings;
  let cluster: StatusCluster;
  let version: string;
  try {
    cluster = new StatusCluster(kubeClient(access), namespace);
    version = await inTime(cluster.version());
  } catch (error) {
    const says = `context '${access.context}' does not answer: ${reason(error)}; nothing in it can be asked`;
    return { lines: [line("cluster", access.context, "fault", says)] };
  }
  let wal: Wal | undefined;
  const database = (await inTime(findDatabases(settings)).catch(() => undefined))?.name ?? "";
  const parts = await Promise.all([
    attempt("pods", namespace, () => workloadLines(cluster, settings, now)),
    settings.lease === "vault" ? attempt("lease", "gate", () => gateLines(cluster, site)) : [],
    attempt("database", database, () => databaseLines(cluster, database)),
    role === "standby" ? attempt("database", "follows", () => lagLines(cluster, database, site, archive)) : [],
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
  ]);
  const head = line("cluster", access.context, "ok", `Kubernetes ${version}`);
  return { lines: [head, ...parts.flat()], ...(wal === undefined ? {} : { wal }) };
}

/** What a site must run, with the image that its stack names. */
function expected({ role, images }: Settings): Record<string, string | undefined> {
  const active = {
    "mastodon-web": images.mastodon,
    "mastodon-sidekiq-all-queues": images.mastodon,
    "mastodon-streaming": images["mastodon-streaming"],
    valkey: images.valkey,
    "valkey-cache": images.valkey,
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
    readLease(site.settings.vault, vaultKeys(site)).catch(() => undefined),
  ]);
  return [gateLine(site.settings.site, running, stored)];
}

async function lagLines(cluster: StatusCluster, database: string, site: Site, archive: string): Promise<StatusLine[]> {
  const { vault, archiveInterval } = site.settings;
  const [replayed, newest] = await Promise.all([
    cluster.replayed(database),
    newestSegment(vault, vaultKeys(site), archive),
  ]);
  if (replayed === undefined) return [line("database", "follows", "fault", "it does not follow: it writes by itself")];
  return [lagLine(archive, newest === undefined ? 0 : segmentsBehind(newest.name, replayed), archiveInterval)];
}

async function databaseLines(cluster: StatusCluster, name: string): Promise<StatusLine[]> {
  const state = await cluster.database(name);
  if (state === undefined) return [line("database", name, "fault", "is not there: pulumi up")];
  return [
    line("database", name, state.ready ? "ok" : "fault", state.phase),
    ...Object.entries(state.troubles).map(([condition, message]) => line("database", condition, "fault", message)),
  ];
}

async function backupLines(
  site: Site,
  archive: string,
  now: number,
): Promise<{ lines: StatusLine[]; segmentAge?: number }> {
  const { vault, objectStore } = site.settings;
  if (objectStore === "embedded")
    return { lines: [line("backup", "vault", "warning", "inside the cluster that it should outlive")] };
  const keys = vaultKeys(site);
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

async function certificateLines({ apex, webHost, ingress }: Settings, now: number): Promise<StatusLine[]> {
  const each = [apex, webHost].map((host) =>
    attempt("certificates", host, async () => [
      lines.certificateLine(host, await certificateDays(ingress.address, host, now)),
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

async function mediaLines({ settings, secrets }: Site, now: number): Promise<StatusLine[]> {
  const { media, vault, activeSite, objectStore } = settings;
  if (objectStore === "embedded") return [];
  const keys = { accessKeyId: secrets.mediaAccessKeyId ?? "", secretAccessKey: secrets.mediaSecretAccessKey ?? "" };
  if (media.kind === "volume") {
    return attempt("media", "copy in the vault", async () => {
      const response = await s3Request(vault, keys, "GET", { key: copiedKey(activeSite) });
      const age = now - Date.parse((await response.text()).trim()) / 1000;
      if (!response.ok || Number.isNaN(age)) return [line("media", "copy in the vault", "fault", "there is none yet")];
      const verdict = lines.byLimit(age, { warning: 3600, fault: 24 * 3600 });
      return [line("media", "copy in the vault", verdict, `${span(age)} old`)];
    });
  }
  const fault = await bucketFault(media, keys);
  return [line("media", media.bucket, fault === undefined ? "ok" : "fault", fault ?? "there, and the keys open it")];
}

/** An API server that is gone lets a request wait for minutes. */
async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limit} s`)), limit * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

const reason = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return (cause instanceof Error ? cause.message : String(cause)).split("\n")[0] ?? "";
};
