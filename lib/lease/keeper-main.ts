/** What the keeper's container runs. */
import { Keeper, keeperOptions } from "./keeper";
import { startMetrics } from "./metrics";

const options = keeperOptions();
const keeper = new Keeper(options);
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => keeper.end());
startMetrics(options, keeper);
keeper.run().then(
  // A look at a disk or at WebFinger may still be under way.
  () => process.exit(0),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
