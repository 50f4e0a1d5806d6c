import { describe, expect, it } from "vitest";
import { lastServed, servedBy, upgradeFault, versionOf } from "../lib/upgrade";

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

  it("refuses a new major version until its owner has read which minor version it may follow", () => {
    expect(upgradeFault(image("v4.9.1"), image("v5.0.0"))).toBe(
      "a release of v4, until it is known here which minor version of it is the last: v4.9.1 runs, and none may be skipped. If the release notes of v5.0 let v4.9 come before it, write [4, 9] into lastMinors in lib/upgrade.ts",
    );
    const known = new Map([[4, 9]]);
    expect(upgradeFault(image("v4.9.1"), image("v5.0.0"), { lastMinor: known })).toBeUndefined();
    expect(upgradeFault(image("v4.8.2"), image("v5.0.0"), { lastMinor: known })).toBe(
      "a release of v4.9 first: v4.8.2 runs, and no minor version may be skipped",
    );
    expect(upgradeFault(image("v4.6.2"), image("v5.0.0"), { lastMinor: known })).toBe(
      "a release of v4.7 first, and so on to v4.9: v4.6.2 runs, and no minor version may be skipped",
    );
    expect(upgradeFault(image("v3.5.19"), image("v4.0.2"))).toBeUndefined();
  });

  it("says of what is gone that it ran last", () => {
    expect(upgradeFault(image("v4.4.9"), image("v4.6.2"), { now: "ran last" })).toBe(
      "a release of v4.5 first: v4.4.9 ran last, and no minor version may be skipped",
    );
    expect(upgradeFault(image("v4.7.0"), image("v4.6.2"), { now: "ran last" })).toBe(
      "v4.7.x or newer: v4.7.0 ran last, and its schema does not go back (docs/runbooks/rollback.md)",
    );
  });

  it.each(["v5.1.0", "v6.0.0"])("refuses to skip into %s", (wanted) => {
    expect(upgradeFault(image("v4.9.0"), image(wanted))).toBe(
      "the last release of v4 and then one of v5.0 first: v4.9.0 runs, and no minor version may be skipped",
    );
  });
});

describe("what ran last", () => {
  const last = `${image("v4.6.2")}@sha256:${"0".repeat(64)}`;
  const on = { database: "postgres-g1", epoch: 3 };
  it("is known of its database, within the epoch that it ran in", () => {
    expect(lastServed(servedBy(last, on), on)).toBe(last);
    // The other site has served since, and this database followed.
    expect(lastServed(servedBy(last, on), { ...on, epoch: 5 })).toBeUndefined();
    // Another one is of whatever its archive holds.
    expect(lastServed(servedBy(last, on), { ...on, database: "postgres-g2" })).toBeUndefined();
  });

  it.each<Record<string, string> | undefined>([undefined, {}, { image: last }])("is not known from %j", (data) => {
    expect(lastServed(data, on)).toBeUndefined();
  });
});
