/** The keeper and Valkey's snapshots, against a small store of our own. */
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { bundle } from "../lib/bundle";
import { Keeper } from "../lib/lease/keeper";
import type { KeeperOptions } from "../lib/lease/keeper";
import { firstLease, formatLease, movedLease, nextLease } from "../lib/lease/lease";
import { beginEpoch, restoredKey } from "../lib/lease/snapshots";
import type { Beginning } from "../lib/lease/snapshots";
import { fakeStore } from "./support/fake-store";
import { temporaryFolder } from "./support/folders";

const home = { site: "home", epoch: 1, cluster: "c1", fingerprint: "f1" } as const;
const vps = { site: "vps", epoch: 2, cluster: "c2", fingerprint: "f1" } as const;
const first = firstLease(home, 600, "w1");
const longAgo = { lease: first, age: 1e6 };
const planned = nextLease(longAgo, vps, "planned", 600, "w2");
const lost = nextLease(longAgo, vps, "lost", 600, "w2");
const dead = nextLease(longAgo, vps, "dead", 600, "w2");

async function until(what: string, look: () => boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!look()) {
    if (Date.now() > end) throw new Error(`not within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A keeper with a store, and the folders that it shares with Valkey and the gate. Uptime stands still at 1000.7. */
async function keeperOf(claim: KeeperOptions["claim"], options: Partial<KeeperOptions> = {}) {
  const store = await fakeStore();
  const folder = temporaryFolder();
  const [data, gate, uptime] = ["data", "gate", "uptime"].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const made of [data, gate]) fs.mkdirSync(made);
  const said: string[] = [];
  const setUptime = (seconds: number) => fs.writeFileSync(uptime, `${seconds} 5.00\n`);
  setUptime(1000.7);
  const read = (file: string) => (fs.existsSync(file) ? fs.readFileSync(file, "utf8") : undefined);
  const keeper = new Keeper({
    claim,
    otherSite: claim.site === "home" ? "vps" : "home",
    vault: store.vault,
    keys: store.keys,
    data,
    gate,
    uptime,
    poll: 0.02,
    snapshots: 0.02,
    say: (line) => said.push(line),
    ...options,
  });
  return {
    keeper,
    store,
    said,
    setUptime,
    mark: () => read(path.join(gate, "mark")),
    /** Valkey's snapshot on the disk. */
    dump: (text?: string) => {
      const file = path.join(data, "dump.rdb");
      if (text !== undefined) fs.writeFileSync(file, text);
      return read(file);
    },
    epoch: (text?: string) => {
      if (text !== undefined) fs.writeFileSync(path.join(data, "epoch"), text);
      return read(path.join(data, "epoch"));
    },
    gateEnds: () => fs.writeFileSync(path.join(gate, "ended"), ""),
    data,
  };
}

describe("one look at the lease", () => {
  it("leaves a mark with the moment of asking, however late the answer is", async () => {
    const { keeper, store, said, setUptime, mark } = await keeperOf(home);
    store.put("lease.json", formatLease(first));
    store.fate = () => {
      setUptime(1300);
      return undefined;
    };
    await keeper.look();
    expect(mark()).toBe("ours 1000 600\n");
    expect(said).toEqual(["epoch 1 begins with nothing in Valkey", "the lease is ours, epoch 1"]);
  });

  it("closes the gate when the lease is another site's, epoch's or server's", async () => {
    const { keeper, store, said, mark } = await keeperOf(home);
    store.put("lease.json", formatLease(planned));
    await keeper.look();
    expect(mark()).toBe("others\n");
    expect(said).toEqual(["the lease is vps's, epoch 2; this is home, epoch 1"]);
    for (const lease of [
      { ...first, epoch: 2 },
      { ...first, fingerprint: "f2" },
    ]) {
      const another = await keeperOf(home);
      another.store.put("lease.json", formatLease(lease));
      await another.keeper.look();
      expect(another.mark()).toBe("others\n");
    }
  });

  it("closes the gate when its site goes on on another cluster, and says so", async () => {
    const { keeper, store, said, mark, epoch } = await keeperOf(home);
    epoch("1\n");
    store.put("lease.json", formatLease({ ...first, cluster: "c9" }));
    await keeper.look();
    expect(mark()).toBe("others\n");
    expect(said).toEqual(["home goes on on another cluster (UID c9), epoch 1; this is UID c1"]);
    // What the folder holds would be older than the other's, if this one were to go on again.
    await until("the folder's epoch is forgotten", () => epoch() === undefined);
  });

  it("opens the gate by a lease of an earlier program, which names no cluster", async () => {
    const { keeper, store, mark } = await keeperOf(home);
    const { cluster: _cluster, ...unnamed } = first;
    store.put("lease.json", formatLease(unnamed));
    await keeper.look();
    expect(mark()).toBe("ours 1000 600\n");
  });

  it("goes on with its site's snapshot of before it was restored: the epoch is older than the lease", async () => {
    const { keeper, store, said, dump } = await keeperOf({ ...home, cluster: "c9" });
    store.put("valkey/home/e1/dump.rdb", "queues", new Date(Date.now() - 900_000));
    const moved = movedLease({ lease: first, age: 5000 }, { ...home, cluster: "c9" }, "moved", 600, "w2");
    store.put("lease.json", formatLease(moved), new Date(Date.now() - 700_000));
    await keeper.look();
    expect([dump(), said[0]]).toEqual([
      "queues",
      expect.stringMatching(/^epoch 1 goes on with valkey\/home\/e1\/dump.rdb, 90\d s old/),
    ]);
  });

  it("touches nothing of Valkey's while the lease is another site's", async () => {
    const { keeper, store, dump, epoch } = await keeperOf(home);
    dump("queues");
    store.put("lease.json", formatLease(planned));
    await keeper.look();
    expect([dump(), epoch()]).toEqual(["queues", undefined]);
  });

  it("leaves no mark while the site that was lost may still go on", async () => {
    const { keeper, store, said, mark } = await keeperOf(vps);
    store.put("lease.json", formatLease(lost), new Date(Date.now() - (lost.wait - 60) * 1000));
    await keeper.look();
    expect(mark()).toBeUndefined();
    expect(said).toEqual(["epoch 2 is vps's, 668 s after it was taken: waiting"]);
    store.put("lease.json", formatLease(lost), new Date(Date.now() - (lost.wait + 2) * 1000));
    await keeper.look();
    expect(mark()).toBe("ours 1000 600\n");
  });

  it.each<[string, (store: Awaited<ReturnType<typeof fakeStore>>) => void, string]>([
    [
      "the store does not answer",
      (store) => (store.fate = () => "lost"),
      "the lease cannot be read: other side closed",
    ],
    [
      "the store refuses",
      (store) => (store.fate = () => 403),
      "the lease cannot be read: the lease cannot be read: bucket 'vault' answers 403",
    ],
    [
      "the lease is none",
      (store) => store.put("lease.json", "{"),
      "the lease cannot be read: lease.json in the vault is not JSON",
    ],
    ["there is no lease", (store) => store.objects.delete("lease.json"), "there is no lease in the vault"],
  ])("leaves the mark to grow old when %s", async (_what, breaks, line) => {
    const { keeper, store, said, setUptime, mark } = await keeperOf(home);
    store.put("lease.json", formatLease(first));
    await keeper.look();
    setUptime(1100);
    breaks(store);
    await keeper.look();
    await keeper.look();
    expect(mark()).toBe("ours 1000 600\n");
    expect(said.slice(2)).toEqual([line]);
  });

  it.each(["valkey/vps/e2", "valkey/home/e1"])("leaves no mark before the epoch has begun: %s", async (folder) => {
    const { keeper, store, said, mark, epoch } = await keeperOf(vps);
    store.put("lease.json", formatLease(planned));
    store.fate = (request) => (request === `HEAD ${folder}/final.rdb` ? 403 : undefined);
    await keeper.look();
    expect([mark(), epoch()]).toEqual([undefined, undefined]);
    expect(said).toEqual([`epoch 2 cannot begin: ${folder}/final.rdb: the store answers 403`]);
    store.fate = () => undefined;
    await keeper.look();
    expect([mark(), epoch()]).toEqual(["ours 1000 600\n", "2\n"]);
  });

  it("knows when it last read a lease, whosever that is, and not where it could not or there is none", async () => {
    const { keeper, store, setUptime } = await keeperOf(vps);
    await keeper.look();
    expect(keeper.readAt).toBeUndefined();
    // Another's, its own soon, and its own.
    for (const [i, lease] of [first, lost, dead].entries()) {
      store.put("lease.json", formatLease(lease));
      setUptime(2000 + i);
      await keeper.look();
      expect(keeper.readAt).toBe(2000 + i);
    }
    store.put("lease.json", "{}");
    setUptime(3000);
    await keeper.look();
    expect(keeper.readAt).toBe(2002);
  });

  it("waits for the other site's last snapshot by the lease's age, whoever looks", async () => {
    const { keeper, store, said, mark, dump } = await keeperOf(vps);
    const taken = (seconds: number) =>
      store.put("lease.json", formatLease(planned), new Date(Date.now() - seconds * 1000));
    store.put("valkey/home/e1/final.rdb", "");
    taken(400);
    await keeper.look();
    await keeper.look();
    expect(mark()).toBeUndefined();
    expect(said).toEqual([
      "epoch 2 cannot begin: home's last snapshot (valkey/home/e1/final.rdb) is not in the vault, and is waited for until 420 s after the takeover",
    ]);
    store.put("valkey/home/e1/final.rdb", "queues");
    await keeper.look();
    expect([mark(), dump()]).toEqual(["ours 1000 600\n", "queues"]);
  });

  it("waits no longer where the store does not tell the lease's age", async () => {
    const { keeper, store, mark, setUptime } = await keeperOf(vps);
    // Written later than now: no age.
    store.put("lease.json", formatLease(planned), new Date(Date.now() + 86_400_000));
    store.put("valkey/home/e1/final.rdb", "");
    await keeper.look();
    setUptime(1419);
    await keeper.look();
    expect(mark()).toBeUndefined();
    setUptime(1421);
    await keeper.look();
    expect(mark()).toBe("ours 1421 600\n");
  });
});

describe("the beginning of an epoch", () => {
  const [final, dumped] = ["valkey/home/e1/final.rdb", "valkey/home/e1/dump.rdb"];
  const [ownFinal, ownDumped] = ["valkey/vps/e2/final.rdb", "valkey/vps/e2/dump.rdb"];
  const ago = (seconds: number) => new Date(Date.now() - seconds * 1000);
  type Made = Awaited<ReturnType<typeof keeperOf>>;

  /** @param more.age seconds since the takeover; longer than a last snapshot is waited for */
  async function begin(lease: typeof first, prepare: (made: Made) => void, more: Partial<Beginning> = {}) {
    const made = await keeperOf(vps);
    prepare(made);
    const { store, data } = made;
    const { vault, keys } = store;
    const beginning = { vault, keys, site: "vps", otherSite: "home", data, lease, age: 1000, ...more };
    const said = await beginEpoch(beginning).catch((error: unknown) => String(error));
    // Of how many seconds it speaks depends on the test's own speed.
    return {
      ...made,
      said: said?.replace(/\d{3,}(?= s (?:old|before))/, (s) => String(Math.round(Number(s) / 100) * 100)),
    };
  }

  it("brings the other site's last snapshot along when it is planned, and waits for nothing", async () => {
    const { said, dump, epoch, data } = await begin(
      planned,
      ({ store, dump: write }) => {
        write("of an epoch that is over");
        store.put(dumped, "some minutes before", ago(300));
        store.put(final, "queues", ago(60));
      },
      { age: 0 },
    );
    expect([said, dump(), epoch()]).toEqual([`epoch 2 begins with ${final}`, "queues", "2\n"]);
    expect(fs.readdirSync(data).sort()).toEqual(["dump.rdb", "epoch"]);
  });

  it("takes the last snapshot also when both were written within the store's one second", async () => {
    const moment = ago(60);
    const { dump } = await begin(planned, ({ store }) => {
      store.put(final, "queues", moment);
      store.put(dumped, "some moments before", moment);
    });
    expect(dump()).toBe("queues");
  });

  it.each<[string, (made: Made) => void]>([
    ["is not there yet", ({ store }) => store.put(final, "", ago(9000))],
    [
      "is not there, and another one is",
      ({ store }) => {
        store.put(final, "", ago(9000));
        store.put(dumped, "some minutes before", ago(300));
      },
    ],
    [
      "is an older one's, from before the pod started again",
      ({ store }) => {
        store.put(final, "of another day", ago(9000));
        store.put(dumped, "some minutes before", ago(300));
      },
    ],
  ])("waits while the last snapshot %s", async (_what, prepare) => {
    const { said, dump, epoch } = await begin(planned, prepare, { age: 419 });
    expect([said, dump(), epoch()]).toEqual([
      `Error: home's last snapshot (${final}) is not in the vault, and is waited for until 420 s after the takeover`,
      undefined,
      undefined,
    ]);
  });

  it.each(["", "of another day"])(
    "falls back to the newest snapshot when the last one does not come, and says what is lost: %j",
    async (left) => {
      const { said, dump, epoch } = await begin(
        planned,
        ({ store }) => {
          store.put(final, left, ago(9000));
          store.put(dumped, "some minutes before", ago(720));
        },
        { age: 420 },
      );
      expect([said, dump(), epoch()]).toEqual([
        `epoch 2 begins with ${dumped}. LOST: jobs that home queued in its last minutes; its last snapshot did not reach the vault, and this one is of 300 s before the takeover (jobs done since then are done again)`,
        "some minutes before",
        "2\n",
      ]);
    },
  );

  it("is empty when nothing came, and says what is lost", async () => {
    const { said, dump, data } = await begin(
      planned,
      ({ store, dump: write }) => {
        write("of an epoch that is over");
        store.put(final, "", ago(9000));
        // Of an earlier run: the epoch began after it.
        store.put(dumped, "of another run", ago(99_000));
      },
      { age: 420 },
    );
    expect([said, dump()]).toEqual([
      "epoch 2 begins with nothing in Valkey. LOST: all jobs that home had queued; no snapshot of its epoch 1 reached the vault",
      undefined,
    ]);
    expect(fs.readdirSync(data)).toEqual(["epoch"]);
  });

  it("is empty at once when the other site's epoch never began, and says what that rests on", async () => {
    const { said, dump } = await begin(planned, () => undefined, { age: 0 });
    expect([said, dump()]).toEqual([
      "epoch 2 begins with nothing in Valkey: the vault has no trace of home's epoch 1. LOST, if its Valkey ran: all jobs that it had queued",
      undefined,
    ]);
  });

  it.each([lost, dead])("is empty after an unplanned takeover, whatever there is: $takeover", async (lease) => {
    const { said, dump, store } = await begin(lease, (made) => {
      made.dump("of an epoch that is over");
      made.epoch("1\n");
      made.store.put(final, "older than the database that was recovered");
    });
    expect([said, dump()]).toEqual(["epoch 2 begins with nothing in Valkey", undefined]);
    expect(store.requests.filter((request) => request.includes("valkey/home/"))).toEqual([]);
  });

  it("is made once: what Valkey holds since then is kept", async () => {
    const { said, dump, store } = await begin(planned, (made) => {
      made.epoch("2\n");
      made.dump("since then");
    });
    expect([said, dump(), store.requests]).toEqual([undefined, "since then", []]);
  });

  it("is not taken for made when the snapshot came only half-way", async () => {
    const made = await keeperOf(vps);
    const { store, data } = made;
    const { vault, keys } = store;
    store.put(final, "x".repeat(1_000_000));
    // Says how much there is, and breaks off.
    store.fate = (request) => (request === `GET ${final}` ? { cut: 1000 } : undefined);
    const beginning = { vault, keys, site: "vps", otherSite: "home", data, lease: planned, age: 0 };
    await expect(beginEpoch(beginning)).rejects.toThrow();
    expect([made.dump(), made.epoch()]).toEqual([undefined, undefined]);
    store.fate = () => undefined;
    expect(await beginEpoch(beginning)).toBe(`epoch 2 begins with ${final}`);
    expect(made.dump()).toHaveLength(1_000_000);
  });

  it("is made again when it was interrupted before it was noted", async () => {
    const { said, dump } = await begin(planned, ({ store }) => {
      store.put(final, "queues", ago(1060));
      store.put(ownFinal, "", ago(900));
    });
    expect([said, dump()]).toEqual([`epoch 2 begins with ${final}`, "queues"]);
  });

  it("empties what an earlier run may have left as this epoch's last snapshot", async () => {
    const { said, dump, store } = await begin(dead, (made) => {
      made.store.put(ownDumped, "old", ago(99_000));
      made.store.put(ownFinal, "old", ago(99_000));
    });
    expect([said, dump()]).toEqual(["epoch 2 begins with nothing in Valkey", undefined]);
    expect(store.text(ownFinal)).toBe("");
  });

  describe("whose volume was lost later", () => {
    /** An epoch that began three months ago. */
    const old = { age: 8_000_000 };
    const months = (made: Made) => {
      made.store.put(final, "months old", ago(8_000_060));
      made.store.put(ownFinal, "", ago(7_999_000));
    };

    it.each([planned, lost, dead])("goes on with this site's own newest snapshot: $takeover", async (lease) => {
      const { said, dump, epoch } = await begin(
        lease,
        (made) => {
          months(made);
          made.store.put(ownDumped, "minutes old", ago(300));
        },
        old,
      );
      expect([said, dump(), epoch()]).toEqual([
        `epoch 2 goes on with ${ownDumped}, 300 s old: this is all that is left of Valkey's volume`,
        "minutes old",
        "2\n",
      ]);
    });

    it("prefers the one of Valkey's end, if it did not start again since", async () => {
      const made = await begin(
        planned,
        ({ store }) => {
          store.put(ownDumped, "minutes old", ago(600));
          store.put(ownFinal, "the last", ago(300));
        },
        old,
      );
      expect([made.dump(), made.store.text(ownFinal)]).toEqual(["the last", "the last"]);
      const again = await begin(
        planned,
        ({ store }) => {
          store.put(ownFinal, "the last before", ago(600));
          store.put(ownDumped, "minutes old", ago(300));
        },
        old,
      );
      expect(again.dump()).toBe("minutes old");
    });

    const restored = { to: "2026-11-22T10:00:00Z", generation: 3 };
    const mark = restoredKey("vps", 2, 3);

    it("goes on with a snapshot of after the database went back to a moment, however long ago that was", async () => {
      const { dump } = await begin(
        planned,
        (made) => {
          months(made);
          made.store.put(mark, "", ago(7_000_000));
          made.store.put(ownDumped, "minutes old", ago(300));
        },
        { ...old, restored },
      );
      expect(dump()).toBe("minutes old");
    });

    it.each([
      ["of before it", mark, 299],
      ["of the same second", mark, 300],
      ["of after another restore", restoredKey("vps", 2, 2), 7_000_000],
    ])("has nothing in Valkey when the snapshot is %s, and notes when this began", async (_what, key, age) => {
      const { dump, store } = await begin(
        planned,
        (made) => {
          months(made);
          made.store.put(key, "", ago(age));
          made.store.put(ownDumped, "knows of the future", ago(300));
        },
        { ...old, restored },
      );
      expect([dump(), store.text(mark)]).toEqual([undefined, ""]);
    });

    it("has nothing in Valkey when the database goes back to an earlier moment", async () => {
      const { said, dump, epoch, store } = await begin(
        planned,
        (made) => {
          months(made);
          made.store.put(ownDumped, "knows of the future", ago(300));
        },
        { ...old, restored },
      );
      expect([said, dump(), epoch()]).toEqual([
        "epoch 2 goes on with nothing in Valkey: the database goes back to 2026-11-22T10:00:00Z, and does not know what was queued since",
        undefined,
        "2\n",
      ]);
      // Else a second try would take this for a beginning, and bring the other site's along.
      expect([store.text(ownDumped), store.text(mark)]).toEqual(["knows of the future", ""]);
    });

    it("notes anew when this began where the vault has forgotten it, and the folder knows: a new bucket", async () => {
      const made = await begin(planned, months, { ...old, restored });
      const noted = made.store.text(mark);
      made.store.objects.delete(mark);
      const { vault, keys } = made.store;
      const beginning = { vault, keys, site: "vps", otherSite: "home", data: made.data, lease: planned, ...old };
      expect(await beginEpoch({ ...beginning, restored })).toBeUndefined();
      expect([noted, made.store.text(mark)]).toEqual(["", ""]);
    });

    it("notes nothing for a folder of before that database: its next snapshot is no better than the one before", async () => {
      const { store, said } = await begin(
        planned,
        (made) => {
          months(made);
          made.epoch("2\n");
          fs.writeFileSync(path.join(made.data, "restored"), "2\n");
        },
        { ...old, restored },
      );
      expect([said, store.text(mark)]).toEqual([undefined, undefined]);
    });

    it("lets Valkey run on where the vault takes no note", async () => {
      const made = await begin(planned, months, { ...old, restored });
      const { vault, keys } = made.store;
      const beginning = { vault, keys, site: "vps", otherSite: "home", data: made.data, lease: planned, ...old };
      made.store.fate = () => 403;
      expect(await beginEpoch({ ...beginning, restored })).toBeUndefined();
    });

    it("takes no notice of a moment that was forgotten in the stack when it really begins", async () => {
      const { dump, store } = await begin(planned, (made) => made.store.put(final, "queues", ago(60)), {
        age: 0,
        restored,
      });
      expect([dump(), store.text(mark)]).toEqual(["queues", ""]);
    });
  });
});

describe("a keeper that runs", () => {
  const key = (kind: string) => `valkey/home/e1/${kind}.rdb`;
  const puts = (requests: string[], kind: string) => requests.filter((line) => line === `PUT ${key(kind)}`).length;

  async function running() {
    const made = await keeperOf(home);
    made.store.put("lease.json", formatLease(first));
    const run = made.keeper.run();
    await until("the first mark", () => made.mark() !== undefined);
    return { ...made, run };
  }
  const looks = (requests: string[]) => requests.filter((line) => line === "GET lease.json").length;
  const afterLooks = async (requests: string[], count: number) => {
    const before = looks(requests);
    await until("some more looks", () => looks(requests) >= before + count);
  };
  /** Lets the keeper look a few times more and end, which it does without having put anything into the vault. */
  const givesNothing = async ({
    keeper,
    store,
    gateEnds,
    run,
  }: Pick<Awaited<ReturnType<typeof keeperOf>>, "keeper" | "store" | "gateEnds"> & { run: Promise<void> }) => {
    await afterLooks(store.requests, 5);
    keeper.end();
    gateEnds();
    await run;
    expect(store.requests.filter((line) => line.startsWith("PUT"))).toEqual([]);
  };

  it("takes a snapshot to the vault once for each that Valkey wrote", async () => {
    const { keeper, store, dump, gateEnds, run } = await running();
    dump("one");
    await until("the first is there", () => store.text(key("dump")) === "one");
    await afterLooks(store.requests, 5);
    expect(puts(store.requests, "dump")).toBe(1);
    dump("another");
    await until("the second is there", () => store.text(key("dump")) === "another");
    keeper.end();
    gateEnds();
    await run;
  });

  it("tries again when a snapshot did not arrive", async () => {
    const { keeper, store, said, dump, gateEnds, run } = await running();
    store.fate = (request) => (request === `PUT ${key("dump")}` ? 403 : undefined);
    dump("one");
    await until("it says so", () =>
      said.includes(`a snapshot did not reach the vault: ${key("dump")}: the store answers 403`),
    );
    const [refused, tries] = [keeper.uploadedAt, puts(store.requests, "dump")];
    await until("it has tried again", () => puts(store.requests, "dump") > tries);
    expect(keeper.uploadedAt).toBe(refused);
    store.fate = () => undefined;
    await until("it is there", () => store.text(key("dump")) === "one");
    await until("it says when", () => (keeper.uploadedAt ?? 0) > (refused ?? 0));
    keeper.end();
    gateEnds();
    await run;
  });

  it("that was started anew while the vault refuses knows of no snapshot there", async () => {
    const { keeper, store, said, dump, epoch, gateEnds } = await keeperOf(home);
    dump("of the keeper before it");
    epoch("1\n");
    store.put("lease.json", formatLease(first));
    store.fate = (request) => (request === `PUT ${key("dump")}` ? 403 : undefined);
    const run = keeper.run();
    await until("it says so", () =>
      said.includes(`a snapshot did not reach the vault: ${key("dump")}: the store answers 403`),
    );
    expect(keeper.uploadedAt).toBeUndefined();
    keeper.end();
    gateEnds();
    await run;
  });

  it("gives away nothing that is of another epoch", async () => {
    const { keeper, store, dump, epoch, mark, gateEnds } = await keeperOf(home);
    dump("of an epoch that is over");
    epoch("7\n");
    store.put("lease.json", formatLease(planned));
    const run = keeper.run();
    await until("the mark", () => mark() === "others\n");
    await givesNothing({ keeper, store, gateEnds, run });
  });

  it("gives away nothing of a cluster that its site has left: the other one's would be lost", async () => {
    const { keeper, store, dump, epoch, mark, gateEnds } = await keeperOf(home);
    dump("of before the fire");
    epoch("1\n");
    store.put("lease.json", formatLease({ ...first, cluster: "c9" }));
    const run = keeper.run();
    await until("the mark", () => mark() === "others\n");
    await givesNothing({ keeper, store, gateEnds, run });
  });

  it("gives away nothing before it has seen since its machine started whose the epoch is", async () => {
    const { keeper, store, dump, epoch, gateEnds } = await keeperOf(home);
    dump("of before the fire");
    epoch("1\n");
    store.fate = (request) => (request === "GET lease.json" ? 403 : undefined);
    await givesNothing({ keeper, store, gateEnds, run: keeper.run() });
  });

  it("gives away nothing either when it was cut off while its site was restored", async () => {
    const { keeper, store, dump, gateEnds, run } = await running();
    store.put("lease.json", formatLease({ ...first, cluster: "c9" }));
    dump("of before the fire");
    keeper.end();
    gateEnds();
    await run;
    expect(puts(store.requests, "dump")).toBe(0);
    expect(store.text(key("final"))).toBe("");
  });

  describe("whose epoch was handed over", () => {
    /** Of a home that the site was restored to meanwhile, or of this one: nobody can tell by the lease. */
    const handedOver = (store: Made["store"]) => {
      store.put(key("final"), "the last of who handed it over");
      store.put("lease.json", formatLease(planned));
    };
    type Made = Awaited<ReturnType<typeof running>>;
    /** Off the vault until the machine's uptime is this. */
    const cutOff = async ({ store, dump, setUptime, said }: Made, uptime: number, meanwhile: () => void) => {
      store.fate = (request) => (request === "GET lease.json" ? 403 : undefined);
      await until("it has noticed", () => said.some((line) => line.startsWith("the lease cannot be read")));
      dump("of before the fire");
      setUptime(uptime);
      meanwhile();
      store.fate = () => undefined;
      await afterLooks(store.requests, 5);
    };
    const ends = async ({ keeper, gateEnds, run, store }: Made) => {
      keeper.end();
      gateEnds();
      await run;
      return [store.text(key("dump")), store.text(key("final"))];
    };

    it("gives away nothing where it was cut off for longer than the grace: another cluster may have been its site", async () => {
      const made = await running();
      await cutOff(made, 1601, () => handedOver(made.store));
      expect(await ends(made)).toEqual([undefined, "the last of who handed it over"]);
      expect(made.said.at(-1)).toBe("the last snapshot stays here: another cluster may be home in epoch 1");
    });

    it("gives away its last where it was cut off for less: nobody else can have begun", async () => {
      const made = await running();
      await cutOff(made, 1599, () => handedOver(made.store));
      expect(await ends(made)).toEqual(["of before the fire", "of before the fire"]);
    });

    it("gives away its last, however late, where it saw that: nobody begins in an epoch that is over", async () => {
      const made = await running();
      handedOver(made.store);
      await until("the mark", () => made.mark() === "others\n");
      made.setUptime(9000);
      made.dump("its last");
      expect((await ends(made))[1]).toBe("its last");
    });

    it("gives away what it has once the lease names this cluster again, after however long", async () => {
      const made = await running();
      await cutOff(made, 9000, () => undefined);
      expect(await ends(made)).toEqual(["of before the fire", "of before the fire"]);
    });

    it.each([
      [1599, "of before the fire"],
      [1601, "the last of who handed it over"],
    ])("knows by the mark of a keeper before it when that saw the lease last: %i", async (uptime, last) => {
      const made = await keeperOf(home);
      fs.writeFileSync(path.join(path.dirname(made.data), "gate", "mark"), "ours 1000 600\n");
      made.epoch("1\n");
      made.dump("of before the fire");
      made.setUptime(uptime);
      handedOver(made.store);
      const run = made.keeper.run();
      await until("the mark", () => made.mark() === "others\n");
      expect((await ends({ ...made, run }))[1]).toBe(last);
    });
  });

  it("ends after Valkey, whose last snapshot it takes to the vault, once", async () => {
    const { keeper, store, said, dump, gateEnds, run } = await running();
    keeper.end();
    let over = false;
    void run.then(() => (over = true));
    await afterLooks(store.requests, 3);
    expect([over, store.text(key("final"))]).toEqual([false, ""]);
    dump("the last");
    gateEnds();
    await run;
    expect(store.text(key("final"))).toBe("the last");
    expect(said.at(-1)).toBe("the last snapshot is in the vault");
    // The first one emptied it.
    expect(puts(store.requests, "final")).toBe(2);
  });

  it("renews the mark until Valkey has ended: a long last snapshot is not cut short", async () => {
    const { keeper, mark, setUptime, gateEnds, run } = await running();
    keeper.end();
    setUptime(2000);
    await until("a new mark", () => mark() === "ours 2000 600\n");
    gateEnds();
    await run;
  });

  it("does not end before the last snapshot is in the vault", async () => {
    const { keeper, store, said, dump, gateEnds, run } = await running();
    let refused = 0;
    store.fate = (request) => (request === `PUT ${key("final")}` && (refused += 1) <= 1 ? 403 : undefined);
    dump("the last");
    gateEnds();
    keeper.end();
    await run;
    expect(said).toContain(`the last snapshot did not reach the vault: ${key("final")}: the store answers 403`);
    expect(store.text(key("final"))).toBe("the last");
  });
});

describe("the keeper's program", () => {
  it("runs on plain Node, as its container does, and ends at the pod's end", async () => {
    const { store, data, mark } = await keeperOf(home);
    const gate = path.join(path.dirname(data), "gate");
    store.put("lease.json", formatLease(first));
    const program = path.join(path.dirname(data), "keeper.js");
    fs.writeFileSync(program, bundle("lib/lease/keeper-main.ts"));
    const child = spawn(process.execPath, [program], {
      env: {
        PATH: process.env["PATH"],
        SITE: "home",
        OTHER_SITE: "vps",
        EPOCH: "1",
        CLUSTER: "c1",
        FINGERPRINT: "f1",
        ENDPOINT: store.vault.endpoint,
        REGION: store.vault.region,
        BUCKET: store.vault.bucket,
        ACCESS_KEY_ID: store.keys.accessKeyId,
        SECRET_ACCESS_KEY: store.keys.secretAccessKey,
        DATA: data,
        GATE: gate,
      },
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    let said = "";
    child.stdout.on("data", (text: Buffer) => (said += text.toString()));
    const ended = new Promise((resolve) => child.on("exit", resolve));
    await until("the mark", () => mark()?.startsWith("ours ") === true);
    fs.writeFileSync(path.join(data, "dump.rdb"), "the last");
    child.kill("SIGTERM");
    fs.writeFileSync(path.join(gate, "ended"), "");
    expect(await ended).toBe(0);
    expect(store.text("valkey/home/e1/final.rdb")).toBe("the last");
    expect(said).toContain("keeper: the lease is ours, epoch 1\n");
  });
});
