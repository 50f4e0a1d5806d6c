import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { projectFolder } from "../lib/plan";

/** Ends when it is told to, a moment later, and says so. */
const program = `
  process.on("SIGTERM", () => setTimeout(() => { console.log("stopped"); process.exit(); }, 300));
  setInterval(() => undefined, 1000);
  console.log("at work");
`;

test("a program is waited for also after one that could not be started", async () => {
  const script = `
    const { interruptible, runToEnd } = require("./lib/child");
    process.on("exit", () => console.log("left"));
    interruptible("go on", async () => {
      await runToEnd("/nowhere/program", [], {}).catch(({ code }) => console.log(code));
      await runToEnd(process.execPath, ["-e", ${JSON.stringify(program)}], {});
    }).catch(({ exitCode }) => (process.exitCode = exitCode));
  `;
  const child = spawn(process.execPath, ["--require", "./cli/typescript.cjs", "-e", script], { cwd: projectFolder });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
    if (said.endsWith("at work\n")) child.kill("SIGTERM");
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect([said, code]).toEqual(["ENOENT\nat work\nstopped\nleft\n", 143]);
});
