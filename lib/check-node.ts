/** Imported before everything else: on an older Node.js the other imports would end in a stack trace. */
import * as pulumi from "@pulumi/pulumi";
import { nodeFault, nodeMend } from "./supported-node";

const fault = nodeFault(process.versions.node);
if (fault !== undefined) throw new pulumi.RunError(`${fault}: ${nodeMend}`);
