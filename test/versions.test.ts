import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { oldestNode } from "../lib/supported-node";
import { charts, images } from "../versions";

describe("versions", () => {
  it.each(Object.entries(images))(
    "%s is one fixed image, not whatever a tag such as latest means today",
    (_name, image) => {
      expect(image).toMatch(/^[a-z0-9.-]+\.[a-z]+\/[a-z0-9._/-]+:v?\d[A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?$/);
    },
  );

  it.each(Object.entries(charts))("%s is one fixed chart", (_name, chart) => {
    expect(chart.repository).toMatch(/^https:\/\//);
    expect(chart.version).toMatch(/^v?\d+\.\d+\.\d+$/);
  });

  it("names every image by its digest, but for the one that nobody has published", () => {
    const without = Object.entries<string>(images).filter(([, image]) => !image.includes("@sha256:"));
    expect(without.map(([name]) => name)).toEqual(["mastodon-streaming"]);
  });

  it("keeps Mastodon's two images at one version", () => {
    const tag = (image: string) => image.split("@")[0]?.split(":").at(-1);
    expect(tag(images.mastodon)).toBe(tag(images["mastodon-streaming"]));
  });

  it("keeps cert-manager's images at their chart's version", () => {
    const ours = Object.entries<string>(images).filter(([name]) => name.startsWith("cert-manager-"));
    expect(ours).toHaveLength(5);
    for (const [name, image] of ours) {
      expect(image).toMatch(`/jetstack/${name}:${charts["cert-manager"].version}@`);
    }
  });

  it("of Node.js is the one that package.json installs, also on a machine with an older one", () => {
    const { devDependencies } = JSON.parse(fs.readFileSync(path.join(projectFolder, "package.json"), "utf8")) as {
      devDependencies: Record<string, string>;
    };
    expect(process.versions.node).toBe(devDependencies.node);
  });

  it("of Node.js that the program asks for is the one that package.json does", () => {
    const { engines } = JSON.parse(fs.readFileSync(path.join(projectFolder, "package.json"), "utf8")) as {
      engines: { node: string };
    };
    expect(engines.node).toBe(`>=${oldestNode}`);
  });

  it("are exact for every package, so that two installations are the same", () => {
    const { dependencies, devDependencies } = JSON.parse(
      fs.readFileSync(path.join(projectFolder, "package.json"), "utf8"),
    ) as Record<"dependencies" | "devDependencies", Record<string, string>>;
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
      expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
    }
    // npm's `latest` of this one, 4.5.0, is a stray publish without a provider.
    expect(dependencies["@pulumi/command"]).toBe("1.2.1");
  });
});
