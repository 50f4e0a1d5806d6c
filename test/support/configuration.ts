/** A site's whole, valid configuration as the CLI would give it, for tests that change a part of it. */
import { placeholderSecrets } from "../../lib/plan/placeholders";
import { Placeholders } from "../../lib/plan/placeholders";
import { projectFolder } from "../../lib/plan";
import { readStackConfig } from "../../lib/stack-config";
import type { RawConfiguration, StackName } from "../../settings";

/** The committed stack file's configuration, with placeholders for secrets; `changes` in the short form of keys. */
export function configurationOf(stack: StackName, changes: Record<string, unknown> = {}): RawConfiguration {
  const placeholders = new Placeholders();
  const { config } = readStackConfig(projectFolder, stack, (name) => placeholders.of(name));
  if (config["homestead:objectStore"] === "embedded") {
    config["homestead:mediaAccessKeyId"] = config["homestead:vaultAccessKeyId"] ?? "";
    config["homestead:mediaSecretAccessKey"] = config["homestead:vaultSecretAccessKey"] ?? "";
  }
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) Reflect.deleteProperty(config, `homestead:${key}`);
    else config[`homestead:${key}`] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return { stack, config, folder: projectFolder };
}

/** The secrets in it. */
export const secretValues: readonly string[] = Object.values(placeholderSecrets);
