import { describe, expect, it } from "vitest";
import { chartArgs } from "../lib/charts";
import { imageParts } from "../lib/pods";
import { charts, images } from "../versions";

describe("imageParts", () => {
  it("keeps the digest with the tag, which is where the charts want it", () => {
    expect(imageParts("ghcr.io/a/b:v1@sha256:00")).toEqual({
      registry: "ghcr.io",
      repository: "a/b",
      name: "ghcr.io/a/b",
      tag: "v1@sha256:00",
    });
  });

  it("is not misled by a registry's port", () => {
    expect(imageParts("registry.local:5000/a:v1")).toMatchObject({ registry: "registry.local:5000", tag: "v1" });
  });

  it("refuses a reference without a tag", () => {
    expect(() => imageParts("ghcr.io/a/b")).toThrow("image ghcr.io/a/b: expected registry/repository:tag");
  });

  it.each(Object.values(images))("takes %s", (image) => {
    expect(imageParts(image).tag).not.toBe("");
  });
});

describe("chartArgs", () => {
  it("names repository and version of a published chart", () => {
    expect(chartArgs("mastodon", charts.mastodon)).toEqual({
      chart: "mastodon",
      version: "1.0.2",
      repositoryOpts: { repo: "https://mastodon.github.io/helm-charts/" },
    });
  });

  it("takes a folder relative to the project", () => {
    expect(chartArgs("mastodon", { path: "charts/mastodon" })).toEqual({ chart: "./charts/mastodon" });
    expect(chartArgs("mastodon", { path: "/srv/charts/mastodon" })).toEqual({ chart: "/srv/charts/mastodon" });
  });
});
