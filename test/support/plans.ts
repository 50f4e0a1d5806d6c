/**
 * The plans of all stacks, the example's and this clone's own, evaluated once for all test files (vitest's
 * globalSetup): each takes seconds, and they do not change while the tests run.
 */
import type { TestProject } from "vitest/node";
import { PlanError, planStack, projectFolder } from "../../lib/plan";
import type { Plan } from "../../lib/plan";
import { stacksIn } from "../../lib/stack-config";
import { provideExample } from "./example-folder";

/** A stack's plan, or why there is none: a broken program fails the tests that need its plan, not all of them. */
export type Planned = { plan: Plan } | { fault: string };

declare module "vitest" {
  interface ProvidedContext {
    /** The example's plans. */
    plans: Record<string, Planned>;
    /** This clone's. */
    ownPlans: Record<string, Planned>;
  }
}

export default async function setup(project: TestProject): Promise<() => void> {
  const { folder, remove } = provideExample(project);
  project.provide("plans", await plansIn(folder));
  project.provide("ownPlans", await plansIn(projectFolder));
  return remove;
}

async function plansIn(folder: string): Promise<Record<string, Planned>> {
  const plans = stacksIn(folder).map(async (stack) => [stack, await planned(stack, folder)] as const);
  return Object.fromEntries(await Promise.all(plans));
}

const planned = (stack: string, folder: string): Promise<Planned> =>
  planStack(stack, { folder }).then(
    (plan) => ({ plan }),
    (error: unknown) => ({
      fault: error instanceof PlanError ? `${error.message}\n${error.trace ?? ""}` : String(error),
    }),
  );
