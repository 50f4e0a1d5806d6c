import Table from "cli-table3";
import { Argument, Command, Option } from "commander";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { statusOf } from "../lib/status";
import type { ServerStatus, SiteStatus, Status, StatusLine } from "../lib/status/lines";
import { noSite } from "../lib/refusal";
import { UserError } from "../lib/user-error";
import { siteNames, stackNames } from "../settings";

interface Options {
  json?: boolean;
  resolver?: string[];
}

/** `homestead status`: one line a part, exit code 1 if one of them is a fault. */
export function statusCommand(): Command {
  return new Command("status")
    .summary("the server and its sites at a glance")
    .description(
      "Shows which site is active, whether a switch is under way, how far the standby has come and what would be lost " +
        "if the active site went now; and of each site its gate, pods and versions, last backup, queues, certificates, " +
        "DNS and media. Parts that are dead are a line of their own. Exit code 1 if there is a fault.",
    )
    .addArgument(new Argument("[site]", "the stack (default: home and vps, those that there are)").choices(stackNames))
    .addOption(new Option("--resolver <address...>", "DNS servers to find the zone's own server by"))
    .addOption(new Option("--json", "print the result as JSON"))
    .action(async (site: string | undefined, options: Options) => {
      const sites = site === undefined ? await known() : [site];
      const status = await statusOf(sites, { resolvers: options.resolver });
      console.log(options.json ? JSON.stringify(status, null, 2) : renderAll(status));
      const all = [status.server, ...status.sites];
      process.exitCode = all.some(({ verdict }) => verdict === "fault") ? 1 : 0;
      // A connection to a dead API server would keep us for minutes.
      setTimeout(() => process.exit(), 200).unref();
    });
}

async function known(): Promise<string[]> {
  const stacks = await new PulumiCli(projectFolder).stacks();
  const sites = siteNames.filter((name) => stacks.includes(name));
  if (sites.length === 0) throw new UserError("this backend has no stack of a site", noSite);
  return sites;
}

/** A status for a person. */
export function renderAll({ server, sites }: Status): string {
  const head = `the server, active on ${server.activeSite ?? "nobody knows which site"}, ${server.at}`;
  return [`${head}\n${tableOf(server.lines)}`, ...sites.map((site) => render(site, server))].join("\n");
}

/** One site's part of it. Its role is said twice where the files and the lease do not agree. */
export function render(
  { site, role, at, lines }: SiteStatus,
  { activeSite }: Pick<ServerStatus, "activeSite">,
): string {
  const leased = activeSite === undefined ? role : activeSite === site ? "active" : "standby";
  const roles = leased === role ? role : `${role} by Pulumi.yaml, ${leased} by the lease`;
  return `${site}, ${roles}, ${at}\n${tableOf(lines)}`;
}

function tableOf(lines: StatusLine[]): string {
  const table = new Table({
    head: ["", "part", "what", "says"],
    style: { head: [], border: [], compact: true },
    colWidths: [9, 14, 30, 70],
    wordWrap: true,
  });
  table.push(...lines.map(({ area, what, verdict, says }) => [verdict, area, what, says]));
  const count = (verdict: string) => lines.filter((one) => one.verdict === verdict).length;
  return `${table.toString()}\nfaults: ${count("fault")}, warnings: ${count("warning")}`;
}
