import { createECDH, randomBytes, randomInt } from "node:crypto";
import { createIfMissing, currentVersion, migrate, prepare, seedOnly } from "./migrations.ts";
import type { Settings } from "./settings.ts";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

const alphanumeric = (length: number): string =>
  Array.from({ length }, () => LETTERS[randomInt(LETTERS.length)]).join("");

const padded = (bytes: Buffer): string => bytes.toString("base64").replaceAll("+", "-").replaceAll("/", "_");

/** Tasks that only print something and so need no settings at all. */
export function printTask(task: string): string | undefined {
  switch (task) {
    case "secret":
      return randomBytes(64).toString("hex");
    case "db:encryption:init":
      return ["DETERMINISTIC_KEY", "KEY_DERIVATION_SALT", "PRIMARY_KEY"]
        .map((name) => `ACTIVE_RECORD_ENCRYPTION_${name}=${alphanumeric(32)}`)
        .join("\n");
    case "mastodon:webpush:generate_vapid_key": {
      const pair = createECDH("prime256v1");
      const publicKey = pair.generateKeys();
      return `VAPID_PRIVATE_KEY=${padded(pair.getPrivateKey())}\nVAPID_PUBLIC_KEY=${padded(publicKey)}`;
    }
    default:
      return undefined;
  }
}

export async function runTask(settings: Settings, task: string): Promise<void> {
  switch (task) {
    case "db:prepare":
    case "db:setup":
      return prepare(settings);
    case "db:migrate":
      return migrate(settings);
    case "db:create":
      return createIfMissing(settings.database);
    case "db:seed":
      return seedOnly(settings);
    case "db:version":
      process.stdout.write(
        `database: ${settings.database.database}\nCurrent version: ${await currentVersion(settings)}\n`,
      );
  }
}
