/** The gate itself (components/valkey-gate.sh) under /bin/sh, with a real server, and against its rules in TypeScript. */
import { execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import * as fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { formatMark, gateVerdict } from "../lib/lease/gate";
import type { Mark } from "../lib/lease/gate";
import { projectFolder } from "../lib/plan";
import { temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";

const script = path.join(projectFolder, "components", "valkey-gate.sh");

/** The first of some programs that this machine has. */
const program = (...names: string[]): string | undefined =>
  (process.env["PATH"] ?? "")
    .split(path.delimiter)
    .flatMap((folder) => names.map((name) => path.join(folder, name)))
    .find((file) => fs.existsSync(file));

// Redis 7.0 and every Valkey know the same commands.
const server = program("valkey-server", "redis-server");
const client = program("valkey-cli", "redis-cli");
const real = server !== undefined && client !== undefined;
if (!real) console.warn("lease-gate.test.ts: no valkey-server or redis-server here, so the gate is not run for real");

/** Looks until it is so: a slow machine takes longer. */
async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await look())) {
    if (Date.now() > end) throw new Error(`not within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const freePort = () =>
  new Promise<number>((resolve) => {
    const listener = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = listener.address() as net.AddressInfo;
      listener.close(() => resolve(port));
    });
  });

/** One connection: each line it sends is answered, or, while writes are paused, is not. */
function connect(port: number) {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  onTestFinished(() => void socket.destroy());
  const waiting: ((answer: string) => void)[] = [];
  let unread = "";
  socket.on("data", (data: Buffer) => {
    unread += data.toString();
    // One line, or `$`, a length, and as many bytes.
    for (let reply; (reply = /^(?:[+:-].*\r\n|\$-1\r\n|\$(\d+)\r\n)/.exec(unread));) {
      const length = reply[0].length + (reply[1] === undefined ? 0 : Number(reply[1]) + 2);
      if (unread.length < length) return;
      waiting.shift()?.(unread.slice(0, length).trim());
      unread = unread.slice(length);
    }
  });
  const ask = (line: string) =>
    new Promise<string>((resolve) => {
      waiting.push(resolve);
      socket.write(`${line}\r\n`);
    });
  void ask("AUTH geheim");
  return ask;
}

interface Gate {
  folder: string;
  port: number;
  /** Id of the shell's process. */
  pid: number;
  said: () => string;
  /** The exit code, once it has ended. */
  ended: Promise<number | null>;
  mark: (mark: Mark | string) => void;
  /** Sets what stands for /proc/uptime. */
  uptime: (seconds: number) => void;
  exists: (file: string) => boolean;
}

/**
 * The gate at uptime 1000, with no mark, in a folder of its own.
 *
 * @param programs text of the programs that stand in for the real ones
 */
async function startGate(
  environment: Record<string, string> = {},
  programs: Partial<Record<"valkey-server" | "valkey-cli", string>> = {},
): Promise<Gate> {
  const folder = temporaryFolder();
  const port = await freePort();
  const write = (file: string, text: string, mode = 0o644) => {
    fs.writeFileSync(path.join(folder, `${file}.new`), text, { mode });
    fs.renameSync(path.join(folder, `${file}.new`), path.join(folder, file));
  };
  for (const [name, target] of [
    ["valkey-server", server],
    ["valkey-cli", client],
  ] as const) {
    const text = programs[name];
    if (text === undefined) fs.symlinkSync(target ?? "", path.join(folder, name));
    else write(name, `#!/bin/sh\n${text}\n`, 0o755);
  }
  const uptime = (seconds: number) => write("uptime", `${seconds.toFixed(2)} 1.00\n`);
  uptime(1000);
  write("password.conf", "requirepass geheim\n");
  write(
    "valkey.conf",
    `port ${port}\nbind 127.0.0.1\ndir ${folder}\nsave 60 1\nappendonly no\ninclude ${folder}/password.conf\n`,
  );
  const child = spawn("/bin/sh", [script], {
    // A group of its own, so that nothing of it stays behind.
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: `${folder}:${process.env["PATH"] ?? ""}`,
      GATE: folder,
      UPTIME: path.join(folder, "uptime"),
      CONFIGURATION: path.join(folder, "valkey.conf"),
      PASSWORD: path.join(folder, "password.conf"),
      PORT: String(port),
      TICK: "0.1",
      PATIENCE: "3",
      ...environment,
    },
  });
  let said = "";
  child.stdout.on("data", (data: Buffer) => (said += data.toString()));
  child.stderr.on("data", (data: Buffer) => (said += data.toString()));
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const pid = child.pid ?? 0;
  onTestFinished(() => {
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // It has ended, and all that it began.
    }
  });
  return {
    folder,
    port,
    pid,
    ended,
    said: () => said,
    mark: (mark) => write("mark", typeof mark === "string" ? mark : formatMark(mark)),
    uptime,
    exists: (file) => fs.existsSync(path.join(folder, file)),
  };
}

const ours: Mark = { word: "ours", since: 1000, grace: 60 };

/** Whether somebody listens. */
const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => resolve(true));
    socket.on("error", () => resolve(false)).on("connect", () => socket.destroy());
  });

/** A connection, once there is somebody to connect to. */
async function connection(port: number) {
  await until("Valkey listens", () => listens(port));
  return connect(port);
}

/** A gate that has opened, and a connection to the Valkey behind it. */
async function openGate(...how: Parameters<typeof startGate>) {
  const gate = await startGate(...how);
  gate.mark(ours);
  return { gate, ask: await connection(gate.port) };
}

/** How many clients wait, which is what a paused write does. */
const blocked = async (ask: (line: string) => Promise<string>) =>
  Number(/blocked_clients:(\d+)/.exec(await ask("INFO clients"))?.[1]);

describe.skipIf(leftOut(real ? undefined : "no valkey-server or redis-server"))("the gate, with a real server", () => {
  it("waits while there is no mark, a stale one or one of another boot, and opens on a fresh one", async () => {
    const gate = await startGate();
    await until("it says that it waits", () => gate.said() === "gate: unverified: Valkey waits\n");
    for (const since of [940, 1001]) {
      gate.mark({ ...ours, since });
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    gate.mark({ word: "others" });
    await until("it says why", () => gate.said().endsWith("gate: closed: Valkey waits\n"));
    expect(gate.said()).not.toContain("Valkey starts");
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("gate: open: Valkey starts\n"));
    const ask = await connection(gate.port);
    await until("Valkey answers", async () => (await ask("PING")) === "+PONG");
    expect(gate.exists("ended")).toBe(false);
  });

  it("lets writes wait while the mark is stale, answers reads, and lets them through when it is fresh again", async () => {
    const { gate, ask } = await openGate();
    expect(await ask("SET before 1")).toBe("+OK");
    gate.uptime(1060);
    await until("it says so", () => gate.said().includes("gate: unverified: writes are paused\n"));
    let answer = "none";
    const writing = connect(gate.port)("SET during 1").then((text) => (answer = text));
    await until("the write waits", async () => (await blocked(ask)) === 1);
    expect([answer, await ask("GET before"), await blocked(ask)]).toEqual(["none", "$1\r\n1", 1]);
    gate.mark({ ...ours, since: 1055 });
    await until("it says so", () => gate.said().includes("gate: open: writes go on\n"));
    await writing;
    expect([answer, await ask("GET during")]).toEqual(["+OK", "$1\r\n1"]);
  });

  it("pauses also when the mark cannot be understood", async () => {
    const { gate } = await openGate();
    gate.mark("ours NaN 60\n");
    await until("it says so", () => gate.said().includes("gate: unverified: writes are paused\n"));
  });

  it("stops Valkey when the lease is another site's: snapshot written, and not ended well, so that it waits anew", async () => {
    const { gate, ask } = await openGate();
    expect(await ask("SET queue 1")).toBe("+OK");
    gate.mark({ word: "others" });
    expect(await gate.ended).toBe(1);
    expect(gate.said()).toContain("gate: closed: Valkey stops\n");
    expect(gate.said()).toContain("gate: Valkey ended with 0\n");
    expect(fs.readFileSync(path.join(gate.folder, "dump.rdb")).includes("queue")).toBe(true);
    expect(gate.exists("ended")).toBe(true);
  });

  it("kills a Valkey that cannot be paused", async () => {
    const { gate } = await openGate({}, { "valkey-cli": "exit 1" });
    gate.uptime(2000);
    expect(await gate.ended).toBe(137);
    expect(gate.said()).toContain("gate: unverified, and Valkey does not pause: killed\n");
    expect(gate.exists("ended")).toBe(true);
  });

  it("ends with Valkey, and not well, so that the kubelet starts it again", async () => {
    const { gate, ask } = await openGate();
    const [, id] = /process_id:(\d+)/.exec(await ask("INFO server")) ?? [];
    process.kill(Number(id), "SIGKILL");
    expect(await gate.ended).toBe(137);
    expect(gate.said()).toContain("gate: Valkey ended with 137\n");
  });

  it("ends well with its pod: snapshot written, and said to the keeper", async () => {
    const { gate, ask } = await openGate();
    expect(await ask("SET queue 1")).toBe("+OK");
    process.kill(gate.pid, "SIGTERM");
    expect(await gate.ended).toBe(0);
    expect(fs.readFileSync(path.join(gate.folder, "dump.rdb")).includes("queue")).toBe(true);
    expect(gate.exists("ended")).toBe(true);
  });

  it("shows the password to nobody on the node", async () => {
    const { gate } = await openGate();
    const group = fs
      .readdirSync("/proc")
      .filter((id) => /^\d+$/.test(id))
      .flatMap((id) => {
        try {
          const fields = fs
            .readFileSync(`/proc/${id}/stat`, "utf8")
            .replace(/^.*\) /, "")
            .split(" ");
          return fields[2] === String(gate.pid) ? [fs.readFileSync(`/proc/${id}/cmdline`, "utf8")] : [];
        } catch {
          return [];
        }
      });
    expect(group.some((line) => line.includes("valkey-server"))).toBe(true);
    expect(group.join()).not.toContain("geheim");
  });
});

// These need no server: a program that does nothing, or that does not stop, stands in for it.
const idle = "exec sleep 60";
const stubborn = 'trap "echo stop" TERM; while :; do sleep 0.05; done';
const noClient = "echo no; exit 1";

describe("the gate's own end", () => {
  it("is a good one while it still waits", async () => {
    const gate = await startGate({}, { "valkey-server": idle, "valkey-cli": noClient });
    await until("it waits", () => gate.said().includes("Valkey waits"));
    process.kill(gate.pid, "SIGTERM");
    expect(await gate.ended).toBe(0);
    expect(gate.exists("ended")).toBe(true);
  });

  it("starts no Valkey when the mark comes at the same moment", async () => {
    const gate = await startGate({ TICK: "5" }, { "valkey-server": idle, "valkey-cli": noClient });
    await until("it waits", () => gate.said().includes("Valkey waits"));
    gate.mark(ours);
    process.kill(gate.pid, "SIGTERM");
    expect(await gate.ended).toBe(0);
    expect(gate.said()).not.toContain("Valkey starts");
    expect(gate.exists("ended")).toBe(true);
  });

  it("takes what an earlier run left for nothing", async () => {
    const gate = await startGate({}, { "valkey-server": idle, "valkey-cli": noClient });
    fs.writeFileSync(path.join(gate.folder, "ended"), "");
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("Valkey starts"));
  });
});

describe("a Valkey that does not stop", () => {
  const tries = (said: string) => said.split("\n").filter((line) => line === "stop" || line === "no").length;
  // The stand-in's words go where the gate's go; the client's are thrown away, so it counts in a file.
  const counting = 'echo no >> "$GATE/tries"; exit 1';
  const hanging = { "valkey-server": stubborn, "valkey-cli": counting };

  it("is killed when the lease is another site's", async () => {
    const gate = await startGate({}, hanging);
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("Valkey starts"));
    gate.mark({ word: "others" });
    expect(await gate.ended).toBe(137);
    expect(tries(gate.said())).toBeLessThanOrEqual(6);
  });

  it("is not given twice the time when the mark goes stale first", async () => {
    const gate = await startGate({ TICK: "0.2", PATIENCE: "5" }, hanging);
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("Valkey starts"));
    gate.uptime(2000);
    await until("it tries to pause", () => gate.exists("tries"));
    gate.mark({ word: "others" });
    expect(await gate.ended).toBe(137);
    const paused = fs.readFileSync(path.join(gate.folder, "tries"), "utf8").trim().split("\n").length;
    expect(paused + tries(gate.said())).toBeLessThanOrEqual(10);
  });

  it("is told to pause for longer than the gate could be held up, and again at every tick", async () => {
    const gate = await startGate({}, { "valkey-server": idle, "valkey-cli": 'echo "$*" >> "$GATE/asked"; echo OK' });
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("Valkey starts"));
    gate.uptime(2000);
    const asked = () => (gate.exists("asked") ? fs.readFileSync(path.join(gate.folder, "asked"), "utf8") : "");
    const pause = `-p ${gate.port} CLIENT PAUSE 86400000 WRITE\n`;
    await until("it pauses, and again", () => asked().startsWith(pause.repeat(2)));
  });

  it("is killed in the end of its pod too, when nobody says any more that it may write", async () => {
    const gate = await startGate({}, hanging);
    gate.mark(ours);
    await until("it opens", () => gate.said().includes("Valkey starts"));
    process.kill(gate.pid, "SIGTERM");
    await until("it is told to stop", () => gate.said().includes("stop"));
    gate.uptime(2000);
    expect(await gate.ended).toBe(0);
    expect(gate.said()).toContain("gate: unverified, and Valkey does not pause: killed\n");
  });
});

describe("the gate's verdict", () => {
  /** What the shell says of each: one shell for all, its own function. */
  function shellVerdicts(cases: (readonly [text: string | undefined, uptime: number])[]): string[] {
    const folder = temporaryFolder();
    const [verdict] = /^verdict\(\) \{[^]*?^\}$/m.exec(fs.readFileSync(script, "utf8")) ?? [];
    if (verdict === undefined) throw new Error("valkey-gate.sh has no function 'verdict'");
    cases.forEach(([text, uptime], index) => {
      if (text !== undefined) fs.writeFileSync(path.join(folder, `${index}.mark`), text);
      fs.writeFileSync(path.join(folder, `${index}.uptime`), `${uptime.toFixed(2)} 1.00\n`);
    });
    const loop = `set -u\n${verdict}\ni=0\nwhile [ "$i" -lt ${cases.length} ]; do mark=$i.mark; uptime=$i.uptime; echo "$(verdict)"; i=$((i + 1)); done`;
    const said = execFileSync("/bin/sh", ["-c", loop], { cwd: folder, encoding: "utf8", stdio: "pipe" });
    return said.trimEnd().split("\n");
  }

  it.each<[string | undefined, number, string]>([
    [undefined, 5, "unverified"],
    ["", 5, "unverified"],
    ["others\n", 5, "closed"],
    ["others", 5, "closed"],
    ["ours 100 60\n", 100, "open"],
    ["ours 100 60", 100, "open"],
    ["ours 100 60\n", 159.99, "open"],
    ["ours 100 60\n", 160, "unverified"],
    // A later boot.
    ["ours 100 60\n", 99.9, "unverified"],
    ["ours 0 60\n", 0.4, "open"],
    ["ours 100\n", 100, "unverified"],
    ["ours\n", 100, "unverified"],
    ["ours NaN 60\n", 100, "unverified"],
    ["ours 100 soon\n", 100, "unverified"],
    ["ours -5 60\n", 1, "unverified"],
    ["ours 1e2 60\n", 100, "unverified"],
    ["ours 100 60 60\n", 100, "unverified"],
    ["OURS 100 60\n", 100, "unverified"],
    ["\nothers\n", 100, "unverified"],
  ])("of %j at uptime %d is %s, in both languages", (text, uptime, expected) => {
    expect([gateVerdict(text, uptime), ...shellVerdicts([[text, uptime]])]).toEqual([expected, expected]);
  });

  it("is the same in both languages for whatever a keeper writes, and for what it does not", () => {
    const marks = fc.oneof(
      fc
        .record({
          word: fc.constant("ours" as const),
          since: fc.double({ min: 0, max: 3e6, noNaN: true }),
          grace: fc.integer({ min: 1, max: 9999 }),
        })
        .map(formatMark),
      fc.constantFrom(
        "others\n",
        "",
        "ours",
        "ours 5",
        "ours x 60\n",
        "ours 5 x\n",

        "ours 5 60 7\n",
      ),
    );
    const about = fc
      .tuple(marks, fc.double({ min: -5, max: 10_100, noNaN: true }), fc.boolean())
      .map(([text, offset, near]) => {
        const uptime = Math.max(0, (near ? Number(text.split(" ")[1]) || 0 : 0) + offset);
        // In hundredths, as the kernel tells it: rounded for the shell alone it could be another second there.
        return [text, Math.floor(uptime * 100) / 100] as const;
      });
    const cases = fc.sample(about, 500);
    expect(shellVerdicts(cases)).toEqual(cases.map(([text, uptime]) => gateVerdict(text, uptime)));
  });
});
