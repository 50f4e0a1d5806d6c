/** Which servers of a house the network policies (components/isolation.ts) keep the site's pods from. */
import * as dns from "node:dns/promises";
import * as net from "node:net";
import type { Settings } from "../settings";
import { familyOf, holds, houseRangeFault, privateRanges, sentTo } from "./address-ranges";

/** On the site's namespace: what the stack names for who talks to the vault, for whoever judges the policies. */
export const privateEgressAnnotation = "homestead/private-egress";

/** A server that pods must reach. */
export interface Server {
  /** As a person would name it: `the vault (https://minio.lan:9000)`. */
  what: string;
  /** A host name or an address, without brackets. */
  host: string;
  /** The key that names it, and the value there. */
  key: "vault.endpoint" | "media.endpoint" | "smtp.host";
  value: string;
  /** The list of private ranges that lets through who asks it. */
  list: "privateEgress" | "mastodonPrivateEgress";
}

/** The servers outside the cluster that a stack names. */
export function serversOf({
  objectStore,
  vault,
  media,
  smtp,
}: Pick<Settings, "objectStore" | "vault" | "media" | "smtp">): Server[] {
  const server = (name: string, value: string, rest: Omit<Server, "what" | "value">): Server => ({
    what: `${name} (${value})`,
    value,
    ...rest,
  });
  const hostIn = (endpoint: string) => new URL(endpoint).hostname.replace(/^\[|\]$/g, "");
  const list = "mastodonPrivateEgress";
  const servers: Server[] = [];
  if (objectStore === "external") {
    const { endpoint } = vault;
    servers.push(
      server("the vault", endpoint, { host: hostIn(endpoint), key: "vault.endpoint", list: "privateEgress" }),
    );
  }
  if (objectStore === "external" && media.kind === "bucket") {
    const { endpoint } = media;
    servers.push(server("the media bucket", endpoint, { host: hostIn(endpoint), key: "media.endpoint", list }));
  }
  if (smtp.kind === "server") {
    servers.push(server("the mail server", smtp.host, { host: smtp.host, key: "smtp.host", list }));
  }
  return servers;
}

/** An address as this machine knows it, or the addresses of a name; none where it has none. */
export async function addressesOf(host: string): Promise<string[]> {
  if (net.isIP(host) !== 0) return [host];
  return (await dns.lookup(host, { all: true }).catch(() => [])).map(({ address }) => address);
}

/**
 * Of a server's addresses those by which pods can get to it, where it is named: of the families that the policies have, and no
 * machine's own (loopback, link-local) or cloud's.
 */
export function reachable(addresses: readonly string[], families: Settings["network"]["families"]): string[] {
  return addresses
    .map((address) => sentTo(address.replace(/%.*$/, "")))
    .filter((address) => families.includes(familyOf(address)) && houseRangeFault(rangeOf(address)) === undefined);
}

/**
 * What a list of private ranges must name for a server at these addresses, which are {@link reachable}, to be reached; empty
 * where one of them is reached as it is.
 */
export function missingRanges(addresses: readonly string[], ranges: readonly string[]): string[] {
  const closed = Object.values(privateRanges).flat();
  return addresses.every((address) => holds(closed, address) && !holds(ranges, address)) ? addresses.map(rangeOf) : [];
}

const rangeOf = (address: string): string => `${address}/${net.isIPv6(address) ? 128 : 32}`;
