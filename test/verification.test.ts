import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { beforeEach, describe, expect, it } from "vitest";
import { Verification } from "../components/verification";
import type { VerificationArgs } from "../components/verification";
import { projectFolder } from "../lib/plan";
import type { PublicTarget } from "../lib/verify/target";
import { images } from "../versions";
import { temporaryFolder } from "./support/folders";

/** How a secret looks on its way to the engine. */
interface Secret {
  value: string;
}
const isSecret = (value: unknown): value is Secret =>
  typeof value === "object" && value !== null && "4dabf18193072939515e22adb298388d" in value;

interface Recorded {
  type: string;
  name: string;
  inputs: Record<string, unknown>;
}
let made: Recorded[] = [];

const secretKey = "a-secret-that-is-never-shown";
// Nothing listens there, so that every check fails at once and for the same reason.
const target: PublicTarget = {
  apex: "ramble.test",
  webHost: "mastodon.ramble.test",
  owner: "user",
  address: "127.0.0.1",
  httpPort: 1,
  httpsPort: 1,
  retrySeconds: 0,
};
const media = {
  endpoint: "http://127.0.0.1:1",
  region: "us-east-1",
  bucket: "media",
  publicUrl: "https://media.ramble.test",
};
const line =
  "verification failed: certificate apex: expected a trusted certificate for ramble.test, got connect ECONNREFUSED 127.0.0.1:1";

beforeEach(async () => {
  made = [];
  await pulumi.runtime.setMocks({
    newResource: ({ type, name, inputs }) => {
      made.push({ type, name, inputs: inputs as Record<string, unknown> });
      return { id: `${name}-id`, state: inputs as Record<string, unknown> };
    },
    call: ({ inputs }) => inputs as Record<string, unknown>,
  });
});

/** Everything a verification registers, its component apart. */
async function verification(
  from: "here" | "cluster",
  change: Partial<Pick<VerificationArgs, "target" | "triggers" | "images">> = {},
) {
  made = [];
  const secrets = { mediaAccessKeyId: pulumi.secret("AKID"), mediaSecretAccessKey: pulumi.secret(secretKey) };
  const verified = new Verification("verification", {
    verification: { from },
    secrets: secrets as VerificationArgs["secrets"],
    images,
    target,
    triggers: ["epoch 1"],
    namespace: "homestead",
    ...change,
  });
  await new Promise((done) => verified.urn.apply(done));
  await expect
    .poll(() => made.filter((r) => r.type !== "homestead:index:Verification").length)
    .toBe(from === "here" ? 1 : 3);
  return (type: string) => {
    const [found] = made.filter((r) => r.type === type);
    if (!found) throw new Error(`no ${type} among ${made.map((r) => r.type).join(", ")}`);
    return found.inputs;
  };
}

const nodeFirst = { ...process.env, PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env["PATH"]}` };

describe("verification from here", () => {
  it("is one command, the same for create and update, and nothing at delete", async () => {
    const command = (await verification("here"))("command:local:Command");
    expect(command["create"]).toBe("node --require ./cli/typescript.cjs lib/verify/main.ts");
    expect(command["update"]).toBe(command["create"]);
    expect(command["delete"]).toBeUndefined();
    expect(command["triggers"]).toEqual(["epoch 1"]);
  });

  it("hands the keys over as a secret by standard input, and by nothing else", async () => {
    const command = (await verification("here", { target: { ...target, media } }))("command:local:Command");
    const { stdin, ...rest } = command;
    if (!isSecret(stdin)) throw new Error("stdin is no secret");
    expect(JSON.parse(stdin.value)).toEqual({
      ...target,
      media: { ...media, accessKeyId: "AKID", secretAccessKey: secretKey },
    });
    expect(JSON.stringify(rest)).not.toContain(secretKey);
  });

  it("fails with the line of the fault and no other word", async () => {
    const command = (await verification("here"))("command:local:Command");
    const run = spawnSync("/bin/sh", ["-c", String(command["create"])], {
      cwd: projectFolder,
      env: nodeFirst,
      input: (command["stdin"] as Secret).value,
      encoding: "utf8",
    });
    expect([run.status, run.stdout, run.stderr]).toEqual([1, "", `${line}\n`]);
  });

  it("does not repeat what it was given and could not read", async () => {
    const command = (await verification("here"))("command:local:Command");
    const run = spawnSync("/bin/sh", ["-c", String(command["create"])], {
      cwd: projectFolder,
      env: nodeFirst,
      input: secretKey,
      encoding: "utf8",
    });
    expect([run.status, run.stdout, run.stderr]).toEqual([
      1,
      "",
      "verification failed: target: expected JSON, got 28 characters that are none\n",
    ]);
  });
});

describe("verification from the cluster", () => {
  interface Job {
    metadata: { name: string; annotations: Record<string, string> };
    spec: {
      backoffLimit: number;
      activeDeadlineSeconds: number;
      template: { metadata: { labels: Record<string, string> }; spec: PodSpec };
    };
  }
  interface PodSpec {
    automountServiceAccountToken: boolean;
    restartPolicy: string;
    securityContext: Record<string, unknown>;
    containers: {
      command: string[];
      image: string;
      securityContext: Record<string, unknown>;
      resources: Record<string, unknown>;
      env: { name: string; value: string }[];
    }[];
    volumes: unknown[];
  }
  const job = async (change: Parameters<typeof verification>[1] = {}) =>
    (await verification("cluster", change))("kubernetes:batch/v1:Job") as unknown as Job;

  it("is a Job that fits Pod Security restricted", async () => {
    const { template } = (await job()).spec;
    expect(template.metadata.labels["app.kubernetes.io/name"]).toBe("verification");
    expect(template.spec).toMatchObject({
      automountServiceAccountToken: false,
      restartPolicy: "Never",
      securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
    });
    expect(template.spec.containers).toHaveLength(1);
    expect(template.spec.containers[0]).toMatchObject({
      image: images.node,
      securityContext: {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      },
      resources: { requests: { cpu: "20m", memory: "64Mi" }, limits: { memory: "256Mi" } },
      terminationMessagePolicy: "FallbackToLogsOnError",
    });
  });

  it("runs once, for a limited time, and anew if it failed", async () => {
    const { metadata, spec } = await job({ target: { ...target, retrySeconds: 60 } });
    expect(spec).toMatchObject({ backoffLimit: 0, activeDeadlineSeconds: 360 });
    expect(spec).not.toHaveProperty("ttlSecondsAfterFinished");
    expect(metadata.annotations).toEqual({ "pulumi.com/replaceUnready": "true", "pulumi.com/timeoutSeconds": "420" });
  });

  it("has another name when anything it verifies is another, and else the same", async () => {
    const name = async (...args: Parameters<typeof job>) => (await job(...args)).metadata.name;
    const first = await name();
    expect(first).toMatch(/^verification-[0-9a-f]{16}$/);
    expect(await name()).toBe(first);
    const others = [
      await name({ triggers: ["epoch 2"] }),
      await name({ target: { ...target, owner: "another" } }),
      await name({ images: { ...images, node: "registry.example/node:24" } }),
    ];
    expect(new Set([first, ...others]).size).toBe(4);
  });

  it("keeps the keys in a Secret, and nowhere else", async () => {
    const of = await verification("cluster", { target: { ...target, media } });
    const { stringData } = of("kubernetes:core/v1:Secret");
    const text = isSecret(stringData)
      ? (stringData as unknown as { value: Record<string, string> }).value["target.json"]
      : undefined;
    expect(JSON.parse(text ?? "")).toMatchObject({ media: { secretAccessKey: secretKey } });
    expect(JSON.stringify([of("kubernetes:core/v1:ConfigMap"), of("kubernetes:batch/v1:Job")])).not.toContain(
      secretKey,
    );
  });

  it("carries a program that needs nothing but node, and leaves its line as the termination message", async () => {
    const of = await verification("cluster");
    const { data } = of("kubernetes:core/v1:ConfigMap") as { data: Record<string, string> };
    const folder = temporaryFolder();
    const file = (name: string, text = "") => {
      fs.writeFileSync(path.join(folder, name), text);
      return path.join(folder, name);
    };
    const program = file("verify.js", data["verify.js"]);
    const log = file("termination-log");
    const { command, env } = (of("kubernetes:batch/v1:Job") as unknown as Job).spec.template.spec.containers[0] ?? {
      command: [],
      env: [],
    };
    expect(command).toEqual(["node", "--no-warnings", "/program/verify.js", "/target/target.json"]);
    expect(env).toEqual([{ name: "TERMINATION_LOG", value: "/dev/termination-log" }]);
    const run = spawnSync(process.execPath, ["--no-warnings", program, file("target.json", JSON.stringify(target))], {
      cwd: folder,
      env: { TERMINATION_LOG: log },
      encoding: "utf8",
    });
    expect([run.status, run.stdout, run.stderr]).toEqual([1, "", `${line}\n`]);
    expect(fs.readFileSync(log, "utf8")).toBe(line);
  });
});
