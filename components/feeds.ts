import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { labels } from "../lib/pods";
import type { Settings } from "../settings";
import { taskPod } from "./mastodon";
import type { MastodonArgs } from "./mastodon";

export interface FeedsArgs extends Pick<MastodonArgs, "postgres" | "valkey" | "media" | "search"> {
  namespace: pulumi.Input<string>;
  settings: MastodonArgs["settings"] & Pick<Settings, "generation" | "epoch">;
}

/**
 * Home feeds live in Valkey alone. Where a database was restored, Valkey began empty: they are built again from the
 * posts, once for each generation and each time the site takes over.
 */
export class Feeds extends pulumi.ComponentResource {
  constructor(name: string, args: FeedsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Feeds", name, {}, opts);
    const { generation, epoch } = args.settings;
    const beginning = `g${generation}-e${epoch}`;
    new k8s.batch.v1.Job(
      `${name}-job-${beginning}`,
      {
        metadata: {
          name: `mastodon-feeds-${beginning}`,
          namespace: args.namespace,
          labels: labels("mastodon-feeds"),
          // A Job that failed stays failed: the next update must run another.
          annotations: { "pulumi.com/replaceUnready": "true", "pulumi.com/timeoutSeconds": "3660" },
        },
        spec: {
          backoffLimit: 3,
          activeDeadlineSeconds: 3600,
          template: {
            metadata: { labels: labels("mastodon-feeds") },
            // Without a name: of every user who signed in lately (docs.joinmastodon.org/admin/tootctl, feeds build).
            spec: taskPod(args, { name: "feeds", command: ["bin/tootctl", "feeds", "build"] }),
          },
        },
      },
      // Once means once: a new image is no reason to build them again.
      { parent: this, ignoreChanges: ["spec"], deleteBeforeReplace: true },
    );
    this.registerOutputs();
  }
}
