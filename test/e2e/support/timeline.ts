/**
 * A failover as a picture: posts tried and acknowledged, what arrived at a remote server, and the steps of the switch,
 * second by second. Its colours can be read on a light page and on a dark one. Pure.
 */

export interface Timeline {
  title: string;
  /** First and last moment, milliseconds, as all others here. */
  from: number;
  to: number;
  /** The moment that the axis calls 0. */
  zero: number;
  tried: readonly number[];
  acknowledged: readonly number[];
  /** Arrivals at the remote server. */
  delivered: readonly number[];
  /** In their order. */
  steps: readonly { name: string; from: number; to: number }[];
  /** Moments worth a line of their own. */
  marks: readonly { name: string; at: number }[];
}

const width = 900;
const height = 320;
/** The plot. Above it the title and what the colours mean; below it the seconds, the steps and two rows of names. */
const plot = { left: 44, right: 886, top: 58, bottom: 228 };
const colour = { text: "#7d8590", tried: "#8b949e", acknowledged: "#2f81f7", delivered: "#db8b2a", mark: "#e5534b" };

/** How many of some moments are in each second from `from` on. */
export function perSecond(moments: readonly number[], from: number, to: number): number[] {
  const counts = Array.from({ length: Math.max(1, Math.ceil((to - from) / 1000)) }, () => 0);
  for (const moment of moments) {
    const second = Math.floor((moment - from) / 1000);
    if (moment < to && counts[second] !== undefined) counts[second]++;
  }
  return counts;
}

/** Whole seconds between two labels of the axis, so that there are at most ten. */
export function tickSeconds(seconds: number): number {
  return [5, 10, 15, 30, 60, 120, 300].find((step) => seconds / step <= 10) ?? 600;
}

/** The picture as SVG. */
export function timelineSvg(timeline: Timeline): string {
  const { title, from, to } = timeline;
  const counts = {
    tried: perSecond(timeline.tried, from, to),
    acknowledged: perSecond(timeline.acknowledged, from, to),
    delivered: perSecond(timeline.delivered, from, to),
  };
  const most = Math.max(5, ...counts.tried, ...counts.acknowledged, ...counts.delivered);
  const x = (moment: number) => plot.left + ((moment - from) / (to - from)) * (plot.right - plot.left);
  // Room above the highest bar, for the marks' names.
  const y = (count: number) => plot.bottom - (count / most) * 0.88 * (plot.bottom - plot.top);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="${colour.text}">`,
    `<title>${escaped(title)}</title>`,
    `<text x="${plot.left}" y="20" font-size="14">${escaped(title)}</text>`,
    ...legend(),
    ...steps(timeline, x),
    ...bars("tried", counts.tried, from, x, y),
    ...bars("acknowledged", counts.acknowledged, from, x, y),
    line(counts.delivered, from, to, x, y),
    ...axes(timeline, most, x, y),
    ...marks(timeline, x),
    "</svg>",
    "",
  ].join("\n");
}

type Scale = (value: number) => number;

function legend(): string[] {
  const entries = [
    { name: "tried", text: "posts tried each second", fill: colour.tried, opacity: 0.35 },
    { name: "acknowledged", text: "acknowledged", fill: colour.acknowledged, opacity: 0.85 },
    { name: "delivered", text: "arrived at a remote server", fill: colour.delivered, opacity: 1 },
  ];
  const at = [plot.left, plot.left + 180, plot.left + 300];
  return entries.flatMap(({ text, fill, opacity }, i) => [
    `<rect x="${at[i]}" y="32" width="12" height="12" fill="${fill}" fill-opacity="${opacity}"/>`,
    `<text x="${(at[i] ?? 0) + 18}" y="42">${text}</text>`,
  ]);
}

/** Shaded turn by turn, in the plot and below it, where no bar hides them; the names in two rows, since some are short. */
function steps({ steps: all }: Timeline, x: Scale): string[] {
  const strip = { top: plot.bottom + 26, height: 10 };
  return all.flatMap(({ name, from, to }, i) => {
    const left = px(x(from));
    const wide = px(Math.max(1, x(to) - x(from)));
    const middle = (x(from) + x(to)) / 2;
    const row = strip.top + strip.height + 16 + (i % 2) * 16;
    const shade = (top: number, tall: number, opacity: number) =>
      `x="${left}" y="${top}" width="${wide}" height="${tall}" fill="${colour.text}" fill-opacity="${opacity}"`;
    return [
      `<rect class="step" ${shade(plot.top, plot.bottom - plot.top, i % 2 === 0 ? 0.12 : 0.06)}/>`,
      `<rect ${shade(strip.top, strip.height, i % 2 === 0 ? 0.7 : 0.4)}/>`,
      `<line x1="${px(middle)}" x2="${px(middle)}" y1="${strip.top + strip.height}" y2="${row - 11}" stroke="${colour.text}" stroke-opacity="0.6"/>`,
      `<text x="${px(kept(middle, name))}" y="${row}" text-anchor="middle">${escaped(name)}</text>`,
    ];
  });
}

/** A label's middle, so that none of it is cut off at the picture's edge. */
function kept(middle: number, text: string): number {
  const half = text.length * 3.4;
  return Math.min(width - half - 2, Math.max(half + 2, middle));
}

function bars(name: "tried" | "acknowledged", counts: number[], from: number, x: Scale, y: Scale): string[] {
  const opacity = name === "tried" ? 0.35 : 0.85;
  return counts.flatMap((count, second) => {
    if (count === 0) return [];
    const left = x(from + second * 1000);
    const wide = Math.max(0.5, x(from + (second + 1) * 1000) - left - 0.6);
    return `<rect class="${name}" x="${px(left)}" y="${px(y(count))}" width="${px(wide)}" height="${px(plot.bottom - y(count))}" fill="${colour[name]}" fill-opacity="${opacity}"/>`;
  });
}

function line(counts: number[], from: number, to: number, x: Scale, y: Scale): string {
  const points = counts.map((count, second) => {
    const middle = Math.min(to, from + second * 1000 + 500);
    return `${px(x(middle))},${px(y(count))}`;
  });
  return `<polyline class="delivered" points="${points.join(" ")}" fill="none" stroke="${colour.delivered}" stroke-width="1.5"/>`;
}

function axes({ from, to, zero }: Timeline, most: number, x: Scale, y: Scale): string[] {
  const tick = tickSeconds((to - from) / 1000);
  const first = Math.ceil((from - zero) / 1000 / tick) * tick;
  const seconds: number[] = [];
  for (let second = first; zero + second * 1000 <= to; second += tick) seconds.push(second);
  return [
    `<line x1="${plot.left}" x2="${plot.right}" y1="${plot.bottom}" y2="${plot.bottom}" stroke="${colour.text}"/>`,
    `<text x="${plot.left - 8}" y="${plot.bottom}" text-anchor="end">0</text>`,
    `<text x="${plot.left - 8}" y="${px(y(most) + 4)}" text-anchor="end">${most}</text>`,
    ...seconds.map(
      (second) =>
        `<text x="${px(x(zero + second * 1000))}" y="${plot.bottom + 17}" text-anchor="middle">${second} s</text>`,
    ),
  ];
}

function marks({ marks: all }: Timeline, x: Scale): string[] {
  return all.flatMap(({ name, at }) => {
    const left = px(x(at));
    const side = x(at) > (plot.left + plot.right) / 2 ? { dx: -6, anchor: "end" } : { dx: 6, anchor: "start" };
    return [
      `<line class="mark" x1="${left}" x2="${left}" y1="${plot.top}" y2="${plot.bottom}" stroke="${colour.mark}" stroke-width="1.5" stroke-dasharray="4 3"/>`,
      `<text x="${left}" dx="${side.dx}" y="${plot.top + 12}" text-anchor="${side.anchor}" fill="${colour.mark}">${escaped(name)}</text>`,
    ];
  });
}

const px = (value: number): string => String(Math.round(value * 10) / 10);

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c] ?? c);
