/**
 * What the program may do, given the lease: asked before the first resource, in a preview too. Pure.
 */
import type { Fault, Settings } from "../../settings";
import type { Lease, Moving, StoredLease, Takeover } from "./lease";

/** What the rules look at besides the stack's settings. */
export interface LeaseFacts {
  /** Nothing, if the vault has none. */
  stored: Pick<StoredLease, "lease"> | undefined;
  /** Whether the vault holds any database's archive. */
  archives: boolean;
  /** Whether the cluster has this site's database already. */
  database: "there" | "missing";
  /** UID of the cluster; undefined where it does not answer. */
  cluster: string | undefined;
  /**
   * Whether Valkey and its keeper are to run here, and whether the keeper knows that a lease may name a cluster: to an
   * earlier one it would be no lease. Looked at only for a lease that names none.
   */
  keeper: "knows" | "older" | "none";
}

/** What the update does to the lease before anything else. */
export type LeaseStep =
  | { kind: "none" }
  /** The server's first `up`: there was nothing before. */
  | { kind: "create"; takeover: Extract<Takeover, "first" | "dead"> }
  /** This site takes over. */
  | { kind: "advance"; from: Lease; takeover: Exclude<Takeover, "first"> }
  /** The active site goes on, on a cluster that the lease does not name. */
  | { kind: "move"; how: Moving };

type Stack = Pick<
  Settings,
  | "site"
  | "role"
  | "activeSite"
  | "epoch"
  | "founder"
  | "fingerprint"
  | "promotionToken"
  | "restore"
  | "vault"
  | "cluster"
>;

type Verdict = { step: LeaseStep; faults: Fault[] };

const none: LeaseStep = { kind: "none" };
const refused = (fault: Omit<Fault, "key"> & { key: string }): Verdict => ({
  step: none,
  faults: [{ ...fault, key: `homestead:${fault.key}` }],
});

const generationsToo = "generations to the newest archives in the vault (pg/<site>-g<number>) in Pulumi.yaml";

/**
 * What files that are behind the lease are to say. A switch may have begun a database anew: generations change with the
 * other two.
 */
export const asTheLeaseSays = ({ activeSite, epoch }: Pick<Lease, "activeSite" | "epoch">): string =>
  `get the newest files (git pull), or set activeSite to ${activeSite}, epoch to ${epoch}, and ${generationsToo}`;

/** What files that are behind the vault's archives are to say. */
export const asTheVaultSays = (site: string, generation: number): string =>
  `get the newest files (git pull), or set generations.${site} to ${generation} in Pulumi.yaml`;

/** How a takeover is called, by the transient key that allows it. */
const takeoverOf = (token: string): Exclude<Takeover, "first"> =>
  token === "lost" || token === "dead" ? token : "planned";

/** The rules of docs/lease.md. */
export function leaseStep(stack: Stack, facts: LeaseFacts): Verdict {
  const { stored } = facts;
  if (stored === undefined) return withoutLease(stack, facts);
  const { lease } = stored;
  if (lease.fingerprint !== stack.fingerprint) {
    return refused({
      key: "vault.bucket",
      value: JSON.stringify(stack.vault.bucket),
      allowed: `this server's own vault: its lease is of identity ${lease.fingerprint}, and this stack's identity is ${stack.fingerprint}`,
      mend: "npx homestead identity verify (which stack differs), or name the right bucket",
    });
  }
  const { site, restore, cluster } = stack;
  // It would be believed once the lease names this cluster, and the site goes on elsewhere.
  if (restore.oldCluster !== undefined && restore.oldCluster === facts.cluster) {
    return refused({
      key: "restore.oldCluster",
      value: JSON.stringify(restore.oldCluster),
      allowed: `the UID of a cluster that is off: the one behind context '${cluster.context}' has this UID, and it answers`,
      mend: `pulumi config rm --path homestead:restore.oldCluster --stack ${site}`,
    });
  }
  return stack.role === "active" ? asActive(stack, lease, facts) : asStandby(stack, lease, facts);
}

function asActive(stack: Stack, lease: Lease, facts: LeaseFacts): Verdict {
  const { site, epoch, promotionToken } = stack;
  if (lease.activeSite === site && lease.epoch === epoch)
    return { step: ofTheSameEpoch(stack, lease, facts), faults: [] };
  if (lease.activeSite === site) return wrongEpoch(stack, lease);
  if (epoch !== lease.epoch + 1 || promotionToken === undefined) {
    return refused({
      key: "activeSite",
      value: JSON.stringify(stack.activeSite),
      allowed: `${lease.activeSite} (epoch ${lease.epoch}), as the lease in the vault says: two sites that federate cannot be merged again`,
      mend: `npx homestead switch ${site} (or by hand: docs/runbooks/switch-by-hand.md); to leave it as it is, ${asTheLeaseSays(lease)}`,
    });
  }
  return { step: { kind: "advance", from: lease, takeover: takeoverOf(promotionToken) }, faults: [] };
}

/**
 * Whoever else runs as this site runs on another cluster. Whether the database here is the right one is asked of the
 * archives in the vault (`checkStale`): a cluster that was given up does not get the lease back.
 */
function ofTheSameEpoch({ restore }: Stack, lease: Lease, { cluster, database, keeper }: LeaseFacts): LeaseStep {
  if (cluster === undefined || lease.cluster === cluster) return none;
  if (lease.cluster === undefined && database === "there") {
    if (keeper === "knows") return { kind: "move", how: "named" };
    // It counts as it did. A database beside which nothing runs may have followed, and another cluster federates.
    if (keeper === "older") return none;
  }
  // A word about another cluster says nothing about this one, and of one without a name there is none.
  const isOff = lease.cluster !== undefined && restore.oldCluster === lease.cluster;
  return { kind: "move", how: isOff ? "dead" : "moved" };
}

/** What is said before a site waits for the cluster that it had: for how long, for which one, and how it need not. Pure. */
export function aboutTheWait(
  { site, restore }: Pick<Stack, "site" | "restore">,
  { cluster }: Pick<Lease, "cluster">,
  seconds: number,
): string {
  const waits = `Valkey will begin ${seconds} s later, when the cluster that ${site} had has stopped for certain`;
  if (cluster === undefined) {
    return `${waits}; the lease does not name that one (an earlier program wrote it), so nobody can say that it is off`;
  }
  const not = restore.oldCluster === undefined ? "" : `, and not ${restore.oldCluster}`;
  return `${waits}; the lease names it: UID ${cluster}${not}; if that one is off, and stays off until the update is over: pulumi config set --path homestead:restore.oldCluster ${cluster} --stack ${site}`;
}

function asStandby(stack: Stack, lease: Lease, { cluster }: LeaseFacts): Verdict {
  const { site, activeSite, epoch } = stack;
  if (lease.activeSite === activeSite && lease.epoch === epoch) return { step: none, faults: [] };
  if (lease.activeSite === site && ![undefined, lease.cluster].includes(cluster) && lease.cluster !== undefined) {
    return refused({
      key: "cluster.context",
      value: JSON.stringify(stack.cluster.context),
      allowed: `the cluster that the lease names (UID ${lease.cluster ?? ""}): what steps down on another one is not what federates`,
      mend: `pulumi config set --path homestead:cluster.context <context of ${site}> --stack ${site}`,
    });
  }
  // Its own stepping down makes nobody active.
  if (lease.activeSite === site && epoch === lease.epoch + 1) return { step: none, faults: [] };
  if (lease.activeSite === activeSite) return wrongEpoch(stack, lease);
  return refused({
    key: "activeSite",
    value: JSON.stringify(activeSite),
    allowed: `${lease.activeSite} (epoch ${lease.epoch}), as the lease in the vault says`,
    mend: asTheLeaseSays(lease),
  });
}

const wrongEpoch = ({ epoch }: Stack, lease: Lease): Verdict =>
  refused({
    key: "epoch",
    value: String(epoch),
    allowed: `${lease.epoch}, as the lease in the vault says`,
    mend: `get the newest files (git pull), or set epoch to ${lease.epoch}, and ${generationsToo}`,
  });

function withoutLease(stack: Stack, { archives, database }: LeaseFacts): Verdict {
  const { site, role, activeSite, epoch, founder, promotionToken, vault } = stack;
  if (role === "standby") {
    return refused({
      key: "activeSite",
      value: JSON.stringify(activeSite),
      allowed: `a site that is there: the vault '${vault.bucket}' has no lease yet`,
      mend: `pulumi up --stack ${activeSite} first`,
    });
  }
  // The operator's word that nobody else runs: the way out of every case below.
  if (promotionToken === "dead") return { step: { kind: "create", takeover: "dead" }, faults: [] };
  const anew = `make sure that no other site runs, then: pulumi config set homestead:promotionToken dead --stack ${site}, pulumi up --stack ${site}, pulumi config rm homestead:promotionToken --stack ${site}`;
  if (archives || database === "there") {
    const what = archives ? "it holds archives of a database" : "this cluster has a database";
    return refused({
      key: "vault.bucket",
      value: JSON.stringify(vault.bucket),
      allowed: `a vault with its lease: ${what}, and there is no lease.json to say which site is active`,
      mend: `get the newest files (git pull), if the server has moved to another bucket (docs/runbooks/new-bucket.md); else put lease.json back, or, ${anew}`,
    });
  }
  if (site !== founder || epoch !== 1) {
    return refused({
      key: site === founder ? "epoch" : "activeSite",
      value: site === founder ? String(epoch) : JSON.stringify(activeSite),
      allowed: `${site === founder ? "1" : founder}, at the first update of a server: the vault '${vault.bucket}' is empty`,
      mend: `name the server's own vault; or, if this is a new bucket for an old server, ${anew}`,
    });
  }
  return { step: { kind: "create", takeover: "first" }, faults: [] };
}
