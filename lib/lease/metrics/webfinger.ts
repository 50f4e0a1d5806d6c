/**
 * Whether the owner is found from the apex on. Asked by the keeper itself, through public DNS and with the checks of
 * the verification: no exporter to run, and nothing that an update asks differently.
 *
 * It is asked from inside: a router that does not lead the site's own address back in makes it fail from the first day
 * (the alert then keeps silent), and what fails only on the way from outside is not seen.
 */
import { checksOf } from "../../verify/checks";
import type { CheckName, Subject } from "../../verify/checks";
import { Client } from "../../verify/client";
import type { Sample } from "./exposition";

/** Those without which no other server can follow the owner. */
const names: readonly CheckName[] = [
  "certificate apex",
  "certificate web host",
  "webfinger redirect",
  "webfinger cors",
  "webfinger document",
];

export class WebfingerProbe {
  private state: { ok: boolean; expires: Map<string, number> } | undefined;
  private asking = false;

  /** @param say what is wrong, once until it is something else */
  constructor(
    private readonly subject: Subject,
    private readonly client: Pick<Client, "ask" | "certificate" | "isOurs">,
    private readonly say: (line: string) => void,
  ) {}

  /** One attempt; none while the last one is under way. Never throws. */
  async probe(): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    const expires = new Map<string, number>();
    try {
      for (const host of [this.subject.apex, this.subject.webHost]) {
        const { x509 } = await this.client.certificate(host);
        expires.set(host, x509.validToDate.getTime() / 1000);
      }
      const checks = checksOf(this.subject, this.client as Client);
      for (const { name, run } of checks) if (names.includes(name)) await run();
      if (this.state?.ok === false) this.say("WebFinger answers again");
      this.state = { ok: true, expires };
    } catch (error) {
      if (this.state?.ok !== false) this.say(`WebFinger: ${error instanceof Error ? error.message : String(error)}`);
      this.state = { ok: false, expires };
    } finally {
      this.asking = false;
    }
  }

  samples(): Sample[] {
    if (this.state === undefined) return [];
    const { ok, expires } = this.state;
    return [
      { name: "homestead_webfinger_ok", value: ok ? 1 : 0 },
      ...[...expires].map(([host, value]) => ({
        name: "homestead_certificate_expires_timestamp_seconds" as const,
        labels: { host },
        value,
      })),
    ];
  }
}

/** Asks both hosts where public DNS says. @param ca PEM, trusted beside the public authorities; "" for none */
export const publicClient = ({ apex, webHost }: Subject, ca: string): Client =>
  new Client(
    {
      hosts: [apex, webHost],
      address: null,
      httpPort: 80,
      httpsPort: 443,
      resolver: [],
      ca: ca === "" ? undefined : ca,
    },
    15,
  );
