import { describe, expect, it } from "vitest";
import { backupPrefix, madeBefore, upgradeBackup } from "../lib/upgrade-backup";
import type { BackupObject } from "../lib/upgrade-backup";

const now = new Date("2026-11-22T23:03:02.500Z");
const hours = (count: number) => new Date(now.getTime() - count * 3_600_000).toISOString();
const digest = (digit: string) => `@sha256:${digit.repeat(64)}`;
const reference = (tag: string) => `ghcr.io/mastodon/mastodon:${tag}`;
const [old, next] = [reference(`v4.6.2${digest("a")}`), reference(`v4.6.3${digest("b")}`)];

/** A backup of some hours ago. */
const backup = (name: string, image: string, age: number, status: BackupObject["status"] = {}): BackupObject => ({
  metadata: { name, creationTimestamp: hours(age), annotations: { [madeBefore]: image } },
  status: { phase: "completed", stoppedAt: hours(age), ...status },
});
const first = backup("postgres-g1-before-mastodon-v4.6.2-20261001t000000", old, 1000);
const tried = "postgres-g1-before-mastodon-v4.6.3-20261122t220302";
const anew = "postgres-g1-before-mastodon-v4.6.3-20261122t230302";

const decided = (image: string, running: string | undefined, ...found: BackupObject[]) =>
  upgradeBackup(image, { database: "postgres-g1", running, found }, now);

describe("the base backup before an upgrade", () => {
  it("is made for a first version and for each one after it", () => {
    expect(decided(old, undefined)).toEqual({
      name: "postgres-g1-before-mastodon-v4.6.2-20261122t230302",
      upgrade: "due",
    });
    expect(decided(next, old, first)).toEqual({ name: anew, upgrade: "due" });
  });

  it("serves the next try as well, for as long as it is young", () => {
    const of = (age: number) => decided(next, old, first, backup(tried, next, age));
    expect(of(1)).toEqual({ name: tried, upgrade: "due" });
    expect(of(3.1)).toEqual({ name: anew, upgrade: "due" });
    expect(of(72)).toEqual({ name: anew, upgrade: "due" });
  });

  it("is counted from its end, which the migrations came after", () => {
    const slow = backup(tried, next, 9, { stoppedAt: hours(1) });
    expect(decided(next, old, slow).name).toBe(tried);
  });

  it("is waited for again while it is being made, but not for ever", () => {
    const going = (age: number) => ({ ...backup(tried, next, age), status: { phase: "running" } });
    expect(decided(next, old, going(5)).name).toBe(tried);
    expect(decided(next, old, { ...going(0), status: {} }).name).toBe(tried);
    expect(decided(next, old, going(25)).name).toBe(anew);
  });

  it("is made anew when it failed", () => {
    expect(decided(next, old, backup(tried, next, 1, { phase: "failed" })).name).toBe(anew);
    // The first one, which the release did not wait for.
    const failed = backup("postgres-g1-before-mastodon-v4.6.2-20261122t200000", old, 1, { phase: "failed" });
    expect(decided(old, old, failed)).toEqual({
      name: "postgres-g1-with-mastodon-v4.6.2-20261122t230302",
      upgrade: "due",
    });
  });

  it("is another one for another image under the same tag", () => {
    const again = reference(`v4.6.3${digest("c")}`);
    expect(decided(again, next, backup(tried, next, 1))).toEqual({ name: anew, upgrade: "due" });
    expect(decided(reference("nightly"), old, first).name).toBe("postgres-g1-before-mastodon-nightly-20261122t230302");
  });

  it("is another one after a way back, however short", () => {
    const back = backup("postgres-g1-before-mastodon-v4.6.2-20261122t223302", old, 0.5);
    expect(decided(next, old, backup(tried, next, 1), back)).toEqual({ name: anew, upgrade: "due" });
  });

  it("is past when the version runs: whatever it was called, it stays", () => {
    expect(decided(next, next, first, backup(tried, next, 200))).toEqual({ name: tried, upgrade: "past" });
    // After a try at another version that failed.
    const other = backup("postgres-g1-before-mastodon-v4.6.4-20261122t220302", reference("v4.6.4"), 1);
    expect(decided(next, next, backup(tried, next, 200), other)).toEqual({ name: tried, upgrade: "past" });
    // That one has failed, and is what the state knows: nobody is to wait for it.
    const failed = { ...other, status: { phase: "failed" } };
    expect(decided(next, next, backup(tried, next, 200), failed)).toEqual({ name: tried, upgrade: "due" });
    expect(decided(next, next, failed)).toEqual({ name: anew.replace("before", "with"), upgrade: "due" });
    // Its own never ended.
    const hangs = (age: number) => ({ ...backup(tried, next, age), status: { phase: "running" } });
    expect(decided(next, next, hangs(5))).toEqual({ name: tried, upgrade: "past" });
    expect(decided(next, next, hangs(25))).toEqual({ name: anew.replace("before", "with"), upgrade: "due" });
    // Its object went with the vault's retention, or an earlier program made it. What is made now is none of before.
    expect(decided(next, next)).toEqual({ name: anew.replace("before", "with"), upgrade: "past" });
  });

  it("is made anew once, while the version runs: the next update finds that one, and waits for no other", () => {
    const failed = backup("postgres-g1-before-mastodon-v4.6.3-20261023t200000", next, 723, { phase: "failed" });
    const made = (age: number, status: BackupObject["status"] = {}, of = next) =>
      backup("postgres-g1-with-mastodon-v4.6.3-20261122t220302", of, age, status);
    const past = { name: made(1).metadata.name, upgrade: "past" };
    expect(decided(next, next, failed, made(1))).toEqual(past);
    expect(decided(next, next, failed, made(720))).toEqual(past);
    expect(decided(next, next, failed, { ...made(1), status: { phase: "running" } })).toEqual(past);
    // That of a try at another version, which the state knew, has failed; this one took its place in the state.
    const other = backup("postgres-g1-before-mastodon-v4.6.4-20261122t200000", reference("v4.6.4"), 3, {
      phase: "failed",
    });
    expect(decided(next, next, failed, other, made(1))).toEqual(past);
    // It may fail, too, or never end.
    const again = { name: anew.replace("before", "with"), upgrade: "due" };
    expect(decided(next, next, failed, made(1, { phase: "failed" }))).toEqual(again);
    expect(decided(next, next, failed, { ...made(25), status: { phase: "running" } })).toEqual(again);
    // No way back from a version leads to what that one has done itself.
    expect(decided(next, old, made(1))).toEqual({ name: anew, upgrade: "due" });
  });

  it("is of the database that it is to bring back, and made for an upgrade", () => {
    const others = [
      backup("postgres-g1-20261122230000", next, 0),
      backup("postgres-g10-before-mastodon-v4.6.3-20261122t220302", next, 1),
    ];
    expect(decided(next, old, ...others).name).toBe(anew);
    expect(decided(next, next, ...others)).toEqual({ name: anew.replace("before", "with"), upgrade: "past" });
  });

  it("has a name that Kubernetes takes", () => {
    expect(backupPrefix("postgres-g1", reference(`V4.6.2_mine${digest("a")}`))).toBe(
      "postgres-g1-before-mastodon-v4.6.2-mine",
    );
  });
});
