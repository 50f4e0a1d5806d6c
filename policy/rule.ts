import { title } from "./objects";
import type { KubernetesObject } from "./objects";

/** A rule that was broken. */
export interface Breach {
  /** The object at fault; none where it is one that is missing. */
  object?: KubernetesObject;
  /** Which object, which field, what is allowed. */
  message: string;
}

export interface Rule {
  name: string;
  /** One line. */
  why: string;
  /** Whether each object keeps it by itself, or only all of a stack together do. */
  of: "object" | "stack";
  check: (objects: readonly KubernetesObject[]) => Breach[];
}

/** A field that is not what it may be. */
export const fault = (field: string, value: unknown, allowed: string): string =>
  `${field} is ${value === undefined ? "not set" : JSON.stringify(value)}; allowed: ${allowed}`;

/** What is wrong with an object, each as {@link fault} says it, as breaches. */
export const breaches = (object: KubernetesObject, faults: string[]): Breach[] =>
  faults.map((message) => ({ object, message: `${title(object)}: ${message}` }));

/** A rule that looks at one object at a time. */
export const objectRule = (name: string, why: string, faults: (object: KubernetesObject) => string[]): Rule => ({
  name,
  why,
  of: "object",
  check: (objects) => objects.flatMap((object) => breaches(object, faults(object))),
});

/** A rule about objects that belong together. */
export const stackRule = (name: string, why: string, check: Rule["check"]): Rule => ({ name, why, of: "stack", check });
