import * as fs from "node:fs";
import Table from "cli-table3";
import { Argument, Command, InvalidArgumentError, Option } from "commander";
import * as z from "zod";
import { reason } from "../lib/attempt";
import { ask, kubeClient, KubeconfigFault, kubectl, statusOf, unaskable } from "../lib/kube";
import { kubernetes } from "../lib/kubernetes";
import { failureLines, verify } from "../lib/verify";
import type { CheckResult, VerificationTarget } from "../lib/verify";
import { askedFromHere, targetOf } from "../lib/verify/target";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { UserError } from "../lib/user-error";
import { parseSettings, stackNames } from "../settings";
import type { Settings } from "../settings";

interface VerifyOptions {
  targetFile?: string;
  public?: boolean;
  resolver?: string[];
  caFile?: string;
  retry?: number;
  json?: boolean;
}

/** Finds what there is to verify on a site, with an authority in PEM in place of the site's own. @throws UserError with one line for the user */
export type LoadTarget = (site: string, ca?: string) => Promise<VerificationTarget>;

/** `homestead verify`: asks a site what the world will ask it; exit code 1 and a line a fault if it answers wrongly. */
export function verifyCommand(load: LoadTarget = loadTarget): Command {
  return new Command("verify")
    .summary("check that a site answers as the world will ask it")
    .description(
      "Checks certificates, redirects, WebFinger, the actor, streaming, media and the blog of a site, asked at the " +
        "ingress's address, so that it can be done before DNS points there. A failure is one line and exit code 1.",
    )
    .addArgument(new Argument("[site]", "the stack to verify").choices(stackNames))
    .addOption(
      new Option(
        "--target-file <file>",
        "what to verify, as JSON, in place of a stack's settings (- is standard input)",
      ),
    )
    .addOption(new Option("--public", "ask where public DNS points"))
    .addOption(new Option("--resolver <address...>", "DNS servers for --public").implies({ public: true }))
    .addOption(new Option("--ca-file <file>", "PEM of an authority to trust beside the public ones"))
    .addOption(
      new Option("--retry <seconds>", "try again for so long what is not right yet (default: 20)").argParser(seconds),
    )
    .addOption(new Option("--json", "print the results as JSON"))
    .action(async (site: string | undefined, options: VerifyOptions) => {
      const ca = options.caFile === undefined ? undefined : read(options.caFile);
      const results = await verify(withOptions(await find(site, options, load, ca), options, ca));
      console.log(options.json ? JSON.stringify(results, null, 2) : tableOf(results));
      const lines = failureLines(results);
      for (const line of lines) console.error(line);
      if (lines.length > 0) process.exitCode = 1;
    });
}

async function find(
  site: string | undefined,
  options: VerifyOptions,
  load: LoadTarget,
  ca: string | undefined,
): Promise<VerificationTarget> {
  if (options.targetFile !== undefined) return readTarget(options.targetFile);
  if (site === undefined) throw new UserError(`name a site (${stackNames.join(", ")}) or give --target-file`);
  return load(site, ca);
}

function withOptions(target: VerificationTarget, options: VerifyOptions, ca: string | undefined): VerificationTarget {
  return {
    ...target,
    ...(options.public ? { address: null, resolver: options.resolver ?? [] } : {}),
    ...(ca === undefined ? {} : { ca }),
    retrySeconds: options.retry ?? target.retrySeconds ?? 20,
  };
}

function read(file: string): string {
  try {
    return fs.readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new UserError(`${nameOf(file)} cannot be read: ${(error as Error).message}`);
  }
}

const nameOf = (file: string) => (file === "-" ? "standard input" : file);

function seconds(value: string): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 0) throw new InvalidArgumentError("Expected whole seconds.");
  return number;
}

function tableOf(results: CheckResult[]): string {
  const table = new Table({ head: ["check", "status", "got", "s"], style: { head: [], border: [] } });
  table.push(
    ...results.map(({ check, status, cause, got, seconds: s }) => [
      check,
      cause ? `follows from ${cause}` : status,
      got,
      s.toFixed(1),
    ]),
  );
  return table.toString();
}

// ---------------------------------------------------------------- a target from a file

const portNumber = z.int().min(1).max(65535);
const targetFile = z.strictObject({
  apex: z.string(),
  webHost: z.string(),
  owner: z.string(),
  address: z.string().nullable(),
  ingressHosts: z.array(z.string()).optional(),
  ca: z.string().optional(),
  httpPort: portNumber.optional(),
  httpsPort: portNumber.optional(),
  media: z
    .strictObject({
      endpoint: z.url(),
      region: z.string(),
      bucket: z.string(),
      publicUrl: z.url(),
      accessKeyId: z.string(),
      secretAccessKey: z.string(),
    })
    .optional(),
  mediaFile: z.url().optional(),
  resolver: z.array(z.string()).optional(),
  retrySeconds: z.number().min(0).optional(),
});

function readTarget(file: string): VerificationTarget {
  const text = read(file);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, and keys may be in it.
    throw new UserError(`${nameOf(file)}: expected a verification target as JSON`);
  }
  const parsed = targetFile.safeParse(content);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map(
    (issue) => `${nameOf(file)}: ${issue.path.join(".") || "target"}: ${issue.message}`,
  );
  throw new UserError(faults.join("\n"));
}

// ---------------------------------------------------------------- a target from a stack

/** Reads a stack's settings, secrets included, through the Pulumi CLI, and its authority, unless given, where the cluster has it. */
export async function loadTarget(site: string, ca?: string): Promise<VerificationTarget> {
  const shown = await new PulumiCli(projectFolder).config(site, "clear");
  const config = Object.fromEntries(Object.entries(shown).map(([key, { value = "" }]) => [key, value]));
  const settings = parseSettings({ stack: site, config, folder: projectFolder });
  const { media, ...target } = targetOf(settings, ca ?? (await authority(settings)));
  const secret = (key: string) => config[`homestead:${key}`] ?? "";
  return {
    ...target,
    address: askedFromHere(settings),
    media: media && {
      ...media,
      accessKeyId: secret("mediaAccessKeyId"),
      secretAccessKey: secret("mediaSecretAccessKey"),
    },
  };
}

/**
 * PEM of the authority behind a site's certificates; "" where the world knows it.
 *
 * @throws UserError where the cluster has none, or does not tell
 */
async function authority({ certificates, cluster, namespace, site }: Settings): Promise<string> {
  if (certificates.kind === "issuer") return certificates.ca ?? "";
  if (certificates.kind === "acme") return "";
  const name = "authority-tls";
  const question = `get secrets/${name} -n ${namespace}`;
  const read = async () =>
    ask(question, kubeClient(cluster).makeApiClient(kubernetes().CoreV1Api).readNamespacedSecret({ name, namespace }));
  const secret = await read().catch((error: unknown) => {
    const given = `or, with its certificate in a file: npx homestead verify ${site} --ca-file <file>`;
    const unread = `the authority of ${site}'s certificates cannot be read from the cluster of context '${cluster.context}'`;
    if (error instanceof KubeconfigFault) throw new UserError(`${unread}: ${unaskable(error, site)}; ${given}`);
    const status = statusOf(error);
    if (status === 404) {
      const none = `${site} has no authority yet, the Secret ${name} in namespace ${namespace}`;
      throw new UserError(`${none}: pulumi up --stack ${site} first; ${given}`);
    }
    const look =
      status === undefined ? "get namespaces, then the same again" : `auth can-i ${question} shows whether it may be`;
    throw new UserError(`${unread} (${reason(error)}): ${kubectl(cluster)} ${look}; ${given}`);
  });
  return Buffer.from(secret.data?.["tls.crt"] ?? "", "base64").toString();
}
