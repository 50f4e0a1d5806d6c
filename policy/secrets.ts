/** Rules for what is secret: values stand in Secrets, and what reads them names those. */
import { at, containersOf, fields, list, texts } from "./objects";
import type { KubernetesObject } from "./objects";
import { objectRule } from "./rule";
import type { Rule } from "./rule";

/** Names of values that are secret; `databasePassword` counts as `DATABASE_PASSWORD`. */
const secretName =
  /(^|_)(PASSWORD|PASSWD|PASSPHRASE|PASS|SECRET|SECRET_KEY_BASE|TOKEN|CREDENTIALS?|SALT|((PRIVATE|ACCESS|SECRET|API|ENCRYPTION|PRIMARY|DETERMINISTIC|SIGNING|DNS)_KEY(_ID)?))$/;

/** Texts that are secret, whatever they are called. */
const secretTexts = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}/, // PEM, and not a program that speaks of it
  /\b[a-z][a-z0-9+.-]*:\/\/[^\s:/@"'`${}<>]+:[^\s/@"'`${}<>]+@[a-z0-9[]/i, // a URL with a password
  /\b(AKIA|ASIA)[0-9A-Z]{16}\b/, // an access key of AWS'
  /\bgh[pousr]_[A-Za-z0-9]{36}\b/, // a token of GitHub's
  /\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/, // a JSON web token
  /^\s*(requirepass|masterauth)\s+\S/m, // Valkey's configuration
  /--?(password|passwd|token|secret)[= ]\S/i, // a command line
];

const screaming = (name: string) =>
  name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/[^A-Za-z0-9]+/g, "_")
    .toUpperCase();

/** Whether a value under a name is a secret in clear. The path of a file that holds one is none. */
function isSecret(name: string, value: unknown): boolean {
  if (typeof value !== "string" || value === "") return false;
  return (secretName.test(screaming(name)) && !value.startsWith("/")) || secretTexts.some((text) => text.test(value));
}

/**
 * Paths of a chart's values, or of a custom resource, that hold a secret; what names a Secret, or a key of one, is none. A
 * variable of an environment has its name beside its value.
 */
function inValues(value: unknown, field: string): string[] {
  if (Array.isArray(value)) return value.flatMap((item, i) => inValues(item, `${field}[${i}]`));
  const all = fields(value);
  if (typeof all["name"] === "string" && isSecret(all["name"], all["value"])) return [`${field} (${all["name"]})`];
  return Object.entries(all)
    .filter(([key]) => !/^existingSecret/.test(key))
    .flatMap(([key, inner]) => (isSecret(key, inner) ? [`${field}.${key}`] : inValues(inner, `${field}.${key}`)));
}

/** Of CloudNativePG and its plugin: pods, and environments, that only their operator makes of it. */
const isDatabases = ({ apiVersion }: KubernetesObject) => /^(\w+\.)?cnpg\.io\//.test(apiVersion);

function literals(object: KubernetesObject): string[] {
  const inPods = containersOf(object).flatMap(({ field, name, value }) => [
    ...list(value["env"])
      .filter((variable) => isSecret(String(variable["name"]), variable["value"]))
      .map((variable) => `${field} (${name}) env ${String(variable["name"])}`),
    ...["command", "args"]
      .filter((key) => isSecret("", texts(value[key]).join(" ")))
      .map((key) => `${field} (${name}) ${key}`),
  ]);
  const inData = ["data", "binaryData"].flatMap((part) =>
    Object.entries(fields(object.kind === "ConfigMap" ? object[part] : undefined))
      .filter(([key, text]) => isSecret(key, decoded(part, text)))
      .map(([key]) => `${part}.${key}`),
  );
  const inCharts = object.kind === "Release" ? inValues(at(object, "spec.values"), "values") : [];
  return [...inPods, ...inData, ...inCharts, ...(isDatabases(object) ? inValues(object["spec"], "spec") : [])];
}

const decoded = (part: string, text: unknown) =>
  part === "binaryData" && typeof text === "string" ? Buffer.from(text, "base64").toString() : text;

export const secretRules: Rule[] = [
  objectRule(
    "no-literal-secrets",
    "a ConfigMap, a pod and a release's values can be read by more eyes than a Secret",
    // Never the value itself: this ends up in a log.
    (object) =>
      literals(object).map((field) => `${field} looks like a secret in clear; allowed: a reference to a Secret's key`),
  ),
];
