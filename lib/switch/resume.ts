/** How a switch that was interrupted is gone on with: its journal, against what the lease and the sites say by now. */
import { archiveName } from "../../settings";
import type { Settings, SiteName } from "../../settings";
import { newestSegment, timelineOf } from "../archive";
import { reason } from "../attempt";
import { keysOf } from "../bucket-keys";
import { findDatabases, readToken } from "../database";
import type { DatabaseObject } from "../database";
import type { Lease } from "../lease/lease";
import type { Site } from "../site-secrets";
import { UserError } from "../user-error";
import type { Journal, Kind, StepName } from "./journal";
import type { Findings } from "./preflight";
import { nextStep, stepsOf, taking } from "./steps";

type Holder = Pick<Lease, "activeSite" | "epoch">;

export type Resumption =
  /** With its next step. */
  | "go on"
  /** The old site serves on as if nothing had been. */
  | "reopen"
  /** From the start, after everything was looked at and asked anew: its word, or what was done, may be true no longer. */
  | "decide anew"
  /** Not at all: the lease is the target's, and the way back is a switch like any other. */
  | "history"
  /** Not that way; the text says what is possible. */
  | { refused: string };

/** Whether the switch has reached its aim, by the command or by hand: the lease is the target's. Pure. */
export const isTaken = ({ target, epoch }: Pick<Journal, "target" | "epoch">, lease: Holder): boolean =>
  lease.activeSite === target && lease.epoch === epoch;

/** Whether the old site may have been demoted. Pure. */
export const isDemoting = ({ steps, token }: Pick<Journal, "steps" | "token">): boolean =>
  token !== undefined || steps.some(({ name, begun }) => name === "demote" && begun !== undefined);

/**
 * What was done before the lease was taken is as old as its day: the site may be there by now, or serve again, since
 * nothing forbids it. So it is looked at and asked for anew. Only a site that is still demoted stays so by itself. Once the
 * lease is taken, it is the lease that holds the old site back.
 *
 * @param writes whether the old site has written since the switch demoted it
 */
export function resumption(
  open: Journal,
  lease: Holder,
  wanted: { target: SiteName; kind: Kind },
  writes = false,
): Resumption {
  const { target, from, kind, epoch, token } = open;
  const back = wanted.target !== target;
  if (isTaken(open, lease)) return back ? "history" : "go on";
  if (back) return "reopen";
  if (isDemoting(open) && !writes) {
    // With its token no post is lost, whatever became of the old site.
    if (token !== undefined || (kind === "planned" && wanted.kind === "planned")) return "go on";
  }
  if (wanted.kind !== "planned" || kind === "planned") return "decide anew";
  const step = nextStep(open) ?? "verify";
  return {
    refused: `a switch to ${target} (epoch ${epoch}) stopped before its step ${step}, for which ${from} was said to be ${kind}: say again what is so (npx homestead switch ${target} --lost, or --dead), or, if ${from} is there after all, take it back: npx homestead switch ${from}`,
  };
}

/**
 * Whether a site writes again that a switch has demoted: by an update with the old files, which the lease allows. Then
 * the switch's token is stale. A site that does not answer has left its mark in its archive.
 *
 * @throws UserError where the archive, which is to say so, cannot be listed
 */
export async function writesAgain(
  { from, token }: Pick<Journal, "from" | "token">,
  old: Site | undefined,
  { settings, secrets }: Site,
): Promise<boolean> {
  const current = old && (await findDatabases(old.settings))?.current;
  if (current?.spec.replica?.primary === from) return true;
  if (token === undefined) return false;
  const archive = archiveName(from, settings.generations[from] ?? 1);
  const newest = await newestSegment(settings.vault, keysOf({ secrets }).vault, archive).catch((error: unknown) => {
    throw new UserError(
      `the vault does not say whether ${from} has written since it was demoted (${reason(error)}), and a token that is stale would promote nothing: the same command again`,
    );
  });
  return isPast(token, newest?.name);
}

/** Whether an archive's newest segment is of a later timeline than a token. Pure. */
export function isPast(token: string | undefined, segment: string | undefined): boolean {
  const made = token === undefined ? undefined : readToken(token);
  return made !== undefined && segment !== undefined && timelineOf(segment) > made.timeline;
}

/**
 * The token that a site which has the lease is to be brought up with: the one that its database was told, or none where
 * that has none any more. CloudNativePG takes the token's going away for an order to promote at once, and what the
 * database has not replayed yet would be lost.
 *
 * @param known by the journal
 * @returns `told`: whether the database was told to take over
 */
export function tokenInUse(
  { site, promotionToken }: Pick<Settings, "site" | "promotionToken">,
  database: DatabaseObject | undefined,
  known: string | undefined,
): { told: boolean; token: string | undefined } {
  const replica = database?.spec.replica;
  if (replica?.primary === site) return { told: true, token: replica.promotionToken };
  return { told: false, token: tokenIn(promotionToken) ?? known };
}

/** What stands in a token's place, if it is one and not a word of ours. Pure. */
export const tokenIn = (promotionToken: string | undefined): string | undefined =>
  promotionToken === "lost" || promotionToken === "dead" ? undefined : promotionToken;

/** The token that a switch has made its target the active site with, and which that may still need. Pure. */
export const tokenLeft = ({ token, steps }: Pick<Journal, "token" | "steps">): string | undefined =>
  // By then its database takes writes.
  steps.some(({ name, done }) => name === "promote" && done !== undefined) ? undefined : token;

// ---------------------------------------------------------------- what the journal says from now on (pure)

type Generation = Pick<Journal, "generation">;

/** Of a switch that has taken the lease: what came before counts no more, whoever did it. */
export function onceTaken(open: Journal, { takeover }: Pick<Lease, "takeover">, token: string | undefined): Journal {
  const { token: _old, missing, ...rest } = open;
  const followed = open.steps.some(({ name, done }) => name === "follow" && done !== undefined);
  return {
    ...rest,
    kind: takeover === "first" ? open.kind : takeover,
    ...(token === undefined ? {} : { token }),
    ...(missing === true && !followed ? { missing } : {}),
    steps: takingOf(open),
  };
}

/** The steps from the taking of the lease on, as far as they were taken. */
const takingOf = ({ steps }: Journal): Journal["steps"] =>
  taking.map((step) => steps.find(({ name }) => name === step) ?? { name: step });

/**
 * The token that the old site may still need, which it took over with itself. None once it was opened again, or began to
 * be demoted: it wrote by then, and a token that is older than what it wrote since would keep it from writing again.
 */
const stillKept = (open: Journal): Pick<Journal, "kept"> => {
  const opened = open.steps.some(({ name, done }) => name === "reopen" && done !== undefined);
  return open.kept === undefined || opened || isDemoting(open) ? {} : { kept: open.kept };
};

/**
 * Of a switch that is taken back: the old site serves again. Its token is kept until that is known to be possible (`reopen`
 * drops it). One that it took over with itself has done its work then, and would stand in the way of the next release.
 */
export function takenBack(open: Journal, { generation }: Generation): Journal {
  const { kept: _old, ...rest } = open;
  const still = stillKept(open);
  const steps: StepName[] = ["reopen", ...(still.kept === undefined ? [] : (["clear-kept"] as const))];
  return { ...rest, ...still, generation, steps: steps.map((name) => ({ name })) };
}

/**
 * Of a switch that goes on: what comes after the demotion, where its token is known and the old site was to be opened again,
 * or is said to be gone. Otherwise as it is.
 */
export function goneOn(open: Journal, wanted: Kind): Journal {
  const next = nextStep(open);
  const byToken = next === "reopen" || (next === "demote" && wanted !== "planned");
  return open.token !== undefined && byToken ? { ...open, steps: takingOf(open) } : open;
}

/** Whether the target's database begins anew for this switch, and has not caught up yet. */
export const isFollowing = ({ steps }: Pick<Journal, "steps">): boolean =>
  steps.some(({ name, begun, done }) => name === "follow" && begun !== undefined && done === undefined);

/** Of a switch that goes on from the start. */
export function decidedAnew(
  open: Journal,
  kind: Kind,
  { database, generation }: Pick<Findings, "database" | "generation">,
): Journal {
  const { token: _stale, kept: _old, missing, ...rest } = open;
  const waits = kind === "planned" && database === "follows" && isFollowing(open);
  const steps: StepName[] = [...(waits ? (["follow"] as const) : []), ...stepsOf(kind, database)];
  const followed = open.steps.some(({ name, done }) => name === "follow" && done !== undefined);
  return {
    ...rest,
    ...stillKept(open),
    kind,
    generation: Math.max(open.generation, generation),
    // Once it was so, an update may have stopped before it had made everything.
    ...(database === "missing" || (missing === true && !followed) ? { missing: true } : {}),
    steps: steps.map((name) => ({ name })),
  };
}

/** The step that is next by what the lease says; undefined at the end. */
export const stepAhead = (open: Journal, lease: Pick<Lease, "activeSite" | "epoch" | "takeover"> | undefined) =>
  nextStep(lease !== undefined && isTaken(open, lease) ? onceTaken(open, lease, undefined) : open);
