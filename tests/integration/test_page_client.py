"""The page's own client of the feed, as a module in a real browser, before a gateway that the test plays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

STATIC = Path(__file__).parents[2] / "gateway" / "server" / "static"

# A gateway that says what the test tells it, in place of the browser's sockets: `sockets` are those made so far, each
# with what was `sent`; `open(n)` says hello on the n-th, `say(n, message)` anything, `end(n, code)` closes it.
PLAYED = """
const sockets = [], told = [], real = window.WebSocket;
window.WebSocket = class { constructor() { this.sent = []; sockets.push(this); }
  send(text) { this.sent.push(JSON.parse(text)); } close() {} };
const say = (n, message) => sockets[n].onmessage({data: JSON.stringify(message)});
const open = (n, limits = {}) => say(n, {type: 'hello', epoch: 'e', offset: 1, heartbeat_s: 5, auth: 'ok',
  time: Date.now(), limits});
const end = (n, code, reason = '') => sockets[n].onclose({code, reason});
const hear = (name) => Object.fromEntries(['snapshot', 'history', 'update', 'error'].map(
  (type) => [type, (message) => told.push([name, type, message.id, message.offset ?? message.code])]));
const {GatewayLive} = await import('/gateway-live.js');
const live = new GatewayLive('ws://played/v1/live', {random: () => 0});
live.start();
const reconnected = async (n) => { for (let i = 0; i < 200 && sockets.length <= n; i += 1) {
  await new Promise((next) => setTimeout(next, 20)); } };
"""


class Files(SimpleHTTPRequestHandler):
    """The page's files, and no word about them."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    """Where the page's modules can be had, and no gateway is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=STATIC)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def played(chromium: Chrome, files: str, steps: str) -> Any:
    """What ``steps`` (JavaScript, see above) return."""
    chromium.get(f"{files}/icon.svg")
    kept = f"try {{ return await (async () => {{ {steps} }})(); }} finally {{ live.stop(); window.WebSocket = real; }}"
    return chromium.execute_async_script(
        f"const told_to = arguments[0]; (async () => {{ {PLAYED} {kept} }})().then(told_to, (it) => told_to(`${{it}}`))"
    )


def test_a_replaced_subscription_gets_nothing_of_the_old_one(chromium: Chrome, files: str) -> None:
    """What is still under way for a subscription that was replaced, or made anew, reaches neither; ids are its own."""
    told, ids = played(
        chromium,
        files,
        """
        open(0);
        live.subscribe('main', {devices: ['a']}, hear('old'));
        live.subscribe('main', {devices: ['b']}, hear('new'));
        live.subscribe('x'.repeat(80), {}, hear('long'));
        const asked = sockets[0].sent, [old, over, fresh, long] = asked;
        for (const {id} of [old, fresh, long]) {
          say(0, {type: 'snapshot', id, offset: 5, devices: {}});
          say(0, {type: 'update', id, offset: 6, data: {}});
        }
        return [told, [old.id === over.id, over.type, old.id === fresh.id, fresh.devices, long.id.length <= 64]];
        """,
    )
    assert told == [
        *(["new", "snapshot", "main", 5], ["new", "update", "main", 6]),
        *(["long", "snapshot", "x" * 80, 5], ["long", "update", "x" * 80, 6]),
    ]
    assert ids == [True, "unsubscribe", False, ["b"], True]


def test_what_is_too_big_is_told_and_not_sent(chromium: Chrome, files: str) -> None:
    """A message beyond the gateway's limit is not sent: its subscription hears why, and the others go on."""
    told, sent, answer, events = played(
        chromium,
        files,
        """
        const events = [];
        live.addEventListener('error', (event) => events.push(event.detail.code));
        live.subscribe('big', {devices: Array.from({length: 40}, (_, i) => `pümp-${i}`)}, hear('big'));
        live.subscribe('small', {devices: ['a']}, hear('small'));
        open(0, {max_message_bytes: 300});
        const answer = live.send({type: 'command', params: 'ü'.repeat(149)});
        return [told, sockets[0].sent.map((it) => it.devices), answer, events];
        """,
    )
    assert told == [["big", "error", "big", "too_big"]]
    assert sent == [["a"]]
    assert answer is False
    assert events == ["too_big"]


def test_what_was_closed_as_too_big_is_not_repeated(chromium: Chrome, files: str) -> None:
    """A subscription for which somebody on the way closes with 1009 is not made again after the reconnect."""
    told, again = played(
        chromium,
        files,
        """
        live.subscribe('small', {devices: ['a']}, hear('small'));
        live.subscribe('big', {devices: Array.from({length: 40}, (_, i) => `pump-${i}`)}, hear('big'));
        open(0);
        const asked = sockets[0].sent.length;
        end(0, 1009);
        await reconnected(1);
        open(1);
        end(1, 1006);
        await reconnected(2);
        open(2);
        return [told, [asked, ...[1, 2].map((n) => sockets[n].sent.map((it) => it.devices.length))]];
        """,
    )
    assert told == [["big", "error", "big", "too_big"]] * 2, "after each reconnect"
    assert again == [2, [1], [1]]
