/** What a drill puts into its throwaway namespace. Pure. */
import * as net from "node:net";
import type * as k8s from "@kubernetes/client-node";
import { defaultDeny, lookUps, outsideOf, portOf, postgres as databases, tcp } from "../../components/isolation";
import { database, objectStoreSpec } from "../../components/postgres";
import { labels, operatorPods, resources, restrictedContainer, restrictedPod } from "../pods";
import type { Settings } from "../../settings";

export const drillNamespace = "homestead-drill";
/** Says whose namespace it is: nothing without it is ever deleted. */
export const drillLabel = "homestead/drill";

/** The two databases: at the newest moment of the archive, and as the newest base backup has it. */
export const restored = { newest: "newest", backup: "backup" } as const;
type Restored = keyof typeof restored;

type KubernetesObject = k8s.KubernetesObject & { spec?: object; data?: object; stringData?: object; type?: string };

/** An address and a port that pods may talk to. */
export interface Endpoint {
  /** IP addresses. */
  addresses: string[];
  port: number;
}

export interface DrillArgs {
  settings: Pick<Settings, "site" | "vault" | "network" | "storage" | "sizes" | "images">;
  /** The archive restored from, such as `home-g1`. */
  archive: string;
  /** Id of its newest base backup. */
  backup: string;
  apiServer: Endpoint[];
  /** Environment that Mastodon's pods have on the site. */
  environment: Record<string, string>;
  /** Secrets of the stack, by name, in clear. */
  secrets: Record<string, string>;
  /** `components/drill.rb`. */
  script: string;
  /** Uploads to look for must have been written by then: a volume's newest are not in its copy yet. */
  mediaWrittenBefore?: Date;
}

const meta = (name: string, extra: Record<string, string> = {}) => ({
  name,
  namespace: drillNamespace,
  labels: { ...labels("drill"), ...extra },
});
const role = (name: string) => ({ "homestead/drill-role": name });
const range = (address: string) => ({ ipBlock: { cidr: `${address}/${net.isIPv6(address) ? 128 : 32}` } });

const egressTo = ({ addresses, port }: Endpoint) => ({ to: addresses.map(range), ports: tcp(port) });

/** The namespace, closed before anything is in it. */
export function namespaceObjects(args: Pick<DrillArgs, "settings" | "apiServer">): KubernetesObject[] {
  const policy = (name: string, spec: object): KubernetesObject => ({
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: meta(name),
    spec,
  });
  const mastodon = { matchLabels: role("mastodon") };
  const valkey = { matchLabels: role("valkey") };
  return [
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: {
        name: drillNamespace,
        labels: { [drillLabel]: args.settings.site, "pod-security.kubernetes.io/enforce": "restricted" },
      },
    },
    policy("default-deny", defaultDeny),
    policy("databases", {
      podSelector: databases.podSelector,
      policyTypes: ["Ingress", "Egress"],
      ingress: [
        { from: [{ podSelector: mastodon }], ports: tcp(5432) },
        { from: [operatorPods, databases], ports: tcp(8000, 5432) },
      ],
      egress: [
        lookUps,
        { to: [databases], ports: tcp(8000, 5432) },
        // As the site's own databases reach it: a drill that reached less would fail where a restore would not.
        { to: outsideOf(args.settings.network), ports: tcp(portOf(args.settings.vault.endpoint)) },
        ...args.apiServer.map((server) => egressTo(server)),
      ],
    }),
    // Nothing but its own two: a restored Mastodon that reached the world would federate.
    policy("mastodon", {
      podSelector: mastodon,
      policyTypes: ["Ingress", "Egress"],
      egress: [lookUps, { to: [databases], ports: tcp(5432) }, { to: [{ podSelector: valkey }], ports: tcp(6379) }],
    }),
    policy("valkey", {
      podSelector: valkey,
      policyTypes: ["Ingress"],
      ingress: [{ from: [{ podSelector: mastodon }], ports: tcp(6379) }],
    }),
  ];
}

/** Both databases, and what they read the archive with. Neither archives: that would write over what it came from. */
export function databaseObjects(args: DrillArgs): KubernetesObject[] {
  const { settings, secrets } = args;
  return [
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: meta("vault"),
      stringData: {
        "access-key-id": secrets.vaultAccessKeyId ?? "",
        "secret-access-key": secrets.vaultSecretAccessKey ?? "",
        region: settings.vault.region,
      },
    },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: meta("postgres-owner"),
      type: "kubernetes.io/basic-auth",
      stringData: { username: database.owner, password: secrets.databasePassword ?? "" },
    },
    {
      apiVersion: "barmancloud.cnpg.io/v1",
      kind: "ObjectStore",
      metadata: meta("archive"),
      // Without a retention policy: a drill deletes nothing in the vault.
      spec: { ...objectStoreSpec(settings.vault), retentionPolicy: undefined },
    },
    ...(Object.keys(restored) as Restored[]).map((which) => cluster(which, args)),
  ];
}

function cluster(which: Restored, { settings, archive, backup }: DrillArgs): KubernetesObject {
  return {
    apiVersion: "postgresql.cnpg.io/v1",
    kind: "Cluster",
    metadata: meta(restored[which]),
    spec: {
      instances: 1,
      imageName: settings.images.postgres,
      enablePDB: false,
      enableSuperuserAccess: false,
      storage: { size: settings.sizes.database, storageClass: settings.storage.databases },
      resources: resources("50m", "192Mi", "1Gi"),
      postgresql: { parameters: { max_connections: "100", shared_buffers: "128MB" } },
      bootstrap: {
        recovery: {
          source: "archive",
          database: database.name,
          owner: database.owner,
          secret: { name: "postgres-owner" },
          ...(which === "backup" ? { recoveryTarget: { backupID: backup, targetImmediate: true } } : {}),
        },
      },
      externalClusters: [
        {
          name: "archive",
          plugin: {
            name: "barman-cloud.cloudnative-pg.io",
            parameters: { barmanObjectName: "archive", serverName: archive },
          },
        },
      ],
    },
  };
}

/** Mastodon's environment on the site, bent to the restored database and to nothing else. */
export function drillEnvironment(site: Record<string, string>): Record<string, string> {
  const elsewhere = Object.entries(site).filter(([key]) => !/^(SIDEKIQ_|CACHE_)?REDIS_/.test(key));
  return {
    ...Object.fromEntries(elsewhere),
    DB_HOST: `${restored.newest}-rw`,
    DB_PORT: String(database.port),
    DB_NAME: database.name,
    REDIS_HOST: "valkey",
    REDIS_PORT: "6379",
    SMTP_DELIVERY_METHOD: "test",
  };
}

/** An empty Valkey, the report's Job and a web process, whose readiness is Mastodon's own health check. */
export function mastodonObjects(args: DrillArgs): KubernetesObject[] {
  const { settings, secrets, mediaWrittenBefore: before } = args;
  const job = {
    name: "report",
    command: ["bin/rails", "runner", "/homestead/drill.rb"],
    ...(before === undefined ? {} : { env: [{ name: "MEDIA_WRITTEN_BEFORE", value: before.toISOString() }] }),
  };
  return [
    { apiVersion: "v1", kind: "ConfigMap", metadata: meta("mastodon-env"), data: drillEnvironment(args.environment) },
    { apiVersion: "v1", kind: "ConfigMap", metadata: meta("script"), data: { "drill.rb": args.script } },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: meta("mastodon-env"),
      stringData: {
        SECRET_KEY_BASE: secrets.secretKeyBase ?? "",
        VAPID_PRIVATE_KEY: secrets.vapidPrivateKey ?? "",
        VAPID_PUBLIC_KEY: secrets.vapidPublicKey ?? "",
        ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY: secrets.activeRecordPrimaryKey ?? "",
        ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY: secrets.activeRecordDeterministicKey ?? "",
        ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT: secrets.activeRecordKeyDerivationSalt ?? "",
        DB_USER: database.owner,
        DB_PASS: secrets.databasePassword ?? "",
        // Mastodon wants to know some, and must not be able to touch an upload.
        AWS_ACCESS_KEY_ID: "drill",
        AWS_SECRET_ACCESS_KEY: "drill",
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: meta("valkey"),
      spec: { clusterIP: "None", selector: role("valkey"), ports: [{ port: 6379 }] },
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: meta("valkey", role("valkey")),
      spec: {
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        securityContext: restrictedPod(999),
        containers: [
          {
            name: "valkey",
            image: settings.images.valkey,
            // No password: only this namespace's Mastodon reaches it, and there is nothing in it.
            command: ["valkey-server", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--dir", "/data"],
            readinessProbe: { tcpSocket: { port: 6379 }, periodSeconds: 2 },
            resources: resources("10m", "16Mi", "128Mi"),
            securityContext: restrictedContainer,
            volumeMounts: [{ name: "data", mountPath: "/data" }],
          },
        ],
        volumes: [{ name: "data", emptyDir: { sizeLimit: "64Mi" } }],
      },
    },
    {
      apiVersion: "batch/v1",
      kind: "Job",
      metadata: meta("report"),
      spec: {
        backoffLimit: 2,
        activeDeadlineSeconds: 900,
        template: { metadata: { labels: { ...labels("drill"), ...role("mastodon") } }, spec: mastodonPod(args, job) },
      },
    },
  ];
}

/** Mastodon's web process on the restored database. */
export function webObject(args: DrillArgs): KubernetesObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: meta("web", role("mastodon")),
    spec: mastodonPod(args, {
      name: "web",
      command: ["bundle", "exec", "puma", "-C", "config/puma.rb"],
      env: [
        { name: "PORT", value: "3000" },
        { name: "WEB_CONCURRENCY", value: "0" },
        { name: "MAX_THREADS", value: "2" },
        { name: "MIN_THREADS", value: "2" },
      ],
      readinessProbe: { httpGet: { path: "/health", port: 3000 }, periodSeconds: 2, timeoutSeconds: 5 },
    }),
  };
}

function mastodonPod({ settings }: DrillArgs, container: Partial<k8s.V1Container> & { name: string }) {
  return {
    restartPolicy: "Never",
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: restrictedPod(991),
    containers: [
      {
        image: settings.images.mastodon,
        envFrom: [{ configMapRef: { name: "mastodon-env" } }, { secretRef: { name: "mastodon-env" } }],
        resources: resources("100m", "384Mi", "1280Mi"),
        securityContext: { ...restrictedContainer, readOnlyRootFilesystem: false },
        volumeMounts: [{ name: "script", mountPath: "/homestead", readOnly: true }],
        ...container,
      },
    ],
    volumes: [{ name: "script", configMap: { name: "script" } }],
  };
}
