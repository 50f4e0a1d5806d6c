/**
 * The images of the tests. Where clusters pull, `E2E_IMAGES` or the published ones are used. The lab pulls nothing:
 * there the stand-in for Mastodon is built (once, kept under its digest in the lab's image folder) and the lab's own
 * images are named.
 */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { testAuthority } from "./authority";
import { checkout } from "./environment";
import type { Environment } from "./environment";
import { Lab } from "./lab";
import { must, run } from "./processes";

const standin = path.join(checkout, "test", "standin");
const repository = "homestead.test/standin";

/** Images of the stand-in; `name` is the key under which the scenarios find it. */
const variants = [
  { name: "", version: "4.6.2", tag: "v4.6.2", flags: [] },
  { name: "next", version: "4.6.3", tag: "v4.6.3", flags: [] },
  { name: "failing-migration", version: "4.6.4", tag: "v4.6.4-failing-migration", flags: ["--fail-migration"] },
  // No newer release: what that one migrates before it fails would be missing from the good upgrade that comes next.
  {
    name: "failing-post-migration",
    version: "4.6.2",
    tag: "v4.6.2-failing-post-migration",
    flags: ["--fail-post-migration"],
  },
] as const;

/** What the lab has for each of the program's images (versions.ts). */
const labImages: Record<string, string> = {
  // The published names, by tag: what was built by hand has another digest.
  "cert-manager-controller": "quay.io/jetstack/cert-manager-controller:v1.21.1",
  "cert-manager-webhook": "quay.io/jetstack/cert-manager-webhook:v1.21.1",
  "cert-manager-cainjector": "quay.io/jetstack/cert-manager-cainjector:v1.21.1",
  "cert-manager-acmesolver": "quay.io/jetstack/cert-manager-acmesolver:v1.21.1",
  "cert-manager-startupapicheck": "quay.io/jetstack/cert-manager-startupapicheck:v1.21.1",
  "cloudnative-pg": "ghcr.io/cloudnative-pg/cloudnative-pg:1.30.0",
  "barman-plugin": "ghcr.io/cloudnative-pg/plugin-barman-cloud:v0.14.0",
  "barman-sidecar": "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.14.0",
  postgres: "docker.io/lab/postgresql:15",
  valkey: "docker.io/valkey/valkey:lab",
  nginx: "docker.io/nginxinc/nginx-unprivileged:lab",
  node: "docker.io/library/node:24",
  versitygw: "homestead.test/versitygw:lab",
};

/** What the lab has only if somebody gave it: nothing on this machine makes it, and scenarios do without. */
const givenImages: Record<string, string> = {
  elasticsearch: "docker.elastic.co/elasticsearch/elasticsearch:7.17.29",
  // The same content under another name, and the next release that CloudNativePG goes to.
  "postgres-minor": "docker.io/lab/postgresql:15-minor",
  "postgres-major": "docker.io/lab/postgresql:17",
};

/** Makes `environment.images` complete: what the suite was told, and on the lab what it has or can build. */
export async function prepareImages(environment: Environment): Promise<void> {
  // The remote server is started from the same folder, also where no image has to be built.
  if (!fs.existsSync(path.join(standin, "node_modules"))) {
    await must("npm", ["ci"], { cwd: standin, env: environment.childEnv, seconds: 300 });
  }
  const lab = Lab.of(environment);
  if (lab === undefined) return;
  const there = await lab.images();
  const built: Record<string, string> = {};
  for (const variant of variants) {
    const suffix = variant.name === "" ? "" : `-${variant.name}`;
    built[`mastodon${suffix}`] = `${repository}/mastodon:${variant.tag}`;
    built[`mastodon-streaming${suffix}`] = `${repository}/mastodon-streaming:${variant.tag}`;
    await buildStandin(environment, lab, variant);
  }
  if (!there.has(labImages["versitygw"] ?? "")) {
    await lab.run([
      "image",
      "build",
      labImages["versitygw"] ?? "",
      "--dir",
      "/data",
      "--dir",
      "/tmp",
      "--add",
      `${lab.home}/bin/versitygw:/usr/local/bin/versitygw`,
      "--entrypoint",
      '["/usr/local/bin/versitygw"]',
    ]);
  }
  built["broken-blog"] = await buildBrokenBlog(environment, lab, there);
  const rclone = await buildRclone(lab, there);
  if (rclone !== undefined) built["rclone"] = rclone;
  const given = Object.fromEntries(Object.entries(givenImages).filter(([, reference]) => there.has(reference)));
  environment.images = { ...labImages, ...given, ...built, ...environment.images };
}

/** A web server that gets ready, and then offers every page for download: the blog's folder is mounted where nginx would serve it. */
async function buildBrokenBlog(environment: Environment, lab: Lab, there: ReadonlySet<string>): Promise<string> {
  const name = "homestead.test/broken-blog:lab";
  if (there.has(name)) return name;
  const configuration = path.join(environment.cache, "httpd.conf");
  fs.writeFileSync(configuration, ".html:application/octet-stream\n");
  const program = (await must("sh", ["-c", "command -v busybox"])).trim();
  const entrypoint = JSON.stringify([
    "/bin/busybox",
    "httpd",
    "-f",
    "-p",
    "8080",
    "-c",
    "/etc/httpd.conf",
    "-h",
    "/usr/share/nginx/html",
  ]);
  await lab.run([
    "image",
    "build",
    name,
    "--dir",
    "/tmp",
    "--add",
    `${program}:/bin/busybox`,
    "--add",
    `${configuration}:/etc/httpd.conf`,
    "--entrypoint",
    entrypoint,
  ]);
  return name;
}

/** Debian's rclone with the libraries it is linked to, and a shell; none where this machine has no rclone. */
async function buildRclone(lab: Lab, there: ReadonlySet<string>): Promise<string | undefined> {
  const name = "homestead.test/rclone:lab";
  if (there.has(name)) return name;
  const found = await run("sh", ["-c", "command -v rclone && command -v busybox"]);
  const [rclone, busybox] = found.stdout.trim().split("\n");
  if (found.code !== 0 || rclone === undefined || busybox === undefined) return undefined;
  const libraries = [...(await must("ldd", [rclone])).matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, file = ""]) => file);
  const add = [`${rclone}:/usr/bin/rclone`, `${busybox}:/bin/busybox`, ...libraries.map((file) => `${file}:${file}`)];
  const programs = ["sh", "cat", "mkdir", "find", "wc", "date", "grep", "sleep", "ls"];
  await lab.run([
    "image",
    "build",
    name,
    "--dir",
    "/tmp",
    ...add.flatMap((item) => ["--add", item]),
    ...programs.flatMap((program) => ["--link", `/bin/${program}:busybox`]),
    "--entrypoint",
    '["rclone"]',
  ]);
  return name;
}

/** Builds one image of the stand-in and gives it to the lab, unless it has the same already. */
async function buildStandin(environment: Environment, lab: Lab, variant: (typeof variants)[number]): Promise<void> {
  const authority = await testAuthority(environment);
  const base = path.join(lab.home, "images", "node.tar");
  const hash = crypto.createHash("sha256");
  hash.update(JSON.stringify(variant)).update(fs.readFileSync(authority.certificate));
  const { size, mtimeMs } = fs.statSync(base);
  hash.update(`${size} ${mtimeMs}`);
  for (const file of sources()) hash.update(file).update(fs.readFileSync(path.join(standin, file)));
  const prefix = `homestead-standin-${variant.tag}-`;
  const archive = `${prefix}${hash.digest("hex").slice(0, 16)}.tar`;
  const folder = path.join(lab.home, "images");
  if (fs.existsSync(path.join(folder, archive))) return;

  const out = path.join(environment.cache, archive);
  fs.mkdirSync(environment.cache, { recursive: true });
  const names = ["mastodon", "mastodon-streaming"].flatMap((image) => [
    "--name",
    `${repository}/${image}:${variant.tag}`,
  ]);
  await must(
    "node",
    [
      "build.ts",
      "--base",
      base,
      "--out",
      out,
      ...names,
      "--version",
      variant.version,
      "--ca",
      authority.certificate,
      ...variant.flags,
    ],
    { cwd: standin, env: environment.childEnv, seconds: 300 },
  );
  // The lab imports every archive of its folder at each start: an older one would take the name back.
  for (const old of fs.readdirSync(folder).filter((file) => file.startsWith(prefix))) fs.rmSync(path.join(folder, old));
  await lab.run(["image", "load", out]);
  fs.rmSync(out);
}

/** The stand-in's own files: what git knows and what it would. */
function sources(): string[] {
  return fs
    .readdirSync(standin, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(standin, path.join(entry.parentPath, entry.name)))
    .filter((file) => /^(src\/|build\.ts$|package(-lock)?\.json$)/.test(file))
    .sort();
}
