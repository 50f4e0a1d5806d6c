/**
 * One of cert-manager's ACME solvers, as its API server takes it: the fields of the custom resource's definition, and what
 * its webhook asks for beyond them (v1.21.1, internal/apis/certmanager/validation/issuer.go). It refuses any other when the
 * operators, the namespace and the data are made.
 *
 * test/acme-solver.test.ts compares the fields with cert-manager's own, so that a newer one's are noticed.
 */
import * as z from "zod";
import { allowed, object, oneOf } from "./rules";

const text = (what: string) => z.string(allowed(what)).min(1, { error: what, abort: true });
const texts = (what: string) => z.array(text(what), allowed(`a list, each ${what}`));
/** Keys and values that cert-manager hands on to what it makes. */
const record = (what: string) => z.record(z.string(), z.string(allowed("a text")), allowed(what));
/** Templates are for whoever knows Kubernetes well: cert-manager merges them with its own. */
const template = (what: string) => z.record(z.string(), z.unknown(), allowed(what)).optional();

const isSet = (value: unknown) => value !== undefined;
const howMany = (...values: unknown[]) => values.filter(isSet).length;

/** A rule between an object's keys, for where each of them is right by itself: a misspelt one is named, and no more. */
const between = (what: string, at: string[] = []) => ({
  error: what,
  path: at,
  when: ({ issues }: { issues: unknown[] }) => issues.length === 0,
});

/** The definition asks for the name alone, the webhook for the key, too. */
const secretRef = object({ name: text("the name of a Secret"), key: text("a key of the Secret") });

// ---------------------------------------------------------------- the providers of dns01

const acmeDNS = object({ host: text("the acme-dns server's URL or host"), accountSecretRef: secretRef });

const akamai = object({
  serviceConsumerDomain: text("the host of Akamai's API"),
  clientTokenSecretRef: secretRef,
  clientSecretSecretRef: secretRef,
  accessTokenSecretRef: secretRef,
});

const managedIdentity = object({
  clientID: text("the identity's client ID").optional(),
  resourceID: text("the identity's resource ID").optional(),
  tenantID: text("the identity's tenant ID").optional(),
}).refine(
  ({ clientID, resourceID, tenantID }) =>
    isSet(resourceID) ? howMany(clientID, tenantID) === 0 : isSet(clientID) || !isSet(tenantID),
  between("clientID, with or without tenantID, or resourceID alone"),
);
const principal =
  "clientID, clientSecretSecretRef and tenantID together and without managedIdentity, or none of the three";
const azureDNS = object({
  subscriptionID: text("the subscription's ID"),
  resourceGroupName: text("the zone's resource group"),
  hostedZoneName: text("the zone's name").optional(),
  clientID: text("the service principal's client ID").optional(),
  clientSecretSecretRef: secretRef.optional(),
  tenantID: text("the service principal's tenant ID").optional(),
  managedIdentity: managedIdentity.optional(),
  environment: oneOf(["AzurePublicCloud", "AzureChinaCloud", "AzureGermanCloud", "AzureUSGovernmentCloud"]).optional(),
  zoneType: oneOf(["AzurePublicZone", "AzurePrivateZone"]).optional(),
}).refine((azure) => {
  const parts = howMany(azure.clientID, azure.clientSecretSecretRef, azure.tenantID);
  return parts === 0 || (parts === 3 && !isSet(azure.managedIdentity));
}, between(principal));

const cloudDNS = object({
  project: text("the project's ID"),
  hostedZoneName: text("the zone's name").optional(),
  serviceAccountSecretRef: secretRef.optional(),
});

const cloudflareKeys = "apiTokenSecretRef, or apiKeySecretRef and email";
const cloudflare = object({
  apiTokenSecretRef: secretRef.optional(),
  apiKeySecretRef: secretRef.optional(),
  email: text("the account's e-mail address").optional(),
})
  .refine((keys) => howMany(keys.apiTokenSecretRef, keys.apiKeySecretRef) === 1, between(cloudflareKeys))
  .refine(
    ({ apiKeySecretRef, email }) => !isSet(apiKeySecretRef) || isSet(email),
    between("the account's e-mail address, since apiKeySecretRef is set", ["email"]),
  );

const digitalocean = object({ tokenSecretRef: secretRef });

const nameserver = "an address or a host, with or without a port: 192.0.2.53:53, [2001:db8::53]:53 or ns.example.net";
const tsigAlgorithms = ["HMACMD5", "HMACSHA1", "HMACSHA256", "HMACSHA512"];
const tsigAlgorithm = `one of ${tsigAlgorithms.join(", ")}`;
const rfc2136 = object({
  nameserver: text(nameserver).regex(/^(\[[^[\]]+\]|[^[\]:]+)(:\d*)?$/, nameserver),
  tsigKeyName: text("the TSIG key's name").optional(),
  tsigSecretSecretRef: secretRef.optional(),
  tsigAlgorithm: z
    .string(allowed(tsigAlgorithm))
    .refine((name) => tsigAlgorithms.includes(name.toUpperCase()), tsigAlgorithm)
    .optional(),
  protocol: oneOf(["TCP", "UDP"]).optional(),
}).refine(
  ({ tsigKeyName, tsigSecretSecretRef }) => isSet(tsigKeyName) === isSet(tsigSecretSecretRef),
  between("tsigKeyName and tsigSecretSecretRef together, or neither"),
);

const serviceAccountRef = object({
  name: text("the name of a ServiceAccount"),
  audiences: texts("an audience").optional(),
});
const route53 = object({
  region: text("a region such as us-east-1").optional(),
  hostedZoneID: text("the zone's ID").optional(),
  role: text("a role's ARN").optional(),
  accessKeyID: text("an access key's ID").optional(),
  accessKeyIDSecretRef: secretRef.optional(),
  secretAccessKeySecretRef: secretRef.optional(),
  auth: object({ kubernetes: object({ serviceAccountRef }) }).optional(),
}).refine(
  ({ accessKeyID, accessKeyIDSecretRef }) => howMany(accessKeyID, accessKeyIDSecretRef) < 2,
  between("accessKeyID or accessKeyIDSecretRef, not both"),
);

const webhook = object({
  groupName: text("the API group that the webhook serves"),
  solverName: text("the solver's name in the webhook"),
  // Of the webhook's own making.
  config: z.unknown().optional(),
});

const providers = {
  acmeDNS: acmeDNS.optional(),
  akamai: akamai.optional(),
  azureDNS: azureDNS.optional(),
  cloudDNS: cloudDNS.optional(),
  cloudflare: cloudflare.optional(),
  digitalocean: digitalocean.optional(),
  rfc2136: rfc2136.optional(),
  route53: route53.optional(),
  webhook: webhook.optional(),
};
const aProvider = `one of cert-manager's DNS providers, ${Object.keys(providers).join(", ")}, with or without a cnameStrategy`;
const dns01 = z
  .strictObject({ ...providers, cnameStrategy: oneOf(["None", "Follow"]).optional() }, { error: () => aProvider })
  .refine(({ cnameStrategy: _, ...chosen }) => howMany(...Object.values(chosen)) === 1, between(aProvider));

// ---------------------------------------------------------------- http01

const serviceType = oneOf(["ClusterIP", "NodePort"]).optional();

const ingressClassName = "the name of an IngressClass: lower-case letters, digits, - and .";
const ingress = object({
  ingressClassName: text(ingressClassName)
    .regex(/^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, ingressClassName)
    .optional(),
  class: text("what the annotation kubernetes.io/ingress.class is to say").optional(),
  name: text("the name of an Ingress").optional(),
  serviceType,
  podTemplate: template("a template with metadata, spec"),
  ingressTemplate: template("a template with metadata"),
}).refine(
  (one) => howMany(one.ingressClassName, one.class, one.name) < 2,
  between("one of ingressClassName, class and name, or none of them"),
);

const port = "a port, 1 to 65535";
const parentRef = object({
  name: text("the name of a Gateway"),
  namespace: text("a namespace").optional(),
  // Kubernetes' own group is the empty one.
  group: z.string(allowed("an API group")).optional(),
  kind: text("a kind such as Gateway").optional(),
  sectionName: text("the name of a listener").optional(),
  port: z.int(allowed(port)).min(1, port).max(65_535, port).optional(),
});
const gatewayHTTPRoute = object({
  parentRefs: z.array(parentRef, allowed("a list of Gateways, each with a name")).optional(),
  labels: record("labels of the HTTPRoute").optional(),
  serviceType,
  podTemplate: template("a template with metadata, spec"),
});

const http01 = object({ ingress: ingress.optional(), gatewayHTTPRoute: gatewayHTTPRoute.optional() }).refine(
  (one) => howMany(one.ingress, one.gatewayHTTPRoute) === 1,
  between("ingress or gatewayHTTPRoute"),
);

// ---------------------------------------------------------------- the solver

const selector = object({
  matchLabels: record("labels of the certificates").optional(),
  dnsNames: texts("a host name").optional(),
  dnsZones: texts("a zone such as ramble.moe").optional(),
});

const aSolver = "a solver of cert-manager's, with http01 or with dns01, such as {dns01: {...}}";
const duration = "a time such as 90s or 2m";
export const acmeSolver = object({
  http01: http01.optional(),
  dns01: dns01.optional(),
  selector: selector.optional(),
  waitInsteadOfSelfCheck: z
    .string(allowed(duration))
    .regex(/^(0|(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+)$/, duration)
    .optional(),
}).refine((solver) => howMany(solver.http01, solver.dns01) === 1, between(aSolver));
