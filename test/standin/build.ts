/**
 * Builds the image of the stand-in for Mastodon: a docker-archive, made of a Node 24 image's archive and one layer of ours, without Docker and
 * without a registry.
 *
 *   node test/standin/build.ts --base node.tar --out standin.tar \
 *     --name homestead.test/standin/mastodon:v4.6.2 --name homestead.test/standin/mastodon-streaming:v4.6.2
 */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { createGunzip } from "node:zlib";
import { build as esbuild } from "esbuild";
import { extract, pack, type Header } from "tar-stream";

const here = import.meta.dirname;

export interface Variant {
  /** The release this image plays: "4.6.2". */
  readonly version: string;
  /** Bakes in a migration that fails: before deployment, or after it. */
  readonly failMigration: boolean | "post";
  /** Seconds that a Ruby program of the image takes before it does anything. @default 0 */
  readonly bootSeconds?: number;
}

/** The bundle and what it reads at start, in `folder` (which becomes /opt/mastodon/standin in the image). */
export async function bundle(folder: string, variant: Variant): Promise<void> {
  await mkdir(folder, { recursive: true });
  await esbuild({
    absWorkingDir: here,
    entryPoints: ["src/main.ts"],
    outfile: join(folder, "main.mjs"),
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    logLevel: "warning",
    // Packages that are still CommonJS ask for `require`, which a module file has not.
    banner: {
      js: 'import { createRequire as standinRequire } from "node:module"; const require = standinRequire(import.meta.url);',
    },
  });
  const { version, failMigration, bootSeconds = 0 } = variant;
  await writeFile(join(folder, "build.json"), `${JSON.stringify({ version, failMigration, bootSeconds })}\n`);
}

interface Entry {
  readonly path: string;
  readonly kind: "file" | "directory" | "symlink";
  readonly mode: number;
  readonly uid?: number;
  readonly data?: Buffer | string;
  readonly target?: string;
}

const PROGRAMS = ["bundle", "rails", "rake", "tootctl", "prometheus_exporter"] as const;

/** What the stand-in adds to its base: the layout of the official image, as far as anything outside can see it. */
async function layer(variant: Variant): Promise<Entry[]> {
  const folder = await mkdtemp(join(tmpdir(), "standin-build-"));
  try {
    await bundle(folder, variant);
    const script = (program: string): string =>
      `#!/bin/sh\nexec /usr/local/bin/node --use-system-ca /opt/mastodon/standin/main.mjs ${program} "$@"\n`;
    const directory = (path: string, mode = 0o755): Entry => ({ path, kind: "directory", mode, uid: 991 });
    const file = (path: string, data: Buffer | string, mode = 0o644): Entry => ({ path, kind: "file", mode, data });
    return [
      directory("opt/mastodon"),
      directory("opt/mastodon/bin"),
      directory("opt/mastodon/config"),
      directory("opt/mastodon/standin"),
      directory("opt/mastodon/streaming"),
      // Writable for whatever user the pod runs as, as in the official image.
      ...["tmp", "log", "public", "public/assets", "public/packs", "public/system"].map((path) =>
        directory(`opt/mastodon/${path}`, 0o1777),
      ),
      file(
        "opt/mastodon/public/assets/standin.txt",
        "A file for jobs that copy the assets. This is a stand-in for Mastodon.\n",
      ),
      file(
        "opt/mastodon/config/puma.rb",
        "# The stand-in for Mastodon has no Puma; this file is named on its command line.\n",
      ),
      ...PROGRAMS.map((program) => file(`opt/mastodon/bin/${program}`, script(program), 0o755)),
      ...PROGRAMS.slice(0, 1).map((program): Entry => ({
        path: `usr/local/bin/${program}`,
        kind: "symlink",
        mode: 0o777,
        target: `/opt/mastodon/bin/${program}`,
      })),
      file("opt/mastodon/standin/main.mjs", await readFile(join(folder, "main.mjs"))),
      file("opt/mastodon/standin/build.json", await readFile(join(folder, "build.json"))),
      // `node ./streaming` finds this through package.json, as it does with the real one.
      file(
        "opt/mastodon/streaming/package.json",
        '{ "name": "@mastodon/streaming-standin", "type": "module", "main": "index.js" }\n',
      ),
      file(
        "opt/mastodon/streaming/index.js",
        'process.argv.splice(2, 0, "streaming");\nawait import("../standin/main.mjs");\n',
      ),
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Bytes = AsyncIterable<Uint8Array>;

async function collect(stream: Bytes): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

interface ImageConfig {
  config?: { Env?: string[]; [key: string]: unknown };
  rootfs: { type: "layers"; diff_ids: string[] };
  history?: unknown[];
  [key: string]: unknown;
}

interface Base {
  readonly config: ImageConfig;
  /** The layers' names in the archive, lowest first. */
  readonly layers: readonly string[];
}

/** Entries of a tar, one after the other; what the visitor does not read is skipped. */
async function walk(
  source: NodeJS.ReadableStream,
  visit: (header: Header, body: Bytes) => Promise<void>,
): Promise<void> {
  const reader = extract();
  const reading = (async () => {
    for await (const entry of reader) {
      // The types know of no chunk type; a tar's are bytes.
      await visit(entry.header, entry as unknown as Bytes);
      entry.resume();
    }
  })();
  await Promise.all([pipeline(source, reader), reading]);
}

async function readBase(path: string): Promise<Base> {
  const small = new Map<string, Buffer>();
  await walk(createReadStream(path), async (header, body) => {
    // The manifest and the configuration; in archives of newer Docker they have no telling names.
    if (header.type === "file" && (header.size ?? 0) < 1_000_000) small.set(header.name, await collect(body));
  });
  const json = (name: string): unknown => {
    const data = small.get(name);
    if (data === undefined)
      throw new Error(`${path}: no ${name} in it; it is not a docker-archive (docker save, ctr images export)`);
    return JSON.parse(data.toString("utf8"));
  };
  const [manifest, ...more] = json("manifest.json") as { Config: string; Layers: string[] }[];
  if (manifest === undefined || more.length > 0) throw new Error(`${path}: it must hold exactly one image`);
  return { config: json(manifest.Config) as ImageConfig, layers: manifest.Layers };
}

/** Layers come zipped from some tools and plain from others. */
async function unzipped(body: Bytes): Promise<Readable> {
  const chunks = body[Symbol.asyncIterator]();
  const first = await chunks.next();
  const whole = Readable.from(
    (async function* () {
      if (!first.done) yield first.value;
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
    })(),
  );
  return !first.done && first.value[0] === 0x1f && first.value[1] === 0x8b ? whole.pipe(createGunzip()) : whole;
}

/** Reads some files of the base image, the uppermost layer's version of each. */
async function readFiles(path: string, base: Base, wanted: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, { depth: number; text: string }>();
  await walk(createReadStream(path), async (header, body) => {
    const depth = base.layers.indexOf(header.name);
    if (depth < 0) return;
    await walk(await unzipped(body), async (inner, data) => {
      const name = inner.name.replace(/^\.?\//, "");
      if (inner.type !== "file" || !wanted.includes(name) || (found.get(name)?.depth ?? -1) > depth) return;
      found.set(name, { depth, text: (await collect(data)).toString("utf8") });
    });
  });
  return new Map([...found].map(([name, { text }]) => [name, text]));
}

function toTar(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const entry of entries) {
    const header: Partial<Header> & { name: string } = {
      name: entry.kind === "directory" ? `${entry.path}/` : entry.path,
      type: entry.kind,
      mode: entry.mode,
      uid: entry.uid ?? 0,
      gid: entry.uid ?? 0,
      // The same input gives the same image.
      mtime: new Date(0),
      ...(entry.target === undefined ? {} : { linkname: entry.target }),
    };
    if (entry.kind === "file") tar.entry(header, entry.data ?? "");
    else tar.entry(header);
  }
  tar.finalize();
  return collect(tar as unknown as Bytes);
}

const sha256 = (data: Buffer | string): string => createHash("sha256").update(data).digest("hex");

const line = (text: string): string => (text === "" || text.endsWith("\n") ? text : `${text}\n`);

export interface ImageOptions extends Variant {
  readonly base: string;
  readonly out: string;
  readonly names: readonly string[];
  /** PEM files to trust, beside what the base trusts. */
  readonly authorities: readonly string[];
}

export async function buildImage(options: ImageOptions): Promise<void> {
  const base = await readBase(options.base);
  const bundlePath = "etc/ssl/certs/ca-certificates.crt";
  const files = await readFiles(options.base, base, ["etc/passwd", "etc/group", bundlePath]);
  const authorities = await Promise.all(options.authorities.map((path) => readFile(path, "utf8")));
  const entries: Entry[] = [
    ...(await layer(options)),
    {
      path: "etc/passwd",
      kind: "file",
      mode: 0o644,
      data: `${line(files.get("etc/passwd") ?? "")}mastodon:x:991:991::/opt/mastodon:/bin/sh\n`,
    },
    { path: "etc/group", kind: "file", mode: 0o644, data: `${line(files.get("etc/group") ?? "")}mastodon:x:991:\n` },
    ...authorities.map((pem, index): Entry => ({
      path: `usr/local/share/ca-certificates/standin-${index}.crt`,
      kind: "file",
      mode: 0o644,
      data: pem,
    })),
    ...(authorities.length === 0
      ? []
      : [
          {
            path: bundlePath,
            kind: "file",
            mode: 0o644,
            data: [files.get(bundlePath) ?? "", ...authorities].map(line).join(""),
          } as const,
        ]),
  ];
  const ours = await toTar(entries);
  const ourName = `${sha256(ours)}.tar`;

  const env = (base.config.config?.Env ?? []).filter((entry) => !/^(PATH|YARN_VERSION)=/.test(entry));
  const config = JSON.stringify({
    ...base.config,
    config: {
      Env: [
        ...env,
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/mastodon/bin",
        "TZ=Etc/UTC",
        "RAILS_ENV=production",
        "NODE_ENV=production",
        "RAILS_SERVE_STATIC_FILES=true",
        "BIND=0.0.0.0",
        // `node ./streaming` and the scripts trust the system's store, as Ruby does.
        "NODE_USE_SYSTEM_CA=1",
        `SSL_CERT_FILE=/${bundlePath}`,
      ],
      Entrypoint: [],
      Cmd: ["bundle", "exec", "puma", "-C", "config/puma.rb"],
      User: "mastodon",
      WorkingDir: "/opt/mastodon",
      ExposedPorts: { "3000/tcp": {}, "4000/tcp": {} },
      Labels: {
        "org.opencontainers.image.title": "A stand-in for Mastodon, for tests",
        "org.opencontainers.image.version": options.version,
      },
    },
    rootfs: { type: "layers", diff_ids: [...base.config.rootfs.diff_ids, `sha256:${sha256(ours)}`] },
    history: [...(base.config.history ?? []), { created: "1970-01-01T00:00:00Z", created_by: "test/standin/build.ts" }],
  });
  const configName = `${sha256(config)}.json`;
  const manifest = JSON.stringify([{ Config: configName, RepoTags: options.names, Layers: [...base.layers, ourName] }]);

  const out = pack();
  const unfinished = `${options.out}.new`;
  await mkdir(dirname(resolve(options.out)), { recursive: true });
  const written = pipeline(out, createWriteStream(unfinished));
  const add = (name: string, data: Buffer | string): void => void out.entry({ name, mtime: new Date(0) }, data);
  add("manifest.json", manifest);
  add(configName, config);
  await walk(createReadStream(options.base), async (header, body) => {
    if (!base.layers.includes(header.name)) return;
    // A layer may be a link to an equal one; then there is nothing to copy, and the link says all.
    if (header.type !== "file") {
      out.entry(header);
      return;
    }
    await pipeline(body, out.entry({ name: header.name, size: header.size ?? 0, mtime: new Date(0) }));
  });
  add(ourName, ours);
  out.finalize();
  await written;
  await rename(unfinished, options.out);
}

/** The layer as a folder, for the Dockerfile. */
async function writeRootfs(folder: string, variant: Variant): Promise<void> {
  for (const entry of await layer(variant)) {
    const path = join(folder, entry.path);
    await mkdir(entry.kind === "directory" ? path : dirname(path), { recursive: true });
    if (entry.kind === "symlink") await symlink(entry.target ?? "", path);
    else {
      if (entry.kind === "file") await writeFile(path, entry.data ?? "");
      await chmod(path, entry.mode);
    }
  }
}

const USAGE = `Builds the image of the stand-in for Mastodon.

  --base FILE          docker-archive of a Node 24 image (docker save node:24-slim; the lab's images/node.tar)
  --out FILE           where the image's docker-archive goes
  --name NAME:TAG      its name; may be given more than once
  --version X.Y.Z      the release it plays (default 4.6.2); migrations depend on it
  --fail-migration     bake in a migration that fails
  --fail-post-migration  the same, but after deployment
  --ca FILE            a PEM file to trust, beside the base's store; may be given more than once
  --rootfs FOLDER      only write the layer's files there (what the Dockerfile uses); no --base, --out, --name
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      base: { type: "string" },
      out: { type: "string" },
      name: { type: "string", multiple: true, default: [] },
      version: { type: "string", default: "4.6.2" },
      "fail-migration": { type: "boolean", default: false },
      "fail-post-migration": { type: "boolean", default: false },
      ca: { type: "string", multiple: true, default: [] },
      rootfs: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  if (!/^\d+\.\d+\.\d+/.test(values.version)) throw new Error(`--version must be like 4.6.2, not ${values.version}`);
  const failMigration = values["fail-post-migration"] ? "post" : values["fail-migration"];
  const variant: Variant = { version: values.version, failMigration, bootSeconds: 3 };
  if (values.rootfs !== undefined) return writeRootfs(values.rootfs, variant);
  const { base, out } = values;
  if (base === undefined || out === undefined || values.name.length === 0)
    throw new Error(`--base, --out and --name are needed\n\n${USAGE}`);
  await buildImage({ ...variant, base, out, names: values.name, authorities: values.ca });
  process.stderr.write(
    `${values.name.join(", ")}: ${Math.round((await stat(out)).size / 1024 / 1024)} MiB in ${out}\n`,
  );
}

if (import.meta.main)
  main().catch((error: unknown) => {
    process.stderr.write(`build: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
