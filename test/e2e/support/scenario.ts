/** What a scenario is and what it is given. */
import type { Environment } from "./environment";
import type { Report } from "./report";

/**
 * How long a scenario draws and measures. `brief`: in a whole run, which has an hour; `once`: as the issue asks, where the
 * scenario is named; `full`: repeated, for figures.
 */
export type Extent = "brief" | "once" | "full";

export interface Context {
  environment: Environment;
  report: Report;
  extent: Extent;
  /** Folder for the output of everything the scenario runs. */
  logs: string;
}

export interface Scenario {
  /** As on the command line. */
  name: string;
  /** One line for `--list`. */
  what: string;
  /** `by name`: left out of a whole run until it has been seen to pass to its end. @default "always" */
  included?: "always" | "by name";
  /**
   * `beside`: needs one cluster, and nothing of the other; in a whole run it is on the second one while others are on
   * the first. `either`: on the one that is free first.
   */
  place?: "beside" | "either";
  /** `both`: has both clusters to itself, after all others. @default "one" */
  sites?: "one" | "both";
  /**
   * Why a whole run takes a second failure for a failure, and not the first: what breaks the machine itself also breaks what
   * watches it. Both outcomes are printed.
   */
  secondTry?: string;
  /**
   * Minutes that it takes on two cores, of two sites without the making of a pair: a whole run that has an hour does not
   * begin what it could not end.
   */
  minutes: number;
  /** Minutes after which it is given up. */
  limit: number;
  run(context: Context): Promise<void>;
}
