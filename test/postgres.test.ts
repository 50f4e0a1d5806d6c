import { describe, expect, it } from "vitest";
import { clusterSpec, objectStoreSpec } from "../components/postgres";
import type { Beginning } from "../settings";

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
