import Table from "cli-table3";
import { Argument, Command, Option } from "commander";
import { doctor } from "../lib/doctor";
import type { DoctorReport } from "../lib/doctor/lines";
import { stoppable } from "../lib/interrupt";
import { stackNames } from "../settings";
import type { StackName } from "../settings";

interface Options {
  /** False with --no-disk. */
  disk: boolean;
  resolver?: string[];
  json?: boolean;
}

/** `homestead doctor`: one line a thing that could be wrong, with its mend; exit code 1 if one of them is a fault. */
export function doctorCommand(): Command {
  return new Command("doctor")
    .summary("whether a site is fit to be brought up, and to be left alone")
    .description(
      "Looks at everything a site stands on: programs, cluster, operators, disks, room, buckets and what their keys " +
        "may do, issuer, DNS, ports and clocks. Works before the first update and any time after. Measures how long " +
        "the disks take to keep what is written, in a namespace homestead-doctor that is deleted again. Each line " +
        "that is not ok says how to mend it. Exit code 1 if there is a fault.",
    )
    .addArgument(new Argument("<site>", "the stack").choices(stackNames))
    .addOption(new Option("--no-disk", "measure no disk, and make nothing in the cluster"))
    .addOption(new Option("--resolver <address...>", "DNS servers to find the zone's own server by"))
    .addOption(new Option("--json", "print the result as JSON"))
    .action(async (site: StackName, options: Options) => {
      const report = await stoppable((signal) =>
        doctor(site, {
          disks: options.disk ? "measure" : "skip",
          ...(options.resolver === undefined ? {} : { resolvers: options.resolver }),
          progress: (step) => console.error(step),
          signal,
        }),
      );
      console.log(options.json ? JSON.stringify(report, null, 2) : render(report));
      process.exitCode = report.verdict === "fault" ? 1 : 0;
      // A connection to a dead API server would keep us for minutes.
      setTimeout(() => process.exit(), 200).unref();
    });
}

/** A report for a person. What mends it stands below the table, in lines that can be copied whole. */
export function render({ site, role, at, lines }: DoctorReport): string {
  const table = new Table({
    head: ["", "part", "what", "says"],
    style: { head: [], border: [], compact: true },
    colWidths: [9, 14, 32, 80],
    wordWrap: true,
  });
  table.push(...lines.map(({ verdict, area, what, says }) => [verdict, area, what, says]));
  const mends = lines.flatMap(({ verdict, area, what, mend }) =>
    mend === undefined ? [] : `${verdict}, ${area}, ${what}:\n  ${mend}`,
  );
  const count = (verdict: string) => lines.filter((line) => line.verdict === verdict).length;
  return [
    [site, role, at].filter((part) => part !== undefined).join(", "),
    table.toString(),
    ...mends,
    `faults: ${count("fault")}, warnings: ${count("warning")}`,
  ].join("\n");
}
