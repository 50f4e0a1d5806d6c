/**
 * Is a site fit to be brought up, and to be left alone? Asked before the first `up` and whenever one wonders. Each part
 * is asked by itself and beside the others: what cannot be reached is one line.
 */
import * as net from "node:net";
import { certificateName } from "../components/ingress";
import { publicUrl } from "../components/media";
import { copyPrefix } from "../components/media-copy";
import { mediaHost } from "../components/objectStore";
import { SettingsError } from "../settings";
import type { Settings, StackName } from "../settings";
import { keysOf } from "./bucket-keys";
import { siteFaults } from "./checks";
import { reason, unlessAborted, within } from "./attempt";
import {
  conditionalLine,
  crossOriginLines,
  privacyLine,
  probeBucket,
  protectionLine,
  publicLine,
  rightsLine,
} from "./doctor/buckets";
import type { BucketProbe, BucketPurpose } from "./doctor/buckets";
import { capacityLines, needsOf, roomOf, takesPods } from "./doctor/capacity";
import type { Needs } from "./doctor/capacity";
import { DoctorCluster } from "./doctor/cluster";
import { DiskProbe, Unmeasured, doctorNamespace } from "./doctor/disk";
import { asksOverHttp, issuerLine, issuerOf, waitingLine } from "./doctor/issuer";
import * as lines from "./doctor/lines";
import type { Area, ClusterFacts, DoctorLine, DoctorReport } from "./doctor/lines";
import {
  clientAddressLine,
  subnetLimits,
  expectedVersion,
  operatorLine,
  operatorMarks,
  traefikLine,
  uploadLine,
} from "./doctor/operators";
import type { OperatorName } from "./doctor/operators";
import { programLines, readPrograms } from "./doctor/program";
import { disksOf, fsyncLine, pressureLine, profileLine, roomLine, unaskedLine, unmeasuredLine } from "./doctor/storage";
import type { Disk } from "./doctor/storage";
import { storeAhead } from "./clock";
import { kubeClient, kubectl } from "./kube";
import { planStack } from "./plan";
import type { Plan } from "./plan";
import { getPulumi, refusalMend } from "./refusal";
import { loadSite } from "./site-secrets";
import type { Site } from "./site-secrets";
import { addressesOf, ownAddresses } from "./status/edge";
import { askedFromHere } from "./verify/target";
import { worst } from "./status/lines";

const { judged } = lines;

export interface DoctorOptions {
  /** Measuring takes half a minute and a namespace of its own for as long. */
  disks: "measure" | "skip";
  /** DNS servers to begin with. @default this machine's own */
  resolvers?: readonly string[];
  /** Told of what takes long as it begins. */
  progress: (step: string) => void;
  /** Ends the doctor; it cleans up all the same. */
  signal: AbortSignal;
}

/** Never throws for what is wrong with the site or its stack: that is what its lines are for. */
export async function doctor(stack: StackName, options: DoctorOptions): Promise<DoctorReport> {
  const at = new Date().toISOString();
  const [programs, read] = await Promise.all([
    attempt("program", "pulumi", getPulumi, async () => programLines(await readPrograms())),
    readStack(stack),
  ]);
  const found = "site" in read ? await examine(read.site, () => planStack(stack), options) : read.lines;
  const all = lines.inOrder([...programs, ...found]);
  return {
    site: stack,
    ...("site" in read ? { role: read.site.settings.role } : {}),
    at,
    verdict: worst(all.map(({ verdict }) => verdict)),
    lines: all,
  };
}

/** A stack's settings and secrets, or what is wrong with them. */
async function readStack(stack: StackName): Promise<{ site: Site } | { lines: DoctorLine[] }> {
  try {
    return { site: await within(60, loadSite(stack)) };
  } catch (error) {
    if (error instanceof SettingsError) return { lines: error.faults.map(lines.refusal) };
    return { lines: [unreadLine(stack, reason(error))] };
  }
}

/** The line on a stack that cannot be read. */
export function unreadLine(stack: StackName, says: string): DoctorLine {
  const mend = refusalMend(says, stack) ?? `pulumi stack ls, then pulumi config --stack ${stack}`;
  return judged("stack", stack, "fault", says, mend);
}

/**
 * Everything about a site but this machine's programs.
 *
 * @param plan what the stack asks for
 * @throws what the signal was aborted with, once nothing of ours is left in the cluster
 */
export async function examine(
  site: Site,
  plan: () => Promise<Pick<Plan, "resources">>,
  options: DoctorOptions,
): Promise<DoctorLine[]> {
  const { settings } = site;
  const refused = refusals(site);
  const needs = plan().then(needsOf);
  needs.catch(() => undefined);
  const reached = reach(settings);
  const disks = diskLines(settings, { refused, reached, needs }, options);
  const parts = Promise.all([
    refused,
    clusterLines(settings, reached, needs),
    disks,
    vaultLines(site),
    mediaLines(site),
    dnsLines(settings, reached, options.resolvers),
    portLines(settings),
    vaultClockLines(site),
  ]);
  const interrupted = new Promise<never>((_, reject) => {
    const end = () => void disks.catch(() => undefined).then(() => reject(options.signal.reason as Error));
    if (options.signal.aborted) end();
    options.signal.addEventListener("abort", end, { once: true });
  });
  const [faults, ...others] = await Promise.race([parts, interrupted]);
  return lines.inOrder([...faults, ...others.flat().filter((line) => !isSaid(line, faults, settings))]);
}

/**
 * What an update would refuse names a cluster or a bucket in better words than whoever asked it for something else; and
 * nothing good is said of a cluster that is not this stack's.
 */
export function isSaid(
  { area, what, verdict }: DoctorLine,
  faults: readonly DoctorLine[],
  settings: Pick<Settings, "cluster" | "vault" | "media">,
): boolean {
  // That nothing was said in time is no better word for anything.
  if (!faults.some((fault) => fault.area === area && fault.what !== refusable)) return false;
  const { cluster, vault, media } = settings;
  if (area === "operators") {
    const names = Object.keys(operatorMarks) as OperatorName[];
    const said = names.filter((name) => faults.some((fault) => fault.what === `operators.${name}`));
    return said.some((name) => operatorMarks[name].title === what);
  }
  if (area === "certificates") return verdict === "fault";
  if (area === "cluster") return what === cluster.context || what === "uid";
  return verdict === "fault" && (what === vault.bucket || (media.kind !== "volume" && what === media.bucket));
}

/** Runs a part; what it throws becomes a fault of the given area. */
async function attempt(
  area: Area,
  what: string,
  mend: string,
  work: () => Promise<DoctorLine[]>,
  seconds = 60,
): Promise<DoctorLine[]> {
  try {
    return await within(seconds, work());
  } catch (error) {
    return [judged(area, what, "fault", reason(error), mend)];
  }
}

/** Stands for all that could not be asked in time: a store that takes the connection and never answers. */
const refusable = "what an update would refuse";

/** What `pulumi up` would end with, before it touches anything. */
function refusals(site: Site): Promise<DoctorLine[]> {
  const { settings } = site;
  return attempt("cluster", refusable, `pulumi preview --stack ${settings.site}`, async () => {
    const charts: DoctorLine[] = [];
    const faults = await siteFaults(settings, keysOf(site), {
      warn: (chart, says) => {
        const mend = `let this machine reach it, or name a mirror or a folder in homestead:charts.${chart}`;
        charts.push(judged("program", `charts.${chart}`, "warning", says, mend));
      },
    });
    return [...faults.map(lines.refusal), ...charts];
  });
}

// ---------------------------------------------------------------- cluster

interface Reached {
  cluster: DoctorCluster;
  version: string;
  /** Seconds by which the API server's clock is ahead. */
  ahead?: number;
  facts: ClusterFacts;
}

/** @returns the cluster, or why it cannot be asked */
async function reach(settings: Settings): Promise<Reached | { fault: string }> {
  try {
    const cluster = new DoctorCluster(kubeClient(settings.cluster), settings);
    const { version, ahead } = await within(15, cluster.version());
    const identity = await within(15, cluster.identity());
    return { cluster, version, ...(ahead === undefined ? {} : { ahead }), facts: { version, ...identity } };
  } catch (error) {
    return { fault: reason(error) };
  }
}

async function clusterLines(
  settings: Settings,
  reached: Promise<Reached | { fault: string }>,
  needs: Promise<Needs>,
): Promise<DoctorLine[]> {
  const { context } = settings.cluster;
  const found = await reached;
  const look = `${kubectl(settings.cluster)} get namespaces`;
  if ("fault" in found) {
    const parts = "nodes, operators, issuer, room, disks and clock, since the cluster cannot be asked";
    return [
      judged("cluster", context, "fault", found.fault, look),
      judged("cluster", "not looked at", "warning", parts, "mend what is said of the cluster, then ask again"),
    ];
  }
  const { cluster, ahead, facts } = found;
  const parts = await Promise.all([
    attempt("cluster", "nodes", look, () => nodeLines(settings, cluster)),
    attempt("capacity", "memory", look, () => roomLines(settings, cluster, needs)),
    attempt("operators", "operators", look, () => operatorLines(settings, cluster)),
    attempt("operators", "Traefik", look, async () => {
      const [{ pods, services }, definitions] = await Promise.all([cluster.traefik(), cluster.definitions()]);
      const clients = () => clientAddressLine(settings, services, pods, subnetLimits(definitions));
      const requests = pods.length === 0 ? [] : [clients(), uploadLine(pods)];
      return [traefikLine(settings, pods), ...requests];
    }),
  ]);
  const clock = ahead === undefined ? [] : [lines.clockLine("API server", ahead)];
  return [...lines.clusterLines(settings, facts), ...parts.flat(), ...clock];
}

async function nodeLines(settings: Settings, cluster: DoctorCluster): Promise<DoctorLine[]> {
  const [nodes, renewals] = await Promise.all([cluster.nodes(), cluster.renewals()]);
  const now = Date.now() / 1000;
  const ready = nodes.filter((node) => lines.nodeIs(node, "Ready")).map(({ metadata }) => metadata?.name);
  const clocks = renewals.filter(({ node }) => ready.includes(node)).map((one) => lines.nodeClockLine(one, now));
  return [...lines.nodeLines(nodes, settings.cluster), ...clocks];
}

async function roomLines(settings: Settings, cluster: DoctorCluster, needs: Promise<Needs>): Promise<DoctorLine[]> {
  const [wanted, nodes, pods] = await Promise.all([needs, cluster.nodes(), cluster.pods()]);
  const ours = [...wanted.namespaces, settings.namespace, doctorNamespace];
  return capacityLines(wanted, roomOf(nodes, pods, ours), settings.cluster);
}

/** The operators, and the issuer, which only one of them knows. */
async function operatorLines(settings: Settings, cluster: DoctorCluster): Promise<DoctorLine[]> {
  const found = await cluster.operators(await cluster.definitions());
  const names = Object.keys(found) as OperatorName[];
  const absent = (name: OperatorName) => !found[name].definition && found[name].deployment === undefined;
  // One that the stack expects and that is not there is what an update refuses.
  const operators = names
    .filter((name) => !(absent(name) && settings.operators[name] === "existing"))
    .map((name) => operatorLine(name, settings, found[name], expectedVersion(name, settings)));
  const certManager = found.certManager.definition ? "there" : "missing";
  const issuer = certManager === "there" ? await cluster.issuer(issuerOf(settings)) : ({ state: "missing" } as const);
  return [...operators, issuerLine(settings, certManager, issuer)];
}

// ---------------------------------------------------------------- disks

interface Before {
  refused: Promise<DoctorLine[]>;
  reached: Promise<Reached | { fault: string }>;
  needs: Promise<Needs>;
}

/**
 * Nothing is made in a cluster that is not this stack's, or that may not be.
 * @throws what the signal was aborted with, once nothing of ours is left in the cluster
 */
async function diskLines(settings: Settings, before: Before, options: DoctorOptions): Promise<DoctorLine[]> {
  if (options.disks === "skip") return [];
  const [refused, reached] = await unlessAborted(options.signal, Promise.all([before.refused, before.reached]));
  if ("fault" in reached) return [];
  if (refused.some(({ what }) => what === refusable)) {
    // Whose cluster it is was not said either.
    const says = `since ${refusable} was not said in time`;
    return [judged("storage", "not measured", "warning", says, "mend what does not answer, then ask again")];
  }
  if (refused.some(({ area }) => area === "cluster")) return [];
  const disks = disksOf(settings).filter(({ use }) => !refused.some(({ what }) => what === `storage.${use}`));
  const probe = new DiskProbe(kubeClient(settings.cluster), settings, options.signal);
  const found: DoctorLine[] = [];
  try {
    await probe.begin();
    // One after the other: they may be the same disk.
    for (const disk of disks)
      found.push(...(await measured(settings, disk, probe, reached.cluster, before.needs, options)));
  } catch (error) {
    options.signal.throwIfAborted();
    const verdict = error instanceof Unmeasured ? "warning" : "fault";
    found.push(judged("storage", doctorNamespace, verdict, reason(error), namespaceMend(settings)));
  } finally {
    await probe.cleanUp().catch((error: unknown) => {
      found.push(judged("storage", doctorNamespace, "warning", reason(error), namespaceMend(settings)));
    });
  }
  return found;
}

const namespaceMend = ({ cluster }: Settings) =>
  `${kubectl(cluster)} get events -n ${doctorNamespace}, then ${kubectl(cluster)} delete namespace ${doctorNamespace}`;

async function measured(
  settings: Settings,
  disk: Disk,
  probe: DiskProbe,
  cluster: DoctorCluster,
  needs: Promise<Needs>,
  { progress, signal }: DoctorOptions,
): Promise<DoctorLine[]> {
  progress(`measuring fsync on ${disk.storageClass ?? "the default storage class"}`);
  try {
    const { result, node } = await probe.measure(disk);
    const missing = await missingClaims(disk, cluster, needs).catch(() => []);
    const place = node === undefined ? undefined : { node, others: await otherNodes(node, cluster).catch(() => []) };
    const more = [
      profileLine(disk, settings, result),
      pressureLine(disk, settings, result),
      roomLine(disk, result, missing),
    ];
    return [fsyncLine(disk, settings.storage, result, place), ...more.filter((line) => line !== undefined)];
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof Unmeasured)
      return [
        unaskedLine(disk, reason(error), `${kubectl(settings.cluster)} get nodes, then npx homestead doctor again`),
      ];
    return [unmeasuredLine(disk, reason(error))];
  }
}

/** The nodes beside one that are ready and take pods of ours. */
async function otherNodes(node: string, cluster: DoctorCluster): Promise<string[]> {
  const fit = (await cluster.nodes()).filter((one) => takesPods(one) && lines.nodeIs(one, "Ready"));
  return fit.flatMap(({ metadata }) => metadata?.name ?? []).filter((name) => name !== node);
}

/** The claims of a class that the stack is yet to make. */
async function missingClaims({ storageClass }: Disk, cluster: DoctorCluster, needs: Promise<Needs>) {
  const [{ claims }, there] = await Promise.all([needs, cluster.claims()]);
  return claims.filter((claim) => claim.storageClass === storageClass && !there.includes(claim.name));
}

// ---------------------------------------------------------------- buckets

const backups: BucketPurpose = { area: "vault", holds: "backups", keys: "vault", undeletable: "warning" };
const uploads: BucketPurpose = { area: "media", holds: "uploads", keys: "media", undeletable: "fault" };
/** A volume's copy only ever grows. */
const copies: BucketPurpose = { ...uploads, undeletable: "ok" };
/** What our own test objects' names begin with. */
const prefix = "homestead-doctor/";

function vaultLines(site: Site): Promise<DoctorLine[]> | DoctorLine[] {
  const { vault, objectStore } = site.settings;
  if (objectStore === "embedded") {
    const mend = "name a bucket elsewhere (objectStore external, vault) before anything here is worth keeping";
    return [judged("vault", "embedded", "warning", "inside the cluster that it should outlive", mend)];
  }
  return bucketLines(backups, { bucket: vault, keys: keysOf(site).vault, prefix }, (seen) => [
    conditionalLine(seen),
    privacyLine(seen),
  ]);
}

function mediaLines(site: Site): Promise<DoctorLine[]> | DoctorLine[] {
  const { media, vault, objectStore } = site.settings;
  if (objectStore === "embedded") return [];
  const keys = keysOf(site).media;
  if (media.kind === "volume") {
    return bucketLines(copies, { bucket: vault, keys, prefix: `${copyPrefix}${prefix}` }, () => []);
  }
  const url = publicUrl(media);
  const origin = `https://${site.settings.webHost}`;
  return bucketLines(uploads, { bucket: media, keys, prefix, publicUrl: url, origin }, (seen) => [
    publicLine(seen, url),
    ...crossOriginLines(seen, origin),
  ]);
}

type Seen = NonNullable<Awaited<ReturnType<typeof probeBucket>>["seen"]>;

function bucketLines(
  purpose: BucketPurpose,
  probe: BucketProbe,
  more: (seen: Seen) => DoctorLine[],
): Promise<DoctorLine[]> {
  const { bucket } = probe.bucket;
  return attempt(purpose.area, bucket, `check ${purpose.area}.endpoint, ${probe.bucket.endpoint}`, async () => {
    const { refused, seen } = await probeBucket(probe);
    const rights = rightsLine(purpose, probe.bucket, refused);
    return seen === undefined ? [rights] : [rights, ...more(seen), protectionLine(purpose, seen)];
  });
}

// ---------------------------------------------------------------- edge

async function dnsLines(
  settings: Settings,
  reached: Promise<Reached | { fault: string }>,
  resolvers: readonly string[] = [],
): Promise<DoctorLine[]> {
  const { apex, webHost, ingress } = settings;
  const family = net.isIPv6(ingress.address) ? 6 : 4;
  const own = within(20, ownAddresses(ingress.address, resolvers)).catch(() => [ingress.address]);
  const certificate = certificateState(settings, reached);
  const astray = new Set<string>();
  const mend = "npx homestead doctor with --resolver and a server that answers";
  const each = [apex, webHost].flatMap((name) => {
    const answered = within(20, addressesOf(name, family, resolvers));
    return [
      attempt("dns", name, mend, async () => {
        const [answer, at, found] = await Promise.all([answered, own, reached]);
        if (!answer.addresses.some((address) => at.includes(address))) astray.add(name);
        const served = "fault" in found || found.facts.namespace === "there";
        return [lines.nameLine(settings, answer, at, served, (await certificate) === "there" ? "apart" : "waits")];
      }),
      // By itself: some resolvers fail at the other family only. One that is silent altogether has its line by then.
      answered.then(
        () =>
          attempt("dns", `${name} ${family === 6 ? "A" : "AAAA"}`, mend, () => strayLines(settings, name, resolvers)),
        () => [],
      ),
    ];
  });
  const names = (await Promise.all(each)).flat();
  const waits = (await certificate) === "missing" && astray.size > 0;
  return [...names, ...(waits ? [waitingLine(settings, [...astray].sort())] : [])];
}

/**
 * Addresses of the other family, where the site has none of it; asked only where its own address is known for one. A
 * standby's names are the active site's, which may have both.
 */
async function strayLines(settings: Settings, name: string, resolvers: readonly string[]): Promise<DoctorLine[]> {
  const { ingress, network, role } = settings;
  const family = net.isIP(ingress.address);
  const other = family === 4 ? 6 : 4;
  if (role === "standby" || family === 0 || network.families.includes(`IPv${other}`)) return [];
  return lines.strayLines(await within(20, addressesOf(name, other, resolvers)), other, ingress);
}

/** Whether the certificate that waits for DNS is there; one that does not counts as there. */
async function certificateState(
  settings: Settings,
  reached: Promise<Reached | { fault: string }>,
): Promise<"there" | "missing" | "not said"> {
  if (!asksOverHttp(settings)) return "there";
  const found = await reached;
  if ("fault" in found) return "not said";
  const embedded = settings.objectStore === "embedded" ? mediaHost(settings.media) : undefined;
  const name = certificateName({ ...settings, otherHosts: embedded === undefined ? [] : [embedded] });
  const state = await within(20, found.cluster.certificate(name)).catch(() => undefined);
  return state === undefined ? "not said" : state === "ready" ? "there" : "missing";
}

function portLines(settings: Settings): Promise<DoctorLine[]> {
  const each = [80, 443].map(async (port) =>
    lines.portLine(settings, port, await refusalOf(askedFromHere(settings), port)),
  );
  return Promise.all(each);
}

/** Why a port cannot be connected to; undefined if it can. */
export function refusalOf(host: string, port: number, seconds = 5): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, timeout: seconds * 1000 });
    const end = (answer: string | undefined) => {
      socket.destroy();
      resolve(answer);
    };
    socket.on("connect", () => end(undefined));
    socket.on("timeout", () => end(`no answer within ${seconds} s`));
    socket.on("error", (error) => end(error.message));
  });
}

/** The vault's clock, which signs and leases go by. What does not answer is a line of the vault's already. */
async function vaultClockLines(site: Site): Promise<DoctorLine[]> {
  const { vault, objectStore } = site.settings;
  if (objectStore === "embedded") return [];
  try {
    const ahead = await storeAhead(vault, keysOf(site).vault);
    return ahead === undefined ? [] : [lines.clockLine("vault", ahead)];
  } catch {
    return [];
  }
}
