import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { filesIn } from "../lib/blog-folder";
import { digest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";
import { revisionOf } from "../lib/revision";
import type { Settings } from "../settings";
import { middleware, route } from "./ingress";

export interface BlogArgs extends Pick<Settings, "apex" | "blog" | "images"> {
  namespace: pulumi.Input<string>;
  /** Secret with the apex's certificate. */
  certificate: pulumi.Input<string>;
  /** Middleware that every route over HTTPS goes through. */
  securityHeaders: pulumi.Input<string>;
}

/** uid and port of nginx-unprivileged. */
const user = 101;
const nginxPort = 8080;

/**
 * The files of a folder as a ConfigMap's `binaryData` and the paths they belong at. Keys may hold no slash, so a file
 * is called after its path's digest. That it is no larger than a ConfigMap may be was seen before (`settings.ts`).
 */
export function folderContents(folder: string): {
  binaryData: Record<string, string>;
  items: { key: string; path: string }[];
} {
  const contents = filesIn(folder).map((file) => ({
    path: path.relative(folder, file).split(path.sep).join("/"),
    data: fs.readFileSync(file),
  }));
  return {
    binaryData: Object.fromEntries(contents.map((file) => [digest(file.path), file.data.toString("base64")])),
    items: contents.map((file) => ({ key: digest(file.path), path: file.path })),
  };
}

/** The kubelet's words on an image of another user, and a program's own on files that it may not write. */
const misfit = /runAsNonRoot|run as root|read-only file system|EROFS/i;

/**
 * What to do about an image that does not fit: the reason is among the errors of the update, and says no mend.
 * @returns undefined where something else is wrong
 */
export const imageMend = (image: string, errors: readonly string[]): string | undefined =>
  errors.some((error) => misfit.test(error))
    ? `blog.image ${image} must run as a user that is not root, named by number (USER 1000 in its Dockerfile, not USER node), and write to /tmp alone: README.md, "A blog from an image"`
    : undefined;

/** The blog at the apex: everything there that is not one of the well-known documents. */
export class Blog extends pulumi.ComponentResource {
  /** Changes with what the apex shows. */
  public readonly revision: pulumi.Output<string>;

  constructor(name: string, args: BlogArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Blog", name, {}, opts);
    const { namespace, apex, certificate, securityHeaders } = args;
    const pod = args.blog.kind === "folder" ? this.folder(name, args, args.blog.path) : this.image(args.blog);
    const port = args.blog.kind === "folder" ? nginxPort : args.blog.port;
    const meta = { name: "blog", namespace, labels: labels("blog") };
    const deployment = new k8s.apps.v1.Deployment(
      `${name}-deployment`,
      {
        metadata: meta,
        spec: {
          replicas: 1,
          selector: { matchLabels: labels("blog") },
          template: {
            metadata: { labels: labels("blog"), annotations: pod.annotations },
            spec: {
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: pod.security,
              containers: [
                {
                  name: "blog",
                  ...pod.container,
                  ports: [{ name: "http", containerPort: port }],
                  readinessProbe: { httpGet: { path: "/", port }, periodSeconds: 5 },
                  livenessProbe: { tcpSocket: { port }, periodSeconds: 20, failureThreshold: 6 },
                  resources: resources("5m", "16Mi", "128Mi"),
                  securityContext: restrictedContainer,
                },
              ],
              volumes: [{ name: "tmp", emptyDir: {} }, ...pod.volumes],
            },
          },
        },
      },
      { parent: this, hooks: pod.hooks },
    );
    const service = new k8s.core.v1.Service(
      `${name}-service`,
      { metadata: meta, spec: { selector: labels("blog"), ports: [{ name: "http", port: 80, targetPort: port }] } },
      { parent: this, dependsOn: [deployment] },
    );
    const headers = middleware(this, `${name}-headers`, "blog-headers", namespace, {
      // What static pages do not say of themselves; Mastodon's do.
      headers: { customFrameOptionsValue: "SAMEORIGIN", referrerPolicy: "strict-origin-when-cross-origin" },
    });
    const apexRoute = route(
      this,
      `${name}-route`,
      "blog",
      namespace,
      { entryPoint: "websecure", certificate },
      [
        {
          match: `Host(\`${apex}\`)`,
          middlewares: [{ name: securityHeaders }, { name: headers.metadata.name }],
          services: [{ name: "blog", port: 80 }],
        },
      ],
      [service, headers],
    );
    this.revision = revisionOf([deployment, service, headers, apexRoute]);
    this.registerOutputs({ revision: this.revision });
  }

  private folder(name: string, { namespace, images }: BlogArgs, folder: string) {
    const contents = folderContents(path.resolve(__dirname, "..", folder));
    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-files`,
      { metadata: { name: "blog", namespace, labels: labels("blog") }, binaryData: contents.binaryData },
      { parent: this },
    );
    return {
      annotations: { "homestead/files": digest(JSON.stringify(contents)) },
      security: restrictedPod(user),
      container: {
        image: images.nginx,
        volumeMounts: [
          { name: "tmp", mountPath: "/tmp" },
          { name: "files", mountPath: "/usr/share/nginx/html", readOnly: true },
        ],
      },
      volumes: [{ name: "files", configMap: { name: configMap.metadata.name, items: contents.items } }],
      hooks: {},
    };
  }

  private image(blog: { image: string }) {
    const { runAsNonRoot, seccompProfile } = restrictedPod(user);
    return {
      annotations: {},
      // An image of yours brings its own user; it must not be root.
      security: { runAsNonRoot, seccompProfile },
      container: {
        image: blog.image,
        // The reason of a failure then stands in the update's error.
        terminationMessagePolicy: "FallbackToLogsOnError",
        volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
      },
      volumes: [],
      hooks: {
        onError: [
          new pulumi.ErrorHook("mend-blog-image", ({ errors }) => {
            const mend = imageMend(blog.image, errors);
            if (mend !== undefined) void pulumi.log.error(mend);
            return false;
          }),
        ],
      },
    };
  }
}
