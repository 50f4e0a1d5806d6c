import Table from "cli-table3";
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import { drill } from "../lib/drill";
import type { DrillResult } from "../lib/drill";
import { inOrder, neverEmpty, span } from "../lib/drill/verdicts";
import type { RowCounts } from "../lib/drill/verdicts";
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
      "Restores a site's newest backup into a throwaway namespace, starts Mastodon on it, compares its rows with the " +
        "live database, opens what is encrypted with the stack's keys, fetches a sample of uploads, and deletes it all. " +
        "Mastodon reaches nothing there but the restored database and an empty Valkey; the databases reach what the " +
        "site's own do: DNS, the API server, and the vault's port at every public address and at those of " +
        "network.privateEgress. Needs room for two more copies of the database while it runs.",
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
  const table = new Table({ head: ["rows", "live", "restored", "base backup"], style });
  const { live, restored, backup } = result.rows;
  const all = [live, restored, backup].filter((counts) => counts !== undefined);
  // Most people use a few of Mastodon's tables, and each version has its own.
  const used = inOrder([...new Set(all.flatMap((counts) => Object.keys(counts)))]).filter((name) =>
    all.some((counts) => counts[name]),
  );
  const shown = used.filter((name) => neverEmpty.includes(name) || shrank(name, backup, restored, live));
  table.push(...shown.map((name) => [name, ...[live, restored, backup].map((of) => String(of?.[name] ?? "-"))]));
  const { restore, boot, total } = result.seconds;
  const unseen = used.length - shown.length;
  const without = live === undefined ? ", as far as it shows without the live database" : "";
  const lines = [
    ...(unseen === 0 ? [] : [`and ${unseen} other table${unseen === 1 ? "" : "s"}, with no row less than before`]),
    `archive       ${result.archive}${result.backup ? `, base backup ${result.backup.id}` : ""}`,
    `newest row    ${result.newestRow ? `${result.newestRow.at}, ${span(result.newestRow.ageSeconds)} old` : "none"}`,
    `encrypted     ${result.decryptedValues === undefined ? "not opened" : `${result.decryptedValues} values opened`}`,
    `media         ${result.mediaFetched === undefined ? "not tried" : `${result.mediaFetched} uploads fetched`}`,
    ...(result.mediaCopy === undefined ? [] : [`media copy    ${span(result.mediaCopy.ageSeconds)} old`]),
    `took          ${span(total)} (restore ${restore === undefined ? "-" : span(restore)}, Mastodon ${boot === undefined ? "-" : span(boot)})`,
    ...result.warnings.map((warning) => `warning       ${warning}`),
    result.failures.length === 0 ? `this backup restores${without}` : `failures: ${result.failures.length}`,
  ];
  return `${table.toString()}\n${lines.join("\n")}`;
}

/** Whether a table has fewer rows in one of the databases than in the one that is a part of it. */
function shrank(
  table: string,
  backup: RowCounts | undefined,
  restored: RowCounts | undefined,
  live: RowCounts | undefined,
): boolean {
  const [old, whole, now] = [backup, restored, live].map((counts) => counts?.[table]);
  const fewer = (before: number | undefined, after: number | undefined, known: RowCounts | undefined) =>
    known !== undefined && (after ?? 0) < (before ?? 0);
  return fewer(old, now, live) || fewer(old, whole, restored) || fewer(now, whole, restored);
}
