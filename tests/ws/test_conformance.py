"""RFC 6455 over raw sockets: what a server must do with each kind of frame, and what becomes of each breach.

Every case runs against an inline handler and against one with a queue, in one piece and byte by byte.  Each names the
check it tests: a second test takes that check out, in the library or here, and sees the case fail.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import pytest
import websockets.frames as library
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.protocol import Protocol

import gateway.ws.reader as reader
from gateway.ws import Connection, message_handler, websocket_handler

from .support import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, close_frame, echo, frame, open_raw, serving

BOTH_LOOPS = True

LIMIT = 1000
BYE = close_frame(1000, b"bye")
SAID_BYE = Frame(CLOSE, b"\x03\xe8bye")


class Case(NamedTuple):
    """What the client sends, what comes back before the close frame, and the code of that."""

    name: str
    check: str
    sent: bytes
    answers: tuple[Frame, ...]
    code: int


def good(name: str, check: str, sent: bytes, *answers: Frame) -> Case:
    """Nothing is wrong: the client's own close frame comes back."""
    return Case(name, check, sent, answers, 1000)


def bad(name: str, check: str, code: int, sent: bytes, *answers: Frame) -> Case:
    """A breach: the connection is failed with ``code``, and the message behind it is not answered (7.1.7)."""
    return Case(name, check, sent + frame(TEXT, b"behind") + BYE, answers, code)


def text(data: bytes) -> Frame:
    return Frame(TEXT, data)


def binary(data: bytes) -> Frame:
    return Frame(BINARY, data)


EURO = "€".encode()
HELLO = frame(TEXT, b"hello")

CASES = [
    # 5.1, 5.2: the frame
    good("text", "answer", HELLO, text(b"hello")),
    good("binary", "answer", frame(BINARY, b"\x00\xff"), binary(b"\x00\xff")),
    good("empty text", "answer", frame(TEXT), text(b"")),
    good("empty binary", "answer", frame(BINARY), binary(b"")),
    good("mask of zeros", "answer", frame(TEXT, b"hello", mask=b"\0\0\0\0"), text(b"hello")),
    good("125 bytes", "answer", frame(BINARY, b"x" * 125), binary(b"x" * 125)),
    good("126 bytes", "answer", frame(BINARY, b"x" * 126), binary(b"x" * 126)),
    good("a length in eight bytes", "answer", frame(BINARY, b"x" * 200, size=8), binary(b"x" * 200)),
    good("many at once", "answer", HELLO * 20, *[text(b"hello")] * 20),
    good("as large as may be", "answer", frame(BINARY, b"x" * LIMIT), binary(b"x" * LIMIT)),
    bad("not masked", "masking", 1002, frame(TEXT, b"hello", mask=None)),
    bad("not masked, empty", "masking", 1002, frame(TEXT, mask=None)),
    bad(
        "not masked, binary, behind a good one", "masking", 1002, HELLO + frame(BINARY, b"x", mask=None), text(b"hello")
    ),
    bad("not masked ping", "masking", 1002, frame(PING, b"x", mask=None)),
    *[bad(f"reserved bits {rsv:03b}", "reserved", 1002, frame(TEXT, b"hello", rsv=rsv)) for rsv in range(1, 8)],
    bad("a reserved bit on a ping", "reserved", 1002, frame(PING, b"x", rsv=4)),
    bad("a reserved bit on a close frame", "reserved", 1002, frame(CLOSE, b"\x03\xe8", rsv=1)),
    bad("a reserved bit on a continuation", "reserved", 1002, frame(TEXT, b"a", fin=False) + frame(CONT, b"b", rsv=2)),
    *[
        bad(f"unknown opcode {opcode:#x}", "opcode", 1002, frame(opcode, b"hello"))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ],
    bad("unknown opcode behind a good message", "opcode", 1002, HELLO + frame(3), text(b"hello")),
    # 5.4: fragmentation
    good("two fragments", "answer", frame(TEXT, b"hel", fin=False) + frame(CONT, b"lo"), text(b"hello")),
    good("binary fragments", "answer", frame(BINARY, b"a", fin=False) + frame(CONT, b"b"), binary(b"ab")),
    good(
        "empty fragments",
        "answer",
        frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT, b"hello", fin=False) + frame(CONT),
        text(b"hello"),
    ),
    good("nothing but empty fragments", "answer", frame(BINARY, fin=False) + frame(CONT), binary(b"")),
    good(
        "whole messages around fragments",
        "answer",
        HELLO + frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + HELLO,
        text(b"hello"),
        text(b"ab"),
        text(b"hello"),
    ),
    bad("a continuation of nothing", "sequence", 1002, frame(CONT, b"x")),
    bad("a continuation of nothing, not final", "sequence", 1002, frame(CONT, b"x", fin=False)),
    bad("a continuation of a whole message", "sequence", 1002, HELLO + frame(CONT, b"x"), text(b"hello")),
    bad("text within text", "sequence", 1002, frame(TEXT, b"a", fin=False) + HELLO),
    bad("binary within text", "sequence", 1002, frame(TEXT, b"a", fin=False) + frame(BINARY, b"b")),
    bad(
        "a first fragment within fragments",
        "sequence",
        1002,
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b", fin=False),
    ),
    # 5.5: control frames
    good("ping", "pong", frame(PING, b"are you there"), Frame(PONG, b"are you there")),
    good("ping without data", "pong", frame(PING), Frame(PONG, b"")),
    good("the longest ping", "pong", frame(PING, b"x" * 125), Frame(PONG, b"x" * 125)),
    good("pings in order", "pong", frame(PING, b"1") + frame(PING, b"2"), Frame(PONG, b"1"), Frame(PONG, b"2")),
    good(
        "ping between fragments",
        "pong",
        frame(TEXT, b"hel", fin=False) + frame(PING, b"x") + frame(CONT, b"lo"),
        Frame(PONG, b"x"),
        text(b"hello"),
    ),
    good(
        "ping between messages",
        "pong",
        HELLO + frame(PING, b"x") + HELLO,
        text(b"hello"),
        Frame(PONG, b"x"),
        text(b"hello"),
    ),
    good("a pong nobody asked for", "answer", frame(PONG, b"x") + HELLO, text(b"hello")),
    good(
        "a pong between fragments",
        "answer",
        frame(TEXT, b"a", fin=False) + frame(PONG) + frame(CONT, b"b"),
        text(b"ab"),
    ),
    bad("a long ping", "control length", 1002, frame(PING, b"x" * 126)),
    bad("a long pong", "control length", 1002, frame(PONG, b"x" * 126)),
    bad("a long close frame", "control length", 1002, frame(CLOSE, b"\x03\xe8" + b"x" * 124)),
    bad("a ping in pieces", "control fragment", 1002, frame(PING, b"x", fin=False)),
    bad("a pong in pieces", "control fragment", 1002, frame(PONG, b"x", fin=False)),
    bad("a close frame in pieces", "control fragment", 1002, frame(CLOSE, b"\x03\xe8", fin=False)),
    # 5.5.1, 7.4: closing
    Case("close without a code", "answer", frame(CLOSE) + HELLO, (), 1005),
    *[
        Case(f"close with {code}", "answer", close_frame(code, b"why") + HELLO, (), code)
        for code in (1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    ],
    Case("the longest reason", "answer", close_frame(4000, b"x" * 123), (), 4000),
    bad("a close frame of one byte", "close length", 1002, frame(CLOSE, b"\x03")),
    *[
        bad(f"close with {code}", "close code", 1002, close_frame(code, b"why"))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ],
    bad("a reason that is not UTF-8", "close text", 1007, close_frame(1000, b"\xff")),
    Case("messages behind a close frame", "close", HELLO + close_frame(4000) + HELLO * 3, (text(b"hello"),), 4000),
    # 5.6, 8.1: UTF-8
    good("text beyond ASCII", "answer", frame(TEXT, EURO), text(EURO)),
    good("the last code point", "answer", frame(TEXT, b"\xf4\x8f\xbf\xbf"), text(b"\xf4\x8f\xbf\xbf")),
    good(
        "a character cut between frames", "answer", frame(TEXT, EURO[:1], fin=False) + frame(CONT, EURO[1:]), text(EURO)
    ),
    good(
        "a character cut around a ping",
        "answer",
        frame(TEXT, EURO[:2], fin=False) + frame(PING) + frame(CONT, EURO[2:]),
        Frame(PONG, b""),
        text(EURO),
    ),
    good("bytes that are not UTF-8 in binary", "answer", frame(BINARY, b"\xff\xfe"), binary(b"\xff\xfe")),
    *[
        bad(f"text {data.hex()}", "utf-8", 1007, frame(TEXT, data))
        for data in (b"\xff", b"a\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", EURO[:2], b"ok\xe2")
    ],
    bad("text behind a good one", "utf-8", 1007, HELLO + frame(TEXT, b"\xff"), text(b"hello")),
    bad("long text", "utf-8", 1007, frame(TEXT, b"x" * 200 + b"\xff")),
    bad(
        "fragments that are wrong together", "utf-8 pieces", 1007, frame(TEXT, EURO[:1], fin=False) + frame(CONT, b"x")
    ),
    bad("fragments that end too early", "utf-8 pieces", 1007, frame(TEXT, b"x", fin=False) + frame(CONT, EURO[:2])),
    Case("a first fragment that is wrong, at once", "utf-8 pieces", frame(TEXT, b"x\xff", fin=False), (), 1007),
    # 10.4: size
    bad("too large", "size", 1009, frame(BINARY, b"x" * (LIMIT + 1))),
    bad("too large with a good one before", "size", 1009, HELLO + frame(TEXT, b"x" * (LIMIT + 1)), text(b"hello")),
    bad("too large together", "size", 1009, frame(BINARY, b"x" * 600, fin=False) + frame(CONT, b"x" * 600)),
    Case("a header that promises too much", "size", frame(BINARY, length=LIMIT + 1), (), 1009),
    Case("a header that promises more than there is", "size", frame(BINARY, length=(1 << 63) - 1), (), 1009),
    Case("a header with the highest bit", "size", frame(BINARY, length=1 << 63), (), 1009),
]


async def observe(
    case: Case, handler: str, bytewise: bool, patience: float = 3
) -> tuple[tuple[Frame, ...], int | None]:
    """What comes back: the frames before the close frame, and its code; the stream must end."""

    async def loop(ws: Connection) -> None:
        async for message in ws:
            if message.kind != "close":
                await ws.send(message)

    endpoint = message_handler(echo, inline=True) if handler == "inline" else websocket_handler(loop)
    async with serving(endpoint, max_message_bytes=LIMIT, close_timeout=2) as server, open_raw(server.port) as raw:
        if bytewise:
            for index in range(len(case.sent)):
                raw.send(case.sent[index : index + 1])
                await asyncio.sleep(0)
        else:
            raw.send(case.sent)
        frames: list[Frame] = []
        if case.code == 1000 and handler == "inline":
            raw.send(BYE)
        while True:
            if case.code == 1000 and handler == "queue" and len(frames) == len(case.answers):
                raw.send(BYE)
            received = await raw.recv(patience)
            if received is None or received.opcode == CLOSE:
                break
            frames.append(received)
        assert not any(received.masked for received in frames), "a server must not mask"
        if received is None:
            return tuple(frames), None
        assert await raw.recv(patience) is None, "nothing may follow a close frame"
        return tuple(frames), received.code


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case(case: Case) -> None:
    """The frames come back and the close code is right."""
    assert await observe(case, "inline", bytewise=False) == (case.answers, case.code)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case_with_a_queue(case: Case) -> None:
    """The same, where a task takes messages from a queue; a breach may overtake the messages before it."""
    frames, code = await observe(case, "queue", bytewise=False)
    assert code == case.code
    if case.code == 1000:
        # A pong does not queue.
        assert sorted(frames, key=is_pong) == sorted(case.answers, key=is_pong)
    else:
        assert set(frames) <= set(case.answers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_case_byte_by_byte(case: Case) -> None:
    """The same, where every byte is a packet of its own."""
    assert await observe(case, "inline", bytewise=len(case.sent) < 200) == (case.answers, case.code)


def is_pong(frame: Frame) -> bool:
    return frame.opcode == PONG


# Negative controls


def parse_without(check: str) -> Callable[..., Generator[None, None, library.Frame]]:
    """The library's parser with one check left out."""

    def parse(
        read_exact: Callable[[int], Generator[None, None, bytes]],
        *,
        mask: bool,
        max_size: int | None = None,
        extensions: Any = None,
    ) -> Generator[None, None, library.Frame]:
        first, second = yield from read_exact(2)
        opcode = first & 0x0F
        if opcode not in (0, 1, 2, 8, 9, 10):
            if check != "opcode":
                raise ProtocolError("invalid opcode")
            opcode = BINARY
        if not second & 0x80 and check != "masking":
            raise ProtocolError("incorrect masking")
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", (yield from read_exact(2)))
        elif length == 127:
            (length,) = struct.unpack("!Q", (yield from read_exact(8)))
        if max_size is not None and length > max_size and check != "size":
            raise PayloadTooBig(length, max_size)
        key = (yield from read_exact(4)) if second & 0x80 else b"\0\0\0\0"
        payload = library.apply_mask((yield from read_exact(length)), key)
        if first & 0x70 and check != "reserved":
            raise ProtocolError("reserved bits must be 0")
        if opcode >= 8 and length > 125 and check != "control length":
            raise ProtocolError("control frame too long")
        if opcode >= 8 and not first & 0x80 and check != "control fragment":
            raise ProtocolError("fragmented control frame")
        return library.Frame(library.Opcode(opcode), payload, bool(first & 0x80))

    return parse


class Lenient(bytes):
    """Bytes that decode to text whatever they are."""

    def decode(self, *_: object) -> str:
        return bytes.decode(self, errors="replace")


def take_out(check: str, patch: pytest.MonkeyPatch) -> None:
    """Leave ``check`` out."""
    if check in ("masking", "reserved", "opcode", "control length", "control fragment", "size"):
        patch.setattr(library.Frame, "parse", staticmethod(parse_without(check)))
    if check == "control length":
        patch.setattr(library.Frame, "check", lambda self: None)
    if check == "answer":
        patch.setattr("tests.ws.test_conformance.echo", lambda ws, message: None)
        patch.setattr(library.Close, "parse", classmethod(lambda cls, data: cls(4321, "")))
        patch.setattr(Protocol, "send_frame", lambda self, frame: None)
    elif check == "pong":
        send = Protocol.send_frame

        def send_frame(self: Protocol, frame: library.Frame) -> None:
            if frame.opcode != PONG:
                send(self, frame)

        patch.setattr(Protocol, "send_frame", send_frame)
    elif check == "sequence":
        receive = Protocol.recv_frame

        def recv_frame(self: Protocol, frame: library.Frame) -> None:
            if frame.opcode in (TEXT, BINARY, CONT):
                self.current_size = None if frame.fin else 0
            else:
                receive(self, frame)

        patch.setattr(Protocol, "recv_frame", recv_frame)
    elif check == "close code":
        patch.setattr(library.Close, "check", lambda self: None)
    elif check == "close length":
        parse_close = library.Close.parse
        patch.setattr(
            library.Close, "parse", classmethod(lambda cls, data: parse_close(b"" if len(data) == 1 else data))
        )
    elif check == "close text":
        parse_close = library.Close.parse
        patch.setattr(library.Close, "parse", classmethod(lambda cls, data: parse_close(data[:2])))
    elif check == "close":
        patch.setattr(reader.Reader, "_close_received", lambda self: None)
        patch.setattr(Protocol, "send_frame", lambda self, frame: None)
    elif check == "utf-8":
        unmask = reader.apply_mask
        patch.setattr(reader, "apply_mask", lambda data, key: Lenient(unmask(data, key)))
    elif check == "utf-8 pieces":
        patch.setattr(
            reader.codecs, "getincrementaldecoder", lambda name: lambda: type("D", (), {"decode": lambda *_: ""})()
        )
        patch.setattr(reader, "bytes", lambda data: Lenient(data), raising=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_case_fails_without_its_check(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the check is taken out, something else comes back."""
    take_out(case.check, monkeypatch)
    try:
        outcome = await observe(case, "inline", bytewise=False, patience=0.2)
    except (AssertionError, TimeoutError):
        return
    assert outcome != (case.answers, case.code)
