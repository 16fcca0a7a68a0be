// What the cards of metrics share: the head with the label, the current value large and its age; and the plot on a shared time axis and
// cursor, which numbers and booleans draw in, with its data as a table in its place when asked.

import { timeLines } from "./axis.js";
import { DataTable } from "./datatable.js";
import { el, icon, setClass, setIcon, setText } from "./dom.js";
import { KINDS, span, unit } from "./format.js";
import { gestures } from "./gestures.js";

const SYNC = "gateway", UNPACED_MS = 300_000, TABLE_MS = 1000;
const root = document.documentElement;
let palette = null;

export function colours() {
  if (!palette) {
    const style = getComputedStyle(root), of = (name) => style.getPropertyValue(name).trim();
    palette = { accent: of("--accent"), band: of("--band"), line: of("--line"), mute: of("--mute"), ink: of("--ink"), bg: of("--bg"), panel: of("--panel"), rem: parseFloat(style.fontSize) };
  }
  return palette;
}

/** To be called when the theme has changed: plots take the new colours at their next drawing. */
export function forgetColours() { palette = null; }

/** What all kinds share: a card with the label, what is under the cursor or the extent, the current value large, and its age. */
export class Card {
  #as = el("small", { class: "as", hidden: true });

  constructor(metric, kind) {
    this.metric = metric;
    this.kind = kind;
    this.former = false; // whether the metric's newest value is of another kind
    this.extent = el("span", { class: "extent" });
    this.number = el("span", { dir: "auto" });
    this.unit = el("small", { dir: "auto" });
    this.old = el("small", { class: "old" });
    this.big = el("div", { class: "big" }, this.number, " ", this.unit, this.old);
    const title = el("h3", { text: metric.label, title: metric.name });
    title.append(" ", this.#as);
    this.top = el("div", { class: "top" }, title, this.extent);
    this.node = el("article", { class: `card chart ${kind}`, "data-metric": metric.name }, this.top, this.big);
    this.seen = false;
    this.drawn = ""; // the state of the page it was last drawn for
    this.extentText = "";
  }

  /** Whether the metric has cards of other kinds too, and this is the one of its newest value. */
  among(cards, newest) {
    this.former = !newest;
    this.#as.hidden = cards === 1;
    if (cards > 1) setText(this.#as, `as ${KINDS[this.kind]}`);
    this.node.classList.toggle("former", this.former);
  }

  /** The newest value in words, where it is of this kind. */
  get now() { return this.former ? "" : `, now ${this.metric.text}`; }

  /**
   * The newest value and, when it is old or its device not online, its age: a number after three of its intervals; what stands until it changes, booleans and
   * texts, only with its device.
   */
  current(now, device) {
    const { metric } = this, { patience: least } = device;
    const patience = metric.kind !== "number" ? Infinity : Math.max(least, metric.pace ? metric.pace * 3 : UNPACED_MS);
    const aged = metric.value !== undefined && (device.state !== "online" || device.unsure || now - metric.time > patience);
    setText(this.number, this.former ? "–" : metric.text);
    setText(this.unit, this.former ? "" : unit(metric.unit));
    setText(this.old, this.former ? `now ${KINDS[metric.kind]}` : aged ? `${span(now - metric.time)} ago` : "");
    if (this.kind === "text" && !this.former && this.big.title !== metric.text) this.big.title = metric.text;
    this.node.classList.toggle("aged", aged);
  }

  at(text) {
    setText(this.extent, text || this.extentText);
    setClass(this.extent, text ? "extent at" : "extent");
  }

  get pictured() {
    return { title: this.metric.label, value: this.former ? "–" : `${this.metric.text} ${unit(this.metric.unit)}`.trim(), extent: this.extentText, canvas: null, lines: [] };
  }

  destroy() { this.node.remove(); }
}

/** What number charts and strips share: the plot itself, made when its card is first seen. */
export class Plot extends Card {
  #lines = { at: [], words: [] }; #table = null; #made = null; #pending = 0; #button;

  /** `hands`: {zoom(from, to), live(), pan(share), scale(factor, at), turned()}; the last is called when the card shows something else. */
  constructor(metric, kind, hands) {
    super(metric, kind);
    this.hands = hands;
    this.box = el("div", { class: "plot", role: "img", "aria-label": `${metric.label}: loading` });
    this.#button = el("button", { type: "button", class: "turn", "aria-label": `${metric.label}: as a table`, title: "As a table", "aria-pressed": "false", on: { click: () => this.#turn() } }, icon("rows"));
    this.top.append(this.#button);
    this.waiting = el("p", { class: "waiting", hidden: true });
    this.box.append(this.waiting);
    this.node.append(this.box);
    this.from = 0;
    this.to = 1;
    this.plot = null;
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(this.box);
  }

  /** What a picture of the page shows of this card. */
  get pictured() { return { ...super.pictured, canvas: this.plot?.ctx.canvas ?? null }; }

  /** Shows the data as a table instead of the plot, and back. */
  #turn() {
    const table = this.box.hidden === false;
    if (table && !this.#table) {
      this.#table = new DataTable(this.metric.label);
      this.node.append(this.#table.node);
    }
    this.box.hidden = table;
    this.#table.node.hidden = !table;
    this.node.classList.toggle("turned", table);
    this.#button.setAttribute("aria-pressed", String(table));
    this.#button.title = table ? "As a chart" : "As a table";
    setIcon(this.#button.firstChild, table ? "line" : "rows");
    this.hands.turned();
  }

  /** Tells what is drawn in words, and draws the table where it is shown, once a second; `made()` gives {columns, rows, note}. */
  tell(words, made) {
    const label = `${this.metric.label}: ${words || "no readings in this range"}`;
    if (this.box.getAttribute("aria-label") !== label) this.box.setAttribute("aria-label", label);
    this.#made = made;
    if (this.box.hidden && !this.#pending) {
      this.#table.draw(made());
      this.#made = null;
      this.#pending = setTimeout(() => this.#again(), TABLE_MS);
    }
  }

  #again() {
    this.#pending = 0;
    if (!this.box.hidden || !this.#made) return;
    this.#table.draw(this.#made());
    this.#made = null;
    this.#pending = setTimeout(() => this.#again(), TABLE_MS);
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (this.plot && width && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({ width, height });
  }

  get width() { return this.plot?.bbox ? this.plot.bbox.width / devicePixelRatio : 400; }

  /** `axis`: {grid, points, splits, values} of the values; `near()`: how many milliseconds a reading may be away from the cursor. */
  make(data, { series, bands, y, axis, hooks, near = () => Infinity }) {
    const { rem } = colours(), font = `${rem * 0.75}px system-ui, "Inter", sans-serif`;
    const stroke = () => colours().mute, none = { show: false };
    const moments = (u, _axis, from, to) => {
      this.#lines = timeLines(from, to, u.bbox.width / devicePixelRatio || 400, rem);
      return this.#lines.at;
    };
    const words = (u) => this.#lines.words.map((word, i) => {
      const x = u.valToPos(this.#lines.at[i], "x"), half = word.length * rem * 0.22;
      return x < half || x > this.width - half + 2 ? "" : word;
    });
    const options = {
      width: this.box.clientWidth, height: this.box.clientHeight, ms: 1, pxAlign: 1, legend: none, padding: [7, 0, 0, 1], series, bands,
      scales: { x: { time: true, range: () => [this.from, this.to] }, y: { range: y } },
      axes: [
        { stroke, font, size: rem * 1.5, gap: 4, grid: none, ticks: none, splits: moments, values: words },
        {
          stroke, font, side: 1, gap: 6, ticks: none, grid: axis.grid ? { stroke: () => colours().line, width: 1 } : none, splits: axis.splits, values: axis.values,
          size: (_u, said) => rem * Math.max(3, 0.6 + 0.47 * Math.max(0, ...(said ?? []).map((word) => word.length))),
        },
      ],
      cursor: {
        hover: { prox: () => near() / (this.to - this.from) * this.width },
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
    gestures(this.plot.over, { pan: this.hands.pan, zoom: this.hands.scale });
  }

  empty(words) {
    this.waiting.hidden = !words;
    if (words) setText(this.waiting, words);
  }

  destroy() {
    clearTimeout(this.#pending);
    this.observer.disconnect();
    this.plot?.destroy();
    super.destroy();
  }
}
