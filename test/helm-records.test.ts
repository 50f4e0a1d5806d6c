/** What an update that was killed leaves behind, seen from the next one. */
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { forgetUnfinished } from "../lib/helm-records";
import { kubeconfigFor } from "./support/fake-cluster";

/** A cluster whose releases, by namespace and name, have records in these states. */
async function clusterWith(records: Record<string, string[]>): Promise<{ server: string; deleted: string[] }> {
  const deleted: string[] = [];
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://world");
    response.writeHead(200, { "content-type": "application/json" });
    if (request.method === "DELETE") {
      deleted.push(pathname);
      return void response.end("{}");
    }
    const selector = searchParams.get("labelSelector") ?? "";
    const [, namespace = ""] = /namespaces\/([^/]+)\/secrets/.exec(pathname) ?? [];
    const [, release = "", states = ""] = /^owner=helm,name=([^,]+),status in \((.*)\)$/.exec(selector) ?? [];
    const found = (records[`${namespace}/${release}`] ?? [])
      .map((state, i) => ({ state, metadata: { name: `sh.helm.release.v1.${release}.v${i + 1}`, namespace } }))
      .filter(({ state }) => states.split(",").includes(state));
    response.end(JSON.stringify({ items: found.map(({ metadata }) => ({ metadata })) }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return { server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, deleted };
}

const settings = (server: string, certManager: "install" | "existing" = "install") => ({
  cluster: { context: "trial", kubeconfig: kubeconfigFor(server) },
  namespace: "homestead",
  operators: { certManager, cloudNativePg: "install", barmanPlugin: "install" } as const,
});

test("an attempt that never ended is forgotten, and what was deployed before it stays", async () => {
  const { server, deleted } = await clusterWith({
    "homestead/mastodon": ["superseded", "deployed", "pending-upgrade"],
    "cnpg-system/cloudnative-pg": ["pending-install"],
    "cert-manager/cert-manager": ["deployed"],
  });
  expect(await forgetUnfinished(settings(server))).toEqual(["mastodon", "cloudnative-pg"]);
  expect(deleted).toEqual([
    "/api/v1/namespaces/homestead/secrets/sh.helm.release.v1.mastodon.v3",
    "/api/v1/namespaces/cnpg-system/secrets/sh.helm.release.v1.cloudnative-pg.v1",
  ]);
});

test("nobody else's release is touched: not another namespace's, nor an operator that somebody else installs", async () => {
  const { server, deleted } = await clusterWith({
    "other/mastodon": ["pending-upgrade"],
    "cert-manager/cert-manager": ["pending-upgrade"],
  });
  expect(await forgetUnfinished(settings(server, "existing"))).toEqual([]);
  expect(deleted).toEqual([]);
});
