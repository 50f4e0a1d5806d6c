/** `homestead plan`: what each stack would create, without CLI, cluster or credentials. */
import * as path from "node:path";
import { Command } from "commander";
import { planStack, projectFolder } from "../lib/plan";
import type { Plan } from "../lib/plan";
import { differences, readFolder, writeFolder } from "../lib/plan/golden";
import { renderFiles, renderOutputs, renderTree } from "../lib/plan/render";
import { stacksIn } from "../lib/stack-config";
import { UserError } from "../lib/user-error";

interface Options {
  check?: true;
  update?: true;
  configFile?: string;
}

export function planCommand(): Command {
  return new Command("plan")
    .description("show what a stack would create, and write its manifests to out/<site>/")
    .argument("[site]", "a stack: home, vps or dev (default: all of them)")
    .option("--check", "compare with test/golden/<site>/, print the differences, end with 1 if there are any")
    .option("--update", "write test/golden/<site>/ anew")
    .option("--config-file <file>", "use this file in place of Pulumi.<site>.yaml")
    .action(async (site: string | undefined, options: Options) => {
      if (options.configFile !== undefined && site === undefined) throw new UserError("--config-file needs a site");
      if (options.check && options.update) throw new UserError("either --check or --update");
      let same = true;
      for (const stack of site === undefined ? stacksIn(projectFolder) : [site]) {
        const plan = await planStack(stack, options.configFile === undefined ? {} : { configFile: options.configFile });
        if (plan.messages !== "") process.stderr.write(plan.messages);
        if (options.check) same = check(plan) && same;
        else if (options.update) update(plan);
        else show(plan);
      }
      if (!same) process.exitCode = 1;
    });
}

const goldenFolder = (site: string) => path.join("test", "golden", site);

function show(plan: Plan): void {
  const folder = path.join("out", plan.site);
  const files = renderFiles(plan);
  writeFolder(path.join(projectFolder, folder), files);
  process.stdout.write(`${renderTree(plan)}\n${renderOutputs(plan.outputs)}\n${files.size} files in ${folder}\n\n`);
}

function update(plan: Plan): void {
  const folder = goldenFolder(plan.site);
  const files = renderFiles(plan, "golden");
  writeFolder(path.join(projectFolder, folder), files);
  process.stdout.write(`${files.size} files in ${folder}\n`);
}

/** True if nothing differs. */
function check(plan: Plan): boolean {
  const folder = goldenFolder(plan.site);
  const found = differences(readFolder(path.join(projectFolder, folder)), renderFiles(plan, "golden"), folder);
  if (found === "") process.stdout.write(`${plan.site}: as in ${folder}\n`);
  else
    process.stdout.write(`${found}\n${plan.site}: differs from ${folder}; if that is what you mean: npm run golden\n`);
  return found === "";
}
