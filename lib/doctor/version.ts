/** Versions of three numbers, compared. Pure. */

type Version = [number, number, number];

/** The first version in a text, such as `v0.14.0` or `17.6-trixie`; undefined where there is none. */
export function versionIn(text: string): Version | undefined {
  const [, major, minor, patch = "0"] = /^v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(text) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor), Number(patch)];
}

const order = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];

/** Whether one version is before another. What is no version is before nothing. */
export function isOlder(version: string, than: string): boolean {
  const [a, b] = [versionIn(version), versionIn(than)];
  return a !== undefined && b !== undefined && order(a, b) < 0;
}

/**
 * Whether a version is within a range of comparisons, all of which must hold (`>=3.231.0 <4.0.0`): what Pulumi.yaml
 * uses. @throws Error for any other range, which is a bug here and not the reader's
 */
export function satisfies(version: string, range: string): boolean {
  const has = versionIn(version);
  return range.split(/\s+/).every((part) => {
    const [, operator, text = ""] = /^(>=|<=|>|<|=)?(\d+\.\d+\.\d+)$/.exec(part) ?? [];
    const wanted = versionIn(text);
    if (wanted === undefined) throw new Error(`requiredPulumiVersion '${range}' is no range of plain comparisons`);
    if (has === undefined) return false;
    const difference = order(has, wanted);
    switch (operator) {
      case ">=":
        return difference >= 0;
      case "<=":
        return difference <= 0;
      case ">":
        return difference > 0;
      case "<":
        return difference < 0;
      default:
        return difference === 0;
    }
  });
}
