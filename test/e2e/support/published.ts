/**
 * The site as its users get it: with the images of versions.ts, which the lab cannot pull. What the API server says to an
 * object does not need them: it once refused every one of the chart's, for a label made of an image's digest.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { planStack } from "../../../lib/plan";
import { knownAfterUpdate } from "../../../lib/plan/mask";
import { fields, namespaceOf, objectOf } from "../../../policy/objects";
import type { KubernetesObject } from "../../../policy/objects";
import { findChart, render } from "../../support/rendered-chart";
import type { Cluster } from "./cluster";
import { checkout } from "./environment";

/** Where the objects would be: not beside those of a site that runs. */
const place = "e2e-published";

/**
 * Asks the cluster whether it would take every object of a stack, those of Mastodon's chart too. Nothing is made but a
 * namespace, which goes again.
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
    const chart = findChart(folder);
    if (chart.kind === "missing") throw new Error(`Mastodon's chart: ${chart.why}`);
    const release = plan.resources.find(({ name }) => name === "mastodon-release");
    if (release === undefined) throw new Error("the plan has no Mastodon");
    const own = plan.resources.flatMap(({ type, inputs }) => objectOf(type, inputs) ?? []);
    const objects = [...own, ...render(chart, release.inputs, folder)].filter(
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
