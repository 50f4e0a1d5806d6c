/** What only the lab can do to a node: kill its daemons, cut it off from one address, put a volume on a small disk. */
import * as fs from "node:fs";
import * as path from "node:path";
import { atExit, must, service } from "./processes";
import type { Environment } from "./environment";
import type { Via } from "./web";

/** What k3s is one process of, and the lab has each for itself. */
export type Daemon = "containerd" | "kubelet" | "apiserver";

// As the lab starts them (its lib/process.sh), with the command line that the daemon had.
const restart = `
. "$1/lib/process.sh"
read -r pid _ < "$LAB_HOME/$2/pid/$3"
mapfile -d '' -t command < "/proc/$pid/cmdline"
end "$2" "$3" KILL
sleep "$4"
start "$2" "$3" "\${command[@]}"
sleep 0.5
alive "$2" "$3"
`;

export class Node {
  private constructor(
    private readonly environment: Environment,
    private readonly lab: NonNullable<Environment["lab"]>,
    private readonly site: "home" | "vps",
  ) {}

  /** A node of the lab, or undefined where the clusters are somebody's own. */
  static of(environment: Environment, site: "home" | "vps"): Node | undefined {
    return environment.lab === undefined ? undefined : new Node(environment, environment.lab, site);
  }

  private env(): NodeJS.ProcessEnv {
    const { KUBECONFIG: _none, ...env } = this.environment.childEnv;
    const system = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
    return { ...env, LAB_HOME: this.lab.home, PATH: `${env["PATH"] ?? ""}:${system}` };
  }

  /** Kills a daemon and starts it again after some seconds, as systemd would. Its containers run on. */
  async crash(daemon: Daemon, seconds = 5): Promise<void> {
    const folder = path.dirname(fs.realpathSync(this.lab.command));
    await must("bash", ["-c", restart, "restart", folder, this.site, daemon, String(seconds)], {
      env: this.env(),
      seconds: seconds + 60,
    });
  }

  /** Runs a program in the network namespace of the node, or of what stands outside both clusters. */
  private inside(space: "home" | "vps" | "wan", command: string[]): Promise<string> {
    return must("nsenter", [`--net=/run/netns/lab-${space}`, ...command], { env: this.env(), seconds: 30 });
  }

  /** Nothing from a pod reaches an address any more, and nobody is told so. @returns the way to mend it */
  async cutOff(address: string, port: number): Promise<() => Promise<void>> {
    const rule = ["FORWARD", "-d", address, "-p", "tcp", "--dport", String(port), "-j", "DROP"];
    await this.inside(this.site, ["iptables", "-w", "-I", ...rule]);
    return atExit(() => this.inside(this.site, ["iptables", "-w", "-D", ...rule]));
  }

  /**
   * Makes something outside the cluster answer at some addresses, on the ports 80 and 443, until the scenario ends.
   * @param folder for its log.
   */
  async answersAt(addresses: string[], folder: string): Promise<void> {
    for (const address of addresses) {
      await this.inside("wan", ["ip", "address", "replace", `${address}/32`, "dev", "lo"]);
      const wan = new URL(this.environment.s3.endpoint).hostname;
      await this.inside(this.site, ["ip", "route", "replace", `${address}/32`, "via", wan]);
      atExit(async () => {
        await this.inside("wan", ["ip", "address", "del", `${address}/32`, "dev", "lo"]);
        await this.inside(this.site, ["ip", "route", "del", `${address}/32`]);
      });
    }
    const program =
      "const net = require('node:net'); let left = 2; for (const port of [80, 443]) " +
      "net.createServer((s) => s.on('error', () => {}).end('here\\n')).listen(port, () => --left || console.log('ready'));";
    const { end } = await service("nsenter", ["--net=/run/netns/lab-wan", "node", "-e", program], {
      env: this.env(),
      log: path.join(folder, "listener.txt"),
    });
    atExit(end);
  }

  /**
   * Asks for a page some times at once, from outside both clusters, by another address than this machine's.
   * @returns the status of each answer, or why there is none.
   */
  async askFromOutside(via: Via, url: string, count: number): Promise<(number | string)[]> {
    const { hostname, pathname, search } = new URL(url);
    const what = { host: via.address, servername: hostname, path: pathname + search, headers: { host: hostname } };
    const options = JSON.stringify({ ...what, ...(via.ca ? { ca: via.ca } : {}), agent: false, timeout: 20_000 });
    const program =
      "const https = require('node:https'); const [, options, count] = process.argv; " +
      "const ask = () => new Promise((resolve) => https.get(JSON.parse(options), (answer) => { answer.resume(); resolve(answer.statusCode); })" +
      ".on('timeout', function () { this.destroy(new Error('no answer')); }).on('error', (error) => resolve(error.message))); " +
      "Promise.all(Array.from({ length: Number(count) }, ask)).then((all) => console.log(JSON.stringify(all)));";
    return JSON.parse(await this.inside("wan", ["node", "-e", program, options, String(count)])) as (number | string)[];
  }

  /**
   * Puts a folder of the node on a file system of its own, with what it has and some room. Nobody may have a file of it
   * open. `lab down` takes it away.
   * @param free MiB of room.
   */
  async onSmallDisk(folder: string, free: number): Promise<void> {
    const options = { env: this.env(), seconds: 180 };
    const used = Number((await must("du", ["-sm", folder])).split(/\s/)[0]);
    const image = `${folder}.image`;
    const staging = `${folder}.staging`;
    fs.mkdirSync(staging);
    // A quarter more: the file system keeps books.
    await must("truncate", ["-s", `${Math.round((used + free) * 1.25)}M`, image], options);
    await must("mkfs.ext4", ["-q", "-F", "-m", "0", image], options);
    await must("mount", ["-o", "loop", image, staging], options);
    try {
      fs.rmdirSync(path.join(staging, "lost+found"));
      await must("cp", ["-a", `${folder}/.`, staging], options);
    } finally {
      await must("umount", [staging], options);
      fs.rmdirSync(staging);
    }
    await must("mount", ["-o", "loop", image, folder], options);
  }

  /** Fills the small disk of a folder to the last byte. @returns the way to make room again */
  async fill(folder: string): Promise<() => Promise<void>> {
    const most = 4 * 1024 ** 3;
    const { bavail, bsize } = fs.statfsSync(folder);
    if (bavail * bsize > most) {
      throw new Error(`${folder} has ${Math.round((bavail * bsize) / 1024 ** 2)} MiB free: this is no small disk`);
    }
    const filler = path.join(folder, "e2e-filler");
    const room = atExit(() => fs.rmSync(filler, { force: true }));
    const file = await fs.promises.open(filler, "w");
    try {
      // Smaller and smaller pieces, each until there is no room for one more.
      for (const size of [2 ** 20, 2 ** 12, 1]) {
        const block = Buffer.alloc(size);
        for (let written = 0; written <= most && (await wrote(file, block)); written += size);
      }
    } finally {
      await file.close();
    }
    return room;
  }
}

async function wrote(file: fs.promises.FileHandle, block: Buffer): Promise<boolean> {
  try {
    await file.write(block);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") return false;
    throw error;
  }
}
