import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { bundle } from "../lib/bundle";
import { digest, secretsDigest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import type { Settings } from "../settings";
import { middleware, route } from "./ingress";
import { bucketOf, publicUrl } from "./media";

export interface ObjectStoreArgs extends Pick<
  Settings,
  "images" | "storage" | "sizes" | "vault" | "media" | "secrets"
> {
  namespace: pulumi.Input<string>;
  /** Secret with the certificate of the public media host. */
  certificate: pulumi.Input<string>;
  /** Middleware that every route over HTTPS goes through. */
  securityHeaders: pulumi.Input<string>;
}

const port = 7070;
const user = 1000;

/**
 * An S3 server inside the cluster, for the stack `dev`: it lets one try everything with nothing else at hand. It is no
 * vault: what it holds dies with the cluster it would have to rescue.
 */
export class ObjectStore extends pulumi.ComponentResource {
  /** There once both buckets are. */
  public readonly ready: pulumi.Resource;

  constructor(name: string, args: ObjectStoreArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:ObjectStore", name, {}, opts);
    const secret = this.secret(name, args);
    const server = this.server(name, args, secret);
    this.ready = this.buckets(name, args, secret, server);
    this.publish(name, args);
    this.registerOutputs();
  }

  private secret(name: string, { namespace, secrets }: ObjectStoreArgs) {
    return new k8s.core.v1.Secret(
      `${name}-keys`,
      {
        metadata: { name: "object-store", namespace, labels: labels("object-store") },
        stringData: { ROOT_ACCESS_KEY: secrets.vaultAccessKeyId, ROOT_SECRET_KEY: secrets.vaultSecretAccessKey },
      },
      { parent: this },
    );
  }

  private server(name: string, args: ObjectStoreArgs, secret: k8s.core.v1.Secret) {
    const meta = { name: "object-store", namespace: args.namespace, labels: labels("object-store") };
    const probe = { tcpSocket: { port } };
    const keys = secretsDigest(args.secrets.vaultAccessKeyId, args.secrets.vaultSecretAccessKey);
    const server = new k8s.apps.v1.StatefulSet(
      `${name}-server`,
      {
        metadata: meta,
        spec: {
          serviceName: "object-store",
          selector: { matchLabels: labels("object-store") },
          template: {
            // Read at start only: new keys start it anew.
            metadata: { labels: labels("object-store"), annotations: { "homestead/secret": keys } },
            spec: {
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: restrictedPod(user),
              containers: [
                {
                  name: "versitygw",
                  image: args.images.versitygw,
                  // Metadata in files of its own: not every file system takes extended attributes.
                  args: ["--port", `:${port}`, "posix", "--sidecar", "/data/meta", "/data/buckets"],
                  envFrom: [{ secretRef: { name: secret.metadata.name } }],
                  ports: [{ name: "s3", containerPort: port }],
                  readinessProbe: { ...probe, periodSeconds: 2 },
                  livenessProbe: { ...probe, periodSeconds: 20 },
                  resources: resources("20m", "64Mi", "512Mi"),
                  securityContext: restrictedContainer,
                  volumeMounts: [
                    { name: "data", mountPath: "/data/buckets", subPath: "buckets" },
                    { name: "data", mountPath: "/data/meta", subPath: "meta" },
                    { name: "tmp", mountPath: "/tmp" },
                  ],
                },
              ],
              volumes: [{ name: "tmp", emptyDir: {} }],
            },
          },
          volumeClaimTemplates: [
            {
              metadata: { name: "data", labels: labels("object-store") },
              spec: {
                accessModes: ["ReadWriteOnce"],
                storageClassName: args.storage.databases,
                resources: { requests: { storage: args.sizes.objectStore } },
              },
            },
          ],
        },
      },
      { parent: this },
    );
    new k8s.core.v1.Service(
      `${name}-service`,
      { metadata: meta, spec: { selector: labels("object-store"), ports: [{ name: "s3", port }] } },
      { parent: this, dependsOn: [server] },
    );
    return server;
  }

  private buckets(name: string, args: ObjectStoreArgs, secret: k8s.core.v1.Secret, server: pulumi.Resource) {
    const program = bundle("lib/make-buckets.ts");
    const meta = { name: "object-store-buckets", namespace: args.namespace, labels: labels("object-store-buckets") };
    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-buckets-program`,
      { metadata: meta, data: { "make-buckets.js": program } },
      { parent: this },
    );
    const key = (variable: string, secretKey: string) => ({
      name: variable,
      valueFrom: { secretKeyRef: { name: secret.metadata.name, key: secretKey } },
    });
    return new k8s.batch.v1.Job(
      `${name}-buckets`,
      {
        // A Job that failed stays failed: the next update must run another.
        metadata: { ...meta, annotations: { "pulumi.com/replaceUnready": "true" } },
        spec: {
          backoffLimit: 6,
          template: {
            metadata: { labels: labels("object-store-buckets"), annotations: { "homestead/program": digest(program) } },
            spec: {
              restartPolicy: "Never",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: restrictedPod(user),
              containers: [
                {
                  name: "buckets",
                  terminationMessagePolicy: "FallbackToLogsOnError",
                  image: args.images.node,
                  command: ["node", "/program/make-buckets.js"],
                  env: [
                    key("ACCESS_KEY_ID", "ROOT_ACCESS_KEY"),
                    key("SECRET_ACCESS_KEY", "ROOT_SECRET_KEY"),
                    { name: "ENDPOINT", value: args.vault.endpoint },
                    { name: "REGION", value: args.vault.region },
                    { name: "PRIVATE_BUCKET", value: args.vault.bucket },
                    { name: "PUBLIC_BUCKET", value: bucketOf(args.media).bucket },
                  ],
                  resources: resources("20m", "64Mi", "256Mi"),
                  securityContext: restrictedContainer,
                  volumeMounts: [{ name: "program", mountPath: "/program", readOnly: true }],
                },
              ],
              volumes: [{ name: "program", configMap: { name: configMap.metadata.name } }],
            },
          },
        },
      },
      { parent: this, dependsOn: [server], deleteBeforeReplace: true },
    );
  }

  /** The media bucket on a host of its own, so that a browser can show an upload. */
  private publish(name: string, { namespace, media, certificate, securityHeaders }: ObjectStoreArgs): void {
    const host = mediaHost(media);
    if (host === undefined) return;
    // The web interface's audio player reads uploads by a script, and a browser lets it only where this allows it.
    const cors = middleware(this, `${name}-cors`, "media-cors", namespace, {
      headers: { customResponseHeaders: { "Access-Control-Allow-Origin": "*" } },
    });
    const prefix = middleware(this, `${name}-prefix`, "media-bucket", namespace, {
      addPrefix: { prefix: `/${bucketOf(media).bucket}` },
    });
    route(
      this,
      `${name}-route`,
      "media",
      namespace,
      { entryPoint: "websecure", certificate },
      [
        {
          // Reading only: what signs requests speaks to the server itself.
          match: `Host(\`${host}\`) && (Method(\`GET\`) || Method(\`HEAD\`))`,
          middlewares: [{ name: securityHeaders }, { name: cors.metadata.name }, { name: prefix.metadata.name }],
          services: [{ name: "object-store", port }],
        },
      ],
      [cors, prefix],
    );
  }
}

/** Host name that the embedded store's media bucket is shown at; none if the world reads it elsewhere. */
export function mediaHost(media: Settings["media"]): string | undefined {
  return media.kind === "volume" || media.publicUrl === undefined ? undefined : new URL(publicUrl(media)).hostname;
}
