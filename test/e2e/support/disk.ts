/** The home cluster's slow disk, and the first owner's Redis on it: the control group. */
import type { Cluster, KubeObject } from "./cluster";
import type { Lab } from "./lab";
import { atExit, sleep } from "./processes";

/** Storage class of the lab's home cluster whose fsync can be slowed. */
export const slowClass = "nfs-client";

export interface Mode {
  /** As `lab slow home` takes it: what an fsync takes on top, or `hang`. */
  name: string;
  seconds: number;
}

/**
 * Takes the disk through some modes, and leaves it as fast as it is, however that ends.
 * @param begun called when the first of them is there.
 */
export async function slowed(lab: Lab, modes: readonly Mode[], begun: () => void): Promise<void> {
  const off = atExit(() => lab.run(["slow", "home", "off"]));
  try {
    for (const [i, { name, seconds }] of modes.entries()) {
      console.log(
        `      ${name === "hang" ? "every operation hangs" : `every fsync takes ${name} more`}, ${seconds} s`,
      );
      await lab.run(["slow", "home", name]);
      if (i === 0) begun();
      await sleep(seconds * 1000);
    }
  } finally {
    await off();
  }
}

// ---------------------------------------------------------------- restarts

interface ContainerStatus {
  name: string;
  restartCount: number;
  state?: { running?: unknown };
  lastState?: { terminated?: { reason?: string; exitCode?: number } };
}

/** The containers of a pod, side-cars that Kubernetes lists among the init containers included. */
export function containersOf(pod: KubeObject): ContainerStatus[] {
  const list = (key: string) => (pod.status?.[key] ?? []) as ContainerStatus[];
  return [...list("initContainerStatuses"), ...list("containerStatuses")];
}

/** Pods that are to run on: not those of Jobs, which end. */
export const lasting = (pods: readonly KubeObject[]): KubeObject[] =>
  pods.filter(
    ({ metadata }) => metadata.ownerReferences !== undefined && !metadata.ownerReferences.some((o) => o.kind === "Job"),
  );

/** What was restarted or replaced between two looks at the same namespaces, one line each. */
export function restarts(before: readonly KubeObject[], after: readonly KubeObject[]): string[] {
  const now = new Map(after.map((pod) => [pod.metadata.uid, pod]));
  return lasting(before).flatMap((pod) => {
    const { name, uid } = pod.metadata;
    const same = now.get(uid);
    if (same === undefined) return [`${name} is gone`];
    const counts = new Map(containersOf(pod).map((container) => [container.name, container.restartCount]));
    return containersOf(same).flatMap((container) => {
      const times = container.restartCount - (counts.get(container.name) ?? 0);
      if (times === 0) return [];
      const { reason = "no reason", exitCode } = container.lastState?.terminated ?? {};
      return [`${name}/${container.name} was restarted ${times} times (${reason}, exit code ${exitCode ?? "?"})`];
    });
  });
}

export const isReady = (pod: KubeObject | undefined): boolean =>
  (pod?.status?.["conditions"] as { type: string; status: string }[] | undefined)?.some(
    ({ type, status }) => type === "Ready" && status === "True",
  ) === true;

// ---------------------------------------------------------------- the control group

const controlNamespace = "e2e-control";

/**
 * A Redis as the first owner had it: an append-only file synced every second, and the probes of the chart that he
 * used (bitnami/redis: `redis-cli ping`, liveness 5 x 5 s, readiness 5 x 1 s), with something written ten times a second.
 */
export function oldRedis(image: string, storageClass: string): string {
  const ping = (seconds: number) => ({
    exec: { command: ["sh", "-c", `[ "$(timeout ${seconds} valkey-cli -h 127.0.0.1 ping)" = PONG ]`] },
    initialDelaySeconds: 5,
    periodSeconds: 5,
    failureThreshold: 5,
  });
  const user = { runAsUser: 999, runAsGroup: 999, fsGroup: 999 };
  return JSON.stringify({
    apiVersion: "v1",
    kind: "List",
    items: [
      { apiVersion: "v1", kind: "Namespace", metadata: { name: controlNamespace } },
      {
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        metadata: { name: "redis", namespace: controlNamespace },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: storageClass,
          resources: { requests: { storage: "1Gi" } },
        },
      },
      {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "redis", namespace: controlNamespace },
        spec: {
          securityContext: user,
          automountServiceAccountToken: false,
          containers: [
            {
              name: "redis",
              image,
              imagePullPolicy: "IfNotPresent",
              command: ["valkey-server", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", "/data"],
              livenessProbe: { ...ping(5), timeoutSeconds: 5 },
              readinessProbe: { ...ping(1), timeoutSeconds: 1 },
              volumeMounts: [{ name: "data", mountPath: "/data" }],
            },
            {
              name: "writer",
              image,
              imagePullPolicy: "IfNotPresent",
              command: [
                "sh",
                "-c",
                'while :; do timeout 5 valkey-cli -h 127.0.0.1 rpush queue "$(date)" > /dev/null 2>&1; sleep 0.1; done',
              ],
            },
          ],
          volumes: [{ name: "data", persistentVolumeClaim: { claimName: "redis" } }],
        },
      },
    ],
  });
}

/** Watches the control group's pod. */
export class OldRedis {
  private unready = 0;
  private constructor(
    private readonly cluster: Cluster,
    private readonly going: { still: boolean },
  ) {}

  /** Starts a new one, and begins to watch once it is ready. */
  static async start(cluster: Cluster, image: string): Promise<OldRedis> {
    // One of before has been killed already, or is still on its way out.
    await cluster.kubectl(["delete", "namespace", controlNamespace, "--ignore-not-found", "--timeout=90s"]);
    await cluster.apply(oldRedis(image, slowClass));
    await cluster.kubectl(["wait", "-n", controlNamespace, "pod/redis", "--for=condition=Ready", "--timeout=90s"]);
    const going = { still: true };
    const redis = new OldRedis(cluster, going);
    atExit(() => (going.still = false));
    void redis.watch();
    return redis;
  }

  private async watch(): Promise<void> {
    while (this.going.still) {
      const pod = await this.cluster.get("pod", "redis", controlNamespace).catch(() => undefined);
      if (pod !== undefined && !isReady(pod)) this.unready++;
      await sleep(1000);
    }
  }

  /** @throws Error that says what happened to it, if it has not been both unready and killed by its probe */
  async mustHaveBeenKilled(): Promise<void> {
    const pod = await this.cluster.get("pod", "redis", controlNamespace);
    const redis = pod && containersOf(pod).find(({ name }) => name === "redis");
    const events = (await this.cluster.list("events", controlNamespace)) as (KubeObject & Record<string, unknown>)[];
    const killed = events.some(
      ({ reason, message }) => reason === "Killing" && /redis failed liveness probe/.test(String(message)),
    );
    if (this.unready > 0 && killed && (redis?.restartCount ?? 0) > 0) {
      console.log(`      unready at ${this.unready} looks a second apart, restarted ${redis?.restartCount} times`);
      return;
    }
    throw new Error(
      `unready at ${this.unready} looks, ${killed ? "" : "not "}killed by its probe, ${redis?.restartCount} restarts`,
    );
  }

  /** Ends it with all it has. */
  async stop(): Promise<void> {
    this.going.still = false;
    await this.cluster.kubectl(["delete", "namespace", controlNamespace, "--wait=false"]);
  }
}
