/**
 * The plan of a stack: the real program, evaluated without the Pulumi CLI, a cluster, credentials or a passphrase.
 *
 * It runs in a process of its own (`plan/child.ts`) under the SDK's mocks, so that the command line and the tests see
 * the very same thing, and one stack's run cannot touch another's.
 */
import { fork } from "node:child_process";
import * as path from "node:path";
import type { Json, JsonObject } from "./plan/mask";

/** A resource option that decides what happens to data and in which order, as the program gave it to the engine. */
export interface PlannedOptions {
  protect: boolean;
  retainOnDelete: boolean;
  deleteBeforeReplace: boolean;
  /** URNs. */
  dependsOn: string[];
  /** URN. */
  deletedWith?: string;
  ignoreChanges: string[];
  replaceOnChanges: string[];
  additionalSecretOutputs: string[];
  /** Old URNs or names. */
  aliases: number;
  /** Physical id of an object that is taken over. */
  importId?: string;
  /** Such as `20m`. */
  timeouts: { create?: string; update?: string; delete?: string };
  /** Names of the resource hooks, by occasion (`beforeCreate`, `onError`, …). */
  hooks: Record<string, string[]>;
}

export interface PlannedResource {
  urn: string;
  /** Such as `kubernetes:apps/v1:StatefulSet` or `homestead:index:Valkey`. */
  type: string;
  /** The logical name. */
  name: string;
  /** `component` has children and nothing of its own; `read` is looked up, not made. */
  kind: "component" | "resource" | "read";
  /** URN; none for what stands directly in the stack. */
  parent?: string;
  /** URN of the provider instance; none means the default provider of the package. */
  provider?: string;
  /** What the program asks for, secrets by name only. */
  inputs: JsonObject;
  /** Paths in `inputs` that are marked secret. */
  secretPaths: string[];
  /** Paths in `inputs` where a secret's text stands without being marked. */
  leaks: string[];
  options: PlannedOptions;
}

export interface Plan {
  /** The stack's name. */
  site: string;
  resources: PlannedResource[];
  /** The stack's outputs, secrets by name only. */
  outputs: JsonObject;
  /** Paths in `outputs` that are marked secret. */
  secretOutputs: string[];
  /** Paths in `outputs` where a secret's text stands without being marked. */
  leakedOutputs: string[];
  /** What the program wrote to its standard output and error (warnings, mostly). */
  messages: string;
}

export interface PlanOptions {
  /** @default the project this file belongs to */
  folder?: string;
  /** Another file in place of `Pulumi.<stack>.yaml`. */
  configFile?: string;
  /** For a program that hangs, which is a bug. @default 600, long enough for a slow machine that has other work, too */
  limitSeconds?: number;
}

/** The program or its configuration is at fault; the message is for a person. */
export class PlanError extends Error {
  override name = "PlanError";
  constructor(
    message: string,
    /** The stack trace in the program's process, where the fault is a bug and not the configuration. */
    readonly trace?: string,
  ) {
    super(message);
  }
}

/** What the child is told, as its one argument. */
export interface PlanRequest {
  stack: string;
  folder: string;
  configFile?: string;
}

/** What the child answers, once. */
export type PlanAnswer =
  { kind: "plan"; plan: Omit<Plan, "messages"> } | { kind: "fault"; message: string; trace?: string };

export const projectFolder = path.resolve(__dirname, "..");

/** Evaluates the program for one stack. @throws PlanError with what is wrong. */
export async function planStack(stack: string, options: PlanOptions = {}): Promise<Plan> {
  const request: PlanRequest = {
    stack,
    folder: path.resolve(options.folder ?? projectFolder),
    ...(options.configFile === undefined ? {} : { configFile: path.resolve(options.configFile) }),
  };
  const { limitSeconds = 600 } = options;
  // The engine's variables would make the SDK look for an engine.
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PULUMI_")));
  const child = fork(path.join(__dirname, "plan", "child.ts"), [JSON.stringify(request)], {
    execArgv: ["--require", path.join(projectFolder, "cli", "typescript.cjs")],
    cwd: request.folder,
    env: environment,
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    timeout: limitSeconds * 1000,
  });

  let messages = "";
  child.stdout?.on("data", (chunk: Buffer) => (messages += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (messages += chunk.toString()));
  let answer: PlanAnswer | undefined;
  child.on("message", (message) => (answer = message as PlanAnswer));
  const ended = await new Promise<string>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(signal ?? `code ${code}`));
  });

  if (answer?.kind === "plan") return { ...answer.plan, messages };
  if (answer?.kind === "fault") throw new PlanError(answer.message, answer.trace);
  // Nothing but the limit sets this.
  const why = child.killed
    ? `took longer than ${limitSeconds} s, and was ended without a plan`
    : `ended with ${ended} and gave no plan`;
  throw new PlanError(`the program of stack '${stack}' ${why}`, messages);
}

/** The value at a dotted path, or undefined: `at(resource.inputs, "spec.template.spec")`. */
export function at(value: Json | undefined, dotted: string): Json | undefined {
  return dotted.split(".").reduce<Json | undefined>((v, key) => {
    if (Array.isArray(v)) return v[Number(key)];
    return typeof v === "object" && v !== null ? v[key] : undefined;
  }, value);
}
