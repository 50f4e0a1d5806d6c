/** Whether the settings' schema has a path, as `pulumi config set --path` writes it, and takes a value there. */
import * as z from "zod";
import { schema } from "../../settings";

/** A name that the reader has to put in. */
const isPlaceholder = (part: string): boolean => /^<[^>]+>$/.test(part);

/** The rules at a key's path, such as `vault.bucket` or `network.privateEgress[0]`: one for each form it may have. */
export function rulesAt(path: string): z.ZodType[] {
  const [key = "", ...parts] = [...path.matchAll(/[^.[\]]+/g)].map(([part]) => part);
  const rule = (schema as Record<string, z.ZodType>)[key];
  return parts.reduce((rules, part) => rules.flatMap((one) => below(one, part)), rule === undefined ? [] : [rule]);
}

/** The rules one step below another one. */
function below(rule: z.ZodType, part: string): z.ZodType[] {
  const inner = (found: unknown) => (found === undefined ? [] : [found as z.ZodType]);
  if (rule instanceof z.ZodUnknown) return [rule];
  if (rule instanceof z.ZodObject) return inner((rule.shape as Record<string, unknown>)[part]);
  if (rule instanceof z.ZodRecord) {
    return isPlaceholder(part) || (rule.keyType as z.ZodType).safeParse(part).success ? inner(rule.valueType) : [];
  }
  if (rule instanceof z.ZodArray) return /^\d+$/.test(part) ? inner(rule.element) : [];
  if (rule instanceof z.ZodUnion) return rule.options.flatMap((form) => below(form as z.ZodType, part));
  if (rule instanceof z.ZodPipe) return below(rule.out as z.ZodType, part);
  if (rule instanceof z.ZodOptional || rule instanceof z.ZodDefault || rule instanceof z.ZodPrefault) {
    return below(rule.unwrap() as z.ZodType, part);
  }
  return [];
}

/** Whether a value may stand there, as it is written or as the number, list or word that the CLI makes of it. */
export function takes(rules: readonly z.ZodType[], value: string): boolean {
  return rules.some((rule) => [value, ...asJson(value)].some((one) => rule.safeParse(one).success));
}

function asJson(value: string): unknown[] {
  try {
    return [JSON.parse(value)];
  } catch {
    return [];
  }
}
