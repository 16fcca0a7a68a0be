"""Every seam of the layer between a socket and a handler, as functions of arbitrary bytes.

A target takes bytes and raises where the layer does what it must not.  They serve a coverage-guided fuzzer for hours
and a short run in the tests alike.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.ws import BearerAuth, Message, Request, Response, Router, Server, message_handler
from gateway.ws.reception import MAX_HEAD_BYTES, Reception
from gateway.ws.request import BadRequest, Headers

from .rig import LIMIT, Rig, Sink, by_the_library
from .support import echo, frame

__all__ = ["SEEDS", "TARGETS"]


def pieces(data: bytes, seed: int) -> list[bytes]:
    """``data`` in pieces of random sizes; whole for 0."""
    if not seed:
        return [data] if data else []
    chance = random.Random(seed)
    cut = []
    while data:
        size = chance.choice([1, 2, 3, 6, 7, 14, 50, 500, 5000])
        cut.append(data[:size])
        data = data[size:]
    return cut


def stream(data: bytes) -> None:
    """Any bytes as frames, in any pieces, with pauses: the same messages and answers as from the library alone."""
    if len(data) < 2:
        return
    seed, pauses, data = data[0], data[1] & 1, data[2:20_000]
    expected = by_the_library(data)
    rig = Rig()
    try:
        chance = random.Random(seed)

        def keep(message: Message) -> None:
            assert not rig.ws._paused, "delivered while paused"
            rig.seen.append(message)
            if pauses and chance.random() < 0.4:
                rig.ws.pause()
                rig.loop.call_soon(rig.ws.resume)

        rig.handle = keep
        for piece in pieces(data, seed):
            rig.feed(piece)
            while rig.ws._paused or rig.ws._loop._ready:  # type: ignore[attr-defined]
                rig.loop.run_until_complete(asyncio.sleep(0))
        assert rig.outcome() == expected, (rig.outcome(), expected)
    finally:
        rig.end()


def frames(data: bytes) -> None:
    """The same for bytes that are made into frames: each takes a head of three bytes and a payload."""
    built, rest = data[:2], data[2:]
    while len(rest) >= 3:
        first, size, key = rest[0], rest[1], rest[2]
        payload, rest = rest[3 : 3 + size], rest[3 + size :]
        mask = None if key == 0 else bytes([key, first, size, key ^ 0x55])
        long = LIMIT - 3 + size % 6 if key & 0x70 == 0x70 else len(payload)
        payload = payload.ljust(long, b"x")[:long]
        built += frame(first & 0x0F, payload, fin=bool(first & 0x80), rsv=first >> 4 & 7, mask=mask)
    stream(built)


class Quiet(Server):
    """A server without a listener, on a loop that never waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, router: Router) -> None:
        super().__init__(router, heartbeat=None, max_message_bytes=LIMIT)
        self.loop = loop
        self.beats = type("Beats", (), {"add": lambda *_: None, "discard": lambda *_: None})()  # type: ignore[assignment]
        self._emptied = asyncio.Event()


async def note(request: Request, call_next: Any) -> Response:
    request.state["noted"] = True
    response = await call_next(request)
    response.headers["X-Noted"] = "yes"
    return response  # type: ignore[no-any-return]


ROUTES = Router()
ROUTES.websocket("/", message_handler(echo, inline=True), subprotocols=["b", "a"], compression=True)
ROUTES.websocket(
    "/d/{device}/{n:int}",
    message_handler(lambda ws, message, device, n: f"{device} {n}", inline=True),
    origins=["http://a", None],
)
ROUTES.websocket("/secure/x", message_handler(echo, inline=True))
ROUTES.get("/page/{rest:path}", lambda request, rest: Response(200, rest.encode("utf-8", "replace")))
ROUTES.middleware(note)
ROUTES.middleware(BearerAuth({"t": 1}.get), paths="/secure/*")

LOOP = asyncio.new_event_loop()


def head(data: bytes) -> None:
    """Any bytes as a request: an answer that is HTTP, or nothing yet; never an error of the program."""
    if not data:
        return
    server = Quiet(LOOP, ROUTES)
    reception = Reception(server)
    transport = Sink()
    protocols: list[Any] = [reception]
    transport.set_protocol = protocols.append  # type: ignore[method-assign]
    reception.connection_made(transport)
    for piece in pieces(data[1:], data[0]):
        for start in range(0, len(piece), len(server.buffer)):
            part = piece[start : start + len(server.buffer)]
            if transport.closing:
                break
            server.buffer[: len(part)] = part
            protocols[-1].buffer_updated(len(part))
            for _ in range(4):
                LOOP.run_until_complete(asyncio.sleep(0))
    counters = server.counters
    assert counters.handler_errors == 0
    written = transport.written
    if written:
        assert written.startswith(b"HTTP/1.1 "), written[:40]
        status = int(written[9:12])
        assert (status == 101) == (len(protocols) == 2)
        assert status == 101 or written.count(b"\r\nConnection: close\r\n") == 1
        assert status != 500
    else:
        assert len(data) - 1 <= MAX_HEAD_BYTES or b"\r\n\r\n" not in data
    protocols[-1].connection_lost(None)
    for _ in range(3):
        LOOP.run_until_complete(asyncio.sleep(0))
    assert not server._open
    assert not server._held
    assert not server._waiting
    assert not server._lingering
    assert not server._addresses
    timers = [handle for handle in LOOP._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert not timers, timers


def target(data: bytes) -> None:
    """Any text as a request's target: segments without a slash, or a bad request."""
    text = data.decode("latin-1")
    try:
        request = Request("GET", text, Headers())
    except BadRequest:
        return
    assert request.path.startswith("/")
    assert "\0" not in request.path
    for name in request.query:
        assert request.query[name] == request.query.getlist(name)[-1]
    ROUTES.match(request.path[1:].split("/"))


class Move(msgspec.Struct, tag="move"):
    x: int
    name: str = ""


class Stop(msgspec.Struct, tag="stop"):
    after: float | None = None


def decode(data: bytes) -> None:
    """Any bytes as a message's JSON: objects, or a DecodeError."""
    for kind in (None, Move | Stop, dict[str, float]):
        messages = [Message("binary", data)]
        try:
            messages.append(Message("text", data.decode()))
        except UnicodeDecodeError:
            pass
        for message in messages:
            try:
                message.decode(kind)
            except msgspec.DecodeError:
                continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "stream": stream,
    "frames": frames,
    "head": head,
    "target": target,
    "decode": decode,
}

_upgrade = (
    b"\x00GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)

# What a fuzzer starts from.
SEEDS: dict[str, list[bytes]] = {
    "stream": [
        b"\x00\x00" + frame(1, b"hello") + frame(2, b"\xff" * 130) + frame(8, b"\x03\xe8bye"),
        b"\x03\x01"
        + frame(1, b"he", fin=False)
        + frame(9, b"p")
        + frame(0, b"llo")
        + frame(10)
        + frame(1, "ż".encode()),
        b"\x05\x00" + frame(2, b"x" * LIMIT, size=8) + frame(2, length=LIMIT + 1) + struct.pack("!H", 1000),
    ],
    "frames": [
        b"\x00\x00\x81\x05\x11hello\x82\x00\x22\x88\x02\x33\x03\xe8",
        b"\x07\x01\x01\x01\x11a\x89\x01\x12p\x80\x01\x13b",
    ],
    "head": [
        _upgrade + b"\r\n" + frame(1, b"early"),
        _upgrade + b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        _upgrade.replace(b"GET /", b"GET /d/p%C3%BC/12?a=b") + b"Origin: http://a\r\n\r\n",
        _upgrade.replace(b"GET /", b"GET /secure/x") + b"Authorization: Bearer t\r\n\r\n",
        b"\x01GET /page/a/b%20c HTTP/1.0\r\n\r\n",
        b"\x02POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ],
    "target": [b"/d/p/1?a=b&a=%20+c#f", b"http://host:1/%C3%BC/%2525", b"*", b"/%2f/%00"],
    "decode": [b'{"type":"move","x":1,"name":"a"}', b'{"type":"stop","after":null}', b"[[1.5e300]]"],
}
