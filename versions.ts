/**
 * Every version the project runs, one line each: charts, images (tag and digest), tools.
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

export const images = {
  mastodon: "ghcr.io/mastodon/mastodon:v4.6.2",
  "mastodon-streaming": "ghcr.io/mastodon/mastodon-streaming:v4.6.2",
  postgres: "ghcr.io/cloudnative-pg/postgresql:17.6-system-trixie",
  valkey: "docker.io/valkey/valkey:8.1.4",
  nginx: "docker.io/nginxinc/nginx-unprivileged:1.29.3-alpine",
  // The last of 7.x, which Mastodon asks for (docs.joinmastodon.org/admin/elasticsearch).
  elasticsearch:
    "docker.elastic.co/elasticsearch/elasticsearch:7.17.29@sha256:3f55a7f6f29b95345dc33808d6e914f81d125d4ca90a414e26c81a3521400980",
  rclone: "docker.io/rclone/rclone:1.75.1@sha256:45401ad7410db1d67ffdb58e19059ad20b0d8e0285a60e38bbec55cc1019c7a5",
  node: "docker.io/library/node:24.21.0-slim",
  versitygw: "docker.io/versity/versitygw:v1.8.0",
  "cloudnative-pg": "ghcr.io/cloudnative-pg/cloudnative-pg:1.30.0",
  "barman-plugin": "ghcr.io/cloudnative-pg/plugin-barman-cloud:v0.14.0",
  "barman-sidecar": "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.14.0",
} as const satisfies Record<string, string>;
export type ImageName = keyof typeof images;
