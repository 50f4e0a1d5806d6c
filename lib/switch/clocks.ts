/** Whether everybody who takes part in a switch has the same time of day. */
import * as k8s from "@kubernetes/client-node";
import type { Settings } from "../../settings";
import { aheadBy } from "../doctor/lines";
import { kubeClient } from "../kube";
import { s3Request } from "../s3";
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
  return `the clocks are ${apart} s apart (${first.of}'s is behind ${last.of}'s; at most ${mostApart} s): timedatectl set-ntp true, on the machine whose clock is wrong`;
}

/** The clocks of the vault and of some sites' clusters. One that does not say is left out. */
export async function readClocks(
  { vault }: Pick<Settings, "vault">,
  keys: BucketKeys,
  sites: readonly Pick<Settings, "site" | "cluster">[],
): Promise<Clock[]> {
  const read = async (of: string, ask: () => Promise<string | null | undefined>): Promise<Clock[]> => {
    const asked = Date.now();
    const ahead = aheadBy(await ask().catch(() => undefined), asked, Date.now());
    return ahead === undefined ? [] : [{ of, ahead }];
  };
  const clocks = await Promise.all([
    read("the vault", async () => (await s3Request(vault, keys, "HEAD", { seconds: 6 })).headers.get("date")),
    ...sites.map(({ site, cluster }) =>
      read(site, async () => {
        const { headers } = await kubeClient(cluster).makeApiClient(k8s.VersionApi).getCodeWithHttpInfo();
        return headers.date;
      }),
    ),
  ]);
  return clocks.flat();
}
