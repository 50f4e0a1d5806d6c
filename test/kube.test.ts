import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { ApiException } from "@kubernetes/client-node";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  ask,
  kubeClient,
  kubectl,
  kubeconfigName,
  kubeconfigPath,
  loadKubeconfig,
  statusOf,
  unaskable,
} from "../lib/kube";

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
    // As kubectl takes it.
    vi.stubEnv("KUBECONFIG", "");
    expect(kubeconfigName({ context: "home" })).toBe("~/.kube/config");
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

  it("is one command whatever the file is called, and the shell still finds the home folder", () => {
    const named = (kubeconfig: string) => kubectl({ context: "me@lab", kubeconfig });
    expect(named("~/my lab/config")).toBe("kubectl --kubeconfig ~/'my lab/config' --context me@lab");
    expect(named("/srv/it's/config")).toBe("kubectl --kubeconfig '/srv/it'\\''s/config' --context me@lab");
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

  it("says which cluster is missing that the context names", () => {
    const file = path.join(folder, "config");
    const contexts = [{ name: "home", context: { cluster: "gone", user: "u" } }];
    fs.writeFileSync(file, JSON.stringify({ clusters: [], users: [{ name: "u", user: {} }], contexts }));
    expect(() => kubeClient({ context: "home", kubeconfig: file })).toThrow(
      expect.objectContaining({
        key: "context",
        message: `kubeconfig ${file} has no cluster 'gone', which its context 'home' names`,
      }),
    );
  });

  it("says that the file is missing", () => {
    const file = path.join(folder, "none");
    expect(() => kubeClient({ context: "home", kubeconfig: file })).toThrow(`kubeconfig ${file} does not exist`);
  });

  it("does not choose among several files", () => {
    vi.stubEnv("KUBECONFIG", `/a${path.delimiter}/b`);
    expect(() => kubeClient({ context: "home" })).toThrow(
      "$KUBECONFIG names several files, and the stack does not say which one is its own",
    );
  });
});

describe("unaskable", () => {
  const said = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      return unaskable(error, "home");
    }
    return "nothing";
  };
  const set = (key: string) => `pulumi config set --path homestead:cluster.${key} --stack home`;

  it("says what mends it where this machine lacks the stack's file or context", () => {
    const file = path.join(folder, "config");
    expect(said(() => kubeClient({ context: "home", kubeconfig: file }))).toBe(
      `kubeconfig ${file} does not exist: put the file there, or: ${set("kubeconfig <file>")}`,
    );
    fs.writeFileSync(file, "{");
    expect(said(() => loadKubeconfig(file))).toMatch(
      new RegExp(`^kubeconfig ${file} cannot be read: .+: repair the file, or: ${set("kubeconfig <file>")}$`),
    );
    fs.writeFileSync(file, "{}");
    expect(said(() => kubeClient({ context: "home", kubeconfig: file }))).toBe(
      `kubeconfig ${file} has no context 'home'; it has none: ${set("context <context>")}`,
    );
    vi.stubEnv("KUBECONFIG", `/a${path.delimiter}/b`);
    expect(said(() => kubeClient({ context: "home" }))).toBe(
      `$KUBECONFIG names several files, and the stack does not say which one is its own: ${set("kubeconfig <file>")}`,
    );
  });

  it("is anything else in one line", () => {
    expect(unaskable(new Error("no answer within 20 s\nand more"), "home")).toBe("no answer within 20 s");
  });
});

describe("ask", () => {
  const messageOf = (work: Promise<unknown>): Promise<string> =>
    work.then(
      (value) => `answered ${String(value)}`,
      (error: unknown) => (error as Error).message,
    );
  const said = (status: number, body: unknown) =>
    ask("list nodes", Promise.reject(new ApiException(status, "Unknown API Status Code!", body, {})));

  it("tells what was asked, and what the API server says of it, in one line", async () => {
    const message = 'nodes is forbidden: User "guest" cannot list resource "nodes"';
    const forbidden = said(403, JSON.stringify({ kind: "Status", message }));
    expect(await messageOf(forbidden)).toBe(`list nodes: 403, ${message}`);
    const failed = said(500, JSON.stringify({ message: "boom\nat etcd" }));
    expect(await messageOf(failed)).toBe("list nodes: 500, boom");
  });

  it.each([
    [401, undefined, "401, Unauthorized"],
    [502, "<html>Bad Gateway</html>", "502, Bad Gateway"],
    [503, '{"kind":"Status"}', "503, Service Unavailable"],
    [599, "null", "599, without a word"],
  ])("has words of its own for an answer without any: %s, %j", async (status, body, says) => {
    expect(await messageOf(said(status, body))).toBe(`list nodes: ${says}`);
  });

  it("waits no longer than it is told, and tells why no answer came", async () => {
    const never = ask("list nodes", new Promise(() => undefined), 0.01);
    expect(await messageOf(never)).toBe("list nodes: no answer within 0.01 s");
    const refused = new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") });
    expect(await messageOf(ask("list nodes", Promise.reject(refused)))).toBe("list nodes: connect ECONNREFUSED");
    expect(await messageOf(ask("list nodes", Promise.resolve(3)))).toBe("answered 3");
  });

  it("keeps the status, by which what is missing is told from what is not said", async () => {
    expect(statusOf(await said(404, "{}").catch((error: unknown) => error))).toBe(404);
    expect(statusOf(await ask("x", Promise.reject(new Error("y"))).catch((error: unknown) => error))).toBeUndefined();
  });
});
