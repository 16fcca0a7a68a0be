// The strip on top, the way of a reading: where the data is right now, stage by stage, with the backlog and the reason in words,
// and above it, when something is wrong, the sentences that say what and what to do. Fed by GET /healthz each two seconds.

import { getJson } from "./api.js";
import { el, icon, setClass, setText } from "./dom.js";
import { bytes, count, shown, span } from "./format.js";

const POLL_MS = 2000, AGED_MS = 7000;

export class Way extends EventTarget {
  #strip; #problems; #stages = new Map(); #health = null; #at = 0; #timer = 0; #said = ""; #troubled = ""; #stopped = false;

  /** `strip`: an ol; `problems`: a ul. Dispatches "health" with each answer, "denied" with 401 or 403. */
  constructor(strip, problems) {
    super();
    this.#strip = strip;
    this.#problems = problems;
    this.connected = false; // whether this page's own feed is open
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.poll(); });
  }

  async poll() {
    clearTimeout(this.#timer);
    if (!document.hidden && !this.#stopped) {
      try {
        const { body } = await getJson("healthz", { timeout: 5000, accept: [503] });
        this.#health = body;
        this.#at = performance.now();
        this.dispatchEvent(new CustomEvent("health", { detail: body }));
      } catch (error) {
        // No answer: the strip shows its age, the feed tells the rest.
        if (error.status === 401 || error.status === 403) this.dispatchEvent(new CustomEvent("denied", { detail: error.status }));
      }
      this.render();
    }
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => this.poll(), POLL_MS);
  }

  /** Asks no more. */
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Draws the last answer; the countdowns in it run on between two polls. */
  render() {
    const health = this.#health;
    if (!health) return;
    const passed = performance.now() - this.#at;
    this.#strip.classList.toggle("aged", passed > AGED_MS);
    const stages = stagesOf(health, passed / 1000, this.connected);
    for (const [key, stage] of this.#stages) {
      if (!stages.some((s) => s.key === key)) { stage.node.remove(); this.#stages.delete(key); }
    }
    stages.forEach((stage, i) => this.#draw(stage, i));
    this.#bring(stages.filter((stage) => stage.tone).map((stage) => stage.key));
    this.#say(health);
  }

  /** Where the strip scrolls: brings the first troubled stage into sight, once, whenever others are troubled than before. */
  #bring(troubled) {
    const key = troubled.join(" ");
    if (key === this.#troubled) return;
    this.#troubled = key;
    const box = this.#strip, node = this.#stages.get(troubled[0])?.node;
    if (!node || box.scrollWidth <= box.clientWidth) return;
    const left = node.offsetLeft - box.offsetLeft, right = left + node.offsetWidth;
    if (left >= box.scrollLeft && right <= box.scrollLeft + box.clientWidth) return;
    box.scrollTo({ left, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  #draw(stage, i) {
    let known = this.#stages.get(stage.key);
    if (!known) {
      const title = el("h2"), strong = el("strong"), word = el("span"), rest = el("small"), why = el("small", { class: "why" });
      known = { node: el("li", { "data-stage": stage.key }, title, el("p", {}, strong, " ", el("small", {}, word, rest, why))), title, strong, word, rest, why };
      this.#stages.set(stage.key, known);
    }
    if (this.#strip.children[i] !== known.node) this.#strip.insertBefore(known.node, this.#strip.children[i] ?? null);
    setText(known.title, stage.title);
    setText(known.strong, stage.strong);
    setClass(known.strong, stage.tone);
    setText(known.word, stage.word);
    setClass(known.word, stage.tone);
    setText(known.rest, stage.rest);
    setText(known.why, stage.why ? `: ${shown(stage.why)}` : "");
    known.node.title = stage.hover ?? "";
  }

  #say(health) {
    const key = JSON.stringify([health.status, health.problems]);
    if (key === this.#said) return;
    this.#said = key;
    const problems = health.problems ?? [];
    this.#problems.hidden = problems.length === 0;
    setClass(this.#problems, `problems ${health.status}`);
    this.#problems.replaceChildren(...problems.map((problem) => el(
      "li", { "data-part": problem.part }, icon("warn"),
      el("p", {}, el("b", { text: sentence(problem.text) }), " ", el("span", { class: "mute", text: sentence(problem.hint ?? "") })),
    )));
  }
}

const sentence = (words) => { const text = shown(words); return text && !/[.!?]$/.test(text) ? `${text}.` : text; };

/** The stages of the way from a /healthz answer that is `passed` seconds old; `connected`: this page is a dashboard of it now. Pure. */
export function stagesOf(health, passed, connected) {
  const { devices = {}, ingest = {}, journal = {}, history = {}, dashboards = {}, sinks = [] } = health;
  const others = [devices.stale && `${count(devices.stale)} stale`, devices.offline && `${count(devices.offline)} offline`].filter(Boolean);
  const stages = [
    { key: "devices", title: "Devices", strong: count(devices.online ?? 0), tone: "", word: "online", rest: others.length ? `, ${others.join(", ")}` : "" },
    { key: "in", title: "In", strong: count(Math.round(ingest.readings_per_s ?? 0)), tone: "", word: "readings/s", rest: "", hover: `${count(ingest.received ?? 0)} received` },
    journalStage(journal),
  ];
  for (const sink of sinks) if (sink.name !== "history") stages.push(sinkStage(sink, passed, sink.title || sink.name, ""));
  const stored = sinks.find((sink) => sink.name === "history") ?? { name: "history", state: "ok", pending: history.pending ?? 0 };
  const held = history.since ? `holds ${span((health.time ?? 0) + passed * 1000 - history.since)}` : history.retention_days ? `keeps ${count(history.retention_days)} d` : "";
  stages.push({ ...sinkStage({ ...stored, pending: history.pending ?? stored.pending }, passed, "History", held), hover: history.bytes ? `${bytes(history.bytes)} on disk, kept for ${count(history.retention_days)} days` : "" });
  stages.push({
    key: "dashboards", title: "Dashboards", strong: count(Math.max(dashboards.clients ?? 0, connected ? 1 : 0)), tone: "", word: "", rest: dashboards.p99_ms ? `p99 ${count(Math.max(1, Math.round(dashboards.p99_ms)))} ms` : "connected",
  });
  return stages;
}

function journalStage(journal) {
  const stage = { key: "journal", title: "Journal", strong: bytes(journal.bytes ?? 0), tone: "", word: "", rest: "", hover: "" };
  if (journal.state === "failing") return { ...stage, tone: "bad", word: "not writing", why: journal.reason };
  const ack = journal.ack_ms;
  if (ack?.p50) {
    stage.rest = `ack in ${count(Math.max(1, Math.round(ack.p50)))} ms`;
    stage.hover = `99 of 100 acks within ${count(Math.round(ack.p99))} ms`;
  } else stage.rest = "on disk";
  return stage;
}

/** While all is well what came in the last moment is not behind; once the far side is away all that waits is, as the problem above says. */
function sinkStage(sink, passed, title, quiet) {
  const waits = sink.state === "waiting" || sink.state === "stopped" ? sink.pending : sink.behind ?? sink.pending;
  const stage = { key: `sink-${sink.name}`, title, strong: count(waits ?? 0), tone: "", word: "behind", rest: "", hover: [sink.reason, sink.hint].filter(Boolean).join(". ") };
  const tail = [];
  if (sink.state === "stopped") {
    stage.tone = "bad";
    tail.push("stopped");
  } else if (sink.state === "waiting") {
    stage.tone = "warn";
    const left = Math.ceil((sink.next_try_s ?? 0) - passed);
    tail.push(left > 0 ? `again in ${left} s` : "trying again");
  } else if (quiet) tail.push(quiet);
  if (sink.dead_lettered) tail.push(`${count(sink.dead_lettered)} set aside`);
  if (tail.length) stage.rest = `, ${tail.join(", ")}`;
  if (stage.tone) stage.why = sink.reason;
  return stage;
}
