/** The checks that read a cluster and a vault, against a small server that plays both. */
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { checkSite } from "../lib/checks";
import { firstLease, formatLease, parseLease } from "../lib/lease/lease";
import type { Lease } from "../lib/lease/lease";
import { parseSettings } from "../settings";
import { configurationOf } from "./support/configuration";
import { kubeconfigFor } from "./support/fake-cluster";
import { temporaryFolder } from "./support/folders";

interface World {
  /** The databases that the cluster has, by name. */
  databases?: Record<string, { archive: string; image: string; status?: object; primary?: string }> | "not said";
  /** Keys in the vault. */
  vault?: string[];
  /** The lease in the vault: of home in epoch 1, unless something else is said, or `none`. */
  lease?: Partial<Lease> | "none";
  /** Whether the base backups in the vault were never finished. */
  unfinished?: boolean;
  /** A prefix below which the vault says nothing. */
  silentBelow?: string;
  /** Whose cluster it is. */
  marker?: string;
  /** Custom resource definitions beside Traefik's. */
  definitions?: string[];
  /** Of the one storage class. */
  provisioner?: string;
  /** Namespace of an operator that was there before us. */
  operatorIn?: string;
}

/** Where the world is changed, the test sees it here. */
interface Seen {
  lease?: Lease;
  podMonitors?: string;
}

const image = "ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie";
const databasesPath = "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters";

const leaseOfHome = (fingerprint: string, changes: Partial<Lease> = {}): Lease => ({
  ...firstLease({ site: "home", epoch: 1, fingerprint }, 600, "w0"),
  ...changes,
});

async function serve(world: World, seen: Seen): Promise<string> {
  const { databases = {}, vault = [], marker, definitions = [], unfinished = false, silentBelow, operatorIn } = world;
  const definition = (name: string) => ({
    metadata: { name },
    spec: { group: "x", names: { kind: "X", plural: "x" }, scope: "Namespaced", versions: [] },
  });
  const answers: Record<string, object | undefined> = {
    "/api/v1/namespaces/kube-system": { metadata: { name: "kube-system", uid: "u" } },
    "/apis/storage.k8s.io/v1/storageclasses": {
      items: [{ metadata: { name: "local-path" }, provisioner: world.provisioner ?? "x" }],
    },
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
      items: ["ingressroutes.traefik.io", ...definitions].map(definition),
    },
    "/apis/apps/v1/deployments": {
      items: operatorIn === undefined ? [] : [{ metadata: { name: "cnpg-controller-manager", namespace: operatorIn } }],
    },
    [databasesPath]: {
      items: Object.entries(databases === "not said" ? {} : databases).map(
        ([name, { archive, image: imageName, status, primary }]) => ({
          metadata: { name },
          spec: {
            imageName,
            plugins: [{ name: "barman-cloud.cloudnative-pg.io", parameters: { serverName: archive } }],
            ...(primary === undefined ? {} : { replica: { primary } }),
          },
          status,
        }),
      ),
    },
    "/api/v1/namespaces/homestead":
      marker === undefined ? undefined : { metadata: { name: "homestead", labels: { "homestead/site": marker } } },
  };
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://world");
    if (pathname === "/vault/lease.json") {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        if (request.method === "PUT") seen.lease = parseLease(Buffer.concat(parts).toString());
        response.writeHead(seen.lease === undefined ? 404 : 200, { etag: `"${seen.lease?.writer ?? ""}"` });
        response.end(seen.lease && formatLease(seen.lease));
      });
      return;
    }
    if (pathname === "/vault" || pathname === "/media") {
      const prefix = searchParams.get("prefix") ?? "";
      if (silentBelow !== undefined && prefix.startsWith(silentBelow)) return void response.writeHead(503).end();
      const found = vault.filter((key) => key.startsWith(prefix));
      const folders = new Set(found.map((key) => `${prefix}${key.slice(prefix.length).split("/")[0] ?? ""}/`));
      const below = [...folders].map((folder) => `<CommonPrefixes><Prefix>${folder}</Prefix></CommonPrefixes>`);
      response.end([...found.map((key) => `<Contents><Key>${key}</Key></Contents>`), ...below].join(""));
      return;
    }
    if (pathname.endsWith("/backup.info")) {
      const status = unfinished ? "STARTED\nend_time=None" : "DONE\nend_time=2026-11-22 23:03:30.1+00:00";
      return void response.end(`status=${status}\n`);
    }
    if (pathname === databasesPath && databases === "not said") return void response.writeHead(500).end("{}");
    const answer = pathname.endsWith("/secrets") ? { items: [] } : answers[pathname];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Checks a `home` whose world is this. @returns what was found, or the text of the error */
async function check(world: World, changes: Record<string, unknown> = {}, seen: Seen = {}): Promise<string> {
  const url = await serve(world, seen);
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
  const { lease = {} } = world;
  if (lease !== "none") seen.lease = leaseOfHome(settings.fingerprint, lease);
  const keys = { accessKeyId: "id", secretAccessKey: "key" };
  return checkSite({ ...settings, images: { ...settings.images, postgres: image } }, { vault: keys, media: keys }).then(
    ({ database, podMonitors }) => {
      seen.podMonitors = podMonitors;
      return database;
    },
    (error: unknown) => (error as Error).message,
  );
}

const base = (archive: string) => `pg/${archive}/base/20261122T230302/backup.info`;

describe("a database that is yet to be made", () => {
  it("is made from nothing by the founder where nothing was ever archived", async () => {
    expect(await check({ lease: "none" })).toBe("missing");
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

  it("is refused where the base backup that it would begin from was never finished", async () => {
    const world = { vault: [base("home-g1")], unfinished: true };
    expect(await check(world, { generations: { home: 2, vps: 1 } })).toContain(
      "allowed: an archive with a base backup: home-g1, which this database would begin from, has none in bucket 'vault'",
    );
  });

  it.each([
    ["of before the oldest base backup", "2026-11-22T23:03:00Z"],
    ["that is yet to come", "2999-01-01T00:00:00Z"],
  ])("is refused with a moment %s, before anything is deleted or made", async (_what, to) => {
    const said = await check({ vault: [base("home-g1")] }, { generations: { home: 2, vps: 1 }, restore: { to } });
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain(`homestead:restore.to: "${to}"`);
    expect(said).toMatch(
      /allowed: a moment between 2026-11-22T23:03:30\.100Z, when the oldest base backup in home-g1 ended, and now, \d{4}-/,
    );
  });

  it("is sent to the archive that has a moment of before this one", async () => {
    const refused = (to: string) =>
      check({ vault: [base("home-g1")] }, { generations: { home: 2, vps: 1 }, restore: { to } });
    const other = "or name the archive that has it: pulumi config set --path homestead:restore.from <archive>";
    expect(await refused("2026-11-22T23:03:00Z")).toContain(other);
    expect(await refused("2999-01-01T00:00:00Z")).not.toContain(other);
  });

  it("is restored to a moment that its archive has", async () => {
    const changes = { generations: { home: 2, vps: 1 }, restore: { to: "2026-11-22T23:04:00Z" } };
    expect(await check({ vault: [base("home-g1")] }, changes)).toBe("missing");
  });

  it("is refused where the archive it would begin from has no base backup", async () => {
    const vault = ["pg/home-g1/wals/0000000100000000/000000010000000000000001.gz"];
    expect(await check({ vault }, { generations: { home: 2, vps: 1 } })).toContain(
      "allowed: an archive with a base backup: home-g1, which this database would begin from, has none in bucket 'vault'",
    );
  });
});

describe("search", () => {
  it("is refused on a class that is NFS, whatever the profile says", async () => {
    const said = await check(
      { provisioner: "cluster.local/nfs-subdir-external-provisioner" },
      { search: { kind: "elasticsearch" } },
    );
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain('homestead:search.kind: "elasticsearch"');
    expect(said).toContain(
      "allowed: off, since the storage class 'local-path' is NFS (cluster.local/nfs-subdir-external-provisioner): Lucene",
    );
    expect(await check({ lease: "none" }, { search: { kind: "elasticsearch" } })).toBe("missing");
  });
});

describe("what cannot be asked", () => {
  it("is a fault: a database that is not seen would be made anew", async () => {
    expect(await check({ databases: "not said" })).toContain("a cluster that says which databases it has");
  });

  it("is a fault: an archive that is not seen would be written over", async () => {
    const said = await check({ silentBelow: "pg/home-g1" });
    expect(said).toContain("a vault that says which archives it has (bucket 'vault' ");
    expect(said).toMatch(/^1 fault /);
  });
});

describe("a database that is there", () => {
  const databases = { "postgres-g1": { archive: "home-g1", image } };

  it("may have its archive in the vault", async () => {
    expect(await check({ databases, vault: [base("home-g1")] })).toBe("there");
  });

  it("refuses a raised number, which would be no restore", async () => {
    expect(await check({ databases, vault: [base("home-g1")] }, { generations: { home: 2, vps: 1 } })).toBe(
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
    expect(await check({ databases: { "postgres-g1": older } }, { generations: { home: 2, vps: 1 } })).toBe("there");
  });
});

describe("another major version of Postgres", () => {
  const of = (version: string, more: object = {}) => ({
    "postgres-g1": { archive: "home-g1", image: image.replace("17.6", version), ...more },
  });
  const raised = { generations: { home: 2, vps: 1 } };

  it("is refused without a generation of its own, before anything is changed", async () => {
    expect(await check({ databases: of("16.9"), vault: [base("home-g1")] })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        `  homestead:images.postgres: "${image}"`,
        "    allowed: a release of Postgres 16, of which the database 'postgres-g1' is: WAL of two major versions may not share the archive home-g1",
        "    mend:    set postgres in versions.ts back to 16; to upgrade in place, with no way back, raise generations.home to 2 in Pulumi.yaml (docs/runbooks/upgrade.md)",
      ].join("\n"),
    );
  });

  it("is refused where the raised generation's archive holds something", async () => {
    const vault = [base("home-g1"), base("home-g2")];
    const said = await check({ databases: of("16.9"), vault }, raised);
    expect(said).toMatch(/^1 fault [^]*homestead:generations\.home: 2\n/);
    expect(said).toContain(
      "a number whose archive is empty, for the new major version of Postgres: home-g2 holds something, and is never written over",
    );
    expect(said).toContain("move what is below pg/home-g2/ in bucket 'vault' elsewhere");
  });

  it.each([
    ["with the number as it is", {}],
    ["with a raised number", raised],
  ])("is refused where it is an older one, %s", async (_what, changes) => {
    const said = await check({ databases: of("18.1") }, changes);
    expect(said).toContain("its files do not go back to an older major version");
    expect(said).toMatch(/mend: {4}set postgres in versions\.ts back to 18$/);
  });

  it.each([
    ["that follows", { activeSite: "vps", epoch: 2 }],
    ["that takes over", { epoch: 3, promotionToken: "lost" }],
  ])("is refused for a database %s: it begins anew", async (_what, changes) => {
    const world: World = { databases: of("16.9", { primary: "vps" }), lease: { activeSite: "vps", epoch: 2 } };
    for (const number of [{}, raised]) {
      const said = await check(world, { ...changes, ...number });
      expect(said).toContain("a database that only follows cannot be upgraded in place");
      expect(said).toContain("or begin it anew (docs/runbooks/upgrade.md)");
    }
  });

  it("is none where an update is repeated that was interrupted, or a failed upgrade taken back", async () => {
    const status = (majorVersion: number) => ({ archive: "home-g2", status: { pgDataImageInfo: { majorVersion } } });
    expect(await check({ databases: of("17.6", status(16)), vault: [base("home-g2")] }, raised)).toBe("there");
    expect(await check({ databases: of("18.1", status(17)), vault: [base("home-g2")] }, raised)).toBe("there");
  });

  it("is none that an image without a number could be", async () => {
    expect(await check({ databases: { "postgres-g1": { archive: "home-g1", image: "pg:latest" } } })).toBe("there");
  });
});

describe("maintenance", () => {
  it("is refused where there is no Mastodon yet: nobody would make its schema", async () => {
    expect(await check({}, { maintenance: "web" })).toContain("off, while there is no Mastodon here yet");
  });
});

describe("another stack's cluster", () => {
  it("is one fault: what stands in it says nothing about this stack's generations", async () => {
    const databases = { "postgres-g1": { archive: "vps-g1", image } };
    const said = await check({ databases, marker: "vps" });
    expect(said).toContain("belongs to site 'vps'");
    expect(said).toMatch(/^1 fault /);
  });
});

describe("the lease", () => {
  const there = { databases: { "postgres-g1": { archive: "home-g1", image } }, vault: [base("home-g1")] };

  it("is written by the server's first update", async () => {
    const seen: Seen = {};
    await check({ lease: "none" }, {}, seen);
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 1, grace: 600, wait: 0, takeover: "first" });
  });

  it("stops an active site that it does not name, and says how to take over", async () => {
    const seen: Seen = {};
    expect(await check({ ...there, lease: { activeSite: "vps", epoch: 2 } }, {}, seen)).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:activeSite: "home"',
        "    allowed: vps (epoch 2), as the lease in the vault says: two sites that federate cannot be merged again",
        "    mend:    npx homestead switch home (or by hand: docs/runbooks/switch-by-hand.md); to leave it as it is, set activeSite to vps and epoch to 2 in Pulumi.yaml",
      ].join("\n"),
    );
    expect(seen.lease).toMatchObject({ activeSite: "vps", epoch: 2 });
  });

  it("is taken over with the other site's word, before the first resource", async () => {
    const seen: Seen = {};
    const changes = { epoch: 3, promotionToken: "lost", leaseGrace: 100 };
    await check({ ...there, lease: { activeSite: "vps", epoch: 2, grace: 300 } }, changes, seen);
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 3, grace: 100, takeover: "lost" });
    expect(seen.lease?.wait).toBeGreaterThan(300);
  });

  it("is not taken with a stale token, or one of another database", async () => {
    const token = (timeline: number, system = "7") =>
      Buffer.from(
        JSON.stringify({ latestCheckpointTimelineID: String(timeline), databaseSystemIdentifier: system }),
      ).toString("base64");
    const follower = { archive: "home-g1", image, status: { timelineID: 3, systemID: "7" } };
    const world: World = { databases: { "postgres-g1": follower }, lease: { activeSite: "vps", epoch: 2 } };
    const take = (promotionToken: string, seen: Seen = {}) => check(world, { epoch: 3, promotionToken }, seen);
    const seen: Seen = {};
    expect(await take(token(2), seen)).toContain(
      "it is stale: it was made on timeline 2, and the database follows timeline 3",
    );
    // A standby that never was a primary tells no timeline; what it follows does.
    const silent = { ...follower, status: { systemID: "7" } };
    const archived = ["pg/vps-g1/wals/0000000300000000/000000030000000000000007.gz"];
    const unsaid: World = { ...world, databases: { "postgres-g1": silent }, vault: archived };
    expect(await check(unsaid, { epoch: 3, promotionToken: token(2) }, seen)).toContain(
      "it is stale: it was made on timeline 2, and the database follows timeline 3",
    );
    // A vault that does not tell leaves it open whether the token is stale.
    expect(
      await check({ ...unsaid, silentBelow: "pg/vps-g1/wals/" }, { epoch: 3, promotionToken: token(3) }, seen),
    ).toMatch(/homestead:vault\.bucket[^]*a vault that tells what vps archived last: /);
    expect(seen.lease?.activeSite).toBe("vps");
    expect(await take(token(3, "8"))).toContain("it is of another database");
    expect(await take("A".repeat(60))).toContain("it is no demotion token");
    expect(seen.lease?.activeSite).toBe("vps");
    const nothing: World = { vault: ["pg/vps-g1/base/x"], lease: { activeSite: "vps", epoch: 2 } };
    expect(await check(nothing, { epoch: 3, promotionToken: token(3) }, seen)).toContain(
      "there is no database here that it could promote",
    );
    expect(seen.lease?.activeSite).toBe("vps");
    expect(await take(token(3), seen)).toBe("there");
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 3, wait: 0, takeover: "planned" });
  });

  it("lets a site step down that holds it", async () => {
    expect(await check(there, { activeSite: "vps", epoch: 2 })).toBe("there");
  });

  it("does not let a lost site's database follow the one it has parted from: the next generation does", async () => {
    const world = (primary: string): World => ({
      databases: { "postgres-g1": { archive: "home-g1", image, primary } },
      lease: { activeSite: "vps", epoch: 2 },
    });
    const standby = { activeSite: "vps", epoch: 2 };
    expect(await check(world("home"), standby)).toContain(
      "2: vps took over while home was lost, and the database here has parted from its; the next generation follows it, and the old one is kept",
    );
    expect(await check(world("vps"), standby)).toBe("there");
  });

  it("stops a site whose identity is another server's", async () => {
    expect(await check({ ...there, lease: { fingerprint: "0123456789abcdef" } })).toContain(
      "this server's own vault: its lease is of identity 0123456789abcdef",
    );
  });

  it("is missed where there are archives, and the way out is named", async () => {
    expect(await check({ ...there, lease: "none" })).toContain("there is no lease.json to say which site is active");
    const seen: Seen = {};
    await check({ ...there, lease: "none" }, { promotionToken: "dead" }, seen);
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 1, takeover: "dead" });
  });
});

describe("the Prometheus operator's resources", () => {
  const all = ["alertmanagerconfigs", "podmonitors", "prometheusrules"].map((name) => `${name}.monitoring.coreos.com`);

  it.each([
    ["there", all],
    ["missing", all.slice(1)],
    ["missing", []],
  ])("are %s where the cluster defines %j", async (expected, definitions) => {
    const seen: Seen = {};
    await check({ lease: "none", definitions }, {}, seen);
    expect(seen.podMonitors).toBe(expected);
  });
});

describe("an operator that was there before us", () => {
  const existing = (barmanPlugin: string) => ({ operators: { cloudNativePg: "existing", barmanPlugin } });
  const definitions = ["clusters.postgresql.cnpg.io", "objectstores.barmancloud.cnpg.io"];

  it("is not found by a plugin that is installed into another namespace", async () => {
    const said = await check({ definitions, operatorIn: "databases" }, existing("install"));
    expect(said).toContain("homestead:operators.barmanPlugin");
    expect(said).toContain(
      "existing, in namespace 'databases', where CloudNativePG is: installed it would be in 'cnpg-system', and not be found",
    );
  });

  it("may be anywhere with its plugin there, and in cnpg-system without", async () => {
    expect(await check({ definitions, operatorIn: "databases" }, existing("existing"))).toBe("missing");
    expect(await check({ definitions, operatorIn: "cnpg-system" }, existing("install"))).toBe("missing");
  });
});
