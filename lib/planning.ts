/**
 * Whether the program is being evaluated for a plan or a test, without a cluster. A symbol and not an environment
 * variable: nobody can switch the checks of a real update off from outside.
 */
const mark = Symbol.for("homestead.planning");
export const isPlanning = (): boolean => (globalThis as Record<symbol, unknown>)[mark] === true;

/** Marks this process as a planning one, for good. The plan's own process calls it before it loads the program. */
export const startPlanning = (): void => {
  (globalThis as Record<symbol, unknown>)[mark] = true;
};
