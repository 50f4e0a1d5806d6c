/** `./try` where something went another way than planned: ended midway, its `.state` lost, its namespace deleted by hand. */
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import { parse } from "yaml";
import { Cluster } from "../support/cluster";
import { Project, succeeded } from "../support/project";
import type { Scenario } from "../support/scenario";
import { testImages, trial } from "./try";

export const tryAstray: Scenario = {
  name: "try-astray",
  what: "./try goes on after Ctrl-C, a lost .state and a namespace deleted by hand, and --destroy ends well each time",
  // Nobody has seen it pass yet.
  included: "by name",
  minutes: 20,
  limit: 50,
  async run(context) {
    const { environment, report } = context;
    const cluster = new Cluster(environment.home, environment);
    await report.step("an empty cluster", () => cluster.empty());
    const project = await Project.copy(environment, context.logs);
    const state = project.path(".state");
    const words = ["--yes", ...testImages(project, environment)];
    const start = async () => succeeded(await trial(context, project, words), "./try");
    const destroy = async () => succeeded(await trial(context, project, ["--yes", "--destroy"]), "./try --destroy");
    const byHand = () => cluster.kubectl(["delete", "namespace", "homestead", "--timeout=10m"], { seconds: 660 });
    const operators = async () =>
      (await cluster.list("deployments"))
        .filter(({ metadata }) => ["cert-manager", "cnpg-system"].includes(metadata.namespace ?? ""))
        .map(({ metadata }) => `${metadata.name} ${metadata.uid}`)
        .sort();

    await report.check("ended midway, it waits for Pulumi and says how to go on; and goes on", async () => {
      const by = ["timeout", "--preserve-status", "--signal=INT", "90"];
      const { code, output } = await trial(context, project, words, { by });
      assert.equal(code, 130);
      assert.match(output, /\nStopped before its end\. \.\/try goes on from there, with the same options[^\n]*\n$/);
      assert.match(output, /cancel/i);
      await start();
    });

    await report.check("the namespace deleted by hand, ./try makes it anew and --destroy ends", async () => {
      await byHand();
      assert.match((await start()).output, /^There is no namespace homestead on /m);
      await byHand();
      await destroy();
      assert.deepEqual(await operators(), []);
      assert.ok(!fs.existsSync(state));
    });

    let before: string[] = [];
    await report.check("without its .state it is refused in words, and put back it is as it was", async () => {
      await start();
      before = await operators();
      fs.renameSync(state, `${state}-away`);
      const refused = await trial(context, project, words);
      assert.equal(refused.code, 1);
      assert.match(refused.output, /has a trial in namespace 'homestead', and \.state knows of none/);
      fs.renameSync(`${state}-away`, state);
      assert.match((await start()).output, /^Resources:\n {4}\d+ unchanged$/m);
    });

    await report.check("the .state lost for good, the next trial uses the operators and leaves them", async () => {
      fs.rmSync(state, { recursive: true });
      await byHand();
      await start();
      const { config } = parse(project.read(".state/Pulumi.dev.yaml")) as { config: Record<string, unknown> };
      const existing = { certManager: "existing", cloudNativePg: "existing", barmanPlugin: "existing" };
      assert.deepEqual(config["homestead:operators"], existing);
      assert.match((await destroy()).output, /^Operators stay that another trial or site had installed/m);
      assert.deepEqual(await operators(), before);
      assert.equal(await cluster.get("namespace", "homestead"), undefined);
    });
    await report.step("an empty cluster", () => cluster.empty());
  },
};
