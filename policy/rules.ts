/**
 * What every Kubernetes object of ours must and must not be. Pure: the policy pack (index.ts) asks it of a stack that the
 * engine is about to change, and test/policy.test.ts of every stack's plan and of the rendered chart.
 */
import { accessRules } from "./access";
import { networkRules } from "./network";
import type { KubernetesObject } from "./objects";
import { podRules } from "./pods";
import type { Rule } from "./rule";
import { secretRules } from "./secrets";

export const rules: Rule[] = [...podRules, ...secretRules, ...accessRules, ...networkRules];

/** Every breach among objects that belong together, one line each. */
export function breachesAmong(objects: readonly KubernetesObject[]): string[] {
  return rules.flatMap((rule) => rule.check(objects).map(({ message }) => `${rule.name}: ${message}`));
}
