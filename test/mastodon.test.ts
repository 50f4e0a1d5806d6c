import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { mastodonValues, queues, smtpValues } from "../components/mastodon";
import { planStack, projectFolder } from "../lib/plan";
import { charts, images } from "../versions";
import { copyProject, temporaryFolder } from "./support/folders";
import { named, plannedStack } from "./support/planned";
import { findChart, render } from "./support/rendered-chart";

type Args = Parameters<typeof mastodonValues>[0];

const settings: Args["settings"] = {
  apex: "ramble.moe",
  webHost: "mastodon.ramble.moe",
  owner: "user",
  ownerEmail: "user@ramble.moe",
  registrations: "single",
  locale: "en",
  role: "active",
  epoch: 1,
  standby: "warm",
  maintenance: "off",
  media: { endpoint: "https://s3.example.net", region: "eu", bucket: "media" } as Args["settings"]["media"],
  smtp: { kind: "none" },
  network: { families: ["IPv4"], privateEgress: [], mastodonPrivateEgress: [] },
  images,
};
const values = (change: Partial<Args["settings"]> = {}) =>
  mastodonValues({
    settings: { ...settings, ...change },
    postgres: { host: "postgres-rw", secretName: "postgres-owner" },
    valkey: { host: "valkey", cacheHost: "valkey-cache", secretName: "valkey" },
    media: { secretName: "media" },
    secretsDigest: "0123456789abcdef",
  });

describe("mastodonValues", () => {
  it("runs one of each on the active site and none on a standby", () => {
    const replicas = (v: ReturnType<typeof values>) => [
      v.mastodon.web.replicas,
      v.mastodon.streaming.replicas,
      ...v.mastodon.sidekiq.workers.map((w) => w.replicas),
    ];
    expect(replicas(values())).toEqual([1, 1, 1]);
    expect(replicas(values({ role: "standby" }))).toEqual([0, 0, 0]);
  });

  it("leaves a standby's schema alone: its database is read-only", () => {
    const hooks = (role: "active" | "standby") => values({ role }).mastodon.hooks;
    expect(hooks("active")).toMatchObject({ dbPrepare: { enabled: true }, dbMigrate: { enabled: true } });
    expect(hooks("standby")).toMatchObject({ dbPrepare: { enabled: false }, dbMigrate: { enabled: false } });
  });

  it("migrates nothing in maintenance, where the version is the one that was there before", () => {
    for (const maintenance of ["web", "all"] as const) {
      const off = { dbPrepare: { enabled: false }, dbMigrate: { enabled: false } };
      expect(values({ maintenance }).mastodon.hooks).toMatchObject(off);
    }
  });

  it("works on every queue of Mastodon's in one process, so that scheduler is in exactly one", () => {
    expect(queues.map((q) => q.split(",")[0])).toEqual([
      "default",
      "push",
      "ingress",
      "mailers",
      "pull",
      "scheduler",
      "fasp",
    ]);
    expect(values().mastodon.sidekiq.workers).toHaveLength(1);
  });

  it("holds no secret, only the names of Secrets", () => {
    const v = values();
    expect(v.mastodon.secrets).toEqual({ existingSecret: "mastodon-identity" });
    expect(v.postgresql.existingSecret).toBe("postgres-owner");
    expect(v.redis.existingSecret).toBe("valkey");
    expect(v.redis.cache.existingSecret).toBe("valkey");
    expect(JSON.stringify(v)).not.toMatch(/"(password|secretAccessKey|accessKeyId)":"(?!password)/);
  });

  it("rolls the pods when a Secret they read changes, and not at every upgrade", () => {
    expect(values().podAnnotations).toEqual({ "homestead/secrets": "0123456789abcdef" });
    expect(values().revisionPodAnnotation).toBe(false);
  });

  it("says the digest to every Deployment, and not to the chart, which makes a label of its tag", () => {
    const pinned = { ...images, mastodon: `ghcr.io/mastodon/mastodon:v4.6.2@sha256:${"a".repeat(64)}` };
    const { image, mastodon } = values({ images: pinned });
    expect(image).toEqual({ repository: "ghcr.io/mastodon/mastodon", tag: "v4.6.2" });
    const whole = { repository: "ghcr.io/mastodon/mastodon", tag: `v4.6.2@sha256:${"a".repeat(64)}` };
    expect(mastodon.web.image).toEqual(whole);
    expect(mastodon.sidekiq.workers.map((worker) => worker.image)).toEqual([whole]);
  });

  it("closes registrations by single-user mode only when nobody else may come", () => {
    expect(values().mastodon.singleUserMode).toBe(true);
    expect(values({ registrations: "approval" }).mastodon.singleUserMode).toBe(false);
    expect(values({ registrations: "invitation" }).mastodon.singleUserMode).toBe(false);
  });

  it("turns off what the chart would make by default and we do not want", () => {
    const v = values();
    expect(v.httproute.enabled).toBe(false);
    expect(v.ingress.enabled).toBe(false);
    expect(v.mastodon.createAdmin.enabled).toBe(false);
  });

  it("lets Mastodon reach private addresses only where the stack names them for it: it asks whom a stranger's post names", () => {
    expect(values().mastodon.extraEnvVars).not.toHaveProperty("ALLOWED_PRIVATE_ADDRESSES");
    const ranges = { privateEgress: ["10.9.0.7/32"], mastodonPrivateEgress: ["10.1.0.0/16", "10.2.0.1/32"] };
    const named = values({ network: { families: ["IPv4"], ...ranges } });
    expect(named.mastodon.extraEnvVars).toMatchObject({ ALLOWED_PRIVATE_ADDRESSES: "10.1.0.0/16,10.2.0.1/32" });
    const vaults = values({ network: { families: ["IPv4"], ...ranges, mastodonPrivateEgress: [] } });
    expect(vaults.mastodon.extraEnvVars).not.toHaveProperty("ALLOWED_PRIVATE_ADDRESSES");
  });
});
describe("an upgrade of Mastodon", () => {
  it("waits for a base backup on the active site, and on a standby takes none", () => {
    const home = plannedStack("home");
    const backup = named(home, "mastodon-backup-of-postgres-g1");
    expect(named(home, "mastodon-release").options.dependsOn).toContain(backup.urn);
    expect(backup.inputs).toMatchObject({
      metadata: {
        name: expect.stringMatching(/^postgres-g1-before-mastodon-v\d+\.\d+\.\d+$/) as string,
        annotations: {
          "homestead/made-before": images.mastodon,
          "pulumi.com/waitFor": "jsonpath={.status.phase}=completed",
        },
      },
    });
    // What a version that runs was preceded by is not made again under another name.
    expect(backup.options.ignoreChanges).toEqual(["metadata"]);
    const standby = plannedStack("vps").resources.map(({ name }) => name);
    expect(standby).toContain("mastodon-release");
    expect(standby.filter((name) => name.startsWith("mastodon-backup"))).toEqual([]);
  });

  it("leaves a note of it once it is there whole, which a destroy keeps", () => {
    const home = plannedStack("home");
    const note = named(home, "mastodon-served");
    expect(note.inputs).toMatchObject({
      metadata: { name: "mastodon-served", namespace: "homestead" },
      data: { image: images.mastodon, database: "postgres-g1", epoch: "1" },
    });
    expect(note.options.retainOnDelete).toBe(true);
    expect(note.options.dependsOn).toContain(named(home, "mastodon-release").urn);
    // Its schema is the other site's affair.
    expect(plannedStack("vps").resources.filter(({ name }) => name.startsWith("mastodon-served"))).toEqual([]);
  });

  it("is not waited for where nothing is there yet: a restore serves before its first base backup is uploaded", async () => {
    const edit = (text: string) =>
      text.replace('installed: "there",', 'installed: "missing",').replace('upgrade: "past" }', 'upgrade: "due" }');
    const folder = copyProject({ "lib/checks.ts": edit });
    const plan = await planStack("home", { folder });
    const backup = named(plan, "mastodon-backup-of-postgres-g1");
    // Made as ever, so that the next update finds nothing to change.
    expect(backup.inputs).toEqual(named(plannedStack("home"), "mastodon-backup-of-postgres-g1").inputs);
    expect(backup.options.ignoreChanges).toEqual([]);
    const waiting = plan.resources.filter(({ options }) => options.dependsOn.includes(backup.urn));
    expect(waiting.map(({ name }) => name)).toEqual([]);
    const verification = named(plan, "verification-command").options.dependsOn;
    const serves = ["mastodon-release", "mastodon-owner-account"].map((name) => named(plan, name).urn);
    expect([...verification, ...named(plan, "verification").options.dependsOn]).toEqual(expect.arrayContaining(serves));
  }, 120_000);
});

describe("the time that Sidekiq has to end", () => {
  const release = named(plannedStack("home"), "mastodon-release").inputs;
  const script = path.resolve(projectFolder, release["postrender"] as string);
  const deployment = (name: string) =>
    `---\n# Source: ${name}.yaml\nkind: Deployment\nmetadata:\n  name: mastodon-${name}\nspec:\n  template:\n    spec:\n      containers:\n        - name: mastodon\n`;
  const after = (text: string) => spawnSync(script, { input: text, encoding: "utf8" });

  it("is longer than the 25 s that it takes for its jobs, and nobody else's is changed", () => {
    const [web, sidekiq] = [deployment("web"), deployment("sidekiq-all-queues")];
    const longer = sidekiq.replace("      containers", "      terminationGracePeriodSeconds: 60\n      containers");
    expect(longer).not.toBe(sidekiq);
    expect(after(web + sidekiq + web)).toMatchObject({ status: 0, stdout: web + longer + web });
  });

  it("is not forgotten with another chart: then nothing is installed", () => {
    const { status, stderr } = after(deployment("web") + deployment("jobs"));
    expect([status, stderr]).toEqual([
      1,
      "homestead:charts.mastodon: the chart makes no Deployment mastodon-sidekiq-* into which the time that Sidekiq has to end " +
        `could be written (components/sidekiq-grace.sh); allowed: a version that renders as ${charts.mastodon.version} does; ` +
        "mend: pulumi config rm --path 'homestead:charts.mastodon' --stack <site>\n",
    ]);
  });

  it("can be said by Helm, which runs a file and nothing else", () => {
    expect(() => fs.accessSync(script, fs.constants.X_OK)).not.toThrow();
  });

  it("is in what the official chart makes", ({ skip }) => {
    const folder = temporaryFolder();
    const found = findChart("mastodon", folder);
    if (found.kind === "missing") skip(found.why);
    else {
      const made = render(found, release, folder).filter(({ kind }) => kind === "Deployment");
      const seconds = ({ spec }: (typeof made)[number]) =>
        (spec as { template: { spec: { terminationGracePeriodSeconds?: number } } }).template.spec
          .terminationGracePeriodSeconds;
      const name = ({ metadata }: (typeof made)[number]) => (metadata as { name: string }).name;
      expect(Object.fromEntries(made.map((one) => [name(one), seconds(one)]))).toEqual({
        "mastodon-web": undefined,
        "mastodon-streaming": undefined,
        "mastodon-sidekiq-all-queues": 60,
      });
    }
  });
});

describe("smtpValues", () => {
  const server = {
    kind: "server" as const,
    host: "smtp.example.net",
    port: 587,
    from: "mastodon@ramble.moe",
    tls: "starttls" as const,
    auth: "plain" as const,
    username: "user",
  };

  it("sends nothing when there is no server, and still gives the Secret the chart asks for", () => {
    expect(smtpValues({ kind: "none" })).toMatchObject({ deliveryMethod: "test", existingSecret: "mastodon-smtp" });
  });

  it("insists on STARTTLS when that is asked for: a silent fall-back would show the password", () => {
    expect(smtpValues(server)).toMatchObject({ enableStartTls: "always", tls: false, opensslVerifyMode: "peer" });
  });

  it("speaks TLS from the first byte, or none at all, when told so", () => {
    expect(smtpValues({ ...server, tls: "tls" })).toMatchObject({ enableStartTls: "never", tls: true });
    expect(smtpValues({ ...server, tls: "none", auth: "none" })).toMatchObject({
      enableStartTls: "never",
      tls: false,
      opensslVerifyMode: "none",
      authMethod: "none",
    });
  });
});
