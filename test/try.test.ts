import { execFileSync, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, it, vi } from "vitest";
import { parse as parseYaml } from "yaml";
import { tryCommand } from "../cli/try";
import type { World } from "../cli/try";
import { identityFaults } from "../lib/identity";
import { Placeholders } from "../lib/plan/placeholders";
import { onPath } from "../lib/pulumi-cli";
import { Cluster, currentContext } from "../lib/try/cluster";
import type { ExistingOperators } from "../lib/try/cluster";
import { readOverrides, writeStackFile } from "../lib/try/configuration";
import { parseSettings, requiredSecrets } from "../settings";
import { readStackConfig } from "../lib/stack-config";
import { UserError } from "../lib/user-error";
import { run } from "./support/command";
import { fakeCluster, kubeconfigFor, storageClass, traefik } from "./support/fake-cluster";
import type { Lists } from "./support/fake-cluster";
import { failing, fakePulumi, working } from "./support/fake-pulumi";
import { copyProject, temporaryFolder } from "./support/folders";

const outputs = {
  handle: "@user@ramble.localhost",
  web: "https://mastodon.ramble.localhost",
  blog: "https://ramble.localhost",
  records: [{ name: "ramble.localhost" }, { name: "mastodon.ramble.localhost" }],
  authority: "-----BEGIN CERTIFICATE-----\n",
};

/** A clone with a program that takes no time, whose backend has the given stacks. */
function clone(stacks: Record<string, Record<string, string>> = {}) {
  const folder = copyProject({
    "index.ts": () =>
      'import * as pulumi from "@pulumi/pulumi";\nexport = async () => ({ handle: new pulumi.Config().get("apex") });\n',
  });
  const pulumi = fakePulumi(stacks);
  const environment: NodeJS.ProcessEnv = {
    ...pulumi.environment,
    HOME: temporaryFolder(),
    FAKE_PULUMI_OUTPUTS: JSON.stringify(outputs),
  };
  Reflect.deleteProperty(environment, "KUBECONFIG");
  Reflect.deleteProperty(environment, "PULUMI_CONFIG_PASSPHRASE");
  /** What it says, with its questions; `answer` is what the user says to them. */
  const tryIt = async (args: string[], more: NodeJS.ProcessEnv = {}, answer?: string): Promise<string> => {
    let said = "";
    const world: World = {
      folder,
      environment: { ...environment, ...more },
      say: (line) => (said += `${line}\n`),
      ask: (question) => Promise.resolve().then(() => ((said += `${question}\n`), answer)),
    };
    await tryCommand(world).parseAsync(args, { from: "user" });
    return said;
  };
  const stackFile = () =>
    parseYaml(fs.readFileSync(path.join(folder, ".state", "Pulumi.dev.yaml"), "utf8")) as {
      config: Record<string, unknown>;
    };
  return { ...pulumi, environment, folder, tryIt, stackFile };
}

/** The namespace of a server, with the mark of the stack that made it. */
const namespaceOf = (site: string | undefined, name = "homestead") => ({
  metadata: { name, labels: { app: "x", ...(site === undefined ? {} : { "homestead/site": site }) } },
});

/** What `--destroy` says first. */
const removing =
  "\nRemoving the server from 'trial', which takes some minutes: first what Pulumi has made, then the namespace homestead " +
  "with the database and the other data, which Pulumi keeps.\n\n";

const placeholders = new Placeholders();
/** A placeholder; the embedded object store's keys are the same for both buckets. */
const secretOf = (key: string) => placeholders.of(key.replace(/^media(?=AccessKeyId|SecretAccessKey)/, "vault"));
/** The secrets of a trial that runs: to give them to the CLI one by one is most of what a first call takes. */
const secrets = Object.fromEntries(requiredSecrets.map((key) => [`homestead:${key}`, secretOf(key)]));

/** A trial that runs. */
async function begun(lists: Lists = {}) {
  const made = clone({ dev: secrets });
  const cluster = await fakeCluster(lists);
  await made.tryIt(["--yes"], { KUBECONFIG: cluster.kubeconfig });
  (lists.namespaces ??= []).push(namespaceOf("dev"));
  return { ...made, ...cluster, lists };
}

const readJson = (file: string) => JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>;

/** A folder with programs that do what the given shell code says. */
function programs(code: Record<string, string>): string {
  const folder = temporaryFolder();
  for (const [name, text] of Object.entries(code)) {
    fs.writeFileSync(path.join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  return folder;
}

/** A machine with Docker and a k3d, whose cluster is the one of a kubeconfig; a file in its home says that it is there. */
function k3dMachine(environment: NodeJS.ProcessEnv, kubeconfig: string) {
  const file = path.join(temporaryFolder(), "k3d.log");
  fs.writeFileSync(file, "");
  const tools = programs({
    docker: "exit 0",
    k3d: `echo "$@" >> ${file}
[ "$1 $2" != "$FAKE_K3D_FAILS" ] || exit 1
case "$1 $2" in
  "cluster get") [ -f "$HOME/k3d" ] ;;
  "cluster create") touch "$HOME/k3d" ;;
  "cluster delete") rm "$HOME/k3d" ;;
  "kubeconfig merge") mkdir -p "$HOME/.kube" && cp ${kubeconfig} "$HOME/.kube/config" ;;
esac`,
  });
  const machine = { PATH: [tools, environment.PATH].join(path.delimiter), HOME: environment.HOME ?? "" };
  return { machine, log: () => fs.readFileSync(file, "utf8") };
}

/** What is changed in the cluster when a trial's namespace goes. */
const emptied = [
  "DELETE /api/v1/namespaces/homestead",
  "DELETE /api/v1/namespaces/homestead/pods?gracePeriodSeconds=5",
];

describe("the script ./try", () => {
  /** What it asks of npm, in a clone whose node_modules holds the given files. */
  const asked = (files: string[]): string => {
    const folder = temporaryFolder();
    fs.copyFileSync(path.resolve(__dirname, "..", "try"), path.join(folder, "try"));
    fs.mkdirSync(path.join(folder, "node_modules", ".bin"), { recursive: true });
    for (const name of files) fs.writeFileSync(path.join(folder, "node_modules", name), "");
    const PATH = `${programs({ npm: 'echo "npm $*"', node: "echo started" })}${path.delimiter}${process.env.PATH ?? ""}`;
    return execFileSync(path.join(folder, "try"), { encoding: "utf8", env: { PATH }, stdio: "pipe" });
  };

  it("installs where an earlier npm ci was killed midway, what only development needs too", () => {
    expect(asked([])).toBe("npm ci --include=dev\nstarted\n");
  });

  it("installs nothing where npm ci has ended", () => {
    expect(asked([".package-lock.json"])).toBe("started\n");
  });
});

describe("./try", () => {
  it("brings the stack dev up on the current context's cluster, and tells how to get in", async () => {
    const { folder, tryIt, stacks, commands, stackFile } = clone();
    const { kubeconfig } = await fakeCluster();
    const committed = fs.readFileSync(path.join(folder, "Pulumi.dev.yaml"), "utf8");
    const said = await tryIt(["--yes", "--set", "locale=de"], { KUBECONFIG: kubeconfig });

    const password = stacks().dev?.["homestead:ownerPassword"] ?? "";
    expect(password).toHaveLength(24);
    expect(said).toContain("  handle    @user@ramble.localhost\n");
    expect(said).toContain("  web       https://mastodon.ramble.localhost\n");
    expect(said).toContain("  log in    user@ramble.localhost\n");
    expect(said).toContain(`  password  ${password}\n`);
    expect(said).toContain("  192.0.2.7 ramble.localhost mastodon.ramble.localhost\n");
    expect(said).toContain(
      "  curl --cacert .state/authority.pem --resolve mastodon.ramble.localhost:443:192.0.2.7 https://mastodon.ramble.localhost/api/v2/instance\n",
    );
    expect(said).toMatch(/To remove it all: \.\/try --destroy\n$/);

    const keys = requiredSecrets.map((key) => `homestead:${key}`);
    expect(Object.keys(stacks().dev ?? {}).sort()).toEqual(keys.sort());
    expect(stackFile().config).toMatchObject({
      "homestead:cluster": { context: "trial", kubeconfig, uid: "cluster-1" },
      "homestead:ingress": { address: "192.0.2.7" },
      "homestead:locale": "de",
    });
    const file = path.join(folder, ".state", "Pulumi.dev.yaml");
    expect(commands()).toContain(`up --yes --skip-preview --stack dev --config-file ${file} --non-interactive`);
    expect(fs.readFileSync(path.join(folder, "Pulumi.dev.yaml"), "utf8")).toBe(committed);
    expect(fs.statSync(path.join(folder, ".state", "passphrase")).mode & 0o777).toBe(0o600);
    expect(fs.statSync(path.join(folder, ".state")).mode & 0o777).toBe(0o700);
    for (const value of Object.values(stacks().dev ?? {})) expect(commands().join("\n")).not.toContain(value);
  });

  it("keeps secrets and passphrase when it is called again: the database was made with them", async () => {
    const { folder, tryIt, stacks, stackFile } = clone();
    const { kubeconfig } = await fakeCluster();
    const once = async (args: string[]) => {
      await tryIt(["-y", ...args], { KUBECONFIG: kubeconfig });
      return [stacks().dev, fs.readFileSync(path.join(folder, ".state", "passphrase"), "utf8")];
    };
    expect(await once(["--set", "locale=de"])).toEqual(await once([]));
    expect(stackFile().config).not.toHaveProperty("homestead:locale");
  });

  it("asks before it uses a cluster, and does nothing without a yes", async () => {
    const { folder, tryIt, commands } = clone();
    const { kubeconfig, server, changes } = await fakeCluster();
    for (const answer of ["", "n", "yeah"]) {
      expect(await tryIt([], { KUBECONFIG: kubeconfig }, answer)).toBe(
        `Use the cluster of your current context 'trial' (${server})? It gets the namespace homestead, and operators where they are missing. [y/N] \nNothing was done.\n`,
      );
    }
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
    expect([changes, commands().filter((command) => !command.startsWith("version"))]).toEqual([[], []]);
    expect(await tryIt([], { KUBECONFIG: kubeconfig }, "y")).toContain("Your server is running.");
  });

  it("does nothing where nobody answers, and says how to do without", async () => {
    const { tryIt } = clone();
    const { kubeconfig } = await fakeCluster();
    await expect(tryIt([], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      new UserError("nothing was done, since nobody answers here: --yes says it beforehand"),
    );
  });

  it("asks nothing and makes nothing where an override is wrong", async () => {
    const { tryIt, commands } = clone();
    await expect(tryIt(["--set", "owner=a-b"])).rejects.toThrow(
      "mend:    ./try --set owner=<value>, in place of --set owner=a-b",
    );
    expect(commands()).toEqual([]);
  });

  it("tells the program which values are the trial's own", async () => {
    const { tryIt, environment } = clone();
    const { kubeconfig } = await fakeCluster();
    const log = path.join(temporaryFolder(), "environment");
    const pulumi = onPath("pulumi", environment);
    const PATH = [
      programs({ pulumi: `[ "$1" != up ] || echo "$HOMESTEAD_TRIAL" > ${log}\nexec ${pulumi} "$@"` }),
      environment.PATH,
    ].join(path.delimiter);
    await tryIt(["--yes", "--set", "locale=de"], { KUBECONFIG: kubeconfig, PATH });
    expect(JSON.parse(fs.readFileSync(log, "utf8"))).toEqual({ locale: "--set locale=de" });
  });

  it("tells the address that the user gave, or one that a load balancer's name stands for", async () => {
    const { tryIt } = clone();
    const status = { loadBalancer: { ingress: [{ hostname: "localhost" }] } };
    const named = await fakeCluster({ services: [{ ...traefik, status }] });
    const on = { KUBECONFIG: named.kubeconfig };
    expect(await tryIt(["--yes"], on)).toMatch(/^ {2}(127\.0\.0\.1|::1) ramble\.localhost/m);
    expect(await tryIt(["--yes", "--set", "ingress.address=192.0.2.9"], on)).toContain(
      " --resolve mastodon.ramble.localhost:443:192.0.2.9 ",
    );
  });

  it("says what is missing and shows the plan where there is no cluster, which is no fault", async () => {
    const { folder, tryIt, commands } = clone();
    expect(await tryIt(["--yes"])).toBe(
      "dev\n\nhandle  ramble.localhost\n\n" +
        "That is the plan; npx homestead plan dev writes it out. To bring it up, this is missing:\n" +
        "  - a cluster: a kubectl context that answers, or Docker and k3d (https://k3d.io) to make one\n",
    );
    expect(commands()).toEqual(["version --non-interactive"]);
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
  });

  it("takes a context whose server does not answer for none, and a broken CLI too", async () => {
    const { tryIt } = clone();
    const PATH = [programs({ pulumi: "exit 1" }), process.env.PATH].join(path.delimiter);
    expect(await tryIt(["--yes"], { KUBECONFIG: kubeconfigFor("http://127.0.0.1:1"), PATH })).toContain(
      "  - the Pulumi CLI: https://www.pulumi.com/docs/install/ (or npx, which can fetch it)\n  - a cluster: a kubectl context that answers " +
        "(your current one, 'trial' at http://127.0.0.1:1, does not), or",
    );
  });

  it("takes a context whose cluster is gone from the kubeconfig for none, and says so", async () => {
    const { tryIt, environment } = clone();
    const KUBECONFIG = kubeconfigFor("http://127.0.0.1:1");
    fs.writeFileSync(KUBECONFIG, JSON.stringify({ ...readJson(KUBECONFIG), clusters: [] }));
    expect(await tryIt(["--yes"], { KUBECONFIG })).toContain(
      `  - a cluster: a kubectl context that answers (your current one, 'trial', names a cluster that is not in ${KUBECONFIG}: ` +
        "kubectl config use-context <context>), or Docker and k3d (https://k3d.io) to make one\n",
    );
    await expect(tryIt(["--destroy"], { KUBECONFIG })).rejects.toThrow(/^nothing to remove: \.state has no trial$/);
    const { machine } = k3dMachine(environment, KUBECONFIG);
    expect(await tryIt([], { ...machine, KUBECONFIG }, "n")).toBe(
      "No kubectl context answers. Make a k3d cluster 'homestead' for it? [y/N] \nNothing was done.\n",
    );
  });

  it("takes a CLI that is too old for the project for none", async () => {
    const { tryIt } = clone();
    const PATH = [programs({ pulumi: "echo v3.100.0" }), process.env.PATH].join(path.delimiter);
    expect(await tryIt(["--yes"], { PATH })).toContain(
      "  - a Pulumi CLI >=3.231.0, and this one is v3.100.0: https://www.pulumi.com/docs/install/\n",
    );
  });

  it("makes a k3d cluster where there is Docker and no cluster, and deletes it again", async () => {
    const { folder, tryIt, environment } = clone();
    const { kubeconfig } = await fakeCluster();
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfig, "utf8").replaceAll('"trial"', '"k3d-homestead"'));
    const { log, machine } = k3dMachine(environment, kubeconfig);
    const said = await tryIt([], machine, "y");
    expect(said).toMatch(/^No kubectl context answers\. Make a k3d cluster 'homestead' for it\? \[y\/N\] \n/);
    expect(said).toContain("Your server is running.");
    expect(said).toMatch(/^ {2}127\.0\.0\.1 \S+/m);
    expect(log()).toContain("cluster create homestead --wait --port 80:80@loadbalancer --port 443:443@loadbalancer\n");

    expect(await tryIt(["--destroy", "--yes"], machine)).toBe("It is gone.\n");
    expect(log()).toMatch(/cluster delete homestead\n$/);
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
  });

  it("waits for what k3s makes once it has started, on a cluster of its own", async () => {
    const { tryIt, environment } = clone();
    const late = (item: object) => {
      let asked = 0;
      return () => ({ items: asked++ === 0 ? [] : [item] });
    };
    const { kubeconfig } = await fakeCluster({
      others: {
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": late({
          metadata: { name: "ingressroutes.traefik.io" },
        }),
        "/apis/storage.k8s.io/v1/storageclasses": late(storageClass("local-path", "default")),
      },
    });
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfig, "utf8").replaceAll('"trial"', '"k3d-homestead"'));
    const { machine } = k3dMachine(environment, kubeconfig);
    const said = await tryIt(["--yes"], machine);
    expect(said).toContain("Waiting for Traefik and a storage class, which k3s makes once it has started.\n");
    expect(said).toContain("Your server is running.");
    // It was there from the first question.
    expect(await tryIt(["--yes"], machine)).not.toContain("Waiting");
  });

  it("starts the k3d cluster that its trial is on", async () => {
    const { tryIt, environment } = clone();
    const { kubeconfig } = await fakeCluster();
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfig, "utf8").replaceAll('"trial"', '"k3d-homestead"'));
    const { log, machine } = k3dMachine(environment, kubeconfig);
    await tryIt(["--yes"], machine);
    fs.rmSync(path.join(machine.HOME, ".kube"), { recursive: true });
    expect(await tryIt([], machine, "y")).toMatch(
      /^No kubectl context answers\. Start and use the k3d cluster 'homestead' for it\? \[y\/N\] \n/,
    );
    expect(log()).toContain("cluster start homestead\n");
  });

  it("takes back a k3d cluster that was ended half-made", async () => {
    const { folder, tryIt, environment } = clone();
    const { kubeconfig } = await fakeCluster();
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfig, "utf8").replaceAll('"trial"', '"k3d-homestead"'));
    const { log, machine } = k3dMachine(environment, kubeconfig);
    const broken = { ...machine, FAKE_K3D_FAILS: "kubeconfig merge" };
    await expect(tryIt(["--yes"], broken)).rejects.toThrow("kubectl config use-context k3d-homestead");
    expect(await tryIt(["--destroy"], machine, "n")).toContain("Remove the k3d cluster 'homestead', for good?");
    expect(await tryIt([], machine, "n")).toBe(
      "No kubectl context answers. Delete and make anew the k3d cluster 'homestead', which an earlier call left half-made? [y/N] \nNothing was done.\n",
    );
    expect(await tryIt([], machine, "y")).toContain("Your server is running.");
    expect(log().match(/^cluster (create|delete|start)/gm)).toEqual([
      "cluster create",
      "cluster delete",
      "cluster create",
    ]);

    // Gone behind its back: the trial was on it.
    expect(await tryIt(["--yes"], machine)).toContain("Your server is running.");
    fs.rmSync(path.join(machine.HOME, ".kube"), { recursive: true });
    fs.rmSync(path.join(machine.HOME, "k3d"));
    await expect(tryIt(["--yes"], machine)).rejects.toThrow(
      "the k3d cluster 'homestead' that the trial was on is gone: ./try --destroy, which forgets it, then ./try again",
    );
    expect(await tryIt(["--destroy", "--yes"], machine)).toBe("It is gone.\n");
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
  });

  it("says which ports a k3d cluster needs, and keeps no mark of one that k3d could not make", async () => {
    const { folder, tryIt, environment } = clone();
    const { machine } = k3dMachine(environment, "/nowhere");
    await expect(tryIt(["--yes"], { ...machine, FAKE_K3D_FAILS: "cluster create" })).rejects.toThrow(
      "k3d cluster create homestead failed: see above; it takes ports 80 and 443 of this machine, which have to be free",
    );
    expect(fs.existsSync(path.join(folder, ".state", "k3d"))).toBe(false);
  });

  it("removes the server from a cluster of somebody's, though it has once made one of its own", async () => {
    const { folder, tryIt, environment, kubeconfig, commands } = await begun();
    const { log, machine } = k3dMachine(environment, kubeconfig);
    fs.writeFileSync(path.join(folder, ".state", "k3d"), "homestead\n");
    fs.writeFileSync(path.join(machine.HOME, "k3d"), "");
    expect(await tryIt(["--destroy", "--yes"], machine)).toContain("Removing the server from 'trial'");
    expect(commands().at(-1)).toMatch(/^destroy /);
    expect(log()).toMatch(/cluster delete homestead\n$/);
  });

  it("passes secrets from a file on to the CLI's standard input, and into no file of its own", async () => {
    const { folder, tryIt, stacks, commands } = clone();
    const { kubeconfig } = await fakeCluster();
    const file = path.join(temporaryFolder(), "mine.yaml");
    fs.writeFileSync(file, "smtpPassword: from-a-file\nhomestead:sizes: {database: 1Gi}\n");
    await tryIt(["--yes", "--config", file], { KUBECONFIG: kubeconfig });
    expect(stacks().dev?.["homestead:smtpPassword"]).toBe("from-a-file");
    expect(commands().join("\n")).not.toContain("from-a-file");
    expect(fs.readFileSync(path.join(folder, ".state", "Pulumi.dev.yaml"), "utf8")).not.toContain("from-a-file");
  });

  it("removes what was made, the namespace with its data too", async () => {
    const { folder, tryIt, commands, changes } = await begun();
    expect(await tryIt(["--destroy"], {}, "n")).toBe(
      "Remove the server on 'trial', its data and the namespace homestead, for good? [y/N] \nNothing was done.\n",
    );
    expect(changes).toEqual([]);

    expect(await tryIt(["--destroy", "--yes"])).toBe(`${removing}It is gone.\n`);
    expect(commands().some((command) => command.startsWith("destroy --yes --skip-preview --stack dev"))).toBe(true);
    expect(changes).toEqual(emptied);
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
    await expect(tryIt(["--destroy"])).rejects.toThrow("nothing to remove: .state has no trial");
  });

  it("refuses a cluster without Traefik before it changes anything", async () => {
    const { tryIt, commands } = clone();
    const { kubeconfig } = await fakeCluster({ definitions: [] });
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      "the cluster has no Traefik (no custom resources of traefik.io/v1alpha1). k3s and k3d bring it; elsewhere: " +
        "helm install traefik traefik --repo https://traefik.github.io/charts --namespace kube-system",
    );
    expect(commands()).toEqual(["version --non-interactive"]);
  });

  it("tells in a line what the API server refuses", async () => {
    const { tryIt } = clone();
    const { kubeconfig } = await fakeCluster({ forbidden: ["/apis/apps/v1/deployments"] });
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      new UserError(
        "the cluster's API server: no right to /apis/apps/v1/deployments; a trial needs the rights of cluster-admin; choose a context that has them (kubectl config use-context <context>)",
      ),
    );
  });

  it("tells in a line that the API server does not know one any more", async () => {
    const { tryIt } = clone();
    const { kubeconfig } = await fakeCluster({ knows: "nobody" });
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      new UserError(
        "the cluster's API server: Unauthorized; log in to the cluster anew, then the same again (kubectl get namespaces shows whether it takes you)",
      ),
    );
  });

  it("is one command: it reads answers from the terminal, and tells a fault in one line", async () => {
    const { folder, environment } = clone();
    const { kubeconfig } = await fakeCluster();
    const script = (args: string[], input: string) =>
      run(path.join(folder, "try"), args, { folder, environment: { ...environment, KUBECONFIG: kubeconfig }, input });
    expect(await script([], "n\n")).toMatchObject({
      code: 0,
      stderr: "",
      stdout: expect.stringMatching(/Nothing was done\.\n$/) as string,
    });
    expect(await script(["--set", "locale"], "")).toEqual({
      code: 1,
      stdout: "",
      stderr: "--set locale: key=value, such as --set locale=de\n",
    });
  });
});

describe("a second call", () => {
  it("may not move the trial to another namespace, where its data would stay behind", async () => {
    const { tryIt, kubeconfig, commands } = await begun();
    await expect(tryIt(["--yes", "--set", "namespace=mine"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      new UserError(
        "the trial is in namespace 'homestead', and cannot move to 'mine': ./try --set namespace=homestead, or ./try --destroy first",
      ),
    );
    expect(commands().filter((command) => command.startsWith("up "))).toHaveLength(1);
  });

  it("is told which context the trial is on, where the current one leads to another cluster", async () => {
    const { tryIt, stackFile } = await begun();
    const { kubeconfig } = await fakeCluster({ uid: "cluster-2" });
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfig, "utf8").replaceAll('"trial"', '"work"'));
    await expect(tryIt([], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      new UserError(
        "the trial is on the cluster of context 'trial', and your current context 'work' leads to another: kubectl config use-context trial, then ./try again; or ./try --destroy, which removes it there; if that cluster is gone for good: rm -r .state",
      ),
    );
    expect(stackFile().config).toMatchObject({ "homestead:cluster": { context: "trial" } });
  });

  it("breaks the lock of an update that was killed, and none of one that is at work", async () => {
    const { folder, tryIt, kubeconfig } = await begun();
    const locks = path.join(folder, ".state", ".pulumi", "locks", "organization", "homestead", "dev");
    fs.mkdirSync(locks, { recursive: true });
    const lock = (pid: number, hostname = os.hostname()) => {
      const content = { pid, hostname, username: "me", timestamp: "2026-11-22T10:00:00Z" };
      fs.writeFileSync(path.join(locks, "a.json"), JSON.stringify(content));
      return tryIt(["--yes"], { KUBECONFIG: kubeconfig });
    };
    await expect(lock(process.pid)).rejects.toThrow(
      new UserError(
        `Pulumi is at work on this trial (process ${process.pid} of ${os.hostname()}, since 2026-11-22T10:00:00Z): wait for its end, then the same again; if that is no pulumi: rm .state/.pulumi/locks/organization/homestead/dev/a.json`,
      ),
    );
    await expect(lock(1, "elsewhere")).rejects.toThrow("process 1 of elsewhere");
    const { pid = 0 } = spawnSync("true");
    expect(await lock(pid)).toContain("Your server is running.");
    expect(fs.readdirSync(locks)).toEqual([]);
  });

  it("makes secrets that belong together anew where the first call was ended between them", async () => {
    const { tryIt, stacks, environment, kubeconfig } = await begun();
    const before = stacks().dev ?? {};
    const folder = path.join(environment.FAKE_PULUMI_STATE ?? "", "dev");
    for (const key of ["mediaSecretAccessKey", "vapidPublicKey"]) fs.rmSync(path.join(folder, `homestead:${key}`));
    await tryIt(["--yes"], { KUBECONFIG: kubeconfig });
    const { "homestead:databasePassword": password, ...after } = stacks().dev ?? {};
    expect(password).toBe(before["homestead:databasePassword"]);
    expect(after["homestead:vaultSecretAccessKey"]).toBe(after["homestead:mediaSecretAccessKey"]);
    expect(after["homestead:vaultAccessKeyId"]).toBe(after["homestead:mediaAccessKeyId"]);
    const [vapidPrivateKey, vapidPublicKey] = ["Private", "Public"].map((kind) => after[`homestead:vapid${kind}Key`]);
    expect(identityFaults({ vapidPrivateKey, vapidPublicKey })).toEqual([]);
    expect(vapidPublicKey).toBeDefined();
  });

  it("says how to go on where Pulumi fails", async () => {
    const { tryIt, kubeconfig } = await begun();
    const on = { KUBECONFIG: kubeconfig };
    await expect(tryIt(["--yes"], { ...on, ...failing({ "up ": "no" }) })).rejects.toThrow(
      "pulumi up --stack dev failed: see above; ./try again goes on from there, and ./try --destroy removes what there is",
    );
    await expect(tryIt(["--yes", "--destroy"], failing({ "destroy ": "no" }))).rejects.toThrow(
      "pulumi destroy --stack dev failed: see above; ./try --destroy again goes on from there",
    );
  });
});

describe("a trial whose .state is lost", () => {
  const lost =
    "the cluster of context 'trial' has a trial in namespace 'homestead', and .state knows of none: put that .state back, or remove the server with its data: kubectl --context trial delete namespace homestead";
  const labels = { "app.kubernetes.io/part-of": "homestead" };
  const operators = [
    { metadata: { name: "cert-manager", namespace: "cert-manager" }, spec: { selector: {}, template: {} } },
    { metadata: { name: "cnpg-controller-manager", namespace: "cnpg-system" }, spec: { selector: {}, template: {} } },
    { metadata: { name: "barman-cloud", namespace: "cnpg-system" }, spec: { selector: {}, template: {} } },
  ];
  const namespaces = () => ["cert-manager", "cnpg-system"].map((name) => ({ metadata: { name, labels } }));
  const existing = { certManager: "existing", cloudNativePg: "existing", barmanPlugin: "existing" };

  it("is told from a cluster without one, before anybody is asked and anything is written", async () => {
    const { folder, tryIt, commands } = clone();
    const { kubeconfig, changes } = await fakeCluster({ namespaces: [namespaceOf("dev")] });
    const on = { KUBECONFIG: kubeconfig };
    await expect(tryIt([], on)).rejects.toThrow(new UserError(`${lost}; then ./try again`));
    await expect(tryIt(["--destroy"], on)).rejects.toThrow(
      new UserError(`nothing to remove: .state has no trial, but ${lost}`),
    );
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
    expect([changes, commands()]).toEqual([[], ["version --non-interactive"]]);
  });

  it("left operators, which the next one uses and leaves as they are", async () => {
    const { tryIt, stackFile } = clone();
    const { kubeconfig } = await fakeCluster({ deployments: operators, namespaces: namespaces() });
    const on = { KUBECONFIG: kubeconfig };
    for (let call = 1; call <= 2; call++) {
      await tryIt(["--yes"], on);
      expect(stackFile().config["homestead:operators"]).toEqual(existing);
    }
    expect(await tryIt(["--yes", "--destroy"], on)).toMatch(
      /It is gone\.\n\nOperators stay that another trial or site had installed \(its \.state may be lost\)\. If nobody uses them:\n\n {2}helm --kube-context trial uninstall --namespace cnpg-system plugin-barman-cloud\n {2}helm --kube-context trial uninstall --namespace cnpg-system cloudnative-pg\n {2}helm --kube-context trial uninstall --namespace cert-manager cert-manager\n {2}kubectl --context trial delete namespace cnpg-system cert-manager\n$/,
    );
  });

  it("is none whose .state is there: it keeps the operators that it has made", async () => {
    const { tryIt, stackFile, kubeconfig, lists } = await begun();
    lists.namespaces?.push(...namespaces());
    lists.deployments = operators;
    await tryIt(["--yes"], { KUBECONFIG: kubeconfig });
    expect(stackFile().config).not.toHaveProperty("homestead:operators");
  });
});

describe("a trial whose namespace somebody deleted", () => {
  it("is made anew, after a look at the cluster", async () => {
    const { tryIt, commands, kubeconfig, lists } = await begun();
    const ups = () => commands().filter((command) => command.startsWith("up "));
    await tryIt(["--yes"], { KUBECONFIG: kubeconfig });
    lists.namespaces?.pop();
    expect(await tryIt(["--yes"], { KUBECONFIG: kubeconfig })).toContain(
      "\nThere is no namespace homestead on trial, though .state has a trial there: Pulumi looks at the cluster first, and makes what is missing.\n",
    );
    const refreshed = ups().map((command) => command.includes("--refresh --run-program --stack dev"));
    expect(refreshed).toEqual([false, false, true]);
  });

  it("goes, after a look at the cluster", async () => {
    const { folder, tryIt, commands, lists, changes } = await begun();
    lists.namespaces?.pop();
    expect(await tryIt(["--destroy", "--yes"])).toBe(`${removing}It is gone.\n`);
    expect(commands().at(-1)).toContain("destroy --yes --skip-preview --refresh --stack dev");
    expect(changes).toEqual(emptied);
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
  });

  it("is waited for while it ends", async () => {
    const { tryIt, commands, kubeconfig, lists } = await begun({ lingers: 4 });
    const [namespace] = lists.namespaces ?? [];
    if (namespace) namespace.metadata.deletionTimestamp = "2026-11-22T10:00:00Z";
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      "namespace 'homestead' of context 'trial' is being deleted: kubectl --context trial wait --for=delete namespace/homestead --timeout=10m, then ./try again",
    );
    expect(await tryIt(["--destroy", "--yes"])).toContain("namespace homestead is being deleted, 0 s\n");
    expect(commands().at(-1)).toContain("destroy --yes --skip-preview --refresh --stack dev");
    expect(lists.namespaces).toEqual([]);
  });
});

describe("the end of a trial", () => {
  const definitions = [
    "ingressroutes.traefik.io",
    "certificates.cert-manager.io",
    "orders.acme.cert-manager.io",
    "bundles.trust.cert-manager.io",
    "clusters.postgresql.cnpg.io",
    "objectstores.barmancloud.cnpg.io",
  ];
  const empty = () => ({ items: [] });
  const kinds = (one: () => object = empty): Record<string, () => object> => ({
    "/apis/cert-manager.io/v1/certificates": one,
    "/apis/acme.cert-manager.io/v1/orders": empty,
    "/apis/postgresql.cnpg.io/v1/clusters": empty,
    "/apis/barmancloud.cnpg.io/v1/objectstores": empty,
  });

  it("says what is waited for, and which definitions stay and why", async () => {
    const { tryIt, lists } = await begun({ lingers: 2, definitions, others: kinds() });
    const conditions = [
      {
        type: "NamespaceContentRemaining",
        status: "True",
        message: "Some resources are remaining: pods. has 5 resource instances",
      },
      { type: "NamespaceDeletionContentFailure", status: "False", message: "All content successfully deleted" },
    ];
    for (const namespace of lists.namespaces ?? []) namespace.status = { phase: "Terminating", conditions };
    expect(await tryIt(["--destroy", "--yes"])).toBe(
      removing +
        "namespace homestead is being deleted, 0 s: pods. has 5 resource instances\n" +
        "It is gone.\n\n" +
        "4 custom resource definitions of its operators stay: with a definition goes every object of its kind on the\n" +
        "cluster, whoever made it. There is no such object now.\n" +
        "If nobody else is to use them:\n\n" +
        "  kubectl --context trial delete crd certificates.cert-manager.io orders.acme.cert-manager.io clusters.postgresql.cnpg.io objectstores.barmancloud.cnpg.io\n",
    );
  });

  it("calls no definition free that somebody's object is of, or that does not answer", async () => {
    const others = kinds(() => ({ items: [{}] }));
    Reflect.deleteProperty(others, "/apis/acme.cert-manager.io/v1/orders");
    const { tryIt } = await begun({ definitions, others });
    const said = await tryIt(["--destroy", "--yes"]);
    expect(said).toContain(
      "There are still objects of these: certificates.cert-manager.io, orders.acme.cert-manager.io.\nIf nobody else is to use the others:\n\n  kubectl --context trial delete crd clusters.postgresql.cnpg.io objectstores.barmancloud.cnpg.io\n",
    );
  });

  it("says nothing of the definitions of an operator that runs", async () => {
    const spec = { selector: {}, template: {} };
    const { tryIt, lists } = await begun({ definitions, others: kinds() });
    lists.deployments = [{ metadata: { name: "cert-manager", namespace: "cert-manager" }, spec }];
    expect(await tryIt(["--destroy", "--yes"])).toMatch(
      /\n2 custom resource definitions .* delete crd clusters\.postgresql\.cnpg\.io objectstores\.barmancloud\.cnpg\.io\n$/s,
    );
  });

  it("leaves pods no time to bring to safety what is to go", async () => {
    const { kubeconfig, server, changes } = await fakeCluster({ namespaces: [namespaceOf("dev")] });
    const cluster = new Cluster({ name: "trial", file: kubeconfig, server });
    await cluster.deleteNamespace("homestead", () => undefined);
    expect(changes).toEqual(emptied);
  });

  it("is the same command again where the namespace does not end", async () => {
    const { kubeconfig, server } = await fakeCluster({ namespaces: [namespaceOf("dev")], lingers: 99 });
    const cluster = new Cluster({ name: "trial", file: kubeconfig, server });
    await expect(cluster.deleteNamespace("homestead", () => undefined, 0)).rejects.toThrow(
      /^namespace homestead is still there after \d+ s: kubectl --context trial describe namespace homestead says why; \.\/try --destroy again goes on from there$/,
    );
  });
});

describe("a signal while Pulumi is at work", () => {
  const goOn =
    "Stopped before its end. ./try goes on from there, with the same options; ./try --destroy removes what there is.";
  const goOnRemoving = "Stopped before its end. ./try --destroy goes on from there.";

  /** `./try` at a terminal of its own, told to end while a Pulumi that needs two seconds for that is at work. */
  async function ended(work: "up" | "destroy", whom: "the group" | "it alone", ...told: NodeJS.Signals[]) {
    const { folder, environment, commands, kubeconfig } = await begun();
    const env = { ...environment, KUBECONFIG: kubeconfig, ...working(work) };
    const args = work === "up" ? ["--yes"] : ["--yes", "--destroy"];
    const child = spawn(path.join(folder, "try"), args, { cwd: folder, env, detached: true });
    const pid = child.pid ?? 0;
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const exit = new Promise<number | null>((resolve) => child.on("exit", resolve));
    await vi.waitUntil(() => commands().includes("at work"), { timeout: 60_000 });
    for (const signal of told) process.kill(whom === "the group" ? -pid : pid, signal);
    const code = await exit;
    const stopped = stdout.endsWith("stopped\n");
    return { code, stopped, stderr, told: commands().filter((line) => line.startsWith("told")) };
  }

  it.each<[string, "up" | "destroy", "the group" | "it alone", NodeJS.Signals[], object]>([
    ["Ctrl-C", "up", "the group", ["SIGINT"], { code: 130, stderr: `${goOn}\n`, told: ["told SIGINT"] }],
    ["kill", "up", "it alone", ["SIGTERM"], { code: 143, stderr: `${goOn}\n`, told: ["told SIGTERM"] }],
    // To the process, and then to its group.
    ["timeout", "up", "the group", ["SIGTERM", "SIGTERM"], { code: 143, told: ["told SIGTERM"] }],
    ["a closed terminal", "up", "the group", ["SIGHUP"], { code: 129, told: ["told SIGTERM"] }],
    ["Ctrl-C", "destroy", "the group", ["SIGINT"], { code: 130, stderr: `${goOnRemoving}\n`, told: ["told SIGINT"] }],
  ])("%s lets %s come to an end, and says how to go on", async (_what, work, whom, signals, outcome) => {
    expect(await ended(work, whom, ...signals)).toMatchObject({ stopped: true, ...outcome });
  });
});

describe("a cluster that is not the trial's", () => {
  /** A trial that runs; `then` is the cluster that its context leads to afterwards. */
  async function trialMovedTo(then: Lists) {
    const { kubeconfig, changes, ...made } = await begun();
    const before = { kubeconfig, changes };
    const after = await fakeCluster(then);
    fs.copyFileSync(after.kubeconfig, before.kubeconfig);
    const untouched = () => {
      expect([before.changes, after.changes]).toEqual([[], []]);
      expect(made.commands().some((command) => command.startsWith("destroy"))).toBe(false);
      expect(fs.existsSync(path.join(made.folder, ".state", "passphrase"))).toBe(true);
    };
    return { ...made, kubeconfig: before.kubeconfig, untouched };
  }

  it.each([
    ["another site's", "site 'home'", "home"],
    ["nobody's", "something else", undefined],
  ])("is refused where the namespace is %s, before anything is written", async (_whose, says, marker) => {
    const { folder, tryIt, commands } = clone();
    const { kubeconfig, changes } = await fakeCluster({ namespaces: [namespaceOf(marker)] });
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      `namespace 'homestead' of context 'trial' belongs to ${says}, and a trial ends with its deletion: choose another cluster (kubectl config use-context <context>), then ./try again`,
    );
    expect(fs.existsSync(path.join(folder, ".state"))).toBe(false);
    expect([changes, commands()]).toEqual([[], ["version --non-interactive"]]);
  });

  it("is told by the namespace that the trial is to have", async () => {
    const { tryIt } = clone();
    const { kubeconfig } = await fakeCluster({ namespaces: [namespaceOf("home"), namespaceOf("vps", "other")] });
    const on = { KUBECONFIG: kubeconfig };
    await expect(tryIt(["--yes", "--set", "namespace=other"], on)).rejects.toThrow("belongs to site 'vps'");
    expect(await tryIt(["--yes", "--set", "namespace=mine"], on)).toContain("Your server is running.");
  });

  it("loses nothing where the context's name leads to it by now", async () => {
    const { tryIt, untouched } = await trialMovedTo({ uid: "cluster-2", namespaces: [namespaceOf("dev")] });
    await expect(tryIt(["--destroy", "--yes"])).rejects.toThrow(
      "context 'trial' leads to cluster cluster-2, and the trial is on cluster-1: let it lead there again, then ./try --destroy; if that cluster is gone for good: rm -r .state",
    );
    untouched();
  });

  it("gets no second trial while the first one is there", async () => {
    const { tryIt, kubeconfig, stackFile, untouched } = await trialMovedTo({ uid: "cluster-2" });
    await expect(tryIt(["--yes"], { KUBECONFIG: kubeconfig })).rejects.toThrow(
      "context 'trial' leads to cluster cluster-2, and the trial is on cluster-1: ./try --destroy first; if that cluster is gone for good: rm -r .state",
    );
    expect(stackFile().config).toMatchObject({ "homestead:cluster": { uid: "cluster-1" } });
    untouched();
  });

  it.each([
    ["another site's", "site 'home'", "home"],
    ["nobody's", "something else", undefined],
  ])("keeps a namespace that is %s by now", async (_whose, says, marker) => {
    const { tryIt, untouched } = await trialMovedTo({ namespaces: [namespaceOf(marker)] });
    await expect(tryIt(["--destroy", "--yes"])).rejects.toThrow(
      `namespace 'homestead' of context 'trial' belongs to ${says}, and a trial ends with its deletion: to forget the trial and remove nothing, rm -r .state`,
    );
    untouched();
  });

  it("may be the one of a trial that never got as far as a namespace", async () => {
    const { tryIt, commands } = await trialMovedTo({});
    expect(await tryIt(["--destroy", "--yes"])).toBe(`${removing}It is gone.\n`);
    expect(commands().some((command) => command.startsWith("destroy"))).toBe(true);
  });

  it("cannot be told where the stack file does not say which one it is", async () => {
    const { folder, tryIt, untouched } = await trialMovedTo({ namespaces: [namespaceOf("dev")] });
    const file = path.join(folder, ".state", "Pulumi.dev.yaml");
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(/^ *uid:.*\n/m, ""));
    await expect(tryIt(["--destroy", "--yes"])).rejects.toThrow(
      ".state/Pulumi.dev.yaml does not say which cluster the trial is on: ./try once more, which writes it down, then ./try --destroy; if that cluster is gone for good: rm -r .state",
    );
    untouched();
  });

  it.each([
    ["does not answer", "http://127.0.0.1:1", "trial", "context 'trial' does not answer: "],
    ["has gone from the kubeconfig", "http://127.0.0.1:1", "other", "has no context 'trial'; it has other: "],
  ])("cannot be told where the context %s", async (_what, server, name, says) => {
    const { kubeconfig, tryIt, untouched } = await trialMovedTo({});
    fs.writeFileSync(kubeconfig, fs.readFileSync(kubeconfigFor(server), "utf8").replaceAll('"trial"', `"${name}"`));
    const destroyed = tryIt(["--destroy", "--yes"]);
    await expect(destroyed).rejects.toThrow(says);
    await expect(destroyed).rejects.toThrow(
      /: mend that, then \.\/try --destroy again; if that cluster is gone for good: rm -r \.state$/,
    );
    untouched();
  });
});

describe("what ./try finds out about a cluster", () => {
  const look = async (lists: Lists, ...given: Parameters<Cluster["look"]>) => {
    const { kubeconfig, server } = await fakeCluster(lists);
    return new Cluster({ name: "trial", file: kubeconfig, server }).look(...given);
  };

  it("is Traefik's address, namespace and labels", async () => {
    const spec = { type: "LoadBalancer", selector: { app: "traefik" } };
    const elsewhere = { ...traefik, metadata: { name: "traefik", namespace: "edge" }, spec };
    expect(await look({ services: [elsewhere] })).toEqual({
      uid: "cluster-1",
      address: "192.0.2.7",
      ingress: { namespace: "edge", labels: { app: "traefik" } },
      operators: {},
    });
  });

  it("is a load balancer's host name, where that is all it has", async () => {
    const status = { loadBalancer: { ingress: [{ hostname: "lb.example.net" }] } };
    expect((await look({ services: [{ ...traefik, status }] })).address).toBe("lb.example.net");
  });

  it("is a node's address where no load balancer has one, the external one first", async () => {
    const addresses = [
      { type: "InternalIP", address: "10.0.0.1" },
      { type: "Hostname", address: "node" },
    ];
    const node = (more: object[]) => ({ status: { addresses: [...addresses, ...more] } });
    expect((await look({ services: [], nodes: [node([])] })).address).toBe("10.0.0.1");
    expect((await look({ services: [], nodes: [node([{ type: "ExternalIP", address: "192.0.2.9" }])] })).address).toBe(
      "192.0.2.9",
    );
    await expect(look({ services: [] })).rejects.toThrow(
      "neither Traefik's Service nor a node of the cluster has an address: ./try --set ingress.address=<address>",
    );
  });

  it("is the default storage class where there is no local-path", async () => {
    expect((await look({ storageClasses: [storageClass("slow"), storageClass("fast", "default")] })).storageClass).toBe(
      "fast",
    );
    expect((await look({ storageClasses: [storageClass("only")] })).storageClass).toBe("only");
    expect(
      (await look({ storageClasses: [storageClass("x", "default"), storageClass("local-path")] })).storageClass,
    ).toBeUndefined();
    await expect(look({ storageClasses: [] })).rejects.toThrow(
      /^the cluster has no storage class, so nothing can keep data there/,
    );
  });

  const ours = { "app.kubernetes.io/part-of": "homestead" };
  const operatorsOf = (labels: Record<string, string>) => ({
    deployments: ["cert-manager", "cnpg-controller-manager", "barman-cloud"].map((name) => ({
      metadata: { name, namespace: name === "cert-manager" ? name : "cnpg-system" },
      spec: { selector: {}, template: {} },
    })),
    namespaces: ["cert-manager", "cnpg-system"].map((name) => ({ metadata: { name, labels } })),
  });

  it("is the operators that are there and not this trial's", async () => {
    const all = { certManager: "existing", cloudNativePg: "existing", barmanPlugin: "existing" };
    const operators = async (labels: Record<string, string>, before?: ExistingOperators) =>
      (await look(operatorsOf(labels), before)).operators;
    expect(await operators({}, {})).toEqual(all);
    expect(await operators(ours, {})).toEqual({});
    // A trial that was lost left them, or another clone's has them.
    expect(await operators(ours, undefined)).toEqual(all);
    expect(await operators(ours, { certManager: "existing" })).toEqual({ certManager: "existing" });
  });

  it("is what a lost trial left half-made, which would be in the way", async () => {
    const { namespaces } = operatorsOf(ours);
    await expect(look({ namespaces })).rejects.toThrow(
      "namespace 'cert-manager' of context 'trial' is what is left of a trial that .state does not know, without its operator: kubectl --context trial delete namespace cert-manager; then ./try again",
    );
    expect((await look({ namespaces }, {})).operators).toEqual({});
  });

  it("is not waited for longer than it takes k3s to make it", async () => {
    const { kubeconfig, server } = await fakeCluster({ definitions: [] });
    const said: string[] = [];
    const cluster = new Cluster({ name: "trial", file: kubeconfig, server });
    await cluster.settle((line) => said.push(line), 500);
    expect(said).toEqual(["Waiting for Traefik and a storage class, which k3s makes once it has started."]);
    await expect(cluster.look({})).rejects.toThrow(/^the cluster has no Traefik /);
  });

  it("is not asked for the address that the user gives", async () => {
    expect((await look({ services: [] }, {}, "192.0.2.9")).address).toBe("192.0.2.9");
  });
});

describe("CloudNativePG and its plugin, which finds it only in the same namespace", () => {
  const deployment = ([name, namespace]: [string, string]) => ({
    metadata: { name, namespace },
    spec: { selector: {}, template: {} },
  });
  const operatorsIn = async (...there: [string, string][]) => {
    const { kubeconfig, server } = await fakeCluster({ deployments: there.map(deployment) });
    return (await new Cluster({ name: "trial", file: kubeconfig, server }).look({})).operators;
  };

  it("may be in any namespace", async () => {
    const both = { cloudNativePg: "existing", barmanPlugin: "existing" };
    expect(await operatorsIn(["cnpg-cloudnative-pg", "databases"], ["barman-cloud", "databases"])).toEqual(both);
    expect(await operatorsIn(["cnpg-controller-manager", "cnpg-system"])).toEqual({ cloudNativePg: "existing" });
  });

  it("may be an earlier trial's beside somebody else's CloudNativePG: it is not taken for theirs", async () => {
    const [operator, plugin] = ["cnpg-controller-manager", "plugin-barman-cloud"].map((name) =>
      deployment([name, "cnpg-system"]),
    );
    const annotations = { "app.kubernetes.io/part-of": "homestead" };
    const own = { ...plugin, metadata: { ...plugin?.metadata, annotations } };
    const { kubeconfig, server } = await fakeCluster({ deployments: [{ ...operator }, own] });
    expect((await new Cluster({ name: "trial", file: kubeconfig, server }).look({})).operators).toEqual({
      cloudNativePg: "existing",
    });
  });

  it.each<[string, string, [string, string][]]>([
    ["CloudNativePG is in 'databases'", "its plugin would be in 'cnpg-system'", [["cloudnative-pg", "databases"]]],
    ["CloudNativePG would be in 'cnpg-system'", "its plugin is in 'databases'", [["barman-cloud", "databases"]]],
    [
      "CloudNativePG is in 'databases'",
      "its plugin is in 'cnpg-system'",
      [
        ["cloudnative-pg", "databases"],
        ["plugin-barman-cloud", "cnpg-system"],
      ],
    ],
  ])("are refused apart: %s, %s", async (operator, plugin, there) => {
    await expect(operatorsIn(...there)).rejects.toThrow(
      `the barman-cloud plugin works only in the operator's own namespace, but ${operator} and ${plugin}: install both in one (https://cloudnative-pg.io/plugin-barman-cloud/docs/installation), then ./try again`,
    );
  });
});

describe("currentContext", () => {
  it("is none without a kubeconfig", () => {
    expect(currentContext({ HOME: temporaryFolder() })).toBeUndefined();
    expect(currentContext({ KUBECONFIG: "/nowhere/config" })).toBeUndefined();
  });

  it("says which file is no kubeconfig, and what to do", () => {
    const file = path.join(temporaryFolder(), "config");
    fs.writeFileSync(file, "a: [");
    expect(() => currentContext({ KUBECONFIG: file })).toThrow(
      new RegExp(`^kubeconfig ${file} cannot be read: .+; mend it, or name another one: KUBECONFIG=<file> \\./try$`),
    );
  });

  it("is found in the file that has it, of several in $KUBECONFIG", () => {
    const first = kubeconfigFor("http://first");
    fs.writeFileSync(
      first,
      "apiVersion: v1\nkind: Config\ncurrent-context: trial\ncontexts: []\nclusters: []\nusers: []\n",
    );
    const second = kubeconfigFor("http://second");
    expect(currentContext({ KUBECONFIG: [first, second].join(path.delimiter) })).toEqual({
      name: "trial",
      file: second,
      server: "http://second",
    });
  });
});

describe("overrides", () => {
  const file = (text: string) => {
    const name = path.join(temporaryFolder(), "o.yaml");
    fs.writeFileSync(name, text);
    return name;
  };

  it("reach into objects by dots, with types inside and text at the top", () => {
    expect(
      readOverrides([
        "blog.kind=image",
        "blog.port=80",
        "archiveInterval=5",
        "kubernetes:x=y",
        "network.privateEgress=[10.0.0.0/8]",
      ]),
    ).toEqual({
      values: {
        "homestead:blog": { kind: "image", port: 80 },
        "homestead:archiveInterval": "5",
        "kubernetes:x": "y",
        "homestead:network": { privateEgress: ["10.0.0.0/8"] },
      },
      secrets: {},
      origins: {
        "blog.kind": "--set blog.kind=image",
        "blog.port": "--set blog.port=80",
        archiveInterval: "--set archiveInterval=5",
        "kubernetes:x": "--set kubernetes:x=y",
        "network.privateEgress": "--set network.privateEgress=[10.0.0.0/8]",
      },
    });
    const [first, second] = ["network.privateEgress[0]=10.0.0.5/32", "network.privateEgress[1]=10.0.0.6/32"];
    expect(readOverrides([first, second]).values).toEqual({
      "homestead:network": { privateEgress: ["10.0.0.5/32", "10.0.0.6/32"] },
    });
    expect(readOverrides(["network.privateEgress=[10.9.0.0/16]", second]).values).toEqual({
      "homestead:network": { privateEgress: ["10.9.0.0/16", "10.0.0.6/32"] },
    });
    expect(readOverrides(['dns={"kind":"manual"}']).values).toEqual({ "homestead:dns": { kind: "manual" } });
    expect(readOverrides(["dns.command=a=b c"]).values).toEqual({ "homestead:dns": { command: "a=b c" } });
  });

  it("come from a file of keys or a whole stack file, and the command line wins", () => {
    expect(readOverrides(["locale=de"], file("locale: fr\nowner: me\n")).values).toEqual({
      "homestead:locale": "de",
      "homestead:owner": "me",
    });
    expect(readOverrides([], file("config:\n  homestead:owner: me\n")).values).toEqual({ "homestead:owner": "me" });
  });

  it.each([
    ["--set =x: key=value, such as --set locale=de", () => readOverrides(["=x"])],
    [
      "--set network.privateEgress[1]=10.0.0.6/32: [0] is the next entry of what --set and --config give before; a list that is longer in Pulumi.dev.yaml is given as a whole, such as --set 'network.privateEgress=[10.0.0.5/32]'",
      () => readOverrides(["network.privateEgress[1]=10.0.0.6/32"]),
    ],
    [
      "--set homestead:smtpPassword: a secret, which others can read on a command line; put it into a file: --config <file>",
      () => readOverrides(["smtpPassword=x"]),
    ],
    [
      "--config /nowhere.yaml: ENOENT: no such file or directory, open '/nowhere.yaml'",
      () => readOverrides([], "/nowhere.yaml"),
    ],
  ])("are refused: %s", (message, read) => {
    expect(read).toThrow(message);
  });

  it("are refused where a file holds no keys", () => {
    const list = file("- a\n");
    expect(() => readOverrides([], list)).toThrow(`--config ${list}: keys and values, such as locale: de`);
  });
});

describe("a trial's stack file", () => {
  it("is the committed one with each layer over it, and a working configuration", () => {
    const folder = copyProject();
    const target = path.join(temporaryFolder(), "Pulumi.dev.yaml");
    writeStackFile(target, path.join(folder, "Pulumi.dev.yaml"), [
      {
        "homestead:cluster": { context: "trial" },
        "homestead:ingress": { address: "192.0.2.7", labels: { app: "traefik" } },
      },
      { "homestead:ingress": { labels: { other: "label" } }, "homestead:blog": { kind: "image", image: "a.b/c:1" } },
    ]);
    const { config } = readStackConfig(folder, "dev", secretOf, { configFile: target });
    expect(JSON.parse(config["homestead:ingress"] ?? "")).toEqual({ address: "192.0.2.7", labels: { other: "label" } });
    expect(JSON.parse(config["homestead:blog"] ?? "")).toEqual({ kind: "image", image: "a.b/c:1" });
    expect(JSON.parse(config["homestead:storage"] ?? "")).toMatchObject({ databases: "local-path" });
    expect(fs.statSync(target).mode & 0o777).toBe(0o600);
    expect(parseSettings({ stack: "dev", config, folder }).cluster.context).toBe("trial");
  });

  it("keeps the secrets and the salt that the CLI put in, and forgets earlier overrides", () => {
    const folder = temporaryFolder();
    const [committed, target] = [path.join(folder, "committed.yaml"), path.join(folder, "target.yaml")];
    fs.writeFileSync(committed, "config:\n  homestead:owner: user\n");
    fs.writeFileSync(
      target,
      "config:\n  homestead:locale: de\n  homestead:ownerPassword:\n    secure: v1:x\nencryptionsalt: v1:y\n",
    );
    writeStackFile(target, committed, [{ "homestead:apex": "a.b" }]);
    expect(parseYaml(fs.readFileSync(target, "utf8"))).toEqual({
      config: { "homestead:owner": "user", "homestead:apex": "a.b", "homestead:ownerPassword": { secure: "v1:x" } },
      encryptionsalt: "v1:y",
    });
  });
});
