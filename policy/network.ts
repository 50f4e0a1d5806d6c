/** Rules for the network: who reaches a pod, whom a pod reaches, and how the world comes in. */
import * as net from "node:net";
import { at, fields, list, nameOf, namespaceOf, namespacesOf, podsOf, same, texts } from "./objects";
import type { KubernetesObject } from "./objects";
import { breaches, fault, objectRule, stackRule } from "./rule";
import type { Breach, Rule } from "./rule";

const otherWaysIn = ["Ingress", "Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "IngressRouteTCP"];

const oneWayIn = objectRule(
  "one-way-in",
  "the edge's rules hold only for what comes through Traefik's IngressRoutes",
  (object) => {
    if (otherWaysIn.includes(object.kind)) return [fault("kind", object.kind, "IngressRoute")];
    if (object.kind !== "Service") return [];
    const { type, externalIPs } = fields(object["spec"]);
    return [
      ...(type === "NodePort" || type === "LoadBalancer" ? [fault("spec.type", type, "ClusterIP")] : []),
      ...(texts(externalIPs).length > 0 ? [fault("spec.externalIPs", externalIPs, "none")] : []),
    ];
  },
);

const isEmpty = (value: unknown) => Object.keys(fields(value)).length === 0;

const deniesAll = (object: KubernetesObject) => {
  const { podSelector, policyTypes, ingress, egress } = fields(object["spec"]);
  return (
    object.kind === "NetworkPolicy" &&
    isEmpty(podSelector) &&
    ["Ingress", "Egress"].every((type) => texts(policyTypes).includes(type)) &&
    [...list(ingress), ...list(egress)].length === 0
  );
};

/** CloudNativePG's Cluster is pods too. */
const makesPods = (object: KubernetesObject) => podsOf(object).length > 0 || object.kind === "Cluster";

const defaultDeny = stackRule(
  "default-deny",
  "a pod that nobody thought of must reach nothing, and nothing it",
  (objects) =>
    namespacesOf(objects.filter(makesPods))
      .filter((namespace) => !objects.some((object) => deniesAll(object) && same(namespaceOf(object), namespace)))
      .map((namespace) => ({
        message: `namespace ${namespace}: it has no NetworkPolicy that denies everything; needed: one with podSelector {}, policyTypes [Ingress, Egress] and no rules`,
      })),
);

/** Where clouds hand out a machine's keys. */
const metadataServers = [
  ["169.254.169.254", "ipv4"],
  ["fd00:ec2::254", "ipv6"],
] as const;

function holds(cidr: unknown, address: string, family: "ipv4" | "ipv6"): boolean {
  const [base = "", bits = ""] = typeof cidr === "string" ? cidr.split("/") : [];
  if (net.isIP(base) !== (family === "ipv4" ? 4 : 6)) return false;
  const block = new net.BlockList();
  block.addSubnet(base, Number(bits), family);
  return block.check(address, family);
}

/** Ports of admission webhooks. The API server asks them, from the nodes' own addresses, which no policy can name everywhere. */
const webhookPorts = [10250, 9443];

const isWebhook = (object: KubernetesObject, rule: Record<string, unknown>) =>
  same(nameOf(object), "webhook") &&
  list(rule["ports"]).length > 0 &&
  list(rule["ports"]).every(({ port }) => webhookPorts.includes(Number(port)));

const namedPeers = objectRule(
  "named-peers",
  "a policy that names nobody allows everybody, the cloud's metadata server with its keys among them",
  (object) => {
    if (object.kind !== "NetworkPolicy") return [];
    return [
      ...list(at(object, "spec.ingress")).flatMap((rule, i) =>
        isWebhook(object, rule) ? [] : peerFaults(`spec.ingress[${i}].from`, rule["from"]),
      ),
      ...list(at(object, "spec.egress")).flatMap((rule, i) => peerFaults(`spec.egress[${i}].to`, rule["to"])),
    ];
  },
);

function peerFaults(field: string, peers: unknown): string[] {
  if (list(peers).length === 0) return [fault(field, peers, "peers by name; without one it is everybody")];
  return list(peers).flatMap((peer, i) => {
    const { cidr, except } = fields(peer["ipBlock"]);
    // Pods by their label, in whatever namespace (CloudNativePG's operator, which may have been there before us), are named.
    const everybody =
      peer["ipBlock"] === undefined &&
      "namespaceSelector" in peer &&
      isEmpty(peer["namespaceSelector"]) &&
      (!("podSelector" in peer) || isEmpty(peer["podSelector"]));
    return [
      ...(everybody ? [fault(`${field}[${i}].namespaceSelector`, {}, "namespaces or pods by label")] : []),
      ...metadataServers
        .filter(([address, family]) => holds(cidr, address, family))
        .filter(([address, family]) => !texts(except).some((range) => holds(range, address, family)))
        .map(([address]) => fault(`${field}[${i}].ipBlock`, cidr, `except a range with ${address}`)),
    ];
  });
}

// ---------------------------------------------------------------- the edge

interface Route {
  field: string;
  match: string;
  /** The middlewares' objects that are in the stack, in their order. */
  middlewares: KubernetesObject[];
}

const ingressRoutes = (objects: readonly KubernetesObject[]) => objects.filter(({ kind }) => kind === "IngressRoute");

/** Without entry points Traefik takes a route for all of them. */
function entersBy(ingressRoute: KubernetesObject, entryPoint: "web" | "websecure"): boolean {
  const entryPoints = texts(at(ingressRoute, "spec.entryPoints"));
  return entryPoints.length === 0 || entryPoints.includes(entryPoint);
}

/** The object of a kind that a reference of Traefik's means. */
function referred(objects: readonly KubernetesObject[], kind: string, reference: unknown, from: KubernetesObject) {
  const { name, namespace } = fields(reference);
  const where = namespace ?? namespaceOf(from);
  return objects.find((one) => one.kind === kind && same(nameOf(one), name) && same(namespaceOf(one), where));
}

function routesOf(ingressRoute: KubernetesObject, objects: readonly KubernetesObject[]): Route[] {
  return list(at(ingressRoute, "spec.routes")).map((route, i) => ({
    field: `spec.routes[${i}]`,
    match: String(route["match"]),
    middlewares: list(route["middlewares"])
      .map((reference) => referred(objects, "Middleware", reference, ingressRoute))
      .filter((middleware) => middleware !== undefined),
  }));
}

/** Checks each route of an entry point by itself. */
const eachRoute =
  (entryPoint: "web" | "websecure", faults: (route: Route) => string[]) =>
  (objects: readonly KubernetesObject[]): Breach[] =>
    ingressRoutes(objects)
      .filter((one) => entersBy(one, entryPoint))
      .flatMap((one) => breaches(one, routesOf(one, objects).flatMap(faults)));

const tlsVersions = ["VersionTLS12", "VersionTLS13"];

const modernTls = stackRule("modern-tls", "TLS before 1.2 is broken, and Traefik's default may change", (objects) => [
  ...objects
    .filter(({ kind }) => kind === "TLSOption")
    .map((object) => ({ object, found: at(object, "spec.minVersion") }))
    .filter(({ found }) => typeof found !== "string" || !tlsVersions.includes(found))
    .flatMap(({ object, found }) => breaches(object, [fault("spec.minVersion", found, tlsVersions.join(", "))])),
  ...ingressRoutes(objects)
    .filter((object) => entersBy(object, "websecure"))
    .filter((object) => {
      const options = at(object, "spec.tls.options");
      return options === undefined || referred(objects, "TLSOption", options, object) === undefined;
    })
    .flatMap((object) =>
      breaches(object, [
        fault("spec.tls.options", at(object, "spec.tls.options"), "the name of a TLSOption of the stack"),
      ]),
    ),
]);

/** Seconds: what the browsers' preload lists ask for at least. */
const year = 31_536_000;

const securityHeaders = stackRule(
  "security-headers",
  "a browser that was here once must never again come by plain HTTP, nor guess what a file is",
  eachRoute("websecure", ({ field, middlewares }) => {
    const chain = middlewares.find((middleware) => same(nameOf(middleware), "security-headers"));
    if (!chain) {
      return [fault(`${field}.middlewares`, middlewares.map(nameOf), "with the stack's Middleware security-headers")];
    }
    const { stsSeconds, contentTypeNosniff } = fields(at(chain, "spec.headers"));
    return [
      ...(typeof stsSeconds === "number" && stsSeconds >= year
        ? []
        : [fault("Middleware security-headers: spec.headers.stsSeconds", stsSeconds, `${year} or more`)]),
      ...(contentTypeNosniff === true
        ? []
        : [fault("Middleware security-headers: spec.headers.contentTypeNosniff", contentTypeNosniff, "true")]),
    ];
  }),
);

const httpsOnly = stackRule(
  "https-only",
  "nothing is answered by plain HTTP but the way to HTTPS",
  eachRoute("web", ({ field, middlewares }) =>
    middlewares.some((middleware) => at(middleware, "spec.redirectScheme.scheme") === "https")
      ? []
      : [fault(`${field}.middlewares`, middlewares.map(nameOf), "with a redirectScheme to https")],
  ),
);

/** What strangers may ask for as often as they like elsewhere, as it stands in a route's rule. */
const limited = { WebFinger: /webfinger/, "the log-in": /\/auth\b/ };

const rateLimits = stackRule(
  "rate-limits",
  "passwords must not be guessed by the thousand, nor a single user's threads be used up by look-ups",
  (objects) => {
    const secure = ingressRoutes(objects).filter((one) => entersBy(one, "websecure"));
    const found = secure.flatMap((object) => routesOf(object, objects).map((route) => ({ object, route })));
    const limits = ({ route }: (typeof found)[number]) =>
      route.middlewares.some((middleware) => at(middleware, "spec.rateLimit.average") !== undefined);
    return Object.entries(limited).flatMap(([what, rule]): Breach[] => {
      const routes = found.filter(({ route }) => rule.test(route.match));
      if (routes.length === 0 && secure.length > 0)
        return [{ message: `no route of its own for ${what}; needed: one with a rateLimit` }];
      return routes
        .filter((one) => !limits(one))
        .flatMap(({ object, route }) =>
          breaches(object, [
            fault(
              `${route.field}.middlewares`,
              route.middlewares.map(nameOf),
              `with a rateLimit, since it is for ${what}`,
            ),
          ]),
        );
    });
  },
);

export const networkRules: Rule[] = [
  oneWayIn,
  defaultDeny,
  namedPeers,
  modernTls,
  securityHeaders,
  httpsOnly,
  rateLimits,
];
