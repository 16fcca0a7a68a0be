// What keys do, and the list of them that the "?" button shows.

import { el } from "./dom.js";

/**
 * Listens for keys. `acts`: [[keys, words, act, {wide, across}], ...]; `keys`: the names of keys that do the same, `wide`: only where the page
 * itself does not scroll, `across`: not where what has the focus scrolls sideways. Without `act` a line only tells. `wide()`: whether the page
 * does not scroll; `open(key)`: whether a key does anything now. Returns {help()}, which shows the list.
 */
export function keys(acts, { wide, open }) {
  const byKey = new Map();
  for (const [names, , act, options] of acts) if (act) for (const name of names) byKey.set(name, { act, ...options });
  const dialog = dialogOf(acts);
  document.body.append(dialog);
  const help = () => { if (dialog.open) dialog.close(); else dialog.showModal(); };
  byKey.set("?", { act: help });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
    if (dialog.open && event.key !== "?") return;
    if (event.key === " " && event.target.closest?.("button, a, [tabindex]:not(.rows)")) return;
    const known = byKey.get(event.key);
    if (!known || !open(event.key) || (known.across && event.target.closest?.(SIDEWAYS)) || (known.wide && (!wide() || event.target.closest?.("[tabindex]")))) return;
    event.preventDefault();
    known.act(event.key);
  });
  return { help };
}

const SIDEWAYS = ".way, .tablebox, .databox, pre";
const WORDS = { " ": "Space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc", "-": "−", PageDown: "Page ↓", PageUp: "Page ↑" };

function dialogOf(acts) {
  const close = el("button", { type: "button", class: "button", text: "Close" });
  const lines = [...acts.map(([names, words]) => [names, words]), [["?"], "show or hide this list"]].map(([names, words]) => (
    el("div", {}, el("dt", {}, ...names.map((name) => el("kbd", { text: WORDS[name] ?? name }))), el("dd", { text: words }))));
  const dialog = el("dialog", { class: "help", "aria-label": "Keys" }, el("div", { class: "inside" }, el("h2", { text: "Keys" }), el("dl", {}, ...lines), close));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  return dialog;
}
