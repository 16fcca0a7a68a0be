// The chosen device's metrics as a table: the newest value, and what the window holds of each.

import { el, setText } from "./dom.js";
import { KINDS, clock, count, extremes, isolated, unit, value } from "./format.js";
import { keyOf } from "./store.js";

const COLUMNS = ["Metric", "Now", "Min", "Mean", "Max", "Readings", "At"];

export class ValueTable {
  #caption = el("caption", { class: "hidden" }); #body = el("tbody"); #rows = new Map();

  constructor() {
    const head = el("thead", {}, el("tr", {}, ...COLUMNS.map((word) => el("th", { scope: "col", text: word }))));
    this.node = el("div", { class: "card tablebox", tabindex: "0", "aria-label": "Values in the range", hidden: true }, el("table", { class: "values" }, this.#caption, head, this.#body));
  }

  /** Draws the metrics [{metric, kind, former}, ...], `former`: its newest value is of another kind; `summarize(metric)` gives {n, min, mean, max} of a number. */
  draw(title, { from, to }, metrics, summarize) {
    setText(this.#caption, `Values of ${isolated(title)} from ${clock(from)} to ${clock(to)}`);
    const names = new Set(metrics.map(({ metric, kind }) => keyOf(metric.name, kind)));
    for (const [name, row] of this.#rows) if (!names.has(name)) { row.node.remove(); this.#rows.delete(name); }
    metrics.forEach(({ metric, kind, former }, i) => {
      const row = this.#rowOf(metric, keyOf(metric.name, kind));
      if (this.#body.children[i] !== row.node) this.#body.insertBefore(row.node, this.#body.children[i] ?? null);
      setText(row.now, former ? "–" : metric.text);
      row.now.title = kind === "text" && !former ? metric.text : "";
      row.now.className = kind === "text" ? "now text" : "now";
      setText(row.unit, former ? "" : unit(metric.unit));
      setText(row.at, former ? "" : clock(metric.time, { seconds: true }));
      setText(row.label, former ? `${metric.label}, as ${KINDS[kind]}` : metric.label);
      const words = kind === "number" ? wordsOf(summarize(metric), metric.digits) : ["", "", "", ""];
      row.sums.forEach((cell, k) => setText(cell, words[k]));
    });
  }

  clear() {
    this.#rows.clear();
    this.#body.replaceChildren();
  }

  #rowOf(metric, key) {
    let row = this.#rows.get(key);
    if (!row) {
      const label = el("span"), now = el("span", { dir: "auto" }), small = el("small", { dir: "auto" }), at = el("td", { class: "mute" }), sums = [1, 2, 3, 4].map(() => el("td"));
      const name = el("th", { scope: "row", title: metric.name }, label);
      row = { node: el("tr", {}, name, el("td", {}, now, " ", small), ...sums, at), label, now, unit: small, sums, at };
      this.#rows.set(key, row);
    }
    return row;
  }
}

function wordsOf({ n, min, mean, max }, digits) {
  if (!n) return ["–", "–", "–", "0"];
  const [least, most] = extremes(min, max, digits);
  return [least, value(mean, Math.max(digits, Number.isInteger(mean) ? 0 : 1)), most, count(n)];
}
