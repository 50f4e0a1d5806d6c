/** The lab's own commands, for what kubectl cannot do: starting, power cuts, images without a registry. */
import { zoneLock } from "./environment";
import { must, run } from "./processes";
import type { Environment } from "./environment";

export class Lab {
  private readonly command: string;
  /** Folder of everything the lab has. */
  readonly home: string;

  private constructor(
    private readonly environment: Environment,
    { command, home }: NonNullable<Environment["lab"]>,
  ) {
    this.command = command;
    this.home = home;
  }

  /** The lab, or undefined where the clusters are somebody's own. */
  static of(environment: Environment): Lab | undefined {
    return environment.lab === undefined ? undefined : new Lab(environment, environment.lab);
  }

  /** Runs a lab command. @throws with the end of its output if it fails */
  run(args: string[], seconds = 300): Promise<string> {
    const options = { env: this.environment.childEnv, seconds };
    // A start renders the zone anew.
    if (args[0] === "up") {
      return must("flock", ["--close", zoneLock(this.home), "bash", this.command, ...args], options);
    }
    return must("bash", [this.command, ...args], options);
  }

  /** The clusters that are up. */
  async clustersUp(): Promise<("home" | "vps")[]> {
    const status = await this.run(["status"]);
    return (["home", "vps"] as const).filter(
      (name) => status.includes(`\n${name}: up`) || status.startsWith(`${name}: up`),
    );
  }

  /** Names of the images that every cluster which is up has. */
  async images(): Promise<Set<string>> {
    const lines = (await this.run(["image", "ls"])).split("\n").map((line) => line.split(" "));
    const [first = new Set<string>(), ...others] = (await this.clustersUp()).map(
      (cluster) => new Set(lines.filter(([name]) => name === cluster).map(([, image]) => image ?? "")),
    );
    return new Set([...first].filter((image) => others.every((other) => other.has(image))));
  }

  /** Starts what does not run. @returns the way to leave the lab as it was found */
  async start(): Promise<() => Promise<void>> {
    const before = await this.clustersUp();
    // The first start on a machine builds the lab: half an hour.
    if (before.length < 2) await this.run(["up", "all"], 2400);
    return async () => {
      if (before.length === 0)
        await run("bash", [this.command, "down", "all"], { env: this.environment.childEnv, seconds: 300 });
    };
  }
}
