import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, test } from "vitest";
import { mutations, verificationLines } from "./e2e/cases/mutations";
import { credentialsOf, keysIn, secretsBelow, secretsIn } from "./e2e/cases/secrets";
import { kindOf } from "./e2e/support/counting-proxy";
import { differences, tracesIn } from "./e2e/support/cluster";
import { childEnvironment, findEnvironment, imageOverrides } from "./e2e/support/environment";
import type { Environment } from "./e2e/support/environment";
import { Lab } from "./e2e/support/lab";
import { isFirst } from "./e2e/support/lock";
import { allOf, cleanUp, eventually, fewAtATime, fromNow, run, sleep, within } from "./e2e/support/processes";
import { diagnosis } from "./e2e/support/project";
import type { Project } from "./e2e/support/project";
import { fetchVia } from "./e2e/support/web";
import { forgivable, parseTotal, Report, sum, totalLine } from "./e2e/support/report";
import { minify } from "../lib/kit/kubeconfig";
import { curlOptions, mustBeOk, parseAnswer } from "./e2e/support/search-server";

describe("the end of a scenario", () => {
  test("ends what began since it did, and nothing that runs beside it", async () => {
    const beside = run("sleep", ["3"], { seconds: 20 });
    const before = fromNow();
    const own = run("sleep", ["60"], { seconds: 90 });
    await cleanUp(before);
    expect((await own).code).not.toBe(0);
    expect((await beside).code).toBe(0);
  }, 20_000);
});

describe("a report", () => {
  const collected = () => {
    const lines: string[] = [];
    return { lines, report: new Report((line) => lines.push(line)) };
  };
  const fails = (message: string) => () => {
    throw new Error(message);
  };

  test("counts a claim that holds and one that does not, one line each", async () => {
    const { lines, report } = collected();
    await report.check("one", () => undefined);
    await report.check("two", fails("expected this\n  got that"));
    expect(report.counts).toEqual({ passed: 1, failed: 1, skipped: 0 });
    expect(lines).toEqual([
      expect.stringMatching(/^ok {4}one \(0\.0 s\)$/),
      expect.stringMatching(/^FAILED two \(0\.0 s\): expected this \| got that$/),
    ]);
  });

  test("passes a control that fails for the reason given", async () => {
    const { report } = collected();
    await report.control("c", fails("HTTP 404"), /404/);
    expect(report.counts).toEqual({ passed: 1, failed: 0, skipped: 0 });
  });

  test("fails a control that passes, or fails for another reason", async () => {
    const { lines, report } = collected();
    await report.control("c", () => undefined, /404/);
    await report.control("d", fails("no such host"), /404/);
    expect(report.counts).toEqual({ passed: 0, failed: 2, skipped: 0 });
    expect(lines[0]).toContain("passed, although it must fail");
    expect(lines[1]).toContain("failed, but not because of /404/: no such host");
  });

  test("ends a run with the sums", () => {
    const tallies = [
      { passed: 2, failed: 0, skipped: 1 },
      { passed: 1, failed: 1, skipped: 0 },
    ];
    expect(totalLine(sum(tallies))).toBe("3 passed, 1 failed, 1 skipped");
    expect(parseTotal(`drill: ...\n${totalLine(sum(tallies))}\n`)).toEqual(sum(tallies));
    expect(parseTotal("Killed\n")).toBeUndefined();
  });
});

test("of two processes one comes to a scenario first", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "e2e-claims-"));
  expect([isFirst(folder, "try"), isFirst(folder, "try"), isFirst(folder, "doctor")]).toEqual([true, false, true]);
  fs.rmSync(folder, { recursive: true });
  expect(() => isFirst(folder, "try")).toThrow("ENOENT");
});

describe("a second try", () => {
  test("is given to what was too slow, and to nothing that was lost", () => {
    expect(forgivable([])).toBe(false);
    expect(forgivable(["NFS: at least 99 % of the reads were answered"])).toBe(true);
    expect(forgivable(["the vault unreachable for 60 s: posts are acknowledged to the end"])).toBe(true);
    for (const claim of [
      "every acknowledged post is kept in the database",
      "NFS: every acknowledged post is kept, read after the crash",
      "NFS: none of 12 pods was restarted or replaced",
    ])
      expect(forgivable(["something slow", claim])).toBe(false);
  });
});

describe("a child process", () => {
  test("is ended with its own children when its time is up", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "child-"));
    const trace = path.join(folder, "outlived");
    const outcome = await run("sh", ["-c", `(sleep 2; touch '${trace}') & wait`], { seconds: 1 });
    expect(outcome.code).toBe(124);
    await sleep(2000);
    expect(fs.existsSync(trace)).toBe(false);
    fs.rmSync(folder, { recursive: true });
  });

  test.for([
    ["alone", "echo first; echo done; sleep 60; echo more"],
    ["with children", "sleep 60 & echo first; echo done; wait; echo more"],
  ])("is killed as soon as it has said a line, %s", async ([, script = ""]) => {
    const outcome = await run("sh", ["-c", script], { until: /^done$/m, seconds: 30 });
    expect(outcome.code).toBe(128);
    expect(outcome.output).toBe("first\ndone\n");
  });

  test("gives its exit code, also where there is no such program", async () => {
    expect((await run("sh", ["-c", "exit 3"])).code).toBe(3);
    expect((await run("/nonexistent/program", [])).code).toBe(127);
  });

  test("sees no Pulumi settings, no default cluster and the project's own Node.js first", () => {
    const env = childEnvironment({
      PATH: "/usr/bin",
      PULUMI_ACCESS_TOKEN: "t",
      KUBECONFIG: "/root/.kube/config",
      HOME: "/root",
    });
    expect(env).toMatchObject({ HOME: "/root", KUBECONFIG: "/nonexistent/kubeconfig" });
    expect(env).not.toHaveProperty("PULUMI_ACCESS_TOKEN");
    expect(env["PATH"]).toMatch(/\/node_modules\/\.bin:\/usr\/bin$/);
  });
});

describe("a request", () => {
  test("is given up when nothing takes the connection", async () => {
    const program =
      "require('net').createServer().listen({ port: 0, backlog: 1 }, function () { console.log(this.address().port) })";
    const server = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
    const port = await new Promise<number>((resolve) => server.stdout.on("data", (text) => resolve(Number(text))));
    // Stopped, it accepts nothing; what fills its queue is followed by connections that hang.
    server.kill("SIGSTOP");
    const queue = [1, 2, 3, 4].map(() => net.connect(port, "127.0.0.1").on("error", () => undefined));
    await sleep(200);
    try {
      const url = `http://nobody.test:${port}/`;
      await expect(fetchVia({ address: "127.0.0.1" }, url, { seconds: 1 })).rejects.toThrow(
        `no answer from ${url} within 1 s`,
      );
    } finally {
      for (const socket of queue) socket.destroy();
      server.kill("SIGKILL");
    }
  }, 20_000);
});

describe("the lab's zone", () => {
  test("is written by one process at a time, and the daemons of a start do not keep it", async () => {
    const home = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-lab-"));
    const command = path.join(home, "lab");
    fs.writeFileSync(
      command,
      `echo begin >> ${home}/said\nsleep 60 &\necho $! >> ${home}/daemons\nsleep 0.3\necho end >> ${home}/said\n`,
    );
    const lab = Lab.of({ lab: { command, home }, childEnv: process.env } as unknown as Environment);
    await Promise.all([lab?.run(["up", "home"], 10), lab?.run(["up", "vps"], 10)]);
    expect(fs.readFileSync(path.join(home, "said"), "utf8")).toBe("begin\nend\nbegin\nend\n");
    for (const pid of fs.readFileSync(path.join(home, "daemons"), "utf8").trim().split("\n")) process.kill(Number(pid));
  });
});

describe("waiting", () => {
  test("for several works at once lasts until all have ended, also where one fails", async () => {
    let ended = false;
    const slow = sleep(100).then(() => (ended = true));
    await expect(allOf([Promise.reject(new Error("the quick one")), slow])).rejects.toThrow("the quick one");
    expect(ended).toBe(true);
    expect(await allOf([Promise.resolve(1), Promise.resolve(2)])).toEqual([1, 2]);
  });

  test("for a few of several at a time begins them in order, and ends with a failure when all that began have ended", async () => {
    let running = 0;
    let most = 0;
    const begun: number[] = [];
    const work = async (thing: number) => {
      begun.push(thing);
      most = Math.max(most, ++running);
      await sleep(20);
      running--;
      if (thing === 2) throw new Error("the second");
    };
    await fewAtATime(3, [1, 3, 4, 5], work);
    expect([most, begun]).toEqual([3, [1, 3, 4, 5]]);
    await expect(fewAtATime(2, [1, 2, 3, 4], work)).rejects.toThrow("the second");
    expect(running).toBe(0);
  });

  test("ends with the last reason", async () => {
    await expect(eventually(0.2, "it", () => Promise.reject(new Error("not yet")), 50)).rejects.toThrow(
      "it, not within 0.2 s: not yet",
    );
  });

  test("ends with the last answer where the last try had none", async () => {
    let tries = 0;
    const slower = () => (++tries === 1 ? Promise.reject(new Error("not yet")) : new Promise(() => undefined));
    await expect(eventually(0.2, "it", slower, 50)).rejects.toThrow("it, not within 0.2 s: not yet");
    expect(tries).toBe(2);
  });

  test("does not outlast its limit when there is no answer at all", async () => {
    await expect(within(0.1, "it", () => new Promise(() => undefined))).rejects.toThrow("it: no answer within 0 s");
  });
});

describe("the search for secrets", () => {
  const secrets = { password: "correct-horse-battery" };

  test("finds one in clear, and in base64 at every offset", () => {
    expect(secretsIn(`x=${secrets.password};`, secrets)).toEqual(["password"]);
    for (const before of ["", "a", "ab", "abc"]) {
      const encoded = Buffer.from(`${before}${secrets.password}${before}`).toString("base64");
      expect(secretsIn(encoded, secrets), before).toEqual(["password"]);
    }
    expect(secretsIn("correct-horse", secrets)).toEqual([]);
  });

  test("names the files that hold one, never its value", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "secrets-"));
    fs.writeFileSync(path.join(folder, "a"), secrets.password);
    fs.writeFileSync(path.join(folder, "b"), "nothing");
    expect(secretsBelow(folder, secrets)).toEqual(["a: password"]);
    fs.rmSync(folder, { recursive: true });
  });

  test("knows the keys and passwords that a cluster made for itself, and takes nothing public for one", () => {
    const base64 = (text: string) => Buffer.from(text).toString("base64");
    const secret = (name: string, data: Record<string, string>) => ({
      metadata: { name, uid: "u", resourceVersion: "1" },
      data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, base64(text)])),
    });
    const pem = (text: string) => `-----BEGIN EC PRIVATE KEY-----\n${text}\n-----END EC PRIVATE KEY-----\n`;
    const made = keysIn([
      secret("authority-tls", { "tls.crt": "a certificate", "tls.key": pem("authority") }),
      secret("postgres-g1-ca", { "ca.crt": "a certificate", "ca.key": pem("database") }),
      secret("search", { username: "elastic", password: "a-made-password" }),
      secret("mastodon-smtp", { username: "", password: "" }),
      secret("mastodon-identity", { "vapid-public-key": "public" }),
      secret("sh.helm.release.v1.mastodon.v1", { release: "a record" }),
    ]);
    expect(made).toEqual({
      "authority-tls/tls.key": pem("authority"),
      "postgres-g1-ca/ca.key": pem("database"),
      "search/password": "a-made-password",
    });
    const state = JSON.stringify({ outputs: { data: { "tls.key": base64(pem("authority")) } } });
    expect(secretsIn(state, made)).toEqual(["authority-tls/tls.key"]);
    expect(secretsIn(JSON.stringify({ key: pem("database") }), made)).toEqual(["postgres-g1-ca/ca.key"]);
  });

  test("knows what the provider signs in with, as the state would hold it", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "kubeconfig-"));
    const kubeconfig = path.join(folder, "config");
    const users = [
      { name: "admin", user: { "client-certificate-data": "Y2VydA==", "client-key": "key.pem" } },
      { name: "robot", user: { token: "a-token-of-a-robot" } },
      { name: "program", user: { exec: { command: "aws" } } },
    ];
    const contexts = users.map(({ name }) => ({ name, context: { cluster: "c", user: name } }));
    const clusters = [{ name: "c", cluster: { server: "https://c.test" } }];
    fs.writeFileSync(kubeconfig, JSON.stringify({ contexts, clusters, users }));
    fs.writeFileSync(path.join(folder, "key.pem"), "-----BEGIN PRIVATE KEY-----");
    const of = (context: string) => credentialsOf({ kubeconfig, context });
    expect(of("admin")).toEqual({
      "kubeconfig client-key-data": Buffer.from("-----BEGIN PRIVATE KEY-----").toString("base64"),
    });
    expect(of("robot")).toEqual({ "kubeconfig token": "a-token-of-a-robot" });
    expect(of("program")).toEqual({});
    const state = JSON.stringify({ inputs: { kubeconfig: minify(kubeconfig, ["admin"]).text } });
    expect(secretsIn(state, of("admin"))).toEqual(["kubeconfig client-key-data"]);
    fs.rmSync(folder, { recursive: true });
  });
});

test("two inventories are compared by name and digest", () => {
  const before = new Map(Object.entries({ kept: "1", changed: "1", gone: "1" }));
  const after = new Map(Object.entries({ kept: "1", changed: "2", new: "1" }));
  expect(differences(before, after)).toEqual(["new was created", "gone was deleted", "changed was changed"]);
});

test("a cluster is as it was made where nothing of ours is listed, its node's and its add-ons' objects apart", () => {
  const listing = `namespace/default
namespace/kube-system
namespace/local-path-storage
customresourcedefinition.apiextensions.k8s.io/middlewares.traefik.io
clusterrole.rbac.authorization.k8s.io/traefik
`;
  expect(tracesIn(listing)).toEqual([]);
  for (const trace of [
    "namespace/homestead",
    "namespace/homestead-drill",
    "namespace/e2e-outside",
    "namespace/cert-manager",
    "customresourcedefinition.apiextensions.k8s.io/clusters.postgresql.cnpg.io",
    "persistentvolume/pvc-7bf22b62-29b9-4a4c-a6d5-5d6f2f2f3f0e",
    "clusterrole.rbac.authorization.k8s.io/cloudnative-pg",
    "validatingwebhookconfiguration.admissionregistration.k8s.io/somebodys",
  ])
    expect(tracesIn(`${listing}${trace}\n`)).toEqual([trace]);
});

test("what went wrong in an update is its diagnostics, without the warnings about plugins", () => {
  const output = [
    "Diagnostics:",
    "  pulumi:pulumi:Stack (homestead-home):",
    "    warning: using pulumi-resource-command from $PATH at /bin/x",
    "    error: update failed",
    "",
    "Outputs:",
    '    blog: "https://ramble.test"',
  ].join("\n");
  expect(diagnosis(output)).toBe("  pulumi:pulumi:Stack (homestead-home):\n    error: update failed");
  expect(diagnosis("one\n\ntwo\n")).toBe("one\ntwo");
});

test("image overrides are name=reference, and nothing else", () => {
  expect(imageOverrides("mastodon=a/b:1 nginx=c/d:2@sha256:00")).toEqual({
    mastodon: "a/b:1",
    nginx: "c/d:2@sha256:00",
  });
  expect(() => imageOverrides("mastodon")).toThrow("E2E_IMAGES: 'mastodon' is not name=reference");
});

test("the remote server's certificate comes with its key", async () => {
  const required = [
    ...["HOME", "VPS"].flatMap((c) => [`E2E_${c}_KUBECONFIG`, `E2E_${c}_CONTEXT`, `E2E_${c}_ADDRESS`]),
    ...["S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DNS_SERVER", "DNS_COMMAND", "ZONE", "HOST_ADDRESS"].map(
      (key) => `E2E_${key}`,
    ),
  ];
  const env = { E2E_EMPTY_CLUSTERS: "yes", ...Object.fromEntries(required.map((key) => [key, "x"])) };
  for (const key of ["E2E_PEER_CERT", "E2E_PEER_KEY"]) {
    expect(await findEnvironment({ ...env, [key]: "file.pem" })).toEqual({
      kind: "missing",
      why: "E2E_PEER_CERT and E2E_PEER_KEY are a pair, and only one of them is set",
    });
  }
});

test("each broken site still is one changed line of the sources", () => {
  const root = path.resolve(__dirname, "..");
  for (const mutation of mutations("registry.test/broken:1")) {
    const text = fs.readFileSync(path.join(root, mutation.file), "utf8");
    let changed = "";
    const copy = {
      edit: (_file: string, pattern: RegExp, replacement: string) => {
        expect([...text.matchAll(new RegExp(pattern.source, "g"))], mutation.what).toHaveLength(1);
        changed = text.replace(pattern, replacement);
      },
    };
    mutation.change(copy as unknown as Project);
    const [before, after] = [text.split("\n"), changed.split("\n")];
    expect(
      before.filter((line, i) => line !== after[i]),
      mutation.what,
    ).toHaveLength(1);
  }
});

test("what the verification says is counted once, however often Pulumi says it", () => {
  const blog = "verification failed: blog: expected https://a.test/ to answer 200 with text/html, got HTTP 503";
  const actor = "verification failed: actor: expected https://m.test/users/o to answer 200, got HTTP 404";
  const output = (...lines: string[]) =>
    [
      " +  command:local:Command verification-command creating (31s) error: exit status 1: verification failed: bl...",
      "Diagnostics:",
      "  command:local:Command (verification-command):",
      ...lines.map((line) => `    error: ${line}`),
      ...lines.map((line) => `    ${line} `),
      "  pulumi:pulumi:Stack (homestead-home):",
      "    error: update failed",
      "Resources:",
    ].join("\n");
  expect(verificationLines(output(blog))).toEqual([blog]);
  expect(verificationLines(output(blog, actor))).toEqual([blog, actor]);
  expect(verificationLines("Diagnostics:\n    error: update failed\n")).toEqual([]);
});

test("without an image for it, the broken blog is left out", () => {
  const named = (brokenBlog: string | undefined) => mutations(brokenBlog).map(({ what }) => what);
  expect(named("b:1").filter((what) => !named(undefined).includes(what))).toEqual(["the blog's image is broken"]);
});

test("a store's listings are told from its reads: they have another price", () => {
  expect(kindOf("GET", "/vault?list-type=2&prefix=pg%2F")).toBe("LIST");
  // As rclone lists a store that it does not know.
  expect(kindOf("GET", "/vault?delimiter=&max-keys=1000&prefix=media%2Ffiles%2F")).toBe("LIST");
  expect(kindOf("GET", "/vault/lease.json")).toBe("GET");
  expect(kindOf("PUT", "/vault/lease.json")).toBe("PUT");
});

describe("a question to the search server", () => {
  test("is curl's options, quoted", () => {
    expect(curlOptions({ user: 'elastic:a"b\\c', "write-out": "\n%{http_code}" })).toBe(
      'user = "elastic:a\\"b\\\\c"\nwrite-out = "\\n%{http_code}"\n',
    );
  });

  test("has an answer of a body and a status", () => {
    expect(parseAnswer('{\n"a": 1\n}\n200')).toEqual({ status: 200, body: '{\n"a": 1\n}' });
    expect(parseAnswer("\n401\n")).toEqual({ status: 401, body: "" });
    expect(() => parseAnswer("curl: (7) Failed to connect")).toThrow("no answer: curl: (7)");
  });

  test("fails with the status unless it is 200", () => {
    expect(mustBeOk({ status: 200, body: "x" }, "/")).toBe("x");
    expect(() => mustBeOk({ status: 401, body: "no" }, "/_search")).toThrow("/_search: HTTP 401 no");
  });
});
