/**
 * The end-to-end suite: `npm run e2e -- [scenario ...] [--full | --brief]`, all scenarios if none is named.
 *
 * Real Pulumi engine, real clusters; test/e2e/README.md says where they come from. The very last line is
 * `N passed, N failed, N skipped`, and the exit code is 0 if and only if nothing failed.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { drawnBy } from "./support/chance";
import { Cluster } from "./support/cluster";
import { beside, checkout, findEnvironment } from "./support/environment";
import type { Environment } from "./support/environment";
import { prepareImages } from "./support/images";
import { Lab } from "./support/lab";
import { exclusive, isFirst } from "./support/lock";
import { atExit, cleanUp, fromNow, must, run, tail, within } from "./support/processes";
import { forgivable, oneLine, parseTotal, Report, scenarioLine, sum, totalLine } from "./support/report";
import type { Tally } from "./support/report";
import type { Extent, Scenario } from "./support/scenario";
import { discardSharedSite } from "./support/shared";
import { beginningWith, minutesBefore, rounds, scenarios } from "./scenarios/index";

/** Seconds that the processors have had to do something, or nothing, since the machine started. */
function processorTimes(): { idle: number; all: number } {
  const times = os.cpus().map(({ times: of }) => of);
  const sumOf = (parts: number[]) => parts.reduce((a, b) => a + b, 0) / 1000;
  return { idle: sumOf(times.map(({ idle }) => idle)), all: sumOf(times.flatMap((of) => Object.values(of))) };
}

/** @returns what tells the part of the time since `before` in which the processors had nothing to do */
const idleSince = (before: ReturnType<typeof processorTimes>) => (): number => {
  const now = processorTimes();
  return (now.idle - before.idle) / Math.max(now.all - before.all, 0.001);
};

async function runScenario(scenario: Scenario, environment: Environment, extent: Extent): Promise<Report> {
  console.log(`\n${scenario.name}: ${scenario.what}`);
  const start = Date.now();
  const idle = idleSince(processorTimes());
  const before = fromNow();
  const report = new Report();
  const logs = path.join(environment.logs, scenario.name);
  fs.rmSync(logs, { recursive: true, force: true });
  fs.mkdirSync(logs, { recursive: true });
  try {
    // One that hangs must not take more than the hour that a whole run has.
    const limit = Math.min(scenario.limit, minutesLeft() + 2);
    await within(limit * 60, scenario.name, () => scenario.run({ environment, report, extent, logs }));
  } catch (error) {
    await report.check(`${scenario.name} runs to its end`, () => {
      throw error;
    });
    for (const access of [environment.home, environment.vps]) {
      // A cluster that is off is asked in vain, and each question has two minutes.
      const described = within(60, access.name, () => new Cluster(access, environment).describeTrouble());
      const trouble = await described.catch((reason: unknown) => oneLine(reason));
      fs.writeFileSync(path.join(logs, `trouble-${access.name}.txt`), trouble);
      // Of a run elsewhere often nothing is left but what it printed.
      console.log(tail(trouble, 20).replaceAll(/^/gm, `      ${access.name}: `));
    }
    console.log(`      logs, and the clusters as they were: ${logs}`);
  } finally {
    await cleanUp(before);
  }
  // What failed may have left a site that is not as its files say.
  if (report.broken.length > 0) discardSharedSite();
  console.log(scenarioLine(scenario.name, report.counts, (Date.now() - start) / 1000, idle()));
  return report;
}

const started = Date.now();
/** Minutes that are left of `E2E_MINUTES`; without it there is no end. */
const minutesLeft = (): number =>
  Number(process.env["E2E_MINUTES"] ?? "Infinity") - Math.round((Date.now() - started) / 60_000);

/** Where two ways write down which of the scenarios for either they have begun; nowhere where there is one way. */
let claims = process.env["E2E_CLAIMS"];

/** Whether a scenario is ours to run, now that we have come to it. */
const isOurs = ({ name, place }: Scenario): boolean =>
  place !== "either" || claims === undefined || isFirst(claims, name);

/**
 * @param secondTries `none`: somebody has named the scenarios, and wants to see each outcome.
 * @param round with which those of two sites begin, in a run that has an hour
 */
async function inOrder(
  chosen: readonly Scenario[],
  environment: Environment,
  extent: Extent,
  secondTries: "taken" | "none",
  round?: readonly Scenario[],
): Promise<Tally> {
  const tallies: Tally[] = [];
  let before: Parameters<typeof minutesBefore>[2] = "broken or left out";
  for (const [i, scenario] of chosen.entries()) {
    if (!isOurs(scenario)) continue;
    const { name, secondTry } = scenario;
    const minutes = scenario.minutes + (round === undefined ? 0 : minutesBefore(i, round, before));
    before = "broken or left out";
    if (minutes <= minutesLeft()) {
      const first = await runScenario(scenario, environment, extent);
      const again =
        forgivable(first.broken) && secondTry !== undefined && secondTries === "taken" && minutes <= minutesLeft();
      if (again) console.log(`\n${name} once more, and that counts: ${secondTry}`);
      const last = again ? await runScenario(scenario, environment, extent) : first;
      if (last.broken.length === 0) before = "held";
      tallies.push(last.counts);
    } else {
      console.log(
        `\nskip  ${name}: it takes ${minutes} minutes, and ${minutesLeft()} are left (npm run e2e -- ${name})`,
      );
      tallies.push({ passed: 0, failed: 0, skipped: 1 });
    }
  }
  return sum(tallies);
}

/**
 * With which of those of two sites a run begins that has an hour, and so cannot take all: drawn by the commit, so that each
 * has its turn. Undefined where there is no such end.
 */
async function drawnRound(): Promise<readonly Scenario[] | undefined> {
  if (process.env["E2E_MINUTES"] === undefined) return undefined;
  const given = process.env["E2E_ROUND"];
  const number =
    given ?? String(drawnBy(await must("git", ["-C", checkout, "rev-parse", "HEAD"], { seconds: 60 }), rounds.length));
  const round = /^\d$/.test(number) ? rounds[Number(number)] : undefined;
  if (round === undefined) throw new Error(`E2E_ROUND is '${number}': one of 0 to ${rounds.length - 1}, or unset it`);
  const names = round.map(({ name }) => name).join(", ");
  const drawn = given === undefined ? `drawn by the commit: E2E_ROUND=${number}` : `E2E_ROUND=${number}`;
  console.log(`of two sites: first ${names} (${drawn}), then what there is time for`);
  return round;
}

/** Runs scenarios on the second cluster, in a process of their own; what they say comes when all of it is said. */
async function besides(chosen: readonly Scenario[], environment: Environment, extent: Extent): Promise<Tally> {
  const names = chosen.map(({ name }) => name);
  const outcome = await run(
    process.execPath,
    [...process.execArgv, ...process.argv.slice(1, 2), ...names, ...(extent === "full" ? ["--full"] : [])],
    {
      env: {
        ...process.env,
        E2E_PLACE: "beside",
        E2E_BUCKETS: "e2e-beside",
        E2E_CLAIMS: claims,
        E2E_MINUTES: String(minutesLeft()),
        // Prepared already. The lab cannot be asked for them: the first cluster is being emptied.
        E2E_IMAGES: Object.entries(environment.images)
          .map(([name, reference]) => `${name}=${reference}`)
          .join(" "),
      },
      seconds: chosen.reduce((minutes, { limit }) => minutes + limit, 0) * 60,
    },
  );
  const tally = parseTotal(outcome.output);
  console.log(`\nbeside them, on the second cluster:\n${outcome.output.trimEnd()}`);
  return tally ?? { passed: 0, failed: 1, skipped: 0 };
}

async function main(): Promise<Tally> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      full: { type: "boolean", default: false },
      // Named ones as a whole run has them, to see again what failed there.
      brief: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
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
  const whole = positionals.length === 0;
  const chosen = whole
    ? scenarios.filter((s) => s.included !== "by name")
    : scenarios.filter((s) => positionals.includes(s.name));
  const left = whole ? scenarios.filter((s) => !chosen.includes(s)).map((s) => s.name) : [];
  if (left.length > 0) console.log(`left out, since they are run by name only: ${left.join(", ")}`);

  const found = await findEnvironment();
  if (found.kind === "missing") {
    console.log(`left out: ${chosen.map((s) => s.name).join(", ")}, because of ${found.why}`);
    return { passed: 0, failed: 0, skipped: chosen.length };
  }
  if (process.env["E2E_PLACE"] === "beside") {
    const environment = beside(found.environment);
    if (process.env["E2E_IMAGES"] === undefined) await prepareImages(environment);
    return inOrder(chosen, environment, values.full ? "full" : "brief", "none");
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
    const extent = values.full ? "full" : whole || values.brief ? "brief" : "once";
    // Beside the others only where there are others: somebody who names scenarios gets them one after the other.
    const second = whole ? chosen.filter(({ place }) => place !== undefined) : [];
    const first = chosen.filter(({ place }) => !whole || place !== "beside");
    if (whole) {
      const folder = (claims = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-e2e-claims-")));
      atExit(() => fs.rmSync(folder, { recursive: true, force: true }));
    }
    const round = whole ? await drawnRound() : undefined;
    const both = first.filter(({ sites }) => sites === "both");
    const secondTries = whole ? "taken" : "none";
    // They begin first: a scenario ends what began since it did.
    const together = await Promise.all([
      second.length === 0 ? sum([]) : besides(second, environment, extent),
      inOrder(
        first.filter((scenario) => !both.includes(scenario)),
        environment,
        extent,
        secondTries,
      ),
    ]);
    const ofBoth = await inOrder(beginningWith(round ?? [], both), environment, extent, secondTries, round);
    return sum([{ passed: 0, failed: 0, skipped: left.length }, ...together, ofBoth]);
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
