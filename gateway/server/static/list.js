// The device list: search, filters, order, and rows of which only the visible ones exist, so that thousands scroll smoothly.

import { cutName, el, icon, setClass, setIcon, setName, setText, svg } from "./dom.js";
import { age, count, isolated, shown, unit } from "./format.js";
import { askSpark, sparkPath } from "./spark.js";
import { SPARK, sparkOf } from "./store.js";

const SPARE = 10, RESORT_MS = 3000;
const TROUBLE = { offline: 0, stale: 1, online: 2 };
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const WORDS = { "": "All", online: "Online", stale: "Stale", offline: "Offline" };

const ORDERS = {
  name: ({ device: a }, { device: b }) => collator.compare(a.order, b.order) || collator.compare(a.name, b.name),
  state: (a, b) => TROUBLE[a.device.state] - TROUBLE[b.device.state] || b.device.since - a.device.since || ORDERS.name(a, b),
  seen: (a, b) => b.device.lastSeen - a.device.lastSeen || ORDERS.name(a, b),
  value: (a, b) => numberOf(b) - numberOf(a) || ORDERS.name(a, b),
};

/** How well a metric answers to the words searched for: 0 whole, 1 at its beginning, 2 somewhere. */
const fit = ({ name, label }, words) => Math.min(...[name, label].map((text) => text.toLowerCase()).map((text) => (text === words ? 0 : text.startsWith(words) ? 1 : 2)));

const numberOf = ({ device, metrics }) => { const v = (metrics?.[0] ?? device.primary)?.value; return typeof v === "number" ? v : -Infinity; };

/** For how long a state lasts, which is what rows of one state are ordered by. */
const lasting = (ms) => (ms < 1000 ? "just now" : `for ${age(ms)}`);

export class DeviceList {
  #store; #pick; #state; #root; #input; #sort; #chips = new Map(); #rows; #tall; #none; #pool = []; #shown = [];
  #members = -1; #sorted = 0; #height = 0; #frame = 0; #narrow = matchMedia("(max-width: 860px)");

  /** `state`: {q, state, sort, device}, changed through `change(part)`; `pick(name)` chooses a device. */
  constructor(root, store, state, { pick, change }) {
    this.#root = root;
    this.#store = store;
    this.#state = state;
    this.#pick = pick;
    this.#build(change);
  }

  #build(change) {
    this.#input = el("input", {
      type: "search", placeholder: "Find device or metric", "aria-label": "Find a device or metric", autocomplete: "off", spellcheck: "false", maxlength: "100",
      on: { input: () => { change({ q: this.#input.value }); this.refresh(); }, keydown: (event) => this.#inSearch(event, change) },
    });
    this.#input.value = this.#state.q;
    this.#sort = el("select", { "aria-label": "Order", title: "Order", on: { change: () => { change({ sort: this.#sort.value }); this.refresh(); } } },
      ...[["name", "Name"], ["state", "State"], ["seen", "Last seen"], ["value", "Value"]].map(([key, word]) => el("option", { value: key, text: word })));
    this.#sort.value = this.#state.sort;
    const chips = el("div", { class: "chips", role: "group", "aria-label": "Show" });
    for (const key of Object.keys(WORDS)) {
      const chip = el("button", { type: "button", on: { click: () => { change({ state: this.#state.state === key ? "" : key }); this.refresh(); } } });
      this.#chips.set(key, chip);
      chips.append(chip);
    }
    this.#tall = el("div", { class: "tall", "aria-hidden": "true" });
    this.#rows = el("div", { class: "rows", role: "listbox", tabindex: "0", "aria-label": "Devices", on: { scroll: () => this.#soon(), keydown: (event) => this.#onKey(event) } }, this.#tall);
    this.#none = el("p", { class: "none-found", hidden: true });
    this.#root.append(el("div", { class: "find" }, el("div", { class: "field" }, this.#input, el("kbd", { text: "/", "aria-hidden": "true" })), this.#sort), chips, this.#none, this.#rows);
    new ResizeObserver(() => { this.#height = 0; this.#soon(); }).observe(this.#rows);
    this.#narrow.addEventListener("change", () => { this.#height = 0; this.#soon(); });
  }

  focusSearch() {
    this.#input.focus();
    this.#input.select();
  }

  /** Chooses the neighbour of the chosen device: +1 the next one down, -1 the one above. */
  step(by) {
    if (!this.#shown.length) return;
    const at = this.#shown.findIndex((entry) => entry.device.name === this.#state.device);
    const to = at < 0 ? (by > 0 ? 0 : this.#shown.length - 1) : Math.max(0, Math.min(this.#shown.length - 1, at + by));
    this.#pick(this.#shown[to].device.name);
    this.reveal();
  }

  /** What passes search and filter, in the present order: {device, metrics}; `metrics`: those that were searched for, null where the device was. */
  get shown() {
    this.#arrange(false);
    return this.#shown;
  }

  /** The first device in the present order. */
  get firstName() { this.#arrange(false); return this.#shown[0]?.device.name ?? ""; }

  /** Scrolls so that the chosen device is seen. */
  reveal() {
    const at = this.#shown.findIndex((entry) => entry.device.name === this.#state.device);
    if (at < 0 || !this.#height) return;
    const top = at * this.#height, box = this.#rows;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + this.#height > box.scrollTop + box.clientHeight) box.scrollTop = top + this.#height - box.clientHeight;
    this.#soon();
  }

  /** After a change of search, filter or order. */
  refresh() {
    this.#members = -1;
    this.#rows.scrollTop = 0;
    // The address may have changed them.
    if (this.#input.value !== this.#state.q) this.#input.value = this.#state.q;
    this.#sort.value = this.#state.sort;
    this.render();
  }

  #inSearch(event, change) {
    if (event.key === "Escape") {
      if (this.#input.value) { this.#input.value = ""; change({ q: "" }); this.refresh(); } else this.#input.blur();
    } else if (event.key === "Enter" && this.#shown.length) {
      this.#pick(this.#shown[0].device.name);
      this.#rows.focus();
    } else if (event.key === "ArrowDown") this.step(1);
    else if (event.key === "ArrowUp") this.step(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #onKey(event) {
    const page = Math.max(1, Math.floor(this.#rows.clientHeight / (this.#height || 1)) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.#shown.length, End: this.#shown.length }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.step(by);
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.render(); });
  }

  /** Filters and sorts when something that decides it has changed; in moving orders each three seconds. */
  #arrange(force) {
    const { sort, q, state } = this.#state, now = performance.now();
    const moving = sort !== "name" && now - this.#sorted > RESORT_MS;
    if (!force && this.#members === this.#store.members && !moving) return;
    this.#members = this.#store.members;
    this.#sorted = now;
    const words = q.trim().toLowerCase(), shown = [];
    for (const device of this.#store.devices.values()) {
      if (state && device.state !== state) continue;
      let metrics = null;
      if (words && !device.text.includes(words)) {
        metrics = [...device.metrics.values()].filter(({ value, name, label }) => value !== undefined && (name.toLowerCase().includes(words) || label.toLowerCase().includes(words)));
        if (!metrics.length) continue;
        metrics.sort((a, b) => fit(a, words) - fit(b, words));
      }
      shown.push({ device, metrics });
    }
    this.#shown = shown.sort(ORDERS[sort]);
  }

  render() {
    this.#arrange(false);
    this.#drawChips();
    const n = this.#shown.length;
    this.#none.hidden = n > 0 || !this.#store.loaded;
    if (!this.#none.hidden) setText(this.#none, this.#state.q ? `Nothing here is called “${isolated(shown(this.#state.q))}”.` : `No device is ${this.#state.state || "here"}.`);
    this.#rows.hidden = n === 0;
    if (n === 0) return;
    if (!this.#height) this.#height = this.#measure();
    const height = this.#height, box = this.#rows;
    this.#tall.style.height = `${n * height}px`;
    box.style.height = this.#narrow.matches ? `${Math.min(n, 6) * height}px` : "";
    const from = Math.max(0, Math.floor(box.scrollTop / height) - SPARE);
    const to = Math.min(n, Math.ceil((box.scrollTop + box.clientHeight) / height) + SPARE);
    const now = this.#store.now();
    for (let i = 0; i < Math.max(this.#pool.length, to - from); i += 1) {
      const row = this.#pool[i] ??= this.#makeRow(i);
      if (from + i >= to) { row.node.hidden = true; row.entry = null; continue; }
      row.node.hidden = false;
      this.#drawRow(row, this.#shown[from + i], from + i, n, now);
    }
  }

  #measure() {
    const row = this.#pool[0] ??= this.#makeRow(0);
    row.node.hidden = false;
    return row.node.getBoundingClientRect().height || 54;
  }

  #drawChips() {
    const { counts } = this.#store;
    for (const [key, chip] of this.#chips) {
      setText(chip, `${WORDS[key]} ${count(key ? counts[key] : this.#store.devices.size)}`);
      chip.setAttribute("aria-pressed", String(this.#state.state === key));
    }
  }

  #makeRow(i) {
    const row = {
      icon: icon("online", "online"), name: cutName("n"), id: cutName("id"), state: el("span", { class: "st" }), seen: el("span", { class: "t" }), path: svg("path"),
      number: el("span", { class: "num", dir: "auto" }), unit: el("small", { dir: "auto" }), metric: el("span", { class: "m", hidden: true }), value: null, node: null, entry: null, drawn: "", named: "",
    };
    row.value = el("div", { class: "v" }, row.number, " ", row.unit, row.metric);
    row.spark = svg("svg", { class: "spark", viewBox: "0 0 72 24", preserveAspectRatio: "none", "aria-hidden": "true" }, row.path);
    row.node = el("div", { class: "row", role: "option", id: `row-${i}`, on: { click: () => { if (row.entry) this.#pick(row.entry.device.name); } } },
      row.icon, el("div", { class: "who" }, row.name, el("div", { class: "s" }, row.id, row.state, row.seen)), row.spark, row.value);
    this.#rows.append(row.node);
    return row;
  }

  #drawRow(row, entry, index, n, now) {
    const { device, metrics } = entry, metric = metrics?.[0] ?? device.primary, chosen = device.name === this.#state.device;
    if (row.entry?.device !== device) { row.drawn = ""; row.node.dataset.device = device.name; }
    row.entry = entry;
    row.node.style.transform = `translateY(${index * this.#height}px)`;
    row.node.setAttribute("aria-posinset", index + 1);
    row.node.setAttribute("aria-setsize", n);
    row.node.setAttribute("aria-selected", String(chosen));
    if (chosen) this.#rows.setAttribute("aria-activedescendant", row.node.id);
    const { unsure } = device;
    setClass(row.node, `row is-${device.state}${unsure ? " unsure" : ""}${chosen ? " sel" : ""}`);
    setIcon(row.icon, device.state);
    setName(row.name, device.title);
    row.id.hidden = device.title === device.name;
    setName(row.id, device.name);
    setText(row.state, unsure ? `was ${device.state}` : device.state === "online" ? "" : device.state);
    setClass(row.state, `st ${unsure ? "" : device.state}`);
    if (this.#state.sort === "state" && device.since) setText(row.seen, lasting(now - device.since));
    else setText(row.seen, device.awaited(now, this.#store.opened) ? "waiting" : device.lastSeen ? age(now - device.lastSeen) : "not seen yet");
    if (row.named !== device.text) {
      row.named = device.text;
      row.node.title = device.title === device.name ? device.name : `${isolated(device.title)}\n${device.name}`;
    }
    const known = metric?.value !== undefined;
    setClass(row.value, known ? `v ${metric.kind}` : "v none");
    setText(row.number, known ? metric.text : "no data");
    setText(row.unit, known ? unit(metric.unit) : "");
    row.metric.hidden = !metrics;
    if (metrics) setText(row.metric, metric.label);
    const title = known ? `${metric.name}${metric.kind === "text" ? `: ${metric.text}` : ""}` : "";
    if (row.value.title !== title) row.value.title = title;
    this.#drawSpark(row, device, metric, now);
  }

  #drawSpark(row, device, metric, now) {
    if (metric?.kind !== "number") {
      if (row.drawn !== "-") { row.path.setAttribute("d", ""); row.drawn = "-"; }
      return;
    }
    const spark = sparkOf(metric), end = Math.floor((device.state === "online" ? now : Math.min(now, metric.time)) / SPARK.step) * SPARK.step;
    askSpark(device, metric, end, this.#store.opened, now, () => !document.hidden && this.#pool.some((r) => r.entry?.device === device), () => this.#soon());
    const key = `${metric.name} ${end} ${spark.length} ${spark.lastValue}`;
    if (row.drawn === key) return;
    row.drawn = key;
    row.path.setAttribute("d", sparkPath(spark, end, device, metric));
  }
}
