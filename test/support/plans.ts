/**
 * The plans of all stacks, the example's and this clone's own, evaluated once for all test files (vitest's
 * globalSetup): each takes seconds, and they do not change while the tests run.
 */
import * as fs from "node:fs";
import * as path from "node:path";
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
  const plans = await plansIn(folder);
  project.provide("plans", plans);
  // Nobody's own yet: the clone's configuration is still the example's.
  project.provide("ownPlans", configured(folder) === configured(projectFolder) ? plans : await plansIn(projectFolder));
  return remove;
}

/** All that an example has of its own, by `writeExample`. */
function configured(folder: string): string {
  const files = ["Pulumi.yaml", ...stacksIn(folder).map((stack) => `Pulumi.${stack}.yaml`)];
  const blog = fs.globSync("blog/**", { cwd: folder }).filter((file) => fs.statSync(path.join(folder, file)).isFile());
  return JSON.stringify(
    [...files, ...blog].sort().map((file) => [file, fs.readFileSync(path.join(folder, file), "utf8")]),
  );
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
