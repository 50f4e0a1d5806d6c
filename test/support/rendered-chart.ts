/** The objects that a Helm release of a plan would make, as Helm renders them; nothing of a cluster is needed. */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseAllDocuments, stringify } from "yaml";
import { projectFolder } from "../../lib/plan";
import type { JsonObject } from "../../lib/plan/mask";
import { fields } from "../../policy/objects";
import type { KubernetesObject } from "../../policy/objects";
import { charts } from "../../versions";
import type { ChartName } from "../../versions";

export type Charts = { kind: "ready"; helm: string; chart: string } | { kind: "missing"; why: string };

/** Where this machine's lab keeps what it built; see test/e2e/support/environment.ts. */
const lab = process.env["LAB_HOME"] ?? path.join(os.homedir(), ".cache", "lab");

/** A Helm that was built from source without its makefile takes every cluster for one of v1.20, too old for most charts. */
const kubernetes = "v1.34.4";

/**
 * Helm, and the folder of a chart: in a folder of charts ($HOMESTEAD_CHARTS, $E2E_CHARTS, the lab's), else the published
 * one.
 * @param folder that a published chart is put into
 */
export function findChart(name: ChartName, folder: string): Charts {
  const helm = [...(process.env["PATH"] ?? "").split(path.delimiter), path.join(lab, "bin")]
    .map((directory) => path.join(directory, "helm"))
    .find((file) => fs.existsSync(file));
  if (helm === undefined) return { kind: "missing", why: "no helm on PATH" };

  const local = [process.env["HOMESTEAD_CHARTS"], process.env["E2E_CHARTS"], path.join(lab, "charts")]
    .filter((charts) => charts !== undefined)
    .map((charts) => path.join(charts, name))
    .find((chart) => fs.existsSync(path.join(chart, "Chart.yaml")));
  if (local !== undefined) return { kind: "ready", helm, chart: local };

  const { repository, version } = charts[name];
  const pull = ["pull", name, "--repo", repository, "--version", version, "--untar", "--untardir", folder];
  const { status, stderr } = run(helm, pull, folder);
  return status === 0
    ? { kind: "ready", helm, chart: path.join(folder, name) }
    : { kind: "missing", why: `$HOMESTEAD_CHARTS is not set, and helm pull says: ${stderr.trim().split("\n")[0]}` };
}

interface Release {
  name: string;
  namespace: string;
  values: JsonObject;
  /** What Helm hands it to, relative to the project. */
  postrender?: string;
}

/**
 * @param release the inputs of a planned `helm.v3.Release`
 * @param folder for what Helm reads and keeps
 * @throws if Helm cannot render it
 */
export function render(found: Charts & { kind: "ready" }, release: JsonObject, folder: string): KubernetesObject[] {
  const { name, namespace, values, postrender } = release as unknown as Release;
  const file = path.join(folder, "values.yaml");
  fs.writeFileSync(file, stringify(values));
  const options = ["--namespace", namespace, "--values", file, "--kube-version", kubernetes];
  const last = postrender === undefined ? [] : ["--post-renderer", path.resolve(projectFolder, postrender)];
  const template = ["template", name, found.chart, ...options, ...last];
  const { status, stdout, stderr } = run(found.helm, template, folder);
  if (status !== 0) throw new Error(`helm template: ${stderr.trim()}`);
  return parseAllDocuments(stdout)
    .map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null)
    .map((object) => ({ ...object, metadata: { ...fields(object["metadata"]), namespace } }));
}

/** Leaves the user's own Helm alone. An operator's definitions are more than the one MiB that may be said. */
function run(helm: string, args: string[], folder: string) {
  const env = { ...process.env, HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder };
  return spawnSync(helm, args, {
    encoding: "utf8",
    env,
    timeout: 30_000,
    maxBuffer: 16 * 1024 ** 2,
    stdio: ["ignore", "pipe", "pipe"],
  });
}
