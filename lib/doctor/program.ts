/** The programs that an update needs on this machine. Pure but for {@link readPrograms}. */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { projectFolder } from "../plan";
import { PulumiCli, onPath } from "../pulumi-cli";
import { nodeFault, nodeMend } from "../supported-node";
import { judged } from "./lines";
import type { DoctorLine } from "./lines";
import { satisfies } from "./version";

export interface Programs {
  /** Version of the Pulumi CLI. */
  pulumi: string;
  /** `requiredPulumiVersion` of Pulumi.yaml, such as `>=3.231.0`; undefined where that file cannot be read. */
  required: string | undefined;
  /** Version of the Node.js that an update runs on: the one that a shell finds; undefined if it finds none. */
  node: string | undefined;
  /** The Pulumi packages of package.json: what it pins, and what is installed. */
  packages: { name: string; pinned: string; installed?: string }[];
  /** Provider plugins that are installed, such as `kubernetes 4.32.0`; those on the PATH by their name alone. */
  plugins: string[];
}

/** @throws UserError when the CLI fails */
export async function readPrograms(): Promise<Programs> {
  const cli = new PulumiCli(projectFolder);
  const [version, listed] = await Promise.all([cli.run(["version"]), cli.run(["plugin", "ls", "--json"])]);
  const read = (file: string) => fs.readFileSync(path.join(projectFolder, file), "utf8");
  const { dependencies } = JSON.parse(read("package.json")) as { dependencies: Record<string, string> };
  const pinned = Object.entries(dependencies).filter(([name]) => name.startsWith("@pulumi/"));
  const plugins = JSON.parse(listed) as { kind: string; name: string; version?: string }[];
  return {
    pulumi: version.trim().replace(/^v/, ""),
    required: requiredVersion(read("Pulumi.yaml")),
    node: nodeOfShell(),
    packages: pinned.map(([name, wanted]) => ({ name, pinned: wanted, ...installed(name) })),
    plugins: [
      ...plugins.filter(({ kind }) => kind === "resource").map(({ name, version: has }) => `${name} ${has ?? ""}`),
      ...pinned.map(([name]) => providerOf(name)).filter((name) => onPath(`pulumi-resource-${name}`) !== undefined),
    ],
  };
}

/** Of a Pulumi.yaml that cannot be read the stack's line says what is wrong. */
function requiredVersion(project: string): string | undefined {
  try {
    return String((parse(project) as { requiredPulumiVersion?: string } | null)?.requiredPulumiVersion ?? "");
  } catch {
    return undefined;
  }
}

function installed(name: string): { installed?: string } {
  const file = path.join(projectFolder, "node_modules", name, "package.json");
  if (!fs.existsSync(file)) return {};
  return { installed: (JSON.parse(fs.readFileSync(file, "utf8")) as { version: string }).version };
}

/**
 * This process is on the Node.js of the project; the CLI starts the one on the PATH. npx puts the project's own programs
 * before everything that the shell has, and a `pulumi up` typed there knows nothing of that.
 */
function nodeOfShell(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const folders = (environment.PATH ?? "").split(path.delimiter);
  const own = folders.indexOf(path.join(projectFolder, "node_modules", ".bin"));
  if (environment["npm_execpath"] !== undefined && own >= 0) folders.splice(own, 1);
  const node = onPath("node", { PATH: folders.join(path.delimiter) });
  if (node === undefined) return undefined;
  const { stdout, status } = spawnSync(node, ["--version"], { encoding: "utf8", timeout: 10_000 });
  return status === 0 ? stdout.trim().replace(/^v/, "") : undefined;
}

function nodeLine(node: string | undefined): DoctorLine {
  const fault = node === undefined ? "there is none on the PATH, which pulumi looks at" : nodeFault(node);
  return judged("program", "node", fault === undefined ? "ok" : "fault", fault ?? node ?? "", nodeMend);
}

/** `@pulumi/kubernetes` -> `kubernetes`. */
const providerOf = (name: string): string => name.replace("@pulumi/", "");

/** Lines on the programs of this machine. */
export function programLines({ pulumi, required, node, packages, plugins }: Programs): DoctorLine[] {
  const wrong = packages.filter((one) => one.installed !== one.pinned);
  const providers = packages.filter(({ name }) => name !== "@pulumi/pulumi");
  const missing = providers.filter(({ name, pinned }) => {
    const provider = providerOf(name);
    return !plugins.includes(`${provider} ${pinned}`) && !plugins.includes(provider);
  });
  const named = (list: Programs["packages"]) =>
    list.map(({ name, pinned }) => `${providerOf(name)} ${pinned}`).join(", ");
  return [
    judged(
      "program",
      "pulumi",
      required === undefined || satisfies(pulumi, required) ? "ok" : "fault",
      required === undefined ? pulumi : `${pulumi}; Pulumi.yaml wants ${required}`,
      "install a newer Pulumi CLI: https://www.pulumi.com/docs/install/",
    ),
    nodeLine(node),
    judged(
      "program",
      "packages",
      wrong.length === 0 ? "ok" : "fault",
      wrong.length === 0
        ? packages.map(({ name, pinned }) => `${name} ${pinned}`).join(", ")
        : wrong
            .map(({ name, pinned, installed: has }) => `${name} is ${has ?? "missing"}, package.json says ${pinned}`)
            .join("; "),
      "npm ci",
    ),
    judged(
      "program",
      "plugins",
      missing.length === 0 ? "ok" : "warning",
      missing.length === 0 ? named(providers) : `the next update downloads ${named(missing)}`,
      "pulumi install",
    ),
  ];
}
