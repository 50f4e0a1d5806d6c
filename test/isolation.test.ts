import { describe, expect, it } from "vitest";
import { chartJobs, policies, portOf } from "../components/isolation";
import type { Policy } from "../components/isolation";
import { operatorPolicies } from "../components/operators";
import { holds, isWithin } from "../lib/address-ranges";
import { at } from "../lib/plan";
import { labels as ours } from "../lib/pods";
import type { Settings } from "../settings";
import { plannedStack } from "./support/planned";

const args = {
  ingress: { namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" } },
  network: {
    families: ["IPv4" as const],
    privateEgress: ["10.210.0.0/24"],
    mastodonPrivateEgress: ["192.168.7.0/24", "192.168.9.9/32"],
  },
  monitoring: { kind: "rules" as const, labels: {}, namespace: "monitoring" },
  vault: { endpoint: "https://s3.example.net:8443", region: "us-east-1", bucket: "vault" },
  media: { kind: "volume" as const },
  smtp: { kind: "none" as const },
  certificates: { kind: "selfSigned" as const },
  apiServerPorts: [443, 6443, 16443],
};
const made = policies(args);
const text = (name: string) => JSON.stringify(made[name]);

interface Rule {
  to?: { ipBlock?: { cidr: string }; namespaceSelector?: object; podSelector?: object }[];
  ports?: { port: number; protocol: string }[];
}
interface Selector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

/** As Kubernetes selects. */
function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Record<string, string>): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const has = labels[key] !== undefined;
      if (operator === "Exists") return has;
      const among = has && values.includes(labels[key] ?? "");
      return operator === "In" ? among : !among;
    })
  );
}

/** What a pod with these labels may begin: the rules of every policy that selects it. */
const egressOf = (all: Record<string, Policy>, labels: Record<string, string>): Rule[] =>
  Object.values(all)
    .filter(({ podSelector }) => selects(podSelector as Selector, labels))
    .flatMap(({ egress }) => (egress as Rule[] | undefined) ?? []);

const noHouse = { privateEgress: [], mastodonPrivateEgress: [] };

/** The ranges of addresses that a policy lets its pods out to. */
const blocksOf = (policy: Policy | undefined): { cidr: string; except?: string[] }[] =>
  ((policy?.egress as { to: { ipBlock?: { cidr: string; except?: string[] } }[] }[] | undefined) ?? [])
    .flatMap(({ to }) => to)
    .flatMap(({ ipBlock }) => ipBlock ?? []);

const looksUp = (rules: Rule[]) => rules.some(({ ports }) => ports?.some(({ port }) => port === 53));
/** Ports at which it may reach the internet. */
const internetOf = (rules: Rule[]): (number | "any")[] =>
  rules
    .filter(({ to }) => to?.some(({ ipBlock }) => ipBlock?.cidr === "0.0.0.0/0"))
    .flatMap(({ ports }): (number | "any")[] => ports?.map(({ port }) => port) ?? ["any"]);

/** Labels of a pod of Mastodon's chart; ours have those of `lib/pods.ts`. */
const component = (value: string) => ({
  "app.kubernetes.io/name": "mastodon",
  "app.kubernetes.io/component": value,
});

/** Every pod that there ever is: its labels, whether it looks names up, and where on the internet it may go. */
const everyPod: [what: string, labels: Record<string, string>, dns: boolean, internet: (number | "any")[]][] = [
  ["web", component("web"), true, [80, 443]],
  ["sidekiq", component("sidekiq-all-queues"), true, [80, 443]],
  ["streaming", component("streaming"), true, []],
  ...chartJobs.map(
    (job) => [job, { "batch.kubernetes.io/job-name": job }, true, []] as [string, Record<string, string>, boolean, []],
  ),
  ["owner", ours("mastodon-owner"), true, []],
  ["feeds", ours("mastodon-feeds"), true, []],
  ["search index", ours("mastodon-search-index"), true, []],
  ["assets", ours("mastodon-assets"), false, []],
  // 443 once more: the keeper asks for WebFinger.
  ["valkey", ours("valkey"), true, [8443, 443]],
  ["valkey-cache", ours("valkey-cache"), false, []],
  ["postgres", { "cnpg.io/cluster": "postgres-g1" }, true, [8443]],
  ["search", ours("search"), false, []],
  ["blog", ours("blog"), false, []],
  ["media copy", ours("media-copy"), true, [8443]],
  ["object store", ours("object-store"), false, []],
  ["its buckets", ours("object-store-buckets"), true, []],
  ["verification", ours("verification"), true, [80, 443]],
  ["pulled images", ours("pulled-images"), false, []],
  ["ACME's solver", { "acme.cert-manager.io/http01-solver": "true" }, false, []],
];

describe("what each pod may begin", () => {
  it.each(everyPod)("%s: DNS where it looks names up, the internet where it must", (_, labels, dns, internet) => {
    const rules = egressOf(made, labels);
    expect({ dns: looksUp(rules), internet: internetOf(rules) }).toEqual({ dns, internet });
  });

  it("is written down for every pod of every stack", () => {
    const known = everyPod.map(([, labels]) => JSON.stringify(labels["app.kubernetes.io/name"]));
    for (const stack of ["home", "vps", "dev"] as const) {
      for (const { name: resource, inputs } of plannedStack(stack).resources) {
        const label = (at(inputs, "spec.template.metadata.labels") as Record<string, string> | undefined)?.[
          "app.kubernetes.io/name"
        ];
        if (label !== undefined) expect([resource, known]).toEqual([resource, expect.arrayContaining([`"${label}"`])]);
      }
    }
  });

  it("is nothing for a pod that is not known here", () => {
    expect(egressOf(made, ours("something-else"))).toEqual([]);
  });

  it("is of the data what streaming reads, and neither cache nor search nor uploads", () => {
    const rules = JSON.stringify(egressOf(made, component("streaming")));
    for (const part of ["cnpg.io/cluster", '"valkey"']) expect(rules).toContain(part);
    for (const part of ["valkey-cache", "search", "object-store", "10.210.0.0/24", "192.168.7.0/24"])
      expect(rules).not.toContain(part);
  });

  it("leads a verification to the web's ports and the bucket's, and not to a public node's API", () => {
    const media = {
      kind: "bucket" as const,
      endpoint: "https://s3.example.net:9000",
      region: "x",
      bucket: "media",
      publicUrl: "https://media.example.net:8444",
    };
    const rules = egressOf(policies({ ...args, media }), ours("verification"));
    expect(internetOf(rules)).toEqual([80, 443, 9000, 8444]);
  });
});

describe("policies", () => {
  it("denies everything that nothing else allows", () => {
    expect(made["default-deny"]).toEqual({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
  });

  it("gives Mastodon the internet, the ranges that are named for it, and no other private address", () => {
    const blocks = blocksOf(made["mastodon"]);
    expect(blocks.map((b) => b.cidr)).toEqual(["0.0.0.0/0", "192.168.7.0/24", "192.168.9.9/32"]);
    expect(blocks[0]?.except).toEqual(
      expect.arrayContaining(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"]),
    );
  });

  it("opens the house to Mastodon at the ports it has business with, and the vault's address not at all", () => {
    const media = { kind: "bucket" as const, endpoint: "http://192.168.7.2:9000", region: "x", bucket: "media" };
    const smtp = { kind: "server", host: "192.168.9.9", port: 587 } as Settings["smtp"];
    const rules = egressOf(policies({ ...args, media, smtp }), component("web"));
    const house = rules.filter(({ to }) => JSON.stringify(to).includes("192.168."));
    expect(house.map(({ ports }) => ports?.map(({ port }) => port))).toEqual([[80, 443, 9000, 587]]);
    expect(JSON.stringify(rules)).not.toContain("10.210.0.0/24");
  });

  it("keeps everybody but Mastodon from what is named for Mastodon, a verification apart, which asks the bucket", () => {
    const open = Object.entries(made).filter(([, policy]) =>
      blocksOf(policy).some(({ cidr }) => /^192\.168/.test(cidr)),
    );
    expect(open.map(([name]) => name)).toEqual(["mastodon", "verification"]);
    const vaults = Object.entries(made).filter(([, policy]) => blocksOf(policy).some(({ cidr }) => /^10\./.test(cidr)));
    expect(vaults.map(([name]) => name)).toEqual(["postgres", "valkey-keeper", "media-copy", "verification"]);
  });

  it("lets nobody out to what a network has beside RFC 1918, nor to IPv4 by way of IPv6", () => {
    const both = policies({ ...args, network: { families: ["IPv4", "IPv6"], ...noHouse } });
    const blocks = blocksOf(both["mastodon"]);
    expect(blocks.map(({ cidr }) => cidr)).toEqual(["0.0.0.0/0", "::/0"]);
    const [ipv4 = [], ipv6 = []] = blocks.map(({ except = [] }) => except);
    const open = (except: readonly string[], ...addresses: string[]) => addresses.filter((one) => !holds(except, one));
    // Azure's WireServer and Oracle's metadata server are at addresses that look public.
    expect(
      open(ipv4, "0.0.0.0", "168.63.129.16", "192.0.0.192", "198.19.0.1", "255.255.255.255", "100.100.100.200"),
    ).toEqual([]);
    const byIpv6 = [
      "64:ff9b::a9fe:a9fe",
      "64:ff9b:1::a00:1",
      "2002:a00:1::1",
      "2001::1",
      "fec0::1",
      "::",
      "::1",
      "fd00:ec2::254",
    ];
    expect(open(ipv6, ...byIpv6)).toEqual([]);
    // The rest of the world is there, and what its documentation calls so.
    expect(open(ipv4, "168.63.129.17", "192.0.1.1", "198.51.100.7", "203.0.113.1")).toHaveLength(4);
    expect(open(ipv6, "2606:4700::1", "2001:4860::1", "2a00::1")).toHaveLength(3);
  });

  it("excepts only what Kubernetes takes: strictly inside of the block, and no IPv4 address as an IPv6 one", () => {
    const everywhere = { ...args, network: { families: ["IPv4" as const, "IPv6" as const], ...noHouse } };
    const spaces = [policies(everywhere), ...Object.values(operatorPolicies(everywhere))];
    const blocks = spaces.flatMap((space) => Object.values(space)).flatMap(blocksOf);
    expect(blocks.length).toBeGreaterThan(10);
    for (const { cidr, except = [] } of blocks)
      for (const range of except) {
        expect([cidr, range, isWithin(range, cidr) && range !== cidr]).toEqual([cidr, range, true]);
        // Go, and with it the API server, reads ::ffff:0:0/96 as 0.0.0.0/0.
        expect(range).not.toMatch(/^::ffff:/);
      }
  });

  it("gives Mastodon the web's ports there, the bucket's and the mail server's: the API of a VPS is the internet, too", () => {
    const portsOf = (more: object) => {
      const rules = policies({ ...args, ...more })["mastodon"]?.egress as {
        to: object[];
        ports?: { port: number }[];
      }[];
      return rules
        .filter(({ to }) => JSON.stringify(to).includes("0.0.0.0/0"))
        .map(({ ports }) => ports?.map(({ port }) => port));
    };
    expect(portsOf({})).toEqual([[80, 443]]);
    const media = { kind: "bucket", endpoint: "https://s3.example.net:9000", region: "x", bucket: "media" };
    expect(portsOf({ media, smtp: { kind: "server", port: 587 } })).toEqual([[80, 443, 9000, 587]]);
  });

  it("adds the IPv6 internet only where the cluster has IPv6", () => {
    expect(text("mastodon")).not.toContain("::/0");
    const both = policies({ ...args, network: { ...args.network, families: ["IPv4", "IPv6"] } });
    expect(JSON.stringify(both["mastodon"])).toContain('"cidr":"::/0"');
    expect(JSON.stringify(both["mastodon"])).toContain("fc00::/7");
  });

  it("lets Traefik, and nobody else, in to web and streaming", () => {
    const from = [
      {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } },
        podSelector: { matchLabels: { "app.kubernetes.io/name": "traefik" } },
      },
    ];
    expect(made["mastodon"]?.ingress).toEqual([{ from, ports: [{ protocol: "TCP", port: 3000 }] }]);
    expect(made["mastodon-streaming"]?.ingress).toEqual([{ from, ports: [{ protocol: "TCP", port: 4000 }] }]);
  });

  it("lets only Mastodon, its Jobs and the owner's Job in to Valkey", () => {
    expect(text("valkey")).toContain('["mastodon","mastodon-owner","mastodon-feeds","mastodon-search-index"]');
    expect(text("valkey")).toContain("mastodon-db-migrate");
  });

  it("lets the keeper beside Valkey out to the vault's port, and monitored to WebFinger's, and to nothing else", () => {
    const ports = (of: typeof made) =>
      (of["valkey-keeper"]?.egress as { ports?: { port: number }[] }[]).map((rule) =>
        rule.ports?.map(({ port }) => port),
      );
    expect(ports(made)).toEqual([[53, 53], [8443], undefined, [443]]);
    expect(ports(policies({ ...args, monitoring: { kind: "off" } }))).toEqual([[53, 53], [8443]]);
    // The one rule without a port is for Traefik's pods.
    expect(text("valkey-keeper")).toContain('{"to":[{"namespaceSelector"');
  });

  it("lets Postgres out to the vault's port and the API server's, and to no cloud's metadata", () => {
    const egress = made["postgres"]?.egress as {
      to: { ipBlock?: { except?: string[] } }[];
      ports?: { port: number }[];
    }[];
    expect(egress.map((rule) => rule.ports?.map(({ port }) => port))).toEqual([
      [53, 53],
      [5432, 8000, 7070],
      [8443],
      [443, 6443, 16443],
    ]);
    for (const block of egress.flatMap(({ to }) => to).flatMap(({ ipBlock }) => ipBlock ?? [])) {
      if ("except" in block) expect(block.except).toContain("169.254.0.0/16");
    }
  });

  it("lets CloudNativePG in to Postgres from whatever namespace it is in", () => {
    expect(made["postgres"]?.ingress).toContainEqual({
      from: [
        {
          namespaceSelector: {},
          podSelector: { matchLabels: { "app.kubernetes.io/name": "cloudnative-pg" } },
        },
      ],
      ports: [8000, 5432].map((port) => ({ protocol: "TCP", port })),
    });
  });

  it("reads the vault's port from its address", () => {
    expect([portOf("https://s3.example.net"), portOf("http://s3/x"), portOf("http://10.0.0.1:9000")]).toEqual([
      443, 80, 9000,
    ]);
  });

  it("lets the schema Jobs reach database and queues, and not the internet", () => {
    expect(text("mastodon-jobs")).not.toContain("0.0.0.0/0");
    expect(text("mastodon-jobs")).toContain('"port":5432');
  });

  it("lets Prometheus, from its own namespace, in to the metrics, and nobody where there is no monitoring", () => {
    const from = { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "monitoring" } } };
    const ports = (port: number) => [{ from: [from], ports: [{ protocol: "TCP", port }] }];
    expect(made["valkey-metrics"]?.ingress).toEqual(ports(9121));
    expect(made["postgres-metrics"]?.ingress).toEqual(ports(9187));
    const off = policies({ ...args, monitoring: { kind: "off" } });
    expect(Object.keys(off).filter((name) => name.endsWith("-metrics"))).toEqual([]);
    expect(JSON.stringify(off["valkey-keeper"])).not.toContain("traefik");
  });
});

describe("the operators' policies", () => {
  const { "cert-manager": certManager, "cnpg-system": cnpg } = operatorPolicies(args);
  const all = [...Object.values(certManager), ...Object.values(cnpg)];

  it("deny everything that nothing else allows, in both namespaces", () => {
    for (const made of [certManager, cnpg]) {
      expect(made["default-deny"]).toEqual({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
    }
  });

  it("let them out to the API server's ports, and to no cloud's metadata", () => {
    const egress = [certManager, cnpg].map((made) => made["api-server"]?.egress);
    for (const rules of egress)
      expect(rules).toMatchObject([{ ports: [{ port: 443 }, { port: 6443 }, { port: 16443 }] }]);
    const blocks = all.flatMap(({ egress: rules }) =>
      ((rules as { to: { ipBlock?: { except?: string[] } }[] }[] | undefined) ?? []).flatMap(({ to }) => to),
    );
    for (const { ipBlock } of blocks) if (ipBlock?.except) expect(ipBlock.except).toContain("169.254.0.0/16");
  });

  it("name addresses in halves where a node is meant: Cilium takes the whole for what is outside", () => {
    const rules = [certManager, cnpg].map((made) => made["api-server"]).concat(made["postgres"]);
    for (const rule of rules) {
      const api = (rule?.egress as { to: object[]; ports: { port: number }[] }[]).find(({ ports }) =>
        ports.some(({ port }) => port === 6443),
      );
      expect(api?.to).toEqual([
        { ipBlock: { cidr: "0.0.0.0/1" } },
        { ipBlock: { cidr: "128.0.0.0/1", except: ["168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32"] } },
      ]);
    }
  });

  it("let cert-manager out to an ACME server's port, wherever it is", () => {
    const ports = (certificates: Parameters<typeof operatorPolicies>[0]["certificates"]) =>
      (
        operatorPolicies({ ...args, certificates })["cert-manager"]["acme"]?.egress as { ports?: { port: number }[] }[]
      ).map((rule) => rule.ports?.map(({ port }) => port));
    const acme = { kind: "acme" as const, email: "a@b.example" };
    expect(ports({ ...acme, server: "https://acme-v02.api.letsencrypt.org/directory" })).toEqual([
      [80, 53, 53],
      undefined,
    ]);
    expect(ports({ ...acme, server: "https://ca.example.net:9000/acme/acme/directory" })).toEqual([
      [80, 53, 53],
      [9000],
      undefined,
    ]);
  });

  it("let the API server in to the webhooks, wherever it is, and nobody to anything else", () => {
    const open = all.flatMap(({ ingress: rules }) =>
      ((rules as { from?: unknown; ports: { port: number }[] }[] | undefined) ?? []).filter(({ from }) => !from),
    );
    expect(open.map(({ ports }) => ports.map(({ port }) => port))).toEqual([[10250], [9443]]);
  });

  it("give DNS to who looks names up: cert-manager's controller, and CloudNativePG, which looks for the plugin", () => {
    const dns = (all: Record<string, Policy>, labels: Record<string, string>) => looksUp(egressOf(all, labels));
    const part = (value: string) => ({ "app.kubernetes.io/component": value });
    expect(["controller", "webhook", "cainjector", "startupapicheck"].filter((p) => dns(certManager, part(p)))).toEqual(
      ["controller"],
    );
    expect(["cloudnative-pg", "plugin-barman-cloud"].filter((p) => dns(cnpg, ours(p)))).toEqual(["cloudnative-pg"]);
  });

  it("let CloudNativePG ask its instances, in a drill's namespace too", () => {
    expect(cnpg["instances"]?.egress).toMatchObject([
      { to: [{ namespaceSelector: {} }], ports: [{ port: 8000 }, { port: 5432 }] },
    ]);
  });

  it("let Prometheus in only where there is monitoring", () => {
    expect(certManager["metrics"]).toBeDefined();
    const off = operatorPolicies({ ...args, monitoring: { kind: "off" } });
    expect([off["cert-manager"]["metrics"], off["cnpg-system"]["metrics"]]).toEqual([undefined, undefined]);
  });
});
