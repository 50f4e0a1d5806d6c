import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { kubeClient, kubectl, kubeconfigName, kubeconfigPath } from "../lib/kube";

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "kube-"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  fs.rmSync(folder, { recursive: true });
});

describe("kubeconfigName", () => {
  it("goes into the state as it was named, since the next machine has another home folder", () => {
    vi.stubEnv("KUBECONFIG", undefined);
    expect(kubeconfigName({ context: "home" })).toBe("~/.kube/config");
    expect(kubeconfigPath({ context: "home" })).toBe(path.join(os.homedir(), ".kube", "config"));
  });

  it("is the stack's own before $KUBECONFIG", () => {
    vi.stubEnv("KUBECONFIG", "/env/config");
    expect(kubeconfigName({ context: "home" })).toBe("/env/config");
    expect(kubeconfigName({ context: "home", kubeconfig: "/own/config" })).toBe("/own/config");
  });
});

describe("kubectl", () => {
  it("names the stack's own kubeconfig, which may not be the shell's", () => {
    expect(kubectl({ context: "home" })).toBe("kubectl --context home");
    expect(kubectl({ context: "home", kubeconfig: "~/lab/config" })).toBe(
      "kubectl --kubeconfig ~/lab/config --context home",
    );
  });
});

describe("kubeClient", () => {
  it("says which contexts there are when the stack's is not among them", () => {
    const file = path.join(folder, "config");
    fs.writeFileSync(
      file,
      JSON.stringify({
        clusters: [{ name: "c", cluster: { server: "https://127.0.0.1:6443" } }],
        users: [{ name: "u", user: {} }],
        contexts: [{ name: "vps", context: { cluster: "c", user: "u" } }],
      }),
    );
    expect(() => kubeClient({ context: "home", kubeconfig: file })).toThrow(
      `kubeconfig ${file} has no context 'home'; it has vps`,
    );
    expect(kubeClient({ context: "vps", kubeconfig: file }).getCurrentContext()).toBe("vps");
  });

  it("says that the file is missing", () => {
    const file = path.join(folder, "none");
    expect(() => kubeClient({ context: "home", kubeconfig: file })).toThrow(`kubeconfig ${file} does not exist`);
  });

  it("does not choose among several files", () => {
    vi.stubEnv("KUBECONFIG", `/a${path.delimiter}/b`);
    expect(() => kubeClient({ context: "home" })).toThrow(
      "$KUBECONFIG names several files: say in homestead:cluster.kubeconfig which one is this stack's",
    );
  });
});
