import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { readProject, readStackConfig, stacksIn } from "../lib/stack-config";
import { temporaryFolder } from "./support/folders";

function project(files: Record<string, string>): string {
  const folder = temporaryFolder();
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text);
  return folder;
}
const read = (files: Record<string, string>, stack = "home") =>
  readStackConfig(project(files), stack, (name) => `<${name}>`);

const schema = `
name: shop
runtime: nodejs
config:
  shop:apex: {value: a.example}
  shop:count: {type: integer, default: 3}
  open: {type: boolean, default: false}
  plain: just a value
  shop:object: {type: object, default: {b: 1, a: "2"}}
  shop:list: {value: [1, two]}
  shop:required: {type: string}
  shop:password: {type: string, secret: true}
`;

describe("readStackConfig", () => {
  // What the real CLI (3.260) hands to a program for these files, recorded by hand (it escapes < in JSON, which reads the same).
  it("gives the texts that the CLI gives", () => {
    const { config, project: name } = read({
      "Pulumi.yaml": schema,
      "Pulumi.home.yaml": `config:
  kubernetes:strictMode: "true"
  shop:bool: true
  shop:float: 1.50
  shop:nothing:
  shop:nested: {a: 1, b: "true", c: [1, x<y], e: null}
`,
    });
    expect(name).toBe("shop");
    expect(config).toEqual({
      "shop:apex": "a.example",
      "shop:count": "3",
      "shop:open": "false",
      "shop:plain": "just a value",
      "shop:object": '{"b":1,"a":"2"}',
      "shop:list": '[1,"two"]',
      "shop:password": "<password>",
      "kubernetes:strictMode": "true",
      "shop:bool": "true",
      "shop:float": "1.5",
      "shop:nothing": "",
      "shop:nested": '{"a":1,"b":"true","c":[1,"x<y"],"e":null}',
    });
  });

  it("lets the stack win over the project", () => {
    const stack = "config:\n  shop:apex: b.example\n  shop:count: 5\n  shop:object: {c: 1}\n";
    expect(read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": stack }).config).toMatchObject({
      "shop:apex": "b.example",
      "shop:count": "5",
      "shop:object": '{"c":1}',
    });
  });

  it("puts placeholders for secrets: encrypted ones, those inside objects, and those that are not set yet", () => {
    const stack = "config:\n  shop:key: {secure: v1:x}\n  shop:mail: {host: h, auth: [{password: {secure: v1:y}}]}\n";
    const { config, secretKeys } = read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": stack });
    expect(config["shop:key"]).toBe("<key>");
    expect(config["shop:mail"]).toBe('{"host":"h","auth":[{"password":"<mail.auth[0].password>"}]}');
    expect(config["shop:password"]).toBe("<password>");
    expect(secretKeys.sort()).toEqual(["shop:key", "shop:mail", "shop:password"]);
  });

  it("takes another file in place of the stack's", () => {
    const folder = project({
      "Pulumi.yaml": schema,
      "Pulumi.home.yaml": "{}",
      other: "config: {shop:apex: c.example}",
    });
    const { config } = readStackConfig(folder, "home", String, { configFile: path.join(folder, "other") });
    expect(config["shop:apex"]).toBe("c.example");
  });

  it("reads a stack file without configuration", () => {
    expect(read({ "Pulumi.yaml": "name: shop\n", "Pulumi.home.yaml": "encryptionsalt: v1:x\n" }).config).toEqual({});
    expect(read({ "Pulumi.yaml": "name: shop\n", "Pulumi.home.yaml": "" }).config).toEqual({});
  });

  it("names the program's file, index.ts if the project names none", () => {
    const folder = project({ "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "" });
    expect(readProject(folder).main).toBe(path.join(folder, "index.ts"));
    fs.writeFileSync(path.join(folder, "Pulumi.yaml"), "name: a\nmain: src/program.ts\n");
    expect(readProject(folder).main).toBe(path.join(folder, "src", "program.ts"));
  });

  it("refuses a declared secret that stands in clear, without showing it", () => {
    const stack = "config:\n  shop:password: hunter2\n";
    expect(() => read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": stack })).toThrow(
      /^Pulumi\.home\.yaml: shop:password stands in clear, and is a secret; mend: pulumi config set --secret 'shop:password' --stack home$/,
    );
  });

  // Tried with the CLI, which looks at it before it runs the program.
  it.each([
    [
      "count: soon",
      'shop:count is "soon", and Pulumi.yaml declares it as an integer; mend: write there a whole number',
    ],
    ["count: 1.5", "shop:count is 1.5, and Pulumi.yaml declares it as an integer; mend: write there a whole number"],
    ["count:", 'shop:count is "", and Pulumi.yaml declares it as an integer; mend: write there a whole number'],
    ["open: yes", 'shop:open is "yes", and Pulumi.yaml declares it as a boolean; mend: write there true or false'],
    [
      "required: {a: 1}",
      "shop:required is a mapping, and Pulumi.yaml declares it as a string; mend: write there a single value",
    ],
    ...[
      [`'{"b":1}'`, '"{\\"b\\":1}"'],
      [`'{"endpoint":"http://192.0.2.9:9000","bucket":"v"}'`, "a string"],
      ["[1]", "a list"],
      ["{secure: v1:x}", "an encrypted string"],
    ].map(([value = "", what = ""]) => [
      `object: ${value}`,
      `shop:object is ${what}, and Pulumi.yaml declares it as an object; mend: write there a mapping, one name a line below the key (JSON in quotes is a string)`,
    ]),
  ])("refuses what is not of its declared type, as the CLI does: %s", (line, message) => {
    const files = { "Pulumi.yaml": schema, "Pulumi.home.yaml": `config:\n  shop:${line}\n` };
    expect(() => read(files)).toThrow(
      expect.objectContaining({ name: "StackConfigError", message: `Pulumi.home.yaml: ${message}` }),
    );
  });

  it("tells all that the CLI would refuse to who asks for it, and goes on without a secret that stands in clear", () => {
    const stack = "config:\n  shop:count: soon\n  shop:password: hunter2\n  shop:object: '{\"c\":1}'\n";
    const refused: string[] = [];
    const { config, secretKeys } = readStackConfig(
      project({ "Pulumi.yaml": schema, "Pulumi.home.yaml": stack }),
      "home",
      (name) => `<${name}>`,
      { refuse: ({ key, message }) => refused.push(`${key}: ${message.slice(0, 37)}`) },
    );
    expect(refused).toEqual([
      'shop:count: Pulumi.home.yaml: shop:count is "soon',
      "shop:password: Pulumi.home.yaml: shop:password stand",
      'shop:object: Pulumi.home.yaml: shop:object is "{\\"',
    ]);
    expect(config).toMatchObject({ "shop:count": "soon", "shop:password": "<password>", "shop:object": '{"c":1}' });
    expect(secretKeys).toEqual(["shop:password"]);
  });

  it.each([
    'count: "5"',
    "count: {secure: v1:x}",
    'open: "true"',
    "open: false",
    "required: 5",
    "required: true",
    "required:",
    "object: {}",
    "object: {password: {secure: v1:x}}",
    "list: text",
    "undeclared: [1]",
  ])("takes what the CLI takes: %s", (line) => {
    expect(() => read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": `config:\n  shop:${line}\n` })).not.toThrow();
  });

  it("refuses keys beside the configuration, which Pulumi neither reads nor keeps", () => {
    const own =
      "encryptionsalt: v1:x\nsecretsprovider: passphrase\nencryptedkey: k\nenvironment: [e]\nconfig:\n  shop:a: b\n";
    expect(() => read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": own })).not.toThrow();
    const says = (text: string) => () => read({ "Pulumi.yaml": schema, "Pulumi.home.yaml": `${own}${text}` });
    const beside = (which: string, mend: string) =>
      `Pulumi.home.yaml: ${which} beside config:, where Pulumi reads config, secretsprovider, encryptedkey, encryptionsalt, ` +
      `environment alone, and removes all else with the next pulumi config set; mend: move ${mend} below config:, each line indented`;
    expect(says("shop:apex: b.example\n")).toThrow(
      expect.objectContaining({ name: "StackConfigError", message: beside("shop:apex stands", "it") }),
    );
    expect(says("shop:apex: b.example\nshop:count: 1\n")).toThrow(
      expect.objectContaining({ message: beside("shop:apex, shop:count stand", "them") }),
    );
  });

  it.each<[string, Record<string, string>, string | RegExp]>([
    ["no project", {}, /Pulumi\.yaml cannot be read: is this the project's folder\?$/],
    [
      "no stack file",
      { "Pulumi.yaml": "name: a\n", "Pulumi.vps.yaml": "" },
      /^no stack 'home': .* does not exist \(there is: vps\)$/,
    ],
    ["no stack file at all", { "Pulumi.yaml": "name: a\n" }, /\(there are: none\)$/],
    ["no YAML", { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "a: [" }, /^Pulumi\.home\.yaml is not YAML: /],
    [
      "no name",
      { "Pulumi.yaml": "runtime: nodejs\n" },
      "Pulumi.yaml: name is missing; mend: write there a single value",
    ],
    [
      "a list as configuration",
      { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "config: [a]" },
      "Pulumi.home.yaml: config is a list; mend: write there a mapping, one name a line",
    ],
    [
      "an empty list as configuration",
      { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "config: []" },
      "Pulumi.home.yaml: config is a list; mend: write there a mapping, one name a line",
    ],
    [
      "text as configuration",
      { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "config: a" },
      "Pulumi.home.yaml: config is a single value; mend: write there a mapping, one name a line",
    ],
    [
      "a list as the whole",
      { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "- a" },
      "Pulumi.home.yaml: the whole file is a list; mend: write there a mapping, one name a line",
    ],
    [
      "more than one document",
      { "Pulumi.yaml": "name: a\n", "Pulumi.home.yaml": "config: {}\n---\nconfig: {}\n" },
      "Pulumi.home.yaml holds several documents; mend: keep one, and take out the line --- before the next",
    ],
  ])("says in one line that there is %s", (_what, files, message) => {
    expect(() => read(files)).toThrow(message);
  });
});

describe("stacksIn", () => {
  it("finds the stack files and nothing else", () => {
    const names = ["Pulumi.yaml", "Pulumi.vps.yaml", "Pulumi.home.yaml", "Pulumi.home.yaml.bak", "Other.dev.yaml"];
    expect(stacksIn(project(Object.fromEntries(names.map((name) => [name, ""]))))).toEqual(["home", "vps"]);
  });
});
