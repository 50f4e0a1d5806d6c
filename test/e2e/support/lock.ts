/**
 * One suite at a time: scenarios empty clusters, buckets and DNS names, and two of them would empty each other's. And of
 * its two processes, which one comes to a scenario first.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { sleep } from "./processes";

/** Whether a process is there. */
function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Whether nobody has asked for the name in this folder before, in whatever process. */
export function isFirst(folder: string, name: string): boolean {
  try {
    fs.mkdirSync(path.join(folder, name));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/**
 * Waits until no other suite of this machine runs, and keeps others waiting until the returned function is called. A
 * suite that died holds nothing up.
 * @param folder kept between runs, outside the checkout.
 */
export async function exclusive(folder: string): Promise<() => void> {
  const lock = path.join(folder, "running");
  fs.mkdirSync(folder, { recursive: true });
  for (let said = false; ;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
      return () => {
        fs.rmSync(lock, { force: true });
      };
    } catch {
      const holder = Number(fs.existsSync(lock) ? fs.readFileSync(lock, "utf8") : "0");
      if (holder > 0 && !alive(holder)) fs.rmSync(lock, { force: true });
      else {
        if (!said) console.log(`waiting for another suite on this machine (process ${holder})`);
        said = true;
        await sleep(2_000);
      }
    }
  }
}
