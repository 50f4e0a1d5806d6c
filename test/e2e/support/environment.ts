/**
 * Where the suite finds engine, clusters, vault, DNS, charts and images: environment variables, listed in
 * test/e2e/README.md. On the lab none is needed.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { KeyPair } from "./authority";
import { must, run } from "./processes";

/** The checkout the suite tests. */
export const checkout = path.resolve(__dirname, "../../..");

export interface ClusterAccess {
  /** The site it is. */
  name: "home" | "vps";
  /** What the lab calls it. @default name */
  machine?: "home" | "vps";
  kubeconfig: string;
  context: string;
  /** Where the cluster's Traefik is reached, from here and from the other cluster. */
  address: string;
  /** Node-local storage class. */
  storageClass: string;
}

export interface Environment {
  home: ClusterAccess;
  vps: ClusterAccess;
  s3: { endpoint: string; accessKey: string; secretKey: string; region: string };
  /** A DNS server that answers for `zone`, and a command that changes it: COMMAND NAME ADDRESS. */
  dns: { server: string; command: string };
  zone: string;
  /** Address at which pods reach this machine: the remote server of the tests listens there. */
  hostAddress: string;
  /** Certificate of that server; one of the suite's own authority otherwise. */
  peer?: KeyPair;
  /** Folder with a chart a folder; published charts otherwise. */
  charts?: string;
  /** Image overrides by name (versions.ts). */
  images: Record<string, string>;
  /** Pulumi CLI. */
  pulumi: string;
  /** The lab's command and its folder, when the clusters are the lab's. */
  lab?: { command: string; home: string };
  /** Environment for every child: PATH with Node 24, kubectl, helm and the engine's plugins, no Pulumi variable. */
  childEnv: NodeJS.ProcessEnv;
  /** What outlives the checkout: the test authority, built images. */
  cache: string;
  /** Logs of every command, a folder a scenario. */
  logs: string;
}

export type Found = { kind: "ready"; environment: Environment } | { kind: "missing"; why: string };

/** The lab's command: `$LAB`, else beside the checkout. */
function findLab(env: NodeJS.ProcessEnv): string | undefined {
  const candidates = [env["LAB"], path.resolve(checkout, "../shared/lab/lab")];
  return candidates.find((file) => file !== undefined && fs.existsSync(file));
}

/**
 * The lab writes its zone without a lock, and then waits until its server has that very version: of two at a time one
 * waits in vain, or is lost. Whoever changes the zone holds this file (flock), and not the daemons that it starts.
 */
export const zoneLock = (labHome: string): string => path.join(labHome, "homestead-e2e-zone.lock");

/** Finds everything, or says in one line what is missing. Starts nothing. */
export async function findEnvironment(env: NodeJS.ProcessEnv = process.env): Promise<Found> {
  const missing = (why: string): Found => ({ kind: "missing", why });
  const own = env["E2E_HOME_KUBECONFIG"] !== undefined;
  const lab = own ? undefined : findLab(env);
  if (!own && lab === undefined)
    return missing("no clusters: neither E2E_HOME_KUBECONFIG nor the lab (../shared/lab/lab or $LAB)");

  const given: NodeJS.ProcessEnv = { ...env };
  let labHome = "";
  if (lab !== undefined) {
    const labEnv = await labVariables(lab);
    labHome = labEnv["LAB_HOME"] ?? "";
    const charts = path.join(labHome, "charts");
    for (const [key, value] of Object.entries({
      PATH: `${path.join(labHome, "bin")}:${env["PATH"] ?? ""}`,
      E2E_HOME_KUBECONFIG: labEnv["LAB_HOME_KUBECONFIG"],
      E2E_VPS_KUBECONFIG: labEnv["LAB_VPS_KUBECONFIG"],
      E2E_HOME_CONTEXT: "home",
      E2E_VPS_CONTEXT: "vps",
      E2E_HOME_ADDRESS: labEnv["LAB_HOME_IP"],
      E2E_VPS_ADDRESS: labEnv["LAB_VPS_IP"],
      E2E_S3_ENDPOINT: labEnv["LAB_S3_ENDPOINT"],
      E2E_S3_ACCESS_KEY: labEnv["LAB_S3_ACCESS_KEY"],
      E2E_S3_SECRET_KEY: labEnv["LAB_S3_SECRET_KEY"],
      E2E_DNS_SERVER: labEnv["LAB_DNS"],
      // The lab is in its user's home folder, and the suite runs it in others.
      E2E_DNS_COMMAND: `flock --close ${zoneLock(labHome)} env LAB_HOME=${labHome} bash ${lab} dns set`,
      E2E_ZONE: "ramble.test",
      E2E_HOST_ADDRESS: "10.210.0.1",
      E2E_CHARTS: env["E2E_CHARTS"] ?? (fs.existsSync(charts) ? charts : undefined),
      E2E_CACHE: env["E2E_CACHE"] ?? path.join(labHome, "homestead-e2e"),
    })) {
      given[key] = value;
    }
  } else if (env["E2E_EMPTY_CLUSTERS"] !== "yes") {
    return missing(
      "E2E_EMPTY_CLUSTERS is not yes: every scenario empties the clusters it is given, so say that it may",
    );
  }

  const required = [
    ...["HOME", "VPS"].flatMap((c) => [`E2E_${c}_KUBECONFIG`, `E2E_${c}_CONTEXT`, `E2E_${c}_ADDRESS`]),
    ...["ENDPOINT", "ACCESS_KEY", "SECRET_KEY"].map((k) => `E2E_S3_${k}`),
    ...["E2E_DNS_SERVER", "E2E_DNS_COMMAND", "E2E_ZONE", "E2E_HOST_ADDRESS"],
  ];
  const absent = required.filter((key) => !given[key]);
  if (absent.length > 0) return missing(`not set: ${absent.join(", ")} (test/e2e/README.md)`);
  const value = (key: string) => given[key] ?? "";
  const [certificate, key] = [given["E2E_PEER_CERT"], given["E2E_PEER_KEY"]];
  if (!certificate !== !key) return missing("E2E_PEER_CERT and E2E_PEER_KEY are a pair, and only one of them is set");

  // Plugins are looked for beside the CLI, and the project's own command looks for the CLI on PATH.
  if (env["E2E_PULUMI"] !== undefined) given["PATH"] = `${path.dirname(env["E2E_PULUMI"])}:${given["PATH"] ?? ""}`;
  const childEnv = childEnvironment(given);
  const pulumi = env["E2E_PULUMI"] ?? which("pulumi", childEnv["PATH"] ?? "");
  if (pulumi === undefined) return missing("no Pulumi engine: pulumi is neither on PATH nor in E2E_PULUMI");
  const version = await run(pulumi, ["version"], { env: childEnv, seconds: 60 });
  if (version.code !== 0) return missing(`no Pulumi engine: '${pulumi} version' ended with ${version.code}`);
  for (const tool of ["kubectl", "helm", "openssl", "git"]) {
    if (which(tool, childEnv["PATH"] ?? "") === undefined) return missing(`${tool} is not on PATH`);
  }

  const cluster = (name: "home" | "vps"): ClusterAccess => {
    const upper = name.toUpperCase();
    return {
      name,
      kubeconfig: value(`E2E_${upper}_KUBECONFIG`),
      context: value(`E2E_${upper}_CONTEXT`),
      address: value(`E2E_${upper}_ADDRESS`),
      storageClass: given[`E2E_${upper}_STORAGE_CLASS`] ?? "local-path",
    };
  };
  return {
    kind: "ready",
    environment: {
      home: cluster("home"),
      vps: cluster("vps"),
      s3: {
        endpoint: value("E2E_S3_ENDPOINT"),
        accessKey: value("E2E_S3_ACCESS_KEY"),
        secretKey: value("E2E_S3_SECRET_KEY"),
        region: given["E2E_S3_REGION"] ?? "us-east-1",
      },
      dns: { server: value("E2E_DNS_SERVER"), command: value("E2E_DNS_COMMAND") },
      zone: value("E2E_ZONE"),
      hostAddress: value("E2E_HOST_ADDRESS"),
      ...(certificate && key ? { peer: { certificate: path.resolve(certificate), key: path.resolve(key) } } : {}),
      ...(given["E2E_CHARTS"] ? { charts: given["E2E_CHARTS"] } : {}),
      images: imageOverrides(given["E2E_IMAGES"] ?? ""),
      pulumi,
      ...(lab !== undefined ? { lab: { command: lab, home: labHome } } : {}),
      childEnv,
      cache: given["E2E_CACHE"] ?? path.join(os.homedir(), ".cache", "homestead-e2e"),
      logs: path.resolve(given["E2E_LOGS"] ?? path.join(checkout, "out", "e2e")),
    },
  };
}

/**
 * The same environment with the clusters exchanged, and names of its own: for scenarios with one site that run beside
 * others on the second cluster.
 */
export const beside = (environment: Environment): Environment => ({
  ...environment,
  home: { ...environment.vps, name: "home", machine: "vps" },
  vps: { ...environment.home, name: "vps", machine: "home" },
  zone: `beside.${environment.zone}`,
});

/** `name=reference`, separated by blanks or commas. @throws on anything else */
export function imageOverrides(text: string): Record<string, string> {
  const entries = text.split(/[\s,]+/).filter((part) => part !== "");
  return Object.fromEntries(
    entries.map((entry) => {
      const [name, reference] = entry.split(/=(.*)/s);
      if (!name || !reference) throw new Error(`E2E_IMAGES: '${entry}' is not name=reference`);
      return [name, reference];
    }),
  );
}

/** A child sees neither our caller's Pulumi settings nor a default cluster that a mistake could go to. */
export function childEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.fromEntries(Object.entries(env).filter(([key]) => !/^(PULUMI_|E2E_|npm_|KUBECONFIG$)/.test(key)));
  return {
    ...kept,
    PATH: `${path.join(checkout, "node_modules", ".bin")}:${env["PATH"] ?? ""}`,
    KUBECONFIG: "/nonexistent/kubeconfig",
    PULUMI_SKIP_UPDATE_CHECK: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    CI: "true",
  };
}

function which(program: string, searchPath: string): string | undefined {
  return searchPath
    .split(":")
    .map((folder) => path.join(folder, program))
    .find((file) => {
      try {
        fs.accessSync(file, fs.constants.X_OK);
        return fs.statSync(file).isFile();
      } catch {
        return false;
      }
    });
}

async function labVariables(lab: string): Promise<Record<string, string>> {
  const text = await must("bash", [lab, "env"]);
  return Object.fromEntries([...text.matchAll(/^export ([A-Z0-9_]+)=(.*)$/gm)].map((m) => [m[1] ?? "", m[2] ?? ""]));
}
