// One metric of the chosen device: numbers as a line with its band, booleans as a strip, texts as a log. The plots share one cursor.

import { el, setClass, setText } from "./dom.js";
import { clock, count, digitsOf, plural, span, tick, unit, value } from "./format.js";
import { calmScale, lowerBound } from "./series.js";

const SYNC = "gateway";
const root = document.documentElement;
let palette = null;

function colours() {
  if (!palette) {
    const style = getComputedStyle(root), of = (name) => style.getPropertyValue(name).trim();
    palette = { accent: of("--accent"), band: of("--band"), line: of("--line"), mute: of("--mute"), off: of("--off"), soft: of("--soft"), rem: parseFloat(style.fontSize) };
  }
  return palette;
}

/** To be called when the theme has changed: plots take the new colours at their next drawing. */
export function forgetColours() { palette = null; }

/** What all kinds share: a card with the label, what is under the cursor or the extent, the current value large, and its age. */
class Card {
  constructor(metric, kind) {
    this.metric = metric;
    this.label = el("h3", { text: metric.label, title: metric.name });
    this.extent = el("span", { class: "extent" });
    this.number = el("span");
    this.unit = el("small");
    this.old = el("small", { class: "old" });
    this.node = el("article", { class: `card chart ${kind}`, "data-metric": metric.name },
      el("div", { class: "top" }, this.label, this.extent), el("div", { class: "big" }, this.number, " ", this.unit, this.old));
    this.seen = false;
    this.extentText = "";
  }

  /** The newest value and, when it is older than `fresh` milliseconds, its age. */
  current(now, fresh) {
    const { metric } = this;
    setText(this.number, metric.value === undefined ? "–" : value(metric.value, metric.digits));
    setText(this.unit, unit(metric.unit));
    const aged = metric.value !== undefined && now - metric.time > fresh;
    setText(this.old, aged ? `${span(now - metric.time)} ago` : "");
    this.node.classList.toggle("aged", aged);
  }

  at(text) {
    setText(this.extent, text || this.extentText);
    setClass(this.extent, text ? "extent at" : "extent");
  }

  destroy() { this.node.remove(); }
}

/** What number charts and strips share: the plot itself, made when its card is first seen. */
class Plot extends Card {
  constructor(metric, kind, hands) {
    super(metric, kind);
    this.hands = hands;
    this.box = el("div", { class: "plot" });
    this.waiting = el("p", { class: "waiting", hidden: true });
    this.box.append(this.waiting);
    this.node.append(this.box);
    this.from = 0;
    this.to = 1;
    this.plot = null;
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(this.box);
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (this.plot && width && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({ width, height });
  }

  get width() { return this.plot?.bbox ? this.plot.bbox.width / devicePixelRatio : 400; }

  make(data, { series, bands, y, axis, hooks }) {
    const { rem } = colours(), font = `${rem * 0.75}px system-ui, "Inter", sans-serif`;
    const stroke = () => colours().mute;
    const none = { show: false };
    const options = {
      width: this.box.clientWidth, height: this.box.clientHeight, ms: 1, pxAlign: 1, legend: none, padding: [7, 0, 0, 1], series, bands,
      scales: { x: { time: true, range: () => [this.from, this.to] }, y: { range: y } },
      axes: [
        {
          stroke, font, size: rem * 1.5, gap: 4, grid: none, ticks: none, space: rem * 3.9,
          values: (u, splits, _axis, _space, step) => splits.map((t) => {
            const x = u.valToPos(t, "x");
            return x < rem * 1.2 || x > u.bbox.width / devicePixelRatio - rem ? "" : tick(t, step);
          }),
        },
        { stroke, font, side: 1, size: rem * 3, gap: 6, ticks: none, grid: axis.grid ? { stroke: () => colours().line, width: 1 } : none, splits: axis.splits, values: axis.values },
      ],
      cursor: {
        y: false, drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { show: (u, i) => (i === 1 && axis.points ? el("div", { class: "u-cursor-pt" }) : null), stroke: () => colours().accent, fill: () => colours().accent },
        sync: { key: SYNC, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        bind: { dblclick: () => () => { this.hands.live(); return null; } },
      },
      hooks: {
        ...hooks,
        setSelect: [(u) => {
          if (u.select.width < 6) return;
          const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          this.hands.zoom(from, to);
        }],
        setCursor: [(u) => this.at(u.cursor.left >= 0 ? this.under(u.posToVal(u.cursor.left, "x"), u.cursor.idx) : "")],
      },
    };
    this.plot = new globalThis.uPlot(options, data, this.box);
  }

  empty(words) {
    this.waiting.hidden = !words;
    if (words) setText(this.waiting, words);
  }

  destroy() {
    this.observer.disconnect();
    this.plot?.destroy();
    super.destroy();
  }
}

export class NumberChart extends Plot {
  #scale = null; #data = null;

  constructor(metric, hands) { super(metric, "number", hands); }

  /** Draws columns {t, mean, min, max, band} in the window. */
  draw(data, { from, to }) {
    this.from = from;
    this.to = to;
    this.#data = data;
    let low = Infinity, high = -Infinity, n = 0;
    for (let i = lowerBound(data.t, from); i < data.t.length && data.t[i] <= to; i += 1) {
      if (data.mean[i] === null) continue;
      n += 1;
      if (data.min[i] < low) low = data.min[i];
      if (data.max[i] > high) high = data.max[i];
    }
    this.#scale = calmScale(low, high, this.#scale);
    const { digits } = this.metric;
    this.extentText = n ? `min ${value(low, digits)} max ${value(high, digits)}` : "";
    if (!this.plot || this.plot.cursor.left < 0) this.at("");
    const columns = [data.t, data.mean, data.max, data.min];
    if (this.plot) this.plot.setData(columns); else this.#make(columns);
  }

  #make(columns) {
    const quiet = { stroke: "transparent", width: 0, points: { show: false } };
    this.make(columns, {
      series: [{}, {
        stroke: () => colours().accent, width: 1.6, points: { show: (u, _s, i0, i1) => i1 - i0 < 12, size: 4, fill: () => colours().accent },
      }, quiet, quiet],
      bands: [{ series: [2, 3], fill: () => colours().band }],
      y: () => [this.#scale[0], this.#scale[2]],
      axis: { grid: true, points: true, splits: () => this.#scale, values: (_u, splits) => axisWords(splits) },
    });
  }

  under(time, i) {
    const { t, mean, min, max, band } = this.#data, { digits } = this.metric;
    if (i === null || i === undefined || mean[i] === null || mean[i] === undefined) return `${clock(time, { seconds: true })}  no reading`;
    const range = band && max[i] > min[i] ? ` (${value(min[i], digits)} to ${value(max[i], digits)})` : "";
    return `${clock(t[i], { seconds: true })}  ${value(mean[i], digits)}${range}`;
  }
}

/** The words of an axis: as many digits as tell its lines apart, short for large numbers. */
function axisWords(splits) {
  const size = Math.max(...splits.map(Math.abs));
  if (size >= 100_000 || (size < 0.001 && size > 0)) return splits.map((v) => new Intl.NumberFormat("en", { notation: size >= 1e15 || size < 1 ? "scientific" : "compact", maximumSignificantDigits: 4 }).format(v));
  const digits = Math.max(...splits.map(digitsOf));
  return splits.map((v) => value(v, digits));
}

export class BoolStrip extends Plot {
  #data = { t: [], v: [] }; #end = 0;

  constructor(metric, hands) { super(metric, "bool", hands); }

  /** Draws {t, v} (v 0, 1 or null for unknown, each holding until the next) in the window; nothing is claimed beyond `end`. */
  draw(data, { from, to }, end) {
    this.from = from;
    this.to = to;
    this.#data = data;
    this.#end = Math.min(to, end);
    let on = 0, known = 0, turns = 0;
    for (let i = 0; i < data.t.length; i += 1) {
      const a = Math.max(from, data.t[i]), b = Math.min(this.#end, data.t[i + 1] ?? this.#end);
      if (b <= a || data.v[i] === null) continue;
      known += b - a;
      if (data.v[i]) on += b - a;
      if (i && data.t[i] > from && data.v[i - 1] !== null && data.v[i] !== data.v[i - 1]) turns += 1;
    }
    this.extentText = known ? `on ${count(Math.round(on / known * 100))} %, ${turns === 1 ? "1 change" : `${count(turns)} changes`}` : "";
    if (!this.plot || this.plot.cursor.left < 0) this.at("");
    const columns = [data.t, data.v];
    if (this.plot) this.plot.setData(columns);
    else this.make(columns, { series: [{}, { paths: () => null, points: { show: false } }], y: () => [0, 1], axis: { grid: false, points: false, splits: () => [0, 1], values: () => ["", ""] }, hooks: { draw: [(u) => this.#paint(u)] } });
  }

  #paint(u) {
    const { t, v } = this.#data, { ctx, bbox } = u, { accent, line } = colours();
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (let i = 0; i < t.length;) {
      let j = i + 1;
      while (j < t.length && v[j] === v[i]) j += 1;
      const x = u.valToPos(Math.max(t[i], this.from), "x", true), end = u.valToPos(Math.min(t[j] ?? this.#end, this.#end), "x", true);
      ctx.fillStyle = v[i] ? accent : line;
      if (end > x && v[i] !== null) ctx.fillRect(Math.round(x), bbox.top, Math.max(1, Math.round(end) - Math.round(x)), bbox.height);
      i = j;
    }
    ctx.restore();
  }

  under(time) {
    const { t, v } = this.#data, i = lowerBound(t, time + 1) - 1;
    return `${clock(time, { seconds: true })}  ${i < 0 || v[i] === null || time > this.#end ? "no reading" : v[i] ? "on" : "off"}`;
  }
}

const LOG_ROWS = 100;

export class TextLog extends Card {
  #list = el("ul", { class: "log", tabindex: "0" }); #drawn = "";

  constructor(metric) {
    super(metric, "text");
    this.#list.setAttribute("aria-label", `${metric.label}: log`);
    this.node.append(this.#list);
  }

  /** Shows the rows [[time, text], ...] of the window, newest first; a text that repeats is one row with its count. At most a hundred. */
  draw(rows, { from, to }, revision) {
    const key = `${Math.floor(from / 1000)} ${Math.floor(to / 1000)} ${revision}`;
    if (key === this.#drawn) return;
    this.#drawn = key;
    const runs = [];
    for (const [t, text] of rows) {
      if (t < from || t > to) continue;
      const last = runs.at(-1);
      if (last?.text === text) last.n += 1; else runs.push({ t, text, n: 1 });
    }
    const shown = runs.slice(-LOG_ROWS).reverse();
    this.extentText = runs.length > LOG_ROWS ? `last ${LOG_ROWS} of ${count(runs.length)} changes` : runs.length ? plural(runs.length - 1, "change") : "nothing in this range";
    this.at("");
    while (this.#list.children.length > shown.length) this.#list.lastChild.remove();
    shown.forEach(({ t, text, n }, i) => {
      const row = this.#list.children[i] ?? this.#list.appendChild(el("li", {}, el("time"), el("span"), el("small")));
      setText(row.children[0], clock(t, { seconds: true }));
      setText(row.children[1], String(text));
      setText(row.children[2], n > 1 ? `× ${count(n)}` : "");
    });
  }
}
