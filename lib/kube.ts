/** Talking to the cluster of a stack. */
import * as os from "node:os";
import * as path from "node:path";
import * as fs from "node:fs";
import * as k8s from "@kubernetes/client-node";
import type { Settings } from "../settings";
import { aheadBy } from "./clock";

/** The kubeconfig file of a stack as it is named: its own, else $KUBECONFIG, else ~/.kube/config. */
export const kubeconfigName = (cluster: Settings["cluster"]): string =>
  cluster.kubeconfig ?? process.env["KUBECONFIG"] ?? "~/.kube/config";

/** Where that file is on this machine. */
export const kubeconfigPath = (cluster: Settings["cluster"]): string =>
  path.resolve(kubeconfigName(cluster).replace(/^~(?=\/)/, os.homedir()));

/** The beginning of a command to paste that asks the stack's own cluster, whatever the shell's kubeconfig is. */
export const kubectl = ({ context, kubeconfig }: Settings["cluster"]): string =>
  `kubectl${kubeconfig === undefined ? "" : ` --kubeconfig ${kubeconfig}`} --context ${context}`;

/** Who is behind the Service `kubernetes`: addresses and ports of the API server itself. */
export async function apiServerSlices(config: k8s.KubeConfig): Promise<k8s.V1EndpointSlice[]> {
  const { items } = await config.makeApiClient(k8s.DiscoveryV1Api).listNamespacedEndpointSlice({
    namespace: "default",
    labelSelector: "kubernetes.io/service-name=kubernetes",
  });
  return items;
}

/** Why there is no client. `key` is the part of `homestead:cluster` that would mend it. */
export class KubeconfigFault extends Error {
  constructor(
    readonly key: "kubeconfig" | "context",
    message: string,
  ) {
    super(message);
  }
}

/** A client for the stack's own context, and nothing else. @throws KubeconfigFault that says what is missing. */
export function kubeClient(cluster: Settings["cluster"]): k8s.KubeConfig {
  const file = kubeconfigPath(cluster);
  if (kubeconfigName(cluster).includes(path.delimiter)) {
    const mend = "say in homestead:cluster.kubeconfig which one is this stack's";
    throw new KubeconfigFault("kubeconfig", `$KUBECONFIG names several files: ${mend}`);
  }
  if (!fs.existsSync(file)) throw new KubeconfigFault("kubeconfig", `kubeconfig ${file} does not exist`);
  const config = new k8s.KubeConfig();
  try {
    config.loadFromFile(file);
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    throw new KubeconfigFault("kubeconfig", `kubeconfig ${file} cannot be read: ${why}`);
  }
  if (!config.getContextObject(cluster.context)) {
    const known = config.getContexts().map((c) => c.name);
    const message = `kubeconfig ${file} has no context '${cluster.context}'; it has ${known.join(", ") || "none"}`;
    throw new KubeconfigFault("context", message);
  }
  config.setCurrentContext(cluster.context);
  return config;
}

/** Version of the API server, and by how many seconds its clock is ahead of this machine's, if it says. */
export async function askVersion(config: k8s.KubeConfig): Promise<{ version: string; ahead?: number }> {
  const asked = Date.now();
  const { data, headers } = await config.makeApiClient(k8s.VersionApi).getCodeWithHttpInfo();
  const ahead = aheadBy(headers.date, asked, Date.now());
  return { version: data.gitVersion, ...(ahead === undefined ? {} : { ahead }) };
}

/** The HTTP status of a Kubernetes API error; undefined for anything else. */
export const statusOf = (error: unknown): number | undefined =>
  error instanceof k8s.ApiException ? error.code : undefined;
