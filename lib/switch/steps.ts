/** Which steps a switch takes, and what the project's files say while each of them runs. Pure. */
import type { SiteName } from "../../settings";
import type { Journal, Kind, StepName } from "./journal";

/**
 * The target's database: it follows the active site's; it wrote by itself last, and what it holds has parted from the
 * active site's; it is not there.
 */
export type TargetDatabase = "follows" | "parted" | "missing";

/** One line for each step, for `--dry-run` and for whoever watches. */
export const described: Record<StepName, (journal: Journal) => string> = {
  follow: ({ target, generation }) =>
    `pulumi up on ${target}: its database begins anew (generation ${generation}), follows and catches up`,
  "stop-web": ({ from }) => `pulumi up on ${from}: nobody reads or posts any more, jobs are still worked on`,
  drain: ({ from }) => `wait for ${from}'s queues, a minute at most; what is left goes along`,
  "stop-workers": ({ from }) => `pulumi up on ${from}: no jobs either; media on a volume are copied to the vault`,
  demote: ({ from }) => `pulumi up on ${from}: its database gives up writing, queues and feeds go to the vault`,
  "catch-up": ({ target, from }) => `wait until ${target}'s database has replayed all that ${from} archived`,
  promote: ({ target, kind, generation, missing, steps }) => {
    const before = steps.some(({ name }) => name === "follow" || name === "catch-up");
    const begins = missing === true && !before;
    const database = begins ? `its database begins from the vault (generation ${generation})` : "database promoted";
    return `pulumi up on ${target}: takes the lease${kind === "lost" ? ", waits the old site's grace out" : ""}, ${database}, Mastodon up, verified, DNS`;
  },
  "clear-token": ({ target }) => `pulumi up on ${target}: the promotion token is taken away`,
  verify: ({ target }) => `${target} is verified through public DNS; with dns of kind manual that is left to you`,
  reopen: ({ from }) => `pulumi up on ${from}: it serves again`,
  "clear-kept": ({ from }) => `pulumi up on ${from}: the token that it took over with itself is taken away`,
};

/** The steps from the taking of the lease on. */
export const taking: readonly StepName[] = ["promote", "clear-token", "verify"];

/** The steps of a switch, in their order. */
export function stepsOf(kind: Kind, database: TargetDatabase): StepName[] {
  // A lost site's successor that has no database at all begins with what is in the vault, at once.
  if (kind !== "planned") {
    // Without a token nothing else holds a promotion back until everything is replayed that there is.
    const before = { parted: ["follow"], follows: ["catch-up"], missing: [] } as const;
    return [...before[database], ...taking];
  }
  const handing: StepName[] = ["stop-web", "drain", "stop-workers", "demote"];
  return [...(database === "follows" ? [] : (["follow"] as const)), ...handing, ...taking];
}

/** What the files say: `Pulumi.yaml`, and the transient keys of the two stack files. Undefined: the key is not there. */
export interface FileValues {
  shared: { activeSite: SiteName; epoch: number; generation: number };
  /** `maintenance` of the old site. */
  maintenance: "web" | "all" | undefined;
  /** `promotionToken` of the target. */
  promotionToken: string | undefined;
  /** `promotionToken` of the old site. */
  kept?: string | undefined;
}

/** What the files say while a step runs: all of it, so that a clone that never saw the steps before gets them right. */
export function filesAt(step: StepName, { target, from, epoch, generation, kind, token, kept }: Journal): FileValues {
  const before = { activeSite: from, epoch: epoch - 1, generation };
  const after = { activeSite: target, epoch, generation };
  switch (step) {
    case "follow":
    case "catch-up":
    case "reopen":
      return { shared: before, maintenance: undefined, promotionToken: undefined, kept };
    case "stop-web":
    case "drain":
      return { shared: before, maintenance: "web", promotionToken: undefined, kept };
    case "stop-workers":
      return { shared: before, maintenance: "all", promotionToken: undefined, kept };
    case "demote":
      return { shared: after, maintenance: undefined, promotionToken: undefined };
    case "promote":
      // None where the lease was taken by hand, and the token has done its work; without one the lease is taken by nobody.
      return { shared: after, maintenance: undefined, promotionToken: kind === "planned" ? token : kind };
    case "clear-kept":
      return { shared: before, maintenance: undefined, promotionToken: undefined };
    case "clear-token":
    case "verify":
      return { shared: after, maintenance: undefined, promotionToken: undefined };
  }
}

/**
 * How an update takes the stack's state: as it is, or only after a look at the cluster. What the state lists and a new
 * cluster has not got would not be made, and what depends on it would fail.
 */
export type StateUse = "believed" | "refreshed";

/** How the target's update in a step takes its state: refreshed by the first one on a cluster without its database. Pure. */
export function stateUseOf(step: StepName, { missing, steps }: Pick<Journal, "missing" | "steps">): StateUse {
  const first = steps.find(({ name }) => name === "follow" || name === "promote")?.name;
  return missing === true && step === first ? "refreshed" : "believed";
}

/** The step to go on with; undefined at the end. */
export const nextStep = (journal: Journal): StepName | undefined =>
  journal.steps.find(({ done }) => done === undefined)?.name;

/** A switch that was begun, as the lease sees it. */
export type Standing =
  /** Nothing is under way. */
  | "none"
  /** It can go on. */
  | "open"
  /** The lease has moved on without it: somebody switched by hand. */
  | "overtaken";

export function standingOf(journal: Journal | undefined, lease: { activeSite: SiteName; epoch: number }): Standing {
  if (journal === undefined || journal.finished) return "none";
  const { target, from, epoch } = journal;
  const before = lease.epoch === epoch - 1 && lease.activeSite === from;
  const taken = lease.epoch === epoch && lease.activeSite === target;
  return before || taken ? "open" : "overtaken";
}
