import * as command from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { PublicTarget } from "../lib/verify/target";
import type { Settings } from "../settings";
import { verificationJob } from "./verification-job";

/** `verification.from`: this machine asks (here), or a Job does (cluster), for who reaches only the API server. */
export interface VerificationArgs extends Pick<Settings, "verification" | "secrets" | "images"> {
  target: pulumi.Input<PublicTarget>;
  /** Verified again when one of these changes: versions, digests of what is served, the epoch. The target counts by itself. */
  triggers: pulumi.Input<pulumi.Input<string>[]>;
  /** Namespace of the Job. */
  namespace: pulumi.Input<string>;
}

/**
 * From the project's folder, where the engine starts its providers, and with the `node` of PATH, which is the one that
 * runs the program: text with this machine's paths in it would differ on the next machine and verify for nothing.
 */
const program = "node --require ./cli/typescript.cjs lib/verify/main.ts";

/**
 * Fails the update, with a line for each fault, unless the site answers as the world will ask it. What must not happen
 * to a site that does not (DNS) depends on this.
 */
export class Verification extends pulumi.ComponentResource {
  constructor(name: string, args: VerificationArgs, opts?: pulumi.ComponentResourceOptions) {
    super("homestead:index:Verification", name, {}, opts);
    const keys = { accessKeyId: args.secrets.mediaAccessKeyId, secretAccessKey: args.secrets.mediaSecretAccessKey };
    const target = pulumi.secret(
      pulumi
        .all([args.target, keys])
        .apply(([{ media, ...rest }, keys]) => JSON.stringify({ ...rest, media: media && { ...media, ...keys } })),
    );
    if (args.verification.from === "cluster") {
      verificationJob(this, name, { ...args, image: args.images.node, target, seconds: secondsOf(args.target) });
    } else {
      new command.local.Command(
        `${name}-command`,
        {
          create: program,
          update: program,
          // Never on the command line, where every process of the machine can read it.
          stdin: target,
          triggers: args.triggers,
          // A failure carries the output already; an earlier run's is of no use to this one.
          logging: "none",
          addPreviousOutputInEnv: false,
        },
        { parent: this, additionalSecretOutputs: ["stdin"] },
      );
    }
    this.registerOutputs();
  }
}

/** How long the Job may take: the verification's own time, and five minutes to pull an image and to start. */
const secondsOf = (target: pulumi.Input<PublicTarget>) =>
  pulumi.output(target).apply(({ retrySeconds = 120 }) => retrySeconds + 300);
