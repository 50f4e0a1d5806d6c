/** Looks for secrets in clear where none may be. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { minify } from "../../../lib/kit/kubeconfig";
import type { KubeObject } from "../support/cluster";
import type { ClusterAccess } from "../support/environment";

/** A secret as it might turn up: as it is, and in the encodings that Kubernetes, URLs and JSON give it. */
export function disguises(value: string): string[] {
  const bytes = Buffer.from(value);
  return [
    ...new Set([
      value,
      bytes.toString("base64").replace(/=+$/, ""),
      bytes.toString("base64url").replace(/=+$/, ""),
      // Inside a longer base64 text the same bytes look different at each of the three offsets.
      ...[1, 2].map((offset) =>
        Buffer.concat([Buffer.alloc(offset), bytes])
          .toString("base64")
          .replace(/=+$/, "")
          .slice(4, -2),
      ),
      encodeURIComponent(value),
      JSON.stringify(value).slice(1, -1),
    ]),
  ].filter((text) => text.length >= 8);
}

/** Names of the secrets a text holds in clear. Never their values. */
export function secretsIn(text: string, secrets: Record<string, string>): string[] {
  return Object.entries(secrets)
    .filter(([, value]) => disguises(value).some((disguise) => text.includes(disguise)))
    .map(([name]) => name);
}

/** What a kubeconfig's context shows to its cluster, as the program's provider is given it; nothing where a program hands it out. */
export function credentialsOf({ kubeconfig, context }: Pick<ClusterAccess, "kubeconfig" | "context">) {
  const { users } = parse(minify(kubeconfig, [context]).text) as { users: { user: Record<string, unknown> }[] };
  const credentials: Record<string, string> = {};
  for (const { user } of users) {
    for (const key of ["client-key-data", "token", "password"]) {
      const value = user[key];
      if (typeof value === "string") credentials[`kubeconfig ${key}`] = value;
    }
  }
  return credentials;
}

/**
 * What a cluster made for itself and nobody configured: the private keys of authorities and certificates, and the passwords,
 * by the names of the Secrets that hold them.
 */
export function keysIn(objects: readonly Pick<KubeObject, "metadata" | "data">[]): Record<string, string> {
  return Object.fromEntries(
    objects.flatMap(({ metadata, data = {} }) =>
      Object.entries(data)
        .filter(([key]) => /(^|\.)key$|^(password|token)$/.test(key))
        .map(([key, value]) => [`${metadata.name}/${key}`, Buffer.from(value, "base64").toString()] as const)
        // Of a mail server that asks for none.
        .filter(([, value]) => value !== ""),
    ),
  );
}

/** Every file below a folder, as `path: names of secrets` for those that hold one. Links are not followed. */
export function secretsBelow(
  folder: string,
  secrets: Record<string, string>,
  skip: (file: string) => boolean = () => false,
): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .filter((file) => !skip(path.relative(folder, file)))
    .flatMap((file) => {
      const found = secretsIn(fs.readFileSync(file, "latin1"), secrets);
      return found.length > 0 ? [`${path.relative(folder, file)}: ${found.join(", ")}`] : [];
    });
}
