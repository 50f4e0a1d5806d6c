/** Ctrl-C, for work that can be told to end. */

/**
 * Milliseconds within which two signals are one: npx hands a Ctrl-C on that the terminal has sent to all of us, and
 * timeout(1) signals its child and the child's group.
 */
const sameSignal = 1000;

/**
 * The first Ctrl-C tells the work to end, a second one ends the program.
 *
 * @param said printed at the first one
 */
export async function stoppable<T>(
  work: (signal: AbortSignal) => Promise<T>,
  said = "interrupted; once more ends it without cleaning up",
): Promise<T> {
  const controller = new AbortController();
  let first = 0;
  const stop = () => {
    if (controller.signal.aborted) {
      if (performance.now() - first > sameSignal) process.exit(130);
      return;
    }
    first = performance.now();
    console.error(said);
    controller.abort(new Error("interrupted"));
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}
