/** The world a switch acts upon: the project's files, the stacks through the Automation API, the clusters to look at. */
import { LocalWorkspace, PulumiCommand } from "@pulumi/pulumi/automation";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { queues as mastodonQueues } from "../../components/mastodon";
import { newestSegment } from "../archive";
import { reason } from "../attempt";
import { keysOf } from "../bucket-keys";
import { findDatabases } from "../database";
import { kubeClient } from "../kube";
import { lastAge } from "../lease/last-snapshot";
import { projectFolder } from "../plan";
import type { Site } from "../site-secrets";
import { StatusCluster } from "../status/cluster";
import { parseQueues } from "../status/lines";
import { UserError } from "../user-error";
import { failureLines, verify } from "../verify";
import type { VerificationTarget } from "../verify";
import { archiveName } from "../../settings";
import type { SiteName } from "../../settings";
import { untilSteady } from "./demotion";
import { writeFiles } from "./files";
import { copyMedia } from "./media";
import { standby, stateOf } from "./preflight";
import type { Standing } from "./preflight";
import type { JournalStore, Kind } from "./journal";
import type { World } from "./run";
import type { StateUse } from "./steps";

export interface WorldOptions {
  target: SiteName;
  from: SiteName;
  kind: Kind;
  journal: JournalStore;
  /** Reads a stack as its files are now. */
  load: (site: string) => Promise<Site>;
  loadTarget: (site: string) => Promise<VerificationTarget>;
  /** DNS servers to ask at the end. @default this machine's own */
  resolvers: readonly string[];
  /** Where the engine's own output goes. */
  engine: (text: string) => void;
}

/**
 * Seconds that a lost site's missing segment is waited for: it uploads two at a time, and over a slow line the later one may
 * be there first, from a site that only we cannot reach.
 */
const gapSeconds = 120;

export function realWorld(options: WorldOptions): World {
  const { target, from, kind, journal, load } = options;
  /** Of a lost site, the newest segment as it was seen first: one that still archives would put it off for ever. */
  let goal: string | undefined;
  /** The segment that its successor lacked at the last look, and since when, in milliseconds. */
  let missing: { segment: string; since: number } | undefined;
  return {
    files: (values) => void writeFiles(projectFolder, { target, from }, values),
    up: (site, state) => up(site, state ?? "believed", options.engine),
    async lagging(site) {
      const loaded = await load(site);
      const { settings } = loaded;
      const databases = await findDatabases(settings);
      if (databases === undefined) return `${site}'s cluster does not answer`;
      if (stateOf(databases, site) !== "follows") {
        throw new UserError(`${site}'s database does not follow: npx homestead status ${site}`);
      }
      const archive = archiveName(from, settings.generations[from] ?? 1);
      const look = async () => {
        if (kind !== "planned") goal ??= (await newestSegment(settings.vault, keysOf(loaded).vault, archive))?.name;
        return standby(loaded, archive, databases.current, { kind, goal });
      };
      const { finding: found, reached } = await look().catch((error: unknown): Standing => ({
        finding: { awaited: `${site}'s database does not say how far it has come: ${reason(error)}` },
      }));
      const segment = reached?.lacks;
      // A look that failed says nothing about the gap.
      if (reached !== undefined && segment !== missing?.segment)
        missing = segment === undefined ? undefined : { segment, since: Date.now() };
      if ("warning" in found) {
        if (kind === "lost" && missing !== undefined && Date.now() - missing.since < gapSeconds * 1000) {
          return `${found.warning}, unless it comes within ${gapSeconds} s`;
        }
        console.log(`      warning: ${found.warning}`);
      }
      if ("awaited" in found) return found.awaited;
      // As before a switch: a server that is away already goes on with less than the best.
      if ("fault" in found && kind === "planned") throw new UserError(found.fault);
      if ("always" in found) throw new UserError(found.always);
      return undefined;
    },
    async steady(site) {
      const { settings } = await load(site);
      await untilSteady(settings, (line) => console.log(line));
    },
    async copyMedia(site) {
      const { settings } = await load(site);
      if (settings.media.kind !== "volume") return;
      console.log("      the youngest media are copied to the vault");
      await copyMedia(settings);
    },
    async queued(site) {
      const { settings } = await load(site);
      const cluster = new StatusCluster(kubeClient(settings.cluster), settings.namespace);
      const names = mastodonQueues.map((queue) => queue.split(",")[0] ?? queue);
      const { queues } = parseQueues(await cluster.queues(names), Date.now() / 1000);
      return queues.reduce((sum, { length }) => sum + length, 0);
    },
    async lastSnapshot(ended) {
      // By the address that the target itself will fetch it from; the old site's may be one that only its own house reaches.
      const { settings, secrets } = await load(target);
      return lastAge({ vault: settings.vault, keys: keysOf({ secrets }).vault }, ended);
    },
    async verify(site) {
      const { settings } = await load(site);
      if (settings.dns.kind === "manual") {
        console.log("      nothing was asked: dns is of kind manual, and the records are yours to set, as said below");
        return [];
      }
      const asked = await options.loadTarget(site);
      // Names are remembered for as long as their records said.
      const seconds = 120 + ("ttl" in settings.dns ? settings.dns.ttl : 300);
      return failureLines(
        await verify({ ...asked, address: null, resolver: [...options.resolvers], retrySeconds: seconds }),
      );
    },
    save: (state) => journal.write(state),
    say: (line) => console.log(line),
    now: () => new Date(),
    pause: (seconds) => sleep(seconds * 1000),
  };
}

/** The CLI of the PATH, behind what keeps a hangup from it. A clone whose files lost their modes does without. */
async function deafEngine(): Promise<{ pulumiCommand?: PulumiCommand }> {
  const root = path.join(projectFolder, "lib", "switch", "engine");
  try {
    fs.accessSync(path.join(root, "bin", "pulumi"), fs.constants.X_OK);
  } catch {
    return {};
  }
  return { pulumiCommand: await PulumiCommand.get({ root }) };
}

/** An update of a site by the Automation API: the same as `pulumi up --yes --skip-preview`, with `--refresh --run-program` where its state is not believed. */
async function up(site: SiteName, state: StateUse, engine: (text: string) => void): Promise<Record<string, unknown>> {
  let said = "";
  const hear = (text: string) => {
    said += text;
    engine(text);
  };
  const envVars = { PULUMI_SKIP_UPDATE_CHECK: "true" };
  try {
    const stack = await LocalWorkspace.selectStack(
      { stackName: site, workDir: projectFolder },
      { envVars, ...(await deafEngine()) },
    );
    const look = state === "refreshed" ? { refresh: true, runProgram: true } : {};
    const { outputs } = await stack.up({ ...look, onOutput: hear, onError: hear, color: "never" });
    return Object.fromEntries(Object.entries(outputs).map(([name, { value }]) => [name, value as unknown]));
  } catch (error) {
    throw new UserError(whyUpFailed(site, said, error));
  }
}

/** What an update said about its failure, without the list of what it did before. Pure. */
export function whyUpFailed(site: string, said: string, error: unknown): string {
  // Outputs come after it, and would be all that is seen.
  const [diagnostics = ""] = said.slice(Math.max(0, said.lastIndexOf("\nDiagnostics:"))).split(/^Outputs:/m);
  const lines = diagnostics
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "" && !/^(Diagnostics|Outputs|Resources|Duration):/.test(line));
  const locked = /currently locked by|another update is currently in progress/i.test(`${said}${String(error)}`);
  if (locked) {
    return `stack ${site} is locked by an update that runs, or was killed; if none runs any more: pulumi cancel --yes --stack ${site}`;
  }
  const text = lines.slice(-25).join("\n");
  return `pulumi up --stack ${site}:\n${text === "" ? (error instanceof Error ? error.message : String(error)) : text}`;
}
