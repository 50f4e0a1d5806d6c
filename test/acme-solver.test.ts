/** The solver's rules beside cert-manager's own schema, of the devDependency that is generated from its Go types. */
import { Issuer } from "@kubernetes-models/cert-manager/cert-manager.io/v1";
import { describe, expect, it, test } from "vitest";
import * as z from "zod";
import { acmeSolver } from "../lib/acme-solver";
import { parseSettings, SettingsError } from "../settings";
import { configurationOf } from "./support/configuration";

type Path = readonly (string | number)[];

/** What cert-manager's schema knows at a place of a solver: an object that tells which of its fields it is asked for. */
function fieldsAt(path: Path): { known: string[]; required: string[] } {
  const known = new Set<string>();
  const spy = new Proxy(
    {},
    {
      get: (_, key) => {
        if (typeof key === "string") known.add(key);
        return undefined;
      },
    },
  );
  const solver = [...path]
    .reverse()
    .reduce<unknown>((inner, key) => (typeof key === "number" ? [inner] : { [key]: inner }), spy);
  const missing: string[] = [];
  const issuer = { apiVersion: "cert-manager.io/v1", kind: "Issuer", spec: { acme: acmeWith(solver) } };
  try {
    Issuer.prototype.validate.call(issuer);
  } catch (error) {
    const at = ["", "spec", "acme", "solvers", 0, ...path].join("/");
    const { errors } = error as { errors: { instancePath: string; params: { missingProperty?: string } }[] };
    for (const { instancePath, params } of errors)
      if (instancePath === at && params.missingProperty !== undefined) missing.push(params.missingProperty);
  }
  return { known: [...known].sort(), required: missing.sort() };
}
const acmeWith = (solver: unknown) => ({
  server: "https://a.example",
  privateKeySecretRef: { name: "a" },
  solvers: [solver],
});

/** Every object of ours, with the path to it. Templates and a webhook's configuration are free. */
function objectsOf(schema: unknown, path: Path = []): { path: Path; shape: Record<string, z.ZodType> }[] {
  if (schema instanceof z.ZodOptional) return objectsOf(schema.unwrap(), path);
  if (schema instanceof z.ZodArray) return objectsOf(schema.element, [...path, 0]);
  if (!(schema instanceof z.ZodObject)) return [];
  const shape = schema.shape as Record<string, z.ZodType>;
  return [{ path, shape }, ...Object.entries(shape).flatMap(([key, inner]) => objectsOf(inner, [...path, key]))];
}
const objects = objectsOf(acmeSolver);

/** Of cert-manager v1.21, which the package is older than. */
const newer = ["waitInsteadOfSelfCheck"];
/** What the webhook asks for, and the schema does not. */
const byWebhook = (path: Path) => (String(path.at(-1)).endsWith("SecretRef") ? ["key"] : []);

describe("a solver's fields are cert-manager's", () => {
  test("all of them, however deep", () => {
    expect(objects.length).toBeGreaterThan(30);
  });

  it.each(objects.map(({ path, shape }) => [path.join(".") || "the solver", path, shape] as const))(
    "%s",
    (_name, path, shape) => {
      const { known, required } = fieldsAt(path);
      const own = Object.keys(shape).filter((key) => path.length > 0 || !newer.includes(key));
      expect(own.sort()).toEqual(known);
      const wanted = Object.keys(shape).filter((key) => !shape[key]?.safeParse(undefined).success);
      expect(wanted.sort()).toEqual([...required, ...byWebhook(path)].sort());
    },
  );
});

/** What is wrong with a solver: the rest of the key, and what is allowed there. */
function faultsOf(solver: unknown): string[] {
  try {
    parseSettings(configurationOf("home", { certificates: { kind: "acme", email: "a@b", solver } }));
    return [];
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return error.faults.map(({ key, allowed }) => `${key.replace("homestead:certificates.solver", "")}: ${allowed}`);
  }
}

const secret = { name: "a", key: "b" };
const dns = (provider: Record<string, unknown>) => ({ dns01: provider });
const azure = { subscriptionID: "a", resourceGroupName: "b" };
const principal = { clientID: "a", clientSecretSecretRef: secret, tenantID: "b" };

describe("a solver that the API server would refuse, when all before it is made", () => {
  const inCloudflare = "only apiTokenSecretRef, apiKeySecretRef, email";
  const oneKey = "apiTokenSecretRef, or apiKeySecretRef and email";
  const nameserver = "an address or a host, with or without a port: 192.0.2.53:53, [2001:db8::53]:53 or ns.example.net";
  const whole =
    "clientID, clientSecretSecretRef and tenantID together and without managedIdentity, or none of the three";
  const identity = "clientID, with or without tenantID, or resourceID alone";
  const className = "one of ingressClassName, class and name, or none of them";
  it.each<[unknown, string[]]>([
    [
      dns({ cloudflare: { apiTokenSecretReff: { name: "a", key: "key" } } }),
      [`.dns01.cloudflare.apiTokenSecretReff: ${inCloudflare}`],
    ],
    [
      dns({ cloudflare: { name: "a", key: "b" } }),
      [`.dns01.cloudflare.name: ${inCloudflare}`, `.dns01.cloudflare.key: ${inCloudflare}`],
    ],
    [dns({ cloudflare: {} }), [`.dns01.cloudflare: ${oneKey}`]],
    [dns({ cloudflare: { apiTokenSecretRef: secret, apiKeySecretRef: secret } }), [`.dns01.cloudflare: ${oneKey}`]],
    [
      dns({ cloudflare: { apiKeySecretRef: secret } }),
      [".dns01.cloudflare.email: the account's e-mail address, since apiKeySecretRef is set"],
    ],
    [
      dns({ cloudflare: { apiTokenSecretRef: { name: "a" } } }),
      [".dns01.cloudflare.apiTokenSecretRef.key: a key of the Secret"],
    ],
    [
      dns({ cloudflare: { apiTokenSecretRef: { name: "", key: "b" } } }),
      [".dns01.cloudflare.apiTokenSecretRef.name: the name of a Secret"],
    ],
    [
      dns({ cloudflare: { apiTokenSecretRef: "t0ken" } }),
      [".dns01.cloudflare.apiTokenSecretRef: an object with name, key"],
    ],
    [
      dns({ webhook: { config: {} } }),
      [
        ".dns01.webhook.groupName: the API group that the webhook serves",
        ".dns01.webhook.solverName: the solver's name in the webhook",
      ],
    ],
    [dns({ digitalocean: {} }), [".dns01.digitalocean.tokenSecretRef: an object with name, key"]],
    [dns({ azureDNS: { ...azure, clientID: "a" } }), [`.dns01.azureDNS: ${whole}`]],
    [dns({ azureDNS: { ...azure, ...principal, managedIdentity: {} } }), [`.dns01.azureDNS: ${whole}`]],
    [
      dns({ azureDNS: { ...azure, managedIdentity: { clientID: "a", resourceID: "b" } } }),
      [`.dns01.azureDNS.managedIdentity: ${identity}`],
    ],
    [
      dns({ azureDNS: { ...azure, managedIdentity: { tenantID: "a" } } }),
      [`.dns01.azureDNS.managedIdentity: ${identity}`],
    ],
    [
      dns({ route53: { accessKeyID: "a", accessKeyIDSecretRef: secret } }),
      [".dns01.route53: accessKeyID or accessKeyIDSecretRef, not both"],
    ],
    [
      dns({ rfc2136: { nameserver: "192.0.2.53", tsigKeyName: "a" } }),
      [".dns01.rfc2136: tsigKeyName and tsigSecretSecretRef together, or neither"],
    ],
    [dns({ rfc2136: { nameserver: "2001:db8::53" } }), [`.dns01.rfc2136.nameserver: ${nameserver}`]],
    [dns({ rfc2136: { nameserver: "" } }), [`.dns01.rfc2136.nameserver: ${nameserver}`]],
    [
      dns({ rfc2136: { nameserver: "a", tsigAlgorithm: "hmac-sha256" } }),
      [".dns01.rfc2136.tsigAlgorithm: one of HMACMD5, HMACSHA1, HMACSHA256, HMACSHA512"],
    ],
    [dns({ route53: {}, cnameStrategy: "follow" }), [".dns01.cnameStrategy: one of None, Follow"]],
    [{ http01: { ingres: {} } }, [".http01.ingres: only ingress, gatewayHTTPRoute"]],
    [{ http01: {} }, [".http01: ingress or gatewayHTTPRoute"]],
    [{ http01: { ingress: {}, gatewayHTTPRoute: {} } }, [".http01: ingress or gatewayHTTPRoute"]],
    [
      { http01: { ingress: { clas: "traefik" } } },
      [".http01.ingress.clas: only ingressClassName, class, name, serviceType, podTemplate, ingressTemplate"],
    ],
    [{ http01: { ingress: { class: "a", ingressClassName: "b" } } }, [`.http01.ingress: ${className}`]],
    [
      { http01: { ingress: { ingressClassName: "Traefik" } } },
      [".http01.ingress.ingressClassName: the name of an IngressClass: lower-case letters, digits, - and ."],
    ],
    [
      { http01: { ingress: { serviceType: "LoadBalancer" } } },
      [".http01.ingress.serviceType: one of ClusterIP, NodePort"],
    ],
    [
      { http01: { gatewayHTTPRoute: { parentRefs: [{ namespace: "a" }] } } },
      [".http01.gatewayHTTPRoute.parentRefs[0].name: the name of a Gateway"],
    ],
    [
      { http01: { ingress: {} }, selector: { dnsZone: ["a.b"] } },
      [".selector.dnsZone: only matchLabels, dnsNames, dnsZones"],
    ],
    [
      { http01: { ingress: {} }, selector: { dnsZones: "a.b" } },
      [".selector.dnsZones: a list, each a zone such as ramble.moe"],
    ],
    [{ http01: { ingress: {} }, waitInsteadOfSelfCheck: "-1s" }, [".waitInsteadOfSelfCheck: a time such as 90s or 2m"]],
  ])("%j", (solver, faults) => {
    expect(faultsOf(solver)).toEqual(faults);
  });
});

describe("a solver that cert-manager takes", () => {
  it.each<[unknown]>([
    [dns({ cloudflare: { apiTokenSecretRef: secret } })],
    [dns({ cloudflare: { apiKeySecretRef: secret, email: "a@b" } })],
    [dns({ azureDNS: { ...azure, ...principal, environment: "AzureGermanCloud", zoneType: "AzurePrivateZone" } })],
    [dns({ azureDNS: { ...azure, managedIdentity: { clientID: "a", tenantID: "b" } } })],
    [dns({ azureDNS: { ...azure, managedIdentity: { resourceID: "a" } } })],
    // By what the machine that cert-manager is on may.
    [dns({ route53: {} })],
    [dns({ cloudDNS: { project: "a" } })],
    [dns({ rfc2136: { nameserver: "[2001:db8::53]:53" } })],
    [
      dns({
        rfc2136: {
          nameserver: "ns.example.net",
          tsigKeyName: "a",
          tsigSecretSecretRef: secret,
          tsigAlgorithm: "hmacsha512",
        },
      }),
    ],
    [dns({ webhook: { groupName: "a", solverName: "b", config: { any: [{ thing: 1 }] } } })],
    [{ http01: { ingress: { class: "azure/application-gateway" } }, waitInsteadOfSelfCheck: "1m30s" }],
    [
      {
        http01: { ingress: { podTemplate: { spec: { nodeSelector: { a: "b" } } }, ingressTemplate: { metadata: {} } } },
      },
    ],
    [
      {
        http01: {
          gatewayHTTPRoute: { parentRefs: [{ group: "", kind: "Service", name: "a", port: 80 }], labels: { a: "" } },
        },
      },
    ],
    [{ http01: { gatewayHTTPRoute: {} }, selector: { matchLabels: { a: "b" }, dnsNames: ["a.b"], dnsZones: [] } }],
  ])("%j", (solver) => {
    expect(faultsOf(solver)).toEqual([]);
  });
});
