/** The `homestead` command: one file a subcommand. */
import { Command } from "commander";

/* eslint-disable @typescript-eslint/no-require-imports -- import() would want file extensions here */
/** Each subcommand is loaded only when it is called: together they take seconds to load. */
const subcommands: Record<string, () => Command> = {
  plan: () => (require("./plan") as typeof import("./plan")).planCommand(),
  identity: () => (require("./identity") as typeof import("./identity")).identityCommand(),
  verify: () => (require("./verify") as typeof import("./verify")).verifyCommand(),
};
/* eslint-enable @typescript-eslint/no-require-imports */

/** The command line with the subcommand that is called, or with all of them where none is (for the help). */
function homestead(called: string | undefined): Command {
  const one = called === undefined ? undefined : subcommands[called];
  const program = new Command("homestead")
    .description("One person's corner of the fediverse, on two sites: what `pulumi up` does not do by itself")
    .showHelpAfterError("(homestead --help tells more)");
  for (const load of one ? [one] : Object.values(subcommands)) program.addCommand(load());
  return program;
}

/** Runs the command line. A fault is told by its message alone; `HOMESTEAD_TRACE=1` adds where it comes from. */
export async function main(args: readonly string[]): Promise<void> {
  try {
    await homestead(args[0]).parseAsync(args, { from: "user" });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    if (process.env.HOMESTEAD_TRACE === "1" && error instanceof Error) {
      process.stderr.write(`${("trace" in error ? String(error.trace) : error.stack) ?? ""}\n`);
    }
    process.exitCode = 1;
  }
}
