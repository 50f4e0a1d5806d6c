/** How the disk under Valkey does, and the node's disks together. */
import * as fs from "node:fs";
import * as path from "node:path";
import type { Sample } from "./exposition";

/** A page, as a database would write it. */
const page = Buffer.alloc(4096, "homestead");

/** Bytes of a file system. */
interface Room {
  available: number;
  size: number;
}

/**
 * Writes and syncs a page now and then, as every commit does. Databases are on volumes of the same class, so what this
 * one waits for, they do.
 *
 * A disk that hangs keeps one of Node.js' four threads for file work; the next attempt waits until it is free, so that
 * it is never more than one: reading the lease needs the others.
 */
export class DiskProbe {
  private begun: number | undefined;
  private took: number | undefined;
  private errors = 0;
  private room: Room | undefined;

  /** @param now a clock that nobody sets, in seconds */
  constructor(
    private readonly folder: string,
    private readonly write: (file: string) => Promise<void> = writeAndSync,
    private readonly now = () => performance.now() / 1000,
    private readonly look: (folder: string) => Promise<Room> = roomOn,
  ) {}

  /** One attempt; none where the last one is still under way. Never throws. */
  async probe(): Promise<void> {
    if (this.begun !== undefined) return;
    const begun = this.now();
    this.begun = begun;
    try {
      await this.write(path.join(this.folder, "fsync-probe"));
    } catch {
      this.errors++;
    }
    this.took = this.now() - begun;
    // Part of the attempt: it may hang as well, and must not be asked twice.
    this.room = await this.look(this.folder).catch(() => undefined);
    this.begun = undefined;
  }

  /** A sync that does not end counts for as long as it has taken: an alert must not wait for it. */
  samples(): Sample[] {
    const running = this.begun === undefined ? 0 : this.now() - this.begun;
    const seconds = this.took === undefined ? running : Math.max(this.took, running);
    return [
      { name: "homestead_fsync_seconds", value: seconds },
      { name: "homestead_fsync_errors_total", value: this.errors },
      ...(this.room === undefined
        ? []
        : [
            { name: "homestead_volume_available_bytes" as const, value: this.room.available },
            { name: "homestead_volume_size_bytes" as const, value: this.room.size },
          ]),
    ];
  }
}

/** What is left is what may be written by who is not root. */
async function roomOn(folder: string): Promise<Room> {
  const { bavail, blocks, bsize } = await fs.promises.statfs(folder);
  return { available: bavail * bsize, size: blocks * bsize };
}

async function writeAndSync(file: string): Promise<void> {
  const { O_RDWR, O_CREAT } = fs.constants;
  const handle = await fs.promises.open(file, O_RDWR | O_CREAT, 0o600);
  try {
    // In place: no sync waits for the file to grow.
    await handle.write(page, 0, page.length, 0);
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/** The kernel's own account (docs.kernel.org, "PSI"); nothing where it keeps none. */
export function pressureSamples(file = "/proc/pressure/io"): Sample[] {
  let text: string;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch {
    return [];
  }
  return (["some", "full"] as const).flatMap((kind) => {
    const value = new RegExp(`^${kind} .*\\bavg60=([0-9.]+)`, "m").exec(text)?.[1];
    return value === undefined ? [] : [{ name: `homestead_io_pressure_${kind}_avg60` as const, value: Number(value) }];
  });
}
