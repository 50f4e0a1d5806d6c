/**
 * `homestead doctor` on a real cluster, before the first update: it finds nothing that would keep the site from coming up,
 * measures the disk, and names what is wrong where something is (issue 6).
 */
import * as assert from "node:assert/strict";
import type { DoctorLine, DoctorReport } from "../../../lib/doctor/lines";
import { Cluster, differences } from "../support/cluster";
import type { Project } from "../support/project";
import type { Context, Scenario } from "../support/scenario";
import { buckets, prepare } from "../support/stack";

export const doctor: Scenario = {
  name: "doctor",
  what: "homestead doctor finds no fault before the first update, measures the disk, and names what is wrong",
  place: "either",
  minutes: 2,
  limit: 15,
  async run(context) {
    const { environment, report } = context;
    const cluster = new Cluster(environment.home, environment);
    const { project } = await prepare(context, [environment.home]);
    const before = await cluster.inventory();

    const { code, lines } = await report.step("homestead doctor home", () => ask(context, project));
    await report.check("it finds no fault on a cluster that is ready for a site", () => {
      assert.deepEqual(
        lines.filter(({ verdict }) => verdict === "fault"),
        [],
      );
      assert.equal(code, 0);
      assert.ok(lines.length >= 20, `only ${lines.length} lines`);
    });
    await report.check("every line that is not ok says how to mend it", () => {
      const silent = lines.filter(({ verdict, mend }) => verdict !== "ok" && mend === undefined);
      assert.deepEqual(silent, []);
    });
    await report.check("it measured the fsync of the class that will hold data: median, 99th percentile, worst", () => {
      const measured = lines.filter(({ says }) => /p50 .*p99 .*max /.test(says));
      assert.ok(measured.length > 0, JSON.stringify(lines.map(({ what, says }) => `${what}: ${says}`)));
      for (const { what, says } of measured) console.log(`      ${what}: ${says}`);
    });
    await report.check("it leaves nothing behind", async () =>
      assert.deepEqual(differences(before, await cluster.inventory()), []),
    );

    const vault = project.value("home", "vault") as object;
    const wrongs: [string, () => void, RegExp][] = [
      [
        "a bucket that is not there",
        () => project.set("home", "vault", { ...vault, bucket: `${buckets.vault}-missing` }),
        new RegExp(`${buckets.vault}-missing`),
      ],
      [
        "a storage class that is not there",
        () => project.set("home", "storage", { kind: "local", databases: "no-such-class" }),
        /no-such-class/,
      ],
      [
        "a context that is not there",
        () => project.set("home", "cluster", { context: "no-such-context", kubeconfig: environment.home.kubeconfig }),
        /no-such-context/,
      ],
    ];
    for (const [what, change, says] of wrongs) {
      await report.check(`${what}: a fault that names it, with its mend, and exit code 1`, () =>
        project.changed(["Pulumi.home.yaml"], change, async () => {
          const found = await ask(context, project, ["--no-disk"]);
          assert.equal(found.code, 1);
          const faults = found.lines.filter(({ verdict }) => verdict === "fault");
          assert.ok(
            faults.some((line) => says.test(`${line.what} ${line.says}`) && line.mend !== undefined),
            JSON.stringify(faults),
          );
        }),
      );
    }
  },
};

async function ask(
  { environment }: Context,
  project: Project,
  words: readonly string[] = [],
): Promise<{ code: number; lines: DoctorLine[] }> {
  const args = ["doctor", "home", "--json", "--resolver", environment.dns.server, ...words];
  const { code, stdout } = await project.homestead(args);
  return { code, lines: (JSON.parse(stdout) as DoctorReport).lines };
}
