// Sparklines: the last five minutes of a number as a path, and where they come from.

import { Sparks } from "./history.js";
import { usualStep } from "./series.js";
import { SPARK, sparkOf } from "./store.js";

const LATE_MS = 15_000; // until when devices have sent what they held, and the history has it
const AGAIN_MS = 10_000; // between two tries of one that failed
const sparks = new Sparks();

/**
 * Asks the history for a metric's sparkline once, and again after each break: the feed's, which ends with another `opened`, and the
 * device's own. What came late stands in the store, but not at once: when `now` is so soon after the break, it is asked once more later.
 * One that fails is tried again after a while, and after the next break. `wanted()`: whether anybody still looks; `done()` when it is there.
 */
export function askSpark(device, metric, end, opened, now, wanted, done) {
  const spark = sparkOf(metric), back = Math.max(opened, device.returned), asking = now - back < LATE_MS ? back : back + 0.5;
  if (spark.asked === asking || (spark.failed === asking && now - spark.failedAt < AGAIN_MS)) return;
  spark.asked = asking;
  sparks.ask(device.name, metric.name, { end: end + SPARK.step, ...SPARK }, wanted, (points) => {
    if (points === undefined) { spark.failed = asking; spark.failedAt = now; }
    if (!points) { spark.asked = -1; return; }
    for (const [time, v] of points) if (typeof v === "number" && (time < end || time < spark.first)) spark.add(time, v);
    done();
  });
}

/** How far apart the points of a sparkline may stand before the line breaks, as in the chart: three and a half intervals, and a little. */
function silence(spark, device, metric) {
  const pace = Math.max(metric.pace || usualStep(spark.times) * 0.6, device.interval * 1000);
  return Math.max(SPARK.step * 1.5, pace * 3.5);
}

/** The path of a metric's sparkline up to `end` in a box of 72 by 24, broken where nothing came. */
export function sparkPath(spark, end, device, metric) {
  const { times, values } = spark, start = end - SPARK.span, gap = silence(spark, device, metric);
  let low = Infinity, high = -Infinity, first = 0;
  while (first < times.length && times[first] < start) first += 1;
  for (let i = first; i < values.length; i += 1) { low = Math.min(low, values[i]); high = Math.max(high, values[i]); }
  if (times.length - first < 2) return "";
  // In halves: the distance of the greatest numbers is beyond them.
  const least = Math.max(Math.abs(low), Math.abs(high)) * 0.001 || 0.5, room = Math.max(high / 2 - low / 2, least), middle = high / 2 + low / 2;
  let d = "", before = -Infinity;
  for (let i = first; i < times.length; i += 1) {
    const x = Math.min(72, (times[i] - start) / SPARK.span * 72), y = 12 - (values[i] / 2 - middle / 2) / room * 20;
    d += `${times[i] - before > gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    before = times[i];
  }
  return d;
}
