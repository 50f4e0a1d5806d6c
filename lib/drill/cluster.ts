/** A drill's hands in the cluster: it makes, waits for, asks and deletes what is in the throwaway namespace. */
import * as http from "node:http";
import type * as k8s from "@kubernetes/client-node";
import { Late, reason, unlessAborted } from "../attempt";
import { apiServerSlices, ask, askPatiently, isPassing, patience, statusOf, Unanswered, unlessMissing } from "../kube";
import type { Patience } from "../kube";
import { kubernetes } from "../kubernetes";
import { execInPod } from "../pod-exec";
import { deleteThrowaway } from "../throwaway";
import { webImage } from "../upgrade-backup";
import { UserError } from "../user-error";
import { notCompared, span } from "./verdicts";
import type { RowCounts } from "./verdicts";
import { drillLabel, drillNamespace } from "./manifests";

/** A wait that ended without what was waited for; its message says what there was instead. */
export class DrillFailure extends Error {
  override name = "DrillFailure";
}

interface CnpgCluster {
  status?: { phase?: string; phaseReason?: string; conditions?: { type: string; status: string }[] };
}

const namespace = drillNamespace;

/** Rows of all tables but those that are not compared, all in one snapshot. */
export const countQuery = `SELECT coalesce(json_object_agg(relname, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM public.%I', relname), false, true, '')))[1]::text::bigint), '{}')
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND relname <> ALL (ARRAY[${Object.keys(notCompared)
    .map((table) => `'${table}'`)
    .join(",")}])`;

/** Of a whole database, on a slow disk. */
const countSeconds = 600;

/** As `kubectl auth can-i` takes it: `create clusters.postgresql.cnpg.io -n homestead-drill`. */
function creationOf({ apiVersion = "", kind = "", metadata }: k8s.KubernetesObject): string {
  const group = apiVersion.includes("/") ? `.${apiVersion.split("/")[0] ?? ""}` : "";
  const kinds = kind.toLowerCase().replace(/y$/, "ie");
  const where = metadata?.namespace === undefined ? "" : ` -n ${metadata.namespace}`;
  return `create ${kinds}s${group}${where}`;
}

export class DrillCluster {
  private readonly core: k8s.CoreV1Api;
  private readonly batch: k8s.BatchV1Api;
  private readonly custom: k8s.CustomObjectsApi;
  private readonly objects: k8s.KubernetesObjectApi;

  /**
   * @param signal ends every wait at once, except that for the namespace to go away
   * @param limits for tests
   */
  constructor(
    private readonly config: k8s.KubeConfig,
    private readonly signal: AbortSignal,
    private readonly limits: Patience = patience,
  ) {
    this.core = config.makeApiClient(kubernetes().CoreV1Api);
    this.batch = config.makeApiClient(kubernetes().BatchV1Api);
    this.custom = config.makeApiClient(kubernetes().CustomObjectsApi);
    this.objects = kubernetes().KubernetesObjectApi.makeApiClient(config);
  }

  async create(objects: k8s.KubernetesObject[]): Promise<void> {
    for (const object of objects) {
      let asked = 0;
      const make = () => {
        asked++;
        return this.objects.create(object);
      };
      this.signal.throwIfAborted();
      // Waited for in any case: what comes to be after the clean-up has looked would stay.
      await this.patiently(creationOf(object), make).catch((error: unknown) => {
        // One whose answer was lost had made it: the namespace is ours, and was empty.
        if (asked === 1 || statusOf(error) !== 409) throw error;
      });
    }
  }

  /** Addresses of the API server, as pods see it before and after their node has translated the Service's. */
  async apiServer(): Promise<{ addresses: string[]; port: number }[]> {
    const service = await this.ask("get services/kubernetes -n default", () =>
      this.core.readNamespacedService({ name: "kubernetes", namespace: "default" }),
    );
    const slices = await this.ask("list endpointslices.discovery.k8s.io -n default", () =>
      apiServerSlices(this.config),
    );
    return [
      { addresses: service.spec?.clusterIPs ?? [], port: service.spec?.ports?.[0]?.port ?? 443 },
      ...slices.map((slice) => ({
        addresses: (slice.endpoints ?? []).flatMap(({ addresses }) => addresses),
        port: slice.ports?.[0]?.port ?? 6443,
      })),
    ].filter(({ addresses }) => addresses.length > 0);
  }

  /** Environment of Mastodon's pods on the site. @throws UserError when the site has none */
  async siteEnvironment(site: string, inNamespace: string): Promise<Record<string, string>> {
    const found = await this.ask(`get configmaps/mastodon-env -n ${inNamespace}`, () =>
      this.core.readNamespacedConfigMap({ name: "mastodon-env", namespace: inNamespace }),
    ).catch(unlessMissing);
    if (found === undefined)
      throw new UserError(`${site} runs no Mastodon (there is no ConfigMap mastodon-env): pulumi up --stack ${site}`);
    return found.data ?? {};
  }

  /** The image of Mastodon that runs on the site; undefined where none does. */
  async mastodonImage(inNamespace: string): Promise<string | undefined> {
    const apps = this.config.makeApiClient(kubernetes().AppsV1Api);
    const web = await this.ask(`get deployments.apps/mastodon-web -n ${inNamespace}`, () =>
      apps.readNamespacedDeployment({ name: "mastodon-web", namespace: inNamespace }),
    ).catch(unlessMissing);
    return web && webImage(web);
  }

  /** Waits until a restored database answers. */
  async databaseReady(name: string, seconds: number): Promise<void> {
    await this.until(seconds, `the restore of the database '${name}'`, async () => {
      const of = { group: "postgresql.cnpg.io", version: "v1", plural: "clusters", namespace, name };
      const question = `get clusters.postgresql.cnpg.io/${name} -n ${namespace}`;
      const object: unknown = await ask(question, this.custom.getNamespacedCustomObject(of));
      const { status } = object as CnpgCluster;
      if (status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True")) return "done";
      const failed = await this.failedPods(`cnpg.io/cluster=${name}`);
      if (failed.length >= 2)
        throw new DrillFailure(`the restore of the database '${name}' failed: ${await this.lastWords(failed[0])}`);
      return [status?.phase, status?.phaseReason].filter((part) => part).join(", ") || "not begun";
    });
  }

  /** Waits for the report's Job. @returns what it wrote */
  async report(seconds: number): Promise<string> {
    const selector = "batch.kubernetes.io/job-name=report";
    await this.until(seconds, "Mastodon's report", async () => {
      const job = this.batch.readNamespacedJob({ name: "report", namespace });
      const { status } = await ask(`get jobs.batch/report -n ${namespace}`, job);
      if ((status?.succeeded ?? 0) > 0) return "done";
      if (status?.conditions?.some(({ type, status: is }) => type === "Failed" && is === "True")) {
        const [pod] = await this.failedPods(selector);
        throw new DrillFailure(`Mastodon does not start on the restored database: ${await this.lastWords(pod)}`);
      }
      return this.podState(selector);
    });
    const pod = (await this.pods(selector)).find(({ status }) => status?.phase === "Succeeded");
    return this.logOf(pod?.metadata?.name ?? "");
  }

  /** Waits until the web process is healthy. */
  async webReady(seconds: number): Promise<void> {
    await this.until(seconds, "Mastodon's health check on the restored database", async () => {
      const read = this.core.readNamespacedPod({ name: "web", namespace });
      const pod = await ask(`get pods/web -n ${namespace}`, read);
      if (pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True")) return "done";
      if (pod.status?.phase === "Failed")
        throw new DrillFailure(`Mastodon's web process ends on the restored database: ${await this.lastWords("web")}`);
      return pod.status?.phase ?? "not begun";
    });
  }

  /** Rows of one of the restored databases. */
  countRestored(name: string): Promise<RowCounts> {
    return this.sql(namespace, name, countQuery).then(parseCounts);
  }

  /** Rows of the live database, and its newest segment of WAL once everything counted is in it. */
  async countLive(inNamespace: string): Promise<{ rows: RowCounts; segment: string }> {
    const out = await this.sql(inNamespace, undefined, `${countQuery}; SELECT pg_walfile_name(pg_switch_wal())`);
    const [rows = "{}", segment = ""] = out.trim().split("\n");
    return { rows: parseCounts(rows), segment };
  }

  /** Waits until a segment is in the archive, as the live database says. */
  async archived(inNamespace: string, segment: string, seconds: number): Promise<void> {
    // Not the timeline's first eight digits: segments are compared as positions.
    const look = async () => {
      const last = (await this.sql(inNamespace, undefined, "SELECT last_archived_wal FROM pg_stat_archiver")).trim();
      return last.slice(8, 24) >= segment.slice(8) ? "done" : `the last one archived is ${last || "none"}`;
    };
    await this.until(seconds, `WAL segment ${segment} in the archive`, () =>
      look().catch((error: unknown) => {
        if (error instanceof DrillFailure) return error.message;
        throw error;
      }),
    );
  }

  /** @param cluster undefined: the one that runs; those of earlier generations sleep */
  private async sql(inNamespace: string, cluster: string | undefined, statements: string): Promise<string> {
    const labelSelector = `cnpg.io/cluster${cluster === undefined ? "" : `=${cluster}`},cnpg.io/instanceRole=primary`;
    const which = cluster === undefined ? "the database" : `the restored database '${cluster}'`;
    for (let left = this.limits.tries - 1; ; left--) {
      try {
        const [pod] = await this.pods(labelSelector, inNamespace);
        if (!pod?.metadata?.name) throw new DrillFailure(`${which} has no primary`);
        return await this.psql(inNamespace, pod.metadata.name, statements);
      } catch (error) {
        this.signal.throwIfAborted();
        if (error instanceof Unanswered) throw error;
        // What took so long is not asked for again.
        if (left === 0 || error instanceof Late)
          throw error instanceof DrillFailure ? error : new DrillFailure(`${which} cannot be asked: ${reason(error)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, this.limits.pause * 1000));
    }
  }

  private async psql(inNamespace: string, pod: string, statements: string): Promise<string> {
    try {
      return await execInPod(this.config, {
        namespace: inNamespace,
        pod,
        container: "postgres",
        command: ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "mastodon"],
        input: `${statements};\n`,
        seconds: countSeconds,
        signal: this.signal,
      });
    } catch (error) {
      const [, refused] = /Unexpected server response: (40[13])$/.exec(reason(error)) ?? [];
      if (refused === undefined) throw error;
      const says = `${refused}, ${http.STATUS_CODES[refused] ?? ""}`;
      throw new Unanswered(`create pods --subresource=exec -n ${inNamespace}`, says, Number(refused));
    }
  }

  /** Deletes the namespace if it is there, and waits until it is gone. @returns whether there was one */
  cleanUp(seconds = 300): Promise<boolean> {
    const throwaway = { namespace, label: drillLabel, of: "drill", seconds };
    return deleteThrowaway(this.core, throwaway, (question, work) => this.patiently(question, work));
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

  private async failedPods(labelSelector: string): Promise<string[]> {
    const found = await this.pods(labelSelector);
    return found.filter(({ status }) => status?.phase === "Failed").map(({ metadata }) => metadata?.name ?? "");
  }

  private async podState(labelSelector: string): Promise<string> {
    const [pod] = await this.pods(labelSelector);
    const waiting = pod?.status?.containerStatuses?.[0]?.state?.waiting;
    return waiting?.reason ?? pod?.status?.phase ?? "no pod";
  }

  /** The last line that a pod wrote. */
  private async lastWords(name: string | undefined): Promise<string> {
    if (name === undefined) return "its pod is gone";
    try {
      const log = await this.logOf(name, 20);
      return log.trimEnd().split("\n").at(-1)?.slice(0, 500) ?? "";
    } catch (error) {
      return reason(error);
    }
  }

  private async pods(labelSelector: string, inNamespace: string = namespace): Promise<k8s.V1Pod[]> {
    const list = () => this.core.listNamespacedPod({ namespace: inNamespace, labelSelector });
    return (await this.ask(`list pods -n ${inNamespace}`, list)).items;
  }

  private logOf(name: string, tailLines?: number): Promise<string> {
    const lines = tailLines === undefined ? {} : { tailLines };
    const read = () => this.core.readNamespacedPodLog({ name, namespace, ...lines });
    return this.ask(`get pods --subresource=log -n ${namespace}`, read);
  }

  /** Looks every two seconds. @param look says "done", or what there is instead */
  private async until(seconds: number, what: string, look: () => Promise<string>): Promise<void> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      this.signal.throwIfAborted();
      const state = await look().catch((error: unknown) => {
        // A question that got no answer is put again, and one that was refused is not.
        if (!isPassing(error)) throw error;
        return error.message;
      });
      if (state === "done") return;
      if (Date.now() > end) throw new DrillFailure(`${what}: not within ${span(seconds)}; last seen: ${state}`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

const parseCounts = (text: string): RowCounts => JSON.parse(text.trim()) as RowCounts;
