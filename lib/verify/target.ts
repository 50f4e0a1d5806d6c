import { mediaHost } from "../../components/objectStore";
import { publicUrl, volumeProbe } from "../../components/media";
import type { Settings } from "../../settings";
import type { MediaTarget, VerificationTarget } from "../verify";

/** A target without the media bucket's keys: nothing in it is secret. */
export type PublicTarget = Omit<VerificationTarget, "media"> & {
  media?: Omit<MediaTarget, "accessKeyId" | "secretAccessKey">;
};

type Described = Pick<Settings, "apex" | "webHost" | "owner" | "media" | "objectStore"> & {
  ingress: Pick<Settings["ingress"], "address">;
  verification: Pick<Settings["verification"], "address">;
};

/** Where an update asks a site's ingress from within: not every router turns back to the address that the world knows. */
const askedAt = ({ verification, ingress }: Pick<Described, "verification" | "ingress">): string =>
  verification.address ?? ingress.address;

/** Where this machine asks it: where the cluster verifies, the address is one of the cluster's, which may mean nothing here. */
export const askedFromHere = (settings: Pick<Described, "ingress"> & Pick<Settings, "verification">): string =>
  settings.verification.from === "here" ? askedAt(settings) : settings.ingress.address;

/** What a stack's settings ask to have verified. `ca` is the authority of the site's certificates, "" where the world knows it. */
export function targetOf(settings: Described, ca: string): PublicTarget {
  const { apex, webHost, owner, media, objectStore } = settings;
  const host = objectStore === "embedded" ? mediaHost(media) : undefined;
  return {
    apex,
    webHost,
    owner,
    address: askedAt(settings),
    ingressHosts: host === undefined ? [] : [host],
    ca,
    ...mediaOf(media, webHost),
  };
}

/** What shows that uploads are kept and shown: a bucket takes one, a volume has a file of its own. */
function mediaOf(media: Settings["media"], webHost: string): Pick<PublicTarget, "media" | "mediaFile"> {
  if (media.kind === "volume") return { mediaFile: volumeProbe(webHost) };
  const { endpoint, region, bucket } = media;
  return { media: { endpoint, region, bucket, publicUrl: publicUrl(media) } };
}
