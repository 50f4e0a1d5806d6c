/** What git says of a clone. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** @returns what a command of git prints; undefined where there is no git, no clone, or the command fails */
export async function git(folder: string, ...args: string[]): Promise<string | undefined> {
  try {
    return (await promisify(execFile)("git", ["-C", folder, ...args])).stdout.trim();
  } catch {
    return undefined;
  }
}
