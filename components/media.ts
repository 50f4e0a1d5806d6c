import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { labels } from "../lib/pods";
import type { Settings } from "../settings";

export interface MediaArgs extends Pick<Settings, "secrets"> {
  namespace: pulumi.Input<string>;
}

/** Where the world reads an upload: `<this>/<key>`. */
export function publicUrl(bucket: Settings["media"]): string {
  return (bucket.publicUrl ?? `${bucket.endpoint.replace(/\/$/, "")}/${bucket.bucket}`).replace(/\/$/, "");
}

/** The `mastodon.s3` values of the chart. */
export function s3Values(bucket: Settings["media"], existingSecret: pulumi.Input<string>) {
  const url = new URL(publicUrl(bucket));
  return {
    enabled: true,
    endpoint: bucket.endpoint,
    hostname: new URL(bucket.endpoint).host,
    region: bucket.region,
    bucket: bucket.bucket,
    // Mastodon builds an upload's address from these two and nothing else.
    protocol: url.protocol.replace(":", ""),
    aliasHost: `${url.host}${url.pathname === "/" ? "" : url.pathname}`,
    // Every S3 server takes paths; buckets as host names need a wildcard certificate.
    overridePathStyle: "true",
    existingSecret,
  };
}

/** The media bucket: uploads, read by the world, written with keys that reach nothing else. */
export class Media extends pulumi.ComponentResource {
  /** Secret with `access-key-id` and `secret-access-key`, as the chart wants them. */
  public readonly secretName: pulumi.Output<string>;

  constructor(name: string, args: MediaArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Media", name, {}, opts);
    const secret = new k8s.core.v1.Secret(
      `${name}-keys`,
      {
        metadata: { name: "media", namespace: args.namespace, labels: labels("media") },
        stringData: {
          "access-key-id": args.secrets.mediaAccessKeyId,
          "secret-access-key": args.secrets.mediaSecretAccessKey,
        },
      },
      { parent: this },
    );
    this.secretName = secret.metadata.name;
    this.registerOutputs({ secretName: this.secretName });
  }
}
