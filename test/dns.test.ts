/**
 * DNS by signed updates, against a real authoritative server: Debian's BIND on a loopback port, with a zone and keys
 * of its own. Left out, with one line, where there is none (apt-get install bind9 bind9-dnsutils).
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as dgram from "node:dgram";
import { Resolver } from "node:dns/promises";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { dnsRecords } from "../components/dns";
import { planStack, projectFolder } from "../lib/plan";
import { hasNsupdate, nsupdateScript, sendUpdate } from "../lib/rfc2136";
import type { AddressRecord, SignedUpdate } from "../lib/rfc2136";
import { copyProject, temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";
import { named as plannedResource } from "./support/planned";
import { run } from "./support/command";

const searchPath = `${process.env["PATH"] ?? ""}:/usr/sbin`;
const has = (program: string, flag: string) =>
  spawnSync(program, [flag], { env: { PATH: searchPath }, stdio: "ignore" }).error === undefined;
const missing = [["named", "-V"] as const, ["nsupdate", "-V"] as const].filter(([p, flag]) => !has(p, flag));
if (missing.length > 0) {
  console.log(
    `left out: DNS updates of a real server (no ${missing.map(([p]) => p).join(", ")}; bind9, bind9-dnsutils)`,
  );
}

const zone = "ramble.test";
const key = Buffer.from("a key of thirty-two bytes, here.").toString("base64");
const otherKey = Buffer.from("another key of thirty-two bytes!").toString("base64");
const a = (name: string, value: string, ttl = 60): AddressRecord => ({ name, type: "A", value, ttl });

describe("the text for nsupdate", () => {
  it("takes a name's old addresses away in the update that brings the new one", () => {
    const update: SignedUpdate = {
      server: "192.0.2.1",
      port: 53,
      zone,
      keyName: "homestead",
      algorithm: "hmac-sha512",
      key,
      records: [a(zone, "203.0.113.10"), { name: `mastodon.${zone}`, type: "AAAA", value: "2001:db8::1", ttl: 300 }],
    };
    expect(nsupdateScript(update).split("\n")).toEqual([
      "server 192.0.2.1 53",
      "zone ramble.test.",
      `key hmac-sha512:homestead ${key}`,
      "update delete ramble.test. A",
      "update delete ramble.test. AAAA",
      "update delete ramble.test. CNAME",
      "update add ramble.test. 60 A 203.0.113.10",
      "update delete mastodon.ramble.test. A",
      "update delete mastodon.ramble.test. AAAA",
      "update delete mastodon.ramble.test. CNAME",
      "update add mastodon.ramble.test. 300 AAAA 2001:db8::1",
      "send",
      "",
    ]);
  });
});

describe("dnsRecords", () => {
  const settings = { apex: zone, webHost: `mastodon.${zone}` };
  const rfc2136 = {
    kind: "rfc2136",
    server: "192.0.2.1",
    port: 53,
    zone,
    keyName: "k",
    algorithm: "hmac-sha256",
  } as const;

  it("takes the TTL of whoever changes DNS, and a minute where nobody does", () => {
    const ttl = (dns: Parameters<typeof dnsRecords>[0]["dns"]) =>
      dnsRecords({ ...settings, ingress: { address: "203.0.113.10" } as never, dns }).map((record) => record.ttl);
    expect(ttl({ ...rfc2136, ttl: 120 })).toEqual([120, 120]);
    expect(ttl({ kind: "command", command: "true", ttl: 30 })).toEqual([30, 30]);
    expect(ttl({ kind: "manual" })).toEqual([60, 60]);
  });
});

describe("dns by rfc2136 in a plan", () => {
  it("is one command after the verification, with the key in its secret standard input and nowhere else", async () => {
    const folder = copyProject({
      "Pulumi.home.yaml": (text) =>
        text.replace(
          "config:\n",
          "config:\n  homestead:dns: {kind: rfc2136, server: 192.0.2.1, zone: ramble.moe, keyName: homestead}\n  homestead:dnsKey: {secure: encrypted}\n",
        ),
    });
    const plan = await planStack("home", { folder });
    const update = plannedResource(plan, "dns-update");
    expect(update.secretPaths).toContain("stdin");
    expect(update.inputs["create"]).toBe("node --require ./cli/typescript.cjs lib/rfc2136-main.ts");
    expect(update.inputs["delete"]).toBeUndefined();
    const { stdin, ...rest } = update.inputs;
    expect(stdin).toContain("<dnsKey>");
    expect(JSON.stringify(rest)).not.toContain("dnsKey");
    const holders = plan.resources.filter((resource) => JSON.stringify(resource.inputs).includes("<dnsKey>"));
    expect(holders.map(({ name }) => name)).toEqual(["dns-update"]);
    expect(update.options.dependsOn.length).toBe(0);
    expect(plannedResource(plan, "dns").options.dependsOn.some((urn) => urn.includes("verification"))).toBe(true);
  });
});

describe("dns by a command in a plan", () => {
  const planOf = async (command: string) => {
    const folder = copyProject({
      "Pulumi.home.yaml": (text) =>
        text.replace("config:\n", `config:\n  homestead:dns: {kind: command, command: ${command}}\n`),
    });
    const plan = await planStack("home", { folder });
    return { plan, commands: plan.resources.filter(({ name }) => name.startsWith("dns-")) };
  };

  it("keeps a command secret that the stack holds encrypted, and what it says", async () => {
    const { plan, commands } = await planOf("{secure: encrypted}");
    expect(commands.map(({ name }) => name)).toEqual(["dns-ramble.moe", "dns-mastodon.ramble.moe"]);
    for (const { inputs, secretPaths, leaks, options } of commands) {
      expect(inputs["create"]).toBe("<dns.command>");
      expect({ secretPaths, leaks }).toEqual({ secretPaths: ["create"], leaks: [] });
      expect(options.additionalSecretOutputs).toEqual(expect.arrayContaining(["create", "stdout", "stderr"]));
    }
    const holders = plan.resources.filter(({ inputs }) => JSON.stringify(inputs).includes("<dns.command>"));
    expect(holders).toEqual(commands);
  });

  it("marks no other: to the provider the mark is a change, and it runs the command again", async () => {
    const { commands } = await planOf("./set-record");
    expect(commands.map(({ inputs, secretPaths }) => [inputs["create"], secretPaths])).toEqual([
      ["./set-record", []],
      ["./set-record", []],
    ]);
  });
});

describe.skipIf(leftOut(missing.length > 0 ? `no ${missing.map(([p]) => p).join(", ")}` : undefined))(
  "an update of a real server",
  () => {
    let folder: string;
    let server: ChildProcess;
    let port: number;
    const said: string[] = [];
    const update = (change: Partial<SignedUpdate> = {}): SignedUpdate => ({
      server: "127.0.0.1",
      port,
      zone,
      keyName: "homestead",
      algorithm: "hmac-sha256",
      key,
      records: [a(zone, "203.0.113.10"), a(`mastodon.${zone}`, "203.0.113.10")],
      ...change,
    });
    const resolver = new Resolver({ timeout: 1000, tries: 2 });
    const refusal = async (change: Partial<SignedUpdate>): Promise<string> => {
      try {
        await sendUpdate(update(change));
      } catch (error) {
        return (error as Error).message;
      }
      throw new Error("the update was made");
    };

    beforeAll(async () => {
      folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-named-"));
      port = await freePort();
      const tsig = (name: string, algorithm: string, secret: string) =>
        `key "${name}" { algorithm ${algorithm}; secret "${secret}"; };`;
      fs.writeFileSync(
        path.join(folder, "named.conf"),
        `options {
  directory "${folder}";
  listen-on port ${port} { 127.0.0.1; };
  listen-on-v6 { none; };
  pid-file none;
  session-keyfile "${folder}/session.key";
  recursion no;
  notify no;
};
controls { };
${tsig("homestead", "hmac-sha256", key)}
${tsig("strong", "hmac-sha512", key)}
${tsig("reader", "hmac-sha256", key)}
zone "${zone}" {
  type primary;
  file "zone.db";
  update-policy { grant homestead zonesub A AAAA CNAME; grant strong zonesub A AAAA CNAME; };
};
`,
      );
      fs.writeFileSync(
        path.join(folder, "zone.db"),
        `$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
@ IN MX 10 mail
@ IN TXT "kept"
ns IN A 127.0.0.1
mail IN A 192.0.2.25
mastodon IN CNAME elsewhere.example.
`,
      );
      server = spawn("named", ["-g", "-4", "-n", "1", "-c", path.join(folder, "named.conf")], {
        env: { PATH: searchPath },
        stdio: ["ignore", "ignore", "pipe"],
      });
      server.stderr?.on("data", (chunk: Buffer) => said.push(chunk.toString()));
      resolver.setServers([`127.0.0.1:${port}`]);
      for (let attempt = 0; ; attempt++) {
        try {
          await resolver.resolveTxt(zone);
          return;
        } catch (error) {
          if (attempt > 60 || server.exitCode !== null)
            throw new Error(`named: ${said.join("").slice(-2000)}`, { cause: error });
          await new Promise((resolve) => setTimeout(resolve, 250));
        }
      }
    });
    afterAll(() => {
      server.kill("SIGKILL");
      fs.rmSync(folder, { recursive: true, force: true });
    });

    it("sets apex and web host, over whatever was there, and nothing else", async () => {
      await expect(resolver.resolveCname(`mastodon.${zone}`)).resolves.toEqual(["elsewhere.example"]);
      await sendUpdate(update());
      expect(await resolver.resolve4(zone, { ttl: true })).toEqual([{ address: "203.0.113.10", ttl: 60 }]);
      expect(await resolver.resolve4(`mastodon.${zone}`)).toEqual(["203.0.113.10"]);
      expect(await resolver.resolveTxt(zone)).toEqual([["kept"]]);
      expect((await resolver.resolveMx(zone)).map(({ exchange }) => exchange)).toEqual([`mail.${zone}`]);
    });

    it("leaves no address of the other site behind, one of another type neither", async () => {
      await sendUpdate(update());
      await sendUpdate(update({ records: [{ name: zone, type: "AAAA", value: "2001:db8::1", ttl: 60 }] }));
      expect(await resolver.resolve6(zone)).toEqual(["2001:db8::1"]);
      await expect(resolver.resolve4(zone)).rejects.toThrow(/ENODATA/);
      await sendUpdate(update());
      expect(await resolver.resolve4(zone)).toEqual(["203.0.113.10"]);
      await expect(resolver.resolve6(zone)).rejects.toThrow(/ENODATA/);
    });

    it("knows hmac-sha512 keys", async () => {
      await sendUpdate(update({ keyName: "strong", algorithm: "hmac-sha512", records: [a(zone, "203.0.113.11")] }));
      expect(await resolver.resolve4(zone)).toEqual(["203.0.113.11"]);
    });

    it("is made as a whole or not at all", async () => {
      await sendUpdate(update());
      const records = [a(zone, "203.0.113.99"), a("ramble.example", "203.0.113.99")];
      await expect(sendUpdate(update({ records }))).rejects.toThrow();
      expect(await resolver.resolve4(zone)).toEqual(["203.0.113.10"]);
    });

    it.each<[what: string, change: Partial<SignedUpdate>, line: (at: string) => string]>([
      [
        "a wrong secret",
        { key: otherKey },
        (at) =>
          `${at}: expected the secret of the key 'homestead', got NOTAUTH(BADSIG); pulumi config set --secret homestead:dnsKey (the text after \`secret\` in the server's key)`,
      ],
      [
        "a key that the server does not know",
        { keyName: "unknown" },
        (at) =>
          `${at}: expected a server that knows the key 'unknown', got NOTAUTH(BADKEY); check dns.keyName and dns.algorithm (hmac-sha256) against the server's key`,
      ],
      [
        "a key that may not change the zone",
        { keyName: "reader" },
        (at) =>
          `${at}: expected the key 'reader' to be allowed to change A, AAAA and CNAME records in ramble.test, got REFUSED; grant it on the server: update-policy (BIND), acl (Knot)`,
      ],
      [
        "a zone of another server",
        { zone: "ramble.example", records: [a("ramble.example", "203.0.113.10")] },
        (at) =>
          `${at}: expected a server that is primary for ramble.example, got NOTAUTH; check dns.server and dns.zone: a secondary, or another zone's server, takes no updates`,
      ],
      [
        "a name that is not in the zone",
        { records: [a("ramble.example", "203.0.113.10")] },
        (at) => `${at}: expected names of the zone ramble.test (ramble.example), got NOTZONE; check dns.zone`,
      ],
    ])("says in one line what is wrong with %s", async (_what, change, line) => {
      expect(await refusal(change)).toBe(line(`dns update failed: 127.0.0.1 port ${port}`));
    });

    it("says so when nothing answers there", async () => {
      const closed = await freePort();
      expect(await refusal({ port: closed })).toMatch(
        new RegExp(
          `^dns update failed: 127\\.0\\.0\\.1 port ${closed}: expected a server that answers, got [^;]*(refused|timed out)[^;]*; check dns\\.server and dns\\.port, and that no firewall is between$`,
        ),
      );
    });

    it("is a program that takes the key from standard input and prints it nowhere", async () => {
      const program = (input: SignedUpdate) =>
        run(process.execPath, ["--require", "./cli/typescript.cjs", "lib/rfc2136-main.ts"], {
          folder: projectFolder,
          input: JSON.stringify(input),
        });
      const good = await program(update());
      expect(good).toEqual({
        code: 0,
        stdout: `${zone} A 203.0.113.10\nmastodon.${zone} A 203.0.113.10\n`,
        stderr: "",
      });
      const bad = await program(update({ key: otherKey }));
      expect(bad.code).toBe(1);
      expect(bad.stdout).toBe("");
      expect(bad.stderr).toMatch(/^dns update failed: .*BADSIG.*\n$/);
      expect(bad.stderr).not.toContain(otherKey);
    });

    it("says so on a machine without nsupdate", async () => {
      const before = process.env["PATH"];
      process.env["PATH"] = temporaryFolder();
      try {
        expect(await hasNsupdate()).toBe(false);
        expect(await refusal({})).toBe(
          "dns update failed: expected nsupdate on this machine, got none; apt-get install bind9-dnsutils",
        );
      } finally {
        process.env["PATH"] = before;
      }
      expect(await hasNsupdate()).toBe(true);
    });
  },
);

/** A port of the loopback that nobody listens at. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket("udp4");
    socket.on("error", reject);
    socket.bind(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
