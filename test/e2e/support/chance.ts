/** Chance that can be had again: everything that is drawn follows from a seed, which is printed. */

/** Numbers from 0 up to 1 (mulberry32). */
export function chance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The seed of a run: `$E2E_SEED`, else a new one. */
export const seedOf = (env: NodeJS.ProcessEnv = process.env): number =>
  Number(env["E2E_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

/** One of some things. @throws RangeError when there is none */
export function draw<T>(random: () => number, things: readonly T[]): T {
  const thing = things[Math.floor(random() * things.length)];
  if (thing === undefined) throw new RangeError("nothing to draw from");
  return thing;
}

/** Which of some things a commit draws: the same one each time, and with the next commit most often another. Pure. */
export const drawnBy = (commit: string, count: number): number => Number.parseInt(commit.slice(0, 8), 16) % count;
