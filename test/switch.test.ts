import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { segmentsBehind } from "../lib/archive";
import { writeFiles } from "../lib/switch/files";
import { JournalStore, parseJournal } from "../lib/switch/journal";
import type { Journal, Kind, StepName } from "../lib/switch/journal";
import { sameImage, stateOf } from "../lib/switch/preflight";
import { runSwitch } from "../lib/switch/run";
import type { World } from "../lib/switch/run";
import { canReopen, filesAt, nextStep, standingOf, stepsOf } from "../lib/switch/steps";
import { whyUpFailed } from "../lib/switch/world";
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

  test("a lost site's successor takes over at once, from the vault if it has no database", () => {
    const taking = ["promote", "clear-token", "verify"];
    expect(stepsOf("dead", "follows")).toEqual(taking);
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

  test("the word takes the token's place when the old site is gone", () => {
    expect(filesAt("promote", journalOf("dead", ["promote"])).promotionToken).toBe("dead");
    expect(() => filesAt("promote", planned())).toThrow("the journal has no token");
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

  test("a planned switch can be taken back until the demotion has begun", () => {
    expect(canReopen(planned())).toBe(true);
    const begun = planned();
    expect(
      canReopen({ ...begun, steps: begun.steps.map((s) => (s.name === "demote" ? { ...s, begun: at } : s)) }),
    ).toBe(false);
    expect(canReopen(journalOf("dead", ["promote"]))).toBe(false);
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
function fakeWorld(options: { breakAt?: string; token?: string; queued?: number[]; faults?: string[] } = {}) {
  const calls: string[] = [];
  const saved: Journal[] = [];
  const lines: string[] = [];
  let now = Date.parse(at);
  const queued = [...(options.queued ?? [0])];
  const world: World = {
    files: ({ shared, maintenance, promotionToken }) => {
      calls.push(
        `files ${shared.activeSite} ${shared.epoch} g${shared.generation}${maintenance ? ` ${maintenance}` : ""}${promotionToken ? ` token ${promotionToken}` : ""}`,
      );
    },
    up: (site) => {
      calls.push(`up ${site}`);
      if (options.breakAt === calls.at(-1)) return Promise.reject(new Error("the disk is full"));
      return Promise.resolve({ demotionToken: options.token ?? "abc" });
    },
    follows: (site) => Promise.resolve(void calls.push(`follows ${site}`)),
    queued: () => Promise.resolve(queued.length > 1 ? (queued.shift() ?? 0) : (queued[0] ?? 0)),
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
      "files vps 2 g1",
      "up home",
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
      "promote failed: the disk is full\nNothing is lost; the same command goes on with this step.",
    );
    expect(nextStep(saved.at(-1) ?? planned())).toBe("promote");
    expect(saved.at(-1)?.token).toBe("abc");
  });

  test("a demotion without a token is a failure: the target would be promoted with a part of the data", async () => {
    const { world } = fakeWorld({ token: "" });
    await expect(runSwitch(planned(), world)).rejects.toThrow("stack home has no output demotionToken");
  });

  test("queues are waited for, a minute at most, and what is left is said", async () => {
    const drained = fakeWorld({ queued: [5, 2, 0] });
    await runSwitch(planned(), drained.world);
    expect(drained.lines.join("\n")).not.toContain("jobs are left");
    const stuck = fakeWorld({ queued: [7] });
    await runSwitch(planned(), stuck.world);
    expect(stuck.lines).toContain("      7 jobs are left; they go along");
  });

  test("faults seen through public DNS fail the last step", async () => {
    const { world } = fakeWorld({ faults: ["verification failed: apex: expected a, got b"] });
    await expect(runSwitch(planned(), world)).rejects.toThrow("verify failed: verification failed: apex");
  });

  test("a site that was lost begins its next generation before it is handed the server", async () => {
    const { world, calls } = fakeWorld();
    await runSwitch(journalOf("planned", stepsOf("planned", "parted"), { generation: 2 }), world);
    expect(calls.slice(0, 3)).toEqual(["files home 1 g2", "up vps", "follows vps"]);
  });
});

describe("the journal in the vault", () => {
  async function vaultWith(answer: (method: string) => number | undefined = () => undefined) {
    let body: string | undefined;
    let version = 0;
    const server = http.createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        const forced = answer(request.method ?? "");
        const etag = `"${version}"`;
        const { "if-match": match, "if-none-match": none } = request.headers;
        if (forced !== undefined) response.writeHead(forced).end();
        else if (request.method === "GET") response.writeHead(body === undefined ? 404 : 200, { etag }).end(body);
        else if ((none !== undefined && body !== undefined) || (match !== undefined && match !== etag))
          response.writeHead(412).end();
        else {
          body = text;
          response.writeHead(200, { etag: `"${++version}"` }).end();
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return () =>
      new JournalStore({ endpoint, region: "x", bucket: "vault" }, { accessKeyId: "a", secretAccessKey: "b" });
  }

  test("is read as it was written", async () => {
    const store = await vaultWith();
    const one = store();
    expect(await one.read()).toBeUndefined();
    await one.write(planned());
    await one.write({ ...planned(), token: "abc" });
    expect(await store().read()).toEqual({ ...planned(), token: "abc" });
  });

  test("two runs of one switch: the second to write is told", async () => {
    const store = await vaultWith();
    const [one, two] = [store(), store()];
    await one.read();
    await two.read();
    await one.write(planned());
    await expect(two.write(planned())).rejects.toThrow("another run of this switch is at work");
  });

  test("a vault that takes nothing stops the switch before anything is changed", async () => {
    const store = (await vaultWith((method) => (method === "PUT" ? 403 : undefined)))();
    await store.read();
    await expect(store.write(planned())).rejects.toThrow(
      "the journal cannot be written: bucket 'vault' answers 403; the vault's keys must be allowed to write",
    );
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
    expect(stateOf(undefined, "home")).toBe("missing");
  });

  test("the distance between two places in the WAL is counted in segments", () => {
    expect(segmentsBehind("000000010000000000000005", "0/4FFFFFF")).toBe(1);
    expect(segmentsBehind("0000000200000001000000FF", "1/FE000000")).toBe(1);
    expect(segmentsBehind("000000010000000100000000", "0/FF000000")).toBe(1);
    expect(segmentsBehind("000000010000000000000003.gz", "0/5000000")).toBe(0);
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
