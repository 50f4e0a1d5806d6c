import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { projectFolder } from "../lib/plan";
import { checkOverrides, readOverrides } from "../lib/try/configuration";
import { inTrial, originOf, trialEnvironment } from "../lib/try/mends";
import { SettingsError, configKeys, sharedKeys } from "../settings";
import type { Fault } from "../settings";
import { temporaryFolder } from "./support/folders";

/** What is said of overrides; undefined if nothing is wrong with them. */
async function fault(sets: string[], file?: string): Promise<string | undefined> {
  try {
    await checkOverrides(projectFolder, "dev", readOverrides(sets, file));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const fileOf = (text: string): string => {
  const file = path.join(temporaryFolder(), "mine.yaml");
  fs.writeFileSync(file, text);
  return file;
};

describe("what --set and --config give", () => {
  it("is taken where nothing is wrong with it, secrets too", async () => {
    expect(await fault([])).toBeUndefined();
    expect(await fault(["locale=de", "blog.kind=image", "blog.image=ghcr.io/me/blog:1"])).toBeUndefined();
    const smtp = "smtp: {kind: server, host: mail.example.net, from: me@example.net, auth: plain, username: me}\n";
    expect(await fault([], fileOf(`${smtp}smtpPassword: a\n`))).toBeUndefined();
    expect(await fault([], fileOf("ownerPassword: from-a-file\n"))).toBeUndefined();
  });

  it.each([
    [
      "a value that is not allowed, of a key in Pulumi.yaml",
      ["owner=a-b"],
      '  homestead:owner: "a-b"\n    allowed: 1 to 30 letters, digits and _ (Mastodon\'s rule for user names)\n    mend:    ./try --set owner=<value>, in place of --set owner=a-b',
    ],
    [
      "a value inside an object",
      ["blog.kind=image", "blog.image=Not An Image"],
      '  homestead:blog.image: "Not An Image"\n    allowed: host/path:tag[@sha256:digest]\n    mend:    ./try --set blog.image=<value>, in place of --set blog.image=Not An Image',
    ],
    [
      "a key that there is not",
      ["ownr=me"],
      '  homestead:ownr: "me"\n    allowed: a key of this project; did you mean owner?\n    mend:    leave out --set ownr=me',
    ],
    [
      "what another key is at odds with",
      ["apex=mastodon.ramble.localhost"],
      '  homestead:webHost: "mastodon.ramble.localhost"\n    allowed: a host other than the apex: the blog is on the apex, Mastodon on the web host\n    mend:    ./try --set webHost=<value>',
    ],
    [
      "what needs another key beside it",
      ["registrations=approval"],
      '  homestead:registrations: "approval"\n    allowed: single while smtp.kind is none: who registers is sent a mail to confirm the address\n    mend:    ./try --set smtp.kind=server --set smtp.host=<value> --set smtp.from=<value>',
    ],
  ])("is refused with its own mend: %s", async (_what, sets, says) => {
    expect(await fault(sets)).toBe(`1 fault in the configuration of stack 'dev'; nothing was changed.\n${says}`);
  });

  it("is taken for an entry of a list, and for a label whose key has dots, as a mend names them", async () => {
    const entries = ["network.privateEgress[0]=10.0.0.5/32", "network.privateEgress[1]=10.0.0.6/32"];
    expect(await fault(entries)).toBeUndefined();
    expect(await fault(['ingress.labels["app.kubernetes.io/name"]=traefik'])).toBeUndefined();
    expect(await fault(["network.privateEgress[0]=10.0.0.5"])).toBe(
      [
        "1 fault in the configuration of stack 'dev'; nothing was changed.",
        '  homestead:network.privateEgress[0]: "10.0.0.5"',
        "    allowed: an address range such as 192.168.1.0/24",
        "    mend:    ./try --set 'network.privateEgress[0]=<value>', in place of --set network.privateEgress[0]=10.0.0.5",
      ].join("\n"),
    );
  });

  it("is refused by the file that it stands in", async () => {
    const file = fileOf("homestead:locale: Deutsch\n");
    expect(await fault([], file)).toContain(
      `mend:    ./try --set locale=<value>, in place of locale in ${file} (--config)`,
    );
  });

  it("is refused where the CLI would refuse its type, with all else that is wrong, and told once", async () => {
    const typeAlone = fileOf('network: \'{"families":["IPv4"]}\'\n');
    const type =
      `network in ${typeAlone} (--config): homestead:network is "{\\"families\\":[\\"IPv4\\"]}", and Pulumi.yaml declares it as an object; ` +
      "mend: write there a mapping, one name a line below the key (JSON in quotes is a string)";
    expect(await fault([], typeAlone)).toBe(type);
    expect(await fault(["archiveInterval=often", "owner=a-b"], typeAlone)).toBe(
      [
        type,
        "2 faults in the configuration of stack 'dev'; nothing was changed.",
        '  homestead:owner: "a-b"',
        "    allowed: 1 to 30 letters, digits and _ (Mastodon's rule for user names)",
        "    mend:    ./try --set owner=<value>, in place of --set owner=a-b",
        '  homestead:archiveInterval: "often"',
        "    allowed: seconds, 1 to 3600",
        "    mend:    ./try --set archiveInterval=<value>, in place of --set archiveInterval=often",
      ].join("\n"),
    );
  });

  it("is refused where it names another cluster than the current context's", async () => {
    expect(await fault(["cluster.context=other"])).toBe(
      "--set cluster.context=other: a trial is on the cluster of the current context; leave that out, and: kubectl config use-context <context>",
    );
  });

  it("is never sent to the project's files, nor to another backend", async () => {
    for (const key of configKeys.filter((key) => key !== "cluster")) {
      for (const value of ["-", "{x: y}"]) {
        const says = (await fault([`${key}=${value}`])) ?? "";
        expect(says).not.toMatch(/pulumi config|in Pulumi\.|from Pulumi\./);
      }
    }
  });
});

describe("a trial's mend", () => {
  const mend = (text: string, origins: Record<string, string> = {}, key = "homestead:x") =>
    inTrial({ key, value: "", allowed: "", mend: text }, origins).mend;

  it.each([
    [
      "pulumi config set --path 'homestead:storage.databases' <class> --stack dev",
      "./try --set storage.databases=<class>",
    ],
    [
      "pulumi config set --path --type string 'homestead:ingress.labels.a' <value> --stack dev",
      "./try --set ingress.labels.a=<value>",
    ],
    [
      "pulumi config set --path homestead:operators.certManager install --stack dev",
      "./try --set operators.certManager=install",
    ],
    [
      "pulumi config set --path homestead:cluster.context <context of dev> --stack dev",
      "kubectl config use-context <context>, then ./try",
    ],
    [
      "pulumi config set --secret 'homestead:smtpPassword' --stack dev",
      "smtpPassword: <value> in a file, and ./try --config <file>",
    ],
    ["edit blog in Pulumi.dev.yaml", "./try --set blog=<value>"],
    [
      "pulumi config set --path 'homestead:network.privateEgress[0]' 10.0.0.5/32 --stack dev",
      "./try --set 'network.privateEgress[0]=10.0.0.5/32'",
    ],
    // Each call starts anew.
    [
      "pulumi config set --path 'homestead:network.privateEgress[0]' 10.0.0.5/32 --stack dev, then: pulumi config set --path 'homestead:network.privateEgress[1]' 10.0.0.6/32 --stack dev; and so on",
      "./try --set 'network.privateEgress[0]=10.0.0.5/32' --set 'network.privateEgress[1]=10.0.0.6/32'; and so on",
    ],
    [
      "pulumi config set --path 'homestead:blog.kind' image --stack dev && pulumi config set --path 'homestead:blog.image' <value> --stack dev && more",
      "./try --set blog.kind=image --set blog.image=<value> && more",
    ],
    ["edit apex in Pulumi.yaml", "./try --set apex=<value>"],
    ["pulumi config rm --path 'homestead:blog.x' --stack dev", "take blog.x out of Pulumi.dev.yaml"],
    ["rename or remove ownr in Pulumi.yaml", "take ownr out of Pulumi.dev.yaml"],
    ["kubectl --context trial get namespaces", "kubectl --context trial get namespaces"],
    [
      "set generations.dev to 2 in Pulumi.yaml and run: pulumi up --refresh --run-program --stack dev",
      "./try --set generations.dev=2",
    ],
  ])("%s -> %s", (text, wanted) => {
    expect(mend(text)).toBe(wanted);
  });

  it("leaves out what the user wrote", () => {
    expect(
      mend("pulumi config rm --path homestead:charts.mastodon (back to the one in versions.ts)", {
        charts: "charts in a.yaml (--config)",
      }),
    ).toBe("leave out charts in a.yaml (--config) (back to the one in versions.ts)");
  });

  it("of an entry goes with the list that the user gave, and takes the place of the entry alone", () => {
    const entry = (index: number) =>
      `pulumi config set --path 'homestead:network.privateEgress[${index}]' 10.0.0.5/32 --stack dev`;
    const list = { "network.privateEgress": "--set network.privateEgress=[10.9.0.0/16]" };
    expect(mend(entry(1), list, "homestead:network.privateEgress")).toBe(
      "./try --set 'network.privateEgress[1]=10.0.0.5/32', after --set network.privateEgress=[10.9.0.0/16]",
    );
    const first = { "network.privateEgress[0]": "--set network.privateEgress[0]=10.0.0.5" };
    expect(mend(entry(1), first, "homestead:network.privateEgress")).toBe(
      "./try --set 'network.privateEgress[1]=10.0.0.5/32', after --set network.privateEgress[0]=10.0.0.5",
    );
    expect(mend(entry(0), first, "homestead:network.privateEgress[0]")).toBe(
      "./try --set 'network.privateEgress[0]=10.0.0.5/32', in place of --set network.privateEgress[0]=10.0.0.5",
    );
  });

  it("is for what the user wrote nearest to the key", () => {
    const origins = { blog: "blog in a.yaml (--config)", "blog.kind": "--set blog.kind=image" };
    expect(originOf("homestead:blog.kind", origins)).toBe("--set blog.kind=image");
    expect(originOf("homestead:blog.image", origins)).toBe("blog in a.yaml (--config)");
    expect(originOf("homestead:network", { "network.privateEgress": "b" })).toBe("b");
    expect(originOf("homestead:network.privateEgress[0]", { "network.privateEgress": "b" })).toBe("b");
    expect(originOf("homestead:network.privateEgress", { "network.privateEgress[0]": "b" })).toBe("b");
    expect(originOf('homestead:ingress.labels["a.b/c"]', { 'ingress.labels["a.b/c"]': "b" })).toBe("b");
    expect(originOf("homestead:blogs", origins)).toBeUndefined();
  });

  it("is what the program says, which Pulumi starts", () => {
    const fault: Fault = { key: "homestead:owner", value: '"a-b"', allowed: "x", mend: "edit owner in Pulumi.yaml" };
    try {
      Object.assign(process.env, trialEnvironment({ owner: "--set owner=a-b" }));
      expect(new SettingsError("dev", [fault]).message).toContain(
        "mend:    ./try --set owner=<value>, in place of --set owner=a-b",
      );
    } finally {
      Reflect.deleteProperty(process.env, "HOMESTEAD_TRIAL");
    }
    expect(new SettingsError("dev", [fault]).message).toContain("mend:    edit owner in Pulumi.yaml");
    expect(sharedKeys).toContain("owner");
  });
});
