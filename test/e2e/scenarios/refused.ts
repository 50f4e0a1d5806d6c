/**
 * What must not happen is refused before anything is touched, and the refusal says the way out (issue 5, "Done means"
 * 6). A switch is not begun where clocks differ; a site that serves goes on, since for the lease only durations count.
 */
import * as assert from "node:assert/strict";
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { differences } from "../support/cluster";
import { Outage } from "../support/outage";
import { handOn, otherThan, sites, takePair } from "../support/pair";
import type { Pair } from "../support/pair";
import { atExit, fewAtATime, sleep } from "../support/processes";
import type { Project, PulumiOutcome, Site } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { buckets } from "../support/stack";
import { noPower } from "./two-sites";

export const refused: Scenario = {
  name: "refused",
  what: "wrong identity, used archive, stale token, second promotion, clocks apart, read-only vault: refused, and nothing changes",
  sites: "both",
  minutes: 4,
  limit: 45,
  async run(context) {
    const { report } = context;
    const pair = await takePair(context);
    const { activeSite, epoch } = await pair.lease();
    const standby = otherThan(activeSite);
    const state: State = { activeSite, standby, epoch, vault: await readOnlyVault(context), seen: await lookAt(pair) };
    await allRefused(context, pair, state);
    await differentClocks(context, pair, state);
    await report.check("after all of it nothing is different, in either cluster", async () => {
      assert.deepEqual(changes(state.seen, await lookAt(pair)), []);
      await pair.mustBe(activeSite, epoch);
    });
    await cutOff(context, pair, activeSite);
    handOn(pair);
  },
};

/** What is refused changes nothing: several are tried at once, as long as they find the vault as they must. */
async function allRefused({ report }: Context, pair: Pair, state: State): Promise<void> {
  const all = await wrongs(pair, state);
  let tried = 0;
  const refuse = (wrong: Wrong) => {
    const name = `refused-${String(++tried).padStart(2, "0")}`;
    return report.check(`${wrong.what}: refused, with the way out; files, lease, journal and state as they were`, () =>
      pair.project.twin(name, (project) => mustBeRefused(pair, project, state, wrong)),
    );
  };
  const goes = () =>
    report.control(
      "with nothing wrong the switch is refused as well",
      async () => {
        const outcome = await pair.switchTo(state.standby, ["--dry-run"]);
        assert.notEqual(outcome.code, 0, "it would go");
      },
      /it would go/,
    );
  const alone = all.filter(({ vault }) => vault === undefined).map((wrong) => () => refuse(wrong));
  await fewAtATime(3, [...alone, goes], (attempt) => attempt());
  // Every check looks at all archives: one that is used is there for as long as it is tried.
  for (const vault of new Set(all.flatMap((wrong) => wrong.vault ?? []))) {
    await vault.make();
    try {
      await fewAtATime(
        3,
        all.filter((wrong) => wrong.vault === vault),
        refuse,
      );
    } finally {
      await vault.unmake();
    }
  }
}

/**
 * The active site cannot ask who has the lease: it may be another by now. It stops by itself, and goes on by itself, and
 * loses nothing that it acknowledged.
 */
async function cutOff({ report, environment }: Context, pair: Pair, site: Site): Promise<void> {
  const outage = Outage.of(environment);
  if (outage === undefined) return report.skip("a site that is cut off stops within the grace", noPower);
  const grace = Number(pair.shared("leaseGrace"));
  const { address } = pair.clusters[site].access;
  const audit = pair.audit();
  let cutAt = 0;
  let mendedAt = 0;
  // It must be seen to be silent for more than 10 s.
  const seconds = grace + 12;
  await report.step(`${site} is cut off from the vault for ${seconds} s, with posts five times a second`, () =>
    audit.during(async () => {
      await audit.more(address, 10, 60);
      cutAt = Date.now();
      const mend = await outage.cutOffFromVault(site);
      try {
        await sleep(seconds * 1000);
      } finally {
        mendedAt = Date.now();
        await mend();
      }
      await audit.more(address, 10, 90);
    }),
  );
  const meanwhile = audit.acknowledged.map(({ at }) => at).filter((at) => at > cutAt && at < mendedAt);
  const last = ((Math.max(cutAt, ...meanwhile) - cutAt) / 1000).toFixed(1);
  await report.check(`it acknowledged its last post ${last} s after the cut: within the grace of ${grace} s`, () => {
    assert.ok(Number(last) <= grace, "later than the grace");
    assert.ok(audit.silence() > 10, "it never stopped");
  });
  await report.check(
    `it goes on by itself, and every acknowledged post is there (${audit.acknowledged.length})`,
    async () => assert.deepEqual(await audit.lost(pair.clusters[site]), []),
  );
}

interface State {
  activeSite: Site;
  standby: Site;
  epoch: number;
  /** Endpoint of the same vault for who may only read it. */
  vault: string;
  /** What everything was before. */
  seen: Seen;
}

// ---------------------------------------------------------------- nothing changed

/** What a look at a few files tells. */
interface Records {
  /** Lease and journal, as they are in the vault. */
  vault: string;
  /** What the state says of resources. */
  state: string;
}

interface Seen extends Records {
  clusters: Record<Site, Map<string, string>>;
}

async function lookAt(pair: Pair): Promise<Seen> {
  const { clusters } = pair;
  const [home, vps, records] = await Promise.all([
    clusters.home.inventory(),
    clusters.vps.inventory(),
    lookAtRecords(pair, pair.project),
  ]);
  return { clusters: { home, vps }, ...records };
}

/** @param project whose state it is. */
async function lookAtRecords({ s3 }: Pair, project: Project): Promise<Records> {
  const object = (key: string) => s3.request("GET", `${buckets.vault}/${key}`, undefined, [200, 404]);
  const [lease, journal] = await Promise.all([object("lease.json"), object("switch/journal.json")]);
  // The server's words for what is not there differ each time.
  const said = journal.startsWith("{") ? journal : "";
  return { vault: lease + said, state: project.stateDigest() };
}

function changes(before: Seen, after: Seen): string[] {
  return [
    ...sites.flatMap((site) =>
      differences(before.clusters[site], after.clusters[site]).map((change) => `${site}: ${change}`),
    ),
    ...changedRecords(before, after),
  ];
}

function changedRecords(before: Records, after: Records): string[] {
  return [
    ...(before.vault === after.vault ? [] : ["the lease or the journal was changed"]),
    ...(before.state === after.state ? [] : ["the state was changed"]),
  ];
}

// ---------------------------------------------------------------- what is wrong

interface Wrong {
  what: string;
  /** An archive that has to be in the vault meanwhile. */
  vault?: UsedArchive;
  /** Makes it wrong, in the project's files. */
  make?: (project: Project) => Promise<unknown> | void;
  /** What is then tried. */
  tries: (project: Project) => Promise<PulumiOutcome>;
  /** What is said: which key, what it should be, how to mend it. */
  says: RegExp[];
}

async function mustBeRefused(pair: Pair, project: Project, state: State, { make, tries, says }: Wrong): Promise<void> {
  const files = ["Pulumi.yaml", ...sites.map((site) => `Pulumi.${site}.yaml`)];
  await make?.(project);
  const asMade = files.map((file) => project.read(file));
  const outcome = await tries(project);
  // The stack's salt and the like are none of our business; a refused switch writes no file at all.
  assert.deepEqual(
    files.map((file) => project.read(file)),
    asMade,
    "the files were changed",
  );
  assert.notEqual(outcome.code, 0, "it was done");
  for (const text of says) assert.match(outcome.output, text);
  assert.doesNotMatch(outcome.output, /^\s+at .*\(.*:\d+:\d+\)$/m, "there is a stack trace");
  // A look at both clusters takes longer than a refusal: there is one after all of them.
  assert.deepEqual(changedRecords(state.seen, await lookAtRecords(pair, project)), []);
}

async function wrongs(pair: Pair, { activeSite, standby, epoch, vault }: State): Promise<Wrong[]> {
  const up = (site: Site) => (project: Project) => project.up(site, { seconds: 300 });
  const switches = (words?: readonly string[]) => (project: Project) => pair.switchTo(standby, words, project);
  const claim = (project: Project, site: Site, number: number) => {
    project.setShared("activeSite", site);
    project.setShared("epoch", number);
  };
  const withToken = (project: Project, value: string) =>
    project.mustPulumi([
      ...["config", "set", "--plaintext", "homestead:promotionToken", value],
      ...["--stack", standby],
    ]);
  const otherIdentity = (project: Project) =>
    project.setSecret(standby, "activeRecordPrimaryKey", crypto.randomBytes(16).toString("hex"));
  const readOnly = (project: Project) => {
    for (const site of sites)
      project.set(site, "vault", { ...(project.value(site, "vault") as object), endpoint: vault });
  };
  const anotherIdentity = [
    /homestead:vault\.bucket: /,
    /this server's own vault: its lease is of identity [0-9a-f]+, and this stack's identity is [0-9a-f]+/,
    /npx homestead identity verify \(which stack differs\)/,
  ];
  const notActive = [
    new RegExp(`homestead:activeSite: "${standby}"`),
    new RegExp(`${activeSite} \\(epoch ${epoch}\\), as the lease in the vault says`),
    new RegExp(`npx homestead switch ${standby} \\(or by hand: docs/runbooks/switch-by-hand\\.md\\)`),
  ];
  const generations = pair.shared("generations") as Record<Site, number>;
  const used = usedArchive(pair, standby);
  const later = usedArchive(pair, activeSite);
  const behind = [
    new RegExp(`homestead:generations\\.${activeSite}: ${generations[activeSite]}`),
    new RegExp(`the vault holds the archive ${later.archive}, which was begun later`),
    new RegExp(`set generations\\.${activeSite} to ${later.generation} in Pulumi\\.yaml`),
  ];
  const token = await staleToken(pair, activeSite);
  return [
    {
      what: `another identity in ${standby}'s stack, homestead switch`,
      make: otherIdentity,
      tries: switches(),
      says: [/the two stacks have different identities \(.*\): npx homestead identity verify/, /Nothing was changed\./],
    },
    {
      what: `another identity in ${standby}'s stack, pulumi up`,
      make: otherIdentity,
      tries: up(standby),
      says: anotherIdentity,
    },
    {
      what: "a database that would begin in an archive that is used",
      vault: used,
      make: (project) => project.setShared("generations", { ...generations, [standby]: used.generation }),
      tries: up(standby),
      says: [
        new RegExp(`homestead:generations\\.${standby}: ${used.generation}`),
        new RegExp(`the vault holds its archive ${used.archive}, which is never written over`),
        new RegExp(`set generations\\.${standby} to ${used.generation + 1} in Pulumi\\.yaml`),
      ],
    },
    {
      what: "a clone that names a database of the active site that is over, pulumi up",
      vault: later,
      tries: up(standby),
      says: behind,
    },
    {
      what: "the same, homestead switch --lost",
      vault: later,
      tries: switches(["--lost"]),
      says: [...behind, /Nothing was changed\./],
    },
    {
      what: "a stale demotion token",
      make: async (project) => {
        claim(project, standby, epoch + 1);
        await withToken(project, token);
      },
      tries: up(standby),
      says: [
        /homestead:promotionToken: /,
        /the token of the other site's last demotion: it is stale: it was made on timeline \d+, and the database follows timeline \d+/,
        new RegExp(`pulumi stack output demotionToken --stack ${activeSite}`),
      ],
    },
    {
      what: "a second active site in the same epoch",
      make: (project) => claim(project, standby, epoch),
      tries: up(standby),
      says: notActive,
    },
    {
      what: "a second active site in the next epoch, without a token",
      make: (project) => claim(project, standby, epoch + 1),
      tries: up(standby),
      says: notActive,
    },
    {
      what: "a vault that takes nothing, homestead switch",
      make: readOnly,
      tries: switches(),
      says: [
        /the journal cannot be written: bucket '.*' answers 403; the vault's keys must be allowed to write \(npx homestead doctor\)/,
      ],
    },
    {
      what: "a vault that takes nothing, a takeover by pulumi up",
      make: async (project) => {
        readOnly(project);
        claim(project, standby, epoch + 1);
        await withToken(project, "dead");
      },
      tries: up(standby),
      says: [
        /homestead:vault\.bucket: /,
        /a vault whose lease can be written: the lease cannot be written: bucket '.*' answers 403/,
      ],
    },
  ];
}

interface UsedArchive {
  archive: string;
  generation: number;
  make: () => Promise<void>;
  unmake: () => Promise<void>;
}

/** A generation whose archive somebody has written to. */
function usedArchive({ s3 }: Pair, site: Site): UsedArchive {
  const generation = 40;
  const archive = `${site}-g${generation}`;
  const object = `${buckets.vault}/pg/${archive}/wals/0000000100000000/000000010000000000000001.gz`;
  let undo = () => Promise.resolve();
  return {
    archive,
    generation,
    make: async () => {
      await s3.request("PUT", object, "somebody's");
      undo = atExit(() => s3.request("DELETE", object));
    },
    unmake: () => undo(),
  };
}

/**
 * A demotion token from before the timeline that the database is on: one that was used, or, where there was no switch
 * yet, one like it.
 */
async function staleToken(pair: Pair, active: Site): Promise<string> {
  const [used] = pair.spentTokens;
  if (used !== undefined) return used;
  const databases = await pair.clusters[active].list("clusters.postgresql.cnpg.io", "homestead");
  const systemId = String(databases[0]?.status?.["systemID"]);
  const content = { latestCheckpointTimelineID: "0", databaseSystemIdentifier: systemId };
  return Buffer.from(JSON.stringify(content)).toString("base64");
}

/** The vault as keys see it that may only read: what would change something is answered with 403. @returns its endpoint */
async function readOnlyVault({ environment }: Context): Promise<string> {
  const { hostname, port } = new URL(environment.s3.endpoint);
  const server = http.createServer((request, response) => {
    const { method = "", url = "/", headers } = request;
    if (method !== "GET" && method !== "HEAD") {
      request.resume();
      response.writeHead(403, { "content-type": "application/xml" }).end("<Error><Code>AccessDenied</Code></Error>");
      return;
    }
    // With its headers as they are: the host's name is part of the signature.
    const passed = http.request({ host: hostname, port: port || 80, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    passed.end();
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, environment.hostAddress, resolve);
  });
  atExit(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://${environment.hostAddress}:${(server.address() as AddressInfo).port}`;
}

// ---------------------------------------------------------------- clocks

/** Seconds between the clock of a site and everybody else's. */
const apart = 30;

/**
 * The lab's clusters have this machine's clock, which is others' too. So a second keeper, as it is in the pod, looks at
 * the lease with a clock of its own, and the command is run by a machine with such a clock.
 */
async function differentClocks({ report, logs }: Context, pair: Pair, { activeSite, standby }: State): Promise<void> {
  const look = (seconds: number) =>
    pair.clusters[activeSite].exec("homestead", "valkey-0", ["node", "-e", keeperWithClock(seconds)], {
      container: "keeper",
      seconds: 60,
    });
  // One after the other: the keeper's memory is not meant for four.
  for (const seconds of [apart, -apart]) {
    await report.check(`a keeper whose clock is ${seconds} s off finds the lease its own`, async () => {
      assert.match(await look(seconds), /^mark: ours \d+ \d+$/m);
    });
  }
  await report.control(
    "a keeper whose clock is a day off is believed by the vault",
    async () => assert.match(await look(24 * 3600), /^mark: ours/m),
    /the lease cannot be read/,
  );
  const preload = path.join(logs, "clock.cjs");
  fs.writeFileSync(preload, `${shiftedDate(apart)}\n`);
  await report.check(`the command, on a machine whose clock is ${apart} s off: refused, with the way out`, async () => {
    const args = pair.switchArguments(standby, ["--dry-run"]);
    const env = { NODE_OPTIONS: `--require ${preload}` };
    const { code, output } = await pair.project.homestead(args, { env, seconds: 300 });
    assert.notEqual(code, 0, "it would go");
    assert.match(output, /the clocks are (29|30|31) s apart .*timedatectl set-ntp true/);
  });
}

/** A line of JavaScript after which the time of day is another. */
export const shiftedDate = (seconds: number): string =>
  `(() => { const Real = Date, now = () => Real.now() + ${seconds * 1000}; globalThis.Date = new Proxy(Real, { ` +
  "construct: (real, given, as) => Reflect.construct(real, given.length > 0 ? given : [now()], as), " +
  'get: (real, key) => (key === "now" ? now : Reflect.get(real, key)) }); })();';

/** The pod's own keeper once more, in folders of its own, with another clock; prints the mark that it leaves. */
function keeperWithClock(seconds: number): string {
  return `
${shiftedDate(seconds)}
const fs = require("node:fs");
const own = fs.mkdtempSync("/gate/e2e-clock-");
process.env.GATE = own;
process.env.DATA = own;
fs.writeFileSync(own + "/epoch", process.env.EPOCH + "\\n");
const end = (text) => { console.log(text); fs.rmSync(own, { recursive: true }); process.exit(0); };
setInterval(() => { if (fs.existsSync(own + "/mark")) end("mark: " + fs.readFileSync(own + "/mark", "utf8").trim()); }, 100);
// Its next look would be 20 s later.
const { log } = console;
console.log = (line) => { log(line); if (/the lease cannot be read/.test(line)) end("no mark"); };
setTimeout(() => end("no mark"), 15000);
delete process.env.METRICS_PORT;
require("/programs/keeper.js");`.trim();
}
