import type * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { digest } from "./digest";

type KubernetesObject = { metadata: pulumi.Output<k8s.types.output.meta.v1.ObjectMeta> };

/**
 * A text that changes whenever one of the objects is made anew or its specification changes, and not when only its
 * status does (`metadata.generation`). What depends on the objects' being what they were depends on this.
 */
export function revisionOf(objects: KubernetesObject[]): pulumi.Output<string> {
  return pulumi
    .all(objects.map((object) => object.metadata))
    .apply((all) => digest(JSON.stringify(all.map((m) => [m.uid, m.generation]))));
}
