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
  // And these seven a pair of sites, each as the one before leaves it. What a run has no time for is at the end.
  switchThereAndBack,
  byHand,
  interrupted,
  lostHome,
  rebornHome,
  refused,
  coldVps,
  archivePrice,
];
