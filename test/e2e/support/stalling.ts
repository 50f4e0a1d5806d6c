/** A remote server that never comes to the end of its answers: whoever delivers there has the job in hand for as long as it is there. */
import * as fs from "node:fs";
import * as https from "node:https";
import * as path from "node:path";
import { serverCertificate } from "./authority";
import { atExit } from "./processes";
import type { Context } from "./scenario";

export class StallingServer {
  private constructor(
    /** Bodies that it was sent. */
    readonly taken: string[],
    readonly stop: () => Promise<void>,
  ) {}

  /** In the place of one that is away: under its name, at its port. */
  static async start({ environment, logs }: Context, name: string, port: number): Promise<StallingServer> {
    const own =
      environment.peer ??
      (await serverCertificate(environment, path.join(logs, `${name}-stalling`), [`${name}.${environment.zone}`]));
    const taken: string[] = [];
    const server = https.createServer(
      { cert: fs.readFileSync(own.certificate), key: fs.readFileSync(own.key) },
      (request, response) => {
        let body = "";
        request.on("data", (part: Buffer) => (body += part.toString()));
        request.on("end", () => {
          taken.push(body);
          // No success: its text is read to the end. A byte in time, before anybody's patience with a silence is over.
          response.writeHead(503);
          const drip = setInterval(() => response.write("."), 2000);
          response.on("close", () => clearInterval(drip));
        });
      },
    );
    await new Promise<void>((started, failed) => {
      server.once("error", failed);
      server.listen(port, environment.hostAddress, started);
    });
    const stop = atExit(() => {
      server.close();
      server.closeAllConnections();
    });
    return new StallingServer(taken, stop);
  }
}
