/** A chart repository's index and nothing behind it: enough to ask which versions there are. */
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { stringify } from "yaml";
import { atExit } from "./processes";
import type { Environment } from "./environment";

/** @returns the repository's URL; it answers until the scenario ends */
export async function serveChartIndex(environment: Environment, chart: string, versions: string[]): Promise<string> {
  const index = stringify({
    apiVersion: "v1",
    entries: { [chart]: versions.map((version) => ({ name: chart, version, urls: [`${chart}-${version}.tgz`] })) },
  });
  const server = http.createServer((request, response) => {
    if (request.url === "/index.yaml") response.writeHead(200, { "content-type": "application/yaml" }).end(index);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, environment.hostAddress, resolve);
  });
  atExit(() => server.close());
  return `http://${environment.hostAddress}:${(server.address() as AddressInfo).port}`;
}
