/** Volume claims of a site: which one is there, and whether one is gone with its volume. */
import * as assert from "node:assert/strict";
import type { Cluster } from "./cluster";
import { eventually } from "./processes";

/** @throws Error when there is no such claim */
export async function claimUid(cluster: Cluster, name: string, namespace: string): Promise<string> {
  const claim = await cluster.get("persistentvolumeclaim", name, namespace);
  if (claim === undefined) throw new Error(`no claim '${name}'`);
  return claim.metadata.uid;
}

/** Waits until a claim and the volume that it was bound to are gone. */
export const claimGone = (cluster: Cluster, name: string, namespace: string): Promise<void> =>
  eventually(120, "claim and volume are gone", async () => {
    assert.equal(await cluster.get("persistentvolumeclaim", name, namespace), undefined);
    const left = (await cluster.list("persistentvolumes")).filter(
      ({ spec }) => (spec?.["claimRef"] as { name?: string } | undefined)?.name === name,
    );
    assert.deepEqual(
      left.map(({ metadata }) => metadata.name),
      [],
    );
  });
