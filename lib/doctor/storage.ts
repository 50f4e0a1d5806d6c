/** What a measured disk means for what is put on it. Pure. */
import type { Settings } from "../../settings";
import { byLimit, worst } from "../status/lines";
import type { Verdict } from "../status/lines";
import type { Claim } from "./capacity";
import { bytes } from "./capacity";
import type { Measured } from "./fsync";
import { judged } from "./lines";
import type { DoctorLine } from "./lines";

/** What a storage class will hold. */
export type DiskUse = "databases" | "media";

/** A class to measure; none is the cluster's default. */
export interface Disk {
  use: DiskUse;
  storageClass?: string;
}

/** The classes that will hold data. Media in a bucket needs none. */
export function disksOf({ storage, media }: Pick<Settings, "storage" | "media">): Disk[] {
  const volume: Disk = { use: "media", ...(storage.media === undefined ? {} : { storageClass: storage.media }) };
  return [{ use: "databases", storageClass: storage.databases }, ...(media.kind === "volume" ? [volume] : [])];
}

/**
 * Milliseconds that one in a hundred fsyncs may take.
 *
 * Every commit of Postgres waits for one, and a post is some ten commits, one after the other, in the web process and
 * in Sidekiq: from 100 ms on a post takes a second and more. An SSD needs 1 ms, a share on home hardware 10 to 100.
 * From 2 s on nothing that one would call a server is left. `storage.kind: nfs` says that this is known: probes and
 * time-outs are made for it, and Postgres and Valkey live through fsyncs of 60 s
 * (npm run e2e -- slow-disk); so it is a warning there up to that.
 *
 * Valkey's snapshots are written by a child that nobody waits for: no limit is theirs. Uploads are written without
 * fsync; where they are kept a slow one only tells of a disk that fails.
 */
export const fsyncLimits: Record<DiskUse, Record<Settings["storage"]["kind"], { warning: number; fault: number }>> = {
  databases: { local: { warning: 100, fault: 2000 }, nfs: { warning: 100, fault: 60_000 } },
  media: { local: { warning: 2000, fault: 60_000 }, nfs: { warning: 2000, fault: 60_000 } },
};

/**
 * A single fsync that took so long is a disk that stalls now and then, which no percentile of 20 s shows. It is where
 * Redis begins to call a disk too slow, and how the first owner's outage began.
 */
const stall = 2000;

/** Milliseconds that no disk beats; docs/runbooks/slow-disk.md says what does. */
const noDisk = 0.02;

/** Where a class was measured whose volumes are the nodes' own disks. */
export interface Place {
  node: string;
  /** The other nodes that a database could be placed on. */
  others: readonly string[];
}

/** Milliseconds for a person. */
export function time(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds >= 10 ? Math.round(milliseconds) : Number(milliseconds.toPrecision(2))} ms`;
}

/** The line on a disk's fsync. @param place undefined where a volume is the same disk on whatever node */
export function fsyncLine(
  { use, storageClass }: Disk,
  { kind }: Settings["storage"],
  { p50, p99, max, count }: Measured,
  place?: Place,
): DoctorLine {
  const byShare = byLimit(p99, fsyncLimits[use][kind]);
  const stalls: Verdict = max >= stall ? "warning" : "ok";
  // Uploads are written without fsync.
  const lies: Verdict = use === "databases" && p99 < noDisk ? "warning" : "ok";
  const measured = `fsync p50 ${time(p50)}, p99 ${time(p99)}, max ${time(max)} of ${count}`;
  const reason =
    byShare !== "ok"
      ? use === "media"
        ? "; a disk that is about to fail"
        : `; every commit waits for one, so a post takes ${time(p99 * 10)} and more`
      : lies === "warning"
        ? "; no disk is that fast: something answers before the bytes are safe, and a power cut costs what was acknowledged"
        : stalls === "warning"
          ? "; it stalls"
          : "";
  const elsewhere =
    place === undefined || place.others.length === 0
      ? ""
      : `; on node ${place.node}, and not on ${place.others.join(", ")}, which may get the claim too`;
  return judged(
    "storage",
    nameOf({ use, storageClass }),
    worst([byShare, stalls, lies]),
    measured + reason + elsewhere,
    "docs/runbooks/slow-disk.md",
  );
}

/** The line on a share that the stack takes for a disk; undefined where it says what it is. */
export function profileLine(
  disk: Disk,
  { storage, site }: Pick<Settings, "storage" | "site">,
  { fileSystem }: Measured,
): DoctorLine | undefined {
  if (disk.use !== "databases" || fileSystem !== "nfs" || storage.kind === "nfs") return undefined;
  return judged(
    "storage",
    `profile, ${nameOf(disk)}`,
    "warning",
    `the class is NFS, and storage.kind is ${storage.kind}: probes and time-outs would take a share that is slow for a server that is dead`,
    `pulumi config set --path homestead:storage.kind nfs --stack ${site}, or a class of the nodes' own disks (docs/runbooks/slow-disk.md)`,
  );
}

/** The line on a kernel that keeps no account of its disks; undefined where it does, or where nothing is watched. */
export function pressureLine(
  { use }: Disk,
  { monitoring }: Pick<Settings, "monitoring">,
  { pressure }: Measured,
): DoctorLine | undefined {
  if (use !== "databases" || monitoring.kind === "off" || pressure !== "none") return undefined;
  return judged(
    "storage",
    "I/O pressure",
    "warning",
    "the kernel of the node where the databases' class was measured keeps no account of it (PSI), so the alert IoPressure never fires",
    "psi=1 on that kernel's command line; the alert SlowDisk needs none (docs/runbooks/alerts.md#iopressure)",
  );
}

/** The line on a disk that could not be measured. */
export const unmeasuredLine = (disk: Disk, reason: string): DoctorLine =>
  judged("storage", nameOf(disk), "fault", reason, "docs/runbooks/slow-disk.md, or leave it out with --no-disk");

/** The line on a disk of which nothing was learned, since the cluster did not answer. */
export const unaskedLine = (disk: Disk, reason: string, mend: string): DoctorLine =>
  judged("storage", nameOf(disk), "warning", `not measured, since the cluster did not answer: ${reason}`, mend);

const nameOf = ({ use, storageClass }: { use: DiskUse; storageClass?: string | undefined }) =>
  `${use}: ${storageClass ?? "the default class"}`;

/** Bytes of the claim that a disk is measured on. */
export const probeBytes = 1024 ** 3;

/**
 * Shares of a disk that are free when Kubernetes' own default, and when k3s', begins to evict pods from the node
 * (`nodefs.available`).
 */
const freeShare = { warning: 0.1, fault: 0.05 } as const;

/**
 * The line on the room that a class has; undefined where each claim is a disk of its own, whose provisioner alone
 * knows how many there can be.
 *
 * @param missing claims of that class which are yet to be made
 */
export function roomLine(disk: Disk, { free, size }: Measured, missing: readonly Claim[]): DoctorLine | undefined {
  if (size <= 2 * probeBytes) return undefined;
  const wanted = missing.reduce((sum, claim) => sum + claim.bytes, 0);
  const share = free / size;
  const full: Verdict = share < freeShare.fault ? "fault" : share < freeShare.warning ? "warning" : "ok";
  // Such a class does not hold a claim to its size, so it is no fault yet.
  const short: Verdict = wanted > free ? "warning" : "ok";
  const asks = wanted === 0 ? "" : `; ${bytes(wanted)} claimed for what is to come`;
  return judged(
    "capacity",
    `disk, ${nameOf(disk)}`,
    worst([full, short]),
    `${bytes(free)} of ${bytes(size)} free${asks}`,
    "make room on that disk, or give sizes.database, sizes.queue and sizes.media less",
  );
}
