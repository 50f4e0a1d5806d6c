/**
 * What an intruder in one pod could do: Pod Security, who can reach whom, and whether a secret lies about (issue 6,
 * "Done means" 3 and 5).
 */
import * as assert from "node:assert/strict";
import * as net from "node:net";
import * as tls from "node:tls";
import { keysIn, secretsBelow, secretsIn } from "../cases/secrets";
import { mustBeAdmitted, unrestricted } from "../support/admission";
import type { Cluster, KubeObject } from "../support/cluster";
import { containersOf, lasting } from "../support/disk";
import { breaches, internet, lookFrom, parseSight, probeProgram, vaultsHouse } from "../support/egress";
import type { Reach, Sight, Target } from "../support/egress";
import { Node } from "../support/node";
import { atExit, eventually, sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { sharedSite } from "../support/shared";
import type { SharedSite } from "../support/shared";
import { labels, resources, restrictedContainer, restrictedPod } from "../../../lib/pods";
import { images } from "../../../versions";

const namespace = "homestead";
const outside = "e2e-outside";
const operatorSpaces = ["cert-manager", "cnpg-system"];
/** The clouds' metadata address: on the lab something is made to answer there. */
const metadata = "169.254.169.254";

export const isolation: Scenario = {
  name: "isolation",
  what: "every pod is admitted under Pod Security restricted, each reaches what it needs and nothing else, and no secret lies about",
  minutes: 1,
  limit: 20,
  async run(context) {
    const site = await sharedSite(context);
    await podSecurity(context, site);
    await noTokens(context, site);
    await edge(context, site);
    const sights = await connections(context, site);
    await noSecrets(context, site, sights);
  },
};

// ---------------------------------------------------------------- Pod Security

async function podSecurity({ report }: Context, { cluster }: SharedSite): Promise<void> {
  await report.check("the namespace enforces Pod Security restricted", async () => {
    const labels = (await cluster.get("namespace", namespace))?.metadata.labels ?? {};
    assert.equal(labels["pod-security.kubernetes.io/enforce"], "restricted");
  });
  const pods = await cluster.list("pods", namespace);
  await report.check(`all ${pods.length} pods, those of finished jobs included, are admitted under it`, async () => {
    assert.ok(pods.length >= 7, `only ${pods.length} pods`);
    for (const pod of pods) await mustBeAdmitted(cluster, pod);
  });
  const [pod] = pods;
  if (pod === undefined) return;
  await report.control(
    "a pod is admitted that may become root",
    () => mustBeAdmitted(cluster, pod, unrestricted),
    /violates PodSecurity "restricted/,
  );
}

async function noTokens({ report }: Context, { cluster }: SharedSite): Promise<void> {
  const withToken = async () => {
    const pods = await cluster.pods(namespace);
    const has = ({ spec }: KubeObject) =>
      ((spec?.["volumes"] ?? []) as { projected?: { sources?: object[] } }[]).some(({ projected }) =>
        projected?.sources?.some((source) => "serviceAccountToken" in source),
      );
    return [...new Set(lasting(pods).filter(has).map(partOf))];
  };
  await report.check("no pod but the database's is given a token for the cluster's API", async () =>
    assert.deepEqual(await withToken(), ["postgres"]),
  );
}

// ---------------------------------------------------------------- the edge

async function edge(context: Context, site: SharedSite): Promise<void> {
  const { report } = context;
  const { client } = site;
  const { apex, webHost, owner } = client.names;
  const webfinger = `/.well-known/webfinger?resource=acct:${owner}@${apex}`;
  await report.check(
    "web host, blog and WebFinger's redirect say that there is HTTPS only, and no guessing of types",
    async () => {
      const answers = await Promise.all([client.request("/health"), client.apex("/"), client.apex(webfinger)]);
      for (const { status, headers } of answers) {
        assert.equal(headers["strict-transport-security"], "max-age=31536000", `with ${status}`);
        assert.equal(headers["x-content-type-options"], "nosniff", `with ${status}`);
      }
    },
  );
  await report.check("TLS 1.2 is spoken", () => speaks(client.via.address, webHost, "TLSv1.2"));
  await report.control(
    "TLS 1.1 is spoken",
    () => speaks(client.via.address, webHost, "TLSv1.1"),
    /alert|protocol|reset|EPROTO/i,
  );

  const many = async (count: number, ask: () => Promise<{ status: number }>) => {
    const statuses = (await Promise.all(Array.from({ length: count }, ask))).map(({ status }) => status);
    return { refused: statuses.filter((status) => status === 429).length, count };
  };
  await report.check("who tries passwords is stopped at the edge", async () => {
    const { refused } = await many(60, () => client.request("/auth/sign_in", { method: "POST", body: "" }));
    assert.ok(refused >= 20, `${refused} of 60 were refused`);
  });
  await report.check("and reads on all the while", async () => {
    assert.deepEqual(await many(60, () => client.request("/health")), { refused: 0, count: 60 });
  });
  await report.check("a flood of WebFinger look-ups is cut, and a look-up a little later is answered", async () => {
    const { refused } = await many(200, () => client.apex(webfinger));
    assert.ok(refused >= 20, `${refused} of 200 were refused`);
    await sleep(2000);
    assert.equal((await client.apex(webfinger)).status, 301);
  });

  await oneLimitEach(context, site, webfinger);
}

/** A limit that all clients share would pass as well, as long as only one of them asks. */
async function oneLimitEach(
  { environment, report }: Context,
  { client, cluster }: SharedSite,
  webfinger: string,
): Promise<void> {
  const meanwhile = "while one client's look-ups are cut, another client's are answered";
  const node = Node.of(environment, "home");
  if (node === undefined) return report.skip(meanwhile, "only on the lab has the suite a client with another address");
  const others = 10;
  const both = async () => {
    let cut = 0;
    let over = false;
    const one = async () => {
      while (!over) {
        const answer = await client.apex(webfinger).catch(() => undefined);
        if (answer?.status === 429) cut++;
      }
    };
    const flood = Promise.all(Array.from({ length: 40 }, one));
    try {
      await eventually(20, "look-ups that are cut", () => assert.ok(cut > 0, "none was"));
      const url = `https://${client.names.apex}${webfinger}`;
      const answers = await node.askFromOutside(client.via, url, others);
      const refused = answers.filter((status) => status !== 301);
      assert.deepEqual(refused, [], `${refused.length} of ${others} were refused: ${refused.join(", ")}`);
    } finally {
      over = true;
      await flood;
    }
  };
  // A Service that spreads its connections over all nodes hides them from Traefik, which is what a doctor warns of.
  const { spec } = (await cluster.get("service", "traefik", "kube-system")) ?? {};
  const set = async (externalTrafficPolicy: unknown) => {
    const patch = JSON.stringify({ spec: { externalTrafficPolicy } });
    await cluster.kubectl(["patch", "service", "traefik", "-n", "kube-system", "-p", patch]);
    // Until kube-proxy has taken it over.
    await sleep(3000);
  };
  const restore = atExit(() => set(spec?.["externalTrafficPolicy"] ?? "Cluster"));
  try {
    await set("Cluster");
    await report.control(
      "another client is answered where Traefik does not see who is who",
      both,
      /were refused: .*\b429\b/,
    );
    await set("Local");
    await report.check(meanwhile, both);
  } finally {
    await restore();
  }
}

/** @throws unless a handshake with just this version succeeds */
function speaks(host: string, servername: string, version: "TLSv1.1" | "TLSv1.2"): Promise<void> {
  return new Promise((resolve, reject) => {
    // What OpenSSL itself would no longer offer must not be what refuses.
    const options = {
      host,
      port: 443,
      servername,
      rejectUnauthorized: false,
      minVersion: version,
      maxVersion: version,
      ciphers: "DEFAULT@SECLEVEL=0",
    } as const;
    const socket = tls.connect(options, () => {
      socket.destroy();
      resolve();
    });
    socket.setTimeout(10_000, () => socket.destroy(new Error("no answer within 10 s")));
    socket.on("error", reject);
  });
}

// ---------------------------------------------------------------- connections

/** Parts of the site that a connection is tried to. */
const parts = ["postgres", "valkey", "valkey-cache", "web", "streaming", "blog", "search"];

/** In the house: what nobody names, and a port that nobody has business with at an address that is named for Mastodon. */
const strangeAddresses = ["private address", "another port of the remote server's"];
/** The web at an address that is named for who talks to the vault. */
const web = "web in the vault's house";
/** On the lab alone, where something answers. */
const answeredAddresses = ["metadata", web];

/** By the name of the pod's part: what it cannot do without, and what it has no business with. */
function table(extra: readonly string[]): Record<string, Reach> {
  const but = (...names: string[]) => parts.filter((part) => !names.includes(part));
  const never = [...strangeAddresses, ...extra];
  const data = ["postgres", "valkey", "valkey-cache"];
  const api = ["API server", "other cluster's API server"];
  const world = ["vault", "internet"];
  const mastodon = { needs: ["dns", ...world, ...data, "search"], never: [...never, ...api, "streaming", "blog"] };
  return {
    web: mastodon,
    sidekiq: { ...mastodon, never: [...mastodon.never, "web"] },
    // It looks up Postgres and Valkey, and there it ends.
    streaming: {
      needs: ["dns", "postgres", "valkey"],
      never: [...but("postgres", "valkey", "streaming"), ...never, ...api, ...world],
    },
    // The vault is somewhere on the internet; the API server is what CloudNativePG's instance manager works by.
    postgres: { needs: ["dns", "vault"], never: [...but("postgres"), ...never] },
    valkey: { needs: ["dns", "vault"], never: [...but("valkey"), ...never, ...api] },
    // These two ask nobody anything.
    "valkey-cache": { needs: [], never: ["dns", ...but("valkey-cache"), ...never, ...api, ...world] },
    blog: { needs: [], never: ["dns", ...but("blog"), ...never, ...api, ...world] },
  };
}

/**
 * Of the pods that end, and of parts that this site does not have: their policies go by labels, and so do those of what stands
 * in for them.
 */
function standInTable(extra: readonly string[]): Record<string, Reach & { labels: Record<string, string> }> {
  const but = (...names: string[]) => parts.filter((part) => !names.includes(part));
  const never = [...strangeAddresses, ...extra, "API server", "other cluster's API server"];
  const world = ["vault", "internet"];
  const data = ["postgres", "valkey", "valkey-cache", "search"];
  // Schema, account, feeds and index: Mastodon's code, and none of the internet.
  const task = { needs: ["dns", ...data], never: [...but(...data), ...never, ...world] };
  return {
    "chart-job": { ...task, labels: { "batch.kubernetes.io/job-name": "mastodon-db-migrate" } },
    "mastodon-owner": { ...task, labels: labels("mastodon-owner") },
    "mastodon-feeds": { ...task, labels: labels("mastodon-feeds") },
    "mastodon-search-index": { ...task, labels: labels("mastodon-search-index") },
    search: { needs: [], never: ["dns", ...but("search"), ...never, ...world], labels: labels("search") },
    // The vault is somewhere on the internet.
    "media-copy": { needs: ["dns", "vault"], never: [...parts, ...never], labels: labels("media-copy") },
    // As the world does it asks the web, in the house as well, and the media bucket, which here is in the vault's server.
    verification: {
      needs: ["dns", ...world, ...extra.filter((name) => name === web)],
      never: [...parts, ...never.filter((name) => name !== web)],
      labels: labels("verification"),
    },
    "mastodon-assets": { needs: [], never: ["dns", ...parts, ...never, ...world], labels: labels("mastodon-assets") },
  };
}

/** The port of search, at which every pod that stands in for another listens. */
const searchPort = 9200;

/** Pods that do nothing, with the labels of those that are not there to look from. @returns how to delete them */
async function standIns(cluster: Cluster, image: string): Promise<() => Promise<void>> {
  const idle = `require("node:net").createServer().listen(${searchPort})`;
  const pods = Object.entries(standInTable([])).map(([name, { labels }]) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `e2e-${name}`, namespace, labels },
    spec: {
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      securityContext: restrictedPod(1000),
      containers: [
        {
          name: "idle",
          image,
          imagePullPolicy: "IfNotPresent",
          command: ["node", "-e", idle],
          resources: resources("1m", "32Mi", "128Mi"),
          securityContext: restrictedContainer,
        },
      ],
    },
  }));
  const names = pods.map(({ metadata }) => `pod/${metadata.name}`);
  const end = atExit(() =>
    cluster.kubectl(["delete", "-n", namespace, ...names, "--ignore-not-found", "--wait=false"]),
  );
  await cluster.apply(JSON.stringify({ apiVersion: "v1", kind: "List", items: pods }));
  await cluster.kubectl(["wait", "-n", namespace, ...names, "--for=condition=Ready", "--timeout=90s"]);
  return end;
}

/** Of Mastodon's pods: `web`, `streaming` or `sidekiq`; of the others, their name. */
function partOf({ metadata: { labels = {} } }: KubeObject): string {
  if (labels["cnpg.io/cluster"] !== undefined) return "postgres";
  const name = labels["app.kubernetes.io/name"] ?? "";
  return name === "mastodon" ? (labels["app.kubernetes.io/component"] ?? "").replace(/^sidekiq-.*/, "sidekiq") : name;
}

async function connections(context: Context, site: SharedSite): Promise<Sight[]> {
  const { environment, report, logs } = context;
  const { cluster } = site;
  const image = environment.images["node"] ?? images.node;
  const node = Node.of(environment, "home");
  // Those that are not there to look from are made meanwhile.
  const pods = lasting(await cluster.pods(namespace));
  const made = standIns(cluster, image);
  made.catch(() => undefined);
  if (node === undefined) {
    report.skip(
      "no pod reaches the metadata address; Mastodon reaches the internet",
      "only on the lab does one answer",
    );
  } else await node.answersAt([metadata, internet, vaultsHouse], logs);

  const endStandIns = await report.step(
    "pods with the labels of Jobs, search, media copy and verification",
    () => made,
  );
  const all = await targets(context, cluster, pods, { answered: node !== undefined, port: await listening(context) });
  const inside = new Set(parts);
  const there = (name: string) => name === "dns" || all.some((target) => target.name === name);

  const { free, walled } = await report.step("two pods outside the namespace, one of them walled in", () =>
    strangers(cluster, image, all),
  );
  const names = ["dns", ...all.map(({ name }) => name)];
  await report.check("a pod without policies reaches DNS and every address outside the namespace", () => {
    assert.deepEqual(breaches(free, { needs: names.filter((name) => !inside.has(name)), never: [] }), []);
  });
  await report.check("and nothing inside it", () => {
    assert.deepEqual(breaches(free, { needs: [], never: [...inside] }), []);
  });
  // Some clusters (the lab) enforce nothing on the way to the node itself, and the API server is there; as DNS is with a
  // cache on every node.
  const unenforced = names.filter((name) => !inside.has(name) && walled.reached[name] === "open");
  for (const name of unenforced) {
    report.skip(
      `no pod that has no business with it reaches ${name}`,
      "this cluster enforces no policy on the way to it",
    );
  }
  await report.check("this cluster enforces policies: a pod that is walled in reaches nothing else", () => {
    const never = names.filter((name) => !unenforced.includes(name));
    assert.ok(never.includes("private address"), "policies are not enforced");
    assert.deepEqual(breaches(walled, { needs: [], never }), []);
  });

  const extra = node === undefined ? [] : answeredAddresses;
  const rules = table(extra);
  await report.check("every lasting pod is of a part whose connections are known", () => {
    const unknown = pods.filter((pod) => rules[partOf(pod)] === undefined).map((pod) => pod.metadata.name);
    assert.deepEqual(unknown, []);
    const missing = Object.keys(rules).filter((part) => !pods.some((pod) => partOf(pod) === part));
    assert.deepEqual(missing, []);
  });
  const others = standInTable(extra);
  const [looks, sightsOfOthers] = await report.step("a look around from every container", () =>
    Promise.all([
      Promise.all(pods.map(async (pod) => ({ pod, seen: await lookAround(cluster, image, pod, all) }))),
      Promise.all(
        Object.entries(others).map(async ([name, reach]) => {
          const printed = await cluster.exec(namespace, `e2e-${name}`, ["node", "-e", probeProgram(all)], {
            seconds: 60,
          });
          return { name, reach, sight: parseSight(printed) };
        }),
      ),
    ]),
  );
  const enforced = ({ needs, never }: Reach): Reach => ({
    needs: needs.filter(there),
    never: never.filter((name) => there(name) && !unenforced.includes(name)),
  });
  for (const { name, reach, sight } of sightsOfOthers) {
    const { needs, never } = enforced(reach);
    await report.check(
      `what has the labels of ${name}: reaches ${needs.join(", ") || "nothing"}; not ${never.join(", ")}`,
      () => assert.deepEqual(breaches(sight, { needs, never }), []),
    );
  }
  await endStandIns();
  for (const { pod, seen } of looks) {
    const reach = enforced(rules[partOf(pod)] ?? { needs: [], never: [] });
    const claim = `${pod.metadata.name}: reaches ${reach.needs.join(", ") || "nothing"}; not ${reach.never.join(", ")}`;
    await report.check(claim, () => {
      const [sight] = seen;
      assert.ok(sight, "no container of it runs");
      assert.deepEqual(breaches(sight, reach), []);
    });
  }
  const operatorsSights = await operators(context, cluster, image, all, (names) =>
    names.filter((name) => there(name) && !unenforced.includes(name)),
  );
  await cluster.kubectl(["delete", "namespace", outside, "--wait=false"]);
  return [...looks.flatMap(({ seen }) => seen), ...operatorsSights];
}

/** Of the operators' pods, those that look names up: the ACME server's and the zone's, and the plugin's. */
const looksUp = ({ metadata: { labels = {} } }: KubeObject): boolean =>
  labels["app.kubernetes.io/component"] === "controller" || labels["app.kubernetes.io/name"] === "cloudnative-pg";

/** The operators may reach the API server, and CloudNativePG its instances; nothing else of the site is theirs. */
async function operators(
  { report }: Context,
  cluster: Cluster,
  image: string,
  all: readonly Target[],
  enforced: (names: string[]) => string[],
): Promise<Sight[]> {
  const sights: Sight[] = [];
  const lists = await Promise.all(
    operatorSpaces.map(async (space) => ({ space, pods: lasting(await cluster.list("pods", space)) })),
  );
  const looks = new Map(
    // Any user but root: their images have one each.
    lists.flatMap(({ pods }) => pods.map((pod) => [pod, lookAround(cluster, image, pod, all, 65532)] as const)),
  );
  await report.step("a look around from every operator", () => Promise.allSettled(looks.values()));
  for (const { space, pods } of lists) {
    for (const pod of pods) {
      const { name } = pod.metadata;
      const needs = looksUp(pod) ? ["dns"] : [];
      const never = enforced([
        ...(looksUp(pod) ? [] : ["dns"]),
        ...parts.filter((part) => part !== "postgres" || space === "cert-manager"),
        ...[...strangeAddresses, "metadata"],
      ]);
      await report.check(`${name}: reaches ${needs.join() || "nothing"}; not ${never.join(", ")}`, async () => {
        const seen = (await looks.get(pod)) ?? [];
        sights.push(...seen);
        const [sight] = seen;
        assert.ok(sight, "no container of it runs");
        assert.deepEqual(breaches(sight, { needs, never }), []);
      });
    }
    await report.check(`${space}: its operators were looked at, those with DNS and those without`, () => {
      assert.ok(pods.some(looksUp));
      assert.ok(!pods.every(looksUp));
    });
  }
  return sights;
}

/** Sights of a pod's containers. They share its network, so that one of them tries it; each has its own processes. */
async function lookAround(
  cluster: Cluster,
  image: string,
  pod: KubeObject,
  all: readonly Target[],
  user?: number,
): Promise<Sight[]> {
  const seen: Sight[] = [];
  for (const { name, state } of containersOf(pod)) {
    if (state?.running !== undefined)
      seen.push(await lookFrom(cluster, image, pod, name, seen.length === 0 ? all : [], user));
  }
  return seen;
}

/** Something that listens at this machine's address, which the stack names for Mastodon. @returns at which port */
async function listening({ environment }: Context): Promise<number> {
  const server = net.createServer((socket) => socket.on("error", () => undefined).end());
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, environment.hostAddress, resolve);
  });
  atExit(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

/** Everything that a connection is tried to. */
async function targets(
  { environment }: Context,
  cluster: Cluster,
  pods: KubeObject[],
  { answered, port }: { answered: boolean; port: number },
): Promise<Target[]> {
  const address = (part: string): string => {
    const pod = pods.find((candidate) => partOf(candidate) === part);
    const ip = pod?.status?.["podIP"];
    if (typeof ip !== "string") throw new Error(`no pod of ${part} has an address`);
    return ip;
  };
  const blog = pods.find((pod) => partOf(pod) === "blog");
  const [container] = (blog?.spec?.["containers"] ?? []) as { ports?: { containerPort: number }[] }[];
  const api = (await cluster.get("service", "kubernetes", "default"))?.spec?.["clusterIP"];
  const search = (await cluster.get("pod", "e2e-search", namespace))?.status?.["podIP"];
  const vault = new URL(environment.s3.endpoint);
  const vaultPort = Number(vault.port || (vault.protocol === "https:" ? 443 : 80));
  const target = (name: string, host: string, port: number): Target => ({ name, host, port });
  return [
    target("postgres", address("postgres"), 5432),
    target("valkey", address("valkey"), 6379),
    target("valkey-cache", address("valkey-cache"), 6379),
    target("web", address("web"), 3000),
    target("streaming", address("streaming"), 4000),
    target("blog", address("blog"), container?.ports?.[0]?.containerPort ?? 8080),
    target("search", String(search), searchPort),
    target("API server", String(api), 443),
    target("vault", vault.hostname, vaultPort),
    // The other site's Traefik: an address in the house that is nobody's business.
    target("private address", environment.vps.address, 80),
    target("another port of the remote server's", environment.hostAddress, port),
    ...(environment.lab === undefined ? [] : [target("other cluster's API server", environment.vps.address, 6443)]),
    ...(answered ? [target("metadata", metadata, 80), target("internet", internet, 443)] : []),
    ...(answered ? [target(web, vaultsHouse, 80)] : []),
  ];
}

/** What two pods in a namespace of their own see: one without policies, and one that may reach nothing. */
async function strangers(
  cluster: Cluster,
  image: string,
  all: readonly Target[],
): Promise<{ free: Sight; walled: Sight }> {
  const pod = (name: string) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: outside, labels: { name } },
    spec: {
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      containers: [
        { name, image, imagePullPolicy: "IfNotPresent", command: ["node", "-e", "setInterval(() => undefined, 1e6)"] },
      ],
    },
  });
  const wall = {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name: "wall", namespace: outside },
    spec: { podSelector: { matchLabels: { name: "walled" } }, policyTypes: ["Egress"] },
  };
  const home = { apiVersion: "v1", kind: "Namespace", metadata: { name: outside } };
  await cluster.apply(
    JSON.stringify({ apiVersion: "v1", kind: "List", items: [home, wall, pod("free"), pod("walled")] }),
  );
  await cluster.kubectl(["wait", "-n", outside, "pod/free", "pod/walled", "--for=condition=Ready", "--timeout=90s"]);
  // A policy takes effect a moment after its pod has started.
  await sleep(3000);
  const look = async (name: string) =>
    parseSight(await cluster.exec(outside, name, ["node", "-e", probeProgram(all)], { seconds: 60 }));
  const [free, walled] = await Promise.all([look("free"), look("walled")]);
  return { free, walled };
}

// ---------------------------------------------------------------- secrets

async function noSecrets({ report }: Context, site: SharedSite, sights: Sight[]): Promise<void> {
  const { cluster, project } = site;
  const valkey = await cluster.get("secret", "valkey", namespace);
  const { vaultAccessKeyId: _vault, mediaAccessKeyId: _media, vapidPublicKey: _vapid, ...shared } = site.secrets;
  const spaces = [namespace, ...operatorSpaces];
  // Without access keys' names and the public key, which are in every signed request.
  const secrets: Record<string, string> = {
    ...keysIn((await Promise.all(spaces.map((space) => cluster.list("secrets", space)))).flat()),
    ...shared,
    valkeyPassword: Buffer.from(valkey?.data?.["password"] ?? "", "base64").toString(),
    passphrase: project.passphrase,
  };
  await report.check("every secret is known to the search", () => {
    const short = Object.entries(secrets).filter(([, value]) => value.length < 8);
    assert.deepEqual(
      short.map(([name]) => name),
      [],
    );
  });
  const clean = (what: string, text: () => Promise<string> | string) =>
    report.check(`no secret in clear in ${what}`, async () => {
      const searched = await text();
      assert.ok(searched.length > 100, "there was nothing to search");
      assert.deepEqual(secretsIn(searched, secrets), []);
    });
  await clean("the exported state", () => project.exportState("home"));
  await report.check("no secret in clear in the state's files", () =>
    assert.deepEqual(secretsBelow(project.state, secrets), []),
  );
  await clean("the output of the update", () => site.outputs.join("\n"));
  await clean("the logs of every container, ours and the operators'", () => logsOf(cluster));
  await clean("events", async () => JSON.stringify(await cluster.list("events")));
  await clean("ConfigMaps", async () => JSON.stringify(await cluster.list("configmaps")));
  await clean("pod specifications", async () => JSON.stringify(await cluster.list("pods")));
  await clean("any other object but Secrets", async () => {
    const kinds = (await cluster.kubectl(["api-resources", "--verbs=list", "--namespaced=true", "-o", "name"]))
      .split("\n")
      .filter((kind) => kind !== "" && !/^(secrets|events|configmaps|pods)(\.|$)|metrics\.k8s\.io$/.test(kind));
    return JSON.stringify(await Promise.all(spaces.map((space) => cluster.list(kinds.join(","), space))));
  });
  await clean("process arguments of any container, ours and the operators'", () => {
    // Each container has a process of its own beside the probe.
    const blind = sights.filter(({ processes }) => processes.length === 0).length;
    assert.equal(blind, 0, `${blind} probes saw no process but themselves`);
    return sights.flatMap(({ processes }) => processes).join("\n");
  });
  await report.control(
    "the search overlooks a secret in a container's environment",
    async () => {
      const environment = await cluster.exec(namespace, "deployment/mastodon-web", ["cat", "/proc/1/environ"]);
      assert.deepEqual(secretsIn(environment, secrets), []);
    },
    /secretKeyBase/,
  );
  await report.control(
    "the search overlooks the state with secrets shown",
    async () => {
      const shown = await project.pulumi(["stack", "export", "--show-secrets", "--stack", "home"]);
      assert.deepEqual(secretsIn(succeeded(shown, "stack export").stdout, secrets), []);
    },
    /databasePassword/,
  );
}

/** What every container has written, the one before a restart included. */
async function logsOf(cluster: Cluster): Promise<string> {
  const texts: string[] = [];
  for (const space of [namespace, ...operatorSpaces]) {
    for (const pod of await cluster.list("pods", space)) {
      const log = ["logs", "-n", space, pod.metadata.name, "--all-containers", "--tail=-1"];
      texts.push((await cluster.tryKubectl(log)).stdout);
      if (containersOf(pod).some(({ restartCount }) => restartCount > 0)) {
        texts.push((await cluster.tryKubectl([...log, "--previous"])).stdout);
      }
    }
  }
  return texts.join("\n");
}
