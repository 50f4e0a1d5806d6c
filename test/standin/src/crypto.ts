/**
 * What the server keeps secret: rows encrypted with the three Active Record keys, and passwords.
 *
 * Mastodon encrypts with AES-256-GCM under a key that Rails derives from the primary key and the salt; the deterministic key serves other
 * columns. Here all three go into the one key, so that a restore with any of them wrong is found out.
 */
import {
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  hkdfSync,
  pbkdf2Sync,
  randomBytes,
  scryptSync,
  timingSafeEqual,
} from "node:crypto";
import type { Keys } from "./settings.ts";

export class DecryptionError extends Error {
  override readonly name = "ActiveRecord::Encryption::Errors::Decryption";
}

export class Vault {
  readonly #key: Buffer;

  constructor(keys: Keys) {
    const primary = pbkdf2Sync(keys.primaryKey, keys.keyDerivationSalt, 65_536, 32, "sha256");
    this.#key = Buffer.from(hkdfSync("sha256", primary, keys.keyDerivationSalt, keys.deterministicKey, 32));
  }

  /** The envelope has the shape Rails gives it: `{"p": payload, "h": {"iv": …, "at": …}}`, all base64. */
  encrypt(text: string): string {
    const iv = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", this.#key, iv);
    const payload = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return JSON.stringify({
      p: payload.toString("base64"),
      h: { iv: iv.toString("base64"), at: cipher.getAuthTag().toString("base64") },
    });
  }

  decrypt(envelope: string): string {
    try {
      const { p, h } = JSON.parse(envelope) as { p: string; h: { iv: string; at: string } };
      const decipher = createDecipheriv("aes-256-gcm", this.#key, Buffer.from(h.iv, "base64"));
      decipher.setAuthTag(Buffer.from(h.at, "base64"));
      return Buffer.concat([decipher.update(Buffer.from(p, "base64")), decipher.final()]).toString("utf8");
    } catch (cause) {
      throw new DecryptionError(
        "A value in the database cannot be decrypted with these ACTIVE_RECORD_ENCRYPTION_* keys: they are not the keys it was written with.",
        { cause },
      );
    }
  }
}

export interface PemPair {
  readonly publicKey: string;
  readonly privateKey: string;
}

export function generateSigningKey(): PemPair {
  return generateKeyPairSync("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
}

const COST = { N: 16_384, r: 8, p: 1 } as const;

export function hashPassword(password: string): string {
  const salt = randomBytes(16);
  const hash = scryptSync(password, salt, 32, COST);
  return `$scrypt$${COST.N}$${COST.r}$${COST.p}$${salt.toString("base64url")}$${hash.toString("base64url")}`;
}

export function verifyPassword(password: string, stored: string): boolean {
  const [, scheme, N, r, p, salt, hash] = stored.split("$");
  if (scheme !== "scrypt" || salt === undefined || hash === undefined) return false;
  const expected = Buffer.from(hash, "base64url");
  const actual = scryptSync(password, Buffer.from(salt, "base64url"), expected.length, {
    N: Number(N),
    r: Number(r),
    p: Number(p),
  });
  return timingSafeEqual(actual, expected);
}
