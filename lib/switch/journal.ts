/**
 * The journal of a switch: one object in the vault, so that whoever runs the command next, on whatever machine, goes on
 * where it stopped.
 */
import * as z from "zod";
import { s3Request } from "../s3";
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
  "promote",
  "clear-token",
  "verify",
  "reopen",
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
  /** What lets the target take over; known once the old site is demoted. */
  token: z.string().optional(),
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
    const response = await s3Request(this.vault, this.keys, "GET", { key: journalKey });
    const text = await response.text();
    this.etag = response.headers.get("etag") ?? undefined;
    if (response.status === 404) return ((this.etag = undefined), undefined);
    if (!response.ok) throw new Error(`bucket '${this.vault.bucket}' answers ${response.status}`);
    return parseJournal(text);
  }

  /** @throws UserError when somebody else wrote it since, or the vault takes nothing */
  async write(journal: Journal): Promise<void> {
    const put = (headers: Record<string, string>) =>
      s3Request(this.vault, this.keys, "PUT", {
        key: journalKey,
        body: `${JSON.stringify(journal, undefined, 2)}\n`,
        headers: { "content-type": "application/json", ...headers },
        retries: 0,
      });
    let response: Response;
    try {
      response = await put(this.etag === undefined ? { "if-none-match": "*" } : { "if-match": this.etag });
      // A store without conditional writes says so.
      if (response.status === 501) response = await put({});
    } catch (error) {
      throw new UserError(`the journal cannot be written to the vault: ${reason(error)}`);
    }
    if (response.status === 412 || response.status === 409) {
      throw new UserError("another run of this switch is at work: let it end, then look: npx homestead status");
    }
    if (!response.ok) {
      throw new UserError(
        `the journal cannot be written: bucket '${this.vault.bucket}' answers ${response.status}; the vault's keys must be allowed to write (npx homestead doctor)`,
      );
    }
    this.etag = response.headers.get("etag") ?? undefined;
  }
}

const reason = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
};
