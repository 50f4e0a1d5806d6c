/** The control group of the edge: the official chart's own Ingress, in place of our routes. */
import * as fs from "node:fs";
import * as path from "node:path";
import { charts } from "../../../versions";
import { reapplicable } from "./cluster";
import type { Cluster } from "./cluster";
import { must } from "./processes";
import type { Context } from "./scenario";
import type { Names } from "./site";

/** Renders the Ingress that the chart makes for the release as it is installed. @returns its manifest */
export async function chartIngress({ environment, logs }: Context, cluster: Cluster, names: Names): Promise<string> {
  const access = ["--kubeconfig", cluster.access.kubeconfig, "--kube-context", cluster.access.context];
  const env = environment.childEnv;
  const values = path.join(logs, "values-of-the-release.yaml");
  fs.writeFileSync(
    values,
    await must("helm", ["get", "values", "mastodon", "-n", "homestead", "-o", "yaml", ...access], { env }),
  );
  const [route] = (await cluster.list("ingressroutes.traefik.io", "homestead")).filter(
    (r) => r.spec?.["tls"] !== undefined,
  );
  const { secretName } = (route?.spec?.["tls"] ?? {}) as { secretName?: string };
  if (secretName === undefined) throw new Error("no route of ours names a certificate");
  const hosts = path.join(logs, "values-chart-ingress.json");
  fs.writeFileSync(
    hosts,
    JSON.stringify({
      ingress: {
        enabled: true,
        className: "traefik",
        hosts: [{ host: names.webHost, paths: [{ path: "/", pathType: "Prefix" }] }],
        // The certificate is for the apex too: what is missing must be the route and nothing else.
        tls: [{ secretName, hosts: [names.apex, names.webHost] }],
      },
    }),
  );
  const local = environment.charts === undefined ? undefined : path.join(environment.charts, "mastodon");
  const chart =
    local !== undefined && fs.existsSync(local)
      ? [local]
      : ["mastodon", "--repo", charts.mastodon.repository, "--version", charts.mastodon.version];
  return must(
    "helm",
    [
      "template",
      "mastodon",
      ...chart,
      "-n",
      "homestead",
      "-f",
      values,
      "-f",
      hosts,
      "--show-only",
      "templates/ingress.yaml",
    ],
    { env },
  );
}

/** Runs with our routes taken away and another Ingress in their place; puts them back however it ends. */
export async function withoutOurRoutes(cluster: Cluster, ingress: string, work: () => Promise<void>): Promise<void> {
  const routes = await cluster.list("ingressroutes.traefik.io", "homestead");
  if (routes.length === 0) throw new Error("there are no routes to take away");
  const kept = reapplicable(routes);
  await cluster.kubectl(["delete", "ingressroutes.traefik.io", "--all", "-n", "homestead"]);
  try {
    await cluster.kubectl(["apply", "-n", "homestead", "-f", "-"], { input: ingress });
    await work();
  } finally {
    await cluster.kubectl(["delete", "ingress", "--all", "-n", "homestead", "--ignore-not-found"]);
    await cluster.kubectl(["create", "-f", "-"], { input: kept });
  }
}
