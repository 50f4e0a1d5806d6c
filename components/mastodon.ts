import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { chartArgs, describedBy } from "../lib/charts";
import type { Found } from "../lib/checks";
import { digest, secretsDigest } from "../lib/digest";
import { imageParts, labels, resources, restrictedContainer, restrictedPod, tagAlone } from "../lib/pods";
import { reportFailedJobs } from "../lib/failed-jobs";
import { onceStopped, parts } from "../lib/stopping";
import type { Part } from "../lib/stopping";
import { servedBy, servedName } from "../lib/upgrade";
import { madeBefore } from "../lib/upgrade-backup";
import type { Settings } from "../settings";
import { chartJobs } from "./isolation";
import { mediaValues } from "./media";
import type { SearchServer } from "./search";
import { archiver, database } from "./postgres";
import { PulledImages } from "./pulled-images";

export interface MastodonArgs extends Pick<Found, "installed" | "killed" | "databaseName" | "upgradeBackup"> {
  namespace: pulumi.Input<string>;
  /** Decisions, as `settings.ts` made them. */
  settings: Pick<
    Settings,
    | "apex"
    | "webHost"
    | "owner"
    | "ownerEmail"
    | "registrations"
    | "locale"
    | "role"
    | "standby"
    | "media"
    | "smtp"
    | "network"
    | "images"
    | "charts"
    | "secrets"
    | "cluster"
    | "maintenance"
    | "promotionToken"
    | "epoch"
  >;
  /** Secret with `username` and `password`; its being there says that the database accepts connections. */
  postgres: { host: pulumi.Input<string>; secretName: pulumi.Input<string>; cluster: pulumi.Input<string> };
  valkey: {
    host: pulumi.Input<string>;
    cacheHost: pulumi.Input<string>;
    secretName: pulumi.Input<string>;
    password: pulumi.Input<string>;
  };
  media: { secretName: pulumi.Input<string> };
  /** The search server, if there is one. */
  search?: SearchServer | undefined;
  /** Adopts what an earlier `destroy` left on purpose. */
  kept: k8s.Provider;
}

/** Fixed: Services, ConfigMaps and hook Jobs of the chart are called after it, and routes and policies name them. */
export const releaseName = "mastodon";
/** The program that Helm runs for what the chart has no value for, as it stands in the project's folder. */
export const postrender = "./components/sidekiq-grace.sh";
export const webService = { name: `${releaseName}-web`, port: 3000 } as const;
export const streamingService = { name: `${releaseName}-streaming`, port: 4000 } as const;
/** Of the chart's pods; its hooks' pods run as this with `-predeploy`. */
const serviceAccount = "mastodon-app";
/** ConfigMap of the chart's with the environment of its pods. */
export const environmentName = `${releaseName}-env`;
/** uid of the official images' user. */
const user = 991;

/**
 * All of Mastodon's queues (docs.joinmastodon.org, "Scaling up your server"; `fasp` since 4.4). A queue nobody works
 * on stops federation without a word. `scheduler` belongs to exactly one process.
 */
export const queues = ["default,8", "push,6", "ingress,4", "mailers,2", "pull", "scheduler", "fasp"];

type ValueArgs = Pick<MastodonArgs, "media" | "search"> & {
  settings: Omit<MastodonArgs["settings"], "secrets" | "charts" | "cluster" | "promotionToken">;
  postgres: Omit<MastodonArgs["postgres"], "cluster">;
  valkey: Omit<MastodonArgs["valkey"], "password">;
  /** Changes when a Secret that the pods read does. */
  secretsDigest: pulumi.Input<string>;
};

/** Values of the official chart. */
export function mastodonValues(args: ValueArgs) {
  const { settings } = args;
  const image = imageParts(settings.images.mastodon);
  const streaming = imageParts(settings.images["mastodon-streaming"]);
  const web = replicasOf(settings, "web");
  // A standby's database is read-only; its schema comes with the WAL. Maintenance is on the way to somewhere, with the
  // version that was there before (lib/checks.ts): nobody should wait for migrations twice.
  const migrates = settings.role === "active" && settings.maintenance === "off";
  const redis = { existingSecret: args.valkey.secretName, existingSecretKeys: { password: "password" } };
  return {
    // The chart makes a label of this tag, and a label cannot hold a digest: the API would refuse every object of the
    // release. So the chart's Jobs run by tag, and each Deployment is told the whole.
    image: { repository: image.name, tag: tagAlone(image.tag) },
    mastodon: {
      localDomain: settings.apex,
      webDomain: settings.webHost,
      locale: settings.locale,
      singleUserMode: settings.registrations === "single",
      // The owner is made by a Job of ours: the chart's leaves the account unapproved and the password in a log.
      createAdmin: { enabled: false },
      hooks: {
        dbPrepare: { enabled: migrates },
        dbMigrate: { enabled: migrates },
        deploySearch: { enabled: false },
        s3Upload: { enabled: false },
      },
      secrets: { existingSecret: "mastodon-identity" },
      web: {
        replicas: web,
        image: { repository: image.name, tag: image.tag },
        // One process with five threads: a single user's server gains nothing by a second one (≈ 300 MB each).
        workers: "0",
        minThreads: "5",
        maxThreads: "5",
        resources: resources("100m", "512Mi", "1280Mi"),
        updateStrategy: rolling,
      },
      sidekiq: {
        // Helm takes a crashing Sidekiq for a good one, unless it is asked for the file that Sidekiq makes when it works.
        extraEnvVars: { MASTODON_SIDEKIQ_READY_FILENAME: "sidekiq_process_has_started_and_will_begin_processing_jobs" },
        readinessProbe: { enabled: true, initialDelaySeconds: 5, periodSeconds: 5, failureThreshold: 60 },
        workers: [
          {
            name: "all-queues",
            replicas: replicasOf(settings, "jobs"),
            image: { repository: image.name, tag: image.tag },
            queues,
            concurrency: 10,
            // It converts videos, and one of 4K needs about a gigabyte beside the 400 MiB of Sidekiq itself. A container
            // that goes over its limit is killed as a whole, with the jobs that it was at.
            resources: resources("100m", "384Mi", "2Gi"),
          },
        ],
      },
      streaming: {
        replicas: web,
        workers: 1,
        image: { repository: streaming.name, tag: streaming.tag },
        resources: resources("20m", "96Mi", "384Mi"),
        // Unlike Rails below, it writes nothing but its log, which is its standard output.
        securityContext: restrictedContainer,
        updateStrategy: rolling,
      },
      ...mediaValues(settings.media, args.media.secretName),
      smtp: smtpValues(settings.smtp),
      extraEnvVars: {
        // Access is the bucket's affair: many stores know no ACLs per object, and answer 400 to one. An empty text is
        // what Mastodon wants then; the chart cannot say it by its own key.
        ...(settings.media.kind === "volume" ? {} : { S3_PERMISSION: "" }),
        // It ends Mastodon's own guard for these addresses, against posts that name what is in the house.
        ...(settings.network.mastodonPrivateEgress.length > 0
          ? { ALLOWED_PRIVATE_ADDRESSES: settings.network.mastodonPrivateEgress.join(",") }
          : {}),
      },
    },
    // The chart's own accounts would be given tokens for the cluster's API, which Mastodon never asks.
    serviceAccount: { create: false, name: serviceAccount },
    // Not the chart's HTTPRoute, which it would make by default and which needs the Gateway API's definitions.
    ingress: { enabled: false },
    httproute: { enabled: false },
    postgresql: {
      hostname: args.postgres.host,
      port: database.port,
      database: database.name,
      existingSecret: args.postgres.secretName,
    },
    redis: {
      hostname: args.valkey.host,
      ...redis,
      cache: { enabled: true, hostname: args.valkey.cacheHost, ...redis },
    },
    elasticsearch: searchValues(args.search),
    podSecurityContext: restrictedPod(user),
    // The image writes to tmp/ and, at boot, to its own folders; the chart offers no way to mount them apart.
    securityContext: { ...restrictedContainer, readOnlyRootFilesystem: false },
    // Rolling on a changed ConfigMap comes from the chart; rolling on a changed Secret from us. The chart's third
    // reason, its revision number, would restart everything at every upgrade that changes nothing.
    revisionPodAnnotation: false,
    podAnnotations: { "homestead/secrets": args.secretsDigest },
  };
}

/** Changes with every value that the chart's pods are given by a Secret: they read those as they start, and not again. */
export function podSecrets({
  settings: { secrets, smtp },
  valkey,
  search,
}: Pick<MastodonArgs, "search"> & {
  settings: Pick<Settings, "secrets" | "smtp">;
  valkey: Pick<MastodonArgs["valkey"], "password">;
}): pulumi.Output<string> {
  return secretsDigest(
    secrets.secretKeyBase,
    secrets.vapidPrivateKey,
    secrets.vapidPublicKey,
    secrets.activeRecordPrimaryKey,
    secrets.activeRecordDeterministicKey,
    secrets.activeRecordKeyDerivationSalt,
    secrets.databasePassword,
    secrets.mediaAccessKeyId,
    secrets.mediaSecretAccessKey,
    smtp.kind === "none" ? "" : (smtp.username ?? ""),
    secrets.smtpPassword ?? "",
    valkey.password,
    search?.secretDigest ?? "",
  );
}

/** One at a time, and the new one ready before the old one goes. The chart's 25 % means the same at one replica. */
const rolling = { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } };

/** Mastodon runs on the active site and nowhere else, and there what maintenance leaves of it. */
export function replicasOf({ role, maintenance }: Pick<Settings, "role" | "maintenance">, part: Part): number {
  if (role === "standby" || maintenance === "all") return 0;
  return part === "web" && maintenance === "web" ? 0 : 1;
}

/** The `elasticsearch` values. */
export function searchValues(search: SearchServer | undefined) {
  if (!search) return { enabled: false };
  return {
    enabled: true,
    hostname: search.host,
    port: search.port,
    tls: false,
    preset: "single_node_cluster",
    existingSecret: search.secretName,
  };
}

/** The `mastodon.smtp` values. The Secret is always there: the chart cannot do without. */
export function smtpValues(smtp: Settings["smtp"]) {
  const existingSecret = "mastodon-smtp";
  if (smtp.kind === "none") {
    // Rails' "test" method takes a mail and sends it nowhere. `smtp` would retry for days.
    return {
      deliveryMethod: "test",
      server: "localhost",
      port: 25,
      authMethod: "none",
      fromAddress: "nobody@localhost",
      existingSecret,
    };
  }
  return {
    deliveryMethod: "smtp",
    server: smtp.host,
    port: smtp.port,
    fromAddress: smtp.from,
    authMethod: smtp.auth,
    enableStartTls: smtp.tls === "starttls" ? "always" : "never",
    tls: smtp.tls === "tls",
    opensslVerifyMode: smtp.tls === "none" ? "none" : "peer",
    existingSecret,
  };
}

const fromSecret = (variable: string, secretName: pulumi.Input<string>, key: string) => ({
  name: variable,
  valueFrom: { secretKeyRef: { name: secretName, key } },
});

/** What one of our own Jobs runs. */
interface Task {
  name: string;
  command: string[];
  env?: k8s.types.input.core.v1.EnvVar[];
  volumeMounts?: k8s.types.input.core.v1.VolumeMount[];
  volumes?: k8s.types.input.core.v1.Volume[];
}

/** The pod of a Job of ours: Mastodon's image, with the environment that the chart gives its own pods. */
export function taskPod(args: Pick<MastodonArgs, "settings" | "postgres" | "valkey" | "media" | "search">, task: Task) {
  return {
    restartPolicy: "Never",
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: restrictedPod(user),
    containers: [
      {
        name: task.name,
        // The reason of a failure then stands in the update's error.
        terminationMessagePolicy: "FallbackToLogsOnError",
        image: args.settings.images.mastodon,
        command: task.command,
        envFrom: [{ configMapRef: { name: environmentName } }],
        env: [
          ...(task.env ?? []),
          fromSecret("SECRET_KEY_BASE", "mastodon-identity", "secret-key-base"),
          fromSecret("VAPID_PRIVATE_KEY", "mastodon-identity", "vapid-private-key"),
          fromSecret("VAPID_PUBLIC_KEY", "mastodon-identity", "vapid-public-key"),
          fromSecret("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "mastodon-identity", "are-primary-key"),
          fromSecret("ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY", "mastodon-identity", "are-deterministic-key"),
          fromSecret("ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT", "mastodon-identity", "are-derivation-salt"),
          fromSecret("DB_USER", args.postgres.secretName, "username"),
          fromSecret("DB_PASS", args.postgres.secretName, "password"),
          fromSecret("REDIS_PASSWORD", args.valkey.secretName, "password"),
          fromSecret("CACHE_REDIS_PASSWORD", args.valkey.secretName, "password"),
          ...(args.search
            ? [
                fromSecret("ES_USER", args.search.secretName, "username"),
                fromSecret("ES_PASS", args.search.secretName, "password"),
              ]
            : []),
          // With a volume they are the keys of its copy in the vault, which are none of Mastodon's business.
          ...(args.settings.media.kind === "volume"
            ? []
            : [
                fromSecret("AWS_ACCESS_KEY_ID", args.media.secretName, "access-key-id"),
                fromSecret("AWS_SECRET_ACCESS_KEY", args.media.secretName, "secret-access-key"),
              ]),
        ],
        resources: resources("100m", "384Mi", "1Gi"),
        // A root file system to write to, though the mounts here are ours to choose. The image's code is root's, and its user may
        // write to tmp/, public/system and the top of its own folder (Mastodon's Dockerfile). An emptyDir for tmp/ would hide what
        // the image has compiled there for a faster boot, and nobody here could try whether all else of Rails, its gems and tootctl
        // does without: a Job that does not start is an update that fails, for a pod that lives a minute and is asked nothing.
        securityContext: { ...restrictedContainer, readOnlyRootFilesystem: false },
        ...(task.volumeMounts ? { volumeMounts: task.volumeMounts } : {}),
      },
    ],
    ...(task.volumes ? { volumes: task.volumes } : {}),
  };
}

/** Mastodon itself: the official chart, fed by Secrets of ours, and the owner's account. */
export class Mastodon extends pulumi.ComponentResource {
  /** Changes with every upgrade of the release. There once what it has stopped has ended. */
  public readonly revision: pulumi.Output<string>;
  /** The release, once what it has stopped has ended: for what may be stopped only then. */
  public readonly stopped: pulumi.Output<k8s.helm.v3.Release>;
  /** What the database's schema and files are of since the release is there: to be known when nothing runs any more. */
  public readonly images: pulumi.Output<{ mastodon: string; postgres: string }>;
  /** What must be there before it serves. */
  public readonly serving: pulumi.Resource[];

  constructor(name: string, args: MastodonArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Mastodon", name, {}, opts);
    const secrets = this.secrets(name, args);
    // A takeover waits for nothing that it can do without; the update after it makes up for this.
    const { role, promotionToken } = args.settings;
    const backup = role === "active" && promotionToken === undefined ? [this.backup(name, args)] : [];
    // Nor does a restore, with whatever image: what the database was is in the archive that it has come from, and on a slow
    // line hours would pass before anything is served. The backup is made all the same, and the update ends with it.
    const before = args.installed === "there" ? backup : [];
    const release = this.release(name, args, [...secrets, ...this.accounts(name, args), ...before]);
    if (role === "active") this.served(name, args, release);
    this.serving = args.settings.role === "active" ? [release, this.owner(name, args, release)] : [release];
    if (args.settings.role === "standby" && args.settings.standby === "warm") {
      new PulledImages(`${name}-images`, { ...args.settings, namespace: args.namespace }, { parent: this });
    }
    const stopped = parts.filter((part) => replicasOf(args.settings, part) === 0);
    const access = { cluster: args.settings.cluster, namespace: args.namespace };
    const made = release.status.apply((status) => String(status.revision));
    this.revision = onceStopped(access, stopped, made);
    this.stopped = this.revision.apply(() => release);
    const { mastodon, postgres } = args.settings.images;
    this.images = this.revision.apply(() => ({ mastodon, postgres }));
    this.registerOutputs({ revision: this.revision });
  }

  /** What the chart's pods run as: nobody, as far as the cluster's API is concerned. */
  private accounts(name: string, { namespace }: MastodonArgs): k8s.core.v1.ServiceAccount[] {
    return [serviceAccount, `${serviceAccount}-predeploy`].map(
      (account) =>
        new k8s.core.v1.ServiceAccount(
          `${name}-account-${account}`,
          {
            metadata: { name: account, namespace, labels: labels("mastodon") },
            automountServiceAccountToken: false,
          },
          { parent: this },
        ),
    );
  }

  private secrets(name: string, { namespace, settings }: MastodonArgs): k8s.core.v1.Secret[] {
    const { secrets, smtp } = settings;
    const secret = (suffix: string, stringData: Record<string, pulumi.Input<string>>) =>
      new k8s.core.v1.Secret(
        `${name}-${suffix}`,
        { metadata: { name: `mastodon-${suffix}`, namespace, labels: labels("mastodon-secrets") }, stringData },
        { parent: this },
      );
    return [
      // The chart's names of the keys.
      secret("identity", {
        "secret-key-base": secrets.secretKeyBase,
        "vapid-private-key": secrets.vapidPrivateKey,
        "vapid-public-key": secrets.vapidPublicKey,
        "are-primary-key": secrets.activeRecordPrimaryKey,
        "are-deterministic-key": secrets.activeRecordDeterministicKey,
        "are-derivation-salt": secrets.activeRecordKeyDerivationSalt,
      }),
      secret("smtp", {
        username: smtp.kind === "server" ? (smtp.username ?? "") : "",
        password: smtp.kind === "server" ? (secrets.smtpPassword ?? "") : "",
      }),
      secret("owner", { password: secrets.ownerPassword }),
    ];
  }

  /**
   * A base backup before each upgrade touches the schema, done before the release is even looked at; with the first version
   * too, so that there is something to restore from the start. Another one has another name (lib/upgrade-backup.ts).
   */
  private backup(name: string, { namespace, settings, postgres, databaseName, upgradeBackup, kept }: MastodonArgs) {
    return new k8s.apiextensions.CustomResource(
      // Another database's is another resource: its name is no past that could be kept.
      `${name}-backup-of-${databaseName}`,
      {
        apiVersion: "postgresql.cnpg.io/v1",
        kind: "Backup",
        metadata: {
          name: upgradeBackup.name,
          namespace,
          labels: labels("postgres"),
          annotations: {
            [madeBefore]: settings.images.mastodon,
            "pulumi.com/waitFor": "jsonpath={.status.phase}=completed",
            "pulumi.com/timeoutSeconds": "3600",
          },
        },
        spec: { cluster: { name: postgres.cluster }, method: "plugin", pluginConfiguration: { name: archiver } },
      },
      {
        parent: this,
        provider: kept,
        // Deleting the object would not delete the backup. A site that serves again finds its own there.
        retainOnDelete: true,
        // The object goes when the vault's retention takes the backup: what the cluster still has cannot say its name.
        ignoreChanges: upgradeBackup.upgrade === "past" ? ["metadata"] : [],
      },
    );
  }

  private release(name: string, args: MastodonArgs, dependsOn: pulumi.Resource[]) {
    const { settings } = args;
    const { described, ignoreChanges } = describedBy(args.killed, releaseName);
    return new k8s.helm.v3.Release(
      `${name}-release`,
      {
        ...chartArgs("mastodon", settings.charts.mastodon),
        ...described,
        name: releaseName,
        namespace: args.namespace,
        values: mastodonValues({ ...args, secretsDigest: podSecrets(args) }),
        atomic: true,
        postrender,
        // The first start makes the schema, and a slow disk makes that long.
        timeout: 1800,
        maxHistory: 5,
      },
      {
        parent: this,
        dependsOn,
        ignoreChanges,
        hooks: { onError: [reportFailedJobs(settings.cluster, args.namespace, chartJobs)] },
      },
    );
  }

  /**
   * Says which version runs, once it is there whole. The release goes with a `destroy`, which keeps the database, and by the
   * release alone the next update would let any version onto its schema.
   */
  private served(name: string, { namespace, settings, databaseName, kept }: MastodonArgs, release: pulumi.Resource) {
    const { images, epoch } = settings;
    return new k8s.core.v1.ConfigMap(
      `${name}-served`,
      {
        metadata: { name: servedName, namespace, labels: labels("mastodon") },
        data: servedBy(images.mastodon, { database: databaseName, epoch }),
      },
      { parent: this, provider: kept, retainOnDelete: true, dependsOn: [release] },
    );
  }

  /** Idempotent, and never changes the password of an account that is there: not bound to a first install. */
  private owner(name: string, args: MastodonArgs, release: k8s.helm.v3.Release): k8s.batch.v1.Job {
    const { namespace, settings } = args;
    const script = fs.readFileSync(path.join(__dirname, "owner-account.rb"), "utf8");
    const meta = { name: "mastodon-owner", namespace, labels: labels("mastodon-owner") };
    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-owner-script`,
      { metadata: meta, data: { "owner-account.rb": script } },
      { parent: this },
    );
    return new k8s.batch.v1.Job(
      `${name}-owner-account`,
      {
        // One that failed is made anew by the next update, and not waited for again.
        metadata: { ...meta, annotations: { "pulumi.com/replaceUnready": "true" } },
        spec: {
          backoffLimit: 3,
          activeDeadlineSeconds: 900,
          template: {
            metadata: { labels: labels("mastodon-owner"), annotations: { "homestead/script": digest(script) } },
            spec: taskPod(args, {
              name: "owner",
              command: ["bin/rails", "runner", "/homestead/owner-account.rb"],
              env: [
                { name: "OWNER_USERNAME", value: settings.owner },
                { name: "OWNER_EMAIL", value: settings.ownerEmail },
                { name: "OWNER_REGISTRATIONS", value: settings.registrations === "approval" ? "approved" : "none" },
                fromSecret("OWNER_PASSWORD", "mastodon-owner", "password"),
              ],
              volumeMounts: [{ name: "script", mountPath: "/homestead", readOnly: true }],
              volumes: [{ name: "script", configMap: { name: configMap.metadata.name } }],
            }),
          },
        },
      },
      { parent: this, dependsOn: [release], deleteBeforeReplace: true },
    );
  }
}
