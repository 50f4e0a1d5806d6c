/** What the site lease means for a server and for a site, line by line. Pure. */
import { span } from "../drill/verdicts";
import type { StoredLease } from "../lease/lease";
import type { Journal } from "../switch/journal";
import { nextStep, standingOf } from "../switch/steps";
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
  if (stored === undefined) return line("lease", "active site", "fault", "the vault has no lease: nothing has run yet");
  const { lease, age } = stored;
  const says = `${lease.activeSite}, epoch ${lease.epoch}, ${came[lease.takeover]} ${span(age)} ago; grace ${span(lease.grace)}`;
  return line("lease", "active site", "ok", says);
}

/** Whether the project's files agree with the lease. While a switch is under way they are ahead of it. */
export function filesLine(
  { activeSite, epoch }: Pick<Settings, "activeSite" | "epoch">,
  { lease }: Pick<StoredLease, "lease">,
  journal: Journal | undefined,
): StatusLine {
  const said = `Pulumi.yaml says ${activeSite}, epoch ${epoch}`;
  if (activeSite === lease.activeSite && epoch === lease.epoch) return line("lease", "files", "ok", said);
  const verdict = standingOf(journal, lease) === "open" ? "warning" : "fault";
  const mend = verdict === "fault" ? ": get the newest files (git pull), or set them as the lease says" : "";
  return line("lease", "files", verdict, `${said}, and the lease ${lease.activeSite}, epoch ${lease.epoch}${mend}`);
}

/** A switch that stopped on its way. @param now seconds since 1970 */
export function journalLine(
  journal: Journal | undefined,
  { lease }: Pick<StoredLease, "lease">,
  now: number,
): StatusLine {
  if (journal === undefined || standingOf(journal, lease) !== "open") {
    return line("lease", "switch", "ok", "none under way");
  }
  const { target, kind, epoch, updatedAt } = journal;
  const age = span(Math.max(0, now - Date.parse(updatedAt) / 1000));
  return line(
    "lease",
    "switch",
    "warning",
    `to ${target} (${kind}, epoch ${epoch}) is at ${nextStep(journal) ?? "its end"}, for ${age}; if nobody runs it: npx homestead switch ${target} goes on`,
  );
}

/** What a site's cluster runs as, whatever the files say by now. */
export interface Running {
  /** Epoch that its Valkey was started for; undefined where none runs. */
  epoch?: number;
  /** The gate's last word. */
  gate?: string;
}

/** Whether a site does what the lease says; if not, what keeps it from federating, and the way out. */
export function gateLine(site: string, running: Running, stored: StoredLease | undefined): StatusLine {
  const { epoch, gate = "it has not said anything" } = running;
  if (epoch === undefined) return line("lease", "gate", "ok", "Valkey does not run here: nothing federates");
  if (stored === undefined) return line("lease", "gate", "fault", `no lease to go by; ${gate}`);
  const { lease } = stored;
  if (lease.activeSite !== site || lease.epoch !== epoch) {
    return line(
      "lease",
      "gate",
      "fault",
      `the lease is ${lease.activeSite}'s, epoch ${lease.epoch}, and ${site} still runs for epoch ${epoch}: its gate is closed, it federates nothing and takes no post (${gate}); npx homestead switch ${site} brings the server back here`,
    );
  }
  if (/^open/.test(gate)) return line("lease", "gate", "ok", gate);
  return line(
    "lease",
    "gate",
    "warning",
    `${gate}: the lease is ${site}'s, but the keeper here has not read it lately`,
  );
}

/** How far a standby's database is behind the archive that it follows. */
export function lagLine(archive: string, behind: number, archiveInterval: number): StatusLine {
  const says =
    behind === 0
      ? `has everything that is in ${archive}`
      : `${behind} segments behind ${archive}, about ${span(behind * archiveInterval)}`;
  return line("database", "follows", byLimit(behind, { warning: 8, fault: 40 }), says);
}
