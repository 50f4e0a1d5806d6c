/** Look-ups at the tests' DNS server, and only there. */
import { Resolver } from "node:dns/promises";
import type { Environment } from "./environment";

/** Addresses of a name. @throws when it has none */
export async function resolveVia({ dns }: Pick<Environment, "dns">, name: string): Promise<string[]> {
  const resolver = new Resolver({ timeout: 2000, tries: 3 });
  resolver.setServers([dns.server]);
  return (await resolver.resolve4(name)).sort();
}
