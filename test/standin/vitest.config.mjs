import { defineConfig } from "vitest/config";

// `npm test` here; homestead's own `npm test` leaves this folder out. vitest, TypeScript and Node 24 are homestead's.
export default defineConfig({
  test: {
    include: ["*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
