/**
 * How a trial's configuration is mended: by `./try`'s own options, since each call writes its stack file anew. What the
 * program says to everybody else, `pulumi config set` and the files of the project, would change nothing there.
 */
import type { Fault } from "../../settings";

/** What the user wrote for a key: its path without `homestead:` -> `--set locale=x`, or `locale in mine.yaml (--config)`. */
export type Origins = Record<string, string>;

/** Tells the program, which Pulumi starts, that it is a trial's. */
const variable = "HOMESTEAD_TRIAL";

export const trialEnvironment = (origins: Origins): NodeJS.ProcessEnv => ({ [variable]: JSON.stringify(origins) });

/** undefined outside of a trial. */
export function trialOrigins(environment: NodeJS.ProcessEnv = process.env): Origins | undefined {
  const text = environment[variable];
  return text === undefined ? undefined : (JSON.parse(text) as Origins);
}

/** What the user wrote for a key, for an object around it or for something inside it; for the nearest of them. */
export function originOf(key: string, origins: Origins): string | undefined {
  const path = key.replace(/^homestead:/, "").replace(/\[.*$/, "");
  const inside = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}.`);
  const around = Object.keys(origins)
    .filter((one) => inside(path, one))
    .sort((a, b) => b.length - a.length)[0];
  const found = around ?? Object.keys(origins).find((one) => inside(one, path));
  return found === undefined ? undefined : origins[found];
}

const option = "(?:--path |--plaintext |--type string )*";
const name = "'?(?:homestead:)?([^'\\s]+)'?";
const stack = "(?: --stack dev)?";

/** A fault as a trial tells it. Pure. */
export function inTrial(fault: Fault, origins: Origins): Fault {
  const origin = originOf(fault.key, origins);
  const set = (key: string, value: string) =>
    key.startsWith("cluster.") ? "kubectl config use-context <context>, then ./try" : `./try --set ${key}=${value}`;
  const leave = (key: string) => {
    const from = originOf(key, origins);
    return from === undefined ? `take ${key} out of Pulumi.dev.yaml` : `leave out ${from}`;
  };
  const mend = fault.mend
    .replace(new RegExp(`pulumi config set --secret ${option}${name}${stack}`, "g"), (_, key: string) => secret(key))
    .replace(
      new RegExp(`pulumi config set ${option}${name} (<[^>]*>|\\S+)${stack}`, "g"),
      (_, key: string, value: string) => set(key, value),
    )
    .replace(new RegExp(`pulumi config rm ${option}${name}${stack}`, "g"), (_, key: string) => leave(key))
    .replace(
      /rename or remove (\S+) in Pulumi\.yaml|remove (\S+) from Pulumi\.yaml/g,
      (_, one?: string, two?: string) => leave(one ?? two ?? ""),
    )
    .replace(/edit (\S+) in Pulumi(?:\.dev)?\.yaml/g, (_, key: string) => set(key, "<value>"))
    .replace(
      /set (\S+) (?:back )?to (\d+) in Pulumi\.yaml(?: and run: pulumi up(?: --\S+)* --stack dev)?/g,
      (_, key: string, value: string) => set(key, value),
    )
    .replace(/pulumi up(?: --\S+)* --stack dev/g, "./try");
  const instead = origin !== undefined && mend.includes("./try --set") ? `, in place of ${origin}` : "";
  return { ...fault, mend: `${mend}${instead}` };
}

const secret = (key: string) => `${key}: <value> in a file, and ./try --config <file>`;
