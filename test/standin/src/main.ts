/**
 * The stand-in for the official Mastodon images. `node main.mjs PROGRAM ARGS…`, where PROGRAM is what the image has on its PATH: `bundle`,
 * `rails`, `rake`, `tootctl`, `streaming`, `prometheus_exporter`.
 */
import { App } from "./app.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { BUILD, ROOT } from "./build-info.ts";
import { type Command, UsageError, parseCommand } from "./commands.ts";
import { runExporter } from "./exporter.ts";
import { unknownVariables } from "./known-env.ts";
import { Abort, explain, log, setLevel } from "./log.ts";
import { guardOutgoing } from "./outgoing.ts";
import { printTask, runTask } from "./rake.ts";
import { type Script, identify, runScript } from "./scripts.ts";
import { logLevel, readSettings, readStreamingSettings } from "./settings.ts";
import { onStop } from "./signals.ts";
import { runSidekiq } from "./sidekiq.ts";
import { runStreaming } from "./streaming.ts";
import { runTootctl } from "./tootctl.ts";
import { runWeb } from "./web.ts";

function refuseUnknown(env: NodeJS.ProcessEnv, script: Script | undefined): void {
  const unknown = unknownVariables(env, script?.variables);
  if (unknown.length > 0)
    throw new Abort(
      `Mastodon knows no environment variable named ${unknown.join(", ")}. The stand-in refuses what the real image would ignore.`,
    );
}

async function withApp(env: NodeJS.ProcessEnv, body: (app: App) => Promise<number>): Promise<number> {
  const app = new App(readSettings(env, ROOT));
  try {
    return await body(app);
  } finally {
    await app.close();
  }
}

async function web(env: NodeJS.ProcessEnv): Promise<void> {
  const app = new App(readSettings(env, ROOT));
  guardOutgoing(app.settings.allowedPrivateAddresses);
  const server = await runWeb(app);
  onStop(() => {
    log.info("Puma stand-in: stopping; requests under way may finish");
    server.close(() => void app.close().then(() => process.exit(0)));
    // A kept-alive connection without a request would hold the server open for ever.
    if ("closeIdleConnections" in server) server.closeIdleConnections();
  });
}

/** The exit code, or undefined for a process that serves until it is told to stop. */
async function run(command: Command, env: NodeJS.ProcessEnv): Promise<number | undefined> {
  const script = command.kind === "runner" ? identify(command.file) : undefined;
  refuseUnknown(env, script);
  setLevel(command.kind === "streaming" ? logLevel(env, "LOG_LEVEL") : logLevel(env, "RAILS_LOG_LEVEL"));
  // The streaming server and the exporter are no Rails programs.
  if (command.kind !== "streaming" && command.kind !== "exporter") await sleep(BUILD.bootSeconds * 1000);
  switch (command.kind) {
    case "web":
      await web(env);
      return undefined;
    case "sidekiq":
      // As many database connections as jobs at once, unless told otherwise: Mastodon's own default.
      return runSidekiq(
        new App(readSettings({ ...env, DB_POOL: env.DB_POOL ?? String(command.concurrency) }, ROOT)),
        command,
      );
    case "streaming":
      await runStreaming(readStreamingSettings(env));
      return undefined;
    case "exporter":
      await runExporter(command.bind, command.port);
      onStop(() => process.exit(0));
      return undefined;
    case "rake":
      for (const task of command.tasks) {
        const text = printTask(task);
        if (text === undefined) await runTask(readSettings(env, ROOT), task);
        else process.stdout.write(`${text}\n`);
      }
      return 0;
    case "runner":
      return withApp(env, (app) => runScript(app, script ?? identify(command.file), env));
    case "tootctl":
      return withApp(env, async (app) => {
        await runTootctl(app, command.command);
        return 0;
      });
  }
}

const [program = "", ...args] = process.argv.slice(2);
try {
  const code = await run(parseCommand(program, args, process.env), process.env);
  if (code !== undefined) process.exitCode = code;
} catch (error) {
  // What is the caller's fault is told in words; anything else with where it came from.
  if (error instanceof Abort || error instanceof UsageError) process.stderr.write(`${error.message}\n`);
  else log.fatal(error instanceof Error ? `${error.name}: ${explain(error)}\n${error.stack ?? ""}` : String(error));
  process.exit(1);
}
