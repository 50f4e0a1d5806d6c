/**
 * A doctor's hands in the cluster: a namespace of its own, in which a pod measures a claim of each class that will hold
 * data. Nothing else is ever made, and all of it is deleted.
 */
import type * as k8s from "@kubernetes/client-node";
import type { Settings } from "../../settings";
import { unlessAborted, within } from "../attempt";
import { bundle } from "../bundle";
import { span } from "../drill/verdicts";
import { askPatiently, isPassing, patience, statusOf } from "../kube";
import type { Patience } from "../kube";
import { kubernetes } from "../kubernetes";
import { deleteThrowaway } from "../throwaway";
import { labels, resources, restrictedContainer, restrictedPod } from "../pods";
import type { Measured } from "./fsync";
import { probeBytes } from "./storage";
import type { Disk } from "./storage";

export const doctorNamespace = "homestead-doctor";
/** Says whose namespace it is: nothing without it is ever deleted. */
export const doctorLabel = "homestead/doctor";

/** Seconds of each step; together they bound how long a disk can keep a doctor. */
export const diskSeconds = {
  /** To make a volume, pull an image and start. */
  start: 120,
  /** Of writing and syncing. */
  measure: 20,
  /**
   * For the sync that is under way when those are over, and the one of the file that is written before. A share whose
   * fsync takes a minute is slow, and what the profile `nfs` is for; one that takes longer hangs.
   */
  grace: 130,
  /** For the namespace to go away. */
  cleanUp: 60,
} as const;

/** The label that binds a volume to one node. */
const hostName = "kubernetes.io/hostname";

/** User `node` of the Node.js images. */
const user = 1000;

const meta = (name: string) => ({ name, namespace: doctorNamespace, labels: labels("doctor") });

/** What is made to measure disks with, but for the claims and pods. Pure. */
export function namespaceObjects(site: string, program: string): k8s.KubernetesObject[] {
  const namespace = {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: {
      name: doctorNamespace,
      labels: { [doctorLabel]: site, "pod-security.kubernetes.io/enforce": "restricted" },
    },
  };
  // Nothing of it talks to anybody.
  const policy = {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: meta("default-deny"),
    spec: { podSelector: {}, policyTypes: ["Ingress", "Egress"] },
  };
  const code = { apiVersion: "v1", kind: "ConfigMap", metadata: meta("fsync"), data: { "fsync.js": program } };
  return [namespace, policy, code];
}

/** A class's claim and the pod that measures it. Pure. */
export function diskObjects({ use, storageClass }: Disk, image: string): k8s.KubernetesObject[] {
  const claim = {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: meta(use),
    spec: {
      // As the volume will be asked for: uploads are written from whatever node a pod is on.
      accessModes: [use === "media" ? "ReadWriteMany" : "ReadWriteOnce"],
      ...(storageClass === undefined ? {} : { storageClassName: storageClass }),
      resources: { requests: { storage: `${probeBytes / 1024 ** 3}Gi` } },
    },
  };
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: meta(use),
    spec: {
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      // A doctor that was killed leaves no pod that runs.
      activeDeadlineSeconds: diskSeconds.start + diskSeconds.measure + diskSeconds.grace,
      terminationGracePeriodSeconds: 0,
      securityContext: restrictedPod(user),
      containers: [
        {
          name: "fsync",
          image,
          command: ["node", "/program/fsync.js", "/disk", String(diskSeconds.measure)],
          terminationMessagePolicy: "FallbackToLogsOnError",
          resources: resources("20m", "64Mi", "256Mi"),
          securityContext: restrictedContainer,
          volumeMounts: [
            { name: "program", mountPath: "/program", readOnly: true },
            { name: "disk", mountPath: "/disk" },
          ],
        },
      ],
      volumes: [
        { name: "program", configMap: { name: "fsync" } },
        { name: "disk", persistentVolumeClaim: { claimName: use } },
      ],
    },
  };
  return [claim, pod];
}

/** The cluster did not answer: nothing was learned of a disk. */
export class Unmeasured extends Error {}

export class DiskProbe {
  private readonly core: k8s.CoreV1Api;
  private readonly objects: k8s.KubernetesObjectApi;
  /** What is being made: what may yet be there is waited for before it is looked for. Undefined before anything is. */
  private making: Promise<unknown> | undefined;

  /**
   * @param signal ends every wait at once, except that for the namespace to go away
   * @param limits for tests
   */
  constructor(
    config: k8s.KubeConfig,
    private readonly settings: Pick<Settings, "site" | "images">,
    private readonly signal: AbortSignal,
    private readonly limits: Patience = patience,
  ) {
    this.core = config.makeApiClient(kubernetes().CoreV1Api);
    this.objects = kubernetes().KubernetesObjectApi.makeApiClient(config);
  }

  /**
   * Deletes what an earlier doctor left, and makes the namespace.
   * @throws Error that says why it could not; Unmeasured when that is the cluster's silence
   */
  async begin(): Promise<void> {
    // What an earlier one left has time: this one may be ended while it goes.
    await this.unlessUnanswered(unlessAborted(this.signal, this.cleanUp()));
    await this.unlessUnanswered(this.create(namespaceObjects(this.settings.site, bundle("lib/doctor/fsync-main.ts"))));
  }

  /**
   * @returns what was measured, and the node whose own disk it was; none where the volume is not bound to one
   * @throws Error that says why a class could not be measured; Unmeasured when that is the cluster's silence and not the disk
   */
  async measure(disk: Disk): Promise<{ result: Measured; node?: string }> {
    const { start, measure, grace } = diskSeconds;
    const name = `pods/${disk.use} -n ${doctorNamespace}`;
    await this.unlessUnanswered(this.create(diskObjects(disk, this.settings.images.node)));
    const began = Date.now();
    let running: number | undefined;
    for (;;) {
      const pod = await this.unlessUnanswered(
        this.ask(`get ${name}`, () => this.core.readNamespacedPod({ name: disk.use, namespace: doctorNamespace })),
      );
      const phase = pod.status?.phase;
      if (phase === "Succeeded") {
        const node = (await this.isNodesOwn(disk).catch(() => false)) ? pod.spec?.nodeName : undefined;
        return { result: await this.unlessUnanswered(this.result(disk)), ...(node === undefined ? {} : { node }) };
      }
      if (phase === "Failed") throw new Error(`the pod that measures it failed: ${endOf(pod)}`);
      if (phase === "Running") running ??= Date.now();
      if (running !== undefined && Date.now() - running > (measure + grace) * 1000)
        throw new Error(`an fsync did not come back within ${span(grace)}: the disk hangs`);
      if (running === undefined && Date.now() - began > start * 1000)
        throw new Error(
          `no pod on a claim of it started within ${span(start)}: ${await this.unlessUnanswered(this.stateOf(disk, pod))}`,
        );
      await unlessAborted(this.signal, pause(1));
    }
  }

  /**
   * Deletes the namespace if it is there, and waits until it is gone.
   * @throws Error when it is not a doctor's, or does not go
   */
  async cleanUp(): Promise<void> {
    // Ended before anything was made.
    if (this.signal.aborted && this.making === undefined) return;
    await this.making?.catch(() => undefined);
    const { cleanUp: seconds } = diskSeconds;
    const throwaway = { namespace: doctorNamespace, label: doctorLabel, of: "doctor", seconds };
    await deleteThrowaway(this.core, throwaway, (question, work) => this.patiently(question, work));
  }

  private async create(objects: k8s.KubernetesObject[]): Promise<void> {
    for (const object of objects) {
      let asked = 0;
      const make = () => {
        asked++;
        const made = this.objects.create(object);
        this.making = within(this.limits.seconds, made);
        this.making.catch(() => undefined);
        return made;
      };
      await this.ask(`create ${object.kind} ${object.metadata?.name ?? ""}`, make).catch((error: unknown) => {
        // One whose answer was lost had made it: the namespace is ours, and was empty.
        if (asked === 1 || statusOf(error) !== 409) throw error;
      });
    }
  }

  /** What the cluster answers, in the end. @throws Unanswered */
  private patiently<T>(question: string, work: () => Promise<T>): Promise<T> {
    return askPatiently(question, work, this.signal, this.limits);
  }

  /** The same, unless it is ended meanwhile. @throws what the signal was aborted with */
  private ask<T>(question: string, work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    return unlessAborted(this.signal, this.patiently(question, work));
  }

  /** @throws Unmeasured */
  private async unlessUnanswered<T>(work: Promise<T>): Promise<T> {
    return work.catch((error: unknown) => {
      throw isPassing(error) ? new Unmeasured(error.message) : error;
    });
  }

  private async result({ use }: Disk): Promise<Measured> {
    const log = await this.ask(`get pods/${use} log -n ${doctorNamespace}`, () =>
      this.core.readNamespacedPodLog({ name: use, namespace: doctorNamespace }),
    );
    return JSON.parse(log.trimEnd().split("\n").at(-1) ?? "") as Measured;
  }

  private claim(name: string): Promise<k8s.V1PersistentVolumeClaim> {
    return this.ask(`get persistentvolumeclaims/${name} -n ${doctorNamespace}`, () =>
      this.core.readNamespacedPersistentVolumeClaim({ name, namespace: doctorNamespace }),
    );
  }

  /** Whether a volume that was measured can be had on its own node only. */
  private async isNodesOwn({ use }: Disk): Promise<boolean> {
    const claim = await this.claim(use);
    const name = claim.spec?.volumeName ?? "";
    const { spec } = await this.ask(`get persistentvolumes/${name}`, () => this.core.readPersistentVolume({ name }));
    const terms = spec?.nodeAffinity?.required?.nodeSelectorTerms ?? [];
    return terms.some(({ matchExpressions = [] }) => matchExpressions.some(({ key }) => key === hostName));
  }

  /** What a pod that does not start waits for, in a few words. */
  private async stateOf({ use }: Disk, pod: k8s.V1Pod): Promise<string> {
    const waiting = pod.status?.containerStatuses?.[0]?.state?.waiting;
    const unplaced = pod.status?.conditions?.find(({ type, status }) => type === "PodScheduled" && status === "False");
    const claim = await this.claim(use);
    if (claim.status?.phase !== "Bound" && waiting === undefined)
      return `its claim is ${claim.status?.phase ?? "Pending"}${unplaced?.message === undefined ? "" : ` (${unplaced.message})`}`;
    return [waiting?.reason ?? pod.status?.phase, waiting?.message ?? unplaced?.message]
      .filter((part) => part !== undefined)
      .join(": ")
      .slice(0, 300);
  }
}

const pause = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** The last thing that a pod which failed said. */
function endOf({ status }: k8s.V1Pod): string {
  const message = status?.containerStatuses?.[0]?.state?.terminated?.message ?? status?.message ?? status?.reason;
  return message?.trim().split("\n").at(-1)?.slice(0, 300) ?? "without a word";
}
