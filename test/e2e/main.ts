/**
 * The end-to-end suite: `npm run e2e -- [scenario ...] [--full]`, all scenarios if none is named.
 *
 * Real Pulumi engine, real clusters; test/e2e/README.md says where they come from. The very last line is
 * `N passed, N failed, N skipped`, and the exit code is 0 if and only if nothing failed.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { Cluster } from "./support/cluster";
import { findEnvironment } from "./support/environment";
import type { Environment } from "./support/environment";
import { prepareImages } from "./support/images";
import { Lab } from "./support/lab";
import { exclusive } from "./support/lock";
import { atExit, cleanUp, fromNow, within } from "./support/processes";
import { oneLine, Report, scenarioLine, sum, totalLine } from "./support/report";
import type { Tally } from "./support/report";
import type { Scenario } from "./support/scenario";
import { scenarios } from "./scenarios/index";

async function runScenario(scenario: Scenario, environment: Environment, extent: "once" | "full"): Promise<Tally> {
  console.log(`\n${scenario.name}: ${scenario.what}`);
  const start = Date.now();
  const before = fromNow();
  const report = new Report();
  const logs = path.join(environment.logs, scenario.name);
  fs.rmSync(logs, { recursive: true, force: true });
  fs.mkdirSync(logs, { recursive: true });
  try {
    await within(scenario.limit * 60, scenario.name, () => scenario.run({ environment, report, extent, logs }));
  } catch (error) {
    await report.check(`${scenario.name} runs to its end`, () => {
      throw error;
    });
    for (const access of [environment.home, environment.vps]) {
      const trouble = await new Cluster(access, environment)
        .describeTrouble()
        .catch((reason: unknown) => oneLine(reason));
      fs.writeFileSync(path.join(logs, `trouble-${access.name}.txt`), trouble);
    }
    console.log(`      logs, and the clusters as they were: ${logs}`);
  } finally {
    await cleanUp(before);
  }
  console.log(scenarioLine(scenario.name, report.counts, (Date.now() - start) / 1000));
  return report.counts;
}

async function main(): Promise<Tally> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { full: { type: "boolean", default: false }, list: { type: "boolean", default: false } },
  });
  const unknown = positionals.filter((name) => !scenarios.some((s) => s.name === name));
  if (unknown.length > 0) {
    console.log(`no scenario ${unknown.join(", ")}; there are: ${scenarios.map((s) => s.name).join(", ")}`);
    return { passed: 0, failed: unknown.length, skipped: 0 };
  }
  if (values.list) {
    for (const scenario of scenarios) {
      console.log(`${scenario.name}  ${scenario.what}${scenario.included === "by name" ? " (by name only)" : ""}`);
    }
    return { passed: 0, failed: 0, skipped: 0 };
  }
  const chosen =
    positionals.length === 0
      ? scenarios.filter((s) => s.included !== "by name")
      : scenarios.filter((s) => positionals.includes(s.name));
  const left = positionals.length === 0 ? scenarios.filter((s) => !chosen.includes(s)).map((s) => s.name) : [];
  if (left.length > 0) console.log(`left out, since they are run by name only: ${left.join(", ")}`);

  const found = await findEnvironment();
  if (found.kind === "missing") {
    console.log(`left out: ${chosen.map((s) => s.name).join(", ")}, because of ${found.why}`);
    return { passed: 0, failed: 0, skipped: chosen.length };
  }
  const { environment } = found;
  const release = await exclusive(environment.cache);
  const stopLab = await Lab.of(environment)?.start();
  const undo = atExit(async () => {
    await stopLab?.();
    release();
  });
  try {
    await prepareImages(environment);
    const tallies: Tally[] = [{ passed: 0, failed: 0, skipped: left.length }];
    for (const scenario of chosen)
      tallies.push(await runScenario(scenario, environment, values.full ? "full" : "once"));
    return sum(tallies);
  } finally {
    await undo();
  }
}

void main()
  .catch((error: unknown) => {
    console.log(`FAILED the suite did not get to its scenarios: ${oneLine(error)}`);
    return { passed: 0, failed: 1, skipped: 0 };
  })
  .then(async (tally) => {
    await cleanUp();
    console.log(totalLine(tally));
    process.exit(tally.failed === 0 ? 0 : 1);
  });
