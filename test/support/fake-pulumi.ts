/**
 * A Pulumi CLI that keeps stacks in folders and their configuration in files: enough of its command line, exit codes and
 * words for the commands that drive it. A shell script, since a Node.js would take longer to start than most commands.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { temporaryFolder } from "./folders";

export interface FakePulumi {
  /** Environment whose PATH has the fake one first, and node's folder. */
  environment: NodeJS.ProcessEnv;
  /** Stack -> key -> value, all of them secrets. */
  stacks: () => Record<string, Record<string, string>>;
  /** Every command line that was run, each as one text; a line `told SIGINT` for a signal. */
  commands: () => string[];
}

/** Commands that fail: the beginning of a command line -> what is said on standard error. */
export type Failures = Record<string, string>;

/** For {@link FakePulumi.environment}. */
export const failing = (failures: Failures): NodeJS.ProcessEnv => ({
  FAKE_PULUMI_FAILURES: Object.entries(failures)
    .map((entry) => entry.join("\t"))
    .join("\n"),
});

/** For {@link FakePulumi.environment}: how many resources the state of each stack has; none where it is not said. */
export const holding = (resources: number): NodeJS.ProcessEnv => ({ FAKE_PULUMI_RESOURCES: String(resources) });

/** For {@link FakePulumi.environment}: a command that works until it is told to stop, and needs two seconds for that. */
export const working = (command: string): NodeJS.ProcessEnv => ({ FAKE_PULUMI_WORKS: command });

const script = `
root=$FAKE_PULUMI_STATE
say() { printf '%s\\n' "$1"; }
say "$*" >> "$root.log"
fail() { say "error: $1" >&2; exit 255; }
while IFS="	" read -r start says; do
  if [ -n "$start" ]; then case "$*" in "$start"*) fail "$says" ;; esac; fi
done <<END
$FAKE_PULUMI_FAILURES
END
end='
'
stack= key= value= last=
for arg; do
  case "$last" in --stack) stack=$arg ;; homestead:*|kubernetes:*) [ -n "$value" ] || value=$arg ;; esac
  case "$arg" in homestead:*|kubernetes:*) [ -n "$key" ] || key=$arg ;; esac
  last=$arg
done
known() { [ -d "$root/$stack" ] || fail "no stack named '$stack' found"; }
case "$1 $2" in
  "version "*) say v3.260.0 ;;
  "whoami "*) say '{"user":"me","url":"'"\${FAKE_PULUMI_URL-$PULUMI_BACKEND_URL}"'"}' ;;
  "stack ls")
    list=
    for folder in "$root"/*/; do
      name=\${folder%/}
      [ ! -d "$folder" ] || list="$list\${list:+,}{\\"name\\":\\"\${name##*/}\\",\\"resourceCount\\":\${FAKE_PULUMI_RESOURCES:-0}}"
    done
    say "[$list]" ;;
  "stack init") mkdir -p "$root/$3" ;;
  "stack output") say "$FAKE_PULUMI_OUTPUTS" ;;
  "config set")
    known
    case "$value" in ""|--*) value=; while IFS= read -r line; do value=$value$line$end; done; value=$value$line ;; esac
    printf %s "$value" > "$root/$stack/$key" ;;
  "config rm") known; rm -f "$root/$stack/$key" ;;
  "config "*)
    known
    clear=
    case "$*" in *--show-secrets*)
      clear=yes
      [ "$PULUMI_CONFIG_PASSPHRASE" = right ] || [ -f "$PULUMI_CONFIG_PASSPHRASE_FILE" ] || fail "incorrect passphrase"
    esac
    exec awk -v "clear=$clear" -f "\${0%/*}/config.awk" "$root/$stack"/* ;;
  "$FAKE_PULUMI_WORKS "*) exec "$FAKE_PULUMI_NODE" "\${0%/*}/work.cjs" "$root.log" ;;
  "up "*|"destroy "*) ;;
  *) fail "unknown command $*" ;;
esac
`;

/** What `pulumi config --json` says of a stack's files. None holds the character that ends a record here. */
const configScript = String.raw`
BEGIN {
  RS = "\001"
  for (i = 1; i < ARGC; i++) {
    value = ""
    if ((getline value < ARGV[i]) < 0) continue
    gsub(/["\\]/, "\\\\&", value)
    gsub(/\n/, "\\n", value)
    sub(/.*\//, "", ARGV[i])
    list = list (list == "" ? "" : ",") "\"" ARGV[i] "\":{" (clear ? "\"value\":\"" value "\"," : "") "\"secret\":true}"
  }
  print "{" list "}"
}
`;

const workScript = `
const fs = require("node:fs");
const tell = (line) => fs.appendFileSync(process.argv[2], line + "\\n");
const stop = (signal) => {
  tell("told " + signal);
  setTimeout(() => { console.log("stopped"); process.exit(1); }, 2000);
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, stop);
// Should nobody tell it.
setTimeout(() => process.exit(0), 60_000);
tell("at work");
`;

/** Makes one for the running test. */
export function fakePulumi(stacks: Record<string, Record<string, string>> = {}, failures: Failures = {}): FakePulumi {
  const folder = temporaryFolder();
  const state = path.join(folder, "stacks");
  fs.mkdirSync(state);
  for (const [stack, entries] of Object.entries(stacks)) {
    fs.mkdirSync(path.join(state, stack));
    for (const [key, value] of Object.entries(entries)) fs.writeFileSync(path.join(state, stack, key), value);
  }
  fs.writeFileSync(`${state}.log`, "");
  fs.writeFileSync(path.join(folder, "pulumi"), `#!/bin/sh\n${script}`, { mode: 0o755 });
  fs.writeFileSync(path.join(folder, "config.awk"), configScript);
  fs.writeFileSync(path.join(folder, "work.cjs"), workScript);
  const read = (stack: string) => {
    const keys = fs.readdirSync(path.join(state, stack));
    return Object.fromEntries(keys.map((key) => [key, fs.readFileSync(path.join(state, stack, key), "utf8")]));
  };
  return {
    environment: {
      ...process.env,
      PATH: [folder, process.env.PATH].join(path.delimiter),
      PULUMI_CONFIG_PASSPHRASE: "right",
      FAKE_PULUMI_STATE: state,
      FAKE_PULUMI_NODE: process.execPath,
      FAKE_PULUMI_OUTPUTS: "{}",
      ...failing(failures),
    },
    stacks: () => Object.fromEntries(fs.readdirSync(state).map((stack) => [stack, read(stack)])),
    commands: () => fs.readFileSync(`${state}.log`, "utf8").split("\n").filter(Boolean),
  };
}
