/** Who signs the site's certificate. Pure. */
import type { Settings } from "../../settings";
import { kubectl } from "../kube";
import { judged, ok } from "./lines";
import type { DoctorLine } from "./lines";

export type IssuerFacts = { state: "ready" } | { state: "missing" } | { state: "unready"; message: string };

/** The issuer that the program asks (components/ingress.ts); `made` by itself, or yours. */
export function issuerOf({ certificates }: Pick<Settings, "certificates">): {
  name: string;
  kind: "Issuer" | "ClusterIssuer";
  from: "made" | "yours";
} {
  switch (certificates.kind) {
    case "issuer":
      return { name: certificates.name, kind: certificates.issuerKind, from: "yours" };
    case "acme":
      return { name: "acme", kind: "Issuer", from: "made" };
    case "selfSigned":
      return { name: "authority", kind: "Issuer", from: "made" };
  }
}

/** Whether the certificate is asked for over HTTP at the hosts themselves, which only works where their names lead. */
export function asksOverHttp({ certificates }: Pick<Settings, "certificates">): boolean {
  if (certificates.kind !== "acme") return false;
  return certificates.solver === undefined || "http01" in certificates.solver;
}

/**
 * The line on names that do not lead to a site whose certificate is still to be asked for over HTTP.
 *
 * @param astray the names that lead elsewhere, or nowhere; one at least
 */
export function waitingLine(
  { role, site, activeSite, ingress }: Pick<Settings, "role" | "site" | "activeSite" | "ingress">,
  astray: readonly string[],
): DoctorLine {
  const solver = `set certificates.solver of ${site} to one by dns01`;
  const why = "the ACME solver http01 is answered where the names lead, and an update waits 15 min for the certificate";
  return role === "standby"
    ? judged(
        "certificates",
        "http01",
        "fault",
        `${why}: a standby gets none, since they lead to ${activeSite}`,
        `${solver}, or certificates to an issuer of your own (docs/runbooks/adding-a-site.md)`,
      )
    : judged(
        "certificates",
        "http01",
        "fault",
        `${why}: ${astray.join(" and ")} ${astray.length === 1 ? "does" : "do"} not lead here yet, and DNS is what an update changes last`,
        `point ${astray.join(" and ")} to ${ingress.address} by hand first, or ${solver}`,
      );
}

/** @param certManager whether cert-manager is in the cluster */
export function issuerLine(
  settings: Pick<Settings, "certificates" | "cluster" | "namespace" | "site">,
  certManager: "there" | "missing",
  facts: IssuerFacts,
): DoctorLine {
  const { name, kind, from } = issuerOf(settings);
  const what = `${kind} ${name}`;
  const show = `${kubectl(settings.cluster)} -n ${settings.namespace} describe ${kind.toLowerCase()} ${name}`;
  switch (facts.state) {
    case "ready":
      return ok("certificates", what, "Ready");
    case "unready":
      return judged("certificates", what, "fault", `not Ready: ${facts.message}`, show);
    case "missing":
      if (from === "made") return ok("certificates", what, "the update makes it");
      return certManager === "missing"
        ? judged(
            "certificates",
            what,
            "warning",
            "not there, and neither is cert-manager: the first update would wait for it in vain",
            `install cert-manager and make the ${kind} before the first update, or set certificates.kind to acme`,
          )
        : judged(
            "certificates",
            what,
            "fault",
            "is not there",
            `make it, or name another: certificates.name of ${settings.site}`,
          );
  }
}
