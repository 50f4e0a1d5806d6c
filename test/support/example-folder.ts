/** The example of the README's settings, in a folder that all test files read (vitest's globalSetup). */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { TestProject } from "vitest/node";
import { writeExample } from "./example";

declare module "vitest" {
  interface ProvidedContext {
    /** The example's folder, to be read only. */
    example: string;
  }
}

/** Makes it, too, for who has more to provide. */
export function provideExample(project: TestProject): { folder: string; remove: () => void } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-example-"));
  writeExample(folder);
  project.provide("example", folder);
  return { folder, remove: () => fs.rmSync(folder, { recursive: true, force: true }) };
}

export default (project: TestProject): (() => void) => provideExample(project).remove;
