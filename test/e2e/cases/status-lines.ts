/** What `homestead status home --json` must say of one site that is well: a line for each of its parts, and no fault. */
import { tagOf } from "../../../lib/status/lines";
import type { Status, StatusLine } from "../../../lib/status/lines";

/** What the lines must name. */
export interface WholeSite {
  context: string;
  apex: string;
  webHost: string;
  /** IP address that DNS leads to. */
  address: string;
  mediaBucket: string;
  /** As the stack has them. */
  images: Record<"mastodon" | "mastodon-streaming" | "valkey" | "postgres", string>;
}

/** Area, part, and what its line says. */
type Wanted = readonly [area: string, what: string, says: RegExp];

const literally = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");

function wantedOf({ context, apex, webHost, address, mediaBucket, images }: WholeSite): Wanted[] {
  const load = (name: string, image: string): Wanted => {
    return ["pods", name, new RegExp(`^1/1 ready; .*${literally(tagOf(image))}`)];
  };
  const age = String.raw`\d+ (s|min|h|d)\b.*`;
  return [
    ["lease", "active site", /^home, epoch \d+, .*; grace \d+/],
    ["lease", "files", /^Pulumi\.yaml says home, epoch \d+$/],
    ["lease", "switch", /^none under way$/],
    ["backup", "lost if home went now", /^(nothing of the database|what was written in the last .*); queued jobs/],
    ["cluster", context, /^Kubernetes v\d+\./],
    load("mastodon-web", images.mastodon),
    load("mastodon-sidekiq-all-queues", images.mastodon),
    load("mastodon-streaming", images["mastodon-streaming"]),
    load("valkey", images.valkey),
    load("valkey-cache", images.valkey),
    ["pods", "blog", /^1\/1 ready; /],
    ["lease", "gate", /^open, the lease was read \d+ s ago$/],
    ["database", "postgres-g1", new RegExp(`^Cluster in healthy state; .*${literally(tagOf(images.postgres))}`)],
    ["backup", "base backup", new RegExp(`^${age} old, in home-g1$`)],
    ["backup", "WAL", new RegExp(`^last segment archived ${age}ago`)],
    ["queues", "waiting", /^default \d+.*, scheduler \d+/],
    ["queues", "set aside", /^retry \d+, schedule \d+, dead \d+$/],
    ["queues", "snapshot", /^saved .* ago$/],
    ...[apex, webHost].flatMap((host): Wanted[] => [
      ["certificates", host, /^\d+ days left$/],
      ["dns", host, new RegExp(`^${literally(address)}, says `)],
    ]),
    ["media", mediaBucket, /^there, and the keys open it$/],
  ];
}

/** What an earlier scenario and a DNS server of the tests' own may bring about, and no owner has to mend. */
const harmless = /restart|not the zone's own server/;

/** Where a status is not that of a whole site, a line each. @param more is wanted beside what every site has */
export function lacking({ server, sites }: Status, site: WholeSite, more: readonly Wanted[] = []): string[] {
  const all: StatusLine[] = [server, ...sites].flatMap(({ lines }) => lines);
  const said = ({ area, what, verdict, says }: StatusLine) => `${verdict}: ${area}, ${what}: ${says}`;
  return [
    ...[...wantedOf(site), ...more].flatMap(([area, what, says]) => {
      const found = all.find((one) => one.area === area && one.what === what);
      if (found === undefined) return [`no line ${area}, ${what}`];
      return says.test(found.says) ? [] : [`${said(found)}, and not ${says}`];
    }),
    ...all.filter(({ verdict, says }) => verdict !== "ok" && !harmless.test(says)).map(said),
  ];
}
