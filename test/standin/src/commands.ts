import { QUEUES, type QueueName } from "./queue.ts";

/**
 * Command lines, as the official chart and Mastodon's documentation write them, turned into plain values. Pure, so that the whole contract is
 * tested without a process. What the real image would not know is a `UsageError`.
 */

export class UsageError extends Error {
  override readonly name = "UsageError";
}

export interface WeightedQueue {
  readonly name: QueueName;
  readonly weight: number;
}

export type Command =
  | { readonly kind: "web" }
  | {
      readonly kind: "sidekiq";
      readonly concurrency: number;
      readonly queues: readonly WeightedQueue[];
      readonly timeoutSeconds: number;
    }
  | { readonly kind: "streaming" }
  | { readonly kind: "exporter"; readonly bind: string; readonly port: number }
  | { readonly kind: "rake"; readonly tasks: readonly string[] }
  | { readonly kind: "runner"; readonly file: string }
  | { readonly kind: "tootctl"; readonly command: TootctlCommand };

export type TootctlCommand =
  | { readonly name: "version" }
  | { readonly name: "help" }
  | {
      readonly name: "accounts create";
      readonly username: string;
      readonly email: string;
      readonly confirmed: boolean;
      readonly approve: boolean;
      readonly role: string | undefined;
    }
  | {
      readonly name: "accounts modify";
      readonly username: string;
      readonly role: string | undefined;
      readonly removeRole: boolean;
      readonly email: string | undefined;
      readonly confirm: boolean;
      readonly enable: boolean;
      readonly disable: boolean;
      readonly disable2fa: boolean;
      readonly approve: boolean;
      readonly resetPassword: boolean;
    }
  | {
      readonly name: "accounts approve";
      readonly username: string | undefined;
      readonly all: boolean;
      readonly number: number | undefined;
    }
  | { readonly name: "feeds build"; readonly username: string | undefined; readonly dryRun: boolean }
  | { readonly name: "feeds clear" }
  | { readonly name: "cache clear" }
  | { readonly name: "search deploy"; readonly only: readonly string[]; readonly import: boolean }
  | { readonly name: "settings registrations"; readonly mode: "open" | "none" | "approved" }
  | { readonly name: "media usage" };

const RAKE_TASKS: readonly string[] = [
  "db:prepare",
  "db:migrate",
  "db:create",
  "db:setup",
  "db:seed",
  "db:version",
  "db:encryption:init",
  "mastodon:webpush:generate_vapid_key",
  "secret",
];

/** What the real tootctl has besides and the stand-in has not. Told apart from a misspelling. */
const TOOTCTL_REAL: readonly string[] = [
  "accounts rotate",
  "accounts delete",
  "accounts backup",
  "accounts cull",
  "accounts refresh",
  "accounts merge",
  "accounts fix-duplicates",
  "accounts follow",
  "accounts unfollow",
  "accounts reset-relationships",
  "accounts prune",
  "accounts migrate",
  "cache recount",
  "canonical-email-blocks find",
  "canonical-email-blocks remove",
  "domains purge",
  "domains crawl",
  "email-domain-blocks list",
  "email-domain-blocks add",
  "email-domain-blocks remove",
  "emoji export",
  "emoji import",
  "emoji purge",
  "federation self-destruct",
  "feeds vacuum",
  "ip-blocks add",
  "ip-blocks remove",
  "ip-blocks export",
  "maintenance fix-duplicates",
  "media remove",
  "media remove-orphans",
  "media refresh",
  "media lookup",
  "preview_cards remove",
  "statuses remove",
  "upgrade storage-schema",
  "self-destruct",
];

interface Shape {
  readonly booleans: readonly string[];
  readonly values: readonly string[];
  readonly short?: Readonly<Record<string, string>>;
  readonly positional: { readonly min: number; readonly max: number };
}

interface Parsed {
  readonly positional: readonly string[];
  readonly flags: ReadonlyMap<string, string | boolean>;
}

/** Thor's ways: `--name value`, `--name=value`, `--no-flag`, short aliases. */
function thor(name: string, args: readonly string[], shape: Shape): Parsed {
  const positional: string[] = [];
  const flags = new Map<string, string | boolean>();
  const wrong = (): UsageError =>
    new UsageError(`ERROR: "tootctl ${name}" was called with arguments ${JSON.stringify(args)}`);
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? "";
    if (!arg.startsWith("-") || arg === "-") {
      positional.push(arg);
      continue;
    }
    const [written = "", inline] = arg.split(/=(.*)/s, 2);
    const key = (written.startsWith("--") ? written.slice(2) : (shape.short?.[written.slice(1)] ?? "")).replaceAll(
      "_",
      "-",
    );
    if (shape.booleans.includes(key) && inline === undefined) flags.set(key, true);
    else if (key.startsWith("no-") && shape.booleans.includes(key.slice(3)) && inline === undefined)
      flags.set(key.slice(3), false);
    else if (shape.values.includes(key)) {
      const value = inline ?? args[++index];
      if (value === undefined || (inline === undefined && value.startsWith("--")))
        throw new UsageError(`No value provided for option '--${key}'`);
      flags.set(key, value);
    } else throw wrong();
  }
  if (positional.length < shape.positional.min || positional.length > shape.positional.max) throw wrong();
  return { positional, flags };
}

const on = (parsed: Parsed, flag: string): boolean => parsed.flags.get(flag) === true;

function text(parsed: Parsed, flag: string): string | undefined {
  const value = parsed.flags.get(flag);
  return typeof value === "string" ? value : undefined;
}

function numeric(parsed: Parsed, flag: string): number | undefined {
  const value = text(parsed, flag);
  if (value === undefined) return undefined;
  if (!/^-?\d+(\.\d+)?$/.test(value))
    throw new UsageError(`Expected numeric value for '--${flag}'; got ${JSON.stringify(value)}`);
  return Number(value);
}

export function parseTootctl(args: readonly string[]): TootctlCommand {
  const [group, action, ...rest] = args;
  if (group === "--version" || group === "version") return { name: "version" };
  if (group === undefined || group === "help" || group === "--help") return { name: "help" };
  const name = `${group} ${action ?? ""}`.trim();
  switch (name) {
    case "accounts create": {
      const parsed = thor(name, rest, {
        booleans: ["confirmed", "reattach", "force", "approve"],
        values: ["email", "role"],
        positional: { min: 1, max: 1 },
      });
      const email = text(parsed, "email");
      if (email === undefined) throw new UsageError("No value provided for required options '--email'");
      if (on(parsed, "reattach") || on(parsed, "force"))
        throw new UsageError("The stand-in for tootctl does not implement --reattach and --force; the real one does.");
      return {
        name,
        username: parsed.positional[0] ?? "",
        email,
        confirmed: on(parsed, "confirmed"),
        approve: on(parsed, "approve"),
        role: text(parsed, "role"),
      };
    }
    case "accounts modify": {
      const parsed = thor(name, rest, {
        booleans: ["remove-role", "confirm", "enable", "disable", "disable-2fa", "approve", "reset-password"],
        values: ["role", "email"],
        positional: { min: 1, max: 1 },
      });
      return {
        name,
        username: parsed.positional[0] ?? "",
        role: text(parsed, "role"),
        removeRole: on(parsed, "remove-role"),
        email: text(parsed, "email"),
        confirm: on(parsed, "confirm"),
        enable: on(parsed, "enable"),
        disable: on(parsed, "disable"),
        disable2fa: on(parsed, "disable-2fa"),
        approve: on(parsed, "approve"),
        resetPassword: on(parsed, "reset-password"),
      };
    }
    case "accounts approve": {
      const parsed = thor(name, rest, {
        booleans: ["all"],
        values: ["number"],
        short: { n: "number" },
        positional: { min: 0, max: 1 },
      });
      return { name, username: parsed.positional[0], all: on(parsed, "all"), number: numeric(parsed, "number") };
    }
    case "feeds build": {
      const parsed = thor(name, rest, {
        booleans: ["all", "verbose", "dry-run", "skip-filled-timelines"],
        values: ["concurrency"],
        short: { c: "concurrency", v: "verbose" },
        positional: { min: 0, max: 1 },
      });
      return { name, username: on(parsed, "all") ? undefined : parsed.positional[0], dryRun: on(parsed, "dry-run") };
    }
    case "feeds clear":
    case "cache clear":
    case "media usage":
      thor(name, rest, { booleans: [], values: [], positional: { min: 0, max: 0 } });
      return { name };
    case "search deploy": {
      const indices = ["instances", "accounts", "tags", "statuses", "public_statuses"];
      // `--only` takes a list; whatever follows it without dashes belongs to it.
      const parsed = thor(name, rest, {
        booleans: ["import", "clean", "reset-chewy", "only-mapping"],
        values: ["concurrency", "batch-size", "only"],
        short: { c: "concurrency", b: "batch-size" },
        positional: { min: 0, max: indices.length },
      });
      const only = [...(text(parsed, "only") === undefined ? [] : [text(parsed, "only") ?? ""]), ...parsed.positional];
      const unknown = only.find((index) => !indices.includes(index));
      if (unknown !== undefined)
        throw new UsageError(`Expected all values of '--only' to be one of ${indices.join(", ")}; got ${unknown}`);
      for (const flag of ["concurrency", "batch-size"] as const)
        if ((numeric(parsed, flag) ?? 1) < 1)
          throw new UsageError(`Cannot run with this ${flag.replace("-", "_")} setting, must be at least 1`);
      return { name, only, import: parsed.flags.get("import") !== false };
    }
    case "settings registrations": {
      const modes = { open: "open", close: "none", approved: "approved" } as const;
      const mode = rest[0] as keyof typeof modes | undefined;
      if (mode === undefined || !Object.hasOwn(modes, mode) || rest.slice(1).some((arg) => arg !== "--require-reason"))
        throw new UsageError(
          `ERROR: "tootctl settings registrations" was called with arguments ${JSON.stringify(rest)}`,
        );
      return { name, mode: modes[mode] };
    }
    default:
      if (TOOTCTL_REAL.includes(name) || TOOTCTL_REAL.includes(group))
        throw new UsageError(`The stand-in for tootctl does not implement "${name}"; the real one does.`);
      throw new UsageError(`Could not find command ${JSON.stringify(name)}.`);
  }
}

function parsePuma(args: readonly string[]): Command {
  const rest = [...args];
  while (rest.length > 0) {
    const flag = rest.shift();
    if ((flag === "-C" || flag === "--config") && rest[0] === "config/puma.rb") rest.shift();
    else
      throw new UsageError(
        `puma: unknown argument ${JSON.stringify(flag)}; the image is started with "puma -C config/puma.rb".`,
      );
  }
  return { kind: "web" };
}

function parseSidekiq(args: readonly string[], defaultConcurrency: number): Command {
  let concurrency = defaultConcurrency;
  let timeoutSeconds = 25;
  const queues: WeightedQueue[] = [];
  const rest = [...args];
  const value = (flag: string): string => {
    const next = rest.shift();
    if (next === undefined) throw new UsageError(`sidekiq: missing argument: ${flag}`);
    return next;
  };
  const integer = (flag: string): number => {
    const written = value(flag);
    if (!/^\d+$/.test(written)) throw new UsageError(`sidekiq: invalid argument: ${flag} ${written}`);
    return Number(written);
  };
  while (rest.length > 0) {
    const flag = rest.shift() ?? "";
    if (flag === "-c" || flag === "--concurrency") concurrency = integer(flag);
    else if (flag === "-t" || flag === "--timeout") timeoutSeconds = integer(flag);
    else if (flag === "-e" || flag === "--environment") {
      if (value(flag) !== "production")
        throw new UsageError("sidekiq: the stand-in only has the environment production");
    } else if (flag === "-q" || flag === "--queue") {
      const [name = "", weight, ...more] = value(flag).split(",");
      if (name === "" || more.length > 0 || (weight !== undefined && !/^[1-9]\d*$/.test(weight)))
        throw new UsageError(`sidekiq: invalid argument: ${flag} takes NAME or NAME,WEIGHT`);
      // Sidekiq itself would wait on a queue that nothing ever fills, and the one that was meant would fill up: not here.
      const known = QUEUES.find((queue) => queue === name);
      if (known === undefined)
        throw new UsageError(`sidekiq: Mastodon has no queue ${JSON.stringify(name)}; it has ${QUEUES.join(", ")}.`);
      if (queues.some((queue) => queue.name === name))
        throw new UsageError(`sidekiq: queues: ${name} cannot be defined twice`);
      queues.push({ name: known, weight: weight === undefined ? 1 : Number(weight) });
    } else throw new UsageError(`sidekiq: invalid option: ${flag}`);
  }
  if (concurrency < 1) throw new UsageError("sidekiq: concurrency must be at least 1");
  return {
    kind: "sidekiq",
    concurrency,
    timeoutSeconds,
    queues: queues.length === 0 ? [{ name: "default" as const, weight: 1 }] : queues,
  };
}

function parseRake(args: readonly string[]): Command {
  if (args.length === 0) throw new UsageError("rake: no task given");
  for (const task of args)
    if (!RAKE_TASKS.includes(task))
      throw new UsageError(
        `rake aborted!\nDon't know how to build task '${task}' (the stand-in has ${RAKE_TASKS.join(", ")})`,
      );
  return { kind: "rake", tasks: args };
}

function parseRails(args: readonly string[]): Command {
  const [first, ...rest] = args;
  if (first !== "runner") return parseRake(args);
  if (rest[0] === "-e" || rest[0] === "--environment") {
    if (rest[1] !== "production") throw new UsageError("rails: the stand-in only has the environment production");
    rest.splice(0, 2);
  }
  const [file, ...more] = rest;
  // The stand-in has no Ruby: it plays scripts whose first line it knows, and nothing else.
  if (file === undefined || more.length > 0 || !/^[^\s;()]+\.rb$/.test(file))
    throw new UsageError(
      "rails runner: the stand-in runs only a script file (.rb) that begins with a line it knows; it cannot run Ruby.",
    );
  return { kind: "runner", file };
}

function parseExporter(args: readonly string[]): Command {
  let bind = "localhost";
  let port = 9394;
  const rest = [...args];
  while (rest.length > 0) {
    const flag = rest.shift();
    const value = rest.shift();
    if ((flag === "-b" || flag === "--bind") && value !== undefined) bind = value;
    else if ((flag === "-p" || flag === "--port") && value !== undefined && /^\d+$/.test(value)) port = Number(value);
    else throw new UsageError(`prometheus_exporter: invalid option: ${flag}`);
  }
  return { kind: "exporter", bind, port };
}

/** `program` is the executable's name (`bundle`, `rails`, …), `args` what follows it. */
export function parseCommand(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Command {
  switch (program) {
    case "bundle": {
      const [exec, inner, ...rest] = args;
      if (exec !== "exec" || inner === undefined)
        throw new UsageError(`bundle: the image only has "bundle exec", not ${JSON.stringify(exec ?? "")}`);
      if (inner === "bundle") throw new UsageError('bundler: command not found: "bundle"');
      return parseCommand(inner.replace(/^(\.\/)?bin\//, ""), rest, env);
    }
    case "puma":
      return parsePuma(args);
    case "sidekiq":
      return parseSidekiq(args, Number(env.SIDEKIQ_CONCURRENCY ?? 5));
    case "rake":
      return parseRake(args);
    case "rails":
      return parseRails(args);
    case "tootctl":
      return { kind: "tootctl", command: parseTootctl(args) };
    case "streaming":
      if (args.length > 0) throw new UsageError(`streaming: unknown argument ${JSON.stringify(args[0])}`);
      return { kind: "streaming" };
    case "prometheus_exporter":
      return parseExporter(args);
    default:
      throw new UsageError(`bundler: command not found: ${program}`);
  }
}
