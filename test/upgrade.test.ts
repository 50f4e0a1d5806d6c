import { describe, expect, it } from "vitest";
import { upgradeFault, versionOf } from "../lib/upgrade";

const image = (tag: string) => `ghcr.io/mastodon/mastodon:${tag}`;

describe("versionOf", () => {
  it.each([
    ["v4.6.2", { major: 4, minor: 6, patch: 2 }],
    ["4.6.2", { major: 4, minor: 6, patch: 2 }],
    ["v4.6.4-failing-migration", { major: 4, minor: 6, patch: 4 }],
    [`v4.6.2@sha256:${"0".repeat(64)}`, { major: 4, minor: 6, patch: 2 }],
    ["nightly", undefined],
    ["edge", undefined],
  ])("reads %s", (tag, version) => {
    expect(versionOf(image(tag))).toEqual(version);
  });

  it("is not misled by a registry's port", () => {
    expect(versionOf("registry.local:5000/mastodon:v4.5.1")).toEqual({ major: 4, minor: 5, patch: 1 });
  });
});

describe("upgradeFault", () => {
  it.each([
    ["v4.6.2", "v4.6.2"],
    ["v4.6.2", "v4.6.3"],
    // A patch back is a rollback that needs no other schema.
    ["v4.6.3", "v4.6.2"],
    ["v4.6.2", "v4.7.0"],
    ["v4.9.1", "v5.0.0"],
    ["nightly", "v4.6.2"],
    ["v4.6.2", "edge"],
  ])("lets %s be followed by %s", (running, wanted) => {
    expect(upgradeFault(image(running), image(wanted))).toBeUndefined();
  });

  it("refuses to skip a minor version and names the one to take", () => {
    expect(upgradeFault(image("v4.4.9"), image("v4.6.2"))).toBe(
      "a release of v4.5 first: v4.4.9 runs, and no minor version may be skipped",
    );
  });

  it("refuses to go back a minor version", () => {
    expect(upgradeFault(image("v4.7.0"), image("v4.6.2"))).toBe(
      "v4.7.x or newer: v4.7.0 runs, and its schema does not go back (docs/runbooks/rollback.md)",
    );
  });

  it.each(["v5.1.0", "v6.0.0"])("refuses to skip into %s", (wanted) => {
    expect(upgradeFault(image("v4.9.0"), image(wanted))).toBe(
      "the last release of v4 and then one of v5.0 first: v4.9.0 runs, and no minor version may be skipped",
    );
  });
});
