/**
 * Whether a test is left out for want of something: on a machine of one's own it may be, and says so. In GitHub Actions, where
 * .github/workflows/checks.yml installs what tests run, green has to mean that all of it was looked at.
 * @param want what is not there; undefined where nothing is wanting
 * @throws Error in GitHub Actions
 */
export function leftOut(want: string | undefined, env: NodeJS.ProcessEnv = process.env): boolean {
  if (want === undefined) return false;
  if (env["GITHUB_ACTIONS"] === "true") throw new Error(`${want}: in GitHub Actions no test may be left out for that`);
  return true;
}
