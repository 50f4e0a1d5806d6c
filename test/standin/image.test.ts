import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { installed } from "./support/services.ts";

const sha256 = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

describe.skipIf(!installed)("the image", () => {
  let folder = "";
  let manifest: { Config: string; RepoTags: string[]; Layers: string[] };
  let config: { config: { Env: string[]; User: string; WorkingDir: string }; rootfs: { diff_ids: string[] } };
  const untar = (archive: string, name: string): Buffer =>
    execFileSync("tar", ["xOf", archive, name], { maxBuffer: 1 << 28 });
  const tarOf = async (files: Record<string, string>): Promise<Buffer> => {
    const { pack } = await import("tar-stream");
    const tar = pack();
    for (const [name, text] of Object.entries(files)) tar.entry({ name }, text);
    tar.finalize();
    const chunks: Buffer[] = [];
    for await (const chunk of tar) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "standin-image-"));
    // A base of two layers, the upper of which is zipped and changes a file of the lower.
    const lower = await tarOf({
      "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
      "etc/ssl/certs/ca-certificates.crt": "the world's",
    });
    const upper = await tarOf({ "./etc/passwd": "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n" });
    const base = {
      architecture: "amd64",
      os: "linux",
      config: { Env: ["PATH=/somewhere", "NODE_VERSION=24.0.0"], Entrypoint: ["docker-entrypoint.sh"], Cmd: ["node"] },
      rootfs: { type: "layers", diff_ids: [sha256(lower), sha256(upper)].map((digest) => `sha256:${digest}`) },
    };
    const { pack } = await import("tar-stream");
    const archive = pack();
    archive.entry(
      { name: "manifest.json" },
      JSON.stringify([{ Config: "base.json", RepoTags: ["node:24"], Layers: ["lower.tar", "upper.tar"] }]),
    );
    archive.entry({ name: "base.json" }, JSON.stringify(base));
    archive.entry({ name: "upper.tar" }, gzipSync(upper));
    archive.entry({ name: "lower.tar" }, lower);
    archive.finalize();
    const chunks: Buffer[] = [];
    for await (const chunk of archive) chunks.push(chunk as Buffer);
    await writeFile(join(folder, "base.tar"), Buffer.concat(chunks));
    await writeFile(join(folder, "ca.pem"), "our own");

    const { buildImage } = await import("./build.ts");
    const options = {
      base: join(folder, "base.tar"),
      out: join(folder, "out.tar"),
      names: ["example/mastodon:v4.6.3", "example/mastodon-streaming:v4.6.3"],
      authorities: [join(folder, "ca.pem")],
      version: "4.6.3",
      failMigration: true,
    };
    await buildImage(options);
    [manifest] = JSON.parse(untar(options.out, "manifest.json").toString()) as [typeof manifest];
    config = JSON.parse(untar(options.out, manifest.Config).toString()) as typeof config;
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  const ours = (name: string): string => {
    const path = join(folder, "layer.tar");
    execFileSync("sh", [
      "-c",
      'tar xOf "$1" "$2" > "$3"',
      "sh",
      join(folder, "out.tar"),
      manifest.Layers[2] ?? "",
      path,
    ]);
    return untar(path, name).toString();
  };

  test("has both names, the base's layers as they were, and one more", () => {
    expect(manifest.RepoTags).toEqual(["example/mastodon:v4.6.3", "example/mastodon-streaming:v4.6.3"]);
    expect(manifest.Layers.slice(0, 2)).toEqual(["lower.tar", "upper.tar"]);
    expect(config.rootfs.diff_ids).toHaveLength(3);
    expect(config.rootfs.diff_ids[2]).toBe(
      `sha256:${sha256(untar(join(folder, "out.tar"), manifest.Layers[2] ?? ""))}`,
    );
  });

  test("is set up as the official one", () => {
    expect(config.config).toMatchObject({ User: "mastodon", WorkingDir: "/opt/mastodon", Entrypoint: [] });
    expect(config.config.Env).toContain("BIND=0.0.0.0");
    expect(config.config.Env).not.toContain("PATH=/somewhere");
    expect(ours("etc/passwd")).toBe(
      "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nmastodon:x:991:991::/opt/mastodon:/bin/sh\n",
    );
    expect(ours("etc/ssl/certs/ca-certificates.crt")).toBe("the world's\nour own\n");
    expect(JSON.parse(ours("opt/mastodon/standin/build.json"))).toMatchObject({
      version: "4.6.3",
      failMigration: true,
    });
    expect(ours("opt/mastodon/bin/bundle")).toMatch(/^#!\/bin\/sh\n/);
  });

  test("is the same when built again", async () => {
    const { buildImage } = await import("./build.ts");
    const again = {
      base: join(folder, "base.tar"),
      out: join(folder, "again.tar"),
      names: manifest.RepoTags,
      authorities: [join(folder, "ca.pem")],
      version: "4.6.3",
      failMigration: true,
    };
    await buildImage(again);
    expect(sha256(await readFile(again.out))).toBe(sha256(await readFile(join(folder, "out.tar"))));
  });

  test("refuses what is no image", async () => {
    const { buildImage } = await import("./build.ts");
    await writeFile(join(folder, "empty.tar"), await tarOf({ x: "y" }));
    await expect(
      buildImage({
        base: join(folder, "empty.tar"),
        out: join(folder, "no.tar"),
        names: ["a:1"],
        authorities: [],
        version: "4.6.2",
        failMigration: false,
      }),
    ).rejects.toThrow(/not a docker-archive/);
  });
});
