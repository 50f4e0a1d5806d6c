/** What `./try --destroy` says of what it has left. Pure. */
import type { Remains } from "./cluster";

/** Lines for a person; none if nothing is left. */
export function remainsOf(context: string, { unused, used, operators, namespaces }: Remains): string[] {
  const kubectl = `kubectl --context ${context}`;
  const lines: string[] = [];
  const count = unused.length + used.length;
  if (count > 0) {
    lines.push(
      "",
      `${count} custom resource definitions of its operators stay: with a definition goes every object of its kind on the`,
      `cluster, whoever made it. ${used.length === 0 ? "There is no such object now." : `There are still objects of these: ${used.join(", ")}.`}`,
    );
  }
  if (unused.length > 0) {
    const those = used.length === 0 ? "them" : "the others";
    lines.push(`If nobody else is to use ${those}:`, "", `  ${kubectl} delete crd ${unused.join(" ")}`);
  }
  if (operators.length > 0) {
    const there = [...new Set(operators.map(({ namespace }) => namespace))];
    const own = there.filter((namespace) => namespaces.includes(namespace));
    lines.push(
      "",
      "Operators stay that another trial or site had installed (its .state may be lost). If nobody uses them:",
      "",
      ...operators.map(
        ({ release, namespace }) => `  helm --kube-context ${context} uninstall --namespace ${namespace} ${release}`,
      ),
      ...(own.length === 0 ? [] : [`  ${kubectl} delete namespace ${own.join(" ")}`]),
    );
  }
  return lines;
}
