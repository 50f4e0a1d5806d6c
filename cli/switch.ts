import { createInterface } from "node:readline/promises";
import type { Readable, Writable } from "node:stream";
import { Argument, Command, Option } from "commander";
import { loadTarget } from "./verify";
import { projectFolder } from "../lib/plan";
import { messageOf, reason, within } from "../lib/attempt";
import { archivesIn } from "../lib/archive";
import { keysOf } from "../lib/bucket-keys";
import { git } from "../lib/git";
import { stoppable } from "../lib/interrupt";
import { PulumiCli } from "../lib/pulumi-cli";
import { asTheLeaseSays } from "../lib/lease/rules";
import { lastAge, lastFault } from "../lib/lease/last-snapshot";
import { readLease } from "../lib/lease/store";
import { word } from "../lib/shell";
import { loadSite } from "../lib/site-secrets";
import type { Site } from "../lib/site-secrets";
import { findDatabases } from "../lib/database";
import { leftToOwner } from "../lib/switch/dns";
import { configWith, tokenInFile } from "../lib/switch/files";
import { JournalStore } from "../lib/switch/journal";
import type { Journal, Kind } from "../lib/switch/journal";
import { oldSite, preflight } from "../lib/switch/preflight";
import type { Findings } from "../lib/switch/preflight";
import {
  decidedAnew,
  goneOn,
  isDemoting,
  isFollowing,
  isTaken,
  onceTaken,
  resumption,
  stepAhead,
  takenBack,
  tokenInUse,
  tokenLeft,
  writesAgain,
} from "../lib/switch/resume";
import { JobsLeftBehind, runSwitch, withoutOld } from "../lib/switch/run";
import { described, filesAt, standingOf, stepsOf } from "../lib/switch/steps";
import { ranBy } from "../lib/switch/versions";
import { realWorld } from "../lib/switch/world";
import type { Lease } from "../lib/lease/lease";
import { UserError } from "../lib/user-error";
import { siteNames } from "../settings";
import type { SiteName } from "../settings";

interface Options {
  lost?: boolean;
  dead?: boolean;
  dryRun?: boolean;
  yes?: boolean;
  verbose?: boolean;
  resolver?: string[];
}

/** `homestead switch`: makes the other site the active one. */
export function switchCommand(): Command {
  return new Command("switch")
    .summary("make a site the active one, and the other one its standby")
    .description(
      "Hands the server over to a site and loses nothing; with --lost or --dead takes it over from a site that is gone. " +
        "Changes Pulumi.yaml and the stack files and runs the stacks; commits nothing. Interrupted, the same command " +
        "goes on where it stopped, on any machine.",
    )
    .addArgument(new Argument("<site>", "the site that shall be active").choices(siteNames))
    .addOption(
      new Option(
        "--lost",
        "the other site cannot be reached, or not be handed over: waits until it has stopped for certain",
      ),
    )
    .addOption(new Option("--dead", "it is powered off, and stays so until this has ended: waits for nothing"))
    .addOption(new Option("--dry-run", "look at everything and say what would be done"))
    .addOption(new Option("--yes", "do not ask"))
    .addOption(new Option("--verbose", "show what the Pulumi engine says"))
    .addOption(new Option("--resolver <address...>", "DNS servers to ask at the end"))
    .action(async (site: SiteName, options: Options) => {
      try {
        await switchTo(site, options);
      } finally {
        // A connection to a dead API server would keep us for minutes, and so would what was waited for when it was interrupted.
        setTimeout(() => process.exit(), 200).unref();
      }
    });
}

/** @throws UserError with the way on */
export async function switchTo(target: SiteName, options: Options): Promise<void> {
  const from = otherThan(target);
  const wanted: Kind = options.dead === true ? "dead" : options.lost === true ? "lost" : "planned";
  const there = await loadSite(target);
  const { vault } = there.settings;
  const lease = await theLease(there);
  const store = new JournalStore(vault, keysOf(there).vault);
  const found = await store.read();

  const standing = standingOf(found, lease);
  if (standing === "overtaken") console.log("an earlier switch was finished by hand; its journal is history");
  const open = standing === "open" ? found : undefined;
  const journal =
    open === undefined
      ? await begin(target, from, wanted, there, lease, options)
      : await goOn(open, target, wanted, there, lease, options);
  if (journal === undefined || options.dryRun === true) return;

  const world = realWorld({
    target: journal.target,
    from: journal.from,
    kind: journal.kind,
    journal: store,
    load: loadSite,
    loadTarget,
    resolvers: options.resolver ?? [],
    engine: (text) => (options.verbose === true ? process.stdout.write(text) : undefined),
  });
  const ended = await stoppable(async (signal) => {
    // Before anything is changed: a vault that takes no journal would not take the lease either.
    await store.write(journal);
    return runSwitch(journal, world, signal);
  }, "\ninterrupted: an update that runs comes to its end, and nothing is begun after it; once more ends it at once");
  console.log(await closing(ended, there));
}

const otherThan = (site: SiteName): SiteName => (site === "home" ? "vps" : "home");

async function theLease({ settings, secrets }: Site): Promise<Lease> {
  const stored = await readLease(settings.vault, keysOf({ secrets }).vault).catch((error: unknown) => {
    throw new UserError(
      `the site lease cannot be read, and without it nobody can tell which site is active: ${messageOf(error)}`,
    );
  });
  if (stored === undefined) {
    const { vault, founder } = settings;
    const archives = await archivesIn(vault, keysOf({ secrets }).vault).catch(() => []);
    throw new UserError(
      archives.length === 0
        ? `the vault '${vault.bucket}' has no site lease: nothing has run yet (pulumi up --stack ${founder}), or this is another vault`
        : `the vault '${vault.bucket}' has archives and no site lease, and without it nobody can tell which site is active. If the server has moved to another bucket (docs/runbooks/new-bucket.md), these files are from before: get the newest (git pull), or a kit that was made since. If lease.json is lost: docs/runbooks/lost-bucket.md`,
    );
  }
  return stored.lease;
}

async function theOld(
  from: SiteName,
  kind: Kind,
  load: (site: SiteName) => Promise<Site> = loadSite,
): Promise<Site | undefined> {
  const { old, warning } = await oldSite(from, kind, load);
  if (warning !== undefined) console.log(`warning: ${warning}`);
  return old;
}

/**
 * The token that a site which has taken the lease is to be brought up with.
 *
 * @param known by the journal of its switch
 * @throws UserError where its database may need one that nobody knows
 */
async function tokenFor({ settings }: Site, { takeover }: Lease, known?: string): Promise<string | undefined> {
  const databases = await findDatabases(settings);
  const { told, token } = tokenInUse(settings, databases?.current, known);
  if (told || token !== undefined || takeover !== "planned") return token;
  // One that is not there begins with what is in the vault.
  if (databases !== undefined && databases.current === undefined) return token;
  const { site, otherSite = "" } = settings;
  const why =
    databases === undefined
      ? `${site}'s cluster does not say what its database was told`
      : `its database was not told to take over`;
  throw new UserError(
    `the lease is ${site}'s, by a token that nobody here knows, and ${why}; without the token it would begin with a part of the data: pulumi stack output demotionToken --stack ${otherSite}, then: pulumi config set --plaintext homestead:promotionToken <token> --stack ${site}, and the same command again`,
  );
}

/** The same of a site that is given up. Nothing is asked for in vain: a takeover does not wait for a token. */
async function tokenLeftTo(from: SiteName, old: Site | undefined, known?: string): Promise<string | undefined> {
  if (old === undefined) return tokenInFile(projectFolder, from) ?? known;
  const databases = await within(6, findDatabases(old.settings)).catch(() => undefined);
  return tokenInUse(old.settings, databases?.current, known).token;
}

const ranOn = async (from: SiteName, kind: Kind) =>
  kind === "planned" ? undefined : ranBy(from, new PulumiCli(projectFolder));

// ---------------------------------------------------------------- a new switch

/** @param token that the switch before this one made its target the active site with */
async function begin(
  target: SiteName,
  from: SiteName,
  kind: Kind,
  there: Site,
  lease: Lease,
  options: Options,
  token?: string,
): Promise<Journal | undefined> {
  const { settings } = there;
  // A kit names the site that was active when it was made, and it may be the other one that is gone.
  if (lease.activeSite === target && kind !== "planned") {
    throw new UserError(
      `${target} is the active site (epoch ${lease.epoch}), and ${from} its standby: if it is ${target} that is gone: npx homestead switch ${from} --${kind}; if it is ${from}, nothing has to be done`,
    );
  }
  if (settings.activeSite !== lease.activeSite || settings.epoch !== lease.epoch) {
    throw new UserError(
      `Pulumi.yaml says ${settings.activeSite} (epoch ${settings.epoch}), the lease says ${lease.activeSite} (epoch ${lease.epoch}): ${asTheLeaseSays(lease)}`,
    );
  }
  if (lease.activeSite === target) {
    console.log(`${target} is the active site already (epoch ${lease.epoch}): nothing to do`);
    return undefined;
  }
  const old = await theOld(from, kind);
  console.log("looking at the vault and both sites ...");
  const findings = await preflight({ kind, from, target: there, old, lease, ran: await ranOn(from, kind) });
  for (const warning of findings.warnings) console.log(`warning: ${warning}`);
  if (findings.faults.length > 0) {
    const lost = kind === "planned" ? withoutOld(from, target) : "";
    throw new UserError(`${findings.faults.join("\n")}\nNothing was changed.${lost}`);
  }
  // A site that is handed over, or given up, may still be taking over itself.
  const kept =
    kind === "planned" && old !== undefined ? await tokenFor(old, lease, token) : await tokenLeftTo(from, old, token);
  const journal = journalOf(target, from, kind, lease, findings, kept);
  show(journal);
  if (findings.loss !== undefined) console.log(`lost: ${findings.loss}`);
  if (options.dryRun !== true && kind !== "planned") await confirmed(from, options);
  return journal;
}

function journalOf(
  target: SiteName,
  from: SiteName,
  kind: Kind,
  lease: Lease,
  findings: Findings,
  kept: string | undefined,
): Journal {
  const at = new Date().toISOString();
  return {
    version: 1,
    target,
    from,
    kind,
    epoch: lease.epoch + 1,
    generation: findings.generation,
    ...(findings.database === "missing" ? { missing: true } : {}),
    ...(kept === undefined ? {} : { kept }),
    steps: stepsOf(kind, findings.database).map((name) => ({ name })),
    startedAt: at,
    updatedAt: at,
    finished: false,
  };
}

// ---------------------------------------------------------------- one that was interrupted

async function goOn(
  open: Journal,
  target: SiteName,
  wanted: Kind,
  there: Site,
  lease: Lease,
  options: Options,
): Promise<Journal | undefined> {
  const { settings } = there;
  const step = stepAhead(open, lease) ?? "verify";
  const said = `the switch to ${open.target} (epoch ${open.epoch}) that stopped before ${step}`;
  // The site may have been begun anew meanwhile, by hand: a generation never goes down.
  const generation = Math.max(open.generation, settings.generations[open.target] ?? 1);
  const asked = !isTaken(open, lease) && isDemoting(open) && target === open.target;
  const old = asked ? await loadSite(open.from).catch(() => undefined) : undefined;
  const writes = asked && (await writesAgain(open, old, there));
  const how = resumption(open, lease, { target, kind: wanted }, writes);
  if (typeof how === "object") throw new UserError(how.refused);
  if (how === "history") {
    console.log(`${said} has taken the lease: it is history`);
    return begin(target, open.target, wanted, there, lease, options, tokenLeft(open));
  }
  if (how === "reopen") {
    const dropped = open.token === undefined ? "" : `; its token is dropped when ${open.from} begins to write again`;
    console.log(`${said} is taken back${dropped}`);
    const back = takenBack(open, { generation });
    show(back);
    return back;
  }
  const going: Journal = { ...goneOn(open, wanted), generation };
  const next = how === "go on" ? (stepAhead(going, lease) ?? "verify") : step;
  console.log(`going on with the switch to ${target} that was begun at ${open.startedAt}: next is ${next}`);
  if (how === "decide anew") {
    const stale = open.token === undefined ? "" : ", and the token of its demotion dropped";
    if (writes) console.log(`${open.from} writes again, or still: it is handed over from the start${stale}`);
    return decideAnew({ ...open, generation }, wanted, lease, options);
  }
  if (isTaken(open, lease)) {
    const journal = await taken(going, there, lease);
    show(journal);
    return journal;
  }
  const lost = going.steps === open.steps ? undefined : await leftBehind(open, there);
  if (lost !== undefined && wanted === "planned") throw new JobsLeftBehind(lost, open);
  show(going);
  if (lost === undefined) return going;
  const { from } = open;
  console.log(
    `lost: jobs that ${from} had queued since its newest dump in the vault, or all of them: ${lost}. No post is, by the token of its demotion`,
  );
  if (options.dryRun !== true) await confirmed(from, options);
  return going;
}

/**
 * What is wrong with the old site's last snapshot of Valkey, of a switch that goes on by the token and not by that site's
 * own last step, which looks for it; undefined if nothing is.
 */
async function leftBehind(
  { from, epoch, steps, startedAt }: Journal,
  { settings, secrets }: Site,
): Promise<string | undefined> {
  const ended = { site: from, epoch: epoch - 1 };
  // One that was to be taken back does not know any more when it was demoted.
  const began = steps.find(({ name }) => name === "demote")?.begun ?? startedAt;
  const stopping = Math.max(0, (Date.now() - Date.parse(began)) / 1000);
  return lastAge({ vault: settings.vault, keys: keysOf({ secrets }).vault }, ended)
    .then((age) => lastFault(ended, age, stopping))
    .catch(
      (error: unknown) => `the vault does not say whether ${from}'s last snapshot of Valkey is there: ${reason(error)}`,
    );
}

/** A switch that has taken the lease, by this command or by hand. @throws UserError where nobody knows its token */
async function taken(open: Journal, { settings, secrets }: Site, lease: Lease): Promise<Journal> {
  // This clone's files may not know yet that its database has begun anew.
  const there = { settings: { ...settings, generation: open.generation }, secrets };
  const promoted = open.steps.some(({ name, done }) => name === "promote" && done !== undefined);
  return onceTaken(open, lease, promoted ? open.token : await tokenFor(there, lease, open.token));
}

/** Looks at everything as before a new switch, and asks: what was found and said then may be true no longer. */
async function decideAnew(open: Journal, wanted: Kind, lease: Lease, options: Options): Promise<Journal> {
  const { from, target } = open;
  const back =
    wanted === "planned" ? `\nTo have ${from} serve on: npx homestead switch ${from}${withoutOld(from, target)}` : "";
  console.log(`looking at the vault and both sites anew${wanted === open.kind ? "" : `, as ${wanted}`} ...`);
  const load = (site: SiteName) => beforeTaking(open, site);
  const old = await theOld(from, wanted, load);
  const findings = await preflight({
    kind: wanted,
    from,
    target: await load(target),
    old,
    lease,
    ran: await ranOn(from, wanted),
    catchesUp: isFollowing(open),
  });
  for (const warning of findings.warnings) console.log(`warning: ${warning}`);
  if (findings.faults.length > 0) throw new UserError(`${findings.faults.join("\n")}\nNothing was changed.${back}`);
  const changed = decidedAnew(open, wanted, findings);
  show(changed);
  if (findings.loss !== undefined) console.log(`lost: ${findings.loss}`);
  if (options.dryRun !== true && wanted !== "planned") await confirmed(from, options);
  return changed;
}

/**
 * A site as long as the lease is not the target's. The files may name it already, from the demotion on: looked at like
 * that, without the word that is yet to be confirmed, it would be refused as a second one that federates.
 */
async function beforeTaking(open: Journal, site: SiteName): Promise<Site> {
  const values = filesAt("reopen", open);
  const cli = new PulumiCli(projectFolder);
  return loadSite(site, projectFolder, {
    config: async (stack, secrets) => configWith(await cli.config(stack, secrets), open.target, values),
  });
}

// ---------------------------------------------------------------- talking to a person

function show(journal: Journal): void {
  console.log(`switch to ${journal.target}, ${journal.kind}, epoch ${journal.epoch}:`);
  for (const [i, { name, done }] of journal.steps.entries()) {
    console.log(`  ${i + 1}. ${name.padEnd(13)}${described[name](journal)}${done === undefined ? "" : " (done)"}`);
  }
}

/** @throws UserError unless the site's name is typed */
export async function confirmed(
  from: SiteName,
  { yes }: Pick<Options, "yes">,
  input: Readable & { isTTY?: boolean } = process.stdin,
  output: Writable = process.stdout,
): Promise<void> {
  if (yes === true) return;
  if (input.isTTY !== true) throw new UserError("nobody is there to ask: add --yes");
  const lines = createInterface({ input, output });
  // Ctrl-C and Ctrl-D close it, and no answer comes any more.
  const closed = new Promise<string>((resolve) => lines.once("close", () => resolve("")));
  const typed = await Promise.race([lines.question(`Type the name of the site that is given up (${from}): `), closed]);
  lines.close();
  if (typed.trim() !== from) throw new UserError("Nothing was changed.");
}

/** The files that a switch writes into. */
const changedFiles = ["Pulumi.yaml", ...siteNames.map((site) => `Pulumi.${site}.yaml`)];

/** The command that keeps them, to be pasted wherever one is. Pure. */
export function commitOf(folder: string, message: string): string {
  const inFolder = `git -C ${word(folder)}`;
  return `${inFolder} add ${changedFiles.join(" ")} && ${inFolder} commit -m "${message}"`;
}

async function closing({ target, from, kind, epoch, steps }: Journal, { settings }: Site): Promise<string> {
  const kept = (active: string) => ["Keep what was changed:", `  ${commitOf(projectFolder, active)}`];
  if (steps.some(({ name }) => name === "reopen")) {
    // A number that was raised for a database which began anew stays so.
    const changed = await git(projectFolder, "diff", "--name-only", "HEAD", "--", ...changedFiles);
    const active = `${from} is the active site (epoch ${epoch - 1})`;
    return [`${from} is active as before.`, ...(changed === "" ? [] : kept(active))].join("\n");
  }
  const lines = [`${target} is the active site (epoch ${epoch}).`, ...leftToOwner(settings)];
  if (kind !== "planned") {
    lines.push(`${from} federates nothing when it comes back. To go back there: npx homestead switch ${from}`);
  }
  return [...lines, ...kept(`${target} is the active site (epoch ${epoch})`)].join("\n");
}
