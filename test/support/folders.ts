/** Folders for one test, gone when it ends. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { inject, onTestFinished } from "vitest";

/** An empty folder that the running test owns. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-test-"));
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * A copy of the example, for tests that change a file of the project.
 *
 * @param edit Changes of files: path in the project -> new text from old text ("" for a file that is not there).
 */
export function copyProject(edit: Record<string, (text: string) => string> = {}): string {
  const folder = temporaryFolder();
  fs.cpSync(inject("example"), folder, { recursive: true });
  for (const [file, change] of Object.entries(edit)) {
    const target = path.join(folder, file);
    const before = fs.existsSync(target) ? fs.readFileSync(target, "utf8") : "";
    const after = change(before);
    if (after === before) throw new Error(`${file}: the edit changed nothing`);
    fs.writeFileSync(target, after);
  }
  return folder;
}
