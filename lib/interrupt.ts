/** Ctrl-C, a kill, or a line that drops (SSH, a closed terminal), for work that can be told to end. */

/**
 * Milliseconds within which two signals are one: npx hands a Ctrl-C on that the terminal has sent to all of us, and
 * timeout(1) signals its child and the child's group.
 */
const sameSignal = 1000;

/**
 * The first of them tells the work to end, a second one ends the program; but for a line that drops, which nobody does on
 * purpose, and which says it more than once.
 *
 * @param said printed at the first one
 */
export async function stoppable<T>(
  work: (signal: AbortSignal) => Promise<T>,
  said = "interrupted; once more ends it without cleaning up",
): Promise<T> {
  const controller = new AbortController();
  let first = 0;
  const tell = () => {
    first = performance.now();
    console.error(said);
    controller.abort(new Error("interrupted"));
  };
  const stop = () => {
    if (!controller.signal.aborted) tell();
    else if (performance.now() - first > sameSignal) process.exit(130);
  };
  const dropped = () => {
    // What is said from now on reaches nobody, and is no reason to break off.
    for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
    if (!controller.signal.aborted) tell();
  };
  process.on("SIGINT", stop).on("SIGTERM", stop).on("SIGHUP", dropped);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop).off("SIGHUP", dropped);
  }
}
