/**
 * A switch whose command is killed after some of its steps, and run again, once by somebody else's laptop: the end is
 * that of an undisturbed one (issue 5, "Done means" 5). Before, one that is killed after the demotion is taken back.
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { chance, draw, seedOf } from "../support/chance";
import { handOn, takePair } from "../support/pair";
import type { Pair } from "../support/pair";
import { run } from "../support/processes";
import type { Project, Site } from "../support/project";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { plannedSteps } from "./switch";
import { followStillWorks, plannedSwitch } from "./two-sites";

export const interrupted: Scenario = {
  name: "interrupted",
  what: "a switch killed after some of its steps, drawn at random, and run again: the same end",
  sites: "both",
  minutes: 10,
  limit: 60,
  async run(context) {
    const { report, extent } = context;
    const pair = await takePair(context);
    const peer = await pair.meetPeer();
    const seed = seedOf();
    const random = chance(seed);
    let kills: string[] = [];
    await plannedSwitch(context, pair, peer, async (to) => {
      await takenBack(context, pair, to);
      // In a whole run not those that `--dry-run` lists: it takes its time, and `switch` checks them.
      const steps = extent === "brief" ? plannedSteps : await stepsAhead(pair, to);
      kills = extent === "full" ? [...steps] : drawSome(random, steps, 3);
      console.log(`      killed after: ${kills.join(", ")} (E2E_SEED=${seed})`);
      const laptop = anotherLaptop(pair.project);
      // Neither the first nor the last one that is killed: the files that stay are the project's own.
      const elsewhere = 1 + Math.floor(random() * (kills.length - 2));
      for (const [i, step] of kills.entries()) {
        const folder = i === elsewhere ? laptop : pair.project.folder;
        await killedAfter(context, pair, { to, folder, step, before: i });
      }
      await lastRun(context, pair, to);
    });
    await report.check("the journal says that it is over, and the same command again does nothing", async () => {
      const { activeSite } = await pair.lease();
      assert.equal((await pair.journal())?.finished, true);
      const { output } = succeeded(await pair.switchTo(activeSite), "homestead switch");
      assert.match(output, new RegExp(`${activeSite} is the active site already \\(epoch \\d+\\): nothing to do`));
    });
    await followStillWorks(context, pair, peer);
    handOn(pair);
  },
};

/**
 * The new site might have died before it took the lease: the old one, which is demoted, serves again, and its token is
 * dropped. What follows is a switch like any other, from the database's next timeline on.
 */
async function takenBack({ report, logs }: Context, pair: Pair, to: Site): Promise<void> {
  const { activeSite: from, epoch } = await pair.lease();
  await report.check(
    "killed after demote, and taken back: the old site serves again, and nothing was lost",
    async () => {
      const log = path.join(logs, "switch-taken-back.log");
      await untilLine(pair, pair.project.folder, pair.switchArguments(to), /^done {2}demote /m, log);
      const { output } = succeeded(await pair.switchTo(from), `homestead switch ${from}`);
      assert.match(output, /is taken back; its token is dropped when/);
      await pair.mustBe(from, epoch);
      assert.equal(await pair.clusters[from].sql("SELECT pg_is_in_recovery()"), "f", "its database does not write");
      assert.equal((await pair.journal())?.finished, true);
      await pair.followName();
      await pair.owner.post(`taken back ${crypto.randomUUID()}`);
    },
  );
}

/** The steps that a switch will take, as `--dry-run` lists them. */
async function stepsAhead(pair: Pair, to: Site): Promise<string[]> {
  const { output } = succeeded(await pair.switchTo(to, ["--dry-run"]), "homestead switch --dry-run");
  const steps = stepsIn(output);
  assert.ok(steps.length >= 5, output);
  return steps;
}

/** Names of steps, from the lines `  1. stop-web   ...`. */
export const stepsIn = (output: string): string[] =>
  [...output.matchAll(/^ {2}\d+\. (\S+)/gm)].map(([, step = ""]) => step);

/** Some different ones among things, in their order. */
export function drawSome<T>(random: () => number, things: readonly T[], count: number): T[] {
  const left = [...things];
  while (left.length > count) left.splice(left.indexOf(draw(random, left)), 1);
  return left;
}

/** A clone as git has it, which never saw a step of the switch; the state and the passphrase are the same. */
function anotherLaptop(project: Project): string {
  const folder = path.join(project.root, "another-laptop");
  fs.rmSync(folder, { recursive: true, force: true });
  fs.cpSync(project.folder, folder, { recursive: true });
  return folder;
}

interface Kill {
  to: Site;
  /** The project, on whosever machine. */
  folder: string;
  step: string;
  /** How many were killed before. */
  before: number;
}

async function killedAfter({ report, logs }: Context, pair: Pair, { to, folder, step, before }: Kill): Promise<void> {
  const where = folder === pair.project.folder ? "" : ", on another laptop";
  await report.check(`${before === 0 ? "begun" : "gone on with"}${where}, and killed after ${step}`, async () => {
    const log = path.join(logs, `switch-killed-${before}-${step}.log`);
    const output = await untilLine(pair, folder, pair.switchArguments(to), new RegExp(`^done {2}${step} `, "m"), log);
    if (before > 0) assert.match(output, new RegExp(`going on with the switch to ${to} `));
  });
}

async function lastRun({ report }: Context, pair: Pair, to: Site): Promise<void> {
  await report.check("gone on with, to the end", async () => {
    const { output } = succeeded(await pair.switchTo(to), `homestead switch ${to}`);
    assert.match(output, new RegExp(`going on with the switch to ${to} `));
  });
}

/**
 * Runs the command until it has printed a line, and kills it with everything that it started.
 * @returns what it had said. @throws Error when it ends by itself, or takes longer than a quarter of an hour
 */
export async function untilLine(
  { project }: Pair,
  folder: string,
  args: string[],
  line: RegExp,
  log: string,
): Promise<string> {
  const command = [path.join(folder, "cli", "homestead.mjs"), ...args];
  const { output, code } = await run("node", command, {
    cwd: folder,
    env: project.env,
    seconds: 900,
    log,
    until: line,
  });
  if (!line.test(output)) throw new Error(`it ended with ${code} before ${line}: ${output.slice(-500)}`);
  return output;
}
