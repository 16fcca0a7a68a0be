// A number over time: its mean as a line, from min to max as a band, between three round lines.

import { axisWords, calmScale, shrinkFor, shrunk } from "./axis.js";
import { clock, count, extremes, unit, value } from "./format.js";
import { Plot, colours } from "./plot.js";
import { lowerBound, usualStep } from "./series.js";

const ROWS = 200, NEAR_PX = 6;

export class NumberChart extends Plot {
  some = false; // whether there is a number in the window
  #scale = null; #powers = 0; #data = null; #near = 0;

  constructor(metric, hands) { super(metric, "number", hands); }

  /** Draws columns {t, mean, min, max, band} in the window. */
  draw(data, { from, to }) {
    this.from = from;
    this.to = to;
    this.#data = data;
    this.#near = Math.max(usualStep(data.t) * 2, (to - from) / this.width * NEAR_PX);
    let low = Infinity, high = -Infinity, n = 0;
    for (let i = lowerBound(data.t, from); i < data.t.length && data.t[i] <= to; i += 1) {
      if (data.mean[i] === null) continue;
      n += 1;
      if (data.min[i] < low) low = data.min[i];
      if (data.max[i] > high) high = data.max[i];
    }
    this.some = n > 0;
    const powers = n ? shrinkFor(low, high) : 0;
    this.#scale = calmScale(shrunk(low, powers), shrunk(high, powers), powers === this.#powers ? this.#scale : null);
    this.#powers = powers;
    const [least, most] = n ? extremes(low, high, this.metric.digits) : [];
    this.extentText = n ? `min ${least} max ${most}` : "";
    const { metric } = this;
    this.tell(n ? `line chart, ${least} to ${most} ${unit(metric.unit)}${this.now}` : "", () => this.#rows());
    if (!this.plot || this.plot.cursor.left < 0) this.at("");
    const columns = [data.t, ...[data.mean, data.max, data.min].map((column) => (powers ? column.map((v) => shrunk(v, powers)) : column))];
    if (this.plot) this.plot.setData(columns); else this.#make(columns);
  }

  #make(columns) {
    const quiet = { stroke: "transparent", width: 0, points: { show: false } };
    this.make(columns, {
      series: [{}, {
        stroke: () => colours().accent, width: 1.6, points: { show: (u, _s, i0, i1) => i1 - i0 < 12, size: 4, fill: () => colours().accent },
      }, quiet, quiet],
      bands: [{ series: [2, 3], fill: () => colours().band }],
      near: () => this.#near,
      y: () => (this.#scale ? [this.#scale[0], this.#scale[2]] : [0, 1]),
      axis: { grid: true, points: true, splits: () => this.#scale ?? [], values: (_u, splits) => axisWords(splits, this.#powers) },
    });
  }

  #rows() {
    const { t, mean, min, max, band } = this.#data, { digits, unit: code } = this.metric, rows = [];
    let n = 0;
    for (let i = t.length - 1; i >= 0 && t[i] >= this.from; i -= 1) {
      if (t[i] > this.to || mean[i] === null) continue;
      n += 1;
      if (rows.length < ROWS) rows.push([clock(t[i], { seconds: true }), value(mean[i], digits), ...(band ? extremes(min[i], max[i], digits) : [])]);
    }
    const said = unit(code) ? `, ${unit(code)}` : "";
    return { columns: band ? ["Time", `Mean${said}`, "Min", "Max"] : ["Time", `Value${said}`], rows, note: n > ROWS ? `the newest ${ROWS} of ${count(n)}` : "" };
  }

  under(time, i) {
    const { t, mean, min, max, band } = this.#data, { digits } = this.metric;
    if (mean[i] === null || mean[i] === undefined || Math.abs(t[i] - time) > this.#near) return `${clock(time, { seconds: true })}  no reading`;
    const [least, most] = extremes(min[i], max[i], digits), range = band && max[i] > min[i] ? ` (${least} to ${most})` : "";
    return `${clock(t[i], { seconds: true })}  ${value(mean[i], digits)}${range}`;
  }
}
