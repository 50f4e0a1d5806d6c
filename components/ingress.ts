import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { digest } from "../lib/digest";
import { labels } from "../lib/pods";
import type { SubnetLimits } from "../lib/doctor/operators";
import { revisionOf } from "../lib/revision";
import type { Settings } from "../settings";
import { streamingService, webService } from "./mastodon";

export interface IngressArgs extends Pick<Settings, "apex" | "webHost" | "certificates"> {
  /** Proxies between the client and Traefik. */
  ingress: Pick<Settings["ingress"], "proxies">;
  /** Whether Traefik can take an IPv6 subnet for one client. */
  subnetLimits: SubnetLimits;
  namespace: pulumi.Input<string>;
  /** Hosts beside apex and web host that the certificate is for (an embedded media host). */
  otherHosts: string[];
}

/**
 * Name of the certificate, and of its Secret, for these hosts by this issuer. Another set of hosts is another
 * certificate: it is waited for while the old one serves on, and only then do the routes change over. Changed in place
 * it would count as ready, by its old state, before cert-manager had even looked at it.
 */
export function certificateName(args: Pick<IngressArgs, "apex" | "webHost" | "otherHosts" | "certificates">): string {
  return `web-${digest(JSON.stringify([args.apex, args.webHost, args.otherHosts, args.certificates]))}`;
}

/** TLS options of our routes; Traefik wants namespace-name. */
export const tlsOptions = "modern";

export function middleware(
  parent: pulumi.Resource,
  child: string,
  name: string,
  namespace: pulumi.Input<string>,
  spec: Record<string, unknown>,
) {
  return new k8s.apiextensions.CustomResource(
    child,
    {
      apiVersion: "traefik.io/v1alpha1",
      kind: "Middleware",
      metadata: { name, namespace, labels: labels("ingress") },
      spec,
    },
    { parent },
  );
}

/**
 * What every answer over HTTPS carries: a year of HTTPS only (the preload lists' minimum, hstspreload.org; not for
 * subdomains, which may not be ours), and no guessing at types. The rest of a page's policy is the application's.
 */
export const securityHeaders = { stsSeconds: 31_536_000, contentTypeNosniff: true };

/** How often one client may ask: `average` requests a `period`, and `burst` at once. */
export interface RateLimit {
  average: number;
  period: string;
  burst: number;
}

/**
 * - `webfinger`: a server that follows somebody asks a few times, and a large one from several addresses at once; Mastodon
 *   has five threads for everybody.
 * - `login`: somebody who mistypes. Mastodon allows 25 tries in five minutes by address (config/initializers/rack_attack.rb);
 *   this keeps those who try more from its threads.
 */
export const rateLimits = {
  webfinger: { average: 10, period: "1s", burst: 50 },
  login: { average: 10, period: "1m", burst: 20 },
} as const satisfies Record<string, RateLimit>;

/** Bits of an IPv6 address that say whose network it is: the rest is for whoever is in it to choose (RFC 4291, 2.5.4). */
const ipv6Subnet = 64;

/**
 * A limit by the client's real address. Without a proxy in front that is the connection's other end, which Traefik sees
 * where its Service keeps it (`externalTrafficPolicy: Local`; `homestead doctor` looks).
 *
 * Of IPv6 by the subnet, where Traefik can (3.2 and later). Not behind proxies: some write IPv4 addresses as IPv6 ones
 * (`::ffff:192.0.2.7`, nginx with one socket for both), which all are of one /64, and one who tries passwords would keep
 * everybody out.
 */
export function rateLimit(
  limit: RateLimit,
  { ingress, subnetLimits }: Pick<IngressArgs, "ingress" | "subnetLimits">,
): Record<string, unknown> {
  const by = (ipStrategy: Record<string, number>) => ({ rateLimit: { ...limit, sourceCriterion: { ipStrategy } } });
  if (ingress.proxies > 0) return by({ depth: ingress.proxies });
  return subnetLimits === "there" ? by({ ipv6Subnet }) : { rateLimit: limit };
}

/** Where a password or a token is tried at Mastodon. */
const loginRule = "Method(`POST`) && (PathPrefix(`/auth`) || PathPrefix(`/oauth/token`))";

/** How a route is reached: plain HTTP, or HTTPS with the certificate of this Secret. */
export type Reached = { entryPoint: "web" } | { entryPoint: "websecure"; certificate: pulumi.Input<string> };

/** A route of Traefik's. */
export function route(
  parent: pulumi.Resource,
  child: string,
  name: string,
  namespace: pulumi.Input<string>,
  reached: Reached,
  routes: Record<string, unknown>[],
  dependsOn: pulumi.Resource[] = [],
) {
  return new k8s.apiextensions.CustomResource(
    child,
    {
      apiVersion: "traefik.io/v1alpha1",
      kind: "IngressRoute",
      metadata: { name, namespace, labels: labels("ingress") },
      spec: {
        entryPoints: [reached.entryPoint],
        routes: routes.map((r) => ({ kind: "Rule", ...r })),
        ...(reached.entryPoint === "websecure"
          ? { tls: { secretName: reached.certificate, options: { name: tlsOptions, namespace } } }
          : {}),
      },
    },
    { parent, dependsOn },
  );
}

/** A router needs a service behind it even where a middleware answers; this is Traefik's own for that. */
export const noService = [{ kind: "TraefikService", name: "noop@internal" }];

/** Certificate, TLS, the way from HTTP to HTTPS, and the web host's routes. None of it depends on Mastodon being up. */
export class Ingress extends pulumi.ComponentResource {
  /** The authority's certificate (PEM) where it is one of ours or was given; empty where the world knows it. */
  public readonly authority: pulumi.Output<string>;
  /** Secret with the certificate for every host of ours; there once it is valid. */
  public readonly certificate: pulumi.Output<string>;
  /** Middleware that every route over HTTPS goes through. */
  public readonly securityHeaders: pulumi.Output<string>;
  /** Changes with anything a visitor could notice. */
  public readonly revision: pulumi.Output<string>;

  constructor(name: string, args: IngressArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Ingress", name, {}, opts);
    const issuer = this.issuer(name, args);
    const certificate = this.certificateOf(name, args, issuer.ref, issuer.dependsOn);
    // The Secret has the Certificate's name, and an object's id is known only when it is ready.
    this.certificate = pulumi.all([certificate.id, certificate.metadata]).apply(([, metadata]) => metadata.name ?? "");
    const headers = middleware(this, `${name}-security-headers`, "security-headers", args.namespace, {
      headers: securityHeaders,
    });
    this.securityHeaders = headers.metadata.name;
    this.revision = revisionOf([
      certificate,
      this.tls(name, args),
      headers,
      ...this.toHttps(name, args),
      ...this.webHost(name, args, this.certificate, headers),
    ]);
    this.authority = this.authorityOf(name, args, certificate);
    this.registerOutputs({ authority: this.authority, revision: this.revision });
  }

  private issuer(name: string, { certificates, namespace }: IngressArgs) {
    const make = (child: string, issuer: string, spec: Record<string, unknown>, dependsOn: pulumi.Resource[] = []) =>
      new k8s.apiextensions.CustomResource(
        `${name}-${child}`,
        {
          apiVersion: "cert-manager.io/v1",
          kind: "Issuer",
          metadata: {
            name: issuer,
            namespace,
            labels: labels("ingress"),
            annotations: { "pulumi.com/waitFor": "condition=Ready" },
          },
          spec,
        },
        { parent: this, dependsOn },
      );
    switch (certificates.kind) {
      case "issuer":
        return { ref: { name: certificates.name, kind: certificates.issuerKind }, dependsOn: [] };
      case "acme":
        return {
          ref: { name: "acme", kind: "Issuer" },
          dependsOn: [
            make("acme", "acme", {
              acme: {
                email: certificates.email,
                server: certificates.server,
                privateKeySecretRef: { name: "acme-account" },
                solvers: [certificates.solver ?? { http01: { ingress: { ingressClassName: "traefik" } } }],
              },
            }),
          ],
        };
      case "selfSigned": {
        const root = make("self-signed", "self-signed", { selfSigned: {} });
        const authority = new k8s.apiextensions.CustomResource(
          `${name}-authority`,
          {
            apiVersion: "cert-manager.io/v1",
            kind: "Certificate",
            metadata: {
              name: "authority",
              namespace,
              labels: labels("ingress"),
              annotations: { "pulumi.com/waitFor": "condition=Ready" },
            },
            spec: {
              isCA: true,
              commonName: "homestead authority",
              secretName: "authority-tls",
              duration: "87600h",
              privateKey: { algorithm: "ECDSA", size: 256 },
              issuerRef: { name: "self-signed", kind: "Issuer", group: "cert-manager.io" },
            },
          },
          { parent: this, dependsOn: [root] },
        );
        const issuer = make("authority-issuer", "authority", { ca: { secretName: "authority-tls" } }, [authority]);
        return { ref: { name: "authority", kind: "Issuer" }, dependsOn: [issuer] };
      }
    }
  }

  private certificateOf(
    name: string,
    args: IngressArgs,
    issuerRef: { name: string; kind: string },
    dependsOn: pulumi.Resource[],
  ) {
    return new k8s.apiextensions.CustomResource(
      `${name}-certificate`,
      {
        apiVersion: "cert-manager.io/v1",
        kind: "Certificate",
        metadata: {
          name: certificateName(args),
          namespace: args.namespace,
          labels: labels("ingress"),
          annotations: { "pulumi.com/waitFor": "condition=Ready", "pulumi.com/timeoutSeconds": "900" },
        },
        spec: {
          secretName: certificateName(args),
          dnsNames: [args.apex, args.webHost, ...args.otherHosts],
          privateKey: { algorithm: "ECDSA", size: 256, rotationPolicy: "Always" },
          issuerRef: { ...issuerRef, group: "cert-manager.io" },
        },
      },
      { parent: this, dependsOn },
    );
  }

  private tls(name: string, { namespace }: IngressArgs) {
    return new k8s.apiextensions.CustomResource(
      `${name}-tls-options`,
      {
        apiVersion: "traefik.io/v1alpha1",
        kind: "TLSOption",
        metadata: { name: tlsOptions, namespace, labels: labels("ingress") },
        spec: { minVersion: "VersionTLS12" },
      },
      { parent: this },
    );
  }

  private toHttps(name: string, { namespace, apex, webHost, otherHosts }: IngressArgs) {
    const redirect = middleware(this, `${name}-https-redirect`, "to-https", namespace, {
      redirectScheme: { scheme: "https", permanent: true },
    });
    const hosts = [apex, webHost, ...otherHosts].map((host) => `Host(\`${host}\`)`).join(" || ");
    const http = route(
      this,
      `${name}-http`,
      "http",
      namespace,
      { entryPoint: "web" },
      [{ match: hosts, middlewares: [{ name: redirect.metadata.name }], services: noService }],
      [redirect],
    );
    return [redirect, http];
  }

  private webHost(
    name: string,
    args: IngressArgs,
    certificate: pulumi.Input<string>,
    headers: k8s.apiextensions.CustomResource,
  ) {
    const { namespace, webHost } = args;
    const limited = (kind: keyof typeof rateLimits) =>
      middleware(this, `${name}-${kind}-rate`, `web-host-${kind}-rate`, namespace, rateLimit(rateLimits[kind], args));
    const lookUps = limited("webfinger");
    const logins = limited("login");
    const host = `Host(\`${webHost}\`)`;
    const to = (
      match: string,
      service: { name: string; port: number },
      ...before: k8s.apiextensions.CustomResource[]
    ) => ({
      match: match === "" ? host : `${host} && ${match}`,
      middlewares: [headers, ...before].map((one) => ({ name: one.metadata.name })),
      services: [service],
    });
    const webRoute = route(
      this,
      `${name}-web-host`,
      "web-host",
      namespace,
      { entryPoint: "websecure", certificate },
      [
        to("PathPrefix(`/api/v1/streaming`)", streamingService),
        to("PathPrefix(`/.well-known/webfinger`)", webService, lookUps),
        to(loginRule, webService, logins),
        to("", webService),
      ],
      [headers, lookUps, logins],
    );
    return [lookUps, logins, webRoute];
  }

  private authorityOf(name: string, args: IngressArgs, certificate: pulumi.CustomResource): pulumi.Output<string> {
    if (args.certificates.kind === "issuer") return pulumi.output(args.certificates.ca ?? "");
    if (args.certificates.kind === "acme") return pulumi.output("");
    // Unknown until the certificate is there, so that a first preview does not look for what is yet to be made.
    const id = pulumi.all([args.namespace, certificate.id]).apply(([namespace]) => `${namespace}/authority-tls`);
    const secret = k8s.core.v1.Secret.get(`${name}-authority-secret`, id, { parent: this });
    // A certificate is public; only the key beside it is not, and that never leaves the Secret's own output.
    return pulumi.unsecret(secret.data.apply((data) => Buffer.from(data["tls.crt"] ?? "", "base64").toString()));
  }
}
