import * as pulumi from "@pulumi/pulumi";
import { revisionOf } from "../lib/revision";
import { middleware, noService, rateLimit, rateLimits, route } from "./ingress";
import type { IngressArgs } from "./ingress";

export interface WebfingerArgs extends Pick<IngressArgs, "ingress" | "subnetLimits"> {
  namespace: pulumi.Input<string>;
  apex: string;
  webHost: string;
  /** Secret with the apex's certificate. */
  certificate: pulumi.Input<string>;
  /** Middleware that every route over HTTPS goes through. */
  securityHeaders: pulumi.Input<string>;
}

const escape = (host: string) => host.replaceAll(".", "\\.");

/** The well-known documents that lead from the apex to the web host (docs.joinmastodon.org, WEB_DOMAIN). */
export const documents = ["webfinger", "host-meta", "nodeinfo"] as const;

/** Which requests at the apex are for the web host. */
export const wellKnownRule = (apex: string): string =>
  `Host(\`${apex}\`) && PathRegexp(\`^/\\.well-known/(${documents.join("|")})\`)`;

/** Traefik matches against the raw address with its query, so the last group carries `?resource=` byte for byte. */
export function redirect(apex: string, webHost: string) {
  return {
    regex: `^https?://${escape(apex)}(?::\\d+)?/\\.well-known/(${documents.join("|")})(.*)$`,
    replacement: `https://${webHost}/.well-known/\${1}\${2}`,
    permanent: true,
  };
}

/**
 * WebFinger on the apex: without it nobody can follow `@owner@apex`. A redirect middleware does nothing by itself; it
 * takes a router with an entry point, a rule and a service behind it.
 */
export class Webfinger extends pulumi.ComponentResource {
  /** Changes with the redirect. */
  public readonly revision: pulumi.Output<string>;

  constructor(name: string, args: WebfingerArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Webfinger", name, {}, opts);
    const { namespace, apex, webHost, certificate, securityHeaders } = args;
    // Before the redirect in the chain, or the redirect itself goes out without the header.
    const cors = middleware(this, `${name}-cors`, "well-known-cors", namespace, {
      headers: { customResponseHeaders: { "Access-Control-Allow-Origin": "*" } },
    });
    const toWebHost = middleware(this, `${name}-redirect`, "well-known-redirect", namespace, {
      redirectRegex: redirect(apex, webHost),
    });
    const limited = middleware(
      this,
      `${name}-rate`,
      "well-known-rate",
      namespace,
      rateLimit(rateLimits.webfinger, args),
    );
    const chain = [cors, limited, toWebHost];
    const middlewares = [{ name: securityHeaders }, ...chain.map((m) => ({ name: m.metadata.name }))];
    const wellKnown = route(
      this,
      `${name}-route`,
      "well-known",
      namespace,
      { entryPoint: "websecure", certificate },
      [{ match: wellKnownRule(apex), middlewares, services: noService }],
      chain,
    );
    this.revision = revisionOf([...chain, wellKnown]);
    this.registerOutputs({ revision: this.revision });
  }
}
