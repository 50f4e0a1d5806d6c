import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, inject, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { readProject } from "../lib/stack-config";
import { sharedKeys } from "../settings";

/** The tests that are about this clone: what they ask of it must hold for every valid configuration. */
const aboutTheClone = [
  "policy.test.ts",
  "settings.test.ts",
  "stacks/golden.test.ts",
  "stacks/program.test.ts",
  "stacks/schemas.test.ts",
];

describe("the example that tests take (support/example.ts)", () => {
  it("is left only by the tests that are about this clone: all others may know the values", () => {
    const tests = fs.readdirSync(__dirname, { recursive: true, encoding: "utf8" }).filter((name) => {
      if (!name.endsWith(".test.ts") || name.startsWith("standin")) return false;
      return /from "\.\.?\/support\/own"/.test(fs.readFileSync(path.join(__dirname, name), "utf8"));
    });
    expect(tests.sort()).toEqual(aboutTheClone);
  });

  it("has shared values of its own, and everything else of Pulumi.yaml as it is here", () => {
    const shared = sharedKeys.map((key) => `homestead:${key}`);
    const [here, there] = [projectFolder, inject("example")].map((folder) =>
      readProject(folder).declarations.map((one) => (shared.includes(one.key) ? { ...one, value: undefined } : one)),
    );
    expect(there).toEqual(here);
  });
});
