/**
 * The Kubernetes client, loaded when somebody first asks a cluster: a start takes half a second of processor time for its
 * 955 modules, which a plan, a kit and an identity do without.
 */
/* eslint-disable @typescript-eslint/no-require-imports -- import() would make everything wait that makes a client */
export const kubernetes = (): typeof import("@kubernetes/client-node") =>
  require("@kubernetes/client-node") as typeof import("@kubernetes/client-node");
