/** Which Node runs the stand-in and its peer when they are started as processes of their own: this one, or homestead's own dependency `node`. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

export function node24(): string {
  if (Number(process.versions.node.split(".")[0]) >= 24) return process.execPath;
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const found = join(folder, "node_modules", "node", "bin", "node");
    if (existsSync(found)) return found;
    if (dirname(folder) === folder) break;
  }
  throw new Error(
    `the stand-in for Mastodon needs Node 24; this is ${process.version}, and no package "node" is installed`,
  );
}
