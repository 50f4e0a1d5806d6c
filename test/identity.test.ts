import { spawn } from "node:child_process";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { copyIdentity, createIdentity, verifyIdentity } from "../cli/identity";
import { createSharedSecrets, identityFaults, identityFingerprint, vapidPublicKeyOf } from "../lib/identity";
import type { SharedSecrets } from "../lib/identity";
import { projectFolder } from "../lib/plan";
import { PulumiCli, findPulumi } from "../lib/pulumi-cli";
import { UserError } from "../lib/user-error";
import { requiredSecrets } from "../settings";
import { fakePulumi, holding } from "./support/fake-pulumi";
import type { Failures } from "./support/fake-pulumi";
import { temporaryFolder } from "./support/folders";

const keys = Object.keys(createSharedSecrets()) as (keyof SharedSecrets)[];
const asConfig = (secrets: Partial<Record<string, string>>) =>
  Object.fromEntries(Object.entries(secrets).map(([key, value]) => [`homestead:${key}`, value ?? ""]));
const bucketSecrets = {
  vaultAccessKeyId: "vault-id",
  vaultSecretAccessKey: "vault-secret",
  mediaAccessKeyId: "media-id",
  mediaSecretAccessKey: "media-secret",
};

/** The commands over a fake CLI, with what they print. */
function over(
  stacks: Record<string, Record<string, string>>,
  failures: Failures = {},
  files: Record<string, string> = {},
) {
  const fake = fakePulumi(stacks, failures);
  const folder = temporaryFolder();
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text);
  const pulumi = new PulumiCli(folder, fake.environment);
  const printed: string[] = [];
  const tell = (line: string) => void printed.push(line);
  return {
    ...fake,
    printed,
    create: (names: string[], print: "printed" | "hidden" = "hidden") => createIdentity(pulumi, names, print, tell),
    copy: (from: string, to: string) => copyIdentity(pulumi, from, to, tell),
    verify: (names: string[]) => verifyIdentity(pulumi, names, tell),
  };
}

describe("createSharedSecrets", () => {
  it("makes secrets in the formats Mastodon wants", () => {
    for (let i = 0; i < 50; i++) expect(identityFaults({ ...createSharedSecrets() })).toEqual([]);
  });

  it("makes a VAPID pair that belongs together, by another library's reckoning", () => {
    const { vapidPrivateKey, vapidPublicKey } = createSharedSecrets();
    const point = Buffer.from(vapidPublicKey, "base64url");
    const jwk = {
      kty: "EC",
      crv: "P-256",
      d: Buffer.from(vapidPrivateKey, "base64url").toString("base64url"),
      x: point.subarray(1, 33).toString("base64url"),
      y: point.subarray(33).toString("base64url"),
    };
    const signature = crypto.sign("sha256", Buffer.from("x"), crypto.createPrivateKey({ key: jwk, format: "jwk" }));
    const { d: _, ...open } = jwk;
    const publicKey = crypto.createPublicKey({ key: open, format: "jwk" });
    expect(crypto.verify("sha256", Buffer.from("x"), publicKey, signature)).toBe(true);
    expect(vapidPublicKeyOf(vapidPrivateKey)).toBe(vapidPublicKey);
  });

  it("never makes the same twice", () => {
    const [a, b] = [createSharedSecrets(), createSharedSecrets()];
    for (const key of keys) expect(a[key]).not.toBe(b[key]);
  });
});

describe("identityFaults", () => {
  const good = createSharedSecrets();

  it.each<[keyof SharedSecrets, string, string]>([
    ["secretKeyBase", "0".repeat(127), "128 hex digits (bundle exec rails secret)"],
    ["secretKeyBase", "G".repeat(128), "128 hex digits (bundle exec rails secret)"],
    [
      "vapidPrivateKey",
      good.vapidPrivateKey.slice(0, -1),
      "a VAPID private key: 44 characters of base64url with padding",
    ],
    [
      "vapidPublicKey",
      `A${good.vapidPublicKey.slice(1)}`,
      "a VAPID public key: 88 characters of base64url with padding",
    ],
    ["activeRecordPrimaryKey", "short", "32 or more letters and digits (rails db:encryption:init)"],
    ["activeRecordDeterministicKey", "-".repeat(32), "32 or more letters and digits (rails db:encryption:init)"],
    ["activeRecordKeyDerivationSalt", "", "32 or more letters and digits (rails db:encryption:init)"],
    ["databasePassword", "with a 'quote' and spaces", "16 or more letters, digits, _ and -"],
    ["ownerPassword", "seven77", "8 to 72 characters (Mastodon's rule)"],
    [
      "vapidPublicKey",
      createSharedSecrets().vapidPublicKey,
      "the public key that belongs to vapidPrivateKey: the two are a pair",
    ],
  ])("refuses a wrong %s (%#)", (key, value, allowed) => {
    expect(identityFaults({ ...good, [key]: value })).toEqual([{ key, allowed }]);
  });

  it("says nothing about what is missing", () => {
    expect(identityFaults({})).toEqual([]);
  });
});

describe("identityFingerprint", () => {
  it("differs for every part of the identity, and not for the passwords", () => {
    const secrets = createSharedSecrets();
    const base = identityFingerprint(secrets);
    expect(base).toMatch(/^[0-9a-f]{16}$/);
    for (const key of keys) {
      const other = identityFingerprint({ ...secrets, [key]: `${secrets[key]}x` });
      if (key === "databasePassword" || key === "ownerPassword") expect(other).toBe(base);
      else expect(other).not.toBe(base);
    }
  });

  it("stays what it is: leases in vaults hold it", () => {
    const identity = Object.fromEntries(keys.map((key) => [key, key])) as unknown as SharedSecrets;
    expect(identityFingerprint(identity)).toBe("228f4e56dc8a54f4");
  });
});

describe("homestead identity create", () => {
  it("writes the same eight secrets into all named stacks, and makes stacks that do not exist", async () => {
    const { create, stacks, printed } = over({ home: {} });
    await create(["home", "vps"]);
    const { home, vps } = stacks();
    expect(Object.keys(home ?? {}).sort()).toEqual(keys.map((key) => `homestead:${key}`).sort());
    expect(vps).toEqual(home);
    const secrets = Object.fromEntries(keys.map((key) => [key, home?.[`homestead:${key}`]]));
    expect(identityFaults(secrets)).toEqual([]);
    expect(printed).toEqual([
      "vps: the stack did not exist and was made (pulumi stack init vps)",
      "home: 8 secrets written",
      "vps: 8 secrets written",
      `fingerprint ${identityFingerprint(secrets as unknown as SharedSecrets)}, the same in home and vps`,
      "The stack files now hold them, encrypted: commit the files, and keep the passphrase where no site can burn it.",
    ]);
  });

  it("never puts a secret on a command line, nor prints one unasked", async () => {
    const { create, stacks, commands, printed } = over({ home: {} });
    await create(["home"]);
    const values = Object.values(stacks().home ?? {});
    expect(values).toHaveLength(8);
    for (const value of values) {
      expect(commands().join("\n")).not.toContain(value);
      expect(printed.join("\n")).not.toContain(value);
    }
  });

  it("prints them when asked to, for a password manager", async () => {
    const { create, stacks, printed } = over({ home: {} });
    await create(["home"], "printed");
    expect(printed.slice(-8)).toEqual(keys.map((key) => `${key}: ${stacks().home?.[`homestead:${key}`]}`));
  });

  it("refuses when any stack has any of them, and says which and what to do where none has all", async () => {
    const before = { home: {}, vps: asConfig({ databasePassword: "x", ownerPassword: "y" }) };
    const { create, stacks, commands } = over(before);
    await expect(create(["home", "vps"])).rejects.toThrow(
      "nothing was written, since a server's secrets are made once: 'vps' has databasePassword, ownerPassword. " +
        "No stack has all of them. Where a server uses these, take the stack files from its clone or its kit. " +
        "Where none does, as after an end midway, remove them and run this again:\n" +
        "  pulumi config rm homestead:databasePassword --stack vps\n" +
        "  pulumi config rm homestead:ownerPassword --stack vps",
    );
    expect(stacks()).toEqual(before);
    expect(commands().some((command) => command.startsWith("config set"))).toBe(false);
  });

  it("refuses, as copy does, where the backend does not know a stack whose file has secrets", async () => {
    const file = "encryptionsalt: v1:x\nconfig:\n  kubernetes:strictMode: true\n  ownerPassword: {secure: x}\n";
    const { create, copy, stacks } = over(
      { vps: {} },
      {},
      { "Pulumi.yaml": "name: homestead", "Pulumi.home.yaml": file },
    );
    const message =
      "nothing was written: Pulumi.home.yaml holds homestead:ownerPassword, and the backend of this login knows no stack 'home'. " +
      "Log in to the one that has it: pulumi login <url of the state>. Where that state is lost: pulumi stack init home, which takes the file as it is";
    await expect(create(["vps", "home"])).rejects.toThrow(message);
    await expect(copy("vps", "home")).rejects.toThrow(message);
    expect(stacks()).toEqual({ vps: {} });
  });

  it("gives no new identity to a server that is there, whose file with the secrets was never committed", async () => {
    const { environment, stacks } = fakePulumi({ home: {}, vps: {} });
    const create = (resources: number) =>
      createIdentity(
        new PulumiCli(temporaryFolder(), { ...environment, ...holding(resources) }),
        ["home", "vps"],
        "hidden",
        () => undefined,
      );
    await expect(create(97)).rejects.toThrow(
      "nothing was written: the state of 'home' has 97 resources, so its server has its secrets, and Pulumi.home.yaml " +
        "holds none of them. Take that file from the clone or the kit that made the server. Where no other is left, step 3 " +
        "of docs/runbooks/lost-passphrase.md puts the secrets back from the cluster",
    );
    expect(stacks()).toEqual({ home: {}, vps: {} });
    // The stack itself, after an update that failed at once.
    await create(1);
    expect(Object.keys(stacks().vps ?? {})).toHaveLength(8);
  });

  it("gives a site no other identity than the pair's, also where that site alone is named", async () => {
    const secrets = asConfig({ ...createSharedSecrets() });
    const nothing = "nothing was written, since a server's secrets are made once: 'home' has all of them. ";
    const mend = "To copy what a stack lacks from another: npx homestead identity copy home vps";
    const without: Parameters<typeof over>[0][] = [{ home: secrets }, { home: secrets, vps: {} }];
    for (const there of without) {
      const { create, stacks } = over(there);
      await expect(create(["vps"])).rejects.toThrow(nothing + mend);
      expect(stacks()).toEqual(there);
    }
    const { create } = over({ vps: secrets });
    await expect(create(["home"])).rejects.toThrow(/'vps' has all of them\. .*: npx homestead identity copy vps home$/);
    // A trial's are its own.
    await create(["dev"]);
    // Whose passphrase is not at hand.
    const { environment } = fakePulumi({ home: secrets });
    const locked = new PulumiCli(temporaryFolder(), { ...environment, PULUMI_CONFIG_PASSPHRASE: "wrong" });
    await expect(createIdentity(locked, ["vps"], "hidden", () => undefined)).rejects.toThrow(nothing + mend);
  });

  it("looks at the pair's other stack for a server that is there, and for secrets of another backend", async () => {
    const { environment, stacks } = fakePulumi({ home: {} });
    const pulumi = new PulumiCli(temporaryFolder(), { ...environment, ...holding(97) });
    await expect(createIdentity(pulumi, ["vps"], "hidden", () => undefined)).rejects.toThrow(
      "nothing was written: the state of 'home' has 97 resources",
    );
    expect(stacks()).toEqual({ home: {} });
    const file = "config:\n  ownerPassword: {secure: x}\n";
    const elsewhere = over({}, {}, { "Pulumi.yaml": "name: homestead", "Pulumi.home.yaml": file });
    await expect(elsewhere.create(["vps"])).rejects.toThrow("the backend of this login knows no stack 'home'");
  });

  it("points from the stack that has all of them to the other", async () => {
    const { create } = over({ home: asConfig({ ...createSharedSecrets() }), vps: asConfig({ ownerPassword: "y" }) });
    await expect(create(["vps", "home"])).rejects.toThrow(
      "'vps' has ownerPassword; 'home' has all of them. To copy what a stack lacks from another: npx homestead identity copy home vps",
    );
  });

  it("does not advise to copy where every stack has all of them, and says what compares them", async () => {
    const secrets = asConfig({ ...createSharedSecrets() });
    const { create } = over({ home: secrets, vps: secrets });
    await expect(create(["home", "vps"])).rejects.toThrow(
      /'home' has all of them; 'vps' has all of them\. To compare them: npx homestead identity verify --stacks home,vps$/,
    );
  });

  it("finds a wrong passphrase before it writes or makes anything", async () => {
    const { environment, stacks } = fakePulumi({ home: {} });
    const pulumi = new PulumiCli(temporaryFolder(), { ...environment, PULUMI_CONFIG_PASSPHRASE: "wrong" });
    await expect(createIdentity(pulumi, ["home", "vps"], "hidden", () => undefined)).rejects.toThrow(
      "pulumi config --stack home: incorrect passphrase",
    );
    expect(stacks()).toEqual({ home: {} });
  });

  it("says how to complete a stack when a write to the second one fails midway", async () => {
    const { create, copy, stacks, printed } = over(
      { home: {}, vps: {} },
      { "config set --secret homestead:vapidPublicKey --stack vps": "disk full" },
    );
    await expect(create(["home", "vps"])).rejects.toThrow(
      "pulumi config set --stack vps: disk full. 'home' has all of the secrets, 'vps' has secretKeyBase, vapidPrivateKey. " +
        "When that is mended: npx homestead identity copy home vps",
    );
    expect(Object.keys(stacks().vps ?? {})).toHaveLength(2);
    await expect(copy("home", "vps")).rejects.toThrow("pulumi config set --stack vps: disk full");
    expect(printed).toContain("home: 8 secrets written");
  });

  it("is completed by copy", async () => {
    const secrets = createSharedSecrets();
    const { copy, stacks } = over({
      home: asConfig({ ...secrets }),
      vps: asConfig({ secretKeyBase: secrets.secretKeyBase, vapidPrivateKey: secrets.vapidPrivateKey }),
    });
    await copy("home", "vps");
    expect(stacks().vps).toEqual(stacks().home);
  });

  it("takes back what it wrote when a write to the first stack fails, since nobody has the rest", async () => {
    const { create, stacks } = over(
      { home: {}, vps: {} },
      { "config set --secret homestead:ownerPassword": "disk full" },
    );
    await expect(create(["home", "vps"])).rejects.toThrow(
      "pulumi config set --stack home: disk full. No stack has any of the secrets: mend that and run it again",
    );
    expect(stacks()).toEqual({ home: {}, vps: {} });
  });

  it("is ended by a Ctrl-C only when both stacks have all of them: nobody could complete half an identity", async () => {
    const fake = fakePulumi({ home: {}, vps: {} });
    const folder = temporaryFolder();
    const script = `
      const { createIdentity } = require("./cli/identity");
      const { PulumiCli } = require("./lib/pulumi-cli");
      createIdentity(new PulumiCli(${JSON.stringify(folder)}), ["home", "vps"], "hidden", console.log).catch((error) => {
        console.error(error.message);
        process.exitCode = error.exitCode;
      });
    `;
    // The leader of a group, as a terminal's foreground job is.
    const child = spawn(process.execPath, ["--require", "./cli/typescript.cjs", "-e", script], {
      cwd: projectFolder,
      env: fake.environment,
      detached: true,
    });
    const said = { out: "", err: "" };
    child.stdout.on("data", (chunk: Buffer) => (said.out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (said.err += chunk.toString()));
    const ended = new Promise((resolve) => child.on("close", resolve));
    const written = () => fake.commands().filter((command) => command.startsWith("config set")).length;
    while (written() === 0 && child.exitCode === null) await setTimeout(5);
    process.kill(-(child.pid ?? 0), "SIGINT");
    const code = await ended;
    const { home, vps } = fake.stacks();
    expect(Object.keys(home ?? {})).toHaveLength(8);
    expect(vps).toEqual(home);
    expect(said.out).toMatch(/^home: 8 secrets written\nvps: 8 secrets written\nfingerprint /);
    expect(said.err).toBe(
      "Not before all 8 secrets are written: some of them would be of no use to anybody.\n" +
        "The secrets are written, as is said above.\n",
    );
    expect(code).toBe(130);
  });

  it("names what it could not take back", async () => {
    const { create } = over(
      { home: {} },
      {
        "config set --secret homestead:vapidPublicKey": "disk full",
        "config rm homestead:vapidPrivateKey": "disk full",
      },
    );
    await expect(create(["home"])).rejects.toThrow(
      "'home' is left with vapidPrivateKey, which no server uses yet. When that is mended, remove them " +
        "(pulumi config rm <key> --stack home: homestead:vapidPrivateKey) and run it again",
    );
  });
});

describe("homestead identity copy", () => {
  it("copies what is missing, the buckets' keys too, and leaves what is there", async () => {
    const secrets = { ...createSharedSecrets(), ...bucketSecrets };
    const { copy, stacks, printed, commands } = over({
      home: asConfig(secrets),
      vps: asConfig({ ownerPassword: secrets.ownerPassword }),
    });
    await copy("home", "vps");
    expect(stacks().vps).toEqual(stacks().home);
    expect(printed).toEqual([`vps: ${requiredSecrets.filter((key) => key !== "ownerPassword").join(", ")}`]);
    expect(commands().some((command) => command.startsWith("config set --secret homestead:ownerPassword"))).toBe(false);
  });

  it("makes a stack that does not exist", async () => {
    const { copy, stacks, printed } = over({ home: asConfig({ ...createSharedSecrets() }) });
    await copy("home", "vps");
    expect(stacks().vps).toEqual(stacks().home);
    expect(printed[0]).toBe("vps: the stack did not exist and was made (pulumi stack init vps)");
    expect(printed.at(-1)).toBe(`in neither stack: ${Object.keys(bucketSecrets).join(", ")}`);
  });

  it("changes nothing where the two differ", async () => {
    const secrets = createSharedSecrets();
    const before = { home: asConfig({ ...secrets }), vps: asConfig({ ownerPassword: "another one" }) };
    const { copy, stacks } = over(before);
    await expect(copy("home", "vps")).rejects.toThrow(
      "nothing was written: 'home' and 'vps' have different ownerPassword. Which one is the server's? " +
        "Remove the other first: pulumi config rm homestead:<key> --stack <stack>",
    );
    expect(stacks()).toEqual(before);
  });

  it("refuses a stack that does not exist, and a stack to itself", async () => {
    const { copy } = over({ home: {} });
    await expect(copy("vps", "home")).rejects.toThrow(
      "stack 'vps' does not exist: pulumi stack init vps --no-select, or pulumi login <url of the state> where another backend has it",
    );
    await expect(copy("home", "home")).rejects.toThrow("'home' to itself: name two stacks");
  });
});

describe("homestead identity verify", () => {
  const secrets = { ...createSharedSecrets(), ...bucketSecrets };

  it("prints one fingerprint a stack and is content when they are equal", async () => {
    const { verify, printed } = over({ home: asConfig(secrets), vps: asConfig(secrets) });
    expect(await verify(["home", "vps"])).toBe(true);
    expect(printed[0]?.match(new RegExp(identityFingerprint(secrets), "g"))).toHaveLength(2);
    expect(printed.slice(1)).toEqual(["the same in home and vps"]);
    for (const value of Object.values(secrets)) expect(printed.join("\n")).not.toContain(value);
  });

  it("is not content when a secret differs, and says which, never what", async () => {
    const other = { ...secrets, databasePassword: "another-database-password" };
    const { verify, printed } = over({ home: asConfig(secrets), vps: asConfig(other) });
    expect(await verify(["home", "vps"])).toBe(false);
    expect(printed.at(-1)).toBe("different between home and vps: databasePassword");
    expect(printed.join("\n")).not.toContain(other.databasePassword);
  });

  it("is not content with a wrong format or a missing secret", async () => {
    const { secretKeyBase: _, ...rest } = secrets;
    const { verify, printed } = over({ home: asConfig({ ...rest, ownerPassword: "short" }) });
    expect(await verify(["home"])).toBe(false);
    expect(printed[0]).toContain("secretKeyBase is missing");
    expect(printed[0]).toContain("ownerPassword must be 8 to 72 characters (Mastodon's rule)");
  });

  it("says what is still to be set after create", async () => {
    const { verify, printed } = over({ home: asConfig({ ...createSharedSecrets() }) });
    expect(await verify(["home"])).toBe(true);
    expect(printed.at(-1)).toBe(
      "not set yet: vaultAccessKeyId, vaultSecretAccessKey, mediaAccessKeyId, mediaSecretAccessKey " +
        "(pulumi config set --secret homestead:<key> --stack <stack>)",
    );
  });

  it("refuses a stack that does not exist", async () => {
    await expect(over({}).verify(["home"])).rejects.toThrow(
      "stack 'home' does not exist: pulumi stack init home --no-select, or pulumi login <url of the state> where another backend has it",
    );
  });
});

describe("the Pulumi CLI", () => {
  it("is the one on PATH", () => {
    const { environment } = fakePulumi();
    expect(findPulumi(environment)).toEqual([path.join(environment.PATH?.split(path.delimiter)[0] ?? "", "pulumi")]);
  });

  it("is the npm launcher where there is none", () => {
    const folder = temporaryFolder();
    const npx = path.join(folder, "npx");
    fs.writeFileSync(npx, "#!/bin/sh\n", { mode: 0o755 });
    expect(findPulumi({ PATH: folder })).toEqual([npx, "--yes", "pulumi@3"]);
  });

  it.each([
    ["pulumi: fetch failed", "fetch failed"],
    [
      "npm error code ENOTFOUND\nnpm error network request to https://registry.npmjs.org/pulumi failed",
      "code ENOTFOUND",
    ],
  ])("is asked for where npx cannot get it: %s", async (stderr, said) => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "npx"), `#!/bin/sh\nprintf '%s\\n' '${stderr}' >&2\nexit 1\n`, { mode: 0o755 });
    await expect(new PulumiCli(folder, { PATH: folder }).stacks()).rejects.toThrow(
      new UserError(
        `pulumi stack ls: no pulumi is on PATH, and npx could not get it (${said}): install the Pulumi CLI (https://www.pulumi.com/docs/install/)`,
      ),
    );
  });

  it("is missed in one line", () => {
    expect(() => findPulumi({ PATH: temporaryFolder() })).toThrow(
      "neither pulumi nor npx is on PATH: install the Pulumi CLI (https://www.pulumi.com/docs/install/) or Node.js",
    );
  });
});
