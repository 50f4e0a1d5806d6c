import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../../lib/plan";
import { differences, readFolder } from "../../lib/plan/golden";
import { placeholderSecrets } from "../../lib/plan/placeholders";
import { renderFiles } from "../../lib/plan/render";
import { ownStack } from "../support/own";
import { stacks } from "../support/planned";

describe.each(stacks)("the golden manifests of %s", (stack) => {
  it("are what the program creates now (npm run golden writes them)", () => {
    const folder = path.join("test", "golden", stack);
    const golden = readFolder(path.join(projectFolder, folder));
    const differ = differences(golden, renderFiles(ownStack(stack), "golden"), folder);
    expect(differ, "if this is what you mean: npm run golden").toBe("");
  });

  it("hold no secret, not even a placeholder's text, nor do the complete manifests", () => {
    for (const form of ["golden", "complete"] as const) {
      const text = [...renderFiles(ownStack(stack), form).values()].join("\n");
      expect(text).toContain("<secretKeyBase>");
      for (const value of Object.values(placeholderSecrets)) {
        expect(text).not.toContain(value);
        expect(text).not.toContain(Buffer.from(value).toString("base64"));
      }
      expect(text).not.toMatch(/placeholder-/i);
    }
  });
});
