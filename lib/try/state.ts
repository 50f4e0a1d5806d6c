/** What a trial keeps beside the clone, in `.state`: Pulumi's state, its passphrase, and the stack file that says where it is. */
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { PulumiCli } from "../pulumi-cli";
import { readStackConfig } from "../stack-config";
import { UserError } from "../user-error";
import type { ExistingOperators } from "./cluster";

/** Where a trial is, as its stack file says. */
export interface Place {
  context: string;
  kubeconfig: string;
  /** Not there in a file that an older version wrote. */
  uid?: string;
  namespace: string;
}

/** What Pulumi writes into a lock (pkg/backend/diy/lock.go). */
interface Lock {
  pid: number;
  hostname: string;
  timestamp: string;
}

export class TrialState {
  readonly stackFile: string;
  /** Where a trial's own files are. */
  readonly root: string;
  private readonly passphrase: string;

  constructor(
    private readonly folder: string,
    private readonly stack: string,
    private readonly environment: NodeJS.ProcessEnv,
  ) {
    this.root = path.join(folder, ".state");
    this.stackFile = path.join(this.root, `Pulumi.${stack}.yaml`);
    this.passphrase = path.join(this.root, "passphrase");
  }

  /** Whether it knows of a trial. */
  get exists(): boolean {
    return fs.existsSync(this.stackFile);
  }

  /** Where the trial is. */
  place(): Place {
    const config = this.configuration();
    const cluster = JSON.parse(config["homestead:cluster"] ?? "{}") as Omit<Place, "namespace">;
    return { ...cluster, namespace: config["homestead:namespace"] ?? "homestead" };
  }

  /** The operators that the trial uses and did not install; undefined if there is no trial. */
  existingOperators(): ExistingOperators | undefined {
    if (!this.exists) return undefined;
    const operators = JSON.parse(this.configuration()["homestead:operators"] ?? "{}") as Record<string, string>;
    return Object.fromEntries(Object.entries(operators).filter(([, choice]) => choice === "existing"));
  }

  /** The trial's configuration, secrets by name only. */
  configuration(): Record<string, string> {
    return readStackConfig(this.folder, this.stack, (key) => key, { configFile: this.stackFile }).config;
  }

  /** Passphrase and a project file of its own: the CLI puts what it has to remember beside the latter. */
  prepare(): PulumiCli {
    this.makeFolder();
    if (!fs.existsSync(this.passphrase)) {
      fs.writeFileSync(this.passphrase, crypto.randomBytes(32).toString("hex"), { mode: 0o600 });
    }
    fs.writeFileSync(path.join(this.root, "Pulumi.yaml"), "name: homestead\nruntime: nodejs\n");
    return new PulumiCli(this.root, this.pulumiEnvironment());
  }

  makeFolder(): void {
    fs.mkdirSync(this.root, { recursive: true, mode: 0o700 });
  }

  forget(): void {
    fs.rmSync(this.root, { recursive: true, force: true });
  }

  /** The user's own backend, passphrase and selected stack must have no say in this. */
  pulumiEnvironment(): NodeJS.ProcessEnv {
    const { PULUMI_CONFIG_PASSPHRASE: _, PULUMI_STACK: __, ...rest } = this.environment;
    return { ...rest, PULUMI_BACKEND_URL: `file://${this.root}`, PULUMI_CONFIG_PASSPHRASE_FILE: this.passphrase };
  }

  /**
   * The lock of an update that was killed stays, and Pulumi's own mend for that (`pulumi cancel`) would ask another backend.
   *
   * @throws UserError if the one who holds it is at work
   */
  breakStaleLocks(): void {
    const folder = path.join(this.root, ".pulumi", "locks");
    if (!fs.existsSync(folder)) return;
    const files = fs
      .readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".json"));
    for (const name of files) {
      const file = path.join(folder, name);
      const { pid, hostname, timestamp } = lockIn(file) ?? {};
      if (pid !== undefined && (hostname !== os.hostname() || isRunning(pid))) {
        throw new UserError(
          `Pulumi is at work on this trial (process ${pid} of ${hostname}, since ${timestamp}): wait for its end, then the ` +
            `same again; if that is no pulumi: rm ${path.relative(this.folder, file)}`,
        );
      }
      fs.rmSync(file);
      fs.rmSync(`${file}.attrs`, { force: true });
    }
  }
}

/** undefined if it was cut off when it was written. */
function lockIn(file: string): Lock | undefined {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8")) as Lock;
  } catch {
    return undefined;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
