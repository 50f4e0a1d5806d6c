/** The `homestead` command: one file a subcommand. */
import { Command } from "commander";
import { Interrupted } from "../lib/child";
import { UserError } from "../lib/user-error";
import { version } from "../package.json";

/* eslint-disable @typescript-eslint/no-require-imports -- import() would want file extensions here */
/** What the help says of each subcommand, and how to get it: loaded together they would take seconds. */
const subcommands: Record<string, { summary: string; load: () => Command }> = {
  plan: {
    summary: "show what a stack would create, and write its manifests to out/<site>/",
    load: () => (require("./plan") as typeof import("./plan")).planCommand(),
  },
  identity: {
    summary: "the shared secrets: make them once, copy them from stack to stack, compare them",
    load: () => (require("./identity") as typeof import("./identity")).identityCommand(),
  },
  verify: {
    summary: "check that a site answers as the world will ask it",
    load: () => (require("./verify") as typeof import("./verify")).verifyCommand(),
  },
  drill: {
    summary: "restore the newest backup beside the site, and see whether it would do",
    load: () => (require("./drill") as typeof import("./drill")).drillCommand(),
  },
  switch: {
    summary: "make a site the active one, and the other one its standby",
    load: () => (require("./switch") as typeof import("./switch")).switchCommand(),
  },
  kit: {
    summary: "the break-glass kit: all that a failover from another machine needs, in one encrypted file",
    load: () => (require("./kit") as typeof import("./kit")).kitCommand(),
  },
  doctor: {
    summary: "whether a site is fit to be brought up, and to be left alone",
    load: () => (require("./doctor") as typeof import("./doctor")).doctorCommand(),
  },
  status: {
    summary: "the server and its sites at a glance",
    load: () => (require("./status") as typeof import("./status")).statusCommand(),
  },
};
/* eslint-enable @typescript-eslint/no-require-imports */

/** The command line: the subcommand that is called, and the others by name for the help. */
function homestead(called: string | undefined): Command {
  const program = new Command("homestead")
    .description("One person's corner of the fediverse, on two sites: what `pulumi up` does not do by itself")
    .version(version, "-V, --version")
    .showHelpAfterError("(homestead --help tells more)");
  for (const [name, { summary, load }] of Object.entries(subcommands)) {
    program.addCommand(name === called ? load() : new Command(name).description(summary));
  }
  return program;
}

/** Runs the command line. A fault is told by its message, and by its mend if it has one; `HOMESTEAD_TRACE=1` adds where it comes from. */
export async function main(args: readonly string[]): Promise<void> {
  try {
    await homestead(args[0] === "help" ? args[1] : args[0]).parseAsync(args, { from: "user" });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    if (error instanceof UserError && error.mend !== undefined) process.stderr.write(`mend: ${error.mend}\n`);
    if (process.env.HOMESTEAD_TRACE === "1" && error instanceof Error) {
      process.stderr.write(`${("trace" in error ? String(error.trace) : error.stack) ?? ""}\n`);
    }
    process.exitCode = error instanceof Interrupted ? error.exitCode : 1;
  }
}
