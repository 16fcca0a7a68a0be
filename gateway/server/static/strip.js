// A boolean over time: a strip, filled while it is on. A change is never too short to be seen.

import { clock, count, span } from "./format.js";
import { Plot, colours } from "./plot.js";
import { lowerBound } from "./series.js";

const LEAST_PX = 2, ROWS = 200;

export class BoolStrip extends Plot {
  #data = { t: [], v: [], step: 0, sampled: 0 }; #end = 0;

  constructor(metric, hands) { super(metric, "bool", hands); }

  /** Draws {t, v, step, sampled} (v 0, 1 or null for unknown, each holding until the next) in the window; nothing is claimed beyond `end`. */
  draw(data, { from, to }, end) {
    this.from = from;
    this.to = to;
    this.#data = data;
    this.#end = Math.min(to, end);
    this.#tell();
    this.tell(this.extentText && `strip, ${this.extentText}${this.now}`, () => this.#rows());
    if (!this.plot || this.plot.cursor.left < 0) this.at("");
    const columns = [data.t, data.v];
    if (this.plot) this.plot.setData(columns);
    else this.make(columns, { series: [{}, { paths: () => null, points: { show: false } }], y: () => [0, 1], axis: { grid: false, points: false, splits: () => [0, 1], values: () => ["", ""] }, hooks: { draw: [(u) => this.#paint(u)] } });
  }

  #tell() {
    const { t, v, step, sampled } = this.#data;
    let on = 0, known = 0, turns = 0;
    for (let i = 0; i < t.length; i += 1) {
      const a = Math.max(this.from, t[i]), b = Math.min(this.#end, t[i + 1] ?? this.#end);
      if (b < a || v[i] === null) continue;
      known += b - a;
      if (v[i]) on += b - a;
      if (i && t[i] > this.from && v[i - 1] !== null && v[i] !== v[i - 1]) turns += 1;
    }
    const some = sampled > this.from, share = `on ${some ? "about " : ""}${count(Math.round(on / known * 100))} %`;
    this.extentText = !known ? "" : some ? `${share}, sampled each ${span(step)}` : `${share}, ${turns === 1 ? "1 change" : `${count(turns)} changes`}`;
    const title = some ? `Too many readings to show each: before ${clock(sampled)} the strip shows one in ${span(step)}, and no change between two of them` : "";
    if (this.extent.title !== title) this.extent.title = title;
  }

  /** Runs of one value as [from, to, value], cut to the window. */
  #runs() {
    const { t, v } = this.#data, runs = [];
    for (let i = 0; i < t.length;) {
      let j = i + 1;
      while (j < t.length && v[j] === v[i]) j += 1;
      const from = Math.max(t[i], this.from), to = Math.min(t[j] ?? this.#end, this.#end);
      if (v[i] !== null && to >= from && from <= this.to) runs.push([from, to, v[i]]);
      i = j;
    }
    return runs;
  }

  #rows() {
    const runs = this.#runs(), at = (time) => clock(time, { seconds: true });
    const rows = runs.slice(-ROWS).reverse().map(([from, to, v]) => [at(from), at(to), v ? "on" : "off", span(to - from)]);
    return { columns: ["From", "To", "State", "For"], rows, note: runs.length > ROWS ? `the newest ${ROWS} of ${count(runs.length)}` : "" };
  }

  /** Long runs as they are; then what is too short to be drawn: alone with its least width, several together as a mixture of their shares. */
  #paint(u) {
    const { ctx, bbox } = u, { accent, line } = colours(), least = Math.round(LEAST_PX * devicePixelRatio);
    const at = (time) => Math.round(u.valToPos(time, "x", true)), short = least / bbox.width * (this.to - this.from);
    const fill = (from, to, colour, alpha = 1) => {
      const x = Math.min(at(from), bbox.left + bbox.width - least);
      ctx.fillStyle = colour;
      ctx.globalAlpha = alpha;
      ctx.fillRect(x, bbox.top, Math.max(least, at(to) - x), bbox.height);
    };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const runs = this.#runs();
    for (const [from, to, v] of runs) if (to - from >= short) fill(from, to, v ? accent : line);
    for (const { from, to, n, on, v } of together(runs, short)) {
      if (n === 1) fill(from, to, v ? accent : line);
      else { fill(from, to, line); fill(from, to, accent, 0.25 + 0.6 * on / (to - from || 1)); }
    }
    ctx.restore();
  }

  under(time) {
    const { t, v } = this.#data, i = lowerBound(t, time + 1) - 1;
    return `${clock(time, { seconds: true })}  ${i < 0 || v[i] === null || time > this.#end ? "no reading" : v[i] ? "on" : "off"}`;
  }
}

/** Runs shorter than `short` that follow each other, put together: [{from, to, n: how many, on: for how long it is on, v: the last value}, ...]. */
function together(runs, short) {
  const groups = [];
  for (const [from, to, v] of runs) {
    if (to - from >= short) continue;
    const last = groups.at(-1), on = v ? to - from : 0;
    if (last && from - last.to < short) { last.to = to; last.n += 1; last.on += on; last.v = v; } else groups.push({ from, to, n: 1, on, v });
  }
  return groups;
}
