/** `homestead kit`: what a failover from another machine needs, in one encrypted file; and back out of it. */
import * as fs from "node:fs";
import * as path from "node:path";
import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { Command } from "commander";
import {
  changedSince,
  commandsOf,
  newerThanKit,
  refuseExisting,
  staysNewer,
  textOf,
  writeKitFile,
  writeKitFolder,
} from "../lib/kit/folder";
import { gatherKit } from "../lib/kit/gather";
import { lockOf, openKit, sealKit } from "../lib/kit/kit";
import type { Key, Lock } from "../lib/kit/kit";
import { projectFolder } from "../lib/plan";
import { PulumiCli } from "../lib/pulumi-cli";
import { word } from "../lib/shell";
import { loadSite } from "../lib/site-secrets";
import { UserError } from "../lib/user-error";

/** Characters: whoever finds the file may try for as long as they like. */
const shortest = 12;
const variable = "HOMESTEAD_KIT_PASSPHRASE";

export function kitCommand(): Command {
  return new Command("kit")
    .summary("the break-glass kit: all that a failover from another machine needs, in one encrypted file")
    .description(
      "Writes the Pulumi passphrase, the state's address and keys, every stack's secrets and files, the vault's keys and " +
        "the clusters' credentials into one file, encrypted with age. Keep it where no site can burn it, and its " +
        `passphrase elsewhere. Asks for a passphrase twice; $${variable} answers for scripts.`,
    )
    .option("--output <file>", "the file to write; nothing is written over", "homestead-kit.age")
    .option("--recipient <age1...>", "encrypt for this age recipient and not with a passphrase; may be repeated", more)
    .option("--env <name>", "take this environment variable along too; may be repeated", more)
    .action((options: { output: string; recipient?: string[]; env?: string[] }) => make(options))
    .addCommand(
      new Command("open")
        .description("write a kit's content into a new folder that only you can read, and print what to do")
        .argument("<file>", "the kit")
        .option("--into <folder>", "the folder to make (default: the file's name without .age)")
        .option("--identity <file>", "age identities, for a kit that was made for recipients")
        .action((file: string, options: { into?: string; identity?: string }) => open(file, options)),
    );
}

const more = (value: string, all: string[] = []) => [...all, value];
const say = (line: string) => process.stdout.write(`${line}\n`);

async function make(options: { output: string; recipient?: string[]; env?: string[] }): Promise<void> {
  const { output, recipient, env = [] } = options;
  refuseExisting(output);
  const lock: Lock = recipient === undefined ? { passphrase: await newPassphrase() } : { recipients: recipient };
  const kit = await gatherKit({
    folder: projectFolder,
    pulumi: new PulumiCli(projectFolder),
    environment: process.env,
    load: loadSite,
    names: env,
    now: new Date(),
  });
  for (const warning of kit.warnings) process.stderr.write(`warning: ${warning}\n`);
  const content = await sealKit(kit, lock);
  writeKitFile(content, output);
  say(`${output}: the kit of ${kit.sites.join(" and ")}, ${kit.warnings.length} warnings`);
  say(
    "Keep it where no site can burn it. It is as old as its day: make it again after every change of secrets or clusters.",
  );
  say(`Try it: npx homestead kit open ${word(output)} --into /tmp/kit`);
}

async function open(file: string, { into, identity }: { into?: string; identity?: string }): Promise<void> {
  let content: Buffer;
  try {
    content = fs.readFileSync(file);
  } catch {
    throw new UserError(`${file} cannot be read`);
  }
  const folder = into ?? file.replace(/(\.age)?$/, (end) => (end === "" ? ".opened" : ""));
  refuseExisting(folder);
  const kit = await openKit(file, content, await keyFor(file, content, identity));
  const clone = textOf(path.join(projectFolder, "Pulumi.yaml"));
  const newer = newerThanKit(kit, clone, await changedSince(kit, projectFolder));
  writeKitFolder(kit, folder, newer);
  const [, prepare, go] = commandsOf(kit, path.resolve(folder), newer);
  say(`${folder}: the kit of ${kit.madeAt}. It is secret: delete it when you are done. README.txt says what is in it.`);
  for (const warning of [...kit.warnings, ...(newer === undefined ? [] : [staysNewer(newer)])]) {
    process.stderr.write(`warning: ${warning}\n`);
  }
  say(`If the active site is gone, in this clone:\n  ${prepare}\n  ${go}`);
}

async function keyFor(file: string, content: Uint8Array, identity: string | undefined): Promise<Key> {
  if (lockOf(file, content) === "passphrase") {
    return { passphrase: process.env[variable] ?? (await ask("Passphrase of the kit: ")) };
  }
  if (identity === undefined) throw new UserError(`${file} was made for a recipient: add --identity <file>`);
  let text: string;
  try {
    text = fs.readFileSync(identity, "utf8");
  } catch {
    throw new UserError(`--identity: ${identity} cannot be read`);
  }
  const identities = text.split("\n").map((line) => line.trim());
  return { identities: identities.filter((line) => line !== "" && !line.startsWith("#")) };
}

/** @throws UserError if it is too short, or differs when it is typed again */
async function newPassphrase(): Promise<string> {
  const given = process.env[variable];
  const passphrase = given ?? (await ask("Passphrase for the kit: "));
  if (passphrase.length < shortest) {
    throw new UserError(
      `the kit's passphrase has fewer than ${shortest} characters: four or five random words will do`,
    );
  }
  if (given === undefined && (await ask("The same again: ")) !== passphrase) {
    throw new UserError("the two differ; nothing was written");
  }
  return passphrase;
}

/** Asks without showing what is typed. @throws UserError where nobody can be asked */
async function ask(question: string): Promise<string> {
  if (!process.stdin.isTTY) throw new UserError(`nobody is there to ask for the passphrase: set ${variable}`);
  process.stderr.write(question);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  lines.on("SIGINT", () => process.exit(130));
  try {
    return await lines.question("");
  } finally {
    lines.close();
    process.stderr.write("\n");
  }
}
