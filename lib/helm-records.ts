/**
 * Helm keeps a record of each attempt at a release, and refuses to touch one whose last attempt has not ended ("another
 * operation is in progress"). An update that was killed leaves such a record, and the next one has to go on from there.
 */
import type { Settings } from "../settings";
import { releaseName } from "../components/mastodon";
import { cnpgNamespace } from "../components/operators";
import { ask, kubeClient } from "./kube";
import { kubernetes } from "./kubernetes";

/** helm.sh, `helm.sh/helm/v3/pkg/release`: the states of an attempt that is under way. */
const underWay = ["pending-install", "pending-upgrade", "pending-rollback"];

/** The releases that a stack makes, each with its namespace. */
const releasesOf = ({ namespace, operators }: Releasing): [name: string, namespace: string][] => [
  [releaseName, namespace],
  ...(operators.certManager === "install" ? [["cert-manager", "cert-manager"] as [string, string]] : []),
  ...(operators.cloudNativePg === "install" ? [["cloudnative-pg", cnpgNamespace] as [string, string]] : []),
  ...(operators.barmanPlugin === "install" ? [["plugin-barman-cloud", cnpgNamespace] as [string, string]] : []),
];

type Releasing = Pick<Settings, "namespace" | "operators">;

/** On the record of a release's last whole attempt: the number of one after it that was killed. */
const killedMark = "homestead/killed";

/** What the records say. */
export interface Releases {
  /** Whether Mastodon was ever installed to the end. */
  mastodon: "there" | "missing";
  /** For each release whose last attempt was killed, what the attempt that makes up for it is described by. */
  killed: Record<string, string>;
}

/**
 * Reads the records, and forgets attempts that never ended, so that the release stands where it stood before them. Only
 * the holder of the stack's lock may do that: while it is held nobody else is at work, so that what is under way by the
 * record was killed.
 *
 * What the attempt has made already is in the cluster, and Pulumi, which compares the program with its state only, sees
 * nothing to do for a program that has gone back to what it was. So the release must be made anew, and that must not be
 * forgotten with the record when this update is killed as well: it is written on the record before it. Helm writes
 * that one anew when an attempt has gone well, and the mark goes with it.
 *
 * @param then `look` changes nothing
 * @throws Unanswered
 */
export async function readReleases(
  settings: Pick<Settings, "cluster"> & Releasing,
  then: "forget" | "look",
): Promise<Releases> {
  const core = kubeClient(settings.cluster).makeApiClient(kubernetes().CoreV1Api);
  const found: Releases = { mastodon: "missing", killed: {} };
  for (const [release, namespace] of releasesOf(settings)) {
    const labelSelector = `owner=helm,name=${release}`;
    const secrets = core.listNamespacedSecret({ namespace, labelSelector });
    const { items } = await ask(`list secrets -n ${namespace}`, secrets);
    const records = items
      .map(({ metadata }) => ({
        name: metadata?.name ?? "",
        status: metadata?.labels?.["status"] ?? "",
        revision: Number(metadata?.labels?.["version"]),
        mark: metadata?.annotations?.[killedMark],
      }))
      .sort((a, b) => b.revision - a.revision);
    const unfinished = records.filter(({ status }) => underWay.includes(status));
    const whole = records.filter(({ status }) => !underWay.includes(status));
    const [last] = whole;
    const killed = unfinished[0] === undefined ? last?.mark : String(unfinished[0].revision);
    // The next one is more than the first of a release, which nobody has to ask for.
    if (killed !== undefined && last !== undefined) found.killed[release] = `after attempt ${killed}, which was killed`;
    if (release === releaseName && whole.some(({ status }) => status === "deployed")) found.mastodon = "there";
    if (then === "look" || killed === undefined) continue;
    if (last !== undefined && last.mark !== killed) {
      const body = { metadata: { annotations: { [killedMark]: killed } } };
      const marked = core.patchNamespacedSecret(
        { name: last.name, namespace, body },
        kubernetes().setHeaderOptions("Content-Type", kubernetes().PatchStrategy.MergePatch),
      );
      await ask(`patch secrets -n ${namespace}`, marked);
    }
    for (const { name } of unfinished) {
      await ask(`delete secrets -n ${namespace}`, core.deleteNamespacedSecret({ name, namespace }));
    }
  }
  return found;
}
