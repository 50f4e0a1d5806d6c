/** The stacks that a status is about: read as well as can be, since a bad day is when somebody asks. */
import { projectFolder } from "../plan";
import { Placeholders } from "../plan/placeholders";
import { loadSite } from "../site-secrets";
import type { Site } from "../site-secrets";
import { readStackConfig } from "../stack-config";
import { parseSettings, siteNames } from "../../settings";

/** A stack: opened; closed, its passphrase being another one, and asked with another stack's keys; or neither. */
export interface Opened {
  name: string;
  site?: Site;
  /** Why it could not be opened. */
  fault?: string;
}

/**
 * Opens stacks. The keys of the buckets are the same in every stack of a site, so those of one will do.
 *
 * @returns `keys`: a stack that was opened, one of those that were not asked for if need be
 * @throws what the first one said, if no stack of the project can be opened
 */
export async function openStacks(names: readonly string[]): Promise<{ keys: Site; stacks: Opened[] }> {
  const loaded = await Promise.allSettled(names.map((name) => loadSite(name)));
  const opened = loaded.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const keys = opened[0] ?? (await another(names));
  if (keys === undefined) throw loaded.find((one) => one.status === "rejected")?.reason;
  const stacks = loaded.map((one, i): Opened => {
    const name = names[i] ?? "";
    if (one.status === "fulfilled") return { name, site: one.value };
    const fault = one.reason instanceof Error ? one.reason.message : String(one.reason);
    const site = closedSite(name, keys);
    return { name, fault, ...(site === undefined ? {} : { site }) };
  });
  return { keys, stacks };
}

/** A site's stack that was not asked for. `dev` shares nothing with them. */
async function another(names: readonly string[]): Promise<Site | undefined> {
  if (!names.some((name) => siteNames.some((site) => site === name))) return undefined;
  for (const name of siteNames.filter((site) => !names.includes(site))) {
    const site = await loadSite(name).catch(() => undefined);
    if (site !== undefined) return site;
  }
  return undefined;
}

/** A stack as its file says without its passphrase, with another one's keys. */
function closedSite(stack: string, { secrets, settings: other }: Site): Site | undefined {
  if (other.site === "dev") return undefined;
  try {
    const placeholders = new Placeholders();
    const { config, secretKeys } = readStackConfig(projectFolder, stack, (name) => placeholders.of(name));
    const settings = parseSettings({ stack, config, secretKeys, folder: projectFolder });
    return { settings: { ...settings, fingerprint: other.fingerprint }, secrets };
  } catch {
    return undefined;
  }
}
