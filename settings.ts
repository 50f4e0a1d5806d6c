/**
 * Configuration -> {@link Settings}.
 *
 * Everything a stack says is read, defaulted and checked here, before any resource exists, and ALL faults of a
 * stack come out as one error. Components get plain values from here; none of them reads `pulumi.Config`.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { acmeSolver } from "./lib/acme-solver";
import { holds, houseRangeFault, machinesOwn, sentTo } from "./lib/address-ranges";
import { bytesIn, folderLimit, hasIndex } from "./lib/blog-folder";
import { identityFaults, identityFingerprint } from "./lib/identity";
import { allowed, object, oneOf } from "./lib/rules";
import { configInFile, qualify } from "./lib/stack-config";
import { inTrial, trialOrigins } from "./lib/try/mends";
import { images as publishedImages, charts as publishedCharts } from "./versions";
import type { ChartName, ChartReference, ImageName } from "./versions";

/** The two sites. `dev` is a third stack, for trying things out on any cluster; it is never a site of a pair. */
export const siteNames = ["home", "vps"] as const;
export type SiteName = (typeof siteNames)[number];
export const stackNames = [...siteNames, "dev"] as const;
export type StackName = (typeof stackNames)[number];

/**
 * Values that must be equal on both sites. They stand in `Pulumi.yaml`; a stack file of a site may not hold one,
 * since Pulumi would let it win without a word.
 */
export const sharedKeys = [
  "apex",
  "webHost",
  "owner",
  "ownerEmail",
  "activeSite",
  "epoch",
  "founder",
  "generations",
  "leaseGrace",
] as const;

/** Secrets every stack must hold, the same in every stack. The first group is the identity of the server. */
export const identityKeys = [
  "secretKeyBase",
  "vapidPrivateKey",
  "vapidPublicKey",
  "activeRecordPrimaryKey",
  "activeRecordDeterministicKey",
  "activeRecordKeyDerivationSalt",
] as const;
/** What `identity create` makes; the buckets' keys come from whoever runs the buckets. */
export const createdSecrets = [...identityKeys, "databasePassword", "ownerPassword"] as const;
export const requiredSecrets = [
  ...createdSecrets,
  "vaultAccessKeyId",
  "vaultSecretAccessKey",
  "mediaAccessKeyId",
  "mediaSecretAccessKey",
] as const;
/** Secrets a stack may hold. They are not declared in `Pulumi.yaml`: a declared secret is a required one. */
export const optionalSecrets = ["smtpPassword", "dnsKey", "acmeSolverKey"] as const;
/** What is a secret inside of an object, where it is encrypted by its path. */
export const secretPaths: readonly string[] = ["monitoring.notify"];
/** The Secret that `acmeSolverKey` becomes, under the key `key`: what a solver's reference names. */
export const acmeSolverSecret = "acme-solver";
export type SecretKey = (typeof requiredSecrets)[number] | (typeof optionalSecrets)[number];

// ---------------------------------------------------------------- building blocks

const hostName = z
  .string(allowed("a host name such as ramble.moe"))
  .regex(
    /^(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/,
    "a lower-case host name such as ramble.moe, without scheme, port or path",
  );
/** Of the calendar and of the clock: Postgres would refuse any other when the old database is gone. */
const isMoment = (text: string): boolean => z.iso.datetime({ offset: true }).safeParse(text).success;
/** A URL that looks like one and is one: the expressions let `https://[` and a port of 99999 through. */
const urlLike = (whatever: string, expression: RegExp, what: string) =>
  z
    .string(allowed(whatever))
    .regex(expression, { error: what, abort: true })
    .refine((text) => URL.canParse(text), what);
const httpUrl = urlLike(
  "a URL such as https://s3.example.net",
  /^https?:\/\/[A-Za-z0-9.[\]:-]+(\/[^?#\s]*)?$/,
  "a URL such as https://s3.example.net, without query",
);
const kubeName = z
  .string(allowed("a Kubernetes name"))
  .regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, "a Kubernetes name: lower-case letters, digits, - and .");
const label = z
  .string(allowed("a Kubernetes name of at most 63 characters"))
  .regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "at most 63 lower-case letters, digits and -");
// S3's own rule. A two-letter name fails late and only in a sidecar's log, hence here.
const bucketName = z
  .string(allowed("a bucket name"))
  .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, "3 to 63 lower-case letters, digits, . and -");
const quantity = z
  .string(allowed("a Kubernetes quantity such as 10Gi"))
  .regex(/^[1-9][0-9]*(Mi|Gi|Ti)$/, "a Kubernetes quantity such as 10Gi");
const ipAddress = z
  .string(allowed("an IP address or a host name"))
  .refine((v) => net.isIP(v) !== 0 || hostName.safeParse(v).success, "an IP address or a host name");
/** What Kubernetes takes as a label's key, and as its value (kubernetes.io, "Labels and Selectors"). */
const labelText = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
/** A label's key may have one before its name. */
const dnsSubdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
function isLabelKey(key: string): boolean {
  const [prefix, text] = key.includes("/") ? key.split(/\/(.*)/s) : [undefined, key];
  const prefixed = prefix === undefined || (prefix.length <= 253 && dnsSubdomain.test(prefix));
  return prefixed && labelText.test(text ?? "");
}
/** Labels that the API server would refuse, when the namespace is there already. */
const labelsOf = (what: string) =>
  z.record(
    z.string().refine(isLabelKey),
    z
      .string(allowed("a label's value"))
      .refine(
        (value) => value === "" || labelText.test(value),
        "a label's value: at most 63 letters, digits, -, _ and ., the first and the last a letter or a digit",
      ),
    {
      error: (issue) =>
        issue.code === "invalid_key"
          ? `${what}, whose keys are at most 63 letters, digits, -, _ and ., behind a host name and / or alone`
          : what,
    },
  );
/** One certificate or several, and each can be read. */
function isPem(text: string): boolean {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs) ?? [];
  try {
    return blocks.length > 0 && blocks.every((block) => new crypto.X509Certificate(block).raw.length > 0);
  } catch {
    return false;
  }
}
/** What they hold is not ours to shut in, nor to give away; the last two a doctor and a drill make, and delete again. */
const othersNamespaces = [
  ...["default", "kube-system", "kube-public", "kube-node-lease", "cert-manager", "cnpg-system"],
  ...["homestead-doctor", "homestead-drill"],
];
/** A range that a part may reach beside the internet. */
const houseRange = z
  .string(allowed("an address range such as 192.168.1.0/24"))
  .refine((v) => z.cidrv4().safeParse(v).success || z.cidrv6().safeParse(v).success, {
    error: "an address range such as 192.168.1.0/24",
    abort: true,
  })
  .refine((v) => houseRangeFault(v) === undefined, { error: ({ input }) => houseRangeFault(String(input)) });
const imageForm = "host/path:tag[@sha256:digest]";
const imageReference = z
  .string(allowed("an image reference"))
  .regex(/^[a-z0-9.-]+(:\d+)?(\/[a-z0-9._-]+)+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?$/, {
    error: imageForm,
    abort: true,
  })
  .refine(
    (reference) => !reference.endsWith(":latest"),
    `a tag that is not latest, which is another image tomorrow and on another node, or a digest beside it: ${imageForm}`,
  );
/** Helm takes a range for one too, and then an update that changes nothing brings another chart. */
const chartVersion = z
  .string(allowed("a chart version"))
  .regex(/^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/, "an exact version such as 1.0.2 or v1.21.1");
/** How Mastodon signs in to a mail server. */
const mailMechanisms = ["plain", "login", "cram_md5"] as const;
const positive = (what: string) => z.int(allowed(what)).positive(what);
/** An object with any of the given names as its keys. */
const byName = <const Name extends string, T extends z.ZodType>(names: readonly Name[], value: T, what: string) =>
  z.partialRecord(z.enum(names), value, {
    error: (issue: { code: string }) => (issue.code === "unrecognized_keys" ? `one of ${names.join(", ")}` : what),
  });

const oldClusters =
  "the UID of the cluster that the site had and that is off, as the lease names it (npx homestead status)";
const promotionTokens =
  "the demotion token of the other site (pulumi stack output demotionToken), or lost (it cannot be reached), or dead (it is powered off)";

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

// ---------------------------------------------------------------- the schema, one entry a key

const bucket = object({
  endpoint: httpUrl,
  region: z.string(allowed("a region such as us-east-1")).min(1).default("us-east-1"),
  bucket: bucketName,
});

const mediaBucket = object({
  kind: z.literal("bucket").default("bucket"),
  ...bucket.shape,
  publicUrl: httpUrl.optional(),
});
const mediaVolume = object({ kind: z.literal("volume") });
/** A bucket's object may leave its kind out. */
const mediaForms = z.preprocess(
  (value) => (isPlainObject(value) && !("kind" in value) ? { kind: "bucket", ...value } : value),
  z.discriminatedUnion("kind", [mediaBucket, mediaVolume], {
    error: () => "an object with endpoint, region, bucket, publicUrl, or {kind: volume}",
  }),
);

const certificatesInPem =
  "certificates in PEM, of the authority that signs for the issuer (-----BEGIN CERTIFICATE----- ...)";

/** What the CLI makes of a moment that stands in the file without quotes: YAML takes it for a timestamp. */
const timestamp = /^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d+)?) ([+-]\d{2})(\d{2}) \S+$/;
const moment = z.preprocess(
  // CloudNativePG takes a blank for the T with a numeric zone only, not with a Z.
  (value) =>
    typeof value === "string"
      ? value
          .replace(/ \+0000 UTC$/, "Z")
          .replace(timestamp, "$1T$2$3:$4")
          .replace(" ", "T")
      : value,
  z
    .string(allowed("a moment such as 2026-11-22T10:00:00Z"))
    // Postgres reads a moment without a zone as the server's own time, which is nobody's intention.
    .regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/, {
      error: "a moment with its zone, such as 2026-11-22T10:00:00Z",
      abort: true,
    })
    .refine(isMoment, "a moment that there is, with its zone, such as 2026-11-22T10:00:00Z"),
);

export const schema = {
  // Shared by both sites (Pulumi.yaml).
  apex: hostName,
  webHost: hostName,
  owner: z
    .string(allowed("a Mastodon user name"))
    .regex(/^[A-Za-z0-9_]{1,30}$/, "1 to 30 letters, digits and _ (Mastodon's rule for user names)"),
  ownerEmail: z.string(allowed("an e-mail address")).regex(/^[^@\s]+@[^@\s]+\.[^@\s]+$/, "an e-mail address"),
  activeSite: oneOf(stackNames),
  epoch: positive("a whole number of 1 or more"),
  founder: oneOf(stackNames),
  generations: byName(stackNames, positive("a whole number of 1 or more"), "an object such as {home: 1, vps: 1}"),
  leaseGrace: z
    .int(allowed("seconds, 30 to 86400"))
    .min(30, "seconds, 30 to 86400")
    .max(86_400, "seconds, 30 to 86400")
    .default(600),

  // One stack's own.
  cluster: object({
    context: z
      .string(allowed("the name of a context in your kubeconfig"))
      .min(1, "the name of a context in your kubeconfig"),
    kubeconfig: z.string(allowed("a path")).min(1, "a path").optional(),
    uid: z
      .string(allowed("the UID of the cluster's kube-system namespace"))
      .regex(/^[0-9a-f-]{36}$/, "the UID of the cluster's kube-system namespace")
      .optional(),
  }),
  namespace: label
    .refine(
      (name) => !othersNamespaces.includes(name),
      `a namespace of its own, none of ${othersNamespaces.join(", ")}`,
    )
    .default("homestead"),
  standby: oneOf(["warm", "cold"]).default("warm"),
  maintenance: oneOf(["off", "web", "all"]).default("off"),
  promotionToken: z.preprocess(
    // What Pulumi.yaml declares as its default, since a declared key without one would be required.
    (value) => (value === "" ? undefined : value),
    z
      .string(allowed(promotionTokens))
      .regex(/^(lost|dead|[A-Za-z0-9+/]{40,}={0,2})$/, promotionTokens)
      .optional(),
  ),
  storage: object({
    kind: oneOf(["nfs", "local"]),
    databases: kubeName,
    media: kubeName.optional(),
  }),
  sizes: object({
    // Its log alone may take 1 GB (max_wal_size, components/postgres.ts).
    database: quantity
      .refine((text) => !text.endsWith("Mi") || parseInt(text, 10) >= 1024, "1Gi or more")
      .default("10Gi"),
    queue: quantity.default("2Gi"),
    objectStore: quantity.default("10Gi"),
    media: quantity.default("50Gi"),
  }).prefault({}),
  objectStore: oneOf(["external", "embedded"]).default("external"),
  vault: bucket,
  media: mediaForms,
  ingress: object({
    address: ipAddress,
    namespace: label.default("kube-system"),
    labels: labelsOf("labels of the Traefik pods")
      // None would let in every pod of the namespace.
      .refine((labels) => Object.keys(labels).length > 0, "labels of the Traefik pods, one at least")
      .default({ "app.kubernetes.io/name": "traefik" }),
    proxies: z.int(allowed("a number of proxies, 0 to 5")).min(0, "0 to 5").max(5, "0 to 5").default(0),
  }),
  certificates: z.discriminatedUnion(
    "kind",
    [
      object({
        kind: z.literal("issuer"),
        name: kubeName,
        issuerKind: oneOf(["ClusterIssuer", "Issuer"]).default("ClusterIssuer"),
        ca: z.string(allowed(certificatesInPem)).refine(isPem, certificatesInPem).optional(),
      }),
      object({
        kind: z.literal("acme"),
        email: z.string(allowed("an e-mail address")).regex(/^[^@\s]+@[^@\s]+$/, "an e-mail address"),
        server: httpUrl.default("https://acme-v02.api.letsencrypt.org/directory"),
        solver: acmeSolver.optional(),
      }),
      object({ kind: z.literal("selfSigned") }),
    ],
    { error: () => "an object whose kind is issuer, acme or selfSigned" },
  ),
  blog: z
    .discriminatedUnion(
      "kind",
      [
        object({ kind: z.literal("folder"), path: z.string(allowed("a folder")).min(1, "a folder") }),
        object({
          kind: z.literal("image"),
          image: imageReference,
          port: positive("a port").max(65535, "a port").default(8080),
        }),
      ],
      { error: () => "an object whose kind is folder or image" },
    )
    .prefault({ kind: "folder", path: "blog" }),
  dns: z
    .discriminatedUnion(
      "kind",
      [
        object({ kind: z.literal("manual") }),
        object({
          kind: z.literal("command"),
          command: z.string(allowed("a shell command")).min(1, "a shell command"),
          ttl: positive("seconds").default(60),
        }),
        object({
          kind: z.literal("rfc2136"),
          server: ipAddress,
          port: positive("a port").max(65535, "a port").default(53),
          zone: hostName,
          keyName: z
            .string(allowed("the name of a TSIG key"))
            .regex(/^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$/, "the name of a TSIG key, such as homestead"),
          algorithm: oneOf(["hmac-sha256", "hmac-sha512"]).default("hmac-sha256"),
          ttl: positive("seconds").default(60),
        }),
      ],
      { error: () => "an object whose kind is manual, command or rfc2136" },
    )
    .prefault({ kind: "manual" }),
  smtp: z
    .discriminatedUnion(
      "kind",
      [
        object({ kind: z.literal("none") }),
        object({
          kind: z.literal("server"),
          host: ipAddress,
          port: positive("a port").max(65535, "a port").default(587),
          from: z.string(allowed("an e-mail address")).regex(/^[^@\s]+@[^@\s]+$/, "an e-mail address"),
          tls: oneOf(["starttls", "tls", "none"]).default("starttls"),
          auth: oneOf(["none", ...mailMechanisms]).default("none"),
          username: z.string(allowed("a user name")).optional(),
        }),
      ],
      { error: () => "an object whose kind is none or server" },
    )
    .prefault({ kind: "none" }),
  search: z
    .discriminatedUnion(
      "kind",
      [
        object({ kind: z.literal("off") }),
        object({ kind: z.literal("elasticsearch"), size: quantity.default("10Gi") }),
      ],
      { error: () => "an object whose kind is off or elasticsearch" },
    )
    .prefault({ kind: "off" }),
  registrations: oneOf(["single", "approval", "invitation"]).default("single"),
  locale: z
    .string(allowed("a language tag"))
    .regex(/^[a-z]{2,3}(-[A-Z]{2})?$/, "a language tag such as en or pt-BR")
    .default("en"),
  operators: object({
    certManager: oneOf(["install", "existing"]).default("install"),
    cloudNativePg: oneOf(["install", "existing"]).default("install"),
    barmanPlugin: oneOf(["install", "existing"]).default("install"),
  }).prefault({}),
  network: object({
    families: z
      .array(oneOf(["IPv4", "IPv6"]), allowed("a list of IPv4 and IPv6"))
      .min(1, "a list of IPv4 and IPv6")
      .default(["IPv4"]),
    privateEgress: z.array(houseRange, allowed("a list of address ranges")).default([]),
    // Apart: Mastodon asks whoever a stranger's post names, and has no business with the vault.
    mastodonPrivateEgress: z.array(houseRange, allowed("a list of address ranges")).default([]),
  }).prefault({}),
  verification: object({
    from: oneOf(["here", "cluster"]).default("here"),
    // Behind a router that does not turn back to its own address, the world's way in is closed from within.
    address: ipAddress.optional(),
  }).prefault({}),
  monitoring: z
    .discriminatedUnion(
      "kind",
      [
        object({ kind: z.literal("off") }),
        object({
          kind: z.literal("rules"),
          labels: labelsOf("labels such as {release: prometheus}").default({}),
          namespace: label.default("monitoring"),
          // A secret (`secretPaths`): who has it reads the alerts, and writes some. With a query, unlike other addresses: ntfy
          // wants to be told there whose alerts it reads.
          notify: urlLike(
            "the URL of a webhook",
            /^https?:\/\/[A-Za-z0-9.[\]:-]+(\/[^#\s]*)?$/,
            "the URL of a webhook, http:// or https://",
          ).optional(),
        }),
      ],
      { error: () => "an object whose kind is off or rules" },
    )
    .prefault({ kind: "rules" }),
  restore: object({
    to: moment.optional(),
    from: z
      .string(allowed("an archive's name such as home-g1"))
      .regex(/^(home|vps|dev)-g[1-9][0-9]*$/, "an archive's name such as home-g1")
      .optional(),
    // Of one cluster: a word about whichever the site had would be believed of the next one, too.
    oldCluster: z
      .string(allowed(oldClusters))
      .regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, oldClusters)
      .optional(),
  }).prefault({}),
  archiveInterval: positive("seconds, 1 to 3600").max(3600, "seconds, 1 to 3600").default(15),
  images: byName(Object.keys(publishedImages) as ImageName[], imageReference, "an object of image references").default(
    {},
  ),
  charts: byName(
    Object.keys(publishedCharts) as ChartName[],
    object({
      repository: httpUrl.optional(),
      version: chartVersion.optional(),
      path: z.string(allowed("a folder")).optional(),
    }),
    "an object of chart references",
  ).default({}),
} as const satisfies Record<string, z.ZodType>;

export type ConfigKey = keyof typeof schema;
/** Every key of the project's configuration, secrets apart. `Pulumi.yaml` and the README's table must list the same. */
export const configKeys = Object.keys(schema) as ConfigKey[];

const all = z.object(schema);
type Parsed = z.output<typeof all>;

type DnsCommand = Extract<Parsed["dns"], { kind: "command" }>;

/** Active: federates. Standby: its databases follow, Mastodon has no replicas. Computed once, here. */
export type Role = "active" | "standby";

/** How a site's database begins (design, decision 3). */
export type Beginning =
  | { kind: "initdb" }
  /** `archive` is the server name of the archive recovered from, such as `home-g1`; `site` owns it. `to` is a moment. */
  | { kind: "recovery"; site: StackName; archive: string; to?: string };

/** A stack's decisions as plain values. Only what is secret is an output, so that it stays marked so. */
export interface Settings extends Omit<Parsed, "images" | "charts" | "dns"> {
  /** The stack's name, which is the site's name. */
  site: StackName;
  role: Role;
  /** How often this site's database was begun; part of its archive's name. */
  generation: number;
  /** How this site's database begins if its cluster is empty. */
  beginning: Beginning;
  /** What fences this site: the lease in the vault, or nothing, where the vault is inside the cluster itself. */
  lease: "vault" | "none";
  /** The other site of the pair; none for `dev`. */
  otherSite?: SiteName;
  /** Every image, as published or as the stack overrides it. */
  images: Record<ImageName, string>;
  /** Every chart, as published or as the stack overrides it. */
  charts: Record<ChartName, ChartReference>;
  /** Who changes DNS. A command that the stack holds encrypted is an output, marked as secret. */
  dns: Exclude<Parsed["dns"], DnsCommand> | (Omit<DnsCommand, "command"> & { command: pulumi.Input<string> });
  secrets: Record<(typeof requiredSecrets)[number], pulumi.Output<string>> &
    Partial<Record<(typeof optionalSecrets)[number], pulumi.Output<string>>>;
  /** First 16 hex digits of a SHA-256 over the identity; says nothing about it, but tells two identities apart. */
  fingerprint: string;
}

// ---------------------------------------------------------------- faults

/** One thing that is wrong with a stack's configuration. */
export interface Fault {
  /** The key, with its path inside an object: `homestead:vault.bucket`. */
  key: string;
  /** The offending value as it stands; secrets are never shown. */
  value: string;
  /** What would be accepted. */
  allowed: string;
  /** How to mend it: a command where there is one. */
  mend: string;
}

/** All faults of one stack, as one error without a stack trace. */
export class SettingsError extends pulumi.RunError {
  constructor(
    readonly site: string,
    readonly faults: Fault[],
  ) {
    const origins = trialOrigins();
    super(formatFaults(site, origins === undefined ? faults : faults.map((fault) => inTrial(fault, origins))));
  }
}

/** The text a person sees: one paragraph a fault. */
export function formatFaults(stack: string, faults: Fault[]): string {
  const lines = faults.map((f) => `  ${f.key}: ${f.value}\n    allowed: ${f.allowed}\n    mend:    ${f.mend}`);
  const n = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return `${n} in the configuration of stack '${stack}'; nothing was changed.\n${lines.join("\n")}`;
}

const show = (value: unknown): string => {
  const text = value === undefined ? "(not set)" : JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
};

const isShared = (key: string) => (sharedKeys as readonly string[]).includes(key.split(/[.[]/)[0] ?? "");

const setCommand = (stack: string, key: string, secret = secretPaths.includes(key)): string => {
  if (isShared(key)) return `edit ${key} in Pulumi.yaml`;
  const nested = /[.[]/.test(key) ? "--path " : "";
  return `pulumi config set ${secret ? "--secret " : ""}${nested}'homestead:${key}' ${secret ? "" : "<value> "}--stack ${stack}`;
};

const removeCommand = (stack: string, key: string): string =>
  isShared(key) ? `remove ${key} from Pulumi.yaml` : `pulumi config rm --path 'homestead:${key}' --stack ${stack}`;

/** How many letters are to be put in, left out or changed to make one of the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    }
    row = next;
  }
  return row[b.length] ?? Infinity;
}

/** The nearest known key, for a misspelt one. */
export function nearest(key: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((k) => ({ k, d: distance(key.toLowerCase(), k.toLowerCase()) }))
    .sort((x, y) => x.d - y.d)[0];
  return ranked && ranked.d <= Math.max(2, Math.floor(key.length / 3)) ? ranked.k : undefined;
}

// ---------------------------------------------------------------- reading

/** What {@link parseSettings} needs to know of the world; tests give it, the program reads it from Pulumi. */
export interface RawConfiguration {
  stack: string;
  /** `project:key` -> text, as `pulumi.runtime.allConfig()` gives it. */
  config: Record<string, string>;
  /** Keys of `config` that the stack holds encrypted; their values are never shown. */
  secretKeys?: readonly string[];
  /** Stack file name -> its parsed `config:` section, for the rules that concern files. */
  stackFiles?: Record<string, Record<string, unknown>>;
  /** Folder that relative paths (blog, charts) start from. */
  folder?: string;
}

/**
 * The stack files of a folder, as the rules about files want them: stack -> its `config:` section.
 *
 * @throws StackConfigError if one is no such file, the other site's too
 */
export function readStackFiles(folder: string): Record<string, Record<string, unknown>> {
  const stackFiles: Record<string, Record<string, unknown>> = {};
  for (const stack of stackNames) {
    const config = configInFile(folder, stack);
    if (config !== undefined) stackFiles[stack] = config;
  }
  return stackFiles;
}

/** Reads the running stack's configuration. @throws SettingsError with all faults. */
export function readSettings(): Settings {
  const folder = __dirname;
  const config = pulumi.runtime.allConfig();
  // Not in the SDK's declarations. Should it go away, every value counts as secret.
  const { isConfigSecret } = pulumi.runtime as { isConfigSecret?: (key: string) => boolean };
  return parseSettings({
    stack: pulumi.getStack(),
    config,
    secretKeys: Object.keys(config).filter((key) => isConfigSecret?.(key) ?? true),
    stackFiles: readStackFiles(folder),
    folder,
  });
}

/** The buckets' keys in clear, for the checks that ask the stores before any resource exists. */
export function bucketKeys(): Record<"vault" | "media", { accessKeyId: string; secretAccessKey: string }> {
  const config = pulumi.runtime.allConfig();
  const keys = (name: string) => ({
    accessKeyId: config[`homestead:${name}AccessKeyId`] ?? "",
    secretAccessKey: config[`homestead:${name}SecretAccessKey`] ?? "",
  });
  return { vault: keys("vault"), media: keys("media") };
}

/** Parses, defaults and checks. @throws SettingsError with all faults at once. */
export function parseSettings(raw: RawConfiguration): Settings {
  const faults: Fault[] = [];
  const { stack } = raw;
  // A key can be set as a secret that need not be one, or be a misspelt secret.
  const shown = (key: string, value: unknown) =>
    value === "[secret]" ||
    (secretPaths.includes(key) && value !== undefined) ||
    (value !== undefined && raw.secretKeys?.includes(`homestead:${key.split(/[.[]/)[0] ?? ""}`))
      ? "[secret]"
      : show(value);
  const fault = (key: string, value: unknown, what: string, mend?: string) =>
    faults.push({
      key: key.startsWith("kubernetes:") || isOfAlike(key) ? key : `homestead:${key}`,
      value: shown(key, value),
      allowed: what,
      mend: mend ?? setCommand(stack, key),
    });

  if (!(stackNames as readonly string[]).includes(stack)) {
    faults.push({
      key: "stack",
      value: show(stack),
      allowed: `one of ${stackNames.join(", ")}`,
      mend: "pulumi stack select home",
    });
    throw new SettingsError(stack, faults);
  }
  const site = stack as StackName;

  const { values, secrets } = collect(raw, fault);
  values.restore = asWritten(raw, values.restore);
  clearFaults(raw, values, fault);
  const parsed = all.safeParse(values);
  if (!parsed.success) for (const issue of parsed.error.issues) report(stack, issue, values, fault);

  for (const key of requiredSecrets) {
    if (!secrets[key]) fault(key, undefined, "a secret", secretMend(stack, key, secrets));
  }
  for (const f of identityFaults(secrets)) fault(f.key, "[secret]", f.allowed, secretMend(stack, f.key, secrets));
  fileFaults(raw, fault);

  // Of what is written, so that a misspelt site beside it does not hide it.
  if (site !== "dev" && isPlainObject(values.generations))
    for (const name of siteNames)
      if (values.generations[name] === undefined)
        fault(`generations.${name}`, undefined, "a whole number of 1 or more");
  const some = parsed.success ? parsed.data : readable(values);
  ruleFaults(site, some, secrets, fault, raw.folder ?? __dirname);
  // Of what is written as well: a fault elsewhere in such an object leaves it out of what is readable.
  if (isPlainObject(values.smtp)) mailFaults(site, values.smtp, secrets, fault);
  if (isPlainObject(values.dns)) rfc2136Faults(site, some, values.dns, secrets, fault);
  if (isPlainObject(values.certificates)) solverKeyMissing(site, values.certificates, secrets, fault);
  if (parsed.success && faults.length === 0) {
    return decide(site, parsed.data, secrets, raw.secretKeys?.includes("homestead:dns") ?? false);
  }
  throw new SettingsError(stack, faults);
}

type Report = (key: string, value: unknown, what: string, mend?: string) => void;

/** `identity create` refuses where one of its secrets is set: it is offered where none is. */
function secretMend(stack: string, key: string, secrets: Partial<Record<SecretKey, string>>): string {
  if (!(createdSecrets as readonly string[]).includes(key)) return setCommand(stack, key, true);
  const other = siteNames.find((name) => stack !== "dev" && name !== stack) ?? "<other>";
  if (createdSecrets.every((name) => !secrets[name]))
    return `\`npx homestead identity create\` (a new server), or \`npx homestead identity copy ${other} ${stack}\``;
  return `pulumi config get homestead:${key} --stack ${other} | pulumi config set --secret homestead:${key} --stack ${stack}`;
}

/** The keys that are right by themselves, so that a fault elsewhere does not hide what is wrong between them. */
function readable(values: Record<string, unknown>): Partial<Parsed> {
  const each = configKeys.map((key) => [key, schema[key].safeParse(values[key])] as const);
  return Object.fromEntries(each.flatMap(([key, result]) => (result.success ? [[key, result.data]] : [])));
}

/** A key of a project whose name is ours but for a letter or two: the CLI takes it, and nobody reads it. */
const isOfAlike = (key: string): boolean => {
  const [project] = key.split(":");
  return project !== undefined && project !== key && project !== "homestead" && distance(project, "homestead") <= 2;
};

/** Splits the raw texts into plain values (JSON where the schema wants structure) and secrets; names unknown keys. */
function collect(raw: RawConfiguration, fault: Report) {
  const values: Record<string, unknown> = {};
  const secrets: Partial<Record<SecretKey, string>> = {};
  const secretNames: readonly string[] = [...requiredSecrets, ...optionalSecrets];
  const known = [...configKeys, ...secretNames];
  const isNearSecret = (key: string) => secretNames.includes(nearest(key, known) ?? "");
  const own = ownFile(raw, raw.stack);
  for (const [full, text] of Object.entries(raw.config)) {
    const [project, key = ""] = full.split(/:(.*)/s);
    const remove =
      own && !(full in own)
        ? `rename or remove ${project === "homestead" ? key : full} in Pulumi.yaml`
        : `pulumi config rm '${full}' --stack ${raw.stack}`;
    if (isOfAlike(full)) {
      const value = raw.secretKeys?.includes(full) || isNearSecret(key) ? "[secret]" : text;
      fault(full, value, `a key of this project; did you mean homestead:${key}?`, remove);
    }
    if (project !== "homestead") continue;
    if (secretNames.includes(key)) {
      secrets[key as SecretKey] = text;
      // The CLI itself sees to those that Pulumi.yaml declares.
      const optional = (optionalSecrets as readonly string[]).includes(key);
      if (optional && raw.secretKeys !== undefined && !raw.secretKeys.includes(full))
        fault(key, "[secret]", notInClear, setCommand(raw.stack, key, true));
    } else if ((configKeys as string[]).includes(key)) values[key] = fromText(text, schema[key as ConfigKey]);
    else {
      const near = nearest(key, known);
      const value = isNearSecret(key) ? "[secret]" : text;
      fault(
        key,
        value,
        `a key of this project${near ? `; did you mean ${near}?` : " (README, Configuration)"}`,
        remove,
      );
    }
  }
  return { values, secrets };
}

/** Why a secret may not stand in a stack's file. */
const notInClear = "a secret that the stack holds encrypted: in clear, whoever sees the file has it";

/** Secrets inside of an object that stand there in clear. A trial's file is its own, and nobody commits it. */
function clearFaults(raw: RawConfiguration, values: Record<string, unknown>, fault: Report): void {
  if (raw.secretKeys === undefined || trialOrigins() !== undefined) return;
  const at = (object: unknown, parts: string[]) =>
    parts.reduce<unknown>((inner, part) => (isPlainObject(inner) ? inner[part] : undefined), object);
  for (const path of secretPaths) {
    const [key = "", ...parts] = path.split(".");
    const encrypted = raw.secretKeys.includes(`homestead:${key}`);
    // The CLI calls the whole object secret, whatever in it is.
    const written = at(ownFile(raw, raw.stack)?.[`homestead:${key}`], parts);
    if (at(values[key], parts) !== undefined && (!encrypted || typeof written === "string"))
      fault(path, "[secret]", notInClear);
  }
}

/** Pulumi hands every value over as text. Text that the schema would take as it is stays text. */
function fromText(text: string, rule: z.ZodType): unknown {
  if (rule.safeParse(text).success) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** A stack's own file, its keys with their project: `apex: …` in a file is `homestead:apex` to the CLI. */
const ownFile = (raw: RawConfiguration, stack: string): Record<string, unknown> | undefined => {
  const entries = raw.stackFiles?.[stack];
  return entries && Object.fromEntries(Object.entries(entries).map(([key, v]) => [qualify(key, "homestead"), v]));
};

/** The CLI takes a timestamp without a zone for one of UTC, so it is refused as it stands in the file. */
function asWritten(raw: RawConfiguration, restore: unknown): unknown {
  const written = ownFile(raw, raw.stack)?.["homestead:restore"];
  if (!isPlainObject(restore) || !isPlainObject(written) || typeof written.to !== "string") return restore;
  const read = typeof restore.to === "string" && timestamp.test(restore.to);
  return read && !moment.safeParse(written.to).success ? { ...restore, to: written.to } : restore;
}

/** Characters of a key that a message shows; Kubernetes' own, a label's with its prefix, have no more (253 + 1 + 63). */
const longestName = 317;

/** Turns one of zod's issues into one of ours. */
function report(stack: string, issue: z.core.$ZodIssue, values: Record<string, unknown>, fault: Report): void {
  const where = (parts: PropertyKey[]) =>
    parts
      .map((p, i) => {
        if (typeof p === "number") return `[${p}]`;
        // A label's key is the user's own text, and may be a file that went astray.
        if (typeof p === "string" && p.length > longestName) return `${i ? "." : ""}${p.slice(0, longestName)}...`;
        // As `--path` wants it: a label's key has dots of its own.
        return i > 0 && /[.[\]]/.test(String(p)) ? `[${JSON.stringify(p)}]` : `${i ? "." : ""}${String(p)}`;
      })
      .join("");
  const at = (parts: PropertyKey[]) =>
    parts.reduce<unknown>((v, p) => (v as Record<PropertyKey, unknown> | undefined)?.[p], values);
  if (issue.code === "unrecognized_keys") {
    for (const key of issue.keys) {
      const path = [...issue.path, key];
      fault(where(path), at(path), issue.message, removeCommand(stack, where(path)));
    }
    return;
  }
  const key = where(issue.path);
  const value = at(issue.path);
  if (issue.code === "invalid_key") return fault(key, value, issue.message, removeCommand(stack, key));
  const [first, last] = [issue.path[0] as ConfigKey, issue.path.at(-1)];
  const whole = last === "kind" && value === undefined && schema[first].safeParse(undefined).success;
  const what = `${issue.message}${whole ? "; what a stack sets takes the place of the whole default" : ""}`;
  fault(key, value, what, mendFor(stack, key, value, issue));
}

/** A required object begins with this leaf. */
const firstLeaves: Partial<Record<string, string>> = {
  cluster: "context",
  storage: "kind",
  vault: "endpoint",
  media: "endpoint",
  ingress: "address",
  certificates: "kind",
};

/** What `config set` can do: it writes leaves, and takes digits, true and false for no text unless it is told. */
function mendFor(stack: string, key: string, value: unknown, issue: z.core.$ZodIssue): string {
  const leaf = firstLeaves[key];
  if (leaf !== undefined && value === undefined) return setCommand(stack, `${key}.${leaf}`);
  const expected = issue.code === "invalid_type" ? issue.expected : undefined;
  const noLeaf =
    (expected !== undefined && ["object", "record", "array"].includes(expected)) ||
    (issue.code === "invalid_union" && issue.path.at(-1) !== "kind") ||
    typeof value === "object";
  if (!isShared(key) && noLeaf) return `edit ${key} in Pulumi.${stack}.yaml`;
  const command = setCommand(stack, key);
  return expected === "string" && value !== undefined ? command.replace("--path ", "--path --type string ") : command;
}

/** Rules about the stack files themselves: shared values, strict mode, one cluster named by two stacks, or two vaults. */
function fileFaults(raw: RawConfiguration, fault: Report): void {
  const files = Object.fromEntries(stackNames.map((stack) => [stack, ownFile(raw, stack)]));
  for (const site of siteNames) {
    for (const key of sharedKeys) {
      const value = files[site]?.[`homestead:${key}`];
      if (value !== undefined) {
        fault(
          key,
          value,
          `nothing in Pulumi.${site}.yaml: both sites must agree on it, so it stands in Pulumi.yaml only`,
          `pulumi config rm 'homestead:${key}' --stack ${site}`,
        );
      }
    }
  }
  const own = files[raw.stack];
  if (!own) return;
  if (String(own["kubernetes:strictMode"]) !== "true") {
    fault(
      "kubernetes:strictMode",
      own["kubernetes:strictMode"],
      '"true": nothing may ever go to a default cluster',
      `pulumi config set kubernetes:strictMode true --stack ${raw.stack}`,
    );
  }
  const cluster = (name: string) =>
    files[name]?.["homestead:cluster"] as { context?: string; kubeconfig?: string; uid?: string } | undefined;
  const mine = cluster(raw.stack);
  for (const other of siteNames) {
    const theirs = cluster(other);
    if (other === raw.stack || !mine || !theirs) continue;
    if (mine.context === theirs.context && mine.kubeconfig === theirs.kubeconfig) {
      fault("cluster.context", mine.context, `a context of this stack's own: '${other}' uses this one`);
    }
    if (mine.uid !== undefined && mine.uid === theirs.uid)
      fault("cluster.uid", mine.uid, `this cluster's own UID: '${other}' has this one`);
  }
  const bucket = (name: string) => (files[name]?.["homestead:vault"] as { bucket?: string } | undefined)?.bucket;
  const named = bucket(raw.stack);
  for (const other of siteNames) {
    const theirs = bucket(other);
    // Whoever has not got the keys to a vault yet is an example, and no site.
    const isSite = files[other]?.["homestead:vaultAccessKeyId"] !== undefined;
    if (raw.stack === "dev" || !isSite || named === undefined || theirs === undefined || named === theirs) continue;
    // Their endpoints may differ: one store can be reached by several ways.
    fault(
      "vault.bucket",
      named,
      `the bucket that '${other}' names, ${JSON.stringify(theirs)}: it holds the lease, and with two of them both sites federate`,
      `get the newest files (git pull), or name the same one in both (after a move the new one: docs/runbooks/new-bucket.md): ${setCommand(raw.stack, "vault.bucket")}`,
    );
  }
}

/** Why Elasticsearch is refused on NFS. */
export const whyNotOnNfs =
  "Lucene relies on locks and on renames that are at once there for everyone, which NFS does not give";

/** Where an endpoint leads, however it is written: capitals, a port that goes without saying, a slash at the end. */
function placeOf(endpoint: string): string {
  const { host, pathname } = new URL(endpoint);
  return `${host}${pathname.replace(/\/+$/, "")}`;
}

/** Rules that concern more than one key. */
function ruleFaults(
  site: StackName,
  s: Partial<Parsed>,
  secrets: Partial<Record<SecretKey, string>>,
  fault: Report,
  folder: string,
): void {
  if (s.webHost !== undefined && s.apex === s.webHost) {
    fault("webHost", s.webHost, "a host other than the apex: the blog is on the apex, Mastodon on the web host");
  }
  if (site === "dev") {
    if (s.activeSite !== undefined && s.activeSite !== "dev")
      fault(
        "activeSite",
        s.activeSite,
        "dev, in the stack dev",
        "pulumi config set homestead:activeSite dev --stack dev",
      );
    if (s.founder !== undefined && s.founder !== "dev")
      fault("founder", s.founder, "dev, in the stack dev", "pulumi config set homestead:founder dev --stack dev");
  } else {
    if (s.activeSite === "dev") fault("activeSite", s.activeSite, "home or vps");
    if (s.founder === "dev") fault("founder", s.founder, "home or vps");
    if (s.objectStore === "embedded") {
      fault(
        "objectStore",
        s.objectStore,
        "external: a vault inside the cluster that it is to rescue is none (the stack dev may)",
      );
    }
  }
  if (s.ingress) addressFaults(site, s, s.ingress.address, fault);
  if (s.objectStore === "embedded") {
    if (s.verification?.from === "here") {
      fault(
        "verification.from",
        s.verification.from,
        "cluster, since an embedded object store is reached only from there",
      );
    }
    if (
      secrets.vaultAccessKeyId !== secrets.mediaAccessKeyId ||
      secrets.vaultSecretAccessKey !== secrets.mediaSecretAccessKey
    ) {
      fault(
        "mediaAccessKeyId",
        "[secret]",
        "the vault's keys for both buckets, since the embedded object store knows one pair",
        setCommand(site, "mediaAccessKeyId", true),
      );
    }
  }
  if (s.promotionToken !== undefined && s.activeSite !== undefined && s.activeSite !== site) {
    fault(
      "promotionToken",
      s.promotionToken,
      `nothing, since activeSite is ${s.activeSite}: it is for the site that takes over`,
      `pulumi config rm homestead:promotionToken --stack ${site}`,
    );
  }
  if (s.media?.kind === "volume") mediaVolumeFaults(site, s, fault);
  if (s.certificates !== undefined) solverKeyFaults(site, s.certificates, secrets, fault);
  if (s.search?.kind === "elasticsearch" && s.storage?.kind === "nfs") {
    fault("search.kind", s.search.kind, `off, since storage.kind is nfs: ${whyNotOnNfs}`);
  }
  if (
    s.vault &&
    s.media?.kind === "bucket" &&
    s.vault.bucket === s.media.bucket &&
    placeOf(s.vault.endpoint) === placeOf(s.media.endpoint)
  ) {
    fault("media.bucket", s.media.bucket, "a bucket other than the vault's: media is public, the vault is private");
  }
  if (s.smtp?.kind === "none" && s.registrations !== undefined && s.registrations !== "single") {
    fault(
      "registrations",
      s.registrations,
      "single while smtp.kind is none: who registers is sent a mail to confirm the address",
      `${setCommand(site, "smtp.kind").replace("<value>", "server")} && ${setCommand(site, "smtp.host")} && ${setCommand(site, "smtp.from")}`,
    );
  }
  if (s.blog?.kind === "folder") blogFolderFaults(site, path.resolve(folder, s.blog.path), s.blog.path, fault);
  const own = archiveName(site, s.generations?.[site] ?? 1);
  if (s.restore?.from === own) {
    fault(
      "restore.from",
      s.restore.from,
      `an archive other than ${own}, which this database writes: raise generations.${site} first`,
    );
  } else if (beginsFromNothing(site, s)) {
    // Its database would be another one than was meant, and the archive in the vault its own by then.
    for (const key of ["to", "from"] as const) {
      if (s.restore?.[key] === undefined) continue;
      fault(
        `restore.${key}`,
        s.restore[key],
        `nothing while generations.${site} is 1: the founder's first database begins from nothing, and a restore makes the next one`,
        `set generations.${site} to 2 in Pulumi.yaml (docs/runbooks/lost-disk.md); to restore nothing: ${removeCommand(site, `restore.${key}`)}`,
      );
    }
  }
  for (const [name, chart] of Object.entries(s.charts ?? {})) {
    if (chart.path !== undefined && (chart.repository !== undefined || chart.version !== undefined)) {
      fault(`charts.${name}.path`, chart.path, "a path alone, or a repository and a version");
    }
    if (chart.path !== undefined && !fs.existsSync(path.resolve(folder, chart.path, "Chart.yaml"))) {
      fault(`charts.${name}.path`, chart.path, "a folder with a Chart.yaml");
    }
  }
}

/** Rules for what the records will say, which the world goes by. */
function addressFaults(site: StackName, s: Partial<Parsed>, address: string, fault: Report): void {
  const what = "an address or a host name that the world reaches the site at, such as 203.0.113.10";
  // A trial is for its own machine.
  if (site === "dev") return;
  for (const key of ["apex", "webHost"] as const) {
    if (s[key] === address)
      fault("ingress.address", address, `${what}, not the ${key}: its record would lead to itself`);
  }
  const [base = "", zone] = address.split("%");
  if (zone !== undefined || holds(machinesOwn, sentTo(base)) || address.endsWith(".localhost"))
    fault("ingress.address", address, `${what}: to everybody else this one is a machine of their own`);
}

/** Rules for a blog of static files. */
function blogFolderFaults(site: StackName, folder: string, value: string, fault: Report): void {
  if (!hasIndex(folder)) return fault("blog.path", value, "a folder with an index.html");
  const bytes = bytesIn(folder);
  if (bytes <= folderLimit) return;
  fault(
    "blog.path",
    value,
    `a folder of at most ${folderLimit} bytes, as much as a ConfigMap holds; this one has ${bytes}`,
    // By their paths: a declared object takes no JSON text.
    `build an image of the blog, then: ${setCommand(site, "blog.kind").replace("<value>", "image")} && ` +
      `${setCommand(site, "blog.image")} && ${removeCommand(site, "blog.path")}`,
  );
}

/** Rules for media kept on a volume. */
function mediaVolumeFaults(site: StackName, s: Partial<Parsed>, fault: Report): void {
  if (s.storage && s.storage.media === undefined) {
    fault("storage.media", undefined, "a storage class for ReadWriteMany volumes, since media.kind is volume");
  }
  if (s.objectStore === "embedded") {
    fault(
      "media.kind",
      "volume",
      "bucket, since objectStore is embedded: the store in the cluster holds uploads already",
      setCommand(site, "media.bucket"),
    );
  }
}

/** A DNS provider's token for the solver dns01, which the program brings along: the namespace is not there before it. */
function solverKeyFaults(
  site: StackName,
  certificates: Parsed["certificates"],
  secrets: Partial<Record<SecretKey, string>>,
  fault: Report,
): void {
  const references = certificates.kind === "acme" ? solverReferences(certificates.solver, "certificates.solver") : [];
  for (const { path, key } of references) {
    if (key === "key") continue;
    // cert-manager looks for it when all else is there, and the certificate is waited for.
    const only = `key, the one that the Secret ${acmeSolverSecret} has: acmeSolverKey is kept under it`;
    fault(`${path}.key`, key, only, setCommand(site, `${path}.key`).replace("<value>", "key"));
  }
  if (references.length === 0 && secrets.acmeSolverKey) {
    const reference = `a solver that names it: {dns01: {cloudflare: {apiTokenSecretRef: {name: ${acmeSolverSecret}, key: key}}}}`;
    fault("certificates.solver", certificates.kind === "acme" ? certificates.solver : undefined, reference);
  }
}

/** The same token's rule, of what is written. */
function solverKeyMissing(
  site: StackName,
  certificates: Record<string, unknown>,
  secrets: Partial<Record<SecretKey, string>>,
  fault: Report,
): void {
  if (certificates.kind !== "acme" || secrets.acmeSolverKey) return;
  if (solverReferences(certificates.solver, "certificates.solver").length === 0) return;
  const allowed = `a secret, since certificates.solver names the Secret ${acmeSolverSecret}`;
  fault("acmeSolverKey", undefined, allowed, setCommand(site, "acmeSolverKey", true));
}

/** Where a solver names the Secret of `acmeSolverKey`, and which key of it. */
function solverReferences(value: unknown, path: string): { path: string; key: unknown }[] {
  if (Array.isArray(value)) return value.flatMap((inner, i) => solverReferences(inner, `${path}[${i}]`));
  if (!isPlainObject(value)) return [];
  const inside = Object.entries(value).flatMap(([name, inner]) => solverReferences(inner, `${path}.${name}`));
  return value.name === acmeSolverSecret ? [{ path, key: value.key }, ...inside] : inside;
}

/** Rules for a mail server, of what is written. */
function mailFaults(
  site: StackName,
  smtp: Record<string, unknown>,
  secrets: Partial<Record<SecretKey, string>>,
  fault: Report,
): void {
  if (smtp.kind !== "server") return;
  const { auth = "none", username } = smtp;
  if (auth === "none" && username) fault("smtp.auth", auth, "plain, login or cram_md5, since smtp.username is set");
  const mechanism = mailMechanisms.find((one) => one === auth);
  if (mechanism === undefined) return;
  const since = `since smtp.auth is ${mechanism}`;
  if (username === undefined || username === "") fault("smtp.username", username, `a user name, ${since}`);
  if (!secrets.smtpPassword)
    fault(
      "smtpPassword",
      undefined,
      `a secret, ${since}`,
      `pulumi config set --secret homestead:smtpPassword --stack ${site}`,
    );
}

/** Rules for DNS by signed updates, of what is written. */
function rfc2136Faults(
  site: StackName,
  s: Partial<Parsed>,
  dns: Record<string, unknown>,
  secrets: Partial<Record<SecretKey, string>>,
  fault: Report,
): void {
  if (dns.kind !== "rfc2136") return;
  const mend = setCommand(site, "dnsKey", true);
  if (!secrets.dnsKey) fault("dnsKey", undefined, "a secret, since dns.kind is rfc2136", mend);
  else if (!/^[A-Za-z0-9+/]{16,}={0,2}$/.test(secrets.dnsKey) || secrets.dnsKey.length % 4 !== 0) {
    fault("dnsKey", "[secret]", "the TSIG key in base64, as tsig-keygen prints it after `secret`", mend);
  }
  const { data: zone } = hostName.safeParse(dns.zone);
  for (const key of ["apex", "webHost"] as const) {
    const host = s[key];
    if (zone !== undefined && host !== undefined && host !== zone && !host.endsWith(`.${zone}`)) {
      fault("dns.zone", zone, `the zone that ${key} ${host} is in`);
    }
  }
  // A zone's own name cannot be a CNAME (RFC 1912, 2.4), and there is nobody here to make an ALIAS of it.
  if (s.ingress && net.isIP(s.ingress.address) === 0) {
    fault("ingress.address", s.ingress.address, "an IP address, since dns.kind is rfc2136");
  }
}

/**
 * Everything is right: derive what the components are told.
 *
 * @param dnsIsSecret whether the stack holds something of `dns` encrypted. Only then is its command marked: the mark is a
 * change to the provider, which runs the command again for it.
 */
function decide(
  site: StackName,
  s: Parsed,
  secrets: Partial<Record<SecretKey, string>>,
  dnsIsSecret: boolean,
): Settings {
  const generation = s.generations[site] ?? 1;
  const otherSite = site === "dev" ? undefined : siteNames.find((name) => name !== site);
  const beginning = beginningOf(site, s, generation, otherSite);
  const wrapped = Object.fromEntries(Object.entries(secrets).map(([key, value]) => [key, pulumi.secret(value)]));
  const { dns } = s;
  return {
    ...s,
    ...(dns.kind === "command" && dnsIsSecret ? { dns: { ...dns, command: pulumi.secret(dns.command) } } : {}),
    site,
    role: s.activeSite === site ? "active" : "standby",
    generation,
    beginning,
    lease: s.objectStore === "external" && site !== "dev" ? "vault" : "none",
    ...(otherSite ? { otherSite } : {}),
    images: { ...publishedImages, ...s.images },
    charts: Object.fromEntries(
      (Object.keys(publishedCharts) as ChartName[]).map((name) => {
        const override = s.charts[name];
        return [
          name,
          override?.path !== undefined ? { path: override.path } : { ...publishedCharts[name], ...override },
        ];
      }),
    ) as Record<ChartName, ChartReference>,
    secrets: wrapped as Settings["secrets"],
    fingerprint: fingerprintOf(secrets),
  };
}

/** The name of a site's archive in the vault: an archive is never written over, so each beginning gets a new one. */
export const archiveName = (site: StackName, generation: number): string => `${site}-g${generation}`;

/** The site that writes an archive, or wrote it once. */
export const siteOfArchive = (archive: string): StackName => archive.slice(0, archive.indexOf("-")) as StackName;

/** The one database that no archive comes before. */
const beginsFromNothing = (
  site: StackName,
  { founder, generations }: Partial<Pick<Parsed, "founder" | "generations">>,
) => site === founder && (generations?.[site] ?? 1) === 1;

/**
 * How the database begins on an empty cluster. Only the founder's first generation may start from nothing; in
 * every other case an archive exists somewhere, and starting afresh would fork the server's identity.
 */
function beginningOf(site: StackName, s: Parsed, generation: number, otherSite: SiteName | undefined): Beginning {
  if (beginsFromNothing(site, s)) return { kind: "initdb" };
  const moment = s.restore.to !== undefined ? { to: s.restore.to } : {};
  if (s.restore.from !== undefined) {
    return { kind: "recovery", site: siteOfArchive(s.restore.from), archive: s.restore.from, ...moment };
  }
  // A standby follows the active site. Whoever takes over (it is given a token, or a word in its place) continues what the
  // other one wrote last: an archive of its own, from when it was active before, is older. An active site that was begun
  // before continues its own archive; one that never was can only continue the other's.
  const takesOver = s.promotionToken !== undefined;
  const from = s.activeSite !== site ? s.activeSite : generation > 1 && !takesOver ? site : (otherSite ?? site);
  return {
    kind: "recovery",
    site: from,
    archive: archiveName(from, from === site ? generation - 1 : (s.generations[from] ?? 1)),
    ...moment,
  };
}

function fingerprintOf(secrets: Partial<Record<SecretKey, string>>): string {
  return identityFingerprint(
    Object.fromEntries(identityKeys.map((k) => [k, secrets[k] ?? ""])) as Record<(typeof identityKeys)[number], string>,
  );
}
