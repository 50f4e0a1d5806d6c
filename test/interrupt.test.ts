import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { stoppable } from "../lib/interrupt";

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
