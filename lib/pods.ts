/** What every pod of ours has in common: labels and the settings Pod Security "restricted" asks for. */
import type * as k8s from "@pulumi/kubernetes";

type Inputs = k8s.types.input.core.v1.PodSpec;

/** Standard labels; `name` is also what selectors and network policies go by. */
export function labels(name: string): Record<string, string> {
  return { "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "homestead" };
}

/**
 * CloudNativePG's own pods, for a network policy. In any namespace: an operator that was there before us has its own. Its
 * chart and its manifest both label them so.
 */
export const operatorPods = {
  namespaceSelector: {},
  podSelector: { matchLabels: { "app.kubernetes.io/name": "cloudnative-pg" } },
};

/** Pod level of Pod Security "restricted" (kubernetes.io, Pod Security Standards). `user` is the image's own. */
export function restrictedPod(user: number) {
  return {
    runAsNonRoot: true,
    runAsUser: user,
    runAsGroup: user,
    fsGroup: user,
    // A volume with many files on a slow disk would otherwise be walked at every pod start.
    fsGroupChangePolicy: "OnRootMismatch",
    seccompProfile: { type: "RuntimeDefault" },
  } satisfies Inputs["securityContext"];
}

/** Container level of Pod Security "restricted", with a read-only root file system. */
export const restrictedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** Requests and the memory limit. No CPU limit: throttling a single user's server helps nobody on a machine of its own. */
export function resources(cpu: string, memory: string, memoryLimit: string) {
  return { requests: { cpu, memory }, limits: { memory: memoryLimit } };
}

/** `registry/repository:tag@digest` in the parts that chart values want. The digest stays with the tag. */
export function imageParts(reference: string): { registry: string; repository: string; name: string; tag: string } {
  const match = /^([^/]+)\/([^:]+):(.+)$/.exec(reference);
  if (!match) throw new Error(`image ${reference}: expected registry/repository:tag`);
  const [, registry = "", repository = "", tag = ""] = match;
  return { registry, repository, name: `${registry}/${repository}`, tag };
}

/** A reference, or the tag of `imageParts`, without its digest, which a label or a name cannot hold. */
export const tagAlone = (reference: string): string => reference.replace(/@.*/, "");
