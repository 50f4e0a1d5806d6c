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
 * anew. With the making of a pair each takes some quarter of an hour.
 */
export const rounds: readonly (readonly Scenario[])[] = [
  [switchThereAndBack, byHand],
  [interrupted],
  [lostHome, rebornHome],
  [refused, coldVps],
];

/** Those of two sites with one round at their beginning. Pure. */
export const beginningWith = (round: readonly Scenario[], all: readonly Scenario[]): Scenario[] => [
  ...round,
  ...all.filter((scenario) => !round.includes(scenario)),
];

/**
 * Minutes that one of two sites needs before it begins. The first makes a pair; one that goes on in its round, after one that
 * held, finds it as it must be; and any other has to make one, or to make the other site of it the active one, or lost. Pure.
 *
 * @param i its place in the order
 */
export function minutesBefore(i: number, round: readonly Scenario[], before: "held" | "broken or left out"): number {
  if (i === 0) return 3;
  return i < round.length && before === "held" ? 0 : 6;
}
