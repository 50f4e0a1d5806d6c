import * as fs from "node:fs";
import { createRequire } from "node:module";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { at, planStack } from "../lib/plan";
import type { Plan, PlannedResource } from "../lib/plan";
import { differences } from "../lib/plan/golden";
import { mask } from "../lib/plan/mask";
import { Placeholders, placeholderSecrets } from "../lib/plan/placeholders";
import { internalsOf } from "../lib/plan/recorder";
import { renderFiles, renderOutputs, renderTree, shortType } from "../lib/plan/render";
import { identityFaults } from "../lib/identity";
import { temporaryFolder } from "./support/folders";

const fixture = path.join(__dirname, "fixtures", "small");
const load = createRequire(__filename);

describe("planStack", () => {
  const plan = planStack("one", { folder: fixture });
  const resource = async (name: string): Promise<PlannedResource> => {
    const found = (await plan).resources.find((r) => r.name === name);
    if (!found) throw new Error(`no resource ${name}`);
    return found;
  };

  it("evaluates a program without CLI, cluster and passphrase", async () => {
    expect((await plan).resources.map((r) => r.name).sort()).toEqual([
      "cluster",
      "release",
      "shop",
      "shop-config",
      "shop-secret",
      "shop-service",
      "shop-till",
      "shop-volume",
    ]);
    expect((await plan).site).toBe("one");
  });

  it("gives the program the values and defaults of Pulumi.yaml", async () => {
    expect(at((await resource("shop-config")).inputs, "data")).toMatchObject({ greeting: "hello", size: "3" });
  });

  it("records the options that mocks do not show", async () => {
    const { options, parent, provider } = await resource("shop-secret");
    expect(options).toMatchObject({ protect: true, retainOnDelete: true });
    expect(options.dependsOn).toEqual([(await resource("shop-till")).urn]);
    expect(parent).toBe((await resource("shop")).urn);
    expect(provider).toBe((await resource("cluster")).urn);
    const configMap = (await resource("shop-config")).options;
    expect(configMap).toMatchObject({ ignoreChanges: ["data"], timeouts: { create: "3m" } });
    expect(configMap.dependsOn).toContain((await resource("shop-secret")).urn);
    expect(configMap.deletedWith).toBe((await resource("shop-secret")).urn);
    expect((await resource("release")).options.hooks).toEqual({ afterUpdate: ["look"] });
    expect((await resource("release")).parent).toBeUndefined();
  });

  it("shows secrets by their names only, wherever they stand", async () => {
    expect((await resource("shop-secret")).inputs.stringData).toEqual({
      password: "<password>",
      port: "<port>",
      url: "shop://<shop-till>@shop",
    });
    expect((await resource("shop-secret")).secretPaths).toEqual(["stringData"]);
    expect(at((await resource("release")).inputs, "values.deep.mail.password")).toBe("<mail.password>");
    expect((await plan).outputs).toEqual({ address: "https://shop.example", password: "<password>" });
    expect((await plan).secretOutputs).toEqual(["password"]);
    expect(JSON.stringify(await plan)).not.toContain("placeholder-");
  });

  it("tells where a secret stands without being marked as one", async () => {
    expect((await resource("shop-config")).leaks).toEqual(["data.leaked"]);
    expect((await resource("shop-secret")).leaks).toEqual([]);
    expect((await plan).leakedOutputs).toEqual([]);
  });

  it("does not make up what only the cluster knows", async () => {
    expect(at((await resource("shop-config")).inputs, "data.ip")).toBe("<known after the update>");
  });

  it("tells what is looked up from what is made", async () => {
    expect((await resource("shop-volume")).kind).toBe("read");
    expect((await resource("shop-config")).kind).toBe("resource");
    expect((await resource("shop")).kind).toBe("component");
  });

  it("keeps what the program prints apart from the plan", async () => {
    expect((await plan).messages).toContain("a word on standard output");
  });

  it("passes the program's own fault on without a stack trace", async () => {
    await expect(planStack("faulty", { folder: fixture })).rejects.toMatchObject({
      name: "PlanError",
      message: "small:size must be less than 100",
      trace: undefined,
    });
  });

  it("says where a bug of the program is", async () => {
    const failing = planStack("broken", { folder: fixture });
    await expect(failing).rejects.toMatchObject({ message: expect.stringContaining("undefined") as string });
    await expect(failing).rejects.toMatchObject({ trace: expect.stringContaining("program.ts") as string });
  });

  it("fails when a resource's inputs fail, although nothing in the program awaits them", async () => {
    await expect(planStack("rejected", { folder: fixture })).rejects.toMatchObject({
      message: 'error serializing property "data": no such price',
    });
  });

  it("tells what the CLI would refuse before it runs the program, and what the program says all the same", async () => {
    const said = (config: string) => {
      const configFile = path.join(temporaryFolder(), "Pulumi.one.yaml");
      fs.writeFileSync(configFile, `config: ${config}\n`);
      return planStack("one", { folder: fixture, configFile }).catch((error: unknown) => error);
    };
    const type =
      'Pulumi.one.yaml: small:size is "big", and Pulumi.yaml declares it as an integer; mend: write there a whole number';
    const clear =
      "Pulumi.one.yaml: small:password stands in clear, and is a secret; mend: pulumi config set --secret 'small:password' --stack one";
    const mail = "small:mail: {host: m}";
    expect(await said(`{${mail}, size: big, small:password: hunter2, small:mode: faulty}`)).toMatchObject({
      message: `${type}\n${clear}\nsmall:size must be less than 100`,
      trace: undefined,
    });
    expect(await said(`{${mail}, size: big}`)).toMatchObject({ message: type, trace: undefined });
    // What it makes of such a value is no bug of its own.
    expect(await said(`{${mail}, size: big, small:mode: broken}`)).toMatchObject({ message: type, trace: undefined });
  });

  it("says that a program took too long", async () => {
    await expect(planStack("one", { folder: fixture, limitSeconds: 0.05 })).rejects.toThrow(
      /^the program of stack 'one' took longer than 0\.05 s, and was ended without a plan$/,
    );
  });

  it("refuses a stack without a file", async () => {
    await expect(planStack("nowhere", { folder: fixture })).rejects.toThrow(
      `no stack 'nowhere': ${path.join(fixture, "Pulumi.nowhere.yaml")} does not exist (there are: broken, faulty, one, rejected)`,
    );
  });

  it("takes another file in place of the stack's own", async () => {
    const configFile = path.join(temporaryFolder(), "other.yaml");
    fs.writeFileSync(configFile, "config:\n  small:greeting: hi\n  small:mail: {host: elsewhere}\n");
    const other = await planStack("one", { folder: fixture, configFile });
    expect(at(other.resources.find((r) => r.name === "shop-config")?.inputs, "data.greeting")).toBe("hi");
  });
});

describe("the SDK's internals", () => {
  const without =
    (module: string, change: (real: Record<string, unknown>) => Record<string, unknown>) => (id: string) =>
      id.endsWith(module) ? change({ ...(load(id) as Record<string, unknown>) }) : (load(id) as unknown);

  it("are where the harness looks for them: if this fails, lib/plan/recorder.ts has to follow an update of @pulumi/pulumi", async () => {
    const { setMocks } = (load("@pulumi/pulumi") as typeof import("@pulumi/pulumi")).runtime;
    await setMocks({ newResource: () => ({ id: "", state: {} }), call: () => ({}) });
    expect(() => internalsOf(load)).not.toThrow();
  });

  it("are missed by name when they move", () => {
    expect(() => internalsOf(without("runtime/settings", ({ waitForRPCs: _, ...rest }) => rest))).toThrow(
      /^the Pulumi SDK no longer has waitForRPCs in runtime\/settings: `homestead plan` and the tests of whole stacks read registrations there/,
    );
    expect(() => internalsOf(without("runtime/settings", (real) => ({ ...real, getMonitor: () => ({}) })))).toThrow(
      /no longer has registerResource in its mock monitor/,
    );
    expect(() => internalsOf(without("proto/resource_pb", ({ RegisterResourceRequest: _, ...rest }) => rest))).toThrow(
      /no longer has getType in its RegisterResourceRequest/,
    );
  });
});

describe("placeholders", () => {
  it("are an identity that passes every check of a real one", () => {
    expect(identityFaults(placeholderSecrets)).toEqual([]);
  });

  it("are found again inside other text and in base64", () => {
    const placeholders = new Placeholders();
    const key = placeholders.of("secretKeyBase");
    const long = placeholders.of("mediaKey");
    const longer = placeholders.of("mediaKeyOther");
    expect(placeholders.hide(`x${key}y`)).toEqual({ shown: "x<secretKeyBase>y", found: true });
    expect(placeholders.hide(Buffer.from(key).toString("base64")).shown).toBe("<base64 of secretKeyBase>");
    expect(placeholders.hide(`${longer} ${long}`).shown).toBe("<mediaKeyOther> <mediaKey>");
    expect(placeholders.hide("nothing")).toEqual({ shown: "nothing", found: false });
  });
});

describe("mask", () => {
  const secret = (value: unknown) => ({
    "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
    value,
  });

  it("names a secret value by its key, whatever its type", () => {
    expect(mask({ a: secret({ port: 5, on: true, list: ["x"] }) }, new Placeholders()).value).toEqual({
      a: { port: "<port>", on: "<on>", list: ["<list>"] },
    });
  });

  it("looks for leaks inside assets", () => {
    const placeholders = new Placeholders();
    const asset = {
      "4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17",
      text: placeholders.of("key"),
    };
    expect(mask({ file: asset }, placeholders)).toEqual({ value: { file: "<key>" }, secretPaths: [], leaks: ["file"] });
  });
});

const planned = (resource: Partial<PlannedResource>): PlannedResource => ({
  urn: `urn:${resource.name}`,
  type: "kubernetes:core/v1:ConfigMap",
  name: "x",
  kind: "resource",
  inputs: {},
  secretPaths: [],
  leaks: [],
  ...resource,
  options: {
    protect: false,
    retainOnDelete: false,
    deleteBeforeReplace: false,
    dependsOn: [],
    ignoreChanges: [],
    replaceOnChanges: [],
    additionalSecretOutputs: [],
    aliases: 0,
    timeouts: {},
    hooks: {},
    ...resource.options,
  },
});
const planOf = (resources: PlannedResource[]): Plan => ({
  site: "home",
  resources,
  outputs: {},
  secretOutputs: [],
  leakedOutputs: [],
  messages: "",
});

describe("renderTree", () => {
  it("draws children under their component, in the order in which they can be ready", () => {
    const { options } = planned({});
    const plan = planOf([
      planned({ name: "late", options: { ...options, dependsOn: ["urn:b", "urn:a"] } }),
      planned({ name: "part", type: "homestead:index:Part", kind: "component" }),
      planned({ name: "b", parent: "urn:part", options: { ...options, dependsOn: ["urn:a"], retainOnDelete: true } }),
      planned({ name: "a", parent: "urn:part", options: { ...options, protect: true } }),
      planned({ name: "first", type: "random:index/randomPassword:RandomPassword" }),
    ]);
    expect(renderTree(plan)).toBe(
      [
        "home",
        "├─ random:RandomPassword first",
        "├─ Part part",
        "│  ├─ kubernetes:core/v1:ConfigMap a  [protected]",
        "│  └─ kubernetes:core/v1:ConfigMap b  [kept on destroy]",
        "└─ kubernetes:core/v1:ConfigMap late",
        "",
      ].join("\n"),
    );
  });

  it("does not depend on the order of registration", () => {
    const plan = planOf(["c", "a", "b"].map((name) => planned({ name })));
    expect(renderTree(plan)).toBe(renderTree({ ...plan, resources: [...plan.resources].reverse() }));
  });
});

describe("renderFiles", () => {
  it("writes one file an object, keys in a stable order", () => {
    const object = (spec: PlannedResource["inputs"]) =>
      renderFiles(
        planOf([
          planned({
            inputs: { spec, metadata: { labels: { b: "1", a: "2" }, name: "web" }, kind: "Service", apiVersion: "v1" },
          }),
        ]),
      );
    const files = object({ z: 1, a: [{ port: 1, name: "x" }] });
    expect([...files.keys()]).toEqual(["tree.txt", "service-web.yaml"]);
    expect(files.get("service-web.yaml")).toBe(
      'apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels:\n    a: "2"\n    b: "1"\nspec:\n  a:\n    - name: x\n      port: 1\n  z: 1\n',
    );
    expect(object({ a: [{ name: "x", port: 1 }], z: 1 }).get("service-web.yaml")).toBe(files.get("service-web.yaml"));
  });

  it("writes a release's chart, version and values", () => {
    const inputs = { name: "mastodon", chart: "mastodon", version: "1.0.2", compat: "true", values: { a: 1 } };
    const files = renderFiles(planOf([planned({ type: "kubernetes:helm.sh/v3:Release", name: "r", inputs })]));
    expect(files.get("release-mastodon.yaml")).toBe(
      "name: mastodon\nchart: mastodon\nversion: 1.0.2\nvalues:\n  a: 1\n",
    );
  });

  it("keeps objects of one name in two namespaces apart", () => {
    const inputs = (namespace: string) => ({ kind: "ConfigMap", metadata: { name: "x", namespace } });
    const files = renderFiles(
      planOf([planned({ name: "p", inputs: inputs("a") }), planned({ name: "q", inputs: inputs("b") })]),
    );
    expect([...files.keys()]).toEqual(["tree.txt", "configmap-x-a.yaml", "configmap-x-b.yaml"]);
  });

  it("refuses one object twice: the second would be an 'already exists' on the cluster", () => {
    const inputs = { kind: "ConfigMap", metadata: { name: "x", namespace: "a" } };
    expect(() => renderFiles(planOf([planned({ name: "p", inputs }), planned({ name: "q", inputs })]))).toThrow(
      "urn:q: a second object configmap-x-a in the plan",
    );
  });

  it("has no file for what is no Kubernetes object", () => {
    const plan = planOf([
      planned({ type: "pulumi:providers:kubernetes" }),
      planned({ type: "command:local:Command", urn: "u" }),
    ]);
    expect([...renderFiles(plan).keys()]).toEqual(["tree.txt"]);
  });
});

describe("shortType", () => {
  it.each([
    ["kubernetes:apps/v1:StatefulSet", "kubernetes:apps/v1:StatefulSet"],
    ["random:index/randomPassword:RandomPassword", "random:RandomPassword"],
    ["command:local:Command", "command:Command"],
    ["homestead:index:Valkey", "Valkey"],
    ["pulumi:providers:kubernetes", "pulumi:providers:kubernetes"],
  ])("shortens %s to %s", (type, short) => expect(shortType(type)).toBe(short));
});

describe("renderOutputs", () => {
  it("prints values, lists and records in two columns", () => {
    expect(
      renderOutputs({
        handle: "@user@ramble.moe",
        records: [
          { name: "a", ttl: 60 },
          { name: "b", ttl: 60 },
        ],
        hidden: null,
        empty: "",
      }),
    ).toBe("handle   @user@ramble.moe\nrecords  a  60\n         b  60\n");
  });
});

describe("differences", () => {
  it("is empty for equal folders", () => {
    expect(differences(new Map([["a", "1\n"]]), new Map([["a", "1\n"]]), "golden")).toBe("");
  });

  it("is a unified diff over changed, new and vanished files", () => {
    const golden = new Map([
      ["changed", "a\nb\n"],
      ["gone", "x\n"],
    ]);
    const now = new Map([
      ["changed", "a\nc\n"],
      ["new", "y\n"],
    ]);
    const diff = differences(golden, now, "test/golden/home");
    expect(diff).toContain(
      "--- test/golden/home/changed\tgolden\n+++ test/golden/home/changed\tplanned\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
    );
    expect(diff).toContain("--- test/golden/home/gone\tgolden\n+++ /dev/null\tplanned\n");
    expect(diff).toContain("--- /dev/null\tgolden\n+++ test/golden/home/new\tplanned\n");
  });
});
