/**
 * Full-text search: switched on beside a site that runs, its index built once, kept to Mastodon, and built again when
 * its volume is gone.
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { mustBeAdmitted, unrestricted } from "../support/admission";
import { claimGone, claimUid } from "../support/claims";
import { differences } from "../support/cluster";
import type { Cluster, KubeObject } from "../support/cluster";
import { containersOf, isReady } from "../support/disk";
import { breaches, lookFrom } from "../support/egress";
import type { Sight, Target } from "../support/egress";
import { allOf, eventually } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import type { Project } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { mustBeOk, SearchServer } from "../support/search-server";
import { handOnSite, takeSite } from "../support/shared";
import type { SiteClient } from "../support/site";
import { images } from "../../../versions";

const namespace = "homestead";
const pod = "search-0";
const wanted = { kind: "elasticsearch", size: "1Gi" };

export const search: Scenario = {
  name: "search",
  what: "a search server is added to a site, indexes its posts once, lets nobody but Mastodon in, and is rebuilt when lost",
  place: "beside",
  minutes: 4,
  limit: 25,
  async run(context) {
    const { environment, report } = context;
    if (environment.lab !== undefined && environment.images["elasticsearch"] === undefined) {
      report.skip("search", "the lab has no image of Elasticsearch (test/e2e/README.md)");
      return;
    }
    const taken = await takeSite(context);
    const { project, cluster, client } = taken;
    const server = new SearchServer(cluster, namespace);
    const site: Site = {
      context,
      project,
      cluster,
      client,
      server,
      word: `e2e${crypto.randomBytes(6).toString("hex")}`,
    };

    await refusedOnNfs(site);
    const posts = await report.step("three posts", () => posted(site, 3));
    const found = mustFind(site, posts);
    await report.control("posts are found before there is search", found, /no secret 'search'/);
    project.set("home", "search", wanted);
    const added = await report.step("pulumi up with search", () => project.up("home"));
    await report.check("pulumi up with search succeeds", () => succeeded(added, "pulumi up"));
    if (added.code !== 0) throw new Error("without a search server nothing else can be tried");

    await runsRestricted(site);
    await report.check("the three posts that were there before are found by a word in them", found);
    await report.control("a word in no post finds them", mustFind({ ...site, word: "nowhere" }, posts), /found \[\]/);
    await allOf([passwordIsAsked(site), onlyMastodonGetsThere(site), builtOnce(site)]);
    await outlivesItsPod(site, found);
    await lostAndBuiltAgain(site, posts);
    await switchedOff(site);
    if (report.broken.length === 0) await handOnSite(taken);
  },
};

interface Site {
  context: Context;
  project: Project;
  cluster: Cluster;
  client: SiteClient;
  server: SearchServer;
  /** Stands in every post of this run and nowhere else. */
  word: string;
}

/** Posts some texts with the word. @returns their ids */
async function posted({ client, word }: Site, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) ids.push(await client.post(`post ${i} about ${word} and more`));
  return ids;
}

/** A probe: these posts, and no others, are found by the word. */
const mustFind =
  ({ server, word }: Site, posts: readonly string[]) =>
  async (): Promise<void> => {
    const ids = await server.found(word);
    assert.deepEqual(ids, [...posts].sort(), `found [${ids.join(", ")}] of [${posts.join(", ")}]`);
  };

async function refusedOnNfs({ context: { environment, report }, project, cluster }: Site): Promise<void> {
  await report.check("search on an NFS profile is refused in one clear line, before anything changes", async () => {
    const before = await cluster.inventory();
    const state = project.stateDigest();
    const onNfs = () => {
      project.set("home", "storage", { kind: "nfs", databases: environment.home.storageClass });
      project.set("home", "search", wanted);
    };
    const { code, output, log } = await project.changed(["Pulumi.home.yaml"], onNfs, () =>
      project.up("home", { seconds: 180 }),
    );
    assert.notEqual(code, 0, "the update succeeded");
    const said = `${log}: ${diagnosis(output)}`;
    assert.match(output, /^.*1 fault in the configuration of stack 'home'; nothing was changed/m, said);
    assert.match(output, /homestead:search\.kind: "elasticsearch"/, said);
    assert.match(output, /allowed: off, since storage\.kind is nfs: .*NFS does not give$/m, said);
    assert.doesNotMatch(output, /^\s+at .*:\d+:\d+\)?$/m, "a stack trace");
    assert.deepEqual(differences(before, await cluster.inventory()), []);
    assert.equal(project.stateDigest(), state, "the state changed");
  });
}

async function searchPod(cluster: Cluster): Promise<KubeObject> {
  const found = await cluster.get("pod", pod, namespace);
  if (found === undefined) throw new Error(`no pod ${pod}`);
  return found;
}

async function runsRestricted({ context: { report }, cluster }: Site): Promise<void> {
  await report.check("its pod is ready, admitted under Pod Security restricted, and was never restarted", async () => {
    const labels = (await cluster.get("namespace", namespace))?.metadata.labels ?? {};
    assert.equal(labels["pod-security.kubernetes.io/enforce"], "restricted");
    const running = await searchPod(cluster);
    assert.ok(isReady(running), JSON.stringify(running.status?.["conditions"]));
    await mustBeAdmitted(cluster, running);
    const restarts = containersOf(running).map(({ name, restartCount }) => `${name} ${restartCount}`);
    assert.deepEqual(restarts, ["elasticsearch 0"]);
  });
  await report.control(
    "the same pod is admitted without its restrictions",
    async () => mustBeAdmitted(cluster, await searchPod(cluster), unrestricted),
    /violates PodSecurity "restricted/,
  );
}

async function passwordIsAsked({ context: { report }, server }: Site): Promise<void> {
  const path = "/statuses/_search";
  const asked = async (password: string | undefined) => mustBeOk(await server.ask(path, password), path);
  await report.check("the password in the Secret opens it", async () => asked(await server.password()));
  await report.control("it answers without a password", () => asked(undefined), /HTTP 401/);
  await report.control("it answers to a wrong one", () => asked("not-the-password"), /HTTP 401/);
}

async function onlyMastodonGetsThere({ context: { environment, report }, cluster }: Site): Promise<void> {
  const running = await searchPod(cluster);
  const target = (name: string, { status }: KubeObject, port: number): Target => ({
    name,
    host: String(status?.["podIP"]),
    port,
  });
  const part = async (label: string, name: RegExp): Promise<KubeObject> => {
    const pods = await cluster.pods(namespace, `app.kubernetes.io/name=${label}`);
    const found = pods.find((candidate) => name.test(candidate.metadata.name));
    if (found === undefined) throw new Error(`no pod of ${label}`);
    return found;
  };
  const web = await part("mastodon", /web/);
  const streaming = await part("mastodon", /streaming/);
  const image = environment.images["node"] ?? images.node;
  const look = (from: KubeObject, targets: Target[]): Promise<Sight> => {
    const container = containersOf(from).find(({ state }) => state?.running !== undefined);
    if (container === undefined) throw new Error(`no container of ${from.metadata.name} runs`);
    return lookFrom(cluster, image, from, container.name, targets);
  };
  const port = target("search", running, 9200);
  const [fromWeb, fromStreaming, fromSearch] = await report.step("a look around from web, streaming and search", () =>
    Promise.all([look(web, [port]), look(streaming, [port]), look(running, [target("web", web, 3000)])]),
  );
  const reached = (sight: Sight) => assert.deepEqual(breaches(sight, { needs: ["search"], never: [] }), []);
  await report.check("Mastodon's web pod reaches it", () => reached(fromWeb));
  await report.control("streaming reaches it, too", () => reached(fromStreaming), /needs search: /);
  await report.check("streaming's own network is there", () => {
    assert.deepEqual(breaches(fromStreaming, { needs: ["dns"], never: ["search"] }), []);
  });
  await report.check("it reaches nobody itself", () => {
    assert.deepEqual(breaches(fromSearch, { needs: [], never: ["web"] }), []);
  });
}

/** The one Job that builds the index. @throws Error unless there is just one, and it succeeded */
async function indexJob(cluster: Cluster): Promise<KubeObject> {
  const jobs = await cluster.list("jobs", namespace, "app.kubernetes.io/name=mastodon-search-index");
  assert.equal(jobs.length, 1, `jobs: ${jobs.map(({ metadata }) => metadata.name).join(", ")}`);
  const [job] = jobs;
  assert.ok(job);
  assert.equal(job.status?.["succeeded"], 1, `${job.metadata.name}: ${JSON.stringify(job.status)}`);
  return job;
}

async function builtOnce({ context: { report }, project, cluster, server }: Site): Promise<void> {
  const preview = async (of: Project) => {
    succeeded(await of.preview("home", ["--expect-no-changes"]), "preview --expect-no-changes");
  };
  await allOf([
    report.check("the next preview shows no change", () => preview(project)),
    report.control(
      "a preview of a larger volume shows no change",
      () =>
        project.twin("larger", (twin) => {
          twin.set("home", "search", { ...wanted, size: "2Gi" });
          return preview(twin);
        }),
      /no changes were expected for preview but changes were proposed/,
    ),
  ]);
  await report.check("another pulumi up builds no second index", async () => {
    const [job, index] = [await indexJob(cluster), await server.indexUid()];
    succeeded(await project.up("home"), "pulumi up");
    const after = await indexJob(cluster);
    assert.equal(after.metadata.uid, job.metadata.uid);
    assert.equal(after.status?.["startTime"], job.status?.["startTime"]);
    assert.equal(await server.indexUid(), index);
  });
}

async function outlivesItsPod({ context: { report }, cluster, server }: Site, found: () => Promise<void>) {
  await report.check("the index outlives the deletion of the pod", async () => {
    const { uid } = (await searchPod(cluster)).metadata;
    const index = await server.indexUid();
    await cluster.kubectl(["delete", "pod", pod, "-n", namespace, "--wait=true"], { seconds: 180 });
    await eventually(240, "another pod is ready", async () => {
      const now = await searchPod(cluster);
      assert.notEqual(now.metadata.uid, uid);
      assert.ok(isReady(now), JSON.stringify(now.status?.["conditions"]));
    });
    // It is ready when it answers, and opens its index a moment later.
    await eventually(60, "the index is open", found);
    assert.equal(await server.indexUid(), index);
  });
}

/** The claim first, so that no new pod can take the volume on; it goes when the pod does. */
async function deleteVolume(cluster: Cluster): Promise<void> {
  await cluster.kubectl(["delete", "persistentvolumeclaim", "search", "-n", namespace, "--wait=false"]);
  await cluster.kubectl(["delete", "pod", pod, "-n", namespace], { seconds: 180 });
  await claimGone(cluster, "search", namespace);
}

async function lostAndBuiltAgain(site: Site, posts: readonly string[]): Promise<void> {
  const { project, cluster, server } = site;
  const { report } = site.context;
  const [job, index] = [await indexJob(cluster), await server.indexUid()];
  // Of a time when the first index was finished: a rebuilt one has it for certain.
  const more = await report.step("one more post", () => posted(site, 1));
  await report.step("the volume is deleted, index and all", () => deleteVolume(cluster));
  await report.control(
    "the index is still on a volume of the cluster",
    () => claimUid(cluster, "search", namespace),
    /no claim 'search'/,
  );
  const again = await report.step("pulumi up --refresh --run-program", () =>
    project.pulumi(["up", "--stack", "home", "--yes", "--skip-preview", "--refresh", "--run-program"]),
  );
  await report.check("pulumi up on the lost volume succeeds", () => succeeded(again, "pulumi up"));
  await report.check("a new index has every post, those of before and the one since", async () => {
    await mustFind(site, [...posts, ...more])();
    assert.notEqual(await server.indexUid(), index);
    assert.notEqual((await indexJob(cluster)).metadata.uid, job.metadata.uid);
  });
}

async function switchedOff(site: Site): Promise<void> {
  const { project, cluster, client } = site;
  const { report } = site.context;
  const parts = async () => {
    const kinds = "statefulsets,services,secrets,persistentvolumeclaims,jobs,pods";
    return (await cluster.list(kinds, namespace))
      .filter(({ metadata }) => /^(mastodon-)?search\b/.test(metadata.name))
      .map(({ kind, metadata }) => `${kind} ${metadata.name}`)
      .sort();
  };
  const gone = async () => assert.deepEqual(await parts(), [], `there is ${(await parts()).join(", ")}`);
  await report.control("nothing of it is there while it is on", gone, /there is .*StatefulSet search/);
  project.set("home", "search", undefined);
  const off = await report.step("pulumi up without search", () => project.up("home"));
  await report.check("pulumi up without search succeeds again", () => succeeded(off, "pulumi up"));
  await report.check("nothing of it is left, its volume included", async () => {
    await eventually(60, "it is gone", gone);
    await claimGone(cluster, "search", namespace);
  });
  await report.check("Mastodon takes posts without it", async () => {
    await client.healthy();
    const environment = await cluster.get("configmap", "mastodon-env", namespace);
    assert.equal(environment?.data?.["ES_ENABLED"], "false");
    await posted(site, 1);
  });
}
