/**
 * The test authority, which vouches for the remote server, and nothing else.
 *
 * The site's own certificate does not come from it: the program installs cert-manager itself, so an issuer of ours
 * could only be made after the first half of an update. Scenarios let the program make its authority
 * (`certificates.kind: selfSigned`), and the remote server is told to believe that one, read from the cluster. The
 * other way round Mastodon (here the stand-in) must believe the remote server, and what an image believes is baked
 * in: hence an authority that is made once, kept outside the checkout, and given to the image's build.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { must } from "./processes";
import type { Environment } from "./environment";

export interface KeyPair {
  /** Path of the certificate (PEM). */
  certificate: string;
  /** Path of the key (PEM). */
  key: string;
}

/** The authority, made at the first call on a machine. */
export async function testAuthority(environment: Environment): Promise<KeyPair> {
  const folder = path.join(environment.cache, "authority");
  const pair = { certificate: path.join(folder, "ca.crt"), key: path.join(folder, "ca.key") };
  if (fs.existsSync(pair.certificate)) return pair;
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const unfinished = `${pair.certificate}.new`;
  await openssl(environment, [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "3650",
    "-keyout",
    pair.key,
    "-out",
    unfinished,
    "-subj",
    "/CN=homestead end-to-end tests",
    "-addext",
    "keyUsage=critical,keyCertSign,cRLSign",
  ]);
  fs.renameSync(unfinished, pair.certificate);
  return pair;
}

/** A server certificate for some host names, signed by the test authority. */
export async function serverCertificate(environment: Environment, folder: string, hosts: string[]): Promise<KeyPair> {
  const authority = await testAuthority(environment);
  fs.mkdirSync(folder, { recursive: true });
  const pair = { certificate: path.join(folder, "server.crt"), key: path.join(folder, "server.key") };
  const request = path.join(folder, "server.csr");
  const extensions = path.join(folder, "server.ext");
  fs.writeFileSync(
    extensions,
    `basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=${hosts.map((h) => `DNS:${h}`).join(",")}\n`,
  );
  await openssl(environment, [
    "req",
    "-new",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-keyout",
    pair.key,
    "-out",
    request,
    "-subj",
    `/CN=${hosts[0] ?? ""}`,
  ]);
  await openssl(environment, [
    "x509",
    "-req",
    "-in",
    request,
    "-CA",
    authority.certificate,
    "-CAkey",
    authority.key,
    "-set_serial",
    `0x${Date.now().toString(16)}`,
    "-days",
    "30",
    "-out",
    pair.certificate,
    "-extfile",
    extensions,
  ]);
  return pair;
}

const openssl = (environment: Environment, args: string[]) =>
  must("openssl", args, { env: environment.childEnv, seconds: 30 });
