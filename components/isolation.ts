import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { privateRanges } from "../lib/address-ranges";
import { privateEgressAnnotation } from "../lib/egress";
import { labels, operatorPods, resources } from "../lib/pods";
import type { Settings } from "../settings";
import { publicUrl } from "./media";
import { metricsPorts } from "./monitoring/scraping";

/** `site` is written on the namespace, so that another stack refuses the cluster. */
export interface IsolationArgs extends Pick<
  Settings,
  "site" | "namespace" | "network" | "monitoring" | "vault" | "media" | "smtp"
> {
  ingress: Pick<Settings["ingress"], "namespace" | "labels">;
  /** Ports at which pods find the API server; what is found of the cluster (`checkSite`) tells them. */
  apiServerPorts: number[];
  /** Adopts what an earlier `destroy` left on purpose; see {@link Isolation}. */
  kept: k8s.Provider;
}

export type Policy = k8s.types.input.networking.v1.NetworkPolicySpec;
type Peer = k8s.types.input.networking.v1.NetworkPolicyPeer;

/** The Jobs of Mastodon's chart: their pods carry no label but the Job's name. */
export const chartJobs = [
  "mastodon-db-prepare",
  "mastodon-db-pre-migrate",
  "mastodon-db-migrate",
  "mastodon-deploy-search",
];

const pods = (...names: string[]) => ({
  podSelector: { matchExpressions: [{ key: "app.kubernetes.io/name", operator: "In", values: names }] },
});
const jobs = {
  podSelector: { matchExpressions: [{ key: "batch.kubernetes.io/job-name", operator: "In", values: chartJobs }] },
};
/** Of the chart's pods, the one that only hands on. */
const streaming = { key: "app.kubernetes.io/component", values: ["streaming"] };
export const postgres = { podSelector: { matchExpressions: [{ key: "cnpg.io/cluster", operator: "Exists" }] } };
export const inNamespace = (name: string, podLabels?: Record<string, string>): Peer => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } },
  ...(podLabels ? { podSelector: { matchLabels: podLabels } } : {}),
});
export const tcp = (...ports: number[]) => ports.map((port) => ({ protocol: "TCP", port }));
const internet: Record<Settings["network"]["families"][number], Peer> = {
  IPv4: { ipBlock: { cidr: "0.0.0.0/0", except: [...privateRanges.IPv4] } },
  IPv6: { ipBlock: { cidr: "::/0", except: [...privateRanges.IPv6] } },
};
/**
 * Without the clouds' metadata servers (lib/address-ranges.ts), which are no API servers. In halves: to Cilium the whole is the
 * world outside, which nodes are not in, even where it is told that addresses mean nodes, too (cilium#39688, #47827); and on one
 * of those is the API server.
 */
const anywhereButMetadata: Record<Settings["network"]["families"][number], Peer[]> = {
  IPv4: [
    { ipBlock: { cidr: "0.0.0.0/1" } },
    { ipBlock: { cidr: "128.0.0.0/1", except: ["168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32"] } },
  ],
  IPv6: [
    { ipBlock: { cidr: "::/1" } },
    { ipBlock: { cidr: "8000::/1", except: ["fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128"] } },
  ],
};

/**
 * Any address but the clouds' metadata servers: where the API server is, an update could say, and where it will be nobody
 * knows (docs/adr/0014-the-api-server-at-any-address.md).
 */
export const anywhereOf = ({ families }: Settings["network"]): Peer[] =>
  families.flatMap((family) => anywhereButMetadata[family]);

const internetOf = ({ families }: Pick<Settings["network"], "families">): Peer[] =>
  families.map((family) => internet[family]);
const rangesOf = (ranges: readonly string[]): Peer[] => ranges.map((cidr) => ({ ipBlock: { cidr } }));

/** The internet, and what the stack names of the house for who talks to the vault. Mastodon does not. */
export const outsideOf = (network: Pick<Settings["network"], "families" | "privateEgress">): Peer[] => [
  ...internetOf(network),
  ...rangesOf(network.privateEgress),
];

/**
 * What Mastodon may ask for outside: the web, the media bucket, the mail server. Not every port: where a node has a public
 * address, as a VPS does, the cluster's API and its kubelet are the internet, too; and what listens in the house at an address
 * that is named for one port is not named with it.
 */
function mastodonPorts({ media, smtp }: Pick<IsolationArgs, "media" | "smtp">): number[] {
  const bucket = media.kind === "bucket" ? [portOf(media.endpoint)] : [];
  const mail = smtp.kind === "server" ? [smtp.port] : [];
  return [...new Set([80, 443, ...bucket, ...mail])];
}

/** What a verification asks: both names, and the bucket where it is written to and where the world reads it. */
function verifiedPorts({ media }: Pick<IsolationArgs, "media">): number[] {
  const bucket = media.kind === "bucket" ? [portOf(media.endpoint), portOf(publicUrl(media))] : [];
  return [...new Set([80, 443, ...bucket])];
}

/** Where Traefik's pod takes what comes at 80 and 443: its chart's ports, which k3s has too, or those themselves. */
const traefikPorts = [80, 443, 8000, 8443];

export const defaultDeny: Policy = { podSelector: {}, policyTypes: ["Ingress", "Egress"] };

/**
 * The cluster's DNS, for who looks names up and nobody else: it hands on whatever it is asked to the name servers of the
 * world, and what is in a question is a way out.
 */
export const lookUps = { to: [inNamespace("kube-system")], ports: [{ protocol: "UDP", port: 53 }, ...tcp(53)] };

/** The port that a bucket's server is asked at. */
export function portOf(endpoint: string): number {
  const { port, protocol } = new URL(endpoint);
  return port !== "" ? Number(port) : protocol === "http:" ? 80 : 443;
}

/** Every allowance of the namespace, one entry a part. Whatever is not here is denied. */
export function policies(
  args: Pick<IsolationArgs, "ingress" | "network" | "monitoring" | "vault" | "media" | "smtp" | "apiServerPorts">,
): Record<string, Policy> {
  const traefik = inNamespace(args.ingress.namespace, args.ingress.labels);
  const outside = outsideOf(args.network);
  const { privateEgress, mastodonPrivateEgress } = args.network;
  const mastodonsOutside = [...internetOf(args.network), ...rangesOf(mastodonPrivateEgress)];
  // A policy knows no host names: of the vault it can say the port.
  const vault = { to: outside, ports: tcp(portOf(args.vault.endpoint)) };
  const mastodonClients = [pods("mastodon", "mastodon-owner", "mastodon-feeds", "mastodon-search-index"), jobs];
  const mastodonEgress: Policy["egress"] = [
    lookUps,
    { to: [postgres], ports: tcp(5432) },
    { to: [pods("valkey", "valkey-cache")], ports: tcp(6379) },
    { to: [pods("object-store")], ports: tcp(7070) },
    { to: [pods("search")], ports: tcp(9200) },
  ];
  return {
    "default-deny": defaultDeny,
    postgres: {
      podSelector: postgres.podSelector,
      policyTypes: ["Ingress", "Egress"],
      ingress: [
        { from: mastodonClients, ports: tcp(5432) },
        // The operator asks the instance for its status and steers it; backups run through it too.
        { from: [operatorPods], ports: tcp(8000, 5432) },
        { from: [postgres], ports: tcp(5432, 8000) },
      ],
      egress: [
        lookUps,
        { to: [postgres, pods("object-store")], ports: tcp(5432, 8000, 7070) },
        vault,
        // The API server, which the instance manager needs. Its addresses are private ones, and a control plane that moved
        // would be out of reach of a policy that named them; what hands out the cloud's keys is not among them.
        { to: anywhereOf(args.network), ports: tcp(...args.apiServerPorts) },
      ],
    },
    valkey: {
      podSelector: pods("valkey", "valkey-cache").podSelector,
      policyTypes: ["Ingress"],
      ingress: [{ from: mastodonClients, ports: tcp(6379) }],
    },
    // The keeper beside it reads the site lease and takes snapshots to the vault. Monitored, it asks for WebFinger at
    // the site's public address; within the cluster that may lead straight to Traefik's pod.
    "valkey-keeper": {
      podSelector: { matchLabels: labels("valkey") },
      policyTypes: ["Egress"],
      egress: [
        lookUps,
        vault,
        ...(args.monitoring.kind === "rules" ? [{ to: [traefik] }, { to: outside, ports: tcp(443) }] : []),
      ],
    },
    ...metrics(args.monitoring),
    search: {
      podSelector: { matchLabels: labels("search") },
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: mastodonClients, ports: tcp(9200) }],
      egress: [],
    },
    // Web and Sidekiq. By what they are not: a part that a later chart adds gets what Mastodon's code needs.
    mastodon: {
      podSelector: {
        matchLabels: { "app.kubernetes.io/name": "mastodon" },
        matchExpressions: [{ ...streaming, operator: "NotIn" }],
      },
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [traefik], ports: tcp(3000) }],
      egress: [
        ...mastodonEgress,
        { to: mastodonsOutside, ports: tcp(...mastodonPorts(args)) },
        // The owner's blog, for the link that proves whose profile it is, and for previews: where the site's public address is
        // the node's own, the way there is turned to Traefik's pod, whose address is private, before a policy is asked.
        { to: [traefik], ports: tcp(...traefikPorts) },
      ],
    },
    // It hands on what it hears from Valkey, after a look into the database at who asks (streaming/index.js has no client for
    // anything else). It is given Rails' secrets by the chart, so where it cannot go matters.
    "mastodon-streaming": {
      podSelector: {
        matchLabels: { "app.kubernetes.io/name": "mastodon" },
        matchExpressions: [{ ...streaming, operator: "In" }],
      },
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [traefik], ports: tcp(4000) }],
      egress: [lookUps, { to: [postgres], ports: tcp(5432) }, { to: [pods("valkey")], ports: tcp(6379) }],
    },
    "mastodon-jobs": { podSelector: jobs.podSelector, policyTypes: ["Egress"], egress: mastodonEgress },
    "mastodon-tasks": {
      podSelector: pods("mastodon-owner", "mastodon-feeds", "mastodon-search-index").podSelector,
      policyTypes: ["Egress"],
      egress: mastodonEgress,
    },
    blog: {
      podSelector: { matchLabels: labels("blog") },
      policyTypes: ["Ingress"],
      ingress: [{ from: [traefik] }],
    },
    "media-copy": {
      podSelector: { matchLabels: labels("media-copy") },
      policyTypes: ["Egress"],
      egress: [lookUps, vault],
    },
    "object-store": {
      podSelector: { matchLabels: labels("object-store") },
      policyTypes: ["Ingress"],
      ingress: [
        { from: [postgres, pods("mastodon", "object-store-buckets", "verification"), traefik], ports: tcp(7070) },
      ],
    },
    "object-store-buckets": {
      podSelector: { matchLabels: labels("object-store-buckets") },
      policyTypes: ["Egress"],
      egress: [lookUps, { to: [pods("object-store")], ports: tcp(7070) }],
    },
    verification: {
      podSelector: { matchLabels: labels("verification") },
      policyTypes: ["Egress"],
      egress: [
        lookUps,
        // Behind the ingress address may be Traefik's pod itself, at whatever ports that listens at.
        { to: [traefik] },
        // The bucket is where Mastodon finds it; the names may be at an address in the house (`verification.address`).
        {
          to: [...internetOf(args.network), ...rangesOf([...new Set([...privateEgress, ...mastodonPrivateEgress])])],
          ports: tcp(...verifiedPorts(args)),
        },
        { to: [pods("object-store")], ports: tcp(7070) },
      ],
    },
    // cert-manager answers an ACME server's question from a pod in this namespace.
    acme: {
      podSelector: { matchLabels: { "acme.cert-manager.io/http01-solver": "true" } },
      policyTypes: ["Ingress"],
      ingress: [{ from: [traefik], ports: tcp(8089) }],
    },
  };
}

/** Prometheus, from its own namespace, and nobody else. */
function metrics(monitoring: Settings["monitoring"]): Record<string, Policy> {
  if (monitoring.kind === "off") return {};
  const prometheus = inNamespace(monitoring.namespace);
  const scraped = (podSelector: Policy["podSelector"], port: number): Policy => ({
    podSelector,
    policyTypes: ["Ingress"],
    ingress: [{ from: [prometheus], ports: tcp(port) }],
  });
  return {
    "valkey-metrics": scraped({ matchLabels: labels("valkey") }, metricsPorts.valkey),
    "postgres-metrics": scraped(postgres.podSelector, metricsPorts.postgres),
  };
}

/**
 * The namespace, enforcing Pod Security "restricted", with default-deny network policies around it, and resources for
 * what names none.
 *
 * The namespace outlives a `destroy`, since it holds the data; the next `up` adopts it, hence `kept`, a provider
 * that takes over what exists. Nothing else uses that provider but the database, and the note of which Mastodon ran.
 */
export class Isolation extends pulumi.ComponentResource {
  /** Name of the namespace, to be used by everything in it: it is there, and its policies are. */
  public readonly namespace: pulumi.Output<string>;

  constructor(name: string, args: IsolationArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Isolation", name, {}, opts);
    const namespace = new k8s.core.v1.Namespace(
      `${name}-namespace`,
      {
        metadata: {
          name: args.namespace,
          labels: {
            "app.kubernetes.io/part-of": "homestead",
            "homestead/site": args.site,
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
          },
          ...(args.network.privateEgress.length > 0
            ? { annotations: { [privateEgressAnnotation]: args.network.privateEgress.join(",") } }
            : {}),
        },
      },
      { parent: this, provider: args.kept, retainOnDelete: true },
    );
    const made = Object.entries(policies(args)).map(
      ([policy, spec]) =>
        new k8s.networking.v1.NetworkPolicy(
          `${name}-${policy}`,
          { metadata: { name: policy, namespace: namespace.metadata.name, labels: labels(policy) }, spec },
          { parent: this },
        ),
    );
    const defaults = resources("100m", "384Mi", "1Gi");
    const limitRange = new k8s.core.v1.LimitRange(
      `${name}-default-resources`,
      {
        metadata: {
          name: "default-resources",
          namespace: namespace.metadata.name,
          labels: labels("default-resources"),
        },
        // For the Jobs of Mastodon's chart, which has no key for theirs: as much as our own Jobs with its image get.
        spec: { limits: [{ type: "Container", defaultRequest: defaults.requests, default: defaults.limits }] },
      },
      { parent: this },
    );
    this.namespace = pulumi
      .all([namespace.metadata.name, pulumi.all([...made, limitRange].map((object) => object.id))])
      .apply(([n]) => n);
    this.registerOutputs({ namespace: this.namespace });
  }
}
