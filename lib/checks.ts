/**
 * What is asked of the world before the first resource exists, in a preview too: is this the stack's own cluster, and
 * is there what the stack names. All faults come out as one error; nothing has been touched by then.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@kubernetes/client-node";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { copyPrefix } from "../components/media-copy";
import type { Fault, Settings } from "../settings";
import { SettingsError, archiveName } from "../settings";
import type { ChartReference } from "../versions";
import { kubeClient, statusOf } from "./kube";
import { isPlanning } from "./planning";
import { hasNsupdate } from "./rfc2136";
import { upgradeFault } from "./upgrade";
import { bucketFault, hasObjects } from "./s3";
import type { BucketKeys } from "./s3";

/** The keys of the two buckets in clear; they leave this file only inside a signature. */
export interface CheckKeys {
  vault: BucketKeys;
  media: BucketKeys;
}

type Report = (key: string, value: unknown, allowed: string, mend: string) => void;

/** Whether a cluster has the stack's database. */
export type DatabaseState = "there" | "missing";

/** What the program must know of the cluster before it says what it wants. */
export interface Found {
  database: DatabaseState;
}

/** @throws SettingsError with all faults at once. */
export async function checkSite(settings: Settings, keys: CheckKeys): Promise<Found> {
  // A plan asks no cluster; it shows a site that runs.
  if (isPlanning()) return { database: "there" };
  const faults: Fault[] = [];
  const report: Report = (key, value, allowed, mend) =>
    faults.push({
      key: `homestead:${key}`,
      value: value === undefined ? "(not set)" : JSON.stringify(value),
      allowed,
      mend,
    });
  const database = await findDatabase(settings);
  checkGeneration(settings, database, report);
  await Promise.all([
    checkCluster(settings, report),
    checkNsupdate(settings, report),
    settings.objectStore === "external"
      ? checkBuckets(settings, keys, report).then(() => checkArchives(settings, keys, database, report))
      : undefined,
    ...Object.entries(settings.charts).map(([name, chart]) => checkChart(name, chart, report)),
  ]);
  if (faults.length > 0) {
    faults.sort((a, b) => a.key.localeCompare(b.key));
    throw new SettingsError(settings.site, faults);
  }
  return { database: database === "missing" ? "missing" : "there" };
}

async function checkCluster(settings: Settings, report: Report): Promise<void> {
  const { cluster, site } = settings;
  let config: k8s.KubeConfig;
  try {
    config = kubeClient(cluster);
  } catch (error) {
    report(
      "cluster.context",
      cluster.context,
      message(error),
      `pulumi config set --path homestead:cluster.context <context> --stack ${site}`,
    );
    return;
  }
  const core = config.makeApiClient(k8s.CoreV1Api);
  let uid: string | undefined;
  try {
    uid = (await core.readNamespace({ name: "kube-system" })).metadata?.uid;
  } catch (error) {
    report(
      "cluster.context",
      cluster.context,
      `a cluster that answers (${message(error)})`,
      `kubectl --context ${cluster.context} get namespaces`,
    );
    return;
  }
  if (cluster.uid !== undefined && cluster.uid !== uid) {
    report(
      "cluster.uid",
      cluster.uid,
      `the UID of the cluster behind context '${cluster.context}', which is ${uid}: this is another cluster`,
      `choose this stack's own cluster, or, if the cluster was built anew: pulumi config set --path homestead:cluster.uid ${uid} --stack ${site}`,
    );
  }
  await Promise.all([
    checkMarker(core, settings, report),
    checkUpgrade(config.makeApiClient(k8s.AppsV1Api), settings, report),
    checkStorageClasses(config.makeApiClient(k8s.StorageV1Api), settings, report),
    checkDefinitions(config.makeApiClient(k8s.ApiextensionsV1Api), settings, report),
  ]);
}

/** Another stack's cluster says so on our namespace. */
async function checkMarker(core: k8s.CoreV1Api, { namespace, site, cluster }: Settings, report: Report): Promise<void> {
  try {
    const marker = (await core.readNamespace({ name: namespace })).metadata?.labels?.["homestead/site"];
    if (marker !== site) {
      report(
        "cluster.context",
        cluster.context,
        `this stack's own cluster: its namespace '${namespace}' belongs to ${marker === undefined ? "something else" : `site '${marker}'`}`,
        `pulumi config set --path homestead:cluster.context <context of ${site}> --stack ${site}`,
      );
    }
  } catch (error) {
    if (statusOf(error) !== 404) throw error;
  }
}

async function checkStorageClasses(storage: k8s.StorageV1Api, settings: Settings, report: Report): Promise<void> {
  const known = (await storage.listStorageClass()).items.map((c) => c.metadata?.name ?? "");
  for (const use of ["databases", "media"] as const) {
    const wanted = settings.storage[use];
    if (wanted !== undefined && !known.includes(wanted)) {
      report(
        `storage.${use}`,
        wanted,
        `a storage class of the cluster: ${known.join(", ") || "it has none"}`,
        `pulumi config set --path homestead:storage.${use} <class> --stack ${settings.site}`,
      );
    }
  }
}

/** What runs decides which version may come next. */
async function checkUpgrade(apps: k8s.AppsV1Api, { namespace, images, site }: Settings, report: Report): Promise<void> {
  try {
    const web = await apps.readNamespacedDeployment({ name: "mastodon-web", namespace });
    const running = web.spec?.template.spec?.containers.find((c) => c.name === "mastodon-web")?.image;
    const fault = running === undefined ? undefined : upgradeFault(running, images.mastodon);
    if (fault !== undefined) {
      report(
        "images.mastodon",
        images.mastodon,
        fault,
        `set the version in versions.ts, or: pulumi config set --path homestead:images.mastodon <image> --stack ${site}`,
      );
    }
  } catch (error) {
    if (statusOf(error) !== 404) throw error;
  }
}

/** Custom resources that must be there although we do not bring them. */
async function checkDefinitions(api: k8s.ApiextensionsV1Api, settings: Settings, report: Report): Promise<void> {
  const known = new Set((await api.listCustomResourceDefinition()).items.map((d) => d.metadata?.name));
  const wanted: [key: string, value: string, definition: string, what: string][] = [
    ["ingress", "Traefik", "ingressroutes.traefik.io", "Traefik with its custom resources (k3s brings it)"],
  ];
  const { operators } = settings;
  if (operators.certManager === "existing")
    wanted.push(["operators.certManager", "existing", "certificates.cert-manager.io", "cert-manager in the cluster"]);
  if (operators.cloudNativePg === "existing")
    wanted.push(["operators.cloudNativePg", "existing", "clusters.postgresql.cnpg.io", "CloudNativePG in the cluster"]);
  if (operators.barmanPlugin === "existing")
    wanted.push([
      "operators.barmanPlugin",
      "existing",
      "objectstores.barmancloud.cnpg.io",
      "CloudNativePG's barman-cloud plugin in the cluster",
    ]);
  for (const [key, value, definition, what] of wanted) {
    if (known.has(definition)) continue;
    const mend =
      key === "ingress"
        ? "install Traefik: https://doc.traefik.io/traefik/getting-started/kubernetes/"
        : `pulumi config set --path homestead:${key} install --stack ${settings.site}`;
    report(key, value, `${what}; there is no definition ${definition}`, mend);
  }
}

async function checkBuckets(settings: Settings, keys: CheckKeys, report: Report): Promise<void> {
  const { vault, media } = settings;
  const buckets = [["vault", vault] as const, ...(media.kind === "volume" ? [] : [["media", media] as const])];
  for (const [name, bucket] of buckets) {
    const fault = await bucketFault(bucket, keys[name]);
    if (fault !== undefined) {
      report(
        `${name}.bucket`,
        bucket.bucket,
        `a bucket that the ${name} keys open: ${fault}`,
        `make the bucket, or: pulumi config set --path homestead:${name}.bucket <bucket> --stack ${settings.site}`,
      );
    }
  }
  if (media.kind === "volume" && (await bucketFault(vault, keys.vault)) === undefined) {
    try {
      await hasObjects(vault, keys.media, copyPrefix);
    } catch (error) {
      report(
        "media.kind",
        media.kind,
        `media keys that open ${copyPrefix} in the vault, where the volume's copy is kept: ${message(error)}`,
        `the vault's own keys will do: pulumi config set --secret homestead:mediaAccessKeyId --stack ${settings.site}, and mediaSecretAccessKey`,
      );
    }
  }
}

/** A program that is missing would be noticed only at the update's very end. */
async function checkNsupdate({ dns, role }: Settings, report: Report): Promise<void> {
  if (dns.kind !== "rfc2136" || role !== "active" || (await hasNsupdate())) return;
  report(
    "dns.kind",
    dns.kind,
    "nsupdate on this machine's PATH, which makes the update",
    "apt-get install bind9-dnsutils (Debian, Ubuntu), brew install bind (macOS)",
  );
}

/**
 * An archive is never written over: a database that is yet to be made needs an archive of its own that is empty, and,
 * unless it is the first of all, one to begin from.
 */
async function checkArchives(
  settings: Settings,
  keys: CheckKeys,
  database: FoundDatabase,
  report: Report,
): Promise<void> {
  const { site, generation, beginning, vault } = settings;
  if (database !== "missing") return;
  const filled = (archive: string) => hasObjects(vault, keys.vault, `pg/${archive}/`);
  const own = archiveName(site, generation);
  try {
    if (await filled(own)) {
      report(
        `generations.${site}`,
        generation,
        `${generation + 1}: this cluster has no database, but the vault holds its archive ${own}, which is never written over`,
        `to restore from it, set generations.${site} to ${generation + 1} in Pulumi.yaml and run: pulumi up --refresh --run-program --stack ${site} (docs/runbooks/lost-disk.md)`,
      );
    } else if (beginning.kind === "recovery" && !(await filled(`${beginning.archive}/base`))) {
      report(
        "restore.from",
        settings.restore.from,
        `an archive with a base backup: ${beginning.archive}, which this database would begin from, has none in bucket '${vault.bucket}'`,
        `name another (pulumi config set --path homestead:restore.from <archive> --stack ${site}), or wait for the first base backup of ${beginning.site}`,
      );
    }
  } catch {
    // Said by checkBuckets already, in better words.
  }
}

/** The database in the cluster: the archive that it writes, that there is none, or that nobody can tell. */
type FoundDatabase = { archive: string | undefined; image: string } | "missing" | "unknown";

async function findDatabase({ cluster, namespace }: Settings): Promise<FoundDatabase> {
  try {
    const api = kubeClient(cluster).makeApiClient(k8s.CustomObjectsApi);
    const object: unknown = await api.getNamespacedCustomObject({
      group: "postgresql.cnpg.io",
      version: "v1",
      plural: "clusters",
      namespace,
      name: "postgres",
    });
    const { spec } = object as {
      spec: { imageName?: string; plugins?: { parameters?: { serverName?: string } }[] };
    };
    return { archive: spec.plugins?.[0]?.parameters?.serverName, image: spec.imageName ?? "" };
  } catch (error) {
    // Why a cluster cannot be asked is said by checkCluster.
    return statusOf(error) === 404 ? "missing" : "unknown";
  }
}

/**
 * A database that is there keeps its archive: another one would lack the base backup that its WAL is replayed onto, and
 * who raises the number hopes for a restore that would not come. Only a new major version of Postgres begins another.
 */
function checkGeneration({ site, generation, images }: Settings, database: FoundDatabase, report: Report): void {
  if (typeof database === "string" || database.archive === undefined) return;
  if (majorOf(database.image) !== majorOf(images.postgres)) return;
  if (database.archive === archiveName(site, generation)) return;
  const before = /\d+$/.exec(database.archive)?.[0] ?? "what it was";
  report(
    `generations.${site}`,
    generation,
    `${before}: this cluster has a database already, which writes the archive ${database.archive}`,
    `set generations.${site} back to ${before} in Pulumi.yaml; to begin the database anew from the vault: docs/runbooks/lost-disk.md`,
  );
}

/** `ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie` -> `17`. */
const majorOf = (image: string): string | undefined => /:(\d+)[^/]*$/.exec(image)?.[1];

/** A chart that is not there would be noticed only after the operators and the data are. */
async function checkChart(name: string, chart: ChartReference, report: Report): Promise<void> {
  if ("path" in chart) {
    const file = path.resolve(__dirname, "..", chart.path, "Chart.yaml");
    if (!fs.existsSync(file)) report(`charts.${name}.path`, chart.path, "a folder with a Chart.yaml", "check the path");
    return;
  }
  const index = `${chart.repository.replace(/\/$/, "")}/index.yaml`;
  let versions: string[];
  try {
    const response = await fetch(index, { signal: AbortSignal.timeout(30_000) });
    if (!response.ok) throw new Error(`${response.status}`);
    const entries = (parse(await response.text()) as { entries?: Record<string, { version: string }[]> }).entries;
    versions = (entries?.[name] ?? []).map((entry) => entry.version);
  } catch (error) {
    // Not a fault: what runs already needs no chart, and a failover must not wait for a web page.
    void pulumi.log.warn(
      `chart ${name}: ${index} does not answer (${message(error)}); an install or upgrade of it will fail`,
    );
    return;
  }
  if (!versions.includes(chart.version)) {
    report(
      `charts.${name}.version`,
      chart.version,
      `a version in ${index}: ${versions.slice(0, 5).join(", ") || "it has none of this chart"}`,
      `pulumi config rm --path homestead:charts.${name} (back to the one in versions.ts)`,
    );
  }
}

const message = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return (cause instanceof Error ? cause.message : String(cause)).split("\n")[0] ?? "";
};
