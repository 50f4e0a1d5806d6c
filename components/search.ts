import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import { digest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import type { Settings } from "../settings";
import { taskPod } from "./mastodon";
import type { MastodonArgs } from "./mastodon";

export interface SearchArgs extends Pick<Settings, "role" | "images" | "storage"> {
  namespace: pulumi.Input<string>;
  /** Size of the volume. */
  size: string;
}

/** Where Mastodon finds the server, and what it logs in with. */
export interface SearchServer {
  host: pulumi.Input<string>;
  port: number;
  /** Secret with `username` and `password`. */
  secretName: pulumi.Input<string>;
  /** Changes with the password, but says nothing about it. */
  secretDigest: pulumi.Input<string>;
}

const service = { name: "search", port: 9200 } as const;
/** Elasticsearch's own superuser: there is nothing else in this server that could be kept from it. */
const username = "elastic";
/** uid of the official image's user; its files belong to the group 0. */
const user = 1000;

/**
 * Settings of a server with one user's posts in it (elastic.co, Elasticsearch 7.17). Environment variables with a dot
 * are settings to the image.
 */
export const serverSettings: Record<string, string> = {
  "discovery.type": "single-node",
  // A mapped index wants vm.max_map_count raised on the node, which no restricted pod can do.
  "node.store.allow_mmap": "false",
  // What must be free of the disk. By default that is a share of it, and a volume of the node-local class is a folder on
  // the node's: at 95 %, be it with a hundred gigabytes free, every index would be read-only.
  "cluster.routing.allocation.disk.watermark.low": "400mb",
  "cluster.routing.allocation.disk.watermark.high": "300mb",
  "cluster.routing.allocation.disk.watermark.flood_stage": "200mb",
  // The chart cannot do without user and password, so they may as well be asked for. HTTP without TLS: the network
  // policy lets Mastodon alone reach the port, and Elasticsearch asks for TLS only between nodes.
  "xpack.security.enabled": "true",
  "xpack.ml.enabled": "false",
  // It would look for databases on the internet, which it cannot reach.
  "ingest.geoip.downloader.enabled": "false",
  ES_JAVA_OPTS: "-Xms512m -Xmx512m",
};

/** Full-text search: one Elasticsearch node. What it holds can be built again from the database at any time. */
export class Search extends pulumi.ComponentResource implements SearchServer {
  public readonly host: pulumi.Output<string>;
  public readonly port = service.port;
  public readonly secretName: pulumi.Output<string>;
  /** Changes when the index is lost. */
  public readonly volume: pulumi.Output<string>;
  public readonly secretDigest: pulumi.Output<string>;

  constructor(name: string, args: SearchArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Search", name, {}, opts);
    const password = new random.RandomPassword(`${name}-password`, { length: 32, special: false }, { parent: this });
    const meta = { name: service.name, namespace: args.namespace, labels: labels("search") };
    const secret = new k8s.core.v1.Secret(
      `${name}-secret`,
      { metadata: meta, stringData: { username, password: password.result } },
      { parent: this },
    );
    this.secretDigest = pulumi.unsecret(password.result.apply(digest));
    const claim = this.claim(name, args);
    const server = this.server(name, args, secret, claim);
    this.host = server.id.apply(() => service.name);
    this.secretName = secret.metadata.name;
    this.volume = claim.metadata.uid;
    this.registerOutputs({ host: this.host, secretName: this.secretName });
  }

  // Ours and not the StatefulSet's: its UID says when it is a new one.
  private claim(name: string, { namespace, storage, size }: SearchArgs) {
    return new k8s.core.v1.PersistentVolumeClaim(
      `${name}-volume`,
      {
        metadata: { name: service.name, namespace, labels: labels("search") },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: storage.databases,
          resources: { requests: { storage: size } },
        },
      },
      { parent: this },
    );
  }

  private server(name: string, args: SearchArgs, secret: k8s.core.v1.Secret, claim: k8s.core.v1.PersistentVolumeClaim) {
    const meta = { name: service.name, namespace: args.namespace, labels: labels("search") };
    const headless = new k8s.core.v1.Service(
      `${name}-service`,
      {
        // A Service whose pods are at zero on a standby would be waited for in vain.
        metadata: { ...meta, annotations: { "pulumi.com/skipAwait": "true" } },
        spec: { clusterIP: "None", selector: labels("search"), ports: [{ name: "http", port: service.port }] },
      },
      { parent: this },
    );
    const healthy = `printf 'user = "${username}:%s"' "$ELASTIC_PASSWORD" | curl -sf -o /dev/null -K - http://127.0.0.1:${service.port}/_cluster/health?local=true`;
    return new k8s.apps.v1.StatefulSet(
      `${name}-server`,
      {
        metadata: meta,
        spec: {
          serviceName: headless.metadata.name,
          replicas: args.role === "active" ? 1 : 0,
          selector: { matchLabels: labels("search") },
          template: {
            metadata: { labels: labels("search"), annotations: { "homestead/secret": this.secretDigest } },
            spec: {
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              // The image's folders for settings and logs are writable for the group 0.
              securityContext: { ...restrictedPod(user), runAsGroup: 0 },
              terminationGracePeriodSeconds: 120,
              containers: [
                {
                  name: "elasticsearch",
                  image: args.images.elasticsearch,
                  env: [
                    ...Object.entries(serverSettings).map(([key, value]) => ({ name: key, value })),
                    {
                      name: "ELASTIC_PASSWORD",
                      valueFrom: { secretKeyRef: { name: secret.metadata.name, key: "password" } },
                    },
                  ],
                  ports: [{ name: "http", containerPort: service.port }],
                  startupProbe: { tcpSocket: { port: service.port }, periodSeconds: 5, failureThreshold: 60 },
                  readinessProbe: {
                    exec: { command: ["sh", "-c", healthy] },
                    periodSeconds: 10,
                    timeoutSeconds: 5,
                    failureThreshold: 6,
                  },
                  livenessProbe: { tcpSocket: { port: service.port }, periodSeconds: 20, failureThreshold: 15 },
                  // Half of the limit is the heap, as Elasticsearch wants it; the rest is Lucene's and the JVM's own.
                  resources: resources("100m", "1Gi", "1280Mi"),
                  // It makes its keystore beside its settings, and writes logs, in folders that come with the image.
                  securityContext: { ...restrictedContainer, readOnlyRootFilesystem: false },
                  volumeMounts: [{ name: "data", mountPath: "/usr/share/elasticsearch/data" }],
                },
              ],
              volumes: [{ name: "data", persistentVolumeClaim: { claimName: claim.metadata.name } }],
            },
          },
        },
      },
      { parent: this, dependsOn: [headless] },
    );
  }
}

export interface SearchIndexArgs extends Pick<MastodonArgs, "postgres" | "valkey" | "media"> {
  namespace: pulumi.Input<string>;
  settings: MastodonArgs["settings"] & Pick<Settings, "epoch">;
  search: SearchServer & { volume: pulumi.Input<string> };
}

/**
 * Builds the search index from the database: once for each volume of the search server, and each time the site takes
 * over. The chart's own Job for it does not log in.
 */
export class SearchIndex extends pulumi.ComponentResource {
  constructor(name: string, args: SearchIndexArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:SearchIndex", name, {}, opts);
    const { epoch } = args.settings;
    const of = pulumi.output(args.search.volume).apply((volume) => digest(JSON.stringify([volume, epoch])));
    new k8s.batch.v1.Job(
      `${name}-job`,
      {
        metadata: {
          name: pulumi.interpolate`mastodon-search-index-${of}`,
          namespace: args.namespace,
          labels: labels("mastodon-search-index"),
          annotations: { "pulumi.com/replaceUnready": "true", "pulumi.com/timeoutSeconds": "3660" },
        },
        spec: {
          backoffLimit: 3,
          activeDeadlineSeconds: 3600,
          template: {
            metadata: { labels: labels("mastodon-search-index") },
            spec: taskPod(args, { name: "search-index", command: ["bin/tootctl", "search", "deploy"] }),
          },
        },
      },
      // Once means once: a new image is no reason to build it again. Another volume is another name, hence another Job.
      { parent: this, ignoreChanges: ["spec"] },
    );
    this.registerOutputs();
  }
}
