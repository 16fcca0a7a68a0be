// What a screen reader is told: changes of state, gathered for a moment so that many at once are one sentence; nothing else.

import { count, isolated, plural } from "./format.js";

const GATHER_MS = 1200, NAMED = 3;

export class News {
  #say; #turned = new Map(); #timer = 0; #wrong = null;

  /** `say(text)` tells it. */
  constructor(say) { this.#say = say; }

  /** A device has changed its state. */
  turned(device) {
    this.#turned.set(device.name, device);
    this.#timer ||= setTimeout(() => this.#tell(), GATHER_MS);
  }

  /** Problems as /healthz has them: those that are new are told, and once when there are none any more. */
  problems(problems) {
    const texts = problems.map((problem) => problem.text), before = this.#wrong;
    // Figures in a sentence move on: with others it is the same problem.
    const keys = new Set(texts.map((text) => text.replace(/[\d.,]+/g, "0")));
    this.#wrong = keys;
    if (!before && !texts.length) return;
    const fresh = texts.filter((text) => !before?.has(text.replace(/[\d.,]+/g, "0")));
    if (fresh.length) this.#say(fresh.join(" "));
    else if (before?.size && !texts.length) this.#say("All problems are over");
  }

  #tell() {
    const devices = [...this.#turned.values()];
    this.#turned.clear();
    this.#timer = 0;
    if (devices.length <= NAMED) {
      this.#say(devices.map(({ title, state, reason }) => `${isolated(title)} is ${state}${reason && state !== "online" ? `: ${reason}` : ""}`).join(". "));
      return;
    }
    const counts = {};
    for (const { state } of devices) counts[state] = (counts[state] ?? 0) + 1;
    this.#say(`${plural(devices.length, "device")} changed: ${Object.entries(counts).map(([state, n]) => `${count(n)} ${state}`).join(", ")}`);
  }
}
