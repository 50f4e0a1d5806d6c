/** Talking to the cluster of a stack. */
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import * as fs from "node:fs";
import type * as k8s from "@kubernetes/client-node";
import * as z from "zod";
import type { Settings } from "../settings";
import { reason, within } from "./attempt";
import { aheadBy } from "./clock";
import { kubernetes } from "./kubernetes";
import { word } from "./shell";
import { UserError } from "./user-error";

/** Set by an opened kit: the file that it has for each place that a stack names, a JSON object. */
export const standInsVariable = "HOMESTEAD_KUBECONFIGS";

/** What $KUBECONFIG names. An empty one is none, as kubectl takes it. */
export const listedKubeconfigs = (environment: NodeJS.ProcessEnv): string | undefined =>
  environment["KUBECONFIG"] === "" ? undefined : environment["KUBECONFIG"];

/**
 * The kubeconfig file of a stack as it is named: its own, or what an opened kit has in its place; else $KUBECONFIG, else
 * ~/.kube/config.
 *
 * @throws UserError where the kit's variable is not what a kit sets
 */
export function kubeconfigName({ kubeconfig }: Settings["cluster"]): string {
  if (kubeconfig === undefined) return listedKubeconfigs(process.env) ?? "~/.kube/config";
  const set = process.env[standInsVariable];
  if (set === undefined || set === "") return kubeconfig;
  try {
    return z.record(z.string(), z.string()).parse(JSON.parse(set))[kubeconfig] ?? kubeconfig;
  } catch {
    throw new UserError(
      `${standInsVariable} is not what an opened kit's env sets: source that file again, or unset it`,
    );
  }
}

/** Where that file is on this machine. */
export const kubeconfigPath = (cluster: Settings["cluster"]): string =>
  path.resolve(kubeconfigName(cluster).replace(/^~(?=\/)/, os.homedir()));

/** The beginning of a command to paste that asks the stack's own cluster, whatever the shell's kubeconfig is. */
export function kubectl(cluster: Settings["cluster"]): string {
  const name = kubeconfigName(cluster);
  // In quotes the shell would not put the home folder in its place.
  const file = name.startsWith("~/") ? `~/${word(name.slice(2))}` : word(name);
  return `kubectl${cluster.kubeconfig === undefined ? "" : ` --kubeconfig ${file}`} --context ${word(cluster.context)}`;
}

/** Who is behind the Service `kubernetes`: addresses and ports of the API server itself. */
export async function apiServerSlices(config: k8s.KubeConfig): Promise<k8s.V1EndpointSlice[]> {
  const { items } = await config.makeApiClient(kubernetes().DiscoveryV1Api).listNamespacedEndpointSlice({
    namespace: "default",
    labelSelector: "kubernetes.io/service-name=kubernetes",
  });
  return items;
}

/** The command that names another kubeconfig or context for a stack. */
export const setCluster = (key: KubeconfigFault["key"], site: string): string =>
  `pulumi config set --path homestead:cluster.${key} ${key === "kubeconfig" ? "<file>" : "<context>"} --stack ${site}`;

/** Why there is no client. */
export class KubeconfigFault extends Error {
  constructor(
    /** The part of `homestead:cluster` that would mend it. */
    readonly key: "kubeconfig" | "context",
    message: string,
    /** What else would, in words. */
    private readonly instead?: string,
  ) {
    super(message);
  }

  /** What mends it for a stack, a command to paste among it. */
  mend(site: string): string {
    const set = setCluster(this.key, site);
    return this.instead === undefined ? set : `${this.instead}, or: ${set}`;
  }
}

/** Why a stack's cluster was not asked, or did not answer, in one line; with the mend where this machine lacks its file. */
export const unaskable = (error: unknown, site: string): string =>
  error instanceof KubeconfigFault ? `${error.message}: ${error.mend(site)}` : reason(error);

/** What a file says. @throws KubeconfigFault if it is no kubeconfig */
export function loadKubeconfig(file: string): k8s.KubeConfig {
  const config = new (kubernetes().KubeConfig)();
  try {
    config.loadFromFile(file);
  } catch (error) {
    throw new KubeconfigFault("kubeconfig", `kubeconfig ${file} cannot be read: ${reason(error)}`, "repair the file");
  }
  return config;
}

/** A client for the stack's own context, and nothing else. @throws KubeconfigFault that says what is missing. */
export function kubeClient(cluster: Settings["cluster"]): k8s.KubeConfig {
  const file = kubeconfigPath(cluster);
  if (kubeconfigName(cluster).includes(path.delimiter)) {
    const message = "$KUBECONFIG names several files, and the stack does not say which one is its own";
    throw new KubeconfigFault("kubeconfig", message);
  }
  if (!fs.existsSync(file))
    throw new KubeconfigFault("kubeconfig", `kubeconfig ${file} does not exist`, "put the file there");
  const config = loadKubeconfig(file);
  if (!config.getContextObject(cluster.context)) {
    const known = config.getContexts().map((c) => c.name);
    const message = `kubeconfig ${file} has no context '${cluster.context}'; it has ${known.join(", ") || "none"}`;
    throw new KubeconfigFault("context", message);
  }
  config.setCurrentContext(cluster.context);
  // The client's own words on it come late, without the file's name.
  if (!config.getCurrentCluster()) {
    const named = config.getContextObject(cluster.context)?.cluster ?? "";
    const message = `kubeconfig ${file} has no cluster '${named}', which its context '${cluster.context}' names`;
    throw new KubeconfigFault("context", message);
  }
  return config;
}

/** Version of the API server, and by how many seconds its clock is ahead of this machine's, if it says. */
export async function askVersion(config: k8s.KubeConfig): Promise<{ version: string; ahead?: number }> {
  const asked = Date.now();
  const { data, headers } = await config.makeApiClient(kubernetes().VersionApi).getCodeWithHttpInfo();
  const ahead = aheadBy(headers.date, asked, Date.now());
  return { version: data.gitVersion, ...(ahead === undefined ? {} : { ahead }) };
}

/** A question that a cluster did not answer as it should, in one line: `list nodes: 403, nodes is forbidden: ...`. */
export class Unanswered extends Error {
  constructor(
    /** As `kubectl auth can-i` takes it: `list nodes`, `get deployments.apps/mastodon-web -n homestead`. */
    readonly question: string,
    /** The cluster's own words, or why there are none. */
    readonly says: string,
    /** The HTTP status of the answer; undefined where none came. */
    readonly status: number | undefined,
  ) {
    super(`${question}: ${says}`);
  }
}

/**
 * What the cluster answers. The client's own errors tell a status and a page of headers, and not what was asked; and it
 * waits for ever for a cluster that takes a connection and says nothing.
 *
 * @throws Unanswered
 */
export async function ask<T>(question: string, work: Promise<T>, seconds = 20): Promise<T> {
  try {
    return await within(seconds, work);
  } catch (error) {
    throw error instanceof kubernetes().ApiException
      ? new Unanswered(question, `${error.code}, ${wordsOf(error)}`, error.code)
      : new Unanswered(question, reason(error), undefined);
  }
}

/** Whether the same question may be answered a moment later: no answer came, or it was that of a server in trouble. */
export const isPassing = (error: unknown): error is Unanswered =>
  error instanceof Unanswered && (error.status === undefined || error.status === 429 || error.status >= 500);

/** How often a cluster is asked, and in seconds how long it is waited for, and for the next time. */
export interface Patience {
  seconds: number;
  tries: number;
  pause: number;
}

/** One that is restarted, or busy, answers the next time. */
export const patience: Patience = { seconds: 20, tries: 3, pause: 1 };

/**
 * {@link ask}, and again where that may help.
 *
 * @param signal whoever has ended it does not wait for a second answer
 * @throws Unanswered
 */
export async function askPatiently<T>(
  question: string,
  work: () => Promise<T>,
  signal: AbortSignal,
  { seconds, tries, pause }: Patience = patience,
): Promise<T> {
  for (let left = tries - 1; ; left--) {
    try {
      return await ask(question, work(), seconds);
    } catch (error) {
      if (left === 0 || signal.aborted || !isPassing(error)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
  }
}

/** What the API server says of a request that it did not fulfil, in one line. The client hands the answer on as it came. */
export function wordsOf({ code, body }: k8s.ApiException<unknown>): string {
  let said: unknown = body;
  try {
    if (typeof body === "string") said = JSON.parse(body);
  } catch {
    // Whatever stands before an API server may answer for it, and with a page.
  }
  const message = typeof said === "object" && said !== null && "message" in said ? said.message : undefined;
  const words = typeof message === "string" ? message.split("\n")[0] : undefined;
  return words === undefined || words === "" ? (http.STATUS_CODES[code] ?? "without a word") : words;
}

/** For `catch`: what is not there is undefined. @throws what else went wrong */
export function unlessMissing(error: unknown): undefined {
  if (statusOf(error) === 404) return undefined;
  throw error;
}

/** The HTTP status of a Kubernetes API error; undefined for anything else. */
export const statusOf = (error: unknown): number | undefined =>
  error instanceof kubernetes().ApiException ? error.code : error instanceof Unanswered ? error.status : undefined;
