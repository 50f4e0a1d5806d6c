import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { demotionToken, onceWritable } from "../lib/database";
import { labels, resources } from "../lib/pods";
import { archiveName, siteNames, siteOfArchive } from "../settings";
import type { DatabaseState, PodMonitorsState } from "../lib/checks";
import type { Bootstrap } from "../lib/database";
import type { Settings } from "../settings";
import { metricsPorts, scrapeAnnotations } from "./monitoring/scraping";

export interface PostgresArgs extends Pick<
  Settings,
  | "site"
  | "activeSite"
  | "otherSite"
  | "generations"
  | "beginning"
  | "images"
  | "storage"
  | "sizes"
  | "vault"
  | "archiveInterval"
  | "secrets"
  | "cluster"
  | "role"
  | "promotionToken"
  | "monitoring"
> {
  namespace: pulumi.Input<string>;
  /** Whether the cluster has the Prometheus operator's resources. */
  podMonitors: PodMonitorsState;
  /** Adopts what an earlier `destroy` left on purpose. */
  kept: k8s.Provider;
  /** Whether the cluster has this database already. */
  database: DatabaseState;
  /** Name of its Cluster. */
  databaseName: string;
  /** How it began, if it is there: what its Cluster says, and not what a beginning would be today. */
  begun?: Bootstrap | undefined;
  /** Clusters of earlier generations: kept, and put to sleep. */
  former: string[];
  /** The site whose database this one has been following, its own name if it has been writing. */
  primary?: string;
}

/** Names and owner are always given, so the role that Mastodon logs in with exists by construction. */
export const database = { name: "mastodon", owner: "mastodon", port: 5432 } as const;
/** The Service of the instance that takes writes. */
export const hostOf = (cluster: string): string => `${cluster}-rw`;
/** The plugin that archives WAL and takes base backups. */
export const archiver = "barman-cloud.cloudnative-pg.io";
const storeName = (site: string) => `pg-${site}`;

/** The archives this stack knows of: its own, and the other site's. The same list on both sites. */
function archives(args: Pick<PostgresArgs, "site" | "otherSite" | "generations">) {
  const sites = args.otherSite ? siteNames : [args.site];
  return sites.map((site) => ({
    site,
    store: storeName(site),
    server: archiveName(site, args.generations[site] ?? 1),
  }));
}

/**
 * An archive that is only read. The defaults are written out: the operator writes them into the object, and what the
 * program says would otherwise differ from what is there for ever.
 */
const reading = { name: archiver, enabled: true, isWALArchiver: false } as const;

/** `lost` and `dead` are words of ours: then the database is promoted with what it has. */
const promotion = ({ promotionToken }: Pick<PostgresArgs, "promotionToken">) =>
  promotionToken === undefined || promotionToken === "lost" || promotionToken === "dead" ? {} : { promotionToken };

/** The `spec` of the CloudNativePG Cluster. */
export function clusterSpec(
  args: Pick<
    PostgresArgs,
    | "site"
    | "activeSite"
    | "otherSite"
    | "generations"
    | "beginning"
    | "images"
    | "storage"
    | "sizes"
    | "archiveInterval"
    | "promotionToken"
    | "begun"
  >,
) {
  const known = archives(args);
  const bootstrap = args.begun ?? bootstrapOf(args, known);
  // An archive of an earlier generation is a source of its own: the entry of that site names its present one. It stays in
  // the list for as long as the Cluster lives: CloudNativePG refuses every change of one that began from what is not there.
  const source = bootstrap.recovery?.source;
  const former =
    source === undefined || known.some(({ site }) => site === source)
      ? []
      : [{ name: source, store: storeName(siteOfArchive(source)), server: source }];
  const external = [...known.map((of) => ({ name: of.site, ...of })), ...former];
  return {
    description: `Mastodon's database, ${args.site}`,
    instances: 1,
    imageName: args.images.postgres,
    // With one instance a budget only blocks the draining of a node.
    enablePDB: false,
    enableSuperuserAccess: false,
    // Recovery from a bucket over a home line takes its time; CloudNativePG's own default.
    startDelay: 3600,
    stopDelay: 300,
    // CloudNativePG calls its 30 s "aggressive"; a disk that stalls must not get the database killed (an
    // fsync of 60 s leaves it ready: npm run e2e -- slow-disk).
    livenessProbeTimeout: args.storage.kind === "nfs" ? 600 : 120,
    storage: { size: args.sizes.database, storageClass: args.storage.databases },
    resources: resources("100m", "256Mi", "1Gi"),
    postgresql: {
      parameters: {
        archive_timeout: `${args.archiveInterval}s`,
        // Postgres' own: Mastodon has one a thread (web 5, Sidekiq 10) and a pool for streaming, a drill and monitoring a few.
        max_connections: "100",
        // Postgres' own, which fits into what is requested; most of a single user's pages are in the kernel's cache beside it.
        shared_buffers: "128MB",
        // Spreads a checkpoint's writes: a burst is what a slow disk stalls on.
        checkpoint_completion_target: "0.9",
        // Not rarer: `archive_timeout` is not looked at before the first time that the checkpointer wakes up after a start,
        // since it starts while the database still recovers and goes to sleep for this long (Postgres 15 and later,
        // CheckpointerMain; measured: after a promotion, which restarts it, nothing was archived for minutes). On NFS that is the
        // price of Postgres' own 5 min: each checkpoint fsyncs every file that was written, and each page's first change after
        // it goes to the WAL whole, which is what a disk that stalls has no time for.
        checkpoint_timeout: args.storage.kind === "nfs" ? "5min" : "30s",
        // Postgres' own. A single user's server writes less between two checkpoints, so that the clock begins them, not this.
        max_wal_size: "1GB",
      },
    },
    plugins: [
      {
        name: archiver,
        enabled: true,
        isWALArchiver: true,
        parameters: {
          barmanObjectName: storeName(args.site),
          serverName: archiveName(args.site, args.generations[args.site] ?? 1),
        },
      },
    ],
    bootstrap,
    ...(args.otherSite
      ? {
          replica: {
            self: args.site,
            primary: args.activeSite,
            source: args.site === args.activeSite ? args.otherSite : args.activeSite,
            ...promotion(args),
          },
        }
      : {}),
    externalClusters: external.map(({ name, store, server }) => ({
      name,
      plugin: { ...reading, parameters: { barmanObjectName: store, serverName: server } },
    })),
  };
}

/** How a database begins that is yet to be made. */
function bootstrapOf({ beginning }: Pick<PostgresArgs, "beginning">, known: ReturnType<typeof archives>): Bootstrap {
  const owner = { database: database.name, owner: database.owner, secret: { name: "postgres-owner" } };
  // C collation: an index never breaks when the C library's rules change between images.
  if (beginning.kind === "initdb") {
    return { initdb: { ...owner, encoding: "UTF8", localeCollate: "C", localeCType: "C.UTF-8" } };
  }
  const { archive, to } = beginning;
  return {
    recovery: {
      source: known.find(({ server }) => server === archive)?.site ?? archive,
      ...owner,
      ...(to !== undefined ? { recoveryTarget: { targetTime: to } } : {}),
    },
  };
}

/** Annotations that CloudNativePG hands on to the instances' pods. */
const inherited = (annotations: Record<string, string>) =>
  Object.keys(annotations).length === 0 ? {} : { inheritedMetadata: { annotations } };

/** One site's view of a vault: where WAL and base backups go. */
export function objectStoreSpec(vault: Settings["vault"]) {
  return {
    retentionPolicy: "30d",
    configuration: {
      destinationPath: `s3://${vault.bucket}/pg`,
      endpointURL: vault.endpoint,
      s3Credentials: {
        accessKeyId: { name: "vault", key: "access-key-id" },
        secretAccessKey: { name: "vault", key: "secret-access-key" },
        region: { name: "vault", key: "region" },
      },
      wal: { compression: "gzip", maxParallel: 2 },
      data: { compression: "gzip" },
    },
    instanceSidecarConfiguration: {
      // 128Mi kills every base backup (siutsin/otaru#2480); idle it needs 44Mi.
      resources: resources("20m", "128Mi", "512Mi"),
      // boto3's new checksums are refused by S3-compatible stores (plugin-barman-cloud#393).
      env: [
        { name: "AWS_REQUEST_CHECKSUM_CALCULATION", value: "when_required" },
        { name: "AWS_RESPONSE_CHECKSUM_VALIDATION", value: "when_required" },
      ],
    },
  };
}

/**
 * Mastodon's database: one CloudNativePG instance whose WAL and base backups go to the vault from the first day.
 *
 * What holds the data outlives a `destroy` and is adopted by the next `up`.
 */
export class Postgres extends pulumi.ComponentResource {
  /** Host name inside the namespace; there once the database accepts connections. */
  public readonly host: pulumi.Output<string>;
  /** Secret with `username` and `password`. */
  public readonly secretName: pulumi.Output<string>;
  /** Name of the Cluster; there once it takes writes, on the active site. */
  public readonly cluster: pulumi.Output<string>;
  /** What lets the other site take over without a loss; empty on the active site. */
  public readonly demotionToken: pulumi.Output<string>;

  constructor(name: string, args: PostgresArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Postgres", name, {}, opts);
    const { namespace } = args;
    const keep = { parent: this, provider: args.kept, retainOnDelete: true };
    const owner = new k8s.core.v1.Secret(
      `${name}-owner`,
      {
        // CloudNativePG takes a changed password over only from a Secret that says so.
        metadata: { name: "postgres-owner", namespace, labels: { ...labels("postgres"), "cnpg.io/reload": "true" } },
        type: "kubernetes.io/basic-auth",
        stringData: { username: database.owner, password: args.secrets.databasePassword },
      },
      keep,
    );
    const vault = new k8s.core.v1.Secret(
      `${name}-vault`,
      {
        metadata: { name: "vault", namespace, labels: labels("postgres") },
        stringData: {
          "access-key-id": args.secrets.vaultAccessKeyId,
          "secret-access-key": args.secrets.vaultSecretAccessKey,
          region: args.vault.region,
        },
      },
      keep,
    );
    const stores = archives(args).map(
      ({ site, store }) =>
        new k8s.apiextensions.CustomResource(
          `${name}-store-${site}`,
          {
            apiVersion: "barmancloud.cnpg.io/v1",
            kind: "ObjectStore",
            metadata: { name: store, namespace, labels: labels("postgres") },
            spec: objectStoreSpec(args.vault),
          },
          { ...keep, dependsOn: [vault] },
        ),
    );
    const cluster = new k8s.apiextensions.CustomResource(
      `${name}-cluster`,
      {
        apiVersion: "postgresql.cnpg.io/v1",
        kind: "Cluster",
        metadata: {
          name: args.databaseName,
          namespace,
          labels: labels("postgres"),
          annotations: {
            "pulumi.com/waitFor": "condition=Ready",
            "pulumi.com/timeoutSeconds": "3600",
          },
        },
        spec: { ...clusterSpec(args), ...inherited(scrapeAnnotations(args, metricsPorts.postgres)) },
      },
      {
        ...keep,
        dependsOn: [owner, ...stores, ...this.hibernated(name, args)],
        // The beginning is looked at when the database is made and never again, and a Cluster that is there is told its
        // own: after a `destroy`, which keeps it, nothing is ignored. While there is none, a state that still lists it
        // must not bring its old beginning back: that would be an empty database in place of a restore.
        ignoreChanges: args.database === "there" ? ["spec.bootstrap"] : [],
      },
    );
    this.backups(name, args, cluster);
    const there = cluster.id.apply(() => args.databaseName);
    const access = { cluster: args.cluster, namespace: args.namespace };
    this.cluster = args.role === "active" ? onceWritable(access, there, args.images.postgres) : there;
    this.demotionToken =
      args.role === "active" ? pulumi.output("") : demotionToken(access, there, args.primary === args.site);
    this.host = this.cluster.apply(hostOf);
    this.secretName = owner.metadata.name;
    this.registerOutputs({ host: this.host, secretName: this.secretName });
  }

  /**
   * The active site begins with a base backup of its own time line, and makes one every night. A standby archives too,
   * and segments go only with a base backup that grew older than `retentionPolicy`: without any, its archive would grow
   * for ever. One a week is enough for that. They are two objects, so that a takeover makes a backup at once.
   */
  private backups(name: string, args: PostgresArgs, cluster: pulumi.Resource): void {
    const { databaseName, namespace } = args;
    const active = args.site === args.activeSite;
    new k8s.apiextensions.CustomResource(
      active ? `${name}-backup` : `${name}-standby-backup`,
      {
        apiVersion: "postgresql.cnpg.io/v1",
        kind: "ScheduledBackup",
        metadata: {
          name: active ? databaseName : `${databaseName}-standby`,
          namespace,
          labels: labels("postgres"),
        },
        spec: {
          // Six fields, seconds first: every night at three; on a standby on Sundays at four.
          schedule: active ? "0 0 3 * * *" : "0 0 4 * * 0",
          immediate: active,
          backupOwnerReference: "none",
          cluster: { name: databaseName },
          method: "plugin",
          pluginConfiguration: { name: archiver },
        },
      },
      { parent: this, dependsOn: [cluster] },
    );
  }

  /** The databases of earlier generations: their volumes are kept until somebody deletes them, their pods are not. */
  private hibernated(name: string, args: PostgresArgs): pulumi.Resource[] {
    return args.former.map(
      (cluster) =>
        new k8s.apiextensions.CustomResourcePatch(
          `${name}-former-${cluster}`,
          {
            apiVersion: "postgresql.cnpg.io/v1",
            kind: "Cluster",
            metadata: {
              name: cluster,
              namespace: args.namespace,
              annotations: { "cnpg.io/hibernation": "on", "pulumi.com/patchForce": "true" },
            },
          },
          { parent: this, provider: args.kept, retainOnDelete: true },
        ),
    );
  }
}
