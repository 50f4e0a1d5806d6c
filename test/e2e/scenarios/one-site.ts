/**
 * One site, from an empty cluster to a handle that can be followed (issue 3, "Done means" 1 to 6).
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { Readable } from "node:stream";
import { mutations, verificationLines } from "../cases/mutations";
import { credentialsOf, keysIn, secretsBelow, secretsIn } from "../cases/secrets";
import { wrongConfigurations } from "../cases/wrong-configurations";
import { serveChartIndex } from "../support/chart-index";
import { Cluster, differences } from "../support/cluster";
import { chartIngress, withoutOurRoutes } from "../support/chart-ingress";
import { Peer } from "../support/peer";
import { allOf, eventually, fewAtATime, sleep } from "../support/processes";
import { diagnosis, succeeded } from "../support/project";
import type { Project, PulumiOutcome } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { handOnSite, outlivingTheScenario } from "../support/shared";
import { SiteClient } from "../support/site";
import { authorityOf, clientOf, namesOf, prepare } from "../support/stack";
import type { Secrets } from "../support/stack";
import { resolveVia } from "../support/names";
import { wouldBeTaken } from "../support/published";
import { fields } from "../../../policy/objects";

const namespace = "homestead";
/** What the DNS command takes its token as, encrypted in the stack's file. */
const dnsToken = "DNS_TOKEN";

/** What the parts of the scenario share. */
interface Site {
  context: Context;
  project: Project;
  cluster: Cluster;
  secrets: Secrets;
  client: SiteClient;
  /** Mastodon takes no password for a token, and looks into what is uploaded. */
  mastodon: "official" | "stand-in";
  /** Output of every update and preview, for the search for secrets. */
  outputs: string[];
}

export const oneSite: Scenario = {
  name: "one-site",
  what: "an empty cluster becomes a server whose owner can be followed",
  place: "beside",
  minutes: 12,
  limit: 40,
  async run(context) {
    const { environment, report } = context;
    const cluster = new Cluster(environment.home, environment);
    const { project, secrets, s3 } = await outlivingTheScenario(() => prepare(context, [environment.home]));
    const outputs: string[] = [];

    await report.check("preview on the empty cluster succeeds and changes nothing", async () => {
      const before = await cluster.inventory();
      outputs.push(succeeded(await project.preview("home"), "preview").output);
      assert.deepEqual(differences(before, await cluster.inventory()), []);
      assert.deepEqual(project.takeDnsCalls(), []);
    });
    await report.check("homestead verify says that the site has no authority yet", async () => {
      const { code, output } = await project.homestead(["verify", "home"]);
      assert.equal(code, 1, output);
      assert.match(output, /^home has no authority yet, .+: pulumi up --stack home first; /m);
    });
    const first = await report.step("pulumi up, from nothing", () => project.up("home"));
    outputs.push(first.output);
    await report.check("pulumi up succeeds in one go", () => succeeded(first, "pulumi up"));
    if (first.code !== 0) throw new Error("without a site nothing else can be tried");

    const client = await clientOf(cluster, namesOf(environment.zone), secrets);
    const mastodon = (await client.takesPasswords()) ? "stand-in" : "official";
    const site: Site = { context, project, cluster, secrets, client, mastodon, outputs };
    await dnsWasSet(site);
    await ownerCanLogIn(site);
    await staysTheOnlyIdentity(site);
    await nothingToDo(site);
    // The one asks the API server alone, and the other waits for most of its time.
    await allOf([publishedImagesAreTaken(site), federates(site)]);
    await carriesMediaAndStreams(site);
    await mutationsAreCaught(site);
    await wrongConfigurationsAreRefused(site);
    await secretsRestartPods(site);
    // In a whole run `upgrade` shows the same.
    if (context.extent !== "brief") await failedSchemaJobIsTold(site);
    await rowsSurvive(site);
    await noSecretInClear(site);
    if (report.broken.length > 0) return;
    // Its authority is a new one since the site was destroyed.
    const renewed = await clientOf(cluster, client.names, secrets);
    await handOnSite({ project, secrets, s3, cluster, client: renewed, outputs });
  },
};

// ---------------------------------------------------------------- 1

async function dnsWasSet({ context: { environment, report }, project }: Site): Promise<void> {
  await report.check("the update's last step was DNS: apex and web host, once each", async () => {
    const { apex, webHost } = namesOf(environment.zone);
    const calls = project.takeDnsCalls().map((line) => line.split(" ").slice(0, 3).join(" "));
    assert.deepEqual(calls.sort(), [apex, webHost].map((name) => `${name} A ${environment.home.address}`).sort());
    for (const name of [apex, webHost])
      assert.deepEqual(await resolveVia(environment, name), [environment.home.address]);
  });
}

async function ownerCanLogIn({ context: { report }, cluster, client, mastodon }: Site): Promise<void> {
  const logsIn = "the owner logs in with the first password";
  if (mastodon === "official") {
    report.skip(logsIn, "Mastodon gives no token for a password, and Rails, which gave this one, asks for none");
  }
  await report.check(mastodon === "official" ? "the owner is Owner" : `${logsIn}, and is Owner`, async () => {
    const account = await client.api("/api/v1/accounts/verify_credentials");
    assert.equal(account["username"], client.names.owner);
    assert.equal((account["role"] as { name?: string } | undefined)?.name, "Owner");
  });
  if (mastodon === "stand-in") {
    await report.control(
      "another password logs in, too",
      () =>
        new SiteClient(client.names, client.via, "another password", () => Promise.resolve("")).api(
          "/api/v1/preferences",
        ),
      /invalid_grant/,
    );
  }
  await report.check("without a mail server mails are thrown away, not retried for days", async () => {
    const environment = await cluster.get("configmap", "mastodon-env", namespace);
    assert.equal(environment?.data?.["SMTP_DELIVERY_METHOD"], "test");
  });
}

async function staysTheOnlyIdentity({ context: { report }, project }: Site): Promise<void> {
  await report.check("no other identity is made for vps, whose stack is not there yet", async () => {
    const { code, output } = await project.homestead(["identity", "create", "--stacks", "vps"]);
    assert.equal(code, 1, output);
    assert.match(output, /^nothing was written, .*'home' has all of them\. .*: npx homestead identity copy home vps$/m);
    const { stdout } = await project.mustPulumi(["stack", "ls", "--json"]);
    assert.deepEqual(
      (JSON.parse(stdout) as { name: string }[]).map(({ name }) => name),
      ["home"],
    );
  });
}

async function nothingToDo(site: Site): Promise<void> {
  const { context, project, outputs } = site;
  const { report, environment } = context;
  const preview = async (of: Project) => {
    const outcome = await of.preview("home", ["--expect-no-changes"]);
    outputs.push(outcome.output);
    succeeded(outcome, "preview --expect-no-changes");
  };
  // Where the provider's own update is allowed, what else there is must be read from the steps.
  const onlyProviders = async (of: Project) => {
    const outcome = succeeded(await of.preview("home", ["--json"]), "preview --json");
    const { steps, changeSummary } = JSON.parse(outcome.stdout) as {
      steps: { op: string; urn: string }[];
      changeSummary: { same?: number };
    };
    // Reading what is there is no change either.
    const others = steps.filter(
      ({ op, urn }) =>
        op !== "same" && op !== "read" && !(op === "update" && urn.includes("::pulumi:providers:kubernetes::")),
    );
    assert.deepEqual(
      others.map(({ op, urn }) => `${op} ${urn.split("::").slice(2).join(" ")}`),
      [],
    );
    assert.ok((changeSummary.same ?? 0) > 40, `only ${changeSummary.same ?? 0} resources stay as they are`);
  };
  const moved = path.join(project.root, "moved", "kubeconfig");
  fs.mkdirSync(path.dirname(moved), { recursive: true });
  fs.copyFileSync(environment.home.kubeconfig, moved);
  const cluster = { context: environment.home.context, kubeconfig: moved };
  const withValues = (name: string, values: Record<string, unknown>, look: (of: Project) => Promise<void>) => () =>
    project.twin(name, (twin) => {
      for (const [key, value] of Object.entries(values)) twin.set("home", key, value);
      return look(twin);
    });
  const looks = [
    () => report.check("the next preview shows no change", () => preview(project)),
    () =>
      report.control(
        "a preview after a changed setting shows a change",
        withValues("changed", { locale: "de" }, preview),
        /no changes were expected for preview but changes were proposed/,
      ),
    () =>
      report.check(
        "nor after the kubeconfig moved, the provider's own update apart",
        withValues("moved", { cluster }, onlyProviders),
      ),
    () =>
      report.control(
        "a moved kubeconfig and a changed setting show a change",
        withValues("moved-and-changed", { cluster, locale: "de" }, onlyProviders),
        /update .*helm.sh/,
      ),
  ];
  await fewAtATime(3, looks, (look) => look());
}

// ---------------------------------------------------------------- 2

/** The lab's images have other names than the published ones, and no digests. */
async function publishedImagesAreTaken({ context: { report }, cluster }: Site): Promise<void> {
  await report.check("the API server would take every object of the site with the published images", async () => {
    assert.ok((await wouldBeTaken(cluster, "home")) > 50);
  });
  await report.control(
    "it would take a label with a digest in it",
    () =>
      wouldBeTaken(cluster, "home", (object) =>
        object.kind === "Deployment"
          ? { ...object, metadata: { ...fields(object["metadata"]), labels: { version: "v1@sha256:77f11d1" } } }
          : object,
      ),
    /a valid label must be/,
  );
}

async function federates(site: Site): Promise<void> {
  const { context, cluster, client } = site;
  const { report } = context;
  const { apex, owner } = client.names;
  const handle = `@${owner}@${apex}`;
  const trusted = await authorityOf(cluster);
  const peer = await report.step("a remote server outside the cluster", () => Peer.start(context, trusted));

  await report.check(`the remote server finds ${handle} from the apex alone`, async () => {
    const actor = await peer.lookUp(handle);
    assert.equal(new URL(actor).host, client.names.webHost);
  });
  await report.check("it follows, and gets the Accept", async () => {
    await peer.follow(handle);
    await peer.accepted(60);
  });
  const text = `first post ${crypto.randomUUID()}`;
  await report.check("a post reaches it", async () => {
    await client.post(text);
    await peer.received(text, 60);
  });
  const arrived = Date.now();

  const ingress = await chartIngress(context, cluster, client.names);
  await withoutOurRoutes(cluster, ingress, async () => {
    await report.check(
      "with the chart's own ingress and no route at the apex, the web host answers WebFinger",
      async () => {
        // Traefik takes changes over every 2 s: when the blog's route is gone, the others are with the next ones.
        await eventually(30, "our routes gone", async () => assert.equal((await client.apex("/")).status, 404));
        await sleep(5000);
        await eventually(30, "WebFinger at the web host", async () => {
          const answer = await client.request(`/.well-known/webfinger?resource=acct:${owner}@${apex}`);
          assert.equal(answer.status, 200);
        });
      },
    );
    const stranger = await Peer.start(context, trusted, "stranger");
    await report.control(
      `with that alone, a remote server finds ${handle}`,
      () => stranger.lookUp(handle),
      /404|not found|no actor/i,
    );
    await stranger.stop();
  });
  await report.check("the post reached the first one exactly once", async () => {
    // A second copy would come with a retry; Sidekiq's first is after some 15 s.
    await sleep(Math.max(0, arrived + 20_000 - Date.now()));
    assert.equal(await peer.countOf(text), 1);
  });
  await report.check("with our routes back, a remote server that has not asked before finds it", async () => {
    const newcomer = await Peer.start(context, trusted, "newcomer");
    await eventually(30, handle, () => newcomer.lookUp(handle));
    await newcomer.stop();
  });
  await peer.stop();
}

// ---------------------------------------------------------------- the edge

async function carriesMediaAndStreams({ context: { report }, client, mastodon }: Site): Promise<void> {
  const carried = "100 MB of media go up through the ingress, and come down from the media bucket";
  const carries = async () => {
    const size = 100 * 1000 * 1000;
    const boundary = `e2e-${crypto.randomUUID()}`;
    const head = Buffer.from(
      `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.mp4"\r\ncontent-type: video/mp4\r\n\r\n`,
    );
    const end = Buffer.from(`\r\n--${boundary}--\r\n`);
    const block = crypto.randomBytes(1_000_000);
    const digest = crypto.createHash("sha256");
    for (let i = 0; i < size / block.length; i++) digest.update(block);
    const body = Readable.from(
      (function* () {
        yield head;
        for (let i = 0; i < size / block.length; i++) yield block;
        yield end;
      })(),
    );
    const media = await client.api("/api/v2/media", {
      method: "POST",
      headers: {
        "content-type": `multipart/form-data; boundary=${boundary}`,
        "content-length": String(head.length + size + end.length),
      },
      body,
      seconds: 240,
    });
    const url = String(media["url"]);
    const answer = await fetch(url, { signal: AbortSignal.timeout(60_000) });
    assert.equal(answer.status, 200, `${url}: ${answer.status}`);
    const received = crypto.createHash("sha256");
    let length = 0;
    for await (const chunk of answer.body ?? []) {
      received.update(chunk as Uint8Array);
      length += (chunk as Uint8Array).length;
    }
    assert.equal(length, size);
    assert.equal(received.digest("hex"), digest.digest("hex"));
  };
  if (mastodon === "stand-in") await report.check(carried, carries);
  else report.skip(carried, "Mastodon makes a video of what it is given, and the suite has 100 MB of nothing");
  const told = async (post: boolean) => {
    const stream = await client.stream();
    try {
      const text = `streamed ${crypto.randomUUID()}`;
      if (post) await client.post(text);
      await eventually(15, "the websocket is told of the post", () => {
        assert.ok(
          stream.messages.some((message) => message.includes(text)),
          `${stream.messages.length} other messages`,
        );
      });
    } finally {
      await stream.close();
    }
  };
  await report.check("a websocket on the web host is told of a new post", () => told(true));
  await report.control("a websocket is told of a post that nobody made", () => told(false), /other messages/);
}

// ---------------------------------------------------------------- 3

async function mutationsAreCaught(site: Site): Promise<void> {
  const { context, project, outputs } = site;
  const { report, environment } = context;
  const brokenBlog = environment.images["broken-blog"];
  if (brokenBlog === undefined) {
    report.skip("the blog's image is broken: the update fails and says why", "E2E_IMAGES has no broken-blog");
  }
  // Another TTL each time: an update that gets past the verification has records to change, so that the command's
  // silence says something.
  let ttl = 60;
  // What is tried is the verdict, not how long a fault that may pass is waited for.
  const patience = context.extent === "full" ? undefined : 30;
  const update = async (change: () => void, files: string[], retrySeconds = patience): Promise<PulumiOutcome> => {
    project.takeDnsCalls();
    return project.changed(
      ["Pulumi.home.yaml", "lib/verify.ts", ...files],
      () => {
        project.set("home", "dns", { ...(project.value("home", "dns") as object), ttl: ++ttl });
        if (retrySeconds !== undefined)
          project.edit("lib/verify.ts", /retrySeconds \?\? 120/, `retrySeconds ?? ${retrySeconds}`);
        change();
      },
      () => project.up("home"),
    );
  };
  for (const mutation of mutations(brokenBlog)) {
    await report.check(
      `${mutation.what}: the update fails with one line that says why, DNS is left alone`,
      async () => {
        const broken = () => mutation.change(project);
        const outcome = await update(broken, [mutation.file], context.extent === "brief" ? 15 : patience);
        outputs.push(outcome.output);
        assert.notEqual(outcome.code, 0, "the update succeeded");
        const lines = verificationLines(outcome.output);
        assert.ok(
          lines.length === 1 && mutation.error.test(lines[0] ?? ""),
          `${outcome.log}: not one line that matches ${mutation.error}; it said: ${lines.join(" / ") || diagnosis(outcome.output)}`,
        );
        assert.deepEqual(project.takeDnsCalls(), []);
      },
    );
  }
  await report.check(
    "control: the same update of the unchanged sources succeeds and calls the DNS command",
    async () => {
      const outcome = await update(() => undefined, []);
      succeeded(outcome, "pulumi up");
      assert.equal(project.takeDnsCalls().length, 2);
    },
  );
}

// ---------------------------------------------------------------- 5

async function wrongConfigurationsAreRefused(site: Site): Promise<void> {
  const { context, project, cluster, outputs } = site;
  const { report, environment } = context;
  const repository = await serveChartIndex(environment, "mastodon", ["1.0.2", "1.0.1"]);
  // What the control below changes must be all that changes.
  succeeded(await project.up("home"), "pulumi up");
  let before = await cluster.inventory();
  const stateBefore = project.stateDigest();
  const changed = async (): Promise<string[]> => {
    const after = await cluster.inventory();
    const changes = differences(before, after);
    before = after;
    return changes;
  };
  // A look at the whole cluster takes longer than a refusal. In a whole run one after all of them has to do, and nothing
  // keeps them from being tried beside each other.
  const brief = context.extent === "brief";
  let tried = 0;
  await fewAtATime(brief ? 3 : 1, wrongConfigurations(repository), async (wrong) => {
    const same = brief ? "the state is as it was" : "nothing changed";
    await report.check(`${wrong.what}: refused with one clear error, ${same}`, () =>
      project.twin(`wrong-${String(++tried).padStart(2, "0")}`, async (twin) => {
        await wrong.change(twin, environment);
        const outcome = await twin.up("home", { seconds: 180 });
        outputs.push(outcome.output);
        const changes = brief ? [] : await changed();
        assert.notEqual(outcome.code, 0, "the update succeeded");
        for (const text of wrong.says) {
          assert.ok(
            typeof text === "string" ? outcome.output.includes(text) : text.test(outcome.output),
            `${outcome.log}: the output lacks ${String(text)}: ${diagnosis(outcome.output)}`,
          );
        }
        assert.doesNotMatch(outcome.output, /^\s+at .*:\d+:\d+\)?$/m, "a stack trace");
        assert.deepEqual(changes, []);
        assert.equal(twin.stateDigest(), stateBefore, "the state changed");
      }),
    );
  });
  if (brief) {
    await report.check("after all of them nothing on the cluster has changed", async () =>
      assert.deepEqual(await changed(), []),
    );
  }
  await report.control(
    "a right configuration that differs changes nothing",
    async () => {
      const outcome = await project.changed(
        ["Pulumi.home.yaml"],
        () => project.set("home", "locale", "de"),
        () => project.up("home"),
      );
      succeeded(outcome, "pulumi up");
      const changes = await changed();
      assert.equal(changes.length, 0, `changes: ${changes.join(", ")}`);
    },
    /changes: .*mastodon/,
  );
}

// ---------------------------------------------------------------- Secrets and pods

/** Pods of Mastodon by name of their Deployment, with the digest of their identity. */
async function mastodonPods(cluster: Cluster): Promise<Map<string, string>> {
  const pods = (await cluster.pods(namespace)).filter((pod) =>
    /^mastodon-(web|sidekiq|streaming)/.test(pod.metadata.name),
  );
  return new Map(pods.map((pod) => [pod.metadata.name, pod.metadata.uid]));
}

async function secretsRestartPods(site: Site): Promise<void> {
  const { context, project, cluster, client } = site;
  const { report } = context;
  const restarted = async (change: () => Promise<void>) => {
    const before = await mastodonPods(cluster);
    assert.ok(before.size >= 3, `${before.size} pods of Mastodon`);
    await change();
    succeeded(await project.up("home"), "pulumi up");
    await client.healthy();
    const after = await mastodonPods(cluster);
    const same = [...after].filter(([name, uid]) => before.get(name) === uid).map(([name]) => name);
    assert.deepEqual(same, [], `not restarted: ${same.join(", ")}`);
  };
  await report.check(
    "a changed Secret (the database's password) restarts every pod that reads it, and the site works on",
    async () => {
      const password = crypto.randomBytes(16).toString("hex");
      await restarted(() => project.setSecret("home", "databasePassword", password));
      site.secrets.databasePassword = password;
      await client.post(`after the new password ${crypto.randomUUID()}`);
    },
  );
  await report.control(
    "an update that changes no Secret restarts them too",
    () => restarted(() => Promise.resolve()),
    /not restarted: mastodon/,
  );
}

// ---------------------------------------------------------------- a failing migration

async function failedSchemaJobIsTold(site: Site): Promise<void> {
  const { context, project, cluster, client, outputs } = site;
  const { report, environment } = context;
  const broken = environment.images["mastodon-failing-migration"];
  if (broken === undefined) {
    report.skip("a failed schema job's last lines reach the error", "E2E_IMAGES has no mastodon-failing-migration");
    return;
  }
  const images = project.value("home", "images") as Record<string, string>;
  await report.check("a failed schema job's last lines reach the error of the update", async () => {
    const outcome = await project.changed(
      ["Pulumi.home.yaml"],
      () => project.set("home", "images", { ...images, mastodon: broken }),
      () => project.up("home"),
    );
    outputs.push(outcome.output);
    assert.notEqual(outcome.code, 0, "the update succeeded");
    assert.match(outcome.output, /job mastodon-db-(pre-)?migrate failed; its last lines:/, diagnosis(outcome.output));
    assert.match(
      outcome.output,
      /An error has occurred, this and all later migrations canceled/,
      diagnosis(outcome.output),
    );
  });
  await report.check("the version before it serves on, and takes posts", async () => {
    await client.healthy(30);
    await client.post(`after a failed migration ${crypto.randomUUID()}`);
    const pods = (await cluster.pods(namespace)).filter((pod) => pod.metadata.name.startsWith("mastodon-web"));
    assert.ok(!JSON.stringify(pods.map((pod) => pod.spec)).includes(broken));
  });
  await report.step("pulumi up with the image as before", async () => succeeded(await project.up("home"), "pulumi up"));
}

// ---------------------------------------------------------------- 4

/** Posts and follows in the database, as text. */
const rowsOf = async (cluster: Cluster): Promise<string> =>
  cluster.sql(
    "select (select count(*) from statuses), (select count(*) from follows), (select string_agg(username, ',' order by id) from accounts)",
  );

async function rowsSurvive(site: Site): Promise<void> {
  const { context, project, cluster, client, outputs } = site;
  const { report } = context;
  let rows = await rowsOf(cluster);
  await report.check("there are rows to lose", () => assert.match(rows, /^[1-9]\d*\|[1-9]\d*\|.*owner/));
  const kept = async () => assert.equal(await rowsOf(cluster), rows);
  const postWorks = async () => {
    await client.post(`still here ${crypto.randomUUID()}`);
    rows = await rowsOf(cluster);
  };

  await report.check("rows survive the deletion of every pod in the namespace", async () => {
    const before = new Set((await cluster.pods(namespace)).map((pod) => pod.metadata.uid));
    await cluster.kubectl(["delete", "pods", "--all", "-n", namespace, "--wait=false"]);
    await eventually(240, "every pod is a new one and ready", async () => {
      const pods = await cluster.list("pods", namespace);
      const old = pods.filter((pod) => before.has(pod.metadata.uid) && pod.status?.["phase"] !== "Succeeded");
      assert.equal(old.length, 0, old.map((pod) => pod.metadata.name).join(", "));
      const unready = pods.filter((pod) => !isReady(pod.status));
      assert.equal(unready.length, 0, unready.map((pod) => pod.metadata.name).join(", "));
    });
    await client.healthy();
    await eventually(60, "the database", kept);
    // The web pod may be older than the database's, with connections in its pool that ended with the old one.
    await eventually(30, "a post is taken", postWorks);
  });

  // In a whole run `upgrade` shows the same, and looks at more.
  if (context.extent !== "brief") await anotherImageTag(site, kept, postWorks);

  await report.check("pulumi destroy ends, and the site is gone", async () => {
    const outcome = await project.destroy("home");
    outputs.push(outcome.output);
    succeeded(outcome, "pulumi destroy");
    const left = (await cluster.pods(namespace)).filter((pod) =>
      /^mastodon-(web|sidekiq|streaming)/.test(pod.metadata.name),
    );
    assert.deepEqual(
      left.map((pod) => pod.metadata.name),
      [],
    );
    await assert.rejects(client.healthy(3));
  });
  await report.check("a version that skips one is refused after it too: it leaves a note of what ran", () =>
    project.changed(
      ["Pulumi.home.yaml"],
      () => {
        const images = project.value("home", "images") as Record<string, string> | undefined;
        project.set("home", "images", { ...images, mastodon: "ghcr.io/mastodon/mastodon:v4.99.0" });
      },
      async () => {
        const outcome = await project.preview("home");
        assert.notEqual(outcome.code, 0, "the preview succeeded");
        assert.match(outcome.output, /ran last, and no minor version may be skipped/, diagnosis(outcome.output));
      },
    ),
  );
  // A mail server has a password, one more for the search for secrets.
  project.set("home", "smtp", {
    kind: "server",
    host: `mail.${client.names.apex}`,
    from: client.names.ownerEmail,
    auth: "plain",
    username: "mail",
  });
  await project.setSecret("home", "smtpPassword", crypto.randomBytes(16).toString("hex"));
  // And the DNS command has a token in it.
  const { command } = project.value("home", "dns") as { command: string };
  await project.setSecret("home", "dns.command", `${dnsToken}=${crypto.randomBytes(16).toString("hex")} ${command}`);
  await cluster.forgetLeaders();
  await report.check("pulumi up after it finds the rows again, and nothing 'already exists'", async () => {
    const outcome = await project.up("home");
    outputs.push(outcome.output);
    assert.doesNotMatch(outcome.output, /already exists/i);
    succeeded(outcome, "pulumi up");
    await kept();
  });
  const renewed = await clientOf(cluster, client.names, site.secrets);
  await report.check("and takes posts from the same account", async () => {
    await renewed.post(`after destroy ${crypto.randomUUID()}`);
  });
  await report.control(
    "a count of rows that counts nothing passes",
    async () => {
      rows = rows.replace(/^\d+/, "1000000");
      await kept();
    },
    /1000000/,
  );
}

/** @param kept whether all rows are there. @param postWorks makes one more */
async function anotherImageTag(
  { context, project, cluster, outputs }: Site,
  kept: () => Promise<void>,
  postWorks: () => Promise<void>,
): Promise<void> {
  const { report, environment } = context;
  const next = environment.images["mastodon-next"];
  if (next === undefined)
    return report.skip("rows survive an update to another image tag", "E2E_IMAGES has no mastodon-next");
  const streaming = environment.images["mastodon-streaming-next"];
  await report.check("rows survive an update to another image tag", async () => {
    const images = {
      ...(project.value("home", "images") as object),
      mastodon: next,
      ...(streaming ? { "mastodon-streaming": streaming } : {}),
    };
    project.set("home", "images", images);
    const outcome = await project.up("home");
    outputs.push(outcome.output);
    succeeded(outcome, "pulumi up");
    const pods = (await cluster.pods(namespace)).filter((pod) => pod.metadata.name.startsWith("mastodon-web"));
    assert.ok(JSON.stringify(pods.map((pod) => pod.spec)).includes(next), "the pods have another image");
    await kept();
    await postWorks();
  });
}

const isReady = (status: Record<string, unknown> | undefined): boolean =>
  status?.["phase"] === "Succeeded" ||
  (status?.["conditions"] as { type: string; status: string }[] | undefined)?.some(
    (c) => c.type === "Ready" && c.status === "True",
  ) === true;

// ---------------------------------------------------------------- 6

async function noSecretInClear(site: Site): Promise<void> {
  const { context, project, cluster, outputs } = site;
  const { environment, report } = context;
  const valkey = await cluster.get("secret", "valkey", namespace);
  const credentials = credentialsOf(environment.home);
  const spaces = [namespace, "cert-manager", "cnpg-system"];
  const made = keysIn((await Promise.all(spaces.map((space) => cluster.list("secrets", space)))).flat());
  const secrets: Record<string, string> = {
    ...made,
    ...site.secrets,
    smtpPassword: await project.secret("home", "smtpPassword"),
    [dnsToken]: (await project.secret("home", "dns.command")).split(/[= ]/)[1] ?? "",
    ...credentials,
    valkeyPassword: Buffer.from(valkey?.data?.["password"] ?? "", "base64").toString(),
    passphrase: project.passphrase,
  };
  // Access keys are names rather than secrets: they are in every signed request.
  for (const key of ["vaultAccessKeyId", "mediaAccessKeyId", "vapidPublicKey"]) delete secrets[key];
  await report.check("every secret is known to the search", () => {
    assert.deepEqual(
      Object.entries(secrets)
        .filter(([, value]) => value.length < 8)
        .map(([name]) => name),
      [],
    );
  });
  await report.check(
    "so are the keys that the cluster made: the authority's, the certificate's, the database's",
    () => {
      const missing = [/^authority-tls\//, /^web-/, /^postgres-g\d+-/].filter(
        (name) => !Object.keys(made).some((key) => name.test(key)),
      );
      assert.deepEqual(missing, []);
    },
  );

  const clean = (what: string, text: () => Promise<string> | string) =>
    report.check(`no secret in clear in ${what}`, async () => {
      const searched = await text();
      assert.ok(searched.length > 100, "there was nothing to search");
      const found = secretsIn(searched, secrets);
      assert.deepEqual(found, [], found.join(", "));
    });
  await clean("the exported state", () => project.exportState("home"));
  await report.check("no secret in clear in the state's files", () =>
    assert.deepEqual(secretsBelow(project.state, secrets), []),
  );
  await clean("the output of previews and updates", () => outputs.join("\n"));
  await clean("the stack's file", () => project.read("Pulumi.home.yaml"));
  await report.check("homestead plan, and no secret in clear in what it prints and writes to out/", async () => {
    const outcome = succeeded(await project.homestead(["plan", "home"]), "homestead plan");
    assert.deepEqual(secretsIn(outcome.output, secrets), []);
    assert.ok(fs.existsSync(project.path("out/home")), "there is no out/home");
    assert.deepEqual(secretsBelow(project.path("out"), secrets), []);
  });
  await report.check("no secret in clear in anything else of the project's folder, golden files included", () => {
    assert.deepEqual(
      secretsBelow(project.folder, secrets, (file) => file.startsWith("node_modules")),
      [],
    );
  });
  await clean("any ConfigMap", async () => JSON.stringify(await cluster.list("configmaps")));
  await clean("any pod's specification or annotation", async () => JSON.stringify(await cluster.list("pods")));
  await clean("any other object but Secrets", async () => {
    const kinds =
      "deployments,statefulsets,jobs,services,ingressroutes.traefik.io,middlewares.traefik.io,clusters.postgresql.cnpg.io,events";
    return JSON.stringify(await cluster.list(kinds, namespace));
  });
  await report.control(
    "the search overlooks a Secret of the cluster",
    async () => {
      const found = secretsIn(JSON.stringify(await cluster.list("secrets", namespace)), secrets);
      assert.deepEqual(found, []);
    },
    /secretKeyBase/,
  );
  const shown = async (searched: Record<string, string>) => {
    const state = (await project.mustPulumi(["stack", "export", "--show-secrets", "--stack", "home"])).stdout;
    assert.deepEqual(secretsIn(state, searched), []);
  };
  await report.control("the search overlooks the state with secrets shown", () => shown(secrets), /databasePassword/);
  // The program looks that Secret up for the certificate in it.
  const authority = Object.fromEntries(Object.entries(made).filter(([name]) => name.startsWith("authority-tls/")));
  await report.control("it overlooks the authority's key there", () => shown(authority), /authority-tls\/tls\.key/);
  const { smtpPassword = "" } = secrets;
  await report.control("it overlooks the mail server's password there", () => shown({ smtpPassword }), /smtpPassword/);
  const token = { [dnsToken]: secrets[dnsToken] ?? "" };
  await report.control("it overlooks the DNS command's token there", () => shown(token), /DNS_TOKEN/);
  const overlooked = "it overlooks there what the provider signs in with";
  if (Object.keys(credentials).length > 0) {
    await report.control(overlooked, () => shown(credentials), /kubeconfig (client-key-data|token|password)/);
  } else report.skip(`control: ${overlooked}`, "the kubeconfig has no key, token or password of its own");
}
