/** The fields that we use of the Prometheus operator's resources, from its definitions (v0.92). */
import * as z from "zod";

const metadata = z.strictObject({
  name: z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/),
  namespace: z.string(),
  labels: z.record(z.string(), z.string()).optional(),
});
const duration = z.string().regex(/^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$/);
const texts = z.record(z.string(), z.string());

const podMonitor = z.strictObject({
  apiVersion: z.literal("monitoring.coreos.com/v1"),
  kind: z.literal("PodMonitor"),
  metadata,
  spec: z.strictObject({
    namespaceSelector: z.strictObject({ matchNames: z.array(z.string()) }).optional(),
    selector: z.strictObject({
      matchLabels: texts.optional(),
      matchExpressions: z
        .array(z.strictObject({ key: z.string(), operator: z.enum(["In", "NotIn", "Exists", "DoesNotExist"]) }))
        .optional(),
    }),
    podMetricsEndpoints: z.array(
      z.strictObject({ port: z.string(), interval: duration, honorLabels: z.boolean().optional() }),
    ),
  }),
});

const prometheusRule = z.strictObject({
  apiVersion: z.literal("monitoring.coreos.com/v1"),
  kind: z.literal("PrometheusRule"),
  metadata,
  spec: z.strictObject({
    groups: z.array(
      z.strictObject({
        name: z.string().min(1),
        interval: duration,
        rules: z.array(
          z.strictObject({ alert: z.string(), expr: z.string(), for: duration, labels: texts, annotations: texts }),
        ),
      }),
    ),
  }),
});

const alertmanagerConfig = z.strictObject({
  apiVersion: z.literal("monitoring.coreos.com/v1alpha1"),
  kind: z.literal("AlertmanagerConfig"),
  metadata,
  spec: z.strictObject({
    route: z.strictObject({
      receiver: z.string(),
      groupBy: z.array(z.string()),
      groupWait: duration,
      repeatInterval: duration,
    }),
    receivers: z.array(
      z.strictObject({
        name: z.string(),
        webhookConfigs: z.array(
          z.strictObject({
            urlSecret: z.strictObject({ name: z.string(), key: z.string() }),
            sendResolved: z.boolean(),
          }),
        ),
      }),
    ),
  }),
});

export const monitoringSchemas: Record<string, z.ZodType> = {
  "monitoring.coreos.com/v1 PodMonitor": podMonitor,
  "monitoring.coreos.com/v1 PrometheusRule": prometheusRule,
  "monitoring.coreos.com/v1alpha1 AlertmanagerConfig": alertmanagerConfig,
};
