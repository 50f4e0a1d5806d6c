/** Ranges of addresses that are not the internet's, and what is asked of ranges. Pure. */
import * as net from "node:net";

export type Family = "IPv4" | "IPv6";

/**
 * What is not the internet, by the registries of special-purpose addresses (iana.org/assignments/iana-ipv4-special-registry and
 * -ipv6-), in a form that a NetworkPolicy takes as `except`. Not the documentation's ranges (RFC 5737, 3849, 9637): nothing is
 * there anywhere.
 */
export const privateRanges: Record<Family, readonly string[]> = {
  IPv4: [
    "0.0.0.0/8", // this host: Linux takes 0.0.0.0 for itself (RFC 791, 1122)
    "10.0.0.0/8", // private (RFC 1918)
    "100.64.0.0/10", // carrier-grade NAT, tailnets, Alibaba's metadata server (RFC 6598)
    "127.0.0.0/8", // loopback (RFC 1122)
    "168.63.129.16/32", // Azure's WireServer, which hands out a machine's certificates: a public address by its looks
    "169.254.0.0/16", // link-local, where the clouds have their metadata servers (RFC 3927)
    "172.16.0.0/12", // private (RFC 1918)
    "192.0.0.0/24", // protocols' own, Oracle's metadata server among them (RFC 6890)
    "192.168.0.0/16", // private (RFC 1918)
    "198.18.0.0/15", // benchmarks of a network (RFC 2544)
    "224.0.0.0/4", // multicast (RFC 5771)
    "240.0.0.0/4", // reserved, and some networks' own all the same; broadcast (RFC 1112, 919)
  ],
  // Not ::ffff:0:0/96, IPv4 addresses as IPv6 ones (RFC 4291): a kernel sends IPv4 for them, which the list above is asked of;
  // and Kubernetes takes them for IPv4 too, which are not inside of ::/0, and refuses the policy.
  IPv6: [
    "::/128", // this host, to Linux (RFC 4291)
    "::1/128", // loopback (RFC 4291)
    "64:ff9b::/96", // every IPv4 address, where there is NAT64; Mastodon itself does not ask there either (RFC 6052)
    "64:ff9b:1::/48", // the same, of a network's own (RFC 8215)
    "100::/64", // thrown away (RFC 6666)
    "2001::/32", // Teredo: every IPv4 address (RFC 4380)
    "2001:2::/48", // benchmarks of a network (RFC 5180)
    "2002::/16", // 6to4: every IPv4 address (RFC 3056)
    "5f00::/16", // a network's own segments (RFC 9602)
    "fc00::/7", // private, the metadata servers of AWS and of Google among them (RFC 4193)
    "fe80::/10", // link-local (RFC 4291)
    "fec0::/10", // private once, and still routed where it is (RFC 3879)
    "ff00::/8", // multicast (RFC 4291)
  ],
};

/** IPv4 addresses as IPv6 ones (RFC 4291). */
const mapped = "::ffff:0:0/96";

/** What a kernel sends to for an address: the IPv4 one for an IPv4 address as an IPv6 one, and the address itself for all others. */
export function sentTo(address: string): string {
  // As a URL has it, however it is written.
  const [, high, low] =
    /^\[::ffff:([0-9a-f]+):([0-9a-f]+)\]$/.exec(URL.parse(`http://[${address}]`)?.hostname ?? "") ?? [];
  if (high === undefined || low === undefined) return address;
  return [high, low].flatMap((part) => [parseInt(part, 16) >> 8, parseInt(part, 16) & 255]).join(".");
}

/** Where clouds hand out a machine's keys. A tailnet of one's own may have Alibaba's, 100.100.100.200, so that it is not here. */
export const metadataServers: Record<Family, readonly string[]> = {
  IPv4: ["169.254.169.254", "168.63.129.16", "192.0.0.192"],
  // AWS, Google.
  IPv6: ["fd00:ec2::254", "fd20:ce::254"],
};

/** A machine's own addresses, loopback and link-local: no house's range may hold one, and none is another machine's. */
export const machinesOwn = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/128", "::1/128", "fe80::/10"];
const multicast = ["224.0.0.0/4", "ff00::/8"];

/** Why pods may not be let through to a range (`network.privateEgress`), as what is allowed; undefined where they may. */
export function houseRangeFault(range: string): string | undefined {
  if (machinesOwn.some((own) => overlap(own, range)))
    return "a range without loopback and link-local addresses: the clouds' metadata servers are there";
  if (overlap(mapped, range)) return "a range of IPv4 addresses as such: 10.0.0.0/8, not ::ffff:10.0.0.0/104";
  if (multicast.some((all) => overlap(all, range)))
    return `a range without multicast addresses (${multicast.join(", ")}), at which no server is`;
  const server = Object.values(metadataServers)
    .flat()
    .find((address) => holds([range], address));
  if (server === undefined) return undefined;
  return `a range without ${server}, a cloud's metadata server, such as 192.168.1.0/24 or fd12:3456:789a::/48`;
}

/** Of an address or a range. */
export const familyOf = (address: string): Family => (address.includes(":") ? "IPv6" : "IPv4");

const partsOf = (range: string): { base: string; bits: number } => {
  const [base = "", bits = "none"] = range.split("/");
  return { base, bits: Number(bits) };
};

/**
 * Whether an address is in one of some ranges, of its own family: to Node.js ::/0 holds every IPv4 address too. What is no
 * range, as somebody else may have written it, holds nothing.
 */
export function holds(ranges: readonly string[], address: string): boolean {
  const family = familyOf(address);
  const [type, longest] = family === "IPv6" ? (["ipv6", 128] as const) : (["ipv4", 32] as const);
  const list = new net.BlockList();
  for (const { base, bits } of ranges.filter((range) => familyOf(range) === family).map(partsOf))
    if (net.isIP(base) !== 0 && Number.isInteger(bits) && bits >= 0 && bits <= longest)
      list.addSubnet(base, bits, type);
  return net.isIP(address) !== 0 && list.check(address, type);
}

/** Whether every address of a range is in another one too. */
export function isWithin(range: string, other: string): boolean {
  const { base, bits } = partsOf(range);
  return partsOf(other).bits <= bits && holds([other], base);
}

/** Whether two ranges have an address in common: then one is within the other. */
export const overlap = (one: string, other: string): boolean => isWithin(one, other) || isWithin(other, one);
