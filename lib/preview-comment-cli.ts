/**
 * The workflows' side of `preview-comment.ts`: reads what `homestead plan` and `pulumi` left in folders and writes
 * Markdown to standard output. Ends with 1, and writes nothing, if that would show a secret of the job.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { Command } from "commander";
import { chartDrift } from "./chart-drift";
import { readFolder } from "./plan/golden";
import { readPreview, refuseSecrets, renderComment, renderDrift } from "./preview-comment";
import type { Cluster, Preview } from "./preview-comment";
import { UserError } from "./user-error";

interface CommentOptions {
  site: string;
  base: string;
  head: string;
  baseManifests: string;
  headManifests: string;
  preview?: string;
  unreachable?: string;
}

interface DriftOptions {
  site: string;
  refresh: string;
  preview: string;
  release: string;
  deployments: string;
}

const program = new Command("preview-comment").description(
  "write a pull request's comment or the drift report to standard output",
);

program
  .command("comment")
  .requiredOption("--site <site>", "the stack")
  .requiredOption("--base <commit>", "commit the manifests are compared with")
  .requiredOption("--head <commit>", "the pull request's newest commit")
  .requiredOption("--base-manifests <folder>", "golden manifests of the base")
  .requiredOption("--head-manifests <folder>", "those of the pull request, from `homestead plan --update`")
  .option("--preview <folder>", "what `pulumi preview --json` gave: files stdout, stderr and code")
  .option("--unreachable <reason>", "why there is no preview; with neither, nobody asked")
  .action((options: CommentOptions) => {
    const { site, base, head } = options;
    const manifests = { base: readFolder(options.baseManifests), head: readFolder(options.headManifests) };
    if (manifests.head.size === 0) throw new UserError(`--head-manifests: no files in ${options.headManifests}`);
    const output = options.preview === undefined ? undefined : readOutput(options.preview);
    print(renderComment({ site, base, head, manifests, cluster: cluster(options, output) }), [
      ...manifests.base.values(),
      ...manifests.head.values(),
      ...(output ? [output.stdout, output.stderr] : []),
    ]);
  });

program
  .command("drift")
  .requiredOption("--site <site>", "the stack")
  .requiredOption(
    "--refresh <folder>",
    "what `pulumi refresh --preview-only --json` gave: files stdout, stderr and code",
  )
  .requiredOption("--preview <folder>", "what `pulumi preview --json` gave")
  .requiredOption("--release <file>", "Mastodon's release, as `homestead plan` wrote it")
  .requiredOption("--deployments <folder>", "what `kubectl get deployments -o json` gave for the chart's label")
  .action((options: DriftOptions) => {
    const { site, release } = options;
    if (!fs.existsSync(release)) throw new UserError(`--release: ${release} does not exist`);
    const [refresh, preview] = [readOutput(options.refresh), readOutput(options.preview)];
    const deployments = readOutput(options.deployments);
    const chart = chartDrift(fs.readFileSync(release, "utf8"), deployments);
    const text = renderDrift({ site, refresh: previewOf(refresh), preview: previewOf(preview), chart });
    print(
      text,
      [refresh, preview, deployments].flatMap(({ stdout, stderr }) => [stdout, stderr]),
    );
  });

function cluster(options: CommentOptions, output: Output | undefined): Cluster {
  if (output !== undefined && options.unreachable !== undefined)
    throw new UserError("either --preview or --unreachable");
  if (output !== undefined) return { kind: "previewed", preview: previewOf(output) };
  return options.unreachable === undefined ? { kind: "unasked" } : { kind: "unreachable", reason: options.unreachable };
}

interface Output {
  stdout: string;
  stderr: string;
  code: number;
}

function readOutput(folder: string): Output {
  const read = (name: string): string => {
    const file = path.join(folder, name);
    if (!fs.existsSync(file)) throw new UserError(`${file} does not exist`);
    return fs.readFileSync(file, "utf8");
  };
  const code = read("code").trim();
  if (!/^\d+$/.test(code))
    throw new UserError(`${path.join(folder, "code")}: expected an exit code, got ${JSON.stringify(code)}`);
  return { stdout: read("stdout"), stderr: read("stderr"), code: Number(code) };
}

const previewOf = ({ stdout, stderr, code }: Output): Preview => readPreview(stdout, stderr, code);

/** Looks for secrets in the sources too: what was cut may leave a part of one. */
function print(text: string, sources: string[]): void {
  const kubeconfig = process.env["KUBECONFIG"];
  const known = kubeconfig !== undefined && fs.existsSync(kubeconfig) ? fs.readFileSync(kubeconfig, "utf8") : "";
  refuseSecrets([text, ...sources].join("\n"), process.env, known);
  process.stdout.write(text);
}

try {
  program.parse();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
