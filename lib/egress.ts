/** Which servers of a house the network policies (components/isolation.ts) keep the site's pods from. */
import * as dns from "node:dns/promises";
import * as net from "node:net";
import type { Settings } from "../settings";
import { familyOf, holds, houseRangeFault, privateRanges, sentTo } from "./address-ranges";

/** A server that pods must reach. */
export interface Server {
  /** As a person would name it: `the vault's (https://minio.lan:9000)`. */
  what: string;
  /** A host name or an address, without brackets. */
  host: string;
}

/** The servers outside the cluster that a stack names. */
export function serversOf({
  objectStore,
  vault,
  media,
  smtp,
}: Pick<Settings, "objectStore" | "vault" | "media" | "smtp">): Server[] {
  const store = (name: string, endpoint: string): Server => ({
    what: `${name} (${endpoint})`,
    host: new URL(endpoint).hostname.replace(/^\[|\]$/g, ""),
  });
  const stores = [store("the vault", vault.endpoint)];
  if (media.kind === "bucket") stores.push(store("the media bucket", media.endpoint));
  const mail = smtp.kind === "server" ? [{ what: `the mail server (${smtp.host})`, host: smtp.host }] : [];
  return [...(objectStore === "external" ? stores : []), ...mail];
}

/** An address as this machine knows it, or the addresses of a name; none where it has none. */
export async function addressesOf(host: string): Promise<string[]> {
  if (net.isIP(host) !== 0) return [host];
  return (await dns.lookup(host, { all: true }).catch(() => [])).map(({ address }) => address);
}

/**
 * What `network.privateEgress` must name for a server at these addresses to be reached; empty where one of them is
 * reached as it is. What may not be named (loopback, link-local, the clouds' own) is no server's that a pod could reach.
 */
export function missingRanges(
  addresses: readonly string[],
  { families, privateEgress }: Settings["network"],
): string[] {
  const closed = Object.values(privateRanges).flat();
  const mayBeNamed = (address: string) => houseRangeFault(`${address}/${bitsOf(address)}`) === undefined;
  const used = addresses.map(sentTo).filter((address) => families.includes(familyOf(address)));
  const isClosed = (address: string) => holds(closed, address) && !holds(privateEgress, address) && mayBeNamed(address);
  if (!used.every(isClosed)) return [];
  return used.map((address) => `${address}/${bitsOf(address)}`);
}

const bitsOf = (address: string): number => (net.isIPv6(address) ? 128 : 32);
