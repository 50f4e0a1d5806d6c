import type { PodMonitorsState } from "../../lib/checks";
import type { Settings } from "../../settings";

/** Where pods of ours show their metrics, at `/metrics`. */
export const metricsPorts = {
  /** The keeper beside Valkey. */
  valkey: 9121,
  /** CloudNativePG's own; fixed there. */
  postgres: 9187,
} as const;

export interface ScrapingArgs {
  monitoring: Settings["monitoring"];
  /** Whether the cluster has the Prometheus operator's resources. */
  podMonitors: PodMonitorsState;
}

/** By common use, for a Prometheus that looks for them on pods. None where a PodMonitor says the same. */
export function scrapeAnnotations({ monitoring, podMonitors }: ScrapingArgs, port: number): Record<string, string> {
  if (monitoring.kind === "off" || podMonitors === "there") return {};
  return { "prometheus.io/scrape": "true", "prometheus.io/port": String(port), "prometheus.io/path": "/metrics" };
}
