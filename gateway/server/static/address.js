// The page's state in its address: #device=pump-1&range=1h&state=stale&q=..., and the bare words dark, light and wall.

const UNITS = { m: 60e3, h: 3600e3, d: 86400e3 };
const USUAL = ["1m", "5m", "1h", "24h", "7d"], LONGEST = 366 * UNITS.d;
const LAST = 9.2e12, WIDEST = 10 * LONGEST; // to the year 2261, which is where the gateway's times end
const DEVICE = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/;
const THEMES = new Set(["dark", "light"]);
const STATES = new Set(["online", "stale", "offline"]);
const SORTS = new Set(["name", "state", "seen", "value"]);

/** The milliseconds of a range such as 5m, 24h, 30d; 0 when it is none. */
export function spanOf(range) {
  const [, n, unit] = /^(\d{1,5})([mhd])$/.exec(range ?? "") ?? [];
  const ms = unit ? n * UNITS[unit] : 0;
  return ms <= LONGEST ? ms : 0;
}

/** The ranges to choose from, shortest first, the last one the whole of what is kept for `days`. */
export function rangesFor(days) {
  const all = `${Math.max(1, Math.floor(Math.min(days, LONGEST / UNITS.d)))}d`;
  return [...USUAL.filter((range) => spanOf(range) < spanOf(all)), all];
}

/** A range as it is written on its button: 24 h. */
export const rangeWord = (range) => range.replace(/(\d)([mhd])/, "$1 $2");

/** Whether a device can have this name (section 2 of the contract). */
export const isName = (name) => DEVICE.test(name);

/** A window {from, to} within what can be asked for and drawn: as it is, or moved and made shorter. */
export function bounded({ from, to }) {
  const length = Math.min(Math.max(1, to - from), WIDEST), end = Math.min(Math.max(to, length + 1), LAST);
  return { from: end - length, to: end };
}

/** Reads a hash. Unknown words and bad values are passed over. */
export function parse(hash) {
  const found = { device: "", range: "5m", from: 0, to: 0, view: "charts", q: "", state: "", sort: "name", theme: "", wall: false };
  for (const part of hash.replace(/^#/, "").split("&")) {
    if (THEMES.has(part)) found.theme = part;
    if (part === "wall") found.wall = true;
  }
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  found.device = given.get("device") ?? "";
  found.q = given.get("q") ?? "";
  if (spanOf(given.get("range"))) found.range = given.get("range");
  if (STATES.has(given.get("state"))) found.state = given.get("state");
  if (SORTS.has(given.get("sort"))) found.sort = given.get("sort");
  if (given.get("view") === "table") found.view = "table";
  const from = Number(given.get("from")), to = Number(given.get("to"));
  if (from > 0 && to > from && to <= LAST && to - from <= WIDEST) { found.from = from; found.to = to; }
  return found;
}

/** Writes a hash: what differs from the usual, so that addresses stay short. */
export function format(state) {
  const words = new URLSearchParams();
  if (state.device) words.set("device", state.device);
  if (state.range !== "5m") words.set("range", state.range);
  if (state.from) { words.set("from", Math.round(state.from)); words.set("to", Math.round(state.to)); }
  if (state.view !== "charts") words.set("view", state.view);
  if (state.q) words.set("q", state.q);
  if (state.state) words.set("state", state.state);
  if (state.sort !== "name") words.set("sort", state.sort);
  const text = [state.wall ? "wall" : "", state.theme, words.toString()].filter(Boolean).join("&");
  return text ? `#${text}` : "";
}
