// Bounded series in memory, and their reduction to what a chart can show. Times in milliseconds.

/**
 * Numbers ordered by time in two typed arrays, at most `capacity` of them: beyond that the oldest goes. One value an instant, the
 * last one given wins, so that joining history and live twice changes nothing.
 */
export class Ring {
  #t; #v; #head = 0; #tail = 0;

  constructor(capacity = 36_000) {
    this.capacity = capacity;
    const room = Math.min(512, capacity * 2);
    this.#t = new Float64Array(room);
    this.#v = new Float64Array(room);
  }

  get length() { return this.#tail - this.#head; }
  get times() { return this.#t.subarray(this.#head, this.#tail); }
  get values() { return this.#v.subarray(this.#head, this.#tail); }
  get first() { return this.length ? this.#t[this.#head] : Infinity; }
  get last() { return this.length ? this.#t[this.#tail - 1] : -Infinity; }
  get lastValue() { return this.#v[this.#tail - 1]; }

  add(t, v) {
    if (this.length === 0 || t > this.last) {
      if (this.#tail === this.#t.length) this.#makeRoom();
      this.#t[this.#tail] = t;
      this.#v[this.#tail] = v;
      this.#tail += 1;
      if (this.length > this.capacity) this.#head += 1;
      return;
    }
    const at = this.#head + lowerBound(this.times, t);
    if (this.#t[at] === t) { this.#v[at] = v; return; }
    if (at === this.#head && this.length >= this.capacity) return;
    const end = this.last, endValue = this.lastValue;
    this.#t.copyWithin(at + 1, at, this.#tail - 1);
    this.#v.copyWithin(at + 1, at, this.#tail - 1);
    this.#t[at] = t;
    this.#v[at] = v;
    this.add(end, endValue);
  }

  clear() { this.#head = this.#tail = 0; }

  #makeRoom() {
    const grow = this.length * 2 > this.#t.length && this.#t.length < this.capacity * 2;
    const room = grow ? Math.min(this.capacity * 2, this.#t.length * 2) : this.#t.length;
    const t = grow ? new Float64Array(room) : this.#t, v = grow ? new Float64Array(room) : this.#v;
    t.set(this.times);
    v.set(this.values);
    this.#tail = this.length;
    this.#head = 0;
    this.#t = t;
    this.#v = v;
  }
}

/** Texts ordered by time, at most `capacity`: beyond that the oldest goes. */
export class Log {
  constructor(capacity = 500) {
    this.capacity = capacity;
    this.rows = [];
  }

  get length() { return this.rows.length; }
  get first() { return this.rows.length ? this.rows[0][0] : Infinity; }
  get last() { return this.rows.length ? this.rows[this.rows.length - 1][0] : -Infinity; }
  get times() { return this.rows.map(([t]) => t); }

  add(t, text) {
    let at = this.rows.length;
    while (at > 0 && this.rows[at - 1][0] > t) at -= 1;
    if (at > 0 && this.rows[at - 1][0] === t) { this.rows[at - 1][1] = text; return; }
    this.rows.splice(at, 0, [t, text]);
    if (this.rows.length > this.capacity) this.rows.shift();
  }

  clear() { this.rows.length = 0; }
}

/** Index of the first element of a sorted array that is at or above `x`. */
export function lowerBound(sorted, x) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

/** Columns for a chart: {t, mean, min, max, n}, plain arrays of one length; n readings each; band: whether min and max differ from mean. */
export const columns = () => ({ t: [], mean: [], min: [], max: [], n: [], band: false });

/** Appends the points of `times`/`values` from index `i` to `j` as they are. */
export function appendRaw(out, times, values, i, j) {
  for (; i < j; i += 1) {
    out.t.push(times[i]);
    out.mean.push(values[i]);
    out.min.push(values[i]);
    out.max.push(values[i]);
    out.n.push(1);
  }
}

/** Appends the points from `i` to `j` reduced to one column a `step` (aligned to its multiples): mean, min, max. */
export function appendReduced(out, times, values, i, j, step) {
  while (i < j) {
    const bucket = Math.floor(times[i] / step), end = (bucket + 1) * step;
    let n = 0, sum = 0, low = Infinity, high = -Infinity, last = 0;
    for (; i < j && times[i] < end; i += 1, n += 1) {
      const v = values[i];
      sum += v;
      if (v < low) low = v;
      if (v > high) high = v;
      last = times[i];
    }
    out.t.push(i === j ? last : Math.min(last, end - step / 2));
    out.mean.push(Number.isFinite(sum) ? sum / n : Math.max(low, Math.min(high, scaledMean(values, i - n, i))));
    out.min.push(low);
    out.max.push(high);
    out.n.push(n);
    if (high > low) out.band = true;
  }
}

/** The mean of numbers whose sum is beyond the greatest there is. */
function scaledMean(values, i, j) {
  let sum = 0;
  for (let k = i; k < j; k += 1) sum += values[k] / (j - i);
  return sum;
}

/** The usual distance of a column's times: their median, from at most 200 of them; 0 when there are fewer than three. */
export function usualStep(times, i = 0, j = times.length) {
  const n = j - i - 1;
  if (n < 2) return 0;
  const stride = Math.max(1, Math.floor(n / 200)), steps = [];
  for (let k = i; k < j - 1; k += stride) steps.push(times[k + 1] - times[k]);
  steps.sort((a, b) => a - b);
  return steps[steps.length >> 1];
}

/** Breaks the line where two neighbours stand further apart than `gap`: silence is not drawn as data. */
export function breakGaps(data, gap) {
  const { t, mean, min, max, n } = data;
  let breaks = 0;
  for (let i = 1; i < t.length; i += 1) if (t[i] - t[i - 1] > gap) breaks += 1;
  if (!breaks) return data;
  const out = columns();
  out.band = data.band;
  for (let i = 0; i < t.length; i += 1) {
    if (i && t[i] - t[i - 1] > gap) {
      out.t.push((t[i] + t[i - 1]) / 2);
      out.mean.push(null); out.min.push(null); out.max.push(null); out.n.push(0);
    }
    out.t.push(t[i]); out.mean.push(mean[i]); out.min.push(min[i]); out.max.push(max[i]); out.n.push(n[i]);
  }
  return out;
}
