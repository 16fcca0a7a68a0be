// Words and figures: how values, counts, sizes, ages and times read on the page. Pure.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const byDigits = new Map();

function fixed(digits) {
  let format = byDigits.get(digits);
  if (!format) byDigits.set(digits, format = new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return format;
}

/** What the kinds of values are called. */
export const KINDS = { number: "a number", bool: "on or off", text: "a text" };

/** A count: 18,440. */
export const count = (n) => (Number.isFinite(n) ? plain.format(n) : "–");

/**
 * Digits after the point that a number needs: all of them when three do (eight below one), else, for what calculations leave behind
 * the point, about five figures.
 */
export function digitsOf(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(size) || Number.isInteger(value)) return 0;
  const most = size >= 1 ? 3 : 8;
  for (let digits = 1; digits <= most; digits += 1) if (Number(value.toFixed(digits)) === value) return digits;
  return size >= 1000 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : Math.min(8, 3 + Math.ceil(-Math.log10(size)));
}

/** The most digits after the point for numbers of a size: seven figures in all. */
export const digitsFor = (size) => (size < 1 ? 8 : Math.max(0, 6 - Math.floor(Math.log10(size))));

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A number times a power of ten: 2.6×10¹⁸. */
export const power = (mantissa, exponent) => `${mantissa}×10${[...String(exponent)].map((c) => RAISED[c]).join("")}`;

/** A value for people: numbers with a fixed number of digits so that they never jump, booleans as on and off. */
export function value(v, digits) {
  if (typeof v === "number") {
    const size = Math.abs(v);
    if (size >= 1e12 || (size !== 0 && size < 1e-6)) {
      const [mantissa, exponent] = v.toExponential(size < 1 ? 3 : 6).split("e");
      return power(size < 1 ? mantissa : Number(mantissa), Number(exponent));
    }
    const places = size === 0 ? (digits > 6 ? 0 : digits ?? 0) : Math.min(digits ?? digitsOf(v), digitsFor(size));
    return fixed(places).format(size < 0.5 * 10 ** -places ? 0 : v);
  }
  if (v === true) return "on";
  if (v === false) return "off";
  return shown(String(v));
}

// Controls that order, hide or join what stands around them, and other invisible ones; those that scripts and emoji need (ZWNJ, ZWJ, the tags of a flag) are none.
const CONTROLS = /[\u0080-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|(?<!\u{1f3f4}[\u{e0020}-\u{e007e}]*)[\u{e0001}-\u{e007f}]/gu;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** A text from outside as it is shown: its invisible controls can be seen, ‹U+202E›, and order nothing. */
export const shown = (text) => text.replace(CONTROLS, (c) => `‹U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);

/** Whether some of a text is written from right to left. */
export const isRightToLeft = (text) => RIGHT_TO_LEFT.test(text);

/** A text from outside within a sentence: one that is written from right to left keeps to itself. */
export const isolated = (text) => (isRightToLeft(text) ? `\u2068${text}\u2069` : text);

/** The least and the greatest of some data, with as many digits as the data shows (`digits`) or as they need themselves. */
export function extremes(low, high, digits) {
  const needed = Math.max(digits, digitsOf(low), digitsOf(high));
  return [value(low, needed), value(high, needed)];
}

/** A whole number beyond what a browser's numbers hold, from its digits. */
export const whole = (digits) => plain.format(BigInt(digits));

const UNITS = new Map(Object.entries({
  Cel: "°C", "[degF]": "°F", K: "K", "%RH": "% RH", m3: "m³", m2: "m²", "m3/h": "m³/h", "m3/s": "m³/s", "ug/m3": "µg/m³", "mg/m3": "mg/m³",
  deg: "°", "m/s2": "m/s²", "W/m2": "W/m²", Ohm: "Ω", "1": "", "/": "", "1/min": "/min", um: "µm", uA: "µA", us: "µs", "cd/m2": "cd/m²",
}));

/** A unit as people write it (UCUM and SenML codes are known). */
export const unit = (code) => (code ? UNITS.get(code) ?? isolated(shown(code)) : "");

/** A metric's key as a label: flow_temperature becomes Flow temperature; a very long one stays as it is. */
export function label(key) {
  if (key.length > 40) return key;
  const words = key.replace(/[_/]+/g, " ").trim() || key;
  return words[0].toUpperCase() + words.slice(1);
}

/** Bytes: 3.2 MB. */
export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  const names = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (n >= 1000 && step < names.length - 1) { n /= 1000; step += 1; }
  return `${step === 0 || n >= 100 ? plain.format(n) : fixed(1).format(n)} ${names[step]}`;
}

/** A span of time in milliseconds: 0.4 s, 12 s, 3 m 12 s, 2 h 5 m, 41 d. */
export function span(ms, tenths = false) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10 && tenths) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return two(Math.floor(s / 60), "m", Math.floor(s % 60), "s");
  if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "m");
  const days = Math.floor(s / 86400);
  return days < 3 ? two(days, "d", Math.floor((s % 86400) / 3600), "h") : `${plain.format(days)} d`;
}

const two = (a, big, b, small) => (b ? `${a} ${big} ${b} ${small}` : `${a} ${big}`);

/** How long ago, short: now, 4 s, 3 m, 2 h, 3 d. */
export function age(ms) {
  if (ms < 1000) return "now";
  if (ms < 60e3) return `${Math.floor(ms / 1000)} s`;
  if (ms < 5400e3) return `${Math.floor(ms / 60e3)} m`;
  return ms < 172800e3 ? `${Math.floor(ms / 3600e3)} h` : `${plain.format(Math.floor(ms / 86400e3))} d`;
}

const pad = (n) => String(n).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Local time of day, with seconds when asked, with the day when it is not today. */
export function clock(ms, { seconds = false, today = Date.now(), day = true } = {}) {
  const d = new Date(ms), n = new Date(today);
  const time = `${pad(d.getHours())}:${pad(d.getMinutes())}${seconds ? `:${pad(d.getSeconds())}` : ""}`;
  const same = d.getDate() === n.getDate() && d.getMonth() === n.getMonth() && d.getFullYear() === n.getFullYear();
  return same || !day ? time : `${d.getDate()} ${MONTHS[d.getMonth()]} ${time}`;
}

/** The label of a moment on a time axis whose labels stand `step` milliseconds apart. */
export function tick(ms, step) {
  const d = new Date(ms);
  if (step >= 86400e3 || (d.getHours() === 0 && d.getMinutes() === 0 && d.getSeconds() === 0)) return `${d.getDate()} ${MONTHS[d.getMonth()]}`;
  return `${pad(d.getHours())}:${pad(d.getMinutes())}${step < 60e3 ? `:${pad(d.getSeconds())}` : ""}`;
}

/** "1 reading", "3 readings". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
