/** A site's whole, valid configuration as the CLI would give it, for tests that change a part of it. */
import { inject } from "vitest";
import { placeholderSecrets } from "../../lib/plan/placeholders";
import { Placeholders } from "../../lib/plan/placeholders";
import { readStackConfig } from "../../lib/stack-config";
import type { RawConfiguration, StackName } from "../../settings";

/** The example's configuration, with placeholders for secrets; `changes` in the short form of keys. */
export function configurationOf(stack: StackName, changes: Record<string, unknown> = {}): RawConfiguration {
  const raw = committedConfiguration(inject("example"), stack);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) Reflect.deleteProperty(raw.config, `homestead:${key}`);
    else raw.config[`homestead:${key}`] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return raw;
}

/** What the stack files of a folder say, with placeholders for secrets. */
export function committedConfiguration(folder: string, stack: StackName): RawConfiguration {
  const placeholders = new Placeholders();
  const { config } = readStackConfig(folder, stack, (name) => placeholders.of(name));
  if (config["homestead:objectStore"] === "embedded") {
    config["homestead:mediaAccessKeyId"] = config["homestead:vaultAccessKeyId"] ?? "";
    config["homestead:mediaSecretAccessKey"] = config["homestead:vaultSecretAccessKey"] ?? "";
  }
  return { stack, config, folder };
}

/** The secrets in it. */
export const secretValues: readonly string[] = Object.values(placeholderSecrets);
