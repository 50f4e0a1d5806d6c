/** Puts a kit together from what this machine has: its environment, the stacks, the project's files, its kubeconfigs. */
import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import { parse } from "yaml";
import { kubeconfigName, kubeconfigPath } from "../kube";
import type { PulumiCli } from "../pulumi-cli";
import type { Site } from "../site-secrets";
import { UserError } from "../user-error";
import { siteNames } from "../../settings";
import type { Settings, SiteName } from "../../settings";
import type { Kit } from "./kit";
import { minify } from "./kubeconfig";

export interface Sources {
  /** The project's folder. */
  folder: string;
  pulumi: PulumiCli;
  environment: NodeJS.ProcessEnv;
  load: (site: string) => Promise<Site>;
  /** Further variables to take along, by name. */
  names: readonly string[];
  now: Date;
}

/** @throws UserError when something is missing without which the kit would be none */
export async function gatherKit(sources: Sources): Promise<Kit> {
  const { folder, pulumi, load, now } = sources;
  const stacks = await pulumi.stacks();
  const sites = siteNames.filter((name) => stacks.includes(name));
  if (sites.length === 0) throw new UserError("this backend has no stack of a site: pulumi stack ls");
  const loaded: [SiteName, Site][] = [];
  for (const site of sites) loaded.push([site, await load(site)]);
  const settings = loaded.map(([, site]) => site.settings);

  const stackFiles = filesOf(folder, sites);
  const variables = await environmentOf(sources, stackFiles);
  const kube = kubeconfigsOf(settings);
  const git = await gitOf(folder, Object.keys(stackFiles));
  return {
    version: 1,
    madeAt: now.toISOString(),
    sites,
    activeSite: siteNames.find((name) => name === settings[0]?.activeSite) ?? "home",
    git,
    environment: variables.environment,
    stackFiles,
    secrets: Object.fromEntries(loaded.map(([site, { secrets }]) => [site, secrets])),
    vaults: Object.fromEntries(loaded.map(([site, one]) => [site, vaultOf(one)])),
    kubeconfigs: kube.files,
    warnings: [
      ...siteNames.filter((name) => !sites.includes(name)).map((name) => `there is no stack ${name} yet`),
      ...variables.warnings,
      ...kube.warnings,
      ...gitWarnings(git),
      ...commandWarnings(settings, sources.names),
    ],
  };
}

const vaultOf = ({ settings, secrets }: Site): Record<string, string> => ({
  endpoint: settings.vault.endpoint,
  region: settings.vault.region,
  bucket: settings.vault.bucket,
  accessKeyId: secrets["vaultAccessKeyId"] ?? "",
  secretAccessKey: secrets["vaultSecretAccessKey"] ?? "",
});

/** As they are, with their comments and their encrypted entries. */
function filesOf(folder: string, sites: readonly string[]): Record<string, string> {
  const names = ["Pulumi.yaml", ...sites.map((site) => `Pulumi.${site}.yaml`)];
  return Object.fromEntries(names.map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]));
}

// ---------------------------------------------------------------- Pulumi's state, and what opens it

/** What a backend, or a stack's secrets provider, is opened with: the variables' common beginnings. */
const openedBy: Record<string, readonly string[]> = {
  s3: ["AWS_"],
  awskms: ["AWS_"],
  azblob: ["AZURE_"],
  azurekeyvault: ["AZURE_"],
  gs: ["GOOGLE_"],
  gcpkms: ["GOOGLE_"],
  https: ["PULUMI_ACCESS_TOKEN"],
  http: ["PULUMI_ACCESS_TOKEN"],
};

async function environmentOf(
  { pulumi, environment, names }: Sources,
  stackFiles: Readonly<Record<string, string>>,
): Promise<{ environment: Record<string, string>; warnings: string[] }> {
  const { url } = JSON.parse(await pulumi.run(["whoami", "-v", "--json"])) as { url: string };
  const result: Record<string, string> = { PULUMI_BACKEND_URL: url };
  const warnings: string[] = [];

  const providers = Object.values(stackFiles).flatMap((text) => {
    const { secretsprovider } = (parse(text) ?? {}) as { secretsprovider?: string };
    return secretsprovider === undefined ? [] : [secretsprovider];
  });
  const passphrase = passphraseOf(environment);
  if (passphrase !== undefined) result["PULUMI_CONFIG_PASSPHRASE"] = passphrase;

  for (const scheme of new Set([url, ...providers].map((address) => address.split(":")[0] ?? ""))) {
    const starts = openedBy[scheme] ?? [];
    const found = Object.entries(environment).filter(([name]) => starts.some((start) => name.startsWith(start)));
    for (const [name, value = ""] of found) result[name] = value;
    if (starts.length > 0 && found.length === 0) {
      warnings.push(
        `no variable ${starts.join(" or ")}... is set here, and ${scheme}: is opened by such: set it and make the kit again`,
      );
    }
  }
  if (url.startsWith("file:")) {
    warnings.push(
      `Pulumi's state is at ${url}, on this machine: if it burns, so does the state (pulumi stack export, pulumi login to a bucket, pulumi stack import)`,
    );
  }
  for (const [name, value] of Object.entries(result)) {
    if (/_FILE$|CREDENTIALS$|_PATH$/.test(name) && value.startsWith("/")) {
      warnings.push(`${name} names the file ${value}, which is not in the kit`);
    }
  }
  for (const name of names) {
    const value = environment[name];
    if (value === undefined) throw new UserError(`--env ${name}: this variable is not set`);
    result[name] = value;
  }
  return { environment: result, warnings };
}

/** The variable wins over the file, as in the CLI. Neither: the secrets are opened by something else. */
function passphraseOf(environment: NodeJS.ProcessEnv): string | undefined {
  const { PULUMI_CONFIG_PASSPHRASE: own, PULUMI_CONFIG_PASSPHRASE_FILE: file } = environment;
  if (own !== undefined) return own;
  if (file === undefined) return undefined;
  try {
    return fs.readFileSync(file, "utf8").trim();
  } catch {
    throw new UserError(`PULUMI_CONFIG_PASSPHRASE_FILE: ${file} cannot be read`);
  }
}

/** A command that changes DNS has keys of its own, and nobody knows their names but who wrote it. */
function commandWarnings(settings: readonly Settings[], names: readonly string[]): string[] {
  const sites = settings.filter(({ dns }) => dns.kind === "command").map(({ site }) => site);
  if (sites.length === 0 || names.length > 0) return [];
  return [`dns of ${sites.join(" and ")} is a command: if it needs variables, name them (--env <name>)`];
}

// ---------------------------------------------------------------- clusters

/** One file for all stacks that look in $KUBECONFIG, and one for each place that a stack names. */
function kubeconfigsOf(settings: readonly Settings[]): { files: Kit["kubeconfigs"]; warnings: string[] } {
  const places = new Map<string, Settings[]>();
  for (const one of settings) {
    const name = kubeconfigName(one.cluster);
    if (name.includes(path.delimiter)) {
      throw new UserError(
        `$KUBECONFIG names several files: say in homestead:cluster.kubeconfig which one is stack ${one.site}'s`,
      );
    }
    const key = one.cluster.kubeconfig ?? "";
    places.set(key, [...(places.get(key) ?? []), one]);
  }
  const files: Kit["kubeconfigs"] = [];
  const warnings: string[] = [];
  for (const [place, stacks] of places) {
    const [first] = stacks;
    if (first === undefined) continue;
    const small = minify(
      kubeconfigPath(first.cluster),
      stacks.map(({ cluster }) => cluster.context),
    );
    warnings.push(...small.warnings);
    files.push(
      place === ""
        ? { name: "kubeconfig", text: small.text }
        : { name: `kubeconfig-${stacks.map(({ site }) => site).join("-")}`, place, text: small.text },
    );
  }
  return { files, warnings };
}

// ---------------------------------------------------------------- the clone

async function gitOf(folder: string, files: readonly string[]): Promise<Kit["git"]> {
  const git = async (...args: string[]) => {
    try {
      return (await promisify(execFile)("git", ["-C", folder, ...args])).stdout.trim();
    } catch {
      return undefined;
    }
  };
  const remotes = (await git("remote"))?.split("\n") ?? [];
  const name = remotes.includes("origin") ? "origin" : remotes[0];
  const remote = name === undefined || name === "" ? undefined : await git("remote", "get-url", name);
  const commit = await git("rev-parse", "HEAD");
  const changed = await git("status", "--porcelain", "--", ...files);
  const pushed = await git("branch", "-r", "--contains", "HEAD");
  return {
    ...(remote === undefined ? {} : { remote }),
    ...(commit === undefined ? {} : { commit }),
    current: changed === "" && pushed !== undefined && pushed !== "",
  };
}

function gitWarnings({ remote, current }: Kit["git"]): string[] {
  if (remote === undefined) return ["the clone has no remote: keep a copy of it where no site can burn it"];
  return current
    ? []
    : ["the stack files are not all committed and pushed: the kit brings them as they are, a clone alone would not"];
}
