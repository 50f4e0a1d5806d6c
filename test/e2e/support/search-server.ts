/** The site's Elasticsearch, asked from inside its own pod: nobody but Mastodon's pods can reach it from elsewhere. */
import * as assert from "node:assert/strict";
import type { Cluster } from "./cluster";

export interface SearchAnswer {
  status: number;
  body: string;
}

/** Options for `curl -K -`; a password given this way is on no command line. */
export function curlOptions(options: Record<string, string>): string {
  // In double quotes curl knows the escapes of JSON's that can occur in these.
  return Object.entries(options)
    .map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
    .join("");
}

/** What curl printed with `write-out = "\n%{http_code}"`. @throws Error unless its last line is a status */
export function parseAnswer(output: string): SearchAnswer {
  const [, body = "", status] = /^([\s\S]*)\n(\d{3})\s*$/.exec(output) ?? [];
  if (status === undefined) throw new Error(`no answer: ${output.slice(0, 300)}`);
  return { status: Number(status), body };
}

export class SearchServer {
  constructor(
    private readonly cluster: Cluster,
    private readonly namespace: string,
  ) {}

  /** The password in the Secret. */
  async password(): Promise<string> {
    const secret = await this.cluster.get("secret", "search", this.namespace);
    const password = Buffer.from(secret?.data?.["password"] ?? "", "base64").toString();
    if (password === "") throw new Error("no secret 'search' with a password");
    return password;
  }

  /** One request. @param password undefined for none at all */
  async ask(path: string, password: string | undefined, method: "GET" | "POST" = "GET"): Promise<SearchAnswer> {
    const options = {
      url: `http://127.0.0.1:9200${path}`,
      request: method,
      "write-out": "\n%{http_code}",
      ...(password === undefined ? {} : { user: `elastic:${password}` }),
    };
    const command = ["curl", "-sS", "-m", "20", "-K", "-"];
    return parseAnswer(
      await this.cluster.exec(this.namespace, "search-0", command, { input: curlOptions(options), seconds: 40 }),
    );
  }

  /** As {@link ask}, logged in. @throws Error unless the answer is 200 */
  async mustAsk(path: string, method?: "GET" | "POST"): Promise<string> {
    return mustBeOk(await this.ask(path, await this.password(), method), path);
  }

  /** Ids of the posts that a word finds. */
  async found(word: string): Promise<string[]> {
    // What was written a moment ago is found after this.
    await this.mustAsk("/statuses/_refresh", "POST");
    const body = await this.mustAsk(`/statuses/_search?size=100&q=text:${encodeURIComponent(word)}`);
    const { hits } = JSON.parse(body) as { hits: { hits: { _id: string }[] } };
    return hits.hits.map(({ _id }) => _id).sort();
  }

  /** What makes one index another, though it has the same name and the same posts. */
  async indexUid(): Promise<string> {
    const body = JSON.parse(await this.mustAsk("/statuses/_settings")) as Record<
      string,
      { settings: { index: { uuid: string } } }
    >;
    const [index] = Object.values(body);
    assert.ok(index, "no index 'statuses'");
    return index.settings.index.uuid;
  }
}

/** @returns the body. @throws Error with the answer unless it is 200 */
export function mustBeOk({ status, body }: SearchAnswer, path: string): string {
  if (status !== 200) throw new Error(`${path}: HTTP ${status} ${body.slice(0, 300)}`);
  return body;
}
