/**
 * HTTP as another server on the internet speaks it, but asked of an address of our choice: the ingress is verified
 * before DNS points there. Plain node:http(s), so that no proxy, agent or cache of this machine comes between.
 */
import * as dns from "node:dns";
import * as http from "node:http";
import * as https from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";

/** Which hosts are asked where. */
export interface Ingress {
  /** Hosts that are asked at `address`, with the ports below. */
  hosts: string[];
  /** IP address or host name of the ingress; null asks where public DNS says. */
  address: string | null;
  httpPort: number;
  httpsPort: number;
  /** DNS servers for `hosts` where `address` is null, as `192.0.2.1` or `192.0.2.1:53`; the system's if empty. */
  resolver: string[];
  /** PEM, trusted beside the public authorities (Mozilla's list, as Node.js brings it). */
  ca: string | undefined;
}

/** An HTTP answer; 101 where the server switched protocols. Header names are lower case. */
export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

export interface Question {
  /** @default "GET" */
  method?: "GET" | "PUT" | "DELETE";
  headers?: Record<string, string>;
  body?: string;
  /** `unchecked` leaves judging the certificate to the checks that are about it. @default "checked" */
  certificate?: "checked" | "unchecked";
}

/** The certificate a host serves, and why its chain is not trusted, as OpenSSL's code, if it is not. */
export interface ServedCertificate {
  x509: NonNullable<ReturnType<tls.TLSSocket["getPeerX509Certificate"]>>;
  distrust: string | undefined;
}

/** Nothing that is verified is longer; more is not read. */
const longestBody = 1 << 20;

/** Asks URLs. Every failure of the network is an {@link Unreachable}. */
export class Client {
  private readonly context: tls.SecureContext;

  /** @param seconds how long one question may take, connection and body included. */
  constructor(
    private readonly ingress: Ingress,
    private readonly seconds: number,
  ) {
    this.context = tls.createSecureContext({
      // What the world trusts, not what this machine was told to trust besides.
      ca: [...tls.rootCertificates, ...(ingress.ca ? [ingress.ca] : [])],
    });
  }

  /** Whether `url` is asked at the ingress. */
  isOurs(url: string): boolean {
    return this.ingress.hosts.includes(new URL(url).hostname);
  }

  /** Asks once and follows nothing. @throws Unreachable */
  async ask(url: string, question: Question = {}): Promise<Answer> {
    const to = new URL(url);
    const secure = to.protocol === "https:";
    const options: https.RequestOptions = {
      ...this.destination(to),
      agent: false,
      method: question.method ?? "GET",
      path: to.pathname + to.search,
      headers: { host: to.host, "user-agent": "homestead-verification", ...question.headers },
      signal: AbortSignal.timeout(this.seconds * 1000),
      ...(secure ? this.security(to, question.certificate ?? "checked") : {}),
    };
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => reject(new Unreachable(this.reason(error)));
      const request = (secure ? https : http).request(options);
      request.on("error", fail);
      request.on("upgrade", ({ statusCode = 0, headers }, socket) => {
        socket.destroy();
        resolve({ status: statusCode, headers, body: "" });
      });
      request.on("response", (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        const done = () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          });
        response.on("error", fail);
        response.on("end", done);
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          length += chunk.length;
          if (length <= longestBody) return;
          done();
          request.destroy();
        });
      });
      request.end(question.body);
    });
  }

  /** The certificate served for `host` over HTTPS, whatever it is. @throws Unreachable */
  async certificate(host: string): Promise<ServedCertificate> {
    const to = new URL(`https://${host}/`);
    const signal = AbortSignal.timeout(this.seconds * 1000);
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => reject(new Unreachable(this.reason(error)));
      const socket = tls.connect({
        ...this.destination(to),
        ...this.security(to, "unchecked"),
        // Names are judged by the caller; what is left is the chain alone.
        checkServerIdentity: () => undefined,
      });
      signal.addEventListener("abort", () => socket.destroy(signal.reason as Error));
      socket.on("error", fail);
      socket.on("secureConnect", () => {
        const x509 = socket.getPeerX509Certificate();
        // Typed as an error, and a code at run time.
        const distrust = socket.authorized ? undefined : String(socket.authorizationError);
        socket.destroy();
        if (x509) resolve({ x509, distrust });
        else fail(new Error("no certificate was served"));
      });
    });
  }

  private destination(to: URL): { host: string; port: number; lookup?: net.LookupFunction } {
    const { hosts, address, httpPort, httpsPort, resolver } = this.ingress;
    const secure = to.protocol === "https:";
    // URL keeps the brackets of an IPv6 address; a socket wants none.
    const host = to.hostname.replace(/^\[|\]$/g, "");
    if (!hosts.includes(host)) return { host, port: to.port ? Number(to.port) : secure ? 443 : 80 };
    const port = to.port ? Number(to.port) : secure ? httpsPort : httpPort;
    if (address !== null) return { host: address, port };
    return { host, port, ...(resolver.length > 0 ? { lookup: lookupBy(resolver) } : {}) };
  }

  private security(to: URL, certificate: "checked" | "unchecked"): tls.ConnectionOptions {
    const host = to.hostname.replace(/^\[|\]$/g, "");
    return {
      secureContext: this.context,
      rejectUnauthorized: certificate === "checked",
      // RFC 6066 knows names only.
      ...(net.isIP(host) === 0 ? { servername: host } : {}),
    };
  }

  private reason(error: Error): string {
    if (error.name === "AbortError" || error.name === "TimeoutError") return `no answer within ${this.seconds} s`;
    // Several addresses were tried: the error of all has no text of its own.
    if (error instanceof AggregateError) return error.errors.map((e: unknown) => (e as Error).message).join("; ");
    return error.message || error.name;
  }
}

/** The question had no answer; the message says why, in one line. */
export class Unreachable extends Error {
  constructor(reason: string) {
    super(reason.split("\n")[0]);
  }
}

/** A look-up that asks the given servers and not the system. */
function lookupBy(servers: string[]): net.LookupFunction {
  const resolver = new dns.promises.Resolver({ timeout: 3000, tries: 2 });
  resolver.setServers(servers);
  return (host, options, callback) => {
    const found = Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    void found.then(([v4, v6]) => {
      const addresses = [
        ...(v4.status === "fulfilled" ? v4.value.map((address) => ({ address, family: 4 })) : []),
        ...(v6.status === "fulfilled" ? v6.value.map((address) => ({ address, family: 6 })) : []),
      ];
      const [first] = addresses;
      if (!first) callback(v4.status === "rejected" ? (v4.reason as Error) : new Error(`no address of ${host}`), "", 0);
      else if (options.all) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
}
