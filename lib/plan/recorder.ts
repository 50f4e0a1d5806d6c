/**
 * Records every registration as it goes to the engine: the SDK's mocks see a resource's inputs, but none of its
 * options (parent, protect, retainOnDelete, dependsOn, …). For that the mock monitor has to be wrapped, and it is
 * internal to the SDK: {@link SdkMovedError} says so when an update of the SDK has changed it.
 */
import { mask } from "./mask";
import type { JsonObject, Masked } from "./mask";
import type { Placeholders } from "./placeholders";
import type { PlannedOptions, PlannedResource } from "../plan";

/** The SDK's internals are not what this file was written for (@pulumi/pulumi 3.260). */
export class SdkMovedError extends Error {
  constructor(missing: string) {
    super(
      `the Pulumi SDK no longer has ${missing}: \`homestead plan\` and the tests of whole stacks read registrations there (lib/plan/recorder.ts has to follow the new SDK)`,
    );
  }
}

interface Message {
  toJavaScript(): unknown;
}
interface Timeouts {
  getCreate(): string;
  getUpdate(): string;
  getDelete(): string;
}
type HookLists = Record<`get${string}List`, () => string[]>;
interface RegisterRequest {
  getType(): string;
  getName(): string;
  getParent(): string;
  getCustom(): boolean;
  getProvider(): string;
  getObject(): Message | undefined;
  getProtect(): boolean;
  getRetainondelete(): boolean;
  getDeletebeforereplace(): boolean;
  getDependenciesList(): string[];
  getDeletedwith(): string;
  getIgnorechangesList(): string[];
  getReplaceonchangesList(): string[];
  getAdditionalsecretoutputsList(): string[];
  getAliasesList(): unknown[];
  getImportid(): string;
  getCustomtimeouts(): Timeouts | undefined;
  getHooks(): HookLists | undefined;
}
interface ReadRequest {
  getType(): string;
  getName(): string;
  getParent(): string;
  getProvider(): string;
  getId(): string;
  getProperties(): Message | undefined;
  getDependenciesList(): string[];
  getAdditionalsecretoutputsList(): string[];
}
interface Registered {
  getUrn(): string;
}
interface OutputsRequest {
  getUrn(): string;
  getOutputs(): Message | undefined;
}
type Callback = (error: unknown, response: Registered | undefined) => void;
type Register<Request> = (request: Request, callback: Callback) => unknown;
type Answer = (...args: unknown[]) => void;

/** The part of the SDK's mock monitor that is wrapped. */
export interface Monitor {
  registerResource: Register<RegisterRequest>;
  readResource: Register<ReadRequest>;
  registerResourceOutputs: (
    request: OutputsRequest,
    callback: (error: unknown, response: object | undefined) => void,
  ) => unknown;
  registerResourceHook?: Answer;
  registerErrorHook?: Answer;
}
interface RuntimeSettings {
  getMonitor(): Monitor | undefined;
  waitForRPCs(): Promise<void>;
}

/** The getters that a registration must have; a missing one would quietly drop an option from the record. */
const registerGetters = [
  "getType",
  "getName",
  "getParent",
  "getCustom",
  "getProvider",
  "getObject",
  "getProtect",
  "getRetainondelete",
  "getDeletebeforereplace",
  "getDependenciesList",
  "getDeletedwith",
  "getIgnorechangesList",
  "getReplaceonchangesList",
  "getAdditionalsecretoutputsList",
  "getAliasesList",
  "getImportid",
  "getCustomtimeouts",
  "getHooks",
] as const satisfies (keyof RegisterRequest)[];
const readGetters = [
  "getType",
  "getName",
  "getParent",
  "getProvider",
  "getId",
  "getProperties",
  "getDependenciesList",
  "getAdditionalsecretoutputsList",
] as const satisfies (keyof ReadRequest)[];
const outputsGetters = ["getUrn", "getOutputs"] as const satisfies (keyof OutputsRequest)[];
const rootType = "pulumi:pulumi:Stack";
const occasions = [
  "BeforeCreate",
  "AfterCreate",
  "BeforeUpdate",
  "AfterUpdate",
  "BeforeDelete",
  "AfterDelete",
  "OnError",
];

type Load = (module: string) => unknown;

/** Finds the internals, or says which one is gone. @throws SdkMovedError */
export function internalsOf(load: Load): { monitor: Monitor; waitForRPCs: () => Promise<void> } {
  const settings = load("@pulumi/pulumi/runtime/settings") as Partial<RuntimeSettings>;
  if (typeof settings.getMonitor !== "function") throw new SdkMovedError("getMonitor in runtime/settings");
  if (typeof settings.waitForRPCs !== "function") throw new SdkMovedError("waitForRPCs in runtime/settings");
  const monitor = settings.getMonitor();
  for (const method of ["registerResource", "readResource", "registerResourceOutputs"] as const) {
    if (typeof monitor?.[method] !== "function") throw new SdkMovedError(`${method} in its mock monitor`);
  }
  const messages = load("@pulumi/pulumi/proto/resource_pb") as Record<string, { prototype: object } | undefined>;
  const needed = {
    RegisterResourceRequest: registerGetters,
    ReadResourceRequest: readGetters,
    RegisterResourceOutputsRequest: outputsGetters,
  };
  for (const [message, getters] of Object.entries(needed)) {
    for (const getter of getters) {
      if (!(getter in (messages[message]?.prototype ?? {}))) throw new SdkMovedError(`${getter} in its ${message}`);
    }
  }
  return { monitor: monitor as Monitor, waitForRPCs: settings.waitForRPCs };
}

/** What was registered so far. */
export interface Recorded {
  resources: PlannedResource[];
  /** The stack's outputs, once the program has ended. */
  outputs: Masked;
}

/** Lets every registration pass to the mocks and keeps what was asked for. Call it after `setMocks`. */
export function record(load: Load, placeholders: Placeholders): Recorded {
  const { monitor } = internalsOf(load);
  const recorded: Recorded = { resources: [], outputs: { value: {}, secretPaths: [], leaks: [] } };
  let root = "";

  const register = monitor.registerResource.bind(monitor);
  monitor.registerResource = (request, callback) =>
    register(request, (error, response) => {
      if (response && request.getType() === rootType) root = response.getUrn();
      else if (response) {
        recorded.resources.push({
          ...common(request, response, root, request.getObject(), placeholders),
          kind: request.getCustom() ? "resource" : "component",
          options: optionsOf(request),
        });
      }
      callback(error, response);
    });

  const read = monitor.readResource.bind(monitor);
  monitor.readResource = (request, callback) =>
    read(request, (error, response) => {
      if (response) {
        recorded.resources.push({
          ...common(request, response, root, request.getProperties(), placeholders),
          kind: "read",
          options: {
            ...noOptions(),
            dependsOn: request.getDependenciesList(),
            importId: request.getId(),
            additionalSecretOutputs: request.getAdditionalsecretoutputsList(),
          },
        });
      }
      callback(error, response);
    });

  const registerOutputs = monitor.registerResourceOutputs.bind(monitor);
  monitor.registerResourceOutputs = (request, callback) => {
    if (request.getUrn() === root) recorded.outputs = mask(request.getOutputs()?.toJavaScript() ?? {}, placeholders);
    return registerOutputs(request, callback);
  };

  // The mock monitor has no hooks at all; the engine runs them, and there is none here.
  const accept: Answer = (...args) => (args.at(-1) as (error: null, response: object) => void)(null, {});
  monitor.registerResourceHook ??= accept;
  monitor.registerErrorHook ??= accept;
  return recorded;
}

/** Waits until nothing is being registered any more. */
export async function settled(load: Load): Promise<void> {
  await internalsOf(load).waitForRPCs();
}

interface Common {
  getType(): string;
  getName(): string;
  getParent(): string;
  getProvider(): string;
}

function common(
  request: Common,
  response: Registered,
  root: string,
  inputs: Message | undefined,
  placeholders: Placeholders,
) {
  const shown = mask(inputs?.toJavaScript() ?? {}, placeholders);
  return {
    urn: response.getUrn(),
    type: request.getType(),
    name: request.getName(),
    ...optional("parent", request.getParent() === root ? "" : request.getParent()),
    // `urn::id`: only the URN is of interest.
    ...optional("provider", request.getProvider().split("::").slice(0, 4).join("::")),
    inputs: shown.value as JsonObject,
    secretPaths: shown.secretPaths,
    leaks: shown.leaks,
  };
}

const optional = <Key extends string>(key: Key, value: string) =>
  (value === "" ? {} : { [key]: value }) as Partial<Record<Key, string>>;

const noOptions = (): PlannedOptions => ({
  protect: false,
  retainOnDelete: false,
  deleteBeforeReplace: false,
  dependsOn: [],
  ignoreChanges: [],
  replaceOnChanges: [],
  additionalSecretOutputs: [],
  aliases: 0,
  timeouts: {},
  hooks: {},
});

function optionsOf(request: RegisterRequest): PlannedOptions {
  const timeouts = request.getCustomtimeouts();
  const hooks = request.getHooks();
  const named = occasions.map((occasion) => {
    const list = hooks?.[`get${occasion}List`]?.() ?? [];
    return [`${occasion.charAt(0).toLowerCase()}${occasion.slice(1)}`, list] as const;
  });
  return {
    protect: request.getProtect(),
    retainOnDelete: request.getRetainondelete(),
    deleteBeforeReplace: request.getDeletebeforereplace(),
    dependsOn: request.getDependenciesList(),
    ...optional("deletedWith", request.getDeletedwith()),
    ignoreChanges: request.getIgnorechangesList(),
    replaceOnChanges: request.getReplaceonchangesList(),
    additionalSecretOutputs: request.getAdditionalsecretoutputsList(),
    aliases: request.getAliasesList().length,
    ...optional("importId", request.getImportid()),
    timeouts: {
      ...optional("create", timeouts?.getCreate() ?? ""),
      ...optional("update", timeouts?.getUpdate() ?? ""),
      ...optional("delete", timeouts?.getDelete() ?? ""),
    },
    hooks: Object.fromEntries(named.filter(([, list]) => list.length > 0)),
  };
}
