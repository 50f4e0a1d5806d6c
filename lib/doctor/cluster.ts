/** What a doctor reads in the cluster. Everything throws an Error with one line; nothing is changed. */
import type * as k8s from "@kubernetes/client-node";
import type { Settings } from "../../settings";
import { ask, askVersion, unlessMissing } from "../kube";
import { kubernetes } from "../kubernetes";
import { isOursIn } from "../ours";
import type { Renewal } from "./lines";
import type { IssuerFacts } from "./issuer";
import { imageName, operatorMarks } from "./operators";
import type { Definitions, OperatorFacts, OperatorName, TraefikPod, TraefikService } from "./operators";

export class DoctorCluster {
  private readonly core: k8s.CoreV1Api;

  constructor(
    private readonly config: k8s.KubeConfig,
    private readonly settings: Pick<Settings, "namespace" | "ingress" | "certificates">,
  ) {
    this.core = config.makeApiClient(kubernetes().CoreV1Api);
  }

  /** Version of the API server, and by how many seconds its clock is ahead of this machine's, if it says. */
  version(): Promise<{ version: string; ahead?: number }> {
    return askVersion(this.config);
  }

  /** UID of the cluster, and whether the site's namespace is there. */
  async identity(): Promise<{ uid: string; namespace: "there" | "missing" }> {
    const { namespace } = this.settings;
    const [system, own] = await Promise.all([
      ask("get namespaces/kube-system", this.core.readNamespace({ name: "kube-system" })),
      ask(`get namespaces/${namespace}`, this.core.readNamespace({ name: namespace })).catch(unlessMissing),
    ]);
    return { uid: system.metadata?.uid ?? "", namespace: own === undefined ? "missing" : "there" };
  }

  async definitions(): Promise<Definitions> {
    const api = this.config.makeApiClient(kubernetes().ApiextensionsV1Api);
    const question = "list customresourcedefinitions.apiextensions.k8s.io";
    const { items } = await ask(question, api.listCustomResourceDefinition());
    return new Map(items.map((definition) => [definition.metadata?.name ?? "", definition]));
  }

  /** @param definitions what {@link definitions} says */
  async operators(definitions: Definitions): Promise<Record<OperatorName, OperatorFacts>> {
    const [deployments, namespaces] = await Promise.all([
      ask(
        "list deployments.apps -A",
        this.config.makeApiClient(kubernetes().AppsV1Api).listDeploymentForAllNamespaces(),
      ),
      ask("list namespaces", this.core.listNamespace()),
    ]);
    const ours = isOursIn(namespaces.items);
    const found = (name: OperatorName): OperatorFacts => {
      const { definition, image, called } = operatorMarks[name];
      const own = deployments.items.find((one) => deploymentOf(one, image) !== undefined);
      const deployment = own && deploymentOf(own, image);
      return {
        definition: definitions.has(definition),
        ...(deployment ? { deployment } : {}),
        called: deployments.items.some((one) => namesOf(one).some((text) => called.test(text))),
        ours: own !== undefined && ours(own),
      };
    };
    return {
      certManager: found("certManager"),
      cloudNativePg: found("cloudNativePg"),
      barmanPlugin: found("barmanPlugin"),
    };
  }

  async traefik(): Promise<{ pods: TraefikPod[]; services: TraefikService[] }> {
    const { namespace, labels } = this.settings.ingress;
    const labelSelector = Object.entries(labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(",");
    const [pods, services] = await Promise.all([
      ask(`list pods -n ${namespace}`, this.core.listNamespacedPod({ namespace, labelSelector })),
      ask(`list services -n ${namespace}`, this.core.listNamespacedService({ namespace })),
    ]);
    const selects = (selector: Record<string, string> = {}) =>
      Object.keys(selector).length > 0 &&
      pods.items.some(({ metadata }) =>
        Object.entries(selector).every(([key, value]) => metadata?.labels?.[key] === value),
      );
    return {
      pods: pods.items.map(({ spec, status }) => ({
        image: spec?.containers[0]?.image ?? "",
        ready: isTrue(status?.conditions, "Ready"),
        args: (spec?.containers ?? []).flatMap(({ command = [], args = [] }) => [...command, ...args]),
      })),
      services: services.items
        .filter(({ spec }) => /^(LoadBalancer|NodePort)$/.test(spec?.type ?? "") && selects(spec?.selector))
        .map(({ metadata, spec }) => ({
          name: metadata?.name ?? "",
          externalTrafficPolicy: spec?.externalTrafficPolicy ?? "Cluster",
        })),
    };
  }

  async nodes(): Promise<k8s.V1Node[]> {
    return (await ask("list nodes", this.core.listNode())).items;
  }

  async pods(): Promise<k8s.V1Pod[]> {
    return (await ask("list pods -A", this.core.listPodForAllNamespaces())).items;
  }

  /** Names of the site's claims that are there. */
  async claims(): Promise<string[]> {
    const { namespace } = this.settings;
    const question = `list persistentvolumeclaims -n ${namespace}`;
    const { items } = await ask(question, this.core.listNamespacedPersistentVolumeClaim({ namespace }));
    return items.map(({ metadata }) => metadata?.name ?? "");
  }

  /** The moments at which the nodes renewed their leases last, each by its own clock. */
  async renewals(): Promise<Renewal[]> {
    const leases = this.config.makeApiClient(kubernetes().CoordinationV1Api);
    const question = "list leases.coordination.k8s.io -n kube-node-lease";
    const { items } = await ask(question, leases.listNamespacedLease({ namespace: "kube-node-lease" }));
    return items.flatMap(({ metadata, spec }) => {
      // The client declares a Date and hands over the text.
      const at = Date.parse(String(spec?.renewTime ?? ""));
      return Number.isNaN(at) ? [] : [{ node: metadata?.name ?? "", at: at / 1000 }];
    });
  }

  /** Whether there is a certificate of that name that is valid. */
  async certificate(name: string): Promise<"ready" | "missing"> {
    const api = this.config.makeApiClient(kubernetes().CustomObjectsApi);
    const { namespace } = this.settings;
    const of = { group: "cert-manager.io", version: "v1", plural: "certificates", name, namespace };
    const question = `get certificates.cert-manager.io/${name} -n ${namespace}`;
    const object: unknown = await ask(question, api.getNamespacedCustomObject(of)).catch(unlessMissing);
    const { status } = (object ?? {}) as { status?: { conditions?: { type: string; status: string }[] } };
    return isTrue(status?.conditions, "Ready") ? "ready" : "missing";
  }

  /** The issuer that the site's certificate is asked of. */
  async issuer({ name, kind }: { name: string; kind: "Issuer" | "ClusterIssuer" }): Promise<IssuerFacts> {
    const api = this.config.makeApiClient(kubernetes().CustomObjectsApi);
    const { namespace } = this.settings;
    const of = { group: "cert-manager.io", version: "v1", name };
    const asked =
      kind === "Issuer"
        ? ask(
            `get issuers.cert-manager.io/${name} -n ${namespace}`,
            api.getNamespacedCustomObject({ ...of, plural: "issuers", namespace }),
          )
        : ask(
            `get clusterissuers.cert-manager.io/${name}`,
            api.getClusterCustomObject({ ...of, plural: "clusterissuers" }),
          );
    const object: unknown = await asked.catch(unlessMissing);
    if (object === undefined) return { state: "missing" };
    const { status } = object as { status?: { conditions?: { type: string; status: string; message?: string }[] } };
    const ready = status?.conditions?.find(({ type }) => type === "Ready");
    if (ready?.status === "True") return { state: "ready" };
    return { state: "unready", message: ready?.message?.split("\n")[0] ?? "says nothing yet" };
  }
}

const isTrue = (conditions: { type: string; status: string }[] | undefined, wanted: string): boolean =>
  conditions?.some(({ type, status }) => type === wanted && status === "True") ?? false;

function deploymentOf(
  { metadata, spec, status }: k8s.V1Deployment,
  image: string,
): OperatorFacts["deployment"] | undefined {
  const container = spec?.template.spec?.containers.find((one) => imageName(one.image ?? "") === image);
  if (!container) return undefined;
  const release = metadata?.annotations?.["meta.helm.sh/release-name"];
  return {
    name: metadata?.name ?? "",
    namespace: metadata?.namespace ?? "",
    ...(release === undefined ? {} : { release }),
    image: container.image ?? "",
    wanted: spec?.replicas ?? 1,
    ready: status?.readyReplicas ?? 0,
  };
}

/** What a Deployment and its images are called. */
const namesOf = ({ metadata, spec }: k8s.V1Deployment): string[] => [
  metadata?.name ?? "",
  ...(spec?.template.spec?.containers ?? []).map(({ image }) => imageName(image ?? "")),
];
