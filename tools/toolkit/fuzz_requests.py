"""Targets ``live`` and ``control``: what dashboards and commands ask, up to the hub and to the desk's commands.

``live``: byte 0 chooses the subprotocol (bit 0), then steps:

    00 n        a reading of device n comes, and the hub's grid turns
    01 n        the dashboard has read nothing (n odd), or all
    02 n m      the following n + 256 m bytes are a text message; 03 n m a binary one

Whatever is asked, each answer is one of the contract's (section 5), errors are words of one line, subscriptions stay
within their bound, and once all are ended the hub holds none.

``control``: the input is one request, text unless byte 0 is odd.  It has one answer with its id, and is never a fault.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from gateway.clock import ClockRules
from gateway.devices import DeviceBook
from gateway.hub import Hub, Subscription
from gateway.reading import Reading
from gateway.server import desk as desks
from gateway.server.control import Control
from gateway.server.desk import Desk
from gateway.server.live import MAX_SUBSCRIPTIONS, MSGPACK, Client, LiveEndpoint, encode_frame
from gateway.server.refusals import Refusals
from gateway.ws import Message, Prepared

from .fuzzing import Finding, Target

__all__ = ["TARGETS"]

NOW = 1_764_000_000_000_000_000
DEVICES = 5
KINDS = {"hello", "snapshot", "history", "update", "presence", "mode", "heartbeat", "error", "command_state"}
CODES = {"bad_request", "too_many_subscriptions", "unsupported", "history_failed", "forbidden"}


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


class Faults(logging.Handler):
    """What is logged as an error meanwhile is a finding."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def __enter__(self) -> Faults:
        logging.getLogger("gateway").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("gateway").removeHandler(self)
        if self.found:
            raise Finding(self.found[0])


def _check_words(detail: object) -> None:
    if not isinstance(detail, str) or len(detail) > 512:
        raise Finding(f"{detail!r:.600} for a detail")


# The live feed


class Socket:
    """A dashboard's WebSocket; keeps what it is sent."""

    remote = ("127.0.0.1", 5)

    def __init__(self, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self.state: dict[str, Any] = {}
        self.sent: list[dict[str, Any]] = []
        self.pending_bytes = 0
        self.closed = 0

    def try_send(self, frame: Prepared) -> int:
        data = bytes(frame.frame)
        size = data[1]
        payload = data[4 if size == 126 else 10 if size == 127 else 2 :]
        self.sent.append(msgspec.msgpack.decode(payload) if self.subprotocol == MSGPACK else json.loads(payload))
        return 0

    def close_soon(self, code: int, reason: str = "") -> None:
        Message.close(code, reason)
        self.closed = code


class Dashboard(Client):
    """Without history, which is no part of this."""

    async def _history(self, subscription: Subscription, length: int, after: int | None) -> None:
        self._reading.pop(subscription.id, None)
        self._endpoint.hub.release(self, subscription)


def check_live(data: bytes) -> None:
    """A dashboard's life."""
    if data:
        with Faults():
            _loop().run_until_complete(_live(data))


async def _live(data: bytes) -> None:
    book = DeviceBook(Path("devices.msgpack"), rate=5, burst=5)
    for number in range(DEVICES):
        book.open(f"device-{number}")
    hub: Hub[Prepared] = Hub(book, encode_frame)
    journal = SimpleNamespace(oldest_offset=1 << 62)  # holds nothing: what the hub has forgotten is gone
    endpoint = LiveEndpoint(hub, cast("Any", None), cast("Any", journal), "e", now=lambda: NOW)
    socket = Socket(MSGPACK if data[0] & 1 else None)
    client = Dashboard(endpoint, cast("Any", socket))
    offset = 0
    for kind, number, payload in _steps(data[1:]):
        if kind == 0:
            offset += 1
            values = {f"m{number % 3}": number / 4, "big": 1 << 60}
            hub.publish(Reading(f"device-{number % DEVICES}", "s", offset, NOW + offset, NOW, values), offset, 50)
            hub.tick()
        elif kind == 1:
            socket.pending_bytes = (number & 1) << 21
        else:
            try:
                message = Message("text", payload.decode()) if kind == 2 else Message("binary", payload)
            except UnicodeDecodeError:
                continue
            client.message(message)
            await asyncio.sleep(0)
        _check_sent(socket)
        if len(client._subscriptions) > MAX_SUBSCRIPTIONS:
            raise Finding(f"{len(client._subscriptions)} subscriptions")
    client.closed()
    for _ in range(3):
        hub.tick()
        await asyncio.sleep(0)
    if held := hub.stats()["subscribers"]:
        raise Finding(f"{held} subscribers are left")


def _check_sent(socket: Socket) -> None:
    sent, socket.sent = socket.sent, []
    for message in sent:
        if message.get("type") not in KINDS:
            raise Finding(f"{message!r:.300}")
        if message["type"] == "error":
            _check_words(message["detail"])
            if message["code"] not in CODES or len(message.get("id", "")) > 64 or len(message.get("ref", "")) > 64:
                raise Finding(f"{message!r:.300}")


def _steps(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 1 < len(data):
        kind, number = data[at] % 4, data[at + 1]
        at += 2
        payload = b""
        if kind > 1:
            size = number + 256 * data[at] if at < len(data) else 0
            payload = data[at + 1 : at + 1 + size]
            at += 1 + size
        yield kind, number, payload


# The control socket


class Terminal:
    """A command's WebSocket."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send(self, data: str) -> None:
        self.sent.append(json.loads(data))


class Journal:
    """Holds nothing."""

    durable_offset = 0

    def next_held(self, offset: int) -> int:
        return offset

    async def read_from(self, offset: int, max_readings: int = 1000) -> None:
        return None


@cache
def _control() -> Control:
    book = DeviceBook(Path("devices.msgpack"), rate=5, burst=5)
    for number in range(DEVICES):
        book.open(f"device-{number}")
    desk = Desk(
        book=book,
        journal=cast("Any", Journal()),
        runners=(),
        refused=Refusals(),
        health=dict,
        journal_problem=str,
        rate=5.0,
        burst=5.0,
        clock_rules=ClockRules(),
    )

    async def tail(params: dict[str, Any]) -> AsyncIterator[object]:
        """As the desk's, without its end in the stars."""
        msgspec.convert(params, desks._Devices)
        yield []

    async def top(params: dict[str, Any]) -> AsyncIterator[object]:
        """Likewise."""
        msgspec.convert(params, desks._Top)
        yield {}

    return Control(Path(), {**desk.commands, "tail": tail, "top": top})


def check_control(data: bytes) -> None:
    """One request."""
    if not data:
        return
    try:
        message = Message("binary", data[1:]) if data[0] & 1 else Message("text", data[1:].decode())
    except UnicodeDecodeError:
        return
    terminal = Terminal()
    with Faults():
        _loop().run_until_complete(_control()._answer(cast("Any", terminal), message))
    answers = [answer for answer in terminal.sent if "ok" in answer]
    if len(answers) != 1 or terminal.sent[-1] is not answers[0]:
        raise Finding(f"{terminal.sent!r:.300}")
    if not answers[0]["ok"] and not (answers[0]["error"] and isinstance(answers[0]["error"], str)):
        raise Finding(f"{answers[0]!r:.300}")


def _text(*messages: object) -> bytes:
    return b"".join(_step(2, msgspec.json.encode(message)) for message in messages)


def _step(kind: int, payload: bytes) -> bytes:
    return bytes((kind, len(payload) & 255, len(payload) >> 8)) + payload


_SUBSCRIBE: dict[str, Any] = {"type": "subscribe", "id": "a", "devices": ["device-*"], "metrics": ["m?", "big"]}
_LIVE = (
    b"\0" + _text(_SUBSCRIBE) + b"\0\1\0\2\0\3" + _text({"type": "unsubscribe", "id": "a"}, {"type": "heartbeat"}),
    b"\0" + _text({**_SUBSCRIBE, "mode": "every", "epoch": "e", "after": 0}) + b"\0\1\1\1\0\2\0\3\1\0\0\4",
    b"\0" + _text({**_SUBSCRIBE, "history_s": 60, "interval_ms": 50}, {**_SUBSCRIBE, "id": "b"}, _SUBSCRIBE) + b"\0\7",
    b"\1" + _step(3, msgspec.msgpack.encode(_SUBSCRIBE)) + b"\0\1" + _text({"type": "unsubscribe", "id": "b"}),
    b"\0" + _text({"type": "command", "ref": "x", "device": "d", "name": "n", "params": {"a": [1]}, "ttl_s": 1}),
    b"\0" + _text({"type": "auth", "token": "x"}, {"type": "subscribe", "metrics": ["none"]}, {"type": "y"}) + b"\0\0",
    b"\0" + _text(*({"type": "subscribe", "id": f"{n}"} for n in range(18))),
)
_CONTROL = tuple(
    b"\0" + msgspec.json.encode({"id": 1, "command": command, "params": params})
    for command, params in (
        ("health", {}),
        ("devices", {"device": "device-*"}),
        ("explain", {"device": "device-1"}),
        ("explain", {"device": "devise-1"}),
        ("dead-letters", {"sink": "mqtt"}),
        ("dead-letters show", {"limit": 3, "offsets": [1, 2]}),
        ("dead-letters purge", {"offsets": None}),
        ("dead-letters retry", {}),
        ("tail", {"device": "*"}),
        ("top", {"limit": 5, "interval_s": 1.5}),
    )
)
_TOKENS = (
    *(
        b'"type":"subscribe"',
        b'"devices":["',
        b'"metrics":["none"]',
        b'"id":',
        b'"after":',
        b'"epoch":"e"',
        b'"mode":"every"',
    ),
    *(
        b'"interval_ms":',
        b'"history_s":',
        b"null",
        b"1e999",
        b"-1",
        b"NaN",
        b'"\\ud800"',
        b"*?*",
        b"[[[[",
        b'"params":',
        b"{}",
    ),
    *(b"9223372036854775808", b"\xdd\xff\xff\xff\xff", b"\xa4type", b"\xa9subscribe", b"1" * 5000, b'"\\u0000"'),
)

TARGETS = {
    "live": Target("live", "a dashboard's messages to the hub", check_live, _LIVE, _TOKENS, 4096),
    "control": Target("control", "a command's request", check_control, _CONTROL, _TOKENS, 4096),
}
