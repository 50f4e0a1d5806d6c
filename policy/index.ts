/** The policy pack: `pulumi preview --policy-pack policy`. A breach ends a preview or an update before it changes anything. */
import { PolicyPack } from "@pulumi/policy";
import type { Policies } from "@pulumi/policy";
import { knownAfterUpdate } from "../lib/plan/mask";
import { objectOf } from "./objects";
import type { KubernetesObject } from "./objects";
import type { Rule } from "./rule";
import { rules } from "./rules";

/** The SDK's view of properties throws at what only the update will tell; the plan, and the rules, have a text for it. */
function plain(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const known = (key: string): unknown => {
    try {
      return plain((value as Record<string, unknown>)[key]);
    } catch {
      return knownAfterUpdate;
    }
  };
  return Array.isArray(value)
    ? Array.from(value.keys(), (i) => known(String(i)))
    : Object.fromEntries(Object.keys(value).map((key) => [key, known(key)]));
}

function policyOf({ name, why, of, check }: Rule): Policies[number] {
  const about = { name, description: why, enforcementLevel: "mandatory" } as const;
  if (of === "object") {
    return {
      ...about,
      validateResource: ({ type, props }, report) => {
        const object = objectOf(type, plain(props));
        if (object) for (const { message } of check([object])) report(message);
      },
    };
  }
  return {
    ...about,
    validateStack: ({ resources }, report) => {
      const urns = new Map<KubernetesObject, string>();
      for (const { type, props, urn } of resources) {
        const object = objectOf(type, plain(props));
        if (object) urns.set(object, urn);
      }
      for (const { object, message } of check([...urns.keys()])) report(message, object && urns.get(object));
    },
  };
}

new PolicyPack("homestead", {
  description: "What every Kubernetes object of homestead must and must not be",
  enforcementLevel: "mandatory",
  policies: rules.map(policyOf),
});
