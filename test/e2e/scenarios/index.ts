/** Every scenario, in the order a whole run takes them. */
import { archivePrice } from "./archive-price";
import { drill } from "./drill";
import { faults } from "./faults";
import { isolation } from "./isolation";
import { oneSite } from "./one-site";
import { restore } from "./restore";
import { slowDisk } from "./slow-disk";
import { upgrade } from "./upgrade";
import { volumeMedia } from "./volume-media";
import type { Scenario } from "../support/scenario";

export const scenarios: readonly Scenario[] = [
  oneSite,
  restore,
  drill,
  upgrade,
  volumeMedia,
  slowDisk,
  isolation,
  faults,
  archivePrice,
];
