import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { chartArgs } from "../lib/charts";
import { imageParts, resources } from "../lib/pods";
import type { Settings } from "../settings";

/** `operators` says, for each: install it, or use what the cluster has (`checkSite` has seen that it is there). */
export type OperatorsArgs = Pick<Settings, "operators" | "charts" | "images">;

/** The plugin must run in the operator's own namespace (its documentation, "Installation"). */
export const cnpgNamespace = "cnpg-system";

/**
 * cert-manager, CloudNativePG and its barman-cloud plugin, each by its own chart.
 *
 * Their custom resource definitions are kept when a release goes: deleting a definition deletes every object of its
 * kind, and with it the databases.
 */
export class Operators extends pulumi.ComponentResource {
  constructor(name: string, args: OperatorsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Operators", name, {}, opts);
    const certManager = this.certManager(name, args);
    const cloudNativePg = this.cloudNativePg(name, args);
    this.barmanPlugin(name, args, [...certManager, ...cloudNativePg]);
    this.registerOutputs();
  }

  private certManager(name: string, args: OperatorsArgs): pulumi.Resource[] {
    if (args.operators.certManager === "existing") return [];
    return [
      this.release(name, "cert-manager", args, this.namespace(name, "cert-manager"), [], {
        crds: { enabled: true, keep: true },
        resources: resources("10m", "64Mi", "256Mi"),
        webhook: { resources: resources("10m", "32Mi", "128Mi") },
        cainjector: { resources: resources("10m", "64Mi", "256Mi") },
      }),
    ];
  }

  private cloudNativePg(name: string, args: OperatorsArgs): pulumi.Resource[] {
    if (args.operators.cloudNativePg === "existing") return [];
    const image = imageParts(args.images["cloudnative-pg"]);
    return [
      this.release(name, "cloudnative-pg", args, this.namespace(name, cnpgNamespace), [], {
        image: { repository: image.name, tag: image.tag },
        resources: resources("20m", "100Mi", "256Mi"),
      }),
    ];
  }

  private barmanPlugin(name: string, args: OperatorsArgs, after: pulumi.Resource[]): void {
    if (args.operators.barmanPlugin === "existing") return;
    const plugin = imageParts(args.images["barman-plugin"]);
    const sidecar = imageParts(args.images["barman-sidecar"]);
    this.release(name, "plugin-barman-cloud", args, cnpgNamespace, after, {
      image: { registry: plugin.registry, repository: plugin.repository, tag: plugin.tag },
      sidecarImage: { registry: sidecar.registry, repository: sidecar.repository, tag: sidecar.tag },
      resources: resources("10m", "32Mi", "128Mi"),
    });
  }

  private namespace(name: string, namespace: string) {
    return new k8s.core.v1.Namespace(
      `${name}-${namespace}`,
      {
        metadata: {
          name: namespace,
          labels: {
            "app.kubernetes.io/part-of": "homestead",
            "pod-security.kubernetes.io/enforce": "restricted",
          },
        },
      },
      { parent: this },
    ).metadata.name;
  }

  /** The release's name is fixed: a generated one breaks the charts' ownership checks on the definitions they keep. */
  private release(
    name: string,
    chart: "cert-manager" | "cloudnative-pg" | "plugin-barman-cloud",
    args: OperatorsArgs,
    namespace: pulumi.Input<string>,
    dependsOn: pulumi.Resource[],
    values: Record<string, unknown>,
  ) {
    return new k8s.helm.v3.Release(
      `${name}-${chart === "cloudnative-pg" ? "cloudnative-pg-release" : chart === "cert-manager" ? "cert-manager-release" : chart}`,
      {
        ...chartArgs(chart, args.charts[chart]),
        name: chart,
        namespace,
        values,
        atomic: true,
        timeout: 600,
        maxHistory: 3,
      },
      { parent: this, dependsOn },
    );
  }
}
