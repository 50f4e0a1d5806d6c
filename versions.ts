/**
 * Every version the project runs in a cluster, one line each: charts, images (tag and digest). What runs on an operator's
 * machine, the Pulumi SDK and its plugins with it, has its versions in package.json.
 * A stack may override a chart or an image (`homestead:charts`, `homestead:images`): a mirror, an air-gapped cluster, tests.
 */

/** Where a Helm chart comes from: a repository and a version, or a folder. */
export type ChartReference = { repository: string; version: string; name?: string } | { path: string };

export const charts = {
  // https://github.com/mastodon/helm-charts
  mastodon: { repository: "https://mastodon.github.io/helm-charts/", version: "1.0.2" },
  // https://github.com/cert-manager/cert-manager
  "cert-manager": { repository: "https://charts.jetstack.io", version: "v1.21.1" },
  // https://github.com/cloudnative-pg/charts
  "cloudnative-pg": { repository: "https://cloudnative-pg.github.io/charts", version: "0.29.0" },
  // Carries plugin v0.13.0; the image is set to v0.14.0 below, which mends promotion restoring WAL from the wrong store (#966).
  "plugin-barman-cloud": { repository: "https://cloudnative-pg.github.io/charts", version: "0.7.0" },
} as const satisfies Record<string, ChartReference>;
export type ChartName = keyof typeof charts;

// A digest stands where two independent public sources agree on it, since a wrong one is worse than none; for
// mastodon-streaming there were none. `docker buildx imagetools inspect <image>` says it to whoever reaches the registry.
export const images = {
  mastodon: "ghcr.io/mastodon/mastodon:v4.6.5@sha256:77f11d1a6c674664217372d94ccdb9203524c60447827fe74ab6e11466825815",
  "mastodon-streaming": "ghcr.io/mastodon/mastodon-streaming:v4.6.5",
  postgres:
    "ghcr.io/cloudnative-pg/postgresql:17.11-202608310816-system-trixie@sha256:362b039f643f1c09a34edd63d9a78903e5f1f4f43c24236cc8459621eb676d12",
  valkey: "docker.io/valkey/valkey:8.1.10@sha256:640c5e62cea04b6d6f2084232651d0cc70362d31f4f805e7be94dbed6855e8f2",
  nginx:
    "docker.io/nginxinc/nginx-unprivileged:1.31.6-alpine@sha256:b9241c6e7b8e9a862f129d8d4199ab64b10390949a78bdd5603379b32c844083",
  // The last of 7.x, which Mastodon asks for (docs.joinmastodon.org/admin/elasticsearch).
  elasticsearch:
    "docker.elastic.co/elasticsearch/elasticsearch:7.17.29@sha256:3f55a7f6f29b95345dc33808d6e914f81d125d4ca90a414e26c81a3521400980",
  rclone: "docker.io/rclone/rclone:1.75.1@sha256:45401ad7410db1d67ffdb58e19059ad20b0d8e0285a60e38bbec55cc1019c7a5",
  node: "docker.io/library/node:24.21.0-slim@sha256:d6aa754f16b3197301076f047b5def2f02ea1dbbc2ca920407d46d7ec7f87b20",
  versitygw:
    "docker.io/versity/versitygw:v1.8.0@sha256:30292fc2eeacc67a36993b01f7a7a5e3361a19cced0e80c1d71cfa2a4b0a2499",
  // Of their chart's version: whoever overrides the one overrides the others.
  "cert-manager-controller":
    "quay.io/jetstack/cert-manager-controller:v1.21.1@sha256:416a2d76870d996460e62bd7f521bf14fa017be9e3e904aab92163a331fcb61a",
  "cert-manager-webhook":
    "quay.io/jetstack/cert-manager-webhook:v1.21.1@sha256:d8b3961b51c8c7320633f8208dc46bf88aa13804d0f7cbe48a096b2c523cee42",
  "cert-manager-cainjector":
    "quay.io/jetstack/cert-manager-cainjector:v1.21.1@sha256:ccf6b919ec0500745a47a910118f834f9636d0aac1ff221245cd2557ed8c7c98",
  "cert-manager-acmesolver":
    "quay.io/jetstack/cert-manager-acmesolver:v1.21.1@sha256:dbc7cc1354f603918e7c5af7f55a0a620537394452c93a565bde75c6f48e8837",
  "cert-manager-startupapicheck":
    "quay.io/jetstack/cert-manager-startupapicheck:v1.21.1@sha256:d8ab6416e6e7303a86fa0a8daa82c94a8001f21c9d78eb2e7db20534e5d07ae8",
  "cloudnative-pg":
    "ghcr.io/cloudnative-pg/cloudnative-pg:1.30.0@sha256:a2701eb97cdd2a34b1fdb2cb51987f544b706e40bec72ae7146cd8580efefebb",
  "barman-plugin":
    "ghcr.io/cloudnative-pg/plugin-barman-cloud:v0.14.0@sha256:823a8893690980ba5830bbbb11196a35f695b0488db7d846abc33baebf32417c",
  "barman-sidecar":
    "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.14.0@sha256:9880817c285c7afa4d195da2145064d21907405489ed6ec39abe59b1feb558a4",
} as const satisfies Record<string, string>;
export type ImageName = keyof typeof images;
