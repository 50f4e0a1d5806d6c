/** Runs in a pod of `homestead doctor`: `fsync.js <folder> <seconds>` prints what it measured as JSON. */
import { measure } from "./fsync";

const [folder = "/disk", seconds = "20"] = process.argv.slice(2);
try {
  console.log(JSON.stringify(measure(folder, Number(seconds))));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
