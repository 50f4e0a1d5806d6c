/** The checks that read a cluster and a vault, against a small server that plays both. */
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { checkSite } from "../lib/checks";
import { parseSettings } from "../settings";
import { configurationOf } from "./support/configuration";
import { kubeconfigFor } from "./support/fake-cluster";
import { temporaryFolder } from "./support/folders";

interface World {
  /** The database that the cluster has. */
  database?: { archive: string; image: string };
  /** Keys in the vault. */
  vault?: string[];
}

const image = "ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie";
const databasePath = "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters/postgres";

async function serve({ database, vault = [] }: World): Promise<string> {
  const definition = (name: string) => ({
    metadata: { name },
    spec: { group: "x", names: { kind: "X", plural: "x" }, scope: "Namespaced", versions: [] },
  });
  const answers: Record<string, object | undefined> = {
    "/api/v1/namespaces/kube-system": { metadata: { name: "kube-system", uid: "u" } },
    "/apis/storage.k8s.io/v1/storageclasses": { items: [{ metadata: { name: "local-path" }, provisioner: "x" }] },
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": { items: [definition("ingressroutes.traefik.io")] },
    [databasePath]: database && {
      spec: {
        imageName: database.image,
        plugins: [{ name: "barman-cloud.cloudnative-pg.io", parameters: { serverName: database.archive } }],
      },
    },
  };
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://world");
    if (pathname === "/vault" || pathname === "/media") {
      const found = vault.filter((key) => key.startsWith(searchParams.get("prefix") ?? ""));
      response.end(found.map((key) => `<Contents><Key>${key}</Key></Contents>`).join(""));
      return;
    }
    const answer = answers[pathname];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Checks a `home` whose world is this. @returns what was found, or the text of the error */
async function check(world: World, changes: Record<string, unknown> = {}): Promise<string> {
  const url = await serve(world);
  const chart = temporaryFolder();
  fs.writeFileSync(path.join(chart, "Chart.yaml"), "");
  const settings = parseSettings(
    configurationOf("home", {
      cluster: { context: "trial", kubeconfig: kubeconfigFor(url) },
      storage: { kind: "local", databases: "local-path" },
      vault: { endpoint: url, bucket: "vault" },
      media: { endpoint: url, bucket: "media" },
      charts: Object.fromEntries(
        ["mastodon", "cert-manager", "cloudnative-pg", "plugin-barman-cloud"].map((name) => [name, { path: chart }]),
      ),
      ...changes,
    }),
  );
  const keys = { accessKeyId: "id", secretAccessKey: "key" };
  return checkSite({ ...settings, images: { ...settings.images, postgres: image } }, { vault: keys, media: keys }).then(
    ({ database }) => database,
    (error: unknown) => (error as Error).message,
  );
}

const base = (archive: string) => `pg/${archive}/base/20261122T230302/backup.info`;

describe("a database that is yet to be made", () => {
  it("is made from nothing by the founder where nothing was ever archived", async () => {
    expect(await check({})).toBe("missing");
  });

  it("is refused where its archive is in the vault, with the number to raise and the command to run", async () => {
    expect(await check({ vault: [base("home-g1")] })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:generations.home: 1",
        "    allowed: 2: this cluster has no database, but the vault holds its archive home-g1, which is never written over",
        "    mend:    to restore from it, set generations.home to 2 in Pulumi.yaml and run: pulumi up --refresh --run-program --stack home (docs/runbooks/lost-disk.md)",
      ].join("\n"),
    );
  });

  it("is restored when the number was raised", async () => {
    expect(await check({ vault: [base("home-g1")] }, { generations: { home: 2, vps: 1 } })).toBe("missing");
  });

  it("is refused again where the raised number's archive has something too", async () => {
    const vault = [base("home-g1"), "pg/home-g2/wals/0000000100000000/000000010000000000000001.gz"];
    expect(await check({ vault }, { generations: { home: 2, vps: 1 } })).toContain("allowed: 3: this cluster has no");
  });

  it("is refused where the archive it would begin from has no base backup", async () => {
    const vault = ["pg/home-g1/wals/0000000100000000/000000010000000000000001.gz"];
    expect(await check({ vault }, { generations: { home: 2, vps: 1 } })).toContain(
      "allowed: an archive with a base backup: home-g1, which this database would begin from, has none in bucket 'vault'",
    );
  });
});

describe("a database that is there", () => {
  const database = { archive: "home-g1", image };

  it("may have its archive in the vault", async () => {
    expect(await check({ database, vault: [base("home-g1")] })).toBe("there");
  });

  it("refuses a raised number, which would be no restore", async () => {
    expect(await check({ database, vault: [base("home-g1")] }, { generations: { home: 2, vps: 1 } })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:generations.home: 2",
        "    allowed: 1: this cluster has a database already, which writes the archive home-g1",
        "    mend:    set generations.home back to 1 in Pulumi.yaml; to begin the database anew from the vault: docs/runbooks/lost-disk.md",
      ].join("\n"),
    );
  });

  it("takes a raised number with a new major version of Postgres, whose WAL is another's", async () => {
    const older = { archive: "home-g1", image: "ghcr.io/cloudnative-pg/postgresql:16.9-system-trixie" };
    expect(await check({ database: older }, { generations: { home: 2, vps: 1 } })).toBe("there");
  });
});
