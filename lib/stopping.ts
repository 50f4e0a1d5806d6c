/**
 * The end of what a site does not run any more. Helm takes a Deployment of no replicas for done at once, while its pods are
 * still ending: Sidekiq has 25 s for the jobs that it is at, which are out of Valkey meanwhile, and gives back to Valkey what
 * it has not done by then (sidekiq.org/wiki/Deployment). Whoever stops Valkey before loses them.
 */
import type * as k8s from "@kubernetes/client-node";
import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../settings";
import { ask, kubeClient, kubectl } from "./kube";
import { kubernetes } from "./kubernetes";
import { isReal, until } from "./until";

/** What of Mastodon writes: `web` takes requests, `jobs` are Sidekiq's. Streaming only hands on. */
export const parts = ["web", "jobs"] as const;
export type Part = (typeof parts)[number];

/** Seconds: more than any of them has to end (Sidekiq: 60), and something for a node that is slow to say so. */
const patience = 300;

/** Gives a value on once none of these parts' pods is left. Where all of them run, nothing is asked and nothing waited for. */
export function onceStopped<T>(
  access: Pick<Settings, "cluster"> & { namespace: pulumi.Input<string> },
  stopped: readonly Part[],
  value: pulumi.Output<T>,
): pulumi.Output<T> {
  return pulumi.all([value, access.namespace]).apply(async ([known, namespace]) => {
    if (isReal() && stopped.length > 0) await untilStopped({ cluster: access.cluster, namespace }, stopped);
    return known;
  }) as pulumi.Output<T>;
}

/** {@link onceStopped}, for who does not plan. @throws RunError that names a pod which stays, and the way out */
export async function untilStopped(
  { cluster, namespace }: Pick<Settings, "cluster" | "namespace">,
  stopped: readonly Part[],
): Promise<void> {
  const core = kubeClient(cluster).makeApiClient(kubernetes().CoreV1Api);
  // The chart's labels. Those of its Jobs' pods and of ours are others.
  const labelSelector = "app.kubernetes.io/name=mastodon,app.kubernetes.io/part-of=rails";
  await until(patience, "the end of Mastodon's pods", async () => {
    const { items } = await ask(`list pods -n ${namespace}`, core.listNamespacedPod({ namespace, labelSelector }));
    const pod = items.find((one) => isRunning(one) && stopped.some((part) => isOf(part, one)));
    if (pod === undefined) return true;
    const { name = "" } = pod.metadata ?? {};
    throw new Error(
      `'${name}' is still there, and nothing that it writes to is stopped before; the same update again waits on. If its node is dead, what it was at is lost: ${kubectl(cluster)} -n ${namespace} delete pod ${name} --force`,
    );
  });
}

/** One that was evicted stays to be looked at, and its ReplicaSet leaves it. */
const isRunning = ({ status }: k8s.V1Pod): boolean => status?.phase !== "Failed" && status?.phase !== "Succeeded";

function isOf(part: Part, { metadata }: k8s.V1Pod): boolean {
  const component = metadata?.labels?.["app.kubernetes.io/component"] ?? "";
  return part === "web" ? component === "web" : component.startsWith("sidekiq-");
}
