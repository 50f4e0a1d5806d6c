import { execFileSync } from "node:child_process";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import type { Duplex } from "node:stream";
import type { KubernetesObject } from "@kubernetes/client-node";
import { describe, expect, it, onTestFinished } from "vitest";
import { drillCommand, render } from "../cli/drill";
import { endOf, listing, newestOf, newestSegment } from "../lib/archive";
import { outsideOf, portOf } from "../components/isolation";
import { filesPrefix } from "../components/media-copy";
import { compare, countLive, drill, fetchMedia, judgeCopy, judgeIdentity, whatRuns } from "../lib/drill";
import { countQuery, DrillCluster, DrillFailure } from "../lib/drill/cluster";
import { createSharedSecrets, identityFingerprint } from "../lib/identity";
import { firstLease, formatLease } from "../lib/lease/lease";
import { fakeStore } from "./support/fake-store";
import { temporaryFolder } from "./support/folders";
import * as manifests from "../lib/drill/manifests";
import type { DrillArgs } from "../lib/drill/manifests";
import {
  lostSinceBackup,
  missingFromRestored,
  neverEmpty,
  notCompared,
  parseReport,
  span,
} from "../lib/drill/verdicts";
import type { RowCounts } from "../lib/drill/verdicts";
import { kubeClient, Unanswered } from "../lib/kube";
import { onPath } from "../lib/pulumi-cli";
import { UserError } from "../lib/user-error";
import { parseSettings } from "../settings";
import type { Settings } from "../settings";
import { configurationOf } from "./support/configuration";

const args: DrillArgs = {
  settings: parseSettings(configurationOf("home")),
  archive: "home-g1",
  backup: "20261122T230302",
  apiServer: [{ addresses: ["10.43.0.1"], port: 443 }],
  environment: { LOCAL_DOMAIN: "ramble.moe", DB_HOST: "postgres-rw", REDIS_HOST: "valkey", CACHE_REDIS_HOST: "c" },
  secrets: { databasePassword: "p", secretKeyBase: "k" },
  script: "# script",
};
interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  spec: Record<string, unknown>;
  data?: Record<string, string>;
}
const all = () =>
  [
    ...manifests.namespaceObjects(args),
    ...manifests.databaseObjects(args),
    ...manifests.mastodonObjects(args),
    manifests.webObject(args),
  ] as unknown as Manifest[];
const one = (kind: string, name: string) => {
  const found = all().find((object) => object.kind === kind && object.metadata.name === name);
  if (!found) throw new Error(`no ${kind} ${name}`);
  return found;
};

describe("rows lost since the backup", () => {
  const failuresOf = (...counts: Parameters<typeof lostSinceBackup>) => lostSinceBackup(...counts).failures;
  const urgent = "(restore before the backups that still have them expire)";

  it("finds a table that was emptied, however small", () => {
    expect(lostSinceBackup({ statuses: 3 }, { statuses: 0 })).toEqual({
      failures: [`table statuses has 0 rows in the live database and 3 in the backup: 3 lost since ${urgent}`],
      warnings: [],
    });
  });

  it("finds a table that lost more than a fifth and more than ten rows", () => {
    expect(failuresOf({ statuses: 100 }, { statuses: 79 })).toHaveLength(1);
  });

  it("takes what people delete, and growth", () => {
    const nothing = { failures: [], warnings: [] };
    expect(lostSinceBackup({ statuses: 100, follows: 12 }, { statuses: 80, follows: 2 })).toEqual(nothing);
    expect(lostSinceBackup({ statuses: 100 }, { statuses: 400 })).toEqual(nothing);
    expect(lostSinceBackup({ bookmarks: 10, lists: 2 }, { bookmarks: 1, lists: 1 })).toEqual(nothing);
  });

  it("finds a table that is gone, and asks for none that the backup has not", () => {
    expect(failuresOf({ users: 1 }, {})).toEqual(["table users is gone from the live database; the backup has 1 row"]);
    expect(failuresOf({}, { users: 1 })).toEqual([]);
  });

  it("finds any table when many rows are gone, or the table is", () => {
    expect(
      failuresOf({ lists: 11, bookmarks: 40, a_table_of_4_9: 90 }, { a_table_of_4_9: 50, bookmarks: 0, lists: 0 }),
    ).toEqual([
      `table a_table_of_4_9 has 50 rows in the live database and 90 in the backup: 40 lost since ${urgent}`,
      `table bookmarks has 0 rows in the live database and 40 in the backup: 40 lost since ${urgent}`,
      `table lists has 0 rows in the live database and 11 in the backup: 11 lost since ${urgent}`,
    ]);
    expect(failuresOf({ blocks: 300 }, {})).toEqual([
      "table blocks is gone from the live database; the backup has 300 rows",
    ]);
  });

  it("warns of the last few rows of what a person made: they may have taken them back, and may not have", () => {
    const few = { lists: 10, custom_filters: 10, favourites: 10, account_notes: 9, custom_emojis: 0 };
    const none = { lists: 0, custom_filters: 0, favourites: 0, custom_emojis: 0 };
    const emptied = (table: string, had: number) =>
      `table ${table} has 0 rows in the live database and ${had} in the backup: ${had} lost since ${urgent}; if nobody took that back, it is lost`;
    expect(lostSinceBackup(few, none)).toEqual({
      failures: [],
      warnings: [
        "table account_notes is gone from the live database; the backup has 9 rows; if nobody took that back, it is lost",
        emptied("custom_filters", 10),
        emptied("favourites", 10),
        emptied("lists", 10),
      ],
    });
    expect(lostSinceBackup({ accounts: 0, custom_emojis: 0 }, { accounts: 0 })).toEqual({ failures: [], warnings: [] });
  });

  it("warns of a table that a new version of Mastodon may have dropped: its migrations are counted, too", () => {
    const before = { schema_migrations: 500, account_pins: 40 };
    const gone = "table account_pins is gone from the live database; the backup has 40 rows";
    expect(lostSinceBackup(before, { schema_migrations: 503 })).toEqual({
      failures: [],
      warnings: [`${gone}; Mastodon was upgraded in between, and may have dropped it`],
    });
    expect(failuresOf(before, { schema_migrations: 500 })).toEqual([gone]);
    expect(failuresOf({ ...before, statuses: 40 }, { schema_migrations: 503 })).toEqual([
      "table statuses is gone from the live database; the backup has 40 rows",
    ]);
  });

  it("lets Mastodon trim what it trims, but not to nothing where somebody is signed in", () => {
    const before = { notifications: 900, oauth_applications: 40, oauth_access_tokens: 9 };
    const trimmed = lostSinceBackup(before, { notifications: 0, oauth_applications: 2, oauth_access_tokens: 0 });
    expect(trimmed.failures).toEqual([]);
    expect(trimmed.warnings).toEqual([
      `table oauth_access_tokens has 0 rows in the live database and 9 in the backup: 9 lost since ${urgent}; if nobody took that back, it is lost`,
    ]);
  });

  it("leaves out no table without a reason, and none that a server cannot do without", () => {
    expect(Object.entries(notCompared).filter(([, why]) => why.length < 10)).toEqual([]);
    expect(neverEmpty.filter((table) => table in notCompared)).toEqual([]);
    const made = ["mentions", "conversations", "statuses_tags", "settings", "invites", "oauth_applications", "lists"];
    expect(made.filter((table) => table in notCompared)).toEqual([]);
  });
});

describe("rows missing from the restored database", () => {
  const failuresOf = (...counts: Parameters<typeof missingFromRestored>) => missingFromRestored(...counts).failures;

  it("finds a gap, and an empty table", () => {
    expect(failuresOf({ statuses: 50 }, { statuses: 40 })).toEqual([
      "table statuses has 40 rows in the restored database, and the live one had 50",
    ]);
    expect(failuresOf({ users: 1 }, { users: 0 })).toHaveLength(1);
    expect(failuresOf({ users: 1 }, {})).toEqual([
      "table users is not in the restored database; the live one has 1 row",
    ]);
  });

  it("takes what was deleted at that moment, and warns where that was the last row", () => {
    expect(failuresOf({ statuses: 50 }, { statuses: 45 })).toEqual([]);
    expect(failuresOf({ statuses: 10_000 }, { statuses: 9_950 })).toEqual([]);
    expect(missingFromRestored({ bookmarks: 1 }, { bookmarks: 0 })).toEqual({
      failures: [],
      warnings: [
        "table bookmarks has 0 rows in the restored database, and the live one had 1; if nobody took that back, it is lost",
      ],
    });
  });

  it("finds a table of what a person made, with many rows missing or all", () => {
    expect(failuresOf({ favourites: 100, mutes: 6 }, { favourites: 90 })).toEqual([
      "table favourites has 90 rows in the restored database, and the live one had 100",
      "table mutes is not in the restored database; the live one has 6 rows",
    ]);
  });
});

describe("a drill without the live database", () => {
  const whole = { accounts: 3, users: 1, user_roles: 4, statuses: 40, follows: 2, media_attachments: 5, lists: 2 };
  const compared = async (backup: RowCounts, restored: RowCounts, live?: RowCounts) => {
    const rows = live === undefined ? {} : { live };
    const result: Parameters<typeof compare>[1] = { rows, failures: [], warnings: [] };
    await compare({ countRestored: (name) => Promise.resolve(name === "backup" ? backup : restored) }, result);
    return result;
  };

  it("says that nothing live was compared, and why", async () => {
    const result: Parameters<typeof countLive>[2] = { rows: {}, failures: [], warnings: [] };
    const settings = { ...args.settings, namespace: "homestead", archiveInterval: 15, cluster: { context: "home" } };
    const unanswered = { archived: () => Promise.resolve() };
    const dead = () => Promise.reject(new DrillFailure("the database has no primary"));
    await countLive({ ...unanswered, countLive: dead }, settings, result);
    const refused = () => Promise.reject(new Unanswered("list pods -n homestead", "403, pods is forbidden", 403));
    await countLive({ ...unanswered, countLive: refused }, settings, result);
    const nothing = "nothing live was compared, so what the backup lacks of it is not known";
    expect(result).toEqual({
      rows: {},
      failures: [],
      warnings: [
        `${nothing}: the database has no primary. The restored database was compared with the base backup alone`,
        `${nothing}: the user of context 'home' may not list pods -n homestead (the cluster answers 403, pods is forbidden): a drill needs what an update may; kubectl --context home auth can-i list pods -n homestead shows it. The restored database was compared with the base backup alone`,
      ],
    });
  });

  it("compares the restored one with the base backup", async () => {
    expect(await compared(whole, { ...whole, statuses: 60 })).toMatchObject({ failures: [], warnings: [] });
    const { failures, warnings } = await compared(whole, { ...whole, statuses: 0, lists: 0 });
    expect(failures).toEqual([
      "table statuses has 0 rows in the restored database and 40 in the base backup: 40 lost in between",
    ]);
    expect(warnings).toEqual([
      "table lists has 0 rows in the restored database and 2 in the base backup: 2 lost in between; if nobody took that back, it is lost",
    ]);
    const { users: _, ...without } = whole;
    expect((await compared(whole, without)).failures).toEqual([
      "table users is not in the restored database; the base backup has 1 row",
    ]);
  });

  it.each(["silent", "as empty"])(
    "misses what no Mastodon is without where neither of the two has it, and the live database is %s",
    async (answers) => {
      const { follows: _, ...without } = whole;
      const empty = { ...without, statuses: 0, users: 0, media_attachments: 0 };
      const live = answers === "silent" ? undefined : empty;
      expect((await compared(empty, empty, live)).failures).toEqual([
        "table users is empty in both restored databases, and no Mastodon is without its rows",
        "table follows is in neither restored database, and every Mastodon has it",
      ]);
    },
  );
});

/** Postgres does not start for root. */
const owner =
  process.getuid?.() === 0
    ? ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" })))
    : [];

describe.skipIf(onPath("initdb") === undefined)("counting rows", () => {
  it("sees every table but those that are not compared", { timeout: 120_000 }, () => {
    const folder = temporaryFolder();
    const [uid, gid] = owner;
    const run = (program: string, args: string[], input = "") =>
      execFileSync(program, args, { input, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"], uid, gid });
    if (uid !== undefined && gid !== undefined) fs.chownSync(folder, uid, gid);
    const data = path.join(folder, "data");
    run("initdb", ["-D", data, "-U", "drill", "-A", "trust", "--no-sync"]);
    const options = `-c listen_addresses= -c unix_socket_directories=${folder} -c fsync=off`;
    run("pg_ctl", ["-D", data, "-w", "-o", options, "-l", path.join(folder, "log"), "start"]);
    onTestFinished(() => void run("pg_ctl", ["-D", data, "-m", "immediate", "stop"]));
    const psql = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", "drill", "-d", "postgres"];
    const counted = () => JSON.parse(run("psql", psql, `${countQuery};`)) as unknown;
    expect(counted()).toEqual({});
    run(
      "psql",
      psql,
      "CREATE TABLE statuses AS SELECT generate_series(1, 3) AS id; CREATE TABLE notifications (id int); " +
        'CREATE TABLE "Odd name" (id int); CREATE VIEW instances AS SELECT 1;',
    );
    expect(counted()).toEqual({ statuses: 3, "Odd name": 0 });
  });
});

describe("Mastodon's report", () => {
  const report = {
    statuses: 1,
    accounts: 2,
    newestStatusAt: null,
    decrypted: true,
    encryptedValues: 3,
    mediaSample: ["a"],
  };

  it("is found among what Rails prints", () => {
    expect(parseReport(`warning: {old}\n${JSON.stringify(report)}\nbye\n`)).toEqual(report);
  });

  it("is missed with the last line that there was", () => {
    expect(() => parseReport("one\nPG::ConnectionBad\n")).toThrow(
      "Mastodon gave no report; its last line: PG::ConnectionBad",
    );
  });
});

describe("the throwaway namespace", () => {
  it("holds everything, enforces Pod Security restricted, and says whose it is", () => {
    expect(one("Namespace", "homestead-drill").metadata.labels).toMatchObject({
      "homestead/drill": "home",
      "pod-security.kubernetes.io/enforce": "restricted",
    });
    const elsewhere = all().filter(
      ({ kind, metadata }) => kind !== "Namespace" && metadata.namespace !== "homestead-drill",
    );
    expect(elsewhere).toEqual([]);
  });

  it("lets databases reach the vault and the API server, Mastodon nothing but its own two, and both DNS", () => {
    const dns = expect.objectContaining({
      ports: ["UDP", "TCP"].map((protocol) => ({ protocol, port: 53 })),
    }) as unknown;
    expect(one("NetworkPolicy", "default-deny").spec).toEqual({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
    expect(one("NetworkPolicy", "databases").spec.egress).toEqual([
      dns,
      expect.objectContaining({ ports: [8000, 5432].map((port) => ({ protocol: "TCP", port })) }),
      {
        to: outsideOf(args.settings.network),
        ports: [{ protocol: "TCP", port: portOf(args.settings.vault.endpoint) }],
      },
      { to: [{ ipBlock: { cidr: "10.43.0.1/32" } }], ports: [{ protocol: "TCP", port: 443 }] },
    ]);
    expect(one("NetworkPolicy", "mastodon").spec.egress).toContainEqual(dns);
    expect(JSON.stringify(one("NetworkPolicy", "mastodon").spec)).not.toContain("ipBlock");
    expect(one("NetworkPolicy", "valkey").spec).not.toHaveProperty("egress");
  });

  it("lets the operator reach its databases from whatever namespace it is in", () => {
    const operator = {
      namespaceSelector: {},
      podSelector: { matchLabels: { "app.kubernetes.io/name": "cloudnative-pg" } },
    };
    expect(one("NetworkPolicy", "databases").spec.ingress).toContainEqual(
      expect.objectContaining({ from: expect.arrayContaining([operator]) as unknown }),
    );
    expect(JSON.stringify(all())).not.toContain("cnpg-system");
  });

  it("reaches the vault where the site does: by IPv6, and at the private addresses that the stack names", () => {
    const network = {
      families: ["IPv4" as const, "IPv6" as const],
      privateEgress: ["192.168.1.0/24"],
      mastodonPrivateEgress: ["10.9.0.7/32"],
    };
    const settings = {
      ...args.settings,
      network,
      vault: { ...args.settings.vault, endpoint: "https://s3.house.example" },
    };
    const objects = manifests.namespaceObjects({ ...args, settings }) as unknown as Manifest[];
    const policy = objects.find(({ metadata }) => metadata.name === "databases");
    const egress = (policy?.spec.egress ?? []) as { to: unknown[]; ports: unknown }[];
    const vault = egress.find(({ to }) => to.length === 3);
    expect(vault?.to).toEqual(outsideOf(network));
    expect(vault?.to).toHaveLength(3);
    expect(vault?.ports).toEqual([{ protocol: "TCP", port: 443 }]);
  });

  it("restores the newest moment and the base backup as it is, and archives neither", () => {
    for (const name of ["newest", "backup"]) expect(one("Cluster", name).spec).not.toHaveProperty("plugins");
    const recovery = (name: string) => (one("Cluster", name).spec.bootstrap as { recovery: object }).recovery;
    expect(recovery("newest")).not.toHaveProperty("recoveryTarget");
    expect(recovery("backup")).toMatchObject({
      recoveryTarget: { backupID: "20261122T230302", targetImmediate: true },
    });
    expect(one("ObjectStore", "archive").spec.retentionPolicy).toBeUndefined();
  });

  it("gives Mastodon the site's environment, bent to the restored database", () => {
    expect(manifests.drillEnvironment(args.environment)).toEqual({
      LOCAL_DOMAIN: "ramble.moe",
      DB_HOST: "newest-rw",
      DB_PORT: "5432",
      DB_NAME: "mastodon",
      REDIS_HOST: "valkey",
      REDIS_PORT: "6379",
      SMTP_DELIVERY_METHOD: "test",
    });
  });

  it("gives no pod the keys of the media bucket", () => {
    const secrets = { ...args.secrets, mediaAccessKeyId: "media-id", mediaSecretAccessKey: "media-key" };
    expect(JSON.stringify(manifests.mastodonObjects({ ...args, secrets }))).not.toMatch(/media-(id|key)/);
  });
});

describe("an archive", () => {
  const info = (status: string) => `backup_name=x\nend_time=2026-11-22 23:43:26.824845+00:00\nstatus=${status}\n`;

  it("has a base backup only once that is done", () => {
    expect(endOf(info("DONE"))?.toISOString()).toBe("2026-11-22T23:43:26.824Z");
    expect(endOf(info("STARTED"))).toBeUndefined();
    expect(endOf("status=DONE\nend_time=None\n")).toBeUndefined();
  });

  it("is listed with its keys, its folders and where to go on", () => {
    const xml =
      "<ListBucketResult><Prefix>pg/a&amp;b/</Prefix><NextContinuationToken>t=1</NextContinuationToken>" +
      "<Contents><Key>pg/a&amp;b/x</Key><LastModified>2026-11-22T23:49:03Z</LastModified></Contents>" +
      "<CommonPrefixes><Prefix>pg/a&amp;b/base/</Prefix></CommonPrefixes></ListBucketResult>";
    expect(listing(xml, "pg/a&b/")).toEqual({
      keys: [{ key: "pg/a&b/x", modified: new Date("2026-11-22T23:49:03Z") }],
      folders: ["pg/a&b/base/"],
      next: "t=1",
    });
  });

  it("takes neither labels nor histories for segments", () => {
    const key = (name: string, minute: number) => ({
      key: `w/${name}`,
      modified: new Date(Date.UTC(2026, 0, 1, 0, minute)),
    });
    expect(
      newestOf([
        key("000000010000000000000003.gz", 1),
        key("000000010000000000000003.00000028.backup.gz", 3),
        key("00000002.history", 4),
        key("000000020000000000000002.gz", 2),
      ])?.name,
    ).toBe("000000020000000000000002.gz");
    expect(newestOf([])).toBeUndefined();
  });

  it("finds the newest segment after a new major version of Postgres, whose timelines begin again at 1", async () => {
    const store = await fakeStore();
    const wals = "pg/home-g2/wals/";
    const list = (prefix: string, content: string) => {
      const query = new URLSearchParams({ "list-type": "2", delimiter: "/", prefix });
      store.put(`/vault?${query.toString()}`, `<ListBucketResult>${content}</ListBucketResult>`);
    };
    const folders = ["0000000100000000", "0000000100000001", "0000000300000000"].map((name) => `${wals}${name}/`);
    list(wals, folders.map((folder) => `<CommonPrefixes><Prefix>${folder}</Prefix></CommonPrefixes>`).join(""));
    const segment = (name: string, at: string) =>
      list(
        `${wals}${name.slice(0, 16)}/`,
        `<Contents><Key>${wals}${name.slice(0, 16)}/${name}.gz</Key><LastModified>${at}</LastModified></Contents>`,
      );
    // Written by the old version's server as it stopped.
    segment("0000000300000000000000FE", "2026-11-22T23:00:00Z");
    segment("000000010000000100000002", "2026-11-22T23:49:03Z");
    expect(await newestSegment(store.vault, store.keys, "home-g2")).toEqual({
      name: "000000010000000100000002.gz",
      archivedAt: new Date("2026-11-22T23:49:03Z"),
    });
    expect(store.requests.filter((request) => request.includes("0000000100000000"))).toEqual([]);
  });
});

describe("a drill's result", () => {
  const result = {
    site: "home",
    failures: [],
    warnings: ["w"],
    archive: "home-g1",
    backup: { id: "b", endedAt: "" },
    rows: { live: { users: 1 }, restored: { users: 1 }, backup: { users: 1 } },
    newestRow: { at: "2026-11-23T00:01:07.905Z", ageSeconds: 130 },
    decryptedValues: 2,
    mediaFetched: 5,
    seconds: { restore: 85, boot: 15, total: 131 },
  };

  it("is told in a few lines", () => {
    const text = render(result);
    expect(text).toContain("newest row    2026-11-23T00:01:07.905Z, 2 min old");
    expect(text).toContain("took          2 min (restore 85 s, Mastodon 15 s)");
    expect(text).toContain("warning       w");
    expect(text.split("\n").at(-1)).toBe("this backup restores");
    expect(text).toMatch(/^│ users +│ 1 +│ 1 +│ 1 +│$/m);
    expect(text).not.toContain("bookmarks");
  });

  it("says how old the copy of a media volume is", () => {
    const mediaCopy = { at: "2026-11-23T00:01:07.905Z", ageSeconds: 900 };
    expect(render({ ...result, mediaCopy })).toContain("media copy    15 min old\n");
    expect(render(result)).not.toContain("media copy");
  });

  it("shows of other tables those that have fewer rows somewhere, and counts the rest", () => {
    const backup = { users: 1, lists: 4, mentions: 7, tags: 0, mutes: 2 };
    const rows = { backup, restored: { ...backup, lists: 5 }, live: { ...backup, lists: 6, mentions: 6 } };
    const text = render({ ...result, rows });
    expect(text).toMatch(/^│ lists +│ 6 +│ 5 +│ 4 +│$/m);
    expect(text).toMatch(/^│ mentions +│ 6 +│ 7 +│ 7 +│$/m);
    expect(text).toContain("\nand 1 other table, with no row less than before\n");
    expect(text).not.toMatch(/tags|mutes/);
  });

  it("says that nothing live was compared", () => {
    const { live: _, ...rows } = result.rows;
    expect(
      render({ ...result, rows })
        .split("\n")
        .at(-1),
    ).toBe("this backup restores, as far as it shows without the live database");
  });

  it("does not praise a backup that failed", () => {
    const text = render({ ...result, failures: ["a", "b"], newestRow: undefined, seconds: { total: 1 } });
    expect(text).not.toContain("this backup restores");
    expect(text.split("\n").at(-1)).toBe("failures: 2");
  });

  it.each([
    [45, "45 s"],
    [130, "2 min"],
    [12_000, "3 h 20 min"],
    [187_200, "2 d 4 h"],
  ])("says %i seconds as %s", (seconds, text) => {
    expect(span(seconds)).toBe(text);
  });
});

/** How an API server lets nobody into a pod. */
const turnedAway = (code: number) => (_request: http.IncomingMessage, socket: Duplex) =>
  void socket.end(`HTTP/1.1 ${code} ${http.STATUS_CODES[code] ?? ""}\r\ncontent-length: 0\r\n\r\n`);

/**
 * A stack whose cluster is a small API server of ours.
 *
 * @param answer undefined: there is no such thing
 * @param exec what happens to who wants into a pod
 */
async function stackOn(
  answer: (request: string) => { code: number; body: object } | undefined,
  exec: (request: http.IncomingMessage, socket: Duplex) => void = turnedAway(403),
) {
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    const what = `${request.method} ${new URL(request.url ?? "/", "http://cluster").pathname}`;
    asked.push(what);
    const { code, body } = answer(what) ?? { code: 404, body: { kind: "Status", message: "not found" } };
    response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  server.on("upgrade", exec);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const cluster = clusterAt(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return { cluster, asked, ask: `kubectl --kubeconfig ${cluster.kubeconfig} --context home` };
}

function clusterAt(address: string): { context: string; kubeconfig: string } {
  const kubeconfig = path.join(temporaryFolder(), "config");
  fs.writeFileSync(
    kubeconfig,
    JSON.stringify({
      clusters: [{ name: "c", cluster: { server: address, "insecure-skip-tls-verify": true } }],
      users: [{ name: "u", user: {} }],
      contexts: [{ name: "home", context: { cluster: "c", user: "u" } }],
    }),
  );
  return { context: "home", kubeconfig };
}

/** A vault in which the archive `home-g1` has the base backup `b`. @param info more lines of its `backup.info` */
async function storeWithBackup(info = "") {
  const store = await fakeStore();
  const base = "pg/home-g1/base/";
  const list = new URLSearchParams({ "list-type": "2", delimiter: "/", prefix: base }).toString();
  store.put(
    `/vault?${list}`,
    `<ListBucketResult><CommonPrefixes><Prefix>${base}b/</Prefix></CommonPrefixes></ListBucketResult>`,
  );
  store.put(`${base}b/backup.info`, `status=DONE\nend_time=2026-11-22 23:43:26.824845+00:00\n${info}`);
  const secrets = { vaultAccessKeyId: store.keys.accessKeyId, vaultSecretAccessKey: store.keys.secretAccessKey };
  return { vault: { ...store.vault, bucket: "vault" }, secrets };
}

const forbidden = (message: string) => ({ code: 403, body: { kind: "Status", message } });
const quietly = { progress: () => undefined, signal: new AbortController().signal };

describe("a cluster that does not answer", () => {
  it("is named, with what asks it: fetch failed says neither", async () => {
    const cluster = clusterAt("http://127.0.0.1:1");
    const told = drill({ settings: parseSettings(configurationOf("home", { cluster })), secrets: {} }, quietly);
    await expect(told).rejects.toThrow(
      new RegExp(
        `^the cluster of context 'home' does not answer \\((?!fetch failed).*get namespaces/homestead-drill: (?!fetch failed).+\\): kubectl --kubeconfig ${cluster.kubeconfig} --context home get namespaces, then the same again; npx homestead doctor home says more$`,
      ),
    );
  });

  it("is named with what mends it, where this machine has no kubeconfig or context for it", async () => {
    const drilled = (cluster: { context: string; kubeconfig: string }) =>
      drill({ settings: parseSettings(configurationOf("home", { cluster })), secrets: {} }, quietly);
    const { kubeconfig } = clusterAt("http://127.0.0.1:1");
    await expect(drilled({ context: "home", kubeconfig: `${kubeconfig}.gone` })).rejects.toThrow(
      new UserError(
        `kubeconfig ${kubeconfig}.gone does not exist: put the file there, or: pulumi config set --path homestead:cluster.kubeconfig <file> --stack home`,
      ),
    );
    await expect(drilled({ context: "other", kubeconfig })).rejects.toThrow(
      new UserError(
        `kubeconfig ${kubeconfig} has no context 'other'; it has home: pulumi config set --path homestead:cluster.context <context> --stack home`,
      ),
    );
  });

  it("is named with the right that its user lacks, and with what shows it", async () => {
    const { cluster, ask } = await stackOn(() => forbidden('namespaces "homestead-drill" is forbidden'));
    const told = drill({ settings: parseSettings(configurationOf("home", { cluster })), secrets: {} }, quietly);
    await expect(told).rejects.toThrow(
      new UserError(
        `the user of context 'home' may not get namespaces/homestead-drill (the cluster answers 403, namespaces "homestead-drill" is forbidden): a drill needs what an update may; ${ask} auth can-i get namespaces/homestead-drill shows it`,
      ),
    );
  });

  it("ends a drill midway with one line: what was found before is not lost", async () => {
    const { vault, secrets } = await storeWithBackup();
    const { cluster, ask } = await stackOn((request) =>
      request.endsWith("/configmaps/mastodon-env") ? forbidden("no") : undefined,
    );
    const settings = parseSettings(configurationOf("home", { cluster, vault }));
    const result = await drill({ settings, secrets }, quietly);
    expect(result.backup?.id).toBe("b");
    expect(result.failures).toEqual([
      `the user of context 'home' may not get configmaps/mastodon-env -n homestead (the cluster answers 403, no): a drill needs what an update may; ${ask} auth can-i get configmaps/mastodon-env -n homestead shows it`,
    ]);
  });

  it("is named when it lets nobody into a pod, whose client has no words for it", async () => {
    const { cluster } = await stackOn(withPrimary);
    const asked = new DrillCluster(kubeClient(cluster), quietly.signal).countRestored("newest");
    await expect(asked).rejects.toThrow(
      new Unanswered("create pods --subresource=exec -n homestead-drill", "403, Forbidden", 403),
    );
  });

  it("is asked for each object by its kind, as kubectl auth can-i takes it", async () => {
    const { cluster } = await stackOn((request) =>
      request === "GET /apis/networking.k8s.io/v1"
        ? { code: 200, body: { resources: [{ kind: "NetworkPolicy", name: "networkpolicies", namespaced: true }] } }
        : forbidden("no"),
    );
    const policy = all()
      .filter(({ kind }) => kind === "NetworkPolicy")
      .slice(0, 1) as unknown as KubernetesObject[];
    await expect(new DrillCluster(kubeClient(cluster), quietly.signal).create(policy)).rejects.toThrow(
      new Unanswered("create networkpolicies.networking.k8s.io -n homestead-drill", "403, no", 403),
    );
  });
});

/** The pods of a cluster whose databases are there. */
const withPrimary = (request: string) =>
  request.endsWith("/pods") ? { code: 200, body: { items: [{ metadata: { name: "newest-1" } }] } } : undefined;
const failing = (code: number) => ({ code, body: { kind: "Status", message: "etcd" } });

describe("a cluster that fails for a moment", () => {
  const handsIn = (cluster: Settings["cluster"]) =>
    new DrillCluster(kubeClient(cluster), quietly.signal, { seconds: 20, tries: 3, pause: 0.01 });
  /** Fails so many times, and refuses after that: how often it was asked shows in what comes out. */
  const failsFirst = (times: number) => {
    let asked = 0;
    return (request: http.IncomingMessage, socket: Duplex) => turnedAway(++asked > times ? 403 : 500)(request, socket);
  };

  it("is asked for its rows again", async () => {
    const { cluster } = await stackOn(withPrimary, failsFirst(2));
    const asked = handsIn(cluster).countRestored("newest");
    await expect(asked).rejects.toThrow("create pods --subresource=exec -n homestead-drill: 403, Forbidden");
  });

  it("is not asked for ever", async () => {
    const { cluster } = await stackOn(withPrimary, turnedAway(500));
    const asked = handsIn(cluster).countRestored("newest");
    await expect(asked).rejects.toThrow(
      new DrillFailure("the restored database 'newest' cannot be asked: newest-1: Unexpected server response: 500"),
    );
  });

  it("is waited for by who waits for WAL, and a database without a primary too", async () => {
    let looks = 0;
    const { cluster } = await stackOn(
      (request) =>
        request.endsWith("/pods") && ++looks <= 3 ? { code: 200, body: { items: [] } } : withPrimary(request),
      failsFirst(4),
    );
    const drill = handsIn(cluster);
    await expect(drill.archived("homestead", "000000010000000000000003", 60)).rejects.toThrow("403, Forbidden");
  });

  it("may have made what it was told to, though its answer was lost", async () => {
    let made = 0;
    const { cluster } = await stackOn((request) => {
      if (request === "GET /api/v1")
        return { code: 200, body: { resources: [{ kind: "Namespace", name: "namespaces" }] } };
      return request.startsWith("POST") ? failing(++made === 1 ? 500 : 409) : undefined;
    });
    const drill = handsIn(cluster);
    const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: "homestead-drill" } };
    await drill.create([namespace]);
    // Somebody else's is another thing.
    await expect(drill.create([namespace])).rejects.toThrow("create namespaces: 409, etcd");
  });

  /** A namespace that is there when it is first looked for. @param later what is said of it after it was deleted */
  const leaving = (later: (look: number) => { code: number; body: object } | undefined) => {
    let looks = 0;
    return stackOn((request) => {
      if (request === "GET /api/v1/persistentvolumes") return { code: 200, body: { items: [] } };
      if (request.startsWith("DELETE")) return { code: 200, body: {} };
      if (!request.endsWith("/namespaces/homestead-drill")) return undefined;
      return ++looks === 1
        ? { code: 200, body: { metadata: { labels: { "homestead/drill": "home" } } } }
        : later(looks);
    });
  };

  it("is waited for while the namespace goes", async () => {
    const { cluster } = await leaving((look) => (look < 8 ? failing(look % 2 === 0 ? 429 : 500) : undefined));
    expect(await handsIn(cluster).cleanUp(60)).toBe(true);
  });

  it("is not waited for longer than the namespace, nor where it refuses", async () => {
    for (const code of [500, 403]) {
      const { cluster } = await leaving(() => failing(code));
      const gone = handsIn(cluster).cleanUp(code === 403 ? 60 : 1);
      await expect(gone).rejects.toThrow(new Unanswered("get namespaces/homestead-drill", `${code}, etcd`, code));
    }
  });
});

describe("a drill that is interrupted", () => {
  it("waits for no count, and leaves no connection that the program would wait for", async () => {
    let closed: Promise<unknown> = Promise.reject(new Error("nobody asked"));
    closed.catch(() => undefined);
    const controller = new AbortController();
    const { cluster } = await stackOn(withPrimary, (request, socket) => {
      closed = new Promise((resolve) => socket.on("end", () => resolve(socket.end())));
      const accept = crypto
        .createHash("sha1")
        .update(`${request.headers["sec-websocket-key"] ?? ""}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest("base64");
      const protocol = request.headers["sec-websocket-protocol"]?.split(",")[0] ?? "";
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\nsec-websocket-protocol: ${protocol}\r\n\r\n`,
      );
      // The statements.
      socket.once("data", () => controller.abort(new Error("interrupted")));
    });
    const count = new DrillCluster(kubeClient(cluster), controller.signal).countRestored("newest");
    await expect(count).rejects.toThrow(/^interrupted$/);
    await closed;
  });
});

describe("what a drill restores", () => {
  const image = (name: string) => `registry.example/${name}`;
  const containers = [{ name: "mastodon-web", image: image("mastodon:v4.5.3") }];
  const web = { spec: { template: { spec: { containers } } } };
  const database = (imageName: string) => ({
    metadata: { name: "postgres-g1" },
    spec: { imageName, plugins: [{ parameters: { serverName: "home-g1" } }] },
  });
  /** A stack with a base backup of Postgres 17, and what runs on its cluster. */
  const stackWith = async (runs: { web?: object; databases?: object[] }, postgres: string, generation = 1) => {
    const { vault, secrets } = await storeWithBackup("version=170006\n");
    const { cluster, asked } = await stackOn((request) => {
      if (request.endsWith("/deployments/mastodon-web")) return runs.web && { code: 200, body: runs.web };
      if (request.endsWith("/clusters")) return { code: 200, body: { items: runs.databases ?? [] } };
      return undefined;
    });
    const images = { mastodon: image("mastodon:v4.6.5"), postgres };
    const generations = { home: generation, vps: 1 };
    const settings = parseSettings(configurationOf("home", { cluster, vault, images, generations }));
    const hands = new DrillCluster(kubeClient(cluster), quietly.signal);
    return { site: { settings, secrets }, hands, asked };
  };

  it("is what runs, with its images: what is merged and not applied yet says nothing of a backup", async () => {
    const databases = [database(image("postgresql:17.6"))];
    const { site, hands } = await stackWith({ web, databases }, image("postgresql:17.9"));
    expect(await whatRuns(hands, site.settings)).toEqual({
      archive: "home-g1",
      images: { ...site.settings.images, mastodon: image("mastodon:v4.5.3"), postgres: image("postgresql:17.6") },
    });
    // A new major version of Postgres comes with the number of an archive that nothing is in yet.
    const major = await stackWith({ web, databases }, image("postgresql:18.1"), 2);
    expect(await whatRuns(major.hands, major.site.settings)).toMatchObject({
      archive: "home-g1",
      images: { postgres: image("postgresql:17.6") },
    });
  });

  it("is what the stack says where nothing runs", async () => {
    const { site, hands } = await stackWith({}, image("postgresql:17.9"));
    expect(await whatRuns(hands, site.settings)).toEqual({ archive: "home-g1", images: site.settings.images });
  });

  it("is not tried with another major version of Postgres than the backup's: that it fails says nothing of it", async () => {
    const { site, asked } = await stackWith({ web }, image("postgresql:18.1"));
    await expect(drill(site, quietly)).rejects.toThrow(
      new UserError(
        `the base backup b in home-g1 is of Postgres 17, and the image to restore it with is ${image("postgresql:18.1")}: no other major version reads its files. Set postgres in versions.ts to the one that ran (git history; pulumi stack output images --stack home)`,
      ),
    );
    expect(asked.filter((request) => request.startsWith("POST"))).toEqual([]);
  });
});

describe("a clean-up that fails", () => {
  it("loses nothing of what was found, and says how to clean up", async () => {
    const store = await fakeStore();
    store.put(
      "/vault?list-type=2&delimiter=%2F&prefix=pg%2Fhome-g1%2Fbase%2F",
      "<ListBucketResult></ListBucketResult>",
    );
    let looks = 0;
    const { cluster, ask } = await stackOn((request) =>
      request === "GET /api/v1/namespaces/homestead-drill" && ++looks > 1 ? forbidden("no") : undefined,
    );
    const settings = parseSettings(configurationOf("home", { cluster, vault: { ...store.vault, bucket: "vault" } }));
    const secrets = { vaultAccessKeyId: store.keys.accessKeyId, vaultSecretAccessKey: store.keys.secretAccessKey };
    const { failures } = await drill({ settings, secrets }, quietly);
    expect(failures).toEqual([
      "the archive home-g1 in bucket 'vault' has no finished base backup",
      `the drill's namespace, with its copies of the database, is not cleaned up: the user of context 'home' may not get namespaces/homestead-drill (the cluster answers 403, no): a drill needs what an update may; ${ask} auth can-i get namespaces/homestead-drill shows it. To delete it: ${ask} delete namespace homestead-drill`,
    ]);
  });

  it("is said beside why the drill ended", async () => {
    let looks = 0;
    const { cluster, ask } = await stackOn((request) =>
      request === "GET /api/v1/namespaces/homestead-drill" && ++looks > 1
        ? { code: 500, body: { message: "etcd" } }
        : undefined,
    );
    const controller = new AbortController();
    controller.abort(new Error("interrupted"));
    const settings = parseSettings(configurationOf("home", { cluster, vault: (await fakeStore()).vault }));
    const told = drill({ settings, secrets: {} }, { ...quietly, signal: controller.signal });
    await expect(told).rejects.toThrow(
      `; the drill's namespace, with its copies of the database, is not cleaned up: the cluster of context 'home' answers 500, etcd, asked to get namespaces/homestead-drill. To delete it: ${ask} delete namespace homestead-drill`,
    );
  });
});

describe("the sample of media", () => {
  const path = "media_attachments/files/115/original/a.png";
  const onVolume = `/opt/mastodon/public/system/${path}`;
  const fetched = async (kind: "bucket" | "volume", sample: string[], stored: string) => {
    const store = await fakeStore();
    store.put(stored, "a picture");
    const media = kind === "volume" ? { kind } : { kind, ...store.vault };
    const secrets = { mediaAccessKeyId: "id", mediaSecretAccessKey: "secret" };
    const result: Parameters<typeof fetchMedia>[2] = { failures: [], warnings: [] };
    await fetchMedia({ settings: { media, vault: store.vault }, secrets }, sample, result);
    return result;
  };

  it("is fetched from the media bucket, or from where the vault has the copy of a volume", async () => {
    expect(await fetched("bucket", [path], path)).toEqual({ failures: [], warnings: [], mediaFetched: 1 });
    expect(await fetched("volume", [onVolume], `${filesPrefix}${path}`)).toEqual({
      failures: [],
      warnings: [],
      mediaFetched: 1,
    });
  });

  it("is missed with its key", async () => {
    expect((await fetched("volume", [onVolume], path)).failures).toEqual([
      `upload media/files/${path} is not in bucket 'vault': 404`,
    ]);
  });

  it("may be empty, which is no failure", async () => {
    expect(await fetched("volume", [], path)).toEqual({
      failures: [],
      warnings: ["the database knows of no uploads that the volume's copy should have, so none was fetched"],
    });
  });

  it("is of what the copy of a volume must have by now", () => {
    const job = (extra: Partial<DrillArgs>) => JSON.stringify(manifests.mastodonObjects({ ...args, ...extra }));
    expect(job({ mediaWrittenBefore: new Date(Date.UTC(2026, 10, 23)) })).toContain(
      '"env":[{"name":"MEDIA_WRITTEN_BEFORE","value":"2026-11-23T00:00:00.000Z"}]',
    );
    expect(job({})).not.toContain("MEDIA_WRITTEN_BEFORE");
  });
});

describe("the copy of a media volume", () => {
  const now = new Date("2026-11-23T08:00:00Z");
  const hours = (age: number) => new Date(now.getTime() - age * 3_600_000);
  const judged = (copied: Date | undefined) => {
    const result: Parameters<typeof judgeCopy>[2] = { failures: [], warnings: [] };
    judgeCopy({ site: "home", vault: { endpoint: "", region: "", bucket: "vault" } }, { copied, now }, result);
    return result;
  };

  it("is as old as homestead status takes it", () => {
    expect(judged(hours(0.25))).toEqual({
      failures: [],
      warnings: [],
      mediaCopy: { at: "2026-11-23T07:45:00.000Z", ageSeconds: 900 },
    });
    const old = (age: string) =>
      `the media volume's last whole copy is ${age} old: of what was uploaded since, the vault may have nothing`;
    expect(judged(hours(3))).toMatchObject({ failures: [], warnings: [old("3 h")] });
    expect(judged(hours(24))).toMatchObject({ failures: [old("24 h")], warnings: [] });
  });

  it("is missed", () => {
    expect(judged(undefined)).toEqual({
      failures: [
        "media/copied-home is not in bucket 'vault', or not for these keys: the media volume was never copied whole",
      ],
      warnings: [],
    });
  });
});

describe("the identity", () => {
  const identity = createSharedSecrets();
  const fingerprint = identityFingerprint(identity);
  const lease = formatLease(firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint }, 600, "w"));

  /** What a drill says of the identity of stack `home`. */
  const judged = async (
    own: string,
    {
      encryptedValues = 2,
      decrypted = true,
      kind = "vault",
      stored = lease,
    }: { encryptedValues?: number; decrypted?: boolean; kind?: "vault" | "none"; stored?: typeof lease } = {},
  ) => {
    const store = await fakeStore();
    if (stored !== "") store.put("lease.json", stored);
    const result: Parameters<typeof judgeIdentity>[3] = { site: "home", failures: [], warnings: [] };
    const settings = { vault: store.vault, lease: kind, fingerprint: own };
    await judgeIdentity(settings, store.keys, { decrypted, encryptedValues }, result);
    return result;
  };

  it("is the one that the lease names", async () => {
    expect(await judged(fingerprint)).toEqual({ site: "home", failures: [], warnings: [], decryptedValues: 2 });
  });

  it.each([0, 2])("fails with a wrong key that opens all %i values: none of them needs it", async (encryptedValues) => {
    for (const key of ["activeRecordPrimaryKey", "activeRecordDeterministicKey", "activeRecordKeyDerivationSalt"]) {
      const other = identityFingerprint({ ...identity, [key]: "x".repeat(32) });
      const { failures, warnings } = await judged(other, { encryptedValues });
      expect(failures).toEqual([
        `the identity of stack home is ${other}, and the lease is of ${fingerprint}: one of its keys at least is not the one that the server is run with (npx homestead identity verify)`,
      ]);
      expect(warnings).toEqual([]);
    }
  });

  it("fails once where it does not open what is encrypted", async () => {
    expect(await judged("ffff", { decrypted: false })).toEqual({
      site: "home",
      failures: [
        "the Active Record keys of stack home do not open what is encrypted in the restored database: this is not the identity that wrote it",
      ],
      warnings: [],
    });
  });

  it("fails where the lease cannot be read: what is not compared may be wrong", async () => {
    const { failures } = await judged(fingerprint, { stored: "{}" });
    expect(failures).toEqual([expect.stringMatching(/^the identity of stack home cannot be compared: .+/)]);
  });

  it("is known by the lease alone where nothing is encrypted, and that is said", async () => {
    expect((await judged(fingerprint, { encryptedValues: 0 })).warnings).toEqual([
      "nothing in the database is encrypted, so the keys were not tried; the identity has the fingerprint that the lease names",
    ]);
  });

  it("is not known where there is no lease, and that is said", async () => {
    const says = async (encryptedValues: number, stored: string) =>
      (await judged("ffff", { encryptedValues, stored, kind: stored === "" ? "vault" : "none" })).warnings;
    expect(await says(0, lease)).toEqual([
      "nothing in the database is encrypted, so the keys were not tried: there is no lease to compare the identity with",
    ]);
    expect(await says(2, "")).toEqual([
      "keys that nothing in the database is encrypted with were not tried: there is no lease to compare the identity with",
    ]);
  });
});

describe("the command's help", () => {
  it("says what the namespace reaches, which is more than nothing", () => {
    expect(drillCommand().description()).toContain(
      "Mastodon reaches nothing there but the restored database and an empty Valkey; the databases reach what the site's own do: DNS, the API server, and the vault's port at every public address and at those of network.privateEgress.",
    );
  });
});
