import { execFileSync } from "node:child_process";
import * as dgram from "node:dgram";
import * as fs from "node:fs";
import * as http from "node:http";
import * as net from "node:net";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import type * as k8s from "@kubernetes/client-node";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { parse } from "yaml";
import { doctorCommand, render } from "../cli/doctor";
import { certificateName } from "../components/ingress";
import { bundle } from "../lib/bundle";
import { aheadBy } from "../lib/clock";
import { examine, isSaid, refusalOf, unreadLine } from "../lib/doctor";
import { reason, within } from "../lib/attempt";
import * as buckets from "../lib/doctor/buckets";
import * as capacity from "../lib/doctor/capacity";
import { DiskProbe, Unmeasured, diskObjects, doctorNamespace, namespaceObjects } from "../lib/doctor/disk";
import { measure, summaryOf } from "../lib/doctor/fsync";
import type { Measured } from "../lib/doctor/fsync";
import { asksOverHttp, issuerLine, issuerOf, waitingLine } from "../lib/doctor/issuer";
import * as lines from "../lib/doctor/lines";
import {
  clientAddressLine,
  expectedVersion,
  imageName,
  operatorLine,
  traefikLine,
  uploadLine,
} from "../lib/doctor/operators";
import type { OperatorFacts } from "../lib/doctor/operators";
import { programLines } from "../lib/doctor/program";
import type { Programs } from "../lib/doctor/program";
import * as storage from "../lib/doctor/storage";
import { isOlder, satisfies } from "../lib/doctor/version";
import { kubeClient } from "../lib/kube";
import { projectFolder } from "../lib/plan";
import type { JsonObject } from "../lib/plan/mask";
import type { ConfigEntry } from "../lib/pulumi-cli";
import { loadSite } from "../lib/site-secrets";
import type { DnsAnswer } from "../lib/status/lines";
import { SettingsError, parseSettings } from "../settings";
import type { Settings, StackName } from "../settings";
import { chartsInFolders, committedConfiguration, configurationOf } from "./support/configuration";
import { kubeconfigFor } from "./support/fake-cluster";
import { copyProject, temporaryFolder } from "./support/folders";
import { plannedStack } from "./support/planned";
import { faultsOf } from "./support/schemas";

const settingsOf = (stack: StackName = "home", changes: Record<string, unknown> = {}): Settings =>
  parseSettings(configurationOf(stack, changes));
const home = settingsOf();
const { images } = home;

/** A port at which nobody listens. */
async function closedPort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe("versions", () => {
  it.each([
    ["3.260.0", ">=3.231.0", true],
    ["3.231.0", ">=3.231.0", true],
    ["3.230.9", ">=3.231.0", false],
    ["4.0.0", ">=3.231.0 <4.0.0", false],
    ["3.9.0", "3.10.0", false],
    ["something", ">=3.231.0", false],
  ])("%s within %s: %s", (version, range, is) => {
    expect(satisfies(version, range)).toBe(is);
  });

  it("knows no other ranges", () => {
    expect(() => satisfies("3.0.0", "^3.0.0")).toThrow(
      "requiredPulumiVersion '^3.0.0' is no range of plain comparisons",
    );
  });

  it.each([
    ["v0.13.0", "0.14.0", true],
    ["v0.14.0", "0.14.0", false],
    ["1.30", "1.30.1", true],
    ["lab", "0.14.0", false],
  ])("%s older than %s: %s", (a, b, is) => {
    expect(isOlder(a, b)).toBe(is);
  });
});

describe("the programs", () => {
  const good: Programs = {
    pulumi: "3.260.0",
    required: ">=3.231.0",
    node: "24.21.0",
    packages: [
      { name: "@pulumi/kubernetes", pinned: "4.32.0", installed: "4.32.0" },
      { name: "@pulumi/pulumi", pinned: "3.260.0", installed: "3.260.0" },
    ],
    plugins: ["kubernetes 4.32.0"],
  };

  it("are a fault on a Node.js that the program does not run on: the one that a shell finds, not this one", () => {
    const node = (version: string | undefined) =>
      programLines({ ...good, node: version }).find(({ what }) => what === "node");
    expect(node("20.20.2")).toEqual({
      area: "program",
      what: "node",
      verdict: "fault",
      says: "homestead needs Node.js 22.19.0 or newer, and the node on the PATH is 20.20.2",
      mend: 'npm ci, then: export PATH="$PWD/node_modules/.bin:$PATH"',
    });
    expect(node(undefined)?.verdict).toBe("fault");
    expect(["22.18.9", "22.19.0", "24.0.0"].map((version) => node(version)?.verdict)).toEqual(["fault", "ok", "ok"]);
  });

  it("are fine as package.json and Pulumi.yaml want them", () => {
    expect(programLines(good)).toEqual([
      { area: "program", what: "pulumi", verdict: "ok", says: "3.260.0; Pulumi.yaml wants >=3.231.0" },
      { area: "program", what: "node", verdict: "ok", says: "24.21.0" },
      {
        area: "program",
        what: "packages",
        verdict: "ok",
        says: "@pulumi/kubernetes 4.32.0, @pulumi/pulumi 3.260.0",
      },
      { area: "program", what: "plugins", verdict: "ok", says: "kubernetes 4.32.0" },
    ]);
  });

  it("are a fault when one is too old, missing or another, and a warning when one is yet to be downloaded", () => {
    const packages = [
      { name: "@pulumi/kubernetes", pinned: "4.32.0", installed: "4.31.0" },
      { name: "@pulumi/random", pinned: "4.21.1" },
    ];
    const bad = programLines({ ...good, pulumi: "3.200.0", packages, plugins: ["kubernetes 4.31.0"] });
    expect(bad.filter(({ verdict }) => verdict !== "ok")).toEqual([
      {
        area: "program",
        what: "pulumi",
        verdict: "fault",
        says: "3.200.0; Pulumi.yaml wants >=3.231.0",
        mend: "install a newer Pulumi CLI: https://www.pulumi.com/docs/install/",
      },
      {
        area: "program",
        what: "packages",
        verdict: "fault",
        says: "@pulumi/kubernetes is 4.31.0, package.json says 4.32.0; @pulumi/random is missing, package.json says 4.21.1",
        mend: "npm ci",
      },
      {
        area: "program",
        what: "plugins",
        verdict: "warning",
        says: "the next update downloads kubernetes 4.32.0, random 4.21.1",
        mend: "pulumi install",
      },
    ]);
  });

  it("may have a provider on the PATH, of whatever version", () => {
    expect(programLines({ ...good, plugins: ["kubernetes"] }).at(-1)?.verdict).toBe("ok");
  });

  it("leaves a Pulumi.yaml that cannot be read to the stack's line", () => {
    const line = { area: "program", what: "pulumi", verdict: "ok", says: "3.260.0" };
    expect(programLines({ ...good, required: undefined })[0]).toEqual(line);
  });
});

describe("a stack that cannot be read", () => {
  const config = "pulumi config --stack home:";
  const typed = "read -rs PULUMI_CONFIG_PASSPHRASE && export PULUMI_CONFIG_PASSPHRASE";
  const elsewhere = "pulumi login <url of the state> where another backend has it";
  const cli = "install the Pulumi CLI (https://www.pulumi.com/docs/install/)";
  // The words of the CLI 3.260.0, as it says them to a file:// backend.
  it.each<[says: string, mend: string, stack?: StackName]>([
    [
      `${config} no stack named 'home' found`,
      `npx homestead identity create for a new server, npx homestead identity copy vps home where vps has one; ${elsewhere}`,
    ],
    [
      "pulumi config --stack dev: no stack named 'dev' found",
      `npx homestead identity create --stacks dev, the first time; ${elsewhere}`,
      "dev",
    ],
    [
      `${config} incorrect passphrase`,
      `give the stack's own: ${typed}; where it is lost: docs/runbooks/lost-passphrase.md`,
    ],
    [
      `${config} passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables`,
      typed,
    ],
    [`${config} unable to read PULUMI_CONFIG_PASSPHRASE_FILE: open /a: no such file or directory`, typed],
    [
      `${config} PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions`,
      "pulumi login <url of the state>, such as s3://...; for Pulumi Cloud: export PULUMI_ACCESS_TOKEN",
    ],
    [
      `${config} unable to open state directory "file:///a": stat /a: no such file or directory`,
      "pulumi login <url of the state>: the one of this login is not there",
    ],
    [
      `${config} invalid YAML file: yaml: line 3: found character that cannot start any token`,
      "mend Pulumi.home.yaml, at line 3 or near it: git diff Pulumi.home.yaml",
    ],
    [
      `${config} invalid YAML file: could not unmarshal map: yaml: unmarshal errors:`,
      "mend Pulumi.home.yaml: git diff Pulumi.home.yaml",
    ],
    // What a merge left behind.
    [`${config} expected project to be an object, was 'string'`, "mend Pulumi.home.yaml: git diff Pulumi.home.yaml"],
    [
      `${config} could not unmarshal '/srv/homestead/Pulumi.yaml': invalid YAML file: yaml: line 1: did not find expected node content`,
      "mend Pulumi.yaml, at line 1 or near it: git diff Pulumi.yaml",
    ],
    [`neither pulumi nor npx is on PATH: ${cli} or Node.js`, cli],
    [`${config} no pulumi is on PATH, and npx could not get it (fetch failed): ${cli}`, cli],
    [
      "Pulumi.vps.yaml is not YAML: Tabs are not allowed as indentation at line 39, column 1:",
      "mend Pulumi.vps.yaml, at line 39 or near it: git diff Pulumi.vps.yaml",
    ],
    [
      `${config} could not decrypt configuration values: cipher: message authentication failed`,
      "a secret in Pulumi.home.yaml is damaged, or copied from another stack's file: git diff Pulumi.home.yaml, or " +
        "set it again: pulumi config set --secret <key> --stack home",
    ],
    [`${config} something new`, "pulumi stack ls, then pulumi config --stack home"],
    ["no answer within 60 s", "pulumi stack ls, then pulumi config --stack home"],
  ])("says how to mend: %s", (says, mend, stack = "home") => {
    expect(unreadLine(stack, says)).toEqual({ area: "stack", what: stack, verdict: "fault", says, mend });
  });
});

describe("what an update would refuse", () => {
  it.each([
    ["homestead:cluster.uid", "cluster"],
    ["homestead:storage.databases", "storage"],
    ["homestead:operators.certManager", "operators"],
    ["homestead:ingress", "operators"],
    ["homestead:network", "operators"],
    ["homestead:certificates.name", "certificates"],
    ["homestead:vault.bucket", "vault"],
    ["homestead:media.bucket", "media"],
    ["homestead:charts.mastodon.version", "program"],
    ["homestead:generations.home", "stack"],
    ["kubernetes:strictMode", "stack"],
  ])("%s is a fault of the part '%s'", (key, area) => {
    expect(lines.refusal({ key, value: '"x"', allowed: "y", mend: "z" })).toEqual({
      area,
      what: key.replace("homestead:", ""),
      verdict: "fault",
      says: '"x"; an update wants y',
      mend: "z",
    });
  });
});

describe("a stack as it is read for a doctor", () => {
  /** What is wrong with `vps` in a folder whose files were edited. */
  const faultsIn = async (edit: Record<string, (text: string) => string>) => {
    const folder = copyProject(edit);
    const { config } = committedConfiguration(folder, "vps");
    const isSecret = (key: string) => /Key|Password|Salt/.test(key);
    const entries = Object.entries(config).map(([key, value]) => [key, { value, secret: isSecret(key) }]);
    const answer = Object.fromEntries(entries) as Record<string, ConfigEntry>;
    const error: unknown = await loadSite("vps", folder, { config: () => Promise.resolve(answer) }).catch(
      (thrown: unknown) => thrown,
    );
    return error instanceof SettingsError ? error.faults.map(lines.refusal) : [];
  };

  it("has its files looked at as an update does: another site's context, strict mode, a shared value", async () => {
    expect(await faultsIn({})).toEqual([]);
    expect(
      await faultsIn({
        "Pulumi.vps.yaml": (text) =>
          `${text.replace("context: vps", "context: home").replace('strictMode: "true"', 'strictMode: "false"')}  homestead:epoch: 7\n`,
      }),
    ).toMatchObject([
      { area: "stack", what: "epoch", verdict: "fault" },
      { area: "stack", what: "kubernetes:strictMode", verdict: "fault" },
      {
        area: "cluster",
        what: "cluster.context",
        says: `"home"; an update wants a context of this stack's own: 'home' uses this one`,
      },
    ]);
  });
});

describe("the cluster", () => {
  const facts = { version: "v1.34.4+k3s1", uid: "1234", namespace: "missing" as const };

  it("says what it is, and warns where the stack would take any", () => {
    expect(lines.clusterLines(home, facts)).toEqual([
      { area: "cluster", what: "home", verdict: "ok", says: "Kubernetes v1.34.4+k3s1; nothing of ours is in it" },
      {
        area: "cluster",
        what: "uid",
        verdict: "warning",
        says: "the stack names none: any cluster behind this context would do",
        mend: "pulumi config set --path homestead:cluster.uid 1234 --stack home",
      },
    ]);
    const pinned = { ...home, cluster: { context: "home", uid: "1234" } };
    expect(lines.clusterLines(pinned, { ...facts, namespace: "there" })).toEqual([
      {
        area: "cluster",
        what: "home",
        verdict: "ok",
        says: "Kubernetes v1.34.4+k3s1; its namespace 'homestead' is home's",
      },
      { area: "cluster", what: "uid", verdict: "ok", says: "1234, as the stack says" },
    ]);
  });

  const node = (conditions: Record<string, string>): k8s.V1Node => ({
    metadata: { name: "n1" },
    status: { conditions: Object.entries(conditions).map(([type, status]) => ({ type, status })) },
  });

  it("says of a node only what is not well", () => {
    expect(lines.nodeLines([node({ Ready: "True", DiskPressure: "False" })], { context: "home" })).toEqual([]);
    expect(lines.nodeLines([node({ Ready: "Unknown", DiskPressure: "True" })], { context: "home" })).toEqual([
      {
        area: "cluster",
        what: "node n1",
        verdict: "fault",
        says: "not Ready, DiskPressure",
        mend: "kubectl --context home describe node n1",
      },
    ]);
  });
});

describe("an operator", () => {
  const expected = "1.30.0";
  const deployment = {
    name: "cnpg-controller-manager",
    namespace: "cnpg-system",
    image: "ghcr.io/c/cloudnative-pg:1.30.0",
    wanted: 1,
    ready: 1,
  };
  const facts: OperatorFacts = { definition: true, deployment, called: true, ours: true };
  const existing = { ...home, operators: { ...home.operators, cloudNativePg: "existing" as const } };
  const tagged = (tag: string, ours: boolean): OperatorFacts => ({
    ...facts,
    ours,
    deployment: { ...deployment, image: `ghcr.io/c/cloudnative-pg:${tag}` },
  });

  it.each<[string, Settings, OperatorFacts, string, string, string | undefined]>([
    [
      "is yet to be installed",
      home,
      { definition: false, called: false, ours: false },
      "ok",
      "the update installs it",
      undefined,
    ],
    ["is as the stack says", home, facts, "ok", "1.30.0 in cnpg-system, installed by this project", undefined],
    [
      "is of another version than the stack's",
      home,
      tagged("1.29.1", true),
      "warning",
      "1.29.1 in cnpg-system, installed by this project; the stack says 1.30.0",
      "pulumi up --stack home",
    ],
    [
      "is somebody else's where an update would install it",
      home,
      tagged("1.30.0", false),
      "fault",
      "1.30.0 in cnpg-system, installed by somebody else: an install would collide with it",
      "pulumi config set --path homestead:operators.cloudNativePg existing --stack home",
    ],
    [
      "is somebody else's and older than what is tested",
      existing,
      tagged("1.28.0", false),
      "warning",
      "1.28.0 in cnpg-system, installed by somebody else; older than 1.30.0, which this project is tested with",
      "upgrade it to 1.30.0 or later, where it was installed from",
    ],
    [
      "is somebody else's and newer",
      existing,
      tagged("1.31.0", false),
      "ok",
      "1.31.0 in cnpg-system, installed by somebody else",
      undefined,
    ],
    [
      "does not run",
      home,
      { ...facts, deployment: { ...deployment, ready: 0 } },
      "fault",
      "1.30.0 in cnpg-system, installed by this project; 0/1 ready",
      "kubectl --context home -n cnpg-system get pods",
    ],
    [
      "has definitions and nobody who serves them",
      existing,
      { definition: true, called: false, ours: false },
      "warning",
      "its definitions are there, and no Deployment with its image",
      "kubectl --context home get deployments -A; if there is none: pulumi config set --path homestead:operators.cloudNativePg install --stack home",
    ],
  ])("that %s", (_, settings, found, verdict, says, mend) => {
    expect(operatorLine("cloudNativePg", settings, found, expected)).toEqual({
      area: "operators",
      what: "CloudNativePG",
      verdict,
      says,
      ...(mend === undefined ? {} : { mend }),
    });
  });

  it("is a warning as a plugin that can restore WAL from the wrong store", () => {
    const plugin = { ...deployment, image: "ghcr.io/c/plugin-barman-cloud:v0.13.0@sha256:ab" };
    expect(
      operatorLine("barmanPlugin", home, { ...facts, deployment: plugin }, expectedVersion("barmanPlugin", home)),
    ).toMatchObject({
      verdict: "warning",
      says: "v0.13.0 in cnpg-system, installed by this project; before 0.14.0 a promotion can restore WAL from the wrong store",
      mend: "upgrade the plugin to 0.14.0 or later",
    });
  });

  it("may be a plugin of our own of before it said so: using it as somebody else's would delete it", () => {
    const existing = "pulumi config set --path homestead:operators.barmanPlugin existing --stack home";
    const mendOf = (more: object) =>
      operatorLine(
        "barmanPlugin",
        home,
        { ...facts, ours: false, deployment: { ...deployment, name: "barman", ...more } },
        expectedVersion("barmanPlugin", home),
      ).mend;
    const release = "plugin-barman-cloud";
    expect(mendOf({ release })).toBe(
      `if an update of this stack installed it (pulumi stack --show-urns --stack home names ${release}): kubectl --context home -n cnpg-system annotate deployment barman app.kubernetes.io/part-of=homestead; if not: ${existing}`,
    );
    for (const elses of [{}, { release: "plugin" }, { release, namespace: "databases" }])
      expect(mendOf(elses)).toBe(existing);
  });

  it("is compared with versions.ts", () => {
    expect(expectedVersion("certManager", home)).toBe("v1.21.1");
    expect(expectedVersion("cloudNativePg", home)).toBe("1.30.0");
    expect(expectedVersion("barmanPlugin", home)).toBe("v0.14.0");
    const own = { ...home.images, "cert-manager-controller": "mirror:5000/cert-manager-controller:v1.21.2" };
    expect(expectedVersion("certManager", { images: own })).toBe("v1.21.2");
  });

  it("is known by the name of its image, in whatever registry", () => {
    expect(imageName("mirror:5000/x/plugin-barman-cloud:v0.14.0@sha256:ab")).toBe("plugin-barman-cloud");
    expect(imageName("cloudnative-pg")).toBe("cloudnative-pg");
  });
});

describe("Traefik", () => {
  it("is a fault without a pod that the policies would let in", () => {
    expect(traefikLine(home, [])).toEqual({
      area: "operators",
      what: "Traefik",
      verdict: "fault",
      says: "no pod app.kubernetes.io/name=traefik in kube-system: nothing would be let through to the site",
      mend: "kubectl --context home get pods -A -l app.kubernetes.io/name=traefik, then: pulumi config set --path homestead:ingress.namespace <namespace> --stack home",
    });
  });

  it("is told with its version", () => {
    const pod = { image: "docker.io/library/traefik:v3.7.1", ready: true };
    expect(traefikLine(home, [pod])).toMatchObject({ verdict: "ok", says: "v3.7.1 in kube-system, 1/1 ready" });
    expect(traefikLine(home, [pod, { ...pod, ready: false }]).verdict).toBe("warning");
    expect(traefikLine(home, [{ ...pod, ready: false }]).verdict).toBe("fault");
  });
});

describe("the client's address", () => {
  const traefik = (externalTrafficPolicy: string) => [{ name: "traefik", externalTrafficPolicy }];

  it("is seen where the Service keeps it, or where there is none but the node's own ports", () => {
    expect(clientAddressLine(home, traefik("Local"), [], "there")).toMatchObject({
      verdict: "ok",
      says: "Traefik sees them",
    });
    expect(clientAddressLine(home, [], [], "there")).toMatchObject({ verdict: "ok" });
  });

  it("is hidden by a Service that spreads connections, and the mend is said", () => {
    expect(clientAddressLine(home, traefik("Cluster"), [], "there")).toMatchObject({
      verdict: "warning",
      what: "clients' addresses",
      says: "Service traefik may hide them from Traefik, so that all clients behind a node share one rate limit, and one stranger who tries passwords can lock the owner out",
      mend: `on k3s the HelmChartConfig of README.md, "For real", step 5 (service.spec.externalTrafficPolicy: Local), elsewhere the same where Traefik was installed from; at once, until that is applied anew: kubectl --context home -n kube-system patch service traefik -p '{"spec":{"externalTrafficPolicy":"Local"}}'`,
    });
  });

  it("has its mend where that is said to be", () => {
    const step =
      /\n5\. On k3s[^]*?\n6\. /.exec(fs.readFileSync(path.join(projectFolder, "README.md"), "utf8"))?.[0] ?? "";
    const [, block = ""] = /```yaml\n([^]*?)```/.exec(step) ?? [];
    const { metadata, spec } = parse(block) as { metadata: object; spec: { valuesContent: string } };
    expect(metadata).toEqual({ name: "traefik", namespace: "kube-system" });
    expect(parse(spec.valuesContent)).toEqual({ service: { spec: { externalTrafficPolicy: "Local" } } });
  });

  it("is one of 2^64 to a Traefik that counts no IPv6 subnets, where there is IPv6", () => {
    const both = settingsOf("home", { network: { families: ["IPv4", "IPv6"] } });
    expect(clientAddressLine(both, traefik("Local"), [], "missing")).toMatchObject({
      verdict: "warning",
      says: "Traefik sees them, but counts each address of an IPv6 network as another client, and who has one address there has 2^64: it is older than 3.2",
      mend: "upgrade Traefik to 3.2 or later, its custom resource definitions too, where it was installed from (k3s brings it since 1.32.2), then: pulumi up --stack home",
    });
    expect(clientAddressLine(both, traefik("Local"), [], "there").verdict).toBe("ok");
    expect(clientAddressLine(home, traefik("Local"), [], "missing").verdict).toBe("ok");
  });

  it("is told by the proxies where there are any", () => {
    const behind = settingsOf("home", { ingress: { address: "203.0.113.10", proxies: 1 } });
    const pod = (...args: string[]) => [{ args }];
    const believing = pod("--entryPoints.websecure.forwardedHeaders.trustedIPs=192.0.2.1/32", "--ping=true");
    expect(clientAddressLine(behind, traefik("Cluster"), believing, "there")).toMatchObject({ verdict: "ok" });
    const insecure = pod("--entrypoints.websecure.forwardedheaders.insecure");
    expect(clientAddressLine(behind, traefik("Cluster"), insecure, "there")).toMatchObject({ verdict: "ok" });
    // Another entry point's, or none: Traefik would write the header anew with the proxy's address.
    for (const args of [["--entryPoints.web.forwardedHeaders.trustedIPs=192.0.2.1/32"], []]) {
      expect(clientAddressLine(behind, traefik("Cluster"), pod(...args), "there")).toMatchObject({
        verdict: "warning",
        says: expect.stringContaining("all clients share one rate limit") as unknown,
      });
    }
  });
});

describe("an upload over a slow line", () => {
  const option = "--entryPoints.websecure.transport.respondingTimeouts.readTimeout";
  const line = (tag: string, ...args: string[]) => uploadLine([{ image: `traefik:${tag}`, args }]);

  it("is cut off by Traefik's minute, and the mend is said", () => {
    expect(line("v3.7.1", "--ping=true", "--entryPoints.web.transport.respondingTimeouts.readTimeout=0")).toEqual({
      area: "operators",
      what: "uploads",
      verdict: "warning",
      says: "have 60 s, Traefik's readTimeout: one of 99 MiB, as large as a video may be, needs a line of 14 Mbit/s",
      mend: `give Traefik ${option}=10m where it was installed from (docs/runbooks/slow-upload.md); nothing to do if a file of its own says so`,
    });
  });

  it.each([
    ["v3.7.1", `${option}=600`, "ok"],
    ["v3.7.1", `${option.toLowerCase()}=0s`, "ok"],
    ["v3.7.1", `${option}=1h30m`, "ok"],
    ["v3.7.1", `${option}=90s`, "warning"],
    ["v3.7.1", `${option}=soon`, "warning"],
    ["v2.11.2", "", "warning"],
    ["v2.11.1", "", "ok"],
    ["v2.10.7", `${option}=30s`, "warning"],
  ])("by %s with %s: %s", (tag, arg, verdict) => {
    expect(line(tag, arg).verdict).toBe(verdict);
  });

  it("is as slow as the least patient of its pods", () => {
    const pod = (arg: string) => ({ image: "traefik:v3.7.1", args: [arg] });
    expect(uploadLine([pod(`${option}=0`), pod("")]).verdict).toBe("warning");
  });
});

describe("the issuer", () => {
  const yours = settingsOf("home", { certificates: { kind: "issuer", name: "le" } });

  it.each<[string, Parameters<typeof issuerLine>, string, string, string | undefined]>([
    [
      "of its own, before the first update",
      [home, "missing", { state: "missing" }],
      "ok",
      "the update makes it",
      undefined,
    ],
    ["that is ready", [yours, "there", { state: "ready" }], "ok", "Ready", undefined],
    [
      "that is not",
      [yours, "there", { state: "unready", message: "account not registered" }],
      "fault",
      "not Ready: account not registered",
      "kubectl --context home -n homestead describe clusterissuer le",
    ],
    [
      "that is missing",
      [yours, "there", { state: "missing" }],
      "fault",
      "is not there",
      "make it, or name another: certificates.name of home",
    ],
    [
      "that nothing could serve yet",
      [yours, "missing", { state: "missing" }],
      "warning",
      "not there, and neither is cert-manager: the first update would wait for it in vain",
      "install cert-manager and make the ClusterIssuer before the first update, or set certificates.kind to acme",
    ],
  ])("%s", (_, args, verdict, says, mend) => {
    expect(issuerLine(...args)).toMatchObject({ area: "certificates", verdict, says });
    expect(issuerLine(...args).mend).toBe(mend);
  });

  it("is the one that the program asks, in the plan of each stack", () => {
    for (const stack of ["home", "vps", "dev"] as const) {
      const certificate = plannedStack(stack).resources.find(({ name }) => name === "ingress-certificate");
      const { name, kind } = issuerOf(settingsOf(stack));
      expect(certificate?.inputs).toMatchObject({ spec: { issuerRef: { name, kind } } });
    }
  });
});

describe("a certificate that is asked for over HTTP", () => {
  it.each([
    [{ kind: "acme", email: "a@ramble.moe" }, true],
    [{ kind: "acme", email: "a@ramble.moe", solver: { http01: { ingress: {} } } }, true],
    [{ kind: "acme", email: "a@ramble.moe", solver: { dns01: { route53: {} } } }, false],
    [{ kind: "selfSigned" }, false],
    // Its solvers are its owner's business.
    [{ kind: "issuer", name: "le" }, false],
  ])("by %j: %s", (certificates, is) => {
    expect(asksOverHttp(settingsOf("home", { certificates }))).toBe(is);
  });

  it("waits for names that lead elsewhere, and an update for it: a fault, on a standby too", () => {
    expect(waitingLine(home, ["ramble.moe"])).toEqual({
      area: "certificates",
      what: "http01",
      verdict: "fault",
      says: "the ACME solver http01 is answered where the names lead, and an update waits 15 min for the certificate: ramble.moe does not lead here yet, and DNS is what an update changes last",
      mend: "point ramble.moe to 203.0.113.10 by hand first, or set certificates.solver of home to one by dns01",
    });
    expect(waitingLine(settingsOf("vps"), ["ramble.moe"])).toMatchObject({
      says: expect.stringMatching(/: a standby gets none, since they lead to home$/) as unknown,
      mend: "set certificates.solver of vps to one by dns01, or certificates to an issuer of your own (docs/runbooks/adding-a-site.md)",
    });
  });
});

describe("a line on the cluster", () => {
  const settings = settingsOf("home");
  const line = (what: string): lines.DoctorLine => ({ area: "cluster", what, verdict: "fault", says: "x", mend: "y" });

  it("is left out where what an update would refuse says it better, and not where nothing was said in time", () => {
    const own = line(settings.cluster.context);
    expect(isSaid(own, [line("homestead:cluster.context")], settings)).toBe(true);
    expect(isSaid(own, [line("what an update would refuse")], settings)).toBe(false);
  });

  it("is left out on an operator or an issuer that an update refuses, and on no other", () => {
    const refused = (key: string) => lines.refusal({ key, value: "x", allowed: "y", mend: "z" });
    const operator = (what: string) =>
      lines.judged("operators", what, "fault", "an install would collide with it", "z");
    const plugin = [refused("homestead:operators.barmanPlugin")];
    expect(isSaid(operator("barman-cloud plugin"), plugin, settings)).toBe(true);
    expect(isSaid(operator("cert-manager"), plugin, settings)).toBe(false);
    const issuer = lines.judged("certificates", "ClusterIssuer a", "fault", "is not there", "z");
    expect(isSaid(issuer, plugin, settings)).toBe(false);
    expect(isSaid(issuer, [refused("homestead:certificates.name")], settings)).toBe(true);
  });
});

describe("names in DNS", () => {
  const answer: DnsAnswer = {
    name: "ramble.moe",
    addresses: ["192.0.2.9"],
    source: "authoritative",
    server: "ns1.example",
  };

  it("are a warning before the first update, and a fault after it", () => {
    const line = (served: boolean) => lines.nameLine(home, answer, ["203.0.113.10"], served);
    expect(line(false)).toEqual({
      area: "dns",
      what: "ramble.moe",
      verdict: "warning",
      says: "192.0.2.9, says ns1.example; expected 203.0.113.10",
      mend: "pulumi up --stack home, then point ramble.moe to 203.0.113.10",
    });
    expect(line(true).verdict).toBe("fault");
  });

  it.each([
    ["manual", true, "apart", "npx homestead verify home, then point ramble.moe to 203.0.113.10"],
    ["command", false, "apart", "pulumi up --stack home, whose last step sets it"],
    ["command", true, "apart", "pulumi up --stack home, whose last step sets it"],
    // Whoever changes DNS: it would wait for the certificate, and the certificate for it.
    ...(["manual", "command"] as const).flatMap((kind) =>
      [false, true].map(
        (served) =>
          [
            kind,
            served,
            "waits",
            "point ramble.moe to 203.0.113.10 by hand: the certificate is asked for there. Then pulumi up --stack home, which waits for it",
          ] as const,
      ),
    ),
  ] as const)("changed by %s, served %s, with a certificate that %s", (kind, served, certificate, mend) => {
    const settings = settingsOf("home", { dns: kind === "manual" ? { kind } : { kind, command: "true" } });
    expect(lines.nameLine(settings, answer, ["203.0.113.10"], served, certificate).mend).toBe(mend);
  });

  it("are wrong with addresses of a family that the site does not have: who has IPv6 goes there first", () => {
    const parked = { ...answer, addresses: ["2001:db8::9"] };
    expect(lines.strayLines(parked, 6, home.ingress)).toEqual([
      {
        area: "dns",
        what: "ramble.moe AAAA",
        verdict: "fault",
        says: "2001:db8::9, says ns1.example: half the world goes there and not to 203.0.113.10",
        mend: "delete the AAAA record of ramble.moe (a cluster that is reached by both: homestead:network.families)",
      },
    ]);
    expect(lines.strayLines({ ...answer, addresses: [] }, 6, home.ingress)).toEqual([]);
  });

  it("are right where they lead to the active site, and wrong where they lead to the standby", () => {
    expect(lines.nameLine(home, answer, ["192.0.2.9"], true)).toMatchObject({ verdict: "ok" });
    const standby = settingsOf("vps");
    expect(lines.nameLine(standby, answer, ["192.0.2.9"], true)).toMatchObject({
      verdict: "fault",
      mend: "point it to home: npx homestead verify home --public",
    });
  });
});

describe("a port", () => {
  it("is a fault, unless this machine is known not to reach the ingress", () => {
    expect(lines.portLine(home, 443, undefined)).toEqual({
      area: "ports",
      what: "203.0.113.10:443",
      verdict: "ok",
      says: "open",
    });
    expect(lines.portLine(home, 443, "connect ECONNREFUSED")).toMatchObject({
      verdict: "fault",
      says: "cannot be connected to from this machine: connect ECONNREFUSED",
    });
    const inside = settingsOf("home", { verification: { from: "cluster", address: "traefik.kube-system.svc" } });
    expect(lines.portLine(inside, 443, "connect ECONNREFUSED")).toMatchObject({
      verdict: "warning",
      what: "203.0.113.10:443",
    });
  });

  it("is open or not", async () => {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    expect(await refusalOf("127.0.0.1", port)).toBeUndefined();
    await new Promise((resolve) => server.close(resolve));
    expect(await refusalOf("127.0.0.1", port)).toBe(`connect ECONNREFUSED 127.0.0.1:${port}`);
  });
});

describe("a clock", () => {
  it.each([
    [1.4, "ok", "as this machine's"],
    [20, "ok", "20 s ahead of this machine's (a store refuses what is 15 min off, two-factor codes last 30 s)"],
    [-45, "warning", "45 s behind this machine's (a store refuses what is 15 min off, two-factor codes last 30 s)"],
    [3600, "fault", "60 min ahead of this machine's (a store refuses what is 15 min off, two-factor codes last 30 s)"],
  ])("that is %s s ahead", (ahead, verdict, says) => {
    expect(lines.clockLine("vault", ahead)).toMatchObject({ area: "clock", what: "vault", verdict, says });
  });

  it("is read from a Date header, half way between question and answer", () => {
    const date = "Mon, 23 Nov 2026 08:00:10 GMT";
    const at = Date.parse(date);
    expect(aheadBy(date, at - 10_000, at - 9_000)).toBe(10);
    expect(aheadBy(undefined, 0, 0)).toBeUndefined();
    expect(aheadBy("yesterday", 0, 0)).toBeUndefined();
  });

  it("of a node may be between two renewals of its lease", () => {
    const line = (age: number) => lines.nodeClockLine({ node: "n1", at: 1000 - age }, 1000);
    expect([0, 5, 11, -1].map((age) => line(age).says)).toEqual(Array(4).fill("as this machine's"));
    expect(line(-60)).toMatchObject({
      what: "node n1",
      verdict: "warning",
      says: expect.stringMatching(/^60 s ahead of/) as string,
    });
    expect(line(100)).toMatchObject({ verdict: "warning", says: expect.stringMatching(/^90 s behind/) as string });
  });
});

describe("fsync", () => {
  it("is told by its nearest ranks", () => {
    const each = Array.from({ length: 200 }, (_, i) => 200 - i);
    expect(summaryOf(each)).toEqual({ count: 200, p50: 100, p99: 198, max: 200 });
    expect(summaryOf([7])).toEqual({ count: 1, p50: 7, p99: 7, max: 7 });
    expect(() => summaryOf([])).toThrow("nothing was measured");
  });

  it("is measured on a folder, of which nothing is left", () => {
    const folder = temporaryFolder();
    const { count, p50, p99, max, free, size } = measure(folder, 0);
    expect(count).toBe(1);
    expect([p50 > 0, p50 <= p99, p99 <= max, free > 0, free <= size]).toEqual(Array(5).fill(true));
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  it("is measured by one file that plain node runs, which tells a fault in a line", () => {
    const folder = temporaryFolder();
    const program = path.join(folder, "fsync.js");
    fs.writeFileSync(program, bundle("lib/doctor/fsync-main.ts"));
    const run = (disk: string) =>
      execFileSync(process.execPath, [program, disk, "0.01"], { encoding: "utf8", stdio: "pipe" });
    const disk = path.join(folder, "disk");
    fs.mkdirSync(disk);
    expect(Object.keys(JSON.parse(run(disk)) as object)).toEqual([
      "count",
      "p50",
      "p99",
      "max",
      "free",
      "size",
      "fileSystem",
      "pressure",
    ]);
    expect(() => run(path.join(folder, "none"))).toThrow(
      /\nENOENT: no such file or directory, open '.*none\/fsync'\n$/,
    );
  });
});

describe("a storage class", () => {
  const gib = 1024 ** 3;
  const disk = { use: "databases" as const, storageClass: "local-path" };
  const measured = (p99: number, max = p99): Measured => ({
    count: 900,
    p50: 1,
    p99,
    max,
    free: 50 * gib,
    size: 100 * gib,
    fileSystem: "other",
    pressure: "kept",
  });
  const local: Settings["storage"] = { kind: "local", databases: "local-path" };
  const nfs: Settings["storage"] = { kind: "nfs", databases: "nfs-client" };

  it.each([
    ["local", 99, 500, "ok"],
    ["local", 100, 500, "warning"],
    ["local", 1999, 1999, "warning"],
    ["local", 2000, 2000, "fault"],
    ["nfs", 2000, 2000, "warning"],
    ["nfs", 59_999, 59_999, "warning"],
    ["nfs", 60_000, 60_000, "fault"],
    // One stall in 20 s is no matter of percentiles.
    ["local", 1, 2000, "warning"],
  ] as const)("of kind %s for databases with p99 %s ms and max %s ms: %s", (kind, p99, max, verdict) => {
    expect(storage.fsyncLine(disk, { kind, databases: "x" }, measured(p99, max)).verdict).toBe(verdict);
  });

  it("for uploads is judged by whether it fails", () => {
    const media = { use: "media" as const, storageClass: "nfs-client" };
    const verdicts = [500, 2000, 60_000].map((p99) => storage.fsyncLine(media, nfs, measured(p99)).verdict);
    expect(verdicts).toEqual(["ok", "warning", "fault"]);
  });

  it("says what it takes, why that matters, and where to read on", () => {
    expect(storage.fsyncLine(disk, local, measured(1.234, 12.6))).toEqual({
      area: "storage",
      what: "databases: local-path",
      verdict: "ok",
      says: "fsync p50 1 ms, p99 1.2 ms, max 13 ms of 900",
    });
    expect(storage.fsyncLine(disk, local, measured(150, 900))).toEqual({
      area: "storage",
      what: "databases: local-path",
      verdict: "warning",
      says: "fsync p50 1 ms, p99 150 ms, max 900 ms of 900; every commit waits for one, so a post takes 1.5 s and more",
      mend: "docs/runbooks/slow-disk.md",
    });
    expect(storage.fsyncLine(disk, local, measured(2, 5100)).says).toBe(
      "fsync p50 1 ms, p99 2 ms, max 5.1 s of 900; it stalls",
    );
    expect(storage.fsyncLine(disk, local, measured(0.019))).toMatchObject({
      verdict: "warning",
      says: "fsync p50 1 ms, p99 0.019 ms, max 0.019 ms of 900; no disk is that fast: something answers before the bytes are safe, and a power cut costs what was acknowledged",
      mend: "docs/runbooks/slow-disk.md",
    });
    expect(storage.fsyncLine(disk, local, measured(0.02)).verdict).toBe("ok");
    expect(storage.fsyncLine({ use: "media" }, nfs, measured(0.01)).verdict).toBe("ok");
    expect(storage.unmeasuredLine({ use: "media" }, "the pod that measures it failed: x")).toEqual({
      area: "storage",
      what: "media: the default class",
      verdict: "fault",
      says: "the pod that measures it failed: x",
      mend: "docs/runbooks/slow-disk.md, or leave it out with --no-disk",
    });
  });

  it("of nodes' own disks says which one was measured, where there are others", () => {
    const says = (others: string[]) => storage.fsyncLine(disk, local, measured(1), { node: "n1", others }).says;
    expect(says([])).toBe("fsync p50 1 ms, p99 1 ms, max 1 ms of 900");
    expect(says(["n2", "n3"])).toBe(
      "fsync p50 1 ms, p99 1 ms, max 1 ms of 900; on node n1, and not on n2, n3, which may get the claim too",
    );
  });

  it("that is NFS is a warning where the profile takes it for a disk", () => {
    const line = (kind: "local" | "nfs", fileSystem: Measured["fileSystem"]) =>
      storage.profileLine(disk, { storage: { kind, databases: "x" }, site: "home" }, { ...measured(1), fileSystem });
    expect(line("local", "nfs")).toEqual({
      area: "storage",
      what: "profile, databases: local-path",
      verdict: "warning",
      says: "the class is NFS, and storage.kind is local: probes and time-outs would take a share that is slow for a server that is dead",
      mend: "pulumi config set --path homestead:storage.kind nfs --stack home, or a class of the nodes' own disks (docs/runbooks/slow-disk.md)",
    });
    expect([line("nfs", "nfs"), line("local", "other")]).toEqual([undefined, undefined]);
  });

  it("on a node without an account of its disks is a warning where they are watched", () => {
    const line = (pressure: Measured["pressure"], kind: "rules" | "off", use: "databases" | "media" = "databases") => {
      const monitoring = kind === "rules" ? home.monitoring : { kind };
      return storage.pressureLine({ use, storageClass: "x" }, { monitoring }, { ...measured(1), pressure });
    };
    expect(line("none", "rules")).toEqual({
      area: "storage",
      what: "I/O pressure",
      verdict: "warning",
      says: "the kernel of the node where the databases' class was measured keeps no account of it (PSI), so the alert IoPressure never fires",
      mend: "psi=1 on that kernel's command line; the alert SlowDisk needs none (docs/runbooks/alerts.md#iopressure)",
    });
    const silent = [line("kept", "rules"), line("none", "off"), line("none", "rules", "media")];
    expect(silent).toEqual([undefined, undefined, undefined]);
  });

  it("is one that will hold data", () => {
    expect(storage.disksOf(home)).toEqual([{ use: "databases", storageClass: "local-path" }]);
    const volume = settingsOf("home", { media: { kind: "volume" } });
    expect(storage.disksOf(volume)).toEqual([
      { use: "databases", storageClass: "local-path" },
      { use: "media", storageClass: "nfs-client" },
    ]);
  });

  it.each([
    [50, 10, "ok", "50.0 GiB of 100.0 GiB free; 10.0 GiB claimed for what is to come"],
    [50, 0, "ok", "50.0 GiB of 100.0 GiB free"],
    [50, 60, "warning", "50.0 GiB of 100.0 GiB free; 60.0 GiB claimed for what is to come"],
    [9, 0, "warning", "9.0 GiB of 100.0 GiB free"],
    [4, 0, "fault", "4.0 GiB of 100.0 GiB free"],
  ])("with %s GiB free for claims of %s GiB: %s", (free, wanted, verdict, says) => {
    const missing = wanted === 0 ? [] : [{ name: "x", bytes: wanted * gib }];
    const line = storage.roomLine(disk, { ...measured(1), free: free * gib }, missing);
    expect(line).toMatchObject({ area: "capacity", what: "disk, databases: local-path", verdict, says });
  });

  it("whose claims are disks of their own says nothing of the room there is", () => {
    expect(storage.roomLine(disk, { ...measured(1), free: gib, size: gib }, [])).toBeUndefined();
  });

  it("is measured by a pod that Pod Security 'restricted' admits and that the API server knows", async () => {
    const made = [...namespaceObjects("home", "program"), ...diskObjects(disk, images.node)] as unknown as JsonObject[];
    for (const object of made) expect(await faultsOf(object)).toEqual([]);
    expect(made.at(-1)).toMatchObject({
      metadata: { namespace: doctorNamespace },
      spec: {
        securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
        containers: [{ securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } }],
      },
    });
    expect(made[0]).toMatchObject({
      metadata: { labels: { "homestead/doctor": "home", "pod-security.kubernetes.io/enforce": "restricted" } },
    });
  });
});

describe("room", () => {
  const gib = 1024 ** 3;

  it.each([
    ["100m", 0.1],
    ["2", 2],
    ["1.5Gi", 1.5 * gib],
    ["512Mi", gib / 2],
    ["1e3", 1000],
    ["129e6", 129e6],
    ["3k", 3000],
    [undefined, 0],
  ])("reads %s", (text, value) => {
    expect(capacity.quantity(text)).toBeCloseTo(value, 9);
  });

  it("refuses what is no quantity", () => {
    expect(() => capacity.quantity("many")).toThrow("'many' is no quantity");
  });

  it("counts a pod's containers, and what comes before them only if it asks for more", () => {
    const of = (cpu: string, memory: string, restartPolicy?: string) => ({
      resources: { requests: { cpu, memory } },
      ...(restartPolicy ? { restartPolicy } : {}),
    });
    const containers = [of("100m", "1Gi"), of("1", "1Gi"), {}];
    expect(capacity.podAmount({ containers, initContainers: [of("2", "1Gi")] })).toEqual({ cpu: 2, memory: 2 * gib });
    expect(capacity.podAmount({ containers, initContainers: [of("1", "1Gi", "Always")] }).memory).toBe(3 * gib);
    expect(capacity.podAmount({ containers, overhead: { memory: "1Gi" } }).memory).toBe(3 * gib);
  });

  it("is asked for by every part of the plan", () => {
    const needs = capacity.needsOf(plannedStack("home"));
    const mi = (memory: number) => memory * 1024 ** 2;
    const of = (memory: number) => needs.pods.filter((pod) => pod.memory === mi(memory)).length;
    // Mastodon's web, streaming; Sidekiq, and the database with its sidecar; Valkey with its keeper; CloudNativePG.
    expect([of(512), of(96), of(384), of(128), of(100)]).toEqual([1, 1, 2, 1, 1]);
    expect(needs.pods.length).toBeGreaterThanOrEqual(12);
    expect(needs.claims.map(({ name, bytes }) => [name, bytes / gib])).toEqual([
      ["postgres-g1-1", 10],
      ["data-valkey-0", 2],
    ]);
    expect(needs.claims.every(({ storageClass }) => storageClass === "local-path")).toBe(true);
    expect(needs.namespaces.sort()).toEqual(["cert-manager", "cnpg-system", "homestead"]);
  });

  it("is asked for by a standby as if it were active: Mastodon, Sidekiq and Valkey start on the night of the failover", () => {
    const active = capacity.needsOf(plannedStack("home"));
    const standby = capacity.needsOf(plannedStack("vps"));
    const sorted = ({ pods }: capacity.Needs) => pods.map(({ memory }) => memory).sort((a, b) => a - b);
    expect(sorted(standby)).toEqual(sorted(active));
    expect(standby.claims).toHaveLength(active.claims.length);
  });

  const node = (name: string, memory: string, spec: k8s.V1NodeSpec = {}): k8s.V1Node => ({
    metadata: { name },
    spec,
    status: { allocatable: { cpu: "4", memory } },
  });
  const pod = (namespace: string, memory: string, phase = "Running"): k8s.V1Pod => ({
    metadata: { namespace },
    spec: { nodeName: "n1", containers: [{ name: "c", resources: { requests: { cpu: "1", memory } } }] },
    status: { phase },
  });

  it("is what nodes have left beside others' pods", () => {
    const nodes = [
      node("n1", "8Gi"),
      node("drained", "64Gi", { unschedulable: true }),
      node("tainted", "64Gi", { taints: [{ key: "a", effect: "NoSchedule" }] }),
    ];
    const pods = [pod("other", "1Gi"), pod("homestead", "2Gi"), pod("other", "1Gi", "Succeeded")];
    expect(capacity.roomOf(nodes, pods, ["homestead"])).toEqual([
      { node: "n1", cpu: 3, memory: 7 * gib, allocatable: { cpu: 4, memory: 8 * gib } },
    ]);
  });

  const needs = {
    pods: [
      { cpu: 0.1, memory: gib },
      { cpu: 0.1, memory: 2 * gib },
    ],
    claims: [],
    namespaces: [],
  };
  const room = (memory: number) => ({
    node: "n",
    cpu: 4,
    memory: memory * gib,
    allocatable: { cpu: 4, memory: 8 * gib },
  });

  it.each([
    [[room(6)], "ok", "the stack asks for 3.0 GiB; 6.0 GiB of 8.0 GiB are free for it"],
    [
      [room(4)],
      "warning",
      "the stack asks for 3.0 GiB; 4.0 GiB of 8.0 GiB are free for it, without the 2.0 GiB that an update needs beside it",
    ],
    [[room(2)], "fault", "the stack asks for 3.0 GiB; 2.0 GiB of 8.0 GiB are free for it"],
    [
      [room(1.5), room(1.5)],
      "fault",
      "the stack asks for 3.0 GiB; 3.0 GiB of 16.0 GiB are free for it, and no node has the 2.0 GiB of the largest pod",
    ],
  ])("%j is %s for the stack", (rooms, verdict, says) => {
    expect(capacity.capacityLines(needs, rooms, { context: "home" })[0]).toMatchObject({
      area: "capacity",
      what: "memory",
      verdict,
      says,
    });
  });

  it("is none where no node takes pods", () => {
    expect(capacity.capacityLines(needs, [], { context: "home" })).toEqual([
      {
        area: "capacity",
        what: "nodes",
        verdict: "fault",
        says: "no node takes pods",
        mend: "kubectl --context home get nodes",
      },
    ]);
  });
});

// ---------------------------------------------------------------- an S3 server

interface Store {
  versioning: "Enabled" | "Suspended" | "off";
  /** What the store makes of If-None-Match. */
  conditions: "honoured" | "ignored" | "unknown";
  /** `GET ?versioning` and the like, by method and first parameter: the status to refuse it with; 0 ends the connection. */
  refuses: Record<string, number>;
  /** Whether everybody reads objects; a status is what a store gives that cannot say. */
  world: "reads" | "refused" | "dead" | number;
  /** What the store tells a browser about pages of other hosts that read; nothing if absent. */
  allows?: string;
  /** A deletion of a version is answered with 204 and does nothing. */
  locked: boolean;
}

const aws: Store = { versioning: "Enabled", conditions: "honoured", refuses: {}, world: "refused", locked: false };
const protectedStore: Store = { ...aws, refuses: { "DELETE versionId": 403 } };

interface Version {
  id: string;
  key: string;
  body: string | undefined;
}

/** A store with one bucket, `vault` or `media`, and its versions, the newest last. */
class FakeStore {
  readonly versions: Version[] = [];
  private made = 0;

  constructor(private readonly store: Store) {}

  async listen(): Promise<string> {
    const server = http.createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => this.answer(request, Buffer.concat(parts).toString(), response));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  private answer(request: http.IncomingMessage, body: string, response: http.ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://store");
    const key = decodeURIComponent(pathname.split("/").slice(2).join("/"));
    const method = request.method ?? "";
    const [parameter = ""] = searchParams.keys();
    const end = (status: number, text = "", headers: http.OutgoingHttpHeaders = {}) =>
      response.writeHead(status, headers).end(text);
    const refused = this.store.refuses[[method, parameter].filter((part) => part !== "").join(" ")];
    if (request.headers.authorization === undefined) {
      const found = this.newest(key);
      if (this.store.world === "reads" && found?.body !== undefined) {
        const { allows } = this.store;
        return void end(200, found.body, allows === undefined ? {} : { "access-control-allow-origin": allows });
      }
      if (this.store.world === "dead") return void request.socket.destroy();
      return void end(typeof this.store.world === "number" ? this.store.world : 403);
    }
    if (refused === 0) return void request.socket.destroy();
    if (refused !== undefined && refused >= 500) return void end(refused, "<Error><Code>SlowDown</Code></Error>");
    if (refused !== undefined) return void end(refused, "<Error><Code>AccessDenied</Code></Error>");
    if (key === "") return void end(200, this.list(parameter, searchParams.get("prefix") ?? ""));
    const wanted = searchParams.get("versionId");
    const found = wanted === null ? this.newest(key) : this.versions.find(({ id }) => id === wanted);
    switch (method) {
      case "PUT": {
        if (request.headers["if-none-match"] !== undefined) {
          if (this.store.conditions === "unknown") return void end(501, "<Code>NotImplemented</Code>");
          if (this.store.conditions === "honoured" && found?.body !== undefined)
            return void end(412, "<Code>PreconditionFailed</Code>");
        }
        const id = this.add(key, body);
        return void end(200, "", this.store.versioning === "Enabled" ? { "x-amz-version-id": id } : {});
      }
      case "DELETE":
        if (wanted === null) this.add(key, undefined);
        else if (!this.store.locked) this.remove(({ id }) => id === wanted);
        return void end(204);
      default:
        return void (found?.body === undefined ? end(404) : end(200, found.body));
    }
  }

  private list(parameter: string, prefix: string): string {
    if (parameter === "versioning")
      return this.store.versioning === "off" ? "<V/>" : `<V><Status>${this.store.versioning}</Status></V>`;
    const below = this.versions.filter(({ key }) => key.startsWith(prefix));
    if (parameter === "versions")
      return [...below]
        .reverse()
        .map(({ id }) => `<Version><VersionId>${id}</VersionId></Version>`)
        .join("");
    return below.map(({ key }) => `<Contents><Key>${key}</Key></Contents>`).join("");
  }

  private newest = (key: string) => this.versions.findLast((version) => version.key === key);

  private add(key: string, body: string | undefined): string {
    const id = this.store.versioning === "Enabled" ? `v${++this.made}` : "null";
    if (id === "null") this.remove((version) => version.key === key);
    if (id !== "null" || body !== undefined) this.versions.push({ id, key, body });
    return id;
  }

  private remove(which: (version: Version) => boolean): void {
    for (let i = this.versions.length - 1; i >= 0; i--) {
      const version = this.versions[i];
      if (version && which(version)) this.versions.splice(i, 1);
    }
  }
}

const keys = { accessKeyId: "id", secretAccessKey: "key" };

async function probe(store: Store, more: { origin?: string } = {}) {
  const server = new FakeStore(store);
  const endpoint = await server.listen();
  const facts = await buckets.probeBucket({
    bucket: { endpoint, region: "us-east-1", bucket: "vault" },
    keys,
    prefix: "homestead-doctor/",
    ...more,
  });
  return { facts, left: server.versions };
}

describe("a bucket", () => {
  const vault: buckets.BucketPurpose = { area: "vault", holds: "backups", keys: "vault", undeletable: "warning" };
  const runbook = "docs/runbooks/protected-backups.md";
  const unsafe = (why: string) => ({
    area: "vault",
    what: "old versions",
    verdict: "warning",
    says: `backups can be destroyed from the cluster: ${why}`,
    mend: runbook,
  });
  const protection = (seen: buckets.BucketSeen | undefined) => seen && buckets.protectionLine(vault, seen);

  it("whose keys cannot delete old versions protects the backups, and keeps those of our own object", async () => {
    const { facts, left } = await probe(protectedStore);
    expect(facts).toEqual({
      refused: {},
      seen: { conditional: "kept", versioning: "Enabled", oldVersion: "kept", world: { answer: "403", refused: true } },
    });
    expect(protection(facts.seen)).toEqual({
      area: "vault",
      what: "old versions",
      verdict: "ok",
      says: "kept: the vault keys cannot delete one",
    });
    expect(left.map(({ body }) => body)).toEqual(["first", "second", undefined]);
  });

  it("whose keys can is a warning, and nothing of ours is left in it", async () => {
    const { facts, left } = await probe(aws);
    expect(facts.seen?.oldVersion).toBe("destroyed");
    expect(protection(facts.seen)).toEqual(unsafe("the vault keys deleted an old version"));
    expect(left).toEqual([]);
  });

  it("that is locked protects them too, whatever it answers", async () => {
    expect((await probe({ ...aws, locked: true })).facts.seen?.oldVersion).toBe("kept");
  });

  it.each([
    [503, "503 SlowDown"],
    [429, "429 AccessDenied"],
    [404, "404 AccessDenied"],
    [0, "other side closed"],
  ])("that answers a deletion of an old version with %d has not said that it keeps them", async (status, answer) => {
    const { facts } = await probe({ ...aws, refuses: { "DELETE versionId": status } });
    expect(facts.refused).toEqual({});
    expect(facts.seen?.oldVersion).toEqual({ answer });
    expect(protection(facts.seen)).toEqual({
      area: "vault",
      what: "old versions",
      verdict: "warning",
      says: `not found out: the vault keys tried to delete one, and the store gave ${answer}`,
      mend: "ask again once the store answers: npx homestead doctor",
    });
  });

  it("that does not show the version after it said that it was deleted has not said whether it is", async () => {
    const { facts } = await probe({ ...aws, refuses: { "GET versionId": 503 } });
    expect(protection(facts.seen)).toMatchObject({
      verdict: "warning",
      says: "not found out: the vault keys tried to delete one, and the store gave 503 SlowDown",
    });
    const gone = await probe({ ...aws, refuses: { "GET versionId": 403 } });
    expect(gone.facts.seen?.oldVersion).toBe("destroyed");
  });

  it.each([
    ["off", "the bucket keeps no old versions"],
    ["Suspended", "the bucket's versioning is suspended, a put writes over what is there"],
  ] as const)("with versioning %s is a warning, and nothing of ours is left in it", async (versioning, why) => {
    const { facts, left } = await probe({ ...protectedStore, versioning });
    expect(facts.seen).toMatchObject({ versioning, oldVersion: "none" });
    expect(protection(facts.seen)).toEqual(unsafe(why));
    expect(left).toEqual([]);
  });

  it("whose keys may not ask for the versioning is judged by what they could do", async () => {
    const { facts } = await probe({ ...protectedStore, refuses: { "DELETE versionId": 403, "GET versioning": 403 } });
    expect(facts.seen).toMatchObject({ versioning: "hidden", oldVersion: "kept" });
    expect(protection(facts.seen)?.verdict).toBe("ok");
  });

  it.each([
    ["honoured", "kept", "ok", "an object that is there is not written over"],
    [
      "ignored",
      "ignored",
      "warning",
      "the store takes no notice of the condition: two takeovers in the same second are told apart only by reading the lease again",
    ],
    [
      "unknown",
      { answer: "501 NotImplemented" },
      "warning",
      "501 NotImplemented: two takeovers in the same second are told apart only by reading the lease again",
    ],
  ] as const)("with conditions %s", async (conditions, conditional, verdict, says) => {
    const { facts } = await probe({ ...protectedStore, conditions });
    expect(facts.seen?.conditional).toEqual(conditional);
    expect(facts.refused).toEqual({});
    expect(facts.seen && buckets.conditionalLine(facts.seen)).toMatchObject({ what: "conditional put", verdict, says });
  });

  it.each([
    ["PUT", "put: 403 AccessDenied"],
    ["GET", "get: 403 AccessDenied"],
    ["GET list-type", "list: 403 AccessDenied"],
  ])("whose keys may not %s is a fault that says so", async (right, says) => {
    const { facts } = await probe({ ...protectedStore, refuses: { ...protectedStore.refuses, [right]: 403 } });
    expect(buckets.rightsLine(vault, { bucket: "vault" }, facts.refused)).toEqual({
      area: "vault",
      what: "vault",
      verdict: "fault",
      says: `the vault keys do not do all that they must: ${says}`,
      mend: `give the vault keys these rights on the bucket (${runbook})`,
    });
  });

  it("whose keys cannot delete by name is a fault for uploads, a warning for the vault, and right for a volume's copy", async () => {
    const { facts } = await probe({ ...protectedStore, refuses: { DELETE: 403, "DELETE versionId": 403 } });
    const line = (undeletable: "ok" | "warning" | "fault") =>
      buckets.rightsLine({ ...vault, undeletable }, { bucket: "vault" }, facts.refused);
    expect([line("fault"), line("warning"), line("ok")]).toMatchObject([
      { verdict: "fault", says: "the vault keys do not do all that they must: delete: 403 AccessDenied" },
      { verdict: "warning" },
      { verdict: "ok", says: "its keys put, get and list" },
    ]);
  });

  it("that is right says what its keys do", async () => {
    const { facts } = await probe(protectedStore);
    expect(buckets.rightsLine(vault, { bucket: "vault" }, facts.refused)).toEqual({
      area: "vault",
      what: "vault",
      verdict: "ok",
      says: "its keys put, get, list and delete",
    });
  });

  it("that everybody reads is a fault as a vault, and right for uploads", async () => {
    const { facts } = await probe({ ...protectedStore, world: "reads" });
    const { seen } = facts;
    expect(seen && buckets.privacyLine(seen)).toMatchObject({
      verdict: "fault",
      says: "everybody can read it, and with it the database",
    });
    expect(seen && buckets.publicLine(seen, "https://media.example")).toMatchObject({
      verdict: "ok",
      says: "everybody reads https://media.example",
    });
    const hidden = (await probe(protectedStore)).facts.seen;
    expect(hidden && buckets.privacyLine(hidden).verdict).toBe("ok");
    expect(hidden && buckets.publicLine(hidden, "https://media.example")).toMatchObject({
      verdict: "fault",
      says: "nobody sees an upload: https://media.example gives 403",
    });
  });

  it.each([
    [503, "503"],
    [429, "429"],
    ["dead", "other side closed"],
  ] as const)("that answers the world with %s has not said that nobody reads it", async (world, answer) => {
    const { seen } = (await probe({ ...protectedStore, world })).facts;
    expect(seen && buckets.privacyLine(seen)).toEqual({
      area: "vault",
      what: "privacy",
      verdict: "warning",
      says: `not found out: who asked without keys was given ${answer}, which is no refusal`,
      mend: "ask again once the store answers: npx homestead doctor",
    });
  });

  it("that shows the world something else has not said so either; one that knows nothing of it has", () => {
    const seen = { conditional: "kept", versioning: "Enabled", oldVersion: "kept" } as const;
    const line = (answer: string, refused: boolean) => buckets.privacyLine({ ...seen, world: { answer, refused } });
    expect([line("something else", false).verdict, line("404", true).verdict]).toEqual(["warning", "ok"]);
  });

  it.each([
    ["*", "ok"],
    ["https://web.example", "ok"],
    ["https://other.example", "warning"],
    [undefined, "warning"],
  ] as const)("that allows scripts of %s to read uploads is %s for the audio player", async (allows, verdict) => {
    const origin = "https://web.example";
    const store: Store = { ...protectedStore, world: "reads", ...(allows === undefined ? {} : { allows }) };
    const { seen } = (await probe(store, { origin })).facts;
    expect(seen && buckets.crossOriginLines(seen, origin)).toMatchObject([{ area: "media", what: "CORS", verdict }]);
  });

  it("that nobody reads, or whose pages are not known, is not asked for CORS", async () => {
    const origin = "https://web.example";
    for (const { facts } of [await probe(protectedStore, { origin }), await probe({ ...aws, world: "reads" })])
      expect(facts.seen && buckets.crossOriginLines(facts.seen, origin)).toEqual([]);
  });
});

// ---------------------------------------------------------------- a cluster

interface World {
  /** Objects by path. */
  objects?: Record<string, object>;
  /** What becomes of a pod that measures a disk. */
  disk?: "measured" | "broken" | "hangs";
  /** What is different about a disk that was measured. */
  share?: Partial<Measured>;
  /** How often a request, such as `GET /api/v1/...`, is answered with 503; once it has done it, where it is `lost`. */
  fails?: Record<string, { times: number; lost?: boolean }>;
  /** Requests that are never answered. */
  silent?: RegExp;
  /** Told of every request that would change something, as it comes. */
  changing?: (asked: string) => void;
}

/** An argument of Traefik's, without which it would end a slow upload. */
const patient = "--entryPoints.websecure.transport.respondingTimeouts.readTimeout=10m";

/** What is made in it. */
interface Made {
  kind: string;
  metadata: { name: string };
  spec?: object;
}

const nameIn = (body: string): string => (JSON.parse(body) as Made).metadata.name;

/** Kinds of which there is a list even where there is none. */
const listed = [
  "namespaces",
  "nodes",
  "pods",
  "leases",
  "deployments",
  "storageclasses",
  "customresourcedefinitions",
  "endpointslices",
  "configmaps",
  "services",
  "persistentvolumes",
  "persistentvolumeclaims",
];

/** A Kubernetes API server that keeps what it is given, and starts pods at once. */
class FakeKube {
  readonly objects = new Map<string, object>();
  /** Every request that would change something: `POST /api/v1/namespaces`. */
  readonly changes: string[] = [];

  constructor(private readonly world: World) {
    const add = (at: string, object: object) => this.objects.set(at, object);
    add("/version", { gitVersion: "v1.34.4+k3s1" });
    add("/api/v1/namespaces/kube-system", { metadata: { name: "kube-system", uid: "1234" } });
    add("/apis/storage.k8s.io/v1/storageclasses/local-path", { metadata: { name: "local-path" }, provisioner: "x" });
    add("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ingressroutes.traefik.io", {
      metadata: { name: "ingressroutes.traefik.io" },
    });
    add("/api/v1/namespaces/kube-system/pods/traefik", {
      metadata: { name: "traefik", namespace: "kube-system", labels: { "app.kubernetes.io/name": "traefik" } },
      spec: { nodeName: "n1", containers: [{ name: "traefik", image: "traefik:v3.7.1", args: [patient] }] },
      status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
    });
    add("/api/v1/nodes/n1", {
      metadata: { name: "n1" },
      status: { allocatable: { cpu: "4", memory: "8Gi" }, conditions: [{ type: "Ready", status: "True" }] },
    });
    add("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", {
      metadata: { name: "n1" },
      spec: { renewTime: new Date().toISOString().replace("Z", "000Z") },
    });
    for (const [at, object] of Object.entries(world.objects ?? {})) add(at, object);
  }

  async listen(): Promise<string> {
    const server = http.createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        const { pathname } = new URL(request.url ?? "/", "http://cluster");
        const asked = `${request.method ?? ""} ${pathname}`;
        if (this.world.silent?.test(asked)) return;
        const failing = this.world.fails?.[asked];
        if (failing !== undefined && failing.times-- > 0) {
          if (failing.lost) this.answer(request.method ?? "", pathname, Buffer.concat(parts).toString());
          response.writeHead(503, { "content-type": "application/json" });
          return void response.end(JSON.stringify({ kind: "Status", code: 503, message: "etcd leader changed" }));
        }
        if (request.method === "POST" && this.objects.has(`${pathname}/${nameIn(Buffer.concat(parts).toString())}`)) {
          response.writeHead(409, { "content-type": "application/json" });
          return void response.end(JSON.stringify({ kind: "Status", code: 409 }));
        }
        const answer = this.answer(request.method ?? "", pathname, Buffer.concat(parts).toString());
        const status = answer === undefined ? 404 : 200;
        const type = typeof answer === "string" ? "text/plain" : "application/json";
        response.writeHead(status, { "content-type": type });
        response.end(typeof answer === "string" ? answer : JSON.stringify(answer ?? { kind: "Status", code: 404 }));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Names of what was made in the doctor's namespace and is still there. */
  left = () => [...this.objects.keys()].filter((at) => at.includes(doctorNamespace));

  private answer(method: string, at: string, body: string): object | string | undefined {
    if (method === "GET") return this.get(at);
    this.changes.push(`${method} ${at}`);
    this.world.changing?.(`${method} ${at}`);
    if (method === "DELETE") {
      const gone = this.objects.get(at);
      const below = `${at.slice(at.lastIndexOf("/namespaces/"))}/`;
      for (const key of this.objects.keys()) if (key === at || key.includes(below)) this.objects.delete(key);
      return gone;
    }
    const object = JSON.parse(body) as Made;
    if (method === "PATCH") return this.objects.get(at);
    const made: Record<string, (object: Made) => object> = {
      Pod: (pod) => this.run(pod),
      PersistentVolumeClaim: (claim) => ({ ...claim, spec: { ...claim.spec, volumeName: "measured" } }),
    };
    this.objects.set(`${at}/${object.metadata.name}`, made[object.kind]?.(object) ?? object);
    return object;
  }

  private run(pod: Made): object {
    const terminated = { exitCode: 1, message: "opened\nENOSPC: no space left on device" };
    const status = {
      measured: { phase: "Succeeded" },
      broken: { phase: "Failed", containerStatuses: [{ name: "fsync", state: { terminated } }] },
      hangs: { phase: "Pending" },
    };
    return { ...pod, spec: { ...pod.spec, nodeName: "n1" }, status: status[this.world.disk ?? "measured"] };
  }

  private get(at: string): object | string | undefined {
    // What KubernetesObjectApi asks to find out where a kind is.
    const resource = (kind: string, name: string, namespaced = true) => ({ kind, name, namespaced });
    if (at === "/api/v1")
      return {
        resources: [
          resource("Namespace", "namespaces", false),
          resource("ConfigMap", "configmaps"),
          resource("PersistentVolumeClaim", "persistentvolumeclaims"),
          resource("Pod", "pods"),
        ],
      };
    if (at === "/apis/networking.k8s.io/v1") return { resources: [resource("NetworkPolicy", "networkpolicies")] };
    if (at.endsWith("/log")) {
      const gib = 1024 ** 3;
      const room = { free: 50 * gib, size: 100 * gib };
      return JSON.stringify({ count: 900, p50: 1, p99: 2, max: 3, ...room, ...this.world.share });
    }
    const found = this.objects.get(at);
    if (found !== undefined) return found;
    const kind = at.split("/").at(-1) ?? "";
    if (!listed.includes(kind)) return undefined;
    // Of one namespace, or of all of them.
    const group = at.slice(0, -kind.length);
    const isIn = (key: string) =>
      key.startsWith(group) && new RegExp(`^(namespaces/[^/]+/)?${kind}/[^/]+$`).test(key.slice(group.length));
    const items = [...this.objects].filter(([key]) => isIn(key));
    return { items: items.map(([, object]) => object) };
  }
}

interface Examined {
  lines: lines.DoctorLine[];
  /** With those that say that the store of these tests, on this machine, is nowhere where pods could get to it. */
  all: lines.DoctorLine[];
  cluster: FakeKube;
}

/** Examines a `home` in this world. */
async function examined(
  world: World = {},
  changes: Record<string, unknown> = {},
  options: { store?: Store; disks?: "measure" | "skip"; signal?: AbortSignal; resolvers?: readonly string[] } = {},
): Promise<Examined> {
  const cluster = new FakeKube(world);
  const store = new FakeStore(options.store ?? { ...protectedStore, world: "reads", allows: "*" });
  const [server, endpoint] = [await cluster.listen(), await store.listen()];
  const parsed = settingsOf("home", {
    cluster: { context: "trial", kubeconfig: kubeconfigFor(server), uid: "11111111-1111-1111-1111-111111111111" },
    storage: { kind: "local", databases: "local-path" },
    vault: { endpoint, bucket: "vault" },
    media: { endpoint, bucket: "media" },
    charts: chartsInFolders(),
    ...changes,
  });
  // Where nobody answers, and says so at once: no stack of a site may name it.
  const settings = { ...parsed, ingress: { ...parsed.ingress, address: "127.0.0.1" } };
  const secrets = {
    vaultAccessKeyId: "id",
    vaultSecretAccessKey: "k",
    mediaAccessKeyId: "id",
    mediaSecretAccessKey: "k",
  };
  const found = await examine({ settings, secrets }, () => Promise.resolve(plannedStack("home")), {
    disks: options.disks ?? "measure",
    // Nothing answers there, so that no test asks the world.
    resolvers: options.resolvers ?? ["127.0.0.1:1"],
    progress: () => undefined,
    signal: options.signal ?? new AbortController().signal,
  }).catch((error: unknown) => {
    if (!(error instanceof Error)) throw error;
    return [lines.judged("stack", "thrown", "fault", error.message, "")];
  });
  const ownMachine = ({ what, says }: lines.DoctorLine) =>
    /\.endpoint$/.test(what) && says.includes("that pods can reach");
  return { lines: found.filter((line) => !ownMachine(line)), all: found, cluster };
}

const ownCluster: World = {
  objects: {
    "/api/v1/namespaces/kube-system": {
      metadata: { name: "kube-system", uid: "11111111-1111-1111-1111-111111111111" },
    },
  },
};
const inArea = (found: Examined, ...areas: string[]) => found.lines.filter(({ area }) => areas.includes(area));
const brief = (found: Examined, ...areas: string[]) =>
  inArea(found, ...areas).map(({ what, verdict, says }) => `${verdict}: ${what}: ${says}`);

describe("a site before its first update", () => {
  const pods = `/api/v1/namespaces/${doctorNamespace}/pods`;

  it("is fit where everything is as it must be", async () => {
    const found = await examined(ownCluster);
    expect(brief(found, "stack", "cluster", "operators", "storage", "capacity", "certificates")).toEqual([
      "ok: trial: Kubernetes v1.34.4+k3s1; nothing of ours is in it",
      "ok: uid: 11111111-1111-1111-1111-111111111111, as the stack says",
      "ok: cert-manager: the update installs it",
      "ok: CloudNativePG: the update installs it",
      "ok: barman-cloud plugin: the update installs it",
      "ok: Traefik: v3.7.1 in kube-system, 1/1 ready",
      "ok: clients' addresses: Traefik sees them",
      "ok: uploads: have 600 s, Traefik's readTimeout: one of 99 MiB, as large as a video may be, needs a line of 2 Mbit/s",
      "ok: databases: local-path: fsync p50 1 ms, p99 2 ms, max 3 ms of 900",
      expect.stringMatching(/^ok: memory: the stack asks for \d\.\d GiB; 8\.0 GiB of 8\.0 GiB are free for it$/),
      expect.stringMatching(/^ok: cpu: the stack asks for \d\.\d cores; 4\.0 cores of 4\.0 cores are free for it$/),
      "ok: disk, databases: local-path: 50.0 GiB of 100.0 GiB free; 12.0 GiB claimed for what is to come",
      "ok: Issuer acme: the update makes it",
    ]);
    expect(brief(found, "media")).toEqual([
      "ok: media: its keys put, get, list and delete",
      expect.stringMatching(/^ok: public: everybody reads http:\/\/127\.0\.0\.1:\d+\/media$/),
      "ok: CORS: pages of https://mastodon.ramble.moe may read it",
      "ok: old versions: kept: the media keys cannot delete one",
    ]);
    expect(inArea(found, "clock").map(({ what, verdict }) => `${verdict}: ${what}`)).toEqual([
      "ok: node n1",
      "ok: API server",
      "ok: vault",
    ]);
    expect(inArea(found, "ports").map(({ what }) => what)).toEqual(["127.0.0.1:80", "127.0.0.1:443"]);
    expect(inArea(found, "dns").map(({ what }) => what)).toEqual(["ramble.moe", "mastodon.ramble.moe"]);
    expect(found.lines.every(({ verdict, mend }) => verdict === "ok" || mend !== undefined)).toBe(true);
  });

  it("leaves nothing in the cluster", async () => {
    const { cluster } = await examined(ownCluster);
    expect(cluster.left()).toEqual([]);
    expect(cluster.changes).toEqual([
      "POST /api/v1/namespaces",
      `POST /apis/networking.k8s.io/v1/namespaces/${doctorNamespace}/networkpolicies`,
      `POST /api/v1/namespaces/${doctorNamespace}/configmaps`,
      `POST /api/v1/namespaces/${doctorNamespace}/persistentvolumeclaims`,
      `POST /api/v1/namespaces/${doctorNamespace}/pods`,
      `DELETE /api/v1/namespaces/${doctorNamespace}`,
    ]);
  });

  it("makes nothing in it with --no-disk", async () => {
    const found = await examined(ownCluster, {}, { disks: "skip" });
    expect(found.cluster.changes).toEqual([]);
    expect(inArea(found, "storage")).toEqual([]);
  });

  it("deletes what an earlier doctor left, its retained volume too", async () => {
    const objects = {
      ...ownCluster.objects,
      [`/api/v1/namespaces/${doctorNamespace}`]: {
        metadata: { name: doctorNamespace, labels: { "homestead/doctor": "home" } },
      },
      "/api/v1/persistentvolumes/pv1": {
        metadata: { name: "pv1" },
        spec: { claimRef: { namespace: doctorNamespace }, persistentVolumeReclaimPolicy: "Retain" },
      },
    };
    const { cluster } = await examined({ objects });
    expect(cluster.changes.slice(0, 3)).toEqual([
      "PATCH /api/v1/persistentvolumes/pv1",
      `DELETE /api/v1/namespaces/${doctorNamespace}`,
      "POST /api/v1/namespaces",
    ]);
    expect(cluster.left()).toEqual([]);
  });

  it("deletes no namespace that is not a doctor's", async () => {
    const at = `/api/v1/namespaces/${doctorNamespace}`;
    const found = await examined({ objects: { ...ownCluster.objects, [at]: { metadata: { name: doctorNamespace } } } });
    expect(found.cluster.changes).toEqual([]);
    expect(brief(found, "storage")[0]).toBe(
      "fault: homestead-doctor: the namespace homestead-doctor is none of a doctor's (it lacks the label homestead/doctor): look into it and delete it",
    );
  });

  it("is told of a disk that cannot be written to, and nothing is left", async () => {
    const found = await examined({ ...ownCluster, disk: "broken" });
    expect(brief(found, "storage")).toEqual([
      "fault: databases: local-path: the pod that measures it failed: ENOSPC: no space left on device",
    ]);
    expect(found.cluster.left()).toEqual([]);
  });

  it("is told that its certificate waits for its names, until it has one", async () => {
    // A name server that knows no name.
    const server = dgram.createSocket("udp4");
    server.on("message", (query, from) => {
      query.writeUInt16BE(0x8183, 2);
      server.send(query, from.port);
    });
    await new Promise<void>((done) => server.bind(0, "127.0.0.1", done));
    onTestFinished(() => void server.close());
    const options = { disks: "skip", resolvers: [`127.0.0.1:${server.address().port}`] } as const;
    const told = async (world: World) => {
      const found = (await examined(world, {}, options)).lines;
      return {
        waits: found.filter(({ what }) => what === "http01").map(({ says }) => says.replace(/^.*: /, "")),
        mends: found.filter(({ area }) => area === "dns").map(({ mend = "" }) => mend.replace(/ .*/, "")),
      };
    };
    expect(await told(ownCluster)).toEqual({
      waits: ["mastodon.ramble.moe and ramble.moe do not lead here yet, and DNS is what an update changes last"],
      mends: ["point", "point"],
    });
    const { apex, webHost, certificates } = home;
    const name = certificateName({ apex, webHost, certificates, otherHosts: [] });
    const ready = { status: { conditions: [{ type: "Ready", status: "True" }] } };
    const at = `/apis/cert-manager.io/v1/namespaces/homestead/certificates/${name}`;
    const objects = { ...ownCluster.objects, [at]: ready };
    expect(await told({ objects })).toEqual({ waits: [], mends: ["pulumi", "pulumi"] });
  });

  it("has a good address, whatever a name server says of the other family; and a standby's names are not its own", async () => {
    // 127.0.0.1 for every A; SERVFAIL, or ::1, for every AAAA.
    const serve = async (aaaa: "fails" | "has one") => {
      const server = dgram.createSocket("udp4");
      server.on("message", (query, from) => {
        const end = query.indexOf(0, 12) + 5;
        const question = query.subarray(12, end);
        const type = query.readUInt16BE(end - 4);
        const ipv6 = aaaa === "fails" ? undefined : [...Array<number>(15).fill(0), 1];
        // Whoever looks for the zone's own server finds none.
        const address = type === 1 ? [127, 0, 0, 1] : type === 28 ? ipv6 : undefined;
        const flags = address !== undefined ? 0x8180 : type === 28 ? 0x8182 : 0x8183;
        const header = Buffer.alloc(10);
        [flags, 1, address === undefined ? 0 : 1, 0, 0].forEach((value, i) => header.writeUInt16BE(value, 2 * i));
        const record = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, address?.length ?? 0, ...(address ?? [])]);
        const answer = [query.subarray(0, 2), header, question, ...(address === undefined ? [] : [record])];
        server.send(Buffer.concat(answer), from.port);
      });
      await new Promise<void>((done) => server.bind(0, "127.0.0.1", done));
      onTestFinished(() => void server.close());
      return { disks: "skip", resolvers: [`127.0.0.1:${server.address().port}`] } as const;
    };
    const told = async (aaaa: "fails" | "has one", changes: Record<string, unknown> = {}) =>
      inArea(await examined(ownCluster, changes, await serve(aaaa)), "dns").map(
        ({ what, verdict }) => `${verdict}: ${what}`,
      );
    // The right address, by hearsay.
    const names = ["ramble.moe", "mastodon.ramble.moe"];
    expect(await told("fails")).toEqual(names.flatMap((name) => [`warning: ${name}`, `fault: ${name} AAAA`]));
    expect(await told("has one")).toEqual(names.flatMap((name) => [`warning: ${name}`, `fault: ${name} AAAA`]));
    const standby = await told("has one", { activeSite: "vps", epoch: 2 });
    expect(standby.filter((line) => line.includes("AAAA"))).toEqual([]);
  });

  it("is told of a share that the profile takes for a disk, of a node without PSI, and of nodes whose disks were not measured", async () => {
    const node = (name: string) => ({
      metadata: { name },
      status: { allocatable: { cpu: "4", memory: "8Gi" }, conditions: [{ type: "Ready", status: "True" }] },
    });
    const required = { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname" }] }] };
    const objects = {
      ...ownCluster.objects,
      "/api/v1/nodes/n2": node("n2"),
      "/api/v1/nodes/n3": { ...node("n3"), spec: { unschedulable: true } },
      "/api/v1/persistentvolumes/measured": { metadata: { name: "measured" }, spec: { nodeAffinity: { required } } },
    };
    const found = await examined({ objects, share: { fileSystem: "nfs", pressure: "none" } });
    expect(brief(found, "storage")).toEqual([
      "ok: databases: local-path: fsync p50 1 ms, p99 2 ms, max 3 ms of 900; on node n1, and not on n2, which may get the claim too",
      expect.stringMatching(/^warning: profile, databases: local-path: the class is NFS, and storage\.kind is local: /),
      expect.stringMatching(/^warning: I\/O pressure: the kernel of the node /),
    ]);
  });

  it("leaves nothing in the cluster when it is interrupted", async () => {
    const controller = new AbortController();
    const changing = (asked: string) => {
      if (asked === `POST ${pods}`) setTimeout(() => controller.abort(new Error("interrupted")), 500);
    };
    const found = await examined({ ...ownCluster, disk: "hangs", changing }, {}, { signal: controller.signal });
    expect(brief(found, "stack")).toEqual(["fault: thrown: interrupted"]);
    expect(found.cluster.changes).toContain(`POST ${pods}`);
    expect(found.cluster.left()).toEqual([]);
  });

  it.each(["namespaces", `namespaces/${doctorNamespace}/pods`])(
    "leaves nothing in it when it is interrupted as %s are made",
    async (making) => {
      const controller = new AbortController();
      const changing = (asked: string) => {
        if (asked === `POST /api/v1/${making}`) controller.abort(new Error("interrupted"));
      };
      const found = await examined({ ...ownCluster, changing }, {}, { signal: controller.signal });
      expect(brief(found, "stack")).toEqual(["fault: thrown: interrupted"]);
      expect(found.cluster.left()).toEqual([]);
    },
  );

  it("makes nothing in it when it is interrupted before", async () => {
    const controller = new AbortController();
    controller.abort(new Error("interrupted"));
    const found = await examined(ownCluster, {}, { signal: controller.signal });
    expect(brief(found, "stack")).toEqual(["fault: thrown: interrupted"]);
    expect(found.cluster.changes).toEqual([]);
  });

  it("measures its disks though the cluster is in trouble for a moment", async () => {
    const fails = {
      [`GET ${pods}/databases`]: { times: 2 },
      [`POST /api/v1/namespaces`]: { times: 1 },
      // Made, and the answer lost.
      [`POST ${pods}`]: { times: 1, lost: true },
      [`DELETE /api/v1/namespaces/${doctorNamespace}`]: { times: 1, lost: true },
    };
    const found = await examined({ ...ownCluster, fails });
    expect(brief(found, "storage")).toEqual(["ok: databases: local-path: fsync p50 1 ms, p99 2 ms, max 3 ms of 900"]);
    expect(found.cluster.left()).toEqual([]);
  });

  it("is told that a disk was not measured, and not that it is slow, where the cluster does not answer for it", async () => {
    const fails = { [`GET ${pods}/databases`]: { times: 99 } };
    const found = await examined({ ...ownCluster, fails });
    expect(inArea(found, "storage")).toEqual([
      {
        area: "storage",
        what: "databases: local-path",
        verdict: "warning",
        says: "not measured, since the cluster did not answer: get pods/databases -n homestead-doctor: 503, etcd leader changed",
        mend: expect.stringMatching(/^kubectl .*--context trial get nodes, then npx homestead doctor again$/) as string,
      },
    ]);
    expect(found.cluster.left()).toEqual([]);
    const before = await examined({ ...ownCluster, fails: { "POST /api/v1/namespaces": { times: 99 } } });
    expect(brief(before, "storage")).toEqual([
      "warning: homestead-doctor: create Namespace homestead-doctor: 503, etcd leader changed",
    ]);
  });

  const probeOf = async (world: World, signal: AbortSignal, seconds: number) => {
    const server = await new FakeKube(world).listen();
    const config = kubeClient({ context: "trial", kubeconfig: kubeconfigFor(server) });
    return new DiskProbe(config, home, signal, { seconds, tries: 2, pause: 0.05 });
  };
  const database = { use: "databases", storageClass: "local-path" } as const;

  it("waits only so long for a cluster that takes a question and says nothing", async () => {
    const probe = await probeOf(
      { ...ownCluster, silent: /^GET .*pods\/databases$/ },
      new AbortController().signal,
      0.5,
    );
    await probe.begin();
    await expect(probe.measure(database)).rejects.toThrow(
      new Unmeasured("get pods/databases -n homestead-doctor: no answer within 0.5 s"),
    );
  });

  it.each([
    ["a pod's state", /^GET .*pods\/databases$/],
    ["what an earlier doctor left", /^GET \/api\/v1\/namespaces\/homestead-doctor$/],
  ])("ends at once while the cluster is silent on %s", async (_, silent) => {
    const controller = new AbortController();
    const probe = await probeOf({ ...ownCluster, silent }, controller.signal, 30);
    const work = probe.begin().then(() => probe.measure(database));
    const began = Date.now();
    setTimeout(() => controller.abort(new Error("interrupted")), 1500);
    await expect(work).rejects.toThrow("interrupted");
    expect(Date.now() - began).toBeLessThan(15_000);
  });

  it("touches no cluster that is not its own", async () => {
    const found = await examined();
    expect(brief(found, "cluster")).toEqual([
      "fault: cluster.uid: \"11111111-1111-1111-1111-111111111111\"; an update wants the UID of the cluster behind context 'trial', which is 1234: this is another cluster",
    ]);
    expect(found.cluster.changes).toEqual([]);
  });

  it("is told what an update would refuse, and a class that is not there is not measured", async () => {
    const found = await examined(ownCluster, { storage: { kind: "local", databases: "fast" } });
    expect(inArea(found, "storage")).toEqual([
      {
        area: "storage",
        what: "storage.databases",
        verdict: "fault",
        says: '"fast"; an update wants a storage class of the cluster: local-path',
        mend: "pulumi config set --path homestead:storage.databases <class> --stack home",
      },
    ]);
  });

  it("is a line for each server that pods could not reach", async () => {
    const { all } = await examined(ownCluster, {}, { disks: "skip" });
    expect(all.filter(({ says }) => says.includes("that pods can reach"))).toEqual(
      (["vault", "media"] as const).map((name) => ({
        area: name,
        what: `${name}.endpoint`,
        verdict: "fault",
        says: expect.stringMatching(
          /^"http:\/\/127\.0\.0\.1:\d+"; an update wants a server that pods can reach, at an address of .*loopback.* is at 127\.0\.0\.1$/,
        ) as string,
        mend: `pulumi config set --path homestead:${name}.endpoint <url> --stack home`,
      })),
    );
  });

  it("is a line for each thing that cannot be reached", async () => {
    const closed = `127.0.0.1:${await closedPort()}`;
    const nowhere = { endpoint: `http://${closed}` };
    const found = await examined(ownCluster, {
      cluster: { context: "trial", kubeconfig: kubeconfigFor(`http://${closed}`) },
      vault: { ...nowhere, bucket: "vault" },
      media: { ...nowhere, bucket: "media" },
    });
    expect(brief(found, "cluster", "vault", "media", "operators", "storage", "capacity", "clock")).toEqual([
      expect.stringMatching(/^fault: cluster\.context: "trial"; an update wants a cluster that answers \(/),
      "warning: not looked at: nodes, operators, issuer, room, disks and clock, since the cluster cannot be asked",
      ...["vault", "media"].map(
        (name) =>
          `fault: ${name}.endpoint: "http://${closed}"; an update wants a server that answers: http://${closed} cannot be reached: connect ECONNREFUSED ${closed}`,
      ),
    ]);
    expect(inArea(found, "dns").every(({ verdict }) => verdict === "fault")).toBe(true);
  });

  it("has a line for a chart whose repository does not answer, and prints nothing beside its lines", async () => {
    const closed = `127.0.0.1:${await closedPort()}`;
    const printed = (["log", "warn", "error"] as const).map((name) => vi.spyOn(console, name));
    onTestFinished(() => void vi.restoreAllMocks());
    const mastodon = { repository: `http://${closed}`, version: "1.0.0" };
    const { lines: found } = await examined(
      ownCluster,
      { charts: { ...chartsInFolders(), mastodon } },
      { disks: "skip" },
    );
    expect(found.filter(({ what }) => what.startsWith("charts."))).toEqual([
      {
        area: "program",
        what: "charts.mastodon",
        verdict: "warning",
        says: `http://${closed}/index.yaml does not answer (connect ECONNREFUSED ${closed}); an install or upgrade of it will fail`,
        mend: "let this machine reach it, or name a mirror or a folder in homestead:charts.mastodon",
      },
    ]);
    for (const print of printed) expect(print).not.toHaveBeenCalled();
  });

  it("with everything embedded has no vault to speak of", async () => {
    const cluster = new FakeKube({});
    const settings = settingsOf("dev", {
      cluster: { context: "trial", kubeconfig: kubeconfigFor(await cluster.listen()) },
      charts: chartsInFolders(),
    });
    const found = await examine({ settings, secrets: {} }, () => Promise.resolve(plannedStack("dev")), {
      disks: "skip",
      resolvers: ["127.0.0.1:1"],
      progress: () => undefined,
      signal: new AbortController().signal,
    });
    expect(found.filter(({ area }) => area === "vault" || area === "media")).toEqual([
      {
        area: "vault",
        what: "embedded",
        verdict: "warning",
        says: "inside the cluster that it should outlive",
        mend: "name a bucket elsewhere (objectStore external, vault) before anything here is worth keeping",
      },
    ]);
  });
});

describe("homestead doctor", () => {
  it("has a site, and ways to leave out the disks, to ask other name servers and to print JSON", () => {
    const command = doctorCommand();
    expect(command.options.map(({ long }) => long)).toEqual(["--no-disk", "--resolver", "--json"]);
    expect(command.registeredArguments[0]?.argChoices).toEqual(["home", "vps", "dev"]);
  });

  it("shows every line with its mend, and counts what is wrong", () => {
    const text = render({
      site: "home",
      role: "active",
      at: "2026-11-23T00:00:00.000Z",
      verdict: "fault",
      lines: [
        lines.ok("program", "node", "24.21.0"),
        lines.judged("vault", "old versions", "warning", "can be destroyed", "docs/runbooks/protected-backups.md"),
        lines.judged("ports", "192.0.2.7:443", "fault", "refused", "open it"),
      ],
    });
    expect(text).toMatch(/^home, active, 2026-11-23T00:00:00\.000Z\n/);
    expect(text).toMatch(/warning .* vault .* old versions .* can be destroyed/);
    expect(text).toContain("\nwarning, vault, old versions:\n  docs/runbooks/protected-backups.md\n");
    expect(text.split("\n").at(-1)).toBe("faults: 1, warnings: 1");
  });

  it("has its lines in the order of its parts", () => {
    const mixed = [lines.ok("clock", "a", ""), lines.ok("vault", "b", ""), lines.ok("program", "c", "")];
    expect(lines.inOrder(mixed).map(({ area }) => area)).toEqual(["program", "vault", "clock"]);
  });
});

describe("what may be dead", () => {
  it("is waited for only so long", async () => {
    await expect(within(0.01, new Promise(() => undefined))).rejects.toThrow("no answer within 0.01 s");
    await expect(within(1, Promise.resolve(3))).resolves.toBe(3);
  });

  it("is told by the cause and one line", () => {
    expect(reason(new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED\nmore") }))).toBe(
      "connect ECONNREFUSED",
    );
    expect(reason("plain")).toBe("plain");
  });
});
