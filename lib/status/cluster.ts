/** What a status reads in the cluster. Everything throws an Error with one line; nothing waits for ever. */
import type * as k8s from "@kubernetes/client-node";
import { copyName } from "../../components/media-copy";
import { timelineQuery } from "../archive";
import type { Position } from "../archive";
import { kubernetes } from "../kubernetes";
import { execInPod } from "../pod-exec";
import { unlessMissing } from "../kube";
import { readGate } from "./lease";
import type { Running } from "./lease";
import type { Archiver, CopyRuns, DatabaseState, Pods, Workload } from "./lines";

/** The names of Mastodon's queues and what else Sidekiq keeps; the password goes from file to environment, in the pod. */
const queueScript = (queues: readonly string[]) => `
cli=$(command -v valkey-cli || command -v redis-cli)
REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /etc/valkey/secret/password.conf)
export REDISCLI_AUTH
for q in ${queues.join(" ")}; do echo "queue $q $($cli LLEN queue:$q) $($cli LINDEX queue:$q -1)"; done
for s in retry schedule dead; do echo "set $s $($cli ZCARD $s)"; done
$cli INFO persistence
`;

const archiverQuery = `SELECT json_build_object('now', extract(epoch from now()), 'lastArchived', extract(epoch from last_archived_time),
  'lastArchivedWal', last_archived_wal, 'lastFailed', extract(epoch from last_failed_time), 'insertLsn', pg_current_wal_insert_lsn(),
  'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')) FROM pg_stat_archiver`;

const replayedQuery = `SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn(), '0/0'),
  extract(epoch from now() - pg_last_xact_replay_timestamp()), ${timelineQuery}`;

export class StatusCluster {
  private readonly core: k8s.CoreV1Api;
  private readonly apps: k8s.AppsV1Api;
  private readonly batch: k8s.BatchV1Api;
  private readonly custom: k8s.CustomObjectsApi;

  constructor(
    private readonly config: k8s.KubeConfig,
    private readonly namespace: string,
  ) {
    this.core = config.makeApiClient(kubernetes().CoreV1Api);
    this.apps = config.makeApiClient(kubernetes().AppsV1Api);
    this.batch = config.makeApiClient(kubernetes().BatchV1Api);
    this.custom = config.makeApiClient(kubernetes().CustomObjectsApi);
  }

  /** Version of the API server. */
  async version(): Promise<string> {
    return (await this.config.makeApiClient(kubernetes().VersionApi).getCode()).gitVersion;
  }

  async workloads(now: number): Promise<Workload[]> {
    const { namespace } = this;
    const [deployments, sets, pods] = await Promise.all([
      this.apps.listNamespacedDeployment({ namespace }),
      this.apps.listNamespacedStatefulSet({ namespace }),
      this.core.listNamespacedPod({ namespace }),
    ]);
    return [...deployments.items, ...sets.items].map(({ metadata, spec, status }) => {
      const wanted = spec?.selector.matchLabels ?? {};
      const own = pods.items.filter(({ metadata: pod }) =>
        Object.entries(wanted).every(([key, value]) => pod?.labels?.[key] === value),
      );
      return {
        name: metadata?.name ?? "",
        wanted: spec?.replicas ?? 1,
        ready: status?.readyReplicas ?? 0,
        images: (spec?.template.spec?.containers ?? []).map(({ image }) => image ?? ""),
        ...restartsOf(own, now),
      };
    });
  }

  /** What the site's Valkey was started for, and what its gate goes by. */
  async running(): Promise<Running> {
    const { namespace } = this;
    const set = await this.apps.readNamespacedStatefulSet({ name: "valkey", namespace }).catch(unlessMissing);
    if ((set?.spec?.replicas ?? 0) === 0) return { valkey: "none" };
    const keeper = set?.spec?.template.spec?.containers.find(({ name }) => name === "keeper");
    if (keeper === undefined) return { valkey: "ungated" };
    const told = (variable: string) => keeper.env?.find(({ name }) => name === variable)?.value;
    const [epoch, cluster] = [Number(told("EPOCH")), told("CLUSTER")];
    const [reading, log] = await Promise.all([
      this.mark().catch(() => undefined),
      this.core
        .readNamespacedPodLog({ name: "valkey-0", namespace, container: "valkey", tailLines: 500 })
        .catch(() => ""),
    ]);
    return { valkey: "gated", epoch, ...(cluster === undefined ? {} : { cluster }), gate: readGate(reading, log) };
  }

  /** The mark that the gate goes by and the machine's uptime, a line each; asked of the keeper, which always runs. */
  private mark(): Promise<string> {
    return execInPod(this.config, {
      namespace: this.namespace,
      pod: "valkey-0",
      container: "keeper",
      command: ["sh", "-c", "{ cat /gate/mark 2>/dev/null || echo; } && cat /proc/uptime"],
      seconds: 10,
    });
  }

  /** Where a database that follows has got to. @returns undefined when it writes by itself */
  async replayed(name: string): Promise<(Position & { age?: number }) | undefined> {
    const text = await this.psql(name, replayedQuery);
    const [follows, lsn = "0/0", age = "", timeline] = text.trim().split("|");
    if (follows !== "t") return undefined;
    return { lsn, timeline: Number(timeline), ...(age === "" ? {} : { age: Number(age) }) };
  }

  async database(name: string, now: number): Promise<DatabaseState | undefined> {
    const { namespace } = this;
    const of = { group: "postgresql.cnpg.io", version: "v1", plural: "clusters", namespace, name };
    const object: unknown = await this.custom.getNamespacedCustomObject(of).catch(unlessMissing);
    if (object === undefined) return undefined;
    // Without those of its jobs, which have ended.
    const labelSelector = `cnpg.io/cluster=${name},cnpg.io/podRole=instance`;
    const pods = (await this.core.listNamespacedPod({ namespace, labelSelector })).items;
    const { status } = object as {
      status?: { phase?: string; conditions?: { type: string; status: string; message?: string }[] };
    };
    const conditions = status?.conditions ?? [];
    const bad = conditions.filter(({ type, status: is }) => type !== "Ready" && is === "False");
    return {
      phase: status?.phase ?? "no phase yet",
      ready: conditions.some(({ type, status: is }) => type === "Ready" && is === "True"),
      troubles: Object.fromEntries(bad.map(({ type, message }) => [type, message?.split("\n")[0] ?? ""])),
      pods: {
        images: pods.flatMap(({ spec }) => (spec?.containers ?? []).map(({ image }) => image ?? "")),
        ...restartsOf(pods, now),
      },
    };
  }

  async archiver(name: string): Promise<Archiver> {
    return JSON.parse(await this.psql(name, archiverQuery)) as Archiver;
  }

  private async psql(name: string, statement: string): Promise<string> {
    const labelSelector = `cnpg.io/cluster=${name},cnpg.io/instanceRole=primary`;
    const [pod] = (await this.core.listNamespacedPod({ namespace: this.namespace, labelSelector })).items;
    if (!pod?.metadata?.name) throw new Error("the database has no primary");
    return execInPod(this.config, {
      namespace: this.namespace,
      pod: pod.metadata.name,
      container: "postgres",
      command: ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", statement],
      seconds: 15,
    });
  }

  /** How the copies of the media volume ended. @returns undefined when nothing makes them */
  async copyRuns(): Promise<CopyRuns | undefined> {
    const { namespace } = this;
    const cronJob = await this.batch.readNamespacedCronJob({ name: copyName, namespace }).catch(unlessMissing);
    if (cronJob === undefined) return undefined;
    const jobs = (await this.batch.listNamespacedJob({ namespace })).items.filter(({ metadata }) =>
      metadata?.ownerReferences?.some(({ kind, name }) => kind === "CronJob" && name === copyName),
    );
    const seconds = (moment: Date | undefined) => (moment === undefined ? [] : [moment.getTime() / 1000]);
    const good = [cronJob.status?.lastSuccessfulTime, ...jobs.map(({ status }) => status?.completionTime)];
    const failed = jobs.flatMap(({ metadata, status }) => {
      const why = status?.conditions?.find(({ type, status: is }) => type === "Failed" && is === "True");
      return seconds(why?.lastTransitionTime).map((at) => ({
        at,
        job: metadata?.name ?? "",
        why: why?.reason ?? "it does not say why",
      }));
    });
    const lastGood = good.flatMap(seconds).sort((a, b) => b - a)[0];
    const lastFailed = failed.sort((a, b) => b.at - a.at)[0];
    return {
      ...(lastGood === undefined ? {} : { lastGood }),
      ...(lastFailed === undefined ? {} : { lastFailed }),
    };
  }

  queues(names: readonly string[]): Promise<string> {
    return execInPod(this.config, {
      namespace: this.namespace,
      pod: "valkey-0",
      container: "valkey",
      command: ["sh", "-c", queueScript(names)],
      seconds: 15,
    });
  }
}

function restartsOf(pods: k8s.V1Pod[], now: number): Omit<Pods, "images"> {
  const containers = pods.flatMap(({ status }) => status?.containerStatuses ?? []);
  const ends = containers.flatMap(({ lastState }) => lastState?.terminated?.finishedAt?.getTime() ?? []);
  const waiting = containers.map(({ state }) => state?.waiting?.reason).find((reason) => reason !== undefined);
  return {
    restarts: containers.reduce((sum, { restartCount }) => sum + restartCount, 0),
    ...(ends.length > 0 ? { lastEndSeconds: now - Math.max(...ends) / 1000 } : {}),
    ...(waiting !== undefined ? { waiting } : {}),
  };
}
