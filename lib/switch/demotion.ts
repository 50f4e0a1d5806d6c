/** A database that is to give up writing, or to take it up again: what CloudNativePG does meanwhile, by itself. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Settings } from "../../settings";
import { within } from "../attempt";
import { findDatabases } from "../database";
import type { DatabaseObject } from "../database";
import { kubectl } from "../kube";
import { UserError } from "../user-error";

/** Seconds. */
interface Limits {
  /** Between two looks. */
  pause: number;
  /** CloudNativePG begins at once, unless there is no Postgres to stop. */
  beginning: number;
  /** Its Postgres has 300 to stop, and its last WAL goes to the vault. */
  patience: number;
}
const usual: Limits = { pause: 5, beginning: 60, patience: 600 };
/** Seconds in which a cluster says which databases it has, if it says anything. */
const answering = 10;

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
export async function untilSteady(
  settings: Place,
  say: (line: string) => void,
  { pause, beginning, patience }: Limits = usual,
): Promise<void> {
  const { cluster, namespace, site } = settings;
  const inNamespace = `${kubectl(cluster)} -n ${namespace}`;
  const databases = "clusters.postgresql.cnpg.io";
  const began = Date.now();
  /** Since when the cluster answers: CloudNativePG asks the same one. */
  let answered: number | undefined;
  const said = new Set<string>();
  const sayOnce = (line: string) => {
    if (!said.has(line)) say(`      ${line}`);
    said.add(line);
  };
  for (; ; await sleep(pause * 1000)) {
    const there = await within(answering, findDatabases(settings)).catch(() => undefined);
    const waited = (Date.now() - began) / 1000;
    if (there === undefined) {
      const silent = `${site}'s cluster does not say what its database does`;
      if (waited >= patience) {
        throw new UserError(
          `${silent}, for more than ${patience / 60} min; it cannot be told to write before that: ${inNamespace} get ${databases}`,
        );
      }
      sayOnce(`${silent}: it is asked again`);
      continue;
    }
    answered ??= Date.now();
    const found = demotionOf(there.current, site);
    if (found.is === "steady") return;
    if (found.is === "fenced") {
      throw new UserError(
        `${site}'s database '${found.name}' is fenced, and does not run; a demotion that was broken off leaves it like that. If nobody wants it so: ${inNamespace} annotate ${databases} ${found.name} cnpg.io/fencedInstances-`,
      );
    }
    if (!found.begun && Date.now() - answered >= beginning * 1000) return;
    if (waited >= patience) {
      throw new UserError(
        `${site}'s database is giving up writing, for more than ${patience / 60} min, and CloudNativePG lets nobody turn back before it has; it has to stop, and to bring its last WAL to the vault: npx homestead doctor ${site}, and ${inNamespace} describe ${databases}`,
      );
    }
    sayOnce(`${site}'s database is giving up writing; this cannot be turned back before it is over`);
  }
}
