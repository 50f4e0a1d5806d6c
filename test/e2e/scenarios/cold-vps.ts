/**
 * A VPS that did not exist a minute ago: home is powered off, the other cluster is empty under a state that lists all
 * that the old one had, and one command makes it the verified active site (issue 5, "Done means" 3). It is given on a machine that has nothing but a clone and the
 * break-glass kit, by somebody who does not know whether home is dead: the grace is waited out.
 */
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { missing, postsIn } from "../support/audit";
import type { Cluster } from "../support/cluster";
import { Outage } from "../support/outage";
import { takePair } from "../support/pair";
import type { Pair } from "../support/pair";
import { allOf, eventually, run } from "../support/processes";
import { succeeded } from "../support/project";
import type { PulumiOutcome } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { baseBackupIn } from "../support/stack";
import { beginAt, followStillWorks, noPower } from "./two-sites";

export const coldVps: Scenario = {
  name: "cold-vps",
  what: "home is powered off, and an empty cluster becomes the verified active site in one command",
  sites: "both",
  minutes: 5,
  limit: 45,
  async run(context) {
    const { environment, report } = context;
    const outage = Outage.of(environment);
    if (outage === undefined) return report.skip("cold-vps", noPower);
    const pair = await takePair(context);
    await beginAt(context, pair, "home");
    const { epoch } = await pair.lease();
    const peer = await pair.meetPeer();
    // The one has nothing to do with the other, and to make a cluster anew takes half a minute.
    const posting = report.step("posts, which reach the vault", () => archivedPosts(pair));
    await allOf<unknown>([posting, loseVps(context, pair)]);
    const posts = await posting;
    await peer.stop();

    const places = placesOf(pair);
    await report.check("a kit is made before the VPS has a kubeconfig, and says where that goes", () =>
      kitBeforeVps(pair, places),
    );
    const kit = (await report.step("homestead kit", () => makeKit(pair, "homestead-kit.age"))).file;
    const start = Date.now();
    await report.step("home's power is cut", () => pair.losePower(outage, "home", { posts: [], port: 0 }));
    // On another machine there is nothing where the stacks look for their kubeconfigs.
    fs.renameSync(places, `${places}.away`);
    const machine = await report.step("another machine: a clone, and the kit", () => openKit(context, pair, kit));
    const outcome = await report.step("homestead switch vps --lost, there", () => machine.switchToVps());
    fs.renameSync(`${places}.away`, places);
    await report.check(
      `one command: an empty cluster is the verified active site, ${Math.round((Date.now() - start) / 1000)} s after the power went`,
      () => {
        succeeded(outcome, "homestead switch");
        assert.match(outcome.output, /^done {2}verify /m);
      },
    );
    if (outcome.code !== 0) throw new Error("without a server nothing else can be tried");
    await report.check("whether home was dead was not known: its grace was waited out", () =>
      assert.match(outcome.output, /waits the old site's grace out/),
    );
    // What it wrote into its files is what the owner would push and pull.
    for (const file of ["Pulumi.yaml", "Pulumi.home.yaml", "Pulumi.vps.yaml"]) {
      fs.copyFileSync(path.join(machine.folder, file), path.join(pair.project.folder, file));
    }
    await report.check(`vps is the active site, epoch ${epoch + 1}, and nothing transient is left in the files`, () =>
      pair.mustBe("vps", epoch + 1),
    );
    await report.check(`every post is there (${posts.length})`, async () => {
      assert.deepEqual(missing(posts, await postsIn(pair.clusters.vps)), []);
    });
    // Its authority is as new as the cluster.
    await pair.learnAuthority("vps");
    await allOf<unknown>([
      report.check("an update of vps would change nothing", async () => {
        succeeded(await pair.project.preview("vps", ["--expect-no-changes"]), "preview of vps");
      }),
      pair.meetPeer().then((again) => followStillWorks(context, pair, again)),
    ]);
  },
};

/** Nothing of ours is in the other cluster any more. Such a pair is not handed on: home is to be off, too. */
async function loseVps({ report }: Context, pair: Pair): Promise<void> {
  await report.step("the vps, which was warm, is lost: its cluster is a new one, its state the old one's", async () => {
    await pair.clusters.vps.empty();
    pair.project.set("vps", "standby", "cold");
    const { stdout } = await pair.project.mustPulumi(["stack", "export", "--stack", "vps"]);
    for (const type of ["core/v1:Namespace", "helm.sh/v3:Release", "postgresql.cnpg.io/v1:Cluster"])
      assert.ok(stdout.includes(`"kubernetes:${type}"`), `the state lists no ${type}`);
  });
}

const kitPassphrase = "correct horse battery staple";

/** Gives each stack a kubeconfig of its own, in a folder that can be taken away. @returns the folder */
function placesOf({ project, clusters }: Pair): string {
  const folder = path.join(project.root, "first-machine");
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder);
  for (const site of ["home", "vps"] as const) {
    const { context, kubeconfig } = clusters[site].access;
    const place = path.join(folder, site);
    fs.copyFileSync(kubeconfig, place);
    project.set(site, "cluster", { context, kubeconfig: place });
  }
  return folder;
}

/** One that is rented when it is needed has none until then. */
async function kitBeforeVps(pair: Pair, places: string): Promise<void> {
  const place = path.join(places, "vps");
  fs.renameSync(place, `${place}.later`);
  try {
    const { said } = await makeKit(pair, "early-kit.age");
    assert.ok(said.includes(`kubeconfig ${place} does not exist`), said);
    assert.match(said, /written into the opened kit as kubeconfig-vps$/m);
  } finally {
    fs.renameSync(`${place}.later`, place);
  }
}

async function makeKit({ project }: Pair, name: string): Promise<{ file: string; said: string }> {
  const file = path.join(project.root, name);
  fs.rmSync(file, { force: true });
  const env = { HOMESTEAD_KIT_PASSPHRASE: kitPassphrase };
  const made = await project.homestead(["kit", "--output", file], { env });
  succeeded(made, "homestead kit");
  return { file, said: made.output };
}

/**
 * A machine of its own: an empty home folder, a clone with the files of an earlier day, no variable of Pulumi's and no
 * kubeconfig. All that it needs comes out of the kit.
 */
async function openKit({ logs, environment }: Context, pair: Pair, kit: string) {
  const { project } = pair;
  const root = path.join(project.root, "another-machine");
  fs.rmSync(root, { recursive: true, force: true });
  const folder = path.join(root, "homestead");
  const home = path.join(root, "home");
  fs.mkdirSync(home, { recursive: true });
  fs.cpSync(project.folder, folder, { recursive: true });
  const bare = Object.fromEntries(
    Object.entries(project.env).filter(([name]) => !/^(PULUMI_(BACKEND|CONFIG|HOME)|KUBECONFIG|AWS_|HOME$)/.test(name)),
  );
  const env = { ...bare, HOME: home, PULUMI_HOME: path.join(home, ".pulumi"), HOMESTEAD_KIT_PASSPHRASE: kitPassphrase };
  const command = path.join(folder, "cli", "homestead.mjs");
  const opened = path.join(home, "kit");
  const shell = async (script: string, name: string, seconds: number): Promise<PulumiOutcome> => {
    const log = path.join(logs, name);
    return { ...(await run("bash", ["-c", script], { cwd: folder, env, seconds, log })), log };
  };
  const said = await shell(`node ${command} kit open ${kit} --into ${opened}`, "kit-open.log", 120);
  if (said.code !== 0) throw new Error(`homestead kit open: ${said.output}`);
  // The line that it prints for this very server, as somebody would copy it.
  const prepare = /^ {2}(\. .*)$/m.exec(said.output)?.[1] ?? "false";
  const resolver = `--resolver ${environment.dns.server}`;
  return {
    folder,
    switchToVps: () =>
      shell(`${prepare} && node ${command} switch vps --lost --yes ${resolver}`, "kit-switch.log", 1800),
  };
}

/** @returns posts that have left home for certain */
async function archivedPosts(pair: Pair): Promise<{ id: string }[]> {
  await baseBackupIn(pair.s3, pair.archive("home"));
  await pair.followName();
  const posts: { id: string }[] = [];
  for (let i = 0; i < 10; i++) posts.push({ id: await pair.owner.post(`before the cold start, ${i}`) });
  await archived(pair.clusters.home);
  return posts;
}

/** Waits until everything written so far is in the vault. */
async function archived(cluster: Cluster): Promise<void> {
  const segment = await cluster.sql("SELECT pg_walfile_name(pg_switch_wal())");
  await eventually(120, `${segment} in the vault`, async () => {
    const last = await cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver");
    assert.ok(last.slice(8, 24) >= segment.slice(8), `the last one is ${last}`);
  });
}
