import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { parse, stringify } from "yaml";
import { dashboard } from "../components/monitoring/dashboard";
import { alerts, ruleGroups, runbook } from "../components/monitoring/rules";
import type { RulesArgs } from "../components/monitoring/rules";
import { scrapeAnnotations } from "../components/monitoring/scraping";
import { metrics } from "../lib/lease/metrics/exposition";
import { at, planStack, projectFolder } from "../lib/plan";
import { onPath } from "../lib/pulumi-cli";
import { parseSettings } from "../settings";
import type { RawConfiguration, SettingsError } from "../settings";
import { configurationOf } from "./support/configuration";
import { copyProject, temporaryFolder } from "./support/folders";
import { leftOut } from "./support/left-out";
import { named, ofType, plannedStack } from "./support/planned";
import { faultsOf } from "./support/schemas";

/** With everything that an alert can be about. */
const active: RulesArgs = { ...parseSettings(configurationOf("home")), media: { kind: "volume" } };
const standby: RulesArgs = parseSettings(configurationOf("vps"));
const sides = { active, standby };
type Side = keyof typeof sides;

const folder = path.join(projectFolder, "test", "monitoring");
const everyAlert = [...new Set([active, standby].flatMap(alerts).map(({ alert }) => alert))];
const namesOf = (args: RulesArgs) => [...new Set(alerts(args).map(({ alert }) => alert))].sort();

// Beside the lab's own programs, where it is on no PATH.
const places = [process.env["PATH"], path.join(os.homedir(), ".cache", "lab", "bin")];
const promtool = onPath("promtool", { PATH: places.join(path.delimiter) });
const unchecked = leftOut(promtool === undefined ? "the alerts' unit tests: no promtool here" : undefined);
if (unchecked) console.warn("monitoring.test.ts: no promtool here, so the alerts' unit tests do not run");

/** Files with the unit tests of one side. */
const testsOf = (side: Side) => fs.readdirSync(folder).filter((file) => file.startsWith(side));

/** A folder with the rules and the unit tests of one side. */
function rulesFolder(side: Side): string {
  const made = temporaryFolder();
  fs.writeFileSync(path.join(made, `${side}.yaml`), stringify(ruleGroups(sides[side])));
  for (const file of testsOf(side)) fs.copyFileSync(path.join(folder, file), path.join(made, file));
  return made;
}

/** What promtool prints. @throws Error with it when it finds fault */
function check(args: string[], cwd: string): string {
  // One thread: with little to do, Go spends a third more on keeping several awake.
  const env = { ...process.env, GOMAXPROCS: "1" };
  const { status, stdout, stderr } = spawnSync(promtool ?? "promtool", args, { cwd, encoding: "utf8", env });
  if (status !== 0) throw new Error(`${stdout}${stderr}`);
  return stdout + stderr;
}

describe.each(Object.keys(sides) as Side[])("the alerts of the %s site", (side) => {
  it.skipIf(unchecked)("are rules that Prometheus takes", () => {
    expect(check(["check", "rules", `${side}.yaml`], rulesFolder(side))).toContain("SUCCESS");
  });

  it.skipIf(unchecked)("fire and are silent as their unit tests say", () => {
    expect(check(["test", "rules", ...testsOf(side)], rulesFolder(side))).toContain("SUCCESS");
  });

  it("each have a test in which they fire and one in which they are silent", () => {
    const tests = testsOf(side).flatMap((file) =>
      (parse(fs.readFileSync(path.join(folder, file), "utf8")) as { tests: { name: string }[] }).tests.map(
        ({ name }) => name,
      ),
    );
    const missing = namesOf(sides[side]).flatMap((alert) =>
      ["fires", "silent"].map((word) => `${alert}: ${word}`).filter((start) => !tests.some((t) => t.startsWith(start))),
    );
    expect(missing).toEqual([]);
    expect(tests.filter((name) => !namesOf(sides[side]).includes(name.split(":")[0] ?? ""))).toEqual([]);
  });

  it("say where they come from, and go to who asked for them", () => {
    for (const { labels } of alerts(sides[side])) {
      expect(labels).toMatchObject({ namespace: "homestead", site: sides[side].site });
    }
  });
});

describe("a test that needs what is not there", () => {
  it("is left out on a machine of one's own, and ends a run in GitHub Actions", () => {
    const [own, actions] = [{ CI: "true" }, { CI: "true", GITHUB_ACTIONS: "true" }];
    expect([leftOut("no promtool", own), leftOut(undefined, own), leftOut(undefined, actions)]).toEqual([
      true,
      false,
      false,
    ]);
    expect(() => leftOut("no promtool", actions)).toThrow(
      /^no promtool: in GitHub Actions no test may be left out for that$/,
    );
  });
});

describe("the alerts", () => {
  it("of an active site are all those that are asked for", () => {
    expect(namesOf(active)).toEqual([
      "ArchiveFailing",
      "BackupOld",
      "CertificateExpires",
      "DatabaseDown",
      "DelayedFsync",
      "GateClosed",
      "IoPressure",
      "LeaseUnverified",
      "MediaCopyOld",
      "MetricsMissing",
      "QueueLatency",
      "SlowDisk",
      "SnapshotOld",
      "ValkeyDown",
      "ValkeyFull",
      "VolumeFilling",
      "WebfingerDown",
    ]);
  });

  it("of a standby are about following, its own archive and its disk, and of a cold one about its certificate alone", () => {
    expect(namesOf(standby)).toEqual([
      "ArchiveFailing",
      "BackupOld",
      "CertificateExpires",
      "DatabaseDown",
      "MetricsMissing",
      "ReplicaLag",
      "VolumeFilling",
    ]);
    expect(namesOf({ ...standby, standby: "cold" })).toEqual(["CertificateExpires"]);
  });

  it("do not speak of what a site does not have, or is not to do", () => {
    const bucket = parseSettings(configurationOf("home"));
    expect(namesOf(bucket)).not.toContain("MediaCopyOld");
    expect(namesOf({ ...bucket, maintenance: "web" })).not.toContain("WebfingerDown");
    expect(namesOf({ ...bucket, maintenance: "all" })).not.toContain("QueueLatency");
    expect(namesOf({ ...bucket, certificates: { kind: "selfSigned" } })).not.toContain("WebfingerDown");
    expect(namesOf({ ...bucket, lease: "none" })).toEqual([
      "ArchiveFailing",
      "BackupOld",
      "CertificateExpires",
      "DatabaseDown",
      "MetricsMissing",
      "VolumeFilling",
    ]);
  });

  it("call for whom the site serves when what everything needs is gone, and warn of the rest", () => {
    const called = alerts(active).filter(({ labels }) => labels.severity === "critical");
    expect(called.map(({ alert }) => alert).sort()).toEqual([
      "ArchiveFailing",
      "BackupOld",
      "DatabaseDown",
      "GateClosed",
      "LeaseUnverified",
      "ValkeyDown",
      "WebfingerDown",
    ]);
  });

  it("wake nobody for a standby: it serves no one", () => {
    expect(alerts(standby).filter(({ labels }) => labels.severity !== "warning")).toEqual([]);
  });

  it("each have a section in the runbook, and their links lead to it", () => {
    const text = fs.readFileSync(path.join(projectFolder, runbook), "utf8");
    const headings = [...text.matchAll(/^## (\w+)$/gm)].map((match) => match[1] ?? "");
    expect(headings.filter((heading) => /^[A-Z][a-z]+[A-Z]/.test(heading)).sort()).toEqual([...everyAlert].sort());
    for (const { alert, annotations } of [active, standby].flatMap(alerts)) {
      expect(annotations.runbook_url).toBe(`docs/runbooks/alerts.md#${alert.toLowerCase()}`);
    }
  });
});

/** Metrics of ours in some expressions. */
const ours = (text: string) => [...new Set(text.match(/\bhomestead_\w+/g) ?? [])];
/** Those of others that are relied on, each found in its source (docs/runbooks/alerts.md says where they come from). */
const others = [
  "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
  "certmanager_certificate_expiration_timestamp_seconds",
  "cnpg_collector_fencing_on",
  "cnpg_collector_pg_wal_archive_status",
  "cnpg_collector_up",
  "cnpg_pg_postmaster_start_time",
  "cnpg_pg_replication_in_recovery",
  "cnpg_pg_replication_lag",
  "cnpg_pg_stat_archiver_last_archived_time",
  "cnpg_pg_stat_archiver_last_failed_time",
  "kubelet_volume_stats_available_bytes",
  "kubelet_volume_stats_capacity_bytes",
];

describe("what alerts and dashboard ask for", () => {
  const expressions = [active, standby].flatMap(alerts).map(({ expr }) => expr);
  const shown = dashboard("homestead").panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));

  it("is what the keeper tells", () => {
    const unknown = ours([...expressions, ...shown].join(" ")).filter((name) => !(name in metrics));
    expect(unknown).toEqual([]);
  });

  it("is what CloudNativePG, its plugin, cert-manager and the kubelet tell", () => {
    const names = new Set([...expressions, ...shown].join(" ").match(/\b(cnpg|barman|certmanager|kubelet)_\w+/g));
    expect([...names].sort()).toEqual(others);
  });

  it("is asked of our own namespace only", () => {
    for (const expr of [...expressions, ...shown]) {
      const selectors = expr.match(/\{[^}]*\}/g) ?? [];
      expect([expr, selectors.length > 0]).toEqual([expr, true]);
      for (const selector of selectors) expect(selector).toMatch(/namespace="homestead"/);
    }
  });

  it.skipIf(unchecked)("can be read by Prometheus, on the dashboard too", () => {
    const made = temporaryFolder();
    const rules = shown.map((expr, i) => ({ record: `dashboard:${i}`, expr }));
    fs.writeFileSync(path.join(made, "shown.yaml"), stringify({ groups: [{ name: "dashboard", rules }] }));
    expect(check(["check", "rules", "shown.yaml"], made)).toContain(`SUCCESS: ${shown.length} rules`);
  });

  it("has its own place on the dashboard", () => {
    const { panels } = dashboard("homestead");
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(new Set(panels.map(({ gridPos }) => `${gridPos.x} ${gridPos.y}`)).size).toBe(panels.length);
  });
});

describe("monitoring in the program", () => {
  it("is PodMonitors, rules and a dashboard where the operator's resources are there, which a plan takes for granted", () => {
    const plan = plannedStack("home");
    const kinds = (kind: string) => ofType(plan, `kubernetes:monitoring.coreos.com/v1:${kind}`);
    expect(
      kinds("PodMonitor")
        .map(({ name }) => name)
        .sort(),
    ).toEqual(["monitoring-cert-manager", "monitoring-postgres", "monitoring-valkey"]);
    expect(kinds("PrometheusRule").length).toBe(1);
    expect(named(plan, "monitoring-dashboard").inputs).toMatchObject({
      metadata: { labels: { grafana_dashboard: "1" } },
    });
    expect(JSON.stringify(plan.resources.map(({ inputs }) => inputs))).not.toContain("prometheus.io/scrape");
  });

  it("names in a PodMonitor a port that the pods have", () => {
    const { inputs } = named(plannedStack("home"), "valkey-queue");
    expect(JSON.stringify(inputs)).toContain('"ports":[{"containerPort":9121,"name":"metrics"}]');
  });

  it("tells the operator's Alertmanager of a webhook, whose address stands in a Secret alone", async () => {
    const notify = "notify: {secure: AAABAAAA}";
    const config = `config:\n  homestead:monitoring: {kind: rules, labels: {release: prometheus}, ${notify}}\n`;
    const folder = copyProject({ "Pulumi.home.yaml": (text) => text.replace("config:\n", config) });
    const plan = await planStack("home", { folder });
    const objects = plan.resources.filter(
      ({ name, kind }) => name.startsWith("monitoring-") && kind === "resource" && name !== "monitoring-notify",
    );
    expect(objects.map(({ name }) => name)).toContain("monitoring-alertmanager");
    for (const { inputs } of objects) {
      expect(await faultsOf(inputs)).toEqual([]);
      expect(JSON.stringify(inputs)).not.toContain("monitoring.notify");
    }
    for (const name of ["monitoring-alertmanager", "monitoring-rules", "monitoring-valkey"]) {
      expect(named(plan, name).inputs).toMatchObject({ metadata: { labels: { release: "prometheus" } } });
    }
    const secret = named(plan, "monitoring-notify");
    expect(secret.inputs).toMatchObject({ stringData: { url: "<monitoring.notify>" } });
    expect(secret.secretPaths).toEqual(["stringData"]);
    expect(plan.resources.flatMap(({ leaks }) => leaks)).toEqual([]);
    expect(JSON.stringify(plan.outputs)).not.toContain("monitoring.notify");
  });

  it("is nothing where it is off", () => {
    const plan = plannedStack("dev");
    const component = named(plan, "monitoring");
    expect(plan.resources.filter(({ parent }) => parent === component.urn)).toEqual([]);
    expect(JSON.stringify(named(plan, "valkey-queue").inputs)).not.toContain("METRICS_PORT");
  });

  it("is a rule file and annotated pods where the operator is not there", async () => {
    const missing = (text: string) => text.replace('podMonitors: "there",', 'podMonitors: "missing",');
    const plan = await planStack("home", { folder: copyProject({ "lib/checks.ts": missing }) });
    expect(ofType(plan, /monitoring.coreos.com/)).toEqual([]);
    const { data } = named(plan, "monitoring-rules").inputs as { data: Record<string, string> };
    expect(parse(data["homestead.yaml"] ?? "")).toEqual(ruleGroups(parseSettings(configurationOf("home"))));
    const annotations = (name: string, where: string) => at(named(plan, name).inputs, where);
    expect(annotations("valkey-queue", "spec.template.metadata.annotations")).toMatchObject({
      "prometheus.io/port": "9121",
    });
    expect(annotations("postgres-cluster", "spec.inheritedMetadata.annotations")).toMatchObject({
      "prometheus.io/port": "9187",
    });
    for (const name of ["valkey-queue", "postgres-cluster"]) {
      expect(await faultsOf(named(plan, name).inputs)).toEqual([]);
    }
  });

  it("annotates pods where there is no operator, and only there", () => {
    const { monitoring } = parseSettings(configurationOf("home"));
    expect(scrapeAnnotations({ monitoring, podMonitors: "missing" }, 9187)).toEqual({
      "prometheus.io/scrape": "true",
      "prometheus.io/port": "9187",
      "prometheus.io/path": "/metrics",
    });
    expect(scrapeAnnotations({ monitoring, podMonitors: "there" }, 9187)).toEqual({});
    expect(scrapeAnnotations({ monitoring: { kind: "off" }, podMonitors: "missing" }, 9187)).toEqual({});
  });
});

describe("the key monitoring", () => {
  const fault = (value: unknown) => {
    try {
      parseSettings(configurationOf("home", { monitoring: value }));
      return "";
    } catch (error) {
      return (error as Error).message.split("\n").slice(1).join("\n");
    }
  };

  it("defaults to rules, scraped from the namespace monitoring", () => {
    expect(parseSettings(configurationOf("home")).monitoring).toEqual({
      kind: "rules",
      labels: {},
      namespace: "monitoring",
    });
  });

  it("refuses another kind, an unknown key and an address that is none", () => {
    expect(fault({ kind: "on" })).toBe(
      '  homestead:monitoring.kind: "on"\n    allowed: an object whose kind is off or rules\n' +
        "    mend:    pulumi config set --path 'homestead:monitoring.kind' <value> --stack home",
    );
    expect(fault({ kind: "rules", notfy: "x" })).toContain("allowed: only kind, labels, namespace, notify");
    expect(fault({ kind: "rules", notify: "ntfy.sh/x" })).toBe(
      "  homestead:monitoring.notify: [secret]\n    allowed: the URL of a webhook, http:// or https://\n" +
        "    mend:    pulumi config set --secret --path 'homestead:monitoring.notify' --stack home",
    );
    expect(fault({ kind: "rules", notify: "https://ntfy.sh/x?template=alertmanager" })).toBe("");
  });

  it("refuses the webhook's address in clear: whoever has it reads the alerts, and writes some", () => {
    const notify = "https://ntfy.sh/a-topic?template=alertmanager";
    const raw = configurationOf("home", { monitoring: { kind: "rules", notify } });
    const refused = (more: Partial<RawConfiguration>) => {
      try {
        parseSettings({ ...raw, ...more });
        return [];
      } catch (error) {
        return (error as SettingsError).faults;
      }
    };
    const inClear = [
      {
        key: "homestead:monitoring.notify",
        value: "[secret]",
        allowed: "a secret that the stack holds encrypted: in clear, whoever sees the file has it",
        mend: "pulumi config set --secret --path 'homestead:monitoring.notify' --stack home",
      },
    ];
    const secretKeys = ["homestead:monitoring"];
    expect(refused({ secretKeys: [] })).toEqual(inClear);
    expect(refused({ secretKeys })).toEqual([]);
    // Something else in the same object is encrypted.
    const file = (monitoring: object) => {
      const home = { "kubernetes:strictMode": "true", "homestead:monitoring": monitoring };
      return { secretKeys, stackFiles: { home } };
    };
    expect(refused(file({ kind: "rules", notify, labels: { a: { secure: "AAAA" } } }))).toEqual(inClear);
    expect(refused(file({ kind: "rules", notify: { secure: "AAAA" } }))).toEqual([]);
    // A trial's file is its own, and nobody commits it.
    vi.stubEnv("HOMESTEAD_TRIAL", "{}");
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(refused({ secretKeys: [] })).toEqual([]);
  });
});
