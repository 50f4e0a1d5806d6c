/** Values that a server sent, so that anything may be in them. */
export type Json = Record<string, unknown>;

export const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The objects of a list; none if it is no list. */
export const objectsOf = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject) : []);

/** A text fit for a message; undefined for anything but a text. */
export const textOf = (value: unknown): string | undefined => (typeof value === "string" ? oneLine(value) : undefined);

/** One line of bearable length. */
export const oneLine = (text: string): string => text.replace(/\s+/g, " ").slice(0, 300);
