/**
 * The first owner's likeliest bad day: the cluster is gone and only the vault is left (issue 4, "Done means" 1).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { differences } from "../support/cluster";
import type { Cluster } from "../support/cluster";
import { Peer } from "../support/peer";
import { allOf, eventually, sleep } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import type { Project } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { takeSite } from "../support/shared";
import type { SiteClient } from "../support/site";
import { authorityOf, baseBackupIn, buckets, clientOf, namesOf } from "../support/stack";
import type { Secrets } from "../support/stack";
import type { ObjectServer } from "../support/vault";
import { snapshotKey } from "../../../lib/lease/snapshots";

const namespace = "homestead";
/** Seconds: `archiveInterval` as it is by default, and what a segment's way into the vault may take on top. */
const archiveInterval = 15;
const upload = 10;

interface Acknowledged {
  id: string;
  text: string;
  /** Milliseconds. */
  at: number;
}

interface Server {
  context: Context;
  project: Project;
  cluster: Cluster;
  secrets: Secrets;
  s3: ObjectServer;
  peer: Peer;
}

export const restore: Scenario = {
  name: "restore",
  what: "a cluster wiped in mid-write comes back from the vault, then once more as it was at an earlier moment; one that was given up stays silent",
  place: "beside",
  minutes: 10,
  limit: 50,
  async run(context) {
    const { environment, report } = context;
    const { project, secrets, s3, cluster, ...site } = await takeSite(context);
    const names = namesOf(environment.zone);
    let { client } = site;
    const peer = await report.step("a remote server, which follows", () => follower(context, cluster, client));
    const server: Server = { context, project, cluster, secrets, s3, peer };
    const key = await publicKeyOf(client);
    await report.step("a base backup is in the vault", () => baseBackupIn(s3, "home-g1"));

    const queued = await report.step("a key in Valkey, and the snapshot that has it in the vault", () =>
      keptKey(server),
    );
    const { acknowledged, wipedAt } = await report.step("posts, and the cluster goes in the middle of them", () =>
      wipeWhilePosting(server, client),
    );
    const archive = await objectsOf(s3, "pg/home-g1/");
    await refusedUntilRaised(server);

    // It is off: nothing is left of it. With all repetitions the update is to find out by itself, in 668 s. Where emptying has
    // left the cluster its UID it is the one that the lease names: there is no old one, and the word would be refused.
    const named = await clusterInLease(s3);
    if (context.extent !== "full" && named !== (await cluster.uid())) {
      project.set("home", "restore", { oldCluster: named });
    }
    const start = Date.now();
    const outcome = await report.step("generations.home raised to 2, pulumi up on the empty cluster", () =>
      begin(server, 2),
    );
    project.set("home", "restore", undefined);
    await report.check(`pulumi up brings the server back (${seconds(start)} s)`, () => succeeded(outcome, "pulumi up"));
    if (outcome.code !== 0) throw new Error("without a restored site nothing else can be tried");
    client = await clientOf(cluster, names, secrets);
    await report.check("the update verified the site", () =>
      // Not a line of the refresh, which names every resource: one that was made, or run again.
      assert.match(outcome.output, /verification-command.*\b(created|updated|replaced)\b/),
    );
    await nothingIsLost(server, acknowledged, wipedAt);
    await allOf([
      goesOnWithSnapshot(server, queued),
      isTheSameServer(server, client, key),
      archiveIsUntouched(server, archive, "home-g1", "home-g2"),
      previewShowsNothing(server, "the next preview shows no change"),
    ]);
    await staysChangeable(server, "postgres-g2", "home-g1");
    await toAnEarlierMoment(server, client);
    await beginsWithNothing(server, queued);
    await givenUp(server);
    await peer.stop();
  },
};

/** The remote server that the site has for its follower, if there is one: that it follows, the site itself has to know. */
async function follower(context: Context, cluster: Cluster, client: SiteClient): Promise<Peer> {
  const { owner, apex } = client.names;
  const peer = await Peer.start(context, await authorityOf(cluster));
  const followers = await cluster.sql(
    `SELECT count(*) FROM follows JOIN accounts ON accounts.id = follows.account_id WHERE domain = 'peer.${context.environment.zone}'`,
  );
  if (followers === "0") {
    await peer.follow(`@${owner}@${apex}`);
    await peer.accepted(60);
  }
  const text = `before the fire ${crypto.randomUUID()}`;
  await client.post(text);
  await peer.received(text, 60);
  return peer;
}

/** `pulumi up` where the state still lists what the cluster has lost; as docs/runbooks/lost-disk.md has it. */
function begin({ project }: Server, generation: number) {
  project.setShared("generations", { home: generation, vps: 1 });
  const args = ["up", "--stack", "home", "--yes", "--skip-preview", "--refresh", "--run-program"];
  return project.pulumi(args, { seconds: 1200 });
}

// ---------------------------------------------------------------- the bad day

async function wipeWhilePosting({ cluster }: Server, client: SiteClient) {
  const acknowledged: Acknowledged[] = [];
  let going = true;
  const writer = (async () => {
    while (going) {
      const text = `before the fire ${crypto.randomUUID()}`;
      try {
        const id = await client.post(text);
        acknowledged.push({ id, text, at: Date.now() });
      } catch {
        // Not acknowledged: nothing was promised.
      }
      await sleep(300);
    }
  })();
  await sleep((2 * archiveInterval + upload) * 1000);
  const wipedAt = Date.now();
  await cluster.empty();
  going = false;
  await writer;
  assert.ok(acknowledged.length > 30, `only ${acknowledged.length} posts were acknowledged`);
  return { acknowledged: acknowledged.filter(({ at }) => at <= wipedAt), wipedAt };
}

async function refusedUntilRaised({ context: { report }, project, cluster }: Server): Promise<void> {
  await report.check(
    "without a raised generation, one error says which number to raise, and nothing is made",
    async () => {
      const before = await cluster.inventory();
      const outcome = await project.up("home", { seconds: 180 });
      assert.notEqual(outcome.code, 0, "the update succeeded");
      assert.match(outcome.output, /homestead:generations\.home: 1/, diagnosis(outcome.output));
      assert.match(outcome.output, /the vault holds its archive home-g1, which is never written over/);
      assert.match(outcome.output, /set generations\.home to 2 in Pulumi\.yaml/);
      assert.deepEqual(differences(before, await cluster.inventory()), []);
    },
  );
}

// ---------------------------------------------------------------- what came back

async function nothingIsLost({ context: { report }, cluster }: Server, acknowledged: Acknowledged[], wipedAt: number) {
  const there = new Set((await cluster.sql("SELECT id FROM statuses")).split("\n"));
  const old = acknowledged.filter(({ at }) => at < wipedAt - (archiveInterval + upload) * 1000);
  const probe = (posts: Acknowledged[]) => () => {
    const lost = posts.filter(({ id }) => !there.has(id));
    assert.equal(lost.length, 0, `${lost.length} of ${posts.length} posts are lost`);
  };
  const lost = acknowledged.filter(({ id }) => !there.has(id)).length;
  await report.check(
    `every acknowledged post older than the archive interval is there (${old.length}; of all ${acknowledged.length}, ${lost} are lost)`,
    probe(old),
  );
  await report.control(
    "a post that nobody made is there",
    probe([...old, { id: "1", text: "", at: 0 }]),
    /1 of \d+ posts are lost/,
  );
}

async function isTheSameServer(server: Server, client: SiteClient, key: string): Promise<void> {
  const { report } = server.context;
  await report.check("the actor has the key it had", async () => assert.equal(await publicKeyOf(client), key));
  await report.check("the owner signs in with the old password, and the home feed is built", async () => {
    await client.homeFeed();
  });
  await newPostArrives(server, client);
  await report.control(
    "a post that nobody made reaches the remote server",
    () => server.peer.received(`never posted ${crypto.randomUUID()}`, 5),
    /other activities/,
  );
}

async function newPostArrives({ context: { report }, peer }: Server, client: SiteClient): Promise<void> {
  await report.check("the remote server's follow still works: a new post arrives, once", async () => {
    const text = `after the fire ${crypto.randomUUID()}`;
    await client.post(text);
    await peer.received(text, 60);
    assert.equal(await peer.countOf(text), 1);
    assert.deepEqual((await peer.state()).refused, []);
  });
}

async function previewShowsNothing({ context: { report }, project }: Server, claim: string): Promise<void> {
  await report.check(claim, async () => {
    succeeded(await project.preview("home", ["--expect-no-changes"]), "preview --expect-no-changes");
  });
}

async function archiveIsUntouched(
  { context: { report }, s3 }: Server,
  before: Map<string, string>,
  old: string,
  own: string,
): Promise<void> {
  await report.check(`the archive ${old} is as it was, and ${own} has a base backup of its own`, async () => {
    assert.deepEqual(await objectsOf(s3, `pg/${old}/`), before);
    await baseBackupIn(s3, own);
  });
}

// ---------------------------------------------------------------- Valkey

/** A key of ours in Valkey, and the object in the vault that is to bring it back. */
interface Kept {
  name: string;
  value: string;
  snapshot: string;
}

/** One command in the Valkey that has the queues. */
async function valkey(cluster: Cluster, command: string[]): Promise<string> {
  const script =
    'REDISCLI_AUTH=$(sed -n "s/^requirepass //p" /etc/valkey/secret/password.conf); export REDISCLI_AUTH; exec valkey-cli "$@"';
  const words = ["sh", "-c", script, "valkey", ...command];
  return (await cluster.exec(namespace, "valkey-0", words, { container: "valkey" })).trim();
}

/** Leaves a snapshot as the keeper does, which takes one to the vault each 300 s: what is queued until then would be lost. */
async function keptKey({ cluster, s3 }: Server): Promise<Kept> {
  const { epoch } = await leaseIn(s3);
  const kept = {
    name: "e2e:before-the-fire",
    value: crypto.randomUUID(),
    snapshot: snapshotKey("home", Number(epoch), "dump"),
  };
  assert.equal(await valkey(cluster, ["SET", kept.name, kept.value]), "OK");
  assert.equal(await valkey(cluster, ["SAVE"]), "OK");
  const read = "process.stdout.write(require('node:fs').readFileSync('/data/dump.rdb').toString('base64'))";
  const text = await cluster.exec(namespace, "valkey-0", ["node", "-e", read], { container: "keeper" });
  await s3.request("PUT", `${buckets.vault}/${kept.snapshot}`, Buffer.from(text, "base64"));
  return kept;
}

const hasKey = async (cluster: Cluster, { name, value }: Kept) =>
  assert.equal(await valkey(cluster, ["GET", name]), value);

async function goesOnWithSnapshot({ context: { report }, cluster }: Server, kept: Kept): Promise<void> {
  await report.check(
    "the keeper went on with Valkey's last snapshot in the vault, and Valkey has what was in it",
    async () => {
      const said = await cluster.kubectl(["logs", "-n", namespace, "valkey-0", "-c", "keeper"]);
      // On a cluster that ends its pods in peace it is the last one, and not the one before it.
      const either = kept.snapshot.replace("dump", "(dump|final)").replaceAll(".", "\\.");
      assert.match(
        said,
        new RegExp(`epoch \\d+ goes on with ${either}, \\d+ s old: this is all that is left of Valkey's volume`),
      );
      await hasKey(cluster, kept);
    },
  );
}

async function beginsWithNothing({ context: { report }, cluster }: Server, kept: Kept): Promise<void> {
  await report.control(
    "beside a database of an earlier moment Valkey has what was in its snapshot",
    () => hasKey(cluster, kept),
    /Expected values to be strictly equal/,
  );
}

// ---------------------------------------------------------------- later updates

/**
 * CloudNativePG looks at each change of a Cluster whether what it began from is in its list. The update that hands the
 * server over is only asked about: its preview says what the Cluster would be, and the API server what it says to that.
 */
async function staysChangeable(server: Server, database: string, source: string): Promise<void> {
  const { context, project, cluster } = server;
  const { report } = context;
  const handedOver = () =>
    project.changed(
      ["Pulumi.yaml"],
      () => {
        project.setShared("activeSite", "vps");
        project.setShared("epoch", 2);
      },
      async () => {
        const { stdout } = succeeded(await project.preview("home", ["--json"]), "preview of the demotion");
        const { steps } = JSON.parse(stdout) as {
          steps: { op: string; urn: string; newState?: { inputs?: object } }[];
        };
        const step = steps.find(({ urn }) => urn.endsWith("::postgres-cluster"));
        assert.equal(step?.op, "update");
        return step.newState?.inputs as { spec: { externalClusters: { name: string }[] } };
      },
    );
  const dryRun = (spec: object) =>
    cluster.kubectl([
      ...["patch", "clusters.postgresql.cnpg.io", database, "-n", namespace],
      ...["--type=merge", "--dry-run=server", "-p", JSON.stringify({ spec })],
    ]);
  const { spec } = await report.step("the preview of handing the server over", handedOver);
  await report.check("CloudNativePG takes the restored database as it would step down", () => dryRun(spec));
  const externalClusters = spec.externalClusters.filter(({ name }) => name !== source);
  await report.control(
    `it takes one whose list lacks ${source}`,
    () => dryRun({ ...spec, externalClusters }),
    new RegExp(`External cluster ${source} not found`),
  );
}

// ---------------------------------------------------------------- an earlier moment

async function toAnEarlierMoment(server: Server, client: SiteClient): Promise<void> {
  const { context, project, cluster, s3 } = server;
  const { report, environment } = context;
  const kept = await client.post(`to be deleted by mistake ${crypto.randomUUID()}`);
  await sleep(2000);
  const moment = (await cluster.sql(`SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`)).trim();
  await sleep(2000);
  const later = await client.post(`after that moment ${crypto.randomUUID()}`);
  await cluster.sql(`DELETE FROM statuses WHERE id = ${kept}`);
  const rows = async () =>
    (await cluster.sql(`SELECT id FROM statuses WHERE id IN (${kept}, ${later}) ORDER BY id`)).split("\n");
  const probe = async () => assert.deepEqual(await rows(), [kept]);
  await report.control("before that, the deleted post is there", probe, /Expected values|deep/i);

  // As docs/runbooks/lost-disk.md has it.
  const file = await cluster.kubectl(["get", "secrets", "-n", namespace, "-l", ofCertManager, "-o", "yaml"]);
  const certificates = await certificatesOf(cluster);
  await report.step("the last WAL is in the vault; the namespace with all its data is deleted", async () => {
    await archived(cluster);
    await cluster.kubectl(["delete", "namespace", namespace, "--timeout=300s"], { seconds: 320 });
  });
  await report.step("the certificate that was kept is put back", async () => {
    await cluster.kubectl(["create", "namespace", namespace]);
    await cluster.kubectl(["label", "namespace", namespace, "homestead/site=home"]);
    await cluster.kubectl(["create", "-f", "-"], { input: file });
  });
  const archive = await objectsOf(s3, "pg/home-g2/");
  // By the CLI, as the runbook has it: it quotes what YAML would take for a timestamp.
  await project.mustPulumi(["config", "set", "--path", "homestead:restore.to", moment, "--stack", "home"]);
  const start = Date.now();
  const outcome = await report.step(`generations.home raised to 3 and restore.to set to ${moment}, pulumi up`, () =>
    begin(server, 3),
  );
  await report.check(`pulumi up brings the server back as it was then (${seconds(start)} s)`, () =>
    succeeded(outcome, "pulumi up"),
  );
  await report.check("the deleted post is there, and one from after that moment is not", probe);
  project.set("home", "restore", undefined);
  const looks = [
    archiveIsUntouched(server, archive, "home-g2", "home-g3"),
    previewShowsNothing(server, "taking restore.to away again changes nothing"),
  ];
  await report.check("no certificate was ordered: the ones that were put back are in use", async () => {
    assert.ok(certificates.size > 0, "there was none before");
    assert.deepEqual(await certificatesOf(cluster), certificates);
    const orders = await cluster.list("certificaterequests.cert-manager.io", namespace);
    assert.deepEqual(
      orders.map(({ metadata }) => metadata.name),
      [],
    );
  });
  await allOf(looks);
  await newPostArrives(server, await clientOf(cluster, namesOf(environment.zone), server.secrets));
}

// ---------------------------------------------------------------- a cluster that was given up

/**
 * What a cluster does whose site was restored onto another one, when it is back: the lab has no third cluster, so the lease
 * is made to name one. Then the site is brought back here, with the word that the other one is off.
 */
async function givenUp(server: Server): Promise<void> {
  const { context, project, cluster, s3, secrets } = server;
  const { report, environment } = context;
  const uid = await cluster.uid();
  const elsewhere = crypto.randomUUID();
  await report.check("the lease names this cluster", async () => assert.equal(await clusterInLease(s3), uid));
  await report.step("the lease names another cluster, as after a restore there", async () => {
    // Its wait is over: a lease is as old as the object, and this one is written anew.
    const text = JSON.stringify({ ...(await leaseIn(s3)), cluster: elsewhere, wait: 0 });
    await s3.request("PUT", `${buckets.vault}/lease.json`, text);
  });
  await report.check("the keeper here says so, and Valkey stops", () =>
    eventually(120, "a closed gate", async () => {
      const logOf = (container: string) =>
        cluster.kubectl(["logs", "-n", namespace, "valkey-0", "-c", container, "--tail=50"]);
      assert.match(await logOf("keeper"), new RegExp(`home goes on on another cluster \\(UID ${elsewhere}\\)`));
      assert.match(await logOf("valkey"), /gate: closed: Valkey waits/);
    }),
  );
  const client = await clientOf(cluster, namesOf(environment.zone), secrets);
  await report.control(
    "it acknowledges a post meanwhile",
    () => client.post(`by a cluster that was given up ${crypto.randomUUID()}`),
    /./,
  );
  project.set("home", "restore", { oldCluster: elsewhere });
  const outcome = await report.step("pulumi up, with the word that the other cluster is off", () => project.up("home"));
  project.set("home", "restore", undefined);
  await report.check("the lease names this cluster again, and nothing is waited for", async () => {
    succeeded(outcome, "pulumi up");
    const { cluster: named, wait } = await leaseIn(s3);
    assert.deepEqual({ named, wait }, { named: uid, wait: 0 });
  });
  await report.step("it takes posts again", () =>
    eventually(180, "a post", () => client.post(`once more ${crypto.randomUUID()}`)),
  );
  await newPostArrives(server, client);
}

// ---------------------------------------------------------------- looking

const leaseIn = async (s3: ObjectServer) =>
  JSON.parse(await s3.get(buckets.vault, "lease.json")) as Record<string, unknown>;

/** UID of the cluster that the lease names. */
async function clusterInLease(s3: ObjectServer): Promise<string> {
  const { cluster } = await leaseIn(s3);
  assert.ok(typeof cluster === "string", "the lease names no cluster");
  return cluster;
}

/** What cert-manager knows for its own Secrets. */
const ofCertManager = "controller.cert-manager.io/fao=true";

/** Name -> certificate, of every Secret that cert-manager has made. */
async function certificatesOf(cluster: Cluster): Promise<Map<string, unknown>> {
  const secrets = (await cluster.list("secrets", namespace, ofCertManager)) as {
    metadata: { name: string };
    data?: object;
  }[];
  return new Map(secrets.map(({ metadata, data }) => [metadata.name, (data as Record<string, unknown>)["tls.crt"]]));
}

const seconds = (start: number): number => Math.round((Date.now() - start) / 1000);

async function publicKeyOf(client: SiteClient): Promise<string> {
  const answer = await client.request(`/users/${client.names.owner}`, {
    headers: { accept: "application/activity+json" },
  });
  const actor = JSON.parse(answer.text) as { publicKey?: { publicKeyPem?: string } };
  const pem = actor.publicKey?.publicKeyPem;
  assert.ok(pem, `the actor shows no key: ${answer.status}`);
  return pem;
}

/** Key -> digest and time of change, of everything below a prefix of the vault. */
async function objectsOf(s3: ObjectServer, prefix: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (let token: string | undefined = ""; token !== undefined;) {
    const query: string = new URLSearchParams({
      "list-type": "2",
      prefix,
      ...(token ? { "continuation-token": token } : {}),
    }).toString();
    const page = await s3.request("GET", `${buckets.vault}?${query}`);
    for (const [, entry = ""] of page.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
      const part = (tag: string) => new RegExp(`<${tag}>([^<]*)<`).exec(entry)?.[1] ?? "";
      found.set(part("Key"), `${part("ETag")} ${part("LastModified")}`);
    }
    token = /<NextContinuationToken>([^<]*)</.exec(page)?.[1];
  }
  return found;
}

/** Waits until everything written so far is in the vault. */
async function archived(cluster: Cluster): Promise<void> {
  const segment = await cluster.sql("SELECT pg_walfile_name(pg_switch_wal())");
  await eventually(120, `${segment} in the vault`, async () => {
    const last = await cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver");
    assert.ok(last.slice(8, 24) >= segment.slice(8), `the last one is ${last}`);
  });
}
