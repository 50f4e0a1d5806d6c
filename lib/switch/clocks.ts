/** Whether everybody who takes part in a switch has the same time of day. */
import type { Settings } from "../../settings";
import { clockMend, storeAhead } from "../clock";
import { askVersion, kubeClient } from "../kube";
import type { BucketKeys } from "../s3";

/** A clock, and by how many seconds it is ahead of this machine's. */
export interface Clock {
  of: string;
  ahead: number;
}

/**
 * Seconds. The lease counts durations, and nothing federates twice whatever the clocks say; but one that nobody sets goes on
 * going wrong, and from a quarter of an hour the vault refuses what is signed by it, in the middle of a switch.
 */
const mostApart = 15;

/** What is wrong with some clocks, this machine's among them; undefined if nothing is. Pure. */
export function clockFault(clocks: readonly Clock[]): string | undefined {
  const all = [{ of: "this machine", ahead: 0 }, ...clocks].sort((a, b) => a.ahead - b.ahead);
  const [first, last] = [all[0], all.at(-1)];
  if (first === undefined || last === undefined || last.ahead - first.ahead <= mostApart) return undefined;
  const apart = Math.round(last.ahead - first.ahead);
  return `the clocks are ${apart} s apart (${first.of}'s is behind ${last.of}'s; at most ${mostApart} s): ${clockMend}`;
}

/** The clocks of the vault and of some sites' clusters. One that does not say is left out. */
export async function readClocks(
  { vault }: Pick<Settings, "vault">,
  keys: BucketKeys,
  sites: readonly Pick<Settings, "site" | "cluster">[],
): Promise<Clock[]> {
  const read = async (of: string, ask: () => Promise<number | undefined>): Promise<Clock[]> => {
    const ahead = await ask().catch(() => undefined);
    return ahead === undefined ? [] : [{ of, ahead }];
  };
  const clocks = await Promise.all([
    read("the vault", () => storeAhead(vault, keys)),
    ...sites.map(({ site, cluster }) => read(site, async () => (await askVersion(kubeClient(cluster))).ahead)),
  ]);
  return clocks.flat();
}
