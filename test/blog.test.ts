import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { folderContents } from "../components/blog";

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "blog-"));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
});

describe("folderContents", () => {
  it("keeps sub-folders, which a ConfigMap's keys cannot, and bytes that are no text", () => {
    fs.mkdirSync(path.join(folder, "posts"));
    fs.writeFileSync(path.join(folder, "index.html"), "<p>hello");
    fs.writeFileSync(path.join(folder, "posts", "a b.png"), Buffer.from([0xff, 0xfe, 0x00]));
    const { binaryData, items } = folderContents(folder);
    expect(items.map((item) => item.path)).toEqual(["index.html", "posts/a b.png"]);
    const bytes = items.map((item) => Buffer.from(binaryData[item.key] ?? "", "base64"));
    expect(bytes[0]?.toString()).toBe("<p>hello");
    expect([...(bytes[1] ?? [])]).toEqual([0xff, 0xfe, 0x00]);
    for (const { key } of items) expect(key).toMatch(/^[-._a-zA-Z0-9]+$/);
  });

  it("gives the same result for the same files", () => {
    for (const name of ["b.html", "a.html"]) fs.writeFileSync(path.join(folder, name), name);
    expect(JSON.stringify(folderContents(folder))).toBe(JSON.stringify(folderContents(folder)));
    expect(folderContents(folder).items.map((item) => item.path)).toEqual(["a.html", "b.html"]);
  });
});
