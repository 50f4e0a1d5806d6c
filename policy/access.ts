/** Rules for rights: in a namespace, and at the cluster's API. */
import { at, fields, list, nameOf, namespaceOf, podsOf, same, texts } from "./objects";
import type { KubernetesObject } from "./objects";
import { breaches, fault, objectRule, stackRule } from "./rule";
import type { Rule } from "./rule";

const enforced = "pod-security.kubernetes.io/enforce";
/** Of Kubernetes, whose rules of then are enforced. */
const enforcedVersion = `${enforced}-version`;

const restrictedNamespaces = objectRule(
  "restricted-namespaces",
  "the cluster itself then refuses a pod that could do harm, whoever makes it",
  (object) => {
    if (object.kind !== "Namespace") return [];
    const { [enforced]: level, [enforcedVersion]: version } = fields(at(object, "metadata.labels"));
    return [
      ...(level === "restricted" ? [] : [fault(`metadata.labels["${enforced}"]`, level, "restricted")]),
      ...(version === undefined || version === "latest"
        ? []
        : [
            fault(
              `metadata.labels["${enforcedVersion}"]`,
              version,
              "latest, or none: an old version's rules are fewer",
            ),
          ]),
    ];
  },
);

/** Service accounts whose pods ask the cluster's API, each with what for. None of ours does. */
export const apiUsers: { serviceAccount: string; reason: string }[] = [];

const mayAsk = (name: unknown) => apiUsers.some(({ serviceAccount }) => serviceAccount === name);

const noTokens = stackRule(
  "no-service-account-token",
  "a token for the cluster's API is worth stealing, and no pod of ours asks it anything",
  (objects) => {
    const accounts = objects.filter(({ kind }) => kind === "ServiceAccount");
    return objects.flatMap((object) =>
      breaches(object, object.kind === "ServiceAccount" ? accountFaults(object) : tokenFaults(object, accounts)),
    );
  },
);

function accountFaults(account: KubernetesObject): string[] {
  const given = account["automountServiceAccountToken"];
  return given === false || mayAsk(nameOf(account)) ? [] : [fault("automountServiceAccountToken", given, "false")];
}

function tokenFaults(object: KubernetesObject, accounts: KubernetesObject[]): string[] {
  return podsOf(object).flatMap(({ field, value: pod }) => {
    const { serviceAccountName } = pod;
    const name = typeof serviceAccountName === "string" ? serviceAccountName : "default";
    if (mayAsk(name)) return [];
    const projected = list(pod["volumes"]).flatMap((volume, i) =>
      list(at(volume, "projected.sources"))
        .filter((source) => "serviceAccountToken" in source)
        .map(() => fault(`${field}.volumes[${i}].projected`, "serviceAccountToken", "no token")),
    );
    const account = accounts.find((one) => nameOf(one) === name && same(namespaceOf(one), namespaceOf(object)));
    const mounted = pod["automountServiceAccountToken"] ?? account?.["automountServiceAccountToken"];
    const allowed = `false, here or in a ServiceAccount of the stack; this pod's is ${name}`;
    return [
      ...projected,
      ...(mounted === false ? [] : [fault(`${field}.automountServiceAccountToken`, mounted, allowed)]),
    ];
  });
}

const narrowRights = objectRule(
  "narrow-rights",
  "rights beyond the namespace, or to everything in it, make one broken pod the whole cluster's trouble",
  (object) => {
    // CloudNativePG then makes a Secret with the password of one who may run programs on the database's server.
    if (object.kind === "Cluster" && at(object, "spec.enableSuperuserAccess") === true)
      return [fault("spec.enableSuperuserAccess", true, "false")];
    if (!object.apiVersion.startsWith("rbac.authorization.k8s.io/")) return [];
    if (object.kind.startsWith("Cluster")) return [fault("kind", object.kind, "Role and RoleBinding, in a namespace")];
    if (object.kind === "RoleBinding") return bindingFaults(object);
    return list(object["rules"]).flatMap((rule, i) => [
      ...["apiGroups", "resources", "verbs"]
        .filter((key) => texts(rule[key]).includes("*"))
        .map((key) => fault(`rules[${i}].${key}`, "*", "names")),
      ...texts(rule["verbs"])
        .filter((verb) => ["bind", "escalate", "impersonate"].includes(verb))
        .map((verb) => fault(`rules[${i}].verbs`, verb, "verbs that do not give more rights")),
      ...texts(rule["resources"])
        .filter((resource) => insideOthers.includes(resource))
        .map((resource) => fault(`rules[${i}].resources`, resource, "nothing that leads into pods or makes tokens")),
      ...(texts(rule["resources"]).includes("secrets") && texts(rule["resourceNames"]).length === 0
        ? [
            fault(
              `rules[${i}].resourceNames`,
              rule["resourceNames"],
              "the names of Secrets, where there is a right to them",
            ),
          ]
        : []),
    ]);
  },
);

/** Whoever has a right to these has what the pods of the namespace have, every Secret with it. */
const insideOthers = [
  ...["exec", "attach", "portforward", "proxy", "ephemeralcontainers"].map((part) => `pods/${part}`),
  "services/proxy",
  "serviceaccounts/token",
];

function bindingFaults(object: KubernetesObject): string[] {
  const role = at(object, "roleRef.kind");
  return [
    ...(role === "Role" ? [] : [fault("roleRef.kind", role, "Role")]),
    ...list(object["subjects"])
      .filter(({ kind }) => kind !== "ServiceAccount")
      .map(({ kind }) => fault("subjects", kind, "ServiceAccount")),
  ];
}

/** Patches that the program makes: of which kind, with which annotations and nothing else. */
export const patches: { kind: string; annotations: string[]; reason: string }[] = [
  {
    kind: "ClusterPatch",
    annotations: ["cnpg.io/hibernation", "pulumi.com/patchForce"],
    reason:
      "A database of an earlier generation is put to sleep; what it holds is kept, so that it is nobody's to make anew.",
  },
];

const noPatches = objectRule(
  "no-patches",
  "a patch changes an object that the stack does not hold, and no rule sees what comes of it",
  (object) => {
    if (!object.kind.endsWith("Patch")) return [];
    const known = patches.filter(({ kind }) => kind === object.kind).flatMap(({ annotations }) => annotations);
    if (known.length === 0)
      return [
        fault("kind", object.kind, "the object itself; an exception is named with its reason in policy/access.ts"),
      ];
    const { apiVersion: _version, kind: _kind, metadata, ...rest } = object;
    const { name: _name, namespace: _namespace, annotations, ...more } = fields(metadata);
    const others = [
      ...Object.keys(rest),
      ...Object.keys(more).map((key) => `metadata.${key}`),
      ...Object.keys(fields(annotations))
        .filter((key) => !known.includes(key))
        .map((key) => `metadata.annotations["${key}"]`),
    ];
    return others.map((field) => `${field} is patched; allowed: the annotations ${known.join(", ")}`);
  },
);

export const accessRules: Rule[] = [restrictedNamespaces, noTokens, narrowRights, noPatches];
