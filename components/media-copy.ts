import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { digest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import type { Role, Settings } from "../settings";

export interface MediaCopyArgs extends Pick<Settings, "site" | "role" | "epoch" | "vault" | "images"> {
  namespace: pulumi.Input<string>;
  /** The claim that uploads are kept on. */
  claim: k8s.core.v1.PersistentVolumeClaim;
  /** Secret with `access-key-id` and `secret-access-key` for what is below `media/` in the vault. */
  secretName: pulumi.Input<string>;
}

/** uid of Mastodon's images: who makes a file must be able to replace it. */
export const mastodonUser = 991;
/** Name of the copy's pods, for policies. */
export const copyPods = "media-copy";
/** Name of the CronJob that copies. */
export const copyName = "media-copy";
/** Where a volume's copy stands in the vault. */
export const copyPrefix = "media/";
/** Where the copies of its files are, each by its path on the volume. */
export const filesPrefix = `${copyPrefix}files/`;
/** Object that holds when a site's last complete copy began, in ISO 8601. */
export const copiedKey = (site: string): string => `${copyPrefix}copied-${site}`;
/** File that tells a volume from a share that is not mounted; below the volume's root, which the web host serves at `/system`. */
export const sentinel = "homestead/volume.txt";

/** Which way files go: from the site that is written to, towards the one that waits. */
const directionOf = (role: Role): "push" | "pull" => (role === "active" ? "push" : "pull");

/** Six hours: a home line's time for a first copy. */
const limit = 6 * 3600;

/** How rclone finds the vault: a remote called `vault`, configured by the environment alone. */
export function remoteEnvironment(vault: Settings["vault"], secretName: pulumi.Input<string>) {
  const variable = (name: string, value: string) => ({ name: `RCLONE_CONFIG_VAULT_${name}`, value });
  const secret = (name: string, key: string) => ({
    name: `RCLONE_CONFIG_VAULT_${name}`,
    valueFrom: { secretKeyRef: { name: secretName, key } },
  });
  return [
    variable("TYPE", "s3"),
    variable("PROVIDER", "Other"),
    variable("ENDPOINT", vault.endpoint),
    variable("REGION", vault.region),
    variable("FORCE_PATH_STYLE", "true"),
    // It would try to make the bucket, which narrow keys may not.
    variable("NO_CHECK_BUCKET", "true"),
    secret("ACCESS_KEY_ID", "access-key-id"),
    secret("SECRET_ACCESS_KEY", "secret-access-key"),
    // No file: the root file system is read-only, and there is nothing to remember.
    { name: "RCLONE_CONFIG", value: "/tmp/rclone.conf" },
  ];
}

/**
 * The media volume's copy in the vault: restored from before Mastodon starts, and kept up every 15 minutes.
 * @returns the Job that restores; who needs the files depends on it
 */
export function mediaCopy(parent: pulumi.Resource, name: string, args: MediaCopyArgs): k8s.batch.v1.Job {
  const script = fs.readFileSync(path.join(__dirname, "media-copy.sh"), "utf8");
  const meta = (objectName: string) => ({ name: objectName, namespace: args.namespace, labels: labels(copyPods) });
  const configMap = new k8s.core.v1.ConfigMap(
    `${name}-copy-script`,
    { metadata: meta("media-copy"), data: { "media-copy.sh": script } },
    { parent },
  );
  const template = (work: "restore" | "push" | "pull", env: { name: string; value: pulumi.Input<string> }[] = []) => ({
    metadata: { labels: labels(copyPods), annotations: { "homestead/script": digest(script) } },
    spec: {
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: restrictedPod(mastodonUser),
      containers: [
        {
          name: "rclone",
          image: args.images.rclone,
          command: ["sh", "/homestead/media-copy.sh", work],
          // The reason of a failure then stands in the update's error.
          terminationMessagePolicy: "FallbackToLogsOnError",
          env: [
            { name: "VOLUME", value: "/system" },
            { name: "REMOTE", value: `vault:${args.vault.bucket}` },
            { name: "FILES", value: filesPrefix },
            { name: "SITE", value: args.site },
            { name: "CLAIM", value: args.claim.metadata.uid },
            ...env,
            ...remoteEnvironment(args.vault, args.secretName),
          ],
          resources: resources("20m", "64Mi", "512Mi"),
          securityContext: restrictedContainer,
          volumeMounts: [
            { name: "system", mountPath: "/system" },
            { name: "script", mountPath: "/homestead", readOnly: true },
            { name: "tmp", mountPath: "/tmp" },
          ],
        },
      ],
      volumes: [
        { name: "system", persistentVolumeClaim: { claimName: args.claim.metadata.name } },
        { name: "script", configMap: { name: configMap.metadata.name } },
        { name: "tmp", emptyDir: {} },
      ],
    },
  });
  const pod = template("restore", [{ name: "EPOCH", value: String(args.epoch) }]);
  const epochAt = pod.spec.containers[0]?.env.findIndex(({ name: variable }) => variable === "EPOCH");
  const restore = new k8s.batch.v1.Job(
    `${name}-restore`,
    {
      metadata: {
        ...meta("media-restore"),
        annotations: { "pulumi.com/replaceUnready": "true", "pulumi.com/timeoutSeconds": String(limit + 60) },
      },
      spec: {
        backoffLimit: 2,
        activeDeadlineSeconds: limit,
        // Again for another volume, and when the site takes over: what the other one copied last must be here by then. The
        // script copies once for each of these, and not for whatever else of this changes.
        template: pod,
      },
    },
    {
      parent,
      deleteBeforeReplace: true,
      // A site that becomes a standby has all there is: it would be away for as long as that is gone through, or for good if
      // the vault is slow. What comes then its CronJob brings.
      ignoreChanges: args.role === "standby" ? [`spec.template.spec.containers[0].env[${epochAt}].value`] : [],
    },
  );
  new k8s.batch.v1.CronJob(
    `${name}-copy`,
    {
      metadata: meta(copyName),
      spec: {
        schedule: "*/15 * * * *",
        concurrencyPolicy: "Forbid",
        startingDeadlineSeconds: 600,
        successfulJobsHistoryLimit: 1,
        failedJobsHistoryLimit: 3,
        jobTemplate: {
          metadata: { labels: labels(copyPods) },
          spec: { backoffLimit: 1, activeDeadlineSeconds: limit, template: template(directionOf(args.role)) },
        },
      },
    },
    { parent, dependsOn: [restore] },
  );
  return restore;
}
