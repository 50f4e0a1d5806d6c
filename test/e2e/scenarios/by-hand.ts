/**
 * The same switch with the Pulumi CLI alone, by the commands of its runbook (issue 5: "By hand"). The command has begun
 * it and was stopped, which is when somebody does it by hand. Where there is time, the runbook's other sections as well: the
 * active site is gone, and then it is there again.
 */
import * as assert from "node:assert/strict";
import * as path from "node:path";
import { parse } from "yaml";
import { missing, postsIn } from "../support/audit";
import { Outage } from "../support/outage";
import { handOn, otherThan, takePair } from "../support/pair";
import type { Pair } from "../support/pair";
import type { Peer } from "../support/peer";
import { eventually, run } from "../support/processes";
import type { RunOptions } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import { oneLine } from "../support/report";
import type { Site } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { baseBackupIn } from "../support/stack";
import { untilLine } from "./interrupted";
import { followStillWorks, mustBeStandby, noPower, plannedSwitch, settled } from "./two-sites";

const runbook = "docs/runbooks/switch-by-hand.md";
/** The beginnings of its headings. */
export const sections = {
  planned: "Planned",
  unplanned: "Unplanned",
  anew: "The other's database does not follow",
} as const;

export const byHand: Scenario = {
  name: "by-hand",
  what: "a planned switch that the command began, finished with the Pulumi CLI alone, by the commands of the runbook (named: then one of a site that is gone, too)",
  sites: "both",
  minutes: 5,
  limit: 45,
  async run(context) {
    const { report } = context;
    const pair = await takePair(context);
    const peer = await pair.meetPeer();
    const { activeSite } = await pair.lease();
    await plannedSwitch(context, pair, peer, async (to) => {
      await report.check("begun by the command, and killed after stop-web", async () => {
        const log = path.join(context.logs, "switch-begun.log");
        await untilLine(pair, pair.project.folder, pair.switchArguments(to), /^done {2}stop-web /m, log);
      });
      const epoch = String((await pair.lease()).epoch + 1);
      await followRunbook(context, pair, "planned", { from: activeSite, to, epoch });
    });
    await report.check("the command takes what was done by hand for done, and ends its journal", async () => {
      const now = (await pair.lease()).activeSite;
      const { output } = succeeded(await pair.switchTo(now), "homestead switch");
      assert.match(output, new RegExp(`going on with the switch to ${now} .*: next is promote$`, "m"));
      assert.equal((await pair.journal())?.finished, true);
      const again = succeeded(await pair.switchTo(now), "homestead switch");
      assert.match(again.output, new RegExp(`${now} is the active site already`));
      // It was seen above, before the command went on: in a whole run that has to do.
      if (context.extent !== "brief") await pair.mustBeSettled();
    });
    await followStillWorks(context, pair, peer);
    if (context.extent !== "brief") await unplanned(context, pair, peer);
    handOn(pair);
  },
};

/** The active site loses its power, and comes back as the standby: each with nothing but what the runbook says. */
async function unplanned(context: Context, pair: Pair, peer: Peer): Promise<void> {
  const { environment, report } = context;
  const outage = Outage.of(environment);
  if (outage === undefined) return report.skip("by-hand, of a site that is gone", noPower);
  const { activeSite: from, epoch } = await pair.lease();
  const to = otherThan(from);
  const posts: { id: string }[] = [];
  const notIn = async () => missing(posts, await postsIn(pair.clusters[to]));
  await report.step(`posts, which ${to}'s database has replayed`, async () => {
    await pair.followName();
    for (let i = 0; i < 10; i++) posts.push({ id: await pair.owner.post(`before a takeover by hand, ${i}`) });
    // The runbook wants it so: nothing in it waits for what is not replayed.
    await eventually(120, `all of them in ${to}'s database`, async () => assert.deepEqual(await notIn(), []), 2000);
  });
  await report.step(`${from}'s power is cut`, () => pair.losePower(outage, from, { posts: [], port: 0 }));
  await report.step(`${to} takes over, by hand`, () =>
    followRunbook(context, pair, "unplanned", { from, to, epoch: String(epoch + 1) }),
  );
  await report.check(`${to} is the active site, epoch ${epoch + 1}, and nothing transient is left in the files`, () =>
    pair.mustBe(to, epoch + 1),
  );
  await report.check(`every post is there (${posts.length})`, async () => assert.deepEqual(await notIn(), []));
  await followStillWorks(context, pair, peer);

  await report.step(`${from}'s power is back, and its database writes again by itself`, async () => {
    await outage.powerOn(from);
    pair.lost = undefined;
    const cluster = pair.clusters[from];
    await eventually(180, "a transaction of its own", () => cluster.sql("SELECT txid_current()"));
    // Its operator's webhook is asked by each update, and may come later; an owner gives the same command again.
    const asked = ["annotate", "clusters.postgresql.cnpg.io", "--all", "-n", "homestead", "e2e/asked=yes"];
    await eventually(180, "CloudNativePG's webhook", () => cluster.kubectl([...asked, "--dry-run=server"]), 2000);
    await baseBackupIn(pair.s3, pair.archive(to));
  });
  const generation = String((pair.shared("generations") as Record<Site, number>)[from] + 1);
  await report.step(`${from}'s database begins anew, by hand`, () =>
    followRunbook(context, pair, "anew", { site: from, active: to, generation }),
  );
  await report.check(`${from} is a standby: nothing of Mastodon runs there, and its database follows`, () =>
    eventually(180, "its database", () => mustBeStandby(pair, from), 2000),
  );
  await settled(context, pair);
}

/**
 * Does what a section of the runbook says, block by block: runs what is marked `sh`, writes what is marked `yaml` into
 * Pulumi.yaml.
 *
 * @param given what stands in the place of `<name>`; a planned switch's token is asked for when it is wanted
 */
async function followRunbook(
  { environment, logs, extent }: Context,
  pair: Pair,
  section: keyof typeof sections,
  given: Readonly<Record<string, string>>,
): Promise<void> {
  const { project } = pair;
  const env = {
    ...project.env,
    PULUMI_SKIP_CONFIRMATIONS: "true",
    // A whole run has no time to look first at what each update would do.
    ...(extent === "brief" ? { PULUMI_OPTION_SKIP_PREVIEW: "true" } : {}),
  };
  const token = async () =>
    (await project.mustPulumi(["stack", "output", "demotionToken", "--stack", given["from"] ?? ""])).stdout.trim();
  for (const { language, text } of blocksOf(sectionOf(project.read(runbook), sections[section]))) {
    const values = { ...given, ...(text.includes("<token>") ? { token: await token() } : {}) };
    const block = filled(text, values);
    if (language === "yaml") {
      for (const [key, value] of Object.entries(sharedValuesIn(block)))
        project.setShared(key, mergedWith(pair.shared(key), value));
      continue;
    }
    // The names are known to the tests' DNS server alone.
    const script = block.replaceAll(/--public\b/g, `--public --resolver ${environment.dns.server}`);
    await runBlock(runbook, script, { cwd: project.folder, env, seconds: 1200, log: path.join(logs, "runbook.log") });
  }
}

/** Runs the commands of one block of a runbook. @throws Error that names it, with what the commands say went wrong */
export async function runBlock(from: string, script: string, options: RunOptions): Promise<void> {
  const { code, output } = await run("bash", ["-euo", "pipefail", "-c", script], options);
  if (code !== 0) throw new Error(`${from}: '${oneLine(script, 90)}' ended with ${code}: ${diagnosis(output)}`);
}

// ---------------------------------------------------------------- reading a runbook (pure)

export interface Block {
  language: "sh" | "yaml";
  text: string;
}

/** One section of a runbook, with what is below it. @throws Error where there is none whose heading begins so */
export function sectionOf(markdown: string, heading: string): string {
  const found = markdown.split(/^## /m).find((part, i) => i > 0 && part.startsWith(heading));
  if (found === undefined) throw new Error(`${runbook} has no section '${heading}'`);
  return found;
}

/** The blocks of a runbook that are to be acted upon, in their order. */
export function blocksOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^( *)```(sh|yaml)\n([\s\S]*?)^\1```$/gm)].map(
    ([, indent = "", language, text = ""]) => ({
      language: language === "yaml" ? "yaml" : "sh",
      text: text.replaceAll(new RegExp(`^${indent}`, "gm"), "").trim(),
    }),
  );
}

/** Puts values in the place of `<name>`. @throws Error that names a placeholder without a value */
export function filled(text: string, values: Readonly<Record<string, string>>): string {
  return text.replaceAll(/<([a-z][a-z -]*)>/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`${runbook} asks for <${name}>, which the test does not know`);
    return value;
  });
}

/** The project-wide values that a block of Pulumi.yaml sets, by their keys. */
export function sharedValuesIn(block: string): Record<string, unknown> {
  const document = parse(block) as Record<string, unknown>;
  const config = (document["config"] ?? document) as Record<string, { value?: unknown }>;
  return Object.fromEntries(
    Object.entries(config).map(([key, entry]) => {
      if (entry?.value === undefined) throw new Error(`${runbook}: ${key} has no value`);
      return [key.replace(/^homestead:/, ""), entry.value];
    }),
  );
}

/** What a value of Pulumi.yaml is once somebody has written what a runbook shows of it: of a map, some of its entries. */
export const mergedWith = (before: unknown, shown: unknown): unknown =>
  typeof before === "object" && typeof shown === "object" ? { ...before, ...shown } : shown;
