import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, test } from "vitest";
import { blocksOf, filled, mergedWith, sectionOf, sections, sharedValuesIn } from "./e2e/scenarios/by-hand";
import { beginningWith, minutesBefore, rounds, scenarios } from "./e2e/scenarios/index";
import { drawSome, stepsIn } from "./e2e/scenarios/interrupted";
import { shiftedDate } from "./e2e/scenarios/refused";
import { plannedSteps } from "./e2e/scenarios/switch";
import { Audit, arrivalsIn, longestSilence, missing, notExactlyOnce } from "./e2e/support/audit";
import { chance, drawnBy } from "./e2e/support/chance";
import { sleep } from "./e2e/support/processes";
import { perSecond, tickSeconds, timelineSvg } from "./e2e/support/timeline";
import type { Timeline } from "./e2e/support/timeline";
import { projectFolder } from "../lib/plan";
import { stepsOf } from "../lib/switch/steps";

describe("the audit", () => {
  test("tries a refused post again with its own key until it is acknowledged, and only then the next one", async () => {
    const sent: { text: string; key: string }[] = [];
    const audit = new Audit((text, key) => {
      sent.push({ text, key });
      if (sent.length < 3) return Promise.reject(new Error("HTTP 503"));
      return Promise.resolve({ id: String(sent.length), address: "192.0.2.1" });
    });
    await audit.during(() => audit.more("192.0.2.1", 2, 20));
    expect(new Set(sent.slice(0, 3)).size).toBe(3);
    expect(new Set(sent.slice(0, 3).map(({ text, key }) => `${text} ${key}`)).size).toBe(1);
    expect(sent[3]?.key).not.toBe(sent[2]?.key);
    expect(audit.refused.map(({ why }) => why)).toEqual(["HTTP 503", "HTTP 503"]);
    expect(audit.tried).toHaveLength(sent.length);
    expect(audit.by("192.0.2.1").slice(0, 2)).toMatchObject([{ id: "3" }, { id: "4" }]);
    expect(audit.by("192.0.2.2")).toEqual([]);
  });

  test("ends its posting also when the work beside it fails", async () => {
    let sent = 0;
    const audit = new Audit(() => Promise.resolve({ id: String(++sent) }));
    await expect(audit.during(() => Promise.reject(new Error("the switch failed")))).rejects.toThrow("switch failed");
    const before = sent;
    await sleep(500);
    expect(sent).toBe(before);
  });

  test("says what it waited for, and why there were no posts", async () => {
    const audit = new Audit(() => Promise.reject(new Error("no such host")));
    await audit.during(async () => {
      await expect(audit.more("192.0.2.1", 1, 1)).rejects.toThrow(
        /1 posts acknowledged by 192\.0\.2\.1, not within 1 s: 0; the last refusal: no such host/,
      );
    });
  });

  test("notices a post that is gone", () => {
    expect(missing([{ id: "1" }, { id: "2" }], new Set(["1"]))).toEqual([{ id: "2" }]);
  });

  test("notices a delivery that came twice, and one that never came", () => {
    const receivedAt = "2026-11-23T08:00:00.000Z";
    const post = (id: number) => ({
      type: "Create",
      objectId: `https://mastodon.ramble.test/users/owner/statuses/${id}`,
      receivedAt,
    });
    const arrivals = arrivalsIn([post(1), post(2), post(2), { type: "Accept", objectId: "#accepts/9", receivedAt }]);
    expect(arrivals).toHaveLength(3);
    expect(arrivals[0]).toEqual({ id: "1", at: Date.parse(receivedAt) });
    expect(notExactlyOnce([{ id: "1" }], arrivals)).toEqual([]);
    expect(notExactlyOnce([{ id: "1" }, { id: "2" }, { id: "3" }], arrivals)).toEqual([
      "post 2 arrived 2 times",
      "post 3 never arrived",
    ]);
  });

  test("measures the longest pause, whatever the order", () => {
    expect(longestSilence([])).toBe(0);
    expect(longestSilence([5000])).toBe(0);
    expect(longestSilence([9000, 1000, 1200])).toBe(7.8);
  });
});

describe("the timeline", () => {
  const zero = 1_800_000_000_000;
  const timeline = (more: Partial<Timeline> = {}): Timeline => ({
    title: "Home loses its power",
    from: zero - 10_000,
    to: zero + 50_000,
    zero,
    tried: [zero - 9900, zero - 9700, zero, zero + 45_000],
    acknowledged: [zero - 9800, zero + 45_100],
    delivered: [zero - 9000, zero + 46_000],
    steps: [
      { name: "promote", from: zero + 5000, to: zero + 40_000 },
      { name: "verify", from: zero + 40_000, to: zero + 44_000 },
    ],
    marks: [{ name: "power cut", at: zero }],
    ...more,
  });
  const count = (svg: string, pattern: RegExp) => [...svg.matchAll(pattern)].length;

  test("counts by whole seconds, and what lies outside not at all", () => {
    expect(perSecond([0, 999, 1000, 2999, -1, 3000], 0, 3000)).toEqual([2, 1, 1]);
    expect(perSecond([100], 0, 0)).toEqual([0]);
  });

  test("labels its axis with ten moments at most", () => {
    expect([30, 60, 150, 400, 90_000].map(tickSeconds)).toEqual([5, 10, 15, 60, 600]);
  });

  test("has a bar for each second with posts, the steps' names, and 0 where the power went", () => {
    const svg = timelineSvg(timeline());
    expect(count(svg, /class="tried"/g)).toBe(3);
    expect(count(svg, /class="acknowledged"/g)).toBe(2);
    expect(count(svg, /class="delivered"/g)).toBe(1);
    expect(count(svg, /class="step"/g)).toBe(2);
    for (const text of ["promote", "verify", "power cut", "0 s", "50 s", "-10 s"]) expect(svg).toContain(`>${text}<`);
    expect(svg).toMatch(/^<svg [^>]*width="900" height="320"/);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  test("is well-formed: every element is closed, and text is escaped", () => {
    const svg = timelineSvg(timeline({ title: `a < b & "c"`, steps: [], marks: [] }));
    expect(svg).toContain("<title>a &lt; b &amp; &quot;c&quot;</title>");
    const open: string[] = [];
    for (const [, close, name = "", alone] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
      if (close === "/") expect(open.pop()).toBe(name);
      else if (alone !== "/") open.push(name);
    }
    expect(open).toEqual([]);
  });

  test("can be drawn of nothing", () => {
    const svg = timelineSvg(timeline({ tried: [], acknowledged: [], delivered: [], steps: [], marks: [] }));
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe("an interrupted switch", () => {
  test("knows the steps from what --dry-run prints", () => {
    const printed = `looking at the vault and both sites ...
switch to vps, planned, epoch 2:
  1. stop-web     pulumi up on home: nobody reads or posts any more, jobs are still worked on
  2. drain        wait for home's queues
`;
    expect(stepsIn(printed)).toEqual(["stop-web", "drain"]);
  });

  test("expects the steps that the command takes", () => {
    expect([...plannedSteps]).toEqual(stepsOf("planned", "follows"));
  });

  test("draws different steps, in their order, and the same ones from the same seed", () => {
    for (let seed = 0; seed < 50; seed++) {
      const drawn = drawSome(chance(seed), plannedSteps, 3);
      expect(drawn).toHaveLength(3);
      expect(drawn).toEqual(plannedSteps.filter((step) => drawn.includes(step)));
      expect(drawSome(chance(seed), plannedSteps, 3)).toEqual(drawn);
    }
  });
});

describe("a runbook that is followed", () => {
  const runbook = `# By hand

1. Stop the web:

   \`\`\`sh
   pulumi config set homestead:maintenance web --stack <from>
   pulumi up --stack <from>
   \`\`\`

2. In \`Pulumi.yaml\`:

   \`\`\`yaml
   config:
     homestead:activeSite:
       value: <to>
     homestead:epoch:
       value: <epoch>
   \`\`\`

\`\`\`text
Not a command.
\`\`\`
`;

  test("gives its blocks in their order, without their indentation", () => {
    const blocks = blocksOf(runbook);
    expect(blocks.map(({ language }) => language)).toEqual(["sh", "yaml"]);
    expect(blocks[0]?.text).toBe(
      "pulumi config set homestead:maintenance web --stack <from>\npulumi up --stack <from>",
    );
  });

  test("is done a section at a time, by its heading", () => {
    const text = "# A\n\n## One\n\n```sh\na\n```\n\n## Two: it\n\n### In it\n\n```sh\nb\n```\n";
    expect(blocksOf(sectionOf(text, "One")).map((block) => block.text)).toEqual(["a"]);
    expect(blocksOf(sectionOf(text, "Two")).map((block) => block.text)).toEqual(["b"]);
    expect(() => sectionOf(text, "Three")).toThrow("has no section 'Three'");
  });

  test.each([
    ["planned", ["from", "to", "epoch", "token"], ["sh", "sh", "yaml", "sh", "sh", "sh", "sh"]],
    ["unplanned", ["from", "to", "epoch"], ["yaml", "sh"]],
    ["anew", ["site", "active", "generation"], ["yaml", "sh", "sh"]],
  ] as const)("of a switch by hand has in its part '%s' what the suite knows to do", (part, names, languages) => {
    const text = fs.readFileSync(path.join(projectFolder, "docs", "runbooks", "switch-by-hand.md"), "utf8");
    const blocks = blocksOf(sectionOf(text, sections[part]));
    expect(blocks.map(({ language }) => language)).toEqual(languages);
    const values = Object.fromEntries(names.map((name) => [name, "1"]));
    for (const block of blocks) expect(filled(block.text, values)).not.toMatch(/<[a-z]/);
  });

  test("changes one site's number and leaves the other's", () => {
    expect(mergedWith({ home: 1, vps: 3 }, { home: 2 })).toEqual({ home: 2, vps: 3 });
    expect(mergedWith("home", "vps")).toBe("vps");
  });

  test("has its placeholders filled, and an unknown one is named", () => {
    expect(filled("pulumi up --stack <from> < input 2>&1", { from: "home" })).toBe(
      "pulumi up --stack home < input 2>&1",
    );
    expect(() => filled("pulumi up --stack <site>", { from: "home" })).toThrow("asks for <site>");
  });

  test("has its project-wide values read, with and without `config`", () => {
    const [, block] = blocksOf(runbook);
    const text = filled(block?.text ?? "", { to: "vps", epoch: "2" });
    expect(sharedValuesIn(text)).toEqual({ activeSite: "vps", epoch: 2 });
    expect(sharedValuesIn("homestead:epoch:\n  value: 3")).toEqual({ epoch: 3 });
    expect(() => sharedValuesIn("homestead:epoch: 3")).toThrow("homestead:epoch has no value");
  });
});

describe("a run that has an hour", () => {
  const both = scenarios.filter(({ sites, included }) => sites === "both" && included !== "by name");

  test("has each scenario of two sites in one round", () => {
    expect(rounds.flat()).toHaveLength(both.length);
    expect(new Set(rounds.flat())).toEqual(new Set(both));
  });

  test.for(rounds.map((round, i) => [i, round] as const))("leaves none out after round %i", ([, round]) => {
    const order = beginningWith(round, both);
    expect(order.map(({ name }) => name).slice(0, round.length)).toEqual(round.map(({ name }) => name));
    expect(new Set(order.map(({ name }) => name))).toEqual(new Set(both.map(({ name }) => name)));
  });

  test("counts what a scenario needs before it begins, but for one that goes on where its round is and held", () => {
    const [round = []] = rounds;
    expect(minutesBefore(0, round, "broken or left out")).toBe(3);
    expect(minutesBefore(1, round, "held")).toBe(0);
    expect(minutesBefore(1, round, "broken or left out")).toBe(6);
    expect(minutesBefore(2, round, "held")).toBe(6);
  });

  test("draws by the commit, and every round in the end", () => {
    expect(drawnBy("26231621c0ffee\n", rounds.length)).toBe(0x26231621 % rounds.length);
    const drawn = ["0", "1", "2", "3"].map((last) => drawnBy(`2623162${last}`, rounds.length));
    expect([...drawn].sort()).toEqual([0, 1, 2, 3]);
  });
});

test("a shifted clock tells another time of day and leaves given ones alone", () => {
  const program = `const before = Date.now(); ${shiftedDate(30)}
    const { now } = Date;
    console.log([Math.round((now() - before) / 1000), Math.round((+new Date() - before) / 1000), new Date(0).getTime(), new Date() instanceof Date, Date.parse("1970-01-01")].join(" "));`;
  expect(execFileSync(process.execPath, ["-e", program]).toString().trim()).toBe("30 30 0 true 0");
});
