/**
 * The configuration of a trial: the committed `Pulumi.dev.yaml`, what was found out about the cluster, and what the
 * user wants otherwise. It is written beside the trial's state, so that the committed file stays as it is.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse as parseYaml, stringify } from "yaml";
import { SettingsError, formatFaults, optionalSecrets, parseSettings, requiredSecrets } from "../../settings";
import type { Fault } from "../../settings";
import { Placeholders } from "../plan/placeholders";
import { StackConfigError, notTold, readStackConfig } from "../stack-config";
import { UserError } from "../user-error";
import type { Context, Found } from "./cluster";
import { inTrial, originOf } from "./mends";
import type { Origins } from "./mends";

type Values = Record<string, unknown>;

/** A stack file's content. */
interface StackFile {
  config: Values;
  /** What the passphrase is checked with; the CLI puts it in when the stack is made. */
  encryptionsalt?: string;
}

const secretKeys: readonly string[] = [...requiredSecrets, ...optionalSecrets];

/** Overrides, secrets apart: those may only go in through the CLI, which encrypts them. */
export interface Overrides {
  values: Values;
  secrets: Record<string, string>;
  /** Where each of them comes from. */
  origins: Origins;
}

/**
 * Reads the overrides of a trial.
 *
 * @param sets `key=value` each, the key with or without `homestead:`, and a path for a value inside an object or a list.
 * @param file A YAML file of keys and values, or a whole stack file.
 * @throws UserError that names the entry
 */
export function readOverrides(sets: readonly string[], file?: string): Overrides {
  let values = file === undefined ? {} : valuesIn(file);
  const origins: Origins = Object.fromEntries(
    Object.keys(values).map((key) => [unqualified(key), `${unqualified(key)} in ${file} (--config)`]),
  );
  for (const entry of sets) {
    const [, key, text] = /^([^=\s]+)=(.*)$/s.exec(entry) ?? [];
    if (key === undefined || text === undefined)
      throw new UserError(`--set ${entry}: key=value, such as --set locale=de`);
    const full = qualify(key);
    const parts = partsOf(full);
    if (secretKeys.includes(full.replace("homestead:", ""))) {
      throw new UserError(
        `--set ${full}: a secret, which others can read on a command line; put it into a file: --config <file>`,
      );
    }
    origins[unqualified(full)] = `--set ${entry.length > 80 ? `${entry.slice(0, 77)}...` : entry}`;
    // Text stays text at the top, where Pulumi makes everything text; inside an object it has to have a type.
    values = placed(values, parts, parts.length === 1 && !/^[[{]/.test(text) ? text : scalar(text), entry) as Values;
  }
  const secrets: Record<string, string> = {};
  for (const key of secretKeys) {
    const value = values[`homestead:${key}`];
    if (value === undefined) continue;
    if (typeof value !== "string") throw new UserError(`--config ${file}: ${key} must be text`);
    secrets[key] = value;
    Reflect.deleteProperty(values, `homestead:${key}`);
  }
  if (values["homestead:cluster"] !== undefined) {
    const says = originOf("cluster", origins) ?? "cluster";
    throw new UserError(
      `${says}: a trial is on the cluster of the current context; leave that out, and: kubectl config use-context <context>`,
    );
  }
  return { values, secrets, origins };
}

/** `blog.kind` -> `homestead:blog.kind`; a key with a namespace stays as it is. */
const qualify = (key: string) => (/^[a-z]+:/.test(key) ? key : `homestead:${key}`);

const unqualified = (key: string) => key.replace(/^homestead:/, "");

/** The parts of a key, as Pulumi's `--path` reads them: `privateEgress[0]`, `labels["app.kubernetes.io/name"]`. */
const partsOf = (key: string): (string | number)[] =>
  [...key.matchAll(/\["([^"]*)"\]|\[(\d+)\]|[^.[]+/g)].map(
    ([text, quoted, index]) => quoted ?? (index === undefined ? text : Number(index)),
  );

const scalar = (text: string): unknown => {
  try {
    return parseYaml(text) as unknown;
  } catch {
    return text;
  }
};

function valuesIn(file: string): Values {
  let parsed: unknown;
  try {
    parsed = parseYaml(fs.readFileSync(file, "utf8"));
  } catch (error) {
    throw new UserError(`--config ${file}: ${(error as Error).message.split("\n")[0]}`);
  }
  if (!isObject(parsed)) throw new UserError(`--config ${file}: keys and values, such as locale: de`);
  const values = isObject(parsed.config) ? parsed.config : parsed;
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [qualify(key), value]));
}

const isObject = (value: unknown): value is Values =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * What is there, with a value at a path in it.
 *
 * @throws UserError that names the entry, where it would leave a gap in a list
 */
function placed(
  there: unknown,
  [first, ...rest]: readonly (string | number)[],
  value: unknown,
  entry: string,
): unknown {
  if (first === undefined) return value;
  if (typeof first === "string") {
    const object = isObject(there) ? there : {};
    return { ...object, [first]: placed(object[first], rest, value, entry) };
  }
  const list: unknown[] = Array.isArray(there) ? there : [];
  if (first > list.length) {
    throw new UserError(
      `--set ${entry}: [${list.length}] is the next entry of what --set and --config give before; a list that is longer in Pulumi.dev.yaml is given as a whole, such as --set 'network.privateEgress=[10.0.0.5/32]'`,
    );
  }
  return [...list.slice(0, first), placed(list[first], rest, value, entry), ...list.slice(first + 1)];
}

/** What the cluster is like, as configuration. */
export function foundValues(context: Context, found: Found): Values {
  return {
    "homestead:cluster": { context: context.name, kubeconfig: context.file, uid: found.uid },
    "homestead:ingress": { address: found.address, namespace: found.ingress.namespace, labels: found.ingress.labels },
    ...(found.storageClass === undefined ? {} : { "homestead:storage": { databases: found.storageClass } }),
    ...(Object.keys(found.operators).length === 0 ? {} : { "homestead:operators": found.operators }),
  };
}

/**
 * Writes the trial's stack file anew: `layers` from the weakest to the strongest, over the committed file. Secrets
 * that the CLI encrypted earlier stay, since the database on the cluster was made with them.
 */
export function writeStackFile(target: string, committed: string, layers: readonly Values[]): void {
  const read = (file: string): Partial<StackFile> =>
    fs.existsSync(file) ? ((parseYaml(fs.readFileSync(file, "utf8")) ?? {}) as Partial<StackFile>) : {};
  const before = read(target);
  const encrypted = Object.entries(before.config ?? {}).filter(([, value]) => isObject(value) && "secure" in value);
  const config = [...layers, Object.fromEntries(encrypted)].reduce(merge, read(committed).config ?? {});
  const content: StackFile = {
    config,
    ...(before.encryptionsalt === undefined ? {} : { encryptionsalt: before.encryptionsalt }),
  };
  fs.writeFileSync(target, stringify(content), { mode: 0o600 });
}

/**
 * The committed stack file with the overrides over it, for as long as it is used: what a trial would be, whatever its
 * cluster is like. Secrets stand in it by their names only.
 */
export async function withStackFile<T>(
  folder: string,
  stack: string,
  { values, secrets }: Overrides,
  use: (file: string) => T | Promise<T>,
): Promise<T> {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-try-"));
  try {
    const file = path.join(scratch, `Pulumi.${stack}.yaml`);
    const given = Object.keys(secrets).map((key) => [`homestead:${key}`, { secure: "given" }] as const);
    writeStackFile(file, path.join(folder, `Pulumi.${stack}.yaml`), [values, Object.fromEntries(given)]);
    return await use(file);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * What the program would refuse when the cluster is chosen and the secrets are made.
 *
 * @throws UserError with every fault, and how to mend it with `./try`
 */
export async function checkOverrides(folder: string, stack: string, overrides: Overrides): Promise<void> {
  const { origins } = overrides;
  await withStackFile(folder, stack, overrides, (configFile) => {
    const refused: StackConfigError[] = [];
    let faults: Fault[] = [];
    try {
      const placeholders = new Placeholders();
      // The embedded object store's keys are the same for both buckets.
      const secret = (key: string) => placeholders.of(key.replace(/^media(?=AccessKeyId|SecretAccessKey)/, "vault"));
      const refuse = (fault: StackConfigError) => refused.push(fault);
      const { config } = readStackConfig(folder, stack, secret, { configFile, refuse });
      parseSettings({ stack, config, folder });
    } catch (error) {
      if (error instanceof SettingsError) faults = error.faults;
      else if (error instanceof StackConfigError) refused.push(error);
      else throw error;
    }
    const said = notTold(refused, faults).map(({ key, message }) => {
      const origin = key === undefined ? undefined : originOf(key, origins);
      return message.replace(`${path.basename(configFile)}:`, (all) => (origin ? `${origin}:` : all));
    });
    const own = faults.map((fault) => inTrial(fault, origins));
    if (own.length > 0) said.push(formatFaults(stack, own));
    if (said.length > 0) throw new UserError(said.join("\n"));
  });
}

/** Deep for objects. A union's other kind (`blog: {kind: image, …}` over a folder) replaces the object. */
function merge(under: Values, over: Values): Values {
  const merged = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    const sameKind = isObject(below) && isObject(value) && (value.kind === undefined || value.kind === below.kind);
    // Labels select pods: two sets of them together select none.
    merged[key] = sameKind && key !== "labels" ? merge(below, value) : value;
  }
  return merged;
}
