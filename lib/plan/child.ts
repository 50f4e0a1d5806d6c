/**
 * The process in which a stack's program is evaluated. Started by `planStack`; answers over its IPC channel, so that
 * whatever the program prints cannot get into the answer.
 */
import { Module, createRequire } from "node:module";
import * as path from "node:path";
import type * as Pulumi from "@pulumi/pulumi";
import { startPlanning } from "../planning";
import { StackConfigError, notTold, readStackConfig } from "../stack-config";
import { Placeholders } from "./placeholders";
import type { JsonObject } from "./mask";
import { provided } from "./provided";
import { SdkMovedError, record, settled } from "./recorder";
import type { PlanAnswer, PlanRequest } from "../plan";

async function evaluate(request: PlanRequest): Promise<PlanAnswer> {
  const placeholders = new Placeholders();
  const refused: StackConfigError[] = [];
  const stack = readStackConfig(request.folder, request.stack, (name) => placeholders.of(name), {
    ...request,
    refuse: (fault) => refused.push(fault),
  });
  shareKeys(stack.config);

  // The program's own copy of the SDK: a second one would not see the mocks.
  const load = createRequire(path.join(request.folder, "package.json"));
  spareInstaller(load);
  const pulumi = load("@pulumi/pulumi") as typeof Pulumi;

  startPlanning();
  // As a preview: what only a provider could tell is unknown then, and not silently undefined.
  await pulumi.runtime.setMocks(provided(placeholders), stack.project, stack.stack, true);
  const recorded = record(load, placeholders);
  pulumi.runtime.setAllConfig(stack.config, stack.secretKeys);

  // The engine's host runs every program inside this; it makes the stack's root resource the default parent.
  const running = pulumi.runtime.runInPulumiStack(async () => {
    const program = load(stack.main) as unknown;
    return (typeof program === "function" ? (program as () => Promise<unknown>)() : program) as Promise<unknown>;
  });
  await running.catch((error: unknown) => {
    throw refused.length === 0 ? error : together(refused, error);
  });
  if (refused.length > 0) throw together(refused);
  await settled(load);
  return {
    kind: "plan",
    plan: {
      site: stack.stack,
      resources: recorded.resources,
      outputs: recorded.outputs.value as JsonObject,
      secretOutputs: recorded.outputs.secretPaths,
      leakedOutputs: recorded.outputs.leaks,
    },
  };
}

/**
 * The SDK loads npm's installer with itself, which takes longer than all the rest of it. It is for functions that are sent
 * to a provider written in place; a plan that has one fails there. An SDK without it has nothing to be spared.
 */
function spareInstaller(load: NodeJS.Require): void {
  try {
    const installer = createRequire(load.resolve("@pulumi/pulumi")).resolve("@npmcli/arborist");
    load.cache[installer] = Object.assign(new Module(installer), { loaded: true });
  } catch {
    return;
  }
}

/** The embedded object store knows one pair of keys, which the settings insist on: its placeholders are one pair too. */
function shareKeys(config: Record<string, string>): void {
  if (config["homestead:objectStore"] !== "embedded") return;
  for (const key of ["AccessKeyId", "SecretAccessKey"]) {
    const vaultKey = config[`homestead:vault${key}`];
    if (vaultKey !== undefined) config[`homestead:media${key}`] = vaultKey;
  }
}

/** Nobody should hear of what the program finds wrong only when what the CLI finds is mended. A bug may be that value's. */
function together(refused: readonly StackConfigError[], program?: unknown): StackConfigError {
  const found = isForAPerson(program) ? [program] : [];
  const rest = notTold(refused, found[0]?.faults ?? []);
  return new StackConfigError([...rest, ...found].map(({ message }) => message).join("\n"));
}

/** A fault as Pulumi knows it; the settings' has all of theirs. */
const isForAPerson = (error: unknown): error is Error & { faults?: { key: string }[] } =>
  (error as { __pulumiRunError?: boolean } | undefined)?.__pulumiRunError === true;

/** A person's fault is told without a stack trace; everything else is a bug and keeps its trace. */
function faultOf(error: unknown): PlanAnswer {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const forAPerson = error instanceof SdkMovedError || isForAPerson(error);
  return { kind: "fault", message, ...(forAPerson || stack === undefined ? {} : { trace: stack }) };
}

function answer(message: PlanAnswer, code: number): void {
  process.send?.(message, () => process.exit(code));
}

// A resource whose inputs fail rejects somewhere inside the SDK; the first such error is the one that says why.
process.on("unhandledRejection", (error) => answer(faultOf(error), 1));
process.on("uncaughtException", (error) => answer(faultOf(error), 1));

evaluate(JSON.parse(process.argv[2] ?? "{}") as PlanRequest).then(
  (plan) => answer(plan, 0),
  (error: unknown) => answer(faultOf(error), 1),
);
