/** Access to the plans that {@link ./plans} made, the example's where nothing else is said, and to single resources in them. */
import { inject } from "vitest";
import type { Plan, PlannedResource } from "../../lib/plan";
import { shortType } from "../../lib/plan/render";
import { stackNames } from "../../settings";
import type { StackName } from "../../settings";
import type { Planned } from "./plans";

export const stacks = stackNames;

/** The plan of a stack of the example. @throws if the program could not be evaluated */
export const plannedStack = (stack: StackName): Plan => planOf(inject("plans"), stack);

/** A stack's plan among others. @throws if the program could not be evaluated */
export function planOf(plans: Record<string, Planned>, stack: StackName): Plan {
  const planned = plans[stack];
  if (!planned) throw new Error(`no stack ${stack}`);
  if ("fault" in planned) throw new Error(`stack ${stack} has no plan: ${planned.fault}`);
  return planned.plan;
}

/** All resources of a short type (`kubernetes:core/v1:Secret`, `Valkey`), or those that a pattern matches. */
export function ofType(plan: Plan, type: string | RegExp): PlannedResource[] {
  return plan.resources.filter(({ type: full }) =>
    typeof type === "string" ? shortType(full) === type : type.test(shortType(full)),
  );
}

/** The one resource with that logical name. @throws if there is none, or more than one */
export function named(plan: Plan, name: string): PlannedResource {
  const found = plan.resources.filter((resource) => resource.name === name);
  const [only] = found;
  if (!only || found.length > 1) {
    throw new Error(
      `${found.length} resources '${name}' in the plan of ${plan.site}: ${plan.resources.map((r) => r.name).join(", ")}`,
    );
  }
  return only;
}
