/** What the site lease means for a server and for a site, line by line. Pure. */
import { newestGeneration } from "../archive";
import { span } from "../drill/verdicts";
import { kubectl } from "../kube";
import { gateVerdict, oursIn } from "../lease/gate";
import type { Verdict as GateVerdict } from "../lease/gate";
import { epochAge, waitLeft } from "../lease/lease";
import type { StoredLease } from "../lease/lease";
import { asTheLeaseSays, asTheVaultSays } from "../lease/rules";
import type { Journal } from "../switch/journal";
import { stepAhead } from "../switch/resume";
import { standingOf } from "../switch/steps";
import { archiveName, siteNames } from "../../settings";
import type { Settings } from "../../settings";
import { byLimit, line } from "./lines";
import type { StatusLine } from "./lines";

/** How the active site came to be, in words. */
const came = {
  first: "since the first update",
  planned: "handed over",
  lost: "taken over from a lost site",
  dead: "taken over from a dead site",
} as const;

/** Who is active. */
export function leaseLine(stored: StoredLease | undefined): StatusLine {
  if (stored === undefined) {
    const says = "the vault has no lease: nothing has run yet, or the server has moved to another one (git pull)";
    return line("lease", "active site", "fault", says);
  }
  const { lease } = stored;
  const age = epochAge(stored);
  const says = `${lease.activeSite}, epoch ${lease.epoch}, ${came[lease.takeover]} ${span(age)} ago; grace ${span(lease.grace)}${lease.cluster === undefined ? "" : `; cluster ${lease.cluster}`}`;
  const waits = waitLeft(stored);
  if (waits === 0) return line("lease", "active site", "ok", says);
  return line("lease", "active site", "warning", `${says}; it begins in ${span(waits)}, when the other has stopped`);
}

/**
 * Whether the project's files agree with the lease, and with the archives in the vault. While a switch is under way they
 * are ahead of the lease, or, on another machine, behind.
 */
export function filesLine(
  {
    activeSite,
    epoch,
    generations,
    fingerprint,
  }: Pick<Settings, "activeSite" | "epoch" | "generations" | "fingerprint">,
  { lease }: Pick<StoredLease, "lease">,
  journal: Journal | undefined,
  archives: readonly string[],
): StatusLine {
  if (fingerprint !== lease.fingerprint) {
    const says = `the stack's identity is ${fingerprint}, and the lease is of ${lease.fingerprint}: npx homestead identity verify, or name this server's own vault`;
    return line("lease", "files", "fault", says);
  }
  const said = `Pulumi.yaml says ${activeSite}, epoch ${epoch}`;
  const verdict = standingOf(journal, lease) === "open" ? "warning" : "fault";
  const files = (what: string, mend: string) =>
    line("lease", "files", verdict, `${said}, ${what}${verdict === "fault" ? `: ${mend}` : ""}`);
  if (activeSite !== lease.activeSite || epoch !== lease.epoch) {
    return files(`and the lease ${lease.activeSite}, epoch ${lease.epoch}`, asTheLeaseSays(lease));
  }
  for (const name of siteNames) {
    const [number, newest] = [generations[name] ?? 1, newestGeneration(name, archives)];
    if (newest > number) {
      return files(
        `but generation ${number} of ${name}, and the vault holds ${archiveName(name, newest)}`,
        asTheVaultSays(name, newest),
      );
    }
  }
  return line("lease", "files", "ok", said);
}

/**
 * A switch that stopped on its way.
 *
 * @param stored undefined where the lease does not say whether the switch was overtaken: then it was not
 * @param now seconds since 1970
 */
export function journalLine(
  journal: Journal | undefined,
  stored: Pick<StoredLease, "lease"> | undefined,
  now: number,
): StatusLine {
  const open = stored === undefined ? journal?.finished === false : standingOf(journal, stored.lease) === "open";
  if (journal === undefined || !open) return line("lease", "switch", "ok", "none under way");
  const { target, from, kind, epoch, updatedAt } = journal;
  const age = span(Math.max(0, now - Date.parse(updatedAt) / 1000));
  return line(
    "lease",
    "switch",
    "warning",
    `to ${target} (${kind}, epoch ${epoch}) is at ${stepAhead(journal, stored?.lease) ?? "its end"}, for ${age}; if nobody runs it: npx homestead switch ${target} goes on, npx homestead switch ${from} leads back`,
  );
}

/** What a gate goes by, and what it said. */
export interface Gate {
  /** `silent`: neither the mark nor the log could be read. */
  verdict: GateVerdict | "silent";
  says: string;
}

/**
 * Puts together what is known of a gate. Its log says what it did, but the last word may be days old and gone from the
 * log; the mark says what is so now.
 *
 * @param reading the mark, an empty line if there is none, and the machine's uptime; undefined where nobody could ask
 * @param log of the gate's container
 */
export function readGate(reading: string | undefined, log: string): Gate {
  const word = [...log.matchAll(/^gate: (.*)$/gm)].at(-1)?.[1];
  if (reading === undefined) {
    const [verdict] = /^(open|closed|unverified)/.exec(word ?? "") ?? [];
    return { verdict: (verdict as GateVerdict | undefined) ?? "silent", says: word ?? "it has not said anything" };
  }
  const [mark = "", uptime = ""] = reading.trimEnd().split("\n");
  const verdict = gateVerdict(mark, Number(uptime.split(" ")[0]));
  const ours = oursIn(mark);
  const age =
    ours === undefined ? "" : `the lease was read ${span(Math.max(0, Number.parseFloat(uptime) - ours.since))} ago`;
  const last = verdict === "open" || word === undefined ? verdict : word;
  return { verdict, says: [last, age].filter((part) => part !== "").join(", ") };
}

/** What a site's cluster runs as, whatever the files say by now. */
export type Running =
  | { valkey: "none" }
  /** From before there was a gate, or put there by hand. */
  | { valkey: "ungated" }
  /** `epoch`: the one it was started for. `cluster`: its UID, unless an earlier program started it. */
  | { valkey: "gated"; epoch: number; cluster?: string; gate: Gate };

/** Whether a site does what the lease says; if not, what keeps it from federating, and the way out. */
export function gateLine(
  {
    site,
    role,
    activeSite,
    namespace,
    cluster,
  }: Pick<Settings, "site" | "role" | "activeSite" | "namespace" | "cluster">,
  running: Running,
  stored: StoredLease | undefined,
): StatusLine {
  const gate = (verdict: StatusLine["verdict"], says: string) => line("lease", "gate", verdict, says);
  const lease = stored?.lease;
  const named = lease && `the lease is ${lease.activeSite}'s, epoch ${lease.epoch}`;
  const ours = lease?.activeSite === site;
  if (running.valkey === "none") {
    if (!named || !ours) return gate("ok", "Valkey does not run here: nothing federates");
    const mend = role === "active" ? `pulumi up --stack ${site}` : `npx homestead switch ${activeSite} goes on`;
    return gate("fault", `${named}, and no Valkey runs here: nobody federates; ${mend}`);
  }
  if (running.valkey === "ungated") {
    return gate("fault", `Valkey runs without a gate, whatever the lease says: pulumi up --stack ${site}`);
  }
  const { epoch, cluster: uid, gate: state } = running;
  if (stored === undefined || !named) return gate("fault", `no lease to go by; ${state.says}`);
  if (!ours || lease.epoch !== epoch) {
    const mend = ours ? `pulumi up --stack ${site}` : `npx homestead switch ${site} brings the server back here`;
    return gate("fault", `${named}, and ${site} still runs for epoch ${epoch}: ${held(state)}; ${mend}`);
  }
  if (uid !== undefined && lease.cluster !== undefined && lease.cluster !== uid) {
    return gate(
      "fault",
      `${named}, on another cluster (UID ${lease.cluster}), and this one (UID ${uid}) was given up: ${held(state)}; let cluster.context lead to that one, or begin anew here: docs/runbooks/lost-disk.md`,
    );
  }
  if (state.verdict === "open") return gate("ok", state.says);
  const waits = waitLeft(stored);
  if (waits > 0) return gate("warning", `${named}; Valkey begins in ${span(waits)}, when the other site has stopped`);
  const why = {
    closed: "its keeper has not seen that yet",
    unverified: "its keeper has not read that lately, and nobody can post",
    silent: "nobody knows whether its gate is open",
  }[state.verdict];
  return gate(
    "fault",
    `${state.says}: ${named}, but ${why}; why: ${kubectl(cluster)} -n ${namespace} logs valkey-0 -c keeper`,
  );
}

/** What a site that is not the lease's can still do. */
function held({ verdict, says }: Gate): string {
  const states = {
    closed: "its gate is closed, it federates nothing and takes no post",
    unverified: "its gate waits for the vault, it federates nothing and takes no post",
    open: "its gate is still open, until it reads that or the grace is over",
    silent: "its gate says nothing",
  };
  return `${states[verdict]} (${says})`;
}

/** How far a standby's database has come. Ages are in seconds. */
export interface Lag {
  /** What it follows. */
  archive: string;
  /** WAL segments between what it replayed and what is archived; undefined if there is nothing archived. */
  behind?: number;
  /** Of the newest segment in the archive. */
  archivedAge?: number;
  /** Of the last change that it replayed; undefined if it has not seen any since it was started. */
  replayedAge?: number;
}

/** @param archiveInterval seconds until a segment that is not full is archived */
export function lagLine(standby: string, lag: Lag, archiveInterval: number): StatusLine {
  const { archive, behind, archivedAge, replayedAge } = lag;
  const follows = (verdict: StatusLine["verdict"], says: string) =>
    line("database", `${standby} follows`, verdict, says);
  if (behind === undefined) return follows("fault", `there is no WAL in ${archive}`);
  const parts = [
    behind === 0
      ? `has everything that is in ${archive}`
      : `${behind} segments behind ${archive}, about ${span(behind * archiveInterval)}`,
    ...(archivedAge === undefined ? [] : [`newest segment there ${span(archivedAge)} old`]),
    ...(replayedAge === undefined ? [] : [`last change replayed ${span(replayedAge)} old`]),
  ];
  return follows(byLimit(behind, { warning: 8, fault: 40 }), parts.join("; "));
}
