/** Which Mastodon version may follow which (docs.joinmastodon.org, "Upgrading to a new release": every minor in turn). */

export interface Version {
  major: number;
  minor: number;
  patch: number;
}

/** The version in an image reference's tag, such as `ghcr.io/mastodon/mastodon:v4.6.2@sha256:…`; none for `nightly` and the like. */
export function versionOf(image: string): Version | undefined {
  const match = /:v?(\d+)\.(\d+)\.(\d+)(?:[-.][^@]*)?(?:@.*)?$/.exec(image);
  return match ? { major: Number(match[1]), minor: Number(match[2]), patch: Number(match[3]) } : undefined;
}

/**
 * The last minor version of each major one, once the next major one is out (github.com/mastodon/mastodon/releases): by
 * its number alone nobody can tell whether another one came after it. Of v4 it is not known yet.
 */
const lastMinors: ReadonlyMap<number, number> = new Map([[3, 5]]);

/**
 * ConfigMap in the site's namespace that says which image of Mastodon ran last, once it was there whole. It outlives a
 * `destroy` as the database does; Mastodon does not.
 */
export const servedName = "mastodon-served";

/** The database that Mastodon runs on, by its Cluster's name, and the site's epoch. */
interface ServedOn {
  database: string;
  epoch: number;
}

/** What {@link servedName} holds. */
export const servedBy = (image: string, { database, epoch }: ServedOn): Record<string, string> => ({
  database,
  epoch: String(epoch),
  image,
});

/**
 * The image that ran last; undefined where nobody knows. Of another database it says nothing, nor of another epoch: the
 * other site has written since, and may have upgraded what this database is by now. Pure.
 */
export const lastServed = (data: Record<string, string> | undefined, on: ServedOn): string | undefined =>
  data?.["database"] === on.database && data["epoch"] === String(on.epoch) ? data["image"] : undefined;

/**
 * Why `wanted` may not follow `running`, and what may; nothing when it may. Images without a version are the
 * operator's own affair.
 *
 * @param now whether the former still `runs`, or is known only to have run last
 */
export function upgradeFault(
  running: string,
  wanted: string,
  { now = "runs", lastMinor = lastMinors }: { now?: "runs" | "ran last"; lastMinor?: typeof lastMinors } = {},
): string | undefined {
  const from = versionOf(running);
  const to = versionOf(wanted);
  if (!from || !to) return undefined;
  const shown = `v${from.major}.${from.minor}.${from.patch}`;
  if (to.major < from.major || (to.major === from.major && to.minor < from.minor)) {
    return `v${from.major}.${from.minor}.x or newer: ${shown} ${now}, and its schema does not go back (docs/runbooks/rollback.md)`;
  }
  if (to.major === from.major && to.minor > from.minor + 1) {
    return `a release of v${from.major}.${from.minor + 1} first: ${shown} ${now}, and no minor version may be skipped`;
  }
  if (to.major > from.major && (to.major > from.major + 1 || to.minor > 0)) {
    return `the last release of v${from.major} and then one of v${from.major + 1}.0 first: ${shown} ${now}, and no minor version may be skipped`;
  }
  if (to.major > from.major) {
    const last = lastMinor.get(from.major);
    if (last === undefined) {
      return `a release of v${from.major}, until it is known here which minor version of it is the last: ${shown} ${now}, and none may be skipped. If the release notes of v${to.major}.0 let v${from.major}.${from.minor} come before it, write [${from.major}, ${from.minor}] into lastMinors in lib/upgrade.ts`;
    }
    if (from.minor < last) {
      return `a release of v${from.major}.${from.minor + 1} first${from.minor + 1 < last ? `, and so on to v${from.major}.${last}` : ""}: ${shown} ${now}, and no minor version may be skipped`;
    }
  }
  return undefined;
}
