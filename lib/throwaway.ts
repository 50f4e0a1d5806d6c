/** A namespace that is made for a while and deleted with all it holds: a doctor's, a drill's. */
import type * as k8s from "@kubernetes/client-node";
import { span } from "./drill/verdicts";
import { isPassing, unlessMissing } from "./kube";
import { kubernetes } from "./kubernetes";
import { UserError } from "./user-error";

export interface Throwaway {
  namespace: string;
  /** Says whose namespace it is: nothing without it is ever deleted. */
  label: string;
  /** Such as `drill`, for a person. */
  of: string;
  /** How long it may take to go away. */
  seconds: number;
}

/** Puts a question to the cluster, and says in its own way that no answer came. */
export type Put = <T>(question: string, work: () => Promise<T>) => Promise<T>;

/**
 * Deletes the namespace if it is there, and waits until it is gone.
 *
 * @returns whether there was one
 * @throws UserError when it is somebody else's, or does not go; what `put` throws, where that was the last there was to see
 */
export async function deleteThrowaway(core: k8s.CoreV1Api, throwaway: Throwaway, put: Put): Promise<boolean> {
  const { namespace, label, of, seconds } = throwaway;
  const look = () =>
    put(`get namespaces/${namespace}`, () => core.readNamespace({ name: namespace })).catch(unlessMissing);
  const found = await look();
  if (found === undefined) return false;
  if (found.metadata?.labels?.[label] === undefined)
    throw new UserError(
      `the namespace ${namespace} is none of a ${of}'s (it lacks the label ${label}): look into it and delete it`,
    );
  await releaseVolumes(core, namespace, put);
  await put(`delete namespaces/${namespace}`, () => core.deleteNamespace({ name: namespace })).catch(unlessMissing);
  const end = Date.now() + seconds * 1000;
  let why: Error;
  do {
    try {
      if ((await look()) === undefined) return true;
      why = new UserError(`the namespace ${namespace} is still not gone after ${span(seconds)}`);
    } catch (error) {
      // It goes all the same: who asks is only not told.
      if (!isPassing(error)) throw error;
      why = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  } while (Date.now() <= end);
  throw why;
}

/** A class that retains volumes would keep one, with what is on it, for each namespace that was ever made. */
async function releaseVolumes(core: k8s.CoreV1Api, namespace: string, put: Put): Promise<void> {
  const volumes = await put("list persistentvolumes", () => core.listPersistentVolume());
  for (const { metadata, spec } of volumes.items) {
    if (spec?.claimRef?.namespace !== namespace || spec.persistentVolumeReclaimPolicy === "Delete") continue;
    const name = metadata?.name ?? "";
    await put(`patch persistentvolumes/${name}`, () =>
      core.patchPersistentVolume(
        { name, body: { spec: { persistentVolumeReclaimPolicy: "Delete" } } },
        kubernetes().setHeaderOptions("Content-Type", kubernetes().PatchStrategy.MergePatch),
      ),
    );
  }
}
