/**
 * Helm keeps a record a release and refuses to touch one whose last attempt has not ended ("another operation is in
 * progress"). An update that was killed leaves such a record, and the next one has to go on from there.
 */
import * as k8s from "@kubernetes/client-node";
import type { Settings } from "../settings";
import { releaseName } from "../components/mastodon";
import { cnpgNamespace } from "../components/operators";
import { kubeClient } from "./kube";

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

/**
 * Forgets attempts that never ended, so that the release stands where it stood before them. Only the holder of the
 * stack's lock may do this: while it is held nobody else is at work, so that what is under way by the record was killed.
 * What the attempt has made already is adopted by the next one, whose release has the same name.
 *
 * @returns the names of the releases that were stuck
 */
export async function forgetUnfinished(settings: Pick<Settings, "cluster"> & Releasing): Promise<string[]> {
  const core = kubeClient(settings.cluster).makeApiClient(k8s.CoreV1Api);
  const stuck: string[] = [];
  for (const [release, namespace] of releasesOf(settings)) {
    const labelSelector = `owner=helm,name=${release},status in (${underWay.join(",")})`;
    const { items } = await core.listNamespacedSecret({ namespace, labelSelector });
    for (const { metadata } of items) await core.deleteNamespacedSecret({ name: metadata?.name ?? "", namespace });
    if (items.length > 0) stuck.push(release);
  }
  return stuck;
}
