/** The Node.js that all of this runs on. Imports nothing that would itself need it. */

/** The oldest that does: what undici 8 asks for, which the Kubernetes client stands on. npm ci installs a newer one. */
export const oldestNode = "22.19.0";

/** What is wrong with a version of Node.js; undefined if nothing is. Pure. */
export function nodeFault(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldMajor = 0, oldMinor = 0] = oldestNode.split(".").map(Number);
  if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) return undefined;
  return `homestead needs Node.js ${oldestNode} or newer, and the node on the PATH is ${version}`;
}

/** Puts the Node.js that npm ci has installed before any other. */
export const nodeMend = 'npm ci, then: export PATH="$PWD/node_modules/.bin:$PATH"';
