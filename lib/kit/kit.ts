/**
 * The break-glass kit: all that a failover needs besides a clone and the internet, as one file encrypted with age. Whoever
 * has only `age` reads it as JSON (`age -d homestead-kit.age`).
 */
import { Decrypter, Encrypter } from "age-encryption";
import * as z from "zod";
import { siteNames } from "../../settings";
import { word } from "../shell";
import { UserError } from "../user-error";

const texts = z.record(z.string(), z.string());
/** A name in a folder, and no way out of it. */
const fileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/);

const shape = z.strictObject({
  /** How it is used, a line each: it comes first, for whoever has nothing but this file and `age`. */
  use: z.array(z.string()).default([]),
  version: z.literal(1),
  madeAt: z.iso.datetime(),
  sites: z.array(z.enum(siteNames)).min(1),
  /** The active one when the kit was made. */
  activeSite: z.enum(siteNames),
  git: z.strictObject({
    remote: z.string().optional(),
    commit: z.string().optional(),
    /** Whether the stack files, as they are here, are in a commit that the remote has. */
    current: z.boolean(),
  }),
  /** Variables by name: the state's address, the passphrase, what opens the backend. */
  environment: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()),
  /** Files by the variable that names them. */
  files: z.record(z.string().regex(/^[A-Z][A-Z0-9_]*$/), z.string()).default({}),
  /** `Pulumi.yaml` and the stack files, as they are. */
  stackFiles: z.record(fileName, z.string()),
  /** Every stack's secrets in clear. */
  secrets: z.record(z.string(), texts),
  /** Where each site's vault is, with its keys. */
  vaults: z.record(z.string(), texts),
  kubeconfigs: z.array(
    z.strictObject({
      name: fileName,
      /** Where a stack looks for it; not there: in $KUBECONFIG. */
      place: z.string().optional(),
      /** Empty where there was none when the kit was made: one that is written into the opened kit has this name. */
      text: z.string(),
    }),
  ),
  /** What the kit lacks, in words. */
  warnings: z.array(z.string()),
});
export type Kit = z.output<typeof shape>;

/** What closes a kit. */
export type Lock = { passphrase: string } | { recipients: readonly string[] };
/** What opens it. */
export type Key = { passphrase: string } | { identities: readonly string[] };

const header = "age-encryption.org/v1\n";

/**
 * @param workFactor scrypt's, as a power of two. @default the library's 18, about a second
 * @throws UserError for a recipient that is none
 */
export async function sealKit(kit: Kit, lock: Lock, workFactor?: number): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  if ("passphrase" in lock) {
    encrypter.setPassphrase(lock.passphrase);
    if (workFactor !== undefined) encrypter.setScryptWorkFactor(workFactor);
  } else {
    for (const recipient of lock.recipients) addRecipient(encrypter, recipient);
  }
  return encrypter.encrypt(`${JSON.stringify(kit, null, 2)}\n`);
}

function addRecipient(encrypter: Encrypter, recipient: string): void {
  try {
    encrypter.addRecipient(recipient);
  } catch {
    throw new UserError(`'${recipient}' is no age recipient (age1..., as age-keygen prints it)`);
  }
}

/** What a kit wants to be opened with. @throws UserError if the file is none */
export function lockOf(file: string, content: Uint8Array): "passphrase" | "identity" {
  const start = Buffer.from(content.subarray(0, 200)).toString("latin1");
  if (!start.startsWith(header)) throw new UserError(`${file} is no kit: it is not encrypted with age`);
  return start.slice(header.length).startsWith("-> scrypt ") ? "passphrase" : "identity";
}

/** @throws UserError: the wrong key, a damaged file, or a file that holds something else */
export async function openKit(file: string, content: Uint8Array, key: Key): Promise<Kit> {
  lockOf(file, content);
  const decrypter = new Decrypter();
  if ("passphrase" in key) decrypter.addPassphrase(key.passphrase);
  else for (const identity of key.identities) addIdentity(decrypter, identity);
  let text: string;
  try {
    text = await decrypter.decrypt(content, "text");
  } catch (error) {
    if (error instanceof Error && error.message.startsWith("no identity matched")) {
      const what = "passphrase" in key ? "wrong passphrase" : "none of the identities opens it";
      throw new UserError(`${file}: ${what}; nothing was written`);
    }
    throw new UserError(`${file} is damaged or cut short: take another copy; nothing was written`);
  }
  return parseKit(file, text);
}

function addIdentity(decrypter: Decrypter, identity: string): void {
  try {
    decrypter.addIdentity(identity);
  } catch {
    throw new UserError("the identity file holds a line that is no age identity (AGE-SECRET-KEY-1...)");
  }
}

function parseKit(file: string, text: string): Kit {
  try {
    return shape.parse(JSON.parse(text));
  } catch {
    throw new UserError(
      `${file} opens, but is no kit that this version knows (see what it is: age -d ${word(file)}; or use the clone's version of the day it was made)`,
    );
  }
}
