import { describe, expect, it } from "vitest";
import { isObject } from "../../lib/plan/render";
import { ownStack } from "../support/own";
import { plannedStack, stacks } from "../support/planned";
import { faultsOf } from "../support/schemas";

describe.each(stacks)("every object of %s", (stack) => {
  it("is what the cluster's API accepts", async () => {
    const objects = ownStack(stack).resources.filter(isObject);
    expect(plannedStack(stack).resources.filter(isObject).length).toBeGreaterThan(30);
    const faults = await Promise.all(
      objects.map(async ({ name, inputs }) => (await faultsOf(inputs)).map((fault) => `${name}: ${fault}`)),
    );
    expect(faults.flat()).toEqual([]);
  });
});

describe("the schemas", () => {
  const deployment = (container: Record<string, unknown>, spec: Record<string, unknown> = {}) => ({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "a", labels: { any: "label" } },
    spec: {
      selector: { matchLabels: { app: "a" } },
      template: { metadata: { labels: { app: "a" } }, spec: { containers: [{ name: "a", image: "b", ...container }] } },
      ...spec,
    },
  });

  it("accept a good object", async () => {
    expect(await faultsOf(deployment({ ports: [{ containerPort: 80 }] }) as never)).toEqual([]);
  });

  it("refuse an unknown field, however deep", async () => {
    expect(await faultsOf(deployment({ livenesProbe: {} }) as never)).toEqual([
      "/spec/template/spec/containers/0/livenesProbe is no field of the schema",
    ]);
  });

  it("refuse a wrong type and a missing field", async () => {
    expect((await faultsOf(deployment({}, { replicas: "1" }) as never)).join()).toMatch(/replicas/);
    expect((await faultsOf(deployment({}, { selector: undefined }) as never)).join()).toMatch(/selector/);
  });

  it("refuse a misspelt field of a custom resource", async () => {
    const route = { match: "Host(`a.b`)", kind: "Rule", servces: [] };
    const object = {
      apiVersion: "traefik.io/v1alpha1",
      kind: "IngressRoute",
      metadata: { name: "a" },
      spec: { entryPoints: ["web"], routes: [route] },
    };
    expect(await faultsOf(object as never)).toEqual(["/spec/routes/0/servces is no field of the schema"]);
    const backup = {
      apiVersion: "postgresql.cnpg.io/v1",
      kind: "ScheduledBackup",
      metadata: { name: "a", namespace: "b" },
    };
    const spec = { schedule: "0 3 * * *", cluster: { name: "a" }, method: "plugin" };
    expect((await faultsOf({ ...backup, spec })).join()).toMatch(/schedule/);
  });

  it("refuse a kind that they do not have", async () => {
    expect(await faultsOf({ apiVersion: "v1", kind: "Sercet" })).toEqual([
      "no schema for v1 Sercet: name its package in test/support/schemas.ts",
    ]);
  });
});
