/**
 * The keeper: runs beside Valkey, reads the site lease, leaves the mark that the gate goes by, and takes Valkey's
 * snapshots to the vault. All it knows is in files, so that it may be killed at any time.
 *
 * SITE, OTHER_SITE, EPOCH, CLUSTER, FINGERPRINT   who asks
 * ENDPOINT, REGION, BUCKET, ACCESS_KEY_ID, SECRET_ACCESS_KEY   the vault
 * DATA, GATE   Valkey's folder, and the one that is shared with the gate
 * RESTORED_TO, GENERATION   the moment that the database goes back to, and the generation it was made in; unset: to none
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { SiteName } from "../../settings";
import { messageOf } from "../attempt";
import type { Mark } from "./gate";
import { formatMark, oursIn } from "./gate";
import { epochAge, isReplaced, judge, pollSeconds, requestSeconds } from "./lease";
import type { Claim, StoredLease } from "./lease";
import { beginEpoch, snapshotKey, upload } from "./snapshots";
import type { Restored, Store } from "./snapshots";
import { readLease } from "./store";

export interface KeeperOptions extends Store {
  claim: Claim;
  otherSite: string;
  data: string;
  gate: string;
  /** Where the database goes back to a moment, or went back to one when it was made. */
  restored?: Restored;
  /** Where the machine's uptime is read. @default /proc/uptime */
  uptime?: string;
  /** Seconds between two looks. @default 20, docs/lease.md */
  poll?: number;
  /** Seconds between two snapshots' ways to the vault. @default 300 */
  snapshots?: number;
  say?: (line: string) => void;
}

export class Keeper {
  private said = "";
  private uploaded = 0;
  /** The epoch that the folder is known to hold, so that no look at the lease waits for a disk. */
  private begunEpoch = 0;
  /** Uptime at the first look that found the lease to be ours. */
  private oursSince: number | undefined;
  /**
   * Uptime until which nobody else has run as this site in this epoch: who was restored onto another cluster waits for
   * longer than the grace. Undefined before the lease was first ours.
   */
  private aloneUntil: number | undefined;
  /** Uptime at the last look that found a lease, whosever it is; undefined: none has yet. */
  readAt: number | undefined;
  /**
   * When the vault last had the newest snapshot that Valkey wrote, in seconds since 1970; undefined: not since the start.
   * Whether Valkey writes any is not seen here.
   */
  uploadedAt: number | undefined;
  private ending = false;

  constructor(private readonly options: KeeperOptions) {}

  /** Runs until {@link end}. */
  async run(): Promise<void> {
    const { poll = pollSeconds, snapshots = 300 } = this.options;
    const ending = () => this.ending;
    // To Valkey's end, or the mark would grow old over a long last snapshot, and the gate would cut it short.
    const over = () => this.ending && this.ended();
    // Of a keeper before this one. The mark is in memory: of before the machine started there is none.
    const left = oursIn(await this.readMark());
    if (left !== undefined) this.aloneUntil = left.since + left.grace;
    // Nothing is given away before it is known whose the epoch is.
    await this.look();
    const taking = this.every(snapshots, () => this.snapshot(), ending);
    await this.every(poll, () => this.look(), over);
    await taking;
    await this.last();
  }

  /** The pod ends: waits for Valkey to have ended, and takes its last snapshot to the vault. */
  end(): void {
    this.ending = true;
  }

  private async every(seconds: number, work: () => Promise<void>, over: () => boolean): Promise<void> {
    while (!over()) {
      await work();
      const next = Date.now() + seconds * 1000;
      while (!over() && Date.now() < next) await sleep(Math.min(500, seconds * 1000));
    }
  }

  /** Whether the gate says that Valkey has ended. Kubernetes ends the wait for it: it kills the pod in time. */
  private ended(): boolean {
    return fs.existsSync(path.join(this.options.gate, "ended"));
  }

  /** One look at the lease. Never throws: what it could not find out leaves the mark to grow old. */
  async look(): Promise<void> {
    const { claim, vault, keys } = this.options;
    const asked = this.now();
    let stored: StoredLease | undefined;
    try {
      stored = await readLease(vault, keys, { seconds: requestSeconds, retries: 0 });
    } catch (error) {
      this.say(`the lease cannot be read: ${messageOf(error)}`);
      return;
    }
    if (stored === undefined) return this.say("there is no lease in the vault");
    this.readAt = asked;
    this.note(stored, asked);
    const { lease } = stored;
    const verdict = judge(stored, claim);
    if (verdict === "others" && isReplaced(lease, claim)) {
      this.say(
        `${claim.site} goes on on another cluster (UID ${lease.cluster ?? ""}), epoch ${lease.epoch}; this is UID ${claim.cluster}`,
      );
      this.mark({ word: "others" });
      return this.forget();
    }
    if (verdict === "others") {
      this.say(`the lease is ${lease.activeSite}'s, epoch ${lease.epoch}; this is ${claim.site}, epoch ${claim.epoch}`);
      return this.mark({ word: "others" });
    }
    if (verdict === "soon") {
      return this.say(`epoch ${lease.epoch} is ${claim.site}'s, ${lease.wait} s after it was taken: waiting`);
    }
    this.oursSince ??= asked;
    try {
      if (this.begunEpoch !== lease.epoch) {
        // A store that does not tell the lease's age must not make the wait for a snapshot an endless one.
        const age = Math.max(epochAge(stored), asked - this.oursSince);
        const begun = await beginEpoch({ ...this.options, site: claim.site, lease, age });
        if (begun !== undefined) this.say(begun);
        this.begunEpoch = lease.epoch;
      }
    } catch (error) {
      this.say(`epoch ${lease.epoch} cannot begin: ${messageOf(error)}`);
      return;
    }
    this.mark({ word: "ours", since: asked, grace: lease.grace });
    this.say(`the lease is ours, epoch ${lease.epoch}`);
  }

  /**
   * What the folder holds is over, should this cluster be the site's once more in the same epoch. In the background: a
   * disk that hangs must not hold up the next look.
   */
  private forget(): void {
    this.begunEpoch = 0;
    void fs.promises.rm(path.join(this.options.data, "epoch"), { force: true }).catch(() => undefined);
  }

  /** Keeps in mind what a lease says of who may have been writing this site's snapshots of this epoch. */
  private note(stored: StoredLease, asked: number): void {
    const { claim } = this.options;
    const { lease } = stored;
    if (judge(stored, claim) === "ours") this.aloneUntil = asked + lease.grace;
    // The epoch went by under its eyes, and nobody begins in it any more.
    else if (lease.epoch > claim.epoch && this.isAlone(asked)) this.aloneUntil = Infinity;
  }

  private isAlone(asked: number): boolean {
    return this.aloneUntil !== undefined && asked < this.aloneUntil;
  }

  private readMark(): Promise<string> {
    return fs.promises.readFile(path.join(this.options.gate, "mark"), "utf8").catch(() => "");
  }

  /** By renaming: the gate never reads half a mark. */
  private mark(mark: Mark): void {
    const file = path.join(this.options.gate, "mark");
    fs.writeFileSync(`${file}.new`, formatMark(mark));
    fs.renameSync(`${file}.new`, file);
  }

  private async snapshot(): Promise<void> {
    const { claim, data } = this.options;
    const file = path.join(data, "dump.rdb");
    // Asked for in the background: a disk that hangs must not hold up the look at the lease.
    if (!(await this.begun())) return;
    const changed = (await fs.promises.stat(file).catch(() => undefined))?.mtimeMs ?? 0;
    try {
      if (changed !== this.uploaded) {
        if (!(await this.mayGive())) return;
        await upload(this.options, snapshotKey(claim.site, claim.epoch, "dump"), file);
      }
      this.uploaded = changed;
      this.uploadedAt = Date.now() / 1000;
    } catch (error) {
      this.say(`a snapshot did not reach the vault: ${messageOf(error)}`);
    }
  }

  /** Whether the folder holds this epoch's data: another one's is not ours to give away. */
  private async begun(): Promise<boolean> {
    const mark = path.join(this.options.data, "epoch");
    const epoch = await fs.promises.readFile(mark, "utf8").catch(() => "");
    return epoch.trim() === String(this.options.claim.epoch);
  }

  /**
   * A cluster that was given up has the same names for its snapshots as the one that the site was restored to. It must not
   * write over that one's: neither when it comes back, nor when it gets to the vault again, be it after that one has handed
   * the server over to the other site, which would take the newest for the last.
   *
   * @throws Error when the store does not say
   */
  private async mayGive(): Promise<boolean> {
    const { claim, vault, keys } = this.options;
    // Not seen to be ours since the machine started: who knows who has been writing since.
    if (this.aloneUntil === undefined) return false;
    const asked = this.now();
    const stored = await readLease(vault, keys, { seconds: requestSeconds, retries: 0 });
    if (stored !== undefined) this.note(stored, asked);
    return this.isAlone(asked) && (stored === undefined || !isReplaced(stored.lease, claim));
  }

  private async last(): Promise<void> {
    const { claim, data } = this.options;
    const file = path.join(data, "dump.rdb");
    if (!(await this.begun()) || !fs.existsSync(file)) return;
    for (;;) {
      try {
        if (!(await this.mayGive())) {
          return this.say(`the last snapshot stays here: another cluster may be ${claim.site} in epoch ${claim.epoch}`);
        }
        await upload(this.options, snapshotKey(claim.site, claim.epoch, "final"), file);
        return this.say("the last snapshot is in the vault");
      } catch (error) {
        this.say(`the last snapshot did not reach the vault: ${messageOf(error)}`);
        await sleep(2000);
      }
    }
  }

  private now(): number {
    return Number(fs.readFileSync(this.options.uptime ?? "/proc/uptime", "utf8").split(" ")[0]);
  }

  /** Once for each thing there is to say: it looks three times a minute. */
  private say(line: string): void {
    if (line === this.said) return;
    this.said = line;
    (this.options.say ?? ((text) => console.log(`keeper: ${text}`)))(line);
  }
}

const setting = (name: string): string => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
};

export function keeperOptions(): KeeperOptions {
  const { RESTORED_TO } = process.env;
  return {
    claim: {
      site: setting("SITE") as SiteName,
      epoch: Number(setting("EPOCH")),
      cluster: setting("CLUSTER"),
      fingerprint: setting("FINGERPRINT"),
    },
    otherSite: setting("OTHER_SITE"),
    vault: { endpoint: setting("ENDPOINT"), region: setting("REGION"), bucket: setting("BUCKET") },
    keys: { accessKeyId: setting("ACCESS_KEY_ID"), secretAccessKey: setting("SECRET_ACCESS_KEY") },
    data: setting("DATA"),
    gate: setting("GATE"),
    ...(RESTORED_TO ? { restored: { to: RESTORED_TO, generation: Number(setting("GENERATION")) } } : {}),
  };
}
