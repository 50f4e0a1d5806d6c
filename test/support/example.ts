/**
 * The example: this clone with the stack files and the blog of `test/fixtures/stacks` in place of its own.
 *
 * Whoever forks the project puts their own names, addresses, buckets and parts into Pulumi.yaml, Pulumi.home.yaml and
 * Pulumi.vps.yaml, and every switch of the active site changes them again; `npm test` has to pass all the same. So a
 * test takes the example, whose values it may know: `configurationOf`, `copyProject` and `plannedStack` give nothing
 * else. Only what any valid clone must pass (its golden manifests, the rules of its objects, its configuration table)
 * is asked of the clone, by way of `own.ts`. To see that it is so: change the values in a clone, then
 * `npm run golden && npm run config-table && npm test`.
 *
 * What can be set, what it is by default and what it means stays in the one Pulumi.yaml, of which the example takes
 * everything but the shared values; Pulumi.dev.yaml names nobody and is taken as it is.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { isMap, parse, parseDocument } from "yaml";
import { projectFolder } from "../../lib/plan";

const fixtures = path.join(projectFolder, "test", "fixtures", "stacks");
const notCopied = new Set(["node_modules", ".git", ".state", "out", "coverage", "test", "docs", "blog"]);

/** Makes an empty folder the example, sharing this clone's installed packages. */
export function writeExample(folder: string): void {
  for (const entry of fs.readdirSync(projectFolder)) {
    if (!notCopied.has(entry))
      fs.cpSync(path.join(projectFolder, entry), path.join(folder, entry), { recursive: true });
  }
  fs.symlinkSync(path.join(projectFolder, "node_modules"), path.join(folder, "node_modules"));
  for (const entry of ["Pulumi.home.yaml", "Pulumi.vps.yaml", "blog"])
    fs.cpSync(path.join(fixtures, entry), path.join(folder, entry), { recursive: true });
  fs.writeFileSync(path.join(folder, "Pulumi.yaml"), withSharedValues());
}

/** This clone's Pulumi.yaml with the example's shared values. @throws if the example has not the same keys */
function withSharedValues(): string {
  const shared = parse(fs.readFileSync(path.join(fixtures, "shared.yaml"), "utf8")) as Record<string, unknown>;
  const project = parseDocument(fs.readFileSync(path.join(projectFolder, "Pulumi.yaml"), "utf8"));
  const config = project.get("config");
  const declared = isMap(config)
    ? config.items.map(({ key }) => String(key)).filter((key) => config.hasIn([key, "value"]))
    : [];
  const given = Object.keys(shared).map((key) => `homestead:${key}`);
  if (declared.sort().join() !== given.sort().join())
    throw new Error(`test/fixtures/stacks/shared.yaml has ${given.join(", ")}; Pulumi.yaml has ${declared.join(", ")}`);
  for (const [key, value] of Object.entries(shared))
    project.setIn(["config", `homestead:${key}`, "value"], project.createNode(value));
  return project.toString({ lineWidth: 0 });
}
