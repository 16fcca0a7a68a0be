/**
 * A client for the gateway's live feed. No dependencies, no build step; usable outside this page:
 *
 *   import { GatewayLive } from "./gateway-live.js";
 *   const live = new GatewayLive("ws://gateway:8080/v1/live");
 *   live.subscribe("main", { devices: ["pump-*"], history_s: 300 }, {
 *     snapshot(m) {}, history(m) {}, update(m) {}, presence(m) {}, mode(m) {}, error(m) {},
 *   });
 *   live.addEventListener("state", () => console.log(live.state.phase, live.state.seconds));
 *   live.start();
 *
 * Phases: idle, connecting, open, waiting (state.seconds until the next try), refused (the gateway said that trying
 * again is of no use; state.asked: that it wants a token), stopped. A "state" event follows each change, and each second while waiting.
 *
 * The feed is taken for dead when nothing at all, not even its heartbeat, came for two heartbeats and a half. Tries follow each other
 * with full jitter: a random wait below a bound that doubles. After a reconnect each subscription is made again with the epoch and
 * the last offset seen, and its next snapshot says by `recovered` whether everything missed is in the answer.
 * A snapshot of very many series comes in parts, each of other devices: all but the last have `more`.
 *
 * On the wire each subscription has an id of its own, never used twice, so that nothing meant for one that was replaced reaches its
 * successor; handlers see the id given. What is larger than the gateway takes (`limits.max_message_bytes`, or what somebody on the way has
 * closed with 1009) is not sent: the subscription's `error` handler, else an "error" event, gets {type, code: "too_big", detail}.
 */

const BASE_MS = 500, CAP_MS = 15_000, LEAST_MS = 200, OPENING_MS = 10_000, STEADY_MS = 5_000;
const FINAL = new Set([1008, 4001]), TOO_BIG = 1009, NAME_MAX = 48;
const ASKED = "this gateway asks for a token";
const bytesOf = (text) => new TextEncoder().encode(text).length;

export class GatewayLive extends EventTarget {
  #url; #token; #random; #socket = null; #subscriptions = new Map(); #timer = 0; #watch = 0; #attempt = 0; #opened = 0; #last = 0; #begun = 0;
  #state = { phase: "idle", reason: "", seconds: 0, retryAt: 0, attempt: 0 };
  #skew = 0; #wires = new Map(); #named = 0; #room = Infinity; #largest = 0;

  /** `url`: ws or wss address. `token`: for gateways that ask for one. `random`: 0 to 1, for tests. */
  constructor(url, { token = "", random = Math.random } = {}) {
    super();
    this.#url = url;
    this.#token = token;
    this.#random = random;
    this.epoch = "";
    this.heartbeat_s = 5;
    this.limits = {};
  }

  get state() { return this.#state; }

  /** The gateway's clock, in milliseconds, as far as this side knows it. */
  now() { return Date.now() + this.#skew; }

  /** When anything was last heard, by the gateway's clock. */
  get heard() { return this.#last + this.#skew; }

  start() {
    if (!["idle", "stopped", "refused"].includes(this.#state.phase)) return;
    globalThis.addEventListener?.("online", this.#hurry);
    this.#attempt = 0;
    this.#room = Infinity;
    this.#connect();
  }

  stop() {
    globalThis.removeEventListener?.("online", this.#hurry);
    this.#drop(1000);
    this.#say("stopped", "");
  }

  /** Tries at once instead of waiting further. */
  retryNow() {
    if (this.#state.phase === "waiting" || this.#state.phase === "refused") this.#connect();
  }

  /** Subscribes now and after every reconnect. An id that is in use is replaced. `handlers`: one function a message type. */
  subscribe(id, options, handlers = {}) {
    this.unsubscribe(id);
    this.#named += 1;
    const wire = `${id.slice(0, NAME_MAX)}.${this.#named}`, subscription = { id, wire, options, handlers, offset: null, epoch: "", ready: false };
    this.#subscriptions.set(id, subscription);
    this.#wires.set(wire, subscription);
    if (this.#state.phase === "open") this.#ask(subscription);
  }

  unsubscribe(id) {
    const subscription = this.#subscriptions.get(id);
    if (!subscription) return;
    this.#subscriptions.delete(id);
    this.#wires.delete(subscription.wire);
    this.send({ type: "unsubscribe", id: subscription.wire });
  }

  /** Sends a message when the feed is open. Returns whether it was; one that is too big is not, and told by an "error" event. */
  send(message) {
    const error = this.#put(message);
    if (error) this.dispatchEvent(new CustomEvent("error", { detail: error }));
    return error === null;
  }

  /** Sends a message: null, or an error to tell, or undefined when the feed is not open. */
  #put(message) {
    if (this.#state.phase !== "open") return undefined;
    const text = JSON.stringify(message), size = bytesOf(text), most = Math.min(this.limits.max_message_bytes ?? Infinity, this.#room);
    if (size > most) return { type: "error", code: "too_big", detail: `a message of ${size} bytes was not sent: the gateway takes ${most} at the most` };
    this.#largest = Math.max(this.#largest, size);
    this.#socket.send(text);
    return null;
  }

  #hurry = () => this.retryNow();

  #connect() {
    this.#drop();
    this.#say("connecting", this.#state.reason);
    let socket;
    try {
      socket = new WebSocket(this.#url);
    } catch (error) {
      this.#say("refused", error.message);
      return;
    }
    this.#socket = socket;
    this.#begun = Date.now();
    this.#largest = 0;
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#ended(event.code, event.reason);
    socket.onopen = () => { if (this.#token) socket.send(JSON.stringify({ type: "auth", token: this.#token })); };
    this.#watch = setInterval(() => this.#look(), 1000);
  }

  /** Lets go of the socket without waiting for its far side, which may be gone. */
  #drop(code) {
    clearInterval(this.#watch);
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = socket.onopen = null;
    socket.close(code ?? 1000);
  }

  #look() {
    const silent = Date.now() - Math.max(this.#last, this.#begun);
    if (this.#state.phase === "open") {
      if (silent > this.heartbeat_s * 2500) this.#ended(0, `nothing heard for ${Math.round(silent / 1000)} s`);
    } else if (silent > OPENING_MS) {
      this.#ended(0, "no answer");
    }
  }

  #ended(code, reason) {
    const wasOpen = this.#state.phase === "open";
    this.#drop();
    for (const subscription of this.#subscriptions.values()) subscription.ready = false;
    // Which message it was is not told: none as large as the largest is sent again.
    if (code === TOO_BIG && this.#largest) this.#room = this.#largest - 1;
    if (FINAL.has(code)) {
      this.#say("refused", reason || `closed with ${code}`);
      return;
    }
    if (wasOpen && Date.now() - this.#opened > STEADY_MS) this.#attempt = 0;
    const asked = Number(/^retry_after_ms=(\d+)/.exec(reason)?.[1] ?? 0);
    const wait = Math.max(LEAST_MS, asked, this.#random() * Math.min(CAP_MS, BASE_MS * 2 ** this.#attempt));
    this.#attempt = Math.min(this.#attempt + 1, 16);
    const words = asked ? "the gateway is overloaded" : reason || WORDS[code] || (wasOpen ? "connection broken" : "no answer");
    this.#wait(Date.now() + wait, words);
  }

  #wait(until, reason) {
    const left = until - Date.now();
    if (left <= 0) { this.#connect(); return; }
    this.#say("waiting", reason, Math.ceil(left / 1000), until);
    this.#timer = setTimeout(() => this.#wait(until, reason), left % 1000 || 1000);
  }

  #say(phase, reason, seconds = 0, retryAt = 0) {
    this.#state = { phase, reason, seconds, retryAt, attempt: this.#attempt, asked: phase === "refused" && reason === ASKED };
    this.dispatchEvent(new CustomEvent("state", { detail: this.#state }));
  }

  #ask(subscription) {
    const message = { type: "subscribe", ...subscription.options, id: subscription.wire };
    if (subscription.offset !== null) { message.epoch = subscription.epoch; message.after = subscription.offset; }
    const error = this.#put(message);
    if (error) subscription.handlers.error?.({ ...error, id: subscription.id });
  }

  #receive(text) {
    this.#last = Date.now();
    let message;
    try { message = JSON.parse(text); } catch { return; }
    if (message.type === "hello") this.#hello(message);
    else if (message.type === "heartbeat") this.#skew = message.time - Date.now();
    else if (message.id === undefined) this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
    else this.#deliver(message);
  }

  #hello(message) {
    this.epoch = message.epoch;
    this.heartbeat_s = message.heartbeat_s ?? this.heartbeat_s;
    this.limits = message.limits ?? {};
    this.#skew = message.time - Date.now();
    if (message.auth === "required" && !this.#token) {
      this.#drop();
      this.#say("refused", ASKED);
      return;
    }
    if (this.#state.phase === "open") return;
    this.#opened = Date.now();
    this.#say("open", "");
    this.dispatchEvent(new CustomEvent("hello", { detail: message }));
    for (const subscription of this.#subscriptions.values()) this.#ask(subscription);
  }

  #deliver(message) {
    const subscription = this.#wires.get(message.id);
    if (!subscription) return;
    message.id = subscription.id;
    if (message.type === "snapshot") {
      subscription.ready = true;
      subscription.epoch = this.epoch;
    } else if (!subscription.ready && message.type !== "error") {
      return;
    }
    if (message.offset !== undefined) subscription.offset = message.offset;
    subscription.handlers[message.type]?.(message);
  }
}

const WORDS = { 1001: "the gateway is stopping", 1006: "connection broken", 1009: "a message was too big", 1011: "the gateway met an error", 1012: "the gateway restarts", 1013: "the gateway is overloaded" };
