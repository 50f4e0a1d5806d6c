/** Rules of DNS by signed updates, of search, and of media on a volume. */
import { describe, expect, it, test } from "vitest";
import { SettingsError, parseSettings } from "../settings";
import type { Fault } from "../settings";
import { configurationOf } from "./support/configuration";

function faultsOf(changes: Record<string, unknown>, stack: "home" | "dev" = "home"): Fault[] {
  try {
    parseSettings(configurationOf(stack, changes));
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
  throw new Error("the configuration was accepted");
}
const settingsOf = (changes: Record<string, unknown>) => parseSettings(configurationOf("home", changes));
const set = (key: string) =>
  `pulumi config set ${key.includes(".") ? "--path " : ""}'homestead:${key}' <value> --stack home`;
const one = (key: string, value: string, allowed: string, mend = set(key)): Fault[] => [
  { key: `homestead:${key}`, value, allowed, mend },
];

describe("media", () => {
  const bucket = { endpoint: "https://s3.example.net", bucket: "ramble-media" };

  it("is a bucket where no kind is given, as in every stack file before there was one", () => {
    expect(settingsOf({ media: bucket }).media).toEqual({ kind: "bucket", region: "us-east-1", ...bucket });
    expect(settingsOf({ media: { kind: "bucket", ...bucket } }).media).toEqual(settingsOf({ media: bucket }).media);
  });

  it("may be a volume of the class that storage.media names", () => {
    expect(settingsOf({ media: { kind: "volume" } }).media).toEqual({ kind: "volume" });
  });

  it("may not be a volume of no class", () => {
    expect(faultsOf({ media: { kind: "volume" }, storage: { kind: "local", databases: "local-path" } })).toEqual(
      one("storage.media", "(not set)", "a storage class for ReadWriteMany volumes, since media.kind is volume"),
    );
  });

  it("may not be a volume beside an embedded object store", () => {
    const storage = { kind: "local", databases: "local-path", media: "shared" };
    expect(faultsOf({ media: { kind: "volume" }, storage }, "dev")).toEqual([
      {
        key: "homestead:media.kind",
        value: '"volume"',
        allowed: "bucket, since objectStore is embedded: the store in the cluster holds uploads already",
        mend: "pulumi config set --path 'homestead:media.bucket' <value> --stack dev",
      },
    ]);
  });

  it.each<[what: string, value: unknown, fault: Fault[]]>([
    [
      "nothing at all",
      undefined,
      one(
        "media",
        "(not set)",
        "an object with endpoint, region, bucket, publicUrl, or {kind: volume}",
        set("media.endpoint"),
      ),
    ],
    [
      "an unknown kind",
      { kind: "disk" },
      one("media.kind", '"disk"', "an object with endpoint, region, bucket, publicUrl, or {kind: volume}"),
    ],
    [
      "a volume with a bucket",
      { kind: "volume", bucket: "ramble-media" },
      one(
        "media.bucket",
        '"ramble-media"',
        "only kind",
        "pulumi config rm --path 'homestead:media.bucket' --stack home",
      ),
    ],
    [
      "a bucket with an unknown key",
      { ...bucket, acl: "public" },
      one(
        "media.acl",
        '"public"',
        "only kind, endpoint, region, bucket, publicUrl",
        "pulumi config rm --path 'homestead:media.acl' --stack home",
      ),
    ],
  ])("refuses %s", (_what, value, fault) => {
    expect(faultsOf({ media: value })).toEqual(fault);
  });
});

describe("search", () => {
  it("is off unless it is wanted, and has a size of its own", () => {
    expect(settingsOf({}).search).toEqual({ kind: "off" });
    expect(settingsOf({ search: { kind: "elasticsearch" } }).search).toEqual({ kind: "elasticsearch", size: "10Gi" });
    expect(settingsOf({ search: { kind: "elasticsearch", size: "4Gi" } }).search).toMatchObject({ size: "4Gi" });
  });

  it("is refused where the databases' disk is NFS", () => {
    const storage = { kind: "nfs", databases: "nfs-client" };
    expect(faultsOf({ search: { kind: "elasticsearch" }, storage })).toEqual(
      one(
        "search.kind",
        '"elasticsearch"',
        "off, since storage.kind is nfs: Lucene relies on locks and on renames that are at once there for everyone, which NFS does not give",
      ),
    );
    expect(settingsOf({ storage }).search).toEqual({ kind: "off" });
  });

  it.each<[what: string, value: unknown, fault: Fault[]]>([
    ["another engine", { kind: "solr" }, one("search.kind", '"solr"', "an object whose kind is off or elasticsearch")],
    [
      "a size without a unit",
      { kind: "elasticsearch", size: "10" },
      one("search.size", '"10"', "a Kubernetes quantity such as 10Gi"),
    ],
  ])("refuses %s", (_what, value, fault) => {
    expect(faultsOf({ search: value })).toEqual(fault);
  });
});

test("a label's key that is a whole file is shown in part", () => {
  const [fault] = faultsOf({ monitoring: { kind: "rules", labels: { [`${"a".repeat(200_000)}!`]: "traefik" } } });
  expect(fault?.key).toBe(`homestead:monitoring.labels.${"a".repeat(317)}...`);
  expect(fault?.mend.length).toBeLessThan(1000);
});

describe("a solver's key", () => {
  const acme = { kind: "acme", email: "me@ramble.moe" };
  const token = { apiTokenSecretRef: { name: "acme-solver", key: "key" } };
  const certificates = { ...acme, solver: { dns01: { cloudflare: token } } };
  const secret = "pulumi config set --secret 'homestead:acmeSolverKey' --stack home";

  it("goes with a solver that names its Secret", () => {
    expect(settingsOf({ certificates, acmeSolverKey: "t0ken" }).certificates).toMatchObject(certificates);
  });

  it("is asked for where a solver names its Secret", () => {
    const allowed = "a secret, since certificates.solver names the Secret acme-solver";
    expect(faultsOf({ certificates })).toEqual(one("acmeSolverKey", "(not set)", allowed, secret));
  });

  it.each([
    ["another", { name: "acme-solver", key: "api-token" }, '"api-token"'],
    ["none", { name: "acme-solver" }, "(not set)"],
  ])("is under one key of its Secret: a solver that names %s is refused", (_what, ref, value) => {
    const config = { keys: [{ tokenSecretRef: ref }] };
    const solver = { dns01: { webhook: { groupName: "acme.example", solverName: "x", config } } };
    const key = "certificates.solver.dns01.webhook.config.keys[0].tokenSecretRef.key";
    expect(faultsOf({ certificates: { ...acme, solver }, acmeSolverKey: "t0ken" })).toEqual(
      one(
        key,
        value,
        "key, the one that the Secret acme-solver has: acmeSolverKey is kept under it",
        `pulumi config set --path 'homestead:${key}' key --stack home`,
      ),
    );
  });

  it.each([acme, { kind: "selfSigned" }])("is refused where nothing uses it: %j", (without) => {
    const [fault, ...more] = faultsOf({ certificates: without, acmeSolverKey: "t0ken" });
    expect(more).toEqual([]);
    expect(fault).toMatchObject({
      key: "homestead:certificates.solver",
      allowed: "a solver that names it: {dns01: {cloudflare: {apiTokenSecretRef: {name: acme-solver, key: key}}}}",
    });
  });
});

describe("dns by rfc2136", () => {
  const dns = { kind: "rfc2136", server: "192.0.2.53", zone: "ramble.moe", keyName: "homestead" };
  const dnsKey = "YSBrZXkgb2YgdGhpcnR5LXR3byBieXRlcywgaGVyZS4=";
  const withDns = (changes: Record<string, unknown> = {}, more: Record<string, unknown> = {}) => ({
    dns: { ...dns, ...changes },
    dnsKey,
    ...more,
  });
  const secret = "pulumi config set --secret homestead:dnsKey --stack home".replace(
    "homestead:dnsKey",
    "'homestead:dnsKey'",
  );

  it("has BIND's port, a minute and hmac-sha256 for defaults", () => {
    expect(settingsOf(withDns()).dns).toEqual({ ...dns, port: 53, algorithm: "hmac-sha256", ttl: 60 });
  });

  it.each<[what: string, changes: Record<string, unknown>, fault: Fault[]]>([
    [
      "no key",
      withDns({}, { dnsKey: undefined }),
      one("dnsKey", "(not set)", "a secret, since dns.kind is rfc2136", `${secret}`),
    ],
    [
      "a key that is not in base64",
      withDns({}, { dnsKey: "not a key at all" }),
      one("dnsKey", "[secret]", "the TSIG key in base64, as tsig-keygen prints it after `secret`", secret),
    ],
    [
      "a key that was cut off",
      withDns({}, { dnsKey: dnsKey.slice(0, -3) }),
      one("dnsKey", "[secret]", "the TSIG key in base64, as tsig-keygen prints it after `secret`", secret),
    ],
    [
      "a zone that neither host is in",
      withDns({ zone: "example.net" }),
      [
        ...one("dns.zone", '"example.net"', "the zone that apex ramble.moe is in"),
        ...one("dns.zone", '"example.net"', "the zone that webHost mastodon.ramble.moe is in"),
      ],
    ],
    [
      "a zone that is only the end of a name",
      withDns({ zone: "amble.moe" }),
      [
        ...one("dns.zone", '"amble.moe"', "the zone that apex ramble.moe is in"),
        ...one("dns.zone", '"amble.moe"', "the zone that webHost mastodon.ramble.moe is in"),
      ],
    ],
    [
      "a site known by a host name, of which the apex cannot be a CNAME",
      withDns({}, { ingress: { address: "home.example.net" } }),
      one("ingress.address", '"home.example.net"', "an IP address, since dns.kind is rfc2136"),
    ],
    [
      "an algorithm that is none",
      withDns({ algorithm: "hmac-md5" }),
      one("dns.algorithm", '"hmac-md5"', "one of hmac-sha256, hmac-sha512"),
    ],
    [
      "a key name with a space",
      withDns({ keyName: "my key" }),
      one("dns.keyName", '"my key"', "the name of a TSIG key, such as homestead"),
    ],
    ["a port out of range", withDns({ port: 70000 }), one("dns.port", "70000", "a port")],
    ["no server", withDns({ server: undefined }), one("dns.server", "(not set)", "an IP address or a host name")],
    [
      "an unknown kind",
      { dns: { kind: "route53" } },
      one("dns.kind", '"route53"', "an object whose kind is manual, command or rfc2136"),
    ],
  ])("refuses %s", (_what, changes, fault) => {
    expect(faultsOf(changes)).toEqual(fault);
  });
});

describe("a fault inside of an object hides no other", () => {
  const keysOf = (changes: Record<string, unknown>) =>
    faultsOf(changes)
      .map(({ key }) => key.replace("homestead:", ""))
      .sort();
  const smtp = { kind: "server", host: "mail.example.net", from: "Mastodon <me@example.org>" };
  const dns = { kind: "rfc2136", server: "192.0.2.53", zone: "ramble.moe", keyName: "my key" };

  it.each<[what: string, changes: Record<string, unknown>, keys: string[]]>([
    ["a mail server's password", { smtp: { ...smtp, auth: "plain", username: "me" } }, ["smtp.from", "smtpPassword"]],
    ["its user's name", { smtp: { ...smtp, auth: "plain" }, smtpPassword: "x" }, ["smtp.from", "smtp.username"]],
    ["its way to sign in", { smtp: { ...smtp, username: "me" } }, ["smtp.auth", "smtp.from"]],
    ["the key of a DNS server", { dns }, ["dns.keyName", "dnsKey"]],
    [
      "the token of a solver",
      {
        certificates: {
          kind: "acme",
          email: "nobody",
          solver: { dns01: { cloudflare: { apiTokenSecretRef: { name: "acme-solver", key: "key" } } } },
        },
      },
      ["acmeSolverKey", "certificates.email"],
    ],
    [
      "its zone",
      { dns: { ...dns, zone: "ample.moe" }, dnsKey: "QUJD".repeat(8) },
      ["dns.keyName", "dns.zone", "dns.zone"],
    ],
  ])("%s", (_what, changes, keys) => {
    expect(keysOf(changes)).toEqual(keys);
  });

  it("and nothing is made of what cannot be read", () => {
    expect(keysOf({ smtp: { ...smtp, from: "me@example.org", auth: "plian", username: "me" } })).toEqual(["smtp.auth"]);
    expect(keysOf({ smtp: { ...smtp, auth: "plain", username: 5 }, smtpPassword: "x" })).toEqual([
      "smtp.from",
      "smtp.username",
    ]);
    expect(keysOf({ dns: { ...dns, keyName: "k", zone: 5 }, dnsKey: "QUJD".repeat(8) })).toEqual(["dns.zone"]);
  });
});
