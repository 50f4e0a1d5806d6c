/** Talking to the cluster of a stack. */
import * as os from "node:os";
import * as path from "node:path";
import * as fs from "node:fs";
import * as k8s from "@kubernetes/client-node";
import type { Settings } from "../settings";

/** The kubeconfig file of a stack as it is named: its own, else $KUBECONFIG, else ~/.kube/config. */
export const kubeconfigName = (cluster: Settings["cluster"]): string =>
  cluster.kubeconfig ?? process.env["KUBECONFIG"] ?? "~/.kube/config";

/** Where that file is on this machine. */
export const kubeconfigPath = (cluster: Settings["cluster"]): string =>
  path.resolve(kubeconfigName(cluster).replace(/^~(?=\/)/, os.homedir()));

/** A client for the stack's own context, and nothing else. @throws Error that says what is missing. */
export function kubeClient(cluster: Settings["cluster"]): k8s.KubeConfig {
  const file = kubeconfigPath(cluster);
  if (kubeconfigName(cluster).includes(path.delimiter)) {
    throw new Error(`$KUBECONFIG names several files: say in homestead:cluster.kubeconfig which one is this stack's`);
  }
  if (!fs.existsSync(file)) throw new Error(`kubeconfig ${file} does not exist`);
  const config = new k8s.KubeConfig();
  config.loadFromFile(file);
  if (!config.getContextObject(cluster.context)) {
    const known = config.getContexts().map((c) => c.name);
    throw new Error(`kubeconfig ${file} has no context '${cluster.context}'; it has ${known.join(", ") || "none"}`);
  }
  config.setCurrentContext(cluster.context);
  return config;
}

/** The HTTP status of a Kubernetes API error; undefined for anything else. */
export const statusOf = (error: unknown): number | undefined =>
  error instanceof k8s.ApiException ? error.code : undefined;
