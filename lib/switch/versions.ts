/**
 * Whether a switch would upgrade the server in passing, or put older code on a newer schema: an update looks at what runs
 * on its own site, and on the one that takes over nothing does.
 */
import * as z from "zod";
import { majorOf } from "../database";
import type { PulumiCli } from "../pulumi-cli";
import type { Settings, SiteName } from "../../settings";

/** What a site's database is of: Mastodon's schema, Postgres' files. */
const shape = z.object({ images: z.object({ mastodon: z.string(), postgres: z.string() }) });
export type Ran = z.output<typeof shape>["images"];

/** What the site that was active ran last: its stack says so, when nothing runs there any more. Undefined: it does not. */
export async function ranBy(site: SiteName, cli: Pick<PulumiCli, "run">): Promise<Ran | undefined> {
  try {
    return shape.parse(JSON.parse(await cli.run(["stack", "output", "--json", "--stack", site]))).images;
  } catch {
    return undefined;
  }
}

type Named = Pick<Settings, "site" | "images">;

/**
 * Uploads that are in a bucket are not on a volume: a switch would show no picture, and what is uploaded after it would be
 * somewhere else. Pure.
 */
export function mediaDifference(
  { site: from, media: old }: Pick<Settings, "site" | "media">,
  { site, media }: Pick<Settings, "site" | "media">,
): string[] {
  const where = ({ kind }: Settings["media"]) => (kind === "volume" ? "on a volume" : "in a bucket");
  if (old.kind === media.kind) return [];
  return [
    `media are ${where(old)} on ${from} and ${where(media)} on ${site}, and a switch moves none: docs/runbooks/media-volume.md, for both stacks`,
  ];
}

/** What is not the same in two stacks that hand the server over, each with how to mend it. Pure. */
export function differences({ site: from, images: old }: Named, { site, images }: Named): string[] {
  const differing = (["mastodon", "mastodon-streaming"] as const).filter((name) => !sameImage(old[name], images[name]));
  const mastodon = differing.map(
    (name) =>
      `images.${name} is ${old[name]} on ${from} and ${images[name]} on ${site}, and a switch is no upgrade: upgrade ${from} first (docs/runbooks/upgrade.md), or give both the same: pulumi config set --path homestead:images.${name} ${old[name]} --stack ${site}`,
  );
  const [before, after] = [majorOf(old.postgres), majorOf(images.postgres)];
  if (before === after) return mastodon;
  return [
    ...mastodon,
    `images.postgres is of version ${before ?? old.postgres} on ${from} and ${after ?? images.postgres} on ${site}, and a database follows only one of its own: upgrade ${from} first (docs/runbooks/upgrade.md), or give both the same: pulumi config set --path homestead:images.postgres ${old.postgres} --stack ${site}`,
  ];
}

/** The same of a takeover from a site of which only its stack's outputs are left. Pure. */
export function takeoverDifferences(from: SiteName, ran: Ran, { site, images }: Named): string[] {
  const set = (name: keyof Ran) => `pulumi config set --path homestead:images.${name} ${ran[name]} --stack ${site}`;
  const faults: string[] = [];
  if (!sameImage(ran.mastodon, images.mastodon)) {
    faults.push(
      `${from} ran ${ran.mastodon}, and ${site} would take over with ${images.mastodon}, which is no way to upgrade: ${set("mastodon")}, and mastodon-streaming of the same release; take them out again afterwards, to upgrade`,
    );
  }
  const [before, after] = [majorOf(ran.postgres), majorOf(images.postgres)];
  if (before !== after) {
    faults.push(
      `${from}'s database is of Postgres ${before ?? ran.postgres}, and ${site} would take over with ${after ?? images.postgres}: ${set("postgres")} (docs/runbooks/upgrade.md)`,
    );
  }
  return faults;
}

/** Whether two references name one image: by digest where there is one, and `docker.io/` may be left out. Pure. */
export function sameImage(a: string, b: string): boolean {
  const normal = (reference: string) => {
    const [name = "", digest] = reference.replace(/^docker\.io\/(library\/)?/, "").split("@");
    return digest === undefined ? name : `${name.replace(/:[^/:]*$/, "")}@${digest}`;
  };
  return normal(a) === normal(b);
}
