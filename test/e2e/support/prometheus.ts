/**
 * A real Prometheus outside the cluster, with the rules that the program installed, scraping the pods that say that
 * they are to be scraped. Each is reached through the API server: network policies let nothing else in.
 */
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import type { Cluster, KubeObject } from "./cluster";
import { atExit, eventually, service } from "./processes";
import type { Context } from "./scenario";

/** ConfigMap with the rules, where the Prometheus operator's resources are not there. */
const rulesName = "homestead-rules";

export interface ScrapeTarget {
  namespace: string;
  pod: string;
  port: number;
  path: string;
  labels: Record<string, string>;
}

/** A program on the children's PATH. */
export function prometheusBinary({ environment }: Pick<Context, "environment">): string | undefined {
  return (environment.childEnv["PATH"] ?? "")
    .split(":")
    .map((folder) => path.join(folder, "prometheus"))
    .find((file) => fs.existsSync(file));
}

/** What the scrape annotations of some pods say; one target a port of `prometheus.io/port`. */
export function scrapeTargets(pods: readonly KubeObject[]): ScrapeTarget[] {
  return pods.flatMap(({ metadata }) => {
    const annotations = metadata.annotations ?? {};
    if (annotations["prometheus.io/scrape"] !== "true") return [];
    const ports = (annotations["prometheus.io/port"] ?? "").split(",").map(Number);
    return ports
      .filter((port) => port > 0)
      .map((port) => ({
        namespace: metadata.namespace ?? "",
        pod: metadata.name,
        port,
        path: annotations["prometheus.io/path"] ?? "/metrics",
        labels: metadata.labels ?? {},
      }));
  });
}

/**
 * Prometheus' configuration for targets that are reached at local ports. Labels are those that the discovery of pods
 * gives by common use: namespace, pod, and the pod's own labels, and `job` after its name label.
 */
export function prometheusConfiguration(targets: readonly (ScrapeTarget & { local: number })[], rules: string): string {
  const label = (name: string) => name.replace(/[^a-zA-Z0-9_]/g, "_");
  return stringify({
    global: { scrape_interval: "5s", evaluation_interval: "5s" },
    rule_files: [rules],
    scrape_configs: targets.map(({ namespace, pod, port, path: metricsPath, labels, local }) => ({
      job_name: `${namespace}/${pod}/${port}`,
      metrics_path: metricsPath,
      static_configs: [
        {
          targets: [`127.0.0.1:${local}`],
          labels: {
            ...Object.fromEntries(Object.entries(labels).map(([name, value]) => [label(name), value])),
            job: labels["app.kubernetes.io/name"] ?? labels["cnpg.io/cluster"] ?? pod,
            namespace,
            pod,
          },
        },
      ],
    })),
  });
}

/** The rule groups that the program installed: a PrometheusRule's, else those of its ConfigMap. None: undefined */
export async function installedRules(cluster: Cluster, namespace: string): Promise<string | undefined> {
  const operator = await cluster.get("customresourcedefinition", "prometheusrules.monitoring.coreos.com");
  const rules = operator === undefined ? [] : await cluster.list("prometheusrules.monitoring.coreos.com", namespace);
  const map = await cluster.get("configmap", rulesName, namespace);
  const groups = [
    ...rules.flatMap(({ spec }) => (spec?.["groups"] ?? []) as unknown[]),
    ...Object.values(map?.data ?? {}).flatMap((text) => (parse(text) as { groups?: unknown[] } | null)?.groups ?? []),
  ];
  return groups.length === 0 ? undefined : stringify({ groups });
}

interface Alert {
  state: "pending" | "firing" | "inactive";
  labels: Record<string, string>;
}

export class Prometheus {
  private constructor(
    private readonly address: string,
    readonly stop: () => Promise<void>,
  ) {}

  /** Starts one and waits until every target has been scraped. */
  static async start(
    { environment, logs }: Context,
    cluster: Cluster,
    binary: string,
    rules: string,
    pods: readonly KubeObject[],
  ): Promise<Prometheus> {
    const folder = path.join(logs, "prometheus");
    fs.mkdirSync(folder, { recursive: true });
    const targets = [];
    for (const target of scrapeTargets(pods)) {
      targets.push({ ...target, local: await forwarded(cluster, environment.childEnv, folder, target) });
    }
    if (targets.length === 0) throw new Error("no pod says that it is to be scraped");
    fs.writeFileSync(path.join(folder, "rules.yaml"), rules);
    const configuration = path.join(folder, "prometheus.yaml");
    fs.writeFileSync(configuration, prometheusConfiguration(targets, path.join(folder, "rules.yaml")));
    const port = await freePort();
    const data = fs.mkdtempSync(path.join(folder, "data-"));
    const log = fs.openSync(path.join(folder, "log.txt"), "a");
    const child = spawn(
      binary,
      [`--config.file=${configuration}`, `--storage.tsdb.path=${data}`, `--web.listen-address=127.0.0.1:${port}`],
      { env: environment.childEnv, stdio: ["ignore", log, log] },
    );
    const stop = atExit(() => {
      child.kill("SIGTERM");
      fs.closeSync(log);
      fs.rmSync(data, { recursive: true, force: true });
    });
    const prometheus = new Prometheus(`http://127.0.0.1:${port}`, stop);
    await eventually(60, "every target is scraped", async () => {
      const { activeTargets } = await prometheus.ask<{ activeTargets: { health: string; lastError: string }[] }>(
        "/api/v1/targets?state=active",
      );
      const bad = activeTargets.filter(({ health }) => health !== "up");
      if (activeTargets.length === 0 || bad.length > 0)
        throw new Error(bad.map(({ health, lastError }) => `${health} ${lastError}`).join("; ") || "none yet");
    });
    return prometheus;
  }

  /** Names of the alerts that fire now. */
  async firing(): Promise<string[]> {
    const { alerts } = await this.ask<{ alerts: Alert[] }>("/api/v1/alerts");
    return alerts.filter(({ state }) => state === "firing").map(({ labels }) => labels["alertname"] ?? "");
  }

  private async ask<T>(what: string): Promise<T> {
    const answer = await fetch(this.address + what, { signal: AbortSignal.timeout(5000) });
    return ((await answer.json()) as { data: T }).data;
  }
}

async function forwarded(
  cluster: Cluster,
  env: NodeJS.ProcessEnv,
  folder: string,
  { namespace, pod, port }: ScrapeTarget,
): Promise<number> {
  const { kubeconfig, context } = cluster.access;
  const { line, end } = await service(
    "kubectl",
    ["--kubeconfig", kubeconfig, "--context", context, "port-forward", "-n", namespace, `pod/${pod}`, `:${port}`],
    { env, log: path.join(folder, `forward-${pod}-${port}.txt`) },
  );
  atExit(end);
  const local = /127\.0\.0\.1:(\d+) ->/.exec(line)?.[1];
  if (local === undefined) throw new Error(`kubectl port-forward said: ${line}`);
  return Number(local);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
