// A chart's data as a table in the chart's place: the newest first.

import { el, setText } from "./dom.js";

export class DataTable {
  #caption = el("caption", { class: "hidden" }); #head = el("tr"); #body = el("tbody"); #note = el("p", { class: "note", hidden: true }); #label; #columns = "";

  constructor(label) {
    this.#label = label;
    const table = el("table", { class: "data" }, this.#caption, el("thead", {}, this.#head), this.#body);
    this.node = el("div", { class: "databox", tabindex: "0", role: "region", "aria-label": `${label}: readings`, hidden: true }, table, this.#note);
  }

  /** Draws rows of texts below the columns' words; `note` says what is left out. */
  draw({ columns, rows, note }) {
    if (columns.join() !== this.#columns) {
      this.#columns = columns.join();
      this.#head.replaceChildren(...columns.map((word) => el("th", { scope: "col", text: word })));
      this.#body.replaceChildren();
    }
    setText(this.#caption, `${this.#label}${note ? `, ${note}` : ""}`);
    while (this.#body.children.length > rows.length) this.#body.lastChild.remove();
    rows.forEach((cells, i) => {
      const row = this.#body.children[i] ?? this.#body.appendChild(el("tr", {}, ...cells.map(() => el("td"))));
      cells.forEach((text, k) => setText(row.children[k], text));
    });
    const words = rows.length ? note : "No readings in this range";
    this.#note.hidden = !words;
    setText(this.#note, words);
  }
}
