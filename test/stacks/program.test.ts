import { describe, expect, it } from "vitest";
import { at, planStack } from "../../lib/plan";
import type { Plan, PlannedResource } from "../../lib/plan";
import { isObject, shortType } from "../../lib/plan/render";
import type { StackName } from "../../settings";
import { images } from "../../versions";
import { copyProject } from "../support/folders";
import { ownStack } from "../support/own";
import { named, ofType, plannedStack, stacks } from "../support/planned";

const parentOf = (plan: Plan, resource: PlannedResource) => plan.resources.find(({ urn }) => urn === resource.parent);
const isProvider = ({ type }: PlannedResource) => type.startsWith("pulumi:providers:");

/** Everything a resource waits for: directly, through others, and through the components around it. */
function before(plan: Plan, resource: PlannedResource): Set<string> {
  const byUrn = new Map(plan.resources.map((r) => [r.urn, r]));
  const found = new Set<string>();
  const visit = (urn: string) => {
    const next = byUrn.get(urn);
    if (!next || found.has(next.name)) return;
    found.add(next.name);
    around(next);
  };
  const around = ({ options, parent }: PlannedResource) =>
    [...options.dependsOn, ...(parent ? [parent] : [])].forEach(visit);
  around(resource);
  return found;
}

const inventory: Record<StackName, string[]> = {
  home: [
    "blog",
    "dns",
    "ingress",
    "isolation",
    "mastodon",
    "media",
    "monitoring",
    "operators",
    "postgres",
    "valkey",
    "verification",
    "webfinger",
  ],
  vps: [
    "blog",
    "dns",
    "ingress",
    "isolation",
    "mastodon",
    "media",
    "monitoring",
    "operators",
    "postgres",
    "valkey",
    "webfinger",
  ],
  dev: [
    "blog",
    "dns",
    "ingress",
    "isolation",
    "mastodon",
    "media",
    "monitoring",
    "object-store",
    "operators",
    "postgres",
    "valkey",
    "verification",
    "webfinger",
  ],
};

describe.each(stacks)("the whole program of %s", (stack) => {
  it("is made of the components of this stack", () => {
    const components = plannedStack(stack).resources.filter(({ kind, parent }) => kind === "component" && !parent);
    expect(
      components
        .map(({ name }) => name)
        .filter((name) => name !== "dns")
        .sort(),
    ).toEqual(inventory[stack].filter((name) => name !== "dns"));
  });

  it("points its providers at the stack's own context, and survives a moved kubeconfig", () => {
    const context = { home: "home", vps: "vps", dev: "k3d-homestead" }[stack];
    for (const { inputs } of plannedStack(stack).resources.filter(isProvider)) {
      expect(inputs).toMatchObject({ context, clusterIdentifier: stack });
    }
  });

  it("waits: operators before data, data before Mastodon, Mastodon before verification", () => {
    const plan = plannedStack(stack);
    expect(before(plan, named(plan, "postgres-cluster"))).toContain("operators-plugin-barman-cloud");
    if (stack !== "vps") {
      expect(before(plan, named(plan, "mastodon-release"))).toContain("postgres-cluster");
      expect(before(plan, named(plan, "mastodon-release"))).toContain("valkey-queue");
    }
    for (const { name } of ofType(plan, "Verification").flatMap((component) =>
      plan.resources.filter(({ parent, type }) => parent === component.urn && /Job$|Command$/.test(type)),
    )) {
      expect(before(plan, named(plan, name))).toContain("mastodon-release");
    }
  });

  it("stops in the other order on a standby: Valkey when Mastodon has ended, which waits for nothing that stops", () => {
    const plan = plannedStack(stack);
    for (const valkey of ["valkey-queue", "valkey-cache"]) {
      expect(before(plan, named(plan, valkey)).has("mastodon-release")).toBe(stack === "vps");
    }
    if (stack === "vps") expect(before(plan, named(plan, "mastodon-release"))).not.toContain("postgres-cluster");
  });

  it("prints nothing while it is evaluated", () => {
    expect(plannedStack(stack).messages).toBe("");
  });
});

// That a test finds what it looks for is asked of the example: a cold site without operators has not even a Job.
describe.each(stacks)("the whole program of this clone's %s", (stack) => {
  it("has every resource inside a component, providers apart", () => {
    const plan = ownStack(stack);
    const loose = plan.resources.filter(
      (resource) =>
        resource.kind !== "component" && !isProvider(resource) && parentOf(plan, resource)?.kind !== "component",
    );
    expect(loose.map(({ name }) => name)).toEqual([]);
  });

  it("gives components the type homestead:index:<Noun>, and children their component's name", () => {
    const plan = ownStack(stack);
    for (const resource of plan.resources) {
      if (resource.kind === "component") expect(resource.type).toMatch(/^homestead:index:[A-Z][A-Za-z]+$/);
      const parent = parentOf(plan, resource);
      if (parent) expect(`${resource.name}-`).toMatch(new RegExp(`^${parent.name}-`));
    }
  });

  it("makes nothing with a default provider, which would be whatever cluster kubectl points at", () => {
    const plan = ownStack(stack);
    const providers = new Set(plan.resources.filter(isProvider).map(({ urn }) => urn));
    const stray = plan.resources.filter(
      ({ type, provider }) => type.startsWith("kubernetes:") && !(provider !== undefined && providers.has(provider)),
    );
    expect(stray.map(({ name }) => name)).toEqual([]);
    expect(plannedStack(stack).resources.length).toBeGreaterThan(40);
  });

  it("names every object itself, so that others can refer to it", () => {
    const unnamed = ownStack(stack)
      .resources.filter(isObject)
      .filter(({ inputs }) => !at(inputs, "metadata.name"));
    expect(unnamed.map(({ name }) => name)).toEqual([]);
  });

  it("makes every Job anew that has failed: it would stay failed for ever", () => {
    const jobsOf = (plan: Plan) => ofType(plan, "kubernetes:batch/v1:Job");
    expect(jobsOf(plannedStack(stack)).length).toBeGreaterThan(0);
    const annotations = jobsOf(ownStack(stack)).map(({ name, inputs }) => [name, at(inputs, "metadata.annotations")]);
    for (const [, found] of annotations) expect(found).toMatchObject({ "pulumi.com/replaceUnready": "true" });
  });

  it("marks the values of every Secret as secret", () => {
    const secretsOf = (plan: Plan) =>
      ofType(plan, "kubernetes:core/v1:Secret").filter(({ kind }) => kind === "resource");
    expect(secretsOf(plannedStack(stack)).length).toBeGreaterThan(5);
    for (const { name, inputs, secretPaths } of secretsOf(ownStack(stack))) {
      for (const field of ["data", "stringData"].filter((key) => key in inputs)) {
        const marked =
          secretPaths.includes(field) ||
          Object.keys(inputs[field] ?? {}).every((key) => secretPaths.includes(`${field}.${key}`));
        expect([name, field, marked]).toEqual([name, field, true]);
      }
    }
  });

  it("looks a Secret up as one, so that its key is encrypted in the state", () => {
    const readsOf = (plan: Plan) => ofType(plan, "kubernetes:core/v1:Secret").filter(({ kind }) => kind === "read");
    expect(readsOf(plannedStack("dev")).map(({ name }) => name)).toEqual(["ingress-authority-secret"]);
    for (const { name, options } of readsOf(ownStack(stack))) {
      expect([name, options.additionalSecretOutputs]).toEqual([name, expect.arrayContaining(["data"])]);
    }
  });

  it("lets no secret out: not into another object, a release's values, a command line or the outputs", () => {
    const plan = ownStack(stack);
    expect(plan.resources.filter(({ leaks }) => leaks.length > 0).map(({ name, leaks }) => ({ name, leaks }))).toEqual(
      [],
    );
    expect(plan.leakedOutputs).toEqual([]);
    // Marked or not, a secret does not belong into what is not a Secret.
    const elsewhere = plan.resources
      .filter(({ type }) => /^kubernetes:/.test(type) && type !== "kubernetes:core/v1:Secret")
      .filter(({ secretPaths }) => secretPaths.length > 0);
    expect(elsewhere.map(({ name, secretPaths }) => ({ name, secretPaths }))).toEqual([]);
  });

  it("keeps what holds data when the stack is destroyed, and the Secrets without which it cannot be read", () => {
    const plan = ownStack(stack);
    const kept = plan.resources.filter(({ options }) => options.retainOnDelete).map(({ name }) => name);
    expect(kept).toEqual(
      expect.arrayContaining(["isolation-namespace", "postgres-cluster", "postgres-owner", "postgres-vault"]),
    );
    // What is kept must be taken over by the next update, not be an 'already exists'.
    const upserting = plan.resources
      .filter((r) => isProvider(r) && r.inputs.upsertExistingObjects === "true")
      .map(({ urn }) => urn);
    for (const resource of plan.resources.filter(({ options }) => options.retainOnDelete)) {
      expect([resource.name, upserting.includes(resource.provider ?? "")]).toEqual([resource.name, true]);
    }
  });

  it("keeps the volumes of its stateful sets", () => {
    for (const { name, inputs } of ofType(ownStack(stack), "kubernetes:apps/v1:StatefulSet")) {
      if (at(inputs, "spec.volumeClaimTemplates") === undefined) continue;
      const policy = at(inputs, "spec.persistentVolumeClaimRetentionPolicy.whenDeleted") ?? "Retain";
      expect([name, policy]).toEqual([name, "Retain"]);
    }
  });
});

describe("home and vps", () => {
  const outputs = (stack: StackName) => plannedStack(stack).outputs;
  const replicas = (stack: StackName) => {
    const { inputs } = named(plannedStack(stack), "mastodon-release");
    return [
      at(inputs, "values.mastodon.sidekiq.workers.0.replicas"),
      at(inputs, "values.mastodon.streaming.replicas"),
      at(inputs, "values.mastodon.web.replicas"),
    ];
  };

  it("are the same server to the world", () => {
    for (const key of ["handle", "web", "blog", "fingerprint"]) expect(outputs("vps")[key]).toBe(outputs("home")[key]);
    const hosts = (stack: StackName) =>
      ofType(plannedStack(stack), "kubernetes:traefik.io/v1alpha1:IngressRoute")
        .map(({ inputs }) => JSON.stringify(inputs.spec))
        .sort();
    expect(hosts("vps")).toEqual(hosts("home"));
    const certificates = (stack: StackName) =>
      at(named(plannedStack(stack), "ingress-certificate").inputs, "spec.dnsNames");
    expect(certificates("vps")).toEqual(certificates("home"));
    expect(certificates("home")).toEqual(["ramble.moe", "mastodon.ramble.moe"]);
  });

  it("say what the database is of, for who restores it where nothing runs any more: the active one", () => {
    const { mastodon, postgres } = images;
    expect(outputs("home")["images"]).toEqual({ mastodon, postgres });
    expect(outputs("vps")).not.toHaveProperty("images");
  });

  it("run Mastodon on the active site only", () => {
    expect(outputs("home").role).toBe("active");
    expect(replicas("home")).toEqual([1, 1, 1]);
    expect(outputs("vps").role).toBe("standby");
    expect(replicas("vps")).toEqual([0, 0, 0]);
  });

  it("run no hook of the chart against a read-only database", () => {
    const hooks = at(named(plannedStack("vps"), "mastodon-release").inputs, "values.mastodon.hooks");
    expect(Object.values(hooks as Record<string, { enabled: boolean }>).map(({ enabled }) => enabled)).toEqual(
      Object.keys(hooks ?? {}).map(() => false),
    );
    expect(plannedStack("vps").resources.some(({ name }) => name === "mastodon-owner-account")).toBe(false);
  });

  it("hold queues on the active site only: on a standby Valkey is the gate, and it is shut", () => {
    const queue = (stack: StackName) => at(named(plannedStack(stack), "valkey-queue").inputs, "spec.replicas");
    expect([queue("home"), queue("vps")]).toEqual([1, 0]);
  });

  it("read each other's archives under the same names", () => {
    const external = (stack: StackName) =>
      at(named(plannedStack(stack), "postgres-cluster").inputs, "spec.externalClusters");
    expect(external("vps")).toEqual(external("home"));
    const store = (stack: StackName) =>
      ofType(plannedStack(stack), /ObjectStore$/)
        .map(({ inputs }) => inputs)
        .filter((inputs) => inputs.kind === "ObjectStore");
    expect(store("vps")).toEqual(store("home"));
  });

  it("begin as the design says: the founder from nothing, the other from the active site's archive", () => {
    const bootstrap = (stack: StackName) => at(named(plannedStack(stack), "postgres-cluster").inputs, "spec.bootstrap");
    expect(Object.keys(bootstrap("home") ?? {})).toEqual(["initdb"]);
    expect(bootstrap("vps")).toMatchObject({ recovery: { source: "home" } });
  });
});

describe("a switch of the active site", () => {
  const dnsCommand = (text: string) =>
    text.replace("config:\n", 'config:\n  homestead:dns: {kind: command, command: "./set-record"}\n');
  const switched = (text: string) => text.replace("value: home\n  homestead:epoch", "value: vps\n  homestead:epoch");
  const edits = { "Pulumi.home.yaml": dnsCommand, "Pulumi.vps.yaml": dnsCommand };
  const dnsCommands = (plan: Plan) =>
    plan.resources.filter(({ type, name }) => shortType(type) === "command:Command" && name.startsWith("dns"));

  it("moves the DNS resources, which only the active site has, and turns the roles round", async () => {
    const folder = copyProject(edits);
    const folderAfter = copyProject({ ...edits, "Pulumi.yaml": switched });
    const [active, demoted, promoted] = await Promise.all([
      planStack("home", { folder }),
      planStack("home", { folder: folderAfter }),
      planStack("vps", { folder: folderAfter }),
    ]);
    const commands = dnsCommands(active);
    expect(commands.length).toBeGreaterThan(0);
    // DNS comes last, and is never taken away: the other site may have set it since.
    const verification = active.resources.find(
      ({ name, kind }) => name.startsWith("verification") && kind === "resource",
    );
    for (const command of commands) {
      expect(before(active, command)).toContain(verification?.name);
      expect(command.inputs.delete).toBeUndefined();
    }
    expect(dnsCommands(demoted)).toEqual([]);
    expect(dnsCommands(promoted).map(({ name }) => name)).toEqual(commands.map(({ name }) => name));
    expect([active, demoted, promoted].map(({ outputs }) => outputs.role)).toEqual(["active", "standby", "active"]);
    expect(promoted.outputs.handle).toBe(active.outputs.handle);
  });
});
