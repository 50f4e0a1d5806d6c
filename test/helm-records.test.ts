/** What an update that was killed leaves behind, seen from the next one. */
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { describedBy } from "../lib/charts";
import { readReleases } from "../lib/helm-records";
import { planStack } from "../lib/plan";
import { copyProject } from "./support/folders";
import { kubeconfigFor } from "./support/fake-cluster";
import { named, plannedStack } from "./support/planned";

interface Attempt {
  name: string;
  revision: number;
  status: string;
  annotations: Record<string, string>;
}

/** A cluster whose releases, by namespace and name, have attempts in these states; those that are left can be seen. */
async function clusterWith(states: Record<string, string[]>) {
  const records = new Map(
    Object.entries(states).map(([release, attempts]) => [
      release,
      attempts.map((status, i): Attempt => {
        const name = `sh.helm.release.v1.${release.split("/")[1] ?? ""}.v${i + 1}`;
        return { name, revision: i + 1, status, annotations: {} };
      }),
    ]),
  );
  const changes: string[] = [];
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://world");
    response.writeHead(200, { "content-type": "application/json" });
    const [, namespace = "", secret = ""] = /namespaces\/([^/]+)\/secrets\/?(.*)$/.exec(pathname) ?? [];
    if (request.method === "GET") {
      const [, release = ""] = /^owner=helm,name=([^,]+)$/.exec(searchParams.get("labelSelector") ?? "") ?? [];
      const items = (records.get(`${namespace}/${release}`) ?? []).map(({ name, revision, status, annotations }) => ({
        metadata: { name, namespace, labels: { status, version: String(revision) }, annotations },
      }));
      return void response.end(JSON.stringify({ items }));
    }
    changes.push(`${request.method ?? ""} ${secret}`);
    const [, all = []] = [...records].find(([release]) => release.startsWith(`${namespace}/`)) ?? [];
    const index = all.findIndex(({ name }) => name === secret);
    if (request.method === "DELETE") all.splice(index, 1);
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      if (request.method === "PATCH") {
        const { metadata } = JSON.parse(Buffer.concat(parts).toString()) as { metadata: Pick<Attempt, "annotations"> };
        Object.assign(all[index]?.annotations ?? {}, metadata.annotations);
      }
      response.end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { settings: settings(url), changes, records };
}

const settings = (server: string, certManager: "install" | "existing" = "install") => ({
  cluster: { context: "trial", kubeconfig: kubeconfigFor(server) },
  namespace: "homestead",
  operators: { certManager, cloudNativePg: "install", barmanPlugin: "install" } as const,
});

test("an attempt that never ended is forgotten, what was deployed before it stays, and the release is made anew", async () => {
  const { settings, changes } = await clusterWith({
    "homestead/mastodon": ["superseded", "deployed", "pending-upgrade"],
    "cnpg-system/cloudnative-pg": ["pending-install"],
    "cert-manager/cert-manager": ["deployed"],
  });
  expect(await readReleases(settings, "forget")).toEqual({
    mastodon: "there",
    // A first install that was killed is not in Pulumi's state, and is made by the next update in any case.
    killed: { mastodon: "after attempt 3, which was killed" },
  });
  expect(changes).toEqual([
    "PATCH sh.helm.release.v1.mastodon.v2",
    "DELETE sh.helm.release.v1.mastodon.v3",
    "DELETE sh.helm.release.v1.cloudnative-pg.v1",
  ]);
});

test("it is made anew also when the update that forgot the attempt was killed before it came to the release", async () => {
  const { settings, changes, records } = await clusterWith({ "homestead/mastodon": ["deployed", "pending-upgrade"] });
  await readReleases(settings, "forget");
  changes.length = 0;
  const { killed } = await readReleases(settings, "forget");
  expect(killed).toEqual({ mastodon: "after attempt 2, which was killed" });
  expect(changes).toEqual([]);

  // Helm writes the last one's record anew when the next one is there, and knows of no marks.
  records.set("homestead/mastodon", [
    { name: "v1", revision: 1, status: "superseded", annotations: {} },
    { name: "v2", revision: 2, status: "deployed", annotations: {} },
  ]);
  expect(await readReleases(settings, "forget")).toEqual({ mastodon: "there", killed: {} });
});

test("the newest attempt is the one with the highest number, and a way back that was killed is one, too", async () => {
  const states = ["deployed", ...Array<string>(8).fill("failed"), "failed", "pending-rollback"];
  const { settings, changes } = await clusterWith({ "homestead/mastodon": states });
  expect((await readReleases(settings, "forget")).killed).toEqual({ mastodon: "after attempt 11, which was killed" });
  expect(changes).toEqual(["PATCH sh.helm.release.v1.mastodon.v10", "DELETE sh.helm.release.v1.mastodon.v11"]);
});

test("a preview sees the same, and changes nothing", async () => {
  const { settings, changes } = await clusterWith({ "homestead/mastodon": ["deployed", "pending-upgrade"] });
  expect((await readReleases(settings, "look")).killed).toEqual({ mastodon: "after attempt 2, which was killed" });
  expect(changes).toEqual([]);
});

test("Mastodon is there only where it was installed to the end", async () => {
  const mastodon = async (...states: string[]) => {
    const { settings } = await clusterWith({ "homestead/mastodon": states });
    return (await readReleases(settings, "look")).mastodon;
  };
  expect(await mastodon()).toBe("missing");
  expect(await mastodon("pending-install")).toBe("missing");
  expect(await mastodon("deployed", "failed")).toBe("there");
});

test("nobody else's release is touched: not another namespace's, nor an operator that somebody else installs", async () => {
  const { settings: ours, changes } = await clusterWith({
    "other/mastodon": ["deployed", "pending-upgrade"],
    "cert-manager/cert-manager": ["deployed", "pending-upgrade"],
  });
  const settings = { ...ours, operators: { ...ours.operators, certManager: "existing" as const } };
  expect(await readReleases(settings, "forget")).toEqual({ mastodon: "missing", killed: {} });
  expect(changes).toEqual([]);
});

test("a description makes the attempt, and whatever stands there afterwards is no difference", async () => {
  expect(describedBy({ mastodon: "after attempt 3, which was killed" }, "mastodon")).toEqual({
    described: { description: "after attempt 3, which was killed" },
    ignoreChanges: [],
  });
  for (const release of ["mastodon-release", "operators-cloudnative-pg-release"]) {
    const { inputs, options } = named(plannedStack("home"), release);
    expect(options.ignoreChanges).toEqual(["description"]);
    expect(inputs).not.toHaveProperty("description");
  }
  const edit = (text: string) => text.replace("killed: {},", 'killed: { mastodon: "x", "cloudnative-pg": "y" },');
  const plan = await planStack("home", { folder: copyProject({ "lib/checks.ts": edit }) });
  expect(named(plan, "mastodon-release")).toMatchObject({
    inputs: { description: "x" },
    options: { ignoreChanges: [] },
  });
  expect(named(plan, "operators-cloudnative-pg-release").inputs).toMatchObject({ description: "y" });
}, 120_000);
