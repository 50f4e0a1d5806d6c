import { describe, expect, it, onTestFinished } from "vitest";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { stringify } from "yaml";
import { chartDrift } from "../lib/chart-drift";
import { leftOut } from "./support/left-out";
import { named, plannedStack } from "./support/planned";
import { findChart, render } from "./support/rendered-chart";

const release = named(plannedStack("home"), "mastodon-release").inputs;
type Part = { image: { repository: string; tag: string } };
const { mastodon } = (release as unknown as { values: { mastodon: Record<"web" | "streaming", Part> } }).values;
const imageOf = ({ image: { repository, tag } }: Part) => `${repository}:${tag}`;
const image = imageOf(mastodon.web);
const streamingImage = imageOf(mastodon.streaming);

const deployment = (name: string, image: string, replicas = 1, namespace = "homestead") => ({
  metadata: { name, namespace },
  spec: { replicas, template: { spec: { containers: [{ image }] } } },
});
const asPlanned = [
  deployment("mastodon-web", image),
  deployment("mastodon-streaming", streamingImage),
  deployment("mastodon-sidekiq-all-queues", image),
];
const drift = (items: object[]) =>
  chartDrift(stringify(release), { stdout: JSON.stringify({ items }), stderr: "", code: 0 });

describe("what the chart has made", () => {
  it("is no difference where it is what the program says, whatever runs in other namespaces", () => {
    const elsewhere = deployment("mastodon-web", "another", 3, "friends");
    expect(drift([...asPlanned, elsewhere])).toEqual({ steps: [], unchanged: 0, errors: [] });
  });

  it("differs in replicas, in images, and where a Deployment is gone or is one too many", () => {
    const { steps } = drift([
      deployment("mastodon-web", image, 0),
      deployment("mastodon-sidekiq-all-queues", "ghcr.io/mastodon/mastodon:v4.5.0"),
      deployment("mastodon-sidekiq-push", image),
    ]);
    expect(steps.map(({ op, name, changes }) => [op, name, changes])).toEqual([
      ["update", "mastodon-sidekiq-all-queues", [`~ image: ${image} => ghcr.io/mastodon/mastodon:v4.5.0`]],
      ["create", "mastodon-sidekiq-push", []],
      ["delete", "mastodon-streaming", []],
      ["update", "mastodon-web", ["~ replicas: 1 => 0"]],
    ]);
  });

  it("is not taken for no difference where nobody could look", () => {
    const errors = (stdout: string, stderr = "", code = 0, plan = stringify(release)) =>
      chartDrift(plan, { stdout, stderr, code }).errors;
    expect(errors("", "error: forbidden\n", 1)).toEqual(["error: forbidden"]);
    expect(errors("", "", 1)).toEqual(["kubectl ended with 1"]);
    expect(errors("no JSON")).toEqual(["kubectl printed no list of Deployments"]);
    expect(errors('{"items":[]}', "", 0, "values: {}")).toEqual([
      "the plan's release of Mastodon has no replicas and images where they were",
    ]);
  });

  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-chart-"));
  const chart = findChart("mastodon", folder);
  it.skipIf(leftOut(chart.kind === "missing" ? chart.why : undefined))("is called by the chart as it is here", () => {
    onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
    if (chart.kind === "missing") return;
    const made = render(chart, release, folder).filter(({ kind }) => kind === "Deployment");
    expect(drift(made)).toEqual({ steps: [], unchanged: 0, errors: [] });
    expect(made).toHaveLength(3);
  });
});
