/** `homestead switch` with a vault, two clusters and the project's files; only the updates are played. */
import { PassThrough } from "node:stream";
import { describe, expect, test, vi } from "vitest";
import { commitOf, confirmed, switchTo } from "../cli/switch";
import { firstLease, formatLease, leaseKey } from "../lib/lease/lease";
import type { Lease, Takeover } from "../lib/lease/lease";
import { projectFolder } from "../lib/plan";
import type { PodCommand } from "../lib/pod-exec";
import { journalKey } from "../lib/switch/journal";
import type { Journal, Kind, StepName } from "../lib/switch/journal";
import type { Findings, Question } from "../lib/switch/preflight";
import type { World } from "../lib/switch/run";
import { stepsOf } from "../lib/switch/steps";
import type { FileValues } from "../lib/switch/steps";
import type { WorldOptions } from "../lib/switch/world";
import { optionalSecrets, parseSettings, requiredSecrets } from "../settings";
import type { SiteName } from "../settings";
import { images } from "../versions";
import { chartsInFolders, configurationOf } from "./support/configuration";
import { fakeCluster } from "./support/fake-cluster";
import { fakeStore } from "./support/fake-store";

/** What is behind the modules that are played. */
const played = vi.hoisted(() => ({
  config: (_stack: string): unknown => ({}),
  preflight: (_question: Question, _real: (question: Question) => Promise<Findings>): unknown => undefined,
  exec: (_what: PodCommand): Promise<string> => Promise.reject(new Error("nobody is asked")),
  world: (_options: WorldOptions): unknown => undefined,
  git: (_words: readonly string[]): string | undefined => "",
}));

// The store of these tests is on this machine, where no site's may be.
vi.mock("node:dns/promises", async (original) => {
  const dns = await original<typeof import("node:dns/promises")>();
  const lookup = (host: string, options: { all: true }) =>
    host === "localhost" ? Promise.resolve([{ address: "203.0.113.7", family: 4 }]) : dns.lookup(host, options);
  return { ...dns, lookup };
});
vi.mock("../lib/pulumi-cli", async (original) => ({
  ...(await original<typeof import("../lib/pulumi-cli")>()),
  PulumiCli: class {
    config = (stack: string) => Promise.resolve(stack).then(played.config);
  },
}));
vi.mock("../lib/git", () => ({ git: (_folder: string, ...words: string[]) => Promise.resolve(played.git(words)) }));
vi.mock("../lib/pod-exec", () => ({ execInPod: (_config: unknown, what: PodCommand) => played.exec(what) }));
vi.mock("../lib/switch/preflight", async (original) => {
  const real = await original<typeof import("../lib/switch/preflight")>();
  return { ...real, preflight: (question: Question) => Promise.resolve(played.preflight(question, real.preflight)) };
});
vi.mock("../lib/switch/world", () => ({ realWorld: (options: WorldOptions) => played.world(options) }));

const at = "2026-11-23T08:00:00.000Z";
const secrets: readonly string[] = [...requiredSecrets, ...optionalSecrets];
/** A token as CloudNativePG makes it. */
const token = Buffer.from(JSON.stringify({ latestCheckpointTimelineID: "1", databaseSystemIdentifier: "7" })).toString(
  "base64",
);

/** A switch to the VPS that stopped before a step. */
function stopped(before: StepName, more: Partial<Journal> = {}): Journal {
  const steps = stepsOf("planned", "follows");
  const passed = steps.slice(0, steps.indexOf(before));
  return {
    version: 1,
    target: "vps",
    from: "home",
    kind: "planned",
    epoch: 2,
    generation: 1,
    ...(passed.includes("demote") ? { token } : {}),
    steps: steps.map((name) =>
      passed.includes(name) ? { name, begun: at, done: at } : name === before ? { name, begun: at } : { name },
    ),
    startedAt: at,
    updatedAt: at,
    finished: false,
    ...more,
  };
}

interface Case {
  lease: { activeSite: SiteName; epoch: number; takeover?: Takeover };
  journal?: Journal;
  /** The project's values, where the files differ from the lease. */
  shared?: { activeSite: SiteName; epoch: number };
  generations?: { home: number; vps: number };
  /** Transient keys of the stack files. */
  files?: Partial<Record<SiteName, Record<string, string>>>;
  /** Whom each database has as its primary, and the token that it was told; a site without one does not answer. */
  databases?: Partial<Record<SiteName, { primary: SiteName; promotionToken?: string }>>;
  /** What the preflight finds; `real`: it looks at the two clusters and the vault itself. */
  findings?: Partial<Findings> | "real";
  /** A site whose database does not write, though it is its own primary. */
  waits?: SiteName;
  /** What the databases say of their archiving, where it is not the best. */
  archiver?: object;
  /** Whether nothing is asked. @default true */
  yes?: boolean;
  /** A stack that does not open. */
  closed?: SiteName;
  /** The update, or the wait for a database, that fails: `up vps`, `steady home`. */
  breakAt?: string;
  /** The update in which somebody presses Ctrl-C. */
  interruptAt?: string;
  /** The old site's Valkey left no last snapshot. */
  left?: "nothing";
  /** What `git diff` says of the project's files. @default nothing */
  changed?: string;
  /** The vault has none. */
  noLease?: boolean;
}

/** Runs the command. */
async function run(
  { lease, journal, shared, generations = { home: 1, vps: 1 }, files = {}, databases = {}, ...rest }: Case,
  site: SiteName,
  kind: Kind = "planned",
) {
  const store = await fakeStore();
  const kubeconfigs = {} as Record<SiteName, string>;
  for (const name of ["home", "vps"] as const) {
    const replica = databases[name];
    const object = (archive: string) => ({
      metadata: { name: `postgres-g${generations[name]}` },
      spec: { replica, plugins: [{ parameters: { serverName: archive } }] },
      status: { conditions: [{ type: "Ready", status: "True" }] },
    });
    const items = [object(`${name}-g${generations[name]}`)];
    const container = { name: "mastodon-web", image: images.mastodon };
    const others = {
      "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters": () => ({ items }),
      "/api/v1/namespaces/homestead/pods": () => ({ items: [{ metadata: { name } }] }),
      "/apis/apps/v1/namespaces/homestead/deployments/mastodon-web": () => ({
        spec: { replicas: 1, template: { spec: { containers: [container] } } },
      }),
      "/apis/cert-manager.io/v1/namespaces/homestead/certificates": () => ({ items: [] }),
    };
    const { kubeconfig } = await fakeCluster({ others });
    kubeconfigs[name] = replica === undefined ? "/nowhere" : kubeconfig;
  }
  store.lists = true;
  if (rest.left === undefined) store.put("valkey/home/e1/final.rdb", "REDIS");
  // The buckets themselves.
  for (const bucket of ["/vault", "/media"]) store.put(bucket, "");
  for (const name of ["home", "vps"] as const) {
    const [archive, ended] = [`pg/${name}-g1`, new Date(Date.now() - 3600_000).toISOString()];
    const info = `begin_wal=000000010000000000000003\nstatus=DONE\nend_time=${ended}\n`;
    store.put(`${archive}/base/20261122T030000/backup.info`, info);
    store.put(`${archive}/wals/0000000100000000/000000010000000000000004.gz`, "");
  }
  const endpoint = store.vault.endpoint.replace("127.0.0.1", "localhost");
  /** What only the real preflight asks for. */
  const complete = {
    charts: chartsInFolders(),
    media: { endpoint, bucket: "media" },
    storage: { kind: "local", databases: "local-path" },
  };
  played.exec = ({ pod, command }) => {
    const text = command.join(" ");
    const follows = databases[pod as SiteName]?.primary !== pod || rest.waits === pod;
    if (text.includes("pg_is_in_recovery")) return Promise.resolve(follows ? "t|0/5000000|3|1\n" : "f|0/0||1\n");
    if (text.includes("pg_current_wal_insert_lsn")) {
      if (follows) return Promise.reject(new Error(`${pod}: ERROR:  recovery is in progress`));
      const best = { now: 1000, lastArchived: 990, lastArchivedWal: "000000010000000000000004", lastFailed: null };
      return Promise.resolve(JSON.stringify({ ...best, waiting: 0, insertLsn: "0/5000028", ...rest.archiver }));
    }
    const disk = "/dev/x 1000 100 900 10% /var/lib/postgresql/data\n";
    return Promise.resolve(text.includes("pg_last_wal_replay_lsn") ? `0/5000000|1|\n${disk}` : disk);
  };
  const said = { ...(shared ?? { activeSite: lease.activeSite, epoch: lease.epoch }), generations };
  const own: Record<SiteName, Record<string, string>> = { home: files.home ?? {}, vps: files.vps ?? {} };
  const raw = (name: SiteName) =>
    configurationOf(name, {
      cluster: { context: "trial", kubeconfig: kubeconfigs[name] },
      vault: { endpoint, bucket: store.vault.bucket },
      ...(rest.findings === "real" ? complete : {}),
      ...said,
      ...own[name],
    }).config;
  const { fingerprint } = parseSettings(configurationOf("home"));
  const stored: Lease = { ...firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint }, 600, "w"), ...lease };
  if (rest.noLease !== true) store.put(leaseKey, formatLease(stored));
  played.git = () => rest.changed ?? "";
  if (journal !== undefined) store.put(journalKey, JSON.stringify(journal));

  const did: string[] = [];
  const asked: Question[] = [];
  played.config = (name) => {
    if (name === rest.closed) throw new Error("incorrect passphrase");
    return Object.fromEntries(
      Object.entries(raw(name as SiteName)).map(([key, value]) => [
        key,
        { value, secret: secrets.includes(key.replace(/^homestead:/, "")) },
      ]),
    );
  };
  played.preflight = (question, real) => {
    asked.push(question);
    if (rest.findings === "real") return real(question);
    const { generation } = question.target.settings;
    return { faults: [], warnings: [], database: "follows", generation, ...rest.findings } satisfies Findings;
  };
  played.world = ({ from, target, journal: kept }): World => ({
    files: ({ shared: now, maintenance, promotionToken, kept: olds }: FileValues) => {
      const words = [maintenance, promotionToken && `token ${promotionToken}`, olds && `kept ${olds}`];
      did.push([`files ${now.activeSite} ${now.epoch} g${now.generation}`, ...words.filter(Boolean)].join(" "));
      Object.assign(said, { activeSite: now.activeSite, epoch: now.epoch });
      own[from] = {};
      own[target] = promotionToken === undefined ? {} : { promotionToken };
    },
    up: (name) => {
      did.push(`up ${name}`);
      if (rest.interruptAt === did.at(-1)) process.emit("SIGINT");
      if (rest.breakAt === did.at(-1)) return Promise.reject(new Error("it does not answer"));
      return Promise.resolve({ demotionToken: "new" });
    },
    steady: (name) => {
      did.push(`steady ${name}`);
      return rest.breakAt === did.at(-1) ? Promise.reject(new Error("it is fenced")) : Promise.resolve();
    },
    lagging: () => Promise.resolve(undefined),
    copyMedia: () => Promise.resolve(),
    queued: () => Promise.resolve(0),
    lastSnapshot: () => Promise.resolve(rest.left === "nothing" ? undefined : 0),
    verify: (name) => Promise.resolve((did.push(`verify ${name}`), [])),
    save: (state) => kept.write(state),
    say: () => undefined,
    now: () => new Date(),
    pause: () => Promise.resolve(),
  });
  const lines: string[] = [];
  const spy = vi.spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
  const errors: string[] = [];
  const errorSpy = vi.spyOn(console, "error").mockImplementation((line: string) => void errors.push(line));
  let error: string | undefined;
  try {
    await switchTo(site, { yes: rest.yes ?? true, ...(kind === "planned" ? {} : { [kind]: true }) });
  } catch (caught) {
    error = (caught as Error).message;
  } finally {
    spy.mockRestore();
    errorSpy.mockRestore();
  }
  const written = store.text(journalKey);
  return {
    error,
    did,
    asked: asked.map(({ kind: as, from, target, old }) => ({
      kind: as,
      from,
      target: target.settings.site,
      /** As whom the files have the two, while they are looked at. */
      active: [target.settings.activeSite, old?.settings.activeSite],
      generation: target.settings.generation,
    })),
    lines: lines.join("\n"),
    errors,
    journal: written === undefined ? undefined : (JSON.parse(written) as Journal),
  };
}

const atHome = { activeSite: "home", epoch: 1 } as const;
const atVps = { activeSite: "vps", epoch: 2, takeover: "planned" } as const;
const whole = [
  ...["files home 1 g1 web", "steady home", "up home", "files home 1 g1 web", "files home 1 g1 all", "up home"],
  ...["files vps 2 g1", "up home", "files vps 2 g1 token new", "up vps", "files vps 2 g1", "up vps"],
  ...["files vps 2 g1", "verify vps"],
];
const demoted = { home: { primary: "vps" }, vps: { primary: "home" } } as const;
const serving = { home: { primary: "home" }, vps: { primary: "home" } } as const;
const taken = { home: { primary: "vps" }, vps: { primary: "vps" } } as const;

describe("a switch", () => {
  test("from nothing: everything is looked at, then each step", async () => {
    const { error, did, asked, lines, journal } = await run({ lease: atHome, databases: serving }, "vps");
    expect(error).toBeUndefined();
    expect(lines).toMatch(
      /^vps is the active site \(epoch 2\)\.\nSet these DNS records by hand:\n {2}ramble\.moe 60 A /m,
    );
    expect(asked).toHaveLength(1);
    expect(did).toEqual(whole);
    expect(journal).toMatchObject({ target: "vps", epoch: 2, finished: true });
  });

  test.each(["lost", "dead"] as const)(
    "to the site that is active, whose other one is said to be %s, is the wrong way round",
    async (kind) => {
      const { error, did } = await run({ lease: atVps, shared: atHome, databases: taken }, "vps", kind);
      expect(error).toBe(
        `vps is the active site (epoch 2), and home its standby: if it is vps that is gone: npx homestead switch home --${kind}; if it is home, nothing has to be done`,
      );
      expect(did).toEqual([]);
    },
  );

  test("where the vault has no lease, but archives, tells a clone from before a move that it is one", async () => {
    for (const kind of ["planned", "lost", "dead"] as const) {
      const { error, did, journal } = await run({ lease: atHome, databases: serving, noLease: true }, "vps", kind);
      expect(error).toBe(
        "the vault 'vault' has archives and no site lease, and without it nobody can tell which site is active. If the server has moved to another bucket (docs/runbooks/new-bucket.md), these files are from before: get the newest (git pull), or a kit that was made since. If lease.json is lost: docs/runbooks/lost-bucket.md",
      );
      expect([did, journal]).toEqual([[], undefined]);
    }
  });

  test("that is interrupted takes no step after the one that it is at, and says how to go on", async () => {
    process.removeAllListeners("SIGINT");
    const { error, errors, did, journal } = await run(
      { lease: atHome, databases: serving, interruptAt: "up home" },
      "vps",
    );
    expect(errors).toEqual([
      "\ninterrupted: an update that runs comes to its end, and nothing is begun after it; once more ends it at once",
    ]);
    expect(error).toBe(
      "interrupted before drain\nNothing is lost; the same command goes on with this step. Back: npx homestead switch home",
    );
    expect(did).toEqual(whole.slice(0, 3));
    expect(journal?.steps.filter(({ done }) => done !== undefined).map(({ name }) => name)).toEqual(["stop-web"]);
    expect(process.listeners("SIGINT")).toEqual([]);
  });

  test("to the site that is active, planned, has nothing to do", async () => {
    const { error, lines } = await run({ lease: atVps, databases: taken }, "vps");
    expect([error, lines]).toEqual([undefined, "vps is the active site already (epoch 2): nothing to do"]);
  });
});

describe("the new site dies on the way", () => {
  test.each(["promote", "clear-token", "verify"] as const)(
    "with the lease, before %s was over: the way home is a switch like any other, and its journal a new one",
    async (step) => {
      const { error, did, asked, journal } = await run(
        { lease: atVps, journal: stopped(step), databases: { home: { primary: "vps" } } },
        "home",
        "lost",
      );
      expect(error).toBeUndefined();
      expect(asked).toMatchObject([{ kind: "lost", from: "vps", target: "home" }]);
      // It catches up first, as long as the files still name the one that died. What that was promoted with stays with
      // it until then: it may come back, and the switch be taken back.
      const before = step === "promote" ? `files vps 2 g1 kept ${token}` : "files vps 2 g1";
      expect(did.slice(0, 3)).toEqual([before, "files home 3 g1 token lost", "up home"]);
      expect(journal).toMatchObject({ target: "home", from: "vps", epoch: 3, finished: true });
      expect(journal?.token).toBeUndefined();
    },
  );

  test("or lives, and is never verified through public DNS: the planned way home is open", async () => {
    const { error, did, asked } = await run({ lease: atVps, journal: stopped("verify"), databases: taken }, "home");
    expect(error).toBeUndefined();
    expect(asked).toMatchObject([{ kind: "planned", from: "vps", target: "home" }]);
    expect(did.filter((line) => line.startsWith("up"))).toEqual(["up vps", "up vps", "up vps", "up home", "up home"]);
  });

  test("a site that has not come so far as its token is handed back with it: without, it would begin with a part", async () => {
    const databases = { home: { primary: "vps" }, vps: { primary: "vps", promotionToken: token } } as const;
    const { error, did } = await run({ lease: atVps, journal: stopped("promote"), databases }, "home");
    expect(error).toBeUndefined();
    const before = did.slice(0, did.indexOf("files home 3 g1"));
    expect(before.filter((line) => line.startsWith("files"))).toEqual(
      ["web", "web", "all"].map((maintenance) => `files vps 2 g1 ${maintenance} kept ${token}`),
    );
    expect(did.slice(before.length).join()).not.toContain("kept");
  });

  test.each<[where: string, more: Partial<Case>]>([
    ["its journal", { journal: stopped("promote") }],
    ["its journal, and its stack does not open", { journal: stopped("promote"), closed: "vps" }],
    ["its file", { files: { vps: { promotionToken: token } } }],
    ["its database", { databases: { vps: { primary: "vps", promotionToken: token }, home: { primary: "vps" } } }],
  ])(
    "and comes back, when it was given up and not yet replaced: its token, known by %s, is there again",
    async (_, more) => {
      const given: Case = { lease: atVps, databases: { home: { primary: "vps" } }, ...more, breakAt: "up home" };
      const { did, journal } = await run(given, "home", "lost");
      expect(did.slice(0, 2)).toEqual([`files vps 2 g1 kept ${token}`, "files home 3 g1 token lost"]);
      const { did: back } = await run({ lease: atVps, journal, databases: taken }, "vps");
      expect(back).toEqual([`files vps 2 g1 kept ${token}`, "steady vps", "up vps", "files vps 2 g1", "up vps"]);
    },
  );

  test("a word is no token to keep", async () => {
    const lease = { ...atVps, takeover: "lost" } as const;
    const files = { vps: { promotionToken: "lost" } };
    const { did } = await run({ lease, files, databases: { home: { primary: "vps" } } }, "home", "lost");
    expect(did[0]).toBe("files vps 2 g1");
  });

  test("before it takes the lease: the demoted site is opened again, and its token dropped", async () => {
    const { error, did, lines, journal } = await run(
      { lease: atHome, journal: stopped("promote"), shared: { activeSite: "vps", epoch: 2 }, databases: demoted },
      "home",
    );
    expect(error).toBeUndefined();
    expect(did).toEqual(["files home 1 g1", "steady home", "up home"]);
    expect(lines).toMatch(
      /^the switch to vps \(epoch 2\) that stopped before promote is taken back; its token is dropped when home begins to write again$/m,
    );
    expect(lines.split("\n").at(-1)).toBe("home is active as before.");
    expect(journal?.token).toBeUndefined();
    expect(journal?.finished).toBe(true);
  });

  test.each(["planned", "lost", "dead"] as const)(
    "and the demoted site cannot be opened again: %s, the switch goes on with its token, and loses nothing",
    async (kind) => {
      const shared = { activeSite: "vps", epoch: 2 } as const;
      const given: Case = { lease: atHome, shared, databases: demoted, breakAt: "steady home" };
      const back = await run({ ...given, journal: stopped("promote") }, "home");
      expect(back.error).toBe(
        "reopen failed: it is fenced\nNothing is lost; the same command goes on with this step.\nIf home is gone, or this cannot be mended: npx homestead switch vps --lost",
      );
      expect(back.journal).toMatchObject({ token, steps: [{ name: "reopen" }] });

      const { journal } = back;
      const on = await run({ lease: atHome, journal, databases: { vps: { primary: "home" } } }, "vps", kind);
      expect([on.error, on.asked]).toEqual([undefined, []]);
      expect(on.did).toEqual([`files vps 2 g1 token ${token}`, ...whole.slice(whole.indexOf("up vps"))]);
      expect(on.lines).toContain(`going on with the switch to vps that was begun at ${at}: next is promote`);
    },
  );

  test("what the files keep of a switch that was taken back is to be committed", async () => {
    const generations = { home: 1, vps: 2 };
    const { lines } = await run(
      { lease: atHome, journal: stopped("drain"), generations, databases: serving, changed: "Pulumi.yaml" },
      "home",
    );
    expect(lines.split("\n").slice(-3)).toEqual([
      "home is active as before.",
      "Keep what was changed:",
      `  ${commitOf(projectFolder, "home is the active site (epoch 1)")}`,
    ]);
  });

  test("by a command that is one for a clone wherever it is", () => {
    expect(commitOf("/srv/my server", "x")).toBe(
      "git -C '/srv/my server' add Pulumi.yaml Pulumi.home.yaml Pulumi.vps.yaml && git -C '/srv/my server' commit -m \"x\"",
    );
    expect(commitOf("/srv/server", "x")).toMatch(/^git -C \/srv\/server add .* && git -C \/srv\/server commit -m "x"$/);
  });

  test("in the middle of the demotion: the old site is opened again, once CloudNativePG allows it", async () => {
    const { error, did } = await run(
      { lease: atHome, journal: stopped("demote"), shared: { activeSite: "vps", epoch: 2 }, databases: demoted },
      "home",
    );
    expect([error, did]).toEqual([undefined, ["files home 1 g1", "steady home", "up home"]]);
  });

  test("and one that was opened half-way is handed over from the start", async () => {
    const journal = stopped("promote", { token: undefined, steps: [{ name: "reopen", begun: at }] });
    const { error, did, asked } = await run({ lease: atHome, journal, databases: demoted }, "vps");
    expect([error, asked.length, did]).toEqual([undefined, 1, whole]);
  });
});

describe("an old site whose database does not write", () => {
  test("since its promotion is waiting still, is left for the one before it, as its failed step says", async () => {
    const databases = { home: { primary: "vps" }, vps: { primary: "vps", promotionToken: token } } as const;
    const found: Case = {
      lease: atVps,
      journal: stopped("promote"),
      files: { vps: { promotionToken: token } },
      databases,
    };
    const { error, did, journal } = await run({ ...found, waits: "vps", findings: "real" }, "home");
    expect(error).toBeUndefined();
    expect(did[0]).toBe(`files vps 2 g1 web kept ${token}`);
    expect(journal).toMatchObject({ target: "home", from: "vps", kind: "planned", finished: true });
  });

  test("since it was demoted by hand, is handed over by the command from the start", async () => {
    const { error, did } = await run({ lease: atHome, databases: demoted, findings: "real" }, "vps");
    expect([error, did]).toEqual([undefined, whole]);
  });
});

describe("an old site that lives and cannot be handed over", () => {
  const faulty: Case = {
    lease: atHome,
    databases: serving,
    archiver: { lastFailed: 995, waiting: 3 },
    findings: "real",
  };

  test("is not handed over, and the refusal says how it is given up", async () => {
    const { error, did } = await run(faulty, "vps");
    expect(error).toMatch(
      /^home does not get into the vault what it writes \(.*\nNothing was changed\.\nIf home is gone, or this cannot be mended: npx homestead switch vps --lost$/,
    );
    expect(did).toEqual([]);
  });

  test("is given up by that, with what is lost", async () => {
    const { error, did, lines } = await run(faulty, "vps", "lost");
    expect([error, ...did.slice(0, 2)]).toEqual([undefined, "files home 1 g1", "files vps 2 g1 token lost"]);
    expect(lines).toContain("warning: home is not gone: its database is ready, ");
    expect(lines).toMatch(/^lost: what home wrote after /m);
  });

  test("is not said to be dead", async () => {
    const { error, did } = await run(faulty, "vps", "dead");
    expect(error).toMatch(/^home is not powered off: its cluster answers; /);
    expect(did).toEqual([]);
  });
});

describe("a journal that somebody else has gone on without", () => {
  test.each(["stop-web", "drain", "stop-workers", "demote"] as const)(
    "finished by hand, after the command stopped before %s: what is left is done, with the files as they are",
    async (step) => {
      const { error, did, journal } = await run({ lease: atVps, journal: stopped(step), databases: taken }, "vps");
      expect(error).toBeUndefined();
      expect(did).toEqual(["files vps 2 g1", "up vps", "files vps 2 g1", "up vps", "files vps 2 g1", "verify vps"]);
      expect(journal?.finished).toBe(true);
    },
  );

  test("the token that was set by hand stays while the database waits for it", async () => {
    const telling = { home: { primary: "vps" }, vps: { primary: "vps", promotionToken: token } } as const;
    const told = await run({ lease: atVps, journal: stopped("drain"), databases: telling }, "vps");
    expect(told.did[0]).toBe(`files vps 2 g1 token ${token}`);
    const inFile = await run(
      { lease: atVps, journal: stopped("drain"), databases: demoted, files: { vps: { promotionToken: token } } },
      "vps",
    );
    expect(inFile.did[0]).toBe(`files vps 2 g1 token ${token}`);
  });

  test("a token that the database was not told, and nobody knows, is asked for", async () => {
    const { error, did } = await run({ lease: atVps, journal: stopped("drain"), databases: demoted }, "vps");
    expect(error).toBe(
      "the lease is vps's, by a token that nobody here knows, and its database was not told to take over; without the token it would begin with a part of the data: pulumi stack output demotionToken --stack home, then: pulumi config set --plaintext homestead:promotionToken <token> --stack vps, and the same command again",
    );
    expect(did).toEqual([]);
    const silent = await run(
      { lease: atVps, journal: stopped("drain"), databases: { home: { primary: "vps" } } },
      "vps",
    );
    expect(silent.error).toContain("and vps's cluster does not say what its database was told; ");
  });

  test("taken by the word, by hand: it goes on as that", async () => {
    const lease = { ...atVps, takeover: "lost" } as const;
    const { error, did, journal } = await run({ lease, journal: stopped("drain"), databases: demoted }, "vps");
    expect([error, did[0], journal?.kind]).toEqual([undefined, "files vps 2 g1 token lost", "lost"]);
  });

  test("begun weeks ago, and taken back by hand: everything is looked at again, and each step taken", async () => {
    for (const step of ["drain", "demote"] as const) {
      const journal = stopped(step);
      const { error, did, asked } = await run({ lease: atHome, journal, databases: serving }, "vps");
      expect([error, did]).toEqual([undefined, whole]);
      expect(asked).toMatchObject([{ kind: "planned", active: ["home", "home"] }]);
    }
    const findings = { faults: ["vps's database volume is 95 % full"] };
    const full = await run({ lease: atHome, journal: stopped("drain"), databases: serving, findings }, "vps");
    expect(full.error).toBe(
      "vps's database volume is 95 % full\nNothing was changed.\nTo have home serve on: npx homestead switch home\nIf home is gone, or this cannot be mended: npx homestead switch vps --lost",
    );
    expect(full.did).toEqual([]);
  });

  test("the target was begun anew meanwhile: its generation does not go down, whichever way it goes", async () => {
    const generations = { home: 1, vps: 3 };
    const open = { lease: atHome, journal: stopped("drain"), generations, databases: serving };
    expect((await run(open, "vps")).did[0]).toBe("files home 1 g3 web");
    expect((await run(open, "home")).did[0]).toBe("files home 1 g3");
    const journal = stopped("promote");
    expect((await run({ lease: atHome, journal, generations, databases: demoted }, "vps")).did[0]).toBe(
      `files vps 2 g3 token ${token}`,
    );
    expect((await run({ lease: atVps, journal, generations, databases: taken }, "vps")).did[0]).toBe("files vps 2 g3");
  });

  test("a database that begins anew for the switch is waited for as before", async () => {
    const steps = stepsOf("planned", "parted").map((name) => (name === "follow" ? { name, begun: at } : { name }));
    const { error, did } = await run(
      { lease: atHome, journal: stopped("stop-web", { steps }), databases: serving },
      "vps",
    );
    expect([error, did.slice(0, 3)]).toEqual([undefined, ["files home 1 g1", "up vps", "files home 1 g1 web"]]);
  });
});

describe("who gives a site up", () => {
  /** What is asked, and what comes of it, with this typed at a terminal. */
  async function asking(typed: string | undefined, yes?: boolean) {
    const [input, output] = [Object.assign(new PassThrough(), { isTTY: typed !== undefined }), new PassThrough()];
    if (typed !== undefined) input.write(`${typed}\n`);
    const end = await confirmed("home", yes === undefined ? {} : { yes }, input, output).then(
      () => "given up",
      (error: unknown) => (error as Error).message,
    );
    return [end, (output.read() as Buffer | null)?.toString() ?? ""];
  }
  const question = "Type the name of the site that is given up (home): ";

  test("and leaves, by Ctrl-C or Ctrl-D, has given nothing up", async () => {
    const input = Object.assign(new PassThrough(), { isTTY: true });
    input.end();
    await expect(confirmed("home", {}, input, new PassThrough())).rejects.toThrow(/^Nothing was changed\.$/);
  });

  test.each([
    ["its name", "home", "given up"],
    ["its name, with spaces around it", "  home ", "given up"],
    ["the other one's", "vps", "Nothing was changed."],
    ["yes", "yes", "Nothing was changed."],
    ["nothing", "", "Nothing was changed."],
  ])("types %s", async (_, typed, end) => {
    expect(await asking(typed)).toEqual([end, question]);
  });

  test("is asked for nothing with --yes, and refused without it where nobody is there", async () => {
    expect(await asking(undefined, true)).toEqual(["given up", ""]);
    expect(await asking("vps", true)).toEqual(["given up", ""]);
    expect(await asking(undefined)).toEqual(["nobody is there to ask: add --yes", ""]);
  });

  test("is asked before a takeover, and before nothing else", async () => {
    const asked = await run({ lease: atHome, databases: serving, yes: false }, "vps", "lost");
    expect([asked.error, asked.did, asked.journal]).toEqual(["nobody is there to ask: add --yes", [], undefined]);
    expect((await run({ lease: atHome, databases: serving, yes: false }, "vps")).error).toBeUndefined();
  });
});

describe("a token in the journal", () => {
  const files = { activeSite: "vps", epoch: 2 } as const;

  test("is used while the old site is demoted, whatever became of it", async () => {
    for (const databases of [demoted, { vps: { primary: "home" } } as const]) {
      for (const kind of ["planned", "lost", "dead"] as const) {
        const { error, did, asked } = await run(
          { lease: atHome, journal: stopped("promote"), shared: files, databases },
          "vps",
          kind,
        );
        expect([error, did.slice(0, 2), asked]).toEqual([undefined, [`files vps 2 g1 token ${token}`, "up vps"], []]);
      }
    }
  });

  test("is dropped once the old site serves again: it is handed over anew, whatever the files say by now", async () => {
    const { error, did, asked, lines, journal } = await run(
      { lease: atHome, journal: stopped("promote"), shared: files, databases: serving },
      "vps",
    );
    expect([error, did]).toEqual([undefined, whole]);
    expect(asked).toMatchObject([{ kind: "planned", active: ["home", "home"] }]);
    expect(lines).toContain(
      "home writes again, or still: it is handed over from the start, and the token of its demotion dropped",
    );
    expect(journal?.token).toBe("new");
  });

  test("and given up by its word, if that is so", async () => {
    const { error, did, asked } = await run(
      { lease: atHome, journal: stopped("promote"), shared: files, databases: serving },
      "vps",
      "lost",
    );
    expect([error, ...did.slice(0, 2)]).toEqual([undefined, "files home 1 g1", "files vps 2 g1 token lost"]);
    expect(asked).toMatchObject([{ kind: "lost" }]);
  });

  describe("of a demotion after which Valkey's last snapshot is not in the vault", () => {
    const gone = { vps: { primary: "home" } } as const;
    const missing =
      "home's last snapshot of Valkey did not reach the vault: valkey/home/e1/final.rdb is not there, or empty";

    /** A switch that stopped at it, and then the old site died. */
    async function died(): Promise<Omit<Case, "databases"> & { journal: Journal }> {
      const { error, journal } = await run({ lease: atHome, databases: serving, left: "nothing" }, "vps");
      expect(error).toMatch(`demote failed: ${missing}; `);
      expect(journal).toMatchObject({ token: "new", kind: "planned" });
      return { lease: atHome, shared: files, left: "nothing", journal: journal as Journal };
    }

    test.each(["lost", "dead"] as const)(
      "is used when the old site is %s: the jobs are lost, and no post",
      async (kind) => {
        const stopped = await died();
        const { error, did, asked, lines, journal } = await run({ ...stopped, databases: gone }, "vps", kind);
        expect([error, asked, did]).toEqual([undefined, [], whole.slice(whole.indexOf("files vps 2 g1 token new"))]);
        expect(journal).toMatchObject({ kind: "planned", finished: true });
        expect(lines).toContain("going on with the switch to vps that was begun at ");
        expect(lines).toMatch(/: next is promote$/m);
        expect(lines).toContain(
          `lost: jobs that home had queued since its newest dump in the vault, or all of them: ${missing}. No post is, by the token of its demotion`,
        );
      },
    );

    test("is not used before the name is typed", async () => {
      const { error, did } = await run({ ...(await died()), databases: gone, yes: false }, "vps", "lost");
      expect([error, did]).toEqual(["nobody is there to ask: add --yes", []]);
    });

    test("is the way on where the old site dies while it is taken back, and not by the planned switch", async () => {
      const back = await run({ ...(await died()), databases: demoted, breakAt: "steady home" }, "home");
      expect(back.journal).toMatchObject({ token: "new", steps: [{ name: "reopen" }] });
      const given = { lease: atHome, shared: files, left: "nothing", journal: back.journal as Journal } as const;
      const { error, did } = await run({ ...given, databases: gone }, "vps");
      expect(error).toMatch(`${missing}; vps would begin with its newest dump, or with nothing. `);
      expect(did).toEqual([]);
      const on = await run({ ...given, databases: gone }, "vps", "lost");
      expect([on.error, on.did[0]]).toEqual([undefined, "files vps 2 g1 token new"]);
    });

    test("is looked for again by the same command, with the old site's own step", async () => {
      const { left, ...stopped } = await died();
      const { error, did, lines } = await run({ ...stopped, databases: demoted }, "vps");
      expect([left, error, did]).toEqual(["nothing", undefined, whole.slice(whole.indexOf("files vps 2 g1"))]);
      expect(lines).not.toContain("lost: ");
    });

    test("is dropped once the old site serves again", async () => {
      const { did, asked } = await run({ ...(await died()), databases: serving }, "vps", "lost");
      expect(did.slice(0, 2)).toEqual(["files home 1 g1", "files vps 2 g1 token lost"]);
      expect(asked).toMatchObject([{ kind: "lost" }]);
    });
  });
});
