/**
 * Stand-ins for secrets in a plan. They are not secret: fixed, published here, obviously fake, and in the formats
 * that `settings.ts` asks for, so that a plan passes the same checks as an update. Never give them to a server.
 */
import { identityFingerprint, vapidPublicKeyOf } from "../identity";
import type { SharedSecrets } from "../identity";

// 32 bytes of ASCII: a valid P-256 scalar that reads as what it is.
const vapidPrivateKey = Buffer.from("homestead plan: not a secret key").toString("base64url") + "=";

/** A whole identity made of placeholders. */
export const placeholderSecrets = {
  secretKeyBase: "0badc0de".repeat(16),
  vapidPrivateKey,
  vapidPublicKey: vapidPublicKeyOf(vapidPrivateKey),
  activeRecordPrimaryKey: "PlaceholderOfThePrimaryKey000000",
  activeRecordDeterministicKey: "PlaceholderOfTheDeterministicKey",
  activeRecordKeyDerivationSalt: "PlaceholderOfTheDerivationSalt00",
  databasePassword: "placeholder-databasePassword",
  ownerPassword: "placeholder-ownerPassword",
} as const satisfies SharedSecrets;

/** Optional secrets whose format is checked, by their names or their paths. */
const placeholderOptional: Partial<Record<string, string>> = {
  "monitoring.notify": "https://placeholder.invalid/monitoring.notify",
  dnsKey: Buffer.from("homestead plan: not the key of a DNS server").toString("base64"),
};

const placeholderFingerprint = identityFingerprint(placeholderSecrets);

/**
 * Gives each secret its placeholder and remembers it, so that {@link Placeholders.hide} finds it again wherever the
 * program put it.
 */
export class Placeholders {
  private readonly names = new Map<string, string>();

  /** The text that stands for the secret `name` while the program runs. */
  of(name: string): string {
    const fixed = (placeholderSecrets as Partial<Record<string, string>>)[name] ?? placeholderOptional[name];
    // The closing mark keeps one placeholder from being the beginning of another.
    const text = fixed ?? `placeholder-${name}-`;
    this.names.set(text, `<${name}>`);
    this.names.set(Buffer.from(text).toString("base64"), `<base64 of ${name}>`);
    return text;
  }

  /** The text with every placeholder in it replaced by `<name>`, and whether there was one. */
  hide(text: string): { shown: string; found: boolean } {
    let shown = text;
    for (const [value, name] of [...this.names].sort(([a], [b]) => b.length - a.length)) {
      shown = shown.replaceAll(value, name);
    }
    const found = shown !== text;
    // Made to be shown, but the one of placeholders says nothing.
    return { shown: shown.replaceAll(placeholderFingerprint, "<fingerprint of the identity>"), found };
  }
}
