/** Puts a kit together from what this machine has: its environment, the stacks, the project's files, its kubeconfigs. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { keysOf } from "../bucket-keys";
import { git } from "../git";
import { kubeconfigName, kubeconfigPath, setCluster } from "../kube";
import type { PulumiCli } from "../pulumi-cli";
import { noSite } from "../refusal";
import type { Site } from "../site-secrets";
import { UserError } from "../user-error";
import { siteNames } from "../../settings";
import type { Settings, SiteName } from "../../settings";
import { usageOf } from "./folder";
import type { Kit } from "./kit";
import { minify, NotThere } from "./kubeconfig";

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
  if (sites.length === 0) throw new UserError("this backend has no stack of a site", noSite);
  const loaded: [SiteName, Site][] = [];
  for (const site of sites) loaded.push([site, await load(site)]);
  const settings = loaded.map(([, site]) => site.settings);

  const stackFiles = filesOf(folder, sites);
  const variables = await environmentOf(sources, stackFiles);
  const kube = kubeconfigsOf(settings);
  const clone = await gitOf(folder, Object.keys(stackFiles));
  const kit: Omit<Kit, "use"> = {
    version: 1,
    madeAt: now.toISOString(),
    sites,
    activeSite: siteNames.find((name) => name === settings[0]?.activeSite) ?? "home",
    git: clone,
    environment: variables.environment,
    files: variables.files,
    stackFiles,
    secrets: Object.fromEntries(loaded.map(([site, { secrets }]) => [site, secrets])),
    vaults: Object.fromEntries(loaded.map(([site, one]) => [site, vaultOf(one)])),
    kubeconfigs: kube.files,
    warnings: [
      ...siteNames.filter((name) => !sites.includes(name)).map((name) => `there is no stack ${name} yet`),
      ...variables.warnings,
      ...kube.warnings,
      ...gitWarnings(clone),
      ...commandWarnings(settings, sources.names),
    ],
  };
  return { use: usageOf(kit), ...kit };
}

const vaultOf = ({ settings, secrets }: Site): Record<string, string> => ({
  endpoint: settings.vault.endpoint,
  region: settings.vault.region,
  bucket: settings.vault.bucket,
  ...keysOf({ secrets }).vault,
});

/** As they are, with their comments and their encrypted entries. */
function filesOf(folder: string, sites: readonly string[]): Record<string, string> {
  const names = ["Pulumi.yaml", ...sites.map((site) => `Pulumi.${site}.yaml`)];
  return Object.fromEntries(names.map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]));
}

// ---------------------------------------------------------------- Pulumi's state, and what opens it

/** How a backend, or a stack's secrets provider, is opened. */
interface Opening {
  /** The beginning of its variables' names. */
  start: string;
  /** Each is enough on a machine that has nothing else. */
  sets: readonly (readonly string[])[];
  /** What opens it here without them, and stays here. */
  otherwise: string;
}
const aws: Opening = {
  start: "AWS_",
  sets: [["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
  otherwise: "a profile's file (~/.aws)",
};
const azurePrincipal = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"];
const azure: Opening = { start: "AZURE_", sets: [azurePrincipal], otherwise: "the log-in of az (~/.azure)" };
const google: Opening = {
  start: "GOOGLE_",
  sets: [["GOOGLE_APPLICATION_CREDENTIALS"], ["GOOGLE_CREDENTIALS"]],
  otherwise: "the log-in of gcloud (~/.config/gcloud)",
};
const cloud: Opening = {
  start: "PULUMI_ACCESS_TOKEN",
  sets: [["PULUMI_ACCESS_TOKEN"]],
  otherwise: "the log-in of pulumi (~/.pulumi)",
};
const azureStorage = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"];
const openings: Record<string, Opening> = {
  s3: aws,
  awskms: aws,
  azblob: { ...azure, sets: [...azureStorage.map((name) => [name]), azurePrincipal] },
  azurekeyvault: azure,
  gs: google,
  gcpkms: google,
  https: cloud,
  http: cloud,
};

/** Variables that name a file, a text that makes sense anywhere: it comes along. */
const fileVariables = ["GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"];
const profileVariables = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"];

async function environmentOf(
  { folder, pulumi, environment, names }: Sources,
  stackFiles: Readonly<Record<string, string>>,
): Promise<Pick<Kit, "environment" | "files" | "warnings">> {
  const { url } = JSON.parse(await pulumi.run(["whoami", "-v", "--json"])) as { url: string };
  const { address, warnings } = addressOf(url, environment["PULUMI_BACKEND_URL"]);
  const taken: Record<string, string> = { PULUMI_BACKEND_URL: address };

  const providers = Object.values(stackFiles).flatMap((text) => {
    const { secretsprovider } = (parse(text) ?? {}) as { secretsprovider?: string };
    return secretsprovider === undefined ? [] : [secretsprovider];
  });
  const passphrase = passphraseOf(environment);
  if (passphrase !== undefined) taken["PULUMI_CONFIG_PASSPHRASE"] = passphrase;

  const schemes = [...new Set([address, ...providers].map((one) => one.split(":")[0] ?? ""))];
  const toOpen = schemes.flatMap((scheme) => {
    const opening = openings[scheme];
    return opening === undefined ? [] : [{ scheme, ...opening }];
  });
  for (const [name, value = ""] of Object.entries(environment)) {
    if (toOpen.some(({ start }) => name.startsWith(start))) taken[name] = value;
  }
  for (const name of names) {
    const value = environment[name];
    if (value === undefined) throw new UserError(`--env ${name}: this variable is not set`);
    taken[name] = value;
  }

  const files = filesNamed(folder, taken);
  const profileComes = inProfile(files["AWS_SHARED_CREDENTIALS_FILE"], taken, [
    "aws_access_key_id",
    "aws_secret_access_key",
  ]);
  for (const { scheme, start, sets, otherwise } of toOpen) {
    if (sets.some((set) => set.every((name) => (taken[name] ?? "") !== ""))) continue;
    if (start === aws.start && profileComes) continue;
    const wanted = sets.map((set) => set.join(" and ")).join(", or ");
    warnings.push(
      `${scheme}: needs ${wanted} on another machine, not all of it set here; ${otherwise} is not in the kit: export what is missing and make the kit again`,
    );
  }
  for (const { scheme, start } of toOpen) {
    if (start !== aws.start || !isTemporary(taken, files)) continue;
    warnings.push(
      `${scheme}: the keys are temporary (a session token comes with them), and when they have run out, in hours, the kit opens nothing: export keys that last, of a user that may do nothing else, without AWS_SESSION_TOKEN, and make the kit again`,
    );
  }
  if (url.startsWith("file:")) {
    warnings.push(
      `Pulumi's state is at ${url}, on this machine: if it burns, so does the state (pulumi stack export, pulumi login to a bucket, pulumi stack import)`,
    );
  }
  const result = Object.entries(taken).filter(
    ([name]) =>
      // Named, and not there: the AWS SDK fails, keys or no keys.
      !(name in files) && (profileComes || names.includes(name) || !profileVariables.includes(name)),
  );
  for (const [name, value] of result) {
    if (fileVariables.includes(name) || (/_FILE$|CREDENTIALS$|_PATH$/.test(name) && value.startsWith("/"))) {
      warnings.push(`${name} names the file ${value}, which is not in the kit`);
    }
  }
  return { environment: Object.fromEntries(result), files, warnings };
}

/**
 * Where the state is, as PULUMI_BACKEND_URL takes it. Of Pulumi Cloud, hosted by whomever, `whoami` tells the console's
 * address and not the API's; by the CLI's own rule the one is `app.` where the other is `api.`.
 */
function addressOf(told: string, set: string | undefined): { address: string; warnings: string[] } {
  if (/^(?!https?:)[a-z0-9]+:/.test(told)) return { address: told, warnings: [] };
  if (set !== undefined && set !== "") return { address: set, warnings: [] };
  const [, scheme, domain] = /^(https?:\/\/)app\.([^/]+)/.exec(told) ?? [];
  if (scheme !== undefined && domain !== undefined) return { address: `${scheme}api.${domain}`, warnings: [] };
  return {
    address: told,
    warnings: [
      `${told} is where the state is seen, and perhaps not where the API is: set PULUMI_BACKEND_URL to what pulumi login was given, and make the kit again`,
    ],
  };
}

/** Text by variable. A file that cannot be read is left out. */
function filesNamed(folder: string, variables: Readonly<Record<string, string>>): Record<string, string> {
  const texts = fileVariables.flatMap((name): [string, string][] => {
    const file = variables[name];
    if (file === undefined || file === "") return [];
    try {
      return [[name, fs.readFileSync(path.resolve(folder, file), "utf8")]];
    } catch {
      return [];
    }
  });
  return Object.fromEntries(texts);
}

/** Whether a credentials file of the AWS SDK has all of these for the profile that is asked for. */
function inProfile(
  text: string | undefined,
  variables: Readonly<Record<string, string>>,
  keys: readonly string[],
): boolean {
  const profile = profileVariables.map((name) => variables[name] ?? "").find((name) => name !== "") ?? "default";
  const section = text?.split(/^\s*\[/m).find((one) => one.startsWith(`${profile}]`)) ?? "";
  return keys.every((key) => new RegExp(`^\\s*${key}\\s*=`, "m").test(section));
}

/** Whether the keys of AWS that the kit has are a session's, as `aws sso login` and an assumed role give them. */
function isTemporary(variables: Readonly<Record<string, string>>, files: Readonly<Record<string, string>>): boolean {
  const [keys = []] = aws.sets;
  // As in the SDK: the keys of the environment are taken before those of a file.
  if (keys.every((name) => (variables[name] ?? "") !== "")) return (variables["AWS_SESSION_TOKEN"] ?? "") !== "";
  return inProfile(files["AWS_SHARED_CREDENTIALS_FILE"], variables, ["aws_session_token"]);
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

/**
 * One file for all stacks that look in $KUBECONFIG, and one for each place that a stack names. What is not there yet, or any
 * more, is a warning where another site's is, and keeps its name in the kit: for the cluster that is rented when it is needed.
 *
 * @throws UserError if none is there
 */
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
  const missing: string[] = [];
  for (const [place, stacks] of places) {
    const [first] = stacks;
    if (first === undefined) continue;
    const sites = stacks.map(({ site }) => site);
    const own = place === "" ? { name: "kubeconfig" } : { name: `kubeconfig-${sites.join("-")}`, place };
    try {
      const small = minify(
        kubeconfigPath(first.cluster),
        stacks.map(({ cluster }) => cluster.context),
      );
      warnings.push(...small.warnings);
      files.push({ ...own, text: small.text });
    } catch (error) {
      if (!(error instanceof NotThere)) throw error;
      warnings.push(
        `${error.message}: who has nothing but this kit does not reach that cluster, until its kubeconfig is written into the opened kit as ${own.name}`,
      );
      missing.push(`${error.message}: ${mendOf(error, place, sites)}`);
      files.push({ ...own, text: "" });
    }
  }
  if (missing.length === files.length) throw new UserError(missing.join("; "));
  return { files, warnings };
}

function mendOf({ key }: NotThere, place: string, sites: readonly string[]): string {
  if (key === "kubeconfig" && place === "") return "put the file there, or: export KUBECONFIG=<file>";
  const [first = "", ...others] = sites;
  const set = [setCluster(key, first), ...others.map((site) => `and the same with --stack ${site}`)].join(", ");
  return key === "kubeconfig"
    ? `put the file there, or: ${set}`
    : `name one that it has (kubectl config get-contexts): ${set}`;
}

// ---------------------------------------------------------------- the clone

async function gitOf(folder: string, files: readonly string[]): Promise<Kit["git"]> {
  const remotes = (await git(folder, "remote"))?.split("\n") ?? [];
  const name = remotes.includes("origin") ? "origin" : remotes[0];
  const remote = name === undefined || name === "" ? undefined : await git(folder, "remote", "get-url", name);
  const commit = await git(folder, "rev-parse", "HEAD");
  const changed = await git(folder, "status", "--porcelain", "--", ...files);
  const pushed = await git(folder, "branch", "-r", "--contains", "HEAD");
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
