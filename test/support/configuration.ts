/** A site's whole, valid configuration as the CLI would give it, for tests that change a part of it. */
import * as fs from "node:fs";
import * as path from "node:path";
import { inject } from "vitest";
import { placeholderSecrets } from "../../lib/plan/placeholders";
import { Placeholders } from "../../lib/plan/placeholders";
import { readStackConfig } from "../../lib/stack-config";
import type { RawConfiguration, StackName } from "../../settings";
import { charts } from "../../versions";
import { temporaryFolder } from "./folders";

/** Read once: nobody changes the example, and whoever asks gets a copy. */
const examples: Partial<Record<StackName, RawConfiguration>> = {};

/** The example's configuration, with placeholders for secrets; `changes` in the short form of keys. */
export function configurationOf(stack: StackName, changes: Record<string, unknown> = {}): RawConfiguration {
  return withChanges((examples[stack] ??= committedConfiguration(inject("example"), stack)), changes);
}

/** Another configuration; `changes` in the short form of keys, a key taken out where they say undefined. */
export function withChanges(raw: RawConfiguration, changes: Record<string, unknown>): RawConfiguration {
  const config = { ...raw.config };
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) Reflect.deleteProperty(config, `homestead:${key}`);
    else config[`homestead:${key}`] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return { ...raw, config };
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

/** `homestead:charts` that no test has to ask the charts' repositories for. */
export function chartsInFolders(): Record<string, { path: string }> {
  const folder = temporaryFolder();
  fs.writeFileSync(path.join(folder, "Chart.yaml"), "");
  return Object.fromEntries(Object.keys(charts).map((name) => [name, { path: folder }]));
}
