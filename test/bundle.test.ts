/** The programs that go into pods. */
import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { bundle } from "../lib/bundle";
import { copyProject } from "./support/folders";

it("a program's text is the same in every clone, wherever its packages are: another text would restart Valkey", () => {
  const folder = copyProject({});
  const script = 'process.stdout.write(require("./lib/bundle.ts").bundle("lib/lease/keeper-main.ts"))';
  const there = execFileSync(process.execPath, ["--require", "./cli/typescript.cjs", "-e", script], {
    cwd: folder,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const here = bundle("lib/lease/keeper-main.ts");
  expect(there.length).toBeGreaterThan(10_000);
  expect(there === here).toBe(true);
});
