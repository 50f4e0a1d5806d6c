/** Rules for the network: who reaches a pod, whom a pod reaches, and how the world comes in. */
import { familyOf, holds, isWithin, metadataServers, overlap, privateRanges } from "../lib/address-ranges";
import { privateEgressAnnotation } from "../lib/egress";
import { at, fields, list, nameOf, namespaceOf, namespacesOf, partsOf, podsOf, same, texts } from "./objects";
import type { KubernetesObject } from "./objects";
import { breaches, fault, objectRule, stackRule } from "./rule";
import type { Breach, Rule } from "./rule";
import { hostsIn, matches } from "./traefik-rule";
import type { Request } from "./traefik-rule";

const otherWaysIn = [
  "Ingress",
  ...["Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"],
  ...["IngressRouteTCP", "IngressRouteUDP"],
];

const oneWayIn = objectRule(
  "one-way-in",
  "the edge's rules hold only for what comes through Traefik's IngressRoutes",
  (object) => {
    if (otherWaysIn.includes(object.kind)) return [fault("kind", object.kind, "IngressRoute")];
    if (object.kind === "Service") return serviceFaults("spec", object["spec"]);
    // What an operator makes one of: CloudNativePG's Cluster and Pooler.
    return partsOf(object)
      .filter(({ field }) => /(^|\.)serviceTemplate\.spec$/.test(field))
      .flatMap(({ field, value }) => serviceFaults(field, value));
  },
);

function serviceFaults(field: string, spec: unknown): string[] {
  const { type, externalIPs } = fields(spec);
  return [
    ...(type === "NodePort" || type === "LoadBalancer" ? [fault(`${field}.type`, type, "ClusterIP")] : []),
    ...(texts(externalIPs).length > 0 ? [fault(`${field}.externalIPs`, externalIPs, "none")] : []),
  ];
}

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
      ...Object.values(metadataServers)
        .flat()
        .filter((address) => typeof cidr === "string" && holds([cidr], address) && !holds(texts(except), address))
        .map((address) => fault(`${field}[${i}].ipBlock`, cidr, `except a range with ${address}`)),
    ];
  });
}

/**
 * Who needs the cluster's API reaches its ports at any address (docs/adr/0014-the-api-server-at-any-address.md): the database,
 * by the label that only its pods have, and what is in the operators' namespaces, an ACME server of the house's own with it.
 */
function reachesAnyAddress(object: KubernetesObject): boolean {
  const { matchLabels, matchExpressions } = fields(at(object, "spec.podSelector"));
  const database =
    "cnpg.io/cluster" in fields(matchLabels) ||
    list(matchExpressions).some(
      ({ key, operator }) => key === "cnpg.io/cluster" && operator !== "DoesNotExist" && operator !== "NotIn",
    );
  const operators =
    ["api-server", "acme"].includes(String(nameOf(object))) &&
    ["cert-manager", "cnpg-system"].some((namespace) => same(namespaceOf(object), namespace));
  return database || operators;
}

const rangesIn = (text: unknown): string[] =>
  typeof text === "string" ? text.split(",").map((range) => range.trim()) : [];

/** The ranges of the house that Mastodon is told it may reach (`network.mastodonPrivateEgress`). */
const mastodonsRanges = (objects: readonly KubernetesObject[]): string[] =>
  objects
    .filter(({ kind }) => kind === "Release" || kind === "ConfigMap")
    .flatMap((object) => partsOf(object))
    .flatMap(({ value }) => rangesIn(value["ALLOWED_PRIVATE_ADDRESSES"]));

/** Those that the stack names for who talks to the vault (`network.privateEgress`). */
const vaultsRanges = (objects: readonly KubernetesObject[]): string[] =>
  objects
    .filter(({ kind }) => kind === "Namespace")
    .flatMap((object) => rangesIn(fields(at(object, "metadata.annotations"))[privateEgressAnnotation]));

/** Whether a policy is for Mastodon's pods, among others. */
function isMastodons(object: KubernetesObject): boolean {
  const selector = at(object, "spec.podSelector");
  const { matchLabels, matchExpressions } = fields(selector);
  const name = "app.kubernetes.io/name";
  return (
    isEmpty(selector) ||
    fields(matchLabels)[name] === "mastodon" ||
    list(matchExpressions).some(({ key, values }) => key === name && texts(values).includes("mastodon"))
  );
}

const privateAddresses = stackRule(
  "private-addresses",
  "who breaks into a pod must not get from there into the house, nor to the cluster's own machines",
  (objects) => {
    const mastodons = mastodonsRanges(objects);
    const all = [...mastodons, ...vaultsRanges(objects)];
    return objects
      .filter(({ kind }) => kind === "NetworkPolicy")
      .flatMap((object) => {
        const named = isMastodons(object)
          ? { list: "network.mastodonPrivateEgress", ranges: mastodons }
          : { list: "network.privateEgress", ranges: all };
        return breaches(
          object,
          list(at(object, "spec.egress")).flatMap((rule, i) =>
            list(rule["to"]).flatMap((peer, j) =>
              blockFaults(object, `spec.egress[${i}]`, `to[${j}].ipBlock`, rule["ports"], peer["ipBlock"], named),
            ),
          ),
        );
      });
  },
);

function blockFaults(
  object: KubernetesObject,
  field: string,
  peer: string,
  ports: unknown,
  block: unknown,
  { list: name, ranges }: { list: string; ranges: readonly string[] },
): string[] {
  const { cidr, except } = fields(block);
  if (typeof cidr !== "string") return [];
  const all = list(ports).length > 0 && list(ports).every(({ port }) => port !== undefined);
  const named = all ? [] : [fault(`${field}.ports`, ports, "ports by number, since it is for addresses")];
  if (reachesAnyAddress(object) || ranges.some((range) => isWithin(cidr, range))) return named;
  const open = privateRanges[familyOf(cidr)]
    .filter((range) => overlap(range, cidr))
    .filter((range) => !texts(except).some((excepted) => isWithin(range, excepted)));
  const inside = open.some((range) => isWithin(cidr, range));
  const allowed = inside ? `a range of ${name}` : `except ${open.join(", ")}, or a range of ${name}`;
  return [...named, ...(open.length === 0 ? [] : [fault(`${field}.${peer}`, cidr, allowed)])];
}

// ---------------------------------------------------------------- the edge

interface Route {
  field: string;
  match: string;
  /** Traefik's own is the rule's length. */
  priority: number;
  /** Names of the Services behind it. */
  services: unknown[];
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
    priority: Number(route["priority"] ?? 0) || String(route["match"]).length,
    services: list(route["services"]).map(({ name }) => name),
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

/** The Service of Mastodon's chart that the log-in is behind. */
export const loginService = "mastodon-web";

/** What strangers may ask for as often as they like elsewhere: how a route names it, and the requests. */
const limited: Record<string, { named: RegExp; requests: Omit<Request, "host">[] }> = {
  WebFinger: { named: /webfinger/, requests: [{ method: "GET", path: "/.well-known/webfinger" }] },
  // Passwords, the mail for a new one and new accounts; and apps, which take a password there too.
  "the log-in": {
    named: /\/auth\b/,
    requests: ["/auth/sign_in", "/auth/password", "/auth", "/oauth/token"].map((path) => ({ method: "POST", path })),
  },
};

/** A middleware that is no limit, or one that all share, or that each client makes for itself; none for one that is. */
function limitFaults(middleware: KubernetesObject): string[] {
  const { average, sourceCriterion } = fields(at(middleware, "spec.rateLimit"));
  const { requestHost, requestHeaderName } = fields(sourceCriterion);
  const field = `Middleware ${String(nameOf(middleware))}: spec.rateLimit`;
  const by = `${field}.sourceCriterion`;
  const address = "none: a limit is by the client's address";
  return [
    ...(typeof average === "number" && average > 0
      ? []
      : [fault(`${field}.average`, average, "more than 0: 0 is no limit")]),
    ...(requestHost === undefined || requestHost === false ? [] : [fault(`${by}.requestHost`, requestHost, address)]),
    ...(requestHeaderName === undefined || requestHeaderName === ""
      ? []
      : [fault(`${by}.requestHeaderName`, requestHeaderName, address)]),
  ];
}

const rateLimits = stackRule(
  "rate-limits",
  "passwords must not be guessed by the thousand, nor a single user's threads be used up by look-ups",
  (objects) => {
    const secure = ingressRoutes(objects).filter((one) => entersBy(one, "websecure"));
    const found = secure.flatMap((object) => routesOf(object, objects).map((route) => ({ object, route })));
    // Of a route for every host.
    const hosts = [...new Set([...found.flatMap(({ route }) => hostsIn(route.match)), "any other host"])];
    const said = Object.entries(limited).flatMap(([what, { named, requests }]): Breach[] => {
      if (secure.length > 0 && !found.some(({ route }) => named.test(route.match)))
        return [{ message: `no route of its own for ${what}; needed: one with a rateLimit` }];
      return hosts.flatMap((host) => {
        const asked = requests.map((request) => ({ ...request, host }));
        const meant = found.some(
          ({ route }) =>
            (named.test(route.match) || route.services.includes(loginService)) &&
            asked.some((request) => matches(route.match, request) !== false),
        );
        return meant ? asked.flatMap((request) => unlimited(found, what, request)) : [];
      });
    });
    return said.filter(({ message }, i) => said.findIndex((other) => other.message === message) === i);
  },
);

/** The routes that may answer a request, from the first that Traefik asks to the one that surely does, and have no limit. */
function unlimited(routes: { object: KubernetesObject; route: Route }[], what: string, request: Request): Breach[] {
  const inOrder = [...routes].sort((a, b) => b.route.priority - a.route.priority);
  const answering = inOrder.filter(({ route }) => matches(route.match, request) !== false);
  const sure = answering.findIndex(({ route }) => matches(route.match, request) === true);
  return answering.slice(0, sure < 0 ? answering.length : sure + 1).flatMap(({ object, route }) => {
    const limits = route.middlewares.filter((middleware) => at(middleware, "spec.rateLimit") !== undefined);
    if (limits.some((middleware) => limitFaults(middleware).length === 0)) return [];
    const allowed = `with a rateLimit, since it is for ${what} (${request.method} ${request.path} at ${request.host})`;
    const missing = [fault(`${route.field}.middlewares`, route.middlewares.map(nameOf), allowed)];
    return breaches(object, limits.length === 0 ? missing : limits.flatMap(limitFaults));
  });
}

export const networkRules: Rule[] = [
  oneWayIn,
  defaultDeny,
  namedPeers,
  privateAddresses,
  modernTls,
  securityHeaders,
  httpsOnly,
  rateLimits,
];
