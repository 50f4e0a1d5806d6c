/** Rules for pods: what they may do on the node, what they take of it, and what they run. */
import { knownAfterUpdate } from "../lib/plan/mask";
import { tagAlone } from "../lib/pods";
import { images } from "../versions";
import { at, containersOf, fields, list, namespaceOf, namespacesOf, podsOf, same, texts } from "./objects";
import type { Container, KubernetesObject } from "./objects";
import { fault, objectRule, stackRule } from "./rule";
import type { Rule } from "./rule";

/** Containers that a rule does not hold for. By name, since an object's own may be known only after the update. */
export interface Exception {
  /** Of the object that makes the pod. */
  kind: string;
  containers: string[];
  reason: string;
}

const excepted = (exceptions: Exception[], object: KubernetesObject, { name }: Container) =>
  exceptions.some(({ kind, containers }) => kind === object.kind && containers.includes(name));

/** Volumes that "restricted" knows; not among them is the node's own disk. */
const volumeKinds = [
  "configMap",
  "csi",
  "downwardAPI",
  "emptyDir",
  "ephemeral",
  "persistentVolumeClaim",
  "projected",
  "secret",
];

function podFaults(field: string, pod: Record<string, unknown>): string[] {
  const shared = ["hostNetwork", "hostPID", "hostIPC"].filter((key) => pod[key] === true);
  const context = fields(pod["securityContext"]);
  return [
    ...shared.map((key) => fault(`${field}.${key}`, true, "false")),
    ...list(pod["volumes"]).flatMap((volume, i) =>
      Object.keys(volume)
        .filter((kind) => kind !== "name" && !volumeKinds.includes(kind))
        .map((kind) => fault(`${field}.volumes[${i}]`, kind, volumeKinds.join(", "))),
    ),
    ...list(context["sysctls"]).map((sysctl) => fault(`${field}.securityContext.sysctls`, sysctl["name"], "none")),
  ];
}

function containerFaults({ field, name, value, pod }: Container): string[] {
  const own = fields(value["securityContext"]);
  const shared = fields(pod["securityContext"]);
  const where = `${field} (${name})`;
  const context = (key: string) => own[key] ?? shared[key];
  const expect = (key: string, found: unknown, good: boolean, allowed: string) =>
    good ? [] : [fault(`${where} securityContext.${key}`, found, allowed)];
  const added = texts(at(own, "capabilities.add"));
  const dropped = at(own, "capabilities.drop");
  const seccomp = at(own, "seccompProfile.type") ?? at(shared, "seccompProfile.type");
  const appArmor = at(own, "appArmorProfile.type") ?? at(shared, "appArmorProfile.type");
  return [
    ...expect("privileged", own["privileged"], own["privileged"] !== true, "false"),
    ...expect(
      "allowPrivilegeEscalation",
      own["allowPrivilegeEscalation"],
      own["allowPrivilegeEscalation"] === false,
      "false",
    ),
    ...expect("runAsNonRoot", context("runAsNonRoot"), context("runAsNonRoot") === true, "true, here or for the pod"),
    ...expect("runAsUser", context("runAsUser"), context("runAsUser") !== 0, "any user but root"),
    ...expect("capabilities.drop", dropped, texts(dropped).includes("ALL"), '["ALL"]'),
    ...expect(
      "capabilities.add",
      added,
      added.every((one) => one === "NET_BIND_SERVICE"),
      "NET_BIND_SERVICE",
    ),
    ...expect("seccompProfile.type", seccomp, seccomp === "RuntimeDefault", "RuntimeDefault, here or for the pod"),
    ...expect("appArmorProfile.type", appArmor, appArmor !== "Unconfined", "RuntimeDefault"),
    ...expect("seLinuxOptions", context("seLinuxOptions"), context("seLinuxOptions") === undefined, "none"),
    ...expect("procMount", own["procMount"], (own["procMount"] ?? "Default") === "Default", "Default"),
    ...list(value["ports"])
      .filter(({ hostPort }) => hostPort !== undefined && hostPort !== 0)
      .map(({ hostPort }) => fault(`${where} hostPort`, hostPort, "none; a Service leads to it")),
  ];
}

const podSecurity = objectRule(
  "pod-security-restricted",
  "who breaks into a pod must not get from there to the node (Pod Security Standards, restricted)",
  (object) => [
    ...podsOf(object).flatMap(({ field, value }) => podFaults(field, value)),
    ...containersOf(object).flatMap(containerFaults),
  ],
);

const rails = "Mastodon's image writes to tmp/ and, at boot, to its own folders";
export const writableRoots: Exception[] = [
  {
    kind: "Deployment",
    containers: ["mastodon-web", "mastodon"],
    reason: `${rails}; the chart offers no way to mount them apart. "mastodon" is Sidekiq.`,
  },
  {
    kind: "Job",
    containers: ["mastodon-db-migrate", "mastodon-db-pre-migrate"],
    reason: `${rails}; the chart's hooks, as above.`,
  },
  { kind: "Job", containers: ["owner", "feeds", "search-index"], reason: `${rails}; our own Jobs with it.` },
  {
    kind: "StatefulSet",
    containers: ["elasticsearch"],
    reason: "It makes its keystore beside its settings, and writes logs, in folders that come with the image.",
  },
];

const readOnlyRoot = objectRule(
  "read-only-root-file-system",
  "who breaks into a container must not be able to leave something in it",
  (object) =>
    containersOf(object)
      .filter((container) => !excepted(writableRoots, object, container))
      .map((container) => ({ ...container, found: at(container.value, "securityContext.readOnlyRootFilesystem") }))
      .filter(({ found }) => found !== true)
      .map(({ field, name, found }) =>
        fault(
          `${field} (${name}) securityContext.readOnlyRootFilesystem`,
          found,
          "true; an exception is named with its reason in policy/pods.ts",
        ),
      ),
);

export const withoutResources: Exception[] = [
  {
    kind: "Job",
    containers: ["mastodon-db-migrate", "mastodon-db-pre-migrate"],
    reason: "The chart has no key for its hooks' resources: they get the namespace's defaults (default-resources).",
  },
];

/** Where a custom resource says what the pods get that its operator makes. */
const operatorsPods: Record<string, string> = {
  "postgresql.cnpg.io/v1 Cluster": "spec.resources",
  "barmancloud.cnpg.io/v1 ObjectStore": "spec.instanceSidecarConfiguration.resources",
};

const needed = ["requests.cpu", "requests.memory", "limits.memory"];

const resources = objectRule(
  "requests-and-limits",
  "one part that grows without bounds must not take the others down with it",
  (object) => {
    const missing = (field: string, found: unknown) =>
      needed
        .filter((key) => at(found, key) === undefined)
        .map((key) => fault(`${field}.${key}`, undefined, "a measured amount"));
    const custom = operatorsPods[`${object.apiVersion} ${object.kind}`];
    return [
      ...containersOf(object)
        .filter((container) => !excepted(withoutResources, object, container))
        .flatMap(({ field, name, value }) => missing(`${field} (${name}) resources`, value["resources"])),
      ...(custom === undefined ? [] : missing(custom, at(object, custom))),
    ];
  },
);

const defaultResources = stackRule(
  "default-resources",
  "a pod that names no resources, such as a hook of the chart, must have some all the same",
  (objects) => {
    const charts = objects.filter(({ kind }) => kind === "Release");
    // The operators' namespaces hold nothing of ours but their charts.
    return namespacesOf(objects.filter((object) => podsOf(object).length > 0))
      .filter((namespace) => charts.some((chart) => same(namespaceOf(chart), namespace)))
      .filter((namespace) => !objects.some((object) => same(namespaceOf(object), namespace) && givesDefaults(object)))
      .map((namespace) => ({
        message: `namespace ${namespace}: it has no LimitRange; needed: one for type Container with defaultRequest.cpu, defaultRequest.memory and default.memory`,
      }));
  },
);

function givesDefaults(object: KubernetesObject): boolean {
  const keys = ["defaultRequest.cpu", "defaultRequest.memory", "default.memory"];
  return (
    object.kind === "LimitRange" &&
    list(at(object, "spec.limits")).some(
      (limit) => limit["type"] === "Container" && keys.every((key) => at(limit, key) !== undefined),
    )
  );
}

/** Every image that an object names: in pods, in CloudNativePG's Cluster, and in a chart's values. */
function imagesIn(object: KubernetesObject): { field: string; image: unknown }[] {
  const inValues = (value: unknown, field: string): { field: string; image: unknown }[] => {
    const { registry, repository, tag, digest } = fields(value);
    const name = [registry, repository].filter((part) => typeof part === "string").join("/");
    const image = `${name}${typeof tag === "string" ? `:${tag}` : ""}${typeof digest === "string" ? `@${digest}` : ""}`;
    return [
      ...(typeof repository === "string" ? [{ field, image }] : []),
      ...Object.entries(fields(value)).flatMap(([key, inner]) => inValues(inner, `${field}.${key}`)),
    ];
  };
  return [
    ...containersOf(object).map(({ field, name, value }) => ({
      field: `${field} (${name}) image`,
      image: value["image"],
    })),
    ...(object.kind === "Cluster" ? [{ field: "spec.imageName", image: at(object, "spec.imageName") }] : []),
    ...(object.kind === "Release" ? inValues(at(object, "spec.values"), "values") : []),
  ];
}

/** Images that run by tag alone. */
export const withoutDigest: { image: string; reason: string }[] = [
  {
    image: images["mastodon-streaming"],
    reason: "No two public sources told its digest, and a wrong one is worse than none (versions.ts).",
  },
];

function imageFault(image: unknown): string | undefined {
  if (image === knownAfterUpdate || withoutDigest.some((exception) => exception.image === image)) return undefined;
  const [, repository, tag, digest] =
    /^([^@]+?)(?::([^:/@]+))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(typeof image === "string" ? image : "") ?? [];
  if (repository === undefined || tag === undefined || tag === "latest") return "a tag, and not latest";
  const known = Object.values(images).find((one) => one.includes("@") && one.startsWith(`${repository}:`));
  if (known?.startsWith(`${repository}:${tag}@`))
    return known === image ? undefined : `${known}, as versions.ts has it`;
  return digest === undefined
    ? "a digest behind the tag (docker buildx imagetools inspect says it); an exception is named with its reason in policy/pods.ts"
    : undefined;
}

const mastodonByTag = tagAlone(images.mastodon);

/**
 * The official chart makes a label of `image.tag`, and a label cannot hold a digest: that value and its Jobs go by tag, and
 * so does what a standby pulls for them.
 */
const byTagAlone = (object: KubernetesObject, field: string): boolean =>
  (object.kind === "Release" && field === "values.image") ||
  (object.kind === "Job" &&
    (typeof fields(at(object, "metadata.annotations"))["helm.sh/hook"] === "string" ||
      fields(at(object, "metadata.labels"))["app.kubernetes.io/name"] === "pulled-images"));

const pinnedImages = objectRule(
  "pinned-images",
  "what runs must be what was looked at, today and after the next restart",
  (object) => [
    ...imagesIn(object).flatMap(({ field, image }) => {
      if (byTagAlone(object, field) && mastodonByTag === image) return [];
      const allowed = imageFault(image);
      return allowed === undefined ? [] : [fault(field, image, allowed)];
    }),
    ...(object.kind === "Release" ? chartFaults(object) : []),
  ],
);

/** A chart is a folder, or a version of a published one. */
function chartFaults(object: KubernetesObject): string[] {
  const { chart, version } = fields(object["spec"]);
  if (typeof chart === "string" && /^\.{0,2}\//.test(chart)) return [];
  return typeof version === "string" && /^v?\d+\.\d+\.\d+[\w.+-]*$/.test(version)
    ? []
    : [fault("version", version, "one whole version")];
}

export const podRules: Rule[] = [podSecurity, readOnlyRoot, resources, defaultResources, pinnedImages];
