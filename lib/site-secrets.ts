/** A stack's settings for the command line, its secrets in clear: read through the Pulumi CLI. */
import { projectFolder } from "./plan";
import { PulumiCli } from "./pulumi-cli";
import { parseSettings, readStackFiles } from "../settings";
import type { Settings } from "../settings";

export interface Site {
  settings: Settings;
  /** The stack's secrets by name. */
  secrets: Record<string, string>;
}

/**
 * @param pulumi the CLI in `folder`, the project's
 * @throws UserError when the CLI refuses, SettingsError when the configuration is wrong
 */
export async function loadSite(
  stack: string,
  folder = projectFolder,
  pulumi: Pick<PulumiCli, "config"> = new PulumiCli(folder),
): Promise<Site> {
  const shown = await pulumi.config(stack, "clear");
  const entries = Object.entries(shown).map(([key, { value = "", secret }]) => ({ key, value, secret }));
  const settings = parseSettings({
    stack,
    config: Object.fromEntries(entries.map(({ key, value }) => [key, value])),
    secretKeys: entries.filter(({ secret }) => secret).map(({ key }) => key),
    stackFiles: readStackFiles(folder),
    folder,
  });
  const secrets = entries.filter(({ secret }) => secret);
  return {
    settings,
    secrets: Object.fromEntries(secrets.map(({ key, value }) => [key.replace(/^homestead:/, ""), value])),
  };
}
