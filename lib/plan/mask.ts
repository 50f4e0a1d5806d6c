/** The engine's wire format of a resource's inputs -> plain values that may be shown. */
import type { Placeholders } from "./placeholders";

/** A value as JSON has it. */
export type Json = string | number | boolean | null | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** What is shown for a value that only the cluster will decide. */
export const knownAfterUpdate = "<known after the update>";

// The SDK's markers (sdk/nodejs/runtime/rpc.ts); they are part of the engine's protocol and do not change.
const signatureKey = "4dabf18193072939515e22adb298388d";
const signatures = {
  secret: "1b47061264138c4ac30d75fd1eb44270",
  resource: "5cf8f73096256a8f31e491e813e4eb8e",
  asset: "c44067f5952c0a294b673a41bacd8c17",
  archive: "0def7320c3a5731c473e5ecbe6d01bc7",
  output: "d0e6a833031e9bbcd3f4e8bde6ca49a4",
};
const unknownValue = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

export interface Masked {
  value: Json;
  /** Paths of the values that are marked secret. */
  secretPaths: string[];
  /** Paths where a secret's text stands without being marked: it would be readable in the state and in previews. */
  leaks: string[];
}

/** Unwraps and masks. A value marked secret is shown by its placeholders' names, or by its own key if it has none. */
export function mask(raw: unknown, placeholders: Placeholders): Masked {
  const secretPaths: string[] = [];
  const leaks: string[] = [];

  const walk = (value: unknown, at: string, key: string, inSecret: boolean): Json => {
    if (value === null || value === undefined) return null;
    if (value === unknownValue) return knownAfterUpdate;
    if (typeof value === "string") {
      const { shown, found } = placeholders.hide(value);
      if (inSecret) return found ? shown : `<${key}>`;
      if (found) leaks.push(at);
      return shown;
    }
    if (typeof value === "number" || typeof value === "boolean") return inSecret ? `<${key}>` : value;
    if (Array.isArray(value)) return value.map((item, i) => walk(item, `${at}[${i}]`, key, inSecret));
    if (typeof value !== "object") throw new TypeError(`${at}: ${typeof value} in a resource's inputs`);

    const object = value as Record<string, unknown>;
    switch (object[signatureKey]) {
      case signatures.secret:
        if (!inSecret) secretPaths.push(at);
        return walk(object.value, at, key, true);
      case signatures.output:
        if (object.secret === true && !inSecret) secretPaths.push(at);
        return "value" in object ? walk(object.value, at, key, inSecret || object.secret === true) : knownAfterUpdate;
      case signatures.resource:
        return `<resource ${typeof object.urn === "string" ? (object.urn.split("::").at(-1) ?? "") : ""}>`;
      case signatures.asset:
        return typeof object.text === "string"
          ? walk(object.text, at, key, inSecret)
          : `<file ${String(object.path ?? object.uri)}>`;
      case signatures.archive:
        return "<archive>";
    }
    return Object.fromEntries(
      Object.entries(object).map(([k, v]) => [k, walk(v, at === "" ? k : `${at}.${k}`, k, inSecret)]),
    );
  };

  const value = walk(raw, "", "value", false);
  return { value, secretPaths, leaks };
}
