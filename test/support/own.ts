/** What this clone calls itself: whoever forks it puts their own names, addresses and buckets into the stack files. */
import type { StackName } from "../../settings";
import { configurationOf } from "./configuration";

const value = (key: string, stack: StackName = "home"): string =>
  configurationOf(stack).config[`homestead:${key}`] ?? "";

export const apex = value("apex");
export const webHost = value("webHost");
export const owner = value("owner");
export const ownerEmail = value("ownerEmail");

/** Where the world reaches a site. */
export const addressOf = (stack: StackName): string =>
  (JSON.parse(value("ingress", stack)) as { address: string }).address;
