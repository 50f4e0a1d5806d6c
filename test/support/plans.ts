/**
 * The plans of all stacks, evaluated once for all test files (vitest's globalSetup): each takes seconds, and they
 * do not change while the tests run.
 */
import type { TestProject } from "vitest/node";
import { PlanError, planStack, projectFolder } from "../../lib/plan";
import type { Plan } from "../../lib/plan";
import { stacksIn } from "../../lib/stack-config";

/** A stack's plan, or why there is none: a broken program fails the tests that need its plan, not all of them. */
export type Planned = { plan: Plan } | { fault: string };

declare module "vitest" {
  interface ProvidedContext {
    plans: Record<string, Planned>;
  }
}

export default async function setup(project: TestProject): Promise<void> {
  const plans = stacksIn(projectFolder).map(async (stack) => [stack, await planned(stack)] as const);
  project.provide("plans", Object.fromEntries(await Promise.all(plans)));
}

const planned = (stack: string): Promise<Planned> =>
  planStack(stack).then(
    (plan) => ({ plan }),
    (error: unknown) => ({
      fault: error instanceof PlanError ? `${error.message}\n${error.trace ?? ""}` : String(error),
    }),
  );
