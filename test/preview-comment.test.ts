import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as fc from "fast-check";
import { fromMarkdown } from "mdast-util-from-markdown";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { projectFolder } from "../lib/plan";
import { commentLimit, readPreview, refuseSecrets, renderComment, renderDrift } from "../lib/preview-comment";
import type { Cluster, Comment, Preview, Step } from "../lib/preview-comment";
import { temporaryFolder } from "./support/folders";

/** Of Mastodon's release, what the drift report looks at. */
type Values = Record<"web" | "streaming", { image: { repository: string; tag: string } }>;

const base = "a".repeat(40);
const head = "b".repeat(40);
const none = { base: new Map<string, string>(), head: new Map<string, string>() };
const manifests = (before: Record<string, string>, after: Record<string, string>) => ({
  base: new Map(Object.entries(before)),
  head: new Map(Object.entries(after)),
});
const preview = (...steps: Step[]): Preview => ({ steps, unchanged: 3, errors: [] });
const step = (op: Step["op"], type: string, name: string, more: Partial<Step> = {}): Step => ({
  op,
  type,
  name,
  changes: [],
  reasons: [],
  kept: false,
  ...more,
});
const comment = (cluster: Cluster, more: Partial<Comment> = {}): string =>
  renderComment({ site: "home", cluster, manifests: none, base, head, ...more });

const claim = "kubernetes:core/v1:PersistentVolumeClaim";
const deployment = "kubernetes:apps/v1:Deployment";

const typescript = path.join(projectFolder, "cli", "typescript.cjs");

describe("readPreview", () => {
  // What `pulumi preview --json` of CLI 3.260 printed, less the parts nobody reads.
  const urn = (type: string, name: string) => `urn:pulumi:home::small::${type}::${name}`;
  const printed = (steps: object[], diagnostics: object[] = []) => JSON.stringify({ config: {}, steps, diagnostics });

  it("reads operations, properties and reasons, what is destroyed first", () => {
    const json = printed([
      { op: "same", urn: urn("pulumi:pulumi:Stack", "small-home"), detailedDiff: null },
      {
        op: "update",
        urn: urn("homestead:index:Blog$kubernetes:core/v1:ConfigMap", "config"),
        oldState: { inputs: { data: { a: "1", b: "x\ny" } } },
        newState: { inputs: { data: { a: "2", "c.d/e": "new" } } },
        detailedDiff: {
          "data.a": { kind: "update", inputDiff: false },
          "data.b": { kind: "delete", inputDiff: true },
          'data["c.d/e"]': { kind: "add", inputDiff: false },
        },
      },
      {
        op: "replace",
        urn: urn("kubernetes:apps/v1:StatefulSet", "valkey"),
        oldState: { inputs: { spec: { containers: [{ image: "valkey:1" }] } } },
        newState: { inputs: { spec: { containers: [{ image: "valkey:2" }] } } },
        replaceReasons: ["spec.serviceName"],
        detailedDiff: { "spec.containers[0].image": { kind: "update-replace", inputDiff: false } },
      },
      { op: "create", urn: urn("kubernetes:core/v1:Service", "svc"), newState: {}, detailedDiff: null },
      { op: "delete", urn: urn(claim, "data"), oldState: { retainOnDelete: true }, detailedDiff: null },
    ]);
    expect(readPreview(json, "", 0)).toEqual({
      unchanged: 1,
      errors: [],
      steps: [
        step("delete", claim, "data", { kept: true }),
        step("replace", "kubernetes:apps/v1:StatefulSet", "valkey", {
          reasons: ["spec.serviceName"],
          changes: ['~ spec.containers[0].image: "valkey:1" => "valkey:2"'],
        }),
        step("update", "kubernetes:core/v1:ConfigMap", "config", {
          changes: ['~ data.a: "1" => "2"', '- data.b: "x\\ny"', '+ data["c.d/e"]: "new"'],
        }),
        step("create", "kubernetes:core/v1:Service", "svc"),
      ],
    });
  });

  it("counts the parts of a replacement once", () => {
    const parts = ["create-replacement", "replace", "delete-replaced"].map((op) => ({ op, urn: urn(claim, "data") }));
    expect(readPreview(printed(parts), "", 0).steps).toEqual([step("replace", claim, "data")]);
  });

  it("shows what is under a secret as a secret", () => {
    const state = { inputs: { data: "[secret]" } };
    const json = printed([
      {
        op: "update",
        urn: urn("kubernetes:core/v1:Secret", "s"),
        oldState: state,
        newState: state,
        detailedDiff: { "data.password": { kind: "update" } },
      },
    ]);
    expect(readPreview(json, "", 0).steps[0]?.changes).toEqual(["~ data.password: [secret] => [secret]"]);
  });

  it("does not count a kubeconfig that lies elsewhere on this machine, but any other change of the provider", () => {
    const provider = urn("pulumi:providers:kubernetes", "cluster");
    const of = (diffReasons: string[]) =>
      readPreview(printed([{ op: "update", urn: provider, diffReasons, detailedDiff: null }]), "", 0);
    expect(of(["kubeconfig"])).toEqual({ steps: [], unchanged: 1, errors: [] });
    expect(of(["context", "kubeconfig"]).steps).toHaveLength(1);
  });

  it("takes the errors of the program, and not its warnings", () => {
    const json = printed(
      [],
      [
        { severity: "warning", message: "warning: slow\n" },
        { severity: "error", message: "error: 2 faults:\n  homestead:apex\n" },
      ],
    );
    expect(readPreview(json, "", 1).errors).toEqual(["error: 2 faults:\n  homestead:apex"]);
  });

  it("says what it may be where the engine says nothing but that it failed", () => {
    const json = printed([], [{ severity: "error", message: "error: preview failed\n" }]);
    expect(readPreview(json, "", 1).errors).toEqual([
      "error: preview failed",
      "A rule of policy/ may be broken: npm test, or pulumi preview --policy-pack policy without --json, names it.",
    ]);
  });

  it("takes standard error where the CLI failed before the program ran", () => {
    const text = "\u001b[31merror: getting stack configuration: incorrect passphrase\u001b[0m\n";
    expect(readPreview("", text, 1).errors).toEqual(["error: getting stack configuration: incorrect passphrase"]);
  });

  it("never takes a failure without a word for a success", () => {
    expect(readPreview("", "", 255).errors).toEqual(["pulumi ended with 255 and printed no JSON"]);
    expect(readPreview(printed([]), "", 7).errors).toEqual(["pulumi ended with 7"]);
    expect(readPreview("", "", 0).errors).toEqual(["pulumi ended with 0 and printed no JSON"]);
    expect(readPreview('{"steps": "none"}', "", 0).errors).toEqual(["pulumi ended with 0 and printed no JSON"]);
  });
});

describe("renderComment", () => {
  it("says how much is done, and to what", () => {
    const text = comment({
      kind: "previewed",
      preview: preview(step("update", deployment, "blog", { changes: ["~ spec.replicas: 1 => 2"] })),
    });
    expect(text).toBe(`<!-- homestead-preview:home -->

### home: preview

1 to update, 3 unchanged.

<details><summary>What <code>pulumi up</code> would do: 1 change</summary>

\`\`\`text
~ kubernetes:apps/v1:Deployment blog
    ~ spec.replicas: 1 => 2
\`\`\`

</details>

The manifests are the same.

Commit \`bbbbbbbbbb\` against \`aaaaaaaaaa\`.
`);
  });

  it("puts the loss of what holds data on top, with its cause and what is kept", () => {
    const text = comment({
      kind: "previewed",
      preview: preview(
        step("delete", deployment, "blog"),
        step("delete", claim, "data", { kept: true }),
        step("replace", "kubernetes:postgresql.cnpg.io/v1:Cluster", "postgres", { reasons: ["spec.storage"] }),
        step("update", "kubernetes:core/v1:Namespace", "ours"),
      ),
    });
    expect(text).toContain(`### home: preview

> [!CAUTION]
> **What holds data is replaced or deleted:**
> - delete \`kubernetes:core/v1:PersistentVolumeClaim\` \`data\`, it stays in the cluster (\`retainOnDelete\`)
> - replace \`kubernetes:postgresql.cnpg.io/v1:Cluster\` \`postgres\`, because of \`spec.storage\`

1 to update, 1 to replace, 2 to delete, 3 unchanged.`);
  });

  it.each(["Cluster", "StatefulSet", "PersistentVolumeClaim", "Namespace", "ObjectStore"])(
    "knows that a %s holds data",
    (kind) => {
      const gone = comment({ kind: "previewed", preview: preview(step("delete", `kubernetes:any/v1:${kind}`, "x")) });
      expect(gone).toContain("> [!CAUTION]");
      const planned = manifests({ "x.yaml": `kind: ${kind}\n` }, {});
      expect(comment({ kind: "unasked" }, { manifests: planned })).toContain(`> - \`${kind}\` in \`x.yaml\``);
    },
  );

  it("raises no alarm for what holds none", () => {
    expect(comment({ kind: "previewed", preview: preview(step("delete", deployment, "blog")) })).not.toContain(
      "CAUTION",
    );
    expect(comment({ kind: "unasked" }, { manifests: manifests({ "x.yaml": "kind: Service\n" }, {}) })).not.toContain(
      "CAUTION",
    );
  });

  it("labels the plan of a site that could not be reached", () => {
    const text = comment(
      { kind: "unreachable", reason: "no kubeconfig" },
      { manifests: manifests({}, { "a.yaml": "a: 1\n" }) },
    );
    expect(text).toContain("### home: plan");
    expect(text).toContain(
      "**home could not be reached (`no kubeconfig`); this is the plan, computed without the cluster.** What would be created, replaced or deleted there is not known.",
    );
    expect(text).toContain("+a: 1");
    expect(text).not.toContain("unchanged");
  });

  it("labels the plan of a fork", () => {
    expect(comment({ kind: "unasked" })).toContain(
      "**This is the plan, computed without the cluster**: a fork's pull request gets no secrets.",
    );
  });

  it("shows the error and the plan of a preview that failed, and no counts", () => {
    const failed: Preview = {
      steps: [step("create", deployment, "x")],
      unchanged: 0,
      errors: ["error: no stack named 'home' found"],
    };
    const text = comment(
      { kind: "previewed", preview: failed },
      { manifests: manifests({ "a.yaml": "a: 1\n" }, { "a.yaml": "a: 2\n" }) },
    );
    expect(text).toContain("### home: the preview failed");
    expect(text).toContain(
      "> [!CAUTION]\n> **The preview failed.**\n\n```text\nerror: no stack named 'home' found\n```",
    );
    expect(text).toContain("-a: 1\n+a: 2");
    expect(text).not.toContain("to create");
  });

  it("shows each manifest that differs, is new or is gone", () => {
    const text = comment(
      { kind: "unasked" },
      {
        manifests: manifests(
          { "a.yaml": "a: 1\n", "b.yaml": "b: 1\n", "same.yaml": "x\n" },
          { "a.yaml": "a: 2\n", "c.yaml": "c: 1\n", "same.yaml": "x\n" },
        ),
      },
    );
    expect(text).toContain(`<details><summary>Manifests: 3 files differ</summary>

- \`a.yaml\`
- \`b.yaml\` (gone)
- \`c.yaml\` (new)

\`\`\`diff
--- a.yaml
+++ a.yaml
@@ -1,1 +1,1 @@
-a: 1
+a: 2
--- b.yaml
+++ /dev/null
@@ -1,1 +0,0 @@
-b: 1
--- /dev/null
+++ c.yaml
@@ -0,0 +1,1 @@
+c: 1
\`\`\`

</details>`);
  });

  it("cuts at whole lines, says how much, and says where the rest is", () => {
    const lines = Array.from({ length: 5000 }, (_, i) => `line-${i}: ${"x".repeat(40)}`).join("\n");
    const text = comment({ kind: "unasked" }, { manifests: manifests({}, { "big.yaml": `${lines}\n` }) });
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(commentLimit);
    expect(Buffer.byteLength(text)).toBeGreaterThan(commentLimit - 1000);
    const note =
      /\*\*Cut: (\d+) of 5003 lines are not shown\*\*; all of it stands in this pull request under `test\/golden\/home`\./.exec(
        text,
      );
    const shown = text.split("\n").filter((line) => /^\+line-\d+: x{40}$/.test(line)).length;
    expect(shown + 3).toBe(5003 - Number(note?.[1]));
    expect(text.trimEnd().endsWith("Commit `bbbbbbbbbb` against `aaaaaaaaaa`.")).toBe(true);
  });

  it("leaves the manifests room beside a long preview", () => {
    const steps = Array.from({ length: 3000 }, (_, i) => step("create", deployment, `name-${i}`));
    const text = comment(
      { kind: "previewed", preview: preview(...steps) },
      { manifests: manifests({}, { "a.yaml": "a: 1\n" }) },
    );
    expect(text).toMatch(/\*\*Cut: \d+ of 3000 lines are not shown\*\*\./);
    expect(text).toContain("3000 to create");
    expect(text).toContain("+a: 1");
  });

  it("shortens a long line", () => {
    const text = comment({ kind: "unasked" }, { manifests: manifests({}, { "a.yaml": `a: ${"x".repeat(5000)}\n` }) });
    expect(text).toContain(`${"x".repeat(996)}… (4004 more characters)`);
  });

  it("writes out characters that hide or reorder text", () => {
    const text = comment(
      { kind: "unasked" },
      { manifests: manifests({}, { "a.yaml": "a: \u202eevil\u0007 \u{e0041}\tend\n" }) },
    );
    expect(text).toContain("+a: \\u202eevil\\u0007 \\u{e0041}\tend");
  });

  it.each(["", "Home", "home -->", "a b", "home\n"])("refuses %j as a site", (site) => {
    expect(() => comment({ kind: "unasked" }, { site })).toThrow(
      `site: expected a stack's name such as home, got ${JSON.stringify(site)}`,
    );
  });

  it("refuses a commit that is none", () => {
    expect(() => comment({ kind: "unasked" }, { head: "main" })).toThrow('commit: expected 40 hex digits, got "main"');
  });

  // Parsed as Markdown: whatever stands outside of code was written by us.
  const allowedHtml = [
    /^<!-- homestead-(preview|drift):home -->$/,
    /^<details><summary>[^<>]*(<code>pulumi up<\/code>[^<>]*)?<\/summary>$/,
    /^<\/details>$/,
  ];
  const hostile = fc
    .array(
      fc.oneof(
        fc.constantFrom(
          "`",
          "```",
          "````",
          "~~~",
          "\n",
          "\r",
          "\r\n",
          "\u2028",
          "@everyone",
          "<script>",
          "</details>",
          "-->",
          "<!--",
          "> ",
          "# ",
          "- ",
          "    ",
          "[x](http://evil)",
          "![](http://evil)",
          "https://evil.example",
          "#1",
          "\\",
          "|",
          "\u202e",
          "\0",
          " ",
          "::add-mask::",
        ),
        fc.string({ maxLength: 4, unit: "binary" }),
      ),
      { maxLength: 30 },
    )
    .map((parts) => parts.join(""));

  interface Node {
    type: string;
    value?: string;
    children?: Node[];
  }
  const outsideOfCode = (node: Node): { html: string[]; text: string; types: Set<string> } => {
    const html: string[] = [];
    const texts: string[] = [];
    const types = new Set<string>();
    const walk = (inner: Node) => {
      types.add(inner.type);
      if (inner.type === "html") html.push(...(inner.value ?? "").split("\n"));
      if (inner.type === "text") texts.push(inner.value ?? "");
      inner.children?.forEach(walk);
    };
    walk(node);
    return { html, text: texts.join("\n"), types };
  };
  const harmless = (text: string) => {
    const { html, text: prose, types } = outsideOfCode(fromMarkdown(text));
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(commentLimit);
    for (const line of html)
      expect(
        allowedHtml.some((allowed) => allowed.test(line)),
        line,
      ).toBe(true);
    expect(prose).not.toMatch(/[@<\\|`~]|evil|#\d|::/);
    expect([...types].filter((type) => /link|image|thematic/i.test(type))).toEqual([]);
  };

  it("lets no text of a pull request out of its code, whatever it is", () => {
    fc.assert(
      fc.property(hostile, hostile, hostile, (a, b, c) => {
        const steps = [
          step("replace", `${b}:Cluster`, a, { reasons: [c], changes: [a] }),
          step("delete", claim, c, { changes: [b] }),
        ];
        harmless(
          comment(
            { kind: "previewed", preview: preview(...steps) },
            { manifests: manifests({ [a]: b, same: c }, { [b]: c, same: a }) },
          ),
        );
        harmless(comment({ kind: "previewed", preview: { steps, unchanged: 0, errors: [a, b] } }, { manifests: none }));
        harmless(
          comment(
            { kind: "unreachable", reason: a },
            { manifests: manifests({ "x.yaml": `kind: Cluster\n${b}`, [c]: "kind: Namespace" }, {}) },
          ),
        );
        harmless(
          renderDrift({
            site: "home",
            refresh: preview(...steps),
            chart: preview(...steps),
            preview: { steps, unchanged: 0, errors: [c] },
          }),
        );
      }),
      { numRuns: 150 },
    );
  });

  it("keeps within GitHub's limit however much there is of everything", () => {
    const wide = "\u{1f418}".repeat(900);
    const steps = Array.from({ length: 400 }, (_, i) =>
      step("delete", claim, `${i}${wide}`, { reasons: [wide, "`".repeat(900)], changes: [wide] }),
    );
    const many = new Map(
      Array.from({ length: 400 }, (_, i) => [`${i}${wide}`, `${"`".repeat(990)}\n${wide}\n`] as const),
    );
    harmless(
      comment({ kind: "previewed", preview: preview(...steps) }, { manifests: { base: new Map(), head: many } }),
    );
    const errors = Array.from({ length: 400 }, () => wide);
    harmless(
      comment(
        { kind: "previewed", preview: { steps, unchanged: 0, errors } },
        { manifests: { base: many, head: new Map() } },
      ),
    );
    const whole: Preview = { steps, unchanged: 0, errors };
    harmless(renderDrift({ site: "home", refresh: whole, chart: whole, preview: whole }));
  });
});

describe("renderDrift", () => {
  it("says nothing about a site that is what its stack says", () => {
    expect(renderDrift({ site: "home", refresh: preview(), chart: preview(), preview: preview() })).toBe("");
  });

  it("does not miss the backup before an upgrade, whose object goes with the vault's retention", () => {
    const gone = (kind: string) => step("delete", `kubernetes:postgresql.cnpg.io/v1:${kind}`, "a");
    const of = (kind: string) =>
      renderDrift({ site: "home", refresh: preview(gone(kind)), chart: preview(), preview: preview() });
    expect(of("Backup")).toBe("");
    expect(of("ScheduledBackup")).toContain("- kubernetes:postgresql.cnpg.io/v1:ScheduledBackup a");
  });

  it("tells what changed in the cluster from what was never applied", () => {
    const text = renderDrift({
      site: "home",
      refresh: preview(
        step("delete", claim, "data", { kept: true }),
        step("update", "kubernetes:core/v1:ConfigMap", "config", { changes: ['~ data.a: "1" => "drift"'] }),
      ),
      chart: preview(step("update", deployment, "mastodon-web", { changes: ["~ replicas: 1 => 0"] })),
      preview: preview(step("create", deployment, "blog")),
    });
    expect(text).toBe(`<!-- homestead-drift:home -->

> [!CAUTION]
> **What holds data is gone from the cluster:**
> - \`kubernetes:core/v1:PersistentVolumeClaim\` \`data\`

### The cluster is not what the state says (\`pulumi refresh --preview-only\`)

<details><summary>2 changes</summary>

\`\`\`text
- kubernetes:core/v1:PersistentVolumeClaim data
~ kubernetes:core/v1:ConfigMap config
    ~ data.a: "1" => "drift"
\`\`\`

</details>

### What Mastodon's chart has made is not what the program says (\`kubectl get deployments\`)

<details><summary>1 change</summary>

\`\`\`text
~ kubernetes:apps/v1:Deployment mastodon-web
    ~ replicas: 1 => 0
\`\`\`

</details>

### The state is not what the program says (\`pulumi preview\`)

<details><summary>1 change</summary>

\`\`\`text
+ kubernetes:apps/v1:Deployment blog
\`\`\`

</details>
`);
  });

  it("does not take a comparison that failed for no drift", () => {
    const failed: Preview = { steps: [], unchanged: 0, errors: ["error: the cluster is unreachable"] };
    expect(renderDrift({ site: "home", refresh: failed, chart: preview(), preview: preview() })).toContain(
      "**It failed.**\n\n```text\nerror: the cluster is unreachable",
    );
  });
});

describe("refuseSecrets", () => {
  const passphrase = "correct horse/battery";
  const refused = (text: string, name = "PULUMI_CONFIG_PASSPHRASE") =>
    expect(() => refuseSecrets(`before ${text} after`, { [name]: passphrase })).toThrow(
      `the text holds a value of ${name}; nothing was printed`,
    );

  it("refuses a secret of the environment, as it is and encoded", () => {
    refused(passphrase);
    refused(Buffer.from(passphrase).toString("base64"));
    refused(encodeURIComponent(passphrase));
  });

  it.each([
    "AWS_SECRET_ACCESS_KEY",
    "PULUMI_ACCESS_TOKEN",
    "TUNNEL_SSH_KEY",
    "KUBECONFIG_BASE64",
    "GH_TOKEN",
    "npm_config_password",
  ])("knows %s as the name of a secret", (name) => refused(passphrase, name));

  it("refuses a single line of a secret of many", () => {
    const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n";
    expect(() => refuseSecrets("+  b3BlbnNzaC1rZXk", { TUNNEL_SSH_KEY: key })).toThrow("a value of TUNNEL_SSH_KEY");
  });

  it("refuses what the kubeconfig holds", () => {
    const kubeconfig = "users: [{name: u, user: {token: abcdefghij, client-key-data: klmnopqrst}}]";
    expect(() => refuseSecrets("x abcdefghij", {}, kubeconfig)).toThrow(
      "the text holds a value of the kubeconfig; nothing was printed",
    );
    expect(() => refuseSecrets("x klmnopqrst", {}, kubeconfig)).toThrow("the kubeconfig");
    expect(() => refuseSecrets("x", {}, "}: no yaml: {")).not.toThrow();
  });

  it("never says the secret", () => {
    expect(() => refuseSecrets(passphrase, { A_SECRET: passphrase })).toThrow(
      expect.not.stringContaining("horse") as Error,
    );
  });

  it("lets other text pass, and does not look for what is empty or short", () => {
    refuseSecrets("home is fine, and so is /home/runner", {
      HOME: "/home/runner",
      PULUMI_ACCESS_TOKEN: "",
      A_SECRET: "home",
      B_TOKEN: undefined,
    });
  });
});

describe("preview-comment-cli", () => {
  const cli = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    spawnSync(
      process.execPath,
      ["--require", typescript, path.join(projectFolder, "lib", "preview-comment-cli.ts"), ...args],
      {
        cwd: projectFolder,
        encoding: "utf8",
        env: { PATH: process.env["PATH"], ...env },
      },
    );
  const folders = () => {
    const root = temporaryFolder();
    const write = (file: string, text: string) => {
      fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      fs.writeFileSync(path.join(root, file), text);
    };
    write("base/a.yaml", "a: 1\n");
    write("head/a.yaml", "a: 2\n");
    const output = (name: string, stdout: string, stderr = "", code = "0\n") => {
      write(`${name}/stdout`, stdout);
      write(`${name}/stderr`, stderr);
      write(`${name}/code`, code);
      return path.join(root, name);
    };
    const args = [
      "comment",
      "--site",
      "home",
      "--base",
      base,
      "--head",
      head,
      "--base-manifests",
      path.join(root, "base"),
      "--head-manifests",
      path.join(root, "head"),
    ];
    return { root, output, args };
  };
  const changed = JSON.stringify({ steps: [{ op: "create", urn: `urn:pulumi:home::homestead::${deployment}::blog` }] });

  it("reads what the jobs left and writes the comment", () => {
    const { args, output } = folders();
    const { stdout, status } = cli([...args, "--preview", output("preview", changed)]);
    expect(stdout).toContain("1 to create, 0 unchanged.");
    expect(stdout).toContain("-a: 1\n+a: 2");
    expect(status).toBe(0);
  });

  it("writes the plan of a site that could not be reached", () => {
    const { stdout } = cli([...folders().args, "--unreachable", "no kubeconfig"]);
    expect(stdout).toContain("**home could not be reached (`no kubeconfig`);");
  });

  it("writes nothing if it would show a secret of the job, even where it is cut", () => {
    const { args, output } = folders();
    const preview = output("preview", changed, `error: ${"x".repeat(2000)} s3cr3t-value`, "1\n");
    const { stdout, stderr, status } = cli([...args, "--preview", preview], {
      PULUMI_CONFIG_PASSPHRASE: "s3cr3t-value",
    });
    expect([stdout, stderr, status]).toEqual([
      "",
      "the text holds a value of PULUMI_CONFIG_PASSPHRASE; nothing was printed\n",
      1,
    ]);
  });

  it("looks into the kubeconfig of the job", () => {
    const { args, output, root } = folders();
    fs.writeFileSync(path.join(root, "kubeconfig"), "users: [{name: u, user: {token: abcdefghij}}]");
    const preview = output("preview", "", "error: abcdefghij", "1");
    const { stdout, stderr } = cli([...args, "--preview", preview], { KUBECONFIG: path.join(root, "kubeconfig") });
    expect([stdout, stderr]).toEqual(["", "the text holds a value of the kubeconfig; nothing was printed\n"]);
  });

  it("reports drift, and prints nothing where there is none", () => {
    const { output } = folders();
    const [quiet, loud] = [output("quiet", JSON.stringify({ steps: [] })), output("loud", changed)];
    const release = path.join(projectFolder, "test", "golden", "home", "release-mastodon.yaml");
    const { mastodon } = (parse(fs.readFileSync(release, "utf8")) as { values: { mastodon: Values } }).values;
    const made = (name: string, part: "web" | "streaming", replicas = 1) => {
      const { repository, tag } = mastodon[part].image;
      const containers = [{ image: `${repository}:${tag}` }];
      return { metadata: { name, namespace: "homestead" }, spec: { replicas, template: { spec: { containers } } } };
    };
    const chart = (replicas: number) => {
      const others = [made("mastodon-streaming", "streaming"), made("mastodon-sidekiq-all-queues", "web")];
      return output(`chart-${replicas}`, JSON.stringify({ items: [made("mastodon-web", "web", replicas), ...others] }));
    };
    const drift = (preview: string, deployments: string) =>
      cli(
        ["drift", "--site", "home", "--refresh", quiet, "--preview", preview, "--release", release].concat(
          "--deployments",
          deployments,
        ),
      );
    expect(drift(loud, chart(1)).stdout).toContain("+ kubernetes:apps/v1:Deployment blog");
    expect(drift(quiet, chart(0)).stdout).toContain("~ replicas: 1 => 0");
    expect(drift(quiet, chart(1))).toMatchObject({
      stdout: "",
      stderr: "",
      status: 0,
    });
  });

  it("says what it lacks", () => {
    const { args, root, output } = folders();
    const fails = (more: string[], message: string) =>
      expect(cli([...args, ...more])).toMatchObject({ stdout: "", stderr: `${message}\n`, status: 1 });
    fails(["--preview", path.join(root, "nowhere")], `${path.join(root, "nowhere", "code")} does not exist`);
    fails(
      ["--preview", output("odd", "", "", "?")],
      `${path.join(root, "odd", "code")}: expected an exit code, got "?"`,
    );
    fails(["--preview", output("both", changed), "--unreachable", "x"], "either --preview or --unreachable");
    fails(
      ["--head-manifests", path.join(root, "nowhere")],
      `--head-manifests: no files in ${path.join(root, "nowhere")}`,
    );
  });

  it("compares the golden manifests of this repository with themselves", () => {
    const golden = path.join(projectFolder, "test", "golden", "home");
    const text = execFileSync(
      process.execPath,
      [
        "--require",
        typescript,
        path.join(projectFolder, "lib", "preview-comment-cli.ts"),
        "comment",
        "--site",
        "home",
        "--base",
        base,
        "--head",
        head,
        "--base-manifests",
        golden,
        "--head-manifests",
        golden,
      ],
      { cwd: projectFolder, encoding: "utf8" },
    );
    expect(text).toContain("The manifests are the same.");
  });
});
