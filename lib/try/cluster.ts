/** What `./try` finds out about the cluster it is to use. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type * as k8s from "@kubernetes/client-node";
import { cnpgNamespace } from "../../components/operators";
import { reason } from "../attempt";
import type { OperatorName } from "../doctor/operators";
import { kubeClient, listedKubeconfigs, loadKubeconfig, unlessMissing } from "../kube";
import { kubernetes } from "../kubernetes";
import { isOurs, isOursIn } from "../ours";
import { UserError } from "../user-error";

/** A context of one kubeconfig file. */
export interface Context {
  name: string;
  /** The file that has it, absolute: a stack names one file, and $KUBECONFIG may list several. */
  file: string;
  /** The API server's address, for a person to recognise it; "" where the cluster that the context names is not in the file. */
  server: string;
}

/** What the stack `dev` has to know of a cluster, in the form of its configuration. */
export interface Found {
  /** UID of its kube-system namespace: a context's name may lead to another cluster tomorrow. */
  uid: string;
  /** Where the cluster answers to the world. */
  address: string;
  /** Traefik's namespace and the labels of its pods. */
  ingress: { namespace: string; labels: Record<string, string> };
  /** The storage class to use where `local-path` is not there. */
  storageClass?: string;
  /** Operators that are there and not this trial's. */
  operators: ExistingOperators;
}

/** Operators that a trial uses and did not install: the others are its own. */
export type ExistingOperators = Partial<Record<OperatorName, "existing">>;

/** A namespace, by the mark that each stack leaves on its own. */
export interface FoundNamespace {
  owner: "something else" | `site '${string}'`;
  /** Whether somebody has deleted it, and it is on its way out. */
  state: "there" | "ending";
}

/** What is still there when a trial has gone. */
export interface Remains {
  /** Custom resource definitions that its operators brought, without an object of their kind. */
  unused: string[];
  /** And with one. */
  used: string[];
  /** Operators that it used, and a project of ours had installed. */
  operators: { release: string; namespace: string }[];
  /** Namespaces that a project of ours has made. */
  namespaces: string[];
}

/** The current context as kubectl sees it; undefined if there is none. @throws UserError if a file is no kubeconfig */
export function currentContext(environment: NodeJS.ProcessEnv): Context | undefined {
  const listed = listedKubeconfigs(environment) ?? path.join(environment.HOME ?? os.homedir(), ".kube", "config");
  const configs = listed
    .split(path.delimiter)
    .filter((file) => file !== "" && fs.existsSync(file))
    .map((file) => {
      try {
        return { file: path.resolve(file), config: loadKubeconfig(file) };
      } catch (error) {
        throw new UserError(
          `${reason(error).replace(/:$/, "")}; mend it, or name another one: KUBECONFIG=<file> ./try`,
        );
      }
    });
  // The first file that names a current context decides, and the first that has it gives it.
  const name = configs.map(({ config }) => config.getCurrentContext()).find(Boolean);
  const holder = configs.find(({ config }) => name !== undefined && config.getContextObject(name));
  if (name === undefined || !holder) return undefined;
  const cluster = holder.config.getCluster(holder.config.getContextObject(name)?.cluster ?? "");
  return { name, file: holder.file, server: cluster?.server ?? "" };
}

export class Cluster {
  private readonly config: k8s.KubeConfig;
  private readonly core: k8s.CoreV1Api;

  /** @throws Error if the file has no such context */
  constructor({ name, file }: Context) {
    this.config = kubeClient({ context: name, kubeconfig: file });
    this.core = this.config.makeApiClient(kubernetes().CoreV1Api);
  }

  /** Whether the API server answers within five seconds. */
  async answers(): Promise<boolean> {
    const version = this.config.makeApiClient(kubernetes().VersionApi).getCode();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer")), 5000);
    });
    return Promise.race([version, late])
      .then(
        () => true,
        () => false,
      )
      .finally(() => clearTimeout(timer));
  }

  /** See {@link Found.uid}. */
  async uid(): Promise<string> {
    return (await this.core.readNamespace({ name: "kube-system" })).metadata?.uid ?? "";
  }

  /** undefined if it is not there. */
  async namespace(name: string): Promise<FoundNamespace | undefined> {
    const { metadata } = (await this.core.readNamespace({ name }).catch(unlessMissing)) ?? {};
    if (metadata === undefined) return undefined;
    const site = metadata.labels?.["homestead/site"];
    return {
      owner: site === undefined ? "something else" : `site '${site}'`,
      state: metadata.deletionTimestamp === undefined ? "there" : "ending",
    };
  }

  /**
   * Waits for what k3s makes only once its server has started, Traefik's definitions by a Helm job whose image is pulled
   * first. What is still missing then, {@link look} says.
   *
   * @param say Told that there is something to wait for.
   */
  async settle(say: (line: string) => void, limitMs = 120_000): Promise<void> {
    const begun = Date.now();
    const ready = async () => (await this.hasTraefik()) && (await this.storageClasses()).length > 0;
    // An API server that has just started refuses some questions.
    for (let asked = 0; !(await ready().catch(() => false)); asked++) {
      if (Date.now() - begun > limitMs) return;
      if (asked === 0) say("Waiting for Traefik and a storage class, which k3s makes once it has started.");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  /**
   * @param before The operators that the trial in `.state` uses and did not install; undefined if there is no trial.
   * @param address Where the cluster answers, if the user says it.
   * @throws UserError if the cluster lacks what the project does not bring itself: Traefik and a storage class.
   */
  async look(before?: ExistingOperators, address?: string): Promise<Found> {
    if (!(await this.hasTraefik())) {
      throw new UserError(
        "the cluster has no Traefik (no custom resources of traefik.io/v1alpha1). k3s and k3d bring it; elsewhere: " +
          "helm install traefik traefik --repo https://traefik.github.io/charts --namespace kube-system",
      );
    }
    const services = (await this.core.listServiceForAllNamespaces()).items;
    const traefik = services.find(
      ({ metadata, spec }) =>
        spec?.type === "LoadBalancer" &&
        (metadata?.labels?.["app.kubernetes.io/name"] === "traefik" || metadata?.name === "traefik"),
    );
    const { name: storageClass } = await this.storageClass();
    return {
      uid: await this.uid(),
      address: address ?? addressOf(traefik) ?? (await this.nodeAddress()),
      ingress: {
        namespace: traefik?.metadata?.namespace ?? "kube-system",
        labels: traefik?.spec?.selector ?? { "app.kubernetes.io/name": "traefik" },
      },
      ...(storageClass === "local-path" ? {} : { storageClass }),
      operators: await this.operators(before),
    };
  }

  /**
   * Deletes a namespace that `dev` made, and waits until it is gone.
   *
   * @param say Told what is waited for.
   * @throws UserError if it takes too long
   */
  async deleteNamespace(name: string, say: (line: string) => void, limitMs = 600_000): Promise<void> {
    const begun = Date.now();
    const seconds = () => Math.round((Date.now() - begun) / 1000);
    await this.core.deleteNamespace({ name }).catch(unlessMissing);
    // What the pods hold goes with it, and the database's would ask for minutes for an archive that is gone already. It only
    // hurries what ends by itself, so a cluster that refuses it changes nothing.
    await this.core.deleteCollectionNamespacedPod({ namespace: name, gracePeriodSeconds: 5 }).catch(() => undefined);
    let toldAt = -Infinity;
    for (;;) {
      const left = await this.core.readNamespace({ name }).catch(unlessMissing);
      if (left === undefined) return;
      if (Date.now() - begun > limitMs) {
        const look = `kubectl --context ${this.config.getCurrentContext()} describe namespace ${name}`;
        throw new UserError(
          `namespace ${name} is still there after ${seconds()} s: ${look} says why; ./try --destroy again goes on from there`,
        );
      }
      if (Date.now() - toldAt >= progressMs) {
        toldAt = Date.now();
        const remaining = (left.status?.conditions ?? []).filter(
          ({ type, status }) => /^Namespace(Content|Finalizers)Remaining$/.test(type) && status === "True",
        );
        const what = remaining
          .map(({ message = "" }) => message.replace(/^Some resources are remaining: /, ""))
          .join("; ");
        say(`namespace ${name} is being deleted, ${seconds()} s${what === "" ? "" : `: ${what}`}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  /** What a trial that is gone has left. @param existing The operators that it had not installed. */
  async remains(existing: ExistingOperators): Promise<Remains> {
    const namespaces = (await this.core.listNamespace()).items;
    const ours = isOursIn(namespaces);
    const { items } = await this.config.makeApiClient(kubernetes().AppsV1Api).listDeploymentForAllNamespaces();
    const running = (name: OperatorName) =>
      items.filter(({ metadata }) => deployments[name].test(metadata?.name ?? ""));

    const names = Object.keys(deployments) as OperatorName[];
    const installed = names.filter((name) => existing[name] === undefined && running(name).length === 0);
    const groups = installed.flatMap((name) => groupsOf[name]);
    const all = await this.config.makeApiClient(kubernetes().ApiextensionsV1Api).listCustomResourceDefinition();
    const left = all.items.filter(({ spec }) => groups.includes(spec.group));
    const used = await Promise.all(left.map((definition) => this.hasObjects(definition)));
    const called = (wanted: boolean) =>
      left.filter((_, i) => used[i] === wanted).map(({ metadata }) => metadata?.name ?? "");

    // The last to be installed goes first.
    const others = names.filter((name) => existing[name] !== undefined).reverse();
    return {
      unused: called(false),
      used: called(true),
      operators: others.flatMap((name) =>
        running(name)
          .filter(ours)
          .map(({ metadata }) => ({ release: releases[name], namespace: metadata?.namespace ?? "" })),
      ),
      namespaces: namespaces.filter(isOurs).map(({ metadata }) => metadata?.name ?? ""),
    };
  }

  /** Whether anything of a kind is there; what cannot be told counts as there. */
  private async hasObjects({ spec }: k8s.V1CustomResourceDefinition): Promise<boolean> {
    const version = spec.versions.find(({ served }) => served)?.name ?? "";
    const custom = this.config.makeApiClient(kubernetes().CustomObjectsApi);
    try {
      const list = (await custom.listCustomObjectForAllNamespaces({
        group: spec.group,
        version,
        resourcePlural: spec.names.plural,
        limit: 1,
      })) as { items: unknown[] };
      return list.items.length > 0;
    } catch {
      return true;
    }
  }

  private async nodeAddress(): Promise<string> {
    const addresses = (await this.core.listNode()).items.flatMap(({ status }) => status?.addresses ?? []);
    const node = ["ExternalIP", "InternalIP"].flatMap((type) =>
      addresses.filter((address) => address.type === type),
    )[0];
    if (node) return node.address;
    throw new UserError(
      "neither Traefik's Service nor a node of the cluster has an address: ./try --set ingress.address=<address>",
    );
  }

  private async hasTraefik(): Promise<boolean> {
    const { items } = await this.config.makeApiClient(kubernetes().ApiextensionsV1Api).listCustomResourceDefinition();
    return items.some(({ metadata }) => metadata?.name === "ingressroutes.traefik.io");
  }

  private async storageClasses(): Promise<k8s.V1StorageClass[]> {
    return (await this.config.makeApiClient(kubernetes().StorageV1Api).listStorageClass()).items;
  }

  private async storageClass(): Promise<{ name: string }> {
    const classes = await this.storageClasses();
    const names = classes.map(({ metadata }) => metadata?.name ?? "");
    const byDefault = classes.find(
      ({ metadata }) => metadata?.annotations?.["storageclass.kubernetes.io/is-default-class"] === "true",
    )?.metadata?.name;
    const name = names.includes("local-path") ? "local-path" : (byDefault ?? names[0]);
    if (name !== undefined) return { name };
    throw new UserError(
      "the cluster has no storage class, so nothing can keep data there: https://github.com/rancher/local-path-provisioner is a simple one",
    );
  }

  /**
   * Operators that run here and are not this trial's. One that a project of ours installed is this trial's only if there is
   * a trial that does not call it existing: another clone has made it, or a trial whose `.state` is lost.
   *
   * @throws UserError if CloudNativePG's plugin would not be beside it, where alone it is found, or a namespace to install
   *   into is there
   */
  private async operators(before: ExistingOperators | undefined): Promise<ExistingOperators> {
    const namespaces = (await this.core.listNamespace()).items;
    const ours = isOursIn(namespaces);
    const { items } = await this.config.makeApiClient(kubernetes().AppsV1Api).listDeploymentForAllNamespaces();
    const namespaceOf = (name: OperatorName) => {
      const all = items.filter(({ metadata }) => deployments[name].test(metadata?.name ?? ""));
      return all.find((one) => before === undefined || before[name] === "existing" || !ours(one))?.metadata?.namespace;
    };
    const [certManager, operator, plugin] = (["certManager", "cloudNativePg", "barmanPlugin"] as const).map(
      namespaceOf,
    );
    if ((operator ?? cnpgNamespace) !== (plugin ?? cnpgNamespace)) {
      const place = (found: string | undefined) => `${found ? "is" : "would be"} in '${found ?? cnpgNamespace}'`;
      throw new UserError(
        `the barman-cloud plugin works only in the operator's own namespace, but CloudNativePG ${place(operator)} and ` +
          `its plugin ${place(plugin)}: install both in one ` +
          "(https://cloudnative-pg.io/plugin-barman-cloud/docs/installation), then ./try again",
      );
    }
    const left = (namespace: string) => namespaces.some((one) => isOurs(one) && one.metadata?.name === namespace);
    for (const [namespace, found] of [
      ["cert-manager", certManager],
      [cnpgNamespace, operator],
    ] as const) {
      if (before !== undefined || found !== undefined || !left(namespace)) continue;
      const context = this.config.getCurrentContext();
      throw new UserError(
        `namespace '${namespace}' of context '${context}' is what is left of a trial that .state does not know, without ` +
          `its operator: kubectl --context ${context} delete namespace ${namespace}; then ./try again`,
      );
    }
    return {
      ...(certManager === undefined ? {} : { certManager: "existing" }),
      ...(operator === undefined ? {} : { cloudNativePg: "existing" }),
      ...(plugin === undefined ? {} : { barmanPlugin: "existing" }),
    };
  }
}

/** What the operators' Deployments are called. */
const deployments: Record<OperatorName, RegExp> = {
  certManager: /^cert-manager$/,
  cloudNativePg: /^cnpg-controller-manager$|cloudnative-pg$/,
  barmanPlugin: /^(plugin-)?barman-cloud/,
};

/** The groups of the definitions that each brings. */
const groupsOf: Record<OperatorName, readonly string[]> = {
  certManager: ["cert-manager.io", "acme.cert-manager.io"],
  cloudNativePg: ["postgresql.cnpg.io"],
  barmanPlugin: ["barmancloud.cnpg.io"],
};

/** What our releases of them are called (components/operators.ts). */
const releases: Record<OperatorName, string> = {
  certManager: "cert-manager",
  cloudNativePg: "cloudnative-pg",
  barmanPlugin: "plugin-barman-cloud",
};

/** How often it is told what is waited for. */
const progressMs = 15_000;

const addressOf = (service: k8s.V1Service | undefined): string | undefined => {
  const [first] = service?.status?.loadBalancer?.ingress ?? [];
  return first?.ip ?? first?.hostname;
};
