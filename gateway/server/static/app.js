// The page's wiring: the feed fills the store, the views draw from it, the address holds what is chosen.

import { format, parse, rangeWord, rangesFor, spanOf } from "./address.js";
import { getJson } from "./api.js";
import { Away } from "./away.js";
import { DevicePanel } from "./device.js";
import { Door, signOut } from "./door.js";
import { el, segmented, setClass, setIcon, setText } from "./dom.js";
import { count, shown } from "./format.js";
import { GatewayLive } from "./gateway-live.js";
import { keys } from "./keys.js";
import { Knocks } from "./knocks.js";
import { DeviceList } from "./list.js";
import { News } from "./news.js";
import { forgetColours } from "./plot.js";
import { Store } from "./store.js";
import { Wall } from "./wall.js";
import { Way } from "./way.js";
import { welcome } from "./welcome.js";

const DRAW_MS = 250, LIST_MS = 500, ADDRESS_MS = 150, RETENTION_DAYS = 30, OUT_MS = 8000;
const narrow = matchMedia("(max-width: 860px)");
const $ = (id) => document.getElementById(id);

const state = parse(location.hash);
const live = new GatewayLive(new URL("v1/live", location.href.replace(/^http/, "ws").replace(/#.*/, "")).href);
const store = new Store(() => live.now());
const away = new Away();
const way = new Way($("way"), $("problems"));
const panel = new DevicePanel($("device"), store, live, away);
const list = new DeviceList($("list"), store, state, { pick, change });
const wall = new Wall($("wall"), store, list, () => change({ wall: false }));
const news = new News((text) => say(text));
const knocks = new Knocks($("knocks"), store, (text) => say(text));
const door = new Door($("door"), () => location.reload());
const views = segmented($("views"), [["table", "Table"], ["charts", "Charts"]], (view) => change({ view }));
let gatewayName = "", everOpen = false, version = "", choices = [], ranges = null, writing = 0, written = 0;
let over = false, asks = false; // whether this page has ended at the door; whether the gateway asks for tokens
let own = ""; // the device that this page has chosen by itself

/** The ranges to choose from end with all that is kept. */
function offerRanges(days) {
  const offered = rangesFor(days);
  if (offered.join() === choices.join()) return;
  choices = offered;
  $("ranges").replaceChildren();
  ranges = segmented($("ranges"), choices.map((key) => [key, rangeWord(key)]), (range) => change({ range, from: 0, to: 0 }));
  ranges.set(state.from ? "" : state.range);
}

/** Takes a part of the state, shows it and writes it to the address, where it may move with each frame, only when it rests. */
function change(part) {
  Object.assign(state, part);
  clearTimeout(writing);
  if (part.from && performance.now() - written < ADDRESS_MS) writing = setTimeout(write, ADDRESS_MS); else write();
  show(part);
}

function write() {
  written = performance.now();
  history.replaceState(null, "", format(state) || location.pathname + location.search);
}

function show(part) {
  if ("theme" in part) {
    if (state.theme) document.documentElement.dataset.theme = state.theme; else delete document.documentElement.dataset.theme;
    forgetColours();
    panel.redraw();
  }
  if ("range" in part || "from" in part) {
    ranges.set(state.from ? "" : state.range);
    panel.show(state.from ? { live: false, from: state.from, to: state.to } : { live: true, span: spanOf(state.range) });
  }
  if ("view" in part) { views.set(state.view); panel.view = state.view; }
  if ("wall" in part) { wall.on = state.wall; if (!state.wall) list.reveal(); }
  if ("device" in part || "wall" in part) { panel.choose(state.wall ? "" : state.device); list.render(); }
  badge();
}

function pick(name) {
  change({ device: name });
  if (narrow.matches) $("device").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}

const goLive = () => change({ from: 0, to: 0 });

function pause() {
  const { from, to } = panel.window();
  change({ from: Math.round(from), to: Math.round(to) });
}

const turn = () => (state.from ? goLive() : pause());

/** The badge beside the name, live, paused with what came since, or lost; and the button that pauses and goes back to live. */
function badge() {
  if (over) return;
  const { phase } = live.state, paused = state.from > 0;
  const [look, word] = phase === "open" ? (paused ? ["paused", `Paused, ${count(panel.fresh)} new`] : ["on", "LIVE"])
    : !everOpen && phase !== "refused" && live.state.attempt === 0 ? ["", "Connecting"] : ["lost", "Not live"];
  setClass($("live"), `live ${look}`);
  setText($("live-word"), word);
  const button = $("pause"), act = paused ? "Back to live" : "Pause";
  button.hidden = $("main").hidden || !store.loaded || state.wall;
  setText($("pause-word"), act);
  setIcon($("pause-icon"), paused ? "play" : "pause");
  if (button.title !== `${act} (space)`) button.title = `${act} (space)`;
}

/**
 * The session has ended, or there was none: the page stops, forgets what it shows, and shows the door. Who comes in through it gets
 * another page at the same address.
 */
function end(why) {
  if (over) return;
  over = true;
  live.stop();
  way.stop();
  knocks.on = false;
  clearTimeout(asking);
  clearTimeout(timer);
  cancelAnimationFrame(frame);
  for (const id of ["lost", "problems", "knocks", "way", "main", "wall"]) $(id).remove();
  $("welcome").remove();
  for (const id of ["live", "pause", "ranges", "views", "to-wall", "sign-out", "help", "gateway-id"]) $(id).hidden = true;
  document.body.classList.remove("lost", "wall");
  document.title = "Sign in, Gateway";
  door.show(why);
}

/** Refused: for want of a session, or for another reason that trying again does not mend. */
async function refused({ asked, reason }) {
  if (asked) { end(everOpen ? "ended" : ""); return; }
  try {
    await getJson("healthz", { timeout: 5000, accept: [503] });
  } catch (error) {
    if (error.status === 401) end(`The session has ended: ${shown(reason)}.`);
    else if (error.status === 403) end("scope");
  }
}

function connection() {
  if (over) return;
  const { phase, reason, seconds, attempt } = live.state;
  if (phase === "refused") {
    refused(live.state);
    if (over) return;
  }
  if (phase === "open") {
    everOpen = true;
    store.opened = store.now();
    away.back(store.opened);
  } else if (everOpen) away.lost(live.heard);
  way.connected = phase === "open";
  const lost = phase === "waiting" || phase === "refused" || (phase === "connecting" && attempt > 0);
  const bar = $("lost");
  if (bar.hidden && lost) say("Connection to the gateway lost");
  if (!bar.hidden && phase === "open") say("Connected again");
  document.body.classList.toggle("lost", lost);
  bar.hidden = !lost;
  if (lost) {
    setText($("lost-what"), phase === "refused" ? "The gateway refused this page." : everOpen ? "Connection to the gateway lost." : "The gateway does not answer.");
    setText($("lost-why"), `${reason ? `${reason[0].toUpperCase()}${reason.slice(1)}. ` : ""}What is shown is not live.`);
    setText($("lost-count"), phase === "waiting" ? `trying again in ${seconds} s` : phase === "connecting" ? "trying now" : "");
    $("lost-retry").disabled = phase === "connecting";
  }
  title();
  badge();
}

const say = (text) => setText($("announce"), text);

function title() {
  const name = gatewayName ? `${gatewayName}, Gateway` : "Gateway";
  document.title = document.body.classList.contains("lost") ? `(not live) ${name}` : name;
}

/** Decides between the welcome and the devices, and chooses a device when none is. */
function settle() {
  if (!store.loaded) return;
  const empty = store.devices.size === 0;
  if ($("welcome").hidden === empty) {
    $("welcome").hidden = !empty;
    $("main").hidden = empty;
    for (const id of ["ranges", "views", "to-wall"]) $(id).hidden = empty;
    if (empty) welcome($("welcome"), location, asks);
    badge();
  }
  // One that somebody has asked for is never replaced by another, also when it does not exist.
  if (!empty && store.named && !state.wall && (!state.device || (state.device === own && !store.get(own)))) {
    own = state.device = list.firstName || store.devices.keys().next().value;
    panel.choose(own);
    list.render();
  }
}

let asking = 0, asked = -Infinity, allAt = 0;

/** Names, units and ledgers: of the chosen device each two seconds, of all as often as their number allows. */
async function askDevices() {
  clearTimeout(asking);
  if (over) return;
  const now = asked = performance.now(), all = now >= allAt || !state.device;
  if (!document.hidden && live.state.phase === "open") {
    try {
      const { body } = await getJson("api/v1/devices", { params: all ? {} : { device: state.device } });
      store.rows(body, all);
      if (all && !allAt) drawNow();
      if (all) allAt = now + Math.min(20_000, Math.max(2000, body.length * 15));
    } catch { /* no answer: what is known stays, the feed tells about the connection */ }
  }
  clearTimeout(asking);
  asking = setTimeout(askDevices, 2000);
}

function askDevicesSoon() {
  allAt = 0;
  clearTimeout(asking);
  asking = setTimeout(askDevices, Math.max(50, asked + 1000 - performance.now()));
}

let revision = -1, second = 0, timer = 0, frame = 0;

/** Four times a second at the most, and only what has changed; once a second the ages. */
function draw() {
  if (over) return;
  if (!document.hidden) {
    const now = Math.floor(performance.now() / 1000), aged = now !== second;
    settle();
    if (aged || revision !== store.revision) {
      revision = store.revision;
      second = now;
      if (state.wall) wall.render(); else list.render();
    }
    if (!state.wall) panel.render();
    if (aged) { way.render(); knocks.render(); badge(); }
  }
  timer = setTimeout(() => { frame = requestAnimationFrame(draw); }, DRAW_MS);
}

/** Does not wait for the next turn: the first of all that is shown. */
function drawNow() {
  clearTimeout(timer);
  cancelAnimationFrame(frame);
  draw();
}

function zoom(by) {
  // A window of its own, zoomed or panned to, is made shorter or longer around its middle.
  if (state.from) { panel.scale(2 ** by, 0.5); return; }
  const next = choices.filter((range) => (spanOf(range) - spanOf(state.range)) * by > 0);
  if (next.length) change({ range: by < 0 ? next.at(-1) : next[0] });
}

const turnPage = (by) => $("device").scrollBy({ top: by * $("device").clientHeight * 0.9 });

const { help } = keys([
  [["/"], "find a device or a metric", () => list.focusSearch()],
  [["j", "k"], "next device, the one before", (key) => list.step(key === "j" ? 1 : -1)],
  [["ArrowDown", "ArrowUp"], "the same", (key) => list.step(key === "ArrowDown" ? 1 : -1), { wide: true }],
  [["PageDown", "PageUp"], "further down and up in the charts", (key) => turnPage(key === "PageDown" ? 1 : -1), { wide: true }],
  [["+", "-"], "a shorter, a longer range", (key) => zoom(key === "+" ? -1 : 1)],
  [["ArrowLeft", "ArrowRight"], "to earlier, to later", (key) => panel.pan(key === "ArrowLeft" ? -0.25 : 0.25), { across: true }],
  [["t"], "table or charts", () => change({ view: state.view === "table" ? "charts" : "table" })],
  [[" "], "pause, and go on", turn],
  [["w"], "the wall: large values, no controls", () => change({ wall: !state.wall })],
  [["Escape"], "back to live, off the wall", () => { if (state.wall) change({ wall: false }); else if (state.from) goLive(); }],
  [["drag"], "over a chart: that stretch of time"],
  [["wheel"], "sideways or with Shift: earlier, later; with Ctrl: shorter, longer"],
  [["double click"], "on a chart: back to live"],
], { wide: () => !narrow.matches, open: (key) => !over && (!state.wall || key === "w" || key === "Escape" || key === "?") });

live.addEventListener("state", connection);
live.addEventListener("hello", () => { askDevicesSoon(); way.poll(); });
store.addEventListener("appeared", askDevicesSoon);
store.addEventListener("turned", ({ detail }) => news.turned(detail));
live.subscribe("list", { devices: ["*"], metrics: ["*"], mode: "latest", interval_ms: LIST_MS }, {
  snapshot: (message) => {
    store.snapshot(message);
    if (!message.more) drawNow();
  },
  update: (message) => store.update(message),
  presence: (message) => store.presence(message),
});
panel.addEventListener("window", ({ detail }) => (detail ? change({ from: Math.round(detail.from), to: Math.round(detail.to) }) : goLive()));
way.addEventListener("health", ({ detail }) => {
  if (over) return;
  away.health(detail);
  if (asks !== (detail.auth === "token")) {
    asks = !asks;
    $("sign-out").hidden = !asks;
    if (!$("welcome").hidden) welcome($("welcome"), location, asks);
  }
  knocks.on = asks;
  gatewayName = shown(detail.id ?? "");
  setText($("gateway-id"), gatewayName);
  title();
  news.problems(detail.problems ?? []);
  if (detail.history?.retention_days > 0) offerRanges(detail.history.retention_days);
  // A wall that nobody touches takes the page of a gateway that was updated by itself.
  if (version && version !== detail.version && state.wall) location.reload();
  version = detail.version;
});
way.addEventListener("denied", ({ detail }) => end(detail === 403 ? "scope" : store.loaded ? "ended" : ""));
$("sign-out").addEventListener("click", async () => {
  const problem = await signOut();
  if (!problem) { location.reload(); return; }
  say(problem);
  setText($("out-word"), problem);
  $("out-word").classList.add("told");
  setTimeout(() => { setText($("out-word"), "Sign out"); $("out-word").classList.remove("told"); }, OUT_MS);
});
$("pause").addEventListener("click", turn);
$("help").addEventListener("click", help);
$("to-wall").addEventListener("click", () => change({ wall: true }));
$("lost-retry").addEventListener("click", () => live.retryNow());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { forgetColours(); panel.redraw(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !over) askDevicesSoon(); });
addEventListener("hashchange", () => { if (over) return; Object.assign(state, parse(location.hash)); show(state); list.refresh(); });

// How wide a scrollbar is that takes room: the columns keep their edges with and without one.
const probe = document.body.appendChild(el("div", { class: "probe" }));
document.documentElement.style.setProperty("--bar", `${probe.offsetWidth - probe.clientWidth}px`);
probe.remove();
offerRanges(RETENTION_DAYS);
show(state);
// A page in the browser's cache of pages left must not go on as a dashboard.
addEventListener("pagehide", () => live.stop());
addEventListener("pageshow", (event) => { if (event.persisted && !over) live.start(); });
live.start();
way.poll();
draw();
