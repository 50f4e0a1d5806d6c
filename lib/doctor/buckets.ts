/**
 * What a bucket's keys may do, found out by doing it to an object of our own; and what that means, which is pure.
 *
 * Nothing of the bucket's own settings is written: a check that could change what protects the backups is none.
 */
import * as crypto from "node:crypto";
import { listing } from "../archive";
import { messageOf } from "../attempt";
import { s3Request } from "../s3";
import type { Bucket, BucketKeys } from "../s3";
import { judged, ok } from "./lines";
import type { Area, DoctorLine } from "./lines";
import { worst } from "../status/lines";
import type { Verdict } from "../status/lines";

/** Something that keys must be able to do. */
export type Right = "put" | "get" | "list" | "delete";

export interface BucketFacts {
  /** What does not work, with the store's answer. */
  refused: Partial<Record<Right, string>>;
  /** Undefined where nothing could be put. */
  seen?: BucketSeen;
}

export interface BucketSeen {
  /**
   * A put on the condition that there is no such object, where there is one: `kept` the first (412), written over as
   * if nothing had been said (`ignored`), or the answer of a store that has no such condition.
   */
  conditional: "kept" | "ignored" | { answer: string };
  /** As the store says; `hidden` if the keys may not ask. */
  versioning: "Enabled" | "Suspended" | "off" | "hidden";
  /**
   * What became of the old version when the keys tried to delete it for good; `none` if there was no old version, and the
   * answer of a store that neither did it nor refused it (503, or none at all).
   */
  oldVersion: "kept" | "destroyed" | "none" | { answer: string };
  /** What the world gets that asks for the object at its public address, and whether that is a refusal. */
  world: "reads" | { answer: string; refused: boolean };
  /** Whether a page of `origin` may read it by a script; undefined where none was named, or nobody reads it at all. */
  crossOrigin?: "allowed" | "refused";
}

export interface BucketProbe {
  bucket: Bucket;
  keys: BucketKeys;
  /** What the objects' names begin with; ends with `/`. */
  prefix: string;
  /** Where the world reads the bucket; the store's own address if there is none. */
  publicUrl?: string;
  /** Whose pages show the bucket's objects, such as `https://mastodon.ramble.moe`. */
  origin?: string;
}

const patience = { seconds: 10, retries: 1 } as const;

/** @throws Error when the store does not answer */
export async function probeBucket({ bucket, keys, prefix, publicUrl, origin }: BucketProbe): Promise<BucketFacts> {
  const key = `${prefix}${crypto.randomUUID()}`;
  const ask: Ask = async (method, options) => {
    const response = await s3Request(bucket, keys, method, { ...patience, ...options });
    return { response, text: await response.text() };
  };
  const onlyNew = { "if-none-match": "*" };
  let first = await ask("PUT", { key, body: "first", headers: onlyNew });
  const noCondition = first.response.ok ? undefined : { answer: answerOf(first) };
  if (noCondition) first = await ask("PUT", { key, body: "first" });
  if (!first.response.ok) return { refused: { put: answerOf(first) } };
  const refused: BucketFacts["refused"] = {};
  let removed = false;
  try {
    const conditional = noCondition ?? conditionOf(await ask("PUT", { key, body: "again", headers: onlyNew }));
    const over = await ask("PUT", { key, body: "second" });
    if (!over.response.ok) refused.put = `${answerOf(over)} over an object of its own`;
    const content = over.response.ok ? "second" : "first";
    const got = await ask("GET", { key });
    if (!got.response.ok) refused.get = answerOf(got);
    else if (got.text !== content) refused.get = "something else than was put";
    const listed = await ask("GET", { query: `list-type=2&prefix=${encodeURIComponent(key)}` });
    if (!listed.response.ok) refused.list = answerOf(listed);
    else if (!listing(listed.text, key).keys.some((one) => one.key === key)) refused.list = "what was put is not in it";
    const address = `${publicUrl ?? `${bucket.endpoint.replace(/\/$/, "")}/${bucket.bucket}`}/${key}`;
    const seenByWorld = await asWorld(address, content, origin);
    const state = await ask("GET", { query: "versioning" });
    const versioning = state.response.ok ? versioningIn(state.text) : "hidden";
    const version = first.response.headers.get("x-amz-version-id") ?? (await versionsOf(ask, key)).at(-1) ?? "null";
    const oldVersion = version === "null" ? "none" : await tryToDestroy(ask, key, version);
    const gone = await ask("DELETE", { key });
    removed = true;
    if (!gone.response.ok) refused.delete = answerOf(gone);
    return { refused, seen: { conditional, versioning, oldVersion, ...seenByWorld } };
  } finally {
    await sweep(ask, key, removed).catch(() => undefined);
  }
}

interface Answer {
  response: Response;
  text: string;
}
type Ask = (
  method: "GET" | "PUT" | "DELETE",
  options: { key?: string; query?: string; body?: string; headers?: Record<string, string> },
) => Promise<Answer>;

function conditionOf(answer: Answer): BucketSeen["conditional"] {
  if (answer.response.ok) return "ignored";
  return [409, 412].includes(answer.response.status) ? "kept" : { answer: answerOf(answer) };
}

const ofVersion = (version: string) => `versionId=${encodeURIComponent(version)}`;

/**
 * Whether a status is the store's no. What it says in a hurry (408, 429) or in trouble (5xx) is none: in a minute it may do
 * what it was asked for.
 */
const isRefusal = (status: number): boolean => status >= 400 && status < 500 && status !== 408 && status !== 429;

/** A store may say yes to a deletion that a lock prevents; what counts is what is there afterwards. */
async function tryToDestroy(ask: Ask, key: string, version: string): Promise<BucketSeen["oldVersion"]> {
  try {
    const deleted = await ask("DELETE", { key, query: ofVersion(version) });
    // That it knows no such version is no word on those that it has.
    if (isRefusal(deleted.response.status) && deleted.response.status !== 404) return "kept";
    if (!deleted.response.ok) return { answer: answerOf(deleted) };
    const found = await ask("GET", { key, query: ofVersion(version) });
    if (found.response.ok) return "kept";
    return isRefusal(found.response.status) ? "destroyed" : { answer: answerOf(found) };
  } catch (error) {
    return { answer: messageOf(error) };
  }
}

/** Where old versions can be deleted, none of ours is left; where they cannot, the bucket's own rule ends them. */
async function sweep(ask: Ask, key: string, removed: boolean): Promise<void> {
  if (!removed) await ask("DELETE", { key });
  for (const version of await versionsOf(ask, key)) {
    if (!(await ask("DELETE", { key, query: ofVersion(version) })).response.ok) return;
  }
}

/** An object's versions and markers, the newest first; none where nobody keeps or tells them. */
async function versionsOf(ask: Ask, key: string): Promise<string[]> {
  const { response, text } = await ask("GET", { query: `versions&prefix=${encodeURIComponent(key)}` });
  return response.ok ? versionsIn(text) : [];
}

/** Ids in an answer of ListObjectVersions, markers too. */
export const versionsIn = (xml: string): string[] =>
  [...xml.matchAll(/<VersionId>([^<]+)<\/VersionId>/g)].flatMap(([, id]) =>
    id === undefined || id === "null" ? [] : id,
  );

const versioningIn = (xml: string): "Enabled" | "Suspended" | "off" => {
  const status = /<Status>(\w+)<\/Status>/.exec(xml)?.[1];
  return status === "Enabled" || status === "Suspended" ? status : "off";
};

/** `403 AccessDenied`. */
const answerOf = ({ response, text }: Answer): string =>
  [String(response.status), /<Code>(\w+)<\/Code>/.exec(text)?.[1]].filter((part) => part !== undefined).join(" ");

async function asWorld(
  url: string,
  content: string,
  origin: string | undefined,
): Promise<Pick<BucketSeen, "world" | "crossOrigin">> {
  try {
    const headers = origin === undefined ? {} : { origin };
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(patience.seconds * 1000) });
    const text = await response.text();
    const { status } = response;
    if (!response.ok) return { world: { answer: String(status), refused: isRefusal(status) } };
    if (text !== content) return { world: { answer: "something else", refused: false } };
    if (origin === undefined) return { world: "reads" };
    const allowed = response.headers.get("access-control-allow-origin");
    return { world: "reads", crossOrigin: allowed === "*" || allowed === origin ? "allowed" : "refused" };
  } catch (error) {
    return { world: { answer: messageOf(error), refused: false } };
  }
}

// ---------------------------------------------------------------- lines

/** What a bucket is for, in the words of its lines. */
export interface BucketPurpose {
  area: Extract<Area, "vault" | "media">;
  /** What its objects are to the owner. */
  holds: "backups" | "uploads";
  /** Keys of the stack that open it. */
  keys: "vault" | "media";
  /**
   * What it means that the keys cannot delete an object by its name: a `fault` where Mastodon must (an upload that its
   * owner takes back), a `warning` where a retention would have no effect, `ok` where nothing is ever deleted.
   */
  undeletable: Verdict;
}

const runbook = "docs/runbooks/protected-backups.md";
/** What neither worked nor was refused is not known to be safe. */
const againLater = "ask again once the store answers: npx homestead doctor";

/** The line on the rights that the stack needs. */
export function rightsLine(
  { area, keys, undeletable }: BucketPurpose,
  { bucket }: Pick<Bucket, "bucket">,
  refused: BucketFacts["refused"],
): DoctorLine {
  const weight = (right: string): Verdict => (right === "delete" ? undeletable : "fault");
  const missing = Object.entries(refused).filter(([right]) => weight(right) !== "ok");
  if (missing.length === 0)
    return ok(area, bucket, `its keys put, get${refused.delete === undefined ? ", list and delete" : " and list"}`);
  return judged(
    area,
    bucket,
    worst(missing.map(([right]) => weight(right))),
    `the ${keys} keys do not do all that they must: ${missing.map(([right, answer]) => `${right}: ${answer}`).join(", ")}`,
    `give the ${keys} keys these rights on the bucket (${runbook})`,
  );
}

/** The line on what lies under the lease: two updates at the same moment must not both believe that they wrote it. */
export function conditionalLine({ conditional }: BucketSeen): DoctorLine {
  if (conditional === "kept") return ok("vault", "conditional put", "an object that is there is not written over");
  const how = conditional === "ignored" ? "the store takes no notice of the condition" : conditional.answer;
  return judged(
    "vault",
    "conditional put",
    "warning",
    `${how}: two takeovers in the same second are told apart only by reading the lease again`,
    "never switch from two machines at once, or choose a store with conditional writes (AWS S3, Cloudflare R2, MinIO)",
  );
}

/** The line on whether who has the cluster, and with it the keys, can destroy what was kept. */
export function protectionLine(
  { area, holds, keys }: BucketPurpose,
  { versioning, oldVersion }: BucketSeen,
): DoctorLine {
  const lost = (why: string) =>
    judged(area, "old versions", "warning", `${holds} can be destroyed from the cluster: ${why}`, runbook);
  if (oldVersion === "destroyed") return lost(`the ${keys} keys deleted an old version`);
  if (versioning === "Suspended") return lost("the bucket's versioning is suspended, a put writes over what is there");
  if (oldVersion === "none") return lost("the bucket keeps no old versions");
  if (oldVersion !== "kept")
    return judged(
      area,
      "old versions",
      "warning",
      `not found out: the ${keys} keys tried to delete one, and the store gave ${oldVersion.answer}`,
      againLater,
    );
  return ok(area, "old versions", `kept: the ${keys} keys cannot delete one`);
}

/** The line on a vault that the world must not read. */
export function privacyLine({ world }: BucketSeen): DoctorLine {
  if (world === "reads")
    return judged(
      "vault",
      "privacy",
      "fault",
      "everybody can read it, and with it the database",
      "take the public access (policy, ACL) off the bucket, then make new secrets: what was in it is known",
    );
  if (world.refused) return ok("vault", "privacy", "nobody reads it without keys");
  return judged(
    "vault",
    "privacy",
    "warning",
    `not found out: who asked without keys was given ${world.answer}, which is no refusal`,
    againLater,
  );
}

/** The line on uploads that the world must read. */
export function publicLine({ world }: BucketSeen, url: string): DoctorLine {
  if (world === "reads") return ok("media", "public", `everybody reads ${url}`);
  return judged(
    "media",
    "public",
    "fault",
    `nobody sees an upload: ${url} gives ${world.answer}`,
    "let everybody read the bucket's objects (s3:GetObject for *), and check media.publicUrl",
  );
}

/**
 * The line on pages of the web host that read uploads by a script: the audio player does (`crossOrigin` in Mastodon's
 * features/audio), and a browser lets it only where the bucket says so.
 */
export function crossOriginLines({ crossOrigin }: BucketSeen, origin: string): DoctorLine[] {
  if (crossOrigin === undefined) return [];
  if (crossOrigin === "allowed") return [ok("media", "CORS", `pages of ${origin} may read it`)];
  return [
    judged(
      "media",
      "CORS",
      "warning",
      `audio does not play in the web interface: no access-control-allow-origin for ${origin}`,
      `give the bucket a CORS rule: AllowedOrigins ["${origin}"], AllowedMethods ["GET", "HEAD"]`,
    ),
  ];
}
