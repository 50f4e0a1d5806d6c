import { describe, expect, test } from "vitest";
import { atLeast } from "./src/build-info.ts";
import { isServiceLink, unknownVariables } from "./src/known-env.ts";
import { objectUrl } from "./src/settings.ts";
import { settingsOf } from "./support/settings.ts";

describe("the environment", () => {
  test("knows what Mastodon, the chart, containers and Kubernetes set", () => {
    const names = [
      "LOCAL_DOMAIN DB_PASS REDIS_PASSWORD SIDEKIQ_REDIS_HOST CACHE_REDIS_URL S3_ALIAS_HOST SMTP_SERVER BULK_SMTP_LOGIN OIDC_ENABLED",
      "STREAMING_CLUSTER_NUM MALLOC_ARENA_MAX RAILS_LOG_LEVEL LOG_LEVEL NODE_EXTRA_CA_CERTS OTEL_SERVICE_NAME_PREFIX PATH HOSTNAME HOME",
      "KUBERNETES_SERVICE_HOST KUBERNETES_PORT_443_TCP_ADDR MASTODON_SIDEKIQ_READY_FILENAME SSL_CERT_FILE",
    ].flatMap((line) => line.split(" "));
    expect(unknownVariables(Object.fromEntries(names.map((name) => [name, "1"])))).toEqual([]);
  });

  test("finds misspelt and foreign names", () => {
    const env = {
      LOCAL_DOMIAN: "x",
      S3_ALIASHOST: "x",
      OWNER_PASSWORD: "x",
      DB_PASSWORD: "x",
      REDIS_PASS: "x",
      FOO_PORT: "1",
    };
    expect(unknownVariables(env)).toEqual(Object.keys(env).sort());
    expect(unknownVariables(env, ["OWNER_PASSWORD"])).not.toContain("OWNER_PASSWORD");
  });

  test.each([
    ["MASTODON_WEB_SERVICE_HOST", "10.0.0.1", true],
    ["MASTODON_WEB_SERVICE_PORT", "80", true],
    ["MASTODON_WEB_SERVICE_PORT_HTTP", "80", true],
    ["MASTODON_WEB_PORT", "tcp://10.0.0.1:80", true],
    ["MASTODON_WEB_PORT", "80", false],
    ["MASTODON_WEB_PORT_80_TCP", "tcp://10.0.0.1:80", true],
    ["MASTODON_WEB_PORT_80_TCP_PROTO", "tcp", true],
    ["MASTODON_WEB_PORT_80_TCP_NAME", "x", false],
  ])("a Service's link: %s=%s", (name, value, expected) => expect(isServiceLink(name, value)).toBe(expected));
});

describe("settings", () => {
  test("a Service named redis shadows REDIS_PORT, and that is said", () => {
    expect(() => settingsOf({ REDIS_PORT: "tcp://10.0.0.1:6379" })).toThrow(/Invalid REDIS_PORT/);
  });

  test.each([
    [{ DB_HOST: "" }, /neither DB_HOST nor DATABASE_URL/],
    [{ REDIS_HOST: "" }, /neither REDIS_HOST nor REDIS_URL/],
    [{ SECRET_KEY_BASE: "" }, /secret_key_base/],
    [{ ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT: "" }, /ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT/],
    [{ LIMITED_FEDERATION_MODE: "true" }, /does not implement LIMITED_FEDERATION_MODE/],
    [{ REDIS_NAMESPACE: "x" }, /no longer supported/],
    [{ RAILS_ENV: "development" }, /only has "production"/],
    [{ MASTODON_SIDEKIQ_READY_FILENAME: "../x" }, /not a valid filename/],
  ])("refuses %j", (env, reason) => expect(() => settingsOf(env)).toThrow(reason));

  test("Sidekiq and the cache have Redis servers of their own, or the common one", () => {
    const common = settingsOf({ REDIS_PASSWORD: "a" });
    expect(common.cacheRedis).toEqual(common.redis);
    const own = settingsOf({ CACHE_REDIS_HOST: "cache", SIDEKIQ_REDIS_URL: "redis://jobs:1" });
    expect([own.redis.host, own.cacheRedis.host, own.sidekiqRedis.url]).toEqual([
      "redis.test",
      "cache",
      "redis://jobs:1",
    ]);
  });

  test("DATABASE_URL comes before the DB_ variables", () => {
    expect(settingsOf({ DATABASE_URL: "postgresql://a%40b:c@d:6543/e", DB_POOL: "3" }).database).toEqual({
      host: "d",
      port: 6543,
      user: "a@b",
      password: "c",
      database: "e",
      ssl: "prefer",
      pool: 3,
    });
  });

  const s3 = { S3_ENABLED: "true", S3_BUCKET: "media", S3_ENDPOINT: "https://s3.test/base/", S3_HOSTNAME: "s3.test" };

  test.each([
    [{ ...s3 }, "https://s3.test/media/", "https://s3.test/base/media/a/b.png"],
    [{ ...s3, S3_ALIAS_HOST: "files.test" }, "https://files.test/", "https://s3.test/base/media/a/b.png"],
    [
      { ...s3, S3_ALIAS_HOST: "files.test", S3_PROTOCOL: "http" },
      "http://files.test/",
      "https://s3.test/base/media/a/b.png",
    ],
    // The name says the opposite of what it does.
    [{ ...s3, S3_OVERRIDE_PATH_STYLE: "true" }, "https://s3.test/media/", "https://media.s3.test/base/a/b.png"],
  ])("where files are put and found: %j", (env, publicBase, put) => {
    const { media } = settingsOf(env);
    expect(media.publicBase).toBe(publicBase);
    expect(media.kind === "s3" && objectUrl(media, "a/b.png").href).toBe(put);
  });

  test("without S3, files are under public/system", () => {
    expect(settingsOf({}).media).toEqual({
      kind: "disk",
      root: "/opt/mastodon/public/system",
      publicBase: "https://web.test/system/",
    });
  });

  test("an empty S3_PERMISSION means no ACL, a missing one Mastodon's default", () => {
    expect(settingsOf({ ...s3, S3_PERMISSION: "" }).media).toMatchObject({ permission: "" });
    expect(settingsOf(s3).media).toMatchObject({ permission: "public-read" });
  });
});

test.each([
  ["4.6.2", "4.6.0", true],
  ["4.6.2", "4.6.3", false],
  ["4.10.0", "4.9.9", true],
  ["4.7.0-beta.1", "4.7.0", true],
])("release %s is at least %s: %s", (version, wanted, expected) => expect(atLeast(version, wanted)).toBe(expected));
