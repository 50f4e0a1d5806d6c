/** A switch, step by step. What it does to the world goes through {@link World}, so that a test can be one. */
import { unlessAborted } from "../attempt";
import { lastFault } from "../lease/last-snapshot";
import type { Ended } from "../lease/last-snapshot";
import { UserError } from "../user-error";
import type { SiteName } from "../../settings";
import type { Journal, StepName } from "./journal";
import { filesAt, nextStep, stateUseOf } from "./steps";
import type { FileValues, StateUse } from "./steps";

/** What a step may do. */
export interface World {
  /** Writes the project's files. */
  files(values: FileValues): void;
  /** `pulumi up`. @returns the stack's outputs. @throws UserError with the end of what it said */
  up(site: SiteName, state?: StateUse): Promise<Record<string, unknown>>;
  /** Why the site's database could not take over soon; undefined once it could. @throws UserError when waiting would not help */
  lagging(site: SiteName): Promise<string | undefined>;
  /** Returns once the site's database can be told to write. @throws UserError when it cannot */
  steady(site: SiteName): Promise<void>;
  /** Brings what nobody has copied yet of media on a volume to the vault. Of media in a bucket there is nothing to bring. */
  copyMedia(site: SiteName): Promise<void>;
  /** Jobs that wait to be worked on. */
  queued(site: SiteName): Promise<number>;
  /** Seconds since a site's Valkey left its last snapshot of an epoch in the vault; undefined if there is none. */
  lastSnapshot(ended: Ended): Promise<number | undefined>;
  /** Asks the site through public DNS. @returns a line a fault */
  verify(site: SiteName): Promise<string[]>;
  /** Keeps the journal. */
  save(journal: Journal): Promise<void>;
  say(line: string): void;
  now(): Date;
  /** @param seconds how long to do nothing */
  pause(seconds: number): Promise<void>;
}

/** Seconds that queues are given to drain: what is left goes along in Valkey's snapshot. */
const drainSeconds = 60;
/** Seconds that a database which began anew is given to replay what came after its base backup, a day's WAL at most. */
const catchUpSeconds = 3 * 3600;
/** Seconds after which a lost site's successor that gets no further is not waited for: the server is away. */
const stillSeconds = 600;

/**
 * The same world, in which nothing is begun and nothing is waited for once somebody said stop. An update is let end: half of
 * one is what the next run would have to mend.
 */
function untilStopped(world: World, signal: AbortSignal): World {
  const begin = async <T>(work: () => Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    return work();
  };
  const wait = <T>(work: () => Promise<T>): Promise<T> => unlessAborted(signal, begin(work));
  return {
    ...world,
    up: (...of) => begin(() => world.up(...of)),
    lagging: (site) => wait(() => world.lagging(site)),
    steady: (site) => wait(() => world.steady(site)),
    copyMedia: (site) => wait(() => world.copyMedia(site)),
    queued: (site) => wait(() => world.queued(site)),
    verify: (site) => wait(() => world.verify(site)),
    pause: (seconds) => wait(() => world.pause(seconds)),
  };
}

/**
 * Takes every step that is not done yet.
 *
 * @param signal says stop: what was begun ends, and no step after it is taken
 * @throws UserError when a step fails, or is not taken; the same command goes on with it
 */
export async function runSwitch(
  journal: Journal,
  given: World,
  signal: AbortSignal = new AbortController().signal,
): Promise<Journal> {
  const world = untilStopped(given, signal);
  let current = journal;
  for (let step = nextStep(current); step !== undefined; step = nextStep(current)) {
    if (signal.aborted) throw new UserError(`interrupted before ${step}\n${goesOn(step, current)}`);
    const began = world.now();
    current = await mark(current, step, "begun", world);
    world.say(`      ${step} ...`);
    try {
      current = { ...current, ...(await take(step, current, world)) };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      // It says itself what is lost, and how to go on.
      if (error instanceof JobsLeftBehind) throw new UserError(`${step} failed: ${why}`);
      if (!signal.aborted) throw new UserError(`${step} failed: ${why}\n${afterFailure(step, current)}`);
      // The engine is told to stop by the same Ctrl-C, and then says of the update that it was cancelled.
      const said = error === signal.reason ? "" : `: ${why}`;
      throw new UserError(`interrupted in ${step}${said}\n${goesOn(step, current)}`);
    }
    current = await mark(current, step, "done", world);
    world.say(`done  ${step} (${seconds(began, world.now())} s)`);
  }
  current = { ...current, finished: true };
  await world.save({ ...current, updatedAt: world.now().toISOString() });
  return current;
}

type Direction = Pick<Journal, "kind" | "from" | "target">;

/** How a switch goes on that stopped in a step. A site that is gone has taken something along already. */
function goesOn(step: StepName, { kind, from }: Direction): string {
  if (kind !== "planned") return "The same command goes on with this step.";
  const on = "Nothing is lost; the same command goes on with this step";
  return step === "reopen" || step === "clear-kept" ? `${on}.` : `${on}. Back: npx homestead switch ${from}`;
}

/** Which need the old site alive: `steady` and the updates of it. */
const onOldSite: readonly StepName[] = ["stop-web", "drain", "stop-workers", "demote", "reopen", "clear-kept"];

/** What a failed step means: the same command, and the way back, are of no use where they need a site that is gone. Pure. */
export function afterFailure(step: StepName, journal: Direction): string {
  const { from, target } = journal;
  return `${goesOn(step, journal)}${onOldSite.includes(step) ? withoutOld(from, target) : ""}`;
}

/** The way on where the old site cannot do its part. */
export const withoutOld = (from: SiteName, target: SiteName): string =>
  `\nIf ${from} is gone, or this cannot be mended: npx homestead switch ${target} --lost`;

async function mark(journal: Journal, step: StepName, what: "begun" | "done", world: World): Promise<Journal> {
  const at = world.now().toISOString();
  const steps = journal.steps.map((one) =>
    one.name === step && one[what] === undefined ? { ...one, [what]: at } : one,
  );
  const next = { ...journal, steps, updatedAt: at };
  await world.save(next);
  return next;
}

/** @returns what the journal has to know from now on */
async function take(step: StepName, journal: Journal, world: World): Promise<Pick<Journal, "token">> {
  const { target, from } = journal;
  world.files(filesAt(step, journal));
  switch (step) {
    case "follow":
      await world.up(target, stateUseOf(step, journal));
      await catchUp(journal, world);
      return {};
    case "catch-up":
      await catchUp(journal, world);
      return {};
    case "stop-web":
      // A switch that stopped before may have begun to demote it.
      await world.steady(from);
      await world.up(from);
      return {};
    case "reopen":
      await world.steady(from);
      // Stale from here on. Not before: should the site die until then, its token still hands over all that it wrote.
      if (journal.token !== undefined) {
        await world.save({ ...journal, token: undefined, updatedAt: world.now().toISOString() });
      }
      await world.up(from);
      return { token: undefined };
    case "clear-kept":
      await world.up(from);
      return {};
    case "stop-workers":
      await world.up(from);
      // Nothing writes files any more; once it is demoted the site takes from the vault, and brings nothing there.
      await world.copyMedia(from);
      return {};
    case "drain":
      await drain(from, world);
      return {};
    case "demote": {
      const { demotionToken } = await world.up(from);
      if (typeof demotionToken !== "string" || demotionToken === "") {
        throw new UserError(`stack ${from} has no output demotionToken: its database did not say that it stopped`);
      }
      // Before anything else is asked for: with it no post is lost, whatever becomes of the old site from now on.
      await world.save({ ...journal, token: demotionToken, updatedAt: world.now().toISOString() });
      await brought(journal, world);
      return { token: demotionToken };
    }
    case "promote":
    case "clear-token":
      await world.up(target, stateUseOf(step, journal));
      return {};
    case "verify": {
      const faults = await world.verify(target);
      if (faults.length > 0) throw new UserError(faults.join("\n"));
      return {};
    }
  }
}

/**
 * Before a planned switch nothing is down meanwhile, and afterwards the server is away for as long as the rest takes. A
 * lost site's successor is waited for as long as it gets on: what it has not replayed when it is promoted is lost.
 */
async function catchUp({ target, from, kind }: Journal, world: World): Promise<void> {
  const began = world.now();
  const seen = new Set<string>();
  let moved = began;
  for (let said = 0; ;) {
    const why = await world.lagging(target);
    if (why === undefined) return;
    const waited = seconds(began, world.now());
    if (!seen.has(why)) moved = world.now();
    seen.add(why);
    if (kind === "planned" && waited >= catchUpSeconds) {
      throw new UserError(`after ${catchUpSeconds / 3600} hours still: ${why}; nothing was changed on ${from}`);
    }
    if (kind !== "planned" && seconds(moved, world.now()) >= stillSeconds) {
      throw new UserError(
        `for ${stillSeconds / 60} minutes now: ${why}; npx homestead status ${target}, and docs/runbooks/alerts.md (ReplicaLag) for why it gets no further; to take over with what it has, and lose the rest: docs/runbooks/switch-by-hand.md`,
      );
    }
    if (said === 0 || waited >= said + 60) {
      world.say(`      ${why}`);
      said = Math.max(1, waited);
    }
    await world.pause(kind === "planned" ? 10 : 2);
  }
}

/** What Valkey held is in the vault, or nobody goes on: as long as the lease is the old site's, its own disk has it. */
async function brought({ from, target, epoch, steps }: Journal, world: World): Promise<void> {
  const ended = { site: from, epoch: epoch - 1 };
  const age = await world.lastSnapshot(ended);
  const began = steps.find(({ name }) => name === "demote")?.begun;
  const fault = lastFault(ended, age, began === undefined ? 0 : seconds(new Date(began), world.now()));
  if (fault !== undefined) throw new JobsLeftBehind(fault, { from, target });
}

/** The old site has handed over every post, and its Valkey's last snapshot is not in the vault. */
export class JobsLeftBehind extends UserError {
  /** @param fault of {@link lastFault} */
  constructor(fault: string, { from, target }: Pick<Journal, "from" | "target">) {
    super(
      `${fault}; ${target} would begin with its newest dump, or with nothing. What ${from} has saved is on its disk: let it serve again (npx homestead switch ${from}), mend what docs/runbooks/alerts.md says (SnapshotOld), and switch anew.\nEvery post is handed over, by the token that the journal keeps, and the same command looks for the snapshot again. Without the jobs that are missing, or if ${from} is gone: npx homestead switch ${target} --lost`,
    );
  }
}

async function drain(site: SiteName, world: World): Promise<void> {
  const began = world.now();
  for (;;) {
    const queued = await world.queued(site);
    if (queued === 0) return;
    if (seconds(began, world.now()) >= drainSeconds) {
      return world.say(`      ${queued} jobs are left; they go along`);
    }
    await world.pause(2);
  }
}

const seconds = (from: Date, to: Date): number => Math.round((to.getTime() - from.getTime()) / 1000);
