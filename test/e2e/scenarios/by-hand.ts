/**
 * The same switch with the Pulumi CLI alone, by the commands of its runbook (issue 5: "By hand"). The command has begun
 * it and was stopped, which is when somebody does it by hand.
 */
import * as assert from "node:assert/strict";
import * as path from "node:path";
import { parse } from "yaml";
import { handOn, takePair } from "../support/pair";
import type { Pair } from "../support/pair";
import { run, tail } from "../support/processes";
import { succeeded } from "../support/project";
import type { Site } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { untilLine } from "./interrupted";
import { followStillWorks, plannedSwitch } from "./two-sites";

const runbook = "docs/runbooks/switch-by-hand.md";

export const byHand: Scenario = {
  name: "by-hand",
  what: "a planned switch that the command began, finished with the Pulumi CLI alone, by the commands of the runbook",
  sites: "both",
  minutes: 4,
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
      await followRunbook(context, pair, activeSite, to);
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
    handOn(pair);
  },
};

/** Does what the runbook says, block by block: runs what is marked `sh`, writes what is marked `yaml` into Pulumi.yaml. */
async function followRunbook({ environment, logs, extent }: Context, pair: Pair, from: Site, to: Site): Promise<void> {
  const { project } = pair;
  const env = {
    ...project.env,
    PULUMI_SKIP_CONFIRMATIONS: "true",
    // A whole run has no time to look first at what each update would do.
    ...(extent === "brief" ? { PULUMI_OPTION_SKIP_PREVIEW: "true" } : {}),
  };
  const { epoch } = await pair.lease();
  const token = async () =>
    (await project.mustPulumi(["stack", "output", "demotionToken", "--stack", from])).stdout.trim();
  for (const { language, text } of blocksOf(project.read(runbook))) {
    const values = {
      from,
      to,
      epoch: String(epoch + 1),
      ...(text.includes("<token>") ? { token: await token() } : {}),
    };
    const block = filled(text, values);
    if (language === "yaml") {
      for (const [key, value] of Object.entries(sharedValuesIn(block))) project.setShared(key, value);
      continue;
    }
    // The names are known to the tests' DNS server alone.
    const script = block.replaceAll(/--public\b/g, `--public --resolver ${environment.dns.server}`);
    const outcome = await run("bash", ["-euo", "pipefail", "-c", script], {
      cwd: project.folder,
      env,
      seconds: 1200,
      log: path.join(logs, "runbook.log"),
    });
    if (outcome.code !== 0)
      throw new Error(`${runbook}: '${block}' ended with ${outcome.code}: ${tail(outcome.output, 8)}`);
  }
}

// ---------------------------------------------------------------- reading a runbook (pure)

export interface Block {
  language: "sh" | "yaml";
  text: string;
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
