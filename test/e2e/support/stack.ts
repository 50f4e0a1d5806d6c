/** A stack of the copied project on a test cluster, ready for its first update. */
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { requiredSecrets } from "../../../settings";
import { Cluster } from "./cluster";
import type { ClusterAccess } from "./environment";
import { allOf, eventually, must } from "./processes";
import { Project, succeeded } from "./project";
import { SiteClient, tokenFromRails } from "./site";
import type { Names } from "./site";
import type { Context } from "./scenario";
import { ObjectServer } from "./vault";

const bucketPrefix = process.env["E2E_BUCKETS"] ?? "e2e";
export const buckets = { vault: `${bucketPrefix}-vault`, media: `${bucketPrefix}-media` };

/** The server the scenarios run. */
export function namesOf(zone: string): Names {
  return { apex: zone, webHost: `mastodon.${zone}`, owner: "owner", ownerEmail: `owner@${zone}` };
}

/** Values of all required secrets of a stack, by name. */
export type Secrets = Record<(typeof requiredSecrets)[number], string>;

/** Empties clusters, makes empty buckets, copies the project, binds its sites, and makes one identity for all. */
export async function prepare(
  context: Context,
  sites: ClusterAccess[],
): Promise<{ project: Project; secrets: Secrets; s3: ObjectServer }> {
  const { environment, report } = context;
  const s3 = new ObjectServer(environment.s3);
  const project = await Project.copy(environment, context.logs);
  const names = namesOf(environment.zone);
  for (const key of ["apex", "webHost", "owner", "ownerEmail"] as const) {
    project.setShared(key, names[key]);
  }
  // Both, also where only one is made: what the other's file says is part of the checks.
  project.bind(environment.home, buckets);
  project.bind(environment.vps, buckets);
  // Stacks are files, and take no cluster.
  const emptied = report.step("empty clusters and an empty vault", async () => {
    await Cluster.emptyAll(
      sites.map((site) => new Cluster(site, environment)),
      environment,
    );
    // Not before: what ran there would have written to them once more.
    for (const bucket of Object.values(buckets)) await s3.emptyBucket(bucket);
    await s3.makePublic(buckets.media);
    // Somewhere else (TEST-NET-1): what the program leaves there is what it set.
    for (const name of [environment.zone, `mastodon.${environment.zone}`]) await setDns(context, name, "192.0.2.1");
  });
  const identified = report.step("stacks and an identity, by homestead identity create", async () => {
    const stacks = sites.map((site) => site.name).join(",");
    succeeded(await project.homestead(["identity", "create", "--stacks", stacks]), "homestead identity create");
    for (const site of sites) {
      for (const bucket of ["vault", "media"]) {
        await project.setSecret(site.name, `${bucket}AccessKeyId`, environment.s3.accessKey);
        await project.setSecret(site.name, `${bucket}SecretAccessKey`, environment.s3.secretKey);
      }
    }
  });
  await allOf([emptied, identified]);
  const [first] = sites;
  if (!first) throw new Error("a scenario needs a site");
  const shown = JSON.parse(
    (await project.mustPulumi(["config", "--show-secrets", "--json", "--stack", first.name])).stdout,
  ) as Record<string, { value: string }>;
  const secrets = Object.fromEntries(
    requiredSecrets.map((key) => [key, shown[`homestead:${key}`]?.value ?? ""]),
  ) as Secrets;
  return { project, secrets, s3 };
}

/** Points a name at an address in the tests' zone. */
export async function setDns(
  { environment }: Pick<Context, "environment">,
  name: string,
  address: string,
  type = "A",
): Promise<void> {
  await must("sh", ["-c", `${environment.dns.command} "$@"`, "dns", name, address, type], {
    env: environment.childEnv,
    seconds: 60,
  });
}

/** The authority that the program made in a cluster, as PEM. */
export async function authorityOf(cluster: Cluster): Promise<string> {
  const secret = await cluster.get("secret", "authority-tls", "homestead");
  if (!secret?.data?.["tls.crt"]) throw new Error("the program made no authority");
  return Buffer.from(secret.data["tls.crt"], "base64").toString();
}

/** The owner's client at one cluster's ingress. */
export async function clientOf(cluster: Cluster, names: Names, secrets: Secrets): Promise<SiteClient> {
  return new SiteClient(
    names,
    { address: cluster.access.address, ca: await authorityOf(cluster) },
    secrets.ownerPassword,
    () => tokenFromRails(cluster, names.owner),
  );
}

/** Keeps a text beside the logs; for what is looked at only when something fails. */
export function keep(context: Context, name: string, text: string): string {
  const file = path.join(context.logs, name);
  fs.writeFileSync(file, text);
  return file;
}

/** The objects that say what became of an archive's base backups, the oldest first. */
export const baseBackups = async (s3: ObjectServer, archive: string): Promise<string[]> =>
  (await s3.keys(buckets.vault, `pg/${archive}/base/`)).filter((key) => key.endsWith("/backup.info"));

/** Makes a base backup of a database by hand, and waits until the operator says that it is complete. */
export async function makeBaseBackup(cluster: Cluster, name: string, database: string): Promise<void> {
  const backup = {
    apiVersion: "postgresql.cnpg.io/v1",
    kind: "Backup",
    metadata: { name, namespace: "homestead" },
    spec: {
      cluster: { name: database },
      method: "plugin",
      pluginConfiguration: { name: "barman-cloud.cloudnative-pg.io" },
    },
  };
  await cluster.apply(JSON.stringify(backup));
  await eventually(180, "a base backup", async () => {
    const made = await cluster.get("backups.postgresql.cnpg.io", name, "homestead");
    assert.equal(made?.status?.["phase"], "completed");
  });
}

/** Whether an archive has a base backup that is finished. */
export async function hasBaseBackup(s3: ObjectServer, archive: string): Promise<boolean> {
  const keys = await baseBackups(s3, archive);
  const texts = await Promise.all(keys.map((key) => s3.get(buckets.vault, key)));
  return texts.some((text) => /^status=DONE$/m.test(text));
}

/** Waits until an archive has a base backup that is finished. */
export const baseBackupIn = (s3: ObjectServer, archive: string): Promise<void> =>
  eventually(180, `a base backup in ${archive}`, async () => {
    assert.ok(await hasBaseBackup(s3, archive), "none is finished");
  });
