/** The lines of a doctor's report, and what needs no more than a value to be judged. Pure: no cluster, no clock. */
import type * as k8s from "@kubernetes/client-node";
import { clockMend } from "../clock";
import { byLimit, dnsLine } from "../status/lines";
import type { DnsAnswer, StatusLine, Verdict } from "../status/lines";
import { span } from "../drill/verdicts";
import { kubectl } from "../kube";
import type { Fault, Settings } from "../../settings";
import { askedFromHere } from "../verify/target";

/** What a line is about, in the order of the report. */
export const areas = [
  "program",
  "stack",
  "cluster",
  "operators",
  "storage",
  "capacity",
  "vault",
  "media",
  "certificates",
  "dns",
  "ports",
  "clock",
] as const;
export type Area = (typeof areas)[number];

export interface DoctorLine extends StatusLine {
  area: Area;
  /** How to mend it: a command where there is one, else what to do. Every warning and every fault has one. */
  mend?: string;
}

/** What a doctor found, its lines in the order of {@link areas}. */
export interface DoctorReport {
  site: string;
  /** Undefined where the stack's configuration cannot be read. */
  role?: Settings["role"];
  /** When it was asked, as ISO 8601. */
  at: string;
  verdict: Verdict;
  lines: DoctorLine[];
}

export const ok = (area: Area, what: string, says: string): DoctorLine => ({ area, what, verdict: "ok", says });

/** A line whose verdict is known; the mend is left out where there is nothing to mend. */
export const judged = (area: Area, what: string, verdict: Verdict, says: string, mend: string): DoctorLine =>
  verdict === "ok" ? ok(area, what, says) : { area, what, verdict, says, mend };

/** The lines in the order of their areas, each area's in the order they came. */
export const inOrder = (lines: readonly DoctorLine[]): DoctorLine[] =>
  areas.flatMap((area) => lines.filter((one) => one.area === area));

// ---------------------------------------------------------------- what an update would refuse

const areaOf: Record<string, Area> = {
  cluster: "cluster",
  storage: "storage",
  operators: "operators",
  ingress: "operators",
  network: "operators",
  certificates: "certificates",
  vault: "vault",
  media: "media",
  dns: "dns",
  charts: "program",
  images: "program",
};

/** A fault that `pulumi up` would end with (lib/checks.ts), as a line. */
export function refusal({ key, value, allowed, mend }: Fault): DoctorLine {
  const name = key.replace(/^homestead:/, "");
  const area = areaOf[name.split(/[.[]/)[0] ?? ""] ?? "stack";
  return judged(area, name, "fault", `${value}; an update wants ${allowed}`, mend);
}

// ---------------------------------------------------------------- cluster

export interface ClusterFacts {
  /** Version of the API server, such as `v1.34.4+k3s1`. */
  version: string;
  /** UID of its kube-system namespace. */
  uid: string;
  /** Whether the site's namespace is there; whose it is has been checked by then. */
  namespace: "there" | "missing";
}

/** Lines on a cluster that answers and is not another stack's. */
export function clusterLines(
  { cluster, namespace, site }: Pick<Settings, "cluster" | "namespace" | "site">,
  facts: ClusterFacts,
): DoctorLine[] {
  const owned = facts.namespace === "there" ? `its namespace '${namespace}' is ${site}'s` : "nothing of ours is in it";
  const pinned = cluster.uid !== undefined;
  return [
    ok("cluster", cluster.context, `Kubernetes ${facts.version}; ${owned}`),
    judged(
      "cluster",
      "uid",
      pinned ? "ok" : "warning",
      pinned ? `${facts.uid}, as the stack says` : "the stack names none: any cluster behind this context would do",
      `pulumi config set --path homestead:cluster.uid ${facts.uid} --stack ${site}`,
    ),
  ];
}

// ---------------------------------------------------------------- edge

/**
 * A name of the site's in DNS. Before a site has been brought up it is no fault that its names do not lead to it: the
 * update's last step sees to that.
 *
 * @param own addresses at which the world reaches this site
 * @param served whether the site has been brought up
 * @param certificate `waits` where it cannot be had before the name leads here (the solver http01)
 */
export function nameLine(
  { role, site, activeSite, dns, ingress }: Pick<Settings, "role" | "site" | "activeSite" | "dns" | "ingress">,
  answer: DnsAnswer,
  own: readonly string[],
  served: boolean,
  certificate: "waits" | "apart" = "apart",
): DoctorLine {
  const { what, verdict, says } = dnsLine(answer, own, role);
  if (role === "standby") {
    return judged("dns", what, verdict, says, `point it to ${activeSite}: npx homestead verify ${activeSite} --public`);
  }
  if (verdict === "warning") {
    // The right address, by hearsay.
    return judged(
      "dns",
      what,
      verdict,
      says,
      "npx homestead doctor with --resolver and a server that finds the zone's own",
    );
  }
  const up = `pulumi up --stack ${site}`;
  const point = `point ${answer.name} to ${ingress.address}`;
  const mend =
    certificate === "waits"
      ? `${point} by hand: the certificate is asked for there. Then ${up}, which waits for it`
      : dns.kind !== "manual"
        ? `${up}, whose last step sets it`
        : `${served ? `npx homestead verify ${site}` : up}, then ${point}`;
  return judged("dns", what, verdict === "fault" && !served ? "warning" : verdict, says, mend);
}

/**
 * Addresses of a family that the site is not reached by: a registrar's parking page often leaves an AAAA behind. Who has
 * IPv6 prefers it, Let's Encrypt and other servers among them (letsencrypt.org/docs/ipv6-support), and lands elsewhere.
 */
export function strayLines(
  { name, addresses, server }: DnsAnswer,
  family: 4 | 6,
  { address }: Pick<Settings["ingress"], "address">,
): DoctorLine[] {
  if (addresses.length === 0) return [];
  const type = family === 6 ? "AAAA" : "A";
  return [
    judged(
      "dns",
      `${name} ${type}`,
      "fault",
      `${addresses.join(", ")}, says ${server}: half the world goes there and not to ${address}`,
      `delete the ${type} record of ${name} (a cluster that is reached by both: homestead:network.families)`,
    ),
  ];
}

/**
 * A port of the ingress, tried from this machine.
 *
 * @param refused why it cannot be connected to; undefined if it can
 */
export function portLine(
  settings: Pick<Settings, "ingress" | "verification">,
  port: number,
  refused: string | undefined,
): DoctorLine {
  const what = `${askedFromHere(settings)}:${port}`;
  if (refused === undefined) return ok("ports", what, "open");
  // Who verifies from inside the cluster says that this machine does not reach the ingress.
  const verdict = settings.verification.from === "here" ? "fault" : "warning";
  return judged(
    "ports",
    what,
    verdict,
    `cannot be connected to from this machine: ${refused}`,
    "open it in the firewall and forward it on the router; if only the house cannot reach it (a router that does not turn back to its own address), set verification.address to Traefik's address in the house, and see certificates in README.md",
  );
}

// ---------------------------------------------------------------- clock

/**
 * Seconds by which two clocks may differ. A one-time code for two-factor login lasts 30 s (RFC 6238); a store refuses
 * a signature that is 15 minutes off (S3, RequestTimeTooSkewed), and with it every backup.
 */
export const clockLimits = { warning: 30, fault: 900 } as const;

/** @param ahead seconds by which the other clock is ahead of this machine's */
export function clockLine(what: string, ahead: number): DoctorLine {
  const seconds = Math.round(Math.abs(ahead));
  const verdict = byLimit(seconds, clockLimits);
  const says =
    seconds <= 2
      ? "as this machine's"
      : `${span(seconds)} ${ahead > 0 ? "ahead of" : "behind"} this machine's (a store refuses what is 15 min off, two-factor codes last 30 s)`;
  return judged("clock", what, verdict, says, clockMend);
}

/** When a node renewed its lease last, in seconds since 1970 by its own clock. */
export interface Renewal {
  node: string;
  at: number;
}

/** Seconds between two renewals of a node's lease: a quarter of its 40 s (kubelet, nodeLeaseDurationSeconds). */
const renewing = 10;

/**
 * The line on the clock of a node that is Ready: a dead kubelet's lease would look like a slow clock.
 *
 * @param now seconds since 1970 by this machine's clock
 */
export function nodeClockLine({ node, at }: Renewal, now: number): DoctorLine {
  const late = now - at;
  // What lies between two renewals is no difference; a second is for the way.
  return clockLine(`node ${node}`, late < -1 ? -late : late > renewing + 1 ? renewing - late : 0);
}

// ---------------------------------------------------------------- nodes

/** Lines on nodes that are not well: what Kubernetes itself says of them. */
export function nodeLines(nodes: readonly k8s.V1Node[], cluster: Settings["cluster"]): DoctorLine[] {
  return nodes.flatMap((node) => {
    const name = node.metadata?.name ?? "";
    const pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"].filter((type) => nodeIs(node, type));
    const troubles = [...(nodeIs(node, "Ready") ? [] : ["not Ready"]), ...pressures];
    if (troubles.length === 0) return [];
    const mend = `${kubectl(cluster)} describe node ${name}`;
    return judged("cluster", `node ${name}`, "fault", troubles.join(", "), mend);
  });
}

/** Whether a condition of a node holds. */
export const nodeIs = ({ status }: k8s.V1Node, condition: string): boolean =>
  status?.conditions?.some(({ type, status: is }) => type === condition && is === "True") ?? false;
