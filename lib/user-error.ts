/** A fault the user can mend: the command line prints its message alone, without a stack trace, and ends with 1. */
export class UserError extends Error {
  override name = "UserError";

  /** @param mend how to mend it, where the message does not say so: the command line prints it below */
  constructor(
    message: string,
    readonly mend?: string,
  ) {
    super(message);
  }
}
