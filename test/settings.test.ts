import * as fs from "node:fs";
import * as path from "node:path";
import * as tls from "node:tls";
import * as pulumi from "@pulumi/pulumi";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as versions from "../versions";
import { folderLimit } from "../lib/blog-folder";
import { doctorNamespace } from "../lib/doctor/disk";
import { drillNamespace } from "../lib/drill/manifests";
import { createSharedSecrets, identityFingerprint } from "../lib/identity";
import { placeholderSecrets } from "../lib/plan/placeholders";
import {
  SettingsError,
  formatFaults,
  nearest,
  parseSettings,
  readStackFiles,
  requiredSecrets,
  sharedKeys,
} from "../settings";
import type { Fault, RawConfiguration, StackName } from "../settings";
import { configurationOf, secretValues } from "./support/configuration";
import { temporaryFolder } from "./support/folders";
import { ownConfigurationOf } from "./support/own";

/** All faults of a configuration; fails the test if there are none. */
function faultsOf(raw: RawConfiguration): Fault[] {
  try {
    parseSettings(raw);
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
  throw new Error("the configuration was accepted");
}

const set = (key: string, stack: StackName = "home") =>
  `pulumi config set ${/[.[]/.test(key) ? "--path " : ""}'homestead:${key}' <value> --stack ${stack}`;
const remove = (key: string) => `pulumi config rm --path 'homestead:${key}' --stack home`;
/** Where `config set` would make a number of digits. */
const asText = (key: string) => set(key).replace("--path", "--path --type string");
const editOwn = (key: string) => `edit ${key} in Pulumi.home.yaml`;
const edit = (key: string) => `edit ${key} in Pulumi.yaml`;
const fromOther = (key: string) =>
  `pulumi config get homestead:${key} --stack vps | pulumi config set --secret homestead:${key} --stack home`;

describe("a committed stack file", () => {
  it.each(["home", "vps", "dev"] as const)("of %s is a working example", (stack) => {
    expect(parseSettings(ownConfigurationOf(stack)).site).toBe(stack);
  });
});

describe("parseSettings", () => {
  it("gives defaults for what is not set", () => {
    const optional = [
      "namespace",
      "sizes",
      "objectStore",
      "blog",
      "dns",
      "smtp",
      "registrations",
      "locale",
      "operators",
    ];
    const rest = ["network", "verification", "restore", "archiveInterval", "images", "charts"];
    const raw = configurationOf("home", Object.fromEntries([...optional, ...rest].map((key) => [key, undefined])));
    expect(parseSettings(raw)).toMatchObject({
      namespace: "homestead",
      sizes: { database: "10Gi", queue: "2Gi", objectStore: "10Gi", media: "50Gi" },
      objectStore: "external",
      blog: { kind: "folder", path: "blog" },
      dns: { kind: "manual" },
      smtp: { kind: "none" },
      registrations: "single",
      locale: "en",
      operators: { certManager: "install", cloudNativePg: "install", barmanPlugin: "install" },
      network: { privateEgress: [], mastodonPrivateEgress: [] },
      verification: { from: "here" },
      restore: {},
      archiveInterval: 15,
      images: versions.images,
      charts: versions.charts,
      ingress: { namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" }, proxies: 0 },
    });
  });

  it("computes the role once, from activeSite", () => {
    expect(parseSettings(configurationOf("home")).role).toBe("active");
    expect(parseSettings(configurationOf("vps")).role).toBe("standby");
    expect(parseSettings(configurationOf("vps", { activeSite: "vps" })).role).toBe("active");
    expect(parseSettings(configurationOf("dev")).role).toBe("active");
  });

  it("names the other site of the pair, and none for dev", () => {
    expect(parseSettings(configurationOf("home")).otherSite).toBe("vps");
    expect(parseSettings(configurationOf("vps")).otherSite).toBe("home");
    expect(parseSettings(configurationOf("dev")).otherSite).toBeUndefined();
  });

  it("keeps secrets as secret outputs, and the fingerprint in the open", async () => {
    const settings = parseSettings(configurationOf("home"));
    expect(settings.fingerprint).toBe(identityFingerprint(placeholderSecrets));
    for (const key of requiredSecrets) {
      expect(await (settings.secrets[key] as unknown as { isSecret: Promise<boolean> }).isSecret).toBe(true);
    }
    for (const secret of secretValues) expect(JSON.stringify({ ...settings, secrets: {} })).not.toContain(secret);
  });

  it("lets a stack override an image and a chart, and leaves the others as published", () => {
    const { images, charts } = parseSettings(
      configurationOf("home", {
        images: { valkey: "mirror.example:5000/valkey/valkey:8.1.4" },
        charts: { mastodon: { version: "9.9.9" } },
      }),
    );
    expect(images).toEqual({ ...versions.images, valkey: "mirror.example:5000/valkey/valkey:8.1.4" });
    expect(charts.mastodon).toEqual({ ...versions.charts.mastodon, version: "9.9.9" });
    expect(charts["cert-manager"]).toEqual(versions.charts["cert-manager"]);
  });

  it.each<[string, Record<string, unknown>]>([
    ["a database of 1024Mi", { sizes: { database: "1024Mi" } }],
    ["an IPv6 address", { ingress: { address: "2001:db8::1" } }],
    ["a host name as the address", { ingress: { address: "home.example.net" } }],
    ["an IPv6 range", { network: { privateEgress: ["fd12:3456:789a::/48", "10.0.0.0/8", "100.64.0.0/10"] } }],
    ["an image by its digest, whatever it is called", { images: { valkey: `a.b/c:latest@sha256:${"0".repeat(64)}` } }],
    [
      "charts of exact versions",
      { charts: { mastodon: { version: "2.0.0-rc.1" }, "cert-manager": { version: "v1.22.0+k" } } },
    ],
    ["a range of Mastodon's own", { network: { mastodonPrivateEgress: ["10.0.0.7/32"] } }],
    [
      "an image with digest and port",
      { blog: { kind: "image", image: `r.example:5000/a/b:1@sha256:${"0".repeat(64)}`, port: 80 } },
    ],
    ["a number written as text", { archiveInterval: "60" }],
    ["a user name of digits", { owner: "42" }],
    [
      "mail with a password",
      { smtp: { kind: "server", host: "mail.example", from: "a@b", auth: "plain", username: "a" }, smtpPassword: "x" },
    ],
    ["mail without one", { smtp: { kind: "server", host: "mail.example", from: "a@b" } }],
    [
      "friends, who are sent mail",
      { registrations: "invitation", smtp: { kind: "server", host: "mail.example", from: "a@b" } },
    ],
    ["a DNS command", { dns: { kind: "command", command: "./dns" } }],
    [
      "an issuer with its authorities",
      { certificates: { kind: "issuer", name: "mine", ca: tls.rootCertificates.slice(0, 2).join("\n") } },
    ],
    [
      "a solver of one's own, for some names",
      {
        certificates: {
          kind: "acme",
          email: "a@b",
          solver: {
            dns01: { cnameStrategy: "Follow", cloudflare: { apiTokenSecretRef: { name: "a", key: "b" } } },
            selector: { dnsZones: ["a.b"] },
          },
        },
      },
    ],
    [
      "a label without a value",
      { ingress: { address: "203.0.113.1", labels: { "example.net/Edge_1": "", b: "v3.1" } } },
    ],
    ["an issuer of one's own", { certificates: { kind: "issuer", name: "mine", issuerKind: "Issuer" } }],
    [
      "a moment to restore to",
      { generations: { home: 2, vps: 1 }, restore: { to: "2026-11-22T10:00:00+01:00", from: "home-g1" } },
    ],
    ["an old cluster that is off", { restore: { oldCluster: "8f1c7a52-0d7e-4f0b-9d51-3c8e7c4f2a10" } }],
  ])("accepts %s", (_what, changes) => {
    expect(() => parseSettings(configurationOf("home", changes))).not.toThrow();
  });
});

describe("a blog folder", () => {
  it("is refused with everything else where no ConfigMap can hold it, and what to do instead is said", () => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "index.html"), "");
    fs.mkdirSync(path.join(folder, "posts"));
    fs.writeFileSync(path.join(folder, "posts", "large"), Buffer.alloc(folderLimit));
    const blog = { kind: "folder", path: folder };
    expect(() => parseSettings(configurationOf("home", { blog }))).not.toThrow();
    fs.writeFileSync(path.join(folder, "one-more"), "x");
    expect(faultsOf(configurationOf("home", { blog, standby: "hot" }))).toEqual([
      expect.objectContaining({ key: "homestead:standby" }),
      {
        key: "homestead:blog.path",
        value: JSON.stringify(folder),
        allowed: `a folder of at most ${folderLimit} bytes, as much as a ConfigMap holds; this one has ${folderLimit + 1}`,
        mend:
          "build an image of the blog, then: pulumi config set --path 'homestead:blog.kind' image --stack home && " +
          `${set("blog.image")} && ${remove("blog.path")}`,
      },
    ]);
  });
});

it("a trial's address may be its own machine's", () => {
  for (const address of ["127.0.0.1", "ramble.localhost"])
    expect(parseSettings(configurationOf("dev", own("ingress", { address }))).ingress.address).toBe(address);
});

describe("a blog folder's index.html", () => {
  const faults = (folder: string) =>
    faultsOf(configurationOf("home", { blog: { kind: "folder", path: folder }, locale: "-" })).map(({ key }) => key);

  it("is a page, or a link to one", () => {
    const folder = temporaryFolder();
    const index = path.join(folder, "index.html");
    fs.writeFileSync(path.join(folder, "page.html"), "");
    fs.symlinkSync("page.html", index);
    expect(faults(folder)).toEqual(["homestead:locale"]);
    fs.rmSync(index);
    fs.symlinkSync("nowhere.html", index);
    expect(faults(folder)).toContain("homestead:blog.path");
    fs.rmSync(index);
    fs.mkdirSync(index);
    expect(faults(folder)).toContain("homestead:blog.path");
  });
});

describe("how a database begins", () => {
  const beginning = (stack: StackName, changes: Record<string, unknown>) =>
    parseSettings(configurationOf(stack, changes)).beginning;

  it("is from nothing only at the founder's first generation", () => {
    expect(beginning("home", {})).toEqual({ kind: "initdb" });
    expect(beginning("home", { generations: { home: 2, vps: 1 } })).toEqual({
      kind: "recovery",
      site: "home",
      archive: "home-g1",
    });
    expect(beginning("vps", { founder: "vps" })).toEqual({ kind: "initdb" });
  });

  it("is from the active site's archive on a standby", () => {
    expect(beginning("vps", {})).toEqual({ kind: "recovery", site: "home", archive: "home-g1" });
    expect(beginning("vps", { generations: { home: 3, vps: 2 } })).toEqual({
      kind: "recovery",
      site: "home",
      archive: "home-g3",
    });
    expect(beginning("home", { activeSite: "vps", generations: { home: 2, vps: 1 } })).toEqual({
      kind: "recovery",
      site: "vps",
      archive: "vps-g1",
    });
  });

  it("is from the other site's archive where a cold site takes over", () => {
    expect(beginning("vps", { activeSite: "vps" })).toEqual({ kind: "recovery", site: "home", archive: "home-g1" });
  });

  it("takes over what the other site wrote last, also where it was active before: its own archive is of that time", () => {
    const generations = { home: 2, vps: 2 };
    for (const promotionToken of ["lost", "dead"]) {
      expect(beginning("vps", { activeSite: "vps", epoch: 4, generations, promotionToken })).toEqual({
        kind: "recovery",
        site: "home",
        archive: "home-g2",
      });
    }
    // Nothing is taken over: it was active, and lost its disk.
    expect(beginning("vps", { activeSite: "vps", epoch: 4, generations })).toEqual({
      kind: "recovery",
      site: "vps",
      archive: "vps-g1",
    });
  });

  it("is from a named archive, up to a moment, where the stack says so", () => {
    expect(
      beginning("home", { generations: { home: 3, vps: 1 }, restore: { from: "home-g1", to: "2026-11-22T10:00:00Z" } }),
    ).toEqual({
      kind: "recovery",
      site: "home",
      archive: "home-g1",
      to: "2026-11-22T10:00:00Z",
    });
  });
});

describe("a moment to restore to", () => {
  const generations = { home: 2, vps: 1 };
  it.each([
    ["2026-11-22 10:00:00Z", "2026-11-22T10:00:00Z"],
    ["2026-11-22 10:00:00.5+01:00", "2026-11-22T10:00:00.5+01:00"],
    ["2026-11-22 10:00:00 +0000 UTC", "2026-11-22T10:00:00Z"],
    ["2026-11-22 10:00:00 +0100 +0100", "2026-11-22T10:00:00+01:00"],
    ["2026-11-22 10:00:00.5 +0100 CET", "2026-11-22T10:00:00.5+01:00"],
    ["2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"],
  ])("that is written %s is handed on as CloudNativePG reads it", (to, handedOn) => {
    expect(parseSettings(configurationOf("home", { generations, restore: { to } })).restore.to).toBe(handedOn);
  });

  // The CLI reads each of them as a timestamp, and one without a zone as UTC.
  const inFile = (written: string, read: string, key = "homestead:restore") => ({
    ...configurationOf("home", { generations, restore: { to: read } }),
    stackFiles: { home: { "kubernetes:strictMode": "true", [key]: { to: written } } },
  });

  it.each([
    ["2026-11-22", "2026-11-22 00:00:00 +0000 UTC"],
    ["2026-11-22 10:00:00", "2026-11-22 10:00:00 +0000 UTC"],
    ["2026-11-22T10:00:00", "2026-11-22 10:00:00 +0000 UTC"],
  ])("without a zone in the file, %s, is refused as it stands there", (written, read) => {
    for (const key of ["homestead:restore", "restore"]) {
      expect(faultsOf(inFile(written, read, key))).toEqual([
        {
          key: "homestead:restore.to",
          value: JSON.stringify(written),
          allowed: "a moment with its zone, such as 2026-11-22T10:00:00Z",
          mend: set("restore.to"),
        },
      ]);
    }
  });

  it("with a zone in the file is the moment that the CLI hands over", () => {
    const raw = inFile("2026-11-22T10:00:00+01:00", "2026-11-22 10:00:00 +0100 +0100");
    expect(parseSettings(raw).restore.to).toBe("2026-11-22T10:00:00+01:00");
  });
});

/** One rule each: what the stack says wrongly, and the one fault that comes of it. */
const rules: [what: string, changes: Record<string, unknown>, fault: Fault, stack?: StackName][] = [];
const rule = (
  what: string,
  changes: Record<string, unknown>,
  key: string,
  value: string,
  allowed: string,
  mend = set(key),
) => rules.push([what, changes, { key: `homestead:${key}`, value, allowed, mend }]);
const home = configurationOf("home").config;
const apex = home["homestead:apex"] ?? "";
const own = (key: string, change: Record<string, unknown>) => ({
  [key]: { ...(JSON.parse(home[`homestead:${key}`] ?? "{}") as Record<string, unknown>), ...change },
});

// Hosts, people, sites.
const host = "a lower-case host name such as ramble.moe, without scheme, port or path";
rule("a missing apex", { apex: undefined }, "apex", "(not set)", "a host name such as ramble.moe", edit("apex"));
rule("an apex with a scheme", { apex: "https://ramble.moe" }, "apex", '"https://ramble.moe"', host, edit("apex"));
rule("an apex with a port", { apex: "ramble.moe:443" }, "apex", '"ramble.moe:443"', host, edit("apex"));
rule("an apex in capitals", { apex: "Ramble.moe" }, "apex", '"Ramble.moe"', host, edit("apex"));
rule("an apex without a dot", { apex: "localhost" }, "apex", '"localhost"', host, edit("apex"));
rule("an apex that is a number", { apex: "42" }, "apex", "42", "a host name such as ramble.moe", edit("apex"));
rule("a web host with a path", { webHost: "ramble.moe/web" }, "webHost", '"ramble.moe/web"', host, edit("webHost"));
rule(
  "one host for both",
  { webHost: apex },
  "webHost",
  `"${apex}"`,
  "a host other than the apex: the blog is on the apex, Mastodon on the web host",
  edit("webHost"),
);
const userName = "1 to 30 letters, digits and _ (Mastodon's rule for user names)";
rule("an owner with a dot", { owner: "a.b" }, "owner", '"a.b"', userName, edit("owner"));
rule("an owner of 31 letters", { owner: "a".repeat(31) }, "owner", `"${"a".repeat(31)}"`, userName, edit("owner"));
rule("no e-mail address", { ownerEmail: "me" }, "ownerEmail", '"me"', "an e-mail address", edit("ownerEmail"));
rule(
  "an unknown active site",
  { activeSite: "hom" },
  "activeSite",
  '"hom"',
  "one of home, vps, dev",
  edit("activeSite"),
);
rule(
  "dev as the active site of a pair",
  { activeSite: "dev" },
  "activeSite",
  '"dev"',
  "home or vps",
  edit("activeSite"),
);
rule("an epoch of 0", { epoch: 0 }, "epoch", "0", "a whole number of 1 or more", edit("epoch"));
rule("an epoch in words", { epoch: "one" }, "epoch", '"one"', "a whole number of 1 or more", edit("epoch"));
rule("dev as the founder of a pair", { founder: "dev" }, "founder", '"dev"', "home or vps", edit("founder"));
rule(
  "no generations",
  { generations: "x" },
  "generations",
  '"x"',
  "an object such as {home: 1, vps: 1}",
  edit("generations"),
);
rule(
  "a generation missing",
  { generations: { home: 1 } },
  "generations.vps",
  "(not set)",
  "a whole number of 1 or more",
  edit("generations.vps"),
);
rule(
  "a generation of 1.5",
  { generations: { home: 1.5, vps: 1 } },
  "generations.home",
  "1.5",
  "a whole number of 1 or more",
  edit("generations.home"),
);
rule(
  "a generation of no site",
  { generations: { home: 1, vps: 1, moon: 1 } },
  "generations.moon",
  "1",
  "one of home, vps, dev",
  "remove generations.moon from Pulumi.yaml",
);

// The cluster and its storage.
const context = "the name of a context in your kubeconfig";
rule(
  "no cluster",
  { cluster: undefined },
  "cluster",
  "(not set)",
  "an object with context, kubeconfig, uid",
  set("cluster.context"),
);
rule("a cluster without a context", { cluster: {} }, "cluster.context", "(not set)", context);
rule("an empty context", { cluster: { context: "" } }, "cluster.context", '""', context);
rule("an empty kubeconfig", { cluster: { context: "a", kubeconfig: "" } }, "cluster.kubeconfig", '""', "a path");
rule(
  "a UID that is none",
  { cluster: { context: "a", uid: "x" } },
  "cluster.uid",
  '"x"',
  "the UID of the cluster's kube-system namespace",
);
rule(
  "a misspelt key inside an object",
  { cluster: { context: "a", udi: "x" } },
  "cluster.udi",
  '"x"',
  "only context, kubeconfig, uid",
  remove("cluster.udi"),
);
rule(
  "a namespace in capitals",
  { namespace: "Mine" },
  "namespace",
  '"Mine"',
  "at most 63 lower-case letters, digits and -",
);
rule(
  "a namespace of 64 letters",
  { namespace: "a".repeat(64) },
  "namespace",
  `"${"a".repeat(64)}"`,
  "at most 63 lower-case letters, digits and -",
);
rule(
  "an unknown kind of storage",
  { storage: { kind: "ceph", databases: "a" } },
  "storage.kind",
  '"ceph"',
  "one of nfs, local",
);
rule(
  "a storage class with a space",
  { storage: { kind: "nfs", databases: "a b" } },
  "storage.databases",
  '"a b"',
  "a Kubernetes name: lower-case letters, digits, - and .",
);
rule("no storage class", { storage: { kind: "nfs" } }, "storage.databases", "(not set)", "a Kubernetes name");
rule(
  "a size without a unit",
  { sizes: { database: "10" } },
  "sizes.database",
  '"10"',
  "a Kubernetes quantity such as 10Gi",
);
rule("a database of next to nothing", { sizes: { database: "1Mi" } }, "sizes.database", '"1Mi"', "1Gi or more");
rule("a size of nothing", { sizes: { queue: "0Gi" } }, "sizes.queue", '"0Gi"', "a Kubernetes quantity such as 10Gi");
rule(
  "a size as a number",
  { sizes: { queue: 5 } },
  "sizes.queue",
  "5",
  "a Kubernetes quantity such as 10Gi",
  asText("sizes.queue"),
);

// Buckets.
const url = "a URL such as https://s3.example.net, without query";
const bucketRule = "3 to 63 lower-case letters, digits, . and -";
rule("an unknown object store", { objectStore: "minio" }, "objectStore", '"minio"', "one of external, embedded");
rule(
  "a vault without a scheme",
  own("vault", { endpoint: "s3.example.net" }),
  "vault.endpoint",
  '"s3.example.net"',
  url,
);
rule(
  "a vault with a query",
  own("vault", { endpoint: "https://a.example/?x" }),
  "vault.endpoint",
  '"https://a.example/?x"',
  url,
);
rule("a bucket name of two letters", own("vault", { bucket: "pg" }), "vault.bucket", '"pg"', bucketRule);
rule("a bucket name in capitals", own("media", { bucket: "Media" }), "media.bucket", '"Media"', bucketRule);
rule("no bucket", { vault: { endpoint: "https://a.example" } }, "vault.bucket", "(not set)", "a bucket name");
rule("a public address that is none", own("media", { publicUrl: "media" }), "media.publicUrl", '"media"', url);
rule(
  "one bucket for both",
  own("media", { bucket: "ramble-vault" }),
  "media.bucket",
  '"ramble-vault"',
  "a bucket other than the vault's: media is public, the vault is private",
);

for (const endpoint of [
  "https://s3.eu-central-003.backblazeb2.com/",
  "https://S3.EU-central-003.Backblazeb2.com",
  "https://s3.eu-central-003.backblazeb2.com:443",
]) {
  rule(
    `one bucket for both, its store written as ${endpoint}`,
    own("media", { bucket: "ramble-vault", endpoint }),
    "media.bucket",
    '"ramble-vault"',
    "a bucket other than the vault's: media is public, the vault is private",
  );
}

// The edge.
const address = "an IP address or a host name";
const certificates = "an object whose kind is issuer, acme or selfSigned";
rule(
  "an address out of range",
  { ingress: { address: "203.0.113.256" } },
  "ingress.address",
  '"203.0.113.256"',
  address,
);
const reached = "an address or a host name that the world reaches the site at, such as 203.0.113.10";
for (const [key, name] of [
  ["apex", apex],
  ["webHost", home["homestead:webHost"] ?? ""],
] as const) {
  rule(
    `an address that is the ${key}`,
    own("ingress", { address: name }),
    "ingress.address",
    `"${name}"`,
    `${reached}, not the ${key}: its record would lead to itself`,
  );
}
const machines = ["0.0.0.0", "127.0.0.1", "169.254.1.1", "::1", "fe80::1", "fe80::1%eth0", "ramble.localhost"];
for (const none of [...machines, "::ffff:127.0.0.1", "::ffff:a9fe:101"]) {
  rule(
    `an address that is everybody's own: ${none}`,
    own("ingress", { address: none }),
    "ingress.address",
    `"${none}"`,
    `${reached}: to everybody else this one is a machine of their own`,
  );
}
rule(
  "an address with a port",
  { ingress: { address: "203.0.113.1:443" } },
  "ingress.address",
  '"203.0.113.1:443"',
  address,
);
rule(
  "labels that are no texts",
  { ingress: { address: "203.0.113.1", labels: { a: 1 } } },
  "ingress.labels.a",
  "1",
  "a label's value",
  asText("ingress.labels.a"),
);
const labelValue =
  "a label's value: at most 63 letters, digits, -, _ and ., the first and the last a letter or a digit";
const labelKeys = "whose keys are at most 63 letters, digits, -, _ and ., behind a host name and / or alone";
rule(
  "a label's value with a blank",
  { ingress: { address: "203.0.113.1", labels: { "app.kubernetes.io/name": "traefik v3" } } },
  'ingress.labels["app.kubernetes.io/name"]',
  '"traefik v3"',
  labelValue,
);
rule(
  "a label's key with a blank",
  { ingress: { address: "203.0.113.1", labels: { "app name": "traefik" } } },
  "ingress.labels.app name",
  '"traefik"',
  `labels of the Traefik pods, ${labelKeys}`,
  remove("ingress.labels.app name"),
);
rule(
  "a label's key of two parts too many",
  { monitoring: { kind: "rules", labels: { "a.example/b/c": "" } } },
  'monitoring.labels["a.example/b/c"]',
  '""',
  `labels such as {release: prometheus}, ${labelKeys}`,
  remove('monitoring.labels["a.example/b/c"]'),
);
rule(
  "labels as JSON in a text, as config set writes them",
  { ingress: { address: "203.0.113.1", labels: '{"a":"b"}' } },
  "ingress.labels",
  '"{\\"a\\":\\"b\\"}"',
  "labels of the Traefik pods",
  editOwn("ingress.labels"),
);
rule(
  "a label's key behind a host name with two dots",
  { monitoring: { kind: "rules", labels: { "a..b/c": "" } } },
  'monitoring.labels["a..b/c"]',
  '""',
  `labels such as {release: prometheus}, ${labelKeys}`,
  remove('monitoring.labels["a..b/c"]'),
);
rule(
  "an unknown kind of certificate",
  { certificates: { kind: "letsencrypt" } },
  "certificates.kind",
  '"letsencrypt"',
  certificates,
);
rule("certificates without a kind", { certificates: {} }, "certificates.kind", "(not set)", certificates);
rule(
  "certificates as a word",
  { certificates: "acme" },
  "certificates",
  '"acme"',
  certificates,
  editOwn("certificates"),
);
rule(
  "no certificates",
  { certificates: undefined },
  "certificates",
  "(not set)",
  certificates,
  set("certificates.kind"),
);
rule(
  "ACME without an e-mail address",
  { certificates: { kind: "acme" } },
  "certificates.email",
  "(not set)",
  "an e-mail address",
);
rule(
  "ACME with a server that is no URL",
  { certificates: { kind: "acme", email: "a@b", server: "x" } },
  "certificates.server",
  '"x"',
  url,
);
rule(
  "an issuer without a name",
  { certificates: { kind: "issuer" } },
  "certificates.name",
  "(not set)",
  "a Kubernetes name",
);
const pem = "certificates in PEM, of the authority that signs for the issuer (-----BEGIN CERTIFICATE----- ...)";
rule(
  "an authority that is no certificate",
  { certificates: { kind: "issuer", name: "a", ca: "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n" } },
  "certificates.ca",
  JSON.stringify("-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"),
  pem,
);
rule(
  "an authority's file name",
  { certificates: { kind: "issuer", name: "a", ca: "ca.pem" } },
  "certificates.ca",
  '"ca.pem"',
  pem,
);
const acme = { kind: "acme", email: "a@b" };
const solver = "a solver of cert-manager's, with http01 or with dns01, such as {dns01: {...}}";
rule(
  "a solver of no kind",
  { certificates: { ...acme, solver: {} } },
  "certificates.solver",
  "{}",
  solver,
  editOwn("certificates.solver"),
);
const token = { apiTokenSecretRef: { name: "a", key: "b" } };
rule(
  "a solver of both kinds",
  { certificates: { ...acme, solver: { http01: { ingress: {} }, dns01: { cloudflare: token } } } },
  "certificates.solver",
  '{"http01":{"ingress":{}},"dns01":{"cloudflare":{"apiTokenSecretRef":{"name":"a","key":"b"}}}}',
  solver,
  editOwn("certificates.solver"),
);
const providers =
  "one of cert-manager's DNS providers, acmeDNS, akamai, azureDNS, cloudDNS, cloudflare, digitalocean, rfc2136, route53, webhook, with or without a cnameStrategy";
rule(
  "a solver as a word",
  { certificates: { ...acme, solver: { dns01: "cloudflare" } } },
  "certificates.solver.dns01",
  '"cloudflare"',
  providers,
  editOwn("certificates.solver.dns01"),
);
rule(
  "a solver of nothing",
  { certificates: { ...acme, solver: { dns01: {} } } },
  "certificates.solver.dns01",
  "{}",
  providers,
  editOwn("certificates.solver.dns01"),
);
rule(
  "a solver by a provider that cert-manager has not got",
  { certificates: { ...acme, solver: { dns01: { hetzner: { apiTokenSecretRef: {} } } } } },
  "certificates.solver.dns01.hetzner",
  '{"apiTokenSecretRef":{}}',
  providers,
  "pulumi config rm --path 'homestead:certificates.solver.dns01.hetzner' --stack home",
);
rule(
  "a solver by two providers",
  { certificates: { ...acme, solver: { dns01: { cloudflare: token, route53: {} } } } },
  "certificates.solver.dns01",
  '{"cloudflare":{"apiTokenSecretRef":{"name":"a","key":"b"}},"route53":{}}',
  providers,
  editOwn("certificates.solver.dns01"),
);
rule(
  "a solver by a provider's name alone",
  { certificates: { ...acme, solver: { dns01: { cnameStrategy: "Follow", digitalocean: "token" } } } },
  "certificates.solver.dns01.digitalocean",
  '"token"',
  "an object with tokenSecretRef",
  editOwn("certificates.solver.dns01.digitalocean"),
);
rule(
  "an issuer of no kind",
  { certificates: { kind: "issuer", name: "a", issuerKind: "CA" } },
  "certificates.issuerKind",
  '"CA"',
  "one of ClusterIssuer, Issuer",
);
rule(
  "an unknown kind of blog",
  { blog: { kind: "wordpress" } },
  "blog.kind",
  '"wordpress"',
  "an object whose kind is folder or image",
);
rule(
  "a blog of a path alone, as config set --path writes it",
  { blog: { path: "blog" } },
  "blog.kind",
  "(not set)",
  "an object whose kind is folder or image; what a stack sets takes the place of the whole default",
);
rule(
  "a blog folder without a page",
  { blog: { kind: "folder", path: "docs" } },
  "blog.path",
  '"docs"',
  "a folder with an index.html",
);
rule(
  "a blog image without a tag",
  { blog: { kind: "image", image: "ghcr.io/me/blog" } },
  "blog.image",
  '"ghcr.io/me/blog"',
  "host/path:tag[@sha256:digest]",
);
rule(
  "a blog port beyond 65535",
  { blog: { kind: "image", image: "a.b/c:1", port: 70000 } },
  "blog.port",
  "70000",
  "a port",
);
rule(
  "an unknown kind of DNS",
  { dns: { kind: "cloudflare" } },
  "dns.kind",
  '"cloudflare"',
  "an object whose kind is manual, command or rfc2136",
);
rule("a DNS command that is empty", { dns: { kind: "command", command: "" } }, "dns.command", '""', "a shell command");
rule("a TTL of 0", { dns: { kind: "command", command: "x", ttl: 0 } }, "dns.ttl", "0", "seconds");

// Mail.
const mail = { kind: "server", host: "mail.example", from: "a@b.c" };
rule(
  "an unknown kind of mail",
  { smtp: { kind: "sendmail" } },
  "smtp.kind",
  '"sendmail"',
  "an object whose kind is none or server",
);
rule(
  "a mail server without a sender",
  { smtp: { ...mail, from: undefined } },
  "smtp.from",
  "(not set)",
  "an e-mail address",
);
rule("a mail server at a URL", { smtp: { ...mail, host: "smtp://mail" } }, "smtp.host", '"smtp://mail"', address);
rule(
  "an unknown way to encrypt mail",
  { smtp: { ...mail, tls: "ssl" } },
  "smtp.tls",
  '"ssl"',
  "one of starttls, tls, none",
);
rule(
  "an unknown way to log in",
  { smtp: { ...mail, auth: "oauth" } },
  "smtp.auth",
  '"oauth"',
  "one of none, plain, login, cram_md5",
);
rule(
  "a log-in without a user name",
  { smtp: { ...mail, auth: "plain" }, smtpPassword: "x" },
  "smtp.username",
  "(not set)",
  "a user name, since smtp.auth is plain",
);
rule(
  "a log-in without a password",
  { smtp: { ...mail, auth: "login", username: "a" } },
  "smtpPassword",
  "(not set)",
  "a secret, since smtp.auth is login",
  "pulumi config set --secret homestead:smtpPassword --stack home",
);
rule(
  "a user name without a log-in",
  { smtp: { ...mail, username: "a" } },
  "smtp.auth",
  '"none"',
  "plain, login or cram_md5, since smtp.username is set",
);

// The rest.
rule("open registrations", { registrations: "open" }, "registrations", '"open"', "one of single, approval, invitation");
for (const who of ["approval", "invitation"]) {
  const toServer = "pulumi config set --path 'homestead:smtp.kind' server --stack home";
  rule(
    `registrations by ${who} without mail`,
    { registrations: who },
    "registrations",
    `"${who}"`,
    "single while smtp.kind is none: who registers is sent a mail to confirm the address",
    `${toServer} && ${set("smtp.host")} && ${set("smtp.from")}`,
  );
}
rule("a language by its name", { locale: "English" }, "locale", '"English"', "a language tag such as en or pt-BR");
rule(
  "an operator that is to be neither",
  { operators: { certManager: "skip" } },
  "operators.certManager",
  '"skip"',
  "one of install, existing",
);
rule(
  "a range that is everything",
  { network: { privateEgress: ["0.0.0.0/0"] } },
  "network.privateEgress[0]",
  '"0.0.0.0/0"',
  "a range without loopback and link-local addresses: the clouds' metadata servers are there",
);
rule(
  "a range with a metadata server",
  { network: { privateEgress: ["169.254.169.254/32"] } },
  "network.privateEgress[0]",
  '"169.254.169.254/32"',
  "a range without loopback and link-local addresses: the clouds' metadata servers are there",
);
for (const [range, server] of [
  ["fd00::/8", "fd00:ec2::254"],
  ["fc00::/7", "fd00:ec2::254"],
  ["fd20:ce::/32", "fd20:ce::254"],
  ["168.0.0.0/8", "168.63.129.16"],
  ["192.0.0.0/24", "192.0.0.192"],
] as const)
  rule(
    `a range with a metadata server (${range})`,
    { network: { privateEgress: [range] } },
    "network.privateEgress[0]",
    `"${range}"`,
    `a range without ${server}, a cloud's metadata server, such as 192.168.1.0/24 or fd12:3456:789a::/48`,
  );
for (const range of ["169.254.0.0/17", "fe80::/9", "::/0", "0.0.0.0/32"])
  rule(
    `a range with a machine's own addresses (${range})`,
    { network: { privateEgress: [range] } },
    "network.privateEgress[0]",
    `"${range}"`,
    "a range without loopback and link-local addresses: the clouds' metadata servers are there",
  );
for (const range of ["::ffff:10.0.0.0/104", "::ffff:a00:0/120"])
  rule(
    `IPv4 addresses as IPv6 ones (${range})`,
    { network: { privateEgress: [range] } },
    "network.privateEgress[0]",
    `"${range}"`,
    "a range of IPv4 addresses as such: 10.0.0.0/8, not ::ffff:10.0.0.0/104",
  );
for (const range of ["224.0.0.0/4", "239.1.1.1/32", "ff02::/16", "224.0.0.0/3"])
  rule(
    `a range with multicast (${range})`,
    { network: { mastodonPrivateEgress: [range] } },
    "network.mastodonPrivateEgress[0]",
    `"${range}"`,
    "a range without multicast addresses (224.0.0.0/4, ff00::/8), at which no server is",
  );
rule(
  "a range for Mastodon with a metadata server",
  { network: { mastodonPrivateEgress: ["10.0.0.0/8", "168.63.129.16/32"] } },
  "network.mastodonPrivateEgress[1]",
  '"168.63.129.16/32"',
  "a range without 168.63.129.16, a cloud's metadata server, such as 192.168.1.0/24 or fd12:3456:789a::/48",
);
// What a doctor and a drill leave behind they say how to delete.
for (const namespace of ["kube-system", doctorNamespace, drillNamespace])
  rule(
    `a namespace that is somebody else's (${namespace})`,
    { namespace },
    "namespace",
    `"${namespace}"`,
    "a namespace of its own, none of default, kube-system, kube-public, kube-node-lease, cert-manager, cnpg-system, homestead-doctor, homestead-drill",
  );
rule(
  "a Traefik without labels",
  { ingress: { address: "203.0.113.10", labels: {} } },
  "ingress.labels",
  "{}",
  "labels of the Traefik pods, one at least",
  editOwn("ingress.labels"),
);
rule(
  "an address that is no URL after all",
  { vault: { endpoint: "https://[", bucket: "vault" } },
  "vault.endpoint",
  '"https://["',
  "a URL such as https://s3.example.net, without query",
);
rule(
  "a port that there is not",
  { vault: { endpoint: "https://s3.example.net:99999", bucket: "vault" } },
  "vault.endpoint",
  '"https://s3.example.net:99999"',
  "a URL such as https://s3.example.net, without query",
);
rule(
  "a range without a length",
  { network: { privateEgress: ["10.0.0.0"] } },
  "network.privateEgress[0]",
  '"10.0.0.0"',
  "an address range such as 192.168.1.0/24",
);
rule(
  "a range too long",
  { network: { privateEgress: ["10.0.0.0/33"] } },
  "network.privateEgress[0]",
  '"10.0.0.0/33"',
  "an address range such as 192.168.1.0/24",
);
rule(
  "a range that is no list",
  { network: { privateEgress: "10.0.0.0/8" } },
  "network.privateEgress",
  '"10.0.0.0/8"',
  "a list of address ranges",
  editOwn("network.privateEgress"),
);
rule(
  "a verification from elsewhere",
  { verification: { from: "moon" } },
  "verification.from",
  '"moon"',
  "one of here, cluster",
);
rule(
  "a moment without a zone",
  { restore: { to: "2026-11-22T10:00:00" } },
  "restore.to",
  '"2026-11-22T10:00:00"',
  "a moment with its zone, such as 2026-11-22T10:00:00Z",
);
rule(
  "a moment without a zone, with a blank",
  { restore: { to: "2026-11-22 10:00:00" } },
  "restore.to",
  '"2026-11-22 10:00:00"',
  "a moment with its zone, such as 2026-11-22T10:00:00Z",
);
rule(
  "a moment that no month has",
  { restore: { to: "2026-02-30T10:00:00Z" } },
  "restore.to",
  '"2026-02-30T10:00:00Z"',
  "a moment that there is, with its zone, such as 2026-11-22T10:00:00Z",
);
rule(
  "a moment that no clock shows",
  { restore: { to: "2026-11-22T25:00:00Z" } },
  "restore.to",
  '"2026-11-22T25:00:00Z"',
  "a moment that there is, with its zone, such as 2026-11-22T10:00:00Z",
);
rule(
  "a moment that is in no zone",
  { restore: { to: "2026-11-22T10:00:00+99:99" } },
  "restore.to",
  '"2026-11-22T10:00:00+99:99"',
  "a moment that there is, with its zone, such as 2026-11-22T10:00:00Z",
);
rule(
  "an archive of no site",
  { restore: { from: "moon-g1" } },
  "restore.from",
  '"moon-g1"',
  "an archive's name such as home-g1",
);
for (const [what, value] of [
  ["a word about no cluster in particular", "off"],
  ["a cluster's name in place of its UID", "home"],
  ["a UID that is cut short", "8f1c7a52-0d7e-4f0b-9d51"],
] as const) {
  rule(
    what,
    { restore: { oldCluster: value } },
    "restore.oldCluster",
    JSON.stringify(value),
    "the UID of the cluster that the site had and that is off, as the lease names it (npx homestead status)",
  );
}
rule(
  "a restore from the archive that is written",
  { restore: { from: "home-g1" } },
  "restore.from",
  '"home-g1"',
  "an archive other than home-g1, which this database writes: raise generations.home first",
);
for (const [what, key, value] of [
  ["a moment to restore to, and no archive before this one", "to", "2026-11-22T10:00:00Z"],
  ["an archive to restore from, and no generation that would", "from", "vps-g1"],
] as const) {
  rule(
    what,
    { restore: { [key]: value } },
    `restore.${key}`,
    `"${value}"`,
    "nothing while generations.home is 1: the founder's first database begins from nothing, and a restore makes the next one",
    `set generations.home to 2 in Pulumi.yaml (docs/runbooks/lost-disk.md); to restore nothing: ${remove(`restore.${key}`)}`,
  );
}
rule(
  "an archive interval of an hour and a second",
  { archiveInterval: 3601 },
  "archiveInterval",
  "3601",
  "seconds, 1 to 3600",
);
rule(
  "an image of no part",
  { images: { redis: "a.b/c:1" } },
  "images.redis",
  '"a.b/c:1"',
  `one of ${Object.keys(versions.images).join(", ")}`,
  remove("images.redis"),
);
rule(
  "an image without a tag",
  { images: { valkey: "a.b/c" } },
  "images.valkey",
  '"a.b/c"',
  "host/path:tag[@sha256:digest]",
);
rule(
  "an image that is another one tomorrow",
  { images: { valkey: "a.b/c:latest" } },
  "images.valkey",
  '"a.b/c:latest"',
  "a tag that is not latest, which is another image tomorrow and on another node, or a digest beside it: host/path:tag[@sha256:digest]",
);
for (const version of ["latest", "^1.0.0", "1.0", "1.x", ""])
  rule(
    `a chart of a version that is none, '${version}'`,
    { charts: { mastodon: { version } } },
    "charts.mastodon.version",
    JSON.stringify(version),
    "an exact version such as 1.0.2 or v1.21.1",
  );
rule(
  "a chart of no part",
  { charts: { redis: {} } },
  "charts.redis",
  "{}",
  `one of ${Object.keys(versions.charts).join(", ")}`,
  remove("charts.redis"),
);
const chart = path.join(__dirname, "fixtures", "chart");
rule(
  "a chart of a folder and a version",
  { charts: { mastodon: { path: chart, version: "1.0.2" } } },
  "charts.mastodon.path",
  JSON.stringify(chart),
  "a path alone, or a repository and a version",
);
rule(
  "a chart folder without a chart",
  { charts: { mastodon: { path: "docs" } } },
  "charts.mastodon.path",
  '"docs"',
  "a folder with a Chart.yaml",
);

// Secrets.
rule(
  "a missing secret of the identity",
  { secretKeyBase: undefined },
  "secretKeyBase",
  "(not set)",
  "a secret",
  fromOther("secretKeyBase"),
);
rule(
  "a missing key of a bucket",
  { vaultAccessKeyId: undefined },
  "vaultAccessKeyId",
  "(not set)",
  "a secret",
  "pulumi config set --secret 'homestead:vaultAccessKeyId' --stack home",
);
rule(
  "a secret in a wrong format",
  { ownerPassword: "short" },
  "ownerPassword",
  "[secret]",
  "8 to 72 characters (Mastodon's rule)",
  fromOther("ownerPassword"),
);
rule(
  "a VAPID private key that is none",
  { vapidPrivateKey: `${"A".repeat(43)}=` },
  "vapidPrivateKey",
  "[secret]",
  "a VAPID private key: 44 characters of base64url with padding",
  fromOther("vapidPrivateKey"),
);
rule(
  "a VAPID pair that is none",
  { vapidPublicKey: createSharedSecrets().vapidPublicKey },
  "vapidPublicKey",
  "[secret]",
  "the public key that belongs to vapidPrivateKey: the two are a pair",
  fromOther("vapidPublicKey"),
);

// Keys.
rule(
  "a misspelt key",
  { archiveIntervall: "5" },
  "archiveIntervall",
  '"5"',
  "a key of this project; did you mean archiveInterval?",
  "pulumi config rm 'homestead:archiveIntervall' --stack home",
);
rule(
  "a misspelt secret",
  { secretKeyBas: "topsecret" },
  "secretKeyBas",
  "[secret]",
  "a key of this project; did you mean secretKeyBase?",
  "pulumi config rm 'homestead:secretKeyBas' --stack home",
);
rule(
  "a key of another project",
  { "rails:key": "x" },
  "rails:key",
  '"x"',
  "a key of this project (README, Configuration)",
  "pulumi config rm 'homestead:rails:key' --stack home",
);

describe("a site refuses", () => {
  it.each(rules)("%s", (_what, changes, fault) => {
    expect(faultsOf(configurationOf("home", changes))).toEqual([fault]);
  });

  it("a vault inside the cluster that it is to rescue", () => {
    expect(
      faultsOf(configurationOf("home", { objectStore: "embedded" })).map(({ key, allowed }) => [key, allowed]),
    ).toEqual([
      [
        "homestead:objectStore",
        "external: a vault inside the cluster that it is to rescue is none (the stack dev may)",
      ],
      ["homestead:verification.from", "cluster, since an embedded object store is reached only from there"],
      [
        "homestead:mediaAccessKeyId",
        "the vault's keys for both buckets, since the embedded object store knows one pair",
      ],
    ]);
  });

  it("a stack that is no site", () => {
    expect(faultsOf({ ...configurationOf("home"), stack: "prod" })).toEqual([
      { key: "stack", value: '"prod"', allowed: "one of home, vps, dev", mend: "pulumi stack select home" },
    ]);
  });
});

describe("dev refuses", () => {
  it.each(["activeSite", "founder"])("another site as its %s", (key) => {
    expect(faultsOf(configurationOf("dev", { [key]: "home" }))).toEqual([
      {
        key: `homestead:${key}`,
        value: '"home"',
        allowed: "dev, in the stack dev",
        mend: `pulumi config set homestead:${key} dev --stack dev`,
      },
    ]);
  });
});

describe("a misspelt project", () => {
  const withKey = (key: string, more: Partial<RawConfiguration> = {}): RawConfiguration => {
    const raw = configurationOf("home");
    return { ...raw, ...more, config: { ...raw.config, [key]: "hidden" } };
  };

  it.each(["homestaed", "homested", "Homestead"])(
    "%s is asked about: the CLI takes its keys, and nobody reads them",
    (project) => {
      expect(faultsOf(withKey(`${project}:archiveInterval`))).toEqual([
        {
          key: `${project}:archiveInterval`,
          value: '"hidden"',
          allowed: "a key of this project; did you mean homestead:archiveInterval?",
          mend: `pulumi config rm '${project}:archiveInterval' --stack home`,
        },
      ]);
    },
  );

  it("does not show a secret", () => {
    for (const raw of [
      withKey("homestaed:vaultSecretAccessKey"),
      withKey("homestaed:x", { secretKeys: ["homestaed:x"] }),
    ]) {
      expect(faultsOf(raw)).toEqual([expect.objectContaining({ value: "[secret]" })]);
    }
  });

  it.each(["kubernetes", "pulumi", "random", "command", "tls"])("is none of another's, such as %s", (project) => {
    expect(() => parseSettings(withKey(`${project}:x`))).not.toThrow();
  });
});

describe("the other stack's file", () => {
  it.each([
    [
      "two values of one key",
      "config:\n  a: 1\n  a: 2\n",
      "Pulumi.vps.yaml is not YAML: Map keys must be unique at line 3",
    ],
    ["a merge conflict", "config:\n<<<<<<< HEAD\n  a: 1\n", "Pulumi.vps.yaml is not YAML: "],
    ["a list", "config: [a]\n", "Pulumi.vps.yaml: config is a list; mend: write there a mapping, one name a line"],
  ])("of %s is refused in one line that names it, without a stack trace of Pulumi's", (_what, text, message) => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "Pulumi.vps.yaml"), text);
    let thrown: unknown;
    try {
      readStackFiles(folder);
    } catch (error) {
      thrown = error;
    }
    expect((thrown as Error).message).toContain(message);
    expect((thrown as Error).message).not.toContain("\n");
    expect(pulumi.RunError.isInstance(thrown)).toBe(true);
  });
});

describe("the stack files", () => {
  const strict = { "kubernetes:strictMode": "true" };
  const withFiles = (stackFiles: Record<string, Record<string, unknown>>, stack: StackName = "home") =>
    faultsOf({ ...configurationOf(stack), stackFiles });

  it.each(["home", "vps"] as const)("may not hold a shared value (%s)", (site) => {
    const file = { ...strict, ...Object.fromEntries(sharedKeys.map((key) => [`homestead:${key}`, 1])) };
    expect(withFiles({ home: strict, [site]: file })).toEqual(
      sharedKeys.map((key) => ({
        key: `homestead:${key}`,
        value: "1",
        allowed: `nothing in Pulumi.${site}.yaml: both sites must agree on it, so it stands in Pulumi.yaml only`,
        mend: `pulumi config rm 'homestead:${key}' --stack ${site}`,
      })),
    );
  });

  it("may not hold one without the project's name, which the CLI takes for the same", () => {
    expect(withFiles({ home: strict, vps: { apex: "other.example" } })).toEqual([
      expect.objectContaining({ key: "homestead:apex", value: '"other.example"' }),
    ]);
  });

  it("that do not hold a misspelt key leave it to be mended in Pulumi.yaml, where `config rm` changes nothing", () => {
    const raw = configurationOf("home", { leaseGrase: "600" });
    const mends = (file: Record<string, unknown>) =>
      faultsOf({ ...raw, stackFiles: { home: { ...strict, ...file } } }).map(({ mend }) => mend);
    expect(mends({})).toEqual(["rename or remove leaseGrase in Pulumi.yaml"]);
    expect(mends({ leaseGrase: 600 })).toEqual(["pulumi config rm 'homestead:leaseGrase' --stack home"]);
  });

  it("may hold one in dev", () => {
    expect(() =>
      parseSettings({ ...configurationOf("dev"), stackFiles: { dev: { ...strict, "homestead:apex": "a.b" } } }),
    ).not.toThrow();
  });

  it.each([
    [undefined, "(not set)"],
    ["false", '"false"'],
    [false, "false"],
  ])("must ask for strict mode, not %s", (value, shown) => {
    expect(withFiles({ home: value === undefined ? {} : { "kubernetes:strictMode": value } })).toEqual([
      {
        key: "kubernetes:strictMode",
        value: shown,
        allowed: '"true": nothing may ever go to a default cluster',
        mend: "pulumi config set kubernetes:strictMode true --stack home",
      },
    ]);
  });

  it("may not name one context twice", () => {
    const cluster = (change: object) => ({ ...strict, "homestead:cluster": { context: "home", ...change } });
    expect(withFiles({ home: cluster({}), vps: cluster({}) })).toEqual([
      {
        key: "homestead:cluster.context",
        value: '"home"',
        allowed: "a context of this stack's own: 'vps' uses this one",
        mend: set("cluster.context"),
      },
    ]);
    // The same name in two kubeconfigs is two contexts.
    expect(() =>
      parseSettings({
        ...configurationOf("home"),
        stackFiles: { home: cluster({}), vps: cluster({ kubeconfig: "other" }) },
      }),
    ).not.toThrow();
  });

  it("may not name one context twice, with or without the project's name", () => {
    const cluster = { context: "home" };
    expect(withFiles({ home: { ...strict, "homestead:cluster": cluster }, vps: { ...strict, cluster } })).toEqual([
      expect.objectContaining({ key: "homestead:cluster.context" }),
    ]);
  });

  it("may not name one cluster by two contexts", () => {
    const uid = "00000000-0000-0000-0000-000000000000";
    const cluster = (context: string) => ({ ...strict, "homestead:cluster": { context, uid } });
    expect(withFiles({ home: cluster("a"), vps: cluster("b") }, "vps")).toEqual([
      {
        key: "homestead:cluster.uid",
        value: `"${uid}"`,
        allowed: "this cluster's own UID: 'home' has this one",
        mend: set("cluster.uid", "vps"),
      },
    ]);
  });

  describe("that name a vault", () => {
    const file = (bucket: string, more: object = { "homestead:vaultAccessKeyId": { secure: "v1:x" } }) => ({
      ...strict,
      "homestead:vault": { endpoint: "https://s3.example.net", bucket },
      ...more,
    });

    it.each(["home", "vps"] as const)("may not name two: each has a lease of its own (%s)", (stack) => {
      const [own, others] = stack === "home" ? ["old", "new"] : ["new", "old"];
      const other = stack === "home" ? "vps" : "home";
      expect(withFiles({ home: file("old"), vps: file("new") }, stack)).toEqual([
        {
          key: "homestead:vault.bucket",
          value: `"${own}"`,
          allowed: `the bucket that '${other}' names, "${others}": it holds the lease, and with two of them both sites federate`,
          mend: `get the newest files (git pull), or name the same one in both (after a move the new one: docs/runbooks/new-bucket.md): ${set("vault.bucket", stack)}`,
        },
      ]);
    });

    it("may name one by two ways, and nothing of it where another stack says it for all", () => {
      const near = { ...file("one"), "homestead:vault": { endpoint: "http://10.0.0.1:9000", bucket: "one" } };
      for (const vps of [near, { ...file("one"), "homestead:vault": undefined }]) {
        expect(() =>
          parseSettings({ ...configurationOf("home"), stackFiles: { home: file("one"), vps } }),
        ).not.toThrow();
      }
    });

    it("are not held against an example's, which has no keys to it, nor against a trial's", () => {
      const stackFiles = { home: file("mine"), vps: file("ramble-vault", {}), dev: file("trial") };
      for (const stack of ["home", "dev"] as const)
        expect(() => parseSettings({ ...configurationOf(stack), stackFiles })).not.toThrow();
    });
  });
});

describe("all faults come out as one error", () => {
  it("a misspelt site among the generations and the one that is missing for it", () => {
    const faults = faultsOf(configurationOf("home", { generations: { home: 1, vsp: 1 } }));
    expect(faults.map(({ key, value }) => [key, value])).toEqual([
      ["homestead:generations.vsp", "1"],
      ["homestead:generations.vps", "(not set)"],
    ]);
  });

  const everything = configurationOf("home", {
    apexx: "x",
    webHost: apex,
    epoch: 0,
    storage: { kind: "ceph", databases: "local-path" },
    smtp: { kind: "server", host: "mail.example", from: "a@b.c", auth: "plain", username: "a" },
    ownerPassword: "short",
    vaultAccessKeyId: undefined,
  });

  it("those of single keys, of secrets and between keys together", () => {
    expect(faultsOf(everything).map(({ key }) => key)).toEqual([
      "homestead:apexx",
      "homestead:epoch",
      "homestead:storage.kind",
      "homestead:vaultAccessKeyId",
      "homestead:ownerPassword",
      "homestead:webHost",
      "homestead:smtpPassword",
    ]);
  });

  it("reads as a paragraph a fault, with key, value, what is allowed and the fix", () => {
    const raw = configurationOf("vps", { locale: "English", archiveInterval: 0 });
    expect(() => parseSettings(raw)).toThrow(
      [
        "2 faults in the configuration of stack 'vps'; nothing was changed.",
        '  homestead:locale: "English"',
        "    allowed: a language tag such as en or pt-BR",
        "    mend:    pulumi config set 'homestead:locale' <value> --stack vps",
        "  homestead:archiveInterval: 0",
        "    allowed: seconds, 1 to 3600",
        "    mend:    pulumi config set 'homestead:archiveInterval' <value> --stack vps",
      ].join("\n"),
    );
  });

  it("counts one fault as one", () => {
    expect(formatFaults("home", [{ key: "a", value: "b", allowed: "c", mend: "d" }])).toBe(
      "1 fault in the configuration of stack 'home'; nothing was changed.\n  a: b\n    allowed: c\n    mend:    d",
    );
  });

  it("cuts long values short", () => {
    const [fault] = faultsOf(configurationOf("home", { locale: "x".repeat(500) }));
    expect(fault?.value).toBe(`"${"x".repeat(116)}...`);
  });
});

describe("secrets", () => {
  it("of a server that has none yet are to be made or copied all at once", () => {
    const names = requiredSecrets.filter((key) => !/^(vault|media)/.test(key));
    const faults = faultsOf(configurationOf("vps", Object.fromEntries(names.map((key) => [key, undefined]))));
    expect(faults.map(({ key }) => key)).toEqual(names.map((key) => `homestead:${key}`));
    for (const { mend } of faults) {
      expect(mend).toBe("`npx homestead identity create` (a new server), or `npx homestead identity copy home vps`");
    }
  });

  it("are never shown, whatever is wrong with them", () => {
    const values = Object.fromEntries(requiredSecrets.map((key) => [key, `broken ${key} 'value'`]));
    const text = formatFaults("home", faultsOf(configurationOf("home", values)));
    expect(text).toContain("[secret]");
    expect(text).not.toContain("broken");
  });

  it.each(["smtpPassword", "dnsKey", "acmeSolverKey"])(
    "that are optional may not stand in clear either, which the CLI does not see to: %s",
    (key) => {
      const raw = configurationOf("home", { [key]: "hidden" });
      const inClear = (secretKeys: string[]) =>
        faultsOf({ ...raw, secretKeys, config: { ...raw.config, "homestead:locale": "-" } });
      expect(inClear([])[0]).toEqual({
        key: `homestead:${key}`,
        value: "[secret]",
        allowed: "a secret that the stack holds encrypted: in clear, whoever sees the file has it",
        mend: `pulumi config set --secret 'homestead:${key}' --stack home`,
      });
      expect(inClear([`homestead:${key}`]).map((fault) => fault.key)).not.toContain(`homestead:${key}`);
    },
  );

  it("are not shown either where the stack keeps as a secret what need not be one", () => {
    const raw = configurationOf("home", { skb: "hidden", cluster: { context: "a", kubeconfig: "", token: "hidden" } });
    const text = formatFaults("home", faultsOf({ ...raw, secretKeys: ["homestead:skb", "homestead:cluster"] }));
    expect(text).toContain("homestead:skb: [secret]");
    expect(text).toContain("homestead:cluster.token: [secret]");
    expect(text).not.toContain("hidden");
  });
});

describe("nearest", () => {
  const known = ["apex", "webHost", "archiveInterval", "secretKeyBase"];

  it.each([
    ["apx", "apex"],
    ["webhost", "webHost"],
    ["web_host", "webHost"],
    ["archiveIntervals", "archiveInterval"],
    ["SECRET_KEY_BASE", "secretKeyBase"],
  ])("finds for %s %s", (misspelt, meant) => expect(nearest(misspelt, known)).toBe(meant));

  it("finds nothing for another word", () => {
    expect(nearest("postgres", known)).toBeUndefined();
    expect(nearest("x", [])).toBeUndefined();
  });
});

describe("any configuration", () => {
  const base = configurationOf("home").config;
  const keys = [
    ...Object.keys(base),
    "homestead:smtpPassword",
    "homestead:apexx",
    "homestead:",
    "kubernetes:strictMode",
  ];
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.json(),
    fc.constantFrom("", "null", "{}", "[]", '{"kind":null}', '{"kind":"server"}', '{"__proto__":{"a":1}}', "0", "true"),
    fc.constantFrom(...Object.values(base)),
  );
  const change = fc.tuple(fc.constantFrom(...keys), fc.option(text));

  it("gives Settings, or a SettingsError whose every fault names a key, never anything else", () => {
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 4 }),
        fc.constantFrom("home", "vps", "dev", "x"),
        (changes, stack) => {
          const config = { ...base };
          for (const [key, value] of changes) {
            if (value === null) Reflect.deleteProperty(config, key);
            else config[key] = value;
          }
          try {
            expect(parseSettings({ ...configurationOf("home"), stack, config }).site).toBe(stack);
          } catch (error) {
            if (!(error instanceof SettingsError)) throw error;
            expect(error.faults.length).toBeGreaterThan(0);
            for (const fault of error.faults) {
              expect(fault.key).toMatch(/^(homestead:|kubernetes:strictMode$|stack$)/);
              expect(fault.allowed).not.toMatch(/Invalid|expected/);
              expect(fault.mend).not.toBe("");
            }
            for (const secret of secretValues) {
              // Only where the stack itself put a secret's text into another key.
              if (!changes.some(([, value]) => value === secret)) expect(error.message).not.toContain(secret);
            }
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});
