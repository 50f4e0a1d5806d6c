/** First lines of the scripts that the stand-in knows; see scripts.ts. */
export const OWNER_ACCOUNT = "# homestead:owner-account v1";
export const DRILL = "# homestead:drill v1";
