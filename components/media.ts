import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import { revisionOf } from "../lib/revision";
import type { Settings } from "../settings";
import { mastodonUser, mediaCopy, sentinel } from "./media-copy";

export interface MediaArgs extends Pick<
  Settings,
  "media" | "secrets" | "site" | "role" | "epoch" | "vault" | "storage" | "sizes" | "images"
> {
  namespace: pulumi.Input<string>;
  /** Adopts what an earlier `destroy` left on purpose. */
  kept: k8s.Provider;
}

/** Media kept in a bucket, the form that both sites can use. */
export type MediaBucket = Extract<Settings["media"], { kind: "bucket" }>;

/** The media bucket. @throws Error where media is on a volume, which `settings.ts` refuses beside an embedded store. */
export function bucketOf(media: Settings["media"]): MediaBucket {
  if (media.kind === "volume") throw new Error("media is on a volume: there is no bucket");
  return media;
}

/** Where the world reads an upload: `<this>/<key>`. */
export function publicUrl(bucket: MediaBucket): string {
  return (bucket.publicUrl ?? `${bucket.endpoint.replace(/\/$/, "")}/${bucket.bucket}`).replace(/\/$/, "");
}

/** Where the web host serves a file that is there if and only if the media volume is. */
export const volumeProbe = (webHost: string): string => `https://${webHost}/system/${sentinel}`;

/** Claims of the volume: uploads, and the images' own assets (see {@link Media}). */
const claims = { system: "media", assets: "mastodon-assets" } as const;

/** The values of the chart that say where uploads are kept: `mastodon.s3` or `mastodon.pvc`, one of them. */
export function mediaValues(media: Settings["media"], secretName: pulumi.Input<string>) {
  if (media.kind !== "volume") return { s3: s3Values(media, secretName), pvc: { enabled: false } };
  return {
    s3: { enabled: false },
    pvc: {
      enabled: true,
      system: { existingClaim: claims.system },
      assets: { existingClaim: claims.assets },
    },
  };
}

/** The `mastodon.s3` values of the chart. */
export function s3Values(bucket: MediaBucket, existingSecret: pulumi.Input<string>) {
  const url = new URL(publicUrl(bucket));
  return {
    enabled: true,
    endpoint: bucket.endpoint,
    hostname: new URL(bucket.endpoint).host,
    region: bucket.region,
    bucket: bucket.bucket,
    // `overridePathStyle` is left alone: it *overrides* the path style that Mastodon uses with every S3 endpoint, and a
    // bucket as a host name would need a wildcard certificate.
    // Mastodon builds an upload's address from these two and nothing else.
    protocol: url.protocol.replace(":", ""),
    aliasHost: `${url.host}${url.pathname === "/" ? "" : url.pathname}`,
    existingSecret,
  };
}

/**
 * Uploads: a bucket that the world reads, with keys that reach nothing else; or a volume of this cluster, copied to the
 * vault, for who has nothing better.
 *
 * With a volume the chart mounts a second one over `public/assets`, where the image has files of its own that the web
 * interface needs. It cannot be told not to, so that one is filled from the image before the image runs.
 */
export class Media extends pulumi.ComponentResource {
  /**
   * Secret with `access-key-id` and `secret-access-key`, as the chart wants them: of the bucket, or of the volume's copy
   * in the vault.
   */
  public readonly secretName: pulumi.Output<string>;
  /** Changes when uploads are kept somewhere else. */
  public readonly revision: pulumi.Output<string>;

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
    this.revision = args.media.kind === "volume" ? this.volume(name, args, secret) : pulumi.output(args.media.kind);
    this.registerOutputs({ secretName: this.secretName, revision: this.revision });
  }

  private volume(name: string, args: MediaArgs, secret: k8s.core.v1.Secret) {
    const claim = this.claim(`${name}-volume`, claims.system, args, args.sizes.media, {
      provider: args.kept,
      retainOnDelete: true,
    });
    // Made anew from the image at any time.
    const assets = this.claim(`${name}-assets-volume`, claims.assets, args, "1Gi");
    this.assets(name, args, assets);
    const restore = mediaCopy(this, name, { ...args, claim, secretName: secret.metadata.name });
    return revisionOf([claim, restore]);
  }

  private claim(
    child: string,
    claimName: string,
    { namespace, storage }: MediaArgs,
    size: string,
    options: pulumi.CustomResourceOptions = {},
  ) {
    return new k8s.core.v1.PersistentVolumeClaim(
      child,
      {
        metadata: { name: claimName, namespace, labels: labels("media") },
        spec: {
          // Web and Sidekiq write to it from whatever node they are on.
          accessModes: ["ReadWriteMany"],
          ...(storage.media !== undefined ? { storageClassName: storage.media } : {}),
          resources: { requests: { storage: size } },
        },
      },
      { parent: this, ...options },
    );
  }

  /** Adds an image's assets to those that are there: their names carry a digest, and the old version still serves. */
  private assets(name: string, { namespace, images }: MediaArgs, claim: k8s.core.v1.PersistentVolumeClaim): void {
    new k8s.batch.v1.Job(
      `${name}-assets`,
      {
        metadata: {
          name: "mastodon-assets",
          namespace,
          labels: labels("mastodon-assets"),
          annotations: { "pulumi.com/replaceUnready": "true" },
        },
        spec: {
          backoffLimit: 3,
          activeDeadlineSeconds: 900,
          template: {
            metadata: { labels: labels("mastodon-assets") },
            spec: {
              restartPolicy: "Never",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: restrictedPod(mastodonUser),
              containers: [
                {
                  name: "assets",
                  image: images.mastodon,
                  terminationMessagePolicy: "FallbackToLogsOnError",
                  command: ["sh", "-c", copyAssets],
                  env: [{ name: "CLAIM", value: claim.metadata.uid }],
                  resources: resources("20m", "32Mi", "128Mi"),
                  securityContext: restrictedContainer,
                  volumeMounts: [{ name: "assets", mountPath: "/assets" }],
                },
              ],
              volumes: [{ name: "assets", persistentVolumeClaim: { claimName: claim.metadata.name } }],
            },
          },
        },
      },
      { parent: this, deleteBeforeReplace: true },
    );
  }
}

/** Without the modes and times of the image's files: on a share they may not be ours to set. */
export const copyAssets = [
  "set -eu",
  "source=/opt/mastodon/public/assets",
  'if [ -d "$source" ]; then cp -R "$source/." /assets/; fi',
].join("\n");
