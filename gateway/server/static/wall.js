// The wall: a screen that nobody touches. What is wrong first, then large values, those in trouble before all others; where there are more
// than fit, the rest takes turns.

import { el, icon, setClass, setIcon, setName, setText, svg, cutName } from "./dom.js";
import { age, clock, count, isolated, unit } from "./format.js";
import { SPARK, sparkOf } from "./store.js";
import { askSpark, sparkPath } from "./spark.js";

const TURN_MS = 10_000, FEW = 3, MOST = 12, HAND_MS = 4000, LONG = 20;
const TROUBLE = { offline: 0, stale: 1, online: 2 };

export class Wall {
  #root; #store; #list; #tiles = []; #grid; #sum; #clock; #turns; #leave; #at = 0; #turned = 0; #hand = 0; #lock = null;

  /** `list.shown` gives what passes search and filter, in order; `leave()` ends it. */
  constructor(root, store, list, leave) {
    this.#root = root;
    this.#store = store;
    this.#list = list;
    this.#sum = el("p", { class: "sum" });
    this.#clock = el("time", { class: "clock" });
    this.#turns = el("span", { class: "turns" });
    this.#leave = el("button", { type: "button", class: "button", text: "Leave the wall (w)", on: { click: leave } });
    this.#grid = el("ul", { class: "tiles", "aria-label": "Values" });
    root.append(el("div", { class: "walltop" }, this.#sum, this.#turns, this.#leave, this.#clock), this.#grid);
    addEventListener("pointermove", () => this.#touched());
    addEventListener("pointerdown", () => this.#touched());
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  /** Shows or hides it; a shown one keeps the screen awake where the browser lets it. */
  set on(on) {
    this.#root.hidden = !on;
    document.body.classList.toggle("wall", on);
    this.#wake();
    if (on) { this.#turned = performance.now(); this.#touched(); this.render(); }
  }

  async #wake() {
    if (this.#root.hidden || document.hidden) {
      this.#lock?.release();
      this.#lock = null;
    } else if (!this.#lock) {
      try { this.#lock = await navigator.wakeLock?.request("screen"); } catch { /* not allowed here: the screen's own settings hold */ }
    }
  }

  /** Somebody is there after all: the way out is shown for a moment. */
  #touched() {
    if (this.#root.hidden) return;
    clearTimeout(this.#hand);
    this.#root.classList.add("hand");
    this.#hand = setTimeout(() => this.#root.classList.remove("hand"), HAND_MS);
  }

  render() {
    if (this.#root.hidden || !this.#store.loaded) return;
    const found = this.#list.shown, now = this.#store.now(), all = entriesOf(found), room = MOST;
    const { shown, turns, turn } = this.#choose(all, room);
    const counts = { online: 0, stale: 0, offline: 0 };
    for (const { device } of found) counts[device.state] += 1;
    setText(this.#sum, ["online", "stale", "offline"].filter((state) => counts[state] || state === "online").map((state) => `${count(counts[state])} ${state}`).join(", "));
    setText(this.#turns, turns > 1 ? `${turn + 1} of ${count(turns)}` : "");
    setText(this.#clock, clock(now));
    this.#grid.style.setProperty("--columns", columnsOf(shown.length));
    this.#grid.style.setProperty("--rows", Math.ceil(shown.length / columnsOf(shown.length)));
    while (this.#tiles.length > shown.length) this.#tiles.pop().node.remove();
    shown.forEach((entry, i) => this.#draw(this.#tiles[i] ??= this.#make(), entry, now, found.length <= FEW));
  }

  /** Those in trouble stay, half of the room at most; the others take turns in what is left. */
  #choose(all, room) {
    if (all.length <= room) return { shown: all, turns: 1, turn: 0 };
    const trouble = all.filter(({ device }) => device.state !== "online").slice(0, room / 2);
    const kept = new Set(trouble), others = all.filter((entry) => !kept.has(entry)), free = room - trouble.length;
    const turns = Math.ceil(others.length / free), now = performance.now();
    if (now - this.#turned > TURN_MS) { this.#turned = now; this.#at += 1; }
    const turn = this.#at % turns, from = Math.min(turn * free, others.length - free);
    return { shown: trouble.concat(others.slice(from, from + free)), turns, turn };
  }

  #make() {
    const tile = { icon: icon("online", "online"), name: cutName("n"), number: el("span", { dir: "auto" }), unit: el("small", { dir: "auto" }), said: el("span", { class: "said" }), path: svg("path"), entry: "" };
    tile.value = el("p", { class: "value" }, tile.number, " ", tile.unit);
    tile.spark = svg("svg", { class: "spark", viewBox: "0 0 72 24", preserveAspectRatio: "none", "aria-hidden": "true" }, tile.path);
    tile.node = this.#grid.appendChild(el("li", {}, el("div", { class: "what" }, tile.icon, tile.name), tile.value, tile.spark, tile.said));
    return tile;
  }

  #draw(tile, { device, metric, named }, now, several) {
    const { unsure } = device, known = metric?.value !== undefined, aged = known && (device.state !== "online" || unsure);
    setClass(tile.node, `tile is-${device.state}${unsure ? " unsure" : ""}${aged ? " aged" : ""}${known ? ` ${metric.kind}` : " none"}`);
    tile.node.dataset.device = device.name;
    setIcon(tile.icon, device.state);
    setName(tile.name, several && metric ? metric.label : device.title);
    const text = known ? metric.text : "no data";
    setText(tile.number, text);
    const code = known ? unit(metric.unit) : "", wide = text.length > LONG;
    setClass(tile.value, wide ? "value long" : "value");
    tile.value.style.setProperty("--n", Math.max(7, text.length + (code ? 0.6 + code.length * 0.42 : 0)));
    setText(tile.unit, code);
    const since = device.since ? ` since ${clock(device.since)}` : "", why = device.reason ? `: ${device.reason}` : "";
    const ago = device.lastSeen ? `, ${age(now - device.lastSeen)} ago` : "";
    const whose = several && metric ? isolated(device.title) : named ? metric.label : "", state = unsure ? `was ${device.state}` : device.state === "online" ? "" : `${device.state}${since}${why || ago}`;
    setText(tile.said, [whose, state].filter(Boolean).join(", ") || (metric?.label ?? ""));
    this.#spark(tile, device, metric, now);
  }

  #spark(tile, device, metric, now) {
    if (metric?.kind !== "number") { tile.path.setAttribute("d", ""); return; }
    const end = Math.floor((device.state === "online" ? now : Math.min(now, metric.time)) / SPARK.step) * SPARK.step;
    askSpark(device, metric, end, this.#store.opened, now, () => !this.#root.hidden, () => {});
    tile.path.setAttribute("d", sparkPath(sparkOf(metric), end, device, metric));
  }
}

/** What is shown of the devices, trouble first: all metrics of a few devices, of many the one that stands for each; of either those searched for. */
function entriesOf(found) {
  const sorted = [...found].sort((a, b) => TROUBLE[a.device.state] - TROUBLE[b.device.state]);
  if (found.length > FEW) return sorted.map(({ device, metrics }) => ({ device, metric: metrics?.[0] ?? device.primary, named: metrics !== null }));
  return sorted.flatMap(({ device, metrics }) => {
    const known = metrics ?? [...device.metrics.values()].filter((metric) => metric.value !== undefined);
    return known.length ? known.map((metric) => ({ device, metric })) : [{ device, metric: null }];
  });
}

/** As many columns as make large tiles of about the screen's own shape. */
function columnsOf(n) {
  if (innerWidth < innerHeight) return n > 6 ? 2 : 1;
  return n <= 1 ? 1 : n <= 4 ? 2 : n <= 9 ? 3 : 4;
}
