/** Rules of Traefik's routers, such as ``Host(`a`) && !PathPrefix(`/b`)``, asked whether they match a request. Pure. */

export interface Request {
  host: string;
  method: string;
  path: string;
}

/** Undefined is "who knows": for what else a rule may ask for (a header, a query), and for what is no rule. */
type Verdict = boolean | undefined;

const token = /\s*(\|\||&&|[!(),]|`[^`]*`|"[^"]*"|[A-Za-z]+)/y;

function tokensOf(rule: string): string[] {
  const tokens: string[] = [];
  token.lastIndex = 0;
  for (let end = 0; end < rule.trimEnd().length; end = token.lastIndex) {
    const [, found] = token.exec(rule) ?? [];
    if (found === undefined) throw new Error(`no rule: ${rule}`);
    tokens.push(found);
  }
  return tokens;
}

const asExpression = (text: string): RegExp => new RegExp(text);

function ask(name: string, values: string[], { host, method, path }: Request): Verdict {
  switch (name) {
    case "Host":
      return values.some((value) => value.toLowerCase() === host);
    case "HostRegexp":
      return values.some((value) => asExpression(value).test(host));
    case "Method":
      return values.some((value) => value.toUpperCase() === method);
    case "Path":
      return values.includes(path);
    case "PathPrefix":
      return values.some((value) => path.startsWith(value));
    case "PathRegexp":
      return values.some((value) => asExpression(value).test(path));
    default:
      return undefined;
  }
}

const either = (one: Verdict, other: Verdict): Verdict =>
  one === true || other === true ? true : one === undefined || other === undefined ? undefined : false;
const not = (one: Verdict): Verdict => (one === undefined ? undefined : !one);
const both = (one: Verdict, other: Verdict): Verdict => not(either(not(one), not(other)));

/** Whether a rule matches a request; undefined where that hangs on more than its host, method and path. */
export function matches(rule: string, request: Request): Verdict {
  try {
    const tokens = tokensOf(rule);
    let next = 0;
    const take = (wanted: string) => {
      if (tokens[next++] !== wanted) throw new Error(`no rule: ${rule}`);
    };
    const call = (name: string): Verdict => {
      take("(");
      const values: string[] = [];
      for (; tokens[next] !== ")"; next++) {
        const value = tokens[next];
        if (value === undefined) throw new Error(`no rule: ${rule}`);
        if (value !== ",") values.push(value.slice(1, -1));
      }
      take(")");
      return ask(name, values, request);
    };
    const one = (): Verdict => {
      const first = tokens[next++] ?? "";
      if (first === "!") return not(one());
      if (first !== "(") return call(first);
      const inner = any();
      take(")");
      return inner;
    };
    const joined = (by: string, part: () => Verdict, join: typeof both): Verdict => {
      let verdict = part();
      while (tokens[next] === by) {
        next++;
        verdict = join(verdict, part());
      }
      return verdict;
    };
    const all = (): Verdict => joined("&&", one, both);
    const any = (): Verdict => joined("||", all, either);
    const verdict = any();
    return next === tokens.length ? verdict : undefined;
  } catch {
    return undefined;
  }
}

/** The hosts that a rule names. */
export const hostsIn = (rule: string): string[] =>
  [...rule.matchAll(/\bHost\(([^)]*)\)/g)].flatMap(([, values = ""]) =>
    [...values.matchAll(/[`"]([^`"]+)[`"]/g)].map(([, host = ""]) => host.toLowerCase()),
  );
