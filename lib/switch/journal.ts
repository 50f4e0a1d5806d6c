/**
 * The journal of a switch: one object in the vault, so that whoever runs the command next, on whatever machine, goes on
 * where it stopped.
 */
import * as z from "zod";
import { messageOf } from "../attempt";
import { readText, StoreRefusal, writeTextOver } from "../s3";
import type { Bucket, BucketKeys } from "../s3";
import { siteNames } from "../../settings";
import { UserError } from "../user-error";

/** Name of the object in the vault. */
export const journalKey = "switch/journal.json";

/** `planned`: nothing is lost. `lost`: the old site cannot be reached. `dead`: it is powered off. */
export const kinds = ["planned", "lost", "dead"] as const;
export type Kind = (typeof kinds)[number];

/** Every step there is, in their order; which of them a switch needs is said by `stepsOf`. */
export const stepNames = [
  "follow",
  "stop-web",
  "drain",
  "stop-workers",
  "demote",
  "catch-up",
  "promote",
  "clear-token",
  "verify",
  "reopen",
  "clear-kept",
] as const;
export type StepName = (typeof stepNames)[number];

const moment = z.iso.datetime();
const shape = z.strictObject({
  version: z.literal(1),
  target: z.enum(siteNames),
  from: z.enum(siteNames),
  kind: z.enum(kinds),
  /** The epoch that the switch leads to. */
  epoch: z.int().min(2),
  /** The target's generation: its own, or the next one where its database begins anew. */
  generation: z.int().positive(),
  /** The target had no database when it was looked at: its cluster may be a new one, and its stack's state an old one's. */
  missing: z.boolean().optional(),
  /** What lets the target take over; known once the old site is demoted. */
  token: z.string().optional(),
  /**
   * The token that the old site itself took over with, where it may not have come so far yet: while the file has it,
   * its database waits for what is missing, and without it begins with a part.
   */
  kept: z.string().optional(),
  steps: z.array(z.strictObject({ name: z.enum(stepNames), begun: moment.optional(), done: moment.optional() })),
  startedAt: moment,
  updatedAt: moment,
  finished: z.boolean(),
});
export type Journal = z.output<typeof shape>;

/** @throws UserError that names the object, when it is no journal */
export function parseJournal(text: string): Journal {
  try {
    return shape.parse(JSON.parse(text));
  } catch {
    throw new UserError(
      `${journalKey} in the vault is no journal of a switch; look at what the sites are (npx homestead status), then delete it`,
    );
  }
}

/** The journal in its bucket. Written only over what was read or written last: two runs of one switch are one too many. */
export class JournalStore {
  private etag: string | undefined;

  constructor(
    private readonly vault: Bucket,
    private readonly keys: BucketKeys,
  ) {}

  /** @returns undefined when there was never a switch. @throws Error when the store does not say */
  async read(): Promise<Journal | undefined> {
    const found = await readText(this.vault, this.keys, journalKey);
    this.etag = found?.etag;
    return found === undefined ? undefined : parseJournal(found.text);
  }

  /** @throws UserError when somebody else wrote it since, or the vault takes nothing */
  async write(journal: Journal): Promise<void> {
    // Two runs that go on with one journal begin by writing the same text. The time in their first mark differs.
    const text = `${JSON.stringify(journal, undefined, 2)}\n`;
    let written: string | undefined;
    try {
      written = await writeTextOver(this.vault, this.keys, journalKey, text, this.etag);
    } catch (error) {
      throw new UserError(
        error instanceof StoreRefusal
          ? `the journal cannot be written: ${error.message}; the vault's keys must be allowed to write (npx homestead doctor)`
          : `the journal cannot be written to the vault: ${messageOf(error)}`,
      );
    }
    if (written === undefined) {
      throw new UserError("another run of this switch is at work: let it end, then look: npx homestead status");
    }
    this.etag = written;
  }
}
