/** A Kubernetes API server that knows a few lists, and a kubeconfig that leads to it. */
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { onTestFinished } from "vitest";
import { temporaryFolder } from "./folders";

interface FakeNamespace {
  metadata: { name: string; uid?: string; labels?: Record<string, string>; deletionTimestamp?: string };
  status?: object;
}

/** What a cluster has; the defaults are those of k3s. */
export interface Lists {
  services?: object[];
  nodes?: object[];
  storageClasses?: object[];
  /** Beside kube-system. Looked at with each request, as all lists are: what a test puts in later is there from then on. */
  namespaces?: FakeNamespace[];
  /** How often a namespace that is deleted is seen before it is gone. */
  lingers?: number;
  /** UID of kube-system, by which a cluster is told from another one. */
  uid?: string;
  deployments?: object[];
  /** Names of custom resource definitions. */
  definitions?: string[];
  /** Paths that one has no right to. */
  forbidden?: string[];
  /** Whom the cluster knows: nobody, where one's credentials have run out. @default everybody */
  knows?: "nobody";
  /** Whatever else is asked for, by its path. */
  others?: Record<string, () => object>;
}

export interface FakeCluster {
  /** Its kubeconfig, whose current context is `trial`. */
  kubeconfig: string;
  server: string;
  /** Every request that would change something: `DELETE /api/v1/namespaces/homestead`. */
  changes: string[];
}

/** Traefik as k3s has it. */
export const traefik = {
  metadata: { name: "traefik", namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" } },
  spec: { type: "LoadBalancer", selector: { "app.kubernetes.io/name": "traefik" } },
  status: { loadBalancer: { ingress: [{ ip: "192.0.2.7" }] } },
};

export const storageClass = (name: string, isDefault: "default" | "other" = "other") => ({
  metadata: { name, annotations: { "storageclass.kubernetes.io/is-default-class": String(isDefault === "default") } },
  provisioner: "x",
});

/** Starts one for the running test. */
export async function fakeCluster(lists: Lists = {}): Promise<FakeCluster> {
  const changes: string[] = [];
  const { uid = "cluster-1" } = lists;
  const own = (lists.namespaces ??= []);
  const namespaces = (): FakeNamespace[] => [{ metadata: { name: "kube-system", uid } }, ...own];
  const gone = (name: string) =>
    own.splice(
      own.findIndex(({ metadata }) => metadata.name === name),
      1,
    );
  let seen = 0;
  const answers = (): Record<string, unknown> => ({
    "/version": { major: "1", minor: "34", gitVersion: "v1.34.4" },
    "/api/v1/services": { items: lists.services ?? [traefik] },
    "/api/v1/nodes": { items: lists.nodes ?? [] },
    "/api/v1/namespaces": { items: namespaces() },
    "/api/v1/configmaps": { items: [] },
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": { items: [] },
    "/apis/apps/v1/deployments": { items: lists.deployments ?? [] },
    "/apis/storage.k8s.io/v1/storageclasses": {
      items: lists.storageClasses ?? [storageClass("local-path", "default")],
    },
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
      items: (lists.definitions ?? ["ingressroutes.traefik.io"]).map((name) => ({
        metadata: { name },
        spec: {
          group: name.replace(/^[^.]*\./, ""),
          names: { kind: "X", plural: name.split(".")[0] },
          scope: "Namespaced",
          versions: [{ name: "v1", served: true, storage: true }],
        },
      })),
    },
    ...Object.fromEntries(
      namespaces().map((namespace) => [`/api/v1/namespaces/${namespace.metadata.name}`, namespace]),
    ),
  });
  const server = http.createServer((request, response) => {
    const { pathname, search } = new URL(request.url ?? "/", "http://cluster");
    if (request.method !== "GET") {
      changes.push(`${request.method} ${pathname}${search}`);
      const deleted = own.find(({ metadata }) => pathname.endsWith(`/namespaces/${metadata.name}`));
      if (deleted) deleted.metadata.deletionTimestamp = "2026-11-22T10:00:00Z";
    }
    for (const { metadata } of own.filter((one) => one.metadata.deletionTimestamp !== undefined)) {
      if (request.method === "GET" && pathname === `/api/v1/namespaces/${metadata.name}`) seen++;
      if (seen > (lists.lingers ?? 0)) gone(metadata.name);
    }
    // Its version it tells everybody.
    if (lists.knows === "nobody" && pathname !== "/version") {
      response.writeHead(401, { "content-type": "application/json" });
      return void response.end(JSON.stringify({ kind: "Status", code: 401, message: "Unauthorized" }));
    }
    if (lists.forbidden?.includes(pathname)) {
      response.writeHead(403, { "content-type": "application/json" });
      response.end(JSON.stringify({ kind: "Status", code: 403, message: `no right to ${pathname}` }));
      return;
    }
    const answer = request.method === "GET" ? (lists.others?.[pathname]?.() ?? answers()[pathname]) : {};
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { kubeconfig: kubeconfigFor(url), server: url, changes };
}

/** A kubeconfig file with the one context `trial`. */
export function kubeconfigFor(server: string): string {
  const file = path.join(temporaryFolder(), "kubeconfig");
  const content = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "trial",
    contexts: [{ name: "trial", context: { cluster: "trial", user: "trial" } }],
    clusters: [
      {
        name: "trial", // The client refuses plain HTTP otherwise.
        cluster: { server, "insecure-skip-tls-verify": true },
      },
    ],
    users: [{ name: "trial", user: {} }],
  };
  fs.writeFileSync(file, JSON.stringify(content));
  return file;
}
