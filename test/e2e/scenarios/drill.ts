/**
 * The restore drill passes on a good backup, and fails on each thing that would make a restore worthless (issue 4,
 * "Done means" 2).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { lacking } from "../cases/status-lines";
import type { Cluster } from "../support/cluster";
import { breaches, internet, parseSight, probeProgram } from "../support/egress";
import { Node } from "../support/node";
import { eventually, run, sleep } from "../support/processes";
import type { Outcome } from "../support/processes";
import type { Project, PulumiOutcome } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import type { SiteClient } from "../support/site";
import { sharedSite } from "../support/shared";
import type { SharedSite } from "../support/shared";
import { buckets, makeBaseBackup } from "../support/stack";
import { restrictedContainer, restrictedPod } from "../../../lib/pods";
import type { Status } from "../../../lib/status/lines";
import { images } from "../../../versions";

const namespace = "homestead-drill";
const outside = "e2e-drill-outside";

export const drill: Scenario = {
  name: "drill",
  what: "the restore drill passes on a good backup and fails on a bad one",
  minutes: 6,
  limit: 40,
  async run(context) {
    const { report } = context;
    const site = await sharedSite(context);
    const { project, cluster, client } = site;
    await report.step("posts, uploads, and a base backup after them", async () => {
      for (let i = 0; i < 15; i++) await client.post(`post ${i}`, i < 2 ? { media_ids: [await uploaded(client)] } : {});
      await makeBaseBackup(cluster, "before-the-drill", "postgres-g1");
    });
    await statusOfAll(context, site);
    const once = async () => {
      const outcome = await project.homestead(["drill", "home", "--json"], { seconds: 900 });
      assert.equal((await cluster.get("namespace", namespace)) === undefined, true, "the namespace is still there");
      return outcome;
    };
    const passes = async () => {
      const outcome = await once();
      mustHavePassed(outcome);
      const result = JSON.parse(outcome.stdout) as {
        seconds: { total: number };
        newestRow: { ageSeconds: number };
        mediaFetched: number;
      };
      return { ...result, output: outcome.output };
    };

    await killed(project, cluster, report);
    await closed(context, cluster);
    // Merged and not applied yet: nobody can pull that image.
    const ahead = () => {
      const own = project.value("home", "images") as Record<string, string> | undefined;
      project.set("home", "images", { ...own, mastodon: "ghcr.io/mastodon/mastodon:v4.99.0" });
    };
    await report.check(
      "the next drill deletes what a killed one left, passes with the images that run, and leaves nothing behind",
      async () => {
        const result = await project.changed(["Pulumi.home.yaml"], ahead, passes);
        assert.match(result.output, /deleted what an earlier drill left/);
        assert.equal(result.mediaFetched, 2);
        assert.ok(result.newestRow.ageSeconds < 900, `the newest row is ${result.newestRow.ageSeconds} s old`);
        console.log(`      it took ${result.seconds.total} s; the newest row was ${result.newestRow.ageSeconds} s old`);
      },
    );
    await interrupted(project, cluster, report);
    await badBackups(context, site, { once, passes });

    await report.check("a namespace that is none of a drill's is not touched", async () => {
      await cluster.kubectl(["create", "namespace", namespace]);
      const outcome = await project.homestead(["drill", "home"]);
      assert.notEqual(outcome.code, 0);
      assert.match(outcome.output, /the namespace homestead-drill is none of a drill's/);
      await cluster.kubectl(["delete", "namespace", namespace]);
    });
  },
};

/** The site is well: a status has a line for each of its parts. */
async function statusOfAll({ environment, report }: Context, { project, client }: SharedSite): Promise<void> {
  const { apex, webHost } = client.names;
  const { context, address } = environment.home;
  const own = (project.value("home", "images") ?? {}) as Record<string, string>;
  const site = { context, apex, webHost, address, mediaBucket: buckets.media, images: { ...images, ...own } };
  const status = async () => {
    const args = ["status", "home", "--json", "--resolver", environment.dns.server];
    const { code, stdout, log } = await project.homestead(args);
    assert.equal(code, 0, `${log}: it ended with ${code}`);
    return JSON.parse(stdout) as Status;
  };
  await report.check("homestead status has a line for each part of the site, and none is a fault", () =>
    // A queue or an archive may be behind for a moment.
    eventually(180, "a status without a fault", async () => assert.deepEqual(lacking(await status(), site), [])),
  );
  await report.control(
    "it has one for a part that the site has not",
    async () => assert.deepEqual(lacking(await status(), site, [["pods", "search", /^1\/1 ready/]]), []),
    /no line pods, search/,
  );
}

interface Reporter {
  check: (claim: string, probe: () => unknown) => Promise<boolean>;
}

/** A drill that is ended by a signal when its databases are there, of which none can be restored yet. */
async function drillUntilRestoring(project: Project, cluster: Cluster, name: "SIGINT" | "SIGKILL"): Promise<Outcome> {
  let end = (_name: NodeJS.Signals): void => undefined;
  const drilling = run("node", [project.path("cli/homestead.mjs"), "drill", "home"], {
    cwd: project.folder,
    env: project.env,
    seconds: 400,
    begun: (signal) => (end = signal),
  });
  try {
    await eventually(120, "the drill's databases", async () => {
      const databases = await cluster.list("clusters.postgresql.cnpg.io", namespace);
      assert.equal(databases.length, 2, `there are ${databases.length}`);
    });
  } finally {
    end(name);
  }
  return drilling;
}

async function killed(project: Project, cluster: Cluster, report: Reporter): Promise<void> {
  await report.check("a drill that is killed leaves its namespace", async () => {
    await drillUntilRestoring(project, cluster, "SIGKILL");
    assert.notEqual(await cluster.get("namespace", namespace), undefined, "the killed one left nothing");
  });
}

/** The namespace that the killed drill left: what takes the place of its Mastodon gets out of it nowhere. */
async function closed({ environment, report, logs }: Context, cluster: Cluster): Promise<void> {
  const vault = new URL(environment.s3.endpoint);
  const node = Node.of(environment, "home");
  if (node === undefined) report.skip("nor the internet", "only on the lab does an address stand for it");
  else await node.answersAt([internet], logs);
  const targets = [
    { name: "vault", host: vault.hostname, port: Number(vault.port || (vault.protocol === "https:" ? 443 : 80)) },
    { name: "private address", host: environment.vps.address, port: 80 },
    ...(node === undefined ? [] : [{ name: "internet", host: internet, port: 443 }]),
  ];
  const names = targets.map(({ name }) => name);
  const look = async (inNamespace: string) => {
    const name = "e2e-probe";
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: inNamespace, labels: { "homestead/drill-role": "mastodon" } },
      spec: {
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 0,
        securityContext: restrictedPod(991),
        containers: [
          {
            name,
            image: environment.images["node"] ?? images.node,
            imagePullPolicy: "IfNotPresent",
            command: ["node", "-e", "setInterval(() => undefined, 1e6)"],
            securityContext: restrictedContainer,
          },
        ],
      },
    };
    await cluster.apply(JSON.stringify(pod));
    await cluster.kubectl(["wait", "-n", inNamespace, `pod/${name}`, "--for=condition=Ready", "--timeout=90s"]);
    // A policy takes effect a moment after its pod has started.
    await sleep(3000);
    return parseSight(await cluster.exec(inNamespace, name, ["node", "-e", probeProgram(targets)], { seconds: 60 }));
  };
  await report.check(
    `a pod in the place of the drill's Mastodon reaches none of these: ${names.join(", ")}`,
    async () => {
      assert.deepEqual(breaches(await look(namespace), { needs: ["dns"], never: names }), []);
    },
  );
  await cluster.kubectl(["create", "namespace", outside]);
  await report.check("the same pod outside its namespace reaches all of them", async () => {
    assert.deepEqual(breaches(await look(outside), { needs: ["dns", ...names], never: [] }), []);
  });
  await cluster.kubectl(["delete", "namespace", outside, "--wait=false"]);
}

async function interrupted(project: Project, cluster: Cluster, report: Reporter): Promise<void> {
  await report.check("a drill that is interrupted cleans up", async () => {
    const outcome = await drillUntilRestoring(project, cluster, "SIGINT");
    assert.match(outcome.output, /restoring .*\n[\s\S]*interrupted/);
    assert.equal(await cluster.get("namespace", namespace), undefined);
  });
}

/** What would make a restore worthless, each found by the drill. @param drills `once`: one drill; `passes`: which must pass */
async function badBackups(
  { report, extent }: Context,
  { project, s3, cluster }: SharedSite,
  { once, passes }: { once: () => Promise<PulumiOutcome>; passes: () => Promise<unknown> },
): Promise<void> {
  const faults: { what: string; make: () => Promise<unknown>; says: RegExp }[] = [
    {
      what: "a drill with another Active Record key passes",
      make: () => project.setSecret("home", "activeRecordPrimaryKey", crypto.randomBytes(16).toString("hex")),
      says: /the Active Record keys of stack home do not open what is encrypted/,
    },
    {
      what: "a drill without the uploads in their bucket passes",
      make: async () => {
        const uploads = (await s3.keys(buckets.media)).filter((key) => key.includes("/original/"));
        for (const key of uploads) await s3.request("DELETE", `${buckets.media}/${key}`);
      },
      says: /upload \S+ is not in bucket '.*': 404/,
    },
    {
      what: "a drill with a table emptied in its source passes",
      // Not TRUNCATE: with CASCADE it takes the uploads' rows along, and the drill would look for no file.
      make: () => cluster.sql("SET session_replication_role = replica; DELETE FROM statuses"),
      says: /table statuses has 0 rows in the live database and \d+ in the backup/,
    },
  ];
  const unchanged = () => undefined;
  if (extent === "full") {
    for (const { what, make, says } of faults) {
      const probe = () => project.changed(["Pulumi.home.yaml"], unchanged, () => make().then(passes));
      await report.control(what, probe, says);
    }
    return;
  }
  // Each is found by itself, so that one drill shows all three.
  const outcome = await report.step("a drill with another key, without uploads, and with a table emptied", () =>
    project.changed(["Pulumi.home.yaml"], unchanged, async () => {
      for (const { make } of faults) await make();
      return once();
    }),
  );
  for (const { what, says } of faults) await report.control(what, () => mustHavePassed(outcome), says);
}

/** @throws Error with what the drill found, unless it passed */
function mustHavePassed({ code, log, output }: PulumiOutcome): void {
  assert.equal(code, 0, `${log}: ${failuresIn(output).join(" / ")}`);
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
