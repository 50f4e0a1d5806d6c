/** Whether there is room for what a stack asks for: requests against what nodes have left. Pure. */
import type * as k8s from "@kubernetes/client-node";
import type { Settings } from "../../settings";
import type { Plan, PlannedResource } from "../plan";
import { at } from "../plan";
import type { Json } from "../plan/mask";
import { kubectl } from "../kube";
import { judged } from "./lines";
import type { DoctorLine } from "./lines";

/** Cores, and bytes of memory. */
export interface Amount {
  cpu: number;
  memory: number;
}

export interface Claim {
  name: string;
  storageClass?: string;
  bytes: number;
}

/** What a stack asks a cluster for. */
export interface Needs {
  /** A pod each that runs all the time. */
  pods: Amount[];
  /** Its disks, as they will be called. */
  claims: Claim[];
  /** Namespaces whose pods are the stack's own. */
  namespaces: string[];
}

const factors: Record<string, number> = {
  "": 1,
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  ...Object.fromEntries(["k", "M", "G", "T", "P", "E"].map((suffix, i) => [suffix, 1000 ** (i + 1)])),
  ...Object.fromEntries(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].map((suffix, i) => [suffix, 1024 ** (i + 1)])),
};

/** A Kubernetes quantity as a number; nothing is 0. The client's own refuses `1.5Gi`, which others' pods may ask for. */
export function quantity(text: string | number | undefined): number {
  const [, number, suffix = ""] = /^([\d.]+(?:e[+-]?\d+)?)([A-Za-z]*)$/.exec(String(text ?? "0")) ?? [];
  const factor = factors[suffix];
  if (number === undefined || factor === undefined) throw new Error(`'${text}' is no quantity`);
  return Number(number) * factor;
}

/** Bytes for a person. */
export const bytes = (value: number): string =>
  value >= 1024 ** 3 ? `${(value / 1024 ** 3).toFixed(1)} GiB` : `${Math.round(value / 1024 ** 2)} MiB`;

const none: Amount = { cpu: 0, memory: 0 };
const plus = (a: Amount, b: Amount): Amount => ({ cpu: a.cpu + b.cpu, memory: a.memory + b.memory });
const most = (a: Amount, b: Amount): Amount => ({
  cpu: Math.max(a.cpu, b.cpu),
  memory: Math.max(a.memory, b.memory),
});
const sum = (amounts: readonly Amount[]): Amount => amounts.reduce(plus, none);

/** What is looked at of a container, of the API's or of a plan's. */
interface Container {
  restartPolicy?: string;
  resources?: { requests?: Record<string, string> };
}
interface PodSpec {
  containers?: Container[];
  initContainers?: Container[];
  overhead?: Record<string, string>;
}

const amount = (requests: Record<string, string> | undefined): Amount => ({
  cpu: quantity(requests?.cpu),
  memory: quantity(requests?.memory),
});

/** What a node sets aside for a pod: its containers together, or the one before them that asks for more. */
export function podAmount({ containers = [], initContainers = [], overhead }: PodSpec): Amount {
  const of = (list: Container[]) => list.map(({ resources }) => amount(resources?.requests));
  const beside = initContainers.filter(({ restartPolicy }) => restartPolicy === "Always");
  const before = initContainers.filter(({ restartPolicy }) => restartPolicy !== "Always");
  const running = sum(of([...containers, ...beside]));
  return plus(of(before).reduce(most, running), amount(overhead));
}

// ---------------------------------------------------------------- what the stack asks for

/**
 * What a planned stack asks for while it is active: a standby must have the room before it takes over. Jobs come and
 * go: the room that an update needs anyway is enough for them.
 */
export function needsOf({ resources }: Pick<Plan, "resources">): Needs {
  const sidecar = resources.map((one) => at(one.inputs, "spec.instanceSidecarConfiguration")).find((found) => found);
  const each = resources.filter(({ kind }) => kind === "resource").map((one) => needOf(one, sidecar));
  const namespaces = resources.flatMap(({ type, inputs }) =>
    type === "kubernetes:core/v1:Namespace" ? text(at(inputs, "metadata.name")) : [],
  );
  return {
    pods: each.flatMap(({ pods }) => pods),
    claims: each.flatMap(({ claims }) => claims),
    namespaces: [...new Set(namespaces)],
  };
}

type Need = Omit<Needs, "namespaces">;

function needOf({ type, inputs }: PlannedResource, sidecar: Json | undefined): Need {
  const name = text(at(inputs, "metadata.name"))[0] ?? "";
  const spec = inputs.spec;
  switch (type) {
    case "kubernetes:apps/v1:Deployment":
    case "kubernetes:apps/v1:StatefulSet": {
      const pod = podAmount((at(spec, "template.spec") ?? {}) as PodSpec);
      const claims = items(at(spec, "volumeClaimTemplates")).map((template) =>
        claimOf(`${text(at(template, "metadata.name"))[0] ?? ""}-${name}-0`, at(template, "spec")),
      );
      return { pods: Array.from({ length: replicasOf(spec) }, () => pod), claims };
    }
    case "kubernetes:core/v1:PersistentVolumeClaim":
      return { pods: [], claims: [claimOf(name, spec)] };
    case "kubernetes:postgresql.cnpg.io/v1:Cluster": {
      const pod = podAmount({ containers: [spec, sidecar].filter((part) => part !== undefined) as Container[] });
      const storage = at(spec, "storage");
      const claim: Claim = {
        name: `${name}-1`,
        ...classOf(at(storage, "storageClass")),
        bytes: size(at(storage, "size")),
      };
      return { pods: [pod], claims: [claim] };
    }
    case "kubernetes:helm.sh/v3:Release":
      return { pods: podsInValues(inputs.values), claims: [] };
    default:
      return { pods: [], claims: [] };
  }
}

/** What a standby or maintenance has at zero will be one. */
const replicasOf = (of: Json | undefined): number => Math.max(1, Number(at(of, "replicas") ?? 1));

const claimOf = (name: string, spec: Json | undefined): Claim => ({
  name,
  ...classOf(at(spec, "storageClassName")),
  bytes: size(at(spec, "resources.requests.storage")),
});
const classOf = (value: Json | undefined) => (typeof value === "string" ? { storageClass: value } : {});
const size = (value: Json | undefined) => quantity(typeof value === "string" ? value : undefined);
const text = (value: Json | undefined): string[] => (typeof value === "string" ? [value] : []);
const items = (value: Json | undefined): Json[] => (Array.isArray(value) ? value : []);

/** Charts put a part's requests beside its number of replicas, wherever that is. */
function podsInValues(values: Json | undefined): Amount[] {
  if (Array.isArray(values)) return values.flatMap(podsInValues);
  if (typeof values !== "object") return [];
  const requests = at(values, "resources.requests") as Record<string, string> | undefined;
  const own = requests === undefined ? [] : Array.from({ length: replicasOf(values) }, () => amount(requests));
  return [...own, ...Object.values(values ?? {}).flatMap(podsInValues)];
}

// ---------------------------------------------------------------- what there is

/** What a node can still be asked for. */
export interface Room extends Amount {
  node: string;
  /** All that it gives to pods. */
  allocatable: Amount;
}

/** The room on nodes that take any pod, with the pods of some namespaces thought away. */
export function roomOf(nodes: readonly k8s.V1Node[], pods: readonly k8s.V1Pod[], without: readonly string[]): Room[] {
  const others = pods.filter(
    ({ metadata, status }) =>
      !without.includes(metadata?.namespace ?? "") && status?.phase !== "Succeeded" && status?.phase !== "Failed",
  );
  return nodes.filter(takesPods).map(({ metadata, status }) => {
    const node = metadata?.name ?? "";
    const allocatable = amount(status?.allocatable);
    const taken = sum(others.filter(({ spec }) => spec?.nodeName === node).map(({ spec }) => podAmount(spec ?? {})));
    return {
      node,
      allocatable,
      cpu: Math.max(0, allocatable.cpu - taken.cpu),
      memory: Math.max(0, allocatable.memory - taken.memory),
    };
  });
}

/** Our pods tolerate nothing. */
export const takesPods = ({ spec }: k8s.V1Node): boolean =>
  spec?.unschedulable !== true && !(spec?.taints ?? []).some(({ effect }) => effect !== "PreferNoSchedule");

const units = { cpu: (value: number) => `${value.toFixed(1)} cores`, memory: bytes } as const;

/**
 * Lines on memory and processors. A fault is what the scheduler would not place; a warning is what it places with no
 * room left for the second copy of a pod, which an update needs while it replaces the first.
 */
export function capacityLines({ pods }: Needs, rooms: readonly Room[], cluster: Settings["cluster"]): DoctorLine[] {
  const mend = `${kubectl(cluster)} describe nodes; give the cluster more, or move other pods away`;
  if (rooms.length === 0) {
    return [judged("capacity", "nodes", "fault", "no node takes pods", `${kubectl(cluster)} get nodes`)];
  }
  const [need, free, all] = [sum(pods), sum(rooms), sum(rooms.map(({ allocatable }) => allocatable))];
  return (["memory", "cpu"] as const).map((what) => {
    const largest = Math.max(0, ...pods.map((pod) => pod[what]));
    const roomiest = Math.max(...rooms.map((room) => room[what]));
    const show = units[what];
    const says = `the stack asks for ${show(need[what])}; ${show(free[what])} of ${show(all[what])} are free for it`;
    if (need[what] > free[what]) return judged("capacity", what, "fault", says, mend);
    if (largest > roomiest) {
      return judged(
        "capacity",
        what,
        "fault",
        `${says}, and no node has the ${show(largest)} of the largest pod`,
        mend,
      );
    }
    const updates = need[what] + largest <= free[what];
    const tight = `${says}, without the ${show(largest)} that an update needs beside it`;
    return judged("capacity", what, updates ? "ok" : "warning", updates ? says : tight, mend);
  });
}
