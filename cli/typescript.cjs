// Loads the sources as they stand, types unchecked. Not tsx, which translates every dependency that is an ES module, too
// (some seconds at each start), nor ts-node, which loads the whole compiler: npm run bench compares.
const { createHash } = require("node:crypto");
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require("node:fs");
const nodeModule = require("node:module");
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
// An older Node.js without it is told so by the program (lib/check-node.ts).
nodeModule.enableCompileCache?.(join(cache, "compile"));
const folder = join(cache, "typescript");
const digestOf = (...parts) => createHash("sha256").update(JSON.stringify(parts)).digest("hex");
const kept = (source, filename) => {
  const file = join(folder, `${digestOf(version, options, source)}.js`);
  const there = whole(file);
  if (there !== undefined) return there;
  const code = translated(source, filename);
  keep(file, code);
  return code;
};

/** What is kept, if it is what was written: after a power cut a file may be empty, and an empty program deletes a site. */
function whole(file) {
  try {
    const [, digest, code] = /^\/\/ ([0-9a-f]{64})\n(.*)$/s.exec(readFileSync(file, "utf8")) ?? [];
    return digest === undefined || digest !== digestOf(code) ? undefined : code;
  } catch {
    return undefined;
  }
}

/** Others start at the same time, and see it whole or not at all. Who may not write here does without. */
function keep(file, code) {
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${file}.${process.pid}`, `// ${digestOf(code)}\n${code}`);
    renameSync(`${file}.${process.pid}`, file);
  } catch {
    return;
  }
}

require.extensions[".ts"] = (module, filename) => {
  const source = readFileSync(filename, "utf8");
  module._compile(traced ? translated(source, filename) : kept(source, filename), filename);
};
