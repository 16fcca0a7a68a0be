// The lines of a chart and their words: three round values from bottom to top, three to five moments along the time. Pure.

import { digitsOf, power, tick, value } from "./format.js";

const ROUND = [1, 2, 2.5, 3, 4, 5]; // threes and fours only from or to zero
const tidy = (x) => Number(x.toPrecision(12));
const leastSpan = (min, max) => Math.max(Math.abs(min), Math.abs(max)) * (min === max ? 0.01 : 0.002) || 1;

const LARGE = 1e300, SHRUNK = 12;

/** By how many powers of ten numbers from `min` to `max` are made smaller to be drawn: those whose distance could be beyond the greatest number. */
export const shrinkFor = (min, max) => (Math.max(Math.abs(min), Math.abs(max)) > LARGE ? SHRUNK : 0);

/** A number that much smaller. */
export const shrunk = (v, powers) => (powers && v !== null ? v / 10 ** powers : v);

/** A calm scale of three lines [low, middle, high] around min and max (below 1e300, see shrinkFor): round numbers at round distances, kept while it still fits; null around nothing. */
export function calmScale(min, max, before = null) {
  if (!(min <= max)) return null;
  const span = Math.max(max - min, leastSpan(min, max));
  if (before) {
    const [low, , high] = before;
    if (min >= low && max <= high && span >= (high - low) * 0.25) return before;
  }
  const middle = min / 2 + max / 2;
  for (let power10 = Math.floor(Math.log10(span / 2)); ; power10 += 1) {
    for (const mantissa of ROUND) {
      const step = mantissa * 10 ** power10;
      if (step < span * 0.499999) continue;
      for (const grain of mantissa === 2 ? [step, step / 2] : [step]) {
        const near = Math.round((middle - step) / grain) * grain;
        for (const from of [near, near - grain, near + grain]) {
          const lines = [from, from + step, from + 2 * step].map(tidy);
          if (lines[0] <= min && lines[2] >= max && ((mantissa !== 3 && mantissa !== 4) || lines.includes(0))) return lines;
        }
      }
    }
  }
}

/** The words of a scale's lines: as many digits as tell them apart; very large and very small ones as multiples of one power of ten; the lines are `powers` of ten too small. */
export function axisWords(lines, powers = 0) {
  const size = Math.max(...lines.map(Math.abs));
  if (size >= 1e6 || (size > 0 && size < 1e-3)) {
    const exponent = Math.floor(Math.log10(size) / 3) * 3;
    return lines.map((v) => (v === 0 ? "0" : power(tidy(Number(`${v}e${-exponent}`) || v / 10 ** exponent), exponent + powers)));
  }
  const digits = Math.max(...lines.map(digitsOf));
  return lines.map((v) => value(v, digits));
}

const S = 1000, M = 60 * S, H = 60 * M, D = 24 * H;
const STEPS = [1, 2, 5, 10, 15, 30].map((n) => n * S).concat([1, 2, 5, 10, 15, 30].map((n) => n * M), [1, 2, 3, 4, 6, 8, 12].map((n) => n * H), [1, 2, 3, 5, 7, 10, 15, 30, 60, 90, 180, 365].map((n) => n * D));

const roomFor = (step) => (step < M ? 4.3 : step < D ? 3 : 3.5);

/** The moments to name on a time axis of `width` pixels: at most five, as many as have room, at round local times. Returns {at, words}. */
export function timeLines(from, to, width, rem) {
  const fits = (step) => (to - from) / step <= Math.max(2, Math.min(5, Math.floor(width / rem / roomFor(step)))) + 0.02;
  const step = STEPS.find(fits) ?? STEPS.at(-1);
  const at = step < H ? within(from, to, step, new Date(from).setHours(0, 0, 0, 0)) : byDays(from, to, step);
  return { at, words: at.map((t) => tick(t, step)) };
}

function within(from, to, step, base) {
  const at = [];
  for (let t = base + Math.ceil((from - base) / step) * step; t <= to; t += step) at.push(t);
  return at;
}

/** Days begin at local midnight, also where a day has 23 or 25 hours. */
function byDays(from, to, step) {
  const at = [], day = new Date(from), days = Math.max(1, Math.round(step / D));
  for (day.setHours(0, 0, 0, 0); day.getTime() <= to; day.setDate(day.getDate() + 1)) {
    const number = Math.round((day.getTime() - day.getTimezoneOffset() * M) / D);
    if (number % days) continue;
    for (let into = 0; into < D; into += Math.min(step, D)) {
      const t = new Date(day).setHours(0, 0, 0, into);
      if (t >= from && t <= to && t !== at.at(-1)) at.push(t);
    }
  }
  return at;
}
