import { mediaHost } from "../../components/objectStore";
import { publicUrl } from "../../components/media";
import type { Settings } from "../../settings";
import type { MediaTarget, VerificationTarget } from "../verify";

/** A target without the media bucket's keys: nothing in it is secret. */
export type PublicTarget = Omit<VerificationTarget, "media"> & {
  media?: Omit<MediaTarget, "accessKeyId" | "secretAccessKey">;
};

type Described = Pick<Settings, "apex" | "webHost" | "owner" | "ingress" | "media" | "objectStore">;

/** What a stack's settings ask to have verified. `ca` is the authority of the site's certificates, "" where the world knows it. */
export function targetOf(settings: Described, ca: string): PublicTarget {
  const { apex, webHost, owner, ingress, media, objectStore } = settings;
  const host = objectStore === "embedded" ? mediaHost(media) : undefined;
  const { endpoint, region, bucket } = media;
  return {
    apex,
    webHost,
    owner,
    address: ingress.address,
    ingressHosts: host === undefined ? [] : [host],
    ca,
    media: { endpoint, region, bucket, publicUrl: publicUrl(media) },
  };
}
