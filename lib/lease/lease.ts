/**
 * The site lease: one small object in the vault that says which site federates. docs/lease.md has the whole protocol.
 * Everything here is pure: no clock, no network.
 */
import * as z from "zod";
import type { SiteName } from "../../settings";

/** Name of the object in the vault. */
export const leaseKey = "lease.json";

/** Seconds between two looks of a keeper at the lease. */
export const pollSeconds = 20;
/** Seconds one look may take before it counts as failed. */
export const requestSeconds = 10;
/**
 * Seconds within which a gate acts upon a mark that went stale, and what Mastodon had begun is over: Sidekiq's
 * deliveries give up after 10 s to connect and 10 s to read (Mastodon, `app/lib/request.rb`).
 */
export const reactionSeconds = 45;
/** Two machines' clocks may run apart by this share; their settings do not matter, only durations are compared. */
export const driftBound = 0.01;

/**
 * How the active site came to be: at the first `up`; planned, with the other site's demotion token; the other site
 * being lost, after waiting; the other site being powered off, at the operator's word.
 */
export const takeovers = ["first", "planned", "lost", "dead"] as const;
export type Takeover = (typeof takeovers)[number];

const leaseShape = z.strictObject({
  version: z.literal(1),
  /** The one site that federates. */
  activeSite: z.enum(["home", "vps"]),
  /** Counts the takeovers; nothing ever happens twice in one epoch. */
  epoch: z.int().positive(),
  /** Of the identity (`Settings.fingerprint`): a vault belongs to one server. */
  fingerprint: z.string(),
  /** Seconds a site goes on without being able to read the lease. */
  grace: z.int().positive(),
  /** Seconds, by the store's clock, that the active site lets pass after this object was written before it begins. */
  wait: z.int().nonnegative(),
  takeover: z.enum(takeovers),
  /**
   * UID of the cluster that federates: a cluster that was given up is of the same site and epoch as the one that the site
   * was restored to. Missing in an earlier program's lease, which is any cluster's of the site.
   */
  cluster: z.string().optional(),
  /** Seconds, by the store's clock, that the epoch had lasted when this was written: more than 0 after a restore. */
  lasted: z.int().nonnegative().default(0),
  /** Differs with every write: tells the writer whether it was its own that prevailed. */
  writer: z.string(),
});
export type Lease = z.output<typeof leaseShape>;

/** Who asks: a site in the epoch that its stack names, and its cluster. */
export interface Claim {
  site: SiteName;
  epoch: number;
  /** UID of its namespace `kube-system`. */
  cluster: string;
  fingerprint: string;
}

/** What a store answered: the lease, its version in the store, and how old it is by the store's own clock. */
export interface StoredLease {
  lease: Lease;
  etag: string;
  /** Seconds, never negative. */
  age: number;
}

/** @throws Error that names the object, when it is no lease */
export function parseLease(text: string): Lease {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Error(`${leaseKey} in the vault is not JSON`);
  }
  const parsed = leaseShape.safeParse(content);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.length ? `${issue.path.join(".")}: ` : "";
  throw new Error(`${leaseKey} in the vault is no lease: ${where}${issue?.message ?? ""}`);
}

export const formatLease = (lease: Lease): string => `${JSON.stringify(lease, undefined, 2)}\n`;

/**
 * What a site that has just read the lease may do.
 *
 * `ours`: federate. `soon`: it is ours, and the old site may not have stopped yet. `others`: stop.
 */
export function judge({ lease, age }: Pick<StoredLease, "lease" | "age">, claim: Claim): "ours" | "soon" | "others" {
  const same =
    lease.activeSite === claim.site && lease.epoch === claim.epoch && lease.fingerprint === claim.fingerprint;
  if (!same || isReplaced(lease, claim)) return "others";
  return age >= lease.wait ? "ours" : "soon";
}

/** Whether a site goes on elsewhere, in the same epoch: it was restored onto another cluster. */
export const isReplaced = (lease: Lease, { site, epoch, cluster }: Claim): boolean =>
  lease.activeSite === site && lease.epoch === epoch && lease.cluster !== undefined && lease.cluster !== cluster;

/** Seconds since the epoch began. */
export const epochAge = ({ lease, age }: Pick<StoredLease, "lease" | "age">): number => lease.lasted + age;

/** Seconds after which a site that cannot be reached has stopped for certain, whatever it last read. */
export const waitFor = (grace: number): number =>
  Math.ceil((grace * (1 + driftBound)) / (1 - driftBound)) + requestSeconds + reactionSeconds;

/** Seconds of an earlier wait that are not over: somebody may still go on who has not been seen to stop. */
export const waitLeft = ({ lease, age }: Pick<StoredLease, "lease" | "age">): number =>
  Math.max(0, Math.ceil(lease.wait - age));

/** The lease of the server's first `up`. */
export const firstLease = (claim: Claim, grace: number, writer: string): Lease => ({
  version: 1,
  activeSite: claim.site,
  epoch: claim.epoch,
  fingerprint: claim.fingerprint,
  grace,
  wait: 0,
  takeover: "first",
  cluster: claim.cluster,
  lasted: 0,
  writer,
});

/** The lease after a takeover. @throws Error unless it is the next epoch's and of the same server */
export function nextLease(
  stored: Pick<StoredLease, "lease" | "age">,
  claim: Claim,
  takeover: Exclude<Takeover, "first">,
  grace: number,
  writer: string,
): Lease {
  const { lease: previous } = stored;
  if (claim.epoch !== previous.epoch + 1) throw new Error(`epoch ${claim.epoch} does not follow ${previous.epoch}`);
  if (claim.fingerprint !== previous.fingerprint) throw new Error("the lease is another server's");
  return {
    ...firstLease(claim, grace, writer),
    // A grace that was made shorter meanwhile is not known to who cannot read it, hence the longer one.
    wait: Math.max(takeover === "lost" ? waitFor(Math.max(previous.grace, grace)) : 0, waitLeft(stored)),
    takeover,
  };
}

/**
 * How the active site's lease comes to name a cluster. `named`: it named none, and this one has been its own. `moved`: the
 * site was restored onto this one, and the old one may still go on. `dead`: the old one is off, at the operator's word.
 */
export type Moving = "named" | "moved" | "dead";

/** The lease of the same epoch, on this cluster. @throws Error unless it is the active site's that asks */
export function movedLease(
  stored: Pick<StoredLease, "lease" | "age">,
  claim: Claim,
  how: Moving,
  grace: number,
  writer: string,
): Lease {
  const { lease: previous } = stored;
  const same =
    previous.activeSite === claim.site && previous.epoch === claim.epoch && previous.fingerprint === claim.fingerprint;
  if (!same) throw new Error(`the lease is ${previous.activeSite}'s, epoch ${previous.epoch}`);
  return {
    // A changed grace counts from a takeover on, and who moves has waited like one that takes over.
    ...firstLease(claim, how === "named" ? previous.grace : grace, writer),
    takeover: previous.takeover,
    wait: Math.max(how === "moved" ? waitFor(Math.max(previous.grace, grace)) : 0, waitLeft(stored)),
    lasted: Math.floor(epochAge(stored)),
  };
}
