// What the page knows: devices with their state and newest values, and series in bounded memory. Filled by the feed and by
// /api/v1/devices; knows nothing of the document.

import { Log, Ring } from "./series.js";
import { digitsOf, label } from "./format.js";

const SPARK_MS = 5 * 60_000, SPARK_STEP = 5_000;
const DIGITS = /^-?\d{16,}$/;

/** The newest value of one metric, and what is known about it. */
class Metric {
  constructor(name) {
    this.name = name;
    this.label = label(name);
    this.unit = "";
    this.integer = false;
    this.time = 0;
    this.value = undefined;
    this.digits = 0;
    this.spark = null;
  }

  get kind() { return kindOf(this.value, this.integer); }

  take(time, value) {
    if (time < this.time) return;
    this.time = time;
    this.value = value;
    if (typeof value !== "number") return;
    this.digits = calmDigits(this.digits, value);
    if (this.spark) this.spark.add(Math.floor(time / SPARK_STEP) * SPARK_STEP, value);
  }
}

/** Digits after the point for a series: as many as its values needed, fewer when the numbers are long. */
export function calmDigits(before, value) {
  const size = Math.abs(value), most = size >= 10_000 ? 0 : size >= 1000 ? 1 : size >= 100 ? 2 : 8;
  return Math.min(most, Math.max(before, digitsOf(value)));
}

/** number, bool or text; integers too large for a browser come as strings of digits and count as numbers. */
export function kindOf(value, integer = false) {
  if (typeof value === "number") return "number";
  if (typeof value === "boolean") return "bool";
  return integer && DIGITS.test(value) ? "number" : "text";
}

class Device {
  constructor(name) {
    this.name = name;
    this.title = name;
    this.state = "online";
    this.since = 0;
    this.reason = "";
    this.confirmed = true;
    this.lastSeen = 0;
    this.interval = 0;
    this.ledger = null;
    this.metrics = new Map();
    this.changes = [];
    this.#index();
  }

  #primary = null;

  /** The metric that stands for the device in the list: the first number, else the first of any kind. */
  get primary() {
    if (this.#primary?.kind === "number") return this.#primary;
    let first = null;
    for (const metric of this.metrics.values()) {
      if (metric.value === undefined) continue;
      if (metric.kind === "number") { first = metric; break; }
      first ??= metric;
    }
    return this.#primary = first;
  }

  metric(name) {
    let metric = this.metrics.get(name);
    if (!metric) {
      this.metrics.set(name, metric = new Metric(name));
      this.#index();
    }
    return metric;
  }

  describe(row) {
    this.title = row.name || this.name;
    this.interval = row.interval_s > 0 ? row.interval_s : 0;
    this.ledger = row.ledger ?? this.ledger;
    for (const [name, known] of Object.entries(row.metrics ?? {})) {
      const metric = this.metric(name);
      metric.unit = typeof known?.unit === "string" ? known.unit : "";
      metric.integer = known?.integer === true;
    }
    this.#index();
  }

  /** Takes {state, since, reason, last_seen, confirmed}; keeps the changes seen by this page, at most 200 (the oldest goes). */
  stand({ state, since = 0, reason = "", last_seen: seen = 0, confirmed = true }) {
    if (seen > this.lastSeen) this.lastSeen = seen;
    if (!state || since < this.since) return;
    this.confirmed = confirmed;
    const before = this.changes.at(-1);
    if (before?.state === state && before.since === since) { before.reason = reason; } else {
      if (!before || since > before.since) this.changes.push({ state, since, reason });
      if (this.changes.length > 200) this.changes.shift();
    }
    this.state = state;
    this.since = since;
    this.reason = reason;
  }

  #index() {
    this.text = `${this.name}\n${this.title}`.toLowerCase();
    this.order = this.title.toLowerCase();
  }
}

/** All devices. `revision` grows with each change; `members` with each change of names, states or titles.
 * `loaded`: something has told which devices there are; `named`: with their titles. */
export class Store extends EventTarget {
  constructor(now) {
    super();
    this.now = now;
    this.devices = new Map();
    this.revision = 0;
    this.members = 0;
    this.loaded = false;
    this.named = false;
    this.counts = { online: 0, stale: 0, offline: 0 };
  }

  get(name) { return this.devices.get(name); }

  #ensure(name) {
    let device = this.devices.get(name);
    if (!device) {
      this.devices.set(name, device = new Device(name));
      this.members += 1;
      this.dispatchEvent(new CustomEvent("appeared", { detail: name }));
    }
    return device;
  }

  snapshot(message) {
    for (const [name, known] of Object.entries(message.devices ?? {})) {
      const device = this.#ensure(name);
      device.stand(known);
      for (const [metric, [time, value]] of Object.entries(known.values ?? {})) device.metric(metric).take(time, value);
    }
    this.loaded = true;
    this.#changed(true);
  }

  update(message) {
    const now = this.now();
    for (const [name, metrics] of Object.entries(message.data ?? {})) {
      const device = this.#ensure(name);
      device.lastSeen = now;
      for (const [metric, points] of Object.entries(metrics)) {
        const known = device.metric(metric);
        for (const [time, value] of points) known.take(time, value);
      }
    }
    this.#changed(false);
  }

  presence(message) {
    for (const [name, known] of Object.entries(message.devices ?? {})) {
      const device = this.#ensure(name), before = device.state;
      device.stand({ since: this.now(), ...known });
      if (known.state === "online" && !device.lastSeen) device.lastSeen = device.since;
      if (before !== known.state) this.dispatchEvent(new CustomEvent("turned", { detail: device }));
    }
    this.#changed(true);
  }

  /** Rows of /api/v1/devices. When they are `all` of them, a device that is not among them has been forgotten. */
  rows(rows, all = true) {
    const named = new Set();
    for (const row of rows) {
      named.add(row.device);
      const device = this.#ensure(row.device);
      device.describe(row);
      device.stand(row);
    }
    if (all) {
      const recent = this.now() - 10_000;
      for (const device of this.devices.values()) {
        if (!named.has(device.name) && device.lastSeen < recent) this.devices.delete(device.name);
      }
      this.loaded = this.named = true;
    }
    this.#changed(true);
  }

  #changed(members) {
    this.revision += 1;
    if (!members) return;
    this.members += 1;
    const counts = { online: 0, stale: 0, offline: 0 };
    for (const device of this.devices.values()) counts[device.state] = (counts[device.state] ?? 0) + 1;
    this.counts = counts;
  }
}

/** Starts a metric's sparkline: the last five minutes, one point each five seconds. Returns its ring. */
export function sparkOf(metric) {
  if (!metric.spark) {
    metric.spark = new Ring(SPARK_MS / SPARK_STEP + 4);
    metric.spark.asked = false;
    if (typeof metric.value === "number") metric.spark.add(Math.floor(metric.time / SPARK_STEP) * SPARK_STEP, metric.value);
  }
  return metric.spark;
}

export const SPARK = { span: SPARK_MS, step: SPARK_STEP };

/** One series of the chosen device, of the kind of its values; a value of another kind starts it anew. */
export class Series {
  constructor(name) {
    this.name = name;
    this.kind = "";
    this.data = null;
    this.revision = 0;
    this.digits = 0;
  }

  add(time, value, integer = false) {
    const kind = this.kind === "number" && DIGITS.test(value) ? "number" : kindOf(value, integer);
    if (kind !== this.kind) {
      this.kind = kind;
      this.data = kind === "text" ? new Log() : new Ring();
    }
    if (kind === "number") {
      const number = Number(value);
      this.digits = calmDigits(this.digits, number);
      this.data.add(time, number);
    } else {
      this.data.add(time, kind === "bool" ? Number(value) : value);
    }
    this.revision += 1;
  }
}
