import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { temporaryFolder } from "./support/folders";

/** What `.ci/run` prints and ends with, where npm is a stand-in that does what these shell lines say. */
function ciRun(npm: { ci: string; test: string; check?: string; e2e: string }): {
  lines: string[];
  code: number | null;
} {
  const checkout = temporaryFolder();
  fs.cpSync(path.join(projectFolder, ".ci"), path.join(checkout, ".ci"), { recursive: true });
  const programs = temporaryFolder();
  fs.writeFileSync(
    path.join(programs, "npm"),
    `#!/bin/sh\ncase "$*" in\nci) ${npm.ci} ;;\ntest) ${npm.test} ;;\n"run --silent check") ${npm.check ?? "true"} ;;\n"run --silent e2e") ${npm.e2e} ;;\nesac\n`,
    { mode: 0o755 },
  );
  const ended = spawnSync(path.join(checkout, ".ci/run"), {
    encoding: "utf8",
    env: { ...process.env, PATH: `${programs}:${process.env["PATH"] ?? ""}` },
  });
  return { lines: ended.stdout.trimEnd().split("\n"), code: ended.status };
}

/** What `npm ci` leaves when it has got through. */
const installs = "mkdir -p node_modules && echo {} > node_modules/.package-lock.json";
const vitest = (line: string): string => `echo "      Tests  ${line}"`;

describe(".ci/run", () => {
  it("runs the end-to-end suite after the tests, within an hour, and adds both up", () => {
    const { lines, code } = ciRun({
      ci: installs,
      test: vitest("30 passed | 1 skipped (31)"),
      e2e: 'echo "minutes $E2E_MINUTES"; echo "5 passed, 0 failed, 2 skipped"',
    });
    expect(lines).toContain("minutes 56");
    expect(lines.at(-1)).toBe("35 passed, 0 failed, 3 skipped");
    expect(code).toBe(0);
  });

  it("runs the end-to-end suite also where a test fails, and fails", () => {
    const { lines, code } = ciRun({
      ci: installs,
      test: `${vitest("1 failed | 30 passed (31)")}; exit 1`,
      e2e: 'echo "5 passed, 0 failed, 0 skipped"',
    });
    expect(lines.at(-1)).toBe("35 passed, 1 failed, 0 skipped");
    expect(code).toBe(1);
  });

  it("leaves the end-to-end suite out, and says so, where nothing is installed", () => {
    const { lines, code } = ciRun({ ci: "exit 1", test: "exit 1", e2e: "echo ran" });
    expect(lines).not.toContain("ran");
    expect(lines).toContain("left out: the end-to-end suite, because npm ci did not get through");
    expect(lines.at(-1)).toBe("0 passed, 1 failed, 1 skipped");
    expect(code).toBe(1);
  });

  it.each([
    ["no test ran", { test: "true", e2e: 'echo "5 passed, 0 failed, 0 skipped"' }, "FAILED npm test ran no test"],
    [
      "a check failed and no test",
      { test: `${vitest("3 passed (3)")}; exit 2`, e2e: 'echo "5 passed, 0 failed, 0 skipped"' },
      "FAILED npm ci && npm test ended with 2 although no test failed",
    ],
    [
      "a type is wrong",
      { test: vitest("3 passed (3)"), check: "exit 1", e2e: 'echo "5 passed, 0 failed, 0 skipped"' },
      "FAILED npm run check: types, lint or format",
    ],
    [
      "the suite broke off",
      { test: vitest("3 passed (3)"), e2e: "echo half; exit 7" },
      "FAILED npm run e2e ended with 7 and without its last line",
    ],
    [
      "the suite failed without a failed check",
      { test: vitest("3 passed (3)"), e2e: 'echo "5 passed, 0 failed, 0 skipped"; exit 1' },
      "FAILED npm run e2e ended with 1 although no check failed",
    ],
  ])("fails where %s", (_what, npm, said) => {
    const { lines, code } = ciRun({ ci: installs, ...npm });
    expect(lines).toContain(said);
    expect(lines.at(-1)).toMatch(/ 1 failed, /);
    expect(code).toBe(1);
  });
});
