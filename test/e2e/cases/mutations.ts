/**
 * Sites that are broken by one changed line, each in a way that would keep the world from following the owner. The
 * product has no switch for any of it: the line is changed in a copy of the project's own sources.
 */
import { diagnosis } from "../support/project";
import type { Project } from "../support/project";

export interface Mutation {
  what: string;
  file: string;
  /** Changes exactly one line. */
  change(project: Project): void;
  /** What the update's error must hold: which check, what was expected, what came. */
  error: RegExp;
}

const mutation = (what: string, file: string, pattern: RegExp, replacement: string, error: RegExp): Mutation => ({
  what,
  file,
  change: (project) => project.edit(file, pattern, replacement),
  error,
});

/** What the verification says in an update's output, each line once: Pulumi says an error as it comes, and at the end again. */
export function verificationLines(output: string): string[] {
  const lines = diagnosis(output)
    .split("\n")
    .flatMap((line) => /verification failed: .*: expected .*, got .*/.exec(line)?.[0].trimEnd() ?? []);
  return [...new Set(lines)];
}

/** @param brokenBlog an image that runs and gets ready, but does not serve the blog as a page; without one that site is left out. */
export function mutations(brokenBlog: string | undefined): Mutation[] {
  return [
    mutation(
      "the redirect's router is left out",
      "components/webfinger.ts",
      /\[\{ match: wellKnownRule\(apex\), middlewares, services: noService \}\],/,
      "[{ match: wellKnownRule(apex), middlewares, services: noService }].slice(1),",
      /: webfinger redirect: /,
    ),
    mutation(
      "CORS is left out",
      "components/webfinger.ts",
      /\[cors, limited, toWebHost\]/,
      "[limited, toWebHost]",
      /: webfinger cors: /,
    ),
    mutation(
      "the query is dropped",
      "components/webfinger.ts",
      /\\\$\{1\}\\\$\{2\}`/,
      "\\${1}`",
      /: webfinger redirect: .*\?resource=/,
    ),
    ...(brokenBlog === undefined
      ? []
      : [
          mutation(
            "the blog's image is broken",
            "components/blog.ts",
            /image: images\.nginx,/,
            `image: images.nginx.replace(/.+/, "${brokenBlog}"),`,
            /: blog: .*text\/html/,
          ),
        ]),
    mutation(
      "the certificate is for another name",
      "components/ingress.ts",
      /dnsNames: \[args\.apex, args\.webHost, \.\.\.args\.otherHosts\]/,
      'dnsNames: ["another.test"]',
      /: certificate (apex|web host): /,
    ),
  ];
}
