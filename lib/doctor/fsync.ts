/**
 * How long a disk takes to keep what is written to it. Measured by a program of ours and not by fio: none of the images
 * that the stack runs has it, and Postgres' own pg_test_fsync tells averages only, while it is the slow ones that hurt.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { pressureSamples } from "../lease/metrics/disk";

export interface Fsyncs {
  count: number;
  /** Milliseconds: half of them took no longer. */
  p50: number;
  /** Milliseconds: all but one in a hundred took no longer. */
  p99: number;
  /** Milliseconds that the slowest took. */
  max: number;
}

export interface Measured extends Fsyncs {
  /** Bytes of the file system that an ordinary user may still fill. */
  free: number;
  /** Bytes of the file system. */
  size: number;
  /** Whether it is a share: an NFS one is known by its number, whatever its provisioner is called. */
  fileSystem: "nfs" | "other";
  /** Whether the node's kernel keeps an account of what waits for its disks, as the keeper would find it. */
  pressure: "kept" | "none";
}

/** NFS_SUPER_MAGIC (linux/magic.h, statfs(2)). */
const nfsNumber = 0x6969;

/** The percentiles by nearest rank. @throws Error when nothing was measured */
export function summaryOf(milliseconds: readonly number[]): Fsyncs {
  const sorted = [...milliseconds].sort((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  const [p50, p99, max] = [rank(0.5), rank(0.99), sorted.at(-1)];
  if (p50 === undefined || p99 === undefined || max === undefined) throw new Error("nothing was measured");
  return { count: sorted.length, p50, p99, max };
}

/** A segment of Postgres' WAL, and a page of it. */
const fileBytes = 16 * 1024 * 1024;
const block = Buffer.alloc(8192, "homestead");

/**
 * Writes and syncs as a database does that commits one transaction after the other, for so many seconds and at least
 * once, and leaves nothing behind. The clock is monotonic.
 */
export function measure(folder: string, seconds: number): Measured {
  const file = path.join(folder, "fsync");
  const fd = fs.openSync(file, "w");
  try {
    // Postgres writes over segments that exist: no fsync waits for the file to grow.
    for (let at = 0; at < fileBytes; at += block.length) fs.writeSync(fd, block, 0, block.length, at);
    fs.fsyncSync(fd);
    const took: number[] = [];
    const end = performance.now() + seconds * 1000;
    do {
      const start = performance.now();
      fs.writeSync(fd, block, 0, block.length, (took.length * block.length) % fileBytes);
      // What `wal_sync_method` is on Linux.
      fs.fdatasyncSync(fd);
      took.push(performance.now() - start);
    } while (performance.now() < end);
    const { bavail, blocks, bsize, type } = fs.statfsSync(folder);
    const fileSystem = type === nfsNumber ? "nfs" : "other";
    const pressure = pressureSamples().length > 0 ? "kept" : "none";
    return { ...summaryOf(took), free: bavail * bsize, size: blocks * bsize, fileSystem, pressure };
  } finally {
    fs.closeSync(fd);
    fs.rmSync(file, { force: true });
  }
}
