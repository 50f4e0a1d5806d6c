/** The gate's rules, as components/valkey-gate.sh follows them: for the keeper that leaves the mark, and for the model. */

/** What the keeper last found out. `since` is the uptime at which it asked, not at which it was answered. */
export type Mark = { word: "ours"; since: number; grace: number } | { word: "others" };

/** Open: Valkey runs. Closed: it is stopped. Unverified: it does not start, and what runs writes nothing. */
export type Verdict = "open" | "closed" | "unverified";

/** The mark's text; whole seconds, the earlier one. */
export const formatMark = (mark: Mark): string =>
  mark.word === "others" ? "others\n" : `ours ${Math.floor(mark.since)} ${mark.grace}\n`;

/** What a mark says that is `ours`: the uptime at which it was asked for, and the grace, in seconds; else undefined. */
export function oursIn(text: string | undefined): { since: number; grace: number } | undefined {
  const [, since, grace] = /^ours (\d+) (\d+)\s*$/.exec(text ?? "") ?? [];
  return since === undefined ? undefined : { since: Number(since), grace: Number(grace) };
}

/** @param text undefined where there is no mark yet. @param uptime seconds since the machine started */
export function gateVerdict(text: string | undefined, uptime: number): Verdict {
  if (/^others\b/.test(text ?? "")) return "closed";
  const ours = oursIn(text);
  if (ours === undefined) return "unverified";
  const age = Math.floor(uptime) - ours.since;
  return age >= 0 && age < ours.grace ? "open" : "unverified";
}
