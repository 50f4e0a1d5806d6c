/** What only the lab can do to a whole site: its power, and its way to the vault. */
import type { Environment } from "./environment";
import { Lab } from "./lab";
import { atExit, must } from "./processes";
import type { Site } from "./project";

export class Outage {
  private constructor(
    private readonly environment: Environment,
    private readonly lab: Lab,
  ) {}

  /** On the lab, or undefined where the clusters are somebody's own. */
  static of(environment: Environment): Outage | undefined {
    const lab = Lab.of(environment);
    return lab === undefined ? undefined : new Outage(environment, lab);
  }

  /** Everything of a site ends at once, and its disks keep what they have. */
  async powerOff(site: Site): Promise<void> {
    await this.lab.run(["stop", this.machine(site)]);
  }

  /** Returns when the cluster answers; what runs in it starts by itself, as it was. */
  async powerOn(site: Site): Promise<void> {
    await this.lab.run(["up", this.machine(site)], 600);
  }

  private machine(site: Site): string {
    return this.environment[site].machine ?? site;
  }

  /**
   * Nothing from a site reaches the vault any more, nobody is told so, and everybody else still does. The rule is on
   * the vault's side: it is there before the site has power.
   * @returns the way to mend it
   */
  async cutOffFromVault(site: Site): Promise<() => Promise<void>> {
    const { port, protocol } = new URL(this.environment.s3.endpoint);
    const rule = ["INPUT", "-s", this.environment[site].address, "-p", "tcp", "--dport"];
    const target = [port || (protocol === "https:" ? "443" : "80"), "-j", "DROP"];
    await this.besideTheVault(["iptables", "-w", "-I", ...rule, ...target]);
    return atExit(() => this.besideTheVault(["iptables", "-w", "-D", ...rule, ...target]));
  }

  private besideTheVault(command: string[]): Promise<string> {
    const { childEnv } = this.environment;
    const PATH = `${childEnv["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;
    return must("nsenter", ["--net=/run/netns/lab-wan", ...command], { env: { ...childEnv, PATH }, seconds: 30 });
  }
}
