import * as crypto from "node:crypto";

/** First 16 hex digits of a SHA-256: enough to tell two versions of a text apart, and nothing of the text. */
export const digest = (text: string): string => crypto.createHash("sha256").update(text).digest("hex").slice(0, 16);
