/** One cluster, by kubectl: reading, executing, and emptying it before a scenario. */
import * as crypto from "node:crypto";
import { parse } from "yaml";
import { Lab } from "./lab";
import { allOf, eventually, must, run, tail } from "./processes";
import type { Outcome, RunOptions } from "./processes";
import type { ClusterAccess, Environment } from "./environment";

/** The parts of a Kubernetes object the suite looks at. */
export interface KubeObject {
  apiVersion?: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    uid: string;
    resourceVersion: string;
    creationTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: { kind: string; name: string }[];
    managedFields?: unknown;
    deletionTimestamp?: string;
  };
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
  data?: Record<string, string>;
  stringData?: Record<string, string>;
  binaryData?: Record<string, string>;
}

/** Everything the program makes outside its own namespace. */
const namespaces = ["homestead", "cert-manager", "cnpg-system"];
const releases = ["cert-manager", "cloudnative-pg", "plugin-barman-cloud", "mastodon"];
const definitions = /\.(cert-manager\.io|cnpg\.io)$/;
/** Kinds in which whatever was done with a cluster shows. */
const telling =
  "namespaces,customresourcedefinitions,persistentvolumes,clusterroles,validatingwebhookconfigurations,mutatingwebhookconfigurations";
/** Kinds that change by themselves, or whose objects say nothing about what was asked for. */
const restless = new Set(["Event", "Lease", "Endpoints", "EndpointSlice", "PodMetrics", "ControllerRevision"]);

export class Cluster {
  constructor(
    readonly access: ClusterAccess,
    private readonly environment: Environment,
  ) {}

  private args(args: string[]): string[] {
    return ["--kubeconfig", this.access.kubeconfig, "--context", this.access.context, ...args];
  }

  /** kubectl that must succeed. @returns its standard output */
  kubectl(args: string[], options: RunOptions = {}): Promise<string> {
    return must("kubectl", this.args(args), { env: this.environment.childEnv, ...options });
  }

  /** kubectl that may fail. */
  tryKubectl(args: string[], options: RunOptions = {}): Promise<Outcome> {
    return run("kubectl", this.args(args), { env: this.environment.childEnv, ...options });
  }

  /** One object, or undefined if there is none. */
  async get(kind: string, name: string, namespace?: string): Promise<KubeObject | undefined> {
    const text = await this.kubectl([
      "get",
      kind,
      name,
      "--ignore-not-found",
      "-o",
      "json",
      ...(namespace ? ["-n", namespace] : []),
    ]);
    return text.trim() === "" ? undefined : (JSON.parse(text) as KubeObject);
  }

  /** All objects of some kinds. */
  async list(kinds: string, namespace?: string, selector?: string): Promise<KubeObject[]> {
    const where = namespace ? ["-n", namespace] : ["-A"];
    const text = await this.kubectl(["get", kinds, ...where, ...(selector ? ["-l", selector] : []), "-o", "json"]);
    return (JSON.parse(text) as { items: KubeObject[] }).items;
  }

  /** Pods of ours by their name label, those that are on their way out left aside. */
  async pods(namespace: string, selector?: string): Promise<KubeObject[]> {
    return (await this.list("pods", namespace, selector)).filter((pod) => pod.metadata.deletionTimestamp === undefined);
  }

  apply(manifest: string): Promise<string> {
    return this.kubectl(["apply", "-f", "-"], { input: manifest });
  }

  /** Runs a command in a container. @returns its standard output */
  exec(
    namespace: string,
    target: string,
    command: string[],
    options: { container?: string; input?: string; seconds?: number } = {},
  ): Promise<string> {
    const { container, ...rest } = options;
    return this.kubectl(
      [
        "exec",
        "-n",
        namespace,
        ...(rest.input !== undefined ? ["-i"] : []),
        target,
        ...(container ? ["-c", container] : []),
        "--",
        ...command,
      ],
      rest,
    );
  }

  /**
   * Ends a pod hard: one second, and then SIGKILL. Not `--force`, which would take the object away while the processes
   * still run: two databases on one volume are nobody's fault but that of the hand that does it.
   */
  kill({ namespace, name }: { namespace: string; name: string }): Promise<string> {
    return this.kubectl(
      ["delete", "pod", "-n", namespace, name, "--grace-period=1", "--wait=false", "--ignore-not-found"],
      { seconds: 60 },
    );
  }

  /** The pod of Mastodon's database. */
  async primary(namespace = "homestead"): Promise<KubeObject> {
    const [pod] = await this.pods(namespace, "cnpg.io/cluster,cnpg.io/instanceRole=primary");
    if (!pod) throw new Error("no primary of the database");
    return pod;
  }

  /** One SQL statement in Mastodon's database. @returns rows as lines, columns separated by | */
  async sql(statement: string, namespace = "homestead"): Promise<string> {
    const pod = await this.primary(namespace);
    const out = await this.exec(
      namespace,
      pod.metadata.name,
      ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "mastodon", "-c", statement],
      {
        container: "postgres",
      },
    );
    return out.trim();
  }

  /** UID of the kube-system namespace: what tells one cluster from another. */
  async uid(): Promise<string> {
    return (await this.get("namespace", "kube-system"))?.metadata.uid ?? "";
  }

  /**
   * What stands in the cluster, as name -> digest of everything that is not status: two equal inventories mean
   * that nothing was created, deleted or changed in between. Covers our namespaces whole and what is cluster-wide.
   */
  async inventory(): Promise<Map<string, string>> {
    const kinds = async (namespaced: boolean) =>
      (await this.kubectl(["api-resources", "--verbs=list", `--namespaced=${namespaced}`, "-o", "name"]))
        .split("\n")
        .filter(
          (kind) => kind !== "" && !/^events|metrics\.k8s\.io$|^componentstatuses$|^leases\.|^endpoints/.test(kind),
        )
        .join(",");
    const present = new Set((await this.list("namespaces")).map((n) => n.metadata.name));
    const namespaced = await kinds(true);
    const found = await Promise.all([
      ...namespaces.filter((name) => present.has(name)).map((name) => this.list(namespaced, name)),
      this.list(await kinds(false)),
    ]);
    return new Map(
      found
        .flat()
        .filter((object) => !restless.has(object.kind) && object.kind !== "Node")
        .map((object) => [
          `${object.kind} ${object.metadata.namespace ?? ""}/${object.metadata.name}`,
          digestOf(object),
        ]),
    );
  }

  /**
   * Leaves the cluster as if nothing of ours had ever been there. The lab is made anew, since that takes a quarter
   * of a minute and leaves nothing for certain, unless nothing was done with it since; elsewhere what the program makes
   * is deleted, kind by kind.
   */
  empty(): Promise<void> {
    return Cluster.emptyAll([this], this.environment);
  }

  /** {@link empty} for several: the lab takes one command at a time, and starts its clusters together by a single one. */
  static async emptyAll(clusters: readonly Cluster[], environment: Environment): Promise<void> {
    const lab = Lab.of(environment);
    if (lab === undefined) {
      await allOf(clusters.map((cluster) => cluster.deleteOurs()));
      return;
    }
    const used: string[] = [];
    for (const cluster of clusters) {
      if (await cluster.isUntouched()) {
        await cluster.forgetLeaders();
        continue;
      }
      const machine = cluster.access.machine ?? cluster.access.name;
      await lab.run(["down", machine]);
      used.push(machine);
    }
    const [first] = used;
    if (first !== undefined) await lab.run(["up", used.length > 1 ? "all" : first], 600);
  }

  /** Whether it is as the lab made it. One that does not answer is not. */
  private async isUntouched(): Promise<boolean> {
    const { code, stdout } = await this.tryKubectl(["get", telling, "-o", "name", "--request-timeout=10s"]);
    return code === 0 && tracesIn(stdout).length === 0;
  }

  /**
   * Whoever led cert-manager holds its leases for a minute after its end, in a namespace that nothing takes away: a
   * cert-manager that comes sooner waits for that.
   */
  async forgetLeaders(): Promise<void> {
    const leases = ["cert-manager-controller", "cert-manager-cainjector-leader-election"];
    await this.kubectl(["delete", "lease", ...leases, "-n", "kube-system", "--ignore-not-found"]);
  }

  /** The way to empty a cluster that cannot be made anew. */
  async deleteOurs(): Promise<void> {
    // Webhooks first: those of operators that are gone would refuse every deletion after them.
    for (const kind of ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"])
      await this.deleteOfReleases(kind);
    const volumes = (await this.list("persistentvolumes")).filter((volume) =>
      namespaces.includes((volume.spec?.["claimRef"] as { namespace?: string } | undefined)?.namespace ?? ""),
    );
    // Custom resources before their operators, which hold finalizers on some.
    const kinds = (await this.list("customresourcedefinitions"))
      .map((d) => d.metadata.name)
      .filter((name) => definitions.test(name));
    for (const kind of kinds) await this.tryKubectl(["delete", kind, "--all", "-A", "--timeout=60s"]);
    await this.kubectl(["delete", "namespace", ...namespaces, "--ignore-not-found", "--timeout=180s"], {
      seconds: 200,
    });
    if (kinds.length > 0)
      await this.kubectl(["delete", "customresourcedefinition", ...kinds, "--ignore-not-found", "--timeout=60s"]);
    for (const kind of ["clusterroles", "clusterrolebindings"]) await this.deleteOfReleases(kind);
    for (const kind of ["roles", "rolebindings"]) await this.deleteOfReleases(kind, "kube-system");
    for (const volume of volumes)
      await this.tryKubectl([
        "delete",
        "persistentvolume",
        volume.metadata.name,
        "--ignore-not-found",
        "--timeout=60s",
      ]);
    await this.forgetLeaders();
    await eventually(60, "nothing of ours is left", async () => {
      const left = (await this.list("namespaces"))
        .map((n) => n.metadata.name)
        .filter((name) => namespaces.includes(name));
      if (left.length > 0) throw new Error(left.join(", "));
    });
  }

  private async deleteOfReleases(kind: string, namespace?: string): Promise<void> {
    const ours = (await this.list(kind, namespace)).filter((o) =>
      releases.includes(o.metadata.annotations?.["meta.helm.sh/release-name"] ?? ""),
    );
    // The operators make some of their webhooks themselves.
    const made = kind.endsWith("webhookconfigurations")
      ? (await this.list(kind)).filter((o) => /^(cnpg|cert-manager)-/.test(o.metadata.name))
      : [];
    const names = [...new Set([...ours, ...made].map((o) => o.metadata.name))];
    if (names.length > 0)
      await this.kubectl(["delete", kind, ...names, "--ignore-not-found", ...(namespace ? ["-n", namespace] : [])]);
  }

  /** What a person would look at when a scenario fails: pods, their last events, logs of those not ready. */
  async describeTrouble(namespace = "homestead"): Promise<string> {
    const parts = [
      (await this.tryKubectl(["get", "pods", "-A", "-o", "wide"])).output,
      tail((await this.tryKubectl(["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"])).output, 25),
    ];
    for (const pod of await this.pods(namespace).catch(() => [])) {
      const ready = (pod.status?.["conditions"] as { type: string; status: string }[] | undefined)?.find(
        (c) => c.type === "Ready",
      )?.status;
      if (ready === "True" || pod.status?.["phase"] === "Succeeded") continue;
      parts.push(
        `--- ${pod.metadata.name}\n${tail((await this.tryKubectl(["logs", "-n", namespace, pod.metadata.name, "--all-containers", "--tail=30"])).output, 30)}`,
      );
    }
    return parts.join("\n");
  }
}

/** What a scenario has left in a cluster, among its objects as `kubectl get -o name` lists them. */
export const tracesIn = (listing: string): string[] =>
  listing
    .split("\n")
    .filter((name) =>
      /^namespace\/(homestead|e2e-)|^persistentvolume\/|webhookconfiguration|cert-manager|cnpg|cloudnative-pg|barman/.test(
        name,
      ),
    );

/** Objects of a manifest (YAML or JSON) without what the server adds, so that it can be applied again. */
export function reapplicable(objects: KubeObject[]): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "List",
    items: objects.map(({ status: _status, ...object }) => ({
      ...object,
      metadata: {
        name: object.metadata.name,
        ...(object.metadata.namespace ? { namespace: object.metadata.namespace } : {}),
        ...(object.metadata.labels ? { labels: object.metadata.labels } : {}),
        ...(object.metadata.annotations ? { annotations: object.metadata.annotations } : {}),
      },
    })),
  });
}

/** Names whose digest differs between two inventories, with what happened to each. */
export function differences(before: Map<string, string>, after: Map<string, string>): string[] {
  return [
    ...[...after.keys()].filter((key) => !before.has(key)).map((key) => `${key} was created`),
    ...[...before.keys()].filter((key) => !after.has(key)).map((key) => `${key} was deleted`),
    ...[...after]
      .filter(([key, digest]) => before.has(key) && before.get(key) !== digest)
      .map(([key]) => `${key} was changed`),
  ];
}

function digestOf(object: KubeObject): string {
  const { status: _status, metadata, ...rest } = object;
  const { managedFields: _fields, resourceVersion: _version, ...meta } = metadata;
  return crypto
    .createHash("sha256")
    .update(JSON.stringify({ ...rest, meta }))
    .digest("hex")
    .slice(0, 16);
}

/** Parses every document of a YAML stream. */
export const manifests = (text: string): KubeObject[] =>
  text
    .split(/^---\s*$/m)
    .map((part) => parse(part) as KubeObject | null)
    .filter((object): object is KubeObject => object !== null);
