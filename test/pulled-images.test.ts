import { describe, expect, it } from "vitest";
import { ofType, plannedStack } from "./support/planned";

describe("a warm standby", () => {
  const jobs = ofType(plannedStack("vps"), "kubernetes:batch/v1:Job").filter(({ name }) => /images/.test(name));

  it("pulls what it will need when it takes over, and runs none of it", () => {
    expect(jobs).toHaveLength(1);
    const text = JSON.stringify(jobs[0]?.inputs);
    for (const image of ["mastodon", "mastodon-streaming", "valkey", "node"])
      expect(text).toContain(`"name":"${image}"`);
    expect(text.match(/"command":\["true"\]/g)).toHaveLength(4);
  });

  it("is the only one that does", () => {
    expect(ofType(plannedStack("home"), "PulledImages")).toEqual([]);
  });
});
