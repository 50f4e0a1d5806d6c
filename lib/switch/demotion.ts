/** A database that is to give up writing, or to take it up again: what CloudNativePG does meanwhile, by itself. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Settings } from "../../settings";
import { findDatabases } from "../database";
import type { DatabaseObject } from "../database";
import { kubectl } from "../kube";
import { UserError } from "../user-error";

/** Seconds: its Postgres has 300 to stop, and its last WAL goes to the vault. */
const patience = 600;
/** Seconds: CloudNativePG begins at once, unless there is no Postgres to stop. */
const beginning = 60;

/**
 * `steady`: it writes, or has given it up. `turning`: CloudNativePG refuses to turn back (`begun`), or has not begun. `fenced`:
 * it is to write, and cannot: what is left of a demotion that was undone in its first moment, or somebody's own doing.
 */
export type Demotion = { is: "steady" } | { is: "turning"; begun: boolean } | { is: "fenced"; name: string };

/** Pure. */
export function demotionOf(database: DatabaseObject | undefined, site: string): Demotion {
  if (database === undefined) return { is: "steady" };
  const { metadata, spec, status } = database;
  const fenced = !/^(\[\s*\])?$/.test(metadata.annotations?.["cnpg.io/fencedInstances"] ?? "");
  // A site that never had another one beside it writes, and says nothing of it.
  if ((spec.replica?.primary ?? site) === site)
    return fenced ? { is: "fenced", name: metadata.name } : { is: "steady" };
  const begun = fenced || status?.switchReplicaClusterStatus?.inProgress === true;
  // Its token is there once it has stopped.
  return begun || !status?.demotionToken ? { is: "turning", begun } : { is: "steady" };
}

type Place = Pick<Settings, "cluster" | "namespace" | "site" | "generation" | "images">;

/**
 * Returns once a site's database can be told to write. Nothing is lifted here: a fence may be there for another reason.
 *
 * @throws UserError when it is fenced, or its demotion does not end
 */
export async function untilSteady(settings: Place, say: (line: string) => void, pause = 5): Promise<void> {
  const { cluster, namespace, site } = settings;
  const inNamespace = `${kubectl(cluster)} -n ${namespace}`;
  const databases = "clusters.postgresql.cnpg.io";
  for (let waited = 0; ; waited += pause) {
    const found = demotionOf((await findDatabases(settings))?.current, site);
    if (found.is === "steady") return;
    if (found.is === "fenced") {
      throw new UserError(
        `${site}'s database '${found.name}' is fenced, and does not run; a demotion that was broken off leaves it like that. If nobody wants it so: ${inNamespace} annotate ${databases} ${found.name} cnpg.io/fencedInstances-`,
      );
    }
    if (!found.begun && waited >= beginning) return;
    if (waited >= patience) {
      throw new UserError(
        `${site}'s database is giving up writing, for more than ${patience / 60} min, and CloudNativePG lets nobody turn back before it has; it has to stop, and to bring its last WAL to the vault: npx homestead doctor ${site}, and ${inNamespace} describe ${databases}`,
      );
    }
    if (waited === 0)
      say(`      ${site}'s database is giving up writing; this cannot be turned back before it is over`);
    await sleep(pause * 1000);
  }
}
