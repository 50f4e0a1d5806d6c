import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { controllerConfiguration } from "../components/operators";
import { planStack } from "../lib/plan";
import type { Plan } from "../lib/plan";
import { containersOf } from "../policy/objects";
import { charts, images } from "../versions";
import type { ChartName, ChartReference, ImageName } from "../versions";
import { copyProject, temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";
import { named, plannedStack } from "./support/planned";
import { findChart, render } from "./support/rendered-chart";
import type { Charts } from "./support/rendered-chart";

const parts = ["controller", "webhook", "cainjector", "acmesolver", "startupapicheck"] as const;
const published = Object.fromEntries(parts.map((part) => [part, images[`cert-manager-${part}`]]));

/** A mirror that has some by tag alone, and one at the published digest. */
const mirrored = {
  ...published,
  controller: "mirror.example:5000/jetstack/cert-manager-controller:v1.21.1",
  acmesolver: "mirror.example:5000/jetstack/cert-manager-acmesolver:v1.21.1",
  webhook: images["cert-manager-webhook"].replace("quay.io", "mirror.example:5000"),
};

let mirror: Promise<Plan> | undefined;
/** Home with images of its own. */
const withMirror = () =>
  (mirror ??= planStack("home", {
    folder: copyProject({
      "Pulumi.home.yaml": (text) =>
        text.concat(
          "  homestead:images:\n",
          ...(["controller", "acmesolver", "webhook"] as const).map(
            (part) => `    cert-manager-${part}: ${mirrored[part]}\n`,
          ),
        ),
    }),
  }));

describe("cert-manager's images", () => {
  const values = (plan: Plan) => named(plan, "operators-cert-manager-release").inputs["values"];

  it("are named with their digests", () => {
    const digest = expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string;
    const image = (part: string) => ({
      image: { repository: `quay.io/jetstack/cert-manager-${part}`, tag: "v1.21.1", digest },
    });
    expect(values(plannedStack("home"))).toMatchObject({
      ...image("controller"),
      webhook: image("webhook"),
      cainjector: image("cainjector"),
      acmesolver: image("acmesolver"),
      startupapicheck: image("startupapicheck"),
    });
  });

  it("are by tag alone where a stack's own has no digest: one of another image would be pulled in its place", async () => {
    const plan = await withMirror();
    const byTag = (part: string) => ({
      repository: `mirror.example:5000/jetstack/cert-manager-${part}`,
      tag: "v1.21.1",
    });
    expect(values(plan)).toHaveProperty("image", byTag("controller"));
    expect(values(plan)).toHaveProperty("acmesolver.image", byTag("acmesolver"));
    expect(values(plan)).toHaveProperty("webhook.image", {
      ...byTag("webhook"),
      digest: images["cert-manager-webhook"].split("@")[1],
    });
  });
});

describe("cert-manager's controller", () => {
  const backoff = { config: { certificateRequestMinimumBackoffDuration: "5m" } };
  const inFolder = (version: string): ChartReference => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "Chart.yaml"), `name: cert-manager\n${version}`);
    return { path: folder };
  };
  const configuration = (tag: string, chart: ChartReference = charts["cert-manager"]) =>
    controllerConfiguration({
      images: { ...images, "cert-manager-controller": `mirror.example:5000/cert-manager-controller:${tag}` },
      charts: { ...charts, "cert-manager": chart },
    });

  it("is told of a shorter wait from the version on that knows the key: an older one would not start", () => {
    expect(controllerConfiguration({ images, charts })).toEqual(backoff);
    expect(configuration("v1.20.0")).toEqual(backoff);
    expect(configuration("v1.19.5")).toEqual({});
    // The chart hands it on as it is.
    expect(configuration("v1.21.1", inFolder("version: v1.19.5\n"))).toEqual(backoff);
  });

  it("is of its chart's version where its image's tag is none", () => {
    expect(configuration("stable", { repository: "https://charts.example", version: "v1.19.5" })).toEqual({});
    expect(configuration("stable", inFolder("version: v1.19.5\n"))).toEqual({});
    expect(configuration("stable", inFolder("version: v1.20.1\n"))).toEqual(backoff);
    expect(configuration("stable", inFolder(""))).toEqual(backoff);
  });
});

describe("the operators' charts, rendered", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-charts-"));
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  const found = new Map<ChartName, Charts>();

  /** What the pods of a release run, and what it says that other pods shall. */
  const imagesOf = (plan: Plan, name: ChartName, skip: (why: string) => never) => {
    const chart = found.get(name) ?? findChart(name, folder);
    found.set(name, chart);
    if (chart.kind === "missing") {
      leftOut(chart.why);
      return skip(chart.why);
    }
    const release = plan.resources.find(({ type, inputs }) => type.endsWith(":Release") && inputs["name"] === name);
    const containers = render(chart, release?.inputs ?? {}, folder)
      .flatMap(containersOf)
      .map(({ value }) => value);
    const handed = JSON.stringify(containers).match(/(?<=--acme-http01-solver-image=)[^"]+/g) ?? [];
    return [...containers.map(({ image }) => image), ...handed].sort();
  };

  it.for<[ChartName, ImageName[]]>([
    ["cert-manager", parts.map((part) => `cert-manager-${part}` as const)],
    ["cloudnative-pg", ["cloudnative-pg"]],
    ["plugin-barman-cloud", ["barman-plugin"]],
  ])("%s runs what versions.ts names", ([chart, names], { skip }) => {
    expect(imagesOf(plannedStack("home"), chart, skip)).toEqual(names.map((name) => images[name]).sort());
  });

  it("cert-manager runs a stack's own", async ({ skip }) => {
    expect(imagesOf(await withMirror(), "cert-manager", skip)).toEqual(Object.values(mirrored).sort());
  });
});
