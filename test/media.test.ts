/**
 * Media: in a bucket, or on a volume. The copy's script is run with the real rclone where there is one (apt-get install
 * rclone), a folder in the vault's place; on real S3 it runs in the end-to-end suite (volume-media).
 */
import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { copyAssets, mediaValues, publicUrl, volumeProbe } from "../components/media";
import type { MediaBucket } from "../components/media";
import { copiedKey, filesPrefix, sentinel } from "../components/media-copy";
import { at, planStack, projectFolder } from "../lib/plan";
import type { Plan } from "../lib/plan";
import type { Json } from "../lib/plan/mask";
import { checksOf } from "../lib/verify/checks";
import type { Client } from "../lib/verify/client";
import { run } from "./support/command";
import { copyProject, temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";
import { listingStore } from "./support/listing-store";
import { named } from "./support/planned";

const bucket: MediaBucket = {
  kind: "bucket",
  endpoint: "https://s3.example.net",
  region: "eu",
  bucket: "ramble-media",
};

describe("media in a bucket", () => {
  it("is the chart's s3, with addresses that Mastodon builds right", () => {
    expect(mediaValues({ ...bucket, publicUrl: "https://media.ramble.moe/files/" }, "media")).toEqual({
      s3: {
        enabled: true,
        endpoint: "https://s3.example.net",
        hostname: "s3.example.net",
        region: "eu",
        bucket: "ramble-media",
        protocol: "https",
        aliasHost: "media.ramble.moe/files",
        existingSecret: "media",
      },
      pvc: { enabled: false },
    });
  });

  it("leaves Mastodon its path style, which the key of that name would take away", () => {
    // S3_OVERRIDE_PATH_STYLE=true means: bucket as a host name. Uploads then went to an address without the bucket.
    expect(mediaValues(bucket, "media").s3).not.toHaveProperty("overridePathStyle");
  });

  it("is shown at the endpoint where no other address is given", () => {
    expect(publicUrl(bucket)).toBe("https://s3.example.net/ramble-media");
  });
});

describe("media on a volume", () => {
  it("is the chart's two claims, and no bucket", () => {
    expect(mediaValues({ kind: "volume" }, "media")).toEqual({
      s3: { enabled: false },
      pvc: { enabled: true, system: { existingClaim: "media" }, assets: { existingClaim: "mastodon-assets" } },
    });
  });

  it("is seen at the web host by a file of its own", () => {
    expect(volumeProbe("mastodon.ramble.moe")).toBe("https://mastodon.ramble.moe/system/homestead/volume.txt");
    expect(volumeProbe("x").endsWith(sentinel)).toBe(true);
  });
});

describe("the verification of media on a volume", () => {
  const url = volumeProbe("mastodon.ramble.moe");
  /** What the check says of a web host that answers so. */
  const said = async (status: number, body: string) => {
    const client = {
      isOurs: () => true,
      ask: (asked: string) => Promise.resolve({ status: asked === url ? status : 500, headers: {}, body }),
    };
    const subject = { apex: "ramble.moe", webHost: "mastodon.ramble.moe", owner: "user", mediaFile: url };
    const check = checksOf(subject, client as unknown as Client).find(({ name }) => name === "media");
    return check?.run().catch((error: unknown) => error);
  };

  it("is content with the volume's own file", async () => {
    expect(await said(200, "homestead media volume of home\n")).toBe("homestead media volume of home");
  });

  it.each([
    [404, "Not Found", "HTTP 404"],
    [200, "<html>", "HTTP 200 with something else"],
  ])("is not with %s %s", async (status, body, got) => {
    expect(await said(status, body)).toMatchObject({
      expected: `${url} to answer 200 with the media volume's own file`,
      got,
    });
  });
});

/** The one container of a Job's pod. */
const containerOf = (job: Json | undefined) =>
  at(job, "spec.template.spec.containers.0") as unknown as { env: { name: string; value?: string }[] };

describe("the plan of a site with media on a volume", () => {
  const volumeOf = (storage: string) => (text: string) =>
    text
      .replace(/ {2}homestead:media:\n( {4}.*\n)+/, "  homestead:media: {kind: volume}\n")
      .replace(
        /( {2}homestead:storage:\n)( {4}.*\n)+/,
        `$1    kind: local\n    databases: local-path\n    media: ${storage}\n`,
      );
  let plans: Promise<[Plan, Plan]> | undefined;
  it("is filled again by a takeover, and not by a demotion, which the server is away for", async () => {
    const [home, standby] = (await planned()).map((plan) => named(plan, "media-restore"));
    expect(home?.options.ignoreChanges).toEqual([]);
    const env = "spec.template.spec.containers[0].env";
    const { env: variables } = containerOf(standby?.inputs);
    // Whatever else of it changes is seen: another volume is filled.
    expect(standby?.options.ignoreChanges).toEqual([
      `${env}[${variables.findIndex(({ name }) => name === "EPOCH")}].value`,
    ]);
  });

  /** Plans of both sites, made once. */
  const planned = () =>
    (plans ??= (() => {
      const folder = copyProject({ "Pulumi.home.yaml": volumeOf("nfs-client"), "Pulumi.vps.yaml": volumeOf("shared") });
      return Promise.all([planStack("home", { folder }), planStack("vps", { folder })]);
    })());

  it("keeps the claim, adopts it again, and fills it before Mastodon starts", async () => {
    const [plan] = await planned();
    const at = (name: string) => named(plan, name);
    const claim = at("media-volume");
    expect(claim.options.retainOnDelete).toBe(true);
    expect(claim.provider).toBe(at("kept").urn);
    expect(claim.inputs).toMatchObject({
      metadata: { name: "media" },
      spec: {
        accessModes: ["ReadWriteMany"],
        storageClassName: "nfs-client",
        resources: { requests: { storage: "50Gi" } },
      },
    });
    for (const job of ["media-restore", "media-assets"]) {
      expect(at("mastodon").options.dependsOn).toContain(at(job).urn);
    }
    expect(at("media-copy").inputs).toMatchObject({ spec: { schedule: "*/15 * * * *", concurrencyPolicy: "Forbid" } });
  });

  it("hands the media keys to the copy and to nobody else", async () => {
    const [plan] = await planned();
    const readers = plan.resources.filter((r) =>
      /"secretKeyRef":\{[^}]*"name":"media"\}/.test(JSON.stringify(r.inputs)),
    );
    expect(readers.map(({ name }) => name).sort()).toEqual(["media-copy", "media-restore"]);
    expect(JSON.stringify(named(plan, "mastodon-release").inputs)).not.toMatch(/S3_PERMISSION|s3\.eu/);
  });

  it("copies to the vault where it is written to, and from the vault on the standby", async () => {
    const [home, standby] = await planned();
    expect(JSON.stringify(named(home, "media-copy").inputs)).toContain('"/homestead/media-copy.sh","push"]');
    expect(JSON.stringify(named(standby, "media-copy").inputs)).toContain('"/homestead/media-copy.sh","pull"]');
  });
});

describe("the assets of an image", () => {
  it("are added to those of the version that still serves", () => {
    const folder = temporaryFolder();
    const [source, assets] = ["source", "assets"].map((name) => path.join(folder, name)) as [string, string];
    fs.mkdirSync(path.join(source, "packs"), { recursive: true });
    fs.mkdirSync(assets);
    fs.writeFileSync(path.join(source, ".manifest.json"), "new");
    fs.writeFileSync(path.join(source, "packs", "new-123.css"), "");
    fs.writeFileSync(path.join(assets, ".manifest.json"), "old");
    fs.writeFileSync(path.join(assets, "old-456.css"), "");
    const here = copyAssets.replace("/opt/mastodon/public/assets", source).replaceAll("/assets/;", `${assets}/;`);
    execFileSync("sh", ["-c", here]);
    expect(fs.readdirSync(assets, { recursive: true }).sort()).toEqual([
      ".manifest.json",
      "old-456.css",
      "packs",
      "packs/new-123.css",
    ]);
    expect(fs.readFileSync(path.join(assets, ".manifest.json"), "utf8")).toBe("new");
  });
});

const rclone = spawnSync("rclone", ["version"], { stdio: "ignore" }).error === undefined;
if (!rclone) console.log("left out: the media volume's copy (no rclone; apt-get install rclone)");
const shell = spawnSync("busybox", ["true"], { stdio: "ignore" }).error === undefined ? ["busybox", "sh"] : ["sh"];

describe.skipIf(leftOut(rclone ? undefined : "no rclone"))("the copy of a media volume", () => {
  /** A volume and a vault; a claim as Kubernetes would have made it. */
  function world(more: Record<string, string> = {}) {
    const folder = temporaryFolder();
    const volume = path.join(folder, "volume");
    const vault = path.join(folder, "bucket");
    fs.mkdirSync(volume);
    fs.mkdirSync(vault);
    const [program = "sh", ...args] = shell;
    const work = (what: string, env: Record<string, string> = {}) =>
      run(program, [...args, path.join(projectFolder, "components", "media-copy.sh"), what], {
        folder,
        environment: {
          PATH: process.env["PATH"],
          HOME: folder,
          RCLONE_CONFIG: path.join(folder, "none.conf"),
          VOLUME: volume,
          REMOTE: vault,
          FILES: filesPrefix,
          SITE: "home",
          CLAIM: "claim-1",
          EPOCH: "1",
          MIN_AGE: "0s",
          ...more,
          ...env,
        },
      });
    /** @param age seconds before {@link start} at which it was written; now if not given */
    const put = (file: string, text: string, root = volume, age?: number) => {
      fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      fs.writeFileSync(path.join(root, file), text);
      if (age === undefined) return;
      const seconds = start - age;
      fs.utimesSync(path.join(root, file), seconds, seconds);
    };
    const read = (file: string, root = volume) => fs.readFileSync(path.join(root, file), "utf8");
    const has = (file: string, root = volume) => fs.existsSync(path.join(root, file));
    const empty = () => {
      fs.rmSync(volume, { recursive: true });
      fs.mkdirSync(volume);
    };
    return { volume, vault, work, put, read, has, empty };
  }
  /** The same with a bucket in the vault's place, which tells what it was asked. */
  async function bucketWorld() {
    const store = await listingStore();
    return { ...world({ REMOTE: "vault:vault", ...store.environment }), store };
  }
  /** What the first restore leaves, of which each of its own would be three starts of rclone. */
  const first = {
    volume: { [sentinel]: "homestead media volume of home\n", "homestead/restored": "claim-1 1\n" },
    vault: { "media/volume-home": "claim-1" },
  };
  const fill = (put: (file: string, text: string) => void, files: Record<string, string>) => {
    for (const [file, text] of Object.entries(files)) put(file, text);
  };
  /** The same after it. */
  function begun() {
    const w = world();
    fill(w.put, first.volume);
    fill((file, text) => w.put(file, text, w.vault), first.vault);
    return w;
  }
  async function begunBucket() {
    const w = await bucketWorld();
    fill(w.put, first.volume);
    fill((key, text) => w.store.put(key, text, new Date(start * 1000)), first.vault);
    return w;
  }
  const start = Date.UTC(2026, 10, 23, 8) / 1000;
  const upload = "media_attachments/files/115/original/a.png";
  const inVault = `${filesPrefix}${upload}`;
  const video = "media_attachments/files/116/original/b.mp4";

  it("begins with nothing in the vault, and marks the volume", async () => {
    const w = world();
    expect(await w.work("restore")).toMatchObject({ code: 0, stdout: "media: 0 files on the volume\n" });
    const filesIn = (root: string) => {
      const files = fs.readdirSync(root, { recursive: true, encoding: "utf8" });
      const texts = files
        .filter((file) => fs.statSync(path.join(root, file)).isFile())
        .map((file) => [file, w.read(file, root)]);
      return Object.fromEntries(texts) as Record<string, string>;
    };
    expect({ volume: filesIn(w.volume), vault: filesIn(w.vault) }).toEqual(first);
  });

  it("brings new files to the vault and says when, and restores them to another volume", async () => {
    const w = begun();
    w.put(upload, "a picture");
    expect(await w.work("push")).toMatchObject({ code: 0, stdout: "media: copied\n" });
    expect(w.read(inVault, w.vault)).toBe("a picture");
    const copied = Date.parse(w.read(copiedKey("home"), w.vault).trim());
    expect(Math.abs(Date.now() - copied)).toBeLessThan(60_000);

    w.empty();
    expect(await w.work("restore", { CLAIM: "claim-2" })).toMatchObject({ code: 0 });
    expect(w.read(upload)).toBe("a picture");
    expect(w.has(sentinel)).toBe(true);
  });

  it("is not made of a volume that another one has taken the place of: its cluster was given up, and is back", async () => {
    const w = begun();
    await w.work("push");
    await w.work("restore", { CLAIM: "claim-2" });
    const before = "2026-11-23T08:00:00Z\n";
    w.put(copiedKey("home"), before, w.vault);
    w.put(upload, "a picture");
    expect(await w.work("push")).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(
        /^media: expected media\/volume-home in the vault to name this volume's claim, claim-1, got claim-2: home goes on with that one, on another cluster\. If it does not, delete the object$/m,
      ) as string,
    });
    expect(w.has(inVault, w.vault)).toBe(false);
    expect(w.read(copiedKey("home"), w.vault)).toBe(before);
    // The new one's age goes on, and a vault that has no such object is a new one.
    expect((await w.work("push", { CLAIM: "claim-2" })).code).toBe(0);
    fs.rmSync(path.join(w.vault, "media/volume-home"));
    expect((await w.work("push")).code).toBe(0);
  });

  it("deletes nothing in the vault, whatever is deleted on the volume", async () => {
    const w = begun();
    w.put(upload, "a picture");
    await w.work("push");
    fs.rmSync(path.join(w.volume, upload));
    expect((await w.work("push")).code).toBe(0);
    expect(w.has(inVault, w.vault)).toBe(true);
  });

  it("takes a file that was written again for its copy, and keeps the old one: Mastodon re-encodes videos", async () => {
    const w = begun();
    w.put(video, "as it was uploaded", w.volume, 120);
    await w.work("push");
    w.put(upload, "a picture", w.volume, 60);
    w.put(video, "re-encoded", w.volume, 60);
    const outcome = await w.work("push");
    expect(outcome).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        new RegExp(`^media: ${video} of \\S+ \\S+ took the place of that of .*\\nmedia: copied\\n$`),
      ) as string,
    });
    expect(w.read(`${filesPrefix}${video}`, w.vault)).toBe("re-encoded");
    expect(w.read(inVault, w.vault)).toBe("a picture");
    const kept = `media/replaced/${path.dirname(video)}`;
    const [name = "", ...others] = fs.readdirSync(path.join(w.vault, kept));
    expect(others).toEqual([]);
    expect(name).toMatch(/^b\.mp4\.20\d{12}$/);
    expect(w.read(`${kept}/${name}`, w.vault)).toBe("as it was uploaded");
    expect(await w.work("push")).toMatchObject({ code: 0, stdout: "media: copied\n" });
  });

  it("leaves a copy alone whose file has changed and was not written, and fails, so that the copy's age tells", async () => {
    const w = begun();
    w.put(upload, "a picture", w.volume, 60);
    await w.work("push");
    const before = "2026-11-23T08:00:00Z\n";
    w.put(upload, "half a pic", w.volume, 60);
    w.put(video, "new", w.volume, 60);
    w.put(copiedKey("home"), before, w.vault);
    const outcome = await w.work("push");
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(/immutable file modified/);
    expect(outcome.stderr).toMatch(/media: expected the vault to answer 'rclone copy', got exit code \d+/);
    expect(w.read(inVault, w.vault)).toBe("a picture");
    expect(w.read(`${filesPrefix}${video}`, w.vault)).toBe("new");
    expect(w.has("media/replaced", w.vault)).toBe(false);
    expect(w.read(copiedKey("home"), w.vault)).toBe(before);
  });

  it("replaces no copy by a file that is older, or may still be being written", async () => {
    const w = begun();
    w.put(upload, "a picture", w.volume, 60);
    await w.work("push");
    w.put(upload, "an older one", w.volume, 120);
    expect((await w.work("push")).code).toBe(1);
    w.put(upload, "being written");
    expect((await w.work("push", { MIN_AGE: "1m" })).code).toBe(0);
    expect(w.read(inVault, w.vault)).toBe("a picture");
  });

  it("copies neither other servers' files, nor its own mark, nor what may still be being written", async () => {
    const w = begun();
    w.put("cache/accounts/1.png", "somebody's");
    w.put(upload, "being written");
    await w.work("push", { MIN_AGE: "1m" });
    expect(fs.readdirSync(path.join(w.vault, "media"))).not.toContain("files");
    await w.work("push");
    expect(fs.readdirSync(path.join(w.vault, "media", "files"))).toEqual(["media_attachments"]);
  });

  it("takes a volume that lost its mark for a share that is not mounted, and writes nothing", async () => {
    const w = begun();
    w.put(upload, "a picture");
    await w.work("push");
    w.empty();
    const expected =
      "media: expected homestead/volume.txt on the volume, got none: the share behind the claim 'media' is empty or not mounted. " +
      "Mount it; if its files are lost, delete the claim (docs/runbooks/media-volume.md)\n";
    for (const what of ["restore", "push", "pull"]) {
      expect([what, await w.work(what)]).toEqual([
        what,
        { code: 1, stdout: "", stderr: expect.stringContaining(expected) as unknown },
      ]);
      expect(fs.readdirSync(w.volume)).toEqual([]);
    }
  });

  it("does not take a vault that cannot be asked for an empty one", async () => {
    const w = world();
    const outcome = await w.work("restore", { REMOTE: path.join(w.vault, "gone") });
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(/media: expected the vault to /);
    expect(fs.readdirSync(w.volume)).toEqual([]);
  });

  it("brings a standby what is new or was written again, and changes nothing else", async () => {
    const w = begun();
    w.put("a.png", "as it is here", w.volume, 60);
    w.put(`${filesPrefix}a.png`, "as it is there, and longer", w.vault, 60);
    w.put(`${filesPrefix}b.png`, "new", w.vault);
    w.put(video, "as it was uploaded", w.volume, 120);
    w.put(`${filesPrefix}${video}`, "re-encoded", w.vault, 60);
    expect((await w.work("pull")).code).toBe(0);
    expect([w.read("a.png"), w.read("b.png"), w.read(video)]).toEqual(["as it is here", "new", "re-encoded"]);
    expect(fs.readdirSync(path.join(w.vault, "media")).sort()).toEqual(["files", "volume-home"]);
  });

  it("brings a site that takes over what it lacks, though its volume is not new", async () => {
    const w = begun();
    w.put(inVault, "made at the other site", w.vault);
    expect((await w.work("restore", { EPOCH: "2" })).code).toBe(0);
    expect(w.read(upload)).toBe("made at the other site");
  });

  it("brings a volume what it lacks once the vault has forgotten it: uploads were in a bucket meanwhile", async () => {
    const w = world();
    await w.work("restore");
    w.put(upload, "a picture");
    w.put(video, "re-encoded", w.volume, 60);
    await w.work("push");
    w.put(`${filesPrefix}${video}`, "as it was uploaded", w.vault, 120);
    w.put(`${filesPrefix}new.png`, "uploaded to the bucket", w.vault);
    // As docs/runbooks/media-volume.md has it.
    execFileSync("rclone", ["delete", path.join(w.vault, "media/volume-home")], { stdio: "ignore" });
    expect(w.has("media/volume-home", w.vault)).toBe(false);
    expect(await w.work("restore")).toMatchObject({ code: 0, stdout: "media: 3 files on the volume\n" });
    expect([w.read("new.png"), w.read(video), w.read(upload)]).toEqual([
      "uploaded to the bucket",
      "re-encoded",
      "a picture",
    ]);
    expect(w.read("media/volume-home", w.vault)).toBe("claim-1");
  });

  it("brings back nothing that was deleted since, when it is run again for the same volume and epoch", async () => {
    const w = begun();
    w.put(upload, "a picture");
    await w.work("push");
    fs.rmSync(path.join(w.volume, upload));
    expect(await w.work("restore")).toMatchObject({ code: 0, stdout: "media: 0 files on the volume\n" });
    expect(w.has(upload)).toBe(false);
  });

  it("tries again after a restore that failed", async () => {
    const w = world();
    w.put(inVault, "a picture", w.vault);
    fs.mkdirSync(path.join(w.volume, upload), { recursive: true });
    expect((await w.work("restore")).code).toBe(1);
    fs.rmdirSync(path.join(w.volume, upload));
    expect((await w.work("restore")).code).toBe(0);
    expect(w.read(upload)).toBe("a picture");
  });

  describe("in a bucket that bills requests", () => {
    /** Uploads as Mastodon lays them: each in folders of its own. */
    const uploads = Array.from(
      { length: 12 },
      (_, i) => `media_attachments/files/115/${100 + i}/447/${(i * 77) % 1000}/original/a.png`,
    );
    const kinds = (requests: string[]) => [...new Set(requests.map((request) => request.split(" ")[0] ?? ""))].sort();
    const about = (requests: string[], kind: string, prefix: string) =>
      requests.filter((request) => request.startsWith(`${kind} ${prefix}`));

    it("is one list for a thousand files, and no question about any of them, both ways", async () => {
      const w = await bucketWorld();
      await w.work("restore");
      for (const file of uploads) w.put(file, "a picture", w.volume, 600);
      expect((await w.work("push", { MIN_AGE: "1m" })).code).toBe(0);
      for (const file of uploads) expect(w.store.text(`${filesPrefix}${file}`)).toBe("a picture");
      w.store.take();
      for (const what of ["push", "pull"]) {
        expect((await w.work(what, { MIN_AGE: "1m" })).code).toBe(0);
        const asked = w.store.take();
        // Which volume the site has is asked about once more, by the list of what is right below media/.
        const first = what === "push" ? ["LIST media/", "LIST media/"] : [];
        expect([what, about(asked, "LIST", "")]).toEqual([what, [...first, `LIST ${filesPrefix}`]]);
        for (const kind of ["HEAD", "GET", "PUT"])
          expect([kind, about(asked, kind, `${filesPrefix}m`)]).toEqual([kind, []]);
      }
    });

    it("brings what is new and nothing else, and deletes nothing, what it leaves out itself included", async () => {
      const w = await begunBucket();
      const at = new Date((start - 600) * 1000);
      const there = ["cache/accounts/1.png", "homestead/volume.txt", "gone/from/the/volume.png"];
      for (const file of there) w.store.put(`${filesPrefix}${file}`, "there", at);
      w.put(upload, "a picture", w.volume, 600);
      w.put(video, "being written");
      w.store.take();
      expect((await w.work("push", { MIN_AGE: "1m" })).code).toBe(0);
      const asked = w.store.take();
      expect(about(asked, "PUT", "")).toEqual([`PUT ${inVault}`, `PUT ${copiedKey("home")}`]);
      expect(kinds(asked)).not.toContain("DELETE");
      for (const file of there) expect(w.store.text(`${filesPrefix}${file}`)).toBe("there");
      // A second one right after the first: what the vault was given just now is there, however young it is.
      expect((await w.work("push", { MIN_AGE: "1m" })).code).toBe(0);
      expect(about(w.store.take(), "PUT", filesPrefix)).toEqual([]);
    });

    it("takes a file that was written again for its copy, keeps the old one, and asks about no other", async () => {
      const w = await begunBucket();
      const at = new Date((start - 7200) * 1000);
      for (const file of [...uploads, video]) {
        w.put(file, "as it was uploaded", w.volume, 7200);
        w.store.put(`${filesPrefix}${file}`, "as it was uploaded", at);
      }
      w.put(video, "re-encoded", w.volume, 600);
      w.store.take();
      const outcome = await w.work("push", { MIN_AGE: "1m" });
      expect(outcome).toMatchObject({ code: 0, stdout: expect.stringContaining("took the place of") as unknown });
      expect(w.store.text(`${filesPrefix}${video}`)).toBe("re-encoded");
      const kept = [...w.store.objects.keys()].filter((key) => key.startsWith("media/replaced/"));
      expect(kept).toEqual([expect.stringMatching(/116\/original\/b\.mp4\.20\d{12}$/)]);
      expect(w.store.text(kept[0] ?? "")).toBe("as it was uploaded");
      const asked = w.store.take();
      expect(about(asked, "HEAD", `${filesPrefix}media_attachments/files/115/`)).toEqual([]);
      expect(about(asked, "LIST", filesPrefix).filter((request) => request.includes("/115/"))).toEqual([]);
    });

    it("leaves a copy alone whose file has changed and was not written, even within a minute of the copy", async () => {
      const w = await begunBucket();
      w.put(upload, "a picture", w.volume, 600);
      await w.work("push", { MIN_AGE: "1m" });
      w.put(upload, "half a pic", w.volume, 600);
      const outcome = await w.work("push", { MIN_AGE: "1m" });
      expect(outcome).toMatchObject({ code: 1, stderr: expect.stringContaining("immutable file modified") as unknown });
      expect(w.store.text(inVault)).toBe("a picture");
    });
  });

  it("refuses other work", async () => {
    expect(await world().work("sync")).toMatchObject({
      code: 1,
      stderr: "media: expected restore, push or pull, got 'sync'\n",
    });
  });
});
