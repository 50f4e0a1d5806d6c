import type * as k8s from "@kubernetes/client-node";

const mark = "app.kubernetes.io/part-of";
const us = "homestead";

/** Whether a stack of this project has made a namespace. */
export const isOurs = ({ metadata }: k8s.V1Namespace): boolean => metadata?.labels?.[mark] === us;

/**
 * Whether a stack of this project has made an operator's Deployment: its namespace says so or, of the plugin beside
 * somebody else's CloudNativePG, it does itself (components/operators.ts).
 */
export const isOursIn =
  (namespaces: readonly k8s.V1Namespace[]) =>
  ({ metadata }: k8s.V1Deployment): boolean =>
    metadata?.annotations?.[mark] === us ||
    namespaces.some((one) => isOurs(one) && one.metadata?.name === metadata?.namespace);
