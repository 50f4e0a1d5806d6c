import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Vault, hashPassword, verifyPassword } from "./src/crypto.ts";
import { LookupError, lookUp } from "./peer/lookup.ts";
import { MAX_RETRIES, backoffMs } from "./src/queue.ts";
import { DRILL, OWNER_ACCOUNT } from "./src/markers.ts";
import { installed } from "./support/services.ts";

describe("encryption", () => {
  const keys = { secretKeyBase: "s", primaryKey: "p", deterministicKey: "d", keyDerivationSalt: "k" };

  test("opens with the same three keys and with no others", () => {
    const envelope = new Vault(keys).encrypt("a signing key");
    expect(envelope).not.toContain("signing");
    expect(new Vault({ ...keys, secretKeyBase: "another" }).decrypt(envelope)).toBe("a signing key");
    for (const name of ["primaryKey", "deterministicKey", "keyDerivationSalt"] as const)
      expect(() => new Vault({ ...keys, [name]: "another" }).decrypt(envelope), name).toThrow(/cannot be decrypted/);
    expect(() => new Vault(keys).decrypt("not an envelope")).toThrow(/cannot be decrypted/);
  });

  test("passwords", () => {
    const stored = hashPassword("correct horse");
    expect(verifyPassword("correct horse", stored)).toBe(true);
    expect(verifyPassword("correct horsE", stored)).toBe(false);
    expect(verifyPassword("", "")).toBe(false);
  });
});

test("retries wait as Sidekiq's do: a quarter of a minute first, some two days in all", () => {
  expect(backoffMs(0, 0)).toBe(15_000);
  expect(backoffMs(1, 0.95)).toBe((1 + 15 + 18) * 1000);
  const all = Array.from({ length: MAX_RETRIES }, (_, retry) => backoffMs(retry, 0)).reduce((sum, wait) => sum + wait);
  expect(all / 86_400_000).toBeGreaterThan(2);
});

test("homestead's scripts begin with the lines the stand-in knows", () => {
  for (const [file, marker] of [
    ["owner-account.rb", OWNER_ACCOUNT],
    ["drill.rb", DRILL],
  ] as const)
    expect(readFileSync(join(import.meta.dirname, "../../components", file), "utf8").split("\n")[0]).toBe(marker);
});

describe("a look-up by handle", () => {
  const actor = {
    id: "https://web.test/users/me",
    preferredUsername: "me",
    name: "Me",
    inbox: "https://web.test/users/me/inbox",
  };
  const jrd = (subject: string, href = actor.id): object => ({
    subject,
    links: [{ rel: "self", type: "application/activity+json", href }],
  });
  const json = (body: object, type = "application/jrd+json"): Response =>
    new Response(JSON.stringify(body), { headers: { "content-type": type } });
  const redirect = (location: string): Response => new Response(null, { status: 301, headers: { location } });
  const finger = (host: string, acct: string): string =>
    `https://${host}/.well-known/webfinger?resource=acct%3A${encodeURIComponent(acct)}`;
  const site = (answers: Record<string, () => Response>) => (url: string) =>
    Promise.resolve(answers[url]?.() ?? new Response("", { status: 404 }));

  const good = {
    [finger("apex.test", "me@apex.test")]: () => redirect(finger("web.test", "me@apex.test")),
    [finger("web.test", "me@apex.test")]: () => json(jrd("acct:me@apex.test")),
    [actor.id]: () => json(actor, "application/activity+json"),
    [finger("web.test", "me@web.test")]: () => json(jrd("acct:me@apex.test")),
  };

  test("follows the apex' redirect, and asks the web host to confirm", async () => {
    expect(await lookUp(site(good), "@me@apex.test")).toMatchObject({
      acct: "me@apex.test",
      inbox: actor.inbox,
      hops: Object.keys(good),
    });
  });

  test.each<[string, Record<string, () => Response>, RegExp]>([
    [
      "the apex has no WebFinger",
      { [finger("apex.test", "me@apex.test")]: () => new Response("", { status: 404 }) },
      /apex\.test.*was answered with 404/,
    ],
    [
      "the redirect loses its query",
      { [finger("apex.test", "me@apex.test")]: () => redirect("https://web.test/.well-known/webfinger") },
      /web\.test\/\.well-known\/webfinger was answered with 404/,
    ],
    [
      "the redirect leads to itself",
      { [finger("apex.test", "me@apex.test")]: () => redirect(finger("apex.test", "me@apex.test")) },
      /more than 5 redirects/,
    ],
    [
      "the apex shows a page",
      {
        [finger("apex.test", "me@apex.test")]: () =>
          new Response("<html>", { headers: { "content-type": "text/html" } }),
      },
      /the answer is text\/html, not JSON/,
    ],
    [
      "the web host names the account after itself",
      { [finger("web.test", "me@web.test")]: () => json(jrd("acct:me@web.test")) },
      /says the account is me@web\.test/,
    ],
    [
      "the actor says it is another",
      { [actor.id]: () => json({ ...actor, id: "https://web.test/users/you" }) },
      /says its id is/,
    ],
  ])("says it when %s", async (_, broken, reason) => {
    const failing = lookUp(site({ ...good, ...broken }), "me@apex.test");
    await expect(failing).rejects.toThrow(reason);
    await expect(failing).rejects.toBeInstanceOf(LookupError);
  });

  test("wants a handle", async () => {
    await expect(lookUp(site(good), "me")).rejects.toThrow(/is not a handle/);
  });
});

describe.skipIf(!installed)("requests to other servers", () => {
  test.each([
    ["8.8.8.8", [], true],
    ["10.1.2.3", [], false],
    ["127.0.0.1", [], false],
    ["::1", [], false],
    ["fd00::1", [], false],
    ["::ffff:10.1.2.3", [], false],
    ["100.64.0.1", [], false],
    ["10.210.0.1", ["10.210.0.0/16"], true],
    ["10.211.0.1", ["10.210.0.0/16"], false],
    ["::ffff:10.210.0.1", ["10.210.0.0/16"], true],
    ["192.168.1.5", ["192.168.1.5"], true],
  ])("%s with %j allowed: %s", async (address, ranges, expected) => {
    const { isAllowed, parseRanges } = await import("./src/outgoing.ts");
    expect(isAllowed(address, parseRanges(ranges))).toBe(expected);
  });

  test("an allowance that is no network is refused", async () => {
    const { parseRanges } = await import("./src/outgoing.ts");
    expect(() => parseRanges(["home"])).toThrow(/not an address or a network: "home"/);
  });

  test("answers that no repetition changes", async () => {
    const { isFinal } = await import("./src/federation.ts");
    expect([400, 404, 410, 501].map(isFinal)).toEqual([true, true, true, true]);
    expect([401, 408, 429, 500, 502, 503].some(isFinal)).toBe(false);
  });
});

describe.skipIf(!installed)("weights of queues", () => {
  test("a heavier queue is looked at first more often, every queue every time", async () => {
    const { lookOrder } = await import("./src/sidekiq.ts");
    const queues = [
      { name: "default", weight: 8 },
      { name: "pull", weight: 1 },
    ] as const;
    const orders = Array.from({ length: 2_000 }, () => lookOrder(queues));
    expect(orders.every((order) => order.length === 2)).toBe(true);
    const share = orders.filter((order) => order[0] === "default").length / orders.length;
    expect(share).toBeGreaterThan(0.84);
    expect(share).toBeLessThan(0.94);
  });
});
