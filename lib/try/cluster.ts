/** What `./try` finds out about the cluster it is to use. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as k8s from "@kubernetes/client-node";
import { cnpgNamespace } from "../../components/operators";
import { kubeClient } from "../kube";
import { isOursIn } from "../ours";
import { UserError } from "../user-error";

/** A context of one kubeconfig file. */
export interface Context {
  name: string;
  /** The file that has it, absolute: a stack names one file, and $KUBECONFIG may list several. */
  file: string;
  /** The API server's address, for a person to recognise it. */
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
  /** Operators that are there and not ours. */
  operators: Partial<Record<"certManager" | "cloudNativePg" | "barmanPlugin", "existing">>;
}

/** The current context as kubectl sees it; undefined if there is none. */
export function currentContext(environment: NodeJS.ProcessEnv): Context | undefined {
  const listed = environment.KUBECONFIG ?? path.join(environment.HOME ?? os.homedir(), ".kube", "config");
  const configs = listed
    .split(path.delimiter)
    .filter((file) => file !== "" && fs.existsSync(file))
    .map((file) => {
      const config = new k8s.KubeConfig();
      config.loadFromFile(file);
      return { file: path.resolve(file), config };
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
    this.core = this.config.makeApiClient(k8s.CoreV1Api);
  }

  /** Whether the API server answers within five seconds. */
  async answers(): Promise<boolean> {
    const version = this.config.makeApiClient(k8s.VersionApi).getCode();
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

  /** To whom a namespace belongs, by the mark that each stack leaves on its own: nobody, if it is not there. */
  async ownerOf(name: string): Promise<"nobody" | "something else" | `site '${string}'`> {
    const namespace = await this.core.readNamespace({ name }).catch(unlessMissing);
    if (namespace === undefined) return "nobody";
    const site = namespace.metadata?.labels?.["homestead/site"];
    return site === undefined ? "something else" : `site '${site}'`;
  }

  /** @throws UserError if the cluster lacks what the project does not bring itself: Traefik and a storage class. */
  async look(): Promise<Found> {
    const definitions = await this.config.makeApiClient(k8s.ApiextensionsV1Api).listCustomResourceDefinition();
    if (!definitions.items.some(({ metadata }) => metadata?.name === "ingressroutes.traefik.io")) {
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
      address: addressOf(traefik) ?? (await this.nodeAddress()),
      ingress: {
        namespace: traefik?.metadata?.namespace ?? "kube-system",
        labels: traefik?.spec?.selector ?? { "app.kubernetes.io/name": "traefik" },
      },
      ...(storageClass === "local-path" ? {} : { storageClass }),
      operators: await this.operators(),
    };
  }

  /** Deletes a namespace that `dev` made, and waits until it is gone. @throws UserError if it takes too long */
  async deleteNamespace(name: string, limitMs = 300_000): Promise<void> {
    const until = Date.now() + limitMs;
    await this.core.deleteNamespace({ name }).catch(unlessMissing);
    for (;;) {
      const left = await this.core.readNamespace({ name }).catch(unlessMissing);
      if (left === undefined) return;
      if (Date.now() > until)
        throw new UserError(`namespace ${name} is still there: kubectl describe namespace ${name} says why`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
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

  private async storageClass(): Promise<{ name: string }> {
    const classes = (await this.config.makeApiClient(k8s.StorageV1Api).listStorageClass()).items;
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
   * Operators that run here and were not installed by an earlier `./try`.
   * @throws UserError if CloudNativePG's plugin would not be beside it, where alone it is found
   */
  private async operators(): Promise<Found["operators"]> {
    const ours = isOursIn((await this.core.listNamespace()).items);
    const { items } = await this.config.makeApiClient(k8s.AppsV1Api).listDeploymentForAllNamespaces();
    const deployments = items.filter((one) => !ours(one));
    const namespaceOf = (pattern: RegExp) =>
      deployments.find(({ metadata }) => pattern.test(metadata?.name ?? ""))?.metadata?.namespace;
    const operator = namespaceOf(/^cnpg-controller-manager$|cloudnative-pg$/);
    const plugin = namespaceOf(/^(plugin-)?barman-cloud/);
    if ((operator ?? cnpgNamespace) !== (plugin ?? cnpgNamespace)) {
      const place = (found: string | undefined) => `${found ? "is" : "would be"} in '${found ?? cnpgNamespace}'`;
      throw new UserError(
        `the barman-cloud plugin works only in the operator's own namespace, but CloudNativePG ${place(operator)} and ` +
          `its plugin ${place(plugin)}: install both in one ` +
          "(https://cloudnative-pg.io/plugin-barman-cloud/docs/installation), then ./try again",
      );
    }
    return {
      ...(namespaceOf(/^cert-manager$/) === undefined ? {} : { certManager: "existing" }),
      ...(operator === undefined ? {} : { cloudNativePg: "existing" }),
      ...(plugin === undefined ? {} : { barmanPlugin: "existing" }),
    };
  }
}

const addressOf = (service: k8s.V1Service | undefined): string | undefined => {
  const [first] = service?.status?.loadBalancer?.ingress ?? [];
  return first?.ip ?? first?.hostname;
};

function unlessMissing(error: unknown): undefined {
  if (error instanceof k8s.ApiException && error.code === 404) return undefined;
  throw error;
}
