/** Kubernetes objects as the rules see them: plain data of any shape, some of it known only after the update. */
import { knownAfterUpdate } from "../lib/plan/mask";

export interface KubernetesObject {
  apiVersion: string;
  kind: string;
  [field: string]: unknown;
}

type Fields = Record<string, unknown>;

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** An object's fields; none of what is no object. */
export const fields = (value: unknown): Fields => (isFields(value) ? value : {});
/** The objects in a list; none where there is no list. */
export const list = (value: unknown): Fields[] => (Array.isArray(value) ? value.filter(isFields) : []);
/** The texts in a list. */
export const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
/** The value at a dotted path. */
export const at = (value: unknown, path: string): unknown =>
  path.split(".").reduce<unknown>((inner, key) => fields(inner)[key], value);

/**
 * The object that a Pulumi resource stands for.
 * @param type such as `kubernetes:apps/v1:Deployment`
 * @returns undefined for what is none. A patch, which has only some fields of one, is of a kind of its own: `ConfigMapPatch`
 */
export function objectOf(type: string, properties: unknown): KubernetesObject | undefined {
  if (!type.startsWith("kubernetes:")) return undefined;
  const { apiVersion, kind, ...rest } = fields(properties);
  if (type.endsWith("Patch")) {
    const [, group = "", patch = ""] = type.split(":");
    return { apiVersion: typeof apiVersion === "string" ? apiVersion : group, kind: patch, ...rest };
  }
  if (type === "kubernetes:helm.sh/v3:Release") {
    const { name, namespace, ...spec } = rest;
    return { apiVersion: "helm.sh/v3", kind: "Release", metadata: { name, namespace }, spec };
  }
  return typeof apiVersion === "string" && typeof kind === "string" ? { apiVersion, kind, ...rest } : undefined;
}

export const nameOf = (object: KubernetesObject): unknown => at(object, "metadata.name");
export const namespaceOf = (object: KubernetesObject): unknown => at(object, "metadata.namespace");

/** Such as `Deployment homestead/blog`. */
export function title(object: KubernetesObject): string {
  const { name, namespace } = fields(object["metadata"]);
  const known = [namespace, name].filter((part) => typeof part === "string");
  return `${object.kind} ${known.join("/")}`;
}

/** Whether one value is another, as far as that is known: before the first update even a namespace's name is not. */
export const same = (one: unknown, other: unknown): boolean =>
  one === other || one === knownAfterUpdate || other === knownAfterUpdate;

/** The namespaces that objects are in. One that is not known yet counts only where none is. */
export function namespacesOf(objects: readonly KubernetesObject[]): string[] {
  const all = [...new Set(objects.map((object) => String(namespaceOf(object))))];
  const known = all.filter((namespace) => namespace !== knownAfterUpdate);
  return known.length > 0 ? known : all;
}

/** A part of an object, and the path to it. */
export interface Part {
  field: string;
  value: Fields;
}

/** Everything in an object that has fields, itself the first. */
export function partsOf(value: unknown, field = ""): Part[] {
  if (Array.isArray(value)) return value.flatMap((item, i) => partsOf(item, `${field}[${i}]`));
  if (!isFields(value)) return [];
  const inner = Object.entries(value).flatMap(([key, part]) => partsOf(part, field === "" ? key : `${field}.${key}`));
  return [{ field, value }, ...inner];
}

/** Every pod that an object makes, under whatever kind: what has containers is a pod. */
export function podsOf(object: KubernetesObject): Part[] {
  const search = (value: unknown, field: string): Part[] => {
    if (Array.isArray(value)) return value.flatMap((item, i) => search(item, `${field}[${i}]`));
    if (!isFields(value)) return [];
    if (list(value["containers"]).length > 0) return [{ field, value }];
    return Object.entries(value).flatMap(([key, inner]) => search(inner, field === "" ? key : `${field}.${key}`));
  };
  return search(object, "");
}

export interface Container extends Part {
  /** Its own name; known even where the object's is not. */
  name: string;
  pod: Fields;
}

/** The containers of every pod that an object makes. */
export function containersOf(object: KubernetesObject): Container[] {
  return podsOf(object).flatMap((pod) =>
    ["initContainers", "containers", "ephemeralContainers"].flatMap((key) =>
      list(pod.value[key]).map((value, i) => ({
        field: `${pod.field}.${key}[${i}]`,
        name: typeof value["name"] === "string" ? value["name"] : "",
        value,
        pod: pod.value,
      })),
    ),
  );
}
