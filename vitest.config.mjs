import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // The end-to-end suite wants clusters, and the stand-in is a package of its own.
    exclude: ["node_modules/**", "test/e2e/**", "test/standin/**"],
    // Evaluates every stack once, for all files.
    globalSetup: ["test/support/plans.ts"],
    // Many tests start Node.js on the same packages: compiled once, they load a fifth faster.
    env: { NODE_COMPILE_CACHE: new URL("node_modules/.cache/compile", import.meta.url).pathname },
    // The program's packages take seconds to load: once a worker, not once a file. A test cleans up after itself.
    isolate: false,
    // By default one core is left idle, which of two is half; and most tests wait for processes of their own (measured: 15 s less).
    maxWorkers: "200%",
    // A file that starts processes may wait for two slow cores.
    testTimeout: 120_000,
  },
});
