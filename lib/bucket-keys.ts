import type { CheckKeys } from "./checks";
import type { Site } from "./site-secrets";

/** The keys of a site's two buckets, in clear; what a stack has not got is an empty text, which no store takes. */
export const keysOf = ({ secrets }: Pick<Site, "secrets">): CheckKeys => {
  const keys = (name: string) => ({
    accessKeyId: secrets[`${name}AccessKeyId`] ?? "",
    secretAccessKey: secrets[`${name}SecretAccessKey`] ?? "",
  });
  return { vault: keys("vault"), media: keys("media") };
};
