/**
 * How a remote server finds an account when it knows nothing but `@user@apex`: WebFinger at the apex, whatever redirects that takes, then the
 * actor, then WebFinger once more at the actor's own host, which must name the account as the apex did. Every step that fails says which.
 */
import type { FoundActor } from "./protocol.ts";

export class LookupError extends Error {
  override readonly name = "LookupError";
}

/** The part of `fetch` this needs. */
export type Fetch = (
  url: string,
  init: { readonly headers: Record<string, string>; readonly redirect: "manual" },
) => Promise<Response>;

interface Jrd {
  readonly subject: string;
  readonly self: string;
}

const MAX_REDIRECTS = 5;

function why(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${why(error.cause)}`;
}

async function get(fetch: Fetch, url: string, accept: string, hops: string[]): Promise<Response> {
  let current = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    hops.push(current);
    let response: Response;
    try {
      response = await fetch(current, { headers: { accept }, redirect: "manual" });
    } catch (error) {
      throw new LookupError(`GET ${current} failed: ${why(error)}`);
    }
    const location = response.headers.get("location");
    if (response.status >= 300 && response.status < 400 && location !== null) {
      await response.body?.cancel();
      current = new URL(location, current).href;
      continue;
    }
    if (!response.ok) throw new LookupError(`GET ${current} was answered with ${response.status}`);
    return response;
  }
  throw new LookupError(`GET ${url}: more than ${MAX_REDIRECTS} redirects`);
}

async function webFinger(fetch: Fetch, host: string, acct: string, hops: string[]): Promise<Jrd> {
  const url = `https://${host}/.well-known/webfinger?resource=${encodeURIComponent(`acct:${acct}`)}`;
  const response = await get(fetch, url, "application/jrd+json, application/json", hops);
  const type = response.headers.get("content-type") ?? "";
  if (!/^application\/(jrd\+)?json\b/.test(type))
    throw new LookupError(`GET ${url}: the answer is ${type === "" ? "of no type" : type}, not JSON`);
  let json: { subject?: unknown; links?: { rel?: unknown; type?: unknown; href?: unknown }[] };
  try {
    json = (await response.json()) as typeof json;
  } catch {
    throw new LookupError(`GET ${url}: the answer is not JSON`);
  }
  const self = json.links?.find(
    (link) => link.rel === "self" && typeof link.type === "string" && /activity\+json|ld\+json/.test(link.type),
  );
  if (typeof json.subject !== "string" || typeof self?.href !== "string")
    throw new LookupError(`GET ${url}: the answer names no subject or no actor`);
  return { subject: json.subject.replace(/^acct:/, ""), self: self.href };
}

export async function lookUp(fetch: Fetch, handle: string): Promise<FoundActor> {
  const [username, apex, ...more] = handle.replace(/^@/, "").split("@");
  if (username === undefined || username === "" || apex === undefined || apex === "" || more.length > 0)
    throw new LookupError(`${JSON.stringify(handle)} is not a handle; one looks like @user@example.org`);
  const hops: string[] = [];
  const asked = `${username}@${apex}`.toLowerCase();
  const first = await webFinger(fetch, apex, `${username}@${apex}`, hops);

  const response = await get(fetch, first.self, "application/activity+json", hops);
  const actor = (await response.json().catch(() => ({}))) as {
    id?: unknown;
    preferredUsername?: unknown;
    name?: unknown;
    inbox?: unknown;
  };
  if (typeof actor.id !== "string" || typeof actor.preferredUsername !== "string" || typeof actor.inbox !== "string")
    throw new LookupError(`GET ${first.self}: the answer is no ActivityPub actor`);
  if (actor.id !== first.self) throw new LookupError(`the actor at ${first.self} says its id is ${actor.id}`);

  // A server whose handles and pages live under different names must confirm that from the pages' side, or anyone could claim any handle.
  const host = new URL(actor.id).host;
  const second = await webFinger(fetch, host, `${actor.preferredUsername}@${host}`, hops);
  if (second.subject.toLowerCase() !== asked)
    throw new LookupError(`asked for ${asked}, but ${host} says the account is ${second.subject}`);
  if (second.self !== actor.id)
    throw new LookupError(`${host} names another actor for ${second.subject}: ${second.self}`);
  return {
    id: actor.id,
    username: actor.preferredUsername,
    name: typeof actor.name === "string" ? actor.name : "",
    inbox: actor.inbox,
    acct: second.subject,
    hops,
  };
}
