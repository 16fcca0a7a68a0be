// Small hands for the document. Text from outside reaches it through textContent alone.

import { isRightToLeft } from "./format.js";

/** Makes an element. `props`: class, text, on: {event: fn}, hidden; everything else becomes an attribute. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") node.className = value;
    else if (key === "text") node.textContent = value;
    else if (key === "hidden") node.hidden = value;
    else if (key === "on") for (const [event, fn] of Object.entries(value)) node.addEventListener(event, fn);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** Makes an SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** One of the page's symbols by name (online, stale, offline, warn). */
export function icon(name, label = "") {
  const node = svg("svg", { class: `icon ${name}` }, svg("use", { href: `#i-${name}` }));
  if (label) { node.setAttribute("role", "img"); node.setAttribute("aria-label", label); }
  else node.setAttribute("aria-hidden", "true");
  return node;
}

/** Shows another symbol in a node made by icon(); one with a label is called by the symbol's name. */
export function setIcon(node, name) {
  if (node.dataset.name === name) return;
  node.dataset.name = name;
  node.setAttribute("class", `icon ${name}`);
  node.firstChild.setAttribute("href", `#i-${name}`);
  if (node.hasAttribute("aria-label")) node.setAttribute("aria-label", name);
}

const LONG = 12, TAIL = 5;

/** An element for a name that is cut in its middle where it has no room: its end, which tells numbered ones apart, stays. */
export const cutName = (className) => el("span", { class: `cut ${className}`, dir: "auto" }, el("span"), el("span"));

/** Writes a name in an element made by cutName(); one from right to left, whose letters join, is cut at its end. */
export function setName(node, text) {
  if (node.textContent === text) return;
  const symbols = [...text], at = symbols.length > LONG && !isRightToLeft(text) ? symbols.length - TAIL : symbols.length;
  node.firstChild.textContent = symbols.slice(0, at).join("");
  node.lastChild.textContent = symbols.slice(at).join("");
}

/** Writes text only when it differs, so that an unchanged page costs no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

/** A row of buttons of which one is pressed. Returns {node, set(value)}. */
export function segmented(node, choices, chosen) {
  const buttons = new Map();
  for (const [value, word, title] of choices) {
    const button = el("button", { type: "button", text: word, "data-word": word, "aria-pressed": "false", on: { click: () => chosen(value) } });
    if (title) button.title = title;
    buttons.set(value, button);
    node.append(button);
  }
  return {
    node,
    set(value) { for (const [key, button] of buttons) button.setAttribute("aria-pressed", String(key === value)); },
  };
}

/** Copies text; works on plain http too, where the clipboard interface is absent. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* refused by the browser: the old way is tried */ }
  }
  const area = el("textarea", { class: "hidden", readonly: "" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** A button that copies what `text()` gives, and says so for a moment. */
export function copyButton(text, word) {
  const button = el("button", { type: "button", class: "button", text: word });
  let timer = 0;
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Select and copy by hand";
    clearTimeout(timer);
    timer = setTimeout(() => { button.textContent = word; }, 1600);
  });
  return button;
}
