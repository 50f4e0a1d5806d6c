/** A kubeconfig cut down to some contexts, with the files that it names inside it: what another machine can use. Pure but for those files. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import * as z from "zod";
import { UserError } from "../user-error";

const named = <T extends z.ZodType>(key: string, content: T) =>
  z.array(z.looseObject({ name: z.string(), [key]: content })).default([]);
const fields = z.record(z.string(), z.unknown());
const shape = z.looseObject({
  contexts: named("context", z.looseObject({ cluster: z.string(), user: z.string().default("") })),
  clusters: named("cluster", fields),
  users: named("user", fields.nullish()),
});

/** Fields that name a file, and those that hold its content instead; `token` is plain, the others are base64. */
const embedded: readonly [file: string, content: string][] = [
  ["certificate-authority", "certificate-authority-data"],
  ["client-certificate", "client-certificate-data"],
  ["client-key", "client-key-data"],
  ["tokenFile", "token"],
];

export interface Minified {
  text: string;
  /** What will not work on another machine. */
  warnings: string[];
}

/** The file, or every one of the contexts, is not there. `key` is the part of `homestead:cluster` that would mend it. */
export class NotThere extends UserError {
  constructor(
    readonly key: "kubeconfig" | "context",
    message: string,
  ) {
    super(message);
  }
}

/**
 * A context that is not there yet (a second site without a cluster) is a warning: a kit of what there is beats none.
 *
 * @throws NotThere
 * @throws UserError if the file is none, or something that it names is not there
 */
export function minify(file: string, contexts: readonly string[]): Minified {
  const parsed = read(file);
  const warnings: string[] = [];
  const pick = (kind: "contexts" | "clusters" | "users", key: string, name: string) => {
    const found = parsed[kind].find((one) => one.name === name);
    if (found === undefined) throw new UserError(`kubeconfig ${file}: there is no '${name}' in its ${kind}`);
    return { name, [key]: inline(file, (found[key] ?? {}) as Record<string, unknown>) };
  };
  const isThere = (name: string) => parsed.contexts.some((one) => one.name === name);
  const wanted = [...new Set(contexts)];
  const usable = wanted.filter(isThere);
  if (usable.length === 0) {
    const names = wanted.map((name) => `'${name}'`).join(" or ");
    throw new NotThere("context", `kubeconfig ${file} has no context ${names}`);
  }
  for (const name of wanted.filter((one) => !usable.includes(one))) {
    warnings.push(
      `kubeconfig ${file} has no context '${name}': who has nothing but this kit does not reach that cluster`,
    );
  }
  const chosen = usable.map((name) => pick("contexts", "context", name));
  const of = (key: "cluster" | "user") => [
    ...new Set(chosen.map(({ context }) => (context as Record<string, string>)[key] ?? "")),
  ];
  const clusters = of("cluster").map((name) => pick("clusters", "cluster", name));
  const users = of("user")
    .filter((name) => name !== "")
    .map((name) => pick("users", "user", name));
  for (const { name, cluster } of clusters) {
    const { server = "" } = cluster as { server?: string };
    if (isLocal(server)) {
      warnings.push(`cluster '${name}' is at ${server}, which on another machine is another one (a tunnel?)`);
    }
  }
  for (const { name, user } of users) {
    const plugin = ["exec", "auth-provider"].find((key) => key in (user as object));
    if (plugin !== undefined) {
      warnings.push(
        `user '${name}' of ${file} gets its credentials from a program (${plugin}), which another machine needs as well`,
      );
    }
  }
  const text = stringify(
    { apiVersion: "v1", kind: "Config", "current-context": usable[0], contexts: chosen, clusters, users },
    { lineWidth: 0 },
  );
  return { text, warnings };
}

function read(file: string): z.output<typeof shape> {
  let text: string;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch (error) {
    // One that is there, and not for us to read, is not still to come.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      throw new NotThere("kubeconfig", `kubeconfig ${file} does not exist`);
    }
    throw new UserError(`kubeconfig ${file} cannot be read`);
  }
  try {
    return shape.parse(parse(text));
  } catch {
    throw new UserError(`${file} is no kubeconfig`);
  }
}

/** Files are named relative to the kubeconfig. Content that stands beside a file's name wins, as in kubectl. */
function inline(kubeconfig: string, entry: Record<string, unknown>): Record<string, unknown> {
  const result = { ...entry };
  for (const [key, content] of embedded) {
    const name = result[key];
    if (typeof name !== "string") continue;
    Reflect.deleteProperty(result, key);
    if (result[content] !== undefined) continue;
    const file = path.resolve(path.dirname(kubeconfig), name.replace(/^~(?=\/)/, os.homedir()));
    let bytes: Buffer;
    try {
      bytes = fs.readFileSync(file);
    } catch {
      throw new UserError(`kubeconfig ${kubeconfig}: ${key} ${file} cannot be read`);
    }
    result[content] = content === "token" ? bytes.toString("utf8").trim() : bytes.toString("base64");
  }
  return result;
}

function isLocal(server: string): boolean {
  try {
    return /^(localhost|127\..*|\[::1\]|0\.0\.0\.0)$/.test(new URL(server).hostname);
  } catch {
    return false;
  }
}
