import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { stoppable } from "../lib/interrupt";
import { projectFolder } from "../lib/plan";

describe("Ctrl-C", () => {
  // Other files' modules listen to it as well, and test files share a process.
  beforeEach(() => void process.removeAllListeners("SIGINT"));

  /** Work that cleans up for a while once it is interrupted. */
  const work = (clean: () => void) =>
    stoppable(async (signal) => {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      await sleep(20);
      clean();
    });

  it("lets the work clean up, also where it comes twice at once: npx hands on what the terminal has sent already", async () => {
    const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    const said = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const clean = vi.fn();
    const working = work(clean);
    process.emit("SIGINT");
    process.emit("SIGINT");
    await working;
    expect(clean).toHaveBeenCalledOnce();
    expect(exit).not.toHaveBeenCalled();
    expect(said.mock.calls).toEqual([["interrupted; once more ends it without cleaning up"]]);
    vi.restoreAllMocks();
  });

  it("ends the program when it comes again later", async () => {
    const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    vi.spyOn(console, "error").mockImplementation(() => undefined);
    const now = vi.spyOn(performance, "now").mockReturnValue(0);
    const working = work(() => undefined);
    process.emit("SIGINT");
    now.mockReturnValue(5000);
    process.emit("SIGINT");
    await working;
    expect(exit).toHaveBeenCalledWith(130);
    vi.restoreAllMocks();
  });
});

describe("a line that drops", () => {
  beforeEach(() => void ["SIGINT", "SIGHUP"].forEach((signal) => process.removeAllListeners(signal)));

  it("tells the work to end like Ctrl-C, and never ends the program: nobody hangs up on purpose", async () => {
    const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    vi.spyOn(console, "error").mockImplementation(() => undefined);
    const now = vi.spyOn(performance, "now").mockReturnValue(0);
    const working = stoppable((signal) => {
      process.emit("SIGHUP", "SIGHUP");
      now.mockReturnValue(5000);
      process.emit("SIGHUP", "SIGHUP");
      return Promise.resolve(signal.aborted);
    });
    expect([await working, exit.mock.calls]).toEqual([true, []]);
    expect(process.listeners("SIGHUP")).toEqual([]);
    vi.restoreAllMocks();
  });

  it("takes away whom the work speaks to, and does not break it", async () => {
    const script = `
      const { stoppable } = require("./lib/interrupt");
      stoppable(async (signal) => {
        process.stdout.write("at work");
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        for (let line = 0; line < 3; line++) {
          process.stdout.write("an update's words");
          process.stderr.write("its warnings");
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        process.exitCode = 7;
        clearTimeout(connection);
      });
      // Work waits for something that holds the program, too.
      const connection = setTimeout(() => undefined, 20_000);
    `;
    const child = spawn(process.execPath, ["--require", "./cli/typescript.cjs", "-e", script], { cwd: projectFolder });
    child.stdout.once("data", () => {
      child.stdout.destroy();
      child.stderr.destroy();
      child.kill("SIGHUP");
    });
    expect(await new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)))).toBe(7);
  });
});
