// The chosen device: presence, the ledger as a sum, and a chart for each metric over one window of time that is live at its right edge
// or stands still.

import { bounded, isName } from "./address.js";
import { getJson } from "./api.js";
import { numbers, steps, storedSpans, summary, texts } from "./assemble.js";
import { NumberChart } from "./chart.js";
import { el, icon, setClass, setIcon, setText } from "./dom.js";
import { csv, fileName, picture, save } from "./export.js";
import { clock, count, isolated, shown, span } from "./format.js";
import { load, stepFor } from "./history.js";
import { LedgerSum } from "./ledger.js";
import { TextLog } from "./log.js";
import { PresenceStrip } from "./presence.js";
import { lowerBound, usualStep } from "./series.js";
import { keyOf, Series } from "./store.js";
import { BoolStrip } from "./strip.js";
import { ValueTable } from "./table.js";

const LIVE_SPAN_S = 300, REFRESH_LEAST = 30_000, REFRESH_MOST = 300_000, RETRY_MS = 5000, SKEW_MS = 2000;
const MOVING_MS = 120, LEAST_WINDOW = 1000, BUDGET_MS = 8, NOTE_MS = 15_000;
const KINDS = { number: 0, bool: 1, text: 2 };

export class DevicePanel extends EventTarget {
  #root; #store; #live; #away; #name = ""; #subscription = 0; #series = new Map(); #cards = new Map(); #base = null; #loading = null; #loadAt = 0;
  #window = { live: true, span: LIVE_SPAN_S * 1000, from: 0, to: 0 }; #view = "charts"; #fresh = 0; #skew = -Infinity; #failed = ""; #patchy = false; #thinned = false;
  #edition = 0; #job = null; #painting = false; #asked = 0; #whole = false; #note = ""; #noted = 0;
  #head; #strip = new PresenceStrip(); #ledger = new LedgerSum(); #grid; #table = new ValueTable(); #quiet; #missing; #more; #drawn = ""; #past = ""; #stored = { key: "", spans: [] };
  #seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.target.card) entry.target.card.seen = entry.isIntersecting;
    this.#drawn = "";
  }, { rootMargin: "200px" });

  /** Dispatches "window" when a drag or a double click asks for another window: detail {from, to} or null for live. */
  constructor(root, store, live, away) {
    super();
    this.#root = root;
    this.#store = store;
    this.#live = live;
    this.#away = away;
    this.#head = { title: el("h2", { dir: "auto" }), name: el("span", { class: "mute" }), icon: icon("online"), word: el("span"), tag: null, facts: el("span", { class: "facts" }), csv: null, png: null };
    const tool = (word, title, act) => el("button", { type: "button", class: "act", text: word, title, on: { click: (event) => this.#export(event.currentTarget, act) } });
    this.#head.csv = tool("CSV", "Save the readings of this range as CSV", () => this.#csv());
    this.#head.png = tool("PNG", "Save the charts as a picture", () => this.#png());
    this.#head.tag = el("span", { class: "tag" }, this.#head.icon, this.#head.word);
    this.#grid = el("div", { class: "grid" });
    this.#quiet = el("p", { class: "quiet", hidden: true });
    this.#more = el("button", { type: "button", class: "more", hidden: true, "aria-expanded": "false", on: { click: () => this.#unfold() } });
    new ResizeObserver(() => this.#measureTitle()).observe(this.#head.title);
    this.#missing = el("div", { class: "card missing", hidden: true }, el("h2"), el("p"));
    this.#root.append(el("div", { class: "card" }, el("div", { class: "head" },
      this.#head.title, this.#more, el("div", { class: "words" }, this.#head.name, this.#head.tag, this.#head.facts),
      el("div", { class: "tools" }, this.#head.csv, this.#head.png)), this.#strip.node, this.#ledger.node), this.#quiet, this.#grid, this.#table.node, this.#missing);
    this.#root.hidden = true;
  }

  get name() { return this.#name; }

  /** How many readings came since the window stands still. */
  get fresh() { return this.#fresh; }

  choose(name) {
    if (name === this.#name) return;
    if (this.#name) this.#live.unsubscribe(`device-${this.#subscription}`);
    this.#name = name;
    this.#series = new Map();
    for (const card of this.#cards.values()) { this.#seen.unobserve(card.node); card.destroy(); }
    this.#cards.clear();
    this.#table.clear();
    this.#skew = -Infinity;
    this.#patchy = this.#thinned = false;
    this.#fresh = 0;
    this.#note = "";
    this.#forget();
    this.#whole = false;
    this.#asked = performance.now();
    this.#subscription += 1;
    this.render();
    if (!isName(name)) return;
    const take = (message) => this.#take(message);
    this.#live.subscribe(`device-${this.#subscription}`, { devices: [name], metrics: ["*"], mode: "every", interval_ms: 100, history_s: LIVE_SPAN_S }, {
      history: (message) => {
        take(message);
        if (message.last === false) return;
        this.#patchy = message.complete === false;
        this.#whole = true;
        this.#forget();
      },
      error: (message) => {
        // The store is asked instead, as for longer ranges.
        if (message.code !== "history_failed") return;
        this.#patchy = this.#whole = true;
        this.#forget();
      },
      mode: (message) => { this.#thinned = message.mode === "latest"; },
      update: (message) => {
        this.#fresh += most(message.data?.[name]);
        this.#clock(message.data?.[name]);
        take(message);
      },
    });
  }

  /** Sets the window: {live: true, span} or {live: false, from, to}. */
  show(window) {
    const was = this.#window;
    this.#window = { span: 0, from: 0, to: 0, ...window };
    if (was.live && !window.live) this.#fresh = 0;
    this.#asked = performance.now();
    // A window that moves is drawn from what is at hand until it stands still and the rest is loaded.
    const base = this.#base, { from, to } = this.window();
    this.#forget();
    if (!this.#covered && base?.step === stepFor(to - from, base?.busy)) this.#base = base;
    if (this.#base) this.#loadAt = performance.now() + MOVING_MS;
    this.render();
  }

  set view(view) {
    this.#view = view;
    this.#grid.hidden = view !== "charts";
    this.#table.node.hidden = view !== "table";
    this.#head.png.hidden = view !== "charts";
    this.redraw();
  }

  /** Draws everything anew, for a theme or a size that changed. */
  redraw() {
    this.#dirty();
    this.render();
  }

  #dirty() {
    this.#drawn = "";
    this.#edition += 1;
  }

  /** The window as it is now; a live one moves in steps of about a pixel, so that nothing is drawn for less. */
  window() {
    const w = this.#window;
    if (!w.live) return w;
    const step = Math.max(250, w.span / 1200), to = Math.ceil(this.#store.now() / step) * step;
    return { live: true, span: w.span, from: to - w.span, to };
  }

  #take(message) {
    const device = this.#store.get(this.#name);
    for (const [metric, points] of Object.entries(message.data?.[this.#name] ?? {})) {
      let series = this.#series.get(metric);
      if (!series) this.#series.set(metric, series = new Series(metric));
      const known = device?.metrics.get(metric);
      if (known) for (const [, v] of points) known.learn(v);
      for (const [time, v] of points) series.add(time, v, known?.counts);
    }
  }

  /** The times of readings against the gateway's clock: the least delayed of what came counts. Behind is a slow clock or a late reading. */
  #clock(metrics) {
    const now = this.#live.now();
    for (const points of Object.values(metrics ?? {})) this.#skew = Math.max(this.#skew - 0.1, points.at(-1)[0] - now);
  }

  #forget() {
    this.#loading?.abort();
    this.#loading = null;
    this.#base = null;
    this.#loadAt = 0;
    this.#failed = "";
    this.#dirty();
  }

  /** Whether the feed's own history holds all of the window. */
  get #covered() { return this.#window.live && this.#window.span <= LIVE_SPAN_S * 1000 && !this.#patchy; }

  /** Loads the window from the store when the feed's own history does not cover it, and again from time to time while it is live. */
  async #load(window) {
    if (!this.#name || this.#covered || this.#loading || performance.now() < this.#loadAt || this.#live.state.phase !== "open") return;
    const stop = this.#loading = new AbortController();
    try {
      const now = this.#store.now();
      const base = await load(this.#name, window.from, window.live ? now : window.to, stop.signal);
      if (stop.signal.aborted) return;
      this.#base = base;
      for (const name of base.worded) this.#reword(name);
      this.#failed = "";
      this.#loadAt = window.live ? performance.now() + Math.min(REFRESH_MOST, Math.max(REFRESH_LEAST, base.step)) : Infinity;
    } catch (error) {
      if (stop.signal.aborted) return;
      this.#failed = `The history did not answer: ${error.message}`;
      this.#loadAt = performance.now() + RETRY_MS;
    }
    this.#loading = null;
    this.#dirty();
    this.render();
  }

  /** Asks once what states the device had before this page heard of it, and again after each break of the feed. */
  async #askPast(device) {
    const { opened } = this.#store;
    if (this.#past === `${device.name} ${opened}` || !opened) return;
    this.#past = `${device.name} ${opened}`;
    try {
      const { body } = await getJson("api/v1/presence", { params: { device: device.name, from: 0 } });
      device.remember(body);
    } catch { /* the strip tells what this page knows */ }
  }

  /** A metric's long integers are texts, says the store. */
  #reword(name) {
    const metric = this.#store.get(this.#name)?.metrics.get(name);
    if (!metric || metric.numeric || metric.worded) return;
    metric.worded = true;
    this.#series.get(name)?.reword();
  }

  render() {
    const device = this.#store.get(this.#name);
    this.#root.hidden = !device && !(this.#name && this.#store.named);
    this.#missing.hidden = Boolean(device);
    this.#root.classList.toggle("none", !device);
    if (!device) { this.#tellMissing(); return; }
    const window = this.window(), now = this.#store.now();
    this.#load(window);
    this.#askPast(device);
    this.#drawHead(device, now);
    this.#ledger.draw(device);
    this.#makeCards(device, window);
    const interval = this.#interval(device);
    for (const card of this.#cards.values()) card.current(now, device);
    this.#strip.draw(device, window, this.#spans(window, interval), this.#heard, this.#away);
    let revisions = 0;
    for (const series of this.#series.values()) revisions += series.revision;
    const seconds = Math.floor(now / 1000);
    const key = `${this.#edition} ${window.from} ${this.#view === "table" ? seconds : `${window.to} ${revisions} ${this.#cards.size}`}`;
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.#job = { device, window, interval, key };
    if (this.#view === "table") this.#drawTable(device, window, interval); else this.#paint();
    const words = this.#failed || (this.#cards.size ? "" : "No reading of this device yet.");
    this.#quiet.hidden = !words;
    setText(this.#quiet, words);
  }

  /** There is no device of the name in the address: nothing is shown in its place, and it is when it comes. */
  #tellMissing() {
    const [title, words] = this.#missing.children, name = [...shown(this.#name)].slice(0, 100).join("");
    setText(title, `There is no device “${isolated(name)}”${isName(this.#name) ? " yet" : ""}`);
    setText(words, isName(this.#name) ? "Nothing of this name has connected, or it was removed since. This page shows it as soon as it connects."
      : "No device can have this name: names are of letters, digits and . _ : -, 64 at the most, with a letter or digit first.");
  }

  /** Draws the cards that are seen, those first that were drawn longest ago, a few milliseconds' worth a frame. */
  async #paint() {
    if (this.#painting) return;
    this.#painting = true;
    try {
      let begun = performance.now();
      for (let card; (card = this.#outdated());) {
        const { device, window, interval, key } = this.#job;
        card.drawn = key;
        card.drawnAt = performance.now();
        this.#drawCard(device, card, window, interval);
        await null; // plots draw in a microtask of their own
        if (performance.now() - begun < BUDGET_MS) continue;
        await frame();
        begun = performance.now();
      }
    } finally {
      this.#painting = false;
    }
    this.#measure();
  }

  /** Notes in the browser's trace how long it took from the choice of a device or a window until all of it was drawn. */
  #measure() {
    if (!this.#asked || !this.#whole || !(this.#covered || this.#base) || this.#loading) return;
    performance.clearMeasures("shown");
    performance.measure("shown", { start: this.#asked, detail: { points: [...this.#series.values()].reduce((sum, { length }) => sum + length, 0) } });
    this.#asked = 0;
  }

  #outdated() {
    let oldest = null;
    if (this.#view !== "charts") return oldest;
    for (const card of this.#cards.values()) {
      if (card.seen && card.drawn !== this.#job.key && (card.drawnAt ?? 0) <= (oldest?.drawnAt ?? Infinity)) oldest = card;
    }
    return oldest;
  }

  async #export(button, act) {
    button.disabled = true;
    try {
      this.#note = await act();
    } catch (error) {
      this.#note = `the export failed: ${error.message}`;
    }
    this.#noted = performance.now();
    button.disabled = false;
    this.render();
  }

  async #csv() {
    const window = this.window(), name = this.#name, { blob, until } = await csv(name, window);
    save(blob, fileName(name, { from: window.from, to: until }, "csv"));
    return until < window.to ? `the file became too large and ends at ${clock(until, { seconds: true })}: choose a shorter range for the rest` : "";
  }

  async #png() {
    const device = this.#store.get(this.#name), window = this.window(), interval = this.#interval(device);
    for (const card of this.#cards.values()) {
      this.#drawCard(device, card, window, interval);
      await frame();
    }
    const name = device.title === device.name ? device.name : `${isolated(device.title)} (${device.name})`;
    const said = `${clock(window.from, { seconds: true })} to ${clock(window.to, { seconds: true })}`;
    const canvas = picture(name, said, [...this.#cards.values()].map((card) => card.pictured));
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    if (!blob) throw new Error("the picture is too large for this browser");
    save(blob, fileName(device.name, window, "png"));
    return "";
  }

  /** Shows a title that is cut after three lines whole, and cut again. */
  #unfold(whole = !this.#head.title.classList.contains("whole")) {
    this.#head.title.classList.toggle("whole", whole);
    this.#more.setAttribute("aria-expanded", String(whole));
    setText(this.#more, whole ? "Less" : "Whole name");
    this.#measureTitle();
  }

  #measureTitle() {
    const { title } = this.#head;
    if (!title.classList.contains("whole")) this.#more.hidden = title.scrollHeight <= title.clientHeight + 2;
  }

  /** Milliseconds between readings: stated, else as seen here, else 0. */
  #interval(device) {
    if (device.interval) return device.interval * 1000;
    for (const series of this.#series.values()) if (series.of("number")?.length > 2) return usualStep(series.of("number").times);
    return 0;
  }

  #drawHead(device, now) {
    const head = this.#head;
    if (head.title.textContent !== device.title) {
      head.title.textContent = head.title.title = device.title;
      this.#unfold(false);
    }
    setText(head.name, device.title === device.name ? "" : device.name);
    setClass(head.tag, `tag ${device.unsure ? "unsure" : device.state}`);
    setIcon(head.icon, device.state);
    setText(head.word, device.unsure ? `was ${device.state}` : device.state);
    const facts = [];
    if (device.state !== "online" && device.since) facts.push(`since ${clock(device.since)}${device.reason ? `: ${device.reason}` : ""}`);
    if (device.awaited(now, this.#store.opened)) facts.push("waiting for its next reading");
    else if (device.lastSeen) facts.push(now - device.lastSeen < 1000 ? "last reading now" : `last reading ${span(now - device.lastSeen)} ago`);
    const interval = this.#interval(device);
    if (interval) facts.push(`${device.interval ? "" : "about "}${interval < 500 ? `${count(1000 / interval)} a second` : `every ${span(about(interval), about(interval) % 1000 !== 0)}`}`);
    // The gateway has seen more than this page: what it says of the clock goes before what is seen here.
    const ahead = device.clock?.skew_ms ?? (Number.isFinite(this.#skew) ? this.#skew : 0);
    if (ahead > SKEW_MS) facts.push(`its clock is ${span(ahead)} ahead`);
    else if (ahead < -SKEW_MS) facts.push(`its clock is ${span(-ahead)} behind, or its readings come that late`);
    if (this.#thinned) facts.push("only the newest values: this page reads too slowly");
    if (!device.confirmed) facts.push("not heard of since the gateway started");
    if (this.#note && performance.now() - this.#noted < NOTE_MS) facts.push(this.#note);
    setText(head.facts, facts.join(", "));
    if (head.facts.title !== head.facts.textContent) head.facts.title = head.facts.textContent;
  }

  /** A card for each metric that has a value, numbers first; for one whose kind has changed in the window, one for each kind it had there. */
  #makeCards(device, window) {
    const wanted = new Set();
    let changed = false;
    for (const metric of device.metrics.values()) {
      if (metric.value === undefined) continue;
      const kinds = this.#kinds(metric, window);
      for (const kind of kinds) {
        const key = keyOf(metric.name, kind);
        wanted.add(key);
        if (!this.#cards.has(key)) { this.#cards.set(key, this.#makeCard(metric, kind)); changed = true; }
        this.#cards.get(key).among(kinds.length, kind === kinds[0]);
      }
    }
    for (const [key, card] of this.#cards) {
      if (wanted.has(key)) continue;
      this.#seen.unobserve(card.node);
      card.destroy();
      this.#cards.delete(key);
    }
    if (!changed) return;
    const order = [...device.metrics.keys()];
    const cards = [...this.#cards.values()].sort((a, b) => KINDS[a.kind] - KINDS[b.kind] || order.indexOf(a.metric.name) - order.indexOf(b.metric.name));
    this.#cards = new Map(cards.map((card) => [keyOf(card.metric.name, card.kind), card]));
    cards.forEach((card, i) => { if (this.#grid.children[i] !== card.node) this.#grid.insertBefore(card.node, this.#grid.children[i] ?? null); });
  }

  #makeCard(metric, kind) {
    const hands = {
      zoom: (from, to) => this.#ask({ from, to }), live: () => this.#ask(null),
      pan: (share) => this.pan(share), scale: (factor, at) => this.scale(factor, at), turned: () => this.redraw(),
    };
    const card = kind === "number" ? new NumberChart(metric, hands) : kind === "bool" ? new BoolStrip(metric, hands) : new TextLog(metric);
    card.node.card = card;
    this.#seen.observe(card.node);
    return card;
  }

  /** The kinds that a metric's values have: the present one, then those of other readings in the window. */
  #kinds(metric, { from, to }) {
    const series = this.#series.get(metric.name), now = series?.kind || metric.kind;
    return [now, ...Object.keys(KINDS).filter((kind) => {
      if (kind === now) return false;
      const data = series?.of(kind), times = this.#base?.series.get(keyOf(metric.name, kind))?.t ?? [];
      return (data && data.last >= from && data.first <= to) || (times.length > 0 && times.at(-1) >= from && times[0] <= to);
    })];
  }

  /** When a metric's values became of another kind than this for good; Infinity when they have not. */
  #until(metric, kind) {
    const timesOf = (some) => [this.#ring(metric, some)?.times ?? [], this.#base?.series.get(keyOf(metric, some))?.t ?? []];
    const last = Math.max(...timesOf(kind).map((times) => times.at(-1) ?? -Infinity));
    const after = Object.keys(KINDS).filter((other) => other !== kind).flatMap(timesOf).map((times) => times[lowerBound(times, last)] ?? Infinity);
    return Math.min(...after);
  }

  /** Moves the window by a share of its length, to later when above zero, at most to now. */
  pan(share) {
    const { from, to, live } = this.window(), by = Math.min((to - from) * share, live ? 0 : this.#store.now() - to);
    if (by) this.#ask({ from: from + by, to: to + by });
  }

  /** Makes the window `factor` times as long, around the share `at` of it. */
  scale(factor, at) {
    const { from, to } = this.window(), length = Math.max(LEAST_WINDOW, (to - from) * factor), middle = from + (to - from) * at;
    const end = Math.min(this.#store.now(), middle + length * (1 - at));
    this.#ask({ from: end - length, to: end });
  }

  #ask(window) { this.dispatchEvent(new CustomEvent("window", { detail: window && bounded(window) })); }

  #drawCard(device, card, window, interval) {
    const metric = card.metric.name;
    const nothing = this.#loading || (!this.#covered && !this.#base && !this.#failed) ? "Loading" : "No readings in this range";
    if (card.kind === "number") {
      card.draw(numbers(metric, this.#base, this.#ring(metric, "number"), window, interval, card.width), window);
      card.empty(card.some ? "" : nothing);
    } else if (card.kind === "bool") {
      // Of a device that has gone nothing is claimed after its last reading.
      const known = device.state === "offline" ? Math.min(this.#heard, Math.max(device.since, card.metric.time)) : this.#heard;
      const until = card.former ? Math.min(known, this.#until(metric, "bool")) : known;
      const data = steps(metric, this.#base, this.#ring(metric, "bool"), interval, until);
      card.draw(data, window, until);
      card.empty(data.t.length ? "" : nothing);
    } else {
      card.draw(() => texts(metric, this.#base, this.#ring(metric, "text")), window, `${this.#series.get(metric)?.revision ?? 0} ${this.#base?.to ?? 0}`);
    }
  }

  #ring(metric, kind) { return this.#series.get(metric)?.of(kind) ?? null; }

  /** Until when something is known: now, or when the feed was last heard. */
  get #heard() { return this.#live.state.phase === "open" ? this.#store.now() : this.#live.heard; }

  /** Where readings are stored in the window; looked at anew each few seconds. */
  #spans(window, interval) {
    const key = `${this.#name} ${Math.floor(window.from / 5000)} ${this.#base?.to ?? 0} ${this.#series.size}`;
    if (this.#stored.key !== key) {
      const rings = [...this.#series.values()].map((series) => series.of("number")).filter(Boolean);
      this.#stored = { key, spans: storedSpans(this.#base, rings, interval) };
    }
    return this.#stored.spans;
  }

  #drawTable(device, window, interval) {
    this.#table.draw(device.title, window, [...this.#cards.values()], ({ name }) => summary(numbers(name, this.#base, this.#ring(name, "number"), window, interval, Infinity), window));
  }
}

const frame = () => new Promise((done) => requestAnimationFrame(done));

/** Milliseconds to the second when they are nearly whole seconds. */
const about = (ms) => (Math.abs(ms - Math.round(ms / 1000) * 1000) < ms * 0.03 ? Math.round(ms / 1000) * 1000 : ms);

const most = (metrics) => Math.max(0, ...Object.values(metrics ?? {}).map((points) => points.length));
