import * as path from "node:path";
import { buildSync } from "esbuild";

/** A program of ours as one file that plain `node` runs, for a pod that has nothing else. Same sources, same text. */
export function bundle(entry: string): string {
  const built = buildSync({
    // Names in the text are relative to this: the same text wherever the program runs.
    absWorkingDir: path.resolve(__dirname, ".."),
    entryPoints: [entry],
    bundle: true,
    platform: "node",
    target: "node22",
    format: "cjs",
    write: false,
    legalComments: "none",
    charset: "utf8",
    // And wherever the packages are that a clone's node_modules leads to.
    preserveSymlinks: true,
  });
  const [file] = built.outputFiles;
  if (!file) throw new Error(`bundling ${entry} gave no file`);
  return file.text;
}
