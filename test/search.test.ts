/**
 * Search: what a stack that wants it gets. Elasticsearch itself is run in the end-to-end suite (search), where there is an
 * image of it.
 */
import { describe, expect, it } from "vitest";
import { searchValues } from "../components/mastodon";
import { policies } from "../components/isolation";
import { serverSettings } from "../components/search";
import { digest } from "../lib/digest";
import { at, planStack } from "../lib/plan";
import type { Plan, PlannedResource } from "../lib/plan";
import { Placeholders } from "../lib/plan/placeholders";
import { shortType } from "../lib/plan/render";
import { copyProject } from "./support/folders";
import { named, plannedStack } from "./support/planned";
import { faultsOf } from "./support/schemas";

const withSearch = (text: string) => text.replace("config:\n", "config:\n  homestead:search: {kind: elasticsearch}\n");
let plans: Promise<{ home: Plan; vps: Plan; other: Plan }> | undefined;
/** Plans of both sites with search, and of home after one more switch; made once. */
const planned = () =>
  (plans ??= (async () => {
    const folder = copyProject({ "Pulumi.home.yaml": withSearch, "Pulumi.vps.yaml": withSearch });
    const later = copyProject({
      "Pulumi.home.yaml": withSearch,
      "Pulumi.yaml": (text) => text.replace(/(homestead:epoch:\n.*\n +value: )1/, "$13"),
    });
    const [home, vps, other] = await Promise.all([
      planStack("home", { folder }),
      planStack("vps", { folder }),
      planStack("home", { folder: later }),
    ]);
    return { home, vps, other };
  })());
const text = (resource: PlannedResource) => JSON.stringify(resource.inputs);
interface PodTemplate {
  spec: {
    replicas?: number;
    template: {
      metadata: { annotations: Record<string, string> };
      spec: { securityContext: object; containers: { env: { name: string; value?: string }[] }[] };
    };
  };
}
const specOf = (resource: PlannedResource) => (resource.inputs as unknown as PodTemplate).spec;

describe("searchValues", () => {
  it("turns search off where there is no server", () => {
    expect(searchValues(undefined)).toEqual({ enabled: false });
  });

  it("names the server and a Secret, and asks for no TLS", () => {
    expect(searchValues({ host: "search", port: 9200, secretName: "search", secretDigest: "0123" })).toEqual({
      enabled: true,
      hostname: "search",
      port: 9200,
      tls: false,
      preset: "single_node_cluster",
      existingSecret: "search",
    });
  });
});

describe("a stack without search", () => {
  it("has nothing of it", () => {
    const { resources } = plannedStack("home");
    expect(resources.filter(({ name }) => name.startsWith("search")).map(({ name }) => name)).toEqual([]);
    expect(text(named(plannedStack("home"), "mastodon-release"))).toContain('"elasticsearch":{"enabled":false}');
  });
});

describe("a stack with search", () => {
  it("has one node with a volume and a password of its own, before Mastodon", async () => {
    const { home } = await planned();
    const server = named(home, "search-server");
    expect(specOf(server).replicas).toBe(1);
    expect(text(server)).toContain("docker.elastic.co/elasticsearch/elasticsearch:7.17.");
    expect(text(named(home, "search-volume"))).toContain('"storage":"10Gi"');
    expect(named(home, "search-secret").secretPaths.join()).toMatch(/stringData/);
    expect(named(home, "mastodon").options.dependsOn).toContain(server.urn);
    expect(text(named(home, "mastodon-release"))).toContain('"hostname":"search"');
  });

  it("starts the server and Mastodon's pods anew with another password, which they read as they start", async () => {
    const { home } = await planned();
    const secretDigest = digest(new Placeholders().of("search-password"));
    const { annotations } = specOf(named(home, "search-server")).template.metadata;
    expect(annotations).toEqual({ "homestead/secret": secretDigest });
    const digestOf = (plan: Plan) => at(named(plan, "mastodon-release").inputs, "values.podAnnotations");
    expect(digestOf(home)).not.toEqual(digestOf(plannedStack("home")));
  });

  it("fits Pod Security restricted, and Kubernetes' schemas", async () => {
    const { home } = await planned();
    for (const name of ["search-server", "search-index-job"]) {
      const pod = specOf(named(home, name)).template.spec;
      expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
      expect(pod.containers).toEqual([
        expect.objectContaining({
          securityContext: expect.objectContaining({
            allowPrivilegeEscalation: false,
            capabilities: { drop: ["ALL"] },
          }) as unknown,
        }),
      ]);
    }
    const objects = home.resources.filter(
      ({ name, type }) => name.startsWith("search-") && shortType(type).startsWith("kubernetes:"),
    );
    expect(objects.map(({ name }) => name).sort()).toEqual([
      "search-index-job",
      "search-secret",
      "search-server",
      "search-service",
      "search-volume",
    ]);
    for (const { name, inputs } of objects) {
      // Without its name, which is known only when the volume is.
      if (name !== "search-index-job") expect([name, await faultsOf(inputs as never)]).toEqual([name, []]);
    }
  });

  it("builds the index with Mastodon's own command, logged in, after Mastodon is up", async () => {
    const { home } = await planned();
    const job = named(home, "search-index-job");
    expect(text(job)).toContain('"command":["bin/tootctl","search","deploy"]');
    const variables = specOf(job).template.spec.containers[0]?.env.map(({ name }) => name);
    expect(variables).toEqual(expect.arrayContaining(["ES_USER", "ES_PASS", "DB_PASS", "SECRET_KEY_BASE"]));
    expect(named(home, "search-index").options.dependsOn).toContain(named(home, "mastodon-release").urn);
  });

  it("logs in wherever Mastodon's code runs", async () => {
    const { home } = await planned();
    expect(text(named(home, "mastodon-owner-account"))).toContain('"ES_PASS"');
  });

  it("has no replica, and builds no index, on a standby", async () => {
    const { vps } = await planned();
    expect(specOf(named(vps, "search-server")).replicas).toBe(0);
    expect(vps.resources.some(({ name }) => name.startsWith("search-index"))).toBe(false);
  });

  it("builds the index again when the site takes over", async () => {
    const { home, other } = await planned();
    const job = (plan: Plan) => JSON.stringify(named(plan, "search-index-job").inputs["metadata"]);
    expect(job(other)).not.toBe(job(home));
  });
});

describe("the server's settings", () => {
  it("need nothing of the node, and nothing of the internet", () => {
    expect(serverSettings).toMatchObject({
      "discovery.type": "single-node",
      "node.store.allow_mmap": "false",
      "ingest.geoip.downloader.enabled": "false",
    });
  });

  it("count what is free of its disk in bytes, not in shares: the disk may be the node's", () => {
    const levels = ["low", "high", "flood_stage"].map((level) => {
      const free = serverSettings[`cluster.routing.allocation.disk.watermark.${level}`] ?? "";
      expect(free, level).toMatch(/^\d+mb$/);
      return parseInt(free, 10);
    });
    expect(levels).toEqual([...levels].sort((a, b) => b - a));
    // A volume of 1Gi has room above all of them.
    expect(Math.max(...levels)).toBeLessThan(512);
  });

  it("keep its heap within half of its memory", async () => {
    const heap = /-Xms(\d+)m -Xmx(\d+)m/.exec(serverSettings["ES_JAVA_OPTS"] ?? "");
    expect(heap?.[1]).toBe(heap?.[2]);
    const limit = /"limits":\{"memory":"(\d+)Mi"\}/.exec(text(named((await planned()).home, "search-server")))?.[1];
    expect(Number(heap?.[2])).toBeLessThanOrEqual(Number(limit) / 2);
  });
});

describe("the search server's network", () => {
  const made = policies({
    ingress: { namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" } },
    network: { families: ["IPv4"], privateEgress: [], mastodonPrivateEgress: [] },
    monitoring: { kind: "off" },
    vault: { endpoint: "https://s3.example.net", region: "us-east-1", bucket: "vault" },
    media: { kind: "volume" },
    smtp: { kind: "none" },
    apiServerPorts: [443, 6443],
  });

  it("lets Mastodon in and nothing out", () => {
    const policy = made["search"];
    expect(policy?.policyTypes).toEqual(["Ingress", "Egress"]);
    expect(policy?.egress).toEqual([]);
    expect(JSON.stringify(policy?.ingress)).toContain("mastodon-search-index");
    expect(JSON.stringify(policy?.ingress)).not.toMatch(/traefik|ipBlock|"blog"/);
  });

  it("lets the Job that builds the index out to it, and not to the internet", () => {
    const tasks = JSON.stringify(made["mastodon-tasks"]);
    expect(tasks).toContain("mastodon-search-index");
    expect(tasks).toContain('"port":9200');
    expect(tasks).not.toContain("0.0.0.0/0");
  });
});
