/** What a scenario says while it runs: one line a step, one line an assertion, and the sums. */

export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * The line that ends a scenario.
 * @param idle which part of this machine's processors had nothing to do meanwhile: what could be had by doing more at once
 */
export const scenarioLine = (name: string, t: Tally, seconds: number, idle: number): string =>
  `${name} (${Math.round(seconds)} s, processors ${Math.round(idle * 100)} % idle): ${t.passed} passed, ${t.failed} failed`;

/** The line that ends the whole run; `.ci/run` and people's scripts read it. */
export const totalLine = (t: Tally): string => `${t.passed} passed, ${t.failed} failed, ${t.skipped} skipped`;

/** The tally that a run's last line tells; undefined when there is no such line. */
export function parseTotal(output: string): Tally | undefined {
  const last = output.trimEnd().split("\n").at(-1) ?? "";
  const [, passed, failed, skipped] = /^(\d+) passed, (\d+) failed, (\d+) skipped$/.exec(last) ?? [];
  return passed === undefined
    ? undefined
    : { passed: Number(passed), failed: Number(failed), skipped: Number(skipped) };
}

/** Sums of any number of tallies. */
export const sum = (tallies: Tally[]): Tally =>
  tallies.reduce(
    (a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped }),
    { passed: 0, failed: 0, skipped: 0 },
  );

/** An error's message as one line of at most `length` characters. */
export function oneLine(error: unknown, length = 600): string {
  const text = (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, " | ").trim();
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}

/** What is lost once is lost: no second try makes up for it. */
export const forgivable = (broken: readonly string[]): boolean =>
  broken.length > 0 && !broken.some((claim) => /\b(lost|kept|restarted|replaced)\b/.test(claim));

/** Collects and prints the assertions of one scenario. */
export class Report {
  private tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  /** Claims that did not hold. */
  readonly broken: string[] = [];

  constructor(private readonly print: (line: string) => void = (line) => console.log(line)) {}

  get counts(): Tally {
    return { ...this.tally };
  }

  /** Something that is done rather than claimed. @throws what `work` throws, after printing how long it took. */
  async step<T>(what: string, work: () => Promise<T> | T): Promise<T> {
    const start = Date.now();
    try {
      const result = await work();
      this.print(`      ${what} (${since(start)})`);
      return result;
    } catch (error) {
      this.print(`      ${what}: did not get there (${since(start)})`);
      throw error;
    }
  }

  /** A claim: holds if `probe` returns, fails if it throws. A scenario goes on after a failed claim. */
  async check(claim: string, probe: () => unknown): Promise<boolean> {
    const start = Date.now();
    try {
      await probe();
    } catch (error) {
      this.tally.failed++;
      this.broken.push(claim);
      this.print(`FAILED ${claim} (${since(start)}): ${oneLine(error)}`);
      return false;
    }
    this.tally.passed++;
    this.print(`ok    ${claim} (${since(start)})`);
    return true;
  }

  /**
   * A control: the same probe as a claim's, where the claim must not hold. It has to fail, and for the reason
   * given, since a probe that fails for another reason (a slip in the test) proves nothing either.
   */
  async control(what: string, probe: () => unknown, because: RegExp): Promise<boolean> {
    return this.check(`control: ${what}`, async () => {
      let reason: string;
      try {
        await probe();
      } catch (error) {
        reason = oneLine(error, 4000);
        if (!because.test(reason)) throw new Error(`failed, but not because of ${because}: ${reason}`);
        return;
      }
      throw new Error("passed, although it must fail: the claim it controls proves nothing");
    });
  }

  /** Counts what could not be tried here, with its reason. */
  skip(claim: string, why: string): void {
    this.tally.skipped++;
    this.print(`skip  ${claim}: ${why}`);
  }
}

const since = (start: number): string => `${((Date.now() - start) / 1000).toFixed(1)} s`;
