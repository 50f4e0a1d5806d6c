/** What the API server would say to a pod, without making one. */
import type { Cluster, KubeObject } from "./cluster";

/** A new pod like an existing one, as its controller would send it. */
function likeOf(pod: KubeObject, change: (spec: Record<string, unknown>) => void): string {
  const spec = structuredClone(pod.spec ?? {});
  for (const key of ["nodeName", "ephemeralContainers", "hostname"]) delete spec[key];
  change(spec);
  const { labels, namespace } = pod.metadata;
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `e2e-${pod.metadata.name}`.slice(0, 63), namespace, labels },
    spec,
  });
}

/** @throws Error with the refusal, unless a pod like this one, changed, would be admitted */
export async function mustBeAdmitted(
  cluster: Cluster,
  pod: KubeObject,
  change: (spec: Record<string, unknown>) => void = () => undefined,
): Promise<void> {
  await cluster.kubectl(["create", "--dry-run=server", "-f", "-"], { input: likeOf(pod, change) });
}

/** A change for {@link mustBeAdmitted}: nothing is left that keeps the pod from becoming root. */
export function unrestricted(spec: Record<string, unknown>): void {
  delete spec["securityContext"];
  for (const container of spec["containers"] as Record<string, unknown>[]) delete container["securityContext"];
}
