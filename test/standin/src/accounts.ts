import { randomBytes } from "node:crypto";
import { resolve4, resolve6, resolveMx } from "node:dns/promises";
import type pg from "pg";
import { type Vault, generateSigningKey, hashPassword } from "./crypto.ts";
import type { Database } from "./database.ts";

export interface Account {
  readonly id: string;
  readonly username: string;
  readonly domain: string | null;
  readonly private_key: string | null;
  readonly public_key: string;
  readonly uri: string;
  readonly inbox_url: string;
  readonly shared_inbox_url: string;
  readonly display_name: string;
  readonly created_at: Date;
}

export interface User {
  readonly id: string;
  readonly account_id: string;
  readonly email: string;
  readonly encrypted_password: string;
  readonly role_id: string | null;
  readonly confirmed_at: Date | null;
  readonly approved: boolean;
  readonly disabled: boolean;
}

/** A record that Mastodon would not have saved; each fault as its attribute and its kind, plus words for people. */
export class InvalidRecord extends Error {
  override readonly name = "InvalidRecord";
  readonly faults: readonly { readonly attribute: string; readonly type: string; readonly text: string }[];

  constructor(faults: InvalidRecord["faults"]) {
    super(`Validation failed: ${faults.map((fault) => fault.text).join(", ")}`);
    this.faults = faults;
  }
}

export async function findLocal(database: Database, username: string): Promise<Account | undefined> {
  const rows = await database.query<Account & pg.QueryResultRow>(
    "SELECT * FROM accounts WHERE lower(username) = lower($1) AND domain IS NULL AND id > 0",
    [username],
  );
  return rows[0];
}

/** Whose page the front page of a single-user server is. */
export async function firstLocal(database: Database): Promise<Account | undefined> {
  const rows = await database.query<Account & pg.QueryResultRow>(
    "SELECT * FROM accounts WHERE domain IS NULL AND id > 0 ORDER BY id LIMIT 1",
  );
  return rows[0];
}

export async function findAccount(database: Database, id: string): Promise<Account | undefined> {
  return (await database.query<Account & pg.QueryResultRow>("SELECT * FROM accounts WHERE id = $1", [id]))[0];
}

export async function userOf(database: Database, accountId: string): Promise<User | undefined> {
  return (await database.query<User & pg.QueryResultRow>("SELECT * FROM users WHERE account_id = $1", [accountId]))[0];
}

/** Mastodon wants a mail domain that resolves; in a cluster without DNS to the world, `tootctl accounts create` fails on this. */
export async function isReachable(email: string): Promise<boolean> {
  const domain = email.split("@")[1] ?? "";
  const hosts = [
    domain,
    ...(await resolveMx(domain).then(
      (records) => records.map((record) => record.exchange),
      () => [],
    )),
  ];
  for (const host of hosts) {
    if ((await resolve4(host).catch(() => [])).length > 0) return true;
    if ((await resolve6(host).catch(() => [])).length > 0) return true;
  }
  return false;
}

export interface NewUser {
  readonly username: string;
  readonly email: string;
  readonly password: string;
  readonly role: string | undefined;
  readonly confirmed: boolean;
  readonly approved: boolean;
  readonly checkMail: boolean;
}

async function faultsOf(client: pg.ClientBase, user: NewUser): Promise<InvalidRecord["faults"]> {
  const faults: { attribute: string; type: string; text: string }[] = [];
  if (!/^[a-z0-9_]+$/i.test(user.username))
    faults.push({
      attribute: "account.username",
      type: "invalid",
      text: "Username must contain only letters, numbers and underscores",
    });
  else if (user.username.length > 30)
    faults.push({
      attribute: "account.username",
      type: "too_long",
      text: "Username is too long (maximum is 30 characters)",
    });
  const { rows: taken } = await client.query(
    "SELECT 1 FROM accounts WHERE lower(username) = lower($1) AND domain IS NULL",
    [user.username],
  );
  if (taken.length > 0)
    faults.push({
      attribute: "account.username",
      type: "taken",
      text: `Username ${user.username} has already been taken`,
    });
  if (!/^[^@\s]+@[^@\s]+$/.test(user.email))
    faults.push({ attribute: "email", type: "invalid", text: "Email is invalid" });
  else if (user.checkMail && !(await isReachable(user.email)))
    faults.push({
      attribute: "email",
      type: "unreachable",
      text: "Email does not seem to exist: its domain does not resolve",
    });
  const { rows: mail } = await client.query("SELECT 1 FROM users WHERE lower(email) = lower($1)", [user.email]);
  if (mail.length > 0)
    faults.push({ attribute: "email", type: "taken", text: `Email ${user.email} has already been taken` });
  if (user.password.length < 8 || Buffer.byteLength(user.password) > 72)
    faults.push({ attribute: "password", type: "length", text: "Password must have 8 to 72 characters" });
  return faults;
}

export async function roleId(client: pg.ClientBase, name: string): Promise<string | undefined> {
  return (await client.query<{ id: string }>("SELECT id FROM user_roles WHERE name = $1", [name])).rows[0]?.id;
}

export async function createUser(client: pg.ClientBase, vault: Vault, user: NewUser): Promise<void> {
  const role = user.role === undefined ? undefined : await roleId(client, user.role);
  if (user.role !== undefined && role === undefined)
    throw new InvalidRecord([{ attribute: "role", type: "invalid", text: "Cannot find user role with that name" }]);
  const faults = await faultsOf(client, user);
  if (faults.length > 0) throw new InvalidRecord(faults);
  const key = generateSigningKey();
  const { rows } = await client.query<{ id: string }>(
    "INSERT INTO accounts (username, display_name, private_key, public_key) VALUES ($1, '', $2, $3) RETURNING id",
    [user.username, vault.encrypt(key.privateKey), key.publicKey],
  );
  await client.query(
    "INSERT INTO users (account_id, email, encrypted_password, role_id, confirmed_at, approved) VALUES ($1, $2, $3, $4, $5, $6)",
    [
      rows[0]?.id,
      user.email,
      hashPassword(user.password),
      role ?? null,
      user.confirmed ? new Date() : null,
      user.approved,
    ],
  );
}

export const randomPassword = (): string => randomBytes(16).toString("hex");

/** Tries every encrypted value of the newest accounts; throws the DecryptionError of the first that these keys do not open. */
export async function assertReadable(database: Database, vault: Vault): Promise<number> {
  const rows = await database.query<{ private_key: string }>(
    "SELECT private_key FROM accounts WHERE private_key IS NOT NULL ORDER BY id DESC LIMIT 20",
  );
  for (const row of rows) vault.decrypt(row.private_key);
  return rows.length;
}
