/** Rules for rights: in a namespace, and at the cluster's API. */
import { at, list, nameOf, namespaceOf, podsOf, same, texts } from "./objects";
import type { KubernetesObject } from "./objects";
import { breaches, fault, objectRule, stackRule } from "./rule";
import type { Rule } from "./rule";

const enforced = "pod-security.kubernetes.io/enforce";

const restrictedNamespaces = objectRule(
  "restricted-namespaces",
  "the cluster itself then refuses a pod that could do harm, whoever makes it",
  (object) => {
    if (object.kind !== "Namespace") return [];
    const labels = at(object, "metadata.labels");
    const level = (labels as Record<string, unknown> | undefined)?.[enforced];
    return level === "restricted" ? [] : [fault(`metadata.labels["${enforced}"]`, level, "restricted")];
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
    ]);
  },
);

function bindingFaults(object: KubernetesObject): string[] {
  const role = at(object, "roleRef.kind");
  return [
    ...(role === "Role" ? [] : [fault("roleRef.kind", role, "Role")]),
    ...list(object["subjects"])
      .filter(({ kind }) => kind !== "ServiceAccount")
      .map(({ kind }) => fault("subjects", kind, "ServiceAccount")),
  ];
}

export const accessRules: Rule[] = [restrictedNamespaces, noTokens, narrowRights];
