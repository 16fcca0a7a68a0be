// A device's presence over the shown range as a strip, with the reasons in words. What is known: the present state and since when,
// and each change this page has seen. Before that the strip shows in a paler tone where readings are stored, which is what can be
// said truthfully, and nothing where there are none.

import { el, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDE = 1000;

export class PresenceStrip {
  #bars = svg("svg", { viewBox: `0 0 ${WIDE} 10`, preserveAspectRatio: "none", role: "img" });
  #left = el("span"); #say = el("span", { class: "say" }); #right = el("span"); #drawn = "";

  constructor() {
    this.node = el("div", { class: "strip", title: "Paler: readings are stored, the state was not recorded by this page" }, this.#bars, el("div", { class: "ends" }, this.#left, this.#say, this.#right));
  }

  /** `stored`: [[from, to], ...] where readings are stored, ascending. `heard`: until when anything is known. */
  draw(device, { from, to, live }, stored, heard) {
    const spans = spansOf(device, from, Math.min(to, heard), stored);
    const scale = WIDE / (to - from);
    const bars = spans.map(({ state, from: a, to: b }) => [state, Math.round((Math.max(a, from) - from) * scale), Math.max(2, Math.round((Math.min(b, to, heard) - Math.max(a, from)) * scale))]);
    const key = JSON.stringify(bars);
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.#bars.replaceChildren(...bars.map(([state, x, width]) => svg("rect", { class: state, x, width, height: 10 })));
    }
    setText(this.#left, clock(from));
    setText(this.#right, live ? "now" : clock(to));
    const words = wordsOf(spans, from, to);
    setText(this.#say, words);
    const label = `Presence from ${clock(from)} to ${live ? "now" : clock(to)}: ${words || `${device.state} throughout`}`;
    if (this.#bars.getAttribute("aria-label") !== label) this.#bars.setAttribute("aria-label", label);
  }
}

/** Spans of known state and, before them, of stored readings ("read"), cut to the range. Pure. */
export function spansOf(device, from, to, stored) {
  const spans = [], { changes } = device;
  const known = changes.length ? changes[0].since : to;
  for (const [a, b] of stored) if (a < known && b > from && a < to) spans.push({ state: "read", from: a, to: Math.min(b, known), reason: "" });
  changes.forEach((change, i) => {
    const end = changes[i + 1]?.since ?? Infinity;
    if (end > from && change.since < to) spans.push({ state: change.state, from: change.since, to: end, reason: change.reason });
  });
  return spans;
}

/** What was not online, in words: "stale 13:47, offline 13:49 to 13:52: ping timeout", the last three. Pure. */
function wordsOf(spans, from, to) {
  const troubles = spans.filter((span) => span.state === "stale" || span.state === "offline");
  const words = troubles.slice(-3).map((span) => {
    const begun = span.from < from ? "" : ` ${clock(span.from)}`, ended = span.to > to ? "" : ` to ${clock(span.to)}`;
    return `${span.state}${begun || (ended ? "" : " throughout")}${ended}${span.reason ? `: ${span.reason}` : ""}`;
  });
  if (troubles.length > 3) words.unshift(`${troubles.length - 3} more`);
  return words.join(", ");
}
