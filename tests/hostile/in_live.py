"""Dashboards: what they ask of the live feed."""

from __future__ import annotations

import json

import msgspec

from tests.collisions import in_msgpack

from .corpus import Case
from .doors import Commands

BAD = ("bad_command", "served")


def asks(
    attack: str,
    name: str,
    *sent: object,
    expected: tuple[str, ...] = ("bad_request", "served"),
    check: str = "requests",
) -> Case:
    return Case(attack, name, "live", sent, expected, check)


def subscribe(attack: str, name: str, check: str = "requests", **more: object) -> Case:
    return asks(attack, name, {"type": "subscribe", "id": "x", **more}, check=check)


CASES = [
    *[
        asks("broken encoding", f"{sent[:12]!r}", sent)
        for sent in (
            "",
            "{",
            "7",
            "null",
            "[]",
            '"subscribe"',
            "\0",
            b"",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
        )
    ],
    asks("depth", "arrays without end", "[" * 60_000, check="requests"),
    asks("depth", "behind a known type", '{"type":"subscribe","devices":' + "[" * 60_000, check="requests"),
    asks("depth", "MessagePack without end", b"\x91" * 60_000, check="requests"),
    asks(
        "depth",
        "parameters of a command",
        '{"type":"command","device":"d","name":"n","params":' + "[" * 40 + "]" * 40 + "}",
        check="params depth",
    ),
    asks(
        "depth",
        "parameters without end",
        '{"type":"command","device":"d","name":"n","params":' + "[" * 60_000,
        check="requests",
    ),
    asks("requests", "a type that there is not", {"type": "shutdown"}),
    asks("requests", "no type", {"id": "x"}),
    asks("requests", "a type that is a list", {"type": []}),
    asks("requests", "a type of 50,000 characters", {"type": "x" * 50_000}),
    asks("requests", "a hello of its own", {"type": "hello"}),
    asks("requests", "the end of nothing", {"type": "unsubscribe", "id": "nothing"}, check="unsubscribe"),
    subscribe("requests", "an id that is a number", id=7),
    subscribe("requests", "no id", id=""),
    subscribe("size", "an id of 65 characters", id="x" * 65),
    subscribe("size", "an id of 50,000 characters", id="x" * 50_000),
    subscribe("requests", "a mode that there is not", mode="all"),
    asks("numbers", "an interval of 1e999", '{"type":"subscribe","interval_ms":1e999}'),
    asks("numbers", "an interval that is NaN", '{"type":"subscribe","interval_ms":NaN}'),
    subscribe("numbers", "an interval below nothing", interval_ms=-1),
    subscribe("numbers", "an interval of years", interval_ms=1e15),
    subscribe("numbers", "a history of ages", history_s=1e300),
    subscribe("numbers", "a history below nothing", history_s=-1),
    asks("numbers", "after 5,000 digits", '{"type":"subscribe","epoch":"x","after":' + "9" * 5_000 + "}"),
    asks(
        "numbers",
        "after more than there is",
        {"type": "subscribe", "id": "x", "devices": ["nobody"], "epoch": "x", "after": 1 << 62},
        expected=("served",),
        check="",
    ),
    asks(
        "numbers",
        "MessagePack: NaN for a history",
        msgspec.msgpack.encode({"type": "subscribe", "history_s": float("nan")}),
    ),
    # globs
    subscribe("globs", "101 patterns", devices=[f"a{n}*" for n in range(101)], check="patterns"),
    subscribe("globs", "501 stars", metrics=["*a" * 60] * 9, check="stars"),
    subscribe("globs", "a glob of 129 characters", devices=["x" * 129]),
    subscribe("globs", "1,001 globs", devices=["a"] * 1_001),
    subscribe("globs", "10,000 globs", metrics=["a"] * 10_000),
    subscribe("globs", "globs that are numbers", devices=[1]),
    subscribe("globs", "globs that are an object", devices={"a": "b"}),
    asks(
        "globs",
        "stars that try everything",
        {"type": "subscribe", "id": "x", "devices": ["*a" * 60 + "b"] * 8, "metrics": ["*" * 120 + "x"] * 4},
        expected=("served",),
        check="",
    ),
    asks(
        "globs",
        "expressions are text",
        {"type": "subscribe", "id": "x", "devices": ["(a+)+$", "[a-z]{99}", "\\", "^(?:x)"]},
        expected=("served",),
        check="",
    ),
    # flood
    asks(
        "flood",
        "20 subscriptions",
        *({"type": "subscribe", "id": f"s{n}", "devices": ["nobody"]} for n in range(20)),
        {"type": "unsubscribe", "id": "s0"},
        expected=("too_many_subscriptions x 4", "served"),
        check="subscriptions",
    ),
    asks(
        "flood",
        "one subscription 300 times",
        *({"type": "subscribe", "id": "x", "devices": ["nobody"]} for _ in range(300)),
        expected=("served",),
        check="",
    ),
    asks("flood", "2,000 bad requests", *(["{"] * 2_000), expected=("bad_request x 2000", "served")),
    # names
    asks(
        "names",
        "prototypes and markup",
        {"type": "subscribe", "id": "__proto__", "devices": ["<script>"]},
        expected=("served",),
        check="",
    ),
    asks(
        "control characters",
        "an id with NUL",
        {"type": "subscribe", "id": "a\0\x1b[2J", "devices": ["x"]},
        expected=("served",),
        check="",
    ),
    asks("control characters", "a lone surrogate", '{"type":"subscribe","id":"\\ud800"}'),
    *[
        Case(
            attack,
            f"a command: {name}",
            "live",
            Commands([{"type": "command", "device": "d", "name": "n", **more}]),
            BAD,
            "commands",
        )
        for attack, name, more in (
            ("names", "to a topic", {"device": "d/#"}),
            ("names", "to all", {"device": "*"}),
            ("names", "to nobody", {"device": ""}),
            ("size", "to a long name", {"device": "x" * 50_000}),
            ("control characters", "a name with NUL", {"name": "a\0"}),
            ("control characters", "a name of two lines", {"name": "a\nb"}),
            ("size", "a long name", {"name": "x" * 50_000}),
            ("size", "a long ref", {"ref": "x" * 50_000}),
            ("control characters", "a ref with an escape sequence", {"ref": "\x1b[2J"}),
            ("numbers", "for no time", {"ttl_s": 0}),
            ("numbers", "for ages", {"ttl_s": 1e300}),
            ("shape", "parameters that are a list", {"params": [1]}),
            ("size", "parameters of 60,000 bytes", {"params": {"a": "x" * 60_000}}),
        )
    ],
    *[
        Case(
            "numbers",
            f"parameters of a command: {name}",
            "live",
            Commands([{"type": "command", "device": "d", "name": "n", "params": params}]),
            BAD,
            "params numbers",
        )
        for name, params in {
            "2**64": {"a": 1 << 64},
            "below -2**63": {"a": -(1 << 63) - 1},
            "deep within": {"a": [{"b": [1, 1 << 80]}]},
        }.items()
    ],
    asks(
        "duplicates",
        "MessagePack: 4,000 keys of one hash",
        b"\x84\xa4type\xa9subscribe\xa2id\xa1x\xa7devices\x91\xa6nobody\xa4more" + in_msgpack(4_000),
        check="keys",
    ),
    asks(
        "duplicates",
        "MessagePack: a command with 4,000 parameters of one hash",
        b"\x84\xa4type\xa7command\xa6device\xa1d\xa4name\xa1n\xa6params" + in_msgpack(4_000),
        check="",
    ),
    asks(
        "size",
        "a token of 60,000 characters",
        json.dumps({"type": "auth", "token": "x" * 60_000}),
        expected=("served",),
        check="",
    ),
]
