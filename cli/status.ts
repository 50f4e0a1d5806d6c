import Table from "cli-table3";
import { Argument, Command, Option } from "commander";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { loadSite } from "../lib/site-secrets";
import { serverStatus, siteStatus } from "../lib/status";
import { line } from "../lib/status/lines";
import type { ServerStatus, SiteStatus, StatusLine } from "../lib/status/lines";
import { UserError } from "../lib/user-error";
import { siteNames, stackNames } from "../settings";

interface Options {
  json?: boolean;
  resolver?: string[];
}

/** What `--json` prints. */
interface Status {
  server: ServerStatus;
  sites: SiteStatus[];
}

/** `homestead status`: one line a part, exit code 1 if one of them is a fault. */
export function statusCommand(): Command {
  return new Command("status")
    .summary("the server and its sites at a glance")
    .description(
      "Shows which site is active and whether a switch is under way, and of each site its pods and versions, its last backup, its queues, certificates, DNS and media, and what would be " +
        "lost if its cluster went now. Parts that are dead are a line of their own. Exit code 1 if there is a fault.",
    )
    .addArgument(new Argument("[site]", "the stack (default: home and vps, those that there are)").choices(stackNames))
    .addOption(new Option("--resolver <address...>", "DNS servers to find the zone's own server by"))
    .addOption(new Option("--json", "print the result as JSON"))
    .action(async (site: string | undefined, options: Options) => {
      const sites = site === undefined ? await known() : [site];
      const status = await statusOf(sites, options.resolver);
      console.log(options.json ? JSON.stringify(status, null, 2) : renderAll(status));
      const all = [status.server, ...status.sites];
      process.exitCode = all.some(({ verdict }) => verdict === "fault") ? 1 : 0;
      // A connection to a dead API server would keep us for minutes.
      setTimeout(() => process.exit(), 200).unref();
    });
}

/** @throws UserError when not one stack can be read */
async function statusOf(names: string[], resolvers: string[] | undefined): Promise<Status> {
  const loaded = await Promise.allSettled(names.map((name) => loadSite(name)));
  const [first] = loaded.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  if (first === undefined) throw loaded.find((one) => one.status === "rejected")?.reason;
  const [server, ...sites] = await Promise.all([
    serverStatus(first),
    ...loaded.map((one, i) =>
      one.status === "fulfilled"
        ? siteStatus(one.value, { resolvers })
        : unreadable(names[i] ?? "", first.settings.activeSite, one.reason),
    ),
  ]);
  return { server, sites };
}

/** A site whose stack cannot be read; the others are shown all the same. */
function unreadable(site: string, activeSite: string, error: unknown): SiteStatus {
  const says = error instanceof Error ? error.message : String(error);
  return {
    site,
    role: site === activeSite ? "active" : "standby",
    at: new Date().toISOString(),
    verdict: "fault",
    lines: [line("stack", site, "fault", says)],
  };
}

async function known(): Promise<string[]> {
  const stacks = await new PulumiCli(projectFolder).stacks();
  const sites = siteNames.filter((name) => stacks.includes(name));
  if (sites.length === 0) throw new UserError("this backend has no stack of a site: pulumi stack ls");
  return sites;
}

/** A status for a person. */
export function renderAll({ server, sites }: Status): string {
  const head = `the server, active on ${server.activeSite ?? "nobody knows which site"}, ${server.at}`;
  return [`${head}\n${tableOf(server.lines)}`, ...sites.map(render)].join("\n");
}

/** One site's part of it. */
export function render({ site, role, at, lines }: SiteStatus): string {
  return `${site}, ${role}, ${at}\n${tableOf(lines)}`;
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
