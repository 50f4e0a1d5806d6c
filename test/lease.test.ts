/** The site lease: its document, its rules, and its object in the vault. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  driftBound,
  firstLease,
  formatLease,
  isReplaced,
  judge,
  movedLease,
  nextLease,
  parseLease,
  pollSeconds,
  reactionSeconds,
  requestSeconds,
  waitFor,
} from "../lib/lease/lease";
import type { Claim, Lease } from "../lib/lease/lease";
import { aboutTheWait, leaseStep } from "../lib/lease/rules";
import { ageOf, LeaseConflict, readLease, writeLease } from "../lib/lease/store";
import { fakeStore } from "./support/fake-store";

const home = { site: "home", epoch: 1, cluster: "c1", fingerprint: "f1" } as const;
const vps = { site: "vps", epoch: 2, cluster: "c2", fingerprint: "f1" } as const;
const first = firstLease(home, 600, "w1");
const longAgo = { lease: first, age: 1e6 };
/** Of an earlier program. */
const { cluster: _cluster, ...unnamed } = first;

describe("the lease's text", () => {
  it("is read as it was written", () => {
    expect(parseLease(formatLease(first))).toEqual(first);
    const { lasted: _lasted, ...earlier } = unnamed;
    expect(parseLease(JSON.stringify(earlier))).toEqual({ ...unnamed, lasted: 0 });
    expect(formatLease(first)).toMatch(/^\{\n {2}"version": 1,\n[^]*\n\}\n$/);
  });

  const none = "lease.json in the vault is no lease: ";
  it.each<[what: string, text: string, message: string]>([
    ["nothing", "", "lease.json in the vault is not JSON"],
    ["another text", "<Error/>", "lease.json in the vault is not JSON"],
    ["a list", "[]", `${none}Invalid input: expected object, received array`],
    ["of a later program", formatLease({ ...first, version: 2 as 1 }), `${none}version: Invalid input: expected 1`],
    [
      "of a site that is none",
      formatLease({ ...first, activeSite: "dev" as "home" }),
      `${none}activeSite: Invalid option: expected one of "home"|"vps"`,
    ],
    ["of no epoch", formatLease({ ...first, epoch: 0 }), `${none}epoch: Too small: expected number to be >0`],
    ["with a wait before it", formatLease({ ...first, wait: -1 }), `${none}wait: Too small: expected number to be >=0`],
    ["with something more", JSON.stringify({ ...first, more: 1 }), `${none}Unrecognized key: "more"`],
  ])("that is none has one clear error: %s", (_what, text, message) => {
    expect(() => parseLease(text)).toThrow(new Error(message));
  });
});

describe("what a site may do that has just read the lease", () => {
  const lost = nextLease(longAgo, vps, "lost", 600, "w2");

  it.each<[string, "ours" | "soon" | "others", Lease, number, Claim]>([
    ["its own", "ours", first, 0, home],
    ["another site's", "others", first, 0, { ...vps, epoch: 1 }],
    ["its own in another epoch", "others", first, 0, { ...home, epoch: 2 }],
    ["its own site's, on another cluster", "others", first, 0, { ...home, cluster: "c9" }],
    ["its own site's, of a program that named no cluster", "ours", unnamed, 0, { ...home, cluster: "c9" }],
    ["another server's", "others", first, 0, { ...home, fingerprint: "f2" }],
    ["taken from a lost site, too early", "soon", lost, lost.wait - 1, vps],
    ["taken from a lost site, late enough", "ours", lost, lost.wait, vps],
    ["taken from a lost site: that one", "others", lost, 0, home],
  ])("%s: %s", (_what, verdict, lease, age, claim) => {
    expect(judge({ lease, age }, claim)).toBe(verdict);
  });
});

describe("the wait after a site was lost", () => {
  it("is the grace, two clocks' drift, and the time to act", () => {
    expect([waitFor(30), waitFor(600)]).toEqual([86, 668]);
  });

  it("outlasts the slowest clock's grace by the fastest clock's count, and the gate", () => {
    fc.assert(
      fc.property(fc.integer({ min: 30, max: 86_400 }), (grace) => {
        // Whole seconds: one in the mark, one in the lease's age.
        const stopped = (grace + 1) / (1 - driftBound) + reactionSeconds;
        expect((waitFor(grace) - 1) / (1 + driftBound)).toBeGreaterThan(stopped);
      }),
    );
  });

  it("lets a keeper fail once within the shortest grace's wait", () => {
    expect(pollSeconds + requestSeconds).toBeLessThanOrEqual(30);
  });
});

describe("a takeover", () => {
  it("waits only when the other site is lost", () => {
    const wait = (takeover: "planned" | "lost" | "dead") => nextLease(longAgo, vps, takeover, 600, "w2").wait;
    expect([wait("planned"), wait("lost"), wait("dead")]).toEqual([0, 668, 0]);
  });

  it("waits for the longer of two graces: a shorter one is not known to who cannot read it", () => {
    expect(nextLease(longAgo, vps, "lost", 30, "w2")).toMatchObject({ grace: 30, wait: waitFor(600) });
    expect(nextLease({ ...longAgo, lease: { ...first, grace: 30 } }, vps, "lost", 600, "w2")).toMatchObject({
      grace: 600,
      wait: waitFor(600),
    });
  });

  it("waits for what is left of an earlier wait: who was waited for may still go on", () => {
    const waiting = { lease: { ...first, wait: 668 }, age: 100.5 };
    const wait = (takeover: "planned" | "lost" | "dead") => nextLease(waiting, vps, takeover, 30, "w2").wait;
    expect([wait("planned"), wait("lost"), wait("dead")]).toEqual([568, 668, 568]);
    expect(nextLease({ ...waiting, age: 700 }, vps, "planned", 30, "w2").wait).toBe(0);
  });

  it("is the next epoch's", () => {
    expect(nextLease(longAgo, vps, "planned", 600, "w2")).toEqual({
      version: 1,
      activeSite: "vps",
      epoch: 2,
      fingerprint: "f1",
      grace: 600,
      wait: 0,
      takeover: "planned",
      cluster: "c2",
      lasted: 0,
      writer: "w2",
    });
    expect(() => nextLease(longAgo, { ...vps, epoch: 3 }, "dead", 600, "w2")).toThrow("epoch 3 does not follow 1");
    expect(() => nextLease(longAgo, { ...vps, epoch: 1 }, "dead", 600, "w2")).toThrow("epoch 1 does not follow 1");
  });

  it("is the same server's", () => {
    expect(() => nextLease(longAgo, { ...vps, fingerprint: "f2" }, "dead", 600, "w2")).toThrow(
      "the lease is another server's",
    );
  });
});

describe("a site that goes on on another cluster", () => {
  const there = { ...home, cluster: "c9" };
  const planned = { lease: nextLease(longAgo, { ...home, epoch: 2 }, "planned", 600, "w2"), age: 5000.7 };
  const claim = { ...there, epoch: 2 };

  it("keeps its epoch, its takeover and the epoch's age", () => {
    const moved = movedLease(planned, claim, "moved", 600, "w3");
    expect(moved).toEqual({ ...planned.lease, cluster: "c9", wait: 668, lasted: 5000, writer: "w3" });
    expect(movedLease({ lease: moved, age: 700 }, claim, "moved", 600, "w4").lasted).toBe(5700);
  });

  it("waits like one that takes over, unless the old one is off, or the lease named none", () => {
    const wait = (how: "named" | "moved" | "dead", grace = 600) => movedLease(planned, claim, how, grace, "w3").wait;
    expect([wait("moved"), wait("moved", 30), wait("dead"), wait("named")]).toEqual([668, 668, 0, 0]);
    const waiting = { ...planned, lease: { ...planned.lease, wait: 668 }, age: 100 };
    expect(movedLease(waiting, claim, "dead", 600, "w3").wait).toBe(568);
  });

  it("takes a changed grace with it, and one that is only named does not", () => {
    expect(movedLease(planned, claim, "moved", 30, "w3").grace).toBe(30);
    expect(movedLease(planned, claim, "named", 30, "w3").grace).toBe(600);
  });

  it("is the site that the lease names", () => {
    for (const other of [{ ...claim, epoch: 3 }, { ...vps }, { ...claim, fingerprint: "f2" }]) {
      expect(() => movedLease(planned, other, "dead", 600, "w3")).toThrow("the lease is home's, epoch 2");
    }
  });

  it("is replaced where it was, and nowhere else", () => {
    const { lease } = planned;
    expect([claim, { ...home, epoch: 2 }, there, vps].map((one) => isReplaced(lease, one))).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });
});

describe("the program, given the lease", () => {
  type Stack = Parameters<typeof leaseStep>[0];
  type Facts = Parameters<typeof leaseStep>[1];
  const stack = (site: "home" | "vps", over: Partial<Stack> = {}): Stack => {
    const activeSite = over.activeSite ?? site;
    return {
      site,
      activeSite,
      role: activeSite === site ? "active" : "standby",
      epoch: 1,
      founder: "home",
      fingerprint: "f1",
      promotionToken: undefined,
      restore: {},
      vault: { endpoint: "https://s3.example.org", region: "eu", bucket: "vault" },
      cluster: { context: "here" },
      ...over,
    };
  };
  const holding = (lease: Lease, over: Partial<Facts> = {}): Facts => ({
    stored: { lease },
    archives: true,
    database: "there",
    // As the lease says, unless a test has it otherwise.
    cluster: lease.cluster,
    keeper: "knows",
    ...over,
  });
  const without: Facts = { stored: undefined, archives: false, database: "missing", cluster: "c1", keeper: "knows" };
  const off = { restore: { oldCluster: "c1" } } as const;
  const second = nextLease(longAgo, vps, "planned", 600, "w2");
  const anew = (site: string) =>
    `make sure that no other site runs, then: pulumi config set homestead:promotionToken dead --stack ${site}, pulumi up --stack ${site}, pulumi config rm homestead:promotionToken --stack ${site}`;

  it.each<[string, Stack, Facts, ReturnType<typeof leaseStep>["step"]]>([
    ["the founder's first update makes it", stack("home"), without, { kind: "create", takeover: "first" }],
    [
      "a vault without it is begun anew at the operator's word, in any epoch",
      stack("vps", { epoch: 7, promotionToken: "dead" }),
      { ...without, archives: true, database: "there" },
      { kind: "create", takeover: "dead" },
    ],
    ["the active site goes on", stack("home"), holding(first), { kind: "none" }],
    [
      "a token that was not cleared does nothing again",
      stack("home", { promotionToken: "lost" }),
      holding(first),
      { kind: "none" },
    ],
    [
      "the active site goes on on another cluster, after the old one's grace",
      stack("home"),
      holding(first, { cluster: "c9", database: "missing" }),
      { kind: "move", how: "moved" },
    ],
    [
      "and with the database that is there already, as well",
      stack("home"),
      holding(first, { cluster: "c9" }),
      { kind: "move", how: "moved" },
    ],
    [
      "at once, if the old one is off",
      stack("home", off),
      holding(first, { cluster: "c9", database: "missing" }),
      { kind: "move", how: "dead" },
    ],
    [
      "and not if another one is: a word about an earlier restore's",
      stack("home", { restore: { oldCluster: "c0" } }),
      holding(first, { cluster: "c9", database: "missing" }),
      { kind: "move", how: "moved" },
    ],
    [
      "nor where the lease names none that the word could be compared with",
      stack("home", off),
      holding(unnamed, { cluster: "c9", database: "missing" }),
      { kind: "move", how: "moved" },
    ],
    [
      "a word about a cluster that the site has left does nothing any more",
      stack("home", off),
      holding({ ...first, cluster: "c9" }),
      { kind: "none" },
    ],
    [
      "a lease of an earlier program gets the cluster's name, without a wait",
      stack("home"),
      holding(unnamed, { cluster: "c1" }),
      { kind: "move", how: "named" },
    ],
    [
      "and not yet while a keeper runs to which it would be no lease",
      stack("home"),
      holding(unnamed, { cluster: "c1", keeper: "older" }),
      { kind: "none" },
    ],
    [
      "where there is a database and no Valkey it may be another cluster's, which this one followed",
      stack("home"),
      holding(unnamed, { cluster: "c1", keeper: "none" }),
      { kind: "move", how: "moved" },
    ],
    [
      "where there is no database it may be another cluster's",
      stack("home"),
      holding(unnamed, { cluster: "c1", database: "missing", keeper: "older" }),
      { kind: "move", how: "moved" },
    ],
    [
      "a cluster that does not answer changes nothing",
      stack("home"),
      holding(first, { cluster: undefined }),
      { kind: "none" },
    ],
    [
      "a standby is on any cluster",
      stack("vps", { activeSite: "home" }),
      holding(first, { cluster: "c7" }),
      { kind: "none" },
    ],
    ["a standby goes on", stack("vps", { activeSite: "home" }), holding(first), { kind: "none" }],
    [
      "a site steps down before anybody has taken over",
      stack("home", { activeSite: "vps", epoch: 2 }),
      holding(first),
      { kind: "none" },
    ],
    [
      "a site takes over with a token",
      stack("vps", { epoch: 2, promotionToken: "eyJ9" }),
      holding(first),
      { kind: "advance", from: first, takeover: "planned" },
    ],
    [
      "a site takes over from a lost one",
      stack("vps", { epoch: 2, promotionToken: "lost" }),
      holding(first),
      { kind: "advance", from: first, takeover: "lost" },
    ],
    [
      "a site takes over from a dead one",
      stack("vps", { epoch: 2, promotionToken: "dead" }),
      holding(first),
      { kind: "advance", from: first, takeover: "dead" },
    ],
  ])("%s", (_what, asked, facts, step) => {
    expect(leaseStep(asked, facts)).toEqual({ step, faults: [] });
  });

  const notActive = (site: string, lease: string, epoch: number, value: string) => ({
    key: "homestead:activeSite",
    value,
    allowed: `${lease} (epoch ${epoch}), as the lease in the vault says: two sites that federate cannot be merged again`,
    mend: `npx homestead switch ${site} (or by hand: docs/runbooks/switch-by-hand.md); to leave it as it is, get the newest files (git pull), or set activeSite to ${lease}, epoch to ${epoch}, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml`,
  });
  const wrongEpoch = (value: string, epoch: number) => ({
    key: "homestead:epoch",
    value,
    allowed: `${epoch}, as the lease in the vault says`,
    mend: `get the newest files (git pull), or set epoch to ${epoch}, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml`,
  });

  it.each<[string, Stack, Facts, ReturnType<typeof leaseStep>["faults"][number]]>([
    [
      "another server's vault",
      stack("home", { fingerprint: "f2" }),
      holding(first),
      {
        key: "homestead:vault.bucket",
        value: '"vault"',
        allowed: "this server's own vault: its lease is of identity f1, and this stack's identity is f2",
        mend: "npx homestead identity verify (which stack differs), or name the right bucket",
      },
    ],
    ["a takeover without a word", stack("vps", { epoch: 2 }), holding(first), notActive("vps", "home", 1, '"vps"')],
    [
      "a takeover that skips an epoch",
      stack("vps", { epoch: 3, promotionToken: "dead" }),
      holding(first),
      notActive("vps", "home", 1, '"vps"'),
    ],
    [
      "a takeover in an epoch that is over",
      stack("home", { epoch: 2, promotionToken: "dead" }),
      holding(second),
      notActive("home", "vps", 2, '"home"'),
    ],
    [
      "an old clone's update of the site that was active",
      stack("home"),
      holding(second),
      notActive("home", "vps", 2, '"home"'),
    ],
    ["the active site in another epoch", stack("vps", { epoch: 3 }), holding(second), wrongEpoch("3", 2)],
    [
      "the active site in another epoch, with a word",
      stack("vps", { epoch: 3, promotionToken: "dead" }),
      holding(second),
      wrongEpoch("3", 2),
    ],
    ["a standby in another epoch", stack("home", { activeSite: "vps", epoch: 3 }), holding(second), wrongEpoch("3", 2)],
    [
      "a standby of a site that is over",
      stack("vps", { activeSite: "home", epoch: 1 }),
      holding(second),
      {
        key: "homestead:activeSite",
        value: '"home"',
        allowed: "vps (epoch 2), as the lease in the vault says",
        mend: "get the newest files (git pull), or set activeSite to vps, epoch to 2, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml",
      },
    ],
    [
      "a site that steps down two epochs at once",
      stack("home", { activeSite: "vps", epoch: 3 }),
      holding(first),
      {
        key: "homestead:activeSite",
        value: '"vps"',
        allowed: "home (epoch 1), as the lease in the vault says",
        mend: "get the newest files (git pull), or set activeSite to home, epoch to 1, and generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml",
      },
    ],
    [
      "a site that steps down on a cluster that does not federate",
      stack("home", { activeSite: "vps", epoch: 2 }),
      holding(first, { cluster: "c9" }),
      {
        key: "homestead:cluster.context",
        value: '"here"',
        allowed: "the cluster that the lease names (UID c1): what steps down on another one is not what federates",
        mend: "pulumi config set --path homestead:cluster.context <context of home> --stack home",
      },
    ],
    ...[
      ["a word that this very cluster is off", stack("home", off), holding(first)] as const,
      [
        "the same word before the lease names this cluster again",
        stack("home", off),
        holding({ ...first, cluster: "c9" }, { cluster: "c1" }),
      ] as const,
      [
        "the same word on a standby that is to take over some day",
        stack("home", { ...off, activeSite: "vps", epoch: 2 }),
        holding(second, { cluster: "c1" }),
      ] as const,
    ].map(([what, asked, facts]): [string, Stack, Facts, ReturnType<typeof leaseStep>["faults"][number]] => [
      what,
      asked,
      facts,
      {
        key: "homestead:restore.oldCluster",
        value: '"c1"',
        allowed: "the UID of a cluster that is off: the one behind context 'here' has this UID, and it answers",
        mend: "pulumi config rm --path homestead:restore.oldCluster --stack home",
      },
    ]),
    [
      "a standby before there is anybody to follow",
      stack("vps", { activeSite: "home" }),
      without,
      {
        key: "homestead:activeSite",
        value: '"home"',
        allowed: "a site that is there: the vault 'vault' has no lease yet",
        mend: "pulumi up --stack home first",
      },
    ],
    [
      "an archive without a lease",
      stack("home"),
      { ...without, archives: true },
      {
        key: "homestead:vault.bucket",
        value: '"vault"',
        allowed:
          "a vault with its lease: it holds archives of a database, and there is no lease.json to say which site is active",
        mend: `get the newest files (git pull), if the server has moved to another bucket (docs/runbooks/new-bucket.md); else put lease.json back, or, ${anew("home")}`,
      },
    ],
    [
      "a database without a lease",
      stack("home"),
      { ...without, database: "there" },
      {
        key: "homestead:vault.bucket",
        value: '"vault"',
        allowed:
          "a vault with its lease: this cluster has a database, and there is no lease.json to say which site is active",
        mend: `get the newest files (git pull), if the server has moved to another bucket (docs/runbooks/new-bucket.md); else put lease.json back, or, ${anew("home")}`,
      },
    ],
    [
      "a first update in another epoch than the first",
      stack("home", { epoch: 2 }),
      without,
      {
        key: "homestead:epoch",
        value: "2",
        allowed: "1, at the first update of a server: the vault 'vault' is empty",
        mend: `name the server's own vault; or, if this is a new bucket for an old server, ${anew("home")}`,
      },
    ],
    [
      "a first update of who is not the founder",
      stack("vps"),
      without,
      {
        key: "homestead:activeSite",
        value: '"vps"',
        allowed: "home, at the first update of a server: the vault 'vault' is empty",
        mend: `name the server's own vault; or, if this is a new bucket for an old server, ${anew("vps")}`,
      },
    ],
  ])("refuses %s", (_what, asked, facts, fault) => {
    expect(leaseStep(asked, facts)).toEqual({ step: { kind: "none" }, faults: [fault] });
  });

  it("is told before it waits for which cluster, and how it need not", () => {
    const waits = "Valkey will begin 668 s later, when the cluster that home had has stopped for certain";
    const ready =
      "if that one is off, and stays off until the update is over: pulumi config set --path homestead:restore.oldCluster c1 --stack home";
    expect(aboutTheWait(stack("home"), first, 668)).toBe(`${waits}; the lease names it: UID c1; ${ready}`);
    expect(aboutTheWait(stack("home", { restore: { oldCluster: "c0" } }), first, 668)).toBe(
      `${waits}; the lease names it: UID c1, and not c0; ${ready}`,
    );
    expect(aboutTheWait(stack("home", off), {}, 668)).toBe(
      `${waits}; the lease does not name that one (an earlier program wrote it), so nobody can say that it is off`,
    );
  });
});

describe("the lease in the vault", () => {
  it("is read with its version and its age by the store's own clock", async () => {
    const store = await fakeStore();
    expect(await readLease(store.vault, store.keys)).toBeUndefined();
    store.put("lease.json", formatLease(first), new Date(Date.now() - 90_000));
    const stored = await readLease(store.vault, store.keys);
    expect(stored).toMatchObject({ lease: first, etag: '"v1"' });
    expect(stored?.age).toBeGreaterThanOrEqual(89);
  });

  it.each<[string, Record<string, string>, number]>([
    ["both", { date: "Mon, 23 Nov 2026 08:00:20 GMT", "last-modified": "Mon, 23 Nov 2026 08:00:00 GMT" }, 20],
    [
      "one from the future",
      { date: "Mon, 23 Nov 2026 08:00:00 GMT", "last-modified": "Mon, 23 Nov 2026 08:00:20 GMT" },
      0,
    ],
    ["no date", { "last-modified": "Mon, 23 Nov 2026 08:00:00 GMT" }, 0],
    ["nonsense", { date: "now", "last-modified": "then" }, 0],
  ])("has an age, or none that may be counted on: %s", (_what, headers, age) => {
    expect(ageOf(new Headers(headers))).toBe(age);
  });

  it("is not taken for missing when the store does not say", async () => {
    const store = await fakeStore();
    store.fate = () => 403;
    await expect(readLease(store.vault, store.keys)).rejects.toThrow(
      "the lease cannot be read: bucket 'vault' answers 403",
    );
    store.fate = () => "lost";
    await expect(readLease(store.vault, store.keys)).rejects.toThrow("fetch failed");
  });

  it("is an error when it is something else", async () => {
    const store = await fakeStore();
    store.put("lease.json", "{}");
    await expect(readLease(store.vault, store.keys)).rejects.toThrow(/^lease.json in the vault is no lease: version: /);
  });
});

describe("writing the lease", () => {
  const next = nextLease(longAgo, vps, "planned", 600, "w2");
  const others = { ...next, activeSite: "home", writer: "w3" } as const;

  it.each(["kept", "refused", "ignored"] as const)(
    "makes it, and then takes it over, where conditions are %s",
    async (conditions) => {
      const store = await fakeStore();
      store.conditions = conditions;
      await writeLease(store.vault, store.keys, first, undefined);
      expect(store.text("lease.json")).toBe(formatLease(first));
      await writeLease(store.vault, store.keys, next, await readLease(store.vault, store.keys));
      expect(store.text("lease.json")).toBe(formatLease(next));
    },
  );

  it.each(["kept", "refused", "ignored"] as const)(
    "leaves alone what somebody else has written since it was read, where conditions are %s",
    async (conditions) => {
      const store = await fakeStore();
      store.conditions = conditions;
      store.put("lease.json", formatLease(first));
      const read = await readLease(store.vault, store.keys);
      store.put("lease.json", formatLease(others));
      await expect(writeLease(store.vault, store.keys, next, read)).rejects.toThrow(LeaseConflict);
      await expect(writeLease(store.vault, store.keys, first, undefined)).rejects.toThrow(LeaseConflict);
      expect(store.text("lease.json")).toBe(formatLease(others));
    },
  );

  it("leaves alone what somebody else writes in the same moment, where conditions are kept", async () => {
    const store = await fakeStore();
    store.put("lease.json", formatLease(first));
    const read = await readLease(store.vault, store.keys);
    store.fate = (request) => {
      if (request.startsWith("PUT")) store.put("lease.json", formatLease(others));
      return undefined;
    };
    await expect(writeLease(store.vault, store.keys, next, read)).rejects.toThrow(
      "the lease was changed by somebody else in between; look at it with: npx homestead status",
    );
    expect(store.text("lease.json")).toBe(formatLease(others));
  });

  it("notices who wrote over it, where conditions are ignored", async () => {
    const store = await fakeStore();
    store.conditions = "ignored";
    store.put("lease.json", formatLease(first));
    const read = await readLease(store.vault, store.keys);
    let written = false;
    store.fate = (request) => {
      // Between its write and the look after it.
      if (written) store.put("lease.json", formatLease(others));
      written ||= request.startsWith("PUT");
      return undefined;
    };
    await expect(writeLease(store.vault, store.keys, next, read)).rejects.toThrow(LeaseConflict);
  });

  it("knows its own write again when the reply was lost and the second try is refused", async () => {
    const store = await fakeStore();
    store.put("lease.json", formatLease(first));
    const read = await readLease(store.vault, store.keys);
    let puts = 0;
    store.fate = (request) => (request.startsWith("PUT") && (puts += 1) === 1 ? { served: 503 } : undefined);
    await writeLease(store.vault, store.keys, next, read);
    expect(puts).toBe(2);
    expect(store.text("lease.json")).toBe(formatLease(next));
  });

  it("fails when the store refuses", async () => {
    const store = await fakeStore();
    store.fate = (request) => (request.startsWith("PUT") ? 403 : undefined);
    await expect(writeLease(store.vault, store.keys, first, undefined)).rejects.toThrow(
      "the lease cannot be written: bucket 'vault' answers 403",
    );
    expect(store.objects.size).toBe(0);
  });
});
