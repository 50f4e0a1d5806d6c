// Loads the sources as they stand, types unchecked. Not tsx, which translates every dependency that is an ES module, too
// (some seconds at each start), nor ts-node, which loads the whole compiler: npm run bench compares.
const { readFileSync } = require("node:fs");
const { transformSync } = require("esbuild");

// A trace names lines of the sources only with their maps, and to look for all of them takes time.
if (process.env.HOMESTEAD_TRACE === "1") process.setSourceMapsEnabled(true);

require.extensions[".ts"] = (module, filename) => {
  const options = { loader: "ts", format: "cjs", target: "node22", sourcefile: filename, sourcemap: "inline" };
  module._compile(transformSync(readFileSync(filename, "utf8"), options).code, filename);
};
