/** The Kubernetes providers of a stack: its own cluster, and nothing else. */
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../settings";
import { minify } from "./kit/kubeconfig";
import { kubeconfigName, kubeconfigPath } from "./kube";
import { isPlanning } from "./planning";

export interface Providers {
  provider: k8s.Provider;
  /** Takes over what a `destroy` left on purpose: the namespace and the database. Everything else must be new. */
  kept: k8s.Provider;
}

/**
 * What the provider connects with: the stack's own context out of the kubeconfig, with the files that it names inside. Its
 * content and not its path: the provider reads the path that the state holds before anything else, and on another machine
 * there is no such file (`DiffConfig`, pulumi-kubernetes 4.32). A plan has no cluster and says the path.
 */
export function connection(cluster: Settings["cluster"]): pulumi.Input<string> {
  if (isPlanning()) return kubeconfigName(cluster);
  return pulumi.secret(minify(kubeconfigPath(cluster), [cluster.context]).text);
}

export function providers({ cluster, site }: Pick<Settings, "cluster" | "site">): Providers {
  const args = {
    kubeconfig: connection(cluster),
    context: cluster.context,
    // Constant: a moved kubeconfig must never look like another cluster, which would replace everything.
    clusterIdentifier: site,
    enableConfigMapMutable: true,
    enableSecretMutable: true,
  };
  return {
    provider: new k8s.Provider("cluster", args),
    kept: new k8s.Provider("kept", { ...args, upsertExistingObjects: true, enablePatchForce: true }),
  };
}
