/** The few lines of the project's files that a switch changes. Comments and everything else stay as they are. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parseDocument } from "yaml";
import type { SiteName } from "../../settings";
import type { ConfigEntry } from "../pulumi-cli";
import { tokenIn } from "./resume";
import type { FileValues } from "./steps";

/**
 * Writes what is not written yet.
 *
 * @returns the names of the files that were changed
 */
export function writeFiles(
  folder: string,
  { target, from }: { target: SiteName; from: SiteName },
  { shared, maintenance, promotionToken, kept }: FileValues,
): string[] {
  const project = ["config"];
  const edits: [file: string, where: string[], value: unknown][] = [
    ["Pulumi.yaml", [...project, "homestead:activeSite", "value"], shared.activeSite],
    ["Pulumi.yaml", [...project, "homestead:epoch", "value"], shared.epoch],
    ["Pulumi.yaml", [...project, "homestead:generations", "value", target], shared.generation],
    [`Pulumi.${from}.yaml`, ["config", "homestead:maintenance"], maintenance],
    // A maintenance on the target would keep it from serving.
    [`Pulumi.${target}.yaml`, ["config", "homestead:maintenance"], undefined],
    [`Pulumi.${from}.yaml`, ["config", "homestead:promotionToken"], kept],
    [`Pulumi.${target}.yaml`, ["config", "homestead:promotionToken"], promotionToken],
  ];
  const files = [...new Set(edits.map(([file]) => file))];
  return files.filter((name) => {
    const file = path.join(folder, name);
    if (!fs.existsSync(file)) return false;
    const document = parseDocument(fs.readFileSync(file, "utf8"));
    let changed = false;
    for (const [, where, value] of edits.filter(([of]) => of === name)) {
      if (document.getIn(where) === value) continue;
      changed = true;
      if (value === undefined) document.deleteIn(where);
      else document.setIn(where, value);
    }
    if (!changed) return false;
    // By renaming: half a file would be no file.
    fs.writeFileSync(`${file}.new`, document.toString({ lineWidth: 0 }));
    fs.renameSync(`${file}.new`, file);
    return true;
  });
}

/** The token that a site's file holds, for who cannot read its stack; undefined where it has none, or a word. */
export function tokenInFile(folder: string, site: SiteName): string | undefined {
  const file = path.join(folder, `Pulumi.${site}.yaml`);
  if (!fs.existsSync(file)) return undefined;
  const found = parseDocument(fs.readFileSync(file, "utf8")).getIn(["config", "homestead:promotionToken"]);
  return typeof found === "string" ? tokenIn(found) : undefined;
}

/** A site's configuration, as the CLI shows it, with what the files would say of `target`; nothing is written. Pure. */
export function configWith(
  shown: Record<string, ConfigEntry>,
  target: SiteName,
  { shared, promotionToken }: Omit<FileValues, "maintenance" | "kept">,
): Record<string, ConfigEntry> {
  const generations = JSON.parse(shown["homestead:generations"]?.value ?? "{}") as Record<string, number>;
  const said: Record<string, string | undefined> = {
    activeSite: shared.activeSite,
    epoch: String(shared.epoch),
    generations: JSON.stringify({ ...generations, [target]: shared.generation }),
    maintenance: undefined,
    promotionToken,
  };
  const entries = new Map(Object.entries(shown));
  for (const [key, value] of Object.entries(said)) {
    if (value === undefined) entries.delete(`homestead:${key}`);
    else entries.set(`homestead:${key}`, { secret: false, value });
  }
  return Object.fromEntries(entries);
}
