/** What the rules of a configuration are made of: {@link ../settings} and the parts of it that have a file of their own. */
import * as z from "zod";

/** A rule's message says what is allowed; the way to mend it is added when faults are printed. */
export const allowed = (what: string) => ({ error: () => what });

export const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, { error: () => `one of ${values.join(", ")}` });

/** An object whose unknown keys are faults, and whose absence names what it must hold. */
export const object = <T extends z.core.$ZodLooseShape>(shape: T) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? `only ${Object.keys(shape).join(", ")}`
        : `an object with ${Object.keys(shape).join(", ")}`,
  });
