// What a window shows of a series: what was loaded from the store (`base`, see history.js) and after it the feed's own readings.
// Silence stays a gap, it is never drawn as data. Pure.

import { appendRaw, appendReduced, breakGaps, columns, lowerBound, usualStep } from "./series.js";
import { keyOf } from "./store.js";

const GAP_LEAST = 2000, GAP_STEPS = 3.5;

/** Columns {t, mean, min, max, band} of a number; `width` in pixels bounds how many there are. `interval`: ms between readings, 0: unknown. */
export function numbers(metric, base, ring, window, interval, width) {
  const loaded = base?.series.get(keyOf(metric, "number")), step = base?.step ?? 0, out = columns();
  let after = -Infinity;
  if (loaded) {
    // The last column may have been loaded half filled: the ring draws it when it holds the whole of it.
    const edge = step && Math.floor(base.to / step) * step, whole = step > 0 && ring !== null && ring.first <= edge;
    const end = whole ? lowerBound(loaded.t, edge) : loaded.t.length;
    for (let i = Math.max(0, lowerBound(loaded.t, window.from) - 1); i < end; i += 1) {
      out.t.push(step ? Math.min(loaded.t[i] + step / 2, base.to) : loaded.t[i]);
      out.mean.push(loaded.mean[i]);
      out.min.push(loaded.min[i]);
      out.max.push(loaded.max[i]);
      out.n.push(loaded.n[i]);
    }
    out.band = step > 0;
    after = whole ? edge - 1 : step ? base.to : loaded.t.at(-1) ?? after;
  }
  if (ring?.length) {
    const { times, values } = ring, j = lowerBound(times, window.to + 1);
    let i = lowerBound(times, Math.max(after + 1, window.from));
    if (i > 0 && times[i - 1] > after) i -= 1;
    const reduced = step || (j - i > width * 1.5 ? Math.ceil((window.to - window.from) / width * 1.5) : 0);
    if (reduced) appendReduced(out, times, values, i, j, reduced); else appendRaw(out, times, values, i, j);
  }
  return breakGaps(out, Math.max(Math.max(usualStep(out.t), step, interval) * GAP_STEPS, GAP_LEAST));
}

/**
 * A boolean as {t, v, step, sampled}: v 0 or 1 holds until the next; null where nothing is known. One that comes with every reading ends with
 * them, one that comes when it changes, or too seldom to tell, holds until it does. `step`, `sampled`: as in history.js.
 */
export function steps(metric, base, ring, interval, heard) {
  const loaded = base?.series.get(keyOf(metric, "bool")), t = [], v = [], known = loaded ?? { t, last: v, step: 0, sampled: 0 };
  const { step, sampled } = known;
  if (known === loaded) for (let i = 0; i < loaded.t.length; i += 1) { t.push(loaded.t[i]); v.push(Number(loaded.last[i])); }
  if (ring?.length) {
    const { times, values } = ring;
    for (let i = t.length ? lowerBound(times, t[t.length - 1] + 1) : 0; i < times.length; i += 1) { t.push(times[i]); v.push(values[i]); }
  }
  const usual = usualStep(t), pace = Math.max(usual, step);
  if (!interval || !usual || pace > Math.max(interval * 2, step)) return { t, v, step, sampled };
  const gap = Math.max(pace * GAP_STEPS, GAP_LEAST), out = { t: [], v: [], step, sampled };
  for (let i = 0; i < t.length; i += 1) {
    out.t.push(t[i]);
    out.v.push(v[i]);
    if ((t[i + 1] ?? heard) - t[i] > gap) { out.t.push(t[i] + pace); out.v.push(null); }
  }
  return out;
}

/** Texts as {rows: [[time, text], ...], step, sampled}; `step`, `sampled`: as in history.js. */
export function texts(metric, base, log) {
  const loaded = base?.series.get(keyOf(metric, "text")), rows = loaded ? loaded.t.map((t, i) => [t, loaded.last[i]]) : [];
  const end = rows.at(-1)?.[0] ?? -Infinity, { step = 0, sampled = 0 } = loaded ?? {};
  return { rows: log ? rows.concat(log.rows.filter(([t]) => t > end)) : rows, step, sampled };
}

/** Where readings are stored: [[from, to], ...], from the fullest of the series at hand. */
export function storedSpans(base, rings, interval) {
  let times = [];
  for (const ring of rings) if (ring.length > times.length) times = ring.times;
  const step = base?.step ?? 0;
  for (const series of base?.series.values() ?? []) if (series.t.length && series.t[0] < (times[0] ?? Infinity)) times = series.t;
  const gap = Math.max(5000, interval * 4, step * 1.5, usualStep(times) * 3), hold = step || interval, spans = [];
  for (const time of times) {
    const last = spans.at(-1);
    if (last && time - last[1] <= gap) last[1] = time + hold; else spans.push([time, time + hold]);
  }
  return spans;
}

/** {n, min, mean, max} of what columns hold within the window. */
export function summary(data, { from, to }) {
  let n = 0, sum = 0, min = Infinity, max = -Infinity;
  for (let i = 0; i < data.t.length; i += 1) {
    if (data.mean[i] === null || data.t[i] < from || data.t[i] > to) continue;
    n += data.n[i];
    sum += data.mean[i] * data.n[i];
    min = Math.min(min, data.min[i]);
    max = Math.max(max, data.max[i]);
  }
  if (Number.isFinite(sum)) return { n, min, max, mean: sum / n };
  // Beyond the greatest number there is: each has its share taken first.
  sum = 0;
  for (let i = 0; i < data.t.length; i += 1) if (data.mean[i] !== null && data.t[i] >= from && data.t[i] <= to) sum += data.mean[i] * (data.n[i] / n);
  return { n, min, max, mean: Math.max(min, Math.min(max, sum)) };
}
