// What the page knows: devices with their state and newest values, and series in bounded memory. Filled by the feed and by
// /api/v1/devices; knows nothing of the document.

import { Log, Ring } from "./series.js";
import { digitsFor, digitsOf, isolated, label, shown, value, whole } from "./format.js";

const SPARK_MS = 5 * 60_000, SPARK_STEP = 5_000;
const DIGITS = /^-?[1-9]\d{15,18}$/, SAFE = BigInt(Number.MAX_SAFE_INTEGER), MOST = 2n ** 63n;

/** Whether a text is what JSON has in place of an integer that is beyond a browser's numbers and within 64 bits. */
export function isLong(text) {
  if (!DIGITS.test(text)) return false;
  const n = BigInt(text);
  return n > 0n ? n > SAFE && n < MOST : n < -SAFE && n >= -MOST;
}

/** The newest value of one metric, and what is known about it. */
class Metric {
  #common; #own = 0; #size = 0;

  /** `common`: {digits}, shared by the metrics of one name and unit, so that all with decimals are shown with as many. */
  constructor(name, common) {
    this.name = name;
    this.label = label(name);
    this.unit = "";
    this.numeric = false; // whether it has had numbers, or was declared integer
    this.worded = false; // whether it has had texts that are no long integers
    this.time = 0;
    this.value = undefined;
    this.pace = 0;
    this.spark = null;
    this.#common = common;
  }

  get kind() { return kindOf(this.value, this.counts); }

  /** Whether what could be a long integer is one: so it is unless all that is known of the metric are words. */
  get counts() { return this.numeric || !this.worded; }

  /** Digits after the point: none while its own are whole numbers, else as many as those of its name needed so far, fewer when they are long. */
  get digits() { return this.#own && Math.min(this.#common.digits, digitsFor(this.#size)); }

  /** The value in words. */
  get text() {
    if (this.value === undefined) return "–";
    return typeof this.value === "string" && this.kind === "number" ? whole(this.value) : value(this.value, this.digits);
  }

  join(common) {
    this.#common = common;
    common.digits = Math.max(common.digits, this.#own);
  }

  /** Takes note of what a value of this metric is, and of how a number is written. */
  learn(value) {
    if (typeof value === "string") this.worded ||= !isLong(value);
    if (typeof value !== "number") return;
    this.numeric = true;
    const digits = digitsOf(value);
    if (digits <= this.#own) return;
    this.#own = digits;
    this.join(this.#common);
  }

  take(time, value) {
    if (time < this.time) return;
    if (this.time && time > this.time) this.pace = this.pace ? paced(this.pace, time - this.time) : time - this.time;
    this.time = time;
    this.value = value;
    this.learn(value);
    if (typeof value !== "number") return;
    this.#size = Math.max(Math.abs(value), this.#size * 0.99);
    if (this.spark) this.spark.add(Math.floor(time / SPARK_STEP) * SPARK_STEP, value);
  }
}

/** The usual distance of readings after one more of them: a silence counts little, a faster pace soon. */
const paced = (pace, distance) => (distance < pace ? (pace + distance) / 2 : pace + (Math.min(distance, pace * 2) - pace) / 8);

/** What all that is known of a metric's values of one kind is found by; names hold no blanks. */
export const keyOf = (metric, kind) => `${kind} ${metric}`;

/** number, bool or text; integers too large for a browser come as strings of digits and are numbers where these `counts`. */
export function kindOf(value, counts = true) {
  if (typeof value === "number") return "number";
  if (typeof value === "boolean") return "bool";
  return counts && isLong(value) ? "number" : "text";
}

class Device {
  #commonOf;

  constructor(name, commonOf) {
    this.#commonOf = commonOf;
    this.name = name;
    this.title = name;
    this.state = "online";
    this.since = 0;
    this.returned = 0; // since when it is no longer offline, if this page has seen that
    this.reason = "";
    this.confirmed = true;
    this.lastSeen = 0;
    this.interval = 0;
    this.ledger = null;
    this.clock = null; // {skew_ms, old, future}: the gateway's word on its times
    this.metrics = new Map();
    this.changes = [];
    this.past = []; // the states before these, as the gateway tells them: [{state, since, until, reason}, ...]
    this.#index();
  }

  #primary = null;

  /** The metric that stands for the device in the list: the first number, else the first of any kind; what was described goes first. */
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
      this.metrics.set(name, metric = new Metric(name, this.#commonOf(name, "")));
      this.#index();
    }
    return metric;
  }

  describe(row) {
    this.title = row.name ? shown(row.name) : this.name;
    this.interval = row.interval_s > 0 ? row.interval_s : 0;
    this.ledger = row.ledger ?? this.ledger;
    this.clock = row.clock ?? this.clock;
    const described = Object.entries(row.metrics ?? {});
    this.#inOrder(described.map(([name]) => name));
    for (const [name, known] of described) {
      const metric = this.metric(name);
      const unit = typeof known?.unit === "string" ? known.unit : "";
      if (unit !== metric.unit) {
        metric.unit = unit;
        metric.join(this.#commonOf(name, unit));
      }
      metric.numeric ||= known?.integer === true;
    }
    this.#index();
  }

  /** Puts the metrics named into this order, before all others. */
  #inOrder(names) {
    const before = [...this.metrics.keys()];
    if (names.every((name, i) => before[i] === name)) return;
    for (const name of names) this.metric(name);
    const told = new Set(names), others = [...this.metrics.keys()].filter((name) => !told.has(name));
    this.metrics = new Map([...names, ...others].map((name) => [name, this.metrics.get(name)]));
    this.#primary = null;
  }

  /** Takes {state, since, reason, last_seen, confirmed}; keeps the changes seen by this page, at most 200 (the oldest goes). */
  stand({ state, since = 0, reason = "", last_seen: seen = 0, confirmed = true }) {
    if (seen > this.lastSeen) this.lastSeen = seen;
    if (!state || since < this.since) return;
    reason = isolated(shown(reason));
    this.confirmed = confirmed;
    const before = this.changes.at(-1);
    if (before?.state === state && before.since === since) { before.reason = reason; } else {
      if (!before || since > before.since) this.changes.push({ state, since, reason });
      if (this.changes.length > 200) this.changes.shift();
    }
    if (this.state === "offline" && state !== "offline") this.returned = since;
    this.state = state;
    this.since = since;
    this.reason = reason;
  }

  /** Takes rows of /api/v1/presence. */
  remember(rows) {
    this.past = rows.map(({ state, since, until, reason }) => ({ state, since, until, reason: isolated(shown(reason ?? "")) }));
  }

  /** Whether its state is only what the gateway remembers from before it was away. */
  get unsure() { return !this.confirmed && this.state !== "offline"; }

  /** For how many milliseconds a reading is not old: three of its intervals. */
  get patience() { return Math.max(10_000, this.interval * 3000); }

  /** Whether it is online again and its next reading is still to come; `opened`: since when this page hears of it. */
  awaited(now, opened) {
    return this.state === "online" && this.confirmed && now - this.lastSeen > this.patience && now - Math.max(opened, this.since) < this.patience;
  }

  #index() {
    this.text = `${this.name}\n${this.title}`.toLowerCase();
    this.order = this.title.toLowerCase();
  }
}

/** All devices. `revision` grows with each change; `members` with each change of names, states or titles.
 * `loaded`: something has told which devices there are; `named`: with their titles; `opened`: when the feed was last opened. */
export class Store extends EventTarget {
  #common = new Map();

  constructor(now) {
    super();
    this.now = now;
    this.devices = new Map();
    this.revision = 0;
    this.members = 0;
    this.loaded = false;
    this.named = false;
    this.opened = 0;
    this.counts = { online: 0, stale: 0, offline: 0 };
  }

  get(name) { return this.devices.get(name); }

  #ensure(name) {
    let device = this.devices.get(name);
    if (!device) {
      this.devices.set(name, device = new Device(name, this.#commonOf));
      this.members += 1;
      this.dispatchEvent(new CustomEvent("appeared", { detail: name }));
    }
    return device;
  }

  #commonOf = (metric, unit) => {
    const key = `${metric} ${unit}`;
    let common = this.#common.get(key);
    if (!common) this.#common.set(key, common = { digits: 0 });
    return common;
  };

  snapshot(message) {
    for (const [name, known] of Object.entries(message.devices ?? {})) {
      const device = this.#ensure(name);
      this.#stand(device, known);
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
      const device = this.#ensure(name);
      this.#stand(device, { since: this.now(), ...known });
      if (known.state === "online" && !device.lastSeen) device.lastSeen = device.since;
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
      this.#stand(device, row);
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

  /** A change is told whoever brings it: the feed, or the list that is asked for meanwhile. A device's first state is none. */
  #stand(device, known) {
    const before = device.changes.length ? device.state : known.state;
    device.stand(known);
    if (before !== device.state) this.dispatchEvent(new CustomEvent("turned", { detail: device }));
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
    metric.spark.asked = metric.spark.failed = -1;
    if (typeof metric.value === "number") metric.spark.add(Math.floor(metric.time / SPARK_STEP) * SPARK_STEP, metric.value);
  }
  return metric.spark;
}

export const SPARK = { span: SPARK_MS, step: SPARK_STEP };

/**
 * One series of the chosen device: of each kind that its values have had a ring or a log of its own. `kind`: that of the newest.
 * Long integers that were taken for texts before their metric was known become numbers with it.
 */
export class Series {
  #of = new Map(); #newest = -Infinity;

  constructor(name) {
    this.name = name;
    this.kind = "";
    this.revision = 0;
  }

  /** What there is of a kind, or null. */
  of(kind) { return this.#of.get(kind) ?? null; }

  get length() { return [...this.#of.values()].reduce((sum, { length }) => sum + length, 0); }

  add(time, value, counts = true) {
    const kind = kindOf(value, counts);
    let data = this.#of.get(kind);
    if (!data) {
      this.#of.set(kind, data = kind === "text" ? new Log() : new Ring());
      if (kind === "number") this.#fromTexts(data);
    }
    data.add(time, kind === "text" ? value : Number(value));
    if (time >= this.#newest) { this.#newest = time; this.kind = kind; }
    this.revision += 1;
  }

  /** Its long integers are texts after all, and are to be had from the store. */
  reword() {
    this.#of.delete("number");
    this.revision += 1;
  }

  #fromTexts(numbers) {
    const texts = this.#of.get("text");
    if (!texts) return;
    const others = new Log();
    for (const [t, text] of texts.rows) if (isLong(text)) numbers.add(t, Number(text)); else others.add(t, text);
    if (others.length) this.#of.set("text", others); else this.#of.delete("text");
  }
}
