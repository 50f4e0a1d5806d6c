import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { digest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod, tagAlone } from "../lib/pods";
import type { Settings } from "../settings";

export interface PulledImagesArgs extends Pick<Settings, "images"> {
  namespace: pulumi.Input<string>;
}

/** What a site runs only while it is active. The database's image is there already: its database follows. */
const needed = ["mastodon", "mastodon-streaming", "valkey", "node"] as const;

/** Nobody's: what runs here does nothing. */
const user = 65534;

/**
 * The images a warm standby will need, pulled while there is time for it: Mastodon's alone are more than a gigabyte,
 * and a takeover would wait for them.
 *
 * A Job that runs `true` in each of them. On a cluster of several nodes that is the node which the Job's pod is on.
 */
export class PulledImages extends pulumi.ComponentResource {
  constructor(name: string, args: PulledImagesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:PulledImages", name, {}, opts);
    const { mastodon } = args.images;
    const tag = tagAlone(mastodon);
    const images = [
      ...needed.map((image) => ({ name: image, image: args.images[image] })),
      // By its digest a node does not know the tag, and the chart's Jobs go by that (components/mastodon.ts).
      ...(tag === mastodon ? [] : [{ name: "mastodon-by-tag", image: tag }]),
    ];
    // A Job's pod never changes: other images are another Job.
    const version = digest(JSON.stringify(images)).slice(0, 8);
    new k8s.batch.v1.Job(
      `${name}-job`,
      {
        metadata: {
          name: `pulled-images-${version}`,
          namespace: args.namespace,
          labels: labels("pulled-images"),
          annotations: { "pulumi.com/replaceUnready": "true", "pulumi.com/timeoutSeconds": "3660" },
        },
        spec: {
          backoffLimit: 3,
          activeDeadlineSeconds: 3600,
          template: {
            metadata: { labels: labels("pulled-images") },
            spec: {
              restartPolicy: "Never",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: restrictedPod(user),
              containers: images.map((image) => ({
                ...image,
                command: ["true"],
                resources: resources("1m", "8Mi", "32Mi"),
                securityContext: restrictedContainer,
              })),
            },
          },
        },
      },
      { parent: this, deleteBeforeReplace: true },
    );
    this.registerOutputs();
  }
}
