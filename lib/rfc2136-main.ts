/**
 * A signed DNS update as a program of its own, for an update of a stack: takes a SignedUpdate as JSON from standard
 * input. What it prints is what the person at the update reads; never what it was given, since the key is in it.
 */
import * as fs from "node:fs";
import { sendUpdate } from "./rfc2136";
import type { SignedUpdate } from "./rfc2136";

async function main(): Promise<void> {
  const update = JSON.parse(fs.readFileSync(0, "utf8")) as SignedUpdate;
  await sendUpdate(update);
  for (const { name, type, value } of update.records) console.log(`${name} ${type} ${value}`);
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
});
