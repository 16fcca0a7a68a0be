// Sparklines: the last five minutes of a number as a path, and where they come from.

import { Sparks } from "./history.js";
import { usualStep } from "./series.js";
import { SPARK, sparkOf } from "./store.js";

const sparks = new Sparks();

/**
 * Asks the history for a metric's sparkline once, and again after each break of the feed, which ends with another `opened`: what came late
 * stands in the store. `wanted()`: whether anybody still looks; `done()` when it is there.
 */
export function askSpark(device, metric, end, opened, wanted, done) {
  const spark = sparkOf(metric);
  if (spark.asked === opened) return;
  spark.asked = opened;
  sparks.ask(device.name, metric.name, { end: end + SPARK.step, ...SPARK }, wanted, (points) => {
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
  const least = Math.max(Math.abs(low), Math.abs(high)) * 0.002 || 1, room = Math.max(high - low, least), middle = (high + low) / 2;
  let d = "", before = -Infinity;
  for (let i = first; i < times.length; i += 1) {
    const x = Math.min(72, (times[i] - start) / SPARK.span * 72), y = 12 - (values[i] - middle) / room * 20;
    d += `${times[i] - before > gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    before = times[i];
  }
  return d;
}
