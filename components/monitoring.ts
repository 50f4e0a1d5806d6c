import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { isPlanning } from "../lib/planning";
import { labels } from "../lib/pods";
import type { Settings } from "../settings";
import { dashboard } from "./monitoring/dashboard";
import { ruleGroups, runbook } from "./monitoring/rules";
import type { RulesArgs } from "./monitoring/rules";
import type { ScrapingArgs } from "./monitoring/scraping";

export interface MonitoringArgs extends Pick<ScrapingArgs, "podMonitors"> {
  namespace: pulumi.Input<string>;
  settings: RulesArgs & Pick<Settings, "monitoring" | "operators">;
}

type Rules = Extract<Settings["monitoring"], { kind: "rules" }>;

/** Seconds between two looks of Prometheus'; a slow disk is to be told within two minutes. */
const interval = "15s";

/** ConfigMap with the rules for a Prometheus without the operator. */
export const rulesName = "homestead-rules";

/**
 * Alerts and a dashboard, for a Prometheus that is there: none is brought along, since a monitoring that runs on the
 * disk that it watches is none.
 *
 * Where the cluster has the Prometheus operator's resources, PodMonitors and a PrometheusRule. Elsewhere the pods carry
 * the usual annotations (components/monitoring/scraping.ts), and the rules stand in a ConfigMap.
 */
export class Monitoring extends pulumi.ComponentResource {
  constructor(name: string, args: MonitoringArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Monitoring", name, {}, opts);
    const { monitoring } = args.settings;
    if (monitoring.kind === "rules") {
      this.dashboard(name, args);
      if (args.podMonitors === "there") {
        this.podMonitors(name, args, monitoring);
        this.operatorsRules(name, args, monitoring);
        if (monitoring.notify !== undefined) this.notify(name, args, monitoring, monitoring.notify);
      } else {
        this.rules(name, args);
        if (monitoring.notify !== undefined && !isPlanning()) {
          void pulumi.log.warn(
            `monitoring.notify: the cluster has no Prometheus operator, so nobody calls ${new URL(monitoring.notify).host}; tell your Alertmanager (${runbook})`,
            this,
          );
        }
      }
    }
    this.registerOutputs();
  }

  /** Grafana's sidecar, as its charts install it, takes every ConfigMap with this label. */
  private dashboard(name: string, { namespace, settings }: MonitoringArgs): void {
    new k8s.core.v1.ConfigMap(
      `${name}-dashboard`,
      {
        metadata: {
          name: "homestead-dashboard",
          namespace,
          labels: { ...labels("monitoring"), grafana_dashboard: "1" },
        },
        data: { "homestead.json": `${JSON.stringify(dashboard(settings.namespace), undefined, 2)}\n` },
      },
      { parent: this },
    );
  }

  private rules(name: string, { namespace, settings }: MonitoringArgs): void {
    new k8s.core.v1.ConfigMap(
      `${name}-rules`,
      {
        metadata: { name: rulesName, namespace, labels: labels("monitoring") },
        data: { "homestead.yaml": stringify(ruleGroups(settings)) },
      },
      { parent: this },
    );
  }

  private operatorsRules(name: string, { namespace, settings }: MonitoringArgs, monitoring: Rules): void {
    new k8s.apiextensions.CustomResource(
      `${name}-rules`,
      {
        apiVersion: "monitoring.coreos.com/v1",
        kind: "PrometheusRule",
        metadata: { name: "homestead", namespace, labels: { ...labels("monitoring"), ...monitoring.labels } },
        spec: ruleGroups(settings),
      },
      { parent: this },
    );
  }

  private podMonitors(name: string, args: MonitoringArgs, { labels: wanted }: Rules): void {
    const make = (pods: string, spec: Record<string, unknown>) =>
      new k8s.apiextensions.CustomResource(
        `${name}-${pods}`,
        {
          apiVersion: "monitoring.coreos.com/v1",
          kind: "PodMonitor",
          metadata: {
            name: `homestead-${pods}`,
            namespace: args.namespace,
            labels: { ...labels("monitoring"), ...wanted },
          },
          spec,
        },
        { parent: this },
      );
    make("postgres", {
      selector: { matchExpressions: [{ key: "cnpg.io/cluster", operator: "Exists" }] },
      podMetricsEndpoints: [{ port: "metrics", interval }],
    });
    if (args.settings.lease === "vault") {
      make("valkey", {
        selector: { matchLabels: labels("valkey") },
        podMetricsEndpoints: [{ port: "metrics", interval }],
      });
    }
    // One that was there before is scraped by who installed it.
    if (args.settings.operators.certManager === "install") {
      make("cert-manager", {
        namespaceSelector: { matchNames: ["cert-manager"] },
        selector: {
          matchLabels: { "app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller" },
        },
        // It says itself whose certificate it speaks of.
        podMetricsEndpoints: [{ port: "http-metrics", interval: "60s", honorLabels: true }],
      });
    }
  }

  /** Who knows the address of a topic can read it and write to it, so it stands in a Secret. */
  private notify(name: string, { namespace }: MonitoringArgs, monitoring: Rules, url: string): void {
    const secret = new k8s.core.v1.Secret(
      `${name}-notify`,
      {
        metadata: { name: "alert-webhook", namespace, labels: labels("monitoring") },
        stringData: { url: pulumi.secret(url) },
      },
      { parent: this },
    );
    new k8s.apiextensions.CustomResource(
      `${name}-alertmanager`,
      {
        apiVersion: "monitoring.coreos.com/v1alpha1",
        kind: "AlertmanagerConfig",
        metadata: { name: "homestead", namespace, labels: { ...labels("monitoring"), ...monitoring.labels } },
        spec: {
          route: { receiver: "owner", groupBy: ["alertname"], groupWait: "30s", repeatInterval: "12h" },
          receivers: [
            {
              name: "owner",
              webhookConfigs: [{ urlSecret: { name: secret.metadata.name, key: "url" }, sendResolved: true }],
            },
          ],
        },
      },
      { parent: this },
    );
  }
}
