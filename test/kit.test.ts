import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@kubernetes/client-node";
import { Decrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { describe, expect, inject, onTestFinished, test, vi } from "vitest";
import {
  changedSince,
  commandsOf,
  filesIn,
  newerThanKit,
  staysNewer,
  usageOf,
  writeKitFile,
  writeKitFolder,
} from "../lib/kit/folder";
import { gatherKit } from "../lib/kit/gather";
import { openKit, sealKit } from "../lib/kit/kit";
import type { Kit } from "../lib/kit/kit";
import { minify } from "../lib/kit/kubeconfig";
import { kubeClient, kubeconfigPath, kubectl } from "../lib/kube";
import { PulumiCli } from "../lib/pulumi-cli";
import { oldestNode } from "../lib/supported-node";
import { readStackConfig } from "../lib/stack-config";
import { UserError } from "../lib/user-error";
import { optionalSecrets, parseSettings, requiredSecrets } from "../settings";
import type { Settings, StackName } from "../settings";
import { run } from "./support/command";
import type { Ended } from "./support/command";
import { configurationOf, secretValues } from "./support/configuration";
import { fakePulumi } from "./support/fake-pulumi";
import { copyProject, temporaryFolder } from "./support/folders";

const project = inject("example");
const passphrase = "correct horse battery staple";
const backend = "s3://state?region=eu-central-003";
const secretNames: readonly string[] = [...requiredSecrets, ...optionalSecrets];
/** Enough to be scrypt, and fast. */
const workFactor = 8;

/** Two clusters as k3s writes them, one with its files beside it. */
function kubeconfig(change: (text: string) => string = (text) => text): string {
  const folder = temporaryFolder();
  fs.writeFileSync(path.join(folder, "ca.pem"), "an authority");
  fs.writeFileSync(path.join(folder, "key.pem"), "a private key");
  const file = path.join(folder, "config");
  fs.writeFileSync(
    file,
    change(`apiVersion: v1
kind: Config
current-context: other
contexts:
  - { name: home, context: { cluster: home, user: home } }
  - { name: vps, context: { cluster: vps, user: vps } }
  - { name: other, context: { cluster: other, user: other } }
clusters:
  - { name: home, cluster: { server: "https://192.0.2.1:6443", certificate-authority: ca.pem } }
  - { name: vps, cluster: { server: "https://198.51.100.20:6443", certificate-authority-data: YQ== } }
  - { name: other, cluster: { server: "https://192.0.2.9:6443" } }
users:
  - { name: home, user: { client-certificate-data: YQ==, client-key: key.pem } }
  - { name: vps, user: { token: vps-token } }
  - { name: other, user: { token: other-token } }
`),
  );
  return file;
}

interface World {
  sites?: StackName[];
  environment?: NodeJS.ProcessEnv;
  names?: string[];
  folder?: string;
  kube?: string;
  /** What `pulumi whoami` says, where that is not the address that is set. */
  told?: string;
  changes?: Record<string, unknown>;
  /** Of one stack, in place of those. */
  own?: Partial<Record<StackName, Record<string, unknown>>>;
}

/** A kit of the example's stack files. */
function gather({
  sites = ["home", "vps"],
  names = [],
  folder,
  kube,
  told,
  changes,
  own,
  ...more
}: World = {}): Promise<Kit> {
  const given = {
    PULUMI_BACKEND_URL: backend,
    PULUMI_CONFIG_PASSPHRASE: "it's right",
    AWS_ACCESS_KEY_ID: "state-id",
    AWS_SECRET_ACCESS_KEY: "state-secret",
    ...more.environment,
  };
  const environment = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const fake = fakePulumi(Object.fromEntries(sites.map((site) => [site, {}])));
  vi.stubEnv("KUBECONFIG", kube ?? kubeconfig());
  onTestFinished(() => void vi.unstubAllEnvs());
  return gatherKit({
    folder: folder ?? project,
    pulumi: new PulumiCli(project, { ...fake.environment, ...environment, FAKE_PULUMI_URL: told }),
    environment,
    load: (site) => Promise.resolve(siteOf(site as StackName, own?.[site as StackName] ?? changes)),
    names,
    now: new Date("2026-11-23T09:00:00Z"),
  });
}

function siteOf(site: StackName, changes: Record<string, unknown> = {}) {
  const raw = configurationOf(site, changes);
  const secrets = Object.entries(raw.config).map(([key, value]) => [key.replace("homestead:", ""), value] as const);
  return {
    settings: parseSettings(raw),
    secrets: Object.fromEntries(secrets.filter(([key]) => secretNames.includes(key))),
  };
}

const mode = (file: string) => (fs.statSync(file).mode & 0o777).toString(8);

describe("a kit", () => {
  test("comes out as it went in, with its passphrase", async () => {
    const kit = await gather();
    const sealed = await sealKit(kit, { passphrase }, workFactor);
    for (const secret of [...secretValues, "state-secret"]) {
      expect(Buffer.from(sealed).toString("latin1")).not.toContain(secret);
    }
    expect(await openKit("k.age", sealed, { passphrase })).toEqual(kit);
  });

  test("for a recipient opens with that one's identity, and with no other", async () => {
    const identity = await generateIdentity();
    const kit = await gather();
    const sealed = await sealKit(kit, { recipients: [await identityToRecipient(identity)] });
    expect(await openKit("k.age", sealed, { identities: [identity] })).toEqual(kit);
    await expect(openKit("k.age", sealed, { identities: [await generateIdentity()] })).rejects.toThrow(
      "k.age: none of the identities opens it; nothing was written",
    );
    await expect(sealKit(kit, { recipients: ["age1nobody"] })).rejects.toThrow(
      "'age1nobody' is no age recipient (age1..., as age-keygen prints it)",
    );
    await expect(openKit("k.age", sealed, { identities: ["AGE-SECRET-KEY-1X"] })).rejects.toThrow(
      "the identity file holds a line that is no age identity (AGE-SECRET-KEY-1...)",
    );
  });

  test("says in one line why it does not open", async () => {
    const sealed = await sealKit(await gather(), { passphrase }, workFactor);
    const opening = (content: Uint8Array, with_ = passphrase) => openKit("k.age", content, { passphrase: with_ });
    await expect(opening(sealed, "wrong")).rejects.toThrow(/^k\.age: wrong passphrase; nothing was written$/);
    const damaged = "k.age is damaged or cut short: take another copy; nothing was written";
    for (const length of [60, 250, 5000, sealed.length - 1]) {
      await expect(opening(sealed.slice(0, length))).rejects.toThrow(damaged);
    }
    const flipped = sealed.slice();
    flipped[sealed.length - 100] = (flipped[sealed.length - 100] ?? 0) ^ 1;
    await expect(opening(flipped)).rejects.toThrow(damaged);
    await expect(opening(new Uint8Array())).rejects.toThrow("k.age is no kit: it is not encrypted with age");
    const another = await sealKit({ version: 2 } as unknown as Kit, { passphrase }, workFactor);
    await expect(opening(another)).rejects.toThrow("k.age opens, but is no kit that this version knows");
    await expect(openKit("my kit.age", another, { passphrase })).rejects.toThrow("age -d 'my kit.age';");
  });

  test("of before there were files in it still opens", async () => {
    const { files, ...kit } = await gather();
    const sealed = await sealKit(kit as Kit, { passphrase }, workFactor);
    expect(await openKit("k.age", sealed, { passphrase })).toEqual({ ...kit, files });
  });

  test("of before it said how it is used still opens", async () => {
    const { use, ...kit } = await gather();
    expect(use.length).toBeGreaterThan(0);
    const sealed = await sealKit(kit as Kit, { passphrase }, workFactor);
    expect(await openKit("k.age", sealed, { passphrase })).toEqual({ ...kit, use: [] });
  });

  test("shows whoever has only age how it is used, before anything else", async () => {
    const git = { remote: "https://git.example/me/home.git", current: true };
    const use = usageOf({ ...(await gather()), git });
    expect(use).toEqual([
      "Break-glass kit of 2026-11-23T09:00:00.000Z, of a server that homestead runs. Everything in it is secret.",
      `Active when it was made: home. Needed: git, Node.js ${oldestNode} or newer, the Pulumi CLI on PATH, the internet.`,
      "The server's site is gone. In a shell, one after the other, with the encrypted file in place of KIT.age:",
      "  git clone 'https://git.example/me/home.git' homestead && cd homestead && npm ci",
      "  npx homestead kit open KIT.age",
      "  npx homestead switch vps --lost",
      "Before the last one, the line that the second one prints above it: it sets the passphrase, the state's address and keys.",
      "Without a clone: below are the stacks' files and secrets, the vaults with their keys, and the clusters' kubeconfigs.",
    ]);
    const sealed = await sealKit(await gather(), { passphrase }, workFactor);
    const decrypter = new Decrypter();
    decrypter.addPassphrase(passphrase);
    const text = await decrypter.decrypt(sealed, "text");
    expect(text).toMatch(/^\{\n {2}"use": \[\n {4}"Break-glass kit of /);
    expect(text.slice(0, text.indexOf("]"))).toContain('\n    "  npx homestead switch vps --lost",\n');
    expect(usageOf({ ...(await gather()), git, sites: ["home"] })[5]).toBe("  npx homestead status home");
  });

  test("whose names lead out of the folder is none", async () => {
    const kit = { ...(await gather()), stackFiles: { "../../.profile": "evil" } };
    const sealed = await sealKit(kit, { passphrase }, workFactor);
    await expect(openKit("k.age", sealed, { passphrase })).rejects.toThrow("is no kit that this version knows");
  });
});

describe("what goes into a kit", () => {
  test("the state's address, the passphrase and the keys of a backend in a bucket, and no other variable", async () => {
    const { environment } = await gather({ environment: { OTHER: "x", AZURE_STORAGE_KEY: "y" } });
    expect(environment).toEqual({
      PULUMI_BACKEND_URL: backend,
      PULUMI_CONFIG_PASSPHRASE: "it's right",
      AWS_ACCESS_KEY_ID: "state-id",
      AWS_SECRET_ACCESS_KEY: "state-secret",
    });
  });

  test.each<[what: string, told: string, set: string | undefined, address: string]>([
    ["Pulumi Cloud's", "https://app.pulumi.com/me", undefined, "https://api.pulumi.com"],
    ["Pulumi Cloud's, which is set", "https://app.pulumi.com/me", "https://api.pulumi.com", "https://api.pulumi.com"],
    ["a self-hosted one's", "https://app.cloud.example/me", undefined, "https://api.cloud.example"],
    [
      "a self-hosted one's, which is set",
      "https://see.cloud.example/me",
      "https://cloud.example",
      "https://cloud.example",
    ],
    ["a bucket's", "azblob://state", undefined, "azblob://state"],
  ])("the address of the state that the CLI takes, in the README too: %s", async (_, told, set, address) => {
    const kit = await gather({ told, environment: { PULUMI_BACKEND_URL: set } });
    expect(kit.environment["PULUMI_BACKEND_URL"]).toBe(address);
    expect(filesIn(kit, "/kit")["README.txt"]).toContain(`State: ${address}. Commit:`);
    expect(kit.warnings.filter((warning) => warning.includes("the API"))).toEqual([]);
  });

  test("no profile whose file stays here: on another machine the AWS SDK fails for want of it", async () => {
    const { environment, warnings } = await gather({ environment: { AWS_PROFILE: "me", AWS_REGION: "x" } });
    expect(environment).toMatchObject({ AWS_ACCESS_KEY_ID: "state-id", AWS_REGION: "x" });
    expect(environment).not.toHaveProperty("AWS_PROFILE");
    expect(warnings.filter((warning) => warning.startsWith("s3:"))).toEqual([]);
  });

  const noKeys = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };
  const needsKeys =
    "s3: needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on another machine, not all of it set here; a profile's file (~/.aws) is not in the kit: export what is missing and make the kit again";
  const profiles = (text: string) => {
    const file = path.join(temporaryFolder(), "credentials");
    fs.writeFileSync(file, text);
    return file;
  };
  const section = (name: string) => `[${name}]\naws_access_key_id = id\naws_secret_access_key = of ${name}\n`;

  test("the file that a variable names", async () => {
    const text = `${section("me")}${section("default")}`;
    const kit = await gather({
      environment: { ...noKeys, AWS_PROFILE: "me", AWS_SHARED_CREDENTIALS_FILE: profiles(text) },
    });
    expect(kit.files).toEqual({ AWS_SHARED_CREDENTIALS_FILE: text });
    expect(kit.environment).toMatchObject({ AWS_PROFILE: "me" });
    expect(kit.environment).not.toHaveProperty("AWS_SHARED_CREDENTIALS_FILE");
    expect(kit.warnings.join("\n")).not.toContain("AWS_");
    const key = path.join(temporaryFolder(), "key.json");
    fs.writeFileSync(key, "{}");
    const named = { environment: { GOOGLE_APPLICATION_CREDENTIALS: key }, names: ["GOOGLE_APPLICATION_CREDENTIALS"] };
    expect((await gather(named)).files).toEqual({ GOOGLE_APPLICATION_CREDENTIALS: "{}" });
  });

  test.each<[string, string]>([
    ["another profile's keys", section("other")],
    ["no keys", "[me]\nrole_arn = arn\nsource_profile = other\n[other]\naws_access_key_id = id\n"],
  ])("a warning where that file has %s", async (_, text) => {
    const environment = { ...noKeys, AWS_PROFILE: "me", AWS_SHARED_CREDENTIALS_FILE: profiles(text) };
    expect((await gather({ environment })).warnings).toContain(needsKeys);
  });

  const temporary =
    "s3: the keys are temporary (a session token comes with them), and when they have run out, in hours, the kit opens nothing: export keys that last, of a user that may do nothing else, without AWS_SESSION_TOKEN, and make the kit again";
  const ofTime = (warnings: readonly string[]) => warnings.filter((warning) => warning.includes("temporary"));

  test("a warning of keys that will not last, and the keys", async () => {
    const kit = await gather({ environment: { AWS_SESSION_TOKEN: "token" } });
    expect(kit.environment).toMatchObject({ AWS_ACCESS_KEY_ID: "state-id", AWS_SESSION_TOKEN: "token" });
    expect(ofTime(kit.warnings)).toEqual([temporary]);
    expect(ofTime((await gather()).warnings)).toEqual([]);
    expect(ofTime((await gather({ environment: { AWS_SESSION_TOKEN: "" } })).warnings)).toEqual([]);
    // Of no use to another backend.
    const elsewhere = { PULUMI_BACKEND_URL: "azblob://state", AZURE_STORAGE_KEY: "x", AWS_SESSION_TOKEN: "token" };
    expect(ofTime((await gather({ environment: elsewhere })).warnings)).toEqual([]);
  });

  test("the same of a file's, where it is the file that opens the state", async () => {
    const lasting = profiles(section("default"));
    const sessions = profiles(`${section("default")}aws_session_token = token\n`);
    const warned = async (environment: NodeJS.ProcessEnv) => ofTime((await gather({ environment })).warnings);
    expect(await warned({ ...noKeys, AWS_SHARED_CREDENTIALS_FILE: sessions })).toEqual([temporary]);
    expect(await warned({ ...noKeys, AWS_SHARED_CREDENTIALS_FILE: lasting, AWS_SESSION_TOKEN: "token" })).toEqual([]);
    expect(await warned({ AWS_SHARED_CREDENTIALS_FILE: sessions })).toEqual([]);
  });

  test("the passphrase from its file, where it is in one", async () => {
    const file = path.join(temporaryFolder(), "passphrase");
    fs.writeFileSync(file, "from a file\n");
    const files = { PULUMI_CONFIG_PASSPHRASE: undefined, PULUMI_CONFIG_PASSPHRASE_FILE: file };
    expect((await gather({ environment: files })).environment["PULUMI_CONFIG_PASSPHRASE"]).toBe("from a file");
    await expect(gather({ environment: { ...files, PULUMI_CONFIG_PASSPHRASE_FILE: "/nothing" } })).rejects.toThrow(
      "PULUMI_CONFIG_PASSPHRASE_FILE: /nothing cannot be read",
    );
  });

  test("variables that are named, or a word that they are not set", async () => {
    const { environment } = await gather({ names: ["DNS_TOKEN"], environment: { DNS_TOKEN: "token" } });
    expect(environment["DNS_TOKEN"]).toBe("token");
    await expect(gather({ names: ["DNS_TOKEN"] })).rejects.toThrow("--env DNS_TOKEN: this variable is not set");
  });

  test("the stack files byte for byte, every secret, and the vault", async () => {
    const { stackFiles, secrets, vaults } = await gather();
    for (const name of ["Pulumi.yaml", "Pulumi.home.yaml", "Pulumi.vps.yaml"]) {
      expect(stackFiles[name]).toBe(fs.readFileSync(path.join(project, name), "utf8"));
    }
    expect(Object.keys(secrets["vps"] ?? {}).sort()).toEqual([...requiredSecrets].sort());
    expect(vaults["vps"]).toEqual({
      endpoint: "https://s3.eu-central-003.backblazeb2.com",
      region: "eu-central-003",
      bucket: "ramble-vault",
      accessKeyId: secrets["vps"]?.["vaultAccessKeyId"],
      secretAccessKey: secrets["vps"]?.["vaultSecretAccessKey"],
    });
  });

  test.each<[string, World, string]>([
    ["keys of the backend that are not in the environment", { environment: noKeys }, needsKeys],
    [
      "a profile in place of the keys",
      { environment: { ...noKeys, AWS_PROFILE: "me", AWS_REGION: "eu-central-003" } },
      needsKeys,
    ],
    ["half of the keys", { environment: { AWS_SECRET_ACCESS_KEY: "" } }, needsKeys],
    [
      "a log-in of az in place of a key",
      { environment: { PULUMI_BACKEND_URL: "azblob://state", AZURE_STORAGE_ACCOUNT: "me" } },
      "azblob: needs AZURE_STORAGE_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING, or AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_SECRET on another machine, not all of it set here; the log-in of az (~/.azure) is not in the kit: export what is missing and make the kit again",
    ],
    [
      "a log-in of gcloud in place of a key",
      { environment: { PULUMI_BACKEND_URL: "gs://state", GOOGLE_PROJECT: "me" } },
      "gs: needs GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_CREDENTIALS on another machine, not all of it set here; the log-in of gcloud (~/.config/gcloud) is not in the kit: export what is missing and make the kit again",
    ],
    [
      "a log-in of Pulumi Cloud in place of a token",
      { told: "https://app.pulumi.com/me", environment: { PULUMI_BACKEND_URL: undefined } },
      "https: needs PULUMI_ACCESS_TOKEN on another machine, not all of it set here; the log-in of pulumi (~/.pulumi) is not in the kit: export what is missing and make the kit again",
    ],
    [
      "an API whose address nobody tells",
      { told: "https://see.cloud.example/me", environment: { PULUMI_BACKEND_URL: undefined } },
      "https://see.cloud.example/me is where the state is seen, and perhaps not where the API is: set PULUMI_BACKEND_URL to what pulumi login was given, and make the kit again",
    ],
    [
      "a state that is on this machine only",
      { environment: { PULUMI_BACKEND_URL: "file:///here" } },
      "Pulumi's state is at file:///here, on this machine: if it burns, so does the state (pulumi stack export, pulumi login to a bucket, pulumi stack import)",
    ],
    [
      "a variable that names a file",
      { environment: { PULUMI_BACKEND_URL: "gs://state", GOOGLE_APPLICATION_CREDENTIALS: "/root/key.json" } },
      "GOOGLE_APPLICATION_CREDENTIALS names the file /root/key.json, which is not in the kit",
    ],
    ["a site that is not there yet", { sites: ["home"] }, "there is no stack vps yet"],
    [
      "a command for DNS, whose variables nobody knows",
      { changes: { dns: { kind: "command", command: "./dns.sh" } } },
      "dns of home and vps is a command: if it needs variables, name them (--env <name>)",
    ],
  ])("warns of %s", async (_, world, warning) => {
    expect((await gather(world)).warnings).toContain(warning);
  });

  test("nothing without a stack of a site", async () => {
    await expect(gather({ sites: ["dev"] })).rejects.toMatchObject({
      message: "this backend has no stack of a site",
      mend: "npx homestead identity create for a new server; pulumi login <url of the state> where another backend has it",
    });
  });
});

describe("where the clone comes from", () => {
  const clone = () => {
    const folder = copyProject();
    const git = (...args: string[]) =>
      execFileSync("git", ["-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", ...args], { stdio: "pipe" });
    git("init", "--initial-branch=main");
    git("add", "Pulumi.yaml", "Pulumi.home.yaml", "Pulumi.vps.yaml");
    git("commit", "-m", "x");
    return { folder, git };
  };

  test("a commit that is pushed is enough; what is not is copied from the kit", async () => {
    const { folder, git } = clone();
    const alone = await gather({ folder });
    expect(alone.git).toEqual({ commit: expect.stringMatching(/^[0-9a-f]{40}$/) as string, current: false });
    expect(alone.warnings).toContain("the clone has no remote: keep a copy of it where no site can burn it");
    expect(commandsOf(alone, "/kit")[1]).toBe(". '/kit/env' && cp '/kit'/Pulumi*.yaml .");

    const remote = temporaryFolder();
    execFileSync("git", ["init", "--bare", remote], { stdio: "pipe" });
    git("remote", "add", "origin", remote);
    git("push", "origin", "main");
    const pushed = await gather({ folder });
    expect(pushed.git).toMatchObject({ remote, current: true });
    expect(commandsOf(pushed, "/kit")[1]).toBe(". '/kit/env'");

    fs.appendFileSync(path.join(folder, "Pulumi.home.yaml"), "# changed\n");
    const changed = await gather({ folder });
    expect(changed.git.current).toBe(false);
    expect(changed.warnings).toContain(
      "the stack files are not all committed and pushed: the kit brings them as they are, a clone alone would not",
    );
  });
});

describe("a kubeconfig in a kit", () => {
  test("has the sites' contexts only, with the files that it named inside it", async () => {
    const { kubeconfigs } = await gather();
    expect(kubeconfigs.map(({ name }) => name)).toEqual(["kubeconfig"]);
    const config = new k8s.KubeConfig();
    config.loadFromString(kubeconfigs[0]?.text ?? "");
    expect(config.getContexts().map(({ name }) => name)).toEqual(["home", "vps"]);
    expect(config.getCluster("home")).toMatchObject({
      server: "https://192.0.2.1:6443",
      caData: Buffer.from("an authority").toString("base64"),
    });
    expect(config.getUser("home")?.keyData).toBe(Buffer.from("a private key").toString("base64"));
    expect(config.getUser("vps")?.token).toBe("vps-token");
    expect(kubeconfigs[0]?.text).not.toContain("other-token");
  });

  test("stays apart where a stack names its own, and stands in for it in the shell that the kit is used in", async () => {
    const own = kubeconfig();
    const cluster = { context: "vps", kubeconfig: own };
    const kit = await gather({ changes: { cluster }, sites: ["vps"] });
    expect(kit.kubeconfigs.map(({ name, place }) => [name, place])).toEqual([["kubeconfig-vps", own]]);
    const content = minify(own, ["vps"]).text;
    const folder = path.join(temporaryFolder(), "kit");
    writeKitFolder(kit, folder);
    // A place of the machine that the kit was made on, below somebody else's home: nothing is to be put there.
    fs.rmSync(own);
    expect(commandsOf({ ...kit, git: { current: true } }, folder)[1]).toBe(`. '${folder}/env'`);
    const set = (name: string) =>
      execFileSync("sh", ["-c", `. "$0" && printf %s "$${name}"`, path.join(folder, "env")], { env: {} }).toString();
    expect(set("KUBECONFIG")).toBe("");
    vi.stubEnv("HOMESTEAD_KUBECONFIGS", set("HOMESTEAD_KUBECONFIGS"));
    const file = path.join(folder, "kubeconfig-vps");
    expect([kubeconfigPath(cluster), kubectl(cluster)]).toEqual([file, `kubectl --kubeconfig ${file} --context vps`]);
    expect(kubeClient(cluster).getCurrentCluster()?.server).toBe("https://198.51.100.20:6443");
    // The providers are given the same, so that the state shows no change.
    expect(minify(file, ["vps"]).text).toBe(content);
    // Another stack's place is what it was.
    expect(kubeconfigPath({ context: "home", kubeconfig: "/elsewhere" })).toBe("/elsewhere");
    vi.stubEnv("HOMESTEAD_KUBECONFIGS", "/home/me/.kube/vps");
    expect(() => kubeconfigPath(cluster)).toThrow(
      "HOMESTEAD_KUBECONFIGS is not what an opened kit's env sets: source that file again, or unset it",
    );
  });

  test("needs no variable where no stack names a place of its own", async () => {
    expect(filesIn(await gather(), "/kit")["env"]).not.toContain("HOMESTEAD_KUBECONFIGS");
  });

  test("that is not there yet is a warning where another site's is, and has its place in the opened kit", async () => {
    const kube = kubeconfig();
    const place = path.join(temporaryFolder(), "vps");
    const cluster = { context: "vps", kubeconfig: place };
    const noFile = await gather({ kube, own: { vps: { cluster } } });
    expect(noFile.kubeconfigs.map(({ name, place: at }) => [name, at])).toEqual([
      ["kubeconfig", undefined],
      ["kubeconfig-vps", place],
    ]);
    const until =
      "who has nothing but this kit does not reach that cluster, until its kubeconfig is written into the opened kit as";
    expect(noFile.warnings).toContain(`kubeconfig ${place} does not exist: ${until} kubeconfig-vps`);

    const folder = path.join(temporaryFolder(), "my kit");
    writeKitFolder(await openKit("k.age", await sealKit(noFile, { passphrase }, workFactor), { passphrase }), folder);
    const file = path.join(folder, "kubeconfig-vps");
    // An empty one would be said to lack the context, and the mend of that is another.
    expect(fs.existsSync(file)).toBe(false);
    const set = execFileSync("sh", ["-c", '. "$0" && printf %s "$HOMESTEAD_KUBECONFIGS"', path.join(folder, "env")], {
      env: {},
    });
    vi.stubEnv("HOMESTEAD_KUBECONFIGS", set.toString());
    expect(() => kubeClient(cluster)).toThrow(`kubeconfig ${file} does not exist`);
    fs.copyFileSync(kube, file);
    expect(kubeClient(cluster).getCurrentCluster()?.server).toBe("https://198.51.100.20:6443");
    vi.stubEnv("HOMESTEAD_KUBECONFIGS", undefined);

    // The file is there, of a cluster that is called something else by now.
    fs.copyFileSync(kube, place);
    const noContext = await gather({ kube, own: { vps: { cluster: { context: "new", kubeconfig: place } } } });
    expect(noContext.warnings).toContain(`kubeconfig ${place} has no context 'new': ${until} kubeconfig-vps`);
    expect(filesIn(noContext, "/kit")).not.toHaveProperty("kubeconfig-vps");

    // The other way round: what $KUBECONFIG names is gone, and its place is the variable.
    const noHome = await gather({ kube: "/nothing", own: { vps: { cluster: { context: "vps", kubeconfig: place } } } });
    expect(noHome.warnings).toContain(`kubeconfig /nothing does not exist: ${until} kubeconfig`);
    expect(filesIn(noHome, "/kit")).not.toHaveProperty("kubeconfig");
    expect(filesIn(noHome, "/kit")["env"]).toContain("export KUBECONFIG='/kit/kubeconfig'\n");
  });

  test("is refused when there is none for any site, with what mends it", async () => {
    const place = path.join(temporaryFolder(), "vps");
    const own = { vps: { cluster: { context: "vps", kubeconfig: place } } };
    await expect(gather({ kube: "/nothing", own })).rejects.toThrow(
      new UserError(
        "kubeconfig /nothing does not exist: put the file there, or: export KUBECONFIG=<file>; " +
          `kubeconfig ${place} does not exist: put the file there, or: pulumi config set --path homestead:cluster.kubeconfig <file> --stack vps`,
      ),
    );
    const named = { home: { cluster: { context: "home", kubeconfig: place } }, vps: own.vps };
    await expect(gather({ own: named })).rejects.toThrow(
      new UserError(
        `kubeconfig ${place} does not exist: put the file there, or: ` +
          "pulumi config set --path homestead:cluster.kubeconfig <file> --stack home, and the same with --stack vps",
      ),
    );
    const kube = kubeconfig();
    await expect(gather({ kube, sites: ["vps"], own: { vps: { cluster: { context: "new" } } } })).rejects.toThrow(
      new UserError(
        `kubeconfig ${kube} has no context 'new': name one that it has (kubectl config get-contexts): ` +
          "pulumi config set --path homestead:cluster.context <context> --stack vps",
      ),
    );
    // What is there and cannot be used is no cluster that is still to come.
    fs.writeFileSync(place, "a: [");
    await expect(gather({ kube, own })).rejects.toThrow(`${place} is no kubeconfig`);
    fs.rmSync(place);
    fs.mkdirSync(place);
    await expect(gather({ kube, own })).rejects.toThrow(`kubeconfig ${place} cannot be read`);
  });

  test("says what another machine would lack", () => {
    const plugin = kubeconfig((text) => text.replace("{ token: vps-token }", "{ exec: { command: aws } }"));
    expect(minify(plugin, ["vps"]).warnings).toEqual([
      `user 'vps' of ${plugin} gets its credentials from a program (exec), which another machine needs as well`,
    ]);
    const tunnel = kubeconfig((text) => text.replace("198.51.100.20", "127.0.0.1"));
    expect(minify(tunnel, ["home", "vps"]).warnings).toEqual([
      "cluster 'vps' is at https://127.0.0.1:6443, which on another machine is another one (a tunnel?)",
    ]);
  });

  test("is refused when something of it is missing", () => {
    const file = kubeconfig();
    const { text, warnings } = minify(file, ["home", "nowhere"]);
    expect(warnings).toContain(
      `kubeconfig ${file} has no context 'nowhere': who has nothing but this kit does not reach that cluster`,
    );
    expect(text).toContain("current-context: home");
    expect(() => minify(file, ["nowhere"])).toThrow(`kubeconfig ${file} has no context 'nowhere'`);
    expect(() => minify("/nothing", ["home"])).toThrow("kubeconfig /nothing does not exist");
    fs.rmSync(path.join(path.dirname(file), "key.pem"));
    expect(() => minify(file, ["home"])).toThrow(
      `kubeconfig ${file}: client-key ${path.join(path.dirname(file), "key.pem")} cannot be read`,
    );
    fs.writeFileSync(file, "a: [");
    expect(() => minify(file, ["home"])).toThrow(`${file} is no kubeconfig`);
  });
});

describe("an opened kit", () => {
  test("is a folder that only its owner reads, and gives the settings it was made from", async () => {
    const kit = await gather();
    const folder = path.join(temporaryFolder(), "kit");
    writeKitFolder(kit, folder);
    expect(mode(folder)).toBe("700");
    for (const name of fs.readdirSync(folder)) expect([name, mode(path.join(folder, name))]).toEqual([name, "600"]);

    const clone = copyProject({ "Pulumi.home.yaml": () => "config: {}\n", "Pulumi.vps.yaml": () => "config: {}\n" });
    for (const name of Object.keys(kit.stackFiles)) fs.copyFileSync(path.join(folder, name), path.join(clone, name));
    const secrets = JSON.parse(fs.readFileSync(path.join(folder, "secrets.json"), "utf8")) as Kit["secrets"];
    for (const site of ["home", "vps"] as const) {
      const { config } = readStackConfig(clone, site, (name) => secrets[site]?.[name] ?? "");
      const there = parseSettings({ stack: site, config, folder: clone });
      expect(comparable(there)).toEqual(comparable(siteOf(site).settings));
    }
  });

  test("sets the environment in a shell as it was, whatever characters are in it", async () => {
    const kit = await gather({ names: ["ODD"], environment: { ODD: 'a\'b "c" $HOME `d`\\\nnext' } });
    const folder = path.join(temporaryFolder(), "my kit");
    writeKitFolder(kit, folder);
    const shell = (name: string) =>
      execFileSync("sh", ["-c", `. "$0" && printf %s "$${name}"`, path.join(folder, "env")], { env: {} }).toString();
    expect(shell("ODD")).toBe(kit.environment["ODD"]);
    expect(shell("PULUMI_CONFIG_PASSPHRASE")).toBe("it's right");
    expect(shell("PULUMI_BACKEND_URL")).toBe(backend);
    expect(shell("KUBECONFIG")).toBe(path.join(folder, "kubeconfig"));
  });

  test("has the files that variables named, and points the variables there", async () => {
    const key = path.join(temporaryFolder(), "key.json");
    fs.writeFileSync(key, "a private key");
    const environment = { PULUMI_BACKEND_URL: "gs://state", GOOGLE_APPLICATION_CREDENTIALS: key };
    const kit = await gather({ environment });
    const folder = path.join(temporaryFolder(), "my kit");
    writeKitFolder(kit, folder);
    fs.rmSync(key);
    const script = '. "$0" && cat "$GOOGLE_APPLICATION_CREDENTIALS"';
    const path_ = { PATH: process.env.PATH };
    expect(execFileSync("sh", ["-c", script, path.join(folder, "env")], { env: path_ }).toString()).toBe(
      "a private key",
    );
    expect(mode(path.join(folder, "GOOGLE_APPLICATION_CREDENTIALS"))).toBe("600");
    expect(filesIn(kit, folder)["README.txt"]).toContain(
      "\nGOOGLE_APPLICATION_CREDENTIALS  the file of that variable\n",
    );
  });

  test("tells the three commands of this very server", async () => {
    const kit = { ...(await gather()), git: { remote: "https://git.example/me/home.git", current: true } };
    const readme = filesIn(kit, "/safe/kit")["README.txt"] ?? "";
    const commands = [
      "git clone 'https://git.example/me/home.git' homestead && cd homestead && npm ci",
      ". '/safe/kit/env'",
      "npx homestead switch vps --lost",
    ];
    expect(readme).toContain(`\n${commands.map((command) => `  ${command}\n`).join("")}\n`);
    for (const secret of [...secretValues, "it's right", "state-secret"]) expect(readme).not.toContain(secret);
    expect(commandsOf({ ...kit, activeSite: "vps" }, "/k")[2]).toBe("npx homestead switch home --lost");
    expect(commandsOf({ ...kit, sites: ["home"] }, "/k")[2]).toBe("npx homestead status home");
  });

  test("says which Node.js is needed, as everything else does", async () => {
    expect(filesIn(await gather(), "/k")["README.txt"]).toContain(`Needed: git, Node.js ${oldestNode} or newer, `);
  });

  test("copies its stack files over a clone's, but not over newer ones, and says so", async () => {
    const own = await gather();
    const kit = { ...own, git: { ...own.git, current: false } };
    const shared = kit.stackFiles["Pulumi.yaml"] ?? "";
    const copies = (clone: string | undefined) =>
      commandsOf(kit, "/k", newerThanKit(kit, clone))[1].includes("cp '/k'");
    const change = (from: RegExp, to: string) => {
      expect(shared).toMatch(from);
      return shared.replace(from, to);
    };
    const epoch = change(/(homestead:epoch:[^]*?value: )1$/m, "$12");
    const generation = change(/(homestead:generations:[^]*?value:[^]*?home: )1/, "$13");
    for (const same of [shared, undefined, "a: [", "name: homestead\n"]) {
      expect([newerThanKit(kit, same), copies(same)]).toEqual([undefined, true]);
    }
    const switched = epoch.replace(/(homestead:activeSite:[^]*?value: )home$/m, "$1vps");
    expect(newerThanKit(kit, epoch)).toEqual({ words: "epoch 2 (the kit has 1)", activeSite: "home" });
    expect(newerThanKit(kit, generation)).toEqual({ words: "generations.home 3 (the kit has 1)", activeSite: "home" });
    expect(newerThanKit(kit, switched)).toEqual({ words: "epoch 2 (the kit has 1)", activeSite: "vps" });
    // The kit's own files are of a later epoch, and the clone's of a later generation.
    const mixed = { ...kit, stackFiles: { ...kit.stackFiles, "Pulumi.yaml": epoch } };
    const begunAnew = generation.replace(/(homestead:activeSite:[^]*?value: )home$/m, "$1vps");
    const neither = newerThanKit(mixed, begunAnew);
    expect(neither).toEqual({
      words: "generations.home 3 (the kit has 1)",
      activeSite: "home",
      behind: { words: "epoch 2 (the clone has 1)", set: "activeSite to home and epoch to 2" },
    });
    const both = filesIn(mixed, "/k", neither)["README.txt"] ?? "";
    expect(both).toContain(
      "Neither the clone that the kit was opened in nor the kit is the newer one: the clone has generations.home 3 (the kit has 1), and the kit epoch 2 (the clone has 1). No stack file is copied. Get the clone's newest files (git pull); where nobody has them, set activeSite to home and epoch to 2 in its Pulumi.yaml first.",
    );
    expect(both).not.toContain("is active.");
    expect(commandsOf(mixed, "/k", neither)[1]).not.toContain("cp '/k'");
    // Of one epoch the clone knows who is active, whatever else the kit has.
    const anew = { ...kit, stackFiles: { ...kit.stackFiles, "Pulumi.yaml": generation } };
    expect(newerThanKit(anew, switched)).toEqual({
      words: "epoch 2 (the kit has 1)",
      activeSite: "vps",
      behind: { words: "generations.home 3 (the clone has 1)", set: "generations.home to 3" },
    });
    const go = (clone: string) => commandsOf(kit, "/k", newerThanKit(kit, clone))[2];
    expect([go(shared), go(switched)]).toEqual(["npx homestead switch vps --lost", "npx homestead switch home --lost"]);
    expect([copies(epoch), copies(generation)]).toEqual([false, false]);
    const older = { ...kit, stackFiles: { ...kit.stackFiles, "Pulumi.yaml": epoch } };
    expect(newerThanKit(older, shared)).toBeUndefined();
    const readme = filesIn(kit, "/k", newerThanKit(kit, epoch))["README.txt"] ?? "";
    expect(readme).not.toContain("cp '/k'");
    expect(readme).toContain(
      "The clone that the kit was opened in is newer than the kit, epoch 2 (the kit has 1): its stack files stay as they are, and by them home is active.",
    );
    expect(filesIn(kit, "/k")["README.txt"]).toContain("cp '/k'/Pulumi*.yaml .");
  });

  describe("in a clone that was worked on since", () => {
    /** A clone, and a kit of what it was before `since`. */
    async function later(since: (folder: string, commit: () => void) => void, made: { current?: boolean } = {}) {
      const folder = copyProject();
      const git = (...args: string[]) =>
        execFileSync("git", ["-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", ...args], { stdio: "pipe" });
      git("init", "--initial-branch=main");
      const commit = () => {
        git("add", "Pulumi.yaml", "Pulumi.home.yaml", "Pulumi.vps.yaml");
        git("commit", "--allow-empty", "-m", "x");
      };
      commit();
      const { git: of, ...kit } = await gather({ folder });
      since(folder, commit);
      return { folder, kit: { ...kit, git: { ...of, ...made } } };
    }
    const change = (folder: string, name: string) => fs.appendFileSync(path.join(folder, name), "# changed\n");

    test("what was changed there is not copied over, and that is said", async () => {
      const { folder, kit } = await later((clone, commit) => {
        change(clone, "Pulumi.vps.yaml");
        commit();
        change(clone, "Pulumi.home.yaml");
      });
      const changed = await changedSince(kit, folder);
      expect(changed).toEqual(["Pulumi.home.yaml", "Pulumi.vps.yaml"]);
      const newer = newerThanKit(kit, kit.stackFiles["Pulumi.yaml"], changed);
      expect(newer).toEqual({
        words: "later changes of Pulumi.home.yaml and Pulumi.vps.yaml",
        activeSite: "home",
        changed,
      });
      expect(commandsOf(kit, "/k", newer)[1]).toBe(". '/k/env'");
      expect(filesIn(kit, "/k", newer)["README.txt"]).toContain(
        "\nThe clone that the kit was opened in is newer than the kit, later changes of Pulumi.home.yaml and Pulumi.vps.yaml: its stack files stay as they are, and by them home is active. When the kit was made its files were not all committed and pushed: compare the kit's Pulumi.home.yaml and Pulumi.vps.yaml with the clone's before you go on (diff).\n",
      );
    });

    test("a kit that knows of a later switch all the same says what of it is to be set", async () => {
      const { folder, kit } = await later((clone, commit) => {
        change(clone, "Pulumi.vps.yaml");
        commit();
      });
      const switched = (kit.stackFiles["Pulumi.yaml"] ?? "").replace(/(homestead:epoch:[^]*?value: )1$/m, "$12");
      const ahead = { ...kit, stackFiles: { ...kit.stackFiles, "Pulumi.yaml": switched } };
      const newer = newerThanKit(ahead, kit.stackFiles["Pulumi.yaml"], await changedSince(ahead, folder));
      expect(newer && staysNewer(newer)).toBe(
        "Neither the clone that the kit was opened in nor the kit is the newer one: the clone has later changes of Pulumi.vps.yaml, and the kit epoch 2 (the clone has 1). No stack file is copied. Get the clone's newest files (git pull); where nobody has them, set activeSite to home and epoch to 2 in its Pulumi.yaml first. When the kit was made its files were not all committed and pushed: compare the kit's Pulumi.vps.yaml with the clone's before you go on (diff).",
      );
    });

    test.each<[what: string, since: (folder: string, commit: () => void) => void]>([
      ["other files were changed", (clone, commit) => (change(clone, "README.md"), commit())],
      ["there was no commit", () => undefined],
      [
        "what the kit has was committed later",
        (clone, commit) => {
          change(clone, "Pulumi.vps.yaml");
          commit();
          fs.copyFileSync(path.join(project, "Pulumi.vps.yaml"), path.join(clone, "Pulumi.vps.yaml"));
          commit();
        },
      ],
    ])("is copied over it where %s", async (_, since) => {
      const { folder, kit } = await later(since);
      expect(await changedSince(kit, folder)).toEqual([]);
    });

    test("a kit whose commit nobody has pushed goes by its day", async () => {
      const { folder, kit } = await later((clone, commit) => {
        change(clone, "Pulumi.vps.yaml");
        commit();
      });
      const unknown = { ...kit, git: { ...kit.git, commit: "0".repeat(40) } };
      const at = async (madeAt: string) => changedSince({ ...unknown, madeAt }, folder);
      expect(await at(new Date(Date.now() - 3600_000).toISOString())).toEqual(["Pulumi.vps.yaml"]);
      expect(await at(new Date(Date.now() + 3600_000).toISOString())).toEqual([]);
    });

    test("nothing is compared where the kit's files are in the clone's history anyway, or where there is no git", async () => {
      const pushed = await later((clone) => change(clone, "Pulumi.vps.yaml"), { current: true });
      expect(await changedSince(pushed.kit, pushed.folder)).toEqual([]);
      const { kit } = await later(() => undefined);
      expect(await changedSince(kit, temporaryFolder())).toEqual([]);
    });
  });

  test("is never written over what is there, nor left half-written", async () => {
    const kit = await gather();
    const parent = temporaryFolder();
    const folder = path.join(parent, "kit");
    fs.mkdirSync(folder);
    const there = (name: string) => `${name} is there already, and nothing is written over: remove it, or name another`;
    expect(() => writeKitFolder(kit, folder)).toThrow(there(folder));
    const file = path.join(parent, "kit.age");
    fs.symlinkSync("/nowhere", file);
    expect(() => writeKitFile(new Uint8Array(1), file)).toThrow(there(file));
    const broken = { ...kit, stackFiles: { ...kit.stackFiles, "missing/name": "" } };
    expect(() => writeKitFolder(broken, path.join(parent, "other"))).toThrow("other cannot be written: ENOENT");
    expect(fs.readdirSync(parent).sort()).toEqual(["kit", "kit.age"]);
  });
});

/** Settings without what is wrapped for the engine. */
const comparable = ({ secrets, ...settings }: Settings) => ({ ...settings, secrets: Object.keys(secrets).sort() });

describe("homestead kit", () => {
  const stacks = () => ({ home: configurationOf("home").config, vps: configurationOf("vps").config });

  function commandLine(environment: NodeJS.ProcessEnv = {}) {
    const fake = fakePulumi(stacks());
    const folder = temporaryFolder();
    const all = {
      ...fake.environment,
      PULUMI_BACKEND_URL: backend,
      AWS_SECRET_ACCESS_KEY: "state-secret",
      KUBECONFIG: kubeconfig(),
      HOMESTEAD_KIT_PASSPHRASE: passphrase,
      ...environment,
    };
    const kit = (...args: string[]): Promise<Ended> =>
      run(process.execPath, [path.join(project, "cli", "homestead.mjs"), "kit", ...args], {
        folder,
        environment: all,
      });
    return { folder, kit };
  }

  test("makes one file and opens it again, and shows nothing that is secret", async () => {
    const { folder, kit } = commandLine();
    const made = await kit();
    expect(made).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("homestead-kit.age: the kit of home and vps") as string,
    });
    expect(mode(path.join(folder, "homestead-kit.age"))).toBe("600");
    const opened = await kit("open", "homestead-kit.age");
    expect(opened).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("npx homestead switch vps --lost") as string,
    });
    expect(fs.readdirSync(path.join(folder, "homestead-kit")).sort()).toEqual([
      "Pulumi.home.yaml",
      "Pulumi.vps.yaml",
      "Pulumi.yaml",
      "README.txt",
      "env",
      "kubeconfig",
      "secrets.json",
      "vaults.json",
    ]);
    const said = [made, opened].flatMap(({ stdout, stderr }) => [stdout, stderr]).join("");
    for (const secret of [...secretValues, passphrase, "state-secret", "vps-token"]) expect(said).not.toContain(secret);

    // A second time neither is written over, before anybody is asked.
    const there = (name: string) => ({
      code: 1,
      stdout: "",
      stderr: `${name} is there already, and nothing is written over: remove it, or name another\n`,
    });
    expect(await kit()).toEqual(there("homestead-kit.age"));
    expect(await kit("open", "homestead-kit.age")).toEqual(there("homestead-kit"));
  });

  test("tells a wrong passphrase in one line, and writes nothing", async () => {
    const { folder, kit } = commandLine({ HOMESTEAD_KIT_PASSPHRASE: "another passphrase" });
    const file = path.join(folder, "k.age");
    fs.writeFileSync(file, await sealKit(await gather(), { passphrase }, workFactor));
    expect(await kit("open", "k.age", "--into", "opened")).toEqual({
      code: 1,
      stdout: "",
      stderr: "k.age: wrong passphrase; nothing was written\n",
    });
    expect(fs.readdirSync(folder)).toEqual(["k.age"]);
  });

  test("for a recipient asks for nobody's passphrase, and opens with the identity", async () => {
    const { folder, kit } = commandLine({ HOMESTEAD_KIT_PASSPHRASE: undefined });
    const identity = await generateIdentity();
    fs.writeFileSync(path.join(folder, "key.txt"), `# created: today\n${identity}\n`);
    expect(await kit("--output", "k.age", "--recipient", await identityToRecipient(identity))).toMatchObject({
      code: 0,
    });
    expect(await kit("open", "k.age")).toEqual({
      code: 1,
      stdout: "",
      stderr: "k.age was made for a recipient: add --identity <file>\n",
    });
    expect(await kit("open", "k.age", "--identity", "key.txt", "--into", "opened")).toMatchObject({ code: 0 });
    expect(fs.existsSync(path.join(folder, "opened", "README.txt"))).toBe(true);
  });

  test.each<[string, NodeJS.ProcessEnv, string]>([
    [
      "no terminal to ask at",
      { HOMESTEAD_KIT_PASSPHRASE: undefined },
      "nobody is there to ask for the passphrase: set HOMESTEAD_KIT_PASSPHRASE",
    ],
    [
      "a passphrase that can be guessed",
      { HOMESTEAD_KIT_PASSPHRASE: "hunter2" },
      "the kit's passphrase has fewer than 12 characters: four or five random words will do",
    ],
    [
      "a stack that does not open",
      { PULUMI_CONFIG_PASSPHRASE: "wrong" },
      "pulumi config --stack home: incorrect passphrase",
    ],
  ])("writes nothing with %s", async (_, environment, message) => {
    const { folder, kit } = commandLine(environment);
    const { code, stderr } = await kit();
    const lines = stderr
      .trim()
      .split("\n")
      .filter((line) => !line.startsWith("mend: "));
    expect([code, lines.at(-1)]).toEqual([1, message]);
    expect(fs.readdirSync(folder)).toEqual([]);
  });
});
