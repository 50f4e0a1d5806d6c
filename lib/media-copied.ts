import { copiedKey } from "../components/media-copy";
import { keysOf } from "./bucket-keys";
import { s3Request } from "./s3";
import type { Site } from "./site-secrets";

/** Seconds: a younger file may still be being written, and is not copied yet (components/media-copy.sh). */
export const youngest = 60;

/** When the last complete copy of the media volume began. @returns undefined where the vault shows none to these keys */
export async function copiedAt({ settings, secrets }: Site): Promise<Date | undefined> {
  const response = await s3Request(settings.vault, keysOf({ secrets }).media, "GET", {
    key: copiedKey(settings.activeSite),
  });
  const at = new Date((await response.text()).trim());
  return response.ok && !Number.isNaN(at.getTime()) ? at : undefined;
}
