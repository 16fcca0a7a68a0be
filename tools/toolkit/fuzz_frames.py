"""Target ``reader``: the connection's own reading of frames against the library's parser, byte for byte.

Input: four bytes that choose the circumstances, then what a client sends after its handshake.

    byte 0   the limit on messages, from LIMITS
    byte 1   how the stream is cut: 0 not at all, 1 into single bytes, otherwise at random, by this seed
    byte 2   0, or pause after every (n % 7 + 1)-th message
    byte 3   bit 0 permessage-deflate, bit 1 control frames are delivered, bit 2 the handler answers, bit 3 the peer
             ends its half while reading may be paused

The reference gives one frame at a time to the library and follows RFC 6455 in what the library leaves to others: it
puts fragments together and checks text, as early as a byte can be known to be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.ws import Connection, Message, Request, Router, Server
from gateway.ws.host import Terms
from gateway.ws.request import Headers

from .frames import BINARY, CLOSE, PING, PONG, TEXT, client_frame
from .fuzz_rig import Loop, Transport, Watch
from .fuzzing import Finding, Target

__all__ = ["TARGETS"]

LIMITS = (40, 125, 126, 300, 5000)
CONT = 0


def expected(data: bytes, limit: int, deflate: bool, control: bool, answers: bool) -> dict[str, Any]:
    """What has to come of ``data``: messages, frames sent, how it ended."""
    protocol = _protocol(limit, deflate)
    seen: list[tuple[str, str | bytes]] = []
    sent = b""
    eof = False
    kind, parts = TEXT, b""
    code: int | None = None
    reason = ""
    for piece in _frames(data):
        protocol.receive_data(piece)
        events = protocol.events_received()
        sent, eof = _add(sent, eof, protocol)
        for event in cast("list[Frame]", events):
            opcode, payload = int(event.opcode), bytes(event.data)
            whole: tuple[str, str | bytes] | None = None
            if opcode in (TEXT, BINARY, CONT):
                if opcode != CONT:
                    kind, parts = opcode, b""
                parts += payload
                if kind == TEXT and not _may_be_text(parts, event.fin):
                    protocol.fail(1007)
                    sent, eof = _add(sent, eof, protocol)
                    code = 1007
                    break
                if event.fin:
                    whole = ("text", parts.decode()) if kind == TEXT else ("binary", parts)
            elif control and opcode in (PING, PONG):
                whole = ("ping" if opcode == PING else "pong", payload)
            if whole is not None:
                seen.append(whole)
                if answers and whole[0] in ("text", "binary"):
                    answer = whole[1].encode() if isinstance(whole[1], str) else whole[1]
                    sent += Frame(cast("Any", TEXT if whole[0] == "text" else BINARY), answer).serialize(mask=False)
        if code is None and protocol.close_rcvd is not None:
            code, reason = int(protocol.close_rcvd.code), protocol.close_rcvd.reason
        if code is None and protocol.parser_exc is not None and protocol.close_sent is not None:
            code, reason = int(protocol.close_sent.code), protocol.close_sent.reason
        if code is not None:
            break
    return {"seen": seen, "sent": _replies(sent), "eof": eof, "code": code or 1006, "reason": reason}


def _protocol(limit: int, deflate: bool) -> ServerProtocol:
    protocol = ServerProtocol(state=State.OPEN, max_size=limit)
    if deflate:
        protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
    return protocol


def _frames(data: bytes) -> Iterator[bytes]:
    """``data`` cut before each frame (RFC 6455, 5.2), as far as headers can be believed."""
    at = 0
    while at < len(data):
        size = data[at + 1] & 0x7F if at + 1 < len(data) else 0
        start = at + 2 + (4 if at + 1 < len(data) and data[at + 1] & 0x80 else 0)
        if size >= 126:
            wide = 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
            start += wide
        yield data[at : start + size]
        at = start + size


def _add(sent: bytes, eof: bool, protocol: ServerProtocol) -> tuple[bytes, bool]:
    for piece in protocol.data_to_send():
        sent += piece
        eof = eof or not piece
    return sent, eof


def _may_be_text(data: bytes, whole: bool) -> bool:
    """Whether ``data`` is UTF-8, or, unless ``whole``, could still become it as far as Python's decoder can tell.

    That one takes the first two bytes of an encoded surrogate (ED A0 to ED BF) for a beginning; the third one tells.
    What stands before them has to be whole.
    """
    if not whole and len(data) > 1 and data[-2] == 0xED and 0xA0 <= data[-1] <= 0xBF:
        data, whole = data[:-2], True
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return not whole and error.reason == "unexpected end of data" and error.end == len(data)
    return True


def _replies(data: bytes) -> list[tuple[int, bytes]]:
    """A server's frames; of a 1007 only the code, since its reason is a matter of taste."""
    found = []
    at = 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size > 125:
            wide = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + wide], "big"), start + wide
        payload = data[start : start + size]
        found.append((data[at], payload[:2] if payload[:2] == b"\x03\xef" and data[at] == 0x88 else payload))
        at = start + size
    return found


class Rig:
    """One connection of ours on a transport in memory."""

    _loop = Loop()
    _server = Server(Router())
    _server.loop = cast("Any", _loop)
    _server.beats = cast("Any", type("Beats", (), {"add": lambda *_: None, "discard": lambda *_: None})())
    _server._emptied = cast("Any", type("Event", (), {"set": lambda _: None})())

    def __init__(self, limit: int, deflate: bool, control: bool, answers: bool, pause_after: int) -> None:
        self._loop.reset()
        terms = Terms(max_message_bytes=limit, heartbeat=None, control=control)
        protocol = _protocol(limit, deflate)
        self.ws = Connection(protocol, self._server, terms, Request("GET", "/", Headers()))
        self.transport = Transport()
        self.seen: list[tuple[str, str | bytes]] = []
        self.ends = 0
        self._answers = answers
        self._pause_after = pause_after
        self.ws._open(self.transport, b"", self._start, b"")

    def _start(self) -> None:
        self.ws._handler = self._handle
        self.ws.on_closed(self._ended)

    def _ended(self, ws: Connection) -> None:
        self.ends += 1

    def _handle(self, ws: Connection, message: Message) -> object:
        self.seen.append((message.kind, message.data))
        if self._pause_after and len(self.seen) % self._pause_after == 0:
            ws.pause()
        return message if self._answers and message.kind in ("text", "binary") else None

    def feed(self, data: bytes) -> None:
        """Hand over ``data`` as a loop would: also to one that has just paused, not before reading goes on."""
        if not self.transport.reading:
            self._go_on()
        if self.transport.gone:
            return
        self.ws.get_buffer(-1)[: len(data)] = data
        self.ws.buffer_updated(len(data))

    def _go_on(self) -> None:
        for _ in range(10_000):
            if self.transport.reading and not self.ws._paused:
                return
            self.ws.resume()
            self._loop.run()
        raise Finding("reading does not go on")

    def end(self, early: bool) -> None:
        """The peer ends its half, at once if ``early`` and its end is read at all while reading is paused."""
        if not (early and self.transport.reading):
            self._go_on()
        if not self.transport.gone:
            if self.ws.eof_received():
                self._go_on()
                if not self.transport.gone:
                    raise Finding("the peer's end is not followed by ours")
            self.transport.gone = True
        self.ws.connection_lost(None)
        self._loop.run()


def _cut(data: bytes, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    at = 0
    while at < len(data):
        size = len(data) if seed == 0 else 1 if seed == 1 else rng.choice((1, 2, 3, 7, 20, 130, 1000))
        yield data[at : at + size]
        at += size


def check(data: bytes) -> None:
    """The reader and the reference agree on ``data``."""
    if len(data) < 4:
        return
    limit, how, deflate, control = LIMITS[data[0] % len(LIMITS)], data[1], bool(data[3] & 1), bool(data[3] & 2)
    answers = bool(data[3] & 4) and not deflate
    pause_after = data[2] % 7 + 1 if data[2] else 0
    stream = data[4:]
    rig = Rig(limit, deflate, control, answers, pause_after)
    with Watch() as watch:
        for piece in _cut(stream, how):
            rig.feed(piece)
        rig.end(bool(data[3] & 8))
    ws = rig.ws
    found = {
        "seen": rig.seen,
        "sent": _replies(rig.transport.written),
        "eof": rig.transport.eof,
        "code": ws.close_code,
        "reason": ws.close_reason,
    }
    wanted = expected(stream, limit, deflate, control, answers)
    if wanted["code"] == 1007:
        found["reason"] = wanted["reason"] = ""
    watch.check()
    for name, value in wanted.items():
        if found[name] != value:
            raise Finding(f"{name}: {found[name]!r:.300} instead of {value!r:.300}")
    if rig.ends != 1:
        raise Finding(f"the end was told {rig.ends} times")


def _seed(*frames: bytes, limit: int = 3, cut: int = 0, pause: int = 0, flags: int = 0) -> bytes:
    return bytes((limit, cut, pause, flags)) + b"".join(frames)


def _fragment(first: int, payload: bytes) -> bytes:
    made = bytearray(client_frame(payload))
    made[0] = first
    return bytes(made)


def _deflated(payload: bytes) -> bytes:
    frame = PerMessageDeflate(True, True, 15, 15).encode(Frame(cast("Any", TEXT), payload))
    return _fragment(0xC1, bytes(frame.data))


_text = client_frame(b'{"temperature":22.5}')
_euro = "€".encode()
_fragments = (_fragment(0x01, b"a" + _euro[:2]), client_frame(b"?", PING), _fragment(0x80, _euro[2:] + b"b"))
_close = client_frame(b"\x03\xe8done", CLOSE)
_SEEDS = (
    _seed(_text, _text, _text),
    _seed(_text, client_frame(b"x" * 126, BINARY), client_frame(b"y" * 299), _close, limit=3),
    _seed(client_frame(b"z" * 4000), _text, limit=4, cut=9),
    _seed(client_frame(b"z" * 300), limit=2),
    _seed(*_fragments, _close, cut=1),
    _seed(*_fragments, _text, cut=5, pause=1, flags=6),
    _seed(client_frame(b"\xff\xfe"), _text),
    _seed(_fragment(0x01, b"\xed\xa0"), _fragment(0x80, b"\x80")),
    _seed(_fragment(0x01, b"\xdf\xed\xa0")),
    _seed(client_frame(b"", PING), client_frame(b"p", PONG), client_frame(b"", CLOSE), flags=2),
    _seed(_deflated(b"hello " * 20), _text, _deflated(b"x" * 200), flags=1, cut=3),
    _seed(_text, b"\x81\x05hello", _text),
    _seed(_text, client_frame(b"ok"), client_frame(b"\x00", CLOSE), _text, pause=2, flags=4),
    _seed(_text, _text, _text, _text, pause=7, flags=8),
    _seed(*_fragments, _text, _close, pause=1, flags=15),
)
_TOKENS = (
    b"\x81\x80\x00\x00\x00\x00",
    b"\x82\x81\x00\x00\x00\x00x",
    b"\x01\x80\x00\x00\x00\x00",
    b"\x00\x80\x00\x00\x00\x00",
    b"\x80\x80\x00\x00\x00\x00",
    b"\x89\x80\x00\x00\x00\x00",
    b"\x8a\x80\x00\x00\x00\x00",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x81\xfe\x00\x7e",
    b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x7e",
    b"\xc1\x80",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
)

TARGETS = {
    "reader": Target("reader", "reading frames, against the library's parser", check, _SEEDS, _TOKENS, 6000),
}
