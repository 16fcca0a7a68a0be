// When the gateway was away, as far as this page can tell: from the last thing heard of it to its start, when it has started anew.
// A link that broke while the gateway went on is no absence: what the gateway then tells of its devices covers that time too. Pure.

const MOST = 50, SLACK_MS = 300;

export class Away {
  #open = null;

  constructor() {
    this.spans = []; // [{from, to, settled}], ascending, the oldest goes
    this.started = 0; // when the gateway started; 0: not known
    this.first = 0; // when it had started at this page's first answer
  }

  /** The link is lost; `at`: when anything was last heard. */
  lost(at) {
    if (this.#open || !at) return;
    this.spans.push(this.#open = { from: at, to: Infinity, settled: false });
    if (this.spans.length > MOST) this.spans.shift();
  }

  /** The link is back. */
  back(at) {
    if (this.#open) this.#open.to = at;
    this.#open = null;
  }

  /** Takes an answer of /healthz, which tells since when the gateway runs. */
  health({ time, uptime_s: uptime }) {
    if (!(time > 0) || !(uptime >= 0)) return;
    const about = time - uptime * 1000, started = Math.abs(about - this.started) < SLACK_MS ? this.started : about;
    this.first ||= started;
    this.started = started;
    for (const span of this.spans) {
      if (span.settled || span === this.#open) continue;
      span.settled = true;
      span.to = started < span.from - SLACK_MS ? span.from : Math.max(span.from, started);
    }
    this.spans = this.spans.filter((span) => span.to > span.from);
  }
}
