/** Asking what may be dead: nothing is waited for without end, and what goes wrong is a few words. */

/** There was no answer in time. */
export class Late extends Error {
  override name = "Late";
}

/** @throws Late when the work takes longer, or whatever it throws */
export async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Late(`no answer within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** @throws what the signal was aborted with, as soon as it is, or whatever the work throws */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let end: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    end = () => reject(signal.reason as Error);
    if (signal.aborted) end();
    signal.addEventListener("abort", end);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** What went wrong, in full; `fetch failed` says nothing, its cause does. */
export function messageOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}

/** The first line of {@link messageOf}. */
export const reason = (error: unknown): string => messageOf(error).split("\n")[0] ?? "";
