/**
 * What the Pulumi CLI would hand to the program as configuration, read from the project's files without the CLI:
 * `Pulumi.yaml` with its `value:` and `default:` entries and the stack's own file over it.
 *
 * Secrets are never decrypted: encrypted entries, and secrets that are declared but not set, become placeholders.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { parse as parseYaml } from "yaml";
import * as z from "zod";

/** A stack's configuration as the program will see it. */
export interface StackConfig {
  /** The project's name, from `Pulumi.yaml`. */
  project: string;
  stack: string;
  /** The program's entry file, absolute. */
  main: string;
  /** `project:key` -> text, as `pulumi.runtime.allConfig()` gives it. Objects are JSON. */
  config: Record<string, string>;
  /** Keys of `config` that hold a secret, or an object with a secret in it. */
  secretKeys: string[];
}

/** Something is wrong with the project's files themselves; the message says which file and what. */
export class StackConfigError extends Error {
  override name = "StackConfigError";
  /** How Pulumi knows an error that it prints without a stack trace; its SDK is not loaded for that alone. */
  readonly __pulumiRunError = true;
  constructor(
    message: string,
    /** The key that it is about, `project:key`. */
    readonly key?: string,
  ) {
    super(message);
  }
}

/** Gives the text that stands for a secret. `name` is the key without its project, and the path inside an object. */
export type Placeholder = (name: string) => string;

const declaration = z.looseObject({
  value: z.unknown().optional(),
  default: z.unknown().optional(),
  secret: z.boolean().optional(),
});
const projectFile = z.looseObject({
  name: z.string(),
  main: z.string().optional(),
  config: z.record(z.string(), z.unknown()).nullish(),
});
const stackFile = z.looseObject({ config: z.record(z.string(), z.unknown()).nullish() });
/** What Pulumi keeps in a stack file (sdk/go/common/workspace/project.go, ProjectStack). */
const pulumisOwn = ["config", "secretsprovider", "encryptedkey", "encryptionsalt", "environment"];
const encrypted = z.strictObject({ secure: z.string() });

/** One key as `Pulumi.yaml` declares it. */
export interface Declaration {
  /** `project:key`. */
  key: string;
  secret: boolean;
  description?: string;
  type?: string;
  value?: unknown;
  default?: unknown;
}

interface Project {
  name: string;
  main: string;
  declarations: Declaration[];
}

/**
 * The keys that a stack's own file sets, `project:key`; none where there is no file.
 *
 * @throws StackConfigError if a file is no such file.
 */
export function keysInFile(folder: string, stack: string): string[] {
  const config = configInFile(folder, stack);
  if (config === undefined) return [];
  const { name } = readProject(folder);
  return Object.keys(config).map((key) => qualify(key, name));
}

/**
 * The `config:` section of a stack's own file, its keys as they are written; undefined where there is no file.
 *
 * @throws StackConfigError if the file is no such file.
 */
export function configInFile(folder: string, stack: string): Record<string, unknown> | undefined {
  const file = path.join(folder, `Pulumi.${stack}.yaml`);
  return fs.existsSync(file) ? configOf(file) : undefined;
}

/**
 * A stack file's `config:` section.
 *
 * @throws StackConfigError also for what stands beside it: Pulumi reads none of it, and its next `config set` removes it.
 */
function configOf(file: string): Record<string, unknown> {
  const content = parseFile(file, stackFile);
  const stray = Object.keys(content).filter((key) => !pulumisOwn.includes(key));
  if (stray.length === 0) return content.config ?? {};
  const several = stray.length > 1;
  throw new StackConfigError(
    `${path.basename(file)}: ${stray.join(", ")} ${several ? "stand" : "stands"} beside config:, where Pulumi reads ` +
      `${pulumisOwn.join(", ")} alone, and removes all else with the next pulumi config set; ` +
      `mend: move ${several ? "them" : "it"} below config:, each line indented`,
  );
}

/** Reads `Pulumi.yaml`. @throws StackConfigError if it is missing or is no project file. */
export function readProject(folder: string): Project {
  const file = path.join(folder, "Pulumi.yaml");
  const project = parseFile(file, projectFile);
  const declarations = Object.entries(project.config ?? {}).map(([key, entry]): Declaration => {
    const parsed = declaration.safeParse(entry);
    // Anything but a mapping is a value by itself (`key: value`).
    const fields = parsed.success ? parsed.data : { value: entry };
    const { description, type } = fields as { description?: unknown; type?: unknown };
    return {
      key: qualify(key, project.name),
      secret: fields.secret ?? false,
      ...(typeof description === "string" ? { description } : {}),
      ...(typeof type === "string" ? { type } : {}),
      value: fields.value,
      default: fields.default,
    };
  });
  return { name: project.name, main: path.resolve(folder, project.main ?? "index.ts"), declarations };
}

/** The stacks that have a file in the folder, in alphabetical order. */
export function stacksIn(folder: string): string[] {
  return fs
    .readdirSync(folder)
    .map((name) => /^Pulumi\.([A-Za-z0-9_-]+)\.yaml$/.exec(name)?.[1])
    .filter((name) => name !== undefined)
    .sort();
}

/**
 * Reads one stack's configuration.
 *
 * @param options.configFile Another file in place of `Pulumi.<stack>.yaml`, as the CLI's `--config-file`.
 * @param options.refuse Told of each fault that the CLI finds before it runs the program: a declared secret that stands in
 *   clear, a value that is not of its declared type. @default the first is thrown
 * @throws StackConfigError for a missing or unreadable file
 */
export function readStackConfig(
  folder: string,
  stack: string,
  placeholder: Placeholder,
  options: { configFile?: string; refuse?: (fault: StackConfigError) => void } = {},
): StackConfig {
  const project = readProject(folder);
  const file = options.configFile ?? path.join(folder, `Pulumi.${stack}.yaml`);
  if (!fs.existsSync(file)) {
    const known = stacksIn(folder);
    throw new StackConfigError(
      `no stack '${stack}': ${file} does not exist (there ${known.length === 1 ? "is" : "are"}: ${known.join(", ") || "none"})`,
    );
  }

  const refuse = (message: string, key: string) => {
    const fault = new StackConfigError(`${path.basename(file)}: ${message}`, key);
    if (options.refuse === undefined) throw fault;
    options.refuse(fault);
  };
  const config: Record<string, string> = {};
  const secretKeys: string[] = [];
  const put = (key: string, value: unknown) => {
    const short = key.startsWith(`${project.name}:`) ? key.slice(project.name.length + 1) : key;
    const plain = withoutSecrets(value, short, placeholder);
    config[key] = toText(plain.value);
    if (plain.secret) secretKeys.push(key);
  };

  const own = new Map(Object.entries(configOf(file)).map(([key, value]) => [qualify(key, project.name), value]));
  for (const declared of project.declarations) {
    if (own.has(declared.key)) continue;
    const value = declared.value ?? declared.default;
    if (value !== undefined && value !== null) put(declared.key, value);
    else if (declared.secret) put(declared.key, { secure: "" });
  }
  for (const [key, value] of own) {
    const declared = project.declarations.find((d) => d.key === key);
    if (declared?.secret && !isEncrypted(value)) {
      refuse(
        `${key} stands in clear, and is a secret; mend: pulumi config set --secret '${key}' --stack ${stack}`,
        key,
      );
      put(key, { secure: "" });
      continue;
    }
    const fits = types[declared?.type ?? ""];
    if (fits !== undefined && !fits.takes(value)) {
      refuse(
        `${key} is ${shown(value)}, and Pulumi.yaml declares it as ${fits.name}; mend: write there ${fits.mend}`,
        key,
      );
    }
    put(key, value);
  }
  return { project: project.name, stack, main: project.main, config, secretKeys };
}

/** Of what the CLI refuses before it runs the program, what the program has no fault of its own for. */
export const notTold = (refused: readonly StackConfigError[], faults: readonly { key: string }[]): StackConfigError[] =>
  refused.filter(({ key }) => !faults.some((fault) => fault.key === key));

/** `apex` -> `homestead:apex`; a key with a namespace stays as it is. */
export const qualify = (key: string, project: string): string => (key.includes(":") ? key : `${project}:${key}`);

/**
 * What the CLI takes for a declared type before it runs the program (pkg/workspace/config.go): every scalar is a text to
 * it, and what is encrypted as a whole is one, too. Types that are not here are not checked.
 */
const types: Partial<Record<string, { name: string; mend: string; takes: (value: unknown) => boolean }>> = {
  string: { name: "a string", mend: "a single value", takes: isScalar },
  integer: {
    name: "an integer",
    mend: "a whole number",
    takes: (value) => isEncrypted(value) || (isScalar(value) && /^[+-]?\d+$/.test(toText(value))),
  },
  boolean: {
    name: "a boolean",
    mend: "true or false",
    takes: (value) => isEncrypted(value) || (isScalar(value) && /^(true|false)$/.test(toText(value))),
  },
  object: {
    name: "an object",
    mend: "a mapping, one name a line below the key (JSON in quotes is a string)",
    takes: (value) => !isScalar(value) && !Array.isArray(value),
  },
};

const isEncrypted = (value: unknown): boolean => encrypted.safeParse(value).success;

function isScalar(value: unknown): boolean {
  return typeof value !== "object" || value === null || isEncrypted(value);
}

/** A value in a message; what is encrypted, or long, is not shown. */
function shown(value: unknown): string {
  if (isEncrypted(value)) return "an encrypted string";
  if (Array.isArray(value)) return "a list";
  if (!isScalar(value)) return "a mapping";
  const text = JSON.stringify(value ?? "");
  return text.length > 40 ? "a string" : text;
}

function parseFile<T extends z.ZodType>(file: string, shape: T): z.output<T> {
  let text: string;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch {
    throw new StackConfigError(`${file} cannot be read: is this the project's folder?`);
  }
  let content: unknown;
  try {
    content = parseYaml(text) ?? {};
  } catch (error) {
    // The parser's own words name its other functions.
    const several = (error as { code?: unknown }).code === "MULTIPLE_DOCS";
    throw new StackConfigError(
      several
        ? `${path.basename(file)} holds several documents; mend: keep one, and take out the line --- before the next`
        : `${path.basename(file)} is not YAML: ${firstLine(error)}`,
    );
  }
  const parsed = shape.safeParse(content);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path ?? [];
  const found = where.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)[key], content);
  const what =
    found === undefined
      ? "missing"
      : Array.isArray(found)
        ? "a list"
        : isScalar(found)
          ? "a single value"
          : "a mapping";
  const mend =
    issue?.code === "invalid_type" && issue.expected === "string" ? "a single value" : "a mapping, one name a line";
  throw new StackConfigError(
    `${path.basename(file)}: ${where.length === 0 ? "the whole file" : where.join(".")} is ${what}; mend: write there ${mend}`,
  );
}

/** The parser shows the place behind a colon, on lines of its own. */
const firstLine = (error: unknown) =>
  (error instanceof Error ? error.message : String(error)).split("\n")[0]?.replace(/:$/, "") ?? "";

/** Puts a placeholder where `{secure: …}` stands, at any depth. */
function withoutSecrets(value: unknown, name: string, placeholder: Placeholder): { value: unknown; secret: boolean } {
  if (isEncrypted(value)) return { value: placeholder(name), secret: true };
  if (Array.isArray(value)) {
    const items = value.map((item, i) => withoutSecrets(item, `${name}[${i}]`, placeholder));
    return { value: items.map((item) => item.value), secret: items.some((item) => item.secret) };
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).map(([k, v]) => [k, withoutSecrets(v, `${name}.${k}`, placeholder)] as const);
    return {
      value: Object.fromEntries(entries.map(([k, v]) => [k, v.value])),
      secret: entries.some(([, v]) => v.secret),
    };
  }
  return { value, secret: false };
}

/** The CLI hands every value over as text: objects as JSON, an empty entry as "". */
function toText(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
