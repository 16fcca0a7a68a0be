// What the store holds: /api/v1/history, reduced on the gateway when the range is long.

import { getJson } from "./api.js";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400].map((s) => s * 1000);
const COLUMNS = 720, RAW_SPAN = 310_000;

/** The step for a span of time in milliseconds: 0 means raw readings. */
export function stepFor(span) {
  if (span <= RAW_SPAN) return 0;
  return STEPS.find((step) => span / step <= COLUMNS) ?? Math.ceil(span / COLUMNS / 86400e3) * 86400e3;
}

/** A step as the address takes it: 10s, 2m, 1h. */
export function stepWord(ms) {
  const s = ms / 1000;
  return s % 3600 === 0 ? `${s / 3600}h` : s % 60 === 0 ? `${s / 60}m` : `${s}s`;
}

async function rowsOf(params, signal) {
  const { body, truncated } = await getJson("api/v1/history", { params, signal, timeout: 30_000 });
  return { rows: Array.isArray(body) ? body : body.rows, truncated };
}

/**
 * A device's history between two instants: {step, from, to, truncated, series: Map(metric -> {t, mean, min, max} or, for booleans
 * and texts, {t, last})}. Without a step `mean`, `min` and `max` are one array. Raises ApiError.
 */
export async function load(device, from, to, signal) {
  const step = stepFor(to - from), params = { device, from: Math.floor(from), to: Math.ceil(to) };
  const series = new Map();
  if (step === 0) {
    const { rows, truncated } = await rowsOf(params, signal);
    for (const { time, metric, value } of rows) push(series, metric, time, value);
    return { step, from, to, truncated, series };
  }
  const stepped = { ...params, step: stepWord(step) };
  const [mean, min, max, last] = await Promise.all(["mean", "min", "max", "last"].map((agg) => rowsOf({ ...stepped, agg }, signal)));
  for (const { time, metric, value } of last.rows) if (typeof value !== "number") push(series, metric, time, value);
  for (const { time, metric, value } of mean.rows) {
    if (typeof value !== "number" || series.get(metric)?.last) continue;
    let known = series.get(metric);
    if (!known) series.set(metric, known = { t: [], mean: [], min: [], max: [], at: new Map() });
    known.at.set(time, known.t.length);
    known.t.push(time);
    known.mean.push(value);
    known.min.push(value);
    known.max.push(value);
  }
  for (const [rows, key] of [[min.rows, "min"], [max.rows, "max"]]) {
    for (const { time, metric, value } of rows) {
      const known = series.get(metric), i = known?.at?.get(time);
      if (i !== undefined && typeof value === "number") known[key][i] = value;
    }
  }
  return { step, from, to, truncated: [mean, min, max, last].some((answer) => answer.truncated), series };
}

function push(series, metric, time, value) {
  let known = series.get(metric);
  const number = typeof value === "number";
  if (!known || Boolean(known.last) === number) {
    const t = [], values = [];
    series.set(metric, known = number ? { t, mean: values, min: values, max: values } : { t, last: values });
  }
  known.t.push(time);
  (known.last ?? known.mean).push(value);
}

/** One metric's readings for a sparkline: [[time, value], ...]; at most `together` requests run at once, the queue is bounded by the number of series. */
export class Sparks {
  #queue = []; #running = 0;

  constructor(together = 2) { this.together = together; }

  /** Asks for the `span` milliseconds before `end`. `wanted()` is asked again before the request leaves: when false, and when it fails, `done` gets null. */
  ask(device, metric, { end, span, step }, wanted, done) {
    this.#queue.push({ device, metric, end, span, step, wanted, done });
    this.#next();
  }

  async #next() {
    if (this.#running >= this.together) return;
    const job = this.#queue.shift();
    if (!job) return;
    if (!job.wanted()) { job.done(null); this.#next(); return; }
    this.#running += 1;
    try {
      const params = { device: job.device, metric: job.metric, from: job.end - job.span, to: job.end, step: stepWord(job.step), agg: "last" };
      const { rows } = await rowsOf(params);
      job.done(rows.map((row) => [row.time, row.value]));
    } catch {
      job.done(null);
    }
    this.#running -= 1;
    this.#next();
  }
}
