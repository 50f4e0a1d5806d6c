import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { bundle } from "../lib/bundle";
import { digest } from "../lib/digest";
import { labels, resources, restrictedContainer, restrictedPod } from "../lib/pods";

export interface VerificationJobArgs {
  /** VerificationTarget as JSON, a secret. */
  target: pulumi.Output<string>;
  triggers: pulumi.Input<pulumi.Input<string>[]>;
  namespace: pulumi.Input<string>;
  image: string;
  /** The Job is given up after so many seconds. */
  seconds: pulumi.Input<number>;
}

/** User `node` of the Node.js images. */
const user = 1000;

/**
 * The verification as a Job. Its name carries a digest of all it depends on, so another run is another Job. The lines
 * it writes to its termination message are what the provider puts into the error of the update.
 */
export function verificationJob(parent: pulumi.Resource, name: string, args: VerificationJobArgs): k8s.batch.v1.Job {
  const program = bundle("lib/verify/main.ts");
  const run = pulumi.unsecret(
    pulumi
      .all([args.target, args.triggers])
      .apply(([target, triggers]) => `verification-${digest(JSON.stringify([program, args.image, target, triggers]))}`),
  );
  const meta = (objectName: pulumi.Input<string>) => ({
    name: objectName,
    namespace: args.namespace,
    labels: labels("verification"),
  });
  const code = new k8s.core.v1.ConfigMap(
    `${name}-program`,
    { metadata: meta(`verification-${digest(program)}`), data: { "verify.js": program } },
    { parent },
  );
  const target = new k8s.core.v1.Secret(
    `${name}-target`,
    { metadata: meta(run), stringData: { "target.json": args.target } },
    { parent },
  );
  return new k8s.batch.v1.Job(
    `${name}-job`,
    {
      metadata: {
        ...meta(run),
        annotations: {
          // A Job that failed stays failed: the next update must run another.
          "pulumi.com/replaceUnready": "true",
          "pulumi.com/timeoutSeconds": pulumi.output(args.seconds).apply((seconds) => String(seconds + 60)),
        },
      },
      spec: {
        backoffLimit: 0,
        activeDeadlineSeconds: args.seconds,
        template: {
          metadata: { labels: labels("verification") },
          spec: {
            restartPolicy: "Never",
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            securityContext: restrictedPod(user),
            containers: [
              {
                name: "verification",
                image: args.image,
                command: ["node", "--no-warnings", "/program/verify.js", "/target/target.json"],
                env: [{ name: "TERMINATION_LOG", value: "/dev/termination-log" }],
                terminationMessagePath: "/dev/termination-log",
                // For what ends the program before it can write there.
                terminationMessagePolicy: "FallbackToLogsOnError",
                resources: resources("20m", "64Mi", "256Mi"),
                securityContext: restrictedContainer,
                volumeMounts: [
                  { name: "program", mountPath: "/program", readOnly: true },
                  { name: "target", mountPath: "/target", readOnly: true },
                ],
              },
            ],
            volumes: [
              { name: "program", configMap: { name: code.metadata.name } },
              { name: "target", secret: { secretName: target.metadata.name, defaultMode: 0o440 } },
            ],
          },
        },
      },
    },
    { parent },
  );
}
