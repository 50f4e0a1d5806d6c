/** Numbers for Prometheus, under the names the real exporter gives them where it has them. */
import { createServer } from "node:http";
import { Gauge, Registry } from "prom-client";
import type { App } from "./app.ts";
import { log } from "./log.ts";

export async function serveMetrics(
  at: { readonly host: string; readonly port: number },
  registry: Registry,
): Promise<void> {
  const server = createServer((request, response) => {
    if (request.url !== "/metrics" && request.url !== "/ping") {
      response.writeHead(404).end();
      return;
    }
    if (request.url === "/ping") {
      response.writeHead(200, { "content-type": "text/plain" }).end("PONG");
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { "content-type": registry.contentType }).end(text),
      (error: unknown) => {
        log.warn(`metrics: ${String(error)}`);
        response.writeHead(500).end();
      },
    );
  });
  await new Promise<void>((started, failed) => {
    server.once("error", failed);
    server.listen(at.port, at.host, started);
  });
  log.info(`metrics: listening on http://${at.host}:${at.port}/metrics`);
}

export function sidekiqMetrics(app: App, busy: () => number): Registry {
  const registry = new Registry();
  new Gauge({
    name: "sidekiq_queue_backlog",
    help: "Size of the sidekiq queue.",
    labelNames: ["queue"],
    registers: [registry],
    async collect() {
      for (const [queue, size] of Object.entries(await app.queue.sizes())) this.set({ queue }, size);
    },
  });
  new Gauge({
    name: "sidekiq_process_busy",
    help: "Number of running jobs.",
    registers: [registry],
    collect() {
      this.set(busy());
    },
  });
  return registry;
}

/** `bin/prometheus_exporter`, the sidecar of the web pod, which other processes of the real image push to. */
export async function runExporter(bind: string, port: number): Promise<void> {
  const registry = new Registry();
  new Gauge({
    name: "ruby_collector_working",
    help: "Is the master process collector able to collect metrics",
    registers: [registry],
  }).set(1);
  await serveMetrics({ host: bind, port }, registry);
}
