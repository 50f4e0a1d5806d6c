/**
 * A new version of Postgres, as docs/runbooks/upgrade.md has it: a minor one restarts the database, a major one makes its
 * files anew in place and begins another archive (issue 4, "Deliver": upgrades).
 */
import * as assert from "node:assert/strict";
import * as path from "node:path";
import { patientAudit } from "../support/audit";
import type { Audit } from "../support/audit";
import { Cluster, differences } from "../support/cluster";
import { eventually, sleep, tail } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import type { Project, PulumiOutcome } from "../support/project";
import { oneLine } from "../support/report";
import type { Context, Scenario } from "../support/scenario";
import type { SiteClient } from "../support/site";
import { baseBackups, buckets, clientOf, keep, namesOf, prepare } from "../support/stack";
import type { ObjectServer } from "../support/vault";
import { blocksOf, runBlock } from "./by-hand";

const namespace = "homestead";
const runbook = "docs/runbooks/upgrade.md";

interface Server {
  context: Context;
  project: Project;
  cluster: Cluster;
  client: SiteClient;
  s3: ObjectServer;
}

export const postgresUpgrade: Scenario = {
  name: "postgres-upgrade",
  what: "a new minor and a new major version of Postgres lose no post, and the new archive restores",
  included: "by name",
  minutes: 14,
  limit: 60,
  async run(context) {
    const { environment, report } = context;
    const { "postgres-minor": minor, "postgres-major": major } = environment.images;
    if (minor === undefined) report.skip("a minor version", "E2E_IMAGES has no postgres-minor");
    if (major === undefined) report.skip("a major version", "E2E_IMAGES has no postgres-major");
    if (minor === undefined && major === undefined) return;
    const cluster = new Cluster(environment.home, environment);
    const { project, secrets, s3 } = await prepare(context, [environment.home]);
    await report.step("pulumi up, from nothing", async () => succeeded(await project.up("home"), "pulumi up"));
    const client = await clientOf(cluster, namesOf(environment.zone), secrets);
    const server: Server = { context, project, cluster, client, s3 };
    await report.step("posts, and the first base backup", async () => {
      for (let i = 0; i < 15; i++) await client.post(`post ${i}`);
      await newestBaseBackupIn(s3, "home-g1");
    });
    if (minor !== undefined) await minorVersion(server, minor);
    if (major !== undefined) {
      await refusedInTheSameArchive(server, major);
      await majorVersion(server, major);
      await newArchiveRestores(server);
    }
    await report.check("the next preview shows no change", async () => {
      succeeded(await project.preview("home", ["--expect-no-changes"]), "preview --expect-no-changes");
    });
  },
};

// ---------------------------------------------------------------- a minor version

async function minorVersion(server: Server, image: string): Promise<void> {
  const { context, project, cluster } = server;
  const { report } = context;
  const before = await majorOfServer(cluster);
  const audit = await upgraded(server, "another image of the same major version", image, () => project.up("home"));
  await report.check("the update ends with the database on the new image, of the same major version", async () => {
    assert.equal(await imageOf(cluster), image);
    assert.equal(await majorOfServer(cluster), before);
  });
  await nothingIsLost(server, audit);
}

// ---------------------------------------------------------------- a major version

async function refusedInTheSameArchive({ context, project, cluster }: Server, image: string): Promise<void> {
  await context.report.check(
    "control: another major version under the same generation is refused, and nothing changes",
    async () => {
      const before = await cluster.inventory();
      await project.changed(
        ["Pulumi.home.yaml"],
        () => setImage(project, image),
        async () => {
          // The preview first: an update that were let through would spoil all that comes after.
          for (const attempt of [() => project.preview("home"), () => project.up("home", { seconds: 300 })]) {
            const { code, output, log } = await attempt();
            assert.notEqual(code, 0, `it was let through: ${log}`);
            assert.match(output, /1 fault in the configuration of stack 'home'/, `${log}: ${diagnosis(output)}`);
            assert.match(output, /generations/, `${log}: ${diagnosis(output)}`);
          }
        },
      );
      assert.deepEqual(differences(before, await cluster.inventory()), []);
    },
  );
}

async function majorVersion(server: Server, image: string): Promise<void> {
  const { context, project, cluster, client, s3 } = server;
  const { report } = context;
  await report.check("before it: homestead drill home", async () => {
    succeeded(await project.homestead(["drill", "home"], { seconds: 900 }), "homestead drill");
  });
  const before = { major: await majorOfServer(cluster), rows: await rowsOf(cluster) };
  const archived = await s3.keys(buckets.vault, "pg/home-g1/");

  project.setShared("generations", { home: 2, vps: 1 });
  const audit = await upgraded(server, "the next major version, and generations.home 2", image, () =>
    watchingTheUpgrade(server, () => project.up("home", { seconds: 1500 })),
  );
  await report.check("the update ends with the same database, under the new major version", async () => {
    assert.equal(await imageOf(cluster), image);
    const after = await majorOfServer(cluster);
    assert.ok(after > before.major, `major version ${before.major} before, ${after} after`);
    const clusters = (await cluster.list("clusters.postgresql.cnpg.io", namespace)).map(
      ({ metadata }) => metadata.name,
    );
    assert.deepEqual(clusters, ["postgres-g1"]);
  });
  await report.check("all rows are there", async () => {
    const after = await rowsOf(cluster);
    for (const [table, count] of Object.entries(before.rows))
      assert.ok((after[table] ?? 0) >= count, `${table} had ${count} rows, and has ${after[table] ?? "none"}`);
  });
  await nothingIsLost(server, audit);
  await report.check("a new post is taken", async () => {
    const id = await client.post("after the upgrade");
    assert.equal(await cluster.sql(`SELECT count(*) FROM statuses WHERE id = ${id}`), "1");
  });
  await report.check("the old archive has all that it had", async () => {
    const there = new Set(await s3.keys(buckets.vault, "pg/home-g1/"));
    assert.deepEqual(
      archived.filter((key) => !there.has(key)),
      [],
    );
  });
}

/** What the runbook has done once the new version is there, and whether it is enough. */
async function newArchiveRestores({ context, project, s3 }: Server): Promise<void> {
  const { report } = context;
  await report.check("the runbook's commands after it: statistics, and a base backup in the new archive", async () => {
    assert.deepEqual(await baseBackups(s3, "home-g2"), [], "there was one already");
    await followRunbook(context, project, "ANALYZE");
    await followRunbook(context, project, "base-backup.yaml");
    await newestBaseBackupIn(s3, "home-g2");
  });
  await report.check("a drill on the new archive passes", async () => {
    const outcome = await project.homestead(["drill", "home", "--json"], { seconds: 900 });
    succeeded(outcome, "homestead drill");
    const { archive, failures } = JSON.parse(outcome.stdout) as { archive: string; failures: string[] };
    assert.deepEqual({ archive, failures }, { archive: "home-g2", failures: [] });
  });
  await report.check("homestead verify is content", async () => {
    succeeded(await project.homestead(["verify", "home", "--retry", "5"]), "homestead verify");
  });
}

/** Runs the one block of the runbook's section on Postgres in which a word stands. */
async function followRunbook({ environment, logs }: Context, project: Project, word: string): Promise<void> {
  const section = project.read(runbook).split("\n## Postgres\n")[1] ?? "";
  const [block, another] = blocksOf(section).filter(({ text }) => text.includes(word));
  assert.ok(block !== undefined && another === undefined, `${runbook}: not one block in which '${word}' stands`);
  await runBlock(runbook, block.text.replaceAll("--context home", `--context ${environment.home.context}`), {
    cwd: project.folder,
    env: { ...project.env, KUBECONFIG: environment.home.kubeconfig },
    seconds: 300,
    log: path.join(logs, "runbook.log"),
  });
}

// ---------------------------------------------------------------- both

const setImage = (project: Project, image: string): void =>
  project.set("home", "images", { ...(project.value("home", "images") as Record<string, string>), postgres: image });

/** Updates to an image while a client posts. @throws Error unless it succeeded: nothing after it could be told */
async function upgraded(
  { context: { report }, project, client }: Server,
  what: string,
  image: string,
  update: () => Promise<PulumiOutcome>,
): Promise<Audit> {
  const audit = patientAudit(client);
  setImage(project, image);
  const outcome = await report.step(`${what}, with posts five times a second: pulumi up`, () =>
    audit.during(async () => {
      await sleep(3000);
      const updated = await update();
      // The last silence has an end only with a post after it.
      const ended = Date.now();
      if (updated.code === 0)
        await eventually(120, "a post acknowledged after the update", () => {
          const last = audit.acknowledged.at(-1)?.at ?? 0;
          if (last < ended) throw new Error(`the last refusal: ${audit.refused.at(-1)?.why ?? "none"}`);
        });
      return updated;
    }),
  );
  const good = await report.check(`pulumi up: ${what}`, () => succeeded(outcome, "pulumi up"));
  if (!good) throw new Error(`without ${what} nothing else can be tried`);
  await report.check("the update verified the site", () =>
    assert.match(outcome.output, /verification-(command|job).*\b(created|updated|replaced)\b/),
  );
  return audit;
}

async function nothingIsLost({ context: { report }, cluster }: Server, audit: Audit): Promise<void> {
  await report.check("no acknowledged post is lost", async () => {
    assert.ok(audit.acknowledged.length > 20, `only ${audit.acknowledged.length} posts were acknowledged`);
    assert.deepEqual(await audit.lost(cluster), []);
    console.log(`      ${audit.summary()}`);
  });
}

/** Keeps what CloudNativePG's upgrade Job says: its pod is gone by the time anyone looks. */
async function watchingTheUpgrade(
  { context, cluster }: Server,
  work: () => Promise<PulumiOutcome>,
): Promise<PulumiOutcome> {
  const label = "cnpg.io/jobRole=major-upgrade";
  let going = true;
  let said = "";
  const watcher = (async () => {
    while (going) {
      await cluster
        .kubectl(["logs", "-n", namespace, "-l", label, "--all-containers", "--prefix", "--tail=200"])
        .then((text) => (said = text.trim() === "" ? said : text))
        .catch(() => undefined);
      await sleep(1000);
    }
  })();
  try {
    const outcome = await work();
    if (outcome.code !== 0)
      console.log(`      the upgrade Job's last lines: ${oneLine(tail(said, 12), 2500) || "none were seen"}`);
    return outcome;
  } finally {
    going = false;
    await watcher;
    keep(context, "major-upgrade.log", said);
  }
}

/** The image of the database's container. */
async function imageOf(cluster: Cluster): Promise<string> {
  const { containers } = (await cluster.primary()).spec as { containers: { name: string; image: string }[] };
  return containers.find(({ name }) => name === "postgres")?.image ?? "";
}

const majorOfServer = async (cluster: Cluster): Promise<number> =>
  Math.floor(Number(await cluster.sql("SHOW server_version_num")) / 10_000);

/** Rows of every table of Mastodon's, counted. */
async function rowsOf(cluster: Cluster): Promise<Record<string, number>> {
  const counted = await cluster.sql(
    `SELECT relname, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname), false, true, '')))[1]
       FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
  );
  return Object.fromEntries(
    counted
      .split("\n")
      .map((line) => line.split("|"))
      .map(([table = "", count]) => [table, Number(count)]),
  );
}

/** Waits for the newest one: the database is restarted next. */
async function newestBaseBackupIn(s3: ObjectServer, archive: string): Promise<void> {
  await eventually(240, `a base backup in ${archive}`, async () => {
    const newest = (await baseBackups(s3, archive)).at(-1);
    assert.ok(newest, "none");
    assert.match(await s3.get(buckets.vault, newest), /^status=DONE$/m);
  });
}
