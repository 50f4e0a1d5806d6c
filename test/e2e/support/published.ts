/**
 * The site as its users get it: with the images of versions.ts, which the lab cannot pull. What the API server says to an
 * object does not need them: it once refused every one of the chart's, for a label made of an image's digest.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { planStack } from "../../../lib/plan";
import type { PlannedResource } from "../../../lib/plan";
import { knownAfterUpdate } from "../../../lib/plan/mask";
import { fields, namespaceOf, objectOf, podsOf } from "../../../policy/objects";
import type { KubernetesObject } from "../../../policy/objects";
import type { ChartName } from "../../../versions";
import { findChart, render } from "../../support/rendered-chart";
import type { Cluster } from "./cluster";
import { checkout } from "./environment";

/** Where the objects would be: not beside those of a site that runs. */
const place = "e2e-published";

/** What a release would make; of an operator's the pods, since much else of it is in no namespace. */
function ofRelease(release: PlannedResource, folder: string): KubernetesObject[] {
  const name = release.inputs["name"] as ChartName;
  const chart = findChart(name, folder);
  if (chart.kind === "missing") throw new Error(`the chart ${name}: ${chart.why}`);
  return render(chart, release.inputs, folder).filter((object) => name === "mastodon" || podsOf(object).length > 0);
}

/**
 * Asks the cluster whether it would take every object of a stack, those of Mastodon's chart and the operators' pods too.
 * Nothing is made but a namespace, which goes again.
 *
 * @param changed what a control does to an object
 * @returns how many it would take
 * @throws Error with what it says to the first that it would not
 */
export async function wouldBeTaken(
  cluster: Cluster,
  stack: "home" | "vps",
  changed: (object: KubernetesObject) => KubernetesObject = (object) => object,
): Promise<number> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-published-"));
  try {
    const plan = await planStack(stack, { folder: checkout });
    const own = plan.resources.flatMap(({ type, inputs }) => objectOf(type, inputs) ?? []);
    const releases = plan.resources.filter(({ type }) => type === "kubernetes:helm.sh/v3:Release");
    const objects = [...own, ...releases.flatMap((release) => ofRelease(release, folder))].filter(
      (object) => typeof namespaceOf(object) === "string" && namespaceOf(object) !== knownAfterUpdate,
    );
    await cluster.kubectl(["create", "namespace", place]);
    const items = objects
      // Prometheus' kinds are not on every cluster, and the program asks which are.
      .filter(({ kind, apiVersion }) => kind !== "Release" && !apiVersion.startsWith("monitoring.coreos.com/"))
      .map(changed)
      .map((object) => ({ ...object, metadata: { ...fields(object["metadata"]), namespace: place } }));
    await cluster.kubectl(["create", "--dry-run=server", "-f", "-"], {
      input: JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    });
    return items.length;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
    await cluster.tryKubectl(["delete", "namespace", place, "--ignore-not-found", "--timeout=60s"]);
  }
}
