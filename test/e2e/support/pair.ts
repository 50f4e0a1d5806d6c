/**
 * Two sites for several scenarios, one after the other: one active, the other its warm standby. To make them takes
 * minutes, so a scenario that leaves them well hands them on to the next one.
 */
import * as assert from "node:assert/strict";
import { parse } from "yaml";
import { Audit, sendTo } from "./audit";
import { Cluster } from "./cluster";
import { resolveVia } from "./names";
import type { Outage } from "./outage";
import { Peer } from "./peer";
import { allOf, eventually, sleep } from "./processes";
import { succeeded } from "./project";
import type { Project, PulumiOutcome, Site } from "./project";
import { oneLine } from "./report";
import type { Context } from "./scenario";
import { outlivingTheScenario } from "./shared";
import { SiteClient, tokenFromRails } from "./site";
import type { Names } from "./site";
import { authorityOf, buckets, hasBaseBackup, namesOf, prepare } from "./stack";
import type { Secrets } from "./stack";
import type { ObjectServer } from "./vault";
import type { Via } from "./web";

export const sites = ["home", "vps"] as const;
export const otherThan = (site: Site): Site => (site === "home" ? "vps" : "home");

/** What the vault's lease says. */
export interface Lease {
  activeSite: Site;
  epoch: number;
  fingerprint: string;
}

/** What the journal of a switch says (lib/switch/journal.ts); the parts that are looked at here. */
export interface Journal {
  target: Site;
  epoch: number;
  token?: string;
  steps: { name: string; begun?: string; done?: string }[];
  finished: boolean;
}

/** A site without power, and the deliveries that its queues still hold. */
export interface LostSite {
  site: Site;
  /** Milliseconds. */
  at: number;
  jobs: JobsLeftBehind;
}

/** Posts whose delivery to a second remote server, `quiet`, was put off: it was away. */
export interface JobsLeftBehind {
  posts: string[];
  /** Where `quiet` must be, should it come back. */
  port: number;
}

export class Pair {
  /** Demotion tokens that took effect, oldest first. */
  readonly spentTokens: string[] = [];
  /** A site that is powered off. */
  lost: LostSite | undefined;
  readonly names: Names;
  readonly clusters: Record<Site, Cluster>;
  /** The owner's app: finds the server by its name, and goes where the name leads. */
  readonly owner: SiteClient;
  private readonly via: Via;
  private readonly authorities = new Map<Site, string>();
  private readonly direct = new Map<Site, SiteClient>();
  private follow: "none" | "accepted" = "none";
  /** Port of the remote server that follows and is away; undefined before it followed. */
  private quiet: number | undefined;

  constructor(
    /** The scenario that has the pair now. */
    private context: Context,
    readonly project: Project,
    readonly secrets: Secrets,
    readonly s3: ObjectServer,
  ) {
    const { environment } = context;
    this.names = namesOf(environment.zone);
    this.clusters = {
      home: new Cluster(environment.home, environment),
      vps: new Cluster(environment.vps, environment),
    };
    const authority = () => this.authority;
    this.via = {
      address: "",
      get ca() {
        return authority();
      },
    };
    this.owner = this.client(this.via);
  }

  private client(via: Via): SiteClient {
    return new SiteClient(this.names, via, this.secrets.ownerPassword, async () =>
      tokenFromRails(this.clusters[(await this.lease()).activeSite], this.names.owner),
    );
  }

  taken(context: Context): void {
    this.context = context;
    this.project.logs = context.logs;
  }

  // ------------------------------------------------------------ what it is

  /** The authorities of both sites, as PEM: whoever knows the server by name does not know which one answers. */
  get authority(): string {
    return [...this.authorities.values()].join("\n");
  }

  /** Reads the authority that a site's cluster has now. */
  async learnAuthority(site: Site): Promise<void> {
    this.authorities.set(site, await authorityOf(this.clusters[site]));
  }

  async lease(): Promise<Lease> {
    return JSON.parse(await this.s3.get(buckets.vault, "lease.json")) as Lease;
  }

  /** The journal of the last switch; undefined if there was none. */
  async journal(): Promise<Journal | undefined> {
    const text = await this.s3.request("GET", `${buckets.vault}/switch/journal.json`, undefined, [200, 404]);
    return text.startsWith("{") ? (JSON.parse(text) as Journal) : undefined;
  }

  /** A project-wide value, as Pulumi.yaml has it. */
  shared(key: string): unknown {
    const { config } = parse(this.project.read("Pulumi.yaml")) as { config: Record<string, { value?: unknown }> };
    return config[`homestead:${key}`]?.value;
  }

  /** The archive that a site's database writes. */
  archive(site: Site): string {
    return `${site}-g${(this.shared("generations") as Record<Site, number>)[site]}`;
  }

  /** @throws unless lease and files agree on who is active, and nothing transient is left in them */
  async mustBe(site: Site, epoch: number): Promise<void> {
    const { activeSite, epoch: held } = await this.lease();
    assert.deepEqual({ activeSite, epoch: held }, { activeSite: site, epoch }, "the lease");
    const said = { activeSite: this.shared("activeSite"), epoch: this.shared("epoch") };
    assert.deepEqual(said, { activeSite: site, epoch }, "Pulumi.yaml");
    for (const name of sites) {
      for (const key of ["promotionToken", "maintenance"])
        assert.equal(this.project.value(name, key), undefined, `Pulumi.${name}.yaml has a ${key}`);
    }
  }

  // ------------------------------------------------------------ who uses it

  /** The owner's app at one site's ingress, whatever DNS says; the same one every time, so that it stays signed in. */
  at(site: Site): SiteClient {
    const authority = () => this.authority;
    const client =
      this.direct.get(site) ??
      this.client({
        address: this.clusters[site].access.address,
        get ca() {
          return authority();
        },
      });
    this.direct.set(site, client);
    return client;
  }

  /** Somebody who posts through the server's name, which is looked up for every single post. */
  audit(): Audit {
    return new Audit(async (text, key) => {
      await this.followName();
      const { address } = this.via;
      return { id: await sendTo(this.owner, text, key), address };
    });
  }

  /** Looks the server's name up, as a client without a cache does. */
  async followName(): Promise<void> {
    const [address = ""] = await resolveVia(this.context.environment, this.names.webHost);
    this.via.address = address;
  }

  /**
   * The remote server that follows. A scenario's own processes end with it, so each one starts it anew; that it
   * follows, the site itself has to know.
   */
  async meetPeer(): Promise<Peer> {
    const { report } = this.context;
    return report.step("a remote server, which follows", async () => {
      const peer = await Peer.start(this.context, this.authority);
      if (this.follow === "accepted") return peer;
      await peer.follow(`@${this.names.owner}@${this.names.apex}`);
      await peer.accepted(60);
      this.follow = "accepted";
      return peer;
    });
  }

  // ------------------------------------------------------------ what is done to it

  /** `homestead switch`, asking the tests' DNS server at the end. Never throws for its exit code. */
  async switchTo(site: Site, words: readonly string[] = [], project = this.project): Promise<PulumiOutcome> {
    const outcome = await project.homestead(this.switchArguments(site, words), { seconds: 1800 });
    await this.rememberToken();
    return outcome;
  }

  switchArguments(site: Site, words: readonly string[] = []): string[] {
    return ["switch", site, "--yes", "--resolver", this.context.environment.dns.server, ...words];
  }

  /** Keeps the token of the last switch, for who wants to try it again. */
  async rememberToken(): Promise<void> {
    const token = (await this.journal())?.token;
    if (token !== undefined && !this.spentTokens.includes(token)) this.spentTokens.push(token);
  }

  /** @throws unless an update of each site would change nothing */
  async mustBeSettled(): Promise<void> {
    const previews = sites.map((site) => this.project.preview(site, ["--expect-no-changes"]));
    for (const [i, outcome] of (await Promise.all(previews)).entries())
      succeeded(outcome, `preview of ${sites[i] ?? ""}`);
  }

  /** A second remote server follows and goes away for good. @returns the port that it had */
  private async loseFollower(): Promise<number> {
    const quiet = await Peer.start(this.context, this.authority, "quiet");
    await quiet.follow(`@${this.names.owner}@${this.names.apex}`);
    await quiet.accepted(60);
    await quiet.stop();
    return quiet.port;
  }

  /**
   * What that server is sent stays in the queues, and in their snapshot: a site that takes them over has to deliver it,
   * and one that comes back from the dead with them would.
   */
  async leaveJobsBehind(site: Site): Promise<JobsLeftBehind> {
    this.quiet ??= await this.loseFollower();
    const client = this.at(site);
    const posts: string[] = [];
    for (let i = 0; i < 3; i++) posts.push(await client.post(`for one who is away, ${i}`));
    await eventually(60, "their deliveries are put off", () => this.mustWait(site, posts));
    assert.equal(await this.valkey(site, ["SAVE"]), "OK");
    return { posts, port: this.quiet };
  }

  /** @throws unless a delivery of each of some posts waits for another try */
  async mustWait(site: Site, posts: readonly string[]): Promise<void> {
    const waiting = await this.valkey(site, ["ZRANGE", "retry", "0", "-1"]);
    const others = posts.filter((id) => !waiting.includes(id));
    assert.deepEqual(others, [], `no delivery of ${others.join(", ")} waits`);
  }

  /** One command in the Valkey that has the queues. */
  async valkey(site: Site, command: string[]): Promise<string> {
    const script =
      'VALKEYCLI_AUTH=$(sed -n "s/^requirepass //p" /etc/valkey/secret/password.conf); REDISCLI_AUTH=$VALKEYCLI_AUTH; ' +
      'export VALKEYCLI_AUTH REDISCLI_AUTH; exec valkey-cli -p 6379 "$@"';
    const words = ["sh", "-c", script, "valkey", ...command];
    return (await this.clusters[site].exec("homestead", "valkey-0", words, { container: "valkey" })).trim();
  }

  /** Cuts a site's power. @param jobs what its queues still hold */
  async losePower(outage: Outage, site: Site, jobs: JobsLeftBehind): Promise<LostSite> {
    this.lost = { site, at: Date.now(), jobs };
    await outage.powerOff(site);
    return this.lost;
  }

  /** Whether a scenario can begin with it: both sites there, lease and files at one, the server answering. */
  async isWell(): Promise<boolean> {
    if (this.lost !== undefined) return false;
    try {
      const { activeSite, epoch } = await this.lease();
      await this.mustBe(activeSite, epoch);
      for (const site of sites) await this.clusters[site].kubectl(["get", "--raw", "/readyz"], { seconds: 20 });
      await this.followName();
      await this.owner.healthy(60);
      return true;
    } catch (error) {
      console.log(`      the pair of the scenario before is not well: ${oneLine(error, 300)}`);
      return false;
    }
  }
}

// ---------------------------------------------------------------- from scenario to scenario

let kept: Pair | undefined;

/**
 * The pair that the scenario before left, if it is well; else a new one. Whoever takes it must hand it on.
 * @param founder the site that a new one begins with as the active one
 */
export async function takePair(context: Context, founder: Site = "home"): Promise<Pair> {
  const found = await takeKept(context, "both on");
  return found ?? newPair(context, founder);
}

/** The pair that the scenario before left, if there is one and it is in that state. */
export async function takeKept(context: Context, wanted: "both on" | "one lost"): Promise<Pair | undefined> {
  const pair = kept;
  if (pair === undefined) return undefined;
  if (wanted === "one lost" && pair.lost === undefined) return undefined;
  kept = undefined;
  pair.taken(context);
  const usable = wanted === "one lost" || (await pair.isWell());
  if (!usable) return undefined;
  const { activeSite, epoch } = await pair.lease();
  await context.report.step(
    `the pair of the scenario before: ${activeSite} is active, epoch ${epoch}`,
    () => undefined,
  );
  return pair;
}

/** Leaves a pair to the next scenario. Not called by one that did not get to its end: what it leaves, nobody knows. */
export function handOn(pair: Pair): void {
  kept = pair;
}

/** Two emptied clusters, the founder active and the other one its warm standby. */
async function newPair(context: Context, founder: Site): Promise<Pair> {
  const { environment, report } = context;
  kept = undefined;
  const { project, secrets, s3 } = await outlivingTheScenario(() =>
    prepare(context, [environment.home, environment.vps]),
  );
  for (const key of ["founder", "activeSite"]) project.setShared(key, founder);
  // The least there may be: what a takeover of a lost site waits for.
  project.setShared("leaseGrace", 30);
  const pair = new Pair(context, project, secrets, s3);
  const up = (site: Site) =>
    report.step(`pulumi up on ${site}, from nothing`, async () => {
      succeeded(await project.up(site, { seconds: 1800 }), `pulumi up on ${site}`);
      await pair.learnAuthority(site);
    });
  let ended = false;
  const active = up(founder).finally(() => (ended = true));
  // Before there is something to begin from, the standby's update is refused, or waits and makes nothing.
  const beginning = async () => {
    while (!ended && !(await hasBaseBackup(s3, pair.archive(founder)))) await sleep(2000);
  };
  const standby = Promise.race([active, beginning()]).then(() => up(otherThan(founder)));
  await allOf([active, standby]);
  return pair;
}
