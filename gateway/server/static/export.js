// What is shown, to take along: a device's readings as CSV, in pieces so that any number fits through, and its charts as one picture.

import { ApiError } from "./api.js";
import { el } from "./dom.js";
import { colours } from "./plot.js";

const CSV_MOST = 100e6; // characters of a file, which is held in memory until it is saved

/** Saves a blob under a name. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob), link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** A name for a file: the device, and from when to when (UTC). */
export function fileName(device, { from, to }, ending) {
  const at = (ms) => new Date(ms).toISOString().slice(0, 19).replace(/[-:]/g, "");
  return `${device.replace(/[^\w.-]/g, "_")}_${at(from)}_${at(to)}.${ending}`;
}

/**
 * A device's readings in the window as the gateway's CSV, in ascending time: {blob, until}; `until` is below the window's end where
 * the file became too large for the rest. A range with more readings than an answer holds is asked for in halves. Raises ApiError.
 */
export async function csv(device, window) {
  const parts = [], left = [[Math.floor(window.from), Math.ceil(window.to)]];
  let size = 0, until = left[0][1];
  while (left.length) {
    const [from, to] = left.pop(), { text, truncated } = await rows(device, from, to);
    if (truncated && to > from) {
      const middle = Math.floor((from + to) / 2);
      left.push([middle + 1, to], [from, middle]);
      continue;
    }
    parts.push(parts.length ? text.slice(text.indexOf("\n") + 1) : text);
    size += text.length;
    if (size < CSV_MOST || !left.length) continue;
    until = to;
    break;
  }
  return { blob: new Blob(parts, { type: "text/csv" }), until };
}

async function rows(device, from, to) {
  const response = await fetch(`api/v1/history?${new URLSearchParams({ device, from, to, format: "csv" })}`, { cache: "no-store" });
  if (!response.ok) throw new ApiError(response.status, `${response.status} ${response.statusText}`.trim());
  return { text: await response.text(), truncated: response.headers.get("X-Truncated") === "true" };
}

const PAD = 14, GAP = 14, TOP = 46, LINE = 18, COLUMNS = 2;

/** The charts as a canvas: `cards` are {title, value, extent, canvas, lines}; with a `canvas` it is drawn, else `lines` of text. */
export function picture(title, subtitle, cards) {
  const scale = devicePixelRatio, { panel, ink, mute, line } = colours();
  const size = (card) => (card.canvas ? [card.canvas.width / scale, card.canvas.height / scale] : [0, card.lines.length * LINE]);
  const wide = Math.max(320, ...cards.map((card) => size(card)[0])) + 2 * PAD;
  const columns = Math.min(COLUMNS, cards.length) || 1, rows = [];
  for (let i = 0; i < cards.length; i += columns) {
    const row = cards.slice(i, i + columns);
    rows.push({ row, high: Math.max(...row.map((card) => size(card)[1])) + TOP + 2 * PAD });
  }
  const canvas = el("canvas"), width = columns * wide + (columns + 1) * GAP;
  const height = 64 + rows.reduce((sum, { high }) => sum + high + GAP, 0);
  canvas.width = Math.ceil(width * scale);
  canvas.height = Math.ceil(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = colours().bg;
  pen.fillRect(0, 0, width, height);
  const say = (text, x, y, font, colour, align = "left", room = wide) => {
    pen.font = `${font} system-ui, sans-serif`;
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.fillText(text, x, y, room);
  };
  say(title, GAP, 30, "700 20px", ink, "left", width - 2 * GAP);
  say(subtitle, GAP, 50, "12px", mute, "left", width - 2 * GAP);
  let y = 64;
  for (const { row, high } of rows) {
    row.forEach((card, i) => {
      const x = GAP + i * (wide + GAP);
      pen.fillStyle = panel;
      pen.strokeStyle = line;
      pen.beginPath();
      pen.roundRect(x + 0.5, y + 0.5, wide - 1, high - 1, 10);
      pen.fill();
      pen.stroke();
      say(card.title, x + PAD, y + PAD + 10, "14px", mute, "left", wide * 0.5);
      say(card.extent, x + wide - PAD, y + PAD + 10, "12px", mute, "right", wide * 0.45);
      say(card.value, x + PAD, y + PAD + 36, "600 24px", ink, "left", wide - 2 * PAD);
      if (card.canvas) pen.drawImage(card.canvas, x + PAD, y + PAD + TOP, ...size(card));
      else card.lines.forEach((text, k) => say(text, x + PAD, y + PAD + TOP + (k + 0.7) * LINE, "12px", ink, "left", wide - 2 * PAD));
    });
    y += high + GAP;
  }
  return canvas;
}
