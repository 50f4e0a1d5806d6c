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

/** `a["b"][0]` -> `a.b.0`: only to be compared. */
const dotted = (key: string): string => key.replace(/^homestead:/, "").replace(/\["?(.*?)"?\]/g, ".$1");

/** What the user wrote for a key, for an object around it or for something inside it; for the nearest of them. */
export function originOf(key: string, origins: Origins): string | undefined {
  const path = dotted(key);
  const written = Object.entries(origins).map(([one, origin]) => ({ path: dotted(one), origin }));
  const inside = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}.`);
  const around = written.filter((one) => inside(path, one.path)).sort((a, b) => b.path.length - a.path.length)[0];
  return (around ?? written.find((one) => inside(one.path, path)))?.origin;
}

const option = "(?:--path |--plaintext |--type string )*";
const name = "'?(?:homestead:)?([^'\\s]+)'?";
const stack = "(?: --stack dev)?";

/** A fault as a trial tells it. Pure. */
export function inTrial(fault: Fault, origins: Origins): Fault {
  const origin = originOf(fault.key, origins);
  const set = (key: string, value: string) =>
    key.startsWith("cluster.")
      ? "kubectl config use-context <context>, then ./try"
      : `./try --set ${asWord(`${key}=${value}`)}`;
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
    .replace(/pulumi up(?: --\S+)* --stack dev/g, "./try")
    // Each call starts anew: what is set one after the other elsewhere is set at once here.
    .replace(/(--set (?:'[^']*'|\S+))(?:, then:| &&) \.\/try (?=--set)/g, "$1 ");
  // An entry goes into the list that was given, unless it was given by itself.
  const entry = /--set '[^']*\[\d+\]=/.test(mend) && !Object.keys(origins).some((key) => isEntry(key, fault.key));
  // What another key needs beside it stays.
  const setsIt = /\.\/try --set '?([^\s.=[]+)/.exec(mend)?.[1] === dotted(fault.key).split(".")[0];
  const instead = origin !== undefined && setsIt ? `, ${entry ? "after" : "in place of"} ${origin}` : "";
  return { ...fault, mend: `${mend}${instead}` };
}

const isEntry = (key: string, faulty: string): boolean => key.endsWith("]") && dotted(key) === dotted(faulty);

/** A shell would look for files by brackets. */
const asWord = (text: string): string => (/[[\]"]/.test(text) ? `'${text}'` : text);

const secret = (key: string) => `${key}: <value> in a file, and ./try --config <file>`;
