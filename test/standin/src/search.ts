/** `tootctl search deploy`: makes Mastodon's indices in Elasticsearch and puts the posts there. Nothing reads them back. */
import { readFileSync } from "node:fs";
import { Agent, request } from "undici";
import type { App } from "./app.ts";
import type { TootctlCommand } from "./commands.ts";
import { Abort, explain } from "./log.ts";
import type { SearchSettings } from "./settings.ts";

const INDICES = ["instances", "accounts", "tags", "public_statuses", "statuses"] as const;

async function ask(
  settings: SearchSettings,
  dispatcher: Agent,
  method: "GET" | "PUT" | "POST",
  path: string,
  body = "",
): Promise<number> {
  const headers: Record<string, string> = {
    "content-type": path.endsWith("_bulk") ? "application/x-ndjson" : "application/json",
  };
  if (settings.user !== "")
    headers.authorization = `Basic ${Buffer.from(`${settings.user}:${settings.password}`).toString("base64")}`;
  const response = await request(new URL(path, settings.url), {
    method,
    headers,
    dispatcher,
    ...(body === "" ? {} : { body }),
  });
  const text = await response.body.text();
  const exists = response.statusCode === 400 && text.includes("resource_already_exists_exception");
  if (response.statusCode >= 300 && !exists)
    throw new Error(`${method} ${path} was answered with ${response.statusCode}: ${text.slice(0, 300)}`);
  return response.statusCode;
}

export async function deploySearch(
  app: App,
  command: Extract<TootctlCommand, { name: "search deploy" }>,
  say: (text: string) => void,
): Promise<void> {
  const settings = app.settings.search;
  if (settings === undefined) throw new Abort('Elasticsearch is not enabled: ES_ENABLED is not "true".');
  const caFile = process.env.ES_CA_FILE;
  const dispatcher = new Agent({
    connect: { timeout: 5_000, ...(caFile === undefined || caFile === "" ? {} : { ca: readFileSync(caFile) }) },
    headersTimeout: 30_000,
  });
  let indexed = 0;
  try {
    await ask(settings, dispatcher, "GET", "/");
    for (const index of INDICES) {
      if (command.only.length > 0 && !command.only.includes(index)) continue;
      await ask(settings, dispatcher, "PUT", `/${settings.prefix}${index}`);
      if (!command.import || !index.endsWith("statuses")) continue;
      const rows = await app.database.query<{ id: string; text: string }>(
        "SELECT id, text FROM statuses WHERE visibility = 'public' ORDER BY id",
      );
      if (rows.length === 0) continue;
      const lines = rows.flatMap((row) => [
        JSON.stringify({ index: { _id: row.id } }),
        JSON.stringify({ text: row.text }),
      ]);
      await ask(settings, dispatcher, "POST", `/${settings.prefix}${index}/_bulk`, `${lines.join("\n")}\n`);
      indexed += rows.length;
    }
  } catch (error) {
    throw new Abort(
      "There was an issue connecting to the search server. Make sure the\nserver is configured and running correctly, and that the environment\n" +
        `variable settings match what the server is expecting.\n\n${explain(error)}`,
    );
  } finally {
    await dispatcher.close();
  }
  say(`Indexed ${indexed} records, de-indexed 0`);
}
