import { describe, expect, test } from "vitest";
import { type Command, parseCommand, parseTootctl } from "./src/commands.ts";

const parse = (line: string): Command => {
  const [program = "", ...args] = line.split(" ");
  return parseCommand(program, args);
};

describe("what the official chart calls", () => {
  test.each<[string, Partial<Command>]>([
    ["bundle exec puma -C config/puma.rb", { kind: "web" }],
    ["bundle exec rake db:prepare", { kind: "rake", tasks: ["db:prepare"] }],
    ["bundle exec rake db:migrate", { kind: "rake", tasks: ["db:migrate"] }],
    ["prometheus_exporter --bind 0.0.0.0 --port 9394", { kind: "exporter", bind: "0.0.0.0", port: 9394 }],
    ["streaming", { kind: "streaming" }],
    ["rails runner /homestead/owner-account.rb", { kind: "runner", file: "/homestead/owner-account.rb" }],
    ["bundle exec rails runner -e production x.rb", { kind: "runner", file: "x.rb" }],
    ["rails db:migrate", { kind: "rake", tasks: ["db:migrate"] }],
    ["bundle exec bin/tootctl version", { kind: "tootctl", command: { name: "version" } }],
  ])("%s", (line, expected) => expect(parse(line)).toMatchObject(expected));

  test("sidekiq with weighted queues", () => {
    expect(parse("bundle exec sidekiq -c 10 -q default,8 -q push,6 -q scheduler")).toEqual({
      kind: "sidekiq",
      concurrency: 10,
      timeoutSeconds: 25,
      queues: [
        { name: "default", weight: 8 },
        { name: "push", weight: 6 },
        { name: "scheduler", weight: 1 },
      ],
    });
    expect(parseCommand("sidekiq", [], { SIDEKIQ_CONCURRENCY: "7" })).toMatchObject({
      concurrency: 7,
      queues: [{ name: "default" }],
    });
  });

  test("create-admin and deploy-search", () => {
    expect(parseTootctl("accounts create owner --email owner@example.org --confirmed --role Owner".split(" "))).toEqual(
      {
        name: "accounts create",
        username: "owner",
        email: "owner@example.org",
        confirmed: true,
        approve: false,
        role: "Owner",
      },
    );
    expect(
      parseTootctl(
        "search deploy --concurrency 5 --reset-chewy --batch-size 100 --only statuses accounts --no-import".split(" "),
      ),
    ).toEqual({
      name: "search deploy",
      only: ["statuses", "accounts"],
      import: false,
    });
  });
});

describe("what the real image would not know", () => {
  test.each([
    ["bundle install", /bundle exec/],
    ["bundle exec pumaa", /command not found: pumaa/],
    ["bundle exec puma -p 3000", /unknown argument "-p"/],
    ["bundle exec puma -C config/other.rb", /unknown argument/],
    ["bundle exec sidekiq -x", /invalid option: -x/],
    ["bundle exec sidekiq -c many", /invalid argument: -c many/],
    ["bundle exec sidekiq -q defautl", /no queue "defautl"/],
    ["bundle exec sidekiq -q push -q push", /cannot be defined twice/],
    ["bundle exec sidekiq -q push,0", /NAME or NAME,WEIGHT/],
    ["bundle exec rake db:migrat", /Don't know how to build task 'db:migrat'/],
    ["rails runner puts(1)", /cannot run Ruby/],
    ["rails runner a.rb b.rb", /cannot run Ruby/],
    ["rails console", /Don't know how to build task/],
    ["streaming --port 1", /unknown argument/],
    ["prometheus_exporter --prefix x", /invalid option/],
    ["tootctl accounts create x", /No value provided for required options '--email'/],
    ["tootctl accounts create x --email", /No value provided for option '--email'/],
    ["tootctl accounts create --email a@b", /was called with arguments/],
    ["tootctl accounts create x --email a@b --confirm", /was called with arguments/],
    ["tootctl accounts creat x", /Could not find command "accounts creat"/],
    ["tootctl search deploy --only nothing", /Expected all values of '--only'/],
    ["tootctl search deploy --concurrency 0", /at least 1/],
    ["tootctl settings registrations closed", /was called with arguments/],
    ["node ./streaming", /command not found: node/],
  ])("%s", (line, reason) => expect(() => parse(line)).toThrow(reason));

  test("what only the real one has is told apart from a misspelling", () => {
    expect(() => parse("tootctl media remove --days 7")).toThrow(
      /does not implement "media remove"; the real one does/,
    );
    expect(() => parse("tootctl accounts create x --email a@b --reattach")).toThrow(/does not implement --reattach/);
  });
});
