// Devices that named themselves and were not let in: a quiet notice with what lets each in, which is a command and no button.

import { getJson } from "./api.js";
import { copyButton, el, setText } from "./dom.js";
import { age, clock, count, plural, shown } from "./format.js";

const POLL_MS = 10_000, NAMED = 3, LISTED = 20;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/, DIGITS = /^[0-9a-f]{4,64}$/;

export class Knocks {
  #root; #store; #say; #title; #list; #more; #timer = 0; #wanted = false; #on = false; #rows = []; #drawn = ""; #named = new Set();

  /** `root`: a details. `say(text)` announces those that are new. */
  constructor(root, store, say) {
    this.#root = root;
    this.#store = store;
    this.#say = say;
    this.#title = el("span");
    this.#list = el("ul");
    this.#more = el("p", { class: "mute" });
    root.append(el("summary", {}, this.#title), el("p", { class: "mute", text: "Each asked for an address of its own without a token that is valid for it. Anybody can knock under any name: see where it comes from. To let one in, where the gateway runs:" }), this.#list, this.#more);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#ask(); });
  }

  /** Asks from now on, or no more: a gateway that lets everybody in knows of nobody who was not. */
  set on(on) {
    if (on === this.#wanted) return;
    this.#wanted = this.#on = on;
    if (on) this.#ask(); else this.#show([]);
  }

  async #ask() {
    clearTimeout(this.#timer);
    if (!this.#on) return;
    if (!document.hidden) {
      try {
        const { body } = await getJson("api/v1/pending", { timeout: 5000 });
        this.#show(Array.isArray(body) ? body : []);
      } catch (error) {
        // Not for this token, or not at this gateway.
        if (error.status >= 400 && error.status < 500 && error.status !== 429) { this.#on = false; this.#show([]); return; }
      }
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), POLL_MS);
  }

  #show(rows) {
    this.#rows = rows.filter((row) => typeof row?.device === "string");
    const fresh = this.#rows.filter((row) => !this.#named.has(row.device));
    if (fresh.length) this.#say(this.#words(fresh));
    this.#named = new Set(this.#rows.map((row) => row.device));
    this.#root.hidden = !this.#rows.length;
    this.render();
  }

  /** Who knocked, in a sentence: those whose names are new here, and those that are not. */
  #words(rows) {
    const names = [...new Set(rows.map((row) => row.device))], known = names.filter((name) => this.#store.get(name)), unknown = names.filter((name) => !this.#store.get(name));
    const said = [];
    if (unknown.length) said.push(`${unknown.length === 1 ? "An unknown device" : `${count(unknown.length)} unknown devices`} knocked: ${some(unknown)}`);
    if (known.length) said.push(`${some(known)} ${known.length === 1 ? "was" : "were"} refused`);
    return said.join("; ");
  }

  /** Draws the list; its ages go on between two answers. */
  render() {
    if (this.#root.hidden) return;
    setText(this.#title, this.#words(this.#rows));
    const now = this.#store.now(), listed = this.#rows.slice(0, LISTED);
    const key = JSON.stringify(listed.map((row) => [row.device, row.fingerprint]));
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.#list.replaceChildren(...listed.map((row) => this.#make(row)));
      const left = this.#rows.length - listed.length;
      setText(this.#more, left > 0 ? `and ${count(left)} more: gateway devices --pending` : "");
    }
    listed.forEach((row, i) => {
      const told = [`from ${shown(String(row.address ?? ""))}`, row.count > 1 ? `${plural(row.count, "time")} since ${clock(row.first)}, last ${age(now - row.last)} ago` : `${age(now - row.last)} ago`];
      if (this.#store.get(row.device)) told.push("a device of this name is known here: was its token revoked, or is it another one?");
      setText(this.#list.children[i].children[1], told.join(", ").replace("now ago", "now"));
    });
  }

  #make({ device, fingerprint }) {
    const several = this.#rows.filter((row) => row.device === device).length > 1, node = el("li", {}, el("b", { text: shown(device), dir: "auto" }), el("span", { class: "mute" }));
    if (!NAME.test(device) || (fingerprint && !DIGITS.test(fingerprint))) return node;
    const command = `gateway devices --admit ${device}${several ? ` --fingerprint ${fingerprint || "none"}` : ""}`;
    node.append(el("span", { class: "where" }, el("code", { text: command }), copyButton(() => command, "Copy")));
    return node;
  }
}

function some(names) {
  const left = names.length - NAMED;
  return `${names.slice(0, NAMED).map(shown).join(", ")}${left > 0 ? ` and ${count(left)} more` : ""}`;
}
