/** What stands between the world and Mastodon: headers, rate limits, TLS. */
import { describe, expect, it } from "vitest";
import { rateLimit, rateLimits } from "../components/ingress";
import { at } from "../lib/plan";
import type { JsonObject } from "../lib/plan/mask";
import { named, ofType, plannedStack, stacks } from "./support/planned";

interface Route {
  match: string;
  middlewares: { name: string }[];
}
const routes = (stack: (typeof stacks)[number]) =>
  ofType(plannedStack(stack), "kubernetes:traefik.io/v1alpha1:IngressRoute")
    .map(({ inputs }) => inputs.spec as unknown as { entryPoints: string[]; tls?: JsonObject; routes: Route[] })
    .filter(({ entryPoints }) => entryPoints.includes("websecure"));
const chainOf = (match: string) => {
  const found = routes("home")
    .flatMap((one) => one.routes)
    .find((one) => one.match === match);
  return found?.middlewares.map(({ name }) => name);
};

describe.each(stacks)("the routes of %s", (stack) => {
  it("all go through the security headers and the TLS options", () => {
    expect(routes(stack).length).toBeGreaterThan(2);
    for (const { tls, routes: inner } of routes(stack)) {
      expect(tls).toMatchObject({ options: { name: "modern" } });
      for (const { middlewares } of inner) expect(middlewares[0]).toEqual({ name: "security-headers" });
    }
    expect(at(named(plannedStack(stack), "ingress-security-headers").inputs, "spec.headers")).toEqual({
      stsSeconds: 31_536_000,
      contentTypeNosniff: true,
    });
    expect(at(named(plannedStack(stack), "ingress-tls-options").inputs, "spec.minVersion")).toBe("VersionTLS12");
  });
});

describe("rate limits", () => {
  it("are before WebFinger on both hosts, and before log-ins, and nowhere else", () => {
    const apex = "Host(`ramble.moe`) && PathRegexp(`^/\\.well-known/(webfinger|host-meta|nodeinfo)`)";
    // CORS comes first: also a refusal must be readable by the page that asked.
    expect(chainOf(apex)).toEqual(["security-headers", "well-known-cors", "well-known-rate", "well-known-redirect"]);
    const web = "Host(`mastodon.ramble.moe`)";
    expect(chainOf(`${web} && PathPrefix(\`/.well-known/webfinger\`)`)).toEqual([
      "security-headers",
      "web-host-webfinger-rate",
    ]);
    expect(chainOf(`${web} && Method(\`POST\`) && (PathPrefix(\`/auth\`) || PathPrefix(\`/oauth/token\`))`)).toEqual([
      "security-headers",
      "web-host-login-rate",
    ]);
    // Deliveries come in bursts from few servers, and are Mastodon's own to limit.
    expect(chainOf(web)).toEqual(["security-headers"]);
  });

  const at64 = { sourceCriterion: { ipStrategy: { ipv6Subnet: 64 } } };

  it("go by the connection, of IPv6 by its subnet, in every stack", () => {
    const direct = { ingress: { proxies: 0 }, subnetLimits: "there" as const };
    expect(rateLimit(rateLimits.login, direct)).toEqual({
      rateLimit: { average: 10, period: "1m", burst: 20, ...at64 },
    });
    for (const stack of stacks) {
      const limits = ofType(plannedStack(stack), "kubernetes:traefik.io/v1alpha1:Middleware").flatMap(
        ({ inputs }) => at(inputs, "spec.rateLimit") ?? [],
      );
      expect(limits).toEqual(Array.from({ length: 3 }, () => expect.objectContaining(at64) as unknown));
    }
  });

  it("say nothing of a subnet to a Traefik that has no field for it: the API server would refuse the object", () => {
    expect(rateLimit(rateLimits.login, { ingress: { proxies: 0 }, subnetLimits: "missing" })).toEqual({
      rateLimit: { average: 10, period: "1m", burst: 20 },
    });
  });

  it("go behind proxies by what the nearest of them saw, whole: IPv4 in IPv6's clothes is all of one subnet", () => {
    expect(rateLimit(rateLimits.webfinger, { ingress: { proxies: 2 }, subnetLimits: "there" })).toEqual({
      rateLimit: { average: 10, period: "1s", burst: 50, sourceCriterion: { ipStrategy: { depth: 2 } } },
    });
  });
});
