import { describe, expect, it } from "vitest";
import { tagAlone } from "../lib/pods";
import { images } from "../versions";
import { ofType, plannedStack } from "./support/planned";

describe("a warm standby", () => {
  const jobs = ofType(plannedStack("vps"), "kubernetes:batch/v1:Job").filter(({ name }) => /images/.test(name));

  it("pulls what it will need when it takes over, and runs none of it", () => {
    expect(jobs).toHaveLength(1);
    const text = JSON.stringify(jobs[0]?.inputs);
    for (const image of ["mastodon", "mastodon-streaming", "valkey", "node"])
      expect(text).toContain(`"name":"${image}"`);
    expect(text.match(/"command":\["true"\]/g)).toHaveLength(5);
  });

  it("pulls Mastodon by its tag, too: the chart's Jobs name it so, and a node that has the digest does not know the tag", () => {
    const spec = JSON.stringify(jobs[0]?.inputs);
    const tag = tagAlone(images.mastodon);
    expect(tag).not.toBe(images.mastodon);
    expect(spec).toContain(`"image":"${tag}"`);
    expect(spec).toContain(`"image":"${images.mastodon}"`);
    // It has no digest: pulled once is enough.
    expect(spec.split(images["mastodon-streaming"])).toHaveLength(2);
  });

  it("is the only one that does", () => {
    expect(ofType(plannedStack("home"), "PulledImages")).toEqual([]);
  });
});
