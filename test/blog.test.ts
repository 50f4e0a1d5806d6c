import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { folderContents, imageMend } from "../components/blog";
import { at, planStack } from "../lib/plan";
import type { Plan } from "../lib/plan";
import { copyProject } from "./support/folders";
import { named, plannedStack } from "./support/planned";
import { faultsOf } from "./support/schemas";

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "blog-"));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
});

describe("folderContents", () => {
  it("keeps sub-folders, which a ConfigMap's keys cannot, and bytes that are no text", () => {
    fs.mkdirSync(path.join(folder, "posts"));
    fs.writeFileSync(path.join(folder, "index.html"), "<p>hello");
    fs.writeFileSync(path.join(folder, "posts", "a b.png"), Buffer.from([0xff, 0xfe, 0x00]));
    const { binaryData, items } = folderContents(folder);
    expect(items.map((item) => item.path)).toEqual(["index.html", "posts/a b.png"]);
    const bytes = items.map((item) => Buffer.from(binaryData[item.key] ?? "", "base64"));
    expect(bytes[0]?.toString()).toBe("<p>hello");
    expect([...(bytes[1] ?? [])]).toEqual([0xff, 0xfe, 0x00]);
    for (const { key } of items) expect(key).toMatch(/^[-._a-zA-Z0-9]+$/);
  });

  it("has what links lead to, and goes round in no circle", () => {
    const elsewhere = path.join(folder, "elsewhere");
    const blog = path.join(folder, "blog");
    for (const made of [elsewhere, blog]) fs.mkdirSync(made);
    fs.writeFileSync(path.join(elsewhere, "page.html"), "<p>linked");
    fs.symlinkSync(path.join(elsewhere, "page.html"), path.join(blog, "index.html"));
    fs.symlinkSync(elsewhere, path.join(blog, "posts"));
    fs.symlinkSync(blog, path.join(elsewhere, "back"));
    fs.symlinkSync("/nowhere", path.join(blog, "broken.html"));
    fs.symlinkSync("itself.html", path.join(blog, "itself.html"));
    const { binaryData, items } = folderContents(blog);
    expect(items.map((item) => item.path)).toEqual(["index.html", "posts/page.html"]);
    expect(Buffer.from(binaryData[items[0]?.key ?? ""] ?? "", "base64").toString()).toBe("<p>linked");
  });

  it("has nothing that a dot hides, such as a clone's remote with its password, but .well-known", () => {
    for (const name of [".git", ".well-known", "posts"]) fs.mkdirSync(path.join(folder, name));
    for (const name of [".git/config", ".env", "posts/.draft.html", ".well-known/security.txt", "index.html"])
      fs.writeFileSync(path.join(folder, name), name);
    expect(folderContents(folder).items.map((item) => item.path)).toEqual([".well-known/security.txt", "index.html"]);
  });

  it("gives the same result for the same files", () => {
    for (const name of ["b.html", "a.html"]) fs.writeFileSync(path.join(folder, name), name);
    expect(JSON.stringify(folderContents(folder))).toBe(JSON.stringify(folderContents(folder)));
    expect(folderContents(folder).items.map((item) => item.path)).toEqual(["a.html", "b.html"]);
  });
});

describe("a blog from an image", () => {
  const image = `ghcr.io/me/blog:1.2@sha256:${"a".repeat(64)}`;
  const configuration = (text: string) =>
    text.replace("config:\n", `config:\n  homestead:blog: {kind: image, image: "${image}", port: 3000}\n`);
  let planned: Promise<Plan> | undefined;
  const plan = () => (planned ??= planStack("home", { folder: copyProject({ "Pulumi.home.yaml": configuration }) }));

  it("runs it at its own port as its own user, who is not root, on a read-only root with a /tmp", async () => {
    const { inputs, options } = named(await plan(), "blog-deployment");
    expect(at(inputs, "spec.template.spec")).toEqual({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          name: "blog",
          image,
          terminationMessagePolicy: "FallbackToLogsOnError",
          ports: [{ name: "http", containerPort: 3000 }],
          readinessProbe: { httpGet: { path: "/", port: 3000 }, periodSeconds: 5 },
          livenessProbe: { tcpSocket: { port: 3000 }, periodSeconds: 20, failureThreshold: 6 },
          resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "128Mi" } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
          },
          volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
        },
      ],
      volumes: [{ name: "tmp", emptyDir: {} }],
    });
    expect(await faultsOf(inputs as never)).toEqual([]);
    expect(options.hooks).toEqual({ onError: ["mend-blog-image"] });
    expect(named(plannedStack("home"), "blog-deployment").options.hooks).toEqual({});
  });

  it("is led to as the folder is, and needs none", async () => {
    const { resources } = await plan();
    const spec = (name: string) => resources.find((resource) => resource.name === name)?.inputs["spec"];
    expect(spec("blog-service")).toMatchObject({ ports: [{ name: "http", port: 80, targetPort: 3000 }] });
    expect(spec("blog-route")).toEqual(named(plannedStack("home"), "blog-route").inputs["spec"]);
    expect(resources.map(({ name }) => name)).not.toContain("blog-files");
  });
});

describe("imageMend", () => {
  const mend =
    'blog.image a.b/c:1 must run as a user that is not root, named by number (USER 1000 in its Dockerfile, not USER node), and write to /tmp alone: README.md, "A blog from an image"';
  it.each([
    "[CreateContainerConfigError] container has runAsNonRoot and image has non-numeric user (node), cannot verify user is non-root",
    "[CreateContainerConfigError] container has runAsNonRoot and image will run as root",
    'container "blog" terminated\nnginx: [emerg] mkdir() "/var/cache/nginx" failed (30: Read-only file system)',
    "Error: EROFS: read-only file system, open '/app/cache'",
  ])("says what the image must be where it is not: %s", (error) => {
    expect(imageMend("a.b/c:1", ["1 error occurred", error])).toBe(mend);
  });

  it("says nothing where something else is wrong", () => {
    expect(imageMend("a.b/c:1", ['[ImagePullBackOff] Back-off pulling image "a.b/c:1"'])).toBeUndefined();
  });
});
