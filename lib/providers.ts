/** The Kubernetes providers of a stack: its own cluster, and nothing else. */
import * as k8s from "@pulumi/kubernetes";
import type { Settings } from "../settings";
import { kubeconfigName } from "./kube";

export interface Providers {
  provider: k8s.Provider;
  /** Takes over what a `destroy` left on purpose: the namespace and the database. Everything else must be new. */
  kept: k8s.Provider;
}

export function providers({ cluster, site }: Pick<Settings, "cluster" | "site">): Providers {
  const connection = {
    kubeconfig: kubeconfigName(cluster),
    context: cluster.context,
    // Constant: a moved kubeconfig must never look like another cluster, which would replace everything.
    clusterIdentifier: site,
    enableConfigMapMutable: true,
    enableSecretMutable: true,
  };
  return {
    provider: new k8s.Provider("cluster", connection),
    kept: new k8s.Provider("kept", { ...connection, upsertExistingObjects: true, enablePatchForce: true }),
  };
}
