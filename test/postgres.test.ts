import { describe, expect, it } from "vitest";
import { clusterSpec, objectStoreSpec } from "../components/postgres";
import { parseSettings } from "../settings";
import type { Beginning } from "../settings";
import { configurationOf } from "./support/configuration";

type Args = Parameters<typeof clusterSpec>[0];

const spec = (change: Partial<Args> = {}) =>
  clusterSpec({
    site: "home",
    activeSite: "home",
    otherSite: "vps",
    generations: { home: 1, vps: 1 },
    beginning: { kind: "initdb" },
    images: { postgres: "ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie" } as Args["images"],
    storage: { kind: "local", databases: "local-path" },
    sizes: { database: "10Gi", queue: "2Gi", objectStore: "10Gi", media: "50Gi" },
    archiveInterval: 15,
    ...change,
  });
const recovery = (archive: string, site: "home" | "vps", to?: string): Beginning => ({
  kind: "recovery",
  site,
  archive,
  ...(to === undefined ? {} : { to }),
});

describe("clusterSpec", () => {
  it("names database, owner and the owner's secret, so that the role exists by construction", () => {
    expect(spec().bootstrap).toEqual({
      initdb: {
        database: "mastodon",
        owner: "mastodon",
        secret: { name: "postgres-owner" },
        encoding: "UTF8",
        localeCollate: "C",
        localeCType: "C.UTF-8",
      },
    });
  });

  it("archives from the first day, under a name that carries the generation", () => {
    expect(spec({ generations: { home: 3, vps: 1 } }).plugins).toEqual([
      {
        name: "barman-cloud.cloudnative-pg.io",
        enabled: true,
        isWALArchiver: true,
        parameters: { barmanObjectName: "pg-home", serverName: "home-g3" },
      },
    ]);
  });

  it("names the same two archives on both sites", () => {
    const vps = spec({ site: "vps", otherSite: "home", beginning: recovery("home-g1", "home") });
    expect(vps.externalClusters).toEqual(spec().externalClusters);
    expect(vps.externalClusters.map((c) => c.plugin.parameters.serverName)).toEqual(["home-g1", "vps-g1"]);
  });

  it("follows the active site and is followed when it is the active one", () => {
    expect(spec().replica).toEqual({ self: "home", primary: "home", source: "vps" });
    expect(spec({ site: "vps", otherSite: "home", beginning: recovery("home-g1", "home") }).replica).toEqual({
      self: "vps",
      primary: "home",
      source: "home",
    });
  });

  it("begins a standby from the active site's archive", () => {
    const standby = spec({ site: "vps", otherSite: "home", beginning: recovery("home-g1", "home") });
    expect(standby.bootstrap.recovery).toMatchObject({ source: "home", database: "mastodon", owner: "mastodon" });
    expect(standby.bootstrap).not.toHaveProperty("initdb");
  });

  it("begins a restored site from its own last generation, which is a source of its own", () => {
    const restored = spec({
      generations: { home: 2, vps: 1 },
      beginning: recovery("home-g1", "home"),
    });
    expect(restored.bootstrap.recovery).toMatchObject({ source: "home-g1" });
    expect(restored.externalClusters).toContainEqual({
      name: "home-g1",
      plugin: {
        name: "barman-cloud.cloudnative-pg.io",
        enabled: true,
        isWALArchiver: false,
        parameters: { barmanObjectName: "pg-home", serverName: "home-g1" },
      },
    });
    // What it writes is another archive: none is ever written over.
    expect(restored.plugins[0]?.parameters.serverName).toBe("home-g2");
  });

  describe("of a site that was restored from home-g1", () => {
    // CloudNativePG looks at every change of a Cluster whether what it began from is in the list, years later too.
    const begun = { recovery: { source: "home-g1", database: "mastodon", owner: "mastodon" } };
    const generations = { home: 2, vps: 1 };
    const later = (changes: Record<string, unknown>) =>
      clusterSpec({ ...parseSettings(configurationOf("home", { generations, ...changes })), begun });
    it.each<[string, Record<string, unknown>]>([
      ["stays as it is", {}],
      ["is handed over to the other site", { activeSite: "vps", epoch: 2 }],
      ["says that nobody else is active, by a new vault", { promotionToken: "dead" }],
      ["takes over again", { epoch: 3, promotionToken: "lost" }],
      ["was restored in a second try, by a word that is taken back", { generations: { home: 3, vps: 1 } }],
      ["gets a new major version of Postgres, in place", { generations: { home: 3, vps: 1 } }],
    ])("goes on naming that archive when it %s", (_what, changes) => {
      const { bootstrap, externalClusters } = later(changes);
      expect(bootstrap).toBe(begun);
      expect(externalClusters.map(({ name }) => name)).toEqual(["home", "vps", "home-g1"]);
      expect(externalClusters.at(-1)?.plugin).toEqual({
        name: "barman-cloud.cloudnative-pg.io",
        enabled: true,
        isWALArchiver: false,
        parameters: { barmanObjectName: "pg-home", serverName: "home-g1" },
      });
    });
  });

  it("keeps the beginning of a database that is there, whatever a new one would begin from today", () => {
    // After a `destroy`, which keeps it, it is said to the Cluster again.
    const initdb = { database: "mastodon", owner: "mastodon", dataChecksums: true };
    const upgraded = spec({
      generations: { home: 2, vps: 1 },
      beginning: recovery("home-g1", "home"),
      begun: { initdb },
    });
    expect(upgraded.bootstrap).toEqual({ initdb });
    expect(upgraded.externalClusters.map(({ name }) => name)).toEqual(["home", "vps"]);
    // The other site, which followed and may write by now.
    const vps = spec({ site: "vps", otherSite: "home", begun: { recovery: { source: "home" } } });
    expect(vps.externalClusters.map(({ name }) => name)).toEqual(["home", "vps"]);
  });

  it("recovers to a moment when one is given", () => {
    const moment = "2026-11-22T10:00:00Z";
    expect(spec({ beginning: recovery("home-g1", "home", moment) }).bootstrap.recovery).toMatchObject({
      recoveryTarget: { targetTime: moment },
    });
  });

  it("says nothing of replicas where there is no other site", () => {
    const dev = spec({
      site: "dev",
      activeSite: "dev",
      otherSite: undefined,
      generations: { dev: 1 },
    });
    expect(dev).not.toHaveProperty("replica");
    expect(dev.externalClusters.map((c) => c.name)).toEqual(["dev"]);
  });

  it("is patient on a disk it should be suspicious of", () => {
    expect(spec().livenessProbeTimeout).toBe(120);
    expect(spec({ storage: { kind: "nfs", databases: "nfs-client" } }).livenessProbeTimeout).toBe(600);
  });

  it("archives at the interval that a failover may lose", () => {
    expect(spec({ archiveInterval: 60 }).postgresql.parameters.archive_timeout).toBe("60s");
  });
});

describe("objectStoreSpec", () => {
  const store = objectStoreSpec({ endpoint: "https://s3.example.net", region: "eu", bucket: "vault" });

  it("leaves the server name to the plugin's parameters", () => {
    expect(store.configuration).not.toHaveProperty("serverName");
    expect(store.configuration.destinationPath).toBe("s3://vault/pg");
  });

  it("gives the sidecar the memory a base backup needs", () => {
    expect(store.instanceSidecarConfiguration.resources.limits.memory).toBe("512Mi");
  });

  it("switches off the checksums that S3-compatible stores refuse", () => {
    expect(store.instanceSidecarConfiguration.env).toEqual([
      { name: "AWS_REQUEST_CHECKSUM_CALCULATION", value: "when_required" },
      { name: "AWS_RESPONSE_CHECKSUM_VALIDATION", value: "when_required" },
    ]);
  });
});
