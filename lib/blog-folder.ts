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

/** Where the standards have their documents. */
const wellKnown = ".well-known";

/**
 * Every file of a folder and those in it, in a fixed order: what a link leads to is meant as much as what is there itself.
 * Not what a dot hides, since a blog's folder may be a clone, whose `.git` may hold a password, and all of it is served.
 */
export const filesIn = (folder: string): string[] => within(folder, []).sort();

function within(folder: string, around: readonly string[]): string[] {
  const real = fs.realpathSync(folder);
  // A link may lead to a folder that it is in.
  if (around.includes(real)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => !name.startsWith(".") || name === wellKnown)
    .flatMap((name) => {
      const entry = path.join(folder, name);
      const target = targetOf(entry);
      if (target?.isDirectory()) return within(entry, [...around, real]);
      return target?.isFile() ? [entry] : [];
    });
}

/** What is there, or where it leads; undefined of a link to nowhere or to itself, of which there is nothing to serve. */
function targetOf(entry: string): fs.Stats | undefined {
  try {
    return fs.statSync(entry);
  } catch {
    return undefined;
  }
}

/** Whether {@link filesIn} has a first page; false of what is no folder at all. */
export const hasIndex = (folder: string): boolean => targetOf(path.join(folder, "index.html"))?.isFile() ?? false;

/** Bytes of all of them. */
export const bytesIn = (folder: string): number =>
  filesIn(folder).reduce((sum, file) => sum + fs.statSync(file).size, 0);
