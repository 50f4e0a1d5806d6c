/** What an update waits for that has stopped Mastodon. */
import { describe, expect, it, vi } from "vitest";
import { untilStopped } from "../lib/stopping";
import type { Part } from "../lib/stopping";
import { fakeCluster } from "./support/fake-cluster";

const pods = "/api/v1/namespaces/homestead/pods";

const pod = (name: string, component: string, phase = "Running") => ({
  metadata: { name: `mastodon-${name}`, labels: { "app.kubernetes.io/component": component } },
  status: { phase },
});
const web = pod("web-1", "web");
const sidekiq = pod("sidekiq-all-queues-1", "sidekiq-all-queues");
const streaming = pod("streaming-1", "streaming");

/** How often the pods were looked at before the wait was over. */
async function looks(stopped: Part[], podsAt: (look: number) => object[]): Promise<number> {
  let look = 0;
  const { kubeconfig } = await fakeCluster({ others: { [pods]: () => ({ items: podsAt((look += 1)) }) } });
  await untilStopped({ cluster: { kubeconfig, context: "trial" }, namespace: "homestead" }, stopped);
  return look;
}

describe("the end of Mastodon's pods", () => {
  it("is waited for: Helm takes no replicas for done while they are still ending", async () => {
    expect(await looks(["web", "jobs"], (look) => (look < 2 ? [sidekiq] : []))).toBe(2);
    expect(await looks(["web", "jobs"], (look) => (look < 2 ? [web] : []))).toBe(2);
  });

  it("is that of what was stopped alone, and of what writes", async () => {
    expect(await looks(["web"], () => [sidekiq, streaming])).toBe(1);
    expect(await looks(["web", "jobs"], () => [streaming])).toBe(1);
  });

  it("has come for a pod that was evicted: its ReplicaSet leaves it to be looked at", async () => {
    const ended = ["Failed", "Succeeded"].map((phase) => pod("sidekiq-all-queues-0", "sidekiq-all-queues", phase));
    expect(await looks(["jobs"], () => ended)).toBe(1);
  });

  it("that does not come is told with the pod, and the way out for a dead node's", async () => {
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    const late = () => {
      clock.mockReturnValue(now + 301_000);
      return [streaming, sidekiq];
    };
    const said = await looks(["web", "jobs"], late).then(String, String);
    clock.mockRestore();
    expect(said).toMatch(
      /^Error: the end of Mastodon's pods: not within 300 s: 'mastodon-sidekiq-all-queues-1' is still there, and nothing that it writes to is stopped before; the same update again waits on\. If its node is dead, what it was at is lost: kubectl --kubeconfig \S+ --context trial -n homestead delete pod mastodon-sidekiq-all-queues-1 --force$/,
    );
  });

  it("is not known from a cluster that does not answer", async () => {
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    const { kubeconfig } = await fakeCluster({ forbidden: [pods] });
    const waiting = untilStopped({ cluster: { kubeconfig, context: "trial" }, namespace: "homestead" }, ["jobs"]);
    clock.mockReturnValue(now + 301_000);
    const said = await waiting.then(String, String);
    clock.mockRestore();
    expect(said).toContain(`not within 300 s: list pods -n homestead: 403, no right to ${pods}`);
  });
});
