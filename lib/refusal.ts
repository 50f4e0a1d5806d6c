/** What the Pulumi CLI refuses to read a stack with, and the way out. Pure. */

/** For whoever has no CLI. */
export const getPulumi = "install the Pulumi CLI (https://www.pulumi.com/docs/install/)";

/** As README, "For real", has it: typed, so that it is in no history. */
const passphrase = "read -rs PULUMI_CONFIG_PASSPHRASE && export PULUMI_CONFIG_PASSPHRASE";

export const login = "pulumi login <url of the state>";
/** For a stack that this login's backend does not know. */
export const loginElsewhere = `${login} where another backend has it`;

/** No stack of a site is known here, whichever was meant. */
export const noSite = `npx homestead identity create for a new server; ${loginElsewhere}`;

/** The backend is another one, or nobody made the stack yet. */
function noStack(stack: string): string {
  if (stack === "dev") return `npx homestead identity create --stacks dev, the first time; ${loginElsewhere}`;
  const other = stack === "vps" ? "home" : "vps";
  return (
    `npx homestead identity create for a new server, npx homestead identity copy ${other} ${stack} where ${other} has one; ` +
    loginElsewhere
  );
}

/** Only the first line of the CLI's words comes here, and some of its faults of a file stand below it. */
function badFile(says: string, stack: string): string {
  const named = /'(?:[^']*\/)?([^'/]+\.yaml)'|^(\S+\.yaml) is not YAML/.exec(says);
  const file = named?.[1] ?? named?.[2] ?? `Pulumi.${stack}.yaml`;
  const line = /\bline (\d+)/.exec(says)?.[1];
  return `mend ${file}${line === undefined ? "" : `, at line ${line} or near it`}: git diff ${file}`;
}

/** Words of the CLI (3.260.0), and what to do. The first that fits counts. */
const mends: readonly [says: RegExp, mend: (says: string, stack: string) => string][] = [
  [/\bis on PATH\b/, () => getPulumi],
  [/\bno stack named '[^']*' found/, (_, stack) => noStack(stack)],
  [
    /\bincorrect passphrase\b/,
    () => `give the stack's own: ${passphrase}; where it is lost: docs/runbooks/lost-passphrase.md`,
  ],
  // Not set, or a file of it that cannot be read.
  [/\bPULUMI_CONFIG_PASSPHRASE/, () => passphrase],
  [
    /\bPULUMI_ACCESS_TOKEN must be set/,
    () => `${login}, such as s3://...; for Pulumi Cloud: export PULUMI_ACCESS_TOKEN`,
  ],
  [/\bunable to open state directory\b/, () => `${login}: the one of this login is not there`],
  [/\binvalid YAML file\b|\bexpected project to be an object\b|\.yaml is not YAML\b/, badFile],
  [
    /\bcould not decrypt configuration value/,
    (_, stack) =>
      `a secret in Pulumi.${stack}.yaml is damaged, or copied from another stack's file: git diff Pulumi.${stack}.yaml, or ` +
      `set it again: pulumi config set --secret <key> --stack ${stack}`,
  ],
];

/**
 * How to mend what the CLI refuses with.
 *
 * @param says its words, of which the first line will do
 * @param stack the one that was to be read
 * @returns undefined where they say nothing that is known here
 */
export function refusalMend(says: string, stack: string): string | undefined {
  return mends.find(([words]) => words.test(says))?.[1](says, stack);
}
