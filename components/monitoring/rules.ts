import { waitFor } from "../../lib/lease/lease";
import type { Settings } from "../../settings";

export type RulesArgs = Pick<
  Settings,
  "site" | "namespace" | "role" | "standby" | "lease" | "leaseGrace" | "media" | "maintenance" | "certificates"
>;

export interface Alert {
  alert: string;
  expr: string;
  for: string;
  labels: { severity: "warning" | "critical"; namespace: string; site: string };
  annotations: { summary: string; description: string; runbook_url: string };
}

/**
 * Where each alert has a section of its own. A path within the repository and no link: nothing here names an address of
 * it, and every owner's clone has another.
 */
export const runbook = "docs/runbooks/alerts.md";

const hour = 3600;
const day = 24 * hour;

/**
 * Seconds that a write to the disk may take. A healthy one needs 1 to 100 ms, posting becomes slow from there on, and
 * from 2 s on Redis speaks of a disk that is too slow: what this tells of is on its way there.
 */
const slowSync = 1;
/** A base backup is made every night; on a standby on Sundays, and the first on the first of them. */
const oldBackup = { active: 36 * hour, standby: 8 * day };
/** Share of the memory from which on Valkey refuses writes (`maxmemory`, components/valkey.ts). */
const crowded = 0.9;
/** Per cent of a volume. Postgres stops when there is nothing left, and writes nothing from there on. */
const full = 85;
/** Media is copied every 15 minutes, and a first copy over a home line takes hours. */
const oldCopy = 2 * hour;
/** Snapshots go to the vault every 5 minutes. */
const oldSnapshot = hour / 2;
/** cert-manager renews with a third of the time left: 30 days of 90, 15 of 45. */
const soon = 14 * day;
/** WAL segments that wait; one is made every 15 s while something is written. */
const manySegments = 20;

/**
 * What a site is to be called about. `namespace` stands on every alert, since the Prometheus operator's Alertmanager
 * hands on only what carries the namespace of who asked.
 */
export function alerts(args: RulesArgs): Alert[] {
  return [...(args.role === "active" ? activeAlerts(args) : standbyAlerts(args)), certificateExpires(args)];
}

function activeAlerts(args: RulesArgs): Alert[] {
  return [
    ...(args.lease === "vault" ? keeperAlerts(args) : []),
    ...archiveAlerts(args),
    ...databaseAlerts(args),
    metricsMissing(args),
  ];
}

/** A cold standby is a site that is not there. */
function standbyAlerts(args: RulesArgs): Alert[] {
  if (args.standby === "cold") return [];
  return [...standbyArchiveAlerts(args), ...databaseAlerts(args), replicaLag(args), metricsMissing(args)];
}

/**
 * It follows by the archive. While nothing is written at home there is nothing to replay, and the lag grows.
 *
 * CloudNativePG's lag is 0 until the first transaction after a start is replayed: a standby that was started anew and gets
 * nothing would be well for ever. So there what counts is when its own archive, into which it puts what it gets, last took
 * something; where Postgres has forgotten that (-1: it crashed), when it started. A clock behind the other site's makes
 * the lag 0 as well, but segments go on coming.
 */
function replicaLag(args: RulesArgs): Alert {
  const { own, site } = writing(args);
  const lag = `cnpg_pg_replication_lag${own()}`;
  const came = `(cnpg_pg_stat_archiver_last_archived_time${own()} > 0 or cnpg_pg_postmaster_start_time${own()})`;
  const behind = `(${lag} > ${hour / 2} or time() - ${came} > ${hour / 2} and ${lag} == 0)`;
  return alert(args, "ReplicaLag", "warning", "10m", {
    expr: site("max", `${behind} and cnpg_pg_replication_in_recovery${own()} == 1`),
    summary: "The standby's database is {{ $value | humanizeDuration }} behind",
    description: "A takeover has to replay all of it first; what is not in the archive would be lost.",
  });
}

// ---------------------------------------------------------------- what the keeper sees

function keeperAlerts(args: RulesArgs): Alert[] {
  return [
    ...diskAlerts(args),
    ...leaseAlerts(args),
    ...valkeyAlerts(args),
    ...(args.media.kind === "volume" ? [mediaCopyOld(args)] : []),
    ...(args.maintenance === "off" && args.certificates.kind !== "selfSigned" ? [webfingerDown(args)] : []),
  ];
}

function diskAlerts(args: RulesArgs): Alert[] {
  const { own, site } = writing(args);
  const sync = `homestead_fsync_seconds${own()}`;
  const stalls = site("sum", `sum_over_time((${sync} > bool ${slowSync})[10m:15s])`);
  return [
    alert(args, "SlowDisk", "warning", "30s", {
      // The last: a disk that stalls now and then, which is how a failing one begins; its newest value is mostly a good one.
      expr: [
        `${site("max", sync)} > ${slowSync}`,
        `${site("max", `increase(homestead_fsync_errors_total${own()}[5m])`)} > 0`,
        `(${site("max", `max_over_time(${sync}[10m])`)} and ${stalls} >= 5)`,
      ].join(" or "),
      summary: "The databases' disk is slow: writing 4 KiB takes {{ $value | humanizeDuration }}, or fails",
      description: "Every post waits for some ten such writes. Nothing is lost yet; the disk or the share is failing.",
    }),
    alert(args, "DelayedFsync", "warning", "1m", {
      expr: `increase(homestead_valkey_aof_delayed_fsync_total${own()}[5m]) > 0`,
      summary: "Valkey waits for its append-only file's fsync",
      description: "That is how a slow disk kills it. This project keeps no such file: somebody has turned it on.",
    }),
    alert(args, "IoPressure", "warning", "5m", {
      expr: `homestead_io_pressure_some_avg60${own()} > 40`,
      summary: "Something on the node waits for a disk {{ $value | humanize }} % of the time",
      description: "The disk is busy or failing; what else runs on the node has its share in it.",
    }),
  ];
}

function leaseAlerts(args: RulesArgs): Alert[] {
  const { own } = writing(args);
  const age = `homestead_lease_mark_age_seconds${own()}`;
  // A pod that is made anew has no mark to grow old. Nor has one whose takeover waits on purpose, but that one reads the lease.
  const neverOurs = [
    `(time() - homestead_keeper_started_timestamp_seconds${own()} > 90)`,
    age,
    `homestead_lease_read_age_seconds${own()} < 60`,
    `homestead_gate_state${own('state="closed"')} == 1`,
  ].join(" unless on (namespace, pod) ");
  // A site that has taken over waits on purpose, and starts up after that.
  const waits = `${Math.ceil(waitFor(args.leaseGrace) / 60) + 5}m`;
  return [
    alert(args, "LeaseUnverified", "critical", "30s", {
      expr: `${age} > 60 and ${age} > homestead_lease_grace_seconds${own()} / 3 or ${neverOurs}`,
      summary: "The site lease could not be read for {{ $value | humanizeDuration }}",
      description: `After ${args.leaseGrace} s (leaseGrace), and at once where Valkey's pod is a new one, the site writes nothing until the vault answers again.`,
    }),
    alert(args, "GateClosed", "critical", waits, {
      expr: `homestead_gate_state${own('state="open"')} == 0`,
      summary: "Valkey is kept from writing, so Mastodon does nothing",
      description: "The lease names the other site, or cannot be read.",
    }),
  ];
}

function valkeyAlerts(args: RulesArgs): Alert[] {
  const { own, site } = writing(args);
  const up = `homestead_valkey_up${own()}`;
  const [used, most] = ["used", "max"].map((what) => `homestead_valkey_${what}_memory_bytes${own()}`);
  return [
    alert(args, "ValkeyDown", "critical", "5m", {
      // Behind a closed gate it does not run, which is GateClosed's to tell. A pod that is gone tells nothing.
      expr: `${site("max", up)} == 0 and ${gateOpen(args)} or absent(${up})`,
      summary: "Valkey does not answer",
      description: "Mastodon does nothing without it: nobody can read or post.",
    }),
    alert(args, "ValkeyFull", "warning", "5m", {
      // 0 is no limit.
      expr: `${used} / (${most} > 0) > ${crowded}`,
      summary: "Valkey's memory is {{ $value | humanizePercentage }} full",
      description: "With nothing left it refuses writes: no job is queued any more, and no post is accepted.",
    }),
    snapshotOld(args),
    ...(args.maintenance === "all"
      ? []
      : [
          alert(args, "QueueLatency", "warning", "5m", {
            expr: `homestead_queue_latency_seconds${own()} > 300`,
            summary: "Jobs wait for {{ $value | humanizeDuration }} in queue {{ $labels.queue }}",
            description: "Posts are delivered late, or not at all.",
          }),
        ]),
  ];
}

/** Twice as long as the keeper takes from one snapshot's way to the next: a takeover may have waited for longer than `oldSnapshot`. */
function snapshotOld(args: RulesArgs): Alert {
  const { own } = writing(args);
  const saved = `time() - homestead_valkey_rdb_last_save_timestamp_seconds${own()}`;
  return alert(args, "SnapshotOld", "warning", "10m", {
    expr: [
      `homestead_valkey_rdb_last_bgsave_ok${own()} == 0`,
      // One that hangs has not failed, and the vault has the one before. Without a change none is written.
      `(${saved} > ${oldSnapshot} and homestead_valkey_rdb_unsaved_changes${own()} > 0)`,
      // What is behind a closed gate does not change.
      `(time() - ${keptSince(args, "homestead_snapshot_uploaded_timestamp_seconds")} > ${oldSnapshot} and ${gateOpen(args)})`,
    ].join(" or "),
    summary: "Valkey's snapshots are not written, or do not reach the vault",
    description: "Jobs that wait now would be lost with the cluster, or with the next restart.",
  });
}

/** For an `and`: Valkey is to run. */
const gateOpen = (args: RulesArgs): string =>
  `on (namespace) homestead_gate_state${writing(args).own('state="open"')} == 1`;

/** A moment that the keeper tells once it knows it. Until then its own start: what it never finds out must not be silence. */
const keptSince = (args: RulesArgs, metric: string): string => {
  const { own } = writing(args);
  return `(${metric}${own()} or homestead_keeper_started_timestamp_seconds${own()})`;
};

function mediaCopyOld(args: RulesArgs): Alert {
  return alert(args, "MediaCopyOld", "warning", "15m", {
    expr: `time() - ${keptSince(args, "homestead_media_copied_timestamp_seconds")} > ${oldCopy}`,
    summary: "Uploads were last copied to the vault {{ $value | humanizeDuration }} ago",
    description: "What was uploaded since would be lost with the volume.",
  });
}

function webfingerDown(args: RulesArgs): Alert {
  const { own, site } = writing(args);
  const ok = `homestead_webfinger_ok${own()}`;
  const fired = `ALERTS${own('alertname="WebfingerDown",alertstate="firing"')}`;
  return alert(args, "WebfingerDown", "critical", "5m", {
    // Once right and now wrong: a router that does not lead the site's own address back in was never right. That this alert
    // fired is remembered too: else it would end by itself after a week in which nothing was mended.
    expr: [
      `${site("max", ok)} == 0`,
      `(${site("max", `max_over_time(${ok}[7d])`)} == 1 or ${site("max", `max_over_time(${fired}[7d])`)} == 1)`,
    ].join(" and "),
    summary: "Other servers cannot find the owner any more",
    description: "WebFinger from the apex to the web host fails; the keeper's log says where.",
  });
}

// ---------------------------------------------------------------- what others see

function archiveAlerts(args: RulesArgs): Alert[] {
  return [
    alert(args, "ArchiveFailing", "critical", "2m", {
      expr: archiveFails(args),
      summary: "The database's WAL does not reach the vault",
      description: "What is written now would be lost with the cluster, and WAL fills the database's volume.",
    }),
    alert(args, "BackupOld", "critical", "1h", {
      expr: `time() - ${lastBackup(args)} > ${oldBackup.active}`,
      summary: "The last base backup is older than 36 hours",
      description: "A restore takes longer by the day, and after 30 days there is nothing to restore from.",
    }),
  ];
}

/**
 * A standby archives what it replays, into an archive of its own, which segments leave only with a base backup of its own.
 * Nothing is restored from there but itself: no reason to wake anybody.
 */
function standbyArchiveAlerts(args: RulesArgs): Alert[] {
  const last = lastBackup(args);
  const none = lastBackup(args, (metric) => `max_over_time(${metric}[1h] offset ${oldBackup.standby}s)`);
  return [
    // Not before it has caught up: a new one replays faster than it archives.
    alert(args, "ArchiveFailing", "warning", "30m", {
      expr: archiveFails(args),
      summary: "The standby's WAL does not reach its own archive",
      description: "It fills the standby's volume, and a full one follows no more.",
    }),
    alert(args, "BackupOld", "warning", "1h", {
      // A new one has none before its first Sunday: nothing now, and nothing a week and a day ago, be it that it was just
      // being started anew then.
      expr: [`(time() - ${last} > ${oldBackup.standby} and ${last} != 0)`, `(${last} == 0 and ${none} == 0)`].join(
        " or ",
      ),
      summary: "The standby has made no base backup for more than a week",
      description: "Its archive grows for ever: segments go only with the base backup before them.",
    }),
  ];
}

/** The second for an archiver that neither fails nor gets on. */
function archiveFails(args: RulesArgs): string {
  const { own } = writing(args);
  const archiver = (name: string) => `cnpg_pg_stat_archiver_${name}${own()}`;
  const waiting = `cnpg_collector_pg_wal_archive_status${own('value="ready"')}`;
  return `${archiver("last_failed_time")} > ${archiver("last_archived_time")} or ${waiting} > ${manySegments}`;
}

const baseBackups = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp";

/** By the plugin: CloudNativePG's own metric of that kind stays 0 with it. 0: there is none. */
function lastBackup(args: RulesArgs, over = (metric: string) => metric): string {
  const { own, site } = writing(args);
  return site("max", over(`${baseBackups}${own()}`));
}

/** What ends a database, on either site. */
function databaseAlerts(args: RulesArgs): Alert[] {
  const { own, site } = writing(args);
  const active = args.role === "active";
  const kubelet = (name: string) => `kubelet_volume_stats_${name}_bytes${own()}`;
  const keeper = (name: string) => `homestead_volume_${name}_bytes${own()}`;
  const filled = [
    `100 * (1 - ${kubelet("available")} / ${kubelet("capacity")}) > ${full}`,
    // Of a folder on a node's disk, which is what k3s' own class gives, the kubelet says nothing.
    ...(active && args.lease === "vault" ? [`100 * (1 - ${keeper("available")} / ${keeper("size")}) > ${full}`] : []),
  ];
  const up = `cnpg_collector_up${own()}`;
  const down = [
    `${site("min", up)} == 0`,
    // Of a fenced one CloudNativePG goes on saying what it said before.
    `${site("max", `cnpg_collector_fencing_on${own()}`)} == 1`,
    // A pod that is gone tells nothing. Of a standby's, MetricsMissing says so as soon and as loudly.
    ...(active ? [`absent(${up})`] : []),
  ];
  return [
    alert(args, "DatabaseDown", active ? "critical" : "warning", active ? "5m" : "15m", {
      expr: down.join(" or "),
      summary: active
        ? "The database does not answer"
        : "The standby's database does not answer, and so follows nothing",
      description: active ? "Nobody can read or post." : "A takeover would have to wait for it, or for a new one.",
    }),
    alert(args, "VolumeFilling", "warning", "15m", {
      expr: filled.join(" or "),
      summary: "A volume is {{ $value | humanize }} % full: {{ $labels.persistentvolumeclaim }}{{ $labels.pod }}",
      description: "With nothing left the database stops, and starts no more until there is room.",
    }),
  ];
}

/** What the keeper saw served, and what cert-manager has: a standby has no keeper that runs. */
function certificateExpires(args: RulesArgs): Alert {
  const { own } = writing(args);
  const issued = "certmanager_certificate_expiration_timestamp_seconds";
  const moments = [
    `homestead_certificate_expires_timestamp_seconds${own()}`,
    `${issued}${own()}`,
    // cert-manager says there whose certificate it is, and a scrape without honorLabels renames it.
    `${issued}{exported_namespace="${args.namespace}"}`,
  ];
  return alert(args, "CertificateExpires", "warning", "1h", {
    expr: `(${moments.join(" or ")}) - time() < ${soon}`,
    summary: "A certificate expires in {{ $value | humanizeDuration }}",
    description: "cert-manager should have renewed it by now. Once it has expired nobody reaches the site.",
  });
}

/** Silence must not be taken for health. What the keeper tells is there while Valkey runs, so not on a standby. */
function metricsMissing(args: RulesArgs): Alert {
  const { own } = writing(args);
  const keeper = args.role === "active" && args.lease === "vault" ? ["homestead_keeper_info"] : [];
  return alert(args, "MetricsMissing", "warning", "15m", {
    // Base backups are the plugin's to tell of, over CloudNativePG, which goes on without it.
    expr: [...keeper, "cnpg_collector_up", baseBackups].map((metric) => `absent(${metric}${own()})`).join(" or "),
    summary: "Prometheus has no metrics of the site",
    description: "The alerts that rest on them are silent whatever happens.",
  });
}

// ---------------------------------------------------------------- writing it down

const writing = ({ namespace }: RulesArgs) => ({
  /** Selects what is scraped in our namespace. */
  own: (matcher?: string) => `{${[`namespace="${namespace}"`, ...(matcher === undefined ? [] : [matcher])].join(",")}}`,
  /**
   * The site's one value, whichever pod tells it. A pod that is made anew has another address and so another series: what
   * is compared with what was before, or is to last over a restart, goes by this.
   */
  site: (of: "max" | "min" | "sum", expr: string) => `${of} by (namespace) (${expr})`,
});

function alert(
  { namespace, site }: RulesArgs,
  name: string,
  severity: "warning" | "critical",
  lasting: string,
  { expr, summary, description }: { expr: string; summary: string; description: string },
): Alert {
  return {
    alert: name,
    expr,
    for: lasting,
    labels: { severity, namespace, site },
    annotations: { summary, description, runbook_url: `${runbook}#${name.toLowerCase()}` },
  };
}

/** As a rule file has them, and a PrometheusRule's `spec`. Looked at every 15 s, so that a slow disk is soon known. */
export const ruleGroups = (args: RulesArgs) => ({
  groups: [{ name: "homestead", interval: "15s", rules: alerts(args) }],
});
