// The door of a gateway that asks for tokens: a form that trades one for a session, a cookie that no script can read. The token goes out
// in a header, once; it is in no address, in no storage and in no body.

import { ApiError, getJson, post } from "./api.js";
import { copyButton, el, setText } from "./dom.js";
import { shown } from "./format.js";

const COMMAND = "gateway token create --scope live:read";
const WORDS = {
  ended: "The session has ended.",
  scope: "This token may not read: it needs the scope live:read.",
  unknown: "This token is not valid here. It is mistyped, revoked or expired.",
  blocked: "The token is valid, but this browser keeps no session: cookies are blocked for this address.",
  silent: "The gateway does not answer. Try again.",
};

export class Door {
  #root; #form; #input; #see; #enter; #problem; #pass;

  /** `pass()`: somebody may come in. */
  constructor(root, pass) {
    this.#root = root;
    this.#pass = pass;
    // Whoever has signed in beside this page, or opened the gateway to all, need not do so here.
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.shut) this.#look(); });
  }

  get shut() { return !this.#root.hidden; }

  /** Shows the form; `why`: what the last session ended with, or a key of the words above. */
  show(why = "") {
    if (!this.#form) this.#build();
    this.#root.hidden = false;
    this.#tell(WORDS[why] ?? why);
    this.#input.focus();
  }

  #build() {
    // A manager of passwords files it under a name, and takes the host's account from there.
    const user = el("input", { type: "text", name: "username", autocomplete: "username", value: "gateway", class: "hidden", tabindex: "-1", readonly: "", "aria-hidden": "true" });
    this.#input = el("input", { type: "password", id: "token", name: "password", autocomplete: "current-password", required: "", spellcheck: "false", autocapitalize: "off", maxlength: "512", "aria-describedby": "door-problem" });
    this.#see = el("button", { type: "button", class: "button", text: "Show", "aria-pressed": "false", "aria-controls": "token", on: { click: () => this.#turn(this.#input.type === "password") } });
    this.#enter = el("button", { type: "submit", class: "button main", text: "Sign in" });
    this.#problem = el("p", { id: "door-problem", class: "problem", role: "alert" });
    this.#form = el("form", { method: "post", action: "login", novalidate: "", on: { submit: (event) => { event.preventDefault(); this.#submit(); } } },
      user, el("label", { for: "token", text: "Token" }), el("div", { class: "field" }, this.#input, this.#see), this.#problem, this.#enter);
    this.#root.replaceChildren(
      el("h2", { text: "Sign in" }),
      el("p", { text: `The gateway at ${location.host} shows its devices to those who have a token for it.` }),
      el("div", { class: "card" }, this.#form,
        el("div", { class: "how" }, el("p", { text: "No token yet? Where the gateway runs, this prints one, once:" }),
          el("div", { class: "where" }, el("code", { text: COMMAND }), copyButton(() => COMMAND, "Copy")))),
    );
  }

  #turn(seen) {
    this.#input.type = seen ? "text" : "password";
    this.#see.setAttribute("aria-pressed", String(seen));
    setText(this.#see, seen ? "Hide" : "Show");
  }

  #tell(words) {
    setText(this.#problem, words);
    this.#input.setAttribute("aria-invalid", String(words !== "" && words !== WORDS.ended && words !== WORDS.silent));
  }

  async #submit() {
    const token = this.#input.value.trim();
    if (!token) { this.#tell("Put a token in first."); this.#input.focus(); return; }
    this.#enter.disabled = true;
    this.#tell("");
    this.#turn(false); // so that browsers take it for a password, which is not among what they offer for other forms
    const words = await this.#try(token);
    this.#enter.disabled = false;
    if (!words) { this.#pass(); return; }
    this.#tell(words);
    this.#input.focus();
    this.#input.select();
  }

  /** Nothing when it went well, else what is wrong. */
  async #try(token) {
    if (!/^[!-~]+$/.test(token)) return WORDS.unknown;
    try {
      await post("login", { Authorization: `Bearer ${token}` });
    } catch (error) {
      if (error.status === 401) return WORDS.unknown;
      if (error.status === 403 && /may not/.test(error.message)) return WORDS.scope;
      if (error.status === 429) return `Too many tries that failed. Try again in ${error.retry || 10} s.`;
      return error.status ? `The gateway refuses: ${shown(error.message)}` : WORDS.silent;
    }
    try {
      await getJson("healthz", { timeout: 5000, accept: [503] });
    } catch (error) {
      if (error.status === 401) return WORDS.blocked;
      if (error.status === 403) return WORDS.scope;
    }
    return "";
  }

  async #look() {
    try {
      await getJson("healthz", { timeout: 5000, accept: [503] });
    } catch { return; }
    this.#pass();
  }
}

/** Ends the session; null when it has ended, else what went wrong. */
export async function signOut() {
  try {
    await post("logout");
    return null;
  } catch (error) {
    return error instanceof ApiError && error.status ? `Not signed out: ${shown(error.message)}` : "Not signed out: the gateway does not answer";
  }
}
