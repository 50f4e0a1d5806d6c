/** What providers would answer, as far as the program needs it to go on; everything else is unknown, as in a preview. */
import type * as Pulumi from "@pulumi/pulumi";
import type { Placeholders } from "./placeholders";

/** The engine's mark for a value that only the update will tell. */
const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

type Values = Record<string, unknown>;

/** Mocks for the SDK: every resource is created as asked for. */
export function provided(placeholders: Placeholders): Pulumi.runtime.Mocks {
  return {
    newResource({ type, name, inputs, id }) {
      const asked = inputs as Values;
      if (type.startsWith("pulumi:providers:")) return { id: `${name}-id`, state: asked };
      if (type.startsWith("kubernetes:helm.sh/v3:Release")) return { id: id ?? name, state: release(name, asked) };
      if (type === "kubernetes:core/v1:Secret" && id) return readSecret(name, id, placeholders);
      if (type.startsWith("kubernetes:")) return kubernetesObject(name, asked);
      if (type === "random:index/randomPassword:RandomPassword" || type === "random:index/randomString:RandomString") {
        return { id: name, state: { ...asked, result: placeholders.of(name) } };
      }
      return { id: id ?? `${name}-id`, state: asked };
    },
    // What a function of a provider finds out is not known without the provider.
    call: () => ({}),
  };
}

function kubernetesObject(name: string, asked: Values): { id: string; state: Values } {
  const metadata = (asked.metadata ?? {}) as { name?: string; namespace?: string };
  // The provider's own way of naming what has no name.
  const named = { ...metadata, name: metadata.name ?? `${name}-autonamed` };
  const spec = asked.kind === "Service" ? { spec: { clusterIP: unknown, ...(asked.spec as Values) } } : {};
  return {
    id: metadata.namespace === undefined ? named.name : `${metadata.namespace}/${named.name}`,
    state: { ...asked, metadata: named, ...spec },
  };
}

/** A Secret that is looked up: one of cert-manager's, which is the kind that the program reads. */
function readSecret(name: string, id: string, placeholders: Placeholders): { id: string; state: Values } {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const certificates = Object.fromEntries(["ca.crt", "tls.crt"].map((file) => [file, base64(`<${file} of ${name}>`)]));
  return { id, state: { data: { ...certificates, "tls.key": base64(placeholders.of(`${name}.tls.key`)) } } };
}

function release(name: string, asked: Values): Values {
  const { namespace, chart, version } = asked;
  return {
    ...asked,
    name: asked.name ?? name,
    status: { name: asked.name ?? name, namespace, chart, version, revision: 1, status: "deployed" },
  };
}
