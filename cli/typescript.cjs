// Loads the sources as they stand, types unchecked. Not tsx, which translates every dependency that is an ES module, too
// (some seconds at each start), nor ts-node, which loads the whole compiler: npm run bench compares.
const { createHash } = require("node:crypto");
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require("node:fs");
const { enableCompileCache } = require("node:module");
const { join } = require("node:path");
const { version } = require("esbuild/package.json");

// A trace names lines of the sources only with their maps, and to look for all of them takes time.
const traced = process.env.HOMESTEAD_TRACE === "1";
if (traced) process.setSourceMapsEnabled(true);

const options = { loader: "ts", format: "cjs", target: "node22", sourcemap: traced && "inline" };
const translated = (source, filename) => {
  return require("esbuild").transformSync(source, { ...options, sourcefile: filename }).code;
};

// Beside the packages, so that npm ci empties it. A translation is kept under the digest of what it was made from (a map
// has the file's name in it, too), since to start esbuild takes a third of a second of processor time; and Node.js keeps
// what it made of the some 2,000 modules of a start. npm run bench measures a start.
const cache = join(__dirname, "..", "node_modules", ".cache");
enableCompileCache(join(cache, "compile"));
const folder = join(cache, "typescript");
const kept = (source, filename) => {
  const digest = createHash("sha256")
    .update(JSON.stringify([version, options, source]))
    .digest("hex");
  const file = join(folder, `${digest}.js`);
  try {
    return readFileSync(file, "utf8");
  } catch {
    const code = translated(source, filename);
    keep(file, code);
    return code;
  }
};

/** Whole or not at all: others start at the same time. Who may not write here does without. */
function keep(file, code) {
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${file}.${process.pid}`, code);
    renameSync(`${file}.${process.pid}`, file);
  } catch {
    return;
  }
}

require.extensions[".ts"] = (module, filename) => {
  const source = readFileSync(filename, "utf8");
  module._compile(traced ? translated(source, filename) : kept(source, filename), filename);
};
