/**
 * The README's configuration table, written from `Pulumi.yaml` (`npm run config-table`): the schema there is the one
 * place where a key is described.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { readProject } from "./stack-config";
import type { Declaration } from "./stack-config";

const begin = "<!-- configuration -->";
const end = "<!-- /configuration -->";

/** One row a key, in the order of `Pulumi.yaml`. */
export function configurationTable(declarations: readonly Declaration[]): string {
  const rows = declarations.map(({ key, description, secret, ...declared }) => [
    `\`${key.replace(/^homestead:/, "")}\``,
    description ?? "",
    valueOf(declared),
    secret ? "yes" : "",
  ]);
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`.replaceAll("  ", " ");
  return [["Key", "Description", "Default", "Secret"], ["---", "---", "---", "---"], ...rows].map(line).join("\n");
}

function valueOf(declared: { value?: unknown; default?: unknown }): string {
  const value = declared.value ?? declared.default;
  if (value === undefined || value === null) return "";
  return `\`${typeof value === "string" ? value : JSON.stringify(value)}\``;
}

/** The README with the table between its two marks. @throws if the marks are not there */
export function withTable(readme: string, table: string): string {
  const [from, to] = [readme.indexOf(begin), readme.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`README.md has no ${begin} followed by ${end}`);
  return `${readme.slice(0, from)}${begin}\n\n${table}\n\n${readme.slice(to)}`;
}

if (require.main === module) {
  const folder = path.resolve(__dirname, "..");
  const readme = path.join(folder, "README.md");
  const table = configurationTable(readProject(folder).declarations);
  fs.writeFileSync(readme, withTable(fs.readFileSync(readme, "utf8"), table));
}
