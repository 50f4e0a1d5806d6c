/** DNS records by signed dynamic updates (RFC 2136, TSIG): what `nsupdate` is told, and what its answers mean. */
import { spawn } from "node:child_process";

/** One address record of a name. */
export interface AddressRecord {
  /** Fully qualified, without the last dot. */
  name: string;
  type: "A" | "AAAA" | "CNAME";
  value: string;
  /** Seconds. */
  ttl: number;
}

/** An update, and who may make it. Plain JSON; `key` is secret. */
export interface SignedUpdate {
  /** Address or host name of the zone's primary server. */
  server: string;
  port: number;
  zone: string;
  keyName: string;
  algorithm: "hmac-sha256" | "hmac-sha512";
  /** The TSIG key in base64. */
  key: string;
  records: AddressRecord[];
}

/** The update was not made. The message is one line: what was expected, what came, how to mend it. */
export class UpdateError extends Error {
  override name = "UpdateError";
}

/** Types that a name's address may have been of before; what is left over from another site would still be followed. */
const addressTypes = ["A", "AAAA", "CNAME"];

/**
 * The text for `nsupdate`: all records in one update, which a server carries out as a whole or not at all. Each name's
 * old addresses go in the same update that brings the new one, so that no moment is without.
 */
export function nsupdateScript(update: SignedUpdate): string {
  const { server, port, zone, keyName, algorithm, key, records } = update;
  const lines = [`server ${server} ${port}`, `zone ${zone}.`, `key ${algorithm}:${keyName} ${key}`];
  for (const { name, type, value, ttl } of records) {
    for (const old of addressTypes) lines.push(`update delete ${name}. ${old}`);
    lines.push(`update add ${name}. ${ttl} ${type} ${type === "CNAME" ? `${value}.` : value}`);
  }
  return [...lines, "send", ""].join("\n");
}

/** The most a server may take, in seconds, and `nsupdate` with all its tries. */
const patience = { answer: 4, update: 20, program: 60 };

/** Makes the update. @throws UpdateError with one line for the person at the update */
export async function sendUpdate(update: SignedUpdate): Promise<void> {
  const { code, output } = await nsupdate(nsupdateScript(update));
  if (code !== 0) throw new UpdateError(explain(update, output));
}

/** Whether this machine has `nsupdate`. */
export async function hasNsupdate(): Promise<boolean> {
  try {
    await nsupdate("", ["-V"]);
    return true;
  } catch {
    return false;
  }
}

/** Runs `nsupdate` with `input`, which has the key in it: never an argument, which everyone on the machine can read. */
function nsupdate(
  input: string,
  args = ["-t", String(patience.update), "-u", String(patience.answer), "-r", "2"],
): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn("nsupdate", args, {
      env: { PATH: process.env["PATH"], LC_ALL: "C" },
      timeout: patience.program * 1000,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => (output += text));
    }
    child.on("error", () => reject(new UpdateError(missing)));
    child.stdin.on("error", () => undefined).end(input);
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

const missing = "dns update failed: expected nsupdate on this machine, got none; apt-get install bind9-dnsutils";

/** What a refusal means, the first that matches: pattern in nsupdate's output, what was expected, how to mend it. */
const refusals: readonly (readonly [RegExp, (u: SignedUpdate) => string, (u: SignedUpdate) => string])[] = [
  [
    /BADKEY/,
    ({ keyName }) => `a server that knows the key '${keyName}'`,
    ({ algorithm }) => `check dns.keyName and dns.algorithm (${algorithm}) against the server's key`,
  ],
  [
    /BADSIG|verify failure|tsig indicates error/,
    ({ keyName }) => `the secret of the key '${keyName}'`,
    () => "pulumi config set --secret homestead:dnsKey (the text after `secret` in the server's key)",
  ],
  [
    /BADTIME/,
    () => "clocks that differ by less than five minutes",
    () => "set the clock of this machine or of the server",
  ],
  [
    /NOTAUTH/,
    ({ zone }) => `a server that is primary for ${zone}`,
    () => "check dns.server and dns.zone: a secondary, or another zone's server, takes no updates",
  ],
  [
    /NOTZONE/,
    ({ zone, records }) => `names of the zone ${zone} (${records.map(({ name }) => name).join(", ")})`,
    () => "check dns.zone",
  ],
  [
    /REFUSED/,
    ({ keyName, zone }) => `the key '${keyName}' to be allowed to change A, AAAA and CNAME records in ${zone}`,
    () => "grant it on the server: update-policy (BIND), acl (Knot)",
  ],
  [
    /couldn't get address|not found/,
    () => "a server whose name can be looked up",
    () => "check dns.server; an IP address will do",
  ],
  [
    /timed out|refused|unreachable|Communication with/,
    () => "a server that answers",
    () => "check dns.server and dns.port, and that no firewall is between",
  ],
];

/** `dns update failed: <server>: expected …, got …; <how to mend it>`. The key is never in it. */
function explain(update: SignedUpdate, output: string): string {
  const said = output
    .replaceAll(update.key, "[key]")
    .split("\n")
    .map((line) => line.replace(/^;\s*/, "").trim())
    .filter((line) => line !== "");
  // "update failed: NOTAUTH(BADKEY)" says more than what comes before it.
  const got = said.find((line) => line.startsWith("update failed")) ?? said.at(-1) ?? "no word";
  const where = `dns update failed: ${update.server} port ${update.port}`;
  const refusal = refusals.find(([pattern]) => pattern.test(said.join("\n")));
  if (!refusal) return `${where}: expected the update to be made, got ${got.replace(/^update failed: /, "")}`;
  const [, expected, mend] = refusal;
  return `${where}: expected ${expected(update)}, got ${got.replace(/^update failed: /, "")}; ${mend(update)}`;
}
