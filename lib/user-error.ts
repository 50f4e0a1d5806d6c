/** A fault the user can mend: the command line prints its message alone, without a stack trace, and ends with 1. */
export class UserError extends Error {
  override name = "UserError";
}
