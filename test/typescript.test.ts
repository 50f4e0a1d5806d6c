/** The loader of the sources (`cli/typescript.cjs`), which keeps its translations beside the packages. */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { temporaryFolder } from "./support/folders";

/** A clone with the loader, esbuild and one source, and how that ends. */
function clone(source: string) {
  const folder = temporaryFolder();
  const file = (name: string) => path.join(folder, name);
  for (const name of ["cli", "node_modules/@esbuild"]) fs.mkdirSync(file(name), { recursive: true });
  fs.copyFileSync(path.join(projectFolder, "cli/typescript.cjs"), file("cli/typescript.cjs"));
  for (const name of ["esbuild", ...fs.readdirSync(path.join(projectFolder, "node_modules/@esbuild"))])
    fs.symlinkSync(
      path.join(projectFolder, "node_modules", name === "esbuild" ? name : `@esbuild/${name}`),
      file(name === "esbuild" ? "node_modules/esbuild" : `node_modules/@esbuild/${name}`),
    );
  const write = (text: string) => fs.writeFileSync(file("a.ts"), text);
  write(source);
  const run = (env: Record<string, string> = {}) => {
    const { stdout, stderr, status } = spawnSync(process.execPath, ["--require", "./cli/typescript.cjs", "./a.ts"], {
      cwd: folder,
      encoding: "utf8",
      env: { PATH: process.env["PATH"], NODE_DISABLE_COMPILE_CACHE: "1", ...env },
    });
    return { stdout, stderr, status };
  };
  const kept = () => fs.globSync("node_modules/.cache/typescript/*", { cwd: folder });
  return { file, write, run, kept };
}

const says = (stdout: string) => ({ stdout, stderr: "", status: 0 });
const hello = 'const a: string = "hello"; console.log(a);\n';

describe("the loader of the sources", () => {
  it("translates once, and again what has changed", () => {
    const { write, run, kept } = clone(hello);
    expect(run()).toEqual(says("hello\n"));
    expect(kept()).toHaveLength(1);
    expect(run()).toEqual(says("hello\n"));
    expect(kept()).toHaveLength(1);
    write(hello.replace("hello", "good bye"));
    expect(run()).toEqual(says("good bye\n"));
    expect(kept()).toHaveLength(2);
  });

  it.each([
    ["nothing", () => ""],
    ["a part", (text: string) => text.slice(0, -12)],
    ["another program", (text: string) => text.replace("hello", "jello")],
  ])("believes no file that holds %s, as a power cut may leave it: an empty program deletes a site", (_, damage) => {
    const { file, run, kept } = clone(hello);
    run();
    const [name = ""] = kept();
    fs.writeFileSync(file(name), damage(fs.readFileSync(file(name), "utf8")));
    expect(run()).toEqual(says("hello\n"));
    expect(fs.readFileSync(file(name), "utf8")).toContain('"hello"');
  });

  it("leaves it to the program to refuse a Node.js that keeps no compiled code", () => {
    const { file, run } = clone(hello);
    fs.writeFileSync(file("older.cjs"), 'require("node:module").enableCompileCache = undefined;\n');
    expect(run({ NODE_OPTIONS: "--require ./older.cjs" })).toEqual(says("hello\n"));
  });

  it("does without where nothing can be kept", () => {
    const { file, run, kept } = clone(hello);
    fs.writeFileSync(file("node_modules/.cache"), "no folder");
    expect(run()).toEqual(says("hello\n"));
    expect(kept()).toEqual([]);
  });

  it("names the lines of the source in a trace that is asked for", () => {
    const { run } = clone('interface A { a: string }\n\n\nconst a: A = { a: "x" };\nthrow new Error(a.a);\n');
    expect(run({ HOMESTEAD_TRACE: "1" }).stderr).toMatch(/a\.ts:5:/);
  });

  it("tells a mistake of syntax with its line", () => {
    expect(clone("const a = ;\n").run().stderr).toContain("a.ts:1:10");
  });
});
