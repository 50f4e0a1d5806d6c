import * as fs from "node:fs";
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// The end-to-end suite wants clusters, and the stand-in is a package of its own.
const exclude = ["node_modules/**", "test/e2e/**", "test/standin/**"];

const tests = fs
  .globSync("test/**/*.test.ts", { cwd: import.meta.dirname, exclude })
  .map((file) => file.replaceAll("\\", "/"));
// What puts a mock in a module's place must not meet the module as another file has loaded it, nor leave it to that one.
const mocking = tests.filter((file) => /\bvi\.mock\(/.test(fs.readFileSync(new URL(file, import.meta.url), "utf8")));

const shared = {
  // A file that starts processes may wait for two slow cores.
  testTimeout: 120_000,
};

export default defineConfig({
  test: {
    // By default one core is left idle, which of two is half; and most tests wait for processes of their own. As a number:
    // a share of more than all cores is taken for all.
    maxWorkers: 2 * availableParallelism(),
    projects: [
      {
        test: {
          ...shared,
          name: "shared",
          include: ["test/**/*.test.ts"],
          exclude: [...exclude, ...mocking],
          // Evaluates every stack once, for all files.
          globalSetup: ["test/support/plans.ts"],
          // The program's packages take seconds to load: once a worker, not once a file. A test cleans up after itself.
          isolate: false,
        },
      },
      {
        test: {
          ...shared,
          name: "mocking",
          include: mocking,
          globalSetup: ["test/support/example-folder.ts"],
          isolate: true,
        },
      },
    ],
  },
});
