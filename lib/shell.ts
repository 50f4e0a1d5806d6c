/** Commands that are printed to be pasted into a shell. Pure. */

/** A text as one word, whatever characters are in it. */
export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The same, in quotes only where it needs them. */
export const word = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : quoted(text));
