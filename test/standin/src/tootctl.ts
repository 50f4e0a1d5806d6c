import {
  InvalidRecord,
  createUser,
  findLocal,
  isReachable,
  randomPassword,
  roleId,
  userOf,
  type Account,
} from "./accounts.ts";
import type { App } from "./app.ts";
import { BUILD } from "./build-info.ts";
import type { TootctlCommand } from "./commands.ts";
import { hashPassword } from "./crypto.ts";
import { rebuild } from "./feeds.ts";
import { Abort } from "./log.ts";
import { deploySearch } from "./search.ts";

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function failures(error: InvalidRecord): Abort {
  // The real output names attribute and kind; the sentence after it is the stand-in's.
  return new Abort(
    error.faults.map((fault) => `Failure/Error: ${fault.attribute}\n    ${fault.type}\n${fault.text}`).join("\n"),
  );
}

async function create(app: App, command: Extract<TootctlCommand, { name: "accounts create" }>): Promise<void> {
  const password = randomPassword();
  try {
    await app.database.transaction(async (client) => {
      if (command.role !== undefined && (await roleId(client, command.role)) === undefined)
        throw new Abort("Cannot find user role with that name");
      await createUser(client, app.vault, {
        username: command.username,
        email: command.email,
        password,
        role: command.role,
        confirmed: command.confirmed,
        // Without --approve an account waits for approval: with closed registrations nobody is approved by default.
        approved: command.approve,
        checkMail: true,
      });
    });
  } catch (error) {
    throw error instanceof InvalidRecord ? failures(error) : error;
  }
  say("OK");
  say(`New password: ${password}`);
}

async function modify(app: App, command: Extract<TootctlCommand, { name: "accounts modify" }>): Promise<void> {
  const account = await findLocal(app.database, command.username);
  const user = account === undefined ? undefined : await userOf(app.database, account.id);
  if (user === undefined) throw new Abort("No user with such username");
  const { email } = command;
  if (email !== undefined && !(await isReachable(email)))
    throw failures(
      new InvalidRecord([
        { attribute: "email", type: "unreachable", text: "Email does not seem to exist: its domain does not resolve" },
      ]),
    );
  const password = command.resetPassword ? randomPassword() : undefined;
  await app.database.transaction(async (client) => {
    const set = async (sql: string, ...values: unknown[]): Promise<void> => {
      await client.query(`UPDATE users SET ${sql} WHERE id = $1`, [user.id, ...values]);
    };
    if (command.role !== undefined) {
      const role = await roleId(client, command.role);
      if (role === undefined) throw new Abort("Cannot find user role with that name");
      await set("role_id = $2", role);
    } else if (command.removeRole) await set("role_id = NULL");
    // A new address is unconfirmed until --confirm says otherwise.
    if (email !== undefined) await set("email = $2, confirmed_at = NULL", email);
    if (command.confirm) await set("confirmed_at = coalesce(confirmed_at, now())");
    if (command.enable) await set("disabled = false");
    if (command.disable) await set("disabled = true");
    if (command.approve) await set("approved = true");
    if (command.disable2fa) await set("otp_required_for_login = false");
    if (password !== undefined) {
      await set("encrypted_password = $2", hashPassword(password));
      // Whoever was signed in with the old password is not any more.
      await client.query(
        "UPDATE oauth_access_tokens SET revoked_at = now() WHERE resource_owner_id = $1 AND revoked_at IS NULL",
        [user.id],
      );
    }
  });
  say("OK");
  if (password !== undefined) say(`New password: ${password}`);
}

async function approve(app: App, command: Extract<TootctlCommand, { name: "accounts approve" }>): Promise<void> {
  if (command.number !== undefined && command.number < 0) throw new Abort("Number must be positive");
  if (command.all) await app.database.query("UPDATE users SET approved = true WHERE NOT approved");
  else if (command.number !== undefined)
    await app.database.query(
      "UPDATE users SET approved = true WHERE id IN (SELECT id FROM users WHERE NOT approved ORDER BY id LIMIT $1)",
      [command.number],
    );
  else if (command.username !== undefined) {
    const account = await findLocal(app.database, command.username);
    if (account === undefined) throw new Abort("No such account");
    await app.database.query("UPDATE users SET approved = true WHERE account_id = $1", [account.id]);
  } else return;
  say("OK");
}

async function buildFeeds(app: App, command: Extract<TootctlCommand, { name: "feeds build" }>): Promise<void> {
  const dry = command.dryRun ? " (DRY RUN)" : "";
  if (command.username !== undefined) {
    const account = await findLocal(app.database, command.username);
    if (account === undefined) throw new Abort("No such account");
    if (!command.dryRun) await rebuild(app, account);
    say(`OK${dry}`);
    return;
  }
  const accounts = await app.database.query<Account & { id: string }>(
    "SELECT a.* FROM accounts a JOIN users u ON u.account_id = a.id WHERE u.confirmed_at IS NOT NULL",
  );
  for (const account of accounts) if (!command.dryRun) await rebuild(app, account);
  say(`Regenerated feeds for ${accounts.length} accounts${dry}`);
}

async function clear(redis: App["redis"], match: string): Promise<void> {
  for await (const keys of redis.scanStream({ match }))
    if ((keys as string[]).length > 0) await redis.del(...(keys as string[]));
}

async function mediaUsage(app: App): Promise<void> {
  const [row] = await app.database.query<{ bytes: string }>(
    "SELECT coalesce(sum(file_file_size), 0) AS bytes FROM media_attachments",
  );
  say(`Attachments:\t${row?.bytes ?? 0} Bytes (${row?.bytes ?? 0} Bytes local)`);
}

export async function runTootctl(app: App, command: TootctlCommand): Promise<void> {
  if (command.name === "version") return say(BUILD.version);
  if (command.name === "help")
    return say("Commands: accounts, cache, feeds, media, search, settings, version (a stand-in for tootctl)");
  await app.usable();
  switch (command.name) {
    case "accounts create":
      return create(app, command);
    case "accounts modify":
      return modify(app, command);
    case "accounts approve":
      return approve(app, command);
    case "feeds build":
      return buildFeeds(app, command);
    case "feeds clear":
      await clear(app.redis, "feed:*");
      return say("OK");
    case "cache clear":
      await clear(app.cache, "cache:*");
      return say("OK");
    case "search deploy":
      return deploySearch(app, command, say);
    case "settings registrations":
      await app.database.query(
        "INSERT INTO settings (var, value) VALUES ('registrations_mode', $1) ON CONFLICT (var) DO UPDATE SET value = EXCLUDED.value",
        [command.mode],
      );
      return say("OK");
    case "media usage":
      return mediaUsage(app);
  }
}
