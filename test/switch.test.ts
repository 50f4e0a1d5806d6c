import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import type { V1CronJob } from "@kubernetes/client-node";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { bytesOf, leftAt, segmentsBehind } from "../lib/archive";
import { clockFault } from "../lib/switch/clocks";
import { demotionOf, untilSteady } from "../lib/switch/demotion";
import { leftToOwner } from "../lib/switch/dns";
import { configWith, tokenInFile, writeFiles } from "../lib/switch/files";
import { copyMedia, lastCopy } from "../lib/switch/media";
import { JournalStore, journalKey, parseJournal } from "../lib/switch/journal";
import type { Journal, Kind, StepName } from "../lib/switch/journal";
import { generationFor, notThatKind, oldSite, preflight, stateOf } from "../lib/switch/preflight";
import { afterFailure, runSwitch } from "../lib/switch/run";
import type { World } from "../lib/switch/run";
import {
  decidedAnew,
  goneOn,
  isPast,
  onceTaken,
  resumption,
  stepAhead,
  takenBack,
  tokenInUse,
  writesAgain,
} from "../lib/switch/resume";
import { described, filesAt, nextStep, standingOf, stateUseOf, stepsOf } from "../lib/switch/steps";
import { differences, mediaDifference, ranBy, sameImage, takeoverDifferences } from "../lib/switch/versions";
import { realWorld, whyUpFailed } from "../lib/switch/world";
import { firstLease, formatLease, leaseKey } from "../lib/lease/lease";
import { parseSettings, SettingsError } from "../settings";
import { images } from "../versions";
import { chartsInFolders, configurationOf } from "./support/configuration";
import { fakeCluster, kubeconfigFor } from "./support/fake-cluster";
import type { Lists } from "./support/fake-cluster";
import type { Site } from "../lib/site-secrets";
import { fakeStore } from "./support/fake-store";
import type { FakeStore } from "./support/fake-store";
import { temporaryFolder } from "./support/folders";

const at = "2026-11-23T08:00:00.000Z";
const journalOf = (kind: Kind, steps: StepName[], more: Partial<Journal> = {}): Journal => ({
  version: 1,
  target: "vps",
  from: "home",
  kind,
  epoch: 2,
  generation: 1,
  steps: steps.map((name) => ({ name })),
  startedAt: at,
  updatedAt: at,
  finished: false,
  ...more,
});
const planned = () => journalOf("planned", stepsOf("planned", "follows"));

describe("the steps of a switch", () => {
  test("a standby that follows is handed the server; one that does not follow begins anew before anything stops", () => {
    const handing = ["stop-web", "drain", "stop-workers", "demote", "promote", "clear-token", "verify"];
    expect(stepsOf("planned", "follows")).toEqual(handing);
    expect(stepsOf("planned", "parted")).toEqual(["follow", ...handing]);
    expect(stepsOf("planned", "missing")).toEqual(["follow", ...handing]);
  });

  test("a lost site's successor takes over once its database has all that there is, from the vault if it has none", () => {
    const taking = ["promote", "clear-token", "verify"];
    expect(stepsOf("dead", "follows")).toEqual(["catch-up", ...taking]);
    expect(stepsOf("lost", "follows")).toEqual(["catch-up", ...taking]);
    expect(stepsOf("lost", "missing")).toEqual(taking);
    expect(stepsOf("lost", "parted")).toEqual(["follow", ...taking]);
  });

  test("the files name the other site from the demotion on, and the token only while it is needed", () => {
    const journal = { ...planned(), token: "abc" };
    const said = stepsOf("planned", "follows").map((step) => {
      const { shared, maintenance, promotionToken } = filesAt(step, journal);
      return [step, shared.activeSite, shared.epoch, maintenance, promotionToken];
    });
    expect(said).toEqual([
      ["stop-web", "home", 1, "web", undefined],
      ["drain", "home", 1, "web", undefined],
      ["stop-workers", "home", 1, "all", undefined],
      ["demote", "vps", 2, undefined, undefined],
      ["promote", "vps", 2, undefined, "abc"],
      ["clear-token", "vps", 2, undefined, undefined],
      ["verify", "vps", 2, undefined, undefined],
    ]);
  });

  test("while a lost site's successor catches up, the files name the lost one", () => {
    expect(filesAt("catch-up", journalOf("lost", ["catch-up", "promote"]))).toEqual({
      shared: { activeSite: "home", epoch: 1, generation: 1 },
      maintenance: undefined,
      promotionToken: undefined,
    });
  });

  test("the word takes the token's place when the old site is gone", () => {
    expect(filesAt("promote", journalOf("dead", ["promote"])).promotionToken).toBe("dead");
    // Taken by hand, and over: without a token nobody takes the lease.
    expect(filesAt("promote", planned()).promotionToken).toBeUndefined();
  });

  test("a journal is open as long as the lease stands where the switch left it", () => {
    const lease = (activeSite: "home" | "vps", epoch: number) => ({ activeSite, epoch });
    expect(standingOf(undefined, lease("home", 1))).toBe("none");
    expect(standingOf({ ...planned(), finished: true }, lease("vps", 2))).toBe("none");
    expect(standingOf(planned(), lease("home", 1))).toBe("open");
    expect(standingOf(planned(), lease("vps", 2))).toBe("open");
    expect(standingOf(planned(), lease("home", 3))).toBe("overtaken");
    expect(standingOf(planned(), lease("vps", 1))).toBe("overtaken");
  });

  const before = { activeSite: "home", epoch: 1 } as const;
  const after = { activeSite: "vps", epoch: 2 } as const;
  const begun = (journal: Journal, ...names: StepName[]): Journal => ({
    ...journal,
    steps: journal.steps.map((s) => (names.includes(s.name) ? { ...s, begun: at } : s)),
  });
  const toVps = (kind: Kind) => ({ target: "vps", kind }) as const;
  const toHome = { target: "home", kind: "planned" } as const;

  test("what is printed of it tells the generation of a database that begins", () => {
    const line = (kind: Kind, database: "follows" | "missing", step: StepName) =>
      described[step](
        journalOf(kind, stepsOf(kind, database), {
          generation: 3,
          ...(database === "missing" ? { missing: true } : {}),
        }),
      );
    expect(line("dead", "missing", "promote")).toBe(
      "pulumi up on vps: takes the lease, its database begins from the vault (generation 3), Mastodon up, verified, DNS",
    );
    expect(line("lost", "missing", "promote")).toBe(
      "pulumi up on vps: takes the lease, waits the old site's grace out, its database begins from the vault (generation 3), Mastodon up, verified, DNS",
    );
    const promoted = "pulumi up on vps: takes the lease, database promoted, Mastodon up, verified, DNS";
    expect(line("dead", "follows", "promote")).toBe(promoted);
    expect(line("planned", "missing", "promote")).toBe(promoted);
    expect(line("planned", "missing", "follow")).toBe(
      "pulumi up on vps: its database begins anew (generation 3), follows and catches up",
    );
  });

  test("a switch is taken back until the lease is taken, and its token kept until then; from then on it is history", () => {
    for (const journal of [planned(), begun(planned(), "stop-web", "demote"), { ...planned(), token: "abc" }])
      expect(resumption(journal, before, toHome)).toBe("reopen");
    const back = takenBack({ ...planned(), token: "abc" }, { generation: 3 });
    expect(back).toEqual({ ...planned(), token: "abc", generation: 3, steps: [{ name: "reopen" }] });
    // The old site may be gone before it is opened again: it goes on with the token, as long as that is not stale.
    expect(resumption(back, before, toVps("planned"))).toBe("go on");
    expect(resumption(back, before, toVps("lost"))).toBe("go on");
    expect(resumption(back, before, toVps("planned"), true)).toBe("decide anew");
    const taking = ["promote", "clear-token", "verify"].map((name) => ({ name }));
    for (const kind of ["planned", "lost", "dead"] as const) {
      expect(goneOn(back, kind)).toEqual({ ...back, steps: taking });
      expect(goneOn(planned(), kind)).toEqual(planned());
    }
    for (const kind of ["planned", "lost", "dead"] as const)
      expect(resumption({ ...planned(), token: "abc" }, after, { target: "home", kind })).toBe("history");
  });

  test("a site that is opened again with a token of its own is rid of it afterwards, and not told it a second time", async () => {
    const back = takenBack({ ...planned(), kept: "abc" }, { generation: 1 });
    expect(back).toMatchObject({ kept: "abc", steps: [{ name: "reopen" }, { name: "clear-kept" }] });
    expect(back.steps.map(({ name }) => filesAt(name, back).kept)).toEqual(["abc", undefined]);
    expect(filesAt("clear-kept", back).shared).toEqual(filesAt("reopen", back).shared);
    const { world, calls, lines } = fakeWorld();
    expect((await runSwitch(back, world)).finished).toBe(true);
    expect(calls).toEqual(["files home 1 g1", "up home", "files home 1 g1", "up home"]);
    expect(lines.filter((line) => line.startsWith("done"))).toHaveLength(2);

    const stopped = { ...back, steps: [{ name: "reopen" as const, done: at }, { name: "clear-kept" as const }] };
    // Nor is one that was demoted since: it wrote before that.
    for (const open of [stopped, begun({ ...planned(), kept: "abc" }, "stop-web", "demote")]) {
      expect(takenBack(open, { generation: 1 })).toEqual({ ...planned(), steps: [{ name: "reopen" }] });
      expect(decidedAnew(open, "planned", { database: "follows", generation: 1 })).toEqual(planned());
    }
    const waiting = begun({ ...planned(), kept: "abc" }, "stop-web", "drain");
    expect(takenBack(waiting, { generation: 1 }).kept).toBe("abc");
    expect(decidedAnew(waiting, "lost", { database: "follows", generation: 1 }).kept).toBe("abc");
  });

  const ifGone = "\nIf home is gone, or this cannot be mended: npx homestead switch vps --lost";

  test.each(["reopen", "clear-kept"] as const)("%s that fails does not name itself as the way back", (step) => {
    expect(afterFailure(step, planned())).toBe(`Nothing is lost; the same command goes on with this step.${ifGone}`);
    expect(afterFailure(step, journalOf("lost", []))).toBe(`The same command goes on with this step.${ifGone}`);
  });

  test("a step that fails on the old site says how to go on without it, and no other one does", () => {
    const again = "Nothing is lost; the same command goes on with this step. Back: npx homestead switch home";
    const ways = stepsOf("planned", "missing").map((step) => [step, afterFailure(step, planned())]);
    expect(ways).toEqual([
      ["follow", again],
      ["stop-web", `${again}${ifGone}`],
      ["drain", `${again}${ifGone}`],
      ["stop-workers", `${again}${ifGone}`],
      ["demote", `${again}${ifGone}`],
      ["promote", again],
      ["clear-token", again],
      ["verify", again],
    ]);
  });

  test("the token of a site that is opened again is dropped when it can be told to write, and before it is", async () => {
    const back = takenBack({ ...planned(), token: "abc" }, { generation: 1 });
    const fails = fakeWorld({ breakAt: "steady home" });
    await expect(runSwitch(back, fails.world)).rejects.toThrow("reopen failed: it is fenced");
    expect([fails.saved.at(-1)?.token, fails.calls]).toEqual(["abc", ["files home 1 g1"]]);

    const dies = fakeWorld({ breakAt: "up home" });
    await expect(runSwitch(back, dies.world)).rejects.toThrow("reopen failed: the disk is full");
    expect(dies.saved.map(({ token }) => token)).toEqual(["abc", undefined]);

    const { world, saved } = fakeWorld();
    expect(await runSwitch(back, world)).toMatchObject({ finished: true, token: undefined });
    expect(saved.map(({ token }) => token)).toEqual(["abc", undefined, undefined, undefined]);
  });

  test("what was done before the demotion may be undone by now: everything is looked at anew", () => {
    expect(resumption(planned(), before, toVps("planned"))).toBe("decide anew");
    expect(resumption(begun(planned(), "stop-web", "stop-workers"), before, toVps("planned"))).toBe("decide anew");
    expect(resumption(begun(planned(), "demote"), before, toVps("planned"))).toBe("go on");
    expect(resumption(begun(planned(), "demote"), before, toVps("planned"), true)).toBe("decide anew");
  });

  test("a planned switch whose old site is lost on the way is decided anew, but for one that has its token", () => {
    expect(resumption(planned(), before, toVps("lost"))).toBe("decide anew");
    expect(resumption({ ...planned(), token: "abc" }, before, toVps("dead"))).toBe("go on");
    for (const kind of ["planned", "lost", "dead"] as const)
      expect(resumption({ ...planned(), token: "abc" }, before, toVps(kind), true)).toBe("decide anew");
  });

  test("a demotion whose token is known is not repeated on a site that is gone", () => {
    const stopped = begun(planned(), "stop-web", "drain", "stop-workers", "demote");
    const done = stopped.steps.map((one, i) => (i < 3 ? { ...one, done: at } : one));
    const held = { ...stopped, steps: done, token: "abc" };
    expect(resumption(held, before, toVps("lost"))).toBe("go on");
    expect(goneOn(held, "planned")).toEqual(held);
    for (const kind of ["lost", "dead"] as const)
      expect(goneOn(held, kind)).toEqual({
        ...held,
        steps: ["promote", "clear-token", "verify"].map((name) => ({ name })),
      });
    const promoted = { ...held, steps: held.steps.map((one, i) => (i < 5 ? { ...one, done: at } : one)) };
    expect(goneOn(promoted, "lost")).toEqual(promoted);
  });

  test("a word about the old site is asked for again until the lease is taken by it: the site may be there by now", () => {
    const dead = begun(journalOf("dead", ["promote", "clear-token", "verify"]), "promote");
    expect(resumption(dead, before, toVps("planned"))).toEqual({
      refused:
        "a switch to vps (epoch 2) stopped before its step promote, for which home was said to be dead: say again what is so (npx homestead switch vps --lost, or --dead), or, if home is there after all, take it back: npx homestead switch home",
    });
    expect(resumption(dead, before, toVps("lost"))).toBe("decide anew");
    expect(resumption(dead, before, toVps("dead"))).toBe("decide anew");
    expect(resumption(dead, before, toHome)).toBe("reopen");
  });

  test("once the lease is taken, the switch goes on with whatever word, or is history", () => {
    const dead = begun(journalOf("dead", ["promote", "clear-token", "verify"]), "promote");
    for (const kind of ["planned", "lost", "dead"] as const) expect(resumption(dead, after, toVps(kind))).toBe("go on");
    expect(resumption(dead, after, toHome)).toBe("history");
  });

  test("once the lease is taken, nothing of what comes before is left", () => {
    const stopped = { ...begun(planned(), "stop-web", "drain"), missing: true };
    expect(stepAhead(stopped, { ...before, takeover: "first" })).toBe("stop-web");
    expect(stepAhead(stopped, undefined)).toBe("stop-web");
    expect(stepAhead(stopped, { ...after, takeover: "planned" })).toBe("promote");
    const left = onceTaken(stopped, { takeover: "planned" }, "abc");
    expect(left).toEqual({ ...stopped, token: "abc", steps: stepsOf("lost", "missing").map((name) => ({ name })) });
    expect(onceTaken({ ...stopped, token: "abc" }, { takeover: "dead" }, undefined)).toEqual({
      ...left,
      kind: "dead",
      token: undefined,
    });
    const done = journalOf("planned", ["follow", "promote", "clear-token", "verify"], { missing: true });
    done.steps = done.steps.map((step, i) => (i < 2 ? { ...step, done: at } : step));
    expect(stepAhead(done, { ...after, takeover: "planned" })).toBe("clear-token");
    expect(onceTaken(done, { takeover: "planned" }, "abc").missing).toBeUndefined();
  });

  test("a switch that is decided anew has each step before it, and no token; what begins anew is waited for", () => {
    const found = { database: "follows", generation: 1 } as const;
    const demoted = { ...begun(planned(), "stop-web", "demote"), token: "abc", generation: 2 };
    expect(decidedAnew(demoted, "planned", found)).toEqual({ ...planned(), generation: 2 });
    expect(decidedAnew(demoted, "lost", found).steps.map(({ name }) => name)).toEqual(stepsOf("lost", "follows"));
    const missing = begun(journalOf("planned", stepsOf("planned", "missing"), { missing: true }), "follow");
    expect(decidedAnew(missing, "planned", found)).toMatchObject({
      missing: true,
      steps: stepsOf("planned", "missing").map((name) => ({ name })),
    });
    missing.steps = missing.steps.map((step) => (step.name === "follow" ? { ...step, done: at } : step));
    expect(decidedAnew(missing, "planned", found)).toEqual(planned());
  });

  test("a site that has the lease is brought up with the token that its database was told", () => {
    const database = (primary: string, promotionToken?: string) => ({
      metadata: { name: "x" },
      spec: { replica: { primary, promotionToken } },
    });
    const vps = (promotionToken?: string) => ({ site: "vps", promotionToken }) as const;
    expect(tokenInUse(vps("file"), database("vps", "told"), "known")).toEqual({ told: true, token: "told" });
    expect(tokenInUse(vps("file"), database("vps"), "known")).toEqual({ told: true, token: undefined });
    expect(tokenInUse(vps("file"), database("home"), "known")).toEqual({ told: false, token: "file" });
    expect(tokenInUse(vps("lost"), undefined, "known")).toEqual({ told: false, token: "known" });
    expect(tokenInUse(vps(), undefined, undefined)).toEqual({ told: false, token: undefined });
  });

  test("a token is past once its site has archived on a later timeline", () => {
    const made = Buffer.from('{"latestCheckpointTimelineID":"2","databaseSystemIdentifier":"7"}').toString("base64");
    expect(isPast(made, "000000020000000000000009.gz")).toBe(false);
    expect(isPast(made, "000000030000000000000009.gz")).toBe(true);
    expect(isPast(made, undefined)).toBe(false);
    expect(isPast(undefined, "000000030000000000000009.gz")).toBe(false);
  });

  test("a token is not taken for good where the vault does not say what was written since", async () => {
    const made = Buffer.from('{"latestCheckpointTimelineID":"2","databaseSystemIdentifier":"7"}').toString("base64");
    const vault = { endpoint: "http://127.0.0.1:9", bucket: "vault", region: "us-east-1" };
    const there = {
      settings: { vault, generations: {} },
      secrets: { vaultAccessKeyId: "id", vaultSecretAccessKey: "secret" },
    } as unknown as Site;
    const asked = (token?: string) =>
      writesAgain({ from: "home", ...(token === undefined ? {} : { token }) }, undefined, there);
    await expect(asked(made)).rejects.toThrow(
      /^the vault does not say whether home has written since it was demoted \(/,
    );
    expect(await asked()).toBe(false);
  });
});

describe("a database that was to give up writing", () => {
  const database = (primary: string | undefined, fence?: string, status: object = {}) => ({
    metadata: {
      name: "postgres-g1",
      ...(fence === undefined ? {} : { annotations: { "cnpg.io/fencedInstances": fence } }),
    },
    spec: { replica: { primary }, plugins: [{ parameters: { serverName: "home-g1" } }] },
    status,
  });

  test.each([
    [database("home"), { is: "steady" }],
    [database(undefined), { is: "steady" }],
    [undefined, { is: "steady" }],
    [database("home", "[]"), { is: "steady" }],
    [database("home", '["*"]'), { is: "fenced", name: "postgres-g1" }],
    [database("vps"), { is: "turning", begun: false }],
    [database("vps", '["*"]'), { is: "turning", begun: true }],
    [database("vps", undefined, { switchReplicaClusterStatus: { inProgress: true } }), { is: "turning", begun: true }],
    [database("vps", '["*"]', { demotionToken: "abc" }), { is: "turning", begun: true }],
    [database("vps", undefined, { demotionToken: "abc", switchReplicaClusterStatus: {} }), { is: "steady" }],
  ])("%j: %j", (found, is) => expect(demotionOf(found, "home")).toEqual(is));

  /** `silent`: the cluster does not say which databases it has. */
  async function until(answers: (object | "silent")[], limits = { pause: 0.01, beginning: 60, patience: 600 }) {
    let asked = 0;
    const others = {
      "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters": () => {
        const answer = answers[Math.min(asked++, answers.length - 1)];
        return answer === "silent" ? { items: "no list" } : { items: [answer] };
      },
    };
    const { kubeconfig, changes } = await fakeCluster({ others });
    const settings = parseSettings(configurationOf("home", { cluster: { context: "trial", kubeconfig } }));
    const lines: string[] = [];
    await untilSteady(settings, (line) => lines.push(line), limits);
    expect(changes).toEqual([]);
    return { asked, lines };
  }

  test("is waited for: CloudNativePG lets nobody turn back in the middle", async () => {
    const turning = database("vps", '["*"]');
    expect(await until([turning, turning, database("vps", undefined, { demotionToken: "abc" })])).toEqual({
      asked: 3,
      lines: ["      home's database is giving up writing; this cannot be turned back before it is over"],
    });
  });

  test("is asked again while its cluster does not answer: nobody knows then whether it is in the middle", async () => {
    const turning = database("vps", '["*"]');
    expect(await until(["silent", "silent", turning, "silent", database("home")])).toEqual({
      asked: 5,
      lines: [
        "      home's cluster does not say what its database does: it is asked again",
        "      home's database is giving up writing; this cannot be turned back before it is over",
      ],
    });
    await expect(until(["silent"], { pause: 0.01, beginning: 0, patience: 0 })).rejects.toThrow(
      /^home's cluster does not say what its database does, for more than 0 min; it cannot be told to write before that: kubectl --kubeconfig \S+ --context trial -n homestead get clusters\.postgresql\.cnpg\.io$/,
    );
  });

  test("and is still fenced: said with the command that lifts it, and nothing is lifted", async () => {
    await expect(until([database("home", '["*"]')])).rejects.toThrow(
      /^home's database 'postgres-g1' is fenced, and does not run; .* If nobody wants it so: kubectl --kubeconfig \S+ --context trial -n homestead annotate clusters\.postgresql\.cnpg\.io postgres-g1 cnpg\.io\/fencedInstances-$/,
    );
  });
});

describe("the files", () => {
  const project = `# Kept.
name: homestead
config:
  homestead:activeSite:
    description: The one. # kept too
    value: home
  homestead:epoch:
    value: 1
  homestead:generations:
    value:
      home: 1
      vps: 1
`;
  function folderWith(files: Record<string, string>): string {
    const folder = temporaryFolder();
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text);
    return folder;
  }
  const read = (folder: string, name: string) => fs.readFileSync(path.join(folder, name), "utf8");
  const stack = "encryptionsalt: v1:x\nconfig:\n  homestead:cluster:\n    context: a # mine\n";

  test("three lines change, and comments stay", () => {
    const folder = folderWith({ "Pulumi.yaml": project, "Pulumi.home.yaml": stack, "Pulumi.vps.yaml": stack });
    const changed = writeFiles(
      folder,
      { target: "vps", from: "home" },
      { shared: { activeSite: "vps", epoch: 2, generation: 1 }, maintenance: undefined, promotionToken: "abc=" },
    );
    expect(changed).toEqual(["Pulumi.yaml", "Pulumi.vps.yaml"]);
    expect(read(folder, "Pulumi.yaml")).toBe(
      project.replace("value: home", "value: vps").replace("value: 1", "value: 2"),
    );
    expect(read(folder, "Pulumi.vps.yaml")).toBe(`${stack}  homestead:promotionToken: abc=\n`);
    expect(read(folder, "Pulumi.home.yaml")).toBe(stack);
  });

  test("the token that the old site may still wait for stays in its file, as long as it is the active one", () => {
    const files = { "Pulumi.yaml": project, "Pulumi.home.yaml": `${stack}  homestead:promotionToken: abc=\n` };
    const folder = folderWith(files);
    const journal = { ...planned(), kept: "abc=" };
    for (const step of ["follow", "stop-web", "drain", "stop-workers", "reopen"] as const) {
      writeFiles(folder, journal, filesAt(step, journal));
      expect(read(folder, "Pulumi.home.yaml")).toContain("homestead:promotionToken: abc=");
    }
    writeFiles(folder, journal, filesAt("demote", journal));
    expect(read(folder, "Pulumi.home.yaml")).toBe(stack);
  });

  test("a token that is in a file is found there without the stack; a word is none, nor is a secret", () => {
    const holds = (value: string) => tokenInFile(folderWith({ "Pulumi.vps.yaml": `${stack}${value}` }), "vps");
    expect(holds("  homestead:promotionToken: abc=\n")).toBe("abc=");
    expect(holds("  homestead:promotionToken: lost\n")).toBeUndefined();
    expect(holds("  homestead:promotionToken:\n    secure: v1:x\n")).toBeUndefined();
    expect(holds("")).toBeUndefined();
    expect(tokenInFile(folderWith({}), "vps")).toBeUndefined();
  });

  test("the same again changes nothing, and what was transient is gone afterwards", () => {
    const folder = folderWith({ "Pulumi.yaml": project, "Pulumi.home.yaml": stack, "Pulumi.vps.yaml": stack });
    const sites = { target: "vps", from: "home" } as const;
    const shared = { activeSite: "home", epoch: 1, generation: 1 } as const;
    expect(writeFiles(folder, sites, { shared, maintenance: "web", promotionToken: undefined })).toEqual([
      "Pulumi.home.yaml",
    ]);
    expect(writeFiles(folder, sites, { shared, maintenance: "web", promotionToken: undefined })).toEqual([]);
    writeFiles(folder, sites, { shared, maintenance: undefined, promotionToken: undefined });
    expect(read(folder, "Pulumi.home.yaml")).toBe(stack);
    expect(read(folder, "Pulumi.yaml")).toBe(project);
  });
});

/** A world that notes what is done to it, and breaks where it is told to. */
function fakeWorld(
  options: {
    breakAt?: string;
    token?: string;
    queued?: number[];
    faults?: string[];
    behind?: number[];
    /** Age of the old site's last snapshot. */
    left?: number | "missing";
  } = {},
) {
  const calls: string[] = [];
  const saved: Journal[] = [];
  const lines: string[] = [];
  let now = Date.parse(at);
  const queued = [...(options.queued ?? [0])];
  const behind = [...(options.behind ?? [0])];
  const world: World = {
    files: ({ shared, maintenance, promotionToken }) => {
      calls.push(
        `files ${shared.activeSite} ${shared.epoch} g${shared.generation}${maintenance ? ` ${maintenance}` : ""}${promotionToken ? ` token ${promotionToken}` : ""}`,
      );
    },
    up: (site, state) => {
      calls.push(`up ${site}${state === "refreshed" ? " refreshed" : ""}`);
      if (options.breakAt === calls.at(-1)) return Promise.reject(new Error("the disk is full"));
      return Promise.resolve({ demotionToken: options.token ?? "abc" });
    },
    // Told of where it says no alone.
    steady: (site) =>
      options.breakAt === `steady ${site}` ? Promise.reject(new Error("it is fenced")) : Promise.resolve(),
    lagging: (site) => {
      calls.push(`lagging ${site}`);
      const segments = behind.length > 1 ? behind.shift() : behind[0];
      return Promise.resolve(segments ? `${site}'s database is ${segments} segments behind home-g1` : undefined);
    },
    copyMedia: (site) => {
      calls.push(`copy ${site}`);
      return options.breakAt === calls.at(-1) ? Promise.reject(new Error("the share is gone")) : Promise.resolve();
    },
    queued: () => Promise.resolve(queued.length > 1 ? (queued.shift() ?? 0) : (queued[0] ?? 0)),
    lastSnapshot: ({ site, epoch }) => {
      calls.push(`snapshot of ${site} e${epoch}`);
      if (options.breakAt === calls.at(-1)) return Promise.reject(new Error("the vault does not answer"));
      return Promise.resolve(options.left === "missing" ? undefined : (options.left ?? 0));
    },
    verify: (site) => {
      calls.push(`verify ${site}`);
      return Promise.resolve(options.faults ?? []);
    },
    save: (journal) => Promise.resolve(void saved.push(structuredClone(journal))),
    say: (line) => void lines.push(line),
    now: () => new Date((now += 1000)),
    pause: (seconds) => Promise.resolve(void (now += seconds * 1000)),
  };
  return { world, calls, saved, lines };
}

describe("a configuration with what the files would say", () => {
  const shown = (values: Record<string, string>) =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [`homestead:${key}`, { secret: false, value }]));

  test("is the one that the files would give, and leaves the rest alone", () => {
    const demoting = { apex: "ramble.moe", activeSite: "vps", epoch: "2", generations: '{"home":4,"vps":1}' };
    const before = filesAt("reopen", { ...planned(), generation: 3 });
    const expected = { apex: "ramble.moe", activeSite: "home", epoch: "1", generations: '{"home":4,"vps":3}' };
    expect(configWith(shown(demoting), "vps", before)).toEqual(shown(expected));
    const taking = shown({ ...demoting, maintenance: "all", promotionToken: "dead" });
    expect(configWith(taking, "vps", before)).toEqual(shown(expected));
    const promoting = filesAt("promote", { ...planned(), token: "abc" });
    expect(configWith(shown(expected), "vps", promoting)).toEqual(
      shown({ ...demoting, generations: '{"home":4,"vps":1}', promotionToken: "abc" }),
    );
  });
});

describe("a run", () => {
  test("takes the steps in order, each with its files first, and says how long each took", async () => {
    const { world, calls, lines } = fakeWorld();
    const ended = await runSwitch(planned(), world);
    expect(calls).toEqual([
      "files home 1 g1 web",
      "up home",
      "files home 1 g1 web",
      "files home 1 g1 all",
      "up home",
      "copy home",
      "files vps 2 g1",
      "up home",
      "snapshot of home e1",
      "files vps 2 g1 token abc",
      "up vps",
      "files vps 2 g1",
      "up vps",
      "files vps 2 g1",
      "verify vps",
    ]);
    expect(ended.finished).toBe(true);
    expect(lines.filter((line) => line.startsWith("done"))).toHaveLength(7);
    expect(lines.find((line) => line.startsWith("done"))).toMatch(/^done {2}stop-web \(\d+ s\)$/);
  });

  test("that is killed after any step, or in the middle of one, goes on from what the journal says", async () => {
    const whole = fakeWorld();
    await runSwitch(planned(), whole.world);
    for (const state of whole.saved) {
      const again = fakeWorld();
      const ended = await runSwitch(state, again.world);
      expect(ended.finished).toBe(true);
      expect(nextStep(ended)).toBeUndefined();
      expect(ended.token).toBe("abc");
      // Whatever was done before is not done again.
      const left = state.steps.filter(({ done }) => done === undefined).length;
      expect(again.lines.filter((line) => line.startsWith("done"))).toHaveLength(left);
    }
  });

  test("a step that fails is not done, says why, and is the next one", async () => {
    const { world, saved } = fakeWorld({ breakAt: "up vps" });
    await expect(runSwitch(planned(), world)).rejects.toThrow(
      "promote failed: the disk is full\nNothing is lost; the same command goes on with this step. Back: npx homestead switch home",
    );
    expect(nextStep(saved.at(-1) ?? planned())).toBe("promote");
    expect(saved.at(-1)?.token).toBe("abc");
  });

  test.each(["lost", "dead"] as const)(
    "one of a %s site's successor does not say that nothing is lost",
    async (kind) => {
      const { world } = fakeWorld({ breakAt: "up vps" });
      await expect(runSwitch(journalOf(kind, stepsOf(kind, "follows")), world)).rejects.toThrow(
        /^promote failed: the disk is full\nThe same command goes on with this step\.$/,
      );
    },
  );

  test.each(["stop-web", "reopen"] as const)("%s waits for a demotion that was begun before", async (step) => {
    const { world, calls } = fakeWorld({ breakAt: "steady home" });
    await expect(runSwitch(journalOf("planned", [step]), world)).rejects.toThrow(`${step} failed: it is fenced`);
    expect(calls).not.toContain("up home");
  });

  test("a demotion without a token is a failure: the target would be promoted with a part of the data", async () => {
    const { world } = fakeWorld({ token: "" });
    await expect(runSwitch(planned(), world)).rejects.toThrow("stack home has no output demotionToken");
  });

  const ways =
    "; vps would begin with its newest dump, or with nothing. What home has saved is on its disk: let it serve again (npx homestead switch home), mend what docs/runbooks/alerts.md says (SnapshotOld), and switch anew.\nEvery post is handed over, by the token that the journal keeps, and the same command looks for the snapshot again. Without the jobs that are missing, or if home is gone: npx homestead switch vps --lost";

  test.each([
    ["is missing", "missing", "is not there, or empty"],
    ["is of an earlier end of it", 3600, "is 60 min old, of before it was stopped"],
  ] as const)("nobody takes over while Valkey's last snapshot %s", async (_what, left, says) => {
    const { world, calls, saved } = fakeWorld({ left });
    const error = await runSwitch(planned(), world).catch((caught: unknown) => (caught as Error).message);
    expect(error).toBe(
      `demote failed: home's last snapshot of Valkey did not reach the vault: valkey/home/e1/final.rdb ${says}${ways}`,
    );
    expect(calls).not.toContain("up vps");
    expect(nextStep(saved.at(-1) ?? planned())).toBe("demote");
  });

  test.each([
    ["is missing", { left: "missing" }],
    ["cannot be looked for", { breakAt: "snapshot of home e1" }],
  ] as const)("the token is kept where that %s: the old site may be gone by the next try", async (_what, given) => {
    const { world, saved } = fakeWorld(given);
    await expect(runSwitch(planned(), world)).rejects.toThrow("demote failed: ");
    expect(saved.at(-1)).toMatchObject({ token: "abc", kind: "planned" });

    const lost = fakeWorld();
    const ended = await runSwitch(goneOn(saved.at(-1) ?? planned(), "lost"), lost.world);
    expect([ended.finished, ended.kind, lost.calls.slice(0, 2)]).toEqual([
      true,
      "planned",
      ["files vps 2 g1 token abc", "up vps"],
    ]);
    expect(lost.calls).not.toContain("up home");
  });

  test("one that was left by a run that was interrupted counts: the demotion began with that one", async () => {
    const begun = new Date(Date.parse(at) - 3600_000).toISOString();
    const journal = journalOf("planned", ["demote"]);
    const { world } = fakeWorld({ left: 3500 });
    const ended = await runSwitch({ ...journal, steps: [{ name: "demote", begun }] }, world);
    expect(ended.finished).toBe(true);
  });

  test("queues are waited for, a minute at most, and what is left is said", async () => {
    const drained = fakeWorld({ queued: [5, 2, 0] });
    await runSwitch(planned(), drained.world);
    expect(drained.lines.join("\n")).not.toContain("jobs are left");
    const stuck = fakeWorld({ queued: [7] });
    await runSwitch(planned(), stuck.world);
    expect(stuck.lines).toContain("      7 jobs are left; they go along");
  });

  test("nothing is demoted before the youngest media are in the vault", async () => {
    const { world, calls } = fakeWorld({ breakAt: "copy home" });
    await expect(runSwitch(planned(), world)).rejects.toThrow("stop-workers failed: the share is gone");
    expect(calls).not.toContain("files vps 2 g1");
  });

  test("faults seen through public DNS fail the last step", async () => {
    const { world } = fakeWorld({ faults: ["verification failed: apex: expected a, got b"] });
    await expect(runSwitch(planned(), world)).rejects.toThrow("verify failed: verification failed: apex");
  });

  test("a site that was lost begins its next generation before it is handed the server", async () => {
    const { world, calls } = fakeWorld();
    await runSwitch(journalOf("planned", stepsOf("planned", "parted"), { generation: 2 }), world);
    expect(calls.slice(0, 3)).toEqual(["files home 1 g2", "up vps", "lagging vps"]);
  });

  test("nothing stops before a database that began anew has caught up; how far it is, is said once a minute", async () => {
    const { world, calls, lines } = fakeWorld({ behind: [...Array<number>(15).fill(900), 41, 0] });
    await runSwitch(journalOf("planned", stepsOf("planned", "missing")), world);
    expect(calls.indexOf("up home")).toBeGreaterThan(calls.lastIndexOf("lagging vps"));
    expect(calls.filter((call) => call === "lagging vps")).toHaveLength(17);
    const said = lines.filter((line) => line.includes("segments behind"));
    expect(said[0]).toBe("      vps's database is 900 segments behind home-g1");
    expect(said.length).toBeGreaterThan(1);
    expect(said.length).toBeLessThan(6);
  });

  test("one that never catches up ends the step, and nothing was changed on the active site", async () => {
    const { world, calls } = fakeWorld({ behind: [900] });
    await expect(runSwitch(journalOf("planned", stepsOf("planned", "parted")), world)).rejects.toThrow(
      "follow failed: after 3 hours still: vps's database is 900 segments behind home-g1; nothing was changed on home\nNothing is lost; the same command goes on with this step. Back: npx homestead switch home",
    );
    expect(calls).not.toContain("up home");
  });

  const lost = () => journalOf("lost", stepsOf("lost", "follows"));

  test("a lost site's successor is promoted when it has caught up, and waited for as long as it gets on", async () => {
    const { world, calls } = fakeWorld({ behind: [...Array.from({ length: 9000 }, (_, i) => 9000 - i), 0] });
    await runSwitch(lost(), world);
    expect(calls.indexOf("up vps")).toBeGreaterThan(calls.lastIndexOf("lagging vps"));
    expect(calls.filter((call) => call === "lagging vps")).toHaveLength(9001);
  });

  test("one that gets no further is not promoted: what it has not replayed would be lost", async () => {
    const { world, calls } = fakeWorld({ behind: [7, 6, 7, 6] });
    await expect(runSwitch(lost(), world)).rejects.toThrow(
      "catch-up failed: for 10 minutes now: vps's database is 6 segments behind home-g1; npx homestead status vps, and docs/runbooks/alerts.md (ReplicaLag) for why it gets no further; to take over with what it has, and lose the rest: docs/runbooks/switch-by-hand.md\nThe same command goes on with this step.",
    );
    expect(calls).not.toContain("up vps");
  });
});

describe("a run that is interrupted", () => {
  const again = "Nothing is lost; the same command goes on with this step. Back: npx homestead switch home";

  /** A run that is told to stop in the middle of something, which never comes to its end by itself if `hangs`. */
  async function stoppedIn(journal: Journal, what: keyof World, hangs: "hangs" | "ends" = "hangs") {
    const controller = new AbortController();
    const { world, calls, saved } = fakeWorld({ queued: [7], behind: [900] });
    const { [what]: real } = world as Record<keyof World, (...of: unknown[]) => unknown>;
    const stopping = (...of: unknown[]) => {
      const result = real(...of);
      controller.abort();
      return hangs === "hangs" ? new Promise(() => undefined) : result;
    };
    const error = await runSwitch(journal, { ...world, [what]: stopping }, controller.signal).then(
      () => "to the end",
      (caught: unknown) => (caught as Error).message,
    );
    return { error, calls, last: saved.at(-1) };
  }

  test.each<[StepName, keyof World, Journal]>([
    ["stop-web", "steady", planned()],
    ["drain", "queued", planned()],
    ["drain", "pause", planned()],
    ["stop-workers", "copyMedia", { ...planned(), steps: [{ name: "stop-workers" }, { name: "demote" }] }],
    ["follow", "lagging", journalOf("planned", stepsOf("planned", "parted"))],
    ["follow", "pause", journalOf("planned", stepsOf("planned", "parted"))],
    ["verify", "verify", { ...planned(), steps: [{ name: "verify" }] }],
  ])("in %s, at %s, waits for nothing more, and begins nothing", async (step, what, journal) => {
    const { error, calls, last } = await stoppedIn(journal, what);
    expect(error).toBe(`interrupted in ${step}\n${again}`);
    expect(nextStep(last ?? journal)).toBe(step);
    expect(calls.slice(calls.findIndex((call) => call.startsWith(what)) + 1)).not.toContain("files vps 2 g1");
  });

  test("of a lost site's successor goes on later, and may have lost something", async () => {
    const { error, calls } = await stoppedIn(journalOf("lost", stepsOf("lost", "follows")), "pause");
    expect([error, calls.includes("up vps")]).toEqual([
      "interrupted in catch-up\nThe same command goes on with this step.",
      false,
    ]);
  });

  test("in an update lets it end, keeps what came of it, and takes no step after it", async () => {
    const demote = { ...planned(), steps: [{ name: "demote" as const }, { name: "promote" as const }] };
    const { error, calls, last } = await stoppedIn(demote, "up", "ends");
    expect([error, calls]).toEqual([
      `interrupted before promote\n${again}`,
      ["files vps 2 g1", "up home", "snapshot of home e1"],
    ]);
    expect(last).toMatchObject({ token: "abc", steps: [{ done: expect.any(String) as string }, {}] });
  });

  test("in an update that the engine gave up for it says so, and not that the old site may be gone", async () => {
    const controller = new AbortController();
    const { world } = fakeWorld();
    const cancelled: World = {
      ...world,
      up: () => {
        controller.abort();
        return Promise.reject(new Error("error: update canceled"));
      },
    };
    await expect(runSwitch(planned(), cancelled, controller.signal)).rejects.toThrow(
      new RegExp(`^interrupted in stop-web: error: update canceled\n${again}$`),
    );
  });

  test("is not begun where it was interrupted already", async () => {
    const { world, calls, saved } = fakeWorld();
    await expect(runSwitch(planned(), world, AbortSignal.abort())).rejects.toThrow("interrupted before stop-web");
    expect([calls, saved]).toEqual([[], []]);
  });
});

describe("a target without its database, whose state may list what a new cluster has not got", () => {
  test.each([
    ["planned", ["follow"]],
    ["lost", ["promote"]],
    ["dead", ["promote"]],
  ] as const)("%s: the first update of it looks at the cluster, and no other", async (kind, steps) => {
    const journal = journalOf(kind, stepsOf(kind, "missing"), { missing: true });
    const { world, calls } = fakeWorld();
    await runSwitch(journal, world);
    expect(calls.filter((call) => call === "up vps refreshed")).toHaveLength(1);
    expect(calls.filter((call) => call.startsWith("up vps"))[0]).toBe("up vps refreshed");
    expect(calls).not.toContain("up home refreshed");
    expect(journal.steps.map(({ name }) => name).filter((step) => stateUseOf(step, journal) === "refreshed")).toEqual(
      steps,
    );
  });

  test("is looked at again by a run that goes on: the update may have stopped before all was made", async () => {
    const { world } = fakeWorld({ breakAt: "up vps refreshed" });
    const journal = journalOf("dead", stepsOf("dead", "missing"), { missing: true });
    await expect(runSwitch(journal, world)).rejects.toThrow("promote failed");
    expect(stateUseOf("promote", parseJournal(JSON.stringify(journal)))).toBe("refreshed");
  });

  test("one that is there costs nobody the look", async () => {
    const { world, calls } = fakeWorld();
    await runSwitch(planned(), world);
    expect(calls.join()).not.toContain("refreshed");
  });
});

describe("the last copy of media on a volume", () => {
  const cronJob: V1CronJob = {
    metadata: { name: "media-copy", uid: "u1" },
    spec: {
      schedule: "*/15 * * * *",
      jobTemplate: {
        metadata: { labels: { a: "b" } },
        spec: {
          backoffLimit: 1,
          template: { spec: { containers: [{ name: "rclone", env: [{ name: "SITE", value: "home" }] }] } },
        },
      },
    },
  };

  test("is the CronJob's own Job, which takes the youngest files as well", () => {
    const job = lastCopy(cronJob, "media-copy-1");
    expect(job.metadata).toMatchObject({
      name: "media-copy-1",
      labels: { a: "b" },
      ownerReferences: [{ kind: "CronJob", name: "media-copy", uid: "u1" }],
    });
    expect(job.spec?.backoffLimit).toBe(1);
    expect(job.spec?.template.spec?.containers[0]?.env).toEqual([
      { name: "SITE", value: "home" },
      { name: "MIN_AGE", value: "0s" },
    ]);
    expect(JSON.stringify(cronJob)).not.toContain("MIN_AGE");
  });

  /** A cluster whose Job ends like this. */
  async function copied(condition: object) {
    const jobs = "/apis/batch/v1/namespaces/homestead/jobs";
    const others = new Proxy<Record<string, () => object>>(
      { "/apis/batch/v1/namespaces/homestead/cronjobs/media-copy": () => cronJob },
      {
        get: (known, asked: string) =>
          known[asked] ?? (asked.startsWith(jobs) ? () => ({ status: { conditions: [condition] } }) : undefined),
      },
    );
    const { kubeconfig, changes } = await fakeCluster({ others });
    await copyMedia({ cluster: { context: "trial", kubeconfig }, namespace: "homestead", site: "home" });
    expect(changes).toEqual([`POST ${jobs}`]);
  }

  test("is waited for", async () => {
    await copied({ type: "Complete", status: "True" });
  });

  test("that fails says where its reason stands", async () => {
    const failed = copied({ type: "Failed", status: "True", message: "Job has reached the specified backoff limit" });
    await expect(failed).rejects.toThrow(
      /^the last copy of home's media failed: Job has reached the specified backoff limit; kubectl --kubeconfig \S+ --context trial -n homestead logs job\/media-copy-[0-9a-f]{8}$/,
    );
  });
});

describe("the journal in the vault", () => {
  const run = (store: FakeStore) => new JournalStore(store.vault, store.keys);
  const taken = "another run of this switch is at work: let it end, then look: npx homestead status";
  /** As every mark does. */
  const later = (seconds: number) => ({
    ...planned(),
    updatedAt: new Date(Date.parse(at) + seconds * 1000).toISOString(),
  });

  describe.each(["kept", "refused", "ignored"] as const)("where conditions of a write are %s", (conditions) => {
    async function vault() {
      const store = await fakeStore();
      store.conditions = conditions;
      return store;
    }

    test("is read as it was written", async () => {
      const store = await vault();
      const one = run(store);
      expect(await one.read()).toBeUndefined();
      await one.write(planned());
      await one.write({ ...planned(), token: "abc" });
      expect(await run(store).read()).toEqual({ ...planned(), token: "abc" });
    });

    test("two runs of one switch: the second to write is told, and has written nothing", async () => {
      const store = await vault();
      const [one, two] = [run(store), run(store)];
      await one.read();
      await two.read();
      await one.write(later(1));
      await expect(two.write(later(2))).rejects.toThrow(taken);
      await one.write(later(3));
      await expect(two.write(later(4))).rejects.toThrow(taken);
      expect(await run(store).read()).toEqual(later(3));
    });
  });

  test("is left alone when another run writes in the same moment, where conditions are kept", async () => {
    const store = await fakeStore();
    const one = run(store);
    await one.read();
    await one.write(planned());
    const others = JSON.stringify(later(1));
    store.fate = (request) => {
      if (request.startsWith("PUT")) store.put(journalKey, others);
      return undefined;
    };
    await expect(one.write(later(2))).rejects.toThrow(taken);
    expect(store.text(journalKey)).toBe(others);
  });

  test.each(["refused", "ignored"] as const)(
    "another run that wrote over it in the same moment is noticed, where conditions are %s",
    async (conditions) => {
      const store = await fakeStore();
      store.conditions = conditions;
      const one = run(store);
      await one.read();
      let written = false;
      store.fate = (request) => {
        // Between its write and the look after it.
        if (written && request.startsWith("GET")) store.put(journalKey, JSON.stringify(later(1)));
        written ||= request.startsWith("PUT");
        return undefined;
      };
      await expect(one.write(planned())).rejects.toThrow(taken);
    },
  );

  test("knows its own write again when the reply was lost and the second try is refused", async () => {
    const store = await fakeStore();
    const one = run(store);
    await one.read();
    let puts = 0;
    store.fate = (request) => (request.startsWith("PUT") && (puts += 1) === 1 ? { served: 503 } : undefined);
    await one.write(planned());
    await one.write(later(1));
    expect(await run(store).read()).toEqual(later(1));
  });

  test("a vault that takes nothing stops the switch before anything is changed", async () => {
    const store = await fakeStore();
    store.fate = (request) => (request.startsWith("PUT") ? 403 : undefined);
    const one = run(store);
    await one.read();
    await expect(one.write(planned())).rejects.toThrow(
      "the journal cannot be written: bucket 'vault' answers 403; the vault's keys must be allowed to write",
    );
    store.fate = () => "lost";
    await expect(one.write(planned())).rejects.toThrow("the journal cannot be written to the vault: ");
    expect(store.objects.size).toBe(0);
  });

  test("what is no journal is said to be none", () => {
    expect(() => parseJournal("{}")).toThrow("switch/journal.json in the vault is no journal of a switch");
  });
});

describe("before a switch", () => {
  test("a database that wrote last has parted from the active site's", () => {
    const writing = (primary: string) => ({ current: { metadata: { name: "x" }, spec: { replica: { primary } } } });
    expect(stateOf(writing("home"), "home")).toBe("parted");
    expect(stateOf(writing("vps"), "home")).toBe("follows");
    expect(stateOf({ current: undefined }, "home")).toBe("missing");
  });

  test("a site whose database is ready may be given up with a word that says what a planned switch would save", () => {
    const asked = { kind: "lost", from: "home", target: "vps", reach: "serves" } as const;
    expect(notThatKind(asked)).toEqual({
      warning:
        "home is not gone: its database is ready, and it may take posts until it has read the new lease; those are lost, as is all that is not in the vault by then. Without --lost nothing is: npx homestead switch vps, if what that says against it can be mended",
    });
    expect(notThatKind({ ...asked, reach: "answers" })).toEqual({});
    expect(notThatKind({ ...asked, kind: "planned" })).toEqual({});
  });

  test("a site that answers is never dead", () => {
    const asked = { kind: "dead", from: "home", target: "vps", reach: "answers" } as const;
    expect(notThatKind(asked)).toEqual({
      refused:
        "home is not powered off: its cluster answers; without --dead nothing is lost: npx homestead switch vps (or --lost, if it does not work any more)",
    });
    expect(notThatKind({ ...asked, reach: "silent" })).toEqual({});
  });

  test("a site that nobody could ask is given up with a warning", () => {
    const asked = { kind: "dead", from: "home", target: "vps", reach: "silent", unasked: "no context" } as const;
    const warning = "nobody has asked home's cluster whether it still runs: no context";
    expect(notThatKind(asked)).toEqual({ warning });
    expect(notThatKind({ ...asked, kind: "lost" })).toEqual({ warning });
    // A planned switch asks it for more, and says so there.
    expect(notThatKind({ ...asked, kind: "planned" })).toEqual({});
  });

  /** What is found about a `vps` whose cluster has nothing, or no more than these lists say. */
  async function lookedAt(kind: Kind, changes: Record<string, unknown>, lists: Lists = {}, old?: Site) {
    const store = await fakeStore();
    const { kubeconfig } = await fakeCluster(lists);
    const settings = parseSettings(
      configurationOf("vps", {
        cluster: { context: "trial", kubeconfig },
        charts: chartsInFolders(),
        vault: { endpoint: store.vault.endpoint, bucket: store.vault.bucket },
        ...changes,
      }),
    );
    const lease = firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint: settings.fingerprint }, 600, "w");
    return preflight({ kind, from: "home", target: { settings, secrets: {} }, old, lease });
  }

  const clusters = "/apis/postgresql.cnpg.io/v1/namespaces/homestead/clusters";

  test("a cluster that does not say which databases it has is asked again: none is put to sleep for it", async () => {
    let asked = 0;
    // The checks ask first.
    const others = { [clusters]: () => ((asked += 1) === 1 ? { items: [] } : { items: "no list" }) };
    for (const kind of ["planned", "lost"] as const) {
      asked = 0;
      const { faults, generation } = await lookedAt(kind, {}, { others });
      const says = faults.filter((line) => line.startsWith("vps's cluster does not say"));
      expect([says, generation]).toEqual([
        [
          expect.stringMatching(
            /^vps's cluster does not say which databases it has: kubectl --kubeconfig \S+ --context trial -n homestead get clusters\.postgresql\.cnpg\.io; then the same again$/,
          ),
        ],
        1,
      ]);
    }
  });

  test("a cluster that this machine has no kubeconfig for is told once, with what mends it", async () => {
    const { faults } = await lookedAt("planned", { cluster: { context: "trial", kubeconfig: "/nowhere" } });
    expect(faults[0]).toContain(
      "put the file there, or: pulumi config set --path homestead:cluster.kubeconfig <file> --stack vps",
    );
    expect(faults.filter((line) => line.startsWith("vps's cluster does not say"))).toEqual([]);
  });

  describe("a site that is said to be powered off", () => {
    const isOff = async (cluster: object) => {
      const settings = parseSettings(configurationOf("home", { cluster }));
      const { faults, warnings } = await lookedAt("dead", {}, {}, { settings, secrets: {} });
      return {
        refused: faults.some((line) => line.startsWith("home is not powered off: its cluster answers; ")),
        unasked: warnings.filter((line) => line.startsWith("nobody has asked home's cluster")),
      };
    };
    const at = async (lists: Lists) => {
      const { kubeconfig } = await fakeCluster(lists);
      return { context: "trial", kubeconfig };
    };

    async function listening(server: http.Server) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const end = () => void server.close();
      onTestFinished(end);
      return { kubeconfig: kubeconfigFor(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), end };
    }

    test.each<[string, Lists]>([
      ["knows nobody any more", { knows: "nobody" }],
      ["lets nobody see its version", { forbidden: ["/version"] }],
      ["says its version and no more", { others: { [clusters]: () => ({ items: "no list" }) } }],
    ])("is not, where its cluster %s", async (_, lists) => {
      expect(await isOff(await at(lists))).toEqual({ refused: true, unasked: [] });
    });

    test("is not, where what stands before its cluster says that it is away", async () => {
      const away = http.createServer((_, response) => void response.writeHead(503).end("<html>"));
      const { kubeconfig } = await listening(away);
      expect(await isOff({ context: "trial", kubeconfig })).toEqual({ refused: true, unasked: [] });
    });

    test("is believed to be, where nobody answers", async () => {
      const { kubeconfig, end } = await listening(http.createServer());
      end();
      expect(await isOff({ context: "trial", kubeconfig })).toEqual({ refused: false, unasked: [] });
    });

    test("is believed to be, with a warning, where this machine does not know its cluster", async () => {
      const { kubeconfig } = await at({});
      expect(await isOff({ context: "home", kubeconfig })).toEqual({
        refused: false,
        unasked: [
          `nobody has asked home's cluster whether it still runs: kubeconfig ${kubeconfig} has no context 'home'; it has trial: pulumi config set --path homestead:cluster.context <context> --stack home`,
        ],
      });
    });

    test("nor is anybody asked where the program is not here that gives this machine's credentials", async () => {
      const { kubeconfig } = await at({});
      const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "no-such-program" };
      const content = JSON.parse(fs.readFileSync(kubeconfig, "utf8")) as { users: object[] };
      content.users = [{ name: "trial", user: { exec } }];
      fs.writeFileSync(kubeconfig, JSON.stringify(content));
      expect(await isOff({ context: "trial", kubeconfig })).toEqual({
        refused: false,
        unasked: ["nobody has asked home's cluster whether it still runs: spawn no-such-program ENOENT"],
      });
    });
  });

  describe("two stacks that name their vault by two addresses", () => {
    /** @param there the vault as the old site's stack has it; `copied`: another one, with a copy of the lease */
    async function compared(there: "the same" | "copied" | "without a lease" | "away", bucket = "vault") {
      const [store, other] = [await fakeStore(), await fakeStore()];
      const { kubeconfig } = await fakeCluster();
      const at = (site: "home" | "vps", vault: object) =>
        parseSettings(
          configurationOf(site, { cluster: { context: "trial", kubeconfig }, charts: chartsInFolders(), vault }),
        );
      const settings = at("vps", { endpoint: store.vault.endpoint, bucket: "vault" });
      const lease = firstLease({ site: "home", epoch: 1, cluster: "c", fingerprint: settings.fingerprint }, 600, "w");
      const written = new Date(Date.now() - 86_400_000);
      store.put(leaseKey, formatLease(lease), written);
      if (there === "the same") other.put(leaseKey, formatLease(lease), written);
      if (there === "copied") other.put(leaseKey, formatLease(lease));
      if (there === "away") other.fate = () => 403;
      const old = at("home", { endpoint: `${other.vault.endpoint}/`, bucket });
      const names = `the stacks name two vaults (home: bucket ${bucket} at ${other.vault.endpoint}, vps: bucket vault at ${store.vault.endpoint})`;
      const found = async (kind: Kind) => {
        const asked = {
          kind,
          from: "home",
          target: { settings, secrets: {} },
          old: { settings: old, secrets: {} },
          lease,
        };
        const { faults, warnings } = await preflight(asked as Parameters<typeof preflight>[0]);
        const [fault, warning] = [faults, warnings].map((lines) =>
          lines.filter((line) => line.startsWith("the stacks")),
        );
        return { fault, warning };
      };
      return { names, found };
    }
    const kinds = ["planned", "lost", "dead"] as const;

    test("may do so, where both lead to one lease", async () => {
      const { found } = await compared("the same");
      for (const kind of kinds) expect(await found(kind)).toEqual({ fault: [], warning: [] });
    });

    test.each(["copied", "without a lease"] as const)("may not, where the other one's is %s", async (there) => {
      const { names, found } = await compared(there);
      const fault = `${names}, each with a lease of its own, and both sites would federate: name the newer one in both: docs/runbooks/new-bucket.md`;
      for (const kind of kinds) expect(await found(kind)).toEqual({ fault: [fault], warning: [] });
    });

    test("may not name two buckets", async () => {
      const { names, found } = await compared("the same", "vault-2");
      expect((await found("lost")).fault).toEqual([expect.stringContaining(`${names}, each with a lease of its own`)]);
    });

    test("are compared by nobody where one is not reached from here: no reason to wait where the other site is lost", async () => {
      const { names, found } = await compared("away");
      const says = `${names}, and nobody knows whether they are one: the lease cannot be read: bucket 'vault' answers 403; run it where both are reached, or give both stacks one address (homestead:vault.endpoint)`;
      expect(await found("planned")).toEqual({ fault: [says], warning: [] });
      expect(await found("lost")).toEqual({ fault: [], warning: [says] });
    });
  });

  test("a standby that takes over is asked for nsupdate: it is to change the DNS", async () => {
    const dns = {
      kind: "rfc2136",
      server: "ns.example.net",
      zone: "ramble.moe",
      keyName: "k",
      algorithm: "hmac-sha256",
    };
    const before = process.env["PATH"];
    process.env["PATH"] = temporaryFolder();
    try {
      const { faults } = await lookedAt("planned", { dns, dnsKey: Buffer.alloc(32).toString("base64") });
      expect(faults.join("\n")).toMatch(/homestead:dns\.kind: "rfc2136"\n +allowed: nsupdate on this machine's PATH/);
    } finally {
      process.env["PATH"] = before;
    }
  });

  describe("a cold site whose certificate would wait for DNS, and DNS for it", () => {
    const acme = { kind: "acme", email: "user@ramble.moe" };
    const lacks =
      "vps has no valid certificate for: ramble.moe, mastodon.ramble.moe, and with the solver http01 it gets none before DNS points there";
    const ofCertificates = (lines: string[]) => lines.filter((line) => line.includes("no valid certificate"));
    const address = { ingress: { address: "192.0.2.20" } };

    test("is not switched to, while there is time", async () => {
      const found = await lookedAt("planned", { certificates: acme, ...address });
      expect(ofCertificates(found.faults)).toEqual([
        `${lacks}: name a solver of kind dns01 (homestead:certificates.solver in Pulumi.vps.yaml) or an issuer of your own (docs/runbooks/adding-a-site.md)`,
      ]);
    });

    test("is asked which it has: its beginning may have been interrupted before its database was there", async () => {
      const certificate = (name: string, status: string) => ({
        metadata: { name },
        status: { conditions: [{ type: "Ready", status }] },
      });
      const found = async (...items: object[]) => {
        const others = { "/apis/cert-manager.io/v1/namespaces/homestead/certificates": () => ({ items }) };
        const { faults } = await lookedAt("planned", { certificates: acme, ...address }, { others });
        return ofCertificates(faults).map((line) => line.split(", and with")[0]);
      };
      expect(await found(certificate("web", "True"), certificate("media", "True"))).toEqual([]);
      expect(await found(certificate("web", "True"), certificate("media", "False"))).toEqual([
        "vps has no valid certificate for: media",
      ]);
      expect(await found()).toEqual(["vps has no valid certificate for: ramble.moe, mastodon.ramble.moe"]);
    });

    test("takes over from a lost one with the records to be set by hand", async () => {
      const found = await lookedAt("lost", { certificates: acme, ...address });
      expect(ofCertificates(found.faults)).toEqual([]);
      expect(ofCertificates(found.warnings)).toEqual([
        `${lacks}, which the update does last: set the records by hand as soon as promote has begun (ramble.moe A 192.0.2.20, mastodon.ramble.moe A 192.0.2.20); if it gives up by then, the same command goes on`,
      ]);
    });

    test.each([
      [{ ...acme, solver: { http01: { gatewayHTTPRoute: {} } } }, 1],
      [{ ...acme, solver: { dns01: { route53: {} } } }, 0],
      [{ kind: "selfSigned" }, 0],
    ])("%j", async (certificates, faults) => {
      expect(ofCertificates((await lookedAt("planned", { certificates })).faults)).toHaveLength(faults);
    });
  });

  test("Mastodon's image is missed by its tag, too, which the chart's Jobs go by", async () => {
    const missing = async (names: string[]) =>
      (await lookedAt("lost", {}, { nodes: [{ status: { images: [{ names }] } }] })).warnings.filter((line) =>
        line.includes("pulled"),
      );
    const digests = Object.values(images).map((image) => image.replace(/:[^/:@]*@/, "@"));
    const tag = images.mastodon.replace(/@.*/, "");
    expect(await missing(digests)).toEqual([`vps seems not to have pulled ${tag} yet: the switch will take longer`]);
    expect(await missing([...digests, tag])).toEqual([]);
  });

  test("begins anew in an archive that is empty, after all that there are", () => {
    const home = { site: "home", generation: 1 } as const;
    const archives = ["home-g1", "home-g3", "vps-g7"];
    expect(generationFor("follows", home, archives)).toBe(1);
    expect(generationFor("parted", home, archives)).toBe(4);
    expect(generationFor("missing", home, archives)).toBe(4);
    expect(generationFor("parted", home, [])).toBe(2);
    expect(generationFor("missing", home, ["vps-g7"])).toBe(1);
    expect(generationFor("missing", { site: "home", generation: 5 }, archives)).toBe(5);
  });

  test("the distance between two places in the WAL is counted in segments", () => {
    const behind = (segment: string, lsn: string, timeline = parseInt(segment.slice(0, 8), 16)) =>
      segmentsBehind(segment, { timeline, lsn });
    expect(behind("000000010000000000000005", "0/4FFFFFF")).toBe(1);
    expect(behind("0000000200000001000000FF", "1/FE000001")).toBe(1);
    expect(behind("000000010000000100000000", "0/FF000001")).toBe(1);
    // At the end of the one before: the whole of it is not replayed.
    expect(behind("0000000200000001000000FF", "1/FF000000")).toBe(1);
    expect(behind("0000000200000001000000FF", "1/FE000000")).toBe(2);
    expect(behind("000000010000000000000003.gz", "0/5000000")).toBe(0);
    expect(behind("000000010000000000000004", "0/4000060")).toBe(0);
    // The other site's promotion left the timeline inside of that one: it goes on in the later timeline's.
    expect(behind("000000020000000000000004", "0/4000060", 1)).toBe(1);
    expect(behind("000000020000000000000005", "0/4000060", 1)).toBe(2);
    // A segment of before it counts as ever.
    expect(behind("000000010000000000000004", "0/4000060", 2)).toBe(0);
  });

  test("is on the history that the archive goes on with, or has passed where that left its own", () => {
    const history = "1\t0/9000028\tno recovery target specified\n\n2\tA/F\tbefore 2026-11-26 11:24:23+00\n";
    expect(leftAt(history, 1)).toBe("0/9000028");
    expect(leftAt(history, 2)).toBe("A/F");
    expect(leftAt(history, 3)).toBeUndefined();
    expect(bytesOf("A/F") > bytesOf("9/FFFFFFFF")).toBe(true);
  });

  test("an old site whose stack cannot be read is not asked whether it runs, and that is said", async () => {
    const broken = () => Promise.reject(new Error("incorrect passphrase\nmore"));
    expect(await oldSite("home", "dead", broken)).toEqual({
      old: undefined,
      warning:
        "the stack home cannot be read (incorrect passphrase): nobody has asked home's cluster whether it still runs",
    });
    await expect(oldSite("home", "planned", broken)).rejects.toThrow("incorrect passphrase");
    // Of one that can be read and wants mending, the cluster is to be asked whether it is dead.
    const fault = {
      key: "homestead:monitoring.notify",
      value: "[secret]",
      allowed: "an encrypted value",
      mend: "encrypt it",
    };
    const faulty = () => Promise.reject(new SettingsError("home", [fault]));
    await expect(oldSite("home", "dead", faulty)).rejects.toThrow("mend:    encrypt it");
    expect((await oldSite("home", "lost", faulty)).warning).toContain("nobody has asked home's cluster");
    const site = {} as Site;
    expect(await oldSite("home", "lost", () => Promise.resolve(site))).toEqual({ old: site });
  });

  describe("versions", () => {
    const named = (site: "home" | "vps", changes: Partial<Record<keyof typeof images, string>> = {}) => ({
      site,
      images: { ...images, ...changes },
    });
    const [older, newer] = ["ghcr.io/mastodon/mastodon:v4.5.9", "ghcr.io/mastodon/mastodon:v4.6.9"];

    test("that are the same may be switched between", () => {
      expect(differences(named("home"), named("vps"))).toEqual([]);
      const sameMajor = { postgres: images.postgres.replace(/:(\d+)[^@]*@.*/, ":$1.99") };
      expect(differences(named("home"), named("vps", sameMajor))).toEqual([]);
    });

    test("of two stacks that differ are no switch: each is named with how to mend it", () => {
      const changes = { mastodon: newer, "mastodon-streaming": newer, postgres: "ghcr.io/x/postgresql:99.1" };
      const found = differences(named("home", { mastodon: older }), named("vps", changes));
      expect(found[0]).toBe(
        `images.mastodon is ${older} on home and ${newer} on vps, and a switch is no upgrade: upgrade home first (docs/runbooks/upgrade.md), or give both the same: pulumi config set --path homestead:images.mastodon ${older} --stack vps`,
      );
      expect(found[1]).toContain("images.mastodon-streaming is ");
      expect(found[2]).toMatch(
        /^images\.postgres is of version \d+ on home and 99 on vps, .* homestead:images\.postgres /,
      );
      expect(found).toHaveLength(3);
    });

    test("media in a bucket on one site and on a volume on the other are no switch", () => {
      const media = (site: "home" | "vps", value: Record<string, unknown>) => ({ site, media: value as never });
      const bucket = { kind: "bucket", bucket: "m" };
      expect(mediaDifference(media("home", bucket), media("vps", bucket))).toEqual([]);
      expect(mediaDifference(media("home", bucket), media("vps", { kind: "volume" }))).toEqual([
        "media are in a bucket on home and on a volume on vps, and a switch moves none: docs/runbooks/media-volume.md, for both stacks",
      ]);
    });

    test("and a takeover is told of them, where the lost site's stack says so: it goes on without them", async () => {
      const cluster = { context: "home", kubeconfig: "/nowhere" };
      const settings = parseSettings(configurationOf("home", { cluster, media: { kind: "volume" } }));
      const { faults, warnings } = await lookedAt("lost", {}, {}, { settings, secrets: {} });
      const says =
        "media are on a volume on home and in a bucket on vps, and a switch moves none: docs/runbooks/media-volume.md, for both stacks";
      expect([faults.includes(says), warnings.includes(says)]).toEqual([false, true]);
    });

    test("of a lost site are known by its stack's outputs, and none other takes over", async () => {
      const outputs = { images: { mastodon: older, postgres: "ghcr.io/x/postgresql:16.1" }, web: "https://x" };
      const ran = await ranBy("home", { run: () => Promise.resolve(JSON.stringify(outputs)) });
      expect(ran).toEqual(outputs.images);
      const found = takeoverDifferences("home", ran ?? outputs.images, named("vps", { mastodon: newer }));
      expect(found[0]).toBe(
        `home ran ${older}, and vps would take over with ${newer}, which is no way to upgrade: pulumi config set --path homestead:images.mastodon ${older} --stack vps, and mastodon-streaming of the same release; take them out again afterwards, to upgrade`,
      );
      expect(found[1]).toMatch(/^home's database is of Postgres 16, and vps would take over with \d+: /);
      expect(takeoverDifferences("home", images, named("vps"))).toEqual([]);
      expect(await ranBy("home", { run: () => Promise.resolve("{}") })).toBeUndefined();
      expect(await ranBy("home", { run: () => Promise.reject(new Error("no stack")) })).toBeUndefined();
    });

    test("of a lost site that nobody knows are a warning", async () => {
      const { warnings } = await lookedAt("lost", {});
      expect(warnings.join("\n")).toContain(
        "the stack home does not say which images it ran, and vps takes over with ",
      );
    });
  });

  test("an image is the same with another way to write it", () => {
    expect(sameImage("docker.io/library/node:24", "node:24")).toBe(true);
    expect(sameImage("ghcr.io/a/b@sha256:1", "ghcr.io/a/b:v1@sha256:1")).toBe(true);
    expect(sameImage("ghcr.io/a/b:v1", "ghcr.io/a/b:v2")).toBe(false);
  });

  test("an update's failure is told by its diagnostics; a lock by the command that removes it", () => {
    const said =
      "Updating (home):\n + x creating\n\nDiagnostics:\n  pulumi:pulumi:Stack (x):\n    error: no\n\nResources:\n";
    expect(whyUpFailed("home", said, new Error("code 255"))).toBe(
      "pulumi up --stack home:\n  pulumi:pulumi:Stack (x):\n    error: no",
    );
    expect(whyUpFailed("home", "error: the stack is currently locked by 1 lock(s)", new Error("x"))).toContain(
      "pulumi cancel --yes --stack home",
    );
  });
});

test("an update outlives a line that drops: the engine would end at once, and leave its stack locked", async () => {
  const folder = temporaryFolder();
  // Each of its commands hears a hangup first.
  const script = `#!/bin/sh
kill -HUP $$
printf '%s\\n' "$*" >> '${folder}/log'
case "$*" in
  version) echo v3.260.0 ;;
  *history*) echo '[{}]' ;;
  *output*) echo '{"demotionToken":"abc"}' ;;
esac
`;
  fs.writeFileSync(path.join(folder, "pulumi"), script, { mode: 0o755 });
  vi.stubEnv("PATH", [folder, process.env["PATH"]].join(path.delimiter));
  onTestFinished(() => void vi.unstubAllEnvs());
  const store = await fakeStore();
  const nobody = () => Promise.reject(new Error("it is asked"));
  const world = realWorld({
    ...{ target: "vps", from: "home", kind: "planned", resolvers: [], engine: () => undefined },
    ...{ journal: new JournalStore(store.vault, store.keys), loadTarget: nobody, load: nobody },
  });
  expect(await world.up("home")).toEqual({ demotionToken: "abc" });
  expect(fs.readFileSync(path.join(folder, "log"), "utf8")).toContain("\nup --yes --skip-preview ");
});

test("Valkey's last snapshot is looked for where the target will look: the old site's own address may be of its house", async () => {
  const store = await fakeStore();
  store.put("valkey/home/e1/final.rdb", "REDIS");
  const settings = parseSettings(
    configurationOf("vps", { vault: { endpoint: store.vault.endpoint, bucket: store.vault.bucket } }),
  );
  const world = realWorld({
    ...{ target: "vps", from: "home", kind: "planned", resolvers: [], engine: () => undefined },
    journal: new JournalStore(store.vault, store.keys),
    loadTarget: () => Promise.reject(new Error("it is asked")),
    load: (site) => (site === "vps" ? Promise.resolve({ settings, secrets: {} }) : Promise.reject(new Error("asked"))),
  });
  expect(await world.lastSnapshot({ site: "home", epoch: 1 })).toBeLessThan(60);
});

describe("public DNS that nobody but its owner changes", () => {
  const settings = () => parseSettings(configurationOf("vps", { ingress: { address: "192.0.2.20" } }));

  test("is not asked, and the step says so", async () => {
    const nobody = () => Promise.reject(new Error("it is asked"));
    const store = await fakeStore();
    const world = realWorld({
      ...{ target: "vps", from: "home", kind: "planned", resolvers: [], engine: () => undefined },
      ...{ journal: new JournalStore(store.vault, store.keys), loadTarget: nobody },
      load: () => Promise.resolve({ settings: settings(), secrets: {} }),
    });
    const lines: string[] = [];
    const spy = vi.spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
    const faults = await world.verify("vps").finally(() => spy.mockRestore());
    expect([faults, lines]).toEqual([
      [],
      ["      nothing was asked: dns is of kind manual, and the records are yours to set, as said below"],
    ]);
  });

  test("is left with its records and the command that looks", () => {
    expect(leftToOwner(settings())).toEqual([
      "Set these DNS records by hand:",
      "  ramble.moe 60 A 192.0.2.20",
      "  mastodon.ramble.moe 60 A 192.0.2.20",
      "and when the old ones' time to live is over, look through public DNS, which nobody has done yet:",
      "  npx homestead verify vps --public",
    ]);
    expect(leftToOwner({ ...settings(), dns: { kind: "command", command: "x", ttl: 60 } })).toEqual([]);
  });
});

describe("the clocks", () => {
  test("may be some seconds apart, and no more: the two that are the furthest are named", () => {
    expect(clockFault([])).toBeUndefined();
    expect(
      clockFault([
        { of: "the vault", ahead: 14 },
        { of: "vps", ahead: -1 },
      ]),
    ).toBeUndefined();
    expect(
      clockFault([
        { of: "the vault", ahead: 0.4 },
        { of: "vps", ahead: -30 },
      ]),
    ).toBe(
      "the clocks are 30 s apart (vps's is behind the vault's; at most 15 s): timedatectl set-ntp true, on the machine whose clock is wrong",
    );
  });

  test("this machine's counts, too", () => {
    expect(clockFault([{ of: "the vault", ahead: 30 }])).toContain("(this machine's is behind the vault's;");
  });
});
