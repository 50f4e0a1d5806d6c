/** What a status asks from outside the cluster: DNS and certificates. */
import * as dns from "node:dns/promises";
import * as net from "node:net";
import * as tls from "node:tls";
import type { DnsAnswer } from "./lines";

const seconds = 5;

/**
 * Days that the certificate served for `host` at `address` is still valid, whoever signed it.
 * @throws Error where it is for other hosts: Traefik's own, say, which it serves until it has ours
 */
export function certificateDays(address: string, host: string, now: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: address, port: 443, servername: host, rejectUnauthorized: false }, () => {
      const certificate = socket.getPeerCertificate();
      socket.destroy();
      if (tls.checkServerIdentity(host, certificate) !== undefined) {
        const { subjectaltname: names, subject } = certificate;
        return reject(new Error(`the certificate served for ${host} is for ${names ?? String(subject.CN)}`));
      }
      const { valid_to: end } = certificate;
      resolve((Date.parse(end) / 1000 - now) / 86_400);
    });
    socket.setTimeout(seconds * 1000, () => socket.destroy(new Error(`no answer within ${seconds} s`)));
    socket.on("error", reject);
  });
}

/**
 * Asks the zone's own server, which knows of a change at once; where it cannot be found or does not answer, the resolver.
 * @param servers DNS servers to begin with; this machine's own if there are none
 */
export async function addressesOf(name: string, family: 4 | 6, servers: readonly string[] = []): Promise<DnsAnswer> {
  const resolver = resolverAt(servers);
  const own = await zoneServer(name, resolver).catch(() => undefined);
  if (own !== undefined) {
    try {
      return {
        name,
        addresses: await ask(resolverAt([own.address]), name, family),
        source: "authoritative",
        server: own.name,
      };
    } catch (error) {
      if (!isSilent(error)) return { name, addresses: [], source: "authoritative", server: own.name };
    }
  }
  const server = servers[0] ?? resolver.getServers()[0] ?? "this machine's resolver";
  try {
    return { name, addresses: await ask(resolver, name, family), source: "resolver", server };
  } catch (error) {
    if (isSilent(error)) throw error;
    return { name, addresses: [], source: "resolver", server };
  }
}

/** The first of the zone's servers that has an address; the zone is the nearest name above with NS records. */
async function zoneServer(
  name: string,
  resolver: dns.Resolver,
): Promise<{ name: string; address: string } | undefined> {
  const parts = name.split(".");
  for (let i = 0; i < parts.length - 1; i++) {
    const servers = await resolver.resolveNs(parts.slice(i).join(".")).catch(() => []);
    for (const server of servers.sort()) {
      const [address] = await resolver.resolve4(server).catch(() => []);
      if (address !== undefined) return { name: server, address };
    }
  }
  return undefined;
}

function resolverAt(servers: readonly string[]): dns.Resolver {
  const resolver = new dns.Resolver({ timeout: seconds * 1000, tries: 2 });
  if (servers.length > 0) resolver.setServers(servers);
  return resolver;
}

const ask = (resolver: dns.Resolver, name: string, family: 4 | 6) =>
  family === 4 ? resolver.resolve4(name) : resolver.resolve6(name);

/** No answer at all, as opposed to the answer that there is nothing. */
const isSilent = (error: unknown): boolean =>
  !["ENOTFOUND", "ENODATA"].includes((error as NodeJS.ErrnoException).code ?? "");

/** Addresses at which the world reaches a site, from what the stack says. */
export async function ownAddresses(address: string, servers: readonly string[] = []): Promise<string[]> {
  if (net.isIP(address)) return [address];
  return (await addressesOf(address, 4, servers)).addresses;
}
