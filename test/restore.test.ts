/** What the program wants of a database that begins from an archive. */
import { describe, expect, it } from "vitest";
import { planStack } from "../lib/plan";
import type { Plan } from "../lib/plan";
import { copyProject } from "./support/folders";
import { named, ofType, plannedStack } from "./support/planned";
import { images } from "../versions";

const raised = { "Pulumi.yaml": (text: string) => text.replace(/^(\s+)home: 1$/m, "$1home: 2") };
const plan = (edit: Parameters<typeof copyProject>[0]): Promise<Plan> =>
  planStack("home", { folder: copyProject(edit) });
/** With a raised generation and nothing else, made once. */
let alone: Promise<Plan> | undefined;
const raisedPlan = () => (alone ??= plan(raised));
const inputsOf = (of: Plan, name: string) => named(of, name).inputs as Record<string, Record<string, unknown>>;

describe("home with a raised generation", () => {
  it("recovers from its last archive, and writes one of its own", async () => {
    const { spec } = inputsOf(await raisedPlan(), "postgres-cluster");
    expect(spec?.bootstrap).toMatchObject({ recovery: { source: "home-g1", database: "mastodon", owner: "mastodon" } });
    expect(spec?.plugins).toMatchObject([{ parameters: { serverName: "home-g2" } }]);
    expect(spec?.bootstrap).not.toHaveProperty("initdb");
  }, 60_000);

  it("builds the home feeds once, and verifies the site again", async () => {
    const restored = await raisedPlan();
    const job = named(restored, "feeds-job-g2-e1");
    expect(job.options.ignoreChanges).toEqual(["spec"]);
    expect(job.inputs).toMatchObject({
      metadata: { name: "mastodon-feeds-g2-e1" },
      spec: { template: { spec: { containers: [{ command: ["bin/tootctl", "feeds", "build"] }] } } },
    });
    const triggers = (of: Plan) => named(of, "verification-command").inputs as { triggers: string[] };
    expect(triggers(restored).triggers.at(-1)).toBe("epoch 1, generation 2");
    expect(triggers(plannedStack("home")).triggers.at(-1)).toBe("epoch 1, generation 1");
    expect(triggers(plannedStack("home")).triggers).toContain(images.postgres);
  }, 60_000);
});

describe("home that goes back to an earlier moment", () => {
  it("says so to the keeper: the queues' snapshot knows of the future", async () => {
    const moment = {
      "Pulumi.home.yaml": (text: string) => `${text}  homestead:restore: { to: 2026-11-22T10:00:00Z }\n`,
    };
    const told = (of: Plan) => JSON.stringify(inputsOf(of, "valkey-queue")["spec"]);
    const restored = told(await plan({ ...raised, ...moment }));
    expect(restored).toContain('{"name":"RESTORED_TO","value":"2026-11-22T10:00:00Z"}');
    expect(restored).toContain('{"name":"GENERATION","value":"2"}');
    expect(told(await raisedPlan())).not.toContain("RESTORED_TO");
  }, 60_000);

  it("is the same database after a major version of Postgres, in place, which raises the site's generation", async () => {
    const upgraded = {
      ...raised,
      "lib/checks.ts": (text: string) =>
        text
          .replace("const databaseName = clusterName(settings.generation);", 'const databaseName = "postgres-g1";')
          .replace("const moment = restoredTo(undefined, settings);", 'const moment = "2026-11-22T10:00:00Z";'),
    };
    const told = JSON.stringify(inputsOf(await plan(upgraded), "valkey-queue")["spec"]);
    expect(told).toContain('{"name":"RESTORED_TO","value":"2026-11-22T10:00:00Z"},{"name":"GENERATION","value":"1"}');
  }, 60_000);
});

describe("a database that began with initdb", () => {
  it("has no feeds to build", () => {
    expect(ofType(plannedStack("home"), "Feeds")).toEqual([]);
  });
});

describe("the beginning in the state", () => {
  it("stays as it was while the database is there", () => {
    expect(named(plannedStack("home"), "postgres-cluster").options.ignoreChanges).toEqual(["spec.bootstrap"]);
  });

  it("is not believed where the database is missing: it would be an empty one in place of a restore", async () => {
    const missing = {
      ...raised,
      "lib/checks.ts": (text: string) => text.replace(' database: "there",', ' database: "missing",'),
    };
    expect(named(await plan(missing), "postgres-cluster").options.ignoreChanges).toEqual([]);
  }, 60_000);
});
