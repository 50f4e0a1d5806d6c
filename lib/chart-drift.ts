/**
 * What Mastodon's chart has made against what the program wants. A refresh of a `helm.v3.Release` reads Helm's own record
 * and none of the objects: a Deployment that somebody has scaled or set to another image is no difference to it.
 */
import { parse } from "yaml";
import { z } from "zod";
import type { Preview, Step } from "./preview-comment";

const image = z.object({ repository: z.string(), tag: z.string() });
const part = z.object({ replicas: z.number(), image });
const releaseShape = z.object({
  name: z.string(),
  namespace: z.string(),
  values: z.object({
    mastodon: z.object({
      web: part,
      streaming: part,
      sidekiq: z.object({ workers: z.array(part.extend({ name: z.string() })) }),
    }),
  }),
});
const deploymentsShape = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), namespace: z.string() }),
      spec: z.object({
        replicas: z.number().default(1),
        template: z.object({ spec: z.object({ containers: z.array(z.object({ image: z.string() })) }) }),
      }),
    }),
  ),
});

/** What is looked at of a Deployment, as a reader of the report sees it. */
type Seen = Record<"replicas" | "image", string>;

/**
 * @param release the release of `homestead plan`, in YAML
 * @param answer what `kubectl get deployments -o json` gave for the chart's label
 */
export function chartDrift(release: string, answer: { stdout: string; stderr: string; code: number }): Preview {
  const failed = (why: string): Preview => ({ steps: [], unchanged: 0, errors: [why] });
  if (answer.code !== 0) return failed(answer.stderr.trim() || `kubectl ended with ${answer.code}`);
  const planned = releaseShape.safeParse(parse(release));
  if (!planned.success) return failed("the plan's release of Mastodon has no replicas and images where they were");
  const listed = deploymentsShape.safeParse(json(answer.stdout));
  if (!listed.success) return failed("kubectl printed no list of Deployments");

  const wanted = wantedOf(planned.data);
  const there = new Map(
    listed.data.items
      .filter(({ metadata }) => metadata.namespace === planned.data.namespace)
      .map(({ metadata, spec }) => [
        metadata.name,
        { replicas: String(spec.replicas), image: spec.template.spec.containers.map((c) => c.image).join(", ") },
      ]),
  );
  const step = (op: Step["op"], name: string, changes: string[] = []): Step[] => [
    { op, type: "kubernetes:apps/v1:Deployment", name, changes, reasons: [], kept: false },
  ];
  const steps = [...new Set([...wanted.keys(), ...there.keys()])].sort().flatMap((name) => {
    const [want, found] = [wanted.get(name), there.get(name)];
    if (found === undefined) return step("delete", name);
    if (want === undefined) return step("create", name);
    const changes = (["replicas", "image"] as const).filter((key) => want[key] !== found[key]);
    const told = changes.map((key) => `~ ${key}: ${want[key]} => ${found[key]}`);
    return told.length === 0 ? [] : step("update", name, told);
  });
  return { steps, unchanged: 0, errors: [] };
}

/** By name, as the chart calls them. */
function wantedOf({ name, values: { mastodon } }: z.infer<typeof releaseShape>): Map<string, Seen> {
  const seen = ({ replicas, image: { repository, tag } }: z.infer<typeof part>): Seen => ({
    replicas: String(replicas),
    image: `${repository}:${tag}`,
  });
  return new Map([
    [`${name}-web`, seen(mastodon.web)],
    [`${name}-streaming`, seen(mastodon.streaming)],
    ...mastodon.sidekiq.workers.map((worker) => [`${name}-sidekiq-${worker.name}`, seen(worker)] as const),
  ]);
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
