/**
 * `homestead identity`: the shared secrets, made once in a server's life, put into every stack, and compared.
 * Two stacks with different ones are two servers: a database restored on the other site could not be read.
 */
import Table from "cli-table3";
import { Command } from "commander";
import { undisturbed } from "../lib/child";
import { createSharedSecrets, identityFaults, identityFingerprint } from "../lib/identity";
import type { Identity } from "../lib/identity";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { login, loginElsewhere } from "../lib/refusal";
import { UserError } from "../lib/user-error";
import { createdSecrets, identityKeys, requiredSecrets, siteNames, stackNames } from "../settings";

const qualified = (key: string) => `homestead:${key}`;

type Say = (line: string) => void;
const say: Say = (line) => process.stdout.write(`${line}\n`);

export function identityCommand(): Command {
  const stacks = (text: string) => parseStacks(text);
  return new Command("identity")
    .description("the shared secrets: make them once, copy them from stack to stack, compare them")
    .addCommand(
      new Command("create")
        .description("make a new server's secrets and write the same into every stack")
        .option("--stacks <names>", "the stacks, separated by commas", stacks, parseStacks("home,vps"))
        .option("--print", "print the secrets too, for your password manager")
        .action((options: { stacks: string[]; print?: true }) =>
          createIdentity(new PulumiCli(projectFolder), options.stacks, options.print ? "printed" : "hidden", say),
        ),
    )
    .addCommand(
      new Command("copy")
        .description("copy the secrets that a stack lacks from another one; changes nothing that is there")
        .argument("<from>", "the stack that has them", parseStack)
        .argument("<to>", "the stack that lacks some", parseStack)
        .action((from: string, to: string) => copyIdentity(new PulumiCli(projectFolder), from, to, say)),
    )
    .addCommand(
      new Command("verify")
        .description("print each stack's fingerprint; end with 1 if stacks differ or a secret has a wrong format")
        .option("--stacks <names>", "the stacks, separated by commas", stacks, parseStacks("home,vps"))
        .action(async (options: { stacks: string[] }) => {
          if (!(await verifyIdentity(new PulumiCli(projectFolder), options.stacks, say))) process.exitCode = 1;
        }),
    );
}

function parseStack(name: string): string {
  if ((stackNames as readonly string[]).includes(name)) return name;
  throw new UserError(`no stack '${name}': one of ${stackNames.join(", ")}`);
}

function parseStacks(text: string): string[] {
  return [...new Set(text.split(",").map((name) => parseStack(name.trim())))];
}

/**
 * Makes the shared secrets and writes them into the stacks, which are made where they do not exist. Everything that
 * can be refused is refused before the first write; what is there is never written over, and a site gets none where the
 * other one has some.
 *
 * @throws UserError that says which stack got what, if a write fails midway.
 */
export async function createIdentity(
  pulumi: PulumiCli,
  stacks: readonly string[],
  print: "printed" | "hidden",
  tell: Say,
): Promise<void> {
  const secrets = createSharedSecrets();
  const keys = Object.keys(secrets);
  const counts = await pulumi.resourceCounts();
  const existing = [...counts.keys()];
  const asked = withPair(stacks);
  for (const stack of asked) refuseUnknown(pulumi, existing, stack);

  const occupied: { stack: string; keys: string[] }[] = [];
  for (const stack of asked.filter((name) => existing.includes(name))) {
    // In clear: a stack that cannot be decrypted cannot be written to either, and that has to come out now.
    const config = await pulumi.config(stack, stacks.includes(stack) ? "clear" : "hidden");
    const found = keys.filter((key) => qualified(key) in config);
    if (found.length > 0) occupied.push({ stack, keys: found });
  }
  if (occupied.length > 0) throw new UserError(refusal(occupied, stacks, keys));
  // One is the stack itself, which an update that failed at once leaves behind.
  const lived = asked.find((stack) => (counts.get(stack) ?? 0) > 1);
  if (lived !== undefined) throw new UserError(withoutFile(lived, counts.get(lived) ?? 0));

  // Ended between two of them, half an identity would stay behind, whose other half nobody has.
  await undisturbed(
    `Not before all ${keys.length} secrets are written: some of them would be of no use to anybody.`,
    "The secrets are written, as is said above.",
    async () => {
      for (const stack of stacks.filter((name) => !existing.includes(name))) {
        await pulumi.createStack(stack);
        tell(`${stack}: the stack did not exist and was made (pulumi stack init ${stack})`);
      }

      const complete: string[] = [];
      for (const stack of stacks) {
        await writeAll(pulumi, stack, secrets, complete[0]);
        complete.push(stack);
        tell(`${stack}: ${keys.length} secrets written`);
      }
      tell(`fingerprint ${identityFingerprint(secrets)}, the same in ${stacks.join(" and ")}`);
      tell(
        "The stack files now hold them, encrypted: commit the files, and keep the passphrase where no site can burn it.",
      );
      if (print === "printed") for (const [key, value] of Object.entries(secrets)) tell(`${key}: ${value}`);
    },
  );
}

/** Some stacks and, where a site is among them, the other one: the two are one server. */
const withPair = (stacks: readonly string[]): string[] => {
  const isSite = (name: string) => (siteNames as readonly string[]).includes(name);
  return [...new Set([...stacks, ...(stacks.some(isSite) ? siteNames : [])])];
};

/**
 * A stack that the backend does not know, whose file has secrets: the wrong backend, or a state that was lost. New ones
 * would take the place of the server's own.
 */
function refuseUnknown(pulumi: PulumiCli, existing: readonly string[], stack: string): void {
  if (existing.includes(stack)) return;
  const secrets = requiredSecrets.map(qualified);
  const there = pulumi.keysInFile(stack).filter((key) => secrets.includes(key));
  if (there.length === 0) return;
  throw new UserError(
    `nothing was written: Pulumi.${stack}.yaml holds ${there.join(", ")}, and the backend of this login knows no stack '${stack}'. ` +
      `Log in to the one that has it: ${login}. Where that state is lost: pulumi stack init ${stack}, which takes the file as it is`,
  );
}

const refusal = (occupied: { stack: string; keys: string[] }[], stacks: readonly string[], all: string[]): string => {
  const which = occupied.map(
    ({ stack, keys }) => `'${stack}' has ${keys.length === all.length ? "all of them" : keys.join(", ")}`,
  );
  const nothing = `nothing was written, since a server's secrets are made once: ${which.join("; ")}. `;
  if (stacks.every((stack) => occupied.some((one) => one.stack === stack && one.keys.length === all.length)))
    return `${nothing}To compare them: npx homestead identity verify --stacks ${stacks.join(",")}`;
  const source = occupied.find(({ keys }) => keys.length === all.length);
  if (source === undefined) return `${nothing}${withoutWhole(occupied)}`;
  const target = stacks.find((stack) => stack !== source.stack) ?? "<other>";
  return `${nothing}To copy what a stack lacks from another: npx homestead identity copy ${source.stack} ${target}`;
};

/** A file whose commit was forgotten, or that was written over: its server has an identity, which new secrets would end. */
const withoutFile = (stack: string, count: number): string =>
  `nothing was written: the state of '${stack}' has ${count} resources, so its server has its secrets, and Pulumi.${stack}.yaml ` +
  `holds none of them. Take that file from the clone or the kit that made the server. Where no other is left, step 3 of ` +
  `docs/runbooks/lost-passphrase.md puts the secrets back from the cluster`;

/** No stack has all of them: to copy would complete none. What a server uses, somebody has still; what none does, may go. */
const withoutWhole = (occupied: { stack: string; keys: string[] }[]): string => {
  const remove = occupied.flatMap(({ stack, keys }) =>
    keys.map((key) => `  pulumi config rm ${qualified(key)} --stack ${stack}`),
  );
  return (
    "No stack has all of them. Where a server uses these, take the stack files from its clone or its kit. Where none " +
    `does, as after an end midway, remove them and run this again:\n${remove.join("\n")}`
  );
};

/** Writes one stack's secrets; if that fails, nothing stays behind that could not be completed. */
async function writeAll(
  pulumi: PulumiCli,
  stack: string,
  secrets: object,
  completeStack: string | undefined,
): Promise<void> {
  const written: string[] = [];
  try {
    for (const [key, value] of Object.entries(secrets) as [string, string][]) {
      await pulumi.setSecret(stack, qualified(key), value);
      written.push(key);
    }
  } catch (error) {
    const reason = (error as Error).message;
    if (completeStack !== undefined) {
      const got = written.length === 0 ? "none" : written.join(", ");
      throw new UserError(
        `${reason}. '${completeStack}' has all of the secrets, '${stack}' has ${got}. ` +
          `When that is mended: npx homestead identity copy ${completeStack} ${stack}`,
      );
    }
    // No stack has the whole of them, and the rest exists only in this process: take back what was written.
    const left: string[] = [];
    for (const key of written) {
      await pulumi.removeConfig(stack, qualified(key)).catch(() => left.push(key));
    }
    throw new UserError(
      left.length === 0
        ? `${reason}. No stack has any of the secrets: mend that and run it again`
        : `${reason}. '${stack}' is left with ${left.join(", ")}, which no server uses yet. When that is mended, remove ` +
            `them (pulumi config rm <key> --stack ${stack}: ${left.map(qualified).join(" ")}) and run it again`,
    );
  }
}

/**
 * Copies the required secrets that `to` lacks from `from`.
 *
 * @throws UserError, before anything is written, if a secret is in both and differs.
 */
export async function copyIdentity(pulumi: PulumiCli, from: string, to: string, tell: Say): Promise<void> {
  if (from === to) throw new UserError(`'${from}' to itself: name two stacks`);
  const existing = await pulumi.stacks();
  if (!existing.includes(from)) throw new UserError(noStack(from));
  refuseUnknown(pulumi, existing, to);
  const source = await pulumi.config(from, "clear");
  const target = existing.includes(to) ? await pulumi.config(to, "clear") : {};

  const different = requiredSecrets.filter((key) => {
    const [here, there] = [source[qualified(key)]?.value, target[qualified(key)]?.value];
    return here !== undefined && there !== undefined && here !== there;
  });
  if (different.length > 0) {
    throw new UserError(
      `nothing was written: '${from}' and '${to}' have different ${different.join(", ")}. Which one is the server's? ` +
        `Remove the other first: pulumi config rm homestead:<key> --stack <stack>`,
    );
  }
  if (!existing.includes(to)) {
    await pulumi.createStack(to);
    tell(`${to}: the stack did not exist and was made (pulumi stack init ${to})`);
  }
  const missing = requiredSecrets.filter((key) => target[qualified(key)] === undefined);
  const copied: string[] = [];
  for (const key of missing) {
    const value = source[qualified(key)]?.value;
    if (value === undefined) continue;
    await pulumi.setSecret(to, qualified(key), value);
    copied.push(key);
  }
  tell(copied.length === 0 ? `${to}: nothing to copy` : `${to}: ${copied.join(", ")}`);
  const nowhere = missing.filter((key) => !copied.includes(key));
  if (nowhere.length > 0) tell(`in neither stack: ${nowhere.join(", ")}`);
}

/** Prints what each stack holds. @returns false if stacks differ, or a secret is missing or has a wrong format */
export async function verifyIdentity(pulumi: PulumiCli, stacks: readonly string[], tell: Say): Promise<boolean> {
  const existing = await pulumi.stacks();
  const absent = stacks.filter((stack) => !existing.includes(stack));
  if (absent[0] !== undefined) throw new UserError(noStack(absent[0]));

  const held: { stack: string; secrets: Partial<Record<string, string>> }[] = [];
  for (const stack of stacks) {
    const config = await pulumi.config(stack, "clear");
    const secrets = Object.fromEntries(requiredSecrets.map((key) => [key, config[qualified(key)]?.value]));
    held.push({ stack, secrets });
  }

  const table = new Table({ head: ["Stack", "Fingerprint", "Faults"], style: { head: [], border: [] } });
  const faults: string[] = [];
  for (const { stack, secrets } of held) {
    const own = [
      ...createdSecrets.filter((key) => secrets[key] === undefined).map((key) => `${key} is missing`),
      ...identityFaults(secrets).map(({ key, allowed }) => `${key} must be ${allowed}`),
    ];
    const whole = identityKeys.every((key) => secrets[key] !== undefined);
    table.push([stack, whole ? identityFingerprint(secrets as unknown as Identity) : "none", own.join("\n") || "none"]);
    faults.push(...own);
  }
  tell(table.toString());

  const different = requiredSecrets.filter((key) => new Set(held.map(({ secrets }) => secrets[key])).size > 1);
  if (different.length > 0) tell(`different between ${stacks.join(" and ")}: ${different.join(", ")}`);
  else if (faults.length === 0 && stacks.length > 1) tell(`the same in ${stacks.join(" and ")}`);
  const notSet = requiredSecrets.filter(
    (key) =>
      !(createdSecrets as readonly string[]).includes(key) && held.every(({ secrets }) => secrets[key] === undefined),
  );
  if (notSet.length > 0)
    tell(`not set yet: ${notSet.join(", ")} (pulumi config set --secret homestead:<key> --stack <stack>)`);
  return different.length === 0 && faults.length === 0;
}

/** Of this login: whoever made one elsewhere is not to make an empty one here. */
const noStack = (stack: string) =>
  `stack '${stack}' does not exist: pulumi stack init ${stack} --no-select, or ${loginElsewhere}`;
