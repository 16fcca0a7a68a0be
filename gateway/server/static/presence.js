// A device's presence over the shown range as a strip, with the reasons in words. What is known: the present state and since when, each
// change this page has seen, the last ones before that as the gateway remembers them, and when the gateway was away. Where nothing of this tells
// and readings are stored, the strip shows so in a paler tone, which is what can be said truthfully; the rest stays blank.

import { el, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDE = 1000;
const NAMES = { online: "online", stale: "stale", offline: "offline", read: "readings are stored, the state then is not known", away: "gateway away" };
const BLANK = "Blank: nothing is known of this time. The gateway tells the last states of a device, not those of times when it was away";

export class PresenceStrip {
  #bars = svg("svg", { viewBox: `0 0 ${WIDE} 10`, preserveAspectRatio: "none", role: "img" });
  #left = el("span"); #say = el("span", { class: "say" }); #right = el("span"); #drawn = "";

  constructor() {
    this.node = el("div", { class: "strip" }, this.#bars, el("div", { class: "ends" }, this.#left, this.#say, this.#right));
  }

  /** `stored`: [[from, to], ...] where readings are stored, ascending. `heard`: until when anything is known. `away`: see away.js. */
  draw(device, { from, to, live }, stored, heard, away) {
    const end = Math.min(to, heard), spans = spansOf(device, from, end, stored, away);
    const scale = WIDE / (to - from);
    const bars = spans.map((span) => {
      const a = Math.max(span.from, from), b = Math.min(span.to, end);
      return [span.state, Math.round((a - from) * scale), Math.max(2, Math.round((b - a) * scale)), titleOf(span)];
    });
    const key = JSON.stringify(bars);
    if (key !== this.#drawn) {
      this.#drawn = key;
      const blank = svg("rect", { class: "blank", x: 0, width: WIDE, height: 10 }, svg("title", {}, BLANK));
      this.#bars.replaceChildren(blank, ...bars.map(([state, x, width, title]) => (
        svg("rect", { class: state, x, width, ...(state === "away" ? { y: 4, height: 2 } : { height: 10 }) }, svg("title", {}, title)))));
    }
    setText(this.#left, clock(from));
    setText(this.#right, live ? "now" : clock(to));
    const words = wordsOf(spans, from, end, away);
    setText(this.#say, words);
    if (this.#say.title !== words) this.#say.title = words;
    const label = `Presence from ${clock(from)} to ${live ? "now" : clock(to)}: ${words || (spans.length ? `${spans.at(-1).state} as far as known` : "not known")}`;
    if (this.#bars.getAttribute("aria-label") !== label) this.#bars.setAttribute("aria-label", label);
  }
}

function titleOf({ state, from, to, reason }) {
  const until = to < Infinity ? ` to ${clock(to, { seconds: true })}` : "";
  return `${NAMES[state] ?? state} ${from > 0 ? `from ${clock(from, { seconds: true })}${until}` : ""}${reason ? `: ${reason}` : ""}`;
}

/** Spans of known state, of the gateway's absence ("away") and, before them, of stored readings ("read"), cut to the range. Pure. */
export function spansOf(device, from, to, stored, away) {
  const { changes } = device, spans = [], said = [];
  changes.forEach((change, i) => {
    const next = changes[i + 1]?.since ?? Infinity, end = device.unsure ? Math.min(next, away.started || 0) : next;
    // What a gateway remembers from before its start it has not seen throughout: only an absence is sure to have lasted.
    const first = away.first || Infinity, begun = change.state === "offline" || change.since >= first ? change.since : first;
    for (const [a, b] of without(begun, end, away.spans)) said.push({ state: change.state, from: a, to: b, reason: change.reason });
  });
  const known = said[0]?.from ?? to, before = [];
  for (const { state, since, until, reason } of device.past) {
    for (const [a, b] of without(since, Math.min(until ?? known, known), away.spans)) before.push({ state, from: a, to: b, reason });
  }
  said.unshift(...before);
  const told = [...before, ...away.spans].sort((a, b) => a.from - b.from);
  for (const [a, b] of stored) {
    for (const [c, d] of without(a, Math.min(b, known), told)) spans.push({ state: "read", from: c, to: d, reason: "" });
  }
  for (const span of away.spans) spans.push({ state: "away", from: span.from, to: span.to, reason: "" });
  spans.push(...said);
  return spans.filter((span) => span.to > from && span.from < to && span.to > span.from).sort((a, b) => a.from - b.from);
}

/** What is left of a span without the holes: [[from, to], ...]. */
function without(from, to, holes) {
  const left = [];
  for (const hole of holes) {
    if (hole.to <= from || hole.from >= to) continue;
    if (hole.from > from) left.push([from, hole.from]);
    from = Math.max(from, hole.to);
  }
  if (to > from) left.push([from, to]);
  return left;
}

/** What was not online, in words: "stale 13:47, offline 13:49 to 13:52: ping timeout", the last three. Pure. */
function wordsOf(spans, from, to, away) {
  const troubles = spans.filter((span) => span.state !== "online" && span.state !== "read");
  const words = troubles.slice(-3).map((span) => {
    const short = span.to - span.from < 120_000, at = (t) => clock(t, { seconds: short });
    const begun = span.from < from ? "" : ` ${at(span.from)}`, ended = span.to > to ? "" : ` to ${at(span.to)}`;
    return `${NAMES[span.state]}${begun || (ended ? "" : " throughout")}${ended}${span.reason ? `: ${span.reason}` : ""}`;
  });
  if (troubles.length > 3) words.unshift(`${troubles.length - 3} more`);
  if (away.first > from && away.first < to && !away.spans.some((span) => span.to >= away.first)) words.unshift(`gateway started ${clock(away.first)}`);
  return words.join(", ");
}
