/** The checks: what has to be true of a site before the world is sent there. */
import { Asker, mediaType } from "./asker";
import type { Client } from "./client";
import { describe, insist, natureOf } from "./failure";
import { checkMedia } from "./media";
import type { MediaTarget } from "./media";
import { isObject, objectsOf, textOf } from "./values";

/** In the order they are reported. */
export const checkNames = [
  "certificate apex",
  "certificate web host",
  "http redirect",
  "webfinger redirect",
  "webfinger cors",
  "webfinger document",
  "actor",
  "host-meta",
  "nodeinfo",
  "streaming",
  "mastodon",
  "media",
  "blog",
] as const;
export type CheckName = (typeof checkNames)[number];

/** What the checks are about. */
export interface Subject {
  apex: string;
  webHost: string;
  owner: string;
  media?: MediaTarget;
  mediaFile?: string;
}

interface Check {
  /** What is expected, in general; a failure says it more exactly. */
  expected: string;
  /** Checks whose failure, with the same answer, is the cause of this one's: one cause gives one line. @default none */
  follows?: readonly CheckName[];
  /** One attempt; ends with a few words on what it found. @throws Failure */
  run(): Promise<string>;
}
export type NamedCheck = Required<Check> & { name: CheckName };

/** The checks that apply to `subject`, asked through `client`. */
export function checksOf(subject: Subject, client: Client): NamedCheck[] {
  const asker = new Asker(client);
  return checkNames.flatMap((name) => {
    const check = makers[name](subject, asker);
    // Nothing at the address at all, or a certificate for none of the hosts: one cause, and every check sees it.
    const follows = [...roots.slice(0, checkNames.indexOf(name)), ...(check?.follows ?? [])];
    return check ? [{ ...check, name, follows }] : [];
  });
}
const roots = ["certificate apex", "certificate web host"] as const;

const apexUrl = ({ apex }: Subject) => `https://${apex}`;
const webUrl = ({ webHost }: Subject) => `https://${webHost}`;
const account = ({ owner, apex }: Subject) => `acct:${owner}@${apex}`;
const webfinger = (origin: string, resource: string) => `${origin}/.well-known/webfinger?resource=${resource}`;
const jrd = ["application/jrd+json"];
const activity = ["application/activity+json", "application/ld+json"];

/** A check of a site; none if it does not apply. */
type Maker = (subject: Subject, asker: Asker) => Check | undefined;

const makers: Record<CheckName, Maker> = {
  "certificate apex": ({ apex }, asker) => ({
    expected: `a trusted certificate for ${apex}`,
    run: () => asker.certificate(apex),
  }),
  "certificate web host": ({ webHost }, asker) => ({
    expected: `a trusted certificate for ${webHost}`,
    run: () => asker.certificate(webHost),
  }),
  "http redirect": httpRedirect,
  "webfinger redirect": webfingerRedirect,
  "webfinger cors": webfingerCors,
  "webfinger document": webfingerDocument,
  actor,
  "host-meta": hostMeta,
  nodeinfo,
  streaming,
  mastodon,
  media,
  blog,
};

function httpRedirect({ apex, webHost }: Subject, asker: Asker): Check {
  const path = "/homestead/verification?query=kept";
  return {
    expected: "http:// to redirect to https://, path and query kept",
    run: async () => {
      for (const host of [apex, webHost]) {
        const to = `https://${host}${path}`;
        const expected = `http://${host}${path} to answer 301 or 308 to ${to}`;
        const answer = await asker.get(expected, `http://${host}${path}`);
        const location = URL.parse(answer.headers.location ?? "")?.href;
        const there = [301, 308].includes(answer.status) && location === to;
        insist(there, expected, describe(answer), natureOf(answer.status));
      }
      return "both hosts";
    },
  };
}

function webfingerRedirect(subject: Subject, asker: Asker): Check {
  return {
    expected: `${subject.apex} to redirect WebFinger to ${subject.webHost}, the whole query kept`,
    run: async () => {
      // Servers write it in both ways; neither may be changed on the way.
      for (const resource of [account(subject), `${encodeURIComponent(account(subject))}&rel=self`]) {
        await asker.redirect(webfinger(apexUrl(subject), resource), webfinger(webUrl(subject), resource));
      }
      return "HTTP 301, query kept";
    },
  };
}

function webfingerCors(subject: Subject, asker: Asker): Check {
  const url = webfinger(apexUrl(subject), account(subject));
  return {
    expected: "Access-Control-Allow-Origin: * on the WebFinger redirect itself",
    follows: ["webfinger redirect"],
    run: async () => {
      const expected = `Access-Control-Allow-Origin: * on the redirect at ${url}`;
      const answer = await asker.get(expected, url, { origin: "https://verification.invalid" });
      const redirects = answer.status >= 300 && answer.status < 400;
      insist(redirects, expected, describe(answer), natureOf(answer.status));
      const allowed = answer.headers["access-control-allow-origin"];
      insist(allowed === "*", expected, allowed ?? "no such header", "definite");
      return "Access-Control-Allow-Origin: *";
    },
  };
}

/** The owner's WebFinger document at the web host, and the actor's address in it. */
async function ownersDocument(subject: Subject, asker: Asker) {
  const url = webfinger(webUrl(subject), account(subject));
  const document = await asker.json(url, jrd);
  const isSelf = (rel: unknown, type: unknown) => rel === "self" && type === "application/activity+json";
  const link = objectsOf(document["links"]).find(({ rel, type }) => isSelf(rel, type));
  const expected = `${url} to have a self link of type application/activity+json at ${subject.webHost}`;
  const href = textOf(link?.["href"]);
  insist(href !== undefined, expected, "no such link", "definite");
  insist(href.startsWith(`${webUrl(subject)}/`), expected, href, "definite");
  return { url, href, document };
}

function webfingerDocument(subject: Subject, asker: Asker): Check {
  const { owner, webHost } = subject;
  return {
    expected: `WebFinger at ${webHost} to know ${account(subject)}`,
    follows: ["mastodon"],
    run: async () => {
      const { url, document } = await ownersDocument(subject, asker);
      // The second hop: a remote server asks again with the actor's own host, and trusts the subject it gets.
      const second = webfinger(webUrl(subject), `acct:${owner}@${webHost}`);
      const documents = [[url, document] as const, [second, await asker.json(second, jrd)] as const];
      for (const [asked, { subject: got }] of documents) {
        const expected = `${asked} to have the subject ${account(subject)}`;
        insist(got === account(subject), expected, textOf(got) ?? "no subject", "definite");
      }
      return account(subject);
    },
  };
}

function actor(subject: Subject, asker: Asker): Check {
  return {
    expected: `the actor of ${account(subject)}, with a public key`,
    follows: ["webfinger document", "mastodon"],
    run: async () => {
      const { href } = await ownersDocument(subject, asker);
      const { preferredUsername: name, publicKey } = await asker.json(href, activity);
      const named = `${href} to have the preferredUsername ${subject.owner}`;
      insist(name === subject.owner, named, textOf(name) ?? "none", "definite");
      insist(isObject(publicKey), `${href} to have a publicKey`, "none", "definite");
      return href;
    },
  };
}

function hostMeta(subject: Subject, asker: Asker): Check {
  const url = `${webUrl(subject)}/.well-known/host-meta`;
  return {
    expected: `${subject.apex} to redirect host-meta to ${subject.webHost}, which names WebFinger`,
    follows: ["webfinger redirect", "mastodon"],
    run: async () => {
      await asker.redirect(`${apexUrl(subject)}/.well-known/host-meta`, url);
      const template = webfinger(webUrl(subject), "{uri}");
      const expected = `${url} to answer 200 with the template ${template}`;
      const answer = await asker.get(expected, url, { accept: "application/xrd+xml" });
      insist(answer.status === 200, expected, describe(answer), natureOf(answer.status));
      insist(answer.body.includes(template), expected, "HTTP 200 without it", "definite");
      return template;
    },
  };
}

function nodeinfo(subject: Subject, asker: Asker): Check {
  const url = `${webUrl(subject)}/.well-known/nodeinfo`;
  return {
    expected: `${subject.apex} to redirect nodeinfo to ${subject.webHost}, which describes the server`,
    follows: ["webfinger redirect", "mastodon"],
    run: async () => {
      await asker.redirect(`${apexUrl(subject)}/.well-known/nodeinfo`, url);
      const links = objectsOf((await asker.json(url))["links"]).map((link) => textOf(link["href"]));
      const href = links.find((link) => link?.startsWith(`${webUrl(subject)}/`));
      insist(href !== undefined, `${url} to have a link to ${subject.webHost}`, "no such link", "definite");
      const { software } = await asker.json(href);
      const name = isObject(software) ? textOf(software["name"]) : undefined;
      insist(name !== undefined, `${href} to have a software name`, "none", "definite");
      return name;
    },
  };
}

function streaming(subject: Subject, asker: Asker): Check {
  const url = `${webUrl(subject)}/api/v1/streaming`;
  return {
    expected: `the streaming server behind ${subject.webHost}`,
    run: async () => {
      const healthy = `${url}/health to answer 200 with OK`;
      const health = await asker.get(healthy, `${url}/health`);
      insist(health.status === 200, healthy, describe(health), natureOf(health.status));
      insist(health.body.trim() === "OK", healthy, "HTTP 200 with something else", "passing");
      // Without a token the streaming server says 401, and the web server, were it asked by mistake, does not.
      const reached = `a websocket upgrade at ${url} to answer 101 or 401`;
      const upgrade = await asker.get(reached, url, {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "aG9tZXN0ZWFkIHZlcmlmeQ==",
      });
      insist([101, 401].includes(upgrade.status), reached, describe(upgrade), natureOf(upgrade.status));
      return `websocket HTTP ${upgrade.status}`;
    },
  };
}

function mastodon(subject: Subject, asker: Asker): Check {
  return {
    expected: `Mastodon behind ${subject.webHost}, for the domain ${subject.apex}`,
    run: async () => {
      const healthy = `${webUrl(subject)}/health to answer 200`;
      const health = await asker.get(healthy, `${webUrl(subject)}/health`);
      insist(health.status === 200, healthy, describe(health), natureOf(health.status));
      // "The WebFinger domain name of the server" (docs.joinmastodon.org, V2::Instance).
      const url = `${webUrl(subject)}/api/v2/instance`;
      const { domain } = await asker.json(url);
      insist(
        domain === subject.apex,
        `${url} to have the domain ${subject.apex}`,
        textOf(domain) ?? "none",
        "definite",
      );
      return `domain ${subject.apex}`;
    },
  };
}

function media({ media: bucket, mediaFile }: Subject, asker: Asker): Check | undefined {
  if (mediaFile !== undefined) return mediaVolume(mediaFile, asker);
  if (!bucket) return undefined;
  return {
    expected: `an object put into bucket ${bucket.bucket} to be read at ${bucket.publicUrl}`,
    run: async () => {
      // Same words as for the other hosts: one certificate that is wrong for all of them is one fault.
      const { protocol, hostname } = new URL(bucket.publicUrl);
      if (protocol === "https:" && asker.isOurs(bucket.publicUrl)) await asker.certificate(hostname);
      await checkMedia(asker, bucket);
      return "put, read and deleted";
    },
  };
}

function mediaVolume(url: string, asker: Asker): Check {
  const expected = `${url} to answer 200 with the media volume's own file`;
  return {
    expected,
    follows: ["mastodon"],
    run: async () => {
      const answer = await asker.get(expected, url);
      insist(answer.status === 200, expected, describe(answer), natureOf(answer.status));
      insist(answer.body.startsWith("homestead media volume"), expected, "HTTP 200 with something else", "passing");
      return answer.body.trim();
    },
  };
}

function blog(subject: Subject, asker: Asker): Check {
  const home = `${apexUrl(subject)}/`;
  return {
    expected: `the blog at ${subject.apex}`,
    run: async () => {
      const expected = `${home} to answer 200 with text/html`;
      let url = home;
      let answer = await asker.get(expected, url);
      // A blog may send its readers on, to a language say, but not away.
      for (let hops = 0; hops < 3 && answer.status >= 300 && answer.status < 400; hops++) {
        const next = URL.parse(answer.headers.location ?? "", url)?.href;
        if (!next?.startsWith(home)) break;
        url = next;
        answer = await asker.get(expected, url);
      }
      insist(answer.status === 200, expected, describe(answer), natureOf(answer.status));
      const type = mediaType(answer);
      insist(type === "text/html", expected, `HTTP 200 with ${type || "no content type"}`, "definite");
      return "HTTP 200 with text/html";
    },
  };
}
