/** Waiting, in an update, for what a cluster does by itself. */
import * as pulumi from "@pulumi/pulumi";
import { isPlanning } from "./planning";

/** Whether the update is a real one, and not a preview or a plan, in which nothing may be waited for. */
export const isReal = () => !isPlanning() && !pulumi.runtime.isDryRun();

const twoSeconds = () => new Promise((resolve) => setTimeout(resolve, 2000));

/** Looks every two seconds. @throws Error with what was seen last, when the time is up, or at once if it is a RunError */
export async function until<T>(seconds: number, what: string, look: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + seconds * 1000;
  let last = "";
  for (;;) {
    try {
      const found = await look();
      if (found !== undefined) return found;
    } catch (error) {
      if (pulumi.RunError.isInstance(error)) throw error;
      last = error instanceof Error ? `: ${error.message.split("\n")[0] ?? ""}` : "";
    }
    if (Date.now() > end) throw new pulumi.RunError(`${what}: not within ${seconds} s${last}`);
    await twoSeconds();
  }
}
