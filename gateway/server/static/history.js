// What the store holds: /api/v1/history, reduced on the gateway when the range is long.

import { getJson } from "./api.js";
import { isLong, keyOf, kindOf } from "./store.js";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400].map((s) => s * 1000);
const COLUMNS = 720, RAW_SPAN = 310_000;
const RAW_ALL = 20_000; // readings of a short range that are loaded as they came; more are reduced
const RAW_MOST = 10_000, RAW_TOGETHER = 60_000; // readings of one boolean or text, and of all of a device, that are loaded as they came

/** The step for a span of time in milliseconds: 0 means raw readings, which a short range shows unless it is `busy`. */
export function stepFor(span, busy = false) {
  if (span <= RAW_SPAN && !busy) return 0;
  return STEPS.find((step) => span / step <= COLUMNS) ?? Math.ceil(span / COLUMNS / 86400e3) * 86400e3;
}

/** A step as the address takes it: 10s, 2m, 1h. */
export function stepWord(ms) {
  const s = ms / 1000;
  if (!Number.isInteger(s)) return `${ms}ms`;
  return s % 3600 === 0 ? `${s / 3600}h` : s % 60 === 0 ? `${s / 60}m` : `${s}s`;
}

async function rowsOf(params, signal) {
  const { body, truncated } = await getJson("api/v1/history", { params, signal, timeout: 30_000 });
  return { rows: Array.isArray(body) ? body : body.rows, truncated };
}

/**
 * A device's history between two instants: {step, busy, from, to, truncated, series, worded}; `busy`: see stepFor; `worded`: metrics whose long integers are texts. `series` maps a metric's kind (see keyOf) to columns {t, mean, min, max, n} of
 * numbers (one column a step; without a step `mean`, `min` and `max` are one array), or to {t, last, step, sampled} for booleans and
 * texts: every reading from `sampled` on (0: all of them), before it one value a step, at the step's end, where it is sure to hold.
 * Raises ApiError.
 */
export async function load(device, from, to, signal) {
  const params = { device, from: Math.floor(from), to: Math.ceil(to) };
  const busy = stepFor(to - from) === 0 && await countOf(params, signal) > RAW_ALL, step = stepFor(to - from, busy);
  if (step === 0) {
    const { rows, truncated } = await rowsOf(params, signal);
    return { step, busy, from, to, truncated, series: readings(rows), worded: [] };
  }
  const stepped = { ...params, step: stepWord(step) };
  const answers = await Promise.all(["mean", "min", "max", "last", "count"].map((agg) => rowsOf({ ...stepped, agg }, signal)));
  const [mean, min, max, last, counts] = answers.map((answer) => byMetric(answer.rows));
  const series = new Map(), words = [], worded = [...last.keys()].filter((metric) => !mean.has(metric));
  for (const [metric, rows] of last) {
    const kinds = byKind(rows, mean.has(metric));
    for (const [kind, own] of kinds) {
      if (kind !== "number") { words.push({ metric, kind, own }); continue; }
      // Where a metric's kind has changed, a step's mean may be of booleans as well: of those that end with a number, the first is left out.
      const pure = kinds.size > 1 ? pureTimes(rows, new Set(own)) : null;
      const means = mean.get(metric).filter(({ time }) => !pure || pure.has(time));
      series.set(keyOf(metric, kind), reduced(means, min.get(metric), max.get(metric), counts.get(metric)));
    }
  }
  const most = Math.min(RAW_MOST, Math.floor(RAW_TOGETHER / words.length));
  await inTurn(words, 2, async ({ metric, kind, own }) => {
    series.set(keyOf(metric, kind), await exact(params, metric, kind, own, counts.get(metric) ?? [], step, most, signal));
  });
  return { step, busy, from, to, truncated: answers.some((answer) => answer.truncated), series, worded };
}

async function countOf(params, signal) {
  const { rows } = await rowsOf({ ...params, step: "1d", agg: "count" }, signal);
  return rows.reduce((sum, row) => sum + row.value, 0);
}

function byMetric(rows) {
  const found = new Map();
  for (const row of rows) {
    const known = found.get(row.metric);
    if (known) known.push(row); else found.set(row.metric, [row]);
  }
  return found;
}

const isWord = ({ value }) => typeof value === "string" && !isLong(value);

function byKind(rows, counts) {
  const found = new Map();
  for (const row of rows) {
    const kind = kindOf(row.value, counts), known = found.get(kind);
    if (known) known.push(row); else found.set(kind, [row]);
  }
  return found;
}

/** The times of those rows of one kind, `own`, that no row of another kind stands right before. */
const pureTimes = (rows, own) => new Set(rows.filter((row, i) => own.has(row) && (i === 0 || own.has(rows[i - 1]))).map((row) => row.time));

/** Readings as they came, one series a metric and kind of its values. */
function readings(rows) {
  const series = new Map();
  for (const [metric, all] of byMetric(rows)) {
    for (const [kind, own] of byKind(all, all.some(({ value }) => typeof value === "number") || !all.some(isWord))) {
      const t = own.map((row) => row.time), values = own.map((row) => (kind === "number" ? Number(row.value) : row.value));
      series.set(keyOf(metric, kind), kind === "number" ? { t, mean: values, min: values, max: values, n: own.map(() => 1) } : { t, last: values, step: 0, sampled: 0 });
    }
  }
  return series;
}

/** Columns from the rows of the aggregates; extremes beyond a browser's numbers come as digits. */
function reduced(means, mins = [], maxs = [], counts = []) {
  const index = new Map(means.map((row, i) => [row.time, i]));
  const out = { t: means.map((row) => row.time), mean: means.map((row) => row.value), min: means.map((row) => row.value), max: means.map((row) => row.value), n: means.map(() => 1) };
  for (const [rows, column] of [[mins, out.min], [maxs, out.max], [counts, out.n]]) {
    for (const { time, value } of rows) {
      const i = index.get(time);
      if (i !== undefined) column[i] = Number(value);
    }
  }
  return out;
}

/** A boolean's or a text's readings: the newest `most` of them as they came, what is before by its steps. */
async function exact({ device, from, to }, metric, kind, last, counts, step, most, signal) {
  let since = Infinity, n = 0;
  for (let i = counts.length - 1; i >= 0 && n + counts[i].value <= most; i -= 1) {
    n += counts[i].value;
    since = counts[i].time;
  }
  const all = counts.length > 0 && since <= counts[0].time;
  const sampled = all ? [] : last.filter((row) => row.time < since).map((row) => ({ time: Math.min(row.time + step, to), value: row.value }));
  const raw = since < Infinity ? (await rowsOf({ device, metric, from: Math.max(from, since), to }, signal)).rows : [];
  const kept = sampled.concat(raw).filter((row) => kindOf(row.value, false) === kind);
  return { t: kept.map((row) => row.time), last: kept.map((row) => row.value), step: all ? 0 : step, sampled: all ? 0 : Math.min(since, to) };
}

/** Runs `work` for each item, at most `together` at once. */
async function inTurn(items, together, work) {
  const left = items.values();
  await Promise.all(Array.from({ length: together }, async () => { for (const item of left) await work(item); }));
}

/** One metric's readings for a sparkline: [[time, value], ...]; at most `together` requests run at once, the queue is bounded by the number of series. */
export class Sparks {
  #queue = []; #running = 0;

  constructor(together = 2) { this.together = together; }

  /** Asks for the `span` milliseconds before `end`. `wanted()` is asked again before the request leaves: when false, `done` gets null; when it fails, undefined. */
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
      job.done(undefined);
    }
    this.#running -= 1;
    this.#next();
  }
}
