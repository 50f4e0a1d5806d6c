/** One page for Grafana, on what the alerts speak of. */

interface Panel {
  title: string;
  /** Grafana's name of a unit. */
  unit: "s" | "percent" | "short" | "bytes" | "bool";
  /** Expression -> legend. */
  queries: Record<string, string>;
}

/** @param namespace the site's own, in which its pods are scraped */
function panels(namespace: string): Panel[] {
  const own = `namespace="${namespace}"`;
  return [
    {
      title: "Writing 4 KiB to the databases' disk",
      unit: "s",
      queries: { [`homestead_fsync_seconds{${own}}`]: "last, or so far" },
    },
    {
      title: "Volumes, and how full they are",
      unit: "percent",
      queries: {
        [`100 * (1 - kubelet_volume_stats_available_bytes{${own}} / kubelet_volume_stats_capacity_bytes{${own}})`]:
          "{{persistentvolumeclaim}}",
        [`100 * (1 - homestead_volume_available_bytes{${own}} / homestead_volume_size_bytes{${own}})`]:
          "the databases' disk, as Valkey's pod sees it",
      },
    },
    {
      title: "I/O pressure of the node",
      unit: "percent",
      queries: {
        [`homestead_io_pressure_some_avg60{${own}}`]: "something waits",
        [`homestead_io_pressure_full_avg60{${own}}`]: "everything waits",
      },
    },
    {
      title: "The lease, since it was last verified",
      unit: "s",
      queries: {
        [`homestead_lease_mark_age_seconds{${own}}`]: "age",
        [`homestead_lease_grace_seconds{${own}}`]: "writes are paused from here on",
      },
    },
    {
      title: "The gate, and who answers",
      unit: "bool",
      queries: {
        [`homestead_gate_state{${own}}`]: "{{state}}",
        [`homestead_valkey_up{${own}}`]: "Valkey answers",
        [`cnpg_collector_up{${own}}`]: "the database answers",
      },
    },
    {
      title: "Oldest job of each queue",
      unit: "s",
      queries: { [`homestead_queue_latency_seconds{${own}}`]: "{{queue}}" },
    },
    {
      title: "Jobs",
      unit: "short",
      queries: {
        [`homestead_queue_length{${own}}`]: "{{queue}}",
        [`homestead_jobs_set_aside{${own}}`]: "{{set}}",
      },
    },
    {
      title: "Memory of Valkey",
      unit: "bytes",
      queries: {
        [`homestead_valkey_used_memory_bytes{${own}}`]: "used",
        [`homestead_valkey_max_memory_bytes{${own}}`]: "refuses writes from here on",
      },
    },
    {
      title: "Age of what is in the vault, and of Valkey's snapshot on its disk",
      unit: "s",
      queries: {
        [`time() - cnpg_pg_stat_archiver_last_archived_time{${own}}`]: "WAL",
        [`time() - barman_cloud_cloudnative_pg_io_last_available_backup_timestamp{${own}} > 0`]: "base backup",
        [`time() - homestead_snapshot_uploaded_timestamp_seconds{${own}}`]: "Valkey's snapshot",
        [`time() - homestead_valkey_rdb_last_save_timestamp_seconds{${own}}`]: "Valkey's snapshot on its disk",
        [`time() - homestead_media_copied_timestamp_seconds{${own}}`]: "media",
      },
    },
    {
      title: "WAL segments that wait to be archived",
      unit: "short",
      queries: { [`cnpg_collector_pg_wal_archive_status{${own},value="ready"}`]: "waiting" },
    },
    {
      title: "The standby's lag",
      unit: "s",
      queries: {
        [`cnpg_pg_replication_lag{${own}} and cnpg_pg_replication_in_recovery{${own}} == 1`]:
          "since what was replayed last; 0 before the first",
        [`time() - (cnpg_pg_stat_archiver_last_archived_time{${own}} > 0) and cnpg_pg_replication_in_recovery{${own}} == 1`]:
          "since its own archive took something",
      },
    },
    {
      title: "Certificates expire in",
      unit: "s",
      queries: { [`homestead_certificate_expires_timestamp_seconds{${own}} - time()`]: "{{host}}" },
    },
    {
      title: "WebFinger, as other servers ask",
      unit: "bool",
      queries: { [`homestead_webfinger_ok{${own}}`]: "answers" },
    },
  ];
}

/** Grafana's grid is 24 wide. */
const width = 12;
const height = 7;

/** Grafana's JSON model; the data source is chosen at the top of the page. */
export function dashboard(namespace: string) {
  const datasource = { type: "prometheus", uid: "${datasource}" };
  return {
    uid: "homestead",
    title: "homestead",
    tags: ["homestead"],
    schemaVersion: 39,
    editable: true,
    refresh: "30s",
    time: { from: "now-6h", to: "now" },
    templating: { list: [{ name: "datasource", label: "Data source", type: "datasource", query: "prometheus" }] },
    panels: panels(namespace).map(({ title, unit, queries }, i) => ({
      id: i + 1,
      type: "timeseries",
      title,
      datasource,
      gridPos: { x: (i % 2) * width, y: Math.floor(i / 2) * height, w: width, h: height },
      fieldConfig: { defaults: { unit, min: 0 }, overrides: [] },
      targets: Object.entries(queries).map(([expr, legendFormat], n) => ({
        refId: String.fromCharCode(65 + n),
        datasource,
        expr,
        legendFormat,
      })),
    })),
  };
}
