/**
 * What the archive interval costs (issue 5): requests, objects, bytes and the sidecar's memory while a site is active
 * and its standby follows, and what that is in a month. Measured, not claimed; docs/archive-interval.md has the figures.
 */
import * as assert from "node:assert/strict";
import { Cluster } from "../support/cluster";
import { CountingProxy } from "../support/counting-proxy";
import type { Count } from "../support/counting-proxy";
import { sleep } from "../support/processes";
import { succeeded } from "../support/project";
import type { Scenario } from "../support/scenario";
import { buckets, clientOf, namesOf, prepare } from "../support/stack";

/** Minutes that are counted. */
const minutes = { brief: 6, once: 6, full: 30 } as const;
const monthMinutes = 30 * 24 * 60;

export const archivePrice: Scenario = {
  name: "archive-price",
  what: "what the archive interval costs: requests, objects, memory",
  included: "by name",
  sites: "both",
  minutes: 12,
  limit: 60,
  async run(context) {
    const { environment, report, extent } = context;
    const clusters = {
      home: new Cluster(environment.home, environment),
      vps: new Cluster(environment.vps, environment),
    };
    const { project, secrets, s3 } = await prepare(context, [environment.home, environment.vps]);
    const proxy = await CountingProxy.start(environment);
    const vault = { endpoint: proxy.endpoint, region: environment.s3.region, bucket: buckets.vault };
    for (const site of ["home", "vps"] as const) {
      project.set(site, "vault", vault);
      await report.step(`pulumi up on ${site}`, async () => succeeded(await project.up(site), "pulumi up"));
    }
    const client = await clientOf(clusters.home, namesOf(environment.zone), secrets);
    // The first base backup is no part of a day's traffic.
    await sleep(30_000);
    proxy.take(environment.home.address);
    proxy.take(environment.vps.address);
    const before = await s3.keys(buckets.vault, "pg/home-g1/wals/");

    const end = Date.now() + minutes[extent] * 60_000;
    // A row every 5 s: an interval in which nothing is written is not archived, and the price is that of a busy server.
    const most = { home: 0, vps: 0 };
    for (let i = 0; Date.now() < end; i++) {
      await client.post(`post ${i}`);
      if (i % 6 === 0) {
        for (const site of ["home", "vps"] as const)
          most[site] = Math.max(most[site], await sidecarMemory(clusters[site]));
      }
      await sleep(5000);
    }
    const segments = (await s3.keys(buckets.vault, "pg/home-g1/wals/")).length - before.length;
    const counted = { home: proxy.take(environment.home.address), vps: proxy.take(environment.vps.address) };

    await report.check("segments were archived at about the interval's rate", () => {
      const expected = (minutes[extent] * 60) / 15;
      assert.ok(segments > expected * 0.6 && segments < expected * 1.5, `${segments} segments, not about ${expected}`);
    });
    for (const site of ["home", "vps"] as const) {
      console.log(`      ${site}: ${monthly(counted[site], minutes[extent])}`);
      console.log(`      ${site}'s sidecar: ${most[site]} MiB at its most (limit 512 MiB)`);
    }
    const objects = (segments / minutes[extent]) * monthMinutes;
    console.log(`      segments kept for 30 days: ${round(objects)} objects`);
  },
};

/** A count as it would be in a month. */
function monthly({ requests, sent }: Count, over: number): string {
  const parts = Object.entries(requests).map(([kind, n]) => `${kind} ${round((n / over) * monthMinutes)}`);
  return `in 30 days ${parts.join(", ")} requests, ${round(((sent / over) * monthMinutes) / 2 ** 20)} MiB sent`;
}

const round = (n: number): string => Number(n.toPrecision(3)).toLocaleString("en");

/** MiB that the archiving sidecar uses now, as the kubelet says. */
async function sidecarMemory(cluster: Cluster): Promise<number> {
  const [node] = await cluster.list("nodes");
  const text = await cluster.kubectl([
    "get",
    "--raw",
    `/api/v1/nodes/${node?.metadata.name ?? ""}/proxy/stats/summary`,
  ]);
  const { pods } = JSON.parse(text) as {
    pods: { containers?: { name: string; memory?: { workingSetBytes?: number } }[] }[];
  };
  const [sidecar] = pods.flatMap(({ containers = [] }) =>
    containers.filter(({ name }) => name === "plugin-barman-cloud"),
  );
  return Math.round((sidecar?.memory?.workingSetBytes ?? 0) / 2 ** 20);
}
