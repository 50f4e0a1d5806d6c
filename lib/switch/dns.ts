/** What a switch leaves to its owner, where nobody else changes the DNS. */
import { dnsRecords } from "../../components/dns";
import type { Settings } from "../../settings";

/** What is to be done once a site is the active one, a line each; nothing where the update has done it. Pure. */
export function leftToOwner(settings: Pick<Settings, "site" | "apex" | "webHost" | "ingress" | "dns">): string[] {
  if (settings.dns.kind !== "manual") return [];
  return [
    "Set these DNS records by hand:",
    ...dnsRecords(settings).map(({ name, type, value, ttl }) => `  ${name} ${ttl} ${type} ${value}`),
    "and when the old ones' time to live is over, look through public DNS, which nobody has done yet:",
    `  npx homestead verify ${settings.site} --public`,
  ];
}
