/** A site as its owner sees it: Mastodon's client API, asked of the ingress address directly. */
import * as crypto from "node:crypto";
import type { Cluster } from "./cluster";
import { eventually } from "./processes";
import { fetchVia, websocketVia } from "./web";
import type { Answer, Request, Via } from "./web";

/** Names of a server, equal on both sites. */
export interface Names {
  apex: string;
  webHost: string;
  owner: string;
  ownerEmail: string;
}

export class SiteClient {
  private token: string | undefined;

  constructor(
    readonly names: Names,
    readonly via: Via,
    private readonly password: string,
    /** Another way to a token, where the server takes no password for one. */
    private readonly issueToken: () => Promise<string>,
  ) {}

  /** One request to the web host, no redirect followed. */
  request(path: string, request: Request = {}): Promise<Answer> {
    return fetchVia(this.via, `https://${this.names.webHost}${path}`, request);
  }

  /** One request to the apex. */
  apex(path: string, request: Request = {}): Promise<Answer> {
    return fetchVia(this.via, `https://${this.names.apex}${path}`, request);
  }

  /** A request in the owner's name. @throws unless the answer is 200 or 202 */
  async api(path: string, request: Request = {}): Promise<Record<string, unknown>> {
    this.token ??= await this.logIn();
    const answer = await this.request(path, {
      ...request,
      headers: { authorization: `Bearer ${this.token}`, ...request.headers },
    });
    if (answer.status !== 200 && answer.status !== 202)
      throw new Error(`${path}: ${answer.status} ${answer.text.slice(0, 300)}`);
    return JSON.parse(answer.text) as Record<string, unknown>;
  }

  /** Posts in the owner's name. @returns the post's id. @throws unless it was acknowledged */
  async post(text: string, fields: Record<string, unknown> = {}): Promise<string> {
    const status = await this.api("/api/v1/statuses", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ status: text, ...fields }),
    });
    return String(status["id"]);
  }

  /** Posts in the owner's home timeline, newest first, or the last before one. @returns their ids. @throws when there are none */
  async homeFeed(before?: string): Promise<string[]> {
    const posts: unknown = await this.api(`/api/v1/timelines/home${before === undefined ? "" : `?max_id=${before}`}`);
    const ids = (posts as { id: string }[]).map(({ id }) => id);
    if (ids.length === 0) throw new Error("the home feed is empty");
    return ids;
  }

  /** Answers within the given seconds, or throws what was wrong last. */
  async healthy(seconds = 120): Promise<void> {
    await eventually(seconds, `https://${this.names.webHost} answers`, async () => {
      const answer = await this.request("/health", { seconds: 5 });
      if (answer.status !== 200) throw new Error(`/health: ${answer.status}`);
    });
  }

  /** What the owner's home timeline is told while it lasts. */
  async stream(): Promise<{ messages: string[]; close: () => Promise<void> }> {
    this.token ??= await this.logIn();
    return websocketVia(this.via, `wss://${this.names.webHost}/api/v1/streaming?stream=user`, [this.token]);
  }

  /** Whether it gives a token for a password: the stand-in does, Mastodon has given that up. */
  async takesPasswords(): Promise<boolean> {
    return !refusesPasswords(await this.grant());
  }

  private async form(path: string, fields: Record<string, string>): Promise<Answer> {
    return this.request(path, {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams(fields).toString(),
    });
  }

  private grant(): Promise<Answer> {
    return this.form("/oauth/token", {
      grant_type: "password",
      scope: "read write follow push",
      username: this.names.ownerEmail,
      password: this.password,
    });
  }

  // The password grant is what the stand-in has. Mastodon has given it up; there the server itself issues a token.
  private async logIn(): Promise<string> {
    const answer = await this.grant();
    if (answer.status === 200) return String((JSON.parse(answer.text) as Record<string, unknown>)["access_token"]);
    if (!refusesPasswords(answer)) throw new Error(`/oauth/token: ${answer.status} ${answer.text.slice(0, 300)}`);
    return this.issueToken();
  }
}

const refusesPasswords = ({ text }: Answer): boolean => text.includes("unsupported_grant_type");

/** Has Rails issue a token for the owner; for images that are not the stand-in. */
export async function tokenFromRails(cluster: Cluster, owner: string): Promise<string> {
  const ruby = [
    'app = Doorkeeper::Application.find_or_create_by!(name: "end-to-end tests") { |a| a.redirect_uri = "urn:ietf:wg:oauth:2.0:oob"; a.scopes = "read write follow push" }',
    `puts Doorkeeper::AccessToken.create!(application_id: app.id, resource_owner_id: Account.find_local!("${owner}").user.id, scopes: app.scopes).token`,
  ].join("; ");
  const out = await cluster.exec("homestead", "deployment/mastodon-web", ["bin/rails", "runner", ruby], {
    seconds: 120,
  });
  return out.trim().split("\n").at(-1) ?? "";
}
