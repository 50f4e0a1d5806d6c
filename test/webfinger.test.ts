import { describe, expect, it } from "vitest";
import { redirect, wellKnownRule } from "../components/webfinger";

/** What Traefik does: match the whole raw address, replace, send the result as Location. */
const location = (address: string): string | undefined => {
  const { regex, replacement } = redirect("ramble.moe", "mastodon.ramble.moe");
  const rule = new RegExp(regex);
  return rule.test(address) ? address.replace(rule, replacement.replaceAll(/\$\{(\d)\}/g, "$$$1")) : undefined;
};

describe("redirect", () => {
  it.each([
    "resource=acct:user@ramble.moe",
    "resource=acct%3Auser%40ramble.moe",
    "resource=acct:user@ramble.moe&rel=self&rel=http%3A%2F%2Fx",
  ])("keeps the query %s byte for byte", (query) => {
    expect(location(`https://ramble.moe/.well-known/webfinger?${query}`)).toBe(
      `https://mastodon.ramble.moe/.well-known/webfinger?${query}`,
    );
  });

  it.each(["host-meta", "host-meta.json", "nodeinfo", "nodeinfo/2.0"])("leads %s to the web host", (document) => {
    expect(location(`https://ramble.moe/.well-known/${document}`)).toBe(
      `https://mastodon.ramble.moe/.well-known/${document}`,
    );
  });

  it("does not mind a port or plain HTTP, since Traefik may see either behind a proxy", () => {
    expect(location("http://ramble.moe:8443/.well-known/webfinger?resource=x")).toBe(
      "https://mastodon.ramble.moe/.well-known/webfinger?resource=x",
    );
  });

  it.each([
    "https://rambleXmoe/.well-known/webfinger",
    "https://ramble.moe/.well-known/acme-challenge/token",
    "https://ramble.moe/blog/.well-known/webfinger",
    "https://evil.example/?https://ramble.moe/.well-known/webfinger",
  ])("leaves %s alone", (address) => {
    expect(location(address)).toBeUndefined();
  });
});

describe("wellKnownRule", () => {
  it("is bound to the apex and to the three documents", () => {
    expect(wellKnownRule("ramble.moe")).toBe(
      "Host(`ramble.moe`) && PathRegexp(`^/\\.well-known/(webfinger|host-meta|nodeinfo)`)",
    );
  });
});
