/**
 * A new version of Mastodon: a base backup first, no minor version skipped, a failed migration leaves the old version
 * serving, and a good upgrade loses no acknowledged post (issue 4, "Done means" 3).
 */
import * as assert from "node:assert/strict";
import { patientAudit } from "../support/audit";
import type { Audit } from "../support/audit";
import { differences } from "../support/cluster";
import type { Cluster } from "../support/cluster";
import { eventually } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import type { PulumiOutcome } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import type { SiteClient } from "../support/site";
import { handOnSite, sharedSite, takeSite } from "../support/shared";
import { backupPrefix } from "../../../lib/upgrade-backup";

const namespace = "homestead";

export const upgrade: Scenario = {
  name: "upgrade",
  what: "a new version of Mastodon loses no post, and a bad one changes nothing",
  place: "beside",
  minutes: 6,
  limit: 25,
  async run(context) {
    const { environment, report } = context;
    const { "mastodon-next": next, "mastodon-failing-migration": failing } = environment.images;
    if (next === undefined || failing === undefined) {
      report.skip("upgrade", "E2E_IMAGES has no mastodon-next and mastodon-failing-migration");
      return;
    }
    // Of those that are named, the one before may have upgraded its site already.
    const site = await (context.extent === "brief" ? takeSite(context) : sharedSite(context));
    const { project, cluster, client } = site;
    // Pods that an update before has replaced would be a change of their own.
    await eventually(120, "no pod is on its way out", async () => {
      const leaving = (await cluster.list("pods", namespace)).filter(({ metadata }) => metadata.deletionTimestamp);
      assert.deepEqual(
        leaving.map(({ metadata }) => metadata.name),
        [],
      );
    });
    const newAudit = () => patientAudit(client);
    const images = project.value("home", "images") as Record<string, string>;
    const running = images["mastodon"] ?? "";
    const withImages = async (change: Record<string, string>) =>
      project.changed(
        ["Pulumi.home.yaml"],
        () => project.set("home", "images", { ...images, ...change }),
        () => project.up("home"),
      );

    await report.check("the first version has its base backup", async () => {
      assert.equal(await backupPhase(cluster, running), "completed");
    });

    await report.check("an upgrade that skips a minor version is refused, and nothing changes", async () => {
      const before = await cluster.inventory();
      const outcome = await withImages({ mastodon: running.replace(/:v4\.6\.\d+$/, ":v4.8.0") });
      assert.notEqual(outcome.code, 0, "the update succeeded");
      assert.match(outcome.output, /homestead:images\.mastodon: .*v4\.8\.0/);
      assert.match(outcome.output, /a release of v4\.7 first: v4\.6\.\d+ runs, and no minor version may be skipped/);
      assert.deepEqual(differences(before, await cluster.inventory()), []);
    });

    await report.check(
      "a failed migration: the update fails, says why, and the old version serves throughout",
      async () => {
        const audit = newAudit();
        const outcome = await audit.during(() => withImages({ mastodon: failing }));
        assert.notEqual(outcome.code, 0, "the update succeeded");
        assert.match(
          outcome.output,
          /job mastodon-db-(pre-)?migrate failed; its last lines:/,
          diagnosis(outcome.output),
        );
        assert.match(
          outcome.output,
          /An error has occurred, this and all later migrations canceled/,
          diagnosis(outcome.output),
        );
        assert.deepEqual(await audit.lost(cluster), []);
        assert.deepEqual(audit.refused, [], "the old version refused posts");
        assert.ok(!(await webImage(cluster)).includes(failing));
        assert.equal(await backupPhase(cluster, failing), "completed");
      },
    );

    await failedAfterTheNewPods(context, { cluster, client }, newAudit(), running, withImages);

    const streaming = environment.images["mastodon-streaming-next"];
    const audit = newAudit();
    const before = await migrations(cluster);
    await report.check("a good upgrade, with posts five times a second: backup, migrations, new pods", async () => {
      const change = { mastodon: next, ...(streaming ? { "mastodon-streaming": streaming } : {}) };
      project.set("home", "images", { ...images, ...change });
      succeeded(await audit.during(() => project.up("home")), "pulumi up");
      assert.equal(await webImage(cluster), next);
      assert.equal(await backupPhase(cluster, next), "completed");
      assert.ok((await migrations(cluster)) > before, "no migration was run");
    });
    await report.check("no acknowledged post is lost", async () => {
      assert.ok(audit.acknowledged.length > 20, `only ${audit.acknowledged.length} posts were acknowledged`);
      assert.deepEqual(await audit.lost(cluster), []);
      console.log(`      ${audit.acknowledged.length} posts acknowledged, ${audit.refused.length} tries refused`);
    });
    await report.control(
      "the audit overlooks a post that is gone",
      async () => {
        const victim = audit.acknowledged[0]?.id;
        await cluster.sql(`delete from statuses where id = ${victim}`);
        assert.deepEqual(await audit.lost(cluster), []);
      },
      /\d{6,}/,
    );
    await report.check("the next preview shows no change", async () => {
      succeeded(await project.preview("home", ["--expect-no-changes"]), "preview");
    });
    if (context.extent === "brief" && report.broken.length === 0) await handOnSite(site);
  },
};

/**
 * The new version's pods had taken over when its last migrations failed, and Helm brings the old ones back: for a while it
 * is the new version that answers, and there is always one that does.
 */
async function failedAfterTheNewPods(
  { environment, report }: Context,
  { cluster, client }: { cluster: Cluster; client: SiteClient },
  audit: Audit,
  running: string,
  withImages: (change: Record<string, string>) => Promise<PulumiOutcome>,
): Promise<void> {
  const what =
    "a migration that fails after the new pods are there: one version answers all the while and the old one in the end, and no post is lost";
  const failing = environment.images["mastodon-failing-post-migration"];
  if (failing === undefined) return report.skip(what, "E2E_IMAGES has no mastodon-failing-post-migration");
  await report.check(what, async () => {
    const outcome = await audit.during(() => withImages({ mastodon: failing }));
    assert.notEqual(outcome.code, 0, "the update succeeded");
    assert.match(outcome.output, /job mastodon-db-migrate failed; its last lines:/, diagnosis(outcome.output));
    const sets = await cluster.list("replicasets", namespace);
    const web = sets.filter(({ metadata }) => metadata.name.startsWith("mastodon-web-"));
    assert.ok(JSON.stringify(web).includes(failing), "there were no new pods");
    assert.equal(await webImage(cluster), running);
    assert.deepEqual(await audit.lost(cluster), []);
    // There and back are two rolls, each of which may cost one request, and its 20 s; without a pod it would be minutes.
    assert.ok(audit.silence() < 60, audit.summary());
    await eventually(60, "only the old version's pods are left", async () => {
      const pods = (await cluster.pods(namespace)).filter(({ metadata }) => metadata.name.startsWith("mastodon-web-"));
      const left = pods.flatMap(({ spec }) => (spec as { containers: { image: string }[] }).containers);
      assert.deepEqual([...new Set(left.map(({ image }) => image))], [running]);
    });
    await client.post("after the failed upgrade");
  });
}

const migrations = async (cluster: Cluster): Promise<number> =>
  Number(await cluster.sql("select count(*) from schema_migrations"));

async function webImage(cluster: Cluster): Promise<string> {
  const web = await cluster.get("deployment", "mastodon-web", namespace);
  const containers = (web?.spec as { template: { spec: { containers: { image: string }[] } } }).template.spec
    .containers;
  return containers[0]?.image ?? "";
}

/** How the newest base backup before an image went; undefined if there was none. */
async function backupPhase(cluster: Cluster, image: string): Promise<unknown> {
  const all = (await cluster.list("backups.postgresql.cnpg.io", namespace))
    .filter(({ metadata }) => metadata.name.startsWith(`${backupPrefix("postgres-g1", image)}-`))
    // Their names end with the moment.
    .sort((a, b) => b.metadata.name.localeCompare(a.metadata.name));
  return all[0]?.status?.["phase"];
}
