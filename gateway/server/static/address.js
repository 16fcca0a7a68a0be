// The page's state in its address: #device=pump-1&range=1h&state=stale&q=..., and the bare words dark and light.

export const RANGES = [["5m", "5 m", 300e3], ["1h", "1 h", 3600e3], ["24h", "24 h", 86400e3], ["7d", "7 d", 7 * 86400e3], ["30d", "30 d", 30 * 86400e3]];
export const SPANS = new Map(RANGES.map(([key, , ms]) => [key, ms]));
const THEMES = new Set(["dark", "light"]);
const STATES = new Set(["online", "stale", "offline"]);
const SORTS = new Set(["name", "state", "seen", "value"]);

/** Reads a hash. Unknown words and bad values are passed over. */
export function parse(hash) {
  const found = { device: "", range: "5m", from: 0, to: 0, view: "charts", q: "", state: "", sort: "name", theme: "" };
  for (const part of hash.replace(/^#/, "").split("&")) {
    if (THEMES.has(part)) found.theme = part;
  }
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  found.device = given.get("device") ?? "";
  found.q = given.get("q") ?? "";
  if (SPANS.has(given.get("range"))) found.range = given.get("range");
  if (STATES.has(given.get("state"))) found.state = given.get("state");
  if (SORTS.has(given.get("sort"))) found.sort = given.get("sort");
  if (given.get("view") === "table") found.view = "table";
  const from = Number(given.get("from")), to = Number(given.get("to"));
  if (Number.isFinite(from) && Number.isFinite(to) && from > 0 && to > from) { found.from = from; found.to = to; }
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
  const text = [state.theme, words.toString()].filter(Boolean).join("&");
  return text ? `#${text}` : "";
}
