/** Composition only: settings, checks, then each part in the order its dependants need it. */
// First: it says so where the others would only fail.
import "./lib/check-node";
import { Blog } from "./components/blog";
import { Dns, dnsRecords } from "./components/dns";
import { Feeds } from "./components/feeds";
import { Ingress } from "./components/ingress";
import { Isolation } from "./components/isolation";
import { Mastodon } from "./components/mastodon";
import { Media } from "./components/media";
import { Monitoring } from "./components/monitoring";
import { ObjectStore, mediaHost } from "./components/objectStore";
import { Operators } from "./components/operators";
import { Postgres } from "./components/postgres";
import { Search, SearchIndex } from "./components/search";
import { Valkey } from "./components/valkey";
import { Verification } from "./components/verification";
import { Webfinger } from "./components/webfinger";
import { checkSite } from "./lib/checks";
import { providers } from "./lib/providers";
import { targetOf } from "./lib/verify/target";
import { bucketKeys, readSettings } from "./settings";

export = async () => {
  const settings = readSettings();
  const found = await checkSite(settings, bucketKeys());
  const { apex, webHost, site, role, epoch, generation, images, fingerprint, search: wanted } = settings;
  const embedded = settings.objectStore === "embedded";
  const otherHosts = embedded ? [mediaHost(settings.media)].filter((host) => host !== undefined) : [];
  const { provider, kept } = providers(settings);

  const operators = new Operators("operators", { ...settings, ...found }, { provider });
  const { namespace } = new Isolation("isolation", { ...settings, ...found, kept }, { provider });

  const within = { ...settings, ...found, namespace };
  const ingress = new Ingress("ingress", { ...within, otherHosts }, { provider, dependsOn: [operators] });
  const { authority, certificate, securityHeaders } = ingress;
  const edge = { ...within, certificate, securityHeaders };
  const webfinger = new Webfinger("webfinger", edge, { provider });
  const blog = new Blog("blog", edge, { provider });

  const stores = embedded ? [new ObjectStore("object-store", edge, { provider })] : [];
  const postgres = new Postgres("postgres", { ...within, kept }, { provider, dependsOn: [operators, ...stores] });
  const valkey = new Valkey("valkey", within, { provider });
  const media = new Media("media", { ...within, kept }, { provider });
  const search = wanted.kind === "off" ? undefined : new Search("search", { ...within, ...wanted }, { provider });
  const parts = { namespace, settings, postgres, valkey, media, search };
  // What a standby stops, it stops the other way round: Mastodon before what that writes to.
  const needed = role === "active" ? [postgres, valkey, media, ...(search ? [search] : [])] : [];
  const mastodon = new Mastodon("mastodon", { ...parts, ...found, kept }, { provider, dependsOn: needed });
  valkey.stopsAfter(mastodon.stopped);
  new Monitoring("monitoring", { ...found, namespace, settings }, { provider });

  const records = dnsRecords(settings, otherHosts);
  if (role === "active" && settings.maintenance === "off") {
    const seen = [ingress, webfinger, blog, media];
    const revisions = [...seen, mastodon].map((part) => part.revision);
    const verification = new Verification(
      "verification",
      {
        ...within,
        target: authority.apply((pem) => targetOf(settings, pem)),
        triggers: [...revisions, images.postgres, `epoch ${epoch}, generation ${generation}`],
      },
      { provider, dependsOn: [...seen, ...mastodon.serving] },
    );
    new Dns("dns", { ...settings, records }, { dependsOn: [verification] });
  }
  if (role === "active") {
    // A site that took over without the other's queues and feeds has to make its feeds anew.
    if (settings.beginning.kind === "recovery" || settings.epoch > 1) {
      new Feeds("feeds", parts, { provider, dependsOn: mastodon.serving });
    }
    if (search) new SearchIndex("search-index", { ...parts, search }, { provider, dependsOn: mastodon.serving });
  }
  const addresses = { handle: `@${settings.owner}@${apex}`, web: `https://${webHost}`, blog: `https://${apex}` };
  const ran = role === "active" ? { images: mastodon.images } : {};
  return { ...addresses, site, role, records, authority, fingerprint, ...ran, demotionToken: postgres.demotionToken };
};
