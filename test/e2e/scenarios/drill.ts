/**
 * The restore drill passes on a good backup, and fails on each thing that would make a restore worthless (issue 4,
 * "Done means" 2).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import type { Cluster } from "../support/cluster";
import { eventually, run } from "../support/processes";
import type { Project } from "../support/project";
import type { Scenario } from "../support/scenario";
import type { SiteClient } from "../support/site";
import { sharedSite } from "../support/shared";
import { buckets } from "../support/stack";

const namespace = "homestead-drill";

export const drill: Scenario = {
  name: "drill",
  what: "the restore drill passes on a good backup and fails on a bad one",
  minutes: 10,
  limit: 40,
  async run(context) {
    const { report } = context;
    const { project, s3, cluster, client } = await sharedSite(context);
    await report.step("posts, uploads, and a base backup after them", async () => {
      for (let i = 0; i < 15; i++) await client.post(`post ${i}`, i < 2 ? { media_ids: [await uploaded(client)] } : {});
      await baseBackup(cluster);
    });
    const once = async () => {
      const outcome = await project.homestead(["drill", "home", "--json"], { seconds: 900 });
      assert.equal((await cluster.get("namespace", namespace)) === undefined, true, "the namespace is still there");
      return outcome;
    };
    const passes = async () => {
      const outcome = await once();
      assert.equal(outcome.code, 0, `${outcome.log}: ${failuresIn(outcome.output).join(" / ")}`);
      return JSON.parse(outcome.stdout) as {
        seconds: { total: number };
        newestRow: { ageSeconds: number };
        mediaFetched: number;
      };
    };

    await report.check("a drill of a good backup passes, and leaves nothing behind", async () => {
      const result = await passes();
      assert.equal(result.mediaFetched, 2);
      assert.ok(result.newestRow.ageSeconds < 900, `the newest row is ${result.newestRow.ageSeconds} s old`);
      console.log(`      it took ${result.seconds.total} s; the newest row was ${result.newestRow.ageSeconds} s old`);
    });
    await interrupted(cluster, project, report);
    await report.control(
      "a drill with another Active Record key passes",
      () =>
        project.changed(
          ["Pulumi.home.yaml"],
          () => undefined,
          async () => {
            await project.setSecret("home", "activeRecordPrimaryKey", crypto.randomBytes(16).toString("hex"));
            await passes();
          },
        ),
      /the Active Record keys of stack home do not open what is encrypted/,
    );
    const uploads = (await s3.keys(buckets.media)).filter((key) => key.includes("/original/"));
    for (const key of uploads) await s3.request("DELETE", `${buckets.media}/${key}`);
    await report.control(
      "a drill without the uploads in their bucket passes",
      passes,
      /upload \S+ is not in bucket '.*': 404/,
    );
    await cluster.sql("TRUNCATE statuses CASCADE");
    await report.control(
      "a drill with a table truncated in its source passes",
      passes,
      /table statuses has 0 rows in the live database and \d+ in the backup/,
    );
    await report.check("a namespace that is none of a drill's is not touched", async () => {
      await cluster.kubectl(["create", "namespace", namespace]);
      const outcome = await project.homestead(["drill", "home"]);
      assert.notEqual(outcome.code, 0);
      assert.match(outcome.output, /the namespace homestead-drill is none of a drill's/);
      await cluster.kubectl(["delete", "namespace", namespace]);
    });
  },
};

/** Ctrl-C, and then a drill that was killed outright. */
async function interrupted(
  cluster: Cluster,
  project: Project,
  report: { check: (claim: string, probe: () => unknown) => Promise<boolean> },
) {
  const drillFor = (signal: string) =>
    run("timeout", ["-s", signal, "30", "node", project.path("cli/homestead.mjs"), "drill", "home"], {
      cwd: project.folder,
      env: project.env,
      seconds: 400,
    });
  await report.check("a drill that is interrupted cleans up", async () => {
    const outcome = await drillFor("INT");
    assert.match(outcome.output, /restoring .*\n[\s\S]*interrupted/);
    assert.equal(await cluster.get("namespace", namespace), undefined);
  });
  await report.check("the next drill deletes what a killed one left", async () => {
    await drillFor("KILL");
    assert.notEqual(await cluster.get("namespace", namespace), undefined, "the killed one left nothing");
    const outcome = await project.homestead(["drill", "home"], { seconds: 900 });
    assert.match(outcome.output, /deleted what an earlier drill left/);
    assert.equal(outcome.code, 0, failuresIn(outcome.output).join(" / "));
  });
}

const failuresIn = (output: string): string[] => output.split("\n").filter((line) => line.startsWith("drill failed: "));

async function uploaded(client: SiteClient): Promise<string> {
  const boundary = `e2e-${crypto.randomUUID()}`;
  const head = `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n`;
  const png = Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "base64",
  );
  const media = await client.api("/api/v2/media", {
    method: "POST",
    headers: { "content-type": `multipart/form-data; boundary=${boundary}` },
    body: Buffer.concat([Buffer.from(head), png, Buffer.from(`\r\n--${boundary}--\r\n`)]),
  });
  return String(media["id"]);
}

async function baseBackup(cluster: Cluster): Promise<void> {
  const name = "before-the-drill";
  await cluster.apply(
    JSON.stringify({
      apiVersion: "postgresql.cnpg.io/v1",
      kind: "Backup",
      metadata: { name, namespace: "homestead" },
      spec: {
        cluster: { name: "postgres-g1" },
        method: "plugin",
        pluginConfiguration: { name: "barman-cloud.cloudnative-pg.io" },
      },
    }),
  );
  await eventually(180, "a base backup", async () => {
    const phase = (await cluster.get("backups.postgresql.cnpg.io", name, "homestead"))?.status?.["phase"];
    assert.equal(phase, "completed");
  });
}
