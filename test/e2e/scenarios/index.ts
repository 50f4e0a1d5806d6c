/** Every scenario, in the order a whole run takes them. */
import { oneSite } from "./one-site";
import { upgrade } from "./upgrade";
import type { Scenario } from "../support/scenario";

export const scenarios: readonly Scenario[] = [oneSite, upgrade];
