/** Configurations that must be refused with one clear error, before anything on the cluster changes. */
import { createSharedSecrets } from "../../../lib/identity";
import type { Project } from "../support/project";
import type { Environment } from "../support/environment";

export interface WrongConfiguration {
  what: string;
  change(project: Project, environment: Environment): void | Promise<void>;
  /** Each must be in the output. */
  says: (string | RegExp)[];
}

/** How the program's error begins where one thing is wrong; what Pulumi itself refuses has another. */
const oneFault = "1 fault in the configuration of stack 'home'; nothing was changed.";

/** All of them concern the stack `home`, which is up while they are tried. */
export function wrongConfigurations(chartRepository: string): WrongConfiguration[] {
  return [
    {
      what: "a misspelt key",
      change: (p) => p.set("home", "blgo", { kind: "folder", path: "blog" }),
      says: [oneFault, "homestead:blgo", "did you mean blog?"],
    },
    {
      what: "a VAPID pair that does not match",
      change: (p) => p.setSecret("home", "vapidPublicKey", createSharedSecrets().vapidPublicKey),
      says: [
        oneFault,
        "homestead:vapidPublicKey: [secret]",
        "the public key that belongs to vapidPrivateKey: the two are a pair",
      ],
    },
    {
      what: "the apex equal to the web host",
      change: (p, e) => p.setShared("webHost", e.zone),
      says: [oneFault, "homestead:webHost", "a host other than the apex"],
    },
    {
      what: "the other site's context",
      change: (p, e) => p.set("home", "cluster", { context: e.vps.context, kubeconfig: e.vps.kubeconfig }),
      says: [oneFault, "homestead:cluster.context", "a context of this stack's own: 'vps' uses this one"],
    },
    {
      what: "the UID of another cluster",
      change: (p, e) =>
        p.set("home", "cluster", {
          context: e.home.context,
          kubeconfig: e.home.kubeconfig,
          uid: "00000000-0000-4000-8000-000000000000",
        }),
      says: [oneFault, "homestead:cluster.uid", "this is another cluster"],
    },
    {
      what: "a storage class that does not exist",
      change: (p) => p.set("home", "storage", { kind: "local", databases: "no-such-class" }),
      says: [oneFault, "homestead:storage.databases", "no-such-class", /a storage class of the cluster: .*local-path/],
    },
    {
      what: "a chart version that does not exist",
      change: (p) =>
        p.set("home", "charts", {
          ...(p.value("home", "charts") as object),
          mastodon: { repository: chartRepository, version: "99.0.0" },
        }),
      says: [oneFault, "homestead:charts.mastodon.version", "99.0.0"],
    },
    {
      what: "a bucket that does not exist",
      change: (p) => p.set("home", "vault", { ...(p.value("home", "vault") as object), bucket: "no-such-bucket" }),
      says: [oneFault, "homestead:vault.bucket", "there is no bucket 'no-such-bucket'"],
    },
    {
      what: "a shared value in a site's file",
      change: (p) => p.set("home", "activeSite", "home"),
      says: [oneFault, "homestead:activeSite", "nothing in Pulumi.home.yaml: both sites must agree on it"],
    },
    {
      what: "a missing secret",
      change: (p) => p.set("home", "ownerPassword", undefined),
      says: [/missing .*ownerPassword/],
    },
    {
      what: "a secret in plain text",
      change: (p) => p.set("home", "ownerPassword", "in-plain-text-for-all-to-read"),
      says: [/ownerPassword.*must be encrypted/],
    },
    {
      what: "a quantity in another unit",
      change: (p) => p.set("home", "sizes", { database: "10GB" }),
      says: [oneFault, "homestead:sizes.database", "a Kubernetes quantity such as 10Gi"],
    },
    {
      what: "a blog folder that is not there",
      change: (p) => p.set("home", "blog", { kind: "folder", path: "no-such-folder" }),
      says: [oneFault, "homestead:blog.path", "a folder with an index.html"],
    },
  ];
}
