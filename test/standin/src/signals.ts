/**
 * A process with the id 1, as a container's is, gets no default handling of signals: without a handler it would ignore SIGTERM and be killed
 * half a minute later. Until a server says what stopping means for it, stopping means leaving.
 */
let stop = (): void => process.exit(143);
let told = false;

for (const signal of ["SIGTERM", "SIGINT"] as const)
  process.on(signal, () => {
    if (told) return;
    told = true;
    stop();
  });

export function onStop(handler: () => void): void {
  stop = handler;
}
