/**
 * Every request the server makes to other servers goes through here: short timeouts, and no private addresses unless
 * ALLOWED_PRIVATE_ADDRESSES names them. Mastodon refuses them (server-side request forgery); a test network made of private addresses is
 * where one finds out.
 */
import { lookup as resolve, type LookupAddress } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { Agent, buildConnector, setGlobalDispatcher } from "undici";
import { Abort } from "./log.ts";

type Range = [ipaddr.IPv4 | ipaddr.IPv6, number];

export class PrivateAddressError extends Error {
  override readonly name = "Mastodon::PrivateNetworkAddressError";
}

export function parseRanges(addresses: readonly string[]): readonly Range[] {
  return addresses.map((address) => {
    try {
      if (address.includes("/")) return ipaddr.parseCIDR(address);
      const parsed = ipaddr.parse(address);
      return [parsed, parsed.kind() === "ipv4" ? 32 : 128];
    } catch {
      throw new Abort(
        `ALLOWED_PRIVATE_ADDRESSES holds something that is not an address or a network: ${JSON.stringify(address)}`,
      );
    }
  });
}

/** Whether a request to this address is allowed. */
export function isAllowed(address: string, allowed: readonly Range[]): boolean {
  const parsed = ipaddr.process(address);
  if (parsed.range() === "unicast") return true;
  return allowed.some(([network, bits]) => network.kind() === parsed.kind() && parsed.match(network, bits));
}

export function guardOutgoing(addresses: readonly string[]): void {
  const allowed = parseRanges(addresses);
  const refuse = (host: string): PrivateAddressError =>
    new PrivateAddressError(`${host} has a private address; ALLOWED_PRIVATE_ADDRESSES does not allow it`);

  const lookup: LookupFunction = (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
      if (error !== null) return callback(error, [], 0);
      const usable = found.filter(({ address }) => isAllowed(address, allowed));
      const first = usable[0];
      if (first === undefined) return callback(refuse(hostname), [], 0);
      if (options.all === true) callback(null, usable);
      else callback(null, first.address, first.family);
    });
  };
  const connector = buildConnector({ timeout: 5_000, lookup });
  setGlobalDispatcher(
    new Agent({
      headersTimeout: 10_000,
      bodyTimeout: 10_000,
      keepAliveTimeout: 4_000,
      connect(options, callback) {
        // Node looks nothing up when the host is an address already.
        const host = options.hostname.replace(/^\[|\]$/g, "");
        if (isIP(host) !== 0 && !isAllowed(host, allowed)) callback(refuse(host), null);
        else connector(options, callback);
      },
    }),
  );
}
