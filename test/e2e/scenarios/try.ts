/**
 * The README's first command: from a copy of the project and a kubectl context to a server that its owner logs in to,
 * and back (issue 3, `./try`).
 */
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { Cluster } from "../support/cluster";
import type { Environment } from "../support/environment";
import { run } from "../support/processes";
import { Project, succeeded } from "../support/project";
import type { PulumiOutcome } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { SiteClient, tokenFromRails } from "../support/site";

export const tryIt: Scenario = {
  name: "try",
  what: "./try takes a cluster to a running server with everything embedded, and --destroy takes it away again",
  place: "either",
  minutes: 5,
  limit: 25,
  async run(context) {
    const { environment, report } = context;
    const cluster = new Cluster(environment.home, environment);
    await report.step("an empty cluster", () => cluster.empty());
    const project = await Project.copy(environment, context.logs);
    const committed = fs.readFileSync(project.path("Pulumi.dev.yaml"), "utf8");
    const state = project.path(".state");
    const before = await cluster.inventory();

    await report.check("without a cluster it says what is missing, shows the plan, and makes nothing", async () => {
      const outcome = succeeded(await trial(context, project, ["--yes"], { kubeconfig: "/nonexistent" }), "./try");
      assert.match(outcome.output, /this is missing:\n {2}- a cluster/);
      assert.match(outcome.output, /mastodon/i);
      assert.ok(!fs.existsSync(state));
    });

    const words = ["--yes", ...testImages(project, environment)];
    const up = await report.step("./try --yes, on an empty cluster", () => trial(context, project, words));
    if (!(await report.check("it ends with a running server", () => succeeded(up, "./try")))) return;
    const client = ownerOf(project, cluster, up.output);
    await report.check("the owner logs in with the password that it printed, and is Owner", async () => {
      const account = await client.api("/api/v1/accounts/verify_credentials");
      assert.equal((account["role"] as { name?: string } | undefined)?.name, "Owner");
    });
    await report.check("WebFinger at the apex leads to the web host, and the blog answers", async () => {
      const { apex, webHost, owner } = client.names;
      const answer = await client.apex(`/.well-known/webfinger?resource=acct:${owner}@${apex}`);
      assert.equal(answer.status, 301);
      assert.equal(new URL(String(answer.headers["location"])).host, webHost);
      assert.equal((await client.apex("/")).status, 200);
    });
    await report.check("the request that it prints is answered", async () => {
      const printed = /^ {2}curl --cacert \S+ --resolve \S+ https:\/\/([^/]+)(\/\S+)$/m.exec(up.output);
      assert.equal(printed?.[1], client.names.webHost);
      assert.equal((await client.request(printed[2] ?? "")).status, 200);
    });
    await report.check("a second ./try changes nothing", async () => {
      const outcome = succeeded(await trial(context, project, words), "./try");
      assert.match(outcome.output, /^Resources:\n {4}\d+ unchanged$/m);
    });
    await report.check("the committed stack file is as it was", () =>
      assert.equal(fs.readFileSync(project.path("Pulumi.dev.yaml"), "utf8"), committed),
    );
    let removed = "";
    await report.check("./try --destroy leaves no namespace, no volume and no state", async () => {
      const outcome = succeeded(await trial(context, project, ["--yes", "--destroy"]), "./try --destroy");
      removed = outcome.output;
      assert.match(removed, /^Removing the server from \S+, which takes some minutes/m);
      assert.equal(await cluster.get("namespace", "homestead"), undefined);
      const claimed = (await cluster.list("persistentvolumes")).map(({ spec }) => spec?.["claimRef"]);
      assert.deepEqual(
        claimed.filter((claim) => (claim as { namespace?: string }).namespace === "homestead"),
        [],
      );
      assert.ok(!fs.existsSync(state));
    });
    await report.check("the command that it ends with takes the operators' definitions away", async () => {
      const names = / delete crd (.+)\n$/.exec(removed)?.[1]?.split(" ") ?? [];
      assert.ok(names.length > 0, "it ends with no such command");
      await cluster.kubectl(["delete", "crd", ...names]);
      const left = (await cluster.list("customresourcedefinitions")).map(({ metadata }) => metadata.name);
      assert.deepEqual(
        left.filter((name) => /\.(cert-manager\.io|cnpg\.io)$/.test(name)),
        [],
      );
    });
    await report.check("what was in the cluster before is there still", async () => {
      const after = await cluster.inventory();
      assert.deepEqual(
        [...before.keys()].filter((name) => !after.has(name)),
        [],
      );
    });
  },
};

/** Images and charts of the tests, where the published ones cannot be pulled, as options. */
export function testImages(project: Project, environment: Environment): string[] {
  project.bind({ ...environment.home, name: "vps" }, { vault: "vault", media: "media" });
  const { images, charts } = valuesOf(project, "vps");
  const overrides = path.join(project.root, "overrides.yaml");
  fs.writeFileSync(overrides, stringify({ ...(images ? { images } : {}), ...(charts ? { charts } : {}) }));
  return ["--config", overrides];
}

/** `./try`, as somebody at a terminal runs it: with a current context, and nothing of Pulumi's set. */
export async function trial(
  { environment, logs }: Context,
  project: Project,
  words: readonly string[],
  { kubeconfig = environment.home.kubeconfig, by = [] }: { kubeconfig?: string; by?: readonly string[] } = {},
): Promise<PulumiOutcome> {
  const log = path.join(logs, "try.log");
  const env = { ...environment.childEnv, KUBECONFIG: kubeconfig, PULUMI_HOME: path.join(project.root, "pulumi-home") };
  const [program = "", ...args] = [...by, "bash", "./try", ...words];
  return { ...(await run(program, args, { cwd: project.folder, env, seconds: 1200, log })), log };
}

const valuesOf = (project: Project, site: "vps"): { images?: object; charts?: object } => {
  const { config } = parse(project.read(`Pulumi.${site}.yaml`)) as { config: Record<string, object | undefined> };
  return { images: config["homestead:images"], charts: config["homestead:charts"] };
};

/** The owner, by what `./try` printed at its end. @throws Error if it printed no such line */
function ownerOf(project: Project, cluster: Cluster, output: string): SiteClient {
  const printed = (name: string): string => {
    const value = new RegExp(`^ {2}${name} +(\\S+)$`, "m").exec(output)?.[1];
    if (value === undefined) throw new Error(`./try printed no ${name}`);
    return value;
  };
  const [, owner = "", apex = ""] = printed("handle").split("@");
  const names = { apex, webHost: new URL(printed("web")).host, owner, ownerEmail: printed("log in") };
  const ca = fs.readFileSync(project.path(".state/authority.pem"), "utf8");
  return new SiteClient(names, { address: cluster.access.address, ca }, printed("password"), () =>
    tokenFromRails(cluster, owner),
  );
}
