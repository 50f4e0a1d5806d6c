import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { chartArgs, chartVersion, describedBy } from "../lib/charts";
import type { Found } from "../lib/checks";
import { isOlder, versionIn } from "../lib/doctor/version";
import { imageParts, labels, operatorPods, resources } from "../lib/pods";
import type { Settings } from "../settings";
import { anywhereOf, defaultDeny, inNamespace, lookUps, outsideOf, portOf, postgres, tcp } from "./isolation";
import type { IsolationArgs, Policy } from "./isolation";

/** `operators` says, for each: install it, or use what the cluster has (`checkSite` has seen that it is there). */
export interface OperatorsArgs
  extends
    Pick<Settings, "operators" | "charts" | "images" | "network" | "monitoring" | "certificates">,
    Pick<IsolationArgs, "apiServerPorts">,
    Pick<Found, "killed"> {
  ingress: Pick<Settings["ingress"], "namespace" | "labels">;
}

/** The plugin must run in the operator's own namespace (its documentation, "Installation"). */
export const cnpgNamespace = "cnpg-system";

/**
 * Who the operators talk to, for each namespace that is ours. The API server is asked at addresses that nobody knows before,
 * and asks their webhooks from such: only the ports are said.
 */
export function operatorPolicies(
  args: Pick<OperatorsArgs, "network" | "monitoring" | "ingress" | "certificates" | "apiServerPorts">,
): Record<"cert-manager" | typeof cnpgNamespace, Record<string, Policy>> {
  const anywhere = anywhereOf(args.network);
  const outside = outsideOf(args.network);
  const everyPod = (rules: Omit<Policy, "podSelector" | "policyTypes">): Policy => ({
    podSelector: {},
    policyTypes: [...(rules.ingress ? ["Ingress"] : []), ...(rules.egress ? ["Egress"] : [])],
    ...rules,
  });
  const component = (name: string) => ({ matchLabels: { "app.kubernetes.io/component": name } });
  const api = everyPod({ egress: [{ to: anywhere, ports: tcp(...args.apiServerPorts) }] });
  const { monitoring, certificates } = args;
  const acmePort = certificates.kind === "acme" ? portOf(certificates.server) : 443;
  const scraped = (port: number): Record<string, Policy> =>
    monitoring.kind === "off"
      ? {}
      : { metrics: everyPod({ ingress: [{ from: [inNamespace(monitoring.namespace)], ports: tcp(port) }] }) };
  const always = { "default-deny": defaultDeny, "api-server": api };
  // The API server's address is in the environment of every pod: only who asks others looks names up.
  const dns = (podSelector: Policy["podSelector"]): Policy => ({
    podSelector,
    policyTypes: ["Egress"],
    egress: [lookUps],
  });
  return {
    "cert-manager": {
      ...always,
      dns: dns(component("controller")),
      webhook: { podSelector: component("webhook"), policyTypes: ["Ingress"], ingress: [{ ports: tcp(10250) }] },
      // Before it asks an ACME server to look it looks itself, at the host (HTTP-01; that may lead straight to Traefik's pod)
      // or at the zone's own name servers (DNS-01). Those of a house are named in network.privateEgress.
      acme: {
        podSelector: component("controller"),
        policyTypes: ["Egress"],
        egress: [
          { to: outside, ports: [...tcp(80, 53), { protocol: "UDP", port: 53 }] },
          // An ACME server of one's own may be in the house, at a port of its own; at 443 it is reached as the API server is.
          ...(acmePort === 443 ? [] : [{ to: anywhere, ports: tcp(acmePort) }]),
          { to: [inNamespace(args.ingress.namespace, args.ingress.labels)] },
        ],
      },
      ...scraped(9402),
    },
    [cnpgNamespace]: {
      ...always,
      // It knows the plugin by its Service's name.
      dns: dns(operatorPods.podSelector),
      webhook: everyPod({ ingress: [{ ports: tcp(9443) }] }),
      // The operator asks the plugin beside it.
      plugin: everyPod({
        ingress: [{ from: [{ podSelector: {} }], ports: tcp(9090) }],
        egress: [{ to: [{ podSelector: {} }], ports: tcp(9090) }],
      }),
      // And each instance for its status; in a restore drill's namespace, too.
      instances: everyPod({ egress: [{ to: [{ namespaceSelector: {}, ...postgres }], ports: tcp(8000, 5432) }] }),
      ...scraped(8080),
    },
  };
}

/**
 * How long cert-manager waits after a certificate that it did not get, doubled each time. Its own hour is longer than an
 * update waits (15 minutes), so that one mistake in DNS would have made every update of the next hour fail, mended or not.
 * Tries after 5, 15 and 35 minutes stay below the five failed validations an hour that Let's Encrypt allows a name
 * (letsencrypt.org/docs/rate-limits).
 */
export const orderBackoff = "5m";

/** An older controller takes a key that it does not know for a mistake, and does not start. */
const firstWithBackoff = "1.20.0";

/**
 * What cert-manager's controller is configured with. Which one it is says its image; the tag of a mirror need be no version,
 * and then the chart's is the same.
 */
export function controllerConfiguration({ images, charts }: Pick<OperatorsArgs, "images" | "charts">) {
  const { tag } = imageParts(images["cert-manager-controller"]);
  const version = versionIn(tag) === undefined ? chartVersion(charts["cert-manager"]) : tag;
  if (version !== undefined && isOlder(version, firstWithBackoff)) return {};
  return { config: { certificateRequestMinimumBackoffDuration: orderBackoff } };
}

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
    const { namespace, policies } = this.namespace(name, "cert-manager", args);
    // This chart has a key of its own for the digest, which a stack's own image may not have.
    const image = (part: "controller" | "webhook" | "cainjector" | "acmesolver" | "startupapicheck") => {
      const parts = imageParts(args.images[`cert-manager-${part}`]);
      const [tag, digest] = parts.tag.split("@");
      return { image: { repository: parts.name, tag, digest } };
    };
    return [
      this.release(name, "cert-manager", args, namespace, policies, {
        crds: { enabled: true, keep: true },
        ...image("controller"),
        ...controllerConfiguration(args),
        resources: resources("10m", "64Mi", "256Mi"),
        webhook: { ...image("webhook"), resources: resources("10m", "32Mi", "128Mi") },
        cainjector: { ...image("cainjector"), resources: resources("10m", "64Mi", "256Mi") },
        acmesolver: image("acmesolver"),
        startupapicheck: image("startupapicheck"),
      }),
    ];
  }

  private cloudNativePg(name: string, args: OperatorsArgs): pulumi.Resource[] {
    if (args.operators.cloudNativePg === "existing") return [];
    const { namespace, policies } = this.namespace(name, cnpgNamespace, args);
    const image = imageParts(args.images["cloudnative-pg"]);
    return [
      // With the chart's rights in every namespace: with config.clusterWide false it watches its own and has rights in no
      // other, so that the database would have to be here, and a restore drill's with it (namespaces of their own, both).
      this.release(name, "cloudnative-pg", args, namespace, policies, {
        image: { repository: image.name, tag: image.tag },
        resources: resources("20m", "100Mi", "256Mi"),
      }),
    ];
  }

  private barmanPlugin(name: string, args: OperatorsArgs, after: pulumi.Resource[]): void {
    if (args.operators.barmanPlugin === "existing") return;
    const plugin = imageParts(args.images["barman-plugin"]);
    const sidecar = imageParts(args.images["barman-sidecar"]);
    // Its chart gives it rights in every namespace, and has no key for fewer but rbac.create false, which would leave it to
    // us to write down what it needs anew with each version.
    this.release(name, "plugin-barman-cloud", args, cnpgNamespace, after, {
      image: { registry: plugin.registry, repository: plugin.repository, tag: plugin.tag },
      sidecarImage: { registry: sidecar.registry, repository: sidecar.repository, tag: sidecar.tag },
      resources: resources("10m", "32Mi", "128Mi"),
      // By which it is known for ours where the namespace is not, since the operator was there before us.
      commonAnnotations: { "app.kubernetes.io/part-of": "homestead" },
    });
  }

  private namespace(name: string, namespace: "cert-manager" | typeof cnpgNamespace, args: OperatorsArgs) {
    const made = new k8s.core.v1.Namespace(
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
    );
    const policies = Object.entries(operatorPolicies(args)[namespace]).map(
      ([policy, spec]) =>
        new k8s.networking.v1.NetworkPolicy(
          `${name}-${namespace}-${policy}`,
          { metadata: { name: policy, namespace: made.metadata.name, labels: labels(policy) }, spec },
          { parent: this },
        ),
    );
    return { namespace: made.metadata.name, policies };
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
    const { described, ignoreChanges } = describedBy(args.killed, chart);
    return new k8s.helm.v3.Release(
      `${name}-${chart === "cloudnative-pg" ? "cloudnative-pg-release" : chart === "cert-manager" ? "cert-manager-release" : chart}`,
      {
        ...chartArgs(chart, args.charts[chart]),
        ...described,
        name: chart,
        namespace,
        values,
        atomic: true,
        timeout: 600,
        maxHistory: 3,
      },
      { parent: this, dependsOn, ignoreChanges },
    );
  }
}
