/** What must run in the cluster beside us: the three operators and Traefik. Pure. */
import { cnpgNamespace } from "../../components/operators";
import { tagOf } from "../status/lines";
import type * as k8s from "@kubernetes/client-node";
import type { Settings } from "../../settings";
import type { ImageName } from "../../versions";
import { kubectl } from "../kube";
import { judged, ok } from "./lines";
import type { DoctorLine } from "./lines";
import { isOlder } from "./version";

export type OperatorName = keyof Settings["operators"];

/**
 * How each is known: the definition it brings, the name of its image, which a mirror keeps, and what is in the name of a
 * Deployment or an image where another builds it.
 */
export const operatorMarks: Record<OperatorName, { title: string; definition: string; image: string; called: RegExp }> =
  {
    certManager: {
      title: "cert-manager",
      definition: "certificates.cert-manager.io",
      image: "cert-manager-controller",
      called: /cert-?manager/i,
    },
    cloudNativePg: {
      title: "CloudNativePG",
      definition: "clusters.postgresql.cnpg.io",
      image: "cloudnative-pg",
      called: /cnpg|cloudnative-?pg/i,
    },
    barmanPlugin: {
      title: "barman-cloud plugin",
      definition: "objectstores.barmancloud.cnpg.io",
      image: "plugin-barman-cloud",
      called: /barman/i,
    },
  };

/** What our release of the plugin is called (components/operators.ts), and everybody's by its documentation. */
const pluginRelease = "plugin-barman-cloud";

/** Before it, WAL could be restored from the wrong store at a promotion (plugin-barman-cloud#966). */
const oldestPlugin = "0.14.0";

/** What tells each operator's version (versions.ts). */
const imageNames = {
  certManager: "cert-manager-controller",
  cloudNativePg: "cloudnative-pg",
  barmanPlugin: "barman-plugin",
} as const satisfies Record<OperatorName, ImageName>;

/** The version that an update brings, and this project is tested with: a tag of `versions.ts`, or the stack's own. */
export const expectedVersion = (name: OperatorName, { images }: Pick<Settings, "images">): string =>
  tagOf(images[imageNames[name]]);

/** What is in the cluster of an operator. */
export interface OperatorFacts {
  /** Whether its custom resource definition is there. */
  definition: boolean;
  /** Its Deployment; undefined if none is found by its image. */
  deployment?: {
    name: string;
    namespace: string;
    image: string;
    wanted: number;
    ready: number;
    /** The Helm release that made it, if one did. */
    release?: string;
  };
  /** Whether any Deployment is called like it. */
  called: boolean;
  /** Whether a stack of this project installed it: its namespace or its own annotation says so. */
  ours: boolean;
}

/** The last part of an image reference without tag and digest: `ghcr.io/x/plugin-barman-cloud:v1` -> `plugin-barman-cloud`. */
export const imageName = (image: string): string => (image.split("@")[0] ?? "").split("/").at(-1)?.split(":")[0] ?? "";

/**
 * The way out where an update would install what is there and not known for ours. Beside an operator that was there before
 * us the plugin is known by its own annotation, and one that we installed before it had that looks like anybody's by its
 * chart's usual name: calling it `existing` would delete it.
 */
export function mendOfInstalled(
  name: OperatorName,
  { site, cluster }: Pick<Settings, "site" | "cluster">,
  deployment: NonNullable<OperatorFacts["deployment"]>,
): string {
  const existing = `pulumi config set --path homestead:operators.${name} existing --stack ${site}`;
  const { namespace, release } = deployment;
  if (name !== "barmanPlugin" || release !== pluginRelease || namespace !== cnpgNamespace) return existing;
  const annotate = `${kubectl(cluster)} -n ${namespace} annotate deployment ${deployment.name} app.kubernetes.io/part-of=homestead`;
  return `if an update of this stack installed it (pulumi stack --show-urns --stack ${site} names ${release}): ${annotate}; if not: ${existing}`;
}

/** A line for one operator. A definition that is missing where the stack says `existing` is an update's refusal already. */
export function operatorLine(
  name: OperatorName,
  { operators, site, cluster }: Pick<Settings, "operators" | "site" | "cluster">,
  { definition, deployment, ours }: OperatorFacts,
  expected: string,
): DoctorLine {
  const { title } = operatorMarks[name];
  const wanted = operators[name];
  const choose = (choice: string) => `pulumi config set --path homestead:operators.${name} ${choice} --stack ${site}`;
  if (deployment === undefined) {
    if (wanted === "install")
      return ok("operators", title, definition ? "definitions kept, the update installs it" : "the update installs it");
    return judged(
      "operators",
      title,
      "warning",
      "its definitions are there, and no Deployment with its image",
      `${kubectl(cluster)} get deployments -A; if there is none: ${choose("install")}`,
    );
  }
  const { namespace, image } = deployment;
  const says = `${tagOf(image)} in ${namespace}, ${ours ? "installed by this project" : "installed by somebody else"}`;
  if (wanted === "install" && !ours) {
    const mend = mendOfInstalled(name, { site, cluster }, deployment);
    return judged("operators", title, "fault", `${says}: an install would collide with it`, mend);
  }
  if (deployment.ready < deployment.wanted) {
    const mend = `${kubectl(cluster)} -n ${namespace} get pods`;
    return judged("operators", title, "fault", `${says}; ${deployment.ready}/${deployment.wanted} ready`, mend);
  }
  const has = tagOf(image);
  if (name === "barmanPlugin" && isOlder(has, oldestPlugin)) {
    const why = `${says}; before ${oldestPlugin} a promotion can restore WAL from the wrong store`;
    return judged("operators", title, "warning", why, `upgrade the plugin to ${oldestPlugin} or later`);
  }
  if (has === expected) return ok("operators", title, says);
  if (ours)
    return judged("operators", title, "warning", `${says}; the stack says ${expected}`, `pulumi up --stack ${site}`);
  // Somebody else's may be newer than what we know.
  if (!isOlder(has, expected)) return ok("operators", title, says);
  const why = `${says}; older than ${expected}, which this project is tested with`;
  return judged("operators", title, "warning", why, `upgrade it to ${expected} or later, where it was installed from`);
}

/** Traefik believes `X-Forwarded-For` only of whom one of these arguments names; of others it writes it anew. */
const believes = /^--entry-?points\.websecure\.(forwardedheaders|proxyprotocol)\.(trustedips=.|insecure(=true)?$)/i;

/** One of Traefik's pods. */
export interface TraefikPod {
  image: string;
  ready: boolean;
  /** Of its containers' command lines. */
  args: readonly string[];
}

/** Custom resource definitions, by name. */
export type Definitions = ReadonlyMap<string, k8s.V1CustomResourceDefinition>;

/** Whether Traefik can take an IPv6 subnet for one client. */
export type SubnetLimits = "there" | "missing";

/**
 * Asked of the definition, not of the image: a field that it does not have is not dropped in silence, but refused to who
 * applies on the server's side, as the provider does ("field not declared in schema"), and the update with it.
 */
export function subnetLimits(definitions: Definitions): SubnetLimits {
  const path = ["spec", "rateLimit", "sourceCriterion", "ipStrategy", "ipv6Subnet"];
  const versions = definitions.get("middlewares.traefik.io")?.spec.versions ?? [];
  const has = ({ schema }: k8s.V1CustomResourceDefinitionVersion) =>
    path.reduce<k8s.V1JSONSchemaProps | undefined>((at, name) => at?.properties?.[name], schema?.openAPIV3Schema);
  return versions.some((version) => has(version) !== undefined) ? "there" : "missing";
}

/** What leads to Traefik's pods from outside the cluster. */
export interface TraefikService {
  name: string;
  externalTrafficPolicy: string;
}

/**
 * Whether Traefik sees who is asking: the rate limits go by it. A Service that spreads its connections over all nodes hides
 * the client behind a node's address (kubernetes.io, "Preserving the client source IP").
 *
 * @param services of type LoadBalancer or NodePort that select Traefik's pods; none where its ports are the node's own
 */
export function clientAddressLine(
  { ingress, cluster, network, site }: Pick<Settings, "ingress" | "cluster" | "network" | "site">,
  services: readonly TraefikService[],
  pods: readonly Pick<TraefikPod, "args">[],
  subnets: SubnetLimits,
): DoctorLine {
  const what = "clients' addresses";
  if (ingress.proxies > 0) {
    const says = `taken from X-Forwarded-For, behind ${ingress.proxies} of your proxies`;
    if (pods.every(({ args }) => args.some((arg) => believes.test(arg)))) return ok("operators", what, says);
    return judged(
      "operators",
      what,
      "warning",
      `${says}, but Traefik's arguments name no proxy that it believes: then all clients share one rate limit`,
      "give Traefik --entryPoints.websecure.forwardedHeaders.trustedIPs=<your proxies' addresses> where it was installed from (its chart: ports.websecure.forwardedHeaders.trustedIPs); nothing to do if a file of its own says so",
    );
  }
  const hiding = services.find(({ externalTrafficPolicy }) => externalTrafficPolicy !== "Local");
  if (hiding === undefined) {
    if (subnets === "there" || !network.families.includes("IPv6")) return ok("operators", what, "Traefik sees them");
    return judged(
      "operators",
      what,
      "warning",
      "Traefik sees them, but counts each address of an IPv6 network as another client, and who has one address there has 2^64: it is older than 3.2",
      `upgrade Traefik to 3.2 or later, its custom resource definitions too, where it was installed from (k3s brings it since 1.32.2), then: pulumi up --stack ${site}`,
    );
  }
  return judged(
    "operators",
    what,
    "warning",
    `Service ${hiding.name} may hide them from Traefik, so that all clients behind a node share one rate limit, and one stranger who tries passwords can lock the owner out`,
    `on k3s the HelmChartConfig of README.md, "For real", step 5 (service.spec.externalTrafficPolicy: Local), elsewhere the same where Traefik was installed from; at once, until that is applied anew: ${kubectl(cluster)} -n ${ingress.namespace} patch service ${hiding.name} -p '{"spec":{"externalTrafficPolicy":"Local"}}'`,
  );
}

/** What an upload may take where nothing says otherwise, since Traefik 2.11.2 (doc.traefik.io, migration notes). */
const usualSeconds = 60;
const firstWithLimit = "2.11.2";
/** The largest upload that Mastodon takes, a video (app/models/media_attachment.rb, VIDEO_LIMIT). */
const largestUpload = 99 * 1024 ** 2;
/** Megabits a second that any line has upwards. */
const anyLine = 2;

const readTimeout = /^--entry-?points\.websecure\.transport\.respondingtimeouts\.readtimeout=(.+)$/i;

/** Seconds of one of Go's durations such as `1h30m`, or of a number without a unit; undefined if it is neither. */
function secondsIn(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text);
  if (!/^(\d+(\.\d+)?(h|m|s|ms))+$/.test(text)) return undefined;
  const units: Record<string, number> = { h: 3600, m: 60, s: 1, ms: 0.001 };
  const parts = [...text.matchAll(/([\d.]+)(h|ms|m|s)/g)];
  return parts.reduce((sum, [, number, unit = ""]) => sum + Number(number) * (units[unit] ?? 0), 0);
}

/**
 * Whether a slow line has the time for a large upload: Traefik ends a request that it has not read to its end by then,
 * however well it goes.
 *
 * @param pods one at least
 */
export function uploadLine(pods: readonly Pick<TraefikPod, "image" | "args">[]): DoctorLine {
  const limits = pods.map(({ image, args }) => {
    const said = args.flatMap((arg) => readTimeout.exec(arg)?.[1] ?? []).at(-1);
    const usual = isOlder(tagOf(image), firstWithLimit) ? 0 : usualSeconds;
    return said === undefined ? usual : (secondsIn(said) ?? usual);
  });
  // 0 is no limit.
  const seconds = Math.min(...limits.map((limit) => (limit === 0 ? Infinity : limit)));
  if (seconds === Infinity) return ok("operators", "uploads", "may take as long as they need");
  const needed = (largestUpload * 8) / 1e6 / seconds;
  return judged(
    "operators",
    "uploads",
    needed <= anyLine ? "ok" : "warning",
    `have ${seconds} s, Traefik's readTimeout: one of 99 MiB, as large as a video may be, needs a line of ${Math.ceil(needed)} Mbit/s`,
    "give Traefik --entryPoints.websecure.transport.respondingTimeouts.readTimeout=10m where it was installed from (docs/runbooks/slow-upload.md); nothing to do if a file of its own says so",
  );
}

/** A line for Traefik's pods, found as the network policies find them: by `ingress.namespace` and `ingress.labels`. */
export function traefikLine(
  { ingress, cluster, site }: Pick<Settings, "ingress" | "cluster" | "site">,
  pods: readonly Pick<TraefikPod, "image" | "ready">[],
): DoctorLine {
  const selector = Object.entries(ingress.labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
  const list = `${kubectl(cluster)} get pods -A -l ${selector}`;
  const [first] = pods;
  if (first === undefined) {
    return judged(
      "operators",
      "Traefik",
      "fault",
      `no pod ${selector} in ${ingress.namespace}: nothing would be let through to the site`,
      `${list}, then: pulumi config set --path homestead:ingress.namespace <namespace> --stack ${site}`,
    );
  }
  const ready = pods.filter((pod) => pod.ready).length;
  const says = `${tagOf(first.image)} in ${ingress.namespace}, ${ready}/${pods.length} ready`;
  return judged("operators", "Traefik", ready === 0 ? "fault" : ready < pods.length ? "warning" : "ok", says, list);
}
