/** A plan as text: the tree a person reads, and the files that are kept as golden manifests. */
import { stringify } from "yaml";
import type { Plan, PlannedResource } from "../plan";
import { knownAfterUpdate } from "./mask";
import type { Json, JsonObject } from "./mask";

/** `kubernetes:apps/v1:StatefulSet`, `random:RandomPassword`; a component of this project by its class name. */
export function shortType(type: string): string {
  const [pkg, module, name] = type.split(":");
  if (pkg === undefined || module === undefined || name === undefined) return type;
  if (module === "index") return name;
  // `index/randomPassword` and `local` say nothing that the type's name does not.
  return pkg === "kubernetes" || pkg === "pulumi" ? type : `${pkg}:${name}`;
}

const marks = (resource: PlannedResource): string => {
  const { protect, retainOnDelete, importId } = resource.options;
  const words = [
    ...(protect ? ["protected"] : []),
    ...(retainOnDelete ? ["kept on destroy"] : []),
    ...(resource.kind === "read" ? ["looked up"] : importId === undefined ? [] : ["taken over"]),
  ];
  return words.length > 0 ? `  [${words.join(", ")}]` : "";
};

/**
 * The resources, children under their components. Siblings stand in the order in which they can be ready (by the
 * longest chain of dependencies before their last part), and by type and name where that is equal: stable from run to run.
 */
export function renderTree(plan: Plan): string {
  const childrenOf = new Map<string | undefined, PlannedResource[]>();
  for (const resource of plan.resources) {
    childrenOf.set(resource.parent, [...(childrenOf.get(resource.parent) ?? []), resource]);
  }
  const depth = depths(plan.resources);
  const rank = (resource: PlannedResource): number => {
    const below = (childrenOf.get(resource.urn) ?? []).map(rank);
    return below.length > 0 ? Math.max(...below) : (depth.get(resource.urn) ?? 0);
  };
  const label = (resource: PlannedResource) => `${shortType(resource.type)} ${resource.name}`;

  const lines = [plan.site];
  const draw = (parent: string | undefined, indent: string) => {
    const children = (childrenOf.get(parent) ?? [])
      .map((resource) => ({ resource, rank: rank(resource), label: label(resource) }))
      .sort((a, b) => a.rank - b.rank || (a.label < b.label ? -1 : 1));
    children.forEach((child, i) => {
      const last = i === children.length - 1;
      lines.push(`${indent}${last ? "└─ " : "├─ "}${child.label}${marks(child.resource)}`);
      draw(child.resource.urn, `${indent}${last ? "   " : "│  "}`);
    });
  };
  draw(undefined, "");
  return `${lines.join("\n")}\n`;
}

/** How many resources must be there before each one. */
function depths(resources: PlannedResource[]): Map<string, number> {
  const byUrn = new Map(resources.map((resource) => [resource.urn, resource]));
  const depth = new Map<string, number>();
  const of = (urn: string): number => {
    const known = depth.get(urn);
    if (known !== undefined) return known;
    const resource = byUrn.get(urn);
    if (!resource) return 0;
    depth.set(urn, 0); // a cycle, which the engine would refuse, must not end the drawing
    // A child waits for its component, and the component for what it depends on.
    const before = [...resource.options.dependsOn, resource.provider, resource.parent].filter((u) => u !== undefined);
    const longest = before.length === 0 ? 0 : 1 + Math.max(...before.map(of));
    depth.set(urn, longest);
    return longest;
  };
  for (const resource of resources) of(resource.urn);
  return depth;
}

/**
 * File name -> text: one YAML file a Kubernetes object, one a Helm release, and the tree.
 *
 * @param form `golden` leaves out what changes with every edit of our own code and is reviewed there: the text of
 *   bundled programs, and the digests in the names of objects. `complete` is what goes to the cluster.
 */
export function renderFiles(plan: Plan, form: "complete" | "golden" = "complete"): Map<string, string> {
  const files = new Map<string, string>([["tree.txt", renderTree(plan)]]);
  const objects = plan.resources.filter((resource) => isObject(resource) || isRelease(resource));
  const taken = new Map<string, number>();
  for (const resource of objects) taken.set(baseName(resource), (taken.get(baseName(resource)) ?? 0) + 1);

  for (const resource of objects) {
    const base = baseName(resource);
    // The same kind and name in two namespaces.
    const name = taken.get(base) === 1 ? base : `${base}-${namespaceOf(resource)}`;
    if (files.has(`${name}.yaml`)) throw new Error(`${resource.urn}: a second object ${name} in the plan`);
    const content = isRelease(resource) ? releaseContent(resource) : resource.inputs;
    const shown = form === "golden" ? withoutBundles(content) : content;
    files.set(`${name}.yaml`, stringify(inOrder(shown), { lineWidth: 0, aliasDuplicateObjects: false }));
  }
  return form === "golden" ? withoutDigests(files, objects) : files;
}

/** Programs that esbuild put together for the cluster are long and end in `.js`. */
const isBundle = (key: string, value: Json) =>
  /\.[cm]?js$/.test(key) && typeof value === "string" && value.length > 2000;

function withoutBundles(value: Json): Json {
  if (Array.isArray(value)) return value.map(withoutBundles);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, isBundle(key, item) ? "<bundled program>" : withoutBundles(item)]),
  );
}

/** Digests at the end of objects' names, wherever such a name is used. */
function withoutDigests(files: Map<string, string>, objects: PlannedResource[]): Map<string, string> {
  const digests = objects
    .map(
      (resource) =>
        /-([0-9a-f]{16})$/.exec(text((resource.inputs.metadata as JsonObject | undefined)?.name) ?? "")?.[1],
    )
    .filter((digest) => digest !== undefined);
  const without = (line: string, mark: string) => digests.reduce((left, digest) => left.replaceAll(digest, mark), line);
  return new Map([...files].map(([name, content]) => [without(name, "digest"), without(content, "<digest>")]));
}

const releaseType = "kubernetes:helm.sh/v3:Release";
const isRelease = (resource: PlannedResource) => resource.type === releaseType;

/** A Kubernetes object that the program makes; not a chart, a patch's look-up or a provider. */
export const isObject = (resource: PlannedResource): boolean =>
  resource.kind === "resource" && resource.type.startsWith("kubernetes:") && resource.type !== releaseType;

function baseName(resource: PlannedResource): string {
  if (isRelease(resource)) return `release-${text(resource.inputs.name) ?? resource.name}`;
  const metadata = resource.inputs.metadata as JsonObject | undefined;
  return `${(text(resource.inputs.kind) ?? "object").toLowerCase()}-${text(metadata?.name) ?? resource.name}`;
}

const namespaceOf = (resource: PlannedResource) =>
  text((resource.inputs.metadata as JsonObject | undefined)?.namespace) ?? "cluster";

/** A text that is known before the update. */
const text = (value: Json | undefined) => (typeof value === "string" && value !== knownAfterUpdate ? value : undefined);

/** A release without the fields that the provider's SDK puts in for itself. */
function releaseContent(resource: PlannedResource): JsonObject {
  return Object.fromEntries(Object.entries(resource.inputs).filter(([key]) => key !== "compat"));
}

const first = ["apiVersion", "kind", "metadata", "name", "namespace", "chart", "version", "repositoryOpts"];

/** Keys in an order that does not depend on how the program put them together. */
function inOrder(value: Json): Json {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== "object" || value === null) return value;
  const place = (key: string) => (first.includes(key) ? first.indexOf(key) : first.length);
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => place(a) - place(b) || (a < b ? -1 : 1))
      .map(([key, item]) => [key, inOrder(item)]),
  );
}

/** The stack's outputs, one a line, lists and objects a line each of their parts. */
export function renderOutputs(outputs: JsonObject): string {
  const lines: [string, string][] = [];
  const walk = (key: string, value: Json) => {
    if (Array.isArray(value)) value.forEach((item, i) => walk(i === 0 ? key : "", item));
    else if (typeof value === "object" && value !== null) {
      lines.push([
        key,
        Object.values(value)
          .map((part) => (typeof part === "object" ? JSON.stringify(part) : String(part)))
          .join("  "),
      ]);
    } else if (value !== null && value !== "") lines.push([key, String(value)]);
  };
  for (const [key, value] of Object.entries(outputs)) if (!key.startsWith("_")) walk(key, value);
  const width = Math.max(0, ...lines.map(([key]) => key.length));
  return lines
    .map(([key, value]) => `${key.padEnd(width)}  ${value.replaceAll("\n", `\n${" ".repeat(width + 2)}`)}\n`)
    .join("");
}
