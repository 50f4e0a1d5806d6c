/** An opened kit: a folder that only its owner reads. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parseDocument } from "yaml";
import { siteNames } from "../../settings";
import type { SiteName } from "../../settings";
import { git } from "../git";
import { standInsVariable } from "../kube";
import { quoted } from "../shell";
import { oldestNode } from "../supported-node";
import { UserError } from "../user-error";
import type { Kit } from "./kit";

/**
 * Writes the kit into a new folder of mode 0700, whole or not at all.
 *
 * @param newer what {@link newerThanKit} says of the clone that it is opened in
 * @throws UserError if there is something of that name already
 */
export function writeKitFolder(kit: Kit, folder: string, newer?: NewerClone): void {
  refuseExisting(folder);
  const files = filesIn(kit, path.resolve(folder), newer);
  const unfinished = `${folder}.new-${process.pid}`;
  try {
    fs.mkdirSync(unfinished, { mode: 0o700 });
    for (const [name, text] of Object.entries(files)) {
      fs.writeFileSync(path.join(unfinished, name), text, { mode: 0o600, flag: "wx" });
    }
    fs.renameSync(unfinished, folder);
  } catch (error) {
    fs.rmSync(unfinished, { recursive: true, force: true });
    throw new UserError(`${folder} cannot be written: ${(error as Error).message}`);
  }
}

/** Writes a file of mode 0600, whole or not at all. @throws UserError if there is something of that name already */
export function writeKitFile(content: Uint8Array, file: string): void {
  refuseExisting(file);
  const unfinished = `${file}.new-${process.pid}`;
  try {
    fs.writeFileSync(unfinished, content, { mode: 0o600, flag: "wx", flush: true });
    fs.renameSync(unfinished, file);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw new UserError(`${file} cannot be written: ${(error as Error).message}`);
  }
}

/** @throws UserError */
export function refuseExisting(name: string): void {
  if (fs.lstatSync(name, { throwIfNoEntry: false }) !== undefined) {
    throw new UserError(`${name} is there already, and nothing is written over: remove it, or name another`);
  }
}

/** A clone that is newer than the kit. */
export interface NewerClone {
  /** What was counted on since, in words. */
  words: string;
  /** The active one by whoever has the later epoch. */
  activeSite: SiteName;
  /** Where the kit knows something later all the same: what that is, and what the clone's file is to say. */
  behind?: { words: string; set: string };
  /** Files that were changed since; the kit's may have changes of their own, which nobody has pushed. */
  changed?: readonly string[];
}

/**
 * The kit's stack files that were changed in a clone since the kit was made, and are not what the kit has: in commits, or not
 * committed yet. Copied over, the kit's would take that back. None where the kit's files are in the clone's history anyway.
 */
export async function changedSince({ git: made, madeAt, stackFiles }: Kit, folder: string): Promise<string[]> {
  if (made.current) return [];
  // A commit that was never pushed is not there.
  const known = made.commit !== undefined && (await git(folder, "cat-file", "-e", `${made.commit}^{commit}`)) === "";
  const since = known ? [`${made.commit}..HEAD`] : [`--since=${madeAt}`];
  const differing = Object.entries(stackFiles).filter(([name, text]) => textOf(path.join(folder, name)) !== text);
  const asked = differing.map(async ([name]) => {
    const commits = await git(folder, "log", "-1", "--format=%H", ...since, "--", name);
    const uncommitted = await git(folder, "diff", "--name-only", "HEAD", "--", name);
    return [commits, uncommitted].some((said) => said !== undefined && said !== "") ? [name] : [];
  });
  return (await Promise.all(asked)).flat();
}

/** A file's text; undefined where it cannot be read. */
export function textOf(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * What a clone has that is newer than the kit: old files over it would name a site or a database that is history, or take
 * back what was set since. Undefined if it is not newer, or says nothing. Pure.
 *
 * @param clone its `Pulumi.yaml`
 * @param changed what {@link changedSince} says
 */
export function newerThanKit(
  { stackFiles, activeSite }: Kit,
  clone: string | undefined,
  changed: readonly string[] = [],
): NewerClone | undefined {
  const ours = countersIn(stackFiles["Pulumi.yaml"]);
  const theirs = countersIn(clone);
  const counters = Object.entries(theirs).map(([name, count]) => ({ name, count, old: ours[name] ?? count }));
  const [newest] = counters.filter(({ count, old }) => count > old);
  if (newest === undefined && changed.length === 0) return undefined;
  const words = [
    ...(newest === undefined ? [] : [`${newest.name} ${newest.count} (the kit has ${newest.old})`]),
    ...(changed.length === 0 ? [] : [`later changes of ${changed.join(" and ")}`]),
  ].join(" and ");
  const said: unknown = parseDocument(clone ?? "").getIn(["config", "homestead:activeSite", "value"]);
  const site = siteNames.find((name) => name === said);
  // The one who counted on is the one who knows.
  const knows = (theirs["epoch"] ?? 0) >= (ours["epoch"] ?? 0);
  const later = counters.filter(({ count, old }) => count < old);
  const set = [
    ...(knows ? [] : [`activeSite to ${activeSite}`]),
    ...later.map(({ name, old }) => `${name} to ${old}`),
  ].join(" and ");
  return {
    words,
    activeSite: knows && site !== undefined ? site : activeSite,
    ...(changed.length === 0 ? {} : { changed }),
    ...(later.length === 0
      ? {}
      : {
          behind: {
            words: later.map(({ name, old, count }) => `${name} ${old} (the clone has ${count})`).join(" and "),
            set,
          },
        }),
  };
}

/** The numbers of a `Pulumi.yaml` that only rise. */
function countersIn(text = ""): Record<string, number> {
  const document = parseDocument(text);
  const values = ["epoch", ...siteNames.map((site) => `generations.${site}`)].map((name) => {
    const [key = "", ...below] = name.split(".");
    const value =
      document.errors.length > 0 ? undefined : document.getIn(["config", `homestead:${key}`, "value", ...below]);
    return [name, value] as const;
  });
  return Object.fromEntries(values.flatMap(([name, value]) => (typeof value === "number" ? [[name, value]] : [])));
}

/** Everything in the folder, by name. Pure. */
export function filesIn(kit: Kit, folder: string, newer?: NewerClone): Record<string, string> {
  return {
    "README.txt": readme(kit, folder, newer),
    env: environmentFile(kit, folder),
    "secrets.json": `${JSON.stringify(kit.secrets, null, 2)}\n`,
    "vaults.json": `${JSON.stringify(kit.vaults, null, 2)}\n`,
    ...kit.files,
    // An empty one would be said to lack its context, and not to be there.
    ...Object.fromEntries(kit.kubeconfigs.flatMap(({ name, text }) => (text === "" ? [] : [[name, text]]))),
    ...kit.stackFiles,
  };
}

function environmentFile({ environment, files, kubeconfigs }: Kit, folder: string): string {
  const own = kubeconfigs.find(({ place }) => place === undefined);
  // What a stack names is a place of the machine that the kit was made on; on this one nothing is to be put anywhere.
  const standIns = kubeconfigs.flatMap(({ name, place }) =>
    place === undefined ? [] : [[place, path.join(folder, name)] as const],
  );
  const all = {
    ...environment,
    ...Object.fromEntries(Object.keys(files).map((name) => [name, path.join(folder, name)])),
    ...(own === undefined ? {} : { KUBECONFIG: path.join(folder, own.name) }),
    ...(standIns.length === 0 ? {} : { [standInsVariable]: JSON.stringify(Object.fromEntries(standIns)) }),
  };
  return Object.entries(all)
    .map(([name, value]) => `export ${name}=${quoted(value)}\n`)
    .join("");
}

/** The three commands of a failover, for this server and this folder. */
export function commandsOf(
  { git, sites, activeSite }: Omit<Kit, "use">,
  folder: string,
  newer?: NewerClone,
): [string, string, string] {
  const clone = git.remote === undefined ? "<where your copy of the repository is>" : quoted(git.remote);
  const active = newer?.activeSite ?? activeSite;
  const fallback = sites.find((site) => site !== active);
  const copies = git.current || newer !== undefined ? [] : [`cp ${quoted(folder)}/Pulumi*.yaml .`];
  return [
    `git clone ${clone} homestead && cd homestead && npm ci`,
    [`. ${quoted(path.join(folder, "env"))}`, ...copies].join(" && "),
    fallback === undefined ? `npx homestead status ${active}` : `npx homestead switch ${fallback} --lost`,
  ];
}

/** How a kit is used that nobody has opened in a clone yet. Pure. */
export function usageOf(kit: Omit<Kit, "use">): string[] {
  const { madeAt, activeSite } = kit;
  const [clone, , go] = commandsOf(kit, "");
  return [
    `Break-glass kit of ${madeAt}, of a server that homestead runs. Everything in it is secret.`,
    `Active when it was made: ${activeSite}. ${needed}`,
    "The server's site is gone. In a shell, one after the other, with the encrypted file in place of KIT.age:",
    `  ${clone}`,
    "  npx homestead kit open KIT.age",
    `  ${go}`,
    ...(kit.sites.length < 2 ? [oneSiteOnly] : []),
    "Before the last one, the line that the second one prints above it: it sets the passphrase, the state's address and keys.",
    "Without a clone: below are the stacks' files and secrets, the vaults with their keys, and the clusters' kubeconfigs.",
  ];
}

const oneSiteOnly =
  "There was one site only: docs/runbooks/lost-disk.md in the clone brings it back on an empty cluster.";

const needed = `Needed: git, Node.js ${oldestNode} or newer, the Pulumi CLI on PATH, the internet.`;

/** Why the kit's stack files are not copied. */
export function staysNewer({ changed = [], ...newer }: NewerClone): string {
  const says = whoIsNewer(newer);
  if (changed.length === 0) return says;
  return `${says} When the kit was made its files were not all committed and pushed: compare the kit's ${changed.join(" and ")} with the clone's before you go on (diff).`;
}

const whoIsNewer = ({ words, activeSite, behind }: NewerClone): string =>
  behind === undefined
    ? `The clone that the kit was opened in is newer than the kit, ${words}: its stack files stay as they are, and by them ${activeSite} is active.`
    : `Neither the clone that the kit was opened in nor the kit is the newer one: the clone has ${words}, and the kit ${behind.words}. No stack file is copied. Get the clone's newest files (git pull); where nobody has them, set ${behind.set} in its Pulumi.yaml first.`;

function readme(kit: Kit, folder: string, newer: NewerClone | undefined): string {
  const { madeAt, activeSite, git, warnings, environment, files, sites } = kit;
  const [clone, prepare, go] = commandsOf(kit, folder, newer);
  const lines = [
    `Break-glass kit of ${madeAt}. Everything in this folder is secret. Delete the folder when you are done.`,
    "",
    `Active when it was made: ${activeSite}. ${needed}`,
    "",
    "The server's site is gone. In a shell, one after the other (the first is done if you are in a clone):",
    "",
    `  ${clone}`,
    `  ${prepare}`,
    `  ${go}`,
    "",
    ...(sites.length < 2
      ? [oneSiteOnly]
      : [
          "The last one looks at everything first, says what will be lost, asks, and waits until the lost site has stopped for",
          "certain. If you have seen that it is powered off: --dead in place of --lost. If it is there after all: neither.",
          "Whether anything is wrong at all: npx homestead status.",
        ]),
    "",
    `State: ${environment["PULUMI_BACKEND_URL"] ?? ""}. Commit: ${git.commit ?? "unknown"}.`,
    ...(newer === undefined ? [] : [staysNewer(newer)]),
    "If the clone's Pulumi.yaml names another active site or epoch than the lease in the vault, or a generation that is over,",
    "homestead says so, and what to write there: a switch after this kit, or after the last push.",
    "",
    "env             what to set: the state's address, its passphrase and keys, where the kubeconfigs are",
    ...Object.keys(files).map((name) => `${name}  the file of that variable`),
    "kubeconfig*     the clusters, with credentials; where env is set, they stand in for those that the stacks name: that of",
    "                a cluster that was made since is to be written over the one here",
    "Pulumi*.yaml    the project's and the stacks' files as they were",
    "secrets.json    every stack's secrets in clear, should the passphrase or the state be of no use",
    "vaults.json     where the backups are, and their keys",
    ...(warnings.length === 0
      ? []
      : ["", "What was found wanting when the kit was made:", ...warnings.map((w) => `- ${w}`)]),
  ];
  return `${lines.join("\n")}\n`;
}
