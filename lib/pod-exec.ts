/** Running a command in a pod, as `kubectl exec` does. */
import { PassThrough, Readable } from "node:stream";
import type * as k8s from "@kubernetes/client-node";
import { Late, unlessAborted } from "./attempt";
import { kubernetes } from "./kubernetes";

export interface PodCommand {
  namespace: string;
  pod: string;
  container: string;
  command: string[];
  /** Standard input: where a text goes that nobody may read on a command line. */
  input?: string;
  /** @default 60 */
  seconds?: number;
  /** Ends it early. The connection is closed; a command that notices that only when it is done is left to itself. */
  signal?: AbortSignal;
}

/** What is used of the client's WebSocket. */
interface Socket {
  onclose: unknown;
  terminate: () => void;
}

/**
 * @returns standard output
 * @throws Error with the last thing the command said, when it fails; Late when it takes too long; what the signal was aborted
 *   with
 */
export async function execInPod(config: k8s.KubeConfig, what: PodCommand): Promise<string> {
  const { seconds = 60, signal } = what;
  signal?.throwIfAborted();
  const out = collector();
  const err = collector();
  const input = what.input === undefined ? null : Readable.from([what.input]);
  let timer: NodeJS.Timeout | undefined;
  let socket: Socket | undefined;
  let over = false;
  const answered = new Promise<string>((resolve, reject) => {
    const fail = (reason: string) => reject(new Error(`${what.pod}: ${reason}`));
    timer = setTimeout(() => reject(new Late(`${what.pod}: no answer within ${seconds} s`)), seconds * 1000);
    const done = (status: k8s.V1Status) => {
      if (status.status === "Success") resolve(out.text());
      else fail(lastLine(err.text()) || lastLine(out.text()) || (status.message ?? "the command failed"));
    };
    new (kubernetes().Exec)(config)
      .exec(what.namespace, what.pod, what.container, what.command, out.stream, err.stream, input, false, done)
      .then((opened: Socket) => {
        socket = opened;
        // A node that dies closes the connection without a word about the command.
        opened.onclose = () => setTimeout(() => fail("the connection ended"), 1000);
        if (over) opened.terminate();
      })
      .catch((error: unknown) => fail(toldBy(error)));
  });
  try {
    return await (signal === undefined ? answered : unlessAborted(signal, answered));
  } catch (error) {
    // Open, it would keep the program from ending.
    socket?.terminate();
    throw error;
  } finally {
    over = true;
    clearTimeout(timer);
  }
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
