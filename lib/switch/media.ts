/** The last copy of media on a volume, before another site takes over: what nobody has brought to the vault yet. */
import * as crypto from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type * as k8s from "@kubernetes/client-node";
import { copyName } from "../../components/media-copy";
import { kubeClient, kubectl } from "../kube";
import { kubernetes } from "../kubernetes";
import { UserError } from "../user-error";
import type { Settings } from "../../settings";

/** Seconds. The server is away meanwhile, and all but the last quarter of an hour is in the vault already. */
const patience = 1800;

/**
 * The Job that `kubectl create job --from=cronjob/...` would make, for a volume that nobody writes to any more: the
 * youngest files are copied as well. Pure.
 */
export function lastCopy({ metadata, spec }: k8s.V1CronJob, name: string): k8s.V1Job {
  const job = structuredClone(spec?.jobTemplate);
  const pod = job?.spec?.template.spec;
  for (const container of pod?.containers ?? []) {
    container.env = [
      ...(container.env ?? []).filter((one) => one.name !== "MIN_AGE"),
      { name: "MIN_AGE", value: "0s" },
    ];
  }
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      ...job?.metadata,
      name,
      annotations: { ...job?.metadata?.annotations, "cronjob.kubernetes.io/instantiate": "manual" },
      ownerReferences: [
        { apiVersion: "batch/v1", kind: "CronJob", name: metadata?.name ?? "", uid: metadata?.uid ?? "" },
      ],
    },
    // Nobody counts this one among the CronJob's own.
    ...(job?.spec === undefined ? {} : { spec: { ...job.spec, ttlSecondsAfterFinished: 3600 } }),
  };
}

/** Brings to the vault what is on a site's volume, and returns when it is there. @throws UserError when it is not */
export async function copyMedia({
  cluster,
  namespace,
  site,
}: Pick<Settings, "cluster" | "namespace" | "site">): Promise<void> {
  const batch = kubeClient(cluster).makeApiClient(kubernetes().BatchV1Api);
  const name = `${copyName}-${crypto.randomBytes(4).toString("hex")}`;
  const look = `${kubectl(cluster)} -n ${namespace} logs job/${name}`;
  const cronJob = await batch.readNamespacedCronJob({ name: copyName, namespace });
  await batch.createNamespacedJob({ namespace, body: lastCopy(cronJob, name) });
  for (const end = Date.now() + patience * 1000; Date.now() < end; await sleep(2000)) {
    // An API server that does not answer for a moment has not stopped the copy.
    const job = await batch.readNamespacedJobStatus({ name, namespace }).catch(() => undefined);
    const said = (wanted: string) =>
      job?.status?.conditions?.find(({ type, status }) => type === wanted && status === "True");
    if (said("Complete") !== undefined) return;
    const failed = said("Failed");
    if (failed !== undefined) {
      throw new UserError(
        `the last copy of ${site}'s media failed: ${failed.message ?? "it does not say why"}; ${look}`,
      );
    }
  }
  throw new UserError(`the last copy of ${site}'s media has not ended within ${patience / 60} min: ${look}`);
}
