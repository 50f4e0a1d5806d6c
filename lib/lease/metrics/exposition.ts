/** What the keeper tells Prometheus: every metric by name, and the text format. */

interface Definition {
  type: "gauge" | "counter";
  help: string;
}

/** Moments are seconds since 1970. What is not known is left out, not zero. */
export const metrics = {
  homestead_keeper_info: { type: "gauge", help: "1; its labels say whose keeper this is." },
  homestead_keeper_started_timestamp_seconds: { type: "gauge", help: "When the keeper started." },
  homestead_gate_state: { type: "gauge", help: "1 for what the gate does now, 0 for what it does not." },
  homestead_lease_mark_age_seconds: { type: "gauge", help: "Seconds since the lease was last seen to be this site's." },
  homestead_lease_read_age_seconds: {
    type: "gauge",
    help: "Seconds since the lease was last read, whosever it was.",
  },
  homestead_lease_grace_seconds: { type: "gauge", help: "Age at which the gate pauses writes." },
  homestead_snapshot_uploaded_timestamp_seconds: {
    type: "gauge",
    help: "When the vault last had Valkey's newest snapshot.",
  },
  homestead_fsync_seconds: {
    type: "gauge",
    help: "Seconds that writing and syncing 4 KiB on Valkey's volume took last, or has taken so far.",
  },
  homestead_fsync_errors_total: { type: "counter", help: "Writes on Valkey's volume that failed." },
  homestead_volume_available_bytes: {
    type: "gauge",
    help: "Room left on the file system that Valkey's volume is on.",
  },
  homestead_volume_size_bytes: { type: "gauge", help: "Size of the file system that Valkey's volume is on." },
  homestead_io_pressure_some_avg60: {
    type: "gauge",
    help: "Per cent of the last minute in which something on the node waited for a disk.",
  },
  homestead_io_pressure_full_avg60: {
    type: "gauge",
    help: "Per cent of the last minute in which nothing on the node got on for waiting for a disk.",
  },
  homestead_valkey_up: { type: "gauge", help: "Whether Valkey answers." },
  homestead_valkey_used_memory_bytes: { type: "gauge", help: "Memory that Valkey's data takes." },
  homestead_valkey_max_memory_bytes: { type: "gauge", help: "Memory from which on Valkey refuses writes." },
  homestead_valkey_rdb_last_bgsave_ok: { type: "gauge", help: "Whether the last snapshot was written." },
  homestead_valkey_rdb_last_save_timestamp_seconds: { type: "gauge", help: "When a snapshot was last written." },
  homestead_valkey_rdb_unsaved_changes: { type: "gauge", help: "Changes that no snapshot has yet." },
  homestead_valkey_aof_delayed_fsync_total: {
    type: "counter",
    help: "Writes that waited for the append-only file's fsync; there only where such a file is kept.",
  },
  homestead_queue_length: { type: "gauge", help: "Jobs that wait." },
  homestead_queue_latency_seconds: { type: "gauge", help: "Seconds that a queue's oldest job has waited." },
  homestead_jobs_set_aside: { type: "gauge", help: "Jobs that are to be retried, are scheduled, or were given up." },
  homestead_webfinger_ok: {
    type: "gauge",
    help: "Whether the owner is found as another server would: through public DNS, from the apex to the web host.",
  },
  homestead_certificate_expires_timestamp_seconds: { type: "gauge", help: "When the certificate served expires." },
  homestead_media_copied_timestamp_seconds: {
    type: "gauge",
    help: "When the media volume was last copied to the vault; 0 if it never was.",
  },
} as const satisfies Record<string, Definition>;
export type MetricName = keyof typeof metrics;

export interface Sample {
  name: MetricName;
  labels?: Record<string, string>;
  value: number;
}

/** Media type of the text format, as Prometheus' client libraries send it. */
export const expositionType = "text/plain; version=0.0.4; charset=utf-8";

/** The text format (prometheus.io, "Exposition formats"): each metric once, with its samples together. */
export function exposition(samples: readonly Sample[]): string {
  const lines = Object.entries(metrics).flatMap(([name, { type, help }]) => {
    const own = samples.filter((sample) => sample.name === name && !Number.isNaN(sample.value));
    if (own.length === 0) return [];
    return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...own.map(sampleLine)];
  });
  return `${lines.join("\n")}\n`;
}

function sampleLine({ name, labels = {}, value }: Sample): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${text.replace(/[\\"]/g, "\\$&")}"`);
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`;
}
