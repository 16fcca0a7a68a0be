// A text over time: a log, the newest first.

import { el, setText } from "./dom.js";
import { clock, count, plural, shown, span } from "./format.js";
import { Card } from "./plot.js";

const ROWS = 100, PICTURED = 6;

export class TextLog extends Card {
  #list = el("ul", { class: "log", tabindex: "0" }); #drawn = "";

  constructor(metric) {
    super(metric, "text");
    this.#list.setAttribute("aria-label", `${metric.label}: log`);
    this.node.append(this.#list);
  }

  /**
   * Shows what `make()` gives, {rows: [[time, text], ...], step, sampled}, in the window, newest first; a text that repeats is one row with its
   * count. At most a hundred. `revision` changes with the rows.
   */
  draw(make, { from, to }, revision) {
    const key = `${Math.floor(from / 1000)} ${Math.floor(to / 1000)} ${revision}`;
    if (key === this.#drawn) return;
    this.#drawn = key;
    const { rows, step, sampled } = make(), runs = [];
    for (const [t, text] of rows) {
      if (t < from || t > to) continue;
      const last = runs.at(-1);
      if (last?.text === text) last.n += 1; else runs.push({ t, text, n: 1 });
    }
    this.#tell(runs.length, sampled > from ? { step, sampled } : null);
    const newest = runs.slice(-ROWS).reverse();
    while (this.#list.children.length > newest.length) this.#list.lastChild.remove();
    newest.forEach(({ t, text, n }, i) => {
      const row = this.#list.children[i] ?? this.#list.appendChild(el("li", {}, el("time"), el("span", { dir: "auto" }), el("small")));
      setText(row.children[0], `${t < sampled ? "by " : ""}${clock(t, { seconds: t >= sampled })}`);
      setText(row.children[1], shown(String(text)));
      setText(row.children[2], n > 1 && t >= sampled ? `× ${count(n)}` : "");
    });
  }

  get pictured() {
    const lines = [...this.#list.children].slice(0, PICTURED).map((row) => `${row.children[0].textContent}  ${row.children[1].textContent}`);
    return { ...super.pictured, lines };
  }

  #tell(n, thin) {
    const changes = n > ROWS ? `last ${ROWS} of ${count(n)} changes` : n ? plural(n - 1, "change") : "nothing in this range";
    this.extentText = thin ? `before ${clock(thin.sampled)} sampled each ${span(thin.step)}` : changes;
    this.extent.title = thin ? `Too many readings to show each: before ${clock(thin.sampled)} one in ${span(thin.step)} is shown, and no change between two of them` : "";
    this.at("");
  }
}
