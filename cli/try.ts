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
const k3dContext = `k3d-${k3dCluster}`;

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
        "Pulumi CLI it shows the plan, says what is missing, and ends with 0.",
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
      const current = currentContext(this.world.environment);
      const silent =
        current === undefined ? "" : ` (your current one, '${current.name}' at ${current.server}, does not)`;
      missing.push(
        `a cluster: a kubectl context that answers${silent}, or Docker and k3d (https://k3d.io) to make one`,
      );
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
    const cluster = new Cluster(chosen);
    const found = await cluster.look();
    await this.mayBeginOn(cluster, chosen.name, overrides.values);
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
    // Docker's own network cannot be reached from a Mac; the ports of this machine lead to the same Traefik.
    const own = chosen.name === k3dContext && fs.existsSync(this.ownCluster);
    await this.tellAddresses(pulumi, up, own ? "127.0.0.1" : found.address);
  }

  async destroy(options: Options): Promise<void> {
    if (!fs.existsSync(this.stackFile)) throw new UserError("nothing to remove: .state has no trial");
    const own = fs.existsSync(this.ownCluster);
    const { context, namespace } = this.place();
    // Its own cluster goes whole; of somebody's cluster only what is the trial's for certain.
    const cluster = own ? undefined : await this.ownPlace();
    const what = own
      ? `the k3d cluster '${k3dCluster}'`
      : `the server on '${context}', its data and the namespace ${namespace}`;
    if (!(await this.agreed(`Remove ${what}, for good?`, options))) return;
    if (cluster === undefined) {
      if (this.spawn("k3d", ["cluster", "delete", k3dCluster]) !== 0) {
        throw new UserError(`k3d cluster delete ${k3dCluster} failed`);
      }
    } else {
      const pulumi = new PulumiCli(this.world.folder, this.environment());
      await pulumi.show(["destroy", "--yes", "--skip-preview", ...this.onStack]);
      // A destroy keeps what holds data, on purpose. A trial has nothing to keep.
      await cluster.deleteNamespace(namespace);
    }
    fs.rmSync(this.state, { recursive: true, force: true });
    this.world.say("It is gone.");
  }

  /** Asked before anything is written: what `./try` begins, `./try --destroy` ends. @throws UserError */
  private async mayBeginOn(cluster: Cluster, context: string, overrides: Record<string, unknown>): Promise<void> {
    const committed = readStackConfig(this.world.folder, stack, (key) => key).config["homestead:namespace"];
    const chosen = overrides["homestead:namespace"];
    const namespace = typeof chosen === "string" ? chosen : (committed ?? "homestead");
    const elsewhere = "choose another cluster (kubectl config use-context <context>), then ./try again";
    await refuseForeign(cluster, context, namespace, elsewhere);
    if (!fs.existsSync(this.stackFile)) return;
    const { uid } = this.place();
    if (uid !== undefined) await refuseOther(cluster, context, uid, "./try --destroy first");
  }

  /** The cluster that the trial is on. @throws UserError if it is another one by now, or the namespace is not ours */
  private async ownPlace(): Promise<Cluster> {
    const { context, kubeconfig, uid, namespace } = this.place();
    if (uid === undefined) {
      throw new UserError(
        `.state/Pulumi.${stack}.yaml does not say which cluster the trial is on: ./try once more, which writes it ` +
          `down, then ./try --destroy; ${forget}`,
      );
    }
    let cluster: Cluster;
    try {
      cluster = new Cluster({ name: context, file: kubeconfig, server: "" });
      if (!(await cluster.answers())) throw new Error(`context '${context}' does not answer`);
    } catch (error) {
      const says = error instanceof Error ? error.message : String(error);
      throw new UserError(`${says}: mend that, then ./try --destroy again; ${forget}`);
    }
    await refuseOther(cluster, context, uid, "let it lead there again, then ./try --destroy");
    await refuseForeign(cluster, context, namespace, "to forget the trial and remove nothing, rm -r .state");
    return cluster;
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
    if (context?.name === k3dContext) return context;
    throw new UserError(
      `the k3d cluster is there, but not as the current context: kubectl config use-context ${k3dContext}`,
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

  /** Where the trial is, as {@link start} wrote it down. */
  private place(): { context: string; kubeconfig: string; uid?: string; namespace: string } {
    const config = this.configuration();
    const cluster = JSON.parse(config["homestead:cluster"] ?? "{}") as {
      context: string;
      kubeconfig: string;
      uid?: string;
    };
    return { ...cluster, namespace: config["homestead:namespace"] ?? "homestead" };
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
      // Answered with or without a page for people, which the tests' stand-in has not.
      say(`\n  curl --cacert ${authority} --resolve ${web}:443:${address} ${outputs.web}/api/v2/instance`);
    }
    say("\nTo remove it all: ./try --destroy");
  }
}

const forget = "if that cluster is gone for good: rm -r .state";

/** A context's name is not its cluster. @throws UserError */
async function refuseOther(cluster: Cluster, context: string, uid: string, mend: string): Promise<void> {
  const now = await cluster.uid();
  if (now === uid) return;
  throw new UserError(`context '${context}' leads to cluster ${now}, and the trial is on ${uid}: ${mend}; ${forget}`);
}

/** Another stack's namespace says so, as `up` itself asks (lib/checks.ts). @throws UserError */
async function refuseForeign(cluster: Cluster, context: string, namespace: string, mend: string): Promise<void> {
  const owner = await cluster.ownerOf(namespace);
  if (owner === "nobody" || owner === `site '${stack}'`) return;
  throw new UserError(
    `namespace '${namespace}' of context '${context}' belongs to ${owner}, and a trial ends with its deletion: ${mend}`,
  );
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
