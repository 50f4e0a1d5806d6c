import { describe, expect, it } from "vitest";
import { cacheConfiguration, patience, queueConfiguration } from "../components/valkey";
import { at } from "../lib/plan";
import { named, plannedStack } from "./support/planned";

type Probe = Partial<Record<"periodSeconds" | "failureThreshold", number>>;
type Container = Partial<Record<"startupProbe" | "readinessProbe" | "livenessProbe", Probe>>;

const directives = (text: string) =>
  new Map(
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)] as const),
  );

describe("the queue's configuration", () => {
  const queue = directives(queueConfiguration);

  it("keeps the answering thread off the disk: snapshots, no append-only file", () => {
    expect(queue.get("appendonly")).toBe("no");
    expect(queue.get("save")).toBe("60 1");
  });

  it("never evicts a job and never refuses writes for a failed snapshot", () => {
    expect(queue.get("maxmemory-policy")).toBe("noeviction");
    expect(queue.get("stop-writes-on-bgsave-error")).toBe("no");
  });

  it("takes the password from a file and holds none", () => {
    expect(queue.get("include")).toBe("/etc/valkey/secret/password.conf");
    expect(queue.has("requirepass")).toBe(false);
  });
});

describe("the cache's configuration", () => {
  it("writes nothing and evicts what is old", () => {
    const cache = directives(cacheConfiguration);
    expect(cache.get("save")).toBe('""');
    expect(cache.get("appendonly")).toBe("no");
    expect(cache.get("maxmemory-policy")).toBe("allkeys-lru");
  });
});

describe("the vault's keys", () => {
  it.each(["home", "vps"] as const)("are given to %s's keeper as it starts, so new ones make a new pod", (stack) => {
    const { inputs } = named(plannedStack(stack), "valkey-queue");
    expect(at(inputs, "spec.template.metadata.annotations.homestead/vault")).toMatch(/^[0-9a-f]{16}$/);
    expect(
      at(named(plannedStack(stack), "valkey-cache").inputs, "spec.template.metadata.annotations"),
    ).not.toHaveProperty("homestead/vault");
  });
});

describe("Valkey's probes", () => {
  const container = (name: string, stack: "home" | "vps" = "home") =>
    (at(named(plannedStack(stack), name).inputs, "spec.template.spec.containers") as Container[])[0];

  it.each(["valkey-queue", "valkey-cache"])(
    "of %s ask the kernel, which answers for a thread that is blocked",
    (name) => {
      for (const stack of ["home", "vps"] as const) {
        const { startupProbe, readinessProbe, livenessProbe } = container(name, stack) ?? {};
        for (const probe of [startupProbe, readinessProbe, livenessProbe])
          expect(Object.keys(probe ?? {}).sort()).toEqual([
            "failureThreshold",
            "periodSeconds",
            "tcpSocket",
            "timeoutSeconds",
          ]);
      }
    },
  );

  it.each(["valkey-queue", "valkey-cache"])(
    "of %s outlast five minutes of a slow disk before they restart it",
    (name) => {
      for (const stack of ["home", "vps"] as const) {
        const { startupProbe, livenessProbe } = container(name, stack) ?? {};
        for (const probe of [startupProbe, livenessProbe])
          expect((probe?.periodSeconds ?? 0) * (probe?.failureThreshold ?? 0)).toBeGreaterThanOrEqual(300);
      }
    },
  );
});

describe("an update's patience with the queue", () => {
  it("is the grace that may have to be waited out, and ten minutes", () => {
    expect(patience({ leaseGrace: 600 })).toBe("1268");
  });

  it("is longer where the lost site still goes by a longer grace than the stack's", () => {
    expect(patience({ leaseGrace: 30, leaseWait: 3728 })).toBe("4328");
    expect(patience({ leaseGrace: 600, leaseWait: 0 })).toBe("1268");
  });
});

describe("new settings", () => {
  it.each(["valkey-queue", "valkey-cache"])("reach %s also where it is not ready, as at a closed gate", (name) => {
    expect(at(named(plannedStack("home"), name).inputs, "spec.podManagementPolicy")).toBe("Parallel");
  });
});

describe("the queue's place", () => {
  it("is the database's node, whose disk its keeper's alerts speak of, if there is room", () => {
    const affinity = (name: string) => at(named(plannedStack("home"), name).inputs, "spec.template.spec.affinity");
    expect(affinity("valkey-queue")).toEqual({
      podAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          {
            weight: 100,
            podAffinityTerm: {
              labelSelector: { matchExpressions: [{ key: "cnpg.io/cluster", operator: "Exists" }] },
              topologyKey: "kubernetes.io/hostname",
            },
          },
        ],
      },
    });
    expect(affinity("valkey-cache")).toBeUndefined();
  });
});
