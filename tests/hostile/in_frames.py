"""Frames of the WebSocket protocol, on the addresses of devices and dashboards (RFC 6455; ``tests/ws`` has more)."""

from __future__ import annotations

from tests.ws.support import BINARY, CONT, PING, TEXT, close_frame, frame

from .corpus import Case
from .doors import Frames


def device(attack: str, name: str, sent: bytes, *expected: str, check: str = "") -> Case:
    return Case(attack, name, "device", Frames(sent), expected, check)


CASES = [
    device("utf-8", "a text that is none", frame(TEXT, b'{"a":"\xff"}'), "close 1007", check="utf-8"),
    device("utf-8", "overlong", frame(TEXT, b'{"a\xc0\xaf":1}'), "close 1007", check="utf-8"),
    device("utf-8", "a surrogate", frame(TEXT, b'{"a":"\xed\xa0\x80"}'), "close 1007", check="utf-8"),
    device("utf-8", "cut off at the end", frame(TEXT, b'{"a":"\xe2\x82'), "close 1007", check="utf-8"),
    device(
        "utf-8",
        "cut in two, and wrong",
        frame(TEXT, b'{"a":"\xe2', fin=False) + frame(CONT, b"\xff\xff"),
        "close 1007",
        check="utf-8 pieces",
    ),
    device("lengths", "a frame of 2**62", frame(TEXT, b"x" * 100, length=1 << 62), "close 1009", check="message size"),
    device(
        "lengths",
        "a frame of 2**63 and more",
        frame(BINARY, b"x" * 9, length=(1 << 63) + 5),
        "close 1009",
        check="message size",
    ),
    device("lengths", "a frame of 65,537", frame(TEXT, b"", length=65_537), "close 1009", check="message size"),
    device("lengths", "a ping of 126", frame(PING, b"x" * 126), "close 1002", check="control length"),
    device(
        "fragments",
        "pieces that are too much together",
        frame(TEXT, b" " * 40_000, fin=False) + frame(CONT, b" " * 40_000, fin=False),
        "close 1009",
        check="message size",
    ),
    device(
        "fragments",
        "a byte a piece, 70,000 of them",
        frame(TEXT, b" ", fin=False) + frame(CONT, b" ", fin=False) * 70_000,
        "close 1009",
        check="message size",
    ),
    device(
        "fragments",
        "a byte a piece, and good",
        frame(TEXT, b"{", fin=False)
        + b"".join(frame(CONT, bytes((c,)), fin=False) for c in b'"a":1')
        + frame(CONT, b"}"),
        "served",
    ),
    device(
        "fragments",
        "20,000 empty pieces",
        frame(TEXT, b"{}", fin=False) + frame(CONT, fin=False) * 20_000 + frame(CONT),
        "served",
    ),
    device(
        "fragments",
        "pings between pieces",
        (frame(TEXT, b"{", fin=False) + frame(PING) * 500 + frame(CONT, b"}")),
        "served",
    ),
    device("flood", "3,000 pings", frame(PING, b"x" * 125) * 3_000, "served"),
    device("flood", "10,000 empty pongs", frame(10) * 10_000, "served"),
    device(
        "compression",
        "a compressed frame",
        frame(TEXT, b"\xaa\x56\x4a\x54\xb2\x32\xac\x05\0", rsv=4),
        "close 1002",
        check="reserved",
    ),
    device("request", "not masked", frame(TEXT, b"{}", mask=None), "close 1002", check="masking"),
    device("request", "an opcode that there is not", frame(3, b"{}"), "close 1002", check="opcode"),
    device("request", "a close of one byte", frame(8, b"\x03"), "close 1002", check="close length"),
    device("request", "a close with a code that nobody may send", close_frame(1005), "close 1002", check="close code"),
    *[
        Case(
            "compression",
            f"offered at {path}",
            "upgrade",
            (path, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
            ("101",),
            "no compression",
        )
        for path in ("/v1/devices/deflated", "/v1/live")
    ],
    Case("size", "a message too long for the feed", "live", lambda: " " * 70_000, ("close 1009",), "message size"),
    Case("utf-8", "a text that is none, at the feed", "live", Frames(frame(TEXT, b"\xff")), ("close 1007",), "utf-8"),
    Case("size", "a request too long", "control", lambda: " " * 300_000, ("close 1009",), "message size"),
]
