import type { Answer, Client, Question } from "./client";
import { Unreachable } from "./client";
import { Failure, describe, insist, natureOf } from "./failure";
import { isObject, oneLine } from "./values";
import type { Json } from "./values";

const day = 86_400_000;

/** The questions that checks are made of. Each says what it expects, and throws a Failure if it is not so. */
export class Asker {
  constructor(private readonly client: Client) {}

  /** Whether `url` is asked at the ingress that is verified. */
  isOurs(url: string): boolean {
    return this.client.isOurs(url);
  }

  /** Asks, and takes any answer. */
  async ask(expected: string, url: string, question: Question = {}): Promise<Answer> {
    return this.answered(expected, this.client.ask(url, question));
  }

  /**
   * Gets, and takes any answer. Our own hosts' certificates are not looked at: a wrong one is one fault and gets one
   * line, from the checks that are about certificates.
   */
  async get(expected: string, url: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.ask(expected, url, { headers, certificate: this.isOurs(url) ? "unchecked" : "checked" });
  }

  /** Gets a JSON object. `types` are the media types it may have, the first of them is asked for; any if left out. */
  async json(url: string, types: readonly string[] = []): Promise<Json> {
    const expected = `${url} to answer 200 with ${types[0] ?? "JSON"}`;
    const answer = await this.get(expected, url, { accept: types[0] ?? "application/json" });
    insist(answer.status === 200, expected, describe(answer), natureOf(answer.status));
    const type = answer.headers["content-type"] ?? "no content type";
    insist(types.length === 0 || types.includes(mediaType(answer)), expected, `HTTP 200 with ${type}`, "definite");
    const json = parseObject(answer.body);
    insist(json !== undefined, expected, `HTTP 200 with ${type} that is no JSON object`, "definite");
    return json;
  }

  /** Insists on a permanent redirect from `url` to exactly `to`. */
  async redirect(url: string, to: string): Promise<void> {
    const expected = `${url} to answer 301 to ${to}`;
    const answer = await this.get(expected, url);
    const there = answer.status === 301 && answer.headers.location === to;
    insist(there, expected, describe(answer), natureOf(answer.status));
  }

  /** Insists on a certificate for `host` that everyone trusts, and ends with how long it is valid. */
  async certificate(host: string): Promise<string> {
    const expected = `a trusted certificate for ${host}`;
    const { x509, distrust } = await this.answered(expected, this.client.certificate(host));
    const { validFromDate: from, validToDate: until } = x509;
    // Passing: until a certificate is loaded, an ingress serves one of its own.
    const insistOn = (holds: boolean, got: string) => insist(holds, expected, got, "passing");
    insistOn(x509.checkHost(host) !== undefined, `one for ${namesOf(x509.subjectAltName, x509.subject)}`);
    insistOn(until.getTime() > Date.now(), `one that expired on ${dateOf(until)}`);
    insistOn(from.getTime() < Date.now(), `one valid from ${dateOf(from)}`);
    insistOn(distrust === undefined, `one that is not trusted (${distrust}), issued by ${oneLine(x509.issuer)}`);
    return `valid for ${Math.floor((until.getTime() - Date.now()) / day)} days`;
  }

  private async answered<T>(expected: string, answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (error instanceof Unreachable) throw new Failure(expected, error.message, "passing");
      throw error;
    }
  }
}

/** The media type without its parameters, in lower case; "" if there is none. */
export const mediaType = (answer: Answer): string =>
  (answer.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";

const dateOf = (date: Date): string => date.toISOString().slice(0, 10);

function parseObject(body: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The names a certificate is for, at most three. */
function namesOf(alternative: string | undefined, subject: string): string {
  const names = (alternative ?? "").split(", ").filter((name) => name !== "");
  if (names.length === 0) return oneLine(subject);
  const shown = names.slice(0, 3).map((name) => oneLine(name.replace(/^DNS:/, "")));
  return `${shown.join(", ")}${names.length > shown.length ? " and others" : ""}`;
}
