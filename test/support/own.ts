/**
 * This clone's own stacks, for the few tests that are about the clone and not about the code: what they ask, they must
 * be able to ask of every valid configuration (see `example.ts`).
 */
import { inject } from "vitest";
import { projectFolder } from "../../lib/plan";
import type { Plan } from "../../lib/plan";
import type { RawConfiguration, StackName } from "../../settings";
import { committedConfiguration } from "./configuration";
import { planOf } from "./planned";

/** The plan of a stack of this clone. @throws if the program could not be evaluated */
export const ownStack = (stack: StackName): Plan => planOf(inject("ownPlans"), stack);

/** The configuration of a stack of this clone, with placeholders for secrets. */
export const ownConfigurationOf = (stack: StackName): RawConfiguration => committedConfiguration(projectFolder, stack);
