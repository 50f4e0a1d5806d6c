/** The policy pack, started and asked as the engine does it (its language host's RunPlugin), without the engine. */
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import * as path from "node:path";
import type * as Grpc from "@grpc/grpc-js";
import type * as Messages from "@pulumi/pulumi/proto/analyzer_pb";
import { onTestFinished } from "vitest";
import { projectFolder } from "../../lib/plan";

/** How the engine sends what only the update will tell (sdk/nodejs/runtime/rpc.ts). */
export const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

interface Asked {
  type: string;
  name: string;
  properties: object;
}

/** What the pack said of a resource. */
export interface Diagnostic {
  policy: string;
  mandatory: boolean;
  message: string;
  urn: string;
}

// The SDK's own copies: messages of another one are none to it.
const load = createRequire(require.resolve("@pulumi/pulumi/package.json"));
const grpc = load("@grpc/grpc-js") as typeof Grpc;
const messages = load("./proto/analyzer_pb") as typeof Messages;
const { AnalyzerClient } = load("./proto/analyzer_grpc_pb") as {
  AnalyzerClient: new (address: string, credentials: Grpc.ChannelCredentials) => Client;
};
const { Struct } = load("google-protobuf/google/protobuf/struct_pb") as {
  Struct: { fromJavaScript(value: object): Parameters<Messages.AnalyzeRequest["setProperties"]>[0] };
};
type Answer = (error: Error | null, response: Messages.AnalyzeResponse) => void;
interface Client {
  analyze(request: Messages.AnalyzeRequest, answer: Answer): void;
  analyzeStack(request: Messages.AnalyzeStackRequest, answer: Answer): void;
  close(): void;
}

export const urnOf = ({ type, name }: Asked): string => `urn:pulumi:home::homestead::${type}::${name}`;

/** Ends with the running test. */
export async function startPack() {
  const folder = path.join(projectFolder, "policy");
  const program = require.resolve("@pulumi/pulumi/cmd/run-policy-pack");
  const child = spawn(process.execPath, [program, "127.0.0.1:1", folder], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill());
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const port = await new Promise<string>((resolve, reject) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString().trim()));
    child.once("exit", (code) => reject(new Error(`the policy pack ended with ${code}: ${errors}`)));
  });
  const client = new AnalyzerClient(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  onTestFinished(() => client.close());

  const asked = (ask: (answer: Answer) => void) =>
    new Promise<Diagnostic[]>((resolve, reject) =>
      ask((error, response) => (error ? reject(error) : resolve(response.getDiagnosticsList().map(diagnostic)))),
    );
  return {
    resource(of: Asked) {
      const request = filled(new messages.AnalyzeRequest(), of);
      return asked((answer) => client.analyze(request, answer));
    },
    stack(of: Asked[]) {
      const request = new messages.AnalyzeStackRequest();
      request.setResourcesList(of.map((one) => filled(new messages.AnalyzerResource(), one)));
      return asked((answer) => client.analyzeStack(request, answer));
    },
  };
}

function filled<T extends Messages.AnalyzeRequest | Messages.AnalyzerResource>(message: T, of: Asked): T {
  message.setType(of.type);
  message.setName(of.name);
  message.setUrn(urnOf(of));
  message.setProperties(Struct.fromJavaScript(of.properties));
  message.setOptions(new messages.AnalyzerResourceOptions());
  return message;
}

const diagnostic = (said: Messages.AnalyzeDiagnostic): Diagnostic => ({
  policy: said.getPolicyname(),
  mandatory: said.getEnforcementlevel() === messages.EnforcementLevel.MANDATORY,
  message: said.getMessage(),
  urn: said.getUrn(),
});
