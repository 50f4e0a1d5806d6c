/** Runs in a pod: makes the embedded object store's buckets, the public one readable by everybody. Idempotent. */
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "./attempt";
import { publicReadPolicy, s3Request } from "./s3";
import type { Bucket } from "./s3";

const setting = (name: string): string => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
};

async function main(): Promise<void> {
  const keys = { accessKeyId: setting("ACCESS_KEY_ID"), secretAccessKey: setting("SECRET_ACCESS_KEY") };
  const bucket = (name: string): Bucket => ({ endpoint: setting("ENDPOINT"), region: setting("REGION"), bucket: name });
  const expect = async (what: string, request: Promise<Response>, accepted: number[]) => {
    const response = await request;
    if (!accepted.includes(response.status)) throw new Error(`${what}: ${response.status} ${await response.text()}`);
  };
  for (const name of [setting("PRIVATE_BUCKET"), setting("PUBLIC_BUCKET")]) {
    await expect(`make bucket ${name}`, s3Request(bucket(name), keys, "PUT"), [200, 409]);
  }
  const open = setting("PUBLIC_BUCKET");
  await expect(
    `open bucket ${open}`,
    s3Request(bucket(open), keys, "PUT", { query: "policy", body: publicReadPolicy(open) }),
    [200, 204],
  );
}

/** Seconds for which it is tried: a network policy takes effect a moment after the pod starts, and the server may be later. */
const patience = 60;

async function untilDone(): Promise<void> {
  for (const started = Date.now(); ;) {
    try {
      await main();
      return;
    } catch (error) {
      if (Date.now() - started > patience * 1000) throw error;
      await sleep(1_000);
    }
  }
}

untilDone().catch((error: unknown) => {
  console.error(messageOf(error));
  process.exit(1);
});
