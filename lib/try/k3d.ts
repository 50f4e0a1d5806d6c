/** The k3d cluster that is made where there is none, and goes with the trial. */
import * as fs from "node:fs";
import * as path from "node:path";
import { spawnSync } from "node:child_process";
import { runToEnd } from "../child";
import { onPath } from "../pulumi-cli";
import { UserError } from "../user-error";
import { currentContext } from "./cluster";
import type { Context } from "./cluster";
import type { TrialState } from "./state";

export const k3dCluster = "homestead";
export const k3dContext = `k3d-${k3dCluster}`;

export class K3d {
  /** Marks that the cluster was made for this trial, and may go with it. */
  private readonly mark: string;

  constructor(
    private readonly state: TrialState,
    private readonly environment: NodeJS.ProcessEnv,
  ) {
    this.mark = path.join(state.root, "k3d");
  }

  /** Whether one can be made here. */
  works(): boolean {
    const docker = onPath("docker", this.environment);
    const both = docker !== undefined && onPath("k3d", this.environment) !== undefined;
    return both && spawnSync(docker, ["info"], { env: this.environment }).status === 0;
  }

  /** Whether the cluster is there, whoever made it. */
  isThere(): boolean {
    return this.quietly("cluster", "get", k3dCluster);
  }

  /** What start() finds. `half-made`: by a call for this trial that ended before anything was put on it. */
  found(): "missing" | "there" | "half-made" {
    if (!this.isThere()) return "missing";
    return this.isOurs() && !this.state.exists ? "half-made" : "there";
  }

  /** Whether it was made for this trial. */
  isOurs(): boolean {
    return fs.existsSync(this.mark);
  }

  /**
   * Makes it, or starts the one that is there; one that is half-made is made anew.
   *
   * @throws UserError, also if it is not the current context afterwards
   */
  async start(): Promise<Context> {
    const found = this.found();
    if (found === "half-made") await this.show("cluster", "delete", k3dCluster);
    if (found === "there") await this.show("cluster", "start", k3dCluster);
    else await this.create();
    this.quietly("kubeconfig", "merge", k3dCluster, "--kubeconfig-merge-default", "--kubeconfig-switch-context");
    const context = currentContext(this.environment);
    if (context?.name === k3dContext) return context;
    throw new UserError(
      `the k3d cluster is there, but not as the current context: kubectl config use-context ${k3dContext}`,
    );
  }

  private async create(): Promise<void> {
    // Before it is there: what is left of one that is ended half-way is ours, too.
    this.state.makeFolder();
    fs.writeFileSync(this.mark, `${k3dCluster}\n`);
    // Ports 80 and 443 of this machine lead to Traefik: names under .localhost work in a browser as they are.
    const ports = ["80:80@loadbalancer", "443:443@loadbalancer"].flatMap((port) => ["--port", port]);
    try {
      await this.show("cluster", "create", k3dCluster, "--wait", ...ports);
    } catch (error) {
      // k3d takes back what it could not make.
      if (!this.isThere()) fs.rmSync(this.mark);
      throw error;
    }
  }

  async delete(): Promise<void> {
    if (this.isThere()) await this.show("cluster", "delete", k3dCluster);
  }

  private async show(...args: string[]): Promise<void> {
    const code = await runToEnd(this.program(), args, { env: this.environment });
    const ports = args[1] === "create" ? "; it takes ports 80 and 443 of this machine, which have to be free" : "";
    if (code !== 0) throw new UserError(`k3d ${args.slice(0, 3).join(" ")} failed: see above${ports}`);
  }

  private quietly(...args: string[]): boolean {
    return spawnSync(this.program(), args, { env: this.environment, stdio: "ignore" }).status === 0;
  }

  private program(): string {
    return onPath("k3d", this.environment) ?? "k3d";
  }
}
