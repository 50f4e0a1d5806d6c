/**
 * A pod reads its Secrets as it starts, so a changed value has to be another pod: its template holds a digest of them all.
 * What a part reads is taken from the plan, where a Secret shows its values by their names.
 */
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { podSecrets } from "../../components/mastodon";
import { digest } from "../../lib/digest";
import { at } from "../../lib/plan";
import type { Plan } from "../../lib/plan";
import type { Json } from "../../lib/plan/mask";
import { Placeholders } from "../../lib/plan/placeholders";
import { optionalSecrets, parseSettings, requiredSecrets } from "../../settings";
import { configurationOf } from "../support/configuration";
import { named, ofType, plannedStack } from "../support/planned";

const configured: readonly string[] = [...requiredSecrets, ...optionalSecrets];

/** Every name of a Secret in a pod's template or in a chart's values. */
function secretsNamed(value: Json | undefined): string[] {
  if (Array.isArray(value)) return value.flatMap(secretsNamed);
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const name =
      key === "existingSecret"
        ? inner
        : key === "secret"
          ? at(inner, "secretName")
          : key === "secretKeyRef" || key === "secretRef"
            ? at(inner, "name")
            : undefined;
    return typeof name === "string" ? [name] : secretsNamed(inner);
  });
}

/** The secrets that a part's pods are given, by their names in the configuration; a made password by its resource's. */
function readBy(plan: Plan, part: string): string[] {
  const { inputs } = named(plan, part);
  const names = secretsNamed(at(inputs, "spec.template") ?? at(inputs, "values"));
  const secrets = ofType(plan, "kubernetes:core/v1:Secret").filter((secret) =>
    names.includes(at(secret.inputs, "metadata.name") as string),
  );
  const texts = secrets.flatMap(({ inputs: of }) => Object.values(at(of, "stringData") ?? {}) as string[]);
  // What is no secret of the configuration is shown by its own key: the vault's region, an empty password.
  const isSecret = (name: string) => configured.includes(name) || name.endsWith("-password");
  return [...new Set(texts.flatMap((text) => /<(.+)>/.exec(text)?.[1] ?? []).filter(isSecret))].sort();
}

/** Every part of a stack that lasts, with the secrets that it reads. What runs once reads them each time anew. */
function readers(plan: Plan): Record<string, string[]> {
  const lasting = plan.resources.filter(({ type }) => /:(Deployment|StatefulSet|DaemonSet|Release)$/.test(type));
  const reading = lasting.map(({ name }) => [name, readBy(plan, name)] as const).filter(([, keys]) => keys.length > 0);
  return Object.fromEntries(reading);
}

const mastodonReads = [
  "activeRecordDeterministicKey",
  "activeRecordKeyDerivationSalt",
  "activeRecordPrimaryKey",
  "databasePassword",
  "mediaAccessKeyId",
  "mediaSecretAccessKey",
  "secretKeyBase",
  "valkey-password",
  "vapidPrivateKey",
  "vapidPublicKey",
];
const vault = ["vaultAccessKeyId", "vaultSecretAccessKey"];

const digestOf = (args: Parameters<typeof podSecrets>[0]) =>
  new Promise<string>((resolve) => void podSecrets(args).apply(resolve));

/** What Mastodon's pods are told of, with the values of a plan and, in place of some, others. */
function mastodonWith(other: string): Promise<string> {
  const smtp = { kind: "server", host: "mail.example.net", from: "a@ramble.moe", auth: "plain", username: "mail" };
  const { secrets, ...settings } = parseSettings(configurationOf("home", { smtp, smtpPassword: "a password" }));
  const another = other in secrets ? { [other]: pulumi.secret("another") } : {};
  const username = other === "smtp.username" ? { smtp: { ...settings.smtp, username: "another" } } : {};
  const text = (name: string) => (other === name ? "another" : `the ${name}`);
  return digestOf({
    settings: { ...settings, ...username, secrets: { ...secrets, ...another } },
    valkey: { password: text("valkey-password") },
    search: { host: "search", port: 9200, secretName: "search", secretDigest: text("search-password") },
  });
}

describe("the secrets that pods read at their start", () => {
  it("are these: who reads another one has to be started anew by it", () => {
    expect(readers(plannedStack("home"))).toEqual({
      "mastodon-release": mastodonReads,
      "valkey-queue": ["valkey-password", ...vault],
      "valkey-cache": ["valkey-password"],
    });
    // Its store has one pair of keys for both buckets.
    expect(readers(plannedStack("dev"))).toMatchObject({ "object-store-server": vault });
  });

  it.each([...mastodonReads, "smtpPassword", "smtp.username", "search-password"])(
    "start Mastodon's pods anew when they change: %s",
    async (key) => {
      expect(await mastodonWith(key)).not.toBe(await mastodonWith("nothing"));
    },
  );

  it("start nobody anew who does not read them", async () => {
    for (const key of ["ownerPassword", ...vault]) {
      expect(await mastodonWith(key), key).toBe(await mastodonWith("nothing"));
    }
  });

  it("are in the templates of the pods, by a digest that says nothing of them", async () => {
    const placeholders = new Placeholders();
    const [id = "", key = ""] = vault.map((name) => placeholders.of(name));
    const password = placeholders.of("valkey-password");
    const annotations = (plan: Plan, part: string) =>
      at(named(plan, part).inputs, "spec.template.metadata.annotations");
    const [home, dev] = [plannedStack("home"), plannedStack("dev")];
    expect(annotations(home, "valkey-queue")).toMatchObject({
      "homestead/secret": digest(password),
      "homestead/vault": digest(JSON.stringify([id, key])),
    });
    expect(annotations(home, "valkey-cache")).toMatchObject({ "homestead/secret": digest(password) });
    expect(annotations(dev, "object-store-server")).toMatchObject({
      "homestead/secret": digest(JSON.stringify([id, key])),
    });
    const settings = parseSettings(configurationOf("home"));
    expect(at(named(home, "mastodon-release").inputs, "values.podAnnotations")).toEqual({
      "homestead/secrets": await digestOf({ settings, valkey: { password } }),
    });
  });
});
