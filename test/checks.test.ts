/** The checks that read a cluster and a vault, against a small server that plays both. */
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { checkSite, leftOfRestore, postrenderFault, siteFaults } from "../lib/checks";
import { missingRanges, reachable, serversOf } from "../lib/egress";
import { firstLease, formatLease, parseLease } from "../lib/lease/lease";
import type { Lease } from "../lib/lease/lease";
import { projectFolder } from "../lib/plan";
import { configWith } from "../lib/switch/files";
import { filesAt } from "../lib/switch/steps";
import { servedBy, servedName } from "../lib/upgrade";
import { madeBefore } from "../lib/upgrade-backup";
import type { BackupObject, UpgradeBackup } from "../lib/upgrade-backup";
import { parseSettings } from "../settings";
import { chartsInFolders, configurationOf } from "./support/configuration";
import { kubeconfigFor } from "./support/fake-cluster";
import { temporaryFolder } from "./support/folders";

// A house's own name server. The vault of these tests is on this machine, where no site's may be.
const nameServer: Record<string, string[]> = {
  "mail.house.example": ["10.9.0.7"],
  localhost: ["203.0.113.7"],
  "vault.house.example": ["127.0.1.1"],
  "vault.localhost": ["127.0.0.1"],
  "ipv6.example": ["fd12::1", "fe80::1"],
};
vi.mock("node:dns/promises", async (original) => {
  const dns = await original<typeof import("node:dns/promises")>();
  const lookup = (host: string, options: { all: true }) => {
    const known = nameServer[host];
    return known === undefined ? dns.lookup(host, options) : Promise.resolve(known.map((address) => ({ address })));
  };
  return { ...dns, lookup };
});

interface World {
  /** Whose world it is; that of dev has everything in its cluster. @default home */
  site?: "dev";
  /** The databases that the cluster has, by name. */
  databases?:
    | Record<
        string,
        { archive: string; image: string; status?: object; primary?: string; asleep?: boolean; bootstrap?: object }
      >
    | "not said";
  /** Keys in the vault; a segment of WAL with when it came, `<key>@<moment>`. */
  vault?: string[];
  /** Postgres' version of the base backups in the vault, as barman writes it. */
  backedUp?: number;
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
  /** What Traefik's middlewares say of `ipStrategy`. */
  ipStrategy?: Record<string, object>;
  /** Of the one storage class. */
  provisioner?: string;
  /** Where the API server is, beside the Service's port. */
  apiServer?: { address: string; port: number };
  /** Cilium's own configuration, where it runs. */
  cilium?: Record<string, string>;
  /** Namespace of an operator that was there before us. */
  operatorIn?: string;
  /** Deployments beside it, each with one image. */
  deployments?: { name: string; namespace: string; image: string; annotations?: Record<string, string> }[];
  /** Labels of namespaces beside ours. */
  namespaces?: Record<string, Record<string, string>>;
  /** Names of ClusterIssuers and Issuers. */
  issuers?: string[];
  /** Host of the database that Mastodon uses, where Helm has installed it to the end. */
  installed?: string;
  /** Names of what the keeper that runs here is told. */
  keeper?: string[];
  /** Image of the Mastodon that runs here. */
  runs?: string;
  /** What the note says of the one that ran last. */
  served?: Record<string, string>;
  /** CloudNativePG's Backups. */
  backups?: BackupObject[];
  /** Paths of the cluster that are answered with this status and message, or by the end of the connection. */
  denied?: Record<string, [status: number, message: string] | "hangs up">;
}

/** Where the world is changed, the test sees it here. */
interface Seen {
  lease?: Lease;
  installed?: string;
  podMonitors?: string;
  subnetLimits?: string;
  apiServerPorts?: number[];
  leaseWait?: number;
  upgradeBackup?: UpgradeBackup;
  begun?: object | undefined;
}

const image = "ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie";
const databasesPath = "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters";

const leaseOfHome = (fingerprint: string, changes: Partial<Lease> = {}): Lease => ({
  ...firstLease({ site: "home", epoch: 1, cluster: "u", fingerprint }, 600, "w0"),
  ...changes,
});

async function serve(world: World, seen: Seen): Promise<string> {
  const { databases = {}, vault = [], marker, definitions = [], unfinished = false, silentBelow, operatorIn } = world;
  const { apiServer = { address: "192.0.2.1", port: 6443 }, cilium } = world;
  const { deployments = [], namespaces = {}, issuers = [], keeper, installed } = world;
  const { runs, served, backups } = world;
  const records = installed ? [{ metadata: { name: "v1", labels: { status: "deployed", version: "1" } } }] : [];
  const definition = (name: string, versions: object[] = []) => ({
    metadata: { name },
    spec: { group: "x", names: { kind: "X", plural: "x" }, scope: "Namespaced", versions },
  });
  const nested = ["spec", "rateLimit", "sourceCriterion", "ipStrategy"].reduceRight<object>(
    (properties, name) => ({ [name]: { type: "object", properties } }),
    world.ipStrategy ?? {},
  );
  const middlewares = definition("middlewares.traefik.io", [
    {
      name: "v1alpha1",
      served: true,
      storage: true,
      schema: { openAPIV3Schema: { type: "object", properties: nested } },
    },
  ]);
  const answers: Record<string, object | undefined> = {
    "/api/v1/namespaces/kube-system": { metadata: { name: "kube-system", uid: "u" } },
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {
      items: [
        {
          metadata: {},
          endpoints: [{ addresses: [apiServer.address] }],
          ports: [{ name: "https", port: apiServer.port }],
        },
      ],
    },
    "/api/v1/configmaps": {
      items: cilium ? [{ metadata: { name: "cilium-config", namespace: "kube-system" }, data: cilium }] : [],
    },
    "/api/v1/nodes": { items: [{ status: { addresses: [{ type: "InternalIP", address: "192.0.2.1" }] } }] },
    "/apis/storage.k8s.io/v1/storageclasses": {
      items: [{ metadata: { name: "local-path" }, provisioner: world.provisioner ?? "x" }],
    },
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
      items: [...["ingressroutes.traefik.io", ...definitions].map((name) => definition(name)), middlewares],
    },
    "/apis/apps/v1/deployments": {
      items: [
        ...(operatorIn === undefined ? [] : [{ metadata: { name: "cnpg-controller-manager", namespace: operatorIn } }]),
        ...deployments.map(({ image: ofContainer, ...metadata }) => ({
          metadata,
          spec: { template: { spec: { containers: [{ name: "a", image: ofContainer }] } } },
        })),
      ],
    },
    "/api/v1/namespaces": {
      items: Object.entries(namespaces).map(([name, labels]) => ({ metadata: { name, labels } })),
    },
    ...Object.fromEntries(
      Object.entries(namespaces).map(([name, labels]) => [
        `/api/v1/namespaces/${name}`,
        { metadata: { name, labels } },
      ]),
    ),
    ...Object.fromEntries(
      issuers.flatMap((name) =>
        ["clusterissuers", "namespaces/homestead/issuers"].map((kind) => [
          `/apis/cert-manager.io/v1/${kind}/${name}`,
          { metadata: { name } },
        ]),
      ),
    ),
    [databasesPath]: {
      items: Object.entries(databases === "not said" ? {} : databases).map(
        ([name, { archive, image: imageName, status, primary, asleep = false, bootstrap }]) => ({
          metadata: { name, ...(asleep ? { annotations: { "cnpg.io/hibernation": "on" } } : {}) },
          spec: {
            imageName,
            plugins: [{ name: "barman-cloud.cloudnative-pg.io", parameters: { serverName: archive } }],
            ...(primary === undefined ? {} : { replica: { primary } }),
            ...(bootstrap === undefined ? {} : { bootstrap }),
          },
          status,
        }),
      ),
    },
    "/api/v1/namespaces/homestead/configmaps/mastodon-env":
      installed === undefined ? undefined : { metadata: { name: "mastodon-env" }, data: { DB_HOST: installed } },
    "/apis/apps/v1/namespaces/homestead/statefulsets/valkey": keeper && {
      metadata: { name: "valkey" },
      spec: { template: { spec: { containers: [{ name: "keeper", env: keeper.map((name) => ({ name })) }] } } },
    },
    "/apis/apps/v1/namespaces/homestead/deployments/mastodon-web":
      runs === undefined
        ? undefined
        : { spec: { replicas: 1, template: { spec: { containers: [{ name: "mastodon-web", image: runs }] } } } },
    [`/api/v1/namespaces/homestead/configmaps/${servedName}`]: served && { data: served },
    "/apis/postgresql.cnpg.io/v1/namespaces/homestead/backups": backups && { items: backups },
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
      const contents = found.map((each) => {
        const [key = "", modified = ""] = each.split("@");
        return `<Contents><Key>${key}</Key><LastModified>${modified}</LastModified></Contents>`;
      });
      response.end([...contents, ...below].join(""));
      return;
    }
    if (pathname.endsWith("/backup.info")) {
      const status = unfinished ? "STARTED\nend_time=None" : "DONE\nend_time=2026-11-22 23:03:30.1+00:00";
      const version = world.backedUp === undefined ? "" : `version=${world.backedUp}\n`;
      return void response.end(`status=${status}\n${version}`);
    }
    if (pathname === databasesPath && databases === "not said") return void response.writeHead(500).end("{}");
    const denied = world.denied?.[pathname];
    if (denied === "hangs up") return void request.socket.destroy();
    if (denied !== undefined) {
      const [code, message] = denied;
      response.writeHead(code, { "content-type": "application/json" });
      return void response.end(JSON.stringify({ kind: "Status", status: "Failure", code, message }));
    }
    const answer = pathname.endsWith("/secrets")
      ? { items: pathname.includes("/homestead/") ? records : [] }
      : answers[pathname];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Checks a site whose world is this. @returns what was found, or the text of the error */
async function check(world: World, changes: Record<string, unknown> = {}, seen: Seen = {}): Promise<string> {
  const { settings, keys } = await prepare(world, changes, seen);
  return checkSite(settings, keys).then(
    ({ database, ...found }) => {
      Object.assign(seen, found);
      return database;
    },
    (error: unknown) => (error as Error).message.replace(/--kubeconfig \S+/g, "--kubeconfig <file>"),
  );
}

/** The keys that have faults before a switch to a `home` whose world is this. */
async function beforeSwitch(world: World, changes: Record<string, unknown> = {}): Promise<string[]> {
  const { settings, keys } = await prepare(world, changes, {});
  return (await siteFaults(settings, keys, { purpose: "switch" })).map(({ key }) => key);
}

/** What an update of a `home` that lacks nothing but what is changed would refuse. */
async function prepareAndAsk(changes: Record<string, unknown>) {
  const { settings, keys } = await prepare({}, changes, {});
  return siteFaults(settings, keys);
}

async function prepare(world: World, changes: Record<string, unknown>, seen: Seen) {
  const url = await serve(world, seen);
  const { site = "home" } = world;
  const endpoint = url.replace("127.0.0.1", "localhost");
  const buckets = { vault: { endpoint, bucket: "vault" }, media: { endpoint, bucket: "media" } };
  const settings = parseSettings(
    configurationOf(site, {
      cluster: { context: "trial", kubeconfig: kubeconfigFor(url) },
      storage: { kind: "local", databases: "local-path" },
      ...(site === "home" ? buckets : {}),
      charts: chartsInFolders(),
      ...changes,
    }),
  );
  const { lease = {} } = world;
  if (lease !== "none") seen.lease = leaseOfHome(settings.fingerprint, lease);
  const keys = { accessKeyId: "id", secretAccessKey: "key" };
  return {
    settings: { ...settings, images: { ...settings.images, postgres: image } },
    keys: { vault: keys, media: keys },
  };
}

const raised = { generations: { home: 2, vps: 1 } };
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

  /** An archive that was written until half past one. */
  const written = [
    base("home-g1"),
    "pg/home-g1/wals/0000000100000000/000000010000000000000007.gz@2026-11-23T01:15:00.000Z",
    "pg/home-g1/wals/0000000100000000/000000010000000000000008.gz@2026-11-23T01:30:00.000Z",
  ];
  const restoredTo = (to: string, vault = written) =>
    check({ vault }, { generations: { home: 2, vps: 1 }, restore: { to } });
  const set = "pulumi config set --path homestead:restore";

  it.each([
    [
      "of before the oldest base backup",
      "2026-11-22T23:03:00Z",
      `${set}.to <moment> --stack home, or name the archive that has it: ${set}.from <archive> --stack home`,
    ],
    // No transaction can be in the archive that is younger than what came last: Postgres would look for one in vain.
    ...["2026-11-23T01:30:00Z", "2999-01-01T00:00:00Z"].map((to) => [
      "of after all that the archive has",
      to,
      `for all there is: pulumi config rm --path homestead:restore.to --stack home; for less: ${set}.to <moment> --stack home; or name the archive that was written later: ${set}.from <archive> --stack home`,
    ]),
  ])("is refused with a moment %s, before anything is deleted or made: %s", async (_what, to, mend) => {
    expect(await restoredTo(to ?? "")).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        `  homestead:restore.to: "${to}"`,
        "    allowed: a moment between 2026-11-22T23:03:30.100Z, when the oldest base backup in home-g1 ended, and 2026-11-23T01:30:00.000Z, when its newest WAL came, which the last transaction in it is older than",
        `    mend:    ${mend}`,
      ].join("\n"),
    );
  });

  it("is restored to a moment that its archive has", async () => {
    for (const to of ["2026-11-22T23:04:00Z", "2026-11-23T02:29:59+01:00"])
      expect(await restoredTo(to)).toBe("missing");
  });

  it("is refused with an image of another major version than the base backups', which would be fetched in vain", async () => {
    const refused = (backedUp: number) => check({ vault: written, backedUp }, { generations: { home: 2, vps: 1 } });
    for (const [backedUp, major] of [
      [160010, 16],
      [180001, 18],
    ] as const) {
      expect(await refused(backedUp)).toBe(
        [
          "1 fault in the configuration of stack 'home'; nothing was changed.",
          `  homestead:images.postgres: "${image}"`,
          `    allowed: a release of Postgres ${major}, of which the base backups in home-g1 are: no other major version reads their files`,
          "    mend:    set postgres in versions.ts to the one that ran (git history; pulumi stack output images --stack home), and upgrade when the database is there (docs/runbooks/upgrade.md)",
        ].join("\n"),
      );
    }
    expect(await refused(170006)).toBe("missing");
  });

  it("is refused where the archive it would begin from has no base backup", async () => {
    const vault = ["pg/home-g1/wals/0000000100000000/000000010000000000000001.gz"];
    expect(await check({ vault }, { generations: { home: 2, vps: 1 } })).toContain(
      "allowed: an archive with a base backup: home-g1, which this database would begin from, has none in bucket 'vault'",
    );
  });
});

describe("a database that is there", () => {
  it("says how it began, for as long as it lives", async () => {
    const bootstrap = { recovery: { source: "home-g1", database: "mastodon" } };
    const databases = { "postgres-g2": { archive: "home-g2", image, bootstrap } };
    const seen: Seen = {};
    expect(await check({ databases, vault: [base("home-g1"), base("home-g2")], marker: "home" }, raised, seen)).toBe(
      "there",
    );
    expect(seen.begun).toEqual(bootstrap);
    await check({ vault: [base("home-g1")] }, raised, seen);
    expect(seen.begun).toBeUndefined();
  });
});

describe("an upgrade", () => {
  const databases = { "postgres-g1": { archive: "home-g1", image } };
  const asleep = { "postgres-g1": { archive: "home-g1", image, asleep: true } };
  const restored = { ...asleep, "postgres-g2": { archive: "home-g2", image } };
  const [host, marker] = ["postgres-g1-rw", "home"];
  it.each<[string, World, Record<string, unknown>, string]>([
    ["Mastodon and its database are there", { installed: host, databases, marker }, {}, "there"],
    ["a destroy has kept the database", { databases, vault: [base("home-g1")], marker }, {}, "there"],
    [
      "the vault does not say what it has of the database",
      { databases, vault: [base("home-g1")], silentBelow: "pg/home-g1/", marker },
      {},
      "there",
    ],
    // The first update ended before it came to Mastodon, and before the new archive's first base backup was uploaded.
    ["a restore was interrupted", { databases: restored, vault: [base("home-g1")], marker }, raised, "missing"],
    [
      "a restore was interrupted while it uploaded",
      { databases, vault: [base("home-g1")], unfinished: true, marker },
      {},
      "missing",
    ],
    [
      "a restore was interrupted, and Mastodon is the one that the database before had",
      { installed: host, databases: restored, vault: [base("home-g1")], marker },
      raised,
      "missing",
    ],
    [
      "such a restore's first base backup is there by now",
      { installed: host, databases: restored, vault: [base("home-g1"), base("home-g2")], marker },
      raised,
      "there",
    ],
    // It could only be asked inside of the cluster.
    ["the vault is embedded", { databases: { "postgres-g1": { archive: "dev-g1", image } }, site: "dev" }, {}, "there"],
    ["the vault is embedded, and nothing else is there", { site: "dev" }, {}, "missing"],
    ["only Mastodon is there", { installed: host, vault: [base("home-g1")], marker }, raised, "missing"],
    ["nothing is", { lease: "none" }, {}, "missing"],
  ])("waits for a base backup where there is something to lose: %s", async (_what, world, changes, installed) => {
    const seen: Seen = {};
    await check(world, changes, seen);
    expect(seen.installed).toBe(installed);
  });

  const mastodon = (tag: string) => `ghcr.io/mastodon/mastodon:${tag}`;
  /** A site of which a destroy has left the database, and the note. */
  const destroyed = (tag: string): World => ({
    databases,
    vault: [base("home-g1")],
    marker,
    served: servedBy(mastodon(tag), { database: "postgres-g1", epoch: 1 }),
  });

  it.each([
    ["v4.8.0", "a release of v4.7 first: v4.6.2 ran last, and no minor version may be skipped"],
    ["v4.5.9", "v4.6.x or newer: v4.6.2 ran last, and its schema does not go back (docs/runbooks/rollback.md)"],
  ])("to %s is refused after a destroy as before it: the database is of what ran on it last", async (next, allowed) => {
    expect(await check(destroyed("v4.6.2"), { images: { mastodon: mastodon(next) } })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        `  homestead:images.mastodon: "${mastodon(next)}"`,
        `    allowed: ${allowed}`,
        "    mend:    set the version in versions.ts, or: pulumi config set --path homestead:images.mastodon <image> --stack home",
      ].join("\n"),
    );
  });

  it("is not held up by what ran before the other site took over: that one may have upgraded the database", async () => {
    const images = { mastodon: mastodon("v4.8.0") };
    expect(await check({ ...destroyed("v4.6.2"), lease: { epoch: 3 } }, { images, epoch: 3 })).toBe("there");
    expect(await check(destroyed("v4.7.1"), { images })).toBe("there");
  });

  it("is not held up by what ran on a database before: a restored one is of whatever its archive holds", async () => {
    const vault = [base("home-g1"), base("home-g2")];
    const world = { ...destroyed("v4.6.2"), databases: restored, vault };
    expect(await check(world, { ...raised, images: { mastodon: mastodon("v4.8.0") } })).toBe("there");
    const gone = { ...destroyed("v4.6.2"), databases: {} };
    expect(await check(gone, { ...raised, images: { mastodon: mastodon("v4.8.0") } })).toBe("missing");
  });

  it("goes by what runs, where something does", async () => {
    const world = { ...destroyed("v4.6.2"), runs: mastodon("v4.7.0") };
    expect(await check(world, { images: { mastodon: mastodon("v4.8.0") } })).toBe("there");
  });

  const wanted = parseSettings(configurationOf("home")).images.mastodon;
  const tag = /:([^@]+)/.exec(wanted)?.[1] ?? "";
  const made = `postgres-g1-before-mastodon-${tag}-20261122t220302`;
  const backups: BackupObject[] = [
    {
      metadata: { name: made, creationTimestamp: "2026-11-22T22:03:02Z", annotations: { [madeBefore]: wanted } },
      status: { phase: "completed", stoppedAt: new Date().toISOString() },
    },
  ];
  const older = "ghcr.io/mastodon/mastodon:v4.6.0";
  const stamped = (database: string) =>
    expect.stringMatching(new RegExp(`^${database}-before-mastodon-${tag}-\\d{8}t\\d{6}$`)) as string;
  const there = { installed: "postgres-g1-rw", databases, marker: "home" };
  it.each<[string, World, Record<string, unknown>, UpgradeBackup]>([
    ["for the next version", { ...there, runs: older }, {}, { name: stamped("postgres-g1"), upgrade: "due" }],
    ["once for both tries", { ...there, runs: older, backups }, {}, { name: made, upgrade: "due" }],
    ["no more, once it runs", { ...there, runs: wanted, backups }, {}, { name: made, upgrade: "past" }],
    [
      "for another database, whatever runs",
      { installed: "postgres-g1-rw", vault: [base("home-g1")], marker: "home", runs: wanted, backups },
      raised,
      { name: stamped("postgres-g2"), upgrade: "due" },
    ],
  ])("takes a base backup %s", async (_what, world, changes, backup) => {
    const seen: Seen = {};
    await check(world, changes, seen);
    expect(seen.upgradeBackup).toEqual(backup);
  });
});

describe("a database that is yet to be made, by a vault that has lost its lease", () => {
  const dead = { ...raised, promotionToken: "dead" };
  const vault = [base("home-g1"), base("vps-g1")];

  it("does not begin from the other site's archive without a word: its own may be newer, and nobody says who was active", async () => {
    expect(await check({ lease: "none", vault }, dead)).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:restore.from: (not set)",
        "    allowed: the archive of the site that was active last: there is no lease to say which that was, vps-g1 is the other site's, and home-g1 is this site's own newest",
        "    mend:    pulumi config set --path homestead:restore.from home-g1 --stack home (or vps-g1, if vps was active last), and when the server is back: pulumi config rm homestead:restore --stack home",
      ].join("\n"),
    );
  });

  it.each(["home-g1", "vps-g1"])("begins from %s when that is named", async (from) => {
    expect(await check({ lease: "none", vault }, { ...dead, restore: { from } })).toBe("missing");
  });

  it("begins from the other site's where there is none of its own", async () => {
    expect(await check({ lease: "none", vault: [base("vps-g1")] }, dead)).toBe("missing");
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

describe("a server at a private address", () => {
  const mail = (host: string) => ({ smtp: { kind: "server", host, from: "a@ramble.moe" } });

  it("is refused where the network policies would keep Mastodon from it, with the range to name", async () => {
    const network = { mastodonPrivateEgress: ["10.9.0.0/16"] };
    expect(await check({}, { ...mail("100.64.3.4"), network })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:network.mastodonPrivateEgress: ["10.9.0.0/16"]',
        "    allowed: a list with 100.64.3.4/32, or with a range around it: the mail server (100.64.3.4) is there, and the network policies let Mastodon reach no private address that this list does not name",
        "    mend:    pulumi config set --path 'homestead:network.mastodonPrivateEgress[1]' 100.64.3.4/32 --stack home",
      ].join("\n"),
    );
  });

  it("may have another one for the pods where it has a name, and that is said", async () => {
    const said = await check({}, mail("mail.house.example"));
    expect(said).toContain("the mail server (mail.house.example) is there");
    expect(said).toMatch(
      /mend: .*mastodonPrivateEgress\[0\]' 10\.9\.0\.7\/32 --stack home; a name's address is what this machine's DNS says: the pods' own may say a public one, and then the range is not needed, and does no harm$/,
    );
  });

  it("is reached where its range is named for Mastodon, and not where it is named for who talks to the vault", async () => {
    const range = ["10.9.0.0/16"];
    expect(await check({}, { ...mail("10.9.0.7"), network: { mastodonPrivateEgress: range } })).toBe("missing");
    expect(await check({}, { ...mail("10.9.0.7"), network: { privateEgress: range } })).toContain(
      "homestead:network.mastodonPrivateEgress: []",
    );
  });

  it("is the vault's for Postgres and what else talks to it, and the media bucket's for Mastodon", async () => {
    onTestFinished(() => void (nameServer["localhost"] = ["203.0.113.7"]));
    nameServer["localhost"] = ["192.168.7.2"];
    const faults = async (changes: Record<string, unknown>) => {
      const all = (await prepareAndAsk(changes)).filter(({ key }) => key.startsWith("homestead:network."));
      return all.map(({ allowed, ...fault }) => ({ ...fault, allowed: allowed.replace(/:\d+\)/, ":9000)") }));
    };
    const named =
      "; a name's address is what this machine's DNS says: the pods' own may say a public one, and then the range is not needed, and does no harm";
    const [media, vault, ...more] = await faults({});
    expect(more).toEqual([]);
    expect(vault).toEqual({
      key: "homestead:network.privateEgress",
      value: "[]",
      allowed:
        "a list with 192.168.7.2/32, or with a range around it: the vault (http://localhost:9000) is there, and the network policies let the pods that talk to the vault reach no private address that this list does not name",
      mend: `pulumi config set --path 'homestead:network.privateEgress[0]' 192.168.7.2/32 --stack home${named}`,
    });
    expect(media?.key).toBe("homestead:network.mastodonPrivateEgress");
    expect(media?.allowed).toContain("the media bucket (http://localhost:9000) is there");
    // One server may be both; each list says who is let through to it.
    const keys = async (network: object) => (await faults({ network })).map(({ key }) => key);
    expect(await keys({ privateEgress: ["192.168.7.0/24"] })).toEqual(["homestead:network.mastodonPrivateEgress"]);
    expect(await keys({ mastodonPrivateEgress: ["192.168.7.0/24"] })).toEqual(["homestead:network.privateEgress"]);
  });

  it("is one whose every address is closed, of the cluster's families", () => {
    const missing = (families: ("IPv4" | "IPv6")[], ...addresses: string[]) =>
      missingRanges(reachable(addresses, families), ["192.168.1.0/24"]);
    expect(missing(["IPv4"], "192.168.2.5", "10.1.1.1")).toEqual(["192.168.2.5/32", "10.1.1.1/32"]);
    expect(missing(["IPv4"], "192.168.2.5", "192.168.1.5")).toEqual([]);
    expect(missing(["IPv4"], "10.1.1.1", "203.0.113.7")).toEqual([]);
    // The cluster asks for no IPv6.
    expect(missing(["IPv4"], "10.1.1.1", "2001:db8::1")).toEqual(["10.1.1.1/32"]);
    expect(missing(["IPv4", "IPv6"], "fd00::1")).toEqual(["fd00::1/128"]);
    expect(missing(["IPv4"], "::ffff:10.1.1.1")).toEqual(["10.1.1.1/32"]);
    // What did not resolve is another check's.
    expect(missing(["IPv4"])).toEqual([]);
    // What is a machine's own is no way there.
    expect(missing(["IPv4"], "10.1.1.1", "169.254.1.1")).toEqual(["10.1.1.1/32"]);
    // What the policies keep pods from is named whatever it is called.
    expect(missing(["IPv4"], "198.18.0.5")).toEqual(["198.18.0.5/32"]);
    expect(missing(["IPv6"], "64:ff9b::cb00:7107")).toEqual(["64:ff9b::cb00:7107/128"]);
  });

  it("is the vault's, the media bucket's and the mail server's, and nothing that is in the cluster", () => {
    const hosts = (stack: "home" | "dev", changes: Record<string, unknown> = {}) =>
      serversOf(parseSettings(configurationOf(stack, changes))).map(({ host }) => host);
    const bucket = (endpoint: string) => ({ endpoint, bucket: "bucket" });
    const elsewhere = { vault: bucket("https://minio.lan:9000"), media: { kind: "volume" } };
    expect(hosts("home", { ...elsewhere, ...mail("mail.lan") })).toEqual(["minio.lan", "mail.lan"]);
    const both = { vault: bucket("https://minio.lan:9000"), media: bucket("http://[fd00::1]:9000") };
    expect(hosts("home", both)).toEqual(["minio.lan", "fd00::1"]);
    expect(hosts("dev")).toEqual([]);
  });
});

describe("a server where no pod gets to it", () => {
  it("is one with no address of the cluster's families, but a machine's own or a cloud's", () => {
    expect(reachable(["127.0.0.1", "169.254.1.1", "10.1.1.1", "fd12::1"], ["IPv4"])).toEqual(["10.1.1.1"]);
    expect(reachable(["127.0.0.1", "0.0.0.0", "192.0.0.192", "168.63.129.16"], ["IPv4"])).toEqual([]);
    expect(reachable(["::1", "fe80::1%eth0", "fd00:ec2::254", "203.0.113.7"], ["IPv6"])).toEqual([]);
    expect(reachable(["2001:db8::1"], ["IPv4", "IPv6"])).toEqual(["2001:db8::1"]);
  });

  it("is refused, whichever it is, before anything changes: an update would wait for it in vain", async () => {
    const smtp = { kind: "server", host: "127.0.0.1", from: "a@ramble.moe" };
    expect((await prepareAndAsk({ smtp })).map(({ key, value, allowed, mend }) => [key, value, allowed, mend])).toEqual(
      [
        [
          "homestead:smtp.host",
          '"127.0.0.1"',
          "a server that pods can reach, at an address of the cluster's families (network.families: IPv4) that is none of a machine's own (loopback, link-local) and no cloud's metadata server; the mail server (127.0.0.1) is at 127.0.0.1",
          "pulumi config set --path homestead:smtp.host <host> --stack home",
        ],
      ],
    );
    const keys = async (changes: Record<string, unknown>) => (await prepareAndAsk(changes)).map(({ key }) => key);
    const at = (endpoint: string, bucket: string) => ({ endpoint, bucket });
    expect(await keys({ vault: at("http://[::1]:9", "vault") })).toContain("homestead:vault.endpoint");
    expect(await keys({ media: at("http://127.0.0.1:9", "media") })).toContain("homestead:media.endpoint");
    expect(await keys({ vault: at("http://vault.localhost:9", "vault") })).toContain("homestead:vault.endpoint");
  });

  it("is said with the way out where the stack does not ask for its family", async () => {
    const [fault] = await prepareAndAsk({ smtp: { kind: "server", host: "fd12::1", from: "a@ramble.moe" } });
    expect(fault?.mend).toBe(
      "pulumi config set --path homestead:smtp.host <host> --stack home, or, where the cluster has IPv6, name it in network.families in Pulumi.home.yaml",
    );
  });

  it("is warned of where it has a name, which may say something else to the pods", async () => {
    const warned = vi.spyOn(pulumi.log, "warn").mockResolvedValue();
    onTestFinished(() => warned.mockRestore());
    for (const host of ["vault.house.example", "ipv6.example"])
      expect(await prepareAndAsk({ smtp: { kind: "server", host, from: "a@ramble.moe" } }), host).toEqual([]);
    expect(warned.mock.calls.map(([text]) => text.split("; ")[0])).toEqual([
      "smtp.host: the mail server (vault.house.example) is at 127.0.1.1 as this machine's DNS or /etc/hosts says",
      "smtp.host: the mail server (ipv6.example) is at fd12::1, fe80::1 as this machine's DNS or /etc/hosts says",
    ]);
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

describe("a cluster that is asked", () => {
  const lists = {
    definitions: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    deployments: "/apis/apps/v1/deployments",
    namespaces: "/api/v1/namespaces",
    configmaps: "/api/v1/configmaps",
    endpointslices: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    storageclasses: "/apis/storage.k8s.io/v1/storageclasses",
  };
  const no = (what: string): [number, string] => [
    403,
    `${what} is forbidden: User "guest" cannot list resource "${what}" in API group "" at the cluster scope`,
  ];
  const kubectl = "kubectl --kubeconfig <file> --context trial";

  it("says in one fault what its user may not, and how to see that", async () => {
    expect(await check({ denied: { [lists.storageclasses]: no("storageclasses") } })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:cluster.context: "trial"',
        `    allowed: a context whose user may do what an update does, as cluster-admin may: this one's may not list storageclasses.storage.k8s.io (the cluster answers 403, storageclasses is forbidden: User "guest" cannot list resource "storageclasses" in API group "" at the cluster scope)`,
        `    mend:    give its user the right (${kubectl} auth can-i list storageclasses.storage.k8s.io), or: pulumi config set --path homestead:cluster.context <context> --stack home`,
      ].join("\n"),
    );
  });

  it("is asked for everything by a user who may look into one namespace only: all that is missing is said at once", async () => {
    const denied = {
      "/api/v1/namespaces/kube-system": no("kube-system"),
      "/api/v1/namespaces/homestead": no("homestead"),
      [lists.definitions]: no("definitions"),
      [lists.endpointslices]: no("endpointslices"),
      [lists.storageclasses]: no("storageclasses"),
    };
    const said = await check({ denied });
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain(
      "may not get namespaces/homestead, nor get namespaces/kube-system, nor list customresourcedefinitions.apiextensions.k8s.io, nor list endpointslices.discovery.k8s.io -n default, nor list storageclasses.storage.k8s.io (the cluster answers 403, homestead is forbidden: ",
    );
    expect(said).toContain(
      `(${kubectl} auth can-i get namespaces/homestead; ${kubectl} auth can-i get namespaces/kube-system; ${kubectl} auth can-i list customresourcedefinitions.apiextensions.k8s.io; `,
    );
  });

  it.each([
    ["definitions", "list customresourcedefinitions.apiextensions.k8s.io", {}],
    ["deployments", "list deployments.apps -A", {}],
    ["namespaces", "list namespaces", {}],
    ["configmaps", "list configmaps -A", {}],
    ["endpointslices", "list endpointslices.discovery.k8s.io -n default", {}],
    ["storageclasses", "list storageclasses.storage.k8s.io", {}],
    ["/api/v1/nodes", "list nodes", { cilium: {} }],
    ["/api/v1/namespaces/homestead", "get namespaces/homestead", {}],
    ["/api/v1/namespaces/cert-manager", "get namespaces/cert-manager", {}],
    [
      "/apis/apps/v1/namespaces/homestead/deployments/mastodon-web",
      "get deployments.apps/mastodon-web -n homestead",
      {},
    ],
    ["/api/v1/namespaces/homestead/secrets", "list secrets -n homestead", { lease: "none" as const }],
    [
      "/apis/postgresql.cnpg.io/v1/namespaces/homestead/backups",
      "list backups.postgresql.cnpg.io -n homestead",
      { lease: "none" as const },
    ],
    [
      "/api/v1/namespaces/homestead/configmaps/mastodon-env",
      "get configmaps/mastodon-env -n homestead",
      {
        installed: "postgres-g1-rw",
        databases: { "postgres-g1": { archive: "home-g1", image } },
        vault: [base("home-g1")],
        marker: "home",
      },
    ],
  ])("that fails at %s is one fault with what was asked and what came", async (name, question, world) => {
    const path = name in lists ? lists[name as keyof typeof lists] : name;
    const seen: Seen = {};
    const answers: [NonNullable<World["denied"]>[string], string][] = [
      [[500, "etcdserver: request timed out"], "500, etcdserver: request timed out"],
      [[403, "no"], "403, no"],
      ["hangs up", ""],
    ];
    for (const [denied, says] of answers) {
      const said = await check({ ...world, denied: { [path]: denied } }, {}, seen);
      expect(said).toMatch(/^1 fault [^]*homestead:cluster\.context: "trial"/);
      expect(said.split("\n")).toHaveLength(4);
      expect(said).toContain(question);
      expect(said).toContain(says);
      if (says === "403, no") expect(said).toContain(`${kubectl} auth can-i ${question}`);
      else {
        expect(said).toContain(`a cluster that answers (${question}: ${says}`);
        expect(said).toContain(`mend:    ${kubectl} get namespaces; then the same again`);
      }
    }
    expect(seen.lease?.writer ?? "w0").toBe("w0");
  });

  it("is not asked the rest by who is not known there, or where nothing answers", async () => {
    const first = "/api/v1/namespaces/kube-system";
    const denied = { [lists.definitions]: no("definitions") };
    expect(await check({ denied: { ...denied, [first]: [401, "Unauthorized"] } })).toContain(
      "may not get namespaces/kube-system (the cluster answers 401, Unauthorized)",
    );
    const silent = await check({ denied: { ...denied, [first]: "hangs up" } });
    expect(silent).toMatch(/^1 fault [^]*a cluster that answers \(get namespaces\/kube-system: /);
  });

  it("says what it did not answer beside what its user may not", async () => {
    const said = await check({
      denied: { [lists.storageclasses]: no("storageclasses"), [lists.configmaps]: [500, "boom"] },
    });
    expect(said).toMatch(/^2 faults /);
    expect(said).toContain("may not list storageclasses.storage.k8s.io (");
    expect(said).toContain("a cluster that answers (list configmaps -A: 500, boom)");
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

describe("a clone that is behind", () => {
  const first = { archive: "home-g1", image };
  const second = { archive: "home-g2", image };
  const vault = [base("home-g1"), base("home-g2")];
  const standby = { activeSite: "vps", epoch: 2 } as const;

  it("does not put the database to sleep that was begun after it", async () => {
    const databases = { "postgres-g1": { ...first, asleep: true }, "postgres-g2": second };
    const refused = [
      "1 fault in the configuration of stack 'home'; nothing was changed.",
      "  homestead:generations.home: 1",
      "    allowed: 2: this cluster has the database that writes the archive home-g2, which was begun later",
      "    mend:    get the newest files (git pull), or set generations.home to 2 in Pulumi.yaml",
    ].join("\n");
    expect(await check({ databases, vault })).toBe(refused);
    // Nor before anything of it has reached the vault, and as the standby.
    expect(await check({ databases, vault: [base("home-g1")] })).toBe(refused);
    expect(await check({ databases, vault, lease: standby }, standby)).toBe(refused);
    expect(await check({ databases, vault }, { generations: { home: 2, vps: 1 } })).toBe("there");
  });

  it("is told the other site's number by the vault: a database would begin from an archive that is over", async () => {
    const archives = [base("vps-g1"), base("vps-g3"), base("vps-g10x"), base("home-g1")];
    expect(await check({ databases: { "postgres-g1": first }, vault: archives, lease: standby }, standby)).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:generations.vps: 1",
        "    allowed: 3: the vault holds the archive vps-g3, which was begun later",
        "    mend:    get the newest files (git pull), or set generations.vps to 3 in Pulumi.yaml",
      ].join("\n"),
    );
  });

  it("is told the number after the newest archive where the cluster has no database", async () => {
    expect(await check({ vault: [base("home-g1"), base("home-g3")] }, { generations: { home: 2, vps: 1 } })).toContain(
      "allowed: 4: this cluster has no database, but the vault holds its archive home-g3, which is never written over",
    );
  });

  it("does not serve from a cluster that has only the database of before, whatever its number", async () => {
    for (const home of [1, 2, 3]) {
      const said = await check({ databases: { "postgres-g1": first }, vault }, { generations: { home, vps: 1 } });
      expect(said).toMatch(/^1 fault /);
      expect(said).toContain('homestead:cluster.context: "trial"');
      expect(said).toContain(
        "allowed: the cluster whose database writes the archive home-g2: the one here writes home-g1, which was begun before",
      );
    }
  });

  it("begins a standby anew whose newest database is not on its cluster", async () => {
    const world: World = { databases: { "postgres-g1": { ...first, primary: "vps" } }, vault, lease: standby };
    const said = await check(world, standby);
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain(
      "allowed: 3: the vault holds the archive home-g2, whose database is not on this cluster, and an archive is never written over",
    );
  });

  it("is refused by a switch too, but for what the switch sets by itself", async () => {
    const behind = { databases: { "postgres-g1": { ...first, primary: "home" }, "postgres-g2": second }, vault };
    expect(await beforeSwitch({ ...behind, lease: standby }, standby)).toEqual(["homestead:generations.home"]);
    const follows = { databases: { "postgres-g1": { ...first, primary: "vps" } }, vault };
    expect(await beforeSwitch({ ...follows, lease: standby }, standby)).toEqual(["homestead:generations.home"]);
    const parted = { databases: { "postgres-g1": { ...first, primary: "home" } }, vault };
    expect(await beforeSwitch({ ...parted, lease: standby }, standby)).toEqual([]);
    const cold = { vault: [...vault, base("vps-g1")] };
    expect(await beforeSwitch({ ...cold, lease: standby }, standby)).toEqual([]);
    const others = { vault: [base("vps-g2")] };
    expect(await beforeSwitch({ ...others, lease: standby }, standby)).toContain("homestead:generations.vps");
  });
});

describe("a switch that stopped in its demotion", () => {
  it("goes on without the old site when it is looked at as before: the lease is not the target's yet", async () => {
    const databases = { "postgres-g1": { archive: "home-g1", image, primary: "vps" } };
    const world: World = {
      databases,
      vault: [base("home-g1"), base("vps-g1")],
      lease: { activeSite: "vps", epoch: 2 },
    };
    const demoting = { activeSite: "home", epoch: 3, generations: { home: 1, vps: 1 } };
    expect(await beforeSwitch(world, demoting)).toEqual(["homestead:activeSite"]);
    const journal = { version: 1, target: "home", from: "vps", kind: "planned", epoch: 3, generation: 1 } as const;
    const dates = { startedAt: "", updatedAt: "", finished: false };
    const generations = { secret: false, value: JSON.stringify(demoting.generations) };
    const before = configWith(
      { "homestead:generations": generations },
      "home",
      filesAt("reopen", { ...journal, ...dates, steps: [] }),
    );
    const said = Object.entries(before).map(([key, { value }]) => [key.replace(/^homestead:/, ""), value] as const);
    expect(await beforeSwitch(world, Object.fromEntries(said))).toEqual([]);
  });
});

describe("a database that sleeps", () => {
  it("is waited for by no update, and the way to wake it is named", async () => {
    const databases = { "postgres-g2": { archive: "home-g2", image, asleep: true } };
    expect(await check({ databases }, { generations: { home: 2, vps: 1 } })).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:cluster.context: "trial"',
        "    allowed: a cluster whose database is awake: postgres-g2 is hibernated, and an update would wait for it in vain",
        "    mend:    kubectl --kubeconfig <file> --context trial -n homestead annotate clusters.postgresql.cnpg.io postgres-g2 cnpg.io/hibernation-; then the same again",
      ].join("\n"),
    );
  });
});

describe("a database that sleeps where its successor is gone", () => {
  const databases = { "postgres-g1": { archive: "home-g1", image, asleep: true } };
  const vault = [base("home-g1"), base("home-g2"), base("vps-g1")];
  const raisedTo = (home: number) => ({ generations: { home, vps: 1 } });

  it("is no reason against a restore from the successor's archive", async () => {
    expect(await check({ databases, vault }, raisedTo(3))).toBe("missing");
  });

  it("leads there while the number is the successor's", async () => {
    const said = await check({ databases, vault }, raisedTo(2));
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain("if it is gone, begin the database anew from the vault: docs/runbooks/lost-disk.md");
  });

  it("is not begun from where the successor archived nothing: the archive that goes on is another", async () => {
    const world: World = { databases, vault: [base("home-g1"), base("vps-g1")] };
    expect(await check(world, raisedTo(2))).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:restore.from: (not set)",
        "    allowed: the archive to begin from: home-g1 is that of postgres-g1, which sleeps here, and another database may have gone on since",
        "    mend:    name the archive that was written last (pulumi config set --path homestead:restore.from <archive> --stack home), and take it out again afterwards",
      ].join("\n"),
    );
    expect(await check(world, { ...raisedTo(2), restore: { from: "vps-g1" } })).toBe("missing");
  });

  it("does not speak for another one that is awake", async () => {
    const both = { ...databases, "postgres-g2": { archive: "home-g2", image, primary: "home" } };
    expect(await check({ databases: both, vault }, raisedTo(3))).toContain("set generations.home back to 2");
  });
});

describe("a database whose successor is to take over from a lost site", () => {
  const follows: World["databases"] = { "postgres-g1": { archive: "home-g1", image, primary: "vps" } };
  const wrote: World["databases"] = { "postgres-g1": { archive: "home-g1", image, primary: "home" } };
  const vault = [base("home-g1"), base("vps-g2")];
  const lost = { epoch: 3, promotionToken: "lost", generations: { home: 2, vps: 2 } };
  const theirs = { activeSite: "vps", epoch: 2 } as const;
  const ours = { activeSite: "home", epoch: 3 } as const;

  it("is passed over: it may have followed what was undone, and the vault has the rest", async () => {
    const seen: Seen = {};
    expect(await check({ databases: follows, vault, lease: theirs }, lost, seen)).toBe("missing");
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 3, takeover: "lost" });
    // Interrupted after that, the same again.
    expect(await check({ databases: follows, vault, lease: ours }, lost)).toBe("missing");
    expect(await check({ databases: wrote, vault, lease: theirs }, lost)).toBe("missing");
  });

  it("is passed over where the vault has a later archive of its site, too", async () => {
    const later = [...vault, base("home-g2")];
    const changes = { ...lost, generations: { home: 3, vps: 2 } };
    expect(await check({ databases: follows, vault: later, lease: theirs }, changes)).toBe("missing");
  });

  it("keeps its place where it has served since: a word that was left in the files is no restore", async () => {
    expect(await check({ databases: wrote, vault, lease: ours }, lost)).toContain("set generations.home back to 1");
  });

  it("is not passed over with a token, which is its own", async () => {
    const token = Buffer.from("{}".padEnd(60)).toString("base64");
    const said = await check({ databases: follows, vault, lease: theirs }, { ...lost, promotionToken: token });
    expect(said).toContain("there is no database here that it could promote");
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
    expect(said).toMatch(/^1 fault [^]*homestead:cluster\.context: /);
    expect(said).toContain(
      "the cluster whose database writes the archive home-g2: the one here writes home-g1, which was begun before",
    );
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

describe("a cold standby", () => {
  const standby = { activeSite: "vps", epoch: 2 } as const;
  const vault = [base("vps-g1")];
  const databases = { "postgres-g1": { archive: "home-g1", image, primary: "vps" } };

  it.each<[what: string, world: World, changes: Record<string, unknown>, warnings: number]>([
    ["that is yet to be made says what the update makes", { vault, lease: standby }, standby, 1],
    ["that was brought up says nothing any more", { vault, databases, lease: standby }, standby, 0],
    ["says nothing where it is the active site", { lease: "none" }, {}, 0],
  ])("%s", async (_what, world, changes, warnings) => {
    const warn = vi.spyOn(pulumi.log, "warn").mockResolvedValue();
    onTestFinished(() => warn.mockRestore());
    expect(await check(world, { ...changes, standby: "cold" })).toMatch(/^(there|missing)$/);
    expect(warn.mock.calls.map(([text]) => text)).toEqual(
      Array(warnings).fill(
        "standby: cold, and home has no database: the update makes all that a warm standby has, with a database that follows from then on. Nothing has to be there before it is needed: npx homestead switch home brings it up then",
      ),
    );
  });
});

describe("maintenance", () => {
  it("is refused where there is no Mastodon yet: nobody would make its schema", async () => {
    expect(await check({}, { maintenance: "web" })).toContain("off, while there is no Mastodon here yet");
  });

  it("is not what keeps a site without Mastodon from being handed over: it is not in its files, and taking it out mends nothing", async () => {
    const { settings, keys } = await prepare({ lease: "none" }, {}, {});
    expect(await siteFaults(settings, keys, { purpose: "handover" })).toEqual([
      {
        key: "homestead:images.mastodon",
        value: JSON.stringify(settings.images.mastodon),
        allowed:
          "a Mastodon that is there, and can be stopped before the server is handed over: its first install never came to its end",
        mend: "pulumi up --stack home; if that does not succeed, the site can be given up: npx homestead switch vps --lost, which says what is lost",
      },
    ]);
    expect(await siteFaults(settings, keys)).toEqual([]);
  });
});

describe("the script that Helm runs", () => {
  it("is there and may be run in this clone, and is refused where it is not", () => {
    const folder = temporaryFolder();
    const script = path.join(folder, "sidekiq-grace.sh");
    expect(postrenderFault(projectFolder)).toBeUndefined();
    const fault = {
      key: "sidekiq-grace.sh",
      allowed: "a file that may be run: Helm hands it what Mastodon's chart renders, when all before Mastodon is made",
    };
    expect(postrenderFault(folder, "./sidekiq-grace.sh")).toEqual({
      ...fault,
      value: "not there",
      mend: "git checkout -- sidekiq-grace.sh",
    });
    fs.writeFileSync(script, "#!/bin/sh\n", { mode: 0o644 });
    expect(postrenderFault(folder, "./sidekiq-grace.sh")).toEqual({
      ...fault,
      value: "not executable",
      mend: "chmod +x sidekiq-grace.sh",
    });
    fs.chmodSync(script, 0o755);
    expect(postrenderFault(folder, "./sidekiq-grace.sh")).toBeUndefined();
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

describe("what is left of a restore", () => {
  const [none, move] = [{ kind: "none" }, { kind: "move", how: "dead" }] as const;
  const oldCluster = "8f1c7a52-0d7e-4f0b-9d51-3c8e7c4f2a10";
  const rm = (key: string) => `pulumi config rm --path homestead:restore.${key} --stack home`;
  const left = (restore: Parameters<typeof leftOfRestore>[0]["restore"], found: Parameters<typeof leftOfRestore>[1]) =>
    leftOfRestore({ site: "home", restore }, found);

  it("is warned of once the database is made, which it would be looked at for again", () => {
    const restore = { to: "2026-11-22T10:00:00Z", from: "home-g1" };
    expect(left(restore, { database: "missing", step: none })).toEqual([]);
    expect(left(restore, { database: "there", step: none })).toEqual([
      `restore.to, restore.from: looked at only when a database is made, and there is one; take it out: ${rm("to")}, ${rm("from")}`,
    ]);
  });

  it("is a word about a cluster as soon as the lease is not moved by it, whether there is a database or not", () => {
    for (const database of ["there", "missing"] as const) {
      expect(left({ oldCluster }, { database, step: move })).toEqual([]);
      expect(left({ oldCluster }, { database, step: none })).toEqual([
        `restore.oldCluster: nothing to say now, and believed whenever the lease names that cluster and the stack leads to another one; take it out: ${rm("oldCluster")}`,
      ]);
    }
  });
});

describe("the lease", () => {
  const there = { databases: { "postgres-g1": { archive: "home-g1", image } }, vault: [base("home-g1")] };

  it("is written by the server's first update", async () => {
    const seen: Seen = {};
    await check({ lease: "none" }, {}, seen);
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 1, grace: 600, wait: 0, takeover: "first" });
  });

  const raised = { databases: {}, vault: [base("home-g1")] };
  const burnt = "8f1c7a52-0d7e-4f0b-9d51-3c8e7c4f2a10";

  it("is moved to the cluster that a site is restored onto, before the first resource, and the old one waited for", async () => {
    const seen: Seen = {};
    const generations = { home: 2, vps: 1 };
    expect(await check({ ...raised, lease: { cluster: burnt } }, { generations }, seen)).toBe("missing");
    expect(seen.lease).toMatchObject({ activeSite: "home", epoch: 1, cluster: "u", wait: 668, takeover: "first" });
    const restore = { oldCluster: burnt };
    for (const [cluster, wait] of [
      [burnt, 0],
      // Of an earlier restore, and forgotten.
      ["00000000-1111-2222-3333-444444444444", 668],
    ] as const) {
      const off: Seen = {};
      expect(await check({ ...raised, lease: { cluster } }, { generations, restore }, off)).toBe("missing");
      expect(off.lease).toMatchObject({ cluster: "u", wait });
    }
  });

  it("stays where it is while anything speaks against the update", async () => {
    const seen: Seen = {};
    expect(await check({ ...raised, lease: { cluster: "burnt" } }, {}, seen)).toContain("generations.home");
    expect(seen.lease).toMatchObject({ cluster: "burnt", writer: "w0" });
  });

  it("does not go back to a cluster whose database is of before the restore", async () => {
    const seen: Seen = {};
    const world = { ...there, vault: [base("home-g1"), base("home-g2")], lease: { cluster: "new" } };
    expect(await check(world, { generations: { home: 2, vps: 1 } }, seen)).toContain("homestead:cluster.context");
    expect(seen.lease).toMatchObject({ cluster: "new", writer: "w0" });
  });

  it("gets the cluster's name, if it has none, when the keeper here knows that it may have one", async () => {
    const lease = { cluster: undefined } as unknown as Partial<Lease>;
    const older: Seen = {};
    expect(await check({ ...there, lease, keeper: ["EPOCH"] }, {}, older)).toBe("there");
    expect(older.lease?.writer).toBe("w0");
    const knows: Seen = {};
    expect(await check({ ...there, lease, keeper: ["EPOCH", "CLUSTER"] }, {}, knows)).toBe("there");
    expect(knows.lease).toMatchObject({ cluster: "u", wait: 0, epoch: 1 });
  });

  it("stops an active site that it does not name, and says how to take over", async () => {
    const seen: Seen = {};
    expect(await check({ ...there, lease: { activeSite: "vps", epoch: 2 } }, {}, seen)).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:activeSite: "home"',
        "    allowed: vps (epoch 2), as the lease in the vault says: two sites that federate cannot be merged again",
        "    mend:    npx homestead switch home (or by hand: docs/runbooks/switch-by-hand.md); to leave it as it is, get the newest files (git pull), or set activeSite to vps, epoch to 2, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml",
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
    // What waits for the site to begin knows for how long, in the takeover's update and in one that repeats it.
    expect(seen.leaseWait).toBe(seen.lease?.wait);
    const again: Seen = {};
    const taken = { activeSite: "home", epoch: 3, grace: 100, wait: 370, takeover: "lost" } as const;
    await check({ ...there, lease: taken }, changes, again);
    expect(again.leaseWait).toBe(370);
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
    // The other one may have been brought back with the old files: then it has no token to give.
    expect(await take(token(2))).toMatch(
      /npx homestead switch home; by hand: pulumi stack output demotionToken --stack vps, .*; if that prints nothing, vps writes again: set activeSite and epoch back/,
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

  it("is not taken by a database that wrote until it was lost: all that was written since would be lost", async () => {
    const world = (primary: string, vault = [base("vps-g1")]): World => ({
      databases: { "postgres-g1": { archive: "home-g1", image, primary } },
      vault,
      lease: { activeSite: "vps", epoch: 2 },
    });
    const takes = { epoch: 3, promotionToken: "lost" };
    const seen: Seen = {};
    expect(await check(world("home"), takes, seen)).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        "  homestead:generations.home: 1",
        "    allowed: 2, before a takeover: vps took over while home was lost, and the database here has parted from its; all that vps wrote since would be lost",
        "    mend:    begin it anew before the takeover: set activeSite to vps, epoch to 2 and generations.home to 2 in Pulumi.yaml, pulumi config rm homestead:promotionToken --stack home, pulumi up --stack home; then the takeover again (docs/runbooks/switch-by-hand.md)",
      ].join("\n"),
    );
    expect(seen.lease).toMatchObject({ activeSite: "vps", epoch: 2 });
    // It took over and never wrote.
    expect(await check(world("home", []), takes)).toBe("there");
    expect(await check(world("vps"), takes)).toBe("there");
    // The site that is active, in its next update.
    expect(await check({ ...world("home"), lease: { activeSite: "home", epoch: 3 } }, takes)).toBe("there");
  });

  it("is taken with a raised number beside an old database, by one that begins from what the lost site wrote", async () => {
    const world: World = {
      databases: { "postgres-g1": { archive: "home-g1", image, primary: "home" } },
      vault: [base("home-g1"), base("vps-g1")],
      lease: { activeSite: "vps", epoch: 2 },
    };
    const raised = { epoch: 3, promotionToken: "lost", generations: { home: 2, vps: 1 } };
    expect(await check(world, raised)).toBe("missing");
  });

  it("is taken on a new cluster with the next number, and the runbook of a restore is not the way", async () => {
    const world: World = { vault: [base("home-g1"), base("vps-g1")], lease: { activeSite: "vps", epoch: 2 } };
    const takes = { epoch: 3, promotionToken: "lost" };
    const said = await check(world, takes);
    expect(said).toContain("allowed: 2: this cluster has no database");
    expect(said).toContain(
      "mend:    to begin with what vps wrote, set generations.home to 2 in Pulumi.yaml and run: pulumi up --refresh --run-program --stack home",
    );
    expect(said).not.toContain("lost-disk.md");
    expect(await check(world, { ...takes, generations: { home: 2, vps: 1 } })).toBe("missing");
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

describe("rate limits by IPv6 subnets", () => {
  it("are there where the definition of Traefik's middlewares has a field for them, since 3.2", async () => {
    const seen: Seen = {};
    const depth = { depth: { type: "integer" } };
    await check({ lease: "none", ipStrategy: { ...depth, ipv6Subnet: { type: "integer" } } }, {}, seen);
    expect(seen.subnetLimits).toBe("there");
    await check({ lease: "none", ipStrategy: depth }, {}, seen);
    expect(seen.subnetLimits).toBe("missing");
  });
});

describe("the API server", () => {
  it("is let out to at the port it really has, and at the Service's", async () => {
    const seen: Seen = {};
    await check({ lease: "none" }, {}, seen);
    expect(seen.apiServerPorts).toEqual([443, 6443]);
    await check({ lease: "none", apiServer: { address: "192.0.2.1", port: 16443 } }, {}, seen);
    expect(seen.apiServerPorts).toEqual([443, 6443, 16443]);
  });

  it("is out of reach on a node where Cilium takes no node for an address, and the setting is named", async () => {
    const said = await check({ lease: "none", cilium: { "policy-cidr-match-mode": "" } });
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain('homestead:network: "Cilium"');
    expect(said).toContain("allowed: Cilium with policyCIDRMatchMode nodes: ");
    expect(said).toContain(
      `kubectl --kubeconfig <file> --context trial -n kube-system patch configmap cilium-config --type merge -p '{"data":{"policy-cidr-match-mode":"nodes"}}'`,
    );
    expect(await check({ lease: "none", cilium: {} })).toBe(said);
  });

  it("is in reach where Cilium was told so, and where it is on none of the nodes", async () => {
    expect(await check({ lease: "none", cilium: { "policy-cidr-match-mode": "nodes" } })).toBe("missing");
    const elsewhere = { address: "198.51.100.1", port: 443 };
    expect(await check({ lease: "none", cilium: {}, apiServer: elsewhere })).toBe("missing");
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
    const deployments = [{ name: "barman-cloud", namespace: "databases", image: "a.example/b:v1" }];
    expect(await check({ definitions, operatorIn: "databases", deployments }, existing("existing"))).toBe("missing");
    expect(await check({ definitions, operatorIn: "cnpg-system" }, existing("install"))).toBe("missing");
  });

  const certManager = { name: "cert-manager", image: "quay.io/jetstack/cert-manager-controller:v1.18.2" };

  it("is no place for another, and the way to use it is named", async () => {
    const said = await check({ deployments: [{ ...certManager, namespace: "certs" }] });
    expect(said).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:operators.certManager: "install"',
        "    allowed: existing: somebody else installed cert-manager v1.18.2 in namespace 'certs', and an install would collide with it",
        "    mend:    pulumi config set --path homestead:operators.certManager existing --stack home",
      ].join("\n"),
    );
    const deployments = [{ ...certManager, namespace: "certs" }];
    const world = { deployments, definitions: ["certificates.cert-manager.io"], lease: "none" as const };
    expect(await check(world, { operators: { certManager: "existing" } })).toBe("missing");
  });

  it("is ours where its namespace says so, and the plugin where it says so itself", async () => {
    const ours = { "app.kubernetes.io/part-of": "homestead" };
    const installed = {
      deployments: [{ ...certManager, namespace: "cert-manager" }],
      namespaces: { "cert-manager": ours },
    };
    expect(await check({ ...installed, lease: "none" })).toBe("missing");
    const plugin = {
      name: "plugin",
      namespace: "cnpg-system",
      image: "ghcr.io/cloudnative-pg/plugin-barman-cloud:v0.14.0",
    };
    const world = (annotations: Record<string, string>): World => ({
      definitions,
      operatorIn: "cnpg-system",
      deployments: [{ ...plugin, annotations }],
      namespaces: { "cnpg-system": {} },
      lease: "none",
    });
    expect(await check(world(ours), existing("install"))).toBe("missing");
    const elses = await check(world({}), existing("install"));
    expect(elses).toContain("somebody else installed barman-cloud plugin v0.14.0");
    expect(elses).toMatch(/mend: +pulumi config set --path homestead:operators.barmanPlugin existing --stack home$/);
    // By its chart's usual name it may be of an update that left no annotation yet: `existing` would delete it.
    expect(await check(world({ "meta.helm.sh/release-name": "plugin-barman-cloud" }), existing("install"))).toMatch(
      /mend: +if an update of this stack installed it \(pulumi stack --show-urns --stack home names plugin-barman-cloud\): kubectl --kubeconfig <file> --context trial -n cnpg-system annotate deployment plugin app\.kubernetes\.io\/part-of=homestead; if not: pulumi config set --path homestead:operators\.barmanPlugin existing --stack home$/,
    );
  });

  it("has left a namespace that an install would collide with", async () => {
    const said = await check({ namespaces: { "cert-manager": {} } });
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain("a cluster without a namespace 'cert-manager' of somebody else's");
    expect(said).toContain(
      "kubectl --kubeconfig <file> --context trial delete namespace cert-manager; if cert-manager is: pulumi config set",
    );
  });

  it("is more than the definitions that a destroy leaves", async () => {
    const left = { definitions: ["certificates.cert-manager.io"], lease: "none" as const };
    expect(await check(left)).toBe("missing");
    const said = await check(left, { operators: { certManager: "existing" } });
    expect(said).toMatch(/^1 fault /);
    expect(said).toContain(
      "cert-manager in the cluster; its definitions are there, as a destroy leaves them, and no Deployment",
    );
    expect(said).toContain("pulumi config set --path homestead:operators.certManager install --stack home");
  });
});

describe("an issuer of one's own", () => {
  const definitions = ["certificates.cert-manager.io"];
  const certificates = (issuerKind: string) => ({ certificates: { kind: "issuer", name: "letsencrpyt", issuerKind } });

  it("is missed where cert-manager is there, and nothing waits for it", async () => {
    const world: World = { definitions, lease: "none", issuers: ["letsencrypt"] };
    expect(await check(world, certificates("ClusterIssuer"))).toBe(
      [
        "1 fault in the configuration of stack 'home'; nothing was changed.",
        '  homestead:certificates.name: "letsencrpyt"',
        "    allowed: the name of a ClusterIssuer of the cluster; there is none of this name",
        "    mend:    kubectl --kubeconfig <file> --context trial get clusterissuers, then make it, or: pulumi config set --path homestead:certificates.name <name> --stack home",
      ].join("\n"),
    );
    expect(await check({ ...world, marker: "home" }, certificates("Issuer"))).toContain(
      "the name of an Issuer in namespace 'homestead'; there is none of this name",
    );
  });

  it("may be there, or yet to come with cert-manager or with the namespace", async () => {
    const there: World = { definitions, lease: "none", issuers: ["letsencrpyt"] };
    expect(await check(there, certificates("ClusterIssuer"))).toBe("missing");
    expect(await check({ lease: "none" }, certificates("ClusterIssuer"))).toBe("missing");
    expect(await check({ definitions, lease: "none" }, certificates("Issuer"))).toBe("missing");
  });
});
