/**
 * `bin/rails runner`: the stand-in cannot run Ruby. It knows homestead's own scripts by their first line, and does what they do, with the same
 * variables, output and exit codes. The scripts: components/owner-account.rb and components/drill.rb.
 */
import { readFileSync } from "node:fs";
import { InvalidRecord, assertReadable, createUser, findLocal, roleId, userOf } from "./accounts.ts";
import type { App } from "./app.ts";
import { DecryptionError } from "./crypto.ts";
import { Abort, explain } from "./log.ts";
import { DRILL, OWNER_ACCOUNT } from "./markers.ts";

/** The variables that only one script reads. Everywhere else they are unknown, as they are to Mastodon. */
const VARIABLES: Readonly<Record<string, readonly string[]>> = {
  [OWNER_ACCOUNT]: ["OWNER_USERNAME", "OWNER_EMAIL", "OWNER_PASSWORD", "OWNER_REGISTRATIONS"],
  [DRILL]: ["MEDIA_WRITTEN_BEFORE"],
};

export interface Script {
  readonly marker: string;
  readonly variables: readonly string[];
}

export function identify(file: string): Script {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new Abort(`Please specify a valid ruby command or the path of a script to run: ${explain(cause)}`);
  }
  const marker = text.split(/\r?\n/, 1)[0] ?? "";
  const variables = VARIABLES[marker];
  if (variables === undefined)
    throw new Abort(
      `rails runner: the first line of ${file} is not one the stand-in knows (${Object.keys(VARIABLES).join("; ")}). It cannot run Ruby.`,
    );
  return { marker, variables };
}

class ExitWith extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

async function ownerAccount(app: App, env: NodeJS.ProcessEnv): Promise<void> {
  const username = (env.OWNER_USERNAME ?? "").trim();
  const email = (env.OWNER_EMAIL ?? "").trim();
  const password = env.OWNER_PASSWORD ?? "";
  const missing = Object.entries({ OWNER_USERNAME: username, OWNER_EMAIL: email, OWNER_PASSWORD: password })
    .filter(([, value]) => value === "")
    .map(([name]) => name);
  if (missing.length > 0) throw new ExitWith(2, `not set: ${missing.join(", ")}`);
  const registrations = env.OWNER_REGISTRATIONS ?? "none";
  if (registrations !== "none" && registrations !== "approved")
    throw new ExitWith(2, `OWNER_REGISTRATIONS is ${registrations}; it must be none or approved`);
  await app.usable().catch((cause: unknown) => {
    if (cause instanceof DecryptionError) throw cause;
    throw new ExitWith(4, `the database is not ready: ${explain(cause)}`);
  });

  const [mode] = await app.database.query<{ value: string }>(
    "SELECT value FROM settings WHERE var = 'registrations_mode'",
  );
  if (mode?.value !== registrations)
    await app.database.query(
      "INSERT INTO settings (var, value) VALUES ('registrations_mode', $1) ON CONFLICT (var) DO UPDATE SET value = EXCLUDED.value",
      [registrations],
    );

  const account = await findLocal(app.database, username);
  if (account === undefined) {
    try {
      await app.database.transaction(async (client) => {
        if ((await roleId(client, "Owner")) === undefined)
          throw new ExitWith(4, "the database is not ready: it has no role named Owner (was it seeded?)");
        await createUser(client, app.vault, {
          username,
          email,
          password,
          role: "Owner",
          confirmed: true,
          approved: true,
          checkMail: false,
        });
      });
    } catch (error) {
      if (!(error instanceof InvalidRecord)) throw error;
      throw new ExitWith(error.faults.some((fault) => fault.type === "taken") ? 3 : 2, error.message);
    }
    process.stdout.write("created\n");
    return;
  }
  const user = await userOf(app.database, account.id);
  if (user === undefined) throw new ExitWith(3, `@${username} exists without a user; it cannot become the owner`);
  // Only what differs is written: on a database that is right already, and read-only perhaps, there is nothing to do.
  await app.database.transaction(async (client) => {
    const owner = await roleId(client, "Owner");
    if (owner === undefined)
      throw new ExitWith(4, "the database is not ready: it has no role named Owner (was it seeded?)");
    if (user.role_id !== owner || !user.approved || user.confirmed_at === null)
      await client.query(
        "UPDATE users SET role_id = $2, approved = true, confirmed_at = coalesce(confirmed_at, now()) WHERE id = $1",
        [user.id, owner],
      );
  });
  if (user.disabled) process.stderr.write(`owner-account: @${username} is disabled, and stays so\n`);
  process.stdout.write("exists\n");
}

async function drill(app: App, env: NodeJS.ProcessEnv): Promise<void> {
  const [row] = await app.database.query<{ statuses: string; accounts: string; newest: Date | null }>(
    "SELECT (SELECT count(*) FROM statuses) AS statuses, (SELECT count(*) FROM accounts) AS accounts, (SELECT max(created_at) FROM statuses) AS newest",
  );
  const media = await app.database.query<{ file_key: string }>(
    "SELECT file_key FROM media_attachments WHERE created_at < coalesce($1::timestamptz, 'infinity') ORDER BY id DESC LIMIT 5",
    [env.MEDIA_WRITTEN_BEFORE ?? null],
  );
  let decrypted = true;
  let encryptedValues = 0;
  try {
    encryptedValues = await assertReadable(app.database, app.vault);
  } catch (error) {
    if (!(error instanceof DecryptionError)) throw error;
    decrypted = false;
  }
  const report = {
    statuses: Number(row?.statuses ?? 0),
    accounts: Number(row?.accounts ?? 0),
    newestStatusAt: row?.newest?.toISOString() ?? null,
    decrypted,
    encryptedValues,
    mediaSample: media.map((one) => one.file_key),
  };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

/** The exit code. */
export async function runScript(app: App, script: Script, env: NodeJS.ProcessEnv): Promise<number> {
  try {
    await (script.marker === DRILL ? drill(app, env) : ownerAccount(app, env));
    return 0;
  } catch (error) {
    if (!(error instanceof ExitWith)) throw error;
    process.stderr.write(`owner-account: ${error.message}\n`);
    return error.code;
  }
}
