/**
 * Kubernetes' own schemas and those of the custom resources we use, strict as the API server is with what kubectl and
 * Pulumi send: a field that a schema does not know is a fault, and so is a missing or wrongly typed one.
 */
import * as z from "zod";
import type { JsonObject } from "../../lib/plan/mask";
import { monitoringSchemas } from "./monitoring-schemas";

/** The generated validators (package family `kubernetes-models`), one class a kind. */
type Models = Record<string, { prototype: { validate(this: unknown): void } } | undefined>;

const packages: Record<string, () => Promise<Models>> = {
  v1: () => import("kubernetes-models/v1") as Promise<unknown> as Promise<Models>,
  "apps/v1": () => import("kubernetes-models/apps/v1") as Promise<unknown> as Promise<Models>,
  "batch/v1": () => import("kubernetes-models/batch/v1") as Promise<unknown> as Promise<Models>,
  "networking.k8s.io/v1": () => import("kubernetes-models/networking.k8s.io/v1") as Promise<unknown> as Promise<Models>,
  "policy/v1": () => import("kubernetes-models/policy/v1") as Promise<unknown> as Promise<Models>,
  "rbac.authorization.k8s.io/v1": () =>
    import("kubernetes-models/rbac.authorization.k8s.io/v1") as Promise<unknown> as Promise<Models>,
  "traefik.io/v1alpha1": () =>
    import("@kubernetes-models/traefik/traefik.io/v1alpha1") as Promise<unknown> as Promise<Models>,
  "cert-manager.io/v1": () =>
    import("@kubernetes-models/cert-manager/cert-manager.io/v1") as Promise<unknown> as Promise<Models>,
};

// No package has CloudNativePG's schemas: these hold the fields that we use, from its API reference.
const name = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
const quantity = z.string().regex(/^[0-9]+(m|Mi|Gi|Ti)?$/);
const metadata = z.strictObject({
  // Objects' names may have dots; only what becomes a host name may not.
  name: z.string().regex(/^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$/),
  namespace: name,
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
const resources = z.strictObject({
  requests: z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() }).optional(),
  limits: z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() }).optional(),
});
const secretKey = z.strictObject({ name, key: z.string() });
const plugin = z.strictObject({
  name: z.string(),
  enabled: z.boolean().optional(),
  isWALArchiver: z.boolean().optional(),
  parameters: z.record(z.string(), z.string()).optional(),
});
const owner = { database: z.string(), owner: z.string(), secret: z.strictObject({ name }) };

const cluster = z.strictObject({
  apiVersion: z.literal("postgresql.cnpg.io/v1"),
  kind: z.literal("Cluster"),
  metadata,
  spec: z.strictObject({
    description: z.string().optional(),
    instances: z.int().min(1),
    imageName: z.string().optional(),
    imagePullPolicy: z.enum(["Always", "IfNotPresent", "Never"]).optional(),
    enablePDB: z.boolean().optional(),
    enableSuperuserAccess: z.boolean().optional(),
    startDelay: z.int().optional(),
    stopDelay: z.int().optional(),
    livenessProbeTimeout: z.int().optional(),
    probes: z.unknown().optional(),
    storage: z.strictObject({ size: quantity, storageClass: z.string().optional() }),
    resources: resources.optional(),
    postgresql: z.strictObject({ parameters: z.record(z.string(), z.string()) }).optional(),
    bootstrap: z
      .xor([
        z.strictObject({
          initdb: z.strictObject({
            ...owner,
            encoding: z.string().optional(),
            localeCollate: z.string().optional(),
            localeCType: z.string().optional(),
          }),
        }),
        z.strictObject({
          recovery: z.strictObject({
            ...owner,
            source: z.string(),
            recoveryTarget: z.strictObject({ targetTime: z.string() }).optional(),
          }),
        }),
      ])
      .optional(),
    inheritedMetadata: z.strictObject({ annotations: z.record(z.string(), z.string()) }).optional(),
    plugins: z.array(plugin).optional(),
    externalClusters: z.array(z.strictObject({ name: z.string(), plugin })).optional(),
    replica: z
      .strictObject({
        self: z.string(),
        primary: z.string(),
        source: z.string(),
        promotionToken: z.string().optional(),
      })
      .optional(),
  }),
});

const scheduledBackup = z.strictObject({
  apiVersion: z.literal("postgresql.cnpg.io/v1"),
  kind: z.literal("ScheduledBackup"),
  metadata,
  spec: z.strictObject({
    // Seconds first: with the five fields of cron it would run once a minute for an hour.
    schedule: z.string().regex(/^\S+ \S+ \S+ \S+ \S+ \S+$/),
    immediate: z.boolean().optional(),
    suspend: z.boolean().optional(),
    backupOwnerReference: z.enum(["none", "self", "cluster"]).optional(),
    cluster: z.strictObject({ name }),
    method: z.enum(["barmanObjectStore", "volumeSnapshot", "plugin"]),
    pluginConfiguration: z
      .strictObject({ name: z.string(), parameters: z.record(z.string(), z.string()).optional() })
      .optional(),
  }),
});

const backup = z.strictObject({
  apiVersion: z.literal("postgresql.cnpg.io/v1"),
  kind: z.literal("Backup"),
  metadata,
  spec: z.strictObject({
    cluster: z.strictObject({ name }),
    method: z.enum(["barmanObjectStore", "volumeSnapshot", "plugin"]),
    pluginConfiguration: z
      .strictObject({ name: z.string(), parameters: z.record(z.string(), z.string()).optional() })
      .optional(),
    target: z.enum(["primary", "prefer-standby"]).optional(),
    online: z.boolean().optional(),
  }),
});

const compression = z.enum(["gzip", "bzip2", "snappy", "lz4", "xz", "zstd"]).optional();
const objectStore = z.strictObject({
  apiVersion: z.literal("barmancloud.cnpg.io/v1"),
  kind: z.literal("ObjectStore"),
  metadata,
  spec: z.strictObject({
    retentionPolicy: z
      .string()
      .regex(/^[1-9][0-9]*[dwm]$/)
      .optional(),
    configuration: z.strictObject({
      destinationPath: z.string().min(1),
      endpointURL: z.url().optional(),
      s3Credentials: z.strictObject({
        accessKeyId: secretKey,
        secretAccessKey: secretKey,
        region: secretKey.optional(),
      }),
      wal: z.strictObject({ compression, maxParallel: z.int().min(1).optional() }).optional(),
      data: z.strictObject({ compression: z.enum(["gzip", "bzip2", "snappy"]).optional() }).optional(),
    }),
    instanceSidecarConfiguration: z
      .strictObject({
        resources: resources.optional(),
        env: z.array(z.strictObject({ name: z.string(), value: z.string() })).optional(),
        logLevel: z.enum(["error", "warning", "info", "debug", "trace"]).optional(),
      })
      .optional(),
  }),
});

const ours: Record<string, z.ZodType | undefined> = {
  "postgresql.cnpg.io/v1 Cluster": cluster,
  "postgresql.cnpg.io/v1 ScheduledBackup": scheduledBackup,
  "postgresql.cnpg.io/v1 Backup": backup,
  "barmancloud.cnpg.io/v1 ObjectStore": objectStore,
  ...monitoringSchemas,
};

/** What is wrong with an object, one line a fault; none for a good one. */
export async function faultsOf(object: JsonObject): Promise<string[]> {
  const { apiVersion, kind } = object as { apiVersion: string; kind: string };
  const handWritten = ours[`${apiVersion} ${kind}`];
  if (handWritten) {
    const parsed = handWritten.safeParse(object);
    return parsed.success ? [] : z.prettifyError(parsed.error).split("\n");
  }
  const model = (await packages[apiVersion]?.())?.[kind];
  if (!model) return [`no schema for ${apiVersion} ${kind}: name its package in test/support/schemas.ts`];
  const seen = new Map<object, Set<string>>();
  const faults: string[] = [];
  try {
    model.prototype.validate.call(watched(object, seen));
  } catch (error) {
    faults.push((error as Error).message);
  }
  return [...faults, ...unseen(object, "", seen)];
}

/**
 * The generated validators let unknown fields pass, but they look only at those that they know: a field that was
 * never looked at is one that the schema does not have.
 */
function watched<T extends object>(value: T, seen: Map<object, Set<string>>): T {
  const fields = new Set<string>();
  seen.set(value, fields);
  return new Proxy(value, {
    get(target, key, receiver) {
      const field: unknown = Reflect.get(target, key, receiver);
      if (typeof key === "string") fields.add(key);
      return typeof field === "object" && field !== null ? watched(field, seen) : field;
    },
  });
}

function unseen(value: unknown, path: string, seen: Map<object, Set<string>>): string[] {
  if (typeof value !== "object" || value === null) return [];
  const fields = seen.get(value);
  return Object.entries(value).flatMap(([key, field]) => {
    const at = `${path}/${key}`;
    return fields?.has(key) ? unseen(field, at, seen) : [`${at} is no field of the schema`];
  });
}
