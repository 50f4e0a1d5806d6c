/** The S3 server of the tests: buckets made, made public, emptied. */
import { AwsClient } from "aws4fetch";
import type { Environment } from "./environment";

export class ObjectServer {
  private readonly client: AwsClient;

  constructor(private readonly s3: Environment["s3"]) {
    this.client = new AwsClient({
      accessKeyId: s3.accessKey,
      secretAccessKey: s3.secretKey,
      region: s3.region,
      service: "s3",
      retries: 3,
    });
  }

  /** One signed request. @throws unless the answer is one of the expected */
  async request(method: string, path: string, body?: string | Buffer, expected = [200, 204]): Promise<string> {
    const response = await this.client.fetch(`${this.s3.endpoint}/${path}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : new Uint8Array(body) }),
    });
    const text = await response.text();
    if (!expected.includes(response.status))
      throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`);
    return text;
  }

  /** An empty, private bucket. */
  async emptyBucket(bucket: string): Promise<void> {
    // 409: it is there already.
    await this.request("PUT", bucket, undefined, [200, 409]);
    await this.request("DELETE", `${bucket}?policy`, undefined, [200, 204, 404]);
    await this.deleteUploads(bucket);
    const keys = await this.keys(bucket);
    for (let i = 0; i < keys.length; i += 16) {
      await Promise.all(keys.slice(i, i + 16).map((key) => this.request("DELETE", `${bucket}/${encodeKey(key)}`)));
    }
  }

  /** Lets the world read every object of a bucket, but not list them. */
  async makePublic(bucket: string): Promise<void> {
    const statement = { Effect: "Allow", Principal: "*", Action: "s3:GetObject", Resource: `arn:aws:s3:::${bucket}/*` };
    await this.request("PUT", `${bucket}?policy`, JSON.stringify({ Version: "2012-10-17", Statement: [statement] }));
  }

  /** Names of all objects that begin with `prefix`. */
  async keys(bucket: string, prefix = ""): Promise<string[]> {
    const keys: string[] = [];
    for (let token: string | undefined = ""; token !== undefined;) {
      const query: string = new URLSearchParams({
        "list-type": "2",
        prefix,
        ...(token ? { "continuation-token": token } : {}),
      }).toString();
      const page = await this.request("GET", `${bucket}?${query}`);
      keys.push(...[...page.matchAll(/<Key>([^<]*)<\/Key>/g)].map((m) => unescapeXml(m[1] ?? "")));
      token = /<NextContinuationToken>([^<]*)</.exec(page)?.[1];
    }
    return keys;
  }

  get(bucket: string, key: string): Promise<string> {
    return this.request("GET", `${bucket}/${encodeKey(key)}`);
  }

  private async deleteUploads(bucket: string): Promise<void> {
    const page = await this.request("GET", `${bucket}?uploads=`, undefined, [200, 404, 501]);
    for (const m of page.matchAll(/<Key>([^<]*)<\/Key>[\s\S]*?<UploadId>([^<]*)<\/UploadId>/g)) {
      await this.request(
        "DELETE",
        `${bucket}/${encodeKey(unescapeXml(m[1] ?? ""))}?uploadId=${encodeURIComponent(m[2] ?? "")}`,
        undefined,
        [204, 404],
      );
    }
  }
}

const encodeKey = (key: string): string => key.split("/").map(encodeURIComponent).join("/");
const unescapeXml = (text: string): string =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#34;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&amp;", "&");
