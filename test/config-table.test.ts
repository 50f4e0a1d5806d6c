import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { configurationTable, withTable } from "../lib/config-table";
import { projectFolder } from "../lib/plan";
import { readProject } from "../lib/stack-config";
import { SettingsError, configKeys, optionalSecrets, parseSettings, requiredSecrets, sharedKeys } from "../settings";
import { configurationOf } from "./support/configuration";

const { declarations } = readProject(projectFolder);
const short = (key: string) => key.replace(/^homestead:/, "");
const declared = (key: string) => declarations.find((declaration) => short(declaration.key) === key);

describe("Pulumi.yaml", () => {
  it("declares exactly the keys that the program reads", () => {
    expect(declarations.map(({ key }) => short(key)).sort()).toEqual([...configKeys, ...requiredSecrets].sort());
  });

  it("describes every key", () => {
    expect(declarations.filter(({ description }) => (description ?? "").length < 10)).toEqual([]);
  });

  it("declares the secrets as secret, so that the CLI refuses them in clear", () => {
    expect(declarations.filter(({ secret }) => secret).map(({ key }) => short(key))).toEqual([...requiredSecrets]);
    for (const key of optionalSecrets) expect(declared(key)).toBeUndefined();
  });

  it("holds the shared values itself, and they alone", () => {
    expect(declarations.filter(({ value }) => value !== undefined).map(({ key }) => short(key))).toEqual([
      ...sharedKeys,
    ]);
  });

  const ownKeys = configKeys.filter((key) => !(sharedKeys as readonly string[]).includes(key));

  it.each(ownKeys)("and the program agree on whether %s must be set, and on its default", (key) => {
    const given = declared(key)?.default;
    const without = configurationOf("home", { [key]: undefined });
    if (given === undefined) {
      expect(() => parseSettings(without)).toThrow(SettingsError);
    } else {
      const explicit = parseSettings(configurationOf("home", { [key]: given }));
      expect(explicit[key]).toEqual(parseSettings(without)[key]);
    }
  });
});

describe("the README's configuration table", () => {
  it("lists exactly the keys of Pulumi.yaml (npm run config-table writes it)", () => {
    const readme = fs.readFileSync(path.join(projectFolder, "README.md"), "utf8");
    expect(withTable(readme, configurationTable(declarations)) === readme, "run: npm run config-table").toBe(true);
  });
});

describe("configurationTable", () => {
  it("has a row a key, with default and secret", () => {
    expect(
      configurationTable([
        { key: "homestead:apex", secret: false, description: "One | other.", value: "ramble.moe" },
        { key: "homestead:sizes", secret: false, description: "Sizes.", default: {} },
        { key: "homestead:epoch", secret: false, description: "Count.", value: 1 },
        { key: "homestead:password", secret: true, description: "Secret." },
      ]),
    ).toBe(
      [
        "| Key | Description | Default | Secret |",
        "| --- | --- | --- | --- |",
        "| `apex` | One \\| other. | `ramble.moe` | |",
        "| `sizes` | Sizes. | `{}` | |",
        "| `epoch` | Count. | `1` | |",
        "| `password` | Secret. | | yes |",
      ].join("\n"),
    );
  });
});

describe("withTable", () => {
  it("changes what is between the marks and nothing else", () => {
    const readme = "a\n<!-- configuration -->\nold\n<!-- /configuration -->\nb";
    expect(withTable(readme, "new")).toBe("a\n<!-- configuration -->\n\nnew\n\n<!-- /configuration -->\nb");
    expect(withTable(withTable(readme, "new"), "new")).toBe(withTable(readme, "new"));
  });

  it("says so when there are no marks", () => {
    expect(() => withTable("a", "new")).toThrow(
      "README.md has no <!-- configuration --> followed by <!-- /configuration -->",
    );
  });
});
