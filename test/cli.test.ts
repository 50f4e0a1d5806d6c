import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { run } from "./support/command";
import type { Ended } from "./support/command";
import { fakePulumi } from "./support/fake-pulumi";
import { copyProject, temporaryFolder } from "./support/folders";

const homestead = (args: string[], folder = projectFolder, environment = process.env): Promise<Ended> =>
  run(process.execPath, [path.join(folder, "cli", "homestead.mjs"), ...args], { folder, environment });

/** A copy of the project with a program that takes no time: one object, and a fault if the stack asks for it. */
const smallProject = () =>
  copyProject({
    "index.ts": () => `
      import * as pulumi from "@pulumi/pulumi";
      export = async () => {
        if (new pulumi.Config().get("locale") === "broken") JSON.parse("broken");
        const inputs = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "settings" }, data: { a: "b" } };
        new pulumi.CustomResource("kubernetes:core/v1:ConfigMap", "settings", inputs);
        return { handle: "@a@b" };
      };`,
  });

describe("homestead", () => {
  it("lists its subcommands", async () => {
    const { code, stdout } = await homestead(["--help"]);
    expect(code).toBe(0);
    for (const subcommand of ["plan", "identity", "verify"])
      expect(stdout).toMatch(new RegExp(`^  ${subcommand} `, "m"));
  });

  it("says its version", async () => {
    expect(await homestead(["--version"])).toMatchObject({ code: 0, stdout: "0.1.0\n" });
  });

  it("refuses a subcommand and an option it does not know", async () => {
    expect(await homestead(["paln"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("error: unknown command 'paln'") as string,
    });
    expect(await homestead(["plan", "--chek"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("error: unknown option '--chek'") as string,
    });
  });

  it.each([
    [
      ["plan", "prod"],
      `no stack 'prod': ${path.join(projectFolder, "Pulumi.prod.yaml")} does not exist (there are: dev, home, vps)\n`,
    ],
    [["plan", "--config-file", "x"], "--config-file needs a site\n"],
    [["plan", "home", "--check", "--update"], "either --check or --update\n"],
    [["identity", "create", "--stacks", "home,prod"], "no stack 'prod': one of home, vps, dev\n"],
    [["identity", "copy", "home", "home"], "'home' to itself: name two stacks\n"],
  ])("tells the fault of %j in one line, without a stack trace", async (args, stderr) => {
    const { environment } = fakePulumi();
    expect(await homestead(args, projectFolder, environment)).toEqual({ code: 1, stdout: "", stderr });
  });

  it.each([["verify"], ["drill"], ["switch"], ["status"]])(
    "%s says how to mend a stack that cannot be read",
    async (subcommand) => {
      const { environment } = fakePulumi({ home: {} });
      const closed = { ...environment, PULUMI_CONFIG_PASSPHRASE: "wrong" };
      expect(await homestead([subcommand, "home"], projectFolder, closed)).toEqual({
        code: 1,
        stdout: "",
        stderr:
          "pulumi config --stack home: incorrect passphrase\n" +
          "mend: give the stack's own: read -rs PULUMI_CONFIG_PASSPHRASE && export PULUMI_CONFIG_PASSPHRASE; " +
          "where it is lost: docs/runbooks/lost-passphrase.md\n",
      });
    },
  );

  it("says where to get a Pulumi CLI when there is none", async () => {
    const environment = { ...process.env, PATH: temporaryFolder() };
    expect(await homestead(["identity", "verify"], projectFolder, environment)).toEqual({
      code: 1,
      stdout: "",
      stderr:
        "neither pulumi nor npx is on PATH: install the Pulumi CLI (https://www.pulumi.com/docs/install/) or Node.js\n",
    });
  });

  it("on a Node.js that is too old waits for the one that it starts, which answers a Ctrl-C", async () => {
    const folder = copyProject({
      "cli/homestead.ts": () => `
        export async function main() {
          process.on("SIGINT", () => setTimeout(() => (console.log("told"), process.exit(3)), 500));
          setInterval(() => undefined, 1000);
          console.log("ready");
        }`,
    });
    const old = 'data:text/javascript,Object.defineProperty(process, "versions", { value: { node: "22.19.0" } })';
    const child = spawn(process.execPath, ["--import", old, path.join(folder, "cli", "homestead.mjs")], {
      detached: true,
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      // As a terminal does.
      if (text.includes("ready")) process.kill(-(child.pid ?? 0), "SIGINT");
    });
    const ended = await new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
    expect([ended, output]).toEqual([3, "ready\ntold\n"]);
  });

  it("says in a clone without its packages what installs them", async () => {
    const folder = temporaryFolder();
    fs.cpSync(path.join(projectFolder, "cli"), path.join(folder, "cli"), { recursive: true });
    expect(await homestead(["plan"], folder)).toEqual({
      code: 1,
      stdout: "",
      stderr: "homestead's packages are not installed in this clone: npm ci\n",
    });
  });

  it("shows a bug's trace only when asked to", async () => {
    const folder = smallProject();
    fs.appendFileSync(path.join(folder, "Pulumi.vps.yaml"), "  homestead:locale: broken\n");
    const quiet = await homestead(["plan", "vps"], folder);
    expect(quiet).toMatchObject({ code: 1, stdout: "" });
    expect(quiet.stderr.trim().split("\n")).toHaveLength(1);
    const traced = await homestead(["plan", "vps"], folder, { ...process.env, HOMESTEAD_TRACE: "1" });
    expect(traced.stderr).toContain("index.ts");
  });
});

describe("homestead plan", () => {
  it("shows a tree and the addresses, and writes every manifest", async () => {
    const folder = copyProject();
    const { code, stdout, stderr } = await homestead(["plan", "vps"], folder);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^vps\n├─ /);
    expect(stdout).toMatch(/├─ kubernetes:apps\/v1:StatefulSet valkey-cache\n/);
    expect(stdout).toMatch(/^handle +@user@ramble\.moe$/m);
    expect(stdout).toMatch(/^web +https:\/\/mastodon\.ramble\.moe$/m);
    expect(stdout).toMatch(/^records +ramble\.moe {2}60 {2}A {2}198\.51\.100\.20$/m);
    expect(stdout).toMatch(/\d+ files in out\/vps\n/);
    const files = fs.readdirSync(path.join(folder, "out", "vps"));
    expect(files).toEqual(
      expect.arrayContaining(["tree.txt", "release-mastodon.yaml", "cluster-postgres-g1.yaml", "secret-media.yaml"]),
    );
    expect(fs.readFileSync(path.join(folder, "out", "vps", "secret-media.yaml"), "utf8")).toContain(
      "<mediaSecretAccessKey>",
    );
  });

  it("tells all faults of a stack, before anything else", async () => {
    const folder = copyProject({
      "index.ts": () => 'import { readSettings } from "./settings";\nexport = async () => readSettings().site;\n',
      "Pulumi.vps.yaml": (text) =>
        text
          .replace("context: vps", 'context: ""')
          .replace("kind: local", "kind: ceph")
          .replace("config:", "config:\n  homestead:smtp: none\n  homestead:sizes: '{}'"),
    });
    const { code, stdout, stderr } = await homestead(["plan", "vps"], folder);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    // The first is one that the CLI finds before it runs the program.
    expect(stderr).toMatch(
      /^Pulumi\.vps\.yaml: homestead:sizes is "\{\}", and Pulumi\.yaml declares it as an object; .+\n3 faults in the configuration of stack 'vps'; nothing was changed\.\n/,
    );
    expect(stderr.match(/homestead:smtp/g)).toHaveLength(1);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it("compares with the golden manifests, and writes them", async () => {
    const folder = smallProject();
    const golden = path.join(folder, "test", "golden", "vps");
    expect(await homestead(["plan", "vps", "--update"], folder)).toMatchObject({
      code: 0,
      stdout: "2 files in test/golden/vps\n",
    });
    expect(await homestead(["plan", "vps", "--check"], folder)).toEqual({
      code: 0,
      stdout: "vps: as in test/golden/vps\n",
      stderr: "",
    });

    fs.appendFileSync(path.join(golden, "tree.txt"), "one more\n");
    const { code, stdout } = await homestead(["plan", "vps", "--check"], folder);
    expect(code).toBe(1);
    expect(stdout).toContain("--- test/golden/vps/tree.txt\tgolden\n+++ test/golden/vps/tree.txt\tplanned\n");
    expect(stdout).toContain("\n-one more\n");
    expect(stdout).toContain("vps: differs from test/golden/vps; if that is what you mean: npm run golden\n");
  });
});
