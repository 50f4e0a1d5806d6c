/**
 * What the keeper tells Prometheus, at `/metrics`: it is beside Valkey, on its volume, and knows the lease already, so
 * that no exporter has to be run. Nothing in here may hold the keeper up: what can wait for a disk or for the network
 * runs by itself, once at a time, and an answer tells what was found last.
 *
 * METRICS_PORT   where to listen; unset: no metrics
 * APEX, WEB_HOST, OWNER, AUTHORITY   who WebFinger is asked for, and a certificate (PEM) to trust; no APEX: it is not
 * QUEUES   Sidekiq's queues, parted by spaces
 * PASSWORD   file with Valkey's password
 * MEDIA_COPIED   key of the object that says when media was last copied to the vault; unset: it is not copied
 */
import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";
import { s3Request } from "../s3";
import { gateVerdict, oursIn } from "./gate";
import type { Keeper, KeeperOptions } from "./keeper";
import { DiskProbe, pressureSamples } from "./metrics/disk";
import { exposition, expositionType } from "./metrics/exposition";
import type { Sample } from "./metrics/exposition";
import { valkeySamples } from "./metrics/valkey";
import type { ValkeyAccess } from "./metrics/valkey";
import { WebfingerProbe, publicClient } from "./metrics/webfinger";

/**
 * Seconds between two attempts. The disk: a slowdown is to be told within two minutes, of which Prometheus may take one
 * between two looks. WebFinger: five questions through the front door each time.
 */
const intervals = { disk: 10, webfinger: 120, media: 300 } as const;

export interface MetricsOptions extends Pick<KeeperOptions, "claim" | "vault" | "keys" | "data" | "gate" | "uptime"> {
  valkey: ValkeyAccess;
  /** When the vault last had Valkey's newest snapshot, in seconds since 1970; undefined: not since the keeper's start. */
  uploaded: () => number | undefined;
  /** Uptime at the keeper's last look that found a lease; undefined: none has. */
  leaseRead: () => number | undefined;
  disk?: DiskProbe;
  webfinger?: WebfingerProbe;
  mediaCopied?: string;
}

export class Metrics {
  private readonly disk: DiskProbe;
  private readonly started = Date.now() / 1000;
  private copied: number | undefined;

  constructor(private readonly options: MetricsOptions) {
    this.disk = options.disk ?? new DiskProbe(options.data);
  }

  /** Looks from now on and answers at `port`. A port that cannot be had is said, and ends nothing. */
  start(port: number): http.Server {
    const { webfinger, mediaCopied } = this.options;
    every(intervals.disk, () => this.disk.probe());
    if (webfinger) every(intervals.webfinger, () => webfinger.probe());
    if (mediaCopied !== undefined) every(intervals.media, () => this.lookForCopy(mediaCopied));
    const server = http.createServer((request, response) => {
      if (request.url !== "/metrics") return void response.writeHead(404).end();
      void this.text().then((text) => response.writeHead(200, { "content-type": expositionType }).end(text));
    });
    server.on("error", (error) => console.log(`keeper: no metrics: ${error.message}`));
    return server.listen(port).unref();
  }

  /** Everything that is known now. Never throws. */
  async text(): Promise<string> {
    return exposition([
      ...this.leaseSamples(),
      ...this.disk.samples(),
      ...pressureSamples(),
      ...(await valkeySamples(this.options.valkey)),
      ...(this.options.webfinger?.samples() ?? []),
      ...known("homestead_snapshot_uploaded_timestamp_seconds", this.options.uploaded()),
      ...known("homestead_media_copied_timestamp_seconds", this.copied),
    ]);
  }

  /** As the gate sees it: by the mark, which is in memory, and the machine's uptime. */
  private leaseSamples(): Sample[] {
    const { claim, gate, uptime = "/proc/uptime", leaseRead } = this.options;
    const readAt = leaseRead();
    const mark = readOr(path.join(gate, "mark"));
    const now = Number((readOr(uptime) ?? "").split(" ")[0]);
    const verdict = gateVerdict(mark, now);
    const ours = oursIn(mark);
    return [
      { name: "homestead_keeper_info", labels: { site: claim.site, epoch: String(claim.epoch) }, value: 1 },
      { name: "homestead_keeper_started_timestamp_seconds", value: this.started },
      ...(["open", "closed", "unverified"] as const).map((state) => ({
        name: "homestead_gate_state" as const,
        labels: { state },
        value: state === verdict ? 1 : 0,
      })),
      ...known("homestead_lease_read_age_seconds", readAt === undefined ? undefined : Math.max(0, now - readAt)),
      ...(ours === undefined
        ? []
        : [
            { name: "homestead_lease_mark_age_seconds" as const, value: Math.max(0, now - ours.since) },
            { name: "homestead_lease_grace_seconds" as const, value: ours.grace },
          ]),
    ];
  }

  /** What cannot be found out leaves what was known: the copy grows old by itself. */
  private async lookForCopy(key: string): Promise<void> {
    const response = await s3Request(this.options.vault, this.options.keys, "GET", { key });
    const moment = Date.parse((await response.text()).trim()) / 1000;
    if (response.status === 404) this.copied = 0;
    else if (response.ok && !Number.isNaN(moment)) this.copied = moment;
  }
}

const known = (name: Sample["name"], value: number | undefined): Sample[] =>
  value === undefined ? [] : [{ name, value }];

function readOr(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/** Now, and again and again. It keeps no process alive, and what it throws is not worth ending one. */
function every(seconds: number, work: () => Promise<void>): void {
  const attempt = () => void work().catch(() => undefined);
  attempt();
  setInterval(attempt, seconds * 1000).unref();
}

/** Starts what the environment asks for. */
export function startMetrics(options: KeeperOptions, keeper: Pick<Keeper, "uploadedAt" | "readAt">): void {
  const { METRICS_PORT, APEX, WEB_HOST = "", OWNER = "", AUTHORITY = "", QUEUES = "", PASSWORD = "" } = process.env;
  const { MEDIA_COPIED } = process.env;
  if (!METRICS_PORT) return;
  const subject = APEX ? { apex: APEX, webHost: WEB_HOST, owner: OWNER } : undefined;
  const say = (line: string) => console.log(`keeper: ${line}`);
  new Metrics({
    ...options,
    valkey: { password: PASSWORD, queues: QUEUES.split(" ") },
    uploaded: () => keeper.uploadedAt,
    leaseRead: () => keeper.readAt,
    ...(subject ? { webfinger: new WebfingerProbe(subject, publicClient(subject, AUTHORITY), say) } : {}),
    ...(MEDIA_COPIED ? { mediaCopied: MEDIA_COPIED } : {}),
  }).start(Number(METRICS_PORT));
}
