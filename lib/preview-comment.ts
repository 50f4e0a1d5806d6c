/**
 * What a pull request's comment and the weekly drift report say. Pure: text in, Markdown out.
 *
 * Manifests, resource names and error texts come from the pull request, so they are shown only inside code, where
 * neither a mention nor HTML nor a fence of theirs has any effect.
 */
import { stripVTControlCharacters } from "node:util";
import { createTwoFilesPatch } from "diff";
import { parse } from "yaml";
import { z } from "zod";
import { shortType } from "./plan/render";
import { UserError } from "./user-error";

/** GitHub takes 65,536 characters; counted here in bytes, which are never fewer, with room for a heading. */
export const commentLimit = 65_000;

/** A line that is longer is cut, such as a bundled script or a certificate. Characters. */
const lineLimit = 1_000;
/** What `details` needs beside its summary and body. Bytes. */
const detailsFrame = 20;
/** Parts of the comment that must not crowd out the manifest difference. Bytes. */
const errorRoom = 6_000;
const stepRoom = 20_000;
const listRoom = 4_000;

const dataKinds = [
  "Cluster",
  "CustomResourceDefinition",
  "Namespace",
  "ObjectStore",
  "PersistentVolume",
  "PersistentVolumeClaim",
  "StatefulSet",
];

/** What will be done to one resource, as `pulumi preview --json` or `pulumi refresh --preview-only --json` says. */
export interface Step {
  op: "create" | "update" | "replace" | "delete" | "import";
  /** Such as `kubernetes:apps/v1:StatefulSet`. */
  type: string;
  /** The logical name. */
  name: string;
  /** Properties that differ, `data.a: "1" => "2"`. */
  changes: string[];
  /** Properties that force a replacement. */
  reasons: string[];
  /** The object stays in the cluster when the engine lets go of it (`retainOnDelete`). */
  kept: boolean;
}

export interface Preview {
  steps: Step[];
  unchanged: number;
  /** Why it failed; none if it did not. */
  errors: string[];
}

/** How much is known about the cluster. */
export type Cluster =
  | { kind: "previewed"; preview: Preview }
  /** `reason` follows "could not be reached", such as `no kubeconfig`. */
  | { kind: "unreachable"; reason: string }
  /** A fork's pull request: there are no secrets, so nothing was asked. */
  | { kind: "unasked" };

/** Manifests by file name, as `homestead plan --update` writes them. */
export type Manifests = ReadonlyMap<string, string>;

export interface Comment {
  /** The stack's name. */
  site: string;
  cluster: Cluster;
  manifests: { base: Manifests; head: Manifests };
  /** Commit the manifests are compared with. */
  base: string;
  /** The pull request's newest commit. */
  head: string;
  /** Bytes. @default commentLimit */
  limit?: number;
}

/** First line of the comment, by which the next run finds it. */
export const marker = (kind: "preview" | "drift", site: string): string =>
  `<!-- homestead-${kind}:${siteName(site)} -->`;

/** @throws UserError for a site or commit that is none. */
export function renderComment(comment: Comment): string {
  const { cluster, manifests, base, head, limit = commentLimit } = comment;
  const site = siteName(comment.site);
  const files = changedFiles(manifests);
  const whole = cluster.kind === "previewed" && cluster.preview.errors.length === 0 ? cluster.preview : undefined;

  const top = [
    marker("preview", site),
    `### ${site}: ${title(cluster)}`,
    ...notice(site, cluster),
    // A preview that failed on the way has seen only a part of the steps.
    ...(whole
      ? dataAlert("What holds data is replaced or deleted", whole.steps.flatMap(dataLoss))
      : dataAlert("What holds data is no longer planned: an update would delete it", files.flatMap(removedData))),
    ...failure("The preview failed.", cluster.kind === "previewed" ? cluster.preview.errors : []),
    ...(whole
      ? [
          counts(whole),
          ...details(
            `What \`pulumi up\` would do: ${changes(whole.steps.length)}`,
            stepLines(whole.steps),
            "text",
            stepRoom,
          ),
        ]
      : []),
  ];
  const end = `Commit ${code(shortSha(head))} against ${code(shortSha(base))}.`;

  const room = limit - bytes([...top, end].join("\n\n")) - 2;
  return `${[...top, ...manifestPart(site, files, room), end].join("\n\n")}\n`;
}

export interface Drift {
  /** The stack's name. */
  site: string;
  /** The cluster against the state: `pulumi refresh --preview-only`. */
  refresh: Preview;
  /** The program against the state: `pulumi preview`. */
  preview: Preview;
  /** What Mastodon's chart has made against the program, which neither of the two sees. */
  chart: Preview;
}

/** The vault's retention takes a backup after a month, and with it the object that the last upgrade left in the cluster. */
const isExpired = ({ op, type }: Step): boolean => op === "delete" && type.endsWith(":Backup");

/** The report, within the comment's limit; "" if the site is what its stack says. */
export function renderDrift({ site: given, refresh: seen, preview, chart }: Drift): string {
  const site = siteName(given);
  const refresh = { ...seen, steps: seen.steps.filter((step) => !isExpired(step)) };
  const parts: [what: string, preview: Preview, room: number][] = [
    ["The cluster is not what the state says (`pulumi refresh --preview-only`)", refresh, stepRoom],
    ["What Mastodon's chart has made is not what the program says (`kubectl get deployments`)", chart, listRoom],
    ["The state is not what the program says (`pulumi preview`)", preview, stepRoom],
  ];
  const found = parts.filter(([, { steps, errors }]) => steps.length > 0 || errors.length > 0);
  if (found.length === 0) return "";
  const shown = [
    marker("drift", site),
    ...dataAlert(
      "What holds data is gone from the cluster",
      refresh.steps.filter(({ op }) => op === "delete").flatMap(dataName),
    ),
    ...dataAlert("An update would replace or delete what holds data", preview.steps.flatMap(dataLoss)),
    ...found.flatMap(([what, { steps, errors }, room]) => [
      `### ${what}`,
      ...failure("It failed.", errors),
      ...details(changes(steps.length), stepLines(steps), "text", room),
    ]),
  ];
  return `${shown.join("\n\n")}\n`;
}

// ---------------------------------------------------------------- reading the engine's JSON

const stateShape = z.object({
  inputs: z.unknown().optional(),
  outputs: z.unknown().optional(),
  retainOnDelete: z.boolean().optional(),
});

const previewShape = z.object({
  steps: z.array(
    z.object({
      op: z.string(),
      urn: z.string(),
      oldState: stateShape.nullish(),
      newState: stateShape.nullish(),
      diffReasons: z.array(z.string()).nullish(),
      replaceReasons: z.array(z.string()).nullish(),
      detailedDiff: z.record(z.string(), z.object({ kind: z.string() })).nullish(),
    }),
  ),
  diagnostics: z.array(z.object({ message: z.string(), severity: z.string() })).nullish(),
});

type RawStep = z.infer<typeof previewShape>["steps"][number];

// The engine tells a replacement's parts apart; a reader does not.
const operations: Record<string, Step["op"]> = {
  create: "create",
  update: "update",
  replace: "replace",
  "create-replacement": "replace",
  "delete-replaced": "replace",
  "import-replacement": "replace",
  delete: "delete",
  import: "import",
};

/**
 * Reads what `pulumi preview --json` printed.
 *
 * @param json Its standard output.
 * @param errorText Its standard error: where it failed before the program ran, the reason stands there alone.
 * @param exitCode A failed preview is a failure even if it printed none.
 */
export function readPreview(json: string, errorText: string, exitCode: number): Preview {
  const stated = cleanLines(errorText).filter((line) => line !== "");
  const parsed = parseJson(json);
  if (parsed === undefined) {
    return {
      steps: [],
      unchanged: 0,
      errors: [stated.join("\n") || `pulumi ended with ${exitCode} and printed no JSON`],
    };
  }
  const { steps: raw, diagnostics } = parsed;
  const steps = new Map<string, Step>();
  for (const step of raw) {
    const op = operations[step.op];
    if (op === undefined || ofThisMachine(step)) continue;
    const { type, name } = readUrn(step.urn);
    const before = steps.get(step.urn);
    steps.set(step.urn, {
      op: before?.op === "replace" ? "replace" : op,
      type,
      name,
      changes: before && before.changes.length > 0 ? before.changes : propertyChanges(step),
      reasons: [...new Set([...(before?.reasons ?? []), ...(step.replaceReasons ?? [])])],
      kept: (before?.kept ?? false) || step.oldState?.retainOnDelete === true,
    });
  }
  const told = (diagnostics ?? []).filter(({ severity }) => severity === "error").map(({ message }) => message.trim());
  const errors = exitCode === 0 || told.length > 0 ? told : [stated.join("\n") || `pulumi ended with ${exitCode}`];
  if (errors.join() === unexplained) errors.push(brokenRule);
  return {
    steps: [...steps.values()].sort(inOrder),
    unchanged: new Set(raw.filter(({ urn }) => !steps.has(urn)).map(({ urn }) => urn)).size,
    errors,
  };
}

function parseJson(text: string): z.infer<typeof previewShape> | undefined {
  try {
    return previewShape.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** All that the engine says in JSON of a broken rule of the policy pack. */
const unexplained = "error: preview failed";
const brokenRule =
  "A rule of policy/ may be broken: npm test, or pulumi preview --policy-pack policy without --json, names it.";

/** The provider's kubeconfig is a path, so every other machine would be a change of it. */
const ofThisMachine = (step: RawStep): boolean =>
  step.op === "update" &&
  readUrn(step.urn).type === "pulumi:providers:kubernetes" &&
  (step.diffReasons ?? []).join() === "kubeconfig";

/** `urn:pulumi:stack::project::parent$type::name`; a name may hold `::`. */
function readUrn(urn: string): { type: string; name: string } {
  const [, , types = "", ...name] = urn.split("::");
  return { type: types.split("$").at(-1) ?? "", name: name.join("::") };
}

function propertyChanges(step: RawStep): string[] {
  const { oldState, newState } = step;
  const side = (state: typeof oldState, path: string) => valueAt(state?.inputs, path) ?? valueAt(state?.outputs, path);
  const detailed = Object.entries(step.detailedDiff ?? {});
  if (detailed.length === 0) return step.op === "create" || step.op === "delete" ? [] : (step.diffReasons ?? []);
  return detailed.map(([path, { kind }]) => {
    const [was, is] = [shortValue(side(oldState, path)), shortValue(side(newState, path))];
    if (kind.startsWith("add")) return `+ ${path}: ${is}`;
    if (kind.startsWith("delete")) return `- ${path}: ${was}`;
    return `~ ${path}: ${was} => ${is}`;
  });
}

/** The value at a path such as `data["c.d/e"]` or `spec.containers[0].image`. Whatever is secret above it stays so. */
function valueAt(value: unknown, path: string): unknown {
  const keys = [...path.matchAll(/\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.[\]]+)/g)].map(([, quoted, index, plain]) =>
    quoted === undefined ? (index ?? plain ?? "") : quoted.replace(/\\(.)/g, "$1"),
  );
  return keys.reduce<unknown>((inner, key) => {
    if (inner === "[secret]") return inner;
    return typeof inner === "object" && inner !== null ? (inner as Record<string, unknown>)[key] : undefined;
  }, value);
}

function shortValue(value: unknown): string {
  const text = value === undefined ? "(unknown)" : value === "[secret]" ? "[secret]" : JSON.stringify(value);
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

const opOrder: Step["op"][] = ["delete", "replace", "update", "create", "import"];
const inOrder = (a: Step, b: Step): number =>
  opOrder.indexOf(a.op) - opOrder.indexOf(b.op) || compare(a.type, b.type) || compare(a.name, b.name);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

// ---------------------------------------------------------------- parts of the comment

function title(cluster: Cluster): string {
  if (cluster.kind !== "previewed") return "plan";
  return cluster.preview.errors.length > 0 ? "the preview failed" : "preview";
}

function notice(site: string, cluster: Cluster): string[] {
  switch (cluster.kind) {
    case "previewed":
      return [];
    case "unreachable":
      return [
        `**${site} could not be reached (${code(cluster.reason)}); this is the plan, computed without the cluster.** ` +
          "What would be created, replaced or deleted there is not known.",
      ];
    case "unasked":
      return ["**This is the plan, computed without the cluster**: a fork's pull request gets no secrets."];
  }
}

function counts({ steps, unchanged }: Preview): string {
  const verbs: [Step["op"], string][] = [
    ["create", "to create"],
    ["update", "to update"],
    ["replace", "to replace"],
    ["delete", "to delete"],
    ["import", "to import"],
  ];
  const parts = verbs
    .map(([op, verb]) => [steps.filter((step) => step.op === op).length, verb] as const)
    .filter(([count]) => count > 0)
    .map(([count, verb]) => `${count} ${verb}`);
  return parts.length === 0 ? `Nothing to do, ${unchanged} unchanged.` : `${parts.join(", ")}, ${unchanged} unchanged.`;
}

const changes = (count: number): string => (count === 1 ? "1 change" : `${count} changes`);

/** The resource, if it is of a kind that holds data. */
function dataName({ type, name }: Step): string[] {
  return dataKinds.includes(type.split(":").at(-1) ?? "") ? [`${code(shortType(type))} ${code(name)}`] : [];
}

function dataLoss(step: Step): string[] {
  if (step.op !== "replace" && step.op !== "delete") return [];
  const why = step.reasons.length > 0 ? `, because of ${code(step.reasons.join(", "))}` : "";
  const kept = step.kept
    ? `, ${step.op === "delete" ? "it" : "the old one"} stays in the cluster (\`retainOnDelete\`)`
    : "";
  return dataName(step).map((name) => `${step.op} ${name}${why}${kept}`);
}

function removedData({ name, before, after }: ChangedFile): string[] {
  const kind = after === undefined ? kindOf(before) : undefined;
  return kind !== undefined && dataKinds.includes(kind) ? [`${code(kind)} in ${code(name)}`] : [];
}

function kindOf(manifest: string | undefined): string | undefined {
  const parsed = z.object({ kind: z.string() }).safeParse(parseYaml(manifest ?? ""));
  return parsed.success ? parsed.data.kind : undefined;
}

function dataAlert(what: string, items: string[]): string[] {
  return items.length === 0
    ? []
    : [["> [!CAUTION]", `> **${what}:**`, ...list(items).map((line) => `> ${line}`)].join("\n")];
}

function failure(what: string, errors: string[]): string[] {
  if (errors.length === 0) return [];
  return [`> [!CAUTION]\n> **${what}**`, ...block(errors.flatMap(cleanLines), "text", errorRoom)];
}

function stepLines(steps: Step[]): string[] {
  const signs: Record<Step["op"], string> = { create: "+", update: "~", replace: "+-", delete: "-", import: "=" };
  return steps
    .flatMap((step) => [
      `${signs[step.op]} ${shortType(step.type)} ${step.name}${step.reasons.length > 0 ? ` (because of ${step.reasons.join(", ")})` : ""}`,
      ...step.changes.map((change) => `    ${change}`),
    ])
    .flatMap(cleanLines);
}

interface ChangedFile {
  name: string;
  before: string | undefined;
  after: string | undefined;
}

function changedFiles({ base, head }: Comment["manifests"]): ChangedFile[] {
  return [...new Set([...base.keys(), ...head.keys()])]
    .sort(compare)
    .map((name) => ({ name, before: base.get(name), after: head.get(name) }))
    .filter(({ before, after }) => before !== after);
}

function manifestPart(site: string, files: ChangedFile[], room: number): string[] {
  if (files.length === 0) return ["The manifests are the same."];
  const names = list(
    files.map(
      ({ name, before, after }) =>
        `${code(name)}${before === undefined ? " (new)" : after === undefined ? " (gone)" : ""}`,
    ),
  ).join("\n");
  const lines = files.flatMap(({ name, before, after }) =>
    cleanLines(
      createTwoFilesPatch(
        before === undefined ? "/dev/null" : name,
        after === undefined ? "/dev/null" : name,
        before ?? "",
        after ?? "",
      ).replace(/^(Index: .*\n)?=+\n/, ""),
    ),
  );
  const heading = `Manifests: ${files.length === 1 ? "1 file differs" : `${files.length} files differ`}`;
  const where = `; all of it stands in this pull request under \`test/golden/${site}\``;
  const frame = bytes(names) + 2;
  return details(heading, lines, "diff", room - frame, { before: names, where });
}

function details(
  summary: string,
  lines: string[],
  language: "text" | "diff",
  room: number,
  { before = "", where = "" } = {},
): string[] {
  if (lines.length === 0) return [];
  const shown = `<details><summary>${summary.replaceAll(/`([^`]*)`/g, "<code>$1</code>")}</summary>`;
  const body = block(lines, language, room - bytes(shown) - detailsFrame, where);
  return [[shown, ...(before === "" ? [] : [before]), ...body, "</details>"].join("\n\n")];
}

/** As many items as there is room for. */
function list(items: string[]): string[] {
  const lines = items.map((item) => `- ${item}`);
  const shown = lines.slice(0, countThatFits(lines, listRoom));
  return shown.length < lines.length ? [...shown, `- and ${lines.length - shown.length} more`] : shown;
}

/** A fenced block of as many whole lines as there is room for, and a note of what was cut. */
function block(lines: string[], language: "text" | "diff", room: number, where = ""): string[] {
  const overhead = 2 * longestRun(lines.join("\n")) + 200 + bytes(where);
  const kept = lines.slice(0, countThatFits(lines, room - overhead));
  return [
    ...(kept.length > 0 ? [fence(kept.join("\n"), language)] : []),
    ...(kept.length < lines.length
      ? [`**Cut: ${lines.length - kept.length} of ${lines.length} lines are not shown**${where}.`]
      : []),
  ];
}

function countThatFits(lines: string[], room: number): number {
  let used = 0;
  const cut = lines.findIndex((line) => (used += bytes(line) + 1) > room);
  return cut === -1 ? lines.length : cut;
}

// ---------------------------------------------------------------- text from elsewhere, made harmless

/** Lines without terminal codes; what would hide or reorder text is written out as `\u202e`. */
function cleanLines(text: string): string[] {
  return stripVTControlCharacters(text)
    .replace(/\n$/, "")
    .split(/\r\n|[\n\r\u2028\u2029]/)
    .map((line) => visible(line))
    .map((line) =>
      line.length > lineLimit ? `${line.slice(0, lineLimit)}… (${line.length - lineLimit} more characters)` : line,
    );
}

const visible = (line: string): string =>
  line.replace(/[^\P{C}\t]/gu, (hidden) =>
    hidden.length === 1
      ? `\\u${hidden.charCodeAt(0).toString(16).padStart(4, "0")}`
      : `\\u{${hidden.codePointAt(0)?.toString(16)}}`,
  );

/** A fence that is longer than any run of backticks in the text, so that the text cannot end it. */
function fence(text: string, language: "text" | "diff"): string {
  const ticks = "`".repeat(Math.max(3, longestRun(text) + 1));
  return `${ticks}${language}\n${text}\n${ticks}`;
}

/** The same within a line. */
function code(text: string): string {
  const line = cleanLines(text).join(" ").trim().slice(0, 200);
  if (line === "") return "(empty)";
  const ticks = "`".repeat(longestRun(line) + 1);
  return line.includes("`") ? `${ticks} ${line} ${ticks}` : `${ticks}${line}${ticks}`;
}

const longestRun = (text: string): number => Math.max(0, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));

const bytes = (text: string): number => Buffer.byteLength(text);

/** It stands in the marker and in headings, outside of any code. */
function siteName(site: string): string {
  if (!/^[a-z][a-z0-9-]{0,62}$/.test(site))
    throw new UserError(`site: expected a stack's name such as home, got ${JSON.stringify(site)}`);
  return site;
}

function shortSha(sha: string): string {
  if (!/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(sha))
    throw new UserError(`commit: expected 40 hex digits, got ${JSON.stringify(sha)}`);
  return sha.slice(0, 10);
}

// ---------------------------------------------------------------- secrets

/** Shorter values occur by chance. Characters. */
const shortestSecret = 8;
const secretName = /PASS|SECRET|TOKEN|CREDENTIAL|(^|_)KEY|KUBECONFIG_BASE64/;

/**
 * Last of three: the engine masks its secrets, the plan has none, and this looks for what the job itself was given.
 *
 * @param environment Every variable whose name says that it is a secret is looked for: as it is, each of its lines, and
 * encoded in base64 or for a URL.
 * @param kubeconfig Text of the kubeconfig: its tokens, passwords and keys are looked for.
 * @throws UserError with the name of the first secret found, never its value.
 */
export function refuseSecrets(text: string, environment: NodeJS.ProcessEnv, kubeconfig = ""): void {
  const known = [
    ...Object.entries(environment).filter(([name]) => secretName.test(name.toUpperCase())),
    ...kubeconfigSecrets(kubeconfig).map((value) => ["the kubeconfig", value] as const),
  ];
  for (const [name, value = ""] of known) {
    const forms = value
      .split(/\r?\n/)
      .concat(value)
      .flatMap((form) => [
        form.trim(),
        Buffer.from(form).toString("base64").replace(/=+$/, ""),
        encodeURIComponent(form),
      ]);
    if (forms.some((form) => form.length >= shortestSecret && text.includes(form))) {
      throw new UserError(`the text holds a value of ${name}; nothing was printed`);
    }
  }
}

function kubeconfigSecrets(text: string): string[] {
  const shape = z.object({ users: z.array(z.object({ user: z.record(z.string(), z.unknown()) })) });
  const parsed = shape.safeParse(parseYaml(text));
  if (!parsed.success) return [];
  return parsed.data.users.flatMap(({ user }) =>
    ["token", "password", "client-key-data"].flatMap((key) => (typeof user[key] === "string" ? [user[key]] : [])),
  );
}

/** Undefined for what is no YAML. */
function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}
