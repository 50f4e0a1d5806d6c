import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import { bundle } from "../lib/bundle";
import type { PodMonitorsState } from "../lib/checks";
import { madeIn } from "../lib/database";
import { digest, secretsDigest } from "../lib/digest";
import { waitFor } from "../lib/lease/lease";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import type { Settings } from "../settings";
import { postgres } from "./isolation";
import { queues } from "./mastodon";
import { copiedKey } from "./media-copy";
import { metricsPorts, scrapeAnnotations } from "./monitoring/scraping";

/** `role`: a standby runs none. `lease`: everything Mastodon does needs Valkey, so it is the lease's gate. */
export interface ValkeyArgs extends Pick<
  Settings,
  | "images"
  | "storage"
  | "sizes"
  | "role"
  | "lease"
  | "leaseGrace"
  | "site"
  | "otherSite"
  | "epoch"
  | "fingerprint"
  | "vault"
  | "secrets"
  | "apex"
  | "webHost"
  | "owner"
  | "certificates"
  | "media"
  | "monitoring"
> {
  namespace: pulumi.Input<string>;
  /** Whether the cluster has the Prometheus operator's resources. */
  podMonitors: PodMonitorsState;
  databaseName: string;
  /** UID of the cluster. */
  clusterUid: string;
  /** The moment that the database goes back to, or went back to when it was made. */
  restoredTo?: string;
  /** Seconds that the lease makes this site wait, where it took over. */
  leaseWait?: number;
}

/** uid of the official image's user. */
const user = 999;
const port = 6379;

/**
 * Queues and home feeds. RDB snapshots and no append-only file: with an append-only file the one thread that answers
 * waits for the disk (measured: a 5 s fsync makes it dead 65 % of the time), with RDB a child writes and it never does.
 */
export const queueConfiguration = `
port ${port}
bind * -::*
protected-mode no
dir /data
appendonly no
save 60 1
# A failed snapshot must not stop Mastodon; monitoring sees it.
stop-writes-on-bgsave-error no
rdb-save-incremental-fsync yes
# Sidekiq's jobs may not be evicted (Sidekiq's wiki, "Using Redis").
maxmemory-policy noeviction
maxmemory 384mb
include /etc/valkey/secret/password.conf
`.trimStart();

/** Rails' cache: losing it costs a little time, so nothing of it touches a disk. */
export const cacheConfiguration = `
port ${port}
bind * -::*
protected-mode no
dir /data
appendonly no
save ""
maxmemory-policy allkeys-lru
maxmemory 96mb
include /etc/valkey/secret/password.conf
`.trimStart();

/**
 * Valkey, twice: one that keeps queues and feeds, one that is a cache. Official image, our own StatefulSets: no chart
 * found survives a slow disk.
 */
export class Valkey extends pulumi.ComponentResource {
  /** Host of the instance with queues and feeds. */
  public readonly host: pulumi.Output<string>;
  /** Host of the cache. */
  public readonly cacheHost: pulumi.Output<string>;
  /** Secret with the key `password`, for both. */
  public readonly secretName: pulumi.Output<string>;
  /** The password; secret. May differ per site, hence made here. */
  public readonly password: pulumi.Output<string>;
  /**
   * What must have ended on a standby before Valkey does, which has to be told: as Sidekiq ends, it gives the jobs that it is
   * at back to Valkey.
   */
  public readonly stopsAfter: (stopped: pulumi.Output<pulumi.Resource>) => void;
  private readonly stopped: pulumi.Output<pulumi.Resource>;

  constructor(name: string, args: ValkeyArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Valkey", name, {}, opts);
    [this.stopped, this.stopsAfter] = pulumi.deferredOutput<pulumi.Resource>();
    const password = new random.RandomPassword(`${name}-password`, { length: 32, special: false }, { parent: this });
    const secret = new k8s.core.v1.Secret(
      `${name}-secret`,
      {
        metadata: { name: "valkey", namespace: args.namespace, labels: labels("valkey") },
        // A file and not an argument: arguments are there for everyone on the node to read.
        stringData: {
          password: password.result,
          "password.conf": pulumi.interpolate`requirepass ${password.result}\n`,
        },
      },
      { parent: this },
    );
    // Says nothing about the password, but changes with it, so that a new one restarts the pods.
    const passwordDigest = pulumi.unsecret(password.result.apply(digest));
    const gate = args.lease === "vault" ? [this.gate(name, args)] : [];
    const queue = this.instance(name, "valkey", args, secret, passwordDigest, queueConfiguration, gate[0]);
    const cache = this.instance(name, "valkey-cache", args, secret, passwordDigest, cacheConfiguration);
    // On a standby nobody asks there, and they wait for Mastodon, whose release says their names.
    const there = (set: k8s.apps.v1.StatefulSet, host: string) =>
      args.role === "active" ? set.id.apply(() => host) : pulumi.output(host);
    this.host = there(queue, "valkey");
    this.cacheHost = there(cache, "valkey-cache");
    this.secretName = secret.metadata.name;
    this.password = password.result;
    this.registerOutputs({ host: this.host, cacheHost: this.cacheHost, secretName: this.secretName });
  }

  /** The two programs of the lease: Valkey's entry point, and the keeper beside it. */
  private gate(name: string, args: ValkeyArgs): Gate {
    const data = {
      "gate.sh": fs.readFileSync(path.join(__dirname, "valkey-gate.sh"), "utf8"),
      "keeper.js": bundle("lib/lease/keeper-main.ts"),
    };
    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-gate`,
      { metadata: { name: "valkey-gate", namespace: args.namespace, labels: labels("valkey") }, data },
      { parent: this },
    );
    return { configMap, programs: digest(JSON.stringify(data)) };
  }

  private instance(
    name: string,
    instance: "valkey" | "valkey-cache",
    args: ValkeyArgs,
    secret: k8s.core.v1.Secret,
    passwordDigest: pulumi.Output<string>,
    configuration: string,
    gate?: Gate,
  ) {
    const meta = { name: instance, namespace: args.namespace, labels: labels(instance) };
    const child = instance === "valkey" ? `${name}-queue` : `${name}-cache`;
    const configMap = new k8s.core.v1.ConfigMap(
      `${child}-configuration`,
      { metadata: meta, data: { "valkey.conf": configuration } },
      { parent: this },
    );
    const service = new k8s.core.v1.Service(
      `${child}-service`,
      {
        // A Service whose pods are at zero on a standby would be waited for in vain.
        metadata: { ...meta, annotations: { "pulumi.com/skipAwait": "true" } },
        spec: { clusterIP: "None", selector: labels(instance), ports: [{ name: "valkey", port }] },
      },
      { parent: this },
    );
    const keeps = instance === "valkey";
    const slow = args.storage.kind === "nfs";
    // The kernel completes a TCP handshake while the thread is busy: a blocked Valkey is waited for, a dead one is not.
    const probe = { tcpSocket: { port }, timeoutSeconds: 5 };
    // Before it listens it reads its snapshot, up to maxmemory (384 MB): 5 min would do for a disk of 1.3 MB/s, and 30 min for
    // one that hangs for minutes meanwhile, as an NFS server that is started anew does.
    const reading = slow ? 900 : 150;
    // A minute, or 5 on NFS, in which not even the kernel answers: only then is an error at once better for those who ask.
    const unready = slow ? 30 : 6;
    // 5 min, or 10 on NFS: a restart costs what came since the last snapshot, so it is the last resort, well above the hang of
    // a minute that the suite makes (npm run e2e -- slow-disk).
    const dead = slow ? 30 : 15;
    return new k8s.apps.v1.StatefulSet(
      child,
      {
        metadata: { ...meta, ...(gate ? { annotations: { "pulumi.com/timeoutSeconds": patience(args) } } : {}) },
        spec: {
          serviceName: service.metadata.name,
          // One pod has no order to keep. What matters is that new settings replace one that is not ready: in order, the
          // StatefulSet waits for it first (kubernetes/kubernetes#67250), and a gate that waits for the vault waits for them.
          podManagementPolicy: "Parallel",
          replicas: args.role === "active" ? 1 : 0,
          selector: { matchLabels: labels(instance) },
          template: {
            metadata: {
              labels: labels(instance),
              annotations: {
                "homestead/configuration": digest(configuration),
                "homestead/secret": passwordDigest,
                // The keeper is given the vault's keys as it starts; with old ones it would soon pause the server.
                ...(gate
                  ? {
                      "homestead/vault": secretsDigest(
                        args.secrets.vaultAccessKeyId,
                        args.secrets.vaultSecretAccessKey,
                      ),
                      "homestead/gate": gate.programs,
                      ...scrapeAnnotations(args, metricsPorts.valkey),
                    }
                  : {}),
              },
            },
            spec: {
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: restrictedPod(user),
              ...(keeps ? { affinity: besideDatabase } : {}),
              // Time for the last snapshot to reach the disk, and with a keeper the vault, over a home's line.
              terminationGracePeriodSeconds: keeps ? (slow ? 300 : 120) + (gate ? 180 : 0) : 10,
              containers: [
                {
                  name: "valkey",
                  image: args.images.valkey,
                  command: gate ? ["sh", "/programs/gate.sh"] : ["valkey-server", "/etc/valkey/valkey.conf"],
                  ports: [{ name: "valkey", containerPort: port }],
                  startupProbe: { ...probe, periodSeconds: 2, failureThreshold: gate ? forAsLong : reading },
                  readinessProbe: { ...probe, periodSeconds: 10, failureThreshold: unready },
                  livenessProbe: { ...probe, periodSeconds: 20, failureThreshold: dead },
                  resources: keeps ? resources("20m", "64Mi", "512Mi") : resources("10m", "32Mi", "160Mi"),
                  securityContext: restrictedContainer,
                  volumeMounts: [
                    {
                      name: "configuration",
                      mountPath: "/etc/valkey/valkey.conf",
                      subPath: "valkey.conf",
                      readOnly: true,
                    },
                    { name: "secret", mountPath: "/etc/valkey/secret", readOnly: true },
                    { name: "data", mountPath: "/data" },
                    ...(gate ? gateMounts : []),
                  ],
                },
                ...(gate ? [keeper(args)] : []),
              ],
              volumes: [
                ...(gate
                  ? [
                      { name: "programs", configMap: { name: gate.configMap.metadata.name } },
                      { name: "gate", emptyDir: { medium: "Memory", sizeLimit: "1Mi" } },
                    ]
                  : []),
                { name: "configuration", configMap: { name: configMap.metadata.name } },
                {
                  name: "secret",
                  secret: {
                    secretName: secret.metadata.name,
                    items: [{ key: "password.conf", path: "password.conf" }],
                  },
                },
                ...(keeps ? [] : [{ name: "data", emptyDir: { medium: "Memory", sizeLimit: "16Mi" } }]),
              ],
            },
          },
          // The claim is made by the StatefulSet and outlives it, a `destroy` included.
          ...(keeps
            ? {
                volumeClaimTemplates: [
                  {
                    metadata: { name: "data", labels: labels(instance) },
                    spec: {
                      accessModes: ["ReadWriteOnce"],
                      storageClassName: args.storage.databases,
                      resources: { requests: { storage: args.sizes.queue } },
                    },
                  },
                ],
              }
            : {}),
        },
      },
      { parent: this, dependsOn: args.role === "active" ? [service] : [service, this.stopped] },
    );
  }
}

/**
 * The keeper measures its own node's disk, and its alerts speak of the databases': where volumes are node-local, Valkey
 * belongs on the node that has the database. Whichever is placed first, since the scheduler heeds a preference of what
 * runs already for what comes. Preferred only: a node without room must not keep the server down.
 */
const besideDatabase = {
  podAffinity: {
    preferredDuringSchedulingIgnoredDuringExecution: [
      {
        weight: 100,
        podAffinityTerm: { labelSelector: postgres.podSelector, topologyKey: "kubernetes.io/hostname" },
      },
    ],
  },
};

interface Gate {
  configMap: k8s.core.v1.ConfigMap;
  /** Digest of the programs: new ones restart the pod. */
  programs: string;
}

/** A closed gate is no fault: 2 s each, for two years. */
const forAsLong = 2 ** 25;

/**
 * Seconds that an update waits for Valkey: a lost site's grace may have to pass first, and then ten minutes as usual. The
 * lost one may not know yet that the grace was made shorter: the lease says for how long it is waited out.
 */
export const patience = ({ leaseGrace, leaseWait = 0 }: Pick<ValkeyArgs, "leaseGrace" | "leaseWait">): string =>
  String(Math.max(waitFor(leaseGrace), leaseWait) + 600);

const gateMounts = [
  { name: "programs", mountPath: "/programs", readOnly: true },
  { name: "gate", mountPath: "/gate" },
];

/** The container that reads the lease; see lib/lease/keeper.ts. */
function keeper(args: ValkeyArgs) {
  const { images, site, otherSite, epoch, databaseName, clusterUid, restoredTo, fingerprint, vault, monitoring } = args;
  const key = (name: string, secretKey: string) => ({
    name,
    valueFrom: { secretKeyRef: { name: "vault", key: secretKey } },
  });
  const monitored = monitoring.kind === "rules";
  const plain = {
    SITE: site,
    OTHER_SITE: otherSite ?? site,
    EPOCH: String(epoch),
    CLUSTER: clusterUid,
    FINGERPRINT: fingerprint,
    ENDPOINT: vault.endpoint,
    REGION: vault.region,
    BUCKET: vault.bucket,
    DATA: "/data",
    GATE: "/gate",
    ...(restoredTo !== undefined ? { RESTORED_TO: restoredTo, GENERATION: String(madeIn(databaseName)) } : {}),
    ...(monitored ? metricsEnvironment(args) : {}),
  };
  return {
    name: "keeper",
    image: images.node,
    command: ["node", "/programs/keeper.js"],
    env: [
      ...Object.entries(plain).map(([name, value]) => ({ name, value })),
      key("ACCESS_KEY_ID", "access-key-id"),
      key("SECRET_ACCESS_KEY", "secret-access-key"),
    ],
    ...(monitored ? { ports: [{ name: "metrics", containerPort: metricsPorts.valkey }] } : {}),
    resources: resources("10m", "64Mi", "256Mi"),
    securityContext: restrictedContainer,
    volumeMounts: [
      ...gateMounts,
      { name: "data", mountPath: "/data" },
      ...(monitored ? [{ name: "secret", mountPath: "/etc/valkey/secret", readOnly: true }] : []),
    ],
  };
}

/** What the keeper is told for its metrics; see lib/lease/metrics.ts. */
function metricsEnvironment({ apex, webHost, owner, certificates, media, site }: ValkeyArgs): Record<string, string> {
  const webfinger = {
    APEX: apex,
    WEB_HOST: webHost,
    OWNER: owner,
    ...(certificates.kind === "issuer" && certificates.ca !== undefined ? { AUTHORITY: certificates.ca } : {}),
  };
  return {
    METRICS_PORT: String(metricsPorts.valkey),
    QUEUES: queues.map((queue) => queue.split(",")[0] ?? queue).join(" "),
    PASSWORD: "/etc/valkey/secret/password.conf",
    // No server in the world follows one whose certificate is self-signed.
    ...(certificates.kind === "selfSigned" ? {} : webfinger),
    ...(media.kind === "volume" ? { MEDIA_COPIED: copiedKey(site) } : {}),
  };
}
