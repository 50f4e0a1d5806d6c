import * as command from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../settings";

/** `epoch` runs the command again although no record changed: a switch that went there and back. */
export interface DnsArgs extends Pick<Settings, "dns" | "epoch"> {
  records: DnsRecord[];
}

export interface DnsRecord {
  /** Fully qualified, without the last dot. */
  name: string;
  type: "A" | "AAAA" | "CNAME";
  value: string;
  /** Seconds. */
  ttl: number;
}

/**
 * The records the world needs. The apex cannot be a CNAME (RFC 1912, 2.4), so where the site is known by a host name
 * only, the apex's record is left to the zone's provider (ALIAS, ANAME) and asked for under the type CNAME.
 */
export function dnsRecords(
  settings: Pick<Settings, "apex" | "webHost" | "ingress" | "dns">,
  otherHosts: string[] = [],
): DnsRecord[] {
  const { address } = settings.ingress;
  const type = /^[\d.]+$/.test(address) ? "A" : address.includes(":") ? "AAAA" : "CNAME";
  // A minute: what a failover waits for is this and nothing else.
  const ttl = settings.dns.kind === "command" ? settings.dns.ttl : 60;
  return [settings.apex, settings.webHost, ...otherHosts].map((name) => ({ name, type, value: address, ttl }));
}

/**
 * Public DNS, the last step of an update and only on the active site. Records are overwritten and never deleted: the
 * other site may have set them since.
 */
export class Dns extends pulumi.ComponentResource {
  constructor(name: string, args: DnsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Dns", name, {}, opts);
    if (args.dns.kind === "command") {
      // One after the other: a command that edits a zone file may not stand its like beside it.
      let before: pulumi.Resource[] = [];
      for (const record of args.records) {
        const made = new command.local.Command(
          `${name}-${record.name}`,
          {
            create: args.dns.command,
            environment: {
              DNS_NAME: record.name,
              DNS_TYPE: record.type,
              DNS_VALUE: record.value,
              DNS_TTL: String(record.ttl),
            },
            triggers: [args.epoch, record.value],
          },
          { parent: this, dependsOn: before },
        );
        before = [made];
      }
    }
    this.registerOutputs();
  }
}
