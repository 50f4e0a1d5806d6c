/**
 * A schema job that fails takes the reason with it: Helm rolls back, and its pods are gone by the time anyone looks.
 * This watches the chart's Jobs while the program runs, keeps the last lines of each failed pod, and gives them to
 * the person when the release fails.
 */
import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../settings";
import { kubeClient } from "./kube";
import { kubernetes } from "./kubernetes";
import { isPlanning } from "./planning";

/** How many pods of a Job may fail before it is given up. Kubernetes' own 6 takes ten minutes to say no. */
const attempts = 3;
const lines = 20;
const period = 2_000;

/** What is remembered of a Job: the last lines of its last failed pod. */
const failures = new Map<string, string>();

/**
 * Starts the watch (not in a preview, nor for a plan) and returns the hook that reports.
 * @param jobs names of the Jobs to watch.
 */
export function reportFailedJobs(
  cluster: Settings["cluster"],
  namespace: pulumi.Input<string>,
  jobs: readonly string[],
): pulumi.ErrorHook {
  if (!isPlanning() && !pulumi.runtime.isDryRun()) {
    pulumi.output(namespace).apply((name) => {
      watch(cluster, name, jobs);
    });
  }
  return new pulumi.ErrorHook("report-failed-jobs", () => {
    for (const [job, log] of failures) void pulumi.log.error(`job ${job} failed; its last lines:\n${log}`);
    failures.clear();
    return false;
  });
}

function watch(cluster: Settings["cluster"], namespace: string, jobs: readonly string[]): void {
  const config = kubeClient(cluster);
  const core = config.makeApiClient(kubernetes().CoreV1Api);
  const batch = config.makeApiClient(kubernetes().BatchV1Api);
  const seen = new Map<string, Set<string>>();
  const look = async () => {
    const pods = await core.listNamespacedPod({
      namespace,
      labelSelector: `batch.kubernetes.io/job-name in (${jobs.join(",")})`,
    });
    for (const pod of pods.items) {
      const job = pod.metadata?.labels?.["batch.kubernetes.io/job-name"] ?? "";
      const name = pod.metadata?.name ?? "";
      const before = seen.get(job) ?? new Set<string>();
      if (pod.status?.phase !== "Failed" || before.has(name)) continue;
      seen.set(job, before.add(name));
      failures.set(job, (await core.readNamespacedPodLog({ name, namespace, tailLines: lines })).trimEnd());
      if (before.size >= attempts) {
        await batch.patchNamespacedJob(
          { name: job, namespace, body: { spec: { backoffLimit: attempts - 1 } } },
          kubernetes().setHeaderOptions("Content-Type", kubernetes().PatchStrategy.MergePatch),
        );
      }
    }
  };
  // The watch is a courtesy: it may fail, and it must not keep the program alive.
  setInterval(() => void look().catch(() => undefined), period).unref();
}
