// What became of a device's readings, as a sum that adds up; what does not add up would stand in it as well.

import { el, setClass, setText } from "./dom.js";
import { count } from "./format.js";

const TERMS = ["stored", "rejected", "duplicate", "throttled", "dropped", "in_flight"];

export class LedgerSum {
  #parts = new Map();

  constructor() {
    this.node = el("p", { class: "ledger", role: "group", "aria-label": "What became of its readings" });
  }

  /** Draws a device's ledger, once it is known, and how many of its times are far off. */
  draw(device) {
    const { ledger } = device;
    this.node.classList.toggle("unknown", !ledger);
    if (!ledger) return;
    const sum = TERMS.reduce((total, term) => total + (ledger[term] ?? 0), 0), off = (ledger.received ?? 0) - sum;
    this.#term("received", "", ledger.received ?? 0, false);
    TERMS.forEach((term, i) => this.#term(term, i ? "+ " : "= ", ledger[term] ?? 0, (term === "rejected" || term === "dropped") && ledger[term] > 0));
    this.#term("unaccounted", "+ ", off, off !== 0, off === 0);
    const { old = 0, future = 0 } = device.clock ?? {};
    this.#term("with a time long past", "; ", old, false, !old);
    this.#term("with a time ahead", "; ", future, true, !future);
  }

  #term(term, sign, n, hot, hidden = false) {
    let part = this.#parts.get(term);
    if (!part) {
      const number = el("b");
      part = { number, node: el("span", { "data-term": term }, sign, number, ` ${term.replace("_", " ")}`) };
      this.#parts.set(term, part);
      this.node.append(part.node, " ");
    }
    part.node.hidden = hidden;
    setText(part.number, count(n));
    setClass(part.node, hot ? "hot" : "");
  }
}
