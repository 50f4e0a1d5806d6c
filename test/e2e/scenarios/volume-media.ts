/**
 * Media on a volume: written, served, copied to the vault, looked for there by a drill, and back from there when the volume
 * is gone (issue 4).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { copiedKey, filesPrefix } from "../../../components/media-copy";
import type { DrillResult } from "../../../lib/drill";
import { copyMedia } from "../../../lib/switch/media";
import { claimGone, claimUid } from "../support/claims";
import { Cluster } from "../support/cluster";
import { CountingProxy } from "../support/counting-proxy";
import { slowClass } from "../support/disk";
import { allOf, eventually, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Project } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { handOnSite, outlivingTheScenario } from "../support/shared";
import type { SiteClient } from "../support/site";
import { buckets, clientOf, namesOf, prepare } from "../support/stack";
import type { ObjectServer } from "../support/vault";

const namespace = "homestead";
const probe = "homestead/volume.txt";
const volume = "/opt/mastodon/public/system";

export const volumeMedia: Scenario = {
  name: "volume-media",
  what: "uploads on a volume are served, copied to the vault and restored from there",
  minutes: 9,
  limit: 30,
  async run(context) {
    const { environment, report, extent } = context;
    const storageClass =
      process.env["E2E_HOME_MEDIA_CLASS"] ?? (environment.lab === undefined ? undefined : "nfs-client");
    if (storageClass === undefined) {
      report.skip("media on a volume", "E2E_HOME_MEDIA_CLASS names no ReadWriteMany storage class");
      return;
    }
    if (environment.lab !== undefined && environment.images["rclone"] === undefined) {
      report.skip("media on a volume", "no rclone to make the lab's image of (apt-get install rclone)");
      return;
    }
    const cluster = new Cluster(environment.home, environment);
    const { project, secrets, s3 } = await outlivingTheScenario(() => prepare(context, [environment.home]));
    // In a whole run the databases are on the slow disk, too, and `slow-disk` goes on with the site.
    const handsOn = extent === "brief" && environment.lab !== undefined && storageClass === slowClass;
    project.set(
      "home",
      "storage",
      handsOn
        ? { kind: "nfs", databases: slowClass, media: slowClass }
        : { kind: "local", databases: environment.home.storageClass, media: storageClass },
    );
    project.set("home", "sizes", { database: "2Gi", queue: "1Gi", media: "1Gi" });
    project.set("home", "media", { kind: "volume" });
    // What is asked about the copies of files, which is what a store that bills requests would bill.
    const proxy = await CountingProxy.start(environment, /media(\/|%2F)files/i, handsOn ? "suite" : "scenario");
    const vault = { endpoint: proxy.endpoint, region: environment.s3.region, bucket: buckets.vault };
    project.set("home", "vault", vault);
    const first = await report.step("pulumi up, from nothing", () => project.up("home"));
    await report.check("pulumi up succeeds, the check of media included", () => succeeded(first, "pulumi up"));
    if (first.code !== 0) throw new Error("without a site nothing else can be tried");

    const client = await clientOf(cluster, namesOf(environment.zone), secrets);
    const site: Site = { context, cluster, client, s3 };
    const upload = await uploadIsServed(site);
    await copyAsksForAList(site, proxy);
    await lastCopyTakesTheYoungest(site);
    await changedFileIsCopied(site, await send(client));
    await missingShareIsNoticed(site, project);
    await copiesAreOld(site);
    // A copy takes what is a minute old: meanwhile there is a drill, which asks for none so young.
    await copyReachesTheVault(site, await send(client), () => drillFindsUploads(site, project, 3));

    await report.check("an upload survives the deletion of every pod of Mastodon", async () => {
      await cluster.kubectl([
        "delete",
        "pods",
        "-n",
        namespace,
        "-l",
        "app.kubernetes.io/name=mastodon",
        "--wait=true",
      ]);
      await client.healthy();
      await served(site, upload);
    });

    await report.step("the volume is deleted, files and all", () => deleteVolume(cluster));
    await report.control(
      "the upload is still on a volume of the cluster",
      () => claimUid(cluster, "media", namespace),
      /no claim/,
    );
    const again = await report.step("pulumi up --refresh --run-program", () =>
      project.pulumi(["up", "--stack", "home", "--yes", "--skip-preview", "--refresh", "--run-program"]),
    );
    await report.check("pulumi up on the lost volume succeeds", () => succeeded(again, "pulumi up"));
    await report.check("the upload is served again, byte for byte", async () => {
      await client.healthy();
      await served(site, upload);
    });
    await report.check("and new ones are taken", async () => {
      await served(site, await send(client));
    });

    if (handsOn && report.broken.length === 0) {
      await handOnSite({ project, secrets, s3, cluster, client, outputs: [first.output, again.output] }, "nfs");
    }
    // Nobody asked for what comes now: a whole run has no time for it.
    if (extent === "brief") return;
    const claim = await claimUid(cluster, "media", namespace);
    await report.check("pulumi destroy leaves the volume", async () => {
      succeeded(await project.destroy("home"), "pulumi destroy");
      assert.equal(await claimUid(cluster, "media", namespace), claim);
    });
    await report.check("pulumi up after it takes the volume over, and the upload is served", async () => {
      const outcome = succeeded(await project.up("home"), "pulumi up");
      assert.doesNotMatch(outcome.output, /already exists/i);
      assert.equal(await claimUid(cluster, "media", namespace), claim);
      const renewed = await clientOf(cluster, client.names, secrets);
      await served({ ...site, client: renewed }, upload);
    });
  },
};

interface Site {
  context: Context;
  cluster: Cluster;
  client: SiteClient;
  s3: ObjectServer;
}

interface Upload {
  /** Path at the web host, `/system/...`. */
  path: string;
  content: Buffer;
}

/** Uploads a picture as the owner. */
async function send(client: SiteClient): Promise<Upload> {
  const content = crypto.randomBytes(300_000);
  const boundary = `e2e-${crypto.randomUUID()}`;
  const body = Buffer.concat([
    Buffer.from(
      `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.mp4"\r\ncontent-type: video/mp4\r\n\r\n`,
    ),
    content,
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
  const media = await client.api("/api/v2/media", {
    method: "POST",
    headers: {
      "content-type": `multipart/form-data; boundary=${boundary}`,
      "content-length": String(body.length),
    },
    body,
    seconds: 120,
  });
  const url = new URL(String(media["url"]));
  assert.equal(url.host, client.names.webHost);
  assert.match(url.pathname, /^\/system\/media_attachments\//);
  return { path: url.pathname, content };
}

/** Key of an upload's copy in the vault. */
const copyOf = ({ path }: Upload): string => `${filesPrefix}${path.replace(/^\/system\//, "")}`;

async function served({ client }: Site, upload: Upload): Promise<void> {
  const answer = await client.request(upload.path);
  assert.equal(answer.status, 200, `${upload.path}: ${answer.status}`);
  assert.ok(answer.body.equals(upload.content), `${upload.path}: another content`);
}

async function uploadIsServed(site: Site): Promise<Upload> {
  const { context, client, cluster } = site;
  const upload = await context.report.step("an upload", () => send(client));
  await context.report.check("an upload is served by the web host", () => served(site, upload));
  await context.report.check("its file belongs to Mastodon's user, in every pod that mounts the volume", async () => {
    for (const deployment of ["mastodon-web", "mastodon-sidekiq-all-queues"]) {
      const file = `${volume}${upload.path.replace(/^\/system/, "")}`;
      const owner = await cluster.exec(namespace, `deployment/${deployment}`, ["stat", "-c", "%u %s", file]);
      assert.equal(owner.trim(), `991 ${upload.content.length}`);
    }
  });
  return upload;
}

/**
 * Runs the copy now.
 * @param youngest what a file's age must be to be copied. @default a minute, as in the CronJob
 * @returns the last lines of its log. @throws when it fails, with them
 */
async function copyNow(cluster: Cluster, youngest?: string): Promise<string> {
  const name = `copy-${crypto.randomBytes(4).toString("hex")}`;
  const create = [
    "create",
    "job",
    "-n",
    namespace,
    name,
    "--from=cronjob/media-copy",
    "--dry-run=client",
    "-o",
    "json",
  ];
  const job = JSON.parse(await cluster.kubectl(create)) as CopyJob;
  if (youngest !== undefined) {
    for (const container of job.spec.template.spec.containers)
      container.env = [...(container.env ?? []), { name: "MIN_AGE", value: youngest }];
  }
  await cluster.kubectl(["create", "-n", namespace, "-f", "-"], { input: JSON.stringify(job) });
  return eventually(120, "the copy ends", async () => {
    const status = (await cluster.get("job", name, namespace))?.status ?? {};
    if (status["succeeded"] !== 1 && !JSON.stringify(status["conditions"] ?? []).includes('"Failed"')) {
      throw new Error(`it runs: ${JSON.stringify(status)}`);
    }
    const log = await cluster.kubectl(["logs", "-n", namespace, `job/${name}`, "--tail=20"]);
    return { succeeded: status["succeeded"] === 1, log };
  }).then(({ succeeded: well, log }) => {
    if (!well) throw new Error(`the copy failed: ${log}`);
    return log;
  });
}

interface CopyJob {
  spec: { template: { spec: { containers: { env?: { name: string; value?: string }[] }[] } } };
}

/** The copy, for files that were written a moment ago. */
async function copyYoung(cluster: Cluster): Promise<string> {
  await sleep(3000);
  return copyNow(cluster, "2s");
}

/** @param meanwhile takes a part of the minute that a copy leaves a file alone for. */
async function copyReachesTheVault(
  { context: { report }, cluster, s3 }: Site,
  upload: Upload,
  meanwhile: () => Promise<unknown>,
): Promise<void> {
  const sent = Date.now();
  const key = copyOf(upload);
  const inVault = async () => {
    const keys = await s3.keys(buckets.vault, filesPrefix);
    assert.ok(keys.includes(key), `${key} is not among ${keys.length} copies`);
  };
  await report.control("a file is in the vault before the copy ran", inVault, /is not among/);
  await meanwhile();
  await report.check("the copy brings it there, a minute after it was written, and says when", async () => {
    await sleep(Math.max(0, sent + 61_000 - Date.now()));
    const started = Date.now();
    await copyNow(cluster);
    await inVault();
    const copied = Date.parse((await s3.get(buckets.vault, copiedKey("home"))).trim());
    assert.ok(copied >= started - 5000, `copied at ${new Date(copied).toISOString()}`);
  });
}

/**
 * What was written within minutes of the last copy may not be in it, and no drill would ask for it. Mastodon goes by when
 * an upload was last changed; the stand-in never changes one.
 */
async function copiesAreOld({ cluster, client }: Site): Promise<void> {
  const moment = (await client.takesPasswords()) ? "created_at" : "updated_at";
  await cluster.sql(`UPDATE media_attachments SET ${moment} = now() - interval '1 hour'`);
}

/** @param old how many uploads are old enough to be asked for. */
async function drillFindsUploads({ context: { report } }: Site, project: Project, old: number): Promise<void> {
  await report.check("a drill finds the uploads in the volume's copy", async () => {
    const outcome = await project.homestead(["drill", "home", "--json"], { seconds: 900 });
    const { stdout } = succeeded(outcome, "homestead drill");
    const { mediaFetched = 0, mediaCopy } = JSON.parse(stdout) as Pick<DrillResult, "mediaFetched" | "mediaCopy">;
    assert.equal(mediaFetched, old);
    assert.ok(mediaCopy !== undefined && mediaCopy.ageSeconds < 3600, `the copy: ${JSON.stringify(mediaCopy)}`);
  });
}

/** A copy that has nothing to do, which is nearly every one. */
async function copyAsksForAList({ context: { report }, cluster }: Site, proxy: CountingProxy): Promise<void> {
  await report.check("a copy with nothing to do asks the vault for one list, and about no file", async () => {
    // A file that is too young is not even looked for.
    await copyYoung(cluster);
    proxy.takeAll();
    await copyNow(cluster, "2s");
    const { LIST: lists, HEAD: heads = 0, ...others } = proxy.takeAll();
    assert.equal(lists, 1);
    // rclone asks whether the folder is a file.
    assert.ok(heads <= 1, `${heads} HEAD`);
    assert.deepEqual(others, {});
  });
}

/** As a planned switch does it, once nobody writes any more: afterwards the volume's site brings nothing to the vault. */
async function lastCopyTakesTheYoungest({ context: { report }, cluster, client, s3 }: Site): Promise<void> {
  await report.check(
    "a switch's last copy takes what was uploaded just now, and returns when it is there",
    async () => {
      const { path } = await send(client);
      await copyMedia({ cluster: cluster.access, namespace, site: "home" });
      const keys = await s3.keys(buckets.vault, "media/files/");
      assert.ok(
        keys.includes(`media/files${path.replace(/^\/system/, "")}`),
        `${path} is not among ${keys.length} copies`,
      );
    },
  );
}

/** As Mastodon does when it has re-encoded a video, and as a disk does that is damaged. */
async function changedFileIsCopied({ context: { report }, cluster, s3 }: Site, upload: Upload): Promise<void> {
  const file = `${volume}${upload.path.replace(/^\/system/, "")}`;
  const web = (command: string) => cluster.exec(namespace, "deployment/mastodon-web", ["sh", "-c", command]);
  const kept = () => s3.keys(buckets.vault, `media/replaced/${upload.path.replace(/^\/system\//, "")}.`);
  await report.check("a file that is written again is copied again, and its old copy is kept", async () => {
    await copyYoung(cluster);
    await web(`printf re-encoded > ${file}`);
    await copyYoung(cluster);
    assert.equal(await s3.get(buckets.vault, copyOf(upload)), "re-encoded");
    assert.equal((await kept()).length, 1);
  });
  const saved = `${volume}/homestead/saved`;
  await web(`cp -p ${file} ${saved} && printf damaged >> ${file} && touch -r ${saved} ${file}`);
  await report.control(
    "a file whose content has changed, and whose time has not, is copied",
    () => copyYoung(cluster),
    /immutable file modified/,
  );
  await report.check("its copy is as it was", async () => {
    assert.equal(await s3.get(buckets.vault, copyOf(upload)), "re-encoded");
    assert.equal((await kept()).length, 1);
  });
  await web(`cp -p ${saved} ${file} && rm ${saved}`);
}

async function missingShareIsNoticed({ context: { report }, cluster, client }: Site, project: Project): Promise<void> {
  const web = (command: string) => cluster.exec(namespace, "deployment/mastodon-web", ["sh", "-c", command]);
  const verify = async () => succeeded(await project.homestead(["verify", "home", "--retry", "5"]), "homestead verify");
  await report.check("homestead verify is content", verify);
  await web(`mv ${volume}/homestead ${volume}/away`);
  try {
    await allOf([
      report.control(
        "homestead verify is content with a share that is not mounted",
        verify,
        /media: expected https:.*\/system\/homestead\/volume\.txt to answer 200 with the media volume's own file, got HTTP 404/,
      ),
      report.control(
        "the copy runs without the share",
        () => copyNow(cluster),
        /expected homestead\/volume\.txt on the volume, got none: the share behind the claim 'media' is empty or not mounted/,
      ),
    ]);
  } finally {
    await web(`mv ${volume}/away ${volume}/homestead`);
  }
  await report.check("with the share back, both are", async () => {
    assert.match((await client.request(`/system/${probe}`)).text, /^homestead media volume/);
    await allOf<unknown>([verify(), copyNow(cluster)]);
  });
}

/** As docs/runbooks/media-volume.md has it. */
async function deleteVolume(cluster: Cluster): Promise<void> {
  await cluster.kubectl(["delete", "persistentvolumeclaim", "media", "-n", namespace, "--wait=false"]);
  for (const name of ["mastodon", "media-copy"]) {
    await cluster.kubectl(["delete", "pods", "-n", namespace, "-l", `app.kubernetes.io/name=${name}`]);
  }
  await claimGone(cluster, "media", namespace);
}
