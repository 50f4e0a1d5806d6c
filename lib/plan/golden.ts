/** Golden manifests: what each stack would create, kept in the repository so that a change shows what it changes. */
import * as fs from "node:fs";
import * as path from "node:path";
import { createTwoFilesPatch } from "diff";

/** Replaces a folder's content by the given files. */
export function writeFolder(folder: string, files: Map<string, string>): void {
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  for (const [name, content] of files) fs.writeFileSync(path.join(folder, name), content);
}

/** A folder's files by name; none if it does not exist. */
export function readFolder(folder: string): Map<string, string> {
  if (!fs.existsSync(folder)) return new Map();
  return new Map(
    fs
      .readdirSync(folder)
      .sort()
      .map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]),
  );
}

/**
 * A unified diff from the golden files to the planned ones; "" if they are the same.
 *
 * @param label The golden folder as it is to be shown, such as `test/golden/home`.
 */
export function differences(golden: Map<string, string>, planned: Map<string, string>, label: string): string {
  const names = [...new Set([...golden.keys(), ...planned.keys()])].sort();
  return names
    .filter((name) => golden.get(name) !== planned.get(name))
    .map((name) =>
      createTwoFilesPatch(
        golden.has(name) ? `${label}/${name}` : "/dev/null",
        planned.has(name) ? `${label}/${name}` : "/dev/null",
        golden.get(name) ?? "",
        planned.get(name) ?? "",
        "golden",
        "planned",
      ).replace(/^(Index: .*\n)?=+\n/, ""),
    )
    .join("");
}
