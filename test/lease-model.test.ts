/**
 * A model of the site lease (docs/lease.md): two sites, of which home has a second cluster that it may be restored onto,
 * with their keepers, gates and Valkeys, the store, and an operator. What decides anything is the program's own: judge,
 * nextLease, movedLease, leaseStep, gateVerdict. The model adds what they cannot choose: time that runs unevenly, replies that are late or lost, crashes, and people.
 *
 * More runs: LEASE_RUNS=20000 npx vitest run test/lease-model.test.ts
 */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatMark, gateVerdict } from "../lib/lease/gate";
import {
  driftBound,
  firstLease,
  judge,
  movedLease,
  nextLease,
  pollSeconds,
  reactionSeconds,
  requestSeconds,
} from "../lib/lease/lease";
import type { Claim, Lease, StoredLease } from "../lib/lease/lease";
import { leaseStep } from "../lib/lease/rules";
import type { LeaseStep } from "../lib/lease/rules";

type SiteName = "home" | "vps";
const sites: SiteName[] = ["home", "vps"];
/** The clusters: what was home's first may come back when home is another. */
const clusters = ["home", "home2", "vps"] as const;
type ClusterName = (typeof clusters)[number];
const siteOf = (cluster: ClusterName): SiteName => (cluster === "vps" ? "vps" : "home");
const otherOf = (site: SiteName): SiteName => (site === "home" ? "vps" : "home");

/** What keeps two sites apart. The tests under "teeth" take one of them away at a time. */
const safeties = {
  judge,
  nextLease,
  movedLease,
  leaseStep,
  gateVerdict,
  /** The moment that a mark names. */
  since: (asked: number, _answered: number) => asked,
  /** `dead` is said only of a site that is off, and it stays off until the update has ended. */
  deadIsOff: true,
  /** A token is there only when the other site's Valkey has ended. */
  tokenMeansStopped: true,
  /** The folder that the mark is in is memory. */
  markIsInMemory: true,
  /** Seconds within which a gate acts. */
  reaction: reactionSeconds,
  /** By how much a clock may be wrong. */
  drift: driftBound,
  /** Whether a site that goes on without the store is a fault: it is the earlier one of two. */
  mindsTheGrace: true,
};
type Safeties = typeof safeties;

/** What is drawn once for a run. */
interface Circumstances {
  /** From -1 to 1: the share of the drift that a clock has. */
  drift: Record<ClusterName | "store", number>;
  grace: number;
  /** Whether the first update was an earlier program's: its lease names no cluster, and its keeper takes one that does for none. */
  unnamed: boolean;
  /** From 0 to 1: how much of the time that it has a gate takes. */
  slowness: Record<ClusterName, number>;
}

/** A pod of Valkey: shell, keeper and server. Gone with the pod is its memory, the mark included. */
interface Pod {
  epoch: number;
  mark: string | undefined;
  valkey: "stopped" | "runs" | "paused";
  /** Counts the keepers: what a former one had asked is answered to nobody. */
  keeper: number;
  /** Of the program that named no cluster: a lease that names one is none to its keeper. */
  older: boolean;
}

interface ClusterState {
  on: boolean;
  bootedAt: number;
  pod: Pod | undefined;
  cut: boolean;
  /** Seconds to the store and back. */
  way: [there: number, back: number];
  /** When the store last said that this site is active, and for how long that is good. */
  assured: { at: number; grace: number } | undefined;
  database: "there" | "missing";
  /** Whether its database ever wrote: one that only followed has no token to give. */
  wrote: boolean;
}

/** How an update goes wrong, if it does. */
type Mishap = "none" | "dies before it writes" | "write is lost" | "reply is lost" | "dies before it applies";

/** How an update is run. */
interface Update {
  /** `promotionToken` */
  word?: string;
  mishap: Mishap;
  seconds: number;
}

const claimOf = (cluster: ClusterName, epoch: number): Claim => ({
  site: siteOf(cluster),
  epoch,
  cluster,
  fingerprint: "f",
});

/** What the operator's files say. */
interface Files {
  activeSite: SiteName;
  epoch: number;
}

class World {
  now = 0;
  readonly cluster: Record<ClusterName, ClusterState>;
  /** The cluster that a stack's context leads to. */
  readonly present: Record<SiteName, ClusterName> = { home: "home", vps: "vps" };
  files: Files = { activeSite: "home", epoch: 1 };
  /** Clusters that have accepted writes, in the order in which they began to. */
  readonly active: ClusterName[] = [];
  private readonly former: Files[] = [];
  private store: { lease: Lease; version: number; written: number } | undefined;
  private writes = 0;
  /** The site that the last token is of; nothing once it was made active again. */
  private token: SiteName | undefined;
  private promisedOff: ClusterName | undefined;
  /** Home's `restore.oldCluster`. Nobody takes it out who is not told to. */
  private oldCluster: ClusterName | undefined;
  /** Whether updates are an earlier program's. */
  private earlier: boolean;
  /** An update that is under way: the stack's lock. */
  private readonly locked = { home: false, vps: false };
  private tasks: { at: number; run: () => void }[] = [];

  constructor(
    private readonly circumstances: Circumstances,
    private readonly rules: Safeties,
  ) {
    const state = (): ClusterState => ({
      on: true,
      bootedAt: 0,
      pod: undefined,
      cut: false,
      way: [0, 0],
      assured: undefined,
      database: "missing",
      wrote: false,
    });
    this.cluster = { home: state(), home2: state(), vps: state() };
    for (const name of clusters) this.tick(name);
    this.earlier = circumstances.unnamed;
    this.update("home");
    this.earlier = false;
  }

  // ---------------------------------------------------------------- time

  after(seconds: number, run: () => void): void {
    this.tasks.push({ at: this.now + seconds, run });
  }

  pass(seconds: number): void {
    const end = this.now + seconds;
    for (;;) {
      let next: (typeof this.tasks)[number] | undefined;
      for (const task of this.tasks) if (next === undefined || task.at < next.at) next = task;
      if (next === undefined || next.at > end) break;
      this.now = next.at;
      this.check();
      this.tasks.splice(this.tasks.indexOf(next), 1);
      next.run();
      this.check();
    }
    this.now = end;
    this.check();
  }

  private rate(clock: ClusterName | "store"): number {
    return 1 + this.circumstances.drift[clock] * this.rules.drift;
  }

  private uptime(name: ClusterName): number {
    return (this.now - this.cluster[name].bootedAt) * this.rate(name);
  }

  /** The store's time of day; HTTP knows whole seconds. */
  private date(): number {
    return Math.floor(1e6 + this.now * this.rate("store"));
  }

  // ---------------------------------------------------------------- the two properties

  /** The cluster that the lease names. */
  names(): string | undefined {
    return this.store?.lease.cluster;
  }

  accepts(name: ClusterName): boolean {
    const { on, pod } = this.cluster[name];
    return on && pod?.valkey === "runs";
  }

  private check(): void {
    const accepting = clusters.filter((name) => this.accepts(name));
    if (accepting.length > 1) throw new Error(`at ${this.now}: two accept writes, ${accepting.join(" and ")}`);
    const [name] = accepting;
    if (name === undefined) return;
    if (this.active.at(-1) !== name) this.active.push(name);
    if (!this.rules.mindsTheGrace) return;
    const { assured } = this.cluster[name];
    // One second for the whole ones in the mark.
    const limit = ((assured?.grace ?? 0) + 1) / (1 - this.rules.drift) + this.rules.reaction;
    if (this.now - (assured?.at ?? -Infinity) > limit)
      throw new Error(`at ${this.now}: ${name} goes on without the store`);
  }

  // ---------------------------------------------------------------- keeper (lib/lease/keeper.ts) and gate

  private read() {
    return this.store && { lease: this.store.lease, age: Math.max(0, this.date() - this.store.written) };
  }

  private look(name: ClusterName, pod: Pod, keeper: number): void {
    const state = this.cluster[name];
    const alive = () => state.on && state.pod === pod && pod.keeper === keeper;
    const again = () => this.after(pollSeconds / this.rate(name), () => this.look(name, pod, keeper));
    if (!alive()) return;
    if (state.cut) return this.after(requestSeconds, again);
    const asked = this.uptime(name);
    const [there, back] = state.way;
    const claim = claimOf(name, pod.epoch);
    this.after(there, () => {
      const found = this.read();
      const stored = pod.older && found?.lease.cluster !== undefined ? undefined : found;
      const verdict = stored && this.rules.judge(stored, claim);
      if (stored && verdict === "ours") state.assured = { at: this.now, grace: stored.lease.grace };
      this.after(back, () => {
        if (!alive()) return;
        if (verdict === "others") pod.mark = formatMark({ word: "others" });
        if (stored && verdict === "ours") {
          const since = this.rules.since(asked, this.uptime(name));
          pod.mark = formatMark({ word: "ours", since, grace: stored.lease.grace });
        }
        again();
      });
    });
  }

  private tick(name: ClusterName): void {
    const { on, pod } = this.cluster[name];
    this.after(Math.max(1, this.circumstances.slowness[name] * this.rules.reaction), () => this.tick(name));
    if (!on || pod === undefined) return;
    const verdict = this.rules.gateVerdict(pod.mark, this.uptime(name));
    if (verdict === "open") pod.valkey = "runs";
    else if (verdict === "closed") pod.valkey = "stopped";
    else if (pod.valkey === "runs") pod.valkey = "paused";
  }

  private startKeeper(name: ClusterName): void {
    const { pod } = this.cluster[name];
    if (pod === undefined) return;
    pod.keeper += 1;
    const { keeper } = pod;
    this.after(1, () => this.look(name, pod, keeper));
  }

  // ---------------------------------------------------------------- faults

  crash(name: ClusterName, what: "keeper" | "valkey"): void {
    const { pod, on } = this.cluster[name];
    if (pod === undefined || !on) return;
    if (what === "valkey") pod.valkey = "stopped";
    else this.startKeeper(name);
  }

  off(name: ClusterName): void {
    const state = this.cluster[name];
    state.on = false;
    if (state.pod) state.pod.valkey = "stopped";
  }

  boot(name: ClusterName): void {
    const state = this.cluster[name];
    if (this.promisedOff === name) return;
    this.off(name);
    state.on = true;
    state.bootedAt = this.now;
    if (state.pod && this.rules.markIsInMemory) state.pod.mark = undefined;
    this.startKeeper(name);
  }

  // ---------------------------------------------------------------- the operator

  /** `pulumi up`: reads the lease, does what the rules say, applies. Takes some seconds, in which the rest goes on. */
  private begin(name: ClusterName, files: Files, { word, mishap, seconds }: Update) {
    const state = this.cluster[name];
    const site = siteOf(name);
    while (this.locked[site]) this.pass(1);
    this.locked[site] = true;
    const stored = this.read();
    const version = this.store?.version;
    const stack = () => ({
      site,
      role: files.activeSite === site ? ("active" as const) : ("standby" as const),
      ...files,
      founder: "home" as const,
      fingerprint: "f",
      promotionToken: word,
      restore: site === "home" && this.oldCluster !== undefined ? { oldCluster: this.oldCluster } : {},
      cluster: { context: name },
      vault: { endpoint: "", region: "", bucket: "vault" },
    });
    const facts = {
      stored,
      archives: stored !== undefined,
      database: stored ? state.database : "missing",
      cluster: name,
      keeper: state.pod === undefined ? "none" : state.pod.older ? "older" : "knows",
    } as const;
    let { step, faults } = this.rules.leaseStep(stack(), facts);
    if (faults.some(({ key }) => key === "homestead:restore.oldCluster")) {
      this.oldCluster = undefined;
      ({ step, faults } = this.rules.leaseStep(stack(), facts));
    }
    const done = { applied: false };
    const end = () => void (this.locked[site] = false);
    if (faults.length > 0 || mishap === "dies before it writes") {
      end();
      return done;
    }
    this.after(seconds, () => {
      const writer = String((this.writes += 1));
      if (step.kind !== "none" && mishap !== "write is lost" && this.store?.version === version) {
        const lease = this.leaseAfter(step, stored, claimOf(name, files.epoch), writer);
        this.store = { lease, version: this.writes, written: this.date() };
      }
      const failed = step.kind !== "none" && (mishap !== "none" || this.store?.lease.writer !== writer);
      if (failed || mishap === "dies before it applies") return end();
      this.after(seconds, () => {
        end();
        if (!state.on) return;
        done.applied = true;
        this.apply(name, files);
      });
    });
    return done;
  }

  private leaseAfter(
    step: Exclude<LeaseStep, { kind: "none" }>,
    stored: Pick<StoredLease, "lease" | "age"> | undefined,
    claim: Claim,
    writer: string,
  ): Lease {
    const { grace, unnamed } = this.circumstances;
    if (step.kind === "create" || stored === undefined) {
      const { cluster, ...first } = firstLease(claim, grace, writer);
      return unnamed ? first : { ...first, cluster: cluster ?? "" };
    }
    return step.kind === "move"
      ? this.rules.movedLease(stored, claim, step.how, grace, writer)
      : this.rules.nextLease(stored, claim, step.takeover, grace, writer);
  }

  private apply(name: ClusterName, { activeSite, epoch }: Files): void {
    const state = this.cluster[name];
    state.database = "there";
    if (activeSite !== siteOf(name)) {
      state.pod = undefined;
      return;
    }
    state.wrote = true;
    if (this.token === activeSite) this.token = undefined;
    if (state.pod?.epoch === epoch && !state.pod.older) return;
    state.pod = { epoch, mark: undefined, valkey: "stopped", keeper: 0, older: this.earlier };
    this.startKeeper(name);
  }

  /** An update and its end. */
  update(name: ClusterName, how: Partial<Update> = {}): boolean {
    const done = this.begin(name, this.files, { mishap: "none", seconds: 5, ...how });
    while (this.locked[siteOf(name)]) this.pass(1);
    return done.applied;
  }

  /** An update that somebody begins and nobody waits for, of files as they are or were, and of any cluster. */
  stray(name: ClusterName, back: number, seconds: number): void {
    if (this.locked[siteOf(name)]) return;
    this.begin(name, this.former.at(-back) ?? this.files, { mishap: "none", seconds });
  }

  private takeOver(site: SiteName): boolean {
    const lease = this.store?.lease;
    if (lease === undefined || lease.activeSite === site) return false;
    this.former.push(this.files);
    this.files = { activeSite: site, epoch: lease.epoch + 1 };
    return true;
  }

  /** The planned switch's updates; `stop` is the one that it is interrupted before. */
  switchTo(site: SiteName, mishap: Mishap, stop: number, seconds: number): void {
    const other = otherOf(site);
    const from = this.present[other];
    if (!this.cluster[from].wrote || !this.takeOver(site) || stop === 0) return;
    if (this.rules.tokenMeansStopped && !this.update(from, { seconds })) return;
    this.token = other;
    if (stop > 1) this.resume(mishap, seconds);
  }

  /**
   * An interrupted switch goes on, as long as its token holds. Whoever has begun to bring a site up comes to an end first,
   * as docs/lease.md takes for granted: one operator at a time.
   */
  resume(mishap: Mishap, seconds: number): void {
    const { activeSite } = this.files;
    while (this.locked.home || this.locked.vps) this.pass(1);
    if (this.token !== otherOf(activeSite) || this.store?.lease.epoch !== this.files.epoch - 1) return;
    this.update(this.present[activeSite], { word: "token", mishap, seconds });
  }

  /** What `dead` speaks of: the cluster that the lease names, or the only one that there was. */
  private serving(): ClusterName {
    const lease = this.store?.lease;
    return clusters.find((name) => name === lease?.cluster) ?? lease?.activeSite ?? "home";
  }

  /** @returns whether the word may be given; from now on it is true */
  private promise(): boolean {
    const name = this.serving();
    if (!this.rules.deadIsOff) return true;
    if (this.cluster[name].on) return false;
    this.promisedOff = name;
    return true;
  }

  failOverTo(site: SiteName, word: "lost" | "dead", mishap: Mishap, seconds: number): void {
    if (this.store?.lease.activeSite === site) return;
    if (word === "dead" && !this.promise()) return;
    if (this.takeOver(site)) this.update(this.present[site], { word, mishap, seconds });
    this.promisedOff = undefined;
  }

  /**
   * Home on its other cluster, from the vault; or back on the one that it had. A word that the old one is off is forgotten
   * where it is, once it has done what it was said for.
   */
  restore(oldIsOff: boolean, mishap: Mishap, seconds: number): void {
    const from = this.present.home;
    const old = this.serving();
    if (oldIsOff && !this.promise()) return;
    this.present.home = from === "home" ? "home2" : "home";
    if (oldIsOff) this.oldCluster = old;
    this.update(this.present.home, { mishap, seconds });
    this.promisedOff = undefined;
    if (oldIsOff && this.serving() === old) this.oldCluster = undefined;
  }
}

// ---------------------------------------------------------------- what may happen

type Event = (world: World) => void;

const site = fc.constantFrom(...sites);
const cluster = fc.constantFrom(...clusters);
const mishap = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Mishap>("none") },
  fc.constantFrom<Mishap>("dies before it writes", "write is lost", "reply is lost", "dies before it applies"),
);
const seconds = fc.constantFrom(0, 5, 60);
/** Shares of the grace, so that a long one is waited out as often as a short one. */
const share = fc.constantFrom(0, 0.02, 0.1, 0.3, 0.7, 1, 1.2);

const events = (grace: number) => {
  /** Now, or in the middle of what comes next. */
  const sometime = <T>(values: fc.Arbitrary<T>, happen: (world: World, value: T) => void) =>
    fc.tuple(values, fc.constantFrom(0, 0, 3, 30)).map(
      ([value, later]): Event =>
        (world) =>
          later === 0 ? happen(world, value) : world.after(later, () => happen(world, value)),
    );
  return fc.oneof(
    {
      weight: 4,
      arbitrary: share.map(
        (part): Event =>
          (world) =>
            world.pass(1 + part * grace),
      ),
    },
    {
      weight: 3,
      arbitrary: sometime(
        fc.tuple(cluster, fc.boolean()),
        (world, [name, cut]) => void (world.cluster[name].cut = cut),
      ),
    },
    {
      weight: 2,
      arbitrary: sometime(
        fc.tuple(cluster, fc.constantFrom(0, 9), fc.constantFrom(0, 9, 200, 2000)),
        (world, [name, there, back]) => void (world.cluster[name].way = [there, back]),
      ),
    },
    sometime(fc.tuple(cluster, fc.constantFrom("keeper" as const, "valkey" as const)), (world, crash) =>
      world.crash(...crash),
    ),
    sometime(cluster, (world, name) => world.off(name)),
    { weight: 2, arbitrary: sometime(cluster, (world, name) => world.boot(name)) },
    {
      weight: 2,
      arbitrary: fc.tuple(site, mishap, fc.constantFrom(2, 2, 1, 0), seconds).map(
        (chosen): Event =>
          (world) =>
            world.switchTo(...chosen),
      ),
    },
    fc.tuple(mishap, seconds).map(
      (chosen): Event =>
        (world) =>
          world.resume(...chosen),
    ),
    {
      weight: 4,
      arbitrary: fc.tuple(site, fc.constantFrom("lost" as const, "dead" as const), mishap, seconds).map(
        (chosen): Event =>
          (world) =>
            world.failOverTo(...chosen),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(fc.boolean(), mishap, seconds).map(
        (chosen): Event =>
          (world) =>
            world.restore(...chosen),
      ),
    },
    {
      weight: 2,
      arbitrary: site.map(
        (name): Event =>
          (world) =>
            void world.update(world.present[name]),
      ),
    },
    fc.tuple(cluster, fc.integer({ min: 0, max: 2 }), fc.constantFrom(5, 60, 600)).map(
      (chosen): Event =>
        (world) =>
          world.stray(...chosen),
    ),
  );
};

const drift = fc.constantFrom(-1, 0, 1);
const slowness = fc.constantFrom(0.05, 0.5, 1);
const circumstances = fc.record<Circumstances>({
  drift: fc.record({ home: drift, home2: drift, vps: drift, store: drift }),
  grace: fc.constantFrom(30, 60, 600, 3600),
  unnamed: fc.boolean(),
  slowness: fc.record({ home: slowness, home2: slowness, vps: slowness }),
});

const property = (rules: Safeties) =>
  fc.property(
    circumstances.chain((drawn) =>
      fc.tuple(fc.constant(drawn), fc.array(events(drawn.grace), { maxLength: 20, size: "max" })),
    ),
    ([drawn, happening]) => {
      const world = new World(drawn, rules);
      for (const event of happening) event(world);
      // What was begun comes to its end.
      world.pass(2 * drawn.grace + 120);
    },
  );

// ---------------------------------------------------------------- the tests

describe("the site lease's model", () => {
  const calm: Circumstances = {
    drift: { home: 0, home2: 0, vps: 0, store: 0 },
    grace: 600,
    unnamed: false,
    slowness: { home: 0.05, home2: 0.05, vps: 0.05 },
  };
  const world = () => {
    const made = new World(calm, safeties);
    made.pass(60);
    return made;
  };

  it("has a founder that accepts writes", () => {
    expect(world().active).toEqual(["home"]);
  });

  it("switches as planned, and back", () => {
    const made = world();
    made.switchTo("vps", "none", 2, 5);
    made.pass(60);
    expect([made.accepts("home"), made.accepts("vps")]).toEqual([false, true]);
    made.switchTo("home", "none", 2, 5);
    made.pass(60);
    expect(made.active).toEqual(["home", "vps", "home"]);
  });

  it("fails over from a site that cannot be reached, after the grace and not before", () => {
    const made = world();
    made.cluster.home.cut = true;
    made.failOverTo("vps", "lost", "none", 5);
    made.pass(600);
    expect(made.accepts("vps")).toBe(false);
    made.pass(100);
    expect([made.accepts("home"), made.accepts("vps")]).toEqual([false, true]);
  });

  it("fails over from a dead site at once, and it stays silent when it is back, with the vault and without", () => {
    const made = world();
    made.off("home");
    made.failOverTo("vps", "dead", "none", 5);
    made.pass(60);
    expect(made.accepts("vps")).toBe(true);
    made.cluster.home.cut = true;
    made.boot("home");
    made.pass(3600);
    made.cluster.home.cut = false;
    made.pass(3600);
    expect(made.active).toEqual(["home", "vps"]);
  });

  it.each([false, true])(
    "goes on on another cluster after the grace, and the old one stays silent when it is back; no cluster named: %s",
    (unnamed) => {
      const made = new World({ ...calm, unnamed }, safeties);
      made.pass(60);
      made.cluster.home.cut = true;
      made.restore(false, "none", 5);
      made.pass(600);
      expect(made.accepts("home2")).toBe(false);
      made.pass(100);
      expect([made.accepts("home"), made.accepts("home2")]).toEqual([false, true]);
      made.cluster.home.cut = false;
      made.boot("home");
      made.pass(3600);
      expect(made.active).toEqual(["home", "home2"]);
    },
  );

  it("lets a lease have its cluster's name at the second update, when a keeper runs that knows of it", () => {
    const made = new World({ ...calm, unnamed: true }, safeties);
    made.pass(60);
    expect(made.names()).toBeUndefined();
    made.update("home");
    made.pass(60);
    expect([made.names(), made.accepts("home")]).toEqual([undefined, true]);
    made.update("home");
    made.pass(60);
    expect([made.names(), made.accepts("home")]).toEqual(["home", true]);
  });

  describe("with a word about an old cluster that was forgotten", () => {
    /** Restored with the word, then back without it, and there once more: each time the one that is given up is cut off. */
    const restoredThrice = (leaseStepThere: Safeties["leaseStep"]) => {
      const made = new World(calm, { ...safeties, leaseStep: leaseStepThere });
      made.pass(60);
      made.off("home");
      made.restore(true, "none", 5);
      made.pass(60);
      made.boot("home");
      for (const [from, to] of [
        ["home2", "home"],
        ["home", "home2"],
      ] as const) {
        made.cluster[from].cut = true;
        made.restore(false, "none", 5);
        made.pass(600);
        expect(made.accepts(to)).toBe(false);
        made.pass(100);
        made.cluster[from].cut = false;
        made.pass(60);
      }
      return made.active;
    };

    it("is waited for: the word is about another one, or refused by the one that it is about", () => {
      expect(restoredThrice(leaseStep)).toEqual(["home", "home2", "home", "home2"]);
    });

    it.each<[string, Safeties["leaseStep"]]>([
      [
        "the word were about every old one",
        ({ restore: { oldCluster }, ...stack }, facts) => {
          const named = facts.stored?.lease.cluster;
          const believed = oldCluster !== undefined && named !== undefined && named !== facts.cluster;
          return leaseStep({ ...stack, restore: believed ? { oldCluster: named } : {} }, facts);
        },
      ],
      [
        "the one that it is about did not refuse it",
        ({ restore, ...stack }, facts) =>
          leaseStep({ ...stack, restore: restore.oldCluster === facts.cluster ? {} : restore }, facts),
      ],
    ])("would have two accept writes at once if %s", (_what, without) => {
      expect(() => restoredThrice(without)).toThrow(/two accept writes/);
    });
  });

  it("goes on on another cluster at once when the old one is off, and that one stays silent when it is back", () => {
    const made = world();
    made.off("home");
    made.restore(true, "none", 5);
    made.pass(60);
    expect(made.accepts("home2")).toBe(true);
    made.boot("home");
    made.pass(3600);
    expect(made.active).toEqual(["home", "home2"]);
  });

  it("goes on through a vault's hiccup that is shorter than the grace, and through none that is longer", () => {
    const made = world();
    made.cluster.home.cut = true;
    made.pass(500);
    expect(made.accepts("home")).toBe(true);
    made.pass(200);
    expect(made.accepts("home")).toBe(false);
    made.cluster.home.cut = false;
    made.pass(60);
    expect(made.accepts("home")).toBe(true);
  });
});

describe("two clusters, of two sites or of one,", () => {
  const runs = process.env["LEASE_RUNS"];
  // The same histories every time, so that a red run says something of the change that it is a run of. LEASE_RUNS draws new
  // ones, which is how rarer faults are looked for, and LEASE_SEED repeats those of a run that found one.
  const seed = process.env["LEASE_SEED"] ?? (runs === undefined ? "20261127" : undefined);
  const drawn = { numRuns: Number(runs ?? 2000), ...(seed === undefined ? {} : { seed: Number(seed) }) };

  it("never accept writes at once, and one that is cut off stops within the grace", () => {
    fc.assert(property(safeties), drawn);
  }, 600_000);
});

describe("teeth", () => {
  /** No shrinking: that there is a counterexample is enough. */
  const counterexample = (without: Partial<Safeties>): string => {
    const { errorInstance } = fc.check(property({ ...safeties, ...without }), { numRuns: 20_000, endOnFailure: true });
    return String(errorInstance);
  };
  const missing: [what: string, without: Partial<Safeties>][] = [
    ["the wait after a site was lost", { nextLease: (...how) => ({ ...nextLease(...how), wait: 0 }) }],
    [
      "the wait after a site was restored onto another cluster",
      { movedLease: (...how) => ({ ...movedLease(...how), wait: 0 }) },
    ],
    [
      "what is left of an earlier wait",
      { nextLease: ({ lease }, ...how) => nextLease({ lease, age: Infinity }, ...how) },
    ],
    [
      "a lease that names a cluster",
      { judge: ({ lease, age }, claim) => judge({ lease: { ...lease, cluster: claim.cluster }, age }, claim) },
    ],
    ["marks that count from the request: from the reply", { since: (_asked, answered) => answered }],
    ["marks that grow old", { gateVerdict: (text) => gateVerdict(text, Number(text?.split(" ")[1] ?? 0)) }],
    ["a mark that is gone after a reboot", { markIsInMemory: false }],
    ["a site that is off when it is called dead", { deadIsOff: false }],
    ["a site that has stopped when there is its token", { tokenMeansStopped: false }],
    ["gates that act in time", { reaction: 1000 }],
    ["clocks within their bound: twenty times as far apart", { drift: 20 * driftBound }],
  ];

  it.each(missing)("two sites accept writes at once without %s", (_what, without) => {
    expect(counterexample({ ...without, mindsTheGrace: false })).toMatch(/two accept writes/);
  });

  it.each(missing.slice(4, 7))("a site that is cut off goes on without %s", (_what, without) => {
    expect(counterexample(without)).toMatch(/goes on without the store|two accept/);
  });
});
