/** What is known of a site's databases, and what a demotion waits for. */
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import {
  archiveOf,
  clusterName,
  majorOf,
  readToken,
  restoredTo,
  sortDatabases,
  tokenFault,
  tokenOnceStopped,
  untilWritable,
} from "../lib/database";
import type { DatabaseObject } from "../lib/database";
import { fakeCluster } from "./support/fake-cluster";
import { fakeStore } from "./support/fake-store";
import type { FakeStore } from "./support/fake-store";

const image = (version: string) => `ghcr.io/cloudnative-pg/postgresql:${version}-system-trixie`;

const database = (
  name: string,
  archive: string,
  more: Partial<DatabaseObject> = {},
  version = "17.6",
): DatabaseObject => ({
  metadata: { name },
  spec: { imageName: image(version), plugins: [{ parameters: { serverName: archive } }] },
  ...more,
});
const settings = (generation: number, version = "17.6") => ({
  site: "home" as const,
  generation,
  images: { postgres: image(version) },
});

describe("the moment that a database went back to", () => {
  const moment = "2026-11-22T10:00:00Z";
  const asked = { beginning: { kind: "recovery", site: "home", archive: "home-g1", to: moment } } as const;
  const asksNothing = { beginning: { kind: "recovery", site: "home", archive: "home-g1" } } as const;

  it("is what the stack says before there is a database", () => {
    expect(restoredTo(undefined, asked)).toBe(moment);
    expect(restoredTo(undefined, asksNothing)).toBeUndefined();
    expect(restoredTo(undefined, { beginning: { kind: "initdb" } })).toBeUndefined();
  });

  it("is the database's own afterwards, whatever the stack says: restore.to is taken away again", () => {
    const spec = { bootstrap: { recovery: { recoveryTarget: { targetTime: moment } } } };
    expect(restoredTo(database("postgres-g2", "home-g2", { spec }), asksNothing)).toBe(moment);
    expect(restoredTo(database("postgres-g2", "home-g2"), asked)).toBeUndefined();
  });
});

describe("a site's databases", () => {
  const first = database("postgres-g1", "home-g1");
  const second = database("postgres-g2", "home-g2");

  it("are none before the first update; the name is the generation's", () => {
    expect(sortDatabases([], settings(1))).toEqual({ name: "postgres-g1", current: undefined, former: [] });
    expect(clusterName(3)).toBe("postgres-g3");
  });

  it("are the one that writes this generation's archive, and those before it", () => {
    expect(sortDatabases([first], settings(1))).toEqual({ name: "postgres-g1", current: first, former: [] });
    expect(sortDatabases([first, second], settings(2))).toEqual({
      name: "postgres-g2",
      current: second,
      former: [first],
    });
  });

  it("stay beside the one that a raised generation begins", () => {
    expect(sortDatabases([first], settings(2))).toEqual({ name: "postgres-g2", current: undefined, former: [first] });
  });

  it("go on in place under a new major version, which begins another archive", () => {
    expect(sortDatabases([first], settings(2, "18.1"))).toEqual({ name: "postgres-g1", current: first, former: [] });
    // The next update finds the archive's new name.
    const upgraded = database("postgres-g1", "home-g2", {}, "18.1");
    expect(sortDatabases([upgraded], settings(2, "18.1"))).toEqual({
      name: "postgres-g1",
      current: upgraded,
      former: [],
    });
    expect(sortDatabases([upgraded], settings(3, "18.1"))).toMatchObject({ name: "postgres-g3", former: [upgraded] });
  });

  it("do not go on in place over two generations", () => {
    expect(sortDatabases([first], settings(3, "18.1")).current).toBeUndefined();
  });

  it("are not those that are being deleted", () => {
    const leaving = database("postgres-g1", "home-g1", {
      metadata: { name: "postgres-g1", deletionTimestamp: "2026-11-23T08:00:00Z" },
    });
    expect(sortDatabases([leaving], settings(1))).toEqual({ name: "postgres-g1", current: undefined, former: [] });
  });

  it("may write no archive", () => {
    const bare = database("postgres-g1", "home-g1", { spec: {} });
    expect(archiveOf(bare)).toBeUndefined();
    expect(sortDatabases([bare], settings(1))).toEqual({ name: "postgres-g1", current: undefined, former: [bare] });
  });
});

describe("an image's major version", () => {
  it.each([
    [image("17.6"), "17"],
    [`${image("18.1")}@sha256:0123456789abcdef`, "18"],
    ["registry.lan:5000/postgresql:17", "17"],
    ["registry.lan:5000/postgresql", undefined],
    ["registry.lan:5000/postgresql@sha256:362b039f", undefined],
    ["docker.io/lab/postgresql:15", "15"],
    ["postgresql:latest", undefined],
    [undefined, undefined],
  ])("of %s is %s", (name, major) => {
    expect(majorOf(name)).toBe(major);
  });
});

describe("a demotion token", () => {
  /** As CloudNativePG writes it: every value is a text. */
  const token = (content: unknown) => Buffer.from(JSON.stringify(content)).toString("base64");
  const good = token({
    latestCheckpointTimelineID: "3",
    latestCheckpointREDOWALFile: "000000030000000000000012",
    databaseSystemIdentifier: "7427410000000000001",
    latestCheckpointREDOLocation: "0/12000028",
    timeOfLatestCheckpoint: "Mon Nov 23 08:00:00 2026",
    operatorVersion: "1.28.0",
  });
  const follows = (timelineID: number, systemID = "7427410000000000001") =>
    database("postgres-g1", "vps-g1", { status: { timelineID, systemID } });

  it("says of which database it is, and how far that had come", () => {
    expect(readToken(good)).toEqual({ systemId: "7427410000000000001", timeline: 3 });
  });

  it.each([
    ["lost", "lost"],
    ["nothing", ""],
    ["half of one", good.slice(0, 40)],
    ["another text", Buffer.from("null").toString("base64")],
    ["another object", token({ databaseSystemIdentifier: "7427410000000000001" })],
    ["one without its database", token({ latestCheckpointTimelineID: "3" })],
  ])("is not %s", (_what, text) => {
    expect(readToken(text)).toBeUndefined();
    expect(tokenFault(text, follows(3), undefined)).toBe("it is no demotion token");
  });

  it("fits the database that follows as far as it, or not yet as far", () => {
    expect([tokenFault(good, follows(3), undefined), tokenFault(good, follows(2), undefined)]).toEqual([
      undefined,
      undefined,
    ]);
  });

  it("fits a database of which nobody knows yet what it follows", () => {
    expect(tokenFault(good, database("postgres-g1", "vps-g1"), undefined)).toBeUndefined();
    expect(tokenFault(good, undefined, undefined)).toBeUndefined();
  });

  it("is refused when it is another database's", () => {
    expect(tokenFault(good, follows(3, "7427410000000000002"), undefined)).toBe(
      "it is of another database (system 7427410000000000001, this one follows 7427410000000000002)",
    );
  });

  it("is refused when the archive is on a later timeline: a standby does not tell its own", () => {
    const unknown = database("postgres-g1", "vps-g1");
    expect(tokenFault(good, unknown, 4)).toBe(
      "it is stale: it was made on timeline 3, and the database follows timeline 4",
    );
    expect(tokenFault(good, unknown, 3)).toBeUndefined();
  });

  it("is refused when it is of an earlier demotion", () => {
    expect(tokenFault(good, follows(4), undefined)).toBe(
      "it is stale: it was made on timeline 3, and the database follows timeline 4",
    );
  });
});

describe("a database that is to take writes", () => {
  const wanted = image("18.1");
  const pod = (of: string, container = "postgres") => ({
    metadata: { name: "postgres-g1-1" },
    spec: { containers: [{ name: container, image: of }] },
  });
  const upgradeTo = (of: string, failed: number) => ({
    metadata: { name: "postgres-g1-1-major-upgrade" },
    spec: { template: { spec: { containers: [{ name: "major-upgrade", image: of }] } } },
    status: { failed },
  });

  /** What an update says that waits until the time is up, or until it knows better. */
  async function refusal(pods: object[], jobs: object[] = []): Promise<string> {
    const namespaced = "namespaces/homestead";
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    const { kubeconfig } = await fakeCluster({
      others: {
        [`/apis/batch/v1/${namespaced}/jobs`]: () => ({ items: jobs }),
        [`/api/v1/${namespaced}/pods`]: () => {
          clock.mockReturnValue(now + 901_000);
          return { items: pods };
        },
        [`/api/v1/${namespaced}/pods/postgres-g1-1/log`]: () => Object("could not load library") as object,
      },
    });
    const access = { cluster: { kubeconfig, context: "trial" }, namespace: "homestead" };
    try {
      return await untilWritable(access, "postgres-g1", wanted).then(() => "", String);
    } finally {
      clock.mockRestore();
    }
  }
  const late = `writing to the database 'postgres-g1', under ${wanted}: not within 900 s: `;

  it("is waited for while it runs another image, although its Cluster is ready", async () => {
    expect(await refusal([pod(image("17.6"))])).toContain(`${late}it runs ${image("17.6")}`);
  });

  it("is not the pod that upgrades it, nor an attempt that was given up", async () => {
    const given = [upgradeTo(image("19.1"), 1), upgradeTo(wanted, 0)];
    expect(await refusal([pod(wanted, "major-upgrade")], given)).toContain(`${late}it has no primary`);
  });

  it("is not waited for when its upgrade failed, whose last lines are told", async () => {
    const said = await refusal([pod(wanted, "major-upgrade")], [upgradeTo(wanted, 1)]);
    expect(said).toContain(`the upgrade of the database 'postgres-g1' to ${wanted} failed (docs/runbooks/upgrade.md`);
    expect(said).toContain("the last lines of job postgres-g1-1-major-upgrade:");
    expect(said).toContain("could not load library");
  });
});

describe("the output demotionToken", () => {
  const pods = "/api/v1/namespaces/homestead/pods";
  const clusters = "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters";
  const valkey = { metadata: { name: "valkey-0" } };

  /** @param wasActive whether the cluster's database still was the primary when the update began */
  async function demoted(wasActive: boolean, podsThere: () => object[], token?: string, store?: FakeStore) {
    const status = token === undefined ? {} : { demotionToken: token };
    const { kubeconfig } = await fakeCluster({
      others: {
        [pods]: () => ({ items: podsThere() }),
        [clusters]: () => ({ items: [database("postgres-g1", "home-g1", { status })] }),
      },
    });
    const access = { cluster: { kubeconfig, context: "trial" }, namespace: "homestead" };
    const { vault, keys } = store ?? (await fakeStore());
    return tokenOnceStopped(access, "postgres-g1", wasActive, { site: "home", epoch: 1, vault, keys });
  }

  it.each([
    ["an update that demotes", true],
    ["its repetition, when the database has stepped down already", false],
  ])("waits for the end of Valkey's pod: %s", async (_what, wasActive) => {
    let looks = 0;
    expect(await demoted(wasActive, () => ((looks += 1) < 2 ? [valkey] : []), "token")).toBe("token");
    expect(looks).toBe(2);
  });

  it("is empty at once on a standby that never had a Valkey", async () => {
    expect(await demoted(false, () => [])).toBe("");
  });

  const last = "valkey/home/e1/final.rdb";
  it.each<[what: string, says: RegExp | undefined, prepare: (store: FakeStore) => void]>([
    ["nothing where it is there", undefined, (store) => store.put(last, "REDIS0011")],
    [
      "so where it is missing",
      /^home's last snapshot of Valkey did not reach the vault: valkey\/home\/e1\/final\.rdb is not there, or empty; before the other site takes over without it: docs\/runbooks\/switch\.md$/,
      () => undefined,
    ],
    [
      "so where there is only the mark of the epoch's beginning",
      /final\.rdb is not there, or empty; before/,
      (store) => store.put(last, ""),
    ],
    [
      "so where it is of an earlier end of Valkey",
      /final\.rdb is 24 h old, of before it was stopped; before/,
      (store) => store.put(last, "REDIS0011", new Date(Date.now() - 86_400_000)),
    ],
    [
      "so where the vault does not say",
      /^the vault does not say whether Valkey's last snapshot is there: valkey\/home\/e1\/final\.rdb: the store answers 403; before/,
      (store) => (store.fate = () => 403),
    ],
  ])("comes with a look at Valkey's last snapshot, and says %s", async (_what, says, prepare) => {
    const warn = vi.spyOn(pulumi.log, "warn").mockResolvedValue();
    onTestFinished(() => warn.mockRestore());
    const store = await fakeStore();
    prepare(store);
    expect(await demoted(true, () => [], "token", store)).toBe("token");
    expect(warn.mock.calls.flat()).toEqual(says === undefined ? [] : [expect.stringMatching(says)]);
  });

  it("does not look for it on a site that was a standby before", async () => {
    const store = await fakeStore();
    await demoted(false, () => [], undefined, store);
    expect(store.requests).toEqual([]);
  });

  it("says what to do about a pod that does not end", async () => {
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    const later = () => {
      clock.mockReturnValue(now + 601_000);
      return [valkey];
    };
    await expect(demoted(false, later)).rejects.toThrow(
      "the end of Valkey's pod: not within 600 s: 'valkey-0' is still there; if its node is dead, what it held since its last snapshot is lost: kubectl -n homestead delete pod valkey-0 --force",
    );
    clock.mockRestore();
  });
});
