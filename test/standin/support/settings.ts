import { type Settings, readSettings } from "../src/settings.ts";

const BASE = {
  LOCAL_DOMAIN: "apex.test",
  WEB_DOMAIN: "web.test",
  DB_HOST: "db.test",
  REDIS_HOST: "redis.test",
  SECRET_KEY_BASE: "s",
  ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY: "p",
  ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY: "d",
  ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT: "k",
};

/** Settings of a complete environment with some of it changed. */
export const settingsOf = (env: Readonly<Record<string, string>>): Settings =>
  readSettings({ ...BASE, ...env }, "/opt/mastodon");
