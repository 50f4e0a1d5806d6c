import Table from "cli-table3";
import { Argument, Command, Option } from "commander";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { loadSite } from "../lib/site-secrets";
import { siteStatus } from "../lib/status";
import type { SiteStatus } from "../lib/status/lines";
import { UserError } from "../lib/user-error";
import { siteNames, stackNames } from "../settings";

interface Options {
  json?: boolean;
  resolver?: string[];
}

/** `homestead status`: one line a part, exit code 1 if one of them is a fault. */
export function statusCommand(): Command {
  return new Command("status")
    .summary("a site at a glance")
    .description(
      "Shows a site's pods and versions, its last backup, its queues, certificates, DNS and media, and what would be " +
        "lost if its cluster went now. Parts that are dead are a line of their own. Exit code 1 if there is a fault.",
    )
    .addArgument(new Argument("[site]", "the stack (default: home and vps, those that there are)").choices(stackNames))
    .addOption(new Option("--resolver <address...>", "DNS servers to find the zone's own server by"))
    .addOption(new Option("--json", "print the result as JSON"))
    .action(async (site: string | undefined, options: Options) => {
      const sites = site === undefined ? await known() : [site];
      const results: SiteStatus[] = [];
      for (const name of sites) results.push(await siteStatus(await loadSite(name), { resolvers: options.resolver }));
      console.log(
        options.json
          ? JSON.stringify(site === undefined ? results : results[0], null, 2)
          : results.map(render).join("\n"),
      );
      process.exitCode = results.some(({ verdict }) => verdict === "fault") ? 1 : 0;
      // A connection to a dead API server would keep us for minutes.
      setTimeout(() => process.exit(), 200).unref();
    });
}

async function known(): Promise<string[]> {
  const stacks = await new PulumiCli(projectFolder).stacks();
  const sites = siteNames.filter((name) => stacks.includes(name));
  if (sites.length === 0) throw new UserError("this backend has no stack of a site: pulumi stack ls");
  return sites;
}

/** A status for a person. */
export function render(status: SiteStatus): string {
  const table = new Table({
    head: ["", "part", "what", "says"],
    style: { head: [], border: [], compact: true },
    colWidths: [9, 14, 30, 70],
    wordWrap: true,
  });
  table.push(...status.lines.map(({ area, what, verdict, says }) => [verdict, area, what, says]));
  const count = (verdict: string) => status.lines.filter((line) => line.verdict === verdict).length;
  const sum = `faults: ${count("fault")}, warnings: ${count("warning")}`;
  return `${status.site}, ${status.role}, ${status.at}\n${table.toString()}\n${sum}`;
}
