import Table from "cli-table3";
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import { drill } from "../lib/drill";
import type { DrillResult } from "../lib/drill";
import { comparedTables, span } from "../lib/drill/verdicts";
import { stoppable } from "../lib/interrupt";
import { loadSite } from "../lib/site-secrets";
import { stackNames } from "../settings";

interface DrillOptions {
  json?: boolean;
  timeout: number;
}

/** `homestead drill`: restores the newest backup beside the site and looks at it; exit code 1 and a line a fault. */
export function drillCommand(): Command {
  return new Command("drill")
    .summary("restore the newest backup beside the site, and see whether it would do")
    .description(
      "Restores a site's newest backup into a throwaway namespace that reaches nothing but the vault, starts Mastodon " +
        "on it, compares its rows with the live database, opens what is encrypted with the stack's keys, fetches a " +
        "sample of uploads, and deletes it all. Needs room for two more copies of the database while it runs.",
    )
    .addArgument(new Argument("<site>", "the stack").choices(stackNames))
    .addOption(new Option("--timeout <minutes>", "how long the restore may take").argParser(minutes).default(60))
    .addOption(new Option("--json", "print the result as JSON"))
    .action(async (site: string, options: DrillOptions) => {
      const result = await stoppable(async (signal) =>
        drill(await loadSite(site), {
          signal,
          restoreSeconds: options.timeout * 60,
          progress: (step) => console.error(step),
        }),
      );
      console.log(options.json ? JSON.stringify(result, null, 2) : render(result));
      for (const line of result.failures) console.error(`drill failed: ${line}`);
      if (result.failures.length > 0) process.exitCode = 1;
    });
}

function minutes(value: string): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 1) throw new InvalidArgumentError("Expected whole minutes.");
  return number;
}

/** A drill's result for a person. */
export function render(result: DrillResult): string {
  const style = { head: [], border: [], compact: true };
  const rows = new Table({ head: ["rows", "live", "restored", "base backup"], style });
  const { live, restored, backup } = result.rows;
  const counts = comparedTables().map((table) => ({ table, found: [live, restored, backup].map((of) => of?.[table]) }));
  // Most people use a few of Mastodon's tables, and each version has its own.
  const shown = counts.filter(({ found }) => found.some((count) => count));
  rows.push(...shown.map(({ table, found }) => [table, ...found.map((count) => String(count ?? "-"))]));
  const { restore, boot, total } = result.seconds;
  const lines = [
    `archive       ${result.archive}${result.backup ? `, base backup ${result.backup.id}` : ""}`,
    `newest row    ${result.newestRow ? `${result.newestRow.at}, ${span(result.newestRow.ageSeconds)} old` : "none"}`,
    `encrypted     ${result.decryptedValues === undefined ? "not opened" : `${result.decryptedValues} values opened`}`,
    `media         ${result.mediaFetched === undefined ? "not tried" : `${result.mediaFetched} uploads fetched`}`,
    `took          ${span(total)} (restore ${restore === undefined ? "-" : span(restore)}, Mastodon ${boot === undefined ? "-" : span(boot)})`,
    ...result.warnings.map((warning) => `warning       ${warning}`),
    result.failures.length === 0 ? "this backup restores" : `failures: ${result.failures.length}`,
  ];
  return `${rows.toString()}\n${lines.join("\n")}`;
}
