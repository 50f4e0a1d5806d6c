/**
 * The identity: the secrets that make this server *this* server, in the formats Mastodon wants, and the
 * passwords that go with it. Lose them and the restored database cannot be read (docs.joinmastodon.org,
 * "Configuring your environment", Secrets).
 */
import * as crypto from "node:crypto";

export interface Identity {
  /** 128 hex digits, `rails secret`. */
  secretKeyBase: string;
  /** base64url with padding, 32 bytes: 44 characters. Belongs to the public key. */
  vapidPrivateKey: string;
  /** base64url with padding, an uncompressed P-256 point, 65 bytes: 88 characters. */
  vapidPublicKey: string;
  /** 32 letters and digits each, `rails db:encryption:init`. */
  activeRecordPrimaryKey: string;
  activeRecordDeterministicKey: string;
  activeRecordKeyDerivationSalt: string;
}

/** The identity and the two passwords that must be equal on both sites. */
export interface SharedSecrets extends Identity {
  databasePassword: string;
  ownerPassword: string;
}

const alphanumerics = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const randomText = (length: number) =>
  Array.from({ length }, () => alphanumerics[crypto.randomInt(alphanumerics.length)]).join("");
const base64url = (bytes: Buffer) => bytes.toString("base64").replaceAll("+", "-").replaceAll("/", "_");

/** Makes a new identity. Call it once in a server's life. */
export function createSharedSecrets(): SharedSecrets {
  const vapid = crypto.createECDH("prime256v1");
  vapid.generateKeys();
  return {
    secretKeyBase: crypto.randomBytes(64).toString("hex"),
    // A leading zero byte is dropped by getPrivateKey(): pad, or one key in 256 has 43 characters.
    vapidPrivateKey: base64url(Buffer.concat([Buffer.alloc(32), vapid.getPrivateKey()]).subarray(-32)),
    vapidPublicKey: base64url(vapid.getPublicKey()),
    activeRecordPrimaryKey: randomText(32),
    activeRecordDeterministicKey: randomText(32),
    activeRecordKeyDerivationSalt: randomText(32),
    databasePassword: randomText(32),
    ownerPassword: randomText(24),
  };
}

const formats: Record<keyof SharedSecrets, { rule: RegExp; allowed: string }> = {
  secretKeyBase: { rule: /^[0-9a-f]{128}$/, allowed: "128 hex digits (bundle exec rails secret)" },
  vapidPrivateKey: {
    rule: /^[A-Za-z0-9_-]{43}=$/,
    allowed: "a VAPID private key: 44 characters of base64url with padding",
  },
  vapidPublicKey: {
    rule: /^B[A-Za-z0-9_-]{86}=$/,
    allowed: "a VAPID public key: 88 characters of base64url with padding",
  },
  activeRecordPrimaryKey: {
    rule: /^[A-Za-z0-9]{32,}$/,
    allowed: "32 or more letters and digits (rails db:encryption:init)",
  },
  activeRecordDeterministicKey: {
    rule: /^[A-Za-z0-9]{32,}$/,
    allowed: "32 or more letters and digits (rails db:encryption:init)",
  },
  activeRecordKeyDerivationSalt: {
    rule: /^[A-Za-z0-9]{32,}$/,
    allowed: "32 or more letters and digits (rails db:encryption:init)",
  },
  // Postgres and Rails take any text; a quote, a space or a line end has broken enough shell scripts.
  databasePassword: { rule: /^[A-Za-z0-9_-]{16,}$/, allowed: "16 or more letters, digits, _ and -" },
  ownerPassword: { rule: /^.{8,72}$/, allowed: "8 to 72 characters (Mastodon's rule)" },
};

/** The public key that belongs to a VAPID private key, in the same encoding. */
export function vapidPublicKeyOf(privateKey: string): string {
  const vapid = crypto.createECDH("prime256v1");
  vapid.setPrivateKey(Buffer.from(privateKey, "base64url"));
  return base64url(vapid.getPublicKey());
}

/** Not every 32 bytes are a private key: zero and numbers beyond the curve's order are none. */
function publicKeyOrNone(privateKey: string): string | undefined {
  try {
    return vapidPublicKeyOf(privateKey);
  } catch {
    return undefined;
  }
}

/** What is wrong with the given secrets; missing ones are not reported here. */
export function identityFaults(secrets: Partial<Record<string, string>>): { key: string; allowed: string }[] {
  const faults = Object.entries(formats).flatMap(([key, { rule, allowed }]) => {
    const value = secrets[key];
    return value !== undefined && !rule.test(value) ? [{ key, allowed }] : [];
  });
  const { vapidPrivateKey: privateKey, vapidPublicKey: publicKey } = secrets;
  if (privateKey && !faults.some((f) => f.key === "vapidPrivateKey")) {
    const belongs = publicKeyOrNone(privateKey);
    if (belongs === undefined) faults.push({ key: "vapidPrivateKey", allowed: formats.vapidPrivateKey.allowed });
    else if (publicKey && publicKey !== belongs && !faults.some((f) => f.key === "vapidPublicKey")) {
      faults.push({
        key: "vapidPublicKey",
        allowed: "the public key that belongs to vapidPrivateKey: the two are a pair",
      });
    }
  }
  return faults;
}

/** First 16 hex digits of a SHA-256 over the identity: tells two identities apart and reveals neither. */
export function identityFingerprint(identity: Identity): string {
  const order: (keyof Identity)[] = [
    "secretKeyBase",
    "vapidPrivateKey",
    "vapidPublicKey",
    "activeRecordPrimaryKey",
    "activeRecordDeterministicKey",
    "activeRecordKeyDerivationSalt",
  ];
  const hash = crypto.createHash("sha256").update("homestead identity v1\n");
  for (const key of order) hash.update(`${key}=${identity[key]}\n`);
  return hash.digest("hex").slice(0, 16);
}
