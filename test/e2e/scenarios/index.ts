/** Every scenario, in the order a whole run takes them. */
import { archivePrice } from "./archive-price";
import { byHand } from "./by-hand";
import { coldVps } from "./cold-vps";
import { doctor } from "./doctor";
import { drill } from "./drill";
import { faults } from "./faults";
import { interrupted } from "./interrupted";
import { isolation } from "./isolation";
import { lostHome } from "./lost-home";
import { oneSite } from "./one-site";
import { postgresUpgrade } from "./postgres-upgrade";
import { rebornHome } from "./reborn-home";
import { refused } from "./refused";
import { restore } from "./restore";
import { search } from "./search";
import { slowDisk } from "./slow-disk";
import { switchThereAndBack } from "./switch";
import { tryIt } from "./try";
import { tryAstray } from "./try-astray";
import { upgrade } from "./upgrade";
import { volumeMedia } from "./volume-media";
import type { Scenario } from "../support/scenario";

export const scenarios: readonly Scenario[] = [
  // These four share a site.
  oneSite,
  search,
  upgrade,
  restore,
  postgresUpgrade,
  // And these two another one.
  volumeMedia,
  slowDisk,
  // These three that of slow-disk's second half.
  isolation,
  drill,
  faults,
  // On whichever cluster is free first, the longer one before the shorter.
  tryIt,
  tryAstray,
  doctor,
  // And these seven a pair of sites, each as the one before leaves it.
  switchThereAndBack,
  byHand,
  interrupted,
  lostHome,
  rebornHome,
  refused,
  coldVps,
  archivePrice,
];

/**
 * A run that has an hour has no time for all seven of two sites: it begins with one of these, which another commit draws
 * anew. Each begins with a pair of its own, and is over within a quarter of an hour.
 */
export const rounds: readonly (readonly Scenario[])[] = [
  [switchThereAndBack, byHand],
  [interrupted],
  [lostHome, rebornHome],
  [refused, coldVps],
];

/** Minutes to make a pair, or to make the other one of it the active site: what a scenario may need before it begins. */
const pairMinutes = 4;

/** Those of two sites with one round at their beginning; what the others need before they begin is counted. Pure. */
export function beginningWith(round: readonly Scenario[], all: readonly Scenario[]): Scenario[] {
  const rest = all.filter((scenario) => !round.includes(scenario));
  return [...round, ...rest].map((scenario, i) =>
    i > 0 && i < round.length ? scenario : { ...scenario, minutes: scenario.minutes + pairMinutes },
  );
}
