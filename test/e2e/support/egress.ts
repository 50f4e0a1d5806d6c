/** Who can reach whom, asked from inside the pods: a container beside theirs, in the same network and process space. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { Cluster, KubeObject } from "./cluster";
import { atExit, eventually } from "./processes";

/** An address that a connection is tried to. */
export interface Target {
  name: string;
  host: string;
  port: number;
}

/** Stands for the internet (TEST-NET-2): on the lab something is made to answer there. */
export const internet = "198.51.100.7";

/**
 * An address in the house that the shared site names for who talks to the vault, and not for Mastodon: on the lab something is
 * made to answer there, too.
 */
export const vaultsHouse = "10.99.7.7";

/** What was seen from one container's side. */
export interface Sight {
  /** Target's name -> `open`, or why there is no connection. */
  reached: Record<string, string>;
  /** Command lines of every process it shares its space with. */
  processes: string[];
}

/** Seconds that a connection is waited for: refused ones come at once, dropped ones never. */
const patience = 4;

/** A program for Node.js that tries every target and a look-up, reads the command lines, and prints a {@link Sight}. */
export function probeProgram(targets: readonly Target[]): string {
  return `
const net = require("node:net"), dns = require("node:dns"), fs = require("node:fs");
const connect = ({ name, host, port }) => new Promise((resolve) => {
  const socket = net.connect({ host, port, timeout: ${patience * 1000} });
  const end = (verdict) => { socket.destroy(); resolve([name, verdict]); };
  socket.on("connect", () => end("open")).on("timeout", () => end("no answer")).on("error", (e) => end(e.code || e.message));
});
const lookUp = new Promise((resolve) => {
  const late = setTimeout(() => resolve(["dns", "no answer"]), ${patience * 1000});
  dns.lookup("kubernetes.default.svc.cluster.local", (e) => { clearTimeout(late); resolve(["dns", e ? e.code : "open"]); });
});
const processes = fs.readdirSync("/proc").filter((d) => /^\\d+$/.test(d) && d !== String(process.pid)).flatMap((d) => {
  try { return [fs.readFileSync("/proc/" + d + "/cmdline", "utf8").split("\\0").join(" ").trim()]; } catch { return []; }
}).filter((line) => line !== "");
Promise.all([lookUp, ...${JSON.stringify(targets)}.map(connect)]).then((all) => {
  console.log("SIGHT " + JSON.stringify({ reached: Object.fromEntries(all), processes }));
  process.exit(0);
});`.trim();
}

/** What {@link probeProgram} printed. @throws Error with what was printed in its place */
export function parseSight(output: string): Sight {
  const line = output.split("\n").find((text) => text.startsWith("SIGHT "));
  if (line === undefined) throw new Error(`the probe printed: ${output.slice(0, 300)}`);
  return JSON.parse(line.slice("SIGHT ".length)) as Sight;
}

/** A file with what `kubectl debug --custom` adds to a probe. */
function profileFor(user: number): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "homestead-e2e-profile-"));
  atExit(() => fs.rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, "profile.json");
  fs.writeFileSync(file, JSON.stringify({ securityContext: { runAsUser: user } }));
  return file;
}

/** Looks around from a running pod whose image may have no tool: with a container of its own beside one of the pod's. */
export async function lookFrom(
  cluster: Cluster,
  image: string,
  pod: KubeObject,
  container: string,
  targets: readonly Target[],
  /** User of the probe, where the pod says none: not all leave it to their image. */
  user?: number,
): Promise<Sight> {
  const { name, namespace = "" } = pod.metadata;
  const probe = `e2e-${container.slice(0, 40)}-${Date.now().toString(36)}`;
  const custom = user === undefined ? [] : ["--custom", profileFor(user)];
  // prettier-ignore
  await cluster.kubectl([
    "debug", "-n", namespace, `pod/${name}`, "--image", image, "--image-pull-policy", "IfNotPresent", "--profile", "restricted",
    ...custom, "--target", container, "-c", probe, "--quiet", "--", "node", "-e", probeProgram(targets),
  ]);
  return eventually(60, `the probe beside ${name}/${container} ends`, async () => {
    const statuses = ((await cluster.get("pod", name, namespace))?.status?.["ephemeralContainerStatuses"] ?? []) as {
      name: string;
      state?: { terminated?: unknown; waiting?: { reason?: string; message?: string } };
    }[];
    const state = statuses.find((status) => status.name === probe)?.state;
    if (state?.terminated === undefined) throw new Error(JSON.stringify(state ?? "not started"));
    return parseSight(await cluster.kubectl(["logs", "-n", namespace, name, "-c", probe]));
  });
}

/** What a pod must and must not reach, by the names of targets. */
export interface Reach {
  needs: readonly string[];
  never: readonly string[];
}

/** Where a sight differs from what may be, one line each. */
export function breaches({ reached }: Sight, { needs, never }: Reach): string[] {
  return [
    ...needs.filter((name) => reached[name] !== "open").map((name) => `needs ${name}: ${reached[name] ?? "not tried"}`),
    ...never
      .filter((name) => reached[name] === undefined || reached[name] === "open")
      .map((name) => (reached[name] === "open" ? `reaches ${name}` : `${name} was not tried`)),
  ];
}
