import * as command from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { AddressRecord, SignedUpdate } from "../lib/rfc2136";
import type { Settings } from "../settings";

/** `epoch` runs the command again although no record changed: a switch that went there and back. */
export interface DnsArgs extends Pick<Settings, "dns" | "epoch" | "secrets"> {
  records: DnsRecord[];
}

export type DnsRecord = AddressRecord;

/** From the project's folder and with PATH's own `node`, as the verification runs: the same text on every machine. */
const updateProgram = "node --require ./cli/typescript.cjs lib/rfc2136-main.ts";

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
  const ttl = settings.dns.kind === "manual" ? 60 : settings.dns.ttl;
  return [settings.apex, settings.webHost, ...otherHosts].map((name) => ({ name, type, value: address, ttl }));
}

/**
 * Public DNS, the last step of an update and only on the active site. Records are overwritten and never deleted: the
 * other site may have set them since.
 */
export class Dns extends pulumi.ComponentResource {
  constructor(name: string, args: DnsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Dns", name, {}, opts);
    if (args.dns.kind === "command") this.byCommand(name, args, args.dns.command);
    if (args.dns.kind === "rfc2136") this.byUpdate(name, args, args.dns);
    this.registerOutputs();
  }

  private byCommand(name: string, args: DnsArgs, create: pulumi.Input<string>): void {
    // One after the other: a command that edits a zone file may not stand its like beside it.
    let before: pulumi.Resource[] = [];
    for (const record of args.records) {
      const made = new command.local.Command(
        `${name}-${record.name}`,
        {
          create,
          environment: {
            DNS_NAME: record.name,
            DNS_TYPE: record.type,
            DNS_VALUE: record.value,
            DNS_TTL: String(record.ttl),
          },
          triggers: [args.epoch, record.value],
        },
        // What it says may repeat the token that is in it, or in its environment.
        { parent: this, dependsOn: before, additionalSecretOutputs: ["create", "stdout", "stderr"] },
      );
      before = [made];
    }
  }

  private byUpdate(name: string, args: DnsArgs, dns: Extract<Settings["dns"], { kind: "rfc2136" }>): void {
    const { server, port, zone, keyName, algorithm } = dns;
    const update = pulumi.output(args.secrets.dnsKey ?? "").apply((key) =>
      JSON.stringify({
        server,
        port,
        zone,
        keyName,
        algorithm,
        key,
        records: args.records,
      } satisfies SignedUpdate),
    );
    new command.local.Command(
      `${name}-update`,
      {
        create: updateProgram,
        update: updateProgram,
        // The key is in it: never on the command line, where every process of the machine can read it.
        stdin: pulumi.secret(update),
        triggers: [args.epoch, JSON.stringify(args.records)],
        logging: "none",
        addPreviousOutputInEnv: false,
      },
      { parent: this, additionalSecretOutputs: ["stdin"] },
    );
  }
}
