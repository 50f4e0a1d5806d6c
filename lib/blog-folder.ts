/** What the blog's folder may hold. */
import * as fs from "node:fs";
import * as path from "node:path";

/**
 * A ConfigMap holds a MiB (kubernetes.io); some of it goes to names. More of them would hold more, but what they hold is in
 * the stack's state as well, in base64 and three times over (the inputs, the object, and the inputs in it), and the state
 * is written anew with every step of an update: eight MiB of pages would be thirty over a home's line each time, in a
 * failover, too. A larger blog is an image.
 */
export const folderLimit = 900 * 1024;

/** Every file of a folder and those in it, in a fixed order. */
export const filesIn = (folder: string): string[] =>
  fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();

/** Bytes of all of them. */
export const bytesIn = (folder: string): number =>
  filesIn(folder).reduce((sum, file) => sum + fs.statSync(file).size, 0);
