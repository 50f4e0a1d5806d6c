import { execFile } from "node:child_process";
import * as net from "node:net";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { chance, draw, seedOf } from "./e2e/support/chance";
import type { Cluster, KubeObject } from "./e2e/support/cluster";
import { isReady, lasting, oldRedis, restarts } from "./e2e/support/disk";
import { breaches, parseSight, probeProgram } from "./e2e/support/egress";
import { answered, answeredWithin, Load, mustBeAnswered } from "./e2e/support/load";
import type { Read } from "./e2e/support/load";
import { sleep } from "./e2e/support/processes";
import { prometheusConfiguration, scrapeTargets } from "./e2e/support/prometheus";
import type { SiteClient } from "./e2e/support/site";

const pod = (name: string, uid: string, restartCount = 0, owner = "ReplicaSet"): KubeObject => ({
  kind: "Pod",
  metadata: {
    name,
    uid,
    resourceVersion: "1",
    namespace: "homestead",
    ownerReferences: [{ kind: owner, name: "x" }],
  },
  status: {
    conditions: [{ type: "Ready", status: "True" }],
    containerStatuses: [
      { name: "c", restartCount, lastState: { terminated: { reason: "Error", exitCode: 137 } } },
      { name: "d", restartCount: 0 },
    ],
  },
});

describe("restarts between two looks", () => {
  test("none where every pod is the same and ran on", () => {
    expect(restarts([pod("a", "1", 2)], [pod("a", "1", 2), pod("new", "9")])).toEqual([]);
  });

  test("a container's, with its reason", () => {
    expect(restarts([pod("a", "1")], [pod("a", "1", 2)])).toEqual(["a/c was restarted 2 times (Error, exit code 137)"]);
  });

  test("a pod's that is another one under the same name", () => {
    expect(restarts([pod("valkey-0", "1")], [pod("valkey-0", "2")])).toEqual(["valkey-0 is gone"]);
  });

  test("a side-car's that is listed among the init containers", () => {
    const withSidecar = (restartCount: number): KubeObject => ({
      ...pod("pg", "1"),
      status: { initContainerStatuses: [{ name: "side", restartCount }] },
    });
    expect(restarts([withSidecar(0)], [withSidecar(1)])).toEqual([
      "pg/side was restarted 1 times (no reason, exit code ?)",
    ]);
  });

  test("a job's pod may go", () => {
    expect(lasting([pod("job", "1", 0, "Job")])).toEqual([]);
    expect(restarts([pod("job", "1", 0, "Job")], [])).toEqual([]);
  });

  test("a pod without conditions is not ready", () => {
    expect(isReady(pod("a", "1"))).toBe(true);
    expect(isReady({ ...pod("a", "1"), status: {} })).toBe(false);
    expect(isReady(undefined)).toBe(false);
  });
});

describe("reads", () => {
  const reads = (good: number, bad: number): Read[] => [
    ...Array.from({ length: good }, (_, i) => ({ what: "page", milliseconds: i + 1 })),
    ...Array.from({ length: bad }, () => ({ what: "page", milliseconds: 9999, fault: "page: HTTP 503" })),
  ];

  test("are counted with how long the answered ones took, and why the others were not", () => {
    expect(answered(reads(3, 1))).toEqual({ share: 0.75, median: 2, worst: 3, faults: ["1 x page: HTTP 503"] });
    expect(answered([])).toEqual({ share: 0, median: 0, worst: 0, faults: [] });
  });

  test("pass at the share that is asked for, and fail below it", () => {
    expect(() => mustBeAnswered(reads(99, 1), 0.99)).not.toThrow();
    expect(() => mustBeAnswered(reads(98, 2), 0.99)).toThrow(
      "98.00 % of 100 reads were answered, not 99.00 %: 2 x page: HTTP 503",
    );
  });

  test("prove nothing when there were hardly any", () => {
    expect(() => mustBeAnswered(reads(10, 0), 0.99)).toThrow("only 10 reads were asked for");
  });

  test("that were answered later than some seconds are told from the others", () => {
    const slow: Read = { what: "page", milliseconds: 10_001 };
    expect(answeredWithin(10, [...reads(2, 1), slow])).toBe(0.5);
    expect(answeredWithin(11, [...reads(2, 1), slow])).toBe(0.75);
    expect(answeredWithin(10, [])).toBe(0);
  });
});

test("a post counts for the trouble in which it was sent, whenever it was acknowledged", async () => {
  const waiting: (() => void)[] = [];
  let sent = 0;
  const client = {
    names: { owner: "owner" },
    request: () => Promise.resolve({ status: 200 }),
    api: (path: string) =>
      path === "/api/v1/statuses"
        ? new Promise((resolve) => waiting.push(() => resolve({ id: ++sent })))
        : Promise.resolve({}),
  };
  const load = new Load(client as unknown as SiteClient, {} as Cluster, { read: 1, post: 1 });
  const next = async () => {
    while (waiting.length === 0) await sleep(5);
  };
  const answer = async () => {
    await next();
    waiting.shift()?.();
  };
  expect(load.summary()).toContain("0 posts acknowledged, 0 refused");
  await load.during(async () => {
    await next();
    load.begins();
    await answer();
    await next();
    load.ends();
    await answer();
    await next();
    setTimeout(() => void answer(), 50);
  });
  expect(load.acknowledged).toEqual(["1", "2", "3"]);
  expect(load.inTrouble).toEqual(["2"]);
  expect(load.summary()).toContain("3 posts acknowledged (1 of them sent in trouble), 0 refused");
});

test("the old Redis has an append-only file on the slow class, and the old chart's probes", () => {
  const { items } = JSON.parse(oldRedis("redis:7", "slow")) as { items: KubeObject[] };
  const claim = items.find(({ kind }) => kind === "PersistentVolumeClaim");
  expect(claim?.spec?.["storageClassName"]).toBe("slow");
  const [redis] = items.find(({ kind }) => kind === "Pod")?.spec?.["containers"] as Record<string, unknown>[];
  expect(redis?.["command"]).toEqual(expect.arrayContaining(["--appendonly", "yes", "--appendfsync", "everysec"]));
  expect(redis?.["livenessProbe"]).toMatchObject({ timeoutSeconds: 5, periodSeconds: 5, failureThreshold: 5 });
  expect(redis?.["readinessProbe"]).toMatchObject({ timeoutSeconds: 1, periodSeconds: 5, failureThreshold: 5 });
});

describe("the probe beside a pod", () => {
  test("tells an open port from a closed one, and sees other processes' arguments", async () => {
    const server = net.createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as net.AddressInfo;
    const program = probeProgram([
      { name: "open one", host: "127.0.0.1", port },
      { name: "closed one", host: "127.0.0.1", port: 1 },
    ]);
    const { stdout } = await promisify(execFile)(process.execPath, ["-e", program]);
    server.close();
    const { reached, processes } = parseSight(`noise\n${stdout}`);
    expect(reached).toMatchObject({ "open one": "open", "closed one": "ECONNREFUSED" });
    expect(Object.keys(reached)).toContain("dns");
    expect(processes.length).toBeGreaterThan(0);
  });

  test("that printed something else is an error with what it printed", () => {
    expect(() => parseSight("node: not found")).toThrow("the probe printed: node: not found");
  });

  test("what is needed and closed, what is forbidden and open, and what was not tried are breaches", () => {
    const sight = { reached: { dns: "open", vault: "ECONNREFUSED", web: "open", blog: "ECONNREFUSED" }, processes: [] };
    expect(breaches(sight, { needs: ["dns"], never: ["blog"] })).toEqual([]);
    expect(breaches(sight, { needs: ["vault", "search"], never: ["web", "cache"] })).toEqual([
      "needs vault: ECONNREFUSED",
      "needs search: not tried",
      "reaches web",
      "cache was not tried",
    ]);
  });
});

describe("a Prometheus outside the cluster", () => {
  const annotated = {
    ...pod("valkey-0", "1"),
    metadata: {
      ...pod("valkey-0", "1").metadata,
      labels: { "app.kubernetes.io/name": "valkey" },
      annotations: { "prometheus.io/scrape": "true", "prometheus.io/port": "9121" },
    },
  };

  test("scrapes the pods that say so, and no others", () => {
    expect(scrapeTargets([annotated, pod("b", "2")])).toEqual([
      {
        namespace: "homestead",
        pod: "valkey-0",
        port: 9121,
        path: "/metrics",
        labels: { "app.kubernetes.io/name": "valkey" },
      },
    ]);
  });

  test("gives each the labels that the discovery of pods would", () => {
    const targets = scrapeTargets([annotated]).map((target) => ({ ...target, local: 40001 }));
    expect(parse(prometheusConfiguration(targets, "/rules.yaml"))).toMatchObject({
      rule_files: ["/rules.yaml"],
      scrape_configs: [
        {
          metrics_path: "/metrics",
          static_configs: [
            {
              targets: ["127.0.0.1:40001"],
              labels: {
                job: "valkey",
                namespace: "homestead",
                pod: "valkey-0",
                app_kubernetes_io_name: "valkey",
              },
            },
          ],
        },
      ],
    });
  });
});

describe("chance", () => {
  test("is the same again from the same seed, and another from another", () => {
    const numbers = (seed: number) => Array.from({ length: 5 }, chance(seed));
    expect(numbers(7)).toEqual(numbers(7));
    expect(numbers(7)).not.toEqual(numbers(8));
    expect(numbers(7).every((n) => n >= 0 && n < 1)).toBe(true);
  });

  test("draws each of some things, and none from nothing", () => {
    const random = chance(1);
    expect(new Set(Array.from({ length: 50 }, () => draw(random, ["a", "b", "c"]))).size).toBe(3);
    expect(() => draw(random, [])).toThrow("nothing to draw from");
  });

  test("takes its seed from E2E_SEED", () => {
    expect(seedOf({ E2E_SEED: "42" })).toBe(42);
  });
});
