/**
 * `./try`: from a clone to a running server on a cluster of yours, everything embedded, with state, passphrase and
 * secrets of its own in `.state`. It changes nothing that is committed.
 *
 * Ends with 0 also where it can only say what is missing and show the plan, and with 1 where something went wrong.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { createInterface } from "node:readline/promises";
import { spawnSync } from "node:child_process";
import { Command } from "commander";
import { createSharedSecrets } from "../lib/identity";
import { planStack, projectFolder } from "../lib/plan";
import { renderOutputs, renderTree } from "../lib/plan/render";
import { PulumiCli, onPath } from "../lib/pulumi-cli";
import { readStackConfig } from "../lib/stack-config";
import { Cluster, currentContext } from "../lib/try/cluster";
import type { Context } from "../lib/try/cluster";
import { foundValues, readOverrides, writeStackFile } from "../lib/try/configuration";
import { UserError } from "../lib/user-error";

interface Options {
  yes?: true;
  set: string[];
  config?: string;
  destroy?: true;
}

const stack = "dev";
/** The k3d cluster that is made where there is none; its context is `k3d-homestead`. */
const k3dCluster = "homestead";

/** Where a trial takes place. Tests give another folder, PATH and answers. */
export interface World {
  /** The clone; the trial's own things are in its `.state`. */
  folder: string;
  environment: NodeJS.ProcessEnv;
  say(this: void, line: string): void;
  /** The user's answer; "" if there is nobody to ask. */
  ask(this: void, question: string): Promise<string>;
}

export function tryCommand(world: World): Command {
  return new Command("./try")
    .description("a running server on a cluster of yours, everything embedded; state and secrets stay in .state")
    .option("-y, --yes", "do not ask whether the current context's cluster may be used")
    .option("--set <key=value>", "change the configuration (repeatable), such as --set blog.kind=image", collect, [])
    .option("--config <file>", "change the configuration by a YAML file of keys and values")
    .option("--destroy", "remove it all again")
    .addHelpText(
      "after",
      "\nEvery call starts from Pulumi.dev.yaml: give the same options again to keep them. Without a cluster or the\n" +
        "Pulumi CLI it says what is missing and shows the plan.",
    )
    .action((options: Options) => {
      const trial = new Trial(world);
      return options.destroy ? trial.destroy(options) : trial.start(options);
    });
}

const collect = (entry: string, all: string[]) => [...all, entry];

class Trial {
  private readonly state: string;
  private readonly stackFile: string;
  private readonly passphrase: string;
  /** Marks that the k3d cluster was made for this trial, and may go with it. */
  private readonly ownCluster: string;
  private readonly onStack: string[];

  constructor(private readonly world: World) {
    this.state = path.join(world.folder, ".state");
    this.stackFile = path.join(this.state, `Pulumi.${stack}.yaml`);
    this.passphrase = path.join(this.state, "passphrase");
    this.ownCluster = path.join(this.state, "k3d");
    this.onStack = ["--stack", stack, "--config-file", this.stackFile];
  }

  async start(options: Options): Promise<void> {
    const overrides = readOverrides(options.set, options.config);
    const missing: string[] = [];
    if (!(await this.pulumiRuns())) {
      missing.push("the Pulumi CLI: https://www.pulumi.com/docs/install/ (or npx, which can fetch it)");
    }
    const context = await this.findCluster();
    if (context === "none") {
      missing.push("a cluster: a kubectl context that answers, or Docker and k3d (https://k3d.io) to make one");
    }
    if (missing.length > 0 || context === "none") {
      await this.onlyPlan(missing);
      return;
    }
    const question =
      context === "k3d"
        ? `No kubectl context answers. Make a k3d cluster '${k3dCluster}' for it?`
        : `Use the cluster of your current context '${context.name}' (${context.server})? It gets the namespace homestead, and operators where they are missing.`;
    if (!(await this.agreed(question, options))) return;

    const chosen = context === "k3d" ? this.makeCluster() : context;
    const found = await new Cluster(chosen).look();
    const pulumi = this.prepareState();
    const committed = path.join(this.world.folder, `Pulumi.${stack}.yaml`);
    writeStackFile(this.stackFile, committed, [foundValues(chosen, found), overrides.values]);
    if (!(await pulumi.stacks()).includes(stack)) await pulumi.createStack(stack);
    await putSecrets(pulumi, overrides.secrets);

    this.world.say(
      `\nBringing it up on ${chosen.name}. The first time takes some minutes: operators, database, images.\n`,
    );
    const up = new PulumiCli(this.world.folder, this.environment());
    await up.show(["up", "--yes", "--skip-preview", ...this.onStack]);
    await this.tellAddresses(pulumi, up, found.address);
  }

  async destroy(options: Options): Promise<void> {
    if (!fs.existsSync(this.stackFile)) throw new UserError("nothing to remove: .state has no trial");
    const own = fs.existsSync(this.ownCluster);
    const config = this.configuration();
    const cluster = JSON.parse(config["homestead:cluster"] ?? "{}") as { context: string; kubeconfig: string };
    const namespace = config["homestead:namespace"] ?? "homestead";
    const what = own
      ? `the k3d cluster '${k3dCluster}'`
      : `the server on '${cluster.context}', its data and the namespace ${namespace}`;
    if (!(await this.agreed(`Remove ${what}, for good?`, options))) return;
    if (own) {
      if (this.spawn("k3d", ["cluster", "delete", k3dCluster]) !== 0) {
        throw new UserError(`k3d cluster delete ${k3dCluster} failed`);
      }
    } else {
      const pulumi = new PulumiCli(this.world.folder, this.environment());
      await pulumi.show(["destroy", "--yes", "--skip-preview", ...this.onStack]);
      // A destroy keeps what holds data, on purpose. A trial has nothing to keep.
      await new Cluster({ name: cluster.context, file: cluster.kubeconfig, server: "" }).deleteNamespace(namespace);
    }
    fs.rmSync(this.state, { recursive: true, force: true });
    this.world.say("It is gone.");
  }

  /** The CLI has to run, not only to be there: the npm launcher needs the network the first time. */
  private async pulumiRuns(): Promise<boolean> {
    try {
      await new PulumiCli(this.world.folder, this.world.environment).run(["version"]);
      return true;
    } catch {
      return false;
    }
  }

  private async findCluster(): Promise<Context | "k3d" | "none"> {
    const context = currentContext(this.world.environment);
    if (context && (await new Cluster(context).answers())) return context;
    const docker = onPath("docker", this.world.environment);
    const both = docker !== undefined && onPath("k3d", this.world.environment) !== undefined;
    return both && spawnSync(docker, ["info"], { env: this.world.environment }).status === 0 ? "k3d" : "none";
  }

  private async onlyPlan(missing: readonly string[]): Promise<void> {
    const plan = await planStack(stack, { folder: this.world.folder });
    this.world.say(`${renderTree(plan)}\n${renderOutputs(plan.outputs)}`);
    this.world.say("That is the plan; npx homestead plan dev writes it out. To bring it up, this is missing:");
    for (const what of missing) this.world.say(`  - ${what}`);
  }

  private async agreed(question: string, options: Options): Promise<boolean> {
    if (options.yes) return true;
    const answer = await this.world.ask(`${question} [y/N] `);
    if (/^y(es)?$/i.test(answer.trim())) return true;
    this.world.say("Nothing was done.");
    return false;
  }

  private makeCluster(): Context {
    const known = this.spawn("k3d", ["cluster", "get", k3dCluster], "ignore") === 0;
    // Ports 80 and 443 of this machine lead to Traefik: names under .localhost work in a browser as they are.
    const args = known
      ? ["cluster", "start", k3dCluster]
      : ["cluster", "create", k3dCluster, "--wait", "--port", "80:80@loadbalancer", "--port", "443:443@loadbalancer"];
    if (this.spawn("k3d", args) !== 0) throw new UserError(`k3d ${args.slice(0, 3).join(" ")} failed`);
    if (!known) {
      fs.mkdirSync(this.state, { recursive: true, mode: 0o700 });
      fs.writeFileSync(this.ownCluster, `${k3dCluster}\n`);
    }
    this.spawn(
      "k3d",
      ["kubeconfig", "merge", k3dCluster, "--kubeconfig-merge-default", "--kubeconfig-switch-context"],
      "ignore",
    );
    const context = currentContext(this.world.environment);
    if (context?.name === `k3d-${k3dCluster}`) return context;
    throw new UserError(
      `the k3d cluster is there, but not as the current context: kubectl config use-context k3d-${k3dCluster}`,
    );
  }

  /** The exit code of a program; null if it could not be started. */
  private spawn(program: string, args: readonly string[], stdio: "inherit" | "ignore" = "inherit"): number | null {
    const { environment } = this.world;
    return spawnSync(onPath(program, environment) ?? program, args, { env: environment, stdio }).status;
  }

  /** State, passphrase and a project file of its own: the CLI puts what it has to remember beside the latter. */
  private prepareState(): PulumiCli {
    fs.mkdirSync(this.state, { recursive: true, mode: 0o700 });
    if (!fs.existsSync(this.passphrase)) {
      fs.writeFileSync(this.passphrase, crypto.randomBytes(32).toString("hex"), { mode: 0o600 });
    }
    fs.writeFileSync(path.join(this.state, "Pulumi.yaml"), "name: homestead\nruntime: nodejs\n");
    return new PulumiCli(this.state, this.environment());
  }

  /** The user's own backend, passphrase and selected stack must have no say in this. */
  private environment(): NodeJS.ProcessEnv {
    const { PULUMI_CONFIG_PASSPHRASE: _, PULUMI_STACK: __, ...rest } = this.world.environment;
    return { ...rest, PULUMI_BACKEND_URL: `file://${this.state}`, PULUMI_CONFIG_PASSPHRASE_FILE: this.passphrase };
  }

  /** The trial's configuration, secrets by name only. */
  private configuration(): Record<string, string> {
    return readStackConfig(this.world.folder, stack, (key) => key, { configFile: this.stackFile }).config;
  }

  private async tellAddresses(pulumi: PulumiCli, up: PulumiCli, address: string): Promise<void> {
    const { say, folder } = this.world;
    const outputs = JSON.parse(
      await up.run(["stack", "output", "--json", "--show-secrets", "--stack", stack]),
    ) as Outputs;
    const secrets = await pulumi.config(stack, "clear");
    const hosts = outputs.records.map(({ name }) => name);
    const web = new URL(outputs.web).host;
    const authority = path.join(".state", "authority.pem");

    say("\nYour server is running.\n");
    say(`  handle    ${outputs.handle}`);
    say(`  web       ${outputs.web}`);
    say(`  blog      ${outputs.blog}`);
    say(`  log in    ${this.configuration()["homestead:ownerEmail"] ?? ""}`);
    say(`  password  ${secrets["homestead:ownerPassword"]?.value ?? ""}`);
    say("\nNo DNS leads to it. In /etc/hosts of a machine that reaches the cluster:\n");
    say(`  ${address} ${hosts.join(" ")}`);
    if (outputs.authority) {
      fs.writeFileSync(path.join(folder, authority), outputs.authority);
      say(`\nIts certificates are signed by an authority of its own, ${authority}: accept the browser's warning, or`);
      say("import that file, or");
      say(`\n  curl --cacert ${authority} --resolve ${web}:443:${address} ${outputs.web}/about`);
    }
    say("\nTo remove it all: ./try --destroy");
  }
}

interface Outputs {
  handle: string;
  web: string;
  blog: string;
  records: { name: string }[];
  /** PEM of the authority that signed the certificates; "" for one that the world knows. */
  authority?: string;
}

/** Throw-away secrets, made once a trial; the embedded object store's keys are the same for both buckets. */
async function putSecrets(pulumi: PulumiCli, given: Record<string, string>): Promise<void> {
  const there = await pulumi.config(stack, "hidden");
  const keys = {
    AccessKeyId: crypto.randomBytes(10).toString("hex"),
    SecretAccessKey: crypto.randomBytes(20).toString("hex"),
  };
  const made: Record<string, string> = { ...createSharedSecrets() };
  for (const [key, value] of Object.entries(keys)) made[`vault${key}`] = made[`media${key}`] = value;
  const missing = Object.entries(made).filter(([key]) => !(`homestead:${key}` in there) && !(key in given));
  for (const [key, value] of [...missing, ...Object.entries(given)]) {
    await pulumi.setSecret(stack, `homestead:${key}`, value);
  }
}

async function askUser(question: string): Promise<string> {
  const asking = createInterface({ input: process.stdin, output: process.stdout });
  // No more input is a no.
  const ended = new Promise<string>((resolve) => asking.once("close", () => resolve("")));
  const answer = await Promise.race([asking.question(question), ended]);
  asking.close();
  return answer;
}

async function main(args: readonly string[]): Promise<void> {
  const world: World = {
    folder: projectFolder,
    environment: process.env,
    say: (line) => process.stdout.write(`${line}\n`),
    ask: askUser,
  };
  try {
    await tryCommand(world).parseAsync(args, { from: "user" });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    if (process.env.HOMESTEAD_TRACE === "1") process.stderr.write(`${(error as Error).stack ?? ""}\n`);
    process.exitCode = 1;
  }
}

if (require.main === module) void main(process.argv.slice(2));
