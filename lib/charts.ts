/** From a chart reference (versions.ts) to the arguments of a `helm.v3.Release`. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import type { Releases } from "./helm-records";
import type { ChartReference } from "../versions";

/** A folder is taken relative to the project, so that a stack file reads the same on every machine. */
export function chartArgs(name: string, chart: ChartReference) {
  return "path" in chart
    ? { chart: path.isAbsolute(chart.path) ? chart.path : `./${path.normalize(chart.path)}` }
    : { chart: name, version: chart.version, repositoryOpts: { repo: chart.repository } };
}

/** A chart's version, which one in a folder has in its Chart.yaml; undefined where that says none. */
export function chartVersion(chart: ChartReference): string | undefined {
  if (!("path" in chart)) return chart.version;
  const file = path.resolve(__dirname, "..", chart.path, "Chart.yaml");
  const { version } = (parse(fs.readFileSync(file, "utf8")) ?? {}) as { version?: unknown };
  return typeof version === "string" || typeof version === "number" ? String(version) : undefined;
}

/**
 * The description by which an attempt is made that nothing else asks for: Pulumi compares a release with its state, and
 * the state knows nothing of an attempt that was killed. Whatever stands there by then is left alone.
 */
export function describedBy(killed: Releases["killed"], release: string) {
  const description = killed[release];
  return {
    described: description === undefined ? {} : { description },
    ignoreChanges: description === undefined ? ["description"] : [],
  };
}
