import { describe, expect, it } from "vitest";
import {
  familyOf,
  holds,
  houseRangeFault,
  isWithin,
  metadataServers,
  overlap,
  privateRanges,
  sentTo,
} from "../lib/address-ranges";

describe("a range of addresses", () => {
  it("holds addresses of its own family, and nothing where it is none", () => {
    expect(holds(["10.0.0.0/8"], "10.1.2.3")).toBe(true);
    expect(holds(["10.0.0.0/8", "192.168.0.0/16"], "11.0.0.1")).toBe(false);
    // To Node.js the first would be ::ffff:10.1.2.3, and the second in 10.0.0.0/8.
    expect(holds(["::/0"], "10.1.2.3")).toBe(false);
    expect(holds(["10.0.0.0/8"], "::ffff:10.1.2.3")).toBe(false);
    for (const none of ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/x", "house/8"])
      expect(holds([none], "10.1.2.3")).toBe(false);
    expect(holds(["10.0.0.0/8"], "house")).toBe(false);
  });

  it("is within another, or overlaps it", () => {
    expect(isWithin("10.9.0.0/16", "10.0.0.0/8")).toBe(true);
    expect(isWithin("10.0.0.0/8", "10.9.0.0/16")).toBe(false);
    expect(isWithin("10.0.0.0/8", "10.0.0.0/8")).toBe(true);
    expect(isWithin("::/0", "0.0.0.0/0")).toBe(false);
    expect(overlap("10.0.0.0/8", "10.9.0.0/16")).toBe(true);
    expect(overlap("fd00::/8", "fd00:ec2::/32")).toBe(true);
    expect(overlap("10.0.0.0/8", "11.0.0.0/8")).toBe(false);
  });

  it("has its base within its length, and a family, everywhere in the lists", () => {
    for (const [family, ranges] of Object.entries(privateRanges))
      for (const range of ranges) {
        expect(familyOf(range)).toBe(family);
        expect([range, isWithin(range, range)]).toEqual([range, true]);
      }
    for (const [family, servers] of Object.entries(metadataServers))
      for (const server of servers) {
        expect(familyOf(server)).toBe(family);
        // Mastodon reaches none of them.
        expect([server, holds(Object.values(privateRanges).flat(), server)]).toEqual([server, true]);
      }
  });

  it("holds what an IPv4 address as an IPv6 one is sent to", () => {
    for (const written of ["::ffff:10.1.2.3", "::FFFF:0A01:203", "0:0:0:0:0:ffff:10.1.2.3", "10.1.2.3"])
      expect([written, sentTo(written)]).toEqual([written, "10.1.2.3"]);
    for (const other of ["::10.1.2.3", "::fffe:a01:203", "64:ff9b::a01:203", "2001:db8::1", "fe80::1%eth0", "house"])
      expect([other, sentTo(other)]).toEqual([other, other]);
  });

  it("of a house may be any but a machine's own and the clouds'", () => {
    for (const range of ["10.210.0.0/16", "192.168.1.5/32", "100.64.0.0/10", "fd12:3456:789a::/48", "64:ff9b::/96"])
      expect([range, houseRangeFault(range)]).toEqual([range, undefined]);
    for (const range of ["::ffff:169.254.169.254/128", "::ffff:a00:0/104", "::ffff:0:0/96", "::fffe:0:0/95"])
      expect(houseRangeFault(range)).toBe("a range of IPv4 addresses as such: 10.0.0.0/8, not ::ffff:10.0.0.0/104");
    expect(houseRangeFault("fd00::/8")).toBe(
      "a range without fd00:ec2::254, a cloud's metadata server, such as 192.168.1.0/24 or fd12:3456:789a::/48",
    );
  });
});
