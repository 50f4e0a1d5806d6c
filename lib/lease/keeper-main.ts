/** What the keeper's container runs. */
import { keeperFromEnvironment } from "./keeper";

const keeper = keeperFromEnvironment();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => keeper.end());
keeper.run().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
