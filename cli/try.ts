/**
 * `./try`: from a clone to a running server on a cluster of yours, everything embedded, with state, passphrase and
 * secrets of its own in `.state`. It changes nothing that is committed.
 *
 * Ends with 0 also where it can only say what is missing and show the plan, and with 1 where something went wrong.
 */
import * as crypto from "node:crypto";
import { lookup } from "node:dns/promises";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { createInterface } from "node:readline/promises";
import type { ApiException } from "@kubernetes/client-node";
import { Command } from "commander";
import { parse as parseYaml } from "yaml";
import { Interrupted, interruptible } from "../lib/child";
import { satisfies } from "../lib/doctor/version";
import { createSharedSecrets } from "../lib/identity";
import { wordsOf } from "../lib/kube";
import { kubernetes } from "../lib/kubernetes";
import { planStack, projectFolder } from "../lib/plan";
import { renderOutputs, renderTree } from "../lib/plan/render";
import { PulumiCli, onPath } from "../lib/pulumi-cli";
import { readStackConfig } from "../lib/stack-config";
import { Cluster, currentContext } from "../lib/try/cluster";
import type { Context, FoundNamespace } from "../lib/try/cluster";
import { checkOverrides, foundValues, readOverrides, withStackFile, writeStackFile } from "../lib/try/configuration";
import type { Overrides } from "../lib/try/configuration";
import { K3d, k3dCluster, k3dContext } from "../lib/try/k3d";
import { trialEnvironment } from "../lib/try/mends";
import { remainsOf } from "../lib/try/remains";
import { TrialState } from "../lib/try/state";
import type { Place } from "../lib/try/state";
import { UserError } from "../lib/user-error";

interface Options {
  yes?: true;
  set: string[];
  config?: string;
  destroy?: true;
}

const stack = "dev";

/** Where a trial takes place. Tests give another folder, PATH and answers. */
export interface World {
  /** The clone; the trial's own things are in its `.state`. */
  folder: string;
  environment: NodeJS.ProcessEnv;
  say(this: void, line: string): void;
  /** The user's answer; undefined if there is nobody to ask. */
  ask(this: void, question: string): Promise<string | undefined>;
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
        "Pulumi CLI it shows the plan, says what is missing, and ends with 0.\n\n" +
        "--destroy leaves the custom resource definitions of the operators that the trial installed: with a definition\n" +
        "goes every object of its kind on the cluster, whoever made it. It ends with the command that removes them.",
    )
    .action(async (options: Options) => {
      const trial = new Trial(world);
      try {
        await (options.destroy ? trial.destroy(options) : trial.start(options));
      } catch (error) {
        throw error instanceof kubernetes().ApiException ? new UserError(refusalOf(error)) : error;
      }
    });
}

/** What the API server does not let us do, in its own words. */
function refusalOf(error: ApiException<unknown>): string {
  const { code } = error;
  const mend =
    code === 401
      ? "log in to the cluster anew, then the same again (kubectl get namespaces shows whether it takes you)"
      : code === 403
        ? "a trial needs the rights of cluster-admin; choose a context that has them (kubectl config use-context <context>)"
        : "then the same again";
  return `the cluster's API server: ${wordsOf(error)}; ${mend}`;
}

const collect = (entry: string, all: string[]) => [...all, entry];

class Trial {
  private readonly state: TrialState;
  private readonly k3d: K3d;
  private readonly onStack: string[];

  constructor(private readonly world: World) {
    this.state = new TrialState(world.folder, stack, world.environment);
    this.k3d = new K3d(this.state, world.environment);
    this.onStack = ["--stack", stack, "--config-file", this.state.stackFile];
  }

  async start(options: Options): Promise<void> {
    const overrides = readOverrides(options.set, options.config);
    await checkOverrides(this.world.folder, stack, overrides);
    const pulumi = await this.missingPulumi();
    const context = await this.findCluster();
    if (pulumi !== undefined || context === "none") {
      await this.onlyPlan(overrides, [
        ...(pulumi === undefined ? [] : [pulumi]),
        ...(context === "none" ? [this.missingCluster()] : []),
      ]);
      return;
    }
    const question = await this.questionOf(context, overrides.values);
    if (!(await this.agreed(question, options))) return;
    await interruptible(goOn.start, () => this.bringUp(context, overrides));
  }

  /** @throws UserError if nobody has to be asked, since the trial cannot be there */
  private async questionOf(context: Context | "k3d", overrides: Record<string, unknown>): Promise<string> {
    if (context === "k3d") {
      this.mayBeginOnK3d();
      return `No kubectl context answers. ${onK3d[this.k3d.found()]}?`;
    }
    const namespace = await this.mayBeginOn(new Cluster(context), context.name, overrides);
    return `Use the cluster of your current context '${context.name}' (${context.server})? It gets the namespace ${namespace}, and operators where they are missing.`;
  }

  private async bringUp(context: Context | "k3d", overrides: Overrides): Promise<void> {
    const chosen = context === "k3d" ? await this.k3d.start() : context;
    const cluster = new Cluster(chosen);
    const namespace = await this.mayBeginOn(cluster, chosen.name, overrides.values);
    const own = chosen.name === k3dContext && this.k3d.isOurs();
    // It may be as young as this call, or as the last one that found nothing on it.
    if (context === "k3d" || own) await cluster.settle(this.world.say);
    const ingress = overrides.values["homestead:ingress"] as { address?: string } | undefined;
    const found = await cluster.look(this.state.existingOperators(), ingress?.address);
    const again = this.state.exists;
    this.state.breakStaleLocks();
    const pulumi = this.state.prepare();
    const committed = path.join(this.world.folder, `Pulumi.${stack}.yaml`);
    writeStackFile(this.state.stackFile, committed, [foundValues(chosen, found), overrides.values]);
    if (!(await pulumi.stacks()).includes(stack)) await pulumi.createStack(stack);
    await putSecrets(pulumi, overrides.secrets);

    // What the state lists and the cluster has not got would not be made, and what depends on it would fail.
    const lost = again && (await cluster.namespace(namespace)) === undefined;
    if (lost) {
      this.world.say(
        `\nThere is no namespace ${namespace} on ${chosen.name}, though .state has a trial there: Pulumi looks at the ` +
          "cluster first, and makes what is missing.",
      );
    }
    this.world.say(
      `\nBringing it up on ${chosen.name}. The first time takes some minutes: operators, database, images.\n`,
    );
    const up = new PulumiCli(this.world.folder, {
      ...this.state.pulumiEnvironment(),
      ...trialEnvironment(overrides.origins),
    });
    const look = lost ? ["--refresh", "--run-program"] : [];
    await withWay(goOn.failed, up.show(["up", "--yes", "--skip-preview", ...look, ...this.onStack]));
    // Docker's own network cannot be reached from a Mac; the ports of this machine lead to the same Traefik.
    await this.tellAddresses(pulumi, up, own ? "127.0.0.1" : await ipOf(found.address));
  }

  async destroy(options: Options): Promise<void> {
    const own = this.k3d.isOurs();
    if (!this.state.exists && !own) throw await this.nothingToRemove();
    const place = this.state.exists ? this.state.place() : undefined;
    // Its own cluster goes whole; of somebody's cluster only what is the trial's for certain.
    const shared = place !== undefined && !(own && place.context === k3dContext);
    const cluster = shared ? await this.ownPlace(place) : undefined;
    const what = [
      ...(shared ? [`the server on '${place.context}', its data and the namespace ${place.namespace}`] : []),
      ...(own ? [`the k3d cluster '${k3dCluster}'`] : []),
    ].join(", and ");
    if (!(await this.agreed(`Remove ${what}, for good?`, options))) return;
    await interruptible(goOn.destroy, async () => {
      const remains = shared && cluster ? await this.removeFrom(cluster, place) : [];
      if (own) await this.k3d.delete();
      this.state.forget();
      this.world.say("It is gone.");
      for (const line of remains) this.world.say(line);
    });
  }

  /** @returns what to say of what stays */
  private async removeFrom(cluster: Cluster, { context, namespace }: Place): Promise<string[]> {
    const { say } = this.world;
    const operators = this.state.existingOperators() ?? {};
    say(
      `\nRemoving the server from '${context}', which takes some minutes: first what Pulumi has made, then the namespace ` +
        `${namespace} with the database and the other data, which Pulumi keeps.\n`,
    );
    this.state.breakStaleLocks();
    const there = await cluster.namespace(namespace);
    const wait = () => cluster.deleteNamespace(namespace, say);
    // With what somebody has deleted Pulumi would fail, or wait for it.
    if (there?.state === "ending") await wait();
    const refresh = there?.state === "there" ? [] : ["--refresh"];
    const pulumi = new PulumiCli(this.world.folder, this.state.pulumiEnvironment());
    await withWay(goOn.destroyFailed, pulumi.show(["destroy", "--yes", "--skip-preview", ...refresh, ...this.onStack]));
    // A destroy keeps what holds data, on purpose. A trial has nothing to keep.
    await wait();
    return remainsOf(context, await cluster.remains(operators));
  }

  /** What to say to whom has no `.state`: that there is nothing, unless the cluster knows better. */
  private async nothingToRemove(): Promise<UserError> {
    const nothing = "nothing to remove: .state has no trial";
    const context = currentContext(this.world.environment);
    if (context === undefined || context.server === "") return new UserError(nothing);
    const cluster = new Cluster(context);
    const namespace = this.committedNamespace();
    const lost = (await cluster.answers()) && (await cluster.namespace(namespace))?.owner === `site '${stack}'`;
    return new UserError(lost ? `${nothing}, but ${lostTrial(context.name, namespace)}` : nothing);
  }

  /** A trial that is on a k3d cluster, or on none yet. @throws UserError */
  private mayBeginOnK3d(): void {
    if (!this.state.exists) return;
    const { context } = this.state.place();
    if (context !== k3dContext) {
      throw new UserError(
        `the trial is on the cluster of context '${context}', which is not your current one or does not answer: ` +
          `kubectl config use-context ${context}, then ./try again; ${forget}`,
      );
    }
    if (this.k3d.isThere()) return;
    throw new UserError(
      `the k3d cluster '${k3dCluster}' that the trial was on is gone: ./try --destroy, which forgets it, then ./try again`,
    );
  }

  /**
   * Asked before anything is written: what `./try` begins, `./try --destroy` ends.
   *
   * @returns the trial's namespace. @throws UserError
   */
  private async mayBeginOn(cluster: Cluster, context: string, overrides: Record<string, unknown>): Promise<string> {
    const chosen = overrides["homestead:namespace"];
    const namespace = typeof chosen === "string" ? chosen : this.committedNamespace();
    const elsewhere = "choose another cluster (kubectl config use-context <context>), then ./try again";
    if (this.state.exists) {
      const place = this.state.place();
      if (place.uid !== undefined) {
        const there = `kubectl config use-context ${place.context}, then ./try again; or ./try --destroy, which removes it there`;
        await refuseOther(cluster, context, place, context === place.context ? "./try --destroy first" : there);
      }
      if (place.namespace !== namespace) {
        throw new UserError(
          `the trial is in namespace '${place.namespace}', and cannot move to '${namespace}': ` +
            `./try --set namespace=${place.namespace}, or ./try --destroy first`,
        );
      }
    }
    const found = await cluster.namespace(namespace);
    refuseForeign(found, context, namespace, elsewhere);
    if (found?.state === "ending") {
      throw new UserError(
        `namespace '${namespace}' of context '${context}' is being deleted: ` +
          `kubectl --context ${context} wait --for=delete namespace/${namespace} --timeout=10m, then ./try again`,
      );
    }
    if (found !== undefined && !this.state.exists)
      throw new UserError(`${lostTrial(context, namespace)}; then ./try again`);
    return namespace;
  }

  /** The namespace of a trial whose options name none. */
  private committedNamespace(): string {
    return readStackConfig(this.world.folder, stack, (key) => key).config["homestead:namespace"] ?? "homestead";
  }

  /** The cluster that the trial is on. @throws UserError if it is another one by now, or the namespace is not ours */
  private async ownPlace(place: Place): Promise<Cluster> {
    const { context, kubeconfig, uid, namespace } = place;
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
    await refuseOther(cluster, context, place, "let it lead there again, then ./try --destroy");
    const mend = "to forget the trial and remove nothing, rm -r .state";
    refuseForeign(await cluster.namespace(namespace), context, namespace, mend);
    return cluster;
  }

  /** The CLI has to run, not only to be there: the npm launcher needs the network the first time. */
  private async missingPulumi(): Promise<string | undefined> {
    const { environment, folder, say } = this.world;
    const where = "https://www.pulumi.com/docs/install/";
    if (onPath("pulumi", environment) === undefined && onPath("npx", environment) !== undefined) {
      say("There is no pulumi on the PATH: npx gets one, which takes a while the first time.");
    }
    let version: string;
    try {
      version = (await new PulumiCli(folder, environment).run(["version"])).trim();
    } catch {
      return `the Pulumi CLI: ${where} (or npx, which can fetch it)`;
    }
    const { requiredPulumiVersion: required } = parseYaml(
      fs.readFileSync(path.join(folder, "Pulumi.yaml"), "utf8"),
    ) as { requiredPulumiVersion: string };
    return satisfies(version, required) ? undefined : `a Pulumi CLI ${required}, and this one is ${version}: ${where}`;
  }

  private async findCluster(): Promise<Context | "k3d" | "none"> {
    const context = currentContext(this.world.environment);
    if (context && context.server !== "" && (await new Cluster(context).answers())) return context;
    return this.k3d.works() ? "k3d" : "none";
  }

  private missingCluster(): string {
    const current = currentContext(this.world.environment);
    const silent = current === undefined ? "" : ` (your current one, '${current.name}'${whySilent(current)})`;
    return `a cluster: a kubectl context that answers${silent}, or Docker and k3d (https://k3d.io) to make one`;
  }

  private async onlyPlan(overrides: Overrides, missing: readonly string[]): Promise<void> {
    const { folder, say } = this.world;
    const plan = await withStackFile(folder, stack, overrides, (configFile) =>
      planStack(stack, { folder, configFile }),
    );
    say(`${renderTree(plan)}\n${renderOutputs(plan.outputs)}`);
    say("That is the plan; npx homestead plan dev writes it out. To bring it up, this is missing:");
    for (const what of missing) say(`  - ${what}`);
  }

  /** @throws UserError if there is nobody who could answer */
  private async agreed(question: string, options: Options): Promise<boolean> {
    if (options.yes) return true;
    const answer = await this.world.ask(`${question} [y/N] `);
    if (answer === undefined)
      throw new UserError("nothing was done, since nobody answers here: --yes says it beforehand");
    if (/^y(es)?$/i.test(answer.trim())) return true;
    this.world.say("Nothing was done.");
    return false;
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
    say(`  log in    ${this.state.configuration()["homestead:ownerEmail"] ?? ""}`);
    say(`  password  ${secrets["homestead:ownerPassword"]?.value ?? ""}`);
    say("\nNo DNS leads to it. In /etc/hosts of a machine that reaches the cluster:\n");
    say(`  ${address} ${hosts.join(" ")}`);
    if (outputs.authority) {
      fs.writeFileSync(path.join(folder, authority), outputs.authority);
      say(`\nIts certificates are signed by an authority of its own, ${authority}: accept the browser's warning, or`);
      say("import that file, or");
      // Answered with or without a page for people, which the tests' stand-in has not.
      const at = net.isIPv6(address) ? `[${address}]` : address;
      say(`\n  curl --cacert ${authority} --resolve ${web}:443:${at} ${outputs.web}/api/v2/instance`);
    }
    say("\nTo remove it all: ./try --destroy");
  }
}

/** Why a context is none that answers. */
const whySilent = ({ server, file }: Context): string =>
  server === ""
    ? `, names a cluster that is not in ${file}: kubectl config use-context <context>`
    : ` at ${server}, does not`;

/** What is done with the k3d cluster, by what is there of it. */
const onK3d = {
  missing: `Make a k3d cluster '${k3dCluster}' for it`,
  there: `Start and use the k3d cluster '${k3dCluster}' for it`,
  "half-made": `Delete and make anew the k3d cluster '${k3dCluster}', which an earlier call left half-made`,
};

/** What is said to whom it was ended for, or has failed. */
const goOn = {
  start:
    "Stopped before its end. ./try goes on from there, with the same options; ./try --destroy removes what there is.",
  destroy: "Stopped before its end. ./try --destroy goes on from there.",
  failed: "./try again goes on from there, and ./try --destroy removes what there is",
  destroyFailed: "./try --destroy again goes on from there",
};

const forget = "if that cluster is gone for good: rm -r .state";

/** Some work of Pulumi's, whose own words do not say what comes next. @throws UserError that does */
async function withWay(way: string, work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof UserError) || error instanceof Interrupted) throw error;
    throw new UserError(`${error.message}; ${way}`);
  }
}

/** A trial on a cluster, whose `.state` is not here. */
const lostTrial = (context: string, namespace: string): string =>
  `the cluster of context '${context}' has a trial in namespace '${namespace}', and .state knows of none: put that .state ` +
  `back, or remove the server with its data: ` +
  (context === k3dContext
    ? `k3d cluster delete ${k3dCluster}`
    : `kubectl --context ${context} delete namespace ${namespace}`);

/** A context's name is not its cluster. @throws UserError */
async function refuseOther(cluster: Cluster, context: string, place: Place, mend: string): Promise<void> {
  const now = await cluster.uid();
  if (now === place.uid) return;
  throw new UserError(
    context === place.context
      ? `context '${context}' leads to cluster ${now}, and the trial is on ${place.uid}: ${mend}; ${forget}`
      : `the trial is on the cluster of context '${place.context}', and your current context '${context}' leads to another: ${mend}; ${forget}`,
  );
}

/** Another stack's namespace says so, as `up` itself asks (lib/checks.ts). @throws UserError */
function refuseForeign(found: FoundNamespace | undefined, context: string, namespace: string, mend: string): void {
  if (found === undefined || found.owner === `site '${stack}'`) return;
  throw new UserError(
    `namespace '${namespace}' of context '${context}' belongs to ${found.owner}, and a trial ends with its deletion: ${mend}`,
  );
}

/** What /etc/hosts and curl want; a cloud's load balancer has a name. */
async function ipOf(address: string): Promise<string> {
  if (net.isIP(address) !== 0) return address;
  return lookup(address).then(
    (found) => found.address,
    () => `<the IP address of ${address}>`,
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

/** They fit each other: where an earlier call was ended between them, all are made anew. Nothing was made with them yet. */
const together = [
  ["vapidPrivateKey", "vapidPublicKey"],
  ["vaultAccessKeyId", "mediaAccessKeyId", "vaultSecretAccessKey", "mediaSecretAccessKey"],
];

/** Throw-away secrets, made once a trial; the embedded object store's keys are the same for both buckets. */
async function putSecrets(pulumi: PulumiCli, given: Record<string, string>): Promise<void> {
  const there = await pulumi.config(stack, "hidden");
  const keys = {
    AccessKeyId: crypto.randomBytes(10).toString("hex"),
    SecretAccessKey: crypto.randomBytes(20).toString("hex"),
  };
  const made: Record<string, string> = { ...createSharedSecrets() };
  for (const [key, value] of Object.entries(keys)) made[`vault${key}`] = made[`media${key}`] = value;
  const isMissing = (key: string) =>
    (together.find((keys) => keys.includes(key)) ?? [key]).some((one) => !(`homestead:${one}` in there));
  const missing = Object.entries(made).filter(([key]) => isMissing(key) && !(key in given));
  for (const [key, value] of [...missing, ...Object.entries(given)]) {
    await pulumi.setSecret(stack, `homestead:${key}`, value);
  }
}

async function askUser(question: string): Promise<string | undefined> {
  const asking = createInterface({ input: process.stdin, output: process.stdout });
  // At a terminal it is a key like any other, until somebody listens.
  asking.once("SIGINT", () => {
    process.stdout.write("\n");
    process.exit(130);
  });
  const ended = new Promise<undefined>((resolve) => asking.once("close", () => resolve(undefined)));
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
    process.exitCode = error instanceof Interrupted ? error.exitCode : 1;
  }
}

if (require.main === module) void main(process.argv.slice(2));
