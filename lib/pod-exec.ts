/** Running a command in a pod, as `kubectl exec` does. */
import { PassThrough, Readable } from "node:stream";
import * as k8s from "@kubernetes/client-node";

export interface PodCommand {
  namespace: string;
  pod: string;
  container: string;
  command: string[];
  /** Standard input: where a text goes that nobody may read on a command line. */
  input?: string;
  /** @default 60 */
  seconds?: number;
}

/** @returns standard output. @throws Error with the last thing the command said, when it fails or takes too long */
export async function execInPod(config: k8s.KubeConfig, what: PodCommand): Promise<string> {
  const seconds = what.seconds ?? 60;
  const out = collector();
  const err = collector();
  const input = what.input === undefined ? null : Readable.from([what.input]);
  return new Promise<string>((resolve, reject) => {
    const fail = (reason: string) => reject(new Error(`${what.pod}: ${reason}`));
    const timer = setTimeout(() => fail(`no answer within ${seconds} s`), seconds * 1000);
    const done = (status: k8s.V1Status) => {
      clearTimeout(timer);
      if (status.status === "Success") resolve(out.text());
      else fail(lastLine(err.text()) || lastLine(out.text()) || (status.message ?? "the command failed"));
    };
    new k8s.Exec(config)
      .exec(what.namespace, what.pod, what.container, what.command, out.stream, err.stream, input, false, done)
      .then((socket: { onclose: unknown }) => {
        // A node that dies closes the connection without a word about the command.
        socket.onclose = () => setTimeout(() => fail("the connection ended"), 1000);
      })
      .catch((error: unknown) => {
        clearTimeout(timer);
        fail(toldBy(error));
      });
  });
}

/** The client hands on what its socket says, which is an event and no Error. */
const toldBy = (error: unknown): string =>
  typeof error === "object" && error !== null && "message" in error ? String(error.message) : String(error);

function collector(): { stream: PassThrough; text: () => string } {
  const chunks: Buffer[] = [];
  const stream = new PassThrough();
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return { stream, text: () => Buffer.concat(chunks).toString("utf8") };
}

const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1)?.trim() ?? "";
