import * as crypto from "node:crypto";
import * as pulumi from "@pulumi/pulumi";

/** First 16 hex digits of a SHA-256: enough to tell two versions of a text apart, and nothing of the text. */
export const digest = (text: string): string => crypto.createHash("sha256").update(text).digest("hex").slice(0, 16);

/** For a pod's annotation: changes with any of the secrets that the pod reads at its start, and is none itself. */
export const secretsDigest = (...secrets: pulumi.Input<string>[]): pulumi.Output<string> =>
  pulumi.unsecret(pulumi.all(secrets).apply((values) => digest(JSON.stringify(values))));
