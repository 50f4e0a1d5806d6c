import { describe, expect, it } from "vitest";
import { policies } from "../components/isolation";

const args = {
  ingress: { namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" } },
  network: { families: ["IPv4" as const], privateEgress: ["10.210.0.0/24"] },
  monitoring: { kind: "rules" as const, labels: {}, namespace: "monitoring" },
};
const made = policies(args);
const text = (name: string) => JSON.stringify(made[name]);

describe("policies", () => {
  it("denies everything that nothing else allows", () => {
    expect(made["default-deny"]).toEqual({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
  });

  it("gives Mastodon the internet, the named private range, and no other private address", () => {
    const blocks = (made["mastodon"]?.egress as { to: { ipBlock?: { cidr: string; except?: string[] } }[] }[])
      .flatMap((rule) => rule.to)
      .flatMap((peer) => (peer.ipBlock ? [peer.ipBlock] : []));
    expect(blocks.map((b) => b.cidr)).toEqual(["0.0.0.0/0", "10.210.0.0/24"]);
    expect(blocks[0]?.except).toEqual(
      expect.arrayContaining(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"]),
    );
  });

  it("adds the IPv6 internet only where the cluster has IPv6", () => {
    expect(text("mastodon")).not.toContain("::/0");
    const both = policies({ ...args, network: { ...args.network, families: ["IPv4", "IPv6"] } });
    expect(JSON.stringify(both["mastodon"])).toContain('"cidr":"::/0"');
    expect(JSON.stringify(both["mastodon"])).toContain("fc00::/7");
  });

  it("lets Traefik, and nobody else, in to web and streaming", () => {
    expect(made["mastodon"]?.ingress).toEqual([
      {
        from: [
          {
            namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } },
            podSelector: { matchLabels: { "app.kubernetes.io/name": "traefik" } },
          },
        ],
        ports: [
          { protocol: "TCP", port: 3000 },
          { protocol: "TCP", port: 4000 },
        ],
      },
    ]);
  });

  it("lets only Mastodon, its Jobs and the owner's Job in to Valkey, and lets Valkey out to nothing", () => {
    expect(text("valkey")).toContain('["mastodon","mastodon-owner","mastodon-feeds","mastodon-search-index"]');
    expect(text("valkey")).toContain("mastodon-db-migrate");
    expect(made["valkey"]?.egress).toBeUndefined();
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
