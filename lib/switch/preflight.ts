/** What is looked at before a switch begins: everything that would stop it half-way. Nothing is changed. */
import {
  archivesIn,
  cannotFollow,
  gapBehind,
  newestBaseBackup,
  newestGeneration,
  newestSegment,
  partedAt,
  removed,
  segmentsBehind,
  timelineQuery,
} from "../archive";
import type { Position } from "../archive";
import { dnsRecords } from "../../components/dns";
import { Late, reason, within } from "../attempt";
import { keysOf } from "../bucket-keys";
import { siteFaults } from "../checks";
import { asksOverHttp } from "../doctor/issuer";
import { findDatabases } from "../database";
import type { DatabaseObject, Databases } from "../database";
import { span } from "../drill/verdicts";
import { bytes, quantity } from "../doctor/capacity";
import { kubeClient, kubectl, statusOf, unaskable } from "../kube";
import { kubernetes } from "../kubernetes";
import type { Lease } from "../lease/lease";
import { readLease } from "../lease/store";
import { execInPod } from "../pod-exec";
import { tagAlone } from "../pods";
import type { Site } from "../site-secrets";
import { StatusCluster } from "../status/cluster";
import { archiverLine, parseQueues } from "../status/lines";
import { archiveName, formatFaults, SettingsError } from "../../settings";
import type { Settings, SiteName } from "../../settings";
import { clockFault, readClocks } from "./clocks";
import type { Kind } from "./journal";
import type { TargetDatabase } from "./steps";
import { differences, mediaDifference, sameImage, takeoverDifferences } from "./versions";
import type { Ran } from "./versions";

/**
 * Segments that a standby may be behind: before a planned switch, since the old site would be stopped while it catches up,
 * and the token holds it back until it has; without a token, none: what it has not replayed by then is lost.
 */
const mostBehind: Record<Kind, number> = { planned: 40, lost: 0, dead: 0 };
/** A base backup is made every night. */
const oldBackupSeconds = 36 * 3600;
/** Per cent of the database's volume. */
const fullAt = 90;

export interface Findings {
  /** What must be mended first. */
  faults: string[];
  /** What the operator should know. */
  warnings: string[];
  database: TargetDatabase;
  /** The generation that the target will have. */
  generation: number;
  /** What will be lost, in words; nothing for a planned switch. */
  loss?: string;
}

export interface Question {
  kind: Kind;
  from: SiteName;
  target: Site;
  /** The old site, where its stack can be read. A planned switch needs it. */
  old: Site | undefined;
  lease: Lease;
  /** What the old site ran last, where its stack says so: for a takeover, which cannot ask it. */
  ran?: Ran | undefined;
  /** Whether the target's database begins anew for this switch, which waits until it has caught up. */
  catchesUp?: boolean;
}

/**
 * Reads the old site's stack. One that is gone may be taken over from without it; but then its cluster is not asked.
 *
 * @throws Error before a planned switch, which needs it; with `dead`, SettingsError where the stack only wants mending
 */
export async function oldSite(
  from: SiteName,
  kind: Kind,
  load: (site: SiteName) => Promise<Site>,
): Promise<{ old: Site | undefined; warning?: string }> {
  try {
    return { old: await load(from) };
  } catch (error) {
    // A stack that can be read wants mending: nobody would ask its cluster, and with `dead` that is all that is looked at.
    if (kind === "planned" || (kind === "dead" && error instanceof SettingsError)) throw error;
    const warning = `the stack ${from} cannot be read (${reason(error)}): nobody has asked ${from}'s cluster whether it still runs`;
    return { old: undefined, warning };
  }
}

/** Never throws for what is wrong with the sites: that is what the faults are for. */
export async function preflight(question: Question): Promise<Findings> {
  const { kind, from, target, old, lease, ran, catchesUp = false } = question;
  const { settings } = target;
  const [faultsThere, faultsHere, reach, databases] = await Promise.all([
    siteFaults(settings, keysOf(target), { purpose: "switch", then: "active" }),
    // As the first step will ask it: a release that is yet to be made would be refused there.
    old !== undefined && kind === "planned" ? siteFaults(old.settings, keysOf(old), { purpose: "handover" }) : [],
    old === undefined ? silent : reachable(old.settings),
    findDatabases(settings),
  ]);
  const there = notThatKind({ kind, from, target: settings.site, ...reach });
  const faults = [
    ...(faultsThere.length > 0 ? [formatFaults(settings.site, faultsThere)] : []),
    ...(faultsHere.length > 0 ? [formatFaults(from, faultsHere)] : []),
    ...("refused" in there ? [there.refused] : []),
  ];
  const { fingerprint } = settings;
  if (old !== undefined && old.settings.fingerprint !== fingerprint) {
    faults.push(
      `the two stacks have different identities (${from}: ${old.settings.fingerprint}, ${settings.site}: ${fingerprint}): npx homestead identity verify`,
    );
  }
  const warnings = "warning" in there ? [there.warning] : [];
  const media = old === undefined ? [] : mediaDifference(old.settings, settings);
  if (kind === "planned") {
    if (old !== undefined) faults.push(...differences(old.settings, settings), ...media);
  } else {
    // A server without its old pictures is better than none.
    warnings.push(...media);
    if (ran !== undefined) faults.push(...takeoverDifferences(from, ran, settings));
    else {
      warnings.push(
        `the stack ${from} does not say which images it ran, and ${settings.site} takes over with ${settings.images.mastodon}: an upgrade in passing, or a way back, is not noticed (docs/runbooks/lost-home.md)`,
      );
    }
  }
  if (databases === undefined) {
    const { cluster, namespace, site, generation } = settings;
    const look = `${kubectl(cluster)} -n ${namespace} get clusters.postgresql.cnpg.io`;
    // What the checks could not ask they have told themselves.
    if (!faultsThere.some(({ key }) => /^homestead:cluster\.(context|kubeconfig)$/.test(key)))
      faults.push(`${site}'s cluster does not say which databases it has: ${look}; then the same again`);
    // Any guess is wrong: one that is there and well would be put to sleep, and begun anew.
    return { faults, warnings, database: "missing", generation };
  }
  const source = archiveName(from, settings.generations[from] ?? 1);
  const state = stateOf(databases, settings.site);
  const archives = await archivesIn(settings.vault, keysOf(target).vault).catch((error: unknown) => {
    faults.push(`the vault does not say which archives there are: ${reason(error)}`);
    return [];
  });
  const asked = state === "follows" ? standby(target, source, databases.current, { kind }) : undefined;
  const standing = asked?.catch((error: unknown): Standing => ({ finding: { fault: reason(error) } }));
  const parts: Promise<Finding>[] = [
    backup(target, source, state === "follows" ? "follows" : "begins"),
    ...(standing === undefined ? [] : [standing.then(({ finding }) => finding)]),
    ...(kind === "planned" && old !== undefined ? [archiving(old), volume(old), saving(old)] : []),
    ...(state === "parted" ? [roomToBegin(target, databases.current, kind === "planned" ? old : undefined)] : []),
    ...(old === undefined ? [] : [oneVault(target, old)]),
    certificates(settings, kind, state),
    images(settings),
    clocks(target, kind === "planned" ? old : undefined),
  ];
  // Caught where they begin: one that fails while another is awaited would end the command.
  const caught = parts.map((part) => part.catch((error: unknown): Finding => ({ fault: reason(error) })));
  for (const found of await Promise.all(caught)) {
    if ("fault" in found) (kind === "planned" ? faults : warnings).push(found.fault);
    if ("awaited" in found) {
      if (kind === "planned" && !catchesUp) faults.push(`${found.awaited}: wait until it has caught up`);
      else warnings.push(`${found.awaited}: the switch waits until it has caught up`);
    }
    // Nor may a lost site be taken over with it: it would bring back what was undone.
    if ("always" in found) faults.push(found.always);
    if ("warning" in found) warnings.push(found.warning);
  }
  if (lease.fingerprint !== fingerprint) faults.push(`the lease is of another identity: ${lease.fingerprint}`);
  return {
    faults,
    warnings,
    database: state,
    generation: generationFor(state, settings, archives),
    ...(kind === "planned" ? {} : { loss: await lossOf(target, from, source, state, (await standing)?.reached) }),
  };
}

/** What a site's cluster holds, as seen from the site that is active now. Pure. */
export function stateOf({ current }: Pick<Databases, "current">, site: string): TargetDatabase {
  if (current === undefined) return "missing";
  // Its own name as primary: it wrote last, and nobody has demoted it.
  return current.spec.replica?.primary === site ? "parted" : "follows";
}

/** A database that begins anew needs an archive that nobody has written to, nor to a later one. Pure. */
export function generationFor(
  state: TargetDatabase,
  { site, generation }: Pick<Settings, "site" | "generation">,
  archives: readonly string[],
): number {
  if (state === "follows") return generation;
  return Math.max(state === "parted" ? generation + 1 : generation, newestGeneration(site, archives) + 1);
}

/** Whether a cluster answers; `unasked`: why nobody could ask it. */
type Reach = { reach: "silent"; unasked?: string } | { reach: "answers" | "serves" };
const silent = { reach: "silent" } as const;

/**
 * A site that can still be asked is better handed over, which loses nothing. Where that cannot be done, since it does not
 * archive any more or no update of it succeeds, it may be given up all the same: the grace keeps two from federating. With
 * `dead` there is no grace, and so the site must be silent. Pure.
 */
export function notThatKind({
  kind,
  from,
  target,
  ...found
}: Pick<Question, "kind" | "from"> & { target: string } & Reach):
  { refused: string } | { warning: string } | Record<string, never> {
  const { reach } = found;
  const planned = `npx homestead switch ${target}`;
  if (kind === "dead" && reach !== "silent") {
    return {
      refused: `${from} is not powered off: its cluster answers; without --dead nothing is lost: ${planned} (or --lost, if it does not work any more)`,
    };
  }
  if (kind !== "planned" && "unasked" in found) {
    return { warning: `nobody has asked ${from}'s cluster whether it still runs: ${found.unasked}` };
  }
  if (kind !== "lost" || reach !== "serves") return {};
  return {
    warning: `${from} is not gone: its database is ready, and it may take posts until it has read the new lease; those are lost, as is all that is not in the vault by then. Without --lost nothing is: ${planned}, if what that says against it can be mended`,
  };
}

/** How a request ends that nobody has answered, in the system's words and in undici's. */
const nobody =
  /^(E(CONN\w+|HOST\w+|NET\w+|TIMEDOUT|NOTFOUND|AI_AGAIN|PIPE)|UND_ERR_(CONNECT_TIMEOUT|SOCKET|HEADERS_TIMEOUT))$/;
/** The same where somebody has, and not as an API server of this certificate does. */
const somebody = /^(CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_|ERR_SSL_|EPROTO|HPE_)/;

async function reachable({ cluster, namespace, site, generation, images: of }: Settings): Promise<Reach> {
  try {
    await within(6, kubeClient(cluster).makeApiClient(kubernetes().VersionApi).getCode());
  } catch (error) {
    const { code = "" } = ((error as Error).cause ?? error) as { code?: unknown };
    // Whoever refuses runs: with credentials that have run out, on a slow disk, behind a proxy.
    if (statusOf(error) !== undefined || somebody.test(String(code))) return { reach: "answers" };
    return error instanceof Late || nobody.test(String(code)) ? silent : { ...silent, unasked: unaskable(error, site) };
  }
  const found = await within(6, findDatabases({ cluster, namespace, site, generation, images: of })).catch(
    () => undefined,
  );
  return { reach: readiness(found?.current) === undefined ? "serves" : "answers" };
}

/**
 * `fault`: before a planned switch, and no more than a warning where the other site is lost. `awaited`: such a fault that
 * goes away by itself. `always`: before any.
 */
type Finding =
  { fault: string } | { awaited: string } | { always: string } | { warning: string } | Record<string, never>;

/** Why a database is not ready; undefined if it is. */
function readiness(database: DatabaseObject | undefined): string | undefined {
  const conditions = (
    database?.status as { conditions?: { type: string; status: string; message?: string }[] } | undefined
  )?.conditions;
  const ready = conditions?.find(({ type }) => type === "Ready");
  return ready?.status === "True" ? undefined : (ready?.message ?? "it has not said so");
}

/**
 * Whether both stacks have one vault: with two, each has a lease of its own, and both sites federate. The ways to it may
 * differ, so what counts is the lease that is found there. A copy of it is younger: a bucket is moved with it.
 */
async function oneVault({ settings, ...target }: Site, { settings: before, ...old }: Site): Promise<Finding> {
  const where = ({ endpoint, bucket }: Settings["vault"]) => `bucket ${bucket} at ${endpoint.replace(/\/$/, "")}`;
  const [here, there] = [settings, before].map(({ vault }) => where(vault));
  if (here === there) return {};
  const named = `the stacks name two vaults (${before.site}: ${there}, ${settings.site}: ${here})`;
  const mend = "name the newer one in both: docs/runbooks/new-bucket.md";
  const two: Finding = { always: `${named}, each with a lease of its own, and both sites would federate: ${mend}` };
  if (settings.vault.bucket !== before.vault.bucket) return two;
  const [own, others] = await Promise.all([
    readLease(settings.vault, keysOf(target).vault),
    readLease(before.vault, keysOf(old).vault).catch((error: unknown) => {
      throw new Error(
        `${named}, and nobody knows whether they are one: ${reason(error)}; run it where both are reached, or give both stacks one address (homestead:vault.endpoint)`,
      );
    }),
  ]);
  const one = own?.lease.writer === others?.lease.writer && Math.abs((own?.age ?? 0) - (others?.age ?? 0)) < 60;
  return one ? {} : two;
}

async function backup(target: Site, archive: string, use: "follows" | "begins"): Promise<Finding> {
  const newest = await newestBaseBackup(target.settings.vault, keysOf(target).vault, archive);
  if (newest === undefined) {
    const says = `the archive ${archive} has no base backup yet`;
    return use === "begins"
      ? { fault: `${says}: ${target.settings.site} has nothing to begin with` }
      : { warning: says };
  }
  const age = (Date.now() - newest.endedAt.getTime()) / 1000;
  return age > oldBackupSeconds ? { warning: `the newest base backup in ${archive} is ${span(age)} old` } : {};
}

/** `reached`: where the standby says so. */
export interface Standing {
  finding: Finding;
  reached?: Reached;
}

/** How far a standby has come. */
interface Reached {
  lsn: string;
  /** When its last transaction was committed; undefined if it has not seen any since it was started. */
  at?: Date;
  /** Segments that are archived and not replayed. */
  behind: number;
  /** A segment that it needs next, which nobody has. */
  lacks?: string;
}

/**
 * Whether a standby could take over, and soon.
 *
 * @param goal the segment that it must have replayed; the newest in the archive, if not given
 * @throws Error when the site or the vault does not say
 */
export async function standby(
  { settings, ...site }: Site,
  archive: string,
  database: DatabaseObject | undefined,
  { kind, goal }: { kind: Kind; goal?: string | undefined },
): Promise<Standing> {
  const target = { settings, ...site };
  const why = readiness(database);
  if (database === undefined || why !== undefined)
    return { finding: { awaited: `${settings.site}'s database is not ready (${why ?? ""})` } };
  const { vault } = settings;
  const keys = keysOf(target).vault;
  const [{ replayed, at, used }, segment] = await Promise.all([
    askStandby(settings, database.metadata.name),
    newestSegment(vault, keys, archive),
  ]);
  const parted = await partedAt(vault, keys, archive, replayed);
  const never = (says: string): Standing => ({
    finding: { always: `${settings.site}'s database ${cannotFollow(archive, says, settings)}` },
  });
  if (parted !== undefined) return never(parted);
  const full: Finding = used >= fullAt ? { fault: `${settings.site}'s database volume is ${used} % full` } : {};
  if ("fault" in full && kind === "planned") return { finding: full };
  const behind = segment === undefined ? 0 : segmentsBehind(goal ?? segment.name, replayed);
  const gap = behind === 0 ? undefined : await gapBehind(vault, keys, archive, replayed);
  if (gap?.bridged === true) return never(removed(archive, gap));
  const reached: Reached = {
    lsn: replayed.lsn,
    behind,
    ...(at === undefined ? {} : { at }),
    ...(gap === undefined ? {} : { lacks: gap.segment }),
  };
  if (gap !== undefined) {
    const lacks = `${archive} lacks the segment ${gap.segment}, which ${settings.site}'s database needs next, and has later ones`;
    // While the site that writes it lives it may be on its way still; afterwards nobody has it, whoever begins anew.
    if (kind !== "planned")
      return { reached, finding: { warning: `${lacks}: what was written from there on is lost` } };
    const past = "if it does not come, a base backup goes past it: docs/runbooks/alerts.md, BackupOld";
    return { reached, finding: { awaited: `${lacks} (${past})` } };
  }
  if (behind > mostBehind[kind]) {
    const segments = behind === 1 ? "1 segment" : `${behind} segments`;
    return { reached, finding: { awaited: `${settings.site}'s database is ${segments} behind ${archive}` } };
  }
  return { reached, finding: full };
}

async function askStandby(settings: Settings, name: string): Promise<{ replayed: Position; at?: Date; used: number }> {
  const script = `psql -XAtqc "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0'), ${timelineQuery}, extract(epoch from pg_last_xact_replay_timestamp())" && ${diskScript}`;
  const [position = "", disk = ""] = (await inDatabase(settings, name, script)).split("\n");
  const [lsn = "0/0", timeline, seconds = ""] = position.split("|");
  return {
    replayed: { lsn, timeline: Number(timeline) },
    ...(seconds === "" ? {} : { at: new Date(Number(seconds) * 1000) }),
    used: diskOf(disk).used,
  };
}

/** A line of `df`: device, size, used, free in KB, per cent. */
const diskScript = "df -Pk /var/lib/postgresql/data | tail -n 1";

function diskOf(line: string): { size: number; free: number; used: number } {
  const [, size = "0", , free = "0", used = "0"] = line.trim().split(/\s+/);
  return { size: Number(size) * 1024, free: Number(free) * 1024, used: parseInt(used, 10) };
}

async function inDatabase({ cluster, namespace }: Settings, name: string, script: string): Promise<string> {
  const config = kubeClient(cluster);
  const labelSelector = `cnpg.io/cluster=${name},cnpg.io/instanceRole=primary`;
  const { items } = await within(
    10,
    config.makeApiClient(kubernetes().CoreV1Api).listNamespacedPod({ namespace, labelSelector }),
  );
  const pod = items[0]?.metadata?.name;
  if (pod === undefined) throw new Error(`the database '${name}' has no pod`);
  const command = ["sh", "-c", script];
  return (await execInPod(config, { namespace, pod, container: "postgres", command, seconds: 20 })).trim();
}

/** @throws Error where the site does not say which database it has */
async function databaseOf({ settings }: Site): Promise<string> {
  const name = (await findDatabases(settings))?.current?.metadata.name;
  if (name === undefined) throw new Error(`${settings.site}'s cluster does not say which database it has`);
  return name;
}

/**
 * Whether the old site archives what it writes. The standby's lag is counted in what is archived: with nothing coming it
 * would be none, and the demotion would wait for its token in vain, with the server down.
 */
async function archiving(old: Site): Promise<Finding> {
  const { site, cluster, namespace, archiveInterval } = old.settings;
  const name = await databaseOf(old);
  const asked = new StatusCluster(kubeClient(cluster), namespace);
  const ask = async () => ((await asked.replayed(name)) === undefined ? asked.archiver(name) : undefined);
  const found = await within(20, ask()).catch((error: unknown) => {
    throw new Error(`${site}'s database does not say whether it archives: ${reason(error)}`);
  });
  // It writes nothing that could be missing: it waits to take over, or was demoted by hand.
  if (found === undefined) return {};
  const { line } = archiverLine(found, archiveInterval);
  if (line.verdict !== "fault" && found.waiting <= mostBehind.planned) return {};
  return {
    fault: `${site} does not get into the vault what it writes (${line.says}), and would stop without a token: docs/runbooks/alerts.md (ArchiveFailing), npx homestead status ${site}`,
  };
}

/** To stop takes no room, and who serves elsewhere has time to make some: only what follows is kept here. */
async function volume(old: Site): Promise<Finding> {
  const { site } = old.settings;
  const { used } = diskOf(await inDatabase(old.settings, await databaseOf(old), diskScript));
  if (used < fullAt) return {};
  return {
    warning: `${site}'s database volume is ${used} % full, and its database goes on there as the standby: make room there afterwards (docs/runbooks/alerts.md, VolumeFilling)`,
  };
}

/**
 * Whether the old site's Valkey saves what it holds. One that cannot does not end when it is told to, and what it held goes
 * with its pod: the other site would begin with an older dump, or with nothing.
 */
async function saving({ settings: { site, cluster, namespace } }: Site): Promise<Finding> {
  const asked = new StatusCluster(kubeClient(cluster), namespace);
  const ask = async () => ((await asked.running()).valkey === "none" ? undefined : asked.queues([]));
  const unsaid = (why: string) => `${site}'s Valkey does not say whether it saves what it holds: ${why}`;
  const text = await within(30, ask()).catch((error: unknown) => {
    throw new Error(unsaid(reason(error)));
  });
  // It was demoted by hand, and Valkey has ended with it.
  if (text === undefined) return {};
  const status = parseQueues(text, Date.now() / 1000).info["rdb_last_bgsave_status"]?.trim();
  if (status === "ok") return {};
  if (status === undefined) return { fault: unsaid("it is not in what it answers") };
  return {
    fault: `${site}'s Valkey cannot save what it holds (rdb_last_bgsave_status: ${status}), and the queues would stay behind: docs/runbooks/alerts.md (SnapshotOld), npx homestead status ${site}`,
  };
}

/** A database that begins anew stands beside the old one, which is kept. One that is too broken to be asked is no reason to stop. */
async function roomToBegin(
  { settings }: Site,
  database: DatabaseObject | undefined,
  old: Site | undefined,
): Promise<Finding> {
  const { site, sizes, cluster, namespace } = settings;
  if (database === undefined) return {};
  try {
    const said = await inDatabase(settings, database.metadata.name, `${diskScript} && ${sizeScript}`);
    const [disk = "", own = ""] = said.split("\n");
    const { size, free } = diskOf(disk);
    // Each volume is a disk of its own then, and its provisioner alone knows how many there can be.
    if (size <= 2 * quantity(sizes.database)) return {};
    const there = old === undefined ? own : await inDatabase(old.settings, await databaseOf(old), sizeScript);
    const needed = parseInt(there, 10) * 1024;
    if (needed <= free) return {};
    return {
      fault: `${site}'s database begins anew beside the old one and takes ${bytes(needed)}, and their disk has ${bytes(free)} left: make room there; databases that sleep, and that nobody misses: ${kubectl(cluster)} -n ${namespace} get clusters.postgresql.cnpg.io`,
    };
  } catch (error) {
    return { warning: `nobody knows whether there is room for ${site}'s database to begin anew: ${reason(error)}` };
  }
}

/** KB that a database's files take. */
const sizeScript = "du -sk /var/lib/postgresql/data";

/** Of this machine, the vault and the sites that are asked for anything. */
async function clocks(target: Site, old: Site | undefined): Promise<Finding> {
  const sites = [target, ...(old === undefined ? [] : [old])].map(({ settings }) => settings);
  const fault = clockFault(await within(10, readClocks(target.settings, keysOf(target).vault, sites)));
  return fault === undefined ? {} : { fault };
}

/**
 * A planned switch waits for no certificate: the target holds it before, unless it is yet to be made and gets one on the
 * way. With ACME's http01 it gets none on the way: that asks at the address that DNS has, and DNS comes after it.
 */
async function certificates(settings: Settings, kind: Kind, state: TargetDatabase): Promise<Finding> {
  const { site } = settings;
  const byHttp = asksOverHttp(settings);
  if (state === "missing" && !byHttp) return {};
  const bad = await lackingCertificates(settings, state);
  if (bad.length === 0) return {};
  const lacks = `${site} has no valid certificate for: ${bad.join(", ")}`;
  if (!byHttp) return { fault: `${lacks} (kubectl describe certificate)` };
  const why = `${lacks}, and with the solver http01 it gets none before DNS points there`;
  if (kind === "planned") {
    return {
      fault: `${why}: name a solver of kind dns01 (homestead:certificates.solver in Pulumi.${site}.yaml) or an issuer of your own (docs/runbooks/adding-a-site.md)`,
    };
  }
  const records = dnsRecords(settings).map(({ name, type, value }) => `${name} ${type} ${value}`);
  return {
    warning: `${why}, which the update does last: set the records by hand as soon as promote has begun (${records.join(", ")}); if it gives up by then, the same command goes on`,
  };
}

interface CertificateObject {
  metadata: { name: string };
  status?: { conditions?: { type: string; status: string }[] };
}

/**
 * Names of the certificates that are not valid. A site without its database may have some all the same, where its
 * beginning was interrupted; one that has none lacks those of both hosts.
 */
async function lackingCertificates(
  { cluster, namespace, apex, webHost }: Settings,
  state: TargetDatabase,
): Promise<string[]> {
  const api = kubeClient(cluster).makeApiClient(kubernetes().CustomObjectsApi);
  const list = api.listNamespacedCustomObject({
    group: "cert-manager.io",
    version: "v1",
    plural: "certificates",
    namespace,
  }) as Promise<{ items: CertificateObject[] }>;
  const { items } = await within(10, list).catch((error: unknown) => {
    // No such kind yet.
    if (state === "missing" && statusOf(error) === 404) return { items: [] };
    throw error;
  });
  if (state === "missing" && items.length === 0) return [apex, webHost];
  return items
    .filter(({ status }) => !status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True"))
    .map(({ metadata }) => metadata.name);
}

/** Nodes name at most 50 images, so one that is not named may be there all the same. */
async function images({ cluster, site, images: wanted }: Settings): Promise<Finding> {
  const core = kubeClient(cluster).makeApiClient(kubernetes().CoreV1Api);
  const { items } = await within(10, core.listNode());
  const there = items.flatMap(({ status }) => status?.images?.flatMap(({ names }) => names ?? []) ?? []);
  // The chart's Jobs go by Mastodon's tag, which a node that pulled it by digest does not know.
  const needed = [
    ...new Set([wanted.mastodon, tagAlone(wanted.mastodon), wanted["mastodon-streaming"], wanted.valkey]),
  ];
  const missing = needed.filter((image) => !there.some((name) => sameImage(name, image)));
  if (missing.length === 0) return {};
  return { warning: `${site} seems not to have pulled ${missing.join(", ")} yet: the switch will take longer` };
}

async function lossOf(
  target: Site,
  from: string,
  archive: string,
  state: TargetDatabase,
  reached: Reached | undefined,
): Promise<string> {
  const { vault, archiveInterval, media, site } = target.settings;
  const uploads = media.kind === "volume" ? "; of media, the uploads of the last 16 minutes" : "";
  const segment = await newestSegment(vault, keysOf(target).vault, archive).catch(() => undefined);
  if (segment === undefined) return `everything that ${from} wrote: the vault has no WAL of it`;
  const jobs = `jobs that were queued are lost, home feeds are rebuilt${uploads}`;
  const moment = (at: Date) => `${at.toISOString()} (${span((Date.now() - at.getTime()) / 1000)} ago)`;
  const last =
    reached === undefined ? "" : `${reached.lsn}${reached.at === undefined ? "" : `, of ${moment(reached.at)}`}`;
  if (reached?.lacks !== undefined) {
    return `what ${from} wrote after ${last}: the vault lacks the segment ${reached.lacks}, which comes next, and nobody can replay the ${reached.behind - 1} behind it; ${jobs}`;
  }
  const waits =
    state !== "follows"
      ? ""
      : reached === undefined
        ? `; ${site}'s database does not say how much of it it has, and the switch waits until it has it all`
        : reached.behind > 0
          ? `; ${site}'s database has replayed ${last}, and the switch waits for the rest`
          : "";
  return `what ${from} wrote after ${moment(segment.archivedAt)}, the newest in the vault: at most ${archiveInterval} s of posts, if ${from} archived until it was gone${waits}; ${jobs}`;
}
